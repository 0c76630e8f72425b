//! Reports of Weave Scope's probes, kept as they came: with them, a moment of the past is drawn by the same rules as the present.
//!
//! They stand in files of some minutes each, one record behind the other: moment, length, checksum, body. The oldest file goes when it is too old or
//! all of them are too large. A record that is cut off or damaged ends its file; what is in front of it, and in other files, is read. Knows no
//! clock (`now` is an argument) and nothing of what is in a body.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::Timestamp;

/// Ending of the files' names.
const ENDING: &str = "reports";
/// Bytes in front of a body: its moment, its length, and the checksum of both and of the body.
const HEAD: usize = 16;
/// Largest body.
pub const BODY_MAX: usize = 32 << 20;
/// What is read at most for one moment.
const READ_MAX: usize = 256 << 20;

/// How much is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the files are.
    pub directory: PathBuf,
    /// For how long.
    pub keep_for: Duration,
    /// How many bytes.
    pub keep_bytes: u64,
    /// What one file spans.
    pub segment: Duration,
}

/// Writes reports down.
#[derive(Debug)]
pub struct Archive {
    settings: Settings,
    shelf: Shelf,
    open: Option<File>,
}

/// The files that there are. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<Mutex<VecDeque<Segment>>>);

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    path: PathBuf,
    from: Timestamp,
    to: Timestamp,
    bytes: u64,
}

/// A report as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// What.
    pub body: Vec<u8>,
}

impl Archive {
    /// Opens the directory, or makes it. This run writes into files of its own: a record that an earlier one did not finish stays the last of its
    /// file.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(settings: Settings) -> io::Result<Archive> {
        fs::create_dir_all(&settings.directory)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&settings.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == ENDING)
                && let Some(segment) = look_at(path)?
            {
                found.push(segment);
            }
        }
        found.sort_by_key(|segment| segment.from);
        Ok(Archive { settings, shelf: Shelf(Arc::new(Mutex::new(found.into()))), open: None })
    }

    /// The way to what was written.
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Writes a report down.
    ///
    /// # Errors
    /// When it cannot be written; the next one is tried in a file of its own.
    pub fn append(&mut self, at: Timestamp, body: &[u8]) -> io::Result<()> {
        let written = self.try_append(at, body);
        if written.is_err() {
            self.open = None;
        }
        written
    }

    fn try_append(&mut self, at: Timestamp, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= BODY_MAX).ok_or(io::ErrorKind::InvalidInput)?;
        let is_full = self.shelf.lock().back().is_some_and(|last| at.since(last.from) >= self.settings.segment || at < last.from);
        if is_full {
            self.open = None;
        }
        let file = match &mut self.open {
            Some(file) => file,
            closed @ None => {
                let path = self.settings.directory.join(format!("{:020}.{ENDING}", at.unix_nanos()));
                // One of the same name is of the same moment: it is added to.
                let file = OpenOptions::new().create(true).append(true).open(&path)?;
                let bytes = file.metadata()?.len();
                let mut shelf = self.shelf.lock();
                shelf.retain(|segment| segment.path != path);
                shelf.push_back(Segment { path, from: at, to: at, bytes });
                closed.insert(file)
            }
        };
        let mut record = Vec::with_capacity(HEAD + body.len());
        record.extend_from_slice(&at.unix_nanos().to_le_bytes());
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(&checksum(at, length, body).to_le_bytes());
        record.extend_from_slice(body);
        file.write_all(&record)?;
        if let Some(last) = self.shelf.lock().back_mut() {
            last.to = at;
            last.bytes += record.len() as u64;
        }
        Ok(())
    }

    /// Removes what is too old or too much; how many files.
    pub fn tend(&mut self, now: Timestamp) -> usize {
        let mut removed = 0;
        loop {
            let mut shelf = self.shelf.lock();
            let bytes: u64 = shelf.iter().map(|segment| segment.bytes).sum();
            let Some(first) = shelf.front() else { break };
            let is_last = shelf.len() == 1;
            let too_old = now.since(first.to) > self.settings.keep_for;
            if !too_old && bytes <= self.settings.keep_bytes {
                break;
            }
            let path = first.path.clone();
            shelf.pop_front();
            drop(shelf);
            if is_last {
                self.open = None;
            }
            // Somebody may have removed it before us.
            let _ = fs::remove_file(path);
            removed += 1;
        }
        removed
    }
}

impl Shelf {
    /// Everything from one moment, itself excluded, to another, in the order in which it came. Of very much, the latest.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn between(&self, from: Timestamp, to: Timestamp) -> io::Result<Vec<Record>> {
        let segments: Vec<Segment> = self.lock().iter().filter(|segment| segment.from <= to && segment.to > from).cloned().collect();
        let mut records = VecDeque::new();
        let mut bytes = 0;
        for segment in segments {
            let file = match File::open(&segment.path) {
                Ok(file) => file,
                // Too old meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut reader = BufReader::with_capacity(64 << 10, file);
            while let Some((at, length, sum)) = head(&mut reader)? {
                if at <= from || at > to {
                    reader.seek_relative(i64::from(length))?;
                    continue;
                }
                let mut body = vec![0; usize::try_from(length).unwrap_or(0)];
                if read_full(&mut reader, &mut body)? < body.len() || checksum(at, length, &body) != sum {
                    break;
                }
                bytes += body.len();
                records.push_back(Record { at, body });
                while bytes > READ_MAX
                    && let Some(first) = records.pop_front()
                {
                    bytes -= first.body.len();
                }
            }
        }
        Ok(records.into())
    }

