//! The classic JSON: `/state`, `/containers`, `/monitor/statistics`, `/version`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use mesos::Format;
use mesos_proto::json::{self, Spelling};
use mesos_proto::v1::{Attribute, ContainerStatus, Labels, Resource, TaskStatus, value};
use serde_json::{Map, Value, json};

use super::rights::{Viewer, user_of};
use super::{Query, Server};
use crate::containers::Containers;
use crate::driver::{Stopping, View};
use crate::link::{VERSION, capabilities};
use crate::sandbox::Layout;
use crate::table::{Executor, Framework, Phase, Task};
use crate::words::{ContainerKey, is_terminal};

/// `/version`.
pub(super) fn version() -> Value {
    json!({ "version": VERSION, "build_date": "", "build_time": 0.0, "build_user": "" })
}

/// A message of Mesos in the words of the classic endpoints.
fn classic<M: prost::Message + prost::Name>(message: &M) -> Value {
    let mut text = Vec::new();
    json::write(message, Spelling::V0, &mut text);
    serde_json::from_slice(&text).unwrap_or(Value::Null)
}

/// Resources as an object: amounts by name, whatever their role.
pub(super) fn resources(all: &[Resource]) -> Value {
    let mut scalars: BTreeMap<String, f64> = ["cpus", "gpus", "mem", "disk"].into_iter().map(|it| (it.to_owned(), 0.0)).collect();
    let mut ranges: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for it in all {
        let name = if it.revocable.is_some() { format!("{}_revocable", it.name) } else { it.name.clone() };
        if let Some(scalar) = &it.scalar {
            *scalars.entry(name).or_default() += scalar.value;
        } else if let Some(value) = &it.ranges {
            ranges.entry(name).or_default().extend(value.range.iter().map(|it| (it.begin, it.end)));
        } else if let Some(value) = &it.set {
            sets.entry(name).or_default().extend(value.item.iter().cloned());
        }
    }
    let mut object = Map::new();
    for (name, value) in scalars {
        object.insert(name, json!((value * 1000.0).round() / 1000.0));
    }
    for (name, value) in ranges {
        object.insert(name, Value::String(range_words(value)));
    }
    for (name, mut value) in sets {
        value.sort();
        object.insert(name, Value::String(format!("{{{}}}", value.join(", "))));
    }
    Value::Object(object)
}

fn range_words(mut ranges: Vec<(u64, u64)>) -> String {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (begin, end) in ranges {
        match merged.last_mut() {
            Some(last) if begin <= last.1.saturating_add(1) => last.1 = last.1.max(end),
            _ => merged.push((begin, end)),
        }
    }
    let words: Vec<String> = merged.iter().map(|(begin, end)| format!("{begin}-{end}")).collect();
    format!("[{}]", words.join(", "))
}

fn attributes(all: &[Attribute]) -> Value {
    let value = |it: &Attribute| match it.r#type() {
        value::Type::Scalar => json!(it.scalar.map_or(0.0, |it| it.value)),
        value::Type::Ranges => {
            let ranges = it.ranges.as_ref().map(|it| it.range.iter().map(|it| (it.begin, it.end)).collect()).unwrap_or_default();
            Value::String(range_words(ranges))
        }
        value::Type::Set => Value::String(format!("{{{}}}", it.set.as_ref().map(|it| it.item.join(", ")).unwrap_or_default())),
        value::Type::Text => Value::String(it.text.as_ref().map(|it| it.value.clone()).unwrap_or_default()),
    };
    Value::Object(all.iter().map(|it| (it.name.clone(), value(it))).collect())
}

fn labels(labels: &Labels) -> Value {
    Value::Array(labels.labels.iter().map(|it| json!({ "key": it.key, "value": it.value })).collect())
}

fn role_of(resources: &[Resource]) -> String {
    let role = resources.iter().find_map(|it| it.allocation_info.as_ref()?.role.clone());
    role.unwrap_or_else(|| "*".to_owned())
}

fn status(it: &TaskStatus) -> Value {
    let mut object = Map::new();
    object.insert("state".to_owned(), json!(it.state().as_str_name()));
    object.insert("timestamp".to_owned(), json!(it.timestamp.unwrap_or(0.0)));
    if let Some(it) = &it.labels {
        object.insert("labels".to_owned(), labels(it));
    }
    if let Some(it) = &it.container_status {
        object.insert("container_status".to_owned(), classic(it));
    }
    if let Some(it) = it.healthy {
        object.insert("healthy".to_owned(), json!(it));
    }
    Value::Object(object)
}

