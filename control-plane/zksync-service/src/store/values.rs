//! Whole values of resolutions that are larger than a record: by what they hash to, so that each is kept once, and up to a sum for all links together,
//! beyond which the oldest go. The record keeps the beginning, the length and the hash in any case: so these have a file of their own, and what goes
//! wrong there is told and counted, and keeps nothing else from being written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redb::{ReadTransaction, ReadableTable as _, TableDefinition, TableError, WriteTransaction};
use zksync::Hash;

use super::StoreError;
use super::file::{DataFile, Open};

/// Bytes of whole values that are kept of all links, as they take room in the file.
const KEPT_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes that redb takes at least for a value.
const PAGE: u64 = 4_096;
/// Bytes of the disk that are left to others, above all to the store's own file: a link cannot go on without that.
const RESERVE: u64 = 64 * 1024 * 1024;
/// After a failure, values are left out for so long: opening the file anew reads it.
const PAUSE: Duration = Duration::from_secs(10);

/// A link, and what a value hashes to.
type Place<'a> = (&'a str, &'a [u8]);

/// By link and hash.
const VALUES: TableDefinition<'_, Place<'_>, &[u8]> = TableDefinition::new("values");
/// By link and hash: the number under which it was recorded last. Beside the values: these are not written again for it.
const NUMBERS: TableDefinition<'_, Place<'_>, u64> = TableDefinition::new("numbers");
/// By number: link and hash.
const ORDER: TableDefinition<'_, u64, Place<'_>> = TableDefinition::new("order");
/// The number of the newest, and the sum of all.
const SUMS: TableDefinition<'_, (), (u64, u64)> = TableDefinition::new("sums");

/// Where they stood in the store's own file.
const BEFORE: [TableDefinition<'_, (), ()>; 3] =
    [TableDefinition::new("values"), TableDefinition::new("values_order"), TableDefinition::new("values_sums")];

/// Tells how many bytes of the disk are free.
pub(super) type Free = Box<dyn Fn() -> u64 + Send + Sync>;

/// Whole values.
pub(super) struct Values {
    file: DataFile,
    free: Free,
    limit: u64,
    pause: Duration,
    failures: Mutex<Failures>,
}

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Values").field("failures", &self.failures).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Failures {
    last: Option<Instant>,
    /// Values that could not be kept, by link.
    unkept: BTreeMap<String, u64>,
}

impl Values {
    pub(super) fn new(open: Open, free: Free) -> Values {
        Values { file: DataFile::new(open), free, limit: KEPT_BYTES, pause: PAUSE, failures: Mutex::default() }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps these, as the newest. What cannot be kept is counted: its record has the beginning.
    pub(super) fn keep(&self, link: &str, whole: &[Arc<[u8]>]) {
        if whole.is_empty() {
            return;
        }
        let waits = self.failures().last.is_some_and(|last| last.elapsed() < self.pause);
        let kept = if waits { None } else { Some(self.write(link, whole)) };
        let mut failures = self.failures();
        match kept {
            Some(Ok(dropped)) => {
                if failures.last.take().is_some() {
                    tracing::info!(link, "large values of decided conflicts are kept whole again");
                }
                if dropped > 0 {
                    tracing::warn!(link, dropped, "the oldest large values of decided conflicts are not kept whole any more");
                }
            }
            failed => {
                if let Some(Err(error)) = failed {
                    if failures.last.is_none() {
                        tracing::warn!(link, error = ?error, "large values of decided conflicts are not kept whole: records have the first 64 KiB");
                    }
                    failures.last = Some(Instant::now());
                }
                *failures.unkept.entry(link.to_owned()).or_default() += whole.len() as u64;
            }
        }
    }

    /// Gives back how many old ones went.
    fn write(&self, link: &str, whole: &[Arc<[u8]>]) -> Result<u64, StoreError> {
        let spare = (self.free)().saturating_sub(RESERVE);
        let dropped = self.file.write(|transaction| keep_within(transaction, link, whole, (self.limit, spare)))?;
        dropped.ok_or_else(|| redb::Error::Io(std::io::ErrorKind::StorageFull.into()).into())
    }

    /// Values of a link that could not be kept, since this process began.
    pub(super) fn unkept(&self, link: &str) -> u64 {
        self.failures().unkept.get(link).copied().unwrap_or_default()
    }

    /// The value with this hash, if it is kept.
    pub(super) fn find(&self, link: &str, hash: &Hash) -> Option<Vec<u8>> {
        match self.file.read(|transaction| find(transaction, link, hash)) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(link, ?error, "large values of decided conflicts cannot be read");
                None
            }
        }
    }

    /// Forgets all of a link.
    pub(super) fn forget(&self, link: &str) {
        self.failures().unkept.remove(link);
        if let Err(error) = self.file.write(|transaction| forget(transaction, link)) {
            tracing::warn!(link, ?error, "large values of a link that is gone stay until others take their place");
        }
    }
}

