//! The containers' part of a round.

use std::collections::HashMap;
use std::time::Duration;

use proto::probe::v1::ContainerMetrics;

use crate::cgroupfs::{CgroupReader, Usage};
use crate::clock::Instants;
use crate::procfs::Procfs;
use crate::procfs::sampler::{Budget, SampledContainer, percent};

/// Looks at containers, and remembers what it needs for the next look.
#[derive(Debug)]
pub(super) struct ContainerSampler {
    cgroups: CgroupReader,
    previous: HashMap<String, Previous>,
    /// The first to be looked at: where the budget ended last time.
    begin_at: String,
}

/// What the last look at a container found: it may have had no turn in the round before.
#[derive(Clone, Copy, Debug)]
struct Previous {
    awake_nanos: u64,
    cpu_nanos: Option<u64>,
    periods: u64,
    throttled_periods: u64,
}

impl ContainerSampler {
    pub(super) fn new(cgroups: CgroupReader) -> Self {
        ContainerSampler { cgroups, previous: HashMap::new(), begin_at: String::new() }
    }

    /// Looks at all of `containers`, or at as many as `budget` allows. Returns whether some had no turn.
    pub(super) fn look(
        &mut self,
        procfs: &Procfs,
        at: Instants,
        cpu_count: u32,
        containers: &[SampledContainer],
        stacked: Vec<(u64, u64)>,
        budget: Duration,
    ) -> (Vec<ContainerMetrics>, bool) {
        self.cgroups.begin_round(stacked);
        let begin = containers.iter().position(|it| it.id >= self.begin_at).unwrap_or(0);
        let (behind, first) = containers.split_at(begin);
        let budget = Budget::begin(budget);
        let mut samples = Vec::with_capacity(containers.len());
        let mut cut = false;
        for container in first.iter().chain(behind) {
            if budget.is_used_up() {
                self.begin_at.clone_from(&container.id);
                cut = true;
                break;
            }
            if let Some(usage) = self.cgroups.usage(procfs, &container.id, container.cgroup_path.as_deref(), container.pid) {
                samples.push(self.sample(&container.id, &usage, at, cpu_count));
            }
        }
        self.cgroups.keep_only(containers.iter().map(|it| it.id.as_str()));
        if self.previous.len() > containers.len() {
            let ids: std::collections::BTreeSet<&str> = containers.iter().map(|it| it.id.as_str()).collect();
            self.previous.retain(|id, _| ids.contains(id.as_str()));
        }
        (samples, cut)
    }

    fn sample(&mut self, id: &str, usage: &Usage, at: Instants, cpu_count: u32) -> ContainerMetrics {
        let current = Previous {
            awake_nanos: at.awake_nanos,
            cpu_nanos: usage.cpu_nanos,
            periods: usage.periods,
            throttled_periods: usage.throttled_periods,
        };
        let before = match self.previous.get_mut(id) {
            Some(previous) => Some(std::mem::replace(previous, current)),
            None => {
                self.previous.insert(id.to_owned(), current);
                None
            }
        };
        let cpu_percent = before.and_then(|before| {
            let elapsed = at.awake_nanos.saturating_sub(before.awake_nanos);
            Some(percent(usage.cpu_nanos?.saturating_sub(before.cpu_nanos?), elapsed.saturating_mul(cpu_count.into())))
        });
        let cpu_throttled_percent = before.map_or(0.0, |before| {
            percent(usage.throttled_periods.saturating_sub(before.throttled_periods), usage.periods.saturating_sub(before.periods))
        });
        ContainerMetrics {
            id: id.to_owned(),
            at_unix_nanos: at.now.unix_nanos,
            cpu_percent: cpu_percent.unwrap_or(0.0),
            memory_bytes: usage.own_memory_bytes(),
            memory_limit_bytes: usage.memory_limit_bytes,
            cpu_limit: usage.cpu_limit,
            cpu_throttled_percent,
            cpu_throttled_nanos: usage.throttled_nanos,
            pressure: usage.pressure,
            oom_kills: usage.oom_kills,
            io_read_bytes: usage.io_read_bytes,
            io_written_bytes: usage.io_written_bytes,
            // The process table knows; see `report`.
            process_count: 0,
            thread_count: usage.task_count,
        }
    }
}
