use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{Acl, Client, CreateKind, Error, Read};

/// How long until what was not answered is asked again.
const AGAIN: Duration = Duration::from_millis(20);
/// Znodes that one request reads.
const BATCH: usize = 200;
/// Differences that are told.
const TOLD: usize = 5;

/// A client that creates, changes and deletes znodes below a path that is its own, and knows what must be there afterwards. What is not answered is
/// asked again until it is, so that nothing stays unknown. No name comes twice: whatever is there again after it was deleted is a mistake.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    root: String,
    there: BTreeMap<String, Written>,
    steps: u64,
    /// Creations that were answered.
    pub creates: u64,
    /// Changes of data that were answered.
    pub sets: u64,
    /// Deletions that were answered.
    pub deletes: u64,
    /// Requests that were asked again, as the answer was lost: each may have been applied.
    pub unanswered: u64,
}

/// A znode that must be there.
#[derive(Debug)]
struct Written {
    data: Vec<u8>,
    /// How often it was changed.
    sets: i32,
    /// How often it may have been changed besides.
    perhaps: i32,
}

impl Writer {
    /// Writes below `root`, which must be there and empty.
    pub fn below(client: Client, root: &str) -> Writer {
        Writer { client, root: root.to_owned(), there: BTreeMap::new(), steps: 0, creates: 0, sets: 0, deletes: 0, unanswered: 0 }
    }

    /// Where it writes.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Writes until it is to stop, with a pause after each write.
    ///
    /// # Panics
    /// When a server refuses what only somebody else's writes can make it refuse, or the session is over.
    pub async fn run(mut self, pause: Duration, stop: CancellationToken) -> Writer {
        while !stop.is_cancelled() {
            self.step().await;
            tokio::time::sleep(pause).await;
        }
        self
    }

    async fn step(&mut self) {
        let step = self.steps;
        self.steps += 1;
        // A prime, so that all of them come to their turn.
        let chosen = usize::try_from(step * 7_919).unwrap_or(0).checked_rem(self.there.len()).unwrap_or(0);
        let chosen = self.there.keys().nth(chosen).cloned();
        let data = step.to_string().into_bytes();
        match (step % 6, chosen) {
            (1 | 3 | 4, Some(name)) => {
                let path = format!("{}/{name}", self.root);
                let lost = answered(|_| self.client.set(&path, &data, None)).await;
                let perhaps = i32::try_from(lost).unwrap_or(i32::MAX);
                self.unanswered += lost;
                self.sets += 1;
                if let Some(written) = self.there.get_mut(&name) {
                    *written = Written { data, sets: written.sets + 1, perhaps: written.perhaps + perhaps };
                }
            }
            (5, Some(name)) => {
                let path = format!("{}/{name}", self.root);
                self.unanswered += answered(|again| self.delete(&path, again)).await;
                self.deletes += 1;
                self.there.remove(&name);
            }
            _ => {
                let name = format!("{step:08}");
                let path = format!("{}/{name}", self.root);
                self.unanswered += answered(|again| self.create(&path, &data, again)).await;
                self.creates += 1;
                self.there.insert(name, Written { data, sets: 0, perhaps: 0 });
            }
        }
    }

    async fn create(&self, path: &str, data: &[u8], again: bool) -> Result<(), Error> {
        match self.client.create(path, data, &Acl::open(), CreateKind::Persistent).await {
            Err(Error::NodeExists) if again => Ok(()),
            other => other.map(drop),
        }
    }

    async fn delete(&self, path: &str, again: bool) -> Result<(), Error> {
        match self.client.delete(path, None).await {
            Err(Error::NoNode) if again => Ok(()),
            other => other,
        }
    }

    /// Whether all of it is there, as it was written, and nothing else: on the ensemble that was written to, and on another that has to have the
    /// same. There a znode may have been changed less often, as changes are put together; never more often.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub async fn verify(&self, elsewhere: &Client) -> Result<(), String> {
        self.verify_on(&self.client, true).await.map_err(|wrong| format!("where it was written: {wrong}"))?;
        self.verify_on(elsewhere, false).await.map_err(|wrong| format!("elsewhere: {wrong}"))
    }

    async fn verify_on(&self, client: &Client, written_here: bool) -> Result<(), String> {
        let error = |error: Error| format!("{} cannot be read: {error}", self.root);
        client.sync(&self.root).await.map_err(error)?;
        let mut wrong = Vec::new();
        let names = client.children(&self.root).await.map_err(error)?;
        wrong.extend(names.iter().filter(|name| !self.there.contains_key(*name)).map(|name| format!("{name} should not be there")));
        let there: Vec<_> = self.there.iter().collect();
        for batch in there.chunks(BATCH) {
            let read = |(name, _): &(&String, &Written)| Read { path: format!("{}/{name}", self.root), children: false, acl: false };
            let nodes = client.read(&batch.iter().map(read).collect::<Vec<_>>()).await.map_err(error)?;
            for ((name, written), node) in batch.iter().zip(nodes) {
                let most = written.sets.saturating_add(written.perhaps);
                let versions = if written_here { written.sets..=most } else { 0..=most };
                match node {
                    Ok(node) if node.data == written.data && versions.contains(&node.stat.version) => {}
                    Ok(node) => {
                        let (has, should) = (String::from_utf8_lossy(&node.data), String::from_utf8_lossy(&written.data));
                        wrong.push(format!("{name} is {has:?} in version {}, not {should:?} in {versions:?}", node.stat.version));
                    }
                    Err(error) => wrong.push(format!("{name}: {error}")),
                }
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let first = wrong.get(..TOLD).unwrap_or(&wrong).join("; ");
        Err(format!("{} of {} znodes below {}: {first}", wrong.len(), self.there.len(), self.root))
    }
}

/// Asks until there is an answer. Gives back how many there were none.
async fn answered<T, F: Future<Output = Result<T, Error>>>(mut ask: impl FnMut(bool) -> F) -> u64 {
    let mut lost = 0;
    loop {
        match ask(lost > 0).await {
            Ok(_) => return lost,
            Err(Error::Unknown(_) | Error::Throttled) => lost += 1,
            Err(error) => panic!("a writer is refused: {error}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