/// Removes what stood in the store's own file.
pub(super) fn remove_before(transaction: &WriteTransaction) -> Result<(), StoreError> {
    for table in BEFORE {
        transaction.delete_table(table)?;
    }
    Ok(())
}

/// Bytes that a value takes in the file: redb rounds up to a power of two.
fn room(bytes: u64) -> u64 {
    (bytes + PAGE / 4).next_power_of_two().max(PAGE)
}

/// Gives back how many old ones went; none, and changes nothing, when what is new is more than `spare`.
fn keep_within(
    transaction: &WriteTransaction,
    link: &str,
    whole: &[Arc<[u8]>],
    (limit, spare): (u64, u64),
) -> Result<Option<u64>, StoreError> {
    let mut values = transaction.open_table(VALUES)?;
    let mut numbers = transaction.open_table(NUMBERS)?;
    let mut order = transaction.open_table(ORDER)?;
    let mut sums = transaction.open_table(SUMS)?;
    let (mut newest, mut sum) = sums.get(())?.map_or((0, 0), |sums| sums.value());
    let mut needed = 0;
    for data in whole {
        if numbers.get((link, zksync::hash_of(data).as_slice()))?.is_none() {
            needed += room(data.len() as u64);
        }
    }
    if needed > spare {
        return Ok(None);
    }
    for data in whole {
        let hash = zksync::hash_of(data);
        let place = (link, hash.as_slice());
        newest += 1;
        let before = numbers.insert(place, newest)?.map(|before| before.value());
        match before {
            Some(before) => drop(order.remove(before)?),
            None => {
                values.insert(place, &**data)?;
                sum += room(data.len() as u64);
            }
        }
        order.insert(newest, place)?;
    }
    let mut dropped = 0;
    while sum > limit {
        let oldest = order.pop_first()?.map(|(_, place)| {
            let (link, hash) = place.value();
            (link.to_owned(), hash.to_vec())
        });
        let Some((link, hash)) = oldest else { break };
        let place = (link.as_str(), hash.as_slice());
        numbers.remove(place)?;
        sum = sum.saturating_sub(values.remove(place)?.map_or(0, |value| room(value.value().len() as u64)));
        dropped += 1;
    }
    sums.insert((), (newest, sum))?;
    Ok(Some(dropped))
}

