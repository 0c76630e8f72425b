//! Comparing both sides without trusting anything that was remembered.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use utoipa::ToSchema;
use zk::{Client, Error};
use zksync::{Entry, Key, LinkConfig, PerSide, Side, Stat, Verification, compare, is_numbered};

use crate::definition::Definition;
use crate::link::now;
use crate::tree::{self, AclNotes, KnownAcls, Tree};

/// How often what differs is looked at again while both sides live.
const LOOKS: usize = 3;
/// Between two of these looks.
const PAUSE: Duration = Duration::from_millis(400);
/// More than that is not a matter of a moment.
const RECHECKED_MAX: u64 = 10_000;
/// Children of the root that are the servers' own or ours.
const ROOT_OWN: i64 = 2;
/// Counters that a report lists.
const COUNTERS_MAX: usize = 1_000;

/// What a verification found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VerificationReport {
    /// The link.
    pub link: String,
    /// When it began: milliseconds since 1970.
    pub started_ms: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Everything was compared once, and nothing was forgiven: both sides stood still.
    pub strict: bool,
    /// What differs.
    #[schema(value_type = Object)]
    pub found: Verification,
    /// Access control lists that were read; the others were read by a comparison before and have not changed since, as their versions tell.
    #[serde(default)]
    pub acls_read: u64,
    /// Znodes that were not compared, by reason and side.
    pub excluded: BTreeMap<String, u64>,
    /// Sequence counters of parents with numbered children that differ, the first thousand.
    pub counters: Vec<SequenceCounter>,
    /// How many there are.
    pub counters_total: u64,
}

/// What number the next sequential child gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SequenceCounter {
    /// The parent: A's path.
    pub path: String,
    /// On A.
    pub a: i64,
    /// On B.
    pub b: i64,
}

/// Sessions of their own with both sides.
///
/// # Errors
/// When a side cannot be reached.
pub async fn connect(definition: &Definition) -> Result<PerSide<Client>, String> {
    let open = async |side: Side| {
        let options = definition.ensemble(side).options().map_err(|error| error.to_string())?;
        Client::connect(&options).await.map_err(|error| format!("{}: {error}", side.as_str().to_uppercase()))
    };
    let (a, b) = futures::join!(open(Side::A), open(Side::B));
    Ok(PerSide { a: a?, b: b? })
}

/// Access control lists that were read by comparisons of a link before. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Known {
    lists: Arc<Mutex<PerSide<KnownAcls>>>,
    /// Where the link notes what it reads.
    notes: Arc<std::sync::Mutex<AclNotes>>,
}

impl Known {
    /// From now on, what a link has noted is taken as known.
    pub fn listen_to(&self, notes: AclNotes) {
        *self.notes.lock().unwrap_or_else(PoisonError::into_inner) = notes;
    }

