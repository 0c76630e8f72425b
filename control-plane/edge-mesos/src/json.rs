//! Writes the documents of the classic endpoints: straight into bytes, because they have megabytes.

use mesos_proto::json::{Spelling, push_number, push_text, write};
use prost::{Message, Name};

/// The members of an object that is being written.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

/// The items of an array that is being written.
#[derive(Debug)]
pub(crate) struct Array<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

/// Writes an object.
pub(crate) fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    fill(&mut Object { out, first: true });
    out.push(b'}');
}

/// Writes an array.
pub(crate) fn array(out: &mut Vec<u8>, fill: impl FnOnce(&mut Array<'_>)) {
    out.push(b'[');
    fill(&mut Array { out, first: true });
    out.push(b']');
}

impl Object<'_> {
    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        push_text(name, self.out);
        self.out.push(b':');
        self.out
    }

    pub(crate) fn text(&mut self, name: &str, text: &str) {
        push_text(text, self.key(name));
    }

    pub(crate) fn text_if(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    pub(crate) fn number(&mut self, name: &str, number: f64) {
        push_number(number, self.key(name));
    }

    pub(crate) fn number_if(&mut self, name: &str, number: Option<f64>) {
        if let Some(number) = number {
            self.number(name, number);
        }
    }

    pub(crate) fn integer(&mut self, name: &str, number: u64) {
        use std::io::Write as _;
        let out = self.key(name);
        let _ = write!(out, "{number}");
    }

    pub(crate) fn flag(&mut self, name: &str, flag: bool) {
        self.key(name).extend_from_slice(if flag { b"true" } else { b"false" });
    }

    pub(crate) fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
        object(self.key(name), fill);
    }

    pub(crate) fn array(&mut self, name: &str, fill: impl FnOnce(&mut Array<'_>)) {
        array(self.key(name), fill);
    }

    /// A message in the classic spelling.
    pub(crate) fn message<M: Message + Name>(&mut self, name: &str, message: &M) {
        write(message, Spelling::V0, self.key(name));
    }

    pub(crate) fn message_if<M: Message + Name>(&mut self, name: &str, message: Option<&M>) {
        if let Some(message) = message {
            self.message(name, message);
        }
    }
}

impl Array<'_> {
    fn item(&mut self) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out
    }

    pub(crate) fn text(&mut self, text: &str) {
        push_text(text, self.item());
    }

    pub(crate) fn object(&mut self, fill: impl FnOnce(&mut Object<'_>)) {
        object(self.item(), fill);
    }

    /// A message in the classic spelling.
    pub(crate) fn message<M: Message + Name>(&mut self, message: &M) {
        write(message, Spelling::V0, self.item());
    }
}
