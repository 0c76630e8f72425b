//! The index follows the map.

use base::Timestamp;

use super::fields::each_field;
use super::fold::{fold, reduce};
use super::index::{Index, Place};
use super::patience::{Patience, SearchTooLong};
use super::run::{Asked, SearchPage, SearchQuery};
use crate::index::Entity;
use crate::summary;
use crate::topology::Topology;
use crate::view::Filter;

/// Nodes whose texts may have changed before the index is mended outside of a search: a search has at most so many to do itself.
const BEHIND_MAX: usize = 1_024;

impl Topology {
    pub(crate) fn make_index(&mut self, now: Timestamp) {
        if self.search_index.is_some() {
            return;
        }
        self.search_index = Some(Index::default());
        for place in 0..self.projections.len() {
            self.projections[place].set_indexed();
            let all: Vec<Entity> = self.projections[place].entities().collect();
            self.reword(now, place, all);
        }
    }

    pub(crate) fn search_now(&mut self, now: Timestamp, search: &SearchQuery, patience: Patience<'_>) -> Result<SearchPage, SearchTooLong> {
        self.make_index(now);
        self.mend_index(now);
        let Some(index) = &self.search_index else { return Ok(SearchPage::default()) };
        Asked { index, tables: &self.tables, now, patience }.search(search)
    }

    pub(crate) fn mend_index_if_far_behind(&mut self, now: Timestamp) {
        if self.projections.iter().map(|projection| projection.reworded_count()).sum::<usize>() >= BEHIND_MAX {
            self.mend_index(now);
        }
    }

    fn mend_index(&mut self, now: Timestamp) {
        for place in 0..self.projections.len() {
            let reworded = self.projections[place].take_reworded();
            self.reword(now, place, reworded);
        }
    }

    fn reword(&mut self, now: Timestamp, place: usize, entities: impl IntoIterator<Item = Entity>) {
        let Some(index) = &mut self.search_index else { return };
        let (projection, view) = (&self.projections[place], u8::try_from(place).unwrap_or(u8::MAX));
        for entity in entities {
            let node = projection.is_shown(entity).then(|| summary::summarize(&self.tables, entity, Filter::NONE, now)).flatten();
            index.put(Place { view, entity }, node.as_ref());
        }
    }

    /// The index has the nodes that there are, with the texts that they have.
    pub(crate) fn check_index(&self) -> Result<(), String> {
        let Some(index) = &self.search_index else { return Ok(()) };
        if self.projections.iter().any(|projection| projection.reworded_count() > 0) {
            return Ok(());
        }
        let mut count = 0;
        for (place, projection) in self.projections.iter().enumerate() {
            for entity in projection.entities() {
                let node =
                    projection.is_shown(entity).then(|| summary::summarize(&self.tables, entity, Filter::NONE, Timestamp::EPOCH)).flatten();
                let Some(node) = node else { continue };
                count += 1;
                let texts = index.texts_of(Place { view: u8::try_from(place).unwrap_or(u8::MAX), entity });
                let mut expected: Vec<(String, String)> = Vec::new();
                each_field(&node, |it| expected.push((reduce(it.name), fold(it.text))));
                expected.sort();
                expected.dedup();
                if texts != expected {
                    return Err(format!("the index has {texts:?} of {} and should have {expected:?}", node.id));
                }
            }
        }
        if index.len() == count { Ok(()) } else { Err(format!("the index has {} nodes and should have {count}", index.len())) }
    }
}
