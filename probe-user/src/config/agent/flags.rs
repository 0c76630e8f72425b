//! The agent's keys on the command line.

use clap::Args;

use super::*;

/// Flags of the role run.
#[derive(Debug, Args)]
pub(in crate::config) struct AgentFlags {
    /// Role run: where Mesos's agent API listens [default: 127.0.0.1:5051]
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    agent_address: Option<String>,
    /// Role run: address under which others reach the agent API [default: the one it listens on, or that of the way to the control plane]
    #[arg(long, value_name = "ADDRESS", global = true)]
    advertise_ip: Option<String>,
    /// Role run: port under which others reach the agent API [default: the one it listens on]
    #[arg(long, value_name = "PORT", global = true)]
    advertise_port: Option<String>,
    /// Role run: resources as Mesos has them, such as 'cpus:4;mem:8192;ports:[31000-31500]', or JSON; what is not named is detected
    #[arg(long, value_name = "RESOURCES", global = true)]
    resources: Option<String>,
    /// Role run: attributes as Mesos has them, such as 'rack:r1;level:3'
    #[arg(long, value_name = "ATTRIBUTES", global = true)]
    attributes: Option<String>,
    /// Role run: role of resources that name none [default: *]
    #[arg(long, value_name = "ROLE", global = true)]
    default_role: Option<String>,
    /// Role run: fault domain, as region/zone
    #[arg(long, value_name = "REGION/ZONE", global = true)]
    domain: Option<String>,
    /// Role run: sandboxes, volumes, and what the agent remembers [default: /var/lib/orchestrator-agent]
    #[arg(long, value_name = "DIRECTORY", global = true)]
    work_dir: Option<String>,
    /// Role run: state of containers that run [default: /run/orchestrator-agent]
    #[arg(long, value_name = "DIRECTORY", global = true)]
    runtime_dir: Option<String>,
    /// Role run: credentials of registries: a file like Docker's config.json, or its content
    #[arg(long, value_name = "FILE", global = true)]
    docker_config: Option<String>,
    /// Role run: isolators by Mesos's names, with commas: cgroups/{cpu,cpuset,mem,pids,blkio,devices,all}, disk/du, filesystem/linux, namespaces/pid
    #[arg(long, value_name = "NAMES", global = true)]
    isolation: Option<String>,
    /// Role run: devices besides the usual that containers may open with cgroups/devices, as the kernel has them ('c 10:229 rwm'), with commas
    #[arg(long, value_name = "DEVICES", global = true)]
    allowed_devices: Option<String>,
    /// Role run: cgroup under which containers are [default: mesos]
    #[arg(long, value_name = "NAME", global = true)]
    cgroups_root: Option<String>,
    /// Role run: cpus are a ceiling, not only a share
    #[arg(long, global = true)]
    cgroups_enable_cfs: bool,
    /// Role run: the memory limit is one of memory and swap together
    #[arg(long, global = true)]
    cgroups_limit_swap: bool,
    /// Role run: end tasks that use more disk than they have
    #[arg(long, global = true)]
    enforce_container_disk_quota: bool,
    /// Role run, with the isolator network/ports: end containers that listen on ports that are not theirs
    #[arg(long, global = true)]
    enforce_container_ports: bool,
    /// Role run: run tasks as the agent's own user
    #[arg(long, global = true)]
    no_switch_user: bool,
    /// Role run: variables of every executor, as a JSON object
    #[arg(long, value_name = "JSON", global = true)]
    executor_environment_variables: Option<String>,
    /// Role run: from a launch until its executor must have subscribed [default: 1mins]
    #[arg(long, value_name = "TIME", global = true)]
    executor_registration_timeout: Option<String>,
    /// Role run: from a restart of the agent until executors must have subscribed again [default: 2secs]
    #[arg(long, value_name = "TIME", global = true)]
    executor_reregistration_timeout: Option<String>,
    /// Role run: from telling an executor to shut down until it is destroyed [default: 5secs]
    #[arg(long, value_name = "TIME", global = true)]
    executor_shutdown_grace_period: Option<String>,
    /// Role run: what becomes of tasks that an earlier agent started: reconnect or cleanup [default: reconnect]
    #[arg(long, value_name = "MODE", global = true)]
    recover: Option<String>,
    /// Role run: what may have changed when an agent starts again: equal (nothing) or additive (resources and attributes may grow) [default: equal]
    #[arg(long, value_name = "POLICY", global = true)]
    reconfiguration_policy: Option<String>,
    /// Role run: how long sandboxes are kept while there is room [default: 1weeks]
    #[arg(long, value_name = "TIME", global = true)]
    gc_delay: Option<String>,
    /// Role run: part of the disk that is to stay free, 0 to 1 [default: 0.1]
    #[arg(long, value_name = "PART", global = true)]
    gc_disk_headroom: Option<String>,
    /// Role run: size of the fetcher's cache [default: 2GB]
    #[arg(long, value_name = "SIZE", global = true)]
    fetcher_cache_size: Option<String>,
    /// Role run: size at which logs of tasks are rotated, 0 for never [default: 0]
    #[arg(long, value_name = "SIZE", global = true)]
    task_log_rotate_size: Option<String>,
    /// Role run: how long executors wait for an agent that is away [default: 15mins]
    #[arg(long, value_name = "TIME", global = true)]
    recovery_timeout: Option<String>,
    /// Role run: longest first pause before the agent registers; it doubles up to 3 seconds while no master leads, and up to a minute where one
    /// does not want the agent [default: 1secs]
    #[arg(long, value_name = "TIME", global = true)]
    registration_backoff_factor: Option<String>,
    /// Role run: how long a container that has ended stays known to Docker [default: 6hrs]
    #[arg(long, value_name = "TIME", global = true)]
    docker_remove_delay: Option<String>,
    /// Role run: whether Docker's containers of an agent of this work directory that nobody knows any more are ended [default: true]
    #[arg(long, value_name = "BOOL", global = true)]
    docker_kill_orphans: Option<String>,
    /// Role run: where containers with an image see their sandbox [default: /mnt/mesos/sandbox]
    #[arg(long, value_name = "PATH", global = true)]
    sandbox_directory: Option<String>,
    /// Role run: how often the disk is looked at, to remove old sandboxes [default: 1mins]
    #[arg(long, value_name = "TIME", global = true)]
    disk_watch_interval: Option<String>,
    /// Role run: how often the disk that a container uses is looked at [default: 15secs]
    #[arg(long, value_name = "TIME", global = true)]
    container_disk_watch_interval: Option<String>,
    /// Role run, with the isolator network/ports: how often it is looked on which ports containers listen [default: 30secs]
    #[arg(long, value_name = "TIME", global = true)]
    container_ports_watch_interval: Option<String>,
    /// Role run: executors of a framework that are over and still shown [default: 150]
    #[arg(long, value_name = "NUMBER", global = true)]
    max_completed_executors_per_framework: Option<String>,
    /// Role run: where fetched files are kept [default: fetch in the work directory]
    #[arg(long, value_name = "DIRECTORY", global = true)]
    fetcher_cache_dir: Option<String>,
    /// Role run: how long a download may bring nothing [default: 1mins]
    #[arg(long, value_name = "TIME", global = true)]
    fetcher_stall_timeout: Option<String>,
    /// Role run: who the agent is for the control plane, in Mesos's form: '{"principal": "agent", "secret": "…"}' or the two words
    #[arg(long, value_name = "FILE", global = true)]
    credential: Option<String>,
    /// Role run: flags in Mesos's own spelling, such as '--resources=cpus:4 --gc_delay=1days'; those of the environment (MESOS_GC_DELAY) are read as well, and our own win over both
    #[arg(long, value_name = "FLAGS", global = true, allow_hyphen_values = true)]
    mesos_flags: Option<String>,
    /// Role run: who may use the agent API, in Mesos's form: '{"credentials": [{"principal": "ada", "secret": "…"}]}'
    #[arg(long, value_name = "FILE", global = true)]
    http_credentials: Option<String>,
    /// Role run: what the agent API only shows is for principals of --http-credentials
    #[arg(long, global = true)]
    authenticate_http_readonly: bool,
    /// Role run: what may change something, all of /api/v1, is for principals of --http-credentials
    #[arg(long, global = true)]
    authenticate_http_readwrite: bool,
    /// Role run: executors show the token that the agent gave them; needs --jwt-secret-key
    #[arg(long, global = true)]
    authenticate_http_executors: bool,
    /// Role run: what tokens of executors are signed with; it stays the same while executors run
    #[arg(long, value_name = "FILE", global = true)]
    jwt_secret_key: Option<String>,
    /// Role run: how often attach streams that are silent say that they live [default: 30secs]
    #[arg(long, value_name = "TIME", global = true)]
    http_heartbeat_interval: Option<String>,
    /// Role run: how long a container of Docker has after SIGTERM, where its task does not say and it is more than 3secs [default: 0ns]
    #[arg(long, value_name = "TIME", global = true)]
    docker_stop_timeout: Option<String>,
    /// Role run: DNS of Docker's containers in networks BRIDGE and USER, as Mesos has it: JSON, or a file with it
    #[arg(long, value_name = "JSON", global = true)]
    default_container_dns: Option<String>,
    /// Role run: capabilities of commands whose framework names none, with linux/capabilities: '{"capabilities": ["NET_RAW"]}' [default: all]
    #[arg(long, value_name = "JSON", global = true)]
    effective_capabilities: Option<String>,
    /// Role run: capabilities that commands can have at most, with linux/capabilities [default: all]
    #[arg(long, value_name = "JSON", global = true)]
    bounding_capabilities: Option<String>,
    /// Role run: directories, with colons, below which a host path that a volume names is made where it is not there
    #[arg(long, value_name = "DIRECTORIES", global = true)]
    host_path_volume_force_creation: Option<String>,
    /// Role run: where Hadoop is, which fetches hdfs: and the like [default: hadoop of PATH]
    #[arg(long, value_name = "DIRECTORY", global = true)]
    hadoop_home: Option<String>,
    /// Role run: where relative paths of URIs begin
    #[arg(long, value_name = "DIRECTORY", global = true)]
    frameworks_home: Option<String>,
    /// Role run: endpoints of the agent API that are nobody's: '{"disabled_endpoints": {"paths": ["/files/browse"]}}', or a file with it
    #[arg(long, value_name = "JSON", global = true)]
    firewall_rules: Option<String>,
    /// Role run: file that somebody else writes the agent's log to; shown as /slave/log
    #[arg(long, value_name = "FILE", global = true)]
    external_log_file: Option<String>,
    /// Role run: certificate of the agent API, which is spoken over TLS then: PEM, with those between it and the root
    #[arg(long, value_name = "FILE", global = true)]
    agent_tls_certificate: Option<String>,
    /// Role run: its private key, PEM
    #[arg(long, value_name = "FILE", global = true)]
    agent_tls_key: Option<String>,
    /// Role run: who may see and do what at the agent API, Mesos's access control lists: JSON, or a file with it
    #[arg(long, value_name = "JSON", global = true)]
    acls: Option<String>,
}

