//! What values mean.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{CaptureMode, CriSockets, LogFormat};
use crate::dns;
use crate::ebpf::PinDir;
use crate::procfs::Arguments;

pub(super) fn parse_name(text: &str, longest: usize) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        _ if text.len() > longest => Err(format!("longer than {longest} bytes")),
        _ if text.chars().any(|it| it.is_control() || it.is_whitespace() || it == ';') => {
            Err("blanks and semicolons are not allowed".to_owned())
        }
        _ => Ok(Some(text.to_owned())),
    }
}

pub(super) fn parse_path(text: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "" => Ok(None),
        _ if text.starts_with('/') => Ok(Some(PathBuf::from(text))),
        _ => Err("not an absolute path".to_owned()),
    }
}

pub(super) fn parse_cri_sockets(text: &str) -> Result<CriSockets, String> {
    match text {
        "auto" => Ok(CriSockets::Auto),
        "" | "off" => Ok(CriSockets::Off),
        _ => {
            let paths = text.split(',').map(str::trim).map(|path| parse_path(path.strip_prefix("unix://").unwrap_or(path)).ok().flatten());
            let paths: Option<Vec<PathBuf>> = paths.collect();
            paths.map(CriSockets::Paths).ok_or_else(|| "neither auto, off nor absolute paths with commas between them".to_owned())
        }
    }
}

pub(super) fn parse_admin_address(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "" | "off" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| "neither \"off\" nor an address and a port, such as 127.0.0.1:4042".to_owned()),
    }
}

pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|_| "not a time, such as 15s or 1m".to_owned())?;
    if (Duration::from_secs(1)..=Duration::from_secs(600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("not between 1s and 10m".to_owned())
    }
}

pub(super) fn parse_cpu_budget(text: &str) -> Result<Option<f64>, String> {
    if text == "off" {
        return Ok(None);
    }
    let percent = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>().ok().filter(|percent| (0.1..=10_000.0).contains(percent));
    percent.map(Some).ok_or_else(|| "neither \"off\" nor percent of one CPU, such as 5%".to_owned())
}

pub(super) fn parse_memory_budget(text: &str) -> Result<Option<u64>, String> {
    if text == "off" {
        return Ok(None);
    }
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("", 1)];
    let bytes = units.iter().find_map(|(unit, size)| text.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(*size));
    // Less than this no probe can do with.
    bytes.filter(|bytes| *bytes >= 1_000_000).map(Some).ok_or_else(|| "neither \"off\" nor a size of 1MB or more, such as 100MB".to_owned())
}

pub(super) fn parse_metadata_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    // Whoever is asked learns nothing and is believed little, but a probe does not talk to strangers.
    let is_near = |address: &SocketAddr| match address.ip() {
        std::net::IpAddr::V4(it) => it.is_link_local() || it.is_loopback(),
        std::net::IpAddr::V6(it) => it.is_unicast_link_local() || it.is_loopback(),
    };
    text.parse().ok().filter(is_near).map(Some).ok_or_else(|| "not a link-local or loopback address and a port".to_owned())
}

pub(super) fn parse_once(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|_| "not a time, such as 2s".to_owned())?;
    if time <= Duration::from_secs(3600) { Ok(time) } else { Err("longer than an hour".to_owned()) }
}

pub(super) fn parse_capture(text: &str) -> Result<CaptureMode, String> {
    match text {
        "auto" => Ok(CaptureMode::Auto),
        "ebpf" => Ok(CaptureMode::Ebpf),
        "netlink" => Ok(CaptureMode::Netlink),
        "proc" => Ok(CaptureMode::Proc),
        _ => Err("there are auto, ebpf, netlink and proc".to_owned()),
    }
}

pub(super) fn parse_pin_dir(text: &str) -> Result<PinDir, String> {
    match text {
        "off" => Ok(PinDir::Off),
        "on" => Ok(PinDir::Usual),
        "auto" if is_restarted() => Ok(PinDir::Usual),
        "auto" => Ok(PinDir::Off),
        _ if text.starts_with('/') => Ok(PinDir::At(PathBuf::from(text))),
        _ => Err("neither an absolute path nor one of auto, on and off".to_owned()),
    }
}

/// Whether somebody starts the probe again when it ends: systemd, Kubernetes, or a container engine, under which it is the first process. Programs
/// that are left behind by a probe that was started by hand would be a surprise.
fn is_restarted() -> bool {
    let own = std::process::id();
    let by_systemd = std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|pid| pid.parse() == Ok(own));
    by_systemd || own == 1 || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

pub(super) fn parse_dns(text: &str) -> Result<dns::Mode, String> {
    match text {
        "auto" => Ok(dns::Mode::Auto),
        "all" => Ok(dns::Mode::All),
        "off" => Ok(dns::Mode::Off),
        _ => Err("there are auto, all and off".to_owned()),
    }
}

pub(super) fn parse_arguments(text: &str) -> Result<Arguments, String> {
    match text {
        "show" => Ok(Arguments::Show),
        "hide" => Ok(Arguments::Hide),
        _ => Err("there are show and hide".to_owned()),
    }
}

pub(super) fn parse_truth(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "neither true nor false".to_owned())
}

pub(super) fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("there are text and json".to_owned()),
    }
}
