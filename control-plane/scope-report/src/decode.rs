//! Bytes become a report. Probes send MessagePack of an old dialect, in which everything that has a length is a raw string; people and
//! plugins send JSON. Both are read by the same visitors, which skip what they do not know.
//!
//! A hostile body costs what the limits say: what it unpacks to, how deep it nests and what is made of it in memory are limited, and a length
//! that promises more than there is reserves nothing.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::marker::PhantomData;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::model::{
    ColumnTemplate, Control, Dns, Kind, Latest, MetadataTemplate, Metric, MetricTemplate, Node, PluginSpec, Report, Sample, Sampling,
    TableTemplate, Topology,
};
use crate::text::Text;
use crate::time::Time;

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As probes write it.
    Msgpack,
    /// As plugins and people write it.
    Json,
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// It is not.
    None,
    /// gzip, one stream after the other.
    Gzip,
}

/// What a body may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that it may unpack to.
    pub bytes: usize,
    /// Bytes of memory that what is read may take, about. A byte of a body may stand for hundreds: an empty node, or the first entry of a map.
    pub memory: usize,
}

/// A report, and about how many bytes of memory it takes.
#[derive(Clone, Debug, Default)]
pub struct Weighed {
    /// What was read.
    pub report: Report,
    /// Bytes; rather too many than too few.
    pub weight: usize,
}

/// Why a body is no report.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It unpacks to more than is read.
    #[error("the report is larger than {0} bytes")]
    TooLarge(usize),
    /// What is made of it takes more room than is given.
    #[error("the report takes more than {0} bytes of memory")]
    TooHeavy(usize),
    /// It is not what its headers say.
    #[error("the report cannot be unpacked")]
    Gzip(#[source] std::io::Error),
    /// It is no report.
    #[error("the report cannot be read: {0}")]
    Malformed(String),
}

impl DecodeError {
    /// Whether it is the size that is wrong.
    pub fn is_limit(&self) -> bool {
        matches!(self, DecodeError::TooLarge(_) | DecodeError::TooHeavy(_))
    }
}

/// Maps and lists within each other; a report that makes sense needs a dozen.
const DEPTH_MAX: usize = 64;

thread_local! {
    /// Bytes of memory that may still be taken. Visitors are made by their types alone, so that there is no other way to them.
    static MEMORY_LEFT: Cell<usize> = const { Cell::new(0) };
}

/// What an allocation costs besides what is in it: the counters of an `Arc`, and what the allocator rounds up.
const ALLOCATION: usize = 32;
/// Entries that the first one of a map or of a set makes room for.
const LEAF: usize = 11;

/// Takes memory for something that is read.
fn take<E: serde::de::Error>(bytes: usize) -> Result<(), E> {
    let left = MEMORY_LEFT.get().checked_sub(bytes);
    MEMORY_LEFT.set(left.unwrap_or(0));
    left.map(drop).ok_or_else(|| E::custom("it takes too much memory"))
}

/// Takes memory for one more entry of a map or of a set.
fn take_entry<E: serde::de::Error>(held: usize, size: usize) -> Result<(), E> {
    match held {
        0 => take(ALLOCATION + LEAF * size),
        // They have their places already.
        1..LEAF => Ok(()),
        // Leaves are half full at least.
        _ => take(2 * size),
    }
}

/// Reads a report.
///
/// # Errors
/// When the body is none, or costs more than the limits say.
pub fn decode(body: &[u8], format: Format, compression: Compression, limits: Limits) -> Result<Report, DecodeError> {
    decode_weighed(body, format, compression, limits).map(|weighed| weighed.report)
}

/// Reads a report, and weighs it.
///
/// # Errors
/// As [`decode`].
pub fn decode_weighed(body: &[u8], format: Format, compression: Compression, limits: Limits) -> Result<Weighed, DecodeError> {
    let unpacked;
    let plain = match compression {
        Compression::None => body,
        Compression::Gzip => {
            let mut bytes = Vec::new();
            let limit = limits.bytes as u64;
            MultiGzDecoder::new(body).take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(DecodeError::Gzip)?;
            unpacked = bytes;
            &unpacked
        }
    };
    if plain.len() > limits.bytes {
        return Err(DecodeError::TooLarge(limits.bytes));
    }
    MEMORY_LEFT.set(limits.memory);
    let outcome = match format {
        Format::Msgpack => {
            let mut reader = rmp_serde::Deserializer::from_read_ref(plain);
            reader.set_max_depth(DEPTH_MAX);
            Report::deserialize(&mut reader).map_err(|error| error.to_string())
        }
        // Scope's reader took null for an empty report, and letters for those that are none.
        Format::Json => {
            let text = String::from_utf8_lossy(plain);
            serde_json::from_str(&text).map(|report: Option<Report>| report.unwrap_or_default()).map_err(|error| error.to_string())
        }
    };
    match outcome {
        Ok(report) => Ok(Weighed { report, weight: limits.memory - MEMORY_LEFT.get() }),
        Err(_) if MEMORY_LEFT.get() == 0 => Err(DecodeError::TooHeavy(limits.memory)),
        Err(reason) => Err(DecodeError::Malformed(reason)),
    }
}

