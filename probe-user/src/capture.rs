//! The ladder: which way of seeing works here, what was there before, and how all of it reaches the driver.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::probe::v1;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::cgroupfs::Mounts;
use crate::clock::Now;
use crate::config::CaptureMode;
use crate::connections::{ListenerWatch, SocketId, Watch};
use crate::dns;
use crate::driver::Input;
use crate::ebpf::{self, Seeder};
use crate::fallback::{self, Rung, connector::Connector};
use crate::host::namespace::{Whereabouts, host_process};
use crate::observation::{FlowEnd, Observation, Protocol};
use crate::procfs::Procfs;
use crate::snapshot::{self, Sockets};
use crate::sockets::{self, SocketOwner, SocketRecord, States};
use crate::telemetry::Telemetry;

/// Connections that were opened while the programs were being attached are looked for after this pause: by then the capture has told of
/// those that it saw.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// How often connections from before the capture are looked at, at best, and how small a part of the time that may take.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
const WATCH_COST_DIVISOR: u32 = 500;

/// What the ladder needs.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// Which rungs may be used.
    pub mode: CaptureMode,
    /// Where names are looked for.
    pub dns: dns::Mode,
    /// `/proc`.
    pub procfs: Arc<Procfs>,
    /// Root of the cgroup2 hierarchy, if one was given.
    pub cgroup_root: Option<PathBuf>,
    /// Whether kernel programs write log lines.
    pub kernel_log: bool,
    /// Where that hierarchy is mounted.
    pub unified: Option<PathBuf>,
    /// Where the cost of the programs is shown.
    pub telemetry: Telemetry,
    /// Where observations go.
    pub observations: mpsc::Sender<Vec<Observation>>,
    /// Where everything else goes.
    pub inputs: mpsc::Sender<Input>,
    /// Cancelled when a rung is reached and the processes that are there have been told.
    pub started: CancellationToken,
}

/// Why nothing can be seen.
#[derive(Debug, thiserror::Error)]
pub enum LadderError {
    /// Kernel programs were asked for, and they cannot be used.
    #[error("kernel programs cannot be used")]
    Ebpf(#[source] ebpf::CaptureError),
    /// The connector was asked for, and it cannot be used.
    #[error("the netlink process connector cannot be used")]
    Connector(#[source] std::io::Error),
    /// The driver is gone.
    #[error("the probe stops")]
    Stopping,
}

/// Lets go of the programs' descriptors at the end: programs that somebody holds stay in the kernel.
struct Unread(Telemetry);

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.metrics().set_meter(None);
    }
}

/// The rung that was reached.
enum Reached {
    Programs { running: Box<ebpf::Running>, receiver: mpsc::Receiver<Vec<Observation>> },
    Below { rung: Rung, reason: String, connector: Option<Connector> },
}

impl Ladder {
    /// Climbs as high as it can, tells what is there already, and delivers until `stopping` is cancelled.
    ///
    /// # Errors
    /// When the rung that was asked for cannot be stood on.
    pub async fn run(self, stopping: CancellationToken) -> Result<(), LadderError> {
        let before = self.blocking(|ladder| Sockets::read_ids(&ladder.procfs).unwrap_or_default()).await?;
        let reached = self.blocking(|ladder| ladder.climb()).await??;
        match reached {
            Reached::Programs { running, receiver } => self.run_programs(*running, receiver, before, stopping).await,
            Reached::Below { rung, reason, connector } => self.run_below(rung, &reason, connector, stopping).await,
        }
    }

    /// Tries one rung after the other.
    fn climb(&self) -> Result<Reached, LadderError> {
        let mut reason = String::new();
        if matches!(self.mode, CaptureMode::Auto | CaptureMode::Ebpf) {
            let config = ebpf::Config {
                cgroup_root: self.cgroup_root.clone(),
                proc_root: self.procfs.root().to_owned(),
                kernel_log: self.kernel_log,
                dns: self.dns,
                ..ebpf::Config::default()
            };
            match ebpf::Capture::start_after(&config, |seeder| self.seed_listeners(seeder)) {
                Ok((running, receiver)) => return Ok(Reached::Programs { running: Box::new(running), receiver }),
                Err(error) if self.mode == CaptureMode::Ebpf => return Err(LadderError::Ebpf(error)),
                Err(error) => reason = format!("kernel programs: {}", chain(&error)),
            }
        }
        if self.mode == CaptureMode::Proc {
            return Ok(Reached::Below { rung: Rung::Proc, reason: "asked for by --capture proc".to_owned(), connector: None });
        }
        match Connector::open() {
            Ok(connector) => {
                let reason = if reason.is_empty() { "asked for by --capture netlink".to_owned() } else { reason };
                Ok(Reached::Below { rung: Rung::Netlink, reason, connector: Some(connector) })
            }
            Err(error) if self.mode == CaptureMode::Netlink => Err(LadderError::Connector(error)),
            Err(error) => Ok(Reached::Below { rung: Rung::Proc, reason: format!("{reason}; process connector: {error}"), connector: None }),
        }
    }

