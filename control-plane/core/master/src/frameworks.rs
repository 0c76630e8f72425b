//! Frameworks: subscription, failover, what they want, their end.

mod calls;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use mesos::{AgentId, FrameworkId, Quantities, Role, Scalar, TaskId};
use mesos_proto::v1;
use v1::TaskState;
use v1::scheduler;
use v1::task_status::Reason;

use crate::allocator::{Constraints, Wants, no_constraints};
use crate::master::Master;
use crate::timers::Timer;
use crate::{Action, Effect, Framework, FrameworkCapabilities, FrameworkCounters, StreamId, ToAgent, events, validate};

/// A framework that nothing happened to yet.
pub(crate) fn new_framework(id: FrameworkId, info: v1::FrameworkInfo, now: Timestamp) -> Framework {
    let capabilities = FrameworkCapabilities::of(&info);
    Framework {
        id,
        roles: Arc::new(roles_of(&info)),
        capabilities,
        info: Arc::new(info),
        suppressed: Arc::default(),
        offer_constraints: None,
        stream: None,
        recovered: false,
        registered_at: now,
        reregistered_at: None,
        unregistered_at: None,
        tasks: imbl::OrdMap::new(),
        unreachable_tasks: imbl::OrdMap::new(),
        unreachable_order: imbl::Vector::new(),
        completed_tasks: imbl::Vector::new(),
        executors: imbl::OrdMap::new(),
        used: imbl::OrdMap::new(),
        used_scalars: mesos::Resources::new(),
        used_others: imbl::OrdMap::new(),
        offered: std::sync::OnceLock::new(),
        offers: imbl::OrdSet::new(),
        inverse_offers: imbl::OrdSet::new(),
        operations: imbl::OrdMap::new(),
        counters: FrameworkCounters::default(),
    }
}

/// The roles that a framework has.
pub(crate) fn roles_of(info: &v1::FrameworkInfo) -> BTreeSet<Role> {
    if FrameworkCapabilities::of(info).multi_role() {
        info.roles.iter().map(|it| it.as_str().into()).collect()
    } else {
        BTreeSet::from([info.role().into()])
    }
}

/// What was sent with a subscription or an update, checked.
struct Checked {
    info: v1::FrameworkInfo,
    suppressed: BTreeSet<Role>,
    wire_constraints: Option<scheduler::OfferConstraints>,
    constraints: Arc<Constraints>,
}

impl Master {
    /// A framework opened an event stream.
    pub(crate) fn subscribe(
        &mut self,
        now: Timestamp,
        stream: StreamId,
        principal: Option<&str>,
        subscribe: scheduler::call::Subscribe,
        out: &mut Vec<Effect>,
    ) {
        let id = subscribe.framework_info.id.as_ref().filter(|it| !it.value.is_empty()).map(FrameworkId::from);
        self.state.metrics.count(if id.is_some() { "master/messages_reregister_framework" } else { "master/messages_register_framework" });
        let checked =
            self.check(principal, id.as_ref(), subscribe.framework_info, &subscribe.suppressed_roles, subscribe.offer_constraints);
        match checked {
            Ok(checked) => match id {
                Some(id) if self.state.frameworks.contains_key(&id) => self.resubscribe(now, &id, stream, checked, out),
                id => self.subscribe_new(now, id, stream, checked, out),
            },
            Err(message) => {
                out.push(Effect::Event { stream: stream.clone(), event: Box::new(events::error(message)) });
                out.push(Effect::CloseStream { stream });
            }
        }
    }

