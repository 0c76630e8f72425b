//! One instance of an app or a pod: what it should be, how it is, and where.

use base::Timestamp;

use crate::id::{InstanceId, PathId, TaskId};
use crate::mesos::{Attribute, CheckStatus, TaskState};
use crate::model::spec::Spec;

/// One instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name, kept over restarts of its tasks.
    pub id: InstanceId,
    /// What it runs, in the version it was, or is to be, launched with.
    pub spec: Spec,
    /// What it should be.
    pub goal: Goal,
    /// How it is.
    pub condition: Condition,
    /// Since when.
    pub since: Timestamp,
    /// Since when it is running.
    pub active_since: Option<Timestamp>,
    /// How often it was launched.
    pub incarnation: u32,
    /// Where it is.
    pub agent: Option<AgentInfo>,
    /// Its tasks of the present incarnation: one for an app, one per container for a pod.
    pub tasks: Vec<Task>,
    /// What is reserved for it.
    pub reservation: Option<Held>,
    /// Whether it is being ended although it should run: it will be replaced, and is not to be counted on.
    pub doomed: bool,
    /// In which role it was launched.
    pub role: String,
    /// Since when its agent cannot be reached.
    pub unreachable_since: Option<Timestamp>,
    /// What the app's health checks say, one each, in their order.
    pub health: Vec<Health>,
    /// Whether the readiness check has said yes; one each.
    pub ready: Vec<Readiness>,
}

/// What an instance should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Running, and run again whenever it ends.
    Running,
    /// Ended, with its reservation kept.
    Stopped,
    /// Ended and forgotten.
    Decommissioned,
}

impl Goal {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Goal::Running => "Running",
            Goal::Stopped => "Stopped",
            Goal::Decommissioned => "Decommissioned",
        }
    }
}

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words are Marathon's own")]
pub enum Condition {
    Scheduled,
    Provisioned,
    Staging,
    Starting,
    Running,
    Killing,
    Unreachable,
    UnreachableInactive,
    Error,
    Failed,
    Finished,
    Killed,
    Gone,
    Dropped,
    Unknown,
}

impl Condition {
    /// Every condition with its word.
    pub const ALL: [(Condition, &'static str); 15] = [
        (Condition::Scheduled, "Scheduled"),
        (Condition::Provisioned, "Provisioned"),
        (Condition::Staging, "Staging"),
        (Condition::Starting, "Starting"),
        (Condition::Running, "Running"),
        (Condition::Killing, "Killing"),
        (Condition::Unreachable, "Unreachable"),
        (Condition::UnreachableInactive, "UnreachableInactive"),
        (Condition::Error, "Error"),
        (Condition::Failed, "Failed"),
        (Condition::Finished, "Finished"),
        (Condition::Killed, "Killed"),
        (Condition::Gone, "Gone"),
        (Condition::Dropped, "Dropped"),
        (Condition::Unknown, "Unknown"),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        Condition::ALL.iter().find(|(condition, _)| *condition == self).map_or("", |(_, word)| word)
    }

    /// The condition of a word.
    pub fn parse(word: &str) -> Option<Condition> {
        Condition::ALL.iter().find(|(_, known)| *known == word).map(|(condition, _)| *condition)
    }

    /// Whether it has ended.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Condition::Error
                | Condition::Failed
                | Condition::Finished
                | Condition::Killed
                | Condition::Gone
                | Condition::Dropped
                | Condition::Unknown
        )
    }

    /// Whether it has a task that is not over.
    pub fn has_task(self) -> bool {
        !self.is_terminal() && self != Condition::Scheduled
    }

    /// The condition of an instance whose only task is in `state`.
    pub fn of(state: TaskState) -> Condition {
        match state {
            TaskState::Staging => Condition::Staging,
            TaskState::Starting => Condition::Starting,
            TaskState::Running => Condition::Running,
            TaskState::Killing => Condition::Killing,
            TaskState::Finished => Condition::Finished,
            TaskState::Failed => Condition::Failed,
            TaskState::Killed => Condition::Killed,
            TaskState::Error => Condition::Error,
            TaskState::Lost | TaskState::Gone | TaskState::GoneByOperator => Condition::Gone,
            TaskState::Dropped => Condition::Dropped,
            TaskState::Unreachable => Condition::Unreachable,
            TaskState::Unknown => Condition::Unknown,
        }
    }

    /// What the API says of the task, when the task itself has said nothing.
    pub fn task_state(self) -> TaskState {
        match self {
            Condition::Scheduled | Condition::Provisioned | Condition::Staging => TaskState::Staging,
            Condition::Starting => TaskState::Starting,
            Condition::Running => TaskState::Running,
            Condition::Killing => TaskState::Killing,
            Condition::Unreachable | Condition::UnreachableInactive => TaskState::Unreachable,
            Condition::Error => TaskState::Error,
            Condition::Failed => TaskState::Failed,
            Condition::Finished => TaskState::Finished,
            Condition::Killed => TaskState::Killed,
            Condition::Gone => TaskState::Gone,
            Condition::Dropped => TaskState::Dropped,
            Condition::Unknown => TaskState::Unknown,
        }
    }
}

