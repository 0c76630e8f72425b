//! What the master is told once, at its start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesos::{Quantities, Scalar};
use mesos_proto::v1;

/// Everything that is configured. The names and defaults are those of Mesos's master flags.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this master is; `id` is its random UUID and the prefix of all ids it gives.
    pub info: v1::MasterInfo,
    /// Seeds what is arbitrary: the order in which agents are offered, the uuids of operations.
    pub seed: u64,
    /// How often an agent is pinged, and has to answer within.
    pub agent_ping_timeout: Duration,
    /// How many pings an agent may miss before it is unreachable.
    pub max_agent_ping_timeouts: u32,
    /// How long agents of the registry may take to come back after the master changed.
    pub agent_reregister_timeout: Duration,
    /// At most so many agents per time become unreachable; none: no limit.
    pub agent_removal_rate_limit: Option<Rate>,
    /// The master ends when more than this part of the registry's agents did not come back.
    pub recovery_agent_removal_limit: f64,
    /// Refuse agents that tell no fault domain.
    pub require_agent_domain: bool,
    /// Which role is offered first.
    pub role_sorter: Sorter,
    /// Which framework of a role is offered first.
    pub framework_sorter: Sorter,
    /// How often everything is offered.
    pub allocation_interval: Duration,
    /// How long an offer is open; none: until used, declined or rescinded.
    pub offer_timeout: Option<Duration>,
    /// What is not worth offering: an offer must have at least one of these.
    pub min_allocatable_resources: Vec<Quantities>,
    /// Scalars that do not count in fair shares.
    pub fair_sharing_excluded_resource_names: BTreeSet<String>,
    /// Agents with GPUs are offered only to frameworks that want GPUs.
    pub filter_gpu_resources: bool,
    /// With quotas, what part of the registry's agents must be back before anything is offered.
    pub allocator_agent_recovery_factor: f64,
    /// With quotas, how long that is waited for.
    pub allocator_recovery_timeout: Duration,
    /// Upper limit of the compiled size of a regular expression of an offer constraint, in bytes.
    ///
    /// Mesos limits RE2's memory and program size, in units of RE2; this is the nearest that another engine has.
    pub offer_constraints_regex_max_bytes: usize,
    /// The only roles that there are; none: any.
    pub roles: Option<BTreeSet<String>>,
    /// Whether frameworks may run as root.
    pub root_submissions: bool,
    /// How many removed frameworks are remembered.
    pub max_completed_frameworks: usize,
    /// How many ended tasks of each framework are remembered.
    pub max_completed_tasks_per_framework: usize,
    /// How many unreachable tasks of each framework are remembered.
    pub max_unreachable_tasks_per_framework: usize,
    /// How often unreachable and gone agents of the registry are looked through.
    pub registry_gc_interval: Duration,
    /// How long an unreachable or gone agent is remembered.
    pub registry_max_agent_age: Duration,
    /// How many unreachable, and how many gone agents are remembered.
    pub registry_max_agent_count: usize,
    /// How many agents may be registered at once. (Not a flag of Mesos.)
    pub max_agents: usize,
    /// How many frameworks may be subscribed at once. (Not a flag of Mesos.)
    pub max_frameworks: usize,
    /// How many offers go in one event: a client may read no record above 4 MiB.
    pub max_offers_per_event: usize,
    /// Calls of a scheduler per time, by principal. (Mesos limits its old drivers alone.)
    pub rate_limits: BTreeMap<String, Rate>,
    /// The same for all others together; none: they are not limited.
    pub rate_limit_of_others: Option<Rate>,
    /// Weights of roles, as long as the registry has none: whoever changed one at run time is not overruled by a restart.
    pub weights: BTreeMap<String, f64>,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorize>,
}

