//! The Mesos master in this process: its flags, identity and registry, its loop, its listener and the agents' service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use edge_mesos::{Acls, AgentService, Credentials, DiskRegistry, Files, Flags, Leadership, MemoryRegistry, RegistryStore, driver};
use mesos_proto::v1;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Config;
use crate::http::lead::Page;
use crate::http::{self, Entrance};
use crate::replicas::{Replicas, TermRegistry};
use crate::supervise::{Backoff, Supervisor};
use crate::telemetry::{self, Telemetry};

/// Streams of agents at once.
pub(crate) const MOST_AGENTS: usize = 50_000;
/// The version of Mesos that is spoken. Digits and dots alone: clients read every part as a number.
const SPOKEN: &str = "1.11.0";

/// A master that runs.
#[derive(Debug)]
pub(crate) struct Mesos {
    /// What the HTTP side needs.
    pub(crate) context: edge_mesos::Context,
    /// What the gRPC listener serves.
    pub(crate) agents: AgentService,
    /// Kept, because a leader without anybody who says so has lost the lead. Where there are several masters an election says so.
    _leadership: watch::Sender<Leadership>,
}

/// What tells this master from others.
#[derive(Debug)]
pub(crate) struct Who<'a> {
    /// Name of the machine.
    pub(crate) hostname: &'a str,
    /// The master's UUID.
    pub(crate) id: String,
    /// Random.
    pub(crate) seed: u64,
}

/// Starts the master. Alone, it leads at once.
///
/// # Errors
/// When a flag cannot be understood or the registry cannot be opened.
pub(crate) fn start(
    config: &Config,
    bound: Option<SocketAddr>,
    who: Who<'_>,
    replicas: Option<&Replicas>,
    supervisor: &Supervisor,
    clock: &Clock,
) -> anyhow::Result<Mesos> {
    let mut flags = Flags::default().with(config.mesos_flags.iter().map(String::as_str))?;
    if let Some(host) = &config.advertise {
        if host.parse::<IpAddr>().is_ok() && flags.get("advertise_ip").is_none() {
            flags.set("advertise_ip", host.clone());
        }
        // An address, too: what it is called here need not mean anything to others, and the ensemble says the same.
        if flags.get("hostname").is_none() {
            flags.set("hostname", host.clone());
        }
    }
    if let Some(address) = bound {
        listens_there(&flags, address)?;
    }
    let seed = who.seed;
    let info = identity(&flags, bound, who.hostname, who.id)?;
    if let Some(address) = bound {
        flags.set("ip", address.ip().to_string());
        flags.set("port", address.port().to_string());
    }
    flags.set("hostname", info.hostname());
    flags.set("work_dir", config.data_dir.display().to_string());
    if let Some(zk) = &config.zk {
        flags.set("zk", zk.to_string());
        flags.set("zk_session_timeout", format!("{}ms", config.zk_session_timeout.as_millis()));
    }
    let credentials = Credentials::from_flags(&flags)?;
    let mut core = master::Config::new(info, seed);
    flags.apply(&mut core)?;
    let acls = Acls::from_flags(&flags)?;
    if let Some(acls) = acls.clone() {
        core.authorizer = acls;
    }
    let ping_interval = core.agent_ping_timeout;

    let store: Arc<dyn RegistryStore> = match (replicas, flags.get("registry")) {
        (Some(replicas), _) => {
            Arc::new(TermRegistry::new(replicas.standing(), config.zk.as_ref().map(ToString::to_string).unwrap_or_default()))
        }
        (None, Some("in_memory")) => Arc::new(MemoryRegistry::default()),
        (None, _) => Arc::new(DiskRegistry::open(&config.data_dir).context("opening the Mesos registry")?),
    };
    let (alone, leads_alone) = watch::channel(Leadership::Leading);
    let leads = replicas.map_or(leads_alone, Replicas::leadership);
    let process_clock = clock.clone();
    let clock = edge_mesos::Clock::from_fn(move || process_clock.now());
    let (handle, run) = driver::start(driver::Parts {
        config: core,
        store: store.clone(),
        fetch_timeout: flags.duration("registry_fetch_timeout")?,
        store_timeout: flags.duration("registry_store_timeout")?,
        leadership: leads,
        clock: clock.clone(),
        max_subscribers: flags.number("max_operator_event_stream_subscribers")?,
        stopping: supervisor.stopping().clone(),
    });
    supervisor.essential("mesos_driver", run);
    if let Some(file) = edge_mesos::whitelist_file(&flags) {
        let master = handle.clone();
        supervisor.restarting("mesos_whitelist", Backoff::EDGE, move || edge_mesos::watch_whitelist(master.clone(), file.clone()));
    }

    let mut files = Files::default();
    let copied = flags.get("log_dir").map(|it| telemetry::copy_logs_to(Path::new(it)).with_context(|| format!("--log_dir={it}")));
    // Of both, Mesos shows what somebody else writes.
    let log = flags.get("external_log_file").map(PathBuf::from);
    if let Some(log) = log.or(copied.transpose()?) {
        files.attach("/master/log", log);
    }
    let agents =
        AgentService::new(handle.clone(), ping_interval, MOST_AGENTS, supervisor.stopping().clone()).with_credentials(credentials.clone());
    let context = edge_mesos::Context::new(handle, store, clock, &flags, edge_mesos::Limits::default()).with(
        files,
        credentials,
        acls,
        telemetry::set_verbosity,
    );
    Ok(Mesos { context, agents, _leadership: alone })
}

