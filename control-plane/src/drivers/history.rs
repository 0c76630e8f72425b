//! The loop that writes the history, and the way to maps of the past. Neither may hold the live map up.
//!
//! The topology driver puts what happens into a bounded queue, and never waits: what finds no room is counted, and when there is room again
//! everything that its probe said is put there anew. A thread of its own takes it out and writes; when the disk refuses, the live map does not
//! notice. Maps of the past are made elsewhere, a few at a time, and the latest are kept for whoever asks for the next moment.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base::Timestamp;
use history::{Catalogue, Event, PlayError, Player, Recorder, Settings, Store, Tended};
use tokio::sync::Semaphore;
use topology::{ProbeId, Topology};

use crate::clock::Clock;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{HistoryCompactionFailed, HistoryFailed, HistoryOpened, HistoryWritten};

mod copies;

use copies::Pieces;
pub(crate) use copies::{Copies, Piece, copies};

/// Events that may wait for the disk: some seconds of a thousand probes.
const QUEUE_CAPACITY: usize = 8_192;
/// Time between two frames: what is asked for in between shows the frame before.
const FRAME_INTERVAL: Duration = Duration::from_secs(1);
/// Maps of the past that may be made at once, and that there may be, however large. Each costs what the live map costs.
const PLAYERS_AT_ONCE: usize = 2;
/// There may be so many, when all their records together are not more than [`RECORDS_MAX`].
const PLAYERS_MAX: usize = 16;
/// As two maps of ten thousand containers have.
const RECORDS_MAX: usize = 600_000;
/// How long one is kept.
const PLAYER_LINGER: Duration = Duration::from_secs(60);
/// A kept map goes forward by at most this; beyond it a new one is faster.
const FORWARD_MAX: Duration = Duration::from_secs(60);

/// Where the topology driver puts what happens.
#[derive(Debug)]
pub(crate) struct HistoryFeed {
    queue: SyncSender<(Timestamp, Event)>,
    shared: Arc<Shared>,
    /// Probes of which an event was lost.
    stale: BTreeSet<ProbeId>,
}

/// A way to the history; cheap to clone.
#[derive(Clone, Debug)]
pub struct HistoryHandle {
    shared: Arc<Shared>,
    config: topology::Config,
}

#[derive(Debug)]
struct Shared {
    catalogue: Catalogue,
    queued: AtomicUsize,
    lost: AtomicU64,
    /// Nobody writes any more: what is told is lost.
    is_dead: AtomicBool,
    problem: Mutex<Option<String>>,
    players: Mutex<Players>,
    permits: Arc<Semaphore>,
}

/// Maps of the past. There are never more than [`Players::room`] of them: each takes as much memory as the live one.
#[derive(Debug, Default)]
struct Players {
    /// Those that wait for whoever asks for the next moment.
    kept: Vec<(Instant, Player)>,
    /// Those in somebody's hands.
    taken: usize,
    /// Records of the one that was last in somebody's hands.
    records: usize,
}

impl Players {
    /// How many maps there may be. Whoever watches a moment of a small cluster should not have it made anew because others watch theirs.
    fn room(&self) -> usize {
        RECORDS_MAX.checked_div(self.records).unwrap_or(0).clamp(PLAYERS_AT_ONCE, PLAYERS_MAX)
    }
}

/// How the history is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryStatus {
    /// First and last moment that can be shown.
    pub span: Option<(Timestamp, Timestamp)>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files.
    pub segments: usize,
    /// Files that this program cannot read.
    pub unreadable: usize,
    /// Where something is missing.
    pub gaps: Vec<history::Gap>,
    /// Events that wait for the disk.
    pub queued: usize,
    /// Events that found no room since the start.
    pub lost: u64,
    /// Why nothing is written, when nothing is.
    pub problem: Option<String>,
}

/// Why there is no map of a moment.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The files do not give it.
    #[error(transparent)]
    Play(#[from] PlayError),
    /// A defect ended the attempt.
    #[error("the map of that moment could not be made")]
    Broken,
}

