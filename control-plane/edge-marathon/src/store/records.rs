//! Records as keys and JSON texts. Definitions are written as the API writes them; the rest in a form of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Timestamp;
use scheduler::Group;
use scheduler::id::{InstanceId, PathId, TaskId};
use scheduler::instance::{AgentInfo, Condition, Goal, Health, Held, HeldVolume, Instance, Readiness, Task};
use scheduler::mesos::{Attribute, TaskState};
use scheduler::model::spec::Spec;
use scheduler::moment::{iso, parse_iso};
use scheduler::plan::{Action, ActionKind, Change, Plan};
use scheduler::words::{ContainerTermination, Loaded, Orphan, Record, TaskFailure, Termination, Undo};
use serde_json::{Value, json};

use super::StoreError;
use crate::json::app::{Defaults, read_app, write_app};
use crate::json::pod::{read_pod, write_pod};
use crate::json::{Json, Reading};

/// One key; no text: removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub key: String,
    /// What it is now; nothing when it is no more.
    pub text: Option<String>,
}

/// What a record changes.
pub fn encode(record: &Record) -> Vec<Entry> {
    let entry = |key: String, text: Option<String>| vec![Entry { key, text }];
    match record {
        Record::FrameworkId(id) => entry("framework".to_owned(), Some(id.clone())),
        Record::RootVersion(at) => entry("root".to_owned(), Some(iso(*at))),
        Record::Spec(spec) => {
            let text = Json::text(|json| match spec {
                Spec::App(app) => write_app(json, app),
                Spec::Pod(pod) => write_pod(json, pod, true),
            });
            let current = Entry { key: format!("current{}", spec.id()), text: Some(iso(spec.version())) };
            let definition = Entry { key: version_key(spec.id(), spec.version()), text: Some(format!("{}{text}", kind(spec.is_pod()))) };
            vec![definition, current]
        }
        Record::SpecRemoved(id) => entry(format!("current{id}"), None),
        Record::VersionDropped(id, version) => entry(version_key(id, *version), None),
        Record::Group(id, group) => entry(format!("group{id}"), Some(write_group(group).to_string())),
        Record::GroupRemoved(id) => entry(format!("group{id}"), None),
        Record::Instance(instance) => entry(format!("instance/{}", instance.id), Some(write_instance(instance).to_string())),
        Record::InstanceRemoved(id) => entry(format!("instance/{id}"), None),
        Record::Deployment(plan) => entry(format!("deployment/{}", plan.id), Some(write_plan(plan).to_string())),
        Record::DeploymentRemoved(id) => entry(format!("deployment/{id}"), None),
        Record::Failure(failure) => entry(format!("failure{}", failure.app_id), Some(write_failure(failure).to_string())),
        Record::FailureRemoved(id) => entry(format!("failure{id}"), None),
        Record::Policy(id, text) => entry(format!("policy{id}"), Some(text.to_string())),
        Record::PolicyRemoved(id) => entry(format!("policy{id}"), None),
        Record::Undo(undo) => entry(format!("undo/{}", iso(undo.version)), Some(write_undo(undo).to_string())),
        Record::UndoDropped(version) => entry(format!("undo/{}", iso(*version)), None),
        Record::Orphan(id, orphan) => entry(orphan_key(id), Some(json!({"role": orphan.role, "left": orphan.left}).to_string())),
        Record::OrphanRemoved(id) => entry(orphan_key(id), None),
    }
}

fn kind(is_pod: bool) -> &'static str {
    if is_pod { "pod " } else { "app " }
}

/// In the table that older programs pass over: one of them may lead next, and must not take the store for damaged.
fn orphan_key(id: &InstanceId) -> String {
    format!("about{ORPHAN}{id}")
}

const ORPHAN: &str = "/orphan/";

fn version_key(id: &PathId, version: Timestamp) -> String {
    format!("spec{id}@{}", iso(version))
}

