//! The bound of how many entries of the edge table UDP has. Whoever sends from many addresses, which may be forged, makes as many entries; half of
//! the table is for connections, whatever comes.

use aya::Ebpf;
use aya::maps::{Array, MapData};
use probe_common::talks;

use super::CaptureError;
use super::running::missing;

/// Entries that UDP may have in a table of this size.
pub(super) fn share(capacity: usize) -> usize {
    capacity / 2
}

/// The programs' count of entries that were made, and the probe's word how many may be.
pub(super) struct Talks {
    map: Array<MapData, u64>,
    share: u64,
    /// What was made when the table was read last.
    made: u64,
    limit: u64,
}

impl Talks {
    /// Takes the map, and allows as many entries as there may be.
    pub(super) fn take(object: &mut Ebpf, capacity: usize) -> Result<Self, CaptureError> {
        let map = object.take_map("TALKS").ok_or_else(|| missing("TALKS"))?;
        let map = Array::try_from(map).map_err(|error| CaptureError::Map("TALKS", Box::new(error)))?;
        let mut talks = Talks { map, share: share(capacity).max(1) as u64, made: 0, limit: 0 };
        talks.allow(0);
        Ok(talks)
    }

    /// The table is about to be read: every entry that has been made by now will be found in it.
    pub(super) fn note_made(&mut self) {
        if let Ok(made) = self.map.get(&talks::MADE, 0) {
            self.made = made;
        }
    }

    /// So many entries were in the table when it was read, without those that have left since.
    pub(super) fn allow(&mut self, there: usize) {
        let limit = limit(self.made, self.share, there as u64);
        if limit == self.limit {
            return;
        }
        match self.map.set(talks::LIMIT, limit, 0) {
            Ok(()) => self.limit = limit,
            Err(error) => tracing::warn!(%error, "programs cannot be told how many entries UDP may have"),
        }
    }
}

/// Up to where entries may be made: counts that only grow, and wrap.
fn limit(made: u64, share: u64, there: u64) -> u64 {
    made.wrapping_add(share).wrapping_sub(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_left_may_come_again_and_what_came_meanwhile_counts() {
        // Ten were made, of which four are there.
        assert_eq!(limit(10, 8, 4), 14);
        // More are there than may be: nothing may be made.
        assert_eq!(limit(10, 8, 9), 9);
        assert_eq!(limit(u64::MAX, 8, 4), 3);
        assert_eq!(share(8_192), 4_096);
    }
}
