//! What the `.proto` files say about every message, as tables that the JSON mapping walks: built once, from the embedded descriptors.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label as ProtoLabel, Type as ProtoType};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::build);

/// Fields whose declared default is deprecated upstream and therefore not written when they are unset.
const UNPRINTED_DEFAULTS: [(&str, &str); 2] = [("mesos.v1.FrameworkInfo", "role"), ("mesos.v1.Resource", "role")];
/// Enums whose words say `SLAVE` in the old spelling.
const RENAMED_ENUMS: [&str; 2] = ["mesos.v1.TaskStatus.Source", "mesos.v1.TaskStatus.Reason"];

pub(crate) struct Schema {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    by_name: HashMap<String, usize>,
}

#[derive(Default)]
pub(crate) struct Message {
    pub(crate) fields: Vec<Field>,
    by_name: HashMap<String, usize>,
    /// Position in `fields` by number; numbers are small.
    by_number: Vec<u16>,
    /// Entry of a map: written as a member of an object.
    pub(crate) is_map_entry: bool,
}

pub(crate) struct Field {
    pub(crate) name: String,
    /// `"name":` in the new and in the old spelling.
    pub(crate) keys: [String; 2],
    pub(crate) number: u32,
    pub(crate) label: Label,
    pub(crate) kind: Kind,
    /// What is written when the field is unset.
    pub(crate) default: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    Required,
    Optional,
    Repeated,
    /// Repeated entries of a map.
    Map,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Bool,
    String,
    Bytes,
    Enum(usize),
    Message(usize),
}

#[derive(Default)]
pub(crate) struct Enum {
    /// Number, then the word in the new and in the old spelling, quoted.
    words: Vec<(i32, [String; 2])>,
    by_word: HashMap<String, i32>,
}

impl Schema {
    pub(crate) fn get() -> &'static Schema {
        &SCHEMA
    }

    /// The message of this full name. Names come from generated types; `None` is a type that is not of this crate.
    pub(crate) fn message_named(&self, full_name: &str) -> Option<usize> {
        self.by_name.get(full_name).copied()
    }

    pub(crate) fn message(&self, index: usize) -> &Message {
        &self.messages[index]
    }

    pub(crate) fn enumeration(&self, index: usize) -> &Enum {
        &self.enums[index]
    }

    fn build() -> Schema {
        let files = FileDescriptorSet::decode(crate::FILE_DESCRIPTORS).unwrap_or_default();
        let mut messages = Vec::new();
        let mut enums = Vec::new();
        for file in &files.file {
            let package = format!(".{}", file.package());
            file.enum_type.iter().for_each(|it| enums.push((format!("{package}.{}", it.name()), it)));
            file.message_type.iter().for_each(|it| collect(&package, it, &mut messages, &mut enums));
        }
        let message_index: HashMap<&str, usize> = messages.iter().enumerate().map(|(at, (name, _))| (name.as_str(), at)).collect();
        let enum_index: HashMap<&str, usize> = enums.iter().enumerate().map(|(at, (name, _))| (name.as_str(), at)).collect();
        let built_enums = enums.iter().map(|(name, it)| enumeration(&name[1..], it)).collect();
        let built = messages
            .iter()
            .map(|(name, it)| {
                let fields = it.field.iter().filter_map(|field| {
                    let kind = kind(field, &message_index, &enum_index)?;
                    let label = match (field.label(), kind) {
                        (ProtoLabel::Required, _) => Label::Required,
                        (ProtoLabel::Optional, _) => Label::Optional,
                        (ProtoLabel::Repeated, Kind::Message(at)) if is_map_entry(messages[at].1) => Label::Map,
                        (ProtoLabel::Repeated, _) => Label::Repeated,
                    };
                    Some(make_field(&name[1..], field, label, kind))
                });
                let fields: Vec<Field> = fields.collect();
                let by_name = fields.iter().enumerate().map(|(at, field)| (field.name.clone(), at)).collect();
                let highest = fields.iter().map(|field| field.number).max().unwrap_or(0);
                let mut by_number = vec![u16::MAX; highest as usize + 1];
                for (at, field) in fields.iter().enumerate() {
                    by_number[field.number as usize] = u16::try_from(at).unwrap_or(u16::MAX);
                }
                Message { fields, by_name, by_number, is_map_entry: is_map_entry(it) }
            })
            .collect();
        let by_name = messages.iter().enumerate().map(|(at, (name, _))| (name[1..].to_owned(), at)).collect();
        Schema { messages: built, enums: built_enums, by_name }
    }
}

