//! From the words of this crate to those of the wire.

use std::collections::HashMap;

use proto::zksync::v1 as wire;
use zksync::{Conflict, Counters, PerSide, Resolution, Seen, Status, Step, Tombstone, Value};

use crate::api::views::{DifferencePage, LinkView, MigrationPage, SideValue, ThreeWay};
use crate::link::LagSummary;
use crate::operations::{acl_words, hex};
use crate::prepare::{Preparation, SideFound};
use crate::verify::VerificationReport;
use crate::witness::Holder;

pub(super) fn link(view: LinkView) -> wire::Link {
    wire::Link {
        id: view.definition.id.clone(),
        // A definition is made of texts and numbers: it can always be written down.
        definition: serde_json::to_string(&view.definition).unwrap_or_default(),
        role: view.role.to_owned(),
        detail: view.detail,
        status: view.status.map(|it| status(it, view.lag.unwrap_or_default())),
    }
}

fn status(it: Status, lag: PerSide<LagSummary>) -> wire::LinkStatus {
    wire::LinkStatus {
        state: it.state.as_str().to_owned(),
        reason: it.reason.unwrap_or_default(),
        mode: it.mode.to_owned(),
        pairs: it.pairs as u64,
        backlog: it.backlog as u64,
        oldest_ms: it.oldest_ms,
        connected_a: it.connected.a,
        connected_b: it.connected.b,
        zxid_a: it.zxid.a,
        zxid_b: it.zxid.b,
        open_conflicts: it.open_conflicts as u64,
        held_deletes: it.held_deletes as u64,
        tombstones: it.tombstones as u64,
        tombstones_dropped: it.counters.tombstones_dropped,
        blocked: it.blocked.into_iter().map(|(path, reason)| wire::Blocked { path, reason }).collect(),
        blocked_total: it.blocked_total as u64,
        excluded: it.excluded.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
        created: Some(per_side(it.counters.created)),
        updated: Some(per_side(it.counters.updated)),
        deleted: Some(per_side(it.counters.deleted)),
        acl_changed: Some(per_side(it.counters.acl_changed)),
        lag_a_to_b: Some(summary(lag.b)),
        lag_b_to_a: Some(summary(lag.a)),
        resyncs: Some(per_side(it.counters.resyncs)),
        queued: Some(wire::PerSide { a: it.queued.a as u64, b: it.queued.b as u64 }),
        scanning_a: it.scanning.a,
        scanning_b: it.scanning.b,
        epoch_a: it.epoch.a,
        epoch_b: it.epoch.b,
        conflicts: conflicts_by_kind(&it.counters),
        conflicts_ambiguous: it.counters.conflicts_ambiguous,
        conflicts_converged: it.counters.conflicts_converged,
        conflicts_unnoted: it.counters.conflicts_unnoted,
    }
}

/// By kind and winner, whatever decided them.
fn conflicts_by_kind(counters: &Counters) -> HashMap<String, u64> {
    let mut sums = HashMap::new();
    for ((kind, _, winner), count) in &counters.conflicts {
        *sums.entry(format!("{}/{}", kind.as_str(), winner.as_str())).or_default() += count;
    }
    sums
}

fn per_side(it: PerSide<u64>) -> wire::PerSide {
    wire::PerSide { a: it.a, b: it.b }
}

fn summary(lag: LagSummary) -> wire::Lag {
    wire::Lag { changes: lag.changes as u64, p50_ms: lag.p50_ms, p99_ms: lag.p99_ms, max_ms: lag.max_ms, last_ms: lag.last_ms }
}

pub(super) fn preparation(found: Preparation) -> wire::Preparation {
    wire::Preparation {
        blockers: found.blockers,
        warnings: found.warnings,
        nodes_a: found.a.nodes,
        nodes_b: found.b.nodes,
        bytes_a: found.a.bytes,
        bytes_b: found.b.bytes,
        differing: found.differing,
        copy_seconds_estimate: found.copy_seconds_estimate,
        a: Some(side_found(found.a)),
        b: Some(side_found(found.b)),
        differing_on_both: found.differing_on_both,
        only_b: found.only_b,
    }
}

fn side_found(it: SideFound) -> wire::SideFound {
    wire::SideFound {
        nodes: it.nodes,
        bytes: it.bytes,
        ephemerals: it.ephemerals,
        unreadable: it.unreadable,
        largest_path: it.largest_path,
        largest_bytes: it.largest_bytes,
        recursive_watches: it.recursive_watches,
        versions: it.versions,
        quotas: it.quotas,
        session_timeout_ms: it.session_timeout_ms,
        zxid: it.zxid,
    }
}

pub(super) fn verification(report: VerificationReport) -> wire::Verification {
    let found = report.found;
    wire::Verification {
        equal: found.equal,
        nodes_a: found.nodes_a,
        nodes_b: found.nodes_b,
        root_a: found.root_a,
        root_b: found.root_b,
        differing: found.differing,
        took_ms: report.took_ms,
        started_ms: report.started_ms,
        excluded: report.excluded.into_iter().collect(),
        link: report.link,
        strict: report.strict,
        bytes_a: found.bytes_a,
        bytes_b: found.bytes_b,
        subtrees: found.subtrees,
        acls_read: report.acls_read,
        counters: report.counters.into_iter().map(|it| wire::SequenceCounter { path: it.path, a: it.a, b: it.b }).collect(),
        counters_total: report.counters_total,
    }
}

