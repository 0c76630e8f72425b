//! Ends Docker's containers of an agent that does not come back, as the executors of Mesos end theirs.
//!
//! They have no keeper: one process of the agent's own program looks whether the agent is there, for all of them, and outlives it as keepers do. It is
//! told what to do by a file in a directory of its own, which the next agent writes anew for the process that it starts: the one before ends then.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bollard::errors::Error;
use bollard::query_parameters::{ListContainersOptionsBuilder, StopContainerOptionsBuilder};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::super::Shared;
use super::{AWAY, Docker, OWNER_LABEL};
use crate::keeper;
use crate::keeper::absence::{Absence, LOOK, Patience};

/// The file.
const FILE: &str = "docker.json";

/// How long after its end another process is started for one that has ended.
const AGAIN: Duration = Duration::from_secs(10);

/// What the process is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Watch {
    /// Tells it from what was written before it.
    written: String,
    /// Where the daemon is.
    socket: PathBuf,
    /// How the containers are marked.
    owner: String,
    /// How long the agent may be away, and how long they then have.
    patience: Patience,
}

/// Whether a directory is one of such a process.
pub(crate) fn is_in(directory: &Path) -> bool {
    directory.join(FILE).exists()
}

/// The program of the process: its argument is the directory.
pub(crate) fn main(directory: &Path) -> ExitCode {
    let file = directory.join(FILE);
    let Ok(text) = std::fs::read(&file) else { return ExitCode::FAILURE };
    let Ok(watch) = serde_json::from_slice::<Watch>(&text) else { return ExitCode::FAILURE };
    // Where it cannot be read for another reason, that is no word of anybody.
    let is_newest = || match std::fs::read(&file) {
        Ok(now) => now == text,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    let mut absence = Absence::of(Some(&watch.patience));
    while absence.due(Instant::now()).is_none() {
        std::thread::sleep(LOOK);
        if !is_newest() {
            return ExitCode::SUCCESS;
        }
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return ExitCode::FAILURE };
    let docker = Docker::new(&watch.socket, None);
    let grace = Duration::from_millis(watch.patience.grace_ms);
    runtime.block_on(async {
        // An agent that is back looks after them again.
        while is_newest() && !watch.patience.is_agent_there() {
            if docker.stop_all(&watch.owner, grace).await.is_ok() {
                break;
            }
            sleep(AWAY).await;
        }
    });
    ExitCode::SUCCESS
}

impl Docker {
    /// Has the process look after all of this agent's containers, from the first on.
    pub(super) fn watch_absence(&self, shared: &std::sync::Arc<Shared>) {
        if self.is_watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let shared = shared.clone();
        let socket = PathBuf::from(&self.socket);
        (shared.spawn.clone())("docker-absence", Box::pin(async move { keep_watching(&shared, socket).await }));
    }

    /// Ends all containers of an agent.
    async fn stop_all(&self, owner: &str, grace: Duration) -> Result<(), Error> {
        let docker = self.connect().await?;
        let filters = std::collections::HashMap::from([("label".to_owned(), vec![format!("{OWNER_LABEL}={owner}")])]);
        let running = docker.list_containers(Some(ListContainersOptionsBuilder::new().filters(&filters).build())).await?;
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        // The answer comes when the container has ended: it may take longer than any other.
        let patient = docker.clone().with_timeout(grace.saturating_add(Duration::from_secs(60)));
        let stopping = running.into_iter().filter_map(|it| it.id).map(|id| {
            let patient = patient.clone();
            async move {
                match patient.stop_container(&id, Some(StopContainerOptionsBuilder::new().t(seconds).build())).await {
                    // It has ended by itself, or is removed right now.
                    Err(Error::DockerResponseServerError { status_code: 304 | 404 | 409, .. }) => Ok(()),
                    other => other,
                }
            }
        });
        futures::future::join_all(stopping).await.into_iter().collect()
    }
}

/// Starts the process, and another one when it ends, for as long as the agent lives.
async fn keep_watching(shared: &Shared, socket: PathBuf) {
    let directory = shared.layout.docker_absence();
    let config = &shared.config;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let watch = Watch {
        written: format!("{} {}", std::process::id(), now.as_nanos()),
        socket,
        owner: shared.owner(),
        patience: Patience {
            grace_ms: milliseconds(config.docker_stop_timeout.max(config.executor_shutdown_grace_period)),
            ..super::super::patience(shared)
        },
    };
    let text = serde_json::to_vec(&watch).unwrap_or_default();
    if let Err(error) = std::fs::create_dir_all(&directory).and_then(|()| keeper::write_whole(&directory.join(FILE), &text)) {
        tracing::warn!(%error, "containers of Docker go on should this agent not come back");
        return;
    }
    loop {
        match start(shared, &directory) {
            Ok(mut child) => drop(child.wait().await),
            Err(error) => tracing::warn!(%error, "containers of Docker go on should this agent not come back"),
        }
        if std::fs::read(directory.join(FILE)).ok().is_none_or(|now| now != text) {
            return;
        }
        sleep(AGAIN).await;
    }
}

fn start(shared: &Shared, directory: &Path) -> io::Result<tokio::process::Child> {
    let mut words = shared.config.keeper.iter();
    let program = words.next().ok_or_else(|| io::Error::other("no keeper is configured"))?;
    let child = tokio::process::Command::new(program)
        .args(words)
        .arg(directory)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    super::super::beside_containers(shared, child.id());
    Ok(child)
}

fn milliseconds(it: Duration) -> u64 {
    u64::try_from(it.as_millis()).unwrap_or(u64::MAX)
}
