//! Writes the documents of the classic endpoints: straight into bytes, because they have megabytes.

use std::any::Any;
use std::sync::Arc;

use mesos_proto::json::{Spelling, push_number, push_text, write};
use prost::{Message, Name};

use crate::pieces::Sink;

/// The members of an object that is being written.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    out: &'a mut Sink,
    first: bool,
}

/// The items of an array that is being written.
#[derive(Debug)]
pub(crate) struct Array<'a> {
    out: &'a mut Sink,
    first: bool,
}

/// Writes an object.
pub(crate) fn object(out: &mut Sink, fill: impl FnOnce(&mut Object<'_>)) {
    out.bytes().push(b'{');
    fill(&mut Object { out, first: true });
    out.bytes().push(b'}');
}

/// Writes an array.
pub(crate) fn array(out: &mut Sink, fill: impl FnOnce(&mut Array<'_>)) {
    out.bytes().push(b'[');
    fill(&mut Array { out, first: true });
    out.bytes().push(b']');
}

impl Object<'_> {
    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        let out = self.out.bytes();
        if !std::mem::take(&mut self.first) {
            out.push(b',');
        }
        push_text(name, out);
        out.push(b':');
        out
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
        self.key(name);
        object(self.out, fill);
    }

    pub(crate) fn array(&mut self, name: &str, fill: impl FnOnce(&mut Array<'_>)) {
        self.key(name);
        array(self.out, fill);
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
        let out = self.out.bytes();
        if !std::mem::take(&mut self.first) {
            out.push(b',');
        }
        out
    }

    pub(crate) fn text(&mut self, text: &str) {
        push_text(text, self.item());
    }

    pub(crate) fn object(&mut self, fill: impl FnOnce(&mut Object<'_>)) {
        self.item();
        object(self.out, fill);
    }

    /// An object for each item. Runs of items that are what they were when the document was last written are not written again, so `fill` must
    /// depend on the item alone.
    pub(crate) fn objects<'t, T: Any + Send + Sync>(
        &mut self,
        items: impl Iterator<Item = &'t Arc<T>>,
        fill: impl Fn(&mut Object<'_>, &T),
    ) {
        self.out.items(&mut self.first, items, |out, first, items| {
            let mut array = Array { out, first: *first };
            items.iter().for_each(|it| array.object(|object| fill(object, it)));
            *first = array.first;
        });
    }

    /// A message in the classic spelling.
    pub(crate) fn message<M: Message + Name>(&mut self, message: &M) {
        write(message, Spelling::V0, self.item());
    }
}
