//! Which runtimes have not told of all their containers yet: whoever looks once waits for them. Pure.

use std::collections::BTreeMap;

use super::Source;

/// Runtimes that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings(BTreeMap<Source, Reading>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Reading {
    /// The runtime and its socket, for people.
    what: String,
    failed: bool,
}

impl Readings {
    /// A runtime's socket is there, and it is asked what it has.
    pub fn begin(&mut self, source: Source, what: String) {
        self.0.insert(source, Reading { what, failed: false });
    }

    /// It told of all that it has, or there is nothing to be told.
    pub fn done(&mut self, source: Source) {
        self.0.remove(&source);
    }

    /// It does not answer.
    pub fn failed(&mut self, source: Source) {
        if let Some(reading) = self.0.get_mut(&source) {
            reading.failed = true;
        }
    }

    /// Whether one is still being read.
    pub fn is_waiting(&self) -> bool {
        self.0.values().any(|it| !it.failed)
    }

    /// What is not known because of runtimes that have not told of all their containers, for people.
    pub fn blind_spots(&self) -> impl Iterator<Item = String> {
        self.0.values().map(|Reading { what, failed }| match failed {
            true => format!("Containers of {what}: it does not answer."),
            false => format!("Containers of {what}: it had not told of all of them yet."),
        })
    }
}
