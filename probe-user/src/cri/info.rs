//! What runtimes add to their answers in JSON of their own, when they are asked to be verbose. containerd and CRI-O have these words in common;
//! what is missing or of another shape is unknown. Pure.

use std::collections::HashMap;

use proto::probe::v1::PortMapping;
use serde::Deserialize;

/// Largest text that is read: a specification of a container has some ten kilobytes.
const JSON_MAX: usize = 1024 * 1024;

/// Key of the whole in the answers of both runtimes.
const KEY: &str = "info";

/// Most ports of one container.
const PORTS_MAX: usize = 256;

/// Of a container or of a pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Info {
    /// Pid of its first process; 0 or negative without one.
    pub(super) pid: i64,
    /// The pod of a container.
    #[serde(rename = "sandboxID")]
    pub(super) sandbox_id: String,
    /// Image of a pod's own container.
    pub(super) image: String,
    pub(super) runtime_spec: RuntimeSpec,
}

/// The part of an OCI runtime specification that is told.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RuntimeSpec {
    pub(super) hostname: String,
    pub(super) process: Process,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Process {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
}

/// Of an image.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ImageInfo {
    pub(super) image_spec: ImageSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ImageSpec {
    pub(super) config: ImageConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ImageConfig {
    #[serde(rename = "Labels")]
    pub(super) labels: Option<HashMap<String, String>>,
}

/// A port in the kubelet's annotation of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KubeletPort {
    container_port: u16,
    host_port: u16,
    #[serde(rename = "hostIP")]
    host_ip: String,
    protocol: String,
}

/// What an answer adds; nothing, when it adds nothing or what is not understood.
pub(super) fn parse<T: Default + for<'a> Deserialize<'a>>(info: &HashMap<String, String>) -> T {
    info.get(KEY).filter(|it| it.len() <= JSON_MAX).and_then(|it| serde_json::from_str(it).ok()).unwrap_or_default()
}

/// The ports that the kubelet writes into `io.kubernetes.container.ports`.
pub(super) fn ports(annotation: &str) -> Vec<PortMapping> {
    if annotation.len() > JSON_MAX {
        return Vec::new();
    }
    let ports: Vec<KubeletPort> = serde_json::from_str(annotation).unwrap_or_default();
    let mapping = |port: KubeletPort| {
        let protocol = match port.protocol.as_str() {
            "UDP" => "udp",
            "SCTP" => "sctp",
            _ => "tcp",
        };
        let published = port.host_port != 0;
        let address = if port.host_ip.parse::<std::net::IpAddr>().is_ok() { port.host_ip } else { "0.0.0.0".to_owned() };
        PortMapping {
            container_port: port.container_port.into(),
            protocol: protocol.to_owned(),
            host_address: if published { address } else { String::new() },
            host_port: port.host_port.into(),
        }
    };
    ports.into_iter().filter(|port| port.container_port != 0).take(PORTS_MAX).map(mapping).collect()
}
