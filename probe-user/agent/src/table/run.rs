//! Launching: which executor a task goes to, and what is made for it.

use std::collections::{BTreeMap, VecDeque};

use mesos_proto::v1::{
    CommandInfo, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, TaskGroupInfo, TaskInfo, TaskState, container_info, executor,
    executor_info, task_status,
};

use super::state::{Executor, Framework, Kind, Phase, Task};
use super::{Alarm, Effect, Launch, RecordKey, Run, Started, Table};
use crate::words::{ContainerKey, ExecutorKey, Now, TaskKey, dropped, is_terminal, render_uuid, scalar_resource};

impl Table {
    pub(super) fn run(&mut self, now: Now, run: Run, out: &mut Vec<Effect>) {
        let framework_id = run.framework.id.clone().unwrap_or_default().value;
        let key = |task: &TaskInfo| TaskKey { framework: framework_id.clone(), task: task.task_id.value.clone() };
        if run.tasks.iter().any(|it| self.task(&key(it)).is_some()) {
            // It came twice. Whatever were said of the second would be taken for the first, which runs.
            return;
        }
        if let Some(problem) = self.unfit(&run) {
            for task in &run.tasks {
                self.drop_task(now, &run.framework, task, problem.clone(), out);
            }
            self.forget_if_empty(&framework_id);
            return;
        }
        let framework = self.frameworks.entry(framework_id.clone()).or_insert_with(|| Framework {
            info: run.framework.clone(),
            executors: BTreeMap::new(),
            completed: VecDeque::new(),
            shutting_down: false,
        });
        framework.info = run.framework.clone();
        self.dirty.insert(RecordKey::Framework(framework_id.clone()));
        let info = match run.executor.clone() {
            Some(info) => info,
            // `unfit` made sure that there is one task.
            None => match run.tasks.first() {
                Some(task) => command_executor(&run.framework, task),
                None => return,
            },
        };
        let key = ExecutorKey { framework: framework_id, executor: info.executor_id.value.clone() };
        let is_new = self.executor(&key).is_none();
        if is_new {
            self.add_executor(now, &key, info, run.executor.is_none());
        }
        self.dirty.extend(run.tasks.iter().map(|it| RecordKey::Task(key.clone(), it.task_id.value.clone())));
        self.add_tasks(&key, run.tasks, run.group);
        self.dirty.insert(RecordKey::Executor(key.clone()));
        if is_new {
            self.launch_executor(&key, out);
        } else {
            self.resize(&key, out);
        }
        self.deliver(&key, out);
    }

    /// Why these tasks cannot run here, if so.
    fn unfit(&self, run: &Run) -> Option<(task_status::Reason, String)> {
        use task_status::Reason;

        if run.refused.is_some() {
            return run.refused.clone();
        }
        if self.drain.is_some() {
            return Some((Reason::AgentDraining, "The agent is draining".to_owned()));
        }
        if self.ending {
            return Some((Reason::AgentRemoved, "The agent is shutting down".to_owned()));
        }
        let framework_id = run.framework.id.as_ref().map(|it| it.value.as_str()).unwrap_or_default();
        let framework = self.frameworks.get(framework_id);
        if framework.is_some_and(|it| it.shutting_down) {
            return Some((Reason::FrameworkRemoved, "The framework is shutting down".to_owned()));
        }
        if run.tasks.is_empty() || !is_name(framework_id) {
            return Some((Reason::TaskInvalid, "There is no task, or no framework id".to_owned()));
        }
        for task in &run.tasks {
            let key = TaskKey { framework: framework_id.to_owned(), task: task.task_id.value.clone() };
            if !is_name(&key.task) {
                return Some((Reason::TaskInvalid, "The task's id cannot be the name of a directory".to_owned()));
            }
        }
        match &run.executor {
            None if run.group || run.tasks.len() != 1 => Some((Reason::TaskGroupInvalid, "A task group needs an executor".to_owned())),
            None if run.tasks.iter().any(|it| it.command.is_none()) => {
                Some((Reason::TaskInvalid, "The task has neither a command nor an executor".to_owned()))
            }
            None => None,
            Some(info) if !is_name(&info.executor_id.value) => {
                Some((Reason::TaskInvalid, "The executor's id cannot be the name of a directory".to_owned()))
            }
            Some(info) => match framework.and_then(|it| it.executors.get(&info.executor_id.value)) {
                Some(executor) if matches!(executor.phase, Phase::Terminating | Phase::Terminated) => {
                    Some((Reason::ExecutorTerminated, "The executor is terminating or terminated".to_owned()))
                }
                Some(_) => None,
                None if !run.launch_executor => {
                    Some((Reason::ExecutorTerminated, "The master wants to launch the task on an executor that is no more".to_owned()))
                }
                None => None,
            },
        }
    }

