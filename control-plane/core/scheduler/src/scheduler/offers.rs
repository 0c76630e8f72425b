//! Offers come, and are answered at once: used for what waits, or declined.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;

use super::timers::Timer;
use super::{Effect, Scheduler};
use crate::constraints::{Place, Placement};
use crate::id::TaskId;
use crate::id::{InstanceId, PathId};
use crate::instance::{AgentInfo, Condition, Instance, Task};
use crate::launch::{Context, Launch, TaskLaunch, app_environment, pod_environment};
use crate::matching::{Match, Policy, Reason, Remaining};
use crate::mesos::{Call, INSTANCE_LABEL, Offer, Operation, Resource, thousandths};
use crate::model::spec::Spec;

/// Apps that are tried on one offer. Where they begin differs from offer to offer, so that everything has its turn.
const SPECS_PER_OFFER: usize = 1_000;
/// Seconds for which an offer is not to come again that may soon be of use.
const SOON: f64 = 5.0;

impl Scheduler {
    pub(super) fn on_offers(&mut self, now: Timestamp, offers: Vec<Offer>, out: &mut Vec<Effect>) {
        let mut placements: BTreeMap<PathId, Placement> = BTreeMap::new();
        let (mut long, mut soon) = (Vec::new(), Vec::new());
        for offer in offers {
            self.totals.offers_incoming += 1;
            let id = offer.id.clone();
            let (operations, full) = self.on_offer(now, offer, &mut placements, out);
            if !operations.is_empty() {
                self.totals.offers_used += 1;
                // What is left is wanted at once when there is more that it could be of use for.
                let refuse_seconds = if full { 0.0 } else { self.config.decline_offer_duration.as_secs_f64() };
                out.push(Effect::Call(Call::Accept { offer_id: id, operations, refuse_seconds }));
            } else {
                self.totals.offers_declined += 1;
                if full { soon.push(id) } else { long.push(id) }
            }
        }
        for (offer_ids, refuse_seconds) in [(long, self.config.decline_offer_duration.as_secs_f64()), (soon, SOON)] {
            if !offer_ids.is_empty() {
                out.push(Effect::Call(Call::Decline { offer_ids, refuse_seconds }));
            }
        }
    }

    /// What one offer is used for, and whether there would be more to use it for, were there no limit.
    fn on_offer(
        &mut self,
        now: Timestamp,
        offer: Offer,
        placements: &mut BTreeMap<PathId, Placement>,
        out: &mut Vec<Effect>,
    ) -> (Vec<Operation>, bool) {
        let mut operations = Vec::new();
        let mut remaining = Remaining::new(offer);
        let shown = Arc::new(remaining.offer.clone());
        if let Some(framework_id) = &self.framework_id {
            let alive = |id: &str| InstanceId::of_label(id).is_some_and(|id| self.instance(&id).is_some());
            let orphaned = remaining.orphaned(framework_id, alive);
            self.given_back(now, &orphaned, out);
            give_back(orphaned, &mut operations);
        }
        let owners: Vec<InstanceId> = self.owners(&shown);
        let waiting = self.order(&shown, &owners);
        let totals = Totals::of(&shown);
        let framework_id = self.framework_id.clone().unwrap_or_default();
        let principal = self.config.principal.clone();
        let home = self.home_region.clone();
        let policy = Policy {
            framework_id: &framework_id,
            principal: principal.as_deref(),
            accepted_roles: self.config.accepted_roles,
            home_region: home.as_deref(),
            gpus_are_scarce: self.config.gpus_are_scarce,
        };
        let (mut launched, mut delayed) = (0, false);
        let mut passes = waiting;
        while !passes.is_empty() {
            let mut again = Vec::new();
            for id in std::mem::take(&mut passes) {
                if launched >= self.config.max_instances_per_offer || self.tokens == 0 {
                    return (operations, true);
                }
                let Some(spec) = self.root.spec(&id).cloned() else { continue };
                if self.delayed_until(now, &spec).is_some() {
                    delayed = true;
                    continue;
                }
                let Some(instance) = self.next_instance(&id, &owners) else { continue };
                // Its definition may be an older one: its deployment's turn has not come yet.
                let spec = instance.spec.clone();
                if instance.reservation.is_none()
                    && let Some(reason) = totals.obviously_lack(&spec)
                {
                    self.offer_unused(now, &id, &shown, vec![reason]);
                    continue;
                }
                let placement = placements.entry(id.clone()).or_insert_with(|| self.placement(&spec));
                let by = now + self.config.draining;
                match remaining.fit(by, &spec, (&instance.id, instance.reservation.as_ref()), placement, policy, &mut self.ids) {
                    Ok(found) => {
                        placement.add(remaining.place());
                        self.offer_used(now, &id);
                        self.launch(now, &instance, found, &remaining.offer, &mut operations, out);
                        launched += 1;
                        again.push(id);
                    }
                    Err(reasons) => self.offer_unused(now, &id, &shown, reasons),
                }
            }
            // What fitted is tried once more; what did not will not fit into less.
            passes = again;
        }
        (operations, delayed)
    }

