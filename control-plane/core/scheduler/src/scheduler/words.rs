//! What goes into the scheduler and comes out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;

use crate::id::{InstanceId, PathId};
use crate::instance::{Condition, Instance};
use crate::matching::AcceptedRoles;
use crate::mesos::TaskState;
use crate::model::health::HealthCheck;
use crate::model::spec::Spec;
use crate::plan::Plan;
use crate::root::Group;

/// What the scheduler was told to be. The words are those of Marathon's flags.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where ids begin; random for each run.
    pub seed: u64,
    /// Role of what does not say (`mesos_role`).
    pub default_role: String,
    /// Principal written on reservations.
    pub principal: Option<String>,
    /// Service ports: from and up to, that excluded.
    pub local_ports: (u16, u16),
    /// Deployments at once.
    pub max_running_deployments: usize,
    /// Apps and pods; none: as many as fit.
    pub max_apps: Option<usize>,
    /// Instances wanted of everything together.
    pub max_instances: u64,
    /// Instances launched on one offer.
    pub max_instances_per_offer: usize,
    /// Launches between two refreshes, those that came up not counted.
    pub launch_tokens: u32,
    /// How often the tokens are full again.
    pub launch_token_refresh_interval: Duration,
    /// How long an offer that nobody wants is not to come again.
    pub decline_offer_duration: Duration,
    /// Least time between two revivals.
    pub min_revive_offers_interval: Duration,
    /// Whether offers are suppressed while nothing waits.
    pub suppress_offers: bool,
    /// First reconciliation.
    pub reconciliation_initial_delay: Duration,
    /// Time between two.
    pub reconciliation_interval: Duration,
    /// First look at the numbers of instances.
    pub scale_apps_initial_delay: Duration,
    /// Time between two.
    pub scale_apps_interval: Duration,
    /// How long a task may be without any word of it.
    pub task_launch_confirm_timeout: Duration,
    /// How long a task may take to run.
    pub task_launch_timeout: Duration,
    /// Kills under way at once.
    pub kill_chunk_size: usize,
    /// When a kill is asked for again.
    pub kill_retry_timeout: Duration,
    /// Probes under way at once.
    pub max_concurrent_health_checks: usize,
    /// Old versions kept of each app, pod and the root.
    pub max_versions: usize,
    /// Put before the names of port variables.
    pub env_vars_prefix: String,
    /// Which resources are taken when an app does not say.
    pub accepted_roles: AcceptedRoles,
    /// Whether agents with GPUs are kept for those who want them.
    pub gpus_are_scarce: bool,
    /// How long before its maintenance an agent is left alone.
    pub draining: Duration,
    /// Whether a new top-level group enforces its role.
    pub new_group_enforce_role: bool,
    /// Features that are on (`gpu_resources`, `secrets`, `external_volumes`, ...).
    pub features: BTreeSet<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            seed: 0,
            default_role: "*".to_owned(),
            principal: None,
            local_ports: (10_000, 20_000),
            max_running_deployments: 100,
            max_apps: None,
            max_instances: 500_000,
            max_instances_per_offer: 5,
            launch_tokens: 100,
            launch_token_refresh_interval: Duration::from_secs(30),
            decline_offer_duration: Duration::from_secs(120),
            min_revive_offers_interval: Duration::from_secs(5),
            suppress_offers: true,
            reconciliation_initial_delay: Duration::from_secs(15),
            reconciliation_interval: Duration::from_secs(600),
            scale_apps_initial_delay: Duration::from_secs(15),
            scale_apps_interval: Duration::from_secs(300),
            task_launch_confirm_timeout: Duration::from_secs(300),
            task_launch_timeout: Duration::from_secs(300),
            kill_chunk_size: 100,
            kill_retry_timeout: Duration::from_secs(30),
            max_concurrent_health_checks: 256,
            max_versions: 50,
            env_vars_prefix: String::new(),
            accepted_roles: AcceptedRoles::Any,
            gpus_are_scarce: true,
            draining: Duration::ZERO,
            new_group_enforce_role: false,
            features: BTreeSet::new(),
        }
    }
}

/// What was stored.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Ours at the master.
    pub framework_id: Option<String>,
    /// Every version of every app and pod.
    pub specs: Vec<Spec>,
    /// The present version of each.
    pub current: BTreeMap<PathId, Timestamp>,
    /// All groups.
    pub groups: BTreeMap<PathId, Group>,
    /// When anything was last changed.
    pub root_version: Timestamp,
    /// All instances.
    pub instances: Vec<Instance>,
    /// Deployments that had not ended.
    pub deployments: Vec<Plan>,
    /// Last failures.
    pub failures: Vec<TaskFailure>,
    /// How numbers of instances are to be decided, by app.
    pub policies: BTreeMap<PathId, Arc<str>>,
    /// What takes each root back to the one before it.
    pub undos: Vec<Undo>,
    /// Instances that are no more and whose reservations have yet to be given back.
    pub orphans: BTreeMap<InstanceId, Orphan>,
}