impl Mesos {
    /// Serves the APIs at `entrance`.
    pub(crate) fn serve(&self, entrance: Entrance, page: Page, supervisor: &Supervisor, telemetry: &Telemetry) {
        let router =
            http::observe::layer_named(http::lead::from_mesos(edge_mesos::router(self.context.clone()), page), "mesos", telemetry.clone());
        let (parent, counters) = (supervisor.clone(), telemetry.clone());
        supervisor.restarting("mesos_listener", Backoff::EDGE, move || {
            http::serve(entrance.clone(), router.clone(), parent.clone(), counters.clone())
        });
    }
}

/// Where the master listens is not for its flags to decide: those that say something else would only seem to.
fn listens_there(flags: &Flags, bound: SocketAddr) -> anyhow::Result<()> {
    let decided = || format!("the master listens where the key `mesos-address` of the control plane says, at {bound}");
    let port = flags.get("port").filter(|it| *it != "5050");
    anyhow::ensure!(port.is_none_or(|it| it == bound.port().to_string()), "--port: {}", decided());
    if let Some(text) = flags.get("ip") {
        let ip: IpAddr = text.parse().context("--ip is no address")?;
        anyhow::ensure!(bound.ip().is_unspecified() || ip == bound.ip(), "--ip: {}", decided());
    }
    Ok(())
}

