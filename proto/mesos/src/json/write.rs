//! Messages to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Spelling;
use super::text::{push_integer, push_number, push_text};
use super::wire::{Fields, Raw, as_i32, varint};
use crate::schema::{Field, Kind, Label, Schema};

pub(super) struct Writer<'a> {
    schema: &'static Schema,
    spelling: usize,
    /// The values of the messages that are being written, innermost last, so that nothing is allocated per message.
    values: Vec<(u16, Raw<'a>)>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(schema: &'static Schema, spelling: Spelling) -> Self {
        Writer { schema, spelling: usize::from(spelling == Spelling::V0), values: Vec::new() }
    }

    /// Writes the object of one message. Members are in the order of the `.proto` file.
    pub(super) fn message(&mut self, at: usize, bytes: &'a [u8], out: &mut Vec<u8>) {
        let message = self.schema.message(at);
        let begin = self.values.len();
        for (number, raw) in Fields::new(bytes) {
            if let Some(position) = message.position(number) {
                self.values.push((position, raw));
            }
        }
        let values = &mut self.values[begin..];
        if !values.is_sorted_by_key(|(position, _)| *position) {
            values.sort_by_key(|(position, _)| *position);
        }
        out.push(b'{');
        let mut cursor = begin;
        let mut first = true;
        for (position, field) in message.fields.iter().enumerate() {
            let from = cursor;
            while self.values.get(cursor).is_some_and(|(it, _)| usize::from(*it) == position) {
                cursor += 1;
            }
            // A number that the enum does not know is as good as unset.
            let unset = from == cursor || field.label != Label::Repeated && self.is_unknown_word(field, self.values[cursor - 1].1);
            if unset && field.default.is_none() {
                continue;
            }
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(field.keys[self.spelling].as_bytes());
            match (&field.default, field.label) {
                (Some(default), _) if unset => out.extend_from_slice(default.as_bytes()),
                (_, Label::Repeated) => self.list(field, from..cursor, out),
                (_, Label::Map) => self.map(field, from..cursor, out),
                // Of a field that came several times the last one counts.
                _ => self.value(field.kind, self.values[cursor - 1].1, out),
            }
        }
        out.push(b'}');
        self.values.truncate(begin);
    }

    fn is_unknown_word(&self, field: &Field, raw: Raw<'_>) -> bool {
        match (field.kind, raw) {
            (Kind::Enum(at), Raw::Varint(value)) => self.schema.enumeration(at).word(as_i32(value), 0).is_none(),
            _ => false,
        }
    }

    fn list(&mut self, field: &Field, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
        out.push(b'[');
        let mut first = true;
        for at in range {
            let raw = self.values[at].1;
            let mut one = |this: &mut Self, raw| {
                if this.is_unknown_word(field, raw) {
                    return;
                }
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                this.value(field.kind, raw, out);
            };
            match (field.kind, raw) {
                (Kind::String | Kind::Bytes | Kind::Message(_), _) => one(self, raw),
                // Numbers may travel packed.
                (_, Raw::Bytes(packed)) => unpack(field.kind, packed).for_each(|raw| one(self, raw)),
                _ => one(self, raw),
            }
        }
        out.push(b']');
    }

    fn map(&mut self, field: &Field, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
        let Kind::Message(entry) = field.kind else { return };
        let entry = self.schema.message(entry);
        debug_assert!(entry.is_map_entry);
        out.push(b'{');
        let mut first = true;
        for at in range {
            let Raw::Bytes(bytes) = self.values[at].1 else { continue };
            let (mut key, mut value) = (&[][..], Raw::Bytes(&[]));
            for (number, raw) in Fields::new(bytes) {
                match (number, raw) {
                    (1, Raw::Bytes(bytes)) => key = bytes,
                    (2, raw) => value = raw,
                    _ => {}
                }
            }
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            push_text(&String::from_utf8_lossy(key), out);
            out.push(b':');
            match entry.fields.get(1) {
                Some(field) => self.value(field.kind, value, out),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
    }

    fn value(&mut self, kind: Kind, raw: Raw<'a>, out: &mut Vec<u8>) {
        match (kind, raw) {
            (Kind::Message(at), Raw::Bytes(bytes)) => self.message(at, bytes, out),
            (Kind::String, Raw::Bytes(bytes)) => push_text(&String::from_utf8_lossy(bytes), out),
            (Kind::Bytes, Raw::Bytes(bytes)) => {
                out.push(b'"');
                out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
                out.push(b'"');
            }
            (Kind::Double, Raw::Fixed64(bits)) => push_number(f64::from_bits(bits), out),
            (Kind::Float, Raw::Fixed32(bits)) => push_number(f64::from(f32::from_bits(bits)), out),
            (Kind::Int32, Raw::Varint(value)) => push_integer(as_i32(value), out),
            (Kind::Int64, Raw::Varint(value)) => push_integer(value.cast_signed(), out),
            (Kind::Uint32 | Kind::Uint64, Raw::Varint(value)) => push_integer(value, out),
            (Kind::Bool, Raw::Varint(value)) => out.extend_from_slice(if value == 0 { b"false" } else { b"true" }),
            (Kind::Enum(at), Raw::Varint(value)) => match self.schema.enumeration(at).word(as_i32(value), self.spelling) {
                Some(word) => out.extend_from_slice(word.as_bytes()),
                None => out.extend_from_slice(b"null"),
            },
            // The generated encoder writes each kind in its own way only; a map's absent value is its zero.
            (Kind::String | Kind::Bytes, _) => out.extend_from_slice(b"\"\""),
            (Kind::Message(_), _) => out.extend_from_slice(b"{}"),
            (Kind::Double | Kind::Float, _) => out.extend_from_slice(b"0.0"),
            _ => out.push(b'0'),
        }
    }
}

fn unpack(kind: Kind, mut packed: &[u8]) -> impl Iterator<Item = Raw<'_>> {
    std::iter::from_fn(move || match kind {
        Kind::Double => {
            let (bits, rest) = packed.split_first_chunk::<8>()?;
            packed = rest;
            Some(Raw::Fixed64(u64::from_le_bytes(*bits)))
        }
        Kind::Float => {
            let (bits, rest) = packed.split_first_chunk::<4>()?;
            packed = rest;
            Some(Raw::Fixed32(u32::from_le_bytes(*bits)))
        }
        _ => varint(&mut packed).map(Raw::Varint),
    })
}
