//! What the agent has to be told. The names are those of Mesos's flags.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesos_proto::v1::CapabilityInfo;
use tokio_util::sync::CancellationToken;

use crate::reconfiguration::Policy;

pub mod json;

/// Settings of the agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// gRPC address of the control plane, such as `http://127.0.0.1:4041`.
    pub master: String,
    /// How it proves who it is, and we.
    pub tls: probe_endpoint::Tls,
    /// Where the HTTP API listens.
    pub listen: SocketAddr,
    /// Address under which others reach the HTTP API.
    pub advertise_ip: IpAddr,
    /// Port under which others reach it; `None`: the one that it listens on.
    pub advertise_port: Option<u16>,
    /// Certificate and key of the HTTP API, PEM; `None`: it is spoken without TLS.
    pub api_certificate: Option<(PathBuf, PathBuf)>,
    /// Name of this host.
    pub hostname: String,
    /// Resources as Mesos's flag has them, such as `cpus:4;mem:8192`; empty: detected.
    pub resources: String,
    /// Attributes as Mesos's flag has them, such as `rack:r1`.
    pub attributes: String,
    /// Role of resources that name none.
    pub default_role: String,
    /// Region and zone.
    pub domain: Option<(String, String)>,
    /// Sandboxes, volumes and what is remembered.
    pub work_dir: PathBuf,
    /// State of running containers; lost at a reboot, as they are.
    pub runtime_dir: PathBuf,
    /// What is started to look after a container: this program, so that it outlives the agent.
    pub keeper: Vec<String>,
    /// Docker's socket; `None`: no Docker tasks.
    pub docker_socket: Option<PathBuf>,
    /// Credentials of registries, as Docker's `config.json` has them.
    pub docker_config: Option<String>,
    /// How long a container that has ended stays known to Docker.
    pub docker_remove_delay: Duration,
    /// How long Docker's containers have after SIGTERM, where nobody says and it is more than others have.
    pub docker_stop_timeout: Duration,
    /// DNS of Docker's containers, where their framework says nothing of it.
    pub default_container_dns: Vec<json::ContainerDns>,
    /// Whether containers of this agent's making that nobody knows are ended at recovery.
    pub docker_kill_orphans: bool,
    /// Where images see their sandbox.
    pub sandbox_directory: String,
    /// Isolators, by Mesos's names.
    pub isolation: Vec<String>,
    /// Where cgroups are mounted.
    pub cgroups_hierarchy: PathBuf,
    /// The cgroup under which all containers are.
    pub cgroups_root: String,
    /// Whether cpus are a ceiling, too.
    pub cgroups_enable_cfs: bool,
    /// Whether the memory limit is one of swap, too.
    pub cgroups_limit_swap: bool,
    /// Devices that containers may open besides the usual, where `cgroups/devices` isolates, as the kernel has them: `c 10:229 rwm`.
    pub allowed_devices: Vec<String>,
    /// What commands may do as root would, where their framework does not say, with `linux/capabilities`. `None`: all.
    pub effective_capabilities: Option<CapabilityInfo>,
    /// What they may do at most, the same way.
    pub bounding_capabilities: Option<CapabilityInfo>,
    /// Directories below which paths of the host that a volume names are made, where they are not there.
    pub host_path_volume_force_creation: Vec<PathBuf>,
    /// Whether containers that use more disk than they have are ended.
    pub enforce_container_disk_quota: bool,
    /// How often their use of disk is looked at.
    pub container_disk_watch_interval: Duration,
    /// Where `network/ports` isolates: how often it is looked on which ports containers listen.
    pub container_ports_watch_interval: Duration,
    /// Whether those that listen on ports that are not theirs are ended.
    pub enforce_container_ports: bool,
    /// Whether tasks run as the user that their framework names.
    pub switch_user: bool,
    /// `LIBPROCESS_IP` of the agent's own environment, which its executors have as well.
    pub libprocess_ip: Option<String>,
    /// Variables of every executor.
    pub executor_environment_variables: BTreeMap<String, String>,
    /// From a launch until its executor must have subscribed.
    pub executor_registration_timeout: Duration,
    /// From recovery until executors must have subscribed again.
    pub executor_reregistration_timeout: Duration,
    /// From telling an executor to shut down until it is destroyed.
    pub executor_shutdown_grace_period: Duration,
    /// How long executors wait for an agent that is away.
    pub recovery_timeout: Duration,
    /// First upper limit of the pause before registering, doubling to a minute.
    pub registration_backoff_factor: Duration,
    /// What is done at the start with what ran before: go on with it, or end it.
    pub recover: Recover,
    /// What may have changed of the agent since it was registered.
    pub reconfiguration_policy: Policy,
    /// How long a sandbox is kept after its executor ended, while there is room.
    pub gc_delay: Duration,
    /// Share of the disk that is to stay free.
    pub gc_disk_headroom: f64,
    /// How often the disk is looked at.
    pub disk_watch_interval: Duration,
    /// Executors that are over and still shown, per framework.
    pub max_completed_executors_per_framework: usize,
    /// Largest size of the fetcher's cache in bytes.
    pub fetcher_cache_size: u64,
    /// Where it is.
    pub fetcher_cache_dir: PathBuf,
    /// A download without a byte for this long has failed.
    pub fetcher_stall_timeout: Duration,
    /// Where Hadoop is, whose program fetches what only it can; `None`: it is looked for as any program.
    pub hadoop_home: Option<PathBuf>,
    /// Where paths of URIs begin that are relative.
    pub frameworks_home: Option<PathBuf>,
    /// A log of a task is rotated at this size in bytes; 0: never.
    pub log_rotate_bytes: u64,
    /// Rotated logs that are kept.
    pub log_rotate_keep: u32,
    /// Told where the agent's metrics are.
    pub metrics: crate::http::metrics::AgentMetrics,
    /// Told which container belongs to whom.
    pub task_labels: crate::labels::TaskLabels,
    /// Cancelled when the agent is to end its tasks and to unregister, as Mesos's does at SIGUSR1.
    pub leave: CancellationToken,
    /// Told to log more for a while.
    pub verbosity: crate::verbosity::Verbosity,
    /// How often attach streams that are silent say that they live.
    pub http_heartbeat_interval: Duration,
    /// Who this agent is for the master, where that asks.
    pub credential: Option<crate::login::Credential>,
    /// Who may use the HTTP API.
    pub login: crate::login::Login,
    /// What whoever uses the HTTP API may see and do; `None`: everything.
    pub acls: Option<Arc<mesos_acl::Acls>>,
    /// Paths of the HTTP API that are nobody's.
    pub disabled_endpoints: BTreeSet<String>,
    /// Where somebody else writes what this agent logs; shown as `/slave/log`.
    pub external_log_file: Option<PathBuf>,
}

