//! The keys of the Mesos agent. They have the names of Mesos's own flags, with hyphens.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use agent::config::{Config, Recover};
use agent::login::Login;
use probe_endpoint::ControlPlane;

mod flags;
mod mesos_flags;

pub(super) use flags::AgentFlags;

use super::Layers;
use super::mistake::{Mistake, Origin};
use super::parse::{parse_path, parse_truth};

const AGENT_ADDRESS: &str = "agent-address";
const ADVERTISE_IP: &str = "advertise-ip";
const ADVERTISE_PORT: &str = "advertise-port";
const RESOURCES: &str = "resources";
const ATTRIBUTES: &str = "attributes";
const DEFAULT_ROLE: &str = "default-role";
const DOMAIN: &str = "domain";
const WORK_DIR: &str = "work-dir";
const RUNTIME_DIR: &str = "runtime-dir";
const DOCKER_CONFIG: &str = "docker-config";
const ISOLATION: &str = "isolation";
const ALLOWED_DEVICES: &str = "allowed-devices";
const CGROUPS_ROOT: &str = "cgroups-root";
const CGROUPS_ENABLE_CFS: &str = "cgroups-enable-cfs";
const CGROUPS_LIMIT_SWAP: &str = "cgroups-limit-swap";
const ENFORCE_DISK: &str = "enforce-container-disk-quota";
const SWITCH_USER: &str = "switch-user";
const EXECUTOR_ENVIRONMENT: &str = "executor-environment-variables";
const REGISTRATION_TIMEOUT: &str = "executor-registration-timeout";
const REREGISTRATION_TIMEOUT: &str = "executor-reregistration-timeout";
const SHUTDOWN_GRACE: &str = "executor-shutdown-grace-period";
const RECOVER: &str = "recover";
const RECONFIGURATION: &str = "reconfiguration-policy";
const GC_DELAY: &str = "gc-delay";
const GC_HEADROOM: &str = "gc-disk-headroom";
const FETCHER_CACHE: &str = "fetcher-cache-size";
const LOG_ROTATE: &str = "task-log-rotate-size";
const RECOVERY_TIMEOUT: &str = "recovery-timeout";
const REGISTRATION_BACKOFF: &str = "registration-backoff-factor";
const DOCKER_REMOVE_DELAY: &str = "docker-remove-delay";
const DOCKER_KILL_ORPHANS: &str = "docker-kill-orphans";
const SANDBOX_DIRECTORY: &str = "sandbox-directory";
const DISK_WATCH: &str = "disk-watch-interval";
const CONTAINER_DISK_WATCH: &str = "container-disk-watch-interval";
const MAX_COMPLETED: &str = "max-completed-executors-per-framework";
const FETCHER_CACHE_DIR: &str = "fetcher-cache-dir";
const FETCHER_STALL: &str = "fetcher-stall-timeout";
const CREDENTIAL: &str = "credential";
pub(super) const MESOS_FLAGS: &str = "mesos-flags";
const HTTP_CREDENTIALS: &str = "http-credentials";
const AUTHENTICATE_READONLY: &str = "authenticate-http-readonly";
const AUTHENTICATE_READWRITE: &str = "authenticate-http-readwrite";
const AUTHENTICATE_EXECUTORS: &str = "authenticate-http-executors";
const JWT_SECRET_KEY: &str = "jwt-secret-key";
const HTTP_HEARTBEAT: &str = "http-heartbeat-interval";
const DOCKER_STOP: &str = "docker-stop-timeout";
const CONTAINER_DNS: &str = "default-container-dns";
const EFFECTIVE_CAPABILITIES: &str = "effective-capabilities";
const BOUNDING_CAPABILITIES: &str = "bounding-capabilities";
const HOST_PATH_CREATION: &str = "host-path-volume-force-creation";
const HADOOP_HOME: &str = "hadoop-home";
const FRAMEWORKS_HOME: &str = "frameworks-home";
const FIREWALL_RULES: &str = "firewall-rules";
const EXTERNAL_LOG: &str = "external-log-file";
const ACLS: &str = "acls";
const PORTS_WATCH: &str = "container-ports-watch-interval";
const ENFORCE_PORTS: &str = "enforce-container-ports";
const API_CERTIFICATE: &str = "agent-tls-certificate";
const API_KEY: &str = "agent-tls-key";

