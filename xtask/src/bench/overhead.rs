//! What the probe costs.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::containers::Containers;
use super::kernel_time::{self, Statistics};
use super::{Number, Target, client, counter, cpu_percent, float, server};
use crate::progress::{Pulse, note};
use crate::services::resident_mb;
use crate::stack::Stack;
use crate::{Checkout, Profile};

/// Connections a second.
const RATE: u64 = 500;
/// How many containers run meanwhile.
const CONTAINERS: u64 = 100;
/// How long the probe is left alone before it is measured idle.
const SETTLE: Duration = Duration::from_secs(10);
/// How long it is measured idle.
const IDLE: u64 = 30;
/// How long it is measured under load.
const BUSY: u64 = 60;
/// How long the kernel's statistics are on.
const STATISTICS: u64 = 20;
/// Connections, one after another, that show what a connection costs whoever opens it.
const IN_A_ROW: u64 = 20_000;

pub(super) fn run(checkout: &Checkout, scale_down: u64) -> Result<Vec<Number>> {
    let seconds = |whole: u64| Duration::from_secs((whole / scale_down).max(2));
    if other_probe_runs() {
        note("another probe runs on this machine: its kernel programs are in the numbers \"without the probe\"");
    }
    let without = micros_per_connection(scale_down)?;
    let mut stack = Stack::start(Profile::Release)?;
    let probe = stack.probe_pid()?;
    let with = micros_per_connection(scale_down)?;

    let idle = {
        let _alive = Pulse::start("the probe with nothing to do");
        std::thread::sleep(SETTLE);
        cpu_percent(probe, seconds(IDLE))?
    };
    let mut numbers = vec![Number::new("overhead: probe idle, of one core", idle, "%", Target::Under(0.3))];

    let containers = match Containers::start(checkout, CONTAINERS / scale_down) {
        Ok(containers) => Some(containers),
        Err(error) => {
            note(&format!("no containers, so the probe has less to know than the target says: {error:#}"));
            None
        }
    };
    let running = containers.as_ref().map_or(0, Containers::len);
    let (busy, memory) = under_load(probe, seconds(BUSY), |probe, time| {
        let busy = cpu_percent(probe, time)?;
        Ok((busy, resident_mb(probe).context("the probe is gone")?))
    })?;
    let load = format!("{RATE} connections/s, {running} containers");
    numbers.push(Number::new(format!("overhead: probe at {load}, of one core"), busy, "%", Target::Under(2.0)));
    numbers.push(Number::new(format!("overhead: probe at {load}, resident"), memory, "MB", Target::Under(40.0)));

    let (per_end, runs) = under_load(probe, seconds(STATISTICS), |probe, time| kernel_cost(probe, time, &mut stack))?;
    numbers.push(Number::new("overhead: time in the kernel per connection end", per_end, "µs", Target::Under(3.0)));
    numbers.push(Number::new("overhead: program runs per connection end", runs, "", Target::Stated));
    numbers.push(Number::new("overhead: open and close in a row, without the probe", without, "µs", Target::Stated));
    numbers.push(Number::new("overhead: open and close in a row, with the probe", with, "µs", Target::Stated));
    numbers.push(Number::new("overhead: ratio of the two", with / without, "×", Target::Stated));
    Ok(numbers)
}

/// Whether a probe is attached to this kernel already.
fn other_probe_runs() -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok()).any(|name| name.trim() == "orchestrator-pr")
}

/// Measures while connections are made at the rate.
fn under_load<T>(probe: u32, time: Duration, measure: impl FnOnce(u32, Duration) -> Result<T>) -> Result<T> {
    let (_server, address) = server()?;
    // A little more than is measured, so that the load neither begins nor ends inside.
    let _client = client(&address, RATE * (time.as_secs() + 6), RATE)?;
    std::thread::sleep(Duration::from_secs(3));
    let _alive = Pulse::start(&format!("{RATE} connections a second for {} s", time.as_secs()));
    measure(probe, time)
}

/// Microseconds in the kernel programs and their runs, per connection end that the probe saw.
fn kernel_cost(probe: u32, time: Duration, stack: &mut Stack) -> Result<(f64, f64)> {
    let _statistics = Statistics::enable()?;
    let before = kernel_time::read(probe)?;
    std::thread::sleep(time);
    let after = kernel_time::read(probe)?;
    let (nanos, runs) = kernel_time::between(&before, &after);
    // Two ends for each connection; what else the machine does besides is counted as cost, never as an end.
    let ends = float(RATE * time.as_secs() * 2);
    note(&format!("{} kernel programs; the probe has seen {} ends in all", after.len(), stack.probe_state()?["losses"]["endsSeen"]));
    Ok((float(nanos) / 1e3 / ends, float(runs) / ends))
}

/// What one connection after another takes, in microseconds each.
fn micros_per_connection(scale_down: u64) -> Result<f64> {
    let (_server, address) = server()?;
    let report = client(&address, IN_A_ROW / scale_down, 0)?.report()?;
    let seconds = report["seconds"].as_f64().context("no duration in the load program's report")?;
    Ok(seconds * 1e6 / float(counter(&report, "connected")?.max(1)))
}
