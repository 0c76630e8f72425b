//! The page's way to the other services. It may only call where it came from, and those listen elsewhere: the Mesos master and the scheduler are
//! answered for by their own routers, in this process; files of tasks are fetched from the agent that has them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;
use axum::routing::any;
use edge_mesos::AgentAddress;
use edge_tls::Stream;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower::ServiceExt as _;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::Context;
use crate::http::foreign::{ADVICE, is_foreign};
use crate::http::query::Query;
use crate::http::reply::{json_value, not_found, problem};
use crate::marathon;

/// Conversations with agents at once; beyond it, clients are told to come again.
const CONVERSATIONS: usize = 64;
/// How long an agent may take to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long an agent may take to begin its answer, and to send a listing or a piece of a file.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a listing or a piece of a file. An agent lists 10,000 entries and reads 64 KiB at once.
const ANSWER_BYTES: usize = 8 << 20;

/// The routes that the OpenAPI document has.
pub(super) fn routes(context: &Context) -> OpenApiRouter {
    let conversations = Arc::new(Semaphore::new(CONVERSATIONS));
    OpenApiRouter::new().routes(routes!(services)).routes(routes!(agent_files)).with_state((context.clone(), conversations))
}

/// The APIs that are described elsewhere, by those who made them: Mesos' and Marathon's.
pub(in crate::http) fn carried(context: &Context) -> Router {
    let mesos = Carried {
        prefix: "/api/v1/mesos",
        router: context.mesos.clone().map(edge_mesos::router),
        absent: "no Mesos master runs in this control plane",
    };
    let marathon = Carried {
        prefix: "/api/v1/marathon",
        router: context.marathon.clone().map(|running| marathon::router_of(running, context.supervisor.stopping().clone())),
        absent: "no scheduler runs in this control plane",
    };
    Router::new()
        .route("/api/v1/mesos/{*path}", any(carry).with_state(mesos))
        .route("/api/v1/marathon/{*path}", any(carry).with_state(marathon))
}

/// Which services run in this control plane.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Services {
    /// The Mesos master, at `/api/v1/mesos`.
    master: ServiceState,
    /// The scheduler with Marathon's API, at `/api/v1/marathon`.
    scheduler: ServiceState,
    /// The links between ZooKeeper ensembles, at `/api/v1/zksync`.
    zksync: ServiceState,
}

/// How a service stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServiceState {
    /// It is among the services of this control plane.
    runs: bool,
    /// It answers.
    ready: bool,
    /// Why it does not, or where else it is; null when there is nothing to say.
    detail: Option<String>,
}

type Shared = (Context, Arc<Semaphore>);

/// Which services run here.
#[utoipa::path(get, path = "/api/v1/services", tag = "Platform", responses((status = 200, description = "Each service", body = Services)))]
async fn services(State(shared): State<Shared>) -> Response {
    let (context, _) = shared;
    let off = |name: &str| format!("the service {name} is not among --services");
    let master = match &context.mesos {
        None if context.masters.is_empty() => ServiceState { runs: false, ready: false, detail: Some(off("master")) },
        None => {
            let detail = format!("the scheduler uses the master at {}", context.masters.join(", "));
            ServiceState { runs: false, ready: false, detail: Some(detail) }
        }
        Some(mesos) if mesos.master().is_serving() => ServiceState { runs: true, ready: true, detail: None },
        Some(mesos) => {
            let detail = match mesos.master().leader() {
                Some(leader) => format!("the master at {}:{} leads", leader.hostname, leader.port),
                None => "no master leads".to_owned(),
            };
            ServiceState { runs: true, ready: false, detail: Some(detail) }
        }
    };
    let scheduler = match &context.marathon {
        None => ServiceState { runs: false, ready: false, detail: Some(off("scheduler")) },
        Some(running) if running.get().is_some() => ServiceState { runs: true, ready: true, detail: None },
        Some(_) => ServiceState { runs: true, ready: false, detail: Some("no scheduler leads".to_owned()) },
    };
    let runs = context.zksync.is_some();
    let zksync = ServiceState { runs, ready: runs, detail: (!runs).then(|| off("zksync")) };
    json_value(StatusCode::OK, &Services { master, scheduler, zksync })
}

