//! The flow table: one record per end of a group of connections, with totals. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::cgroups::Placement;
use crate::conntrack::table::{TranslationTable, Way};
use crate::listeners::ListenerTable;
use crate::observation::{BootNanos, Counted, Direction, FlowEnd, OpenEnds, Protocol, Translated};
use crate::processes::{Holder, ProcessKey, ProcessTable};
use others::{Others, Place};

mod others;

pub use others::FLOWS_PER_HOLDER;

/// Largest number of flows. The kernel's own table is smaller; flows that linger here make the difference.
pub const FLOWS_MAX: usize = 32_768;

/// Of these, room that is kept for flows that stand for others.
const ROOM_FOR_SUMS: usize = 2_048;

/// A flow without an open connection leaves after this long.
pub const IDLE_KEPT: BootNanos = BootNanos(15_000_000_000);

/// How long a flow waits for the record of its process, which comes on another way.
pub const OWNER_AWAITED: BootNanos = BootNanos(200_000_000);

/// A flow on which nothing happened for this long is settled: nothing that was told of it is on its way, and what its last process left of it has ended as a
/// rule.
const STILL_FOR: BootNanos = BootNanos(120_000_000_000);

/// How long after its end a process can still be the opener of a connection: a handshake that outlived it.
const OPENER_KEPT_NANOS: u64 = 2_000_000_000;

/// How long after a process has ended its connections are closed at the latest, as a rule.
const ENDS_WITH_HOLDER_NANOS: u64 = 2_000_000_000;

/// It opens the sockets of services for them.
pub(crate) const FIRST_PROCESS: u32 = 1;

/// One end of a group of connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// What makes it one.
    pub end: FlowEnd,
    /// Incarnation of the holder.
    pub process: Option<ProcessKey>,
    /// Full id of the holder's container.
    pub container_id: Option<Arc<str>>,
    /// Where the client meant to go, when the kernel changed it.
    pub original_server: Option<(IpAddr, u16)>,
    /// Whether it was found open by looking, rather than told by the kernel.
    pub found_open: bool,
    /// A client port seen on it; 0 when unknown.
    pub client_port: u16,
    /// Totals.
    pub total: Counted,
    /// When it was first seen.
    pub first_seen: BootNanos,
    /// When something last happened on it.
    pub last_active: BootNanos,
    /// How many flows it stands for, when it is the sum of those that found no room; else 0.
    pub others: u64,
    /// It is not told before this instant, unless its holder becomes known.
    awaits_owner_until: Option<BootNanos>,
    announced: bool,
    /// It was told, and what tells it apart is known better since.
    told_less: bool,
    /// So many of its connections the kernel did not have at the last look; nothing was counted since.
    missing: u64,
}

impl Flow {
    /// Connections open now.
    pub fn active(&self) -> u64 {
        self.total.opened.saturating_sub(self.total.closed)
    }

    /// Whether it still waits for its holder.
    pub fn is_awaiting(&self) -> bool {
        self.awaits_owner_until.is_some()
    }
}

/// What to tell of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its key was not told yet, or has to be told again.
    New,
    /// Only its counters grew.
    Counters,
    /// Where address translation takes its connections, and perhaps its counters.
    Translations,
}

/// What an observation of a flow led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A new flow whose holder is known, or that has none.
    New,
    /// A new flow; reading `/proc` for this pid may tell who holds it.
    OwnerWanted(u32),
    /// A flow that is known.
    Known,
    /// The table is full.
    Refused,
}

/// All flows.
#[derive(Debug, Default)]
pub struct FlowTable {
    ids: HashMap<FlowEnd, u64>,
    by_id: BTreeMap<u64, Flow>,
    last_id: u64,
    changed: BTreeSet<u64>,
    gone: BTreeSet<u64>,
    awaiting: BTreeSet<u64>,
    translations: TranslationTable,
    others: Others,
    refused: u64,
    refused_ends: u64,
}

