//! The files of the history: one for each segment, in one directory. The only place here that touches a disk.
//!
//! A file is only ever appended to, and replaced as a whole by its compacted form. So a kill leaves at worst a torn last block, which is cut
//! when the store is opened. When the disk refuses, the segment ends, what happens is not written for a while, and a new segment begins
//! with a keyframe: the history has a gap then, and says so.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::Timestamp;

use crate::recorder::Recorder;
use crate::segment::{self, BlockInfo, HEADER, Kind, SegmentWriter, block_at};

/// How long the store waits before it tries a disk again that refused.
const RETRY: Duration = Duration::from_secs(10);
/// A segment that has become this large ends before its time.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// How often what was written is made safe against a loss of power; a kill alone loses nothing that was written.
const SYNC_INTERVAL: Duration = Duration::from_secs(10);
/// A clock that is set back by more begins anew; by less, its moments wait for it.
const CLOCK_BACK: Duration = Duration::from_secs(60);
/// Segments that make room at most until one comes to its end: two of those that are made smaller are as large as a new one.
const GIVEN_UP_MAX: u32 = 4;
/// A full disk takes no segment from the history while it has no more than these.
const SEGMENTS_MIN: usize = 3;
/// Gaps that are remembered; the oldest go first.
const GAPS_MAX: usize = 256;
const EXTENSION: &str = "history";

mod copy;

pub use copy::{Copied, Copy};

/// What to keep, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Directory of the files; made when it is not there.
    pub directory: PathBuf,
    /// Segments that ended longer ago are removed.
    pub keep_for: Duration,
    /// The oldest segments are removed while all of them have more bytes than this.
    pub keep_bytes: u64,
    /// Length of a segment, and the most that has to be played to reach a moment.
    pub segment: Duration,
}

/// A segment in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its place in the order.
    pub number: u64,
    /// Its file.
    pub path: PathBuf,
    /// Moment of its keyframe.
    pub from: Timestamp,
    /// Moment of its last frame.
    pub to: Timestamp,
    /// Bytes of its file.
    pub bytes: u64,
    /// Nothing before it leads to it: the process was started then, or the disk took nothing before.
    pub begins: bool,
}

/// A stretch of which nothing, or not everything, is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Last moment before it.
    pub from: Timestamp,
    /// First moment after it.
    pub to: Timestamp,
    /// Events that were lost; 0 when nobody was there to count them.
    pub lost: u64,
}

/// Which segments there are. Cheap to clone; all clones see the same.
#[derive(Clone, Debug, Default)]
pub struct Catalogue(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    segments: Vec<Segment>,
    gaps: Vec<Gap>,
    /// Files of other programs' formats: they count, and go with time.
    foreign: Vec<(PathBuf, Timestamp, u64)>,
}

impl Catalogue {
    /// All segments, oldest first.
    pub fn segments(&self) -> Vec<Segment> {
        self.read(|known| known.segments.clone())
    }

    /// Where something is missing, oldest first.
    pub fn gaps(&self) -> Vec<Gap> {
        self.read(|known| {
            let mut gaps = known.gaps.clone();
            let mut dated: Vec<&Segment> = known.segments.iter().collect();
            dated.sort_by_key(|segment| segment.from);
            let pairs = dated.windows(2).filter(|pair| pair[1].begins);
            gaps.extend(pairs.map(|pair| Gap { from: pair[0].to, to: pair[1].from, lost: 0 }));
            let first = dated.first().map_or(Timestamp::EPOCH, |first| first.from);
            gaps.retain(|gap| gap.to >= first && gap.from <= gap.to);
            gaps.sort_by_key(|gap| gap.from);
            gaps
        })
    }

