//! The client of a Mesos master: one stream of events, and calls beside it, over the v1 scheduler API.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use mesos_proto::recordio::Decoder;
use prost::Message as _;
use scheduler::mesos::{Call, Event};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::sync::CancellationToken;

use crate::driver::Handle;
use crate::settings::Settings;
use crate::translate;

/// Longest record of the stream.
const RECORD_MAX: usize = 256 << 20;
/// How long a connection, or an answer to a call, may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Heartbeats that may be missed. Marathon's own number.
const MISSED_HEARTBEATS: u32 = 5;
/// Time between heartbeats when the master does not say.
const HEARTBEAT: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Redirections that are followed in a row without a pause.
const REDIRECTS_MAX: usize = 4;

const PROTOBUF: &str = "application/x-protobuf";
const STREAM_ID: &str = "mesos-stream-id";

/// How masters prove who they are that are called by https.
#[derive(Clone, Debug)]
pub struct MasterTls(Arc<ClientConfig>);

impl MasterTls {
    /// As `config` says.
    pub fn of(config: Arc<ClientConfig>) -> Self {
        MasterTls(config)
    }

    /// What a connection is made with.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }

    /// Not at all: for the master of the same process, which is called on an address of its own listener.
    pub fn own() -> Self {
        MasterTls(edge_tls::client_trusting_anybody())
    }
}

/// Where a master is, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    /// `host:port`.
    authority: String,
    tls: bool,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

/// Why a stream ended, or never began.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("another master leads: {0}")]
    Redirected(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Connection(String),
    #[error("the scheduler has stopped")]
    Stopped,
}

