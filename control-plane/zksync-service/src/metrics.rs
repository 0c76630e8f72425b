//! Numbers for Prometheus. Labels are links (at most as many as there may be), sides and small words; never paths.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use zksync::{Counters, LinkState, PerSide, Side, Status};

use crate::link::LagSummary;

/// Milliseconds; 50 is the objective, so it is an edge.
const LAG_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 5_000.0, 30_000.0];
const SIZE_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 512.0];
const SECONDS_BUCKETS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// All metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<All>);

#[derive(Debug)]
struct All {
    registry: Registry,
    lag: HistogramVec,
    lag_p99: GaugeVec,
    lag_last: GaugeVec,
    events: IntCounterVec,
    synced: IntCounterVec,
    conflicts: IntCounterVec,
    ambiguous_conflicts: IntCounterVec,
    reconnects: IntCounterVec,
    watches: IntGaugeVec,
    queue: IntGaugeVec,
    open_conflicts: IntGaugeVec,
    backlog: IntGaugeVec,
    pairs: IntGaugeVec,
    state: IntGaugeVec,
    counted: IntGaugeVec,
    excluded: IntGaugeVec,
    batch: HistogramVec,
    transaction: HistogramVec,
    verify_mismatch: IntGaugeVec,
    verify_nodes: IntGaugeVec,
    verify_seconds: GaugeVec,
    verify_last: GaugeVec,
    migration_phase: IntGaugeVec,
    /// What was counted of each link when it was last published: a link that is begun anew counts from nothing, and its metrics go on.
    counted_before: Mutex<BTreeMap<String, Counters>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let r = &registry;
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let made = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels);
            register(r, made.expect("names and labels are constants"))
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            register(r, IntGaugeVec::new(Opts::new(name, help), labels).expect("names and labels are constants"))
        };
        let float = |name: &str, help: &str, labels: &[&str]| {
            register(r, GaugeVec::new(Opts::new(name, help), labels).expect("names and labels are constants"))
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(r, IntCounterVec::new(Opts::new(name, help), labels).expect("names and labels are constants"))
        };
        let all = All {
            lag: histogram(
                "zk_sync_lag_ms",
                "From the event that told of a change until it was applied on the other side.",
                &["link", "direction"],
                LAG_BUCKETS,
            ),
            lag_p99: float("zk_sync_lag_p99_ms", "The same, 99 of 100 of the last minute.", &["link", "direction"]),
            lag_last: float("zk_sync_lag_last_ms", "The same, of the newest change.", &["link", "direction"]),
            events: counter("zk_sync_events_total", "Changed paths told by watches.", &["link", "side"]),
            synced: counter("zk_synced_nodes_total", "Znodes written.", &["link", "direction", "op"]),
            conflicts: counter("zk_conflict_count_total", "Conflicts decided.", &["link", "kind", "strategy", "winner"]),
            reconnects: counter("zk_sync_reconnects_total", "Connections that were lost and made again.", &["link", "side"]),
            watches: gauge("zk_sync_watches", "Watches that are set.", &["link", "side"]),
            queue: gauge("zk_sync_queue_ops", "Operations that wait for a transaction, or are in one.", &["link", "direction"]),
            ambiguous_conflicts: counter("zk_conflict_ambiguous_total", "Of them, those whose times could not be told apart.", &["link"]),
            open_conflicts: gauge("zk_conflict_open", "Conflicts that wait for an operator.", &["link"]),
            backlog: gauge("zk_sync_backlog_paths", "Paths to be looked at, or on their way.", &["link"]),
            pairs: gauge("zk_sync_pairs", "Znodes that both sides have.", &["link"]),
            state: gauge("zk_sync_state", "1 for the state that the link is in.", &["link", "state"]),
            counted: gauge("zk_sync_counted_total", "What else was counted since the link was started.", &["link", "what"]),
            excluded: gauge("zk_excluded_nodes", "Znodes that are not copied.", &["link", "reason"]),
            batch: histogram("zk_sync_batch_ops", "Operations of a transaction.", &["link", "direction"], SIZE_BUCKETS),
            transaction: histogram(
                "zk_sync_transaction_seconds",
                "How long the server took for a transaction.",
                &["link", "direction"],
                SECONDS_BUCKETS,
            ),
            verify_mismatch: gauge("zk_verify_mismatch", "Znodes in which the sides differed at the last verification.", &["link"]),
            verify_nodes: gauge("zk_verify_nodes", "Znodes compared by the last verification.", &["link"]),
            verify_seconds: float("zk_verify_seconds", "How long the last verification took.", &["link"]),
            verify_last: float(
                "zk_verify_last_success_timestamp",
                "When a verification last found no difference: seconds since 1970.",
                &["link"],
            ),
            migration_phase: gauge("zk_migration_phase", "1 for the phase that the migration is in.", &["link", "phase"]),
            counted_before: Mutex::default(),
            registry,
        };
        Metrics(Arc::new(all))
    }

    /// All in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut page = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.0.registry.gather(), &mut page) {
            tracing::error!(%error, "metrics cannot be written down");
        }
        String::from_utf8_lossy(&page).into_owned()
    }

    pub(crate) fn event(&self, link: &str, side: Side) {
        self.0.events.with_label_values(&[link, side.as_str()]).inc();
    }

    pub(crate) fn lags(&self, link: &str, into: Side, lags: &[Duration]) {
        let histogram = self.0.lag.with_label_values(&[link, into.direction_into()]);
        lags.iter().for_each(|lag| histogram.observe(lag.as_secs_f64() * 1e3));
    }

    pub(crate) fn transaction(&self, link: &str, into: Side, ops: usize, took: Duration) {
        let labels = [link, into.direction_into()];
        #[expect(clippy::cast_precision_loss, reason = "at most hundreds")]
        self.0.batch.with_label_values(&labels).observe(ops as f64);
        self.0.transaction.with_label_values(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn publish(&self, link: &str, status: &Status, lag: &PerSide<LagSummary>, watches: &PerSide<u64>, values_unkept: u64) {
        let all = &self.0;
        let counters = &status.counters;
        let set = |gauge: &IntGaugeVec, labels: &[&str], value: u64| {
            gauge.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX))
        };
        for side in Side::BOTH {
            let direction = side.direction_into();
            all.lag_p99.with_label_values(&[link, direction]).set(lag[side].p99_ms);
            all.lag_last.with_label_values(&[link, direction]).set(lag[side].last_ms);
            set(&all.queue, &[link, direction], status.queued[side] as u64);
            set(&all.watches, &[link, side.as_str()], watches[side]);
        }
        self.count(link, counters);
        set(&all.open_conflicts, &[link], status.open_conflicts as u64);
        set(&all.backlog, &[link], status.backlog as u64);
        set(&all.pairs, &[link], status.pairs as u64);
        for state in LinkState::ALL {
            set(&all.state, &[link, state.as_str()], u64::from(state == status.state));
        }
        let both = |counts: &PerSide<u64>| counts.a + counts.b;
        for (what, count) in [
            ("transactions", both(&counters.transactions)),
            ("echoes", counters.echoes),
            ("drifts", counters.drifts),
            ("refused", both(&counters.refused)),
            ("ambiguous", both(&counters.ambiguous)),
            ("ambiguous_applied", both(&counters.ambiguous_applied)),
            ("resyncs", both(&counters.resyncs)),
            ("full_passes", both(&counters.full_passes)),
            ("watch_silent", counters.unannounced),
            ("deletes_braked", counters.deletes_braked),
            ("dirty_overflows", counters.dirty_overflows),
            ("blocked_unnoted", counters.blocked_unnoted),
            ("conflicts_unnoted", counters.conflicts_unnoted),
            ("blocked", status.blocked_total as u64),
            ("held_deletes", status.held_deletes as u64),
            ("tombstones", status.tombstones as u64),
            ("tombstones_dropped", counters.tombstones_dropped),
            ("base_data_unkept", counters.base_data_unkept),
            ("values_unkept", values_unkept),
        ] {
            set(&all.counted, &[link, what], count);
        }
        for (reason, count) in &status.excluded {
            set(&all.excluded, &[link, reason], *count);
        }
    }

    fn count(&self, link: &str, now: &Counters) {
        let all = &self.0;
        let mut known = all.counted_before.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.insert(link.to_owned(), now.clone()).unwrap_or_default();
        let grow = |counter: &IntCounterVec, labels: &[&str], before: u64, now: u64| {
            counter.with_label_values(labels).inc_by(now.checked_sub(before).unwrap_or(now));
        };
        for side in Side::BOTH {
            let direction = side.direction_into();
            for (op, before, now) in [
                ("create", &before.created, &now.created),
                ("update", &before.updated, &now.updated),
                ("delete", &before.deleted, &now.deleted),
                ("acl", &before.acl_changed, &now.acl_changed),
            ] {
                grow(&all.synced, &[link, direction, op], before[side], now[side]);
            }
            grow(&all.reconnects, &[link, side.as_str()], before.resyncs[side], now.resyncs[side]);
        }
        for (labels, count) in &now.conflicts {
            let (kind, strategy, winner) = labels;
            let before = before.conflicts.get(labels).copied().unwrap_or(0);
            grow(&all.conflicts, &[link, kind.as_str(), strategy.as_str(), winner.as_str()], before, *count);
        }
        grow(&all.ambiguous_conflicts, &[link], before.conflicts_ambiguous, now.conflicts_ambiguous);
    }

    /// Forgets a link that is gone for good.
    pub(crate) fn forget(&self, link: &str) {
        let all = &self.0;
        all.counted_before.lock().unwrap_or_else(PoisonError::into_inner).remove(link);
        for vec in [&all.lag, &all.batch, &all.transaction] {
            forget_in(vec, link);
        }
        for vec in [&all.events, &all.synced, &all.conflicts, &all.ambiguous_conflicts, &all.reconnects] {
            forget_in(vec, link);
        }
        for vec in [&all.lag_p99, &all.lag_last, &all.verify_seconds, &all.verify_last] {
            forget_in(vec, link);
        }
        for vec in [
            &all.watches,
            &all.queue,
            &all.open_conflicts,
            &all.backlog,
            &all.pairs,
            &all.state,
            &all.counted,
            &all.excluded,
            &all.verify_mismatch,
            &all.verify_nodes,
            &all.migration_phase,
        ] {
            forget_in(vec, link);
        }
    }

    pub(crate) fn verified(&self, link: &str, report: &crate::verify::VerificationReport) {
        let all = &self.0;
        let found = &report.found;
        all.verify_mismatch.with_label_values(&[link]).set(i64::try_from(found.differing).unwrap_or(i64::MAX));
        all.verify_nodes.with_label_values(&[link]).set(i64::try_from(found.nodes_a).unwrap_or(i64::MAX));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of this century")]
        let (took, ended) = (report.took_ms as f64 / 1e3, (report.started_ms + report.took_ms) as f64 / 1e3);
        all.verify_seconds.with_label_values(&[link]).set(took);
        if found.equal {
            all.verify_last.with_label_values(&[link]).set(ended);
        }
    }

    pub(crate) fn phase(&self, link: &str, phase: &str, all_phases: &[&str]) {
        for known in all_phases {
            self.0.migration_phase.with_label_values(&[link, known]).set(i64::from(*known == phase));
        }
    }
}

