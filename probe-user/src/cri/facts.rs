//! CRI's words into the probe's. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use proto::cri::v1 as cri;
use proto::probe::v1::{Container, ContainerState, Image};

use super::info::{self, ImageInfo, Info};
use crate::containers::{ContainerFacts, Source, words};
use crate::mask::Masks;

/// Labels of the kubelet, which the map is drawn with.
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// The kubelet called the container that holds a pod's namespaces so when Docker ran it, and marked it with this label.
const SANDBOX_NAME: &str = "POD";
const SANDBOX_LABEL: (&str, &str) = ("io.kubernetes.docker.type", "podsandbox");

/// Annotations of the kubelet.
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const PORTS: &str = "io.kubernetes.container.ports";

/// CRI's word for a container that the kernel ended because memory ran out.
const OOM_KILLED: &str = "OOMKilled";

/// Most addresses of one pod.
const ADDRESSES_MAX: usize = 64;

/// How containers are told.
#[derive(Clone, Debug)]
pub struct Telling {
    /// Who tells.
    pub source: Source,
    /// The runtime's name.
    pub runtime: String,
    /// Whether environments are told.
    pub environment: bool,
    /// Which secrets are hidden.
    pub masks: Masks,
}

/// What the containers of a pod have from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Its id.
    pub id: String,
    /// Its name, namespace and uid.
    pub metadata: (String, String, String),
    /// Of its network; none in the host's network.
    pub addresses: Vec<String>,
    /// Whether it is in the host's network.
    pub host_network: bool,
    /// Inside its containers.
    pub hostname: String,
    /// Whether its own container runs.
    pub ready: bool,
    /// Whether only a list told of it: then nothing is known of its network.
    pub outlined: bool,
}

/// An image as a runtime names it: what to ask the runtime for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageName(pub String);

/// A pod, and the container that holds its namespaces: `None` where there is none, as CRI-O can do without.
pub fn pod(answer: cri::PodSandboxStatusResponse, telling: &Telling) -> Option<(Pod, Option<(ContainerFacts, ImageName)>)> {
    let info: Info = info::parse(&answer.info);
    let status = answer.status?;
    let metadata = status.metadata.unwrap_or_default();
    let options = status.linux.and_then(|it| it.namespaces).and_then(|it| it.options).unwrap_or_default();
    let host_network = options.network() == cri::NamespaceMode::Node;
    let network = status.network.unwrap_or_default();
    let addresses: BTreeSet<IpAddr> = std::iter::once(network.ip)
        .chain(network.additional_ips.into_iter().map(|it| it.ip))
        .filter_map(|it| it.parse().ok())
        .filter(|_| !host_network)
        .take(ADDRESSES_MAX)
        .collect();
    let pod = Pod {
        id: words::id(&status.id)?,
        metadata: (words::name(&metadata.name), words::name(&metadata.namespace), words::name(&metadata.uid)),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        host_network,
        hostname: words::name(&info.runtime_spec.hostname),
        ready: is_ready(status.state),
        outlined: false,
    };
    let created_at_unix_nanos = words::nanos(status.created_at);
    let pid = pid(info.pid, pod.ready);
    let mut labels = status.labels;
    labels.insert(CONTAINER_NAME.to_owned(), SANDBOX_NAME.to_owned());
    labels.insert(SANDBOX_LABEL.0.to_owned(), SANDBOX_LABEL.1.to_owned());
    add_pod_labels(&mut labels, &pod);
    let record = Container {
        id: pod.id.clone(),
        name: pod.metadata.0.clone(),
        image_name: words::name(&info.image),
        command: words::command(&telling.masks, info.runtime_spec.process.args.iter().map(String::as_str)),
        state: if pod.ready { ContainerState::Running } else { ContainerState::Exited }.into(),
        created_at_unix_nanos,
        started_at_unix_nanos: created_at_unix_nanos,
        hostname: pod.hostname.clone(),
        labels: words::labels(&telling.masks, labels),
        addresses: pod.addresses.clone(),
        pid,
        network_mode: if host_network { "host".to_owned() } else { String::new() },
        runtime: telling.runtime.clone(),
        ..Container::default()
    };
    let has_container = pid != 0 || !pod.ready;
    let facts = ContainerFacts { source: telling.source, record, finished_at_unix_nanos: 0 };
    Some((pod, has_container.then_some((facts, ImageName(info.image)))))
}

