//! The catalogue of the probe's metrics: dashboards and alerts name these and no others. Labels come from small fixed sets.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, CounterVec, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::ebpf::Meter;

use crate::stream;

mod kubernetes;

pub use kubernetes::Kubernetes;

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Rung of the ladder that the probe stands on; 0 before it has one.
    pub rung: IntGauge,
    /// Observations taken in, by kind.
    pub observations: IntCounterVec,
    /// What was lost so far, by cause. Zero everywhere is the normal state.
    pub lost: IntCounterVec,
    /// Share of the connection ends that the kernel saw and that reached a flow.
    pub completeness: Gauge,
    /// Share of the connection ends seen by the kernel whose process the kernel programs knew.
    pub attribution: Gauge,
    /// The others, by end.
    pub ends_unowned: IntCounterVec,
    /// From an event in the kernel to the report that tells it, while the control plane listens.
    pub event_delivery_seconds: Histogram,
    /// How long the look at what was there before the capture took: sockets with their holders, and processes.
    pub snapshot_seconds: Gauge,
    /// Reports handed to the stream.
    pub reports_sent: IntCounter,
    /// Reports that the control plane did not apply.
    pub reports_rejected: IntCounter,
    /// Encoded bytes that wait to be acknowledged.
    pub outbox_bytes: IntGauge,
    /// 1 while the stream to the control plane is welcomed.
    pub stream_connected: IntGauge,
    /// Streams that were opened.
    pub streams_opened: IntCounter,
    /// Daemons of a container runtime that answer.
    pub runtime_connected: IntGaugeVec,
    /// What runtimes told of their containers without being asked.
    pub runtime_events: IntCounterVec,
    /// Containers, pods and images that a runtime was asked for.
    pub runtime_lookups: IntCounterVec,
    /// Answers of runtimes that did not come, were refused, or were not understood.
    pub runtime_failures: IntCounterVec,
    /// Living processes in the table.
    pub processes: IntGauge,
    /// Flows in the table.
    pub flows: IntGauge,
    /// Flows that are told in sums because there are too many.
    pub flows_summed: IntGauge,
    /// Listening sockets in the table.
    pub listeners: IntGauge,
    /// Connections over Unix sockets in the table, by client, server and name.
    pub unix_flows: IntGauge,
    /// Processes that the kernel ended because memory ran out.
    pub oom_kills: IntCounter,
    /// Kernel memory of the programs' maps, by map.
    pub bpf_map_bytes: IntGaugeVec,
    /// Time that the kernel spent in a program, by program; while the system measures it.
    pub bpf_run_seconds: CounterVec,
    /// Runs of a program, likewise.
    pub bpf_runs: IntCounterVec,
    /// Where the numbers of the kernel programs are read.
    meter: Mutex<Option<Arc<Meter>>>,
    /// Containers in the table.
    pub containers: IntGauge,
    /// Controls that were called, by outcome.
    pub controls: IntCounterVec,
    /// Open pipes: terminals and logs.
    pub pipes: IntGauge,
    /// Bytes through pipes, by direction.
    pub pipe_bytes: IntCounterVec,
    /// Addresses of which a translation is known.
    pub translations: IntGauge,
    /// Events of connection tracking that were read.
    pub conntrack_events: IntCounter,
    /// How often the kernel had no room for events of connection tracking.
    pub conntrack_overruns: IntCounter,
    /// Addresses with names in the table.
    pub names: IntGauge,
    /// Messages of DNS so far, by what became of them.
    pub dns_messages: IntCounterVec,
    /// Programs that are attached now to see messages of DNS.
    pub dns_attachments: IntGauge,
    /// Entries of `/proc` that vanished while they were read.
    pub proc_vanished: IntCounter,
    /// Files of `/proc` that were refused or not understood.
    pub proc_unreadable: IntCounter,
    /// Processes whose details were put off because too many began at once.
    pub details_deferred: IntCounter,
    /// How long the last look at the host, its processes and its containers took.
    pub sampling_seconds: Gauge,
    /// Processes that the last look found.
    pub sampled_processes: IntGauge,
    /// Containers whose cgroups the last look read.
    pub sampled_cgroups: IntGauge,
    /// Looks that used up their share of CPU before everything was read: the rest has its turn in the next.
    pub sampling_over_budget: IntCounter,
    /// Step at which the probe leaves optional work out to keep to its budget; 0 leaves nothing out, each one more doubles the pauses.
    pub budget_step: IntGauge,
    /// File systems that do not answer.
    pub disks_unanswered: IntGauge,
    /// 1 when the configuration was taken as it was read last.
    pub config_reload_success: IntGauge,
    /// CPU time of the probe.
    pub cpu_seconds: Counter,
    /// Resident memory of the probe.
    pub resident_bytes: IntGauge,
    /// Loops that panicked, by loop.
    pub loop_panics: IntCounterVec,
    /// Loops that were started again, by loop.
    pub loop_restarts: IntCounterVec,
    /// Of the collector of a cluster.
    pub kubernetes: Kubernetes,
}