/// Removes all of a link's series.
fn forget_in<T: MetricVecBuilder>(vec: &MetricVec<T>, link: &str) {
    for family in vec.collect() {
        for metric in family.get_metric() {
            let labels: std::collections::HashMap<&str, &str> =
                metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
            if labels.get("link") == Some(&link) {
                // It was there a moment ago; should it not be any more, all the better.
                let _ = vec.remove(&labels);
            }
        }
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("each name is registered once");
    collector
}

#[cfg(test)]
mod tests {
    use zksync::{ConflictKind, Link, LinkConfig, Mapping, Remembered, Strategy, Winner};

    use super::*;

    #[test]
    fn what_is_counted_goes_on_when_a_link_begins_anew_and_goes_with_the_link() {
        let metrics = Metrics::new();
        let link = Link::new(LinkConfig::one_way(Mapping::everything()), Remembered::default(), crate::link::now());
        let mut status = link.status();
        let publish = |status: &Status, name: &str| metrics.publish(name, status, &PerSide::default(), &PerSide { a: 3, b: 0 }, 4);
        let line = |wanted: &str| metrics.render().lines().find(|line| line.starts_with(wanted)).map(str::to_owned);
        for (created, conflicts) in [(5, 1), (7, 2), (2, 1)] {
            status.counters.created.b = created;
            status.counters.conflicts.insert((ConflictKind::Update, Strategy::AWins, Winner::A), conflicts);
            publish(&status, "x");
        }
        publish(&status, "y");
        let synced = r#"zk_synced_nodes_total{direction="a_to_b",link="x",op="create"}"#;
        assert_eq!(line(synced), Some(format!("{synced} 9")));
        let conflicts = r#"zk_conflict_count_total{kind="update",link="x",strategy="a_wins",winner="a"}"#;
        assert_eq!(line(conflicts), Some(format!("{conflicts} 3")));
        status.counters.tombstones_dropped = 7;
        publish(&status, "x");
        for (what, count) in [("tombstones", 0), ("tombstones_dropped", 7), ("values_unkept", 4)] {
            let name = format!(r#"zk_sync_counted_total{{link="x",what="{what}"}}"#);
            assert_eq!(line(&format!("{name} ")), Some(format!("{name} {count}")));
        }
        assert!(
            line(r#"zk_sync_watches{link="x",side="a"} 3"#).is_some() && metrics.render().contains("# TYPE zk_synced_nodes_total counter")
        );
        metrics.forget("x");
        assert!(!metrics.render().contains(r#"link="x""#) && metrics.render().contains(r#"link="y""#));
    }
}