    fn notes(&self) -> AclNotes {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next comparison reads everything itself.
    pub(crate) async fn forget(&self) {
        let mut lists = self.lists.lock().await;
        self.notes().move_to(&mut PerSide::default());
        *lists = PerSide::default();
    }
}

/// Compares both sides.
///
/// # Errors
/// When a side does not answer.
pub async fn verify(
    link: &str,
    config: &LinkConfig,
    clients: &PerSide<Client>,
    strict: bool,
    known: &Known,
) -> Result<VerificationReport, Error> {
    let (report, _) = verify_trees(link, config, clients, strict, known).await?;
    Ok(report)
}

/// Compares both sides, and gives back what was read.
///
/// # Errors
/// When a side does not answer.
pub async fn verify_trees(
    link: &str,
    config: &LinkConfig,
    clients: &PerSide<Client>,
    strict: bool,
    known: &Known,
) -> Result<(VerificationReport, PerSide<Tree>), Error> {
    let started_ms = now().unix_millis();
    let began = Instant::now();
    // One comparison of a link at a time: the second finds what the first has read.
    let mut lists = known.lists.lock().await;
    known.notes().move_to(&mut lists);
    let PerSide { a: known_a, b: known_b } = &mut *lists;
    let (a, b) = futures::join!(tree::read(&clients.a, config, Side::A, known_a), tree::read(&clients.b, config, Side::B, known_b));
    let mut trees = PerSide { a: a?, b: b? };
    drop(lists);
    let mut found = compared(&trees.a.entries, &trees.b.entries).await;
    if !strict {
        for _ in 0..LOOKS {
            if found.equal || found.differing > RECHECKED_MAX {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            let keys: Vec<Key> = found.differences.iter().map(|difference| difference.path.as_str().into()).collect();
            let (a, b) =
                futures::join!(tree::read_some(&clients.a, config, Side::A, &keys), tree::read_some(&clients.b, config, Side::B, &keys));
            let (a, b): (Vec<Entry>, Vec<Entry>) = (a?.into_values().collect(), b?.into_values().collect());
            let again = compared(&a, &b).await;
            found.equal = again.equal;
            found.differing = again.differing;
            found.differences = again.differences;
        }
        if found.equal {
            // The trees were read while they changed; that they are the same is what the later looks found.
            found.root_b.clone_from(&found.root_a);
        }
    }
    let stats = PerSide { a: std::mem::take(&mut trees.a.stats), b: std::mem::take(&mut trees.b.stats) };
    let counters = counters(&stats);
    (trees.a.stats, trees.b.stats) = (stats.a, stats.b);
    let mut excluded = BTreeMap::new();
    for (side, tree) in [("a", &trees.a), ("b", &trees.b)] {
        let reasons =
            [("ephemeral", tree.ephemerals), ("filtered", tree.filtered), ("too deep", tree.too_deep), ("unreadable", tree.denied_total)];
        for (reason, count) in reasons {
            excluded.insert(format!("{reason} on {side}"), count);
        }
    }
    if trees.a.denied_total + trees.b.denied_total > 0 {
        found.equal = false;
    }
    let report = VerificationReport {
        link: link.to_owned(),
        started_ms,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        strict,
        found,
        acls_read: trees.a.acls_read + trees.b.acls_read,
        excluded,
        counters_total: counters.len() as u64,
        counters: counters.into_iter().take(COUNTERS_MAX).collect(),
    };
    Ok((report, trees))
}

/// Hashing a large tree takes a while: not where sessions are kept alive.
async fn compared(a: &[Entry], b: &[Entry]) -> Verification {
    let (a, b) = (a.to_vec(), b.to_vec());
    tokio::task::spawn_blocking(move || compare(&a, &b)).await.unwrap_or_default()
}

/// Parents whose next sequential child would get another number on B than on A.
pub fn counters(stats: &PerSide<BTreeMap<Key, Stat>>) -> Vec<SequenceCounter> {
    let mut numbered: BTreeMap<&str, ()> = BTreeMap::new();
    for key in stats.a.keys().filter(|key| is_numbered(key)) {
        if let Some((parent, _)) = key.rsplit_once('/') {
            numbered.insert(if parent.is_empty() { "/" } else { parent }, ());
        }
    }
    let mut listed: BTreeMap<&str, i64> = BTreeMap::new();
    for key in stats.a.keys() {
        if let Some((parent, name)) = key.rsplit_once('/')
            && !name.is_empty()
        {
            *listed.entry(if parent.is_empty() { "/" } else { parent }).or_default() += 1;
        }
    }
    // A queue that is empty right now has none to show, nor has one whose children are all ephemeral: these are not among the stats.
    for (key, stat) in &stats.a {
        // Below the root are the servers' own znodes and ours, which nobody counts by.
        let unnumbered = listed.get(&**key).copied().unwrap_or_default() + if &**key == "/" { ROOT_OWN } else { 0 };
        let is_empty = stat.children == 0 && stat.creations() > 0;
        if is_empty || i64::from(stat.children) > unnumbered {
            numbered.insert(key, ());
        }
    }
    let counter = |path: &str| {
        let creations = |side: Side| stats[side].get(path).map_or(0, zksync::Stat::creations);
        SequenceCounter { path: path.to_owned(), a: creations(Side::A), b: creations(Side::B) }
    };
    numbered.keys().map(|path| counter(path)).filter(|counter| counter.a != counter.b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_whose_children_are_ephemeral_or_gone_count_as_those_with_numbered_ones() {
        let stat = |creations: i32, children: i32| Stat { cversion: 2 * creations - children, children, ..Stat::default() };
        let a = [
            ("/", stat(5, 4)),
            ("/queue", stat(7, 1)),
            ("/queue/n-0000000006", stat(0, 0)),
            ("/drained", stat(3, 0)),
            // Two candidates of an election, which nobody copies, and one persistent child.
            ("/election", stat(9, 3)),
            ("/election/settings", stat(0, 0)),
            ("/plain", stat(4, 1)),
            ("/plain/child", stat(0, 0)),
        ];
        let a: BTreeMap<Key, Stat> = a.into_iter().map(|(key, stat)| (key.into(), stat)).collect();
        let found = counters(&PerSide { a, b: BTreeMap::new() });
        let found: Vec<(&str, i64, i64)> = found.iter().map(|it| (it.path.as_str(), it.a, it.b)).collect();
        assert_eq!(found, [("/drained", 3, 0), ("/election", 9, 0), ("/queue", 7, 0)]);
    }
}
