//! Configuration: flag, else environment, else file, else built-in; resolved once, and every mistake is told at once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use figment::value::Value;
use tonic::transport::Endpoint;

use crate::dns;
use crate::ebpf::PinDir;
use crate::host::cloud;
use crate::kubernetes;
use crate::mask::Masks;
use crate::procfs::Arguments;

mod agent;
mod cluster;

/// What the probe was told to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the probe is.
    pub roles: Roles,
    /// Where reports go.
    pub control_plane: Endpoint,
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
    /// This one alone.
    Path(PathBuf),
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

/// One mistake in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    key: String,
    value: Option<String>,
    source: Origin,
    problem: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Flag,
    Environment,
    File(PathBuf),
    BuiltIn,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Origin::Flag => write!(f, "--{}", self.key)?,
            Origin::Environment => f.write_str(&variable(&self.key))?,
            Origin::File(path) => write!(f, "{} in {}", self.key, path.display())?,
            Origin::BuiltIn => f.write_str(&self.key)?,
        }
        if let Some(value) = &self.value {
            write!(f, " is {value:?}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

const ENVIRONMENT_PREFIX: &str = "ORCHESTRATOR_PROBE_";

const ROLES: &str = "roles";
const CONTROL_PLANE: &str = "control-plane";
const HOST_NAME: &str = "host-name";
const PROBE_ID: &str = "probe-id";
const STATE_DIR: &str = "state-dir";
const ADMIN_ADDRESS: &str = "admin-address";
const METRICS_INTERVAL: &str = "metrics-interval";
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
const LOG_FILTER: &str = "log-filter";

/// Every key with its built-in value. Empty means: found out by the probe.
const BUILT_IN: [(&str, &str); 33] = [
    (ROLES, "observe"),
    (CONTROL_PLANE, "http://127.0.0.1:4041"),
    (HOST_NAME, ""),
    (PROBE_ID, ""),
    (STATE_DIR, "/var/lib/orchestrator-probe"),
    (ADMIN_ADDRESS, "127.0.0.1:4042"),
    (METRICS_INTERVAL, "15s"),
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

/// The probe of Orchestrator: sees the connections, processes and containers of this node and streams them to the control plane.
///
/// Every flag can also be given as an environment variable (ORCHESTRATOR_PROBE_CONTROL_PLANE, ...) or as a key of the --config file
/// (control-plane = "..."). A flag wins over the environment, which wins over the file. SIGHUP makes the probe read all of them again.
///
/// Without root: CAP_BPF and CAP_NET_ADMIN see connections, CAP_PERFMON processes and the bytes of open connections, CAP_SYS_PTRACE the holders of
/// listeners that are older than the probe, CAP_DAC_READ_SEARCH what /proc hides.
#[derive(Debug, Parser)]
#[command(name = "orchestrator-probe", version)]
pub struct Flags {
    /// What to do; without one, `run`
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Look once, print what is seen on this node, and end; no control plane is asked, no port is opened
    #[arg(long)]
    pub once: bool,
    /// What --once prints: table (for people) or json (docs/once.md names the fields)
    #[arg(long, value_name = "FORMAT", default_value = "table", requires = "once")]
    pub output: Output,
    /// How long --once watches before it prints
    #[arg(long = "for", value_name = "TIME", default_value = "2s", requires = "once", value_parser = parse_once)]
    pub once_for: Duration,
    /// What this process is: observe (watches this node), run (is a Mesos agent), kubernetes (the one collector of a cluster), or several, with commas
    /// [default: observe]
    #[arg(long, value_name = "ROLES", global = true)]
    roles: Option<String>,
    /// gRPC address of the control plane [default: http://127.0.0.1:4041]
    #[arg(long, value_name = "URL", global = true)]
    control_plane: Option<String>,
    /// Name under which this host is reported [default: the system's]
    #[arg(long, value_name = "NAME", global = true)]
    host_name: Option<String>,
    /// Stable identity of this probe, never the same on two hosts [default: made of the machine id]
    #[arg(long, value_name = "ID", global = true)]
    probe_id: Option<String>,
    /// Where an identity is kept that had to be made [default: /var/lib/orchestrator-probe]
    #[arg(long, value_name = "DIRECTORY", global = true)]
    state_dir: Option<String>,
    /// Listener of /metrics, /health and /ready, or "off" [default: 127.0.0.1:4042]
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    admin_address: Option<String>,
    /// How often the host, its processes and its containers are sampled [default: 15s]
    #[arg(long, value_name = "TIME", global = true)]
    metrics_interval: Option<String>,
    /// Where the host's /proc is [default: /proc]
    #[arg(long, value_name = "DIRECTORY", global = true)]
    proc_root: Option<String>,
    /// Root of the host's cgroup2 hierarchy [default: where it is mounted]
    #[arg(long, value_name = "DIRECTORY", global = true)]
    cgroup_root: Option<String>,
    /// Docker's socket [default: /var/run/docker.sock]
    #[arg(long, value_name = "PATH", global = true, conflicts_with = "no_docker")]
    docker_socket: Option<String>,
    /// Do not look for Docker
    #[arg(long, global = true)]
    no_docker: bool,
    /// Socket of containerd or CRI-O, auto for the usual places, or off [default: auto]
    #[arg(long, value_name = "PATH", global = true)]
    cri_socket: Option<String>,
    /// Hide the values of variables, labels and options with names like this regular expression, besides password, token and the like; "none"
    /// takes those away. May be given more than once; in the environment one per line
    #[arg(long, value_name = "PATTERN", global = true)]
    mask: Vec<String>,
    /// How to see: auto, ebpf, netlink or proc [default: auto]
    #[arg(long, value_name = "MODE", global = true)]
    capture: Option<String>,
    /// Where kernel programs are pinned, so that a restart of the probe misses nothing: a directory, "on" for the BPF file system at
    /// /sys/fs/bpf, or "off" [default: on where systemd or Kubernetes restarts the probe, else off]
    #[arg(long, value_name = "DIRECTORY", global = true)]
    pin_dir: Option<String>,
    #[arg(long, hide = true, global = true, default_value_t = 0)]
    abi_salt: u64,
    /// Do not ask the kernel's connection tracking where NAT takes connections
    #[arg(long, global = true)]
    no_conntrack: bool,
    /// Look every 5 s who talks to whom over Unix sockets
    #[arg(long, global = true)]
    unix_sockets: bool,
    /// Where to see which names are resolved: auto (answers of DNS servers here, and for a while answers to who asks a server elsewhere), all
    /// (every packet that arrives on this machine is looked at: about 0.1 microseconds each), or off [default: auto]
    #[arg(long, value_name = "MODE", global = true)]
    dns: Option<String>,
    /// Do not ask a cloud's metadata service for region and instance
    #[arg(long, global = true)]
    no_cloud_metadata: bool,
    /// Another address of the metadata service: link-local or loopback
    #[arg(long, value_name = "ADDRESS:PORT", global = true, hide = true)]
    cloud_metadata_address: Option<String>,
    /// Where the words of the firmware are
    #[arg(long, value_name = "DIRECTORY", global = true, hide = true)]
    firmware_root: Option<String>,
    /// Tell the environment of containers, with secrets masked
    #[arg(long, global = true)]
    container_env: bool,
    /// Whether arguments of command lines are told: show or hide [default: show]
    #[arg(long, value_name = "MODE", global = true)]
    command_line_arguments: Option<String>,
    /// Write a log line for each event that the kernel programs see; slow
    #[arg(long, global = true)]
    kernel_log: bool,
    /// Refuse every control: nothing on this node can be stopped, looked into or changed from the map
    #[arg(long, global = true, conflicts_with = "host_shell")]
    no_controls: bool,
    /// Let users of the map open a shell on this host, as root; needs nsenter and setsid of util-linux
    #[arg(long, global = true)]
    host_shell: bool,
    /// Name of the Kubernetes cluster that the collector collects, as the map shows it [default: kubernetes]
    #[arg(long, value_name = "NAME", global = true)]
    kubernetes: Option<String>,
    /// A kubeconfig, or "in-cluster" [default: as kubectl would, else in-cluster]
    #[arg(long, value_name = "FILE", global = true)]
    kubernetes_config: Option<String>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", global = true)]
    kubernetes_context: Option<String>,
    /// Address of a Kubernetes API that asks for no credentials, such as `kubectl proxy` [default: none]
    #[arg(long, value_name = "URL", global = true)]
    kubernetes_api: Option<String>,
    /// The only namespaces that the collector looks at, with commas [default: all]
    #[arg(long, value_name = "NAMES", global = true)]
    kubernetes_namespaces: Option<String>,
    /// Lease by which several collectors of one cluster agree on the one that reports: a name, a namespace and a name with a slash, or "off"
    /// [default: orchestrator-collector, in the collector's namespace]
    #[arg(long, value_name = "LEASE", global = true)]
    kubernetes_lease: Option<String>,
    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "FORMAT", global = true)]
    log_format: Option<String>,
    /// Which log lines are written, e.g. info or warn,orchestrator_probe=debug [default: info]
    #[arg(long, value_name = "FILTER", global = true)]
    log_filter: Option<String>,
    #[command(flatten)]
    agent: agent::AgentFlags,
    /// A TOML file with any of these keys
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

/// What `--once` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Tables for people: the busiest first.
    Table,
    /// One document.
    Json,
}

/// What the probe can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Watch this node and report to the control plane
    Run,
    /// Show the busiest processes, flows and containers of this node on the terminal; h is for help
    Top,
    /// Remove the kernel programs that an earlier probe has left pinned
    Detach,
    /// Load the kernel programs alone and print what they see
    Load {
        /// How long
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
        duration: Duration,
    },
}

