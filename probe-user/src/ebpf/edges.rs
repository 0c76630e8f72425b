//! The probe's memory of the kernel's edge table: what has been delivered of each entry. Pure.

use std::collections::HashMap;

use probe_common::{EdgeKey, EdgeValue, PROTOCOL_UDP};

use super::{decode, talks};
use crate::observation::{BootNanos, Counted, Direction, FlowEnd, Observation};

/// An edge without an open connection leaves the kernel's table when it has been idle this long.
const IDLE_NANOS: u64 = 10_000_000_000;
/// The same, when the table is more than half full.
const IDLE_NANOS_HALF: u64 = 2_000_000_000;
/// The same, when the table is more than three quarters full: then edges with open connections leave as well. Their next event makes them again.
const IDLE_NANOS_PRESSED: u64 = 500_000_000;

/// Two that talk over UDP without a connection have ended their talk when nothing was said for this long.
const TALK_NANOS: u64 = 10_000_000_000;
/// The same, when the table is more than three quarters full. The kernel's coarse clock needs up to 2.6 s for a step.
const TALK_NANOS_PRESSED: u64 = 4_000_000_000;
/// How often it is looked whether they still do. The kernel says nothing of later datagrams by itself.
const TALK_LOOKED_AT_NANOS: u64 = 5_000_000_000;
/// A UDP socket that was connected just now is not told yet: most such sockets only look up an address, and are taken back by the kernel's programs.
const CONNECTED_SETTLES_NANOS: u64 = 50_000_000;

/// One whose own address is not known yet waits longer: it would be told of no address for as long as it lives.
const NAMELESS_SETTLES_NANOS: u64 = 400_000_000;
// What waits to be told may not leave the table meanwhile.
const _: () = assert!(CONNECTED_SETTLES_NANOS < IDLE_NANOS_PRESSED && NAMELESS_SETTLES_NANOS < IDLE_NANOS_PRESSED);

/// Delivered totals of every entry in the kernel's table. As large as that table, never larger.
#[derive(Debug)]
pub(super) struct Delivered<F> {
    edges: HashMap<EdgeKey, EdgeValue>,
    /// Finds the address of an end of UDP that has none in the kernel's table.
    fill: F,
    /// What the entries of UDP have besides.
    talks: HashMap<EdgeKey, Talk>,
    opened: u64,
    settled: u64,
    postponed: bool,
}

/// Two that may talk without a connection.
#[derive(Clone, Copy, Debug)]
struct Talk {
    /// What it was told as: it ends as that, also when the host gets another address meanwhile.
    end: FlowEnd,
    /// They do: one more was opened than closed.
    goes_on: bool,
    /// When it was last seen that something was said.
    heard_ns: u64,
    /// When it was last looked.
    looked_ns: u64,
}

impl<F: Fn(FlowEnd) -> FlowEnd> Delivered<F> {
    /// Nothing was delivered. `fill` finds the address of an end of UDP that has none in the kernel's table.
    pub(super) fn new(fill: F) -> Self {
        Delivered { edges: HashMap::new(), fill, talks: HashMap::new(), opened: 0, settled: 0, postponed: false }
    }

    /// An entry was read: what is new of it, to be delivered now.
    pub(super) fn read(&mut self, now_ns: u64, key: &EdgeKey, value: &EdgeValue) -> Option<Observation> {
        if key.protocol == PROTOCOL_UDP {
            return self.read_udp(now_ns, key, value);
        }
        let known = self.edges.entry(*key).or_default();
        let delta = decode::growth(known, value);
        // What shrank stays as it was delivered, until the kernel's total has passed it again.
        let (sent, received) = (known.bytes_sent.wrapping_add(delta.bytes_sent), known.bytes_received.wrapping_add(delta.bytes_received));
        *known = EdgeValue { bytes_sent: sent, bytes_received: received, ..*value };
        if delta == (Counted { rtt_us_max: delta.rtt_us_max, ..Counted::default() }) {
            return None;
        }
        self.opened += delta.opened;
        Some(Observation::FlowCounted { last_active: BootNanos(value.last_ns), end: decode::flow_end(key), delta })
    }

