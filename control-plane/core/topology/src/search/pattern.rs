//! What a text is compared with: a literal or a regular expression, over folded texts.

use std::ops::Range;
use std::sync::Arc;

use memchr::memmem::Finder;
use regex::{Regex, RegexBuilder};

use super::fold::{fold, fold_source};

/// A compiled expression larger than this is refused, and looked for literally.
const REGEX_BYTES_MAX: usize = 1 << 20;
const SPECIAL: &[char] = &['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$'];

/// A pattern. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// Exactly this.
    Literal { finder: Arc<Finder<'static>>, length: usize },
    /// What this describes.
    Expression {
        regex: Regex,
        /// Whether it may be looked for in many texts at once, one on each line.
        by_line: bool,
    },
}

impl Pattern {
    /// Scope's rule: a regular expression without regard to case, and literal where it does not compile.
    pub(super) fn new(text: &str) -> Self {
        if !text.contains(SPECIAL) {
            return Self::literal(text);
        }
        let source = fold_source(text);
        // Texts are in lower case. An expression that is, too, is found many times faster than one without regard to case.
        let has_classes = source.contains('[') && source.contains(char::is_uppercase);
        let lower = (!source.contains('\\') && !source.contains("(?") && !has_classes).then(|| build(&source.to_lowercase(), false));
        let regex = lower.and_then(Result::ok).or_else(|| build(&source, true).ok());
        let by_line = !source.contains("(?") && !source.contains("\\A") && !source.contains("\\z");
        regex.map_or_else(|| Self::literal(text), |regex| Pattern::Expression { regex, by_line })
    }

    /// Exactly this text.
    pub(super) fn literal(text: &str) -> Self {
        let folded = fold(text);
        Pattern::Literal { finder: Arc::new(Finder::new(folded.as_bytes()).into_owned()), length: folded.len() }
    }

    /// Where it is in a folded text, behind `from`.
    pub(super) fn find_at(&self, folded: &str, from: usize) -> Option<Range<usize>> {
        match self {
            Pattern::Literal { finder, length } => finder.find(folded.as_bytes().get(from..)?).map(|at| from + at..from + at + length),
            Pattern::Expression { regex, .. } => regex.find_at(folded, from.min(folded.len())).map(|found| found.range()),
        }
    }

    /// How well a folded text fits: 3 the whole, 2 its beginning, 1 a part.
    pub(super) fn fit(&self, folded: &str) -> Option<u32> {
        self.find_at(folded, 0).map(|range| fit(&range, folded.len()))
    }

    /// Whether it may be looked for in several texts with line breaks between them.
    pub(super) fn is_by_line(&self) -> bool {
        match self {
            // Folded texts hold no line break.
            Pattern::Literal { .. } => true,
            Pattern::Expression { regex, by_line } => *by_line && !regex.is_match(""),
        }
    }
}

/// How well a match fits a text of `length` bytes.
pub(super) fn fit(range: &Range<usize>, length: usize) -> u32 {
    match (range.start, range.end == length) {
        (0, true) => 3,
        (0, false) => 2,
        _ => 1,
    }
}

fn build(source: &str, any_case: bool) -> Result<Regex, regex::Error> {
    // Texts hold no line breaks, so that `^` and `$` of lines are those of texts.
    RegexBuilder::new(source).case_insensitive(any_case).multi_line(true).size_limit(REGEX_BYTES_MAX).build()
}
