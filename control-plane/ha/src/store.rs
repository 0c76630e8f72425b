//! Records in the ensemble that only the leader can write.
//!
//! A record is a znode; one that is too large for a request is in parts below its znode, and becomes valid in one transaction with everything
//! that is written with it. A change that is too large for a transaction is written as a record first, and applied piece by piece; whoever comes next
//! finishes it. So a change is there as a whole or not at all, whatever its size and wherever the writer dies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use zk::{Acl, Client, CreateKind, Error, MultiError, Op, Read};

mod asking;
mod layout;

use crate::guard::ours_alone;
use asking::{refused, retried};
use layout::{Stored, batch_of, encode_batch, key_of, name_of, shard_of};

/// Bytes of data in a transaction. The servers' limit is 1 MiB less one for the whole request (`jute.maxbuffer`); they also keep the last 500
/// requests in memory (`zookeeper.commitLogCount`), which large ones would fill.
const TRANSACTION_BYTES: usize = 256 * 1024;
/// Operations in a transaction: their paths count, too.
const TRANSACTION_OPS: usize = 1_000;
/// Bytes of a part, and of the largest value that is stored whole.
const PART_BYTES: usize = 128 * 1024;
/// Records that are read in one request; less when they are large.
const READ_AT_ONCE: usize = 64;
/// How long a request waits for the connection to come back before nothing more is known.
const PATIENCE: Duration = Duration::from_secs(20);
/// The change that is being applied.
const BATCH: &str = "batch";

/// The right to write, from one election to the next. Whoever has a later one has made this one void.
#[derive(Clone, Debug)]
pub struct Term {
    client: Client,
    root: String,
    number: i32,
    over: CancellationToken,
    /// Whether what is written is for our identity alone.
    has_identity: bool,
}

impl Term {
    /// Begins a term below `root`: from now on no writer of an earlier one succeeds. With an identity, what is made is for that one alone.
    pub(crate) async fn begin(client: &Client, root: &str, leader: &str, has_identity: bool) -> Result<Term, Error> {
        let epoch = epoch_of(root);
        client.create_all_with(&epoch, &ours_alone(has_identity)).await?;
        let stat = client.set(&epoch, leader.as_bytes(), None).await?;
        Ok(Term { client: client.clone(), root: root.to_owned(), number: stat.version, over: CancellationToken::new(), has_identity })
    }

    /// Its number: later terms have higher ones.
    pub fn number(&self) -> i32 {
        self.number
    }

    /// Waits until we do not lead any more.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Whether we do not lead any more.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    fn check(&self) -> Op {
        Op::Check { path: epoch_of(&self.root), version: self.number }
    }
}

/// What fences the terms below `root`.
pub(crate) fn epoch_of(root: &str) -> String {
    format!("{root}/epoch")
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else leads: nothing was written, and nothing will be.
    #[error("another control plane leads: nothing was written")]
    Deposed,
    /// It may have been written or not. Read everything again, in a new term.
    #[error("ZooKeeper did not answer in time: whether the change was written is not known")]
    Unknown,
    /// The operator looks at the ensemble.
    #[error("ZooKeeper refused the change: {0}")]
    Refused(String),
    /// The operator gives this control plane the identity that the others have.
    #[error("the records in ZooKeeper are of another identity than the one that this control plane shows (in --zk, or --zk-access-file)")]
    NotOurs,
    /// The operator restores the ensemble from a copy; we never delete it.
    #[error("record {record} in ZooKeeper is damaged: {detail}")]
    Damaged {
        /// Its znode.
        record: String,
        /// What is wrong with it.
        detail: &'static str,
    },
}

/// A change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has this value.
    Put {
        /// Which.
        key: String,
        /// The value.
        value: Vec<u8>,
    },
    /// It is no more.
    Delete {
        /// Which.
        key: String,
    },
}

impl Change {
    fn key(&self) -> &str {
        match self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Change::Put { key, value } => key.len() + value.len(),
            Change::Delete { key } => key.len(),
        }
    }
}

