//! Configuration: flag, else environment, else file, else built-in; resolved once, and every mistake is told at once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use figment::value::Value;
use ha::{Ensemble, EnsembleError};

use crate::http::scope::labels::{LabelFilter, parse_flags};

mod tls;

pub use tls::{Listener, TlsConfig};

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
    /// Options of the views of containers, by a label.
    pub label_filters: Vec<LabelFilter>,
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
    /// Which services run.
    pub services: Vec<Service>,
    /// The control plane that zksync asks who is connected to an ensemble; this one when absent.
    pub zksync_topology_url: Option<String>,
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
    File(PathBuf),
    Other,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Origin::Flag => write!(f, "--{}", self.key)?,
            Origin::Environment => write!(f, "{ENVIRONMENT_PREFIX}{}", self.key.replace('-', "_").to_uppercase())?,
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
const SCOPE_FLAGS: &str = "scope-flags";
const MAX_PROBES: &str = "max-probes";
const MAX_WEBSOCKET_CLIENTS: &str = "max-websocket-clients";
const MESOS_ADDRESS: &str = "mesos-address";
const MESOS_FLAGS: &str = "mesos-flags";
const MARATHON_ADDRESS: &str = "marathon-address";
const MARATHON_FLAGS: &str = "marathon-flags";
const DNS_ADDRESS: &str = "dns-address";
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
const SERVICES: &str = "services";
const ZKSYNC_TOPOLOGY_URL: &str = "zksync-topology-url";
const LOG_FORMAT: &str = "log-format";
const LOG_FILTER: &str = "log-filter";

/// Every key with its built-in value.
const BUILT_IN: [(&str, &str); 33] = [
    (HTTP_ADDRESS, "127.0.0.1:4040"),
    (GRPC_ADDRESS, "127.0.0.1:4041"),
    (DATA_DIR, "/var/lib/orchestrator"),
    (WINDOW, "15s"),
    (HISTORY, "6h"),
    (HISTORY_SIZE, "2GiB"),
    (SCOPE_FLAGS, ""),
    (MAX_PROBES, "1000"),
    (MAX_WEBSOCKET_CLIENTS, "10000"),
    (MESOS_ADDRESS, "127.0.0.1:5050"),
    (MESOS_FLAGS, ""),
    (MARATHON_ADDRESS, "127.0.0.1:8080"),
    (MARATHON_FLAGS, ""),
    (DNS_ADDRESS, "off"),
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
    (SERVICES, "topology,master,scheduler,zksync"),
    (ZKSYNC_TOPOLOGY_URL, ""),
    (LOG_FORMAT, "text"),
    (LOG_FILTER, "info"),
];

