//! The record of who did what: one JSON object a line, in a file of limited size that is kept for a few rounds. The latest are in memory, for
//! whoever asks.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::board::{Caller, Target};

/// A file that is longer than this is put aside.
const FILE_BYTES: u64 = 8 << 20;
/// Files that were put aside and are kept.
const FILES_ASIDE: usize = 4;
/// Records in memory.
const RECENT_MAX: usize = 4_096;
/// Longest text of a record.
const TEXT_MAX: usize = 1_024;
/// Most arguments that are written down.
const ARGUMENTS_MAX: usize = 32;
/// What stands in the place of a secret.
const MASK: &str = "***";
/// Parts of an argument's name that make its value a secret.
const SECRETS: [&str; 8] = ["pass", "secret", "token", "credential", "key", "auth", "private", "env"];

/// One call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Grows by one with every record.
    pub id: u64,
    /// When it was called, RFC 3339.
    pub at: String,
    /// Where the request came from: address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// The name that the caller gave, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Which probe was told.
    pub probe: String,
    /// Which node it was about.
    pub node: String,
    /// Which control.
    pub control: String,
    /// Its arguments; what may be a secret is `***`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
    /// See [`Outcome::label`].
    pub outcome: String,
    /// What the caller was told, when it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Pipe that was opened: the beginning of its id, for whoever knows the whole of it may use the pipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipe: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// The latest records, or those before one.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The latest first.
    pub records: Vec<Arc<Record>>,
    /// Ask for those before this id next; `None` when there are no more in memory.
    pub next: Option<u64>,
}

/// A record that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be written.
    #[error("the record of controls at {path} cannot be written")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was to be written cannot be encoded.
    #[error("a record cannot be encoded")]
    Encode(#[from] serde_json::Error),
    /// The writer has panicked.
    #[error("the writer of records ended")]
    Ended,
}

/// What is known of a call before it is made.
#[derive(Debug)]
pub(crate) struct Draft {
    at: Timestamp,
    remote: Option<String>,
    user: Option<String>,
    target: Target,
}

impl Draft {
    pub(crate) fn new(at: Timestamp, caller: &Caller, target: &Target) -> Self {
        let Target { probe, node, control, arguments } = target;
        Draft {
            at,
            remote: caller.remote.map(|remote| remote.to_string()),
            user: caller.user.as_deref().map(cut),
            target: Target { probe: cut(probe), node: cut(node), control: cut(control), arguments: masked(arguments) },
        }
    }
}

/// The record. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    recent: Recent,
    /// Held while a slow disk writes.
    state: Arc<Mutex<State>>,
    problem: Problem,
}

/// The latest records, oldest first. Beside the state: whoever reads them waits for no disk.
type Recent = Arc<Mutex<VecDeque<Arc<Record>>>>;

/// Why records are not in the file, when some are not.
type Problem = Arc<Mutex<Option<String>>>;

#[derive(Debug)]
struct State {
    recent: Recent,
    last_id: u64,
    path: Option<PathBuf>,
    file: Option<(File, u64)>,
    /// Lines that could not be written yet.
    unwritten: VecDeque<Vec<u8>>,
    /// How many of them found no room here.
    lost: u64,
    problem: Problem,
}

impl Audit {
    /// A record in memory alone.
    pub fn in_memory() -> Self {
        Audit::with(VecDeque::new(), None)
    }

    /// A record in `directory`, which goes on where an earlier run ended. What cannot be read of that is left out; whether it can be written shows
    /// with the first record.
    pub fn in_directory(directory: &Path) -> Self {
        let path = directory.join("audit.log");
        let mut recent = VecDeque::new();
        for file in [aside(&path, 1), path.clone()] {
            read(&file, &mut recent);
        }
        Audit::with(recent, Some(path))
    }

    fn with(recent: VecDeque<Arc<Record>>, path: Option<PathBuf>) -> Self {
        let last_id = recent.iter().map(|record| record.id).max().unwrap_or(0);
        let (recent, unwritten, lost, problem) = (Arc::new(Mutex::new(recent)), VecDeque::new(), 0, Problem::default());
        let state = State { recent: recent.clone(), last_id, path, file: None, unwritten, lost, problem: problem.clone() };
        Audit { recent, state: Arc::new(Mutex::new(state)), problem }
    }

    /// Why records are not in the file, when some are not.
    pub fn problem(&self) -> Option<String> {
        locked(&self.problem).clone()
    }

    /// Writes what could not be written before, if there is anything of that. Returns when that is done or has failed again.
    pub(crate) async fn catch_up(&self) {
        if self.problem().is_none() {
            return;
        }
        let this = self.clone();
        // A failure is known already, and told by `problem`.
        let _ = tokio::task::spawn_blocking(move || this.lock().write_all()).await;
    }

    /// Records before `before`, or the latest; at most `limit`.
    pub fn page(&self, before: Option<u64>, limit: usize) -> Page {
        let recent = locked(&self.recent);
        let mut older = recent.iter().rev().skip_while(|record| before.is_some_and(|before| record.id >= before));
        let records: Vec<Arc<Record>> = older.by_ref().take(limit).cloned().collect();
        let next = older.next().and(records.last()).map(|record| record.id);
        Page { records, next }
    }

    /// Records with a larger id than this, oldest first, as far as they are in memory.
    pub fn after(&self, id: u64) -> Vec<Arc<Record>> {
        let recent = locked(&self.recent);
        let first = recent.partition_point(|record| record.id <= id);
        recent.range(first..).cloned().collect()
    }

