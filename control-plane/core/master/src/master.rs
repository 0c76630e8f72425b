use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::{DenseMap, Timestamp};
use mesos::{AgentId, FrameworkId, Resources};
use mesos_proto::v1;
use v1::scheduler;

use crate::allocator::{Allocator, Options};
use crate::limits::Limiter;
use crate::registry::Change;
use crate::timers::{Timer, Timers};
use crate::writes::{After, Writes};
use crate::{Agent, Config, Effect, Framework, Input, LinkId, Registry, Reply, ReplySlot, Snapshot, StreamId, ToAgent};

/// How long an event-driven run waits for more events.
const EVENT_ALLOCATION_DELAY: Duration = Duration::from_millis(5);

/// About what a run costs per agent that it looks at.
const EVENT_ALLOCATION_COST: Duration = Duration::from_micros(10);

/// The master. A value: everything that happens to it comes in by [`Master::step`].
#[derive(Debug)]
pub struct Master {
    pub(crate) config: Config,
    /// Everything that may be read.
    pub(crate) state: Snapshot,
    pub(crate) allocator: Allocator,
    pub(crate) timers: Timers,
    pub(crate) writes: Writes,
    pub(crate) streams: DenseMap<StreamId, FrameworkId>,
    pub(crate) links: DenseMap<LinkId, AgentId>,
    /// By host and port: one agent each.
    pub(crate) pids: BTreeMap<Arc<str>, AgentId>,
    /// Connections of agents whose admission is being stored, and those of them that broke meanwhile.
    pub(crate) admitting: BTreeMap<LinkId, bool>,
    /// Agents with a change of the registry under way: no other may begin.
    pub(crate) transitions: BTreeSet<AgentId>,
    /// Agents that missed their pings, in the order in which they will be unreachable.
    pub(crate) silent: VecDeque<AgentId>,
    pub(crate) silent_set: BTreeSet<AgentId>,
    pub(crate) removals: Limiter,
    pub(crate) calls: BTreeMap<String, Limiter>,
    pub(crate) other_calls: Option<Limiter>,
    /// Ids of removed frameworks that are remembered.
    pub(crate) completed_ids: DenseMap<FrameworkId, ()>,
    /// Agents whose machine is planned to be down.
    pub(crate) planned_agents: BTreeSet<AgentId>,
    /// Until when frameworks want no inverse offers of which agents.
    pub(crate) inverse_filters: BTreeMap<FrameworkId, BTreeMap<AgentId, Timestamp>>,
    pub(crate) next_framework: u64,
    pub(crate) next_agent: u64,
    pub(crate) next_offer: u64,
    pub(crate) random: u64,
    /// How many agents the registry had, and how many of them have to be back before offers begin.
    pub(crate) expected_agents: usize,
    pub(crate) aborted: bool,
    /// Somebody hears what is published.
    pub(crate) watched: bool,
    /// When the allocator's gauges are made anew.
    pub(crate) gauges_due: Timestamp,
    /// The latest time that was told.
    last_now: Timestamp,
    /// By how much the clock was set back altogether. Time in here never goes back.
    set_back: Duration,
}