/// A text, and bytes that are none with what stands for them: command lines may be anything. Numbers and truth values are texts, too, as
/// Scope read them.
struct Word(Text);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Word;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Word, E> {
                Ok(Word(text.into()))
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Word, E> {
                Ok(Word(String::from_utf8_lossy(bytes).into()))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Word, E> {
                Ok(Word(value.to_string().into()))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Word, E> {
                Ok(Word(value.to_string().into()))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Word, E> {
                Ok(Word(format!("{value:?}").into()))
            }

            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Word, E> {
                Ok(Word(value.to_string().into()))
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Word, E> {
                Ok(Word("".into()))
            }

            fn visit_none<E: serde::de::Error>(self) -> Result<Word, E> {
                Ok(Word("".into()))
            }
        }

        let word = deserializer.deserialize_any(Any)?;
        take::<D::Error>(ALLOCATION + word.0.len())?;
        Ok(word)
    }
}

/// A value, or null for what it is by default: Go writes what is empty in either way.
struct Lenient<T>(T);

impl<'de, T: Read + Default> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Maybe<T>(PhantomData<T>);

        impl<'de, T: Read + Default> Visitor<'de> for Maybe<T> {
            type Value = T;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value or null")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<T, E> {
                Ok(T::default())
            }

            fn visit_none<E: serde::de::Error>(self) -> Result<T, E> {
                Ok(T::default())
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
                T::read(deserializer)
            }
        }

        deserializer.deserialize_option(Maybe(PhantomData)).map(Lenient)
    }
}

/// Something that a report has in it.
trait Read: Sized {
    /// Bytes that one takes elsewhere, even when nothing is said of it.
    const ELSEWHERE: usize = 0;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

macro_rules! read_as_serde {
    ($($type:ty),*) => {
        $(impl Read for $type {
            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <$type>::deserialize(deserializer)
            }
        })*
    };
}

read_as_serde!(Time, bool);

/// A number, also one that is written as a text: Scope read both.
enum Number {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

impl Number {
    fn of_text(text: &str) -> Option<Self> {
        let unsigned = text.parse().ok().map(Number::Unsigned);
        unsigned.or_else(|| text.parse().ok().map(Number::Signed)).or_else(|| text.parse().ok().map(Number::Float))
    }

    #[expect(clippy::cast_precision_loss, reason = "a sample or a priority, as every reader of JSON has it")]
    fn as_f64(&self) -> f64 {
        match *self {
            Number::Unsigned(value) => value as f64,
            Number::Signed(value) => value as f64,
            Number::Float(value) => value,
        }
    }

    /// Of a number with a fraction, nothing.
    #[expect(clippy::cast_possible_truncation, reason = "checked: it is a whole number that an i64 holds")]
    fn as_i64(&self) -> Option<i64> {
        // Beyond this, not every whole number is a float.
        const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
        match *self {
            Number::Unsigned(value) => i64::try_from(value).ok(),
            Number::Signed(value) => Some(value),
            Number::Float(value) => (value.fract() == 0.0 && value.abs() <= WHOLE_MAX).then_some(value as i64),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Number;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number")
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number::Unsigned(value))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number::Signed(value))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Number, E> {
                Ok(Number::Float(value))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
                Number::of_text(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Number::deserialize(deserializer)?.as_i64().ok_or_else(|| D::Error::custom("a number is not whole, or too large"))
}

impl Read for f64 {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Number::deserialize(deserializer).map(|number| number.as_f64())
    }
}

impl Read for i64 {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer)
    }
}

impl Read for u64 {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Number::deserialize(deserializer)? {
            Number::Unsigned(value) => Ok(value),
            other => other
                .as_i64()
                .and_then(|value| u64::try_from(value).ok())
                .ok_or_else(|| D::Error::custom("a number is not whole, or negative")),
        }
    }
}

impl Read for u32 {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = whole(deserializer)?;
        Ok(u32::try_from(value.max(0)).unwrap_or(u32::MAX))
    }
}

impl Read for Text {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Word::deserialize(deserializer).map(|word| word.0)
    }
}

impl Read for Option<Text> {
    /// An empty text is as good as none.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::read(deserializer).map(|text| Some(text).filter(|text| !text.is_empty()))
    }
}

