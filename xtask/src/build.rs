//! Building everything that runs.

use anyhow::Result;

use crate::progress::{Steps, stream};
use crate::{Checkout, Profile, ebpf, machine, setup, ui};

/// The binaries' packages.
const PACKAGES: [&str; 3] = ["orchestrator-control", "orchestrator-probe", "orchestrator-cli"];

/// `cargo xtask build`.
pub(crate) fn run(checkout: &Checkout, profile: Profile) -> Result<()> {
    let mut steps = Steps::new(STEPS);
    all(checkout, profile, &mut steps)?;
    println!("\nThe binaries are in {}", checkout.target().join(profile.directory()).display());
    Ok(())
}

/// How many steps `all` takes.
pub(crate) const STEPS: usize = 4;

/// Set-up, then the parts in the order in which they are embedded in one another.
pub(crate) fn all(checkout: &Checkout, profile: Profile, steps: &mut Steps) -> Result<()> {
    steps.run("Get what building needs", || setup::for_building(checkout))?;
    steps.run("Build the kernel programs", || ebpf::build(checkout).map(drop))?;
    steps.run("Build the UI", || ui::build(checkout))?;
    steps.run("Build the control plane, the probe and the command line", || binaries(checkout, profile))
}

/// How many steps `probe_alone` takes.
pub(crate) const PROBE_STEPS: usize = 3;

/// What the probe needs and the probe, without page and control plane.
pub(crate) fn probe_alone(checkout: &Checkout, profile: Profile, steps: &mut Steps) -> Result<()> {
    steps.run("Get what building needs", || setup::for_building(checkout))?;
    steps.run("Build the kernel programs", || ebpf::build(checkout).map(drop))?;
    steps.run("Build the probe", || packages(checkout, profile, &["orchestrator-probe"]))
}

/// The control plane, the probe and the command line.
pub(crate) fn binaries(checkout: &Checkout, profile: Profile) -> Result<()> {
    packages(checkout, profile, &PACKAGES)
}

/// Everything that tests are made of and run, for debugging. All packages at once have one set of features: each by itself has its own, for which half of
/// the dependencies would be compiled once more.
pub(crate) fn tested(checkout: &Checkout) -> Result<()> {
    let mut command = machine::cargo();
    command.current_dir(checkout.root()).args(["build", "--workspace", "--bins", "--tests", "--examples"]);
    stream("building the binaries and the tests", &mut command)
}

/// Whether what ships compiles with the features that it asks for itself: together with the tests it has theirs, too.
pub(crate) fn shipped_compiles(checkout: &Checkout) -> Result<()> {
    let mut command = machine::cargo();
    command.current_dir(checkout.root()).arg("check").args(PACKAGES.iter().flat_map(|name| ["--package", name]));
    stream("checking what ships by itself", &mut command)
}

fn packages(checkout: &Checkout, profile: Profile, names: &[&str]) -> Result<()> {
    let mut command = machine::cargo();
    command.current_dir(checkout.root()).arg("build");
    for name in names {
        command.args(["--package", name]);
    }
    if profile == Profile::Release {
        command.arg("--release");
    }
    stream("building the binaries", &mut command)
}
