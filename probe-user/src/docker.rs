//! Containers and images of a Docker daemon: its list, then its events. Without a daemon the probe is none the worse.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::models::EventMessageTypeEnum;
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::containers::{ContainerFacts, Source, words};
use crate::driver::Input;
use crate::mask::Masks;
use crate::telemetry::{Metrics, Telemetry};
use sketch::Sketches;

mod facts;
mod sketch;

pub use facts::{container, image};

/// Longest answer that is waited for: a daemon that hangs is given up and tried again later.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How often a silent daemon is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// First and longest pause before the daemon is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Events from this long before a connection are read again.
const EVENTS_BEFORE_NANOS: i64 = 1_000_000_000;

/// Names of images whose ids are remembered, for containers that were gone before they could be inspected.
const IMAGE_NAMES_MAX: usize = 256;

/// Events that change nothing that is told.
const SILENT_ACTIONS: [&str; 6] = ["exec_create", "exec_start", "exec_die", "top", "resize", "attach"];

/// How containers are told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Whether environments are told.
    pub environment: bool,
    /// Which secrets are hidden.
    pub masks: Masks,
}

/// Why the daemon was given up.
#[derive(Debug, thiserror::Error)]
enum DockerError {
    #[error("docker does not answer")]
    Silent,
    #[error("docker refused")]
    Refused(#[from] bollard::errors::Error),
    #[error("docker ended its events")]
    Ended,
    #[error("the probe stops")]
    Stopping,
}

/// Follows the daemon until the probe stops, through its restarts.
pub async fn run(config: Config, telemetry: Telemetry, inputs: mpsc::Sender<Input>, stopping: CancellationToken) {
    let connected = telemetry.metrics().runtime_connected.with_label_values(&[facts::RUNTIME]);
    let mut follower = Follower {
        config,
        inputs,
        telemetry: telemetry.clone(),
        sketches: Sketches::default(),
        images: HashMap::new(),
        last_event: None,
        told: false,
    };
    let mut pause = RETRY.0;
    let mut announced = false;
    loop {
        let begun = tokio::time::Instant::now();
        let ended = tokio::select! {
            ended = follower.follow() => ended,
            () = stopping.cancelled() => Err(DockerError::Stopping),
        };
        let was_connected = connected.get() == 1 || std::mem::take(&mut follower.told);
        connected.set(0);
        match ended {
            Ok(()) | Err(DockerError::Stopping) => return,
            Err(error) => {
                if was_connected {
                    tracing::warn!(error = %chain(&error), "docker is lost");
                    if follower.inputs.send(Input::RuntimeLost(Source::Docker)).await.is_err() {
                        return;
                    }
                } else if announced {
                    tracing::debug!(error = %chain(&error), "docker is still not there");
                } else {
                    let socket = follower.config.socket.display();
                    tracing::info!(%socket, reason = %chain(&error), "no docker here; it is tried again quietly");
                }
                if was_connected || follower.config.socket.exists() {
                    follower.count(|metrics| &metrics.runtime_failures);
                }
            }
        }
        announced = true;
        if begun.elapsed() > RETRY.1 {
            pause = RETRY.0;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => return,
        }
        pause = pause.saturating_mul(2).min(RETRY.1);
    }
}

enum Told {
    Container {
        image: Option<String>,
    },
    Nothing,
    /// Nobody listens any more.
    Nobody,
}

struct Follower {
    config: Config,
    inputs: mpsc::Sender<Input>,
    telemetry: Telemetry,
    sketches: Sketches,
    /// Ids of images by the names that containers were made with.
    images: HashMap<String, String>,
    /// When the last event happened, Unix nanoseconds: a daemon is asked for what came after it while the probe was not connected.
    last_event: Option<i64>,
    /// Whether this daemon told of a container, so that its loss has to be told.
    told: bool,
}

impl Follower {
    /// Returns `Ok` when nobody listens any more.
    async fn follow(&mut self) -> Result<(), DockerError> {
        let docker = answer(connect(&self.config.socket)).await?;
        // Events from before the list is read on: what changes while it is read is told again.
        let filters = HashMap::from([("type".to_owned(), vec!["container".to_owned(), "network".to_owned()])]);
        // The request may go out late: what happened since then, and while nobody was connected, is told from the daemon's memory.
        let now = i64::try_from(Now::read().unix_nanos).unwrap_or(i64::MAX).saturating_sub(EVENTS_BEFORE_NANOS);
        let since = self.last_event.map_or(now, |last| last.min(now));
        let since = Some(format!("{}.{:09}", since / 1_000_000_000, since % 1_000_000_000));
        let options = EventsOptions { filters: Some(filters), since, ..EventsOptions::default() };
        let mut events = std::pin::pin!(docker.events(Some(options)));
        let mut first = events.next();
        // The request for events goes out when they are first asked for.
        let _ = futures::poll!(&mut first);
        if !self.list(&docker).await? {
            return Ok(());
        }
        self.telemetry.metrics().runtime_connected.with_label_values(&[facts::RUNTIME]).set(1);
        tracing::info!(socket = %self.config.socket.display(), "docker connected");
        loop {
            let event = match timeout(PING_INTERVAL, &mut first).await {
                Ok(event) => event.ok_or(DockerError::Ended)??,
                Err(_) => {
                    answer(docker.ping()).await?;
                    continue;
                }
            };
            first = events.next();
            if !self.on_event(&docker, event).await? {
                return Ok(());
            }
        }
    }

