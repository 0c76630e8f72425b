//! What a definition must be beyond its form. The messages are Marathon's own where clients show or look for them.

mod app;
mod pod;

use std::collections::BTreeSet;

use crate::constraints::{Pattern, Unfit};
use crate::id::PathId;
use crate::model::container::{DiskKind, LinuxInfo, PersistentVolume, VolumeKind};
use crate::model::spec::Spec;
use crate::model::{
    Constraint, Environment, Labels, Limit, Network, NetworkMode, Operator, ResourceLimits, ResourceNeeds, UnreachableStrategy,
    UpgradeStrategy,
};
use crate::root::Root;
use crate::scheduler::words::{Config, Violation};

/// Most problems that are listed.
const VIOLATIONS_MAX: usize = 200;

/// Everything that is wrong with a definition by itself.
pub(crate) fn spec(spec: &Spec, config: &Config) -> Vec<Violation> {
    let mut all = Problems::default();
    if let Some(problem) = spec.id().problem() {
        all.add("/id", problem);
    }
    match spec {
        Spec::App(definition) => app::check(definition, config, &mut all),
        Spec::Pod(definition) => pod::check(definition, config, &mut all),
    }
    all.found.truncate(VIOLATIONS_MAX);
    all.found
}

/// Problems as they are found.
#[derive(Debug, Default)]
struct Problems {
    found: Vec<Violation>,
}

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.found.push(Violation::new(path, message));
    }

    fn need(&mut self, holds: bool, path: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.add(path, message);
        }
    }

    fn feature(&mut self, config: &Config, name: &str, path: &str) {
        if !config.features.contains(name) {
            self.add(path, format!("Feature {name} is not enabled. Enable with --enable_features {name})"));
        }
    }
}

fn constraints(constraints: &[Constraint], path: &str, all: &mut Problems) {
    for (at, constraint) in constraints.iter().enumerate() {
        let path = format!("{path}({at})");
        let value = constraint.value.as_deref();
        match constraint.operator {
            Operator::Unique => all.need(value.is_none_or(str::is_empty), path, "UNIQUE does not accept a value"),
            Operator::MaxPer => all.need(value.is_some_and(|it| it.parse::<u32>().is_ok()), path, "MAX_PER requires an integer value"),
            Operator::GroupBy => all.need(
                value.is_none_or(|it| it.is_empty() || it.parse::<u32>().is_ok()),
                path,
                "GROUP BY must define an integer value or else no value at all",
            ),
            Operator::Like | Operator::Unlike => match value.filter(|it| !it.is_empty()) {
                None => all.add(path, "LIKE and UNLIKE require a non-empty, regular expression value"),
                Some(pattern) => match Pattern::whole(pattern) {
                    Ok(_) => {}
                    Err(Unfit::Malformed) => all.add(path, format!("'{pattern}' is not a valid regular expression")),
                    Err(Unfit::TooLarge) => all.add(path, "The regular expression is too large: it would take too much memory"),
                },
            },
            Operator::Is => {
                let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_/.-".contains(&byte);
                all.need(
                    value.is_some_and(|it| it.bytes().all(good)),
                    path,
                    "IS values must fully match regular expression '^[a-zA-Z0-9_/.-]*$'",
                );
            }
            Operator::Cluster => {}
        }
    }
}

fn networks(networks: &[Network], path: &str, all: &mut Problems) {
    let count = |mode| networks.iter().filter(|it| it.mode == mode).count();
    let (hosts, bridges, containers) = (count(NetworkMode::Host), count(NetworkMode::Bridge), count(NetworkMode::Container));
    let kinds = usize::from(hosts > 0) + usize::from(bridges > 0) + usize::from(containers > 0);
    all.need(
        kinds <= 1 && hosts <= 1 && bridges <= 1,
        path,
        "May specify a single host network, single bridge network, or else 1-to-n container networks",
    );
    let mut seen = BTreeSet::new();
    for (at, network) in networks.iter().enumerate() {
        let here = format!("{path}({at})");
        match network.mode {
            NetworkMode::Host => {
                all.need(network.name.is_none() && network.labels.is_empty(), here, "Host networks may not have names or labels");
            }
            NetworkMode::Bridge => all.need(network.name.is_none(), here, "Bridge networks may not have names"),
            NetworkMode::Container => {
                let name = network.name.as_deref().unwrap_or_default();
                all.need(!name.is_empty(), here, "Network name must be specified when container network is selected.");
                all.need(seen.insert(name.to_owned()), path, "Duplicate networks are not allowed");
            }
        }
    }
}

fn upgrade_strategy(strategy: UpgradeStrategy, all: &mut Problems, path: &str) {
    for (name, value) in
        [("minimumHealthCapacity", strategy.minimum_health_capacity), ("maximumOverCapacity", strategy.maximum_over_capacity)]
    {
        all.need((0.0..=1.0).contains(&value), format!("{path}/{name}"), format!("got {value:?}, expected between 0.0 and 1.0"));
    }
}

fn unreachable(strategy: UnreachableStrategy, all: &mut Problems, path: &str) {
    if let UnreachableStrategy::Enabled { inactive_after_seconds: inactive, expunge_after_seconds: expunge } = strategy {
        all.need(
            inactive <= expunge,
            path,
            format!("inactiveAfterSeconds ({inactive}) must be less or equal to expungeAfterSeconds, which is {expunge}"),
        );
    }
}

