//! A control plane that was started for a measurement: its addresses, and what it takes of the machine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

/// How long it may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a control plane listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) mesos: SocketAddr,
    pub(crate) replica: SocketAddr,
}

impl Addresses {
    /// Ports that nobody has.
    pub(crate) fn free() -> Result<Addresses> {
        let mut held = Vec::new();
        let mut next = || -> Result<SocketAddr> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
            let address = listener.local_addr()?;
            held.push(listener);
            Ok(address)
        };
        Ok(Addresses { http: next()?, grpc: next()?, mesos: next()?, replica: next()? })
    }
}

/// A process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) addresses: Addresses,
    child: Child,
}

impl Control {
    /// Starts the program on a data directory and waits until it answers; with `more` flags.
    pub(crate) async fn start(program: &Path, data: &Path, addresses: Addresses, more: &[&str]) -> Result<Control> {
        let log = std::fs::File::options().create(true).append(true).open(data.join("control.log")).context("making a log")?;
        let child = Command::new(program)
            .args(["--services", "master", "--log-filter", "warn"])
            .arg(format!("--http-address={}", addresses.http))
            .arg(format!("--grpc-address={}", addresses.grpc))
            .arg(format!("--mesos-address={}", addresses.mesos))
            .arg(format!("--data-dir={}", data.display()))
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut control = Control { addresses, child };
        let begun = Instant::now();
        // 200: it leads, and has recovered; 307: another does.
        while !crate::http::get(addresses.mesos, "/state-summary", false).await.is_ok_and(|it| matches!(it.0, 200 | 307)) {
            if let Some(status) = control.child.try_wait()? {
                let log = std::fs::read_to_string(data.join("control.log")).unwrap_or_default();
                bail!("the control plane ended ({status}):\n{log}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("the control plane does not answer");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(control)
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Processor time of all its threads.
    pub(crate) fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = text.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
        let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
        // A tick is a hundredth of a second on every Linux.
        Duration::from_millis(ticks * 10)
    }

    /// Resident bytes.
    pub(crate) fn resident(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = text.lines().find_map(|it| it.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|it| it.parse::<f64>().ok()).unwrap_or(f64::NAN) * 1024.0
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An agent of this machine at a master. Killed when dropped, and what it started with it.
#[derive(Debug)]
pub(crate) struct RealAgent(Child);

impl RealAgent {
    /// Starts the probe's program in the role of an agent, with everything below `directory`.
    pub(crate) fn start(program: &Path, directory: &Path, grpc: SocketAddr) -> Result<RealAgent> {
        let log = std::fs::File::create(directory.join("agent.log")).context("making a log")?;
        let child = Command::new(program)
            .args(["--roles=run", "--agent-address=127.0.0.1:0", "--admin-address=off", "--log-filter=warn", "--recover=cleanup"])
            .args(["--resources=cpus:64;mem:65536;disk:65536", "--cgroups-root=mesos"])
            .arg(format!("--control-plane=http://{grpc}"))
            .arg(format!("--work-dir={}", directory.join("work").display()))
            .arg(format!("--runtime-dir={}", directory.join("run").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(RealAgent(child))
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory for its data, and the program on it.
pub(crate) async fn fresh(program: &Path, more: &[&str]) -> Result<(TempDir, Control)> {
    let directory = TempDir::with_prefix("mesos-load-").context("making a directory")?;
    let control = Control::start(program, directory.path(), Addresses::free()?, more).await?;
    Ok((directory, control))
}

/// One metric of a master, by Mesos's name.
pub(crate) async fn metric(mesos: SocketAddr, name: &str) -> Result<f64> {
    let (status, body) = crate::http::get(mesos, "/metrics/snapshot", false).await?;
    let value: Value = serde_json::from_slice(&body).with_context(|| format!("metrics, status {status}"))?;
    value[name].as_f64().with_context(|| format!("there is no metric {name}"))
}
