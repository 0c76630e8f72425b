//! `cargo xtask bench`: numbers, each with its target, measured from outside on the real programs. Never a test: a busy machine is no failure.

mod app;
mod capture;
mod containers;
mod kernel_time;
mod latency;
mod master;
mod overhead;
mod probe;
mod scheduler;

use std::borrow::Cow;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use crate::flags::BenchFlags;
use crate::progress::{Steps, bold, green, note, red, stream};
use crate::stack::Stack;
use crate::traffic::Process;
use crate::{Checkout, Profile, build, machine, setup};

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// 60,000 connections at 1,000 a second: how many are counted, and how many are lost.
    Capture,
    /// What the probe costs: processor, memory, time in the kernel.
    Overhead,
    /// From a connection to the message that shows its edge.
    Latency,
    /// What the probe sees and costs on a busy node, beside what other agents have published.
    Probe,
    /// The control plane with 1,000 to 5,000 probes, 50 open pages, searches, its history and pipes.
    App,
    /// The Mesos master with simulated agents and frameworks: offers, launches, failover, `/state`.
    Master,
    /// The topology core alone, with 100,000 processes.
    Topology,
    /// Marathon's scheduler: matching, 100,000 instances, event streams, and a real app replaced under load behind HAProxy.
    Scheduler,
    /// Two ZooKeeper servers kept in step: lag, first copy of 100,000 znodes, verification, cutover.
    Zksync,
}

/// `cargo xtask bench`.
pub(crate) fn run(checkout: &Checkout, flags: &BenchFlags) -> Result<()> {
    check_parts(&flags.parts)?;
    let names = if flags.names.is_empty() { Name::value_variants() } else { &flags.names };
    let mut steps = Steps::new(if flags.as_built { 0 } else { build::STEPS } + names.len());
    if !flags.as_built && names.iter().any(|name| !matches!(name, Name::App | Name::Topology | Name::Zksync)) {
        setup::ask_for_password_once()?;
        build::all(checkout, Profile::Release, &mut steps)?;
    }
    let mut results = Vec::new();
    for name in names {
        let title = format!("Measure {name:?}").to_lowercase();
        // What another benchmark measured is not lost when one fails.
        let outcome = steps.run(&title, || match name {
            Name::Capture => capture::run(checkout, flags.scale_down),
            Name::Overhead => overhead::run(checkout, flags.scale_down),
            Name::Latency => latency::run(checkout, flags.scale_down),
            Name::Probe => probe::run(checkout, &chosen(flags), flags.scale_down),
            Name::App => app::run(checkout, flags),
            Name::Master => master::run(checkout, flags.scale_down, &chosen(flags)),
            Name::Topology => topology(checkout),
            Name::Scheduler => scheduler::run(checkout, flags.scale_down),
            Name::Zksync => zksync(checkout, flags.scale_down),
        });
        match outcome {
            Ok(numbers) => results.extend(numbers),
            Err(error) => note(&format!("{error:#}")),
        }
    }
    if flags.scale_down > 1 {
        note(&format!("the work was divided by {}: compare nothing with the targets", flags.scale_down));
    }
    print(&results);
    steps.summary()
}

/// The parts of one benchmark that were asked for: all, or those of the names that are its own.
fn chosen<P: ValueEnum>(flags: &BenchFlags) -> Vec<P> {
    match flags.parts.is_empty() {
        true => P::value_variants().to_vec(),
        false => flags.parts.iter().filter_map(|name| P::from_str(name, true).ok()).collect(),
    }
}

/// A part that no benchmark has would otherwise measure nothing, without a word.
fn check_parts(parts: &[String]) -> Result<()> {
    fn names<P: ValueEnum>() -> Vec<String> {
        P::value_variants().iter().filter_map(|it| Some(it.to_possible_value()?.get_name().to_owned())).collect()
    }
    let known = [("probe", names::<probe::Part>()), ("app", names::<app::Part>()), ("master", names::<master::Part>())];
    let Some(unknown) = parts.iter().find(|part| !known.iter().any(|(_, names)| names.contains(part))) else { return Ok(()) };
    let listed: Vec<String> = known.iter().map(|(name, names)| format!("{name} has {}", names.join(", "))).collect();
    bail!("there is no part {unknown:?}: {}", listed.join("; "))
}

/// One number.
#[derive(Clone, Debug)]
pub(super) struct Number {
    what: String,
    value: f64,
    unit: Cow<'static, str>,
    target: Target,
    load: String,
    beside: Cow<'static, str>,
}

/// What a number should be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// Below this.
    Under(f64),
    /// This or more.
    AtLeast(f64),
    /// Exactly this.
    Exactly(f64),
    /// There is no target: it is stated.
    Stated,
}

impl Number {
    pub(super) fn new(what: impl Into<String>, value: f64, unit: impl Into<Cow<'static, str>>, target: Target) -> Self {
        Self { what: what.into(), value, unit: unit.into(), target, load: machine::load_average(), beside: "".into() }
    }

