//! A report becomes bytes: the MessagePack that Scope's programs read, and the JSON that people read.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    ColumnTemplate, Control, Dns, Kind, MetadataTemplate, Metric, MetricTemplate, Node, PluginSpec, Report, TableTemplate, Topology,
};
use crate::text::Text;
use crate::time::Time;

/// The report in the MessagePack of Scope's probes: strings and times are raw strings of the old kinds, containers are never typed.
pub fn to_msgpack(report: &Report) -> Vec<u8> {
    let mut out = Msgpack(Vec::new());
    write_report(&mut out, report);
    out.0
}

/// The report in Scope's JSON.
pub fn to_json(report: &Report) -> Vec<u8> {
    let mut out = Json { out: Vec::new(), comma: false };
    write_report(&mut out, report);
    out.out
}

/// What both can write. Every map is told how many entries it will have.
trait Writer: Sized {
    fn map(&mut self, length: usize, entries: impl FnOnce(&mut Self));
    fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, item: impl FnMut(&mut Self, T));
    fn key(&mut self, key: &str);
    fn text(&mut self, text: &str);
    fn time(&mut self, at: Time);
    fn integer(&mut self, value: i64);
    fn float(&mut self, value: f64);
    fn bool(&mut self, value: bool);
    fn null(&mut self);
}

/// Fields of which those that are empty are left out.
type Fields<'a, W> = Vec<(&'static str, Box<dyn FnOnce(&mut W) + 'a>)>;

fn write_fields<W: Writer>(out: &mut W, fields: Fields<'_, W>) {
    out.map(fields.len(), |out| {
        for (key, write) in fields {
            out.key(key);
            write(out);
        }
    });
}

fn write_report<W: Writer>(out: &mut W, report: &Report) {
    let dns = usize::from(!report.dns.is_empty());
    out.map(Kind::ALL.len() + 6 + dns, |out| {
        out.key("TS");
        out.time(report.at);
        for (kind, table) in report.tables() {
            out.key(kind.key());
            write_table(out, kind, table);
        }
        if dns == 1 {
            out.key("DNS");
            write_map(out, &report.dns, write_dns);
        }
        out.key("Sampling");
        out.map(2, |out| {
            out.key("Count");
            out.integer(i64::try_from(report.sampling.count).unwrap_or(i64::MAX));
            out.key("Total");
            out.integer(i64::try_from(report.sampling.total).unwrap_or(i64::MAX));
        });
        out.key("Window");
        out.integer(report.window);
        out.key("Shortcut");
        out.bool(report.shortcut);
        out.key("Plugins");
        out.list(report.plugins.values(), write_plugin);
        out.key("ID");
        out.text(report.id.as_deref().unwrap_or_default());
    });
}

fn write_map<W: Writer, V>(out: &mut W, map: &BTreeMap<Text, V>, write: impl Fn(&mut W, &V)) {
    out.map(map.len(), |out| {
        for (key, value) in map {
            out.key(key);
            write(out, value);
        }
    });
}

fn write_set<W: Writer>(out: &mut W, set: &BTreeSet<Text>) {
    out.list(set.iter(), |out, text| out.text(text));
}

/// Null when there is none, as Scope's own writer has it.
fn write_sets<W: Writer>(out: &mut W, sets: &BTreeMap<Text, BTreeSet<Text>>) {
    if sets.is_empty() {
        out.null();
    } else {
        write_map(out, sets, write_set);
    }
}

fn write_table<W: Writer>(out: &mut W, kind: Kind, table: &Topology) {
    let mut fields: Fields<'_, W> = Vec::new();
    let (label, label_plural) = kind.labels();
    for (key, own, usual) in [
        ("shape", &table.shape, kind.shape()),
        ("tag", &table.tag, kind.tag()),
        ("label", &table.label, label),
        ("label_plural", &table.label_plural, label_plural),
    ] {
        let text = own.as_deref().unwrap_or(usual);
        if !text.is_empty() {
            fields.push((key, Box::new(move |out: &mut W| out.text(text))));
        }
    }
    if !table.nodes.is_empty() {
        fields.push(("nodes", Box::new(|out: &mut W| write_map(out, &table.nodes, |out, node| write_node(out, node)))));
    }
    if !table.controls.is_empty() {
        fields.push(("controls", Box::new(|out: &mut W| write_map(out, &table.controls, write_control))));
    }
    if !table.metadata_templates.is_empty() {
        fields.push(("metadata_templates", Box::new(|out: &mut W| write_map(out, &table.metadata_templates, write_metadata))));
    }
    if !table.metric_templates.is_empty() {
        fields.push(("metric_templates", Box::new(|out: &mut W| write_map(out, &table.metric_templates, write_metric_template))));
    }
    if !table.table_templates.is_empty() {
        fields.push(("table_templates", Box::new(|out: &mut W| write_map(out, &table.table_templates, write_table_template))));
    }
    write_fields(out, fields);
}

