//! The Mesos master: a program of ours plays agents and frameworks against the release build of the control plane; see `control-plane/mesos-load`.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::Value;

use super::{Number, Target};
use crate::progress::{Pulse, note, stream};
use crate::{Checkout, Profile, machine};

/// What is measured, each in a run of its own: what another measured is not lost when one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// One allocation over 10,000 agents, without any protocol.
    Core,
    /// From resources that are free to the offer on a framework's stream.
    Offers,
    /// How much of a cluster is used when everybody takes what is offered.
    Utilization,
    /// Tasks that run a second.
    Launch,
    /// 20,000 agents and 200,000 tasks come to a new leader; and `/state` for twenty who ask.
    Failover,
    /// Three masters on ZooKeeper, of which the leader is killed.
    Ensemble,
    /// Real containers on a real agent.
    Containers,
}

impl Part {
    /// What the load generator calls it.
    fn scene(self) -> &'static str {
        match self {
            Part::Core => "core",
            Part::Offers => "offers",
            Part::Utilization => "utilization",
            Part::Launch => "launch",
            Part::Failover => "failover",
            Part::Ensemble => "ensemble",
            Part::Containers => "containers",
        }
    }
}

/// Image for containers: a static busybox and nothing else.
const IMAGE: &str = "orchestrator-bench:latest";

pub(super) fn run(checkout: &Checkout, scale_down: u64, parts: &[Part]) -> Result<Vec<Number>> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = machine::cargo();
    command.current_dir(checkout.root()).args(["build", "--release", "--package", "mesos-load"]);
    stream("building the load generator", &mut command)?;
    let mut numbers = Vec::new();
    for scene in parts.iter().map(|part| part.scene()) {
        match measure(checkout, scene, scale_down) {
            Ok(more) => numbers.extend(more),
            Err(error) => note(&format!("{scene}: {error:#}")),
        }
    }
    Ok(numbers)
}

fn measure(checkout: &Checkout, scene: &str, scale_down: u64) -> Result<Vec<Number>> {
    let program = checkout.binary(Profile::Release, "mesos-load");
    let needs_root = scene == "containers";
    let mut command = if needs_root { machine::as_root(&program) } else { std::process::Command::new(&program) };
    if needs_root {
        make_image()?;
        command.arg(format!("--image={IMAGE}"));
    }
    command
        .arg(format!("--control={}", checkout.binary(Profile::Release, "orchestrator-control").display()))
        .arg(format!("--probe={}", checkout.binary(Profile::Release, "orchestrator-probe").display()))
        .arg(format!("--scale-down={scale_down}"))
        .arg(scene)
        .stderr(Stdio::inherit());
    let alive = Pulse::start(scene);
    let output = command.output().with_context(|| format!("cannot start {}", program.display()))?;
    drop(alive);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers = text.lines().filter_map(|line| line.strip_prefix("NUMBER ")).map(read).collect::<Result<Vec<_>>>()?;
    if !output.status.success() {
        note(&format!("{scene} ended with {}", output.status));
    }
    Ok(numbers)
}

fn read(line: &str) -> Result<Number> {
    let told: Value = serde_json::from_str(line).context("a number that is not JSON")?;
    let target = match &told["target"] {
        it if it["under"].is_f64() => Target::Under(it["under"].as_f64().unwrap_or_default()),
        it if it["at_least"].is_f64() => Target::AtLeast(it["at_least"].as_f64().unwrap_or_default()),
        it if it["exactly"].is_f64() => Target::Exactly(it["exactly"].as_f64().unwrap_or_default()),
        _ => Target::Stated,
    };
    let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    let value = told["value"].as_f64().with_context(|| format!("a number without a value: {line}"))?;
    Ok(Number::new(text("what"), value, text("unit"), target).beside(text("beside")))
}

/// No registry is asked: a tarball of the machine's own busybox.
fn make_image() -> Result<()> {
    let busybox = machine::program("busybox").context("busybox is not installed (Debian: busybox-static)")?;
    let script = format!(
        "d=$(mktemp -d) && mkdir -p $d/bin && cp {} $d/bin/busybox && ln -s busybox $d/bin/sh && ln -s busybox $d/bin/sleep && \
         tar -C $d -c . | docker import - {IMAGE} && rm -r $d",
        busybox.display()
    );
    let mut command = machine::as_root("sh");
    stream("making an image", command.args(["-c", &script]).stdout(Stdio::null()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_as_it_is_told() -> Result<()> {
        let number = read(r#"{"what":"x","value":7.5,"unit":"ms","target":{"under":20.0},"beside":"y"}"#)?;
        assert_eq!((number.what.as_str(), number.unit.as_ref(), number.is_met()), ("x", "ms", Some(true)));
        assert!(read("{}").is_err());
        Ok(())
    }
}
