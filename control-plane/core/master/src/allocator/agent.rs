use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use mesos::{AgentId, Quantities, Resource, Resources};
use mesos_proto::v1;
use smallvec::SmallVec;

use super::sorter::slot;
use super::{Allocator, unreserved};

/// How many different refusals of one agent by one framework in one role are remembered; the oldest is forgotten.
const FILTERS_PER_CLIENT_MAX: usize = 8;

/// An agent as the allocator sees it.
#[derive(Debug)]
pub(super) struct AgentEntry {
    pub(super) id: AgentId,
    pub(super) info: Arc<v1::AgentInfo>,
    /// Connected and not deactivated.
    pub(super) active: bool,
    pub(super) has_gpus: bool,
    /// In another region than the master.
    pub(super) remote: bool,
    /// Allocated to nobody.
    pub(super) total: Resources,
    /// Offered or used, without saying for whom.
    pub(super) allocated: Resources,
    /// Who has what.
    pub(super) held: BTreeMap<u32, Resources>,
    free: Option<Resources>,
    /// Counts changes of what is free.
    version: u64,
    /// By client.
    filters: Vec<SmallVec<[Filter; 1]>>,
    pub(super) next_filter_end: Option<Timestamp>,
    /// The run that looked at it last gave nothing of it to anybody, and the allocator's epoch was this.
    pub(super) settled: u64,
    /// It is among those that wait for being passed on.
    pub(super) refused: bool,
}

/// How many refusals are remembered, by client. Kept along, because counting them takes a walk over all agents and all clients.
#[derive(Debug, Default)]
pub(super) struct FilterCounts(Vec<usize>);

impl FilterCounts {
    fn more(&mut self, client: u32, count: usize) {
        let at = client as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] += count;
    }

    fn less(&mut self, client: u32, count: usize) {
        if let Some(known) = self.0.get_mut(client as usize) {
            *known = known.saturating_sub(count);
        }
    }

    pub(super) fn of(&self, client: u32) -> usize {
        self.0.get(client as usize).copied().unwrap_or(0)
    }
}

#[derive(Clone, Debug)]
struct Filter {
    resources: Arc<Resources>,
    ends: Timestamp,
    /// The version of what is free at which this covered all of it.
    covers: u64,
}

impl AgentEntry {
    /// What is neither offered nor used. Of shared volumes, all.
    pub(super) fn free(&mut self) -> &mut Resources {
        let (total, allocated) = (&self.total, &self.allocated);
        self.free.get_or_insert_with(|| {
            if !total.iter().any(Resource::is_shared) {
                return total.minus(allocated);
            }
            let mut free = total.filter(|it| !it.is_shared()).minus(allocated);
            free.add_all(&total.filter(Resource::is_shared));
            free
        })
    }

    fn changed(&mut self) {
        self.free = None;
        self.version += 1;
        self.settled = 0;
    }

    /// Adds to what a client has: how much more of the cluster that is, and whether it had nothing before.
    pub(super) fn allocate(&mut self, client: u32, resources: &Resources) -> (Quantities, bool) {
        let held = self.held.entry(client).or_default();
        let first = held.is_empty();
        let before = shared_quantities(held);
        held.add_all(resources);
        let mut more = resources.quantities_of(|it| !it.is_shared());
        more.add_all(&shared_quantities(held));
        more.subtract_all(&before);
        let unallocated = resources.unallocated();
        self.allocated.add_all(&unallocated);
        let free = self.free.take();
        self.changed();
        self.free = free.map(|mut free| {
            for resource in unallocated.iter().filter(|it| !it.is_shared()) {
                free.subtract(resource);
            }
            free
        });
        (more, first && !resources.is_empty())
    }

    /// The opposite of [`AgentEntry::allocate`].
    pub(super) fn recover(&mut self, client: u32, resources: &Resources) -> (Quantities, bool) {
        let Some(held) = self.held.get_mut(&client) else { return (Quantities::new(), false) };
        let before = shared_quantities(held);
        held.subtract_all(resources);
        let mut less = resources.quantities_of(|it| !it.is_shared());
        less.add_all(&before);
        less.subtract_all(&shared_quantities(held));
        let last = held.is_empty();
        if last {
            self.held.remove(&client);
        }
        self.allocated.subtract_all(&resources.unallocated());
        self.changed();
        (less, last)
    }

