//! The words of the Mesos scheduler API that the scheduler needs: what it may ask, and what it may hear.
//!
//! The edge turns them into the API's own messages and back. Numbers are as Mesos compares them: thousandths.

use base::Timestamp;

use crate::launch::Launch;

/// A resource of an offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// `cpus`, `mem`, `disk`, `gpus`, `ports` or another.
    pub name: String,
    /// How much or which.
    pub value: ResourceValue,
    /// Reservations, the least refined first; none: unreserved.
    pub reservations: Vec<Reservation>,
    /// What makes a disk special.
    pub disk: Option<Disk>,
    /// Provider, when it is not the agent.
    pub provider: Option<String>,
    /// Whether it may be taken away.
    pub revocable: bool,
    /// Whether it may be used by several.
    pub shared: bool,
}

/// How much or which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceValue {
    /// Thousandths.
    Scalar(i64),
    /// From and to, both included.
    Ranges(Vec<(u64, u64)>),
    /// Names.
    Set(Vec<String>),
}

/// A claim on a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    /// For which role.
    pub role: String,
    /// Made by an operator's or a framework's call, not by the agent's configuration.
    pub dynamic: bool,
    /// By whom.
    pub principal: Option<String>,
    /// What the one who made it wrote on it.
    pub labels: Vec<(String, Option<String>)>,
}

/// What makes a disk special.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Id of the persistent volume and its principal.
    pub persistence: Option<(String, Option<String>)>,
    /// Where it is mounted.
    pub container_path: Option<String>,
    /// Kind of disk; none: the agent's own.
    pub source: Option<DiskSource>,
}

/// An additional disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskSource {
    /// `PATH`, `MOUNT`, `BLOCK` or `RAW`.
    pub kind: String,
    /// Its root directory.
    pub root: Option<String>,
    /// Its profile.
    pub profile: Option<String>,
    /// Its id.
    pub id: Option<String>,
    /// Its vendor.
    pub vendor: Option<String>,
}

/// Labels of a reservation of ours.
pub const FRAMEWORK_LABEL: &str = "marathon_framework_id";
/// The instance that a reservation of ours is for.
pub const INSTANCE_LABEL: &str = "marathon_task_id";

impl Resource {
    /// The role it is reserved for; `*` when it is not.
    pub fn role(&self) -> &str {
        self.reservations.last().map_or("*", |it| it.role.as_str())
    }

    /// The value of a label of its reservation.
    pub fn label(&self, key: &str) -> Option<&str> {
        let labels = &self.reservations.last()?.labels;
        labels.iter().find(|(name, _)| name == key).and_then(|(_, value)| value.as_deref())
    }

    /// Thousandths; 0 when it is no scalar.
    pub fn scalar(&self) -> i64 {
        match self.value {
            ResourceValue::Scalar(value) => value,
            _ => 0,
        }
    }
}

/// Thousandths of `value`, rounded as Mesos does.
#[expect(clippy::cast_possible_truncation, reason = "saturates; a float beyond it is no amount of anything")]
pub fn thousandths(value: f64) -> i64 {
    (value * 1_000.0).round() as i64
}

/// Resources of one agent that may be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offer {
    /// Its id.
    pub id: String,
    /// The agent.
    pub agent_id: String,
    /// The agent's host.
    pub hostname: String,
    /// For which of our roles.
    pub role: String,
    /// What.
    pub resources: Vec<Resource>,
    /// What the agent says of itself.
    pub attributes: Vec<(String, Attribute)>,
    /// Where the agent is.
    pub region: Option<String>,
    /// Where in it.
    pub zone: Option<String>,
    /// When the agent goes away for maintenance.
    pub unavailable_from: Option<Timestamp>,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Text.
    Text(String),
    /// Thousandths.
    Scalar(i64),
    /// From and to.
    Ranges(Vec<(u64, u64)>),
    /// Names.
    Set(Vec<String>),
}