    /// Puts another agent's published figure beside it.
    pub(super) fn beside(mut self, figure: impl Into<Cow<'static, str>>) -> Self {
        self.beside = figure.into();
        self
    }

    fn is_met(&self) -> Option<bool> {
        match self.target {
            Target::Under(most) => Some(self.value < most),
            Target::AtLeast(least) => Some(self.value >= least),
            #[expect(clippy::float_cmp, reason = "counts are whole numbers far below 2^53")]
            Target::Exactly(count) => Some(self.value == count),
            Target::Stated => None,
        }
    }
}

fn print(numbers: &[Number]) {
    println!("\n{}", bold("Numbers"));
    for number in numbers {
        let target = match number.target {
            Target::Under(most) => format!("under {}", short(most)),
            Target::AtLeast(least) => format!("at least {}", short(least)),
            Target::Exactly(count) => format!("exactly {}", short(count)),
            Target::Stated => String::new(),
        };
        let verdict = match number.is_met() {
            Some(true) => green("met    "),
            Some(false) => red("NOT MET"),
            None => "       ".to_owned(),
        };
        let beside = if number.beside.is_empty() { String::new() } else { format!("  ({})", number.beside) };
        println!(
            "  {:<66} {:>10} {:<4} {:<13} {verdict}  load {}{beside}",
            number.what,
            short(number.value),
            number.unit,
            target,
            number.load
        );
    }
}

fn short(value: f64) -> String {
    #[expect(clippy::float_cmp, reason = "asks whether it is a whole number")]
    let whole = value == value.trunc();
    if whole { format!("{value:.0}") } else { format!("{value:.3}") }
}

fn topology(checkout: &Checkout) -> Result<Vec<Number>> {
    let mut command = machine::cargo();
    stream(
        "measuring the topology core",
        command.current_dir(checkout.root()).args(["bench", "--package", "topology", "--bench", "scale"]),
    )?;
    Ok(Vec::new())
}

/// Prints its own numbers, each with the load beside it.
fn zksync(checkout: &Checkout, scale_down: u64) -> Result<Vec<Number>> {
    let mut command = machine::cargo();
    command.current_dir(checkout.root()).args(["run", "--release", "--package", "zksync-service", "--example", "zksync_bench", "--"]);
    stream("measuring ZooKeeper sync", command.arg(scale_down.to_string()))?;
    Ok(Vec::new())
}

/// A load program of ours: this very program in another role.
fn traffic(arguments: &[String]) -> Result<Process> {
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    Process::start(Command::new(program).arg("traffic").args(arguments))
}

/// A server on a free port of loopback, and its address.
fn server() -> Result<(Process, String)> {
    let mut server = traffic(&["serve".to_owned(), "--bind=127.0.0.1:0".to_owned()])?;
    let address = server.listening()?.to_string();
    Ok((server, address))
}

/// Connections a second, for some time, that end when they are open.
fn client(address: &str, count: u64, rate: u64) -> Result<Process> {
    let options =
        ["connect".to_owned(), format!("--to={address}"), format!("--count={count}"), format!("--rate={rate}"), "--stay".to_owned()];
    traffic(&options)
}

/// A counter of the report of a load program.
fn counter(report: &Value, name: &str) -> Result<u64> {
    report[name].as_u64().with_context(|| format!("no {name} in the load program's report"))
}

/// Sum of a counter over the flows of a process at one end of connections to a port.
fn flows_total(stack: &Stack, pid: u32, direction: &str, port: &str, field: &str) -> Result<u64> {
    let flows = stack.flows(&format!("pid={pid}&port={port}&direction={direction}"))?;
    Ok(flows.iter().filter_map(|flow| flow[field].as_u64()).sum())
}

/// Processor time of a process over some time, in percent of one core.
fn cpu_percent(pid: u32, time: Duration) -> Result<f64> {
    let used = || crate::services::cpu_seconds(pid).with_context(|| format!("process {pid} is gone"));
    let (begun, before) = (Instant::now(), used()?);
    std::thread::sleep(time);
    Ok((used()? - before) / begun.elapsed().as_secs_f64() * 100.0)
}

/// A value at a share of a sorted list, by the nearest rank.
fn percentile(sorted: &[f64], share: f64) -> Result<f64> {
    if sorted.is_empty() {
        bail!("nothing was measured");
    }
    #[expect(clippy::cast_precision_loss, reason = "lists are short")]
    let rank = (share * sorted.len() as f64).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is between 1 and the length")]
    let index = (rank as usize).clamp(1, sorted.len()) - 1;
    Ok(sorted[index])
}

/// A count as a number to print.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_the_nearest_rank() -> Result<()> {
        let sorted: Vec<f64> = (1..=100_u32).map(f64::from).collect();
        assert_eq!((percentile(&sorted, 0.5)?, percentile(&sorted, 0.99)?, percentile(&sorted, 1.0)?), (50.0, 99.0, 100.0));
        assert_eq!(percentile(&[7.0], 0.5)?, 7.0);
        assert!(percentile(&[], 0.5).is_err());
        Ok(())
    }
}