    /// What is wrong with a subscription, or what follows from it.
    fn check(
        &self,
        principal: Option<&str>,
        id: Option<&FrameworkId>,
        mut info: v1::FrameworkInfo,
        suppressed: &[String],
        wire_constraints: Option<scheduler::OfferConstraints>,
    ) -> Result<Checked, String> {
        if let Some(error) = validate::framework_error(&info) {
            return Err(error);
        }
        if info.principal.is_none() {
            info.principal = principal.map(str::to_owned);
        }
        let roles = roles_of(&info);
        if let Some(known) = &self.config.roles
            && let Some(role) = roles.iter().find(|role| !role.is_star() && !known.contains(role.as_str()))
        {
            return Err(format!("Role '{role}' is not present in the master's --roles"));
        }
        if info.user == "root" && !self.config.root_submissions {
            return Err("User 'root' is not allowed to run frameworks without --root_submissions set".into());
        }
        if let Some(id) = id {
            if self.completed_ids.contains_key(id) {
                return Err("Framework has been removed".into());
            }
            if let Some(known) = self.state.frameworks.get(id)
                && !known.recovered
                && known.info.principal != info.principal
            {
                return Err("Changing framework's principal is not allowed.".into());
            }
        }
        let known = id.is_some_and(|id| self.state.frameworks.contains_key(id));
        if !known && self.state.frameworks.len() >= self.config.max_frameworks {
            return Err(format!("Too many frameworks: {} are subscribed", self.state.frameworks.len()));
        }
        for role in &roles {
            let action = Action::RegisterFramework { role };
            if !self.config.authorizer.allows(info.principal.as_deref(), action) {
                return Err(format!("Not authorized to use roles '{}'", validate::list(roles.iter())));
            }
        }
        let suppressed: BTreeSet<Role> = suppressed.iter().map(|it| it.as_str().into()).collect();
        let foreign: Vec<&Role> = suppressed.difference(&roles).collect();
        if !foreign.is_empty() {
            return Err(format!("Suppressed roles {} are not contained in the set of roles", validate::list(foreign.into_iter())));
        }
        let mut constraints = no_constraints();
        if let Some(wire) = &wire_constraints {
            if let Some(role) = wire.role_constraints.keys().find(|role| !roles.contains(role.as_str())) {
                return Err(format!("Offer constraints specify `role_constraints` for a role '{role}'not contained in the set of roles"));
            }
            constraints = Arc::new(Constraints::compile(wire, self.config.offer_constraints_regex_max_bytes)?);
        }
        Ok(Checked { info, suppressed, wire_constraints, constraints })
    }

    fn subscribe_new(&mut self, now: Timestamp, id: Option<FrameworkId>, stream: StreamId, checked: Checked, out: &mut Vec<Effect>) {
        // An id that nobody here knows is one of before this master led: it is taken over as it is.
        let id = id.unwrap_or_else(|| {
            let id = FrameworkId::from(format!("{}-{:04}", self.config.info.id, self.next_framework));
            self.next_framework += 1;
            id
        });
        let mut info = checked.info;
        info.id = Some(id.to_proto());
        let mut framework = new_framework(id.clone(), info, now);
        framework.suppressed = Arc::new(checked.suppressed);
        framework.offer_constraints = checked.wire_constraints.map(Arc::new);
        framework.stream = Some(stream.clone());
        self.streams.insert(stream, id.clone());
        self.allocator.set_framework(&id, wants(&framework, checked.constraints));
        self.allocator.set_framework_active(&id, true);
        let event = events::subscribed(&framework, &self.config.info);
        self.state.frameworks.insert(id.clone(), Arc::new(framework));
        self.count_call(&id, scheduler::call::Type::Subscribe);
        self.send(&id, event, out);
        self.publish_framework(&id, v1::master::event::Type::FrameworkAdded, out);
    }

    fn resubscribe(&mut self, now: Timestamp, id: &FrameworkId, stream: StreamId, checked: Checked, out: &mut Vec<Effect>) {
        let former = self.state.frameworks.get(id).and_then(|it| it.stream.clone());
        if let Some(former) = former {
            self.send(id, events::error("Framework failed over".into()), out);
            self.streams.remove(&former);
            out.push(Effect::CloseStream { stream: former });
        }
        self.timers.cancel(&Timer::Failover(id.clone()));
        self.withdraw(id);
        self.allocator.set_framework_active(id, false);
        let mut info = checked.info;
        info.id = Some(id.to_proto());
        let Some(framework) = self.framework_mut(id) else { return };
        if !framework.recovered {
            // They silently stay what they were.
            info.user.clone_from(&framework.info.user);
            info.checkpoint = framework.info.checkpoint;
        }
        framework.recovered = false;
        framework.reregistered_at = Some(now);
        framework.stream = Some(stream.clone());
        self.streams.insert(stream, id.clone());
        self.describe(id, info, checked.suppressed, checked.wire_constraints, checked.constraints, out);
        self.allocator.set_framework_active(id, true);
        self.count_call(id, scheduler::call::Type::Subscribe);
        if let Some(framework) = self.framework(id) {
            let event = events::subscribed(&framework, &self.config.info);
            self.send(id, event, out);
        }
        self.publish_framework(id, v1::master::event::Type::FrameworkUpdated, out);
    }