fn write_node<W: Writer>(out: &mut W, node: &Node) {
    let mut fields: Fields<'_, W> = Vec::new();
    for (key, text) in [("id", &node.id), ("topology", &node.topology)] {
        if let Some(text) = text {
            fields.push((key, Box::new(move |out: &mut W| out.text(text))));
        }
    }
    fields.push(("sets", Box::new(|out: &mut W| write_sets(out, &node.sets))));
    if !node.adjacency.is_empty() {
        fields.push(("adjacency", Box::new(|out: &mut W| write_set(out, &node.adjacency))));
    }
    if !node.latest.is_empty() {
        fields.push((
            "latest",
            Box::new(|out: &mut W| {
                write_map(out, &node.latest, |out, latest| {
                    out.map(2, |out| {
                        out.key("timestamp");
                        out.time(latest.at);
                        out.key("value");
                        out.text(&latest.value);
                    });
                });
            }),
        ));
    }
    if !node.metrics.is_empty() {
        fields.push(("metrics", Box::new(|out: &mut W| write_map(out, &node.metrics, write_metric))));
    }
    fields.push(("parents", Box::new(|out: &mut W| write_sets(out, &node.parents))));
    fields.push((
        "children",
        Box::new(|out: &mut W| match node.children.len() {
            0 => out.null(),
            _ => out.list(node.children.values(), |out, child| write_node(out, child)),
        }),
    ));
    write_fields(out, fields);
}

fn write_metric<W: Writer>(out: &mut W, metric: &Metric) {
    let mut fields: Fields<'_, W> = Vec::new();
    if !metric.samples.is_empty() {
        fields.push((
            "samples",
            Box::new(|out: &mut W| {
                out.list(metric.samples.iter(), |out, sample| {
                    out.map(2, |out| {
                        out.key("date");
                        out.time(sample.at);
                        out.key("value");
                        out.float(sample.value);
                    });
                });
            }),
        ));
    }
    fields.push(("min", Box::new(|out: &mut W| out.float(metric.min))));
    fields.push(("max", Box::new(|out: &mut W| out.float(metric.max))));
    write_fields(out, fields);
}

