//! The closed catalogue of what the control plane says of itself: one struct per event, which owns its metric and its log line. Labels come
//! from the enums here, never from a peer.

use std::net::SocketAddr;
use std::time::Duration;

use super::Telemetry;

mod controls;
mod history;
mod hold;
mod map;
mod probes;
mod rpc;

pub use controls::{AuditFailed, ControlSettled, PipeClosed, PipeRefused};
pub use history::{HistoryCompactionFailed, HistoryFailed, HistoryObserved, HistoryOpened, HistoryWritten, TimestampIgnored};
pub use hold::{ConnectionHeld, ConnectionReleased, HoldEnd};
pub use map::{MapObserved, PicturesDrawn};
pub use probes::ProbesObserved;

/// A report is on the map.
#[derive(Debug)]
pub struct ReportApplied {
    /// From its moment by the node's clock to its receipt.
    pub lag: Duration,
    /// From its receipt to the map.
    pub apply: Duration,
    /// Its size on the wire, unpacked.
    pub bytes: usize,
}

impl ReportApplied {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        metrics.reports_applied.inc();
        metrics.report_lag.observe(self.lag.as_secs_f64());
        metrics.report_apply.observe(self.apply.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "reports have some megabytes at most")]
        metrics.report_bytes.observe(self.bytes as f64);
    }
}

/// Why a report was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// It could not be understood, or breaks a rule of the protocol.
    Malformed,
    /// More bytes or records than a report may have.
    TooLarge,
    /// It is about another host than the stream's.
    WrongHost,
    /// Reports before it are missing; the probe was asked for a snapshot.
    OutOfOrder,
    /// It came on a stream that a newer one has replaced.
    StaleStream,
}

impl RejectReason {
    /// How many there are.
    pub(crate) const COUNT: usize = 5;
    /// All of them.
    pub(crate) const ALL: [RejectReason; Self::COUNT] =
        [RejectReason::Malformed, RejectReason::TooLarge, RejectReason::WrongHost, RejectReason::OutOfOrder, RejectReason::StaleStream];

    /// Value of the label.
    pub fn label(self) -> &'static str {
        match self {
            RejectReason::Malformed => "malformed",
            RejectReason::TooLarge => "too_large",
            RejectReason::WrongHost => "wrong_host",
            RejectReason::OutOfOrder => "out_of_order",
            RejectReason::StaleStream => "stale_stream",
        }
    }
}

/// A report was not applied.
#[derive(Debug)]
pub struct ReportRejected<'a> {
    /// Whose.
    pub probe: &'a str,
    /// Its number, 0 when it could not be read.
    pub sequence: u64,
    /// Why.
    pub reason: RejectReason,
    /// Why exactly; this is also what the probe is told.
    pub detail: &'a str,
}

impl ReportRejected<'_> {
    /// Counts it, and logs at most one line per reason and interval.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        metrics.reports_rejected.with_label_values(&[self.reason.label()]).inc();
        if let Some(held_back) = metrics.rejection_lines[self.reason as usize].admit() {
            let ReportRejected { probe, sequence, reason, detail } = self;
            tracing::warn!(probe, sequence, reason = reason.label(), detail, held_back, "report rejected");
        }
    }
}

/// Values of an applied report were repaired.
#[derive(Debug)]
pub struct ReportRepaired<'a> {
    /// Whose.
    pub probe: &'a str,
    /// Moments in the future that were set to now.
    pub times_clamped: u64,
    /// Texts cut to their limit.
    pub texts_cut: u64,
    /// Names left out where addresses should be, or that are none.
    pub names_left_out: u64,
    /// Lists of which only the beginning was kept.
    pub lists_cut: u64,
}