impl AgentFlags {
    pub(in crate::config) fn given(&self) -> Vec<(&'static str, String)> {
        let texts = [
            (AGENT_ADDRESS, &self.agent_address),
            (ADVERTISE_IP, &self.advertise_ip),
            (ADVERTISE_PORT, &self.advertise_port),
            (RESOURCES, &self.resources),
            (ATTRIBUTES, &self.attributes),
            (DEFAULT_ROLE, &self.default_role),
            (DOMAIN, &self.domain),
            (WORK_DIR, &self.work_dir),
            (RUNTIME_DIR, &self.runtime_dir),
            (DOCKER_CONFIG, &self.docker_config),
            (ISOLATION, &self.isolation),
            (ALLOWED_DEVICES, &self.allowed_devices),
            (CGROUPS_ROOT, &self.cgroups_root),
            (EXECUTOR_ENVIRONMENT, &self.executor_environment_variables),
            (REGISTRATION_TIMEOUT, &self.executor_registration_timeout),
            (REREGISTRATION_TIMEOUT, &self.executor_reregistration_timeout),
            (SHUTDOWN_GRACE, &self.executor_shutdown_grace_period),
            (RECOVER, &self.recover),
            (RECONFIGURATION, &self.reconfiguration_policy),
            (GC_DELAY, &self.gc_delay),
            (GC_HEADROOM, &self.gc_disk_headroom),
            (FETCHER_CACHE, &self.fetcher_cache_size),
            (LOG_ROTATE, &self.task_log_rotate_size),
            (RECOVERY_TIMEOUT, &self.recovery_timeout),
            (REGISTRATION_BACKOFF, &self.registration_backoff_factor),
            (DOCKER_REMOVE_DELAY, &self.docker_remove_delay),
            (DOCKER_KILL_ORPHANS, &self.docker_kill_orphans),
            (SANDBOX_DIRECTORY, &self.sandbox_directory),
            (DISK_WATCH, &self.disk_watch_interval),
            (CONTAINER_DISK_WATCH, &self.container_disk_watch_interval),
            (PORTS_WATCH, &self.container_ports_watch_interval),
            (MAX_COMPLETED, &self.max_completed_executors_per_framework),
            (FETCHER_CACHE_DIR, &self.fetcher_cache_dir),
            (FETCHER_STALL, &self.fetcher_stall_timeout),
            (CREDENTIAL, &self.credential),
            (MESOS_FLAGS, &self.mesos_flags),
            (HTTP_CREDENTIALS, &self.http_credentials),
            (JWT_SECRET_KEY, &self.jwt_secret_key),
            (HTTP_HEARTBEAT, &self.http_heartbeat_interval),
            (DOCKER_STOP, &self.docker_stop_timeout),
            (CONTAINER_DNS, &self.default_container_dns),
            (EFFECTIVE_CAPABILITIES, &self.effective_capabilities),
            (BOUNDING_CAPABILITIES, &self.bounding_capabilities),
            (HOST_PATH_CREATION, &self.host_path_volume_force_creation),
            (HADOOP_HOME, &self.hadoop_home),
            (FRAMEWORKS_HOME, &self.frameworks_home),
            (FIREWALL_RULES, &self.firewall_rules),
            (EXTERNAL_LOG, &self.external_log_file),
            (API_CERTIFICATE, &self.agent_tls_certificate),
            (API_KEY, &self.agent_tls_key),
            (ACLS, &self.acls),
        ];
        let truths = [
            (CGROUPS_ENABLE_CFS, self.cgroups_enable_cfs, "true"),
            (CGROUPS_LIMIT_SWAP, self.cgroups_limit_swap, "true"),
            (ENFORCE_DISK, self.enforce_container_disk_quota, "true"),
            (ENFORCE_PORTS, self.enforce_container_ports, "true"),
            (SWITCH_USER, self.no_switch_user, "false"),
            (AUTHENTICATE_READONLY, self.authenticate_http_readonly, "true"),
            (AUTHENTICATE_READWRITE, self.authenticate_http_readwrite, "true"),
            (AUTHENTICATE_EXECUTORS, self.authenticate_http_executors, "true"),
        ];
        let texts = texts.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
        texts.chain(truths.into_iter().filter(|(_, given, _)| *given).map(|(key, _, value)| (key, value.to_owned()))).collect()
    }
}
