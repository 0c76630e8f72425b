//! Text to expression.

use super::term::Term;
use super::{Expression, QueryError};

const TERMS_MAX: usize = 64;
const DEPTH_MAX: usize = 16;

/// Reads a query: a single term of Scope's language, or terms combined by operators in capitals.
pub(super) fn parse(text: &str) -> Result<Expression, QueryError> {
    let tokens = tokens(text)?;
    let is_combined = tokens.iter().any(|(_, token)| matches!(token, Token::And | Token::Or | Token::Not | Token::Quoted(_)));
    if !is_combined {
        return term(text, 1);
    }
    let mut parser = Parser { text, tokens: &tokens, terms: 0 };
    let expression = parser.any(0)?;
    if parser.tokens.is_empty() { Ok(expression) } else { Err(QueryError::Incomplete { at: parser.place() }) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    And,
    Or,
    Not,
    Open,
    Close,
    /// Words up to the next operator, with the blanks between them: a term may hold blanks.
    Term(&'a str),
    /// A word with quotes in it: a term of its own.
    Quoted(&'a str),
}

/// Tokens, each with the byte where it begins.
fn tokens(text: &str) -> Result<Vec<(usize, Token<'_>)>, QueryError> {
    let mut tokens = Vec::new();
    let mut term: Option<(usize, usize)> = None;
    let flush = |term: &mut Option<(usize, usize)>, tokens: &mut Vec<_>| {
        tokens.extend(term.take().map(|(from, to)| (from, Token::Term(&text[from..to]))));
    };
    for (start, word) in words(text)? {
        let (opening, core, closing) = parentheses(word);
        let (core_start, core_end) = (start + opening, start + opening + core.len());
        let operator = match core {
            "AND" => Some(Token::And),
            "OR" => Some(Token::Or),
            "NOT" => Some(Token::Not),
            _ if core.contains('"') => Some(Token::Quoted(core)),
            _ => None,
        };
        let field = match operator {
            Some(Token::Quoted(_)) if opening == 0 => term.and_then(|(from, to)| field_before(text, (from, to), core)),
            _ => None,
        };
        if let Some(field) = field {
            term = term.filter(|(from, _)| *from < field).map(|(from, _)| (from, from + text[from..field].trim_end().len()));
        }
        if opening > 0 || operator.is_some() {
            flush(&mut term, &mut tokens);
        }
        tokens.extend((0..opening).map(|at| (start + at, Token::Open)));
        match operator {
            Some(Token::Quoted(_)) if let Some(field) = field => tokens.push((field, Token::Quoted(&text[field..core_end]))),
            Some(operator) => tokens.push((core_start, operator)),
            None if !core.is_empty() => term = Some(term.map_or((core_start, core_end), |(from, _)| (from, core_end))),
            None => {}
        }
        if closing > 0 {
            flush(&mut term, &mut tokens);
            tokens.extend((0..closing).map(|at| (core_end + at, Token::Close)));
        }
    }
    flush(&mut term, &mut tokens);
    Ok(tokens)
}

/// Where the field begins that stands before a word in quotes, with blanks around the colon: `image: "x"` means `image:"x"`. A field may hold
/// blanks, but words that have a field already are a term before it.
fn field_before(text: &str, (from, to): (usize, usize), quoted: &str) -> Option<usize> {
    let before = &text[from..to];
    let field = if quoted.starts_with(':') { before } else { before.strip_suffix(':')?.trim_end() };
    if !field.contains(':') {
        return Some(from);
    }
    field.rfind(char::is_whitespace).map(|blank| from + blank + field[blank..].chars().next().map_or(0, char::len_utf8))
}

/// Words between blanks; blanks in quotes do not count.
fn words(text: &str) -> Result<Vec<(usize, &str)>, QueryError> {
    let mut words = Vec::new();
    let (mut begun, mut quote) = (None, None);
    for (at, letter) in text.char_indices() {
        if letter == '"' {
            quote = if quote.is_some() { None } else { Some(at) };
        }
        match begun {
            Some(from) if letter.is_whitespace() && quote.is_none() => {
                words.push((from, &text[from..at]));
                begun = None;
            }
            None if !letter.is_whitespace() => begun = Some(at),
            _ => {}
        }
    }
    if let Some(at) = quote {
        return Err(QueryError::Unclosed { at: character(text, at) });
    }
    words.extend(begun.map(|from| (from, &text[from..])));
    Ok(words)
}

/// Splits off parentheses that have no partner within the word: `foo(bar|baz)` is a regular expression and stays whole.
fn parentheses(word: &str) -> (usize, &str, usize) {
    let mut in_quotes = false;
    let balance = word.chars().fold(0_i32, |balance, it| {
        in_quotes ^= it == '"';
        balance + if in_quotes { 0 } else { i32::from(it == '(') - i32::from(it == ')') }
    });
    let leading = word.chars().take_while(|&it| it == '(').count();
    let trailing = word.chars().rev().take_while(|&it| it == ')').count();
    let opening = leading.min(usize::try_from(balance).unwrap_or(0));
    let closing = trailing.min(usize::try_from(-balance).unwrap_or(0));
    (opening, &word[opening..word.len() - closing], closing)
}

/// The number of the character at a byte, from 1.
fn character(text: &str, byte: usize) -> usize {
    text.char_indices().take_while(|(at, _)| *at < byte).count() + 1
}

struct Parser<'a, 'b> {
    text: &'a str,
    tokens: &'b [(usize, Token<'a>)],
    terms: usize,
}

impl<'a> Parser<'a, '_> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.first().map(|(_, token)| *token)
    }

    /// The byte where the next token begins, or the text ends.
    fn byte(&self) -> usize {
        self.tokens.first().map_or(self.text.len(), |(at, _)| *at)
    }

    /// The same in characters.
    fn place(&self) -> usize {
        character(self.text, self.byte())
    }

    fn take(&mut self, wanted: Token<'_>) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn any(&mut self, depth: usize) -> Result<Expression, QueryError> {
        let mut parts = Parts::default();
        loop {
            let from = self.byte();
            let part = self.all(depth)?;
            parts.add(&self.text[from..self.byte()], part);
            if !self.take(Token::Or) {
                return Ok(parts.joined(Expression::Any));
            }
        }
    }

    /// `a NOT b` means `a AND NOT b`.
    fn all(&mut self, depth: usize) -> Result<Expression, QueryError> {
        let mut parts = Parts::default();
        let begins = |token| matches!(token, Token::Not | Token::Open | Token::Term(_) | Token::Quoted(_));
        loop {
            let from = self.byte();
            let part = self.one(depth)?;
            parts.add(&self.text[from..self.byte()], part);
            if !self.take(Token::And) && !self.peek().is_some_and(begins) {
                return Ok(parts.joined(Expression::All));
            }
        }
    }

    fn one(&mut self, depth: usize) -> Result<Expression, QueryError> {
        if depth > DEPTH_MAX {
            return Err(QueryError::TooComplex { at: self.place() });
        }
        if self.take(Token::Not) {
            return Ok(Expression::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take(Token::Open) {
            let inner = self.any(depth + 1)?;
            return if self.take(Token::Close) { Ok(inner) } else { Err(QueryError::Incomplete { at: self.place() }) };
        }
        let at = self.place();
        let Some(Token::Term(text) | Token::Quoted(text)) = self.peek() else { return Err(QueryError::Incomplete { at }) };
        self.tokens = &self.tokens[1..];
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return Err(QueryError::TooComplex { at });
        }
        term(text, at)
    }
}

