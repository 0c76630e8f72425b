//! The loop that decides numbers of instances: finds policies, has what they need looked at, asks the pure core, carries out and tells.
//!
//! A policy is the label `AUTOSCALE` of an app, or what was put at `/v2/apps/{id}/autoscale`, which comes first. A decision is carried out as
//! any other change of a number of instances: a deployment that gives way to those that run, and that others see and can cancel.

mod usage;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use autoscale::{Action, Autoscaler, Decision, Facts, Policy, Sample, Signal};
use base::Timestamp;
use scheduler::id::PathId;
use scheduler::instance::Instance;
use scheduler::model::app::App;
use scheduler::model::spec::Spec;
use scheduler::words::{Answer, Change, Edit, Expect};
use scheduler::{Input, View};
use tokio_util::sync::CancellationToken;

use crate::driver::Handle;
use crate::events::simple;
use crate::json::autoscale::{decision_fields, parse_policy};

pub use usage::AgentUsage;

/// The label that holds a policy.
pub const LABEL: &str = "AUTOSCALE";
/// How often it is looked whether an app is due.
const TICK: Duration = Duration::from_secs(1);
/// How long a look may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(4);
/// Decisions remembered of each app.
const REMEMBERED: usize = 20;
/// For how long after a failure an app's instances count as failing.
const FAILING: Duration = Duration::from_secs(60);

/// Where a task is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its id.
    pub task_id: String,
    /// Its agent.
    pub agent_id: String,
    /// The agent's host.
    pub host: String,
    /// Ports on it.
    pub ports: Vec<u16>,
    /// Addresses of its own.
    pub addresses: Vec<String>,
}

/// Totals of a task that only grow, and what is now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Connections {
    /// Accepted so far.
    pub accepted: u64,
    /// Open now.
    pub open: u64,
    /// Payload bytes so far, both directions.
    pub bytes: u64,
    /// Segments sent again so far.
    pub retransmits: u64,
    /// Sum of round-trip times so far, in microseconds.
    pub rtt_us_sum: u64,
    /// How many are in that sum.
    pub rtt_count: u64,
    /// Requests so far.
    pub requests: u64,
    /// Requests so far that were answered with an error.
    pub errors: u64,
}

/// What a task has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU seconds so far.
    pub cpu_seconds: f64,
    /// Bytes of memory now.
    pub memory_bytes: f64,
    /// When that was read, in seconds of the agent's clock.
    pub at_seconds: f64,
}

/// Where it is looked.
type Looked<'a, T> = Pin<Box<dyn Future<Output = Vec<Option<T>>> + Send + 'a>>;

/// Sees tasks' connections.
pub trait Connected: fmt::Debug + Send + Sync + 'static {
    /// What there is of each, in their order; `None`: it is not seen.
    fn look<'a>(&'a self, places: &'a [Place]) -> Looked<'a, Connections>;
}

/// Sees what tasks use.
pub trait Used: fmt::Debug + Send + Sync + 'static {
    /// What there is of each, in their order; `None`: it is not seen.
    fn look<'a>(&'a self, places: &'a [Place]) -> Looked<'a, Usage>;
}

/// Whose word a policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Label,
    Api,
}

impl Origin {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Origin::Label => "label",
            Origin::Api => "api",
        }
    }
}

/// What the API tells of an app with a policy.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) origin: Origin,
    /// As it is used, or why it cannot be.
    pub(crate) policy: Result<Arc<Policy>, String>,
    /// The latest first.
    pub(crate) decisions: VecDeque<(Decision, Carried)>,
}

/// What came of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    Nothing,
    Deployment(String),
    Refused(String),
}

/// What happened since the start, for metrics.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) decisions: AtomicU64,
    pub(crate) ups: AtomicU64,
    pub(crate) downs: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) blind: AtomicU64,
    pub(crate) looks_failed: AtomicU64,
}

