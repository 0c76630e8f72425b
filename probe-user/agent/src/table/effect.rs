//! What the table asks of the world.

use std::collections::BTreeMap;
use std::time::Duration;

use mesos_proto::v1::{
    CommandInfo, ContainerInfo, ExecutorInfo, FrameworkInfo, Resource, TaskInfo, TaskState, TaskStatus, executor::Event, value,
};

use crate::words::{ContainerKey, ExecutorKey, TaskKey};

/// A container that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Its name.
    pub container: ContainerKey,
    /// For whom.
    pub framework: FrameworkInfo,
    /// Its executor, built in or not.
    pub executor: ExecutorInfo,
    /// The task that it is, where it is one.
    pub task: Option<TaskInfo>,
    /// What it runs. `None`: nothing, it holds the containers of a task group.
    pub command: Option<CommandInfo>,
    /// How it is made.
    pub container_info: Option<ContainerInfo>,
    /// What it may use.
    pub resources: Vec<Resource>,
    /// What it may use at most, where that is more.
    pub limits: BTreeMap<String, value::Scalar>,
    /// Whether somebody is to be connected to its input.
    pub session: bool,
}

impl Launch {
    /// Whether somebody is to be connected to its input.
    pub fn is_session(&self) -> bool {
        self.session
    }

    /// Whether it is held to its resources by itself. A nested container has what the outermost one has together, unless it asks not to
    /// (`LinuxInfo.share_cgroups`).
    pub fn has_own_limits(&self) -> bool {
        let linux = self.container_info.as_ref().and_then(|it| it.linux_info.as_ref());
        self.container.parent().is_none() || linux.is_some_and(|it| it.share_cgroups == Some(false))
    }

    /// Whether a Docker daemon makes it.
    pub fn is_docker(&self) -> bool {
        self.container_info.as_ref().is_some_and(|it| it.r#type == mesos_proto::v1::container_info::Type::Docker as i32)
    }
}

/// What a container may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allowance {
    /// What it was given.
    pub resources: Vec<Resource>,
    /// What it may use at most, where that is more: `cpus`, and `mem` in megabytes. Infinite where nothing holds it back.
    pub limits: BTreeMap<String, value::Scalar>,
}

/// Everything the table may ask of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make a container. Answered by Started, LaunchFailed or Exited.
    Launch(Box<Launch>),
    /// Look after a container that was made before the agent's restart. Answered the same way.
    Reattach(Box<Launch>),
    /// Ask the processes of a container to end, within this time where the container's runtime sees to that.
    Terminate {
        /// Which.
        container: ContainerKey,
        /// How long they have.
        grace: Duration,
    },
    /// End a container now. Answered by Exited, or LaunchFailed when it was being made.
    Destroy(ContainerKey),
    /// Give a container other limits.
    Resize {
        /// Which.
        container: ContainerKey,
        /// What it may use from now on.
        allowance: Allowance,
    },
    /// Tell the master what became of a task.
    SendUpdate {
        /// Of which.
        task: TaskKey,
        /// Of which executor.
        executor: String,
        /// What.
        status: Box<TaskStatus>,
        /// The newest state there is.
        latest: TaskState,
    },
    /// Tell the master that an executor is over.
    SendExecutorExited {
        /// Which.
        executor: ExecutorKey,
        /// As wait(2) gives it, or -1.
        status: i32,
    },
    /// Pass data from an executor to its scheduler.
    SendMessage {
        /// From whom.
        executor: ExecutorKey,
        /// What.
        data: Vec<u8>,
    },
    /// Tell an executor.
    TellExecutor {
        /// Whom.
        executor: ExecutorKey,
        /// What.
        event: Box<Event>,
    },
    /// End the stream of an executor.
    CloseExecutor(ExecutorKey),
    /// Begin to check a task.
    StartChecks {
        /// Which.
        task: TaskKey,
        /// Where it runs.
        container: ContainerKey,
        /// As the framework described it.
        info: Box<TaskInfo>,
    },
    /// Stop checking it.
    StopChecks(TaskKey),
    /// A container's sandbox may be deleted, some time.
    CollectSandbox(ContainerKey),
    /// Everything has ended as it was wanted: the agent may end.
    AgentEmpty,
}
