//! The plan of a move, and what speaks against it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::compare::{Difference, differences};
use crate::snapshot::{GroupFacts, Item, Snapshot, with_instances};

/// What of it is started in the new Marathon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Start {
    /// Nothing: everything comes suspended
    #[default]
    None,
    /// What has no instance in the old one
    Idle,
    /// Everything, also what runs in the old one: twice then, until somebody ends it there
    All,
}

/// How somebody wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// What is started.
    pub start: Start,
    /// Whether what is there already, and differs, is changed.
    pub overwrite: bool,
}

/// One step of a move.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A group with its dependencies.
    PutGroup {
        /// Its path.
        id: String,
        /// What it says.
        body: Value,
        /// Whether its role is enforced.
        enforce_role: Option<bool>,
    },
    /// An app, or a pod.
    Put {
        /// Its path.
        id: String,
        /// Which it is.
        is_pod: bool,
        /// What is sent, the oldest version first.
        bodies: Vec<Value>,
        /// How many there are to be then.
        instances: u64,
        /// How many the old one has.
        wanted: u64,
        /// Whether it is there already.
        there: bool,
    },
}

/// What is to be done, and what speaks against it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// With any of these nothing is done.
    pub problems: Vec<String>,
    /// To be known.
    pub warnings: Vec<String>,
    /// What is there already, and in what it differs.
    pub differing: BTreeMap<String, Vec<Difference>>,
    /// What is there already, and is the same.
    pub same: Vec<String>,
    /// What is only in the new one.
    pub only_there: Vec<String>,
}

impl Plan {
    /// How to bring all of `from` into `to`.
    pub fn new(from: &Snapshot, to: &Snapshot, wish: Wish) -> Plan {
        let mut plan = Plan::default();
        plan.judge_both(from, to);
        for (id, group) in &from.groups {
            plan.group(id, group, to);
        }
        let ours: BTreeMap<u64, &String> = service_ports(&to.apps).into_iter().filter(|(_, id)| !from.apps.contains_key(*id)).collect();
        for (id, app) in &from.apps {
            plan.item(id, app, false, (to.apps.get(id), to.pods.contains_key(id)), wish);
            for port in ports_of(&app.definition) {
                if let Some(other) = ours.get(&port) {
                    plan.warnings.push(format!("{id}: the service port {port} is also that of {other}, which is there already"));
                }
            }
            plan.hints(id, app);
        }
        for (id, pod) in &from.pods {
            plan.item(id, pod, true, (to.pods.get(id), to.apps.contains_key(id)), wish);
        }
        let known = |id: &&String| !from.apps.contains_key(*id) && !from.pods.contains_key(*id);
        plan.only_there = to.apps.keys().chain(to.pods.keys()).filter(known).cloned().collect();
        plan
    }

    fn judge_both(&mut self, from: &Snapshot, to: &Snapshot) {
        if from.source.framework_id.is_some() && from.source.framework_id == to.source.framework_id {
            self.problems.push(format!(
                "both are the framework {}: it is one and the same Marathon, or two that fight for its tasks",
                from.source.framework_id.as_deref().unwrap_or_default()
            ));
        }
        if from.source.deployments > 0 {
            self.warnings.push(format!(
                "{} deployments run in the old one: what is copied is what they are to bring about, not what runs",
                from.source.deployments
            ));
        }
        if to.source.deployments > 0 {
            self.warnings.push(format!("{} deployments run in the new one", to.source.deployments));
        }
    }

    fn group(&mut self, id: &str, group: &GroupFacts, to: &Snapshot) {
        let there = to.groups.get(id);
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let same = there.is_some_and(|it| list(&it.dependencies) == list(&group.dependencies) && it.enforce_role == group.enforce_role);
        if same {
            return;
        }
        if to.apps.contains_key(id) || to.pods.contains_key(id) {
            self.problems.push(format!("{id} is a group in the old one, and an app or pod in the new one"));
            return;
        }
        let body = json!({"id": id, "dependencies": list(&group.dependencies)});
        self.actions.push(Action::PutGroup { id: id.to_owned(), body, enforce_role: group.enforce_role });
    }