/// Close around what is promised, a twentieth of a second.
const EVENT_DELIVERY_BUCKETS: [f64; 12] = [0.005, 0.01, 0.02, 0.03, 0.04, 0.045, 0.05, 0.06, 0.075, 0.1, 0.25, 1.0];

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        Metrics {
            rung: register(&registry, IntGauge::new("probe_rung", "Rung of the capture ladder; 1 sees most, 0 is none yet.")),
            observations: register(&registry, IntCounterVec::new(opts("probe_observations_total", "Observations taken in."), &["kind"])),
            lost: register(
                &registry,
                IntCounterVec::new(opts("probe_lost_total", "What was lost since the start of the probe."), &["cause"]),
            ),
            completeness: register(
                &registry,
                Gauge::new("probe_completeness_ratio", "Share of connection ends seen by the kernel that reached a flow."),
            ),
            attribution: register(
                &registry,
                Gauge::new(
                    "probe_attribution_ratio",
                    "Share of connection ends seen by the kernel whose process the kernel programs knew.",
                ),
            ),
            ends_unowned: register(
                &registry,
                IntCounterVec::new(
                    opts("probe_ends_unowned_total", "Connection ends seen by the kernel whose process the kernel programs did not know."),
                    &["end"],
                ),
            ),
            event_delivery_seconds: register(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new("probe_event_delivery_seconds", "From an event in the kernel to the report that tells it.")
                        .buckets(EVENT_DELIVERY_BUCKETS.to_vec()),
                ),
            ),
            snapshot_seconds: register(
                &registry,
                Gauge::new("probe_snapshot_seconds", "Time of the look at the sockets and processes that were there first."),
            ),
            reports_sent: register(&registry, IntCounter::new("probe_reports_sent_total", "Reports handed to the stream.")),
            reports_rejected: register(
                &registry,
                IntCounter::new("probe_reports_rejected_total", "Reports the control plane did not apply."),
            ),
            outbox_bytes: register(&registry, IntGauge::new("probe_outbox_bytes", "Encoded bytes that wait to be acknowledged.")),
            stream_connected: register(&registry, IntGauge::new("probe_stream_connected", "1 while the stream is welcomed.")),
            streams_opened: register(&registry, IntCounter::new("probe_streams_opened_total", "Streams that were welcomed.")),
            runtime_connected: register(
                &registry,
                IntGaugeVec::new(opts("probe_runtime_connected", "Daemons of a container runtime that answer."), &["runtime"]),
            ),
            runtime_events: register(
                &registry,
                IntCounterVec::new(opts("probe_runtime_events_total", "What runtimes told of their containers."), &["runtime"]),
            ),
            runtime_lookups: register(
                &registry,
                IntCounterVec::new(opts("probe_runtime_lookups_total", "Containers, pods and images asked for."), &["runtime"]),
            ),
            runtime_failures: register(
                &registry,
                IntCounterVec::new(opts("probe_runtime_failures_total", "Answers that did not come or were no use."), &["runtime"]),
            ),
            processes: register(&registry, IntGauge::new("probe_processes", "Living processes in the table.")),
            flows: register(&registry, IntGauge::new("probe_flows", "Flows in the table.")),
            flows_summed: register(&registry, IntGauge::new("probe_flows_summed", "Flows told in sums because there are too many.")),
            listeners: register(&registry, IntGauge::new("probe_listeners", "Listening sockets in the table.")),
            unix_flows: register(
                &registry,
                IntGauge::new("probe_unix_flows", "Connections over Unix sockets in the table, by client, server and name."),
            ),
            bpf_map_bytes: register(
                &registry,
                IntGaugeVec::new(opts("probe_bpf_map_bytes", "Kernel memory of the maps of the kernel programs."), &["map"]),
            ),
            bpf_run_seconds: register(
                &registry,
                CounterVec::new(
                    opts("probe_bpf_run_seconds_total", "Time in kernel programs, while kernel.bpf_stats_enabled is 1."),
                    &["program"],
                ),
            ),
            bpf_runs: register(
                &registry,
                IntCounterVec::new(
                    opts("probe_bpf_runs_total", "Runs of kernel programs, while kernel.bpf_stats_enabled is 1."),
                    &["program"],
                ),
            ),
            meter: Mutex::new(None),
            oom_kills: register(
                &registry,
                IntCounter::new("probe_oom_kills_total", "Processes that the kernel ended because memory ran out."),
            ),
            containers: register(&registry, IntGauge::new("probe_containers", "Containers in the table.")),
            controls: register(&registry, IntCounterVec::new(opts("probe_controls_total", "Controls that were called."), &["outcome"])),
            pipes: register(&registry, IntGauge::new("probe_pipes", "Open pipes: terminals and logs.")),
            pipe_bytes: register(&registry, IntCounterVec::new(opts("probe_pipe_bytes_total", "Bytes through pipes."), &["direction"])),
            translations: register(&registry, IntGauge::new("probe_translations", "Addresses of which an address translation is known.")),
            conntrack_events: register(
                &registry,
                IntCounter::new("probe_conntrack_events_total", "Events of translated connections read from connection tracking."),
            ),
            conntrack_overruns: register(
                &registry,
                IntCounter::new(
                    "probe_conntrack_overruns_total",
                    "Overruns of connection tracking's events; each is followed by a new look.",
                ),
            ),
            names: register(&registry, IntGauge::new("probe_names", "Addresses with names in the table.")),
            dns_messages: register(
                &registry,
                IntCounterVec::new(opts("probe_dns_messages_total", "Messages of DNS, by what became of them."), &["outcome"]),
            ),
            dns_attachments: register(&registry, IntGauge::new("probe_dns_attachments", "Programs attached now to see messages of DNS.")),
            proc_vanished: register(
                &registry,
                IntCounter::new("probe_proc_vanished_total", "Processes that vanished while /proc was read."),
            ),
            proc_unreadable: register(
                &registry,
                IntCounter::new("probe_proc_unreadable_total", "Files of /proc refused or not understood."),
            ),
            details_deferred: register(
                &registry,
                IntCounter::new("probe_details_deferred_total", "Processes whose details were put off because too many began at once."),
            ),
            sampling_seconds: register(
                &registry,
                Gauge::new("probe_sampling_round_seconds", "Time that the last look at host, processes and containers took."),
            ),
            sampled_processes: register(&registry, IntGauge::new("probe_sampled_processes", "Processes that the last look found.")),
            sampled_cgroups: register(&registry, IntGauge::new("probe_sampled_cgroups", "Containers whose cgroups the last look read.")),
            sampling_over_budget: register(
                &registry,
                IntCounter::new("probe_sampling_over_budget_total", "Looks that ended their share of CPU before everything was read."),
            ),
            budget_step: register(
                &registry,
                IntGauge::new("probe_budget_step", "Optional work is done 1, 2, 4, 8 or 16 times as rarely to keep to the budget: 0 to 4."),
            ),
            disks_unanswered: register(&registry, IntGauge::new("probe_disks_unanswered", "File systems that do not answer.")),
            config_reload_success: register(
                &registry,
                IntGauge::new(
                    "probe_config_reload_success",
                    "1 when the configuration was taken as it was read last, 0 when it had mistakes.",
                ),
            ),
            cpu_seconds: register(&registry, Counter::new("probe_cpu_seconds_total", "CPU time of the probe.")),
            resident_bytes: register(&registry, IntGauge::new("probe_resident_bytes", "Resident memory of the probe.")),
            loop_panics: register(&registry, IntCounterVec::new(opts("probe_loop_panics_total", "Loops that panicked."), &["loop"])),
            loop_restarts: register(&registry, IntCounterVec::new(opts("probe_loop_restarts_total", "Loops started again."), &["loop"])),
            kubernetes: Kubernetes::new(&registry),
            registry,
        }
    }

    /// Where the node's stream counts.
    pub fn stream(&self) -> stream::Numbers {
        stream::Numbers {
            connected: self.stream_connected.clone(),
            opened: self.streams_opened.clone(),
            sent: self.reports_sent.clone(),
            rejected: self.reports_rejected.clone(),
            held_bytes: self.outbox_bytes.clone(),
        }
    }

    /// Where controls and pipes count.
    pub fn desk(&self) -> probe_controls::Numbers {
        probe_controls::Numbers {
            calls: self.controls.clone(),
            pipes: self.pipes.clone(),
            bytes_sent: self.pipe_bytes.with_label_values(&["sent"]),
            bytes_received: self.pipe_bytes.with_label_values(&["received"]),
        }
    }

    /// Where the numbers of the kernel programs are to be read from now on; `None` for nowhere.
    pub fn set_meter(&self, meter: Option<Arc<Meter>>) {
        *self.meter.lock().unwrap_or_else(PoisonError::into_inner) = meter;
    }

    /// Everything, with the process's own numbers and those of the kernel programs read now.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.read_own();
        self.read_programs();
        self.registry.gather()
    }

    fn read_programs(&self) {
        let meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(reading) = meter.map(|meter| meter.read()) else { return };
        for (map, bytes) in &reading.map_bytes {
            self.bpf_map_bytes.with_label_values(&[map]).set(i64::try_from(*bytes).unwrap_or(i64::MAX));
        }
        for program in &reading.programs {
            let (seconds, runs) =
                (self.bpf_run_seconds.with_label_values(&[&program.name]), self.bpf_runs.with_label_values(&[&program.name]));
            seconds.inc_by((program.run_time.as_secs_f64() - seconds.get()).max(0.0));
            runs.inc_by(program.run_count.saturating_sub(runs.get()));
        }
    }

    fn read_own(&self) {
        if let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF) {
            let seconds = seconds(usage.user_time()) + seconds(usage.system_time());
            self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
        }
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(bytes);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help)
}