/// Every key with its built-in value.
pub(super) const BUILT_IN: [(&str, &str); 59] = [
    (AGENT_ADDRESS, "127.0.0.1:5051"),
    (ADVERTISE_IP, ""),
    (ADVERTISE_PORT, ""),
    (RESOURCES, ""),
    (ATTRIBUTES, ""),
    (DEFAULT_ROLE, "*"),
    (DOMAIN, ""),
    (WORK_DIR, "/var/lib/orchestrator-agent"),
    (RUNTIME_DIR, "/run/orchestrator-agent"),
    (DOCKER_CONFIG, ""),
    (ISOLATION, "cgroups/cpu,cgroups/mem,cgroups/pids,cgroups/blkio,disk/du,filesystem/linux"),
    (ALLOWED_DEVICES, ""),
    (CGROUPS_ROOT, "mesos"),
    (CGROUPS_ENABLE_CFS, "false"),
    (CGROUPS_LIMIT_SWAP, "false"),
    (ENFORCE_DISK, "false"),
    (SWITCH_USER, "true"),
    (EXECUTOR_ENVIRONMENT, ""),
    (REGISTRATION_TIMEOUT, "1mins"),
    (REREGISTRATION_TIMEOUT, "2secs"),
    (SHUTDOWN_GRACE, "5secs"),
    (RECOVER, "reconnect"),
    (RECONFIGURATION, "equal"),
    (GC_DELAY, "1weeks"),
    (GC_HEADROOM, "0.1"),
    (FETCHER_CACHE, "2GB"),
    (LOG_ROTATE, "0"),
    (RECOVERY_TIMEOUT, "15mins"),
    (REGISTRATION_BACKOFF, "1secs"),
    (DOCKER_REMOVE_DELAY, "6hrs"),
    (DOCKER_KILL_ORPHANS, "true"),
    (SANDBOX_DIRECTORY, "/mnt/mesos/sandbox"),
    (DISK_WATCH, "1mins"),
    (CONTAINER_DISK_WATCH, "15secs"),
    (MAX_COMPLETED, "150"),
    (FETCHER_CACHE_DIR, ""),
    (FETCHER_STALL, "1mins"),
    (CREDENTIAL, ""),
    (MESOS_FLAGS, ""),
    (HTTP_CREDENTIALS, ""),
    (AUTHENTICATE_READONLY, "false"),
    (AUTHENTICATE_READWRITE, "false"),
    (AUTHENTICATE_EXECUTORS, "false"),
    (JWT_SECRET_KEY, ""),
    (HTTP_HEARTBEAT, "30secs"),
    (DOCKER_STOP, "0ns"),
    (CONTAINER_DNS, ""),
    (EFFECTIVE_CAPABILITIES, ""),
    (BOUNDING_CAPABILITIES, ""),
    (HOST_PATH_CREATION, ""),
    (HADOOP_HOME, ""),
    (FRAMEWORKS_HOME, ""),
    (FIREWALL_RULES, ""),
    (EXTERNAL_LOG, ""),
    (API_CERTIFICATE, ""),
    (API_KEY, ""),
    (ACLS, ""),
    (PORTS_WATCH, "30secs"),
    (ENFORCE_PORTS, "false"),
];

/// What of the agent's configuration is the whole probe's.
pub(super) struct Shared {
    pub(super) control_plane: ControlPlane,
    pub(super) host_name: Option<String>,
    pub(super) docker_socket: Option<PathBuf>,
}

