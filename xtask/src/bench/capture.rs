//! Are all connections counted, with the right process on both ends?

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::{Number, Target, client, counter, float, flows_total, server};
use crate::progress::{Pulse, note};
use crate::stack::Stack;
use crate::{Checkout, Profile};

/// How many connections.
const CONNECTIONS: u64 = 60_000;
/// How many a second.
const RATE: u64 = 1_000;
/// How long counts may take to arrive at the API after the last connection.
const SETTLE: Duration = Duration::from_secs(30);

pub(super) fn run(_checkout: &Checkout, scale_down: u64) -> Result<Vec<Number>> {
    let count = CONNECTIONS / scale_down;
    let mut stack = Stack::start(Profile::Release)?;
    let (server, address) = server()?;
    let port = address.rsplit(':').next().unwrap_or_default().to_owned();
    let mut client = client(&address, count, RATE)?;
    let report = {
        let _alive = Pulse::start(&format!("{count} connections at {RATE} a second"));
        client.report()?
    };
    let made = counter(&report, "connected")?;
    note(&format!("the load program: {report}"));

    let ends = [("client", client.pid()), ("server", server.pid())];
    let counted = |stack: &Stack, field: &str| -> Vec<u64> {
        ends.iter().map(|(direction, pid)| flows_total(stack, *pid, direction, &port, field).unwrap_or(0)).collect()
    };
    note(&format!("asking http://{}/api/v1/flows?pid={}", stack.http(), client.pid()));
    if let Err(error) = stack.until(SETTLE, "all are counted", |stack| counted(stack, "closed").iter().all(|count| *count >= made)) {
        note(format!("{error:#}").lines().next().unwrap_or_default());
    }
    let (opened, closed) = (counted(&stack, "opened"), counted(&stack, "closed"));
    let probe = stack.probe_state()?;
    let mut numbers = vec![Number::new("capture: connections made", float(made), "", Target::Exactly(float(count)))];
    for (index, (direction, _)) in ends.iter().enumerate() {
        numbers.push(Number::new(
            format!("capture: opened, counted at the {direction}"),
            float(opened[index]),
            "",
            Target::Exactly(float(made)),
        ));
        numbers.push(Number::new(
            format!("capture: closed, counted at the {direction}"),
            float(closed[index]),
            "",
            Target::Exactly(float(made)),
        ));
    }
    numbers.push(Number::new("capture: lost records, flows and owners", float(losses(&probe["losses"])), "", Target::Exactly(0.0)));
    let missed = probe["losses"]["endsSeen"].as_u64().unwrap_or(0).abs_diff(probe["losses"]["endsReported"].as_u64().unwrap_or(0));
    numbers.push(Number::new("capture: connection ends seen but not reported", float(missed), "", Target::Exactly(0.0)));
    Ok(numbers)
}

/// Sum of everything that the probe says it lost.
fn losses(losses: &Value) -> u64 {
    let rings = losses["ringRecords"].as_object().into_iter().flat_map(|rings| rings.values()).filter_map(Value::as_u64).sum::<u64>();
    let single = ["flowsUncounted", "socketsUnowned", "tableFull"].iter().filter_map(|name| losses[*name].as_u64()).sum::<u64>();
    rings + single
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_loss_counts() {
        let told = serde_json::json!({ "ringRecords": { "network": 2, "process": 3 }, "flowsUncounted": 5, "socketsUnowned": 7, "tableFull": 11, "endsSeen": 100 });
        assert_eq!(losses(&told), 28);
    }
}
