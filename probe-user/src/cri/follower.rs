//! Follows one runtime over one connection.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use proto::cri::v1 as cri;
use proto::probe::v1::Image;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::Config;
use super::client::{Client, CriError};
use super::doubts::Doubts;
use super::facts::{self, Pod, Telling};
use super::looks::{Look, Looks};
use crate::containers::{CONTAINERS_MAX, Source};
use crate::driver::Input;
use crate::telemetry::{Metrics, Telemetry};
use asking::Asked;

mod asking;

/// How often a runtime is asked for all that it has: when it tells nothing by itself, and when it does.
const LIST_INTERVAL: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(30));

/// A list that makes up for a look that was dropped comes after this long.
const LIST_SOON: Duration = Duration::from_millis(500);

/// A stream of events that ended is asked for again after this long.
const EVENTS_AGAIN: Duration = Duration::from_secs(30);

/// A list asks until so many did not answer: the others come with the next one, and are told as this one has them meanwhile.
const SILENT_MAX: usize = 2;

/// No state of CRI's: of one that is to be asked for with the next list.
const UNASKED: i32 = -1;

/// Most pods and containers that are followed.
const FOLLOWED_MAX: usize = 2 * CONTAINERS_MAX;

/// Nobody listens any more.
#[derive(Debug)]
pub(super) struct Nobody;

type Events = Pin<Box<dyn Stream<Item = Result<cri::ContainerEventResponse, Status>> + Send>>;

/// What was told of a container, as far as it decides whether to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    state: i32,
    is_pod: bool,
}

pub(super) struct Follower {
    telling: Telling,
    /// Of metrics: few, whatever runtimes call themselves.
    label: &'static str,
    telemetry: Telemetry,
    inputs: mpsc::Sender<Input>,
    pods: HashMap<String, Pod>,
    known: HashMap<String, Known>,
    /// Containers that were told without what they have from their pods, with these.
    without_pod: HashMap<String, String>,
    images: HashMap<String, (Image, Instant)>,
    /// Why images are not told, and until when none is asked for.
    image_silence: Option<(String, Instant)>,
    looks: Looks,
    doubts: Doubts,
    /// Questions of the latest list that were not answered.
    silent: usize,
    /// The blind spot as it was last told.
    blind_spot: Option<String>,
    list_at: Instant,
    /// When the runtime is asked again for events that it ended.
    events_at: Option<Instant>,
    connected: bool,
    listed: bool,
    full: bool,
}

impl Follower {
    pub(super) fn new(source: Source, config: &Config, telemetry: Telemetry, inputs: mpsc::Sender<Input>) -> Self {
        let now = Instant::now();
        Follower {
            telling: Telling { source, runtime: String::new(), environment: config.environment, masks: config.masks.clone() },
            label: "other",
            telemetry,
            inputs,
            pods: HashMap::new(),
            known: HashMap::new(),
            without_pod: HashMap::new(),
            images: HashMap::new(),
            image_silence: None,
            looks: Looks::new(now),
            doubts: Doubts::default(),
            silent: 0,
            blind_spot: None,
            list_at: now,
            events_at: None,
            connected: false,
            listed: false,
            full: false,
        }
    }

    /// Whether the runtime answered and was not given up.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// The runtime's name, once it told it.
    pub(super) fn runtime(&self) -> &str {
        &self.telling.runtime
    }

