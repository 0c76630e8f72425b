//! What values mean.

use std::net::SocketAddr;
use std::time::Duration;

use super::{LogFormat, Service};

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    // Scope's way of saying "on every address".
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.replace("localhost:", "127.0.0.1:") };
    whole.parse().map_err(|_| "not an address and a port, such as 127.0.0.1:4040 or [::1]:4040".to_owned())
}

pub(super) fn parse_window(text: &str) -> Result<Duration, String> {
    let window = humantime::parse_duration(text).map_err(|_| "not a time, such as 15s or 2m".to_owned())?;
    if (Duration::from_secs(1)..=Duration::from_secs(3_600)).contains(&window) {
        Ok(window)
    } else {
        Err("not between 1s and 1h".to_owned())
    }
}

pub(super) fn parse_access(text: &str) -> Result<Option<zk::Options>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let access = zksync_service::definition::EnsembleDefinition::access_in(std::path::Path::new(text));
    access.map(Some).map_err(|error| error.to_string())
}

/// What servers grant with their usual settings: 2 to 30 ticks of 2 s.
pub(super) fn parse_session_timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|_| "not a time, such as 10s".to_owned())?;
    if (Duration::from_secs(2)..=Duration::from_secs(60)).contains(&timeout) {
        Ok(timeout)
    } else {
        Err("not between 2s and 60s".to_owned())
    }
}

pub(super) fn parse_host(text: &str) -> Result<Option<String>, String> {
    if text.chars().any(|it| it.is_whitespace() || it == '/') {
        return Err("neither a name nor an address".to_owned());
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

pub(super) fn parse_history(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    let span = humantime::parse_duration(text).map_err(|_| "neither off nor a time, such as 6h".to_owned())?;
    if (Duration::from_secs(60)..=Duration::from_secs(30 * 86_400)).contains(&span) {
        Ok(Some(span))
    } else {
        Err("neither off nor between 1m and 30days".to_owned())
    }
}

pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim() {
        "" | "B" => Some(1),
        "MB" => Some(1_000_000),
        "MiB" => Some(1 << 20),
        "GB" => Some(1_000_000_000),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = unit.and_then(|unit: u64| text[..digits].parse::<u64>().ok()?.checked_mul(unit));
    match bytes {
        Some(bytes) if bytes >= 1 << 20 => Ok(bytes),
        _ => Err("not a size of at least 1MiB, such as 500MB or 2GiB".to_owned()),
    }
}

pub(super) fn parse_count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (least..=most).contains(&count) => Ok(count),
        _ => Err(format!("not a number between {least} and {most}")),
    }
}

pub(super) fn parse_services(text: &str) -> Result<Vec<Service>, String> {
    let one = |name: &str| match name.trim() {
        "topology" => Ok(Service::Topology),
        "master" => Ok(Service::Master),
        "scheduler" => Ok(Service::Scheduler),
        "zksync" => Ok(Service::ZkSync),
        other => Err(format!("there is no service {other:?}; there are topology, master, scheduler and zksync")),
    };
    text.split(',').map(one).collect()
}

pub(super) fn parse_mesos_flags(text: &str) -> Result<Vec<String>, String> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    edge_mesos::Flags::default().with(words.iter().map(String::as_str)).map_err(|error| error.to_string())?;
    Ok(words)
}

pub(super) fn parse_domain(text: &str) -> Result<String, String> {
    let is_label = |it: &str| !it.is_empty() && it.len() <= 63 && it.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if text.split('.').all(is_label) { Ok(text.to_lowercase()) } else { Err("not a domain's name".to_owned()) }
}

pub(super) fn parse_dns_servers(text: &str) -> Result<Vec<SocketAddr>, String> {
    let server = |it: &str| {
        let alone = it.parse::<std::net::IpAddr>().map(|address| SocketAddr::new(address, 53));
        alone.or_else(|_| it.parse()).map_err(|_| format!("{it:?} is not an address"))
    };
    text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(server).collect()
}

pub(super) fn parse_marathon_flags(text: &str) -> Result<Vec<String>, String> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    edge_marathon::settings::Settings::default().with_flags(words.iter().map(String::as_str)).map_err(|error| error.to_string())?;
    Ok(words)
}

pub(super) fn parse_masters(text: &str) -> Result<Vec<String>, String> {
    let masters: Vec<String> = text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect();
    match masters.iter().find(|it| it.contains("://") && !it.starts_with("http://") && !it.starts_with("https://")) {
        Some(other) => Err(format!("{other:?} is not of the form http://host:port or https://host:port")),
        None => Ok(masters),
    }
}

/// As browsers write them: no path, and no port that the scheme has anyway.
pub(super) fn parse_origins(text: &str) -> Result<Vec<String>, String> {
    let origins = text.split(',').map(str::trim).filter(|it| !it.is_empty());
    let parse = |origin: &str| {
        let written = origin.strip_suffix('/').unwrap_or(origin).to_ascii_lowercase();
        let (host, port) = match written.split_once("://") {
            Some(("http", host)) => (host, ":80"),
            Some(("https", host)) => (host, ":443"),
            _ => ("", ""),
        };
        if host.is_empty() || host.contains(['/', '@', '?', '#', '*', ' ']) {
            return Err(format!("{origin:?} is no origin, such as https://map.example or http://map.example:8080"));
        }
        Ok(written.strip_suffix(port).unwrap_or(&written).to_owned())
    };
    origins.map(parse).collect()
}

pub(super) fn parse_url(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        url if url.starts_with("http://") || url.starts_with("https://") => Ok(Some(url.to_owned())),
        _ => Err("not an address such as http://map:4040".to_owned()),
    }
}

pub(super) fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("neither text nor json".to_owned()),
    }
}
