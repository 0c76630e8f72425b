//! The names: which there are, and what they stand for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::cluster::{Cluster, Framework, Task};
use crate::label::{label, labels};

/// What a name stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) addresses: Vec<IpAddr>,
    /// Name and port.
    pub(crate) services: Vec<(String, u16)>,
}

/// One record of a task, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) of: RecordOf,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecordOf {
    Address(IpAddr),
    Service(String, u16),
}

impl Record {
    /// Its type, as zone files name it.
    pub(crate) fn kind(&self) -> &'static str {
        match self.of {
            RecordOf::Address(IpAddr::V4(_)) => "A",
            RecordOf::Address(IpAddr::V6(_)) => "AAAA",
            RecordOf::Service(..) => "SRV",
        }
    }

    /// An address, or a name and a port.
    pub(crate) fn target(&self) -> String {
        match &self.of {
            RecordOf::Address(address) => address.to_string(),
            RecordOf::Service(target, port) => format!("{target}.:{port}"),
        }
    }
}

/// The records of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskRecords {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) records: Vec<Record>,
}

/// The records of the tasks of a framework.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameworkRecords {
    pub(crate) name: String,
    pub(crate) tasks: Vec<TaskRecords>,
}

/// All names at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    domain: String,
    entries: BTreeMap<String, Entry>,
    /// Names that are there because something is below them.
    between: BTreeSet<String>,
    frameworks: Vec<FrameworkRecords>,
    /// The task whose names are being added.
    adding: Option<TaskRecords>,
}

impl Zone {
    /// The names below `domain` (`mesos`) of what runs.
    pub fn new(domain: &str, cluster: &Cluster) -> Zone {
        let mut zone = Zone { domain: domain.trim_matches('.').to_lowercase(), ..Zone::default() };
        zone.between.insert(zone.domain.clone());
        zone.masters(cluster);
        zone.agents(cluster);
        let agents: BTreeMap<&str, IpAddr> = cluster.agents.iter().map(|it| (it.id.as_str(), it.address)).collect();
        for framework in &cluster.frameworks {
            zone.framework(framework, &agents);
        }
        zone
    }

    /// Below which everything is.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Addresses of a name.
    pub fn addresses(&self, name: &str) -> &[IpAddr] {
        self.entries.get(name).map_or(&[], |it| &it.addresses)
    }

    /// Names and ports behind the name of a service.
    pub fn services(&self, name: &str) -> &[(String, u16)] {
        self.entries.get(name).map_or(&[], |it| &it.services)
    }

    /// Records by framework and task.
    pub(crate) fn told(&self) -> &[FrameworkRecords] {
        &self.frameworks
    }

