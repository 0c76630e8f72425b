//! Many containers: memory with all of them, and how soon one that starts is on the map.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use super::super::containers::{Containers, docker, start_one};
use super::{Number, Target, ids_told, percentile, resident, seconds, watch_containers};
use crate::progress::{Pulse, note};
use crate::stack::Stack;
use crate::{Checkout, Profile};

/// How many run at once.
const CONTAINERS: u64 = 500;
/// How many are started while somebody watches.
const STARTS: u64 = 100;
/// How long a container may take to be on the map at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// Memory and time with many.
pub(super) fn many(checkout: &Checkout, scale_down: u64) -> Result<Vec<Number>> {
    let stack = Stack::start(Profile::Release)?;
    let probe = stack.probe_pid()?;
    let many = Containers::start(checkout, CONTAINERS / scale_down)?;
    std::thread::sleep(seconds(40, scale_down));
    let mut numbers =
        vec![Number::new(format!("probe: resident with {} containers", many.len()), resident(probe)?, "MB", Target::Under(60.0))];
    let busy = super::cpu_percent(probe, seconds(30, scale_down))?;
    numbers.push(
        Number::new(format!("probe: with {} containers at rest, of one core", many.len()), busy, "%", Target::Stated)
            .beside("Scope 20.5 with 100"),
    );
    Ok(numbers)
}

/// From the start of a container, as the runtime tells it, to the message with its node.
pub(super) fn starts(checkout: &Checkout, scale_down: u64) -> Result<Vec<Number>> {
    let stack = &Stack::start(Profile::Release)?;
    let count = (STARTS / scale_down).max(5);
    let _first = Containers::start(checkout, 1)?;
    let mut socket = watch_containers(stack)?;
    let (mut times, mut late) = (Vec::new(), 0_u32);
    let _alive = Pulse::start(&format!("{count} containers, one after another"));
    for _ in 0..count {
        let id = start_one()?;
        let node = format!("{id};<container>");
        let deadline = Instant::now() + PATIENCE;
        let mut arrived = None;
        // The message may have come while the command was still running: it waits in the socket, and its time is when it is read.
        while arrived.is_none() && Instant::now() < deadline {
            if let Some(message) = socket.next(deadline.saturating_duration_since(Instant::now()))?
                && ids_told(&message).any(|told| told == node)
            {
                arrived = Some(SystemTime::now());
            }
        }
        match arrived {
            Some(arrived) => times.push(millis_between(started_at(&id)?, arrived)),
            None => late += 1,
        }
        docker(&["rm", "--force", &id])?;
    }
    times.sort_by(f64::total_cmp);
    note("measured from State.StartedAt of the runtime to the arrival of the message");
    Ok(vec![
        Number::new("probe: container's start to its node, p50", percentile(&times, 0.5)?, "ms", Target::Stated),
        Number::new("probe: container's start to its node, p99", percentile(&times, 0.99)?, "ms", Target::Under(500.0))
            .beside("Scope 191 p95"),
        Number::new(format!("probe: containers not there within {} s", PATIENCE.as_secs()), f64::from(late), "", Target::Exactly(0.0)),
    ])
}

fn millis_between(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).unwrap_or_default().as_secs_f64() * 1e3
}

/// When the runtime started it. `date` reads RFC 3339 with nanoseconds.
fn started_at(id: &str) -> Result<SystemTime> {
    let text = docker(&["inspect", "--format", "{{.State.StartedAt}}", id])?;
    let output = Command::new("date").args(["--utc", "+%s.%N", "--date", &text]).output().context("cannot start date")?;
    let seconds: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().with_context(|| format!("no time in {text:?}"))?;
    if seconds <= 0.0 {
        bail!("{id} was not started ({text})");
    }
    Ok(UNIX_EPOCH + Duration::from_secs_f64(seconds))
}