/// The address that a command says.
fn discovered(command: &str) -> anyhow::Result<IpAddr> {
    let output = std::process::Command::new("/bin/sh").args(["-c", command]).output().context("--ip_discovery_command cannot be run")?;
    anyhow::ensure!(output.status.success(), "--ip_discovery_command failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    said.parse().with_context(|| format!("--ip_discovery_command said {said:?}, which is no address"))
}

/// Who this master is, new in every run: ids that it gives begin with its own.
fn identity(flags: &Flags, bound: Option<SocketAddr>, hostname: &str, id: String) -> anyhow::Result<v1::MasterInfo> {
    use v1::master_info::Capability;
    use v1::master_info::capability::Type;

    let ip = match flags.get("advertise_ip") {
        Some(text) => text.parse().context("--advertise_ip is no address")?,
        None => match (flags.get("ip").and_then(|it| it.parse::<IpAddr>().ok()), flags.get("ip_discovery_command")) {
            (Some(_), Some(_)) => anyhow::bail!("--ip_discovery_command: --ip says the address already"),
            (Some(ip), None) if !ip.is_unspecified() => ip,
            (_, Some(command)) => discovered(command)?,
            _ => bound.map(|it| it.ip()).filter(|it| !it.is_unspecified()).unwrap_or_else(outward_address),
        },
    };
    let port = match flags.get("advertise_port") {
        Some(text) => text.parse().context("--advertise_port is no port")?,
        None => bound.map_or(5050, |it| it.port()),
    };
    let hostname = match flags.get("hostname") {
        Some(given) => given.to_owned(),
        None if !flags.is_on("hostname_lookup") => ip.to_string(),
        None if ip.is_loopback() => "localhost".to_owned(),
        None => hostname.to_owned(),
    };
    let domain = match flags.get("domain") {
        Some(text) => Some(mesos_proto::json::from_slice(text.as_bytes()).context("--domain is no DomainInfo")?),
        None => None,
    };
    let number = match ip {
        // As a little-endian machine reads an address in network order.
        IpAddr::V4(ip) => u32::from_le_bytes(ip.octets()),
        IpAddr::V6(_) => 0,
    };
    Ok(v1::MasterInfo {
        id,
        ip: number,
        port: u32::from(port),
        pid: Some(format!("master@{ip}:{port}")),
        hostname: Some(hostname.clone()),
        version: Some(SPOKEN.to_owned()),
        address: Some(v1::Address { hostname: Some(hostname), ip: Some(ip.to_string()), port: i32::from(port) }),
        domain,
        capabilities: [Type::AgentUpdate, Type::AgentDraining, Type::QuotaV2].map(|it| Capability { r#type: Some(it.into()) }).to_vec(),
    })
}

/// The address that this machine has towards the world. Nothing is sent.
pub(crate) fn outward_address() -> IpAddr {
    let towards = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    towards().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |it| it.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str], bound: &str) -> anyhow::Result<v1::MasterInfo> {
        let flags = Flags::default().with(words.iter().copied())?;
        let bound = bound.parse()?;
        listens_there(&flags, bound)?;
        identity(&flags, Some(bound), "machine", "id".to_owned())
    }

    #[test]
    fn a_master_is_where_its_flags_say() {
        for (words, bound, pid, hostname) in [
            (&[][..], "10.0.0.1:5050", "master@10.0.0.1:5050", "machine"),
            (&["--no-hostname_lookup"], "10.0.0.1:5050", "master@10.0.0.1:5050", "10.0.0.1"),
            (&["--ip_discovery_command=echo 10.0.0.7"], "0.0.0.0:5050", "master@10.0.0.7:5050", "machine"),
            (&["--ip=10.0.0.3", "--port=5051"], "0.0.0.0:5051", "master@10.0.0.3:5051", "machine"),
            (&["--advertise_ip=10.0.0.2", "--hostname=h"], "0.0.0.0:5050", "master@10.0.0.2:5050", "h"),
            (&[], "127.0.0.1:5050", "master@127.0.0.1:5050", "localhost"),
        ] {
            let info = of(words, bound).unwrap();
            assert_eq!((info.pid(), info.hostname()), (pid, hostname), "{words:?}");
        }
    }

    #[test]
    fn what_does_not_hold_is_refused() {
        for (words, bound, problem) in [
            (&["--port=5051"][..], "127.0.0.1:5050", "`mesos-address`"),
            (&["--ip=10.0.0.1"], "127.0.0.1:5050", "`mesos-address`"),
            (&["--ip_discovery_command=false"], "0.0.0.0:5050", "--ip_discovery_command failed"),
            (&["--ip_discovery_command=echo here"], "0.0.0.0:5050", "\"here\", which is no address"),
            (&["--ip=10.0.0.1", "--ip_discovery_command=true"], "0.0.0.0:5050", "already"),
        ] {
            let error = format!("{:#}", of(words, bound).unwrap_err());
            assert!(error.contains(problem), "{error}");
        }
    }
}
