//! The one owner of the pure middle: everything that the edges learn comes through its inbox, everything that is told goes out of its hands.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proto::probe::v1::{self, Goodbye, ProbeMessage, probe_message};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::containers::{ContainerFacts, Source};
use crate::observation::{FlowEnd, Observation, ProcessStarted};
use crate::processes::Details;
use crate::procfs::Procfs;
use crate::procfs::sampler::{Round, SampledContainer};
use crate::publisher::Publisher;
use crate::report::Wanted;
use crate::telemetry::Telemetry;

mod numbers;

/// Batches of observations that wait at most; then the capture waits, and behind it the kernel's rings, which count what they lose.
pub const OBSERVATIONS_MAX: usize = 64;

/// Other inputs that wait at most.
pub const INPUTS_MAX: usize = 256;

/// Containers that wait to be asked for at most, per runtime; its next list has the rest.
const LOOKS_MAX: usize = 256;

/// Processes that are read from `/proc` at most per second, and at once. Beyond it details come with the next round of samples.
const DETAILS_PER_SECOND: f64 = 500.0;
const DETAILS_BURST: f64 = 1_000.0;

/// A control plane that acknowledges nothing for this long is given up: the stream is opened again.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

/// What is left to tell at the end has this long to go out.
const FAREWELL: Duration = Duration::from_millis(1_500);

/// Everything that can come in besides observations.
#[derive(Debug)]
pub enum Input {
    /// Observations that have to come before other inputs.
    Observed(Vec<Observation>),
    /// Processes that were there; `/proc` is asked about them next.
    Found(Vec<ProcessStarted>),
    /// What `/proc` says of processes.
    Described(Vec<Details>),
    /// Facts of the host.
    Host(Box<v1::Host>),
    /// How the probe sees from now on.
    Capture(v1::Capture),
    /// What an edge beside the capture cannot see, or that it sees again.
    BlindSpot {
        /// Which edge.
        cause: &'static str,
        /// For people; `None` when there is nothing to say.
        sentence: Option<String>,
    },
    /// A container as it is now.
    Container(Box<ContainerFacts>),
    /// A container that was removed.
    ContainerGone {
        /// Who says so.
        source: Source,
        /// Its id.
        id: String,
    },
    /// All containers of a runtime.
    ContainersListed {
        /// Which runtime.
        source: Source,
        /// Their ids.
        ids: BTreeSet<String>,
    },
    /// A runtime does not answer any more.
    RuntimeLost(Source),
    /// An image.
    Image(v1::Image),
    /// Which containers want samples?
    ContainersWanted(oneshot::Sender<Vec<SampledContainer>>),
    /// Which ends of flows are known?
    EndsWanted(oneshot::Sender<HashSet<FlowEnd>>),
    /// Samples, and what the walk saw.
    Round(Box<Round>),
    /// Something happened to the stream.
    Stream(StreamEvent),
}

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

/// The driver.
#[derive(Debug)]
pub struct Driver {
    publisher: Publisher,
    procfs: Arc<Procfs>,
    telemetry: Telemetry,
    stream: Option<Stream>,
    capture: v1::Capture,
    /// Beside those of the capture, by the edge that has them.
    blind_spots: BTreeMap<&'static str, String>,
    details: Budget,
    wanted: Vec<Wanted>,
    /// How often samples are taken, as the control plane wishes.
    metrics_interval: tokio::sync::watch::Sender<Option<Duration>>,
    /// Containers that a runtime should be asked for.
    looks: broadcast::Sender<Arc<str>>,
}

#[derive(Debug)]
struct Stream {
    sender: mpsc::Sender<ProbeMessage>,
    end: CancellationToken,
    acknowledged_at: Instant,
}

impl Driver {
    /// A driver of `publisher`.
    pub fn new(publisher: Publisher, procfs: Arc<Procfs>, telemetry: Telemetry) -> Self {
        Driver {
            publisher,
            procfs,
            telemetry,
            stream: None,
            capture: v1::Capture::default(),
            blind_spots: BTreeMap::new(),
            details: Budget { left: DETAILS_BURST, filled_at: Instant::now() },
            wanted: Vec::new(),
            metrics_interval: tokio::sync::watch::Sender::new(None),
            looks: broadcast::Sender::new(LOOKS_MAX),
        }
    }

    /// Tells how often the control plane wants samples, if it said so.
    pub fn metrics_interval(&self) -> tokio::sync::watch::Receiver<Option<Duration>> {
        self.metrics_interval.subscribe()
    }

    /// Tells of containers whose cgroups came or went: who can say more of them is to look.
    pub fn container_looks(&self) -> broadcast::Sender<Arc<str>> {
        self.looks.clone()
    }