pub(super) fn differences(page: DifferencePage) -> wire::ListDifferencesResponse {
    let difference = |it: zksync::Difference| wire::Difference { path: it.path, kind: it.kind.as_str().to_owned() };
    wire::ListDifferencesResponse {
        differences: page.differences.into_iter().map(difference).collect(),
        total: page.total,
        started_ms: page.started_ms,
    }
}

pub(super) fn conflict(it: &Conflict) -> wire::Conflict {
    wire::Conflict {
        number: it.id,
        path: it.key.to_string(),
        kind: it.kind.as_str().to_owned(),
        first_seen_ms: it.first_seen_ms,
        last_change_ms: it.last_change_ms,
        base: it.base.map(|base| wire::SeenPair { a: Some(seen(base.a)), b: Some(seen(base.b)) }),
        sides: Some(wire::SeenPair { a: it.sides.a.map(seen), b: it.sides.b.map(seen) }),
        deleted: it.deleted.map(|deleted| tombstone(it.key.to_string(), deleted)),
    }
}

fn seen(it: Seen) -> wire::Seen {
    wire::Seen { czxid: it.czxid, mzxid: it.mzxid, version: it.version, aversion: it.aversion }
}

pub(super) fn three_way(it: ThreeWay) -> wire::ThreeWay {
    wire::ThreeWay {
        conflict: Some(conflict(&it.conflict)),
        base_hash: it.base_hash.unwrap_or_default(),
        base_data: it.base_data,
        a: it.a.map(side_value),
        b: it.b.map(side_value),
    }
}

fn side_value(it: SideValue) -> wire::SideValue {
    wire::SideValue {
        mzxid: it.mzxid,
        version: it.version,
        mtime_ms: it.mtime,
        size: it.size as u64,
        text: it.text,
        hash: it.hash,
        acl: it.acl,
        data: it.data,
    }
}

pub(super) fn resolution(number: u64, it: Resolution) -> wire::Resolution {
    wire::Resolution {
        number,
        path: it.key.to_string(),
        kind: it.kind.as_str().to_owned(),
        winner: it.winner.as_str().to_owned(),
        strategy: it.strategy.as_str().to_owned(),
        ambiguous: it.ambiguous,
        at_ms: it.at_ms,
        data_a: small(it.sides.a.as_ref()),
        data_b: small(it.sides.b.as_ref()),
        a: it.sides.a.map(recorded),
        b: it.sides.b.map(recorded),
        deleted: it.deleted.map(|deleted| tombstone(it.key.to_string(), deleted)),
    }
}

/// Data that are told twice, for clients of before: larger ones would be more than a message may have.
fn small(value: Option<&Value>) -> Option<Vec<u8>> {
    const LARGEST: usize = 64 << 10;
    value.filter(|value| value.data.len() <= LARGEST).map(|value| value.data.to_vec())
}

pub(super) fn tombstone(path: String, it: Tombstone) -> wire::Tombstone {
    wire::Tombstone {
        path,
        by: it.by.map(|side| side.as_str().to_owned()).unwrap_or_default(),
        from_ms: it.from_ms,
        to_ms: it.to_ms,
        hash: it.data.map(|hash| hex(&hash)).unwrap_or_default(),
        size: it.size,
    }
}

fn recorded(it: Value) -> wire::RecordedValue {
    wire::RecordedValue {
        seen: Some(seen(it.seen)),
        mtime_ms: it.mtime,
        size: it.size,
        hash: it.hash.map(|hash| hex(&hash)).unwrap_or_default(),
        data: it.data.to_vec(),
        cut: it.cut,
        unread: it.unread,
        acl_known: it.acl.is_some(),
        acl: it.acl.iter().flatten().map(acl_words).collect(),
    }
}

pub(super) fn migration(page: MigrationPage) -> wire::Migration {
    let it = page.migration;
    wire::Migration {
        link: it.plan.link,
        phase: it.phase.as_str().to_owned(),
        since_ms: it.since_ms,
        paused: it.paused,
        deadline_ms: it.deadline_ms,
        waiting_for: it.waiting_for,
        history: it
            .history
            .into_iter()
            .map(|note| wire::Note { at_ms: note.at_ms, phase: note.phase.as_str().to_owned(), text: note.text })
            .collect(),
        holders: page.holders.into_iter().map(holder).collect(),
        holders_unknown: page.holders_unknown.unwrap_or_default(),
        pairs: page.progress.pairs as u64,
        backlog: page.progress.backlog as u64,
        percent: page.progress.percent,
        seconds_left: page.progress.seconds_left,
        waits_for_operator: page.progress.waits_for_operator,
        owed: it.owed.iter().map(step_word).collect(),
        preparation: page.preparation.map(preparation),
        verification: page.verification.map(verification),
    }
}

/// As JSON has it.
fn step_word(step: &Step) -> String {
    match serde_json::to_value(step) {
        Ok(serde_json::Value::String(word)) => word,
        _ => format!("{step:?}"),
    }
}

pub(super) fn holder(it: Holder) -> wire::Holder {
    wire::Holder {
        host: it.host,
        pid: it.pid,
        process: it.process,
        container: it.container.unwrap_or_default(),
        server: it.server,
        connections: it.connections,
    }
}