    /// Every name with its addresses and services.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[IpAddr], &[(String, u16)])> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), &*entry.addresses, &*entry.services))
    }

    pub(crate) fn is_ours(&self, name: &str) -> bool {
        name == self.domain || name.strip_suffix(&self.domain).is_some_and(|it| it.ends_with('.'))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name) || self.between.contains(name)
    }

    fn masters(&mut self, cluster: &Cluster) {
        let domain = self.domain.clone();
        if let Some((address, port)) = cluster.leader {
            self.address(&format!("leader.{domain}"), address);
            self.address(&format!("master.{domain}"), address);
            for protocol in ["tcp", "udp"] {
                self.service(&format!("_leader._{protocol}.{domain}"), &format!("leader.{domain}"), port);
            }
        }
        for (at, address) in cluster.masters.iter().enumerate() {
            self.address(&format!("master.{domain}"), *address);
            self.address(&format!("master{at}.{domain}"), *address);
        }
    }

    fn agents(&mut self, cluster: &Cluster) {
        let domain = self.domain.clone();
        let name = format!("slave.{domain}");
        for agent in &cluster.agents {
            self.address(&name, agent.address);
            self.service(&format!("_slave._tcp.{domain}"), &name, agent.port);
        }
    }

    fn framework(&mut self, framework: &Framework, agents: &BTreeMap<&str, IpAddr>) {
        let called = labels(&framework.name);
        if called.is_empty() {
            return;
        }
        let domain = self.domain.clone();
        let own = format!("{called}.{domain}");
        if let Some((address, port)) = framework.address {
            self.address(&own, address);
            if let Some(port) = port {
                self.service(&format!("_framework._tcp.{own}"), &own, port);
            }
        }
        let mut told = FrameworkRecords { name: framework.name.clone(), tasks: Vec::new() };
        for task in &framework.tasks {
            self.adding = Some(TaskRecords { name: task.name.clone(), id: task.id.clone(), records: Vec::new() });
            self.task(task, &called, agents);
            told.tasks.extend(self.adding.take());
        }
        self.frameworks.push(told);
    }

    fn task(&mut self, task: &Task, framework: &str, agents: &BTreeMap<&str, IpAddr>) {
        let Some(host) = agents.get(task.agent_id.as_str()) else { return };
        let one = label(&task.name);
        if one.is_empty() {
            return;
        }
        // Mesos-DNS calls `/group/app` app-group; by labels it can be asked for as well.
        let many = labels(&task.name);
        let domain = self.domain.clone();
        let tail = format!("{framework}.{domain}");
        let on_host = format!("{framework}.slave.{domain}");
        let exact = format!("{}-{}-{}", one, short(&task.id), agent_label(&task.agent_id));
        let own: &[IpAddr] = if task.addresses.is_empty() { std::slice::from_ref(host) } else { &task.addresses };
        for name in BTreeSet::from([&one, &many, &exact]) {
            for address in own {
                self.address(&format!("{name}.{tail}"), *address);
            }
            self.address(&format!("{name}.{on_host}"), *host);
        }
        let (target, target_on_host) = (format!("{exact}.{tail}"), format!("{exact}.{on_host}"));
        for name in BTreeSet::from([&one, &many]) {
            for protocol in ["tcp", "udp"] {
                for port in &task.ports {
                    self.service(&format!("_{name}._{protocol}.{on_host}"), &target_on_host, *port);
                    if task.discovery.is_none() {
                        self.service(&format!("_{name}._{protocol}.{tail}"), &target_on_host, *port);
                    }
                }
                for port in task.discovery.iter().flatten().filter(|it| it.protocol.as_ref().is_none_or(|it| it == protocol)) {
                    // A port of the agent is served there, also where the task has an address of its own.
                    let target = if task.ports.contains(&port.number) { &target_on_host } else { &target };
                    self.service(&format!("_{name}._{protocol}.{tail}"), target, port.number);
                    if let Some(called) = port.name.as_deref().map(label).filter(|it| !it.is_empty()) {
                        self.service(&format!("_{called}._{name}._{protocol}.{tail}"), target, port.number);
                    }
                }
            }
        }
    }

    fn address(&mut self, name: &str, address: IpAddr) {
        if let Some(task) = &mut self.adding {
            task.records.push(Record { name: name.to_owned(), of: RecordOf::Address(address) });
        }
        let addresses = &mut self.entry(name).addresses;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    fn service(&mut self, name: &str, target: &str, port: u16) {
        if let Some(task) = &mut self.adding {
            task.records.push(Record { name: name.to_owned(), of: RecordOf::Service(target.to_owned(), port) });
        }
        let services = &mut self.entry(name).services;
        if !services.iter().any(|(known, at)| *at == port && known == target) {
            services.push((target.to_owned(), port));
        }
    }

    fn entry(&mut self, name: &str) -> &mut Entry {
        if !self.entries.contains_key(name) {
            let mut above = name;
            while let Some((_, rest)) = above.split_once('.') {
                if !self.is_ours(rest) || !self.between.insert(rest.to_owned()) {
                    break;
                }
                above = rest;
            }
        }
        self.entries.entry(name.to_owned()).or_default()
    }
}

/// A few letters that tell a task from others of its name.
fn short(id: &str) -> String {
    // FNV-1a; only to be the same everywhere and short.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut text = String::new();
    let _ = write!(text, "{:05x}", hash & 0xf_ffff);
    text
}

