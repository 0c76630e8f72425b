//! `/metrics/snapshot`: every key that tools of a Mesos master look for, and the same numbers for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use master::{Snapshot, operation_key};
use mesos::{Resource, Scalar};
use mesos_proto::v1::offer::operation::Type as OperationType;
use mesos_proto::v1::{OperationState, TaskState};

use super::state::count;
use crate::driver::{Gauges, Named, View};
use crate::pieces::Sink;

/// Counters that show before they are first counted.
const COUNTERS: &[&str] = &[
    "master/dropped_messages",
    "master/invalid_executor_to_framework_messages",
    "master/invalid_framework_to_executor_messages",
    "master/invalid_operation_status_update_acknowledgements",
    "master/invalid_operation_status_updates",
    "master/invalid_status_update_acknowledgements",
    "master/invalid_status_updates",
    "master/messages_authenticate",
    "master/messages_deactivate_framework",
    "master/messages_decline_offers",
    "master/messages_executor_to_framework",
    "master/messages_exited_executor",
    "master/messages_framework_to_executor",
    "master/messages_kill_task",
    "master/messages_launch_tasks",
    "master/messages_operation_status_update",
    "master/messages_operation_status_update_acknowledgement",
    "master/messages_reconcile_operations",
    "master/messages_reconcile_tasks",
    "master/messages_register_framework",
    "master/messages_register_slave",
    "master/messages_reregister_framework",
    "master/messages_reregister_slave",
    "master/messages_resource_request",
    "master/messages_revive_offers",
    "master/messages_status_update",
    "master/messages_status_update_acknowledgement",
    "master/messages_suppress_offers",
    "master/messages_unregister_framework",
    "master/messages_unregister_slave",
    "master/messages_update_slave",
    "master/recovery_slave_removals",
    "master/slave_registrations",
    "master/slave_removals",
    "master/slave_removals/reason_registered",
    "master/slave_removals/reason_unhealthy",
    "master/slave_removals/reason_unregistered",
    "master/slave_reregistrations",
    "master/slave_shutdowns_canceled",
    "master/slave_shutdowns_completed",
    "master/slave_shutdowns_scheduled",
    "master/slave_unreachable_canceled",
    "master/slave_unreachable_completed",
    "master/slave_unreachable_scheduled",
    "master/tasks_dropped",
    "master/tasks_error",
    "master/tasks_failed",
    "master/tasks_finished",
    "master/tasks_gone",
    "master/tasks_gone_by_operator",
    "master/tasks_killed",
    "master/tasks_lost",
    "master/valid_executor_to_framework_messages",
    "master/valid_framework_to_executor_messages",
    "master/valid_operation_status_update_acknowledgements",
    "master/valid_operation_status_updates",
    "master/valid_status_update_acknowledgements",
    "master/valid_status_updates",
    "allocator/event_queue_dispatches",
    "allocator/mesos/allocation_runs",
    "allocator/mesos/event_queue_dispatches",
    "master/event_queue_dispatches",
    "master/event_queue_http_requests",
    "master/event_queue_messages",
    "master/http_cache_hits",
    "master/operator_event_stream_subscribers",
    "registrar/queued_operations",
    "registrar/log/recovered",
    "registrar/log/ensemble_size",
];

/// The operations that have keys of their own: all that are no launches.
const OPERATIONS: [OperationType; 8] = [
    OperationType::Reserve,
    OperationType::Unreserve,
    OperationType::Create,
    OperationType::Destroy,
    OperationType::GrowVolume,
    OperationType::ShrinkVolume,
    OperationType::CreateDisk,
    OperationType::DestroyDisk,
];

/// Tasks that are not over, by state.
const LIVE: [(TaskState, &str); 5] = [
    (TaskState::TaskStaging, "staging"),
    (TaskState::TaskStarting, "starting"),
    (TaskState::TaskRunning, "running"),
    (TaskState::TaskKilling, "killing"),
    (TaskState::TaskUnreachable, "unreachable"),
];

