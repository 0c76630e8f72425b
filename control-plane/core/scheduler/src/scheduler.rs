//! The scheduler itself: one value that takes inputs and gives effects.

mod change;
mod deploy;
mod health;
mod kill;
mod life;
mod offers;
mod queue;
mod readers;
mod status;
mod tables;
mod timers;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::Timestamp;
use imbl::{OrdMap, OrdSet};

use crate::constraints::Patterns;
use crate::id::{InstanceId, PathId};
use crate::instance::{Condition, Goal, Instance};
use crate::mesos::{Call, Event};
use crate::model::spec::Spec;
use crate::random::IdGen;
use crate::root::Root;

pub use deploy::Deployment;
use kill::Killing;
use queue::{Delay, QueueEntry};
pub use queue::{QueueItem, Unused};
pub use readers::View;
pub use tables::{Counts, SpecState, Tally};
use timers::{Timer, Timers};
use words::{Answer, BusEvent, Change, Config, Loaded, Orphan, Outcome, ProbeRequest, Record, Subject, TaskFailure, Ticket};

/// Everything that can happen to the scheduler.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody wants other apps, pods or groups.
    Change {
        /// To answer to.
        ticket: Ticket,
        /// What is wanted.
        change: Change,
    },
    /// Somebody wants a deployment to end.
    CancelDeployment {
        /// To answer to.
        ticket: Ticket,
        /// Which.
        id: String,
        /// Whether it just ends where it is, instead of being rolled back.
        force: bool,
    },
    /// Somebody wants instances to end, to be replaced.
    Kill {
        /// To answer to.
        ticket: Ticket,
        /// Which.
        instances: Vec<InstanceId>,
        /// Whether what is reserved for them goes, too.
        wipe: bool,
    },
    /// Somebody wants an app not to wait any longer after its failures.
    ResetDelay {
        /// To answer to.
        ticket: Ticket,
        /// Which.
        spec: PathId,
    },
    /// Somebody wants an app's number of instances to be decided otherwise.
    SetPolicy {
        /// To answer to.
        ticket: Ticket,
        /// Which.
        app: PathId,
        /// How, in the words of whoever decides; none: by people alone.
        policy: Option<Arc<str>>,
    },
    /// The master tells something.
    Mesos(Event),
    /// A probe that was asked for has an answer.
    Probed {
        /// What was asked.
        subject: Subject,
        /// What came back.
        outcome: Outcome,
    },
    /// Time has passed.
    Tick,
}

/// Everything the scheduler may ask of the world.
#[derive(Clone, Debug)]
pub enum Effect {
    /// To be safe before any later effect is carried out.
    Persist(Record),
    /// To ask of the master.
    Call(Call),
    /// To answer to who asked.
    Reply(Ticket, Answer),
    /// To tell whoever listens.
    Publish(BusEvent),
    /// To ask an instance how it is; [`Input::Probed`] brings the answer.
    Probe(ProbeRequest),
}

/// Marathon's decisions. See the crate's own words.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    ids: IdGen,
    framework_id: Option<String>,
    connected: bool,
    master: Option<String>,
    home_region: Option<String>,
    /// Roles that Mesos knows us by, and those of them for which nothing is offered.
    roles: OrdSet<String>,
    suppressed: BTreeSet<String>,
    root: Root,
    /// Definitions by path and version, the present ones included.
    history: OrdMap<PathId, OrdMap<Timestamp, Spec>>,
    /// Roots by version, the present one included.
    roots: OrdMap<Timestamp, Root>,
    specs: OrdMap<PathId, SpecState>,
    deployments: OrdMap<String, Deployment>,
    /// Which deployment an app or pod belongs to.
    locks: BTreeMap<PathId, String>,
    failures: OrdMap<PathId, Arc<TaskFailure>>,
    /// How numbers of instances are to be decided, by app: kept here, understood elsewhere.
    policies: OrdMap<PathId, Arc<str>>,
    queue: BTreeMap<PathId, QueueEntry>,
    delays: BTreeMap<PathId, Delay>,
    /// Roles for which something waits that was not there at the last revival.
    demand: BTreeSet<String>,
    /// Instances that are no more and had something reserved: what is looked for in offers, to be given back, and until when.
    orphans: BTreeMap<InstanceId, (Orphan, Timestamp)>,
    /// Whether Mesos has yet to be told of a new role.
    roles_changed: bool,
    revived_at: Option<Timestamp>,
    tokens: u32,
    timers: Timers,
    killing: BTreeMap<InstanceId, Killing>,
    kills_in_flight: usize,
    probes_in_flight: BTreeSet<Subject>,
    /// Probes that are due and wait for room.
    probes_due: BTreeSet<Subject>,
    /// Apps and pods whose instances have changed since they were last looked at.
    dirty: BTreeSet<PathId>,
    totals: words::Totals,
    patterns: Patterns,
}

