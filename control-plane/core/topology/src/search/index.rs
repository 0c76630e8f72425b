//! All texts of all nodes of all views, each kept once and ready to be looked through.
//!
//! Most texts are those of many nodes: names, images, labels, hosts. The index has every different text of a field once, with the nodes
//! that show it, and its folded bytes lie in blocks of lines. A query walks through the blocks, which hold a tenth of what the nodes show,
//! and takes the nodes of each line that it matches: any regular expression is answered exactly, in time that is proportional to the
//! different texts. A node that changed takes its old texts out and puts its new ones in; nothing else is touched.
//!
//! A node costs 4 bytes for each of its texts, and a text about 64 bytes besides its own length. A node has at most
//! [`fields::TEXTS_MAX`](super::fields::TEXTS_MAX) texts of [`fields::TEXT_BYTES_MAX`](super::fields::TEXT_BYTES_MAX) bytes in it, and their
//! number is bounded by the limits of the map.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use base::DenseMap;
use slab::Slab;

use super::fields::{Class, Field, each_field};
use super::fold::{fold_into, reduce};
use crate::index::Entity;
use crate::node::NodeSummary;

/// Bytes of a block. Small enough to be written anew when half of it is dead.
const BLOCK_BYTES: usize = 64 << 10;

/// A node of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// Place of the view in [`PROJECTED`](crate::projection::PROJECTED).
    pub(crate) view: u8,
    pub(crate) entity: Entity,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(super) documents: Slab<Document>,
    places: DenseMap<Place, u32>,
    pub(super) columns: [Column; Class::ALL.len()],
    /// Names of fields; few, and never forgotten before the map is.
    pub(super) fields: Vec<FieldName>,
    field_ids: DenseMap<Box<str>, u32>,
    next_ordinal: u64,
}

/// A node in the index.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) place: Place,
    /// Grows with every node that comes: order of nodes that fit equally well.
    pub(super) ordinal: u64,
    /// Its texts.
    texts: Box<[TextId]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TextId(u32);

impl TextId {
    /// Class in the low bits: there are six.
    fn new(class: Class, row: usize) -> Self {
        TextId(u32::try_from(row << 3 | class as usize).expect("the limits of the map keep texts far below five hundred million"))
    }

    fn column(self) -> usize {
        (self.0 & 7) as usize
    }

    fn row(self) -> usize {
        (self.0 >> 3) as usize
    }
}

/// Name of a field.
#[derive(Debug)]
pub(super) struct FieldName {
    pub(super) reduced: Box<str>,
}

/// Beyond this many different names of fields, which labels can make, the rest share one that no prefix finds.
const FIELDS_MAX: usize = 65_536;

/// Texts of one class.
#[derive(Debug, Default)]
pub(super) struct Column {
    pub(super) texts: Slab<Text>,
    known: DenseMap<u64, u32>,
    pub(super) blocks: Vec<Block>,
    /// Blocks that were written anew and have room.
    roomy: Vec<u32>,
}

/// One text.
#[derive(Debug)]
pub(super) struct Text {
    block: u32,
    start: u32,
    length: u32,
    pub(super) field: u32,
    hash: u64,
    pub(super) nodes: Nodes,
}

/// The nodes that show a text.
#[derive(Debug)]
pub(super) enum Nodes {
    One(u32),
    Many(BTreeSet<u32>),
}

impl Nodes {
    pub(super) fn for_each(&self, mut look: impl FnMut(u32)) {
        match self {
            Nodes::One(node) => look(*node),
            Nodes::Many(nodes) => nodes.iter().copied().for_each(look),
        }
    }

    fn insert(&mut self, node: u32) {
        match self {
            Nodes::One(known) if *known == node => {}
            Nodes::One(known) => *self = Nodes::Many(BTreeSet::from([*known, node])),
            Nodes::Many(nodes) => {
                nodes.insert(node);
            }
        }
    }

    /// True when nobody shows it any more.
    fn remove(&mut self, node: u32) -> bool {
        match self {
            Nodes::One(known) => *known == node,
            Nodes::Many(nodes) => {
                nodes.remove(&node);
                nodes.is_empty()
            }
        }
    }
}

/// Folded texts, each with a line break behind it.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) bytes: String,
    /// Where each text begins, and which it is; [`DEAD`] when it is none any more.
    pub(super) lines: Vec<(u32, u32)>,
    dead_bytes: usize,
}

