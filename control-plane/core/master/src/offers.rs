//! Offers and inverse offers: made, taken back, declined.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use mesos::{AgentId, FrameworkId, OfferId, Resources};
use mesos_proto::v1;
use v1::scheduler::call;

use crate::allocator::{HandOut, refusal_time};
use crate::master::{Master, time_info};
use crate::timers::Timer;
use crate::{Effect, Framework, InverseOffer, Offer, Snapshot, events};

impl Master {
    /// Offers what is free: of all agents, or of those that something happened to.
    pub(crate) fn allocate(&mut self, now: Timestamp, all: bool, out: &mut Vec<Effect>) {
        let hand_outs = if all { self.allocator.run_all(now) } else { self.allocator.run(now) };
        self.state.metrics.set("allocator/mesos/allocation_runs", self.allocator.runs);
        let mut offers: Vec<v1::Offer> = Vec::new();
        let mut current: Option<FrameworkId> = None;
        for hand_out in hand_outs {
            if current.as_ref() != Some(&hand_out.framework) || offers.len() >= self.config.max_offers_per_event {
                if let Some(framework) = &current {
                    self.send_offers(framework, std::mem::take(&mut offers), out);
                }
                current = Some(hand_out.framework.clone());
            }
            offers.extend(self.make_offer(now, hand_out));
        }
        if let Some(framework) = &current {
            self.send_offers(framework, offers, out);
        }
        self.make_inverse_offers(now, out);
        self.refresh_gauges(now);
    }

    fn send_offers(&mut self, framework: &FrameworkId, offers: Vec<v1::Offer>, out: &mut Vec<Effect>) {
        if offers.is_empty() {
            return;
        }
        if let Some(framework) = self.framework_mut(framework) {
            framework.counters.offers_sent += offers.len() as u64;
        }
        self.send(framework, events::offers(offers), out);
    }

    fn make_offer(&mut self, now: Timestamp, hand_out: HandOut) -> Option<v1::Offer> {
        let HandOut { framework, role, agent, resources } = hand_out;
        let id = self.offer_id();
        let Snapshot { agents, frameworks, offers, .. } = &mut self.state;
        let (Some(of), Some(to)) = (agents.get_mut(&agent), frameworks.get_mut(&framework)) else {
            self.allocator.recover(&framework, &agent, &resources, None);
            return None;
        };
        let (of, to) = (Arc::make_mut(of), Arc::make_mut(to));
        of.offered.add_all(&resources);
        of.offers.insert(id.clone());
        to.add_offer(id.clone());
        let offer = Offer { id: id.clone(), framework_id: framework, agent_id: agent, role, resources, offered_at: now };
        let proto = offer.to_proto(of, to);
        offers.insert(id.clone(), Arc::new(offer));
        if let Some(timeout) = self.config.offer_timeout {
            self.timers.set(Timer::OfferTimeout(id), now + timeout);
        }
        Some(proto)
    }

    fn offer_id(&mut self) -> OfferId {
        let id = OfferId::from(format!("{}-O{}", self.config.info.id, self.next_offer));
        self.next_offer += 1;
        id
    }

    /// Takes an offer out; what it offered stays allocated to its framework.
    pub(crate) fn consume_offer(&mut self, id: &OfferId) -> Option<Arc<Offer>> {
        let offer = self.state.offers.remove(id)?;
        self.timers.cancel(&Timer::OfferTimeout(id.clone()));
        if let Some(agent) = self.agent_mut(&offer.agent_id) {
            agent.offered.subtract_all(&offer.resources);
            agent.offers.remove(id);
        }
        if let Some(framework) = self.framework_mut(&offer.framework_id) {
            framework.remove_offer(id);
        }
        Some(offer)
    }

    /// Takes an offer back: what it offered is free.
    pub(crate) fn take_offer_back(&mut self, id: &OfferId, refuse: Option<(Timestamp, Duration)>) {
        if let Some(offer) = self.consume_offer(id) {
            self.allocator.recover(&offer.framework_id, &offer.agent_id, &offer.resources, refuse);
        }
    }

    /// Takes an offer back and tells its framework.
    pub(crate) fn rescind(&mut self, id: &OfferId, out: &mut Vec<Effect>) {
        let Some(offer) = self.state.offers.get(id).cloned() else { return };
        self.take_offer_back(id, None);
        if let Some(framework) = self.framework_mut(&offer.framework_id) {
            framework.counters.offers_rescinded += 1;
        }
        self.send(&offer.framework_id, events::rescind(id), out);
    }

    /// Takes back everything that is offered of an agent.
    pub(crate) fn rescind_agent(&mut self, id: &AgentId, out: &mut Vec<Effect>) {
        let Some(agent) = self.agent(id) else { return };
        for offer in &agent.offers {
            self.rescind(offer, out);
        }
        for offer in &agent.inverse_offers {
            self.rescind_inverse_offer(offer, out);
        }
    }

    /// Takes back everything that is offered.
    pub(crate) fn rescind_all(&mut self, out: &mut Vec<Effect>) {
        let all: Vec<OfferId> = self.state.offers.keys().cloned().collect();
        for offer in all {
            self.rescind(&offer, out);
        }
    }

    pub(crate) fn decline(&mut self, now: Timestamp, framework: &Arc<Framework>, decline: &call::Decline) {
        let refuse = self.refusal(now, decline.filters.as_ref());
        for id in &decline.offer_ids {
            let id = OfferId::from(id);
            if self.state.offers.get(&id).is_none_or(|it| it.framework_id != framework.id) {
                continue;
            }
            self.take_offer_back(&id, refuse);
            if let Some(framework) = self.framework_mut(&framework.id) {
                framework.counters.offers_declined += 1;
            }
        }
    }

