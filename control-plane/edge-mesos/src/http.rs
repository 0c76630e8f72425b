//! The HTTP APIs of a Mesos master: where a request goes, what is checked in which order, and how answers look. Contents are made in
//! [`crate::view`], decisions in the core.

mod auth;
mod body;
mod call;
mod classic;
mod forms;
mod local;
mod operator;
mod rendered;
mod reply;
pub(crate) mod route;
mod scheduler;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use base::Timestamp;
use http::Method;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use auth::Credentials;

use crate::acl::{Acls, Sight};
use crate::clock::Clock;
use crate::driver::MasterHandle;
use crate::files::Files;
use crate::flags::Flags;
use crate::guards::Firewall;
use crate::leadership::Status;
use crate::store::RegistryStore;
use crate::view::sight::Viewer;
use crate::view::{About, Build, Scene};
use rendered::Cache;
use route::{Realm, Resolved, Route};

/// What the APIs need. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    inner: Arc<Inner>,
}

/// How much clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one request's body.
    pub body_bytes: usize,
    /// Bytes of all bodies that are being read at once.
    pub bodies_bytes: usize,
    /// How long a body may take to arrive.
    pub body_patience: Duration,
}

impl Default for Limits {
    /// 32 MiB, 256 MiB and a minute.
    fn default() -> Self {
        Limits { body_bytes: 32 << 20, bodies_bytes: 256 << 20, body_patience: Duration::from_secs(60) }
    }
}

/// Sets how much is logged: 0 as configured, 1 and more in more detail.
pub(crate) type SetVerbosity = Arc<dyn Fn(u32) + Send + Sync>;

struct Inner {
    master: MasterHandle,
    store: Arc<dyn RegistryStore>,
    clock: Clock,
    started_at: Timestamp,
    flags: Arc<BTreeMap<String, String>>,
    files: Files,
    credentials: Credentials,
    acls: Option<Arc<Acls>>,
    limits: Limits,
    bodies: Arc<Semaphore>,
    cache: Cache,
    tasks: TaskTracker,
    verbosity: AtomicU32,
    set_verbosity: SetVerbosity,
    per_framework_metrics: bool,
    firewall: Firewall,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("master", &self.master).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Where an agent serves HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentAddress {
    /// `address:port`, as it registered.
    pub address: String,
    /// Whether it speaks TLS there.
    pub tls: bool,
}

impl Context {
    /// What the APIs of `master` need, without files and with nobody asked who they are.
    pub fn new(master: MasterHandle, store: Arc<dyn RegistryStore>, clock: Clock, flags: &Flags, limits: Limits) -> Self {
        let permits = (limits.bodies_bytes / body::PERMIT_BYTES).min(Semaphore::MAX_PERMITS);
        let inner = Inner {
            master,
            store,
            started_at: clock.now(),
            clock,
            flags: flags.shown(),
            files: Files::default(),
            credentials: Credentials::default(),
            acls: None,
            limits,
            bodies: Arc::new(Semaphore::new(permits)),
            cache: Cache::default(),
            tasks: TaskTracker::new(),
            verbosity: AtomicU32::new(0),
            set_verbosity: Arc::new(|_| {}),
            per_framework_metrics: flags.is_on("publish_per_framework_metrics"),
            // A mistake in it was told when the flags were applied.
            firewall: Firewall::from_flags(flags).unwrap_or_default(),
        };
        Context { inner: Arc::new(inner) }
    }

    /// The same with files to show, with credentials to ask for, with what is forbidden, and with a way to change what is logged.
    #[must_use]
    pub fn with(
        self,
        files: Files,
        credentials: Credentials,
        acls: Option<Arc<Acls>>,
        set_verbosity: impl Fn(u32) + Send + Sync + 'static,
    ) -> Self {
        let inner =
            Arc::into_inner(self.inner).map(|inner| Inner { files, credentials, acls, set_verbosity: Arc::new(set_verbosity), ..inner });
        match inner {
            Some(inner) => Context { inner: Arc::new(inner) },
            // Asked for after it was shared: nobody does.
            None => unreachable!("the context is completed before it is shared"),
        }
    }

    /// The master.
    pub fn master(&self) -> &MasterHandle {
        &self.inner.master
    }

    /// Every metric by the name that `/metrics/snapshot` has for it.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        local::metrics(self).await
    }

