//! Health and readiness checks that are the scheduler's business: a connection or a request, and what came of it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use scheduler::words::{Outcome, ProbeKind, ProbeRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::driver::Handle;

/// Bytes of a body that are read. A longer answer is an answer all the same.
const BODY_MAX: usize = 64 << 10;

/// Makes the probes that come, so many at once, until `stopping` is cancelled.
pub fn run(
    mut requests: mpsc::Receiver<ProbeRequest>,
    handle: Handle,
    at_once: usize,
    stopping: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let tls = // Marathon never verified the certificates of those it asks for their health: they are usually their own.
    TlsConnector::from(edge_tls::client_trusting_anybody());
    async move {
        let room = Arc::new(Semaphore::new(at_once.max(1)));
        let tasks = TaskTracker::new();
        loop {
            let request = tokio::select! {
                () = stopping.cancelled() => break,
                request = requests.recv() => request,
            };
            let Some(request) = request else { break };
            let Ok(permit) = room.clone().acquire_owned().await else { break };
            let (handle, tls, stopping) = (handle.clone(), tls.clone(), stopping.clone());
            #[expect(clippy::disallowed_methods, reason = "bounded by the permits, ended by its timeout, and waited for below")]
            tokio::spawn(tasks.track_future(async move {
                let outcome = tokio::select! {
                    outcome = probe(&request, &tls) => outcome,
                    () = stopping.cancelled() => return,
                };
                let _ = handle.probed(request.subject, outcome).await;
                drop(permit);
            }));
        }
        tasks.close();
        tasks.wait().await;
    }
}

async fn probe(request: &ProbeRequest, tls: &TlsConnector) -> Outcome {
    let timeout = request.timeout.min(Duration::from_secs(3_600));
    match tokio::time::timeout(timeout, ask(request, tls)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(cause)) => Outcome::Failed(cause),
        Err(_) => Outcome::Failed(format!("no answer within {} seconds", timeout.as_secs())),
    }
}

async fn ask(request: &ProbeRequest, tls: &TlsConnector) -> Result<Outcome, String> {
    let address = if request.host.contains(':') {
        format!("[{}]:{}", request.host, request.port)
    } else {
        format!("{}:{}", request.host, request.port)
    };
    let stream = TcpStream::connect(&address).await.map_err(|error| format!("{address}: {error}"))?;
    match &request.kind {
        ProbeKind::Tcp => Ok(Outcome::Connected),
        ProbeKind::Http { tls: false, path } => get(stream, &address, path).await,
        ProbeKind::Http { tls: true, path } => {
            let name = ServerName::try_from(request.host.clone()).map_err(|error| error.to_string())?;
            let stream = tls.connect(name, stream).await.map_err(|error| format!("{address}: {error}"))?;
            get(stream, &address, path).await
        }
    }
}

async fn get<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, address: &str, path: &str) -> Result<Outcome, String> {
    let said = |error: hyper::Error| format!("{address}: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let request = http::Request::get(path)
        .header(http::header::HOST, address)
        .header(http::header::USER_AGENT, "marathon-healthcheck")
        .header(http::header::ACCEPT, "*/*")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(said)?;
        let status = response.status();
        let content_type =
            response.headers().get(http::header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or("text/plain").to_owned();
        let body =
            Limited::new(response.into_body(), BODY_MAX).collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok(Outcome::Answered {
            status: status.as_u16(),
            reason: status.canonical_reason().unwrap_or_default().to_owned(),
            content_type,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended.map_err(said)?;
            answer.await
        }
    }
}
