//! A cluster that is not there. Every probe has its own connection and speaks the real stream; what they tell fits together: a connection has both
//! its ends, a process its container. Each second a share of everything is replaced.
//!
//! Ends by itself, or on a signal, and prints what it did as one line of JSON.

mod node;
mod probe;
mod random;
mod statistics;
mod world;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio::sync::watch;
use tonic::transport::Endpoint;

use statistics::Statistics;
use world::{Size, World};

/// Probes of a cluster that is not there, for measuring a control plane.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// gRPC address of the control plane
    #[arg(long, default_value = "http://127.0.0.1:4041")]
    control_plane: String,
    /// Hosts, each with a probe
    #[arg(long, default_value_t = 100)]
    probes: u32,
    /// Containers on all hosts together
    #[arg(long, default_value_t = 1_000)]
    containers: u32,
    /// Processes on all hosts together
    #[arg(long, default_value_t = 10_000)]
    processes: u32,
    /// Ends of flows on all hosts together: half as many edges
    #[arg(long, default_value_t = 20_000)]
    flows: u32,
    /// Share of everything that is replaced each second, in percent
    #[arg(long, default_value_t = 1.0)]
    change: f64,
    /// Time between two samples of each host, container and process
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    metrics_interval: Duration,
    /// How long to go on once all probes have told what is there; until a signal when absent
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Everything that is random comes from this
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    let endpoint = Endpoint::from_shared(flags.control_plane.clone()).context("--control-plane is no address")?;
    let size = Size { hosts: flags.probes.max(1), containers: flags.containers, processes: flags.processes, flows: flags.flows };
    let world = Arc::new(World::new(size, flags.seed));
    let statistics = Arc::new(Statistics::default());
    let (stop, stopping) = watch::channel(false);
    let mut probes = tokio::task::JoinSet::new();
    for host in 0..size.hosts {
        let rates = probe::Rates { change: flags.change / 100.0, metrics_interval: flags.metrics_interval };
        probes.spawn(probe::run(endpoint.clone(), world.clone(), host, rates, statistics.clone(), stopping.clone()));
    }
    let ended = async {
        statistics.all_synchronized(u64::from(size.hosts)).await;
        eprintln_now(&format!("all {} probes have told what is there", size.hosts));
        match flags.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let failed = tokio::select! {
        () = ended => None,
        signal = tokio::signal::ctrl_c() => signal.err().map(anyhow::Error::from),
        Some(probe) = probes.join_next() => Some(probe.context("a probe panicked")?.err().unwrap_or_else(|| anyhow::anyhow!("a probe ended"))),
    };
    stop.send_replace(true);
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(10), probes.join_next()).await {}
    #[expect(clippy::print_stdout, reason = "the result of a program")]
    {
        println!("{}", serde_json::to_string(&statistics.report())?);
    }
    failed.map_or(Ok(()), Err)
}

#[expect(clippy::print_stderr, reason = "whoever waits for it reads it")]
fn eprintln_now(text: &str) {
    eprintln!("{text}");
}
