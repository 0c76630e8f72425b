//! Changes of agents, tasks, frameworks, quota and weights.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::arguments::{QuotaCommand, QuotaFlags, WeightsCommand, WeightsFlags};
use crate::client::Client;
use crate::output::{Out, amounts, number, text};
use crate::resolve;

/// A call that names an agent and nothing else.
pub(crate) fn agent(client: &Client, kind: &str, wanted: &str, done: &str, out: &mut Out<'_>) -> Result<()> {
    let id = resolve::agent_id(client, wanted)?;
    client.call(kind, json!({ "agent_id": id }))?;
    out.done(&format!("{} is {done}", text(&id, "value")))
}

pub(crate) fn drain(client: &Client, wanted: &str, grace: Option<Duration>, mark_gone: bool, out: &mut Out<'_>) -> Result<()> {
    let id = resolve::agent_id(client, wanted)?;
    let mut payload = json!({ "agent_id": id, "mark_gone": mark_gone });
    if let Some(grace) = grace {
        payload["max_grace_period"] = json!({ "seconds": grace.as_secs(), "nanos": grace.subsec_nanos() });
    }
    client.call("DRAIN_AGENT", payload)?;
    out.done(&format!("{} is draining; `orchestrator agents` tells when it is drained", text(&id, "value")))
}

/// Operators have no call for it in Mesos: the agent is asked to end the container.
pub(crate) fn kill(client: &Client, wanted: &str, signal: Option<i32>, out: &mut Out<'_>) -> Result<()> {
    let task = resolve::task(client, wanted)?;
    let id = text(&task, "id");
    let container =
        resolve::container_of(&task).with_context(|| format!("the task {id} has no container (it is {})", text(&task, "state")))?;
    let agent = resolve::agent_address(&resolve::agent_of(client, &task)?)?;
    let mut payload = json!({ "container_id": container });
    if let Some(signal) = signal {
        payload["signal"] = json!(signal);
    }
    client.agent_call(&agent, "KILL_CONTAINER", payload)?;
    let what = signal.map_or_else(|| "is being killed".to_owned(), |it| format!("got signal {it}"));
    out.done(&format!("{id} {what}"))
}

pub(crate) fn teardown(client: &Client, wanted: &str, out: &mut Out<'_>) -> Result<()> {
    let framework = resolve::framework(client, wanted, false)?;
    client.call("TEARDOWN", json!({ "framework_id": { "value": framework["id"] } }))?;
    out.done(&format!("{} {} is torn down", text(&framework, "id"), text(&framework, "name")))
}

pub(crate) fn quota(client: &Client, flags: &QuotaFlags, out: &mut Out<'_>) -> Result<()> {
    match &flags.command {
        None | Some(QuotaCommand::List) => {
            let answer = client.call("GET_QUOTA", Value::Null)?;
            let all = resolve::list(&answer["get_quota"]["status"], "configs");
            out.list(&["ROLE", "GUARANTEE", "LIMIT"], &all, |it| {
                vec![text(it, "role").to_owned(), amounts(&plain(&it["guarantees"])), amounts(&plain(&it["limits"]))]
            })
        }
        Some(QuotaCommand::Set { role, guarantee, limit, force }) => {
            let mut config = json!({ "role": role });
            for (field, given) in [("guarantees", guarantee), ("limits", limit)] {
                if let Some(text) = given {
                    config[field] = scalars(text)?;
                }
            }
            client.call("UPDATE_QUOTA", json!({ "force": force, "quota_configs": [config] }))?;
            out.done(&format!("the quota of {role} is set"))
        }
        Some(QuotaCommand::Remove { role }) => {
            client.call("UPDATE_QUOTA", json!({ "quota_configs": [{ "role": role }] }))?;
            out.done(&format!("{role} has no quota any more"))
        }
    }
}

/// `{"cpus": {"value": 1}}` as `{"cpus": 1}`.
fn plain(amounts: &Value) -> Value {
    Value::Object(amounts.as_object().into_iter().flatten().map(|(name, it)| (name.clone(), it["value"].clone())).collect())
}

/// `cpus:1;mem:64` as `{"cpus": {"value": 1}, …}`.
fn scalars(text: &str) -> Result<Value> {
    let resources = mesos::parse_resources(text, "*")?;
    let pairs = resources.iter().map(|it| {
        let scalar = it.scalar.with_context(|| format!("{} is no amount", it.name))?;
        Ok((it.name.clone(), json!({ "value": scalar.value })))
    });
    pairs.collect::<Result<Map<_, _>>>().map(Value::Object)
}

pub(crate) fn weights(client: &Client, flags: &WeightsFlags, out: &mut Out<'_>) -> Result<()> {
    match &flags.command {
        None | Some(WeightsCommand::List) => {
            let answer = client.call("GET_WEIGHTS", Value::Null)?;
            let all = resolve::list(&answer["get_weights"], "weight_infos");
            out.list(&["ROLE", "WEIGHT"], &all, |it| vec![text(it, "role").to_owned(), number(it["weight"].as_f64().unwrap_or(1.0))])
        }
        Some(WeightsCommand::Set { weights }) => {
            let infos: Vec<Value> = weights.iter().map(|(role, weight)| json!({ "role": role, "weight": weight })).collect();
            client.call("UPDATE_WEIGHTS", json!({ "weight_infos": infos }))?;
            out.done("the weights are set")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_quota_are_scalars() {
        assert_eq!(scalars("cpus:1.5;mem:64").unwrap(), json!({ "cpus": { "value": 1.5 }, "mem": { "value": 64.0 } }));
        assert!(scalars("ports:[1-2]").is_err());
        assert!(scalars("cpus").is_err());
    }
}