    /// Instances that something in the offer is reserved for.
    fn owners(&self, offer: &Offer) -> Vec<InstanceId> {
        let mut owners: Vec<InstanceId> = offer
            .resources
            .iter()
            .filter_map(|it| it.label(INSTANCE_LABEL))
            .filter_map(InstanceId::of_label)
            .filter(|id| self.instance(id).is_some_and(|it| it.facts().scheduled))
            .collect();
        owners.dedup();
        owners
    }

    /// Apps to try: owners of reservations, then the others from a random one on.
    fn order(&mut self, offer: &Offer, owners: &[InstanceId]) -> Vec<PathId> {
        let mut order: Vec<PathId> = owners.iter().map(InstanceId::spec).collect();
        let start = self.ids.below(self.queue.len());
        let others = self.queue.iter().skip(start).chain(self.queue.iter().take(start));
        order.extend(others.filter(|(_, entry)| entry.role == offer.role).map(|(id, _)| id.clone()).take(SPECS_PER_OFFER));
        order
    }

    /// Who is launched next: the newest definition first. What waits with an older one may never fit, and must not stand before what replaces it.
    fn next_instance(&self, spec: &PathId, owners: &[InstanceId]) -> Option<Arc<Instance>> {
        let state = self.specs.get(spec)?;
        let newest = state.tallies.iter().rev().find(|(_, tally)| tally.scheduled > 0).map(|(version, _)| *version);
        let of = |id: &InstanceId| state.instances.get(id);
        let owner = owners.iter().find(|id| state.scheduled.contains(*id));
        let free = |it: &Arc<Instance>| it.reservation.is_none();
        let fresh = || state.scheduled.iter().find(|id| of(id).is_some_and(|it| free(it) && Some(it.config_version()) == newest));
        let older = || state.scheduled.iter().find(|id| of(id).is_some_and(free));
        // All others wait for their reservations to be offered.
        let any = || state.scheduled.iter().next();
        owner.or_else(fresh).or_else(older).or_else(any).and_then(of).cloned()
    }

    fn placement(&mut self, spec: &Spec) -> Placement {
        let mut placement = Placement::of(spec, &mut self.patterns);
        if placement.looks_at_others()
            && let Some(state) = self.specs.get(spec.id())
        {
            let compared = |it: &&Arc<Instance>| {
                it.config_version() >= spec.config_version() && it.condition.has_task() && it.condition != Condition::UnreachableInactive
            };
            state
                .instances
                .values()
                .filter(compared)
                .filter_map(|it| it.agent.as_ref())
                .for_each(|agent| placement.add(Place::from(agent)));
        }
        placement
    }

