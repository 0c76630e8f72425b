//! `orchestrator`: the command line of operators.
//!
//! It knows the HTTP APIs that Mesos has and nothing of ours behind them, so it works against a master of Mesos, too. Every command is one or a few
//! requests; nothing is kept between two runs.

pub mod arguments;

mod change;
mod client;
mod exec;
mod list;
mod logs;
mod maintenance;
mod marathon;
mod output;
mod resolve;
mod resources;

use std::io::Write;

use anyhow::Result;
use clap::CommandFactory as _;

use arguments::{Arguments, Command};
use client::Client;
use output::Out;

/// Does what was asked; gives back the exit code of the process.
///
/// # Errors
/// When the master or an agent does not answer or refuses, and when what was asked for is not there.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<u8> {
    match &arguments.command {
        Command::Completion { shell } => {
            // Into memory first: the generator panics where a reader goes away.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "orchestrator", &mut script);
            out.write_all(&script)?;
            return Ok(0);
        }
        // These know Marathon's API alone, whoever serves it.
        Command::Marathon(flags) => return marathon::run(flags, out),
        // It speaks with the control plane's own API, and has its own address and shape of output.
        Command::Zk(flags) => {
            let as_json = flags.is_json() || arguments.output == arguments::Format::Json;
            return Ok(u8::from(!zksync_service::cli::run_as(flags, &arguments.access, as_json, &mut &mut *out)?));
        }
        _ => {}
    }
    let client = Client::open(&arguments.master, &arguments.access)?;
    let mut out = Out::new(out, arguments.output);
    let out = &mut out;
    match &arguments.command {
        Command::Agents { agent } => list::agents(&client, agent.as_deref(), out)?,
        Command::Frameworks { framework, all } => list::frameworks(&client, framework.as_deref(), *all, out)?,
        Command::Roles => list::roles(&client, out)?,
        Command::Tasks(flags) => list::tasks(&client, flags, out)?,
        Command::State => list::state(&client, out)?,
        Command::Leader => list::leader(&client, out)?,
        Command::Logs(flags) => logs::run(&client, flags, out)?,
        Command::Exec(flags) => return exec::run(&client, flags),
        Command::Drain { agent, grace, mark_gone } => change::drain(&client, agent, *grace, *mark_gone, out)?,
        Command::Deactivate { agent } => change::agent(&client, "DEACTIVATE_AGENT", agent, "deactivated", out)?,
        Command::Reactivate { agent } => change::agent(&client, "REACTIVATE_AGENT", agent, "reactivated", out)?,
        Command::Gone { agent } => change::agent(&client, "MARK_AGENT_GONE", agent, "marked gone", out)?,
        Command::Maintenance(flags) => maintenance::run(&client, flags, out)?,
        Command::Quota(flags) => change::quota(&client, flags, out)?,
        Command::Weights(flags) => change::weights(&client, flags, out)?,
        Command::Reserve(flags) => resources::reserve(&client, flags, true, out)?,
        Command::Unreserve(flags) => resources::reserve(&client, flags, false, out)?,
        Command::Volumes(flags) => resources::volumes(&client, flags, out)?,
        Command::Teardown { framework } => change::teardown(&client, framework, out)?,
        Command::Completion { .. } | Command::Zk(_) | Command::Marathon(_) => {}
    }
    Ok(0)
}
