//! The receiver's side: what it has been told, and objects as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use probe_kubernetes::index::Changes;
use proto::probe::v1::KubernetesObject;

/// What is told at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Batch {
    pub changed: Vec<KubernetesObject>,
    pub gone: Vec<String>,
    /// With this the receiver has everything.
    pub synced: bool,
}

impl From<Changes> for Batch {
    fn from(changes: Changes) -> Self {
        Self { changed: changes.changed, gone: changes.gone, synced: false }
    }
}

/// What a receiver knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Picture {
    pub objects: BTreeMap<String, KubernetesObject>,
    pub synced: bool,
    /// Every id that it was ever told was gone.
    pub ever_gone: Vec<String>,
}

impl Picture {
    pub(crate) fn apply(&mut self, batch: Batch) {
        for uid in &batch.gone {
            assert!(self.objects.remove(uid).is_some(), "told that {uid} is gone, of which nothing was told");
            assert!(batch.changed.iter().all(|object| object.uid != *uid), "{uid} is gone and changed at once");
        }
        self.ever_gone.extend(batch.gone);
        self.objects.extend(batch.changed.into_iter().map(|object| (object.uid.clone(), object)));
        self.synced = batch.synced;
    }

    pub(crate) fn parents(&self, uid: &str) -> Option<&[String]> {
        self.objects.get(uid).map(|object| object.parents.as_slice())
    }
}

/// By uid.
pub(crate) fn by_uid(objects: impl IntoIterator<Item = KubernetesObject>) -> BTreeMap<String, KubernetesObject> {
    objects.into_iter().map(|object| (object.uid.clone(), object)).collect()
}

/// What is set of an object, one field a line.
pub(crate) fn shown(object: &KubernetesObject) -> String {
    let labels = object.labels.iter().collect::<BTreeMap<_, _>>();
    let labels = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    let mut text = format!("{:?} {} ({})\n", object.kind(), object.name, object.uid);
    let mut line = |name: &str, value: String| {
        if !matches!(value.as_str(), "" | "0" | "false") {
            writeln!(text, "  {name}: {value}").expect("a string takes it");
        }
    };
    line("namespace", object.namespace.clone());
    line("created", object.created_at_unix_nanos.to_string());
    line("labels", labels.join(" "));
    line("parents", object.parents.join(" "));
    line("state", object.state.clone());
    line("addresses", object.addresses.join(" "));
    line("public", object.public_addresses.join(" "));
    line("node", object.node_name.clone());
    line("host network", object.host_network.to_string());
    line("restarts", object.restart_count.to_string());
    line("type", object.r#type.clone());
    line("ports", object.ports.join(","));
    line("generation", object.observed_generation.to_string());
    line("desired", object.desired_replicas.to_string());
    line("strategy", object.strategy.clone());
    line("schedule", object.schedule.clone());
    line("last scheduled", object.last_scheduled_unix_nanos.to_string());
    line("suspended", object.suspended.to_string());
    line("active", object.active_jobs.to_string());
    line("status", object.status.clone());
    line("class", object.storage_class.clone());
    line("driver", object.storage_driver.clone());
    line("capacity", object.capacity.clone());
    line("modes", object.access_modes.join(" "));
    line("volumes", object.volume_names.join(" "));
    line("containers", object.container_ids.join(" "));
    let shown = object.endpoints.iter().map(|it| {
        let ready = if it.ready { "" } else { " not ready" };
        format!("{}:{}/{} {}{ready}", it.address, it.port, it.protocol, it.target_uid)
    });
    line("endpoints", shown.collect::<Vec<_>>().join(", "));
    text
}
