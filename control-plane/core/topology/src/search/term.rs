//! One term: a text, a text in certain fields, or a comparison.

use super::Found;
use super::fields::{Field, each_field};
use super::fold::{fold_into, reduce};
use super::pattern::Pattern;
use crate::node::NodeSummary;

#[derive(Clone, Debug)]
pub(super) enum Term {
    Text { field: Option<Pattern>, pattern: Pattern },
    Comparison(Comparison),
}

/// `memory > 10mb`
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    /// Reduced name of a metric or of a row of metadata.
    pub(super) field: String,
    pub(super) operator: Operator,
    /// What a number is compared with: units are powers of 1,024.
    pub(super) number: f64,
    /// What a span of time is compared with, in seconds.
    pub(super) seconds: f64,
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

/// Score of a comparison that holds.
pub(super) const COMPARED: u32 = 10;

impl Term {
    /// Scope's rules, in their order: one colon makes a prefix, a comparison sign makes a comparison or nothing, the rest is a text. What
    /// stands in quotes is none of that, and literal.
    pub(super) fn parse(text: &str) -> Option<Term> {
        if let Some(quoted) = unquoted(text) {
            return (!quoted.is_empty()).then(|| Term::Text { field: None, pattern: Pattern::literal(quoted) });
        }
        let bare = text.find('"').map_or(text, |quote| &text[..quote]);
        let colon = bare.find(':').filter(|_| bare.len() < text.len() || text.matches(':').count() == 1);
        // An address is the name of no field: `10.0.0.5:8080` means the port there.
        let colon = colon.filter(|&colon| text[..colon].trim().parse::<std::net::Ipv4Addr>().is_err());
        if let Some(colon) = colon {
            let (field, value) = (text[..colon].trim(), text[colon + 1..].trim());
            let pattern = match unquoted(value) {
                Some(quoted) => (!quoted.is_empty()).then(|| Pattern::literal(quoted))?,
                None => (!value.is_empty()).then(|| Pattern::new(value))?,
            };
            return (!field.is_empty()).then(|| Term::Text { field: Some(name_pattern(field)), pattern });
        }
        if text.contains(['<', '=', '>']) {
            return comparison(text).map(Term::Comparison);
        }
        (!text.trim().is_empty()).then(|| Term::Text { field: None, pattern: Pattern::new(text) })
    }

    pub(super) fn find(&self, node: &NodeSummary) -> Option<Found> {
        match self {
            Term::Text { field, pattern } => find_text(node, field.as_ref(), pattern),
            Term::Comparison(comparison) => comparison.find(node),
        }
    }
}

/// What a field's name has to fit. Names are compared without what is neither letter nor digit, so a name that is written as it is, such as
/// `io.kubernetes.pod.name`, may also be meant without.
fn name_pattern(field: &str) -> Pattern {
    let is_separator = |it: char| matches!(it, '.' | '-' | '_' | '/');
    match field.contains(is_separator) && field.chars().all(|it| it.is_alphanumeric() || is_separator(it)) {
        true => Pattern::new(&format!("{field}|{}", reduce(field))),
        false => Pattern::new(field),
    }
}

/// What stands between two quotes, when nothing stands outside of them.
fn unquoted(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('"')).then_some(inner)
}

fn comparison(text: &str) -> Option<Comparison> {
    for (sign, operator) in OPERATORS {
        let parts: Vec<&str> = text.split(sign).collect();
        let [field, value] = parts[..] else { continue };
        if field.trim().is_empty() || field.ends_with(['<', '>', '!']) {
            continue;
        }
        if let Some(number) = number(value) {
            return Some(Comparison { field: reduce(field), operator, number, seconds: seconds(value).unwrap_or(number) });
        }
    }
    None
}

/// A leading number, `1e3` included, times 1024 for each step of k, m, g, t found behind it; `%` and other text is ignored.
fn number(text: &str) -> Option<f64> {
    let text = text.trim().to_lowercase();
    let mut end = text.find(|it: char| !(it.is_ascii_digit() || matches!(it, '.' | '-' | '+'))).unwrap_or(text.len());
    if let Some(exponent) = text[end..].strip_prefix('e') {
        let digits = exponent.trim_start_matches(['-', '+']);
        let length = digits.find(|it: char| !it.is_ascii_digit()).unwrap_or(digits.len());
        if length > 0 && exponent.len() - digits.len() <= 1 {
            end += 1 + exponent.len() - digits.len() + length;
        }
    }
    let number: f64 = text[..end].parse().ok()?;
    let unit = &text[end..];
    let power =
        [('k', 1), ('m', 2), ('g', 3), ('t', 4)].into_iter().find(|(letter, _)| unit.contains(*letter)).map_or(0, |(_, power)| power);
    Some(number * 1024_f64.powi(power))
}

/// Units of time, in seconds.
const SPANS: [(&[&str], f64); 5] = [
    (&["s", "sec", "secs", "second", "seconds"], 1.0),
    (&["m", "min", "mins", "minute", "minutes"], 60.0),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600.0),
    (&["d", "day", "days"], 86_400.0),
    (&["w", "week", "weeks"], 604_800.0),
];

/// `90`, `30m`, `1h30m`, `2 days`; `None` for other units.
fn seconds(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse() {
        return Some(seconds);
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let number_end = rest.find(|it: char| !(it.is_ascii_digit() || it == '.'))?;
        let (number, behind) = rest.split_at(number_end);
        let behind = behind.trim_start();
        let unit_end = behind.find(|it: char| !it.is_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let unit = unit.to_lowercase();
        let (_, seconds) = SPANS.into_iter().find(|(names, _)| names.contains(&&*unit))?;
        sum += number.parse::<f64>().ok()? * seconds;
        rest = behind.trim_start();
    }
    Some(sum)
}

impl Comparison {
    /// Whether a value is as asked for; `is_span` for a span of time in seconds.
    pub(super) fn holds(&self, value: f64, is_span: bool) -> bool {
        let limit = if is_span { self.seconds } else { self.number };
        match self.operator {
            Operator::Less => value < limit,
            Operator::LessOrEqual => value <= limit,
            Operator::Equal => value == limit,
            Operator::NotEqual => value != limit,
            Operator::GreaterOrEqual => value >= limit,
            Operator::Greater => value > limit,
        }
    }

    /// Compares the metric of that name, and else a row of metadata that holds a number.
    fn find(&self, node: &NodeSummary) -> Option<Found> {
        let metric = node.metrics.iter().find(|metric| reduce(&metric.label) == self.field);
        let metric = metric.map(|metric| (&metric.label, metric.value, false));
        let rows = || node.metadata.iter().filter(|row| reduce(&row.label) == self.field);
        let row = || rows().find_map(|row| Some((&row.label, row.value.parse().ok()?, row.data_type == "duration")));
        let (label, value, is_span) = metric.or_else(row)?;
        self.holds(value, is_span).then(|| Found { score: COMPARED, fields: vec![label.to_string()] })
    }
}

fn find_text(node: &NodeSummary, field: Option<&Pattern>, pattern: &Pattern) -> Option<Found> {
    let mut found = Found { score: 0, fields: Vec::new() };
    let mut folded = String::new();
    each_field(node, |Field { name, text, class, is_cell }| {
        if field.is_some_and(|field| !is_cell && field.fit(&reduce(name)).is_none()) {
            return;
        }
        folded.clear();
        fold_into(text, &mut folded);
        if let Some(fit) = pattern.fit(&folded) {
            found.score = found.score.max(class.weight() * fit);
            found.fields.push(name.to_owned());
        }
    });
    (!found.fields.is_empty()).then_some(found)
}