impl Read for Arc<Node> {
    const ELSEWHERE: usize = ALLOCATION + size_of::<Node>();

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Node::read(deserializer).map(Arc::new)
    }
}

impl<T: Read + Default> Read for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);

        impl<'de, T: Read + Default> Visitor<'de> for Items<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element::<Lenient<T>>()? {
                    // A list that grows doubles its room.
                    take::<S::Error>(2 * size_of::<T>() + T::ELSEWHERE)?;
                    items.push(item.0);
                }
                Ok(items)
            }
        }

        deserializer.deserialize_seq(Items(PhantomData))
    }
}

impl<T: Read + Default> Read for Option<Vec<T>> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::read(deserializer).map(Some)
    }
}

impl Read for BTreeSet<Text> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = BTreeSet<Text>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of texts")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
                let mut items = BTreeSet::new();
                while let Some(item) = list.next_element::<Word>()? {
                    take_entry::<S::Error>(items.len(), size_of::<Text>())?;
                    items.insert(item.0);
                }
                Ok(items)
            }
        }

        deserializer.deserialize_seq(Items)
    }
}

impl<V: Read + Default> Read for BTreeMap<Text, V> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);

        impl<'de, V: Read + Default> Visitor<'de> for Entries<V> {
            type Value = BTreeMap<Text, V>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<Word>()? {
                    let value = map.next_value::<Lenient<V>>()?;
                    take_entry::<M::Error>(entries.len(), size_of::<(Text, V)>())?;
                    take::<M::Error>(V::ELSEWHERE)?;
                    entries.insert(key.0, value.0);
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// The key of a field, without a place on the heap. One that is longer than any that is known is none.
struct Key {
    bytes: [u8; Key::LENGTH_MAX],
    length: usize,
}

impl Key {
    const LENGTH_MAX: usize = 24;

    fn new(text: &[u8]) -> Self {
        let mut key = Key { bytes: [0; Key::LENGTH_MAX], length: 0 };
        if let Some(place) = key.bytes.get_mut(..text.len()) {
            place.copy_from_slice(text);
            key.length = text.len();
        }
        key
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl<'de> Visitor<'de> for Name {
            type Value = Key;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Key, E> {
                Ok(Key::new(text.as_bytes()))
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Key, E> {
                Ok(Key::new(bytes))
            }
        }

        deserializer.deserialize_any(Name)
    }
}

/// Fields by their keys; the rest is skipped.
macro_rules! read_fields {
    ($type:ty { $($key:literal => $field:ident),* $(,)? }) => {
        impl Read for $type {
            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;

                impl<'de> Visitor<'de> for Fields {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a map")
                    }

                    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                        let mut out = <$type>::default();
                        while let Some(key) = map.next_key::<Key>()? {
                            match key.as_str() {
                                $($key => out.$field = map.next_value::<Lenient<_>>()?.0,)*
                                _ => {
                                    map.next_value::<IgnoredAny>()?;
                                }
                            }
                        }
                        Ok(out)
                    }
                }

                deserializer.deserialize_map(Fields)
            }
        }
    };
}

read_fields!(Topology {
    "shape" => shape,
    "tag" => tag,
    "label" => label,
    "label_plural" => label_plural,
    "nodes" => nodes,
    "controls" => controls,
    "metadata_templates" => metadata_templates,
    "metric_templates" => metric_templates,
    "table_templates" => table_templates,
});
read_fields!(Latest { "timestamp" => at, "value" => value });
read_fields!(Metric { "samples" => samples, "min" => min, "max" => max });
read_fields!(Sample { "date" => at, "value" => value });
read_fields!(Control {
    "id" => id,
    "human" => human,
    "icon" => icon,
    "confirmation" => confirmation,
    "rank" => rank,
    "probeId" => probe_id,
});
read_fields!(MetadataTemplate {
    "id" => id,
    "label" => label,
    "truncate" => truncate,
    "dataType" => data_type,
    "priority" => priority,
    "from" => from,
});
read_fields!(MetricTemplate { "id" => id, "label" => label, "format" => format, "group" => group, "priority" => priority });
read_fields!(TableTemplate {
    "id" => id,
    "label" => label,
    "prefix" => prefix,
    "type" => kind,
    "columns" => columns,
    "fixedRows" => fixed_rows,
});
read_fields!(ColumnTemplate { "id" => id, "label" => label, "dataType" => data_type });
read_fields!(Dns { "forward" => forward, "reverse" => reverse });
read_fields!(Sampling { "Count" => count, "Total" => total });
read_fields!(PluginSpec {
    "id" => id,
    "label" => label,
    "description" => description,
    "interfaces" => interfaces,
    "api_version" => api_version,
    "status" => status,
});

