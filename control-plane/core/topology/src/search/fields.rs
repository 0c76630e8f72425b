//! What of a node is searched: Scope's fields, and its id.

use crate::node::{Grid, NodeSummary};

/// Longest text that is looked into, in bytes; what is beyond is not found.
pub(crate) const TEXT_BYTES_MAX: usize = 16_384;
/// Most texts of one node that are looked into.
pub(crate) const TEXTS_MAX: usize = 256;

/// A text of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    /// What a prefix is compared with.
    pub(super) name: &'a str,
    /// Its value.
    pub(super) text: &'a str,
    pub(super) class: Class,
    /// Whether it stands in a table with columns. Such texts answer to every name, as with Scope.
    pub(super) is_cell: bool,
}

/// Kinds of fields, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Label,
    Id,
    LabelMinor,
    Metadata,
    Parent,
    Table,
}

impl Class {
    pub(super) const ALL: [Class; 6] = [Class::Label, Class::Id, Class::LabelMinor, Class::Metadata, Class::Parent, Class::Table];

    /// What a match in it counts. The best match of a class is worth less than the worst of the one before.
    pub(super) fn weight(self) -> u32 {
        match self {
            Class::Label => 4_000,
            Class::Id => 1_000,
            Class::LabelMinor => 300,
            Class::Metadata => 80,
            Class::Parent => 20,
            Class::Table => 5,
        }
    }
}

/// Shows every text that is searched, best first, each cut to [`TEXT_BYTES_MAX`] and at most [`TEXTS_MAX`] of them.
///
/// Uptimes are left out: they grow by themselves, and nobody looks for their digits. Comparisons know them.
pub(super) fn each_field<'a>(node: &'a NodeSummary, look: impl FnMut(Field<'a>)) {
    let own =
        [("label", &*node.label, Class::Label), ("id", node.id.as_str(), Class::Id), ("labelMinor", &*node.label_minor, Class::LabelMinor)];
    let metadata = node.metadata.iter().filter(|row| row.data_type != "duration").map(|row| (&*row.label, &*row.value, Class::Metadata));
    let parents = node.parents.iter().map(|parent| (parent.topology_id, &*parent.label, Class::Parent));
    let tables = node.tables.iter().flat_map(|table| &table.rows).map(|(label, value)| (&**label, &**value, Class::Table));
    let named = own.into_iter().chain(metadata).chain(parents).chain(tables);
    let named = named.map(|(name, text, class)| Field { name, text: cut(text), class, is_cell: false });
    let cells = node.tables.iter().filter_map(|table| table.grid.as_deref()).flat_map(cells);
    named.chain(cells).filter(|field| !field.text.is_empty()).take(TEXTS_MAX).for_each(look);
}

/// What stands in a table with columns, by the headings.
fn cells(grid: &Grid) -> impl Iterator<Item = Field<'_>> {
    let heading = |id: &str| {
        let known = grid.columns.iter().flatten().find(|column| *column.id == *id);
        known.map(|column| &*column.label).filter(|label| !label.is_empty())
    };
    grid.rows.iter().flat_map(|row| &row.cells).map(move |(column, text)| Field {
        name: heading(column).unwrap_or(column),
        text: cut(text),
        class: Class::Table,
        is_cell: true,
    })
}

fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}
