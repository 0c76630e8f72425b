//! An object of the API for people: indented, without what only programs need, without environments, which have secrets in them, and without what
//! else is taken for a secret.

use std::fmt::Write as _;

use serde_json::{Map, Value};

mod secrets;

pub use secrets::Masks;

/// Longest text that is written.
const TEXT_MAX: usize = 256 << 10;
/// Deepest level that is written.
const DEPTH_MAX: usize = 32;
/// Parts of metadata that only programs need.
const MACHINERY: [&str; 3] = ["managedFields", "resourceVersion", "generation"];
/// An annotation that has the whole object once more, environments included.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What stands in the place of a value that may be a secret.
const MASK: &str = "***";

/// The object, then its events, or why they cannot be had.
pub(super) fn describe(object: &Value, events: Result<&Value, String>, masks: &dyn Masks) -> String {
    let mut text = String::new();
    let mut object = object.clone();
    secrets::hide(&mut object, "", masks);
    if let Value::Object(fields) = &object {
        write_fields(&mut text, fields, 0, "");
    }
    match events {
        Ok(events) => write_events(&mut text, events, masks),
        Err(error) => drop(writeln!(text, "events: {error}")),
    }
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("\n… the rest is left out\n");
    }
    text
}

fn write_fields(text: &mut String, fields: &Map<String, Value>, depth: usize, parent: &str) {
    for (key, value) in fields {
        if (parent == "metadata" && MACHINERY.contains(&key.as_str())) || key == LAST_APPLIED {
            continue;
        }
        indent(text, depth);
        text.push_str(key);
        text.push(':');
        // An environment may also name where a value comes from; that is no secret.
        let is_secret = parent == "env" && key == "value";
        if is_secret { writeln!(text, " {MASK}").unwrap_or_default() } else { write_value(text, value, depth, key) }
    }
}

/// After a key: a value on the same line, or what it consists of on the next ones.
fn write_value(text: &mut String, value: &Value, depth: usize, key: &str) {
    match value {
        Value::Object(fields) if fields.is_empty() => text.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => text.push_str(" []\n"),
        Value::Object(_) | Value::Array(_) if depth >= DEPTH_MAX => text.push_str(" …\n"),
        Value::Object(fields) => {
            text.push('\n');
            write_fields(text, fields, depth + 1, key);
        }
        Value::Array(items) => {
            text.push('\n');
            for item in items {
                indent(text, depth);
                text.push('-');
                match item {
                    Value::Object(fields) if !fields.is_empty() => {
                        let mut inner = String::new();
                        write_fields(&mut inner, fields, depth + 1, key);
                        // The first field stands behind the dash.
                        text.push(' ');
                        text.push_str(inner.trim_start());
                    }
                    other => write_value(text, other, depth + 1, key),
                }
            }
        }
        Value::String(line) if line.contains('\n') => {
            text.push_str(" |\n");
            for line in line.lines() {
                indent(text, depth + 1);
                text.push_str(line);
                text.push('\n');
            }
        }
        Value::String(word) => writeln!(text, " {word}").unwrap_or_default(),
        other => writeln!(text, " {other}").unwrap_or_default(),
    }
}

fn write_events(text: &mut String, events: &Value, masks: &dyn Masks) {
    let items = events["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        text.push_str("events: none\n");
        return;
    }
    text.push_str("events:\n");
    for event in items {
        let word = |key: &str| event[key].as_str().unwrap_or_default();
        let at = [word("lastTimestamp"), word("eventTime"), word("firstTimestamp")].into_iter().find(|at| !at.is_empty()).unwrap_or("-");
        let count = event["count"].as_u64().filter(|count| *count > 1).map(|count| format!(" (x{count})")).unwrap_or_default();
        writeln!(text, "  {at} {} {}{count}: {}", word("type"), word("reason"), masks.text(word("message").trim())).unwrap_or_default();
    }
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Hides what stands under "password", and the argument after one that says so.
    struct Known;

    impl Masks for Known {
        fn arguments(&self, arguments: &[&str]) -> Vec<String> {
            let is_secret =
                |at: usize| at > 0 && (arguments[at - 1] == "--password" || (arguments[0] == "mysql" && arguments[at].starts_with("-p")));
            (0..arguments.len()).map(|at| if is_secret(at) { MASK } else { arguments[at] }.to_owned()).collect()
        }

        fn value(&self, name: &str, value: &str) -> String {
            if name.contains("password") { MASK.to_owned() } else { self.text(value) }
        }

        fn text(&self, text: &str) -> String {
            text.replace("hunter2", MASK)
        }
    }

    #[test]
    fn what_the_view_of_processes_masks_is_masked_here_too() {
        let pod = json!({
            "metadata": {"annotations": {"app/password": "hidden", "note": "it is hunter2"}},
            "spec": {
                "containers": [
                    {"args": ["-phidden", "--host", "db"], "command": ["mysql"], "name": "db", "livenessProbe": {
                        "httpGet": {"httpHeaders": [{"name": "X-password", "value": "hidden"}, {"name": "Accept", "value": "text"}]}}},
                    {"args": ["--password", "hidden", "-pshown"], "name": "app", "lifecycle": {"preStop": {"exec": {"command": ["mysql", "-phidden"]}}}},
                ],
                "volumes": [{"csi": {"volumeAttributes": {"password": "hidden", "share": "data"}}}],
            },
        });
        let events = json!({"items": [{"type": "Warning", "reason": "Failed", "message": "hunter2 is wrong"}]});
        let text = describe(&pod, Ok(&events), &Known);
        assert!(!text.contains("hidden") && !text.contains("hunter2"), "{text}");
        for shown in [
            "- db\n",
            "- --host\n",
            "- -pshown\n",
            "- --password\n",
            "value: text\n",
            "share: data\n",
            "it is ***",
            "*** is wrong",
            "- mysql\n",
        ] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
        assert_eq!(text.matches(MASK).count(), 8, "{text}");
    }

    #[test]
    fn an_object_is_written_without_machinery_and_secrets() {
        let pod = json!({
            "kind": "Pod",
            "metadata": {"name": "web", "managedFields": [{"a": 1}], "annotations": {LAST_APPLIED: "{\"password\": 1}", "note": "two\nlines"}},
            "spec": {"containers": [{"env": [{"name": "PASSWORD", "value": "hunter2"}], "image": "nginx", "name": "main", "args": []}]},
        });
        let events = json!({"items": [{"type": "Warning", "reason": "BackOff", "message": "again\n", "count": 3, "lastTimestamp": "2026-01-01T00:00:00Z"}]});
        let text = describe(&pod, Ok(&events), &Known);
        expect_test::expect![[r#"
            kind: Pod
            metadata:
              annotations:
                note: |
                  two
                  lines
              name: web
            spec:
              containers:
              - args: []
                env:
                - name: PASSWORD
                  value: ***
                image: nginx
                name: main
            events:
              2026-01-01T00:00:00Z Warning BackOff (x3): again
        "#]]
        .assert_eq(&text);
        assert!(describe(&json!({}), Err("events is forbidden".to_owned()), &Known).contains("forbidden"));
    }
}
