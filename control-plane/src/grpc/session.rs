//! One probe's stream, from its hello to its end.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use prost::Message as _;
use proto::probe::v1::{Acknowledge, ControlMessage, Hello, ProbeMessage, Rejected, Throttle, Welcome, control_message, probe_message};
use relay::Link;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use topology::{ProbeHello, ProbeId, StreamEnd, StreamId};

use super::Context;
use super::convert::{self, Fault, Repairs};
use super::orders;
use super::outline::{RECORDS_MAX, outline};
use super::probes::Streams;
use crate::drivers::{Admission, ReportOutcome, Stopped};
use crate::telemetry::events::{
    RejectReason, ReportApplied, ReportRejected, ReportRepaired, StreamEndReason, StreamEnded, StreamOpened, StreamRefusal, StreamRefused,
};

/// Longest hello, in bytes.
const HELLO_MAX: usize = 64 << 10;
/// Shortest time between two acknowledgements while reports come one upon the other.
const ACKNOWLEDGE_INTERVAL: Duration = Duration::from_millis(100);
/// How long a probe may take to read what it is sent.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Pause after a refused report, doubled with each one that follows: a probe that only sends what is refused costs little.
const REJECTION_PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const REJECTION_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A report that takes longer to get on the map shows that we are behind.
const BEHIND: Duration = Duration::from_millis(500);
/// How far apart reports should be while we are.
const THROTTLED_INTERVAL: Duration = Duration::from_secs(1);

/// One stream.
pub(super) struct Session {
    context: Context,
    streams: Streams,
    peer: Option<SocketAddr>,
    outbox: Outbox,
}

impl Session {
    pub(super) fn new(
        context: Context,
        streams: Streams,
        peer: Option<SocketAddr>,
        outbox: mpsc::Sender<Result<ControlMessage, Status>>,
    ) -> Self {
        Session { context, streams, peer, outbox: Outbox(outbox) }
    }

    /// From the hello to the end.
    pub(super) async fn run(self, mut incoming: Streaming<Bytes>) {
        let stopping = self.context.supervisor.stopping().clone();
        let admitted = tokio::select! {
            () = stopping.cancelled() => Err(Refusal::stopping()),
            admitted = self.admit(&mut incoming) => admitted,
        };
        match admitted {
            Ok(admitted) => self.converse(admitted, incoming).await,
            Err(Refusal { reason, status }) => {
                StreamRefused { peer: self.peer, reason, detail: status.message() }.emit(&self.context.telemetry);
                self.outbox.end(status).await;
            }
        }
    }

    async fn admit(&self, incoming: &mut Streaming<Bytes>) -> Result<Admitted, Refusal> {
        let bad = |text: &str| Refusal { reason: StreamRefusal::BadHello, status: Status::invalid_argument(text) };
        let no_hello = |status| Refusal { reason: StreamRefusal::NoHello, status };
        let first = match timeout(self.context.limits.hello_patience, incoming.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return Err(no_hello(Status::invalid_argument("the stream ended before a hello"))),
            Ok(Err(status)) => return Err(no_hello(status)),
            Err(_) => return Err(no_hello(Status::deadline_exceeded("no hello came"))),
        };
        if first.len() > HELLO_MAX {
            return Err(bad(&format!("the hello has {} bytes; {HELLO_MAX} are allowed", first.len())));
        }
        let hello = match ProbeMessage::decode(first) {
            Ok(ProbeMessage { body: Some(probe_message::Body::Hello(hello)) }) => hello,
            Ok(_) => return Err(bad("the first message is no hello")),
            Err(error) => return Err(bad(&format!("the first message cannot be decoded: {error}"))),
        };
        self.introduce(hello).await
    }

    async fn introduce(&self, hello: Hello) -> Result<Admitted, Refusal> {
        let (probe, hello) = convert::hello(hello).map_err(|fault| {
            let (Fault::Malformed(text) | Fault::WrongHost(text)) = fault;
            Refusal { reason: StreamRefusal::BadHello, status: Status::invalid_argument(text) }
        })?;
        match self.context.topology.hello(probe.clone(), hello.clone()).await {
            Ok(Admission::Welcome { resume_after_sequence, stream }) => Ok(Admitted { probe, hello, stream, resume_after_sequence }),
            Ok(Admission::Refused { reason }) => {
                Err(Refusal { reason: StreamRefusal::NotAdmitted, status: Status::resource_exhausted(reason) })
            }
            Err(Stopped) => Err(Refusal::stopping()),
        }
    }

