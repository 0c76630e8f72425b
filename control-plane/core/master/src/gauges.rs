//! Gauges: sums over what is held, made when somebody asks.

use std::collections::BTreeMap;

use mesos::{Resources, Scalar};
use mesos_proto::v1::{OperationState, TaskState};

use crate::metrics::state_key;
use crate::{Master, Snapshot};

const SCALARS: [&str; 4] = ["cpus", "gpus", "mem", "disk"];

impl Snapshot {
    /// The gauges that follow from what is held, and all counters, by the names of `/metrics/snapshot`.
    ///
    /// Costs a walk over everything: for readers, never for the master's own thread.
    pub fn gauges(&self) -> BTreeMap<String, f64> {
        let mut gauges: BTreeMap<String, f64> = self.metrics.iter().map(|(key, count)| (key.to_owned(), number(count))).collect();
        let mut add = |key: &str, value: usize| {
            *gauges.entry(format!("master/{key}")).or_insert(0.0) += number(value as u64);
        };
        for key in ["slaves_connected", "slaves_disconnected", "slaves_active", "slaves_inactive"] {
            add(key, 0);
        }
        for agent in self.agents.values() {
            add(if agent.connected() { "slaves_connected" } else { "slaves_disconnected" }, 1);
            add(if agent.active() { "slaves_active" } else { "slaves_inactive" }, 1);
        }
        add("slaves_unreachable", self.registry.unreachable.len());
        for key in ["frameworks_connected", "frameworks_disconnected", "frameworks_active", "frameworks_inactive"] {
            add(key, 0);
        }
        for key in ["tasks_staging", "tasks_starting", "tasks_running", "tasks_killing", "tasks_unreachable"] {
            add(key, 0);
        }
        for framework in self.frameworks.values() {
            add(if framework.connected() { "frameworks_connected" } else { "frameworks_disconnected" }, 1);
            add(if framework.active() { "frameworks_active" } else { "frameworks_inactive" }, 1);
            add("tasks_unreachable", framework.unreachable_tasks.len());
            for task in framework.tasks.values() {
                if matches!(task.state, TaskState::TaskStaging | TaskState::TaskStarting | TaskState::TaskRunning | TaskState::TaskKilling)
                {
                    add(&state_key(task.state).replacen("task_", "tasks_", 1), 1);
                }
            }
        }
        add("outstanding_offers", self.offers.len());
        let in_state = |state| self.operations.values().filter(|it| it.state == state).count();
        add("operations/pending", in_state(OperationState::OperationPending));
        add("operations/recovering", in_state(OperationState::OperationRecovering));
        self.resource_gauges(&mut gauges);
        gauges
    }

    fn resource_gauges(&self, gauges: &mut BTreeMap<String, f64>) {
        let mut total: BTreeMap<(&str, bool), Scalar> = BTreeMap::new();
        let mut used = total.clone();
        let count = |sum: &mut BTreeMap<(&'static str, bool), Scalar>, resources: &Resources| {
            for it in resources {
                if let Some(name) = SCALARS.iter().find(|name| **name == &**it.name()) {
                    *sum.entry((name, it.is_revocable())).or_default() += it.amount();
                }
            }
        };
        for agent in self.agents.values() {
            count(&mut total, &agent.total);
            for resources in agent.used.values() {
                count(&mut used, resources);
            }
        }
        for name in SCALARS {
            for (revocable, suffix) in [(false, ""), (true, "_revocable")] {
                let total = total.get(&(name, revocable)).map_or(0.0, |it| it.to_f64());
                let used = used.get(&(name, revocable)).map_or(0.0, |it| it.to_f64());
                gauges.insert(format!("master/{name}{suffix}_total"), total);
                gauges.insert(format!("master/{name}{suffix}_used"), used);
                gauges.insert(format!("master/{name}{suffix}_percent"), if total > 0.0 { used / total } else { 0.0 });
            }
        }
    }
}

impl Master {
    /// The allocator's gauges. Costs a walk over roles, quotas and agents with filters.
    pub fn allocator_gauges(&self) -> BTreeMap<String, f64> {
        let mut gauges = BTreeMap::new();
        let allocated = self.allocator.allocated();
        for name in ["cpus", "mem", "disk"] {
            gauges.insert(format!("allocator/mesos/resources/{name}/total"), self.allocator.total().get(name).to_f64());
            gauges.insert(format!("allocator/mesos/resources/{name}/offered_or_allocated"), allocated.get(name).to_f64());
        }
        for (role, share) in self.allocator.shares() {
            gauges.insert(format!("allocator/mesos/roles/{role}/shares/dominant"), share);
        }
        for (role, filters) in self.allocator.offer_filters() {
            gauges.insert(format!("allocator/mesos/offer_filters/roles/{role}/active"), number(filters as u64));
        }
        for (role, quota) in &self.state.registry.quotas {
            let consumed = self.allocator.consumed(role);
            let key = |name: &str, what: &str| format!("allocator/mesos/quota/roles/{role}/resources/{name}/{what}");
            for (name, amount) in &quota.guarantees {
                gauges.insert(key(name, "guarantee"), amount.value);
            }
            for (name, amount) in &quota.limits {
                gauges.insert(key(name, "limit"), amount.value);
            }
            for (name, amount) in consumed.iter() {
                gauges.insert(key(name, "consumed"), amount.to_f64());
            }
        }
        gauges
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
fn number(count: u64) -> f64 {
    count as f64
}
