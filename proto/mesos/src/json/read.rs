//! JSON to messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::wire::{missing, push_varint, say_missing};
use crate::schema::{Field, Kind, Label, Schema};

/// Characters of a foreign text that an error repeats at most.
const MOST_REPEATED: usize = 64;

pub(super) struct Reader {
    schema: &'static Schema,
}

impl Reader {
    pub(super) fn new(schema: &'static Schema) -> Self {
        Reader { schema }
    }

    /// The message's bytes, with every required field present.
    pub(super) fn whole(&self, message: usize, value: &Value) -> Result<Vec<u8>, String> {
        let Value::Object(_) = value else { return Err("Expecting a JSON object".to_owned()) };
        let mut out = Vec::new();
        self.message(message, value, &mut out)?;
        let missing = missing(self.schema, message, &out);
        if missing.is_empty() { Ok(out) } else { Err(say_missing(&missing)) }
    }

    fn message(&self, message: usize, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
        let Value::Object(members) = value else { return Ok(()) };
        let message = self.schema.message(message);
        for (name, value) in members {
            if let (Some(field), false) = (message.field_named(name), value.is_null()) {
                self.field(field, value, out)?;
            }
        }
        Ok(())
    }

    fn field(&self, field: &Field, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
        match (field.label, value) {
            (Label::Repeated, Value::Array(items)) => items.iter().filter(|it| !it.is_null()).try_for_each(|it| self.value(field, it, out)),
            (Label::Map, Value::Object(members)) => {
                let Kind::Message(entry) = field.kind else { return Ok(()) };
                let entry = self.schema.message(entry);
                for (key, value) in members.iter().filter(|(_, value)| !value.is_null()) {
                    self.delimited(field.number, out, |out| {
                        push_key(1, 2, out);
                        push_bytes(key.as_bytes(), out);
                        entry.fields.get(1).map_or(Ok(()), |field| self.value(field, value, out))
                    })?;
                }
                Ok(())
            }
            (Label::Map, _) => Err(format!("Not expecting a JSON {} for map field '{}'", kind_of(value), field.name)),
            _ => self.value(field, value, out),
        }
    }

    fn value(&self, field: &Field, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
        let refused = || Err(format!("Not expecting a JSON {} for field '{}'", kind_of(value), field.name));
        let unreadable = |text: &str| Err(format!("Failed to parse '{}' as a number for field '{}'", shorten(text), field.name));
        match (field.kind, value) {
            (Kind::Message(message), Value::Object(_)) => {
                self.delimited(field.number, out, |out| self.message(message, value, out))?;
            }
            (Kind::String, Value::String(text)) => {
                push_key(field.number, 2, out);
                push_bytes(text.as_bytes(), out);
            }
            (Kind::Bytes, Value::String(text)) => {
                let bytes =
                    STANDARD.decode(text).map_err(|error| format!("Failed to base64 decode bytes field '{}': {error}", field.name))?;
                push_key(field.number, 2, out);
                push_bytes(&bytes, out);
            }
            (Kind::Enum(at), Value::String(word)) => match self.schema.enumeration(at).number(word) {
                Some(number) => push_number(field, Number::Signed(i64::from(number)), out)?,
                None if field.label == Label::Required => return Err(format!("Failed to find enum for '{}'", shorten(word))),
                // Words of a later version say nothing to this one.
                None => {}
            },
            (Kind::Enum(at), Value::Number(number)) => {
                let number = number.as_i64().and_then(|it| i32::try_from(it).ok());
                match number.filter(|it| self.schema.enumeration(at).word(*it, 0).is_some()) {
                    Some(number) => push_number(field, Number::Signed(i64::from(number)), out)?,
                    None if field.label == Label::Required => return Err(format!("Failed to find enum for field '{}'", field.name)),
                    None => {}
                }
            }
            (Kind::Bool, Value::Bool(it)) => push_number(field, Number::Signed(i64::from(*it)), out)?,
            (Kind::Bool, Value::String(text)) => match text.as_str() {
                "true" => push_number(field, Number::Signed(1), out)?,
                "false" => push_number(field, Number::Signed(0), out)?,
                _ => return Err(format!("Failed to parse '{}' as a boolean for field '{}'", shorten(text), field.name)),
            },
            (kind, Value::Number(number)) if is_number(kind) => match Number::from_json(number) {
                Some(number) => push_number(field, number, out)?,
                None => return unreadable(&number.to_string()),
            },
            (kind, Value::String(text)) if is_number(kind) => match Number::from_text(text) {
                Some(number) => push_number(field, number, out)?,
                None => return unreadable(text),
            },
            _ => return refused(),
        }
        Ok(())
    }