impl Attribute {
    /// As constraints see it.
    pub fn text(&self) -> String {
        match self {
            Attribute::Text(text) => text.clone(),
            Attribute::Scalar(value) => {
                let (sign, whole, rest) = (if *value < 0 { "-" } else { "" }, (value / 1_000).abs(), (value % 1_000).abs());
                let text = format!("{sign}{whole}.{rest:03}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            Attribute::Ranges(ranges) => {
                let ranges: Vec<String> = ranges.iter().map(|(from, to)| format!("{from}-{to}")).collect();
                format!("[{}]", ranges.join(","))
            }
            Attribute::Set(names) => format!("{{{}}}", names.join(",")),
        }
    }
}

/// State of a task, as Mesos names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words are Mesos's own")]
pub enum TaskState {
    Staging,
    Starting,
    Running,
    Killing,
    Finished,
    Failed,
    Killed,
    Error,
    Lost,
    Dropped,
    Unreachable,
    Gone,
    GoneByOperator,
    Unknown,
}

impl TaskState {
    /// Every state with its word.
    pub const ALL: [(TaskState, &'static str); 14] = [
        (TaskState::Staging, "TASK_STAGING"),
        (TaskState::Starting, "TASK_STARTING"),
        (TaskState::Running, "TASK_RUNNING"),
        (TaskState::Killing, "TASK_KILLING"),
        (TaskState::Finished, "TASK_FINISHED"),
        (TaskState::Failed, "TASK_FAILED"),
        (TaskState::Killed, "TASK_KILLED"),
        (TaskState::Error, "TASK_ERROR"),
        (TaskState::Lost, "TASK_LOST"),
        (TaskState::Dropped, "TASK_DROPPED"),
        (TaskState::Unreachable, "TASK_UNREACHABLE"),
        (TaskState::Gone, "TASK_GONE"),
        (TaskState::GoneByOperator, "TASK_GONE_BY_OPERATOR"),
        (TaskState::Unknown, "TASK_UNKNOWN"),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        TaskState::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }

    /// The state of a word.
    pub fn parse(word: &str) -> Option<TaskState> {
        TaskState::ALL.iter().find(|(_, known)| *known == word).map(|(state, _)| *state)
    }

    /// Whether the task is over.
    pub fn is_terminal(self) -> bool {
        !matches!(self, TaskState::Staging | TaskState::Starting | TaskState::Running | TaskState::Killing | TaskState::Unreachable)
    }
}

/// What Mesos says of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    /// Which task.
    pub task_id: String,
    /// How it is.
    pub state: TaskState,
    /// For people.
    pub message: String,
    /// Why, e.g. `REASON_RECONCILIATION`.
    pub reason: Option<String>,
    /// Where.
    pub agent_id: Option<String>,
    /// To be acknowledged, when there.
    pub uuid: Option<Vec<u8>>,
    /// Since when.
    pub timestamp: Option<Timestamp>,
    /// What the agent's health check says.
    pub healthy: Option<bool>,
    /// What the agent's check says.
    pub check: Option<CheckStatus>,
    /// Addresses, each with whether it is IPv6.
    pub addresses: Vec<(String, bool)>,
    /// Since when the agent cannot be reached.
    pub unreachable_since: Option<Timestamp>,
}

/// What an agent's check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckStatus {
    /// Exit code; none yet.
    Command(Option<i32>),
    /// Status code; none yet.
    Http(Option<u32>),
    /// Whether the connection was made; none yet.
    Tcp(Option<bool>),
}

/// What the master tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The stream is open.
    Subscribed {
        /// Ours from now on.
        framework_id: String,
        /// The master's `host:port`.
        master: String,
        /// The master's region: agents elsewhere are used only when asked for.
        region: Option<String>,
    },
    /// The stream has ended.
    Disconnected,
    /// Resources.
    Offers(Vec<Offer>),
    /// An offer is gone. Offers are answered at once, so there is nothing to forget.
    Rescind(String),
    /// How a task is.
    Update(TaskStatus),
    /// From an executor.
    Message {
        /// Its agent.
        agent_id: String,
        /// Which one.
        executor_id: String,
        /// What it says.
        data: Vec<u8>,
    },
    /// An agent is lost, or an executor has ended.
    Failure {
        /// Which agent.
        agent_id: Option<String>,
        /// Which executor; none: the agent itself.
        executor_id: Option<String>,
    },
    /// The subscription failed.
    Error(String),
}

/// What the master is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// To use (parts of) an offer; the rest is declined.
    Accept {
        /// Which.
        offer_id: String,
        /// For what, in order.
        operations: Vec<Operation>,
        /// Seconds for which the rest is not offered again.
        refuse_seconds: f64,
    },
    /// Not to use offers.
    Decline {
        /// Which.
        offer_ids: Vec<String>,
        /// Seconds for which they are not offered again.
        refuse_seconds: f64,
    },
    /// To offer again for these roles.
    Revive {
        /// Which.
        roles: Vec<String>,
    },
    /// Not to offer for these roles.
    Suppress {
        /// Which.
        roles: Vec<String>,
    },
    /// To know us by these roles.
    UpdateRoles {
        /// All of them.
        roles: Vec<String>,
        /// Those for which nothing is to be offered.
        suppressed: Vec<String>,
    },
    /// To end a task.
    Kill {
        /// Which.
        task_id: String,
        /// Where, if known.
        agent_id: Option<String>,
    },
    /// To stop repeating an update.
    Acknowledge {
        /// Which task.
        task_id: String,
        /// Where.
        agent_id: String,
        /// Which update.
        uuid: Vec<u8>,
    },
    /// To say how these tasks are; none: all.
    Reconcile {
        /// Task and agent.
        tasks: Vec<(String, Option<String>)>,
    },
}

/// What an offer is used for.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// To run a task, or a pod's tasks.
    Launch(Box<Launch>),
    /// To claim resources.
    Reserve(Vec<Resource>),
    /// To make volumes.
    Create(Vec<Resource>),
    /// To remove volumes.
    Destroy(Vec<Resource>),
    /// To give up claims.
    Unreserve(Vec<Resource>),
}
