//! A capture that runs: its threads, its stop, its status.

use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use tokio::sync::mpsc;

use super::drain::{Counters, Drain};
use super::load::{self, Loaded};
use super::look::Looker;
use super::own_address::OwnAddresses;
use super::pins::Pins;
use super::place::{CgroupRoot, Rights};
use super::statistics::Meter;
use super::sweep::Sweep;
use super::takeover::{self, CountedSockets, Inheritance};
use super::{BATCH_MAX, CaptureError, Config, Hook, Names, Seeder, Status, dns, objects, rings, selftest, sys};
use crate::dns::Mode;
use crate::observation::Observation;

/// How long the threads have, after they were told to stop, to deliver what is left.
const LAST_DELIVERY: Duration = Duration::from_secs(2);

/// A capture that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    status: Status,
    meter: Arc<Meter>,
    seeder: Seeder,
    looker: Looker,
    counted: CountedSockets,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// What is needed to look for names later.
    config: Config,
    root: CgroupRoot,
    /// Weak: the end of all readers is the end of the capture.
    sender: mpsc::WeakSender<Vec<Observation>>,
    // Last: programs are detached after the threads have read what was left.
    objects: [Option<Ebpf>; 2],
    // Pinned programs stay; their directory is free for the next probe.
    _pins: Option<Pins>,
}

impl Running {
    pub(super) fn start(
        config: &Config,
        before_connections: impl FnOnce(&Seeder, &Looker),
    ) -> Result<(Self, mpsc::Receiver<Vec<Observation>>), CaptureError> {
        let embedded = objects::EMBEDDED.ok_or(CaptureError::NotBuilt)?;
        let rights = Rights::read()?;
        let missing = rights.missing();
        if !missing.is_empty() {
            return Err(CaptureError::Rights(missing.join(", ")));
        }
        let root = CgroupRoot::find(config.cgroup_root.as_deref())?;
        let mut loaded = load::load(config, embedded, rights, &root, before_connections)?;
        let mut inheritance = takeover::run(&mut loaded);
        trim_memory();
        let meter = Arc::new(Meter::of(&std::iter::once(&loaded.sockets).chain(&loaded.processes).collect::<Vec<_>>()));
        let mut maps = Maps::take(&mut loaded)?;
        let mut trial = selftest::run(&mut loaded.hooks, &mut maps, &root, &config.proc_root)?;
        let status = status_of(&loaded, &trial, &inheritance);
        let mut earlier = std::mem::take(&mut inheritance.observations);
        earlier.append(&mut trial.earlier);
        let batches: Vec<_> = earlier.chunks(BATCH_MAX).map(<[Observation]>::to_vec).collect();
        let (sender, receiver) = mpsc::channel(config.batches_max.max(1) + batches.len());
        for batch in batches {
            // The channel is new and has room for them.
            let _ = sender.try_send(batch);
        }

        let dns = match loaded.dns.take() {
            Some(programs) => Some(dns::Reader::new(config, programs, &root, sender.clone())?),
            None => None,
        };
        let shared = Arc::new(Shared::new()?);
        shared.opened_on_ring.store(inheritance.told_ends, Ordering::Relaxed);
        let seeder = loaded.seeder.clone();
        let loggers = std::mem::take(&mut loaded.loggers);
        let sweep = Sweep::bind(&loaded, &maps.owners);
        let settled_before = loaded.controls.settled_ends().wrapping_add(trial.ends_seen);
        let counters = Counters::new(maps.socket_counters, maps.process_counters, settled_before);
        let addresses = OwnAddresses::new(config.proc_root.clone());
        let (controls, talks) = (loaded.controls, loaded.talks);
        let drain = Drain::new(
            config,
            maps.edges,
            counters,
            controls,
            talks,
            sweep,
            loggers,
            addresses.clone(),
            sender.clone(),
            Arc::clone(&shared),
        );
        let mut running = Running {
            status,
            meter,
            seeder,
            looker: loaded.looker,
            counted: inheritance.counted,
            shared: Arc::clone(&shared),
            threads: Vec::new(),
            config: config.clone(),
            root,
            sender: sender.downgrade(),
            objects: [Some(loaded.sockets), loaded.processes],
            _pins: loaded.pins,
        };
        // First: what the others see first may be a question.
        if let Some(dns) = dns {
            running.spawn_names(dns)?;
        }
        running.spawn("probe-edges", move || drain.run())?;
        running.spawn_reader("probe-network", maps.network_ring, addresses.clone(), sender.clone())?;
        if let Some(ring) = maps.process_ring {
            running.spawn_reader("probe-process", ring, addresses, sender)?;
        }
        Ok((running, receiver))
    }

