//! The probe's memory of the kernel's edge table: what has been delivered of each entry. Pure.

use std::collections::HashMap;

use probe_common::{EdgeKey, EdgeValue};

use super::decode;
use crate::observation::{BootNanos, Counted, Observation};

/// An edge without an open connection leaves the kernel's table when it has been idle this long.
const IDLE_NANOS: u64 = 10_000_000_000;
/// The same, when the table is more than half full.
const IDLE_NANOS_HALF: u64 = 2_000_000_000;
/// The same, when the table is more than three quarters full: then edges with open connections leave as well. Their next event makes them again.
const IDLE_NANOS_PRESSED: u64 = 500_000_000;

/// Delivered totals of every entry in the kernel's table. As large as that table, never larger.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    edges: HashMap<EdgeKey, EdgeValue>,
    opened: u64,
    settled: u64,
}

impl Delivered {
    /// An entry was read: what is new of it, to be delivered now.
    pub(super) fn read(&mut self, key: &EdgeKey, value: &EdgeValue) -> Option<Observation> {
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

    /// Connection ends that have been delivered as opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// Entries that may leave the kernel's table now, at most `limit`.
    pub(super) fn idle(&self, now_ns: u64, capacity: usize, limit: usize) -> Vec<EdgeKey> {
        let pressed = self.edges.len() * 4 > capacity * 3;
        let kept = match self.edges.len() {
            _ if pressed => IDLE_NANOS_PRESSED,
            entries if entries * 2 > capacity => IDLE_NANOS_HALF,
            _ => IDLE_NANOS,
        };
        self.edges
            .iter()
            .filter(|(_, value)| now_ns.saturating_sub(value.last_ns) > kept && (pressed || value.opened <= value.closed))
            .map(|(key, _)| *key)
            .take(limit)
            .collect()
    }

    /// Connection ends of entries that have left the kernel's table.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// An entry has left the kernel's table.
    pub(super) fn forget(&mut self, key: &EdgeKey) {
        if let Some(value) = self.edges.remove(key) {
            self.settled += u64::from(value.opened);
        }
    }
}

#[cfg(test)]
mod tests;
