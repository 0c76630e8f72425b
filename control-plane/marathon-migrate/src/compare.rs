//! Definitions as they are sent and compared: without what the server says of them.

use serde_json::{Map, Value};

/// What a server adds to a definition.
const ADDED: [&str; 15] = [
    "version",
    "versionInfo",
    "tasks",
    "tasksStaged",
    "tasksRunning",
    "tasksHealthy",
    "tasksUnhealthy",
    "deployments",
    "lastTaskFailure",
    "readinessCheckResults",
    "taskStats",
    "tasksStats",
    "storeUrls",
    "taskRateLimit",
    "labelsFromServer",
];

/// One difference between two definitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `/field/field(0)`.
    pub path: String,
    /// In the first; none: it is not there.
    pub one: Option<Value>,
    /// In the second.
    pub two: Option<Value>,
}

/// An app or pod as it can be sent: without what the server added, and without the old words for what it says in new ones.
pub fn definition(value: &Value) -> Value {
    let Value::Object(fields) = value else { return value.clone() };
    let mut fields = fields.clone();
    for key in ADDED {
        fields.remove(key);
    }
    let said = |fields: &Map<String, Value>, key: &str| fields.get(key).is_some_and(|it| !it.is_null());
    if said(&fields, "fetch") {
        fields.remove("uris");
    }
    if let Some(Value::Object(container)) = fields.get_mut("container")
        && let Some(Value::Object(docker)) = container.get_mut("docker")
        && let Some(mappings) = docker.remove("portMappings")
        && mappings.is_array()
        && container.get("portMappings").is_none_or(Value::is_null)
    {
        container.insert("portMappings".to_owned(), mappings);
    }
    let mapped = fields.get("container").and_then(|it| it.get("portMappings")).and_then(Value::as_array).map_or(0, Vec::len);
    if is_mapped(&fields) {
        // What a server once showed of mapped ports beside their mappings says nothing more; where there are fewer mappings, it does.
        for key in ["portDefinitions", "ports"] {
            if fields.get(key).and_then(Value::as_array).is_some_and(|it| it.len() <= mapped) {
                fields.remove(key);
            }
        }
    }
    if said(&fields, "portDefinitions") || (said(&fields, "networks") && !is_mapped(&fields)) {
        fields.remove("ports");
    }
    if said(&fields, "networks") {
        fields.remove("ipAddress");
        if let Some(Value::Object(docker)) = fields.get_mut("container").and_then(|it| it.get_mut("docker")) {
            docker.remove("network");
        }
    }
    Value::Object(fields).without_nulls()
}

/// Whether a network other than the host's own is said, in new words or old ones: ports are then mapped.
fn is_mapped(fields: &Map<String, Value>) -> bool {
    let mode = |network: &Value| network.get("mode").and_then(Value::as_str).is_none_or(|mode| mode != "host");
    let new = fields.get("networks").and_then(Value::as_array).is_some_and(|all| all.iter().any(mode));
    let old = fields.get("container").and_then(|it| it.pointer("/docker/network")).and_then(Value::as_str);
    new || old.is_some_and(|network| network != "HOST")
}

trait WithoutNulls {
    fn without_nulls(self) -> Value;
}

impl WithoutNulls for Value {
    fn without_nulls(self) -> Value {
        match self {
            Value::Object(fields) => {
                fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key, value.without_nulls())).collect()
            }
            Value::Array(items) => items.into_iter().map(WithoutNulls::without_nulls).collect(),
            other => other,
        }
    }
}

/// Whether a value says as much as its not being there.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Where two values differ.
pub fn differences(one: &Value, two: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), Some(one), Some(two), &mut found);
    found
}

fn compare(path: String, one: Option<&Value>, two: Option<&Value>, found: &mut Vec<Difference>) {
    match (one, two) {
        (Some(Value::Object(first)), Some(Value::Object(second))) => {
            for (key, value) in first {
                compare(format!("{path}/{key}"), Some(value), second.get(key), found);
            }
            for (key, value) in second.iter().filter(|(key, _)| !first.contains_key(*key)) {
                compare(format!("{path}/{key}"), None, Some(value), found);
            }
        }
        (Some(Value::Array(first)), Some(Value::Array(second))) => {
            for at in 0..first.len().max(second.len()) {
                compare(format!("{path}({at})"), first.get(at), second.get(at), found);
            }
        }
        // 1 and 1.0 are the same number.
        (Some(Value::Number(first)), Some(Value::Number(second))) if first.as_f64() == second.as_f64() => {}
        (one, two) if one == two || one.is_none_or(says_nothing) && two.is_none_or(says_nothing) => {}
        (one, two) => {
            found.push(Difference { path: if path.is_empty() { "/".to_owned() } else { path }, one: one.cloned(), two: two.cloned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_server_adds_is_not_sent() {
        let app = json!({
            "id": "/a", "cmd": "x", "ports": [1], "portDefinitions": [{"port": 1}], "uris": ["u"], "fetch": [{"uri": "u"}], "user": null,
            "networks": [{"mode": "container/bridge"}], "version": "v", "tasksRunning": 1,
            "container": {"docker": {"image": "i", "network": "BRIDGE", "portMappings": [{"containerPort": 80}]}},
        });
        assert_eq!(
            definition(&app),
            json!({
                "id": "/a", "cmd": "x", "fetch": [{"uri": "u"}], "networks": [{"mode": "container/bridge"}],
                "container": {"docker": {"image": "i"}, "portMappings": [{"containerPort": 80}]},
            })
        );
    }

    #[test]
    fn ports_that_stand_for_mappings_are_sent() {
        let bridged = |ports: Value| {
            let docker = json!({"image": "i", "network": "BRIDGE", "portMappings": [{"containerPort": 80}]});
            definition(&json!({"ports": ports, "container": {"docker": docker}}))
        };
        assert_eq!(bridged(json!([0, 0]))["ports"], json!([0, 0]));
        assert_eq!(bridged(json!([10_000]))["ports"], Value::Null);
        let old = json!({"ports": [1], "portDefinitions": [{"port": 1}]});
        assert_eq!(definition(&old), json!({"portDefinitions": [{"port": 1}]}));
    }

    #[test]
    fn differences_are_found_where_they_are() {
        let one = json!({"a": 1, "b": {"c": [1, 2]}, "e": [], "f": "x"});
        let two = json!({"a": 1.0, "b": {"c": [1, 3, 4]}, "d": {}});
        let found: Vec<String> = differences(&one, &two).into_iter().map(|it| it.path).collect();
        assert_eq!(found, ["/b/c(1)", "/b/c(2)", "/f"]);
    }
}
