//! Reads fields out of JSON and notes what is wrong, with where it is, as Marathon's JSON layer did.

use std::cell::RefCell;
use std::collections::BTreeMap;

use scheduler::words::Violation;
use serde_json::{Map, Value};

/// Most problems that are listed.
const PROBLEMS_MAX: usize = 200;

/// What was wrong while reading.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Wrong types, missing keys, values out of range: the form.
    pub(crate) form: RefCell<Vec<Violation>>,
    /// What the form does not see: the meaning.
    pub(crate) meaning: RefCell<Vec<Violation>>,
}

/// An object being read. `null` is as good as absent, and unknown fields are nobody's business unless [`Reader::only`] says so.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    object: &'a Map<String, Value>,
    path: String,
    reading: &'a Reading,
}

impl Reading {
    fn note(notes: &RefCell<Vec<Violation>>, path: String, message: String) {
        let mut notes = notes.borrow_mut();
        if notes.len() < PROBLEMS_MAX {
            notes.push(Violation { path: if path.is_empty() { "/".to_owned() } else { path }, message });
        }
    }

    pub(crate) fn form(&self, path: impl Into<String>, message: impl Into<String>) {
        Reading::note(&self.form, path.into(), message.into());
    }

    pub(crate) fn meaning(&self, path: impl Into<String>, message: impl Into<String>) {
        Reading::note(&self.meaning, path.into(), message.into());
    }

    /// The object that `value` must be.
    pub(crate) fn object<'a>(&'a self, value: &'a Value, path: &str) -> Option<Reader<'a>> {
        match value {
            Value::Object(object) => Some(Reader { object, path: path.to_owned(), reading: self }),
            _ => {
                self.form(path, "error.expected.jsobject");
                None
            }
        }
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// Notes each field that is not among `known`: for our own objects, where a misspelt field would go unnoticed.
    pub(crate) fn only(&self, known: &[&str]) {
        for key in self.object.keys().filter(|key| !known.contains(&key.as_str())) {
            self.wrong(key, &format!("unknown; there are {}", known.join(", ")));
        }
    }

    pub(crate) fn at(&self, key: &str) -> String {
        format!("{}/{key}", self.path)
    }

    pub(crate) fn reading(&self) -> &'a Reading {
        self.reading
    }

    /// Something about the form of `key`.
    pub(crate) fn wrong(&self, key: &str, message: &str) {
        self.reading.form(self.at(key), message);
    }

    /// Something about the meaning of `key`.
    pub(crate) fn invalid(&self, key: &str, message: impl Into<String>) {
        self.reading.meaning(if key.is_empty() { self.path.clone() } else { self.at(key) }, message);
    }

    pub(crate) fn string(&self, key: &str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) => Some(text.clone()),
            _ => {
                self.wrong(key, "error.expected.jsstring");
                None
            }
        }
    }

    pub(crate) fn required_string(&self, key: &str) -> String {
        if !self.has(key) {
            self.wrong(key, "error.path.missing");
        }
        self.string(key).unwrap_or_default()
    }

    pub(crate) fn bool(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(value) => Some(*value),
            _ => {
                self.wrong(key, "error.expected.jsboolean");
                None
            }
        }
    }

    pub(crate) fn number(&self, key: &str, least: f64) -> Option<f64> {
        match self.value(key)?.as_f64() {
            Some(value) if value < least => {
                self.wrong(key, "error.min");
                None
            }
            Some(value) if value > 1e15 => {
                self.wrong(key, "error.max");
                None
            }
            Some(value) => Some(value),
            None => {
                self.wrong(key, "error.expected.jsnumber");
                None
            }
        }
    }

    /// A whole number; one with a decimal point is taken when nothing is behind it.
    pub(crate) fn integer(&self, key: &str, least: u64, most: u64) -> Option<u64> {
        let value = self.value(key)?;
        let whole = value.as_u64().or_else(|| {
            let float = value.as_f64()?;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, not negative and small as checked")]
            ((0.0..1e15).contains(&float) && float.fract() == 0.0).then_some(float as u64)
        });
        match whole {
            Some(whole) if whole < least => self.wrong(key, "error.min"),
            Some(whole) if whole > most => self.wrong(key, "error.max"),
            Some(whole) => return Some(whole),
            None if value.as_f64().is_some_and(|it| it < 0.0) => self.wrong(key, "error.min"),
            None if value.is_number() => self.wrong(key, "error.expected.int"),
            None => self.wrong(key, "error.expected.jsnumber"),
        }
        None
    }

    pub(crate) fn u32(&self, key: &str) -> Option<u32> {
        self.integer(key, 0, u64::from(u32::MAX >> 1)).and_then(|it| u32::try_from(it).ok())
    }

    pub(crate) fn port(&self, key: &str) -> Option<u16> {
        self.integer(key, 0, 65_535).and_then(|it| u16::try_from(it).ok())
    }

    pub(crate) fn object(&self, key: &str) -> Option<Reader<'a>> {
        self.reading.object(self.value(key)?, &self.at(key))
    }

    fn array(&self, key: &str) -> Option<&'a Vec<Value>> {
        match self.value(key)? {
            Value::Array(items) => Some(items),
            _ => {
                self.wrong(key, "error.expected.jsarray");
                None
            }
        }
    }

    /// The items of a list of objects; `None` when there is no list.
    pub(crate) fn objects<T>(&self, key: &str, mut read: impl FnMut(Reader<'a>) -> T) -> Option<Vec<T>> {
        let items = self.array(key)?;
        let one = |(at, item)| self.reading.object(item, &format!("{}({at})", self.at(key))).map(&mut read);
        Some(items.iter().enumerate().filter_map(one).collect())
    }

    /// The items of a list of anything.
    pub(crate) fn items(&self, key: &str) -> Option<impl Iterator<Item = (String, &'a Value)>> {
        let path = self.at(key);
        Some(self.array(key)?.iter().enumerate().map(move |(at, item)| (format!("{path}({at})"), item)))
    }

    pub(crate) fn strings(&self, key: &str) -> Option<Vec<String>> {
        let text = |(path, item): (String, &Value)| {
            let text = item.as_str().map(str::to_owned);
            if text.is_none() {
                self.reading.form(path, "error.expected.jsstring");
            }
            text
        };
        Some(self.items(key)?.filter_map(text).collect())
    }

    /// A map of texts. Numbers and booleans are taken as they are written, which old clients relied on.
    pub(crate) fn labels(&self, key: &str) -> Option<BTreeMap<String, String>> {
        let map = self.object(key)?;
        let text = |(name, value): (&String, &Value)| match value {
            Value::String(text) => Some((name.clone(), text.clone())),
            Value::Null => None,
            _ => {
                self.reading.form(format!("{}/{name}", self.at(key)), "error.expected.jsstring");
                None
            }
        };
        Some(map.object.iter().filter_map(text).collect())
    }

    /// Name and value of everything in the object.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.object.iter().filter(|(_, value)| !value.is_null())
    }

    /// One of a few words, in any case.
    pub(crate) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(key)?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)).map(|(_, value)| *value);
        if found.is_none() {
            self.wrong(key, "error.unknown.enum.literal");
        }
        found
    }
}