    /// Looks for names in another way from now on; [`Running::status`] says whether that worked. Nothing else of the capture is touched. Takes as long
    /// as the kernel takes to check two programs, the first time that names are wanted.
    pub fn look_for_names(&mut self, mode: Mode) {
        if let Some(names) = self.shared.names.get() {
            names.switch(mode);
            let hooks = &mut self.status.hooks;
            hooks.retain(|hook| !dns::HOOKS.contains(&hook.name.as_str()));
            self.status.names = if mode == Mode::Off {
                Names::Off
            } else {
                hooks.extend(dns::HOOKS.map(|name| Hook { name: name.to_owned(), attached: true, error: String::new() }));
                Names::Seen
            };
            return;
        }
        self.config.dns = mode;
        self.status.names = match self.load_names() {
            Ok(names) => names,
            Err(error) => Names::Refused(super::chain(&error)),
        };
    }

    fn load_names(&mut self) -> Result<Names, CaptureError> {
        let embedded = objects::EMBEDDED.ok_or(CaptureError::NotBuilt)?;
        // Once its last holder is gone, nobody is there to be told.
        let Some(sender) = self.sender.upgrade() else { return Ok(Names::Off) };
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        let (programs, names) = dns::load(&mut loader, &self.config, embedded.dns, &self.root, &mut self.status.hooks);
        if let Some(programs) = programs {
            self.spawn_names(dns::Reader::new(&self.config, programs, &self.root, sender)?)?;
        }
        Ok(names)
    }

    fn spawn_names(&mut self, reader: dns::Reader) -> Result<(), CaptureError> {
        // There is one reader at most.
        let _ = self.shared.names.set(reader.tap());
        let shared = Arc::clone(&self.shared);
        self.spawn("probe-dns", move || reader.run(&shared))
    }

    /// What is seen, and what is not.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Connections that were open before this capture and are counted all the same, because the programs are older.
    pub fn counted_sockets(&self) -> &CountedSockets {
        &self.counted
    }

    /// For what is there already.
    pub fn looker(&self) -> Looker {
        self.looker.clone()
    }

    /// Reads what the programs cost.
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// For sockets that are older than the programs.
    pub fn seeder(&self) -> Seeder {
        self.seeder.clone()
    }

    /// Reads everything once more, delivers it, and detaches the programs. The receiver has to be read meanwhile; after two seconds what it does
    /// not take is given up.
    pub fn stop(mut self) {
        self.end();
    }

    /// The programs that the kernel took.
    pub(super) fn programs(&self) -> impl Iterator<Item = (&str, &Program)> {
        self.objects.iter().flatten().flat_map(Ebpf::programs).filter(|(_, program)| program.fd().is_ok())
    }

