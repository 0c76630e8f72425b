//! The sweep: runs the kernel's iterator over all sockets with storage, which adds the bytes of open connections to the edge table, and notes
//! which of the connections that were open before the probe have ended.

use std::collections::HashMap;
use std::io::{self, Read as _};
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
        const RECORD: usize = size_of::<FoundOpen>();
        let mut file = sys::open_iterator(self.link.as_fd())?;
        let mut bytes = Vec::new();
        // Reading to the end is what makes the kernel walk; nothing is written for connections that the programs saw begin.
        file.by_ref().take((RECORD * FOUND_OPEN_MAX) as u64).read_to_end(&mut bytes)?;
        let found: HashMap<u64, EdgeKey> =
            bytes.chunks_exact(RECORD).filter_map(decode::read::<FoundOpen>).map(|found| (found.socket, found.key)).collect();
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
