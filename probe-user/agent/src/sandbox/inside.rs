//! A sandbox, open. A task owns what is in its sandbox, and may put a link or a device in the place of any file or directory there at any time: what
//! the agent does there as the superuser it does by open directories, and it follows no link but those to volumes that it has made itself.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use crate::keeper::User;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The directory of a sandbox. It stays the one that it was when it was opened, whatever becomes of its name.
#[derive(Debug)]
pub struct Sandbox {
    directory: OwnedFd,
    /// Persistent volumes to which links in the sandbox may lead.
    volumes: Vec<PathBuf>,
}

impl Sandbox {
    /// Opens the sandbox at `path`. Links are followed as far as `trusted`, which is above it, and not below.
    ///
    /// # Errors
    /// When it is not there, not below `trusted`, or when a link is in the way.
    pub fn open(trusted: &Path, path: &Path) -> io::Result<Sandbox> {
        let relative = path.strip_prefix(trusted).map_err(io::Error::other)?;
        let trusted = File::open(trusted)?;
        Ok(Sandbox { directory: walk(trusted.as_fd(), relative, Missing::Refused, &[])?, volumes: Vec::new() })
    }

    /// Makes the sandbox at `path`, with its two logs, and opens it.
    ///
    /// # Errors
    /// When the file system refuses, or when something is there that is no directory or no log.
    pub fn make(trusted: &Path, path: &Path, owner: Option<&User>) -> io::Result<Sandbox> {
        std::fs::create_dir_all(trusted)?;
        let relative = path.strip_prefix(trusted).map_err(io::Error::other)?;
        let above = File::open(trusted)?;
        let it = Sandbox { directory: walk(above.as_fd(), relative, Missing::Made(None), &[])?, volumes: Vec::new() };
        own(&it.directory, owner)?;
        for log in ["stdout", "stderr"] {
            own(it.log(log)?, owner)?;
        }
        Ok(it)
    }

    /// The same, in which links that name just one of these directories are followed: persistent volumes of the container, which its tasks may
    /// write anyway.
    #[must_use]
    pub fn with_volumes(self, volumes: Vec<PathBuf>) -> Sandbox {
        Sandbox { volumes, ..self }
    }

    /// The directory itself.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// A log of the sandbox, to be appended to; it is made where there is none.
    ///
    /// # Errors
    /// When something else than a file that has this one name is there.
    pub fn log(&self, name: &str) -> io::Result<File> {
        let new = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.directory, name, new, Mode::from_bits_truncate(0o666)) {
            Ok(file) => return Ok(File::from(file)),
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let file = plain_file(self.directory(), OsStr::new(name), |it| it.append(true))?;
        // A second name may be one outside of the sandbox.
        if file.metadata()?.nlink() != 1 {
            return Err(io::Error::other(format!("{name} has other names, too")));
        }
        Ok(file)
    }

