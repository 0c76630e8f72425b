//! Reading one side as a whole, for those who trust nothing else.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{FuturesUnordered, StreamExt as _};
use zk::{Client, Error, Read};
use zksync::{Acl, AclPolicy, Entry, Hash, Key, LinkConfig, PerSide, Side, Stat};

use crate::link::{acl_from, node_from};

/// Requests that are under way at once.
const WINDOW: usize = 4;
/// Znodes that are read in one request, before anything is known of their sizes.
const FIRST_BATCH: usize = 16;
const BATCH_MAX: usize = 400;
/// Bytes of an answer that are aimed at: no server limits what it has to hold for one, and this is read from an ensemble at work.
const ANSWER: usize = 1024 * 1024;
/// Bytes that a znode takes in an answer besides its data.
const NODE_BYTES: usize = 80;
const ACLS_AT_ONCE: usize = 1_000;
/// Paths that are named where something could not be read.
const NAMED: usize = 100;
/// Lists that are noted for the next comparison, of each side. It reads the others itself.
const NOTED: usize = 1_000_000;

/// One side, as it was read.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// What is compared, in no order.
    pub entries: Vec<Entry>,
    /// What the ensemble keeps about each.
    pub stats: BTreeMap<Key, Stat>,
    /// Ephemeral znodes, which are not compared.
    pub ephemerals: u64,
    /// Znodes that the filters leave out, with what is below them counted as one.
    pub filtered: u64,
    /// Znodes whose paths are too deep or too long to be copied, with what is below them counted as one.
    pub too_deep: u64,
    /// Znodes that could not be read, up to a hundred, and why.
    pub denied: Vec<(String, String)>,
    /// How many could not be read.
    pub denied_total: u64,
    /// The largest znode and its bytes.
    pub largest: (String, u64),
    /// Bytes of data.
    pub bytes: u64,
    /// Entries of access control lists by scheme.
    pub schemes: BTreeMap<String, u64>,
    /// Access control lists with digests that are hidden from us.
    pub hidden_acls: u64,
    /// Access control lists that were read, because they were not known.
    pub acls_read: u64,
    /// Places of entries whose access control lists are to be read.
    without_acl: Vec<usize>,
    names: HashMap<usize, Hash>,
    known: HashMap<Hash, u64>,
}

/// Access control lists that were read before. A server counts their changes: the one of a path that was created by one transaction and has
/// one version is one list for ever, and need not be read again, which takes a request for each znode. It is not taken from what the link
/// has written: each was read from its side once, by a comparison or by the link.
#[derive(Debug, Default)]
pub struct KnownAcls {
    hashes: HashMap<Hash, u64>,
}

impl KnownAcls {
    fn name(side: Side, path: &str, stat: &zk::Stat) -> Hash {
        let mut name = Vec::with_capacity(path.len() + 13);
        name.push(u8::from(side == Side::B));
        name.extend(stat.czxid.to_le_bytes());
        name.extend(stat.aversion.to_le_bytes());
        name.extend(path.as_bytes());
        zksync::hash_of(&name)
    }
}

/// Lists that a link has read since the last comparison, for the next one. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AclNotes(Arc<Mutex<PerSide<HashMap<Hash, u64>>>>);

impl AclNotes {
    /// Notes the list of a znode that was read with it.
    pub(crate) fn note(&self, config: &LinkConfig, side: Side, path: &str, node: &zk::NodeRead) {
        let Some(acl) = &node.acl else { return };
        let acl = acl_from(acl);
        if is_hidden(&acl) {
            return;
        }
        let (name, hash) = (KnownAcls::name(side, path, &node.stat), config.acl_hash(side, &acl));
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes[side].len() < NOTED {
            notes[side].insert(name, hash);
        }
    }

    /// Moves what was noted to what is known.
    pub(crate) fn move_to(&self, known: &mut PerSide<KnownAcls>) {
        let mut notes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for side in Side::BOTH {
            known[side].hashes.extend(notes[side].drain());
        }
    }
}

/// With another identity it may be seen.
pub(crate) fn is_hidden(acl: &[Acl]) -> bool {
    acl.iter().any(|entry| entry.scheme == "digest" && entry.id.ends_with(":x"))
}