    fn launch(
        &mut self,
        now: Timestamp,
        waiting: &Instance,
        found: Match,
        offer: &Offer,
        operations: &mut Vec<Operation>,
        out: &mut Vec<Effect>,
    ) {
        let mut instance = waiting.clone();
        instance.incarnation += 1;
        instance.condition = Condition::Provisioned;
        instance.since = now;
        instance.active_since = None;
        instance.unreachable_since = None;
        instance.doomed = false;
        instance.role.clone_from(&offer.role);
        instance.reservation = found.held;
        instance.agent = Some(AgentInfo {
            agent_id: offer.agent_id.clone(),
            host: offer.hostname.clone(),
            region: offer.region.clone(),
            zone: offer.zone.clone(),
            attributes: offer.attributes.clone(),
        });
        Self::fresh_checks(&mut instance);
        let mut launches: Vec<TaskLaunch> = Vec::new();
        let names: Vec<String> = match &instance.spec {
            Spec::App(_) => vec![String::new()],
            Spec::Pod(pod) => pod.containers.iter().map(|container| container.name.clone()).collect(),
        };
        for (name, taken) in names.into_iter().zip(found.tasks) {
            let id = if name.is_empty() {
                TaskId::app(&instance.id, instance.incarnation)
            } else {
                TaskId::container(&instance.id, &name, instance.incarnation)
            };
            launches.push(TaskLaunch {
                id,
                container: name,
                resources: taken.resources,
                host_ports: taken.host_ports,
                container_ports: taken.container_ports,
                environment: BTreeMap::new(),
            });
        }
        let top = instance.spec_id().top().map(PathId::absolute);
        let enforces_role = top.and_then(|top| self.root.group(&top)).and_then(|group| group.enforce_role).unwrap_or(false);
        let context = Context { host: &offer.hostname, prefix: &self.config.env_vars_prefix, enforces_role };
        match &instance.spec {
            Spec::App(app) => launches.iter_mut().for_each(|task| task.environment = app_environment(app, task, context)),
            Spec::Pod(pod) => {
                for at in 0..launches.len() {
                    launches[at].environment = pod_environment(pod, &instance.id, at, &launches, context);
                }
            }
        }
        let task = |launch: &TaskLaunch| Task {
            id: launch.id.clone(),
            container: launch.container.clone(),
            state: None,
            host_ports: launch.host_ports.clone(),
            addresses: Vec::new(),
            staged_at: now,
            started_at: None,
            since: now,
            healthy: None,
            check: None,
            message: String::new(),
        };
        instance.tasks = launches.iter().map(task).collect();
        if !found.reserve.is_empty() {
            self.totals.operations_reserve += 1;
            operations.push(Operation::Reserve(found.reserve));
        }
        if !found.create.is_empty() {
            operations.push(Operation::Create(found.create));
        }
        let is_pod = instance.spec.is_pod();
        *(if is_pod { &mut self.totals.operations_launch_group } else { &mut self.totals.operations_launch }) += 1;
        self.totals.tasks_launched += launches.len() as u64;
        operations.push(Operation::Launch(Box::new(Launch {
            instance: instance.id.clone(),
            spec: instance.spec.clone(),
            agent_id: offer.agent_id.clone(),
            host: offer.hostname.clone(),
            role: offer.role.clone(),
            tasks: launches,
            executor_resources: found.executor,
            volumes: found.volumes,
        })));
        self.tokens = self.tokens.saturating_sub(1);
        self.timers.add(
            now + self.config.task_launch_confirm_timeout.max(Duration::from_secs(1)),
            Timer::Launch(instance.id.clone(), instance.incarnation),
        );
        self.put(now, instance, out);
    }
}

/// Volumes first, then what they were made of.
fn give_back(orphaned: Vec<Resource>, operations: &mut Vec<Operation>) {
    if orphaned.is_empty() {
        return;
    }
    let is_volume = |it: &&Resource| it.disk.as_ref().is_some_and(|disk| disk.persistence.is_some());
    let volumes: Vec<Resource> = orphaned.iter().filter(is_volume).cloned().collect();
    if !volumes.is_empty() {
        operations.push(Operation::Destroy(volumes));
    }
    let bare = orphaned.into_iter().map(|mut resource| {
        if let Some(disk) = &mut resource.disk {
            disk.persistence = None;
            disk.container_path = None;
        }
        resource.disk = resource.disk.filter(|disk| disk.source.is_some());
        resource
    });
    operations.push(Operation::Unreserve(bare.collect()));
}

/// Sums of an offer, to see at a glance that it cannot do.
struct Totals {
    cpus: i64,
    mem: i64,
}

impl Totals {
    fn of(offer: &Offer) -> Totals {
        let sum = |name: &str| offer.resources.iter().filter(|it| it.name == name).map(Resource::scalar).sum();
        Totals { cpus: sum("cpus"), mem: sum("mem") }
    }

    fn obviously_lack(&self, spec: &Spec) -> Option<Reason> {
        let needs = spec.needs();
        if thousandths(needs.cpus) > self.cpus {
            Some(Reason::InsufficientCpus)
        } else if thousandths(needs.mem) > self.mem {
            Some(Reason::InsufficientMemory)
        } else {
            None
        }
    }
}
