//! Which agent, framework or task is meant. People type the part of a name that they see; more than one that fits is an error, never a guess.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::client::Client;
use crate::output::text;

/// Tasks that one page of `/tasks` may have.
const PAGE: usize = 10_000;

/// How many candidates an error names.
const CANDIDATES_SHOWN: usize = 8;

/// What fits best: exactly, else by one of the looser rules, tried in turn.
fn choose(kind: &str, wanted: &str, all: Vec<Value>, rules: &[&dyn Fn(&Value) -> bool]) -> Result<Value> {
    for rule in rules {
        let mut fitting: Vec<&Value> = all.iter().filter(|it| rule(it)).collect();
        match fitting.len() {
            0 => {}
            1 => return Ok(fitting.remove(0).clone()),
            count => {
                let ids: Vec<&str> = fitting.iter().take(CANDIDATES_SHOWN).map(|it| text(it, "id")).collect();
                let more = if count > ids.len() { format!(" and {} more", count - ids.len()) } else { String::new() };
                bail!("{wanted:?} may be any of {count} {kind}s: {}{more}", ids.join(", "));
            }
        }
    }
    bail!("there is no {kind} {wanted:?}")
}

fn has_end(id: &str, end: &str) -> bool {
    id.strip_suffix(end).is_some_and(|rest| rest.ends_with('-'))
}

/// An entry of `/slaves`.
pub(crate) fn agent(client: &Client, wanted: &str) -> Result<Value> {
    let all = list(&client.get("/slaves")?, "slaves");
    choose(
        "agent",
        wanted,
        all,
        &[&|it| text(it, "id") == wanted, &|it| has_end(text(it, "id"), wanted), &|it| text(it, "hostname") == wanted],
    )
}

/// Id of an agent.
pub(crate) fn agent_id(client: &Client, wanted: &str) -> Result<Value> {
    Ok(json!({ "value": agent(client, wanted)?["id"] }))
}

/// Where the HTTP API of an agent is, from its `pid`, and whether it is spoken over TLS.
pub(crate) fn agent_address(agent: &Value) -> Result<String> {
    match text(agent, "pid").split_once('@') {
        Some((_, address)) if !address.is_empty() => {
            let scheme = if text(agent, "scheme") == "https" { "https" } else { "http" };
            Ok(format!("{scheme}://{address}"))
        }
        _ => bail!("the agent {} has no address", text(agent, "id")),
    }
}

/// All frameworks that are not over, in the shape `{"id", "name", "info", "active", …}`.
pub(crate) fn frameworks(client: &Client, with_completed: bool) -> Result<Vec<Value>> {
    let answer = client.call("GET_FRAMEWORKS", Value::Null)?;
    let all = &answer["get_frameworks"];
    let flat = |it: &Value, over: bool| {
        let info = &it["framework_info"];
        let mut flat = json!({ "id": info["id"]["value"], "name": info["name"], "info": info, "completed": over });
        for field in ["active", "connected", "recovered", "registered_time", "allocated_resources", "offered_resources", "offers"] {
            flat[field] = it[field].clone();
        }
        flat
    };
    let mut found: Vec<Value> = list(all, "frameworks").iter().map(|it| flat(it, false)).collect();
    if with_completed {
        found.extend(list(all, "completed_frameworks").iter().map(|it| flat(it, true)));
    }
    Ok(found)
}

/// One of them.
pub(crate) fn framework(client: &Client, wanted: &str, with_completed: bool) -> Result<Value> {
    choose(
        "framework",
        wanted,
        frameworks(client, with_completed)?,
        &[&|it| text(it, "id") == wanted, &|it| has_end(text(it, "id"), wanted), &|it| text(it, "name") == wanted],
    )
}

/// All tasks, those that are over with them, in the shape of `/tasks`.
pub(crate) fn tasks(client: &Client, filter: &str) -> Result<Vec<Value>> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let page = list(&client.get(&format!("/tasks?order=asc&limit={PAGE}&offset={}{filter}", all.len()))?, "tasks");
        let count = page.len();
        all.extend(page);
        if count < PAGE {
            return Ok(all);
        }
    }
}

/// One of them: by its id; else by the beginning of its id or by its name, where those that run go first.
pub(crate) fn task(client: &Client, wanted: &str) -> Result<Value> {
    let by_id = tasks(client, &format!("&task_id={}", encode(wanted)))?;
    if let [task] = by_id.as_slice() {
        return Ok(task.clone());
    }
    let runs = |it: &Value| !is_over(text(it, "state"));
    choose(
        "task",
        wanted,
        tasks(client, "")?,
        &[
            &|it| text(it, "id") == wanted && runs(it),
            &|it| text(it, "name") == wanted && runs(it),
            &|it| text(it, "id").starts_with(wanted) && runs(it),
            &|it| text(it, "id") == wanted,
            &|it| text(it, "id").starts_with(wanted),
        ],
    )
}

/// Whether a state is one that a task stays in.
pub(crate) fn is_over(state: &str) -> bool {
    matches!(
        state,
        "TASK_FINISHED"
            | "TASK_FAILED"
            | "TASK_KILLED"
            | "TASK_ERROR"
            | "TASK_LOST"
            | "TASK_DROPPED"
            | "TASK_GONE"
            | "TASK_GONE_BY_OPERATOR"
    )
}

/// The agent of a task, as `/slaves` has it.
pub(crate) fn agent_of(client: &Client, task: &Value) -> Result<Value> {
    let id = text(task, "slave_id");
    let found = list(&client.get(&format!("/slaves?slave_id={}", encode(id)))?, "slaves");
    match found.into_iter().find(|it| text(it, "id") == id) {
        Some(agent) => Ok(agent),
        None => bail!("the agent {id} of the task {} is not registered", text(task, "id")),
    }
}

/// The container of a task, as its last status names it.
pub(crate) fn container_of(task: &Value) -> Option<Value> {
    let statuses = task["statuses"].as_array()?;
    statuses.iter().rev().map(|it| &it["container_status"]["container_id"]).find(|it| it["value"].is_string()).cloned()
}

/// An array of an object; empty where there is none.
pub(crate) fn list(value: &Value, name: &str) -> Vec<Value> {
    value[name].as_array().cloned().unwrap_or_default()
}

/// For a query.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_name_is_enough_unless_two_fit() {
        let all = || {
            vec![
                json!({ "id": "m-S1", "hostname": "a" }),
                json!({ "id": "m-S11", "hostname": "b" }),
                json!({ "id": "m-S2", "hostname": "b" }),
            ]
        };
        let find = |wanted: &str| {
            choose("agent", wanted, all(), &[&|it| has_end(text(it, "id"), wanted), &|it| text(it, "hostname") == wanted])
                .map(|it| text(&it, "id").to_owned())
                .map_err(|it| it.to_string())
        };
        assert_eq!((find("S1"), find("a")), (Ok("m-S1".to_owned()), Ok("m-S1".to_owned())));
        assert_eq!(find("b"), Err("\"b\" may be any of 2 agents: m-S11, m-S2".to_owned()));
        assert_eq!(find("1"), Err("there is no agent \"1\"".to_owned()));
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("a b&c/d"), "a%20b%26c/d");
    }
}
