//! A cluster of a master, agents and tasks, a store, and a clock that is moved by hand. One seed, one story.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use scheduler::id::{InstanceId, PathId};
use scheduler::instance::{Goal, Instance};
use scheduler::mesos::{Attribute, Call, Event, Offer, Operation, Resource, ResourceValue, TaskState, TaskStatus};
use scheduler::model::ResourceNeeds;
use scheduler::model::app::App;
use scheduler::model::spec::Spec;
use scheduler::plan::{ActionKind, Plan};
use scheduler::words::{Answer, Change, Config, Edit, Expect, Loaded, Orphan, Outcome, Record, Subject, TaskFailure, Ticket, Undo};
use scheduler::{Effect, Group, IdGen, Input, Scheduler, View};

/// What was made safe.
#[derive(Default)]
pub(crate) struct Stored {
    framework_id: Option<String>,
    specs: BTreeMap<(PathId, Timestamp), Spec>,
    current: BTreeMap<PathId, Timestamp>,
    groups: BTreeMap<PathId, Group>,
    root_version: Timestamp,
    instances: BTreeMap<InstanceId, Instance>,
    deployments: BTreeMap<String, Plan>,
    failures: BTreeMap<PathId, TaskFailure>,
    policies: BTreeMap<PathId, Arc<str>>,
    undos: BTreeMap<Timestamp, Undo>,
    orphans: BTreeMap<InstanceId, Orphan>,
}

impl Stored {
    pub(crate) fn write(&mut self, record: &Record) {
        match record.clone() {
            Record::FrameworkId(id) => self.framework_id = Some(id),
            Record::Spec(spec) => {
                self.current.insert(spec.id().clone(), spec.version());
                self.specs.insert((spec.id().clone(), spec.version()), spec);
            }
            Record::SpecRemoved(id) => drop(self.current.remove(&id)),
            Record::VersionDropped(id, version) => drop(self.specs.remove(&(id, version))),
            Record::Group(id, group) => drop(self.groups.insert(id, group)),
            Record::GroupRemoved(id) => drop(self.groups.remove(&id)),
            Record::RootVersion(at) => self.root_version = at,
            Record::Instance(instance) => drop(self.instances.insert(instance.id.clone(), (*instance).clone())),
            Record::InstanceRemoved(id) => drop(self.instances.remove(&id)),
            Record::Deployment(plan) => drop(self.deployments.insert(plan.id.clone(), (*plan).clone())),
            Record::DeploymentRemoved(id) => drop(self.deployments.remove(&id)),
            Record::Failure(failure) => drop(self.failures.insert(failure.app_id.clone(), (*failure).clone())),
            Record::FailureRemoved(id) => drop(self.failures.remove(&id)),
            Record::Policy(id, policy) => drop(self.policies.insert(id, policy)),
            Record::PolicyRemoved(id) => drop(self.policies.remove(&id)),
            Record::Undo(undo) => drop(self.undos.insert(undo.version, (*undo).clone())),
            Record::UndoDropped(version) => drop(self.undos.remove(&version)),
            Record::Orphan(id, orphan) => drop(self.orphans.insert(id, orphan)),
            Record::OrphanRemoved(id) => drop(self.orphans.remove(&id)),
        }
    }

    pub(crate) fn loaded(&self) -> Loaded {
        Loaded {
            framework_id: self.framework_id.clone(),
            specs: self.specs.values().cloned().collect(),
            current: self.current.clone(),
            groups: self.groups.clone(),
            root_version: self.root_version,
            instances: self.instances.values().cloned().collect(),
            deployments: self.deployments.values().cloned().collect(),
            failures: self.failures.values().cloned().collect(),
            policies: self.policies.clone(),
            undos: self.undos.values().cloned().collect(),
            orphans: self.orphans.clone(),
        }
    }
}

pub(crate) struct Agent {
    pub(crate) up: bool,
    cpus: i64,
    ports: BTreeSet<u64>,
}

struct Task {
    agent: usize,
    cpus: i64,
    ports: Vec<u64>,
    state: TaskState,
}

