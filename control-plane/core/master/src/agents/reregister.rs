//! Agents that come back: what they hold is compared with what the master thinks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::Timestamp;
use mesos::{AgentId, ExecutorId, FrameworkId, Resources, TaskId};
use mesos_proto::v1;
use v1::task_status::{Reason, Source};
use v1::{OperationState, TaskState};

use super::revocable;
use crate::master::Master;
use crate::registry::{Admitted, Change};
use crate::writes::After;
use crate::{Agent, AgentCapabilities, Effect, LinkId, Refused, Register, Task, ToAgent, events, is_terminal};

impl Master {
    /// An agent that was not registered with this master is (again): after the master changed, or after it was unreachable.
    pub(crate) fn readmitted(
        &mut self,
        now: Timestamp,
        link: LinkId,
        id: &AgentId,
        register: Box<Register>,
        unreachable: bool,
        out: &mut Vec<Effect>,
    ) {
        self.transitions.remove(id);
        self.state.metrics.count("master/slave_reregistrations");
        let link = self.admission_over(link);
        self.add_agent(now, id, link, &register, out);
        if let Some(agent) = self.agent_mut(id) {
            agent.reregistered_at = Some(now);
        }
        self.greet(id, out);
        self.learn_frameworks(now, id, &register, out);
        // What it holds is moved into the state: of a large cluster's agents that is millions of pieces.
        let Register { executors, tasks, operations, completed_frameworks, drain, .. } = *register;
        self.learn_executors(id, executors);
        // The allocator is told once of each framework, not of each task.
        let mut used = BTreeMap::new();
        for proto in tasks {
            self.learn_task(now, id, proto, (unreachable, Some(&mut used)), out);
        }
        for (framework_id, resources) in used {
            self.allocator.allocate(&framework_id, id, &resources);
        }
        for proto in &operations {
            self.add_operation_from_agent(id, proto);
        }
        self.learn_completed(now, completed_frameworks);
        self.resume_drain(id, drain.is_some(), out);
        self.reregistration_maybe_over();
    }

    /// A registered agent has a new link.
    pub(crate) fn reconnect(&mut self, now: Timestamp, link: LinkId, agent: &Arc<Agent>, register: Box<Register>, out: &mut Vec<Effect>) {
        let id = agent.id.clone();
        self.state.metrics.count("master/slave_reregistrations");
        self.close_link_of(&id, Refused::Replaced, out);
        self.rescind_agent(&id, out);
        self.links.insert(link, id.clone());
        self.forget_silence(&id);
        let mut info = register.info.clone();
        info.id = Some(id.to_proto());
        let described_anew = *agent.info != info;
        let info = Arc::new(info);
        let mut total = Resources::from_proto(&register.total_resources).unallocated();
        if register.total_resources.is_empty() {
            total = agent.total.filter(|it| !it.is_revocable());
        }
        total.add_all(&revocable(&register.oversubscribed_resources));
        if agent.pid.as_ref() != register.pid {
            self.pids.remove(&agent.pid);
            self.pids.insert(register.pid.as_str().into(), id.clone());
        }
        if let Some(agent) = self.agent_mut(&id) {
            agent.link = Some(link);
            agent.missed_pings = 0;
            agent.reregistered_at = Some(now);
            agent.info = info.clone();
            agent.pid = register.pid.as_str().into();
            agent.tls = register.tls;
            agent.version = register.version.as_str().into();
            agent.capabilities = AgentCapabilities::of(&register.capabilities);
            agent.capability_list = register.capabilities.as_slice().into();
            agent.resource_version = register.resource_version.as_slice().into();
            agent.total = total.clone();
        }
        self.allocator.set_agent(&id, &info, &total);
        self.greet(&id, out);
        self.learn_frameworks(now, &id, &register, out);
        let Register { executors, tasks, operations, drain, .. } = *register;
        self.reconcile_executors(&id, agent, executors);
        self.reconcile_tasks(now, &id, agent, tasks, out);
        self.reconcile_operations_of(&id, agent, &operations, out);
        let active = self.state.agents.get(&id).is_some_and(|it| it.active());
        self.allocator.set_agent_active(&id, active);
        if described_anew {
            self.transitions.insert(id.clone());
            let stored = self.state.registry.agents.get(&id);
            let admitted = Admitted {
                info: (*info).clone(),
                drain: stored.and_then(|it| it.drain),
                deactivated: stored.is_some_and(|it| it.deactivated),
            };
            self.persist(vec![Change::Admit(id.clone(), Arc::new(admitted))], After::Described { id: id.clone() });
        }
        self.resume_drain(&id, drain.is_some(), out);
        self.check_drained(&id);
    }

