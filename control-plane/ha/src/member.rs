//! What a control plane tells the others and the world about itself: Mesos's `MasterInfo` in JSON, with our other addresses beside.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The version of Mesos whose interfaces we have.
const MESOS_VERSION: &str = "1.11.0";

/// A control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Random per start.
    pub id: String,
    /// Name by which others reach it.
    pub host_name: String,
    /// Where its Mesos API is; clients look for this one.
    pub master: SocketAddr,
    /// Where the rest is.
    pub addresses: Addresses,
}

/// `host:port` of the listeners that others use, as they reach them; empty for those that are off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Addresses {
    /// UI, Scope's API and our own.
    pub http: String,
    /// Probes and agents.
    pub grpc: String,
    /// Marathon's API.
    pub marathon: String,
    /// Connections that other control planes carry here.
    pub replica: String,
    /// What the listener at `replica` understands; 0 where nothing is said of it. Grows by one with every addition.
    pub protocol: u32,
}

impl Member {
    /// The data of its znode.
    pub fn encode(&self) -> Vec<u8> {
        let address = self.master.ip();
        // Kept by Mesos for clients older than IPv6: the address as a number, in network byte order read by a little-endian machine.
        let number = match address {
            IpAddr::V4(address) => u32::from_le_bytes(address.octets()),
            IpAddr::V6(_) => 0,
        };
        let port = self.master.port();
        let info = json!({
            "id": self.id,
            "ip": number,
            "port": port,
            "pid": format!("master@{}", self.master),
            "hostname": self.host_name,
            "version": MESOS_VERSION,
            "address": { "ip": address.to_string(), "port": port, "hostname": self.host_name },
            "capabilities": [{ "type": "AGENT_UPDATE" }, { "type": "AGENT_DRAINING" }, { "type": "QUOTA_V2" }],
            "orchestrator": self.addresses,
        });
        info.to_string().into_bytes()
    }

    /// Reads the data of a znode; `None` when it is not one of ours or of Mesos's.
    pub fn decode(data: &[u8]) -> Option<Member> {
        let info: Value = serde_json::from_slice(data).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let address = info["address"]["ip"].as_str()?.parse::<IpAddr>().ok()?;
        let port = u16::try_from(info["address"]["port"].as_u64()?).ok()?;
        let addresses = serde_json::from_value(info["orchestrator"].clone()).unwrap_or_default();
        let host_name = text(&info["hostname"]).unwrap_or_else(|| address.to_string());
        Some(Member { id: text(&info["id"])?, host_name, master: SocketAddr::new(address, port), addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member {
            id: "one".to_owned(),
            host_name: "m1.example".to_owned(),
            master: "10.0.0.1:5050".parse().unwrap(),
            addresses: Addresses {
                http: "10.0.0.1:4040".to_owned(),
                grpc: "10.0.0.1:4041".to_owned(),
                marathon: String::new(),
                replica: "10.0.0.1:4044".to_owned(),
                protocol: 1,
            },
        }
    }

    #[test]
    fn a_member_is_what_clients_of_mesos_read() {
        let info: Value = serde_json::from_slice(&member().encode()).unwrap();
        assert_eq!(info["address"], json!({ "ip": "10.0.0.1", "port": 5050, "hostname": "m1.example" }));
        // What Mesos writes for 10.0.0.1.
        assert_eq!((&info["ip"], &info["pid"]), (&json!(16_777_226), &json!("master@10.0.0.1:5050")));
        assert_eq!(Member::decode(&member().encode()), Some(member()));
    }

    #[test]
    fn a_master_of_mesos_is_a_member_without_our_addresses_and_rubbish_is_none() {
        let theirs = json!({ "id": "x", "address": { "ip": "::1", "port": 5050 }, "unknown": [1] }).to_string();
        let member = Member::decode(theirs.as_bytes()).unwrap();
        assert_eq!((member.host_name.as_str(), member.addresses), ("::1", Addresses::default()));
        for rubbish in [&b""[..], b"null", b"{\"id\":1}", b"\xff", b"{\"id\":\"x\",\"address\":{\"ip\":\"1.2.3.4\",\"port\":70000}}"] {
            assert_eq!(Member::decode(rubbish), None);
        }
    }
}