/// A router of this process that listens elsewhere.
#[derive(Clone)]
struct Carried {
    prefix: &'static str,
    router: Option<Router>,
    absent: &'static str,
}

async fn carry(State(it): State<Carried>, mut request: Request) -> Response {
    if !request.method().is_safe() && is_foreign(request.headers()) {
        return problem(StatusCode::FORBIDDEN, &format!("a page of another origin may not change anything here; {ADVICE}"));
    }
    let Some(router) = it.router else { return problem(StatusCode::NOT_FOUND, it.absent) };
    let Some(uri) = below(request.uri(), it.prefix) else { return not_found() };
    *request.uri_mut() = uri;
    let Ok(mut response) = router.oneshot(request).await;
    if response.status() == StatusCode::TEMPORARY_REDIRECT {
        // A browser would leave the page's origin, which it may not.
        let there = response.headers().get(header::LOCATION).and_then(|it| it.to_str().ok()).unwrap_or_default();
        return problem(StatusCode::SERVICE_UNAVAILABLE, &format!("another one leads: {there}"));
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What is left of a target without `prefix`.
fn below(uri: &Uri, prefix: &str) -> Option<Uri> {
    let target = uri.path_and_query()?.as_str().strip_prefix(prefix)?;
    Some(Uri::from(target.parse::<PathAndQuery>().ok()?))
}

/// What is done with files of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Browse,
    Read,
    Download,
}

/// Files of a registered agent: its tasks' sandboxes, as the agent's own `/files` shows them.
#[utoipa::path(
    get,
    path = "/api/v1/agents/{id}/files/{operation}",
    tag = "Platform",
    params(
        ("id" = String, Path, description = "Id of an agent that is registered with the master of this control plane"),
        ("operation" = String, Path, description = "`browse`, `read` or `download`"),
        ("path" = Option<String>, Query, description = "Path of the file or directory"),
        ("offset" = Option<i64>, Query, description = "Where to read; -1 asks for the length"),
        ("length" = Option<i64>, Query, description = "How many bytes to read")
    ),
    responses(
        (status = 200, description = "What the agent answers"),
        (status = 400, description = "The agent cannot make sense of it"),
        (status = 404, description = "No such agent, operation or file"),
        (status = 502, description = "The agent does not answer, or with something else"),
        (status = 503, description = "The master stops, or too many files are read at once")
    )
)]
async fn agent_files(State(shared): State<Shared>, Path((id, operation)): Path<(String, String)>, RawQuery(query): RawQuery) -> Response {
    let (context, conversations) = shared;
    let operation = match operation.as_str() {
        "browse" => Operation::Browse,
        "read" => Operation::Read,
        "download" => Operation::Download,
        _ => return not_found(),
    };
    let Some(mesos) = &context.mesos else { return problem(StatusCode::NOT_FOUND, "no Mesos master runs in this control plane") };
    let address = match mesos.agent_address(&id).await {
        Ok(Some(address)) => address,
        Ok(None) => return problem(StatusCode::NOT_FOUND, "no agent with this id is registered"),
        Err(stopped) => return problem(StatusCode::SERVICE_UNAVAILABLE, &stopped.to_string()),
    };
    let Ok(permit) = conversations.try_acquire_owned() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many files are read at once");
    };
    match converse(&context, permit, &address, operation, query.as_deref()).await {
        Ok(response) => response,
        Err(text) => problem(StatusCode::BAD_GATEWAY, &format!("the agent at {} {text}", address.address)),
    }
}

/// A connection with an agent, encrypted where it speaks TLS. Whom it belongs to is not verified: its registration says where it is.
async fn connect(agent: &AgentAddress) -> Result<Stream, String> {
    let stream = timeout(CONNECT_PATIENCE, TcpStream::connect(&agent.address)).await.map_err(|_| "does not answer".to_owned())?;
    let stream = stream.map_err(|error| format!("cannot be reached: {error}"))?;
    if !agent.tls {
        return Ok(stream.into());
    }
    let host = agent.address.rsplit_once(':').map_or(agent.address.as_str(), |(host, _)| host).trim_matches(['[', ']']);
    let encrypted =
        timeout(CONNECT_PATIENCE, edge_tls::connect_to_anybody(stream, host)).await.map_err(|_| "does not answer".to_owned())?;
    encrypted.map_err(|error| format!("does not speak TLS: {error}"))
}

