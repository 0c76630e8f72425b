//! What the map sees of the connections of tasks, in the words of who decides how many there should be.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use edge_marathon::autoscale::{Connected, Connections, Place};
use tokio::sync::Mutex;
use topology::{FlowCounters, TrafficFlow, TrafficPlace};

use crate::drivers::TopologyHandle;

/// Tasks whose totals are remembered. Beyond that, all begin anew.
const TASKS: usize = 100_000;

/// Sees the connections of tasks on the map of this process.
pub(crate) struct OnTheMap {
    topology: TopologyHandle,
    tasks: Mutex<BTreeMap<String, Task>>,
}

/// A task's totals, and what they were made of. Flows leave the map when they have been silent for long: what they counted stays.
#[derive(Debug, Default)]
struct Task {
    totals: Connections,
    flows: BTreeMap<u64, TrafficFlow>,
}

impl fmt::Debug for OnTheMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnTheMap").finish_non_exhaustive()
    }
}

impl OnTheMap {
    pub(crate) fn new(topology: TopologyHandle) -> OnTheMap {
        OnTheMap { topology, tasks: Mutex::new(BTreeMap::new()) }
    }

    async fn all(&self, places: &[Place]) -> Vec<Option<Connections>> {
        let wanted = places.iter().map(|it| TrafficPlace {
            host: it.host.as_str().into(),
            ports: it.ports.clone(),
            addresses: it.addresses.iter().filter_map(|it| it.parse().ok()).collect(),
        });
        let Ok(found) = self.topology.traffic(wanted.collect()).await else { return vec![None; places.len()] };
        let mut tasks = self.tasks.lock().await;
        // Those that ended are not asked for again.
        if tasks.len() > TASKS {
            tasks.clear();
        }
        places.iter().zip(found).map(|(place, flows)| Some(tasks.entry(place.task_id.clone()).or_default().count(&flows?))).collect()
    }
}

impl Connected for OnTheMap {
    fn look<'a>(&'a self, places: &'a [Place]) -> std::pin::Pin<Box<dyn Future<Output = Vec<Option<Connections>>> + Send + 'a>> {
        Box::pin(self.all(places))
    }
}

impl Task {
    /// Adds what flows have counted since the look before, and gives the totals. A flow that was not there then has counted all of it since.
    fn count(&mut self, flows: &[TrafficFlow]) -> Connections {
        self.totals.open = 0;
        let mut now = BTreeMap::new();
        for flow in flows {
            let empty = TrafficFlow { ordinal: 0, counters: FlowCounters::default(), requests: 0, errors: 0 };
            let before = self.flows.get(&flow.ordinal).unwrap_or(&empty);
            let more = |of: fn(&TrafficFlow) -> u64| of(flow).saturating_sub(of(before));
            self.totals.accepted += more(|it| it.counters.opened);
            self.totals.bytes += more(|it| it.counters.bytes_sent.saturating_add(it.counters.bytes_received));
            self.totals.retransmits += more(|it| it.counters.retransmits);
            self.totals.rtt_us_sum += more(|it| it.counters.rtt_us_sum);
            self.totals.rtt_count += more(|it| it.counters.rtt_count);
            self.totals.requests += more(|it| it.requests);
            self.totals.errors += more(|it| it.errors);
            self.totals.open += flow.counters.active();
            now.insert(flow.ordinal, *flow);
        }
        self.flows = now;
        self.totals
    }
}

/// An [`OnTheMap`] behind the door that the scheduler asks at.
pub(crate) fn on_the_map(topology: TopologyHandle) -> Arc<dyn Connected> {
    Arc::new(OnTheMap::new(topology))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(ordinal: u64, opened: u64, closed: u64) -> TrafficFlow {
        let counters = FlowCounters { opened, closed, bytes_sent: opened * 10, ..FlowCounters::default() };
        TrafficFlow { ordinal, counters, requests: 0, errors: 0 }
    }

    #[test]
    fn what_a_flow_has_counted_stays_when_it_leaves_the_map() {
        let mut task = Task::default();
        assert_eq!(task.count(&[flow(1, 5, 3)]).accepted, 5);
        let totals = task.count(&[flow(1, 9, 9), flow(2, 4, 0)]);
        assert_eq!((totals.accepted, totals.open, totals.bytes), (13, 4, 130));
        let totals = task.count(&[flow(2, 6, 6)]);
        assert_eq!((totals.accepted, totals.open), (15, 0));
    }
}