    fn read_udp(&mut self, now_ns: u64, key: &EdgeKey, value: &EdgeValue) -> Option<Observation> {
        let known = self.edges.entry(*key).or_default();
        let talk = self.talks.entry(*key).or_insert_with(|| Talk {
            end: (self.fill)(decode::flow_end(key)),
            goes_on: false,
            heard_ns: 0,
            looked_ns: 0,
        });
        if !talk.goes_on && known.opened == known.closed {
            // Nothing was told that has to end as it began: what was not found out before may be known now.
            talk.end = (self.fill)(talk.end);
        }
        let mut seen = *value;
        let settles = if nameless(talk.end) { NAMELESS_SETTLES_NANOS } else { CONNECTED_SETTLES_NANOS };
        if value.opened != known.opened && now_ns.saturating_sub(value.last_ns) < settles {
            self.postponed = true;
            // When it changed is known: an entry of which something is still to be told is not idle.
            seen = EdgeValue { opened: known.opened, closed: known.closed, tick: value.tick, last_ns: value.last_ns, ..*known };
        }
        // The kernel takes back connections that came to nothing. One that was told already ends instead.
        let opened = seen.opened.wrapping_sub(known.opened).cast_signed();
        let taken_back = opened.min(0).unsigned_abs();
        let mut delta = Counted {
            opened: opened.max(0).unsigned_abs().into(),
            closed: u64::from(seen.closed.wrapping_sub(known.closed)) + u64::from(taken_back),
            ..Counted::default()
        };
        let mut last_active = seen.last_ns;
        talk.looked_ns = now_ns;
        let mut refreshed = false;
        if seen.tick != known.tick {
            if !talk.goes_on {
                talk.goes_on = true;
                delta.opened += 1;
            }
            // Told again now and then, so that it is seen to go on.
            refreshed = now_ns.saturating_sub(talk.heard_ns) >= TALK_LOOKED_AT_NANOS;
            talk.heard_ns = now_ns;
            last_active = now_ns;
        } else if talk.goes_on && now_ns.saturating_sub(talk.heard_ns) >= TALK_NANOS {
            talk.goes_on = false;
            delta.closed += 1;
            last_active = talk.heard_ns;
        }
        *known = seen;
        if delta == Counted::default() && !refreshed {
            return None;
        }
        Some(Observation::FlowCounted { last_active: BootNanos(last_active), end: talk.end, delta })
    }

    /// Whether something was read that has to be read again soon, though nothing may change. Asking forgets it.
    pub(super) fn take_postponed(&mut self) -> bool {
        std::mem::take(&mut self.postponed)
    }

    /// What was read could not be delivered: it has to be read again soon.
    pub(super) fn postpone(&mut self) {
        self.postponed = true;
    }

    /// Entries of UDP that should be read, at most `limit`: whether they still talk.
    pub(super) fn talks_to_look_at(&self, now_ns: u64, limit: usize) -> Vec<EdgeKey> {
        let due = |talk: &Talk| now_ns.saturating_sub(talk.looked_ns) >= TALK_LOOKED_AT_NANOS;
        self.talks.iter().filter(|(_, talk)| due(talk)).map(|(key, _)| *key).take(limit).collect()
    }

    /// TCP connection ends that have been delivered as opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// Entries of UDP.
    pub(super) fn talks(&self) -> usize {
        self.talks.len()
    }

    /// Whether there is little room for more, or for more of UDP.
    pub(super) fn is_pressed(&self, capacity: usize) -> bool {
        let (all, talks) = self.pressure(capacity);
        all || talks
    }

    /// Whether the table is more than three quarters full, and whether UDP's share of it is.
    fn pressure(&self, capacity: usize) -> (bool, bool) {
        let all = self.edges.len() * 4 > capacity * 3;
        (all, all || self.talks.len() * 4 > talks::share(capacity) * 3)
    }

    /// Entries that may leave the kernel's table now, at most `limit`.
    pub(super) fn idle(&self, now_ns: u64, capacity: usize, limit: usize) -> Vec<EdgeKey> {
        let (all_pressed, talks_pressed) = self.pressure(capacity);
        let kept = if self.edges.len() * 2 > capacity { IDLE_NANOS_HALF } else { IDLE_NANOS };
        let may_leave = |key: &EdgeKey, value: &EdgeValue| {
            let pressed = if key.protocol == PROTOCOL_UDP { talks_pressed } else { all_pressed };
            let kept = if pressed { IDLE_NANOS_PRESSED } else { kept };
            let quiet = now_ns.saturating_sub(value.last_ns) > kept && (pressed || value.opened <= value.closed);
            quiet
                && self
                    .talks
                    .get(key)
                    .is_none_or(|talk| !talk.goes_on || pressed && now_ns.saturating_sub(talk.heard_ns) > TALK_NANOS_PRESSED)
        };
        self.edges.iter().filter(|(key, value)| may_leave(key, value)).map(|(key, _)| *key).take(limit).collect()
    }

    /// TCP connection ends of entries that have left the kernel's table.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// An entry has left the kernel's table. A talk in it is over as far as anybody can tell.
    pub(super) fn forget(&mut self, now_ns: u64, key: &EdgeKey) -> Option<Observation> {
        if let Some(value) = self.edges.remove(key)
            && key.protocol != PROTOCOL_UDP
        {
            self.settled += u64::from(value.opened);
        }
        let talk = self.talks.remove(key).filter(|talk| talk.goes_on)?;
        let delta = Counted { closed: 1, ..Counted::default() };
        Some(Observation::FlowCounted { last_active: BootNanos(talk.heard_ns.min(now_ns)), end: talk.end, delta })
    }
}

/// Whether the address of this end is not known.
fn nameless(end: FlowEnd) -> bool {
    match end.direction {
        Direction::Client => end.client_address.is_unspecified(),
        Direction::Server => end.server_address.is_unspecified(),
    }
}

#[cfg(test)]
mod tests;
