//! The master's registry and the scheduler's records in the ensemble, written by the right of a term.

use std::sync::{Mutex, PoisonError};

use edge_mesos::{RegistryStore, StoreError};
use ha::{Change, Records, Standing, Term};
use master::Record;
use scheduler::words::Loaded;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The kinds of records, below the path of the ensemble.
const MESOS: &str = "mesos";
const MARATHON: &str = "marathon";
const ZKSYNC: &str = "zksync";

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
        let (records, values) = self.runtime.block_on(Records::load(&term, MESOS)).map_err(|error| self.failed(error))?;
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

/// The scheduler's records, for whoever leads. Calls block, and need a thread that may.
#[derive(Debug)]
pub(crate) struct TermStore {
    term: Term,
    runtime: Handle,
    records: Mutex<Option<Records>>,
}

impl TermStore {
    /// Written by the right of `term`.
    pub(crate) fn new(term: Term) -> Self {
        TermStore { term, runtime: Handle::current(), records: Mutex::new(None) }
    }
}

fn unavailable(error: ha::StoreError) -> edge_marathon::store::StoreError {
    match error {
        ha::StoreError::Damaged { .. } => edge_marathon::store::StoreError::Damaged(error.to_string()),
        _ => edge_marathon::store::StoreError::Unavailable(Box::new(error)),
    }
}

impl edge_marathon::store::Store for TermStore {
    fn load(&self) -> Result<Loaded, edge_marathon::store::StoreError> {
        let (records, values) = self.runtime.block_on(Records::load(&self.term, MARATHON)).map_err(unavailable)?;
        *self.records.lock().unwrap_or_else(PoisonError::into_inner) = Some(records);
        let texts = values.into_iter().map(|(key, value)| match String::from_utf8(value) {
            Ok(text) => Ok((key, text)),
            Err(_) => Err(edge_marathon::store::StoreError::Damaged(format!("record {key} is no text"))),
        });
        edge_marathon::store::decode(texts.collect::<Result<Vec<_>, _>>()?.into_iter())
    }

    fn write(&self, records: &[scheduler::words::Record]) -> Result<(), edge_marathon::store::StoreError> {
        let changes: Vec<Change> = records
            .iter()
            .flat_map(edge_marathon::store::encode)
            .map(|entry| match entry.text {
                Some(text) => Change::Put { key: entry.key, value: text.into_bytes() },
                None => Change::Delete { key: entry.key },
            })
            .collect();
        let mut guard = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = guard.as_mut().ok_or_else(|| edge_marathon::store::StoreError::Damaged("it was not read yet".to_owned()))?;
        self.runtime.block_on(kept.write(&changes)).map_err(unavailable)
    }
}

/// The links and migrations of zksync, for whoever leads. Calls block, and need a thread that may.
#[derive(Debug)]
pub(crate) struct TermDocuments {
    term: Term,
    runtime: Handle,
    records: Mutex<Option<Records>>,
}

impl TermDocuments {
    /// Written by the right of `term`.
    pub(crate) fn new(term: Term) -> Self {
        TermDocuments { term, runtime: Handle::current(), records: Mutex::new(None) }
    }
}

impl zksync_service::store::Shared for TermDocuments {
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
        let loaded = self.runtime.block_on(Records::load(&self.term, ZKSYNC));
        let (records, values) = loaded.map_err(|error| error.to_string())?;
        *self.records.lock().unwrap_or_else(PoisonError::into_inner) = Some(records);
        Ok(values.into_iter().collect())
    }

    fn put(&self, name: &str, value: Option<Vec<u8>>) -> Result<(), String> {
        let key = name.to_owned();
        let change = match value {
            Some(value) => Change::Put { key, value },
            None => Change::Delete { key },
        };
        let mut guard = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = guard.as_mut().ok_or("it was not read yet")?;
        self.runtime.block_on(kept.write(&[change])).map_err(|error| error.to_string())
    }
}
