//! The hierarchical allocator: who is offered what of which agent.
//!
//! Roles are ordered by their dominant share in the tree of roles, the frameworks of a role by theirs. Quotas of top-level roles guarantee and
//! limit; reservations, filters, constraints and capabilities narrow what a framework may get.
//!
//! Everything is named by small numbers here; the tables that a run walks are dense, and what it changes is mended in logarithmic time. An agent
//! that nobody wanted is not looked at again before something changes that could make somebody want it.

mod agent;
mod constraints;
mod quota;
mod run;
mod sorter;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::{DenseMap, Timestamp};
use mesos::{AgentId, FrameworkId, Quantities, Resources, Role};
use mesos_proto::v1;
use slab::Slab;

pub(crate) use agent::refusal_time;
pub(crate) use constraints::{Constraints, none as no_constraints};
pub(crate) use run::{HandOut, next_random};

use crate::limits::Limiter;
use crate::{FrameworkCapabilities, Rate, Sorter};
use agent::{AgentEntry, FilterCounts};
use quota::QuotaEntry;
use sorter::{FrameworkSorter, RoleSorter, Totals, slot};

/// How many agents whose offers were refused are offered to the next one without waiting for the next run over all. What a cluster whose
/// frameworks refuse everything costs is bounded by it.
const PASSED_ON: Rate = Rate { permits: 250, per: Duration::from_millis(100) };

/// What of the configuration decides offers.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) min_allocatable: Vec<Quantities>,
    pub(crate) filter_gpu_resources: bool,
    pub(crate) role_sorter: Sorter,
    pub(crate) framework_sorter: Sorter,
    /// Of the master: agents elsewhere are remote.
    pub(crate) region: Option<String>,
    pub(crate) seed: u64,
}

/// What a framework is to the allocator.
#[derive(Clone, Debug)]
pub(crate) struct Wants {
    pub(crate) roles: Arc<BTreeSet<Role>>,
    pub(crate) suppressed: Arc<BTreeSet<Role>>,
    pub(crate) capabilities: FrameworkCapabilities,
    /// By role: alternatives of what an offer must at least have. A role without an entry takes the master's.
    pub(crate) min_allocatable: Arc<BTreeMap<Role, Vec<Quantities>>>,
    pub(crate) constraints: Arc<Constraints>,
}

#[derive(Debug)]
struct FrameworkEntry {
    id: FrameworkId,
    name: Arc<str>,
    wants: Wants,
    active: bool,
    /// Its clients by role.
    clients: BTreeMap<u32, u32>,
}

/// A framework in a role.
#[derive(Debug)]
struct ClientEntry {
    framework: u32,
    role: u32,
    /// On how many agents it has something.
    held: u32,
    /// Alternatives of what an offer must at least have.
    min_allocatable: Option<Vec<Quantities>>,
}

#[derive(Debug)]
struct RoleEntry {
    role: Role,
    node: u32,
    top: Arc<str>,
    sorter: FrameworkSorter,
}

/// The allocator.
#[derive(Debug)]
pub(crate) struct Allocator {
    options: Options,
    agents: Slab<AgentEntry>,
    agent_slots: DenseMap<AgentId, u32>,
    frameworks: Slab<FrameworkEntry>,
    framework_slots: DenseMap<FrameworkId, u32>,
    clients: Slab<ClientEntry>,
    roles: Slab<RoleEntry>,
    role_slots: BTreeMap<Role, u32>,
    role_sorter: RoleSorter,
    totals: Totals,
    /// Of every top-level role that has something or is promised something.
    quotas: BTreeMap<Arc<str>, QuotaEntry>,
    weights: imbl::OrdMap<String, f64>,
    /// Counts what could make a framework want an agent that it did not want before.
    epoch: u64,
    /// The only hosts that are offered.
    whitelist: Option<BTreeSet<String>>,
    /// Agents that an event-driven run looks at.
    candidates: BTreeSet<u32>,
    all_candidates: bool,
    /// Agents of which somebody refused something since they were looked at, oldest first.
    refused: VecDeque<u32>,
    passed_on: Limiter,
    filter_counts: FilterCounts,
    /// When filters end, per agent the next.
    filter_ends: BTreeSet<(Timestamp, u32)>,
    random: u64,
    /// Nothing is offered before enough agents are back.
    pub(crate) paused: bool,
    pub(crate) runs: u64,
    /// Of how many agents the last run looked for a taker: what it cost. Full ones cost next to nothing.
    pub(crate) looked_at: usize,
}