impl Scheduler {
    /// A scheduler that goes on from what was stored.
    pub fn new(config: Config, loaded: Loaded, now: Timestamp) -> Scheduler {
        let mut this = Scheduler {
            ids: IdGen::new(config.seed),
            patterns: Patterns::default(),
            tokens: config.launch_tokens,
            framework_id: loaded.framework_id,
            connected: false,
            master: None,
            home_region: None,
            roles: OrdSet::unit(config.default_role.clone()),
            suppressed: BTreeSet::new(),
            root: Root::default(),
            history: OrdMap::new(),
            roots: OrdMap::new(),
            specs: OrdMap::new(),
            deployments: OrdMap::new(),
            locks: BTreeMap::new(),
            failures: loaded.failures.into_iter().map(|failure| (failure.app_id.clone(), Arc::new(failure))).collect(),
            policies: loaded.policies.into_iter().collect(),
            queue: BTreeMap::new(),
            delays: BTreeMap::new(),
            demand: BTreeSet::new(),
            orphans: BTreeMap::new(),
            roles_changed: false,
            revived_at: None,
            timers: Timers::default(),
            killing: BTreeMap::new(),
            kills_in_flight: 0,
            probes_in_flight: BTreeSet::new(),
            probes_due: BTreeSet::new(),
            dirty: BTreeSet::new(),
            totals: words::Totals::default(),
            config,
        };
        for spec in loaded.specs {
            let versions = this.history.entry(spec.id().clone()).or_default();
            versions.insert(spec.version(), spec);
        }
        this.root.set_version(loaded.root_version);
        for (id, version) in &loaded.current {
            if let Some(spec) = this.history.get(id).and_then(|versions| versions.get(version)) {
                this.root.put_spec(spec.clone());
            }
        }
        for (id, group) in loaded.groups {
            this.root.put_group(id, group);
        }
        this.roots.insert(this.root.version(), this.root.clone());
        this.recall_roots(loaded.undos);
        this.roles.extend(this.root.specs().map(|(_, spec)| spec.role().to_owned()));
        // An instance may still be in a role that its app has left, or be of an app that is no more.
        this.roles.extend(loaded.instances.iter().map(|it| it.role.clone()).filter(|role| !role.is_empty()));
        let mut ignored = Vec::new();
        for instance in loaded.instances {
            let instance = this.put(now, instance, &mut ignored);
            this.pick_up(now, &instance, &mut ignored);
        }
        this.resume_orphans(now, loaded.orphans);
        this.resume_deployments(loaded.deployments);
        let held: Vec<_> = this.locks.keys().flat_map(|id| this.instances_of(id)).collect();
        for instance in held {
            this.schedule_readiness(now, &instance);
        }
        let known: Vec<PathId> = this.root.specs().map(|(id, _)| id.clone()).collect();
        this.dirty.extend(known);
        this.timers.add(now + this.config.reconciliation_initial_delay, Timer::Reconcile);
        this.timers.add(now + this.config.scale_apps_initial_delay, Timer::ScaleCheck);
        this.timers.add(now + this.config.launch_token_refresh_interval, Timer::Tokens);
        this
    }

    /// What was being waited for in the run before is waited for again.
    fn pick_up(&mut self, now: Timestamp, instance: &Instance, out: &mut Vec<Effect>) {
        self.timers.add(now, Timer::Launch(instance.id.clone(), instance.incarnation));
        self.timers.add(now, Timer::Unreachable(instance.id.clone()));
        if instance.condition == Condition::Running {
            self.schedule_probes(now, instance);
        }
        if instance.goal != Goal::Running {
            self.kill(now, &instance.id, out);
        }
    }

    /// Takes one input and settles what follows from it. Total: every input has an outcome.
    pub fn step(&mut self, now: Timestamp, input: Input, out: &mut Vec<Effect>) {
        self.handle(now, input, out);
        self.settle(now, out);
    }

