//! The driver's end of the stream: what arrives on it goes to the publisher, what the publisher has ready goes out on it, and a control plane
//! that acknowledges nothing is given up. The same for a node's stream and for a cluster's.

use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use proto::probe::v1::{self, Goodbye, ProbeMessage, probe_message};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::publisher::{Publisher, Source};

/// A control plane that acknowledges nothing for this long is given up: the stream is opened again.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

/// What happens to the stream.
#[derive(Debug)]
pub enum StreamEvent {
    /// It is about to be opened: what shall Hello say?
    Opening(oneshot::Sender<Opening>),
    /// It was welcomed.
    Welcomed {
        /// How.
        welcome: v1::Welcome,
        /// Where reports go.
        sender: mpsc::Sender<ProbeMessage>,
        /// Cancel it to end the stream.
        end: CancellationToken,
    },
    /// Reports up to this one are in the topology.
    Acknowledged(u64),
    /// A report was not applied.
    Rejected(v1::Rejected),
    /// The control plane is behind.
    Throttled(Duration),
    /// It ended.
    Ended,
}

/// The part of Hello that the driver knows.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// Oldest report that can be sent again.
    pub oldest_held: u64,
    /// How the probe sees.
    pub capture: v1::Capture,
}

/// Where a stream counts.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// 1 while it is welcomed.
    pub connected: IntGauge,
    /// Streams that were welcomed.
    pub opened: IntCounter,
    /// Reports handed to it.
    pub sent: IntCounter,
    /// Reports that the control plane did not apply.
    pub rejected: IntCounter,
    /// Encoded bytes that wait to be acknowledged.
    pub held_bytes: IntGauge,
}

/// The stream, while there is one.
#[derive(Debug)]
pub struct Line {
    stream: Option<Stream>,
    numbers: Numbers,
    /// How often samples are taken, as the control plane wishes.
    metrics_interval: watch::Sender<Option<Duration>>,
}

#[derive(Debug)]
struct Stream {
    sender: mpsc::Sender<ProbeMessage>,
    end: CancellationToken,
    acknowledged_at: Instant,
}

impl Line {
    /// Without a stream.
    pub fn new(numbers: Numbers) -> Self {
        Line { stream: None, numbers, metrics_interval: watch::Sender::new(None) }
    }

    /// Tells how often the control plane wants samples, if it said so.
    pub fn metrics_interval(&self) -> watch::Receiver<Option<Duration>> {
        self.metrics_interval.subscribe()
    }

    /// Whether a stream is open.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Takes in what happened. `capture`: what Hello says of how the probe sees.
    pub fn on_event<S: Source>(&mut self, publisher: &mut Publisher<S>, event: StreamEvent, capture: &v1::Capture) {
        match event {
            StreamEvent::Opening(reply) => {
                let opening = Opening { oldest_held: publisher.oldest_held(), capture: capture.clone() };
                // Whoever asked may have gone meanwhile.
                drop(reply.send(opening));
            }
            StreamEvent::Welcomed { welcome, sender, end } => {
                let max_report_bytes = usize::try_from(welcome.max_report_bytes).unwrap_or(usize::MAX);
                let resumed = publisher.connected(welcome.resume_after_sequence, max_report_bytes);
                tracing::info!(resume_after = welcome.resume_after_sequence, resumed, "control plane connected");
                self.numbers.connected.set(1);
                self.numbers.opened.inc();
                let interval = Some(Duration::from_millis(welcome.metrics_interval_ms.into())).filter(|it| !it.is_zero());
                self.metrics_interval.send_replace(interval);
                self.stream = Some(Stream { sender, end, acknowledged_at: Instant::now() });
            }
            StreamEvent::Acknowledged(sequence) => {
                publisher.acknowledged(sequence);
                if let Some(stream) = &mut self.stream {
                    stream.acknowledged_at = Instant::now();
                }
            }
            StreamEvent::Rejected(rejected) => {
                let v1::Rejected { sequence, reason, snapshot_needed } = rejected;
                tracing::warn!(sequence, reason, snapshot_needed, "the control plane did not apply a report");
                self.numbers.rejected.inc();
                publisher.rejected(sequence, snapshot_needed);
            }
            StreamEvent::Throttled(min_interval) => publisher.throttled(min_interval),
            StreamEvent::Ended => self.ended(publisher),
        }
        self.numbers.held_bytes.set(i64::try_from(publisher.held_bytes()).unwrap_or(i64::MAX));
    }