impl Allocator {
    pub(crate) fn new(options: Options, excluded: BTreeSet<String>) -> Self {
        Allocator {
            random: options.seed,
            options,
            agents: Slab::new(),
            agent_slots: DenseMap::default(),
            frameworks: Slab::new(),
            framework_slots: DenseMap::default(),
            clients: Slab::new(),
            roles: Slab::new(),
            role_slots: BTreeMap::new(),
            role_sorter: RoleSorter::default(),
            totals: Totals::new(excluded),
            quotas: BTreeMap::new(),
            weights: imbl::OrdMap::new(),
            epoch: 1,
            whitelist: None,
            candidates: BTreeSet::new(),
            all_candidates: false,
            refused: VecDeque::new(),
            passed_on: Limiter::bursting(PASSED_ON),
            filter_counts: FilterCounts::default(),
            filter_ends: BTreeSet::new(),
            paused: false,
            runs: 0,
            looked_at: 0,
        }
    }

    // ---- frameworks ----

    /// Adds a framework, or takes in what it wants now.
    pub(crate) fn set_framework(&mut self, id: &FrameworkId, wants: Wants) {
        let at = match self.framework_slots.get(id) {
            Some(at) => *at,
            None => {
                let entry = FrameworkEntry {
                    id: id.clone(),
                    name: id.as_str().into(),
                    wants: wants.clone(),
                    active: false,
                    clients: BTreeMap::new(),
                };
                let at = slot(self.frameworks.insert(entry));
                self.framework_slots.insert(id.clone(), at);
                at
            }
        };
        self.frameworks[at as usize].wants = wants.clone();
        for role in wants.roles.iter() {
            let client = self.client(at, role);
            self.clients[client as usize].min_allocatable = wants.min_allocatable.get(role).cloned();
            for (_, agent) in &mut self.agents {
                agent.recheck_filters_of(client);
            }
        }
        self.settle_clients(at);
        self.wake_all();
    }

    /// Whether the framework gets offers. When it does not, what it refused is forgotten.
    pub(crate) fn set_framework_active(&mut self, id: &FrameworkId, active: bool) {
        let Some(&at) = self.framework_slots.get(id) else { return };
        self.frameworks[at as usize].active = active;
        if active {
            self.wake_all();
        } else {
            let clients: Vec<u32> = self.frameworks[at as usize].clients.values().copied().collect();
            for client in clients {
                self.forget_filters(client);
            }
        }
        self.settle_clients(at);
    }

    pub(crate) fn remove_framework(&mut self, id: &FrameworkId) {
        let Some(at) = self.framework_slots.remove(id) else { return };
        let clients: Vec<u32> = self.frameworks[at as usize].clients.values().copied().collect();
        for client in clients {
            self.forget_filters(client);
            if self.clients.get(client as usize).is_some_and(|it| it.held > 0) {
                let holding: Vec<u32> =
                    self.agents.iter().filter(|(_, it)| it.held.contains_key(&client)).map(|(at, _)| slot(at)).collect();
                for agent in holding {
                    let held = self.agents[agent as usize].held.get(&client).cloned().unwrap_or_default();
                    self.recover_client(client, agent, &held);
                }
            }
            if self.clients.contains(client as usize) {
                self.remove_client(client);
            }
        }
        self.frameworks.remove(at as usize);
    }

