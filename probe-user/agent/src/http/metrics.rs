//! `/metrics/snapshot`, by Mesos's names, and `/system/stats.json`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use mesos_proto::v1::TaskState;

use super::Server;
use crate::driver::{Handle, Stopping};
use crate::fetcher::Fetcher;
use crate::gc::Collector;
use crate::host;
use crate::table::Phase;
use crate::words::{is_terminal, scalar};

/// Where the numbers are.
#[derive(Clone)]
struct Meter {
    driver: Handle,
    collector: Collector,
    fetcher: Arc<Fetcher>,
    registered: Arc<AtomicBool>,
    begun: SystemTime,
    recovery: Duration,
}

impl From<&Server> for Meter {
    fn from(it: &Server) -> Self {
        Meter {
            driver: it.driver.clone(),
            collector: it.collector.clone(),
            fetcher: it.fetcher.clone(),
            registered: it.registered.clone(),
            begun: it.begun,
            recovery: it.recovery,
        }
    }
}

/// The metrics of an agent in this process, for whoever else serves metrics. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct AgentMetrics(Arc<RwLock<Option<Meter>>>);

impl std::fmt::Debug for AgentMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AgentMetrics").field(&self.meter().is_some()).finish()
    }
}

impl AgentMetrics {
    pub(crate) fn of(&self, server: &Server) {
        // A later agent of this process follows one that is over.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(server.into());
    }

    fn meter(&self) -> Option<Meter> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As Prometheus reads them: `slave/tasks_running` is `mesos_slave_tasks_running`. Empty without an agent.
    pub async fn page(&self) -> String {
        use std::fmt::Write as _;

        let Some(meter) = self.meter() else { return String::new() };
        let Ok(metrics) = measure(&meter).await else { return String::new() };
        let mut page = String::new();
        // The machine's own numbers are the probe's to tell.
        for (key, value) in metrics.iter().filter(|(key, _)| !key.starts_with("system/")) {
            let name: String = key.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '_' }).collect();
            let _ = writeln!(page, "# TYPE mesos_{name} gauge\nmesos_{name} {value}");
        }
        page
    }
}

/// All metrics.
pub(super) async fn snapshot(server: &Server) -> Result<BTreeMap<String, f64>, Stopping> {
    measure(&server.into()).await
}

async fn measure(server: &Meter) -> Result<BTreeMap<String, f64>, Stopping> {
    let mut metrics = server.driver.look(of_table).await?;
    #[expect(clippy::cast_precision_loss, reason = "metrics are floating numbers")]
    let float = |it: u64| it as f64;
    let mut set = |name: &str, value: f64| {
        metrics.insert(name.to_owned(), value);
    };
    set("slave/uptime_secs", server.begun.elapsed().unwrap_or_default().as_secs_f64());
    set("slave/recovery_time_secs", server.recovery.as_secs_f64());
    set("slave/registered", f64::from(u8::from(server.registered.load(Ordering::Relaxed))));
    let (removed, failed, pending, age) = server.collector.counts();
    set("gc/path_removals_succeeded", float(removed));
    set("gc/path_removals_failed", float(failed));
    set("gc/path_removals_pending", float(pending));
    set("slave/executor_directory_max_allowed_age_secs", age);
    let (fetched, unfetched) = server.fetcher.counts();
    set("containerizer/fetcher/task_fetches_succeeded", float(fetched));
    set("containerizer/fetcher/task_fetches_failed", float(unfetched));
    let (total, used) = server.fetcher.cache_bytes();
    set("containerizer/fetcher/cache_size_total_bytes", float(total));
    set("containerizer/fetcher/cache_size_used_bytes", float(used));
    for name in [
        "slave/recovery_errors",
        "slave/executors_preempted",
        "containerizer/mesos/container_destroy_errors",
        "containerizer/mesos/provisioner/remove_container_errors",
        "containerizer/mesos/provisioner/bind/remove_rootfs_errors",
        "containerizer/mesos/filesystem/containers_new_rootfs",
    ] {
        set(name, 0.0);
    }
    set("system/cpus_total", host::cpus());
    if let Some([one, five, fifteen]) = host::load() {
        set("system/load_1min", one);
        set("system/load_5min", five);
        set("system/load_15min", fifteen);
    }
    set("system/mem_total_bytes", float(host::memory_total().unwrap_or(0)));
    set("system/mem_free_bytes", float(host::memory_free().unwrap_or(0)));
    Ok(metrics)
}

