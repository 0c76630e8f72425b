//! Settings that Mesos's flags have as JSON. Pure.

use std::collections::BTreeSet;

use mesos_proto::v1::CapabilityInfo;
use serde::Deserialize;

/// Names that containers of Docker look up, where their framework says nothing of it: one entry of `--default_container_dns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerDns {
    /// In which kind of network, and in which network of the user's, where it is for one alone.
    pub network: DnsNetwork,
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// Domains in which short names are looked up.
    pub search: Vec<String>,
    /// Options of the resolver, as resolv.conf(5) has them.
    pub options: Vec<String>,
}

/// A kind of network of Docker's containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsNetwork {
    /// Docker's own bridge.
    Bridge,
    /// A network of the user's: one, or all.
    User(Option<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DnsFlag {
    #[serde(default)]
    mesos: Vec<serde_json::Value>,
    #[serde(default)]
    docker: Vec<DnsEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DnsEntry {
    network_mode: String,
    network_name: Option<String>,
    dns: DnsServers,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DnsServers {
    #[serde(default)]
    nameservers: Vec<String>,
    domain: Option<String>,
    #[serde(default)]
    search: Vec<String>,
    #[serde(default)]
    options: Vec<String>,
}

/// What an object says. A list of values would do for `serde` as well, and means nothing here.
fn object<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    serde_json::from_value(value.into()).map_err(|error| error.to_string())
}

/// `--default_container_dns`: `{"docker": [{"network_mode": "BRIDGE", "dns": {"nameservers": ["10.0.0.2"]}}]}`.
///
/// # Errors
/// When it is something else, or about networks that there are not.
pub fn container_dns(text: &str) -> Result<Vec<ContainerDns>, String> {
    let flag: DnsFlag = object(text)?;
    if !flag.mesos.is_empty() {
        return Err("\"mesos\" is about CNI networks, of which there are none".to_owned());
    }
    let mut all: Vec<ContainerDns> = Vec::new();
    for entry in flag.docker {
        let network = match (entry.network_mode.as_str(), entry.network_name) {
            ("BRIDGE", None) => DnsNetwork::Bridge,
            ("USER", name) => DnsNetwork::User(name),
            ("BRIDGE", Some(_)) => return Err("BRIDGE has no network_name".to_owned()),
            (other, _) => return Err(format!("the network_mode {other:?} is neither BRIDGE nor USER")),
        };
        if all.iter().any(|it| it.network == network) {
            return Err("two entries are about the same network".to_owned());
        }
        let DnsServers { nameservers, domain, search, options } = entry.dns;
        if let Some(wrong) = nameservers.iter().find(|it| it.parse::<std::net::IpAddr>().is_err()) {
            return Err(format!("the name server {wrong:?} is no address"));
        }
        // A domain of one's own is the first of those that are searched.
        all.push(ContainerDns { network, nameservers, search: domain.into_iter().chain(search).collect(), options });
    }
    Ok(all)
}

/// `--effective_capabilities` and `--bounding_capabilities`: `{"capabilities": ["NET_RAW", "SYS_PTRACE"]}`.
///
/// # Errors
/// When it is something else.
pub fn capabilities(text: &str) -> Result<CapabilityInfo, String> {
    let found: CapabilityInfo = mesos_proto::json::from_slice(text.as_bytes()).map_err(|error| error.to_string())?;
    // What no name of a capability is, is left out by the mapping.
    let named = serde_json::from_str::<serde_json::Value>(text).ok().and_then(|it| Some(it.get("capabilities")?.as_array()?.len()));
    if named == Some(found.capabilities.len()) {
        Ok(found)
    } else {
        Err("not an object with a list of \"capabilities\" by their names".to_owned())
    }
}

/// `--firewall_rules`: `{"disabled_endpoints": {"paths": ["/files/browse"]}}`. The paths.
///
/// # Errors
/// When it is something else: it would disable nothing.
pub fn disabled_endpoints(text: &str) -> Result<BTreeSet<String>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rules {
        disabled_endpoints: Option<Paths>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Paths {
        paths: BTreeSet<String>,
    }
    let rules: Rules = object(text)?;
    Ok(rules.disabled_endpoints.map(|it| it.paths).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_by_kind_of_network() {
        let text = r#"{"docker": [
            {"network_mode": "BRIDGE", "dns": {"nameservers": ["10.0.0.2"], "domain": "a", "search": ["b"], "options": ["ndots:2"]}},
            {"network_mode": "USER", "network_name": "blue", "dns": {"nameservers": ["fd00::1"]}}
        ]}"#;
        let all = container_dns(text).unwrap();
        assert_eq!(all[0].search, ["a", "b"]);
        assert_eq!(all[1].network, DnsNetwork::User(Some("blue".to_owned())));
        for wrong in [
            "[]",
            r#"{"mesos": [{"network_mode": "CNI"}]}"#,
            r#"{"docker": [{"network_mode": "HOST", "dns": {}}]}"#,
            r#"{"docker": [{"network_mode": "BRIDGE", "dns": {"nameservers": ["dns"]}}]}"#,
            r#"{"docker": [{"network_mode": "BRIDGE", "dns": {}}, {"network_mode": "BRIDGE", "dns": {}}]}"#,
        ] {
            container_dns(wrong).unwrap_err();
        }
    }

    #[test]
    fn capabilities_are_named_as_mesos_names_them() {
        assert_eq!(capabilities(r#"{"capabilities": ["NET_RAW", "CHOWN"]}"#).unwrap().capabilities, [1013, 1000]);
        assert_eq!(capabilities(r#"{"capabilities": []}"#).unwrap().capabilities, [0; 0]);
        for wrong in ["{}", "[]", r#"{"capabilities": ["CAP_CHOWN"]}"#, r#"{"capabilities": "NOTHING"}"#] {
            capabilities(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_firewall_that_would_disable_nothing_is_a_mistake() {
        let paths = disabled_endpoints(r#"{"disabled_endpoints": {"paths": ["/files/browse", "/state"]}}"#).unwrap();
        assert_eq!(paths.into_iter().collect::<Vec<_>>(), ["/files/browse", "/state"]);
        assert!(disabled_endpoints("{}").unwrap().is_empty());
        for wrong in ["[]", "x", r#"{"disabled": {}}"#, r#"{"disabled_endpoints": {}}"#, r#"{"disabled_endpoints": {"paths": [1]}}"#] {
            disabled_endpoints(wrong).unwrap_err();
        }
    }
}