/// A pod as a list has it, of which the runtime tells no more now; `None` without a usable id.
pub fn listed_pod(listed: cri::PodSandbox) -> Option<Pod> {
    let metadata = listed.metadata.unwrap_or_default();
    Some(Pod {
        id: words::id(&listed.id)?,
        metadata: (words::name(&metadata.name), words::name(&metadata.namespace), words::name(&metadata.uid)),
        ready: is_ready(listed.state),
        outlined: true,
        ..Pod::default()
    })
}

/// A container as a list has it, of which the runtime tells no more now; `None` without a usable id.
pub fn listed(listed: cri::Container, pod: Option<&Pod>, telling: &Telling) -> Option<ContainerFacts> {
    let metadata = listed.metadata.unwrap_or_default();
    let image_name = listed.image.unwrap_or_default().image;
    let image = [listed.image_id, listed.image_ref, image_name.clone()].into_iter().find(|it| !it.is_empty()).unwrap_or_default();
    let mut labels = listed.labels;
    if !metadata.name.is_empty() {
        labels.entry(CONTAINER_NAME.to_owned()).or_insert_with(|| metadata.name.clone());
    }
    if let Some(pod) = pod {
        add_pod_labels(&mut labels, pod);
    }
    let restarts = listed.annotations.get(RESTART_COUNT).and_then(|it| it.parse().ok());
    let record = Container {
        id: words::id(&listed.id)?,
        name: words::name(&metadata.name),
        image_id: words::name(words::without_algorithm(&image)),
        image_name: words::name(&image_name),
        state: state_of(listed.state).into(),
        created_at_unix_nanos: words::nanos(listed.created_at),
        restart_count: restarts.unwrap_or(metadata.attempt),
        labels: words::labels(&telling.masks, labels),
        addresses: pod.map(|pod| pod.addresses.clone()).unwrap_or_default(),
        ports: listed.annotations.get(PORTS).map(|it| info::ports(it)).unwrap_or_default(),
        runtime: telling.runtime.clone(),
        ..Container::default()
    };
    Some(ContainerFacts { source: telling.source, record, finished_at_unix_nanos: 0 })
}

/// Which pod a container is in, if the runtime says so.
pub fn pod_of(answer: &cri::ContainerStatusResponse) -> Option<String> {
    let info: Info = info::parse(&answer.info);
    words::id(&info.sandbox_id)
}