/// What was reserved for an instance that is no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphan {
    /// The role in which it will be offered.
    pub role: String,
    /// Thousandths of each resource that has not been given back yet.
    pub left: BTreeMap<String, i64>,
}

/// What takes a root back to the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undo {
    /// The root's version.
    pub version: Timestamp,
    /// That of the one before.
    pub before: Timestamp,
    /// Apps and pods that differed: in which version they were, if they were.
    pub specs: Vec<(PathId, Option<Timestamp>)>,
    /// Groups that differed: how they were, if they were.
    pub groups: Vec<(PathId, Option<Group>)>,
}

/// What must survive.
#[derive(Clone, Debug)]
pub enum Record {
    /// Ours at the master.
    FrameworkId(String),
    /// This version of an app or pod, which is the present one.
    Spec(Spec),
    /// There is no such app or pod any more. Its versions stay until they are dropped one by one.
    SpecRemoved(PathId),
    /// This version is not kept any longer.
    VersionDropped(PathId, Timestamp),
    /// This group.
    Group(PathId, Group),
    /// There is no such group any more.
    GroupRemoved(PathId),
    /// When anything was last changed.
    RootVersion(Timestamp),
    /// This instance.
    Instance(Arc<Instance>),
    /// There is no such instance any more.
    InstanceRemoved(InstanceId),
    /// This deployment.
    Deployment(Arc<Plan>),
    /// There is no such deployment any more.
    DeploymentRemoved(String),
    /// The last failure of an app or pod, and with it how the last instances of a pod ended.
    Failure(Arc<TaskFailure>),
    /// Nothing is known of failures any more.
    FailureRemoved(PathId),
    /// How an app's number of instances is to be decided.
    Policy(PathId, Arc<str>),
    /// Nobody but people decides it any more.
    PolicyRemoved(PathId),
    /// What takes the present root back.
    Undo(Arc<Undo>),
    /// The root before this version is not kept any longer.
    UndoDropped(Timestamp),
    /// What was reserved for this instance is to be given back.
    Orphan(InstanceId, Orphan),
    /// It was, or it is not looked for any longer.
    OrphanRemoved(InstanceId),
}

/// Whom to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Other apps, pods or groups.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// What differs, in order.
    pub edits: Vec<Edit>,
    /// Whether deployments in the way are cancelled.
    pub force: bool,
    /// Whether only the plan is wanted.
    pub dry_run: bool,
    /// Instances that go first where their app shrinks.
    pub sentenced: BTreeMap<PathId, Vec<InstanceId>>,
}

/// One difference.
#[derive(Clone, Debug)]
pub enum Edit {
    /// This app or pod, instead of the one there was.
    Put {
        /// The whole definition; an empty role means the default one.
        spec: Spec,
        /// What it was made from.
        expect: Expect,
    },
    /// No such app or pod.
    Remove(PathId),
    /// All instances of this anew.
    Restart(PathId),
    /// This group.
    PutGroup {
        /// Its path.
        id: PathId,
        /// Its dependencies; none: as they were.
        dependencies: Option<Vec<PathId>>,
        /// Whether its role is enforced; none: as it was.
        enforce_role: Option<bool>,
        /// Whether it must not be there yet.
        must_be_new: bool,
    },
    /// No such group, nor anything in it.
    RemoveGroup(PathId),
}

/// What a definition was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// From nothing but itself.
    Anything,
    /// From its not being there.
    Absent,
    /// From this version.
    Version(Timestamp),
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A deployment does it, or nothing had to be done.
    Planned(Arc<Plan>),
    /// The deployment is stopped where it is.
    Cancelled,
    /// These instances are being killed.
    Killed(Vec<Arc<Instance>>),
    /// Done.
    Done,
    /// Nothing has changed.
    Refused(Refusal),
}

/// Why nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// These deployments are in the way.
    Locked(Vec<String>),
    /// So many deployments run already.
    TooManyDeployments(usize),
    /// So many apps and pods may be.
    TooManyApps(usize),
    /// So many instances may be wanted.
    TooManyInstances(u64),
    /// It is not valid.
    Invalid(Vec<Violation>),
    /// An app is there already.
    AppExists(PathId),
    /// A pod is there already.
    PodExists(PathId),
    /// A group is there already.
    GroupExists(PathId),
    /// An app has the path that a group was to have.
    PathTaken(PathId),
    /// There is no such app or pod.
    NoSpec(PathId),
    /// There is no such group.
    NoGroup(PathId),
    /// There is no such deployment.
    NoDeployment(String),
    /// Nothing of it waits.
    NotQueued(PathId),
    /// All service ports are used.
    PortsExhausted(u16, u16),
    /// It was made from what has changed meanwhile: to be made again.
    Stale,
}

