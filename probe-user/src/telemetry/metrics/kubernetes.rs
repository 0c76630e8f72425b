//! Metrics of the collector of a cluster; at zero in a process that is none.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Registry};

use super::{opts, register};
use crate::stream;

/// All of them.
#[derive(Debug)]
pub struct Kubernetes {
    /// 1 while this collector reports.
    pub leading: IntGauge,
    /// 1 while another collector holds the lease and this one waits for it.
    pub standby: IntGauge,
    /// 1 when every kind that may be read was listed.
    pub synced: IntGauge,
    /// Objects known, by kind.
    pub objects: IntGaugeVec,
    /// 1 while a kind is followed, by kind.
    pub watching: IntGaugeVec,
    /// Failed lists and watches, by kind.
    pub errors: IntGaugeVec,
    /// Objects that were refused because the kind was full, by kind.
    pub refused: IntGaugeVec,
    /// Objects of which something was left out, by kind.
    pub cut: IntGaugeVec,
    stream_connected: IntGauge,
    streams_opened: IntCounter,
    reports_sent: IntCounter,
    reports_rejected: IntCounter,
    outbox_bytes: IntGauge,
}

impl Kubernetes {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help));
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help));
        let by_kind = |name: &str, help: &str| register(registry, IntGaugeVec::new(opts(name, help), &["kind"]));
        Self {
            leading: gauge("probe_kubernetes_leading", "1 while this collector reports."),
            standby: gauge("probe_kubernetes_standby", "1 while another collector holds the lease."),
            synced: gauge("probe_kubernetes_synced", "1 when every kind that may be read was listed."),
            objects: by_kind("probe_kubernetes_objects", "Objects known."),
            watching: by_kind("probe_kubernetes_watching", "1 while a kind is followed."),
            errors: by_kind("probe_kubernetes_errors_total", "Failed lists and watches."),
            refused: by_kind("probe_kubernetes_refused_total", "Objects refused because the kind was full."),
            cut: by_kind("probe_kubernetes_cut_total", "Objects of which something was left out."),
            stream_connected: gauge("probe_kubernetes_stream_connected", "1 while the cluster's stream is welcomed."),
            streams_opened: counter("probe_kubernetes_streams_opened_total", "Streams of the cluster that were welcomed."),
            reports_sent: counter("probe_kubernetes_reports_sent_total", "Reports of the cluster handed to the stream."),
            reports_rejected: counter("probe_kubernetes_reports_rejected_total", "Reports of the cluster the control plane did not apply."),
            outbox_bytes: gauge("probe_kubernetes_outbox_bytes", "Encoded bytes of the cluster that wait to be acknowledged."),
        }
    }

    /// Where the cluster's stream counts.
    pub fn stream(&self) -> stream::Numbers {
        stream::Numbers {
            connected: self.stream_connected.clone(),
            opened: self.streams_opened.clone(),
            sent: self.reports_sent.clone(),
            rejected: self.reports_rejected.clone(),
            held_bytes: self.outbox_bytes.clone(),
        }
    }

    /// Neither reporting nor waiting: the role begins, or has ended.
    pub fn begin(&self) {
        for gauge in [&self.leading, &self.standby, &self.synced, &self.stream_connected, &self.outbox_bytes] {
            gauge.set(0);
        }
    }

    /// Why the collector is not ready; `None` when it is: it reports, or it waits until the one that does is gone.
    pub fn unready(&self) -> Option<&'static str> {
        match (self.standby.get(), self.leading.get(), self.synced.get(), self.stream_connected.get()) {
            (1, ..) | (_, 1, 1, 1) => None,
            (_, 1, 1, _) => Some("control plane is not connected\n"),
            (_, 1, ..) => Some("the cluster was not read\n"),
            _ => Some("the lease cannot be had\n"),
        }
    }
}
