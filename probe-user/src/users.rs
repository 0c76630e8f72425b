//! Names of users: the host's `/etc/passwd`. Users of a directory service are not in it and have no names here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::host::namespace::host_process;
use crate::procfs::words::{lines, number};

/// Names that are kept at most; what is behind them has none.
pub const USERS_MAX: usize = 16_384;

/// Longest name that is one: useradd(8) allows 32.
const NAME_MAX: usize = 64;

/// Longest file that is read.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Names by user id. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(Arc<BTreeMap<u32, Box<str>>>);

impl Users {
    /// Parses a file in the format of passwd(5). Of several names of an id the first counts, as it does for getpwuid(3). Lines that are none are
    /// left out, and so are names that nobody could have.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut names = BTreeMap::new();
        for line in lines(bytes) {
            let mut fields = line.split(|&byte| byte == b':');
            let (Some(name), Some(_), Some(id)) = (fields.next(), fields.next(), fields.next()) else { continue };
            let (Some(name), Some(id)) = (user_name(name), number(id).and_then(|id| u32::try_from(id).ok())) else { continue };
            if names.len() < USERS_MAX {
                names.entry(id).or_insert_with(|| name.into());
            }
        }
        Users(Arc::new(names))
    }

    /// Name of a user; empty when there is none.
    pub fn name(&self, id: u32) -> &str {
        self.0.get(&id).map_or("", |name| name)
    }
}

/// A name without control characters and blanks. Lines of comments and of NIS ("+@group") begin otherwise.
fn user_name(bytes: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(bytes).ok()?;
    let is_name = !name.is_empty() && name.len() <= NAME_MAX && !name.starts_with(['+', '-', '#']);
    (is_name && !name.chars().any(|it| it.is_control() || it.is_whitespace())).then_some(name)
}

/// Reads the file again when it has changed.
#[derive(Debug)]
pub struct UserReader {
    paths: [PathBuf; 2],
    read: Option<(Version, Users)>,
}

/// What of a file changes when it does: tools write a new one and rename it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl UserReader {
    /// A reader of the file of the host whose `/proc` is at `proc_root`.
    pub fn new(proc_root: &Path) -> Self {
        // Of a process of the host, so that a probe in a container sees the host's; else our own.
        UserReader { paths: [host_process(proc_root).join("root/etc/passwd"), PathBuf::from("/etc/passwd")], read: None }
    }

    /// The names as they are now. A file that cannot be read leaves those from before.
    pub fn users(&mut self) -> Users {
        let found = self.paths.iter().find_map(|path| Some((path, version(path).ok()?)));
        if let Some((path, version)) = found
            && self.read.as_ref().is_none_or(|(known, _)| *known != version)
            && let Ok(bytes) = read(path)
        {
            self.read = Some((version, Users::parse(&bytes)));
        }
        self.read.as_ref().map(|(_, users)| users.clone()).unwrap_or_default()
    }
}

fn version(path: &Path) -> io::Result<Version> {
    let metadata = std::fs::metadata(path)?;
    // Opening a pipe would wait for its other end.
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    Ok(Version { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), modified })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_name_of_an_id_counts() {
        let users = Users::parse(b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nweb-data:x:33:33::/:\nw\xc3\xa4:*:7:1:::\n");
        assert_eq!((users.name(0), users.name(33), users.name(7), users.name(8)), ("root", "web-data", "wä", ""));
    }

    #[test]
    fn hostile_lines_are_no_users() {
        let long = format!("{}:x:8:0::/:", "a".repeat(NAME_MAX + 1));
        let lines = [
            ":x:8:0::/:",
            "+::8:0:::",
            "-a:x:8:0:::",
            "#a:x:8:0::/:",
            "a b:x:8:0::/:",
            "a\u{7}:x:8:0::/:",
            "a:x:-8:0::/:",
            "a:x:4294967304:0::/:",
            "a:x",
            "a",
            "",
            &long,
            "\u{1b}[31m:x:8:0::/:",
        ];
        assert_eq!(Users::parse(lines.join("\n").as_bytes()), Users::default());
        assert_eq!(Users::parse(b"\xff\xfe:x:8:0::/:\n"), Users::default());
    }

    #[test]
    fn only_so_many_names_are_kept() {
        let text: String = (0..USERS_MAX + 10).map(|id| format!("u{id}:x:{id}:0::/:\n")).collect();
        let users = Users::parse(text.as_bytes());
        assert_eq!((users.name(16_383), users.name(16_384)), ("u16383", ""));
    }

    #[test]
    fn a_file_is_read_again_when_it_was_replaced() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("1/root/etc");
        std::fs::create_dir_all(&etc).unwrap();
        let replace = |text: &str| {
            std::fs::write(etc.join("passwd.new"), text).unwrap();
            std::fs::rename(etc.join("passwd.new"), etc.join("passwd")).unwrap();
        };
        let mut reader = UserReader::new(root.path());
        replace("a:x:77777:0::/:\n");
        assert_eq!(reader.users().name(77_777), "a");
        replace("b:x:77777:0::/:\n");
        assert_eq!(reader.users().name(77_777), "b");
    }

    #[test]
    fn a_pipe_in_its_place_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("1/root/etc");
        std::fs::create_dir_all(&etc).unwrap();
        nix::unistd::mkfifo(&etc.join("passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Our own file is read then.
        assert_eq!(UserReader::new(root.path()).users().name(0), "root");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_users_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for name in Users::parse(&bytes).0.values() {
                prop_assert!(!name.chars().any(char::is_control) && name.len() <= NAME_MAX);
            }
        }
    }
}
