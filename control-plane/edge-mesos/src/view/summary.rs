//! `/state-summary`: as `/state`, with counts in place of tasks.

use std::collections::{BTreeMap, BTreeSet};

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

#[derive(Default)]
struct Sums<'a> {
    agents: BTreeMap<&'a str, (Counts, BTreeSet<&'a str>)>,
    frameworks: BTreeMap<&'a str, (Counts, BTreeSet<&'a str>)>,
}

fn sums(snapshot: &Snapshot) -> Sums<'_> {
    let mut sums = Sums::default();
    for framework in snapshot.frameworks.values().chain(snapshot.completed_frameworks.iter()) {
        let all = framework.tasks.values().chain(framework.unreachable_tasks.values()).chain(framework.completed_tasks.iter());
        let of_framework = sums.frameworks.entry(&framework.id).or_default();
        for task in all {
            let of_agent = sums.agents.entry(&task.agent_id).or_default();
            of_agent.0.add(task.state);
            of_agent.1.insert(&framework.id);
            of_framework.0.add(task.state);
            of_framework.1.insert(&task.agent_id);
        }
        for (agent, _) in framework.executors.keys() {
            sums.agents.entry(agent).or_default().1.insert(&framework.id);
            of_framework.1.insert(agent);
        }
    }
    sums
}

pub(super) fn summary(scene: &Scene, out: &mut Sink) {
    let snapshot = &scene.view.snapshot;
    let sums = sums(snapshot);
    let nothing = (Counts::default(), BTreeSet::new());
    object(out, |object| {
        object.text("hostname", scene.about.info.hostname());
        object.text_if("cluster", scene.about.flags.get("cluster").map(String::as_str));
        object.array("slaves", |array| {
            for it in snapshot.agents.values() {
                let (counts, frameworks) = sums.agents.get(&*it.id).unwrap_or(&nothing);
                array.object(|object| {
                    agent(object, it, &scene.viewer, false);
                    counts.write(object);
                    object.array("framework_ids", |array| frameworks.iter().for_each(|id| array.text(id)));
                });
            }
        });
        object.array("frameworks", |array| {
            for it in snapshot.frameworks.values() {
                let (counts, agents) = sums.frameworks.get(&*it.id).unwrap_or(&nothing);
                array.object(|object| {
                    framework_head(object, it, &snapshot.offers);
                    counts.write(object);
                    object.array("slave_ids", |array| agents.iter().for_each(|id| array.text(id)));
                });
            }
        });
    });
}