impl FlowTable {
    /// A flow was announced.
    #[expect(clippy::too_many_arguments, reason = "the fields of one observation, and the tables it is resolved with")]
    pub fn seen(
        &mut self,
        at: BootNanos,
        end: FlowEnd,
        client_port: u16,
        original_server: Option<(IpAddr, u16)>,
        found_open: bool,
        processes: &ProcessTable,
        placement: Option<Placement>,
    ) -> Seen {
        if let Some((id, flow)) = self.ids.get(&end).and_then(|id| self.by_id.get_mut(id).map(|flow| (*id, flow))) {
            flow.last_active = flow.last_active.max(at);
            // Its counters may have come first, over another way.
            if flow.client_port == 0 && !flow.announced {
                flow.client_port = client_port;
                flow.found_open = found_open;
            }
            // Then perhaps they were told: where the client meant to go is known here alone.
            if flow.original_server.is_none() && original_server.is_some() && flow.others == 0 {
                flow.original_server = original_server;
                flow.told_less = flow.announced;
            }
            self.changed.insert(id);
            return Seen::Known;
        }
        let (seen, id) = self.find_or_insert(at, end, &Counted::default(), processes, placement);
        if let Some(flow) = id.and_then(|id| self.by_id.get_mut(&id)).filter(|flow| flow.others == 0) {
            flow.client_port = client_port;
            flow.original_server = original_server;
            flow.found_open = found_open;
        }
        seen
    }

    /// Counters of a flow grew; it may be one that was never announced.
    pub fn counted(&mut self, at: BootNanos, end: FlowEnd, delta: Counted, processes: &ProcessTable, placement: Option<Placement>) -> Seen {
        let (seen, id) = match self.ids.get(&end) {
            Some(&id) => (Seen::Known, Some(id)),
            None => self.find_or_insert(at, end, &delta, processes, placement),
        };
        let Some((id, flow)) = id.and_then(|id| self.by_id.get_mut(&id).map(|flow| (id, flow))) else {
            if end.protocol == Protocol::Tcp {
                self.refused_ends = self.refused_ends.saturating_add(delta.opened);
            }
            return seen;
        };
        add(&mut flow.total, delta);
        // An end among it may be that of one that was missing.
        flow.missing = 0;
        flow.last_active = flow.last_active.max(at);
        self.changed.insert(id);
        seen
    }

    /// The kernel translates the addresses of a connection.
    pub fn translated(&mut self, translated: &Translated) {
        self.translations.translated(translated);
    }

    /// Tries again to name the holders of flows that wait for one. Called when processes were described, and as time passes.
    pub fn settle(&mut self, now: BootNanos, processes: &ProcessTable) {
        let waiting: Vec<u64> = self.awaiting.iter().copied().collect();
        for id in waiting {
            let Some(flow) = self.by_id.get_mut(&id) else { continue };
            let expired = flow.awaits_owner_until.is_none_or(|until| until <= now);
            match holder(&flow.end, flow.first_seen, processes) {
                Holder::Alive(key) => attribute(flow, key, processes),
                Holder::Ended(key, ended_at) if expired => attribute_to_ended(flow, key, ended_at, processes),
                _ if expired => {}
                _ => continue,
            }
            flow.awaits_owner_until = None;
            self.awaiting.remove(&id);
            self.changed.insert(id);
        }
    }

    /// Drops flows that have had no open connection and no event for a while.
    pub fn retire(&mut self, now: BootNanos) {
        self.translations.retire(now);
        self.others.retire(now, IDLE_KEPT);
        let idle = |flow: &Flow| flow.active() == 0 && flow.last_active.0.saturating_add(IDLE_KEPT.0) <= now.0;
        let retired: Vec<u64> = self.by_id.iter().filter(|(_, flow)| idle(flow)).map(|(id, _)| *id).collect();
        for id in retired {
            if let Some(flow) = self.by_id.remove(&id) {
                self.ids.remove(&flow.end);
                self.others.left(&flow.end);
                self.translations.flow_left(id, &flow.end);
                self.changed.remove(&id);
                self.awaiting.remove(&id);
                if flow.announced {
                    self.gone.insert(id);
                }
            }
        }
    }

