//! A client of Marathon's REST API, whoever serves it.
//!
//! Owns addresses (several servers of one Marathon, tried in turn), TLS, credentials, JSON in and out, and the event stream. Must never know
//! what the JSON means.

mod events;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub use events::{Event, Events};

/// Bytes of an answer.
const ANSWER_MAX: usize = 1 << 30;
/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(5);
/// How often a redirection is followed.
const REDIRECTIONS: usize = 3;

/// Where a Marathon is, and how to be let in.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Access {
    /// Name and password for Marathon, as `name:password`
    #[arg(long, env = "MARATHON_CREDENTIALS", hide_env_values = true)]
    pub credentials: Option<String>,
    /// File with a token that is sent as `Authorization: token=…` (DC/OS)
    #[arg(long)]
    pub token_file: Option<PathBuf>,
    /// File with certificates (PEM) of authorities to trust besides the system's
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// Do not verify the server's certificate
    #[arg(long)]
    pub insecure: bool,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address or a file cannot be used: to be corrected.
    #[error("{0}")]
    Usage(String),
    /// No server answers.
    #[error("no server answers: {0}")]
    Unreachable(String),
    /// It does not want to.
    #[error("{method} {path} was answered with {status}: {message}")]
    Refused {
        /// What was asked.
        method: Method,
        /// Of what.
        path: String,
        /// Its status code.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// It answers what nobody understands.
    #[error("{path} was answered with something that is no JSON: {problem}")]
    Odd {
        /// What was asked.
        path: String,
        /// Why.
        problem: String,
    },
}

impl Error {
    /// Its status code, if it answered.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Error::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// A Marathon.
#[derive(Clone)]
pub struct Client {
    servers: Vec<Uri>,
    authorization: Option<String>,
    tls: TlsConnector,
    patience: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Client {
    /// A Marathon at `addresses`, each `http://host:port/prefix`, tried in turn.
    ///
    /// # Errors
    /// When an address or a file cannot be used.
    pub fn new(addresses: &[String], access: &Access) -> Result<Client, Error> {
        let mut servers = Vec::new();
        for address in addresses.iter().flat_map(|it| it.split(',')).filter(|it| !it.is_empty()) {
            let with_scheme = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
            let uri: Uri = with_scheme.trim_end_matches('/').parse().map_err(|error| Error::Usage(format!("{address:?}: {error}")))?;
            if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
                return Err(Error::Usage(format!("{address:?} is not of the form http://host:port")));
            }
            servers.push(uri);
        }
        if servers.is_empty() {
            return Err(Error::Usage("no address of a Marathon".to_owned()));
        }
        let token = access.token_file.as_ref().map(|path| {
            let text = std::fs::read_to_string(path).map_err(|error| Error::Usage(format!("{}: {error}", path.display())))?;
            Ok::<_, Error>(format!("token={}", text.trim()))
        });
        let basic = access.credentials.as_ref().map(|it| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(it)));
        let authorization = match token.transpose()? {
            Some(token) => Some(token),
            None => basic,
        };
        Ok(Client { servers, authorization, tls: tls::connector(access)?, patience: Duration::from_secs(60) })
    }

    /// The first address, for people.
    pub fn name(&self) -> String {
        self.servers.first().map(ToString::to_string).unwrap_or_default()
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.send(Method::GET, path, None).await
    }

