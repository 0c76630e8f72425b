//! How much of one object is kept. The API's own validation stays far below these numbers; a server that has none of it does not get more.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::metadata::is_uid;
use crate::selector::Labels;

pub(super) const OWNERS: usize = 16;
pub(super) const LABELS: usize = 256;
pub(super) const TERMS: usize = 256;
pub(super) const ITEMS: usize = 512;
/// Endpoints of a slice: the API's own limit.
pub(super) const TARGETS: usize = 1000;
pub(super) const TEXT_BYTES: usize = 1024;

/// Remembers whether something had to be cut.
#[derive(Debug, Default)]
pub struct Cut {
    pub(super) happened: bool,
}

impl Cut {
    /// A text, at most [`TEXT_BYTES`] long.
    pub(super) fn text(&mut self, text: Option<String>) -> Box<str> {
        let mut text = text.unwrap_or_default();
        if text.len() > TEXT_BYTES {
            self.happened = true;
            text.truncate(shortened(&text, TEXT_BYTES).len());
        }
        text.into()
    }

    /// The first `max` of a list, those that `read` makes something of.
    pub(super) fn list<T, U>(&mut self, list: Option<Vec<T>>, max: usize, read: impl FnMut(T) -> Option<U>) -> Vec<U> {
        let list = list.unwrap_or_default();
        self.happened |= list.len() > max;
        list.into_iter().take(max).filter_map(read).collect()
    }

    /// The first texts of a list, without the empty ones.
    pub(super) fn texts(&mut self, list: impl IntoIterator<Item = Option<String>>) -> Vec<Box<str>> {
        let mut list = list.into_iter().flatten().filter(|text| !text.is_empty());
        let kept = list.by_ref().take(ITEMS).collect::<Vec<_>>();
        self.happened |= list.next().is_some();
        kept.into_iter().map(|text| self.text(Some(text))).collect()
    }

    /// The first texts of a list, those that are addresses: the receiver takes no others.
    pub(super) fn addresses(&mut self, list: impl IntoIterator<Item = Option<String>>) -> Vec<Box<str>> {
        let mut texts = self.texts(list);
        let all = texts.len();
        texts.retain(|text| text.parse::<IpAddr>().is_ok());
        self.happened |= texts.len() < all;
        texts
    }

    /// The first texts of a list, those that the receiver takes for ids.
    pub(super) fn ids(&mut self, list: impl IntoIterator<Item = Option<String>>) -> Vec<Box<str>> {
        let mut texts = self.texts(list);
        let all = texts.len();
        texts.retain(|text| is_uid(text));
        self.happened |= texts.len() < all;
        texts
    }

    /// The first labels.
    pub(super) fn labels(&mut self, labels: Option<BTreeMap<String, Option<String>>>) -> Labels {
        let labels = labels.unwrap_or_default();
        self.happened |= labels.len() > LABELS;
        labels.into_iter().take(LABELS).map(|(key, value)| (self.text(Some(key)), self.text(value))).collect()
    }
}

/// The beginning of a text, at most `max` bytes.
pub(crate) fn shortened(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}