impl Flags {
    fn given(&self) -> Vec<(&'static str, String)> {
        let texts = [
            (ROLES, &self.roles),
            (CONTROL_PLANE, &self.control_plane),
            (HOST_NAME, &self.host_name),
            (PROBE_ID, &self.probe_id),
            (STATE_DIR, &self.state_dir),
            (ADMIN_ADDRESS, &self.admin_address),
            (METRICS_INTERVAL, &self.metrics_interval),
            (PROC_ROOT, &self.proc_root),
            (CGROUP_ROOT, &self.cgroup_root),
            (DOCKER_SOCKET, &self.docker_socket),
            (CRI_SOCKET, &self.cri_socket),
            (CAPTURE, &self.capture),
            (PIN_DIR, &self.pin_dir),
            (DNS, &self.dns),
            (CLOUD_METADATA_ADDRESS, &self.cloud_metadata_address),
            (FIRMWARE_ROOT, &self.firmware_root),
            (COMMAND_LINE_ARGUMENTS, &self.command_line_arguments),
            (KUBERNETES, &self.kubernetes),
            (KUBERNETES_CONFIG, &self.kubernetes_config),
            (KUBERNETES_CONTEXT, &self.kubernetes_context),
            (KUBERNETES_API, &self.kubernetes_api),
            (KUBERNETES_NAMESPACES, &self.kubernetes_namespaces),
            (KUBERNETES_LEASE, &self.kubernetes_lease),
            (LOG_FORMAT, &self.log_format),
            (LOG_FILTER, &self.log_filter),
        ];
        let mut given: Vec<(&str, String)> = texts.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect();
        if self.no_docker {
            given.push((DOCKER_SOCKET, String::new()));
        }
        if self.kernel_log {
            given.push((KERNEL_LOG, "true".to_owned()));
        }
        if self.no_controls {
            given.push((CONTROLS, "false".to_owned()));
        }
        if self.host_shell {
            given.push((HOST_SHELL, "true".to_owned()));
        }
        if self.no_conntrack {
            given.push((CONNTRACK, "false".to_owned()));
        }
        if self.unix_sockets {
            given.push((UNIX_SOCKETS, "true".to_owned()));
        }
        if self.no_cloud_metadata {
            given.push((CLOUD_METADATA, "false".to_owned()));
        }
        if !self.mask.is_empty() {
            given.push((MASK, self.mask.join("\n")));
        }
        if self.container_env {
            given.push((CONTAINER_ENV, "true".to_owned()));
        }
        given.extend(self.agent.given());
        given
    }
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
        let environment: BTreeMap<String, String> =
            environment.into_iter().filter(|(key, _)| key.starts_with(ENVIRONMENT_PREFIX)).collect();
        if let Some(path) = flags.config.clone().or_else(|| environment.get(&variable("config")).map(PathBuf::from)) {
            layers.read_file(&path);
        }
        for (key, _) in built_in() {
            if let Some(value) = environment.get(&variable(key)) {
                layers.set(key, value, Origin::Environment);
            }
        }
        for (key, value) in flags.given() {
            layers.set(key, &value, Origin::Flag);
        }
        let mut config = layers.into_config()?;
        config.abi_salt = flags.abi_salt;
        Ok(config)
    }
}