    /// Reads a file of the sandbox, where it is one and no larger than `longest` bytes.
    ///
    /// # Errors
    /// When it is not.
    pub fn read(&self, relative: &Path, longest: u64) -> io::Result<Vec<u8>> {
        let file = self.file(relative)?;
        if file.metadata()?.len() > longest {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, longest), &mut bytes)?;
        Ok(bytes)
    }

    /// Opens a file of the sandbox to be read, where it is one.
    ///
    /// # Errors
    /// When it is not.
    pub fn file(&self, relative: &Path) -> io::Result<File> {
        let (directory, name) = self.place(relative, Missing::Refused)?;
        plain_file(directory.as_fd(), &name, |it| it.read(true))
    }

    /// Makes a directory, and those above it, of `owner`.
    ///
    /// # Errors
    /// When the path leads out of the sandbox, or something else is there.
    pub fn make_directory(&self, relative: &Path, owner: Option<&User>) -> io::Result<()> {
        walk(self.directory(), relative, Missing::Made(owner), &self.volumes).map(drop)
    }

    /// Makes an empty file, where there is none yet.
    ///
    /// # Errors
    /// When the path leads out of the sandbox, or something else is there.
    pub fn make_file(&self, relative: &Path, owner: Option<&User>) -> io::Result<()> {
        let (directory, name) = self.place(relative, Missing::Made(owner))?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&directory, name.as_os_str(), flags, Mode::from_bits_truncate(0o600)) {
            Ok(file) => own(file, owner),
            Err(Errno::EEXIST) => plain_file(directory.as_fd(), &name, |it| it.read(true)).map(drop),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a link to a path outside, unless there is one.
    ///
    /// # Errors
    /// When something else is there.
    pub fn make_link(&self, relative: &Path, target: &Path, owner: Option<&User>) -> io::Result<()> {
        let (directory, name) = self.place(relative, Missing::Made(owner))?;
        match symlinkat(target, &directory, name.as_os_str()) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) if kind_at(directory.as_fd(), &name) == Some(libc::S_IFLNK) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves everything that is in a directory of the agent's own into the sandbox, in the place of what has the same name there.
    ///
    /// # Errors
    /// When a directory is where a file is to be, or the file system refuses.
    pub fn take_in(&self, from: &Path) -> io::Result<()> {
        merge(from, self.directory())
    }

    /// Removes the sandbox at `path` with all that is in it.
    ///
    /// # Errors
    /// When the file system refuses, or when a link is in the way.
    pub fn remove(trusted: &Path, path: &Path) -> io::Result<()> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let above = Sandbox::open(trusted, above)?;
        std::fs::remove_dir_all(by_descriptor(above.directory()).join(name))
    }

    /// The open directory of a path, and the last name of it.
    fn place(&self, relative: &Path, missing: Missing<'_>) -> io::Result<(OwnedFd, OsString)> {
        let Some(name) = relative.file_name() else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
        let directory = walk(self.directory(), relative.parent().unwrap_or(Path::new("")), missing, &self.volumes)?;
        Ok((directory, name.to_owned()))
    }
}

/// What becomes of directories that are not there.
#[derive(Clone, Copy)]
enum Missing<'a> {
    Refused,
    /// They are made, and are this user's.
    Made(Option<&'a User>),
}

/// Opens a directory below another, name by name.
fn walk(from: BorrowedFd<'_>, relative: &Path, missing: Missing<'_>, volumes: &[PathBuf]) -> io::Result<OwnedFd> {
    let mut at = from.try_clone_to_owned()?;
    for part in relative.components() {
        let name = match part {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(io::Error::other("a path that leads out of its directory"));
            }
        };
        let Missing::Made(owner) = missing else {
            at = step(&at, name, volumes)?;
            continue;
        };
        let made = mkdirat(&at, name, Mode::from_bits_truncate(0o777));
        if let Err(error) = made
            && error != Errno::EEXIST
        {
            return Err(error.into());
        }
        at = step(&at, name, volumes)?;
        if made.is_ok() {
            own(&at, owner)?;
        }
    }
    Ok(at)
}

/// Opens a directory in another, or the volume that a link there names.
fn step(at: &OwnedFd, name: &OsStr, volumes: &[PathBuf]) -> io::Result<OwnedFd> {
    let refused = match openat(at, name, DIRECTORY, Mode::empty()) {
        Ok(below) => return Ok(below),
        Err(error) => error,
    };
    let target = if volumes.is_empty() { None } else { readlinkat(at, name).ok() };
    match target.and_then(|target| volumes.iter().find(|volume| volume.as_os_str() == target)) {
        Some(volume) => Ok(File::open(volume)?.into()),
        None => Err(refused.into()),
    }
}

/// Opens a plain file in a directory, whatever else a task may have put in its place: not even a device is opened to find that out.
fn plain_file(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    how: impl FnOnce(&mut std::fs::OpenOptions) -> &mut std::fs::OpenOptions,
) -> io::Result<File> {
    let found = at(directory, name)?;
    if !found.metadata()?.is_file() {
        return Err(io::Error::other(format!("{} is no plain file", name.display())));
    }
    how(&mut File::options()).open(by_descriptor(found.as_fd()))
}