/// When the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    BeforeStoring,
    AfterEffects(usize),
}

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) core: Scheduler,
    pub(crate) stored: Stored,
    pub(crate) agents: Vec<Agent>,
    pub(crate) rng: IdGen,
    /// What happens to a task of this app after it runs: this state after so many milliseconds.
    pub(crate) fate: BTreeMap<PathId, (TaskState, u64)>,
    /// Apps whose probes fail.
    pub(crate) sick: BTreeSet<PathId>,
    /// Percent of the acceptances that the master refuses.
    pub(crate) refused: u64,
    pub(crate) connected: bool,
    /// The process dies at the next step that stores something: before it is stored, or after so many of the effects that follow.
    pub(crate) dies: Option<Death>,
    pub(crate) answers: BTreeMap<u64, Answer>,
    pub(crate) log: Vec<String>,
    pub(crate) logging: bool,
    config: Config,
    tasks: BTreeMap<String, Task>,
    events: BTreeMap<(Timestamp, u64), Event>,
    probes: BTreeMap<(Timestamp, u64), (Subject, Outcome)>,
    outstanding: BTreeMap<String, usize>,
    refused_until: BTreeMap<usize, Timestamp>,
    suppressed: bool,
    counter: u64,
    tickets: u64,
}

pub(crate) fn ms(span: u64) -> Duration {
    Duration::from_millis(span)
}

impl World {
    pub(crate) fn new(seed: u64, agents: usize) -> World {
        let config = Config { seed, min_revive_offers_interval: ms(100), ..Config::default() };
        let now = Timestamp::from_unix_millis(1_000_000);
        let mut world = World {
            now,
            core: Scheduler::new(config.clone(), Loaded::default(), now),
            stored: Stored::default(),
            agents: (0..agents).map(|_| Agent { up: true, cpus: 8_000, ports: BTreeSet::new() }).collect(),
            rng: IdGen::new(seed ^ 0x5eed),
            fate: BTreeMap::new(),
            sick: BTreeSet::new(),
            refused: 0,
            connected: false,
            dies: None,
            answers: BTreeMap::new(),
            log: Vec::new(),
            logging: false,
            config,
            tasks: BTreeMap::new(),
            events: BTreeMap::new(),
            probes: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            refused_until: BTreeMap::new(),
            suppressed: false,
            counter: 0,
            tickets: 0,
        };
        world.connect();
        world
    }

    pub(crate) fn connect(&mut self) {
        self.connected = true;
        self.suppressed = false;
        self.outstanding.clear();
        self.refused_until.clear();
        self.tell(1, Event::Subscribed { framework_id: "f".into(), master: "m:5050".into(), region: None });
    }

    pub(crate) fn disconnect(&mut self) {
        self.connected = false;
        // What was on its way is lost; agents say it again when asked.
        self.events.clear();
        self.step(Input::Mesos(Event::Disconnected));
    }

    /// The process dies and starts again from what it had stored.
    pub(crate) fn crash(&mut self) {
        self.events.clear();
        self.probes.clear();
        let config = Config { seed: self.rng.number(), ..self.config.clone() };
        self.core = Scheduler::new(config, self.stored.loaded(), self.now);
        self.check();
        self.connect();
    }

    fn tell(&mut self, after_ms: u64, event: Event) {
        self.counter += 1;
        self.events.insert((self.now + ms(after_ms), self.counter), event);
    }

    pub(crate) fn step(&mut self, input: Input) {
        let before = self.core.view();
        // Whoever kills instances by name may go below what an upgrade keeps.
        let asked_for = matches!(input, Input::Kill { .. });
        let mut effects = Vec::new();
        self.core.step(self.now, input, &mut effects);
        let stores = effects.iter().any(|it| matches!(it, Effect::Persist(_)));
        let dies = if stores { self.dies.take() } else { None };
        if dies == Some(Death::BeforeStoring) {
            self.crash();
            return;
        }
        for effect in &effects {
            if let Effect::Persist(record) = effect {
                self.stored.write(record);
            }
        }
        self.check();
        if !asked_for {
            upgrade_rules(&before, &self.core.view());
        }
        if let Some(Death::AfterEffects(left)) = dies {
            effects.retain(|it| !matches!(it, Effect::Persist(_)));
            effects.truncate(left);
        }
        for effect in effects {
            if self.logging
                && let Some(line) = describe(&effect)
            {
                self.log.push(format!("{:<6} {line}", self.now.unix_millis() - 1_000_000));
            }
            match effect {
                Effect::Call(call) if self.connected => self.on_call(call),
                Effect::Reply(ticket, answer) => drop(self.answers.insert(ticket.0, answer)),
                Effect::Probe(request) => {
                    let sick = self.sick.contains(&request.subject.instance.spec());
                    let outcome = if sick { Outcome::Failed("connection refused".into()) } else { Outcome::Connected };
                    let outcome = match (&request.kind, outcome) {
                        (scheduler::words::ProbeKind::Http { .. }, Outcome::Connected) => {
                            Outcome::Answered { status: 200, reason: "OK".into(), content_type: "text/plain".into(), body: String::new() }
                        }
                        (_, other) => other,
                    };
                    self.counter += 1;
                    self.probes.insert((self.now + ms(20), self.counter), (request.subject, outcome));
                }
                _ => {}
            }
        }
        if dies.is_some() {
            self.crash();
        }
    }