impl Config {
    /// Mesos's defaults.
    pub fn new(info: v1::MasterInfo, seed: u64) -> Self {
        let one = |name: &str, amount: f64| Quantities::from_iter([(name.into(), Scalar::from_f64(amount))]);
        Config {
            info,
            seed,
            agent_ping_timeout: Duration::from_secs(15),
            max_agent_ping_timeouts: 5,
            agent_reregister_timeout: Duration::from_secs(600),
            agent_removal_rate_limit: None,
            recovery_agent_removal_limit: 1.0,
            require_agent_domain: false,
            role_sorter: Sorter::Drf,
            framework_sorter: Sorter::Drf,
            allocation_interval: Duration::from_secs(1),
            offer_timeout: None,
            min_allocatable_resources: vec![one("cpus", 0.01), one("mem", 32.0)],
            fair_sharing_excluded_resource_names: BTreeSet::new(),
            filter_gpu_resources: true,
            allocator_agent_recovery_factor: 0.8,
            allocator_recovery_timeout: Duration::from_secs(600),
            offer_constraints_regex_max_bytes: 64 * 1024,
            roles: None,
            root_submissions: true,
            max_completed_frameworks: 50,
            max_completed_tasks_per_framework: 1000,
            max_unreachable_tasks_per_framework: 1000,
            registry_gc_interval: Duration::from_secs(15 * 60),
            registry_max_agent_age: Duration::from_secs(14 * 24 * 3600),
            registry_max_agent_count: 102_400,
            max_agents: 100_000,
            max_frameworks: 10_000,
            max_offers_per_event: 256,
            rate_limits: BTreeMap::new(),
            rate_limit_of_others: None,
            weights: BTreeMap::new(),
            authorizer: Arc::new(AllowAll),
        }
    }
}

/// Who comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sorter {
    /// Who has the smallest dominant share.
    #[default]
    Drf,
    /// Anybody, anew for every agent; who has more weight is first more often.
    Random,
}

/// So many per so long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// How many.
    pub permits: u32,
    /// In which time.
    pub per: Duration,
}

/// Something that needs permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Subscribe with a role.
    RegisterFramework {
        /// Which.
        role: &'a str,
    },
    /// Run a task or executor as a user.
    RunTask {
        /// Who.
        user: &'a str,
    },
    /// Reserve for a role.
    Reserve {
        /// Which.
        role: &'a str,
    },
    /// Take back the reservation of a principal.
    Unreserve {
        /// Whose, if known.
        reserver: Option<&'a str>,
    },
    /// Make a volume of a role's resources.
    CreateVolume {
        /// Which.
        role: &'a str,
    },
    /// Destroy the volume of a principal.
    DestroyVolume {
        /// Whose, if known.
        creator: Option<&'a str>,
    },
    /// Grow or shrink a volume of a role.
    ResizeVolume {
        /// Which.
        role: &'a str,
    },
    /// Remove the framework of a principal.
    Teardown {
        /// Whose, if known.
        principal: Option<&'a str>,
    },
    /// Change the weight of a role.
    UpdateWeight {
        /// Which.
        role: &'a str,
    },
    /// Change the quota of a role.
    UpdateQuota {
        /// Which.
        role: &'a str,
    },
    /// Change the maintenance schedule.
    UpdateMaintenanceSchedule,
    /// Take machines down.
    StartMaintenance,
    /// Bring machines up.
    StopMaintenance,
    /// Drain an agent.
    DrainAgent,
    /// Offer nothing of an agent.
    DeactivateAgent,
    /// Offer an agent again.
    ReactivateAgent,
    /// Mark an agent gone.
    MarkAgentGone,
    /// Join as an agent.
    RegisterAgent,
}

/// Who may do what. Pure: the answer depends on the arguments alone.
pub trait Authorize: fmt::Debug + Send + Sync {
    /// Whether `principal` may do it; a principal is absent where nobody authenticates.
    fn allows(&self, principal: Option<&str>, action: Action<'_>) -> bool;
}

/// Everybody may do everything: Mesos's default.
#[derive(Clone, Copy, Debug)]
pub struct AllowAll;

impl Authorize for AllowAll {
    fn allows(&self, _: Option<&str>, _: Action<'_>) -> bool {
        true
    }
}