fn task(framework: &Framework, executor: &Executor, agent: &str, it: &Task) -> Value {
    let info = &it.info;
    let is_command = executor.kind == crate::table::Kind::Command;
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    set("id", json!(info.task_id.value));
    set("name", json!(info.name));
    set("framework_id", json!(framework.info.id.as_ref().map(|it| it.value.as_str()).unwrap_or_default()));
    set("executor_id", json!(if is_command { "" } else { executor.info.executor_id.value.as_str() }));
    set("slave_id", json!(agent));
    set("state", json!(it.state.as_str_name()));
    set("resources", resources(&info.resources));
    set("role", json!(role_of(&info.resources)));
    set("statuses", Value::Array(it.statuses.iter().map(status).collect()));
    if !info.limits.is_empty() {
        set("limits", Value::Object(info.limits.iter().map(|(name, it)| (name.clone(), json!(it.value))).collect()));
    }
    let user = info.command.as_ref().and_then(|it| it.user.clone());
    set("user", json!(user.unwrap_or_else(|| framework.info.user.clone())));
    if let Some(it) = &info.labels {
        set("labels", labels(it));
    }
    if let Some(it) = &info.discovery {
        set("discovery", classic(it));
    }
    if let Some(it) = &info.container {
        set("container", classic(it));
    }
    if let Some(it) = &info.health_check {
        set("health_check", classic(it));
    }
    Value::Object(object)
}

