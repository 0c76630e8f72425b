//! Metric rows: section 3.5 of Scope's JSON, and in panels what Scope did not measure.

use base::Timestamp;

use crate::index::{ContainerIndex, Entity};
use crate::node::MetricRow;
use crate::tables::{ContainerSample, HostRow, HostSample, ProcessRow, ProcessSample, Tables};

/// Metrics of a host; in its panel more of them, and all with samples.
pub(crate) fn host_metrics(host: &HostRow, in_panel: bool) -> Vec<MetricRow> {
    let samples = |value: fn(&HostSample) -> f64| host.samples.iter().map(|sample| (sample.at, value(sample))).collect();
    // What a kernel does not tell, or what is not there, has no row.
    let known = |value: fn(&HostSample) -> Option<f32>| {
        host.samples.iter().filter_map(|sample| Some((sample.at, f64::from(value(sample)?)))).collect::<Vec<_>>()
    };
    let memory_max = Some(host.record.memory_bytes).filter(|&bytes| bytes > 0).map(|bytes| bytes as f64);
    let mut rows = vec![
        metric("host_cpu_usage_percent", "CPU", "percent", "", 1.0, samples(|sample| sample.cpu_percent), Some(100.0), in_panel),
        metric("host_mem_usage_bytes", "Memory", "filesize", "", 2.0, samples(|s| s.memory_used_bytes as f64), memory_max, in_panel),
    ];
    if in_panel {
        let full = Some(100.0);
        if host.samples.iter().any(|sample| sample.swap_used_bytes > 0) {
            rows.push(metric("host_swap_usage_bytes", "Swap", "filesize", "", 3.0, samples(|s| s.swap_used_bytes as f64), None, true));
        }
        rows.extend([
            metric("host_cpu_pressure_percent", "CPU pressure", "percent", "", 4.0, known(|s| s.pressure.map(|it| it[0])), full, true),
            metric("host_mem_pressure_percent", "Memory pressure", "percent", "", 5.0, known(|s| s.pressure.map(|it| it[1])), full, true),
            metric("host_io_pressure_percent", "I/O pressure", "percent", "", 6.0, known(|s| s.pressure.map(|it| it[2])), full, true),
            metric("receive_bytes", "Rx/s", "filesize", "", 7.0, known(|s| s.rates.map(|it| it[0])), None, true),
            metric("transmit_bytes", "Tx/s", "filesize", "", 8.0, known(|s| s.rates.map(|it| it[1])), None, true),
            metric("disk_read_bytes", "Read/s", "filesize", "", 9.0, known(|s| s.rates.map(|it| it[2])), None, true),
            metric("disk_write_bytes", "Written/s", "filesize", "", 10.0, known(|s| s.rates.map(|it| it[3])), None, true),
        ]);
    }
    rows.push(metric("load1", "Load (1m)", "", "load", 11.0, samples(|sample| sample.load[0]), None, in_panel));
    if in_panel && host.samples.iter().any(|sample| sample.load[1] > 0.0 || sample.load[2] > 0.0) {
        rows.push(metric("load5", "Load (5m)", "", "load", 12.0, samples(|sample| sample.load[1]), None, true));
        rows.push(metric("load15", "Load (15m)", "", "load", 13.0, samples(|sample| sample.load[2]), None, true));
    }
    rows.into_iter().flatten().collect()
}

