//! Where the cgroup hierarchies are mounted.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::procfs::mountinfo::{self, below, unescape};

/// Controllers of v1 whose files are read.
const CONTROLLERS: [&str; 5] = ["cpuacct", "cpu", "memory", "blkio", "pids"];

/// Where the cgroup hierarchies are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Mount point of the v2 hierarchy.
    pub unified: Option<PathBuf>,
    /// Mount points of v1 hierarchies by controller.
    pub controllers: HashMap<String, PathBuf>,
    /// What of its hierarchy is mounted, by mount point, where that is not all of it.
    parts: HashMap<PathBuf, PathBuf>,
}

impl Mounts {
    /// Parses a mount table such as `/proc/1/mountinfo`. Paths are taken below `root`, where the host's file system is. Of several mounts of a
    /// hierarchy the first that shows all of it is taken.
    pub fn parse(table: &[u8], root: &Path) -> Self {
        let mut mounts = Mounts::default();
        for mount in mountinfo::parse(table) {
            let is_whole = mount.root == b"/";
            let point = below(root, mount.point);
            let mut is_taken = false;
            let mut take = |known: Option<&PathBuf>, parts: &HashMap<PathBuf, PathBuf>| {
                let better = known.is_none_or(|known| is_whole && parts.contains_key(known));
                is_taken |= better;
                better
            };
            match mount.file_system {
                b"cgroup2" if take(mounts.unified.as_ref(), &mounts.parts) => mounts.unified = Some(point.clone()),
                b"cgroup" => {
                    for option in mount.options.split(|&byte| byte == b',') {
                        let Some(controller) = CONTROLLERS.iter().find(|it| it.as_bytes() == option) else { continue };
                        if take(mounts.controllers.get(*controller), &mounts.parts) {
                            mounts.controllers.insert((*controller).to_owned(), point.clone());
                        }
                    }
                }
                _ => {}
            }
            if is_taken && !is_whole {
                mounts.parts.insert(point, PathBuf::from(OsString::from_vec(unescape(mount.root))));
            }
        }
        mounts
    }

    /// The same with the v2 hierarchy mounted at `root`.
    #[must_use]
    pub fn with_unified(mut self, root: Option<PathBuf>) -> Self {
        self.unified = root.or(self.unified);
        self
    }

    /// Whether there is a hierarchy that can be looked into.
    pub fn is_usable(&self) -> bool {
        self.unified.iter().chain(self.controllers.values()).any(|it| it.is_dir())
    }

    /// The directory that a path of `/proc/<pid>/cgroup` names; `None` when it is not among what is mounted.
    pub(super) fn directory(&self, point: &Path, path: &str) -> Option<PathBuf> {
        let path = Path::new(path);
        // "/../x" is what a process in a cgroup namespace of its own is told of cgroups elsewhere: where that is cannot be known.
        if path.components().any(|it| it == std::path::Component::ParentDir) {
            return None;
        }
        let part = self.parts.get(point).map_or(Path::new("/"), PathBuf::as_path);
        Some(point.join(path.strip_prefix(part).ok()?))
    }
}
