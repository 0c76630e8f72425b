//! Label selectors: `key`, `key==value`, `key!=value`, `key in (a,b)`, `key notin (a,b)`, joined by commas.

use std::iter::Peekable;
use std::str::Chars;

use scheduler::model::Labels;

/// All of its terms must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    terms: Vec<(String, Term)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Exists,
    /// The key must exist even where its value must not be among these.
    In(Vec<String>, bool),
}

impl Selector {
    /// # Errors
    /// What is wrong with `text`.
    pub(crate) fn parse(text: &str) -> Result<Selector, String> {
        let bad = || format!("Can not parse label selector '{text}'");
        let mut letters = text.chars().peekable();
        let mut terms = Vec::new();
        loop {
            blanks(&mut letters);
            let key = word(&mut letters).ok_or_else(bad)?;
            blanks(&mut letters);
            let term = match letters.peek() {
                None | Some(',') => Term::Exists,
                Some('=' | '!') => {
                    let equal = letters.next() == Some('=');
                    if letters.next() != Some('=') {
                        return Err(bad());
                    }
                    blanks(&mut letters);
                    Term::In(vec![word(&mut letters).ok_or_else(bad)?], equal)
                }
                Some(_) => {
                    let operator = word(&mut letters).ok_or_else(bad)?;
                    let among = match operator.as_str() {
                        "in" => true,
                        "notin" => false,
                        _ => return Err(bad()),
                    };
                    Term::In(list(&mut letters).ok_or_else(bad)?, among)
                }
            };
            terms.push((key, term));
            blanks(&mut letters);
            match letters.next() {
                None => return Ok(Selector { terms }),
                Some(',') => {}
                Some(_) => return Err(bad()),
            }
        }
    }

    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.terms.iter().all(|(key, term)| match (labels.get(key), term) {
            (None, _) => false,
            (Some(_), Term::Exists) => true,
            (Some(value), Term::In(values, among)) => values.contains(value) == *among,
        })
    }
}

fn blanks(letters: &mut Peekable<Chars<'_>>) {
    while letters.peek().is_some_and(|letter| letter.is_whitespace()) {
        letters.next();
    }
}

/// Letters, digits, `-`, `_`, `.`, and anything after a backslash.
fn word(letters: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut word = String::new();
    while let Some(&letter) = letters.peek() {
        if letter == '\\' {
            letters.next();
            word.push(letters.next()?);
        } else if letter.is_ascii_alphanumeric() || "-_.".contains(letter) {
            word.push(letter);
            letters.next();
        } else {
            break;
        }
    }
    (!word.is_empty()).then_some(word)
}

fn list(letters: &mut Peekable<Chars<'_>>) -> Option<Vec<String>> {
    blanks(letters);
    if letters.next() != Some('(') {
        return None;
    }
    let mut words = Vec::new();
    loop {
        blanks(letters);
        words.push(word(letters)?);
        blanks(letters);
        match letters.next()? {
            ',' => {}
            ')' => return Some(words),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_say_what_marathon_says() {
        let labels: Labels = [("foo", "one"), ("bar", "a b")].into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        for (text, expected) in [
            ("foo", true),
            ("nope", false),
            ("foo==one", true),
            ("foo == one , bar", true),
            ("foo!=one", false),
            ("nope!=one", false),
            ("foo in (one, two)", true),
            ("foo notin (two)", true),
            ("nope notin (two)", false),
            ("bar==a\\ b", true),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&labels), expected, "{text}");
        }
        for bad in ["", ",", "foo=", "foo==", "foo in", "foo in (", "foo in ()", "foo is bar", "foo bar", "a,,b", "(", "foo==a b"] {
            assert!(Selector::parse(bad).unwrap_err().starts_with("Can not parse label selector"), "{bad}");
        }
    }
}
