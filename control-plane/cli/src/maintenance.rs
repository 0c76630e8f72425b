//! Maintenance windows, and machines that go down and come back.

use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::arguments::{MaintenanceCommand, MaintenanceFlags};
use crate::client::Client;
use crate::output::{Out, text};
use crate::resolve;

pub(crate) fn run(client: &Client, flags: &MaintenanceFlags, out: &mut Out<'_>) -> Result<()> {
    match &flags.command {
        None | Some(MaintenanceCommand::Status) => status(client, out),
        Some(MaintenanceCommand::Schedule { machines, start, duration }) => {
            let mut windows = windows(client)?;
            let start = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let mut unavailability = json!({ "start": { "nanoseconds": nanoseconds(start) } });
            if let Some(duration) = duration {
                unavailability["duration"] = json!({ "nanoseconds": nanoseconds(*duration) });
            }
            windows.push(json!({ "machine_ids": ids(machines), "unavailability": unavailability }));
            set(client, &windows)?;
            out.done(&format!("{} scheduled", machines.join(", ")))
        }
        Some(MaintenanceCommand::Unschedule { machines }) => {
            let unwanted = ids(machines);
            let mut windows = windows(client)?;
            for window in &mut windows {
                let mut left = resolve::list(window, "machine_ids");
                left.retain(|it| !machines.is_empty() && !unwanted.contains(it));
                window["machine_ids"] = Value::Array(left);
            }
            windows.retain(|it| it["machine_ids"].as_array().is_some_and(|it| !it.is_empty()));
            set(client, &windows)?;
            out.done(&format!("{} windows are left", windows.len()))
        }
        Some(MaintenanceCommand::Down { machines }) => {
            client.call("START_MAINTENANCE", json!({ "machines": ids(machines) }))?;
            out.done(&format!("{} down", machines.join(", ")))
        }
        Some(MaintenanceCommand::Up { machines }) => {
            client.call("STOP_MAINTENANCE", json!({ "machines": ids(machines) }))?;
            out.done(&format!("{} up", machines.join(", ")))
        }
    }
}

fn nanoseconds(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

fn ids(machines: &[String]) -> Vec<Value> {
    let id = |it: &String| match it.split_once('=') {
        Some((host, address)) => json!({ "hostname": host, "ip": address }),
        None => json!({ "hostname": it }),
    };
    machines.iter().map(id).collect()
}

fn windows(client: &Client) -> Result<Vec<Value>> {
    let answer = client.call("GET_MAINTENANCE_SCHEDULE", Value::Null)?;
    Ok(resolve::list(&answer["get_maintenance_schedule"]["schedule"], "windows"))
}

fn set(client: &Client, windows: &[Value]) -> Result<()> {
    client.call("UPDATE_MAINTENANCE_SCHEDULE", json!({ "schedule": { "windows": windows } })).map(drop)
}

fn status(client: &Client, out: &mut Out<'_>) -> Result<()> {
    let answer = client.call("GET_MAINTENANCE_STATUS", Value::Null)?;
    let status = &answer["get_maintenance_status"]["status"];
    if !status.is_object() {
        bail!("the master told no maintenance status");
    }
    let windows = windows(client)?;
    let window_of = |machine: &Value| {
        let window = windows.iter().find(|it| it["machine_ids"].as_array().is_some_and(|all| all.contains(machine)));
        let start = window.and_then(|it| it["unavailability"]["start"]["nanoseconds"].as_u64());
        let start = start.map(|it| humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_nanos(it)).to_string());
        let span = window.and_then(|it| it["unavailability"]["duration"]["nanoseconds"].as_u64());
        (start.unwrap_or_default(), span.map(|it| humantime::format_duration(Duration::from_nanos(it)).to_string()).unwrap_or_default())
    };
    let mut all = Vec::new();
    for it in resolve::list(status, "draining_machines") {
        let (start, span) = window_of(&it["id"]);
        all.push(json!({ "machine": it["id"], "state": "scheduled", "start": start, "duration": span }));
    }
    for id in resolve::list(status, "down_machines") {
        let (start, span) = window_of(&id);
        all.push(json!({ "machine": id, "state": "down", "start": start, "duration": span }));
    }
    out.list(&["HOST", "ADDRESS", "STATE", "START", "DURATION"], &all, |it| {
        let machine = &it["machine"];
        let texts = [text(machine, "hostname"), text(machine, "ip"), text(it, "state"), text(it, "start"), text(it, "duration")];
        texts.iter().map(|it| (*it).to_owned()).collect()
    })
}
