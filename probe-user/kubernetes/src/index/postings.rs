//! Who has a label.

use std::collections::{BTreeMap, BTreeSet};

/// Sets of `T` by key and value of a label.
#[derive(Debug)]
pub(super) struct Postings<T> {
    keys: BTreeMap<Box<str>, BTreeMap<Box<str>, BTreeSet<T>>>,
    nobody: BTreeSet<T>,
}

impl<T> Default for Postings<T> {
    fn default() -> Self {
        Self { keys: BTreeMap::new(), nobody: BTreeSet::new() }
    }
}

impl<T: Ord> Postings<T> {
    pub(super) fn get(&self, key: &str, value: &str) -> &BTreeSet<T> {
        self.keys.get(key).and_then(|values| values.get(value)).unwrap_or(&self.nobody)
    }

    pub(super) fn insert(&mut self, key: &str, value: &str, who: T) {
        if !self.keys.contains_key(key) {
            self.keys.insert(key.into(), BTreeMap::new());
        }
        let Some(values) = self.keys.get_mut(key) else { return };
        match values.get_mut(value) {
            Some(all) => {
                all.insert(who);
            }
            None => {
                values.insert(value.into(), BTreeSet::from([who]));
            }
        }
    }

    /// Leaves nothing behind where nobody is left.
    pub(super) fn remove(&mut self, key: &str, value: &str, who: &T) {
        let Some(values) = self.keys.get_mut(key) else { return };
        let Some(all) = values.get_mut(value) else { return };
        all.remove(who);
        if all.is_empty() {
            values.remove(value);
            if values.is_empty() {
                self.keys.remove(key);
            }
        }
    }
}
