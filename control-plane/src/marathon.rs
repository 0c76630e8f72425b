//! The scheduler in this process: its settings, store and loop, its client of a master, its probes, and the listener of Marathon's API.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::StatusCode;
use anyhow::Context as _;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use edge_marathon::autoscale::{self, AgentUsage, Connected};
use edge_marathon::client::MasterTls;
use edge_marathon::settings::Settings;
use edge_marathon::store::{DiskStore, Store};
use edge_marathon::{Context, client, driver, probes};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::clock::Clock;
use crate::config::Config;
use crate::http::lead::Page;
use crate::http::{self, Entrance, Patience};
use crate::replicas::{HOLD, Replicas, TermStore};
use crate::supervise::{Backoff, Supervisor};
use crate::telemetry::{self, Telemetry};

/// What the HTTP side needs, as soon as there is a scheduler here: where several control planes share an ensemble, only the leader has one.
pub(crate) type Running = Arc<OnceLock<Context>>;

/// A scheduler that runs, or will when this control plane leads.
#[derive(Debug)]
pub(crate) struct Marathon {
    /// See [`Running`].
    pub(crate) context: Running,
    /// Its API. Says that nobody leads as long as there is no scheduler.
    pub(crate) router: Router,
}

/// Starts the scheduler; with `replicas`, once this control plane leads. `own_master` is where the master of this process listens, and
/// whether it speaks TLS there: the one to speak to when no other is named. `connected` sees the connections of tasks.
///
/// # Errors
/// When a flag cannot be understood or the store cannot be opened.
pub(crate) fn start(
    config: &Config,
    (bound, own_master): (Option<SocketAddr>, Option<(SocketAddr, bool)>),
    (hostname, seed): (&str, u64),
    replicas: Option<&Replicas>,
    connected: Arc<dyn Connected>,
    supervisor: &Supervisor,
    clock: &Clock,
) -> anyhow::Result<Marathon> {
    let mut settings = Settings { hostname: hostname.to_owned(), ..Settings::default() };
    if let Some(address) = bound {
        settings.http_port = address.port();
        if !address.ip().is_unspecified() {
            settings.hostname = address.ip().to_string();
        }
    }
    if let Some(host) = &config.advertise {
        settings.hostname.clone_from(host);
    }
    let flags = || config.marathon_flags.iter().map(String::as_str);
    anyhow::ensure!(
        config.zk.is_some() || !names_ensemble(flags()),
        "marathon-flags has --zk, and the control plane's own key `zk` is not set: several of them would each lead, and keep what they know \
         to themselves. Set that key (`--zk=zk://host:2181/mesos`), or leave the flag out to run a single one"
    );
    let mut settings = settings.with_flags(flags())?;
    if !config.scheduler_masters.is_empty() {
        settings.masters.clone_from(&config.scheduler_masters);
    } else if settings.masters.is_empty() {
        let url = |(address, tls)| format!("{}://{}", if tls { "https" } else { "http" }, reachable(address));
        settings.masters.extend(own_master.map(url));
        settings.master_tls = own_master.filter(|(_, tls)| *tls).map(|_| MasterTls::own());
    }
    if let Some(ca) = &config.tls_ca {
        settings.master_tls = Some(MasterTls::of(edge_tls::client_trusting(ca).context("reading who signs the masters' certificates")?));
    }
    settings.core.seed = seed;
    let settings = Arc::new(settings);
    let context = Running::default();
    let router = http::with_patience(router_of(context.clone(), supervisor.stopping().clone()), Patience::DEFAULT, late);
    match replicas {
        None => {
            let store = DiskStore::open(&config.data_dir.join("marathon.redb")).context("opening the scheduler's store")?;
            run(&context, &settings, Arc::new(store), connected, supervisor, clock)?;
        }
        Some(replicas) => {
            let (mut standing, running, parent, clock) = (replicas.standing(), context.clone(), supervisor.clone(), clock.clone());
            let stopping = supervisor.stopping().clone();
            supervisor.essential("scheduler", async move {
                let elected = async { standing.wait_for(|it| it.leads()).await.ok().and_then(|it| it.term.clone()) };
                let Some(term) = (tokio::select! { term = elected => term, () = stopping.cancelled() => None }) else { return };
                let store = Arc::new(TermStore::new(term));
                // Reading what the leader before has written blocks.
                let begun = tokio::task::spawn_blocking(move || run(&running, &settings, store, connected, &parent, &clock)).await;
                match begun {
                    Ok(Ok(())) => stopping.cancelled().await,
                    Ok(Err(error)) => tracing::error!(error = format!("{error:#}"), "the scheduler cannot begin"),
                    Err(error) => tracing::error!(%error, "the scheduler cannot begin"),
                }
            });
        }
    }
    Ok(Marathon { context, router })
}