    /// Tells all containers. Returns whether somebody listens.
    async fn list(&mut self, docker: &Docker) -> Result<bool, DockerError> {
        let listed = answer(docker.list_containers(Some(ListContainersOptions { all: true, ..ListContainersOptions::default() }))).await?;
        let ids: BTreeSet<String> = listed.into_iter().filter_map(|it| it.id).collect();
        let mut images = BTreeSet::new();
        for id in &ids {
            match self.tell_container(docker, id).await? {
                Told::Container { image } => images.extend(image),
                Told::Nothing => {}
                Told::Nobody => return Ok(false),
            }
        }
        for image in images {
            if !self.tell_image(docker, image).await? {
                return Ok(false);
            }
        }
        Ok(self.inputs.send(Input::ContainersListed { source: Source::Docker, ids }).await.is_ok())
    }

    async fn on_event(&mut self, docker: &Docker, message: bollard::models::EventMessage) -> Result<bool, DockerError> {
        let is_container = message.typ == Some(EventMessageTypeEnum::CONTAINER);
        let at = message.time_nano.or_else(|| message.time?.checked_mul(1_000_000_000)).unwrap_or(0);
        if at > 0 {
            self.last_event = Some(at);
        }
        let action = message.action.unwrap_or_default();
        let actor = message.actor.unwrap_or_default();
        let attributes = actor.attributes.unwrap_or_default();
        // An event of a network names the container among its attributes.
        let container = if is_container { actor.id } else { attributes.get("container").cloned() };
        let Some(id) = container.filter(|_| !SILENT_ACTIONS.iter().any(|silent| action.starts_with(silent))) else { return Ok(true) };
        self.count(|metrics| &metrics.runtime_events);
        if is_container {
            self.sketches.on_event(&id, &action, &attributes, at, &self.config.masks);
        }
        if !is_container || action != "destroy" {
            return self.tell(docker, &id).await;
        }
        // Nobody may have seen how it ended, or that it was there at all.
        if let Some(facts) = self.sketches.untold(&id)
            && !self.tell_sketch(docker, facts).await?
        {
            return Ok(false);
        }
        self.sketches.forget(&id);
        Ok(self.inputs.send(Input::ContainerGone { source: Source::Docker, id }).await.is_ok())
    }

    /// Tells one container as it is now, and its image. Returns whether somebody listens.
    async fn tell(&mut self, docker: &Docker, id: &str) -> Result<bool, DockerError> {
        match self.tell_container(docker, id).await? {
            Told::Container { image: Some(image) } => self.tell_image(docker, image).await,
            Told::Container { image: None } => Ok(true),
            Told::Nothing => match self.sketches.untold(id) {
                Some(facts) => self.tell_sketch(docker, facts).await,
                None => Ok(true),
            },
            Told::Nobody => Ok(false),
        }
    }

