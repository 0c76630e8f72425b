//! Containers and images of a Docker daemon: its list, then its events. Without a daemon the probe is none the worse.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::driver::Input;
use crate::telemetry::Telemetry;

mod facts;

pub use facts::{container, image};

/// Longest answer that is waited for: a daemon that hangs is given up and tried again later.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How often a silent daemon is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// First and longest pause before the daemon is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Events that change nothing that is told.
const SILENT_ACTIONS: [&str; 6] = ["exec_create", "exec_start", "exec_die", "top", "resize", "attach"];

/// How containers are told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Whether environments are told, with secrets masked.
    pub environment: bool,
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
    let mut pause = RETRY.0;
    let mut announced = false;
    loop {
        let mut follower =
            Follower { config: config.clone(), inputs: inputs.clone(), connected: telemetry.metrics().docker_connected.clone() };
        let begun = tokio::time::Instant::now();
        let ended = tokio::select! {
            ended = follower.follow() => ended,
            () = stopping.cancelled() => Err(DockerError::Stopping),
        };
        let was_connected = telemetry.metrics().docker_connected.get() == 1;
        telemetry.metrics().docker_connected.set(0);
        match ended {
            Ok(()) | Err(DockerError::Stopping) => return,
            Err(error) if was_connected => tracing::warn!(error = %chain(&error), "docker is lost"),
            Err(error) if !announced => {
                tracing::info!(socket = %config.socket.display(), reason = %chain(&error), "no docker here; it is tried again quietly");
            }
            Err(error) => tracing::debug!(error = %chain(&error), "docker is still not there"),
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
    connected: prometheus::IntGauge,
}

impl Follower {
    /// Returns `Ok` when nobody listens any more.
    async fn follow(&mut self) -> Result<(), DockerError> {
        let docker = answer(connect(&self.config.socket)).await?;
        // Events from before the list is read on: what changes while it is read is told again.
        let filters = HashMap::from([("type".to_owned(), vec!["container".to_owned(), "network".to_owned()])]);
        let mut events = std::pin::pin!(docker.events(Some(EventsOptions { filters: Some(filters), ..EventsOptions::default() })));
        let mut first = events.next();
        // The request for events goes out when they are first asked for.
        let _ = futures::poll!(&mut first);
        if !self.list(&docker).await? {
            return Ok(());
        }
        self.connected.set(1);
        tracing::info!(socket = %self.config.socket.display(), "docker connected");
        let mut event = first.await;
        loop {
            let message = event.ok_or(DockerError::Ended)??;
            if !self.on_event(&docker, message).await? {
                return Ok(());
            }
            event = loop {
                match timeout(PING_INTERVAL, events.next()).await {
                    Ok(event) => break event,
                    Err(_) => drop(answer(docker.ping()).await?),
                }
            };
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
        Ok(self.inputs.send(Input::ContainersListed { runtime: facts::RUNTIME, ids }).await.is_ok())
    }

    async fn on_event(&mut self, docker: &Docker, message: bollard::models::EventMessage) -> Result<bool, DockerError> {
        let action = message.action.unwrap_or_default();
        let actor = message.actor.unwrap_or_default();
        // An event of a network names the container among its attributes.
        let container = actor.attributes.unwrap_or_default().remove("container").or(actor.id);
        let Some(id) = container.filter(|_| !SILENT_ACTIONS.iter().any(|silent| action.starts_with(silent))) else { return Ok(true) };
        match action.as_str() {
            "destroy" => Ok(self.inputs.send(Input::ContainerGone(id)).await.is_ok()),
            _ => self.tell(docker, &id).await,
        }
    }

    /// Tells one container as it is now, and its image. Returns whether somebody listens.
    async fn tell(&mut self, docker: &Docker, id: &str) -> Result<bool, DockerError> {
        match self.tell_container(docker, id).await? {
            Told::Container { image: Some(image) } => self.tell_image(docker, image).await,
            Told::Container { image: None } | Told::Nothing => Ok(true),
            Told::Nobody => Ok(false),
        }
    }

    async fn tell_container(&mut self, docker: &Docker, id: &str) -> Result<Told, DockerError> {
        let inspected = match answer(docker.inspect_container(id, None)).await {
            Ok(inspected) => inspected,
            // Gone since the event; an event of a network may also name something that is no container.
            Err(error) if is_not_found(&error) => return Ok(Told::Nothing),
            Err(error) => return Err(error),
        };
        let Some(facts) = container(inspected, self.config.environment) else { return Ok(Told::Nothing) };
        let image = Some(facts.record.image_id.clone()).filter(|it| !it.is_empty());
        match self.inputs.send(Input::Container(Box::new(facts))).await {
            Ok(()) => Ok(Told::Container { image }),
            Err(_) => Ok(Told::Nobody),
        }
    }

    async fn tell_image(&mut self, docker: &Docker, id: String) -> Result<bool, DockerError> {
        let inspected = match answer(docker.inspect_image(&id)).await {
            Ok(inspected) => inspected,
            Err(error) if is_not_found(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        Ok(self.inputs.send(Input::Image(image(id, inspected))).await.is_ok())
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

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
