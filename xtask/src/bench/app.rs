//! The monitoring app with a cluster that is not there: `orchestrator-synthetic` speaks the real stream, and everything is measured from outside.
//!
//! The generator, the clients and the control plane share this machine's processors, so what is measured under load has the cost of the load in it.

mod history;
mod page;
mod pipes;
mod plane;
mod viewers;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;

use self::plane::{Plane, Size, fetch};
use super::{Number, Target, cpu_percent, float, percentile};
use crate::flags::BenchFlags;
use crate::progress::{Pulse, note};
use crate::{Checkout, Profile, http, machine};

/// A part of the benchmark: each starts a control plane of its own, and takes less than four minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The full size: what it costs, how soon views and searches are answered and changes are pushed.
    Size,
    /// An eighth of it, twice, four and eight times that: what doubles.
    Growth,
    /// Five times the probes and containers.
    Large,
    /// What the past costs on disk, and how soon a moment of it is shown.
    History,
    /// A thousand pipes, and as much as goes through one of them.
    Pipes,
}

/// What the numbers of the full size are for.
const FULL: Size = Size { probes: 1_000, containers: 10_000, processes: 100_000, flows: 200_000 };
const LARGE: Size = Size { probes: 5_000, containers: 50_000, processes: 500_000, flows: 500_000 };
/// How long costs are measured.
const MEASURED: Duration = Duration::from_secs(30);
/// Open pages.
const VIEWERS: usize = 50;
/// Requests of each kind.
const REQUESTS: usize = 20;
const SEARCHES: [&str; 8] = [
    "redis",
    "label%3A%20web-1",
    "image%3A%20postgres%20AND%20NOT%20host-00001",
    "cpu%20%3E%2030",
    "memory%20%3E%3D%20100mb",
    "pid%20%3D%201",
    "(kafka%7Cmailer)-7%5B0-9%5D",
    "nothing-has-this-name",
];
/// Every view, as a page asks for it and whole.
const VIEWS: [&str; 9] = [
    "processes?unconnected=hide",
    "processes-by-name?unconnected=hide",
    "containers?stopped=running",
    "containers-by-hostname?stopped=running",
    "containers-by-image?stopped=running",
    "pods?storage=hide",
    "hosts",
    "containers",
    "processes",
];

pub(super) fn run(checkout: &Checkout, flags: &BenchFlags) -> Result<Vec<Number>> {
    let binary = checkout.binary(Profile::Release, "orchestrator-control");
    let binaries = match &flags.binaries {
        Some(directory) => directory.clone(),
        None => binary.parent().map(ToOwned::to_owned).unwrap_or_default(),
    };
    if flags.binaries.is_none() && !flags.as_built {
        let mut command = machine::cargo();
        command.current_dir(checkout.root()).args(["build", "--release", "--package=orchestrator-control"]);
        crate::progress::stream("building what is measured", command.arg("--package=orchestrator-synthetic"))?;
    }
    let mut numbers = Vec::new();
    for part in super::chosen::<Part>(flags) {
        let measured = match part {
            Part::Size => size(&binaries, FULL.divided(flags.scale_down)),
            Part::Growth => growth(&binaries, FULL.divided(flags.scale_down)),
            Part::Large => large(&binaries, LARGE.divided(flags.scale_down)),
            Part::History => history::run(&binaries, FULL.divided(flags.scale_down)),
            Part::Pipes => pipes::run(&binaries, flags.scale_down),
        };
        match measured {
            Ok(measured) => numbers.extend(measured),
            Err(error) => note(&format!("app, {part:?}: {error:#}")),
        }
    }
    if numbers.is_empty() {
        bail!("nothing could be measured");
    }
    Ok(numbers)
}

/// The full size.
fn size(binaries: &std::path::Path, size: Size) -> Result<Vec<Number>> {
    let plane = Plane::start(binaries, size)?;
    let mut numbers = cost(&plane, "app", Target::Under(50.0), Target::Under(1_000.0))?;
    let seen = viewers::watch(plane.http(), VIEWERS, MEASURED, || cpu_percent(plane.pid()?, MEASURED))?;
    let delays = seen.delays;
    numbers.push(Number::new(format!("app: changes seen by {VIEWERS} pages, in all"), float(delays.len() as u64), "", Target::Stated));
    numbers.push(Number::new(format!("app: from a change to {VIEWERS} pages, p50"), percentile(&delays, 0.5)?, "ms", Target::Stated));
    numbers.push(Number::new(
        format!("app: from a change to {VIEWERS} pages, p99"),
        percentile(&delays, 0.99)?,
        "ms",
        Target::Under(500.0),
    ));
    numbers.push(Number::new(format!("app: with {VIEWERS} pages, of one core"), seen.measured, "%", Target::Stated));
    numbers.push(Number::new(format!("app: with {VIEWERS} pages, resident"), plane.resident()?, "MB", Target::Stated));
    numbers.push(plane.applied(Target::Stated)?);
    // Last: the pictures that are drawn for it are kept up to date for half a minute after.
    numbers.extend(answers(&plane, "app", 100.0)?);
    numbers.push(searches(&plane)?);
    Ok(numbers)
}