/// Opens the history. Gives back what the topology driver writes to, the way to it, and the loop that writes, which blocks and ends when the
/// driver has. Where there are `pieces`, it keeps those of the leader first, until this control plane leads.
///
/// # Errors
/// When the directory cannot be used.
pub(crate) fn open(
    settings: Settings,
    config: topology::Config,
    clock: Clock,
    telemetry: Telemetry,
    pieces: Option<Pieces>,
) -> std::io::Result<(HistoryFeed, HistoryHandle, impl FnOnce() + Send + 'static)> {
    let (store, opened) = Store::open(settings)?;
    HistoryOpened { opened }.emit(&telemetry);
    let (queue, events) = sync_channel(QUEUE_CAPACITY);
    let shared = Arc::new(Shared {
        catalogue: store.catalogue().clone(),
        queued: AtomicUsize::new(0),
        lost: AtomicU64::new(0),
        is_dead: AtomicBool::new(false),
        problem: Mutex::new(None),
        players: Mutex::default(),
        permits: Arc::new(Semaphore::new(PLAYERS_AT_ONCE)),
    });
    let feed = HistoryFeed { queue, shared: shared.clone(), stale: BTreeSet::new() };
    let handle = HistoryHandle { shared: shared.clone(), config };
    let writer = Writer { store, recorder: Recorder::new(config.limits), shared, clock, telemetry, told_lost: 0 };
    Ok((feed, handle, move || {
        let _last_word = LastWord(writer.shared.clone());
        writer.run(pieces, &events);
    }))
}

/// Says that nothing is written any more when the loop that writes ends, however it does.
struct LastWord(Arc<Shared>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.is_dead.store(true, Ordering::Relaxed);
        self.0.set_problem(Some("the history is not written any more: its loop has ended".to_owned()));
    }
}

impl HistoryFeed {
    /// Something happened.
    pub(crate) fn tell(&mut self, at: Timestamp, probe: &ProbeId, event: Event) {
        if self.shared.is_dead.load(Ordering::Relaxed) {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.stale.contains(probe) {
            // All of it is told when there is room.
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if !self.put(at, event) {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            self.stale.insert(probe.clone());
        }
    }

    /// Puts what one probe said there anew, if that is needed and there is room.
    pub(crate) fn catch_up(&mut self, at: Timestamp, map: &Topology) {
        if self.stale.is_empty()
            || self.shared.is_dead.load(Ordering::Relaxed)
            || self.shared.queued.load(Ordering::Relaxed) > QUEUE_CAPACITY / 2
        {
            return;
        }
        let Some(probe) = self.stale.pop_first() else { return };
        let event = match map.told_by(&probe) {
            Some((hello, report)) => Event::Told { probe: probe.clone(), hello: Box::new(hello), report: Box::new(report) },
            None => Event::ProbeLeft { probe: probe.clone() },
        };
        if !self.put(at, event) {
            self.stale.insert(probe);
        }
    }

    fn put(&self, at: Timestamp, event: Event) -> bool {
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        match self.queue.try_send((at, event)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                false
            }
        }
    }
}

impl HistoryHandle {
    /// Looks at the map of a moment; makes it, or goes there from the map of an earlier one.
    ///
    /// # Errors
    /// When the history does not reach back so far, or cannot be read.
    pub async fn at<R: Send + 'static>(
        &self,
        at: Timestamp,
        look: impl FnOnce(&mut Player) -> R + Send + 'static,
    ) -> Result<R, HistoryError> {
        let permit = self.shared.permits.clone().acquire_owned().await.map_err(|_| HistoryError::Broken)?;
        let this = self.clone();
        let looking = tokio::task::spawn_blocking(move || {
            // The work goes on when nobody waits for it any more, and so does the memory that it takes.
            let _permit = permit;
            let (taken, mut hands) = (this.shared.take_player(at), Hands { shared: &this.shared, player: None });
            let player = match taken {
                Some(player) => hands.player.insert(player),
                None => hands.player.insert(Player::open(this.shared.catalogue.clone(), this.config, at)?),
            };
            if let Err(error) = player.forward(at) {
                // It has read past what it could not read.
                hands.player = None;
                return Err(error.into());
            }
            Ok(look(player))
        });
        looking.await.unwrap_or(Err(HistoryError::Broken))
    }

