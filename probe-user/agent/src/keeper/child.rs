//! What happens in the container's first process before it becomes the task's program.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use caps::{CapSet, CapsHashSet};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::Resource;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{Gid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, pivot_root, setgid, setgroups, setsid, setuid};

use super::{Mount, Spec, raw};

/// Standard streams of the container.
pub(super) struct Standard {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    is_terminal: bool,
}

impl Standard {
    pub(super) fn pipes(stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd) -> Self {
        Standard { stdin, stdout, stderr, is_terminal: false }
    }

    pub(super) fn terminal(slave: OwnedFd) -> io::Result<Self> {
        Ok(Standard { stdin: slave.try_clone()?, stdout: slave.try_clone()?, stderr: slave, is_terminal: true })
    }
}

/// Returns only when it could not.
pub(super) fn become_container(spec: &Spec, standard: Option<Standard>) -> io::Error {
    match prepare(spec, standard) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn failed(what: &str) -> impl Fn(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn prepare(spec: &Spec, standard: Option<Standard>) -> io::Result<Infallible> {
    for file in &spec.cgroup_files {
        // Whoever writes: in a pid namespace of its own this process does not know its number outside.
        std::fs::write(file, "0").map_err(failed(&format!("entering {}", file.display())))?;
    }
    let _ = setsid();
    if let Some(standard) = standard {
        #[expect(unsafe_code, reason = "an ioctl has no safe form")]
        if standard.is_terminal {
            // SAFETY: takes a number, no memory.
            unsafe { libc::ioctl(raw(&standard.stdin), libc::TIOCSCTTY, 0) };
        }
        dup2_stdin(&standard.stdin)?;
        dup2_stdout(&standard.stdout)?;
        dup2_stderr(&standard.stderr)?;
    }
    // All are opened first: after the file system's they have other paths. That of process ids the keeper has entered.
    let mut opened = Vec::new();
    for namespace in spec.enter_namespaces.iter().filter(|it| !it.ends_with("pid")) {
        let what = format!("entering {}", namespace.display());
        let file = File::open(namespace).map_err(failed(&what))?;
        opened.push((file, what));
    }
    for (file, what) in opened {
        setns(file, CloneFlags::empty()).map_err(io::Error::from).map_err(failed(&what))?;
    }
    if let Some(hostname) = &spec.hostname {
        unshare(CloneFlags::CLONE_NEWUTS)?;
        nix::unistd::sethostname(hostname)?;
    }
    if spec.ipc_namespace {
        unshare(CloneFlags::CLONE_NEWIPC).map_err(io::Error::from).map_err(failed("an IPC namespace"))?;
    }
    if spec.pid_namespace || spec.ipc_namespace || spec.root.is_some() || !spec.mounts.is_empty() {
        arrange_mounts(spec)?;
    }
    if let Some(score) = spec.oom_score_adj {
        match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
            // Less than the agent's own takes a right that it may not have. With more it goes sooner, and runs all the same.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            written => written.map_err(failed("oom_score_adj"))?,
        }
    }
    for (resource, soft, hard) in &spec.rlimits {
        set_rlimit(*resource, *soft, *hard)?;
    }
    chdir(&spec.directory).map_err(io::Error::from).map_err(failed(&format!("entering {}", spec.directory.display())))?;
    if let Some(kept) = &spec.bounding_capabilities {
        drop_capabilities(kept)?;
    }
    let effective = spec.effective_capabilities.as_deref().map(capabilities);
    if effective.is_some() {
        caps::securebits::set_keepcaps(true).map_err(io::Error::other).map_err(failed("keeping capabilities"))?;
    }
    if let Some(user) = &spec.user {
        let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        setgid(Gid::from_raw(user.gid))?;
        setuid(Uid::from_raw(user.uid))?;
    }
    if let Some(effective) = &effective {
        have_capabilities(effective).map_err(failed("giving capabilities"))?;
    }
    if spec.no_new_privileges {
        #[expect(unsafe_code, reason = "this prctl has no safe form")]
        // SAFETY: takes numbers, no memory.
        let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        if result != 0 {
            return Err(failed("no_new_privs")(io::Error::last_os_error()));
        }
    }
    // What the keeper ignores, its container does not.
    for it in Signal::iterator() {
        if !matches!(it, Signal::SIGKILL | Signal::SIGSTOP) {
            #[expect(unsafe_code, reason = "setting a handler has no safe form")]
            // SAFETY: nothing runs in a handler that is SIG_DFL.
            let _ = unsafe { signal(it, SigHandler::SigDfl) };
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    execute(spec)
}

fn execute(spec: &Spec) -> io::Result<Infallible> {
    let text = |it: &str| CString::new(it).map_err(|_| io::Error::other("a NUL byte in the command or its environment"));
    let program = spec.arguments.first().ok_or_else(|| io::Error::other("no command"))?;
    let mut arguments = spec.arguments.iter().map(|it| text(it)).collect::<io::Result<Vec<_>>>()?;
    if let Some(called) = &spec.called {
        arguments[0] = text(called)?;
    }
    let environment = spec.environment.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect::<io::Result<Vec<_>>>()?;
    let path = spec.environment.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_str());
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for candidate in candidates(program, path) {
        let Err(error) = execve(&text(&candidate.to_string_lossy())?, &arguments, &environment);
        if error != nix::Error::ENOENT {
            last = error.into();
        }
    }
    Err(failed(&format!("running {program}"))(last))
}

/// Where a program may be.
fn candidates(program: &str, path: Option<&str>) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![PathBuf::from(program)];
    }
    path.unwrap_or("/usr/bin:/bin").split(':').map(|it| Path::new(it).join(program)).collect()
}

