//! What a container may use, and how its cgroup is told.

use std::io;

use super::{Cgroup, read_number, write};

/// Least memory that a container gets, in bytes, as in Mesos.
const MEMORY_MIN: u64 = 32 << 20;

/// One period of the CPU ceiling.
const CFS_PERIOD_US: u64 = 100_000;

/// What a container may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// CPUs as a share.
    pub cpus: f64,
    /// CPUs as a ceiling; infinite: none.
    pub cpus_limit: Option<f64>,
    /// Memory that is its own, in megabytes.
    pub mem: f64,
    /// Memory that it may have at most, in megabytes; infinite: none.
    pub mem_limit: Option<f64>,
}

impl Limits {
    /// What is added to the score by which the kernel chooses whom it ends when the host's memory is short, of 1000, as in Mesos: with the share of the
    /// host that it uses, who may have more memory than is its own has a thousand as soon as it does. `None`: nothing, it may not have more.
    /// `total`: bytes of memory of the host.
    pub fn oom_score_adj(&self, total: u64) -> Option<i32> {
        let limit = self.mem_limit?;
        let own = megabytes(self.mem).max(MEMORY_MIN);
        if limit.is_finite() && megabytes(limit) <= own {
            return None;
        }
        let share = own.saturating_mul(1000).checked_div(total)?.min(1000);
        i32::try_from(1000 - share).ok()
    }
}

impl Cgroup {
    /// Sets what it may use. A hard memory limit is only ever raised after the first time, as in Mesos.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limit(&self, limits: &Limits, first: bool) -> io::Result<()> {
        if self.is_v2 { self.limit_v2(limits, first) } else { self.limit_v1(limits, first) }
    }

    fn limit_v1(&self, limits: &Limits, first: bool) -> io::Result<()> {
        // The limits of what it is nested in are not its own.
        let own = |controller: &'static str| self.paths.get(controller).filter(|_| self.own.contains(controller));
        if let Some(path) = own("cpu") {
            write(&path.join("cpu.shares"), &whole(1024.0 * limits.cpus).max(2).to_string())?;
            if let Some(quota) = self.quota(limits) {
                write(&path.join("cpu.cfs_period_us"), &CFS_PERIOD_US.to_string())?;
                write(&path.join("cpu.cfs_quota_us"), &quota.map_or("-1".to_owned(), |it| it.to_string()))?;
            }
        }
        if let Some(path) = own("memory") {
            let request = megabytes(limits.mem).max(MEMORY_MIN);
            write(&path.join("memory.soft_limit_in_bytes"), &request.to_string())?;
            let hard = limits.mem_limit.map_or(Some(request), |it| it.is_finite().then(|| megabytes(it).max(MEMORY_MIN)));
            let current = read_number(&path.join("memory.limit_in_bytes"));
            let raise = hard.is_none_or(|hard| current.is_some_and(|it| hard > it));
            if first || raise {
                let text = hard.map_or("-1".to_owned(), |it| it.to_string());
                let both = path.join("memory.memsw.limit_in_bytes");
                // The one of both may never be below the other.
                if self.settings.limit_swap && raise && !first {
                    write(&both, &text)?;
                }
                write(&path.join("memory.limit_in_bytes"), &text)?;
                if self.settings.limit_swap && first {
                    write(&both, &text)?;
                }
            }
        }
        Ok(())
    }

    fn limit_v2(&self, limits: &Limits, first: bool) -> io::Result<()> {
        let Some(path) = self.paths.get("") else { return Ok(()) };
        let has = |file: &str| path.join(file).exists();
        if self.settings.cpu && has("cpu.weight") {
            write(&path.join("cpu.weight"), &whole(100.0 * limits.cpus).clamp(1, 10_000).to_string())?;
            if let Some(quota) = self.quota(limits) {
                let quota = quota.map_or("max".to_owned(), |it| it.to_string());
                write(&path.join("cpu.max"), &format!("{quota} {CFS_PERIOD_US}"))?;
            }
        }
        if self.settings.memory && has("memory.max") {
            let request = megabytes(limits.mem).max(MEMORY_MIN);
            write(&path.join("memory.low"), &request.to_string())?;
            let hard = limits.mem_limit.map_or(Some(request), |it| it.is_finite().then(|| megabytes(it).max(MEMORY_MIN)));
            let current = read_number(&path.join("memory.max"));
            // A limit that is no number is none.
            let raise = hard.is_none_or(|hard| current.is_some_and(|it| hard > it));
            if first || raise {
                write(&path.join("memory.max"), &hard.map_or("max".to_owned(), |it| it.to_string()))?;
            }
        }
        Ok(())
    }

    /// The CPU ceiling, where one is to be written: `Some(None)` says that there is none.
    fn quota(&self, limits: &Limits) -> Option<Option<u64>> {
        let cpus = match limits.cpus_limit {
            Some(limit) if limit.is_infinite() => return Some(None),
            Some(limit) => limit,
            None if self.settings.enable_cfs => limits.cpus,
            None => return None,
        };
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let period = CFS_PERIOD_US as f64;
        Some(Some(whole(period * cpus).max(1_000)))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and negative is nothing")]
fn whole(value: f64) -> u64 {
    value as u64
}

fn megabytes(value: f64) -> u64 {
    whole(value * 1024.0 * 1024.0)
}