    /// The stream has ended.
    pub fn ended<S: Source>(&mut self, publisher: &mut Publisher<S>) {
        if self.stream.take().is_some() {
            publisher.disconnected();
            self.numbers.connected.set(0);
        }
    }

    /// Ends the stream, if a control plane that should have acknowledged something has not for too long.
    pub fn give_up_if_silent<S: Source>(&mut self, publisher: &mut Publisher<S>) {
        let Some(stream) = &self.stream else { return };
        if publisher.awaits_acknowledgement() && stream.acknowledged_at.elapsed() > ACKNOWLEDGED_WITHIN {
            tracing::warn!(waited = ?ACKNOWLEDGED_WITHIN, "the control plane acknowledges nothing; the stream is opened again");
            stream.end.cancel();
            self.ended(publisher);
        }
    }

    /// Waits for room in the stream: for ever when there is no stream, or nothing to send; `None` when the stream has ended.
    pub fn room<S: Source>(&self, publisher: &Publisher<S>) -> impl Future<Output = Option<mpsc::OwnedPermit<ProbeMessage>>> + use<S> {
        room(self.stream.as_ref().filter(|_| publisher.has_next()).map(|stream| stream.sender.clone()))
    }

    /// Sends the next report.
    pub fn send<S: Source>(&mut self, publisher: &mut Publisher<S>, permit: mpsc::OwnedPermit<ProbeMessage>) {
        let Some(report) = publisher.take_next() else { return };
        if let Some(stream) = &mut self.stream
            && !publisher.awaited_before(report.sequence)
        {
            stream.acknowledged_at = Instant::now();
        }
        self.numbers.sent.inc();
        permit.send(ProbeMessage { body: Some(probe_message::Body::Report(report)) });
    }

    /// Tells what is left, waits until it is acknowledged, and ends the stream: with a Goodbye, if a reason for one is given. `event` picks what
    /// concerns the stream out of what comes in.
    pub async fn finish<S: Source, I>(
        &mut self,
        publisher: &mut Publisher<S>,
        inputs: &mut mpsc::Receiver<I>,
        event: impl Fn(I) -> Option<StreamEvent>,
        capture: &v1::Capture,
        goodbye: Option<&str>,
    ) {
        publisher.flush(Now::read());
        let Some(sender) = self.stream.as_ref().map(|stream| stream.sender.clone()) else { return };
        loop {
            publisher.poll(Now::read());
            while publisher.has_next() {
                let Some(permit) = room(Some(sender.clone())).await else { return };
                self.send(publisher, permit);
            }
            if !publisher.awaits_acknowledgement() {
                break;
            }
            // A Goodbye makes the node leave at once: the last reports are to be applied before.
            match inputs.recv().await {
                Some(input) => {
                    if let Some(event) = event(input) {
                        self.on_event(publisher, event, capture);
                    }
                }
                None => break,
            }
            if self.stream.is_none() {
                return;
            }
        }
        if let Some(reason) = goodbye {
            let goodbye = Goodbye { reason: reason.to_owned() };
            // If the stream has ended, nobody is there to say goodbye to.
            drop(sender.send(ProbeMessage { body: Some(probe_message::Body::Goodbye(goodbye)) }).await);
        }
    }
}

async fn room(sender: Option<mpsc::Sender<ProbeMessage>>) -> Option<mpsc::OwnedPermit<ProbeMessage>> {
    match sender {
        Some(sender) => sender.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}
