//! Where names of kernel programs live: a mounted BPF file system.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use nix::sys::statfs::{FsType, statfs};

/// Where the system has it.
const USUAL: &str = "/sys/fs/bpf";

/// Where the probe mounts one that it cannot have there.
const PRIVATE: &str = "/run/orchestrator-probe/bpf";

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const MAGIC: FsType = FsType(0xcafe_4a11);

/// A directory of a BPF file system: `wanted`, or where the system has it, or a place of the probe's own. Mounts it where there is none.
///
/// # Errors
/// When there is none and none can be mounted, which takes `CAP_SYS_ADMIN`.
pub(super) fn find(wanted: Option<&Path>) -> io::Result<PathBuf> {
    match wanted {
        Some(path) => mounted(path).map(|()| path.to_owned()),
        None => mounted(Path::new(USUAL)).map(|()| PathBuf::from(USUAL)).or_else(|usual| {
            // Both are told of: the first is where people look.
            mounted(Path::new(PRIVATE))
                .map(|()| PathBuf::from(PRIVATE))
                .map_err(|private| io::Error::new(private.kind(), format!("{USUAL}: {usual}; {PRIVATE}: {private}")))
        }),
    }
}

/// The directories that [`find`] may have given, of those that are there; nothing is mounted.
pub(super) fn existing(wanted: Option<&Path>) -> Vec<PathBuf> {
    let places = match wanted {
        Some(path) => vec![path.to_owned()],
        None => vec![PathBuf::from(USUAL), PathBuf::from(PRIVATE)],
    };
    places.into_iter().filter(|path| is_bpffs(path)).collect()
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|filesystem| filesystem.filesystem_type() == MAGIC)
}

fn mounted(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    // One that had to be made may be in such a file system, too.
    if is_bpffs(path) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700"))?;
    Ok(())
}
