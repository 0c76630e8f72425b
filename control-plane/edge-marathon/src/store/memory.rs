use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use scheduler::words::{Loaded, Record};

use super::{Store, StoreError, decode, encode};

/// Keeps records for as long as it lives: for tests, and to try things out.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: Mutex<BTreeMap<String, String>>,
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        decode(entries.iter().map(|(key, text)| (key.clone(), text.clone())))
    }

    fn write(&self, records: &[Record]) -> Result<(), StoreError> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in records.iter().flat_map(encode) {
            match entry.text {
                Some(text) => entries.insert(entry.key, text),
                None => entries.remove(&entry.key),
            };
        }
        Ok(())
    }
}
