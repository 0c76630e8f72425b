//! The loops that follow container runtimes as the configuration has them, now and after it was read again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, CriSockets};
use crate::containers::Source;
use crate::driver::Input;
use crate::mask::Masks;
use crate::reload;
use crate::telemetry::Telemetry;
use crate::{cri, docker};

/// Where Docker usually has its socket.
const DOCKER: &str = "/var/run/docker.sock";

/// How long a loop has to end in order.
const STOPPED_WITHIN: Duration = Duration::from_secs(1);

/// What the loops need.
#[derive(Clone, Debug)]
pub(crate) struct Runtimes {
    /// The configuration as it is now.
    pub(crate) current: reload::Current,
    /// Where it is counted.
    pub(crate) telemetry: Telemetry,
    /// The driver's inbox.
    pub(crate) inputs: mpsc::Sender<Input>,
    /// Cancelled when the probe stops.
    pub(crate) stopping: CancellationToken,
}

impl Runtimes {
    /// Follows Docker.
    pub(crate) async fn docker(self) {
        let (current, stopping) = (self.current.clone(), self.stopping.clone());
        let run = move |socket: Option<PathBuf>, stop: CancellationToken| {
            let this = self.clone();
            async move {
                let Some(socket) = socket else {
                    let is_there = Path::new(DOCKER).exists();
                    return this.unasked("docker", is_there, "Docker is here, and is not asked for containers (--no-docker).", stop).await;
                };
                let run = |(environment, masks), stop| {
                    let config = docker::Config { socket: socket.clone(), environment, masks };
                    docker::run(config, this.telemetry.clone(), this.inputs.clone(), stop)
                };
                reload::following(this.current.clone(), telling, stop, STOPPED_WITHIN, run).await;
                this.leave(vec![Source::Docker]).await;
            }
        };
        reload::following(current, |config| config.docker_socket.clone(), stopping, STOPPED_WITHIN, run).await;
    }

    /// Follows CRI runtimes. `looks` names containers whose cgroups came or went.
    pub(crate) async fn cri(self, looks: broadcast::Sender<Arc<str>>) {
        let (current, stopping) = (self.current.clone(), self.stopping.clone());
        let run = move |sockets: Vec<PathBuf>, stop: CancellationToken| {
            let (this, looks) = (self.clone(), looks.clone());
            async move {
                if sockets.is_empty() {
                    let is_there = cri::SOCKETS.iter().any(|socket| Path::new(socket).exists());
                    let sentence = "A container runtime is here, and is not asked for containers (--cri-socket off).";
                    return this.unasked("cri", is_there, sentence, stop).await;
                }
                let run = |(environment, masks), stop| {
                    let config = cri::Config { sockets: sockets.clone(), environment, masks };
                    cri::run(config, this.telemetry.clone(), this.inputs.clone(), looks.clone(), stop)
                };
                reload::following(this.current.clone(), telling, stop, STOPPED_WITHIN, run).await;
                let kept = cri_sockets(&this.current.borrow());
                let left: Vec<Source> = sockets.iter().filter(|it| !kept.contains(it)).map(|it| Source::of_cri_socket(it)).collect();
                this.leave(left).await;
            }
        };
        reload::following(current, cri_sockets, stopping, STOPPED_WITHIN, run).await;
    }

    /// Tells that a runtime which `is_there` is not to be asked, until `stop` is cancelled.
    async fn unasked(&self, cause: &'static str, is_there: bool, sentence: &str, stop: CancellationToken) {
        if !is_there {
            return stop.cancelled().await;
        }
        // Without a driver nobody has to know.
        drop(self.inputs.send(Input::BlindSpot { cause, sentence: Some(sentence.to_owned()) }).await);
        stop.cancelled().await;
        drop(self.inputs.send(Input::BlindSpot { cause, sentence: None }).await);
    }

    /// These are not followed any more. When the probe stops, what they told stays as it is.
    async fn leave(&self, sources: Vec<Source>) {
        for source in sources {
            if !self.stopping.is_cancelled() {
                // Without a driver nobody has to know.
                drop(self.inputs.send(Input::RuntimeUnfollowed(source)).await);
            }
        }
    }
}

/// How containers are told.
fn telling(config: &Config) -> (bool, Masks) {
    (config.container_env, config.masks.clone())
}

/// Sockets at which CRI runtimes are looked for.
fn cri_sockets(config: &Config) -> Vec<PathBuf> {
    match &config.cri_sockets {
        CriSockets::Off => Vec::new(),
        CriSockets::Paths(paths) => paths.clone(),
        CriSockets::Auto => {
            let docker_followed = config.docker_socket.is_some();
            cri::SOCKETS.iter().chain((!docker_followed).then_some(&cri::CRI_DOCKERD)).map(PathBuf::from).collect()
        }
    }
}

#[cfg(test)]
mod tests;
