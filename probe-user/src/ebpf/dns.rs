//! Names: the programs that copy answers of DNS servers, where they are attached, and the thread that reads their ring.
//!
//! What is decided is decided by [`crate::dns`]; here it is done. The other readers tell of questions through a [`Tap`].

mod cgroup;
mod search;

use std::collections::HashMap;
use std::io::Read as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::programs::cgroup_skb::CgroupSkbLinkId;
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError};
use aya::{Ebpf, EbpfLoader};
use probe_common::{DnsRecord, counter, kind};
use tokio::sync::mpsc;

use super::load::SMALLEST_RING_BYTES;
use super::place::CgroupRoot;
use super::running::Shared;
use super::{BATCH_MAX, Config, Hook as HookStatus, Names, decode, drain};
use crate::budget::Pace;
use crate::clock::Now;
use crate::dns::Mode;
use crate::dns::attach::{Above, Effect, Hook, Place};
use crate::dns::watch::{Datagram, Event, Watch};
use crate::observation::{BootNanos, NameCounts, Observation};
use crate::sockets::Rounds;

/// Names of the programs.
pub(super) const HOOKS: [&str; 2] = ["dns_egress", "dns_ingress"];

/// Size of the ring: some hundred answers, and a reader that comes two hundred times a second.
const RING_BYTES: u32 = 256 * 1024;

/// Events that wait for the reader at most; more are counted.
const EVENTS_MAX: usize = 256;

/// After a wake-up more records are waited for this long.
const GATHER: Duration = Duration::from_millis(5);

/// What waits for room in the channel at most; more is counted.
const UNTOLD_MAX: usize = 4 * BATCH_MAX;

/// Counts are told at most this often.
const COUNTS_INTERVAL: Duration = Duration::from_secs(1);

/// An attachment that took longer than this is worth a line in the log.
const SLOW: Duration = Duration::from_millis(50);

/// The programs, loaded.
pub(super) struct Programs {
    object: Ebpf,
    ring: RingBuf<MapData>,
    counters: Option<PerCpuArray<MapData, u64>>,
    links: HashMap<Place, CgroupSkbLinkId>,
}

/// Loads the programs and tries to attach them, when names are wanted. Whatever is refused, the rest of the probe runs.
pub(super) fn load(
    loader: &mut EbpfLoader<'_>,
    config: &Config,
    object: &[u8],
    root: &CgroupRoot,
    hooks: &mut Vec<HookStatus>,
) -> (Option<Programs>, Names) {
    if config.dns == Mode::Off {
        return (None, Names::Off);
    }
    loader.map_max_entries("DNS_RING", RING_BYTES.max(SMALLEST_RING_BYTES));
    // One of an earlier climb may be there.
    hooks.retain(|hook| !HOOKS.contains(&hook.name.as_str()));
    let mut refused = |error: String| {
        hooks.extend(HOOKS.map(|name| HookStatus { name: name.to_owned(), attached: false, error: error.clone() }));
        (None, Names::Refused(error))
    };
    let mut object = match loader.load(object) {
        Ok(object) => object,
        Err(error) => return refused(super::chain(&error)),
    };
    let Some(ring) = object.take_map("DNS_RING").and_then(|map| RingBuf::try_from(map).ok()) else {
        return refused("map DNS_RING cannot be used".to_owned());
    };
    let counters = object.take_map("COUNTERS").and_then(|map| PerCpuArray::try_from(map).ok());
    let mut programs = Programs { object, ring, counters, links: HashMap::new() };
    let tried = [Hook::Egress, Hook::Ingress].map(|hook| HookStatus::of(name(hook), programs.load_and_try(hook, root)));
    let error = tried.iter().find(|hook| !hook.attached).map(|hook| format!("{}: {}", hook.name, hook.error));
    hooks.extend(tried);
    match error {
        Some(error) => (None, Names::Refused(error)),
        None => (Some(programs), Names::Seen),
    }
}

impl Programs {
    /// Takes a program through the verifier, and attaches it for a moment: only then is it known that it can be.
    fn load_and_try(&mut self, hook: Hook, root: &CgroupRoot) -> Result<(), ProgramError> {
        let program = self.program(hook)?;
        program.load()?;
        let link = program.attach(&root.directory, attach_type(hook), CgroupAttachMode::Single)?;
        program.detach(link)
    }

    fn attach(&mut self, place: Place, directory: impl std::os::fd::AsFd) -> Result<(), ProgramError> {
        // A link is a multi-attachment by itself; the kernel refuses flags for it.
        let link = self.program(place.hook)?.attach(directory, attach_type(place.hook), CgroupAttachMode::Single)?;
        self.links.insert(place, link);
        Ok(())
    }