/// Everything, out of all entries in the order of their keys.
pub fn decode(entries: impl Iterator<Item = (String, String)>) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::default();
    let mut plans = Vec::new();
    let mut instances = Vec::new();
    for (key, text) in entries {
        let damaged = |what: &str| StoreError::Damaged(format!("{key}: {what}"));
        let value = || serde_json::from_str::<Value>(&text).map_err(|error| damaged(&error.to_string()));
        let (table, name) = key.split_at(key.find('/').unwrap_or(key.len()));
        match table {
            "framework" => loaded.framework_id = Some(text),
            "root" => loaded.root_version = parse_iso(&text).ok_or_else(|| damaged("no moment"))?,
            "spec" => {
                let (kind, definition) = text.split_once(' ').ok_or_else(|| damaged("no kind"))?;
                let value: Value = serde_json::from_str(definition).map_err(|error| damaged(&error.to_string()))?;
                let reading = Reading::default();
                let form = reading.object(&value, "").ok_or_else(|| damaged("no object"))?;
                let spec = if kind == "pod" {
                    Spec::Pod(Arc::new(read_pod(&form, &Defaults::default())))
                } else {
                    Spec::App(Arc::new(read_app(&form, None, &PathId::root(), &Defaults::default())))
                };
                loaded.specs.push(spec);
            }
            "current" => {
                let version = parse_iso(&text).ok_or_else(|| damaged("no moment"))?;
                loaded.current.insert(PathId::absolute(name), version);
            }
            "group" => {
                loaded.groups.insert(PathId::absolute(name), read_group(&value()?));
            }
            "instance" => instances.push((key.clone(), value()?)),
            "deployment" => plans.push((key.clone(), value()?)),
            "failure" => loaded.failures.push(read_failure(&value()?).ok_or_else(|| damaged("not understood"))?),
            "policy" => drop(loaded.policies.insert(PathId::absolute(name), text.into())),
            "undo" => loaded.undos.push(read_undo(&value()?).ok_or_else(|| damaged("not understood"))?),
            "about" => {
                if let Some(id) = name.strip_prefix(ORPHAN) {
                    let id = InstanceId::parse(id).ok_or_else(|| damaged("no instance"))?;
                    loaded.orphans.insert(id, read_orphan(&value()?).ok_or_else(|| damaged("not understood"))?);
                }
            }
            _ => return Err(damaged("no such table")),
        }
    }
    let versions: BTreeMap<(PathId, Timestamp), Spec> =
        loaded.specs.iter().map(|spec| ((spec.id().clone(), spec.version()), spec.clone())).collect();
    for (key, value) in instances {
        match read_instance(&value, &versions) {
            Some(instance) => loaded.instances.push(instance),
            None => return Err(StoreError::Damaged(format!("{key}: not understood"))),
        }
    }
    for (key, value) in plans {
        match read_plan(&value, &versions) {
            Some(plan) => loaded.deployments.push(plan),
            None => return Err(StoreError::Damaged(format!("{key}: not understood"))),
        }
    }
    Ok(loaded)
}

fn write_group(group: &Group) -> Value {
    let dependencies: Vec<&str> = group.dependencies.iter().map(PathId::as_str).collect();
    json!({"dependencies": dependencies, "enforceRole": group.enforce_role, "version": iso(group.version)})
}

fn read_group(value: &Value) -> Group {
    Group {
        dependencies: strings(&value["dependencies"]).iter().map(|it| PathId::absolute(it)).collect(),
        enforce_role: value["enforceRole"].as_bool(),
        version: moment(&value["version"]).unwrap_or_default(),
    }
}

fn read_orphan(value: &Value) -> Option<Orphan> {
    let left = value["left"].as_object()?.iter().map(|(name, left)| Some((name.clone(), left.as_i64()?)));
    Some(Orphan { role: text(&value["role"])?, left: left.collect::<Option<_>>()? })
}

fn write_undo(undo: &Undo) -> Value {
    let specs: Vec<Value> = undo.specs.iter().map(|(id, version)| json!([id.as_str(), time(*version)])).collect();
    let groups: Vec<Value> = undo.groups.iter().map(|(id, group)| json!([id.as_str(), group.as_ref().map(write_group)])).collect();
    json!({"version": iso(undo.version), "before": iso(undo.before), "specs": specs, "groups": groups})
}

fn read_undo(value: &Value) -> Option<Undo> {
    let spec = |it: &Value| Some((PathId::absolute(it[0].as_str()?), moment(&it[1])));
    let group = |it: &Value| Some((PathId::absolute(it[0].as_str()?), it[1].is_object().then(|| read_group(&it[1]))));
    Some(Undo {
        version: moment(&value["version"])?,
        before: moment(&value["before"])?,
        specs: value["specs"].as_array()?.iter().map(spec).collect::<Option<_>>()?,
        groups: value["groups"].as_array()?.iter().map(group).collect::<Option<_>>()?,
    })
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn moment(value: &Value) -> Option<Timestamp> {
    parse_iso(value.as_str()?)
}

fn time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| Value::String(iso(at)))
}

