//! Health checks, checks and readiness checks.

use scheduler::model::health::{Check, Command, HealthCheck, PortRef, Probe, ReadinessCheck};
use serde_json::Value;

use super::{Json, Reader};

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Http { tls: bool, by_agent: bool },
    Tcp { by_agent: bool },
    Command,
}

const KINDS: [(&str, Kind); 7] = [
    ("HTTP", Kind::Http { tls: false, by_agent: false }),
    ("HTTPS", Kind::Http { tls: true, by_agent: false }),
    ("TCP", Kind::Tcp { by_agent: false }),
    ("COMMAND", Kind::Command),
    ("MESOS_TCP", Kind::Tcp { by_agent: true }),
    ("MESOS_HTTP", Kind::Http { tls: false, by_agent: true }),
    ("MESOS_HTTPS", Kind::Http { tls: true, by_agent: true }),
];

/// Seconds that anything in a check may be.
const SECONDS_MAX: u64 = 1 << 31;

/// Health checks of an app. `has_ports` says whether the first port may be meant when none is named.
pub(crate) fn read_health_checks(form: &Reader<'_>, has_ports: bool) -> Vec<HealthCheck> {
    form.objects("healthChecks", |it| health_check(&it, has_ports)).unwrap_or_default().into_iter().flatten().collect()
}

fn health_check(form: &Reader<'_>, has_ports: bool) -> Option<HealthCheck> {
    let kind = if form.has("protocol") { form.word("protocol", &KINDS)? } else { Kind::Http { tls: false, by_agent: false } };
    let ipv6 = form.word("ipProtocol", &[("IPv4", false), ("IPv6", true)]).unwrap_or(false);
    let port = || {
        let (index, number) = (form.u32("portIndex"), form.port("port"));
        match (index, number) {
            (Some(_), Some(_)) => {
                form.invalid("", "HealthCheck must specify either a port or a portIndex");
                PortRef::Index(0)
            }
            (Some(index), None) => PortRef::Index(index),
            (None, Some(number)) => PortRef::Number(number),
            (None, None) => {
                if !has_ports {
                    form.invalid("", "HealthCheck must specify either a port or a portIndex");
                }
                PortRef::Index(0)
            }
        }
    };
    let probe = match kind {
        Kind::Http { tls, by_agent } => Probe::Http {
            tls,
            path: form.string("path"),
            port: port(),
            ignore_1xx: form.bool("ignoreHttp1xx").unwrap_or(false),
            by_agent,
            ipv6,
        },
        Kind::Tcp { by_agent } => Probe::Tcp { port: port(), by_agent, ipv6 },
        Kind::Command => {
            let command = form.object("command").map(|it| it.required_string("value"));
            match command {
                Some(command) => Probe::Command(Command::Shell(command)),
                None => {
                    form.invalid("command", "command must be specified for a COMMAND health check");
                    return None;
                }
            }
        }
    };
    let default = HealthCheck::new(probe);
    Some(HealthCheck {
        grace_period_seconds: form.integer("gracePeriodSeconds", 0, SECONDS_MAX).unwrap_or(default.grace_period_seconds),
        interval_seconds: form.integer("intervalSeconds", 0, SECONDS_MAX).unwrap_or(default.interval_seconds),
        timeout_seconds: form.integer("timeoutSeconds", 0, SECONDS_MAX).unwrap_or(default.timeout_seconds),
        max_consecutive_failures: form.u32("maxConsecutiveFailures").unwrap_or(default.max_consecutive_failures),
        delay_seconds: form.integer("delaySeconds", 0, SECONDS_MAX).unwrap_or(default.delay_seconds),
        ..default
    })
}