    fn end(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a capture thread had panicked");
            }
        }
    }

    fn spawn_reader(
        &mut self,
        name: &'static str,
        ring: RingBuf<MapData>,
        addresses: OwnAddresses,
        sender: mpsc::Sender<Vec<Observation>>,
    ) -> Result<(), CaptureError> {
        let shared = Arc::clone(&self.shared);
        self.spawn(name, move || rings::run(ring, &addresses, &sender, &shared))
    }

    fn spawn(&mut self, name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), CaptureError> {
        // None of them recurses; the largest thing on a stack is a record.
        let thread = thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(body)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// The maps that user space reads and writes.
pub(super) struct Maps {
    pub(super) edges: MapData,
    pub(super) owners: Arc<MapData>,
    pub(super) network_ring: RingBuf<MapData>,
    pub(super) process_ring: Option<RingBuf<MapData>>,
    pub(super) socket_counters: Map,
    pub(super) process_counters: Option<Map>,
}

impl Maps {
    fn take(loaded: &mut Loaded) -> Result<Self, CaptureError> {
        let sockets = &mut loaded.sockets;
        let Some(Map::HashMap(edges)) = sockets.take_map("EDGES") else { return Err(missing("EDGES")) };
        let Some(Map::SkStorage(owners)) = sockets.take_map("OWNERS") else { return Err(missing("OWNERS")) };
        let socket_counters = sockets.take_map("COUNTERS").ok_or_else(|| missing("COUNTERS"))?;
        let network_ring = take_ring(sockets, "NETWORK_RING")?;
        let (process_ring, process_counters) = match &mut loaded.processes {
            Some(object) => (Some(take_ring(object, "PROCESS_RING")?), object.take_map("COUNTERS")),
            None => (None, None),
        };
        Ok(Maps { edges, owners: Arc::new(owners), network_ring, process_ring, socket_counters, process_counters })
    }
}

fn take_ring(object: &mut Ebpf, name: &'static str) -> Result<RingBuf<MapData>, CaptureError> {
    let map = object.take_map(name).ok_or_else(|| missing(name))?;
    RingBuf::try_from(map).map_err(|error| CaptureError::Map(name, Box::new(error)))
}

pub(super) fn missing(name: &'static str) -> CaptureError {
    CaptureError::Map(name, Box::new(aya::maps::MapError::ElementNotFound))
}

fn status_of(loaded: &Loaded, trial: &selftest::Outcome, inheritance: &Inheritance) -> Status {
    let attached = |names: &[&str]| names.iter().all(|name| loaded.hooks.iter().any(|hook| hook.name == *name && hook.attached));
    let mut reasons = Vec::new();
    if !loaded.without_offsets.is_empty() {
        reasons.push(loaded.without_offsets.clone());
    }
    if !loaded.offsets.missing.is_empty() {
        reasons.push(format!("kernel members not found: {}", loaded.offsets.missing.join(", ")));
    }
    let unseen = loaded.hooks.iter().filter(|hook| !hook.attached && !dns::HOOKS.contains(&hook.name.as_str()));
    reasons.extend(unseen.map(|hook| format!("{}: {}", hook.name, hook.error)));
    if trial.pids_match == Some(false) {
        reasons.push("the probe runs in a pid namespace of its own: /proc shows other pids than the kernel tells".to_owned());
    }
    Status {
        processes: attached(&["process_exec", "process_exit"]),
        cgroups: attached(&["cgroup_mkdir", "cgroup_rmdir"]) && loaded.offsets.tell_cgroups(),
        start_times: loaded.offsets.tell_start_times(),
        live_bytes: attached(&[load::SWEEP]),
        pids_match: trial.pids_match != Some(false),
        pinned_at: loaded.pins.as_ref().map(|pins| pins.root().to_owned()),
        not_pinned: loaded.without_pins.clone(),
        taken_over: inheritance.taken_over,
        names: loaded.names.clone(),
        hooks: loaded.hooks.clone(),
        reasons,
    }
}

/// Parsing type information leaves tens of free megabytes in the heap.
pub(super) fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: gives free memory back; touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the threads of one capture share.
#[derive(Debug)]
pub(super) struct Shared {
    stopping: AtomicBool,
    stopped_at: OnceLock<Instant>,
    /// Readable from the moment the capture stops.
    stopped: UnixStream,
    stopper: UnixStream,
    /// Where the reader of names learns what the others see.
    names: OnceLock<dns::Tap>,
    /// Connection ends that were delivered from the ring because the table was full.
    pub(super) opened_on_ring: AtomicU64,
}

impl Shared {
    fn new() -> io::Result<Self> {
        let (stopped, stopper) = UnixStream::pair()?;
        stopper.set_nonblocking(true)?;
        Ok(Shared {
            stopping: AtomicBool::new(false),
            stopped_at: OnceLock::new(),
            stopped,
            stopper,
            names: OnceLock::new(),
            opened_on_ring: AtomicU64::new(0),
        })
    }

    fn stop(&self) {
        self.stopped_at.get_or_init(Instant::now);
        self.stopping.store(true, Ordering::Release);
        // Nobody reads it: once written, it wakes every wait.
        let _ = (&self.stopper).write(&[1]);
    }

    /// Tells the reader of names what concerns it.
    pub(super) fn note(&self, batch: &[Observation]) {
        if let Some(names) = self.names.get() {
            names.note(batch);
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether the time for the last delivery is over.
    pub(super) fn is_overdue(&self) -> bool {
        self.stopped_at.get().is_some_and(|at| at.elapsed() > LAST_DELIVERY)
    }

    /// Sleeps, or less when the capture stops; whether it does.
    pub(super) fn sleep(&self, duration: Duration) -> bool {
        self.wait(&[self.stopped.as_fd()], Some(duration));
        self.is_stopping()
    }

    /// Waits until a ring has records or the capture stops; whether it does.
    pub(super) fn wait_for(&self, ring: &RingBuf<MapData>) -> bool {
        self.wait(&[self.stopped.as_fd(), ring.as_fd()], None);
        self.is_stopping()
    }

    /// Waits until one of two descriptors can be read, the time is over or the capture stops; whether it does.
    pub(super) fn wait_for_either(&self, one: BorrowedFd<'_>, other: BorrowedFd<'_>, timeout: Option<Duration>) -> bool {
        self.wait(&[self.stopped.as_fd(), one, other], timeout);
        self.is_stopping()
    }

    fn wait(&self, descriptors: &[BorrowedFd<'_>], timeout: Option<Duration>) {
        if let Err(error) = sys::poll(descriptors, timeout) {
            tracing::error!(%error, "waiting for kernel records failed");
            thread::sleep(Duration::from_millis(100));
        }
    }
}