/// In which order the conditions of a pod's containers make the pod's: the first one found.
const POD_ORDER: [Condition; 14] = [
    Condition::Error,
    Condition::Failed,
    Condition::Gone,
    Condition::Dropped,
    Condition::Unreachable,
    Condition::Killing,
    Condition::Starting,
    Condition::Staging,
    Condition::Unknown,
    Condition::Provisioned,
    Condition::Running,
    Condition::Finished,
    Condition::Killed,
    Condition::UnreachableInactive,
];

/// Where an instance is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentInfo {
    /// The agent.
    pub agent_id: String,
    /// Its host.
    pub host: String,
    /// Where it is.
    pub region: Option<String>,
    /// Where in it.
    pub zone: Option<String>,
    /// What it says of itself.
    pub attributes: Vec<(String, Attribute)>,
}

/// One task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its name.
    pub id: TaskId,
    /// Container of a pod; empty for an app.
    pub container: String,
    /// What Mesos said last; none: nothing yet.
    pub state: Option<TaskState>,
    /// Ports on the agent, in the order of the definition; none where none is taken.
    pub host_ports: Vec<Option<u16>>,
    /// Addresses, each with whether it is IPv6.
    pub addresses: Vec<(String, bool)>,
    /// When it was launched.
    pub staged_at: Timestamp,
    /// When it first ran.
    pub started_at: Option<Timestamp>,
    /// Since when it is as it is.
    pub since: Timestamp,
    /// What the agent's health check says.
    pub healthy: Option<bool>,
    /// What the agent's check says.
    pub check: Option<CheckStatus>,
    /// What Mesos said last, for people.
    pub message: String,
}

/// What is reserved for an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Its volumes.
    pub volumes: Vec<HeldVolume>,
    /// Whether Mesos has shown that it is there: by an offer, or by a task that ran on it.
    pub confirmed: bool,
}

/// A persistent volume of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldVolume {
    /// Where it is mounted, or a pod's name for it.
    pub container_path: String,
    /// `<safe id>#<path>#<uuid>`.
    pub persistence_id: String,
}

/// What one health check says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// First success.
    pub first_success: Option<Timestamp>,
    /// Latest success.
    pub last_success: Option<Timestamp>,
    /// Latest failure.
    pub last_failure: Option<Timestamp>,
    /// Why that one.
    pub last_failure_cause: Option<String>,
}

impl Health {
    /// Whether it is alive; nothing known: `None`.
    pub fn alive(&self) -> Option<bool> {
        match (self.last_success, self.last_failure) {
            (None, None) => None,
            (success, failure) => Some(success > failure),
        }
    }
}

/// What a readiness check says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it has said yes.
    pub ready: bool,
    /// The last answer: status, content type, body.
    pub last_response: Option<(u16, String, String)>,
}

/// What of an instance is counted. Sums of these are kept per app and version, so that no decision has to look at every instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Goal running, and not given up as unreachable.
    pub wanted: bool,
    /// Goal running, without a task.
    pub scheduled: bool,
    /// Goal not running, and its task is not over nor out of reach.
    pub dying: bool,
    /// Goal running, runs, and every health check says alive.
    pub healthy: bool,
    /// Healthy, and every readiness check has said yes.
    pub ready: bool,
    /// For the API: launched, and not running yet.
    pub api_staged: bool,
    /// For the API: its task runs.
    pub api_running: bool,
    /// For the API: has results, all alive.
    pub api_healthy: bool,
    /// For the API: any result is not alive.
    pub api_unhealthy: bool,
}

