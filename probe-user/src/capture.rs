//! The ladder: which way of seeing works here, what was there before, and how all of it reaches the driver.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proto::probe::v1;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::budget::Pace;
use crate::cgroupfs::Mounts;
use crate::clock::Now;
use crate::config::CaptureMode;
use crate::connections::{self, ListenerWatch, SocketId, Watch};
use crate::dns;
use crate::driver::Input;
use crate::ebpf::{self, CountedSockets, Looker, Seeder};
use crate::fallback::{self, Rung, connector::Connector};
use crate::host::namespace::{Whereabouts, host_process};
use crate::observation::{FlowEnd, Observation, Protocol};
use crate::procfs::Procfs;
use crate::reload;
use crate::snapshot::{self, Sockets};
use crate::sockets::{self, ROUND_MAX, Rounds, SocketOwner, SocketRecord, States};
use crate::telemetry::Telemetry;

mod looks;

/// Connections that were opened while the programs were being attached are looked for after this pause: by then the capture has told of
/// those that it saw.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// How often connections from before the capture are looked at, at best, and how small a part of the time that may take.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
const WATCH_COST_DIVISOR: u32 = 500;

/// How often it is looked, at best, who holds listeners of which that is not known, and which connections are open after some were lost.
const DOUBTS_INTERVAL: Duration = Duration::from_secs(30);

/// So often it is looked which connections are open after the last loss: a flow on which much happens has to come to rest first.
const LOOKS_AFTER_LOSS: u32 = 10;

/// What the ladder needs.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// Which rungs may be used.
    pub mode: CaptureMode,
    /// Where kernel programs are pinned.
    pub pin_dir: ebpf::PinDir,
    /// See [`ebpf::Config::abi_salt`].
    pub abi_salt: u64,
    /// Where names are looked for.
    pub dns: dns::Mode,
    /// The configuration as it is now, which may say so otherwise; `None` where it never does.
    pub current: Option<reload::Current>,
    /// `/proc`.
    pub procfs: Arc<Procfs>,
    /// Root of the cgroup2 hierarchy, if one was given.
    pub cgroup_root: Option<PathBuf>,
    /// How fast what is optional goes on.
    pub pace: Pace,
    /// How often the bytes of open connections are counted.
    pub sweep_interval: Duration,
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
    /// Whether there was a climb before: clones of one ladder share it.
    pub climbed: Arc<AtomicBool>,
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
    Programs { running: Box<ebpf::Running>, receiver: mpsc::Receiver<Vec<Observation>>, first: FirstLook },
    Below { rung: Rung, reason: String, connector: Option<Connector> },
}

/// What was seen when every new socket had an owner, and no connection was counted yet.
#[derive(Debug, Default)]
struct FirstLook {
    /// Connections that were open.
    open: HashSet<SocketId>,
    /// How it was looked, and has to be looked again: ids of another way are others. `None`: through `sock_diag` and `/proc`.
    looker: Option<Looker>,
}

/// What the programs know of what was there at the start.
#[derive(Clone, Copy, Debug)]
struct AtStart {
    /// They are, or come after, those of an earlier probe.
    taken_over: bool,
    /// They tell of the end of listeners that are older.
    ends_are_told: bool,
}

impl Ladder {
    /// Climbs as high as it can, tells what is there already, and delivers until `stopping` is cancelled.
    ///
    /// # Errors
    /// When the rung that was asked for cannot be stood on.
    pub async fn run(self, stopping: CancellationToken) -> Result<(), LadderError> {
        if self.climbed.swap(true, Ordering::Relaxed) {
            // Behind what the climb before has told, and before what this one tells.
            self.observations.send(vec![Observation::CaptureBegins]).await.map_err(|_| LadderError::Stopping)?;
        }
        let reached = self.blocking(|ladder| ladder.climb()).await??;
        match reached {
            Reached::Programs { running, receiver, first } => self.run_programs(*running, receiver, first, stopping).await,
            Reached::Below { rung, reason, connector } => self.run_below(rung, &reason, connector, stopping).await,
        }
    }