/// What the machine says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct System {
    pub(crate) cpus: f64,
    pub(crate) load: [f64; 3],
    pub(crate) memory_total: f64,
    pub(crate) memory_free: f64,
}

impl System {
    /// As it is now. What cannot be read is 0.
    pub(crate) fn read() -> System {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let mut loads = load.split_whitespace().filter_map(|it| it.parse::<f64>().ok());
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes = |key: &str| {
            let line = memory.lines().find(|line| line.starts_with(key))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        System {
            cpus: std::thread::available_parallelism().map_or(0.0, |it| count(it.get())),
            load: std::array::from_fn(|_| loads.next().unwrap_or(0.0)),
            memory_total: kilobytes("MemTotal:").unwrap_or(0.0) * 1024.0,
            memory_free: kilobytes("MemFree:").unwrap_or(0.0) * 1024.0,
        }
    }
}

/// What is known beside the state.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) gauges: &'a Gauges,
    pub(crate) system: System,
    pub(crate) uptime_seconds: f64,
    pub(crate) inbox: usize,
    pub(crate) registry_bytes: u64,
    /// `--publish_per_framework_metrics`
    pub(crate) per_framework: bool,
}

/// Every metric. Without a state this master does not lead.
pub(crate) fn all(view: Option<&View>, around: &Surroundings<'_>) -> Named {
    let mut named: Named = COUNTERS.iter().map(|key| ((*key).to_owned(), 0.0)).collect();
    let load = |gauge: &std::sync::atomic::AtomicU64| big(gauge.load(Ordering::Relaxed));
    let mut put = |key: &str, value: f64| {
        named.insert(key.to_owned(), value);
    };
    put("master/uptime_secs", around.uptime_seconds);
    put("master/elected", if view.is_some() { 1.0 } else { 0.0 });
    put("master/event_queue_messages", count(around.inbox));
    put("master/http_cache_hits", load(&around.gauges.cache_hits));
    put("master/operator_event_stream_subscribers", load(&around.gauges.subscribers));
    put("registrar/registry_size_bytes", big(around.registry_bytes));
    put("registrar/log/recovered", if view.is_some() { 1.0 } else { 0.0 });
    put("registrar/log/ensemble_size", 1.0);
    for (name, timer) in [
        ("registrar/state_fetch_ms", &around.gauges.fetches),
        ("registrar/state_store_ms", &around.gauges.writes),
        ("allocator/mesos/allocation_run_ms", &around.gauges.ticks),
        ("allocator/mesos/allocation_run_latency_ms", &around.gauges.delays),
    ] {
        timer.statistics().into_iter().for_each(|(end, value)| put(&format!("{name}{end}"), value));
    }
    put("system/cpus_total", around.system.cpus);
    put("system/load_1min", around.system.load[0]);
    put("system/load_5min", around.system.load[1]);
    put("system/load_15min", around.system.load[2]);
    put("system/mem_total_bytes", around.system.memory_total);
    put("system/mem_free_bytes", around.system.memory_free);
    let nothing = Snapshot::default();
    let snapshot = view.map_or(&nothing, |it| &it.snapshot);
    agents_and_frameworks(snapshot, &mut named);
    resources(snapshot, &mut named);
    operations(snapshot, &mut named);
    quotas(snapshot, &mut named);
    allocator(snapshot, &mut named);
    if around.per_framework {
        frameworks(snapshot, &mut named);
    }
    for (key, value) in snapshot.metrics.iter() {
        named.insert(key.to_owned(), big(value));
    }
    named
}