    fn check(&self) {
        if let Err(problem) = self.core.check() {
            panic!("{problem}");
        }
    }

    fn on_call(&mut self, call: Call) {
        match call {
            Call::Accept { offer_id, operations, .. } => {
                let agent = self.outstanding.remove(&offer_id);
                for operation in operations {
                    if let Operation::Launch(launch) = operation {
                        let bad = agent.is_none_or(|at| !self.agents[at].up) || self.rng.number() % 100 < self.refused;
                        for task in launch.tasks {
                            if bad {
                                self.update(&task.id.to_string(), None, TaskState::Dropped, 5, Some("REASON_INVALID_OFFERS"));
                            } else {
                                self.launch(task.id.as_str(), agent.unwrap(), &task.resources);
                            }
                        }
                    }
                }
            }
            Call::Decline { offer_ids, refuse_seconds } => {
                for id in offer_ids {
                    if let Some(agent) = self.outstanding.remove(&id) {
                        self.refused_until.insert(agent, self.now + Duration::from_secs_f64(refuse_seconds));
                    }
                }
            }
            Call::Revive { .. } => {
                self.suppressed = false;
                self.refused_until.clear();
            }
            Call::Suppress { .. } => self.suppressed = true,
            Call::Kill { task_id, .. } => match self.tasks.get(&task_id).map(|it| it.agent) {
                Some(agent) if self.agents[agent].up => self.end(&task_id, TaskState::Killed, 30),
                Some(_) => {}
                None => self.update(&task_id, None, TaskState::Unknown, 5, Some("REASON_RECONCILIATION")),
            },
            Call::Reconcile { tasks } => {
                let asked: Vec<String> =
                    if tasks.is_empty() { self.tasks.keys().cloned().collect() } else { tasks.into_iter().map(|(id, _)| id).collect() };
                for id in asked {
                    let state = match self.tasks.get(&id) {
                        Some(task) if !self.agents[task.agent].up => TaskState::Unreachable,
                        Some(task) => task.state,
                        None => TaskState::Unknown,
                    };
                    self.update(&id, None, state, 5, Some("REASON_RECONCILIATION"));
                }
            }
            Call::UpdateRoles { .. } | Call::Acknowledge { .. } => {}
        }
    }

    fn launch(&mut self, id: &str, agent: usize, resources: &[Resource]) {
        let cpus = resources.iter().filter(|it| it.name == "cpus").map(Resource::scalar).sum();
        let ports: Vec<u64> = resources
            .iter()
            .filter_map(|it| if let ResourceValue::Ranges(ranges) = &it.value { Some(ranges.clone()) } else { None })
            .flatten()
            .flat_map(|(from, to)| from..=to)
            .collect();
        self.agents[agent].cpus -= cpus;
        assert!(self.agents[agent].cpus >= 0, "{id} takes more than there is");
        for port in &ports {
            assert!(self.agents[agent].ports.insert(*port), "{id} takes a port that is taken");
        }
        let known = self.tasks.insert(id.to_owned(), Task { agent, cpus, ports, state: TaskState::Staging });
        assert!(known.is_none(), "{id} is launched twice");
        let delay = 10 + self.rng.number() % 200;
        self.update(id, Some(TaskState::Running), TaskState::Running, delay, None);
    }

    /// Says how a task is, after some time. `real` is what it then is.
    fn update(&mut self, id: &str, real: Option<TaskState>, said: TaskState, after_ms: u64, reason: Option<&str>) {
        if let (Some(real), Some(task)) = (real, self.tasks.get_mut(id)) {
            task.state = real;
        }
        let status = TaskStatus {
            task_id: id.to_owned(),
            state: said,
            message: String::new(),
            reason: reason.map(str::to_owned),
            agent_id: Some("a".into()),
            uuid: Some(vec![1; 16]),
            timestamp: None,
            healthy: None,
            check: None,
            addresses: Vec::new(),
            unreachable_since: None,
        };
        if self.connected {
            self.tell(after_ms, Event::Update(status));
        }
    }

    fn end(&mut self, id: &str, state: TaskState, after_ms: u64) {
        if let Some(task) = self.tasks.remove(id) {
            let agent = &mut self.agents[task.agent];
            agent.cpus += task.cpus;
            for port in task.ports {
                agent.ports.remove(&port);
            }
            self.update(id, None, state, after_ms, None);
        }
    }

