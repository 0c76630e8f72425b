//! Searching nodes: the language of Scope's search box, and what its users missed in it.
//!
//! A query without operators means exactly what it meant in Scope: `field: expression` looks into fields whose reduced name matches,
//! `metric > number` compares, everything else is a regular expression over all texts of a node, taken literally when it does not compile.
//! With the words `AND`, `OR` and `NOT` in capitals, parentheses between them, and quotes around what is meant literally, such terms are
//! combined. Regular expressions are those of the `regex` crate, which takes time in proportion to the text: look-around and
//! back-references do not exist in it.
//!
//! A query is asked in two ways: of one node ([`Query::find`]), as filters of views do, or of all nodes of all views at once, through an
//! index that is kept up to date ([`index`]).

use crate::node::NodeSummary;

pub(crate) mod fields;
mod fold;
mod highlight;
pub(crate) mod index;
mod keep;
mod parse;
pub(crate) mod patience;
mod pattern;
pub(crate) mod run;
mod term;

pub use highlight::Match;
pub use patience::SearchTooLong;
pub use run::{SearchCursor, SearchHit, SearchPage, SearchQuery};

use term::Term;

/// Longest query that is read, in bytes.
pub(crate) const QUERY_BYTES_MAX: usize = 4_096;

/// What to look for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Query {
    expression: std::sync::Arc<Expression>,
}

/// Why a text is no query. Places are characters, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// Nothing to look for, e.g. `pid:` or blanks.
    Empty {
        /// Where.
        at: usize,
    },
    /// Longer than 4,096 bytes.
    TooLong,
    /// Operators without operands, or parentheses that do not match.
    Incomplete {
        /// Where an operand or a parenthesis should be, or should not.
        at: usize,
    },
    /// A quote without a partner.
    Unclosed {
        /// Where it is.
        at: usize,
    },
    /// A regular expression that asks for what a group has found, which takes more time than there is.
    BackReference {
        /// Where its term begins.
        at: usize,
    },
    /// A regular expression that looks ahead or behind, which takes more time than there is.
    LookAround {
        /// Where its term begins.
        at: usize,
    },
    /// More terms or deeper parentheses than are read.
    TooComplex {
        /// Where it becomes too much.
        at: usize,
    },
}

impl std::fmt::Display for QueryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            QueryError::Empty { at } => write!(f, "there is nothing to look for in the query at character {at}"),
            QueryError::TooLong => f.write_str("the query is longer than 4096 bytes"),
            QueryError::Incomplete { at } => {
                write!(f, "an operator of the query has no operand, or a parenthesis has no partner, at character {at}")
            }
            QueryError::Unclosed { at } => write!(f, "the quote at character {at} of the query has no partner"),
            QueryError::BackReference { at } => {
                write!(f, "a back-reference such as \\1, in the term at character {at} of the query, is not supported")
            }
            QueryError::LookAround { at } => {
                write!(f, "look-around such as (?=x) or (?<!x), in the term at character {at} of the query, is not supported")
            }
            QueryError::TooComplex { at } => {
                write!(f, "the query has more than 64 terms, or is nested deeper than 16, at character {at}")
            }
        }
    }
}

impl std::error::Error for QueryError {}

/// That a node was found, and how well it fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Larger fits better: a whole label before a part of one, a label before other texts.
    pub score: u32,
    /// Names of the fields that matched, e.g. `label`, `Command`, `hosts`; sorted.
    pub fields: Vec<String>,
}

#[derive(Clone, Debug)]
enum Expression {
    Term(Term),
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// When it cannot be one. A regular expression that does not compile is no error: it is looked for literally, as in Scope. But look-around
    /// and back-references, which browsers understand, are refused: who writes it means something else than these letters.
    pub fn parse(text: &str) -> Result<Query, QueryError> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(QueryError::TooLong);
        }
        parse::parse(text).map(|expression| Query { expression: expression.into() })
    }

    /// Several queries as one that holds where each of them does; `None` when there is none.
    pub fn all(queries: impl IntoIterator<Item = Query>) -> Option<Query> {
        let mut parts: Vec<Expression> = queries.into_iter().map(|query| std::sync::Arc::unwrap_or_clone(query.expression)).collect();
        let expression = if parts.len() > 1 { Expression::All(parts) } else { parts.pop()? };
        Some(Query { expression: expression.into() })
    }

    /// Looks at a node.
    pub fn find(&self, node: &NodeSummary) -> Option<Found> {
        let mut found = self.expression.find(node)?;
        found.fields.sort();
        found.fields.dedup();
        Some(found)
    }
}

impl Expression {
    fn find(&self, node: &NodeSummary) -> Option<Found> {
        match self {
            Expression::Term(term) => term.find(node),
            Expression::All(parts) => {
                let mut all = Found { score: 0, fields: Vec::new() };
                for part in parts {
                    all.add(part.find(node)?);
                }
                Some(all)
            }
            Expression::Any(parts) => {
                let mut any: Option<Found> = None;
                for found in parts.iter().filter_map(|part| part.find(node)) {
                    any.get_or_insert(Found { score: 0, fields: Vec::new() }).add(found);
                }
                any
            }
            Expression::Not(part) => part.find(node).is_none().then_some(Found { score: 1, fields: Vec::new() }),
        }
    }
}

impl Found {
    fn add(&mut self, other: Found) {
        self.score = self.score.saturating_add(other.score);
        self.fields.extend(other.fields);
    }
}

#[cfg(test)]
mod tests;
