//! `cargo xtask packages`: Debian packages of the control plane and the probe, with their services, for machines without Kubernetes. They are installed,
//! upgraded, removed and purged in a copy of this machine that is thrown away.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::progress::{Steps, note, quietly, stream};
use crate::{Checkout, Profile, build, images, machine, setup};

/// What makes the packages.
const CARGO_DEB: &str = "3.8.0";

/// The packages, and what must be in each.
const PACKAGES: [(&str, &[&str]); 2] = [
    (
        "orchestrator-control",
        &[
            "usr/bin/orchestrator-control",
            "usr/bin/orchestrator",
            "systemd/system/orchestrator-control.service",
            "etc/default/orchestrator-control",
        ],
    ),
    (
        "orchestrator-probe",
        &[
            "usr/bin/orchestrator-probe",
            "systemd/system/orchestrator-probe.service",
            "systemd/system/orchestrator-agent.service",
            "etc/default/orchestrator-probe",
            "etc/default/orchestrator-agent",
            "etc/orchestrator-probe.toml",
        ],
    ),
];

/// Options of `packages`.
#[derive(Debug, Args)]
pub(crate) struct PackagesFlags {
    /// Build with optimisation, as what is published is.
    #[arg(long)]
    release: bool,
    /// Package what is built already.
    #[arg(long)]
    no_build: bool,
}

/// `cargo xtask packages`.
pub(crate) fn run(checkout: &Checkout, flags: &PackagesFlags) -> Result<()> {
    let profile = if flags.release { Profile::Release } else { Profile::Debug };
    let mut steps = Steps::new(if flags.no_build { 3 } else { build::STEPS + 3 });
    if !flags.no_build {
        build::all(checkout, profile, &mut steps)?;
    }
    let tool = steps.run("Get cargo-deb", || cargo_deb(checkout))?;
    steps.run("Make the packages", || make(checkout, &tool, profile))?;
    steps.check("Install, upgrade, remove and purge them", || try_out(checkout));
    steps.summary()
}

/// cargo-deb of xtask's own, in the version that is known to do.
fn cargo_deb(checkout: &Checkout) -> Result<PathBuf> {
    let tool = checkout.tools().join("bin/cargo-deb");
    if machine::output(Command::new(&tool).args(["deb", "--version"])).is_some_and(|version| version.ends_with(CARGO_DEB)) {
        return Ok(tool);
    }
    let mut install = machine::cargo();
    install.args(["install", "--locked", "--debug", "cargo-deb", "--version", CARGO_DEB, "--root"]).arg(checkout.tools());
    quietly("installing cargo-deb", &mut install, &checkout.notes().join("cargo-deb.log"))?;
    Ok(tool)
}

/// The package file that was made last.
fn newest(directory: &Path, package: &str) -> Result<PathBuf> {
    let files = std::fs::read_dir(directory)?.filter_map(Result::ok).map(|entry| entry.path());
    let named = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(&format!("{package}_")) && name.ends_with(".deb"))
    };
    let newest = files.filter(named).max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
    newest.with_context(|| format!("there is no package of {package} in {}", directory.display()))
}

/// A package without a service, or with a unit that is not where systemd looks, would install without a word.
fn look_into(package: &Path, files: &[&str]) -> Result<()> {
    let listed = machine::output(Command::new("dpkg-deb").arg("--contents").arg(package)).context("dpkg-deb cannot read the package")?;
    for file in files {
        if !listed.lines().any(|line| line.ends_with(file)) {
            bail!("{} has no {file}", package.display());
        }
    }
    Ok(())
}

fn make(checkout: &Checkout, tool: &Path, profile: Profile) -> Result<()> {
    let directory = checkout.target().join("debian");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for (package, files) in PACKAGES {
        let mut command = Command::new(tool);
        machine::forget_this_package(&mut command);
        command.current_dir(checkout.root()).args(["deb", "--no-build", "--package", package, "--output"]).arg(&directory);
        if profile == Profile::Debug {
            command.args(["--profile", "dev"]);
        }
        stream("making a package", &mut command)?;
        look_into(&newest(&directory, package)?, files)?;
        images::write_bill(checkout, package, &directory.join(format!("{package}.cdx.json")))?;
    }
    note(&format!("the packages are in {}", directory.display()));
    Ok(())
}

/// By the real dpkg; where the machine cannot hold a copy of itself, says so.
fn try_out(checkout: &Checkout) -> Result<()> {
    if !machine::can_become_root() {
        return setup::missing("packages are tried out as root, and there is no sudo here");
    }
    for program in ["dpkg", "unshare", "deb-systemd-invoke"] {
        if machine::program(program).is_none() {
            return setup::missing(&format!("packages are tried out with {program}, which is not here"));
        }
    }
    setup::ask_for_password_once()?;
    let script = checkout.root().join("deploy/debian/try.sh");
    stream("trying the packages out", machine::as_root(script).arg(checkout.target().join("debian")))
}
