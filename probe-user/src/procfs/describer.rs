//! Details of processes, read on a thread of its own: whoever asks goes on, whatever happens to a process.
//!
//! A command line lies in the memory of its process. To read it the kernel takes that memory's lock, and where another thread of the process waits
//! with it for a file system or a device that does not answer, the reader waits as well, for minutes or for ever. Such a reader is given up, another
//! takes its place, and the process is described without its command line until the first comes back ([`Procfs::details`]).

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::processes::Details;
use crate::procfs::{HANGING_MAX, Procfs};

/// Processes that wait to be read at most.
pub const WAITING_MAX: usize = 2_048;

/// Answers are handed over by so many; what was read without an answer counts, too.
const ANSWERS_MAX: usize = 32;
const READ_MAX: usize = 256;

/// Batches of answers that wait at most; then the reader waits.
const BATCHES_MAX: usize = 4;

/// A process that cannot be read for this long hangs: what is usual is a hundredth of a millisecond.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads details of processes in the order in which they were asked for. With it the thread ends.
#[derive(Debug)]
pub struct Describer {
    desk: Arc<Desk>,
    answers: mpsc::Receiver<Batch>,
    /// Processes that were asked for and not answered.
    outstanding: usize,
    /// When to look whether the reader hangs.
    check_at: Option<Instant>,
    /// Whether there is a reader, be it one that hangs.
    manned: bool,
}

/// What the asker and the readers share.
#[derive(Debug)]
struct Desk {
    procfs: Arc<Procfs>,
    answers: mpsc::Sender<Batch>,
    book: Mutex<Book>,
    more: Condvar,
    patience: Duration,
}

#[derive(Debug, Default)]
struct Book {
    waiting: VecDeque<u32>,
    /// The same, to find them.
    known: HashSet<u32>,
    /// What is read at the moment.
    reading: Option<Reading>,
    /// What was read and not handed over; a reader that takes another's place goes on with it.
    batch: Batch,
    /// Number of the reader; one with a lower number was given up.
    reader: u64,
    /// Readers that were given up and have not come back, by their numbers, and what they hang at.
    hung: BTreeMap<u64, u32>,
    /// Nobody asks any more.
    closed: bool,
}

#[derive(Debug)]
struct Reading {
    pid: u32,
    since: Instant,
    /// It took longer than it may when it was looked at last.
    is_suspect: bool,
}

#[derive(Debug, Default)]
struct Batch {
    details: Vec<Details>,
    read: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.details.len() >= ANSWERS_MAX || self.read >= READ_MAX
    }
}

impl Describer {
    /// One that reads from `procfs`. The thread begins with the first question.
    pub fn new(procfs: Arc<Procfs>) -> Self {
        Self::with_patience(procfs, PATIENCE)
    }

    fn with_patience(procfs: Arc<Procfs>, patience: Duration) -> Self {
        let (sender, answers) = mpsc::channel(BATCHES_MAX);
        let desk = Desk { procfs, answers: sender, book: Mutex::default(), more: Condvar::new(), patience };
        Describer { desk: Arc::new(desk), answers, outstanding: 0, check_at: None, manned: false }
    }

    /// Whether a process waits to be read already.
    pub fn awaits(&self, pid: u32) -> bool {
        self.outstanding > 0 && self.desk.book().known.contains(&pid)
    }

    /// Asks for a process; [`Describer::next`] has the answer. Returns whether there was room.
    pub fn ask(&mut self, pid: u32) -> bool {
        {
            let mut book = self.desk.book();
            if book.known.contains(&pid) {
                return true;
            }
            if book.waiting.len() >= WAITING_MAX {
                return false;
            }
            book.waiting.push_back(pid);
            book.known.insert(pid);
        }
        self.outstanding += 1;
        self.desk.more.notify_one();
        if self.check_at.is_none() {
            self.check_at = Some(Instant::now() + self.desk.patience);
        }
        if !self.manned {
            self.man();
        }
        true
    }

