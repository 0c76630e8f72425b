//! The table of names: what processes of this node called an address when they looked it up. Pure.
//!
//! A name is kept while its time to live runs, and for as long as a flow of this node uses its address: a connection that is open for a day keeps
//! the name that it was opened with.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use crate::observation::BootNanos;

/// Most addresses that have names. The one that was resolved or connected to longest ago leaves first.
pub const ADDRESSES_MAX: usize = 4_096;

/// Most names of one address.
pub const NAMES_MAX: usize = 8;

/// Most bytes of names, over all addresses.
pub const NAME_BYTES_MAX: usize = 1 << 20;

/// Shortest and longest time to live. A name that may not be kept at all is kept for as long as it takes to connect.
pub const TIME_TO_LIVE: std::ops::RangeInclusive<u64> = 30..=86_400;

/// Most addresses that are told at once, and how often that is.
pub const TOLD_MAX: usize = 256;
const TOLD_INTERVAL: u64 = 1_000_000_000;

/// A name that was told and is resolved again is told again when what was told runs out within this time.
const RETOLD_BEFORE: u64 = 15_000_000_000;

/// How often names that have run out are looked for.
const RETIRE_INTERVAL: u64 = 5_000_000_000;

/// A name that has run out and whose address is in use is looked at again after this time.
const IN_USE_KEPT: u64 = 30_000_000_000;

/// A name of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: Arc<str>,
    /// When it was last resolved.
    pub resolved_at: BootNanos,
    /// When its time to live ends.
    pub expires_at: BootNanos,
}

#[derive(Debug, Default)]
struct Entry {
    /// The latest first.
    names: Vec<Named>,
    /// When it is looked at next.
    due: BootNanos,
    /// Its place in the order of use.
    used: u64,
    announced: bool,
    /// Until when the names hold that were told.
    told_until: BootNanos,
}

/// All names.
#[derive(Debug, Default)]
pub struct NameTable {
    by_address: BTreeMap<IpAddr, Entry>,
    by_due: BTreeSet<(BootNanos, IpAddr)>,
    by_use: BTreeSet<(u64, IpAddr)>,
    uses: u64,
    name_bytes: usize,
    changed: BTreeSet<IpAddr>,
    gone: BTreeSet<IpAddr>,
    retired_at: BootNanos,
    told_at: BootNanos,
    evicted: u64,
    version: u64,
}

impl NameTable {
    /// A name was resolved to an address, for so many seconds.
    pub fn resolved(&mut self, at: BootNanos, name: &Arc<str>, address: IpAddr, time_to_live: u32) {
        let seconds = u64::from(time_to_live).clamp(*TIME_TO_LIVE.start(), *TIME_TO_LIVE.end());
        let expires_at = BootNanos(at.0.saturating_add(seconds * 1_000_000_000));
        let address = address.to_canonical();
        let entry = self.by_address.entry(address).or_default();
        let named = Named { name: name.clone(), resolved_at: at, expires_at };
        let tell = match entry.names.iter().position(|known| known.name == *name) {
            Some(position) => {
                entry.names.remove(position);
                entry.names.insert(0, named);
                entry.told_until.0 < at.0.saturating_add(RETOLD_BEFORE)
            }
            None => {
                entry.names.insert(0, named);
                self.name_bytes += name.len();
                while entry.names.len() > NAMES_MAX {
                    self.name_bytes -= entry.names.pop().map_or(0, |oldest| oldest.name.len());
                }
                true
            }
        };
        if tell {
            self.changed.insert(address);
            self.version += 1;
        }
        // Whoever was told of it before does not know that it had left.
        entry.announced |= self.gone.remove(&address);
        self.by_due.remove(&(entry.due, address));
        entry.due = first_to_expire(&entry.names);
        self.by_due.insert((entry.due, address));
        self.touch(address);
        self.make_room();
    }

    /// Names that an earlier probe of this node knew, the latest first. What was resolved since then is better. Those that have run out stay until
    /// it can be known which connections there are.
    pub fn restored(&mut self, now: BootNanos, address: IpAddr, names: Vec<Named>) {
        let address = address.to_canonical();
        if names.is_empty() || self.by_address.contains_key(&address) {
            return;
        }
        let due = first_to_expire(&names).max(BootNanos(now.0.saturating_add(IN_USE_KEPT)));
        self.name_bytes += bytes_of(&names);
        self.by_due.insert((due, address));
        self.by_address.insert(address, Entry { names, due, announced: self.gone.remove(&address), ..Entry::default() });
        self.changed.insert(address);
        self.touch(address);
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.by_address.len() > ADDRESSES_MAX || self.name_bytes > NAME_BYTES_MAX {
            let Some(&(_, oldest)) = self.by_use.first() else { break };
            self.remove(oldest);
            self.evicted += 1;
        }
    }