/// Starts the loops of a scheduler upon what `store` has.
fn run(
    context: &Running,
    settings: &Arc<Settings>,
    store: Arc<dyn Store>,
    connected: Arc<dyn Connected>,
    supervisor: &Supervisor,
    clock: &Clock,
) -> anyhow::Result<()> {
    let now = clock.clone();
    let stopping = supervisor.stopping().clone();
    let (handle, outlets, run) =
        driver::start(settings, store, move || now.now(), stopping.clone()).context("reading the scheduler's store")?;
    supervisor.essential("scheduler_driver", run);
    supervisor.essential("scheduler_client", client::run(settings.clone(), handle.clone(), outlets.calls, stopping.clone()));
    let at_once = settings.core.max_concurrent_health_checks;
    supervisor.essential("scheduler_probes", probes::run(outlets.probes, handle.clone(), at_once, stopping.clone()));
    let (now, used) = (clock.clone(), Arc::new(AgentUsage::new(settings.clone())));
    supervisor.essential("autoscaler", autoscale::run(handle.clone(), connected, used, move || now.now(), stopping.clone()));
    let now = clock.clone();
    let made = Context::new(settings.clone(), handle, move || now.now(), stopping.clone());
    let made = made.with_levels(&telemetry::configured_level(), telemetry::set_levels);
    // Who gives up leadership ends in good order, to be started again.
    let abdicated = made.abdicated().clone();
    supervisor.essential("marathon_leadership", async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = abdicated.cancelled() => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    });
    let logged = made.clone();
    supervisor.essential("marathon_loggers", async move {
        let stopping = logged.stopping().clone();
        stopping.run_until_cancelled(logged.expire_levels()).await;
    });
    // There is one election in the life of a process.
    drop(context.set(made));
    Ok(())
}

/// Requests that wait at once for a scheduler that is about to begin.
const WAITING_MAX: usize = 512;
/// How often it is looked whether it has begun.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The scheduler's API, from the moment on that there is one. It takes a while after the election, in which requests wait.
pub(crate) fn router_of(context: Running, stopping: CancellationToken) -> Router {
    let (routes, room) = (Arc::new(OnceLock::new()), Arc::new(Semaphore::new(WAITING_MAX)));
    Router::new().fallback(move |request: Request| {
        let (context, routes, room, stopping) = (context.clone(), routes.clone(), room.clone(), stopping.clone());
        async move {
            if context.get().is_none()
                && let Ok(_room) = room.try_acquire()
            {
                let begins = async {
                    while context.get().is_none() {
                        tokio::time::sleep(LOOK_INTERVAL).await;
                    }
                };
                stopping.run_until_cancelled(tokio::time::timeout(HOLD, begins)).await;
            }
            match context.get() {
                Some(context) => {
                    let router: &Router = routes.get_or_init(|| edge_marathon::router(context.clone()));
                    match router.clone().oneshot(request).await {
                        Ok(response) => response,
                    }
                }
                None => (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({ "message": "Could not determine the current leader" })))
                    .into_response(),
            }
        }
    })
}

/// The body of a request did not come in time, in Marathon's words for errors.
fn late() -> Response {
    let message = serde_json::json!({ "message": "the rest of the request did not come in time" });
    (StatusCode::REQUEST_TIMEOUT, Json(message)).into_response()
}

/// The address to call a listener at that listens on every address.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    address
}

impl Marathon {
    /// Serves the API at `entrance`.
    pub(crate) fn serve(&self, entrance: Entrance, page: Page, supervisor: &Supervisor, telemetry: &Telemetry) {
        let router = http::observe::layer_named(http::lead::from_marathon(self.router.clone(), page), "marathon", telemetry.clone());
        let (parent, counters) = (supervisor.clone(), telemetry.clone());
        supervisor.restarting("marathon_listener", Backoff::EDGE, move || {
            http::serve(entrance.clone(), router.clone(), parent.clone(), counters.clone())
        });
    }
}

/// Whether Marathon's own flags say where it would have kept its state.
fn names_ensemble<'a>(mut flags: impl Iterator<Item = &'a str>) -> bool {
    flags.any(|word| word.starts_with("--") && word.trim_start_matches('-').split('=').next() == Some("zk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ensemble_in_the_flags_of_marathon_is_noticed() {
        assert!(names_ensemble(["--zk=zk://z:2181/marathon"].into_iter()));
        assert!(names_ensemble(["--ha", "--zk", "zk://z:2181/marathon"].into_iter()));
        assert!(!names_ensemble(["--zk_timeout=3", "--hostname", "zk"].into_iter()));
    }
}