    /// Takes offers again for `roles` (all, when empty), whatever was refused before.
    pub(crate) fn revive(&mut self, id: &FrameworkId, roles: &[Role], suppressed: Arc<BTreeSet<Role>>) {
        let Some(&at) = self.framework_slots.get(id) else { return };
        let framework = &mut self.frameworks[at as usize];
        framework.wants.suppressed = suppressed;
        let clients: Vec<(u32, u32)> = framework.clients.iter().map(|(role, client)| (*role, *client)).collect();
        for (role, client) in clients {
            if roles.is_empty() || roles.contains(&self.roles[role as usize].role) {
                self.forget_filters(client);
            }
        }
        self.settle_clients(at);
        self.wake_all();
    }

    pub(crate) fn suppress(&mut self, id: &FrameworkId, suppressed: Arc<BTreeSet<Role>>) {
        let Some(&at) = self.framework_slots.get(id) else { return };
        self.frameworks[at as usize].wants.suppressed = suppressed;
        self.settle_clients(at);
    }

    /// Makes the sorters agree with what a framework wants, and forgets clients that neither want nor have anything.
    fn settle_clients(&mut self, at: u32) {
        let framework = &self.frameworks[at as usize];
        let clients: Vec<(u32, u32)> = framework.clients.iter().map(|(role, client)| (*role, *client)).collect();
        for (role, client) in clients {
            let framework = &self.frameworks[at as usize];
            let entry = &mut self.roles[role as usize];
            let wanted = framework.wants.roles.contains(&entry.role);
            let active = framework.active && wanted && !framework.wants.suppressed.contains(&entry.role);
            entry.sorter.set_active(client, active);
            if !wanted && self.clients[client as usize].held == 0 {
                self.forget_filters(client);
                self.remove_client(client);
            }
        }
    }

    fn client(&mut self, framework: u32, role: &Role) -> u32 {
        let role_slot = match self.role_slots.get(role) {
            Some(at) => *at,
            None => {
                let entry = self.roles.vacant_entry();
                let at = slot(entry.key());
                let node = self.role_sorter.add(role, at, &self.weights);
                entry.insert(RoleEntry { role: role.clone(), node, top: role.top_level().into(), sorter: FrameworkSorter::default() });
                self.role_slots.insert(role.clone(), at);
                at
            }
        };
        if let Some(client) = self.frameworks[framework as usize].clients.get(&role_slot) {
            return *client;
        }
        let client = slot(self.clients.insert(ClientEntry { framework, role: role_slot, held: 0, min_allocatable: None }));
        let framework = &mut self.frameworks[framework as usize];
        framework.clients.insert(role_slot, client);
        self.roles[role_slot as usize].sorter.add(client, &framework.name);
        client
    }

    fn remove_client(&mut self, client: u32) {
        let entry = self.clients.remove(client as usize);
        if let Some(framework) = self.frameworks.get_mut(entry.framework as usize) {
            framework.clients.remove(&entry.role);
        }
        let role = &mut self.roles[entry.role as usize];
        role.sorter.remove(client);
        if role.sorter.is_empty() {
            let role = self.roles.remove(entry.role as usize);
            self.role_slots.remove(&role.role);
            self.role_sorter.remove(role.node);
        }
    }

    // ---- weights and quotas ----

    pub(crate) fn set_weight(&mut self, role: &str, weight: f64) {
        self.weights.insert(role.to_owned(), weight);
        self.role_sorter.set_weight(role, weight);
    }

    pub(crate) fn set_quota(&mut self, role: &str, quota: Option<&v1::quota::QuotaConfig>) {
        self.quota_entry(role).set(quota);
        self.forget_empty_quota(role);
        self.epoch += 1;
    }

    fn quota_entry(&mut self, top: &str) -> &mut QuotaEntry {
        // Looked up first: the name is copied for new roles alone.
        if !self.quotas.contains_key(top) {
            self.quotas.insert(top.into(), QuotaEntry::default());
        }
        self.quotas.entry(top.into()).or_default()
    }