/// Operands of one operator, each different one once: looking for the same again finds the same.
#[derive(Default)]
struct Parts<'a>(Vec<(&'a str, Expression)>);

impl<'a> Parts<'a> {
    fn add(&mut self, text: &'a str, part: Expression) {
        let text = text.trim();
        if self.0.iter().all(|(known, _)| *known != text) {
            self.0.push((text, part));
        }
    }

    fn joined(self, by: fn(Vec<Expression>) -> Expression) -> Expression {
        let mut parts: Vec<Expression> = self.0.into_iter().map(|(_, part)| part).collect();
        if parts.len() == 1 { parts.swap_remove(0) } else { by(parts) }
    }
}

fn term(text: &str, at: usize) -> Result<Expression, QueryError> {
    if let Some(beyond) = beyond(text) {
        return Err(match beyond {
            Beyond::LookAround => QueryError::LookAround { at },
            Beyond::BackReference => QueryError::BackReference { at },
        });
    }
    Term::parse(text).map(Expression::Term).ok_or(QueryError::Empty { at })
}

/// What the expressions of browsers can and ours cannot.
enum Beyond {
    LookAround,
    BackReference,
}

/// Whether a text asks what stands before or behind a place, or for what a group has found. What is escaped, in brackets or in quotes does not.
fn beyond(text: &str) -> Option<Beyond> {
    let (mut escaped, mut in_brackets, mut in_quotes, mut has_group) = (false, false, false, false);
    for (at, letter) in text.char_indices() {
        if letter == '"' {
            in_quotes = !in_quotes;
        }
        if in_quotes {
            continue;
        }
        match letter {
            '1'..='9' if escaped && has_group && !in_brackets => return Some(Beyond::BackReference),
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            '(' if !in_brackets && ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|it| text[at..].starts_with(it)) => {
                return Some(Beyond::LookAround);
            }
            '(' if !in_brackets => has_group = true,
            _ => {}
        }
    }
    None
}
