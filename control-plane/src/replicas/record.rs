//! What the leader has on record goes to those who follow: the history's files, and who did what. Whoever leads next can tell of the time before.
//!
//! A follower asks, and says up to which moment it has the history. The leader answers with what its disk has from there on, segment by segment,
//! the last one as it grows. The disk is the queue: a follower that is slow, or comes late, finds all of it there, and begins with a whole
//! keyframe. What the leader has removed meanwhile is missing, and the segment after it is marked as one to which nothing leads.
//!
//! ```text
//! follower: moment:8                                   nanoseconds since 1970
//! leader:   kind:1 length:4 payload:length             again and again; see `Kind`
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use edge_tls::{Stream, Tls};
use ha::{Member, Standing};
use history::{Catalogue, Segment};
use relay::Audit;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::opening::{self, Opening};
use super::{PATIENCE, Purpose, dial};
use crate::drivers::HistoryHandle;
use crate::drivers::history::{Copies, Piece};

/// How often the leader looks for something new.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A leader that says nothing for so long is gone; it says something at least once a look.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long one that takes nothing is waited for.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// Between two connections.
const AGAIN: Duration = Duration::from_secs(1);
/// What the last leader still says after another one leads: records of what it was doing.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes of a file that go in one message.
const CHUNK: usize = 256 << 10;
/// Longest message.
const LONGEST: usize = 1 << 20;

/// What is on record here.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The history, where one is kept.
    pub(crate) history: Option<HistoryHandle>,
    /// Who did what.
    pub(crate) audit: Audit,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A segment begins: 1 when the one that was sent before led to it, else 0.
    Begin = 1,
    /// Some bytes of its file.
    Bytes = 2,
    /// The segment is whole.
    End = 3,
    /// Who did what, once: JSON.
    Audit = 4,
    /// Nothing is new.
    Alive = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Kind::Begin, Kind::Bytes, Kind::End, Kind::Audit, Kind::Alive].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Tells a follower everything, until it goes away or we stop; what is written last, too, unless it takes its time.
///
/// # Errors
/// When the connection breaks, or the disk cannot be read.
pub(super) async fn send(stream: Stream, record: &Record, stopping: &CancellationToken) -> io::Result<()> {
    let too_late = async {
        stopping.cancelled().await;
        sleep(LAST_WORDS).await;
    };
    tokio::select! {
        sent = send_all(stream, record, stopping) => sent,
        () = too_late => Ok(()),
    }
}

async fn send_all(mut stream: Stream, record: &Record, stopping: &CancellationToken) -> io::Result<()> {
    let since = timeout(PATIENCE, stream.read_u64()).await.map_err(io::Error::other)??;
    let mut sending = Sending { since: Timestamp::from_unix_nanos(since), current: None, told: 0, stream };
    loop {
        let was_stopping = stopping.is_cancelled();
        sending.audit(&record.audit).await?;
        if let Some(history) = &record.history {
            sending.segments(history.catalogue()).await?;
        }
        if was_stopping {
            return sending.stream.shutdown().await;
        }
        sending.message(Kind::Alive, &[]).await?;
        if stopping.run_until_cancelled(sleep(LOOK_INTERVAL)).await.is_none() {
            // Calls that were under way are on record by then.
            sleep(LOOK_INTERVAL).await;
        }
    }
}

struct Sending {
    since: Timestamp,
    current: Option<Open>,
    /// Last record that was told.
    told: u64,
    stream: Stream,
}

/// The segment that is being sent.
struct Open {
    number: u64,
    /// `None` when all of it is sent.
    file: Option<File>,
    sent: u64,
}

impl Sending {
    async fn message(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let write = async {
            self.stream.write_u8(kind as u8).await?;
            self.stream.write_u32(length).await?;
            self.stream.write_all(payload).await?;
            self.stream.flush().await
        };
        timeout(WRITE_PATIENCE, write).await.map_err(io::Error::other)?
    }

    async fn audit(&mut self, audit: &Audit) -> io::Result<()> {
        for record in audit.after(self.told) {
            self.message(Kind::Audit, &serde_json::to_vec(&*record)?).await?;
            self.told = record.id;
        }
        Ok(())
    }

    /// Sends what is new of the files: the rest of the one that is being sent, and those behind it.
    async fn segments(&mut self, catalogue: &Catalogue) -> io::Result<()> {
        loop {
            let segments = catalogue.segments();
            let next = match &self.current {
                Some(open) => segments.iter().position(|it| it.number > open.number),
                None => segments.iter().position(|it| it.to >= self.since).or(segments.len().checked_sub(1)),
            };
            if let Some(Open { number, file: Some(_), .. }) = &self.current {
                let known = segments.iter().find(|it| it.number == *number).map(|it| it.bytes);
                // One that is followed by another grows no more: all that its file has, which may have been removed meanwhile.
                self.bytes(if next.is_some() { None } else { known }).await?;
                if next.is_none() {
                    return Ok(());
                }
                self.message(Kind::End, &[]).await?;
                self.current.iter_mut().for_each(|open| open.file = None);
            }
            let Some(next) = next else { return Ok(()) };
            self.begin(&segments, next).await?;
        }
    }