/// `...-S3` is `s3`.
fn agent_label(id: &str) -> String {
    label(id.rsplit('-').next().unwrap_or(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Agent, DiscoveryPort};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn cluster(tasks: Vec<Task>) -> Cluster {
        Cluster {
            leader: Some((ip("10.0.0.1"), 5050)),
            masters: vec![ip("10.0.0.1"), ip("10.0.0.2")],
            agents: vec![
                Agent { id: "m-S0".into(), address: ip("10.0.1.0"), port: 5051 },
                Agent { id: "m-S1".into(), address: ip("10.0.1.1"), port: 5051 },
            ],
            frameworks: vec![Framework { name: "marathon".into(), address: Some((ip("10.0.0.1"), Some(8080))), tasks }],
        }
    }

    fn task(id: &str, name: &str, agent: &str, ports: &[u16]) -> Task {
        Task { id: id.into(), name: name.into(), agent_id: agent.into(), ports: ports.to_vec(), ..Task::default() }
    }

    #[test]
    fn tasks_are_found_by_their_names() {
        let zone = Zone::new("mesos", &cluster(vec![task("1", "web", "m-S0", &[31_000]), task("2", "web", "m-S1", &[31_005])]));
        assert_eq!(zone.addresses("web.marathon.mesos"), [ip("10.0.1.0"), ip("10.0.1.1")]);
        let services = zone.services("_web._tcp.marathon.mesos");
        assert_eq!(services.iter().map(|it| it.1).collect::<Vec<_>>(), [31_000, 31_005]);
        assert_eq!(zone.addresses(&services[1].0), [ip("10.0.1.1")], "{services:?}");
        assert_eq!(zone.services("_web._udp.marathon.mesos").len(), 2);
    }

    #[test]
    fn groups_are_reversed() {
        let zone = Zone::new("mesos", &cluster(vec![task("1", "web.shop", "m-S0", &[31_000])]));
        for name in ["web-shop.marathon.mesos", "web.shop.marathon.mesos"] {
            assert_eq!(zone.addresses(name), [ip("10.0.1.0")], "{name}");
        }
        assert_eq!(zone.services("_web-shop._tcp.marathon.mesos").len(), 1);
        assert!(zone.has("shop.marathon.mesos") && zone.addresses("shop.marathon.mesos").is_empty());
        assert!(!zone.has("x.marathon.mesos"));
    }

    #[test]
    fn who_has_addresses_and_ports_of_its_own_is_found_there() {
        let http = DiscoveryPort { number: 80, name: Some("http".into()), protocol: Some("tcp".into()) };
        let own = Task { addresses: vec![ip("172.17.0.2")], discovery: Some(vec![http]), ..task("1", "web", "m-S0", &[31_000]) };
        let zone = Zone::new("mesos", &cluster(vec![own]));
        assert_eq!(zone.addresses("web.marathon.mesos"), [ip("172.17.0.2")]);
        assert_eq!(zone.addresses("web.marathon.slave.mesos"), [ip("10.0.1.0")]);
        let services = zone.services("_web._tcp.marathon.mesos");
        assert_eq!((services.len(), services[0].1, zone.addresses(&services[0].0)), (1, 80, &[ip("172.17.0.2")][..]));
        assert_eq!(zone.services("_http._web._tcp.marathon.mesos").len(), 1);
        assert!(zone.services("_web._udp.marathon.mesos").is_empty());
        assert_eq!(zone.services("_web._tcp.marathon.slave.mesos")[0].1, 31_000);
    }

    #[test]
    fn masters_agents_and_frameworks_have_names() {
        let zone = Zone::new("mesos.", &cluster(Vec::new()));
        assert_eq!(zone.addresses("leader.mesos"), [ip("10.0.0.1")]);
        assert_eq!(zone.addresses("master.mesos"), [ip("10.0.0.1"), ip("10.0.0.2")]);
        assert_eq!(zone.addresses("slave.mesos").len(), 2);
        assert_eq!(zone.services("_leader._tcp.mesos"), [("leader.mesos".to_owned(), 5050)]);
        assert_eq!(zone.services("_framework._tcp.marathon.mesos"), [("marathon.mesos".to_owned(), 8080)]);
        assert!(zone.is_ours("a.mesos") && !zone.is_ours("amesos"));
    }
}