    /// First and last moment that can be shown.
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.read(|known| Some((known.segments.iter().map(|it| it.from).min()?, known.segments.last()?.to)))
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.read(|known| {
            let own: u64 = known.segments.iter().map(|segment| segment.bytes).sum();
            own + known.foreign.iter().map(|(_, _, bytes)| bytes).sum::<u64>()
        })
    }

    /// The last segment that begins at or before a moment.
    pub(crate) fn before(&self, at: Timestamp) -> Option<Segment> {
        let begun = |known: &Known| known.segments.iter().filter(|it| it.from <= at).max_by_key(|it| (it.from, it.number)).cloned();
        self.read(begun)
    }

    /// The segment that follows one in time, which is another than the next written where a clock was set.
    pub(crate) fn after(&self, segment: &Segment) -> Option<Segment> {
        let place = |it: &Segment| (it.from, it.number);
        let later = |known: &Known| known.segments.iter().filter(|it| place(it) > place(segment)).min_by_key(|it| place(it)).cloned();
        self.read(later)
    }

    /// Files that this program cannot read, and their bytes: of other versions, or damaged from their first block on. They go with time.
    pub fn unreadable(&self) -> (usize, u64) {
        self.read(|known| (known.foreign.len(), known.foreign.iter().map(|(_, _, bytes)| bytes).sum()))
    }

    /// A part of a segment cannot be read.
    pub(crate) fn is_damaged(&self, from: Timestamp, to: Timestamp) {
        let gap = Gap { from, to, lost: 0 };
        self.change(|known| {
            if !known.gaps.contains(&gap) && known.gaps.len() <= GAPS_MAX {
                known.gaps.push(gap);
            }
        });
    }

    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What was found when the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Segments that can be read.
    pub segments: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes that were cut off the last segment, because their block was not whole.
    pub cut_bytes: u64,
    /// Files that this program cannot read: another format, or damaged from their first block on.
    pub unreadable: usize,
}

/// What [`Store::tend`] did.
#[derive(Debug, Default)]
pub struct Tended {
    /// Bytes written.
    pub written: u64,
    /// Segments removed.
    pub removed: usize,
    /// Events that were not written because the disk had refused.
    pub skipped: usize,
    /// A segment that has ended and may be compacted.
    pub ended: Option<PathBuf>,
    /// Why the disk refused, just now.
    pub failure: Option<io::Error>,
}

/// The writing side.
#[derive(Debug)]
pub struct Store {
    settings: Settings,
    catalogue: Catalogue,
    current: Option<Current>,
    next_number: u64,
    /// When a disk that refused is tried again.
    retry_at: Option<Timestamp>,
    /// Segments that made room since the last one that came to its end: when that does not help, others fill the disk.
    given_up_for_room: u32,
    /// Events that were lost since the last frame, before they came here.
    lost: u64,
}

#[derive(Debug)]
struct Current {
    file: File,
    writer: SegmentWriter,
    number: u64,
    begun: Timestamp,
    last: Timestamp,
    length: u64,
    synced: Timestamp,
}

impl Store {
    /// Opens the directory. What is there is looked through by its headers, the newest segment whole.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(settings: Settings) -> io::Result<(Store, Opened)> {
        DirBuilder::new().recursive(true).mode(0o700).create(&settings.directory)?;
        let mut numbered: Vec<(u64, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&settings.directory)? {
            let path = entry?.path();
            match (path.extension().and_then(|it| it.to_str()), path.file_stem().and_then(|it| it.to_str()?.parse().ok())) {
                (Some(EXTENSION), Some(number)) => numbered.push((number, path)),
                // Left behind by a kill during a compaction, or a copy.
                (Some("compacting" | "copying"), _) => std::fs::remove_file(&path)?,
                _ => {}
            }
        }
        numbered.sort();
        let mut opened = Opened::default();
        let catalogue = Catalogue::default();
        let next_number = numbered.last().map_or(0, |(number, _)| number + 1);
        let newest = numbered.last().map(|(number, _)| *number);
        for (number, path) in numbered {
            if newest == Some(number) {
                opened.cut_bytes = cut_torn_end(&path)?;
            }
            match describe(number, &path)? {
                Some(segment) => catalogue.change(|known| known.segments.push(segment)),
                None => {
                    opened.unreadable += 1;
                    let about = std::fs::metadata(&path)?;
                    let modified = about.modified().ok().and_then(|it| it.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
                    catalogue.change(|known| known.foreign.push((path, Timestamp::EPOCH + modified, about.len())));
                }
            }
        }
        opened.segments = catalogue.segments().len();
        opened.bytes = catalogue.bytes();
        Ok((Store { settings, catalogue, current: None, next_number, retry_at: None, given_up_for_room: 0, lost: 0 }, opened))
    }

    /// Which segments there are.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Whether the disk takes what is written.
    pub fn is_writing(&self) -> bool {
        self.retry_at.is_none()
    }

    /// Events were lost before they reached the recorder: the next frame is marked.
    pub fn mark_lost(&mut self, count: u64) {
        self.lost += count;
    }