impl Layers {
    /// The agent's part of the configuration.
    pub(super) fn agent(&mut self, shared: Option<Shared>) -> Option<Config> {
        let duration =
            |text: &str| agent::words::parse_duration(text).or_else(|problem| humantime::parse_duration(text).map_err(|_| problem));
        let listen = self.parse(AGENT_ADDRESS, |text| {
            text.parse::<SocketAddr>().map_err(|_| "not an address and a port, such as 127.0.0.1:5051".to_owned())
        });
        let advertise_ip = self.parse(ADVERTISE_IP, |text| match text {
            "" => Ok(None),
            _ => text.parse::<IpAddr>().map(Some).map_err(|_| "not an address".to_owned()),
        });
        let advertise_port = self.parse(ADVERTISE_PORT, |text| match text {
            "" => Ok(None),
            _ => text.parse::<u16>().map(Some).map_err(|_| "not a port".to_owned()),
        });
        let resources = self.parse(RESOURCES, |text| Ok(text.to_owned()));
        let attributes = self.parse(ATTRIBUTES, |text| Ok(text.to_owned()));
        let default_role = self.parse(DEFAULT_ROLE, |text| if text.is_empty() { Err("empty".to_owned()) } else { Ok(text.to_owned()) });
        let domain = self.parse(DOMAIN, |text| match text.split_once('/') {
            None if text.is_empty() => Ok(None),
            Some((region, zone)) if !region.is_empty() && !zone.is_empty() => Ok(Some((region.to_owned(), zone.to_owned()))),
            _ => Err("not a region and a zone, such as europe/a".to_owned()),
        });
        let work_dir = self.parse(WORK_DIR, |text| parse_path(text)?.ok_or_else(|| "empty".to_owned()));
        let runtime_dir = self.parse(RUNTIME_DIR, |text| parse_path(text)?.ok_or_else(|| "empty".to_owned()));
        let docker_config = self.parse(DOCKER_CONFIG, |text| match text.trim_start() {
            "" => Ok(None),
            content if content.starts_with('{') => Ok(Some(content.to_owned())),
            file => std::fs::read_to_string(file.strip_prefix("file://").unwrap_or(file)).map(Some).map_err(|error| error.to_string()),
        });
        let names =
            |text: &str| Ok::<_, String>(text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect::<Vec<_>>());
        let isolation = self.parse(ISOLATION, names);
        let allowed_devices = self.parse(ALLOWED_DEVICES, names);
        let cgroups_root = self.parse(CGROUPS_ROOT, |text| match text {
            "" => Err("empty".to_owned()),
            _ if text.starts_with('/') || text.split('/').any(|it| it == "..") => Err("not a name below the hierarchy".to_owned()),
            _ => Ok(text.to_owned()),
        });
        let cgroups_enable_cfs = self.parse(CGROUPS_ENABLE_CFS, parse_truth);
        let cgroups_limit_swap = self.parse(CGROUPS_LIMIT_SWAP, parse_truth);
        let enforce_container_disk_quota = self.parse(ENFORCE_DISK, parse_truth);
        let container_ports_watch_interval = self.parse(PORTS_WATCH, duration);
        let enforce_container_ports = self.parse(ENFORCE_PORTS, parse_truth);
        let switch_user = self.parse(SWITCH_USER, parse_truth);
        let environment = self.parse(EXECUTOR_ENVIRONMENT, |text| match text {
            "" => Ok(BTreeMap::new()),
            _ => serde_json::from_str::<BTreeMap<String, String>>(text).map_err(|_| "not a JSON object of texts".to_owned()),
        });
        let executor_registration_timeout = self.parse(REGISTRATION_TIMEOUT, duration);
        let executor_reregistration_timeout = self.parse(REREGISTRATION_TIMEOUT, |text| match duration(text)? {
            time if time <= Duration::from_secs(15) => Ok(time),
            _ => Err("longer than 15secs".to_owned()),
        });
        let executor_shutdown_grace_period = self.parse(SHUTDOWN_GRACE, duration);
        let recover = self.parse(RECOVER, |text| match text {
            "reconnect" => Ok(Recover::Reconnect),
            "cleanup" => Ok(Recover::Cleanup),
            _ => Err("there are reconnect and cleanup".to_owned()),
        });
        let reconfiguration_policy = self.parse(RECONFIGURATION, str::parse);
        let gc_delay = self.parse(GC_DELAY, duration);
        let gc_disk_headroom = self.parse(GC_HEADROOM, |text| match text.parse::<f64>() {
            Ok(part) if (0.0..=1.0).contains(&part) => Ok(part),
            _ => Err("not between 0 and 1".to_owned()),
        });
        let fetcher_cache_size = self.parse(FETCHER_CACHE, parse_bytes);
        let log_rotate_bytes = self.parse(LOG_ROTATE, parse_bytes);
        let recovery_timeout = self.parse(RECOVERY_TIMEOUT, duration);
        let registration_backoff_factor = self.parse(REGISTRATION_BACKOFF, duration);
        let docker_remove_delay = self.parse(DOCKER_REMOVE_DELAY, duration);
        let docker_kill_orphans = self.parse(DOCKER_KILL_ORPHANS, parse_truth);
        let sandbox_directory = self.parse(SANDBOX_DIRECTORY, |text| match text {
            _ if text.starts_with('/') => Ok(text.to_owned()),
            _ => Err("not an absolute path".to_owned()),
        });
        let disk_watch_interval = self.parse(DISK_WATCH, duration);
        let container_disk_watch_interval = self.parse(CONTAINER_DISK_WATCH, duration);
        let completed = self.parse(MAX_COMPLETED, |text| text.parse::<usize>().map_err(|_| "not a number".to_owned()));
        let fetcher_cache_dir = self.parse(FETCHER_CACHE_DIR, parse_path);
        let fetcher_stall_timeout = self.parse(FETCHER_STALL, duration);
        let credential = self.parse(CREDENTIAL, |text| match text {
            "" => Ok(None),
            file => {
                let read = std::fs::read_to_string(file.strip_prefix("file://").unwrap_or(file)).map_err(|error| error.to_string())?;
                agent::login::Credential::parse(&read).map(Some)
            }
        });
        let http_heartbeat_interval = self.parse(HTTP_HEARTBEAT, |text| match duration(text)? {
            time if time.is_zero() => Err("no time at all".to_owned()),
            time => Ok(time),
        });
        let docker_stop_timeout = self.parse(DOCKER_STOP, duration);
        let default_container_dns =
            self.parse(CONTAINER_DNS, |text| Ok(parse_json(text, agent::config::json::container_dns)?.unwrap_or_default()));
        let effective_capabilities = self.parse(EFFECTIVE_CAPABILITIES, |text| parse_json(text, agent::config::json::capabilities));
        let bounding_capabilities = self.parse(BOUNDING_CAPABILITIES, |text| parse_json(text, agent::config::json::capabilities));
        let host_path_creation = self.parse(HOST_PATH_CREATION, |text| {
            text.split(':').map(str::trim).filter(|it| !it.is_empty()).map(|it| parse_path(it).map(Option::unwrap_or_default)).collect()
        });
        let hadoop_home = self.parse(HADOOP_HOME, parse_path);
        let frameworks_home = self.parse(FRAMEWORKS_HOME, parse_path);
        let disabled_endpoints =
            self.parse(FIREWALL_RULES, |text| Ok(parse_json(text, agent::config::json::disabled_endpoints)?.unwrap_or_default()));
        let external_log_file = self.parse(EXTERNAL_LOG, parse_path);
        let api_certificate = self.api_certificate();
        let acls = self.parse(ACLS, |text| parse_json(text, agent::http::rights::acls));
        let login = self.login();
        let shared = shared?;
        let (work_dir, listen) = (work_dir?, listen?);
        let libprocess_ip = self.libprocess_ip(listen);
        let own = Config::in_directories(work_dir, runtime_dir?);
        Some(Config {
            master: shared.control_plane.addresses(),
            tls: shared.control_plane.tls().clone(),
            listen,
            advertise_ip: advertise_ip?.unwrap_or_else(|| reachable(listen.ip(), &shared.control_plane.uri().to_string())),
            advertise_port: advertise_port?,
            hostname: shared.host_name.unwrap_or_default(),
            resources: resources?,
            attributes: attributes?,
            default_role: default_role?,
            domain: domain?,
            docker_socket: shared.docker_socket,
            docker_config: docker_config?,
            isolation: isolation?,
            allowed_devices: allowed_devices?,
            cgroups_root: cgroups_root?,
            cgroups_enable_cfs: cgroups_enable_cfs?,
            cgroups_limit_swap: cgroups_limit_swap?,
            enforce_container_disk_quota: enforce_container_disk_quota?,
            container_ports_watch_interval: container_ports_watch_interval?,
            enforce_container_ports: enforce_container_ports?,
            switch_user: switch_user?,
            executor_environment_variables: environment?,
            executor_registration_timeout: executor_registration_timeout?,
            executor_reregistration_timeout: executor_reregistration_timeout?,
            executor_shutdown_grace_period: executor_shutdown_grace_period?,
            recover: recover?,
            reconfiguration_policy: reconfiguration_policy?,
            gc_delay: gc_delay?,
            gc_disk_headroom: gc_disk_headroom?,
            fetcher_cache_size: fetcher_cache_size?,
            log_rotate_bytes: log_rotate_bytes?,
            recovery_timeout: recovery_timeout?,
            registration_backoff_factor: registration_backoff_factor?,
            docker_remove_delay: docker_remove_delay?,
            docker_kill_orphans: docker_kill_orphans?,
            sandbox_directory: sandbox_directory?,
            disk_watch_interval: disk_watch_interval?,
            container_disk_watch_interval: container_disk_watch_interval?,
            max_completed_executors_per_framework: completed?,
            fetcher_cache_dir: fetcher_cache_dir?.unwrap_or_else(|| own.fetcher_cache_dir.clone()),
            fetcher_stall_timeout: fetcher_stall_timeout?,
            credential: credential?,
            login: login?,
            http_heartbeat_interval: http_heartbeat_interval?,
            docker_stop_timeout: docker_stop_timeout?,
            default_container_dns: default_container_dns?,
            effective_capabilities: effective_capabilities?,
            bounding_capabilities: bounding_capabilities?,
            host_path_volume_force_creation: host_path_creation?,
            hadoop_home: hadoop_home?,
            frameworks_home: frameworks_home?,
            disabled_endpoints: disabled_endpoints?,
            external_log_file: external_log_file?,
            api_certificate: api_certificate?,
            acls: acls?,
            libprocess_ip,
            ..own
        })
    }
}

