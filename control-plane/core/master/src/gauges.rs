//! Gauges: sums over what is held, made when somebody asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use mesos::{Quantities, Resources, Role, Scalar};
use mesos_proto::v1::{OperationState, TaskState};

use crate::metrics::state_key;
use crate::{Master, Snapshot};

const SCALARS: [&str; 4] = ["cpus", "gpus", "mem", "disk"];

impl Snapshot {
    /// The gauges that follow from what is held, and all counters, by the names of `/metrics/snapshot`.
    ///
    /// Costs a walk over everything: for readers, never for the master's own thread.
    pub fn gauges(&self) -> BTreeMap<String, f64> {
        let mut gauges: BTreeMap<String, f64> = self.metrics.iter().map(|(key, count)| (key.to_owned(), number(count))).collect();
        let mut add = |key: &str, value: usize| {
            *gauges.entry(format!("master/{key}")).or_insert(0.0) += number(value as u64);
        };
        for key in ["slaves_connected", "slaves_disconnected", "slaves_active", "slaves_inactive"] {
            add(key, 0);
        }
        for agent in self.agents.values() {
            add(if agent.connected() { "slaves_connected" } else { "slaves_disconnected" }, 1);
            add(if agent.active() { "slaves_active" } else { "slaves_inactive" }, 1);
        }
        add("slaves_unreachable", self.registry.unreachable.len());
        for key in ["frameworks_connected", "frameworks_disconnected", "frameworks_active", "frameworks_inactive"] {
            add(key, 0);
        }
        for key in ["tasks_staging", "tasks_starting", "tasks_running", "tasks_killing", "tasks_unreachable"] {
            add(key, 0);
        }
        for framework in self.frameworks.values() {
            add(if framework.connected() { "frameworks_connected" } else { "frameworks_disconnected" }, 1);
            add(if framework.active() { "frameworks_active" } else { "frameworks_inactive" }, 1);
            add("tasks_unreachable", framework.unreachable_tasks.len());
            for task in framework.tasks.values() {
                if matches!(task.state, TaskState::TaskStaging | TaskState::TaskStarting | TaskState::TaskRunning | TaskState::TaskKilling)
                {
                    add(&state_key(task.state).replacen("task_", "tasks_", 1), 1);
                }
            }
        }
        add("outstanding_offers", self.offers.len());
        let in_state = |state| self.operations.values().filter(|it| it.state == state).count();
        add("operations/pending", in_state(OperationState::OperationPending));
        add("operations/recovering", in_state(OperationState::OperationRecovering));
        self.resource_gauges(&mut gauges);
        gauges
    }

    fn resource_gauges(&self, gauges: &mut BTreeMap<String, f64>) {
        let mut total: BTreeMap<(&str, bool), Scalar> = BTreeMap::new();
        let mut used = total.clone();
        let count = |sum: &mut BTreeMap<(&'static str, bool), Scalar>, resources: &Resources| {
            for it in resources {
                if let Some(name) = SCALARS.iter().find(|name| **name == &**it.name()) {
                    *sum.entry((name, it.is_revocable())).or_default() += it.amount();
                }
            }
        };
        for agent in self.agents.values() {
            count(&mut total, &agent.total);
            for resources in agent.used.values() {
                count(&mut used, resources);
            }
        }
        for name in SCALARS {
            for (revocable, suffix) in [(false, ""), (true, "_revocable")] {
                let total = total.get(&(name, revocable)).map_or(0.0, |it| it.to_f64());
                let used = used.get(&(name, revocable)).map_or(0.0, |it| it.to_f64());
                gauges.insert(format!("master/{name}{suffix}_total"), total);
                gauges.insert(format!("master/{name}{suffix}_used"), used);
                gauges.insert(format!("master/{name}{suffix}_percent"), if total > 0.0 { used / total } else { 0.0 });
            }
        }
    }
}

/// What the allocator counts.
#[derive(Clone, Debug, Default)]
pub struct AllocatorGauges {
    /// All there is.
    pub total: Quantities,
    /// What of it is offered or used.
    pub allocated: Quantities,
    /// The dominant share of each role, weighed.
    pub shares: BTreeMap<Role, f64>,
    /// How many refusals of each role's frameworks are remembered.
    pub offer_filters: BTreeMap<Role, usize>,
}

/// How old the allocator's gauges may be while it runs.
const GAUGES_INTERVAL: Duration = Duration::from_secs(1);

impl Master {
    /// The allocator's gauges. Costs a walk over roles, and over frameworks in roles.
    pub fn allocator_gauges(&self) -> AllocatorGauges {
        AllocatorGauges {
            total: self.allocator.total().clone(),
            allocated: self.allocator.allocated(),
            shares: self.allocator.shares(),
            offer_filters: self.allocator.offer_filters(),
        }
    }

    /// Puts the allocator's gauges into what may be read: once a second at most, so that many readers cost the master no more than one.
    pub(crate) fn refresh_gauges(&mut self, now: Timestamp) {
        if now >= self.gauges_due {
            self.gauges_due = now + GAUGES_INTERVAL;
            self.state.allocator = Arc::new(self.allocator_gauges());
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
fn number(count: u64) -> f64 {
    count as f64
}
