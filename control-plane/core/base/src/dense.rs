#![expect(clippy::disallowed_types, reason = "the one place that wraps the hash tables, so that their order cannot leak")]

use std::borrow::Borrow;
use std::collections::hash_map::{self, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A hash table without iteration: for hot look-ups in a core, where an order that differs from run to run must not reach an output.
pub struct DenseMap<K, V> {
    table: HashMap<K, V, Mixer>,
}

type Mixer = BuildHasherDefault<FoldHasher>;

impl<K, V> Default for DenseMap<K, V> {
    fn default() -> Self {
        DenseMap { table: HashMap::default() }
    }
}

impl<K: Hash + Eq, V> DenseMap<K, V> {
    /// What is stored under `key`.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.table.get(key)
    }

    /// What is stored under `key`, to change.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.table.get_mut(key)
    }

    /// Whether anything is stored under `key`.
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.table.contains_key(key)
    }

    /// Stores `value`, and gives back what was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.table.insert(key, value)
    }

    /// Takes out what is stored under `key`.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.table.remove(key)
    }

    /// What is stored under `key`, made by `default` when nothing is.
    pub fn entry_or_insert_with(&mut self, key: K, default: impl FnOnce() -> V) -> &mut V {
        match self.table.entry(key) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(entry) => entry.insert(default()),
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.table.clear();
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Clone for DenseMap<K, V> {
    fn clone(&self) -> Self {
        DenseMap { table: self.table.clone() }
    }
}

impl<K, V> fmt::Debug for DenseMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DenseMap({} entries)", self.table.len())
    }
}

/// A hash set without iteration; see [`DenseMap`].
pub struct DenseSet<K> {
    table: DenseMap<K, ()>,
}

impl<K> Default for DenseSet<K> {
    fn default() -> Self {
        DenseSet { table: DenseMap::default() }
    }
}

impl<K: Hash + Eq> DenseSet<K> {
    /// Adds `key`; false when it was there already.
    pub fn insert(&mut self, key: K) -> bool {
        self.table.insert(key, ()).is_none()
    }

    /// Takes `key` out; false when it was not there.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.table.remove(key).is_some()
    }

    /// Whether `key` is in the set.
    pub fn contains<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.table.contains_key(key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.table.clear();
    }
}

impl<K> fmt::Debug for DenseSet<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DenseSet({} entries)", self.table.table.len())
    }
}

/// Multiply-and-fold over 64-bit words: seedless, so that a run is repeatable, and several times faster than SipHash on short keys. Keys
/// come from authenticated probes and are bounded in number by the probe limits, so that colliding keys cost time in proportion only.
#[derive(Clone, Copy, Debug, Default)]
struct FoldHasher {
    state: u64,
}

impl FoldHasher {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.state ^ word ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xa076_1d64_78bd_642f_e703_7ed1_a0b4_28db);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are folded into one on purpose")]
        {
            self.state = (product as u64) ^ ((product >> 64) as u64);
        }
    }
}

impl Hasher for FoldHasher {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.fold(u64::from_le_bytes(chunk.try_into().expect("chunks_exact gives eight bytes")));
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.fold(u64::from_le_bytes(word) ^ ((rest.len() as u64) << 56));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.fold(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.fold(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.fold(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.fold(value as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;

    #[test]
    fn entries_are_found_and_taken_out_again() {
        let mut map = DenseMap::default();
        assert_eq!(map.insert("a".to_owned(), 1), None);
        assert_eq!(map.insert("a".to_owned(), 2), Some(1));
        assert_eq!(map.get("a"), Some(&2));
        *map.entry_or_insert_with("b".to_owned(), || 0) += 5;
        assert_eq!(map.remove("b"), Some(5));
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn neighbouring_keys_spread_over_the_low_bits() {
        let mut buckets = [0_u32; 64];
        for key in 0_u64..6_400 {
            buckets[(Mixer::default().hash_one(key) % 64) as usize] += 1;
        }
        assert!(buckets.iter().all(|&count| (50..=150).contains(&count)), "{buckets:?}");
    }
}