    fn drop_task(
        &mut self,
        now: Now,
        framework: &FrameworkInfo,
        task: &TaskInfo,
        (reason, message): (task_status::Reason, String),
        out: &mut Vec<Effect>,
    ) {
        let key = TaskKey { framework: framework.id.clone().unwrap_or_default().value, task: task.task_id.value.clone() };
        let mut status = Self::status(&key.task, dropped(framework), task_status::Source::Agent);
        status.reason = Some(reason as i32);
        status.message = Some(message);
        let executor = task.executor.as_ref().map(|it| it.executor_id.value.clone()).unwrap_or_default();
        self.tell_without_stream(now, &key, &executor, status, out);
    }

    fn forget_if_empty(&mut self, framework: &str) {
        if self.frameworks.get(framework).is_some_and(|it| it.executors.is_empty() && it.completed.is_empty()) {
            self.frameworks.remove(framework);
        }
    }

    fn add_executor(&mut self, now: Now, key: &ExecutorKey, mut info: ExecutorInfo, is_command: bool) {
        let container = ContainerKey::root(&render_uuid(&self.ids.uuid()));
        info.framework_id.get_or_insert_with(|| FrameworkId { value: key.framework.clone() });
        let kind = match (is_command, info.r#type()) {
            (true, _) => Kind::Command,
            (false, executor_info::Type::Default) => Kind::Default,
            (false, _) => Kind::Custom,
        };
        if kind == Kind::Custom {
            self.alarm(now.steady + self.limits.executor_registration_timeout, Alarm::Register(key.clone()));
        }
        let executor = Executor {
            info,
            kind,
            container,
            phase: Phase::Launching,
            subscribed: false,
            tasks: BTreeMap::new(),
            completed: VecDeque::new(),
            had_task: false,
            next_group: 0,
            destroyed_for: None,
            started: Started::default(),
            ended: 0,
        };
        if let Some(framework) = self.frameworks.get_mut(&key.framework) {
            framework.executors.insert(key.executor.clone(), executor);
        }
    }

    fn add_tasks(&mut self, key: &ExecutorKey, tasks: Vec<TaskInfo>, is_group: bool) {
        let mut ids: VecDeque<String> = tasks.iter().map(|_| render_uuid(&self.ids.uuid())).collect();
        let Some(executor) = self.executor_mut(key) else { return };
        let group = is_group.then_some(executor.next_group);
        executor.next_group += u64::from(is_group);
        for info in tasks {
            let mut task = Task::new(info, group);
            task.container = match executor.kind {
                Kind::Command => Some(executor.container.clone()),
                Kind::Default => ids.pop_front().map(|it| executor.container.nested(&it)),
                Kind::Custom => None,
            };
            executor.tasks.insert(task.info.task_id.value.clone(), task);
        }
    }

