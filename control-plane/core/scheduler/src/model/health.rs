//! Checks: what tells whether an instance is healthy, ready, or just how it is.

/// What tells whether an instance is healthy.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// How it is asked.
    pub probe: Probe,
    /// Seconds in which failures do not count while it was never healthy.
    pub grace_period_seconds: u64,
    /// Seconds between probes.
    pub interval_seconds: u64,
    /// Seconds that an answer may take.
    pub timeout_seconds: u64,
    /// Failures in a row after which it is killed with the next one; 0: never.
    pub max_consecutive_failures: u32,
    /// Seconds before the first probe, by agents.
    pub delay_seconds: u64,
}

impl HealthCheck {
    /// A check with Marathon's defaults.
    pub fn new(probe: Probe) -> HealthCheck {
        HealthCheck {
            probe,
            grace_period_seconds: 300,
            interval_seconds: 60,
            timeout_seconds: 20,
            max_consecutive_failures: 3,
            delay_seconds: 15,
        }
    }

    /// Whether the scheduler asks, not the agent.
    pub fn by_scheduler(&self) -> bool {
        match &self.probe {
            Probe::Http { by_agent, .. } | Probe::Tcp { by_agent, .. } => !by_agent,
            Probe::Command(_) => false,
        }
    }

    /// Marathon's word of the protocol.
    pub fn protocol(&self) -> &'static str {
        match &self.probe {
            Probe::Http { tls: false, by_agent: false, .. } => "HTTP",
            Probe::Http { tls: true, by_agent: false, .. } => "HTTPS",
            Probe::Http { tls: false, by_agent: true, .. } => "MESOS_HTTP",
            Probe::Http { tls: true, by_agent: true, .. } => "MESOS_HTTPS",
            Probe::Tcp { by_agent: false, .. } => "TCP",
            Probe::Tcp { by_agent: true, .. } => "MESOS_TCP",
            Probe::Command(_) => "COMMAND",
        }
    }

    /// The port that is asked, if one is.
    pub fn port(&self) -> Option<&PortRef> {
        match &self.probe {
            Probe::Http { port, .. } | Probe::Tcp { port, .. } => Some(port),
            Probe::Command(_) => None,
        }
    }
}

/// How an instance is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A request; 200 to 399 is healthy.
    Http {
        /// Over TLS; certificates are not verified.
        tls: bool,
        /// Path of the request; `/` when absent.
        path: Option<String>,
        /// Where.
        port: PortRef,
        /// Whether answers below 200 do not count at all.
        ignore_1xx: bool,
        /// Whether the agent asks.
        by_agent: bool,
        /// Over IPv6.
        ipv6: bool,
    },
    /// A connection; made is healthy.
    Tcp {
        /// Where.
        port: PortRef,
        /// Whether the agent asks.
        by_agent: bool,
        /// Over IPv6.
        ipv6: bool,
    },
    /// A command in the container, run by the agent; exit code 0 is healthy.
    Command(Command),
}

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// For a shell.
    Shell(String),
    /// Word by word.
    Argv(Vec<String>),
}

/// Which port is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortRef {
    /// Position among the app's ports.
    Index(u32),
    /// This number.
    Number(u16),
    /// The pod's endpoint, or the port, of this name.
    Name(String),
}

/// A check that the agent makes and that is reported only.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// How it is asked.
    pub probe: Probe,
    /// Seconds between probes.
    pub interval_seconds: u64,
    /// Seconds that an answer may take.
    pub timeout_seconds: u64,
    /// Seconds before the first.
    pub delay_seconds: u64,
}

/// What tells, during a deployment, whether a new instance is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessCheck {
    /// Name.
    pub name: String,
    /// Over TLS.
    pub tls: bool,
    /// Path of the request.
    pub path: String,
    /// Name of the port.
    pub port_name: String,
    /// Seconds between probes.
    pub interval_seconds: u64,
    /// Seconds that an answer may take.
    pub timeout_seconds: u64,
    /// Status codes that say ready.
    pub ready_codes: Vec<u16>,
    /// Whether the last answer is shown.
    pub preserve_last_response: bool,
}

impl Default for ReadinessCheck {
    fn default() -> Self {
        ReadinessCheck {
            name: "readinessCheck".to_owned(),
            tls: false,
            path: "/".to_owned(),
            port_name: "http-api".to_owned(),
            interval_seconds: 30,
            timeout_seconds: 10,
            ready_codes: vec![200],
            preserve_last_response: false,
        }
    }
}