impl ReportRepaired<'_> {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        let ReportRepaired { probe, times_clamped, texts_cut, names_left_out, lists_cut } = self;
        metrics.report_values_repaired.with_label_values(&["time_clamped"]).inc_by(times_clamped);
        metrics.report_values_repaired.with_label_values(&["text_cut"]).inc_by(texts_cut);
        metrics.report_values_repaired.with_label_values(&["name_left_out"]).inc_by(names_left_out);
        metrics.report_values_repaired.with_label_values(&["list_cut"]).inc_by(lists_cut);
        if let Some(held_back) = metrics.repair_lines.admit() {
            tracing::warn!(probe, times_clamped, texts_cut, names_left_out, lists_cut, held_back, "report repaired");
        }
    }
}

/// A probe's stream was not admitted.
#[derive(Debug)]
pub struct StreamRefused<'a> {
    /// Where it came from.
    pub peer: Option<SocketAddr>,
    /// Value of the label.
    pub reason: StreamRefusal,
    /// What the probe is told.
    pub detail: &'a str,
}

/// Why a stream was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamRefusal {
    /// As many streams as are allowed are open.
    TooMany,
    /// No hello came in time.
    NoHello,
    /// The hello broke a rule.
    BadHello,
    /// The map did not admit it.
    NotAdmitted,
    /// The control plane is about to stop.
    Stopping,
}

impl StreamRefused<'_> {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let label = match self.reason {
            StreamRefusal::TooMany => "too_many",
            StreamRefusal::NoHello => "no_hello",
            StreamRefusal::BadHello => "bad_hello",
            StreamRefusal::NotAdmitted => "not_admitted",
            StreamRefusal::Stopping => "stopping",
        };
        let metrics = telemetry.metrics();
        metrics.streams_refused.with_label_values(&[label]).inc();
        if let Some(held_back) = metrics.stream_lines.admit() {
            tracing::warn!(peer = ?self.peer, reason = label, detail = self.detail, held_back, "probe stream refused");
        }
    }
}

/// A probe's stream was admitted.
#[derive(Debug)]
pub struct StreamOpened;

impl StreamOpened {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().streams_open.inc();
    }
}

/// How an admitted stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEndReason {
    /// With a goodbye.
    Goodbye,
    /// The connection was lost, or closed without a goodbye.
    Lost,
    /// A newer stream of the same probe took its place.
    Replaced,
    /// The probe broke the protocol.
    Broken,
    /// The probe did not read what it was sent.
    NotReading,
    /// The control plane stops.
    Stopping,
}

/// An admitted stream ended.
#[derive(Debug)]
pub struct StreamEnded<'a> {
    /// Whose.
    pub probe: &'a str,
    /// How.
    pub reason: StreamEndReason,
}

impl StreamEnded<'_> {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let label = match self.reason {
            StreamEndReason::Goodbye => "goodbye",
            StreamEndReason::Lost => "lost",
            StreamEndReason::Replaced => "replaced",
            StreamEndReason::Broken => "broken",
            StreamEndReason::NotReading => "not_reading",
            StreamEndReason::Stopping => "stopping",
        };
        let metrics = telemetry.metrics();
        metrics.streams_open.dec();
        metrics.streams_ended.with_label_values(&[label]).inc();
        tracing::debug!(probe = self.probe, reason = label, "probe stream ended");
    }
}

/// A request was answered.
#[derive(Debug)]
pub struct RequestAnswered<'a> {
    /// `GET`, …; `OTHER` for what HTTP does not know.
    pub method: &'a str,
    /// The route's template in words, e.g. `api_topology_view`; `unmatched` for all other paths.
    pub route: &'a str,
    /// Status.
    pub status: u16,
    /// Whether it became a WebSocket.
    pub websocket: bool,
    /// Until the head of the response was made; for a WebSocket, until the upgrade.
    pub elapsed: Duration,
}

impl RequestAnswered<'_> {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let RequestAnswered { method, route, status, websocket, elapsed } = self;
        let status = status.to_string();
        let seconds = elapsed.as_secs_f64();
        let metrics = telemetry.metrics();
        metrics.request_duration.with_label_values(&[method, route, &status]).observe(seconds);
        let websocket = if websocket { "true" } else { "false" };
        metrics.scope_request_duration.with_label_values(&[method, route, &status, websocket]).observe(seconds);
        tracing::debug!(method, route, status, seconds, "request answered");
    }
}