    pub(crate) fn lose_agent(&mut self, at: usize) {
        self.agents[at].up = false;
        let lost: Vec<String> = self.tasks.iter().filter(|(_, task)| task.agent == at).map(|(id, _)| id.clone()).collect();
        for id in lost {
            self.update(&id, None, TaskState::Unreachable, 1, None);
        }
    }

    pub(crate) fn find_agent(&mut self, at: usize) {
        self.agents[at].up = true;
        let back: Vec<(String, TaskState)> =
            self.tasks.iter().filter(|(_, task)| task.agent == at).map(|(id, task)| (id.clone(), task.state)).collect();
        for (id, state) in back {
            self.update(&id, None, state, 1, Some("REASON_AGENT_REREGISTERED"));
        }
    }

    fn offer(&mut self) {
        if !self.connected || self.suppressed {
            return;
        }
        let mut offers = Vec::new();
        for at in 0..self.agents.len() {
            let refused = self.refused_until.get(&at).is_some_and(|until| *until > self.now);
            if !self.agents[at].up || refused || self.outstanding.values().any(|agent| *agent == at) || self.agents[at].cpus < 10 {
                continue;
            }
            self.counter += 1;
            let id = format!("o{}", self.counter);
            let free: Vec<(u64, u64)> =
                (31_000..31_100).filter(|port| !self.agents[at].ports.contains(port)).map(|port| (port, port)).collect();
            let resource = |name: &str, value| Resource {
                name: name.into(),
                value,
                reservations: Vec::new(),
                disk: None,
                provider: None,
                revocable: false,
                shared: false,
            };
            offers.push(Offer {
                id: id.clone(),
                agent_id: format!("a{at}"),
                hostname: format!("h{at}"),
                role: "*".into(),
                resources: vec![
                    resource("cpus", ResourceValue::Scalar(self.agents[at].cpus)),
                    resource("mem", ResourceValue::Scalar(64_000_000)),
                    resource("ports", ResourceValue::Ranges(free)),
                ],
                attributes: vec![("rack".into(), Attribute::Text(format!("r{}", at % 3)))],
                ..Offer::default()
            });
            self.outstanding.insert(id, at);
        }
        if !offers.is_empty() {
            self.tell(1, Event::Offers(offers));
        }
    }

    /// Lets time pass, and everything happen that happens in it.
    pub(crate) fn run(&mut self, span_ms: u64) {
        let until = self.now + ms(span_ms);
        let mut next_offer = self.now;
        loop {
            let due = [
                self.events.keys().next().map(|(at, _)| *at),
                self.probes.keys().next().map(|(at, _)| *at),
                self.core.next_deadline(),
                Some(next_offer),
            ];
            let at = due.into_iter().flatten().min().unwrap().max(self.now);
            if at > until {
                self.now = until;
                return;
            }
            self.now = at;
            if next_offer <= at {
                next_offer = at + ms(if self.suppressed { 200 } else { 50 });
                self.offer();
            }
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= at) {
                let event = entry.remove();
                self.step(Input::Mesos(event));
            }
            while let Some(entry) = self.probes.first_entry().filter(|entry| entry.key().0 <= at) {
                let (subject, outcome) = entry.remove();
                self.step(Input::Probed { subject, outcome });
            }
            self.step(Input::Tick);
            self.fates();
        }
    }

    /// Tasks of doomed apps end.
    fn fates(&mut self) {
        let doomed: Vec<(String, TaskState, u64)> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.state == TaskState::Running && self.agents[task.agent].up)
            .filter_map(|(id, _)| {
                let app = PathId::from_safe(id.split_once('.')?.0);
                let (state, after) = self.fate.get(&app)?;
                Some((id.clone(), *state, *after))
            })
            .collect();
        for (id, state, after) in doomed {
            if self.rng.number().is_multiple_of(4) {
                self.end(&id, state, after);
            }
        }
    }

    pub(crate) fn ask(&mut self, make: impl FnOnce(Ticket) -> Input) -> Answer {
        self.tickets += 1;
        let ticket = self.tickets;
        let input = make(Ticket(ticket));
        let mortal = self.dies.is_some();
        self.step(input);
        let answer = self.answers.remove(&ticket);
        // Who dies may owe an answer.
        if mortal && self.dies.is_none() { answer.unwrap_or(Answer::Done) } else { answer.expect("every question is answered") }
    }

    pub(crate) fn change(&mut self, edits: Vec<Edit>, force: bool) -> Answer {
        self.ask(|ticket| Input::Change { ticket, change: Change { edits, force, ..Change::default() } })
    }

    pub(crate) fn put(&mut self, app: App) -> Answer {
        self.change(vec![Edit::Put { spec: Spec::App(Arc::new(app)), expect: Expect::Anything }], false)
    }

    pub(crate) fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// Tasks that run and that the core does not know.
    pub(crate) fn strangers(&self) -> Vec<String> {
        let view = self.core.view();
        let known: BTreeSet<String> = view
            .specs
            .values()
            .flat_map(|state| state.instances.values())
            .flat_map(|it| it.tasks.iter())
            .map(|task| task.id.to_string())
            .collect();
        self.tasks.keys().filter(|id| !known.contains(*id)).cloned().collect()
    }
}

