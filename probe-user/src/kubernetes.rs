//! The collector's role: what the Kubernetes API knows of one cluster, on a stream of its own. Of several collectors of one cluster, the one that
//! holds the lease reports; the others wait and ask the API for nothing else.
//!
//! The stream is opened when every kind that may be read was listed: what a snapshot does not name leaves the map, and a collector that has just
//! begun would empty it. For the same reason a collector says no goodbye. One that is replaced leaves its objects on the map for the control plane's
//! window, and the next one takes them over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use probe_controls::Executor;
use probe_endpoint::ControlPlane;
use probe_kubernetes::lease::Lease;
use probe_kubernetes::{Access, Cluster, Collector, CollectorConfig, KindState, Remark};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::mask::Masks;
use crate::publisher::{Limits, Publisher};
use crate::random::Random;
use crate::stream::{Line, StreamEvent};
use crate::telemetry::Telemetry;
use crate::uplink::{self, Identity};

mod controls;
mod source;

use controls::{Asked, ClusterControls, Question};
pub use source::{ClusterSource, Cursor};

/// Events of the stream that wait at most.
const INPUTS_MAX: usize = 64;
/// What is left to tell at the end has this long to go out, and so has the lease to be given back.
const FAREWELL: Duration = Duration::from_millis(1_500);
/// A cluster is reported without the kinds that cannot be listed, when this long has passed. How often it is looked for them from then on.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(120);
const GIVEN_UP_EVERY: Duration = Duration::from_secs(15);
/// How often the numbers are written down.
const NUMBERS_EVERY: Duration = Duration::from_secs(1);
/// Longest part of an id that is made of a name, so that the whole has at most 128 characters.
const PART_MAX: usize = 56;

/// What the collector was told to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of the cluster on the map.
    pub cluster_name: String,
    /// Where the API is.
    pub access: Access,
    /// The only namespaces that are looked at; none for all.
    pub namespaces: Vec<String>,
    /// The lease by which several collectors agree; `None` when this is certainly the only one.
    pub lease: Option<LeasePlace>,
}

/// Where a lease is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasePlace {
    /// `None` for the namespace that the collector runs in.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// The role, ready to be started, and started again when it ends.
#[derive(Clone, Debug)]
pub struct Role {
    /// What to collect.
    pub config: Config,
    /// Where reports go.
    pub control_plane: ControlPlane,
    /// Where the collector runs.
    pub host_name: String,
    /// Its identity; `None` makes one of the cluster's.
    pub probe_id: Option<String>,
    /// Whether objects may be changed from the map.
    pub controls: bool,
    /// What of objects is hidden from whoever reads a description of them.
    pub masks: Masks,
    /// Where to count.
    pub telemetry: Telemetry,
}

impl Role {
    /// Waits for the lease, then collects and reports until `stopping` is cancelled or the lease is lost.
    pub async fn run(self, stopping: CancellationToken) {
        let numbers = &self.telemetry.metrics().kubernetes;
        numbers.begin();
        let config = CollectorConfig {
            access: self.config.access.clone(),
            namespaces: self.config.namespaces.iter().map(|name| name.as_str().into()).collect(),
            ..CollectorConfig::default()
        };
        let (collector, cluster) = match Collector::connect(config).await {
            Ok(it) => it,
            Err(error) => {
                tracing::error!(error = format!("{:#}", anyhow::Error::from(error)), "the Kubernetes API cannot be asked");
                return;
            }
        };
        let session_id = Random::from_system().id();
        let mut lease = self.config.lease.as_ref().map(|place| {
            // The name of the host alone may be that of another collector on it.
            collector.lease(place.namespace.as_deref(), &place.name, &format!("{}_{session_id}", self.host_name))
        });
        if let Some(lease) = &mut lease {
            tokio::select! {
                () = lease.acquire(|waits| numbers.standby.set(waits.into())) => {}
                () = stopping.cancelled() => return,
            }
            tracing::info!(lease = lease.place(), "this collector reports");
        }
        numbers.standby.set(0);
        numbers.leading.set(1);
        let place = lease.as_ref().map_or(self.host_name.as_str(), |lease| lease.place().split('/').next().unwrap_or_default());
        let place = place.to_owned();
        let (holding, held) = watch::channel(true);
        tokio::select! {
            () = lost(&mut lease, &holding) => tracing::warn!("another collector has the lease and reports now"),
            () = self.report(collector, cluster, &place, session_id, held, &stopping) => {}
        }
        numbers.begin();
        if let Some(lease) = &mut lease {
            // When nobody can be told, the lease runs out.
            drop(tokio::time::timeout(FAREWELL, lease.release()).await);
        }
    }