    /// Where a registered agent serves HTTP. `None` when no agent with this id is registered.
    ///
    /// # Errors
    /// When the loop is gone.
    pub async fn agent_address(&self, id: &str) -> Result<Option<AgentAddress>, crate::Stopped> {
        let view = self.inner.master.read().await?;
        let agent = view.snapshot.agents.get(id);
        Ok(agent.and_then(|agent| Some(AgentAddress { address: agent.pid.split_once('@')?.1.to_owned(), tls: agent.tls })))
    }

    fn about(&self) -> About {
        let inner = &self.inner;
        About {
            info: Arc::new(inner.master.info().clone()),
            leader: inner.master.leader(),
            started_at: inner.started_at,
            elected_at: inner.master.elected_at(),
            flags: inner.flags.clone(),
            build: Build::THIS,
        }
    }

    /// The state as it is now.
    async fn scene(&self) -> Result<Scene, crate::Stopped> {
        Ok(Scene { view: self.inner.master.read().await?, about: self.about(), viewer: Viewer::default() })
    }

    fn viewer(&self, principal: Option<Arc<str>>) -> Viewer {
        Viewer { principal, acls: self.inner.acls.clone() }
    }
}

/// All routes of a Mesos master.
pub fn router(context: Context) -> Router {
    // Paths are matched by Mesos' own rules, not by a table of patterns.
    Router::new().fallback(serve).with_state(context)
}

async fn serve(State(context): State<Context>, request: Request) -> Response {
    let Some(Resolved { route, endpoint, rest }) = route::resolve(request.uri().path()) else { return reply::not_found() };
    if context.inner.firewall.disables(&endpoint, &rest) {
        return reply::text(http::StatusCode::FORBIDDEN, &format!("Endpoint '{}' is disabled", request.uri().path()));
    }
    let principal = match realm(&context, route) {
        None => None,
        Some(realm) => match context.inner.credentials.authenticate(realm, request.headers()) {
            Ok(principal) => principal,
            Err(refused) => return refused,
        },
    };
    if route.needs_leader()
        && let Some(elsewhere) = elsewhere(&context, &request, route)
    {
        return elsewhere;
    }
    if mesos_acl::AUTHORIZABLE_PATHS.contains(&endpoint.as_str())
        && context.inner.acls.is_some()
        && !context.viewer(principal.clone()).sees(Sight::Endpoint(&endpoint))
    {
        return reply::text(http::StatusCode::FORBIDDEN, "");
    }
    let is_get = request.method() == Method::GET;
    match route {
        Route::Scheduler => scheduler::serve(&context, principal, request).await,
        Route::Api => operator::serve(&context, principal, request).await,
        Route::Redirect => redirect(&context),
        Route::State | Route::StateSummary | Route::Slaves | Route::Frameworks | Route::Tasks | Route::Roles | Route::MaintenanceStatus => {
            classic::serve(&context, route, context.viewer(principal), &request.into_parts().0).await
        }
        Route::Weights | Route::Quota | Route::MaintenanceSchedule if is_get => {
            classic::serve(&context, route, context.viewer(principal), &request.into_parts().0).await
        }
        Route::Weights
        | Route::Quota
        | Route::MaintenanceSchedule
        | Route::MachineDown
        | Route::MachineUp
        | Route::Reserve
        | Route::Unreserve
        | Route::CreateVolumes
        | Route::DestroyVolumes
        | Route::Teardown => forms::serve(&context, route, principal, &rest, request).await,
        _ => local::serve(&context, route, context.viewer(principal), &request.into_parts().0).await,
    }
}

fn realm(context: &Context, route: Route) -> Option<Realm> {
    route.realm().filter(|realm| context.inner.credentials.asks(*realm))
}

/// Where else the client has to go, or why nobody can serve it.
fn elsewhere(context: &Context, request: &Request, route: Route) -> Option<Response> {
    match context.inner.master.status() {
        Status::Serving => None,
        Status::Led(leader) => {
            let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
            Some(reply::redirect(&format!("//{}:{}{path}", leader.hostname, leader.port)))
        }
        Status::Nobody => Some(reply::unavailable("No leader elected")),
        Status::Recovering if matches!(route, Route::Redirect) => None,
        Status::Recovering => Some(reply::unavailable("Master has not finished recovery")),
    }
}

fn redirect(context: &Context) -> Response {
    match context.inner.master.leader() {
        Some(leader) => reply::redirect(&format!("//{}:{}", leader.hostname, leader.port)),
        None => reply::unavailable("No leader elected"),
    }
}

#[cfg(test)]
mod tests;