    /// Returns `Ok` when nobody listens any more.
    pub(super) async fn follow(&mut self, socket: &Path, looks: &broadcast::Sender<Arc<str>>) -> Result<(), CriError> {
        let mut client = Client::connect(socket).await?;
        let version = client.version().await?;
        self.telling.runtime = facts::runtime_name(&version);
        self.label = match self.telling.runtime.as_str() {
            "containerd" => "containerd",
            "cri-o" => "cri-o",
            "docker" => "docker",
            _ => "other",
        };
        // From before the first list on: what changes while it is read is looked at again.
        let mut looks = looks.subscribe();
        let mut events: Option<Events> = facts::shares_events(&version).then(|| Box::pin(client.events()) as Events);
        match self.list(&mut client, events.is_some()).await {
            Ok(()) => {}
            Err(End::Nobody(_)) => return Ok(()),
            Err(End::Lost(error)) => return Err(error),
        }
        self.connected = true;
        if self.tell(Input::RuntimeRead(self.telling.source)).await.is_err() {
            return Ok(());
        }
        self.telemetry.metrics().runtime_connected.with_label_values(&[self.label]).inc();
        tracing::info!(
            socket = %socket.display(),
            runtime = self.telling.runtime,
            version = version.runtime_version,
            tells_events = events.is_some(),
            containers = self.known.len(),
            "container runtime connected"
        );
        loop {
            let told = self.tell_blind_spot(self.doubts.blind_spot(&self.telling.runtime)).await;
            if told.is_err() {
                return Ok(());
            }
            match self.step(&mut client, &mut events, &mut looks).await {
                Ok(()) => {}
                Err(End::Nobody(_)) => return Ok(()),
                Err(End::Lost(error)) => return Err(error),
            }
        }
    }

    /// The runtime is given up: what it told stays, until it is back or the cgroups say otherwise.
    pub(super) async fn disconnect(&mut self) -> Result<(), Nobody> {
        self.count(|metrics| &metrics.runtime_failures, 1);
        self.tell_blind_spot(None).await?;
        if std::mem::take(&mut self.connected) {
            self.telemetry.metrics().runtime_connected.with_label_values(&[self.label]).dec();
        } else if self.known.is_empty() {
            return Ok(());
        }
        self.tell(Input::RuntimeLost(self.telling.source)).await
    }