    /// Writes down what another control plane has on record, unless it is known already. It keeps its id, if that is larger than the last here.
    ///
    /// # Errors
    /// When it cannot be written; it is kept in memory all the same, and tried again.
    pub async fn adopt(&self, record: Record) -> Result<(), AuditError> {
        let this = self.clone();
        let adopt = move || {
            let mut state = this.lock();
            let is_same = |known: &Record| known.at == record.at && *known == Record { id: known.id, ..record.clone() };
            // What is older than all that is remembered may be known as well.
            let is_there = {
                let recent = locked(&state.recent);
                let is_forgotten = recent.len() >= RECENT_MAX && recent.front().is_some_and(|first| record.at < first.at);
                is_forgotten || recent.iter().rev().any(|known| is_same(known))
            };
            if is_there {
                return Ok(());
            }
            state.last_id = state.last_id.max(record.id.saturating_sub(1));
            state.append(record)
        };
        tokio::task::spawn_blocking(adopt).await.map_err(|_| AuditError::Ended)?
    }

    /// Writes a record down. Returns when the system has it.
    pub(crate) async fn write(
        &self,
        draft: Draft,
        outcome: Outcome,
        error: Option<String>,
        pipe: Option<&str>,
        took: Duration,
    ) -> Result<(), AuditError> {
        let Draft { at, remote, user, target: Target { probe, node, control, arguments } } = draft;
        let record = Record {
            id: 0,
            at: jiff::Timestamp::from_nanosecond(i128::from(at.unix_nanos())).unwrap_or(jiff::Timestamp::MAX).to_string(),
            remote,
            user,
            probe,
            node,
            control,
            arguments,
            outcome: outcome.label().to_owned(),
            error: error.as_deref().map(cut),
            pipe: pipe.map(stem),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        };
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.lock().append(record)).await.map_err(|_| AuditError::Ended)?
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn append(&mut self, mut record: Record) -> Result<(), AuditError> {
        self.last_id += 1;
        record.id = self.last_id;
        let line = serde_json::to_vec(&record);
        {
            let mut recent = locked(&self.recent);
            if recent.len() >= RECENT_MAX {
                recent.pop_front();
            }
            recent.push_back(Arc::new(record));
        }
        let mut line = line?;
        line.push(b'\n');
        if self.path.is_none() {
            return Ok(());
        }
        if self.unwritten.len() >= RECENT_MAX {
            self.unwritten.pop_front();
            self.lost += 1;
        }
        self.unwritten.push_back(line);
        self.write_all()
    }

    /// Writes what is not written yet, in its order.
    fn write_all(&mut self) -> Result<(), AuditError> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        while let Some(line) = self.unwritten.pop_front() {
            if let Err(source) = self.write(&path, &line) {
                self.unwritten.push_front(line);
                // The next attempt opens it again.
                self.file = None;
                let lost = if self.lost == 0 { String::new() } else { format!("; {} are lost", self.lost) };
                let waiting = self.unwritten.len();
                let problem = format!("the record of controls at {} cannot be written, {waiting} wait{lost}: {source}", path.display());
                self.set_problem(Some(problem));
                return Err(AuditError::Write { path, source });
            }
        }
        self.set_problem(None);
        Ok(())
    }

    fn set_problem(&self, problem: Option<String>) {
        *locked(&self.problem) = problem;
    }

    fn write(&mut self, path: &Path, line: &[u8]) -> io::Result<()> {
        if self.file.as_ref().is_some_and(|(_, length)| length + line.len() as u64 > FILE_BYTES) {
            self.file = None;
            put_aside(path)?;
        }
        let (file, length) = match &mut self.file {
            Some(open) => open,
            closed => closed.insert(open(path)?),
        };
        file.write_all(line)?;
        *length += line.len() as u64;
        Ok(())
    }
}

/// Opens the file for appending. An end without a line feed is of a run that was killed while it wrote.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let mut length = file.seek(SeekFrom::End(0))?;
    if length > 0 {
        file.seek(SeekFrom::Start(length - 1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
    }
    Ok((file, length))
}

fn aside(path: &Path, number: usize) -> PathBuf {
    path.with_extension(format!("{number}.log"))
}

fn put_aside(path: &Path) -> io::Result<()> {
    for number in (1..FILES_ASIDE).rev() {
        match fs::rename(aside(path, number), aside(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, aside(path, 1))
}

fn read(path: &Path, into: &mut VecDeque<Arc<Record>>) {
    let Ok(file) = File::open(path) else { return };
    // Only what this program has written is long enough to matter.
    let lines = BufReader::new(file.take(2 * FILE_BYTES)).split(b'\n');
    for record in lines.map_while(Result::ok).filter_map(|line| serde_json::from_slice::<Record>(&line).ok()) {
        if into.len() >= RECENT_MAX {
            into.pop_front();
        }
        into.push_back(Arc::new(record));
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn masked(arguments: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        SECRETS.iter().any(|part| name.contains(part))
    };
    let value = |name: &str, value: &str| match name {
        "pipeID" => stem(value),
        _ if is_secret(name) => MASK.to_owned(),
        _ => cut(value),
    };
    arguments.iter().take(ARGUMENTS_MAX).map(|(name, text)| (cut(name), value(name, text))).collect()
}

/// Letters of a pipe's id that are told: enough to tell pipes apart, and too few to find the rest by trying.
const STEM: usize = 10;

/// The beginning of a pipe's id.
fn stem(id: &str) -> String {
    match id.char_indices().nth(STEM) {
        Some((end, _)) => format!("{}…", &id[..end]),
        None => id.to_owned(),
    }
}

#[cfg(test)]
mod tests;
