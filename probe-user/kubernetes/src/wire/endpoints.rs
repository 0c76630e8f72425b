//! Endpoint slices: who answers for a service, whether or not it has a selector.

use std::net::IpAddr;

use serde::Deserialize;

use super::cut::{Cut, ITEMS, TARGETS};
use super::metadata::is_uid;
use super::{Metadata, Wire};
use crate::kind::Kind;
use crate::objects::{Details, EndpointDetails, EndpointTarget, Transport, Uid};

/// The label that names the service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What is read of an endpoint slice.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointSlice {
    metadata: Metadata,
    #[serde(skip)]
    service: Option<String>,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Endpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<Conditions>,
    target_ref: Option<Target>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Target {
    kind: Option<String>,
    uid: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    port: Option<i64>,
    protocol: Option<String>,
}

impl Wire for EndpointSlice {
    type Api = k8s_openapi::api::discovery::v1::EndpointSlice;
    const KIND: Kind = Kind::EndpointSlice;

    /// Of its labels, all but one say nothing that its service does not.
    fn take_metadata(&mut self) -> Metadata {
        self.service = self.metadata.labels.take().and_then(|mut labels| labels.remove(SERVICE_NAME)).flatten();
        std::mem::take(&mut self.metadata)
    }

    fn details(self, _: &str, cut: &mut Cut) -> Details {
        let ports = cut.list(self.ports, ITEMS, |port| {
            // No number means all ports.
            let number = u16::try_from(port.port.unwrap_or(0)).ok()?;
            Some((number, transport(port.protocol.as_deref())?))
        });
        Details::Endpoints(Box::new(EndpointDetails {
            service: cut.text(self.service),
            ports: ports.into(),
            targets: cut.list(self.endpoints, TARGETS, target).into(),
        }))
    }
}

/// The API says that all addresses of an endpoint are the same thing, and that one is to be taken. Names, of slices of names, are no addresses.
fn target(endpoint: Endpoint) -> Option<EndpointTarget> {
    let address = endpoint.addresses?.first()?.parse::<IpAddr>().ok()?;
    let pod = endpoint.target_ref.filter(|target| target.kind.as_deref() == Some("Pod")).and_then(|target| target.uid);
    // Unknown is to be taken for ready.
    let ready = endpoint.conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    Some(EndpointTarget { address, ready, pod: pod.filter(|uid| is_uid(uid)).map(Uid::from) })
}

fn transport(name: Option<&str>) -> Option<Transport> {
    match name {
        None | Some("TCP" | "") => Some(Transport::Tcp),
        Some("UDP") => Some(Transport::Udp),
        Some("SCTP") => Some(Transport::Sctp),
        Some(_) => None,
    }
}