    async fn begin(&mut self, segments: &[Segment], place: usize) -> io::Result<()> {
        let segment = &segments[place];
        let follows = self.current.as_ref().is_some_and(|open| place > 0 && segments[place - 1].number == open.number);
        let file = match File::open(&segment.path).await {
            Ok(file) => Some(file),
            // It was too old.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if file.is_some() {
            self.message(Kind::Begin, &[u8::from(follows && !segment.begins)]).await?;
        }
        self.current = Some(Open { number: segment.number, file, sent: 0 });
        Ok(())
    }

    /// Sends the file up to its byte `end`, or to its end.
    async fn bytes(&mut self, end: Option<u64>) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        while let Some(Open { file: Some(file), sent, .. }) = &mut self.current {
            let left = end.map_or(CHUNK as u64, |end| end.saturating_sub(*sent));
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let count = if most == 0 { 0 } else { file.read(&mut chunk[..most]).await? };
            if count == 0 {
                return Ok(());
            }
            *sent += count as u64;
            self.message(Kind::Bytes, &chunk[..count]).await?;
        }
        Ok(())
    }
}

/// What a follower needs to have the leader's record.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) record: Record,
    /// Where the history goes, where one is kept.
    pub(crate) copies: Option<Copies>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) tls: Option<Tls>,
}

/// Keeps what the leader has on record, until we lead or the process stops.
pub(crate) async fn follow(follower: Arc<Follower>, stopping: CancellationToken) {
    if stopping.run_until_cancelled(follower.run()).await.is_some() {
        // We lead, and that is for the rest of our life.
        stopping.cancelled().await;
    }
}

impl Follower {
    async fn run(&self) {
        let mut standing = self.standing.clone();
        let mut said = String::new();
        loop {
            let now = standing.borrow_and_update().clone();
            if now.leads() {
                return self.put(Piece::Lead).await;
            }
            if let Some(leader) = now.leader.filter(|it| it.addresses.protocol >= opening::WITH_RECORD && !it.addresses.replica.is_empty())
            {
                match self.receive(&leader, standing.clone()).await {
                    // Once for each reason.
                    Err(error) if error.kind() != io::ErrorKind::UnexpectedEof && said != error.to_string() => {
                        said = error.to_string();
                        tracing::warn!(%error, leader = leader.host_name, "what the leader has on record does not come; it is tried again");
                    }
                    _ => {}
                }
                self.put(Piece::Broken).await;
                if !standing.has_changed().unwrap_or(true) {
                    sleep(AGAIN).await;
                    continue;
                }
            }
            if standing.changed().await.is_err() {
                // The election ends when the process does.
                return std::future::pending().await;
            }
        }
    }

    async fn put(&self, piece: Piece) {
        if let Some(copies) = &self.copies {
            copies.put(piece).await;
        }
    }

    /// Until the connection ends, or somebody else leads.
    async fn receive(&self, leader: &Member, mut standing: watch::Receiver<Standing>) -> io::Result<()> {
        let another = async {
            drop(standing.wait_for(|it| it.leader.as_ref().is_none_or(|it| it.id != leader.id)).await);
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            received = self.all(leader) => received,
            // A machine that is gone lets whoever calls it wait: who leads next is what counts then.
            () = another => Ok(()),
        }
    }

    /// Until the connection ends.
    async fn all(&self, leader: &Member) -> io::Result<()> {
        let mut stream = dial(leader, self.tls.as_ref()).await?;
        let since = self.record.history.as_ref().map_or(Timestamp::EPOCH, HistoryHandle::last_moment);
        stream.write_all(&Opening { purpose: Purpose::Record, caller: None }.encode()).await?;
        stream.write_u64(since.unix_nanos()).await?;
        stream.flush().await?;
        self.messages(&mut stream).await
    }

    async fn messages(&self, stream: &mut Stream) -> io::Result<()> {
        loop {
            let head = async { io::Result::Ok((stream.read_u8().await?, stream.read_u32().await?)) };
            let (byte, length) = timeout(SILENCE_MAX, head).await.map_err(io::Error::other)??;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some(kind) = Kind::from_byte(byte).filter(|_| length <= LONGEST) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of kind {byte} and {length} bytes")));
            };
            let mut payload = vec![0; length];
            timeout(SILENCE_MAX, stream.read_exact(&mut payload)).await.map_err(io::Error::other)??;
            match kind {
                Kind::Begin => self.put(Piece::Begin { continues: payload == [1] }).await,
                Kind::Bytes => self.put(Piece::Bytes(payload)).await,
                Kind::End => self.put(Piece::End).await,
                // What the disk refuses is in memory, and said on `/health`.
                Kind::Audit => drop(self.record.audit.adopt(serde_json::from_slice(&payload)?).await),
                Kind::Alive => {}
            }
        }
    }
}