fn write_attribute(value: &Attribute) -> Value {
    match value {
        Attribute::Text(text) => json!({"text": text}),
        Attribute::Scalar(value) => json!({"scalar": value}),
        Attribute::Ranges(ranges) => json!({"ranges": ranges}),
        Attribute::Set(names) => json!({"set": names}),
    }
}

fn read_attribute(value: &Value) -> Option<Attribute> {
    if let Some(text) = value["text"].as_str() {
        return Some(Attribute::Text(text.to_owned()));
    }
    if let Some(scalar) = value["scalar"].as_i64() {
        return Some(Attribute::Scalar(scalar));
    }
    if let Some(ranges) = value["ranges"].as_array() {
        return Some(Attribute::Ranges(ranges.iter().filter_map(|it| Some((it[0].as_u64()?, it[1].as_u64()?))).collect()));
    }
    value["set"].as_array().map(|_| Attribute::Set(strings(&value["set"])))
}

fn write_instance(it: &Instance) -> Value {
    let agent = it.agent.as_ref().map(|agent| {
        let attributes: Vec<Value> = agent.attributes.iter().map(|(name, value)| json!([name, write_attribute(value)])).collect();
        json!({"agentId": agent.agent_id, "host": agent.host, "region": agent.region, "zone": agent.zone, "attributes": attributes})
    });
    let task = |task: &Task| {
        json!({
            "id": task.id.as_str(),
            "container": task.container,
            "state": task.state.map(TaskState::word),
            "hostPorts": task.host_ports,
            "addresses": task.addresses,
            "stagedAt": iso(task.staged_at),
            "startedAt": time(task.started_at),
            "since": iso(task.since),
            "healthy": task.healthy,
            "message": task.message,
        })
    };
    let held = it.reservation.as_ref().map(|held| {
        let volumes: Vec<Value> = held.volumes.iter().map(|volume| json!([volume.container_path, volume.persistence_id])).collect();
        json!({"volumes": volumes, "confirmed": held.confirmed})
    });
    json!({
        "id": it.id.as_str(),
        "spec": it.spec.id().as_str(),
        "version": iso(it.spec.version()),
        "goal": it.goal.word(),
        "condition": it.condition.word(),
        "since": iso(it.since),
        "activeSince": time(it.active_since),
        "incarnation": it.incarnation,
        "agent": agent,
        "tasks": it.tasks.iter().map(task).collect::<Vec<_>>(),
        "reservation": held,
        "role": it.role,
        "unreachableSince": time(it.unreachable_since),
        "healthy": it.healthy(),
        "ready": it.ready.iter().map(|it| it.ready).collect::<Vec<_>>(),
    })
}