/// In place of a text that is gone.
pub(super) const DEAD: u32 = u32::MAX;

impl Index {
    /// How many nodes are in it.
    pub(crate) fn len(&self) -> usize {
        self.documents.len()
    }

    /// Reduced names of fields and folded texts of a node, sorted; for checks.
    pub(super) fn texts_of(&self, place: Place) -> Vec<(String, String)> {
        let document = self.places.get(&place).and_then(|&row| self.documents.get(row as usize));
        let texts = document.map(|document| &*document.texts).unwrap_or_default().iter();
        let mut texts: Vec<(String, String)> = texts
            .filter_map(|id| {
                let column = &self.columns[id.column()];
                let text = column.texts.get(id.row())?;
                let field = self.fields.get(text.field as usize).map_or_else(String::new, |name| name.reduced.to_string());
                Some((field, column.blocks.get(text.block as usize)?.text(text.start, text.length).to_owned()))
            })
            .collect();
        texts.sort();
        texts.dedup();
        texts
    }

    /// The node looks like this now; `None` when it is gone.
    pub(crate) fn put(&mut self, place: Place, node: Option<&NodeSummary>) {
        let known = self.places.get(&place).copied();
        let Some(node) = node else {
            known.into_iter().for_each(|document| self.remove(place, document));
            return;
        };
        let document = known.unwrap_or_else(|| {
            let ordinal = self.next_ordinal;
            self.next_ordinal += 1;
            let row = self.documents.insert(Document { place, ordinal, texts: Box::default() });
            let row = u32::try_from(row).expect("the limits of the map keep nodes far below four thousand million");
            self.places.insert(place, row);
            row
        });
        let mut texts = Vec::with_capacity(16);
        let mut folded = String::new();
        // The map's own nodes have no tables with columns: names are all that is asked for.
        each_field(node, |Field { name, text, class, .. }| {
            folded.clear();
            fold_into(text, &mut folded);
            if folded.is_empty() {
                return;
            }
            let field = self.field(name);
            texts.push(self.columns[class as usize].put(class, field, &folded, document));
        });
        texts.sort_unstable();
        texts.dedup();
        let old = std::mem::replace(&mut self.documents[document as usize].texts, texts.into());
        let new = &self.documents[document as usize].texts;
        for text in old.iter().filter(|text| new.binary_search(text).is_err()) {
            self.columns[text.column()].take(text.row(), document);
        }
    }

    fn remove(&mut self, place: Place, document: u32) {
        self.places.remove(&place);
        let Some(row) = self.documents.try_remove(document as usize) else { return };
        for text in &row.texts {
            self.columns[text.column()].take(text.row(), document);
        }
    }

    fn field(&mut self, name: &str) -> u32 {
        if let Some(&field) = self.field_ids.get(name) {
            return field;
        }
        let field = u32::try_from(self.fields.len()).unwrap_or(u32::MAX);
        if self.fields.len() >= FIELDS_MAX {
            return field;
        }
        self.fields.push(FieldName { reduced: reduce(name).into() });
        self.field_ids.insert(name.into(), field);
        field
    }
}

impl Column {
    fn put(&mut self, class: Class, field: u32, folded: &str, node: u32) -> TextId {
        let hash = hash(field, folded);
        if let Some(&row) = self.known.get(&hash) {
            let text = &mut self.texts[row as usize];
            // Two texts with one hash: the second one is not shared.
            if text.field == field && self.blocks[text.block as usize].text(text.start, text.length) == folded {
                text.nodes.insert(node);
                return TextId::new(class, row as usize);
            }
        }
        let block = self.roomy_block(folded.len() + 1);
        let lines = &mut self.blocks[block as usize];
        let start = u32::try_from(lines.bytes.len()).expect("a block is small");
        let length = u32::try_from(folded.len()).expect("texts are cut");
        let row = self.texts.insert(Text { block, start, length, field, hash, nodes: Nodes::One(node) });
        let id = TextId::new(class, row);
        let number = u32::try_from(row).expect("checked with the id");
        lines.bytes.push_str(folded);
        lines.bytes.push('\n');
        lines.lines.push((start, number));
        if !self.known.contains_key(&hash) {
            self.known.insert(hash, number);
        }
        id
    }

