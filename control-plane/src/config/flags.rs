//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};

use super::*;

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
    /// What reports of Weave Scope's probes may take in memory, all of one window together [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    old_probes_memory: Option<String>,
    /// Flags of Weave Scope's app, separated by blanks: --app.container-label-filter=title:key=value, and -exclude, and --app.metrics-graph=URL;
    /// the command line itself takes these and others of Scope's flags as well
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
    /// Where the same names are told over HTTP, as Mesos-DNS did on port 8123, or off [default: off]
    #[arg(long, value_name = "ADDRESS:PORT")]
    dns_http_address: Option<String>,
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
    /// Who signs the certificates of masters that --scheduler-master, and of the control plane that --zksync-topology-url calls by https
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<String>,
    /// A file of lines user:password; with it, port 4040 asks for one of them (HTTP Basic), but for /health and /ready
    #[arg(long, value_name = "FILE")]
    users_file: Option<String>,
    /// Origins whose pages may ask for what our own page may, e.g. https://map.example; for a proxy in front that changes the header Host
    #[arg(long, value_name = "LIST")]
    allowed_origins: Option<String>,
    /// A file with the line user:password that agents are shown when the page reads files of their tasks (--authenticate-http-readonly of agents)
    #[arg(long, value_name = "FILE")]
    agent_login_file: Option<String>,
    /// Services to run, separated by commas: topology, master, scheduler, zksync [default: all]
    #[arg(long, value_name = "LIST")]
    services: Option<String>,
    /// The control plane that zksync asks who is connected to an ensemble, e.g. http://map:4040 [default: this one]
    #[arg(long, value_name = "URL")]
    zksync_topology_url: Option<String>,
    /// A file with the line user:password that is shown to that control plane
    #[arg(long, value_name = "FILE")]
    zksync_topology_login_file: Option<String>,
    /// Below which the files are that links of zksync may take secrets from [default: secrets in --data-dir]
    #[arg(long, value_name = "DIRECTORY")]
    zksync_secrets_dir: Option<String>,
    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Which log lines are written, e.g. info or warn,orchestrator_control=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// A TOML file with any of these keys
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// What was said in Weave Scope's words.
    #[arg(skip)]
    pub scope: ScopeWords,
    /// What to do instead of running
    #[command(subcommand)]
    pub command: Option<Subcommand>,
}

/// What the program can do besides running: speak to one that runs.
#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Keep two ZooKeeper ensembles in step, and move clients from one to the other
    Zk(ZkCommand),
}

/// What to ask, and of whom.
#[derive(Debug, clap::Args)]
pub struct ZkCommand {
    /// What to ask
    #[command(flatten)]
    pub zk: zksync_service::cli::ZkFlags,
    /// Whom to trust, and who is asking
    #[command(flatten)]
    pub access: access::AccessFlags,
}

impl Flags {
    /// Reads a command line, whose first word is the program: our own flags, and those of Weave Scope's programs.
    ///
    /// # Errors
    /// When it cannot be understood, or asks for help or the version.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Flags, clap::Error> {
        let (ours, scope) = scope::take(arguments.into_iter().collect())
            .map_err(|problem| clap::Error::raw(clap::error::ErrorKind::InvalidValue, format!("{problem}\n")))?;
        let command = Flags::command().mut_subcommand("zk", zksync_service::cli::with_output);
        Ok(Flags { scope, ..Flags::from_arg_matches(&command.try_get_matches_from(ours)?)? })
    }

    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            (HTTP_ADDRESS, &self.http_address),
            (GRPC_ADDRESS, &self.grpc_address),
            (DATA_DIR, &self.data_dir),
            (WINDOW, &self.window),
            (HISTORY, &self.history),
            (HISTORY_SIZE, &self.history_size),
            (OLD_PROBES_MEMORY, &self.old_probes_memory),
            (SCOPE_FLAGS, &self.scope_flags),
            (MAX_PROBES, &self.max_probes),
            (MAX_WEBSOCKET_CLIENTS, &self.max_websocket_clients),
            (MESOS_ADDRESS, &self.mesos_address),
            (MESOS_FLAGS, &self.mesos_flags),
            (MARATHON_ADDRESS, &self.marathon_address),
            (MARATHON_FLAGS, &self.marathon_flags),
            (DNS_ADDRESS, &self.dns_address),
            (DNS_HTTP_ADDRESS, &self.dns_http_address),
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
            (ALLOWED_ORIGINS, &self.allowed_origins),
            (AGENT_LOGIN_FILE, &self.agent_login_file),
            (SERVICES, &self.services),
            (ZKSYNC_TOPOLOGY_URL, &self.zksync_topology_url),
            (ZKSYNC_TOPOLOGY_LOGIN_FILE, &self.zksync_topology_login_file),
            (ZKSYNC_SECRETS_DIR, &self.zksync_secrets_dir),
            (LOG_FORMAT, &self.log_format),
            (LOG_FILTER, &self.log_filter),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }
}
