//! Text to expression.

use super::term::Term;
use super::{Expression, QueryError};

const TERMS_MAX: usize = 64;
const DEPTH_MAX: usize = 16;

/// Reads a query: a single term of Scope's language, or terms combined by operators in capitals.
pub(super) fn parse(text: &str) -> Result<Expression, QueryError> {
    let tokens = tokens(text);
    if !tokens.iter().any(|token| matches!(token, Token::And | Token::Or | Token::Not)) {
        return Term::parse(text).map(Expression::Term).ok_or(QueryError::Empty);
    }
    let mut parser = Parser { tokens: &tokens, terms: 0 };
    let expression = parser.any(0)?;
    if parser.tokens.is_empty() { Ok(expression) } else { Err(QueryError::Incomplete) }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    And,
    Or,
    Not,
    Open,
    Close,
    /// Words up to the next operator, with the blanks between them: a term may hold blanks.
    Term(&'a str),
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut term: Option<(usize, usize)> = None;
    for (start, word) in words(text) {
        let (opening, core, closing) = parentheses(word);
        let core_start = start + opening;
        let operator = match core {
            "AND" => Some(Token::And),
            "OR" => Some(Token::Or),
            "NOT" => Some(Token::Not),
            _ => None,
        };
        if opening > 0 || operator.is_some() {
            tokens.extend(term.take().map(|(from, to)| Token::Term(&text[from..to])));
        }
        tokens.extend(std::iter::repeat_n(Token::Open, opening));
        match operator {
            Some(operator) => tokens.push(operator),
            None if !core.is_empty() => {
                let end = core_start + core.len();
                term = Some(term.map_or((core_start, end), |(from, _)| (from, end)));
            }
            None => {}
        }
        if closing > 0 {
            tokens.extend(term.take().map(|(from, to)| Token::Term(&text[from..to])));
            tokens.extend(std::iter::repeat_n(Token::Close, closing));
        }
    }
    tokens.extend(term.map(|(from, to)| Token::Term(&text[from..to])));
    tokens
}

fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_whitespace().map(move |word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

/// Splits off parentheses that have no partner within the word: `foo(bar|baz)` is a regular expression and stays whole.
fn parentheses(word: &str) -> (usize, &str, usize) {
    let balance = word.chars().fold(0_i32, |balance, it| balance + i32::from(it == '(') - i32::from(it == ')'));
    let leading = word.chars().take_while(|&it| it == '(').count();
    let trailing = word.chars().rev().take_while(|&it| it == ')').count();
    let opening = leading.min(usize::try_from(balance).unwrap_or(0));
    let closing = trailing.min(usize::try_from(-balance).unwrap_or(0));
    (opening, &word[opening..word.len() - closing], closing)
}

struct Parser<'a, 'b> {
    tokens: &'b [Token<'a>],
    terms: usize,
}

impl<'a> Parser<'a, '_> {
    fn take(&mut self, wanted: &Token<'_>) -> bool {
        let found = self.tokens.first() == Some(wanted);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn any(&mut self, depth: usize) -> Result<Expression, QueryError> {
        let mut parts = vec![self.all(depth)?];
        while self.take(&Token::Or) {
            parts.push(self.all(depth)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Expression::Any(parts) })
    }

    /// `a NOT b` means `a AND NOT b`.
    fn all(&mut self, depth: usize) -> Result<Expression, QueryError> {
        let mut parts = vec![self.one(depth)?];
        while self.take(&Token::And) || matches!(self.tokens.first(), Some(Token::Not | Token::Open | Token::Term(_))) {
            parts.push(self.one(depth)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Expression::All(parts) })
    }

    fn one(&mut self, depth: usize) -> Result<Expression, QueryError> {
        if depth > DEPTH_MAX {
            return Err(QueryError::TooComplex);
        }
        if self.take(&Token::Not) {
            return Ok(Expression::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take(&Token::Open) {
            let inner = self.any(depth + 1)?;
            return if self.take(&Token::Close) { Ok(inner) } else { Err(QueryError::Incomplete) };
        }
        let Some((Token::Term(text), rest)) = self.tokens.split_first() else { return Err(QueryError::Incomplete) };
        self.tokens = rest;
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return Err(QueryError::TooComplex);
        }
        Term::parse(text).map(Expression::Term).ok_or(QueryError::Empty)
    }
}
