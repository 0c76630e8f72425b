//! What the collector says of itself, kind by kind: one forbidden kind must not look like a cluster without such objects.

use std::collections::BTreeMap;

use crate::kind::Kind;

/// How the watch of one kind stands; of several namespaces, the worst. The order is from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum KindState {
    /// Listed, and followed.
    Watching,
    /// Not listed as yet, or being listed again.
    #[default]
    Listing,
    /// The last attempt has failed; another one follows soon. What is known of the kind stays.
    Retrying,
    /// The server does not have this kind. It is asked again from time to time.
    Absent,
    /// The collector may not read this kind. It asks again from time to time.
    Forbidden,
}

/// One kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindStatus {
    /// How its watch stands.
    pub state: KindState,
    /// It was listed completely at least once.
    pub synced: bool,
    /// Objects known.
    pub objects: usize,
    /// How often an object was refused because the kind was full.
    pub refused: u64,
    /// How often an object had more labels, terms, ports, … than are kept.
    pub cut: u64,
    /// Lists begun after the first one.
    pub restarts: u64,
    /// Failures of any sort.
    pub errors: u64,
    /// The last of them.
    pub last_error: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusReport {
    /// Every kind.
    pub kinds: BTreeMap<Kind, KindStatus>,
    /// Every kind that can be read was listed completely at least once.
    pub synced: bool,
    /// Changes and removals that the receiver was not told yet.
    pub pending: usize,
}
