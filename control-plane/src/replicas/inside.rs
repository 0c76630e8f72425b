//! The listener for other control planes: connections that they carry here.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use edge_tls::{Door, Stream, Tls};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::opening::Opening;
use super::record::{self, Record};
use super::{Front, PATIENCE, Place, Purpose, Route};
use crate::http;
use crate::supervise::Supervisor;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{ConnectionFailed, ConnectionFailure};

/// Connections at once.
const CONNECTIONS_MAX: usize = 100_000;

/// Where carried connections go.
#[derive(Clone, Debug)]
pub(crate) struct Inside {
    /// Whether we lead, or soon will: the one that carries a connection may have heard of it before us.
    pub(crate) front: Front,
    /// UI and API.
    pub(crate) http: Router,
    /// Probes and agents.
    pub(crate) grpc: mpsc::Sender<Stream>,
    /// Marathon's API, where it is served.
    pub(crate) marathon: Option<Router>,
    /// What is told to those who follow.
    pub(crate) record: Record,
    /// Proves that it is a control plane; without, whoever reaches the listener is believed.
    pub(crate) tls: Option<Tls>,
    pub(crate) telemetry: Telemetry,
}

/// Takes connections in until the process stops.
pub(crate) async fn serve(listener: Arc<TcpListener>, inside: Inside, supervisor: Supervisor) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let stopping = supervisor.stopping().clone();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (inside, parent) = (inside.clone(), supervisor.clone());
                supervisor.one_off("carried_connection", async move {
                    inside.take(stream, &parent).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection of another control plane can be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Inside {
    async fn take(self, stream: TcpStream, supervisor: &Supervisor) {
        let _ = stream.set_nodelay(true);
        let mut stream = match &self.tls {
            Some(tls) => match tls.accept(Door::Replicas, stream).await {
                Ok(stream) => stream,
                Err(error) => {
                    ConnectionFailed { reason: ConnectionFailure::Handshake, error: &error }.emit(&self.telemetry);
                    return;
                }
            },
            None => Stream::from(stream),
        };
        let opening = match timeout(PATIENCE, Opening::read(&mut stream)).await {
            Ok(Ok(opening)) => opening,
            Ok(Err(error)) => return tracing::warn!(%error, "a connection of another control plane is not taken"),
            Err(_) => return,
        };
        if let Some(caller) = opening.caller {
            stream = stream.on_behalf_of(caller);
        }
        let front = self.front.with_purpose(opening.purpose);
        let place = match front.route() {
            // Nobody waits for it to end, and a follower asks again.
            Route::Here if opening.purpose == Purpose::Record => Place::Here(None),
            _ if opening.purpose == Purpose::Record => Place::Nowhere,
            _ => front.place_carried(stream.peer_addr().ok()).await,
        };
        let expected = match place {
            Place::Here(expected) => expected,
            Place::There(there) => {
                let (there, leader) = *there;
                if let Err(error) = front.join(stream, there, &leader).await {
                    ConnectionFailed { reason: ConnectionFailure::Broken, error: &error }.emit(&self.telemetry);
                }
                return;
            }
            Place::Nowhere | Place::Gone => return,
        };
        match opening.purpose {
            Purpose::Http => http::serve_connection((stream, expected), self.http, front, supervisor, self.telemetry).await,
            Purpose::Marathon => {
                if let Some(router) = self.marathon {
                    http::serve_connection((stream, expected), router, front, supervisor, self.telemetry).await;
                }
            }
            Purpose::Record => {
                if let Err(error) = record::send(stream, &self.record, supervisor.stopping()).await {
                    ConnectionFailed { reason: ConnectionFailure::Broken, error: &error }.emit(&self.telemetry);
                }
            }
            // The listener has a limit of its own; while it is reached, the connection waits here.
            Purpose::Grpc => drop(self.grpc.send(stream).await),
        }
    }
}
