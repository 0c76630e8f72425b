//! Keeps the store's list of probes, and after a restart holds readiness back until those that were there before are back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use topology::ProbeStatus;

use crate::clock::Clock;
use crate::drivers::TopologyHandle;
use crate::problems::{Part, Problems};
use crate::readiness::Readiness;
use crate::store::{KnownProbe, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::events::StoreFailed;

/// How often the list is brought up to date.
const RECORD_INTERVAL: Duration = Duration::from_secs(5);
/// How long probes are given to come back after a restart.
const RESYNC_PATIENCE: Duration = Duration::from_secs(5);
/// How often to look whether they have.
const RESYNC_INTERVAL: Duration = Duration::from_millis(50);
/// A probe that was last heard of so long before the newest one was gone already when the process ended.
const PRESENT_WITHIN: Duration = Duration::from_secs(30);
/// A probe that has not been heard of for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Hosts whose probes were there when the process ended.
pub fn present_before(known: &[KnownProbe]) -> Vec<KnownProbe> {
    let newest = known.iter().map(|probe| probe.last_seen).max().unwrap_or_default();
    known.iter().filter(|probe| newest.since(probe.last_seen) < PRESENT_WITHIN).cloned().collect()
}

/// Holds readiness back until the probes in `awaited` report again, or for five seconds.
pub async fn await_resync(topology: TopologyHandle, readiness: Readiness, awaited: Vec<KnownProbe>, stopping: CancellationToken) {
    let deadline = Instant::now() + RESYNC_PATIENCE;
    let mut missing = awaited;
    let expected = missing.len();
    while !missing.is_empty() && Instant::now() < deadline && !stopping.is_cancelled() {
        let Ok(present) = topology.probes().await else { break };
        missing.retain(|awaited| !present.iter().any(|probe| *probe.id == *awaited.id && probe.connected && probe.sequence > 0));
        readiness.await_probes_of(missing.iter().map(|probe| probe.host_name.clone()).collect());
        if !missing.is_empty() {
            sleep(RESYNC_INTERVAL).await;
        }
    }
    readiness.await_probes_of(Vec::new());
    if expected > 0 {
        tracing::info!(expected, missing = missing.len(), "probes came back after the restart");
    }
}

/// Writes down which probes there are, every few seconds and once more when the process stops.
///
/// Ends when the store fails; what was not written is found again from the store.
pub async fn record(
    topology: TopologyHandle,
    store: Arc<dyn Store>,
    clock: Clock,
    (telemetry, problems): (Telemetry, Problems),
    stopping: CancellationToken,
) {
    let failed = |action, what, error: StoreError| {
        StoreFailed { action, error: &error }.emit(&telemetry);
        problems.say(Part::Store, what, &error);
    };
    let mut known = match blocking(&store, |store| store.probes()).await {
        Ok(known) => known.into_iter().map(|probe| (probe.id.clone(), probe)).collect::<BTreeMap<_, _>>(),
        Err(error) => return failed("read the known probes", "the store is not read", error),
    };
    if problems.concern(Part::Store) {
        // There may be nothing to write for days.
        match blocking(&store, |store| store.flush()).await {
            Ok(()) => mended(&problems),
            Err(error) => return failed("write to the store again", "the store is not written", error),
        }
    }
    let mut ticks = interval(RECORD_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            () = stopping.cancelled() => true,
        };
        let Ok(present) = topology.probes().await else { return };
        let (changed, forgotten) = changes(&mut known, &present, clock.now());
        if !changed.is_empty() || !forgotten.is_empty() {
            let written = blocking(&store, move |store| store.update_probes(&changed, &forgotten)).await;
            match written {
                Ok(()) => mended(&problems),
                Err(error) => return failed("write the known probes", "the store is not written", error),
            }
        }
        if last {
            return;
        }
    }
}

fn mended(problems: &Problems) {
    if problems.take_back(Part::Store) {
        tracing::info!("the store is written again");
    }
}

/// Brings `known` up to date, and says what of it changed.
fn changes(known: &mut BTreeMap<String, KnownProbe>, present: &[ProbeStatus], now: Timestamp) -> (Vec<KnownProbe>, Vec<String>) {
    let mut changed = Vec::new();
    for probe in present {
        let last_seen = if probe.connected { now } else { probe.last_seen };
        let before = known.get(&*probe.id);
        if before.is_some_and(|before| before.last_seen >= last_seen && *before.host_name == *probe.host_name) {
            continue;
        }
        let record = KnownProbe {
            id: probe.id.to_string(),
            host_name: probe.host_name.to_string(),
            first_seen: before.map_or(last_seen, |before| before.first_seen),
            last_seen,
        };
        known.insert(record.id.clone(), record.clone());
        changed.push(record);
    }
    let forgotten: Vec<String> =
        known.values().filter(|probe| now.since(probe.last_seen) > FORGOTTEN_AFTER).map(|probe| probe.id.clone()).collect();
    for id in &forgotten {
        known.remove(id);
    }
    (changed, forgotten)
}

async fn blocking<T: Send + 'static>(
    store: &Arc<dyn Store>,
    call: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || call(&*store)).await {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(id: &str, connected: bool, last_seen: u64) -> ProbeStatus {
        ProbeStatus {
            id: id.into(),
            host_name: "h".into(),
            version: "1".into(),
            connected,
            last_seen: Timestamp::from_unix_millis(last_seen),
            sequence: 1,
            capture: topology::Capture::default(),
            losses: topology::Losses::default(),
            counts: topology::ProbeCounts::default(),
        }
    }

    #[test]
    fn a_probe_is_written_down_when_it_is_new_or_was_heard_of_again() {
        let at = Timestamp::from_unix_millis;
        let mut known = BTreeMap::new();
        let (changed, _) = changes(&mut known, &[status("a", true, 5), status("b", false, 5)], at(10));
        assert_eq!(changed.iter().map(|probe| (probe.id.as_str(), probe.last_seen)).collect::<Vec<_>>(), [("a", at(10)), ("b", at(5))]);
        let (changed, _) = changes(&mut known, &[status("a", true, 5), status("b", false, 5)], at(20));
        assert_eq!(changed.len(), 1, "b was not heard of again");
        assert_eq!((changed[0].first_seen, changed[0].last_seen), (at(10), at(20)));
    }

    #[test]
    fn a_probe_not_heard_of_for_a_month_is_forgotten() {
        let mut known = BTreeMap::new();
        changes(&mut known, &[status("a", false, 0)], Timestamp::EPOCH);
        let (_, forgotten) = changes(&mut known, &[], Timestamp::EPOCH + FORGOTTEN_AFTER + Duration::from_secs(1));
        assert_eq!(forgotten, ["a"]);
        assert!(known.is_empty());
    }
}
