//! What is wrong right now and does not keep the process from going on: said by whoever notices, taken back when it is mended, told by `/health`.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What something can be wrong with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The store of what survives a restart.
    Store,
    /// An earlier such store, which was damaged.
    EarlierStore,
    /// The reports of Weave Scope's probes in the history.
    OldReports,
    /// The election among control planes.
    Election,
}

/// At most one problem of each part. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Problems(Arc<Mutex<BTreeMap<Part, String>>>);

impl Problems {
    /// Something is wrong: what, and why.
    pub fn say(&self, part: Part, what: &str, why: &dyn Error) {
        self.lock().insert(part, with_causes(what, why));
    }

    /// Something is wrong, in words.
    pub fn tell(&self, part: Part, problem: String) {
        self.lock().insert(part, problem);
    }

    /// Nothing is wrong with it any more. Whether something was.
    pub fn take_back(&self, part: Part) -> bool {
        self.lock().remove(&part).is_some()
    }

    /// Whether something is wrong with it.
    pub fn concern(&self, part: Part) -> bool {
        self.lock().contains_key(&part)
    }

    /// All that there are.
    pub fn all(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Part, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn with_causes(what: &str, why: &dyn Error) -> String {
    let mut text = format!("{what}: {why}");
    let mut cause = why.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_its_causes_until_it_is_taken_back() {
        let problems = Problems::default();
        let full = std::io::Error::other("no space left");
        problems.say(Part::OldReports, "the reports are not kept", &full);
        let store = crate::store::StoreError::Unavailable { path: "/s".into(), source: Box::new(full) };
        problems.say(Part::Store, "the store is not written", &store);
        assert_eq!(
            problems.all(),
            [
                "the store is not written: /s cannot be read or written: see to its directory's permissions and free space: no space left",
                "the reports are not kept: no space left"
            ]
        );
        assert!(problems.take_back(Part::Store));
        assert!(!problems.take_back(Part::Store));
        assert_eq!(problems.all().len(), 1);
    }
}
