//! The thread that reads the edge table: changed counters several times a second, the sweep, idle entries, losses.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData, PerCpuArray};
use aya_log::EbpfLogger;
use probe_common::{EdgeKey, EdgeValue, counter};
use tokio::sync::mpsc;

use super::control::Controls;
use super::edges::Delivered;
use super::load::Loggers;
use super::own_address::OwnAddresses;
use super::running::Shared;
use super::sweep::Sweep;
use super::talks::Talks;
use super::{BATCH_MAX, Config, sys};
use crate::budget::Pace;
use crate::clock::{Now, thread_cpu};
use crate::observation::{FlowEnd, LossTotals, Observation};

/// How often losses are told and idle entries removed.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Entries removed at once, while there is room for more.
const REMOVALS_MAX: usize = 1_024;

/// Talks looked at at once: those of a full table within the time after which they are looked at again.
const TALKS_MAX: usize = 4_096;

/// A reading that cost much is not repeated before this many times as long.
const REST_FACTOR: u32 = 20;

/// The longest such rest.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Reads the table until the capture stops.
pub(super) struct Drain {
    interval: Duration,
    sweep_interval: Duration,
    pace: Pace,
    capacity: usize,
    table: MapData,
    counters: Counters,
    controls: Controls,
    talks: Talks,
    sweep: Option<Sweep>,
    loggers: Loggers,
    sender: mpsc::Sender<Vec<Observation>>,
    shared: Arc<Shared>,
    delivered: Delivered<Box<dyn Fn(FlowEnd) -> FlowEnd + Send>>,
    changes_read: u64,
    losses_told: LossTotals,
    keys: Vec<EdgeKey>,
    values: Vec<EdgeValue>,
}

impl Drain {
    #[expect(clippy::too_many_arguments, reason = "the parts of one capture, each of another kind")]
    pub(super) fn new(
        config: &Config,
        table: MapData,
        counters: Counters,
        controls: Controls,
        talks: Talks,
        sweep: Option<Sweep>,
        loggers: Loggers,
        addresses: OwnAddresses,
        sender: mpsc::Sender<Vec<Observation>>,
        shared: Arc<Shared>,
    ) -> Self {
        Drain {
            interval: config.interval.max(Duration::from_millis(1)),
            sweep_interval: config.sweep_interval,
            pace: config.pace.clone(),
            capacity: config.edges_max as usize,
            table,
            counters,
            controls,
            talks,
            sweep,
            loggers,
            sender,
            shared,
            delivered: Delivered::new(Box::new(move |end| addresses.filled(end))),
            changes_read: 0,
            losses_told: LossTotals::default(),
            keys: vec![EdgeKey::ZERO; BATCH_MAX],
            values: vec![EdgeValue::default(); BATCH_MAX],
        }
    }

    pub(super) fn run(mut self) {
        let mut next_sweep = Instant::now() + self.sweep_interval;
        let mut next_housekeeping = Instant::now() + HOUSEKEEPING;
        let mut pause = self.interval;
        loop {
            let stopping = self.shared.sleep(pause);
            let (began, spent) = (Instant::now(), thread_cpu());
            self.loggers.iter_mut().for_each(EbpfLogger::flush);
            if stopping || began >= next_sweep {
                self.sweep();
                next_sweep = began + self.pace.stretched(self.sweep_interval);
            }
            let complete = self.read_changes();
            if stopping || began >= next_housekeeping {
                self.look_at_talks();
                self.remove_idle();
                self.tell_losses();
                self.tell_programs();
                next_housekeeping = began + HOUSEKEEPING;
            } else if self.delivered.is_pressed(self.capacity) {
                // What comes now finds no room: that cannot wait.
                self.remove_idle();
            }
            if stopping && (complete || self.shared.is_overdue()) || self.sender.is_closed() {
                return;
            }
            pause = self.pace.stretched(self.interval).max((thread_cpu().saturating_sub(spent) * REST_FACTOR).min(LONGEST_REST));
        }
    }

