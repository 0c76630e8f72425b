//! Reservations and persistent volumes.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::arguments::{ReserveFlags, VolumesCommand, VolumesFlags};
use crate::client::Client;
use crate::output::{Out, number, text};
use crate::resolve;

pub(crate) fn reserve(client: &Client, flags: &ReserveFlags, reserves: bool, out: &mut Out<'_>) -> Result<()> {
    let id = resolve::agent_id(client, &flags.agent)?;
    let resources = mesos::parse_resources(&flags.resources, "*")?;
    if resources.is_empty() {
        bail!("there are no resources in {:?}", flags.resources);
    }
    let reserved = resources.iter().map(|it| {
        let mut resource: Value = serde_json::from_slice(&mesos_proto::json::to_vec(it))?;
        if resource["reservations"].as_array().is_some_and(|it| !it.is_empty()) {
            bail!("{} already names a role; --role says for whom", it.name);
        }
        resource["reservations"] = json!([reservation(&flags.role, flags.by.as_deref(), &flags.label)]);
        Ok(resource)
    });
    let reserved = reserved.collect::<Result<Vec<Value>>>()?;
    let kind = if reserves { "RESERVE_RESOURCES" } else { "UNRESERVE_RESOURCES" };
    client.call(kind, json!({ "agent_id": id, "resources": reserved }))?;
    let what = if reserves { "reserved for" } else { "no more reserved for" };
    out.done(&format!("{} of {} is {what} {}", flags.resources, text(&id, "value"), flags.role))
}

fn reservation(role: &str, principal: Option<&str>, labels: &[(String, String)]) -> Value {
    let mut reservation = json!({ "type": "DYNAMIC", "role": role });
    if let Some(principal) = principal {
        reservation["principal"] = json!(principal);
    }
    if !labels.is_empty() {
        let labels: Vec<Value> = labels.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        reservation["labels"] = json!({ "labels": labels });
    }
    reservation
}

/// Disk that is reserved so, as a volume.
fn volume(id: &str, megabytes: f64, path: &str, principal: Option<&str>, reservation: &Value) -> Value {
    let mut persistence = json!({ "id": id });
    if let Some(principal) = principal {
        persistence["principal"] = json!(principal);
    }
    json!({
        "name": "disk", "type": "SCALAR", "scalar": { "value": megabytes },
        "reservations": [reservation],
        "disk": { "persistence": persistence, "volume": { "container_path": path, "mode": "RW" } },
    })
}

pub(crate) fn volumes(client: &Client, flags: &VolumesFlags, out: &mut Out<'_>) -> Result<()> {
    match &flags.command {
        None | Some(VolumesCommand::List) => {
            let all = all_volumes(client)?;
            out.list(&["ID", "AGENT", "HOST", "ROLE", "SIZE MB", "PATH"], &all, |it| {
                let volume = &it["volume"];
                let role =
                    volume["reservations"].as_array().and_then(|it| it.last()).map(|it| text(it, "role").to_owned()).unwrap_or_default();
                vec![
                    text(it, "id").to_owned(),
                    text(it, "agent").to_owned(),
                    text(it, "host").to_owned(),
                    role,
                    volume["scalar"]["value"].as_f64().map(number).unwrap_or_default(),
                    text(&volume["disk"]["volume"], "container_path").to_owned(),
                ]
            })
        }
        Some(VolumesCommand::Create { agent, id, size, role, path, by, label }) => {
            let agent = resolve::agent_id(client, agent)?;
            let volume = volume(id, *size, path, by.as_deref(), &reservation(role, by.as_deref(), label));
            client.call("CREATE_VOLUMES", json!({ "agent_id": agent, "volumes": [volume] }))?;
            out.done(&format!("the volume {id} is made on {}", text(&agent, "value")))
        }
        Some(VolumesCommand::Destroy { agent, id }) => {
            let agent = resolve::agent(client, agent)?;
            let all = all_volumes(client)?;
            let volume = all.iter().find(|it| it["agent"] == agent["id"] && text(it, "id") == id);
            let volume = volume.with_context(|| format!("there is no volume {id:?} on {}", text(&agent, "id")))?;
            client.call("DESTROY_VOLUMES", json!({ "agent_id": { "value": agent["id"] }, "volumes": [volume["volume"]] }))?;
            out.done(&format!("the volume {id} is destroyed"))
        }
    }
}

/// Every persistent volume with its agent; `volume` is the resource as the master has it.
fn all_volumes(client: &Client) -> Result<Vec<Value>> {
    let answer = client.call("GET_AGENTS", Value::Null)?;
    let mut all = Vec::new();
    for agent in resolve::list(&answer["get_agents"], "agents") {
        let info = &agent["agent_info"];
        for resource in resolve::list(&agent, "total_resources") {
            if let Some(id) = resource["disk"]["persistence"]["id"].as_str() {
                all.push(json!({ "id": id, "agent": info["id"]["value"], "host": info["hostname"], "volume": resource }));
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    #[test]
    fn a_volume_is_made_of_the_reservation_that_it_names() {
        let line = "orchestrator volumes create S1 v --size 64 --role db --path data --by ann --label tier=fast";
        let parsed = Arguments::try_parse_from(line.split(' ')).unwrap().command;
        let Command::Volumes(VolumesFlags { command: Some(VolumesCommand::Create { id, size, role, path, by, label, .. }) }) = parsed
        else {
            panic!("{parsed:?}")
        };
        let made = volume(&id, size, &path, by.as_deref(), &reservation(&role, by.as_deref(), &label));
        let labels = json!({ "labels": [{ "key": "tier", "value": "fast" }] });
        assert_eq!(made["reservations"], json!([{ "type": "DYNAMIC", "role": "db", "principal": "ann", "labels": labels }]));
        assert_eq!((&made["disk"]["persistence"], &made["scalar"]["value"]), (&json!({ "id": "v", "principal": "ann" }), &json!(64.0)));
    }
}