    /// Tries one rung after the other.
    fn climb(&self) -> Result<Reached, LadderError> {
        let mut reason = String::new();
        if matches!(self.mode, CaptureMode::Auto | CaptureMode::Ebpf) {
            let config = ebpf::Config {
                cgroup_root: self.cgroup_root.clone(),
                pin_dir: self.pin_dir.clone(),
                abi_salt: self.abi_salt,
                proc_root: self.procfs.root().to_owned(),
                kernel_log: self.kernel_log,
                sweep_interval: self.sweep_interval,
                dns: self.wished_names(),
                pace: self.pace.clone(),
                ..ebpf::Config::default()
            };
            let mut first = FirstLook::default();
            match ebpf::Capture::start_after(&config, |seeder, looker| first = self.look_first(seeder, looker)) {
                Ok((running, receiver)) => return Ok(Reached::Programs { running: Box::new(running), receiver, first }),
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
        first: FirstLook,
        stopping: CancellationToken,
    ) -> Result<(), LadderError> {
        let mut running = running;
        let status = running.status().clone();
        let capture = capture_of(&status, self.wished_names());
        tracing::info!(rung = capture.rung, description = capture.description, reason = capture.reason, "capture started");
        if let Some(path) = &status.pinned_at {
            let open = running.counted_sockets().len();
            tracing::info!(path = %path.display(), taken_over = status.taken_over, open, "kernel programs are pinned");
        } else if !status.not_pinned.is_empty() {
            tracing::warn!(reason = status.not_pinned, "kernel programs are not pinned: they end with the probe");
        }
        self.telemetry.metrics().set_meter(Some(running.meter()));
        let _unread = Unread(self.telemetry.clone());
        self.tell_capture(capture).await?;
        let forwarded = async {
            while let Some(batch) = receiver.recv().await {
                if self.observations.send(batch).await.is_err() {
                    return;
                }
            }
        };
        let seen = AtStart { taken_over: status.taken_over, ends_are_told: status.attached("release") };
        let around = self.tell_what_was_there(first, running.looker(), running.counted_sockets().clone(), seen);
        // Rung 3 has no program that sees processes: the connector does, or the walk that comes with the samples.
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        if !status.processes {
            self.start_connector(Connector::open().ok(), &stop)?;
        }
        let (mut current, mut names) = (self.current.clone(), self.wished_names());
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
                    wished = other_names(&mut current, names) => {
                        names = wished;
                        running = self.look_for_names(running, wished).await?;
                    }
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

    /// Looks for names as the configuration wants it now. What is known of connections stays.
    async fn look_for_names(&self, mut running: ebpf::Running, mode: dns::Mode) -> Result<ebpf::Running, LadderError> {
        let running = self.blocking(move |_| {
            running.look_for_names(mode);
            running
        });
        let running = running.await?;
        self.tell_capture(capture_of(running.status(), mode)).await?;
        Ok(running)
    }

    /// The mode for names by the configuration in force, which a reload may have changed since the start.
    fn wished_names(&self) -> dns::Mode {
        self.current.as_ref().map_or(self.dns, |current| current.borrow().dns)
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
        self.tell_capture(capture).await?;
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        self.start_connector(connector, &stop)?;
        self.tell_processes(&Looker::default()).await?;
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

    /// Which connections are open; and listeners from before the capture learn their owner, which they pass on to what they accept.
    fn look_first(&self, seeder: &Seeder, looker: &Looker) -> FirstLook {
        let begun = Instant::now();
        let looker = looker.sockets().and_then(|sockets| match sockets {
            Ok(sockets) => Some((looker.clone(), sockets)),
            Err(error) => {
                tracing::warn!(%error, "kernel does not list the sockets that are there: /proc is asked");
                None
            }
        });
        let (looker, sockets) = match looker {
            Some((looker, sockets)) => (Some(looker), Ok(sockets)),
            None => (None, Sockets::read(&self.procfs)),
        };
        let sockets = sockets.unwrap_or_else(|error| {
            tracing::warn!(%error, "listeners from before cannot be told their owners");
            Sockets::default()
        });
        let looked = begun.elapsed();
        let seeded = seeder.seed(sockets.listeners());
        self.telemetry.metrics().snapshot_seconds.set(begun.elapsed().as_secs_f64());
        tracing::debug!(?looked, written = seeded.written, failed = seeded.failed, "owners of listeners");
        FirstLook { open: connections::ids(&sockets.tables), looker }
    }

    /// cgroups and processes that are there.
    ///
    /// What the kernel tells of processes comes first, because it takes a moment: connections have a holder then. `/proc` tells more.
    async fn tell_processes(&self, looker: &Looker) -> Result<(), LadderError> {
        if let Some(root) = self.cgroup_root.clone().or_else(|| self.unified.clone()) {
            let cgroups = self.blocking(move |_| snapshot::cgroups(&root, Now::read().boot)).await?;
            self.tell(Input::Observed(cgroups)).await?;
        }
        let looker = looker.clone();
        let begun = Instant::now();
        if let Some(found) = self.blocking(move |_| looker.processes()).await? {
            self.telemetry.metrics().snapshot_seconds.add(begun.elapsed().as_secs_f64());
            match found {
                Ok(processes) => self.tell(Input::Found(processes)).await?,
                Err(error) => tracing::warn!(%error, "kernel does not list the processes that are there"),
            }
        }
        match snapshot::processes(&self.procfs).await {
            Ok(processes) => self.tell(Input::Described(processes)).await?,
            Err(error) => tracing::error!(%error, "processes cannot be listed"),
        }
        self.started.cancel();
        Ok(())
    }

    /// Processes, cgroups, listeners and connections from before the capture. Goes on looking at those of which the programs tell no end, until
    /// all have ended: the programs count a socket only if they saw it begin.
    async fn tell_what_was_there(
        &self,
        first: FirstLook,
        looker: Looker,
        counted: CountedSockets,
        seen: AtStart,
    ) -> Result<(), LadderError> {
        self.tell_processes(&looker).await?;
        let FirstLook { open, looker } = first;
        let told = self.tell_listeners(&looker).await?;
        let mut listeners = if seen.ends_are_told { ListenerWatch::default() } else { told };
        // Those that are there now, and were not at the first look: a few of them were opened before the programs counted.
        let newer = Arc::new(Mutex::new(HashSet::new()));
        let noted = Arc::clone(&newer);
        let wanted = move |id, end: &FlowEnd| {
            let is_older = open.contains(&id);
            if !is_older && end.protocol == Protocol::Tcp {
                noted.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            }
            is_older
        };
        let mut watch = self.adopt(Watch::new(sockets::ephemeral_ports()), &looker, counted, wanted).await?;
        // Programs that were there before the first look have missed nothing since.
        if !seen.taken_over {
            tokio::time::sleep(SECOND_LOOK).await;
            let newer = std::mem::take(&mut *newer.lock().unwrap_or_else(PoisonError::into_inner));
            watch = self.adopt_missed(watch, &looker, newer).await?;
        }
        let mut rounds = Rounds::default();
        let mut doubts_at = Instant::now() + DOUBTS_INTERVAL;
        let (mut ends_lost, mut looks_left, mut listeners_lost) = (0, 0, 0);
        loop {
            let begun = Instant::now();
            if !watch.is_empty() || !listeners.is_empty() {
                (watch, rounds) = self.look_again(watch, &looker, rounds).await?;
                listeners = self.look_at_listeners(listeners).await?;
            }
            if let Some(looker) = looker.as_ref().filter(|_| begun >= doubts_at) {
                let doubts = self.doubts().await?;
                if doubts.holders {
                    self.look_at_holders(looker).await?;
                }
                if std::mem::replace(&mut ends_lost, doubts.ends_lost) < doubts.ends_lost {
                    looks_left = LOOKS_AFTER_LOSS;
                }
                if looks_left > 0 {
                    looks_left -= 1;
                    self.look_at_open(looker, watch.ends()).await?;
                }
                if std::mem::replace(&mut listeners_lost, doubts.listeners_lost) < doubts.listeners_lost {
                    self.look_at_all_listeners(looker).await?;
                }
                doubts_at = begun + DOUBTS_INTERVAL.max(begun.elapsed() * WATCH_COST_DIVISOR);
            }
            tokio::time::sleep(WATCH_INTERVAL.max(begun.elapsed() * WATCH_COST_DIVISOR)).await;
        }
    }

    /// Announces what was opened between the first look and the attachment of the programs, among `newer`: what nobody has counted. Of UDP too little
    /// is known for that.
    async fn adopt_missed(&self, watch: Watch, looker: &Option<Looker>, newer: HashSet<SocketId>) -> Result<Watch, LadderError> {
        // A socket that was there before the programs were asked, and is there after it, was there meanwhile: if it is counted, they have said so.
        let asked = looker.clone();
        match self.blocking(move |_| asked.as_ref().and_then(Looker::counted)).await? {
            Some(Ok(counted)) => return self.adopt(watch, looker, counted, move |id, _| newer.contains(&id)).await,
            Some(Err(error)) => tracing::debug!(%error, "kernel does not tell which connections are counted"),
            None => {}
        }
        // Where nobody can be asked, it is among what was told since. The programs name who bound a socket, a look names who has it: a flow between
        // the same ends is the same, whoever holds it.
        let (reply, answer) = oneshot::channel();
        self.tell(Input::EndsWanted(reply)).await?;
        let known: HashSet<FlowEnd> = answer.await.map_err(|_| LadderError::Stopping)?.iter().map(held_by_nobody).collect();
        let wanted = move |id, end: &FlowEnd| newer.contains(&id) && !known.contains(&held_by_nobody(end));
        self.adopt(watch, looker, CountedSockets::default(), wanted).await
    }

    /// Announces the listeners that are there. The programs told of those that are newer; it does not matter who tells first.
    async fn tell_listeners(&self, looker: &Option<Looker>) -> Result<ListenerWatch, LadderError> {
        let looker = looker.clone();
        let looked = self.blocking(move |ladder| {
            let mut watch = ListenerWatch::default();
            // The number of a listener is the one by which the programs tell of its end. A look does not make one where there is none.
            let numbered =
                |sockets: &Sockets| sockets.tables.iter().flat_map(|it| &it.sockets).all(|it| !it.is_listener() || it.cookie != 0);
            let looked = ladder
                .sockets(looker.as_ref())
                .and_then(|it| if numbered(&it) { Ok(it) } else { ladder.number_listeners(looker.as_ref()) });
            let looked = looked.and_then(|it| if numbered(&it) { Ok(it) } else { Sockets::read(&ladder.procfs) });
            let observations = looked.map(|sockets| {
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
                let namespaces = sockets::namespaces(&ladder.procfs, &pids);
                let tables = Rounds::default().dump(&ladder.procfs, &namespaces, States::LISTENING, ROUND_MAX)?;
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

    /// Announces the connections that `wanted` wants, and that are not counted by the programs.
    async fn adopt(
        &self,
        mut watch: Watch,
        looker: &Option<Looker>,
        counted: CountedSockets,
        wanted: impl Fn(SocketId, &FlowEnd) -> bool + Send + 'static,
    ) -> Result<Watch, LadderError> {
        let looker = looker.clone();
        let looked = self.blocking(move |ladder| {
            let observations = ladder.sockets(looker.as_ref()).map(|mut sockets| {
                for table in &mut sockets.tables {
                    table.sockets.retain(|socket| socket.is_listener() || !counted.contain(socket));
                }
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

    /// Sockets, when every listener has a number: `sock_diag` gives one to each that it comes by, and the iterators know who holds those to which no
    /// descriptor leads directly.
    fn number_listeners(&self, looker: Option<&Looker>) -> std::io::Result<Sockets> {
        let namespaces = sockets::namespaces(&self.procfs, &self.procfs.pids()?);
        Rounds::default().dump(&self.procfs, &namespaces, States::LISTENING, ROUND_MAX)?;
        self.sockets(looker)
    }

    fn sockets(&self, looker: Option<&Looker>) -> std::io::Result<Sockets> {
        looker.and_then(Looker::sockets).unwrap_or_else(|| Sockets::read(&self.procfs))
    }

    /// Looks at the connections that were found open, in the namespaces that have some.
    async fn look_again(&self, mut watch: Watch, looker: &Option<Looker>, mut rounds: Rounds) -> Result<(Watch, Rounds), LadderError> {
        let looker = looker.clone();
        let looked = self.blocking(move |ladder| {
            if let Some(sockets) = looker.as_ref().and_then(Looker::sockets) {
                let look = |sockets: Sockets| watch.look(sockets.at, &sockets.tables, |_| SocketOwner::default(), |_, _| false);
                let observations = sockets.map(look);
                return (observations, watch, rounds);
            }
            let wanted = watch.namespaces();
            let observations = ladder.procfs.pids().and_then(|pids| {
                let mut namespaces = sockets::namespaces(&ladder.procfs, &pids);
                namespaces.retain(|namespace| wanted.contains(&namespace.inode));
                let tables = rounds.dump(&ladder.procfs, &namespaces, States::CONNECTED, ROUND_MAX)?;
                Ok(watch.look(Now::read().boot, &tables, |_| SocketOwner::default(), |_, _| false))
            });
            (observations, watch, rounds)
        });
        let (observations, watch, rounds) = looked.await?;
        match observations {
            Ok(observations) => self.observations.send(observations).await.map_err(|_| LadderError::Stopping)?,
            Err(error) => tracing::debug!(%error, "open connections cannot be looked at"),
        }
        Ok((watch, rounds))
    }

    /// Says how the probe sees from now on, and what it lacks to see more.
    async fn tell_capture(&self, mut capture: v1::Capture) -> Result<(), LadderError> {
        for lack in ebpf::lacking_capabilities() {
            tracing::warn!(capability = lack.capability, lost = lack.loss, "a capability is missing");
            capture.missing_capabilities.push(lack.capability.to_owned());
            capture.blind_spots.push(format!("Without {}: {}.", lack.capability, lack.loss));
        }
        self.tell(Input::Capture(capture)).await
    }

    async fn tell(&self, input: Input) -> Result<(), LadderError> {
        self.inputs.send(input).await.map_err(|_| LadderError::Stopping)
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Ladder) -> T + Send + 'static) -> Result<T, LadderError> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this)).await.map_err(|_| LadderError::Stopping)
    }
}

/// Waits until names are to be looked for elsewhere than in `mode`, and says where.
async fn other_names(current: &mut Option<reload::Current>, mode: dns::Mode) -> dns::Mode {
    if let Some(current) = current {
        loop {
            let wished = current.borrow_and_update().dns;
            if wished != mode {
                return wished;
            }
            if current.changed().await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
}

/// The end as it is the same for all who may hold it.
fn held_by_nobody(end: &FlowEnd) -> FlowEnd {
    FlowEnd { pid: 0, start_time: None, cgroup_id: 0, ..*end }
}

/// How kernel programs see, for the control plane.
fn capture_of(status: &ebpf::Status, names: dns::Mode) -> v1::Capture {
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
        blind_spots.push("Connections cannot be given to processes: the probe runs in a pid namespace of its own, and /proc is that namespace's. Give it the host's with --proc-root, or hostPID: true.".to_owned());
    }
    blind_spots.extend(udp_blind_spots(status));
    match &status.names {
        ebpf::Names::Off => blind_spots.push("Names that processes resolve are not looked at (--dns off).".to_owned()),
        ebpf::Names::Seen => {
            blind_spots.push("Names that are resolved over TCP, TLS or HTTPS are not seen.".to_owned());
            if names == dns::Mode::Auto {
                let sentence = "The first name that a cgroup resolves may be missed where a server elsewhere answers within some milliseconds (--dns all misses none).";
                blind_spots.push(sentence.to_owned());
            }
        }
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