impl Master {
    /// A master that begins to lead: with what its predecessors stored.
    pub fn new(config: Config, registry: Registry, now: Timestamp) -> Master {
        let region = config.info.domain.as_ref().and_then(|it| it.fault_domain.as_ref()).map(|it| it.region.name.clone());
        let options = Options {
            min_allocatable: config.min_allocatable_resources.clone(),
            filter_gpu_resources: config.filter_gpu_resources,
            role_sorter: config.role_sorter,
            framework_sorter: config.framework_sorter,
            region,
            seed: config.seed,
        };
        let mut allocator = Allocator::new(options, config.fair_sharing_excluded_resource_names.clone());
        let mut writes = Writes::default();
        if registry.weights.is_empty() && !config.weights.is_empty() {
            config.weights.iter().for_each(|(role, weight)| allocator.set_weight(role, *weight));
            writes.push(config.weights.iter().map(|(role, weight)| Change::Weight(role.clone(), *weight)).collect(), After::Nothing);
        }
        for (role, weight) in &registry.weights {
            allocator.set_weight(role, *weight);
        }
        for (role, quota) in &registry.quotas {
            allocator.set_quota(role, Some(quota));
        }
        let mut timers = Timers::default();
        timers.set(Timer::Allocation, now + config.allocation_interval);
        timers.set(Timer::RegistryGc, now + config.registry_gc_interval);
        let expected = registry.agents.len();
        if expected > 0 {
            timers.set(Timer::Reregistration, now + config.agent_reregister_timeout);
            if !registry.quotas.is_empty() {
                allocator.paused = true;
                timers.set(Timer::AllocatorRecovery, now + config.allocator_recovery_timeout);
            }
        }
        let recovered = registry.agents.iter().map(|(id, admitted)| (id.clone(), Arc::new(admitted.info.clone()))).collect();
        let removals = Limiter::even(config.agent_removal_rate_limit);
        Master {
            random: config.seed ^ 0x5bd1_e995,
            config,
            state: Snapshot { registry, recovered, ..Snapshot::default() },
            allocator,
            timers,
            writes,
            streams: DenseMap::default(),
            links: DenseMap::default(),
            pids: BTreeMap::new(),
            admitting: BTreeMap::new(),
            transitions: BTreeSet::new(),
            silent: VecDeque::new(),
            silent_set: BTreeSet::new(),
            removals,
            calls: BTreeMap::new(),
            other_calls: None,
            completed_ids: DenseMap::default(),
            planned_agents: BTreeSet::new(),
            inverse_filters: BTreeMap::new(),
            next_framework: 0,
            next_agent: 0,
            next_offer: 0,
            expected_agents: expected,
            aborted: false,
            watched: true,
            gauges_due: now,
            last_now: now,
            set_back: Duration::ZERO,
        }
    }

    /// Takes in what happened, and appends what is to be done. Total: every input has an outcome.
    pub fn step(&mut self, now: Timestamp, input: Input, out: &mut Vec<Effect>) {
        self.set_back += self.last_now.since(now);
        self.last_now = now;
        let now = now + self.set_back;
        if self.aborted {
            if let Input::Call { reply, .. } | Input::Operator { reply, .. } = input {
                self.reply(reply, Reply::refused(crate::Refusal::Unavailable, "Master is no longer leading"), out);
            }
            return;
        }
        match input {
            Input::Subscribe { stream, principal, subscribe } => self.subscribe(now, stream, principal.as_deref(), *subscribe, out),
            Input::Call { reply, stream, principal, call } => self.call(now, reply, stream.as_ref(), principal.as_deref(), *call, out),
            Input::StreamClosed { stream } => self.stream_closed(now, &stream, out),
            Input::Register { link, register } => self.register(now, link, register, out),
            Input::Agent { link, message } => self.agent_message(link, message, out),
            Input::LinkClosed { link } => self.link_closed(now, link, out),
            Input::Operator { reply, principal, call } => self.operator(now, reply, principal.as_deref(), *call, out),
            Input::Whitelist { hostnames } => self.allocator.set_whitelist(hostnames),
            Input::Watched { by_anybody } => self.watched = by_anybody,
            Input::Stored { write } => self.stored(now, write, out),
            Input::StoreFailed { reason } => self.abort(format!("Registry cannot be stored: {reason}"), out),
            Input::Tick => {}
        }
        while let Some(timer) = self.timers.pop(now) {
            self.due(now, timer, out);
        }
        if self.allocator.wants_run() {
            // What happens in quick succession is offered in one run. After a costly run one waits about as long as it took, so that a storm of
            // events leaves time for everything else.
            let cost = EVENT_ALLOCATION_COST * u32::try_from(self.allocator.looked_at).unwrap_or(u32::MAX);
            let delay = (EVENT_ALLOCATION_DELAY + cost).min(self.config.allocation_interval.max(EVENT_ALLOCATION_DELAY));
            self.timers.set_if_absent(Timer::EventAllocation, now + delay);
        }
        self.writes.start(out);
    }