    /// Frameworks that have something on an agent are frameworks, whether or not they have subscribed with this master.
    fn learn_frameworks(&mut self, now: Timestamp, id: &AgentId, register: &Register, out: &mut Vec<Effect>) {
        for info in &register.frameworks {
            let Some(framework_id) = info.id.as_ref().map(FrameworkId::from) else { continue };
            if self.completed_ids.contains_key(&framework_id) {
                self.tell(id, ToAgent::ShutdownFramework { framework_id }, out);
                continue;
            }
            match self.state.frameworks.get(&framework_id) {
                None => self.recover_framework(now, &framework_id, info, out),
                // It may have described itself anew while the agent was away.
                Some(framework) if !framework.recovered && *framework.info != *info => {
                    self.tell(id, ToAgent::UpdateFramework { framework: framework.info.clone() }, out);
                }
                Some(_) => {}
            }
        }
    }

    fn learn_executors(&mut self, id: &AgentId, executors: Vec<(FrameworkId, v1::ExecutorInfo)>) {
        for (framework_id, info) in executors {
            if self.state.frameworks.contains_key(&framework_id) {
                self.add_executor(&framework_id, id, &Arc::new(info), false);
            }
        }
    }

    /// A task that the master does not know there. What it uses is added to `used`, for the allocator to be told; without, it is told here.
    fn learn_task(
        &mut self,
        now: Timestamp,
        id: &AgentId,
        proto: v1::Task,
        (unreachable, used): (bool, Option<&mut BTreeMap<FrameworkId, Resources>>),
        out: &mut Vec<Effect>,
    ) {
        let Some(mut task) = Task::from_proto(proto) else { return };
        task.agent_id = id.clone();
        // Borrowed, not shared: a framework that somebody else holds is copied when it changes, once for each of its tasks.
        let Some(framework) = self.state.frameworks.get(&task.framework_id) else { return };
        // One task is on one agent: whoever comes second with it is told to stop it.
        if framework.tasks.contains_key(&task.id) {
            let message = ToAgent::KillTask { framework_id: task.framework_id, task_id: task.id, kill_policy: None };
            self.tell(id, message, out);
            return;
        }
        if let Some(framework) = self.framework_mut(&task.framework_id)
            && let Some(known) = framework.forget_unreachable(&task.id)
            && task.statuses.is_empty()
        {
            task.statuses = known.statuses.clone();
        }
        let status = unreachable.then(|| task.latest_status(now, task.state, Reason::AgentReregistered, "Unreachable agent re-registered"));
        let framework_id = task.framework_id.clone();
        let told = used.is_some();
        if let Some(used) = used.filter(|_| !task.is_terminal()) {
            used.entry(framework_id.clone()).or_default().add_all(&task.resources);
        }
        self.add_task(task, told, out);
        if let Some(status) = status {
            self.send(&framework_id, events::update(status), out);
        }
    }

    /// History that agents remember, for frameworks that this master has never seen.
    fn learn_completed(&mut self, now: Timestamp, completed: Vec<(v1::FrameworkInfo, Vec<v1::Task>)>) {
        for (info, tasks) in completed {
            let Some(id) = info.id.as_ref().map(FrameworkId::from) else { continue };
            let limit = self.config.max_completed_tasks_per_framework;
            let tasks: Vec<Task> = tasks.into_iter().filter_map(Task::from_proto).collect();
            let room = self.config.max_completed_frameworks;
            if let Some(framework) = self.framework_mut(&id) {
                framework.remember_earlier(tasks, limit);
            } else if self.completed_ids.contains_key(&id) {
                // This master has seen its end, and has the history.
            } else if let Some(framework) = self.state.completed_frameworks.iter_mut().find(|it| it.id == id) {
                // Another agent told of it, or this one did before.
                Arc::make_mut(framework).remember_earlier(tasks, limit);
            } else if self.state.completed_frameworks.len() < room {
                let mut framework = crate::frameworks::new_framework(id, info, now);
                framework.remember_earlier(tasks, limit);
                framework.unregistered_at = Some(now);
                // Not among the ids that are refused: the agent does not know whether it was removed or merely has nothing there any more.
                self.state.completed_frameworks.push_front(Arc::new(framework));
            }
        }
    }

