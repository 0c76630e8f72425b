//! Services.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::cut::{Cut, ITEMS, TERMS};
use super::{Metadata, Wire};
use crate::kind::Kind;
use crate::objects::{Details, ServiceDetails};
use crate::selector::{Expression, Selector};

/// What is read of a service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    metadata: Metadata,
    spec: Spec,
    status: Option<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    r#type: Option<String>,
    selector: Option<BTreeMap<String, String>>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Option<String>,
    external_name: Option<String>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Port {
    port: i64,
    node_port: Option<i64>,
    protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    load_balancer: Option<LoadBalancer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ingress {
    ip: Option<String>,
    hostname: Option<String>,
}

impl Wire for Service {
    type Api = k8s_openapi::api::core::v1::Service;
    const KIND: Kind = Kind::Service;

    fn take_metadata(&mut self) -> Metadata {
        std::mem::take(&mut self.metadata)
    }

    /// A service without a selector selects nothing: its endpoints are somebody else's.
    fn selector(&mut self, cut: &mut Cut) -> Option<Selector> {
        let pairs = self.spec.selector.take().filter(|pairs| !pairs.is_empty())?;
        if pairs.len() > TERMS {
            cut.happened = true;
            return None;
        }
        Some(Selector::new(pairs, [] as [Expression; 0]))
    }

    fn details(self, _: &str, cut: &mut Cut) -> Details {
        let spec = self.spec;
        Details::Service(Box::new(ServiceDetails {
            kind: cut.text(Some(spec.r#type.unwrap_or_else(|| "ClusterIP".to_owned()))),
            addresses: cluster_addresses(spec.cluster_ip, spec.cluster_ips, cut),
            public_addresses: {
                let given = self.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress).unwrap_or_default();
                let given =
                    given.into_iter().filter_map(|ingress| ingress.ip.filter(|ip| !ip.is_empty()).or(ingress.hostname)).collect::<Vec<_>>();
                // What was asked for counts until something is given.
                let asked = if given.is_empty() { spec.load_balancer_ip } else { None };
                let others = spec.external_ips.unwrap_or_default();
                let name = spec.external_name;
                cut.texts(given.into_iter().chain(others).map(Some).chain([asked, name]))
            },
            ports: cut.list(spec.ports, ITEMS, |port| Some(port.shown().into())),
        }))
    }
}

impl Port {
    /// As kubectl lists it.
    fn shown(&self) -> String {
        let protocol = super::shortened(self.protocol.as_deref().unwrap_or("TCP"), 16);
        match self.node_port.filter(|&port| port != 0) {
            Some(node_port) => format!("{}:{node_port}/{protocol}", self.port),
            None => format!("{}/{protocol}", self.port),
        }
    }
}

/// The first address is `clusterIP`; the list has it once more. "None" is a headless service's.
fn cluster_addresses(first: Option<String>, all: Option<Vec<String>>, cut: &mut Cut) -> Vec<Box<str>> {
    let others = all.unwrap_or_default().into_iter().filter(|ip| Some(ip) != first.as_ref()).map(Some).collect::<Vec<_>>();
    cut.addresses(std::iter::once(first).chain(others).filter(|ip| ip.as_deref() != Some("None")))
}