    async fn run_programs(
        self,
        running: ebpf::Running,
        mut receiver: mpsc::Receiver<Vec<Observation>>,
        before: HashSet<SocketId>,
        stopping: CancellationToken,
    ) -> Result<(), LadderError> {
        let status = running.status().clone();
        let capture = capture_of(&status);
        tracing::info!(rung = capture.rung, description = capture.description, reason = capture.reason, "capture started");
        self.telemetry.metrics().set_meter(Some(running.meter()));
        let _unread = Unread(self.telemetry.clone());
        self.tell(Input::Capture(capture)).await?;
        let forwarded = async {
            while let Some(batch) = receiver.recv().await {
                if self.observations.send(batch).await.is_err() {
                    return;
                }
            }
        };
        let around = self.tell_what_was_there(before, status.attached("release"));
        // Rung 3 has no program that sees processes: the connector does, or the walk that comes with the samples.
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        if !status.processes {
            self.start_connector(Connector::open().ok(), &stop)?;
        }
        let ended = {
            let mut forwarded = std::pin::pin!(forwarded);
            let mut around = std::pin::pin!(around);
            let mut told = false;
            loop {
                tokio::select! {
                    () = &mut forwarded => break false,
                    result = &mut around, if !told => match result {
                        Ok(()) => told = true,
                        Err(_) => break true,
                    },
                    () = stopping.cancelled() => break true,
                }
            }
        };
        if !ended {
            tracing::error!("the capture ended by itself");
            return Ok(());
        }
        // Stopping reads everything once more, and waits for it to be taken.
        let stopped = self.blocking(move |_| running.stop());
        let drained = async {
            while let Some(batch) = receiver.recv().await {
                if self.observations.send(batch).await.is_err() {
                    return;
                }
            }
        };
        let (stopped, ()) = tokio::join!(stopped, drained);
        stopped
    }

    async fn run_below(
        self,
        rung: Rung,
        reason: &str,
        connector: Option<Connector>,
        stopping: CancellationToken,
    ) -> Result<(), LadderError> {
        let capture = rung.capture(reason);
        tracing::warn!(rung = capture.rung, description = capture.description, reason, "capture started on a lower rung");
        self.tell(Input::Capture(capture)).await?;
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        self.start_connector(connector, &stop)?;
        self.tell_processes().await?;
        let (_hang_up, hung_up) = std::sync::mpsc::channel();
        let (procfs, observations) = (self.procfs.clone(), self.observations.clone());
        let poll = std::thread::Builder::new()
            .name("socket-poll".to_owned())
            .spawn(move || fallback::poll(&procfs, rung, &hung_up, &observations));
        if let Err(error) = poll {
            tracing::error!(%error, "no thread to look at connections with");
            return Ok(());
        }
        stopping.cancelled().await;
        Ok(())
    }

    fn start_connector(&self, connector: Option<Connector>, stop: &CancellationToken) -> Result<(), LadderError> {
        let Some(connector) = connector else { return Ok(()) };
        let (procfs, stop, observations) = (self.procfs.clone(), stop.clone(), self.observations.clone());
        let thread = std::thread::Builder::new().name("proc-events".to_owned()).spawn(move || connector.run(&procfs, &stop, &observations));
        thread.map(drop).map_err(LadderError::Connector)
    }

    /// Listeners from before the capture pass their owner on to what they accept.
    fn seed_listeners(&self, seeder: &Seeder) {
        match Sockets::read(&self.procfs) {
            Ok(sockets) => {
                let seeded = seeder.seed(sockets.listeners());
                tracing::debug!(written = seeded.written, failed = seeded.failed, "owners of listeners");
            }
            Err(error) => tracing::warn!(%error, "listeners from before cannot be told their owners"),
        }
    }

    /// cgroups and processes that are there.
    async fn tell_processes(&self) -> Result<(), LadderError> {
        if let Some(root) = self.cgroup_root.clone().or_else(|| self.unified.clone()) {
            let cgroups = self.blocking(move |_| snapshot::cgroups(&root, Now::read().boot)).await?;
            self.tell(Input::Observed(cgroups)).await?;
        }
        match self.blocking(|ladder| snapshot::processes(&ladder.procfs)).await? {
            Ok(processes) => self.tell(Input::Described(processes)).await?,
            Err(error) => tracing::error!(%error, "processes cannot be listed"),
        }
        self.started.cancel();
        Ok(())
    }