/// A container; `None` without a usable id.
pub fn container(answer: cri::ContainerStatusResponse, pod: Option<&Pod>, telling: &Telling) -> Option<(ContainerFacts, ImageName)> {
    let info: Info = info::parse(&answer.info);
    let status = answer.status?;
    let metadata = status.metadata.unwrap_or_default();
    let state = state_of(status.state);
    let process = &info.runtime_spec.process;
    let mut labels = status.labels;
    if !metadata.name.is_empty() {
        labels.entry(CONTAINER_NAME.to_owned()).or_insert_with(|| metadata.name.clone());
    }
    if let Some(pod) = pod {
        add_pod_labels(&mut labels, pod);
    }
    let image_name = status.image.unwrap_or_default().image;
    let image = [status.image_id, status.image_ref, image_name.clone()].into_iter().find(|it| !it.is_empty()).unwrap_or_default();
    let restarts = status.annotations.get(RESTART_COUNT).and_then(|it| it.parse().ok());
    let record = Container {
        id: words::id(&status.id)?,
        name: words::name(&metadata.name),
        // The runtime's answer about the image replaces it, if it has one.
        image_id: words::name(words::without_algorithm(&image)),
        image_name: words::name(&image_name),
        command: words::command(&telling.masks, process.args.iter().map(String::as_str)),
        state: state.into(),
        created_at_unix_nanos: words::nanos(status.created_at),
        started_at_unix_nanos: words::nanos(status.started_at),
        restart_count: restarts.unwrap_or(metadata.attempt),
        hostname: match words::name(&info.runtime_spec.hostname) {
            it if it.is_empty() => pod.map(|pod| pod.hostname.clone()).unwrap_or_default(),
            it => it,
        },
        labels: words::labels(&telling.masks, labels),
        environment: if telling.environment {
            words::environment(&telling.masks, process.env.iter().map(String::as_str))
        } else {
            HashMap::new()
        },
        addresses: pod.map(|pod| pod.addresses.clone()).unwrap_or_default(),
        ports: status.annotations.get(PORTS).map(|it| info::ports(it)).unwrap_or_default(),
        pid: pid(info.pid, state == ContainerState::Running),
        network_mode: match pod {
            Some(pod) if pod.outlined => String::new(),
            Some(pod) if pod.host_network => "host".to_owned(),
            Some(pod) => format!("container:{}", pod.id),
            None => String::new(),
        },
        runtime: telling.runtime.clone(),
        exit_code: status.exit_code,
        oom_killed: status.reason == OOM_KILLED,
        ..Container::default()
    };
    let finished_at_unix_nanos = words::nanos(status.finished_at);
    Some((ContainerFacts { source: telling.source, record, finished_at_unix_nanos }, ImageName(image)))
}

/// An image; `None` when there is no such image any more.
pub fn image(answer: cri::ImageStatusResponse, masks: &Masks) -> Option<Image> {
    let info: ImageInfo = info::parse(&answer.info);
    let image = answer.image?;
    Some(Image {
        id: words::id(words::without_algorithm(&image.id))?,
        name: image.repo_tags.first().or(image.repo_digests.first()).map(|it| words::name(it)).unwrap_or_default(),
        size_bytes: image.size,
        virtual_size_bytes: image.size,
        labels: words::labels(masks, info.image_spec.config.labels.unwrap_or_default()),
    })
}

/// The runtime's own name; of a few, as this platform writes them.
pub fn runtime_name(version: &cri::VersionResponse) -> String {
    match words::name(&version.runtime_name).to_ascii_lowercase() {
        name if name == "crio" => "cri-o".to_owned(),
        name if name.is_empty() => "cri".to_owned(),
        name => name,
    }
}

/// Whether the stream of events can be read without taking events from the kubelet: containerd before its second version gives each event to
/// one of its readers alone.
pub fn shares_events(version: &cri::VersionResponse) -> bool {
    let major = version.runtime_version.trim_start_matches('v').split('.').next().and_then(|it| it.parse::<u32>().ok());
    match version.runtime_name.as_str() {
        "containerd" => major.is_some_and(|major| major >= 2),
        name => name == "cri-o",
    }
}

fn add_pod_labels(labels: &mut HashMap<String, String>, pod: &Pod) {
    let (name, namespace, uid) = &pod.metadata;
    for (key, value) in [(POD_NAME, name), (POD_NAMESPACE, namespace), (POD_UID, uid)] {
        if !value.is_empty() {
            labels.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
    }
}

fn is_ready(state: i32) -> bool {
    cri::PodSandboxState::try_from(state) == Ok(cri::PodSandboxState::SandboxReady)
}

fn state_of(state: i32) -> ContainerState {
    match cri::ContainerState::try_from(state) {
        Ok(cri::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(cri::ContainerState::ContainerRunning) => ContainerState::Running,
        Ok(cri::ContainerState::ContainerExited) => ContainerState::Exited,
        // The runtime lost track of it.
        Ok(cri::ContainerState::ContainerUnknown) | Err(_) => ContainerState::Dead,
    }
}

fn pid(pid: i64, runs: bool) -> u32 {
    u32::try_from(pid).ok().filter(|_| runs).unwrap_or(0)
}

#[cfg(test)]
mod tests;