/// Metrics of a process, with samples for its panel.
pub(crate) fn process_metrics(process: &ProcessRow, cpu_count: u32, with_samples: bool) -> Vec<MetricRow> {
    let samples = |value: fn(&ProcessSample) -> f64| process.samples.iter().map(|sample| (sample.at, value(sample))).collect();
    let limit = process.samples.back().map(|sample| sample.open_files_limit).filter(|&limit| limit > 0).map(|limit| limit as f64);
    let cpu_max = Some(100.0 * f64::from(cpu_count.max(1)));
    [
        metric("process_cpu_usage_percent", "CPU", "percent", "", 1.0, samples(|s| f64::from(s.cpu_percent)), cpu_max, with_samples),
        metric("process_memory_usage_bytes", "Memory", "filesize", "", 2.0, samples(|s| s.memory_bytes as f64), None, with_samples),
        metric("open_files_count", "Open files", "integer", "", 3.0, samples(|s| f64::from(s.open_files)), limit, with_samples),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Metrics of a container; in its panel more of them, and all with samples.
pub(crate) fn container_metrics(tables: &Tables, index: ContainerIndex, in_panel: bool) -> Vec<MetricRow> {
    let Some(row) = tables.containers.get(index) else { return Vec::new() };
    let samples = |value: fn(&ContainerSample) -> f64| row.samples.iter().map(|sample| (sample.at, value(sample))).collect();
    let known = |value: fn(&ContainerSample) -> Option<f32>| {
        row.samples.iter().filter_map(|sample| Some((sample.at, f64::from(value(sample)?)))).collect::<Vec<_>>()
    };
    let limit = row.samples.back().map(|sample| sample.memory_limit_bytes).filter(|&limit| limit > 0);
    let host_memory = tables.hosts.get(row.host).map(|host| host.record.memory_bytes).filter(|&bytes| bytes > 0);
    let memory_max = limit.or(host_memory).map(|bytes| bytes as f64);
    let full = Some(100.0);
    let mut rows = vec![
        metric("docker_cpu_total_usage", "CPU", "percent", "", 1.0, samples(|sample| sample.cpu_percent), full, in_panel),
        metric("docker_memory_usage", "Memory", "filesize", "", 2.0, samples(|s| s.memory_bytes as f64), memory_max, in_panel),
    ];
    if in_panel {
        if row.latest.as_ref().is_some_and(|latest| latest.cpu_limit > 0.0) {
            let throttled = samples(|s| f64::from(s.throttled_percent));
            rows.push(metric("container_cpu_throttled_percent", "CPU throttled", "percent", "", 3.0, throttled, full, true));
        }
        rows.extend([
            metric("container_cpu_pressure_percent", "CPU pressure", "percent", "", 4.0, known(|s| s.pressure.map(|it| it[0])), full, true),
            metric(
                "container_mem_pressure_percent",
                "Memory pressure",
                "percent",
                "",
                5.0,
                known(|s| s.pressure.map(|it| it[1])),
                full,
                true,
            ),
            metric("container_io_pressure_percent", "I/O pressure", "percent", "", 6.0, known(|s| s.pressure.map(|it| it[2])), full, true),
        ]);
    }
    rows.into_iter().flatten().collect()
}

/// The newest value of the metric of that reduced name, as a summary shows it, or how long something has run: without drawing the node.
pub(crate) fn value_of(tables: &Tables, entity: Entity, field: &str, now: Timestamp) -> Option<f64> {
    let span = |since: Timestamp| now.since(since).as_secs() as f64;
    let value = match entity {
        Entity::Host(host) => {
            let row = tables.hosts.get(host)?;
            match field {
                "uptime" => (row.record.booted_at != Timestamp::EPOCH).then(|| span(row.record.booted_at)),
                "cpu" => row.samples.back().map(|it| it.cpu_percent),
                "memory" => row.samples.back().map(|it| it.memory_used_bytes as f64),
                "load1m" => row.samples.back().map(|it| it.load[0]),
                _ => None,
            }
        }
        Entity::Process(process) => {
            let sample = tables.processes.get(process)?.samples.back()?;
            match field {
                "cpu" => Some(f64::from(sample.cpu_percent)),
                "memory" => Some(sample.memory_bytes as f64),
                "openfiles" => Some(f64::from(sample.open_files)),
                _ => None,
            }
        }
        Entity::Task(task) => return value_of(tables, crate::tasks::container(tables, task)?, field, now),
        Entity::Container(container) => {
            let row = tables.containers.get(container)?;
            let record = row.record.as_ref()?;
            match field {
                "uptime" => record.started_at.filter(|_| record.state.runs()).map(span),
                "cpu" => row.samples.back().map(|it| it.cpu_percent),
                "memory" => row.samples.back().map(|it| it.memory_bytes as f64),
                _ => None,
            }
        }
        _ => None,
    };
    value.map(cut)
}

/// Whether the field of that reduced name is a span of time in seconds.
pub(crate) fn is_span(field: &str) -> bool {
    field == "uptime"
}

/// Scope cuts, so that 99.999 is never shown as 100.
fn cut(value: f64) -> f64 {
    (value * 100.0).trunc() / 100.0
}

#[expect(clippy::too_many_arguments, reason = "a row of a table that is written down once per metric")]
fn metric(
    id: &'static str,
    label: &'static str,
    format: &'static str,
    group: &'static str,
    priority: f64,
    samples: Vec<(Timestamp, f64)>,
    max: Option<f64>,
    with_samples: bool,
) -> Option<MetricRow> {
    let &(_, last) = samples.last()?;
    let values = || samples.iter().map(|&(_, value)| value);
    let min = values().fold(f64::INFINITY, f64::min);
    let largest = values().fold(f64::NEG_INFINITY, f64::max);
    let max = max.map_or(largest, |max| max.max(largest));
    let value = cut(last);
    let samples = if with_samples { samples } else { Vec::new() };
    Some(MetricRow { id: id.into(), label: label.into(), format: format.into(), group: group.into(), value, priority, samples, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_cut_and_keeps_its_range() {
        let at = Timestamp::from_unix_millis(1);
        let row = metric("cpu", "CPU", "percent", "", 1.0, vec![(at, 3.0), (at, 99.999)], Some(100.0), false).unwrap();
        assert_eq!((row.value, row.min, row.max), (99.99, 3.0, 100.0));
        assert!(row.samples.is_empty());
        assert_eq!(metric("cpu", "CPU", "percent", "", 1.0, Vec::new(), None, true), None);
    }
}
