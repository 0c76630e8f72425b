//! Containers and images of a Docker daemon: its list, then its events. Without a daemon the probe is none the worse.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, ContainerSummary, EventMessageTypeEnum, ImageInspect};
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::containers::{CONTAINERS_MAX, ContainerFacts, Source, reading, words};
use crate::driver::Input;
use crate::mask::Masks;
use crate::telemetry::{Metrics, Telemetry};
use looks::{Looks, Ticket, Worth};
use sketch::Sketches;

mod facts;
mod looks;
mod sketch;

pub use facts::{container, image, listed};

/// Longest answer that is waited for: a daemon that hangs is given up and tried again later.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Longest answer about one container or image that is waited for: the daemon may be well and only this one may hang.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// The blind spot that is told here.
const CAUSE: &str = "docker-containers";

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
        reading: false,
        lost: false,
        found: false,
        blind_spot: None,
    };
    let mut pause = RETRY.0;
    let mut announced = false;
    loop {
        let begun = Instant::now();
        if !announced && follower.config.socket.exists() {
            (follower.reading, follower.found) = (true, true);
            let what = follower.what();
            if follower.inputs.send(Input::RuntimeFound { source: Source::Docker, what }).await.is_err() {
                return;
            }
        }
        let ended = tokio::select! {
            ended = follower.follow() => ended,
            () = stopping.cancelled() => Err(DockerError::Stopping),
        };
        let was_connected = connected.get() == 1 || std::mem::take(&mut follower.told);
        connected.set(0);
        if !follower.tell_blind_spot(None).await {
            return;
        }
        match ended {
            Ok(()) | Err(DockerError::Stopping) => return,
            Err(error) => {
                let is_there = follower.config.socket.exists();
                if !follower.tell_silence(&error, is_there, was_connected).await {
                    return;
                }
                if was_connected {
                    tracing::warn!(error = %chain(&error), "docker is lost");
                    if follower.inputs.send(Input::RuntimeLost(Source::Docker)).await.is_err() {
                        return;
                    }
                } else if announced {
                    tracing::debug!(error = %chain(&error), "docker is still not there");
                } else if is_there {
                    let socket = follower.config.socket.display();
                    tracing::warn!(%socket, error = %chain(&error), "docker does not answer; it is tried again quietly");
                } else {
                    let socket = follower.config.socket.display();
                    tracing::info!(%socket, reason = %chain(&error), "no docker here; it is tried again quietly");
                }
                if was_connected || is_there {
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

/// What an inspection led to.
enum Looked {
    Container {
        id: String,
        ticket: Ticket,
        asked_at: Instant,
        found: Found,
    },
    /// `None` for an image of which the daemon tells nothing.
    Image {
        id: String,
        found: Option<Box<ImageInspect>>,
    },
}

enum Found {
    Whole(Box<ContainerInspectResponse>),
    /// Gone since the event; an event of a network may also name something that is no container.
    Gone,
    /// The daemon is well, but does not tell of this one.
    Unanswered {
        /// What its list says; `None` when that does not have it either.
        listed: Option<Box<ContainerSummary>>,
        reason: String,
    },
}

type Inspection = BoxFuture<'static, Result<Looked, DockerError>>;

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
    /// Whether it is to be said when the daemon has told of all that it has.
    reading: bool,
    /// Whether it was connected once, and has not told of all that it has since.
    lost: bool,
    /// Whether it was said that it is there, or that it does not tell.
    found: bool,
    /// The blind spot as it was last told.
    blind_spot: Option<String>,
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
        let mut looks = Looks::default();
        if !self.list(&docker, &mut looks).await? {
            return Ok(());
        }
        self.telemetry.metrics().runtime_connected.with_label_values(&[facts::RUNTIME]).set(1);
        tracing::info!(socket = %self.config.socket.display(), "docker connected");
        let mut inspections: FuturesUnordered<Inspection> = FuturesUnordered::new();
        loop {
            self.inspect_next(&docker, &mut looks, &inspections);
            if !self.tell_blind_spot(looks.blind_spot()).await {
                return Ok(());
            }
            if self.reading && looks.is_idle() {
                self.reading = false;
                self.lost = false;
                if self.inputs.send(Input::RuntimeRead(Source::Docker)).await.is_err() {
                    return Ok(());
                }
            }
            let due = looks.next_due().unwrap_or_else(|| Instant::now() + PING_INTERVAL);
            let goes_on = tokio::select! {
                event = timeout(PING_INTERVAL, &mut first) => match event {
                    Ok(event) => {
                        let event = event.ok_or(DockerError::Ended)??;
                        first = events.next();
                        self.on_event(&docker, &mut looks, event).await?
                    }
                    Err(_) => {
                        answer(docker.ping()).await?;
                        true
                    }
                },
                Some(looked) = inspections.next() => self.on_looked(&docker, &mut looks, looked?).await?,
                () = tokio::time::sleep_until(due) => true,
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Tells which containers there are; each of them is inspected next. Returns whether somebody listens.
    async fn list(&mut self, docker: &Docker, looks: &mut Looks) -> Result<bool, DockerError> {
        let listed = answer(docker.list_containers(Some(ListContainersOptions { all: true, ..ListContainersOptions::default() }))).await?;
        // The table has no room for more, so nobody is asked about them.
        let (listed, left) = looks::followed(listed, CONTAINERS_MAX);
        if left > 0 {
            tracing::warn!(
                left,
                most = CONTAINERS_MAX,
                "docker has more containers than are followed; those that ended first are left out"
            );
            self.telemetry.metrics().runtime_failures.with_label_values(&[facts::RUNTIME]).inc_by(left as u64);
        }
        listed.iter().filter_map(|it| it.id.as_deref()).for_each(|id| looks.want(id));
        let ids: BTreeSet<String> = listed.into_iter().filter_map(|it| it.id).collect();
        Ok(self.inputs.send(Input::ContainersListed { source: Source::Docker, ids }).await.is_ok())
    }

    /// Starts the inspections that are due, as far as there is room.
    fn inspect_next(&self, docker: &Docker, looks: &mut Looks, inspections: &FuturesUnordered<Inspection>) {
        while let Some((id, ticket)) = looks.next(Instant::now()) {
            self.count(|metrics| &metrics.runtime_lookups);
            let docker = docker.clone();
            let inspection = async move {
                let asked_at = Instant::now();
                let found = inspect(&docker, &id).await?;
                Ok(Looked::Container { id, ticket, asked_at, found })
            };
            inspections.push(inspection.boxed());
        }
        while let Some(id) = looks.next_image() {
            self.count(|metrics| &metrics.runtime_lookups);
            let docker = docker.clone();
            let inspection = async move {
                let found = about_one(&docker, docker.inspect_image(&id)).await?;
                Ok(Looked::Image { id, found: found.ok().map(Box::new) })
            };
            inspections.push(inspection.boxed());
        }
    }

    /// Tells what an inspection led to. Returns whether somebody listens.
    async fn on_looked(&mut self, docker: &Docker, looks: &mut Looks, looked: Looked) -> Result<bool, DockerError> {
        let (id, ticket, asked_at, found) = match looked {
            Looked::Container { id, ticket, asked_at, found } => (id, ticket, asked_at, found),
            Looked::Image { id, found } => {
                looks.image_ended(&id);
                let Some(found) = found else { return Ok(true) };
                return Ok(self.inputs.send(Input::Image(image(id, *found, &self.config.masks))).await.is_ok());
            }
        };
        let worth = looks.ended(&id, ticket);
        if worth == Worth::Nothing {
            return Ok(true);
        }
        let listens = match found {
            Found::Whole(inspected) => {
                if looks.answered(&id) {
                    tracing::info!(container = %id, "docker tells of this container again");
                }
                self.tell_container(looks, *inspected, worth).await
            }
            Found::Gone => {
                looks.answered(&id);
                match self.sketches.untold(&id) {
                    Some(facts) => self.tell_sketch(docker, looks, facts).await?,
                    None => true,
                }
            }
            Found::Unanswered { listed, reason } => {
                self.count(|metrics| &metrics.runtime_failures);
                self.tell_unanswered(docker, looks, Asked { id: &id, at: asked_at }, listed.map(|it| *it), reason).await?
            }
        };
        if worth == Worth::Older {
            looks.want(&id);
        }
        Ok(listens)
    }

    async fn on_event(&mut self, docker: &Docker, looks: &mut Looks, message: bollard::models::EventMessage) -> Result<bool, DockerError> {
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
            looks.want(&id);
            return Ok(true);
        }
        looks.forget(&id);
        // Nobody may have seen how it ended, or that it was there at all.
        if let Some(facts) = self.sketches.untold(&id)
            && !self.tell_sketch(docker, looks, facts).await?
        {
            return Ok(false);
        }
        self.sketches.forget(&id);
        Ok(self.inputs.send(Input::ContainerGone { source: Source::Docker, id }).await.is_ok())
    }

    /// Tells a container as it was inspected; its image is inspected next. Returns whether somebody listens.
    async fn tell_container(&mut self, looks: &mut Looks, inspected: ContainerInspectResponse, worth: Worth) -> bool {
        let Some(mut facts) = container(inspected, self.config.environment, &self.config.masks) else { return true };
        self.told = true;
        self.sketches.complete(&mut facts, worth == Worth::Older);
        let image = facts.record.image_id.clone();
        if !image.is_empty() {
            self.remember_image(&facts.record.image_name, &image);
            looks.want_image(image);
        }
        self.inputs.send(Input::Container(Box::new(facts))).await.is_ok()
    }

    /// Tells a container that cannot be inspected as the list has it, and else as its events do. Returns whether somebody listens.
    async fn tell_unanswered(
        &mut self,
        docker: &Docker,
        looks: &mut Looks,
        asked: Asked<'_>,
        summary: Option<ContainerSummary>,
        reason: String,
    ) -> Result<bool, DockerError> {
        let sketched = self.sketches.untold(asked.id);
        let listed = summary.and_then(|it| listed(it, &self.config.masks));
        let name = listed.as_ref().or(sketched.as_ref()).map(|it| it.record.name.clone()).unwrap_or_default();
        if looks.failed(asked.id, &name, reason.clone(), asked.at, Instant::now()) {
            tracing::warn!(container = %asked.id, name, reason, "docker does not tell of this container; it is shown as the list has it");
        }
        match (listed, sketched) {
            (Some(mut facts), sketched) => {
                if let Some(sketched) = sketched {
                    facts.record.started_at_unix_nanos = sketched.record.started_at_unix_nanos;
                    facts.finished_at_unix_nanos = sketched.finished_at_unix_nanos;
                }
                self.told = true;
                if !facts.record.image_id.is_empty() {
                    looks.want_image(facts.record.image_id.clone());
                }
                Ok(self.inputs.send(Input::ContainerOutlined(Box::new(facts))).await.is_ok())
            }
            (None, Some(facts)) => self.tell_sketch(docker, looks, facts).await,
            (None, None) => Ok(true),
        }
    }

    /// Tells a container that cannot be inspected any more. Its events have the name of its image alone.
    async fn tell_sketch(&mut self, docker: &Docker, looks: &mut Looks, mut facts: ContainerFacts) -> Result<bool, DockerError> {
        let name = &facts.record.image_name;
        if facts.record.image_id.is_empty() && !name.is_empty() {
            facts.record.image_id = match self.images.get(name) {
                Some(id) => id.clone(),
                None => self.image_id(docker, &name.clone()).await?,
            };
        }
        if !facts.record.image_id.is_empty() {
            looks.want_image(facts.record.image_id.clone());
        }
        Ok(self.inputs.send(Input::Container(Box::new(facts))).await.is_ok())
    }

    /// Id of an image by its name; empty when it is gone as well.
    async fn image_id(&mut self, docker: &Docker, name: &str) -> Result<String, DockerError> {
        self.count(|metrics| &metrics.runtime_lookups);
        let inspected = about_one(docker, docker.inspect_image(name)).await?;
        let id = inspected.ok().and_then(|it| it.id).map(|id| words::without_algorithm(&id).to_owned()).unwrap_or_default();
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

    /// The daemon and its socket, for people.
    fn what(&self) -> String {
        format!("Docker at {}", self.config.socket.display())
    }

    /// Tells that the daemon does not tell. Where there is no socket, nobody misses a daemon, unless there was one. Returns whether somebody listens.
    async fn tell_silence(&mut self, error: &DockerError, is_there: bool, was_connected: bool) -> bool {
        let source = Source::Docker;
        let input = if is_there {
            let silent = matches!(error, DockerError::Silent | DockerError::Refused(bollard::errors::Error::RequestTimeoutError));
            Input::RuntimeSilent { source, what: self.what(), reason: reading::reason(error, silent) }
        } else if was_connected {
            Input::RuntimeSilent { source, what: self.what(), reason: "its socket is gone".to_owned() }
        } else if self.lost || !self.found {
            // It may come back, or was never missed.
            return true;
        } else {
            Input::RuntimeRead(source)
        };
        self.lost |= was_connected;
        self.found = !matches!(input, Input::RuntimeRead(_));
        // What it has is news again.
        self.reading = true;
        self.inputs.send(input).await.is_ok()
    }

    /// Tells what cannot be seen, if that changed. Returns whether somebody listens.
    async fn tell_blind_spot(&mut self, sentence: Option<String>) -> bool {
        if sentence == self.blind_spot {
            return true;
        }
        self.blind_spot.clone_from(&sentence);
        self.inputs.send(Input::BlindSpot { cause: CAUSE, sentence }).await.is_ok()
    }

    fn count(&self, counter: impl Fn(&Metrics) -> &prometheus::IntCounterVec) {
        counter(self.telemetry.metrics()).with_label_values(&[facts::RUNTIME]).inc();
    }
}

/// A container that was asked about.
struct Asked<'a> {
    id: &'a str,
    at: Instant,
}

/// Inspects one container. What the list says is asked for where that fails.
async fn inspect(docker: &Docker, id: &str) -> Result<Found, DockerError> {
    let reason = match about_one(docker, docker.inspect_container(id, None)).await? {
        Ok(inspected) => return Ok(Found::Whole(Box::new(inspected))),
        Err(NoAnswer::NotFound) => return Ok(Found::Gone),
        Err(NoAnswer::Other(reason)) => reason,
    };
    let filters = Some(HashMap::from([("id".to_owned(), vec![id.to_owned()])]));
    let options = ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
    let listed = about_one(docker, docker.list_containers(Some(options))).await?;
    let listed = listed.ok().and_then(|listed| listed.into_iter().find(|it| it.id.as_deref() == Some(id)));
    Ok(Found::Unanswered { listed: listed.map(Box::new), reason })
}

/// Why a daemon that is well does not tell of one thing.
enum NoAnswer {
    NotFound,
    Other(String),
}

/// Asks about one thing. Only a daemon that does not even say that it lives is given up.
async fn about_one<T>(
    docker: &Docker,
    request: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<Result<T, NoAnswer>, DockerError> {
    let reason = match timeout(LOOK_MAX, request).await {
        Ok(Ok(found)) => return Ok(Ok(found)),
        Ok(Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. })) => return Ok(Err(NoAnswer::NotFound)),
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("no answer within {} s", LOOK_MAX.as_secs()),
    };
    answer(docker.ping()).await?;
    Ok(Err(NoAnswer::Other(reason)))
}

async fn connect(socket: &Path) -> Result<Docker, bollard::errors::Error> {
    let path = socket.to_string_lossy();
    Docker::connect_with_unix(&path, ANSWER_MAX.as_secs(), bollard::API_DEFAULT_VERSION)?.negotiate_version().await
}

/// Waits for an answer, but not for ever.
async fn answer<T>(request: impl Future<Output = Result<T, bollard::errors::Error>>) -> Result<T, DockerError> {
    Ok(timeout(ANSWER_MAX, request).await.map_err(|_| DockerError::Silent)??)
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
