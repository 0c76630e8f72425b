//! What is counted. Gauges that are sums over the state are made by the reader, from the [`crate::Snapshot`].

use imbl::OrdMap;
use mesos_proto::v1;
use v1::TaskState;
use v1::scheduler;

/// Counters since the master started, by the names that `/metrics/snapshot` shows.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    counters: OrdMap<String, u64>,
    fixed: OrdMap<&'static str, u64>,
}

impl Metrics {
    /// All counters that were ever counted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> + '_ {
        let named = self.counters.iter().map(|(key, count)| (key.as_str(), *count));
        self.fixed.iter().map(|(key, count)| (*key, *count)).chain(named)
    }

    /// One of them.
    pub fn get(&self, key: &str) -> u64 {
        self.fixed.get(key).or_else(|| self.counters.get(key)).copied().unwrap_or(0)
    }

    pub(crate) fn count(&mut self, key: &'static str) {
        self.add(key, 1);
    }

    pub(crate) fn add(&mut self, key: &'static str, more: u64) {
        *self.fixed.entry(key).or_insert(0) += more;
    }

    pub(crate) fn set(&mut self, key: &'static str, value: u64) {
        self.fixed.insert(key, value);
    }

    /// Counts a message of the principal of a framework: as many are counted as there are frameworks.
    pub(crate) fn count_principal(&mut self, principal: &str, what: &str) {
        self.count_named(format!("frameworks/{principal}/{what}"));
    }

    /// No framework of this principal is left.
    pub(crate) fn forget_principal(&mut self, principal: &str) {
        for what in ["messages_received", "messages_processed"] {
            self.counters.remove(&format!("frameworks/{principal}/{what}"));
        }
    }

    /// Counts under a key that is made of enum words: their number is limited.
    pub(crate) fn count_named(&mut self, key: String) {
        *self.counters.entry(key).or_insert(0) += 1;
    }
}

/// The lower-case word of an event.
pub(crate) fn event_key(kind: scheduler::event::Type) -> &'static str {
    use scheduler::event::Type;
    match kind {
        Type::Unknown => "unknown",
        Type::Subscribed => "subscribed",
        Type::Offers => "offers",
        Type::InverseOffers => "inverse_offers",
        Type::Rescind => "rescind",
        Type::RescindInverseOffer => "rescind_inverse_offer",
        Type::Update => "update",
        Type::UpdateOperationStatus => "update_operation_status",
        Type::Message => "message",
        Type::Failure => "failure",
        Type::Error => "error",
        Type::Heartbeat => "heartbeat",
    }
}

/// The lower-case word of a call.
pub(crate) fn call_key(kind: scheduler::call::Type) -> &'static str {
    use scheduler::call::Type;
    match kind {
        Type::Unknown => "unknown",
        Type::Subscribe => "subscribe",
        Type::Teardown => "teardown",
        Type::Accept => "accept",
        Type::Decline => "decline",
        Type::AcceptInverseOffers => "accept_inverse_offers",
        Type::DeclineInverseOffers => "decline_inverse_offers",
        Type::Revive => "revive",
        Type::Kill => "kill",
        Type::Shutdown => "shutdown",
        Type::Acknowledge => "acknowledge",
        Type::AcknowledgeOperationStatus => "acknowledge_operation_status",
        Type::Reconcile => "reconcile",
        Type::ReconcileOperations => "reconcile_operations",
        Type::Message => "message",
        Type::Request => "request",
        Type::Suppress => "suppress",
        Type::UpdateFramework => "update_framework",
    }
}

/// The lower-case word of a task's state.
pub(crate) fn state_key(state: TaskState) -> &'static str {
    match state {
        TaskState::TaskStaging => "task_staging",
        TaskState::TaskStarting => "task_starting",
        TaskState::TaskRunning => "task_running",
        TaskState::TaskKilling => "task_killing",
        TaskState::TaskFinished => "task_finished",
        TaskState::TaskFailed => "task_failed",
        TaskState::TaskKilled => "task_killed",
        TaskState::TaskError => "task_error",
        TaskState::TaskLost => "task_lost",
        TaskState::TaskDropped => "task_dropped",
        TaskState::TaskUnreachable => "task_unreachable",
        TaskState::TaskGone => "task_gone",
        TaskState::TaskGoneByOperator => "task_gone_by_operator",
        TaskState::TaskUnknown => "task_unknown",
    }
}

/// The counter of tasks that ended so; none of those that have not ended.
pub(crate) fn terminal_key(state: TaskState) -> Option<&'static str> {
    Some(match state {
        TaskState::TaskFinished => "master/tasks_finished",
        TaskState::TaskFailed => "master/tasks_failed",
        TaskState::TaskKilled => "master/tasks_killed",
        TaskState::TaskLost => "master/tasks_lost",
        TaskState::TaskError => "master/tasks_error",
        TaskState::TaskDropped => "master/tasks_dropped",
        TaskState::TaskGone => "master/tasks_gone",
        TaskState::TaskGoneByOperator => "master/tasks_gone_by_operator",
        _ => return None,
    })
}
