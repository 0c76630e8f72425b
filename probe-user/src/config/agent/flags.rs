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
    /// Role run: longest first pause before the agent registers; it doubles up to a minute [default: 1secs]
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
            (MAX_COMPLETED, &self.max_completed_executors_per_framework),
            (FETCHER_CACHE_DIR, &self.fetcher_cache_dir),
            (FETCHER_STALL, &self.fetcher_stall_timeout),
            (CREDENTIAL, &self.credential),
            (MESOS_FLAGS, &self.mesos_flags),
            (HTTP_CREDENTIALS, &self.http_credentials),
            (JWT_SECRET_KEY, &self.jwt_secret_key),
        ];
        let truths = [
            (CGROUPS_ENABLE_CFS, self.cgroups_enable_cfs, "true"),
            (CGROUPS_LIMIT_SWAP, self.cgroups_limit_swap, "true"),
            (ENFORCE_DISK, self.enforce_container_disk_quota, "true"),
            (SWITCH_USER, self.no_switch_user, "false"),
            (AUTHENTICATE_READONLY, self.authenticate_http_readonly, "true"),
            (AUTHENTICATE_READWRITE, self.authenticate_http_readwrite, "true"),
            (AUTHENTICATE_EXECUTORS, self.authenticate_http_executors, "true"),
        ];
        let texts = texts.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
        texts.chain(truths.into_iter().filter(|(_, given, _)| *given).map(|(key, _, value)| (key, value.to_owned()))).collect()
    }
}
