//! Configuration: flag, else environment, else file, else built-in; resolved once, and every mistake is told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use probe_endpoint::ControlPlane;

use crate::dns;
use crate::ebpf::PinDir;
use crate::host::cloud;
use crate::kubernetes;
use crate::mask::Masks;
use crate::procfs::Arguments;

mod agent;
mod cluster;
mod flags;
mod layers;
mod mistake;
mod parse;
mod tls;

pub use flags::{Command, Flags, Output};
pub use mistake::Mistake;

use layers::Layers;
use mistake::{Origin, variable};

/// What the probe was told to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the probe is.
    pub roles: Roles,
    /// Where reports go.
    pub control_plane: ControlPlane,
    /// Name of the host; `None` takes the system's.
    pub host_name: Option<String>,
    /// Stable identity; `None` makes one.
    pub probe_id: Option<String>,
    /// Where an identity that had to be made is kept.
    pub state_dir: PathBuf,
    /// Listener of metrics and health; `None` for no listener.
    pub admin_address: Option<SocketAddr>,
    /// How often samples are taken, unless the control plane wishes otherwise.
    pub metrics_interval: Duration,
    /// What the probe may use, in percent of one CPU; `None` for as much as it takes.
    pub cpu_budget: Option<f64>,
    /// What may be resident, in bytes; `None` for as much as it takes.
    pub memory_budget: Option<u64>,
    /// Where `/proc` is.
    pub proc_root: PathBuf,
    /// Root of the cgroup2 hierarchy; `None` looks for it.
    pub cgroup_root: Option<PathBuf>,
    /// Docker's socket; `None` without Docker.
    pub docker_socket: Option<PathBuf>,
    /// Sockets of CRI runtimes.
    pub cri_sockets: CriSockets,
    /// Which secrets are hidden.
    pub masks: Masks,
    /// Which rungs of the ladder may be used.
    pub capture: CaptureMode,
    /// Where kernel programs are pinned, so that they outlive the probe.
    pub pin_dir: PinDir,
    /// Makes this build of the kernel programs look like another: for tests of upgrades.
    pub abi_salt: u64,
    /// Whether connection tracking is asked for address translations.
    pub conntrack: bool,
    /// Whether connections over Unix sockets are looked for.
    pub unix_sockets: bool,
    /// Where names are looked for.
    pub dns: dns::Mode,
    /// Where the cloud's metadata service is asked; `None` asks none.
    pub cloud_metadata: Option<cloud::Config>,
    /// Whether environments of containers are told.
    pub container_env: bool,
    /// Whether arguments of command lines are told.
    pub command_line_arguments: Arguments,
    /// Whether kernel programs write log lines.
    pub kernel_log: bool,
    /// Whether the control plane may have something done here: stop a container, open a terminal in one, …
    pub controls: bool,
    /// Whether that may be a shell on the host itself.
    pub host_shell: bool,
    /// The cluster that the collector collects.
    pub kubernetes: kubernetes::Config,
    /// The Mesos agent.
    pub agent: ::agent::config::Config,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_filter: String,
    /// The value of every key as it was written.
    pub settings: Settings,
}

/// The value of every key as it was written: what tells two configurations apart.
#[derive(Clone, Default)]
pub struct Settings(BTreeMap<&'static str, String>, BTreeSet<&'static str>);

impl Settings {
    /// Whether somebody gave the value of a key, were it the built-in one.
    pub fn was_given(&self, key: &str) -> bool {
        self.1.contains(key)
    }

    /// Keys whose values differ.
    pub fn changed(&self, other: &Self) -> Vec<&'static str> {
        self.0.iter().filter(|(key, value)| other.0.get(**key) != Some(*value)).map(|(key, _)| *key).collect()
    }
}