    /// Processes that were asked for and not answered.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// What was read next: of processes that have ended meanwhile there is nothing. Waits for as long as nothing was asked. Nothing is lost when it
    /// is dropped while it waits.
    pub async fn next(&mut self) -> Vec<Details> {
        loop {
            let check = at(self.check_at);
            tokio::select! {
                biased;
                Some(batch) = self.answers.recv() => {
                    self.outstanding = self.outstanding.saturating_sub(batch.read);
                    self.check_at = (self.outstanding > 0).then(|| Instant::now() + self.desk.patience);
                    return batch.details;
                }
                () = check => self.check(),
            }
        }
    }

    /// Puts another reader in the place of one that hangs.
    fn check(&mut self) {
        match self.desk.give_up() {
            Some(pid) => {
                tracing::warn!(pid, "a process hangs in the kernel and does not let its command line be read: it is told without");
                self.man();
            }
            // None could be started before.
            None if !self.manned => self.man(),
            None => {}
        }
        self.check_at = (self.outstanding > 0).then(|| Instant::now() + self.desk.patience);
    }

    /// Starts a reader.
    fn man(&mut self) {
        let number = {
            let mut book = self.desk.book();
            book.reader += 1;
            book.reader
        };
        let desk = self.desk.clone();
        let started = std::thread::Builder::new().name("describer".to_owned()).stack_size(256 * 1024).spawn(move || desk.read(number));
        self.manned = started.is_ok();
        if let Err(error) = started {
            tracing::error!(%error, "no thread can be started that reads what /proc says of processes");
        }
    }
}

impl Drop for Describer {
    fn drop(&mut self) {
        self.desk.book().closed = true;
        self.desk.more.notify_all();
    }
}

impl Desk {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Nobody panics while holding it.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up the reader if it hangs, and returns at which process. It is read once more, without its command line; where that hangs, too, nothing
    /// is told of it. When too many readers have been given up, the last one is waited for: it is not a process that hangs then.
    fn give_up(&self) -> Option<u32> {
        let mut book = self.book();
        let reading = book.reading.as_mut().filter(|reading| reading.since.elapsed() >= self.patience)?;
        let pid = reading.pid;
        // When the whole probe stood still, the reader did, too: it has until the next look.
        if !std::mem::replace(&mut reading.is_suspect, true) || book.hung.len() >= HANGING_MAX {
            return None;
        }
        // Before the reader can come back, which takes it back.
        self.procfs.leave_out_command_line(pid);
        let hangs_again = book.hung.values().any(|it| *it == pid);
        let number = book.reader;
        book.hung.insert(number, pid);
        book.reader += 1;
        book.reading = None;
        if hangs_again {
            book.batch.read += 1;
        } else {
            book.waiting.push_front(pid);
            book.known.insert(pid);
        }
        Some(pid)
    }

    /// Reads until nobody asks any more, or until this reader was given up.
    fn read(&self, number: u64) {
        loop {
            let mut book = self.book();
            if book.closed || book.reader != number {
                return;
            }
            let done = if book.waiting.is_empty() || book.batch.is_full() { std::mem::take(&mut book.batch) } else { Batch::default() };
            if done.read > 0 {
                drop(book);
                if self.answers.blocking_send(done).is_err() {
                    return;
                }
                continue;
            }
            let Some(pid) = book.waiting.pop_front() else {
                drop(self.more.wait(book));
                continue;
            };
            book.known.remove(&pid);
            book.reading = Some(Reading { pid, since: Instant::now(), is_suspect: false });
            drop(book);
            let details = self.procfs.details(pid);
            let mut book = self.book();
            if book.reader != number {
                book.hung.remove(&number);
                if !book.hung.values().any(|it| *it == pid) {
                    // It was answered without; the next look at it brings the rest.
                    self.procfs.read_command_line_again(pid);
                }
                return;
            }
            book.reading = None;
            book.batch.read += 1;
            book.batch.details.extend(details.ok());
        }
    }
}

/// Waits until an instant; for ever without one.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
