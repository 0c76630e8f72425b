//! What users define: apps, pods, groups. The words and defaults are Marathon's; JSON is the edge's business.

pub mod app;
pub mod container;
pub mod health;
pub mod pod;
pub mod spec;

use std::collections::BTreeMap;

/// Text to text.
pub type Labels = BTreeMap<String, String>;
/// Name to value, of an environment.
pub type Environment = BTreeMap<String, EnvValue>;

/// A value of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvValue {
    /// As it stands.
    Text(String),
    /// The value of the secret with this key.
    Secret(String),
}

/// One condition on where instances may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// `hostname`, `@hostname`, `@region`, `@zone`, or the name of an agent's attribute.
    pub field: String,
    /// What is asked.
    pub operator: Operator,
    /// What it is asked with; meaning by operator.
    pub value: Option<String>,
}

/// What a constraint asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// No two instances with the same value.
    Unique,
    /// All instances with the same (given) value.
    Cluster,
    /// Instances spread evenly over the values.
    GroupBy,
    /// The value matches a regular expression.
    Like,
    /// The value does not match a regular expression.
    Unlike,
    /// So many instances per value at most.
    MaxPer,
    /// The value equals.
    Is,
}

impl Operator {
    /// Every operator with its word.
    pub const ALL: [(Operator, &'static str); 7] = [
        (Operator::Unique, "UNIQUE"),
        (Operator::Cluster, "CLUSTER"),
        (Operator::GroupBy, "GROUP_BY"),
        (Operator::Like, "LIKE"),
        (Operator::MaxPer, "MAX_PER"),
        (Operator::Unlike, "UNLIKE"),
        (Operator::Is, "IS"),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        Operator::ALL.iter().find(|(operator, _)| *operator == self).map_or("", |(_, word)| word)
    }

    /// The operator of a word, in any case.
    pub fn parse(word: &str) -> Option<Operator> {
        Operator::ALL.iter().find(|(_, known)| known.eq_ignore_ascii_case(word)).map(|(operator, _)| *operator)
    }
}

/// How an update replaces instances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpgradeStrategy {
    /// Share of the instances that stay healthy throughout.
    pub minimum_health_capacity: f64,
    /// Share of the instances that may exist above the wanted number.
    pub maximum_over_capacity: f64,
}

impl Default for UpgradeStrategy {
    fn default() -> Self {
        UpgradeStrategy { minimum_health_capacity: 1.0, maximum_over_capacity: 1.0 }
    }
}

/// How long to wait before launching again after failures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Seconds after the first failure.
    pub seconds: f64,
    /// What each further failure multiplies it by.
    pub factor: f64,
    /// Seconds at most.
    pub max_launch_delay_seconds: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { seconds: 1.0, factor: 1.15, max_launch_delay_seconds: 300.0 }
    }
}

/// Which instances go first when there are too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KillSelection {
    /// The ones that started last.
    #[default]
    YoungestFirst,
    /// The ones that started first.
    OldestFirst,
}

/// What becomes of an instance whose agent cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UnreachableStrategy {
    /// It is waited for without end.
    Disabled,
    /// It is replaced, later forgotten.
    Enabled {
        /// Seconds until it no longer counts.
        inactive_after_seconds: u64,
        /// Seconds until it is forgotten.
        expunge_after_seconds: u64,
    },
}

impl UnreachableStrategy {
    /// Replaced and forgotten at once.
    pub const IMMEDIATE: UnreachableStrategy = UnreachableStrategy::Enabled { inactive_after_seconds: 0, expunge_after_seconds: 0 };
}

/// A file to fetch before the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// From where.
    pub uri: String,
    /// Whether archives are unpacked.
    pub extract: bool,
    /// Whether it is made executable.
    pub executable: bool,
    /// Whether agents may keep it.
    pub cache: bool,
    /// Name in the sandbox, when it is not the one in the URI.
    pub dest_path: Option<String>,
}

/// Resources of one container. Also what an executor takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResourceNeeds {
    /// Processors.
    pub cpus: f64,
    /// MiB of memory.
    pub mem: f64,
    /// MiB of disk.
    pub disk: f64,
    /// Whole GPUs.
    pub gpus: u32,
}

impl ResourceNeeds {
    /// What an executor takes when nothing is said.
    pub const EXECUTOR: ResourceNeeds = ResourceNeeds { cpus: 0.1, mem: 32.0, disk: 10.0, gpus: 0 };

    /// Both together.
    pub fn plus(self, other: ResourceNeeds) -> ResourceNeeds {
        ResourceNeeds {
            cpus: self.cpus + other.cpus,
            mem: self.mem + other.mem,
            disk: self.disk + other.disk,
            gpus: self.gpus.saturating_add(other.gpus),
        }
    }
}

/// An upper limit that differs from what is requested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// So much.
    Amount(f64),
    /// None.
    Unlimited,
}

/// Limits besides the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResourceLimits {
    /// Processors.
    pub cpus: Option<Limit>,
    /// MiB of memory.
    pub mem: Option<Limit>,
}

/// A network that instances join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its kind.
    pub mode: NetworkMode,
    /// Name of a container network.
    pub name: Option<String>,
    /// Passed on to the network.
    pub labels: Labels,
}

impl Network {
    /// The agent's own.
    pub fn host() -> Network {
        Network { mode: NetworkMode::Host, name: None, labels: Labels::new() }
    }
}

/// Kind of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// The agent's own.
    Host,
    /// The agent's bridge, with ports mapped.
    Bridge,
    /// A named network in which each container has an address.
    Container,
}

impl NetworkMode {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            NetworkMode::Host => "host",
            NetworkMode::Bridge => "container/bridge",
            NetworkMode::Container => "container",
        }
    }
}