fn read_instance(value: &Value, versions: &BTreeMap<(PathId, Timestamp), Spec>) -> Option<Instance> {
    let spec_id = PathId::absolute(value["spec"].as_str()?);
    let version = moment(&value["version"])?;
    // An old version may have been dropped meanwhile: the nearest later one, else the latest, stands for it.
    let spec = versions
        .get(&(spec_id.clone(), version))
        .or_else(|| versions.range((spec_id.clone(), version)..).next().filter(|((id, _), _)| *id == spec_id).map(|(_, spec)| spec))
        .or_else(|| versions.range(..(spec_id.clone(), version)).next_back().filter(|((id, _), _)| *id == spec_id).map(|(_, spec)| spec))?
        .clone();
    let since = moment(&value["since"])?;
    let agent = value["agent"].as_object().map(|agent| AgentInfo {
        agent_id: agent.get("agentId").and_then(text).unwrap_or_default(),
        host: agent.get("host").and_then(text).unwrap_or_default(),
        region: agent.get("region").and_then(text),
        zone: agent.get("zone").and_then(text),
        attributes: agent
            .get("attributes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|it| Some((text(&it[0])?, read_attribute(&it[1])?)))
            .collect(),
    });
    let task = |it: &Value| {
        Some(Task {
            id: TaskId::parse(it["id"].as_str()?)?,
            container: text(&it["container"])?,
            state: it["state"].as_str().and_then(TaskState::parse),
            host_ports: it["hostPorts"].as_array()?.iter().map(|port| port.as_u64().and_then(|port| u16::try_from(port).ok())).collect(),
            addresses: it["addresses"].as_array()?.iter().filter_map(|it| Some((text(&it[0])?, it[1].as_bool()?))).collect(),
            staged_at: moment(&it["stagedAt"])?,
            started_at: moment(&it["startedAt"]),
            since: moment(&it["since"])?,
            healthy: it["healthy"].as_bool(),
            check: None,
            message: text(&it["message"]).unwrap_or_default(),
        })
    };
    let held = |it: &Value| {
        let volume = |it: &Value| Some(HeldVolume { container_path: text(&it[0])?, persistence_id: text(&it[1])? });
        Some(Held { volumes: it["volumes"].as_array()?.iter().filter_map(volume).collect(), confirmed: it["confirmed"].as_bool()? })
    };
    let mut instance = Instance {
        id: InstanceId::parse(value["id"].as_str()?)?,
        goal: [Goal::Running, Goal::Stopped, Goal::Decommissioned].into_iter().find(|goal| Some(goal.word()) == value["goal"].as_str())?,
        condition: Condition::parse(value["condition"].as_str()?)?,
        since,
        active_since: moment(&value["activeSince"]),
        incarnation: value["incarnation"].as_u64().and_then(|it| u32::try_from(it).ok())?,
        agent,
        tasks: value["tasks"].as_array()?.iter().filter_map(task).collect(),
        reservation: held(&value["reservation"]),
        doomed: false,
        role: text(&value["role"]).unwrap_or_default(),
        unreachable_since: moment(&value["unreachableSince"]),
        health: Vec::new(),
        ready: value["ready"]
            .as_array()?
            .iter()
            .map(|it| Readiness { ready: it.as_bool().unwrap_or(false), last_response: None })
            .collect(),
        spec,
    };
    // What was healthy is taken to be until a probe says otherwise: readers would drop every backend else.
    if let (Spec::App(app), Some(healthy)) = (&instance.spec, value["healthy"].as_bool()) {
        let at = instance.active_since.unwrap_or(since);
        let known = if healthy {
            Health { first_success: Some(at), last_success: Some(at), ..Health::default() }
        } else {
            Health { last_failure: Some(at), consecutive_failures: 1, ..Health::default() }
        };
        instance.health = vec![known; app.health_checks.len()];
    }
    Some(instance)
}

fn word(kind: ActionKind) -> &'static str {
    match kind {
        ActionKind::Start => "start",
        ActionKind::Scale => "scale",
        ActionKind::Restart => "restart",
        ActionKind::Stop => "stop",
    }
}

fn write_plan(plan: &Plan) -> Value {
    let action = |it: &Action| {
        let sentenced: Vec<&str> = it.sentenced.iter().map(InstanceId::as_str).collect();
        json!([word(it.kind), it.spec.as_str(), it.is_pod, sentenced])
    };
    let steps: Vec<Vec<Value>> = plan.steps.iter().map(|step| step.iter().map(action).collect()).collect();
    let version = |spec: &Option<Spec>| spec.as_ref().map(|spec| iso(spec.version()));
    let changes: Vec<Value> = plan.changes.iter().map(|(id, it)| json!([id.as_str(), version(&it.from), version(&it.to)])).collect();
    let group = |it: &Option<Group>| {
        let dependencies = |group: &Group| group.dependencies.iter().map(|it| it.as_str().to_owned()).collect::<Vec<_>>();
        it.as_ref().map(|it| json!({"dependencies": dependencies(it), "enforceRole": it.enforce_role, "version": iso(it.version)}))
    };
    let groups: Vec<Value> = plan.groups.iter().map(|(id, it)| json!([id.as_str(), group(&it.from), group(&it.to)])).collect();
    json!({"id": plan.id, "version": iso(plan.version), "steps": steps, "changes": changes, "groups": groups})
}

