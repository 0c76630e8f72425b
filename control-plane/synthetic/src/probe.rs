//! One probe: its connection, its stream, and when it tells what.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use proto::probe::v1::probe_service_client::ProbeServiceClient;
use proto::probe::v1::{Capture, Goodbye, Hello, ProbeMessage, Report, control_message, probe_message};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::node::Node;
use crate::random::Random;
use crate::statistics::Statistics;
use crate::world::World;

/// Reports that wait for an answer at most; a probe that is so far behind tells nothing new for a while, as a real one does.
const UNANSWERED_MAX: usize = 8;
/// Between two changes.
const CHANGE_INTERVAL: Duration = Duration::from_secs(1);

/// How much is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Share of everything that is replaced each second.
    pub(crate) change: f64,
    /// Between two samples.
    pub(crate) metrics_interval: Duration,
}

/// Runs until told to stop.
pub(crate) async fn run(
    endpoint: Endpoint,
    world: Arc<World>,
    host: u32,
    rates: Rates,
    statistics: Arc<Statistics>,
    mut stopping: watch::Receiver<bool>,
) -> Result<()> {
    // Not all at the same instant, for ever after.
    let mut random = Random::new(world.seed.wrapping_add(u64::from(host)));
    let mut offset = |span: Duration| span.mul_f64(random.share());
    let (first, samples) = (offset(CHANGE_INTERVAL), offset(rates.metrics_interval));
    let begun = Instant::now() + first;
    tokio::time::sleep_until(begun).await;
    let channel = endpoint.connect().await.with_context(|| format!("probe {host} cannot connect"))?;
    let (sender, receiver) = mpsc::channel(UNANSWERED_MAX + 2);
    sender.send(message(probe_message::Body::Hello(hello(host)))).await?;
    let mut client = ProbeServiceClient::new(channel);
    let mut answers = client.stream(ReceiverStream::new(receiver)).await?.into_inner();
    match answers.message().await?.and_then(|it| it.body) {
        Some(control_message::Body::Welcome(_)) => {}
        other => bail!("probe {host} was not welcomed: {other:?}"),
    }
    let mut node = Node::new(&world, host, unix_nanos());
    let snapshot = node.snapshot(&world, unix_nanos());
    let mut line = Line { sender, unanswered: Vec::new(), statistics: statistics.clone() };
    line.tell(snapshot).await?;
    let mut synchronized = false;
    // Whoever was held up goes on at its own moments: hosts that have waited for one and the same thing are not to march in step from then on.
    let mut change = tokio::time::interval_at(begun + CHANGE_INTERVAL, CHANGE_INTERVAL);
    change.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sample = tokio::time::interval_at(begun + samples, rates.metrics_interval);
    sample.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sample_due = false;
    loop {
        tokio::select! {
            answer = answers.message() => match answer?.and_then(|it| it.body) {
                Some(control_message::Body::Acknowledge(it)) => {
                    line.answered(it.sequence);
                    if !synchronized {
                        synchronized = true;
                        statistics.synchronized();
                    }
                }
                Some(control_message::Body::Rejected(it)) => {
                    statistics.rejected.fetch_add(1, Ordering::Relaxed);
                    bail!("report {} of probe {host} was rejected: {}", it.sequence, it.reason);
                }
                Some(control_message::Body::Throttle(_)) => drop(statistics.throttled.fetch_add(1, Ordering::Relaxed)),
                Some(_) => {}
                None => bail!("the control plane ended the stream of probe {host}"),
            },
            _ = sample.tick() => sample_due = true,
            _ = change.tick() => {
                if line.unanswered.len() >= UNANSWERED_MAX {
                    statistics.behind.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let now = unix_nanos();
                let mut report = node.change(&world, rates.change, now);
                if std::mem::take(&mut sample_due) {
                    node.sample(&mut report, now);
                }
                line.tell(report).await?;
            }
            () = async { drop(stopping.wait_for(|it| *it).await) } => {
                line.sender.send(message(probe_message::Body::Goodbye(Goodbye { reason: "the run is over".to_owned() }))).await?;
                return Ok(());
            }
        }
    }
}

struct Line {
    sender: mpsc::Sender<ProbeMessage>,
    unanswered: Vec<(u64, Instant)>,
    statistics: Arc<Statistics>,
}

impl Line {
    async fn tell(&mut self, report: Report) -> Result<()> {
        self.unanswered.push((report.sequence, Instant::now()));
        self.statistics.reports.fetch_add(1, Ordering::Relaxed);
        let message = message(probe_message::Body::Report(report));
        self.statistics.bytes.fetch_add(proto_len(&message), Ordering::Relaxed);
        self.sender.send(message).await.context("the stream is closed")
    }

    fn answered(&mut self, sequence: u64) {
        self.unanswered.retain(|(sent, at)| {
            if *sent <= sequence {
                self.statistics.applied(at.elapsed());
            }
            *sent > sequence
        });
    }
}

fn proto_len(message: &ProbeMessage) -> u64 {
    prost::Message::encoded_len(message) as u64
}

fn message(body: probe_message::Body) -> ProbeMessage {
    ProbeMessage { body: Some(body) }
}

fn hello(host: u32) -> Hello {
    Hello {
        probe_id: format!("synthetic-{host}"),
        host_name: World::host_name(host),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        session_id: format!("{}-{host}", unix_nanos()),
        capture: Some(Capture { rung: 1, description: "synthetic".to_owned(), ..Capture::default() }),
        ..Hello::default()
    }
}

fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX))
}
