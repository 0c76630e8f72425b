//! How the probes see, and what they lost: sums over all of them. Which probe it is, `/api/v1/probes` tells.

use std::collections::BTreeMap;

use topology::ProbeStatus;

use crate::telemetry::Telemetry;

/// Values of the label `level`; the last one stands for itself and all above.
const LEVELS: [&str; 3] = ["1", "2", "3"];
/// Values of the label `cause`; what a probe calls otherwise is counted as the last.
const CAUSES: [&str; 17] = [
    "ring",
    "flows_uncounted",
    "sockets_unowned",
    "table_full",
    "reports_merged",
    "translations",
    "conntrack",
    "dns_ring",
    "dns_events",
    "dns_attachments",
    "names",
    "listener_records",
    "udp_talks",
    "ends_untold",
    "looks_left_out",
    "unix_sockets",
    "other",
];

/// What is read off the probes when the metrics page is asked for.
#[derive(Debug)]
pub struct ProbesObserved<'a> {
    /// All of them.
    pub probes: &'a [ProbeStatus],
}

impl ProbesObserved<'_> {
    /// Sets the gauges.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let count = |holds: &dyn Fn(&ProbeStatus) -> bool| signed(self.probes.iter().filter(|probe| holds(probe)).count() as u64);
        for (at, level) in (1..).zip(LEVELS) {
            let is_last = at as usize == LEVELS.len();
            let overloaded = count(&|probe| probe.capture.overload_level == at || (is_last && probe.capture.overload_level > at));
            metrics.probes_overloaded.with_label_values(&[level]).set(overloaded);
        }
        metrics.probes_lacking.set(count(&|probe| !probe.capture.missing_capabilities.is_empty()));
        let mut causes: BTreeMap<&str, u64> = CAUSES.into_iter().map(|cause| (cause, 0)).collect();
        let (mut seen, mut reported) = (0_u64, 0_u64);
        for losses in self.probes.iter().map(|probe| &probe.losses) {
            let mut add = |cause: &str, count: u64| {
                let cause = CAUSES.into_iter().find(|known| *known == cause).unwrap_or("other");
                let sum = causes.entry(cause).or_insert(0);
                *sum = sum.saturating_add(count);
            };
            losses.ring_records.values().for_each(|count| add("ring", *count));
            losses.other.iter().for_each(|(cause, count)| add(cause, *count));
            add("flows_uncounted", losses.flows_uncounted);
            add("sockets_unowned", losses.sockets_unowned);
            add("table_full", losses.table_full);
            add("reports_merged", losses.reports_merged);
            seen = seen.saturating_add(losses.ends_seen);
            reported = reported.saturating_add(losses.ends_reported);
        }
        causes.into_iter().for_each(|(cause, count)| metrics.probe_losses.with_label_values(&[cause]).set(signed(count)));
        metrics.probe_ends_seen.set(signed(seen));
        metrics.probe_ends_reported.set(signed(reported));
    }
}
