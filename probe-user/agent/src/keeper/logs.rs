//! A log that is rotated at a size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The file under its own name is the newest; `name.1` is the one before, and so on.
pub(super) struct RotatedLog {
    path: PathBuf,
    file: File,
    size: u64,
    rotate_at: u64,
    keep: u32,
}

impl RotatedLog {
    pub(super) fn open(path: &Path, rotate_at: u64, keep: u32) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(RotatedLog { path: path.to_owned(), file, size, rotate_at, keep })
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
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.keep).rev() {
            drop(std::fs::rename(numbered(number), numbered(number + 1)));
        }
        if self.keep > 0 {
            drop(std::fs::rename(&self.path, numbered(1)));
        } else {
            drop(std::fs::remove_file(&self.path));
        }
        if let Ok(file) = OpenOptions::new().create(true).append(true).open(&self.path) {
            // The owner of the sandbox reads its rotated logs, too.
            if let Ok(old) = self.file.metadata() {
                use std::os::unix::fs::MetadataExt as _;
                drop(std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid())));
            }
            self.file = file;
            self.size = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_lost_in_a_rotation_and_only_the_newest_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout");
        let mut log = RotatedLog::open(&path, 10, 2).unwrap();
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
}
