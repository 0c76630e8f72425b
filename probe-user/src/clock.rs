//! The two clocks of the probe, read together; and what the probe costs.

use std::time::Duration;

use crate::observation::BootNanos;

/// One instant, by both clocks. The pure middle never reads a clock: it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME`: the clock of all observations.
    pub boot: BootNanos,
    /// `CLOCK_REALTIME`, nanoseconds since 1970 UTC: the clock of all reports.
    pub unix_nanos: u64,
}

impl Now {
    /// Reads both clocks of this machine.
    pub fn read() -> Self {
        Now { boot: BootNanos(read(nix::time::ClockId::CLOCK_BOOTTIME)), unix_nanos: read(nix::time::ClockId::CLOCK_REALTIME) }
    }

    /// Unix time of an instant of the boot clock, by how the two clocks stand to each other now.
    pub fn unix_at(self, at: BootNanos) -> u64 {
        self.unix_nanos.saturating_add(at.0).saturating_sub(self.boot.0)
    }
}

/// An instant of a look: what the clocks say, and how long the machine was awake until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instants {
    /// By the clocks of observations and reports.
    pub now: Now,
    /// `CLOCK_MONOTONIC`, nanoseconds since boot without the time in which the machine was suspended: what happened per second is counted by it.
    pub awake_nanos: u64,
}

impl Instants {
    /// Reads the clocks of this machine.
    pub fn read() -> Self {
        Instants { now: Now::read(), awake_nanos: read(nix::time::ClockId::CLOCK_MONOTONIC) }
    }
}

/// CPU time that this thread has used: what a budget of work is counted in, so that waiting for a turn on a busy machine costs nothing of it.
pub fn thread_cpu() -> std::time::Duration {
    std::time::Duration::from_nanos(read(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID))
}

/// The same for all threads of the probe.
pub fn process_cpu() -> Duration {
    Duration::from_nanos(read(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID))
}

fn read(clock: nix::time::ClockId) -> u64 {
    // Both clocks exist on every kernel that the probe runs on; a clock before its epoch reads as zero.
    let Ok(time) = nix::time::clock_gettime(clock) else { return 0 };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_before_now_is_as_long_ago_on_both_clocks() {
        let now = Now { boot: BootNanos(1_000), unix_nanos: 50_000 };
        assert_eq!(now.unix_at(BootNanos(400)), 49_400);
        assert_eq!(now.unix_at(BootNanos(1_200)), 50_200);
    }

    #[test]
    fn the_clocks_of_this_machine_move() {
        let first = Now::read();
        let second = Now::read();
        assert!(first.boot.0 > 0 && second.boot >= first.boot);
        assert!(first.unix_nanos > 1_500_000_000_000_000_000);
    }
}
