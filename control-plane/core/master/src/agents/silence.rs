//! Agents that do not answer, and those that did not come back.

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use mesos::AgentId;

use crate::master::Master;
use crate::registry::{Change, Unreachable};
use crate::timers::Timer;
use crate::writes::After;
use crate::{Effect, ToAgent};

/// How long one waits for another change of an agent to be stored.
const BUSY_DELAY: Duration = Duration::from_secs(1);

impl Master {
    /// Time to ask an agent again.
    pub(crate) fn ping(&mut self, now: Timestamp, id: &AgentId, out: &mut Vec<Effect>) {
        let limit = self.config.max_agent_ping_timeouts;
        let Some(agent) = self.agent_mut(id) else { return };
        // The first ping of a row is not a missed one.
        agent.missed_pings = agent.missed_pings.saturating_add(1);
        let (missed, connected) = (agent.missed_pings, agent.connected());
        self.timers.set(Timer::Ping(id.clone()), now + self.config.agent_ping_timeout);
        if missed > limit && self.silent_set.insert(id.clone()) {
            self.state.metrics.count("master/slave_unreachable_scheduled");
            self.silent.push_back(id.clone());
            self.timers.set_if_absent(Timer::Removal, now);
        }
        if connected {
            self.tell(id, ToAgent::Ping { connected: true }, out);
        }
    }

    pub(crate) fn pong(&mut self, id: &AgentId) {
        if let Some(agent) = self.agent_mut(id) {
            agent.missed_pings = 0;
        }
        self.forget_silence(id);
    }

    /// It lives: it will not be unreachable.
    pub(crate) fn forget_silence(&mut self, id: &AgentId) {
        if self.silent_set.remove(id) {
            self.state.metrics.count("master/slave_unreachable_canceled");
            self.silent.retain(|it| it != id);
        }
    }

    /// Makes those unreachable that were silent too long, as many as the rate allows.
    pub(crate) fn remove_silent(&mut self, now: Timestamp) {
        let mut busy = Vec::new();
        while let Some(id) = self.silent.front().cloned() {
            let registered = self.state.agents.contains_key(&id);
            if !registered && !self.state.recovered.contains_key(&id) {
                self.silent.pop_front();
                self.silent_set.remove(&id);
                continue;
            }
            // Another change is under way: its turn comes after that.
            if self.transitions.contains(&id) {
                self.silent.pop_front();
                busy.push(id);
                continue;
            }
            if let Err(at) = self.removals.take(now) {
                self.timers.set(Timer::Removal, at);
                break;
            }
            self.silent.pop_front();
            self.silent_set.remove(&id);
            self.transitions.insert(id.clone());
            let stored = self.state.registry.agents.get(&id);
            let entry = Unreachable {
                since: now.unix_nanos(),
                drain: stored.and_then(|it| it.drain),
                deactivated: stored.is_some_and(|it| it.deactivated),
            };
            self.persist(vec![Change::Unreachable(id.clone(), Arc::new(entry))], After::Unreachable { id });
        }
        if !busy.is_empty() {
            self.silent.extend(busy);
            self.timers.set_if_absent(Timer::Removal, now + BUSY_DELAY);
        }
    }

    /// Agents of the registry have had their time to come back.
    pub(crate) fn reregistration_over(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let missing: Vec<AgentId> = self.state.recovered.keys().cloned().collect();
        #[expect(clippy::cast_precision_loss, reason = "numbers of agents")]
        let part = missing.len() as f64 / self.expected_agents.max(1) as f64;
        if part > self.config.recovery_agent_removal_limit {
            let reason = format!(
                "Post-recovery agent removal limit exceeded: {} of {} agents did not come back",
                missing.len(),
                self.expected_agents
            );
            self.abort(reason, out);
            return;
        }
        for id in missing {
            if self.silent_set.insert(id.clone()) {
                self.state.metrics.count("master/slave_unreachable_scheduled");
                self.silent.push_back(id);
            }
        }
        self.timers.set_if_absent(Timer::Removal, now);
    }

    pub(crate) fn reregistration_maybe_over(&mut self) {
        if self.state.recovered.is_empty() {
            self.timers.cancel(&Timer::Reregistration);
        }
    }

    /// Forgets unreachable and gone agents that are old, or beyond the number that is kept.
    pub(crate) fn registry_gc(&mut self, now: Timestamp) {
        let (age, count) = (self.config.registry_max_agent_age, self.config.registry_max_agent_count);
        let registry = &self.state.registry;
        let unreachable = registry.unreachable.iter().map(|(id, it)| (Timestamp::from_unix_nanos(it.since), id.clone()));
        let unreachable = due(unreachable.filter(|(_, id)| !self.transitions.contains(id)).collect(), now, age, count);
        let gone = due(registry.gone.iter().map(|(id, at)| (*at, id.clone())).collect(), now, age, count);
        let mut changes: Vec<Change> = unreachable.into_iter().map(Change::Remove).collect();
        changes.extend(gone.into_iter().map(Change::ForgetGone));
        if !changes.is_empty() {
            self.persist(changes, After::Nothing);
        }
    }
}

fn due(mut entries: Vec<(Timestamp, AgentId)>, now: Timestamp, age: Duration, count: usize) -> Vec<AgentId> {
    entries.sort();
    let above = entries.len().saturating_sub(count);
    let old = entries.iter().take_while(|(at, _)| now.since(*at) > age).count();
    entries.into_iter().take(above.max(old)).map(|(_, id)| id).collect()
}
