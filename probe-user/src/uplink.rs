//! The stream to the control plane: opened, welcomed, fed by the driver, opened again when it ends.

use std::sync::Arc;
use std::time::Duration;

use probe_controls::{Desk, Executor};
use probe_endpoint::ControlPlane;
use proto::probe::v1::probe_service_client::ProbeServiceClient;
use proto::probe::v1::{ControlMessage, Hello, ProbeMessage, control_message, probe_message};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::random::Random;
use crate::stream::{Opening, StreamEvent};

/// Reports on their way to the connection; what does not fit waits in the outbox.
const IN_FLIGHT_MAX: usize = 8;

/// How long a connection and a welcome may take.
const WELCOMED_WITHIN: Duration = Duration::from_secs(5);

/// First and longest pause before the next attempt.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Who the probe says it is.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Stable across restarts.
    pub probe_id: String,
    /// Name of the host.
    pub host_name: String,
    /// Random per start.
    pub session_id: String,
    /// The cluster, of a collector; empty for a node.
    pub cluster_name: String,
}

/// What the control plane may have done here.
#[derive(Clone)]
pub struct Controls {
    /// Who does it; `None` where nothing may be done.
    pub executor: Option<Arc<dyn Executor>>,
    /// Where it is counted.
    pub numbers: probe_controls::Numbers,
}

impl std::fmt::Debug for Controls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controls").field("ids", &self.ids()).finish_non_exhaustive()
    }
}

impl Controls {
    /// Nothing may be done.
    pub fn refused(numbers: probe_controls::Numbers) -> Self {
        Controls { executor: None, numbers }
    }

    fn ids(&self) -> Vec<String> {
        self.executor.as_ref().map(|executor| executor.controls()).unwrap_or_default()
    }
}

