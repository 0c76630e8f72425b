//! "And N others": what keeps a port scan, or a server of ten thousand clients, from pushing everybody else out of the table. Pure.
//!
//! A holder may have [`FLOWS_PER_HOLDER`] flows, all together [`super::FLOWS_MAX`]. Whatever comes beyond is added to a sum: the same flow with its
//! far address left out. Nothing is lost but the address, and the sum says how many flows it stands for. An end that was summed up stays so until
//! its connections have ended, so that what is opened in the sum is closed in the sum.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::observation::{BootNanos, Counted, Direction, FlowEnd};

/// Flows of one process that are told one by one, at each side of its connections.
pub const FLOWS_PER_HOLDER: u32 = 4_096;

/// Ports of a client's sums that are told apart; a scan of ports has one sum for the rest.
const PORTS_PER_HOLDER: u32 = 16;

/// Ends that are summed up at most: a number of 16 bytes is kept of each. Beyond it ends are refused, and counted.
pub(super) const SUMMED_MAX: usize = 65_536;

/// Who holds an end, and which side of its connections that is.
type Holder = (u32, Option<BootNanos>, u64, Direction);

/// Which ends are summed up, and how many flows each holder has.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// By the hash of the end: there may be many, and they are only asked for.
    ends: HashMap<u64, Summed>,
    hasher: RandomState,
    flows: HashMap<Holder, u32>,
    sums: HashMap<Holder, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Summed {
    open: u32,
    without_port: bool,
    last_active: BootNanos,
}

/// Where an end belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the table, as itself.
    Own,
    /// In a sum.
    Sum {
        /// The end that stands for all.
        sum: FlowEnd,
        /// It was not in the sum before.
        is_new: bool,
    },
    /// There is no room for it.
    Refused,
}

impl Others {
    /// Where an end that has no flow of its own belongs. `has_room`: the table does. `is_sum_known`: there is such a sum already.
    pub(super) fn place(&self, end: &FlowEnd, has_room: bool, is_sum_known: impl Fn(&FlowEnd) -> bool) -> Place {
        if is_sum(end) {
            return Place::Own;
        }
        if let Some(summed) = self.ends.get(&self.hash(end)) {
            return Place::Sum { sum: sum_of(end, summed.without_port), is_new: false };
        }
        let holder = holder(end);
        if has_room && self.flows.get(&holder).is_none_or(|flows| *flows < FLOWS_PER_HOLDER) {
            return Place::Own;
        }
        if self.ends.len() >= SUMMED_MAX {
            return Place::Refused;
        }
        let with_port = sum_of(end, false);
        let tells_ports = is_sum_known(&with_port) || self.sums.get(&holder).is_none_or(|sums| *sums < PORTS_PER_HOLDER);
        Place::Sum { sum: if tells_ports { with_port } else { sum_of(end, true) }, is_new: true }
    }

    /// An end was counted in a sum.
    pub(super) fn count(&mut self, at: BootNanos, end: &FlowEnd, sum: &FlowEnd, delta: &Counted) {
        let fresh = Summed { open: 0, without_port: sum.server_port != end.server_port, last_active: at };
        let summed = self.ends.entry(self.hash(end)).or_insert(fresh);
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        summed.open = summed.open.saturating_add(small(delta.opened)).saturating_sub(small(delta.closed));
        summed.last_active = summed.last_active.max(at);
    }

    /// A flow came into the table.
    pub(super) fn came(&mut self, end: &FlowEnd) {
        let counts = if is_sum(end) { &mut self.sums } else { &mut self.flows };
        *counts.entry(holder(end)).or_default() += 1;
    }

    /// A flow left the table.
    pub(super) fn left(&mut self, end: &FlowEnd) {
        let counts = if is_sum(end) { &mut self.sums } else { &mut self.flows };
        let holder = holder(end);
        if let Some(count) = counts.get_mut(&holder) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&holder);
            }
        }
    }

    /// Forgets ends without an open connection that were idle for `kept`: the next connection of such an end may have a flow of its own.
    pub(super) fn retire(&mut self, now: BootNanos, kept: BootNanos) {
        self.ends.retain(|_, summed| summed.open > 0 || summed.last_active.0.saturating_add(kept.0) > now.0);
    }

    /// How many ends are summed up now.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn hash(&self, end: &FlowEnd) -> u64 {
        self.hasher.hash_one(end)
    }
}

fn holder(end: &FlowEnd) -> Holder {
    // Of an end without a process at least the cgroup is known.
    (end.pid, end.start_time, if end.pid == 0 { end.cgroup_id } else { 0 }, end.direction)
}

/// Whether an end stands for others.
pub(super) fn is_sum(end: &FlowEnd) -> bool {
    match end.direction {
        Direction::Client => end.server_address.is_unspecified(),
        Direction::Server => end.client_address.is_unspecified(),
    }
}

/// The end without its far address; a client's without the port as well, if that is wished.
fn sum_of(end: &FlowEnd, without_port: bool) -> FlowEnd {
    let unspecified = |address: IpAddr| match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    match end.direction {
        Direction::Client => {
            FlowEnd { server_address: unspecified(end.server_address), server_port: if without_port { 0 } else { end.server_port }, ..*end }
        }
        Direction::Server => FlowEnd { client_address: unspecified(end.client_address), ..*end },
    }
}