/// Reads everything that is mapped, to compare it. Nothing is written. `known` is what was read before, and becomes what is known now.
///
/// # Errors
/// When the ensemble does not answer.
pub async fn read(client: &Client, config: &LinkConfig, side: Side, known: &mut KnownAcls) -> Result<Tree, Error> {
    let mut tree = walk(client, config, side, Some(known)).await?;
    if config.acl == AclPolicy::Copy {
        let unknown = std::mem::take(&mut tree.without_acl);
        let (acls, denied) = read_all_acls(client, (config, side), &tree, &unknown).await?;
        for (place, error) in denied {
            tree.denied_total += 1;
            if tree.denied.len() < NAMED {
                tree.denied.push((config.mapping.path(side, &tree.entries[place].key), error.to_string()));
            }
        }
        tree.acls_read = unknown.len() as u64;
        for (place, acl) in acls {
            for entry in &acl {
                *tree.schemes.entry(entry.scheme.clone()).or_default() += 1;
            }
            let hash = config.acl_hash(side, &acl);
            tree.entries[place].acl = hash;
            match tree.names.remove(&place) {
                // It is read again next time.
                _ if is_hidden(&acl) => tree.hidden_acls += 1,
                Some(name) => drop(tree.known.insert(name, hash)),
                None => {}
            }
        }
        tree.names.clear();
        // What is not there any more is forgotten.
        known.hashes = std::mem::take(&mut tree.known);
    }
    Ok(tree)
}

/// Reads what the ensemble keeps about everything that is mapped, without access control lists.
///
/// # Errors
/// When the ensemble does not answer.
pub async fn read_stats(client: &Client, config: &LinkConfig, side: Side) -> Result<Tree, Error> {
    walk(client, config, side, None).await
}

type Acls = Vec<(usize, Vec<Acl>)>;

/// Those that could be read, and why the others could not. One whose znode has gone meanwhile is neither: the comparison finds that out.
async fn read_all_acls(
    client: &Client,
    (config, side): (&LinkConfig, Side),
    tree: &Tree,
    places: &[usize],
) -> Result<(Acls, Vec<(usize, Error)>), Error> {
    let (mut read, mut denied) = (Vec::new(), Vec::new());
    let mut under_way = FuturesUnordered::new();
    let mut batches = places.chunks(ACLS_AT_ONCE);
    loop {
        while under_way.len() < 2
            && let Some(places) = batches.next()
        {
            let wanted = places.iter().map(|place| {
                let key = &tree.entries[*place].key;
                let stat = tree.stats.get(key).copied().unwrap_or_default();
                // What tells whether a list is as new as this.
                (config.mapping.path(side, key), zk::Stat { czxid: stat.czxid, aversion: stat.aversion, ..zk::Stat::default() })
            });
            under_way.push(read_acls(client, wanted.collect(), places));
        }
        let Some(batch) = under_way.next().await else { return Ok((read, denied)) };
        let (places, acls) = batch?;
        for (place, acl) in places.iter().zip(acls) {
            match acl {
                Ok(acl) => read.push((*place, acl_from(&acl))),
                Err(Error::NoNode) => {}
                Err(error) => denied.push((*place, error)),
            }
        }
    }
}

type AclsRead<'a> = (&'a [usize], Vec<Result<Vec<zk::Acl>, Error>>);

async fn read_acls<'a>(client: &Client, wanted: Vec<(String, zk::Stat)>, places: &'a [usize]) -> Result<AclsRead<'a>, Error> {
    Ok((places, client.acls(&wanted).await?))
}

/// How many znodes are read in one request: as many as make an answer of about a megabyte, as far as those before tell. More come step by step,
/// fewer at once.
#[derive(Debug)]
struct Pace {
    batch: usize,
}

impl Pace {
    fn new() -> Pace {
        Pace { batch: FIRST_BATCH }
    }

    /// An answer with so many znodes had so many bytes.
    fn heed(&mut self, nodes: usize, bytes: usize) {
        let fit = ANSWER.saturating_mul(nodes) / bytes.max(1);
        if bytes > ANSWER {
            self.batch = self.batch.min(fit).max(1);
        } else if nodes >= self.batch / 2 {
            // A few at the end of a list tell little of what comes next.
            self.batch = self.batch.max((self.batch * 2).min(fit)).clamp(1, BATCH_MAX);
        }
    }

    fn heed_batch(&mut self, batch: &Batch) {
        let of_names = |node: &zk::NodeRead| node.children.iter().flatten().map(|name| name.len() + 8).sum::<usize>();
        let bytes = |node: &zk::NodeRead| node.data.len() + NODE_BYTES + of_names(node);
        self.heed(batch.len(), batch.iter().map(|(_, node)| node.as_ref().map_or(0, bytes)).sum());
    }
}

