//! The one owner of the pure middle: everything that the edges learn comes through its inbox, everything that is told goes out of its hands.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proto::probe::v1;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::budget::Pace;
use crate::clock::Now;
use crate::containers::reading::Readings;
use crate::containers::{ContainerFacts, Source};
use crate::dns::kept;
use crate::observation::{BootNanos, FlowEnd, ListenersThere, Observation, OpenEnds, ProcessStarted};
use crate::processes::Details;
use crate::procfs::Procfs;
use crate::procfs::describer::Describer;
use crate::procfs::sampler::{Round, SampledContainer};
use crate::publisher::Publisher;
use crate::report::{Samples, SnapshotCursor, Wanted};
use crate::stream::{Line, StreamEvent};
use crate::telemetry::Telemetry;
use crate::unix_flows::UnixLook;

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

/// At the end, the processes that began last have this long to be described.
const LAST_DETAILS: Duration = Duration::from_millis(200);

/// The edge that reads `/proc`, among those with blind spots.
const HANGING: &str = "hanging";

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
    /// A container of which a runtime tells little now: what is known of it beside that stays.
    ContainerOutlined(Box<ContainerFacts>),
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
    /// A runtime is not followed any more.
    RuntimeUnfollowed(Source),
    /// The socket of a runtime is there, and the runtime is asked what it has.
    RuntimeFound {
        /// Which runtime.
        source: Source,
        /// It and its socket, for people.
        what: String,
    },
    /// A runtime that was found told of all its containers, or has nothing to tell.
    RuntimeRead(Source),
    /// A runtime whose socket is there, or was, does not tell what it has.
    RuntimeSilent {
        /// Which runtime.
        source: Source,
        /// It and its socket, for people.
        what: String,
        /// Why, for people.
        reason: String,
    },
    /// An image.
    Image(v1::Image),
    /// Which containers want samples?
    ContainersWanted(oneshot::Sender<Vec<SampledContainer>>),
    /// Which ends of flows are known?
    EndsWanted(oneshot::Sender<HashSet<FlowEnd>>),
    /// Names that an earlier probe of this node knew.
    NamesKept(kept::Names),
    /// All names, if they have changed.
    NamesWanted {
        /// What whoever asks has.
        newer_than: u64,
        /// `None` when nothing has changed.
        reply: oneshot::Sender<Option<kept::Copy>>,
    },
    /// What should be looked at once more?
    DoubtsWanted(oneshot::Sender<Doubts>),
    /// Which connections the kernel has open.
    OpenEnds(Box<OpenEnds>),
    /// Which sockets listen.
    ListenersThere(Box<ListenersThere>),
    /// All connections over Unix sockets.
    UnixFlows(Box<UnixLook>),
    /// Samples, and what the walk saw.
    Round(Box<Round>),
    /// What is known now?
    LookWanted(oneshot::Sender<Look>),
    /// Something happened to the stream.
    Stream(StreamEvent),
}

/// What is not known for sure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubts {
    /// Who holds a listener.
    pub holders: bool,
    /// So many changes of connections were lost: some that are told as open may have ended.
    pub ends_lost: u64,
    /// So many records of listeners were lost: some are missing, and some that are told may be gone.
    pub listeners_lost: u64,
}

impl From<StreamEvent> for Input {
    fn from(event: StreamEvent) -> Self {
        Input::Stream(event)
    }
}

/// Everything that is known at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// A whole snapshot.
    pub report: v1::Report,
    /// The latest samples; none of a driver that does not keep them.
    pub samples: Samples,
    /// When.
    pub now: Now,
    /// Runtimes that have not told of all their containers.
    pub readings: Readings,
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    publisher: Publisher,
    procfs: Arc<Procfs>,
    describer: Describer,
    /// Processes whose command lines could not be read, when that was last told.
    hanging: usize,
    telemetry: Telemetry,
    line: Line,
    capture: v1::Capture,
    /// Beside those of the capture, by the edge that has them.
    blind_spots: BTreeMap<&'static str, String>,
    details: Budget,
    wanted: Vec<Wanted>,
    /// Containers that a runtime should be asked for.
    looks: broadcast::Sender<Arc<str>>,
    /// When the events happened that no report has told yet.
    untold: Untold,
    /// Runtimes that have not told of all their containers.
    readings: Readings,
    /// The latest samples, for whoever looks; `None` where nobody does.
    samples: Option<Samples>,
}