/// The control plane of Orchestrator: the live map, its Weave Scope API and its UI.
///
/// Every flag can also be given as an environment variable (ORCHESTRATOR_HTTP_ADDRESS, ...) or as a key of the --config file
/// (http-address = "..."). A flag wins over the environment, which wins over the file.
#[derive(Debug, Parser)]
#[command(name = "orchestrator-control", version)]
pub struct Flags {
    /// Listener of the UI, the API and /metrics [default: 127.0.0.1:4040]
    #[arg(long, value_name = "ADDRESS:PORT")]
    http_address: Option<String>,
    /// Listener of the probes' gRPC streams [default: 127.0.0.1:4041]
    #[arg(long, value_name = "ADDRESS:PORT")]
    grpc_address: Option<String>,
    /// Directory of the store [default: /var/lib/orchestrator]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// How long what has ended stays on the map [default: 15s]
    #[arg(long, value_name = "TIME")]
    window: Option<String>,
    /// How far back the map can be seen, or off [default: 6h]
    #[arg(long, value_name = "TIME")]
    history: Option<String>,
    /// What the history may take on disk; the oldest goes first [default: 2GiB]
    #[arg(long, value_name = "SIZE")]
    history_size: Option<String>,
    /// Flags of Weave Scope's app, separated by blanks: --app.container-label-filter=title:key=value, and -exclude
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    scope_flags: Option<String>,
    /// Probes on the map at once [default: 1000]
    #[arg(long, value_name = "NUMBER")]
    max_probes: Option<String>,
    /// WebSocket clients at once [default: 10000]
    #[arg(long, value_name = "NUMBER")]
    max_websocket_clients: Option<String>,
    /// Listener of the Mesos master's API, or off [default: 127.0.0.1:5050]
    #[arg(long, value_name = "ADDRESS:PORT")]
    mesos_address: Option<String>,
    /// Flags of a Mesos master, separated by spaces, e.g. "--cluster=main --allocation_interval=2secs"
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    mesos_flags: Option<String>,
    /// Listener of Marathon's API, or off [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    marathon_address: Option<String>,
    /// Flags of a Marathon, separated by spaces, e.g. "--framework_name=web --mesos_role=web"
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    marathon_flags: Option<String>,
    /// Where names of tasks (app.marathon.mesos) are answered for, over UDP and TCP, or off [default: off]
    #[arg(long, value_name = "ADDRESS:PORT")]
    dns_address: Option<String>,
    /// Domain below which they are [default: mesos]
    #[arg(long, value_name = "NAME")]
    dns_domain: Option<String>,
    /// DNS servers that are asked for all other names, in turn, e.g. 10.0.0.2,10.0.0.3:53 [default: none, such questions are refused]
    #[arg(long, value_name = "LIST")]
    dns_upstream: Option<String>,
    /// For how long an answer may be remembered [default: 60s]
    #[arg(long, value_name = "TIME")]
    dns_ttl: Option<String>,
    /// Mesos masters that the scheduler tries in turn, e.g. http://m1:5050,http://m2:5050 [default: the master of this process]
    #[arg(long, value_name = "LIST")]
    scheduler_master: Option<String>,
    /// ZooKeeper ensemble of several control planes, zk://[user:password@]host:port,host:port/path; without, this one is alone and leads
    #[arg(long, value_name = "ENSEMBLE")]
    zk: Option<String>,
    /// How long a session with the ensemble outlives its connection [default: 10s]
    #[arg(long, value_name = "TIME")]
    zk_session_timeout: Option<String>,
    /// JSON file that tells how to reach it: digest_file, sasl_file, tls {ca_file, certificate_file, key_file, check_name} [default: plain]
    #[arg(long, value_name = "FILE")]
    zk_access_file: Option<String>,
    /// Name or address by which others reach this control plane [default: its address towards the world]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Listener for connections that other control planes carry here, with --zk [default: 127.0.0.1:4044]
    #[arg(long, value_name = "ADDRESS:PORT")]
    replica_address: Option<String>,
    /// Certificate (PEM, followed by those up to the root) with which the listeners speak TLS; read again when it is renewed
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<String>,
    /// Private key of the certificate
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Who signs the certificates of probes, agents and other control planes; with it, they need one
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<String>,
    /// Listeners that speak TLS, separated by commas [default: http,grpc,mesos,marathon]
    #[arg(long, value_name = "LIST")]
    tls_listeners: Option<String>,
    /// Who signs the certificates of masters that --scheduler-master calls by https
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<String>,
    /// A file of lines user:password; with it, port 4040 asks for one of them (HTTP Basic), but for /health and /ready
    #[arg(long, value_name = "FILE")]
    users_file: Option<String>,
    /// Services to run, separated by commas: topology, master, scheduler, zksync [default: all]
    #[arg(long, value_name = "LIST")]
    services: Option<String>,
    /// The control plane that zksync asks who is connected to an ensemble, e.g. http://map:4040 [default: this one]
    #[arg(long, value_name = "URL")]
    zksync_topology_url: Option<String>,
    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Which log lines are written, e.g. info or warn,orchestrator_control=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// A TOML file with any of these keys
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to do instead of running
    #[command(subcommand)]
    pub command: Option<Subcommand>,
}

/// What the program can do besides running: speak to one that runs.
#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Keep two ZooKeeper ensembles in step, and move clients from one to the other
    Zk(zksync_service::cli::ZkFlags),
}

