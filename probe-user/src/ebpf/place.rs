//! What the probe finds on this machine before it loads anything: its rights, and the root of the cgroup2 hierarchy.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::CaptureError;

/// Rights of this process, from the effective set in `/proc/self/status`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights(u64);

impl Rights {
    const DAC_READ_SEARCH: u32 = 2;
    const NET_ADMIN: u32 = 12;
    const SYS_PTRACE: u32 = 19;
    const SYS_ADMIN: u32 = 21;
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;

    /// Reads them.
    pub(super) fn read() -> io::Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no CapEff in /proc/self/status"))
    }

    fn parse(status: &str) -> Option<Self> {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok().map(Rights)
    }

    fn has(self, capability: u32) -> bool {
        self.0 >> capability & 1 == 1
    }

    /// Names of the rights that are missing to see connections.
    pub(super) fn missing(self) -> Vec<&'static str> {
        self.lacking(last_capability()).into_iter().filter(|lack| lack.needed).map(|lack| lack.capability).collect()
    }

    /// What the probe could use and has not, where `last` is the newest capability that the kernel knows. `CAP_SYS_ADMIN` stands for the two that
    /// were taken out of it: kernels before them know no other.
    fn lacking(self, last: u32) -> Vec<Lack> {
        let divided = |capability: u32, name| if last < capability { "CAP_SYS_ADMIN" } else { name };
        let all = [
            (
                self.has(Self::BPF) || self.has(Self::SYS_ADMIN),
                Lack {
                    capability: divided(Self::BPF, "CAP_BPF"),
                    needed: true,
                    loss: "no kernel programs: short connections are not seen",
                },
            ),
            (
                self.has(Self::NET_ADMIN),
                Lack {
                    capability: "CAP_NET_ADMIN",
                    needed: true,
                    loss: "no kernel programs on connections: short ones are not seen; before Linux 6.6 no events of processes either",
                },
            ),
            (
                self.may_trace(),
                Lack {
                    capability: divided(Self::PERFMON, "CAP_PERFMON"),
                    needed: false,
                    loss: "no kernel programs on processes and cgroups, and bytes of a connection are counted when it ends",
                },
            ),
            (
                self.has(Self::SYS_PTRACE),
                Lack {
                    capability: "CAP_SYS_PTRACE",
                    needed: false,
                    loss: "what listeners of other users accept belongs to nobody, if they are older than the probe",
                },
            ),
            (
                self.has(Self::DAC_READ_SEARCH),
                Lack {
                    capability: "CAP_DAC_READ_SEARCH",
                    needed: false,
                    loss: "processes that are hidden from other users have no command line",
                },
            ),
            (
                self.has(Self::SYS_ADMIN),
                Lack {
                    capability: "CAP_SYS_ADMIN",
                    needed: false,
                    loss: "other network namespaces cannot be entered: UDP in containers has no client address, and servers of DNS there that are \
                           older than the probe are not known",
                },
            ),
        ];
        let mut lacking: Vec<Lack> = all.into_iter().filter(|(has, _)| !has).map(|(_, lack)| lack).collect();
        // Of those that one capability stands for, the one that matters most is told.
        let mut told = Vec::new();
        lacking.retain(|lack| {
            !told.contains(&lack.capability) && {
                told.push(lack.capability);
                true
            }
        });
        lacking
    }

    /// Whether programs may read kernel memory and be attached to tracepoints.
    pub(super) fn may_trace(self) -> bool {
        self.has(Self::PERFMON) || self.has(Self::SYS_ADMIN)
    }
}

/// A capability that the probe could use and has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Its name, as in capabilities(7).
    pub capability: &'static str,
    /// Connections cannot be seen by kernel programs without it.
    needed: bool,
    /// What is lost, for people.
    pub loss: &'static str,
}

/// What this process lacks; nothing when that cannot be found out.
pub fn lacking_capabilities() -> Vec<Lack> {
    Rights::read().map(|rights| rights.lacking(last_capability())).unwrap_or_default()
}

/// The pid of this process in the pid namespace of a `/proc`; 0 when that does not show it.
pub(super) fn own_pid(proc_root: &Path) -> u32 {
    let link = std::fs::read_link(proc_root.join("self")).ok();
    link.and_then(|link| link.to_str()?.parse().ok()).unwrap_or(0)
}

/// The newest capability that the kernel knows.
fn last_capability() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
    text.trim().parse().unwrap_or(Rights::BPF)
}

