//! One kind, followed for ever: listed in pages, then watched from where the list was taken, resumed from the last event or bookmark when the
//! watch ends, and listed again when the server no longer knows that place.
//!
//! The state machine is the client library's. What it leaves to its user is here: how long to wait after which failure, and when to begin
//! anew. It would ask for ever for a place that is gone when the refusal comes as a status instead of an event, and it steps over an event that
//! it cannot read: in both cases the kind is listed again, for something was missed.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::StatusCode;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::backoff::{self, Backoff};
use crate::client::{Pace, Paces, Patience, Refusal};
use crate::kind::Kind;
use crate::objects::{Facts, Uid};
use crate::wire::{self, Object, Wire, shortened};

/// Refused watches in a row after which the place to resume from is thought to be the reason, e.g. when the server's store was restored from
/// a backup and has not come so far again.
const REFUSED_WATCHES_MAX: u32 = 5;
/// What is kept of an error's text.
const MESSAGE_BYTES: usize = 256;

/// What happened to a kind.
#[derive(Debug)]
pub enum Step {
    /// A list begins.
    ListBegun,
    /// An object is there: listed, new or changed.
    Applied(Box<Facts>),
    /// An object is gone.
    Deleted(Uid),
    /// The list is complete.
    Listed,
    /// The server has accepted a watch: from here on it is followed.
    Watched,
    /// It goes on, after a pause.
    Failed(Failure),
}

/// Why it did not go on at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What sort.
    pub cause: Cause,
    /// For people.
    pub message: String,
}

/// Sorts of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The place to resume from, or the list's next page, is no longer known (410).
    Expired,
    /// This kind may not be read (403).
    Forbidden,
    /// There is no such kind (404).
    Absent,
    /// The server does not know who asks (401): a token or a certificate has expired, and there may be a new one.
    Unauthorized,
    /// An event could not be read, so something was missed.
    Unreadable,
    /// Anything else: the server failed, refused, or cannot be reached.
    Other,
}

/// What one follower follows: a kind, in all namespaces or in one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The kind.
    pub kind: Kind,
    /// The namespace; `None` for all, and for kinds without namespaces.
    pub namespace: Option<Arc<str>>,
}

impl Scope {
    /// Everything there is to follow: each kind once, or, if namespaces are named, once in each of them.
    pub fn all(namespaces: &[Arc<str>]) -> Vec<Self> {
        let of = |kind: Kind| match namespaces {
            [_, ..] if kind.is_namespaced() => namespaces.iter().map(|name| Some(name.clone())).collect(),
            _ => vec![None],
        };
        Kind::ALL.into_iter().flat_map(|kind| of(kind).into_iter().map(move |namespace| Self { kind, namespace })).collect()
    }
}

/// What happens to everything that is followed.
pub(crate) type Steps = stream::SelectAll<BoxStream<'static, (Scope, Step)>>;

/// Follows every scope.
pub(crate) fn follow_all(scopes: &[Scope], client: &Client, paces: &Paces, page_size: u32, patience: Patience) -> Steps {
    let way = Way { client, paces, page_size, patience };
    stream::select_all(scopes.iter().map(|scope| match scope.kind {
        Kind::Namespace => way.follow::<wire::Namespace>(scope),
        Kind::Node => way.follow::<wire::Node>(scope),
        Kind::StorageClass => way.follow::<wire::StorageClass>(scope),
        Kind::PersistentVolume => way.follow::<wire::PersistentVolume>(scope),
        Kind::PersistentVolumeClaim => way.follow_within::<wire::PersistentVolumeClaim>(scope),
        Kind::EndpointSlice => way.follow_within::<wire::EndpointSlice>(scope),
        Kind::Service => way.follow_within::<wire::Service>(scope),
        Kind::Deployment => way.follow_within::<wire::Deployment>(scope),
        Kind::ReplicaSet => way.follow_within::<wire::ReplicaSet>(scope),
        Kind::DaemonSet => way.follow_within::<wire::DaemonSet>(scope),
        Kind::StatefulSet => way.follow_within::<wire::StatefulSet>(scope),
        Kind::CronJob => way.follow_within::<wire::CronJob>(scope),
        Kind::Job => way.follow_within::<wire::Job>(scope),
        Kind::Pod => way.follow_within::<wire::Pod>(scope),
    }))
}

/// What all followers need.
struct Way<'a> {
    client: &'a Client,
    paces: &'a Paces,
    page_size: u32,
    patience: Patience,
}

impl Way<'_> {
    fn follow<W: Wire>(&self, scope: &Scope) -> BoxStream<'static, (Scope, Step)> {
        self.follow_at(scope, Api::<Object<W>>::all(self.client.clone()))
    }

    fn follow_within<W: Wire>(&self, scope: &Scope) -> BoxStream<'static, (Scope, Step)>
    where
        W::Api: k8s_openapi::Resource<Scope = NamespaceResourceScope>,
    {
        match &scope.namespace {
            Some(namespace) => self.follow_at(scope, Api::<Object<W>>::namespaced(self.client.clone(), namespace)),
            None => self.follow::<W>(scope),
        }
    }

    fn follow_at<W: Wire>(&self, scope: &Scope, api: Api<Object<W>>) -> BoxStream<'static, (Scope, Step)> {
        let follower = Follower::<W> {
            pace: self.paces.of(api.resource_url()),
            events: events(&api, self.page_size, self.patience),
            api,
            page_size: self.page_size,
            patience: self.patience,
            backoff: Backoff::new(self.patience.backoff_min, self.patience.backoff_max),
            refusals: Backoff::new(self.patience.refused_min, self.patience.refused_max),
            refused_watches: 0,
            resume_at: None,
        };
        let state = (follower, scope.clone());
        stream::unfold(state, |(mut follower, scope)| async move {
            let step = follower.next().await;
            Some(((scope.clone(), step), (follower, scope)))
        })
        .boxed()
    }
}

