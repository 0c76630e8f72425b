//! What a publisher tells of: anything that knows what of it is new, and can tell all of it part by part.

use std::fmt;

use proto::probe::v1::Report;

use crate::clock::Now;
use crate::observation::BootNanos;
use crate::report::{Builder, SnapshotCursor};

/// The tables behind a stream.
pub trait Source: fmt::Debug {
    /// How far a snapshot has come; it begins with the default.
    type Cursor: Clone + fmt::Debug + Default + PartialEq + Eq;

    /// Whether what is new may wait in the source for room in the outbox without costing more than the things themselves do. Otherwise it goes to
    /// the outbox, and a snapshot makes up for what does not fit.
    const CHANGES_CAN_WAIT: bool;

    /// Does what time asks for.
    fn tick(&mut self, now: Now);
    /// Does what was due at [`Source::next_deadline`].
    fn settle(&mut self, now: Now);
    /// When [`Source::settle`] has work.
    fn next_deadline(&self) -> Option<BootNanos>;
    /// Whether there is something to tell for which people wait.
    fn has_events(&self) -> bool;
    /// Whether there is anything to tell.
    fn has_changes(&self) -> bool;
    /// Whether a snapshot is cheaper than a delta.
    fn is_overgrown(&self) -> bool;
    /// Takes what changed, or some of it, as deltas of at most `max_bytes` each. Their numbers are not set.
    fn take_delta(&mut self, now: Now, max_bytes: usize) -> Vec<Report>;
    /// Forgets what changed: a snapshot will tell all of it.
    fn drop_changes(&mut self);
    /// The next part of a snapshot of at most `max_bytes`; the last one is marked as the end. `None` after the end.
    fn next_part(&mut self, cursor: &mut Self::Cursor, now: Now, max_bytes: usize) -> Option<Report>;
    /// Deltas were given up.
    fn count_merged(&mut self, reports: u64);
}

impl Source for Builder {
    type Cursor = SnapshotCursor;

    const CHANGES_CAN_WAIT: bool = false;

    fn tick(&mut self, now: Now) {
        Builder::tick(self, now);
    }
    fn settle(&mut self, now: Now) {
        Builder::settle(self, now);
    }
    fn next_deadline(&self) -> Option<BootNanos> {
        Builder::next_deadline(self)
    }
    fn has_events(&self) -> bool {
        Builder::has_events(self)
    }
    fn has_changes(&self) -> bool {
        Builder::has_changes(self)
    }
    fn is_overgrown(&self) -> bool {
        Builder::is_overgrown(self)
    }
    fn take_delta(&mut self, now: Now, max_bytes: usize) -> Vec<Report> {
        Builder::take_delta(self, now, max_bytes)
    }
    fn drop_changes(&mut self) {
        Builder::drop_changes(self);
    }
    fn next_part(&mut self, cursor: &mut SnapshotCursor, now: Now, max_bytes: usize) -> Option<Report> {
        Builder::next_part(self, cursor, now, max_bytes)
    }
    fn count_merged(&mut self, reports: u64) {
        Builder::count_merged(self, reports);
    }
}
