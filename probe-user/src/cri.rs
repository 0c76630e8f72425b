//! Containers, pods and images of containerd and CRI-O, through the socket that the kubelet uses. A list now and then, a look at once when the
//! kernel shows a new cgroup, and the runtime's own events where reading them takes none from the kubelet. Without a runtime the probe is none
//! the worse.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::containers::{Source, reading};
use crate::driver::Input;
use crate::mask::Masks;
use crate::telemetry::Telemetry;
use client::CriError;
use follower::Follower;

mod client;
mod doubts;
pub mod facts;
mod follower;
mod info;
mod looks;

/// Where runtimes usually have their sockets. cri-dockerd's is left out where Docker itself is followed: it tells of the same containers.
pub const SOCKETS: [&str; 5] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    // MicroK8s.
    "/var/snap/microk8s/common/run/containerd.sock",
];

/// cri-dockerd's.
pub const CRI_DOCKERD: &str = "/var/run/cri-dockerd.sock";

/// First and longest pause before a socket is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// How containers are told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The sockets; one that is not there is tried again and again.
    pub sockets: Vec<PathBuf>,
    /// Whether environments are told.
    pub environment: bool,
    /// Which secrets are hidden.
    pub masks: Masks,
}

/// Follows all runtimes until the probe stops, through their restarts. `looks` names containers whose cgroups came or went.
pub async fn run(
    config: Config,
    telemetry: Telemetry,
    inputs: mpsc::Sender<Input>,
    looks: broadcast::Sender<Arc<str>>,
    stopping: CancellationToken,
) {
    let followed = config.sockets.iter().map(|socket| {
        let source = Source::of_cri_socket(socket);
        follow(source, socket.clone(), config.clone(), telemetry.clone(), inputs.clone(), looks.clone(), stopping.clone())
    });
    futures::future::join_all(followed).await;
}

/// Follows the runtime behind one socket.
async fn follow(
    source: Source,
    socket: PathBuf,
    config: Config,
    telemetry: Telemetry,
    inputs: mpsc::Sender<Input>,
    looks: broadcast::Sender<Arc<str>>,
    stopping: CancellationToken,
) {
    let mut pause = RETRY.0;
    let mut announced = false;
    // Whether it was said that it does not tell; and whether it told before.
    let (mut silent, mut was_connected) = (false, false);
    let what = format!("the container runtime at {}", socket.display());
    loop {
        let begun = Instant::now();
        // Most nodes have one of the sockets: the others cost a look at the file system now and then.
        if socket.exists() {
            if !announced {
                let what = what.clone();
                if inputs.send(Input::RuntimeFound { source, what }).await.is_err() {
                    return;
                }
            }
            let mut follower = Follower::new(source, &config, telemetry.clone(), inputs.clone());
            let ended = tokio::select! {
                ended = follower.follow(&socket, &looks) => ended,
                () = stopping.cancelled() => return,
            };
            was_connected |= follower.is_connected();
            let outcome = match &ended {
                Ok(()) | Err(CriError::Foreign(_)) => Input::RuntimeRead(source),
                Err(error) => {
                    let reason = reading::reason(error, matches!(error, CriError::Silent));
                    Input::RuntimeSilent { source, what: what.clone(), reason }
                }
            };
            silent = matches!(outcome, Input::RuntimeSilent { .. });
            if inputs.send(outcome).await.is_err() {
                return;
            }
            let socket = socket.display();
            match ended {
                Ok(()) => return,
                Err(error) if follower.is_connected() => {
                    tracing::warn!(%socket, runtime = follower.runtime(), error = %chain(&error), "container runtime is lost");
                    announced = true;
                }
                Err(CriError::Foreign(reason)) if !announced => {
                    tracing::info!(%socket, %reason, "no CRI behind this socket; it is tried again quietly");
                    announced = true;
                }
                Err(error) if !announced => {
                    tracing::warn!(%socket, error = %chain(&error), "container runtime does not answer; it is tried again quietly");
                    announced = true;
                }
                Err(error) => tracing::debug!(%socket, error = %chain(&error), "container runtime still does not answer"),
            }
            if follower.disconnect().await.is_err() {
                return;
            }
            if begun.elapsed() > RETRY.1 {
                (pause, announced) = (RETRY.0, announced && begun.elapsed() < RETRY.1 * 2);
            }
        } else if std::mem::take(&mut silent) && !was_connected {
            // It was never a runtime that told anything, and is none any more.
            if inputs.send(Input::RuntimeRead(source)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => return,
        }
        pause = pause.saturating_mul(2).min(RETRY.1);
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