/// Inode number of the root of a cgroup2 hierarchy: the directory of a container's own root has another one.
const ROOT_INODE: u64 = 1;

/// The root of the cgroup2 hierarchy. Programs attached here see every socket of the machine.
#[derive(Debug)]
pub(super) struct CgroupRoot {
    /// The directory, open.
    pub(super) directory: File,
    /// Where it is mounted; `None` when it had to be mounted by the probe, which puts it nowhere.
    pub(super) path: Option<PathBuf>,
}

impl CgroupRoot {
    /// Opens the configured directory, or the one that is mounted, or mounts one that only this process sees.
    pub(super) fn find(configured: Option<&Path>) -> Result<Self, CaptureError> {
        if let Some(path) = configured {
            return Self::open(path);
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(CaptureError::CgroupRoot)?;
        let mut refused = None;
        for path in cgroup2_mounts(&mounts) {
            match Self::open(&path) {
                Ok(root) => return Ok(root),
                Err(error) => refused = Some(error),
            }
        }
        match Self::mount() {
            Ok(directory) => Self::checked(directory, None),
            Err(error) => Err(refused.unwrap_or(CaptureError::CgroupRoot(error))),
        }
    }

    fn open(path: &Path) -> Result<Self, CaptureError> {
        Self::checked(File::open(path).map_err(CaptureError::CgroupRoot)?, Some(path.to_owned()))
    }

    fn checked(directory: File, path: Option<PathBuf>) -> Result<Self, CaptureError> {
        let inode = directory.metadata().map_err(CaptureError::CgroupRoot)?.ino();
        if inode == ROOT_INODE {
            Ok(CgroupRoot { directory, path })
        } else {
            Err(CaptureError::CgroupNotRoot { path: path.unwrap_or_default(), inode })
        }
    }

    /// A mount of cgroup2 that has no place in the file system: it goes when its descriptor does.
    fn mount() -> io::Result<File> {
        const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
        let own = |result: libc::c_long| {
            let fd = i32::try_from(result).unwrap_or(-1);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        // SAFETY: `fsopen` reads a terminated string.
        let context = own(unsafe { libc::syscall(libc::SYS_fsopen, c"cgroup2".as_ptr(), 1) })?;
        // SAFETY: this command of `fsconfig` takes neither key nor value.
        let made = unsafe {
            libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, std::ptr::null::<u8>(), std::ptr::null::<u8>(), 0)
        };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fsmount` takes numbers alone.
        own(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, 0) }).map(File::from)
    }
}

/// Places where a cgroup2 hierarchy is mounted with its root on top.
fn cgroup2_mounts(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, path) = (fields.next()?, fields.next()?);
            (root == "/" && filesystem.starts_with("cgroup2 ")).then(|| PathBuf::from(path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_hybrid_host_is_found_among_the_v1_controllers() {
        let mountinfo = "\
25 20 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
36 25 0:33 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
37 25 0:33 /kubepods/pod1 /mnt rw,relatime - cgroup2 cgroup2 rw
";
        assert_eq!(cgroup2_mounts(mountinfo), [PathBuf::from("/sys/fs/cgroup/unified")]);
    }

    #[test]
    fn missing_rights_are_named() {
        let of = |line: &str| Rights::parse(line).expect("a capability line");
        assert_eq!(of("Name:\tx\nCapEff:\t0000000000000000\n").missing(), ["CAP_BPF", "CAP_NET_ADMIN"]);
        assert!(of("CapEff:\t000001ffffffffff").missing().is_empty());
        // CAP_BPF and CAP_NET_ADMIN: connections, but no tracepoints.
        let two = of("CapEff:\t0000008000001000");
        assert!(two.missing().is_empty() && !two.may_trace());
        assert!(Rights::parse("nothing").is_none());
        let names = |rights: Rights, last| rights.lacking(last).iter().map(|lack| lack.capability).collect::<Vec<_>>();
        assert_eq!(names(two, 40), ["CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"]);
        assert_eq!(names(of("CapEff:\t000000c000081004"), 40), ["CAP_SYS_ADMIN"]);
        // A kernel that does not know the two newer ones yet.
        let few = of("CapEff:\t0000000000081004");
        assert_eq!(names(few, 37), ["CAP_SYS_ADMIN"]);
        assert_eq!(few.missing(), ["CAP_BPF"]);
        assert_eq!(names(of("CapEff:\t0000000000281004"), 37), [""; 0]);
    }
}
