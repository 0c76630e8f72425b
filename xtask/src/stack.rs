//! The real control plane and the real probe, started as a user starts them, on free ports and with a data directory of their own: what
//! benchmarks and end-to-end tests look at from outside.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::progress::last_lines;
use crate::services::{self, Addresses, Service, TICK};
use crate::{Checkout, Profile, http};

/// How long a program may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How many pages of flows are read at most.
const MOST_PAGES: usize = 1_000;

/// A control plane and, when started, a probe. Both stop when this value goes.
#[derive(Debug)]
pub struct Stack {
    checkout: Checkout,
    profile: Profile,
    addresses: Addresses,
    // The probes are stopped first: fields are dropped in order.
    collectors: Vec<Service>,
    probe: Option<Service>,
    control: Option<Service>,
    /// The kernel programs outlive the probe, as where a supervisor starts it again.
    pinned: bool,
    directory: TempDir,
}

impl Stack {
    /// Starts both and waits until the probe is connected.
    pub fn start(profile: Profile) -> Result<Self> {
        let mut stack = Self::control_alone(profile)?;
        stack.start_probe()?;
        Ok(stack)
    }

    /// As [`Stack::start`], with kernel programs that stay when the probe is killed. [`Stack::detach`] removes them.
    pub fn start_pinned(profile: Profile) -> Result<Self> {
        let mut stack = Self::control_alone(profile)?;
        stack.pinned = true;
        stack.start_probe()?;
        Ok(stack)
    }

    /// Stops the probe, and removes what it left in the kernel.
    pub fn detach(&mut self) -> Result<()> {
        if let Some(mut probe) = self.probe.take() {
            probe.stop()?;
        }
        let status = crate::machine::as_root(self.binary("orchestrator-probe")?).args(["detach", "--pin-dir", "on"]).status()?;
        if !status.success() {
            bail!("the kernel programs could not be removed ({status})");
        }
        Ok(())
    }

    /// Starts the control plane alone.
    pub fn control_alone(profile: Profile) -> Result<Self> {
        let directory = TempDir::with_prefix("orchestrator-").context("cannot make a temporary directory")?;
        let addresses = Addresses::free()?;
        let mut stack = Self {
            checkout: Checkout::here(),
            profile,
            addresses,
            collectors: Vec::new(),
            probe: None,
            control: None,
            pinned: false,
            directory,
        };
        stack.start_control()?;
        Ok(stack)
    }

    /// Address of the page and the API.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.addresses.http
    }

    /// Address of the probe's metrics and health.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// Process id of the control plane.
    pub fn control_pid(&self) -> Result<u32> {
        Ok(self.control.as_ref().context("the control plane is not running")?.own_pid())
    }

    /// Process id of the probe.
    pub fn probe_pid(&self) -> Result<u32> {
        Ok(self.probe.as_ref().context("the probe is not running")?.own_pid())
    }

    /// Starts the control plane, on the addresses and the data of the one before.
    pub fn start_control(&mut self) -> Result<()> {
        let command = self.addresses.control(&self.binary("orchestrator-control")?, &self.directory.path().join("data"));
        self.control = Some(Service::start("orchestrator-control", command, &self.log("control"))?);
        self.until(START_PATIENCE, "the control plane is ready", |stack| services::is_ready(stack.http()))
    }

    /// Starts the probe and waits until it is connected.
    pub fn start_probe(&mut self) -> Result<()> {
        let mut command = self.addresses.probe(&self.binary("orchestrator-probe")?);
        if self.pinned {
            command.args(["--pin-dir", "on"]);
        }
        self.probe = Some(Service::start("orchestrator-probe", command, &self.log("probe"))?);
        self.until(START_PATIENCE, "the probe is connected and sees", |stack| services::probe_is_seeing(&stack.addresses))
    }

    /// Starts one more collector of the cluster whose API is served at this address. Returns its place among the collectors.
    pub fn start_collector(&mut self, api: SocketAddr) -> Result<usize> {
        let mut command = Command::new(self.binary("orchestrator-probe")?);
        let number = self.collectors.len();
        command.args(["--roles=kubernetes", "--kubernetes=production", "--kubernetes-lease=orchestrator/collector", "--admin-address=off"]);
        command.arg(format!("--control-plane=http://{}", self.addresses.grpc)).arg(format!("--kubernetes-api=http://{api}"));
        self.collectors.push(Service::start("orchestrator-probe", command, &self.log(&format!("collector-{number}")))?);
        Ok(number)
    }

    /// Kills a collector without asking.
    pub fn kill_collector(&mut self, number: usize) -> Result<()> {
        self.collectors.get_mut(number).context("no such collector")?.kill()
    }

    /// What a collector has logged so far.
    #[must_use]
    pub fn collector_log(&self, number: usize) -> String {
        std::fs::read_to_string(self.log(&format!("collector-{number}"))).unwrap_or_default()
    }

    /// Kills the control plane without asking.
    pub fn kill_control(&mut self) -> Result<()> {
        self.control.take().context("the control plane is not running")?.kill()
    }

    /// Kills the probe without asking.
    pub fn kill_probe(&mut self) -> Result<()> {
        self.probe.take().context("the probe is not running")?.kill()
    }

    /// Asks both to stop; how long that took.
    pub fn stop(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        for service in [self.probe.take(), self.control.take()].iter_mut().flatten() {
            service.stop()?;
        }
        Ok(begun.elapsed())
    }

    /// Waits until a condition holds; what the programs logged last, when it does not in time or one of them ended.
    pub fn until(&mut self, patience: Duration, what: &str, mut condition: impl FnMut(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !condition(self) {
            for service in [&mut self.control, &mut self.probe].into_iter().flatten() {
                if let Some(status) = service.ended() {
                    bail!("{} ended ({status}):\n{}", service.name, last_lines(&service.log, 40));
                }
            }
            if begun.elapsed() > patience {
                bail!("waited {} s in vain until {what}\n{}", patience.as_secs(), self.logs());
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Every flow that the API tells for a query such as `pid=12`, over all pages.
    pub fn flows(&self, query: &str) -> Result<Vec<Value>> {
        let mut flows = Vec::new();
        let mut after = None;
        for _ in 0..MOST_PAGES {
            let position = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
            let page = http::get_json(self.http(), &format!("/api/v1/flows?{query}&limit=500{position}"))?;
            flows.extend(page["flows"].as_array().context("no flows in the reply")?.iter().cloned());
            match &page["next"] {
                Value::Null => return Ok(flows),
                Value::String(next) => after = Some(next.clone()),
                next => after = Some(next.to_string()),
            }
        }
        bail!("the flows have more than {MOST_PAGES} pages")
    }

    /// What the API tells of the probe of this machine.
    pub fn probe_state(&self) -> Result<Value> {
        let probes = http::get_json(self.http(), "/api/v1/probes")?;
        probes["probes"].as_array().and_then(|probes| probes.first()).cloned().context("the control plane knows no probe")
    }

    /// The last lines of both logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let section = |name: &str| format!("      --- {name} ---\n{}", last_lines(&self.log(name), 40));
        let collectors = (0..self.collectors.len()).map(|number| section(&format!("collector-{number}"))).collect::<String>();
        section("control") + &section("probe") + &collectors
    }

    fn binary(&self, name: &str) -> Result<PathBuf> {
        let binary = self.checkout.binary(self.profile, name);
        if !binary.exists() {
            bail!("{} is not built; `cargo xtask build` does", binary.display());
        }
        Ok(binary)
    }

    fn log(&self, name: &str) -> PathBuf {
        Path::new(self.directory.path()).join(format!("{name}.log"))
    }
}