/// Asks an agent. An error says what it did instead of an answer.
async fn converse(
    context: &Context,
    permit: OwnedSemaphorePermit,
    agent: &AgentAddress,
    operation: Operation,
    query: Option<&str>,
) -> Result<Response, String> {
    let stream = connect(agent).await?;
    let broken = |error: hyper::Error| format!("does not speak HTTP: {error}");
    let (mut sender, connection) = http1::Builder::new().max_buf_size(64 << 10).handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends when the answer was read, or is not wanted any more.
    context.supervisor.one_off("agent_files", async move {
        let _ = connection.await;
        drop(permit);
    });
    let request = http::Request::get(target(operation, query)).header(header::HOST, &agent.address).header(header::CONNECTION, "close");
    let request = match &context.agent_login {
        Some(login) => request.header(header::AUTHORIZATION, login),
        None => request,
    };
    let request = request.body(Body::empty()).map_err(|error| format!("cannot be asked: {error}"))?;
    let answer = timeout(ANSWER_PATIENCE, sender.send_request(request)).await.map_err(|_| "does not answer".to_owned())?.map_err(broken)?;
    let status = answer.status();
    if !matches!(status, StatusCode::OK | StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) {
        return Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if context.agent_login.is_some() => {
                "does not know our --agent-login-file".to_owned()
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "asks who we are, and there is no --agent-login-file".to_owned(),
            other => format!("answers {other}"),
        });
    }
    let (head, body) = answer.into_parts();
    let mut response = if operation == Operation::Download && status == StatusCode::OK {
        let mut response = Response::new(Body::new(body));
        // What a task wrote is never a page of ours.
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
        for name in [header::CONTENT_LENGTH, header::CONTENT_DISPOSITION] {
            if let Some(value) =
                head.headers.get(&name).filter(|it| name == header::CONTENT_LENGTH || it.as_bytes().starts_with(b"attachment"))
            {
                headers.insert(name, value.clone());
            }
        }
        response
    } else {
        let whole = timeout(ANSWER_PATIENCE, axum::body::to_bytes(Body::new(body), ANSWER_BYTES)).await;
        let whole = whole.map_err(|_| "does not finish its answer".to_owned())?.map_err(|error| format!("breaks off: {error}"))?;
        let mut response = Response::new(Body::from(whole));
        let kind = if status == StatusCode::OK { "application/json" } else { "text/plain; charset=utf-8" };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    };
    *response.status_mut() = status;
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// What is asked of the agent: nothing of the client's but the path and what part of it.
fn target(operation: Operation, query: Option<&str>) -> String {
    let name = match operation {
        Operation::Browse => "browse",
        Operation::Read => "read",
        Operation::Download => "download",
    };
    let query = Query::parse(query);
    let mut target = format!("/files/{name}");
    for (index, (key, value)) in ["path", "offset", "length"].iter().filter_map(|key| Some((key, query.first(key)?))).enumerate() {
        target.push(if index == 0 { '?' } else { '&' });
        target.push_str(key);
        target.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => target.push(char::from(byte)),
                other => target.push_str(&format!("%{other:02X}")),
            }
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_asked_for_a_path_and_nothing_else() {
        assert_eq!(target(Operation::Browse, None), "/files/browse");
        let query = "jsonp=alert&path=%2Fframeworks%2Fa%20b%26c&length=5&offset=-1&path=%2Fother";
        assert_eq!(target(Operation::Read, Some(query)), "/files/read?path=/frameworks/a%20b%26c&offset=-1&length=5");
        assert_eq!(target(Operation::Download, Some("path=a%0d%0aHost:%20x")), "/files/download?path=a%0D%0AHost%3A%20x");
    }

    #[test]
    fn the_rest_of_a_target_keeps_its_escapes() {
        let below = |text: &str| below(&text.parse().unwrap(), "/api/v1/mesos").map(|it| it.to_string());
        assert_eq!(below("/api/v1/mesos/quota/a%2Fb?x=%20"), Some("/quota/a%2Fb?x=%20".to_owned()));
        assert_eq!(below("/api/v1/marathon/v2/apps"), None);
    }
}
