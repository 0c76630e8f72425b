//! Whole values of resolutions that are larger than a record: by what they hash to, so that each is kept once, and up to a sum, beyond which the
//! oldest go. The record keeps the beginning, the length and the hash in any case.

use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable as _, TableDefinition, TableError, WriteTransaction};
use zksync::Hash;

use super::StoreError;

/// Bytes of whole values that are kept of a link.
const KEPT_BYTES: u64 = 256 * 1024 * 1024;

/// A link, and what a value hashes to.
type Place<'a> = (&'a str, &'a [u8]);
/// When a value was kept, and the value.
type Kept<'a> = (u64, &'a [u8]);

/// By link and hash.
const VALUES: TableDefinition<'_, Place<'_>, Kept<'_>> = TableDefinition::new("values");
/// By link and when: the hash.
const ORDER: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("values_order");
/// By link: the number of the newest, and the sum of all.
const SUMS: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("values_sums");

/// Keeps these, as the newest.
pub(super) fn keep(transaction: &WriteTransaction, link: &str, whole: &[Arc<[u8]>]) -> Result<(), StoreError> {
    keep_within(transaction, link, whole, KEPT_BYTES)
}

fn keep_within(transaction: &WriteTransaction, link: &str, whole: &[Arc<[u8]>], limit: u64) -> Result<(), StoreError> {
    if whole.is_empty() {
        return Ok(());
    }
    let mut values = transaction.open_table(VALUES)?;
    let mut order = transaction.open_table(ORDER)?;
    let mut sums = transaction.open_table(SUMS)?;
    let (mut newest, mut sum) = sums.get(link)?.map_or((0, 0), |sums| sums.value());
    for data in whole {
        let hash = zksync::hash_of(data);
        newest += 1;
        sum += data.len() as u64;
        let before = values.insert((link, hash.as_slice()), (newest, &**data))?.map(|before| before.value().0);
        if let Some(before) = before {
            order.remove((link, before))?;
            sum = sum.saturating_sub(data.len() as u64);
        }
        order.insert((link, newest), hash.as_slice())?;
    }
    let mut dropped = 0;
    while sum > limit {
        let oldest =
            order.range((link, 0)..=(link, u64::MAX))?.next().transpose()?.map(|(key, hash)| (key.value().1, hash.value().to_vec()));
        let Some((number, hash)) = oldest else { break };
        order.remove((link, number))?;
        let bytes = values.remove((link, hash.as_slice()))?.map_or(0, |value| value.value().1.len() as u64);
        sum = sum.saturating_sub(bytes);
        dropped += 1;
    }
    if dropped > 0 {
        tracing::warn!(link, dropped, "the oldest large values of decided conflicts are not kept whole any more");
    }
    sums.insert(link, (newest, sum))?;
    Ok(())
}

/// The value with this hash, if it is kept.
pub(super) fn find(transaction: &ReadTransaction, link: &str, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
    match transaction.open_table(VALUES) {
        Ok(table) => Ok(table.get((link, hash.as_slice()))?.map(|value| value.value().1.to_vec())),
        // None was kept yet.
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Forgets all of a link.
pub(super) fn forget(transaction: &WriteTransaction, link: &str) -> Result<(), StoreError> {
    transaction.open_table(VALUES)?.retain(|(of, _), _| of != link)?;
    transaction.open_table(ORDER)?.retain(|(of, _), _| of != link)?;
    transaction.open_table(SUMS)?.remove(link)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase as _};

    use super::*;

    #[test]
    fn the_oldest_values_go_when_the_sum_is_reached_and_each_is_kept_once() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create(directory.path().join("x.redb")).unwrap();
        let value = |n: u8| -> Arc<[u8]> { vec![n; 100_000].into() };
        let keep_all = |values: &[u8]| {
            let transaction = database.begin_write().unwrap();
            keep_within(&transaction, "l", &values.iter().map(|n| value(*n)).collect::<Vec<_>>(), 250_000).unwrap();
            transaction.commit().unwrap();
        };
        let kept = || {
            let transaction = database.begin_read().unwrap();
            let is_kept = |n: &u8| find(&transaction, "l", &zksync::hash_of(&value(*n))).unwrap().is_some();
            (1..=4).filter(is_kept).collect::<Vec<u8>>()
        };
        keep_all(&[1, 2]);
        keep_all(&[1]);
        assert_eq!(kept(), [1, 2]);
        keep_all(&[3]);
        assert_eq!(kept(), [1, 3], "1 was recorded again later than 2");
        let transaction = database.begin_write().unwrap();
        forget(&transaction, "l").unwrap();
        transaction.commit().unwrap();
        assert_eq!(kept(), Vec::<u8>::new());
    }
}
