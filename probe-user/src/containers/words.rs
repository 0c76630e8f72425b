//! The texts of runtimes as they may be told: cut, without control characters, and without secrets. Whoever may start a container chooses its
//! name, labels and variables, so their number and length are bounded here. Pure.

use std::collections::HashMap;

use crate::mask::Masks;
use crate::procfs::COMMAND_LINE_MAX;
use crate::procfs::parse::{cut, printable};

/// Longest name.
const NAME_MAX: usize = 1_024;

/// Longest value of a label or of a variable.
const VALUE_MAX: usize = 1_024;

/// Most labels and variables of one container.
const VALUES_MAX: usize = 256;

/// Most bytes of all labels, and of all variables, of one container.
const VALUES_BYTES_MAX: usize = 32 * 1_024;

/// Longest id.
const ID_MAX: usize = 128;

/// Labels that the map is drawn with: they come before all others.
const FIRST_LABELS: &str = "io.kubernetes.";

/// An id as it may be told; `None` for what is none.
pub fn id(text: &str) -> Option<String> {
    ((1..=ID_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
}

/// A name.
pub fn name(text: &str) -> String {
    limited(text, NAME_MAX)
}

/// A command line.
pub fn command<'a>(masks: &Masks, arguments: impl IntoIterator<Item = &'a str>) -> String {
    let mut left = COMMAND_LINE_MAX;
    let arguments = arguments.into_iter().map_while(|argument| {
        let argument = prefix(argument, left);
        left = left.saturating_sub(argument.len() + 1);
        (left > 0 || !argument.is_empty()).then_some(argument)
    });
    limited(&masks.command_line(arguments), COMMAND_LINE_MAX)
}

/// Labels.
pub fn labels(masks: &Masks, labels: impl IntoIterator<Item = (String, String)>) -> HashMap<String, String> {
    let mut labels: Vec<(String, String)> = labels.into_iter().collect();
    // Which are kept does not depend on the order in which a runtime has them.
    labels.sort_unstable_by(|(a, _), (b, _)| (!a.starts_with(FIRST_LABELS), a).cmp(&(!b.starts_with(FIRST_LABELS), b)));
    bounded(labels.iter().map(|(key, value)| (limited(key, VALUE_MAX), limited(&masks.label(key, prefix(value, VALUE_MAX)), VALUE_MAX))))
}

/// Variables, each `NAME=value`.
pub fn environment<'a>(masks: &Masks, variables: impl IntoIterator<Item = &'a str>) -> HashMap<String, String> {
    bounded(variables.into_iter().map(|variable| {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        (limited(name, VALUE_MAX), limited(&masks.variable(prefix(name, VALUE_MAX), prefix(value, VALUE_MAX)), VALUE_MAX))
    }))
}

/// Nanoseconds since 1970 of a time that may be before it, which stands for never.
pub fn nanos(unix_nanos: i64) -> u64 {
    u64::try_from(unix_nanos).unwrap_or(0)
}

/// `2299…` of `sha256:2299…`.
pub fn without_algorithm(id: &str) -> &str {
    id.rsplit_once(':').map_or(id, |(_, id)| id)
}

fn bounded(values: impl Iterator<Item = (String, String)>) -> HashMap<String, String> {
    let mut bytes = 0;
    let fits = |(name, value): &(String, String)| {
        bytes += name.len() + value.len();
        bytes <= VALUES_BYTES_MAX
    };
    values.take(VALUES_MAX).take_while(fits).collect()
}

fn limited(text: &str, max: usize) -> String {
    cut(printable(prefix(text, max).as_bytes()), max)
}

/// At most `max` bytes, so that no work is done for what is cut off anyway.
fn prefix(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = (0..=max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_texts_are_cut_and_cleaned() {
        let huge = "x\u{7}ä".repeat(1 << 20);
        assert!(name(&huge).len() <= NAME_MAX && !name(&huge).contains('\u{7}'));
        let masks = Masks::default();
        let many = (0..100_000)
            .map(|it| (format!("key{it}\n"), huge[..4_000].to_owned()))
            .chain([("io.kubernetes.pod.name".to_owned(), "web".to_owned())]);
        let labels = labels(&masks, many);
        assert_eq!(labels.get("io.kubernetes.pod.name").map(String::as_str), Some("web"));
        assert!(labels.len() <= VALUES_MAX && labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() <= VALUES_BYTES_MAX);
        assert!(labels.iter().all(|(key, value)| !key.contains('\n') && !value.contains('\u{7}')));
        let variables: Vec<String> = (0..100_000).map(|it| format!("V{it}={huge:.5}")).collect();
        assert!(environment(&masks, variables.iter().map(String::as_str)).len() <= VALUES_MAX);
        assert!(command(&masks, [huge.as_str(), &huge]).len() <= COMMAND_LINE_MAX);
        assert_eq!(command(&masks, ["sh", "", "-c", "--token=x"]), "sh  -c --token=***");
    }

    #[test]
    fn ids_are_plain() {
        assert_eq!(id("2299a2ca"), Some("2299a2ca".to_owned()));
        for text in ["", "a b", "a\n", "ä", &"a".repeat(129)] {
            assert_eq!(id(text), None, "{text:?}");
        }
    }
}
