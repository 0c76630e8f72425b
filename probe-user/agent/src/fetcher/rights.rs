//! Files are fetched with the rights of who they are for, as Mesos's fetcher does, which runs as that user: a task of somebody's is not brought what
//! that one may not read.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid, setgid, setgroups, setuid};

use super::Settings;
use crate::keeper::User;

/// Opens a file of this host for reading, with the rights of a user. Waits for nobody: what is no plain file may have nothing to say.
pub(super) fn open(path: &Path, user: Option<&User>) -> io::Result<File> {
    match user {
        None => plainly(path),
        // Rights can be taken by a thread alone, and never given back where it ends with that.
        Some(user) => std::thread::scope(|threads| {
            let opening = std::thread::Builder::new().spawn_scoped(threads, || take_rights(user).and_then(|()| by_name(path)))?;
            opening.join().unwrap_or_else(|_| Err(io::Error::other("opening it failed")))
        }),
    }
}

fn plainly(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Opens what is at a path of directories and links that have names. Links of `/proc` lead a thread of this process to what the process has
/// open, and to the roots of others, past all directories that the user may not enter.
fn by_name(path: &Path) -> io::Result<File> {
    let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(AT_FDCWD, path, how) {
        Ok(opened) => File::from(opened),
        // A kernel before 5.6, or somebody who forbids it: the name that the links stand for, with the user's rights.
        Err(Errno::ENOSYS | Errno::EPERM) => plainly(&path.canonicalize()?)?,
        Err(error) => return Err(error.into()),
    };
    // What there is of processes is told to this process by other rights than the user's.
    if fstatfs(file.as_fd())?.filesystem_type() == PROC_SUPER_MAGIC {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(file)
}

/// From now on this thread reads files as a user does.
fn take_rights(user: &User) -> io::Result<()> {
    #[expect(unsafe_code, reason = "the C library would change all threads")]
    // SAFETY: the groups are as many as is said, and are only read.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setfsgid(gid);
    setfsuid(uid);
    // They tell what was before, and not whether it is so now: an id that there is not changes nothing.
    let is_so = setfsgid(Gid::from_raw(u32::MAX)) == gid && setfsuid(Uid::from_raw(u32::MAX)) == uid;
    if is_so { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Has a program run as a user.
pub(super) fn run_as(command: &mut Command, user: &User) {
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let become_user = move || {
        setgroups(&groups)?;
        setgid(gid)?;
        setuid(uid)?;
        #[expect(unsafe_code, reason = "marking what others have opened has no safe form")]
        // SAFETY: it only says of descriptors that they are not for the program; where the kernel cannot, those of ours are not anyway.
        unsafe {
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
        };
        Ok(())
    };
    // What the agent is told by its environment is not for whoever owns a task.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_none_or(|name| ["ORCHESTRATOR_", "MESOS_", "LIBPROCESS_"].iter().any(|ours| name.starts_with(ours))) {
            command.env_remove(name);
        }
    }
    #[expect(unsafe_code, reason = "the groups of a command have no safe form")]
    // SAFETY: it asks the kernel, and allocates nothing.
    unsafe {
        command.pre_exec(become_user);
    }
    command.current_dir("/");
}

/// A directory of a user, where a program of that user leaves a file. Is removed with what is left in it.
pub(super) struct Handover(PathBuf);

impl Handover {
    /// Below a directory that everybody can go through and nobody list.
    pub(super) fn make(settings: &Settings, user: &User) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        std::fs::create_dir_all(&settings.handover_dir)?;
        std::fs::set_permissions(&settings.handover_dir, std::fs::Permissions::from_mode(0o711))?;
        let handover = loop {
            let directory = settings.handover_dir.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
            match std::fs::create_dir(&directory) {
                Ok(()) => break Handover(directory),
                // What an earlier agent left and could not be removed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        std::fs::set_permissions(&handover.0, std::fs::Permissions::from_mode(0o700))?;
        chown(&handover.0, Some(user.uid), Some(user.gid))?;
        Ok(handover)
    }

    /// Where the program leaves its file.
    pub(super) fn file(&self) -> PathBuf {
        self.0.join("file")
    }

    /// What is there. The user may have put anything in its place: only a file of the user's own is taken, which holds nobody else's secrets.
    pub(super) fn take(&self, user: &User) -> io::Result<File> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(self.file())?;
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.uid() == user.uid { Ok(file) } else { Err(io::Error::other("it is no plain file")) }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
