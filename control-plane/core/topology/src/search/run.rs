//! A query asked of the index: who answers, how well, and a page of them.

use base::Timestamp;

use super::fields::Class;
use super::index::{DEAD, Index, Text};
use super::patience::{Patience, SearchTooLong};
use super::pattern::{Pattern, fit};
use super::term::{COMPARED, Comparison, Term};
use super::{Expression, Match, Query};
use crate::index::Entity;
use crate::node::{NodeId, NodeSummary, Shape};
use crate::projection::PROJECTED;
use crate::summary;
use crate::tables::Tables;
use crate::view::{Filter, View};

/// What to look for, and which page of it.
#[derive(Clone, Debug)]
pub struct SearchQuery {
    /// The words.
    pub query: Query,
    /// Only in this view; `None` for all.
    pub view: Option<View>,
    /// Only behind this hit; the `next` of the page before.
    pub after: Option<SearchCursor>,
    /// At most this many.
    pub limit: usize,
}

/// A place in the order of hits. It stays where it is while nodes come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchCursor {
    /// Score of the last hit.
    pub score: u32,
    /// Rank of its view.
    pub rank: u8,
    /// Its number among all nodes.
    pub ordinal: u64,
}

/// A page of hits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SearchPage {
    /// Best first.
    pub hits: Vec<SearchHit>,
    /// How many there are on all pages.
    pub total: u64,
    /// How many there are in each view that has any.
    pub totals: Vec<(View, u64)>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<SearchCursor>,
}

/// A node that answers a query.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchHit {
    /// In which view.
    pub view: View,
    /// Its id there.
    pub id: NodeId,
    /// First line of its label.
    pub label: std::sync::Arc<str>,
    /// Second line.
    pub label_minor: std::sync::Arc<str>,
    /// How it is drawn.
    pub shape: Shape,
    /// It stands for several things.
    pub stack: bool,
    /// It stands for something outside of what is watched.
    pub pseudo: bool,
    /// Larger fits better.
    pub score: u32,
    /// Its place in the order of hits.
    pub cursor: SearchCursor,
    /// Where it was found.
    pub matches: Vec<Match>,
}

impl SearchCursor {
    /// The place of a hit that the map does not know, among those that it does; `number` tells it from others of that view, and never changes.
    pub fn of_stranger(score: u32, view: View, number: u64) -> Self {
        SearchCursor { score, rank: rank(view), ordinal: number | 1 << 63 }
    }

    /// Sorts hits, best first.
    pub fn order(self) -> (std::cmp::Reverse<u32>, u8, u64) {
        (std::cmp::Reverse(self.score), self.rank, self.ordinal)
    }
}

fn rank(view: View) -> u8 {
    (0_u8..).zip(RANKS).find_map(|(rank, it)| (it == view).then_some(rank)).unwrap_or(u8::MAX)
}

/// Views in the order of hits that fit equally well: what there is little of comes first.
const RANKS: [View; PROJECTED.len()] = [
    View::Hosts,
    View::Services,
    View::KubeControllers,
    View::Pods,
    View::Tasks,
    View::ContainersByImage,
    View::ContainersByHostname,
    View::Containers,
    View::ProcessesByName,
    View::Processes,
];

/// A hit before it is shown, in the order of hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    score: std::cmp::Reverse<u32>,
    rank: u8,
    ordinal: u64,
    document: u32,
}

/// What a query is asked of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) index: &'a Index,
    pub(crate) tables: &'a Tables,
    pub(crate) now: Timestamp,
    pub(crate) patience: Patience<'a>,
}

/// Things looked at before it is asked whether there is still time: asking costs about as much as one.
const BETWEEN_CHECKS: usize = 256;

/// A score for each document; 0 is none.
type Scores = Vec<u32>;

