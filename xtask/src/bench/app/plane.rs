//! A control plane, and a cluster that is not there.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::super::{Number, Target};
use crate::http;
use crate::progress::{Pulse, last_lines};
use crate::services::{self, Addresses, Service, TICK, resident_mb};

/// How long everything may take to be told.
const PATIENCE: Duration = Duration::from_secs(150);
/// What follows on the snapshots: first samples, first pictures, first segments.
const SETTLE: Duration = Duration::from_secs(10);

/// How large the cluster is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) probes: u64,
    pub(super) containers: u64,
    pub(super) processes: u64,
    pub(super) flows: u64,
}

impl Size {
    pub(super) fn divided(self, by: u64) -> Self {
        let part = |all: u64| (all / by).max(1);
        Size { probes: part(self.probes), containers: part(self.containers), processes: part(self.processes), flows: part(self.flows) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size { probes, containers, processes, flows } = self;
        write!(f, "{probes} probes, {containers} containers, {processes} processes, {flows} flows")
    }
}

/// Both stop when this value goes.
pub(super) struct Plane {
    pub(super) size: Size,
    generator: Option<Service>,
    control: Service,
    addresses: Addresses,
    directory: TempDir,
    binaries: PathBuf,
}

impl Plane {
    /// Starts both, and waits until everything was told and has settled.
    pub(super) fn start(binaries: &Path, size: Size) -> Result<Self> {
        let mut plane = Self::empty(binaries, size)?;
        plane.fill()?;
        Ok(plane)
    }

    /// Starts a control plane alone.
    pub(super) fn empty(binaries: &Path, size: Size) -> Result<Self> {
        let directory = TempDir::with_prefix("orchestrator-bench-").context("cannot make a temporary directory")?;
        let addresses = Addresses::free()?;
        let binary = binaries.join("orchestrator-control");
        if !binary.exists() {
            bail!("there is no {}", binary.display());
        }
        let mut command = addresses.control(&binary, &directory.path().join("data"));
        command.args(["--services=topology", &format!("--max-probes={}", size.probes.max(1_000)), "--log-filter=warn"]);
        let mut control = Service::start("orchestrator-control", command, &directory.path().join("control.log"))?;
        let begun = Instant::now();
        while !services::is_ready(addresses.http) {
            if control.ended().is_some() || begun.elapsed() > PATIENCE {
                bail!("the control plane does not start:\n{}", last_lines(&control.log, 20));
            }
            std::thread::sleep(TICK);
        }
        Ok(Plane { size, generator: None, control, addresses, directory, binaries: binaries.to_owned() })
    }

    /// Starts the generator, and waits until everything was told and has settled.
    fn fill(&mut self) -> Result<()> {
        let Size { probes, containers, processes, flows } = self.size;
        let mut command = Command::new(self.binaries.join("orchestrator-synthetic"));
        command.arg(format!("--control-plane=http://{}", self.addresses.grpc));
        for (name, count) in [("probes", probes), ("containers", containers), ("processes", processes), ("flows", flows)] {
            command.arg(format!("--{name}={count}"));
        }
        let log = self.directory.path().join("synthetic.log");
        let mut generator = Service::start("orchestrator-synthetic", command, &log)?;
        let _alive = Pulse::start(&format!("{} are told", self.size));
        let begun = Instant::now();
        while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("have told what is there")) {
            if generator.ended().is_some() || begun.elapsed() > PATIENCE {
                bail!("not everything was told:\n{}{}", last_lines(&log, 20), last_lines(&self.control.log, 20));
            }
            std::thread::sleep(TICK);
        }
        std::thread::sleep(SETTLE);
        self.generator = Some(generator);
        Ok(())
    }

    pub(super) fn http(&self) -> SocketAddr {
        self.addresses.http
    }

    pub(super) fn pid(&self) -> Result<u32> {
        Ok(self.control.own_pid())
    }

    pub(super) fn resident(&self) -> Result<f64> {
        resident_mb(self.control.own_pid()).context("the control plane is gone")
    }

    /// A sample of the control plane's own metrics; `name` with its labels.
    pub(super) fn metric(&self, name: &str) -> Result<f64> {
        let page = http::get(self.http(), "/metrics")?.text();
        let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let value = line.and_then(|line| line.rsplit(' ').next()).with_context(|| format!("no metric {name}"))?;
        Ok(value.parse()?)
    }

    /// From a report's receipt to its being on the map.
    pub(super) fn applied(&self, target: Target) -> Result<Number> {
        let (sum, count) = (self.metric("orchestrator_report_apply_seconds_sum")?, self.metric("orchestrator_report_apply_seconds_count")?);
        Ok(Number::new("app: from a report's receipt to its being on the map, mean", sum / count * 1e3, "ms", target))
    }
}

/// An answer that was read and thrown away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// Until its first byte.
    pub(super) first: Duration,
    /// Until its last.
    pub(super) whole: Duration,
    pub(super) bytes: u64,
}

/// `GET path`, which must answer 200.
pub(super) fn fetch(server: SocketAddr, path: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    let begun = Instant::now();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut buffer = vec![0; 256 << 10];
    let (mut first, mut bytes) = (None, 0);
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        if first.is_none() {
            first = Some(begun.elapsed());
            if !buffer.starts_with(b"HTTP/1.1 200") {
                bail!("{path} answered {:.80}", String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()));
            }
        }
        bytes += length as u64;
    }
    Ok(Answer { first: first.context("no answer")?, whole: begun.elapsed(), bytes })
}