    /// Takes one input. What it means for deployments waits for [`Scheduler::settle`], which may follow once after many inputs.
    pub fn handle(&mut self, now: Timestamp, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Change { ticket, change } => self.on_change(now, ticket, change, out),
            Input::CancelDeployment { ticket, id, force } => self.on_cancel(now, ticket, &id, force, out),
            Input::Kill { ticket, instances, wipe } => self.on_kill_wanted(now, ticket, instances, wipe, out),
            Input::ResetDelay { ticket, spec } => self.on_reset_delay(ticket, &spec, out),
            Input::SetPolicy { ticket, app, policy } => self.on_policy(ticket, app, policy, out),
            Input::Mesos(event) => self.on_event(now, event, out),
            Input::Probed { subject, outcome } => self.on_probed(now, &subject, &outcome, out),
            Input::Tick => {}
        }
    }

    /// Does what is due and what follows from the inputs before.
    pub fn settle(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        while let Some(timer) = self.timers.pop(now) {
            self.on_timer(now, timer, out);
        }
        self.settle_deployments(now, out);
        self.settle_roles(now, out);
        self.send_kills(now, out);
        self.send_probes(now, out);
    }

    /// When [`Scheduler::settle`] next has work by itself.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    fn on_event(&mut self, now: Timestamp, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Subscribed { framework_id, master, region } => self.on_subscribed(now, framework_id, master, region, out),
            Event::Disconnected => {
                if self.connected {
                    self.connected = false;
                    self.forget_attempts();
                    out.push(Effect::Publish(BusEvent::SchedulerDisconnected));
                }
            }
            Event::Offers(offers) => self.on_offers(now, offers, out),
            Event::Update(status) => self.on_status(now, status, out),
            Event::Message { agent_id, executor_id, data } => {
                out.push(Effect::Publish(BusEvent::FrameworkMessage { agent_id, executor_id, data }));
            }
            // Offers are answered when they come; agents' and executors' ends are told again by the states of their tasks.
            Event::Rescind(_) | Event::Failure { .. } | Event::Error(_) => {}
        }
    }

    fn on_subscribed(&mut self, now: Timestamp, framework_id: String, master: String, region: Option<String>, out: &mut Vec<Effect>) {
        let again = self.framework_id.as_ref() == Some(&framework_id);
        if !again {
            self.framework_id = Some(framework_id.clone());
            out.push(Effect::Persist(Record::FrameworkId(framework_id.clone())));
        }
        self.connected = true;
        self.home_region = region;
        self.master = Some(master.clone());
        out.push(Effect::Publish(if again {
            BusEvent::SchedulerReregistered { master }
        } else {
            BusEvent::SchedulerRegistered { framework_id, master }
        }));
        // A new stream has nothing suppressed, and its first offers come by themselves.
        self.suppressed.clear();
        self.demand.clear();
        self.revived_at = Some(now);
        self.look_again_for_orphans(now);
        self.reconcile(now, out);
    }

    /// Asks how every task is, one by one, then for whatever else there is.
    fn reconcile(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        self.timers.add(now + self.config.reconciliation_interval, Timer::Reconcile);
        if !self.connected {
            return;
        }
        let mut tasks = Vec::new();
        for state in self.specs.values() {
            for instance in state.instances.values().filter(|it| it.condition.has_task()) {
                let agent = instance.agent.as_ref().map(|agent| agent.agent_id.clone());
                tasks.extend(
                    instance
                        .tasks
                        .iter()
                        .filter(|task| !task.state.is_some_and(|it| it.is_terminal()))
                        .map(|task| (task.id.as_str().to_owned(), agent.clone())),
                );
            }
        }
        const CHUNK: usize = 1_000;
        out.extend(tasks.chunks(CHUNK).map(|chunk| Effect::Call(Call::Reconcile { tasks: chunk.to_vec() })));
        out.push(Effect::Call(Call::Reconcile { tasks: Vec::new() }));
        let strangers: Vec<InstanceId> = self
            .specs
            .iter()
            .filter(|(id, _)| self.root.spec(id).is_none() && !self.locks.contains_key(id))
            .flat_map(|(_, state)| state.instances.keys().cloned())
            .collect();
        for id in strangers {
            self.decommission(now, &id, out);
        }
    }
}
