//! How large the map is, how soon it is drawn, and what is lost on the way there and from there.

use std::collections::HashMap;
use std::time::Duration;

use topology::{ProbeId, View};

use crate::telemetry::Telemetry;

/// Probes whose lag has a number of its own: those that lag most.
const WORST: usize = 10;
/// Shares of all probes.
const QUANTILES: [(&str, usize); 3] = [("0.5", 50), ("0.9", 90), ("0.99", 99)];

/// Pictures of the map were drawn.
#[derive(Debug)]
pub struct PicturesDrawn {
    /// From the first of the messages that changed them to the last picture.
    pub took: Duration,
}

impl PicturesDrawn {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().render.observe(self.took.as_secs_f64());
    }
}

/// What is read off the map when the metrics page is asked for.
#[derive(Debug)]
pub struct MapObserved<'a> {
    /// Nodes and edges of each view.
    pub views: &'a [(View, u64, u64)],
    /// How old the last report of each probe was when it came.
    pub lags: HashMap<ProbeId, Duration>,
    /// Records that the map refused.
    pub records_refused: u64,
    /// Events that found no room on their way to the history.
    pub history_lost: u64,
    /// Reports of old probes that were refused.
    pub old_reports_refused: u64,
    /// Reports of old probes that found no room in the history.
    pub old_reports_not_kept: u64,
}

impl MapObserved<'_> {
    /// Sets the gauges.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for (view, nodes, edges) in self.views {
            metrics.view_nodes.with_label_values(&[view.id()]).set(signed(*nodes));
            metrics.view_edges.with_label_values(&[view.id()]).set(signed(*edges));
        }
        let mut lags: Vec<f64> = self.lags.into_values().map(|lag| lag.as_secs_f64()).collect();
        lags.sort_by(f64::total_cmp);
        for (label, percent) in QUANTILES {
            let at = (lags.len() * percent / 100).min(lags.len().saturating_sub(1));
            metrics.probe_lag_quantiles.with_label_values(&[label]).set(lags.get(at).copied().unwrap_or_default());
        }
        for (rank, lag) in (1..=WORST).zip(lags.into_iter().rev().chain(std::iter::repeat(0.0))) {
            metrics.probe_lag_worst.with_label_values(&[&rank.to_string()]).set(lag);
        }
        let drops = [
            ("reports", metrics.reports_rejected_in_all()),
            ("records", self.records_refused),
            ("old_reports", self.old_reports_refused),
            ("old_reports_of_the_history", self.old_reports_not_kept),
            ("history_events", self.history_lost),
            ("history_changes", metrics.history_changes_skipped.get()),
            ("websockets_refused", metrics.websocket_refused.get()),
            ("audit_records", metrics.audit_failures.get()),
        ];
        for (cause, count) in drops {
            metrics.drops.with_label_values(&[cause]).set(signed(count));
        }
    }
}