impl Driver {
    /// A driver of `publisher`.
    pub fn new(publisher: Publisher, procfs: Arc<Procfs>, telemetry: Telemetry) -> Self {
        Driver {
            publisher,
            describer: Describer::new(procfs.clone()),
            procfs,
            hanging: 0,
            line: Line::new(telemetry.metrics().stream()),
            telemetry,
            capture: v1::Capture::default(),
            blind_spots: BTreeMap::new(),
            details: Budget { left: DETAILS_BURST, filled_at: Instant::now(), pace: Pace::default() },
            wanted: Vec::new(),
            looks: broadcast::Sender::new(LOOKS_MAX),
            untold: Untold::default(),
            readings: Readings::default(),
            samples: None,
        }
    }

    /// Somebody will look ([`Input::LookWanted`]): samples are kept for that.
    #[must_use]
    pub fn looked_at(mut self) -> Self {
        self.samples = Some(Samples::default());
        self
    }

    /// Reads fewer details while there is not enough budget.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.details.pace = pace;
        self
    }

    /// Tells how often the control plane wants samples, if it said so.
    pub fn metrics_interval(&self) -> tokio::sync::watch::Receiver<Option<Duration>> {
        self.line.metrics_interval()
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
            self.line.give_up_if_silent(&mut self.publisher);
            let deadline = self.publisher.next_deadline();
            let pause = Duration::from_nanos(deadline.0.saturating_sub(now.boot.0)).max(Duration::from_millis(1));
            tokio::select! {
                batch = observations.recv(), if open => match batch {
                    Some(batch) => self.observe(batch),
                    None => open = false,
                },
                input = inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => break,
                },
                permit = self.line.room(&self.publisher) => match permit {
                    Some(permit) => {
                        self.line.send(&mut self.publisher, permit);
                        self.untold.told(&self.publisher, &self.telemetry.metrics().event_delivery_seconds);
                    }
                    None => self.line.ended(&mut self.publisher),
                },
                details = self.describer.next() => self.described(&details),
                () = tokio::time::sleep(pause) => {}
                () = finish.cancelled() => break,
            }
        }
        // What the capture delivered last is in the channel.
        while let Ok(batch) = observations.try_recv() {
            self.observe(batch);
        }
        let described = async {
            while self.describer.outstanding() > 0 {
                let details = self.describer.next().await;
                self.described(&details);
            }
        };
        drop(tokio::time::timeout(LAST_DETAILS, described).await);
        let capture = self.whole_capture();
        let farewell = self.line.finish(&mut self.publisher, &mut inputs, stream_event, &capture, Some("the probe stops"));
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::warn!("the control plane did not take everything that was left to tell");
        }
    }

    fn observe(&mut self, batch: Vec<Observation>) {
        for observation in batch {
            numbers::count(self.telemetry.metrics(), &observation);
            self.untold.happened(&self.publisher, &observation);
            self.publisher.builder.observe(observation, &mut self.wanted);
            self.look_up();
        }
        for container in self.publisher.builder.take_looks() {
            // Nobody may listen.
            drop(self.looks.send(container));
        }
    }

    /// Asks `/proc` what the tables want to know: at once, because a process may live for a millisecond.
    fn look_up(&mut self) {
        while let Some(wanted) = self.wanted.pop() {
            let (Wanted::Details(pid) | Wanted::Again(pid)) = wanted;
            if self.describer.awaits(pid) {
                continue;
            }
            let is_asked = self.details.take() && self.describer.ask(pid);
            // What is old comes around by itself.
            if !is_asked && wanted == Wanted::Details(pid) {
                self.telemetry.metrics().details_deferred.inc();
            }
        }
    }

    /// `/proc` was read.
    fn described(&mut self, details: &[Details]) {
        details.iter().for_each(|it| self.publisher.builder.described(it));
        self.publisher.builder.settle(Now::read());
        self.tell_hanging();
    }

    /// Says how many processes hang, when that has changed.
    fn tell_hanging(&mut self) {
        let hanging = self.procfs.hanging();
        if hanging == self.hanging {
            return;
        }
        self.hanging = hanging;
        if hanging == 0 {
            self.blind_spots.remove(HANGING);
        } else {
            let sentence = format!("The command lines of {hanging} processes cannot be read: they hang in the kernel.");
            self.blind_spots.insert(HANGING, sentence);
        }
        self.publish_capture();
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
            Input::Described(details) => self.described(&details),
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
            Input::ContainerOutlined(facts) => builder.outline_container(now, *facts),
            Input::ContainerGone { source, id } => builder.remove_container(now, source, &id),
            Input::ContainersListed { source, ids } => builder.keep_only_containers(now, source, &ids),
            Input::RuntimeLost(source) => builder.lose_runtime(now, source),
            Input::RuntimeUnfollowed(source) => {
                builder.unfollow_runtime(now, source);
                self.read(|readings| readings.done(source));
            }
            Input::RuntimeFound { source, what } => self.read(|readings| readings.begin(source, what)),
            Input::RuntimeRead(source) => self.read(|readings| readings.done(source)),
            Input::RuntimeSilent { source, what, reason } => self.read(|readings| readings.failed(source, what, reason)),
            Input::Image(image) => builder.put_image(image),
            // Whoever asked may have gone meanwhile.
            Input::ContainersWanted(reply) => drop(reply.send(numbers::sampled(builder))),
            Input::EndsWanted(reply) => drop(reply.send(builder.flows().after(0).map(|(_, flow)| flow.end).collect())),
            Input::NamesKept(names) => builder.restore_names(now, names),
            Input::NamesWanted { newer_than, reply } => drop(reply.send(numbers::names(builder, newer_than, now))),
            Input::DoubtsWanted(reply) => {
                let (ends_lost, listeners_lost) = builder.records_lost();
                drop(reply.send(Doubts { holders: builder.listeners().wants_holders(), ends_lost, listeners_lost }));
            }
            Input::OpenEnds(open) => builder.close_lost(&open),
            Input::ListenersThere(there) => builder.keep_only_listeners(&there),
            Input::UnixFlows(look) => {
                builder.set_unix_flows(&look);
                numbers::publish_unix_flows(self.telemetry.metrics(), builder);
            }
            Input::Round(round) => self.on_round(now, *round),
            Input::LookWanted(reply) => {
                let report = builder.next_part(&mut SnapshotCursor::default(), now, usize::MAX).unwrap_or_default();
                drop(reply.send(Look { report, samples: self.samples.clone().unwrap_or_default(), now, readings: self.readings.clone() }));
            }
            Input::Stream(event) => {
                let capture = self.whole_capture();
                self.line.on_event(&mut self.publisher, event, &capture);
            }
        }
    }

    /// How the probe sees, with the blind spots of all edges.
    fn whole_capture(&self) -> v1::Capture {
        let mut capture = self.capture.clone();
        capture.blind_spots.extend(self.blind_spots.values().cloned().chain(self.readings.silences()));
        capture
    }

    /// Something is known of a runtime; what cannot be seen for that is told, if it has changed.
    fn read(&mut self, change: impl FnOnce(&mut Readings)) {
        let before: Vec<String> = self.readings.silences().collect();
        change(&mut self.readings);
        if !self.readings.silences().eq(before) {
            self.publish_capture();
        }
    }

    fn publish_capture(&mut self) {
        let capture = self.whole_capture();
        self.publisher.builder.set_capture(capture);
    }

    fn on_round(&mut self, now: Now, round: Round) {
        numbers::publish_round(self.telemetry.metrics(), &round);
        let builder = &mut self.publisher.builder;
        builder.set_users(round.users);
        if let Some(kept) = &mut self.samples {
            kept.clone_from(&round.samples);
        }
        builder.put_samples(now, round.samples);
        builder.reconcile(now, round.walked_at, &round.seen, &mut self.wanted);
        self.look_up();
        self.tell_hanging();
        numbers::publish(self.telemetry.metrics(), &self.publisher, &self.procfs);
    }
}

