//! Protobuf's own bytes, read without types.

use crate::schema::{Kind, Label, Schema};

/// Required fields that are told of at most.
const MOST_MISSING: usize = 20;

/// One value of one field.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of one message in the order in which they were written. Ends at the first thing that is not understood; the caller has decoded
/// the same bytes with the generated decoder, or made them itself.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Fields { rest: bytes }
    }

    fn varint(&mut self) -> Option<u64> {
        varint(&mut self.rest)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let key = self.varint()?;
            let number = u32::try_from(key >> 3).ok()?;
            let raw = match key & 7 {
                0 => Raw::Varint(self.varint()?),
                1 => Raw::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    Raw::Bytes(self.take(length)?)
                }
                5 => Raw::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
                // Groups: nobody here writes any. What is inside passes as unknown fields.
                3 | 4 => continue,
                _ => return None,
            };
            return Some((number, raw));
        }
    }
}

/// Takes a variable-length integer off the front.
pub(super) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (at, byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Some(value);
        }
    }
    None
}

/// Appends a variable-length integer.
pub(super) fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// The required fields that `bytes` lacks, as paths.
pub(super) fn missing(schema: &Schema, message: usize, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    look_for_missing(schema, message, bytes, &mut String::new(), &mut found);
    found
}

/// What Mesos says of them.
pub(super) fn say_missing(missing: &[String]) -> String {
    format!("Missing required fields: {}", missing.join(", "))
}

fn look_for_missing(schema: &Schema, message: usize, bytes: &[u8], path: &mut String, found: &mut Vec<String>) {
    let message = schema.message(message);
    let mut seen = 0_u64;
    let mut counts: Vec<(u16, usize)> = Vec::new();
    for (number, raw) in Fields::new(bytes) {
        let Some(at) = message.position(number) else { continue };
        let field = &message.fields[usize::from(at)];
        let known = match (field.kind, raw) {
            // A word that this enum does not have counts as absent.
            (Kind::Enum(it), Raw::Varint(value)) => schema.enumeration(it).word(as_i32(value), 0).is_some(),
            _ => true,
        };
        if known && at < 64 {
            seen |= 1 << at;
        }
        if let (Kind::Message(child), Raw::Bytes(bytes)) = (field.kind, raw) {
            let length = path.len();
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&field.name);
            if matches!(field.label, Label::Repeated | Label::Map) {
                let count = match counts.iter_mut().find(|(it, _)| *it == at) {
                    Some((_, count)) => {
                        *count += 1;
                        *count
                    }
                    None => {
                        counts.push((at, 0));
                        0
                    }
                };
                path.push_str(&format!("[{count}]"));
            }
            look_for_missing(schema, child, bytes, path, found);
            path.truncate(length);
        }
    }
    for (at, field) in message.fields.iter().enumerate() {
        if field.label == Label::Required && (at >= 64 || seen & 1 << at == 0) && found.len() < MOST_MISSING {
            found.push(if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) });
        }
    }
}

/// The number of an enum or a 32-bit integer, which travels sign-extended.
#[expect(clippy::cast_possible_truncation, reason = "that is how 32-bit integers travel")]
pub(super) fn as_i32(value: u64) -> i32 {
    value as i32
}