/// What the loop lets others see. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    statuses: Arc<Mutex<BTreeMap<PathId, Status>>>,
    pub(crate) totals: Arc<Totals>,
}

impl Board {
    pub(crate) fn statuses(&self) -> MutexGuard<'_, BTreeMap<PathId, Status>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The policy of an app as it is now, if it has one.
pub(crate) fn policy_of(view: &View, app: &App) -> Option<(Origin, Arc<str>)> {
    let put = view.policies.get(&app.id).map(|text| (Origin::Api, text.clone()));
    put.or_else(|| app.labels.get(LABEL).map(|text| (Origin::Label, text.as_str().into())))
}

struct Scaled {
    text: Arc<str>,
    policy: Result<Arc<Policy>, String>,
    scaler: Autoscaler,
    due: Timestamp,
    /// What was seen of each task the time before, and when.
    before: BTreeMap<String, (Timestamp, Option<Connections>, Option<Usage>)>,
}

/// Decides until `stopping` is cancelled.
pub async fn run(
    handle: Handle,
    connected: Arc<dyn Connected>,
    used: Arc<dyn Used>,
    now: impl Fn() -> Timestamp + Send + 'static,
    stopping: CancellationToken,
) {
    let mut apps: BTreeMap<PathId, Scaled> = BTreeMap::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen_version = None;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let view = handle.view();
        // Every change of an app makes a new root; policies are compared by what they are.
        let version = (view.root.version(), view.policies.clone());
        if seen_version.as_ref() != Some(&version) {
            refresh(&view, &mut apps, &handle, now());
            seen_version = Some(version);
        }
        let moment = now();
        let due: Vec<PathId> = apps.iter().filter(|(_, app)| app.policy.is_ok() && app.due <= moment).map(|(id, _)| id.clone()).collect();
        if !due.is_empty() {
            decide_all(&handle, &view, &due, &mut apps, (&*connected, &*used), moment).await;
        }
    }
}

/// Takes over new policies, and forgets those that are gone.
fn refresh(view: &View, apps: &mut BTreeMap<PathId, Scaled>, handle: &Handle, now: Timestamp) {
    let mut there = BTreeMap::new();
    for app in view.root.specs().filter_map(|(_, spec)| spec.app()) {
        if let Some(found) = policy_of(view, app) {
            there.insert(app.id.clone(), found);
        }
    }
    apps.retain(|id, _| there.contains_key(id));
    let board = handle.autoscale();
    let mut statuses = board.statuses();
    statuses.retain(|id, _| there.contains_key(id));
    for (id, (origin, text)) in there {
        let known = apps.get(&id).is_some_and(|it| it.text == text);
        if !known {
            let policy = parse_policy(&text).map(Arc::new);
            apps.insert(
                id.clone(),
                Scaled { text, policy: policy.clone(), scaler: Autoscaler::new(now), due: now, before: BTreeMap::new() },
            );
            let decisions = statuses.remove(&id).map(|it| it.decisions).unwrap_or_default();
            statuses.insert(id, Status { origin, policy, decisions });
        } else if let Some(status) = statuses.get_mut(&id) {
            status.origin = origin;
        }
    }
}