/// What is not valid, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `/field`, with `(0)` for positions and `(key)` for entries.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl Violation {
    /// At `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Violation {
        Violation { path: path.into(), message: message.into() }
    }
}

/// How an app or pod last failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFailure {
    /// Which.
    pub app_id: PathId,
    /// Its task.
    pub task_id: String,
    /// The state that it ended in.
    pub state: TaskState,
    /// For people.
    pub message: String,
    /// Where.
    pub host: String,
    /// Which agent.
    pub agent_id: Option<String>,
    /// Which version.
    pub version: Timestamp,
    /// When.
    pub timestamp: Timestamp,
    /// How the last instances of a pod ended, the latest first. Empty for an app.
    pub terminations: Vec<Termination>,
}

/// How an instance of a pod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    /// Which.
    pub instance: InstanceId,
    /// When its first container ran; when it was launched, if none did.
    pub started_at: Timestamp,
    /// When its last container was over.
    pub terminated_at: Timestamp,
    /// For people: what the container that failed first said.
    pub message: String,
    /// Where.
    pub host: String,
    /// Which agent.
    pub agent_id: Option<String>,
    /// Its containers, in the order of the definition.
    pub containers: Vec<ContainerTermination>,
}

/// How a container of a pod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerTermination {
    /// Its name.
    pub name: String,
    /// Its task.
    pub task_id: String,
    /// The state that it ended in.
    pub state: TaskState,
    /// For people.
    pub message: String,
    /// When.
    pub timestamp: Timestamp,
}

/// What is told to whoever listens.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the words are those of Marathon's events")]
pub enum BusEvent {
    StatusUpdate {
        instance: Arc<Instance>,
        task_id: String,
        state: TaskState,
        message: String,
        addresses: Vec<(String, bool)>,
        ports: Vec<u16>,
    },
    InstanceChanged {
        instance: Arc<Instance>,
    },
    InstanceHealthChanged {
        instance: Arc<Instance>,
        healthy: Option<bool>,
    },
    UnknownInstanceTerminated {
        instance: InstanceId,
        condition: Condition,
    },
    FrameworkMessage {
        agent_id: String,
        executor_id: String,
        data: Vec<u8>,
    },
    AppTerminated {
        app: PathId,
    },
    AddHealthCheck {
        app: PathId,
        version: Timestamp,
        check: HealthCheck,
    },
    RemoveHealthCheck {
        app: PathId,
    },
    FailedHealthCheck {
        app: PathId,
        instance: InstanceId,
        check: HealthCheck,
    },
    HealthStatusChanged {
        app: PathId,
        instance: InstanceId,
        version: Timestamp,
        alive: bool,
    },
    UnhealthyInstanceKill {
        instance: Arc<Instance>,
        task_id: String,
        reason: String,
    },
    GroupChangeSuccess {
        group: PathId,
        version: Timestamp,
    },
    GroupChangeFailed {
        group: PathId,
        version: Timestamp,
        reason: String,
    },
    DeploymentSuccess {
        plan: Arc<Plan>,
    },
    DeploymentFailed {
        plan: Arc<Plan>,
        reason: String,
    },
    DeploymentInfo {
        plan: Arc<Plan>,
        step: usize,
    },
    DeploymentStepSuccess {
        plan: Arc<Plan>,
        step: usize,
    },
    DeploymentStepFailure {
        plan: Arc<Plan>,
        step: usize,
    },
    SchedulerRegistered {
        framework_id: String,
        master: String,
    },
    SchedulerReregistered {
        master: String,
    },
    SchedulerDisconnected,
}

/// What a probe is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Which instance.
    pub instance: InstanceId,
    /// Which of its launches.
    pub incarnation: u32,
    /// Whether it is about readiness, not health.
    pub readiness: bool,
    /// Position of the check in the definition.
    pub check: usize,
}

/// A probe to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// What it is of.
    pub subject: Subject,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How.
    pub kind: ProbeKind,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// How a probe is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// By a connection.
    Tcp,
    /// By a request.
    Http {
        /// Over TLS; certificates are not verified.
        tls: bool,
        /// Path and query.
        path: String,
    },
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A connection was made.
    Connected,
    /// There was an answer.
    Answered {
        /// Status code.
        status: u16,
        /// Its reason phrase.
        reason: String,
        /// Type of the body.
        content_type: String,
        /// Beginning of the body.
        body: String,
    },
    /// There was none, because.
    Failed(String),
}

/// What happened since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words are those of Marathon's metrics")]
pub struct Totals {
    pub deployments: u64,
    pub deployments_dismissed: u64,
    pub tasks_launched: u64,
    pub calls_revive: u64,
    pub calls_suppress: u64,
    pub operations_launch: u64,
    pub operations_launch_group: u64,
    pub operations_reserve: u64,
    pub offers_incoming: u64,
    pub offers_declined: u64,
    pub offers_used: u64,
    pub kill_attempts: u64,
    pub updates: [u64; TaskState::ALL.len()],
}
