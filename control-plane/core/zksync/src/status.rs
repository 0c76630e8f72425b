use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::Strategy;
use crate::conflict::{ConflictKind, Winner};
use crate::node::PerSide;

/// How a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// A side was never reached yet.
    Starting,
    /// Both sides are read for the first time, or what they differ in is copied for the first time.
    Snapshot,
    /// Changes are carried as they happen.
    Live,
    /// A side is read again after its connection was lost.
    Resync,
    /// A side is not reached: nothing is carried, nothing is lost.
    Stalled,
    /// Deletes are held back, or a path cannot be copied.
    Degraded,
    /// An operator paused it.
    Paused,
    /// Another leader has taken over.
    Fenced,
    /// It stopped by itself; the reason stands beside it.
    Halted,
}

impl LinkState {
    /// All, in the order of the metric's values.
    pub const ALL: [LinkState; 9] = [
        LinkState::Starting,
        LinkState::Snapshot,
        LinkState::Live,
        LinkState::Resync,
        LinkState::Stalled,
        LinkState::Degraded,
        LinkState::Paused,
        LinkState::Fenced,
        LinkState::Halted,
    ];

    /// As it stands in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Starting => "starting",
            LinkState::Snapshot => "snapshot",
            LinkState::Live => "live",
            LinkState::Resync => "resync",
            LinkState::Stalled => "stalled",
            LinkState::Degraded => "degraded",
            LinkState::Paused => "paused",
            LinkState::Fenced => "fenced",
            LinkState::Halted => "halted",
        }
    }
}

/// What has happened on a link since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Znodes created, by the side written to.
    pub created: PerSide<u64>,
    /// Znodes whose data were changed, by the side written to.
    pub updated: PerSide<u64>,
    /// Znodes deleted, by the side written to.
    pub deleted: PerSide<u64>,
    /// Access control lists changed, by the side written to.
    pub acl_changed: PerSide<u64>,
    /// Transactions applied, by the side written to.
    pub transactions: PerSide<u64>,
    /// Events heard, by side.
    pub events: PerSide<u64>,
    /// Looks that found nothing new, such as at our own writes.
    pub echoes: u64,
    /// Conflicts by kind, rule and winner; a manual one counts when it is decided.
    #[serde(serialize_with = "conflict_counts")]
    pub conflicts: BTreeMap<(ConflictKind, Strategy, Winner), u64>,
    /// Conflicts whose times could not be told apart.
    pub conflicts_ambiguous: u64,
    /// Conflicts that ended because both sides came to the same.
    pub conflicts_converged: u64,
    /// Changes found on the side that nothing is taken from.
    pub drifts: u64,
    /// Transactions whose answer was lost, by the side written to.
    pub ambiguous: PerSide<u64>,
    /// Of them, those that turned out to have been applied.
    pub ambiguous_applied: PerSide<u64>,
    /// Transactions that were refused because somebody else had written, by the side written to.
    pub refused: PerSide<u64>,
    /// Times a side was read again as a whole after its connection was lost.
    pub resyncs: PerSide<u64>,
    /// Comparisons of everything that were finished.
    pub full_passes: PerSide<u64>,
    /// Differences found by such a comparison that no event had told of; 0 as long as the watches work.
    pub unannounced: u64,
    /// Deletes held back by the brake.
    pub deletes_braked: u64,
    /// Times too much was dirty, so that a side was read as a whole instead.
    pub dirty_overflows: u64,
    /// Paths that could not be noted as blocked because there were too many.
    pub blocked_unnoted: u64,
    /// Conflicts that found no room in the queue.
    pub conflicts_unnoted: u64,
    /// Pairs that are gone and were forgotten before their time because there were so many.
    pub tombstones_dropped: u64,
    /// Data that were not kept for whoever decides a conflict: they are too large, or came too fast.
    pub base_data_unkept: u64,
}

fn conflict_counts<S: serde::Serializer>(
    counts: &BTreeMap<(ConflictKind, Strategy, Winner), u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for ((kind, _, winner), count) in counts {
        *sums.entry(format!("{}/{}", kind.as_str(), winner.as_str())).or_default() += count;
    }
    serializer.collect_map(sums)
}

/// A link, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// How it stands.
    pub state: LinkState,
    /// Why, when it is halted; or what keeps a side from being opened.
    pub reason: Option<String>,
    /// Which sides are written to.
    pub mode: &'static str,
    /// Pairs that both sides have.
    pub pairs: usize,
    /// Pairs that are to be looked at, or whose write is on its way.
    pub backlog: usize,
    /// Operations that wait for a transaction to each side, or are in one.
    pub queued: PerSide<usize>,
    /// How long the oldest of them has waited, in milliseconds.
    pub oldest_ms: u64,
    /// Whether each side is connected.
    pub connected: PerSide<bool>,
    /// Whether each side is being read as a whole, with how many znodes were read so far.
    pub scanning: PerSide<Option<u64>>,
    /// Highest transaction seen on each side.
    pub zxid: PerSide<i64>,
    /// Fencing epoch on each side.
    pub epoch: PerSide<i32>,
    /// Conflicts that wait for an operator.
    pub open_conflicts: usize,
    /// Deletes that wait for approval.
    pub held_deletes: usize,
    /// Pairs that are gone and remembered.
    pub tombstones: usize,
    /// Paths that cannot be copied, with the reason; the first hundred.
    pub blocked: Vec<(String, String)>,
    /// How many there are.
    pub blocked_total: usize,
    /// Znodes that are not copied, by reason.
    pub excluded: BTreeMap<&'static str, u64>,
    /// Everything counted.
    pub counters: Counters,
}