struct Follower<W: Wire> {
    api: Api<Object<W>>,
    pace: Arc<Pace>,
    page_size: u32,
    patience: Patience,
    events: BoxStream<'static, watcher::Result<Event<Object<W>>>>,
    backoff: Backoff,
    refusals: Backoff,
    refused_watches: u32,
    resume_at: Option<Instant>,
}

impl<W: Wire> Follower<W> {
    async fn next(&mut self) -> Step {
        loop {
            if let Some(at) = self.resume_at.take() {
                tokio::time::sleep_until(at).await;
            }
            let event = tokio::select! {
                biased;
                () = self.pace.answered.notified() => return Step::Watched,
                event = self.events.next() => event,
            };
            match event {
                Some(Ok(event)) => {
                    if let Some(step) = self.step(event) {
                        return step;
                    }
                }
                Some(Err(error)) => return Step::Failed(self.failed(&error)),
                None => return Step::Failed(self.begin_anew("the watch has ended")),
            }
        }
    }

    fn step(&mut self, event: Event<Object<W>>) -> Option<Step> {
        Some(match event {
            Event::Init => Step::ListBegun,
            Event::InitDone => Step::Listed,
            Event::InitApply(object) => Step::Applied(Box::new(object.into_facts()?)),
            Event::Apply(object) => {
                self.refused_watches = 0;
                Step::Applied(Box::new(object.into_facts()?))
            }
            Event::Delete(object) => {
                self.refused_watches = 0;
                Step::Deleted(object.into_facts()?.uid)
            }
        })
    }

    fn failed(&mut self, error: &watcher::Error) -> Failure {
        let mut cause = cause(error);
        if matches!(error, watcher::Error::WatchStartFailed(_)) {
            self.refused_watches += 1;
            if self.refused_watches >= REFUSED_WATCHES_MAX && cause == Cause::Other {
                cause = Cause::Expired;
            }
        }
        let wait = match cause {
            Cause::Forbidden | Cause::Absent => self.refusals.failed(Instant::now(), backoff::jitter() / 2.0),
            Cause::Expired | Cause::Unreadable | Cause::Unauthorized | Cause::Other => {
                self.backoff.failed(Instant::now(), backoff::jitter())
            }
        };
        self.resume_at = Some(Instant::now() + wait);
        if !matches!(cause, Cause::Other | Cause::Unauthorized) {
            self.restart();
        }
        Failure { cause, message: message(error) }
    }

    fn begin_anew(&mut self, why: &str) -> Failure {
        self.resume_at = Some(Instant::now() + self.backoff.failed(Instant::now(), backoff::jitter()));
        self.restart();
        Failure { cause: Cause::Other, message: why.to_owned() }
    }

    /// A new watch begins with a list.
    fn restart(&mut self) {
        self.refused_watches = 0;
        self.events = events(&self.api, self.page_size, self.patience);
    }
}

fn events<W: Wire>(api: &Api<Object<W>>, page_size: u32, patience: Patience) -> BoxStream<'static, watcher::Result<Event<Object<W>>>> {
    let seconds = u32::try_from(patience.watch.as_secs()).unwrap_or(u32::MAX).max(1);
    watcher(api.clone(), watcher::Config::default().page_size(page_size).timeout(seconds)).boxed()
}

fn cause(error: &watcher::Error) -> Cause {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    let status = match error {
        WatchError(status) => StatusCode::from_u16(status.code).ok(),
        WatchFailed(kube::Error::Api(status)) => StatusCode::from_u16(status.code).ok(),
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => refusal(error).map(|refusal| refusal.status),
        NoResourceVersion => None,
    };
    match (status, error) {
        (Some(StatusCode::GONE), _) => Cause::Expired,
        (Some(StatusCode::FORBIDDEN), _) => Cause::Forbidden,
        (Some(StatusCode::NOT_FOUND), _) => Cause::Absent,
        (Some(StatusCode::UNAUTHORIZED), _) => Cause::Unauthorized,
        // Refusals end before there are events: a status among these is one that the library took any other object for.
        (_, WatchFailed(kube::Error::SerdeError(_) | kube::Error::Api(_)) | NoResourceVersion) => Cause::Unreadable,
        _ => Cause::Other,
    }
}

pub(crate) fn refusal(error: &kube::Error) -> Option<&Refusal> {
    match error {
        kube::Error::Service(error) => error.downcast_ref(),
        _ => None,
    }
}

/// The innermost text: the outer ones only repeat it.
fn message(error: &watcher::Error) -> String {
    if let watcher::Error::WatchError(status) | watcher::Error::WatchFailed(kube::Error::Api(status)) = error {
        let text = if status.message.is_empty() { "an event that cannot be read" } else { &status.message };
        let text = if status.code == 0 { text.to_owned() } else { format!("{}: {text}", status.code) };
        return shortened(&text, MESSAGE_BYTES).to_owned();
    }
    innermost(error)
}

pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    shortened(&innermost.to_string(), MESSAGE_BYTES).to_owned()
}
