//! HTTP: Weave Scope's API, the platform's own, the UI. One router, one listener.

mod connection;
mod crowd;
mod foreign;
mod json;
pub(crate) mod lead;
mod login;
pub(crate) mod observe;
mod patience;
mod platform;
mod query;
mod reply;
pub mod scope;
mod server;
mod upgrade;

use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use http::HeaderValue;
use relay::Switchboard;
use tokio::sync::Semaphore;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

use crate::clock::Clock;
use crate::drivers::{HistoryHandle, OldProbesHandle, OldReports, TopologyHandle};
use crate::problems::Problems;
use crate::readiness::Readiness;
use crate::replicas::Lead;
use crate::supervise::Supervisor;
use crate::telemetry::Telemetry;

pub use login::{Users, ask_of_messages};
pub(crate) use login::{basic_authorization, read_login};
pub use patience::Patience;
pub(crate) use patience::layer as with_patience;
pub(crate) use server::serve_connection;
pub use server::{Entrance, serve};

/// What handlers need. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// The map.
    pub topology: TopologyHandle,
    /// The links between ZooKeeper ensembles, where this service runs.
    pub zksync: Option<zksync_service::Service>,
    /// What it was.
    pub history: History,
    /// What Weave Scope's probes report.
    pub old_probes: OldProbesHandle,
    /// What they reported, where a history is kept.
    pub old_reports: Option<OldReports>,
    /// Controls and pipes.
    pub switchboard: Switchboard,
    /// What `GET /api` says.
    pub instance: Arc<Instance>,
    /// Whether to send us traffic.
    pub readiness: Readiness,
    /// What is wrong and does not keep us from going on.
    pub problems: Problems,
    /// For loops of WebSockets, and to know when to end them.
    pub supervisor: Supervisor,
    /// Counters.
    pub telemetry: Telemetry,
    /// The time.
    pub clock: Clock,
    /// The Mesos master's numbers, where it runs.
    pub mesos: Option<edge_mesos::Context>,
    /// The scheduler, where one runs.
    pub marathon: Option<Arc<std::sync::OnceLock<edge_marathon::Context>>>,
    /// The lead, where several control planes share an ensemble.
    pub lead: Option<Lead>,
    /// Options that an operator has added to the views of containers.
    pub label_filters: Arc<[scope::labels::LabelFilter]>,
    /// Where metrics are graphed.
    pub metrics_graph: scope::graphs::MetricsGraph,
    /// Masters of other processes that the scheduler uses instead of ours.
    pub masters: Vec<String>,
    /// Who may come in; none: everybody.
    pub users: Option<Users>,
    /// Origins whose pages may ask for what our own page may.
    pub allowed_origins: Vec<String>,
    /// What agents are shown that ask who reads files of their tasks.
    pub agent_login: Option<HeaderValue>,
    /// How much clients may take.
    pub limits: Limits,
}

/// The history, if there is one.
#[derive(Clone, Debug)]
pub enum History {
    /// None is kept.
    Off,
    /// One should be kept, and cannot be: why.
    Broken(String),
    /// The way to it.
    Kept(HistoryHandle),
}

impl History {
    /// The way to it, if there is one.
    pub fn kept(&self) -> Option<&HistoryHandle> {
        match self {
            History::Kept(handle) => Some(handle),
            History::Off | History::Broken(_) => None,
        }
    }

    /// What is wrong with it.
    pub fn problem(&self) -> Option<String> {
        match self {
            History::Off => None,
            History::Broken(problem) => Some(problem.clone()),
            History::Kept(handle) => {
                let status = handle.status();
                let unreadable = (status.unreadable > 0)
                    .then(|| format!("{} files of the history cannot be read: what they hold cannot be shown", status.unreadable));
                status.problem.or(unreadable)
            }
        }
    }
}

/// Who we are, as told to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Random per start: lower-case hexadecimal of a 63-bit number.
    pub id: String,
    /// The program's version.
    pub version: String,
    /// Name of the machine.
    pub hostname: String,
}

/// How much clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// WebSocket clients at once.
    pub websocket_clients: usize,
    /// Connections at once besides WebSockets. Beyond it, new ones wait to be accepted.
    pub connections: usize,
    /// How long what has ended stays visible.
    pub window: std::time::Duration,
    /// How long the bodies of their requests may take.
    pub patience: Patience,
}

/// The whole HTTP side.
pub fn router(context: Context) -> Router {
    let (router, api) = documented_routes(&context).split_for_parts();
    let router = router
        .merge(platform::services::carried(&context))
        .merge(platform::openapi::route(api))
        .fallback_service(any(platform::ui::serve).layer(reply::compression()));
    let router = foreign::trusting(router, &context.allowed_origins);
    let router = patience::layer(router, context.limits.patience, reply::late);
    observe::layer(login::layer(router, context.users.clone()), context.telemetry.clone())
}

/// The OpenAPI document, made from the routes that are served.
pub fn api_document(context: &Context) -> utoipa::openapi::OpenApi {
    platform::openapi::with_itself(documented_routes(context).split_for_parts().1)
}

fn documented_routes(context: &Context) -> OpenApiRouter {
    let websockets = Arc::new(Semaphore::new(context.limits.websocket_clients));
    OpenApiRouter::with_openapi(platform::openapi::Document::openapi())
        .merge(scope::routes(context, websockets))
        .merge(platform::routes(context))
        .merge(context.zksync.clone().map(zksync_service::api::routes).unwrap_or_default())
}
