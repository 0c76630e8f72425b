//! Configuration: flag, else environment, else file, else built-in; resolved once, and every mistake is told at once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::value::Value;
use ha::{Ensemble, EnsembleError};

use crate::http::scope::graphs::MetricsGraph;
use crate::http::scope::labels::{LabelFilter, parse_flags};

mod flags;
mod parse;
mod scope;
mod tls;

pub use flags::{Flags, Subcommand};
pub use scope::{Login, ScopeWords};
pub use tls::{Listener, TlsConfig};

use parse::*;

/// What the process was told to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Listener of the UI, the API and the metrics.
    pub http_address: SocketAddr,
    /// Listener of the probes.
    pub grpc_address: SocketAddr,
    /// Where the store lives.
    pub data_dir: PathBuf,
    /// How long what has ended stays on the map.
    pub window: Duration,
    /// How far back the map can be seen; `None` when no history is kept.
    pub history: Option<Duration>,
    /// Bytes that the history may take on disk.
    pub history_bytes: u64,
    /// Bytes of memory that the reports of Weave Scope's probes take at most, those of one window together.
    pub old_probes_memory: u64,
    /// Options of the views of containers, by a label.
    pub label_filters: Vec<LabelFilter>,
    /// Where metrics are graphed, by Scope's flag.
    pub metrics_graph: MetricsGraph,
    /// Probes on the map at once.
    pub max_probes: usize,
    /// WebSocket clients at once.
    pub max_websocket_clients: usize,
    /// Listener of the Mesos master's API; none: frameworks and operators cannot call.
    pub mesos_address: Option<SocketAddr>,
    /// Flags of a Mesos master, each `--name=value`.
    pub mesos_flags: Vec<String>,
    /// Listener of Marathon's API; none: nobody can call.
    pub marathon_address: Option<SocketAddr>,
    /// Flags of a Marathon, each `--name=value`.
    pub marathon_flags: Vec<String>,
    /// Where names of tasks are answered for, over UDP and TCP; none: nowhere.
    pub dns_address: Option<SocketAddr>,
    /// Where the same names are told over HTTP, as Mesos-DNS told them on port 8123; none: nowhere.
    pub dns_http_address: Option<SocketAddr>,
    /// Below which they are.
    pub dns_domain: String,
    /// Who is asked for other names, in turn; none: they are refused.
    pub dns_upstream: Vec<SocketAddr>,
    /// For how long an answer may be remembered.
    pub dns_ttl: Duration,
    /// Masters that the scheduler tries in turn; none: the one of this process.
    pub scheduler_masters: Vec<String>,
    /// The ensemble that several control planes share; alone without.
    pub zk: Option<Ensemble>,
    /// How long a session with it outlives its connection.
    pub zk_session_timeout: Duration,
    /// Name or address by which others reach this control plane.
    pub advertise: Option<String>,
    /// Listener for connections that other control planes carry here; only with an ensemble.
    pub replica_address: SocketAddr,
    /// TLS of the listeners; none: they speak in the clear.
    pub tls: Option<TlsConfig>,
    /// Who may have signed the certificates of masters that are called by https.
    pub tls_ca: Option<PathBuf>,
    /// Who may use the HTTP listener; none: everybody who reaches it.
    pub users_file: Option<PathBuf>,
    /// Who besides them, in Scope's words.
    pub scope_login: Option<Login>,
    /// Origins whose pages may ask for what the control plane's own page may.
    pub allowed_origins: Vec<String>,
    /// A file with the line `user:password` that agents are shown when somebody looks at files of their tasks.
    pub agent_login_file: Option<PathBuf>,
    /// Which services run.
    pub services: Vec<Service>,
    /// The control plane that zksync asks who is connected to an ensemble; this one when absent.
    pub zksync_topology_url: Option<String>,
    /// A file with the line `user:password` that is shown to it.
    pub zksync_topology_login_file: Option<PathBuf>,
    /// Below which the files are that links of zksync may take secrets from; `secrets` in the directory of the store when absent.
    pub zksync_secrets_dir: Option<PathBuf>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written, in the words of `tracing`'s `EnvFilter`.
    pub log_filter: String,
}

