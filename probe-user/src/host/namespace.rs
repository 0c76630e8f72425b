//! The host's namespaces, for a probe that runs in a container with its own.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;

use crate::procfs::Procfs;

/// The directory in `/proc` of a process that is in the host's namespaces: the first one. One whose program may not be read (a hardened init) can
/// be looked at by nobody; then the kernel's own first thread, which is in the namespaces that the machine booted with.
pub fn host_process(proc_root: &Path) -> PathBuf {
    let is_open = |process: &Path| process.join("ns/mnt").read_link().is_ok();
    let (first, kernel) = (proc_root.join("1"), proc_root.join("2"));
    let is_kernel = || std::fs::read(kernel.join("comm")).is_ok_and(|comm| comm == b"kthreadd\n") && is_open(&kernel);
    if !is_open(&first) && is_kernel() { kernel } else { first }
}

/// Calls `look` in the host's network namespace. Where that is another than ours it is entered on a thread that ends with the call, so that no
/// other thread is ever in a foreign namespace.
///
/// # Errors
/// When the namespace cannot be entered, or what `look` returns.
pub fn in_host_network<T: Send>(procfs: &Procfs, look: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let host = host_process(procfs.root()).join("ns/net");
    match Whereabouts::of(&host, "ns/net") {
        // Without the right to ask, ours is the best there is.
        Whereabouts::Same | Whereabouts::Unknown => look(),
        Whereabouts::Elsewhere => std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("host-network".to_owned()).spawn_scoped(scope, || {
                nix::sched::setns(File::open(host)?.as_fd(), CloneFlags::CLONE_NEWNET)?;
                look()
            })?;
            thread.join().map_err(|_| io::Error::other("the thread in the host's network namespace panicked"))?
        }),
    }
}

/// Enters the host's cgroup namespace, so that paths in `/proc/<pid>/cgroup` begin at the root of the hierarchy: told from another namespace they
/// begin with "/..", and where that is nobody can know. Call it before there are other threads: they inherit it.
///
/// # Errors
/// When the namespace is another, and cannot be entered.
pub fn enter_cgroup_namespace(proc_root: &Path) -> io::Result<()> {
    let host = host_process(proc_root).join("ns/cgroup");
    match Whereabouts::of(&host, "ns/cgroup") {
        Whereabouts::Same | Whereabouts::Unknown => Ok(()),
        Whereabouts::Elsewhere => Ok(nix::sched::setns(File::open(&host)?.as_fd(), CloneFlags::CLONE_NEWCGROUP)?),
    }
}

/// Whether paths of cgroups begin somewhere else for this process than for the host.
pub fn has_own_cgroup_namespace(proc_root: &Path) -> bool {
    Whereabouts::of(&host_process(proc_root).join("ns/cgroup"), "ns/cgroup") == Whereabouts::Elsewhere
}

/// Whether this process is in a namespace of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// It is.
    Same,
    /// It has one of its own.
    Elsewhere,
    /// The kernel does not tell.
    Unknown,
}

impl Whereabouts {
    /// Compares `host`, a namespace of a process of the host, with our own, which is called `name` in the directory of a process.
    pub(crate) fn of(host: &Path, name: &str) -> Self {
        match (host.read_link(), Path::new("/proc/self").join(name).read_link()) {
            (Ok(host), Ok(own)) if host == own => Whereabouts::Same,
            (Ok(_), Ok(_)) => Whereabouts::Elsewhere,
            _ => Whereabouts::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_its_first_process_or_the_kernels_thread() {
        let root = tempfile::tempdir().unwrap();
        let process = |pid: &str, comm: &str| {
            std::fs::create_dir_all(root.path().join(pid).join("ns")).unwrap();
            std::fs::write(root.path().join(pid).join("comm"), comm).unwrap();
        };
        let open = |pid: &str| std::os::unix::fs::symlink("mnt:[1]", root.path().join(pid).join("ns/mnt")).unwrap();
        process("1", "init\n");
        process("2", "sh\n");
        open("2");
        assert_eq!(host_process(root.path()), root.path().join("1"), "the second process of a container is no kernel thread");
        process("2", "kthreadd\n");
        assert_eq!(host_process(root.path()), root.path().join("2"));
        open("1");
        assert_eq!(host_process(root.path()), root.path().join("1"));
    }
}
