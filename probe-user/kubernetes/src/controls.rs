//! What people do to a cluster's objects: logs of pods, shells in their containers, and their end; more and fewer of a controller's pods; nodes that
//! take no more; and what the API says of an object, for reading.
//!
//! Every call asks the API for no more than it needs, and what the API refuses is told in its own words: who may do what is decided there.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt as _, StreamExt as _, stream};
use http::{Request, Uri, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::kind::Kind;
use crate::objects::Uid;
use crate::watch::{innermost, refusal};

mod describe;
mod lines;
mod terminal;

pub use describe::Masks;
use lines::Lines;
pub use terminal::{Sizes, Terminal};

/// Tries of a change that somebody else's change got in between of.
const TRIES: usize = 5;
/// Most pods that a controller is scaled to from here.
const REPLICAS_MAX: i64 = 10_000;
/// Containers of a pod whose logs are followed at once.
const CONTAINERS_MAX: usize = 64;
/// Logs that cannot be had are refused within this time; whatever takes longer is told where the lines come.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// Events of an object that are told.
const EVENTS_MAX: usize = 50;
/// Longest name of an object.
const NAME_MAX: usize = 253;
/// How a static pod says which it is.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is.
    pub kind: Kind,
    /// Its namespace; empty for objects without one.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its id on the stream.
    pub uid: Uid,
}

/// Which logs of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// Wait for what is written from now on.
    pub follow: bool,
    /// Only the last lines of each container; `None` for all.
    pub tail: Option<u32>,
    /// Only what was written since, Unix seconds.
    pub since: Option<i64>,
    /// The time before each line.
    pub timestamps: bool,
}

/// Why something was not done, in the words of who could not.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl From<kube::Error> for Refused {
    fn from(error: kube::Error) -> Self {
        Refused(refusal(&error).map_or_else(|| innermost(&error), |refusal| refusal.message().to_owned()))
    }
}

/// Lines of one container's log.
type Log = BoxStream<'static, Bytes>;

/// Changes objects through the API, as whoever the collector is there.
#[derive(Clone)]
pub struct Hands {
    client: kube::Client,
}

impl std::fmt::Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hands")
    }
}

impl Hands {
    pub(crate) fn new(client: kube::Client) -> Self {
        Hands { client }
    }

    /// Deletes a pod: this one, not another that has got its name meanwhile.
    ///
    /// # Errors
    /// What the API says.
    pub async fn delete_pod(&self, pod: &Place) -> Result<(), Refused> {
        let path = path(pod)?;
        let found: Value = self.ask("GET", &path, None).await?;
        let uid = found["metadata"]["uid"].as_str().unwrap_or_default();
        let is_same = uid == &*pod.uid || found["metadata"]["annotations"][CONFIG_HASH].as_str() == Some(&*pod.uid);
        if !is_same {
            return Err(Refused(format!("pods \"{}\" is another one by now", pod.name)));
        }
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
        self.ask("DELETE", &path, Some(&options)).await.map(drop)
    }