async fn decide_all(
    handle: &Handle,
    view: &View,
    due: &[PathId],
    apps: &mut BTreeMap<PathId, Scaled>,
    (connected, used): (&dyn Connected, &dyn Used),
    now: Timestamp,
) {
    let (mut of_connections, mut of_usage) = (Vec::new(), Vec::new());
    for id in due {
        let Some(Ok(policy)) = apps.get(id).map(|it| &it.policy) else { continue };
        let wants = |of_connections: bool| policy.targets.iter().any(|it| it.signal.is_of_connections() == of_connections);
        let places: Vec<Place> = view.instances_of(id).filter(|it| it.facts().ready).filter_map(|it| place(it)).collect();
        if wants(true) {
            of_connections.extend(places.iter().cloned());
        }
        if wants(false) {
            of_usage.extend(places);
        }
    }
    let totals = &handle.autoscale().totals;
    let connections = looked(totals, &of_connections, connected.look(&of_connections)).await;
    let usages = looked(totals, &of_usage, used.look(&of_usage)).await;
    for id in due {
        let Some(app) = apps.get_mut(id) else { continue };
        let (Ok(policy), Some(spec)) = (app.policy.clone(), view.root.spec(id).and_then(Spec::app)) else { continue };
        app.due = now + policy.interval;
        let facts = facts(view, spec, app, &connections, &usages, now);
        let decision = app.scaler.decide(now, &policy, &facts);
        let carried = match decision.action {
            Action::Scale(to) => {
                let carried = carry_out(handle, spec, to).await;
                if matches!(carried, Carried::Deployment(_)) {
                    app.scaler.scaled(now);
                }
                carried
            }
            Action::Hold(_) => Carried::Nothing,
        };
        tell(handle, id, decision, carried);
    }
}

async fn looked<T: Copy>(totals: &Totals, places: &[Place], look: Looked<'_, T>) -> BTreeMap<String, T> {
    if places.is_empty() {
        return BTreeMap::new();
    }
    match tokio::time::timeout(LOOK_PATIENCE, look).await {
        Ok(found) => places.iter().zip(found).filter_map(|(place, found)| Some((place.task_id.clone(), found?))).collect(),
        Err(_) => {
            totals.looks_failed.fetch_add(1, Ordering::Relaxed);
            BTreeMap::new()
        }
    }
}

fn place(instance: &Instance) -> Option<Place> {
    let (task, agent) = (instance.tasks.first()?, instance.agent.as_ref()?);
    Some(Place {
        task_id: task.id.as_str().to_owned(),
        agent_id: agent.agent_id.clone(),
        host: agent.host.clone(),
        ports: task.host_ports.iter().flatten().copied().collect(),
        addresses: task.addresses.iter().map(|(address, _)| address.clone()).collect(),
    })
}

fn facts(
    view: &View,
    app: &App,
    scaled: &mut Scaled,
    connections: &BTreeMap<String, Connections>,
    usages: &BTreeMap<String, Usage>,
    now: Timestamp,
) -> Facts {
    let mut before = std::mem::take(&mut scaled.before);
    let mut samples = Vec::new();
    for instance in view.instances_of(&app.id).filter(|it| it.facts().ready) {
        let Some(task) = instance.tasks.first() else { continue };
        let id = task.id.as_str().to_owned();
        let (connections, usage) = (connections.get(&id).copied(), usages.get(&id).copied());
        let mut values = BTreeMap::new();
        if let Some((at, connections_before, usage_before)) = before.remove(&id) {
            let span = now.since(at).as_secs_f64();
            if let (Some(before), Some(after)) = (connections_before, connections) {
                of_connections(&mut values, before, after, span);
            }
            if let (Some(before), Some(after)) = (usage_before, usage) {
                of_usage(&mut values, before, after, app);
            }
        }
        scaled.before.insert(id, (now, connections, usage));
        samples.push(Sample { age: now.since(instance.active_since.unwrap_or(now)), values });
    }
    Facts {
        instances: app.instances,
        last_scaled: app.version_info.last_scaling_at,
        deploying: !view.deployments_of(&app.id).is_empty(),
        failing: view.failures.get(&app.id).is_some_and(|it| now.since(it.timestamp) < FAILING),
        samples,
    }
}

