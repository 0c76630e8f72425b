//! Secrets in what is told of processes and containers: environment variables, labels and command lines. Pure.
//!
//! A secret is known by its name, never by its look: a variable `DB_PASSWORD`, an option `--token`, a header `Authorization:`, the password
//! between a user's name and the host of an address. A name that ends in "file", "path" or "dir" says where a secret is, and is told.
//!
//! [`names`] knows the names, [`text`] finds them before `=` and `:` and in addresses, [`line`] reads command lines, and those that stand inside
//! of an argument, such as a script of `sh -c`; [`programs`] has those that take secrets in ways of their own.

use std::borrow::Cow;
use std::ops::Range;

use regex::{Regex, RegexBuilder};

use line::Line;

mod line;
mod names;
mod programs;
mod text;

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Most patterns that may be configured, and the largest compiled size of one, in bytes.
const PATTERNS_MAX: usize = 64;
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// Which names hide their values.
#[derive(Clone, Debug)]
pub struct Masks {
    /// Whether the well-known words do.
    well_known: bool,
    patterns: Vec<Regex>,
}

impl PartialEq for Masks {
    fn eq(&self, other: &Self) -> bool {
        self.well_known == other.well_known && self.patterns.iter().map(Regex::as_str).eq(other.patterns.iter().map(Regex::as_str))
    }
}

impl Default for Masks {
    /// The well-known words alone.
    fn default() -> Self {
        Masks { well_known: true, patterns: Vec::new() }
    }
}

impl Masks {
    /// Masks of the well-known words and of names that match one of `patterns`, whatever their case. The pattern `none` takes the well-known
    /// words away.
    ///
    /// # Errors
    /// A pattern that is no regular expression, or too large, and what is wrong with it.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut masks = Masks::default();
        for pattern in patterns.into_iter().filter(|it| !it.is_empty()) {
            if pattern == "none" {
                masks.well_known = false;
                continue;
            }
            if masks.patterns.len() >= PATTERNS_MAX {
                return Err(format!("more than {PATTERNS_MAX} patterns"));
            }
            let compiled = RegexBuilder::new(pattern).case_insensitive(true).size_limit(PATTERN_BYTES_MAX).build();
            masks
                .patterns
                .push(compiled.map_err(|error| format!("{pattern:?}: {}", error.to_string().lines().last().unwrap_or_default()))?);
        }
        Ok(masks)
    }

    /// A variable's value as it may be told.
    pub fn variable<'a>(&self, name: &str, value: &'a str) -> Cow<'a, str> {
        if self.hides_variable(name) { Cow::Borrowed(MASK) } else { self.text(value) }
    }

    /// A label's value as it may be told.
    pub fn label<'a>(&self, name: &str, value: &'a str) -> Cow<'a, str> {
        if self.hides_option(name) { Cow::Borrowed(MASK) } else { self.text(value) }
    }

    /// A command line as it may be told, arguments joined by blanks.
    pub fn command_line<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let mut line = String::new();
        for (position, told) in self.arguments(arguments).enumerate() {
            if position > 0 {
                line.push(' ');
            }
            line.push_str(&told);
        }
        line
    }

    /// The arguments of a command line as they may be told; the first is the program, empty where that is not known.
    pub fn arguments<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = Cow<'a, str>> {
        let mut line: Option<Line<'a>> = None;
        arguments.into_iter().map(move |argument| match &mut line {
            _ if self.hides_nothing() => Cow::Borrowed(argument),
            None => {
                line = Some(Line::of(argument));
                self.text(argument)
            }
            Some(line) => {
                let mut hidden = Hidden::default();
                line.argument(self, argument, &mut hidden);
                hidden.cut_out_of(argument)
            }
        })
    }

    /// A text in which secrets may stand behind their names: `password=x`, `token: x`, in an address, `redis://:x@host`, or in a command line,
    /// `app --password x`.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        // Most texts have neither.
        if self.hides_nothing() || !text.contains(|it: char| matches!(it, '=' | ':') || it.is_whitespace()) {
            return Cow::Borrowed(text);
        }
        let mut hidden = Hidden::default();
        text::hide(self, text, &mut hidden);
        line::hide(self, text, &mut hidden);
        hidden.cut_out_of(text)
    }

    fn hides_nothing(&self) -> bool {
        !self.well_known && self.patterns.is_empty()
    }

    fn hides_variable(&self, name: &str) -> bool {
        self.matches(name) || self.well_known && names::hides_variable(name)
    }

    fn hides_option(&self, name: &str) -> bool {
        self.matches(name) || self.well_known && names::hides_option(name)
    }

    /// Whether the value behind the name and a `=` is a secret: the name of a variable is one in capital letters.
    fn hides_assigned(&self, name: &str) -> bool {
        if names::is_variable(name) { self.hides_variable(name) } else { self.hides_option(name) }
    }

    fn matches(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.is_match(name))
    }
}

/// Where the secrets are in a text, in bytes; found in any order, and more than once.
#[derive(Debug, Default)]
struct Hidden {
    ranges: Vec<Range<usize>>,
    /// Where the text that is looked at begins in the whole.
    base: usize,
}

impl Hidden {
    fn add(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.ranges.push(range.start + self.base..range.end + self.base);
        }
    }

    /// Looks at what begins at `begin` of what is looked at now.
    fn within(&mut self, begin: usize, look: impl FnOnce(&mut Hidden)) {
        self.base += begin;
        look(self);
        self.base -= begin;
    }

    fn cut_out_of(mut self, text: &str) -> Cow<'_, str> {
        if self.ranges.is_empty() {
            return Cow::Borrowed(text);
        }
        self.ranges.sort_unstable_by_key(|range| (range.start, range.end));
        let mut out = String::with_capacity(text.len());
        let mut copied = 0;
        for (position, range) in self.ranges.into_iter().enumerate() {
            // Of one that overlaps with the one before, or follows at once, only more is hidden.
            if position == 0 || range.start > copied {
                out.push_str(&text[copied..range.start]);
                out.push_str(MASK);
            }
            copied = copied.max(range.end);
        }
        out.push_str(&text[copied..]);
        Cow::Owned(out)
    }
}

#[cfg(test)]
mod tests;
