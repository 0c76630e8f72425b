//! Pods.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::cut::{Cut, ITEMS};
use super::{Metadata, Wire, pod_state};
use crate::kind::Kind;
use crate::objects::{Details, PodDetails};

/// What is read of a pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    metadata: Metadata,
    #[serde(skip)]
    terminating: bool,
    spec: Spec,
    status: Option<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    host_network: Option<bool>,
    volumes: Option<Vec<Volume>>,
    init_containers: Option<Vec<InitContainer>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Volume {
    name: String,
    persistent_volume_claim: Option<Claim>,
    ephemeral: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Claim {
    claim_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct InitContainer {
    pub(super) name: String,
    /// "Always" makes it a sidecar.
    pub(super) restart_policy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) phase: Option<String>,
    pub(super) reason: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    pub(super) conditions: Option<Vec<Condition>>,
    pub(super) init_container_statuses: Option<Vec<ContainerStatus>>,
    pub(super) container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    pub(super) r#type: String,
    pub(super) status: String,
    pub(super) reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    pub(super) ready: bool,
    pub(super) started: Option<bool>,
    pub(super) restart_count: i64,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    pub(super) state: Option<ContainerState>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerState {
    pub(super) waiting: Option<Waiting>,
    pub(super) running: Option<IgnoredAny>,
    pub(super) terminated: Option<Terminated>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Waiting {
    pub(super) reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Terminated {
    pub(super) reason: Option<String>,
    pub(super) exit_code: i64,
    pub(super) signal: Option<i64>,
}

impl Wire for Pod {
    type Api = k8s_openapi::api::core::v1::Pod;
    const KIND: Kind = Kind::Pod;

    fn take_metadata(&mut self) -> Metadata {
        self.terminating = self.metadata.is_terminating();
        std::mem::take(&mut self.metadata)
    }

    fn details(self, name: &str, cut: &mut Cut) -> Details {
        let Spec { node_name, host_network, volumes, init_containers } = self.spec;
        let mut status = self.status.unwrap_or_default();
        let seen = pod_state::of(&status, &init_containers.unwrap_or_default(), self.terminating);
        let claims = cut.list(volumes, ITEMS, |volume| match (volume.persistent_volume_claim, volume.ephemeral) {
            (Some(claim), _) => claim.claim_name,
            // The claim that the control plane makes for an ephemeral volume has this name, by its contract.
            (None, Some(_)) => Some(format!("{name}-{}", volume.name)),
            (None, None) => None,
        });
        Details::Pod(Box::new(PodDetails {
            state: cut.text(Some(seen.state)),
            addresses: addresses(status.pod_ip.take(), status.pod_ips.take(), cut),
            node_name: cut.text(node_name),
            host_network: host_network.unwrap_or(false),
            restart_count: seen.restarts,
            claims: cut.texts(claims.into_iter().collect::<BTreeSet<_>>().into_iter().map(Some)),
            container_ids: container_ids(status, cut),
        }))
    }
}

/// The first address is `podIP`; the list has it once more.
fn addresses(first: Option<String>, all: Option<Vec<PodIp>>, cut: &mut Cut) -> Vec<Box<str>> {
    let others = all.unwrap_or_default().into_iter().map(|one| one.ip).filter(|ip| *ip != first).collect::<Vec<_>>();
    cut.addresses(std::iter::once(first).chain(others))
}

/// In the order of the API: containers, init containers, ephemeral containers. Those that were never started have no id.
fn container_ids(status: Status, cut: &mut Cut) -> Vec<Box<str>> {
    let groups = [status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses];
    cut.ids(groups.into_iter().flatten().flatten().map(|container| {
        let id = container.container_id?;
        Some(id.split_once("://").map(|(_, id)| id.to_owned()).unwrap_or(id))
    }))
}