fn executor(framework: &Framework, it: &Executor, (agent, layout, viewer): (&str, &Layout, &Viewer)) -> Value {
    let framework_id = framework.info.id.as_ref().map(|it| it.value.clone()).unwrap_or_default();
    let id = &it.info.executor_id.value;
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    set("id", json!(id));
    set("name", json!(it.info.name.clone().unwrap_or_default()));
    set("source", json!(it.info.source.clone().unwrap_or_default()));
    set("container", json!(it.container.as_str()));
    set("directory", json!(layout.sandbox(agent, &framework_id, id, &it.container).display().to_string()));
    set("resources", resources(&it.resources()));
    set("role", json!(role_of(&it.info.resources)));
    if let Some(it) = &it.info.labels {
        set("labels", labels(it));
    }
    if it.info.r#type.is_some() {
        set("type", json!(it.info.r#type().as_str_name()));
    }
    let sees = |one: &Task| viewer.task(&framework.info, &it.info, &one.info);
    let of = |keep: &dyn Fn(&Task) -> bool| -> Value {
        Value::Array(it.tasks.values().filter(|it| keep(it) && sees(it)).map(|one| task(framework, it, agent, one)).collect())
    };
    set("tasks", of(&|it| it.delivered && !is_terminal(it.state)));
    set("queued_tasks", of(&|it| !it.delivered && !is_terminal(it.state)));
    let over = it.tasks.values().filter(|it| is_terminal(it.state)).chain(&it.completed).filter(|it| sees(it));
    set("completed_tasks", Value::Array(over.map(|one| task(framework, it, agent, one)).collect()));
    Value::Object(object)
}

fn framework(it: &Framework, seen: (&str, &Layout, &Viewer)) -> Value {
    let info = &it.info;
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    set("id", json!(info.id.as_ref().map(|it| it.value.as_str()).unwrap_or_default()));
    set("name", json!(info.name));
    set("user", json!(info.user));
    set("failover_timeout", json!(info.failover_timeout()));
    set("checkpoint", json!(info.checkpoint()));
    set("hostname", json!(info.hostname()));
    if let Some(principal) = &info.principal {
        set("principal", json!(principal));
    }
    if info.roles.is_empty() {
        set("role", json!(info.role.as_deref().unwrap_or("*")));
    } else {
        set("roles", json!(info.roles));
    }
    let sees = |one: &&Executor| seen.2.executor(info, &one.info);
    let live = it.executors.values().filter(|it| it.phase != Phase::Terminated).filter(sees);
    set("executors", Value::Array(live.map(|one| executor(it, one, seen)).collect()));
    let over = it.executors.values().filter(|it| it.phase == Phase::Terminated).chain(&it.completed).filter(sees);
    set("completed_executors", Value::Array(over.map(|one| executor(it, one, seen)).collect()));
    Value::Object(object)
}

/// `/state`.
pub(super) async fn state(server: &Server) -> Result<Value, Stopping> {
    let (config, layout, begun) = (server.config.clone(), server.containers.layout().clone(), server.begun);
    let viewer = server.viewer.clone();
    server.driver.look(move |view| of_view(view, &config, (&layout, &viewer), begun)).await
}

fn of_view(view: &View<'_>, config: &crate::config::Config, (layout, viewer): (&Layout, &Viewer), begun: SystemTime) -> Value {
    let (table, agent) = (view.table, view.table.agent_id());
    let total = view.ledger.total();
    let all = total.to_proto(Format::Endpoint);
    let reserved: Vec<_> = total.iter().filter(|it| it.is_reserved()).cloned().collect();
    let mut by_role: BTreeMap<String, Vec<Resource>> = BTreeMap::new();
    let sees_role = |role: &String| viewer.may("view_roles", Some(role));
    for it in &reserved {
        let role = it.reserved_role().map(|it| it.as_str().to_owned()).unwrap_or_default();
        by_role.entry(role).or_default().push(it.to_proto(Format::Endpoint));
    }
    by_role.retain(|role, _| sees_role(role));
    let unreserved: Vec<Resource> = total.iter().filter(|it| !it.is_reserved()).map(|it| it.to_proto(Format::Endpoint)).collect();
    let live = table.frameworks().values().flat_map(|it| it.executors.values()).filter(|it| it.phase != Phase::Terminated);
    let allocated: Vec<Resource> = live.flat_map(Executor::resources).collect();
    let is_reserved = |it: &&Resource| !it.reservations.is_empty() || it.role.as_deref().is_some_and(|it| it != "*");
    let mut reserved_allocated: BTreeMap<String, Vec<Resource>> = BTreeMap::new();
    for it in allocated.iter().filter(is_reserved) {
        let role = it.reservations.last().and_then(|it| it.role.clone()).or_else(|| it.role.clone()).unwrap_or_default();
        reserved_allocated.entry(role).or_default().push(it.clone());
    }
    reserved_allocated.retain(|role, _| sees_role(role));
    let unreserved_allocated: Vec<Resource> = allocated.iter().filter(|it| !is_reserved(it)).cloned().collect();
    let full = |it: &[Resource]| Value::Array(it.iter().map(classic).collect());
    let object = |it: &BTreeMap<String, Vec<Resource>>, of: &dyn Fn(&[Resource]) -> Value| {
        Value::Object(it.iter().map(|(role, it)| (role.clone(), of(it))).collect())
    };
    let seen = (agent, layout, viewer);
    let sees = |it: &&Framework| viewer.framework(&it.info);
    let mut state = json!({
        "version": VERSION,
        "build_date": "", "build_time": 0.0, "build_user": "",
        "start_time": begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        "id": agent,
        "pid": format!("slave(1)@{}:{}", config.advertise_ip, view.agent.port()),
        "hostname": config.hostname,
        "capabilities": capabilities().iter().map(|it| it.r#type().as_str_name()).collect::<Vec<_>>(),
        "resources": resources(&all),
        "reserved_resources": object(&by_role, &|it| resources(it)),
        "unreserved_resources": resources(&unreserved),
        "reserved_resources_full": object(&by_role, &full),
        "unreserved_resources_full": full(&unreserved),
        "reserved_resources_allocated": object(&reserved_allocated, &|it| resources(it)),
        "unreserved_resources_allocated": resources(&unreserved_allocated),
        "resource_providers": [],
        "attributes": attributes(&view.agent.attributes),
        "frameworks": table.frameworks().values().filter(sees).map(|it| framework(it, seen)).collect::<Vec<_>>(),
        "completed_frameworks": table.completed_frameworks().iter().filter(sees).map(|it| framework(it, seen)).collect::<Vec<_>>(),
    });
    if let Some(it) = state.as_object_mut() {
        if viewer.may("view_flags", None) {
            it.insert("flags".to_owned(), json!(config.flags()));
        }
        if let Some(name) = view.master_hostname {
            it.insert("master_hostname".to_owned(), json!(name));
        }
        if let Some(file) = &config.external_log_file {
            it.insert("external_log_file".to_owned(), json!(file.display().to_string()));
        }
        if let Some(domain) = &view.agent.domain {
            it.insert("domain".to_owned(), classic(domain));
        }
        if let Some(drain) = table.drain() {
            it.insert("drain_config".to_owned(), classic(&drain_config(drain)));
        }
        if let Some(began) = table.drain_began() {
            it.insert("estimated_drain_start_time_seconds".to_owned(), json!(began));
        }
    }
    state
}

/// The drain as Mesos's message.
pub(super) fn drain_config(drain: &crate::table::Drain) -> mesos_proto::v1::DrainConfig {
    let nanoseconds = |it: std::time::Duration| i64::try_from(it.as_nanos()).unwrap_or(i64::MAX);
    mesos_proto::v1::DrainConfig {
        max_grace_period: drain.max_grace_period.map(|it| mesos_proto::v1::DurationInfo { nanoseconds: nanoseconds(it) }),
        mark_gone: Some(drain.mark_gone),
    }
}

/// An executor whose container runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) framework: String,
    pub(super) executor: String,
    pub(super) name: String,
    pub(super) source: String,
    /// As whom it runs.
    pub(super) user: String,
    pub(super) container: ContainerKey,
    pub(super) status: ContainerStatus,
}

pub(super) async fn running(server: &Server) -> Result<Vec<Running>, Stopping> {
    let ip = server.config.advertise_ip.to_string();
    let found = server.driver.look(|view| {
        let of = view.table.frameworks();
        let live = of.iter().flat_map(|(framework, it)| it.executors.iter().map(move |it| (framework, it)));
        live.filter(|(_, (_, it))| !matches!(it.phase, Phase::Terminated | Phase::Launching))
            .map(|(framework, (id, it))| Running {
                framework: framework.clone(),
                executor: id.clone(),
                name: it.info.name.clone().unwrap_or_default(),
                source: it.info.source.clone().unwrap_or_default(),
                user: of.get(framework).map(|of| user_of(&of.info, &it.info).to_owned()).unwrap_or_default(),
                container: it.container.clone(),
                status: ContainerStatus {
                    container_id: Some(it.container.to_message()),
                    executor_pid: it.started.pid,
                    network_infos: network(&it.started.addresses),
                    cgroup_info: None,
                },
            })
            .collect::<Vec<_>>()
    });
    let mut found = found.await?;
    for it in &mut found {
        if it.status.network_infos.is_empty() {
            it.status.network_infos = network(std::slice::from_ref(&ip));
        }
    }
    Ok(found)
}

fn network(addresses: &[String]) -> Vec<mesos_proto::v1::NetworkInfo> {
    if addresses.is_empty() {
        return Vec::new();
    }
    let address = |it: &String| mesos_proto::v1::network_info::IpAddress { ip_address: Some(it.clone()), ..Default::default() };
    vec![mesos_proto::v1::NetworkInfo { ip_addresses: addresses.iter().map(address).collect(), ..Default::default() }]
}

/// What containers have used, now.
pub(super) async fn measured(
    containers: &Containers,
    of: Vec<ContainerKey>,
) -> BTreeMap<ContainerKey, mesos_proto::v1::ResourceStatistics> {
    let containers = containers.clone();
    let measured = tokio::task::spawn_blocking(move || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut all = BTreeMap::new();
        for key in of {
            let mut statistics = containers.usage(&key).map(|it| it.statistics).unwrap_or_default();
            statistics.timestamp = now;
            if let Some(handle) = containers.get(&key) {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole bytes")]
                let limit = (crate::words::scalar(&handle.resources(), "disk") * 1024.0 * 1024.0) as u64;
                statistics.disk_limit_bytes = Some(limit).filter(|it| *it > 0);
            }
            all.insert(key, statistics);
        }
        all
    });
    measured.await.unwrap_or_default()
}