/// Why a stream ended, or did not begin.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("cannot connect")]
    Connect(#[from] tonic::transport::Error),
    #[error("the control plane does not answer")]
    Silent,
    #[error("the control plane refused")]
    Refused(#[source] tonic::Status),
    #[error("the control plane did not begin with a welcome")]
    NoWelcome,
    #[error("the control plane ended the stream")]
    Ended,
    #[error("there is no way to the control plane")]
    NoWay(#[from] probe_endpoint::Unusable),
    #[error("the stream broke")]
    Broken(#[source] tonic::Status),
    #[error("given up by the probe")]
    GivenUp,
    #[error("the probe stops")]
    Stopping,
}

/// Keeps a stream open until `stopping` is cancelled. When a stream is open then, it is left to the driver to end it, until `ended`.
///
/// `inputs` is the inbox of whoever drives the publisher.
pub async fn run<I: From<StreamEvent>>(
    mut control_plane: ControlPlane,
    identity: Identity,
    controls: Controls,
    inputs: mpsc::Sender<I>,
    stopping: CancellationToken,
) {
    let mut random = Random::from_system();
    let mut pause = RETRY.0;
    let mut quiet = false;
    loop {
        let begun = tokio::time::Instant::now();
        let result = stream(&control_plane, &identity, &controls, &inputs, &stopping).await;
        if inputs.send(StreamEvent::Ended.into()).await.is_err() || stopping.is_cancelled() {
            return;
        }
        if begun.elapsed() > RETRY.1 {
            pause = RETRY.0;
            quiet = false;
        }
        control_plane = control_plane.next();
        let error = chain(&result);
        // One line when it is lost or was never there, not one per attempt.
        if quiet {
            tracing::debug!(error, "control plane is still not there");
        } else {
            tracing::warn!(error, "control plane is not connected; trying again");
        }
        quiet = true;
        tokio::select! {
            () = tokio::time::sleep(random.jitter(pause)) => {}
            () = stopping.cancelled() => return,
        }
        pause = pause.saturating_mul(2).min(RETRY.1);
    }
}

/// One stream, from Hello to its end.
async fn stream<I: From<StreamEvent>>(
    control_plane: &ControlPlane,
    identity: &Identity,
    controls: &Controls,
    inputs: &mpsc::Sender<I>,
    stopping: &CancellationToken,
) -> StreamError {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT_MAX);
    let opening = async {
        let channel = control_plane.endpoint()?.connect().await?;
        let opening = opening(inputs).await.ok_or(StreamError::Stopping)?;
        // The channel is new and has room.
        drop(sender.send(hello(identity, controls, opening)).await);
        let mut client = ProbeServiceClient::new(channel);
        let mut control = client.stream(ReceiverStream::new(receiver)).await.map_err(StreamError::Refused)?.into_inner();
        match control.message().await.map_err(StreamError::Refused)?.and_then(|it| it.body) {
            Some(control_message::Body::Welcome(welcome)) => Ok((welcome, control)),
            Some(_) => Err(StreamError::NoWelcome),
            None => Err(StreamError::Ended),
        }
    };
    let opened = tokio::select! {
        opened = timeout(WELCOMED_WITHIN, opening) => opened.unwrap_or(Err(StreamError::Silent)),
        () = stopping.cancelled() => Err(StreamError::Stopping),
    };
    let (welcome, mut control) = match opened {
        Ok(it) => it,
        Err(error) => return error,
    };
    let mut desk = Desk::new(controls.executor.clone(), sender.clone(), controls.numbers.clone());
    let end = CancellationToken::new();
    let welcomed = StreamEvent::Welcomed { welcome, sender, end: end.clone() };
    let error = if inputs.send(welcomed.into()).await.is_ok() {
        converse(&mut control, &mut desk, inputs, &end).await
    } else {
        StreamError::Stopping
    };
    desk.close().await;
    error
}

/// What comes, until the end: calls and pipes go to the desk, the rest to the driver.
async fn converse<I: From<StreamEvent>>(
    control: &mut Streaming<ControlMessage>,
    desk: &mut Desk,
    inputs: &mpsc::Sender<I>,
    end: &CancellationToken,
) -> StreamError {
    loop {
        let message = tokio::select! {
            message = control.message() => message,
            () = desk.tend() => continue,
            () = end.cancelled() => return StreamError::GivenUp,
        };
        let event = match message {
            Ok(Some(ControlMessage { body: Some(control_message::Body::ControlCall(call)) })) => {
                desk.on_call(call);
                continue;
            }
            Ok(Some(ControlMessage { body: Some(control_message::Body::Pipe(pipe)) })) => {
                desk.on_pipe(pipe);
                continue;
            }
            Ok(Some(message)) => event(message),
            Ok(None) => return StreamError::Ended,
            Err(status) => return StreamError::Broken(status),
        };
        if let Some(event) = event
            && inputs.send(event.into()).await.is_err()
        {
            return StreamError::Stopping;
        }
    }
}

async fn opening<I: From<StreamEvent>>(inputs: &mpsc::Sender<I>) -> Option<Opening> {
    let (reply, answer) = oneshot::channel();
    inputs.send(StreamEvent::Opening(reply).into()).await.ok()?;
    answer.await.ok()
}

fn hello(identity: &Identity, controls: &Controls, opening: Opening) -> ProbeMessage {
    let hello = Hello {
        probe_id: identity.probe_id.clone(),
        host_name: identity.host_name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        session_id: identity.session_id.clone(),
        oldest_held_sequence: opening.oldest_held,
        capture: Some(opening.capture),
        cluster_name: identity.cluster_name.clone(),
        controls: controls.ids(),
    };
    ProbeMessage { body: Some(probe_message::Body::Hello(hello)) }
}

fn event(message: ControlMessage) -> Option<StreamEvent> {
    match message.body? {
        control_message::Body::Acknowledge(it) => Some(StreamEvent::Acknowledged(it.sequence)),
        control_message::Body::Rejected(it) => Some(StreamEvent::Rejected(it)),
        control_message::Body::Throttle(it) => Some(StreamEvent::Throttled(Duration::from_millis(it.min_interval_ms.into()))),
        control_message::Body::Welcome(_) | control_message::Body::ControlCall(_) | control_message::Body::Pipe(_) => None,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