#[derive(Default)]
struct Layers {
    values: BTreeMap<&'static str, (String, Origin)>,
    mistakes: Vec<Mistake>,
}

impl Layers {
    fn set(&mut self, key: &'static str, value: &str, source: Origin) {
        self.values.insert(key, (value.to_owned(), source));
    }

    fn read_file(&mut self, path: &Path) {
        use figment::providers::{Format as _, Toml};

        let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let parsed = read.and_then(|text| {
            figment::Figment::from(Toml::string(&text)).extract::<BTreeMap<String, Value>>().map_err(|error| error.to_string())
        });
        let mistake = |key: &str, value: Option<String>, problem: &str| Mistake {
            key: key.to_owned(),
            value,
            source: Origin::File(path.to_owned()),
            problem: problem.to_owned(),
        };
        let entries = match parsed {
            Ok(entries) => entries,
            Err(problem) => {
                self.mistakes.push(mistake("config", None, &problem));
                return;
            }
        };
        for (key, value) in entries {
            let text = if key == MASK { lines(&value) } else { scalar(&value) };
            match (built_in().find(|(known, _)| *known == key), text) {
                (Some((known, _)), Some(text)) => self.set(known, &text, Origin::File(path.to_owned())),
                (Some(_), None) => self.mistakes.push(mistake(&key, None, "neither a text, a number nor true or false")),
                (None, text) => {
                    let known = built_in().map(|(key, _)| key).collect::<Vec<_>>().join(", ");
                    self.mistakes.push(mistake(&key, text, &format!("no such key; there are {known}")));
                }
            }
        }
    }