impl Layers {
    /// Certificate and key of the agent API.
    fn api_certificate(&mut self) -> Option<Option<(PathBuf, PathBuf)>> {
        match (self.parse(API_CERTIFICATE, parse_path)?, self.parse(API_KEY, parse_path)?) {
            (Some(certificate), Some(key)) => Some(Some((certificate, key))),
            (None, None) => Some(None),
            (certificate, _) => {
                let (missing, given) = if certificate.is_some() { (API_KEY, API_CERTIFICATE) } else { (API_CERTIFICATE, API_KEY) };
                self.missing(missing, format!("{given} needs it"));
                None
            }
        }
    }

    fn missing(&mut self, key: &str, why: String) {
        let (key, problem) = (key.to_owned(), format!("missing: {why}"));
        self.mistakes.push(Mistake { key, value: None, source: Origin::BuiltIn, problem });
    }

    /// What libprocess is told of TLS in the environment of Mesos's agent; names without its prefix are older. Said to others than agents, it means
    /// something else.
    pub(super) fn read_libprocess(&mut self, environment: &BTreeMap<String, String>) {
        let given =
            |name: &str| environment.get(&format!("LIBPROCESS_{name}")).or_else(|| environment.get(name)).filter(|it| !it.is_empty());
        if !given("SSL_ENABLED").is_some_and(|it| matches!(it.as_str(), "1" | "true")) {
            return;
        }
        let files = [("SSL_CERT_FILE", API_CERTIFICATE), ("SSL_KEY_FILE", API_KEY)];
        let untold = files.iter().filter(|(name, _)| given(name).is_none());
        self.untold_of_tls = untold.map(|(name, key)| (*key, format!("LIBPROCESS_SSL_ENABLED needs LIBPROCESS_{name}"))).collect();
        if self.untold_of_tls.is_empty() {
            for (name, key) in files {
                let file = given(name).map_or("", String::as_str);
                self.set(key, file.strip_prefix("file://").unwrap_or(file), Origin::Environment);
            }
        }
    }