    /// What is at `path`; `None` when there is no such thing.
    ///
    /// # Errors
    /// As [`Client::send`], but for a 404.
    pub async fn get_if(&self, path: &str) -> Result<Option<Value>, Error> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request, to the next server where one does not answer. An empty answer is null.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a refusal or no JSON.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let text = body.map(Value::to_string).unwrap_or_default();
        let response = self.request(&method, path, "application/json", Bytes::from(text)).await?;
        let status = response.status();
        let collecting = tokio::time::timeout(self.patience, Limited::new(response.into_body(), ANSWER_MAX).collect());
        let bytes = match collecting.await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) => return Err(Error::Unreachable(format!("{path}: {error}"))),
            Err(_) => return Err(Error::Unreachable(format!("{path}: the answer does not end"))),
        };
        if !status.is_success() {
            let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let text = || String::from_utf8_lossy(&bytes).chars().take(500).collect();
            let message = match (value["message"].as_str(), value.get("details")) {
                (Some(message), Some(details)) => format!("{message} {details}"),
                (Some(message), None) => message.to_owned(),
                (None, _) => text(),
            };
            return Err(Error::Refused { method, path: path.to_owned(), status, message });
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| Error::Odd { path: path.to_owned(), problem: error.to_string() })
    }

    /// Listens to events of these types.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a refusal.
    pub async fn events(&self, kinds: &[&str]) -> Result<Events, Error> {
        let wanted: Vec<String> = kinds.iter().map(|kind| format!("event_type={kind}")).collect();
        let path = format!("/v2/events?plan-format=light&{}", wanted.join("&"));
        let response = self.request(&Method::GET, &path, "text/event-stream", Bytes::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(Error::Refused { method: Method::GET, path, status: response.status(), message: "no event stream".to_owned() });
        }
        Ok(Events::new(response.into_body()))
    }

    async fn request(&self, method: &Method, path: &str, accept: &str, body: Bytes) -> Result<hyper::Response<Incoming>, Error> {
        let mut problems = Vec::new();
        for server in &self.servers {
            let prefix = server.path().trim_end_matches('/');
            let mut target = format!("{}://{}{prefix}{path}", server.scheme_str().unwrap_or("http"), authority(server));
            for _ in 0..REDIRECTIONS {
                let attempt = tokio::time::timeout(self.patience, self.attempt(method, &target, accept, body.clone()));
                match attempt.await {
                    // Event streams of those who do not lead are redirected.
                    Ok(Ok(response)) if response.status().is_redirection() && *method == Method::GET => {
                        match response.headers().get(header::LOCATION).and_then(|it| it.to_str().ok()) {
                            Some(location) if location.contains("://") => target = location.to_owned(),
                            _ => return Ok(response),
                        }
                    }
                    // Who answers so cannot; another one may.
                    Ok(Ok(response)) if response.status() == StatusCode::SERVICE_UNAVAILABLE && self.servers.len() > 1 => {
                        problems.push(format!("{target}: {}", response.status()));
                        break;
                    }
                    Ok(Ok(response)) => return Ok(response),
                    Ok(Err(error)) => {
                        problems.push(format!("{target}: {error}"));
                        break;
                    }
                    Err(_) => {
                        problems.push(format!("{target}: no answer in time"));
                        break;
                    }
                }
            }
        }
        Err(Error::Unreachable(problems.join("; ")))
    }

    async fn attempt(&self, method: &Method, target: &str, accept: &str, body: Bytes) -> Result<hyper::Response<Incoming>, String> {
        let uri: Uri = target.parse().map_err(|error| format!("{error}"))?;
        let tls = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let connecting = tokio::time::timeout(CONNECTING, TcpStream::connect((host.as_str(), port)));
        let stream = connecting.await.map_err(|_| "no connection in time".to_owned())?.map_err(|error| error.to_string())?;
        let mut request = Request::builder()
            .method(method)
            .uri(uri.path_and_query().map_or("/", |it| it.as_str()))
            .header(header::HOST, authority(&uri))
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, concat!("orchestrator/", env!("CARGO_PKG_VERSION")));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        if tls {
            let name = tokio_rustls::rustls::pki_types::ServerName::try_from(host).map_err(|error| error.to_string())?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| error.to_string())?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<hyper::Response<Incoming>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    #[expect(clippy::disallowed_methods, reason = "ends with its connection, which ends with the body")]
    drop(tokio::spawn(connection));
    sender.send_request(request).await.map_err(|error| error.to_string())
}

/// `host:port` without a name and password.
fn authority(uri: &Uri) -> String {
    let all = uri.authority().map_or("", |it| it.as_str());
    all.rsplit('@').next().unwrap_or(all).to_owned()
}