    async fn report(
        &self,
        mut collector: Collector,
        cluster: Cluster,
        place: &str,
        session_id: String,
        held: watch::Receiver<bool>,
        stopping: &CancellationToken,
    ) {
        let mut source = ClusterSource::new(cluster, &self.config.cluster_name);
        let mut give_up_at = tokio::time::Instant::now() + GIVEN_UP_AFTER;
        while !source.cluster().is_synced() {
            tokio::select! {
                (scope, step) = collector.next() => remark(source.take(&scope, step)),
                () = tokio::time::sleep_until(give_up_at) => {
                    give_up_at += GIVEN_UP_EVERY;
                    for scope in source.give_up_failing() {
                        let (kind, namespace) = (scope.kind.plural(), scope.namespace.as_deref());
                        tracing::warn!(kind, namespace, "cannot be listed; the cluster is reported without them");
                    }
                }
                () = stopping.cancelled() => return,
            }
            // Seen by whoever waits for a cluster that cannot be read.
            self.publish(&source);
        }
        let status = source.cluster().status();
        let objects = status.kinds.values().map(|kind| kind.objects).sum::<usize>();
        tracing::info!(objects, "the cluster was read");

        let identity = Identity {
            probe_id: self.probe_id.clone().unwrap_or_else(|| probe_id(source.cluster().uid().unwrap_or(&self.config.cluster_name), place)),
            host_name: self.host_name.clone(),
            session_id,
            cluster_name: self.config.cluster_name.clone(),
        };
        let (questions, asked) = mpsc::channel(controls::QUESTIONS_MAX);
        let executor = self.controls.then(|| Arc::new(ClusterControls::new(questions.clone(), self.masks.clone())) as Arc<dyn Executor>);
        let controls = uplink::Controls { executor, numbers: self.telemetry.metrics().desk() };
        let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
        let uplink = uplink::run::<StreamEvent>(self.control_plane.clone(), identity, controls, inputs, stopping.clone());
        tokio::select! {
            () = self.drive(collector, source, (inbox, asked), held, stopping) => {}
            // It ends when the process stops and no stream is open. The driver knows when to end.
            () = async { uplink.await; std::future::pending().await } => {}
        }
    }

    /// The one owner of what is known of the cluster, and of what of it was told. While the lease cannot be renewed, the stream that is open goes on:
    /// should another collector have the lease, its stream takes the place of ours. But none is opened then, or the two would take turns.
    async fn drive(
        &self,
        mut collector: Collector,
        source: ClusterSource,
        (mut inbox, mut asked): (mpsc::Receiver<StreamEvent>, mpsc::Receiver<Question>),
        held: watch::Receiver<bool>,
        stopping: &CancellationToken,
    ) {
        let mut publisher = Publisher::new(source, Limits::default());
        let mut line = Line::new(self.telemetry.metrics().kubernetes.stream());
        let mut published = tokio::time::Instant::now();
        self.publish(&publisher.builder);
        loop {
            let now = Now::read();
            publisher.poll(now);
            line.give_up_if_silent(&mut publisher);
            if !*held.borrow() && !line.is_open() {
                tracing::warn!("neither the control plane nor the lease can be had; this collector begins anew");
                return;
            }
            if published.elapsed() >= NUMBERS_EVERY {
                published = tokio::time::Instant::now();
                self.publish(&publisher.builder);
            }
            let pause = Duration::from_nanos(publisher.next_deadline().0.saturating_sub(now.boot.0)).max(Duration::from_millis(1));
            tokio::select! {
                (scope, step) = collector.next() => remark(publisher.builder.take(&scope, step)),
                Some(event) = inbox.recv() => {
                    let capture = publisher.builder.capture().clone();
                    line.on_event(&mut publisher, event, &capture);
                }
                Some(Question { object, reply }) = asked.recv() => {
                    let index = &publisher.builder.cluster().index;
                    let place = match object {
                        Asked::Object(uid) => index.place(&uid),
                        Asked::PodOfContainer(id) => index.pod_of_container(&id),
                    };
                    // Whoever asked may have gone meanwhile.
                    drop(reply.send((collector.hands(), place)));
                }
                permit = line.room(&publisher) => match permit {
                    Some(permit) => line.send(&mut publisher, permit),
                    None => line.ended(&mut publisher),
                },
                () = tokio::time::sleep(pause) => {}
                () = stopping.cancelled() => break,
            }
        }
        let capture = publisher.builder.capture().clone();
        if tokio::time::timeout(FAREWELL, line.finish(&mut publisher, &mut inbox, Some, &capture, None)).await.is_err() {
            tracing::warn!("the control plane did not take everything that was left to tell of the cluster");
        }
    }

    fn publish(&self, source: &ClusterSource) {
        let numbers = &self.telemetry.metrics().kubernetes;
        let status = source.cluster().status();
        numbers.synced.set(status.synced.into());
        for (kind, status) in &status.kinds {
            let label = [kind.plural()];
            let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            numbers.objects.with_label_values(&label).set(count(status.objects as u64));
            numbers.watching.with_label_values(&label).set((status.state == KindState::Watching).into());
            numbers.errors.with_label_values(&label).set(count(status.errors));
            numbers.refused.with_label_values(&label).set(count(status.refused));
            numbers.cut.with_label_values(&label).set(count(status.cut));
        }
    }
}

/// Returns when another has the lease; never, where there is none.
async fn lost(lease: &mut Option<Lease>, holding: &watch::Sender<bool>) {
    match lease {
        Some(lease) => lease.keep(holding).await,
        None => std::future::pending().await,
    }
}

fn remark(remark: Option<Remark>) {
    match remark {
        Some(Remark::Unreadable(scope, error)) => {
            tracing::warn!(kind = scope.kind.plural(), namespace = scope.namespace.as_deref(), error, "cannot read Kubernetes objects");
        }
        Some(Remark::Readable(scope)) => {
            tracing::info!(kind = scope.kind.plural(), namespace = scope.namespace.as_deref(), "Kubernetes objects can be read again");
        }
        None => {}
    }
}

/// The same for all collectors that agree by one lease, so that one takes over what the other has told; and another for those that do not, so that
/// the control plane refuses all but one of them.
fn probe_id(cluster: &str, place: &str) -> String {
    let shortened = |text: &str| text.chars().filter(|it| !it.is_control()).take(PART_MAX).collect::<String>();
    format!("kubernetes-{}-{}", shortened(cluster), shortened(place))
}

/// Kinds that cannot be read, with the reason.
fn unread(cluster: &Cluster) -> BTreeMap<&'static str, String> {
    let status = cluster.status();
    let unread = status.kinds.into_iter().filter(|(_, status)| status.state > KindState::Listing);
    unread.map(|(kind, status)| (kind.plural(), status.last_error.unwrap_or_default())).collect()
}
