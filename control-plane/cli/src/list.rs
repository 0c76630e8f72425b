//! What there is.

use std::collections::HashMap;

use anyhow::Result;
use serde_json::{Value, json};

use crate::arguments::{TasksCommand, TasksFlags, WhichTasks};
use crate::client::Client;
use crate::output::{Out, amounts, number, text};
use crate::{change, resolve};

pub(crate) fn agents(client: &Client, wanted: Option<&str>, out: &mut Out<'_>) -> Result<()> {
    if let Some(wanted) = wanted {
        let agent = resolve::agent(client, wanted)?;
        if out.is_json() {
            return out.json(&agent);
        }
        return out.pairs(&[
            ("id", text(&agent, "id").to_owned()),
            ("host", text(&agent, "hostname").to_owned()),
            ("pid", text(&agent, "pid").to_owned()),
            ("state", agent_state(&agent)),
            ("resources", amounts(&agent["resources"])),
            ("used", amounts(&agent["used_resources"])),
            ("offered", amounts(&agent["offered_resources"])),
            ("reserved", reserved(&agent["reserved_resources"])),
            ("attributes", attributes(&agent["attributes"])),
            ("version", text(&agent, "version").to_owned()),
        ]);
    }
    let all = resolve::list(&client.get("/slaves")?, "slaves");
    out.list(&["ID", "HOST", "STATE", "RESOURCES", "USED", "OFFERED"], &all, |it| {
        vec![
            text(it, "id").to_owned(),
            text(it, "hostname").to_owned(),
            agent_state(it),
            amounts(&it["resources"]),
            amounts(&it["used_resources"]),
            amounts(&it["offered_resources"]),
        ]
    })
}

fn agent_state(agent: &Value) -> String {
    let drain = text(&agent["drain_info"], "state");
    let state = match (drain, agent["deactivated"].as_bool(), agent["active"].as_bool()) {
        ("DRAINING", ..) => "draining",
        ("DRAINED", ..) => "drained",
        (_, Some(true), _) => "deactivated",
        (_, _, Some(false)) => "disconnected",
        _ => "active",
    };
    state.to_owned()
}

fn reserved(by_role: &Value) -> String {
    let roles = by_role.as_object().into_iter().flatten();
    roles.map(|(role, it)| format!("{role}({})", amounts(it))).collect::<Vec<_>>().join(" ")
}

fn attributes(all: &Value) -> String {
    let word = |it: &Value| it.as_str().map_or_else(|| it.to_string(), str::to_owned);
    all.as_object().into_iter().flatten().map(|(name, it)| format!("{name}:{}", word(it))).collect::<Vec<_>>().join(";")
}

pub(crate) fn frameworks(client: &Client, wanted: Option<&str>, with_completed: bool, out: &mut Out<'_>) -> Result<()> {
    if let Some(wanted) = wanted {
        let framework = resolve::framework(client, wanted, true)?;
        if out.is_json() {
            return out.json(&framework);
        }
        let info = &framework["info"];
        return out.pairs(&[
            ("id", text(&framework, "id").to_owned()),
            ("name", text(&framework, "name").to_owned()),
            ("state", framework_state(&framework)),
            ("roles", roles_of(info)),
            ("user", text(info, "user").to_owned()),
            ("principal", text(info, "principal").to_owned()),
            ("host", text(info, "hostname").to_owned()),
            ("web page", text(info, "webui_url").to_owned()),
            ("failover timeout", info["failover_timeout"].as_f64().map(|it| format!("{} s", number(it))).unwrap_or_default()),
            ("allocated", full_amounts(&framework["allocated_resources"])),
            ("offered", full_amounts(&framework["offered_resources"])),
        ]);
    }
    let all = resolve::frameworks(client, with_completed)?;
    out.list(&["ID", "NAME", "STATE", "ROLES", "ALLOCATED", "OFFERED"], &all, |it| {
        vec![
            text(it, "id").to_owned(),
            text(it, "name").to_owned(),
            framework_state(it),
            roles_of(&it["info"]),
            full_amounts(&it["allocated_resources"]),
            full_amounts(&it["offered_resources"]),
        ]
    })
}

fn framework_state(framework: &Value) -> String {
    let is = |name: &str| framework[name].as_bool().unwrap_or(false);
    let state = match () {
        () if is("completed") => "completed",
        () if is("recovered") => "recovered",
        () if !is("connected") => "disconnected",
        () if !is("active") => "inactive",
        () => "active",
    };
    state.to_owned()
}