/// Keeps a stream open to whichever of the masters leads, until `stopping` is cancelled or the scheduler is gone.
pub async fn run(settings: Arc<Settings>, handle: Handle, mut calls: mpsc::Receiver<Call>, stopping: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    let mut at = 0;
    let mut redirected: Option<String> = None;
    let mut redirects = 0;
    loop {
        let Some(master) = redirected.take().or_else(|| settings.masters.get(at % settings.masters.len().max(1)).cloned()) else {
            // No master at all: definitions can be made, nothing runs.
            tokio::select! {
                () = stopping.cancelled() => return,
                call = calls.recv() => if call.is_none() { return } else { continue },
            }
        };
        let mut subscribed = false;
        let ended = tokio::select! {
            () = stopping.cancelled() => return,
            ended = stream(&settings, &handle, &mut calls, &master, &mut subscribed) => ended,
        };
        if subscribed {
            pause = FIRST_PAUSE;
            redirects = 0;
        }
        if handle.event(Event::Disconnected).await.is_err() {
            return;
        }
        let Err(broken) = ended else { return };
        match broken {
            Broken::Stopped => return,
            Broken::Redirected(to) if redirects < REDIRECTS_MAX => {
                tracing::info!(from = master, to, "another master leads");
                redirects += 1;
                redirected = Some(to);
                continue;
            }
            other => {
                tracing::warn!(master, reason = %other, pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), "no stream from the Mesos master");
                redirects = 0;
                at = at.wrapping_add(1);
            }
        }
        let until = tokio::time::sleep(pause);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = &mut until => break,
                // What was meant for a stream that is gone is said again on the next one.
                call = calls.recv() => if call.is_none() { return },
            }
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One subscription, from its beginning to its end.
async fn stream(
    settings: &Settings,
    handle: &Handle,
    calls: &mut mpsc::Receiver<Call>,
    master: &str,
    subscribed: &mut bool,
) -> Result<(), Broken> {
    let address = address(master, false);
    let view = handle.view();
    let mut roles: BTreeSet<String> = view.root.specs().map(|(_, spec)| spec.role().to_owned()).collect();
    roles.extend(view.roles.iter().cloned());
    roles.insert(settings.core.default_role.clone());
    let known = view.framework_id.clone();
    drop(view);
    let subscribe = translate::subscribe(settings, known.as_deref(), roles.into_iter().collect());
    let mut sender = timeout(ANSWER_TIMEOUT, connect(settings, &address))
        .await
        .map_err(|_| Broken::Connection(format!("{address} does not answer")))??;
    let request = request(settings, &address, None, subscribe.encode_to_vec())?;
    let response = timeout(ANSWER_TIMEOUT, sender.send_request(request))
        .await
        .map_err(|_| Broken::Connection(format!("{address} does not answer")))?
        .map_err(|error| Broken::Connection(error.to_string()))?;
    if response.status().is_redirection() {
        let location = response.headers().get(http::header::LOCATION).and_then(|it| it.to_str().ok()).unwrap_or_default();
        return Err(Broken::Redirected(self::address(location, address.tls).to_string()));
    }
    if !response.status().is_success() {
        return Err(Broken::Refused(said(response).await));
    }
    let stream_id = response.headers().get(STREAM_ID).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
    let reading = read(response.into_body(), handle, subscribed);
    let writing = write(settings, handle, calls, &address, &stream_id);
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

async fn read(mut body: Incoming, handle: &Handle, subscribed: &mut bool) -> Result<(), Broken> {
    let mut decoder = Decoder::new(RECORD_MAX);
    let mut silence = HEARTBEAT * MISSED_HEARTBEATS;
    loop {
        let frame = timeout(silence, body.frame()).await.map_err(|_| Broken::Connection("the master has fallen silent".to_owned()))?;
        let frame = match frame {
            None => return Err(Broken::Connection("the master has ended the stream".to_owned())),
            Some(Err(error)) => return Err(Broken::Connection(error.to_string())),
            Some(Ok(frame)) => frame,
        };
        let Some(data) = frame.data_ref() else { continue };
        decoder.push(data);
        while let Some(record) = decoder.next_record().map_err(|error| Broken::Connection(error.to_string()))? {
            let Some(told) = translate::read_event(&record).map_err(Broken::Connection)? else { continue };
            if let Some(seconds) = told.heartbeat.filter(|it| *it > 0.0 && it.is_finite()) {
                silence = Duration::from_secs_f64(seconds.min(3_600.0)) * MISSED_HEARTBEATS;
            }
            match &told.event {
                Event::Subscribed { framework_id, master, .. } => {
                    *subscribed = true;
                    tracing::info!(framework_id, master, "subscribed to the Mesos master");
                }
                Event::Error(message) => return Err(Broken::Refused(message.clone())),
                _ => {}
            }
            handle.event(told.event).await.map_err(|_| Broken::Stopped)?;
        }
    }
}

/// Sends calls, one after the other: their order matters.
async fn write(
    settings: &Settings,
    handle: &Handle,
    calls: &mut mpsc::Receiver<Call>,
    address: &Address,
    stream_id: &str,
) -> Result<(), Broken> {
    let mut sender: Option<SendRequest<Full<Bytes>>> = None;
    while let Some(call) = calls.recv().await {
        let Some(framework_id) = handle.view().framework_id.clone() else { continue };
        let body = Bytes::from(translate::into_call(call, settings, &framework_id).encode_to_vec());
        let mut attempts = 0;
        let response = loop {
            let open = match sender.take() {
                Some(open) if !open.is_closed() => Ok(open),
                _ => timeout(ANSWER_TIMEOUT, connect(settings, address))
                    .await
                    .map_err(|_| Broken::Connection(format!("{address} does not answer")))?,
            };
            let mut open = open?;
            let request = request(settings, address, Some(stream_id), body.to_vec())?;
            let sent = async {
                open.ready().await?;
                open.send_request(request).await
            };
            match timeout(ANSWER_TIMEOUT, sent).await {
                Ok(Ok(response)) => {
                    sender = Some(open);
                    break response;
                }
                // A kept connection may have been closed just now.
                Ok(Err(_)) if attempts == 0 => attempts += 1,
                Ok(Err(error)) => return Err(Broken::Connection(error.to_string())),
                Err(_) => return Err(Broken::Connection(format!("{address} does not answer"))),
            }
        };
        if response.status().is_success() {
            // Read to its end, so that the connection can be used again.
            let _ = Limited::new(response.into_body(), 1 << 20).collect().await;
        } else if matches!(response.status().as_u16(), 307 | 401 | 403 | 503) {
            return Err(Broken::Refused(said(response).await));
        } else {
            let (status, text) = (response.status().as_u16(), said(response).await);
            tracing::warn!(status, text, "the Mesos master refuses a call");
            if text.contains("stream") || text.contains("Framework cannot be found") {
                return Err(Broken::Refused(text));
            }
        }
    }
    Err(Broken::Stopped)
}

async fn connect(settings: &Settings, address: &Address) -> Result<SendRequest<Full<Bytes>>, Broken> {
    let broken = |error: std::io::Error| Broken::Connection(format!("{address}: {error}"));
    let stream = TcpStream::connect(&address.authority).await.map_err(broken)?;
    let _ = stream.set_nodelay(true);
    if !address.tls {
        return shake_hands(stream).await;
    }
    let Some(MasterTls(config)) = &settings.master_tls else {
        return Err(Broken::Connection(format!("{address}: no CA is known that could have signed its certificate (--tls-ca)")));
    };
    let host = address.authority.rsplit_once(':').map_or(address.authority.as_str(), |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|error| broken(std::io::Error::other(error)))?;
    shake_hands(TlsConnector::from(config.clone()).connect(name, stream).await.map_err(broken)?).await
}

async fn shake_hands(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<SendRequest<Full<Bytes>>, Broken> {
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| Broken::Connection(error.to_string()))?;
    #[expect(clippy::disallowed_methods, reason = "ends with its connection, which ends when its sender is dropped")]
    drop(tokio::spawn(async move {
        let _ = connection.await;
    }));
    Ok(sender)
}

fn request(settings: &Settings, address: &Address, stream_id: Option<&str>, body: Vec<u8>) -> Result<http::Request<Full<Bytes>>, Broken> {
    let mut request = http::Request::post("/api/v1/scheduler")
        .header(http::header::HOST, &address.authority)
        .header(http::header::CONTENT_TYPE, PROTOBUF)
        .header(http::header::ACCEPT, PROTOBUF);
    if let Some(id) = stream_id {
        request = request.header(STREAM_ID, id);
    }
    if let Some((name, Some(password))) = &settings.principal {
        request = request.header(http::header::AUTHORIZATION, format!("Basic {}", base64(format!("{name}:{password}").as_bytes())));
    }
    request.body(Full::new(Bytes::from(body))).map_err(|error| Broken::Refused(error.to_string()))
}

async fn said(response: http::Response<Incoming>) -> String {
    let status = response.status();
    let body = Limited::new(response.into_body(), 4_096).collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    format!("{status} {}", String::from_utf8_lossy(&body))
}

/// Reads `http://host:port/path`, `https://host`, `//host:port` or `host:port`; the last two are spoken to as `tls` says.
fn address(url: &str, tls: bool) -> Address {
    let (rest, tls) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => (url.strip_prefix("//").unwrap_or(url), tls),
    };
    let host = rest.split('/').next().unwrap_or_default();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Address { authority: if has_port { host.to_owned() } else { format!("{host}:5050") }, tls }
}

/// Standard base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = (u32::from(chunk[0]) << 16) | (u32::from(*chunk.get(1).unwrap_or(&0)) << 8) | u32::from(*chunk.get(2).unwrap_or(&0));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at)) as usize & 63];
            text.push(if at > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_form() {
        for (url, before, expected) in [
            ("http://10.0.0.1:5051", true, "http://10.0.0.1:5051"),
            ("//m2:5050/api/v1/scheduler", false, "http://m2:5050"),
            ("//m2:5050/api/v1/scheduler", true, "https://m2:5050"),
            ("https://m2/api/v1/scheduler", false, "https://m2:5050"),
            ("m1", false, "http://m1:5050"),
            ("http://m1/", false, "http://m1:5050"),
        ] {
            assert_eq!(address(url, before).to_string(), expected);
        }
    }

    #[test]
    fn base64_is_padded() {
        for (text, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("user:pass", "dXNlcjpwYXNz")] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