    /// Takes in what a framework says of itself now, and tells its agents.
    fn describe(
        &mut self,
        id: &FrameworkId,
        info: v1::FrameworkInfo,
        suppressed: BTreeSet<Role>,
        wire_constraints: Option<scheduler::OfferConstraints>,
        constraints: Arc<Constraints>,
        out: &mut Vec<Effect>,
    ) {
        let Some(framework) = self.framework_mut(id) else { return };
        let changed = *framework.info != info;
        framework.capabilities = FrameworkCapabilities::of(&info);
        framework.roles = Arc::new(roles_of(&info));
        framework.suppressed = Arc::new(suppressed);
        framework.offer_constraints = wire_constraints.map(Arc::new);
        framework.info = Arc::new(info);
        let framework = framework.clone();
        self.allocator.set_framework(id, wants(&framework, constraints));
        // Offers in a role that it has no longer.
        let stale = framework.offers.iter().filter(|it| self.state.offers.get(*it).is_some_and(|it| !framework.roles.contains(&it.role)));
        let stale: Vec<mesos::OfferId> = stale.cloned().collect();
        for offer in &stale {
            self.rescind(offer, out);
        }
        if changed {
            for agent in self.agents_of(&framework) {
                self.tell(&agent, ToAgent::UpdateFramework { framework: framework.info.clone() }, out);
            }
        }
    }

    /// The agents where a framework has something.
    fn agents_of(&self, framework: &Framework) -> BTreeSet<AgentId> {
        let tasks = framework.tasks.values().map(|it| it.agent_id.clone());
        tasks.chain(framework.executors.keys().map(|(agent, _)| agent.clone())).collect()
    }

    /// A framework that this master knows from an agent alone.
    pub(crate) fn recover_framework(&mut self, now: Timestamp, id: &FrameworkId, info: &v1::FrameworkInfo, out: &mut Vec<Effect>) {
        let mut info = info.clone();
        info.id = Some(id.to_proto());
        let mut framework = new_framework(id.clone(), info, now);
        framework.recovered = true;
        self.allocator.set_framework(id, wants(&framework, no_constraints()));
        // Unlike Mesos: one that never comes back does not keep its tasks for ever. It has its time from when all agents should be back.
        let time = failover_time(&framework).max(self.config.agent_reregister_timeout);
        self.timers.set(Timer::Failover(id.clone()), now + time);
        self.state.frameworks.insert(id.clone(), Arc::new(framework));
        self.publish_framework(id, v1::master::event::Type::FrameworkAdded, out);
    }

    /// A stream broke: the framework gets no offers, and has a time to come back.
    pub(crate) fn stream_closed(&mut self, now: Timestamp, stream: &StreamId, out: &mut Vec<Effect>) {
        let Some(id) = self.streams.remove(stream) else { return };
        let Some(framework) = self.framework_mut(&id) else { return };
        framework.stream = None;
        let time = failover_time(framework);
        self.withdraw(&id);
        self.allocator.set_framework_active(&id, false);
        if time.is_zero() {
            self.remove_framework(now, &id, out);
        } else {
            self.timers.set(Timer::Failover(id.clone()), now + time);
        }
    }

    /// Takes back all offers of a framework that cannot be told.
    fn withdraw(&mut self, id: &FrameworkId) {
        let Some(framework) = self.framework(id) else { return };
        for offer in &framework.offers {
            self.take_offer_back(offer, None);
        }
        for offer in &framework.inverse_offers {
            self.forget_inverse_offer(offer);
        }
    }

