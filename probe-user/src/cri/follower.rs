//! Follows one runtime over one connection.

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
use super::facts::{self, ImageName, Pod, Telling};
use super::looks::{Look, Looks};
use crate::containers::{CONTAINERS_MAX, ContainerFacts, Source};
use crate::driver::Input;
use crate::telemetry::{Metrics, Telemetry};

/// How often a runtime is asked for all that it has: when it tells nothing by itself, and when it does.
const LIST_INTERVAL: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(30));

/// A list that makes up for a look that was dropped comes after this long.
const LIST_SOON: Duration = Duration::from_millis(500);

/// A stream of events that ended is asked for again after this long.
const EVENTS_AGAIN: Duration = Duration::from_secs(30);

/// Images that are remembered, and for how long: a name may move to another image.
const IMAGES_MAX: usize = 1_024;
const IMAGE_KEPT: Duration = Duration::from_secs(600);

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
    images: HashMap<String, (Image, Instant)>,
    looks: Looks,
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
            images: HashMap::new(),
            looks: Looks::new(now),
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
        let wake = self.looks.next(now).map_or(self.list_at, |at| at.min(self.list_at));
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

    /// Asks for all that there is, and for what is new or changed among it.
    async fn list(&mut self, client: &mut Client, tells_events: bool) -> Result<(), End> {
        let pods = client.pods().await?;
        let containers = client.containers().await?;
        let mut there: HashSet<String> = HashSet::with_capacity(pods.len() + containers.len());
        for pod in pods {
            let known = Known { state: pod.state, is_pod: true };
            if self.take(&mut there, &pod.id) && self.known.get(&pod.id) != Some(&known) {
                self.ask_pod(client, &pod.id).await?;
            }
        }
        for container in containers {
            let known = Known { state: container.state, is_pod: false };
            if self.take(&mut there, &container.id) && self.known.get(&container.id) != Some(&known) {
                self.ask_container(client, &container.id, Some(&container.pod_sandbox_id)).await?;
            }
        }
        if std::mem::replace(&mut self.listed, true) {
            let gone: Vec<String> = self.known.keys().filter(|id| !there.contains(*id)).cloned().collect();
            for id in gone {
                self.gone(id).await?;
            }
        } else {
            let ids: BTreeSet<String> = there.into_iter().collect();
            self.tell(Input::ContainersListed { source: self.telling.source, ids }).await?;
        }
        self.list_at = Instant::now() + if tells_events { LIST_INTERVAL.1 } else { LIST_INTERVAL.0 };
        Ok(())
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
        let before = self.known.get(&id).copied();
        let is_there = match before {
            Some(Known { is_pod: true, .. }) => self.ask_pod(client, &id).await?,
            _ => self.ask_container(client, &id, None).await? || self.ask_pod(client, &id).await?,
        };
        let now = Instant::now();
        if is_there {
            // What made a look come is a change of state, which may not be written down yet.
            let after = self.known.get(&id).copied();
            let is_created = after.is_some_and(|it| !it.is_pod && it.state == cri::ContainerState::ContainerCreated as i32);
            if before == after || is_created {
                self.looks.again(look, now);
            }
        } else if before.is_some() {
            self.gone(id).await?;
        } else if !self.looks.again(look, now) {
            self.looks.unknown(id.into(), now);
        }
        Ok(())
    }

    /// Asks for a container and tells it. Returns whether it is there.
    async fn ask_container(&mut self, client: &mut Client, id: &str, pod: Option<&str>) -> Result<bool, End> {
        self.count(|metrics| &metrics.runtime_lookups, 1);
        let Some(answer) = client.container(id).await? else { return Ok(false) };
        let pod = match pod {
            Some(pod) => Some(pod.to_owned()),
            None => facts::pod_of(&answer),
        };
        if let Some(pod) = pod.as_ref().filter(|pod| !self.pods.contains_key(*pod)) {
            self.ask_pod(client, pod).await?;
        }
        let state = answer.status.as_ref().map_or(0, |it| it.state);
        let pod = pod.and_then(|pod| self.pods.get(&pod));
        let Some((facts, image)) = facts::container(answer, pod, &self.telling).filter(|(facts, _)| facts.record.id == id) else {
            self.count(|metrics| &metrics.runtime_failures, 1);
            return Ok(false);
        };
        self.known.insert(id.to_owned(), Known { state, is_pod: false });
        self.tell_with_image(client, facts, image).await?;
        Ok(true)
    }

    /// Asks for a pod and tells the container that holds its namespaces. Returns whether it is there.
    async fn ask_pod(&mut self, client: &mut Client, id: &str) -> Result<bool, End> {
        self.count(|metrics| &metrics.runtime_lookups, 1);
        let Some(answer) = client.pod(id).await? else { return Ok(false) };
        let state = answer.status.as_ref().map_or(0, |it| it.state);
        let Some((pod, own)) = facts::pod(answer, &self.telling).filter(|(pod, _)| pod.id == id) else {
            self.count(|metrics| &metrics.runtime_failures, 1);
            return Ok(false);
        };
        self.known.insert(pod.id.clone(), Known { state, is_pod: true });
        self.pods.insert(pod.id.clone(), pod);
        if let Some((facts, image)) = own {
            self.tell_with_image(client, facts, image).await?;
        }
        Ok(true)
    }

    /// Tells a container, and then its image, which is only kept for one.
    async fn tell_with_image(&mut self, client: &mut Client, mut facts: ContainerFacts, name: ImageName) -> Result<(), End> {
        let image = self.image(client, &name.0).await?;
        if let Some(image) = &image {
            facts.record.image_id.clone_from(&image.id);
            if facts.record.image_name.is_empty() || facts.record.image_name.starts_with("sha256:") {
                facts.record.image_name.clone_from(&image.name);
            }
        }
        self.tell(Input::Container(Box::new(facts))).await?;
        match image {
            Some(image) => Ok(self.tell(Input::Image(image)).await?),
            None => Ok(()),
        }
    }

    async fn image(&mut self, client: &mut Client, name: &str) -> Result<Option<Image>, CriError> {
        if name.is_empty() {
            return Ok(None);
        }
        let now = Instant::now();
        if let Some((image, _)) = self.images.get(name).filter(|(_, asked)| now.duration_since(*asked) < IMAGE_KEPT) {
            return Ok(Some(image.clone()));
        }
        self.count(|metrics| &metrics.runtime_lookups, 1);
        let Some(image) = client.image(name).await?.and_then(|it| facts::image(it, &self.telling.masks)) else { return Ok(None) };
        if self.images.len() >= IMAGES_MAX {
            self.images.clear();
        }
        self.images.insert(name.to_owned(), (image.clone(), now));
        Ok(Some(image))
    }

    async fn gone(&mut self, id: String) -> Result<(), Nobody> {
        self.pods.remove(&id);
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