    fn reconcile_executors(&mut self, id: &AgentId, agent: &Agent, executors: Vec<(FrameworkId, v1::ExecutorInfo)>) {
        let there: BTreeSet<(FrameworkId, ExecutorId)> =
            executors.iter().map(|(framework, info)| (framework.clone(), (&info.executor_id).into())).collect();
        for (framework, executor) in agent.executors.keys() {
            if !there.contains(&(framework.clone(), executor.clone())) {
                self.remove_executor(framework, id, executor);
            }
        }
        self.learn_executors(id, executors);
    }

    fn reconcile_tasks(&mut self, now: Timestamp, id: &AgentId, agent: &Agent, tasks: Vec<v1::Task>, out: &mut Vec<Effect>) {
        let mut there: BTreeMap<(FrameworkId, TaskId), v1::Task> =
            tasks.into_iter().map(|it| (((&it.framework_id).into(), (&it.task_id).into()), it)).collect();
        for key in &agent.tasks {
            let (framework_id, task_id) = key;
            let Some(framework) = self.state.frameworks.get(framework_id) else { continue };
            let aware = framework.capabilities.partition_aware();
            let Some(task) = framework.tasks.get(task_id).cloned() else { continue };
            match there.remove(key) {
                Some(proto) => {
                    // What the agent knows is newer. The update itself comes by its own way, with its uuid.
                    let state = TaskState::try_from(proto.state).unwrap_or(task.state);
                    if !is_terminal(task.state)
                        && task.state != state
                        && let Some(task) = self.framework_mut(framework_id).and_then(|it| it.tasks.get_mut(task_id))
                    {
                        Arc::make_mut(task).state = state;
                    }
                    if !is_terminal(task.state) && is_terminal(state) {
                        self.release_resources(framework_id, id, &task.resources);
                        self.count_end(framework_id, state, None);
                    }
                }
                // Over, and acknowledged there.
                None if task.is_terminal() => self.remove_task(framework_id, task_id, false),
                None => {
                    let state = if aware { TaskState::TaskDropped } else { TaskState::TaskLost };
                    let text = "Reconciliation: task unknown to the agent";
                    let mut status = events::status(now, task_id, state, Reason::Reconciliation, text);
                    status.source = Some(Source::Master as i32);
                    status.agent_id = Some(id.to_proto());
                    status.executor_id = task.executor_id.as_ref().map(ExecutorId::to_proto);
                    self.update_task(framework_id, task_id, &status, state, out);
                    self.remove_task(framework_id, task_id, false);
                    self.send(framework_id, events::update(status), out);
                }
            }
        }
        for proto in there.into_values() {
            self.learn_task(now, id, proto, (false, None), out);
        }
        // Kills that the broken link may have lost.
        let kills: Vec<_> =
            self.state.agents.get(id).map(|it| it.kills.iter().map(|(key, policy)| (key.clone(), *policy)).collect()).unwrap_or_default();
        for ((framework_id, task_id), kill_policy) in kills {
            self.tell(id, ToAgent::KillTask { framework_id, task_id, kill_policy }, out);
        }
    }

    fn reconcile_operations_of(&mut self, id: &AgentId, agent: &Agent, operations: &[v1::Operation], out: &mut Vec<Effect>) {
        let there: BTreeSet<&[u8]> = operations.iter().map(|it| &it.uuid.value[..]).collect();
        for uuid in &agent.operations {
            if !there.contains(&uuid[..]) {
                self.end_operation(uuid, OperationState::OperationDropped, out);
            }
        }
        for proto in operations {
            if !agent.operations.contains(&proto.uuid.value) {
                self.add_operation_from_agent(id, proto);
            }
        }
    }
}