/// An app of `instances` that does nothing but be there.
pub(crate) fn app(id: &str, instances: u32) -> App {
    let mut app = App::new(PathId::absolute(id));
    app.cmd = Some("sleep 1000".into());
    app.instances = instances;
    app.resources = ResourceNeeds { cpus: 0.1, mem: 16.0, disk: 0.0, gpus: 0 };
    app.role = String::new();
    app
}

/// What no step may break while an app's instances are being replaced.
fn upgrade_rules(before: &View, after: &View) {
    for deployment in after.deployments.values() {
        let Some(same) = before.deployments.get(&deployment.plan.id).filter(|it| it.step == deployment.step) else { continue };
        for action in deployment.actions().iter().filter(|it| it.kind == ActionKind::Restart) {
            if !deployment.pending.contains(&action.spec) || !same.pending.contains(&action.spec) {
                continue;
            }
            let (Some(spec), Some(then), Some(now)) =
                (after.root.spec(&action.spec), before.specs.get(&action.spec), after.specs.get(&action.spec))
            else {
                continue;
            };
            if before.root.spec(&action.spec) != Some(spec) {
                continue;
            }
            let (wanted, strategy) = (f64::from(spec.instances()), spec.upgrade_strategy());
            let minimum = (wanted * strategy.minimum_health_capacity - 1e-9).ceil() as u32;
            let maximum = (wanted * (1.0 + strategy.maximum_over_capacity) + 1e-9).floor() as u32;
            let maximum = if minimum < maximum { maximum } else { maximum + 1 };
            let config = spec.config_version();
            let ended = then
                .instances
                .values()
                .filter(|it| it.facts().healthy)
                .filter(|it| now.instances.get(&it.id).is_some_and(|it| it.goal != Goal::Running && it.condition.has_task()))
                .count();
            let serving = now.before(config).healthy + now.since(config).ready;
            assert!(ended == 0 || serving >= minimum, "{}: {ended} healthy ones were ended, {serving} serve, {minimum} must", spec.id());
            let total = |state: &scheduler::SpecState| state.total().wanted + state.total().dying;
            let (was, is) = (total(then), total(now));
            // One that comes back from out of reach was not started by us.
            let started = now.instances.values().filter(|it| !then.instances.contains_key(&it.id)).count();
            assert!(started == 0 || is <= maximum, "{}: {is} instances after {was}, {maximum} may be", spec.id());
        }
    }
}

/// A line about an effect, of those that a story is told by.
fn describe(effect: &Effect) -> Option<String> {
    use scheduler::words::BusEvent;
    match effect {
        Effect::Call(Call::Accept { operations, .. }) => {
            let launches = operations.iter().filter_map(|it| if let Operation::Launch(launch) = it { Some(launch) } else { None });
            Some(launches.map(|it| format!("launch {} on {}", it.spec.id(), it.host)).collect::<Vec<_>>().join(", "))
        }
        Effect::Call(Call::Kill { task_id, .. }) => Some(format!("kill {}", task_id.split('.').next()?)),
        Effect::Call(Call::Decline { offer_ids, refuse_seconds }) => Some(format!("decline {} for {refuse_seconds} s", offer_ids.len())),
        Effect::Call(Call::Revive { .. }) => Some("revive".into()),
        Effect::Call(Call::Suppress { .. }) => Some("suppress".into()),
        Effect::Publish(BusEvent::DeploymentSuccess { .. }) => Some("deployment succeeded".into()),
        Effect::Publish(BusEvent::DeploymentFailed { reason, .. }) => Some(format!("deployment failed: {reason}")),
        Effect::Publish(BusEvent::DeploymentStepSuccess { step, .. }) => Some(format!("step {} succeeded", step + 1)),
        Effect::Publish(BusEvent::InstanceChanged { instance }) => Some(format!("{} is {}", instance.spec.id(), instance.condition.word())),
        Effect::Publish(BusEvent::UnhealthyInstanceKill { instance, reason, .. }) => {
            Some(format!("{} is unhealthy: {reason}", instance.spec.id()))
        }
        _ => None,
    }
}