    async fn tell_container(&mut self, docker: &Docker, id: &str) -> Result<Told, DockerError> {
        self.count(|metrics| &metrics.runtime_lookups);
        let inspected = match answer(docker.inspect_container(id, None)).await {
            Ok(inspected) => inspected,
            // Gone since the event; an event of a network may also name something that is no container.
            Err(error) if is_not_found(&error) => return Ok(Told::Nothing),
            Err(error) if is_of_this_one(&error) => {
                self.count(|metrics| &metrics.runtime_failures);
                return Ok(Told::Nothing);
            }
            Err(error) => return Err(error),
        };
        let Some(mut facts) = container(inspected, self.config.environment, &self.config.masks) else { return Ok(Told::Nothing) };
        self.told = true;
        self.sketches.complete(&mut facts);
        let image = Some(facts.record.image_id.clone()).filter(|it| !it.is_empty());
        if let Some(image) = &image {
            self.remember_image(&facts.record.image_name, image);
        }
        match self.inputs.send(Input::Container(Box::new(facts))).await {
            Ok(()) => Ok(Told::Container { image }),
            Err(_) => Ok(Told::Nobody),
        }
    }

    /// Tells a container that cannot be inspected any more. Its events have the name of its image alone.
    async fn tell_sketch(&mut self, docker: &Docker, mut facts: ContainerFacts) -> Result<bool, DockerError> {
        let name = &facts.record.image_name;
        if facts.record.image_id.is_empty() && !name.is_empty() {
            facts.record.image_id = match self.images.get(name) {
                Some(id) => id.clone(),
                None => self.image_id(docker, &name.clone()).await?,
            };
        }
        let image = facts.record.image_id.clone();
        if self.inputs.send(Input::Container(Box::new(facts))).await.is_err() {
            return Ok(false);
        }
        if image.is_empty() { Ok(true) } else { self.tell_image(docker, image).await }
    }

    /// Id of an image by its name; empty when it is gone as well.
    async fn image_id(&mut self, docker: &Docker, name: &str) -> Result<String, DockerError> {
        self.count(|metrics| &metrics.runtime_lookups);
        let id = match answer(docker.inspect_image(name)).await {
            Ok(inspected) => words::without_algorithm(&inspected.id.unwrap_or_default()).to_owned(),
            Err(error) if is_of_this_one(&error) => String::new(),
            Err(error) => return Err(error),
        };
        if !id.is_empty() {
            self.remember_image(name, &id);
        }
        Ok(id)
    }

    fn remember_image(&mut self, name: &str, id: &str) {
        if self.images.get(name).is_some_and(|known| known == id) {
            return;
        }
        if self.images.len() >= IMAGE_NAMES_MAX {
            self.images.clear();
        }
        self.images.insert(name.to_owned(), id.to_owned());
    }

    async fn tell_image(&mut self, docker: &Docker, id: String) -> Result<bool, DockerError> {
        self.count(|metrics| &metrics.runtime_lookups);
        let inspected = match answer(docker.inspect_image(&id)).await {
            Ok(inspected) => inspected,
            Err(error) if is_of_this_one(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        Ok(self.inputs.send(Input::Image(image(id, inspected, &self.config.masks))).await.is_ok())
    }

    fn count(&self, counter: impl Fn(&Metrics) -> &prometheus::IntCounterVec) {
        counter(self.telemetry.metrics()).with_label_values(&[facts::RUNTIME]).inc();
    }
}

async fn connect(socket: &Path) -> Result<Docker, bollard::errors::Error> {
    let path = socket.to_string_lossy();
    Docker::connect_with_unix(&path, ANSWER_MAX.as_secs(), bollard::API_DEFAULT_VERSION)?.negotiate_version().await
}

/// Waits for an answer, but not for ever.
async fn answer<T>(request: impl Future<Output = Result<T, bollard::errors::Error>>) -> Result<T, DockerError> {
    Ok(timeout(ANSWER_MAX, request).await.map_err(|_| DockerError::Silent)??)
}

fn is_not_found(error: &DockerError) -> bool {
    matches!(error, DockerError::Refused(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }))
}

/// Whether the daemon is well and only this one thing cannot be told.
fn is_of_this_one(error: &DockerError) -> bool {
    let DockerError::Refused(error) = error else { return false };
    matches!(error, bollard::errors::Error::DockerResponseServerError { .. } | bollard::errors::Error::JsonDataError { .. })
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