/// What is done with what ran before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recover {
    /// It goes on.
    Reconnect,
    /// It is ended.
    Cleanup,
}

impl Config {
    /// The built-in settings, with everything below these directories.
    pub fn in_directories(work_dir: PathBuf, runtime_dir: PathBuf) -> Self {
        Config {
            master: "http://127.0.0.1:4041".to_owned(),
            tls: probe_endpoint::Tls::default(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5051)),
            advertise_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            advertise_port: None,
            api_certificate: None,
            hostname: "localhost".to_owned(),
            resources: String::new(),
            attributes: String::new(),
            default_role: "*".to_owned(),
            domain: None,
            fetcher_cache_dir: work_dir.join("fetch"),
            work_dir,
            runtime_dir,
            keeper: vec!["/proc/self/exe".to_owned(), crate::keeper::COMMAND.to_owned()],
            docker_socket: Some(PathBuf::from("/var/run/docker.sock")),
            docker_config: None,
            docker_remove_delay: Duration::from_secs(6 * 3600),
            docker_stop_timeout: Duration::ZERO,
            default_container_dns: Vec::new(),
            docker_kill_orphans: true,
            sandbox_directory: "/mnt/mesos/sandbox".to_owned(),
            isolation: ["cgroups/cpu", "cgroups/mem", "cgroups/pids", "cgroups/blkio", "disk/du", "filesystem/linux"]
                .map(str::to_owned)
                .to_vec(),
            cgroups_hierarchy: PathBuf::from("/sys/fs/cgroup"),
            cgroups_root: "mesos".to_owned(),
            cgroups_enable_cfs: false,
            cgroups_limit_swap: false,
            allowed_devices: Vec::new(),
            effective_capabilities: None,
            bounding_capabilities: None,
            host_path_volume_force_creation: Vec::new(),
            enforce_container_disk_quota: false,
            container_disk_watch_interval: Duration::from_secs(15),
            container_ports_watch_interval: Duration::from_secs(30),
            enforce_container_ports: false,
            switch_user: true,
            executor_environment_variables: BTreeMap::new(),
            executor_registration_timeout: Duration::from_secs(60),
            executor_reregistration_timeout: Duration::from_secs(2),
            executor_shutdown_grace_period: Duration::from_secs(5),
            recovery_timeout: Duration::from_secs(900),
            registration_backoff_factor: Duration::from_secs(1),
            recover: Recover::Reconnect,
            reconfiguration_policy: Policy::Equal,
            gc_delay: Duration::from_secs(7 * 24 * 3600),
            gc_disk_headroom: 0.1,
            disk_watch_interval: Duration::from_secs(60),
            max_completed_executors_per_framework: 150,
            fetcher_cache_size: 2 << 30,
            fetcher_stall_timeout: Duration::from_secs(60),
            libprocess_ip: None,
            hadoop_home: None,
            frameworks_home: None,
            log_rotate_bytes: 0,
            log_rotate_keep: 5,
            metrics: crate::http::metrics::AgentMetrics::default(),
            task_labels: crate::labels::TaskLabels::default(),
            leave: CancellationToken::new(),
            verbosity: crate::verbosity::Verbosity::default(),
            http_heartbeat_interval: Duration::from_secs(30),
            credential: None,
            login: crate::login::Login::default(),
            acls: None,
            disabled_endpoints: BTreeSet::new(),
            external_log_file: None,
        }
    }

    /// Whether an isolator is named.
    pub fn isolates(&self, name: &str) -> bool {
        crate::isolation::has(&self.isolation, name)
    }

    /// As a table of Mesos's flags, for `/flags` and `/state`. Secrets are left out.
    pub fn flags(&self) -> BTreeMap<String, String> {
        use crate::words::render_duration as time;

        let path = |it: &std::path::Path| it.display().to_string();
        let mut flags: BTreeMap<String, String> = [
            ("master", self.master.clone()),
            ("ip", self.listen.ip().to_string()),
            ("port", self.listen.port().to_string()),
            ("hostname", self.hostname.clone()),
            ("default_role", self.default_role.clone()),
            ("work_dir", path(&self.work_dir)),
            ("runtime_dir", path(&self.runtime_dir)),
            ("containerizers", if self.docker_socket.is_some() { "docker,mesos" } else { "mesos" }.to_owned()),
            ("isolation", self.isolation.join(",")),
            ("launcher", "linux".to_owned()),
            ("docker", "docker".to_owned()),
            ("docker_socket", self.docker_socket.as_deref().map(path).unwrap_or_default()),
            ("docker_remove_delay", time(self.docker_remove_delay)),
            ("docker_stop_timeout", time(self.docker_stop_timeout)),
            ("docker_kill_orphans", self.docker_kill_orphans.to_string()),
            ("sandbox_directory", self.sandbox_directory.clone()),
            ("cgroups_hierarchy", path(&self.cgroups_hierarchy)),
            ("cgroups_root", self.cgroups_root.clone()),
            ("cgroups_enable_cfs", self.cgroups_enable_cfs.to_string()),
            ("cgroups_limit_swap", self.cgroups_limit_swap.to_string()),
            ("enforce_container_disk_quota", self.enforce_container_disk_quota.to_string()),
            ("container_disk_watch_interval", time(self.container_disk_watch_interval)),
            ("container_ports_watch_interval", time(self.container_ports_watch_interval)),
            ("enforce_container_ports", self.enforce_container_ports.to_string()),
            ("switch_user", self.switch_user.to_string()),
            ("executor_registration_timeout", time(self.executor_registration_timeout)),
            ("executor_reregistration_timeout", time(self.executor_reregistration_timeout)),
            ("executor_shutdown_grace_period", time(self.executor_shutdown_grace_period)),
            ("recovery_timeout", time(self.recovery_timeout)),
            ("registration_backoff_factor", time(self.registration_backoff_factor)),
            ("recover", if self.recover == Recover::Reconnect { "reconnect" } else { "cleanup" }.to_owned()),
            ("reconfiguration_policy", self.reconfiguration_policy.to_string()),
            ("gc_delay", time(self.gc_delay)),
            ("gc_disk_headroom", self.gc_disk_headroom.to_string()),
            ("disk_watch_interval", time(self.disk_watch_interval)),
            ("max_completed_executors_per_framework", self.max_completed_executors_per_framework.to_string()),
            ("fetcher_cache_dir", path(&self.fetcher_cache_dir)),
            ("fetcher_cache_size", format!("{}B", self.fetcher_cache_size)),
            ("fetcher_stall_timeout", time(self.fetcher_stall_timeout)),
            ("http_command_executor", "false".to_owned()),
            ("http_heartbeat_interval", time(self.http_heartbeat_interval)),
            ("strict", "true".to_owned()),
        ]
        .into_iter()
        .chain(self.login.flags().map(|(name, asks)| (name, asks.to_string())))
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        for (name, value) in [("resources", &self.resources), ("attributes", &self.attributes)] {
            if !value.is_empty() {
                flags.insert(name.to_owned(), value.clone());
            }
        }
        let paths = [
            ("hadoop_home", &self.hadoop_home),
            ("frameworks_home", &self.frameworks_home),
            ("external_log_file", &self.external_log_file),
        ];
        flags.extend(paths.into_iter().filter_map(|(name, it)| Some((name.to_owned(), path(it.as_deref()?)))));
        if !self.host_path_volume_force_creation.is_empty() {
            let all: Vec<String> = self.host_path_volume_force_creation.iter().map(|it| path(it)).collect();
            flags.insert("host_path_volume_force_creation".to_owned(), all.join(":"));
        }
        let sets = [("effective_capabilities", &self.effective_capabilities), ("bounding_capabilities", &self.bounding_capabilities)];
        let text = |it: &CapabilityInfo| String::from_utf8_lossy(&mesos_proto::json::to_vec(it)).into_owned();
        flags.extend(sets.into_iter().filter_map(|(name, it)| Some((name.to_owned(), text(it.as_ref()?)))));
        flags
    }
}
