//! Mesos' own mapping between protobuf and JSON. It is not the mapping of proto3.
//!
//! Written: fields under their names in the `.proto` file, enums as words, bytes as base64, 64-bit integers as bare numbers, maps as objects;
//! what is unset is left out, except scalars that declare a default, which always show. Everything outside ASCII is escaped, because clients
//! exist that count UTF-16 units where bytes are meant. An infinite number, which JSON cannot say, is written as the text `"Infinity"`.
//!
//! Read, with more patience: unknown fields and, in optional fields, unknown words of enums are passed over; `null` is absent; numbers and
//! booleans may be texts; one value may stand where several are expected.
//!
//! Both ways lead through protobuf's own bytes and the tables of the schema, so one piece of code serves every message.

mod read;
mod text;
mod wire;
mod write;

use prost::{Message, Name};
use serde_json::Value;

use crate::schema::Schema;

pub use text::{push_number, push_text};

/// Which of Mesos' two vocabularies is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// That of the v1 APIs: `agent_id`, `SOURCE_AGENT`.
    V1,
    /// That of the classic endpoints: `slave_id`, `SOURCE_SLAVE`.
    V0,
}

/// Why bytes are not the message they should be. The texts are what follows the colon in Mesos' own answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// The bytes are no JSON.
    #[error("{0}")]
    Syntax(String),
    /// The JSON does not say such a message.
    #[error("{0}")]
    Mapping(String),
    /// The bytes are no such message of protobuf.
    #[error("{0}")]
    Wire(String),
}

/// The JSON of `message`.
pub fn to_vec<M: Message + Name>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    write(message, Spelling::V1, &mut out);
    out
}

/// Appends the JSON of `message` to `out`.
pub fn write<M: Message + Name>(message: &M, spelling: Spelling, out: &mut Vec<u8>) {
    let schema = Schema::get();
    match schema.message_named(&M::full_name()) {
        Some(at) => write::Writer::new(schema, spelling).message(at, &message.encode_to_vec(), out),
        // A type that is not of this crate has no schema here.
        None => out.extend_from_slice(b"{}"),
    }
}

/// Reads a message from JSON text.
///
/// # Errors
/// [`MappingError::Syntax`] or [`MappingError::Mapping`].
pub fn from_slice<M: Message + Name + Default>(text: &[u8]) -> Result<M, MappingError> {
    let value: Value = serde_json::from_slice(text).map_err(|error| MappingError::Syntax(error.to_string()))?;
    from_value(&value)
}

/// Reads a message from JSON.
///
/// # Errors
/// [`MappingError::Mapping`].
pub fn from_value<M: Message + Name + Default>(value: &Value) -> Result<M, MappingError> {
    let schema = Schema::get();
    let Some(at) = schema.message_named(&M::full_name()) else {
        return Err(MappingError::Mapping(format!("{} is unknown", M::full_name())));
    };
    let bytes = read::Reader::new(schema).whole(at, value).map_err(MappingError::Mapping)?;
    M::decode(bytes.as_slice()).map_err(|error| MappingError::Mapping(error.to_string()))
}

/// Reads a message from protobuf's bytes, and insists on its required fields as Mesos does.
///
/// # Errors
/// [`MappingError::Wire`].
pub fn decode_protobuf<M: Message + Name + Default>(bytes: &[u8]) -> Result<M, MappingError> {
    let schema = Schema::get();
    // The decoder goes first: it bounds the depth that the check then walks.
    let message = M::decode(bytes).map_err(|error| MappingError::Wire(error.to_string()))?;
    let missing = schema.message_named(&M::full_name()).map(|at| wire::missing(schema, at, bytes)).unwrap_or_default();
    if missing.is_empty() { Ok(message) } else { Err(MappingError::Wire(wire::say_missing(&missing))) }
}

#[cfg(test)]
mod tests;
