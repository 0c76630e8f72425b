//! The driver's numbers, for the metrics page.

use prometheus::IntCounter;
use proto::probe::v1::ContainerState;

use crate::clock::Now;
use crate::dns::kept;
use crate::observation::Observation;
use crate::procfs::Procfs;
use crate::procfs::sampler::{Round, SampledContainer};
use crate::publisher::Publisher;
use crate::report::Builder;
use crate::telemetry::Metrics;

/// Counts an observation.
pub(super) fn count(metrics: &Metrics, observation: &Observation) {
    let kind = match observation {
        Observation::ProcessStarted(_) => "process_started",
        Observation::ProcessExecuted { .. } => "process_executed",
        Observation::ProcessExited { .. } => "process_exited",
        Observation::OomKilled { .. } => {
            metrics.oom_kills.inc();
            "oom_killed"
        }
        Observation::ListenerOpened(_) => "listener_opened",
        Observation::ListenerClosed { .. } => "listener_closed",
        Observation::CgroupCreated { .. } => "cgroup_created",
        Observation::CgroupRemoved { .. } => "cgroup_removed",
        Observation::CgroupAttached { .. } => "cgroup_attached",
        Observation::FlowSeen { .. } => "flow_seen",
        Observation::FlowCounted { .. } => "flow_counted",
        Observation::CaptureBegins => "capture_begins",
        Observation::Lost(_) | Observation::LostOther { .. } => "lost",
        Observation::Translated(_) => "translated",
        Observation::NameResolved { .. } => "name_resolved",
        Observation::NamesCounted(_) => "names_counted",
    };
    metrics.observations.with_label_values(&[kind]).inc();
}

/// All names, if they have changed since `newer_than`.
pub(super) fn names(builder: &Builder, newer_than: u64, now: Now) -> Option<kept::Copy> {
    let table = builder.names();
    let names = || table.by_use().map(|(address, names)| (address, names.to_vec())).collect();
    (table.version() != newer_than).then(|| kept::Copy { version: table.version(), names: names(), now })
}

/// Writes down how large the tables are and what was lost.
pub(super) fn publish(metrics: &Metrics, publisher: &Publisher, procfs: &Procfs) {
    let builder = &publisher.builder;
    metrics.processes.set(gauge(builder.processes().living_len()));
    metrics.flows.set(gauge(builder.flows().len()));
    metrics.flows_summed.set(gauge(builder.flows().summed()));
    metrics.listeners.set(gauge(builder.listeners().len()));
    publish_unix_flows(metrics, builder);
    metrics.containers.set(gauge(builder.containers().len()));
    metrics.translations.set(gauge(builder.flows().translations().len()));
    metrics.outbox_bytes.set(gauge(publisher.held_bytes()));
    raise(&metrics.proc_vanished, procfs.vanished());
    raise(&metrics.proc_unreadable, procfs.unreadable());
    let losses = builder.losses();
    let ring = |name: &str| losses.ring_records.get(name).copied().unwrap_or(0);
    let other = |cause: &str| losses.other.get(cause).copied().unwrap_or(0);
    let lost = [
        ("network_ring", ring("network")),
        ("process_ring", ring("process")),
        ("netlink", ring("netlink")),
        ("listener_records", losses.other.get("listener_records").copied().unwrap_or(0)),
        ("flows_uncounted", losses.flows_uncounted),
        ("sockets_unowned", losses.sockets_unowned),
        ("table_full", losses.table_full),
        ("reports_merged", losses.reports_merged),
        ("dns_ring", other("dns_ring")),
        ("dns_events", other("dns_events")),
        ("dns_attachments", other("dns_attachments")),
        ("names", other("names")),
    ];
    for (cause, number) in lost {
        raise(&metrics.lost.with_label_values(&[cause]), number);
    }
    for (cause, number) in &losses.other {
        raise(&metrics.lost.with_label_values(&[cause.as_str()]), *number);
    }
    metrics.completeness.set(completeness(losses.ends_reported, losses.ends_seen));
    let (clients, servers) = builder.unowned_ends();
    for (end, number) in [("client", clients), ("server", servers)] {
        raise(&metrics.ends_unowned.with_label_values(&[end]), number);
    }
    let owned = losses.ends_seen.saturating_sub(clients.saturating_add(servers));
    metrics.attribution.set(completeness(owned, losses.ends_seen));
    metrics.names.set(gauge(builder.names().len()));
    let counts = builder.name_counts();
    metrics.dns_attachments.set(count_of(counts.attached));
    let messages = [("read", counts.messages), ("believed", counts.answers), ("malformed", counts.malformed), ("unasked", counts.unasked)];
    for (outcome, number) in messages {
        raise(&metrics.dns_messages.with_label_values(&[outcome]), number);
    }
}

/// Writes down how many connections over Unix sockets there are.
pub(super) fn publish_unix_flows(metrics: &Metrics, builder: &Builder) {
    metrics.unix_flows.set(gauge(builder.unix_flows().len()));
}

/// Writes down what a round of samples took.
pub(super) fn publish_round(metrics: &Metrics, round: &Round) {
    metrics.sampling_seconds.set(round.effort.took.as_secs_f64());
    metrics.sampled_processes.set(gauge(round.seen.len()));
    metrics.sampled_cgroups.set(gauge(round.samples.containers.len()));
    metrics.disks_unanswered.set(gauge(round.effort.disks_unanswered));
    if round.effort.over_budget {
        metrics.sampling_over_budget.inc();
    }
}

/// Running containers.
pub(super) fn sampled(builder: &Builder) -> Vec<SampledContainer> {
    let running =
        builder.containers().after(None).filter(|it| it.pid != 0 && matches!(it.state(), ContainerState::Running | ContainerState::Paused));
    running.map(|it| SampledContainer { id: it.id.clone(), pid: it.pid, cgroup_path: builder.cgroup_path(&it.id).cloned() }).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than the 53 bits of a double")]
fn completeness(reported: u64, seen: u64) -> f64 {
    if seen == 0 { 1.0 } else { reported as f64 / seen as f64 }
}

/// Lets a counter say what has been counted elsewhere. It never falls, whatever begins anew there.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count_of(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
