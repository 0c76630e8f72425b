//! What is counted. Gauges that are sums over the state are made by the reader, from the [`crate::Snapshot`].

use imbl::OrdMap;

/// Counters since the master started, by the names that `/metrics/snapshot` shows.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    counters: OrdMap<String, u64>,
    fixed: OrdMap<&'static str, u64>,
}

impl Metrics {
    /// All counters that were ever counted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> + '_ {
        let named = self.counters.iter().map(|(key, count)| (key.as_str(), *count));
        self.fixed.iter().map(|(key, count)| (*key, *count)).chain(named)
    }

    /// One of them.
    pub fn get(&self, key: &str) -> u64 {
        self.fixed.get(key).or_else(|| self.counters.get(key)).copied().unwrap_or(0)
    }

    pub(crate) fn count(&mut self, key: &'static str) {
        self.add(key, 1);
    }

    pub(crate) fn add(&mut self, key: &'static str, more: u64) {
        *self.fixed.entry(key).or_insert(0) += more;
    }

    /// Counts under a key that is made of enum words: their number is limited.
    pub(crate) fn count_named(&mut self, key: String) {
        *self.counters.entry(key).or_insert(0) += 1;
    }
}