    fn forget_empty_quota(&mut self, top: &str) {
        if self.quotas.get(top).is_some_and(QuotaEntry::is_empty) {
            self.quotas.remove(top);
        }
    }

    /// What a top-level role's quota counts as consumed.
    pub(crate) fn consumed(&self, top: &str) -> Quantities {
        self.quotas.get(top).map(QuotaEntry::consumed).unwrap_or_default()
    }

    /// Whether any quota is set.
    fn has_quota(&self) -> bool {
        self.quotas.values().any(QuotaEntry::is_set)
    }

    // ---- allocations ----

    /// A framework has `resources` (each with the role that it is allocated to) of an agent, offered or used.
    pub(crate) fn allocate(&mut self, framework: &FrameworkId, agent: &AgentId, resources: &Resources) {
        let (Some(&framework), Some(&agent)) = (self.framework_slots.get(framework), self.agent_slots.get(agent)) else { return };
        if let Some(role) = resources.single_allocation() {
            let client = self.client(framework, role);
            self.allocate_client(client, agent, resources);
            return;
        }
        for (role, part) in by_role(resources) {
            let client = self.client(framework, &role);
            self.allocate_client(client, agent, &part);
        }
    }

    fn allocate_client(&mut self, client: u32, agent: u32, resources: &Resources) {
        let entry = &mut self.agents[agent as usize];
        let (more, first) = entry.allocate(client, resources);
        let ClientEntry { role, .. } = self.clients[client as usize];
        self.clients[client as usize].held += u32::from(first);
        let role = &mut self.roles[role as usize];
        role.sorter.allocated(client, &more, &self.totals);
        self.role_sorter.allocated(role.node, &more, &self.totals);
        let more = unreserved(resources);
        match self.quotas.get_mut(&role.top) {
            Some(quota) => quota.allocated.add_all(&more),
            None if more.is_empty() => {}
            None => {
                self.quotas.insert(role.top.clone(), QuotaEntry { allocated: more, ..QuotaEntry::default() });
            }
        }
    }

    /// A framework no longer has `resources` of an agent. With `refuse` it wants no subset of them for that long.
    pub(crate) fn recover(
        &mut self,
        framework: &FrameworkId,
        agent: &AgentId,
        resources: &Resources,
        refuse: Option<(Timestamp, Duration)>,
    ) {
        let (Some(&framework), Some(&agent)) = (self.framework_slots.get(framework), self.agent_slots.get(agent)) else { return };
        let parts = match resources.single_allocation() {
            Some(role) => vec![(role.clone(), std::borrow::Cow::Borrowed(resources))],
            None => by_role(resources).into_iter().map(|(role, part)| (role, std::borrow::Cow::Owned(part))).collect(),
        };
        for (role, part) in parts {
            let Some(&role_slot) = self.role_slots.get(&role) else { continue };
            let Some(&client) = self.frameworks[framework as usize].clients.get(&role_slot) else { continue };
            self.recover_client(client, agent, &part);
            if !self.clients.contains(client as usize) {
                continue;
            }
            if let Some((now, time)) = refuse
                && self.roles[role_slot as usize].sorter.is_active(client)
            {
                let ends = now + time;
                let entry = &mut self.agents[agent as usize];
                if let Some(before) = entry.refuse(client, &part.unallocated(), ends, &mut self.filter_counts) {
                    self.filter_ends.remove(&(before, agent));
                }
                if let Some(next) = entry.next_filter_end {
                    self.filter_ends.insert((next, agent));
                }
                if !part.is_empty() && !std::mem::replace(&mut entry.refused, true) {
                    self.refused.push_back(agent);
                }
            }
        }
    }