/// What the control plane costs while nobody looks.
fn cost(plane: &Plane, what: &str, cpu: Target, memory: Target) -> Result<Vec<Number>> {
    let _alive = Pulse::start(&format!("{} probes, {} s", plane.size.probes, MEASURED.as_secs()));
    let busy = cpu_percent(plane.pid()?, MEASURED)?;
    Ok(vec![
        Number::new(format!("{what}: {}, of one core", plane.size), busy, "%", cpu),
        Number::new(format!("{what}: {}, resident", plane.size), plane.resident()?, "MB", memory),
    ])
}

/// How soon the list of views and each view are there, to the last byte.
fn answers(plane: &Plane, what: &str, target: f64) -> Result<Vec<Number>> {
    let mut numbers = Vec::new();
    let paths = std::iter::once("/api/topology?stopped=running".to_owned()).chain(VIEWS.map(|view| format!("/api/topology/{view}")));
    for path in paths {
        let (mut whole, mut first, mut bytes) = (Vec::new(), Vec::new(), 0);
        // A picture that nobody has asked for lately is drawn for the first who does.
        let drawn = fetch(plane.http(), &path)?;
        for _ in 0..REQUESTS {
            let answer = fetch(plane.http(), &path)?;
            whole.push(answer.whole.as_secs_f64() * 1e3);
            first.push(answer.first.as_secs_f64() * 1e3);
            bytes = answer.bytes;
        }
        whole.sort_by(f64::total_cmp);
        first.sort_by(f64::total_cmp);
        let megabytes = float(bytes) / 1e6;
        numbers.push(Number::new(
            format!("{what}: {path} ({megabytes:.1} MB), p95"),
            percentile(&whole, 0.95)?,
            "ms",
            Target::Under(target),
        ));
        let drawn = drawn.whole.as_secs_f64() * 1e3;
        let rest = format!("{what}:   to the first byte, p95; the very first request took {drawn:.0} ms");
        numbers.push(Number::new(rest, percentile(&first, 0.95)?, "ms", Target::Stated));
    }
    Ok(numbers)
}

fn searches(plane: &Plane) -> Result<Number> {
    let mut times = Vec::new();
    let mut found = 0;
    for round in 0..REQUESTS {
        for query in SEARCHES {
            let path = format!("/api/search?q={query}");
            if round == 0 {
                found += http::get_json(plane.http(), &path)?["total"].as_u64().unwrap_or(0);
            }
            times.push(fetch(plane.http(), &path)?.whole.as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let what = format!("app: search, {} queries with {found} nodes in all, p95", SEARCHES.len());
    Ok(Number::new(what, percentile(&times, 0.95)?, "ms", Target::Under(50.0)))
}

/// An eighth, a quarter, a half, and the whole: what doubles when the size does.
fn growth(binaries: &std::path::Path, full: Size) -> Result<Vec<Number>> {
    let mut numbers = Vec::new();
    let mut before: Option<(f64, f64)> = None;
    for (times, divisor) in [(1, 8), (2, 4), (4, 2), (8, 1)] {
        let plane = Plane::start(binaries, full.divided(divisor))?;
        let measured = {
            let _alive = Pulse::start(&format!("{times}x: {}", plane.size));
            (cpu_percent(plane.pid()?, Duration::from_secs(15))?, plane.resident()?)
        };
        let ratio = |now: f64, then: f64| format!(", {:.2} times the one before", now / then);
        let (of_cpu, of_memory) = before.map(|it| (ratio(measured.0, it.0), ratio(measured.1, it.1))).unwrap_or_default();
        numbers.push(Number::new(format!("app: {times}x, of one core{of_cpu}"), measured.0, "%", Target::Stated));
        numbers.push(Number::new(format!("app: {times}x, resident{of_memory}"), measured.1, "MB", Target::Stated));
        before = Some(measured);
    }
    Ok(numbers)
}

/// Beyond the size that the targets are for.
fn large(binaries: &std::path::Path, size: Size) -> Result<Vec<Number>> {
    let begun = Instant::now();
    let plane = Plane::start(binaries, size)?;
    let filled = Number::new(format!("app: until {size} were told and settled"), begun.elapsed().as_secs_f64(), "s", Target::Stated);
    let mut numbers = vec![filled];
    numbers.extend(cost(&plane, "app", Target::Stated, Target::Stated)?);
    for path in ["/api/topology?stopped=running", "/api/topology/containers?stopped=running", "/api/topology/hosts"] {
        let mut times = Vec::new();
        for _ in 0..5 {
            times.push(fetch(plane.http(), path)?.whole.as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        numbers.push(Number::new(format!("app: {path}, worst of 5"), percentile(&times, 1.0)?, "ms", Target::Stated));
    }
    numbers.push(plane.applied(Target::Stated)?);
    Ok(numbers)
}
