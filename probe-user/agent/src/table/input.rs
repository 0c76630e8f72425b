//! What can happen to the table.

use std::time::Duration;

use mesos_proto::v1::{CheckStatusInfo, ExecutorInfo, FrameworkInfo, KillPolicy, Resource, TaskInfo, TaskStatus, task_status};

use crate::words::{ContainerKey, ExecutorKey, TaskKey};

/// Everything that can happen to the table.
#[derive(Clone, Debug)]
pub enum Input {
    /// The master registered this agent, on a new stream.
    Registered {
        /// The agent's id.
        agent_id: String,
        /// How many updates may be under way.
        updates_in_flight: usize,
    },
    /// The stream to the master is no more.
    Disconnected,
    /// One task, or a group of tasks for one executor.
    Run(Box<Run>),
    /// A framework, the master or an operator wants a task to end.
    Kill {
        /// Which.
        task: TaskKey,
        /// Instead of the task's own.
        policy: Option<KillPolicy>,
    },
    /// A framework has an update.
    Acknowledge {
        /// Of which task.
        task: TaskKey,
        /// The update's.
        uuid: Vec<u8>,
    },
    /// From a scheduler to its executor.
    FrameworkMessage {
        /// To whom.
        executor: ExecutorKey,
        /// What.
        data: Vec<u8>,
    },
    /// An executor is to end.
    ShutdownExecutor(ExecutorKey),
    /// A framework is no more.
    ShutdownFramework(String),
    /// A framework describes itself anew.
    UpdateFramework(Box<FrameworkInfo>),
    /// Tasks that the master has for this agent, some of which the agent may not know.
    Reconcile {
        /// Of which framework.
        framework: String,
        /// Task ids.
        tasks: Vec<String>,
    },
    /// All tasks are to end, no new ones begin.
    Drain(Drain),
    /// Tasks may begin again.
    Undrain,
    /// The agent is no longer wanted: all ends.
    ShutdownAgent,
    /// A container runs, or was found running after a restart.
    Started {
        /// Which.
        container: ContainerKey,
        /// What is known of it.
        started: Box<Started>,
    },
    /// A container could not be made.
    LaunchFailed {
        /// Which.
        container: ContainerKey,
        /// Why, for people.
        message: String,
        /// It never ran because the agent was restarted.
        restarted: bool,
    },
    /// All processes of a container are over.
    Exited {
        /// Which.
        container: ContainerKey,
        /// How.
        exit: Exit,
    },
    /// An executor opened its stream.
    Subscribed {
        /// Which.
        executor: ExecutorKey,
        /// Tasks it has and no acknowledged update of.
        tasks: Vec<TaskInfo>,
        /// Updates it has sent and knows no acknowledgement of.
        updates: Vec<TaskStatus>,
    },
    /// An executor's stream broke.
    Unsubscribed(ExecutorKey),
    /// An executor tells of its task.
    ExecutorUpdate {
        /// Which.
        executor: ExecutorKey,
        /// What.
        status: Box<TaskStatus>,
    },
    /// An executor speaks to its scheduler.
    ExecutorMessage {
        /// Which.
        executor: ExecutorKey,
        /// What.
        data: Vec<u8>,
    },
    /// A health check came out.
    Health {
        /// Of which task.
        task: TaskKey,
        /// In which container; a late result of an earlier one is ignored.
        container: ContainerKey,
        /// Why it is not well, if so.
        result: Result<(), String>,
    },
    /// A general check came out.
    Check {
        /// Of which task.
        task: TaskKey,
        /// In which container.
        container: ContainerKey,
        /// What.
        status: CheckStatusInfo,
    },
    /// A deadline of [`Table::next_deadline`] has passed.
    Tick,
}

/// What is to run.
#[derive(Clone, Debug)]
pub struct Run {
    /// For whom.
    pub framework: FrameworkInfo,
    /// One, or the members of a group.
    pub tasks: Vec<TaskInfo>,
    /// Whether they live and die together.
    pub group: bool,
    /// `None`: a command task.
    pub executor: Option<ExecutorInfo>,
    /// Whether the executor may be launched for it.
    pub launch_executor: bool,
    /// Why it cannot run, where somebody has found out already.
    pub refused: Option<(task_status::Reason, String)>,
}

/// How the agent is emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Longest kill grace period.
    pub max_grace_period: Option<Duration>,
    /// The agent will not come back.
    pub mark_gone: bool,
}

/// What is known of a container that runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Started {
    /// Of its first process.
    pub pid: Option<u32>,
    /// Its addresses, where it has some of its own.
    pub addresses: Vec<String>,
    /// What Docker says of it, as `docker inspect` prints it.
    pub inspected: Option<Vec<u8>>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exit {
    /// As wait(2) gives it; `None` when nobody knows.
    pub status: Option<i32>,
    /// The limit that it was ended for.
    pub limitation: Option<Limitation>,
}

/// The limit that a container was ended for.
#[derive(Clone, Debug, PartialEq)]
pub struct Limitation {
    /// Which.
    pub reason: task_status::Reason,
    /// For people.
    pub message: String,
    /// What it had used or could have used.
    pub resources: Vec<Resource>,
}