impl Asked<'_> {
    /// The page that is asked for.
    pub(crate) fn search(self, search: &SearchQuery) -> Result<SearchPage, SearchTooLong> {
        let scores = self.evaluate(&search.query.expression)?;
        let ranks = PROJECTED.map(rank);
        let only = search.view.map(|view| PROJECTED.iter().position(|it| *it == view));
        let mut totals = [0_u64; PROJECTED.len()];
        let mut keys = Vec::new();
        for (row, document) in &self.index.documents {
            let (score, view) = (scores[row], usize::from(document.place.view));
            if score == 0 || only.is_some_and(|only| only != Some(view)) {
                continue;
            }
            totals[view] += 1;
            let document_row = u32::try_from(row).unwrap_or(u32::MAX);
            keys.push(Key { score: std::cmp::Reverse(score), rank: ranks[view], ordinal: document.ordinal, document: document_row });
        }
        let total = keys.len() as u64;
        if let Some(after) = search.after {
            let after = (std::cmp::Reverse(after.score), after.rank, after.ordinal);
            keys.retain(|key| (key.score, key.rank, key.ordinal) > after);
        }
        let has_more = keys.len() > search.limit;
        if has_more {
            keys.select_nth_unstable(search.limit);
            keys.truncate(search.limit);
        }
        keys.sort_unstable();
        let last = keys.last().filter(|_| has_more);
        let next = last.map(|key| SearchCursor { score: key.score.0, rank: key.rank, ordinal: key.ordinal });
        let totals = PROJECTED.into_iter().zip(totals).filter(|(_, total)| *total > 0).collect();
        let mut hits = Vec::with_capacity(keys.len());
        for key in &keys {
            hits.extend(self.show(&search.query, key)?);
        }
        Ok(SearchPage { hits, total, totals, next })
    }

    fn show(self, query: &Query, key: &Key) -> Result<Option<SearchHit>, SearchTooLong> {
        let place = self.index.documents.get(key.document as usize).map(|document| document.place);
        let view = place.and_then(|place| PROJECTED.get(usize::from(place.view)).copied());
        let node = place.and_then(|place| summary::summarize(self.tables, place.entity, Filter::NONE, self.now));
        let Some((view, node)) = view.zip(node) else { return Ok(None) };
        let matches = query.matches_within(&node, self.patience)?;
        let NodeSummary { id, label, label_minor, shape, stack, pseudo, .. } = node;
        let cursor = SearchCursor { score: key.score.0, rank: key.rank, ordinal: key.ordinal };
        Ok(Some(SearchHit { view, id, label, label_minor, shape, stack, pseudo, score: key.score.0, cursor, matches }))
    }

    fn evaluate(self, expression: &Expression) -> Result<Scores, SearchTooLong> {
        self.patience.check()?;
        match expression {
            Expression::Term(Term::Text { field, pattern }) => self.find_text(field.as_ref(), pattern),
            Expression::Term(Term::Comparison(comparison)) => self.compare(comparison),
            Expression::All(parts) => self.combine(parts, |a, b| if *a > 0 && b > 0 { *a = a.saturating_add(b) } else { *a = 0 }),
            Expression::Any(parts) => self.combine(parts, |a, b| *a = a.saturating_add(b)),
            Expression::Not(part) => {
                let inner = self.evaluate(part)?;
                let mut scores = vec![0; inner.len()];
                for (row, _) in &self.index.documents {
                    scores[row] = u32::from(inner[row] == 0);
                }
                Ok(scores)
            }
        }
    }

    fn combine(self, parts: &[Expression], with: impl Fn(&mut u32, u32)) -> Result<Scores, SearchTooLong> {
        let mut parts = parts.iter();
        let Some(first) = parts.next() else { return Ok(self.nothing()) };
        let mut scores = self.evaluate(first)?;
        for part in parts {
            let more = self.evaluate(part)?;
            scores.iter_mut().zip(more).for_each(|(score, more)| with(score, more));
        }
        Ok(scores)
    }

    fn nothing(self) -> Scores {
        // Rows are reused, so that the highest one is at most as far as there ever were nodes at once.
        vec![0; self.index.documents.iter().next_back().map_or(0, |(row, _)| row + 1)]
    }

    fn find_text(self, field: Option<&Pattern>, pattern: &Pattern) -> Result<Scores, SearchTooLong> {
        let mut scores = self.nothing();
        let fields = field.map(|field| self.fields(|name| field.fit(name).is_some())).transpose()?;
        for (class, column) in Class::ALL.into_iter().zip(&self.index.columns) {
            let mut found = |text: &Text, fit: u32| {
                if fields.as_ref().is_none_or(|fields| fields.get(text.field as usize).copied().unwrap_or(false)) {
                    let score = class.weight() * fit;
                    text.nodes.for_each(|node| {
                        let known = &mut scores[node as usize];
                        *known = (*known).max(score);
                    });
                }
            };
            for block in &column.blocks {
                scan(block, pattern, self.patience, |row, fit| {
                    if let Some(text) = column.texts.get(row as usize) {
                        found(text, fit);
                    }
                })?;
            }
        }
        Ok(scores)
    }

    /// Which names of fields are meant.
    fn fields(self, is_meant: impl Fn(&str) -> bool) -> Result<Vec<bool>, SearchTooLong> {
        let mut fields = Vec::with_capacity(self.index.fields.len());
        for names in self.index.fields.chunks(BETWEEN_CHECKS) {
            self.patience.check()?;
            fields.extend(names.iter().map(|name| is_meant(&name.reduced)));
        }
        Ok(fields)
    }

    fn compare(self, comparison: &Comparison) -> Result<Scores, SearchTooLong> {
        let mut scores = self.nothing();
        // Metrics are read where they are kept. What has no such metric may have a row of metadata with that name.
        let mut has_metric = vec![false; scores.len()];
        for (number, (row, document)) in self.index.documents.iter().enumerate() {
            if number % BETWEEN_CHECKS == 0 {
                self.patience.check()?;
            }
            if let Some(value) = self.value(document.place.entity, &comparison.field) {
                has_metric[row] = true;
                scores[row] = if comparison.holds(value, summary::is_span(&comparison.field)) { COMPARED } else { 0 };
            }
        }
        let fields = self.fields(|name| *name == comparison.field)?;
        if !fields.contains(&true) {
            return Ok(scores);
        }
        let column = &self.index.columns[Class::Metadata as usize];
        for block in &column.blocks {
            self.patience.check()?;
            for line in 0..block.lines.len() {
                let Some((value, row)) = block.line(line).filter(|(_, row)| *row != DEAD) else { continue };
                let Some(text) = column.texts.get(row as usize) else { continue };
                if !fields.get(text.field as usize).copied().unwrap_or(false) {
                    continue;
                }
                // Spans are not among the texts.
                if value.parse().is_ok_and(|value| comparison.holds(value, false)) {
                    text.nodes.for_each(|node| {
                        if !has_metric[node as usize] {
                            scores[node as usize] = COMPARED;
                        }
                    });
                }
            }
        }
        Ok(scores)
    }

    fn value(self, entity: Entity, field: &str) -> Option<f64> {
        match entity {
            Entity::Object(_) => {
                let node = summary::summarize(self.tables, entity, Filter::NONE, self.now)?;
                node.metrics.iter().find(|row| super::fold::reduce(&row.label) == field).map(|row| row.value)
            }
            _ => summary::value_of(self.tables, entity, field, self.now),
        }
    }
}

