//! What can happen to the master.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use mesos::{AgentId, ExecutorId, FrameworkId};
use mesos_proto::v1;
use v1::scheduler;

/// One event stream of a framework: the value of its `Mesos-Stream-Id` header. The edge makes it, different for every stream.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(Arc<str>);

impl StreamId {
    /// The header's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for StreamId {
    fn from(id: &str) -> Self {
        StreamId(id.into())
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One connection of an agent. The edge makes it, different for every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Where the answer to a call goes. Each is answered exactly once, some only after the registry is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplySlot(pub u64);

/// Everything that can happen to the master.
#[derive(Clone, Debug)]
pub enum Input {
    /// A framework opened an event stream with SUBSCRIBE. The edge has answered 200 already: what is wrong with the content becomes an ERROR event.
    /// What is wrong with the form ([`crate::scheduler_call_error`]) is the edge's to refuse before.
    Subscribe {
        /// Where its events go from now on.
        stream: StreamId,
        /// Who it authenticated as.
        principal: Option<Arc<str>>,
        /// What it asks for.
        subscribe: Box<scheduler::call::Subscribe>,
    },
    /// Any other call of the scheduler API. Answered at `reply`: 202 or 200, or refused.
    Call {
        /// Where the answer goes.
        reply: ReplySlot,
        /// The `Mesos-Stream-Id` header, if there was one.
        stream: Option<StreamId>,
        /// Who called.
        principal: Option<Arc<str>>,
        /// The call; `framework_id` is set.
        call: Box<scheduler::Call>,
    },
    /// An event stream broke, was closed by the framework, or did not take its events fast enough.
    StreamClosed {
        /// Which.
        stream: StreamId,
    },
    /// An agent opened a connection and stated everything it holds.
    Register {
        /// Where messages for it go from now on.
        link: LinkId,
        /// Who and what it is. Boxed: it can be megabytes.
        register: Box<Register>,
    },
    /// A connected agent tells something.
    Agent {
        /// Which.
        link: LinkId,
        /// What.
        message: FromAgent,
    },
    /// A connection of an agent broke.
    LinkClosed {
        /// Which.
        link: LinkId,
    },
    /// A call of the operator API that changes something; those that only read are answered from [`crate::Snapshot`].
    Operator {
        /// Where the answer goes.
        reply: ReplySlot,
        /// Who called.
        principal: Option<Arc<str>>,
        /// The call.
        call: Box<v1::master::Call>,
    },
    /// Only agents on these hosts are offered from now on; none: all are.
    Whitelist {
        /// Their names.
        hostnames: Option<BTreeSet<String>>,
    },
    /// Whether anybody watches the operator API's event stream. What nobody hears is not put into words: after a failover that is a message for each
    /// task. A master that was not told takes it that somebody does.
    Watched {
        /// Somebody does.
        by_anybody: bool,
    },
    /// A write that [`crate::Effect::Persist`] asked for is durable. Writes are confirmed in the order in which they were asked for.
    Stored {
        /// Which.
        write: u64,
    },
    /// A write failed or took too long. The master must not go on.
    StoreFailed {
        /// For people.
        reason: String,
    },
    /// Time has passed: at [`crate::Master::next_deadline`] or later.
    Tick,
}

/// How an agent introduces itself, and everything it holds.
#[derive(Clone, Debug, Default)]
pub struct Register {
    /// Who it authenticated as.
    pub principal: Option<Arc<str>>,
    /// Hostname, port, attributes, domain, configured resources. `id` is set when it was registered before.
    pub info: v1::AgentInfo,
    /// `slave(1)@<ip>:<port>`.
    pub pid: String,
    /// Whether its HTTP API is spoken over TLS.
    pub tls: bool,
    /// Mesos version that it speaks.
    pub version: String,
    /// What it can do.
    pub capabilities: Vec<v1::agent_info::Capability>,
    /// All its resources as they are now, with dynamic reservations and volumes.
    pub total_resources: Vec<v1::Resource>,
    /// Revocable resources beyond those.
    pub oversubscribed_resources: Vec<v1::Resource>,
    /// Changes with every operation that the master did not speculate on; empty when unknown.
    pub resource_version: Vec<u8>,
    /// Every framework that has something there.
    pub frameworks: Vec<v1::FrameworkInfo>,
    /// Its executors with those of tasks left out that the agent itself brings.
    pub executors: Vec<(FrameworkId, v1::ExecutorInfo)>,
    /// Every task that is not over, or whose end is not acknowledged.
    pub tasks: Vec<v1::Task>,
    /// Every operation that is not over, or whose status is not acknowledged.
    pub operations: Vec<v1::Operation>,
    /// Frameworks that are over there, with some of what they ran.
    pub completed_frameworks: Vec<(v1::FrameworkInfo, Vec<v1::Task>)>,
    /// Set while it drains.
    pub drain: Option<v1::DrainConfig>,
}

/// What a connected agent tells.
#[derive(Clone, Debug)]
pub enum FromAgent {
    /// It lives.
    Pong,
    /// What became of a task. Sent again until the framework's acknowledgement is passed on.
    StatusUpdate {
        /// Whose.
        framework_id: FrameworkId,
        /// `uuid`, `agent_id`, `source`, `timestamp` are set.
        status: Box<v1::TaskStatus>,
        /// The newest state that the agent knows; may be ahead of `status`.
        latest_state: v1::TaskState,
    },
    /// What became of an operation.
    OperationStatusUpdate {
        /// Whose; nobody's when an operator asked for it.
        framework_id: Option<FrameworkId>,
        /// Names the operation between master and agent.
        operation_uuid: Vec<u8>,
        /// `uuid` is set while it is to be acknowledged.
        status: Box<v1::OperationStatus>,
        /// The newest state that the agent knows.
        latest_state: v1::OperationState,
        /// All resources after a finished one; empty: as the master thinks.
        total_resources: Vec<v1::Resource>,
    },
    /// From an executor to its framework's scheduler.
    ExecutorMessage {
        /// To whom.
        framework_id: FrameworkId,
        /// From whom.
        executor_id: ExecutorId,
        /// What.
        data: Vec<u8>,
    },
    /// An executor ended.
    ExecutorExited {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
        /// As wait(2) gives it; -1 when unknown.
        status: i32,
    },
    /// The agent's resources are others than it said.
    ResourcesChanged {
        /// All of them; empty: unchanged.
        total_resources: Vec<v1::Resource>,
        /// As in [`Register`].
        resource_version: Vec<u8>,
        /// Revocable ones, all of them.
        oversubscribed_resources: Vec<v1::Resource>,
    },
    /// It ends and will not come back under this id.
    Unregister,
}

/// What an agent is asked to do, or told.
#[derive(Clone, Debug)]
pub enum ToAgent {
    /// It is registered, and that is stored. The first message on a link.
    Registered {
        /// A new id, or the one it came with.
        agent_id: AgentId,
    },
    /// It is not taken; the link is closed after this.
    Refused {
        /// What it has to do.
        reason: Refused,
        /// For people.
        message: String,
    },
    /// Answered by [`FromAgent::Pong`].
    Ping {
        /// Whether the master counts it as connected; if not, it registers again.
        connected: bool,
    },
    /// Run one task.
    RunTask {
        /// Whose.
        framework: Arc<v1::FrameworkInfo>,
        /// Validated; its resources are allocated.
        task: Box<v1::TaskInfo>,
        /// Whether its executor is to be started for it.
        launch_executor: bool,
        /// As the agent last told; empty when unknown.
        resource_version: Vec<u8>,
    },
    /// Run several tasks together.
    RunTaskGroup {
        /// Whose.
        framework: Arc<v1::FrameworkInfo>,
        /// Their executor.
        executor: Box<v1::ExecutorInfo>,
        /// Validated.
        task_group: Box<v1::TaskGroupInfo>,
        /// Whether the executor is to be started for it.
        launch_executor: bool,
        /// As the agent last told; empty when unknown.
        resource_version: Vec<u8>,
    },
    /// Kill a task.
    KillTask {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: mesos::TaskId,
        /// Instead of the task's own.
        kill_policy: Option<v1::KillPolicy>,
    },
    /// The framework has acknowledged an update.
    AcknowledgeStatusUpdate {
        /// Whose.
        framework_id: FrameworkId,
        /// Of which task.
        task_id: mesos::TaskId,
        /// Which update.
        uuid: Vec<u8>,
    },
    /// From a framework's scheduler to an executor.
    FrameworkMessage {
        /// From whom.
        framework_id: FrameworkId,
        /// To whom.
        executor_id: ExecutorId,
        /// What.
        data: Vec<u8>,
    },
    /// Stop an executor.
    ShutdownExecutor {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
    },
    /// Stop everything of a framework.
    ShutdownFramework {
        /// Which.
        framework_id: FrameworkId,
    },
    /// A framework describes itself anew.
    UpdateFramework {
        /// The whole description.
        framework: Arc<v1::FrameworkInfo>,
    },
    /// Change resources.
    ApplyOperation {
        /// Whose; nobody's when an operator asked for it.
        framework_id: Option<FrameworkId>,
        /// What.
        operation: Box<v1::offer::Operation>,
        /// Names it between master and agent: 16 bytes.
        operation_uuid: Vec<u8>,
        /// As the agent last told; empty when unknown.
        resource_version: Vec<u8>,
    },
    /// The framework has acknowledged a status of an operation.
    AcknowledgeOperationStatus {
        /// Of which operation.
        operation_uuid: Vec<u8>,
        /// Which status.
        status_uuid: Vec<u8>,
    },
    /// Tell what became of these operations.
    ReconcileOperations {
        /// Which.
        operation_uuids: Vec<Vec<u8>>,
    },
    /// Kill all tasks, take no new ones.
    Drain {
        /// How.
        config: v1::DrainConfig,
    },
    /// Take tasks again.
    Undrain,
    /// Kill everything and end. The link is closed after this.
    Shutdown {
        /// For its log.
        message: String,
    },
}

/// What an agent that is not taken has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Kill its tasks and end: it is marked gone, its machine is down, or its identity belongs to another.
    Shutdown,
    /// Say so in the log and try again with back-off: what it registers with is malformed or not allowed.
    Invalid,
    /// Try again with back-off.
    Later,
    /// Nothing: a newer link of the same agent has come.
    Replaced,
}