/// `/monitor/statistics`.
pub(super) async fn statistics(server: &Server) -> Result<Value, Stopping> {
    let all = running(server).await?;
    let measured = measured(&server.containers, all.iter().map(|it| it.container.clone()).collect()).await;
    let entries = all.iter().map(|it| {
        json!({
            "executor_id": it.executor, "executor_name": it.name, "framework_id": it.framework, "source": it.source,
            "statistics": measured.get(&it.container).map(classic),
        })
    });
    Ok(Value::Array(entries.collect()))
}

/// `/containers`.
pub(super) async fn containers(server: &Server, query: &Query) -> Result<Value, Stopping> {
    let wanted = |name: &str, value: &str| query.get(name).is_none_or(|it| it == value);
    let all: Vec<Running> = running(server)
        .await?
        .into_iter()
        .filter(|it| {
            server.viewer.may("view_containers", Some(&it.user))
                && wanted("container_id", it.container.as_str())
                && wanted("framework_id", &it.framework)
                && wanted("executor_id", &it.executor)
        })
        .collect();
    let measured = measured(&server.containers, all.iter().map(|it| it.container.clone()).collect()).await;
    let entries = all.iter().map(|it| {
        json!({
            "container_id": it.container.as_str(), "executor_id": it.executor, "executor_name": it.name, "framework_id": it.framework,
            "source": it.source, "statistics": measured.get(&it.container).map(classic), "status": classic(&it.status),
        })
    });
    Ok(Value::Array(entries.collect()))
}
