use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::ControlFlow;

use base::Timestamp;
use mesos::{AgentId, FrameworkId, Quantities, Resource, Resources, Role, Scalar, Value};

use super::agent::AgentEntry;
use super::sorter::slot;
use super::{Allocator, FrameworkEntry, Options, unreserved};
use crate::Sorter;

/// What one framework gets of one agent for one role. It is allocated already.
#[derive(Debug)]
pub(crate) struct HandOut {
    pub(crate) framework: FrameworkId,
    pub(crate) role: Role,
    pub(crate) agent: AgentId,
    /// Allocated to the role.
    pub(crate) resources: Resources,
}

/// What was given of one agent, before the sorters know.
type Given = Vec<(u32, Resources)>;

/// What is left for those without a claim, while any role is promised something.
struct Headroom {
    available: Quantities,
    required: Quantities,
}

impl Allocator {
    /// Offers every agent.
    pub(crate) fn run_all(&mut self, now: Timestamp) -> Vec<HandOut> {
        self.all_candidates = true;
        self.run(now)
    }

    /// Offers the agents that something happened to.
    pub(crate) fn run(&mut self, now: Timestamp) -> Vec<HandOut> {
        if self.paused {
            return Vec::new();
        }
        self.expire_filters(now);
        let all = std::mem::take(&mut self.all_candidates);
        let mut some = std::mem::take(&mut self.candidates);
        self.pass_on(now, all, &mut some);
        let epoch = self.epoch;
        let whitelist = self.whitelist.as_ref();
        let looked_at =
            |agent: &AgentEntry| agent.active && agent.settled != epoch && whitelist.is_none_or(|it| it.contains(&agent.info.hostname));
        let mut candidates: Vec<u32> = if all {
            self.agents.iter().filter(|(_, agent)| looked_at(agent)).map(|(at, _)| slot(at)).collect()
        } else {
            some.into_iter().filter(|at| self.agents.get(*at as usize).is_some_and(&looked_at)).collect()
        };
        self.runs += 1;
        self.looked_at = 0;
        self.role_sorter.sort(&self.totals);
        for (_, role) in &mut self.roles {
            role.sorter.sort(&self.totals);
        }
        if !self.roles.iter().any(|(_, role)| role.sorter.any_active()) {
            return Vec::new();
        }
        let mut given: BTreeMap<(u32, u32), Resources> = BTreeMap::new();
        let mut headroom = self.headroom();
        if let Some(headroom) = &mut headroom {
            self.shuffle(&mut candidates);
            for agent in &candidates {
                self.guarantee(*agent, headroom, &mut given);
            }
        }
        self.shuffle(&mut candidates);
        for agent in &candidates {
            self.offer_agent(*agent, &mut headroom, &mut given);
        }
        // Together what goes to one framework: by small numbers, which sort faster than names.
        let mut given: Vec<((u32, u32), Resources)> = given.into_iter().collect();
        given.sort_by_key(|((agent, client), _)| (self.clients[*client as usize].framework, *agent, *client));
        let hand_outs = given.into_iter().map(|((agent, client), resources)| {
            let client = &self.clients[client as usize];
            HandOut {
                framework: self.frameworks[client.framework as usize].id.clone(),
                role: self.roles[client.role as usize].role.clone(),
                agent: self.agents[agent as usize].id.clone(),
                resources,
            }
        });
        hand_outs.collect()
    }

    /// Moves agents of which somebody refused something to those that are looked at: all of them, or as many as may be.
    fn pass_on(&mut self, now: Timestamp, all: bool, candidates: &mut BTreeSet<u32>) {
        while !self.refused.is_empty() && (all || self.passed_on.take(now).is_ok()) {
            let Some(at) = self.refused.pop_front() else { return };
            // Another agent may have the number by now.
            if let Some(agent) = self.agents.get_mut(at as usize).filter(|it| it.refused) {
                agent.refused = false;
                candidates.insert(at);
            }
        }
    }

    fn headroom(&mut self) -> Option<Headroom> {
        if !self.quotas.values().any(|quota| !quota.guarantees.is_empty()) {
            return None;
        }
        let mut required = Quantities::new();
        for quota in self.quotas.values() {
            required.add_all(&quota.missing());
        }
        Some(Headroom { available: self.free_unreserved(), required })
    }