pub(crate) fn write_health_check(json: &mut Json, check: &HealthCheck) {
    json.object(|json| {
        json.integer_field("gracePeriodSeconds", check.grace_period_seconds);
        if let Probe::Http { ignore_1xx, by_agent: false, .. } = &check.probe {
            json.bool_field("ignoreHttp1xx", *ignore_1xx);
        }
        json.integer_field("intervalSeconds", check.interval_seconds);
        if let Probe::Http { ipv6, .. } | Probe::Tcp { ipv6, .. } = &check.probe {
            json.text_field("ipProtocol", if *ipv6 { "IPv6" } else { "IPv4" });
        }
        json.integer_field("maxConsecutiveFailures", check.max_consecutive_failures);
        if let Probe::Http { path: Some(path), .. } = &check.probe {
            json.text_field("path", path);
        }
        match check.port() {
            Some(PortRef::Index(index)) => json.integer_field("portIndex", *index),
            Some(PortRef::Number(number)) => json.integer_field("port", *number),
            Some(PortRef::Name(_)) | None => {}
        }
        json.text_field("protocol", check.protocol());
        json.integer_field("timeoutSeconds", check.timeout_seconds);
        json.integer_field("delaySeconds", check.delay_seconds);
        if let Probe::Command(Command::Shell(command)) = &check.probe {
            json.object_field("command", |json| json.text_field("value", command));
        }
    });
}

/// A command of a pod: a shell's, or word by word.
pub(crate) fn read_command(form: &Reader<'_>) -> Option<Command> {
    match (form.string("shell"), form.strings("argv")) {
        (Some(shell), None) => Some(Command::Shell(shell)),
        (None, Some(words)) => Some(Command::Argv(words)),
        _ => {
            form.wrong("shell", "error.path.missing");
            None
        }
    }
}

pub(crate) fn write_command(json: &mut Json, command: &Command) {
    json.object_field("command", |json| match command {
        Command::Shell(shell) => json.text_field("shell", shell),
        Command::Argv(words) => json.texts_field("argv", words),
    });
}

/// How a `check`, or a pod's health check, asks.
fn read_probe(form: &Reader<'_>, by_endpoint: bool) -> Option<Probe> {
    let given = ["http", "tcp", "exec"].iter().filter(|key| form.has(key)).count();
    if given != 1 {
        form.invalid("", "Only one of http, tcp, or command may be specified");
        return None;
    }
    let port = |form: &Reader<'_>| {
        if by_endpoint {
            return PortRef::Name(form.required_string("endpoint"));
        }
        match (form.u32("portIndex"), form.port("port")) {
            (None, Some(number)) => PortRef::Number(number),
            (index, _) => PortRef::Index(index.unwrap_or(0)),
        }
    };
    if let Some(form) = form.object("http") {
        let tls = form.word("scheme", &[("HTTP", false), ("HTTPS", true)]).unwrap_or(false);
        return Some(Probe::Http { tls, path: form.string("path"), port: port(&form), ignore_1xx: false, by_agent: true, ipv6: false });
    }
    if let Some(form) = form.object("tcp") {
        return Some(Probe::Tcp { port: port(&form), by_agent: true, ipv6: false });
    }
    form.object("exec")?.object("command").and_then(|it| read_command(&it)).map(Probe::Command)
}

fn write_probe(json: &mut Json, probe: &Probe) {
    let port = |json: &mut Json, port: &PortRef| match port {
        PortRef::Index(index) => json.integer_field("portIndex", *index),
        PortRef::Number(number) => json.integer_field("port", *number),
        PortRef::Name(name) => json.text_field("endpoint", name),
    };
    match probe {
        Probe::Http { tls, path, port: at, .. } => json.object_field("http", |json| {
            port(json, at);
            json.text_if("path", path.as_deref());
            json.text_field("scheme", if *tls { "HTTPS" } else { "HTTP" });
        }),
        Probe::Tcp { port: at, .. } => json.object_field("tcp", |json| port(json, at)),
        Probe::Command(command) => json.object_field("exec", |json| write_command(json, command)),
    }
}

pub(crate) fn read_check(form: &Reader<'_>, by_endpoint: bool) -> Option<Check> {
    let form = form.object("check")?;
    Some(Check {
        probe: read_probe(&form, by_endpoint)?,
        interval_seconds: form.integer("intervalSeconds", 0, SECONDS_MAX).unwrap_or(60),
        timeout_seconds: form.integer("timeoutSeconds", 0, SECONDS_MAX).unwrap_or(20),
        delay_seconds: form.integer("delaySeconds", 0, SECONDS_MAX).unwrap_or(15),
    })
}