impl std::fmt::Debug for Settings {
    /// Without the values: some are for few eyes.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// Keys that a running probe follows, whichever role it has.
const FOLLOWED: [&str; 19] = [
    METRICS_INTERVAL,
    CPU_BUDGET,
    MEMORY_BUDGET,
    CRI_SOCKET,
    MASK,
    CONNTRACK,
    UNIX_SOCKETS,
    DNS,
    CONTAINER_ENV,
    COMMAND_LINE_ARGUMENTS,
    CONTROLS,
    HOST_SHELL,
    KUBERNETES,
    KUBERNETES_CONFIG,
    KUBERNETES_CONTEXT,
    KUBERNETES_API,
    KUBERNETES_NAMESPACES,
    KUBERNETES_LEASE,
    LOG_FILTER,
];

/// Keys that the roles that watch follow, and an agent reads at its start.
const FOLLOWED_BY_WATCHERS: [&str; 6] = [CONTROL_PLANE, TLS_CA, TLS_CERTIFICATE, TLS_KEY, TLS_SERVER_NAME, DOCKER_SOCKET];

/// Keys of `changed` that mean something to a probe with these roles, and that it reads at its start alone.
pub fn fixed(changed: &[&'static str], roles: Roles) -> Vec<&'static str> {
    let is_agents = |key: &str| agent::BUILT_IN.iter().any(|(it, _)| *it == key);
    let is_fixed = |key: &str| match key {
        _ if FOLLOWED.contains(&key) => false,
        _ if FOLLOWED_BY_WATCHERS.contains(&key) => roles.run,
        _ => roles.run || !is_agents(key),
    };
    changed.iter().copied().filter(|key| is_fixed(key)).collect()
}

/// What one process is, each on a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Watches this node.
    pub observe: bool,
    /// Is the collector of a Kubernetes cluster.
    pub kubernetes: bool,
    /// Is a Mesos agent: runs tasks on this node.
    pub run: bool,
}

/// Which rungs of the ladder may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMode {
    /// The best that works.
    Auto,
    /// Kernel programs or nothing.
    Ebpf,
    /// The netlink connector and socket tables.
    Netlink,
    /// Files of `/proc` alone.
    Proc,
}

/// Sockets of CRI runtimes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CriSockets {
    /// Where runtimes usually have them.
    Auto,
    /// These alone.
    Paths(Vec<PathBuf>),
    /// None.
    Off,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

const ENVIRONMENT_PREFIX: &str = "ORCHESTRATOR_PROBE_";

const ROLES: &str = "roles";
const CONTROL_PLANE: &str = "control-plane";
const TLS_CA: &str = "tls-ca";
const TLS_CERTIFICATE: &str = "tls-certificate";
const TLS_KEY: &str = "tls-key";
const TLS_SERVER_NAME: &str = "tls-server-name";
const HOST_NAME: &str = "host-name";
const PROBE_ID: &str = "probe-id";
const STATE_DIR: &str = "state-dir";
const ADMIN_ADDRESS: &str = "admin-address";
const METRICS_INTERVAL: &str = "metrics-interval";
const CPU_BUDGET: &str = "cpu-budget";
const MEMORY_BUDGET: &str = "memory-budget";
const PROC_ROOT: &str = "proc-root";
const CGROUP_ROOT: &str = "cgroup-root";
const DOCKER_SOCKET: &str = "docker-socket";
const CRI_SOCKET: &str = "cri-socket";
const MASK: &str = "mask";
const CAPTURE: &str = "capture";
const PIN_DIR: &str = "pin-dir";
const CONNTRACK: &str = "conntrack";
const UNIX_SOCKETS: &str = "unix-sockets";
const DNS: &str = "dns";
const CLOUD_METADATA: &str = "cloud-metadata";
const CLOUD_METADATA_ADDRESS: &str = "cloud-metadata-address";
const FIRMWARE_ROOT: &str = "firmware-root";
const CONTAINER_ENV: &str = "container-env";
const COMMAND_LINE_ARGUMENTS: &str = "command-line-arguments";
const KERNEL_LOG: &str = "kernel-log";
const CONTROLS: &str = "controls";
const HOST_SHELL: &str = "host-shell";
const KUBERNETES: &str = "kubernetes";
const KUBERNETES_CONFIG: &str = "kubernetes-config";
const KUBERNETES_CONTEXT: &str = "kubernetes-context";
const KUBERNETES_API: &str = "kubernetes-api";
const KUBERNETES_NAMESPACES: &str = "kubernetes-namespaces";
const KUBERNETES_LEASE: &str = "kubernetes-lease";
const LOG_FORMAT: &str = "log-format";
/// Key of [`Config::log_filter`].
pub const LOG_FILTER: &str = "log-filter";

/// Every key with its built-in value. Empty means: found out by the probe.
const BUILT_IN: [(&str, &str); 39] = [
    (ROLES, "observe"),
    (CONTROL_PLANE, "http://127.0.0.1:4041"),
    (TLS_CA, ""),
    (TLS_CERTIFICATE, ""),
    (TLS_KEY, ""),
    (TLS_SERVER_NAME, ""),
    (HOST_NAME, ""),
    (PROBE_ID, ""),
    (STATE_DIR, "/var/lib/orchestrator-probe"),
    (ADMIN_ADDRESS, "127.0.0.1:4042"),
    (METRICS_INTERVAL, "15s"),
    (CPU_BUDGET, "5%"),
    (MEMORY_BUDGET, "100MB"),
    (PROC_ROOT, "/proc"),
    (CGROUP_ROOT, ""),
    (DOCKER_SOCKET, "/var/run/docker.sock"),
    (CRI_SOCKET, "auto"),
    (MASK, ""),
    (CAPTURE, "auto"),
    (PIN_DIR, "auto"),
    (CONNTRACK, "true"),
    (UNIX_SOCKETS, "false"),
    (DNS, "auto"),
    (CLOUD_METADATA, "true"),
    (CLOUD_METADATA_ADDRESS, ""),
    (FIRMWARE_ROOT, ""),
    (CONTAINER_ENV, "false"),
    (COMMAND_LINE_ARGUMENTS, "show"),
    (KERNEL_LOG, "false"),
    (CONTROLS, "true"),
    (HOST_SHELL, "false"),
    (KUBERNETES, "kubernetes"),
    (KUBERNETES_CONFIG, ""),
    (KUBERNETES_CONTEXT, ""),
    (KUBERNETES_API, ""),
    (KUBERNETES_NAMESPACES, ""),
    (KUBERNETES_LEASE, "orchestrator-collector"),
    (LOG_FORMAT, "text"),
    (LOG_FILTER, "info"),
];

/// Those of the roles that watch, and those of the agent.
fn built_in() -> impl Iterator<Item = (&'static str, &'static str)> {
    BUILT_IN.into_iter().chain(agent::BUILT_IN)
}

impl Config {
    /// Reads flags, environment and file.
    ///
    /// # Errors
    /// All mistakes that there are.
    pub fn resolve(flags: &Flags, environment: impl IntoIterator<Item = (String, String)>) -> Result<Config, Vec<Mistake>> {
        let mut layers = Layers::default();
        for (key, value) in built_in() {
            layers.set(key, value, Origin::BuiltIn);
        }
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        if let Some(path) = flags.config.clone().or_else(|| environment.get(&variable("config")).map(PathBuf::from)) {
            layers.read_file(&path);
        }
        let given = flags.given();
        let of_flags = given.iter().find(|(key, _)| *key == agent::MESOS_FLAGS).map(|(_, value)| value);
        let of_file = layers.values.get(agent::MESOS_FLAGS).map(|(value, _)| value);
        let mesos = of_flags.or_else(|| environment.get(&variable(agent::MESOS_FLAGS))).or(of_file).cloned().unwrap_or_default();
        layers.read_libprocess(&environment);
        layers.read_mesos_flags(&environment, &mesos);
        for (key, _) in built_in() {
            if let Some(value) = environment.get(&variable(key)) {
                layers.set(key, value, Origin::Environment);
            }
        }
        for (key, value) in given {
            layers.set(key, &value, Origin::Flag);
        }
        let mut config = layers.into_config()?;
        config.abi_salt = flags.abi_salt;
        let of_environment = environment.get("LIBPROCESS_IP").filter(|it| !it.is_empty());
        config.agent.libprocess_ip = config.agent.libprocess_ip.or_else(|| of_environment.cloned());
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
