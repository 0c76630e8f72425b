//! What the map sees of the connections of tasks, in the words of who decides how many there should be.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_marathon::autoscale::{Connected, Connections, Place};
use tokio::sync::Mutex;
use topology::{FlowCounters, TrafficFlow, TrafficPlace};

use crate::drivers::TopologyHandle;

/// Flows of a task that are remembered, and for how many looks when they are not seen.
const FLOWS: usize = 10_000;
const FLOWS_FOR: u64 = 240;
/// What a flow may be older than the time since the look before, and be new nevertheless.
const SLACK: Duration = Duration::from_secs(5);
/// Tasks whose totals are remembered. Beyond that, all begin anew.
const TASKS: usize = 100_000;

/// Sees the connections of tasks on the map of this process.
pub(crate) struct OnTheMap {
    topology: TopologyHandle,
    tasks: Mutex<BTreeMap<String, Task>>,
}

/// A task's totals, and what they were made of. Flows leave the map when they have been silent for long, and may come back with all that
/// they have counted before.
#[derive(Debug, Default)]
struct Task {
    totals: Connections,
    /// By the probe's run and its number there, with the look at which it was last seen.
    flows: BTreeMap<(Arc<str>, u64), (TrafficFlow, u64)>,
    looks: u64,
    looked: Option<Instant>,
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
        let (mut tasks, now) = (self.tasks.lock().await, Instant::now());
        // Those that ended are not asked for again.
        if tasks.len() > TASKS {
            tasks.clear();
        }
        places.iter().zip(found).map(|(place, flows)| Some(tasks.entry(place.task_id.clone()).or_default().count(&flows?, now))).collect()
    }
}

impl Connected for OnTheMap {
    fn look<'a>(&'a self, places: &'a [Place]) -> std::pin::Pin<Box<dyn Future<Output = Vec<Option<Connections>>> + Send + 'a>> {
        Box::pin(self.all(places))
    }
}

impl Task {
    /// Adds what flows have counted since the look before, and gives the totals.
    fn count(&mut self, flows: &[TrafficFlow], now: Instant) -> Connections {
        self.totals.open = 0;
        self.looks += 1;
        let since = self.looked.replace(now).map(|before| now.duration_since(before));
        for flow in flows {
            let key = (flow.session.clone(), flow.number);
            self.totals.open += flow.counters.active();
            let known = self.flows.insert(key, (flow.clone(), self.looks)).map(|(before, _)| before);
            // One that is not known, and is older than what was not looked at, has counted all but a little before: as good as nothing.
            let is_new = since.is_some_and(|since| flow.age <= since + SLACK);
            let before = match (known, is_new) {
                (Some(before), _) => before,
                (None, true) => TrafficFlow { counters: FlowCounters::default(), requests: 0, errors: 0, ..flow.clone() },
                (None, false) => continue,
            };
            let more = |of: fn(&TrafficFlow) -> u64| of(flow).saturating_sub(of(&before));
            self.totals.accepted += more(|it| it.counters.opened);
            self.totals.bytes += more(|it| it.counters.bytes_sent.saturating_add(it.counters.bytes_received));
            self.totals.retransmits += more(|it| it.counters.retransmits);
            self.totals.rtt_us_sum += more(|it| it.counters.rtt_us_sum);
            self.totals.rtt_count += more(|it| it.counters.rtt_count);
            self.totals.requests += more(|it| it.requests);
            self.totals.errors += more(|it| it.errors);
        }
        let (looks, crowded) = (self.looks, self.flows.len() > FLOWS);
        self.flows.retain(|_, (_, seen)| *seen == looks || !crowded && looks - *seen < FLOWS_FOR);
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

    fn flow(number: u64, opened: u64, closed: u64, age: u64) -> TrafficFlow {
        let counters = FlowCounters { opened, closed, bytes_sent: opened * 10, ..FlowCounters::default() };
        TrafficFlow { session: "s".into(), number, counters, requests: 0, errors: 0, age: Duration::from_secs(age) }
    }

    #[test]
    fn what_a_flow_has_counted_stays_when_it_leaves_the_map() {
        let (mut task, begun) = (Task::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(task.count(&[flow(1, 5, 3, 100)], at(0)).accepted, 0, "what was before the first look is not counted");
        let totals = task.count(&[flow(1, 9, 9, 105), flow(2, 4, 0, 2)], at(5));
        assert_eq!((totals.accepted, totals.open, totals.bytes), (8, 4, 80));
        let totals = task.count(&[flow(2, 6, 6, 7)], at(10));
        assert_eq!((totals.accepted, totals.open), (10, 0));
        // It comes back with all that it has counted, and counts on.
        assert_eq!(task.count(&[flow(1, 11, 11, 115), flow(2, 6, 6, 7)], at(15)).accepted, 12);
    }

    #[test]
    fn one_that_is_old_and_not_known_counts_from_now_on() {
        let (mut task, begun) = (Task::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        task.count(&[], at(0));
        assert_eq!(task.count(&[flow(7, 9_000, 9_000, 300)], at(5)).accepted, 0);
        assert_eq!(task.count(&[flow(7, 9_010, 9_010, 305)], at(10)).accepted, 10);
    }
}
