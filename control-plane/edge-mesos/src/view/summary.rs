//! `/state-summary`: as `/state`, with counts in place of tasks.

use std::collections::HashMap;

use master::Snapshot;
use mesos_proto::v1::TaskState;

use super::Scene;
use super::state::{agent, framework_head};
use crate::json::{Object, object};
use crate::pieces::Sink;

/// The states that are counted, as the endpoint names them.
const STATES: [TaskState; 10] = [
    TaskState::TaskStaging,
    TaskState::TaskStarting,
    TaskState::TaskRunning,
    TaskState::TaskKilling,
    TaskState::TaskFinished,
    TaskState::TaskKilled,
    TaskState::TaskFailed,
    TaskState::TaskLost,
    TaskState::TaskError,
    TaskState::TaskUnreachable,
];

#[derive(Default)]
struct Counts([u64; STATES.len()]);

impl Counts {
    fn add(&mut self, state: TaskState) {
        if let Some(at) = STATES.iter().position(|it| *it == state) {
            self.0[at] += 1;
        }
    }

    fn write(&self, object: &mut Object<'_>) {
        STATES.iter().zip(self.0).for_each(|(state, count)| object.integer(state.as_str_name(), count));
    }
}

/// What was counted of an agent or a framework, and with whom it has to do.
#[derive(Default)]
struct Sum<'a> {
    counts: Counts,
    others: Vec<&'a str>,
}

/// Hundreds of thousands of tasks are counted here, so nothing is ordered while that is done.
#[derive(Default)]
struct Sums<'a> {
    agents: HashMap<&'a str, Sum<'a>>,
    frameworks: HashMap<&'a str, Sum<'a>>,
}

impl<'a> Sums<'a> {
    /// All tasks of a framework come one after the other: the last one that an agent knows is it, or it is new there.
    fn agent(&mut self, agent: &'a str, framework: &'a str, of_framework: &mut Sum<'a>) -> &mut Counts {
        let of_agent = self.agents.entry(agent).or_default();
        if of_agent.others.last() != Some(&framework) {
            of_agent.others.push(framework);
            of_framework.others.push(agent);
        }
        &mut of_agent.counts
    }
}

fn sums(snapshot: &Snapshot) -> Sums<'_> {
    let mut sums = Sums::default();
    for framework in snapshot.frameworks.values().chain(snapshot.completed_frameworks.iter()) {
        let all = framework.tasks.values().chain(framework.unreachable_tasks.values()).chain(framework.completed_tasks.iter());
        let mut of_framework = Sum::default();
        for task in all {
            sums.agent(&task.agent_id, &framework.id, &mut of_framework).add(task.state);
            of_framework.counts.add(task.state);
        }
        for (agent, _) in framework.executors.keys() {
            sums.agent(agent, &framework.id, &mut of_framework);
        }
        of_framework.others.sort_unstable();
        sums.frameworks.insert(&framework.id, of_framework);
    }
    sums.agents.values_mut().for_each(|it| it.others.sort_unstable());
    sums
}

pub(super) fn summary(scene: &Scene, out: &mut Sink) {
    let snapshot = &scene.view.snapshot;
    let sums = sums(snapshot);
    let nothing = Sum::default();
    object(out, |object| {
        object.text("hostname", scene.about.info.hostname());
        object.text_if("cluster", scene.about.flags.get("cluster").map(String::as_str));
        object.array("slaves", |array| {
            for it in snapshot.agents.values() {
                let Sum { counts, others } = sums.agents.get(&*it.id).unwrap_or(&nothing);
                array.object(|object| {
                    agent(object, it, &scene.viewer, false);
                    counts.write(object);
                    object.array("framework_ids", |array| others.iter().for_each(|id| array.text(id)));
                });
            }
        });
        object.array("frameworks", |array| {
            for it in snapshot.frameworks.values() {
                let Sum { counts, others } = sums.frameworks.get(&*it.id).unwrap_or(&nothing);
                array.object(|object| {
                    framework_head(object, it, &snapshot.offers);
                    counts.write(object);
                    object.array("slave_ids", |array| others.iter().for_each(|id| array.text(id)));
                });
            }
        });
    });
}