/// What a report says of plugins: a list, or a map, of which Scope read as much as of an empty list.
#[derive(Default)]
struct Plugins(Vec<PluginSpec>);

impl Read for Plugins {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Plugins;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of plugins")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Plugins, S::Error> {
                let mut plugins = Vec::new();
                while let Some(plugin) = list.next_element::<Lenient<PluginSpec>>()? {
                    // In this list, and then by its id.
                    take::<S::Error>(4 * size_of::<PluginSpec>())?;
                    plugins.push(plugin.0);
                }
                Ok(Plugins(plugins))
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Plugins, M::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Plugins::default())
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// A node as it is written, with what old probes had in it.
#[derive(Default)]
struct WireNode {
    id: Option<Text>,
    topology: Option<Text>,
    latest: BTreeMap<Text, Latest>,
    sets: BTreeMap<Text, BTreeSet<Text>>,
    adjacency: BTreeSet<Text>,
    metrics: BTreeMap<Text, Metric>,
    parents: BTreeMap<Text, BTreeSet<Text>>,
    children: Vec<Node>,
    latest_controls: BTreeMap<Text, WireControl>,
    counters: BTreeMap<Text, i64>,
}

/// Whether a control is there, as old probes told it.
#[derive(Default)]
struct WireControl {
    at: Time,
    state: WireControlState,
}

#[derive(Default)]
struct WireControlState {
    dead: bool,
}

read_fields!(WireNode {
    "id" => id,
    "topology" => topology,
    "latest" => latest,
    "sets" => sets,
    "adjacency" => adjacency,
    "metrics" => metrics,
    "parents" => parents,
    "children" => children,
    "latestControls" => latest_controls,
    "counters" => counters,
});
read_fields!(WireControl { "timestamp" => at, "value" => state });
read_fields!(WireControlState { "dead" => dead });

impl Read for Node {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WireNode::read(deserializer)?;
        let mut children = BTreeMap::new();
        for child in wire.children {
            // What has no id cannot be told from others.
            if let Some(id) = child.id.clone() {
                take_entry::<D::Error>(children.len(), size_of::<(Text, Arc<Node>)>())?;
                take::<D::Error>(ALLOCATION)?;
                children.insert(id, Arc::new(child));
            }
        }
        let mut node = Node {
            id: wire.id,
            topology: wire.topology,
            latest: wire.latest,
            sets: wire.sets,
            adjacency: wire.adjacency,
            metrics: wire.metrics,
            parents: wire.parents,
            children,
        };
        if !wire.latest_controls.is_empty() {
            let live = || wire.latest_controls.iter().filter(|(_, control)| !control.state.dead);
            let at = live().map(|(_, control)| control.at).max().unwrap_or_default();
            let names: Vec<&str> = live().map(|(name, _)| &**name).collect();
            node.set("active_controls", at, names.join(";"));
        }
        for (key, count) in wire.counters {
            node.set(format!("count_{key}"), Time::ZERO, count.to_string());
        }
        Ok(node)
    }
}

impl<'de> Deserialize<'de> for Report {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;

        impl<'de> Visitor<'de> for Parts {
            type Value = Report;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a report")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Report, M::Error> {
                let mut report = Report::default();
                let mut misnamed = BTreeMap::new();
                while let Some(key) = map.next_key::<Key>()? {
                    if let Some(kind) = Kind::from_key(key.as_str()) {
                        *report.table_mut(kind) = map.next_value::<Lenient<Topology>>()?.0;
                        continue;
                    }
                    match key.as_str() {
                        "TS" => report.at = map.next_value::<Lenient<Time>>()?.0,
                        "Window" => report.window = map.next_value::<Lenient<i64>>()?.0,
                        "Shortcut" => report.shortcut = map.next_value::<Lenient<bool>>()?.0,
                        "Sampling" => report.sampling = map.next_value::<Lenient<Sampling>>()?.0,
                        "Plugins" => {
                            let plugins = map.next_value::<Lenient<Plugins>>()?.0;
                            report.plugins = plugins.0.into_iter().map(|plugin| (plugin.id.clone(), plugin)).collect();
                        }
                        "ID" => report.id = map.next_value::<Lenient<Option<Text>>>()?.0,
                        "DNS" => report.dns = map.next_value::<Lenient<BTreeMap<Text, Dns>>>()?.0,
                        // Release 1.11.6 wrote the names under this key by mistake.
                        "nodes" => misnamed = map.next_value::<Lenient<BTreeMap<Text, Dns>>>()?.0,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                if !misnamed.is_empty() {
                    report.dns = misnamed;
                }
                Ok(report)
            }
        }

        deserializer.deserialize_map(Parts)
    }
}

#[cfg(test)]
pub(crate) mod tests;