    /// Makes a controller have `by` more pods, or fewer; never fewer than none.
    ///
    /// # Errors
    /// What the API says.
    pub async fn scale(&self, controller: &Place, by: i64) -> Result<(), Refused> {
        let path = format!("{}/scale", path(controller)?);
        for _ in 0..TRIES {
            let mut scale: Value = self.ask("GET", &path, None).await?;
            let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
            let wanted = (replicas + by).clamp(0, REPLICAS_MAX);
            if wanted == replicas {
                return Err(Refused(format!("{} has {replicas} pods already", controller.name)));
            }
            // It has the version that it is based on, so that nobody else's change is undone.
            scale["spec"]["replicas"] = json!(wanted);
            match self.send("PUT", &path, Some((&scale, "application/json"))).await {
                Ok(_) => return Ok(()),
                Err(error) if refusal(&error).is_some_and(|refusal| refusal.status == http::StatusCode::CONFLICT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refused(format!("{} is being changed by somebody else all the time", controller.name)))
    }

    /// Lets nothing new run on a node, or lets it again.
    ///
    /// # Errors
    /// What the API says.
    pub async fn cordon(&self, node: &str, is_cordoned: bool) -> Result<(), Refused> {
        let node = Place { kind: Kind::Node, namespace: "".into(), name: node.into(), uid: "".into() };
        let patch = json!({"spec": {"unschedulable": is_cordoned}});
        self.send("PATCH", &path(&node)?, Some((&patch, "application/merge-patch+json"))).await?;
        Ok(())
    }

    /// What the API says of an object and of what happened to it, for people. Environments are left out, and what `masks` takes for a secret.
    ///
    /// # Errors
    /// What the API says.
    pub async fn describe(&self, object: &Place, masks: &dyn Masks) -> Result<String, Refused> {
        let found: Value = self.ask("GET", &path(object)?, None).await?;
        let uid = found["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let namespace = if object.namespace.is_empty() { "default" } else { &object.namespace };
        let events = format!("/api/v1/namespaces/{namespace}/events?limit={EVENTS_MAX}&fieldSelector=involvedObject.uid%3D{uid}");
        let events = self.ask("GET", &events, None).await;
        Ok(describe::describe(&found, events.as_ref().map_err(ToString::to_string), masks))
    }

    /// Lines of all containers of a pod, each after its container's name in brackets, as they are written. The API begins to answer for a
    /// container with its first line: one that is quiet keeps neither the others waiting nor whoever asks.
    ///
    /// # Errors
    /// When no container's logs can be had.
    pub async fn logs(&self, pod: &Place, request: &LogRequest) -> Result<BoxStream<'static, Bytes>, Refused> {
        let path = path(pod)?;
        let found: Value = self.ask("GET", &path, None).await?;
        let names = found["spec"]["containers"].as_array().into_iter().flatten().filter_map(|container| container["name"].as_str());
        let mut opening: FuturesUnordered<BoxFuture<'static, (String, Result<Log, Refused>)>> = names
            .take(CONTAINERS_MAX)
            .map(|name| {
                let (hands, path, name, request) = (self.clone(), path.clone(), name.to_owned(), request.clone());
                async move {
                    let opened = hands.log(&path, &name, &request).await;
                    (name, opened)
                }
                .boxed()
            })
            .collect();
        if opening.is_empty() {
            return Err(Refused(format!("pod {} has no containers", pod.name)));
        }
        let mut settled = Vec::new();
        let first = async {
            while let Some((name, opened)) = opening.next().await {
                let is_open = opened.is_ok();
                settled.push((name, opened));
                if is_open {
                    break;
                }
            }
        };
        // One that is quiet is none that is refused.
        drop(timeout(REFUSED_WITHIN, first).await);
        if opening.is_empty() && settled.iter().all(|(_, opened)| opened.is_err()) {
            let refused = settled.into_iter().find_map(|(_, opened)| opened.err());
            return Err(refused.unwrap_or_else(|| Refused("no logs".to_owned())));
        }
        let all = stream::iter(settled).chain(opening).map(|(name, opened)| match opened {
            Ok(lines) => lines,
            // One that has not begun yet says nothing; that is said.
            Err(error) => stream::once(async move { Bytes::from(format!("[{name}] {error}\n")) }).boxed(),
        });
        Ok(all.flatten_unordered(None).boxed())
    }

    async fn log(&self, path: &str, container: &str, request: &LogRequest) -> Result<Log, Refused> {
        let LogRequest { follow, tail, since, timestamps } = request;
        let mut query = format!("{path}/log?container={}&follow={follow}&timestamps={timestamps}", name(container)?);
        if let Some(tail) = tail {
            query.push_str(&format!("&tailLines={tail}"));
        }
        if let Some(since) = since.and_then(|since| jiff::Timestamp::from_second(since).ok()) {
            query.push_str(&format!("&sinceTime={since}"));
        }
        let response = self.send("GET", &query, None).await?;
        let lines = Lines::of_container(container);
        let lines = stream::unfold(Some((response.into_body(), lines)), async |state| {
            let (mut body, mut lines) = state?;
            loop {
                match body.frame().await {
                    Some(Ok(frame)) => {
                        let Ok(data) = frame.into_data() else { continue };
                        let marked = lines.take(&data);
                        if !marked.is_empty() {
                            return Some((marked, Some((body, lines))));
                        }
                    }
                    Some(Err(error)) => return Some((lines.broken(&innermost(&error)), None)),
                    None => {
                        let rest = lines.end();
                        return (!rest.is_empty()).then_some((rest, None));
                    }
                }
            }
        });
        Ok(lines.boxed())
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Refused> {
        let response = self.send(method, path, body.map(|body| (body, "application/json"))).await?;
        let body = response.into_body().collect().await.map_err(|error| Refused(innermost(&error)))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| Refused(format!("the API's answer cannot be understood: {error}")))
    }

    async fn send(&self, method: &str, path: &str, body: Option<(&Value, &str)>) -> Result<http::Response<Body>, kube::Error> {
        let uri: Uri = path.parse().map_err(|error: http::uri::InvalidUri| kube::Error::Service(error.into()))?;
        let mut request = Request::builder().method(method).uri(uri);
        if let Some((_, content_type)) = body {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let bytes = body.map(|(body, _)| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(Body::from(bytes)).map_err(kube::Error::HttpError)?;
        self.client.send(request).await
    }
}

/// Where the API has an object.
fn path(place: &Place) -> Result<String, Refused> {
    let Place { kind, namespace, name: called, .. } = place;
    let root = match kind.group() {
        "" => "/api/v1".to_owned(),
        group => format!("/apis/{group}/v1"),
    };
    let plural = kind.plural();
    let called = name(called)?;
    if namespace.is_empty() {
        Ok(format!("{root}/{plural}/{called}"))
    } else {
        Ok(format!("{root}/namespaces/{}/{plural}/{called}", name(namespace)?))
    }
}

/// A name that may be a part of a path: names are lower case, but those of some older kinds.
fn name(text: &str) -> Result<&str, Refused> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_name = (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('.');
    if is_name { Ok(text) } else { Err(Refused(format!("{text:?} is no name of an object"))) }
}

/// A stream of logs may be silent for as long as its program is.
pub(crate) const FOLLOWED_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);
