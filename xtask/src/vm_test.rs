//! `cargo xtask vm-test`: the capture tests on other kernels, each in a virtual machine of its own.
//!
//! Debian's cloud kernels boot by software emulation (no KVM is needed) with an initial file system that holds the test programs and little else.
//! Each kernel is tried on cgroup v2 alone and on the hybrid hierarchy. At the end stands which hook serves on which kernel.

mod boot;
mod image;
mod kernels;
mod report;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::progress::{Steps, note};
use crate::setup::Tool;
use crate::{Checkout, Profile, build, machine, setup};
use kernels::Kernel;

/// Emulates the machine.
const QEMU: Tool = Tool { program: "qemu-system-x86_64", packages: &["qemu-system-x86"], purpose: "booting other kernels" };

/// Integration tests of the probe that need a kernel and nothing else. Others need Docker or a network of their own.
const CAPTURE_TESTS: [&str; 3] = ["kernel", "rungs", "cgroups"];

/// Options of `vm-test`.
#[derive(Debug, Args)]
pub(crate) struct VmTestFlags {
    /// Which kernels: 5.10, 6.1, 6.12, newest; all when none is named.
    #[arg(long = "kernel", value_name = "SERIES")]
    pub(crate) kernels: Vec<String>,
    /// How cgroups are mounted; both when not said.
    #[arg(long, value_enum)]
    pub(crate) cgroups: Option<Hierarchy>,
    /// Look for newer kernels of the chosen series.
    #[arg(long)]
    pub(crate) refresh: bool,
    /// Run the tests whose names contain one of these.
    pub(crate) filters: Vec<String>,
}

/// How the cgroup controllers are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hierarchy {
    /// One cgroup2 hierarchy with all controllers.
    V2,
    /// Controllers in hierarchies of version 1, and cgroup2 beside them without any.
    Hybrid,
}

impl Hierarchy {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Hierarchy::V2 => "v2",
            Hierarchy::Hybrid => "hybrid",
        }
    }
}

/// `cargo xtask vm-test`.
pub(crate) fn run(checkout: &Checkout, flags: &VmTestFlags) -> Result<()> {
    let kernels = chosen(&flags.kernels)?;
    let hierarchies = flags.cgroups.map_or_else(|| vec![Hierarchy::V2, Hierarchy::Hybrid], |one| vec![one]);
    let mut steps = Steps::new(build::PROBE_STEPS + 1 + kernels.len() * (1 + hierarchies.len()));
    build::probe_alone(checkout, Profile::Debug, &mut steps)?;
    let programs = steps.run("Get the emulator and build the capture tests", || {
        setup::tools(checkout, &[QEMU, setup::BUSYBOX, setup::IP])?;
        programs(checkout)
    })?;
    let mut outcomes = Vec::new();
    for kernel in kernels {
        let fetched = match steps.run(&format!("Get kernel {}", kernel.series), || kernels::fetch(checkout, kernel, flags.refresh)) {
            Ok(fetched) => fetched,
            Err(error) => {
                note(&format!("{error:#}"));
                continue;
            }
        };
        for &hierarchy in &hierarchies {
            steps.check(&format!("Test on {} with cgroups {}", fetched.release, hierarchy.name()), || {
                let image = image::build(checkout, &fetched, hierarchy, &programs, &flags.filters)?;
                let outcome = boot::run(checkout, &fetched, hierarchy, &image)?;
                let verdict = outcome.verdict();
                outcomes.push(outcome);
                verdict
            });
        }
    }
    report::print(&outcomes);
    steps.summary()
}

fn chosen(names: &[String]) -> Result<Vec<&'static Kernel>> {
    if names.is_empty() {
        return Ok(kernels::KERNELS.iter().collect());
    }
    let known = || kernels::KERNELS.iter().map(|kernel| kernel.series).collect::<Vec<_>>().join(", ");
    let find = |name: &String| kernels::KERNELS.iter().find(|kernel| kernel.series == name);
    names.iter().map(|name| find(name).with_context(|| format!("no kernel {name:?}; there are {}", known()))).collect()
}

/// What runs in the machines.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The probe.
    pub(crate) probe: PathBuf,
    /// Test programs, each with its name.
    pub(crate) tests: Vec<(String, PathBuf)>,
}

fn programs(checkout: &Checkout) -> Result<Programs> {
    let mut command = machine::cargo();
    command.current_dir(checkout.root()).args(["test", "--package", "orchestrator-probe", "--no-run", "--message-format=json"]);
    CAPTURE_TESTS.iter().for_each(|test| {
        command.args(["--test", test]);
    });
    let output = command.stderr(std::process::Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the capture tests do not compile");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_test = |message: Value| {
        let is_test = message["target"]["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"));
        let program = message["executable"].as_str().filter(|_| is_test)?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(program)))
    };
    let tests: Vec<_> = artifacts.filter_map(of_test).collect();
    if tests.len() != CAPTURE_TESTS.len() {
        bail!("cargo named {} test programs, not {}", tests.len(), CAPTURE_TESTS.len());
    }
    Ok(Programs { probe: checkout.binary(Profile::Debug, "orchestrator-probe"), tests })
}

/// Runs a command whose output is wanted only when it fails.
fn must(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start `{}`", command.get_program().display()))?;
    if !output.status.success() {
        bail!("`{}` failed ({}): {}", command.get_program().display(), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