/// A handler panicked; the client got 500.
#[derive(Debug)]
pub struct HandlerPanicked<'a> {
    /// What the panic said.
    pub message: &'a str,
}

impl HandlerPanicked<'_> {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().handler_panics.inc();
        tracing::error!(message = self.message, "a request handler panicked");
    }
}

/// An HTTP connection was accepted.
#[derive(Debug)]
pub struct ConnectionOpened;

impl ConnectionOpened {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().connections.inc();
    }
}

/// An HTTP connection ended.
#[derive(Debug)]
pub struct ConnectionClosed;

impl ConnectionClosed {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().connections.dec();
    }
}

/// Why a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionFailure {
    /// The system would not give one.
    Accept,
    /// It ended in the middle of a request or response, or did not speak HTTP.
    Broken,
    /// The client does not speak TLS, or could not show a certificate that is asked for.
    Handshake,
    /// Nearly all places were taken, and it asked for nothing.
    Crowded,
}

/// A connection failed.
#[derive(Debug)]
pub struct ConnectionFailed<'a> {
    /// Why.
    pub reason: ConnectionFailure,
    /// Why exactly.
    pub error: &'a (dyn std::error::Error + 'static),
}

impl ConnectionFailed<'_> {
    /// Counts it; a failed accept is logged too, for it is ours to mend.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        match self.reason {
            ConnectionFailure::Accept => {
                metrics.connections_failed.with_label_values(&["accept"]).inc();
                if let Some(held_back) = metrics.connection_lines.admit() {
                    tracing::error!(error = self.error, held_back, "connections cannot be accepted");
                }
            }
            ConnectionFailure::Crowded => {
                metrics.connections_failed.with_label_values(&["crowded"]).inc();
                if let Some(held_back) = metrics.connection_lines.admit() {
                    tracing::warn!(held_back, "nearly all connections are taken: clients that ask for nothing are let go");
                }
            }
            ConnectionFailure::Broken => {
                metrics.connections_failed.with_label_values(&["broken"]).inc();
                tracing::debug!(error = self.error, "connection broke");
            }
            ConnectionFailure::Handshake => {
                metrics.connections_failed.with_label_values(&["handshake"]).inc();
                if let Some(held_back) = metrics.handshake_lines.admit() {
                    tracing::warn!(error = self.error, held_back, "a client is let go at the TLS handshake");
                }
            }
        }
    }
}

/// A client's WebSocket opened.
#[derive(Debug)]
pub struct WebsocketOpened;

impl WebsocketOpened {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().websocket_clients.inc();
    }
}

/// An update was sent to a WebSocket client.
#[derive(Debug)]
pub struct WebsocketUpdated {
    /// From its being due to its having been taken; none for the first message, which has its own size and pace.
    pub late: Option<Duration>,
}

impl WebsocketUpdated {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().websocket_messages.inc();
        if let Some(late) = self.late {
            telemetry.metrics().push.observe(late.as_secs_f64());
        }
    }
}

/// Why a WebSocket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebsocketEnd {
    /// The client closed it or went away.
    Client,
    /// The client did not take what it was sent in time.
    NotReading,
    /// The client did not answer pings.
    NoPong,
    /// The client broke the protocol.
    Broken,
    /// The view does not exist.
    UnknownView,
    /// The moment that it shows cannot be read from the history.
    NoHistory,
    /// What it asks for takes longer than others can wait for it.
    TooLong,
    /// The control plane stops.
    Stopping,
}

/// A WebSocket ended.
#[derive(Debug)]
pub struct WebsocketClosed {
    /// Why.
    pub reason: WebsocketEnd,
}

