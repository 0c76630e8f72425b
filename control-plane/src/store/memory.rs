use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{KnownProbe, Store, StoreError};

/// A store that lives as long as the value does. For tests.
#[derive(Debug, Default)]
pub struct MemoryStore {
    probes: Mutex<BTreeMap<String, KnownProbe>>,
}

impl Store for MemoryStore {
    fn probes(&self) -> Result<Vec<KnownProbe>, StoreError> {
        Ok(self.probes.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect())
    }

    fn update_probes(&self, known: &[KnownProbe], forgotten: &[String]) -> Result<(), StoreError> {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        for id in forgotten {
            probes.remove(id);
        }
        probes.extend(known.iter().map(|probe| (probe.id.clone(), probe.clone())));
        Ok(())
    }

    fn installation(&self) -> &'static str {
        "memory"
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
