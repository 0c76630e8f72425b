//! One question over HTTP/1.1, with a limit on everything: time, size, and where the answer comes from.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::host::cloud::providers::Question;

/// One question takes at most this long.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// Largest answer that is read. Azure's and OpenStack's have user data and keys in them.
const BODY_MAX: usize = 256 * 1024;

/// Largest head of an answer.
const HEAD_MAX: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no answer in {ANSWERED_WITHIN:?}")]
    Silent,
    #[error("cannot be reached")]
    Unreachable(#[source] std::io::Error),
    #[error("not HTTP")]
    NotHttp(#[source] hyper::Error),
    #[error("an answer too large or broken off")]
    Body,
    #[error("status {0}")]
    Status(u16),
    #[error("{0} is not understood")]
    NotUnderstood(&'static str),
}

/// An answer with status 200.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its `Metadata-Flavor`.
    pub(super) flavor: Option<String>,
    pub(super) body: Bytes,
}

/// Asks. A redirect is a status like any other that is not 200: the services never send one.
pub(super) async fn ask(address: SocketAddr, question: &Question, token: Option<&str>) -> Result<Answer, AskError> {
    tokio::time::timeout(ANSWERED_WITHIN, exchange(address, question, token)).await.map_err(|_| AskError::Silent)?
}

async fn exchange(address: SocketAddr, question: &Question, token: Option<&str>) -> Result<Answer, AskError> {
    let stream = TcpStream::connect(address).await.map_err(AskError::Unreachable)?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(AskError::NotHttp)?;
    let mut request = Request::builder()
        .method(question.method)
        .uri(question.path)
        .header(header::HOST, if address.port() == 80 { address.ip().to_string() } else { address.to_string() })
        .header(header::CONNECTION, "close");
    for (name, value) in question.headers {
        request = request.header(*name, *value);
    }
    if let (Some(name), Some(token)) = (question.token_header, token) {
        request = request.header(name, token);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| AskError::NotUnderstood("the token"))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(AskError::NotHttp)?;
        if response.status() != hyper::StatusCode::OK {
            return Err(AskError::Status(response.status().as_u16()));
        }
        let flavor = response.headers().get("metadata-flavor").and_then(|it| it.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await.map_err(|_| AskError::Body)?;
        Ok(Answer { flavor, body: body.to_bytes() })
    };
    // The connection has to be driven while the answer is awaited; when it ends first, the answer says why.
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        _ = connection => answered.await,
    }
}
