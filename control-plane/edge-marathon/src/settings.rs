//! What this Marathon was told to be, as far as it is not the core's business. The words are those of Marathon's flags.

mod flags;

use std::time::Duration;

use scheduler::words::Config;

use crate::client::MasterTls;

pub use flags::BadFlag;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the core is told.
    pub core: Config,
    /// Addresses of masters, tried in turn: `http://host:5050`, or `https://host:5050`.
    pub masters: Vec<String>,
    /// Whom to believe of those that are called by https; without, none can be.
    pub master_tls: Option<MasterTls>,
    /// Name of the framework.
    pub framework_name: String,
    /// How long the master keeps our tasks when we are away.
    pub failover_timeout: Duration,
    /// Whether agents keep our tasks over their own restarts.
    pub checkpoint: bool,
    /// Who commands run as when an app does not say.
    pub user: String,
    /// Name and password for the master.
    pub principal: Option<(String, Option<String>)>,
    /// Host by which others reach us.
    pub hostname: String,
    /// Port by which others reach us.
    pub http_port: u16,
    /// Where people look at us.
    pub webui_url: Option<String>,
    /// Name of container networks that have none.
    pub default_network_name: Option<String>,
    /// Name by which old definitions mean the bridge, and by which Mesos knows it.
    pub mesos_bridge_name: String,
    /// Name and password that clients must give.
    pub http_credentials: Option<(String, String)>,
    /// Whose name the question for them bears.
    pub http_realm: String,
    /// Pages of others that may use the API.
    pub access_control_allow_origin: Option<String>,
    /// Requests at once; none: as many as come.
    pub http_max_concurrent_requests: Option<usize>,
    /// Events that a listener may be behind.
    pub event_stream_max_outstanding_messages: usize,
    /// Bytes of a request's body.
    pub max_body: usize,
    /// Listeners to the event stream at once.
    pub max_event_streams: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            core: Config::default(),
            masters: Vec::new(),
            master_tls: None,
            framework_name: "marathon".to_owned(),
            failover_timeout: Duration::from_secs(604_800),
            checkpoint: true,
            user: "root".to_owned(),
            principal: None,
            hostname: "localhost".to_owned(),
            http_port: 8_080,
            webui_url: None,
            default_network_name: None,
            mesos_bridge_name: "mesos-bridge".to_owned(),
            http_credentials: None,
            http_realm: "Mesosphere".to_owned(),
            access_control_allow_origin: None,
            http_max_concurrent_requests: None,
            event_stream_max_outstanding_messages: 1_024,
            max_body: 64 << 20,
            max_event_streams: 4_000,
        }
    }
}

impl Settings {
    /// What an operator should know of what was set, in a sentence each.
    pub fn remarks(&self) -> Vec<&'static str> {
        let mut remarks = Vec::new();
        // Marathon took the feature without a plugin for secrets, too, and then launched tasks without them. Here their names are passed on to the
        // agent: one of Mesos' own may have a resolver for them, so that the flag is not refused; ours has none, and fails the task saying so.
        if self.core.features.contains("secrets") {
            remarks.push(
                "the feature `secrets` is on: secrets are passed to agents by reference, and tasks with secrets fail on every agent without a \
                 secret resolver, which is every agent of Orchestrator",
            );
        }
        remarks
    }

    /// `host:port` as the API says who leads.
    pub fn leader(&self) -> String {
        format!("{}:{}", self.hostname, self.http_port)
    }
}
