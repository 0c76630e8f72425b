//! What the collector says of itself, kind by kind: one forbidden kind must not look like a cluster without such objects.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::kind::Kind;

/// How the watch of one kind stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KindState {
    /// Not listed as yet, or being listed again.
    #[default]
    Listing,
    /// Listed, and followed.
    Watching,
    /// The last attempt has failed; another one follows soon. What is known of the kind stays.
    Retrying,
    /// The collector may not read this kind. It asks again from time to time.
    Forbidden,
    /// The server does not have this kind. It is asked again from time to time.
    Absent,
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
    /// Batches that the receiver has got.
    pub batches: u64,
}

/// A view of the collector's status, always current. It can be cloned freely.
#[derive(Clone, Debug)]
pub struct Status(watch::Receiver<StatusReport>);

impl Status {
    pub(crate) fn new() -> (watch::Sender<StatusReport>, Self) {
        let kinds = Kind::ALL.into_iter().map(|kind| (kind, KindStatus::default())).collect();
        let (sender, receiver) = watch::channel(StatusReport { kinds, ..StatusReport::default() });
        (sender, Self(receiver))
    }

    /// As it is now.
    pub fn report(&self) -> StatusReport {
        self.0.borrow().clone()
    }

    /// Waits until it is as asked. `None` when the collector has ended before.
    pub async fn wait_for(&mut self, asked: impl FnMut(&StatusReport) -> bool) -> Option<StatusReport> {
        self.0.wait_for(asked).await.ok().map(|report| report.clone())
    }
}