fn roles_of(info: &Value) -> String {
    let roles: Vec<&str> = info["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if roles.is_empty() { info["role"].as_str().unwrap_or("*").to_owned() } else { roles.join(",") }
}

/// Sums of scalars of a list of `Resource`.
pub(crate) fn full_amounts(resources: &Value) -> String {
    let mut sums = serde_json::Map::new();
    for resource in resources.as_array().into_iter().flatten() {
        if let Some(amount) = resource["scalar"]["value"].as_f64() {
            let name = text(resource, "name").to_owned();
            let sum = sums.get(&name).and_then(Value::as_f64).unwrap_or(0.0) + amount;
            sums.insert(name, json!(sum));
        }
    }
    amounts(&Value::Object(sums))
}

pub(crate) fn roles(client: &Client, out: &mut Out<'_>) -> Result<()> {
    let all = resolve::list(&client.get("/roles")?, "roles");
    out.list(&["ROLE", "WEIGHT", "FRAMEWORKS", "ALLOCATED", "GUARANTEE", "LIMIT"], &all, |it| {
        let quota = &it["quota"];
        vec![
            text(it, "name").to_owned(),
            number(it["weight"].as_f64().unwrap_or(1.0)),
            it["frameworks"].as_array().map_or(0, Vec::len).to_string(),
            amounts(&it["allocated"]),
            amounts(&quota["guarantee"]),
            amounts(&quota["limit"]),
        ]
    })
}

pub(crate) fn tasks(client: &Client, flags: &TasksFlags, out: &mut Out<'_>) -> Result<()> {
    match &flags.command {
        None => list_tasks(client, &flags.which, out),
        Some(TasksCommand::List(which)) => list_tasks(client, which, out),
        Some(TasksCommand::Show { task }) => show_task(client, task, out),
        Some(TasksCommand::Kill { task, signal }) => change::kill(client, task, *signal, out),
    }
}

fn list_tasks(client: &Client, which: &WhichTasks, out: &mut Out<'_>) -> Result<()> {
    let framework = which.framework.as_deref().map(|it| resolve::framework(client, it, which.all)).transpose()?;
    let agent = which.agent.as_deref().map(|it| resolve::agent(client, it)).transpose()?;
    let filter = framework.map(|it| format!("&framework_id={}", resolve::encode(text(&it, "id")))).unwrap_or_default();
    let wanted = which.state.as_ref().map(|it| it.to_uppercase()).map(|it| if it.starts_with("TASK_") { it } else { format!("TASK_{it}") });
    let mut all = resolve::tasks(client, &filter)?;
    all.retain(|it| {
        let state = text(it, "state");
        let is_wanted = match &wanted {
            Some(wanted) => state == wanted,
            None => which.all || !resolve::is_over(state),
        };
        is_wanted && agent.as_ref().is_none_or(|agent| agent["id"] == it["slave_id"])
    });
    if out.is_json() {
        return out.json(&Value::Array(all));
    }
    let frameworks = names(&resolve::frameworks(client, true)?, "name");
    let hosts = names(&resolve::list(&client.get("/slaves")?, "slaves"), "hostname");
    let named = |names: &HashMap<String, String>, id: &str| names.get(id).cloned().unwrap_or_else(|| id.to_owned());
    out.list(&["ID", "NAME", "FRAMEWORK", "HOST", "STATE", "RESOURCES"], &all, |it| {
        vec![
            text(it, "id").to_owned(),
            text(it, "name").to_owned(),
            named(&frameworks, text(it, "framework_id")),
            named(&hosts, text(it, "slave_id")),
            state_word(it),
            amounts(&it["resources"]),
        ]
    })
}

fn names(all: &[Value], field: &str) -> HashMap<String, String> {
    all.iter().map(|it| (text(it, "id").to_owned(), text(it, field).to_owned())).collect()
}

fn state_word(task: &Value) -> String {
    text(task, "state").trim_start_matches("TASK_").to_lowercase()
}

fn show_task(client: &Client, wanted: &str, out: &mut Out<'_>) -> Result<()> {
    let task = resolve::task(client, wanted)?;
    if out.is_json() {
        return out.json(&task);
    }
    let last = task["statuses"].as_array().and_then(|it| it.last()).cloned().unwrap_or_default();
    let container = resolve::container_of(&task).map(|it| text(&it, "value").to_owned()).unwrap_or_default();
    let networks = last["container_status"]["network_infos"].as_array().into_iter().flatten();
    let addresses = networks.flat_map(|it| it["ip_addresses"].as_array().into_iter().flatten()).filter_map(|it| it["ip_address"].as_str());
    let label = |it: &Value| format!("{}={}", text(it, "key"), text(it, "value"));
    let agent = resolve::agent_of(client, &task).map(|it| text(&it, "hostname").to_owned()).unwrap_or_default();
    out.pairs(&[
        ("id", text(&task, "id").to_owned()),
        ("name", text(&task, "name").to_owned()),
        ("framework", text(&task, "framework_id").to_owned()),
        ("executor", text(&task, "executor_id").to_owned()),
        ("agent", format!("{} {agent}", text(&task, "slave_id"))),
        ("state", state_word(&task)),
        ("healthy", last["healthy"].as_bool().map(|it| it.to_string()).unwrap_or_default()),
        ("resources", amounts(&task["resources"])),
        ("role", text(&task, "role").to_owned()),
        ("container", container),
        ("addresses", addresses.collect::<Vec<_>>().join(" ")),
        ("labels", task["labels"].as_array().into_iter().flatten().map(label).collect::<Vec<_>>().join(" ")),
    ])
}

pub(crate) fn state(client: &Client, out: &mut Out<'_>) -> Result<()> {
    out.json(&client.get("/state")?)
}

pub(crate) fn leader(client: &Client, out: &mut Out<'_>) -> Result<()> {
    let info = client.call("GET_MASTER", Value::Null)?["get_master"]["master_info"].take();
    if out.is_json() {
        return out.json(&info);
    }
    let address = &info["address"];
    out.pairs(&[
        ("host", text(&info, "hostname").to_owned()),
        ("address", format!("{}:{}", text(address, "ip"), address["port"])),
        ("asked at", client.master()),
        ("id", text(&info, "id").to_owned()),
        ("version", text(&info, "version").to_owned()),
    ])
}