    /// Delivers what has grown since the last reading; whether that was everything.
    fn read_changes(&mut self) -> bool {
        let changes = self.counters.changes();
        let postponed = self.delivered.take_postponed();
        if changes == self.changes_read && !postponed {
            return true;
        }
        let complete = self.read_table(changes);
        if !complete && postponed {
            // What there was no room for is still to be told, though nothing may change.
            self.delivered.postpone();
        }
        complete
    }

    /// Reads the whole table; whether there was room for all of it.
    fn read_table(&mut self, changes: u64) -> bool {
        let now = Now::read().boot.0;
        let mut cursor = None;
        self.talks.reading_begins();
        loop {
            // Room first: what has been read is delivered, or it is read again.
            let Ok(room) = self.sender.try_reserve() else { return false };
            let batch = match sys::lookup_batch(self.table.fd().as_fd(), cursor, &mut self.keys, &mut self.values) {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::error!(%error, "reading the edge table failed");
                    return false;
                }
            };
            let entries = self.keys.iter().zip(&self.values).take(batch.count);
            let grown: Vec<Observation> = entries.filter_map(|(key, value)| self.delivered.read(now, key, value)).collect();
            if !grown.is_empty() {
                self.shared.note(&grown);
                room.send(grown);
            }
            match batch.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        // Counted before the walk began: a change that the walk missed is after it.
        self.changes_read = changes;
        self.talks.was_read();
        self.talks.allow(self.delivered.talks());
        true
    }

    /// Removes entries that have been idle, with a last look at each: the kernel may add to an entry up to the moment when it goes.
    fn remove_idle(&mut self) {
        let now = Now::read().boot.0;
        let most = if self.delivered.is_pressed(self.capacity) { self.capacity } else { REMOVALS_MAX };
        let idle = self.delivered.idle(now, self.capacity, most);
        for keys in idle.chunks(BATCH_MAX) {
            let Ok(room) = self.sender.try_reserve() else { return };
            let mut grown = Vec::new();
            for key in keys {
                match sys::lookup_and_delete::<EdgeKey, EdgeValue>(self.table.fd().as_fd(), key) {
                    Ok(value) => {
                        grown.extend(value.and_then(|value| self.delivered.read(now, key, &value)));
                        grown.extend(self.delivered.forget(now, key));
                    }
                    Err(error) => tracing::warn!(%error, "removing an idle edge failed"),
                }
            }
            if grown.is_empty() {
                drop(room)
            } else {
                self.shared.note(&grown);
                room.send(grown)
            }
            self.talks.allow(self.delivered.talks());
            self.tell_programs();
        }
    }

    /// Looks whether those that talked without a connection still do.
    fn look_at_talks(&mut self) {
        let now = Now::read().boot.0;
        let due = self.delivered.talks_to_look_at(now, TALKS_MAX);
        for keys in due.chunks(BATCH_MAX) {
            let Ok(room) = self.sender.try_reserve() else { return };
            let mut changed = Vec::new();
            for key in keys {
                match sys::lookup::<EdgeKey, EdgeValue>(self.table.fd().as_fd(), key) {
                    Ok(Some(value)) => changed.extend(self.delivered.read(now, key, &value)),
                    Ok(None) => changed.extend(self.delivered.forget(now, key)),
                    Err(error) => tracing::warn!(%error, "reading an edge failed"),
                }
            }
            if !changed.is_empty() {
                // Those that still talk with a server of DNS ask it.
                self.shared.note(&changed);
                room.send(changed);
            }
        }
    }

    fn sweep(&mut self) {
        let Some(sweep) = &mut self.sweep else { return };
        let Ok(room) = self.sender.try_reserve() else { return };
        match sweep.run(Now::read().boot) {
            Ok(ended) if ended.is_empty() => {}
            Ok(ended) => room.send(ended),
            Err(error) => tracing::warn!(%error, "counting the bytes of open connections failed"),
        }
    }

