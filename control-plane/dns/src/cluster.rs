//! What runs, as far as names are made of it; and how a master's `/state` says it.

use std::net::IpAddr;

use serde_json::Value;

/// What runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Address and port of the master that leads.
    pub leader: Option<(IpAddr, u16)>,
    /// Addresses of all masters that are known.
    pub masters: Vec<IpAddr>,
    /// Agents.
    pub agents: Vec<Agent>,
    /// Frameworks.
    pub frameworks: Vec<Framework>,
}

/// A machine that runs tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its id.
    pub id: String,
    /// Its address.
    pub address: IpAddr,
    /// The port of its API.
    pub port: u16,
}

/// Somebody whose tasks run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Framework {
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub address: Option<(IpAddr, Option<u16>)>,
    /// Its tasks that run, and are not known to be unhealthy.
    pub tasks: Vec<Task>,
}

/// A task that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// Its name, or what it wants to be found as.
    pub name: String,
    /// The agent that it runs on.
    pub agent_id: String,
    /// Addresses of its own; empty: the agent's is its.
    pub addresses: Vec<IpAddr>,
    /// Ports of the agent.
    pub ports: Vec<u16>,
    /// Ports that it wants to be found at; none: those of the agent.
    pub discovery: Option<Vec<DiscoveryPort>>,
}

/// A port that a task wants to be found at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiscoveryPort {
    /// Which.
    pub number: u16,
    /// Its name.
    pub name: Option<String>,
    /// `tcp` or `udp`; none: both.
    pub protocol: Option<String>,
}

/// `name@address:port`, or without the name.
pub(crate) fn address(pid: &str) -> Option<(IpAddr, u16)> {
    let (host, port) = pid.rsplit('@').next()?.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']).parse().ok()?, port.parse().ok()?))
}

/// What a master's `/state` says. What is not understood is left out: one odd task takes no name from others.
pub fn read_state(state: &Value) -> Cluster {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let leader = state["leader"].as_str().and_then(address);
    let agents = list(&state["slaves"]).iter().filter_map(read_agent).collect();
    let frameworks = list(&state["frameworks"]).iter().map(read_framework).collect();
    Cluster { leader, masters: leader.into_iter().map(|(address, _)| address).collect(), agents, frameworks }
}

fn read_agent(value: &Value) -> Option<Agent> {
    let (address, port) = address(value["pid"].as_str()?)?;
    Some(Agent { id: value["id"].as_str()?.to_owned(), address, port })
}

fn read_framework(value: &Value) -> Framework {
    let page = value["webui_url"].as_str().and_then(|url| url.split("//").nth(1)).and_then(|rest| rest.split('/').next());
    let with_port = page.and_then(address).map(|(address, port)| (address, Some(port)));
    let host = || value["hostname"].as_str().and_then(|it| it.parse().ok()).map(|address| (address, None));
    Framework {
        name: value["name"].as_str().unwrap_or_default().to_owned(),
        address: with_port.or_else(host),
        tasks: value["tasks"].as_array().into_iter().flatten().filter_map(read_task).collect(),
    }
}

fn read_task(value: &Value) -> Option<Task> {
    if value["state"].as_str()? != "TASK_RUNNING" {
        return None;
    }
    let statuses = value["statuses"].as_array().map(Vec::as_slice).unwrap_or_default();
    // The latest counts, wherever it stands.
    let latest =
        statuses.iter().max_by(|one, two| one["timestamp"].as_f64().unwrap_or(0.0).total_cmp(&two["timestamp"].as_f64().unwrap_or(0.0)));
    if latest.is_some_and(|it| it["healthy"].as_bool() == Some(false)) {
        return None;
    }
    let networks = latest.and_then(|it| it["container_status"]["network_infos"].as_array()).into_iter().flatten();
    let addresses = networks
        .flat_map(|network| network["ip_addresses"].as_array().into_iter().flatten())
        .filter_map(|it| it["ip_address"].as_str()?.parse().ok())
        .collect();
    let discovery = &value["discovery"];
    let port = |it: &Value| {
        Some(DiscoveryPort {
            number: it["number"].as_u64().and_then(|it| u16::try_from(it).ok())?,
            name: it["name"].as_str().map(str::to_owned),
            protocol: it["protocol"].as_str().map(str::to_lowercase),
        })
    };
    let ports = discovery["ports"]["ports"].as_array();
    Some(Task {
        id: value["id"].as_str()?.to_owned(),
        name: discovery["name"].as_str().or(value["name"].as_str())?.to_owned(),
        agent_id: value["slave_id"].as_str()?.to_owned(),
        addresses,
        ports: value["resources"]["ports"].as_str().map(read_ports).unwrap_or_default(),
        discovery: ports.map(|ports| ports.iter().filter_map(port).collect()).filter(|it: &Vec<_>| !it.is_empty()),
    })
}

/// Ports of a task at most.
const PORTS_MAX: usize = 1_024;

/// `[31000-31001, 31005-31005]`.
fn read_ports(text: &str) -> Vec<u16> {
    let ranges = text.trim_matches(['[', ']']).split(',').filter_map(|range| {
        let (from, to) = range.trim().split_once('-')?;
        Some(from.trim().parse::<u16>().ok()?..=to.trim().parse().ok()?)
    });
    ranges.flatten().take(PORTS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_is_read() {
        let state = json!({
            "leader": "master@10.0.0.1:5050",
            "slaves": [{"id": "x-S3", "pid": "slave(1)@10.0.0.7:5051"}, {"id": "odd"}],
            "frameworks": [{"name": "marathon", "webui_url": "http://10.0.0.1:8080", "tasks": [
                {"id": "a.1", "name": "a", "slave_id": "x-S3", "state": "TASK_RUNNING", "resources": {"ports": "[31000-31001, 31005-31005]"}},
                {"id": "a.2", "name": "a", "slave_id": "x-S3", "state": "TASK_STAGING"},
                {"id": "a.3", "name": "a", "slave_id": "x-S3", "state": "TASK_RUNNING", "statuses": [
                    {"timestamp": 2, "healthy": false}, {"timestamp": 1, "healthy": true}]},
                {"id": "b.1", "name": "b", "slave_id": "x-S3", "state": "TASK_RUNNING",
                 "discovery": {"name": "found", "ports": {"ports": [{"number": 80, "name": "http", "protocol": "TCP"}]}},
                 "statuses": [{"timestamp": 1, "container_status": {"network_infos": [{"ip_addresses": [{"ip_address": "172.17.0.2"}]}]}}]},
                7, {}
            ]}]
        });
        let cluster = read_state(&state);
        assert_eq!(cluster.agents.len(), 1);
        let framework = &cluster.frameworks[0];
        assert_eq!(framework.address, Some(("10.0.0.1".parse().unwrap(), Some(8080))));
        let names: Vec<_> = framework.tasks.iter().map(|it| (it.id.as_str(), it.name.as_str(), it.ports.len())).collect();
        assert_eq!(names, [("a.1", "a", 3), ("b.1", "found", 0)]);
        assert_eq!(framework.tasks[1].addresses, ["172.17.0.2".parse::<IpAddr>().unwrap()]);
    }
}
