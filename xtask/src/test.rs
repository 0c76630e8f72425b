//! `cargo xtask test`: everything that shows whether the tree is good, from formatting to the page in a browser.

pub(crate) mod docker;

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::deploy::DeployCheckFlags;
use crate::flags::TestFlags;
use crate::progress::{Steps, note, stream};
use crate::{Checkout, build, deploy, ebpf, images, in_ci, lint, machine, setup, ui};

/// `cargo xtask test`.
pub(crate) fn run(checkout: &Checkout, flags: &TestFlags) -> Result<()> {
    if flags.filters.is_empty() { everything(checkout, flags.fast) } else { chosen(checkout, flags) }
}

fn everything(checkout: &Checkout, fast: bool) -> Result<()> {
    let mut steps = Steps::new(if fast { 12 } else { 16 });
    let came_to_its_end = every_step(checkout, fast, &mut steps);
    let summary = steps.summary();
    came_to_its_end.and(summary)
}

/// What fails without hurting the rest is only remembered by `steps`; the error is of a step that the rest needs.
fn every_step(checkout: &Checkout, fast: bool, steps: &mut Steps) -> Result<()> {
    steps.run("Get what building and testing need", || {
        setup::for_building(checkout)?;
        setup::for_linting(checkout)?;
        if fast { Ok(()) } else { setup::for_testing(checkout) }
    })?;
    if !fast {
        steps.run("Find root, a kernel with eBPF, and Docker", || surroundings(checkout))?;
    }
    steps.check("Check formatting", || lint::formatting(checkout));
    steps.run("Build the kernel programs", || ebpf::build(checkout).map(drop))?;
    steps.run("Build the UI", || ui::build(checkout))?;
    steps.check("Check the rooms' boundaries and licences", || lint::boundaries_and_licences(checkout));
    steps.check("Check lints", || lint::clippy(checkout));
    steps.check("Check what ships by itself", || build::shipped_compiles(checkout));
    steps.check("Check lints of the kernel programs", || lint::clippy_of_kernel_programs(checkout));
    steps.check("Check the UI's types", || ui::check(checkout));
    steps.check("Test the UI", || ui::test(checkout));
    steps.run("Build the binaries and the tests", || build::tested(checkout))?;
    steps.check("Test the workspace", || workspace_tests(checkout, &[]));
    if !fast {
        steps.check("Test end to end: real kernel, Docker, browser", || end_to_end(checkout, &[]));
        steps.check("Make the images and run them", || images::try_out(checkout));
        steps.check("Check what deploys it, and run what the documents say", || deploy::check(checkout, &DeployCheckFlags::default()));
    }
    Ok(())
}

/// The tests whose names match, with what they need built first.
fn chosen(checkout: &Checkout, flags: &TestFlags) -> Result<()> {
    let mut steps = Steps::new(if flags.fast { 5 } else { 6 });
    steps.run("Get what building needs", || setup::for_building(checkout))?;
    steps.run("Build the kernel programs", || ebpf::build(checkout).map(drop))?;
    steps.run("Build the UI", || ui::build(checkout))?;
    steps.run("Build the binaries and the tests", || build::tested(checkout))?;
    steps.check("Test the workspace", || workspace_tests(checkout, &flags.filters));
    if !flags.fast {
        steps.check("Test end to end", || {
            setup::for_testing(checkout)?;
            surroundings(checkout)?;
            end_to_end(checkout, &flags.filters)
        });
    }
    steps.summary()
}

/// Unit tests, property tests, simulations and document tests of every crate.
fn workspace_tests(checkout: &Checkout, filters: &[String]) -> Result<()> {
    stream("testing the workspace", &mut runner(checkout, &["--workspace"], filters))?;
    if has_nextest() && filters.is_empty() {
        // nextest leaves document tests out.
        stream(
            "testing the documents' examples",
            machine::cargo().current_dir(checkout.root()).args(["test", "--workspace", "--doc", "--quiet"]),
        )?;
    }
    Ok(())
}

/// The binaries as a user runs them. One test after another: each attaches to the one kernel there is.
fn end_to_end(checkout: &Checkout, filters: &[String]) -> Result<()> {
    if !machine::is_root() {
        return as_root_end_to_end(checkout, filters);
    }
    let mut command = runner(checkout, &END_TO_END, filters);
    command.args(if has_nextest() { ["--test-threads=1"].as_slice() } else { &["--", "--test-threads=1"] });
    stream("testing end to end", &mut command)
}

/// With the features that everything else was built with.
const END_TO_END: [&str; 3] = ["--workspace", "--test", "end_to_end"];

/// The test binary is built by the user and run as root, so that cargo's files stay the user's.
fn as_root_end_to_end(checkout: &Checkout, filters: &[String]) -> Result<()> {
    setup::ask_for_password_once()?;
    let mut build = machine::cargo();
    build.current_dir(checkout.root()).arg("test").args(END_TO_END).args(["--no-run", "--message-format=json"]);
    let messages = machine::output(&mut build).context("the end-to-end tests do not compile")?;
    let executables = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let executable = executables.filter_map(|message| message["executable"].as_str().map(str::to_owned)).next_back();
    let executable = executable.context("cargo named no test binary")?;
    let mut command = Command::new("sudo");
    if in_ci() {
        command.arg("CI=true");
    }
    stream("testing end to end", command.current_dir(checkout.root().join("xtask")).arg(executable).arg("--test-threads=1").args(filters))
}

/// cargo-nextest where it is installed, `cargo test` elsewhere.
fn runner(checkout: &Checkout, selection: &[&str], filters: &[String]) -> Command {
    let mut command = machine::cargo();
    command.current_dir(checkout.root());
    if has_nextest() {
        command.args(["nextest", "run", "--no-tests=pass", "--no-fail-fast"]).args(selection).args(filters);
    } else {
        note("cargo-nextest is not installed; using cargo test");
        command.args(["test", "--no-fail-fast"]).args(selection);
        command.args(filters.iter().take(1));
    }
    command
}

fn has_nextest() -> bool {
    machine::output(machine::cargo().args(["nextest", "--version"])).is_some()
}

/// What the end-to-end tests stand on. In continuous integration each missing piece is a failure, elsewhere a remark.
fn surroundings(checkout: &Checkout) -> Result<()> {
    if !machine::can_become_root() {
        bail!("the end-to-end tests attach to the kernel and need root; `cargo xtask test --fast` leaves them out");
    }
    setup::ask_for_password_once()?;
    if machine::mounted("cgroup2").is_none() {
        setup::missing("no cgroup v2 hierarchy is mounted")?;
    }
    if !machine::has_kernel_types() {
        setup::missing("this kernel does not describe its types (no /sys/kernel/btf/vmlinux)")?;
    }
    docker::start(checkout)
}