    /// Remembers a refusal. Gives back when the next filter was to end, if that is another moment now.
    pub(super) fn refuse(&mut self, client: u32, resources: &Resources, ends: Timestamp, counts: &mut FilterCounts) -> Option<Timestamp> {
        let at = client as usize;
        if self.filters.len() <= at {
            self.filters.resize_with(at + 1, SmallVec::new);
        }
        let filters = &mut self.filters[at];
        counts.less(client, filters.len());
        // A refusal of more, for longer, covers one of less.
        filters.retain(|filter| !(filter.ends <= ends && resources.contains(&filter.resources)));
        if filters.len() >= FILTERS_PER_CLIENT_MAX {
            filters.remove(0);
        }
        filters.push(Filter { resources: Arc::new(resources.clone()), ends, covers: 0 });
        counts.more(client, filters.len());
        let before = self.next_filter_end;
        let next = before.map_or(ends, |before| before.min(ends));
        self.next_filter_end = Some(next);
        before.filter(|before| *before != next)
    }

    pub(super) fn expire_filters(&mut self, now: Timestamp, counts: &mut FilterCounts) {
        for (client, filters) in self.filters.iter_mut().enumerate() {
            let before = filters.len();
            filters.retain(|filter| filter.ends > now);
            counts.less(slot(client), before - filters.len());
        }
        self.next_filter_end = self.filters.iter().flatten().map(|filter| filter.ends).min();
        self.settled = 0;
    }

    pub(super) fn forget_filters_of(&mut self, client: u32, counts: &mut FilterCounts) {
        if let Some(filters) = self.filters.get_mut(client as usize)
            && !filters.is_empty()
        {
            counts.less(client, filters.len());
            *filters = SmallVec::new();
            self.settled = 0;
        }
    }

    /// What was refused is forgotten: the agent is another one now.
    fn forget_filters(&mut self, counts: &mut FilterCounts) {
        for (client, filters) in std::mem::take(&mut self.filters).iter().enumerate() {
            counts.less(slot(client), filters.len());
        }
        self.settled = 0;
    }

    /// Whether the client refused everything that it could be offered, as was found before.
    pub(super) fn is_known_filtered(&self, client: u32) -> bool {
        let filters = self.filters.get(client as usize);
        filters.is_some_and(|filters| filters.iter().any(|filter| filter.covers == self.version))
    }

    /// Whether the client refused what it would be offered. `remember`: that is all it could be offered while the agent is as it is.
    pub(super) fn is_filtered(&mut self, client: u32, offered: &Resources, remember: bool) -> bool {
        let Some(filters) = self.filters.get_mut(client as usize) else { return false };
        for filter in filters.iter_mut() {
            if filter.covers == self.version {
                return true;
            }
            if filter.resources.contains(offered) {
                if remember {
                    filter.covers = self.version;
                }
                return true;
            }
        }
        false
    }

    /// What the client could be offered may be more now.
    pub(super) fn recheck_filters_of(&mut self, client: u32) {
        for filter in self.filters.get_mut(client as usize).into_iter().flatten() {
            filter.covers = 0;
        }
    }
}

/// What a client has of shared volumes counts once.
fn shared_quantities(held: &Resources) -> Quantities {
    held.quantities_of(Resource::is_shared)
}