    /// Writes a field whose length is known only afterwards.
    fn delimited(&self, number: u32, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>) -> Result<(), String>) -> Result<(), String> {
        push_key(number, 2, out);
        let begin = out.len();
        fill(out)?;
        let mut length = Vec::with_capacity(5);
        push_varint((out.len() - begin) as u64, &mut length);
        out.splice(begin..begin, length);
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Number {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
}

impl Number {
    fn from_json(number: &serde_json::Number) -> Option<Number> {
        number.as_i64().map(Number::Signed).or_else(|| number.as_u64().map(Number::Unsigned)).or_else(|| number.as_f64().map(Number::Float))
    }

    fn from_text(text: &str) -> Option<Number> {
        let text = text.trim();
        text.parse().map(Number::Signed).or_else(|_| text.parse().map(Number::Unsigned)).or_else(|_| text.parse().map(Number::Float)).ok()
    }

    #[expect(clippy::cast_precision_loss, reason = "JSON's numbers are doubles")]
    fn as_double(self) -> f64 {
        match self {
            Number::Signed(it) => it as f64,
            Number::Unsigned(it) => it as f64,
            Number::Float(it) => it,
        }
    }

    /// The whole number, a fraction cut off.
    #[expect(clippy::cast_possible_truncation, reason = "cut off, and within range: checked")]
    fn as_whole(self) -> Option<i128> {
        match self {
            Number::Signed(it) => Some(i128::from(it)),
            Number::Unsigned(it) => Some(i128::from(it)),
            Number::Float(it) => (it.abs() < 2_f64.powi(64)).then_some(it as i128),
        }
    }
}

fn push_number(field: &Field, number: Number, out: &mut Vec<u8>) -> Result<(), String> {
    let out_of_range = || format!("The number for field '{}' is out of range", field.name);
    let whole = |least: i128, most: i128| number.as_whole().filter(|it| (least..=most).contains(it)).ok_or_else(out_of_range);
    match field.kind {
        Kind::Double => {
            push_key(field.number, 1, out);
            out.extend_from_slice(&number.as_double().to_le_bytes());
            return Ok(());
        }
        Kind::Float => {
            push_key(field.number, 5, out);
            #[expect(clippy::cast_possible_truncation, reason = "the field is a float")]
            out.extend_from_slice(&(number.as_double() as f32).to_le_bytes());
            return Ok(());
        }
        _ => {}
    }
    let value = match field.kind {
        Kind::Int32 | Kind::Enum(_) => whole(i128::from(i32::MIN), i128::from(i32::MAX))?,
        Kind::Int64 => whole(i128::from(i64::MIN), i128::from(i64::MAX))?,
        Kind::Uint32 => whole(0, i128::from(u32::MAX))?,
        Kind::Bool => whole(0, 1)?,
        _ => whole(0, i128::from(u64::MAX))?,
    };
    push_key(field.number, 0, out);
    // Negative numbers travel as their 64-bit complement.
    let bits = u64::try_from(value).or_else(|_| i64::try_from(value).map(i64::cast_unsigned)).unwrap_or_default();
    push_varint(bits, out);
    Ok(())
}

fn push_key(number: u32, wire_type: u64, out: &mut Vec<u8>) {
    push_varint(u64::from(number) << 3 | wire_type, out);
}

fn push_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    push_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn is_number(kind: Kind) -> bool {
    matches!(kind, Kind::Double | Kind::Float | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(MOST_REPEATED).collect()
}
