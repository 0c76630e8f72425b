//! A cluster as the publisher sees it. What is new is a set of ids in the index, so it may wait there for as long as the control plane likes.

use proto::probe::v1::{self, Report, report::Kind as ReportKind};

use probe_kubernetes::objects::Uid;
use probe_kubernetes::watch::{Scope, Step};
use probe_kubernetes::{Cluster, Kind, Remark};

use crate::clock::Now;
use crate::kubernetes::unread;
use crate::observation::BootNanos;
use crate::publisher::Source;
use crate::report::pack::Packer;

/// Objects and removals in one delta, at most; the rest follows with the next.
const DELTA_OBJECTS: usize = 500;

/// Bytes in one report, at most. The smallest thing that the receiver counts as a record takes three bytes, and it takes 131,072 of them: objects of
/// nothing but labels are not to be more.
const REPORT_BYTES: usize = 384 * 1024;

/// What of a cluster was told, and what not.
#[derive(Debug)]
pub struct ClusterSource {
    cluster: Cluster,
    name: String,
    capture: v1::Capture,
    capture_changed: bool,
    losses: v1::Losses,
    losses_changed: bool,
    reports_merged: u64,
}

/// How far a snapshot has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    begun: bool,
    ended: bool,
    last: Option<(Kind, Uid)>,
}

impl ClusterSource {
    /// Nothing of `cluster` was told yet.
    pub fn new(cluster: Cluster, name: &str) -> Self {
        let mut this = ClusterSource {
            cluster,
            name: name.to_owned(),
            capture: v1::Capture::default(),
            capture_changed: false,
            losses: v1::Losses::default(),
            losses_changed: false,
            reports_merged: 0,
        };
        this.look_at_myself();
        this
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// How it is seen.
    pub fn capture(&self) -> &v1::Capture {
        &self.capture
    }

    /// Takes in what happened.
    pub fn take(&mut self, scope: &Scope, step: Step) -> Option<Remark> {
        let about_objects = matches!(step, Step::Applied(_) | Step::Deleted(_));
        let remark = self.cluster.take(scope, step);
        if !about_objects {
            self.look_at_myself();
        }
        remark
    }

    /// Waits no longer for kinds whose lists fail again and again: they are blind spots, and no reason to tell nothing of the others.
    pub fn give_up_failing(&mut self) -> Vec<Scope> {
        self.cluster.give_up_failing()
    }

    fn look_at_myself(&mut self) {
        let unread = unread(&self.cluster);
        let capture = v1::Capture {
            rung: 1,
            description: format!("the Kubernetes API of {}, by list and watch", self.name),
            blind_spots: unread.iter().map(|(kind, error)| format!("{kind} cannot be read: {error}")).collect(),
            hooks: Kind::ALL
                .into_iter()
                .map(|kind| {
                    let error = unread.get(kind.plural());
                    v1::capture::Hook {
                        name: kind.plural().to_owned(),
                        attached: error.is_none(),
                        error: error.cloned().unwrap_or_default(),
                    }
                })
                .collect(),
            ..v1::Capture::default()
        };
        self.capture_changed |= capture != self.capture;
        self.capture = capture;
        let status = self.cluster.status();
        let sum = |of: fn(&probe_kubernetes::KindStatus) -> u64| status.kinds.values().map(of).sum::<u64>();
        let cut = sum(|kind| kind.cut);
        let losses = v1::Losses {
            table_full: sum(|kind| kind.refused),
            reports_merged: self.reports_merged,
            other: (cut > 0).then(|| ("kubernetes_cut".to_owned(), cut)).into_iter().collect(),
            ..v1::Losses::default()
        };
        self.losses_changed |= losses != self.losses;
        self.losses = losses;
    }
}

impl Source for ClusterSource {
    type Cursor = Cursor;

    const CHANGES_CAN_WAIT: bool = true;

    /// Refusals and cuts come with objects, which are too many to count them each time.
    fn tick(&mut self, _: Now) {
        self.look_at_myself();
    }

    fn settle(&mut self, _: Now) {}

    fn next_deadline(&self) -> Option<BootNanos> {
        None
    }

    fn has_events(&self) -> bool {
        self.cluster.index.has_changes() || self.capture_changed
    }

    fn has_changes(&self) -> bool {
        self.has_events() || self.losses_changed
    }

    fn is_overgrown(&self) -> bool {
        false
    }

    fn take_delta(&mut self, now: Now, max_bytes: usize) -> Vec<Report> {
        let mut packer = Packer::new(ReportKind::Delta, now.unix_nanos, max_bytes.min(REPORT_BYTES));
        if std::mem::take(&mut self.capture_changed) {
            packer.capture(self.capture.clone());
        }
        if std::mem::take(&mut self.losses_changed) {
            packer.losses(self.losses.clone());
        }
        let changes = self.cluster.index.take_changes(DELTA_OBJECTS);
        changes.changed.into_iter().for_each(|it| packer.kubernetes(it));
        changes.gone.into_iter().for_each(|it| packer.kubernetes_gone(it));
        packer.finish()
    }

    fn drop_changes(&mut self) {
        self.cluster.index.forget_told();
        self.capture_changed = false;
        self.losses_changed = false;
    }

    fn next_part(&mut self, cursor: &mut Cursor, now: Now, max_bytes: usize) -> Option<Report> {
        if cursor.ended {
            return None;
        }
        let mut packer = Packer::new(ReportKind::SnapshotPart, now.unix_nanos, max_bytes.min(REPORT_BYTES));
        if !std::mem::replace(&mut cursor.begun, true) {
            packer.capture(self.capture.clone());
            packer.losses(self.losses.clone());
        }
        loop {
            let Some((id, object)) = self.cluster.index.after(cursor.last.as_ref()) else {
                cursor.ended = true;
                break;
            };
            packer.kubernetes(object);
            // What no longer fitted began the next report: the cursor stands before it.
            if packer.is_full() {
                break;
            }
            self.cluster.index.told(&id);
            cursor.last = Some(id);
        }
        let empty = || Report { observed_at_unix_nanos: now.unix_nanos, ..Report::default() };
        let mut part = packer.finish().into_iter().next().unwrap_or_else(empty);
        part.set_kind(if cursor.ended { ReportKind::SnapshotEnd } else { ReportKind::SnapshotPart });
        Some(part)
    }

    fn count_merged(&mut self, reports: u64) {
        self.reports_merged = self.reports_merged.saturating_add(reports);
        self.look_at_myself();
    }
}

#[cfg(test)]
mod tests;
