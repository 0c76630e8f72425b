//! Machines and namespaces.

use serde::Deserialize;

use super::cut::{Cut, ITEMS};
use super::pod::Condition;
use super::{Metadata, Wire};
use crate::kind::Kind;
use crate::objects::{Details, NodeDetails};

/// What is read of a machine.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    unschedulable: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    r#type: String,
    address: String,
}

impl Wire for Node {
    type Api = k8s_openapi::api::core::v1::Node;
    const KIND: Kind = Kind::Node;

    fn take_metadata(&mut self) -> Metadata {
        std::mem::take(&mut self.metadata)
    }

    fn details(self, _: &str, cut: &mut Cut) -> Details {
        let status = self.status.unwrap_or_default();
        let unschedulable = self.spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        let state = state(status.conditions.as_deref().unwrap_or_default(), unschedulable);
        let all = cut.list(status.addresses, ITEMS, Some);
        let of = |kind: &str| all.iter().filter(|one| one.r#type == kind).map(|one| Some(one.address.clone())).collect::<Vec<_>>();
        Details::Node(Box::new(NodeDetails {
            state: cut.text(Some(state)),
            addresses: cut.addresses(of("InternalIP")),
            public_addresses: cut.addresses(of("ExternalIP")),
        }))
    }
}

/// As kubectl shows it. A condition says when it was last looked at, too; that is not kept, or every heartbeat would be a change.
fn state(conditions: &[Condition], unschedulable: bool) -> String {
    let ready = conditions.iter().find(|one| one.r#type == "Ready").map(|one| one.status.as_str());
    let pressed = conditions.iter().filter(|one| one.r#type.ends_with("Pressure") && one.status == "True").map(|one| one.r#type.as_str());
    let ready = match ready {
        Some("True") => "Ready",
        // "Unknown": the node has stopped to say how it is, which kubectl calls not ready as well.
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let words = [ready].into_iter().chain(unschedulable.then_some("SchedulingDisabled")).chain(pressed);
    words.collect::<Vec<_>>().join(",")
}

/// What is read of a namespace.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    metadata: Metadata,
    status: Option<Phase>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Phase {
    phase: Option<String>,
}

impl Wire for Namespace {
    type Api = k8s_openapi::api::core::v1::Namespace;
    const KIND: Kind = Kind::Namespace;

    fn take_metadata(&mut self) -> Metadata {
        std::mem::take(&mut self.metadata)
    }

    fn details(self, _: &str, cut: &mut Cut) -> Details {
        Details::Namespace(cut.text(self.status.and_then(|status| status.phase)))
    }
}