fn limits(limits: Option<ResourceLimits>, needs: ResourceNeeds, path: &str, all: &mut Problems) {
    let Some(limits) = limits else { return };
    for (name, limit, request) in [("cpus", limits.cpus, needs.cpus), ("mem", limits.mem, needs.mem)] {
        if let Some(Limit::Amount(limit)) = limit {
            all.need(
                limit >= request,
                format!("{path}/{name}"),
                format!("resource limit must be greater than or equal to requested resource ({request:?})"),
            );
        }
    }
}

fn secrets(env: &Environment, secrets: &Labels, config: &Config, path: &str, all: &mut Problems) {
    if !secrets.is_empty() {
        all.feature(config, "secrets", "/secrets");
    }
    for (name, value) in env {
        all.need(!name.is_empty(), path, "must not be empty");
        if let crate::model::EnvValue::Secret(key) = value {
            all.feature(config, "secrets", path);
            all.need(secrets.contains_key(key), format!("{path}({name})"), "references an undefined secret");
        }
    }
}

fn persistent(volume: &PersistentVolume, path: &str, all: &mut Problems) {
    all.need(volume.size > 0, format!("{path}/persistent/size"), "got 0, expected greater than 0");
    if let Some(most) = volume.max_size {
        all.need(volume.disk == DiskKind::Mount, format!("{path}/persistent/maxSize"), "Only mount volumes can have maxSize");
        all.need(most > volume.size, format!("{path}/persistent/maxSize"), "maxSize must be greater than size");
    }
    all.need(
        volume.disk != DiskKind::Root || volume.constraints.is_empty(),
        format!("{path}/persistent/constraints"),
        "Constraints on root volumes are not supported",
    );
    for (at, constraint) in volume.constraints.iter().enumerate() {
        let here = format!("{path}/persistent/constraints({at})");
        all.need(constraint.field == "path", here.clone(), "Unsupported field");
        all.need(matches!(constraint.operator, Operator::Like | Operator::Unlike), here, "Unsupported operator");
    }
    constraints(&volume.constraints, &format!("{path}/persistent/constraints"), all);
}

fn linux_info(info: Option<&LinuxInfo>, path: &str, all: &mut Problems) {
    let Some(info) = info else { return };
    match &info.seccomp {
        Some((Some(_), true)) => all.add(format!("{path}/seccomp"), "Seccomp unconfined can NOT be true when Profile is defined"),
        Some((None, false)) => all.add(format!("{path}/seccomp"), "Seccomp unconfined must be true when Profile is NOT defined"),
        _ => {}
    }
    if let Some((crate::model::container::IpcMode::ShareParent, Some(_))) = info.ipc {
        all.add(format!("{path}/ipcInfo"), "ipcInfo shmSize can NOT be set when mode is SHARE_PARENT");
    }
}

/// What may not change while volumes hold instances where they are.
pub(crate) fn resident_change(from: &Spec, to: &Spec, force: bool) -> Vec<Violation> {
    let mut all = Problems::default();
    match (from, to) {
        (Spec::App(from), Spec::App(to)) if from.is_resident() || to.is_resident() => {
            if from.is_resident() {
                all.need(from.persistent_volumes().eq(to.persistent_volumes()), "/", "Persistent volumes can not be changed!");
                all.need(from.resources == to.resources, "/", "Resident Tasks may not change resource requirements!");
                all.need(from.require_ports == to.require_ports, "/", "Resident Tasks may not change resource requirements!");
                all.need(force || from.role == to.role, "/role", "Resident services can't change role without force");
            } else if to.is_resident() {
                all.add("/", "Persistent volumes can not be changed!");
            }
        }
        (Spec::Pod(from), Spec::Pod(to)) if from.is_resident() || to.is_resident() => {
            all.need(from.persistent_volumes().eq(to.persistent_volumes()), "/", "Persistent volumes can not be changed!");
            all.need(from.needs() == to.needs(), "/", "Persistent pods may not change resource requirements!");
        }
        _ => {}
    }
    all.found
}

/// External volumes belong to one app each, unless they are shared.
pub(crate) fn volume_names(root: &Root, spec: &Spec) -> Vec<Violation> {
    let external = |spec: &Spec| -> Vec<String> {
        let volumes = spec.app().map(|app| app.volumes().to_vec()).unwrap_or_default();
        let name = |kind: VolumeKind| match kind {
            VolumeKind::External(volume) if !volume.shared => Some(volume.name),
            _ => None,
        };
        volumes.into_iter().filter_map(|volume| name(volume.kind)).collect()
    };
    let ours = external(spec);
    if ours.is_empty() {
        return Vec::new();
    }
    let clash = |(id, other): &(&PathId, &Spec)| *id != spec.id() && external(other).iter().any(|name| ours.contains(name));
    root.specs()
        .filter(clash)
        .map(|(id, _)| {
            Violation::new("/container/volumes", format!("Requested volumes conflict with a volume of {id}: Volume names must be unique"))
        })
        .collect()
}
