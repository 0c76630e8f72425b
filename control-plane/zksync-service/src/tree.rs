//! Reading one side as a whole, for those who trust nothing else.

use std::collections::{BTreeMap, VecDeque};

use futures::stream::{FuturesUnordered, StreamExt as _};
use zk::{Client, Error, Read};
use zksync::{AclPolicy, Entry, Key, LinkConfig, Side, Stat};

use crate::link::node_from;

const BATCH: usize = 200;
const WINDOW: usize = 4;
/// Paths that are named where something could not be read.
const NAMED: usize = 100;

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
    /// Access control lists whose digests are hidden from us.
    pub hidden_acls: u64,
}

/// Reads everything that is mapped. `path_of` a key is as the mapping says; nothing is written.
///
/// # Errors
/// When the ensemble does not answer.
pub async fn read(client: &Client, config: &LinkConfig, side: Side) -> Result<Tree, Error> {
    client.sync("/").await?;
    let mut tree = Tree::default();
    let mut queue: VecDeque<Key> = config.mapping.rules().iter().map(|rule| rule.a.as_str().into()).collect();
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < WINDOW && !queue.is_empty() {
            let keys: Vec<Key> = queue.drain(..queue.len().min(BATCH)).collect();
            under_way.push(read_batch(client, config, side, keys, true));
        }
        let Some(batch) = under_way.next().await else { return Ok(tree) };
        for (key, node) in batch? {
            match node {
                Ok(node) => add(&mut tree, &mut queue, config, side, key, node),
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
    for keys in keys.chunks(BATCH) {
        for (key, node) in read_batch(client, config, side, keys.to_vec(), false).await? {
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

async fn read_batch(client: &Client, config: &LinkConfig, side: Side, keys: Vec<Key>, children: bool) -> Result<Batch, Error> {
    let acl = config.acl == AclPolicy::Copy;
    let reads: Vec<Read> = keys.iter().map(|key| Read { path: config.mapping.path(side, key), children, acl }).collect();
    let nodes = client.read(&reads).await?;
    Ok(keys.into_iter().zip(nodes).collect())
}

fn add(tree: &mut Tree, queue: &mut VecDeque<Key>, config: &LinkConfig, side: Side, key: Key, node: zk::NodeRead) {
    let path = config.mapping.path(side, &key);
    let prefix = if path == "/" { "" } else { &path };
    for name in node.children.iter().flatten() {
        match config.mapping.key(side, &format!("{prefix}/{name}")) {
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
    for entry in node.acl.iter().flatten() {
        *tree.schemes.entry(entry.scheme.clone()).or_default() += 1;
        tree.hidden_acls += u64::from(entry.scheme == "digest" && entry.id.ends_with(":x"));
    }
    let node = node_from(node);
    tree.stats.insert(key.clone(), node.stat);
    tree.entries.push(Entry::of(config, side, key, &node));
}
