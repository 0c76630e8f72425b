//! What apps and pods have in common.

use std::collections::BTreeMap;

use scheduler::model::{
    Artifact, Backoff, Constraint, EnvValue, Environment, KillSelection, Limit, Network, NetworkMode, Operator, ResourceLimits,
    ResourceNeeds, UnreachableStrategy, UpgradeStrategy,
};
use serde_json::Value;

use super::{Json, Reader};

pub(crate) fn read_env(form: &Reader<'_>, key: &str) -> Environment {
    let mut env = BTreeMap::new();
    let Some(object) = form.object(key) else { return env };
    for (name, value) in object.entries() {
        let value = match value {
            Value::String(text) => EnvValue::Text(text.clone()),
            Value::Object(map) => match map.get("secret").and_then(Value::as_str) {
                Some(secret) => EnvValue::Secret(secret.to_owned()),
                None => {
                    object.wrong(name, "error.path.missing");
                    continue;
                }
            },
            _ => {
                object.wrong(name, "error.expected.jsstring");
                continue;
            }
        };
        env.insert(name.clone(), value);
    }
    env
}

pub(crate) fn write_env(json: &mut Json, key: &str, env: &Environment) {
    json.object_field(key, |json| {
        for (name, value) in env {
            match value {
                EnvValue::Text(text) => json.text_field(name, text),
                EnvValue::Secret(secret) => json.object_field(name, |json| json.text_field("secret", secret)),
            }
        }
    });
}

/// Secrets by key: `{"key": {"source": "..."}}`.
pub(crate) fn read_secrets(form: &Reader<'_>) -> BTreeMap<String, String> {
    let mut secrets = BTreeMap::new();
    let Some(object) = form.object("secrets") else { return secrets };
    for (name, _) in object.entries() {
        if let Some(secret) = object.object(name) {
            secrets.insert(name.clone(), secret.required_string("source"));
        }
    }
    secrets
}

pub(crate) fn write_secrets(json: &mut Json, secrets: &BTreeMap<String, String>) {
    json.object_field("secrets", |json| {
        for (name, source) in secrets {
            json.object_field(name, |json| json.text_field("source", source));
        }
    });
}

/// Constraints of an app: lists of two or three words.
pub(crate) fn read_constraints(form: &Reader<'_>, key: &str) -> Vec<Constraint> {
    let mut constraints = Vec::new();
    for (path, item) in form.items(key).into_iter().flatten() {
        let Value::Array(words) = item else {
            form.reading().form(path, "error.expected.jsarray");
            continue;
        };
        let words: Vec<Option<&str>> = words.iter().map(Value::as_str).collect();
        match words.as_slice() {
            [Some(field), Some(operator)] => constraints.extend(constraint(form, &path, field, operator, None)),
            [Some(field), Some(operator), Some(value)] => constraints.extend(constraint(form, &path, field, operator, Some(value))),
            [Some(_), Some(_), None] => form.reading().form(format!("{path}(2)"), "error.expected.jsstring"),
            words if words.iter().any(Option::is_none) => form.reading().form(path, "error.expected.jsstring"),
            _ => form.reading().meaning(path, "Each constraint must have either 2 or 3 fields"),
        }
    }
    constraints
}

pub(crate) fn constraint(form: &Reader<'_>, path: &str, field: &str, operator: &str, value: Option<&str>) -> Option<Constraint> {
    let Some(operator) = Operator::parse(operator) else {
        form.reading().meaning(path, "operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS");
        return None;
    };
    if field.is_empty() {
        form.reading().meaning(path, "field must not be empty");
    }
    Some(Constraint { field: field.to_owned(), operator, value: value.map(str::to_owned) })
}

pub(crate) fn write_constraints(json: &mut Json, key: &str, constraints: &[Constraint]) {
    json.array_field(key, constraints, |json, it| {
        let words = [Some(it.field.as_str()), Some(it.operator.word()), it.value.as_deref()];
        json.array(words.into_iter().flatten(), Json::string);
    });
}

pub(crate) fn read_artifacts(form: &Reader<'_>, key: &str) -> Option<Vec<Artifact>> {
    form.objects(key, |it| Artifact {
        uri: it.required_string("uri"),
        extract: it.bool("extract").unwrap_or(true),
        executable: it.bool("executable").unwrap_or(false),
        cache: it.bool("cache").unwrap_or(false),
        dest_path: it.string("destPath"),
    })
}

pub(crate) fn write_artifacts(json: &mut Json, key: &str, artifacts: &[Artifact]) {
    json.array_field(key, artifacts, |json, it| {
        json.object(|json| {
            json.text_field("uri", &it.uri);
            json.bool_field("extract", it.extract);
            json.bool_field("executable", it.executable);
            json.bool_field("cache", it.cache);
            json.text_if("destPath", it.dest_path.as_deref());
        });
    });
}

pub(crate) fn read_upgrade(form: &Reader<'_>, key: &str) -> Option<UpgradeStrategy> {
    let form = form.object(key)?;
    let share = |key: &str| {
        if !form.has(key) {
            form.wrong(key, "error.path.missing");
        }
        // The range is a matter of meaning.
        form.number(key, f64::MIN).unwrap_or(1.0)
    };
    Some(UpgradeStrategy { minimum_health_capacity: share("minimumHealthCapacity"), maximum_over_capacity: share("maximumOverCapacity") })
}

pub(crate) fn write_upgrade(json: &mut Json, key: &str, strategy: UpgradeStrategy) {
    json.object_field(key, |json| {
        json.number_field("maximumOverCapacity", strategy.maximum_over_capacity);
        json.number_field("minimumHealthCapacity", strategy.minimum_health_capacity);
    });
}