    fn into_config(mut self) -> Result<Config, Vec<Mistake>> {
        let roles = self.parse(ROLES, cluster::parse_roles);
        let control_plane = self.parse(CONTROL_PLANE, parse_control_plane);
        let host_name = self.parse(HOST_NAME, |text| parse_name(text, 253));
        let probe_id = self.parse(PROBE_ID, |text| parse_name(text, 128));
        let state_dir = self.parse(STATE_DIR, |text| parse_path(text)?.ok_or_else(|| "empty".to_owned()));
        let admin_address = self.parse(ADMIN_ADDRESS, parse_admin_address);
        let metrics_interval = self.parse(METRICS_INTERVAL, parse_interval);
        let proc_root = self.parse(PROC_ROOT, |text| parse_path(text)?.ok_or_else(|| "empty".to_owned()));
        let cgroup_root = self.parse(CGROUP_ROOT, parse_path);
        let docker_socket = self.parse(DOCKER_SOCKET, |text| parse_path(text.strip_prefix("unix://").unwrap_or(text)));
        let cri_sockets = self.parse(CRI_SOCKET, parse_cri_sockets);
        let masks = self.parse(MASK, |text| Masks::new(text.lines().map(str::trim)));
        let capture = self.parse(CAPTURE, parse_capture);
        let pin_dir = self.parse(PIN_DIR, parse_pin_dir);
        let conntrack = self.parse(CONNTRACK, parse_truth);
        let unix_sockets = self.parse(UNIX_SOCKETS, parse_truth);
        let cloud_metadata: Option<bool> = self.parse(CLOUD_METADATA, parse_truth);
        let cloud_metadata_address = self.parse(CLOUD_METADATA_ADDRESS, parse_metadata_address);
        let firmware_root = self.parse(FIRMWARE_ROOT, parse_path);
        let container_env = self.parse(CONTAINER_ENV, parse_truth);
        let kernel_log = self.parse(KERNEL_LOG, parse_truth);
        let controls: Option<bool> = self.parse(CONTROLS, parse_truth);
        let host_shell: Option<bool> = self.parse(HOST_SHELL, parse_truth);
        let dns = self.parse(DNS, parse_dns);
        let command_line_arguments = self.parse(COMMAND_LINE_ARGUMENTS, parse_arguments);
        let kubernetes = self.cluster(roles);
        let shared = (|| {
            let control_plane = control_plane.as_ref().map(|it: &Endpoint| it.uri().to_string())?;
            Some(agent::Shared { control_plane, host_name: host_name.clone()?, docker_socket: docker_socket.clone()? })
        })();
        let agent = self.agent(shared);
        let log_format = self.parse(LOG_FORMAT, parse_log_format);
        let log_filter = self.parse(LOG_FILTER, |text| match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(error.to_string()),
        });
        let config = (|| {
            Some(Config {
                roles: roles?,
                control_plane: control_plane?,
                host_name: host_name?,
                probe_id: probe_id?,
                state_dir: state_dir?,
                admin_address: admin_address?,
                metrics_interval: metrics_interval?,
                proc_root: proc_root?,
                cgroup_root: cgroup_root?,
                docker_socket: docker_socket?,
                cri_sockets: cri_sockets?,
                masks: masks?,
                capture: capture?,
                pin_dir: pin_dir?,
                abi_salt: 0,
                conntrack: conntrack?,
                unix_sockets: unix_sockets?,
                dns: dns?,
                cloud_metadata: {
                    let config = cloud::Config::new(cloud_metadata_address?, firmware_root?);
                    cloud_metadata?.then_some(config)
                },
                container_env: container_env?,
                command_line_arguments: command_line_arguments?,
                kernel_log: kernel_log?,
                controls: controls?,
                host_shell: controls? && host_shell?,
                kubernetes: kubernetes?,
                agent: agent?,
                log_format: log_format?,
                log_filter: log_filter?,
            })
        })();
        match config {
            Some(config) if self.mistakes.is_empty() => Ok(config),
            _ => Err(self.mistakes),
        }
    }

    fn parse<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let (value, source) = self.values.get(key)?;
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.mistakes.push(Mistake { key: key.to_owned(), value: Some(value.clone()), source: source.clone(), problem });
                None
            }
        }
    }
}