    /// How the history is.
    pub fn status(&self) -> HistoryStatus {
        let shared = &self.shared;
        HistoryStatus {
            span: shared.catalogue.span(),
            bytes: shared.catalogue.bytes(),
            segments: shared.catalogue.segments().len(),
            unreadable: shared.catalogue.unreadable().0,
            gaps: shared.catalogue.gaps(),
            queued: shared.queued.load(Ordering::Relaxed),
            lost: shared.lost.load(Ordering::Relaxed),
            problem: shared.problem(),
        }
    }
}

impl Shared {
    fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// The kept map that is nearest before a moment. Whoever gets none makes one, for which there is room then.
    fn take_player(&self, at: Timestamp) -> Option<Player> {
        let mut players = self.players.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |player: &Player| player.position() <= at && at.since(player.position()) <= FORWARD_MAX;
        let found = players.kept.iter().enumerate().filter(|(_, (_, player))| fits(player));
        let found = found.max_by_key(|(_, (_, player))| player.position()).map(|(place, _)| place);
        let surplus = (players.kept.len() + players.taken + 1).saturating_sub(players.room()).min(players.kept.len());
        players.taken += 1;
        match found {
            Some(place) => Some(players.kept.remove(place).1),
            None => {
                players.kept.drain(..surplus);
                None
            }
        }
    }

    fn drop_idle_players(&self) {
        let mut players = self.players.lock().unwrap_or_else(PoisonError::into_inner);
        players.kept.retain(|(used, _)| used.elapsed() < PLAYER_LINGER);
    }
}

/// A map in somebody's hands: it is kept for the next one, however this ends but by a panic.
struct Hands<'a> {
    shared: &'a Shared,
    player: Option<Player>,
}

impl Drop for Hands<'_> {
    fn drop(&mut self) {
        let mut players = self.shared.players.lock().unwrap_or_else(PoisonError::into_inner);
        players.taken = players.taken.saturating_sub(1);
        if let Some(player) = self.player.take().filter(|_| !std::thread::panicking()) {
            players.records = player.world().record_count();
            players.kept.push((Instant::now(), player));
            // It may have become larger.
            let surplus = (players.kept.len() + players.taken).saturating_sub(players.room()).min(players.kept.len() - 1);
            players.kept.drain(..surplus);
        }
    }
}

/// The loop that writes.
struct Writer {
    store: Store,
    recorder: Recorder,
    shared: Arc<Shared>,
    clock: Clock,
    telemetry: Telemetry,
    /// Lost events that are marked in the files.
    told_lost: u64,
}

impl Writer {
    fn run(mut self, pieces: Option<Pieces>, events: &Receiver<(Timestamp, Event)>) {
        if pieces.is_some_and(|pieces| !self.follow(pieces)) {
            return;
        }
        self.tend();
        let mut next = Instant::now() + FRAME_INTERVAL;
        loop {
            match events.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok((at, event)) => {
                    self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                    self.recorder.observe(at, event);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= next {
                self.tend();
                self.shared.drop_idle_players();
                next = Instant::now() + FRAME_INTERVAL;
            }
        }
        self.tend();
        if let Err(error) = self.store.sync() {
            HistoryFailed { error: &error }.emit(&self.telemetry);
        }
    }

    fn tend(&mut self) {
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost > self.told_lost {
            self.store.mark_lost(lost - self.told_lost);
            self.told_lost = lost;
        }
        let Tended { written, removed, skipped, ended, failure } = self.store.tend(self.clock.now(), &mut self.recorder);
        HistoryWritten { bytes: written, segments_removed: removed, changes_skipped: skipped }.emit(&self.telemetry);
        if let Some(error) = failure {
            HistoryFailed { error: &error }.emit(&self.telemetry);
            self.shared.set_problem(Some(format!("the history is not written: {error}")));
        } else if self.store.is_writing() && self.shared.problem().is_some() {
            tracing::info!("the history is written again");
            self.shared.set_problem(None);
        }
        if let Some(path) = ended {
            match history::compact_file(&path) {
                Ok(_) => self.store.compacted(&path),
                Err(error) => HistoryCompactionFailed { error: &error }.emit(&self.telemetry),
            }
        }
    }
}