pub(crate) fn write_check(json: &mut Json, check: &Check) {
    json.object_field("check", |json| {
        write_probe(json, &check.probe);
        json.integer_field("intervalSeconds", check.interval_seconds);
        json.integer_field("timeoutSeconds", check.timeout_seconds);
        json.integer_field("delaySeconds", check.delay_seconds);
    });
}

pub(crate) fn read_pod_health(form: &Reader<'_>) -> Option<HealthCheck> {
    let form = form.object("healthCheck")?;
    let default = HealthCheck::new(read_probe(&form, true)?);
    Some(HealthCheck {
        grace_period_seconds: form.integer("gracePeriodSeconds", 0, SECONDS_MAX).unwrap_or(default.grace_period_seconds),
        interval_seconds: form.integer("intervalSeconds", 0, SECONDS_MAX).unwrap_or(default.interval_seconds),
        timeout_seconds: form.integer("timeoutSeconds", 0, SECONDS_MAX).unwrap_or(default.timeout_seconds),
        max_consecutive_failures: form.u32("maxConsecutiveFailures").unwrap_or(default.max_consecutive_failures),
        delay_seconds: form.integer("delaySeconds", 0, SECONDS_MAX).unwrap_or(default.delay_seconds),
        ..default
    })
}

pub(crate) fn write_pod_health(json: &mut Json, check: &HealthCheck) {
    json.object_field("healthCheck", |json| {
        write_probe(json, &check.probe);
        json.integer_field("gracePeriodSeconds", check.grace_period_seconds);
        json.integer_field("intervalSeconds", check.interval_seconds);
        json.integer_field("maxConsecutiveFailures", check.max_consecutive_failures);
        json.integer_field("timeoutSeconds", check.timeout_seconds);
        json.integer_field("delaySeconds", check.delay_seconds);
    });
}

pub(crate) fn read_readiness(form: &Reader<'_>) -> Vec<ReadinessCheck> {
    let one = |it: Reader<'_>| {
        let default = ReadinessCheck::default();
        let code = |(path, item): (String, &Value)| {
            let code = item.as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| (100..1_000).contains(code));
            if code.is_none() {
                it.reading().form(path, "error.expected.jsnumber");
            }
            code
        };
        ReadinessCheck {
            name: it.string("name").unwrap_or(default.name),
            tls: it.word("protocol", &[("HTTP", false), ("HTTPS", true)]).unwrap_or(false),
            path: it.string("path").unwrap_or(default.path),
            port_name: it.string("portName").unwrap_or(default.port_name),
            interval_seconds: it.integer("intervalSeconds", 1, SECONDS_MAX).unwrap_or(default.interval_seconds),
            timeout_seconds: it.integer("timeoutSeconds", 1, SECONDS_MAX).unwrap_or(default.timeout_seconds),
            ready_codes: it.items("httpStatusCodesForReady").map(|items| items.filter_map(code).collect()).unwrap_or(default.ready_codes),
            preserve_last_response: it.bool("preserveLastResponse").unwrap_or(false),
        }
    };
    form.objects("readinessChecks", one).unwrap_or_default()
}

pub(crate) fn write_readiness(json: &mut Json, check: &ReadinessCheck) {
    json.object(|json| {
        json.text_field("name", &check.name);
        json.text_field("protocol", if check.tls { "HTTPS" } else { "HTTP" });
        json.text_field("path", &check.path);
        json.text_field("portName", &check.port_name);
        json.integer_field("intervalSeconds", check.interval_seconds);
        json.integer_field("timeoutSeconds", check.timeout_seconds);
        json.array_field("httpStatusCodesForReady", &check.ready_codes, |json, code| json.integer(*code));
        json.bool_field("preserveLastResponse", check.preserve_last_response);
    });
}