fn find(transaction: &ReadTransaction, link: &str, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
    match transaction.open_table(VALUES) {
        Ok(table) => Ok(table.get((link, hash.as_slice()))?.map(|value| value.value().to_vec())),
        // None was kept yet.
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn forget(transaction: &WriteTransaction, link: &str) -> Result<(), StoreError> {
    let mut values = transaction.open_table(VALUES)?;
    let mut numbers = transaction.open_table(NUMBERS)?;
    let mut order = transaction.open_table(ORDER)?;
    let mut sums = transaction.open_table(SUMS)?;
    let mut found = Vec::new();
    for entry in numbers.range((link, [].as_slice())..)? {
        let (place, number) = entry?;
        let (of, hash) = place.value();
        if of != link {
            break;
        }
        found.push((hash.to_vec(), number.value()));
    }
    let (newest, mut sum) = sums.get(())?.map_or((0, 0), |sums| sums.value());
    for (hash, number) in found {
        let place = (link, hash.as_slice());
        order.remove(number)?;
        numbers.remove(place)?;
        sum = sum.saturating_sub(values.remove(place)?.map_or(0, |value| room(value.value().len() as u64)));
    }
    sums.insert((), (newest, sum))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::file::tests::Disk;
    use super::*;

    fn with_room(disk: &Disk) -> Values {
        Values::new(disk.opener(), Box::new(|| u64::MAX))
    }

    /// The last of a disk is left to what cannot do without.
    #[test]
    fn values_leave_room_to_others() {
        let free = Arc::new(std::sync::atomic::AtomicU64::new(RESERVE + room(100_000)));
        let told = free.clone();
        let values =
            Values { pause: Duration::ZERO, ..Values::new(Disk::default().opener(), Box::new(move || told.load(Ordering::SeqCst))) };
        values.keep("l", &[value(1)]);
        free.store(RESERVE + room(100_000) - 1, Ordering::SeqCst);
        values.keep("l", &[value(2)]);
        values.keep("l", &[value(1)]);
        assert_eq!((kept(&values, "l"), values.unkept("l")), (vec![1], 1), "what is there already needs none");
    }

    fn value(n: u8) -> Arc<[u8]> {
        vec![n; 100_000].into()
    }

    fn kept(values: &Values, link: &str) -> Vec<u8> {
        (1..=4).filter(|n| values.find(link, &zksync::hash_of(&value(*n))).is_some_and(|found| *found == *value(*n))).collect()
    }

    fn sum(values: &Values) -> u64 {
        values.file.read(|transaction| Ok(transaction.open_table(SUMS)?.get(())?.unwrap().value().1)).unwrap()
    }

    #[test]
    fn the_oldest_values_go_when_the_sum_of_all_links_is_reached_and_each_is_kept_once() {
        let values = Values { limit: 2 * room(100_000), ..with_room(&Disk::default()) };
        assert_eq!((room(100_000), kept(&values, "l")), (131_072, vec![]));
        let keep_all = |link: &str, all: &[u8]| values.keep(link, &all.iter().map(|n| value(*n)).collect::<Vec<_>>());
        keep_all("l", &[1, 2]);
        keep_all("l", &[1, 1]);
        assert_eq!((kept(&values, "l"), sum(&values)), (vec![1, 2], 262_144));
        keep_all("m", &[3]);
        assert_eq!(
            (kept(&values, "l"), kept(&values, "m")),
            (vec![1], vec![3]),
            "1 was recorded again later than 2; m has as much right as l"
        );
        keep_all("m", &[1]);
        assert_eq!((kept(&values, "l"), kept(&values, "m")), (vec![], vec![1, 3]), "links do not share");
        values.forget("m");
        assert_eq!((kept(&values, "m"), sum(&values)), (vec![], 0));
        keep_all("l", &[4]);
        assert_eq!((kept(&values, "l"), values.unkept("l")), (vec![4], 0));
    }

    #[test]
    fn what_is_kept_already_is_not_written_again() {
        let values = with_room(&Disk::default());
        let large: Arc<[u8]> = vec![7; 4_000_000].into();
        values.keep("l", std::slice::from_ref(&large));
        let pages = |values: &Values| {
            let mut stored = 0;
            values
                .file
                .write(|transaction| {
                    keep_within(transaction, "l", std::slice::from_ref(&large), (KEPT_BYTES, 0))?;
                    // What a transaction replaces stays until it is committed: what it wrote itself is beside that.
                    let stats = transaction.stats()?;
                    stored = stats.allocated_pages() * u64::try_from(stats.page_size()).unwrap();
                    Ok(())
                })
                .unwrap();
            stored
        };
        assert!(pages(&values) < 6_000_000, "one copy of it, and little else");
    }

    #[test]
    fn a_full_disk_leaves_records_without_their_whole_values_and_nothing_worse() {
        let disk = Disk::default();
        let values = Values { pause: Duration::ZERO, ..with_room(&disk) };
        values.keep("l", &[value(1)]);
        disk.full.store(true, Ordering::SeqCst);
        for n in 2..4 {
            values.keep("l", &[vec![n; 3_000_000].into()]);
        }
        assert_eq!(kept(&values, "l"), [1], "what was there can be read all the same");
        assert_eq!((values.unkept("l"), values.unkept("m")), (2, 0));
        disk.full.store(false, Ordering::SeqCst);
        values.keep("l", &[value(4)]);
        assert_eq!((kept(&values, "l"), values.unkept("l")), (vec![1, 4], 2));
        // Nor is it tried again and again.
        let values = Values { pause: Duration::from_secs(3_600), ..values };
        disk.full.store(true, Ordering::SeqCst);
        values.keep("l", &[vec![5; 3_000_000].into()]);
        disk.full.store(false, Ordering::SeqCst);
        values.keep("l", &[value(3)]);
        assert_eq!((kept(&values, "l"), values.unkept("l")), (vec![1, 4], 4));
    }
}