/// The records of one kind, for the one who writes them.
#[derive(Debug)]
pub struct Records {
    term: Term,
    root: String,
    /// Znodes that are there, with the names of their parts.
    known: BTreeMap<String, BTreeSet<String>>,
    shards: BTreeSet<String>,
    /// Transactions so far; the znode of the kind has the number of the last, which tells whether an unanswered one was applied.
    written: u64,
    /// Parts are named by the term and this.
    parts: u64,
}

impl Records {
    /// All records of a kind, and the right to change them. Finishes what an earlier writer has begun.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn load(term: &Term, kind: &str) -> Result<(Records, BTreeMap<String, Vec<u8>>), StoreError> {
        let root = format!("{}/store/{kind}", term.root);
        let client = &term.client;
        let acl = ours_alone(term.has_identity);
        retried(client, || client.create_all_with(&root, &acl)).await?;
        // What an earlier leader wrote has reached our server.
        retried(client, || client.sync(&root)).await?;
        let (data, _) = retried(client, || client.get(&root)).await?;
        let written = layout::number(&data);
        let mut records = Records { term: term.clone(), root, known: BTreeMap::new(), shards: BTreeSet::new(), written, parts: 0 };
        let mut values = records.read_all().await?;
        if let Some(batch) = values.remove(BATCH) {
            let changes =
                batch_of(&batch).ok_or(StoreError::Damaged { record: records.path(BATCH), detail: "the change cannot be read" })?;
            for change in &changes {
                match change {
                    Change::Put { key, value } => drop(values.insert(key.clone(), value.clone())),
                    Change::Delete { key } => drop(values.remove(key)),
                }
            }
            records.apply_batch(changes).await?;
        }
        Ok((records, values))
    }

    /// Makes all changes, or none.
    ///
    /// # Errors
    /// See [`StoreError`]. After [`StoreError::Unknown`] and [`StoreError::Refused`] the records are to be loaded again.
    pub async fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        // The last change of a key is the one that counts.
        let last: BTreeMap<&str, &Change> = changes.iter().map(|change| (change.key(), change)).collect();
        let whole: usize = last.values().map(|change| change.bytes().min(PART_BYTES)).sum();
        if whole <= TRANSACTION_BYTES && last.len() * 3 <= TRANSACTION_OPS {
            let changes: Vec<Change> = last.into_values().cloned().collect();
            return self.transact(&changes).await;
        }
        let changes: Vec<Change> = last.into_values().cloned().collect();
        self.put_batch(&changes).await?;
        self.apply_batch(changes).await
    }

    /// Writes a large change down as one record: from here on it will be made.
    async fn put_batch(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.transact(&[Change::Put { key: BATCH.to_owned(), value: encode_batch(changes) }]).await
    }

    async fn apply_batch(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut some = Vec::new();
        let mut bytes = 0;
        for change in changes {
            let size = change.bytes().min(PART_BYTES);
            if !some.is_empty() && (bytes + size > TRANSACTION_BYTES || (some.len() + 1) * 3 > TRANSACTION_OPS) {
                self.transact(&some).await?;
                some.clear();
                bytes = 0;
            }
            bytes += size;
            some.push(change);
        }
        some.push(Change::Delete { key: BATCH.to_owned() });
        self.transact(&some).await
    }

    /// Makes changes that fit into a transaction, apart from the parts of large values, which are written before.
    async fn transact(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut ops = Vec::new();
        let mut after = Vec::new();
        for change in changes {
            let name = self.znode(change.key());
            self.make_shard(&name).await?;
            let path = format!("{}/{name}", self.root);
            let there = self.known.get(&name).cloned();
            match change {
                Change::Put { value, .. } => {
                    let (stored, parts) = if value.len() > PART_BYTES {
                        self.write_parts(&name, &path, there.is_some(), value).await?
                    } else {
                        (Stored::Whole(value), BTreeSet::new())
                    };
                    let data = stored.encode();
                    if there.is_some() || !parts.is_empty() {
                        ops.push(Op::Set { path: path.clone(), data, version: None });
                    } else {
                        ops.push(Op::Create { path: path.clone(), data, acl: self.acl(), kind: CreateKind::Persistent });
                    }
                    let old = there.unwrap_or_default();
                    ops.extend(old.difference(&parts).map(|part| Op::Delete { path: format!("{path}/{part}"), version: None }));
                    after.push((name, Some(parts)));
                }
                Change::Delete { .. } => {
                    let Some(parts) = there else { continue };
                    ops.extend(parts.iter().map(|part| Op::Delete { path: format!("{path}/{part}"), version: None }));
                    ops.push(Op::Delete { path, version: None });
                    after.push((name, None));
                }
            }
        }
        self.commit(ops).await?;
        for (name, parts) in after {
            match parts {
                Some(parts) => drop(self.known.insert(name, parts)),
                None => drop(self.known.remove(&name)),
            }
        }
        Ok(())
    }

    /// Writes the parts of a large value below its znode. Nobody reads them before the znode says so.
    async fn write_parts<'v>(
        &mut self,
        name: &str,
        path: &str,
        there: bool,
        value: &'v [u8],
    ) -> Result<(Stored<'v>, BTreeSet<String>), StoreError> {
        self.parts += 1;
        let prefix = format!("{:010}-{:06}", self.term.number, self.parts);
        if !there {
            let data = Stored::Nothing.encode();
            self.commit(vec![Op::Create { path: path.to_owned(), data, acl: self.acl(), kind: CreateKind::Persistent }]).await?;
            self.known.insert(name.to_owned(), BTreeSet::new());
        }
        let mut parts = BTreeSet::new();
        for (index, bytes) in value.chunks(PART_BYTES).enumerate() {
            let part = format!("{prefix}-{index:04}");
            let create = Op::Create { path: format!("{path}/{part}"), data: bytes.to_vec(), acl: self.acl(), kind: CreateKind::Persistent };
            self.commit(vec![create]).await?;
            // If we go no further in this term, the next write of this record takes it away.
            self.known.entry(name.to_owned()).or_default().insert(part.clone());
            parts.insert(part);
        }
        Ok((Stored::InParts { prefix, count: parts.len(), length: value.len(), checksum: layout::checksum(value) }, parts))
    }

    async fn make_shard(&mut self, name: &str) -> Result<(), StoreError> {
        let Some((shard, _)) = name.split_once('/') else { return Ok(()) };
        if self.shards.contains(shard) {
            return Ok(());
        }
        let (shard, path) = (shard.to_owned(), format!("{}/{shard}", self.root));
        match self.commit(vec![Op::Create { path, data: Vec::new(), acl: self.acl(), kind: CreateKind::Persistent }]).await {
            Ok(()) => drop(self.shards.insert(shard)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// One transaction under our term. One that goes unanswered is looked for, and made again if it was not made.
    async fn commit(&mut self, ops: Vec<Op>) -> Result<(), StoreError> {
        if self.term.is_over() {
            return Err(StoreError::Deposed);
        }
        let number = self.written + 1;
        let mut all = vec![self.term.check(), Op::Set { path: self.root.clone(), data: number.to_be_bytes().to_vec(), version: None }];
        all.extend(ops);
        let client = self.term.client.clone();
        let began = std::time::Instant::now();
        loop {
            match client.multi(&all).await {
                Ok(_) => break,
                Err(MultiError::Operation { index: 0, .. }) => {
                    self.term.end();
                    return Err(StoreError::Deposed);
                }
                Err(MultiError::Operation { error, .. }) => return Err(refused(&error)),
                Err(MultiError::Request(error)) if error.is_ambiguous() => {
                    if !self.returns(began).await {
                        return Err(StoreError::Unknown);
                    }
                    let (data, _) = retried(&client, || client.get(&self.root)).await?;
                    if layout::number(&data) == number {
                        break;
                    }
                }
                Err(MultiError::Request(Error::Throttled)) if began.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(MultiError::Request(error)) => return Err(refused(&error)),
            }
        }
        self.written = number;
        Ok(())
    }

    /// Whether the connection comes back in time, and we still lead then.
    async fn returns(&self, began: std::time::Instant) -> bool {
        let left = PATIENCE.saturating_sub(began.elapsed());
        let back = tokio::select! {
            back = tokio::time::timeout(left, self.term.client.connected()) => matches!(back, Ok(Ok(()))),
            () = self.term.over() => false,
        };
        // The servers agree again on what was committed.
        back && !left.is_zero() && self.term.client.sync(&self.root).await.is_ok()
    }

    fn acl(&self) -> Vec<Acl> {
        ours_alone(self.term.has_identity)
    }

    fn znode(&self, key: &str) -> String {
        if key == BATCH { BATCH.to_owned() } else { format!("{}/{}", shard_of(key), name_of(key)) }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    async fn read_all(&mut self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let client = self.term.client.clone();
        let mut values = BTreeMap::new();
        let mut names = Vec::new();
        for child in retried(&client, || client.children(&self.root)).await? {
            if child == BATCH {
                names.push(child);
                continue;
            }
            let path = self.path(&child);
            names.extend(retried(&client, || client.children(&path)).await?.into_iter().map(|name| format!("{child}/{name}")));
            self.shards.insert(child);
        }
        for some in names.chunks(READ_AT_ONCE) {
            let reads: Vec<Read> = some.iter().map(|name| Read { path: self.path(name), children: true, acl: false }).collect();
            for (name, node) in some.iter().zip(self.read(&client, &reads).await?) {
                // We are the only writer: what was listed is there.
                let node = node.map_err(|error| match refused(&error) {
                    StoreError::Refused(why) => StoreError::Refused(format!("{name}: {why}")),
                    error => error,
                })?;
                self.known.insert(name.clone(), node.children.unwrap_or_default().into_iter().collect());
                let damaged = |detail| StoreError::Damaged { record: self.path(name), detail };
                let value = match Stored::decode(&node.data).ok_or_else(|| damaged("its head cannot be read"))? {
                    Stored::Nothing => continue,
                    Stored::Whole(value) => value.to_vec(),
                    Stored::InParts { prefix, count, length, checksum } => {
                        let value = self.read_parts(&client, name, &prefix, count).await?;
                        if value.len() != length || layout::checksum(&value) != checksum {
                            return Err(damaged("its parts are not what was written"));
                        }
                        value
                    }
                };
                let key = if name == BATCH { Some(BATCH.to_owned()) } else { name.split_once('/').and_then(|(_, name)| key_of(name)) };
                values.insert(key.ok_or_else(|| damaged("its name is not one of ours"))?, value);
            }
        }
        Ok(values)
    }

    /// Many znodes; one by one when they do not fit into an answer together.
    async fn read(&self, client: &Client, reads: &[Read]) -> Result<Vec<Result<zk::NodeRead, Error>>, StoreError> {
        match client.read(reads).await {
            Ok(nodes) => Ok(nodes),
            Err(_) => {
                let mut nodes = Vec::with_capacity(reads.len());
                for read in reads {
                    nodes.extend(retried(client, || client.read(std::slice::from_ref(read))).await?);
                }
                Ok(nodes)
            }
        }
    }

    async fn read_parts(&self, client: &Client, name: &str, prefix: &str, count: usize) -> Result<Vec<u8>, StoreError> {
        let mut value = Vec::new();
        for index in 0..count {
            let path = format!("{}/{prefix}-{index:04}", self.path(name));
            match retried(client, || client.get(&path)).await {
                Ok((data, _)) => value.extend_from_slice(&data),
                Err(StoreError::Refused(_)) => return Err(StoreError::Damaged { record: path, detail: "a part is missing" }),
                Err(error) => return Err(error),
            }
        }
        Ok(value)
    }
}