    /// A flow to an address began.
    pub fn used(&mut self, address: IpAddr) {
        if !self.by_address.is_empty() {
            self.touch(address.to_canonical());
        }
    }

    /// Whether [`NameTable::retire`] has anything to do.
    pub fn retires(&self, now: BootNanos) -> bool {
        now.0 >= self.retired_at.0.saturating_add(RETIRE_INTERVAL) && self.by_due.first().is_some_and(|(due, _)| *due <= now)
    }

    /// Drops names that have run out and whose address is not among those in use.
    pub fn retire(&mut self, now: BootNanos, in_use: &HashSet<IpAddr>) {
        self.retired_at = now;
        let due: Vec<(BootNanos, IpAddr)> = self.by_due.iter().copied().take_while(|(due, _)| *due <= now).collect();
        for (due, address) in due {
            self.by_due.remove(&(due, address));
            let Some(entry) = self.by_address.get_mut(&address) else { continue };
            if in_use.contains(&address) {
                entry.due = BootNanos(now.0.saturating_add(IN_USE_KEPT));
            } else {
                let before: usize = bytes_of(&entry.names);
                entry.names.retain(|named| named.expires_at > now);
                self.name_bytes -= before - bytes_of(&entry.names);
                if entry.names.is_empty() {
                    self.remove(address);
                    continue;
                }
                entry.due = first_to_expire(&entry.names);
                self.changed.insert(address);
            }
            self.by_due.insert((entry.due, address));
        }
    }

    /// Names of an address, the latest first; none when nothing is known of it.
    pub fn names(&self, address: IpAddr) -> &[Named] {
        self.by_address.get(&address.to_canonical()).map_or(&[], |entry| &entry.names)
    }

    /// Addresses with their names in the order of the addresses, after `address`.
    pub fn after(&self, address: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, &[Named])> {
        let from = address.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_address.range((from, Bound::Unbounded)).map(|(address, entry)| (*address, entry.names.as_slice()))
    }

    /// All of them in the order in which they were used, the address that was used longest ago first.
    pub fn by_use(&self) -> impl Iterator<Item = (IpAddr, &[Named])> {
        self.by_use.iter().map(|&(_, address)| (address, self.names(address)))
    }

    /// Grows with every change that is worth keeping.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many addresses have names.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// Addresses that left early because the table was full.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Whether there is something to tell.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.gone.is_empty()
    }

    /// How many removals wait to be told.
    pub fn gone_len(&self) -> usize {
        self.gone.len()
    }

    /// What changed and what left since the last call: at most [`TOLD_MAX`] changed addresses a second, the rest later.
    pub fn take_changes(&mut self, now: BootNanos) -> (Vec<IpAddr>, BTreeSet<IpAddr>) {
        let gone = std::mem::take(&mut self.gone);
        if now.0 < self.told_at.0.saturating_add(TOLD_INTERVAL) && self.told_at.0 != 0 {
            return (Vec::new(), gone);
        }
        let mut told = Vec::new();
        while told.len() < TOLD_MAX
            && let Some(address) = self.changed.pop_first()
        {
            self.mark_told(address);
            told.push(address);
        }
        if !told.is_empty() {
            self.told_at = now;
        }
        (told, gone)
    }

    /// Forgets what changed: a snapshot tells all.
    pub fn drop_changes(&mut self) {
        self.changed.clear();
        self.gone.clear();
    }

    /// A snapshot told of this address.
    pub fn mark_told(&mut self, address: IpAddr) {
        if let Some(entry) = self.by_address.get_mut(&address) {
            entry.announced = true;
            entry.told_until = entry.names.first().map_or(BootNanos(0), |latest| latest.expires_at);
        }
    }

    fn touch(&mut self, address: IpAddr) {
        let Some(entry) = self.by_address.get_mut(&address) else { return };
        self.by_use.remove(&(entry.used, address));
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert((entry.used, address));
    }

    fn remove(&mut self, address: IpAddr) {
        let Some(entry) = self.by_address.remove(&address) else { return };
        self.version += 1;
        self.name_bytes -= bytes_of(&entry.names);
        self.by_due.remove(&(entry.due, address));
        self.by_use.remove(&(entry.used, address));
        self.changed.remove(&address);
        if entry.announced {
            self.gone.insert(address);
        }
    }
}

fn bytes_of(names: &[Named]) -> usize {
    names.iter().map(|named| named.name.len()).sum()
}

fn first_to_expire(names: &[Named]) -> BootNanos {
    names.iter().map(|named| named.expires_at).min().unwrap_or_default()
}

#[cfg(test)]
mod tests;