    /// Everything after the welcome. Whatever happens in between, the map learns of the stream's end.
    async fn converse(&self, admitted: Admitted, incoming: Streaming<Bytes>) {
        let Admitted { probe, hello, stream, resume_after_sequence } = admitted;
        StreamOpened.emit(&self.context.telemetry);
        let replaced = self.streams.enter(&probe, stream);
        let (link, orders) = self.context.switchboard.link(&probe, orders::abilities(&hello.controls));
        let ended = CancellationToken::new();
        let mut conversation = Conversation {
            context: &self.context,
            outbox: &self.outbox,
            probe: &probe,
            link: &link,
            orders: Some(orders::forward(orders, self.outbox.0.clone(), ended.clone())),
            hello: &hello,
            stream,
            pending: None,
            acknowledged_at: None,
            rejections: 0,
            throttled: false,
        };
        let outcome = AssertUnwindSafe(conversation.run(incoming, replaced, resume_after_sequence)).catch_unwind().await;
        let reason = outcome.as_ref().map_or(StreamEndReason::Broken, |end| end.reason);
        self.streams.leave(&probe, stream);
        // Whoever waits for the probe learns at once that it is gone.
        drop(link);
        ended.cancel();
        let end = if reason == StreamEndReason::Goodbye { StreamEnd::Goodbye } else { StreamEnd::Lost };
        let _ = self.context.topology.stream_ended(probe.clone(), stream, end).await;
        self.context.topology.gauges().lag_is(&probe, None);
        StreamEnded { probe: &probe, reason }.emit(&self.context.telemetry);
        match outcome {
            Ok(End { status: Some(status), .. }) => self.outbox.end(status).await,
            Ok(End { status: None, .. }) => {}
            Err(panic) => {
                self.outbox.end(Status::internal("this is a defect of the control plane; its log says more")).await;
                resume_unwind(panic);
            }
        }
    }
}

/// Why a stream was not admitted.
struct Refusal {
    reason: StreamRefusal,
    status: Status,
}

impl Refusal {
    fn stopping() -> Self {
        Refusal { reason: StreamRefusal::Stopping, status: Status::unavailable("the control plane is about to stop") }
    }
}

/// An admitted probe.
struct Admitted {
    probe: ProbeId,
    hello: ProbeHello,
    stream: StreamId,
    resume_after_sequence: u64,
}

/// The way to the probe.
struct Outbox(mpsc::Sender<Result<ControlMessage, Status>>);

impl Outbox {
    async fn send(&self, body: control_message::Body) -> Result<(), End> {
        match timeout(WRITE_DEADLINE, self.0.send(Ok(ControlMessage { body: Some(body) }))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End { reason: StreamEndReason::Lost, status: None }),
            Err(_) => Err(End { reason: StreamEndReason::NotReading, status: Some(Status::deadline_exceeded("the probe does not read")) }),
        }
    }

    async fn end(&self, status: Status) {
        // The peer may be gone, or not read; then there is nobody to tell.
        let _ = timeout(WRITE_DEADLINE, self.0.send(Err(status))).await;
    }
}

/// How a conversation ended, and what the probe is told of it.
struct End {
    reason: StreamEndReason,
    status: Option<Status>,
}

impl From<Stopped> for End {
    fn from(_: Stopped) -> Self {
        End { reason: StreamEndReason::Stopping, status: Some(Status::unavailable("the control plane is about to stop")) }
    }
}

/// Reports in, acknowledgements out.
struct Conversation<'a, F> {
    context: &'a Context,
    outbox: &'a Outbox,
    probe: &'a ProbeId,
    link: &'a Link,
    /// Hands the switchboard's orders on, once the probe was welcomed.
    orders: Option<F>,
    hello: &'a ProbeHello,
    stream: StreamId,
    /// The last report that was applied and is not acknowledged yet.
    pending: Option<u64>,
    acknowledged_at: Option<Instant>,
    /// Reports refused one after the other.
    rejections: u32,
    throttled: bool,
}