    /// To be called about once a second: writes what has changed, begins the next segment when it is time, and removes what is too old or too
    /// much.
    pub fn tend(&mut self, now: Timestamp, recorder: &mut Recorder) -> Tended {
        let mut tended = Tended::default();
        // Not a moment that only a clock which has been set back could wait for.
        if self.retry_at.is_some_and(|at| now < at && at.since(now) <= RETRY) {
            tended.skipped = recorder.change_count();
            recorder.take_changes();
            return tended;
        }
        if let Err(error) = self.write(now, recorder, &mut tended) {
            self.give_up(now);
            let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            // The oldest goes before the newest.
            tended.removed += usize::from(is_full && self.make_room());
            tended.failure = Some(error);
        }
        tended.removed += self.retain(now);
        tended
    }

    /// Makes everything safe that was written.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&mut self) -> io::Result<()> {
        self.current.as_ref().map_or(Ok(()), |current| current.file.sync_data())
    }

    fn write(&mut self, now: Timestamp, recorder: &mut Recorder, tended: &mut Tended) -> io::Result<()> {
        if self.current.as_ref().is_some_and(|current| now + CLOCK_BACK < current.last) {
            // What was dated later stays where it is: moments are looked for by their dates.
            self.sync()?;
            tended.ended = self.current.take().map(|current| self.path(current.number));
        }
        let Some(current) = &mut self.current else {
            recorder.take_changes();
            tended.written = self.begin(now, recorder, true)?;
            self.retry_at = None;
            return Ok(());
        };
        // A clock that was set back must not make moments that come before their past.
        let at = now.max(current.last + Duration::from_millis(1));
        let before = current.length;
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            let gap = Gap { from: current.last, to: at, lost };
            let block = current.writer.gap(at, lost)?;
            current.append(&block)?;
            self.catalogue.change(|known| known.gaps.push(gap));
        }
        let changes = recorder.take_changes();
        if !changes.is_empty() {
            let block = current.writer.frame(at, &changes)?;
            current.append(&block)?;
        }
        // Also without a change: it is known that there was none.
        current.last = at;
        tended.written = current.length - before;
        if at.since(current.synced) >= SYNC_INTERVAL {
            current.file.sync_data()?;
            current.synced = at;
        }
        let (number, length) = (current.number, current.length);
        let is_over = at.since(current.begun) >= self.settings.segment || length >= SEGMENT_BYTES_MAX;
        self.catalogue.change(|known| {
            if let Some(segment) = known.segments.iter_mut().rev().find(|segment| segment.number == number) {
                (segment.to, segment.bytes) = (at, length);
            }
        });
        if is_over {
            current.file.sync_data()?;
            self.given_up_for_room = 0;
            // Also when the next one cannot be begun: it is made smaller all the same.
            tended.ended = Some(self.path(number));
            tended.written += self.begin(at, recorder, false)?;
        }
        Ok(())
    }

    fn begin(&mut self, at: Timestamp, recorder: &mut Recorder, begins: bool) -> io::Result<u64> {
        recorder.settle();
        let number = self.next_number;
        let path = self.path(number);
        let mut writer = SegmentWriter::default();
        let mut bytes = segment::header(0);
        bytes.extend(writer.keyframe(at, recorder.world(), !begins)?);
        let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
        self.next_number += 1;
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            // What is left of it would be in the way.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let length = bytes.len() as u64;
        self.current = Some(Current { file, writer, number, begun: at, last: at, length, synced: at });
        let segment = Segment { number, path, from: at, to: at, bytes: length, begins };
        self.catalogue.change(|known| known.segments.push(segment));
        Ok(length)
    }

    /// Removes a file that cannot be read, or the oldest segment: while there are some, and only a few until one comes to its end again. What is
    /// given up for others who fill the disk would be lost for nothing. Whether there is more room now.
    pub fn make_room(&mut self) -> bool {
        let may_leave = self.given_up_for_room < GIVEN_UP_MAX;
        let leaving = self.catalogue.change(|known| match known.foreign.pop() {
            Some((path, ..)) => Some((path, 0)),
            None => (may_leave && known.segments.len() > SEGMENTS_MIN).then(|| (known.segments.remove(0).path, 1)),
        });
        leaving.is_some_and(|(path, given_up)| {
            self.given_up_for_room += given_up;
            std::fs::remove_file(path).is_ok()
        })
    }

    /// The disk refused: this segment is over, at the end of its last whole block.
    fn give_up(&mut self, now: Timestamp) {
        self.retry_at = Some(now + RETRY);
        if let Some(current) = self.current.take() {
            let _ = current.file.set_len(current.length);
        }
    }

    /// Removes what is too old or too much; the current segment stays.
    fn retain(&mut self, now: Timestamp) -> usize {
        let oldest = now - self.settings.keep_for;
        let current = self.current.as_ref().map(|current| current.number);
        let total = self.catalogue.bytes();
        let leaving = self.catalogue.change(|known| {
            let mut total = total;
            let mut leaving = Vec::new();
            known.foreign.retain(|(path, at, bytes)| {
                let leaves = *at < oldest || total > self.settings.keep_bytes;
                if leaves {
                    total -= bytes;
                    leaving.push(path.clone());
                }
                !leaves
            });
            let mut newest_left = known.segments.len();
            known.segments.retain(|segment| {
                newest_left -= 1;
                let leaves = Some(segment.number) != current && (segment.to < oldest || total > self.settings.keep_bytes);
                if leaves {
                    total -= segment.bytes;
                    leaving.push(segment.path.clone());
                }
                !leaves
            });
            if known.gaps.len() > GAPS_MAX {
                let surplus = known.gaps.len() - GAPS_MAX;
                known.gaps.drain(..surplus);
            }
            leaving
        });
        // A file that stays is found again when the store is opened next.
        leaving.iter().filter(|path| std::fs::remove_file(path).is_ok()).count()
    }

    /// A segment has been compacted: its file is smaller now.
    pub fn compacted(&self, path: &Path) {
        let Ok(about) = std::fs::metadata(path) else { return };
        self.catalogue.change(|known| {
            if let Some(segment) = known.segments.iter_mut().find(|segment| segment.path == path) {
                segment.bytes = about.len();
            }
        });
    }

    fn path(&self, number: u64) -> PathBuf {
        self.settings.directory.join(format!("{number:010}.{EXTENSION}"))
    }
}