impl Message {
    pub(crate) fn field_named(&self, name: &str) -> Option<&Field> {
        self.by_name.get(name).map(|at| &self.fields[*at])
    }

    /// Where the field of this number is declared.
    pub(crate) fn position(&self, number: u32) -> Option<u16> {
        self.by_number.get(number as usize).copied().filter(|at| *at != u16::MAX)
    }
}

impl Enum {
    /// The quoted word; `None` for a number that the enum does not know.
    pub(crate) fn word(&self, number: i32, spelling: usize) -> Option<&str> {
        self.words.iter().find(|(known, _)| *known == number).map(|(_, words)| words[spelling].as_str())
    }

    pub(crate) fn number(&self, word: &str) -> Option<i32> {
        self.by_word.get(word).copied()
    }
}

fn collect<'a>(
    scope: &str,
    message: &'a DescriptorProto,
    messages: &mut Vec<(String, &'a DescriptorProto)>,
    enums: &mut Vec<(String, &'a EnumDescriptorProto)>,
) {
    let name = format!("{scope}.{}", message.name());
    message.enum_type.iter().for_each(|it| enums.push((format!("{name}.{}", it.name()), it)));
    message.nested_type.iter().for_each(|it| collect(&name, it, messages, enums));
    messages.push((name, message));
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn kind(field: &FieldDescriptorProto, messages: &HashMap<&str, usize>, enums: &HashMap<&str, usize>) -> Option<Kind> {
    Some(match field.r#type() {
        ProtoType::Double => Kind::Double,
        ProtoType::Float => Kind::Float,
        ProtoType::Int32 => Kind::Int32,
        ProtoType::Int64 => Kind::Int64,
        ProtoType::Uint32 => Kind::Uint32,
        ProtoType::Uint64 => Kind::Uint64,
        ProtoType::Bool => Kind::Bool,
        ProtoType::String => Kind::String,
        ProtoType::Bytes => Kind::Bytes,
        ProtoType::Enum => Kind::Enum(*enums.get(field.type_name())?),
        ProtoType::Message => Kind::Message(*messages.get(field.type_name())?),
        // Mesos uses none of the others.
        _ => return None,
    })
}

fn make_field(message: &str, field: &FieldDescriptorProto, label: Label, kind: Kind) -> Field {
    let name = field.name().to_owned();
    let keys = [format!("\"{name}\":"), format!("\"{}\":", name.replace("agent", "slave"))];
    let default = field.default_value.as_deref().filter(|_| label == Label::Optional && !UNPRINTED_DEFAULTS.contains(&(message, &name)));
    let default = default.map(|text| match kind {
        Kind::String | Kind::Enum(_) => format!("\"{text}\""),
        // The descriptor says `5` for 5.0.
        Kind::Double | Kind::Float if !text.contains('.') => format!("{text}.0"),
        _ => text.to_owned(),
    });
    Field { name, keys, number: field.number().unsigned_abs(), label, kind, default }
}

fn enumeration(name: &str, descriptor: &EnumDescriptorProto) -> Enum {
    let renamed = RENAMED_ENUMS.contains(&name);
    let mut this = Enum::default();
    for value in &descriptor.value {
        let word = value.name();
        let old = if renamed { word.replace("AGENT", "SLAVE") } else { word.to_owned() };
        this.by_word.insert(word.to_owned(), value.number());
        this.by_word.insert(old.clone(), value.number());
        this.words.push((value.number(), [format!("\"{word}\""), format!("\"{old}\"")]));
    }
    this
}