fn read_plan(value: &Value, versions: &BTreeMap<(PathId, Timestamp), Spec>) -> Option<Plan> {
    let action = |it: &Value| {
        Some(Action {
            kind: [ActionKind::Start, ActionKind::Scale, ActionKind::Restart, ActionKind::Stop]
                .into_iter()
                .find(|kind| Some(word(*kind)) == it[0].as_str())?,
            spec: PathId::absolute(it[1].as_str()?),
            is_pod: it[2].as_bool()?,
            sentenced: strings(&it[3]).iter().filter_map(|id| InstanceId::parse(id)).collect(),
        })
    };
    let change = |it: &Value| {
        let id = PathId::absolute(it[0].as_str()?);
        let spec = |at: &Value| moment(at).and_then(|at| versions.get(&(id.clone(), at)).cloned());
        let change = Change { from: spec(&it[1]), to: spec(&it[2]) };
        Some((id, change))
    };
    let group = |it: &Value| {
        it.as_object()?;
        let dependencies = strings(&it["dependencies"]).iter().map(|it| PathId::absolute(it)).collect();
        Some(Group { dependencies, enforce_role: it["enforceRole"].as_bool(), version: moment(&it["version"])? })
    };
    let steps: Option<Vec<Vec<Action>>> =
        value["steps"].as_array()?.iter().map(|step| step.as_array()?.iter().map(action).collect()).collect();
    Some(Plan {
        id: text(&value["id"])?,
        version: moment(&value["version"])?,
        steps: steps?,
        changes: value["changes"].as_array()?.iter().filter_map(change).collect(),
        groups: value["groups"]
            .as_array()?
            .iter()
            .filter_map(|it| Some((PathId::absolute(it[0].as_str()?), Change { from: group(&it[1]), to: group(&it[2]) })))
            .collect(),
    })
}

fn write_failure(it: &TaskFailure) -> Value {
    let container = |it: &ContainerTermination| {
        json!({
            "name": it.name, "taskId": it.task_id, "state": it.state.word(), "message": it.message, "timestamp": iso(it.timestamp),
        })
    };
    let termination = |it: &Termination| {
        json!({
            "instance": it.instance.as_str(), "startedAt": iso(it.started_at), "terminatedAt": iso(it.terminated_at),
            "message": it.message, "host": it.host, "agentId": it.agent_id,
            "containers": it.containers.iter().map(container).collect::<Vec<_>>(),
        })
    };
    json!({
        "appId": it.app_id.as_str(), "taskId": it.task_id, "state": it.state.word(), "message": it.message, "host": it.host,
        "agentId": it.agent_id, "version": iso(it.version), "timestamp": iso(it.timestamp),
        "terminations": it.terminations.iter().map(termination).collect::<Vec<_>>(),
    })
}

fn read_failure(value: &Value) -> Option<TaskFailure> {
    let container = |it: &Value| {
        Some(ContainerTermination {
            name: text(&it["name"])?,
            task_id: text(&it["taskId"])?,
            state: TaskState::parse(it["state"].as_str()?)?,
            message: text(&it["message"])?,
            timestamp: moment(&it["timestamp"])?,
        })
    };
    let termination = |it: &Value| {
        Some(Termination {
            instance: InstanceId::parse(it["instance"].as_str()?)?,
            started_at: moment(&it["startedAt"])?,
            terminated_at: moment(&it["terminatedAt"])?,
            message: text(&it["message"])?,
            host: text(&it["host"])?,
            agent_id: text(&it["agentId"]),
            containers: it["containers"].as_array()?.iter().map(container).collect::<Option<_>>()?,
        })
    };
    // Those that were written before there was a history have none.
    let terminations = value["terminations"].as_array().map(|all| all.iter().map(termination).collect::<Option<Vec<_>>>());
    Some(TaskFailure {
        app_id: PathId::absolute(value["appId"].as_str()?),
        task_id: text(&value["taskId"])?,
        state: TaskState::parse(value["state"].as_str()?)?,
        message: text(&value["message"])?,
        host: text(&value["host"])?,
        agent_id: text(&value["agentId"]),
        version: moment(&value["version"])?,
        timestamp: moment(&value["timestamp"])?,
        terminations: terminations.unwrap_or_else(|| Some(Vec::new()))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orphans_come_back_and_go() {
        let id = InstanceId::parse("x.instance-6f1c2d3e-0000-11ea-8d71-362b9e155667").unwrap();
        let orphan = Orphan { role: "r".into(), left: BTreeMap::from([("cpus".into(), 100)]) };
        let written = encode(&Record::Orphan(id.clone(), orphan.clone()));
        let entries: Vec<_> = written.into_iter().map(|it| (it.key, it.text.unwrap())).collect();
        let removed = encode(&Record::OrphanRemoved(id.clone()));
        assert_eq!((removed[0].key.as_str(), removed[0].text.as_ref()), (entries[0].0.as_str(), None));
        assert_eq!(decode(entries.into_iter()).unwrap().orphans, BTreeMap::from([(id, orphan)]));
    }
}
