//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::parse::parse_once;
use super::{agent, *};

/// The probe of Orchestrator: sees the connections, processes and containers of this node and streams them to the control plane.
///
/// Every flag can also be given as an environment variable (ORCHESTRATOR_PROBE_CONTROL_PLANE, ...) or as a key of the --config file
/// (control-plane = "..."). A flag wins over the environment, which wins over the file. SIGHUP makes the probe read the file again.
///
/// Without root: CAP_BPF and CAP_NET_ADMIN see connections, CAP_PERFMON processes and the bytes of open connections, CAP_SYS_PTRACE the holders of
/// listeners that are older than the probe, CAP_DAC_READ_SEARCH what /proc hides, CAP_SYS_ADMIN the network namespaces of containers: without it UDP
/// there has no client address. What is missing is a blind spot on the map.
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
    /// gRPC address of the control plane, or several with commas between them: when one is lost, the next is asked [default: http://127.0.0.1:4041]
    #[arg(long, value_name = "URLS", global = true)]
    control_plane: Option<String>,
    /// Who signs the control plane's certificate, for https [default: whom this machine trusts]
    #[arg(long, value_name = "FILE", global = true)]
    tls_ca: Option<String>,
    /// Certificate that is shown to the control plane; read at each connection
    #[arg(long, value_name = "FILE", global = true)]
    tls_certificate: Option<String>,
    /// Private key of the certificate
    #[arg(long, value_name = "FILE", global = true)]
    tls_key: Option<String>,
    /// Name in the control plane's certificate [default: the one in its address]
    #[arg(long, value_name = "NAME", global = true)]
    tls_server_name: Option<String>,
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
    /// How much of one CPU the probe may use, on average over 30 s, or "off": when it uses more, it samples and looks more rarely, and says so
    /// [default: 5%]
    #[arg(long, value_name = "PERCENT", global = true)]
    cpu_budget: Option<String>,
    /// How much memory it may use, likewise [default: 100MB]
    #[arg(long, value_name = "SIZE", global = true)]
    memory_budget: Option<String>,
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
    /// Sockets of containerd or CRI-O with commas between them, auto for the usual places, or off [default: auto]
    #[arg(long, value_name = "PATHS", global = true)]
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
    pub(super) abi_salt: u64,
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
    /// Let users of the map open a shell on this host, as root; in a container it needs the host's process ids and CAP_SYS_CHROOT as well
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
    pub(super) config: Option<PathBuf>,
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
    /// What was given, by key.
    pub(super) fn given(&self) -> Vec<(&'static str, String)> {
        let texts = [
            (ROLES, &self.roles),
            (CONTROL_PLANE, &self.control_plane),
            (TLS_CA, &self.tls_ca),
            (TLS_CERTIFICATE, &self.tls_certificate),
            (TLS_KEY, &self.tls_key),
            (TLS_SERVER_NAME, &self.tls_server_name),
            (HOST_NAME, &self.host_name),
            (PROBE_ID, &self.probe_id),
            (STATE_DIR, &self.state_dir),
            (ADMIN_ADDRESS, &self.admin_address),
            (METRICS_INTERVAL, &self.metrics_interval),
            (CPU_BUDGET, &self.cpu_budget),
            (MEMORY_BUDGET, &self.memory_budget),
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
