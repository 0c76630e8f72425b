//! Secrets in an object, besides its environments: in command lines, headers of probes, annotations, parameters of drivers, and texts.

use serde_json::{Map, Value};

/// Hides secrets in what is told of objects.
pub trait Masks: Send + Sync {
    /// A command line, argument by argument, as many as there are; the first one is the program.
    fn arguments(&self, arguments: &[&str]) -> Vec<String>;

    /// What stands under a name.
    fn value(&self, name: &str, value: &str) -> String;

    /// A text that may have secrets in it.
    fn text(&self, text: &str) -> String;
}

/// Maps whose keys are names that people chose.
const NAMED: [&str; 6] = ["annotations", "labels", "volumeAttributes", "attributes", "parameters", "options"];
/// What makes a command line, in this order.
const COMMAND_LINE: [&str; 2] = ["command", "args"];

/// Hides what `masks` takes for a secret. `key` is that of `value`.
pub(super) fn hide(value: &mut Value, key: &str, masks: &dyn Masks) {
    match value {
        Value::Object(fields) => hide_fields(fields, key, masks),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, key, masks)),
        Value::String(text) => *text = masks.text(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn hide_fields(fields: &mut Map<String, Value>, key: &str, masks: &dyn Masks) {
    hide_command_line(fields, masks);
    if let (Some(Value::String(name)), Some(Value::String(value))) = (fields.get("name"), fields.get("value")) {
        let told = masks.value(name, value);
        fields.insert("value".to_owned(), told.into());
    }
    for (name, value) in fields {
        match value {
            Value::String(text) if NAMED.contains(&key) => *text = masks.value(name, text),
            Value::Array(_) if COMMAND_LINE.contains(&name.as_str()) => {}
            other => hide(other, name, masks),
        }
    }
}

/// The arguments of a program follow it in one list, or stand in a list of their own, where the image may say which program it is.
fn hide_command_line(fields: &mut Map<String, Value>, masks: &dyn Masks) {
    let of = |list: &str| fields.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let has_program = !of("command").is_empty();
    let words = COMMAND_LINE.iter().flat_map(|list| of(list)).map(|word| word.as_str().unwrap_or_default());
    let line: Vec<&str> = (!has_program).then_some("").into_iter().chain(words).collect();
    let told = masks.arguments(&line);
    let mut told = told.into_iter().skip(usize::from(!has_program));
    for list in COMMAND_LINE {
        let Some(Value::Array(items)) = fields.get_mut(list) else { continue };
        for (item, told) in items.iter_mut().zip(&mut told) {
            *item = told.into();
        }
    }
}