/// Keys of the three numbers: they differ between apps and pods.
pub(crate) fn read_backoff(form: &Reader<'_>, keys: [&str; 3]) -> Backoff {
    let default = Backoff::default();
    Backoff {
        seconds: form.number(keys[0], 0.0).unwrap_or(default.seconds),
        factor: form.number(keys[1], 1.0).unwrap_or(default.factor),
        max_launch_delay_seconds: form.number(keys[2], 0.0).unwrap_or(default.max_launch_delay_seconds),
    }
}

const KILL_SELECTION: [(&str, KillSelection); 2] =
    [("YOUNGEST_FIRST", KillSelection::YoungestFirst), ("OLDEST_FIRST", KillSelection::OldestFirst)];

pub(crate) fn read_kill_selection(form: &Reader<'_>) -> KillSelection {
    form.word("killSelection", &KILL_SELECTION).unwrap_or_default()
}

pub(crate) fn write_kill_selection(json: &mut Json, selection: KillSelection) {
    let word = KILL_SELECTION.iter().find(|(_, it)| *it == selection).map_or("", |(word, _)| *word);
    json.text_field("killSelection", word);
}

pub(crate) fn read_unreachable(form: &Reader<'_>, key: &str) -> Option<UnreachableStrategy> {
    match form.value(key)? {
        Value::String(word) if word.eq_ignore_ascii_case("disabled") => Some(UnreachableStrategy::Disabled),
        Value::Object(_) => {
            let form = form.object(key)?;
            // A misspelt or empty object is as good as the default.
            Some(UnreachableStrategy::Enabled {
                inactive_after_seconds: form.integer("inactiveAfterSeconds", 0, 1 << 40).unwrap_or(0),
                expunge_after_seconds: form.integer("expungeAfterSeconds", 0, 1 << 40).unwrap_or(0),
            })
        }
        Value::String(_) => {
            form.wrong(key, "error.unknown.enum.literal");
            None
        }
        _ => {
            form.wrong(key, "error.expected.jsobject");
            None
        }
    }
}

pub(crate) fn write_unreachable(json: &mut Json, key: &str, strategy: UnreachableStrategy) {
    match strategy {
        UnreachableStrategy::Disabled => json.text_field(key, "disabled"),
        UnreachableStrategy::Enabled { inactive_after_seconds, expunge_after_seconds } => json.object_field(key, |json| {
            json.integer_field("inactiveAfterSeconds", inactive_after_seconds);
            json.integer_field("expungeAfterSeconds", expunge_after_seconds);
        }),
    }
}

pub(crate) fn read_needs(form: &Reader<'_>, default: ResourceNeeds) -> ResourceNeeds {
    ResourceNeeds {
        cpus: form.number("cpus", 0.001).unwrap_or(default.cpus),
        mem: form.number("mem", 0.0).unwrap_or(default.mem),
        disk: form.number("disk", 0.0).unwrap_or(default.disk),
        gpus: form.u32("gpus").unwrap_or(default.gpus),
    }
}

pub(crate) fn read_limits(form: &Reader<'_>, key: &str) -> Option<ResourceLimits> {
    let form = form.object(key)?;
    let limit = |key: &str| match form.value(key)? {
        Value::String(word) if word.eq_ignore_ascii_case("unlimited") => Some(Limit::Unlimited),
        Value::String(_) => {
            form.wrong(key, "error.unknown.enum.literal");
            None
        }
        _ => form.number(key, 0.0).map(Limit::Amount),
    };
    let limits = ResourceLimits { cpus: limit("cpus"), mem: limit("mem") };
    (limits != ResourceLimits::default()).then_some(limits)
}

pub(crate) fn write_limits(json: &mut Json, limits: Option<ResourceLimits>) {
    let Some(limits) = limits else { return };
    json.object_field("resourceLimits", |json| {
        for (key, limit) in [("cpus", limits.cpus), ("mem", limits.mem)] {
            match limit {
                Some(Limit::Amount(amount)) => json.number_field(key, amount),
                Some(Limit::Unlimited) => json.text_field(key, "unlimited"),
                None => {}
            }
        }
    });
}

pub(crate) fn write_executor_resources(json: &mut Json, needs: ResourceNeeds) {
    json.object_field("executorResources", |json| {
        json.number_field("cpus", needs.cpus);
        json.number_field("mem", needs.mem);
        json.number_field("disk", needs.disk);
    });
}

const MODES: [(&str, NetworkMode); 3] =
    [("host", NetworkMode::Host), ("container", NetworkMode::Container), ("container/bridge", NetworkMode::Bridge)];

pub(crate) fn read_networks(form: &Reader<'_>, default_name: Option<&str>) -> Option<Vec<Network>> {
    form.objects("networks", |it| {
        let mode = it.word("mode", &MODES).unwrap_or(NetworkMode::Container);
        let name = it.string("name").or_else(|| default_name.filter(|_| mode == NetworkMode::Container).map(str::to_owned));
        Network { mode, name, labels: it.labels("labels").unwrap_or_default() }
    })
}

pub(crate) fn write_networks(json: &mut Json, networks: &[Network]) {
    json.array_field("networks", networks, |json, it| {
        json.object(|json| {
            json.text_if("name", it.name.as_deref());
            json.text_field("mode", it.mode.word());
            if !it.labels.is_empty() {
                json.labels_field("labels", &it.labels);
            }
        });
    });
}

/// `tcp`, `udp` or `udp,tcp`.
pub(crate) fn read_protocol(form: &Reader<'_>) -> String {
    const PROTOCOLS: [(&str, &str); 4] = [("tcp", "tcp"), ("udp", "udp"), ("udp,tcp", "udp,tcp"), ("tcp,udp", "udp,tcp")];
    form.word("protocol", &PROTOCOLS).unwrap_or("tcp").to_owned()
}