    /// Second stage: everything that is left of an agent, to whoever is next and wants it.
    fn offer_agent(&mut self, at: u32, headroom: &mut Option<Headroom>, given: &mut BTreeMap<(u32, u32), Resources>) {
        let free = self.agents[at as usize].free();
        if free.is_empty() {
            return;
        }
        self.looked_at += 1;
        self.reshuffle();
        let limited = headroom.is_some() || self.quotas.values().any(|quota| quota.limits.is_some());
        let free = self.agents[at as usize].free();
        let plain = !free.iter().any(|it| it.is_reserved() || it.is_shared() || it.is_revocable());
        if plain && !limited {
            self.offer_whole(at, given);
        } else {
            self.offer_parts(at, limited, headroom, given);
        }
    }

    /// The common case: whoever wants anything gets everything, and every role may have it.
    fn offer_whole(&mut self, at: u32, given: &mut BTreeMap<(u32, u32), Resources>) {
        let Allocator { agents, roles, clients, frameworks, role_sorter, options, .. } = &mut *self;
        let agent = &mut agents[at as usize];
        let free = std::mem::take(agent.free());
        let enough = is_allocatable(&free, &options.min_allocatable);
        let mut taker = None;
        role_sorter.visit(&mut |role_slot| {
            let role = &roles[role_slot as usize];
            for client in role.sorter.iter() {
                let entry = &clients[client as usize];
                let framework = &frameworks[entry.framework as usize];
                let enough = entry.min_allocatable.as_deref().map_or(enough, |least| is_allocatable(&free, least));
                if enough && may_have(agent, framework, &role.role, options) && !agent.is_filtered(client, &free, true) {
                    taker = Some((client, role_slot));
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        let offer = taker.map(|(client, role)| (client, free.allocated_to(&roles[role as usize].role)));
        *agent.free() = free;
        match offer {
            Some((client, offer)) => self.take(at, vec![(client, offer)], &mut None, given),
            None => self.agents[at as usize].settled = self.epoch,
        }
    }

    /// The general case: reservations, shared and revocable resources, quotas.
    fn offer_parts(&mut self, at: u32, limited: bool, headroom: &mut Option<Headroom>, given: &mut BTreeMap<(u32, u32), Resources>) {
        let mut left = self.agents[at as usize].free().clone();
        // Shared volumes that somebody gets in this run are not offered to others in it.
        for resources in given.range((at, 0)..=(at, u32::MAX)).map(|(_, resources)| resources) {
            left = left.filter(|it| !it.is_shared() || !resources.iter().any(|other| other.is_shared() && other.disk() == it.disk()));
        }
        let mut mine: Given = Vec::new();
        let mut room_taken = Quantities::new();
        let epoch = self.epoch;
        let Allocator { agents, roles, clients, frameworks, role_sorter, quotas, options, .. } = &mut *self;
        let agent = &mut agents[at as usize];
        role_sorter.visit(&mut |role_slot| {
            let role = &roles[role_slot as usize];
            if !role.sorter.any_active() {
                return ControlFlow::Continue(());
            }
            let usable_of = |left: &Resources| left.filter(|it| it.reserved_role().is_none_or(|reserved| role.role.may_use(reserved)));
            let mut usable = usable_of(&left);
            for client in role.sorter.iter() {
                if usable.is_empty() {
                    return ControlFlow::Continue(());
                }
                if agent.is_known_filtered(client) {
                    continue;
                }
                let entry = &clients[client as usize];
                let framework = &frameworks[entry.framework as usize];
                let can = framework.wants.capabilities;
                if !may_have(agent, framework, &role.role, options) {
                    continue;
                }
                let mut offer = strip(&usable, can);
                if limited {
                    let quota = quotas.get(&role.top);
                    offer = shrink(&offer, |name| {
                        let limit = quota.and_then(|quota| quota.room(name));
                        let limit = limit.map(|room| room.minus_or_zero(room_taken_of(&mine, clients, roles, &role.top, name)));
                        let surplus = headroom
                            .as_ref()
                            .map(|it| it.available.get(name).minus_or_zero(it.required.get(name)).minus_or_zero(room_taken.get(name)));
                        match (limit, surplus) {
                            (Some(a), Some(b)) => Some(a.min(b)),
                            (a, b) => a.or(b),
                        }
                    });
                }
                let least = entry.min_allocatable.as_deref().unwrap_or(&options.min_allocatable);
                // What a client could have of an agent without quotas is the same until the agent changes: the answer can be remembered.
                let remember = !limited && mine.is_empty();
                if offer.is_empty() || !is_allocatable(&offer, least) || agent.is_filtered(client, &offer, remember) {
                    continue;
                }
                left.subtract_all(&offer);
                left = left.filter(|it| !it.is_shared() || !offer.contains_one(it));
                room_taken.add_all(&unreserved(&offer));
                mine.push((client, offer.allocated_to(&role.role)));
                usable = usable_of(&left);
            }
            ControlFlow::Continue(())
        });
        if mine.is_empty() {
            // With quotas, what happens elsewhere can make room here.
            agent.settled = if limited { 0 } else { epoch };
            return;
        }
        self.take(at, mine, headroom, given);
    }

    /// Another order for the next agent, where chance decides.
    fn reshuffle(&mut self) {
        if self.options.role_sorter == Sorter::Random {
            self.role_sorter.shuffle(&mut self.random);
        }
        if self.options.framework_sorter == Sorter::Random {
            for (_, role) in &mut self.roles {
                role.sorter.shuffle(&mut self.random);
            }
        }
    }

    /// First stage: what roles are promised and do not have.
    fn guarantee(&mut self, at: u32, headroom: &mut Headroom, given: &mut BTreeMap<(u32, u32), Resources>) {
        self.reshuffle();
        let mut order = Vec::new();
        self.role_sorter.visit(&mut |role| {
            order.push(role);
            ControlFlow::Continue(())
        });
        for role_slot in order {
            let top = self.roles[role_slot as usize].top.clone();
            let unsatisfied = |allocator: &Allocator| allocator.quotas.get(&top).map(|it| it.missing()).unwrap_or_default();
            if unsatisfied(self).is_empty() {
                continue;
            }
            let order: Vec<u32> = self.roles[role_slot as usize].sorter.iter().collect();
            for client in order {
                let missing = unsatisfied(self);
                if missing.is_empty() {
                    break;
                }
                let free = self.agents[at as usize].free().clone();
                let promised =
                    shrink(&free.filter(|it| !it.is_reserved() && !it.is_revocable() && is_scalar(it)), |name| Some(missing.get(name)));
                // Its own reservations there wait for the second stage.
                if promised.is_empty() {
                    break;
                }
                let role = self.roles[role_slot as usize].role.clone();
                let entry = &self.clients[client as usize];
                let framework = &self.frameworks[entry.framework as usize];
                let can = framework.wants.capabilities;
                if !may_have(&self.agents[at as usize], framework, &role, &self.options) {
                    continue;
                }
                let mut offer = promised.clone();
                let rest = free.filter(|it| !(is_scalar(it) && !it.is_reserved() && !it.is_revocable()));
                offer.add_all(&rest.filter(|it| it.reserved_role().is_none_or(|reserved| role.may_use(reserved))));
                let more = free.filter(|it| !it.is_reserved() && !it.is_revocable() && is_scalar(it)).minus(&promised);
                let quota = self.quotas.get(&top);
                offer.add_all(&shrink(&more, |name| {
                    let surplus = headroom.available.get(name).minus_or_zero(headroom.required.get(name));
                    let room = quota.and_then(|quota| quota.room(name)).map(|room| room.minus_or_zero(promised.scalar(name)));
                    Some(room.map_or(surplus, |room| room.min(surplus)))
                }));
                let offer = strip(&offer, can);
                let least = entry.min_allocatable.as_deref().unwrap_or(&self.options.min_allocatable).to_vec();
                if !is_allocatable(&offer, &least) || self.agents[at as usize].is_filtered(client, &offer, false) {
                    continue;
                }
                let offer = offer.allocated_to(&role);
                let mut one = Some(std::mem::replace(headroom, Headroom { available: Quantities::new(), required: Quantities::new() }));
                self.take(at, vec![(client, offer)], &mut one, given);
                if let Some(changed) = one {
                    *headroom = changed;
                }
            }
        }
    }

    fn take(&mut self, at: u32, mine: Given, headroom: &mut Option<Headroom>, given: &mut BTreeMap<(u32, u32), Resources>) {
        for (client, offer) in mine {
            if let Some(headroom) = headroom {
                let top = self.roles[self.clients[client as usize].role as usize].top.clone();
                let missing = |allocator: &Allocator| allocator.quotas.get(&top).map(|it| it.missing()).unwrap_or_default();
                let before = missing(self);
                self.allocate_client(client, at, &offer);
                headroom.required.subtract_all(&before);
                headroom.required.add_all(&missing(self));
                headroom.available.subtract_all(&unreserved(&offer));
            } else {
                self.allocate_client(client, at, &offer);
            }
            match given.entry((at, client)) {
                btree_map::Entry::Vacant(entry) => {
                    entry.insert(offer);
                }
                btree_map::Entry::Occupied(mut entry) => entry.get_mut().add_all(&offer),
            }
        }
    }

    /// Another order every time, the same for the same seed.
    fn shuffle(&mut self, agents: &mut [u32]) {
        for last in (1..agents.len()).rev() {
            let bound = u64::try_from(last + 1).unwrap_or(u64::MAX);
            let at = usize::try_from(next_random(&mut self.random) % bound).unwrap_or(0);
            agents.swap(last, at);
        }
    }
}

/// Whether a framework may be offered anything of an agent at all.
fn may_have(agent: &AgentEntry, framework: &FrameworkEntry, role: &Role, options: &Options) -> bool {
    let wants = &framework.wants;
    (!agent.has_gpus || !options.filter_gpu_resources || wants.capabilities.gpu_resources())
        && (!agent.remote || wants.capabilities.region_aware())
        && (wants.constraints.is_empty() || wants.constraints.accept(role, &agent.info))
}

/// What of a role's room the offers of this agent that the sorters do not know yet take.
fn room_taken_of(
    mine: &Given,
    clients: &slab::Slab<super::ClientEntry>,
    roles: &slab::Slab<super::RoleEntry>,
    top: &str,
    name: &str,
) -> Scalar {
    let same = mine.iter().filter(|(client, _)| &*roles[clients[*client as usize].role as usize].top == top);
    same.map(|(_, offer)| unreserved(offer).get(name)).sum()
}

/// SplitMix64.
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn is_scalar(resource: &Resource) -> bool {
    matches!(resource.value(), Value::Scalar(_))
}

/// Without what the framework does not understand.
fn strip(resources: &Resources, can: crate::FrameworkCapabilities) -> Resources {
    resources.filter(|it| {
        (can.shared_resources() || !it.is_shared())
            && (can.revocable_resources() || !it.is_revocable())
            && (can.reservation_refinement() || !it.has_refined_reservation())
    })
}

/// Cuts unreserved, non-revocable scalars down to `limit` of each name; what cannot be cut is left out. None: not cut.
fn shrink(resources: &Resources, limit: impl Fn(&str) -> Option<Scalar>) -> Resources {
    let mut taken = Quantities::new();
    let mut kept = Resources::new();
    for it in resources {
        let Value::Scalar(amount) = *it.value() else {
            kept.add(it.clone());
            continue;
        };
        let limit = if it.is_reserved() || it.is_revocable() { None } else { limit(it.name()) };
        let Some(limit) = limit else {
            kept.add(it.clone());
            continue;
        };
        let room = limit.minus_or_zero(taken.get(it.name()));
        if room >= amount {
            taken.add(it.name(), amount);
            kept.add(it.clone());
        } else if room.is_positive() && !it.is_indivisible() {
            taken.add(it.name(), room);
            kept.add(it.with_value(Value::Scalar(room)));
        }
    }
    kept
}

/// Whether an offer is worth making: it has at least one of the alternatives.
fn is_allocatable(resources: &Resources, alternatives: &[Quantities]) -> bool {
    if alternatives.is_empty() {
        return !resources.is_empty();
    }
    alternatives.iter().any(|least| least.iter().all(|(name, amount)| resources.scalar(name) >= amount))
}