    fn recover_client(&mut self, client: u32, agent: u32, resources: &Resources) {
        let entry = &mut self.agents[agent as usize];
        let (less, last) = entry.recover(client, resources);
        let ClientEntry { role, framework, .. } = self.clients[client as usize];
        self.clients[client as usize].held -= u32::from(last);
        let role = &mut self.roles[role as usize];
        role.sorter.unallocated(client, &less, &self.totals);
        self.role_sorter.unallocated(role.node, &less, &self.totals);
        let top = role.top.clone();
        if let Some(quota) = self.quotas.get_mut(&top) {
            quota.allocated.subtract_all(&unreserved(resources));
        }
        self.forget_empty_quota(&top);
        if last && !self.frameworks[framework as usize].wants.roles.contains(&self.role_of(client)) {
            self.settle_clients(framework);
        }
    }

    fn role_of(&self, client: u32) -> Role {
        self.roles[self.clients[client as usize].role as usize].role.clone()
    }

    // ---- when to run ----

    fn wake_all(&mut self) {
        self.epoch += 1;
        self.all_candidates = true;
    }

    pub(crate) fn set_whitelist(&mut self, hostnames: Option<BTreeSet<String>>) {
        self.whitelist = hostnames;
        self.wake_all();
    }

    /// Whether an event-driven run is due.
    pub(crate) fn wants_run(&self) -> bool {
        !self.paused && (self.all_candidates || !self.candidates.is_empty() || !self.refused.is_empty())
    }

    fn expire_filters(&mut self, now: Timestamp) {
        while let Some(&(at, agent)) = self.filter_ends.first() {
            if at > now {
                break;
            }
            self.filter_ends.pop_first();
            let entry = &mut self.agents[agent as usize];
            entry.expire_filters(now, &mut self.filter_counts);
            if let Some(next) = entry.next_filter_end {
                self.filter_ends.insert((next, agent));
            }
        }
    }

    fn forget_filters(&mut self, client: u32) {
        for (_, agent) in &mut self.agents {
            agent.forget_filters_of(client, &mut self.filter_counts);
        }
    }

    // ---- what is read ----

    /// How many refusals are remembered, by role.
    pub(crate) fn offer_filters(&self) -> BTreeMap<Role, usize> {
        let mut counts = vec![0; self.roles.capacity()];
        for (client, entry) in &self.clients {
            counts[entry.role as usize] += self.filter_counts.of(slot(client));
        }
        self.role_slots.iter().map(|(role, at)| (role.clone(), counts[*at as usize])).collect()
    }

    /// What is offered or used of all agents; a shared volume counts once for each role.
    pub(crate) fn allocated(&self) -> Quantities {
        self.role_sorter.allocated_to_all()
    }

    /// What is offered to or used by a role and those below it, reserved or not.
    pub(crate) fn allocated_to(&self, role: &str) -> Quantities {
        self.role_sorter.allocated_to(role)
    }

    /// Dominant shares of the roles, weighed.
    pub(crate) fn shares(&self) -> BTreeMap<Role, f64> {
        self.role_slots.iter().map(|(role, at)| (role.clone(), self.role_sorter.share(self.roles[*at as usize].node))).collect()
    }

    pub(crate) fn total(&self) -> &Quantities {
        self.totals.amounts()
    }

    /// What of an agent is neither offered nor used.
    pub(crate) fn free_on(&mut self, agent: &AgentId) -> Resources {
        self.agent_slots.get(agent).map(|at| self.agents[*at as usize].free().clone()).unwrap_or_default()
    }
}

/// The parts of `resources` by the role that they are allocated to.
fn by_role(resources: &Resources) -> Vec<(Role, Resources)> {
    let mut parts: BTreeMap<Role, Resources> = BTreeMap::new();
    for resource in resources {
        if let Some(role) = resource.allocated_role() {
            parts.entry(role.clone()).or_default().add(resource.clone());
        }
    }
    parts.into_iter().collect()
}

/// The scalars that quota counts when they are allocated; what is reserved counts whether or not it is.
fn unreserved(resources: &Resources) -> Quantities {
    resources.quantities_of(|it| !it.is_reserved() && !it.is_revocable())
}