fn register<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("names and labels of the catalogue are constants; a test makes all of them");
    registry.register(Box::new(metric.clone())).expect("every name stands once in the catalogue; a test makes all of them");
    metric
}

fn seconds(time: nix::sys::time::TimeVal) -> f64 {
    std::time::Duration::new(u64::try_from(time.tv_sec()).unwrap_or(0), u32::try_from(time.tv_usec()).unwrap_or(0).saturating_mul(1_000))
        .as_secs_f64()
}

/// Resident memory of this process.
pub(crate) fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse::<i64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_can_be_made_and_reads_the_process() {
        let metrics = Metrics::new();
        metrics.gather();
        assert!(metrics.resident_bytes.get() > 1_000_000);
        assert!(metrics.gather().iter().all(|family| family.name().starts_with("probe_")));
    }

    #[test]
    fn what_is_called_a_total_is_a_counter() {
        let metrics = Metrics::new();
        metrics.lost.with_label_values(&["ring"]);
        metrics.dns_messages.with_label_values(&["read"]);
        let families = metrics.gather();
        let totals: Vec<_> = families.iter().filter(|family| family.name().ends_with("_total")).collect();
        assert!(totals.iter().any(|family| family.name() == "probe_lost_total"));
        for family in totals {
            assert_eq!(family.get_field_type(), prometheus::proto::MetricType::COUNTER, "{}", family.name());
        }
    }
}