    /// Forgets every flow: the capture will tell again what there is.
    pub fn forget_all(&mut self) {
        self.gone.extend(self.by_id.iter().filter(|(_, flow)| flow.announced).map(|(id, _)| *id));
        self.by_id.clear();
        self.ids.clear();
        self.changed.clear();
        self.awaiting.clear();
        // Ends that are told again have the room that these had. What was refused is among what the capture counts from now on.
        self.others = Others::default();
        self.refused_ends = 0;
        self.translations.flows_are_told_again();
    }

    /// Takes in how many connections the kernel has open on each flow: closes those of which the end was lost; how many these are. What happened on a
    /// flow lately may be on its way here, and so may the end of a connection that was quiet for long: one is closed when two looks have missed it,
    /// and nothing was counted between them.
    pub fn close_lost(&mut self, look: &OpenEnds) -> u64 {
        let mut lost = 0;
        for (id, flow) in &mut self.by_id {
            let still = flow.last_active.0.saturating_add(STILL_FOR.0) <= look.at.0;
            if !still || flow.others > 0 || flow.end.protocol != Protocol::Tcp || look.except.contains(&flow.end) {
                continue;
            }
            let missing = flow.active().saturating_sub(look.open.get(&flow.end).copied().unwrap_or(0));
            let beyond = missing.min(std::mem::replace(&mut flow.missing, missing));
            if beyond > 0 {
                flow.total.closed = flow.total.closed.saturating_add(beyond);
                flow.missing = missing - beyond;
                self.changed.insert(*id);
                lost += beyond;
            }
        }
        lost
    }

    /// Gives the accepting ends whose holder has ended, is not known, or bound the socket for somebody else, to the process that listens there now:
    /// a server that puts itself into the background binds in a process that ends, and the first process of the machine binds for its services.
    /// What a server had finished when it ended stays its own, whoever is started in its place.
    pub fn inherit(&mut self, now: BootNanos, listeners: &ListenerTable, processes: &ProcessTable) {
        let lives = |key: &ProcessKey| processes.get(key).is_some_and(|process| process.exited.is_none());
        // Its connections end with it; the kernel takes a moment. What is open or happens later, another process has.
        let outlives = |flow: &Flow| {
            let exited = flow.process.and_then(|key| processes.get(&key)?.exited);
            let Some(over) = exited.map(|exited| exited.at.0.saturating_add(ENDS_WITH_HOLDER_NANOS)) else { return true };
            flow.last_active.0 > over || flow.active() > 0 && now.0 > over
        };
        let mut heirs = None;
        for (id, flow) in &mut self.by_id {
            let orphaned = flow.end.direction == Direction::Server
                && !flow.is_awaiting()
                && flow.process.is_none_or(|key| key.pid == FIRST_PROCESS || !lives(&key))
                && outlives(flow);
            if !orphaned {
                continue;
            }
            let heirs = heirs.get_or_insert_with(|| listeners.holders());
            let (address, service) = (flow.end.server_address, (flow.end.network_namespace, flow.end.protocol, flow.end.server_port));
            let Some(heir) = heirs.of(service, address).filter(|heir| Some(*heir) != flow.process && lives(heir)) else { continue };
            // The binder, while it lives, is better than nobody.
            if flow.process.is_none() || heir.pid != FIRST_PROCESS {
                attribute(flow, heir, processes);
                flow.told_less = flow.announced;
                self.changed.insert(*id);
            }
        }
    }

    /// When the first waiting flow has waited long enough.
    pub fn next_deadline(&self) -> Option<BootNanos> {
        self.awaiting.iter().filter_map(|id| self.by_id.get(id)?.awaits_owner_until).min()
    }

