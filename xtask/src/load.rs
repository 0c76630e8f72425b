//! `cargo xtask load`: the kernel programs alone, for work on a hook.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::flags::LoadFlags;
use crate::progress::{Steps, note, shown, stream};
use crate::{Checkout, Profile, ebpf, machine, setup};

/// Builds the kernel programs and the probe, then hands the terminal to `orchestrator-probe load`.
pub(crate) fn run(checkout: &Checkout, flags: &LoadFlags) -> Result<ExitCode> {
    setup::ask_for_password_once()?;
    let mut steps = Steps::new(2);
    steps.run("Build the kernel programs", || {
        setup::tools(checkout, &[setup::C_COMPILER, setup::MAKE])?;
        setup::for_kernel_programs(checkout)?;
        ebpf::build(checkout)
    })?;
    steps.run("Build the probe", || {
        let mut build = machine::cargo();
        stream("building the probe", build.current_dir(checkout.root()).args(["build", "--package", "orchestrator-probe"]))
    })?;
    let binary = checkout.binary(Profile::Debug, "orchestrator-probe");
    let mut command: Command = machine::as_root(&binary);
    command.arg("load");
    if let Some(seconds) = flags.seconds {
        command.args(["--duration", &format!("{seconds}s")]);
    }
    command.args(&flags.arguments);
    note(&shown(&command));
    let status = command.status().with_context(|| format!("cannot start {}", binary.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
