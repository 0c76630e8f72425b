//! File systems on devices: how large, how full. The list is pure; the sizes are asked on a thread of their own, because asking one whose path
//! leads over a dead network mount may take for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use proto::probe::v1::host_metrics::Disk;

use crate::procfs::mountinfo::{self, Mount, unescape};
use crate::procfs::parse::printable;

/// File systems that are told at most.
pub const DISKS_MAX: usize = 64;

/// A round waits this long for all sizes.
const ANSWERED_WITHIN: Duration = Duration::from_millis(500);

/// Threads that may hang at once; with so many no sizes are asked until one comes back.
const HUNG_MAX: usize = 4;

/// A file system whose size is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Where it is mounted, as the host's processes see it.
    pub mount_point: Vec<u8>,
    /// Its device, such as "/dev/sda1".
    pub device: Vec<u8>,
    /// Type, such as "ext4".
    pub file_system: Vec<u8>,
}

/// File systems of a mount table that are on devices, each once, at most `max`, shortest mount point first; and how many found no room.
///
/// A device that is mounted twice is named by where all of it is mounted, else by the shortest mount point: bind mounts show a part of what is
/// told already. Images that are always full (snaps), memory, overlays, and whatever a network or another process answers for are no disks.
pub fn choose(mounts: &[u8], max: usize) -> (Vec<FileSystem>, usize) {
    let mut by_device: BTreeMap<&[u8], Mount<'_>> = BTreeMap::new();
    for mount in mountinfo::parse(mounts).filter(is_disk) {
        let rank = |it: &Mount<'_>| (it.root != b"/", it.point.len());
        let known = by_device.entry(mount.source).or_insert(mount);
        if rank(&mount) < rank(known) {
            *known = mount;
        }
    }
    // One device may have two names (/dev/root and /dev/sda1); file systems like btrfs have one name and several numbers.
    let mut seen = BTreeSet::new();
    let mut chosen: Vec<Mount<'_>> = by_device.into_values().filter(|it| seen.insert(it.device)).collect();
    chosen.sort_by_key(|it| (it.point.len(), it.point));
    let left_out = chosen.len().saturating_sub(max);
    let file_system =
        |it: &Mount<'_>| FileSystem { mount_point: it.point.to_vec(), device: it.source.to_vec(), file_system: it.file_system.to_vec() };
    (chosen.iter().take(max).map(file_system).collect(), left_out)
}

fn is_disk(mount: &Mount<'_>) -> bool {
    let is_image = matches!(mount.file_system, b"squashfs" | b"erofs" | b"iso9660" | b"udf");
    let is_answered_by_others = mount.file_system.starts_with(b"fuse") || matches!(mount.file_system, b"devtmpfs" | b"tmpfs" | b"overlay");
    let is_device = mount.source.starts_with(b"/dev/") || mount.file_system == b"zfs";
    is_device && !is_image && !is_answered_by_others
}

/// What was told in a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sizes {
    /// Sizes of those that answered.
    pub disks: Vec<Disk>,
    /// File systems that did not answer in time, now or before.
    pub unanswered: usize,
}

/// Asks file systems for their sizes.
#[derive(Debug, Default)]
pub struct Disks {
    /// Threads that wait for an answer.
    waiting: Arc<AtomicUsize>,
    /// Mount points that did not answer, with the number of threads that waited for them: they are asked again when a thread has come back.
    silent: BTreeMap<Vec<u8>, Arc<AtomicUsize>>,
}

impl Disks {
    /// Sizes of `file_systems`, whose paths begin at `root`. Takes at most half a second, whatever hangs.
    pub fn sizes(&mut self, root: &Path, file_systems: Vec<FileSystem>) -> Sizes {
        self.sizes_within(root, file_systems, ANSWERED_WITHIN)
    }

    fn sizes_within(&mut self, root: &Path, mut file_systems: Vec<FileSystem>, patience: Duration) -> Sizes {
        self.silent.retain(|_, hung| hung.load(Ordering::Acquire) > 0);
        let all = file_systems.len();
        file_systems.retain(|it| !self.silent.contains_key(&it.mount_point));
        let mut sizes = Sizes { disks: Vec::with_capacity(file_systems.len()), unanswered: all - file_systems.len() };
        if file_systems.is_empty() {
            return sizes;
        }
        if self.waiting.load(Ordering::Acquire) >= HUNG_MAX {
            sizes.unanswered = all;
            return sizes;
        }
        let mut names: Vec<Vec<u8>> = file_systems.iter().map(|it| it.mount_point.clone()).collect();
        let (sender, answers) = mpsc::channel();
        let hung = Arc::new(AtomicUsize::new(1));
        let waiting = Waiting::begin([self.waiting.clone(), hung.clone()]);
        let root = root.to_owned();
        let asked = std::thread::Builder::new().name("disk-sizes".to_owned()).spawn(move || {
            let _waiting = waiting;
            for file_system in file_systems {
                let path = mountinfo::below(&root, &file_system.mount_point);
                if sender.send(size(&path, &file_system)).is_err() {
                    return;
                }
            }
        });
        if let Err(error) = asked {
            tracing::debug!(%error, "no thread to ask for the sizes of disks with");
            sizes.unanswered = all;
            return sizes;
        }
        let deadline = Instant::now() + patience;
        while !names.is_empty() {
            match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(disk) => {
                    names.remove(0);
                    sizes.disks.extend(disk);
                }
                Err(_) => {
                    // The thread is at the first that has not answered; those behind it have their turn in the next round.
                    sizes.unanswered += names.len();
                    let name = names.remove(0);
                    tracing::warn!(mount_point = printable(&name), "a file system does not answer; its size is not told until it does");
                    self.silent.insert(name, hung);
                    break;
                }
            }
        }
        sizes
    }
}

/// Counts itself as long as it is there.
#[derive(Debug)]
struct Waiting([Arc<AtomicUsize>; 2]);

impl Waiting {
    fn begin(counters: [Arc<AtomicUsize>; 2]) -> Self {
        counters[0].fetch_add(1, Ordering::AcqRel);
        Waiting(counters)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0[0].fetch_sub(1, Ordering::AcqRel);
        self.0[1].store(0, Ordering::Release);
    }
}

/// Size of one; `None` when there is none to tell: it was unmounted, or is a file that was mounted over another.
fn size(path: &PathBuf, file_system: &FileSystem) -> Option<Disk> {
    if !path.is_dir() {
        return None;
    }
    let statistics = nix::sys::statvfs::statvfs(path).ok()?;
    let block: u64 = statistics.fragment_size();
    let blocks: u64 = statistics.blocks();
    let used = blocks.saturating_sub(statistics.blocks_free());
    (blocks > 0).then(|| Disk {
        mount_point: printable(&unescape(&file_system.mount_point)),
        device: printable(&unescape(&file_system.device)),
        file_system: printable(&file_system.file_system),
        size_bytes: blocks.saturating_mul(block),
        used_bytes: used.saturating_mul(block),
    })
}

#[cfg(test)]
mod tests;