/// Texts that are left out when they are empty, except for the first `always`.
fn texts<'a, W: Writer>(always: usize, texts: &[(&'static str, &'a Text)]) -> Fields<'a, W> {
    let wanted = texts.iter().enumerate().filter(|(at, (_, text))| *at < always || !text.is_empty());
    wanted.map(|(_, &(key, text))| (key, Box::new(move |out: &mut W| out.text(text)) as Box<dyn FnOnce(&mut W) + 'a>)).collect()
}

fn write_control<W: Writer>(out: &mut W, control: &Control) {
    let mut fields = texts(
        3,
        &[
            ("id", &control.id),
            ("human", &control.human),
            ("icon", &control.icon),
            ("confirmation", &control.confirmation),
            ("probeId", &control.probe_id),
        ],
    );
    fields.push(("rank", Box::new(|out: &mut W| out.integer(control.rank))));
    write_fields(out, fields);
}

fn write_metadata<W: Writer>(out: &mut W, template: &MetadataTemplate) {
    let mut fields =
        texts(1, &[("id", &template.id), ("label", &template.label), ("dataType", &template.data_type), ("from", &template.from)]);
    if template.truncate > 0 {
        fields.push(("truncate", Box::new(|out: &mut W| out.integer(i64::from(template.truncate)))));
    }
    if template.priority != 0.0 {
        fields.push(("priority", Box::new(|out: &mut W| out.float(template.priority))));
    }
    write_fields(out, fields);
}

fn write_metric_template<W: Writer>(out: &mut W, template: &MetricTemplate) {
    let mut fields =
        texts(1, &[("id", &template.id), ("label", &template.label), ("format", &template.format), ("group", &template.group)]);
    if template.priority != 0.0 {
        fields.push(("priority", Box::new(|out: &mut W| out.float(template.priority))));
    }
    write_fields(out, fields);
}

fn write_table_template<W: Writer>(out: &mut W, template: &TableTemplate) {
    let mut fields = texts(4, &[("id", &template.id), ("label", &template.label), ("prefix", &template.prefix), ("type", &template.kind)]);
    fields.push((
        "columns",
        Box::new(|out: &mut W| match &template.columns {
            None => out.null(),
            Some(columns) => out.list(columns.iter(), write_column),
        }),
    ));
    fields.push(("fixedRows", Box::new(|out: &mut W| write_map(out, &template.fixed_rows, |out, text| out.text(text)))));
    write_fields(out, fields);
}

fn write_column<W: Writer>(out: &mut W, column: &ColumnTemplate) {
    write_fields(out, texts(3, &[("id", &column.id), ("label", &column.label), ("dataType", &column.data_type)]));
}

fn write_dns<W: Writer>(out: &mut W, names: &Dns) {
    let mut fields: Fields<'_, W> = Vec::new();
    if !names.forward.is_empty() {
        fields.push(("forward", Box::new(|out: &mut W| write_set(out, &names.forward))));
    }
    if !names.reverse.is_empty() {
        fields.push(("reverse", Box::new(|out: &mut W| write_set(out, &names.reverse))));
    }
    write_fields(out, fields);
}

fn write_plugin<W: Writer>(out: &mut W, plugin: &PluginSpec) {
    let mut fields = texts(
        2,
        &[
            ("id", &plugin.id),
            ("label", &plugin.label),
            ("description", &plugin.description),
            ("api_version", &plugin.api_version),
            ("status", &plugin.status),
        ],
    );
    fields.push(("interfaces", Box::new(|out: &mut W| out.list(plugin.interfaces.iter(), |out, text| out.text(text)))));
    write_fields(out, fields);
}

struct Msgpack(Vec<u8>);

impl Msgpack {
    fn raw(&mut self, bytes: &[u8]) {
        match bytes.len() {
            length @ 0..32 => self.0.push(0xa0 | length.to_le_bytes()[0]),
            length => match u16::try_from(length) {
                Ok(length) => {
                    self.0.push(0xda);
                    self.0.extend_from_slice(&length.to_be_bytes());
                }
                Err(_) => {
                    self.0.push(0xdb);
                    self.0.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
                }
            },
        }
        self.0.extend_from_slice(bytes);
    }

    fn container(&mut self, length: usize, fixed: u8, long: u8) {
        match length {
            0..16 => self.0.push(fixed | length.to_le_bytes()[0]),
            length => match u16::try_from(length) {
                Ok(length) => {
                    self.0.push(long);
                    self.0.extend_from_slice(&length.to_be_bytes());
                }
                Err(_) => {
                    self.0.push(long + 1);
                    self.0.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
                }
            },
        }
    }
}

impl Writer for Msgpack {
    fn map(&mut self, length: usize, entries: impl FnOnce(&mut Self)) {
        self.container(length, 0x80, 0xde);
        entries(self);
    }

    fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut item: impl FnMut(&mut Self, T)) {
        self.container(items.len(), 0x90, 0xdc);
        items.for_each(|it| item(self, it));
    }

    fn key(&mut self, key: &str) {
        self.raw(key.as_bytes());
    }

    fn text(&mut self, text: &str) {
        self.raw(text.as_bytes());
    }

    fn time(&mut self, at: Time) {
        self.raw(&at.to_go_binary());
    }

    fn integer(&mut self, value: i64) {
        match u8::try_from(value) {
            Ok(small @ 0..0x80) => self.0.push(small),
            _ => {
                self.0.push(0xd3);
                self.0.extend_from_slice(&value.to_be_bytes());
            }
        }
    }

    fn float(&mut self, value: f64) {
        self.0.push(0xcb);
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn bool(&mut self, value: bool) {
        self.0.push(if value { 0xc3 } else { 0xc2 });
    }

    fn null(&mut self) {
        self.0.push(0xc0);
    }
}

struct Json {
    out: Vec<u8>,
    /// Whether a value stands before the next one at this level.
    comma: bool,
}

impl Json {
    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }

    fn quoted(&mut self, text: &str) {
        self.out.push(b'"');
        for letter in text.chars() {
            let escape = match letter {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\u{7f}' | '\0'..'\u{20}' => {
                    self.out.extend_from_slice(format!("\\u{:04x}", u32::from(letter)).as_bytes());
                    continue;
                }
                _ => {
                    self.out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            self.out.extend_from_slice(escape.as_bytes());
        }
        self.out.push(b'"');
    }

    fn literal(&mut self, text: &str) {
        self.separate();
        self.out.extend_from_slice(text.as_bytes());
    }
}

impl Writer for Json {
    fn map(&mut self, _: usize, entries: impl FnOnce(&mut Self)) {
        self.separate();
        self.out.push(b'{');
        self.comma = false;
        entries(self);
        self.out.push(b'}');
        self.comma = true;
    }

    fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut item: impl FnMut(&mut Self, T)) {
        self.separate();
        self.out.push(b'[');
        self.comma = false;
        items.for_each(|it| item(self, it));
        self.out.push(b']');
        self.comma = true;
    }

    fn key(&mut self, key: &str) {
        self.separate();
        self.quoted(key);
        self.out.push(b':');
        self.comma = false;
    }

    fn text(&mut self, text: &str) {
        self.separate();
        self.quoted(text);
    }

    fn time(&mut self, at: Time) {
        self.text(&at.to_rfc3339());
    }

    fn integer(&mut self, value: i64) {
        self.literal(&value.to_string());
    }

    /// Always with a point or an exponent. What JSON cannot say (not a number, infinite) becomes zero.
    fn float(&mut self, value: f64) {
        self.literal(&format!("{:?}", if value.is_finite() { value } else { 0.0 }));
    }

    fn bool(&mut self, value: bool) {
        self.literal(if value { "true" } else { "false" });
    }

    fn null(&mut self) {
        self.literal("null");
    }
}