    async fn step(
        &mut self,
        client: &mut Client,
        events: &mut Option<Events>,
        looks: &mut broadcast::Receiver<Arc<str>>,
    ) -> Result<(), End> {
        let now = Instant::now();
        if let Some(look) = self.looks.due(now) {
            return self.look(client, look).await;
        }
        if self.list_at <= now {
            if self.events_at.is_some_and(|at| at <= now) {
                self.events_at = None;
                *events = Some(Box::pin(client.events()));
            }
            return self.list(client, events.is_some()).await;
        }
        if let Some(id) = self.doubts.due(now) {
            return self.ask_again(client, id).await;
        }
        let wake = [self.looks.next(now), self.doubts.next()].into_iter().flatten().fold(self.list_at, Instant::min);
        tokio::select! {
            event = next(events) => match event {
                Some(Ok(event)) => self.on_event(event).await?,
                // The runtime has no events after all, or ended them: lists have to do, for a while at least.
                ended => {
                    *events = None;
                    let never = matches!(ended, Some(Err(status)) if status.code() == Code::Unimplemented);
                    self.events_at = (!never).then(|| Instant::now() + EVENTS_AGAIN);
                    self.list_soon();
                }
            },
            look = looks.recv() => match look {
                Ok(id) => self.want(id),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    self.count(|metrics| &metrics.runtime_failures, missed);
                    self.list_soon();
                }
                Err(broadcast::error::RecvError::Closed) => return Err(End::Nobody(Nobody)),
            },
            () = tokio::time::sleep_until(wake) => {}
        }
        Ok(())
    }

    async fn on_event(&mut self, event: cri::ContainerEventResponse) -> Result<(), End> {
        self.count(|metrics| &metrics.runtime_events, 1);
        if event.container_event_type() == cri::ContainerEventType::ContainerDeletedEvent {
            return Ok(self.gone(event.container_id).await?);
        }
        self.want(event.container_id.into());
        Ok(())
    }

    fn want(&mut self, id: Arc<str>) {
        if !self.looks.want(id, Instant::now()) {
            self.list_soon();
        }
    }

    fn list_soon(&mut self) {
        self.list_at = self.list_at.min(Instant::now() + LIST_SOON);
    }

    /// Asks for all that there is, and for what is new or changed among it. What does not answer is told as the list has it.
    async fn list(&mut self, client: &mut Client, tells_events: bool) -> Result<(), End> {
        let mut pods = client.pods().await?;
        let mut containers = client.containers().await?;
        // Of too many, those that run are followed, and the latest.
        pods.sort_by_key(|pod| (pod.state() != cri::PodSandboxState::SandboxReady, Reverse(pod.created_at)));
        containers.sort_by_key(|it| (it.state() != cri::ContainerState::ContainerRunning, Reverse(it.created_at)));
        let mut there: HashSet<String> = HashSet::with_capacity((pods.len() + containers.len()).min(FOLLOWED_MAX));
        self.silent = 0;
        for pod in pods {
            let known = Known { state: pod.state, is_pod: true };
            if self.take(&mut there, &pod.id) && self.known.get(&pod.id) != Some(&known) {
                self.list_pod(client, pod, known).await?;
            }
        }
        for container in containers {
            let known = Known { state: container.state, is_pod: false };
            if self.take(&mut there, &container.id) && self.known.get(&container.id) != Some(&known) {
                self.list_container(client, container, known).await?;
            }
        }
        self.doubts.keep_only(&there);
        if std::mem::replace(&mut self.listed, true) {
            let gone: Vec<String> = self.known.keys().filter(|id| !there.contains(*id)).cloned().collect();
            for id in gone {
                self.gone(id).await?;
            }
        } else {
            let ids: BTreeSet<String> = there.into_iter().collect();
            self.tell(Input::ContainersListed { source: self.telling.source, ids }).await?;
        }
        let pause = if tells_events { LIST_INTERVAL.1 } else { LIST_INTERVAL.0 };
        let goes_on = self.silent >= SILENT_MAX || self.known.values().any(|it| it.state == UNASKED);
        self.list_at = Instant::now() + if goes_on { LIST_SOON } else { pause };
        Ok(())
    }

    /// Asks for a pod of a list, unless that would keep the others waiting.
    async fn list_pod(&mut self, client: &mut Client, listed: cri::PodSandbox, known: Known) -> Result<(), End> {
        let held_back = self.doubts.holds_back(&listed.id, Instant::now());
        let left = !held_back && self.silent >= SILENT_MAX;
        if !held_back && !left {
            match self.ask_pod(client, &listed.id).await? {
                Asked::There | Asked::Nothing => return Ok(()),
                Asked::Unanswered(reason) | Asked::Refused(reason) => {
                    let name = listed.metadata.as_ref().map(|it| it.name.clone()).unwrap_or_default();
                    self.doubt(&listed.id, &name, reason);
                }
            }
        }
        let id = listed.id.clone();
        // What was told of it before is more than the list has.
        if !self.pods.contains_key(&id)
            && let Some(pod) = facts::listed_pod(listed)
        {
            self.pods.insert(id.clone(), pod);
        }
        self.known.insert(id, if left { Known { state: UNASKED, ..known } } else { known });
        Ok(())
    }

    /// Asks for a container of a list, unless that would keep the others waiting.
    async fn list_container(&mut self, client: &mut Client, listed: cri::Container, known: Known) -> Result<(), End> {
        let held_back = self.doubts.holds_back(&listed.id, Instant::now());
        let left = !held_back && self.silent >= SILENT_MAX;
        if !held_back && !left {
            match self.ask_container(client, &listed.id, Some(&listed.pod_sandbox_id)).await? {
                Asked::There | Asked::Nothing => return Ok(()),
                Asked::Unanswered(reason) | Asked::Refused(reason) => {
                    let name = listed.metadata.as_ref().map(|it| it.name.clone()).unwrap_or_default();
                    self.doubt(&listed.id, &name, reason);
                }
            }
        }
        self.known.insert(listed.id.clone(), if left { Known { state: UNASKED, ..known } } else { known });
        self.note_pod_of(&listed.id, Some(&listed.pod_sandbox_id));
        let pod = self.pods.get(&listed.pod_sandbox_id);
        let Some(facts) = facts::listed(listed, pod, &self.telling) else { return Ok(()) };
        Ok(self.tell(Input::ContainerOutlined(Box::new(facts))).await?)
    }

    /// Whether there is room for one more.
    fn take(&mut self, there: &mut HashSet<String>, id: &str) -> bool {
        if there.len() >= FOLLOWED_MAX {
            self.count(|metrics| &metrics.runtime_failures, 1);
            if !std::mem::replace(&mut self.full, true) {
                tracing::warn!(
                    runtime = self.telling.runtime,
                    most = FOLLOWED_MAX,
                    "the runtime has more pods and containers than are followed"
                );
            }
            return false;
        }
        there.insert(id.to_owned())
    }

    /// Looks at one that something happened to.
    async fn look(&mut self, client: &mut Client, look: Look) -> Result<(), End> {
        let id = look.id.to_string();
        if self.doubts.holds_back(&id, Instant::now()) {
            // The list has its state.
            self.list_soon();
            return Ok(());
        }
        let before = self.known.get(&id).copied();
        let asked = match before {
            Some(Known { is_pod: true, .. }) => self.ask_pod(client, &id).await?,
            _ => match self.ask_container(client, &id, None).await? {
                Asked::Nothing | Asked::Refused(_) if before.is_none() => self.ask_pod(client, &id).await?,
                asked => asked,
            },
        };
        let now = Instant::now();
        match asked {
            Asked::There => {
                // What made a look come is a change of state, which may not be written down yet.
                let after = self.known.get(&id).copied();
                let is_created = after.is_some_and(|it| !it.is_pod && it.state == cri::ContainerState::ContainerCreated as i32);
                if before == after || is_created {
                    self.looks.again(look, now);
                }
            }
            Asked::Unanswered(reason) => {
                self.doubt(&id, "", reason);
                self.list_soon();
            }
            Asked::Refused(reason) if before.is_some() => {
                self.doubt(&id, "", reason);
                self.list_soon();
            }
            Asked::Nothing if before.is_some() => self.gone(id).await?,
            Asked::Nothing | Asked::Refused(_) => {
                if !self.looks.again(look, now) {
                    self.looks.unknown(id.into(), now);
                }
            }
        }
        Ok(())
    }

    /// Asks again for one that did not answer.
    async fn ask_again(&mut self, client: &mut Client, id: String) -> Result<(), End> {
        let is_pod = self.known.get(&id).is_some_and(|it| it.is_pod);
        let asked = if is_pod { self.ask_pod(client, &id).await? } else { self.ask_container(client, &id, None).await? };
        match asked {
            Asked::There => {}
            Asked::Nothing => self.gone(id).await?,
            Asked::Unanswered(reason) | Asked::Refused(reason) => self.doubt(&id, "", reason),
        }
        Ok(())
    }

    /// Tells what cannot be seen, if that changed.
    async fn tell_blind_spot(&mut self, sentence: Option<String>) -> Result<(), Nobody> {
        if sentence == self.blind_spot {
            return Ok(());
        }
        self.blind_spot.clone_from(&sentence);
        let cause = match self.label {
            "containerd" => "containerd-containers",
            "cri-o" => "cri-o-containers",
            "docker" => "cri-dockerd-containers",
            _ => "cri-containers",
        };
        self.tell(Input::BlindSpot { cause, sentence }).await
    }

    async fn gone(&mut self, id: String) -> Result<(), Nobody> {
        self.pods.remove(&id);
        self.without_pod.remove(&id);
        self.doubts.answered(&id);
        if self.known.remove(&id).is_none() {
            return Ok(());
        }
        self.tell(Input::ContainerGone { source: self.telling.source, id }).await
    }

    async fn tell(&self, input: Input) -> Result<(), Nobody> {
        self.inputs.send(input).await.map_err(|_| Nobody)
    }

    fn count(&self, counter: impl Fn(&Metrics) -> &prometheus::IntCounterVec, number: u64) {
        counter(self.telemetry.metrics()).with_label_values(&[self.label]).inc_by(number);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // The probe stops, or the loop panicked.
        if self.connected {
            self.telemetry.metrics().runtime_connected.with_label_values(&[self.label]).dec();
        }
    }
}

/// Why following ended.
enum End {
    Nobody(Nobody),
    Lost(CriError),
}

impl From<Nobody> for End {
    fn from(nobody: Nobody) -> Self {
        End::Nobody(nobody)
    }
}

impl From<CriError> for End {
    fn from(error: CriError) -> Self {
        End::Lost(error)
    }
}

/// The next event; never, when the runtime does not tell any.
async fn next(events: &mut Option<Events>) -> Option<Result<cri::ContainerEventResponse, Status>> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}