    /// What the environment leaves open is a mistake where there is an agent.
    pub(super) fn tell_what_is_untold(&mut self) {
        for (key, why) in std::mem::take(&mut self.untold_of_tls) {
            self.missing(key, why);
        }
    }

    /// The address that executors are to bind, as Mesos's agent tells them: its own, where it was given one.
    fn libprocess_ip(&self, listen: SocketAddr) -> Option<String> {
        let is_given = self.values.get(AGENT_ADDRESS).is_some_and(|(_, origin)| *origin != Origin::BuiltIn);
        (is_given && !listen.ip().is_unspecified()).then(|| listen.ip().to_string())
    }

    /// Who may use the agent API. Files are read once: nothing else of this process has the secrets.
    fn login(&mut self) -> Option<Login> {
        let readonly = self.parse(AUTHENTICATE_READONLY, parse_truth)?;
        let readwrite = self.parse(AUTHENTICATE_READWRITE, parse_truth)?;
        let executors = self.parse(AUTHENTICATE_EXECUTORS, parse_truth)?;
        let read = |text: &str| match text {
            "" => Ok(None),
            file => std::fs::read(file.strip_prefix("file://").unwrap_or(file)).map(Some).map_err(|error| error.to_string()),
        };
        let login = self.parse(HTTP_CREDENTIALS, |text| {
            let credentials = read(text)?.map(String::from_utf8).transpose().map_err(|_| "not a text".to_owned())?;
            Login::new(credentials.as_deref(), readonly, readwrite)
        });
        let key = self.parse(JWT_SECRET_KEY, |text| match read(text)? {
            Some(key) if key.is_empty() => Err("empty".to_owned()),
            None if executors => Err("tokens are asked of executors, and there is no key to sign them with".to_owned()),
            key => Ok(key.filter(|_| executors)),
        });
        let login = login?;
        Some(match key? {
            Some(key) => login.with_tokens(&key),
            None => login,
        })
    }
}