    /// When `step(.., Tick, ..)` next has work; `None` means sleep until an input comes.
    ///
    /// That a clock was set back is noticed with the next step: whose clock can be, sleeps a few seconds at most.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.aborted { None } else { self.timers.next().map(|at| at - self.set_back) }
    }

    /// A version of everything that may be read. Costs no copying.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.state.clone();
        let quotas = &self.state.registry.quotas;
        snapshot.consumed = quotas.keys().map(|role| (role.clone(), self.allocator.consumed(role))).collect();
        snapshot.allocated = quotas.keys().map(|role| (role.clone(), self.allocator.allocated_to(role))).collect();
        snapshot
    }

    /// What it is configured with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn due(&mut self, now: Timestamp, timer: Timer, out: &mut Vec<Effect>) {
        match timer {
            Timer::Allocation => {
                // A clock that jumped makes no run for each interval that it jumped over.
                self.timers.set(Timer::Allocation, now + self.config.allocation_interval);
                self.allocate(now, true, out);
            }
            Timer::EventAllocation => self.allocate(now, false, out),
            Timer::Ping(id) => self.ping(now, &id, out),
            Timer::Failover(id) => self.remove_framework(now, &id, out),
            Timer::OfferTimeout(id) => self.rescind(&id, out),
            Timer::Reregistration => self.reregistration_over(now, out),
            Timer::Removal => self.remove_silent(now),
            Timer::RegistryGc => {
                self.timers.set(Timer::RegistryGc, now + self.config.registry_gc_interval);
                self.registry_gc(now);
            }
            Timer::AllocatorRecovery => self.allocator.paused = false,
        }
    }

    fn stored(&mut self, now: Timestamp, write: u64, out: &mut Vec<Effect>) {
        for (changes, after) in self.writes.stored(write) {
            for change in changes {
                self.state.registry.apply(change);
            }
            self.after(now, after, out);
        }
    }

    fn after(&mut self, now: Timestamp, after: After, out: &mut Vec<Effect>) {
        match after {
            After::Admitted { link, id, register } => self.admitted(now, link, &id, &register, out),
            After::Readmitted { link, id, register, unreachable } => self.readmitted(now, link, &id, register, unreachable, out),
            After::Described { id } => {
                self.transitions.remove(&id);
            }
            After::Unreachable { id } => self.unreachable(now, &id, out),
            After::Gone { id, reply } => self.gone(now, &id, reply, out),
            After::Removed { id, cause } => {
                self.transitions.remove(&id);
                self.remove_agent(now, &id, &crate::agents::Removal::Lost(cause), out);
            }
            After::Drain { id, reply } => self.drain_stored(now, &id, reply, out),
            After::Drained { id } => self.drained_stored(now, &id),
            After::Deactivated { id, reply } => self.deactivated_stored(&id, reply, out),
            After::Reactivated { id, reply } => self.reactivated_stored(&id, reply, out),
            After::Quotas { roles, reply } => self.quotas_stored(&roles, reply, out),
            After::Weights { roles, reply } => self.weights_stored(&roles, reply, out),
            After::Schedule { reply } => self.schedule_stored(reply, out),
            After::Down { agents, reply } => self.machines_down(now, &agents, reply, out),
            After::Nothing => {}
        }
    }

    pub(crate) fn abort(&mut self, reason: String, out: &mut Vec<Effect>) {
        self.aborted = true;
        self.writes.abandon(out);
        out.push(Effect::Abort { reason });
    }

    // ---- small things that everything uses ----

    pub(crate) fn persist(&mut self, changes: Vec<Change>, after: After) {
        self.writes.push(changes, after);
        self.state.metrics.set("registrar/queued_operations", self.writes.len() as u64);
    }

    #[expect(clippy::unused_self, reason = "reads like the other ways to speak")]
    pub(crate) fn reply(&self, slot: ReplySlot, reply: Reply, out: &mut Vec<Effect>) {
        out.push(Effect::Reply { slot, reply });
    }

    /// Sends an event to a framework; one that is not connected misses it.
    pub(crate) fn send(&mut self, framework: &FrameworkId, event: scheduler::Event, out: &mut Vec<Effect>) {
        let Some(framework) = self.framework_mut(framework) else { return };
        let Some(stream) = framework.stream.clone() else { return };
        let kind = event.r#type.and_then(|it| scheduler::event::Type::try_from(it).ok()).unwrap_or_default();
        *framework.counters.events.entry(crate::metrics::event_key(kind)).or_insert(0) += 1;
        if let Some(update) = &event.update {
            *framework.counters.updates.entry(crate::metrics::state_key(update.status.state())).or_insert(0) += 1;
        }
        out.push(Effect::Event { stream, event: Box::new(event) });
    }

    /// Sends to an agent; one that is not connected misses it. Whether it was sent.
    pub(crate) fn tell(&self, agent: &AgentId, message: ToAgent, out: &mut Vec<Effect>) -> bool {
        let Some(link) = self.state.agents.get(agent).and_then(|it| it.link) else { return false };
        out.push(Effect::Agent { link, message });
        true
    }

    /// Tells those who watch; where there are none the event is not made.
    pub(crate) fn publish(&self, event: impl FnOnce() -> v1::master::Event, out: &mut Vec<Effect>) {
        if self.watched {
            out.push(Effect::Publish(Box::new(event())));
        }
    }

    pub(crate) fn agent_mut(&mut self, id: &AgentId) -> Option<&mut Agent> {
        self.state.agents.get_mut(id).map(Arc::make_mut)
    }

    pub(crate) fn framework_mut(&mut self, id: &FrameworkId) -> Option<&mut Framework> {
        self.state.frameworks.get_mut(id).map(Arc::make_mut)
    }

    pub(crate) fn agent(&self, id: &AgentId) -> Option<Arc<Agent>> {
        self.state.agents.get(id).cloned()
    }

    pub(crate) fn framework(&self, id: &FrameworkId) -> Option<Arc<Framework>> {
        self.state.frameworks.get(id).cloned()
    }

    /// A framework uses resources of an agent. What is used was offered before (`allocated`), or is new to the allocator.
    pub(crate) fn use_resources(&mut self, framework: &FrameworkId, agent: &AgentId, resources: &Resources, allocated: bool) {
        if resources.is_empty() {
            return;
        }
        if let Some(agent) = self.agent_mut(agent) {
            agent.used.entry(framework.clone()).or_default().add_all(resources);
        }
        if let Some(framework) = self.framework_mut(framework) {
            framework.use_more(agent, resources);
        }
        if !allocated {
            self.allocator.allocate(framework, agent, resources);
        }
    }

    /// A framework no longer uses resources of an agent.
    pub(crate) fn release_resources(&mut self, framework: &FrameworkId, agent: &AgentId, resources: &Resources) {
        if resources.is_empty() {
            return;
        }
        if let Some(agent) = self.agent_mut(agent) {
            let used = agent.used.entry(framework.clone()).or_default();
            used.subtract_all(resources);
            if used.is_empty() {
                agent.used.remove(framework);
            }
        }
        if let Some(framework) = self.framework_mut(framework) {
            framework.use_less(agent, resources);
        }
        self.allocator.recover(framework, agent, resources, None);
        // Somebody may be waiting for just this; what is declined, in contrast, is passed on at a rate that has a limit.
        self.allocator.wake_agent(agent);
    }

    /// 16 bytes that no other operation has.
    pub(crate) fn uuid(&mut self) -> Vec<u8> {
        let mut bytes = [0; 16];
        for half in bytes.chunks_exact_mut(8) {
            half.copy_from_slice(&crate::allocator::next_random(&mut self.random).to_be_bytes());
        }
        // Marked as a random one, version 4.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        bytes.to_vec()
    }
}

/// Seconds since 1970, as statuses have them.
#[expect(clippy::cast_precision_loss, reason = "the wire has seconds as a double")]
pub(crate) fn seconds(at: Timestamp) -> f64 {
    at.unix_nanos() as f64 / 1e9
}

/// As the wire's message.
pub(crate) fn time_info(at: Timestamp) -> v1::TimeInfo {
    v1::TimeInfo { nanoseconds: i64::try_from(at.unix_nanos()).unwrap_or(i64::MAX) }
}
