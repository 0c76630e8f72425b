//! The daemon's streams as they are. The client library guesses from a terminal's first byte whether its output comes in pieces, and a program
//! may well begin with that byte.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The daemon has to answer within this time; what it then sends may take as long as it likes.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// What is read of a refusal.
const REFUSAL_BYTES: usize = 64 << 10;

/// Asks the daemon.
pub(super) struct Raw {
    socket: PathBuf,
}

type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body that is read as it comes.
pub(super) struct RawBody {
    connection: Connection,
    body: Incoming,
}

impl Raw {
    pub(super) fn new(socket: PathBuf) -> Self {
        Raw { socket }
    }

    /// A stream in both directions.
    pub(super) async fn upgrade(&self, path: &str, body: Option<&'static str>) -> Result<TokioIo<Upgraded>, String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, "docker")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "tcp")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from_static(body.unwrap_or_default().as_bytes())));
        let (response, mut connection) = self.ask(request).await?;
        if !matches!(response.status(), StatusCode::SWITCHING_PROTOCOLS | StatusCode::OK) {
            return Err(refusal(RawBody { connection, body: response.into_body() }).await);
        }
        let upgraded = tokio::select! {
            upgraded = hyper::upgrade::on(response) => upgraded,
            () = &mut connection => return Err("docker closed the connection".to_owned()),
        };
        upgraded.map(TokioIo::new).map_err(|error| error.to_string())
    }

    /// A body without an end.
    pub(super) async fn body(&self, path: &str) -> Result<RawBody, String> {
        let request = Request::builder().uri(path).header(HOST, "docker").body(Full::default());
        let (response, connection) = self.ask(request).await?;
        let is_success = response.status().is_success();
        let body = RawBody { connection, body: response.into_body() };
        if is_success { Ok(body) } else { Err(refusal(body).await) }
    }

    async fn ask(&self, request: http::Result<Request<Full<Bytes>>>) -> Result<(Response<Incoming>, Connection), String> {
        let request = request.map_err(|error| error.to_string())?;
        let asked = async {
            let stream = UnixStream::connect(&self.socket).await.map_err(|error| format!("docker does not answer: {error}"))?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            let connection = connection.with_upgrades();
            let mut connection: Connection = Box::pin(async move { drop(connection.await) });
            let response = while_driven(&mut connection, sender.send_request(request)).await.map_err(|error| error.to_string())?;
            Ok((response, connection))
        };
        timeout(ANSWERED_WITHIN, asked).await.map_err(|_| "docker does not answer".to_owned())?
    }
}

impl RawBody {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            let frame = while_driven(&mut self.connection, self.body.frame()).await?;
            match frame {
                Ok(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Some(Ok(bytes));
                    }
                }
                Err(error) => return Some(Err(error.to_string())),
            }
        }
    }
}

/// A connection does its work only while it is looked at.
async fn while_driven<T>(connection: &mut Connection, wanted: impl Future<Output = T>) -> T {
    let mut wanted = std::pin::pin!(wanted);
    tokio::select! {
        biased;
        got = &mut wanted => return got,
        () = connection.as_mut() => {}
    }
    // It has ended; what was read before is still there.
    *connection = Box::pin(std::future::pending());
    wanted.await
}

/// What the daemon says of a request that it refuses: `{"message": …}`.
async fn refusal(mut body: RawBody) -> String {
    let mut said = Vec::new();
    let read = async {
        while said.len() < REFUSAL_BYTES
            && let Some(Ok(bytes)) = body.next().await
        {
            said.extend_from_slice(&bytes);
        }
    };
    drop(timeout(ANSWERED_WITHIN, read).await);
    let message = serde_json::from_slice::<serde_json::Value>(&said).ok();
    let message = message.as_ref().and_then(|it| it.get("message")).and_then(|it| it.as_str());
    message.map_or_else(|| String::from_utf8_lossy(&said).trim().to_owned(), str::to_owned)
}