    fn detach(&mut self, place: Place) -> Result<(), ProgramError> {
        match self.links.remove(&place) {
            Some(link) => self.program(place.hook)?.detach(link),
            None => Ok(()),
        }
    }

    fn program(&mut self, hook: Hook) -> Result<&mut CgroupSkb, ProgramError> {
        self.object.program_mut(name(hook)).ok_or(ProgramError::UnexpectedProgramType)?.try_into()
    }
}

fn name(hook: Hook) -> &'static str {
    match hook {
        Hook::Egress => HOOKS[0],
        Hook::Ingress => HOOKS[1],
    }
}

fn attach_type(hook: Hook) -> CgroupSkbAttachType {
    match hook {
        Hook::Egress => CgroupSkbAttachType::Egress,
        Hook::Ingress => CgroupSkbAttachType::Ingress,
    }
}

/// Takes to the reader of names what the other readers see.
#[derive(Clone, Debug)]
pub(super) struct Tap {
    events: SyncSender<Event>,
    wake: Arc<UnixStream>,
    lost: Arc<AtomicU64>,
}

impl Tap {
    /// Passes on what of a batch concerns names.
    pub(super) fn note(&self, batch: &[Observation]) {
        batch.iter().filter_map(Event::of).for_each(|event| self.send(event));
    }

    /// Names are looked for in another way from now on. Waits until the reader has room.
    pub(super) fn switch(&self, mode: Mode) {
        if self.events.send(Event::Mode(mode)).is_ok() {
            let _ = (&*self.wake).write(&[1]);
        }
    }