impl<F: Future<Output = ()> + Send + 'static> Conversation<'_, F> {
    async fn run(&mut self, incoming: Streaming<Bytes>, replaced: CancellationToken, resume_after_sequence: u64) -> End {
        match self.exchange(incoming, replaced, resume_after_sequence).await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn exchange(&mut self, mut incoming: Streaming<Bytes>, replaced: CancellationToken, resume_after: u64) -> Result<End, End> {
        let limits = &self.context.limits;
        let stopping = self.context.supervisor.stopping();
        self.outbox
            .send(control_message::Body::Welcome(Welcome {
                control_plane_id: self.context.control_plane_id.to_string(),
                resume_after_sequence: resume_after,
                metrics_interval_ms: u32::try_from(limits.metrics_interval.as_millis()).unwrap_or(u32::MAX),
                max_report_bytes: limits.report_bytes,
            }))
            .await?;
        if let Some(orders) = self.orders.take() {
            self.context.supervisor.one_off("probe_orders", orders);
        }
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return Err(Stopped.into()),
                () = replaced.cancelled() => return Ok(stale()),
                () = self.acknowledgement_due() => self.acknowledge().await?,
                message = incoming.message() => match message {
                    Ok(Some(message)) => {
                        if let Some(end) = self.on_message(message).await? {
                            return Ok(end);
                        }
                    }
                    Ok(None) => return Ok(End { reason: StreamEndReason::Lost, status: None }),
                    Err(status) => return Ok(self.on_broken(status)),
                },
            }
        }
    }

    /// Waits until the pending acknowledgement may be sent; forever when there is none.
    fn acknowledgement_due(&self) -> impl Future<Output = ()> + use<F> {
        let due = self.pending.map(|_| self.acknowledged_at.map(|at| at + ACKNOWLEDGE_INTERVAL));
        async move {
            match due {
                Some(Some(at)) => sleep_until(at).await,
                Some(None) => {}
                None => std::future::pending().await,
            }
        }
    }

    async fn acknowledge(&mut self) -> Result<(), End> {
        if let Some(sequence) = self.pending.take() {
            self.acknowledged_at = Some(Instant::now());
            self.outbox.send(control_message::Body::Acknowledge(Acknowledge { sequence })).await?;
        }
        Ok(())
    }

    /// Some(end) when this was the last message.
    async fn on_message(&mut self, message: Bytes) -> Result<Option<End>, End> {
        let outline = outline(&message);
        let limit = self.context.limits.report_bytes as usize;
        let size = message.len();
        let too_large = if size > limit {
            Some(format!("it has {size} bytes, and {limit} are allowed: send it in parts"))
        } else if outline.records > RECORDS_MAX {
            Some(format!("it has {} records, and {RECORDS_MAX} are allowed: send it in parts", outline.records))
        } else {
            None
        };
        if let Some(detail) = too_large {
            return self.reject(outline.sequence, RejectReason::TooLarge, detail, true).await.map(|()| None);
        }
        let body = match ProbeMessage::decode(message) {
            Ok(message) => message.body,
            Err(error) => {
                let detail = format!("it cannot be decoded: {error}");
                return self.reject(outline.sequence, RejectReason::Malformed, detail, true).await.map(|()| None);
            }
        };
        match body {
            Some(probe_message::Body::Report(report)) => self.on_report(report, size).await,
            Some(probe_message::Body::Goodbye(goodbye)) => {
                tracing::debug!(probe = &**self.probe, reason = goodbye.reason, "probe said goodbye");
                Ok(Some(End { reason: StreamEndReason::Goodbye, status: None }))
            }
            Some(probe_message::Body::Hello(_)) => {
                let status = Status::invalid_argument("a hello comes first and only once");
                Ok(Some(End { reason: StreamEndReason::Broken, status: Some(status) }))
            }
            Some(probe_message::Body::ControlAnswer(answer)) => {
                if let Some(pump) = orders::answered(self.link, answer) {
                    self.context.supervisor.one_off("pipe", pump.run());
                }
                Ok(None)
            }
            Some(probe_message::Body::Pipe(pipe)) => {
                orders::said(self.link, pipe);
                Ok(None)
            }
            // From a probe that is newer than we are.
            None => Ok(None),
        }
    }

    async fn on_report(&mut self, report: proto::probe::v1::Report, bytes: usize) -> Result<Option<End>, End> {
        let received = Instant::now();
        let now = self.context.clock.now();
        let sequence = report.sequence;
        let converted = match convert::report(report, &self.hello.host_name, now) {
            Ok(converted) => converted,
            Err(fault) => {
                let (reason, detail) = match fault {
                    Fault::Malformed(detail) => (RejectReason::Malformed, detail),
                    Fault::WrongHost(detail) => (RejectReason::WrongHost, detail),
                };
                return self.reject(sequence, reason, detail, true).await.map(|()| None);
            }
        };
        if converted.repairs != Repairs::default() {
            let Repairs { times_clamped, texts_cut, names_left_out, lists_cut } = converted.repairs;
            ReportRepaired { probe: self.probe, times_clamped, texts_cut, names_left_out, lists_cut }.emit(&self.context.telemetry);
        }
        let lag = now.since(converted.report.observed_at);
        match self.context.topology.report(self.probe.clone(), self.stream, converted.report).await? {
            ReportOutcome::Applied => {
                let apply = received.elapsed();
                ReportApplied { lag, apply, bytes }.emit(&self.context.telemetry);
                self.context.topology.gauges().lag_is(self.probe, Some(lag));
                self.rejections = 0;
                self.pending = Some(sequence);
                self.throttle(apply).await?;
                Ok(None)
            }
            ReportOutcome::Refused { reason, snapshot_needed: true } => {
                self.reject(sequence, RejectReason::OutOfOrder, reason, true).await.map(|()| None)
            }
            ReportOutcome::Refused { reason, snapshot_needed: false } => {
                self.reject(sequence, RejectReason::StaleStream, reason, false).await?;
                Ok(Some(stale()))
            }
        }
    }

    async fn reject(&mut self, sequence: u64, reason: RejectReason, detail: String, snapshot_needed: bool) -> Result<(), End> {
        ReportRejected { probe: self.probe, sequence, reason, detail: &detail }.emit(&self.context.telemetry);
        // What was applied before is acknowledged first, so that the probe knows where it stands.
        self.acknowledge().await?;
        self.outbox.send(control_message::Body::Rejected(Rejected { sequence, reason: detail, snapshot_needed })).await?;
        // The probe may have sent more before it reads this; those are refused, too, and only a long row of them is slowed down.
        self.rejections = self.rejections.saturating_add(1);
        if let Some(doublings) = self.rejections.checked_sub(4) {
            let pause = REJECTION_PAUSE.saturating_mul(1 << doublings.min(10)).min(REJECTION_PAUSE_MAX);
            let stopping = self.context.supervisor.stopping();
            tokio::select! {
                () = sleep(pause) => {}
                () = stopping.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Asks the probe to send less often while we are behind.
    async fn throttle(&mut self, apply: Duration) -> Result<(), End> {
        let throttled = if self.throttled { apply > BEHIND / 5 } else { apply > BEHIND };
        if throttled != self.throttled {
            self.throttled = throttled;
            let interval = if throttled { THROTTLED_INTERVAL } else { Duration::ZERO };
            let min_interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
            self.outbox.send(control_message::Body::Throttle(Throttle { min_interval_ms })).await?;
        }
        Ok(())
    }

    /// The stream cannot be read any further: the connection is lost, or a message was larger than we are ready to hold.
    fn on_broken(&self, status: Status) -> End {
        match status.code() {
            tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
                let detail = format!("it is more than twice as large as allowed: {}", status.message());
                ReportRejected { probe: self.probe, sequence: 0, reason: RejectReason::TooLarge, detail: &detail }
                    .emit(&self.context.telemetry);
                End { reason: StreamEndReason::Broken, status: Some(status) }
            }
            _ => End { reason: StreamEndReason::Lost, status: None },
        }
    }
}

fn stale() -> End {
    End { reason: StreamEndReason::Replaced, status: Some(Status::aborted("a newer stream of this probe has replaced this one")) }
}
