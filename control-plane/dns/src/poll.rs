//! Reads what runs from a Mesos master that is elsewhere, as Mesos-DNS did.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::sync::CancellationToken;

use crate::cluster::{address, read_state};
use crate::zone::Zone;

/// Bytes of a state.
const STATE_MAX: usize = 1 << 30;
/// Times that a look takes until the next.
const SHARE: u32 = 20;
/// How long a master may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads the state of the first of `masters` (`host:port`) that knows who leads, every `interval`, until `stopping` is cancelled. While none
/// answers the names stay as they are. With `tls` they are spoken to by https.
pub async fn poll(
    masters: Vec<String>,
    tls: Option<Arc<ClientConfig>>,
    interval: Duration,
    zone: watch::Sender<Arc<Zone>>,
    stopping: CancellationToken,
) {
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let begun = Instant::now();
        let domain = zone.borrow().domain().to_owned();
        let mut found = None;
        for master in &masters {
            match state(master, tls.as_ref()).await {
                Ok(state) => {
                    found = Some(state);
                    break;
                }
                Err(error) => tracing::warn!(master, error, "the names cannot be renewed"),
            }
        }
        if let Some(state) = found {
            let made = tokio::task::spawn_blocking(move || Zone::new(&domain, &read_state(&state))).await;
            if let Ok(made) = made {
                zone.send_if_modified(|known| {
                    let differs = **known != made;
                    if differs {
                        *known = Arc::new(made);
                    }
                    differs
                });
            }
        }
        // However large the cluster, reading it is a small part of what the master does.
        pause = interval.max(Duration::from_secs(1)).max(begun.elapsed() * SHARE);
    }
}

async fn state(master: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Value, String> {
    let state = match get(master, tls).await {
        // Who does not lead says who does.
        Err(Problem::Elsewhere(leader)) => get(&leader, tls).await,
        other => other,
    };
    let state = state.map_err(Problem::words)?;
    let leader = state["leader"].as_str().and_then(address).ok_or("it does not know who leads")?;
    let itself = state["pid"].as_str().and_then(address);
    if itself == Some(leader) { Ok(state) } else { get(&SocketAddr::from(leader).to_string(), tls).await.map_err(Problem::words) }
}

enum Problem {
    Elsewhere(String),
    Other(String),
}

impl Problem {
    fn words(self) -> String {
        match self {
            Problem::Elsewhere(leader) => format!("it says that {leader} leads, and that one says otherwise"),
            Problem::Other(words) => words,
        }
    }
}

/// A connection with or without TLS.
trait Way: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Way for T {}

async fn connect(master: &str, tls: Option<&Arc<ClientConfig>>) -> std::io::Result<Box<dyn Way>> {
    let stream = TcpStream::connect(master).await?;
    let Some(config) = tls else { return Ok(Box::new(stream)) };
    let host = master.rsplit_once(':').map_or(master, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    Ok(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?))
}

async fn get(master: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Value, Problem> {
    let other = |error: &dyn std::fmt::Display| Problem::Other(error.to_string());
    let ask = async {
        let stream = connect(master, tls).await.map_err(|error| other(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| other(&error))?;
        #[expect(clippy::disallowed_methods, reason = "ends with its connection, which ends when its sender is dropped")]
        let connection = tokio::spawn(connection);
        let request = http::Request::get("/state").header(http::header::HOST, master).body(Empty::<Bytes>::new());
        let response = sender.send_request(request.map_err(|error| other(&error))?).await.map_err(|error| other(&error))?;
        let status = response.status();
        let location = response.headers().get(http::header::LOCATION).and_then(|it| it.to_str().ok());
        if let Some(leader) = location.filter(|_| status.is_redirection()).and_then(|it| it.split("//").nth(1)) {
            return Err(Problem::Elsewhere(leader.split('/').next().unwrap_or_default().to_owned()));
        }
        let body = Limited::new(response.into_body(), STATE_MAX).collect().await.map_err(|error| other(&error))?.to_bytes();
        connection.abort();
        if !status.is_success() {
            return Err(Problem::Other(format!("it answers {status}")));
        }
        serde_json::from_slice(&body).map_err(|error| other(&error))
    };
    tokio::time::timeout(PATIENCE, ask).await.map_err(|_| Problem::Other("it does not answer in time".to_owned()))?
}