    /// Runs until `finish` is cancelled; then tells what is left and says goodbye.
    pub async fn run(
        mut self,
        mut observations: mpsc::Receiver<Vec<Observation>>,
        mut inputs: mpsc::Receiver<Input>,
        finish: CancellationToken,
    ) {
        let mut open = true;
        loop {
            let now = Now::read();
            self.publisher.poll(now);
            self.give_up_silent_stream();
            let deadline = self.publisher.next_deadline();
            let pause = Duration::from_nanos(deadline.0.saturating_sub(now.boot.0)).max(Duration::from_millis(1));
            let sender = self.stream.as_ref().filter(|_| self.publisher.has_next()).map(|stream| stream.sender.clone());
            tokio::select! {
                batch = observations.recv(), if open => match batch {
                    Some(batch) => self.observe(batch),
                    None => open = false,
                },
                input = inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => break,
                },
                permit = room(sender) => match permit {
                    Some(permit) => self.send(permit),
                    None => self.stream_ended(),
                },
                () = tokio::time::sleep(pause) => {}
                () = finish.cancelled() => break,
            }
        }
        // What the capture delivered last is in the channel.
        while let Ok(batch) = observations.try_recv() {
            self.observe(batch);
        }
        if tokio::time::timeout(FAREWELL, self.say_goodbye(&mut inputs)).await.is_err() {
            tracing::warn!("the control plane did not take everything that was left to tell");
        }
    }

    fn observe(&mut self, batch: Vec<Observation>) {
        for observation in batch {
            numbers::count(self.telemetry.metrics(), &observation);
            self.publisher.builder.observe(observation, &mut self.wanted);
            self.look_up();
        }
        for container in self.publisher.builder.take_looks() {
            // Nobody may listen.
            drop(self.looks.send(container));
        }
    }

    /// Reads from `/proc` what the tables asked for: at once, because a process may live for a millisecond.
    fn look_up(&mut self) {
        let mut described = false;
        while let Some(Wanted::Details(pid)) = self.wanted.pop() {
            if !self.details.take() {
                self.telemetry.metrics().details_deferred.inc();
                continue;
            }
            if let Ok(details) = self.procfs.details(pid) {
                self.publisher.builder.described(&details);
                described = true;
            }
        }
        if described {
            self.publisher.builder.settle(Now::read());
        }
    }

    fn take(&mut self, input: Input) {
        let now = Now::read();
        let builder = &mut self.publisher.builder;
        match input {
            Input::Observed(batch) => self.observe(batch),
            Input::Found(processes) => {
                let mut asked_about_anyway = Vec::new();
                processes.into_iter().for_each(|it| builder.observe(Observation::ProcessStarted(it), &mut asked_about_anyway));
                builder.settle(now);
            }
            Input::Described(details) => {
                details.iter().for_each(|it| builder.described(it));
                builder.settle(now);
            }
            Input::Host(host) => builder.set_host(*host),
            Input::Capture(capture) => {
                self.telemetry.metrics().rung.set(capture.rung.into());
                self.capture = capture;
                self.publish_capture();
            }
            Input::BlindSpot { cause, sentence } => {
                match sentence {
                    Some(sentence) => drop(self.blind_spots.insert(cause, sentence)),
                    None => drop(self.blind_spots.remove(cause)),
                }
                self.publish_capture();
            }
            Input::Container(facts) => builder.put_container(now, *facts),
            Input::ContainerGone { source, id } => builder.remove_container(now, source, &id),
            Input::ContainersListed { source, ids } => builder.keep_only_containers(now, source, &ids),
            Input::RuntimeLost(source) => builder.lose_runtime(source),
            Input::Image(image) => builder.put_image(image),
            // Whoever asked may have gone meanwhile.
            Input::ContainersWanted(reply) => drop(reply.send(numbers::sampled(builder.containers()))),
            Input::EndsWanted(reply) => drop(reply.send(builder.flows().after(0).map(|(_, flow)| flow.end).collect())),
            Input::Round(round) => self.on_round(now, *round),
            Input::Stream(event) => self.on_stream(event),
        }
    }

    /// How the probe sees, with the blind spots of all edges.
    fn whole_capture(&self) -> v1::Capture {
        let mut capture = self.capture.clone();
        capture.blind_spots.extend(self.blind_spots.values().cloned());
        capture
    }

    fn publish_capture(&mut self) {
        let capture = self.whole_capture();
        self.publisher.builder.set_capture(capture);
    }

    fn on_round(&mut self, now: Now, round: Round) {
        numbers::publish_round(self.telemetry.metrics(), &round);
        let builder = &mut self.publisher.builder;
        builder.set_users(round.users);
        builder.put_samples(now, round.samples);
        builder.reconcile(round.walked_at, &round.seen, &mut self.wanted);
        self.look_up();
        numbers::publish(self.telemetry.metrics(), &self.publisher, &self.procfs);
    }

    fn on_stream(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Opening(reply) => {
                let opening = Opening { oldest_held: self.publisher.oldest_held(), capture: self.whole_capture() };
                drop(reply.send(opening));
            }
            StreamEvent::Welcomed { welcome, sender, end } => {
                let resumed = self
                    .publisher
                    .connected(welcome.resume_after_sequence, usize::try_from(welcome.max_report_bytes).unwrap_or(usize::MAX));
                tracing::info!(resume_after = welcome.resume_after_sequence, resumed, "control plane connected");
                self.telemetry.metrics().stream_connected.set(1);
                self.telemetry.metrics().streams_opened.inc();
                let interval = Some(Duration::from_millis(welcome.metrics_interval_ms.into())).filter(|it| !it.is_zero());
                self.metrics_interval.send_replace(interval);
                self.stream = Some(Stream { sender, end, acknowledged_at: Instant::now() });
            }
            StreamEvent::Acknowledged(sequence) => {
                self.publisher.acknowledged(sequence);
                if let Some(stream) = &mut self.stream {
                    stream.acknowledged_at = Instant::now();
                }
            }
            StreamEvent::Rejected(rejected) => {
                let v1::Rejected { sequence, reason, snapshot_needed } = rejected;
                tracing::warn!(sequence, reason, snapshot_needed, "the control plane did not apply a report");
                self.telemetry.metrics().reports_rejected.inc();
                self.publisher.rejected(sequence, snapshot_needed);
            }
            StreamEvent::Throttled(min_interval) => self.publisher.throttled(min_interval),
            StreamEvent::Ended => self.stream_ended(),
        }
        self.telemetry.metrics().outbox_bytes.set(i64::try_from(self.publisher.held_bytes()).unwrap_or(i64::MAX));
    }

    fn stream_ended(&mut self) {
        if self.stream.take().is_some() {
            self.publisher.disconnected();
            self.telemetry.metrics().stream_connected.set(0);
        }
    }

    fn send(&mut self, permit: mpsc::OwnedPermit<ProbeMessage>) {
        let Some(report) = self.publisher.take_next() else { return };
        if let Some(stream) = &mut self.stream
            && !self.publisher.awaited_before(report.sequence)
        {
            stream.acknowledged_at = Instant::now();
        }
        self.telemetry.metrics().reports_sent.inc();
        permit.send(ProbeMessage { body: Some(probe_message::Body::Report(report)) });
    }

    fn give_up_silent_stream(&mut self) {
        let Some(stream) = &self.stream else { return };
        if self.publisher.awaits_acknowledgement() && stream.acknowledged_at.elapsed() > ACKNOWLEDGED_WITHIN {
            tracing::warn!(waited = ?ACKNOWLEDGED_WITHIN, "the control plane acknowledges nothing; the stream is opened again");
            stream.end.cancel();
            self.stream_ended();
        }
    }

    async fn say_goodbye(&mut self, inputs: &mut mpsc::Receiver<Input>) {
        self.publisher.flush(Now::read());
        let Some(sender) = self.stream.as_ref().map(|stream| stream.sender.clone()) else { return };
        loop {
            self.publisher.poll(Now::read());
            while self.publisher.has_next() {
                let Some(permit) = room(Some(sender.clone())).await else { return };
                self.send(permit);
            }
            if !self.publisher.awaits_acknowledgement() {
                break;
            }
            // A Goodbye makes the node leave at once: the last reports are to be applied before.
            match inputs.recv().await {
                Some(Input::Stream(event)) => self.on_stream(event),
                Some(_) => {}
                None => break,
            }
            if self.stream.is_none() {
                return;
            }
        }
        let goodbye = Goodbye { reason: "the probe stops".to_owned() };
        // If the stream has ended, nobody is there to say goodbye to.
        drop(sender.send(ProbeMessage { body: Some(probe_message::Body::Goodbye(goodbye)) }).await);
    }
}

/// Room in the stream; never, when there is no stream or nothing to send. `None` when the stream has ended.
async fn room(sender: Option<mpsc::Sender<ProbeMessage>>) -> Option<mpsc::OwnedPermit<ProbeMessage>> {
    match sender {
        Some(sender) => sender.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

/// How many reads of `/proc` are left.
#[derive(Debug)]
struct Budget {
    left: f64,
    filled_at: Instant,
}

impl Budget {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        self.left = (self.left + now.duration_since(self.filled_at).as_secs_f64() * DETAILS_PER_SECOND).min(DETAILS_BURST);
        self.filled_at = now;
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }
}
