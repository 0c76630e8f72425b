//! What is left of pairs that are gone: so that what comes back from the past is told from what was made anew.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use base::Timestamp;
use serde::{Deserialize, Serialize};

use crate::conflict::DeletedBetween;
use crate::node::{Hash, Key, PerSide, Side, hash_text};

/// What is left of a pair that is gone: who deleted it, when, and what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The side whose clients deleted it, from where the delete was carried to the other; none when both had.
    pub by: Option<Side>,
    /// The newest transaction of each side that is known to be older than the delete there, or the delete itself; 0 when there was nothing. What
    /// was made anew since is newer: a znode that this one or an older one made is the one that was deleted, and its ensemble went back in time.
    pub newest: PerSide<i64>,
    /// What the data that both sides had last agreed on hash to; none when they never had.
    #[serde(with = "hash_text")]
    pub data: Option<Hash>,
    /// Bytes of them.
    pub size: u32,
    /// It was there then, by our clock: milliseconds since 1970; 0 when that is not known.
    pub from_ms: u64,
    /// It was gone then, by our clock: milliseconds since 1970.
    pub to_ms: u64,
}

impl Tombstone {
    /// When it was deleted.
    pub(crate) fn between(&self) -> DeletedBetween {
        DeletedBetween { from: Timestamp::from_unix_millis(self.from_ms), to: Timestamp::from_unix_millis(self.to_ms) }
    }
}

/// Tombstones of a link, bounded in number and age.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    by_key: BTreeMap<Key, Tombstone>,
    by_age: BTreeSet<(u64, Key)>,
}

impl Tombstones {
    pub(crate) fn get(&self, key: &str) -> Option<&Tombstone> {
        self.by_key.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Tombstone)> {
        self.by_age.iter().rev().filter_map(|(_, key)| self.by_key.get_key_value(key))
    }

    /// Those whose keys begin with `prefix`, those that went last first: `limit` of them, and how many there are.
    pub(crate) fn below(&self, prefix: &str, limit: usize) -> (Vec<(&Key, &Tombstone)>, usize) {
        if prefix.is_empty() {
            return (self.iter().take(limit).collect(), self.len());
        }
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let mut found: Vec<_> = self.by_key.range::<str, _>(from).take_while(|(key, _)| key.starts_with(prefix)).collect();
        let count = found.len();
        found.sort_by_key(|(key, gone)| (Reverse(gone.to_ms), Reverse(*key)));
        found.truncate(limit);
        (found, count)
    }

    pub(crate) fn insert(&mut self, key: Key, tombstone: Tombstone) {
        if let Some(before) = self.by_key.insert(key.clone(), tombstone) {
            self.by_age.remove(&(before.to_ms, key.clone()));
        }
        self.by_age.insert((tombstone.to_ms, key));
    }

    /// Whether there was one.
    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        let Some(tombstone) = self.by_key.remove(key) else { return false };
        self.by_age.remove(&(tombstone.to_ms, key.clone()))
    }

    /// Takes out the oldest one, if there are more than `count`, or it is older than `age`; with whether it is that old.
    pub(crate) fn take_old(&mut self, count: usize, age: Duration, now: Timestamp) -> Option<(Key, bool)> {
        let (to_ms, _) = self.by_age.first()?;
        let is_old = now.since(Timestamp::from_unix_millis(*to_ms)) > age;
        if !is_old && self.by_key.len() <= count {
            return None;
        }
        let (_, key) = self.by_age.pop_first()?;
        self.by_key.remove(&key);
        Some((key, is_old))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_when_there_are_too_many_or_they_are_too_old() {
        let of = |to_ms: u64| Tombstone { by: None, newest: PerSide::default(), data: None, size: 0, from_ms: 0, to_ms };
        let mut all = Tombstones::default();
        for (key, at) in [("/b", 2_000), ("/a", 1_000), ("/c", 3_000), ("/a", 4_000)] {
            all.insert(key.into(), of(at));
        }
        let age = Duration::from_secs(10);
        let mut take = |count, now| all.take_old(count, age, Timestamp::from_unix_millis(now)).map(|(key, old)| (key.to_string(), old));
        assert_eq!(take(3, 5_000), None);
        assert_eq!(take(2, 5_000), Some(("/b".to_owned(), false)));
        assert_eq!(take(2, 13_500), Some(("/c".to_owned(), true)));
        assert_eq!(take(2, 13_500), None, "/a was deleted again later");
        all.insert("/ab".into(), of(5_000));
        let below = |prefix, limit| {
            let (found, count) = all.below(prefix, limit);
            (found.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), count)
        };
        for prefix in ["", "/a"] {
            assert_eq!(below(prefix, 9), (vec!["/ab".to_owned(), "/a".to_owned()], 2));
            assert_eq!(below(prefix, 1), (vec!["/ab".to_owned()], 2));
        }
        assert_eq!((below("/ab", 9).1, below("/b", 9).1, below("/abc", 9).1), (1, 0, 0));
        all.remove(&"/ab".into());
        assert!(all.remove(&"/a".into()) && !all.remove(&"/a".into()) && all.len() == 0);
    }
}
