//! The files that the master shows under virtual paths (`/master/log`).

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use mesos_proto::v1;

/// Bytes of one read at most: 16 pages.
const MOST_READ: u64 = 16 * 4096;
/// Entries of one directory at most.
const MOST_ENTRIES: usize = 10_000;

/// Which real paths are shown under which virtual ones.
#[derive(Clone, Debug, Default)]
pub struct Files(BTreeMap<String, PathBuf>);

/// Why a file cannot be shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FileError {
    NotFound,
    Bad(String),
    Failed(String),
}

impl Files {
    /// Shows `real` as `virtual_path`.
    pub fn attach(&mut self, virtual_path: &str, real: impl Into<PathBuf>) {
        self.0.insert(virtual_path.trim_end_matches('/').to_owned(), real.into());
    }

    /// Virtual paths and what they stand for.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.0.iter().map(|(name, real)| (name.as_str(), real.as_path()))
    }

    /// The real path. Nothing outside of what is attached is ever reached, not through links either.
    pub(crate) fn resolve(&self, path: &str) -> Result<PathBuf, FileError> {
        if path.is_empty() {
            return Err(FileError::Bad("Expecting 'path=value' in query.\n".to_owned()));
        }
        let wanted = path.trim_end_matches('/');
        let covering = self.0.iter().rev().find_map(|(name, real)| {
            let rest = wanted.strip_prefix(name.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| (real, rest.trim_start_matches('/')))
        });
        let (root, rest) = covering.ok_or(FileError::NotFound)?;
        if !Path::new(rest).components().all(|it| matches!(it, Component::Normal(_))) {
            return Err(FileError::NotFound);
        }
        let root = root.canonicalize().map_err(|_| FileError::NotFound)?;
        let real = if rest.is_empty() { root.clone() } else { root.join(rest).canonicalize().map_err(|_| FileError::NotFound)? };
        if real.starts_with(&root) { Ok(real) } else { Err(FileError::NotFound) }
    }

    /// What a directory holds.
    pub(crate) fn browse(&self, path: &str) -> Result<Vec<v1::FileInfo>, FileError> {
        let real = self.resolve(path)?;
        let entries = std::fs::read_dir(&real).map_err(|_| FileError::NotFound)?;
        let mut infos = Vec::new();
        for entry in entries.take(MOST_ENTRIES).flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let name = entry.file_name();
            infos.push(v1::FileInfo {
                path: format!("{}/{}", path.trim_end_matches('/'), name.to_string_lossy()),
                nlink: i32::try_from(metadata.nlink()).ok(),
                size: Some(metadata.size()),
                mtime: Some(v1::TimeInfo { nanoseconds: metadata.mtime().saturating_mul(1_000_000_000) }),
                mode: Some(metadata.mode()),
                uid: Some(metadata.uid().to_string()),
                gid: Some(metadata.gid().to_string()),
            });
        }
        infos.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(infos)
    }

    /// A part of a file, and the whole file's size. Without an offset nothing is read.
    pub(crate) fn read(&self, path: &str, offset: Option<u64>, length: Option<u64>) -> Result<(u64, Vec<u8>), FileError> {
        let real = self.resolve(path)?;
        let metadata = std::fs::metadata(&real).map_err(|_| FileError::NotFound)?;
        if metadata.is_dir() {
            return Err(FileError::Bad("Cannot read a directory.\n".to_owned()));
        }
        let size = metadata.len();
        let Some(offset) = offset.filter(|it| *it < size) else { return Ok((size, Vec::new())) };
        let failed = |error: std::io::Error| FileError::Failed(error.to_string());
        let mut file = std::fs::File::open(&real).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut data = Vec::new();
        file.take(length.unwrap_or(MOST_READ).min(MOST_READ)).read_to_end(&mut data).map_err(failed)?;
        Ok((size, data))
    }
}

/// `-rw-r--r--`
pub(crate) fn say_mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o140_000 => 's',
        0o010_000 => 'p',
        0o020_000 => 'c',
        0o060_000 => 'b',
        _ => '-',
    };
    let bits = (0..9).rev().map(|at| if mode >> at & 1 == 1 { ['x', 'w', 'r'][at % 3] } else { '-' });
    std::iter::once(kind).chain(bits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_attached_is_reached() {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        std::fs::write(logs.join("a"), "0123456789").unwrap();
        std::fs::write(directory.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink("../secret", logs.join("link")).unwrap();
        let mut files = Files::default();
        files.attach("/master/log", &logs);
        assert_eq!(files.read("/master/log/a", Some(2), Some(3)).unwrap(), (10, b"234".to_vec()));
        assert_eq!(files.read("/master/log/a", None, None).unwrap(), (10, Vec::new()));
        assert_eq!(files.read("/master/log/a", Some(u64::MAX), None).unwrap(), (10, Vec::new()));
        for path in ["/master/log/../secret", "/master/log/link", "/master/logs", "/etc/passwd", "/master/log/a/../../secret", "/"] {
            assert_eq!(files.read(path, Some(0), None), Err(FileError::NotFound), "{path}");
        }
        let names: Vec<String> = files.browse("/master/log/").unwrap().into_iter().map(|it| it.path).collect();
        assert_eq!(names, ["/master/log/a", "/master/log/link"]);
    }

    #[test]
    fn modes_are_said_as_by_ls() {
        assert_eq!(say_mode(0o100_644), "-rw-r--r--");
        assert_eq!(say_mode(0o040_751), "drwxr-x--x");
    }
}
