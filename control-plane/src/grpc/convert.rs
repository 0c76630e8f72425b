//! The wire's words into the map's. Everything is checked here: what comes out is well-formed, though it may still be a lie.

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use proto::probe::v1 as wire;
use topology::{ProbeHello, ProbeId, Report, ReportKind};

use self::fields::{address, check_host_name, each, id, optional_id, process_key};

mod containers;
mod fields;
mod flows;
mod hosts;
mod kubernetes;
mod metrics;

/// How far ahead of ours a node's clock may be. Moments further ahead become now, so that a lying clock cannot keep things on the map.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Longest id of a container, an image or a session, in bytes. Ids are never cut: two would become one.
const ID_MAX: usize = 256;
/// Longest name: of a host, a process, a network.
const NAME_MAX: usize = 1_024;
/// Most controls that a probe names.
const CONTROLS_MAX: usize = 64;
/// Longest text of any other kind.
const TEXT_MAX: usize = 8_192;

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It breaks a rule.
    Malformed(String),
    /// It is about another host than the stream's.
    WrongHost(String),
}

impl Fault {
    fn malformed(text: impl Into<String>) -> Self {
        Fault::Malformed(text.into())
    }

    /// Says where in the message.
    fn inside(self, place: impl std::fmt::Display) -> Self {
        match self {
            Fault::Malformed(text) => Fault::Malformed(format!("{place}.{text}")),
            other => other,
        }
    }
}

/// What is well-formed, or why it is not.
pub type Checked<T> = Result<T, Fault>;

/// A report in the map's words.
#[derive(Debug)]
pub struct Converted {
    /// The report, every field of it checked.
    pub report: Box<Report>,
    /// What was mended in it.
    pub repairs: Repairs,
}

/// What was mended in a report, rather than refusing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Moments in the future that were set to now.
    pub times_clamped: u64,
    /// Texts cut to their limit.
    pub texts_cut: u64,
    /// Names left out: where addresses should be, or because they are none that a name server has.
    pub names_left_out: u64,
    /// Lists of which only the beginning was kept.
    pub lists_cut: u64,
}

/// What a probe says of itself.
///
/// # Errors
/// When a field is not what the protocol says.
pub fn hello(hello: wire::Hello) -> Checked<(ProbeId, ProbeHello)> {
    let mut converter = Converter::new(Timestamp::EPOCH);
    if !(1..=128).contains(&hello.probe_id.chars().count()) {
        return Err(Fault::malformed("probe_id has not 1 to 128 characters"));
    }
    if hello.probe_id.chars().any(char::is_control) {
        return Err(Fault::malformed("probe_id has control characters"));
    }
    check_host_name(&hello.host_name)?;
    let session = id("session_id", &hello.session_id)?;
    let capture = hello.capture.map(|capture| converter.capture(capture)).unwrap_or_default();
    Ok((
        hello.probe_id.into(),
        ProbeHello {
            host_name: hello.host_name.into(),
            version: converter.text(hello.version, NAME_MAX),
            session,
            oldest_held_sequence: hello.oldest_held_sequence,
            capture,
            cluster_name: optional_id("cluster_name", &hello.cluster_name)?,
            controls: controls(&hello.controls)?,
        },
    ))
}

/// Which controls a probe carries out, in order.
fn controls(ids: &[String]) -> Checked<Arc<[Arc<str>]>> {
    if ids.len() > CONTROLS_MAX {
        return Err(Fault::malformed(format!("controls has {} ids; {CONTROLS_MAX} are allowed", ids.len())));
    }
    let mut ids = ids.iter().map(|it| id("controls", it)).collect::<Checked<Vec<Arc<str>>>>()?;
    ids.sort();
    ids.dedup();
    Ok(ids.into())
}

/// A report on the stream of `host_name`, received at `now`.
///
/// # Errors
/// When a field is not what the protocol says.
pub fn report(report: wire::Report, host_name: &str, now: Timestamp) -> Checked<Converted> {
    let mut converter = Converter::new(now);
    let report = converter.report(report, host_name)?;
    Ok(Converted { report: Box::new(report), repairs: converter.repairs })
}

struct Converter {
    now: Timestamp,
    latest: Timestamp,
    repairs: Repairs,
}

impl Converter {
    fn new(now: Timestamp) -> Self {
        Converter { now, latest: now + CLOCK_TOLERANCE, repairs: Repairs::default() }
    }

    fn report(&mut self, report: wire::Report, host_name: &str) -> Checked<Report> {
        if report.sequence == 0 {
            return Err(Fault::malformed("sequence is 0"));
        }
        let kind = match wire::report::Kind::try_from(report.kind) {
            Ok(wire::report::Kind::Delta) => ReportKind::Delta,
            Ok(wire::report::Kind::SnapshotPart) => ReportKind::SnapshotPart,
            Ok(wire::report::Kind::SnapshotEnd) => ReportKind::SnapshotEnd,
            Ok(wire::report::Kind::Unspecified) | Err(_) => return Err(Fault::malformed(format!("kind is {}", report.kind))),
        };
        Ok(Report {
            sequence: report.sequence,
            observed_at: self.time(report.observed_at_unix_nanos),
            kind,
            host: report.host.map(|host| self.host(host, host_name)).transpose().map_err(|fault| fault.inside("host"))?,
            processes: each("processes", report.processes, |it| self.process(it))?,
            processes_gone: each("processes_gone", report.processes_gone, |it| process_key("key", Some(it)))?,
            containers: each("containers", report.containers, |it| self.container(it))?,
            containers_gone: each("containers_gone", report.containers_gone, |it| id("id", &it))?,
            images: each("images", report.images, |it| self.image(it))?,
            images_gone: each("images_gone", report.images_gone, |it| id("id", &it))?,
            flows: each("flows", report.flows, |it| self.flow(it))?,
            flows_gone: report.flows_gone,
            capture: report.capture.map(|it| self.capture(it)),
            losses: report.losses.map(|it| self.losses(it)),
            host_metrics: each("host_metrics", report.host_metrics, |it| self.host_metrics(it))?,
            process_metrics: each("process_metrics", report.process_metrics, |it| self.process_metrics(&it))?,
            container_metrics: each("container_metrics", report.container_metrics, |it| self.container_metrics(&it))?,
            kubernetes: each("kubernetes", report.kubernetes, |it| self.kubernetes_object(it))?,
            kubernetes_gone: each("kubernetes_gone", report.kubernetes_gone, |it| id("uid", &it))?,
            listeners: each("listeners", report.listeners, |it| self.listener(it))?,
            listeners_gone: report.listeners_gone,
            resolved_addresses: {
                let named = each("resolved_addresses", report.resolved_addresses, |it| self.resolved_address(it))?;
                named.into_iter().flatten().collect()
            },
            resolved_addresses_gone: each("resolved_addresses_gone", report.resolved_addresses_gone, |it| address("address", &it))?,
            unix_flows: each("unix_flows", report.unix_flows, |it| self.unix_flow(it))?,
            unix_flows_gone: report.unix_flows_gone,
        })
    }
}

#[cfg(test)]
mod tests;