/// `/system/stats.json`.
pub(super) fn system() -> serde_json::Value {
    let [one, five, fifteen] = host::load().unwrap_or_default();
    serde_json::json!({
        "avg_load_1min": one, "avg_load_5min": five, "avg_load_15min": fifteen, "cpus_total": host::cpus(),
        "mem_total_bytes": host::memory_total(), "mem_free_bytes": host::memory_free(),
    })
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating numbers")]
fn of_table(view: &crate::driver::View<'_>) -> BTreeMap<String, f64> {
    let table = view.table;
    let mut metrics: BTreeMap<String, f64> = BTreeMap::new();
    let mut used = Vec::new();
    let mut states: BTreeMap<i32, u32> = BTreeMap::new();
    let mut phases = [0_u32; 4];
    for executor in table.frameworks().values().flat_map(|it| it.executors.values()) {
        match executor.phase {
            Phase::Launching | Phase::Registering => phases[0] += 1,
            Phase::Running => phases[1] += 1,
            Phase::Terminating => phases[2] += 1,
            Phase::Terminated => phases[3] += 1,
        }
        if executor.phase != Phase::Terminated {
            used.extend(executor.resources());
        }
        for task in executor.tasks.values().filter(|it| !is_terminal(it.state)) {
            *states.entry(task.state as i32).or_default() += 1;
        }
    }
    let mut set = |name: String, value: f64| {
        metrics.insert(name, value);
    };
    let live = [
        ("staging", TaskState::TaskStaging),
        ("starting", TaskState::TaskStarting),
        ("running", TaskState::TaskRunning),
        ("killing", TaskState::TaskKilling),
    ];
    for (name, state) in live {
        set(format!("slave/tasks_{name}"), f64::from(states.get(&(state as i32)).copied().unwrap_or(0)));
    }
    let counts = table.counts();
    let over = [
        ("finished", TaskState::TaskFinished),
        ("failed", TaskState::TaskFailed),
        ("killed", TaskState::TaskKilled),
        ("lost", TaskState::TaskLost),
        ("gone", TaskState::TaskGone),
    ];
    for (name, state) in over {
        set(format!("slave/tasks_{name}"), counts.terminal.get(&(state as i32)).copied().unwrap_or(0) as f64);
    }
    set("slave/frameworks_active".to_owned(), table.frameworks().len() as f64);
    for (name, count) in [("registering", phases[0]), ("running", phases[1]), ("terminating", phases[2])] {
        set(format!("slave/executors_{name}"), f64::from(count));
    }
    set("slave/executors_terminated".to_owned(), counts.executors_terminated as f64);
    set("slave/container_launch_errors".to_owned(), counts.launch_errors as f64);
    set("slave/valid_status_updates".to_owned(), counts.valid_updates as f64);
    set("slave/invalid_status_updates".to_owned(), counts.invalid_updates as f64);
    set("slave/valid_framework_messages".to_owned(), counts.valid_messages as f64);
    set("slave/invalid_framework_messages".to_owned(), counts.invalid_messages as f64);
    let total = view.ledger.total().to_proto(mesos::Format::Refined);
    for name in ["cpus", "gpus", "mem", "disk"] {
        for (suffix, revocable) in [("", false), ("_revocable", true)] {
            let of = |resources: &[mesos_proto::v1::Resource]| {
                let matching: Vec<_> = resources.iter().filter(|it| it.revocable.is_some() == revocable).cloned().collect();
                scalar(&matching, name)
            };
            let (total, used) = (of(&total), of(&used));
            set(format!("slave/{name}{suffix}_total"), total);
            set(format!("slave/{name}{suffix}_used"), used);
            set(format!("slave/{name}{suffix}_percent"), if total > 0.0 { used / total } else { 0.0 });
        }
    }
    metrics
}