    pub(crate) fn refusal(&self, now: Timestamp, filters: Option<&v1::Filters>) -> Option<(Timestamp, Duration)> {
        let seconds = filters.and_then(|it| it.refuse_seconds);
        refusal_time(seconds, self.config.allocation_interval).map(|time| (now, time))
    }

    // ---- inverse offers ----

    /// Asks the frameworks to leave agents that are planned to be down, each once until it answers.
    fn make_inverse_offers(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let mut asked: BTreeMap<FrameworkId, Vec<v1::InverseOffer>> = BTreeMap::new();
        let planned: Vec<AgentId> = self.planned_agents.iter().cloned().collect();
        for agent_id in planned {
            let Some(agent) = self.agent(&agent_id) else { continue };
            let Some(unavailability) = agent.unavailability.filter(|_| agent.connected()) else { continue };
            let offered = agent.offers.iter().filter_map(|id| self.state.offers.get(id)).map(|it| it.framework_id.clone());
            let mut holders: std::collections::BTreeSet<FrameworkId> = offered.collect();
            holders.extend(agent.used.keys().cloned());
            for framework_id in holders {
                let open = |id: &OfferId| self.state.inverse_offers.get(id).is_some_and(|it| it.framework_id == framework_id);
                let filtered = self.inverse_filters.get(&framework_id).and_then(|it| it.get(&agent_id)).is_some_and(|until| *until > now);
                let connected = self.state.frameworks.get(&framework_id).is_some_and(|it| it.connected());
                if !connected || filtered || agent.inverse_offers.iter().any(open) {
                    continue;
                }
                let id = self.offer_id();
                let offer = InverseOffer {
                    id: id.clone(),
                    framework_id: framework_id.clone(),
                    agent_id: agent_id.clone(),
                    unavailability,
                    offered_at: now,
                };
                asked.entry(framework_id.clone()).or_default().push(offer.to_proto(&agent));
                self.state.inverse_offers.insert(id.clone(), Arc::new(offer));
                holder_insert_inverse(&mut self.state.frameworks, &framework_id, &id);
                if let Some(agent) = self.agent_mut(&agent_id) {
                    agent.inverse_offers.insert(id);
                }
            }
        }
        for (framework, offers) in asked {
            self.send(&framework, events::inverse_offers(offers), out);
        }
    }

    pub(crate) fn forget_inverse_offer(&mut self, id: &OfferId) -> Option<Arc<InverseOffer>> {
        let offer = self.state.inverse_offers.remove(id)?;
        if let Some(agent) = self.agent_mut(&offer.agent_id) {
            agent.inverse_offers.remove(id);
        }
        if let Some(framework) = self.framework_mut(&offer.framework_id) {
            framework.inverse_offers.remove(id);
        }
        Some(offer)
    }

    pub(crate) fn rescind_inverse_offer(&mut self, id: &OfferId, out: &mut Vec<Effect>) {
        if let Some(offer) = self.forget_inverse_offer(id) {
            self.send(&offer.framework_id, events::rescind_inverse_offer(id), out);
        }
    }

    pub(crate) fn answer_inverse_offers(
        &mut self,
        now: Timestamp,
        framework: &FrameworkId,
        ids: &[v1::OfferId],
        accepted: bool,
        filters: Option<&v1::Filters>,
    ) {
        use v1::allocator::inverse_offer_status::Status;
        let refuse = self.refusal(now, filters);
        for id in ids {
            let id = OfferId::from(id);
            if self.state.inverse_offers.get(&id).is_none_or(|it| it.framework_id != *framework) {
                continue;
            }
            let Some(offer) = self.forget_inverse_offer(&id) else { continue };
            let status = v1::allocator::InverseOfferStatus {
                status: if accepted { Status::Accept } else { Status::Decline } as i32,
                framework_id: framework.to_proto(),
                timestamp: time_info(now),
            };
            self.state.inverse_statuses.insert((offer.agent_id.clone(), framework.clone()), status);
            if let Some((now, time)) = refuse {
                self.inverse_filters.entry(framework.clone()).or_default().insert(offer.agent_id.clone(), now + time);
            }
        }
    }

    /// Answers about an agent that is no longer there.
    pub(crate) fn forget_inverse_statuses(&mut self, agent: &AgentId) {
        self.planned_agents.remove(agent);
        let keys: Vec<_> = self.state.inverse_statuses.keys().filter(|(of, _)| of == agent).cloned().collect();
        for key in keys {
            self.state.inverse_statuses.remove(&key);
        }
        for filters in self.inverse_filters.values_mut() {
            filters.remove(agent);
        }
    }

    /// What offers together offer.
    pub(crate) fn offered_by(&self, ids: &[OfferId]) -> Resources {
        let mut sum = Resources::new();
        for offer in ids.iter().filter_map(|id| self.state.offers.get(id)) {
            sum.add_all(&offer.resources);
        }
        sum
    }
}

fn holder_insert_inverse(frameworks: &mut imbl::OrdMap<FrameworkId, Arc<Framework>>, framework: &FrameworkId, offer: &OfferId) {
    if let Some(framework) = frameworks.get_mut(framework) {
        Arc::make_mut(framework).inverse_offers.insert(offer.clone());
    }
}