/// A service of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The live map.
    Topology,
    /// The Mesos master.
    Master,
    /// The scheduler, with Marathon's API.
    Scheduler,
    /// Keeps ZooKeeper ensembles in step.
    ZkSync,
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
    /// Something that Weave Scope's programs were told: what.
    Scope(String),
    File(PathBuf),
    Other,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Origin::Flag => write!(f, "--{}", self.key)?,
            Origin::Environment => write!(f, "{ENVIRONMENT_PREFIX}{}", self.key.replace('-', "_").to_uppercase())?,
            Origin::Scope(what) => f.write_str(what)?,
            Origin::File(path) => write!(f, "{} in {}", self.key, path.display())?,
            Origin::Other => f.write_str(&self.key)?,
        }
        if let Some(value) = &self.value {
            write!(f, " is {value:?}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

const ENVIRONMENT_PREFIX: &str = "ORCHESTRATOR_";

const HTTP_ADDRESS: &str = "http-address";
const GRPC_ADDRESS: &str = "grpc-address";
const DATA_DIR: &str = "data-dir";
const WINDOW: &str = "window";
const HISTORY: &str = "history";
const HISTORY_SIZE: &str = "history-size";
const OLD_PROBES_MEMORY: &str = "old-probes-memory";
const SCOPE_FLAGS: &str = "scope-flags";
const MAX_PROBES: &str = "max-probes";
const MAX_WEBSOCKET_CLIENTS: &str = "max-websocket-clients";
const MESOS_ADDRESS: &str = "mesos-address";
const MESOS_FLAGS: &str = "mesos-flags";
const MARATHON_ADDRESS: &str = "marathon-address";
const MARATHON_FLAGS: &str = "marathon-flags";
const DNS_ADDRESS: &str = "dns-address";
const DNS_HTTP_ADDRESS: &str = "dns-http-address";
const DNS_DOMAIN: &str = "dns-domain";
const DNS_UPSTREAM: &str = "dns-upstream";
const DNS_TTL: &str = "dns-ttl";
const SCHEDULER_MASTER: &str = "scheduler-master";
const ZK: &str = "zk";
const ZK_SESSION_TIMEOUT: &str = "zk-session-timeout";
const ZK_ACCESS_FILE: &str = "zk-access-file";
const ADVERTISE: &str = "advertise";
const REPLICA_ADDRESS: &str = "replica-address";
const TLS_CERTIFICATE: &str = "tls-certificate";
const TLS_KEY: &str = "tls-key";
const TLS_CLIENT_CA: &str = "tls-client-ca";
const TLS_LISTENERS: &str = "tls-listeners";
const TLS_CA: &str = "tls-ca";
const USERS_FILE: &str = "users-file";
const ALLOWED_ORIGINS: &str = "allowed-origins";
const AGENT_LOGIN_FILE: &str = "agent-login-file";
const SERVICES: &str = "services";
const ZKSYNC_TOPOLOGY_URL: &str = "zksync-topology-url";
const ZKSYNC_TOPOLOGY_LOGIN_FILE: &str = "zksync-topology-login-file";
const ZKSYNC_SECRETS_DIR: &str = "zksync-secrets-dir";
const LOG_FORMAT: &str = "log-format";
const LOG_FILTER: &str = "log-filter";

/// Every key with its built-in value.
const BUILT_IN: [(&str, &str); 39] = [
    (HTTP_ADDRESS, "127.0.0.1:4040"),
    (GRPC_ADDRESS, "127.0.0.1:4041"),
    (DATA_DIR, "/var/lib/orchestrator"),
    (WINDOW, "15s"),
    (HISTORY, "6h"),
    (HISTORY_SIZE, "2GiB"),
    (OLD_PROBES_MEMORY, "1GiB"),
    (SCOPE_FLAGS, ""),
    (MAX_PROBES, "1000"),
    (MAX_WEBSOCKET_CLIENTS, "10000"),
    (MESOS_ADDRESS, "127.0.0.1:5050"),
    (MESOS_FLAGS, ""),
    (MARATHON_ADDRESS, "127.0.0.1:8080"),
    (MARATHON_FLAGS, ""),
    (DNS_ADDRESS, "off"),
    (DNS_HTTP_ADDRESS, "off"),
    (DNS_DOMAIN, "mesos"),
    (DNS_UPSTREAM, ""),
    (DNS_TTL, "60s"),
    (SCHEDULER_MASTER, ""),
    (ZK, ""),
    (ZK_SESSION_TIMEOUT, "10s"),
    (ZK_ACCESS_FILE, ""),
    (ADVERTISE, ""),
    (REPLICA_ADDRESS, "127.0.0.1:4044"),
    (TLS_CERTIFICATE, ""),
    (TLS_KEY, ""),
    (TLS_CLIENT_CA, ""),
    (TLS_LISTENERS, "http,grpc,mesos,marathon"),
    (TLS_CA, ""),
    (USERS_FILE, ""),
    (ALLOWED_ORIGINS, ""),
    (AGENT_LOGIN_FILE, ""),
    (SERVICES, "topology,master,scheduler,zksync"),
    (ZKSYNC_TOPOLOGY_URL, ""),
    (ZKSYNC_TOPOLOGY_LOGIN_FILE, ""),
    (ZKSYNC_SECRETS_DIR, ""),
    (LOG_FORMAT, "text"),
    (LOG_FILTER, "info"),
];

impl Config {
    /// Reads flags, environment and file.
    ///
    /// # Errors
    /// All mistakes that there are.
    pub fn resolve(flags: &Flags, environment: impl IntoIterator<Item = (String, String)>) -> Result<Config, Vec<Mistake>> {
        let mut layers = Layers::default();
        for (key, value) in BUILT_IN {
            layers.set(key, value, Origin::Other);
        }
        if let Some((address, origin)) = flags.scope.address() {
            layers.set(HTTP_ADDRESS, address, origin);
        }
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let scope_login = flags.scope.login(&environment).unwrap_or_else(|(value, problem)| {
            let source = Origin::Scope("Weave Scope's basic authentication".to_owned());
            layers.mistakes.push(Mistake { key: String::new(), value: Some(value), source, problem });
            None
        });
        let file = flags.config.clone().or_else(|| environment.get("ORCHESTRATOR_CONFIG").map(PathBuf::from));
        if let Some(path) = file {
            layers.read_file(&path);
        }
        for (key, _) in BUILT_IN {
            let name = format!("{ENVIRONMENT_PREFIX}{}", key.replace('-', "_").to_uppercase());
            if let Some(value) = environment.get(&name) {
                layers.set(key, value, Origin::Environment);
            }
        }
        for (key, value, origin) in flags.scope.values() {
            layers.set(key, &value, origin);
        }
        for (key, value) in flags.given() {
            layers.set(key, value, Origin::Flag);
        }
        // As a Mesos master reads them; what is said in the flags comes after them, and wins.
        let variables = edge_mesos::Flags::of_environment(environment.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        for (variable, word) in &variables {
            if let Err(error) = edge_mesos::Flags::default().with([word.as_str()]) {
                layers.mistakes.push(Mistake {
                    key: (*variable).to_owned(),
                    // It may be a secret.
                    value: None,
                    source: Origin::Other,
                    problem: error.problem,
                });
            }
        }
        let mut config = layers.into_config()?;
        config.mesos_flags.splice(..0, variables.into_iter().map(|(_, word)| word));
        Ok(Config { scope_login, ..config })
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

        let mistake = |key: &str, value: Option<String>, problem: String| Mistake {
            key: key.to_owned(),
            value,
            source: Origin::File(path.to_owned()),
            problem,
        };
        let read = std::fs::read_to_string(path);
        let parsed = read.map_err(|error| error.to_string()).and_then(|text| {
            figment::Figment::from(Toml::string(&text)).extract::<BTreeMap<String, Value>>().map_err(|error| error.to_string())
        });
        let entries = match parsed {
            Ok(entries) => entries,
            Err(problem) => {
                self.mistakes.push(Mistake {
                    key: "config".to_owned(),
                    value: Some(path.display().to_string()),
                    source: Origin::Other,
                    problem,
                });
                return;
            }
        };
        for (key, value) in entries {
            match (BUILT_IN.iter().find(|(known, _)| *known == key), scalar(&value)) {
                (Some((known, _)), Some(text)) => self.set(known, &text, Origin::File(path.to_owned())),
                (Some(_), None) => self.mistakes.push(mistake(&key, None, "neither a text nor a number nor a list of texts".to_owned())),
                (None, text) => self.mistakes.push(mistake(&key, text, format!("no such key; there are {}", known_keys()))),
            }
        }
    }

    fn into_config(mut self) -> Result<Config, Vec<Mistake>> {
        let http_address = self.parse(HTTP_ADDRESS, parse_address);
        let grpc_address = self.parse(GRPC_ADDRESS, parse_address);
        let data_dir = self.parse(DATA_DIR, |text| if text.is_empty() { Err("empty".to_owned()) } else { Ok(PathBuf::from(text)) });
        let window = self.parse(WINDOW, parse_window);
        let history = self.parse(HISTORY, parse_history);
        let history_bytes = self.parse(HISTORY_SIZE, parse_size);
        let old_probes_memory = self.parse(OLD_PROBES_MEMORY, parse_size);
        let scope_flags = self.parse(SCOPE_FLAGS, parse_flags);
        let max_probes = self.parse(MAX_PROBES, |text| parse_count(text, 1, 100_000));
        let max_websocket_clients = self.parse(MAX_WEBSOCKET_CLIENTS, |text| parse_count(text, 0, 1_000_000));
        let mesos_address = self.parse(MESOS_ADDRESS, |text| if text == "off" { Ok(None) } else { parse_address(text).map(Some) });
        let mesos_flags = self.parse(MESOS_FLAGS, parse_mesos_flags);
        let marathon_address = self.parse(MARATHON_ADDRESS, |text| if text == "off" { Ok(None) } else { parse_address(text).map(Some) });
        let marathon_flags = self.parse(MARATHON_FLAGS, parse_marathon_flags);
        let dns_address = self.parse(DNS_ADDRESS, |text| if text == "off" { Ok(None) } else { parse_address(text).map(Some) });
        let dns_http_address = self.parse(DNS_HTTP_ADDRESS, |text| if text == "off" { Ok(None) } else { parse_address(text).map(Some) });
        let dns_domain = self.parse(DNS_DOMAIN, parse_domain);
        let dns_upstream = self.parse(DNS_UPSTREAM, parse_dns_servers);
        let dns_ttl = self.parse(DNS_TTL, |text| humantime::parse_duration(text).map_err(|error| error.to_string()));
        let scheduler_masters = self.parse(SCHEDULER_MASTER, parse_masters);
        let zk = self.parse(ZK, |text| {
            if text.is_empty() { Ok(None) } else { text.parse::<Ensemble>().map(Some).map_err(|error: EnsembleError| error.to_string()) }
        });
        let zk_session_timeout = self.parse(ZK_SESSION_TIMEOUT, parse_session_timeout);
        let zk_access = self.parse(ZK_ACCESS_FILE, parse_access);
        let advertise = self.parse(ADVERTISE, parse_host);
        let replica_address = self.parse(REPLICA_ADDRESS, parse_address);
        let tls = self.tls();
        let tls_ca = self.parse(TLS_CA, tls::parse_file);
        let users_file = self.parse(USERS_FILE, tls::parse_file);
        let allowed_origins = self.parse(ALLOWED_ORIGINS, parse_origins);
        let agent_login_file = self.parse(AGENT_LOGIN_FILE, tls::parse_file);
        let services = self.parse(SERVICES, parse_services);
        let zksync_topology_url = self.parse(ZKSYNC_TOPOLOGY_URL, parse_url);
        let zksync_topology_login_file = self.parse(ZKSYNC_TOPOLOGY_LOGIN_FILE, tls::parse_file);
        let zksync_secrets_dir = self.parse(ZKSYNC_SECRETS_DIR, |text| Ok((!text.is_empty()).then(|| PathBuf::from(text))));
        let log_format = self.parse(LOG_FORMAT, parse_log_format);
        let log_filter = self.parse(LOG_FILTER, |text| match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(error.to_string()),
        });
        if let (Some(http), Some(grpc)) = (http_address, grpc_address)
            && http == grpc
            && http.port() != 0
        {
            self.mistakes.push(Mistake {
                key: GRPC_ADDRESS.to_owned(),
                value: Some(grpc.to_string()),
                source: Origin::Other,
                problem: format!("the same as {HTTP_ADDRESS}"),
            });
        }
        let config = (|| {
            let (label_filters, metrics_graph) = scope_flags?;
            Some(Config {
                http_address: http_address?,
                grpc_address: grpc_address?,
                data_dir: data_dir?,
                window: window?,
                history: history?,
                history_bytes: history_bytes?,
                old_probes_memory: old_probes_memory?,
                label_filters,
                metrics_graph,
                max_probes: max_probes?,
                max_websocket_clients: max_websocket_clients?,
                mesos_address: mesos_address?,
                mesos_flags: mesos_flags?,
                marathon_address: marathon_address?,
                marathon_flags: marathon_flags?,
                dns_address: dns_address?,
                dns_http_address: dns_http_address?,
                dns_domain: dns_domain?,
                dns_upstream: dns_upstream?,
                dns_ttl: dns_ttl?,
                scheduler_masters: scheduler_masters?,
                zk: match (zk?, zk_access?) {
                    (Some(ensemble), Some(access)) => Some(ensemble.reached_as(&access)),
                    (ensemble, _) => ensemble,
                },
                zk_session_timeout: zk_session_timeout?,
                advertise: advertise?,
                replica_address: replica_address?,
                tls: tls?,
                tls_ca: tls_ca?,
                users_file: users_file?,
                scope_login: None,
                allowed_origins: allowed_origins?,
                agent_login_file: agent_login_file?,
                services: services?,
                zksync_topology_url: zksync_topology_url?,
                zksync_topology_login_file: zksync_topology_login_file?,
                zksync_secrets_dir: zksync_secrets_dir?,
                log_format: log_format?,
                log_filter: log_filter?,
            })
        })();
        match config {
            Some(config) if self.mistakes.is_empty() => Ok(config),
            _ => Err(self.mistakes),
        }
    }

    fn tls(&mut self) -> Option<Option<TlsConfig>> {
        let (certificate, key) = (self.parse(TLS_CERTIFICATE, tls::parse_file)?, self.parse(TLS_KEY, tls::parse_file)?);
        let (client_ca, listeners) = (self.parse(TLS_CLIENT_CA, tls::parse_file)?, self.parse(TLS_LISTENERS, tls::parse_listeners)?);
        match tls::compose(certificate, key, client_ca, listeners) {
            Ok(tls) => Some(tls),
            Err((key, problem)) => {
                self.mistakes.push(Mistake { key: key.to_owned(), value: None, source: Origin::Other, problem });
                None
            }
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

fn known_keys() -> String {
    BUILT_IN.map(|(key, _)| key).join(", ")
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Num(_, number) => number.to_i128().map(|it| it.to_string()).or_else(|| number.to_u128().map(|it| it.to_string())),
        Value::Array(_, items) => Some(items.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(",")),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
