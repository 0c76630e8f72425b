//! What containers do: they begin, end, or cannot be made.

use mesos_proto::v1::{
    CheckStatusInfo, TaskResourceLimitation, TaskState, TaskStatus, check_info, check_status_info, executor_info, task_status,
};

use super::run::has_begun;
use super::state::{Kill, Kind, Phase};
use super::{Alarm, Effect, Exit, Limitation, RecordKey, Started, Table};
use crate::words::{ContainerKey, ExecutorKey, Now, TaskKey, is_terminal, nanoseconds};

impl Table {
    /// The task that this container is, alone.
    fn task_of(&self, container: &ContainerKey) -> Option<TaskKey> {
        let (key, executor) = self.executor_of(container)?;
        let (task, _) = executor.tasks.iter().find(|(_, it)| it.container.as_ref() == Some(container))?;
        Some(TaskKey { framework: key.framework, task: task.clone() })
    }

    pub(super) fn started(&mut self, now: Now, container: &ContainerKey, started: Started, out: &mut Vec<Effect>) {
        let Some((key, executor)) = self.executor_of(container) else {
            // Nobody's: it was given up while it was made.
            out.push(Effect::Destroy(container.clone()));
            return;
        };
        let is_executors = executor.container == *container;
        let kind = executor.kind;
        if is_executors && let Some(executor) = self.executor_mut(&key) {
            executor.started = started.clone();
            executor.phase = match (executor.phase, kind) {
                (Phase::Launching, Kind::Custom) if executor.subscribed => Phase::Running,
                (Phase::Launching, Kind::Custom) => Phase::Registering,
                (Phase::Launching, _) => Phase::Running,
                (phase, _) => phase,
            };
            self.dirty.insert(RecordKey::Executor(key.clone()));
        }
        if is_executors && kind != Kind::Command {
            self.deliver(&key, out);
            return;
        }
        if let Some(task) = self.task_of(container) {
            self.task_started(now, &task, container, started, out);
        }
    }