    fn send(&self, event: Event) {
        match self.events.try_send(event) {
            // One that is full has been written to.
            Ok(()) => drop((&*self.wake).write(&[1])),
            Err(_) => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// The thread's part.
pub(super) struct Reader {
    programs: Programs,
    watch: Watch,
    root: CgroupRoot,
    proc_root: PathBuf,
    /// How far the last search came.
    searched: Arc<Mutex<Rounds>>,
    sender: mpsc::Sender<Vec<Observation>>,
    /// What found the channel full.
    untold: Vec<Observation>,
    tap: Tap,
    events: Receiver<Event>,
    woken: UnixStream,
    told: NameCounts,
    told_at: Option<Instant>,
    pace: Pace,
}

impl Reader {
    pub(super) fn new(config: &Config, programs: Programs, root: &CgroupRoot, sender: mpsc::Sender<Vec<Observation>>) -> io::Result<Self> {
        let (woken, wake) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let (events_in, events) = sync_channel(EVENTS_MAX);
        let tap = Tap { events: events_in, wake: Arc::new(wake), lost: Arc::default() };
        let copy = || io::Result::Ok(CgroupRoot { directory: root.directory.try_clone()?, path: root.path.clone() });
        let (root, looked_in) = (copy()?, copy()?);
        let above = Above(Box::new(move |id| cgroup::above(&looked_in, id)));
        let (watch, proc_root) = (Watch::new(config.dns, above), config.proc_root.clone());
        Ok(Reader {
            programs,
            watch,
            root,
            proc_root,
            searched: Arc::default(),
            sender,
            untold: Vec::new(),
            tap,
            events,
            woken,
            told: NameCounts::default(),
            told_at: None,
            pace: config.pace.clone(),
        })
    }

    pub(super) fn tap(&self) -> Tap {
        self.tap.clone()
    }

    /// Attaches, detaches and reads until the capture stops.
    pub(super) fn run(mut self, shared: &Arc<Shared>) {
        let mut effects = self.watch.start(Now::read().boot);
        self.perform(&mut effects);
        loop {
            let stopping = shared.wait_for_either(self.programs.ring.as_fd(), self.woken.as_fd(), self.pause());
            let mut out = Vec::new();
            self.take_events(&mut effects, &mut out);
            self.perform(&mut effects);
            let read = self.read_ring(&mut out);
            self.watch.tick(Now::read().boot, &mut effects, &mut out);
            self.perform(&mut effects);
            self.tell_counts(stopping, &mut out);
            let delivered = self.deliver(out);
            if stopping && (delivered || shared.is_overdue()) || self.sender.is_closed() {
                return;
            }
            if !delivered {
                // The channel is shared with the connections.
                std::thread::sleep(GATHER);
            } else if read {
                // Questions do not wait: the answer may be on its way.
                shared.wait_for_either(self.woken.as_fd(), self.woken.as_fd(), Some(self.pace.stretched(GATHER)));
            }
        }
    }

    /// Hands on what is to be told. Whether there was room for all of it; what found none waits, and meanwhile the ring is read no further.
    fn deliver(&mut self, out: Vec<Observation>) -> bool {
        self.untold.extend(out);
        while !self.untold.is_empty() {
            let Ok(room) = self.sender.try_reserve() else { break };
            let rest = self.untold.split_off(self.untold.len().min(BATCH_MAX));
            room.send(std::mem::replace(&mut self.untold, rest));
        }
        let beyond = self.untold.len().saturating_sub(UNTOLD_MAX);
        if beyond > 0 {
            self.untold.truncate(UNTOLD_MAX);
            self.tap.lost.fetch_add(beyond as u64, Ordering::Relaxed);
        }
        self.untold.is_empty()
    }

    /// How long there is nothing to do, unless something comes.
    fn pause(&self) -> Option<Duration> {
        if !self.untold.is_empty() {
            return Some(GATHER);
        }
        let now = Now::read().boot.0;
        let deadline = self.watch.next_deadline().map(|at| Duration::from_nanos(at.0.saturating_sub(now)) + Duration::from_millis(1));
        let untold = self.counts() != self.told;
        let counts = untold.then(|| self.told_at.map_or(Duration::ZERO, |at| COUNTS_INTERVAL.saturating_sub(at.elapsed())));
        [deadline, counts].into_iter().flatten().min()
    }

    fn take_events(&mut self, effects: &mut Vec<Effect>, out: &mut Vec<Observation>) {
        let mut bytes = [0; EVENTS_MAX];
        // How many came does not matter: all of them are in the channel.
        while matches!((&self.woken).read(&mut bytes), Ok(count) if count == bytes.len()) {}
        let now = Now::read().boot;
        while let Ok(event) = self.events.try_recv() {
            self.watch.on_event(now, event, effects, out);
        }
    }

    fn perform(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Attach(place) => {
                    let began = Instant::now();
                    let result = cgroup::open(&self.root, place.cgroup_id)
                        .map_err(ProgramError::IOError)
                        .and_then(|directory| self.programs.attach(place, directory));
                    let took = began.elapsed();
                    match &result {
                        Ok(()) if took > SLOW => tracing::info!(?place, ?took, "answers of DNS are looked at; attaching was slow"),
                        Ok(()) => tracing::debug!(?place, ?took, "answers of DNS are looked at"),
                        Err(error) => tracing::debug!(?place, error = super::chain(error), "answers of DNS cannot be looked at"),
                    }
                    self.watch.attached(place, result.is_ok());
                }
                Effect::Detach(place) => match self.programs.detach(place) {
                    Ok(()) => tracing::debug!(?place, "answers of DNS are looked at no more"),
                    Err(error) => tracing::debug!(?place, %error, "a program that sees answers of DNS was gone already"),
                },
                Effect::Search => search::start(self.proc_root.clone(), Arc::clone(&self.searched), self.tap.clone()),
            }
        }
    }

    /// Reads what is in the ring; whether there was anything.
    fn read_ring(&mut self, out: &mut Vec<Observation>) -> bool {
        let mut read = false;
        let now = Now::read().boot;
        while out.len() + self.untold.len() < BATCH_MAX {
            let Some(record) = self.programs.ring.next() else { break };
            read = true;
            if let Some(datagram) = datagram(&record) {
                self.watch.on_datagram(now, datagram, out);
            }
        }
        read
    }

    fn counts(&self) -> NameCounts {
        NameCounts {
            ring_lost: drain::sum(self.programs.counters.as_ref(), counter::DNS_RING_FULL),
            events_lost: self.tap.lost.load(Ordering::Relaxed),
            ..self.watch.counts()
        }
    }

    fn tell_counts(&mut self, stopping: bool, out: &mut Vec<Observation>) {
        let due = stopping || self.told_at.is_none_or(|at| at.elapsed() >= COUNTS_INTERVAL);
        let counts = self.counts();
        if due && counts != self.told {
            self.told = counts;
            self.told_at = Some(Instant::now());
            out.push(Observation::NamesCounted(counts));
        }
    }
}

/// What a record of the ring tells. A record of another kind or length is nothing.
fn datagram(bytes: &[u8]) -> Option<Datagram<'_>> {
    let record = decode::read::<DnsRecord>(bytes)?;
    if record.header.kind != kind::DNS_MESSAGE {
        return None;
    }
    let message = bytes.get(size_of::<DnsRecord>()..)?.get(..record.copied.into())?;
    Some(Datagram {
        at: BootNanos(record.header.at_ns),
        hook: if record.leaving == 0 { Hook::Ingress } else { Hook::Egress },
        cgroup_id: record.cgroup_id,
        server: IpAddr::V6(Ipv6Addr::from(record.server)).to_canonical(),
        client: IpAddr::V6(Ipv6Addr::from(record.client)).to_canonical(),
        message,
        whole: record.copied == record.message_length,
    })
}

#[cfg(test)]
mod tests;