fn set_rlimit(resource: i32, soft: u64, hard: u64) -> io::Result<()> {
    let known = [
        Resource::RLIMIT_AS,
        Resource::RLIMIT_CORE,
        Resource::RLIMIT_CPU,
        Resource::RLIMIT_DATA,
        Resource::RLIMIT_FSIZE,
        Resource::RLIMIT_LOCKS,
        Resource::RLIMIT_MEMLOCK,
        Resource::RLIMIT_MSGQUEUE,
        Resource::RLIMIT_NICE,
        Resource::RLIMIT_NOFILE,
        Resource::RLIMIT_NPROC,
        Resource::RLIMIT_RSS,
        Resource::RLIMIT_RTPRIO,
        Resource::RLIMIT_RTTIME,
        Resource::RLIMIT_SIGPENDING,
        Resource::RLIMIT_STACK,
    ];
    // In the order of Mesos's RLimit.Type, from 1.
    let at = usize::try_from(resource - 1).ok().and_then(|it| known.get(it));
    let resource = at.ok_or_else(|| io::Error::other("an unknown kind of resource limit"))?;
    nix::sys::resource::setrlimit(*resource, soft, hard).map_err(io::Error::from).map_err(failed("setting a resource limit"))
}

/// Takes every capability that is not kept out of what the program, or anything it starts, can ever have.
fn drop_capabilities(kept: &[u8]) -> io::Result<()> {
    let last: u8 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|it| it.trim().parse().ok()).unwrap_or(40);
    for capability in (0..=last).filter(|it| !kept.contains(it)) {
        #[expect(unsafe_code, reason = "this prctl has no safe form")]
        // SAFETY: takes numbers, no memory.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
        if result != 0 {
            return Err(failed("dropping capabilities")(io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// Those that the kernel knows, of these numbers.
fn capabilities(numbers: &[u8]) -> CapsHashSet {
    caps::all().into_iter().filter(|it| numbers.contains(&it.index())).collect()
}

/// Has these and no others, now and in what is executed next: capabilities(7) has the order.
fn have_capabilities(wanted: &CapsHashSet) -> io::Result<()> {
    // None in use may be missing among the permitted ones.
    caps::clear(None, CapSet::Effective).map_err(io::Error::other)?;
    for set in [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable, CapSet::Ambient] {
        caps::set(None, set, wanted).map_err(io::Error::other)?;
    }
    Ok(())
}

const NOTHING: Option<&str> = None;

fn arrange_mounts(spec: &Spec) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(io::Error::from).map_err(failed("a mount namespace"))?;
    // What is mounted here stays here; what the host mounts later still comes.
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_SLAVE, NOTHING)?;
    if let Some(root) = &spec.root {
        mount(Some(root), root, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)?;
        make_devices(root)?;
        mount_shm(&root.join("dev/shm"), spec.shm_bytes)?;
        let sys = root.join("sys");
        std::fs::create_dir_all(&sys)?;
        mount(
            Some("sysfs"),
            &sys,
            Some("sysfs"),
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            NOTHING,
        )
        .map_err(io::Error::from)
        .map_err(failed("mounting /sys"))?;
    }
    if spec.root.is_none() && spec.ipc_namespace {
        mount_shm(Path::new("/dev/shm"), spec.shm_bytes)?;
    }
    let inside = spec.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    for it in &spec.mounts {
        bind(it, &inside)?;
    }
    if spec.root.is_some() || spec.pid_namespace {
        let proc = inside.join("proc");
        std::fs::create_dir_all(&proc)?;
        mount(Some("proc"), &proc, Some("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, NOTHING)
            .map_err(io::Error::from)
            .map_err(failed("mounting /proc"))?;
    }
    if let Some(root) = &spec.root {
        chdir(root)?;
        pivot_root(".", ".").map_err(io::Error::from).map_err(failed("entering the root file system"))?;
        umount2(".", MntFlags::MNT_DETACH)?;
        chdir("/")?;
    }
    Ok(())
}

fn bind(it: &Mount, inside: &Path) -> io::Result<()> {
    let what = format!("mounting {} at {}", it.source.display(), it.target.display());
    let target = within(inside, &it.target).map_err(failed(&what))?;
    if it.source.is_dir() {
        std::fs::create_dir_all(&target).map_err(failed(&what))?;
    } else if !target.exists() {
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(failed(&what))?;
        }
        File::create(&target).map_err(failed(&what))?;
    }
    let mounted = mount(Some(&it.source), &target, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING);
    mounted.map_err(io::Error::from).map_err(failed(&what))?;
    if it.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_REC;
        mount(NOTHING, &target, NOTHING, flags, NOTHING).map_err(io::Error::from).map_err(failed(&what))?;
    }
    Ok(())
}

/// A path of the container as the host has it. A link of the image must not lead outside.
fn within(root: &Path, target: &Path) -> io::Result<PathBuf> {
    let mut at = root.to_owned();
    for part in target.components() {
        match part {
            std::path::Component::Normal(name) => at.push(name),
            std::path::Component::RootDir | std::path::Component::CurDir => continue,
            std::path::Component::ParentDir | std::path::Component::Prefix(_) => return Err(io::Error::other("a path with ..")),
        }
        if root != Path::new("/") && at.is_symlink() {
            return Err(io::Error::other("a link of the image is in the way"));
        }
    }
    Ok(at)
}

/// A `/dev/shm` of its own.
fn mount_shm(target: &Path, bytes: Option<u64>) -> io::Result<()> {
    std::fs::create_dir_all(target)?;
    let options = bytes.map_or_else(|| "mode=1777".to_owned(), |bytes| format!("mode=1777,size={bytes}"));
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))
        .map_err(io::Error::from)
        .map_err(failed("mounting /dev/shm"))
}

fn make_devices(root: &Path) -> io::Result<()> {
    let dev = root.join("dev");
    std::fs::create_dir_all(&dev)?;
    mount(Some("tmpfs"), &dev, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME, Some("mode=755"))
        .map_err(io::Error::from)
        .map_err(failed("mounting /dev"))?;
    for name in ["null", "zero", "full", "tty", "urandom", "random"] {
        let target = dev.join(name);
        File::create(&target)?;
        mount(Some(&Path::new("/dev").join(name)), &target, NOTHING, MsFlags::MS_BIND, NOTHING)?;
    }
    let pts = dev.join("pts");
    std::fs::create_dir_all(&pts)?;
    mount(Some("devpts"), &pts, Some("devpts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("newinstance,ptmxmode=0666,mode=0620"))?;
    let links = [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, to) in links {
        std::os::unix::fs::symlink(to, dev.join(name))?;
    }
    Ok(())
}