    fn task_started(&mut self, now: Now, key: &TaskKey, container: &ContainerKey, started: Started, out: &mut Vec<Effect>) {
        let Some(task) = self.task_mut(key) else { return };
        let was_running = has_begun(task.state);
        task.started = Some(Started { inspected: None, ..started.clone() });
        task.running_since = Some(now.steady);
        if is_terminal(task.state) {
            out.push(Effect::Destroy(container.clone()));
            return;
        }
        if let Some(kill) = task.kill.clone() {
            // Killed while it was made, or before a restart: it goes on where it was.
            let forced = kill.forced || kill.in_launch;
            self.end_container(now, key, container, kill.grace, forced, out);
            return;
        }
        let info = task.info.clone();
        task.check = info.check.as_ref().map(|it| empty_check(it.r#type()));
        if !was_running {
            // Who takes the newest by its time takes the second.
            for (state, later) in [(TaskState::TaskStarting, 0.0), (TaskState::TaskRunning, 0.001)] {
                let now = Now { wall: now.wall + later, ..now };
                let mut status = Self::status(&key.task, state, task_status::Source::Executor);
                if state == TaskState::TaskRunning {
                    status.data.clone_from(&started.inspected);
                }
                self.update(now, key, status, out);
            }
        }
        if let Some(longest) = info.max_completion_time {
            self.alarm(now.steady + nanoseconds(longest.nanoseconds), Alarm::MaxCompletion(key.clone()));
        }
        if info.health_check.is_some() || info.check.is_some() {
            out.push(Effect::StartChecks { task: key.clone(), container: container.clone(), info: Box::new(info) });
        }
    }

    pub(super) fn launch_failed(&mut self, now: Now, container: &ContainerKey, message: &str, restarted: bool, out: &mut Vec<Effect>) {
        if !restarted && self.executor_of(container).is_some() {
            self.counts.launch_errors += 1;
        }
        let Some((key, executor)) = self.executor_of(container) else { return };
        if executor.container != *container {
            if let Some(task) = self.task_of(container) {
                self.never_ran(now, &task, message, restarted, out);
                self.member_ended(now, &key, &task, out);
            }
            return;
        }
        let tasks: Vec<TaskKey> =
            executor.tasks.keys().map(|task| TaskKey { framework: key.framework.clone(), task: task.clone() }).collect();
        let destroyed_for = executor.destroyed_for.clone();
        for task in tasks {
            match &destroyed_for {
                Some((reason, message)) => self.ended_with_executor(now, &task, *reason, message, None, out),
                None => self.never_ran(now, &task, message, restarted, out),
            }
        }
        self.executor_over(&key, None, out);
    }

    /// Ends a task whose container could not be made.
    fn never_ran(&mut self, now: Now, key: &TaskKey, message: &str, restarted: bool, out: &mut Vec<Effect>) {
        let Some(task) = self.task(key) else { return };
        let mut status = match &task.kill {
            Some(kill) if kill.in_launch => {
                let mut status = Self::status(&key.task, TaskState::TaskKilled, task_status::Source::Agent);
                status.reason = Some(task_status::Reason::TaskKilledDuringLaunch as i32);
                status
            }
            _ if restarted => {
                // One that had begun is no more: the machine was restarted.
                let after = if has_begun(task.state) { TaskState::TaskGone } else { TaskState::TaskFailed };
                let state = self.ended_state(&key.framework, task.state, after);
                let mut status = Self::status(&key.task, state, task_status::Source::Agent);
                status.reason = Some(task_status::Reason::AgentRestarted as i32);
                status
            }
            _ => {
                let mut status = Self::status(&key.task, TaskState::TaskFailed, task_status::Source::Agent);
                status.reason = Some(task_status::Reason::ContainerLaunchFailed as i32);
                status
            }
        };
        status.message = Some(message.to_owned());
        self.update(now, key, status, out);
    }

    pub(super) fn exited(&mut self, now: Now, container: &ContainerKey, exit: &Exit, out: &mut Vec<Effect>) {
        let Some((key, executor)) = self.executor_of(container) else { return };
        let kind = executor.kind;
        let is_executors = executor.container == *container;
        if is_executors && kind != Kind::Command {
            self.executor_exited(now, &key, exit, out);
            return;
        }
        if let Some(task) = self.task_of(container) {
            self.task_exited(now, &task, exit, out);
            if !is_executors {
                self.member_ended(now, &key, &task, out);
            }
        }
        if is_executors {
            self.executor_over(&key, exit.status, out);
        }
    }

    fn task_exited(&mut self, now: Now, key: &TaskKey, exit: &Exit, out: &mut Vec<Effect>) {
        let Some(task) = self.task(key) else { return };
        let holder = self.holder(key).and_then(|it| self.executor(&it));
        let destroyed_for = holder.and_then(|it| it.destroyed_for.clone());
        let is_docker = task.info.container.as_ref().is_some_and(|it| it.docker.is_some());
        let status = match (&exit.limitation, &task.kill, destroyed_for) {
            (Some(limitation), _, _) => limited(&key.task, limitation),
            (None, Some(kill), _) => killed(&key.task, kill, exit, is_docker),
            (None, None, Some((reason, message))) => {
                let mut status = Self::status(&key.task, TaskState::TaskFailed, task_status::Source::Agent);
                status.reason = Some(reason as i32);
                status.message = Some(message);
                status
            }
            (None, None, None) => {
                let (state, message) = outcome(exit.status, is_docker);
                let mut status = Self::status(&key.task, state, task_status::Source::Executor);
                status.message = Some(message);
                status
            }
        };
        self.update(now, key, status, out);
    }

    fn executor_exited(&mut self, now: Now, key: &ExecutorKey, exit: &Exit, out: &mut Vec<Effect>) {
        let Some(executor) = self.executor(key) else { return };
        let (reason, message) = match (&exit.limitation, executor.destroyed_for.clone()) {
            (Some(limitation), _) => (limitation.reason, limitation.message.clone()),
            (None, Some(why)) => why,
            (None, None) => (task_status::Reason::ExecutorTerminated, executor_end(exit.status)),
        };
        let tasks: Vec<TaskKey> =
            executor.tasks.keys().map(|task| TaskKey { framework: key.framework.clone(), task: task.clone() }).collect();
        for task in tasks {
            self.ended_with_executor(now, &task, reason, &message, exit.limitation.as_ref(), out);
        }
        self.executor_over(key, exit.status, out);
    }

    /// Ends a task because its executor is over.
    fn ended_with_executor(
        &mut self,
        now: Now,
        key: &TaskKey,
        reason: task_status::Reason,
        message: &str,
        limitation: Option<&Limitation>,
        out: &mut Vec<Effect>,
    ) {
        let Some(task) = self.task(key) else { return };
        let state = match reason {
            task_status::Reason::ExecutorReregistrationTimeout => self.ended_state(&key.framework, task.state, TaskState::TaskGone),
            _ => TaskState::TaskFailed,
        };
        let mut status = match &task.kill {
            Some(kill) if kill.in_launch => {
                let mut status = Self::status(&key.task, TaskState::TaskKilled, task_status::Source::Agent);
                status.reason = Some(task_status::Reason::TaskKilledDuringLaunch as i32);
                status
            }
            _ => {
                let mut status = Self::status(&key.task, state, task_status::Source::Agent);
                status.reason = Some(reason as i32);
                status
            }
        };
        status.message = Some(message.to_owned());
        status.limitation = limitation.map(|it| TaskResourceLimitation { resources: it.resources.clone() });
        self.update(now, key, status, out);
    }

    /// The container of an executor is no more.
    pub(super) fn executor_over(&mut self, key: &ExecutorKey, status: Option<i32>, out: &mut Vec<Effect>) {
        let Some(executor) = self.executor_mut(key) else { return };
        if executor.phase == Phase::Terminated {
            return;
        }
        executor.phase = Phase::Terminated;
        let was_subscribed = std::mem::take(&mut executor.subscribed);
        let kind = executor.kind;
        self.counts.executors_terminated += 1;
        self.silence(&Alarm::Register(key.clone()));
        self.silence(&Alarm::DestroyExecutor(key.clone()));
        self.dirty.insert(RecordKey::Executor(key.clone()));
        if was_subscribed {
            out.push(Effect::CloseExecutor(key.clone()));
        }
        // The master never heard of built-in executors of command tasks.
        if kind != Kind::Command {
            out.push(Effect::SendExecutorExited { executor: key.clone(), status: status.unwrap_or(-1) });
        }
    }

    /// A task of a default executor is over: its group may have to follow, and after the last task the executor.
    fn member_ended(&mut self, now: Now, key: &ExecutorKey, ended: &TaskKey, out: &mut Vec<Effect>) {
        let Some(executor) = self.executor(key) else { return };
        let Some(task) = executor.tasks.get(&ended.task) else { return };
        let (group, container) = (task.group, executor.container.clone());
        if task.state != TaskState::TaskFinished {
            let others: Vec<TaskKey> = executor
                .tasks
                .iter()
                .filter(|(_, it)| it.group == group && !is_terminal(it.state))
                .map(|(task, _)| TaskKey { framework: key.framework.clone(), task: task.clone() })
                .collect();
            for other in others {
                self.kill(now, &other, None, out);
            }
        }
        // What it had is not the group's any more.
        if self.executor(key).is_some_and(super::Executor::is_busy) {
            self.resize(key, out);
        }
        let Some(executor) = self.executor_mut(key) else { return };
        if executor.info.r#type() == executor_info::Type::Default && !executor.is_busy() && executor.phase != Phase::Terminated {
            executor.phase = Phase::Terminating;
            out.push(Effect::Destroy(container));
        }
    }
}

/// How a task ended that nobody ended.
fn outcome(status: Option<i32>, is_docker: bool) -> (TaskState, String) {
    match status {
        Some(status) if libc::WIFEXITED(status) => {
            let code = libc::WEXITSTATUS(status);
            let state = if code == 0 { TaskState::TaskFinished } else { TaskState::TaskFailed };
            (state, format!("{} exited with status {code}", if is_docker { "Container" } else { "Command" }))
        }
        Some(status) if libc::WIFSIGNALED(status) => {
            (TaskState::TaskFailed, format!("Command terminated with signal {}", signal_name(libc::WTERMSIG(status))))
        }
        _ => (TaskState::TaskFailed, "Nobody knows how the command ended".to_owned()),
    }
}

fn executor_end(status: Option<i32>) -> String {
    match status {
        Some(status) if libc::WIFEXITED(status) => format!("Executor exited with status {}", libc::WEXITSTATUS(status)),
        Some(status) if libc::WIFSIGNALED(status) => format!("Executor terminated with signal {}", signal_name(libc::WTERMSIG(status))),
        _ => "Executor terminated".to_owned(),
    }
}

/// As strsignal(3) has it.
pub(super) fn signal_name(signal: i32) -> String {
    match signal {
        libc::SIGHUP => "Hangup".to_owned(),
        libc::SIGINT => "Interrupt".to_owned(),
        libc::SIGQUIT => "Quit".to_owned(),
        libc::SIGILL => "Illegal instruction".to_owned(),
        libc::SIGTRAP => "Trace/breakpoint trap".to_owned(),
        libc::SIGABRT => "Aborted".to_owned(),
        libc::SIGBUS => "Bus error".to_owned(),
        libc::SIGFPE => "Floating point exception".to_owned(),
        libc::SIGKILL => "Killed".to_owned(),
        libc::SIGUSR1 => "User defined signal 1".to_owned(),
        libc::SIGSEGV => "Segmentation fault".to_owned(),
        libc::SIGUSR2 => "User defined signal 2".to_owned(),
        libc::SIGPIPE => "Broken pipe".to_owned(),
        libc::SIGALRM => "Alarm clock".to_owned(),
        libc::SIGTERM => "Terminated".to_owned(),
        libc::SIGXCPU => "CPU time limit exceeded".to_owned(),
        libc::SIGXFSZ => "File size limit exceeded".to_owned(),
        libc::SIGSYS => "Bad system call".to_owned(),
        other => format!("Unknown signal {other}"),
    }
}

fn limited(task: &str, limitation: &Limitation) -> TaskStatus {
    let mut status = Table::status(task, TaskState::TaskFailed, task_status::Source::Agent);
    status.reason = Some(limitation.reason as i32);
    status.message = Some(limitation.message.clone());
    status.limitation = Some(TaskResourceLimitation { resources: limitation.resources.clone() });
    status
}

fn killed(task: &str, kill: &Kill, exit: &Exit, is_docker: bool) -> TaskStatus {
    if let Some(limitation) = &kill.limitation {
        return limited(task, limitation);
    }
    let mut status = Table::status(task, kill.ends, task_status::Source::Executor);
    status.reason = kill.reason.map(|it| it as i32);
    let ended = outcome(exit.status, is_docker).1;
    status.message = Some(kill.message.clone().unwrap_or(ended));
    status
}

/// What a check says before it has looked.
fn empty_check(r#type: check_info::Type) -> CheckStatusInfo {
    let mut status = CheckStatusInfo { r#type: Some(r#type as i32), ..CheckStatusInfo::default() };
    match r#type {
        check_info::Type::Command => status.command = Some(check_status_info::Command::default()),
        check_info::Type::Http => status.http = Some(check_status_info::Http::default()),
        check_info::Type::Tcp => status.tcp = Some(check_status_info::Tcp::default()),
        check_info::Type::Unknown => {}
    }
    status
}