fn variable(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.replace('-', "_").to_uppercase())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Bool(_, truth) => Some(truth.to_string()),
        Value::Num(_, number) => number.to_i128().map(|it| it.to_string()).or_else(|| number.to_u128().map(|it| it.to_string())),
        _ => None,
    }
}

/// A text, or a list of texts, one a line.
fn lines(value: &Value) -> Option<String> {
    match value {
        Value::Array(_, values) => values.iter().map(scalar).collect::<Option<Vec<_>>>().map(|it| it.join("\n")),
        _ => scalar(value),
    }
}

fn parse_control_plane(text: &str) -> Result<Endpoint, String> {
    let not_a_url = || "not an address such as http://control.example.com:4041".to_owned();
    if text.starts_with("https://") {
        return Err("this version speaks plain http:// alone; put a TLS proxy or a mesh in between".to_owned());
    }
    if !text.starts_with("http://") {
        return Err(not_a_url());
    }
    let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|_| not_a_url())?;
    if endpoint.uri().host().is_none_or(str::is_empty) {
        return Err(not_a_url());
    }
    Ok(endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true))
}

fn parse_name(text: &str, longest: usize) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        _ if text.len() > longest => Err(format!("longer than {longest} bytes")),
        _ if text.chars().any(|it| it.is_control() || it.is_whitespace() || it == ';') => {
            Err("blanks and semicolons are not allowed".to_owned())
        }
        _ => Ok(Some(text.to_owned())),
    }
}

