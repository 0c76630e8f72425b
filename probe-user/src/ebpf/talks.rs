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
    bound: Bound,
    limit: u64,
}

impl Talks {
    /// Takes the map, and allows as many entries as there may be.
    pub(super) fn take(object: &mut Ebpf, capacity: usize) -> Result<Self, CaptureError> {
        let map = object.take_map("TALKS").ok_or_else(|| missing("TALKS"))?;
        let map = Array::try_from(map).map_err(|error| CaptureError::Map("TALKS", Box::new(error)))?;
        let mut talks = Talks { map, bound: Bound::new(share(capacity)), limit: 0 };
        // The programs of an earlier probe keep its bound until the table is read.
        if talks.map.get(&talks::MADE, 0).is_ok_and(|made| made == 0) {
            talks.allow(0);
        }
        Ok(talks)
    }

    /// The table is about to be read.
    pub(super) fn reading_begins(&mut self) {
        self.bound.made_by_now = self.map.get(&talks::MADE, 0).ok();
    }

    /// It was read to its end, and everything that was found in it is known.
    pub(super) fn was_read(&mut self) {
        self.bound.was_read();
    }

    /// So many entries are known of those that were in the table when it was read, without those that have left since.
    pub(super) fn allow(&mut self, there: usize) {
        let limit = self.bound.limit(there);
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
#[derive(Debug)]
struct Bound {
    share: u64,
    /// What was made before the table was last read to its end: all of it was found, or had left.
    made: u64,
    /// What was made before the reading that goes on now. It may come to no end, and then some of it is not known.
    made_by_now: Option<u64>,
}

impl Bound {
    fn new(share: usize) -> Self {
        Bound { share: share.max(1) as u64, made: 0, made_by_now: None }
    }

    fn was_read(&mut self) {
        self.made = self.made_by_now.take().unwrap_or(self.made);
    }

    fn limit(&self, there: usize) -> u64 {
        self.made.wrapping_add(self.share).wrapping_sub(there as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_left_may_come_again_and_what_came_meanwhile_counts() {
        let bound = |made| Bound { made, ..Bound::new(8) };
        // Ten were made, of which four are there.
        assert_eq!(bound(10).limit(4), 14);
        // More are there than may be: nothing may be made.
        assert_eq!(bound(10).limit(9), 9);
        assert_eq!(bound(u64::MAX).limit(4), 3);
        assert_eq!(share(8_192), 4_096);
    }

    #[test]
    fn a_reading_that_comes_to_no_end_gives_no_room() {
        let mut bound = Bound { made_by_now: Some(8), ..Bound::new(8) };
        // Two of the eight were found before there was no room for more.
        assert_eq!(bound.limit(2), 6);
        bound.made_by_now = Some(9);
        bound.was_read();
        assert_eq!(bound.limit(8), 9);
        bound.was_read();
        assert_eq!(bound.limit(8), 9);
    }
}