impl Instance {
    /// A new one that waits for an offer.
    pub fn scheduled(id: InstanceId, spec: Spec, now: Timestamp) -> Instance {
        let role = spec.role().to_owned();
        Instance {
            id,
            spec,
            goal: Goal::Running,
            condition: Condition::Scheduled,
            since: now,
            active_since: None,
            incarnation: 0,
            agent: None,
            tasks: Vec::new(),
            reservation: None,
            doomed: false,
            role,
            unreachable_since: None,
            health: Vec::new(),
            ready: Vec::new(),
        }
    }

    /// The app or pod it is of.
    pub fn spec_id(&self) -> &PathId {
        self.spec.id()
    }

    /// Outdated when it is before the app's.
    pub fn config_version(&self) -> Timestamp {
        self.spec.config_version()
    }

    /// What all health checks say together; nothing known: `None`.
    pub fn healthy(&self) -> Option<bool> {
        let checks = self.health.iter().map(Health::alive).chain(self.pod_health());
        let mut known = None;
        for alive in checks.flatten() {
            if !alive {
                return Some(false);
            }
            known = Some(true);
        }
        known
    }

    fn pod_health(&self) -> impl Iterator<Item = Option<bool>> {
        let is_pod = self.spec.is_pod();
        self.tasks.iter().filter(move |_| is_pod).map(|task| task.healthy)
    }

    /// Whether every check that there is has said alive.
    pub fn all_alive(&self) -> bool {
        match &self.spec {
            Spec::App(app) => (0..app.health_checks.len()).all(|at| self.health.get(at).and_then(Health::alive) == Some(true)),
            Spec::Pod(pod) => pod
                .containers
                .iter()
                .filter(|container| container.health_check.is_some())
                .all(|container| self.tasks.iter().any(|task| task.container == container.name && task.healthy == Some(true))),
        }
    }

    /// What of it is counted.
    pub fn facts(&self) -> Facts {
        let running = self.goal == Goal::Running;
        let runs = self.condition == Condition::Running;
        let reachable = !matches!(self.condition, Condition::Unreachable | Condition::UnreachableInactive);
        let healthy = running && runs && !self.doomed && self.all_alive();
        let ready = healthy && (0..self.spec.readiness_checks().len()).all(|at| self.ready.get(at).is_some_and(|it| it.ready));
        let known = self.healthy();
        let launched = self.agent.is_some() && self.condition.has_task();
        let state = self.tasks.first().map(|task| task.state);
        Facts {
            wanted: running && self.condition != Condition::UnreachableInactive,
            scheduled: running && self.condition == Condition::Scheduled,
            dying: !running && self.condition.has_task() && reachable,
            healthy,
            ready,
            api_staged: launched && matches!(state, Some(None | Some(TaskState::Staging))),
            api_running: launched && runs,
            api_healthy: launched && known == Some(true),
            api_unhealthy: launched && known == Some(false),
        }
    }

    /// The condition that follows from the tasks.
    pub fn condition_of_tasks(&self) -> Condition {
        let of = |task: &Task| task.state.map_or(Condition::Provisioned, Condition::of);
        match self.tasks.as_slice() {
            [] => self.condition,
            [task] => of(task),
            tasks => POD_ORDER.into_iter().find(|wanted| tasks.iter().any(|task| of(task) == *wanted)).unwrap_or(Condition::Unknown),
        }
    }

    /// Whether every task is over.
    pub fn all_terminal(&self) -> bool {
        self.tasks.iter().all(|task| task.state.is_some_and(TaskState::is_terminal))
    }

    /// The task's address to reach it at from the agent's network, and the app's ports there: host ports first.
    pub fn host(&self) -> Option<&str> {
        self.agent.as_ref().map(|agent| agent.host.as_str())
    }

    /// When it began, for the choice of victims.
    pub fn began(&self) -> Timestamp {
        self.tasks
            .iter()
            .filter_map(|task| task.started_at)
            .min()
            .or_else(|| self.tasks.iter().map(|task| task.staged_at).min())
            .unwrap_or(self.since)
    }
}