    fn item(&mut self, id: &str, item: &Item, is_pod: bool, (there, other_kind): (Option<&Item>, bool), wish: Wish) {
        if other_kind {
            let (is, was) = if is_pod { ("an app", "a pod") } else { ("a pod", "an app") };
            self.problems.push(format!("{id} is {was} in the old one, and {is} in the new one"));
            return;
        }
        let wanted = item.instances(is_pod);
        let instances = match wish.start {
            Start::None => 0,
            Start::Idle if item.running == 0 => wanted,
            Start::Idle => 0,
            Start::All => wanted,
        };
        if wish.start == Start::All && item.running > 0 {
            self.warnings.push(format!("{id}: {} instances run in the old one, and {wanted} more are started", item.running));
        }
        if let Some(there) = there {
            // How many run there is somebody's decision, not a difference.
            let mut found = differences(&item.definition, &there.definition);
            found.retain(|it| !matches!(it.path.as_str(), "/instances" | "/scaling/instances"));
            if found.is_empty() {
                self.same.push(id.to_owned());
                return;
            }
            self.differing.insert(id.to_owned(), found);
            if !wish.overwrite {
                self.problems.push(format!("{id} is there already, and differs; --overwrite changes it"));
                return;
            }
            // What runs goes on running, as many as there are.
            let bodies = vec![with_instances(&item.definition, is_pod, there.instances(is_pod))];
            self.actions.push(Action::Put { id: id.to_owned(), is_pod, bodies, instances: there.instances(is_pod), wanted, there: true });
            return;
        }
        // Versions are made suspended, one after the other; then there is the number that is wanted.
        let mut bodies: Vec<Value> = Vec::new();
        for definition in item.history.iter().map(|(_, it)| it).chain([&item.definition]) {
            let body = with_instances(definition, is_pod, 0);
            if bodies.last() != Some(&body) {
                bodies.push(body);
            }
        }
        if instances > 0
            && let Some(last) = bodies.last_mut()
        {
            *last = with_instances(&item.definition, is_pod, instances);
        }
        self.actions.push(Action::Put { id: id.to_owned(), is_pod, bodies, instances, wanted, there: false });
    }

    fn hints(&mut self, id: &str, app: &Item) {
        let definition = &app.definition;
        if definition["secrets"].as_object().is_some_and(|it| !it.is_empty()) {
            self.warnings.push(format!("{id} uses secrets: their values cannot be read, and have to be brought by other means"));
        }
        let held = fixed_ports(definition);
        if !held.is_empty() && app.running > 0 {
            self.warnings.push(format!(
                "{id} wants the host ports {held:?}: on {} they are taken as long as the old instances run",
                app.hosts.join(", ")
            ));
        }
        let attributes: BTreeSet<&str> = definition["constraints"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|it| it[0].as_str())
            .filter(|field| !matches!(*field, "hostname" | "@hostname" | "@region" | "@zone"))
            .collect();
        if !attributes.is_empty() {
            self.warnings.push(format!("{id} is bound to agents by their attributes {attributes:?}: the new agents must have them"));
        }
        let volumes = definition["container"]["volumes"].as_array().into_iter().flatten();
        if volumes.clone().any(|it| it["persistent"].is_object()) {
            self.warnings.push(format!("{id} has persistent volumes: what is in them stays with the old one"));
        }
    }
}

fn ports_of(definition: &Value) -> Vec<u64> {
    let defined = definition["portDefinitions"].as_array().into_iter().flatten().map(|it| &it["port"]);
    let mapped = definition["container"]["portMappings"].as_array().into_iter().flatten().map(|it| &it["servicePort"]);
    defined.chain(mapped).filter_map(Value::as_u64).filter(|it| *it != 0).collect()
}

fn service_ports(apps: &BTreeMap<String, Item>) -> BTreeMap<u64, &String> {
    apps.iter().flat_map(|(id, app)| ports_of(&app.definition).into_iter().map(move |port| (port, id))).collect()
}

fn fixed_ports(definition: &Value) -> Vec<u64> {
    let required = definition["requirePorts"].as_bool() == Some(true);
    let defined = definition["portDefinitions"].as_array().into_iter().flatten().map(|it| &it["port"]).filter(|_| required);
    let mapped = definition["container"]["portMappings"].as_array().into_iter().flatten().map(|it| &it["hostPort"]);
    defined.chain(mapped).filter_map(Value::as_u64).filter(|it| *it != 0).collect()
}
