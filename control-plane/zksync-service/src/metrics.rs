//! Numbers for Prometheus. Labels are links (at most as many as there may be), sides and small words; never paths.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use zksync::{LinkState, PerSide, Side, Status};

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
    lag_last: GaugeVec,
    events: IntCounterVec,
    synced: IntGaugeVec,
    conflicts: IntGaugeVec,
    ambiguous_conflicts: IntGaugeVec,
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
            lag_last: float("zk_sync_lag_p99_ms", "The same, 99 of 100 of the last minute.", &["link", "direction"]),
            events: counter("zk_sync_events_total", "Changed paths told by watches.", &["link", "side"]),
            synced: gauge("zk_synced_nodes_total", "Znodes written since the link was started.", &["link", "direction", "op"]),
            conflicts: gauge("zk_conflict_count_total", "Conflicts decided since the link was started.", &["link", "kind", "winner"]),
            ambiguous_conflicts: gauge("zk_conflict_ambiguous_total", "Of them, those whose times could not be told apart.", &["link"]),
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

    pub(crate) fn publish(&self, link: &str, status: &Status, lag: &PerSide<LagSummary>) {
        let all = &self.0;
        let counters = &status.counters;
        let set = |gauge: &IntGaugeVec, labels: &[&str], value: u64| {
            gauge.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX))
        };
        for side in Side::BOTH {
            let direction = side.direction_into();
            all.lag_last.with_label_values(&[link, direction]).set(lag[side].p99_ms);
            set(&all.synced, &[link, direction, "create"], counters.created[side]);
            set(&all.synced, &[link, direction, "update"], counters.updated[side]);
            set(&all.synced, &[link, direction, "delete"], counters.deleted[side]);
            set(&all.synced, &[link, direction, "acl"], counters.acl_changed[side]);
        }
        for ((kind, winner), count) in &counters.conflicts {
            set(&all.conflicts, &[link, kind.as_str(), winner.as_str()], *count);
        }
        set(&all.ambiguous_conflicts, &[link], counters.conflicts_ambiguous);
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
        ] {
            set(&all.counted, &[link, what], count);
        }
        for (reason, count) in &status.excluded {
            set(&all.excluded, &[link, reason], *count);
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

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("each name is registered once");
    collector
}
