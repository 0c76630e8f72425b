//! What the options of a request keep.

use std::collections::BTreeSet;

use topology::{Filter, StoppedFilter, SystemFilter, View};

use super::graph::{Drawn, SERVICE};
use crate::text::{Text, is_pause_image};

/// What a request asks for besides a view.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Options {
    /// Which nodes; `None` for all of them.
    pub choice: Option<Choice>,
    /// Only the first word of commands.
    pub hide_command_arguments: bool,
    /// No tables of environment variables.
    pub hide_environment: bool,
}

/// Filters of a request that has any parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Choice {
    /// Those that the map knows, too.
    pub filter: Filter,
    /// `snapshot=hide`.
    pub hide_snapshots: bool,
    /// Those of `namespace` that exist; `None` when none was asked for that does.
    pub namespaces: Option<BTreeSet<Text>>,
}

impl Choice {
    pub(super) fn keeps(&self, view: View, node: &Drawn) -> bool {
        let filter = self.filter.of_view(view);
        if node.is_pseudo() {
            return !filter.hide_pseudo || node.is_internet() || node.id.starts_with(SERVICE);
        }
        let is_storage = || matches!(&*node.topology, "persistent_volume" | "persistent_volume_claim" | "storage_class");
        let is_snapshot = || matches!(&*node.topology, "volume_snapshot" | "volume_snapshot_data");
        filter.system.is_none_or(|wanted| (wanted == SystemFilter::Application) == is_application(node))
            && filter.stopped.is_none_or(|wanted| (wanted == StoppedFilter::Running) == is_running(node))
            && (!filter.hide_unconnected || node.connected)
            && (!filter.hide_storage || !is_storage())
            && (!self.hide_snapshots || view != View::Pods || !is_snapshot())
            && self.namespaces.as_ref().is_none_or(|wanted| !has_namespaces(view) || is_in(node, wanted))
    }
}

/// Views that look at `namespace`. Scope listed it for two more, and ignored it there.
pub(crate) fn has_namespaces(view: View) -> bool {
    matches!(view, View::Containers | View::Pods | View::KubeControllers | View::Services | View::SwarmServices)
}

fn is_in(node: &Drawn, wanted: &BTreeSet<Text>) -> bool {
    const KEYS: [&str; 5] = [
        "kubernetes_namespace",
        "docker_label_io.kubernetes.pod.namespace",
        "No stack",
        "docker_label_com.docker.stack.namespace",
        // Scope forgot where Swarm services have it, so that choosing a stack hid its services.
        "stack_namespace",
    ];
    let namespace = KEYS.iter().find_map(|key| node.value(key)).map_or("", |value| value);
    wanted.contains(namespace) || (namespace.is_empty() && wanted.contains("No stack"))
}

/// Whether a container runs. What is no container does.
pub(super) fn is_running(node: &Drawn) -> bool {
    node.value("docker_container_state").is_none_or(|state| matches!(&**state, "running" | "restarting" | "paused" | "CONTAINER_RUNNING"))
}

fn is_application(node: &Drawn) -> bool {
    const NAMES: [&str; 6] = ["weavescope", "weavedns", "weave", "weaveproxy", "weaveexec", "ecs-agent"];
    const IMAGES: [&str; 9] = [
        "swarm",
        "weaveworks/scope",
        "weaveworks/weavedns",
        "weaveworks/weave",
        "weaveworks/weaveproxy",
        "weaveworks/weaveexec",
        "amazon/amazon-ecs-agent",
        "openshift/origin-pod",
        "docker.io/openshift/origin-pod",
    ];
    let value = |key: &str| node.value(key).map_or("", |value| value);
    let image = value("docker_image_name");
    let image = image.split_once(':').map_or(image, |(name, _)| name);
    !(NAMES.contains(&value("docker_container_name"))
        || IMAGES.contains(&image)
        || is_pause_image(image)
        || value("docker_label_io.kubernetes.docker.type") == "podsandbox"
        || value("docker_label_works.weave.role") == "system"
        || value("docker_image_label_works.weave.role") == "system"
        || value("docker_label_io.kubernetes.pod.namespace") == "kube-system"
        || value("docker_label_io.kubernetes.pod.name").starts_with("kube-system/"))
}