impl Flags {
    fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            (HTTP_ADDRESS, &self.http_address),
            (GRPC_ADDRESS, &self.grpc_address),
            (DATA_DIR, &self.data_dir),
            (WINDOW, &self.window),
            (HISTORY, &self.history),
            (HISTORY_SIZE, &self.history_size),
            (SCOPE_FLAGS, &self.scope_flags),
            (MAX_PROBES, &self.max_probes),
            (MAX_WEBSOCKET_CLIENTS, &self.max_websocket_clients),
            (MESOS_ADDRESS, &self.mesos_address),
            (MESOS_FLAGS, &self.mesos_flags),
            (MARATHON_ADDRESS, &self.marathon_address),
            (MARATHON_FLAGS, &self.marathon_flags),
            (DNS_ADDRESS, &self.dns_address),
            (DNS_DOMAIN, &self.dns_domain),
            (DNS_UPSTREAM, &self.dns_upstream),
            (DNS_TTL, &self.dns_ttl),
            (SCHEDULER_MASTER, &self.scheduler_master),
            (ZK, &self.zk),
            (ZK_SESSION_TIMEOUT, &self.zk_session_timeout),
            (ZK_ACCESS_FILE, &self.zk_access_file),
            (ADVERTISE, &self.advertise),
            (REPLICA_ADDRESS, &self.replica_address),
            (TLS_CERTIFICATE, &self.tls_certificate),
            (TLS_KEY, &self.tls_key),
            (TLS_CLIENT_CA, &self.tls_client_ca),
            (TLS_LISTENERS, &self.tls_listeners),
            (TLS_CA, &self.tls_ca),
            (USERS_FILE, &self.users_file),
            (SERVICES, &self.services),
            (ZKSYNC_TOPOLOGY_URL, &self.zksync_topology_url),
            (LOG_FORMAT, &self.log_format),
            (LOG_FILTER, &self.log_filter),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }
}

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
        let environment: BTreeMap<String, String> =
            environment.into_iter().filter(|(key, _)| key.starts_with(ENVIRONMENT_PREFIX)).collect();
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
        for (key, value) in flags.given() {
            layers.set(key, value, Origin::Flag);
        }
        layers.into_config()
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
        let history_bytes = self.parse(HISTORY_SIZE, parse_history_size);
        let label_filters = self.parse(SCOPE_FLAGS, parse_flags);
        let max_probes = self.parse(MAX_PROBES, |text| parse_count(text, 1, 100_000));
        let max_websocket_clients = self.parse(MAX_WEBSOCKET_CLIENTS, |text| parse_count(text, 0, 1_000_000));
        let mesos_address = self.parse(MESOS_ADDRESS, |text| if text == "off" { Ok(None) } else { parse_address(text).map(Some) });
        let mesos_flags = self.parse(MESOS_FLAGS, parse_mesos_flags);
        let marathon_address = self.parse(MARATHON_ADDRESS, |text| if text == "off" { Ok(None) } else { parse_address(text).map(Some) });
        let marathon_flags = self.parse(MARATHON_FLAGS, parse_marathon_flags);
        let dns_address = self.parse(DNS_ADDRESS, |text| if text == "off" { Ok(None) } else { parse_address(text).map(Some) });
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
        let services = self.parse(SERVICES, parse_services);
        let zksync_topology_url = self.parse(ZKSYNC_TOPOLOGY_URL, parse_url);
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
            Some(Config {
                http_address: http_address?,
                grpc_address: grpc_address?,
                data_dir: data_dir?,
                window: window?,
                history: history?,
                history_bytes: history_bytes?,
                label_filters: label_filters?,
                max_probes: max_probes?,
                max_websocket_clients: max_websocket_clients?,
                mesos_address: mesos_address?,
                mesos_flags: mesos_flags?,
                marathon_address: marathon_address?,
                marathon_flags: marathon_flags?,
                dns_address: dns_address?,
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
                services: services?,
                zksync_topology_url: zksync_topology_url?,
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

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    // Scope's way of saying "on every address".
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.replace("localhost:", "127.0.0.1:") };
    whole.parse().map_err(|_| "not an address and a port, such as 127.0.0.1:4040 or [::1]:4040".to_owned())
}

fn parse_window(text: &str) -> Result<Duration, String> {
    let window = humantime::parse_duration(text).map_err(|_| "not a time, such as 15s or 2m".to_owned())?;
    if (Duration::from_secs(1)..=Duration::from_secs(3_600)).contains(&window) {
        Ok(window)
    } else {
        Err("not between 1s and 1h".to_owned())
    }
}