    /// Processes, cgroups, listeners and connections from before the capture. Goes on looking at those of which the programs tell no end, until
    /// all have ended: the programs count a socket only if they saw it begin.
    async fn tell_what_was_there(&self, before: HashSet<SocketId>, ends_are_told: bool) -> Result<(), LadderError> {
        self.tell_processes().await?;
        let told = self.tell_listeners().await?;
        let mut listeners = if ends_are_told { ListenerWatch::default() } else { told };
        let watch = self.adopt(Watch::default(), move |id, _| before.contains(&id)).await?;
        tokio::time::sleep(SECOND_LOOK).await;
        // What was opened between the first look and the attachment: nobody has told of it by now. Of UDP too little is known for that.
        let (reply, answer) = oneshot::channel();
        self.tell(Input::EndsWanted(reply)).await?;
        let known = answer.await.map_err(|_| LadderError::Stopping)?;
        let mut watch = self.adopt(watch, move |_, end| end.protocol == Protocol::Tcp && !known.contains(end)).await?;
        while !watch.is_empty() || !listeners.is_empty() {
            let begun = Instant::now();
            watch = self.look_again(watch).await?;
            listeners = self.look_at_listeners(listeners).await?;
            tokio::time::sleep(WATCH_INTERVAL.max(begun.elapsed() * WATCH_COST_DIVISOR)).await;
        }
        Ok(())
    }

    /// Announces the listeners that are there. The programs told of those that are newer; it does not matter who tells first.
    async fn tell_listeners(&self) -> Result<ListenerWatch, LadderError> {
        let looked = self.blocking(|ladder| {
            let mut watch = ListenerWatch::default();
            let observations = Sockets::read(&ladder.procfs).map(|sockets| {
                let owner = |socket: &SocketRecord| sockets.holders.owner(&ladder.procfs, ladder.unified.as_deref(), socket);
                watch.look(sockets.at, &sockets.tables, owner, |_| true)
            });
            (observations, watch)
        });
        let (observations, watch) = looked.await?;
        match observations {
            Ok(observations) => self.observations.send(observations).await.map_err(|_| LadderError::Stopping)?,
            Err(error) => tracing::warn!(%error, "listeners that were there before cannot be listed"),
        }
        Ok(watch)
    }

    /// Looks whether the listeners of which nobody else tells the end are still there.
    async fn look_at_listeners(&self, mut watch: ListenerWatch) -> Result<ListenerWatch, LadderError> {
        if watch.is_empty() {
            return Ok(watch);
        }
        let looked = self.blocking(move |ladder| {
            let observations = ladder.procfs.pids().and_then(|pids| {
                let tables = sockets::dump(&ladder.procfs, &sockets::namespaces(&ladder.procfs, &pids), States::LISTENING)?;
                Ok(watch.look(Now::read().boot, &tables, |_| SocketOwner::default(), |_| false))
            });
            (observations, watch)
        });
        let (observations, watch) = looked.await?;
        match observations {
            Ok(observations) => self.observations.send(observations).await.map_err(|_| LadderError::Stopping)?,
            Err(error) => tracing::debug!(%error, "listeners cannot be looked at"),
        }
        Ok(watch)
    }

    /// Announces the connections that `wanted` wants.
    async fn adopt(&self, mut watch: Watch, wanted: impl Fn(SocketId, &FlowEnd) -> bool + Send + 'static) -> Result<Watch, LadderError> {
        let looked = self.blocking(move |ladder| {
            let observations = Sockets::read(&ladder.procfs).map(|sockets| {
                let owner = |socket: &SocketRecord| sockets.holders.owner(&ladder.procfs, ladder.unified.as_deref(), socket);
                watch.look(sockets.at, &sockets.tables, owner, |id, end| end.pid != 0 && wanted(id, end))
            });
            (observations, watch)
        });
        let (observations, watch) = looked.await?;
        match observations {
            Ok(observations) => {
                tracing::debug!(watched = watch.len(), "connections found open");
                self.observations.send(observations).await.map_err(|_| LadderError::Stopping)?;
            }
            Err(error) => tracing::warn!(%error, "connections that were open before cannot be listed"),
        }
        Ok(watch)
    }