fn parse_path(text: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "" => Ok(None),
        _ if text.starts_with('/') => Ok(Some(PathBuf::from(text))),
        _ => Err("not an absolute path".to_owned()),
    }
}

fn parse_cri_sockets(text: &str) -> Result<CriSockets, String> {
    match text {
        "auto" => Ok(CriSockets::Auto),
        "" | "off" => Ok(CriSockets::Off),
        _ => match parse_path(text.strip_prefix("unix://").unwrap_or(text)) {
            Ok(Some(path)) => Ok(CriSockets::Path(path)),
            _ => Err("neither auto, off nor an absolute path".to_owned()),
        },
    }
}

fn parse_admin_address(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "" | "off" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| "neither \"off\" nor an address and a port, such as 127.0.0.1:4042".to_owned()),
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|_| "not a time, such as 15s or 1m".to_owned())?;
    if (Duration::from_secs(1)..=Duration::from_secs(600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("not between 1s and 10m".to_owned())
    }
}

fn parse_metadata_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    // Whoever is asked learns nothing and is believed little, but a probe does not talk to strangers.
    let is_near = |address: &SocketAddr| match address.ip() {
        std::net::IpAddr::V4(it) => it.is_link_local() || it.is_loopback(),
        std::net::IpAddr::V6(it) => it.is_unicast_link_local() || it.is_loopback(),
    };
    text.parse().ok().filter(is_near).map(Some).ok_or_else(|| "not a link-local or loopback address and a port".to_owned())
}

fn parse_once(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|_| "not a time, such as 2s".to_owned())?;
    if time <= Duration::from_secs(3600) { Ok(time) } else { Err("longer than an hour".to_owned()) }
}

fn parse_capture(text: &str) -> Result<CaptureMode, String> {
    match text {
        "auto" => Ok(CaptureMode::Auto),
        "ebpf" => Ok(CaptureMode::Ebpf),
        "netlink" => Ok(CaptureMode::Netlink),
        "proc" => Ok(CaptureMode::Proc),
        _ => Err("there are auto, ebpf, netlink and proc".to_owned()),
    }
}

fn parse_pin_dir(text: &str) -> Result<PinDir, String> {
    match text {
        "off" => Ok(PinDir::Off),
        "on" => Ok(PinDir::Usual),
        "auto" if is_restarted() => Ok(PinDir::Usual),
        "auto" => Ok(PinDir::Off),
        _ if text.starts_with('/') => Ok(PinDir::At(PathBuf::from(text))),
        _ => Err("neither an absolute path nor one of auto, on and off".to_owned()),
    }
}

/// Whether somebody starts the probe again when it ends: systemd, Kubernetes, or a container engine, under which it is the first process. Programs
/// that are left behind by a probe that was started by hand would be a surprise.
fn is_restarted() -> bool {
    let own = std::process::id();
    let by_systemd = std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|pid| pid.parse() == Ok(own));
    by_systemd || own == 1 || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn parse_dns(text: &str) -> Result<dns::Mode, String> {
    match text {
        "auto" => Ok(dns::Mode::Auto),
        "all" => Ok(dns::Mode::All),
        "off" => Ok(dns::Mode::Off),
        _ => Err("there are auto, all and off".to_owned()),
    }
}

fn parse_arguments(text: &str) -> Result<Arguments, String> {
    match text {
        "show" => Ok(Arguments::Show),
        "hide" => Ok(Arguments::Hide),
        _ => Err("there are show and hide".to_owned()),
    }
}