    /// Ends a framework with everything that it runs.
    pub(crate) fn remove_framework(&mut self, now: Timestamp, id: &FrameworkId, out: &mut Vec<Effect>) {
        self.timers.cancel(&Timer::Failover(id.clone()));
        self.withdraw(id);
        let Some(framework) = self.framework(id) else { return };
        for agent in self.agents_of(&framework) {
            self.tell(&agent, ToAgent::ShutdownFramework { framework_id: id.clone() }, out);
        }
        for task in framework.tasks.values() {
            self.end_with_framework(now, id, &task.id, out);
        }
        for (agent, executor) in framework.executors.keys() {
            self.remove_executor(id, agent, executor);
        }
        for uuid in framework.operations.values() {
            self.disown_operation(uuid);
        }
        self.allocator.remove_framework(id);
        self.inverse_filters.remove(id);
        let Some(mut ended) = self.state.frameworks.remove(id) else { return };
        if let Some(principal) = &ended.info.principal
            && !self.state.frameworks.values().any(|it| it.info.principal.as_ref() == Some(principal))
        {
            self.state.metrics.forget_principal(principal);
        }
        let framework = Arc::make_mut(&mut ended);
        if let Some(stream) = framework.stream.take() {
            self.streams.remove(&stream);
            out.push(Effect::CloseStream { stream });
        }
        framework.unregistered_at = Some(now);
        for task in std::mem::take(&mut framework.unreachable_tasks).into_iter().map(|(_, task)| task) {
            framework.completed_tasks.push_back(task);
        }
        let limit = self.config.max_completed_tasks_per_framework;
        let above = framework.completed_tasks.len().saturating_sub(limit);
        framework.completed_tasks = framework.completed_tasks.split_off(above);
        let info = framework.info.clone();
        self.completed_ids.insert(id.clone(), ());
        self.state.completed_frameworks.push_back(ended);
        while self.state.completed_frameworks.len() > self.config.max_completed_frameworks {
            if let Some(oldest) = self.state.completed_frameworks.pop_front() {
                self.completed_ids.remove(&oldest.id);
            }
        }
        let event = || {
            let removed = v1::master::event::FrameworkRemoved { framework_info: (*info).clone() };
            let kind = v1::master::event::Type::FrameworkRemoved as i32;
            v1::master::Event { r#type: Some(kind), framework_removed: Some(removed), ..Default::default() }
        };
        self.publish(event, out);
    }

    fn end_with_framework(&mut self, now: Timestamp, id: &FrameworkId, task_id: &TaskId, out: &mut Vec<Effect>) {
        let Some(task) = self.state.frameworks.get(id).and_then(|it| it.tasks.get(task_id)).cloned() else { return };
        if !task.is_terminal() {
            let text = format!("Framework {id} removed");
            let mut status = events::status(now, task_id, TaskState::TaskKilled, Reason::FrameworkRemoved, text);
            status.agent_id = Some(task.agent_id.to_proto());
            status.executor_id = task.executor_id.as_ref().map(mesos::ExecutorId::to_proto);
            self.update_task(id, task_id, &status, TaskState::TaskKilled, out);
        }
        self.remove_task(id, task_id, false);
    }

    fn publish_framework(&self, id: &FrameworkId, kind: v1::master::event::Type, out: &mut Vec<Effect>) {
        let Some(framework) = self.state.frameworks.get(id) else { return };
        let event = || {
            let framework = framework.to_proto(&self.state);
            let mut event = v1::master::Event { r#type: Some(kind as i32), ..Default::default() };
            if kind == v1::master::event::Type::FrameworkAdded {
                event.framework_added = Some(v1::master::event::FrameworkAdded { framework });
            } else {
                event.framework_updated = Some(v1::master::event::FrameworkUpdated { framework });
            }
            event
        };
        self.publish(event, out);
    }
}

/// What a framework is to the allocator.
pub(crate) fn wants(framework: &Framework, constraints: Arc<Constraints>) -> Wants {
    let mut min_allocatable: BTreeMap<Role, Vec<Quantities>> = BTreeMap::new();
    for (role, filters) in &framework.info.offer_filters {
        let Some(least) = &filters.min_allocatable_resources else { continue };
        let alternatives = least.quantities.iter().map(|alternative| {
            alternative.quantities.iter().map(|(name, it)| (name.as_str().into(), Scalar::from_f64(it.value))).collect()
        });
        min_allocatable.insert(role.as_str().into(), alternatives.collect());
    }
    Wants {
        roles: framework.roles.clone(),
        suppressed: framework.suppressed.clone(),
        capabilities: framework.capabilities,
        min_allocatable: Arc::new(min_allocatable),
        constraints,
    }
}

/// How long a framework may be away. Checked to be representable when it subscribed.
fn failover_time(framework: &Framework) -> Duration {
    Duration::try_from_secs_f64(framework.info.failover_timeout()).unwrap_or(Duration::ZERO)
}
