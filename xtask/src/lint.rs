//! `cargo xtask lint`: what can be said of the tree without running it.

use anyhow::{Result, bail};

use crate::progress::{Steps, note, stream};
use crate::{Checkout, ebpf, licences, machine, setup, ui};

/// `cargo xtask lint`.
pub(crate) fn run(checkout: &Checkout) -> Result<()> {
    let mut steps = Steps::new(7);
    steps.run("Get what linting needs", || {
        setup::for_building(checkout)?;
        setup::for_linting(checkout)
    })?;
    // The binaries embed both: without them they do not compile.
    steps.run("Build the kernel programs and the UI", || {
        ebpf::build(checkout)?;
        ui::build(checkout)
    })?;
    steps.check("Check formatting", || formatting(checkout));
    steps.check("Check lints", || clippy(checkout));
    steps.check("Check lints of the kernel programs", || clippy_of_kernel_programs(checkout));
    steps.check("Check the rooms' boundaries and licences", || boundaries_and_licences(checkout));
    steps.check("Check the UI", || ui::check(checkout));
    steps.summary()
}

/// Formatting of the workspace and of the kernel programs.
pub(crate) fn formatting(checkout: &Checkout) -> Result<()> {
    stream("checking formatting", machine::cargo().current_dir(checkout.root()).args(["fmt", "--all", "--check"]))?;
    stream("checking formatting", machine::cargo().current_dir(checkout.root().join("probe-ebpf")).args(["fmt", "--all", "--check"]))
}

/// Clippy over the workspace.
pub(crate) fn clippy(checkout: &Checkout) -> Result<()> {
    let mut command = machine::cargo();
    command.current_dir(checkout.root()).args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    stream("linting", &mut command)
}

/// Clippy over the kernel programs, where their toolchain has it.
pub(crate) fn clippy_of_kernel_programs(checkout: &Checkout) -> Result<()> {
    match ebpf::clippy(checkout) {
        Some(mut command) => stream("linting the kernel programs", &mut command),
        None => {
            note("the toolchain of the kernel programs has no clippy: they are not linted here");
            Ok(())
        }
    }
}

/// The architecture's and the lawyers' questions, from `cargo metadata`; cargo-deny too, where it is installed.
pub(crate) fn boundaries_and_licences(checkout: &Checkout) -> Result<()> {
    let forbidden = licences::forbidden_dependencies(checkout)?;
    if !forbidden.is_empty() {
        bail!("a pure core depends on what it must not know:\n  {}", forbidden.join("\n  "));
    }
    let unlisted = licences::unlisted_licences(checkout)?;
    if !unlisted.is_empty() {
        bail!("licences that deny.toml does not allow:\n  {}", unlisted.join("\n  "));
    }
    if machine::output(machine::cargo().args(["deny", "--version"])).is_none() {
        note("licences are listed and cores are pure; cargo-deny is not installed, so duplicate versions and sources were not looked at");
        return Ok(());
    }
    let mut deny = machine::cargo();
    deny.current_dir(checkout.root()).args(["deny", "--offline", "check", "licenses", "bans", "sources"]);
    stream("checking with cargo-deny", &mut deny)
}
