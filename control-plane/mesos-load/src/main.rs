//! A cluster of agents and frameworks that are not there, for measuring a master from outside: `mesos-load --control <program> <scene>…`.
//!
//! Agents speak the gRPC stream, frameworks the v1 HTTP API with RecordIO and protobuf, each on connections of its own. What runs on the agents is
//! made up, what goes over the wire is not. Every number leaves as a line `NUMBER {json}` on standard output; what is said beside goes to
//! standard error.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a program for people that ends with its measurement; its loops end with it, and its counts are far below 2^53"
)]

mod agent;
mod control;
mod framework;
mod http;
mod number;
mod random;
mod scenes;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures a master.
#[derive(Debug, Parser)]
#[command(name = "mesos-load")]
struct Flags {
    /// The control plane's program
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/orchestrator-control")]
    control: PathBuf,
    /// The probe's program, for `containers`; that scene needs root
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/orchestrator-probe")]
    probe: PathBuf,
    /// Image for `containers`; plain commands without
    #[arg(long)]
    image: Option<String>,
    /// Divides the work, for a first look: compare nothing with the targets then
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    scale_down: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// What to measure
    #[arg(required = true)]
    scenes: Vec<Scene>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scene {
    /// 5,000 agents, 200 frameworks: from resources that are free to their offer.
    Offers,
    /// 1,000 agents, 50 frameworks that take whatever they are offered: how much is in use.
    Utilization,
    /// From ACCEPT to the acknowledgement of TASK_RUNNING: tasks a second.
    Launch,
    /// 20,000 agents with 200,000 tasks come to a new leader; then `/state` for 20 pollers, and memory.
    Failover,
    /// Three servers of ZooKeeper, two masters, 1,000 agents: the leader is killed.
    Ensemble,
    /// The core alone: one allocation over 10,000 agents and 1,000 frameworks.
    Core,
    /// Containers of a real agent.
    Containers,
}

fn main() -> Result<()> {
    let flags = Flags::parse();
    raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        for scene in &flags.scenes {
            eprintln!("{scene:?}");
            match scene {
                Scene::Offers => scenes::offers::run(&flags).await?,
                Scene::Utilization => scenes::utilization::run(&flags).await?,
                Scene::Launch => scenes::launch::run(&flags).await?,
                Scene::Failover => scenes::failover::run(&flags).await?,
                Scene::Ensemble => scenes::ensemble::run(&flags).await?,
                Scene::Core => scenes::core::run(&flags),
                Scene::Containers => scenes::containers::run(&flags).await?,
            }
        }
        Ok(())
    })
}

impl Flags {
    /// A size, divided as was asked for, at least 1.
    fn scaled(&self, count: u32) -> u32 {
        (count / self.scale_down).max(1)
    }

    /// As many agents, each of which is an open file here and in the control plane; fewer where this machine allows no more.
    fn scaled_agents(&self, count: u32) -> u32 {
        use nix::sys::resource::{Resource, getrlimit};
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
        let most = u32::try_from(files.saturating_sub(1_000)).unwrap_or(u32::MAX).max(1);
        let count = self.scaled(count);
        if count > most {
            eprintln!("{files} open files are allowed here: {most} agents instead of {count}");
        }
        count.min(most)
    }
}

/// Enough for the most agents that are simulated.
const OPEN_FILES: u64 = 131_072;

/// Every agent and framework has connections of its own.
fn raise_open_files() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("asking for the limit of open files")?;
    if hard < OPEN_FILES && setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES).is_ok() {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit of open files")
}
