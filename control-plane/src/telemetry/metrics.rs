use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::events::RejectReason;
use super::quiet::Quiet;

/// Seconds. 1 and 2 are the numbers of the service's objectives, so both are edges.
const REQUEST_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0];

/// Bytes.
const SIZE_BUCKETS: &[f64] = &[256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// All metrics. Only events change the counters; gauges are set when the page is asked for.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) build_info: IntGaugeVec,
    pub(crate) probes_connected: IntGauge,
    pub(crate) containers: IntGauge,
    pub(crate) probes_overloaded: IntGaugeVec,
    pub(crate) probes_lacking: IntGauge,
    pub(crate) probe_losses: IntGaugeVec,
    pub(crate) probe_ends_seen: IntGauge,
    pub(crate) probe_ends_reported: IntGauge,
    pub(crate) reports_applied: IntCounter,
    pub(crate) reports_rejected: IntCounterVec,
    pub(crate) report_values_repaired: IntCounterVec,
    pub(crate) report_lag: Histogram,
    pub(crate) report_apply: Histogram,
    pub(crate) streams_open: IntGauge,
    pub(crate) streams_refused: IntCounterVec,
    pub(crate) streams_ended: IntCounterVec,
    pub(crate) records_refused: IntGauge,
    pub(crate) driver_inbox: IntGauge,
    pub(crate) driver_busy_ms: IntGauge,
    pub(crate) pictures: IntGauge,
    pub(crate) scope_reports: IntGauge,
    pub(crate) scope_reports_refused: IntGauge,
    pub(crate) scope_nodes: IntGauge,
    pub(crate) request_duration: HistogramVec,
    pub(crate) scope_request_duration: HistogramVec,
    pub(crate) handler_panics: IntCounter,
    pub(crate) connections: IntGauge,
    pub(crate) connections_failed: IntCounterVec,
    pub(crate) connections_held: IntGauge,
    pub(crate) connections_released: IntCounterVec,
    pub(crate) websocket_clients: IntGauge,
    pub(crate) websocket_messages: IntCounter,
    pub(crate) websocket_ended: IntCounterVec,
    pub(crate) websocket_refused: IntCounter,
    pub(crate) loop_panics: IntCounterVec,
    pub(crate) loop_restarts: IntCounterVec,
    pub(crate) store_failures: IntCounter,
    pub(crate) history_bytes: IntGauge,
    pub(crate) history_segments: IntGauge,
    pub(crate) history_queue: IntGauge,
    pub(crate) history_lost: IntGauge,
    pub(crate) history_written_bytes: IntCounter,
    pub(crate) history_segments_removed: IntCounter,
    pub(crate) history_changes_skipped: IntCounter,
    pub(crate) history_failures: IntCounter,
    pub(crate) history_cut_bytes: IntCounter,
    pub(crate) history_lines: Quiet,
    pub(crate) timestamp_lines: Quiet,
    pub(crate) controls: IntCounterVec,
    pub(crate) control_duration: Histogram,
    pub(crate) control_strays: IntCounter,
    pub(crate) pipes_open: IntGauge,
    pub(crate) pipes_closed: IntCounterVec,
    pub(crate) pipes_refused: IntCounterVec,
    pub(crate) pipe_bytes: IntCounterVec,
    pub(crate) view_nodes: IntGaugeVec,
    pub(crate) view_edges: IntGaugeVec,
    pub(crate) report_bytes: Histogram,
    pub(crate) render: Histogram,
    pub(crate) push: Histogram,
    pub(crate) probe_lag_quantiles: GaugeVec,
    pub(crate) probe_lag_worst: GaugeVec,
    pub(crate) drops: IntGaugeVec,
    pub(crate) grpc_calls: HistogramVec,
    pub(crate) grpc_streams: IntGauge,
    pub(crate) audit_failures: IntCounter,
    pub(crate) rejection_lines: [Quiet; RejectReason::COUNT],
    pub(crate) stream_lines: Quiet,
    pub(crate) repair_lines: Quiet,
    pub(crate) connection_lines: Quiet,
    pub(crate) handshake_lines: Quiet,
    pub(crate) websocket_lines: Quiet,
    pub(crate) store_lines: Quiet,
    pub(crate) audit_lines: Quiet,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let this = Metrics {
            build_info: gauge_vec(r, "orchestrator_build_info", "1; the labels say what runs.", &["version"]),
            probes_connected: gauge(r, "monitoring_app_probes_connected", "Probes whose stream is open."),
            containers: gauge(r, "monitoring_app_containers_total", "Containers on the map, in any state."),
            probes_overloaded: gauge_vec(
                r,
                "orchestrator_probes_overloaded",
                "Probes that give up detail to stay within their budget, by level; the last level stands for all above, too.",
                &["level"],
            ),
            probes_lacking: gauge(r, "orchestrator_probes_lacking_capabilities", "Probes that lack a capability of the kernel's."),
            probe_losses: gauge_vec(r, "orchestrator_probe_losses", "What the probes lost since they started, by cause.", &["cause"]),
            probe_ends_seen: gauge(r, "orchestrator_probe_ends_seen", "Connection ends that the probes' kernels saw open."),
            probe_ends_reported: gauge(
                r,
                "orchestrator_probe_ends_reported",
                "Those of them that reached a flow; the ratio is the completeness.",
            ),
            reports_applied: counter(r, "orchestrator_reports_applied_total", "Reports that are on the map."),
            reports_rejected: counter_vec(r, "orchestrator_reports_rejected_total", "Reports that were not applied.", &["reason"]),
            report_values_repaired: counter_vec(
                r,
                "orchestrator_report_values_repaired_total",
                "Values of reports that were applied after a repair: moments in the future set to now, texts cut to their limit.",
                &["repair"],
            ),
            report_lag: histogram(r, "orchestrator_report_lag_seconds", "From a report's moment by the node's clock to its receipt."),
            report_apply: histogram(r, "orchestrator_report_apply_seconds", "From a report's receipt to its being on the map."),
            streams_open: gauge(r, "orchestrator_probe_streams", "Open streams of probes."),
            streams_refused: counter_vec(r, "orchestrator_probe_streams_refused_total", "Streams not admitted.", &["reason"]),
            streams_ended: counter_vec(r, "orchestrator_probe_streams_ended_total", "Streams that ended.", &["reason"]),
            records_refused: gauge(
                r,
                "orchestrator_report_records_refused",
                "Records of applied reports that the map refused since the start.",
            ),
            driver_inbox: gauge(r, "orchestrator_driver_inbox_messages", "Messages that wait for the topology driver."),
            driver_busy_ms: gauge(r, "orchestrator_driver_busy_milliseconds", "Time that the topology core has worked since the start."),
            scope_reports: gauge(r, "orchestrator_scope_reports", "Reports of Weave Scope's probes taken in since the start."),
            scope_reports_refused: gauge(
                r,
                "orchestrator_scope_reports_refused",
                "Reports of Weave Scope's probes that were malformed, too large, or found no room, since the start.",
            ),
            scope_nodes: gauge(r, "orchestrator_scope_nodes", "Nodes of Weave Scope's probes in the window."),
            pictures: gauge(r, "orchestrator_pictures", "Pictures (views through filters) that are kept up to date."),
            request_duration: histogram_vec(
                r,
                "orchestrator_http_request_duration_seconds",
                "Until the head of the response was made.",
                &["method", "route", "status_code"],
            ),
            scope_request_duration: histogram_vec(
                r,
                "scope_request_duration_seconds",
                "Time (in seconds) spent serving HTTP requests.",
                &["method", "route", "status_code", "ws"],
            ),
            handler_panics: counter(r, "orchestrator_http_handler_panics_total", "Requests answered with 500 because of a defect."),
            connections: gauge(r, "orchestrator_http_connections", "Open HTTP connections besides WebSockets."),
            connections_failed: counter_vec(r, "orchestrator_http_connections_failed_total", "Connections that failed.", &["reason"]),
            connections_held: gauge(r, "orchestrator_connections_held", "Connections that wait until a control plane leads."),
            connections_released: counter_vec(
                r,
                "orchestrator_connections_held_total",
                "Connections that came while no control plane was known to lead, by what became of them.",
                &["end"],
            ),
            websocket_clients: gauge(r, "orchestrator_websocket_clients", "Connected WebSocket clients."),
            websocket_messages: counter(r, "orchestrator_websocket_messages_total", "Updates sent to WebSocket clients."),
            websocket_ended: counter_vec(r, "orchestrator_websocket_ended_total", "WebSockets that ended.", &["reason"]),
            websocket_refused: counter(r, "orchestrator_websocket_refused_total", "Upgrades refused because there were too many clients."),
            loop_panics: counter_vec(r, "orchestrator_loop_panics_total", "Panics of supervised loops.", &["loop"]),
            loop_restarts: counter_vec(r, "orchestrator_loop_restarts_total", "Restarts of supervised loops.", &["loop"]),
            store_failures: counter(r, "orchestrator_store_failures_total", "Reads and writes of the store that failed."),
            history_bytes: gauge(r, "orchestrator_history_bytes", "Bytes of all files of the history."),
            history_segments: gauge(r, "orchestrator_history_segments", "Files of the history."),
            history_queue: gauge(r, "orchestrator_history_queue_events", "Events that wait for the history's disk."),
            history_lost: gauge(
                r,
                "orchestrator_history_events_lost",
                "Events that the history's queue had no room for since the start; what they said is told anew.",
            ),
            history_written_bytes: counter(r, "orchestrator_history_written_bytes_total", "Bytes written to the history."),
            history_segments_removed: counter(r, "orchestrator_history_segments_removed_total", "Files that were too old or too much."),
            history_changes_skipped: counter(
                r,
                "orchestrator_history_changes_skipped_total",
                "Changes that were not written because the disk had refused.",
            ),
            history_failures: counter(r, "orchestrator_history_failures_total", "Writes of the history that the disk refused."),
            history_cut_bytes: counter(r, "orchestrator_history_cut_bytes_total", "Bytes of torn ends that were cut off at the start."),
            history_lines: Quiet::default(),
            timestamp_lines: Quiet::default(),
            controls: counter_vec(r, "orchestrator_controls_total", "Calls of controls, by what became of them.", &["outcome"]),
            control_duration: histogram(r, "orchestrator_control_seconds", "From a call of a control to its answer."),
            control_strays: counter(r, "orchestrator_control_stray_answers_total", "Answers of probes that nobody waited for any more."),
            pipes_open: gauge(r, "orchestrator_pipes", "Open pipes: terminals and logs."),
            pipes_closed: counter_vec(r, "orchestrator_pipes_closed_total", "Pipes that were closed.", &["cause"]),
            pipes_refused: counter_vec(r, "orchestrator_pipes_refused_total", "Connections to pipes that were refused.", &["reason"]),
            pipe_bytes: counter_vec(r, "orchestrator_pipe_bytes_total", "Bytes through pipes, by where they went.", &["towards"]),
            view_nodes: gauge_vec(r, "monitoring_app_view_nodes", "Nodes of a view, filters aside.", &["view"]),
            view_edges: gauge_vec(r, "monitoring_app_view_edges", "Edges of a view, filters aside.", &["view"]),
            report_bytes: register(
                r,
                Histogram::with_opts(
                    HistogramOpts::new("monitoring_app_report_bytes", "Size of an applied report, unpacked.")
                        .buckets(SIZE_BUCKETS.to_vec()),
                ),
            ),
            render: histogram(
                r,
                "monitoring_app_render_seconds",
                "From the first of the messages that changed pictures to the last picture that was mended.",
            ),
            push: histogram(
                r,
                "monitoring_app_push_seconds",
                "From an update's being due to its having been taken by a WebSocket's connection.",
            ),
            probe_lag_quantiles: float_gauge_vec(
                r,
                "monitoring_app_probe_lag_seconds",
                "How old the last report of a probe was when it came: the lag that a share of the connected probes stay below.",
                &["quantile"],
            ),
            probe_lag_worst: float_gauge_vec(
                r,
                "monitoring_app_probe_lag_worst_seconds",
                "The same of those that lag most, 1 the most; which they are, /api/v1/probes tells.",
                &["rank"],
            ),
            drops: gauge_vec(r, "monitoring_app_drops", "What was lost or refused since the start, by what it was.", &["what"]),
            grpc_calls: histogram_vec(
                r,
                "monitoring_app_grpc_call_seconds",
                "From a call of the gRPC API to its answer, or to the end of its stream.",
                &["call", "code"],
            ),
            grpc_streams: gauge(r, "monitoring_app_grpc_streams", "Open streams of the gRPC API: watched views and pipes."),
            audit_failures: counter(r, "orchestrator_audit_failures_total", "Records of controls that could not be written to the file."),
            rejection_lines: Default::default(),
            stream_lines: Quiet::default(),
            repair_lines: Quiet::default(),
            connection_lines: Quiet::default(),
            handshake_lines: Quiet::default(),
            websocket_lines: Quiet::default(),
            store_lines: Quiet::default(),
            audit_lines: Quiet::default(),
            registry,
        };
        this.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for reason in RejectReason::ALL {
            this.reports_rejected.with_label_values(&[reason.label()]).reset();
        }
        this
    }

    /// Reports that were not applied, for whatever reason.
    pub(crate) fn reports_rejected_in_all(&self) -> u64 {
        RejectReason::ALL.into_iter().map(|reason| self.reports_rejected.with_label_values(&[reason.label()]).get()).sum()
    }

    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("names and labels are literals of this file, and tested");
    registry.register(Box::new(collector.clone())).expect("every name of this file is used once, and tested");
    collector
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

fn counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

fn gauge_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn float_gauge_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    register(registry, GaugeVec::new(Opts::new(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Histogram {
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(REQUEST_BUCKETS.to_vec())))
}

fn histogram_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    register(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(REQUEST_BUCKETS.to_vec()), labels))
}