    /// The first and the last moment of which there is something.
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let shelf = self.lock();
        Some((shelf.front()?.from, shelf.back()?.to))
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.lock().iter().map(|segment| segment.bytes).sum()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Segment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a file holds; `None` when nothing in it can be read.
fn look_at(path: PathBuf) -> io::Result<Option<Segment>> {
    let file = File::open(&path)?;
    let bytes = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut span: Option<(Timestamp, Timestamp)> = None;
    while let Some((at, length, _)) = head(&mut reader)? {
        let position = reader.seek(SeekFrom::Current(i64::from(length)))?;
        if position > bytes {
            break;
        }
        span = Some((span.map_or(at, |(from, _)| from), at));
    }
    Ok(span.map(|(from, to)| Segment { path, from, to, bytes }))
}

/// The next head: moment, length, checksum. `None` at the end, and where none can be.
fn head(reader: &mut impl io::Read) -> io::Result<Option<(Timestamp, u32, u32)>> {
    let mut head = [0; HEAD];
    if read_full(reader, &mut head)? < HEAD {
        return Ok(None);
    }
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = head;
    let at = Timestamp::from_unix_nanos(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    let (length, sum) = (u32::from_le_bytes([i, j, k, l]), u32::from_le_bytes([m, n, o, p]));
    let fits = usize::try_from(length).is_ok_and(|length| length <= BODY_MAX);
    Ok(fits.then_some((at, length, sum)))
}

/// Reads until the buffer is full or the end comes; how much.
fn read_full(reader: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn checksum(at: Timestamp, length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&at.unix_nanos().to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Where the reports of a data directory are.
pub fn directory_in(data: &Path) -> PathBuf {
    data.join("old-reports")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_millis(1_000_000 + seconds * 1_000)
    }

    fn settings(directory: &Path) -> Settings {
        Settings {
            directory: directory.to_owned(),
            keep_for: Duration::from_secs(600),
            keep_bytes: 1 << 20,
            segment: Duration::from_secs(60),
        }
    }

    fn seconds(shelf: &Shelf, from: u64, to: u64) -> Vec<u64> {
        let records = shelf.between(at(from), at(to)).unwrap();
        records.iter().map(|record| record.body[0].into()).collect()
    }

    #[test]
    fn what_was_written_is_read_again_after_a_restart_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let mut archive = Archive::open(settings(directory.path())).unwrap();
        for second in 0..200_u64 {
            archive.append(at(second), &vec![u8::try_from(second).unwrap(); 10]).unwrap();
        }
        assert_eq!(seconds(archive.shelf(), 55, 65), (56..=65).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4, "a file for each minute");
        drop(archive);
        let mut archive = Archive::open(settings(directory.path())).unwrap();
        assert_eq!(archive.shelf().span(), Some((at(0), at(199))));
        assert_eq!(archive.shelf().bytes(), 200 * 26);
        archive.append(at(200), &[200; 10]).unwrap();
        assert_eq!(seconds(archive.shelf(), 195, 300), (196..=200).collect::<Vec<_>>());
        assert!(archive.append(at(201), &vec![0; BODY_MAX + 1]).is_err());
        archive.append(at(202), &[202]).unwrap();
        assert_eq!(seconds(archive.shelf(), 199, 300), [200, 202]);
    }

    #[test]
    fn the_oldest_goes_when_it_is_too_old_or_all_is_too_much() {
        let directory = tempfile::tempdir().unwrap();
        let mut archive = Archive::open(Settings { keep_bytes: 1_000, ..settings(directory.path()) }).unwrap();
        for second in (0..120).step_by(2) {
            archive.append(at(second), &[1; 4]).unwrap();
        }
        assert_eq!(archive.tend(at(120)), 1, "1,200 bytes are too much");
        assert_eq!(archive.shelf().span(), Some((at(60), at(118))));
        assert_eq!(archive.tend(at(719)), 1, "and the rest is too old");
        assert_eq!((archive.shelf().span(), archive.shelf().bytes()), (None, 0));
        archive.append(at(720), &[1]).unwrap();
        assert_eq!(archive.shelf().between(at(0), at(800)).unwrap().len(), 1);
    }

    #[test]
    fn damage_costs_what_is_behind_it_in_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut archive = Archive::open(settings(directory.path())).unwrap();
        for second in [0, 1, 2, 70, 71] {
            archive.append(at(second), &[u8::try_from(second).unwrap(); 10]).unwrap();
        }
        let mut files: Vec<PathBuf> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut bytes = fs::read(&files[0]).unwrap();
        bytes[HEAD + 10 + HEAD + 3] ^= 1;
        fs::write(&files[0], &bytes).unwrap();
        let bytes = fs::read(&files[1]).unwrap();
        fs::write(&files[1], &bytes[..bytes.len() - 3]).unwrap();
        fs::write(directory.path().join("00.reports"), b"nothing that can be read").unwrap();
        let archive = Archive::open(settings(directory.path())).unwrap();
        assert_eq!(seconds(archive.shelf(), 0, 100), [70]);
        let all = archive.shelf().between(at(0) - Duration::from_secs(1), at(100)).unwrap();
        assert_eq!(all.iter().map(|record| record.body[0]).collect::<Vec<_>>(), [0, 70]);
    }
}
