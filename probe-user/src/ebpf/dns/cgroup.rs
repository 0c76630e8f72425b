//! From the id of a cgroup to its directory.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::cgroups::CGROUPS_MAX;
use crate::ebpf::place::CgroupRoot;

/// Cgroups are not looked for further above.
const DEPTH_MAX: usize = 32;

/// `FILEID_KERNFS` of linux/exportfs.h: the handle is the id, 64 bits (since Linux 5.5).
const FILEID_KERNFS: libc::c_int = 0xfe;

/// `struct file_handle`, with room for an id.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: [u8; 8],
}

/// Opens the directory of a cgroup: by its id, or where that is not allowed (it needs `CAP_DAC_READ_SEARCH`) by looking for it.
pub(super) fn open(root: &CgroupRoot, id: u64) -> io::Result<File> {
    match open_by_id(&root.directory, id) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => match &root.path {
            Some(path) => File::open(find(path, id).ok_or(io::ErrorKind::NotFound)?),
            None => Err(error),
        },
        result => result,
    }
}

/// The cgroups above one, the nearest first, without the root; none when it is not there.
pub(super) fn above(root: &CgroupRoot, id: u64) -> Vec<u64> {
    let mut above = Vec::new();
    let Ok(top) = root.directory.metadata().map(|it| it.ino()) else { return above };
    let Ok(mut directory) = open(root, id) else { return above };
    while above.len() < DEPTH_MAX {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(parent) = nix::fcntl::openat(&directory, "..", flags, Mode::empty()) else { break };
        directory = File::from(parent);
        match directory.metadata().map(|it| it.ino()) {
            Ok(id) if id != top => above.push(id),
            _ => break,
        }
    }
    above
}

fn open_by_id(root: &File, id: u64) -> io::Result<File> {
    let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the handle has the layout of `struct file_handle`, and says its length.
    let result = unsafe { libc::syscall(libc::SYS_open_by_handle_at, root.as_raw_fd(), &raw mut handle, flags) };
    let fd = i32::try_from(result).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn find(root: &Path, id: u64) -> Option<PathBuf> {
    let mut pending = vec![root.to_path_buf()];
    for _ in 0..CGROUPS_MAX {
        let directory = pending.pop()?;
        if directory.metadata().is_ok_and(|metadata| metadata.ino() == id) {
            return Some(directory);
        }
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        pending.extend(entries.flatten().filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path()));
    }
    None
}