fn parse_truth(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "neither true nor false".to_owned())
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("there are text and json".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let flags = Flags::try_parse_from(std::iter::once("orchestrator-probe").chain(arguments.iter().copied())).unwrap();
        let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Config::resolve(&flags, environment).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_anything_the_probe_talks_to_this_machine_alone() {
        let config = resolve(&[], &[]).unwrap();
        assert_eq!(config.control_plane.uri().to_string(), "http://127.0.0.1:4041/");
        assert_eq!(config.admin_address, Some("127.0.0.1:4042".parse().unwrap()));
        assert!(!config.container_env);
        assert!(config.conntrack);
        assert!(!config.unix_sockets);
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "metrics-interval = \"3s\"\nhost-name = \"from-file\"\ncontainer-env = true\nprobe-id = \"file\"\nunix-sockets = true\n",
        )
        .unwrap();
        let path = file.path().to_str().unwrap();
        let environment = [("ORCHESTRATOR_PROBE_HOST_NAME", "from-environment"), ("ORCHESTRATOR_PROBE_PROBE_ID", "environment")];
        let config = resolve(&["--config", path, "--probe-id", "flag", "--no-docker", "--no-conntrack"], &environment).unwrap();
        assert_eq!(config.metrics_interval, Duration::from_secs(3));
        assert_eq!(config.host_name.as_deref(), Some("from-environment"));
        assert_eq!(config.probe_id.as_deref(), Some("flag"));
        assert_eq!(config.docker_socket, None);
        assert!(config.container_env);
        assert!(!config.conntrack);
        assert!(config.unix_sockets);
        assert!(resolve(&["--unix-sockets"], &[]).unwrap().unix_sockets);
    }

    #[test]
    fn every_mistake_is_told_at_once_and_where_it_was_made() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "metrics-intervall = 3\nproc-root = \"proc\"\n").unwrap();
        let path = file.path().to_str().unwrap();
        let mistakes = resolve(
            &["--config", path, "--capture", "magic", "--control-plane", "example.com"],
            &[("ORCHESTRATOR_PROBE_LOG_FORMAT", "xml")],
        )
        .unwrap_err();
        let told = mistakes.join("\n").replace(path, "FILE");
        expect_test::expect![[r#"
            metrics-intervall in FILE is "3": no such key; there are roles, control-plane, host-name, probe-id, state-dir, admin-address, metrics-interval, proc-root, cgroup-root, docker-socket, cri-socket, mask, capture, pin-dir, conntrack, unix-sockets, dns, cloud-metadata, cloud-metadata-address, firmware-root, container-env, command-line-arguments, kernel-log, controls, host-shell, kubernetes, kubernetes-config, kubernetes-context, kubernetes-api, kubernetes-namespaces, kubernetes-lease, log-format, log-filter, agent-address, advertise-ip, advertise-port, resources, attributes, default-role, domain, work-dir, runtime-dir, docker-config, isolation, allowed-devices, cgroups-root, cgroups-enable-cfs, cgroups-limit-swap, enforce-container-disk-quota, switch-user, executor-environment-variables, executor-registration-timeout, executor-reregistration-timeout, executor-shutdown-grace-period, recover, gc-delay, gc-disk-headroom, fetcher-cache-size, task-log-rotate-size
            --control-plane is "example.com": not an address such as http://control.example.com:4041
            proc-root in FILE is "proc": not an absolute path
            --capture is "magic": there are auto, ebpf, netlink and proc
            ORCHESTRATOR_PROBE_LOG_FORMAT is "xml": there are text and json"#]]
        .assert_eq(&told);
    }

    #[test]
    fn the_metadata_service_is_near_or_not_asked() {
        assert_eq!(resolve(&[], &[]).unwrap().cloud_metadata.unwrap().address, cloud::ADDRESS);
        assert!(resolve(&["--no-cloud-metadata"], &[]).unwrap().cloud_metadata.is_none());
        let other = resolve(&["--cloud-metadata-address", "127.0.0.1:81"], &[]).unwrap().cloud_metadata.unwrap();
        assert_eq!(other.address, "127.0.0.1:81".parse().unwrap());
        for far in ["10.0.0.1:80", "[2001:db8::1]:80", "169.254.169.254", "metadata:80"] {
            let mistakes = resolve(&["--cloud-metadata-address", far], &[]).unwrap_err();
            assert_eq!(mistakes, [format!("--cloud-metadata-address is {far:?}: not a link-local or loopback address and a port")]);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_a_mistake() {
        let mistakes = resolve(&["--config", "/does/not/exist"], &[]).unwrap_err();
        assert_eq!(mistakes, ["config in /does/not/exist: No such file or directory (os error 2)"]);
    }
}