fn of_connections(values: &mut BTreeMap<Signal, f64>, before: Connections, after: Connections, span: f64) {
    if span <= 0.0 {
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for a decision")]
    let per_second = |before: u64, after: u64| after.saturating_sub(before) as f64 / span;
    values.insert(Signal::ConnectionsPerSecond, per_second(before.accepted, after.accepted));
    values.insert(Signal::BytesPerSecond, per_second(before.bytes, after.bytes));
    values.insert(Signal::RetransmitsPerSecond, per_second(before.retransmits, after.retransmits));
    values.insert(Signal::RequestsPerSecond, per_second(before.requests, after.requests));
    values.insert(Signal::ErrorsPerSecond, per_second(before.errors, after.errors));
    #[expect(clippy::cast_precision_loss, reason = "a mean for a decision")]
    let round_trip = match after.rtt_count.saturating_sub(before.rtt_count) {
        0 => 0.0,
        count => after.rtt_us_sum.saturating_sub(before.rtt_us_sum) as f64 / count as f64 / 1_000.0,
    };
    values.insert(Signal::RoundTripMillis, round_trip);
    #[expect(clippy::cast_precision_loss, reason = "a count for a decision")]
    values.insert(Signal::OpenConnections, after.open as f64);
}

fn of_usage(values: &mut BTreeMap<Signal, f64>, before: Usage, after: Usage, app: &App) {
    let span = after.at_seconds - before.at_seconds;
    if span > 0.0 && app.resources.cpus > 0.0 {
        values.insert(Signal::Cpu, (after.cpu_seconds - before.cpu_seconds).max(0.0) / span / app.resources.cpus);
    }
    if app.resources.mem > 0.0 {
        values.insert(Signal::Memory, after.memory_bytes / (app.resources.mem * 1_048_576.0));
    }
}

/// Changes the number of instances, unless somebody else has changed the app or is about to.
async fn carry_out(handle: &Handle, app: &App, instances: u32) -> Carried {
    let spec = Spec::App(Arc::new(App { instances, ..app.clone() }));
    let edit = Edit::Put { spec, expect: Expect::Version(app.version) };
    let answer = handle.ask(move |ticket| Input::Change { ticket, change: Change { edits: vec![edit], ..Change::default() } }).await;
    match answer {
        Ok(Answer::Planned(plan)) => Carried::Deployment(plan.id.clone()),
        Ok(Answer::Refused(refusal)) => Carried::Refused(format!("{refusal:?}")),
        Ok(_) | Err(_) => Carried::Refused("the scheduler stops".to_owned()),
    }
}

/// Remembers a decision, counts it, and tells of it what is news: all but that nothing is to be done, again.
fn tell(handle: &Handle, id: &PathId, decision: Decision, carried: Carried) {
    let board = handle.autoscale();
    let count = |counter: &AtomicU64| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    count(&board.totals.decisions);
    match (&carried, decision.action) {
        (Carried::Refused(_), _) => count(&board.totals.refused),
        (_, Action::Scale(to)) => count(if to > decision.current { &board.totals.ups } else { &board.totals.downs }),
        (_, Action::Hold(autoscale::Why::Missing)) => count(&board.totals.blind),
        _ => {}
    }
    let mut statuses = board.statuses();
    let Some(status) = statuses.get_mut(id) else { return };
    let same =
        status.decisions.front().is_some_and(|(last, _)| last.action == decision.action) && matches!(decision.action, Action::Hold(_));
    let data = (!same).then(|| {
        simple("autoscale_event", |json| {
            json.text_field("appId", id.as_str());
            decision_fields(json, &decision);
            carried_fields(json, &carried);
        })
    });
    // Of a row of equal ones the latest is kept: the row would push everything else out.
    if same {
        status.decisions.pop_front();
    }
    status.decisions.push_front((decision, carried));
    status.decisions.truncate(REMEMBERED);
    drop(statuses);
    if let Some(frame) = data {
        handle.bus().send(frame);
    }
}

pub(crate) fn carried_fields(json: &mut crate::json::Json, carried: &Carried) {
    match carried {
        Carried::Nothing => {}
        Carried::Deployment(id) => json.text_field("deploymentId", id),
        Carried::Refused(why) => json.text_field("refused", why),
    }
}