/// What servers grant with their usual settings: 2 to 30 ticks of 2 s.
fn parse_access(text: &str) -> Result<Option<zk::Options>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let access = zksync_service::definition::EnsembleDefinition::access_in(std::path::Path::new(text));
    access.map(Some).map_err(|error| error.to_string())
}

fn parse_session_timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|_| "not a time, such as 10s".to_owned())?;
    if (Duration::from_secs(2)..=Duration::from_secs(60)).contains(&timeout) {
        Ok(timeout)
    } else {
        Err("not between 2s and 60s".to_owned())
    }
}

fn parse_host(text: &str) -> Result<Option<String>, String> {
    if text.chars().any(|it| it.is_whitespace() || it == '/') {
        return Err("neither a name nor an address".to_owned());
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

fn parse_history(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    let span = humantime::parse_duration(text).map_err(|_| "neither off nor a time, such as 6h".to_owned())?;
    if (Duration::from_secs(60)..=Duration::from_secs(30 * 86_400)).contains(&span) {
        Ok(Some(span))
    } else {
        Err("neither off nor between 1m and 30days".to_owned())
    }
}

fn parse_history_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim() {
        "" | "B" => Some(1),
        "MB" => Some(1_000_000),
        "MiB" => Some(1 << 20),
        "GB" => Some(1_000_000_000),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = unit.and_then(|unit: u64| text[..digits].parse::<u64>().ok()?.checked_mul(unit));
    match bytes {
        Some(bytes) if bytes >= 1 << 20 => Ok(bytes),
        _ => Err("not a size of at least 1MiB, such as 500MB or 2GiB".to_owned()),
    }
}

fn parse_count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (least..=most).contains(&count) => Ok(count),
        _ => Err(format!("not a number between {least} and {most}")),
    }
}

fn parse_services(text: &str) -> Result<Vec<Service>, String> {
    let one = |name: &str| match name.trim() {
        "topology" => Ok(Service::Topology),
        "master" => Ok(Service::Master),
        "scheduler" => Ok(Service::Scheduler),
        "zksync" => Ok(Service::ZkSync),
        other => Err(format!("there is no service {other:?}; there are topology, master, scheduler and zksync")),
    };
    text.split(',').map(one).collect()
}

fn parse_mesos_flags(text: &str) -> Result<Vec<String>, String> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    edge_mesos::Flags::default().with(words.iter().map(String::as_str)).map_err(|error| error.to_string())?;
    Ok(words)
}

fn parse_domain(text: &str) -> Result<String, String> {
    let is_label = |it: &str| !it.is_empty() && it.len() <= 63 && it.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if text.split('.').all(is_label) { Ok(text.to_lowercase()) } else { Err("not a domain's name".to_owned()) }
}

fn parse_dns_servers(text: &str) -> Result<Vec<SocketAddr>, String> {
    let server = |it: &str| {
        let alone = it.parse::<std::net::IpAddr>().map(|address| SocketAddr::new(address, 53));
        alone.or_else(|_| it.parse()).map_err(|_| format!("{it:?} is not an address"))
    };
    text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(server).collect()
}

fn parse_marathon_flags(text: &str) -> Result<Vec<String>, String> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    edge_marathon::settings::Settings::default().with_flags(words.iter().map(String::as_str)).map_err(|error| error.to_string())?;
    Ok(words)
}

fn parse_masters(text: &str) -> Result<Vec<String>, String> {
    let masters: Vec<String> = text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect();
    match masters.iter().find(|it| it.contains("://") && !it.starts_with("http://") && !it.starts_with("https://")) {
        Some(other) => Err(format!("{other:?} is not of the form http://host:port or https://host:port")),
        None => Ok(masters),
    }
}

fn parse_url(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        url if url.starts_with("http://") || url.starts_with("https://") => Ok(Some(url.to_owned())),
        _ => Err("not an address such as http://map:4040".to_owned()),
    }
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("neither text nor json".to_owned()),
    }
}

#[cfg(test)]
mod tests;