/// Bytes that an expression is looked for in before it is asked whether there is still time. One with many states takes a microsecond and
/// more for each.
const PIECE_BYTES: usize = 1 << 10;

/// Tells every line of a block in which the pattern is, and how well it fits.
fn scan(
    block: &super::index::Block,
    pattern: &Pattern,
    patience: Patience<'_>,
    mut found: impl FnMut(u32, u32),
) -> Result<(), SearchTooLong> {
    let is_by_line = pattern.is_by_line();
    let piece = if matches!(pattern, Pattern::Literal { .. }) { usize::MAX } else { PIECE_BYTES };
    let mut line = 0;
    while let Some(&(start, _)) = block.lines.get(line) {
        patience.check()?;
        let wanted = (start as usize).saturating_add(piece);
        let end = if wanted >= block.bytes.len() { block.lines.len() } else { block.line_at(wanted).max(line + 1) };
        scan_lines(block, line..end, pattern, is_by_line, &mut found);
        line = end;
    }
    Ok(())
}

/// The same of some lines.
fn scan_lines(
    block: &super::index::Block,
    lines: std::ops::Range<usize>,
    pattern: &Pattern,
    is_by_line: bool,
    found: &mut impl FnMut(u32, u32),
) {
    /// Matches that reach over the end of their line before lines are looked at one by one: each may have cost a walk through all of them.
    const CROSSINGS_MAX: u32 = 8;

    let mut line = lines.start;
    if is_by_line {
        let end = block.lines.get(lines.end).map_or(block.bytes.len(), |(next, _)| *next as usize);
        let Some(bytes) = block.bytes.get(..end) else { return };
        let mut from = block.lines.get(line).map_or(end, |(start, _)| *start as usize);
        let mut crossings = 0;
        while crossings < CROSSINGS_MAX {
            let Some(range) = pattern.find_at(bytes, from) else { return };
            line = block.line_at(range.start);
            let Some((text, row)) = block.line(line) else { return };
            let start = block.lines[line].0 as usize;
            let matched = if range.end <= start + text.len() {
                Some(fit(&(range.start - start..range.end - start), text.len()))
            } else {
                crossings += 1;
                pattern.fit(text)
            };
            if let Some(fit) = matched.filter(|_| row != DEAD) {
                found(row, fit);
            }
            line += 1;
            if line >= lines.end {
                return;
            }
            from = block.lines[line].0 as usize;
        }
    }
    while line < lines.end
        && let Some((text, row)) = block.line(line)
    {
        if row != DEAD
            && let Some(fit) = pattern.fit(text)
        {
            found(row, fit);
        }
        line += 1;
    }
}
