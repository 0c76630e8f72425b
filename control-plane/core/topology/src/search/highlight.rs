//! Where in a node's texts a query was found, for people to see.

use super::fields::{Field, each_field};
use super::fold::{fold_with_places, reduce};
use super::patience::{Patience, SearchTooLong};
use super::pattern::Pattern;
use super::term::Term;
use super::{Expression, Query};
use crate::node::NodeSummary;

/// Fields of one node that are shown.
const MATCHES_MAX: usize = 16;
/// Places in one field that are shown.
const RANGES_MAX: usize = 16;
/// Characters of a field that are shown.
const EXCERPT_MAX: usize = 512;
/// Of them, those before the first place.
const LEAD: usize = 64;

/// A field in which a query was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Its name: `label`, `id`, `labelMinor`, the label of a row, or the view of a parent.
    pub field: String,
    /// Its text, or 512 characters of it around the first place.
    pub text: String,
    /// Characters left out before `text`.
    pub skipped: u32,
    /// First character of each place in `text`, and the first one after it. Empty for a comparison.
    pub ranges: Vec<(u32, u32)>,
}

impl Query {
    /// Where a node answers this query, best first. What is only said by `NOT` is nowhere.
    pub fn matches(&self, node: &NodeSummary) -> Vec<Match> {
        self.matches_within(node, Patience::ENDLESS).unwrap_or_default()
    }

    pub(super) fn matches_within(&self, node: &NodeSummary, patience: Patience<'_>) -> Result<Vec<Match>, SearchTooLong> {
        let mut matches: Vec<Match> = Vec::new();
        self.expression.each_term(&mut |term| match term {
            Term::Text { field, pattern } => look(node, field.as_ref(), pattern, patience, &mut matches),
            Term::Comparison(_) => {
                for name in term.find(node).into_iter().flat_map(|found| found.fields) {
                    let metric = node.metrics.iter().find(|row| row.label == name).map(|row| row.value.to_string());
                    let row = || node.metadata.iter().find(|row| row.label == name).map(|row| row.value.to_string());
                    let text = metric.or_else(row).unwrap_or_default();
                    matches.push(Match { field: name, text, skipped: 0, ranges: Vec::new() });
                }
            }
        });
        patience.check()?;
        // Terms come one after the other, and may be found in the same field.
        let mut merged: Vec<Match> = Vec::new();
        for found in matches {
            match merged.iter_mut().find(|it| it.field == found.field && it.text == found.text && it.skipped == found.skipped) {
                Some(known) => {
                    known.ranges.extend(found.ranges);
                    known.ranges.sort_unstable();
                    known.ranges.dedup();
                }
                None => merged.push(found),
            }
        }
        merged.truncate(MATCHES_MAX);
        Ok(merged)
    }
}

impl Expression {
    /// Every term that is not negated.
    pub(super) fn each_term(&self, look: &mut dyn FnMut(&Term)) {
        match self {
            Expression::Term(term) => look(term),
            Expression::All(parts) | Expression::Any(parts) => parts.iter().for_each(|part| part.each_term(look)),
            Expression::Not(_) => {}
        }
    }
}

fn look(node: &NodeSummary, prefix: Option<&Pattern>, pattern: &Pattern, patience: Patience<'_>, out: &mut Vec<Match>) {
    each_field(node, |Field { name, text, is_cell, .. }| {
        if out.len() >= MATCHES_MAX || patience.is_over() || prefix.is_some_and(|prefix| !is_cell && prefix.fit(&reduce(name)).is_none()) {
            return;
        }
        let (folded, places) = fold_with_places(text);
        let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let place = |byte: usize| places.get(byte).copied().unwrap_or(length);
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        let mut from = 0;
        while ranges.len() < RANGES_MAX
            && let Some(range) = pattern.find_at(&folded, from)
        {
            // A letter that became several is found whole.
            let end = if range.is_empty() { place(range.start) } else { place(range.end - 1) + 1 };
            ranges.push((place(range.start), end));
            from = if range.is_empty() {
                (range.end + 1..).find(|&at| folded.is_char_boundary(at)).unwrap_or(range.end + 1)
            } else {
                range.end
            };
            if from > folded.len() {
                break;
            }
        }
        let Some(&(first, _)) = ranges.first() else { return };
        ranges.retain(|(from, to)| from < to);
        out.push(excerpt(name, text, length as usize, first as usize, ranges));
    });
}

fn excerpt(name: &str, text: &str, length: usize, first: usize, ranges: Vec<(u32, u32)>) -> Match {
    let skipped = if length <= EXCERPT_MAX { 0 } else { first.saturating_sub(LEAD).min(length - EXCERPT_MAX) };
    let text: String = text.chars().skip(skipped).take(EXCERPT_MAX).collect();
    let skipped = u32::try_from(skipped).unwrap_or(u32::MAX);
    let end = u32::try_from(EXCERPT_MAX.min(length)).unwrap_or(u32::MAX);
    let shown = ranges.into_iter().map(|(from, to)| (from - skipped.min(from), to.saturating_sub(skipped).min(end)));
    Match { field: name.to_owned(), text, skipped, ranges: shown.filter(|(from, to)| from < to).collect() }
}