impl WebsocketClosed {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let label = match self.reason {
            WebsocketEnd::Client => "client",
            WebsocketEnd::NotReading => "not_reading",
            WebsocketEnd::NoPong => "no_pong",
            WebsocketEnd::Broken => "broken",
            WebsocketEnd::UnknownView => "unknown_view",
            WebsocketEnd::NoHistory => "no_history",
            WebsocketEnd::TooLong => "too_long",
            WebsocketEnd::Stopping => "stopping",
        };
        let metrics = telemetry.metrics();
        metrics.websocket_clients.dec();
        metrics.websocket_ended.with_label_values(&[label]).inc();
        if matches!(self.reason, WebsocketEnd::NotReading | WebsocketEnd::NoPong)
            && let Some(held_back) = metrics.websocket_lines.admit()
        {
            tracing::warn!(reason = label, held_back, "WebSocket client dropped");
        }
    }
}

/// An upgrade was refused because there are too many clients.
#[derive(Debug)]
pub struct WebsocketRefused {
    /// How many are allowed.
    pub limit: usize,
}

impl WebsocketRefused {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        metrics.websocket_refused.inc();
        if let Some(held_back) = metrics.websocket_lines.admit() {
            tracing::warn!(limit = self.limit, held_back, "WebSocket refused: too many clients");
        }
    }
}

/// A supervised loop panicked.
#[derive(Debug)]
pub struct LoopPanicked<'a> {
    /// Which.
    pub name: &'static str,
    /// What the panic said.
    pub message: &'a str,
}

impl LoopPanicked<'_> {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().loop_panics.with_label_values(&[self.name]).inc();
        tracing::error!(name = self.name, message = self.message, "a loop panicked");
    }
}

/// A supervised loop ended and will be started again.
#[derive(Debug)]
pub struct LoopRestarted {
    /// Which.
    pub name: &'static str,
    /// After how long.
    pub pause: Duration,
}

impl LoopRestarted {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().loop_restarts.with_label_values(&[self.name]).inc();
        tracing::warn!(name = self.name, pause = ?self.pause, "a loop ended and is started again");
    }
}

/// The store could not be read or written while running.
#[derive(Debug)]
pub struct StoreFailed<'a> {
    /// What was to be done.
    pub action: &'static str,
    /// Why it failed.
    pub error: &'a (dyn std::error::Error + 'static),
}

impl StoreFailed<'_> {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        metrics.store_failures.inc();
        if let Some(held_back) = metrics.store_lines.admit() {
            tracing::error!(action = self.action, error = self.error, held_back, "the store failed");
        }
    }
}

/// What is read off the driver when the metrics page is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct DriverObserved {
    /// Probes with an open stream.
    pub probes_connected: u64,
    /// Containers on the map.
    pub containers: u64,
    /// Pictures kept up to date.
    pub pictures: u64,
    /// Records refused since the start.
    pub records_refused: u64,
    /// Time that the core has worked.
    pub busy: Duration,
    /// Messages that wait.
    pub inbox_length: usize,
}

impl DriverObserved {
    /// Sets the gauges.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.probes_connected.set(signed(self.probes_connected));
        metrics.containers.set(signed(self.containers));
        metrics.pictures.set(signed(self.pictures));
        metrics.records_refused.set(signed(self.records_refused));
        metrics.driver_busy_ms.set(i64::try_from(self.busy.as_millis()).unwrap_or(i64::MAX));
        metrics.driver_inbox.set(i64::try_from(self.inbox_length).unwrap_or(i64::MAX));
    }
}

/// What is read off the window of old probes' reports when the metrics page is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct OldProbesObserved {
    /// Reports taken in since the start.
    pub reports: u64,
    /// Reports that were malformed, too large, or found no room, since the start.
    pub reports_refused: u64,
    /// Nodes in the window.
    pub nodes: u64,
}

impl OldProbesObserved {
    /// Sets the gauges.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.scope_reports.set(signed(self.reports));
        metrics.scope_reports_refused.set(signed(self.reports_refused));
        metrics.scope_nodes.set(signed(self.nodes));
    }
}