    /// Looks at the connections that were found open, in the namespaces that have some.
    async fn look_again(&self, mut watch: Watch) -> Result<Watch, LadderError> {
        let looked = self.blocking(move |ladder| {
            let wanted = watch.namespaces();
            let observations = ladder.procfs.pids().and_then(|pids| {
                let mut namespaces = sockets::namespaces(&ladder.procfs, &pids);
                namespaces.retain(|namespace| wanted.contains(&namespace.inode));
                let tables = sockets::dump(&ladder.procfs, &namespaces, States::CONNECTED)?;
                Ok(watch.look(Now::read().boot, &tables, |_| SocketOwner::default(), |_, _| false))
            });
            (observations, watch)
        });
        let (observations, watch) = looked.await?;
        match observations {
            Ok(observations) => self.observations.send(observations).await.map_err(|_| LadderError::Stopping)?,
            Err(error) => tracing::debug!(%error, "open connections cannot be looked at"),
        }
        Ok(watch)
    }

    async fn tell(&self, input: Input) -> Result<(), LadderError> {
        self.inputs.send(input).await.map_err(|_| LadderError::Stopping)
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Ladder) -> T + Send + 'static) -> Result<T, LadderError> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this)).await.map_err(|_| LadderError::Stopping)
    }
}

/// How kernel programs see, for the control plane.
fn capture_of(status: &ebpf::Status) -> v1::Capture {
    let rung = status.rung();
    let description = if status.processes { "sock_ops + cgroup hooks + raw tracepoints" } else { "sock_ops + cgroup hooks" };
    let mut blind_spots = Vec::new();
    if !status.processes {
        blind_spots.push("Processes that live shorter than a sampling interval may not be visible.".to_owned());
    }
    if !status.live_bytes {
        blind_spots.push("Bytes of a connection are counted when it ends.".to_owned());
    }
    if !status.pids_match {
        blind_spots.push("Connections cannot be given to processes: the probe runs in a pid namespace of its own.".to_owned());
    }
    blind_spots.extend(udp_blind_spots(status));
    match &status.names {
        ebpf::Names::Off => blind_spots.push("Names that processes resolve are not looked at (--dns off).".to_owned()),
        ebpf::Names::Seen => blind_spots.push("Names that are resolved over TCP, TLS or HTTPS are not seen.".to_owned()),
        // The kernel's words are with the hooks; they may be long.
        ebpf::Names::Refused(_) => {
            blind_spots.push("Names that processes resolve are not seen: the kernel refused the programs.".to_owned())
        }
    }
    let hooks =
        status.hooks.iter().map(|hook| v1::capture::Hook { name: hook.name.clone(), attached: hook.attached, error: hook.error.clone() });
    v1::Capture {
        rung,
        description: description.to_owned(),
        reason: status.reasons.join("; "),
        blind_spots,
        hooks: hooks.collect(),
        ..v1::Capture::default()
    }
}

/// What is not seen of UDP.
fn udp_blind_spots(status: &ebpf::Status) -> Vec<String> {
    let missing = |names: &[&str]| names.iter().any(|name| !status.attached(name));
    let mut blind_spots =
        vec!["Bytes of UDP are not counted, nor datagrams that are received by a call which does not ask from whom.".to_owned()];
    if missing(&["sendmsg4", "sendmsg6"]) {
        blind_spots.push("UDP clients that do not connect their socket are not visible.".to_owned());
    }
    if missing(&["recvmsg4", "recvmsg6"]) {
        blind_spots.push("UDP servers are not visible by what they receive.".to_owned());
    }
    if missing(&["bind4", "bind6"]) {
        blind_spots.push("UDP servers are listed when they first serve somebody.".to_owned());
    }
    if missing(&["release"]) {
        blind_spots.push("The end of UDP sockets is not seen: they seem to stay open.".to_owned());
    }
    if missing(&["getsockname4", "getsockname6"]) {
        blind_spots.push("Look-ups of names appear as UDP connections to the addresses that were found.".to_owned());
    }
    if missing(&["oom_kill"]) {
        blind_spots.push("It is not told when the kernel ends a process because memory ran out.".to_owned());
    }
    blind_spots
}

/// Finds where the cgroup hierarchies are mounted.
pub fn mounts(proc_root: &Path) -> Mounts {
    let table = |process: &Path, root: &Path| {
        std::fs::read(process.join("mountinfo")).map(|table| Mounts::parse(&table, root)).ok().filter(Mounts::is_usable)
    };
    let own = || table(Path::new("/proc/self"), Path::new("/"));
    // What a container has mounted shows the container's own cgroups: the mounts of a process of the host are the host's.
    let host = host_process(proc_root);
    let is_elsewhere = Whereabouts::of(&host.join("ns/mnt"), "ns/mnt") == Whereabouts::Elsewhere;
    let hosts = if is_elsewhere { table(&host, &host.join("root")) } else { None };
    hosts.or_else(own).unwrap_or_default()
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
