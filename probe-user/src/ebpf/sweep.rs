//! The sweep: runs the kernel's iterator over all sockets with storage, which adds the bytes of open connections to the edge table, and notes
//! which of the connections that were open before the probe have ended.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use aya::maps::MapData;
use probe_common::{EdgeKey, FoundOpen};

use super::load::{self, Loaded};
use super::{decode, sys};
use crate::observation::{BootNanos, Counted, Observation};

/// Connections that are older than the probe and still open; more are counted for bytes, and their end is not noticed.
const FOUND_OPEN_MAX: usize = 65_536;

/// The iterator, bound to the storage of sockets.
pub(super) struct Sweep {
    link: OwnedFd,
    open: HashMap<u64, EdgeKey>,
}

impl Sweep {
    /// `None` when the kernel did not take the program.
    pub(super) fn bind(loaded: &Loaded, owners: &Arc<MapData>) -> Option<Self> {
        match load::bind_over_sockets(&loaded.sockets, load::SWEEP, owners.fd().as_fd())? {
            Ok(link) => Some(Sweep { link, open: HashMap::new() }),
            Err(error) => {
                tracing::warn!(%error, "the sweep over open connections cannot be bound");
                None
            }
        }
    }

    /// Walks over all sockets. Returns the ends of connections that were open before the probe.
    pub(super) fn run(&mut self, now: BootNanos) -> io::Result<Vec<Observation>> {
        // Reading to the end is what makes the kernel walk; nothing is written for connections that the programs saw begin.
        let mut found = HashMap::new();
        let mut new = 0;
        records(sys::open_iterator(self.link.as_fd())?, |it: FoundOpen| {
            // Told once for each descriptor that leads there. Who was there before stays, however many come: else it would be taken for ended.
            let is_known = found.contains_key(&it.socket) || self.open.contains_key(&it.socket);
            if is_known || self.open.len() + new < FOUND_OPEN_MAX {
                new += usize::from(!is_known);
                found.insert(it.socket, it.key);
            }
        })?;
        let ended = self
            .open
            .iter()
            .filter(|(socket, _)| !found.contains_key(socket))
            .map(|(_, key)| Observation::FlowCounted {
                last_active: now,
                end: decode::flow_end(key),
                delta: Counted { closed: 1, ..Counted::default() },
            })
            .collect();
        self.open = found;
        Ok(ended)
    }
}

/// Reads all records of one size, some at a time: there may be many, of which few are kept.
fn records<T: aya::Pod>(mut from: impl io::Read, mut each: impl FnMut(T)) -> io::Result<()> {
    const AT_ONCE: usize = 1_024;

    let mut buffer = vec![0; size_of::<T>() * AT_ONCE];
    let mut filled = 0;
    loop {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let whole = filled - filled % size_of::<T>();
        buffer[..whole].chunks_exact(size_of::<T>()).filter_map(decode::read::<T>).for_each(&mut each);
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl io::Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(into.len()).min(self.0.len());
            into[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    #[test]
    fn records_come_whole_however_they_are_read() {
        let numbers: Vec<u64> = (0..5_000).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|it| it.to_ne_bytes()).collect();
        for at_once in [1, 7, 8, 4_096, 100_000] {
            let mut seen = Vec::new();
            records(Slow(&bytes, at_once), |it: u64| seen.push(it)).unwrap();
            assert_eq!(seen, numbers);
        }
    }
}