/// Who listens on every address is reached at the one that leads to the control plane.
fn reachable(listen: IpAddr, control_plane: &str) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    let host = control_plane.split_once("://").map_or(control_plane, |(_, it)| it).trim_end_matches('/');
    let found = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        // Nothing is sent: the kernel only looks up the way.
        socket.connect(host)?;
        socket.local_addr()
    });
    found.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |it| it.ip())
}

/// JSON, or the name of a file that has it, as Mesos's flags take either; nothing is nothing.
fn parse_json<T>(text: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    let file = text.strip_prefix("file://").or_else(|| text.starts_with('/').then_some(text));
    match file {
        _ if text.is_empty() => Ok(None),
        Some(file) => parse(&std::fs::read_to_string(file).map_err(|error| error.to_string())?).map(Some),
        None => parse(text).map(Some),
    }
}

/// A size such as `2GB`, `10MB` or `4096`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return Err("not a size, such as 2GB or 10MB".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "not a size, such as 2GB or 10MB".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!((parse_bytes("2GB"), parse_bytes("0"), parse_bytes("10MB")), (Ok(2 << 30), Ok(0), Ok(10 << 20)));
        for wrong in ["", "GB", "-1", "1XB", "99999999999TB"] {
            parse_bytes(wrong).unwrap_err();
        }
    }

    #[test]
    fn json_may_be_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[]").unwrap();
        let path = file.path().to_str().unwrap();
        for (text, read) in [("", None), ("[]", Some("[]")), (path, Some("[]")), (&format!("file://{path}"), Some("[]"))] {
            assert_eq!(parse_json(text, |it| Ok(it.to_owned())), Ok(read.map(str::to_owned)), "{text}");
        }
        parse_json("/does/not/exist", |it| Ok(it.to_owned())).unwrap_err();
    }

    #[test]
    fn who_listens_everywhere_is_reached_where_the_control_plane_is() {
        assert_eq!(reachable("0.0.0.0".parse().unwrap(), "http://127.0.0.1:4041/"), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(reachable("10.1.2.3".parse().unwrap(), "http://127.0.0.1:4041/"), "10.1.2.3".parse::<IpAddr>().unwrap());
    }
}
