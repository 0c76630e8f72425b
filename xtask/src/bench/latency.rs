//! From a connection in the kernel to the message that shows its edge.

use std::collections::HashMap;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Number, Target, float, percentile, traffic};
use crate::progress::{Pulse, note};
use crate::stack::Stack;
use crate::traffic::monotonic_nanos;
use crate::websocket::Socket;
use crate::{Checkout, Profile};

/// How often it is tried, each time by a process that was not there before.
const TRIES: u64 = 100;
/// How long an edge may take at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between tries, a little off any round interval, so that tries fall on every phase of a timer.
const PAUSE: Duration = Duration::from_millis(137);

pub(super) fn run(_checkout: &Checkout, scale_down: u64) -> Result<Vec<Number>> {
    let stack = Stack::start(Profile::Release)?;
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
    let address = listener.local_addr()?;
    let mut socket = Socket::open(stack.http(), "/api/topology/processes/ws?t=1s")?;
    let mut view = View::default();
    let tries = (TRIES / scale_down).max(1);
    let alive = Pulse::start(&format!("{tries} connections, one after another"));
    let (mut times, mut late) = (Vec::new(), 0);
    for _ in 0..tries {
        let client = traffic(&["connect".to_owned(), format!("--to={address}"), "--hold-ms=2000".to_owned(), "--stay".to_owned()])?;
        let (connection, _) = listener.accept().context("cannot accept")?;
        let opened = monotonic_nanos()?;
        match view.wait_for_edge(&mut socket, client.pid(), std::process::id())? {
            Some(seen) => times.push(float(seen.saturating_sub(opened)) / 1e6),
            None => late += 1,
        }
        drop(connection);
        drop(client);
        std::thread::sleep(PAUSE);
    }
    drop(alive);
    times.sort_by(f64::total_cmp);
    note("measured from the accepting end's return from accept(2) to the arrival of the message");
    Ok(vec![
        Number::new("latency: edge in a WebSocket message, p50", percentile(&times, 0.5)?, "ms", Target::Stated),
        Number::new("latency: edge in a WebSocket message, p99", percentile(&times, 0.99)?, "ms", Target::Under(300.0)),
        Number::new(format!("latency: edges not seen within {} s", PATIENCE.as_secs()), float(late), "", Target::Exactly(0.0)),
    ])
}

/// The edges of the view, as the messages so far make them.
#[derive(Debug, Default)]
struct View {
    adjacency: HashMap<String, Vec<String>>,
}

impl View {
    /// When the message came that shows the edge from one process to another.
    fn wait_for_edge(&mut self, socket: &mut Socket, from: u32, to: u32) -> Result<Option<u64>> {
        let deadline = monotonic_nanos()? + u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
        while !self.has_edge(from, to) {
            let left = deadline.saturating_sub(monotonic_nanos()?);
            if left == 0 {
                return Ok(None);
            }
            if let Some(message) = socket.next(Duration::from_nanos(left))? {
                self.apply(&message)?;
            }
        }
        Ok(Some(monotonic_nanos()?))
    }

    fn apply(&mut self, message: &Value) -> Result<()> {
        if !message.is_object() {
            bail!("the WebSocket sent {message:.100}");
        }
        if message["reset"] == true {
            self.adjacency.clear();
        }
        for id in message["remove"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.adjacency.remove(id);
        }
        for node in ["update", "add"].iter().flat_map(|kind| message[*kind].as_array().into_iter().flatten()) {
            let neighbours = node["adjacency"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            self.adjacency.insert(node["id"].as_str().context("a node has no id")?.to_owned(), neighbours);
        }
        Ok(())
    }

    fn has_edge(&self, from: u32, to: u32) -> bool {
        let (from, to) = (format!(";{from}"), format!(";{to}"));
        self.adjacency.iter().any(|(id, neighbours)| id.ends_with(&from) && neighbours.iter().any(|neighbour| neighbour.ends_with(&to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_there_until_its_node_is_removed() -> Result<()> {
        let mut view = View::default();
        view.apply(
            &serde_json::json!({ "add": [{ "id": "host;12", "adjacency": ["host;34"] }], "update": null, "remove": null, "reset": true }),
        )?;
        assert!(view.has_edge(12, 34) && !view.has_edge(34, 12) && !view.has_edge(2, 34));
        view.apply(&serde_json::json!({ "add": null, "update": null, "remove": ["host;12"] }))?;
        assert!(!view.has_edge(12, 34));
        Ok(())
    }
}
