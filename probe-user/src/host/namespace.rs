//! The host's namespaces, for a probe that runs in a container with its own.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use nix::sched::CloneFlags;

use crate::procfs::Procfs;

/// Calls `look` in the network namespace of the host's first process. Where that is another than ours it is entered on a thread that ends with the
/// call, so that no other thread is ever in a foreign namespace.
///
/// # Errors
/// When the namespace cannot be entered, or what `look` returns.
pub fn in_host_network<T: Send>(procfs: &Procfs, look: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let own = std::fs::read_link("/proc/self/ns/net").ok();
    let own = own.as_deref().and_then(|it| crate::procfs::parse::link_inode(it.to_str()?, "net"));
    match procfs.network_namespace(1) {
        // Without the right to ask, ours is the best there is.
        None => look(),
        host if host == own => look(),
        Some(_) => std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("host-network".to_owned()).spawn_scoped(scope, || {
                let namespace = File::open(procfs.root().join("1/ns/net"))?;
                nix::sched::setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
                look()
            })?;
            thread.join().map_err(|_| io::Error::other("the thread in the host's network namespace panicked"))?
        }),
    }
}

/// Enters the cgroup namespace of the host's first process, so that paths in `/proc/<pid>/cgroup` begin at the root of the hierarchy: told from
/// another namespace they begin with "/..", and where that is nobody can know. Call it before there are other threads: they inherit it.
/// Returns whether paths begin at the root now.
pub fn enter_cgroup_namespace(proc_root: &Path) -> bool {
    let host = proc_root.join("1/ns/cgroup");
    let inode = |path: &Path| std::fs::read_link(path).ok();
    match (inode(&host), inode(Path::new("/proc/self/ns/cgroup"))) {
        (Some(host), Some(own)) if host == own => true,
        (Some(_), Some(_)) => File::open(&host).is_ok_and(|file| nix::sched::setns(file.as_fd(), CloneFlags::CLONE_NEWCGROUP).is_ok()),
        // A kernel without cgroup namespaces, or one that does not let us ask.
        _ => true,
    }
}