    /// One flow.
    pub fn get(&self, id: u64) -> Option<&Flow> {
        self.by_id.get(&id)
    }

    /// One flow by its end.
    pub fn get_end(&self, end: &FlowEnd) -> Option<&Flow> {
        self.by_id.get(self.ids.get(end)?)
    }

    /// Flows in the order of their ids, after `id`.
    pub fn after(&self, id: u64) -> impl Iterator<Item = (u64, &Flow)> {
        self.by_id.range(id.saturating_add(1)..).map(|(id, flow)| (*id, flow))
    }

    /// Where address translation takes the connections of a flow.
    pub fn ways(&self, flow: &Flow) -> &[Way] {
        self.translations.ways(&flow.end)
    }

    /// What is known of address translation.
    pub fn translations(&self) -> &TranslationTable {
        &self.translations
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Ends that are told in sums now, because there are too many.
    pub fn summed(&self) -> usize {
        self.others.len()
    }

    /// Observations that found the table full.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Connection ends that could not be counted because the table was full.
    pub fn refused_ends(&self) -> u64 {
        self.refused_ends
    }

    /// Whether there is something to tell.
    pub fn has_changes(&self) -> bool {
        !self.gone.is_empty()
            || self.translations.has_changes()
            || self.changed.len() > self.awaiting.len()
            || self.changed.iter().any(|id| !self.awaiting.contains(id))
    }

    /// Whether a flow waits to be told that nobody was told of, or one has gone a new way.
    pub fn has_new(&self) -> bool {
        self.translations.has_new()
            || self
                .changed
                .iter()
                .any(|id| !self.awaiting.contains(id) && self.by_id.get(id).is_some_and(|flow| !flow.announced || flow.told_less))
    }

    /// How many removals wait to be told.
    pub fn gone_len(&self) -> usize {
        self.gone.len()
    }

    /// What changed and what left since the last call. Flows that wait for their holder are held back.
    pub fn take_changes(&mut self) -> (Vec<(u64, Change)>, BTreeSet<u64>) {
        let translated: HashSet<u64> = self.translations.take_changes().into_iter().collect();
        self.changed.extend(&translated);
        let mut told = Vec::with_capacity(self.changed.len());
        let awaiting = &self.awaiting;
        let held: BTreeSet<u64> = self.changed.iter().copied().filter(|id| awaiting.contains(id)).collect();
        for id in std::mem::replace(&mut self.changed, held) {
            if self.awaiting.contains(&id) {
                continue;
            }
            let Some(flow) = self.by_id.get_mut(&id) else { continue };
            told.push(match flow.announced && !flow.told_less {
                false => (id, Change::New),
                true if translated.contains(&id) => (id, Change::Translations),
                true => (id, Change::Counters),
            });
            flow.announced = true;
            flow.told_less = false;
        }
        (told, std::mem::take(&mut self.gone))
    }

    /// A snapshot told of this flow.
    pub fn mark_announced(&mut self, id: u64) {
        if let Some(flow) = self.by_id.get_mut(&id) {
            flow.announced = true;
            flow.told_less = false;
        }
    }

    /// The flow that an end without one of its own is told in: a new one, or the sum of those that found no room.
    fn find_or_insert(
        &mut self,
        at: BootNanos,
        end: FlowEnd,
        delta: &Counted,
        processes: &ProcessTable,
        placement: Option<Placement>,
    ) -> (Seen, Option<u64>) {
        let has_room = self.by_id.len() < FLOWS_MAX - ROOM_FOR_SUMS;
        match self.others.place(&end, has_room, |sum| self.ids.contains_key(sum)) {
            Place::Own => self.insert(at, end, processes, placement),
            Place::Sum { sum, is_new } => {
                let (seen, id) = match self.ids.get(&sum) {
                    Some(&id) => (Seen::Known, Some(id)),
                    None => self.insert(at, sum, processes, placement),
                };
                if let Some(flow) = id.and_then(|id| self.by_id.get_mut(&id)) {
                    self.others.count(at, &end, &sum, delta);
                    flow.others = flow.others.saturating_add(u64::from(is_new));
                    flow.last_active = flow.last_active.max(at);
                }
                self.changed.extend(id);
                (seen, id)
            }
            Place::Refused => {
                self.refused = self.refused.saturating_add(1);
                (Seen::Refused, None)
            }
        }
    }

    fn insert(&mut self, at: BootNanos, end: FlowEnd, processes: &ProcessTable, placement: Option<Placement>) -> (Seen, Option<u64>) {
        if self.by_id.len() >= FLOWS_MAX {
            self.refused = self.refused.saturating_add(1);
            return (Seen::Refused, None);
        }
        self.last_id += 1;
        let id = self.last_id;
        let mut flow = Flow {
            end,
            process: None,
            container_id: placement.and_then(|it| it.container_id),
            original_server: None,
            found_open: false,
            client_port: 0,
            total: Counted::default(),
            first_seen: at,
            last_active: at,
            others: 0,
            awaits_owner_until: None,
            announced: false,
            told_less: false,
            missing: 0,
        };
        let seen = match holder(&end, at, processes) {
            Holder::Alive(key) => {
                attribute(&mut flow, key, processes);
                Seen::New
            }
            Holder::Ended(..) | Holder::Unknown if end.pid != 0 => {
                flow.awaits_owner_until = Some(BootNanos(at.0.saturating_add(OWNER_AWAITED.0)));
                self.awaiting.insert(id);
                Seen::OwnerWanted(end.pid)
            }
            _ => Seen::New,
        };
        self.translations.flow_came(id, &end);
        self.others.came(&end);
        self.ids.insert(end, id);
        self.by_id.insert(id, flow);
        self.changed.insert(id);
        (seen, Some(id))
    }
}

/// Who holds an end: the incarnation that it names, else the one that lived when it was seen.
fn holder(end: &FlowEnd, at: BootNanos, processes: &ProcessTable) -> Holder {
    match end.start_time {
        Some(start_time) => {
            let key = ProcessKey::new(end.pid, start_time);
            if processes.get(&key).is_some() { Holder::Alive(key) } else { Holder::Unknown }
        }
        None => processes.holder(end.pid, at),
    }
}

fn attribute(flow: &mut Flow, key: ProcessKey, processes: &ProcessTable) {
    flow.process = Some(key);
    if flow.container_id.is_none() {
        flow.container_id = processes.get(&key).and_then(|process| process.placement.container_id.clone());
    }
}

/// An accepted connection belongs to whoever bound the socket, also when that one has handed it on and ended. One that was opened after its
/// opener had ended was not opened by it: the pid has been used again, and naming nobody is better than naming the wrong one.
fn attribute_to_ended(flow: &mut Flow, key: ProcessKey, ended_at: BootNanos, processes: &ProcessTable) {
    let outlived = ended_at.0.saturating_add(OPENER_KEPT_NANOS) >= flow.first_seen.0;
    if flow.end.direction == Direction::Server || outlived {
        attribute(flow, key, processes);
    }
}

fn add(total: &mut Counted, delta: Counted) {
    total.opened = total.opened.saturating_add(delta.opened);
    total.closed = total.closed.saturating_add(delta.closed);
    total.failed = total.failed.saturating_add(delta.failed);
    total.bytes_sent = total.bytes_sent.saturating_add(delta.bytes_sent);
    total.bytes_received = total.bytes_received.saturating_add(delta.bytes_received);
    total.retransmits = total.retransmits.saturating_add(delta.retransmits);
    total.rtt_us_sum = total.rtt_us_sum.saturating_add(delta.rtt_us_sum);
    total.rtt_count = total.rtt_count.saturating_add(delta.rtt_count);
    total.rtt_us_max = total.rtt_us_max.max(delta.rtt_us_max);
}

#[cfg(test)]
mod tests;