impl Current {
    fn append(&mut self, block: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(block)?;
        self.length += block.len() as u64;
        Ok(())
    }
}

/// Writes an ended segment anew in fewer bytes, and puts it in place of the old one in one step. False when there is nothing to gain.
///
/// # Errors
/// When the disk refuses; the old file is as it was then.
pub fn compact_file(path: &Path) -> io::Result<bool> {
    let Some(bytes) = segment::compact(&std::fs::read(path)?)? else { return Ok(false) };
    let beside = path.with_extension("compacting");
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        // A segment that was removed meanwhile must not come back.
        if path.exists() { std::fs::rename(&beside, path).map(|()| true) } else { std::fs::remove_file(&beside).map(|()| false) }
    };
    let outcome = write();
    if outcome.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    outcome
}

/// Cuts off what is behind the last whole block.
fn cut_torn_end(path: &Path) -> io::Result<u64> {
    let bytes = std::fs::read(path)?;
    if segment::generation(&bytes).is_none() {
        return Ok(0);
    }
    let mut end = HEADER;
    while let Some(block) = block_at(&bytes, end) {
        end = block.end();
    }
    if end < bytes.len() {
        OpenOptions::new().write(true).open(path)?.set_len(end as u64)?;
    }
    Ok((bytes.len() - end) as u64)
}

/// What a file is, by the headers of its blocks; `None` when it is nothing that can be read.
fn describe(number: u64, path: &Path) -> io::Result<Option<Segment>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = vec![0; HEADER];
    if file.read_exact(&mut head).is_err() || segment::generation(&head).is_none() {
        return Ok(None);
    }
    let Some(first) = keyframe_of(&file, length)? else { return Ok(None) };
    let mut last = first.at;
    let mut offset = HEADER as u64;
    let mut block_head = [0_u8; 21];
    while offset + 21 <= length && file.read_exact_at(&mut block_head, offset).is_ok() {
        let size = u32::from_le_bytes([block_head[0], block_head[1], block_head[2], block_head[3]]);
        let at = u64::from_le_bytes(block_head[9..17].try_into().unwrap_or_default());
        offset += 21 + u64::from(size);
        if offset > length {
            break;
        }
        last = last.max(Timestamp::from_unix_nanos(at));
    }
    let begins = first.kind == Kind::Beginning;
    Ok(Some(Segment { number, path: path.to_owned(), from: first.at, to: last, bytes: length, begins }))
}

/// The first block of a file, checked.
fn keyframe_of(file: &File, length: u64) -> io::Result<Option<BlockInfo>> {
    let mut size = [0; 4];
    if file.read_exact_at(&mut size, HEADER as u64).is_err() {
        return Ok(None);
    }
    let end = HEADER as u64 + 21 + u64::from(u32::from_le_bytes(size));
    if end > length {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(end).map_err(|_| io::ErrorKind::InvalidData)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(block_at(&bytes, HEADER).filter(|block| matches!(block.kind, Kind::Keyframe | Kind::Beginning)))
}