impl Allocator {
    /// Adds an agent, or takes in what it is now; what is allocated stays.
    pub(crate) fn set_agent(&mut self, id: &AgentId, info: &Arc<v1::AgentInfo>, total: &Resources) {
        let region = info.domain.as_ref().and_then(|it| it.fault_domain.as_ref()).map(|it| it.region.name.as_str());
        let remote = region.is_some() && region != self.options.region.as_deref();
        let at = match self.agent_slots.get(id) {
            Some(at) => *at,
            None => {
                let entry = AgentEntry {
                    id: id.clone(),
                    info: info.clone(),
                    active: false,
                    has_gpus: false,
                    remote: false,
                    total: Resources::new(),
                    allocated: Resources::new(),
                    held: BTreeMap::new(),
                    free: None,
                    version: 1,
                    filters: Vec::new(),
                    next_filter_end: None,
                    settled: 0,
                    refused: false,
                };
                let at = slot(self.agents.insert(entry));
                self.agent_slots.insert(id.clone(), at);
                at
            }
        };
        let entry = &mut self.agents[at as usize];
        let changed = entry.total != *total;
        if changed || entry.info.attributes != info.attributes {
            entry.forget_filters(&mut self.filter_counts);
        }
        entry.info = info.clone();
        entry.remote = remote;
        if changed {
            self.change_total(at, total.clone());
        }
        self.candidates.insert(at);
        self.epoch += u64::from(self.has_quota());
    }

    fn change_total(&mut self, at: u32, total: Resources) {
        let entry = &mut self.agents[at as usize];
        let before = std::mem::replace(&mut entry.total, total.clone());
        entry.has_gpus = total.scalar("gpus").is_positive();
        entry.changed();
        self.totals.change(&before.quantities(), &total.quantities());
        for (resources, plus) in [(&before, false), (&total, true)] {
            for resource in resources.iter().filter(|it| !it.amount().is_zero()) {
                let Some(role) = resource.reserved_role() else { continue };
                let amount = Quantities::from_iter([(resource.name().clone(), resource.amount())]);
                let reserved = &mut self.quota_entry(role.top_level()).reserved;
                if plus { reserved.add_all(&amount) } else { reserved.subtract_all(&amount) }
            }
        }
        self.quotas.retain(|_, quota| !quota.is_empty());
    }

    /// Offer operations changed the agent: its total, and what a framework has of it.
    pub(crate) fn convert(&mut self, agent: &AgentId, total: &Resources) {
        let Some(&at) = self.agent_slots.get(agent) else { return };
        if self.agents[at as usize].total != *total {
            self.change_total(at, total.clone());
            self.epoch += u64::from(self.has_quota());
        }
    }

    pub(crate) fn set_agent_active(&mut self, id: &AgentId, active: bool) {
        let Some(&at) = self.agent_slots.get(id) else { return };
        let entry = &mut self.agents[at as usize];
        if active && !entry.active {
            entry.settled = 0;
            self.candidates.insert(at);
        }
        entry.active = active;
    }

    /// Looks at the agent in the next event-driven run.
    pub(crate) fn wake_agent(&mut self, id: &AgentId) {
        if let Some(&at) = self.agent_slots.get(id) {
            self.agents[at as usize].settled = 0;
            self.candidates.insert(at);
        }
    }

    /// Removes an agent and whatever anybody has of it.
    pub(crate) fn remove_agent(&mut self, id: &AgentId) {
        let Some(at) = self.agent_slots.remove(id) else { return };
        let held = std::mem::take(&mut self.agents[at as usize].held);
        for (client, resources) in held {
            self.agents[at as usize].held.insert(client, resources.clone());
            self.recover_client(client, at, &resources);
        }
        self.change_total(at, Resources::new());
        let mut entry = self.agents.remove(at as usize);
        entry.forget_filters(&mut self.filter_counts);
        if let Some(end) = entry.next_filter_end {
            self.filter_ends.remove(&(end, at));
        }
        self.candidates.remove(&at);
    }

    /// What no quota and no reservation holds: for the headroom of guarantees.
    pub(super) fn free_unreserved(&mut self) -> Quantities {
        let mut sum = Quantities::new();
        for (_, agent) in &mut self.agents {
            let free = agent.free().clone();
            sum.add_all(&unreserved(&free));
        }
        sum
    }
}

/// The effective time of a refusal: not below the time between two runs, not above a year.
pub(crate) fn refusal_time(seconds: Option<f64>, interval: Duration) -> Option<Duration> {
    const DEFAULT: f64 = 5.0;
    const LONGEST: f64 = 365.0 * 24.0 * 3600.0;
    let seconds = match seconds {
        Some(seconds) if seconds.is_nan() || seconds < 0.0 => DEFAULT,
        Some(seconds) => seconds.min(LONGEST),
        None => DEFAULT,
    };
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds).max(interval))
}
