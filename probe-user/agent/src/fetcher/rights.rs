//! Files are fetched with the rights of who they are for, as Mesos's fetcher does, which runs as that user: a task of somebody's is not brought what
//! that one may not read.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid, setgid, setgroups, setuid};

use super::Settings;
use crate::keeper::User;

/// Opens a file of this host for reading, with the rights of a user. Waits for nobody: what is no plain file may have nothing to say.
pub(super) fn open(path: &Path, user: Option<&User>) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    match user {
        None => open(),
        // Rights can be taken by a thread alone, and never given back where it ends with that.
        Some(user) => std::thread::scope(|threads| {
            let opening = std::thread::Builder::new().spawn_scoped(threads, || take_rights(user).and_then(|()| open()))?;
            opening.join().unwrap_or_else(|_| Err(io::Error::other("opening it failed")))
        }),
    }
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
    let user = user.clone();
    let become_user = move || {
        let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        setgid(Gid::from_raw(user.gid))?;
        setuid(Uid::from_raw(user.uid))?;
        Ok(())
    };
    #[expect(unsafe_code, reason = "the groups of a command have no safe form")]
    // SAFETY: it asks the kernel, and what it allocates for that is allowed after a fork with the allocators in use here.
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
        let directory = settings.handover_dir.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&directory)?;
        let handover = Handover(directory);
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
