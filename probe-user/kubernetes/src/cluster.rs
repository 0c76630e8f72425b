//! What is known of the cluster, and how it came to be known: the index, and the state of every list and watch. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::index::{Index, Limits};
use crate::kind::Kind;
use crate::objects::{Facts, Uid};
use crate::status::{KindState, KindStatus, StatusReport};
use crate::watch::{Cause, Failure, Scope, Step};

/// A list that failed so often in a row is one that the server cannot give.
const FAILURES_MIN: u32 = 2;

/// The namespace that every cluster has, and whose uid is therefore taken for the cluster's own.
const OF_THE_SYSTEM: &str = "kube-system";

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its objects.
    pub index: Index,
    scopes: BTreeMap<Scope, ScopeState>,
    kinds: BTreeMap<Kind, KindStatus>,
    namespaces: Vec<Arc<str>>,
    uid: Option<Uid>,
    synced: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct ScopeState {
    state: KindState,
    synced: bool,
    /// In a row, without a list that was complete.
    failures: u32,
    /// It is not waited for any more.
    given_up: bool,
}

/// What is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// A kind cannot be read, or no longer. Said when it begins, not at every try.
    Unreadable(Scope, String),
    /// It can be read again.
    Readable(Scope),
}

impl Cluster {
    /// Nothing is known yet. `namespaces`: the only ones that are looked at; none for all.
    pub fn new(limits: Limits, namespaces: &[Arc<str>]) -> Self {
        Self {
            index: Index::new(limits),
            scopes: Scope::all(namespaces).into_iter().map(|scope| (scope, ScopeState::default())).collect(),
            kinds: Kind::ALL.into_iter().map(|kind| (kind, KindStatus::default())).collect(),
            namespaces: namespaces.to_vec(),
            uid: None,
            synced: false,
        }
    }

    /// Everything there is to follow.
    pub fn scopes(&self) -> Vec<Scope> {
        self.scopes.keys().cloned().collect()
    }

    /// Takes in what happened.
    pub fn take(&mut self, scope: &Scope, step: Step) -> Option<Remark> {
        match step {
            Step::Applied(facts) => {
                self.apply(*facts);
                None
            }
            Step::Deleted(uid) => {
                self.index.delete(scope.kind, &uid);
                None
            }
            Step::ListBegun => {
                self.index.begin_list(scope.kind, scope.namespace.as_deref());
                None
            }
            Step::Listed => {
                self.index.end_list(scope.kind, scope.namespace.as_deref());
                let was_synced = self.scopes.get(scope).is_some_and(|state| state.synced);
                self.kinds.entry(scope.kind).or_default().restarts += u64::from(was_synced);
                self.set(scope, |state| (state.synced, state.failures) = (true, 0));
                None
            }
            Step::Watched => {
                let before = self.set(scope, |state| state.state = KindState::Watching);
                let unread = matches!(before, KindState::Retrying | KindState::Forbidden | KindState::Absent);
                unread.then(|| Remark::Readable(scope.clone()))
            }
            Step::Failed(failure) => self.failed(scope, failure),
        }
    }

    /// Enough was waited: the kinds whose lists fail again and again are not waited for any more, as long as the server gives others. One that gives
    /// none is down, and says nothing of the cluster. Returns those that are given up now; when they can be listed after all, they come.
    pub fn give_up_failing(&mut self) -> Vec<Scope> {
        if !self.scopes.values().any(|it| it.state == KindState::Watching) {
            return Vec::new();
        }
        let fails = |it: &ScopeState| !it.synced && !it.given_up && it.state == KindState::Retrying && it.failures >= FAILURES_MIN;
        let failing: Vec<Scope> = self.scopes.iter().filter(|(_, it)| fails(it)).map(|(scope, _)| scope.clone()).collect();
        for scope in &failing {
            self.set(scope, |it| it.given_up = true);
        }
        failing
    }

    /// Whether every kind was listed completely at least once, but for those that cannot be listed. Until then, what is missing is not gone.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The uid of the cluster: of its system's namespace, when that may be seen.
    pub fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    /// What the collector says of itself.
    pub fn status(&self) -> StatusReport {
        let kinds = self.kinds.iter().map(|(&kind, status)| (kind, self.counted(kind, status)));
        StatusReport { kinds: kinds.collect(), synced: self.synced, pending: self.index.pending() }
    }

    fn counted(&self, kind: Kind, status: &KindStatus) -> KindStatus {
        KindStatus { objects: self.index.len(kind), refused: self.index.refused(kind), cut: self.index.cut(kind), ..status.clone() }
    }

    fn apply(&mut self, facts: Facts) {
        if facts.kind == Kind::Namespace {
            if &*facts.name == OF_THE_SYSTEM {
                self.uid = Some(facts.uid.clone());
            }
            // They can only be listed all at once.
            if !self.namespaces.is_empty() && !self.namespaces.iter().any(|name| **name == *facts.name) {
                return;
            }
        }
        self.index.apply(facts);
    }

    fn failed(&mut self, scope: &Scope, failure: Failure) -> Option<Remark> {
        let state = match failure.cause {
            Cause::Forbidden => KindState::Forbidden,
            Cause::Absent => KindState::Absent,
            // Normal after a while without events.
            Cause::Expired => KindState::Listing,
            Cause::Unreadable | Cause::Unauthorized | Cause::Other => KindState::Retrying,
        };
        let before = self.set(scope, |it| (it.state, it.failures) = (state, it.failures.saturating_add(1)));
        let status = self.kinds.entry(scope.kind).or_default();
        status.errors += 1;
        status.last_error = Some(failure.message.clone());
        (state != before && state != KindState::Listing).then(|| Remark::Unreadable(scope.clone(), failure.message))
    }

    /// Changes the state of a scope, and all that follows from it. Returns the state of before.
    fn set(&mut self, scope: &Scope, change: impl FnOnce(&mut ScopeState)) -> KindState {
        let Some(state) = self.scopes.get_mut(scope) else { return KindState::default() };
        let before = state.state;
        change(state);
        let of_kind = || self.scopes.iter().filter(|(it, _)| it.kind == scope.kind).map(|(_, state)| state);
        let status = self.kinds.entry(scope.kind).or_default();
        status.state = of_kind().map(|it| it.state).max().unwrap_or_default();
        status.synced = of_kind().all(|it| it.synced);
        let settled = |it: &ScopeState| it.synced || it.given_up || matches!(it.state, KindState::Forbidden | KindState::Absent);
        // Once and for all: a server that goes away takes back nothing.
        self.synced = self.synced || self.scopes.values().all(settled);
        before
    }
}