    fn roomy_block(&mut self, length: usize) -> u32 {
        let has_room = |block: &Block| block.bytes.is_empty() || block.bytes.len() + length <= BLOCK_BYTES;
        while let Some(&block) = self.roomy.last() {
            if has_room(&self.blocks[block as usize]) {
                return block;
            }
            self.roomy.pop();
        }
        let block = u32::try_from(self.blocks.len()).expect("the limits of the map keep texts small");
        self.blocks.push(Block::default());
        self.roomy.push(block);
        block
    }

    fn take(&mut self, row: usize, node: u32) {
        let Some(text) = self.texts.get_mut(row) else { return };
        if !text.nodes.remove(node) {
            return;
        }
        let text = self.texts.remove(row);
        if self.known.get(&text.hash).is_some_and(|&known| known as usize == row) {
            self.known.remove(&text.hash);
        }
        let block = &mut self.blocks[text.block as usize];
        if let Ok(line) = block.lines.binary_search_by_key(&text.start, |(start, _)| *start) {
            block.lines[line].1 = DEAD;
        }
        block.dead_bytes += text.length as usize + 1;
        if block.dead_bytes * 2 > block.bytes.len() {
            self.write_anew(text.block);
        }
    }

    /// Leaves out what is dead.
    fn write_anew(&mut self, number: u32) {
        let old = std::mem::take(&mut self.blocks[number as usize]);
        let block = &mut self.blocks[number as usize];
        for (_, row) in old.lines.into_iter().filter(|(_, row)| *row != DEAD) {
            let text = &mut self.texts[row as usize];
            let start = u32::try_from(block.bytes.len()).expect("a block is small");
            block.bytes.push_str(old.bytes.get(text.start as usize..(text.start + text.length) as usize).unwrap_or_default());
            block.bytes.push('\n');
            block.lines.push((start, row));
            text.start = start;
        }
        if !self.roomy.contains(&number) {
            // In front: the newest block is filled first.
            self.roomy.insert(0, number);
        }
    }
}

impl Block {
    pub(super) fn text(&self, start: u32, length: u32) -> &str {
        self.bytes.get(start as usize..(start + length) as usize).unwrap_or_default()
    }

    /// Each line with its text.
    pub(super) fn line(&self, number: usize) -> Option<(&str, u32)> {
        let &(start, text) = self.lines.get(number)?;
        let end = self.lines.get(number + 1).map_or(self.bytes.len(), |(next, _)| *next as usize);
        Some((self.bytes.get(start as usize..end - 1)?, text))
    }

    /// Number of the line that a byte is on.
    pub(super) fn line_at(&self, byte: usize) -> usize {
        self.lines.partition_point(|(start, _)| *start as usize <= byte).saturating_sub(1)
    }
}

fn hash(field: u32, text: &str) -> u64 {
    // Seedless, so that a run is repeatable; texts that collide are kept apart all the same.
    #[expect(deprecated, reason = "the only seedless hasher of the standard library")]
    let mut hasher = std::hash::SipHasher::new();
    (field, text).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{HostIndex, Index as _};
    use crate::node::Shape;

    #[test]
    fn what_is_gone_leaves_no_bytes_behind() {
        let mut index = Index::default();
        let place = |number: usize| Place { view: 0, entity: Entity::Host(HostIndex::from_row(number)) };
        let node = |number: usize, round: usize| {
            let mut node = crate::node::NodeSummary::blank(format!("node-{number}").as_str().into(), Shape::Circle);
            node.label = format!("{} in round {round} of {number}", "x".repeat(100)).into();
            node.label_minor = "the same for all".into();
            node
        };
        let bytes = |index: &Index| index.columns.iter().flat_map(|column| &column.blocks).map(|block| block.bytes.len()).sum::<usize>();
        (0..2_000).for_each(|number| index.put(place(number), Some(&node(number, 0))));
        let once = bytes(&index);
        for round in 1..20 {
            (0..2_000).for_each(|number| index.put(place(number), Some(&node(number, round))));
        }
        assert!(bytes(&index) < once * 3, "{} after {once}", bytes(&index));
        assert_eq!(index.columns[Class::LabelMinor as usize].texts.len(), 1);
        (0..2_000).for_each(|number| index.put(place(number), None));
        assert_eq!((bytes(&index), index.len()), (0, 0));
        assert!(index.columns.iter().all(|column| column.texts.is_empty() && column.known.is_empty()));
    }
}