    fn launch_executor(&mut self, key: &ExecutorKey, out: &mut Vec<Effect>) {
        let Some(launch) = self.executor_launch(key) else { return };
        if let Some(executor) = self.executor_mut(key)
            && executor.kind == Kind::Command
        {
            executor.had_task = true;
            executor.tasks.values_mut().for_each(|it| it.delivered = true);
        }
        out.push(Effect::Launch(Box::new(launch)));
    }

    /// The container of an executor, as it is to be made or was.
    pub(super) fn executor_launch(&self, key: &ExecutorKey) -> Option<Launch> {
        let framework = self.frameworks.get(&key.framework)?;
        let executor = framework.executors.get(&key.executor)?;
        let task = executor.tasks.values().next().map(|it| it.info.clone());
        let mut resources = executor.resources();
        let (command, container_info, limits) = match (executor.kind, &task) {
            (Kind::Command, Some(task)) => {
                // What the built-in executor itself needs comes on top.
                resources.clone_from(&executor.info.resources);
                resources.extend(task.resources.iter().cloned());
                (task.command.clone(), task.container.clone(), task.limits.clone())
            }
            (Kind::Command, None) => return None,
            (Kind::Default, _) => (None, executor.info.container.clone(), executor.limits()),
            (Kind::Custom, _) => (executor.info.command.clone(), executor.info.container.clone(), executor.limits()),
        };
        if executor.kind == Kind::Command
            && container_info.as_ref().is_some_and(|it| it.r#type == container_info::Type::Docker as i32)
            && let Some(task) = &task
        {
            // Docker's container is the task's alone: no executor is in it.
            resources = task.resources.clone();
        }
        Some(Launch {
            container: executor.container.clone(),
            framework: framework.info.clone(),
            executor: executor.info.clone(),
            task: task.filter(|_| executor.kind == Kind::Command),
            command,
            container_info,
            resources,
            limits,
            session: false,
        })
    }

    /// The container of a task of a default executor.
    pub(super) fn nested_launch(&self, key: &TaskKey) -> Option<Launch> {
        let holder = self.holder(key)?;
        let framework = self.frameworks.get(&key.framework)?;
        let executor = framework.executors.get(&holder.executor)?;
        let task = executor.tasks.get(&key.task)?;
        Some(Launch {
            container: task.container.clone()?,
            framework: framework.info.clone(),
            executor: executor.info.clone(),
            task: Some(task.info.clone()),
            command: task.info.command.clone(),
            container_info: task.info.container.clone(),
            resources: task.info.resources.clone(),
            limits: task.info.limits.clone(),
            session: false,
        })
    }

    /// Gives a serving executor the tasks it has not heard of.
    pub(super) fn deliver(&mut self, key: &ExecutorKey, out: &mut Vec<Effect>) {
        let Some(executor) = self.executor_mut(key) else { return };
        // One whose stream is broken gets them when it subscribes again: what it did not hear of, it would be taken to have lost.
        if executor.phase != Phase::Running || (executor.kind == Kind::Custom && !executor.subscribed) {
            return;
        }
        // One that was killed before may wait here for its acknowledgement.
        let waits = |it: &Task| !it.delivered && it.kill.is_none() && !is_terminal(it.state);
        let mut waiting: Vec<(Option<u64>, TaskInfo)> =
            executor.tasks.values().filter(|it| waits(it)).map(|it| (it.group, it.info.clone())).collect();
        if waiting.is_empty() {
            return;
        }
        executor.had_task = true;
        executor.tasks.values_mut().filter(|it| waits(it)).for_each(|it| it.delivered = true);
        let kind = executor.kind;
        self.dirty.insert(RecordKey::Executor(key.clone()));
        self.dirty.extend(waiting.iter().map(|(_, it)| RecordKey::Task(key.clone(), it.task_id.value.clone())));
        match kind {
            Kind::Default => {
                for (_, info) in waiting {
                    let task = TaskKey { framework: key.framework.clone(), task: info.task_id.value };
                    out.extend(self.nested_launch(&task).map(|it| Effect::Launch(Box::new(it))));
                }
            }
            Kind::Custom => {
                waiting.sort_by_key(|(group, _)| *group);
                let mut groups: BTreeMap<u64, Vec<TaskInfo>> = BTreeMap::new();
                for (group, info) in waiting {
                    match group {
                        Some(group) => groups.entry(group).or_default().push(info),
                        None => {
                            let mut event = event(executor::event::Type::Launch);
                            event.launch = Some(executor::event::Launch { task: info });
                            out.push(Effect::TellExecutor { executor: key.clone(), event: Box::new(event) });
                        }
                    }
                }
                for tasks in groups.into_values() {
                    let mut event = event(executor::event::Type::LaunchGroup);
                    event.launch_group = Some(executor::event::LaunchGroup { task_group: TaskGroupInfo { tasks } });
                    out.push(Effect::TellExecutor { executor: key.clone(), event: Box::new(event) });
                }
            }
            Kind::Command => {}
        }
    }

    /// An executor's container holds its tasks: it grows and shrinks with them.
    pub(super) fn resize(&self, key: &ExecutorKey, out: &mut Vec<Effect>) {
        let Some(executor) = self.executor(key) else { return };
        let is_up = matches!(executor.phase, Phase::Registering | Phase::Running);
        if is_up && executor.kind != Kind::Command {
            out.push(Effect::Resize { container: executor.container.clone(), allowance: executor.allowance() });
        }
    }
}

/// An event for an executor.
pub(super) fn event(r#type: executor::event::Type) -> executor::Event {
    executor::Event { r#type: Some(r#type as i32), ..executor::Event::default() }
}

/// What Mesos calls the built-in executor of a command task.
fn command_executor(framework: &FrameworkInfo, task: &TaskInfo) -> ExecutorInfo {
    /// As much of a command as the name shows.
    const SHOWN: usize = 15;

    let id = &task.task_id.value;
    let command = task.command.clone().unwrap_or_default();
    let shown = match (&command.value, command.shell()) {
        (Some(value), true) => format!("(Command: sh -c '{}')", shortened(value, SHOWN)),
        (Some(value), false) => {
            let words = std::iter::once(value.as_str()).chain(command.arguments.iter().skip(1).map(String::as_str));
            format!("(Command: {})", words.collect::<Vec<_>>().join(" "))
        }
        (None, _) => "(Command: NO EXECUTABLE)".to_owned(),
    };
    ExecutorInfo {
        executor_id: ExecutorId { value: id.clone() },
        framework_id: framework.id.clone(),
        name: Some(format!("Command Executor (Task: {id}) {shown}")),
        source: Some(id.clone()),
        labels: task.labels.clone(),
        discovery: task.discovery.clone(),
        command: Some(CommandInfo { user: command.user.clone(), ..CommandInfo::default() }),
        resources: allocated_like(task, vec![scalar_resource("cpus", 0.1), scalar_resource("mem", 32.0)]),
        ..ExecutorInfo::default()
    }
}

/// With the role that the task's resources are allocated to.
fn allocated_like(task: &TaskInfo, mut resources: Vec<mesos_proto::v1::Resource>) -> Vec<mesos_proto::v1::Resource> {
    let allocation = task.resources.first().and_then(|it| it.allocation_info.clone());
    resources.iter_mut().for_each(|it| it.allocation_info.clone_from(&allocation));
    resources
}

fn shortened(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest { text.to_owned() } else { format!("{}...", text.chars().take(longest - 3).collect::<String>()) }
}

/// Ids become names of directories. The master has checked them; whoever else speaks to the agent may not have.
fn is_name(id: &str) -> bool {
    !id.is_empty() && id.len() <= 255 && id != "." && id != ".." && !id.chars().any(|it| it.is_control() || it == '/' || it == '\\')
}

/// Whether a state was reached only after a task began.
pub(super) fn has_begun(state: TaskState) -> bool {
    state != TaskState::TaskStaging
}
