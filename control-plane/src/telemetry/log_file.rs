//! A copy of what is logged, in a file by Mesos's name: the master's flag `log_dir`. Standard error has the same lines, as with Mesos.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// The name that tools know: with Mesos it leads to the newest file of this level and those above.
const NAME: &str = "mesos-master.INFO";

/// A file is not made longer than this many bytes, but for its last line.
const SIZE_MAX: u64 = 64 << 20;

/// Files that were the log before, `.1` the newest.
const KEPT: u32 = 4;

/// How often it is looked whether somebody has moved the file away.
const LOOK: Duration = Duration::from_secs(1);

/// The file of this process, once it has one.
static FILE: OnceLock<Mutex<LogFile>> = OnceLock::new();

/// From now on what is logged is in a file of this directory, too. Where it is.
///
/// # Errors
/// When the directory or the file cannot be made, or there is one already.
pub fn copy_logs_to(directory: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(directory)?;
    let file = LogFile::open(directory.join(NAME), SIZE_MAX)?;
    let path = file.path.clone();
    FILE.set(Mutex::new(file)).map_err(|_| io::Error::other("the log has a file already"))?;
    Ok(path)
}

/// Writes lines to standard error, and to the file where there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        Lines
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(file) = FILE.get() {
            file.lock().unwrap_or_else(PoisonError::into_inner).append(line);
        }
        // Whole: the rest of a line would come here again, and be in the file twice.
        io::stderr().write_all(line).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    size_max: u64,
    looked: Instant,
    /// Lines that could not be written since one could: standard error has them.
    missing: u64,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl LogFile {
    fn open(path: PathBuf, size_max: u64) -> io::Result<Self> {
        let file = open(&path)?;
        let size = file.metadata()?.len();
        Ok(LogFile { path, file, size, size_max, looked: Instant::now(), missing: 0 })
    }

    fn append(&mut self, line: &[u8]) {
        if self.looked.elapsed() >= LOOK {
            self.look();
        }
        if self.size > 0 && self.size + line.len() as u64 > self.size_max {
            self.rotate();
        }
        match self.file.write_all(line) {
            Ok(()) => {
                self.size += line.len() as u64;
                if self.missing > 0 {
                    let said = format!("{} lines could not be written here\n", self.missing);
                    self.missing = 0;
                    self.size += self.file.write_all(said.as_bytes()).map_or(0, |()| said.len() as u64);
                }
            }
            Err(error) => {
                if self.missing == 0 {
                    // Not to the log, which is what this is about.
                    drop(writeln!(io::stderr(), "{} cannot be written: {error}", self.path.display()));
                }
                self.missing += 1;
            }
        }
    }

    /// Whoever keeps logs may have moved the file away, or emptied it: what comes goes to the one of its name.
    fn look(&mut self) {
        self.looked = Instant::now();
        let Ok(own) = self.file.metadata() else { return };
        let is_there = std::fs::metadata(&self.path).is_ok_and(|it| (it.dev(), it.ino()) == (own.dev(), own.ino()));
        self.size = own.len();
        if !is_there && let Ok(file) = open(&self.path) {
            self.size = file.metadata().map_or(0, |it| it.len());
            self.file = file;
        }
    }

    /// Begins another file. Where that cannot be made, the old one is written on.
    fn rotate(&mut self) {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        // Before anything is moved: while no file can be opened, the older ones would be moved out by every line.
        let draft = PathBuf::from(format!("{}.new", self.path.display()));
        drop(std::fs::remove_file(&draft));
        if open(&draft).is_err() {
            return;
        }
        for number in (1..KEPT).rev() {
            drop(std::fs::rename(numbered(number), numbered(number + 1)));
        }
        drop(std::fs::rename(&self.path, numbered(1)));
        drop(std::fs::rename(&draft, &self.path));
        self.look();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_lost_in_a_rotation_and_the_oldest_file_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let mut log = LogFile::open(path.clone(), 20).unwrap();
        for number in 0..12 {
            log.append(format!("line {number:02}\n").as_bytes());
        }
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        assert_eq!((read(NAME).as_str(), read("mesos-master.INFO.1").as_str()), ("line 10\nline 11\n", "line 08\nline 09\n"));
        assert_eq!(read("mesos-master.INFO.4"), "line 02\nline 03\n");
        assert!(!directory.path().join("mesos-master.INFO.5").exists());
        drop(log);
        LogFile::open(path, 100).unwrap().append(b"next\n");
        assert_eq!(read(NAME), "line 10\nline 11\nnext\n", "the next process goes on in it");
    }

    #[test]
    fn a_file_that_was_moved_away_or_emptied_is_no_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let mut log = LogFile::open(path.clone(), 1 << 20).unwrap();
        log.append(b"first\n");
        std::fs::rename(&path, directory.path().join("kept")).unwrap();
        log.look();
        log.append(b"second\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second\n");
        File::create(&path).unwrap();
        log.look();
        log.append(b"third\n");
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), log.size), ("third\n", 6));
    }

    #[test]
    fn what_could_not_be_written_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        let mut log = LogFile::open(path.clone(), 1 << 20).unwrap();
        // As a full disk would.
        log.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        log.append(b"first\n");
        log.append(b"second\n");
        log.file = open(&path).unwrap();
        log.append(b"third\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third\n2 lines could not be written here\n");
    }
}