    fn tell_losses(&mut self) {
        let opened = self.delivered.opened() + self.shared.opened_on_ring.load(Ordering::Relaxed);
        let losses = self.counters.losses(opened);
        if losses != self.losses_told
            && let Ok(room) = self.sender.try_reserve()
        {
            room.send(vec![Observation::Lost(losses.clone())]);
            self.losses_told = losses;
        }
    }
}

impl Drain {
    /// Programs that outlive the probe have to know that it lives, and the next probe what this one has told.
    fn tell_programs(&mut self) {
        let settled = self.delivered.settled() + self.shared.opened_on_ring.load(Ordering::Relaxed);
        self.controls.tell(self.counters.settled_before.wrapping_add(settled));
    }
}

/// The kernel's counters, summed over all CPUs.
pub(super) struct Counters {
    sockets: Option<PerCpuArray<MapData, u64>>,
    processes: Option<PerCpuArray<MapData, u64>>,
    /// Connection ends that this capture has nothing to tell of: those that earlier probes have told and taken out of the table, and those of the
    /// trial at start, which are nobody's. Wraps.
    settled_before: u64,
    /// Ends without an owner that earlier probes have told of.
    unowned_before: [u64; 2],
}

impl Counters {
    pub(super) fn new(sockets: Map, processes: Option<Map>, settled_before: u64) -> Self {
        let sockets = PerCpuArray::try_from(sockets).ok();
        let unowned_before = UNOWNED.map(|slot| sum(sockets.as_ref(), slot));
        Counters { sockets, processes: processes.and_then(|map| PerCpuArray::try_from(map).ok()), settled_before, unowned_before }
    }

    fn changes(&self) -> u64 {
        sum(self.sockets.as_ref(), counter::EDGES_CHANGED)
    }

    fn losses(&self, opened: u64) -> LossTotals {
        let socket = |slot| sum(self.sockets.as_ref(), slot);
        let [unowned_clients, unowned_servers] = std::array::from_fn(|side| socket(UNOWNED[side]).wrapping_sub(self.unowned_before[side]));
        LossTotals {
            talks: socket(counter::TALKS_LOST),
            unowned_clients,
            unowned_servers,
            network_ring: socket(counter::NETWORK_RING_FULL),
            listeners: socket(counter::LISTENERS_LOST),
            process_ring: sum(self.processes.as_ref(), counter::PROCESS_RING_FULL),
            flow_table: socket(counter::EDGES_LOST),
            socket_storage: socket(counter::STORAGE_FAILED),
            netlink: 0,
            ends_seen: socket(counter::ENDS_SEEN).wrapping_sub(self.settled_before).max(opened),
            ends_counted: opened,
        }
    }
}

/// Ends without an owner, of clients and of servers.
const UNOWNED: [u32; 2] = [counter::OWNER_MISSING_CLIENT, counter::OWNER_MISSING_SERVER];

/// One slot over all CPUs.
pub(super) fn sum(map: Option<&PerCpuArray<MapData, u64>>, slot: u32) -> u64 {
    let Some(Ok(values)) = map.map(|map| map.get(&slot, 0)) else { return 0 };
    values.iter().fold(0, |sum, value| sum.wrapping_add(*value))
}

/// One pass over the table as it is, for trials.
pub(super) fn each_edge(table: BorrowedFd<'_>, mut each: impl FnMut(&EdgeKey, &EdgeValue)) -> io::Result<()> {
    let mut keys = vec![EdgeKey::ZERO; BATCH_MAX];
    let mut values = vec![EdgeValue::default(); BATCH_MAX];
    let mut cursor = None;
    loop {
        let batch = sys::lookup_batch(table, cursor, &mut keys, &mut values)?;
        keys.iter().zip(&values).take(batch.count).for_each(|(key, value)| each(key, value));
        match batch.next {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}
