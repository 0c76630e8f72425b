//! A log that is rotated at a size.
//!
//! It is in a sandbox, of which the task may make what it likes: a log is only ever a plain file of the directory that was opened at the start.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sandbox::Sandbox;

/// How often a new log is tried to be made where somebody puts something else at once.
const ATTEMPTS: usize = 8;

/// The file under its own name is the newest; `name.1` is the one before, and so on.
pub(super) struct RotatedLog {
    sandbox: Sandbox,
    name: String,
    file: File,
    size: u64,
    rotate_at: u64,
    keep: u32,
}

impl RotatedLog {
    /// The log at `path`. Links are followed as far as `trusted`, which is above it; where that is not told: to its directory.
    pub(super) fn open(path: &Path, trusted: Option<&Path>, rotate_at: u64, keep: u32) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let sandbox = Sandbox::open(trusted.unwrap_or(directory), directory)?;
        let name = name.to_string_lossy().into_owned();
        let file = sandbox.log(&name)?;
        let size = file.metadata()?.len();
        Ok(RotatedLog { sandbox, name, file, size, rotate_at, keep })
    }

    /// A log that cannot be written loses lines; it never stops the container.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.rotate_at > 0 && self.size > 0 && self.size + bytes.len() as u64 > self.rotate_at {
            self.rotate();
        }
        if self.file.write_all(bytes).is_ok() {
            self.size += bytes.len() as u64;
        }
    }

    fn rotate(&mut self) {
        let directory = self.sandbox.directory();
        let numbered = |number: u32| format!("{}.{number}", self.name);
        for number in (1..self.keep).rev() {
            let _ = renameat(directory, numbered(number).as_str(), directory, numbered(number + 1).as_str());
        }
        if self.keep > 0 {
            let _ = renameat(directory, self.name.as_str(), directory, numbered(1).as_str());
        } else {
            let _ = unlinkat(directory, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        // Where no new one can be made the old one is written on, and the next attempt is as far away as that of a new one.
        self.size = 0;
        if let Ok(file) = self.create() {
            // The owner of the sandbox reads its rotated logs, too.
            if let Ok(old) = self.file.metadata() {
                drop(fchown(&file, Some(old.uid()), Some(old.gid())));
            }
            self.file = file;
        }
    }

    fn create(&self) -> io::Result<File> {
        let directory = self.sandbox.directory();
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        for _ in 0..ATTEMPTS {
            match openat(directory.as_fd(), self.name.as_str(), flags, Mode::from_bits_truncate(0o666)) {
                Ok(file) => return Ok(File::from(file)),
                // The task has put something in its place in this moment: that goes, and is not written to.
                Err(Errno::EEXIST) => unlinkat(directory, self.name.as_str(), UnlinkatFlags::NoRemoveDir)?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_lost_in_a_rotation_and_only_the_newest_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout");
        let mut log = RotatedLog::open(&path, None, 10, 2).unwrap();
        for line in ["first\n", "second\n", "third\n", "fourth\n"] {
            log.write(line.as_bytes());
        }
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).ok();
        assert_eq!(
            (read("stdout"), read("stdout.1"), read("stdout.2")),
            (Some("fourth\n".to_owned()), Some("third\n".to_owned()), Some("second\n".to_owned()))
        );
        assert_eq!(read("stdout.3"), None);
    }

    #[test]
    fn a_link_in_the_place_of_a_log_is_neither_written_nor_given_away() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};

        let directory = tempfile::tempdir().unwrap();
        let (outside, sandbox) = (directory.path().join("outside"), directory.path().join("sandbox"));
        std::fs::write(&outside, "untouched").unwrap();
        std::fs::create_dir(&sandbox).unwrap();
        symlink(&outside, sandbox.join("stdout")).unwrap();
        assert!(RotatedLog::open(&sandbox.join("stdout"), Some(directory.path()), 10, 2).is_err());
        std::fs::remove_file(sandbox.join("stdout")).unwrap();
        let mut log = RotatedLog::open(&sandbox.join("stdout"), Some(directory.path()), 10, 2).unwrap();
        log.write(b"1234567890");
        // The task turns its log, and what it is rotated to, into links.
        for name in ["stdout", "stdout.1", "stdout.2"] {
            drop(std::fs::remove_file(sandbox.join(name)));
            symlink(&outside, sandbox.join(name)).unwrap();
        }
        for _ in 0..4 {
            log.write(b"1234567890");
        }
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "untouched");
        assert_eq!(std::fs::read_to_string(sandbox.join("stdout")).unwrap(), "1234567890");
        assert!(!sandbox.join("stdout").is_symlink());
        // A directory, which cannot be taken away by unlinking.
        std::fs::remove_file(sandbox.join("stdout")).unwrap();
        std::fs::create_dir(sandbox.join("stdout")).unwrap();
        std::fs::set_permissions(&sandbox, std::fs::Permissions::from_mode(0o755)).unwrap();
        log.write(b"1234567890");
        log.write(b"1");
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "untouched");
    }
}
