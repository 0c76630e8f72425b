//! What stands in the tables, read and written.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{ReadableTable, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zksync::{Base, Conflict, Key, PerSide, Resolution, Tombstone};

use super::{APPLIED, BASE_DATA, BASES, CONFLICTS, INTENTS, KNOWN, OWN, RESOLUTIONS, RESOLUTIONS_MAX, SAVES, StoreError, TOMBSTONES};
use crate::checkpoint::entry::{Entry, Told};

/// Number of the newest resolution of a link; 0 when there is none.
pub(super) fn last_resolution(transaction: &WriteTransaction, link: &str) -> Result<u64, StoreError> {
    let table = transaction.open_table(RESOLUTIONS)?;
    let last = table.range((link, 0)..=(link, u64::MAX))?.next_back().transpose()?;
    Ok(last.map_or(0, |(key, _)| key.value().1))
}

pub(super) fn keep_data(transaction: &WriteTransaction, link: &str, base_data: BTreeMap<Key, Option<Arc<[u8]>>>) -> Result<(), StoreError> {
    let mut table = transaction.open_table(BASE_DATA)?;
    for (key, data) in base_data {
        match data {
            Some(data) => table.insert((link, key.as_ref()), &*data)?,
            None => table.remove((link, key.as_ref()))?,
        };
    }
    Ok(())
}

/// The data that both sides had before a conflict: as they were noted with it, or as they are kept, if they are those that both agreed on.
pub(super) fn data_before(
    transaction: &WriteTransaction,
    link: &str,
    id: u64,
    key: &Key,
    bases: &BTreeMap<Key, Option<Base>>,
) -> Result<Option<Vec<u8>>, StoreError> {
    if let Some(noted) = transaction.open_table(CONFLICTS)?.get((link, id))? {
        let noted: Conflict = parse(&format!("{link} conflict {id}"), noted.value())?;
        if noted.base_data.is_some() {
            return Ok(noted.base_data);
        }
    }
    let base = match bases.get(key) {
        Some(base) => *base,
        None => transaction.open_table(BASES)?.get((link, key.as_ref()))?.and_then(|base| Base::decode(base.value())),
    };
    let data = transaction.open_table(BASE_DATA)?.get((link, key.as_ref()))?.map(|data| data.value().to_vec());
    Ok(data.zip(base).filter(|(data, base)| zksync::hash_of(data) == base.data).map(|(data, _)| data))
}

pub(super) fn keep(transaction: &WriteTransaction, link: &str, entry: &Entry) -> Result<(), StoreError> {
    let mut table = transaction.open_table(BASES)?;
    for (key, base) in &entry.bases {
        match base {
            Some(base) => {
                table.insert((link, key.as_ref()), base.encode().as_slice())?;
            }
            None => {
                table.remove((link, key.as_ref()))?;
            }
        }
    }
    let mut table = transaction.open_table(TOMBSTONES)?;
    for (key, tombstone) in &entry.tombstones {
        match tombstone {
            Some(tombstone) => table.insert((link, key.as_ref()), tombstone.encode().as_slice())?,
            None => table.remove((link, key.as_ref()))?,
        };
    }
    let mut table = transaction.open_table(CONFLICTS)?;
    for (id, conflict) in &entry.conflicts {
        match conflict {
            Some(conflict) => {
                table.insert((link, *id), render(conflict)?.as_slice())?;
            }
            None => {
                table.remove((link, *id))?;
            }
        }
    }
    let mut table = transaction.open_table(INTENTS)?;
    for (id, intent) in &entry.intents {
        match intent {
            Some(intent) => {
                table.insert((link, *id), render(intent)?.as_slice())?;
            }
            None => {
                table.remove((link, *id))?;
            }
        }
    }
    let mut table = transaction.open_table(RESOLUTIONS)?;
    for (number, resolution) in &entry.resolutions {
        table.insert((link, *number), render(resolution)?.as_slice())?;
        // The oldest go; those of numbers that were never used are not there.
        if let Some(old) = number.checked_sub(RESOLUTIONS_MAX) {
            table.remove((link, old))?;
        }
    }
    if let Some(Told { applied, save, own, known_ms, braked }) = entry.told {
        transaction.open_table(KNOWN)?.insert(link, (known_ms.a, known_ms.b))?;
        transaction.open_table(APPLIED)?.insert(link, (applied.a, applied.b))?;
        transaction.open_table(SAVES)?.insert(link, save)?;
        transaction.open_table(OWN)?.insert(link, (own.a, own.b, braked))?;
    }
    Ok(())
}

/// A resolution as it was recorded; those of before values told their sizes tell them, too.
pub(super) fn recorded(link: &str, number: u64, bytes: &[u8]) -> Result<Resolution, StoreError> {
    let mut resolution: Resolution = parse(&format!("{link} resolution {number}"), bytes)?;
    for value in [&mut resolution.sides.a, &mut resolution.sides.b].into_iter().flatten().filter(|value| !value.cut) {
        value.size = value.data.len() as u64;
    }
    Ok(resolution)
}

pub(super) fn tombstone(link: &str, path: &str, bytes: &[u8]) -> Result<Tombstone, StoreError> {
    Tombstone::decode(bytes).ok_or_else(|| StoreError::Damaged { place: format!("{link} {path}"), detail: "no tombstone".to_owned() })
}

pub(super) fn known_of(table: &impl ReadableTable<&'static str, (u64, u64)>, link: &str) -> Result<PerSide<u64>, StoreError> {
    Ok(table.get(link)?.map_or_else(PerSide::default, |known| PerSide { a: known.value().0, b: known.value().1 }))
}

pub(super) fn own_of(table: &impl ReadableTable<&'static str, (i64, i64, bool)>, link: &str) -> Result<(PerSide<i64>, bool), StoreError> {
    let own = table.get(link)?.map(|own| own.value());
    Ok(own.map_or_else(Default::default, |(a, b, braked)| (PerSide { a, b }, braked)))
}

pub(super) fn parse<T: DeserializeOwned>(place: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Damaged { place: place.to_owned(), detail: error.to_string() })
}

pub(super) fn render<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Damaged { place: "a document".to_owned(), detail: error.to_string() })
}