async fn walk(client: &Client, config: &LinkConfig, side: Side, mut known: Option<&mut KnownAcls>) -> Result<Tree, Error> {
    client.sync("/").await?;
    let mut tree = Tree::default();
    let mut queue: VecDeque<Key> = config.mapping.rules().iter().map(|rule| rule.a.as_str().into()).collect();
    let mut under_way = FuturesUnordered::new();
    let mut pace = Pace::new();
    loop {
        while under_way.len() < WINDOW && !queue.is_empty() {
            let keys: Vec<Key> = queue.drain(..queue.len().min(pace.batch)).collect();
            under_way.push(read_batch(client, config, side, keys, true, false));
        }
        let Some(batch) = under_way.next().await else { return Ok(tree) };
        let batch = batch?;
        pace.heed_batch(&batch);
        for (key, node) in batch {
            match node {
                Ok(node) => add(&mut tree, &mut queue, (config, side), key, node, known.as_deref_mut()),
                Err(Error::NoNode) => {}
                Err(error) => {
                    tree.denied_total += 1;
                    if tree.denied.len() < NAMED {
                        tree.denied.push((config.mapping.path(side, &key), error.to_string()));
                    }
                }
            }
        }
    }
}

/// Reads these alone.
///
/// # Errors
/// When the ensemble does not answer.
pub async fn read_some(client: &Client, config: &LinkConfig, side: Side, keys: &[Key]) -> Result<BTreeMap<Key, Entry>, Error> {
    let mut found = BTreeMap::new();
    let mut pace = Pace::new();
    let mut left = keys;
    while !left.is_empty() {
        let (now, later) = left.split_at(left.len().min(pace.batch));
        left = later;
        let batch = read_batch(client, config, side, now.to_vec(), false, config.acl == AclPolicy::Copy).await?;
        pace.heed_batch(&batch);
        for (key, node) in batch {
            if let Ok(node) = node
                && node.stat.ephemeral_owner == 0
            {
                found.insert(key.clone(), Entry::of(config, side, key, &node_from(node)));
            }
        }
    }
    Ok(found)
}

type Batch = Vec<(Key, Result<zk::NodeRead, Error>)>;

async fn read_batch(client: &Client, config: &LinkConfig, side: Side, keys: Vec<Key>, children: bool, acl: bool) -> Result<Batch, Error> {
    let reads: Vec<Read> = keys.iter().map(|key| Read { path: config.mapping.path(side, key), children, acl }).collect();
    let nodes = client.read(&reads).await?;
    Ok(keys.into_iter().zip(nodes).collect())
}

fn add(
    tree: &mut Tree,
    queue: &mut VecDeque<Key>,
    (config, side): (&LinkConfig, Side),
    key: Key,
    node: zk::NodeRead,
    known: Option<&mut KnownAcls>,
) {
    let path = config.mapping.path(side, &key);
    let prefix = if path == "/" { "" } else { &path };
    for name in node.children.iter().flatten() {
        match config.mapping.key(side, &format!("{prefix}/{name}")) {
            Some(child) if zksync::too_deep(&child) => tree.too_deep += 1,
            Some(child) => queue.push_back(child),
            None => tree.filtered += 1,
        }
    }
    if node.stat.ephemeral_owner != 0 {
        tree.ephemerals += 1;
        return;
    }
    let size = node.data.len() as u64;
    tree.bytes += size;
    if size > tree.largest.1 || tree.largest.0.is_empty() {
        tree.largest = (path.clone(), size);
    }
    let before = known.filter(|_| config.acl == AclPolicy::Copy).map(|known| {
        let name = KnownAcls::name(side, &path, &node.stat);
        let hash = known.hashes.get(&name).copied();
        match hash {
            Some(hash) => drop(tree.known.insert(name, hash)),
            None => {
                tree.without_acl.push(tree.entries.len());
                tree.names.insert(tree.entries.len(), name);
            }
        }
        hash
    });
    let node = node_from(node);
    tree.stats.insert(key.clone(), node.stat);
    tree.entries.push(Entry::with_acl(key, &node, before.flatten().unwrap_or(0)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_to_about_a_megabyte_whatever_the_size_of_znodes() {
        let mut pace = Pace::new();
        let read = |pace: &mut Pace, size: usize| {
            let nodes = pace.batch;
            pace.heed(nodes, nodes * size);
            nodes * size
        };
        let small: Vec<usize> = (0..8).map(|_| read(&mut pace, 100)).collect();
        assert_eq!((pace.batch, small[0]), (BATCH_MAX, FIRST_BATCH * 100));
        // The first large ones come unexpected; those after them do not, also where more requests were under way.
        for nodes in [BATCH_MAX, BATCH_MAX, BATCH_MAX, 3] {
            pace.heed(nodes, nodes * 1_000_000);
        }
        assert_eq!(pace.batch, 1);
        assert!(read(&mut pace, 1_000_000) <= ANSWER && read(&mut pace, 1_000_000) <= ANSWER);
        // Nothing grows again because a list ends.
        pace.batch = 100;
        pace.heed(1, 100);
        assert_eq!(pace.batch, 100);
        for _ in 0..20 {
            assert!(read(&mut pace, 20_000) <= 2 * ANSWER);
        }
        assert!((40..=60).contains(&pace.batch), "{}", pace.batch);
        pace.heed(0, 0);
        assert!(pace.batch >= 1);
    }
}
