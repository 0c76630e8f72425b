//! The master's registry in the ensemble, written by the right of a term.

use std::sync::{Mutex, PoisonError};

use edge_mesos::{RegistryStore, StoreError};
use ha::{Change, Records, Standing, Term};
use master::Record;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The kind of the records, below the path of the ensemble.
const KIND: &str = "mesos";

/// A registry that is there for whoever leads. Calls block, and need a thread that may.
#[derive(Debug)]
pub(crate) struct TermRegistry {
    standing: watch::Receiver<Standing>,
    runtime: Handle,
    path: String,
    records: Mutex<Option<Records>>,
    bytes: std::sync::atomic::AtomicU64,
}

impl TermRegistry {
    /// `path` is where it is, for people.
    pub(crate) fn new(standing: watch::Receiver<Standing>, path: String) -> Self {
        TermRegistry { standing, runtime: Handle::current(), path, records: Mutex::new(None), bytes: 0.into() }
    }

    fn term(&self) -> Result<Term, StoreError> {
        self.standing.borrow().term.clone().ok_or_else(|| self.failed("another control plane leads"))
    }

    fn failed(&self, detail: impl std::fmt::Display) -> StoreError {
        StoreError { path: self.path.clone().into(), detail: detail.to_string() }
    }
}

impl RegistryStore for TermRegistry {
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let term = self.term()?;
        let (records, values) = self.runtime.block_on(Records::load(&term, KIND)).map_err(|error| self.failed(error))?;
        let bytes = values.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        self.bytes.store(bytes as u64, std::sync::atomic::Ordering::Relaxed);
        *self.records.lock().unwrap_or_else(PoisonError::into_inner) = Some(records);
        Ok(values.into_iter().collect())
    }

    fn write(&self, records: &[Record]) -> Result<(), StoreError> {
        let changes: Vec<Change> = records
            .iter()
            .map(|record| match &record.value {
                Some(value) => Change::Put { key: record.key.clone(), value: value.clone() },
                None => Change::Delete { key: record.key.clone() },
            })
            .collect();
        let mut guard = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = guard.as_mut().ok_or_else(|| self.failed("it was not read yet"))?;
        let written = changes.iter().map(|change| if let Change::Put { key, value } = change { key.len() + value.len() } else { 0 });
        self.bytes.fetch_add(written.sum::<usize>() as u64, std::sync::atomic::Ordering::Relaxed);
        self.runtime.block_on(kept.write(&changes)).map_err(|error| self.failed(error))
    }

    fn size_bytes(&self) -> u64 {
        self.bytes.load(std::sync::atomic::Ordering::Relaxed)
    }
}