fn stream_event(input: Input) -> Option<StreamEvent> {
    match input {
        Input::Stream(event) => Some(event),
        _ => None,
    }
}

/// When events happened that wait to be told.
#[derive(Debug, Default)]
struct Untold {
    happened: Vec<BootNanos>,
}

impl Untold {
    /// Events that are timed in one report; the others of a burst waited no longer than these.
    const MOST: usize = 256;

    fn happened(&mut self, publisher: &Publisher, observation: &Observation) {
        let (Observation::ProcessStarted(ProcessStarted { at, .. })
        | Observation::ProcessExecuted { at, .. }
        | Observation::ProcessExited { at, .. }
        | Observation::FlowSeen { at, found_open: false, .. }) = observation
        else {
            return;
        };
        if self.happened.len() < Self::MOST && publisher.tells_at_once() {
            self.happened.push(*at);
        }
    }

    /// A report was handed to the stream.
    fn told(&mut self, publisher: &Publisher, delivery: &prometheus::Histogram) {
        if publisher.has_next() || publisher.builder.has_events() {
            return;
        }
        let now = Now::read().boot;
        for at in self.happened.drain(..) {
            delivery.observe(Duration::from_nanos(now.0.saturating_sub(at.0)).as_secs_f64());
        }
    }
}

/// How many reads of `/proc` are left.
#[derive(Debug)]
struct Budget {
    left: f64,
    filled_at: Instant,
    pace: Pace,
}

impl Budget {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let per_second = DETAILS_PER_SECOND / f64::from(self.pace.factor());
        self.left = (self.left + now.duration_since(self.filled_at).as_secs_f64() * per_second).min(DETAILS_BURST);
        self.filled_at = now;
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests;