fn agents_and_frameworks(snapshot: &Snapshot, named: &mut Named) {
    let mut put = |key: &str, value: usize| {
        named.insert(format!("master/{key}"), count(value));
    };
    let connected = snapshot.agents.values().filter(|it| it.connected()).count();
    let active = snapshot.agents.values().filter(|it| it.active()).count();
    put("slaves_connected", connected);
    put("slaves_disconnected", snapshot.agents.len() - connected);
    put("slaves_active", active);
    put("slaves_inactive", snapshot.agents.len() - active);
    put("slaves_unreachable", snapshot.registry.unreachable.len());
    let connected = snapshot.frameworks.values().filter(|it| it.connected()).count();
    let active = snapshot.frameworks.values().filter(|it| it.active()).count();
    put("frameworks_connected", connected);
    put("frameworks_disconnected", snapshot.frameworks.len() - connected);
    put("frameworks_active", active);
    put("frameworks_inactive", snapshot.frameworks.len() - active);
    put("outstanding_offers", snapshot.offers.len());
    let mut live: BTreeMap<&str, usize> = LIVE.iter().map(|(_, name)| (*name, 0)).collect();
    for framework in snapshot.frameworks.values() {
        for task in framework.tasks.values() {
            if let Some((_, name)) = LIVE.iter().find(|(state, _)| *state == task.state) {
                *live.entry(name).or_default() += 1;
            }
        }
        *live.entry("unreachable").or_default() += framework.unreachable_tasks.len();
    }
    live.into_iter().for_each(|(name, number)| put(&format!("tasks_{name}"), number));
}

fn resources(snapshot: &Snapshot, named: &mut Named) {
    for revocable in [false, true] {
        let suffix = if revocable { "_revocable" } else { "" };
        let mut totals: BTreeMap<&str, [Scalar; 3]> = ["cpus", "gpus", "mem", "disk"].map(|it| (it, [Scalar::ZERO; 3])).into();
        let mut add = |at: usize, resource: &Resource| {
            if resource.is_revocable() == revocable
                && let Some(sums) = totals.get_mut(&**resource.name())
            {
                sums[at] += resource.amount();
            }
        };
        for agent in snapshot.agents.values() {
            agent.total.iter().for_each(|it| add(0, it));
            agent.used.values().flat_map(|it| it.iter()).for_each(|it| add(1, it));
            agent.offered.iter().for_each(|it| add(2, it));
        }
        for (name, [total, used, offered]) in totals {
            let part = if total.is_positive() { used.to_f64() / total.to_f64() } else { 0.0 };
            named.insert(format!("master/{name}{suffix}_total"), total.to_f64());
            named.insert(format!("master/{name}{suffix}_used"), used.to_f64());
            named.insert(format!("master/{name}{suffix}_percent"), part);
            if !revocable && name != "gpus" {
                named.insert(format!("allocator/mesos/resources/{name}/total"), total.to_f64());
                named.insert(format!("allocator/mesos/resources/{name}/offered_or_allocated"), (used + offered).to_f64());
            }
        }
    }
}

