//! One term: a text, a text in certain fields, or a comparison.

use regex::{Regex, RegexBuilder};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::Found;
use crate::node::NodeSummary;

/// A compiled expression larger than this is refused, and looked for literally.
const REGEX_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(super) enum Term {
    Text { field: Option<Pattern>, pattern: Pattern },
    Comparison { field: String, operator: Operator, number: f64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
}

/// Tried in this order: longer signs first, so that `>=` is not read as `=` with a `>` before it.
const OPERATORS: [(&str, Operator); 6] = [
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("!=", Operator::NotEqual),
    ("<", Operator::Less),
    ("=", Operator::Equal),
    (">", Operator::Greater),
];

impl Term {
    /// Scope's rules, in their order: one colon makes a prefix, a comparison sign makes a comparison or nothing, the rest is a text.
    pub(super) fn parse(text: &str) -> Option<Term> {
        let parts: Vec<&str> = text.split(':').collect();
        if let [field, value] = parts[..] {
            let (field, value) = (field.trim(), value.trim());
            if field.is_empty() || value.is_empty() {
                return None;
            }
            return Some(Term::Text { field: Some(Pattern::new(field)), pattern: Pattern::new(value) });
        }
        if text.contains(['<', '=', '>']) {
            return comparison(text);
        }
        if text.trim().is_empty() {
            return None;
        }
        Some(Term::Text { field: None, pattern: Pattern::new(text) })
    }

    pub(super) fn find(&self, node: &NodeSummary) -> Option<Found> {
        match self {
            Term::Text { field, pattern } => find_text(node, field.as_ref(), pattern),
            Term::Comparison { field, operator, number } => compare(node, field, *operator, *number),
        }
    }
}

fn comparison(text: &str) -> Option<Term> {
    for (sign, operator) in OPERATORS {
        let parts: Vec<&str> = text.split(sign).collect();
        let [field, value] = parts[..] else { continue };
        if field.trim().is_empty() || field.ends_with(['<', '>', '!']) {
            continue;
        }
        if let Some(number) = number(value) {
            return Some(Term::Comparison { field: reduce(field), operator, number });
        }
    }
    None
}

/// A leading number, times 1024 for each step of k, m, g, t found behind it; `%` and other text is ignored.
fn number(text: &str) -> Option<f64> {
    let text = text.trim().to_lowercase();
    let end = text.find(|it: char| !(it.is_ascii_digit() || matches!(it, '.' | '-' | '+'))).unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = &text[end..];
    let power =
        [('k', 1), ('m', 2), ('g', 3), ('t', 4)].into_iter().find(|(letter, _)| unit.contains(*letter)).map_or(0, |(_, power)| power);
    Some(number * 1024_f64.powi(power))
}

/// A field's name as searches compare it: letters and digits alone, in lower case.
fn reduce(name: &str) -> String {
    name.chars().filter(|it| it.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// A regular expression without regard to case, accents and compatibility forms.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    regex: Regex,
    /// The same for folded texts; `None` when it is the same expression.
    folded: Option<Regex>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        let folded: String = text.chars().flat_map(fold_letter).collect();
        Pattern { regex: compile(text), folded: (folded != text).then(|| compile(&folded)) }
    }

    /// How well a text fits: 3 the whole, 2 its beginning, 1 a part.
    fn fit(&self, text: &str) -> Option<u32> {
        let fit = |regex: &Regex, text: &str| {
            let range = regex.find(text)?.range();
            Some(match (range.start, range.end == text.len()) {
                (0, true) => 3,
                (0, false) => 2,
                _ => 1,
            })
        };
        fit(&self.regex, text).or_else(|| {
            // Most texts and queries are plain ASCII: nothing is left to fold.
            if self.folded.is_none() && text.is_ascii() {
                return None;
            }
            let folded: String = text.chars().flat_map(fold_letter).collect();
            fit(self.folded.as_ref().unwrap_or(&self.regex), &folded)
        })
    }
}

/// The expression, or the text itself where it is none.
fn compile(text: &str) -> Regex {
    let build = |pattern: &str| RegexBuilder::new(pattern).case_insensitive(true).size_limit(REGEX_BYTES_MAX).build();
    let literal = || build(&regex::escape(text));
    let nothing = || Regex::new("[^\\s\\S]").expect("a fixed expression");
    build(text).or_else(|_| literal()).unwrap_or_else(|_| nothing())
}

/// A letter without accents and in compatibility form: `é` and `e`, `Ａ` and `A` are the same. Everything else may be part of an expression.
fn fold_letter(it: char) -> impl Iterator<Item = char> {
    let letter = it.is_alphanumeric().then(|| std::iter::once(it).nfkd().filter(|part| !is_combining_mark(*part)));
    let other = (!it.is_alphanumeric() && !is_combining_mark(it)).then_some(it);
    letter.into_iter().flatten().chain(other)
}

fn find_text(node: &NodeSummary, field: Option<&Pattern>, pattern: &Pattern) -> Option<Found> {
    let mut found = Found { score: 0, fields: Vec::new() };
    let mut look = |name: &str, text: &str, weight: u32| {
        if field.is_some_and(|field| field.fit(&reduce(name)).is_none()) {
            return;
        }
        if let Some(fit) = pattern.fit(text) {
            found.score = found.score.max(weight * fit);
            found.fields.push(name.to_owned());
        }
    };
    look("label", &node.label, 1_000);
    look("id", node.id.as_str(), 100);
    look("labelMinor", &node.label_minor, 100);
    node.metadata.iter().for_each(|row| look(&row.label, &row.value, 10));
    node.parents.iter().for_each(|parent| look(parent.topology_id, &parent.label, 5));
    node.tables.iter().flat_map(|table| &table.rows).for_each(|(label, value)| look(label, value, 3));
    (!found.fields.is_empty()).then_some(found)
}

/// Compares the metric of that name, and else a metadata row that holds a number.
fn compare(node: &NodeSummary, field: &str, operator: Operator, number: f64) -> Option<Found> {
    let metric = node.metrics.iter().find(|metric| reduce(&metric.label) == field).map(|metric| (metric.label.clone(), metric.value));
    let mut rows = node.metadata.iter().filter(|row| reduce(&row.label) == field);
    let row = || rows.find_map(|row| Some((row.label.clone(), row.value.parse().ok()?)));
    let (label, value) = metric.or_else(row)?;
    let holds = match operator {
        Operator::Less => value < number,
        Operator::LessOrEqual => value <= number,
        Operator::Equal => value == number,
        Operator::NotEqual => value != number,
        Operator::GreaterOrEqual => value >= number,
        Operator::Greater => value > number,
    };
    holds.then(|| Found { score: 10, fields: vec![label.into_owned()] })
}