/// What has a path below a trusted directory, without following links: to be looked at, and opened by [`by_descriptor`].
///
/// # Errors
/// When it is not there, or a link is in the way.
pub(crate) fn named(trusted: &Path, relative: &Path) -> io::Result<File> {
    let Some(name) = relative.file_name() else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
    let above = walk(File::open(trusted)?.as_fd(), relative.parent().unwrap_or(Path::new("")), Missing::Refused, &[])?;
    at(above.as_fd(), name)
}

fn at(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    Ok(File::from(openat(directory, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?))
}

/// A path that leads to what is open, whatever name it has by now.
pub(crate) fn by_descriptor(of: BorrowedFd<'_>) -> std::path::PathBuf {
    Path::new("/proc/self/fd").join(of.as_raw_fd().to_string())
}

fn own(it: impl AsFd, owner: Option<&User>) -> io::Result<()> {
    owner.map_or(Ok(()), |owner| fchown(it, Some(owner.uid), Some(owner.gid)))
}

/// What is there, as `S_IFMT` of stat(2) has it.
fn kind_at(directory: BorrowedFd<'_>, name: &OsStr) -> Option<libc::mode_t> {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok().map(|it| it.st_mode & libc::S_IFMT)
}

fn merge(from: &Path, to: BorrowedFd<'_>) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let (entry, name) = entry.map(|it| (it.path(), it.file_name()))?;
        let metadata = entry.symlink_metadata()?;
        if metadata.is_dir() && kind_at(to, &name).is_some_and(|it| it != libc::S_IFDIR) {
            // As tar has it: a directory takes the place of a link, and is not what the link names.
            unlinkat(to, name.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
        }
        match renameat(AT_FDCWD, &entry, to, name.as_os_str()) {
            Ok(()) => {}
            // Who is not the superuser moves no directory that it may not write.
            Err(Errno::EXDEV | Errno::ENOTEMPTY | Errno::EEXIST | Errno::EACCES) if metadata.is_dir() => {
                let made = mkdirat(to, name.as_os_str(), Mode::from_bits_truncate(0o700));
                let below = File::from(openat(to, name.as_os_str(), DIRECTORY, Mode::empty())?);
                merge(&entry, below.as_fd())?;
                if made.is_ok() {
                    fchown(&below, Some(metadata.uid()), Some(metadata.gid()))?;
                    below.set_permissions(metadata.permissions())?;
                }
            }
            Err(Errno::EXDEV) => copy_in(&entry, &metadata, to, &name)?,
            Err(error) => return Err(io::Error::new(io::Error::from(error).kind(), format!("{}: {error}", name.display()))),
        }
    }
    Ok(())
}

/// Where the sandbox is on another disk.
fn copy_in(from: &Path, metadata: &std::fs::Metadata, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(to, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    if metadata.is_symlink() {
        symlinkat(&std::fs::read_link(from)?, to, name)?;
        return Ok(fchownat(
            to,
            name,
            Some(Uid::from_raw(metadata.uid())),
            Some(Gid::from_raw(metadata.gid())),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )?);
    }
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(to, name, flags, Mode::from_bits_truncate(0o600))?);
    io::copy(&mut File::open(from)?, &mut file)?;
    fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
    file.set_permissions(metadata.permissions())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A sandbox, and a file outside of it that nobody may touch.
    fn world() -> (tempfile::TempDir, std::path::PathBuf, Sandbox) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("outside"), "untouched").unwrap();
        let path = directory.path().join("slaves/S/runs/c");
        let sandbox = Sandbox::make(&directory.path().join("slaves"), &path, None).unwrap();
        (directory, path, sandbox)
    }

    #[test]
    fn a_log_that_a_task_has_replaced_is_not_written() {
        let (directory, path, sandbox) = world();
        let outside = directory.path().join("outside");
        sandbox.log("stdout").unwrap();
        std::fs::remove_file(path.join("stdout")).unwrap();
        symlink(&outside, path.join("stdout")).unwrap();
        sandbox.log("stdout").unwrap_err();
        symlink(directory.path().join("new"), path.join("other")).unwrap();
        sandbox.log("other").unwrap_err();
        assert!(!directory.path().join("new").exists(), "nothing is made through a link");
        std::fs::hard_link(&outside, path.join("hard")).unwrap();
        sandbox.log("hard").unwrap_err();
        nix::unistd::mkfifo(&path.join("pipe"), Mode::S_IRWXU).unwrap();
        sandbox.log("pipe").unwrap_err();
        assert_eq!(std::fs::read_to_string(outside).unwrap(), "untouched");
    }

    #[test]
    fn nothing_is_made_where_a_link_leads() {
        let (directory, path, sandbox) = world();
        let outside = directory.path().join("elsewhere");
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, path.join("data")).unwrap();
        sandbox.make_directory(Path::new("data/x"), None).unwrap_err();
        sandbox.make_file(Path::new("data/x"), None).unwrap_err();
        sandbox.make_link(Path::new("data/x"), Path::new("/tmp"), None).unwrap_err();
        sandbox.make_directory(Path::new("../x"), None).unwrap_err();
        let nested = path.join("data/n");
        Sandbox::make(&directory.path().join("slaves"), &nested, None).unwrap_err();
        Sandbox::remove(&directory.path().join("slaves"), &nested).unwrap_err();
        assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
        sandbox.make_directory(Path::new("a/b"), None).unwrap();
        sandbox.make_link(Path::new("a/c"), Path::new("/tmp"), None).unwrap();
        sandbox.make_link(Path::new("a/c"), Path::new("/tmp"), None).unwrap();
        assert_eq!(std::fs::read_link(path.join("a/c")).unwrap(), Path::new("/tmp"));
    }

    #[test]
    fn a_link_to_a_volume_of_the_container_leads_there_and_no_other_does() {
        let (directory, path, sandbox) = world();
        let (own, other) = (directory.path().join("own"), directory.path().join("other"));
        for it in [&own, &other] {
            std::fs::create_dir(it).unwrap();
        }
        let sandbox = sandbox.with_volumes(vec![own.clone()]);
        sandbox.make_link(Path::new("data"), &own, None).unwrap();
        sandbox.make_directory(Path::new("data/below/it"), None).unwrap();
        assert!(own.join("below/it").is_dir());
        symlink(&other, path.join("others")).unwrap();
        sandbox.make_directory(Path::new("others/below"), None).unwrap_err();
        symlink(directory.path(), path.join("above")).unwrap();
        sandbox.make_directory(Path::new("above/own/below"), None).unwrap_err();
        assert_eq!(std::fs::read_dir(other).unwrap().count(), 0);
    }

    #[test]
    fn what_is_taken_in_takes_the_place_of_links() {
        let (directory, path, sandbox) = world();
        let outside = directory.path().join("outside");
        let elsewhere = directory.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        symlink(&outside, path.join("file")).unwrap();
        symlink(&elsewhere, path.join("lib")).unwrap();
        std::fs::create_dir(path.join("bin")).unwrap();
        std::fs::write(path.join("bin/kept"), "kept").unwrap();
        let draft = directory.path().join("draft");
        for it in ["lib", "bin"] {
            std::fs::create_dir_all(draft.join(it)).unwrap();
            std::fs::write(draft.join(it).join("new"), "new").unwrap();
        }
        std::fs::write(draft.join("file"), "new").unwrap();
        sandbox.take_in(&draft).unwrap();
        assert_eq!(std::fs::read_to_string(outside).unwrap(), "untouched");
        assert_eq!(std::fs::read_dir(elsewhere).unwrap().count(), 0);
        for it in ["file", "lib/new", "bin/new"] {
            assert_eq!(std::fs::read_to_string(path.join(it)).unwrap(), "new", "{it}");
        }
        assert_eq!(sandbox.read(Path::new("bin/kept"), 100).unwrap(), b"kept");
        sandbox.read(Path::new("bin/kept"), 3).unwrap_err();
    }
}
