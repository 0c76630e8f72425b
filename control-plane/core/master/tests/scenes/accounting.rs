//! What must hold of everything that the master holds, at any time.

use std::collections::BTreeMap;

use master::{Snapshot, is_terminal};
use mesos::{AgentId, FrameworkId, Resources};

/// What is wrong with a state; nothing when all agrees.
pub(crate) fn contradictions(state: &Snapshot) -> Vec<String> {
    let mut wrong = Vec::new();
    over_commit(state, &mut wrong);
    uses(state, &mut wrong);
    places(state, &mut wrong);
    offers(state, &mut wrong);
    wrong
}

/// Nothing of an agent is given twice.
fn over_commit(state: &Snapshot, wrong: &mut Vec<String>) {
    for agent in state.agents.values() {
        let mut given = agent.used_total();
        given.add_all(&agent.offered);
        let given = given.unallocated();
        if !agent.total.contains(&given) {
            wrong.push(format!("{}: {given} is given of {}", agent.id, agent.total));
        }
    }
}

/// What is used is what tasks and executors use.
fn uses(state: &Snapshot, wrong: &mut Vec<String>) {
    let mut used: BTreeMap<(AgentId, FrameworkId), Resources> = BTreeMap::new();
    for framework in state.frameworks.values() {
        for task in framework.tasks.values().filter(|task| !is_terminal(task.state)) {
            used.entry((task.agent_id.clone(), framework.id.clone())).or_default().add_all(&task.resources);
        }
        for ((agent, _), executor) in &framework.executors {
            used.entry((agent.clone(), framework.id.clone())).or_default().add_all(&Resources::from_proto(&executor.resources));
        }
        let mut sum = Resources::new();
        framework.used.values().for_each(|it| sum.add_all(it));
        if framework.used_total() != sum {
            wrong.push(format!("{}: uses {sum} in all, and says {}", framework.id, framework.used_total()));
        }
        for (agent, resources) in &framework.used {
            let expected = used.get(&(agent.clone(), framework.id.clone())).cloned().unwrap_or_default();
            if *resources != expected {
                wrong.push(format!("{} on {agent}: uses {resources}, its tasks {expected}", framework.id));
            }
        }
    }
    for ((agent, framework), expected) in &used {
        let counted = state.agents.get(agent).and_then(|it| it.used.get(framework)).cloned().unwrap_or_default();
        if counted != *expected {
            wrong.push(format!("{agent}: {framework} uses {counted}, its tasks {expected}"));
        }
    }
    for agent in state.agents.values() {
        for framework in agent.used.keys().filter(|framework| !used.contains_key(&(agent.id.clone(), (*framework).clone()))) {
            wrong.push(format!("{}: {framework} uses something without a task", agent.id));
        }
    }
}

/// A task is on one agent, and both agree.
fn places(state: &Snapshot, wrong: &mut Vec<String>) {
    for agent in state.agents.values() {
        for (framework, task) in &agent.tasks {
            let known = state.frameworks.get(framework).and_then(|it| it.tasks.get(task));
            if known.is_none_or(|it| it.agent_id != agent.id) {
                wrong.push(format!("{}: has {task}, which is not there", agent.id));
            }
        }
    }
    for framework in state.frameworks.values() {
        for task in framework.tasks.values() {
            let key = (framework.id.clone(), task.id.clone());
            if !state.agents.get(&task.agent_id).is_some_and(|it| it.tasks.contains(&key)) {
                wrong.push(format!("{}: {} is on {}, which does not know", framework.id, task.id, task.agent_id));
            }
            if framework.unreachable_tasks.contains_key(&task.id) {
                wrong.push(format!("{} is both there and unreachable", task.id));
            }
        }
    }
    for operation in state.operations.values() {
        if !state.agents.get(&operation.agent_id).is_some_and(|it| it.operations.contains(&operation.uuid)) {
            wrong.push(format!("an operation of {}, which does not know", operation.agent_id));
        }
    }
}

/// An offer is known to its framework and its agent, and to nobody else.
fn offers(state: &Snapshot, wrong: &mut Vec<String>) {
    let mut offered: BTreeMap<AgentId, Resources> = BTreeMap::new();
    for offer in state.offers.values() {
        offered.entry(offer.agent_id.clone()).or_default().add_all(&offer.resources);
        let framework = state.frameworks.get(&offer.framework_id);
        if !framework.is_some_and(|it| it.offers.contains(&offer.id) && it.connected()) {
            wrong.push(format!("{}: its framework does not know", offer.id));
        }
        if !state.agents.get(&offer.agent_id).is_some_and(|it| it.offers.contains(&offer.id) && it.active()) {
            wrong.push(format!("{}: its agent does not know", offer.id));
        }
    }
    for agent in state.agents.values() {
        let sum = offered.remove(&agent.id).unwrap_or_default();
        if sum != agent.offered {
            wrong.push(format!("{}: offers {}, which should be {sum}", agent.id, agent.offered));
        }
    }
}