fn operations(snapshot: &Snapshot, named: &mut Named) {
    let mut live: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for operation in snapshot.operations.values() {
        let kind = operation_key(operation.info.r#type());
        let state = match operation.state {
            OperationState::OperationPending => "pending",
            OperationState::OperationRecovering => "recovering",
            OperationState::OperationUnreachable => "unreachable",
            _ => "",
        };
        [("", "total"), (kind, "total"), ("", state), (kind, state)].into_iter().for_each(|key| *live.entry(key).or_default() += 1);
    }
    let kinds = OPERATIONS.iter().map(|it| (operation_key(*it), format!("master/operations/{}", operation_key(*it))));
    for (kind, prefix) in std::iter::once(("", "master/operations".to_owned())).chain(kinds) {
        for state in ["total", "pending", "recovering", "unreachable"] {
            named.insert(format!("{prefix}/{state}"), count(live.get(&(kind, state)).copied().unwrap_or(0)));
        }
        for end in ["finished", "failed", "error", "dropped", "gone_by_operator"] {
            named.entry(format!("{prefix}/{end}")).or_insert(0.0);
        }
    }
}

fn allocator(snapshot: &Snapshot, named: &mut Named) {
    let shares = snapshot.allocator.shares.iter();
    named.extend(shares.map(|(role, share)| (format!("allocator/mesos/roles/{}/shares/dominant", role.as_str()), *share)));
    let filters = snapshot.allocator.offer_filters.iter();
    named.extend(filters.map(|(role, number)| (format!("allocator/mesos/offer_filters/roles/{}/active", role.as_str()), count(*number))));
}

fn quotas(snapshot: &Snapshot, named: &mut Named) {
    for (role, quota) in &snapshot.registry.quotas {
        let key = |name: &str, what: &str| format!("allocator/mesos/quota/roles/{role}/resources/{name}/{what}");
        named.extend(quota.guarantees.iter().map(|(name, amount)| (key(name, "guarantee"), amount.value)));
        named.extend(quota.limits.iter().map(|(name, amount)| (key(name, "limit"), amount.value)));
        for (name, amount) in snapshot.consumed.get(role).into_iter().flat_map(|it| it.iter()) {
            named.insert(key(name, "consumed"), amount.to_f64());
            // Nothing, until it is told below: what is consumed may all be reserved and unused.
            named.insert(key(name, "offered_or_allocated"), 0.0);
        }
        for (name, amount) in snapshot.allocated.get(role).into_iter().flat_map(|it| it.iter()) {
            named.insert(key(name, "offered_or_allocated"), amount.to_f64());
        }
    }
}

fn frameworks(snapshot: &Snapshot, named: &mut Named) {
    for framework in snapshot.frameworks.values() {
        let prefix = format!("master/frameworks/{}/{}", percent_encoded(&framework.info.name), &*framework.id);
        let counters = &framework.counters;
        let mut put = |key: &str, value: f64| {
            named.insert(format!("{prefix}/{key}"), value);
        };
        put("subscribed", if framework.connected() { 1.0 } else { 0.0 });
        put("calls", big(counters.calls.values().sum()));
        counters.calls.iter().for_each(|(kind, number)| put(&format!("calls/{kind}"), big(*number)));
        put("events", big(counters.events.values().sum()));
        counters.events.iter().for_each(|(kind, number)| put(&format!("events/{kind}"), big(*number)));
        counters.updates.iter().for_each(|(state, number)| put(&format!("events/update/{state}"), big(*number)));
        put("operations", big(counters.operations.values().sum()));
        counters.operations.iter().for_each(|(kind, number)| put(&format!("operations/{kind}"), big(*number)));
        counters.terminal.iter().for_each(|(state, number)| put(&format!("tasks/terminal/{state}"), big(*number)));
        for (state, name) in LIVE {
            let number = framework.tasks.values().filter(|it| it.state == state).count();
            put(&format!("tasks/active/task_{name}"), count(number));
        }
        put("offers/sent", big(counters.offers_sent));
        put("offers/accepted", big(counters.offers_accepted));
        put("offers/declined", big(counters.offers_declined));
        put("offers/rescinded", big(counters.offers_rescinded));
        for role in framework.roles.iter() {
            put(&format!("roles/{}/suppressed", role.as_str()), if framework.suppressed.contains(role) { 1.0 } else { 0.0 });
        }
    }
}

/// A name as it stands in keys.
fn percent_encoded(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[expect(clippy::cast_precision_loss, reason = "Mesos says every number as a double")]
fn big(number: u64) -> f64 {
    number as f64
}

/// The flat object.
pub(crate) fn render(named: &Named) -> Vec<u8> {
    let mut out = Sink::default();
    crate::json::object(&mut out, |object| named.iter().for_each(|(key, value)| object.number(key, *value)));
    out.into_bytes()
}

/// The same numbers as Prometheus reads them: `master/tasks_running` is `mesos_master_tasks_running`. What belongs to single frameworks, roles and
/// principals is left out, because it would make a series of each.
pub fn prometheus_page(named: &BTreeMap<String, f64>) -> String {
    let mut page = String::new();
    for (key, value) in named {
        let single =
            ["master/frameworks/", "frameworks/", "allocator/mesos/quota/", "allocator/mesos/roles/", "allocator/mesos/offer_filters/"];
        if single.iter().any(|it| key.starts_with(it)) || key.starts_with("system/") {
            continue;
        }
        let name: String = key.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '_' }).collect();
        let _ = writeln!(page, "# TYPE mesos_{name} gauge\nmesos_{name} {value}");
    }
    page
}
