//! Containers of the agent's own making: a keeper, cgroups, namespaces, a sandbox.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt as _, BufReader, Interest};
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Command, Ended, Run, Shared};
use crate::cgroups::Cgroups;
use crate::keeper::{self, Files, Spec};
use crate::sandbox::Layout;
use crate::table::{Exit, Started};
use crate::words::ContainerKey;

mod capabilities;
mod ports;
mod preparation;
mod watched;

use preparation::{DESTROYED, Preparation};
use watched::{Look, Watched};

/// How long a keeper may take to start its container.
const STARTED_WITHIN: Duration = Duration::from_secs(60);

/// How often it is looked whether the kernel killed something for want of memory.
const MEMORY_WATCH: Duration = Duration::from_millis(500);

/// How often it is looked whether the lock of a keeper is free.
const LOCK_WATCH: Duration = Duration::from_millis(500);

/// How long the processes of a destroyed container may take to die before they are looked at again.
const KILLED_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn launch(run: &mut Run) -> Ended {
    // What is in the way of a new keeper is from an id that came twice; nobody waits for it.
    let files = Files::of(&run.shared.layout.keeper(&run.launch.container));
    let (cancel, mut prepared) = prepare(run);
    let prepared = tokio::select! {
        prepared = &mut prepared => prepared.unwrap_or_else(|_| Err("preparing the container failed".to_owned())),
        () = run.destroyed() => Err(DESTROYED.to_owned()),
    };
    let spec = match prepared {
        Ok(spec) => spec,
        Err(message) => {
            cancel.cancel();
            clean_up(run).await;
            return Ended::Failed(message);
        }
    };
    let Some(spec) = spec else { return hold(run).await };
    match start_keeper(run, &files, &spec).await {
        Ok(pid) => {
            run.started(Started { pid: Some(pid), ..Started::default() }).await;
            watch(run, &files, Some(pid)).await
        }
        Err(message) => {
            clean_up(run).await;
            Ended::Failed(message)
        }
    }
}

/// Makes everything but the processes, in a task of its own. When nobody waits for that any more it ends as soon as it can, and what it has made
/// meanwhile is taken away again.
fn prepare(run: &Run) -> (CancellationToken, oneshot::Receiver<Result<Option<Spec>, String>>) {
    let cancel = CancellationToken::new();
    let preparation = Preparation::of(run, cancel.clone());
    let (shared, container) = (run.shared.clone(), run.launch.container.clone());
    let (told, prepared) = oneshot::channel();
    (run.shared.spawn)(
        "container-preparation",
        Box::pin(async move {
            let made = preparation.make().await;
            if told.send(made).is_err() {
                take_away(&shared, &container).await;
                let directory = shared.layout.keeper(&container);
                drop(tokio::task::spawn_blocking(move || std::fs::remove_dir_all(directory)).await);
            }
        }),
    );
    (cancel, prepared)
}

/// A container without a process: it holds others. It is over when it is told so, or its memory is.
async fn hold(run: &mut Run) -> Ended {
    run.started(Started::default()).await;
    let mut memory = every(MEMORY_WATCH);
    let mut ports = Look::at_ports(run);
    let mut watched = Watched::new(run);
    let mut foreign = None;
    loop {
        tokio::select! {
            command = run.command() => match command {
                Command::Destroy => break,
                Command::Resize(resources) => watched.resize(run, &resources).await,
                Command::Terminate(_) | Command::Signal(_) => {}
            },
            _ = memory.tick() => if watched.is_short_of_memory() { break },
            listening = ports.seen() => {
                foreign = watched.ports_limitation(run, &listening);
                if foreign.is_some() {
                    break;
                }
            }
        }
    }
    let limitation = watched.memory_limitation().or(foreign);
    clean_up(run).await;
    let status = if limitation.is_some() { Signal::SIGKILL as i32 } else { 0 };
    Ended::Exited(Exit { status: Some(status), limitation })
}

pub(super) async fn reattach(run: &mut Run) -> Ended {
    let files = Files::of(&run.shared.layout.keeper(&run.launch.container));
    if run.launch.command.is_none() {
        let is_there = run.shared.cgroups.as_ref().is_none_or(|it| it.of(&run.launch.container).members_file().exists());
        return if is_there { hold(run).await } else { Ended::Interrupted };
    }
    loop {
        match keeper::take_lock(&files) {
            // Nobody made its directory: the agent was killed before.
            Err(_) => {
                clean_up(run).await;
                return Ended::Interrupted;
            }
            Ok(Some(lock)) => {
                // Whoever starts late sees this, and ends.
                drop(keeper::write_whole(&files.abandoned(), b""));
                drop(lock);
                return over(run, &files).await;
            }
            Ok(None) => {
                if let Some(Pids { child, .. }) = read_pids(&files) {
                    run.started(Started { pid: Some(child), ..Started::default() }).await;
                    return watch(run, &files, Some(child)).await;
                }
                // It is about to start its container, or just to end.
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// The keeper is no more: what has it left?
async fn over(run: &Run, files: &Files) -> Ended {
    let began = read_pids(files).is_some();
    let problem = std::fs::read_to_string(files.error()).ok();
    let status = read_status(files);
    let watched = Watched::new(run);
    let limitation = watched.memory_limitation();
    clean_up(run).await;
    match (status, problem) {
        (Some(status), _) => Ended::Exited(Exit { status: Some(status), limitation }),
        (None, Some(problem)) => Ended::Failed(problem),
        // Somebody killed it.
        (None, None) if began => Ended::Exited(Exit { status: None, limitation }),
        (None, None) => Ended::Interrupted,
    }
}

/// Keeper and first process.
#[derive(Debug, PartialEq, Eq)]
struct Pids {
    keeper: u32,
    child: u32,
    /// When the first process was started; none where an earlier version of the keeper has noted it.
    child_start: Option<u64>,
}

fn read_pids(files: &Files) -> Option<Pids> {
    let text = std::fs::read_to_string(files.pid()).ok()?;
    let mut words = text.split_whitespace();
    let keeper: u32 = words.next()?.parse().ok()?;
    let start: u64 = words.next()?.parse().ok()?;
    let child = words.next()?.parse().ok()?;
    let child_start = words.next().and_then(|it| it.parse().ok()).filter(|it| *it > 0);
    // Another process may have the number by now.
    let is_it = keeper::start_time(keeper).is_none_or(|it| it == start);
    is_it.then_some(Pids { keeper, child, child_start })
}

fn read_status(files: &Files) -> Option<i32> {
    std::fs::read_to_string(files.status()).ok()?.trim().parse().ok()
}

/// Starts the keeper and waits for its word. The pid of the container's first process.
async fn start_keeper(run: &mut Run, files: &Files, spec: &Spec) -> Result<u32, String> {
    let directory = run.shared.layout.keeper(&run.launch.container);
    let text = |error: io::Error| format!("Failed to start the container's keeper: {error}");
    std::fs::create_dir_all(&directory).map_err(text)?;
    let spec = serde_json::to_vec(spec).map_err(|error| error.to_string())?;
    keeper::write_whole(&files.spec(), &spec).map_err(text)?;
    let mut words = run.shared.config.keeper.iter();
    let program = words.next().ok_or_else(|| "no keeper is configured".to_owned())?;
    let mut child = tokio::process::Command::new(program)
        .args(words)
        .arg(&directory)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(text)?;
    super::beside_containers(&run.shared, child.id());
    let stdout = child.stdout.take().ok_or_else(|| "no keeper is configured".to_owned())?;
    let mut lines = BufReader::new(stdout).lines();
    let said = timeout(STARTED_WITHIN, lines.next_line()).await;
    let line = match said {
        Ok(Ok(Some(line))) => line,
        Ok(_) => "failed the keeper ended without a word".to_owned(),
        Err(_) => "failed the keeper is silent".to_owned(),
    };
    // Somebody has to take note of its end; nobody needs to wait for it here.
    (run.shared.spawn)("keeper", Box::pin(async move { drop(child.wait().await) }));
    match line.split_once(' ') {
        Some(("started", pid)) => pid.parse().map_err(|_| "the keeper speaks nonsense".to_owned()),
        Some(("failed", problem)) => Err(format!("Failed to launch container: {problem}")),
        _ => Err("the keeper speaks nonsense".to_owned()),
    }
}

/// Watches a container until nothing of it is left.
async fn watch(run: &mut Run, files: &Files, pid: Option<u32>) -> Ended {
    let mut keeper = Keeper::of(files);
    let mut watched = Watched::new(run);
    let mut memory = every(MEMORY_WATCH);
    let mut disk = Look::at_disk(run);
    let mut ports = Look::at_ports(run);
    let mut limitation = None;
    let mut destroy_at: Option<Instant> = None;
    loop {
        tokio::select! {
            () = keeper.over(files) => break,
            command = run.command() => match command {
                Command::Terminate(_) => signal(run, pid, Signal::SIGTERM),
                Command::Signal(it) => signal(run, pid, it),
                Command::Resize(allowance) => watched.resize(run, &allowance).await,
                Command::Destroy => destroy_at = Some(Instant::now()),
            },
            _ = memory.tick() => if limitation.is_none() && watched.is_short_of_memory() {
                limitation = watched.memory_limitation();
                destroy_at = Some(Instant::now());
            },
            used = disk.seen() => {
                run.uses_disk(used);
                if limitation.is_none() && let Some(it) = watched.disk_limitation(run, used) {
                    limitation = Some(it);
                    destroy_at = Some(Instant::now());
                }
            }
            listening = ports.seen() => if limitation.is_none() && let Some(it) = watched.ports_limitation(run, &listening) {
                limitation = Some(it);
                destroy_at = Some(Instant::now());
            },
            () = at(destroy_at) => {
                kill_all(run, files).await;
                // Should something hang in the kernel: again.
                destroy_at = Some(Instant::now() + KILLED_WITHIN);
            }
        }
    }
    let limitation = limitation.or_else(|| watched.memory_limitation());
    let status = read_status(files);
    clean_up(run).await;
    Ended::Exited(Exit { status, limitation })
}

/// A look that comes late is not made up for.
fn every(period: Duration) -> Interval {
    let mut it = interval(period);
    it.set_missed_tick_behavior(MissedTickBehavior::Delay);
    it
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// By what it is known that a keeper is over.
enum Keeper {
    /// The kernel says so.
    Process(AsyncFd<OwnedFd>),
    /// Its lock is free. For where the kernel has no descriptor for us, or does not let us have one: no reason to end a container.
    Lock(Interval),
}

impl Keeper {
    fn of(files: &Files) -> Keeper {
        match read_pids(files).map(|it| open_pid(it.keeper)) {
            Some(Ok(process)) => Keeper::Process(process),
            Some(Err(error)) if error.raw_os_error() != Some(Errno::ESRCH as i32) => {
                tracing::warn!(%error, "a container's keeper is watched by its lock");
                Keeper::by_lock()
            }
            Some(Err(_)) | None => Keeper::by_lock(),
        }
    }

    fn by_lock() -> Keeper {
        Keeper::Lock(every(LOCK_WATCH))
    }

    /// Until it is over. Nothing is lost when this is given up and asked again.
    async fn over(&mut self, files: &Files) {
        if let Keeper::Process(process) = self {
            match process.readable().await {
                Ok(_) => return,
                Err(_) => *self = Keeper::by_lock(),
            }
        }
        while let Keeper::Lock(look) = self {
            look.tick().await;
            match keeper::take_lock(files) {
                Ok(Some(_)) => return,
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                // Whoever has no descriptor left knows nothing.
                Err(_) => {}
            }
        }
    }
}

/// Readable when the process is over, whoever's child it is.
fn open_pid(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "pidfd_open has no safe form here")]
    let fd = {
        // SAFETY: takes numbers, no memory.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|it| *it >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just made it for us alone.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    #[expect(unsafe_code, reason = "registering a descriptor has no safe form that is sound")]
    // SAFETY: the descriptor is owned, so it stays the same open one until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(registered?)
}

fn signal(run: &Run, pid: Option<u32>, signal: Signal) {
    match (&run.shared.cgroups, pid.and_then(|it| i32::try_from(it).ok())) {
        (Some(cgroups), _) => cgroups.of(&run.launch.container).signal(signal),
        (None, Some(pid)) => {
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), signal);
        }
        (None, None) => {}
    }
}

async fn kill_all(run: &Run, files: &Files) {
    match &run.shared.cgroups {
        Some(cgroups) => {
            let cgroup = cgroups.of(&run.launch.container);
            let killed = tokio::task::spawn_blocking(move || cgroup.kill_all(Duration::from_secs(10)));
            if !killed.await.unwrap_or(false) {
                tracing::warn!(container = %run.launch.container, "processes of a container do not die");
            }
        }
        None => kill_session(files),
    }
}

/// Without cgroups: the session of the first process.
pub(super) fn kill_session(files: &Files) {
    if let Some(it) = read_pids(files) {
        keeper::end_session(it.child, it.child_start);
    }
}

/// Ends what is left and removes what was made for it. The keeper's directory stays until the end is stored.
async fn clean_up(run: &Run) {
    take_away(&run.shared, &run.launch.container).await;
}

async fn take_away(shared: &Shared, container: &ContainerKey) {
    let (layout, cgroups, key) = (shared.layout.clone(), shared.cgroups.clone(), container.clone());
    let cleaned = tokio::task::spawn_blocking(move || end_all(&layout, cgroups.as_ref(), &key));
    match cleaned.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
        problem => tracing::warn!(%container, ?problem, "a cgroup cannot be removed"),
    }
}

/// Takes away what is mounted for a container, ends its processes, and removes its cgroup. Blocks.
pub(super) fn end_all(layout: &Layout, cgroups: Option<&Cgroups>, container: &ContainerKey) -> io::Result<()> {
    let keeper = layout.keeper(container);
    super::rootfs::remove(&keeper);
    let Some(cgroups) = cgroups else {
        kill_session(&Files::of(&keeper));
        return Ok(());
    };
    let cgroup = cgroups.of(container);
    cgroup.kill_all(Duration::from_secs(10));
    cgroup.remove()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A keeper's directory with the lock of a keeper that lives.
    fn kept() -> (tempfile::TempDir, Files, nix::fcntl::Flock<std::fs::File>) {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::of(directory.path());
        let lock = keeper::take_lock(&files).unwrap().unwrap();
        (directory, files, lock)
    }

    #[tokio::test(start_paused = true)]
    async fn a_keeper_of_which_the_kernel_gives_no_descriptor_is_over_when_its_lock_is_free() {
        let (directory, files, lock) = kept();
        // There is no process of this number, and so none of a descriptor.
        assert!(matches!(Keeper::of(&files), Keeper::Lock(_)));
        let mut keeper = Keeper::by_lock();
        timeout(Duration::from_secs(10), keeper.over(&files)).await.unwrap_err();
        drop(lock);
        timeout(Duration::from_secs(1), keeper.over(&files)).await.unwrap();
        drop(directory);
        timeout(Duration::from_secs(1), keeper.over(&files)).await.unwrap();
    }

    #[test]
    fn without_cgroups_the_session_of_what_a_keeper_has_left_is_ended() {
        use std::os::unix::process::CommandExt as _;

        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(&directory.path().join("work"), &directory.path().join("run"));
        let container = ContainerKey::root("c");
        std::fs::create_dir_all(layout.keeper(&container).join("root/etc")).unwrap();
        let files = Files::of(&layout.keeper(&container));
        let mut command = std::process::Command::new("sleep");
        let mut child = command.arg("1000").process_group(0).spawn().unwrap();
        let start = keeper::start_time(child.id()).unwrap();
        // No process has the highest number.
        let noted = format!("{} 1 {} {start}", u32::from(u16::MAX) << 8, child.id());
        keeper::write_whole(&files.pid(), noted.as_bytes()).unwrap();
        end_all(&layout, None, &container).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(!layout.keeper(&container).join("root").exists());
    }

    #[test]
    fn the_note_of_a_keeper_is_read_in_both_versions() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::of(directory.path());
        let own = std::process::id();
        let start = keeper::start_time(own).unwrap();
        let read = |note: String| {
            keeper::write_whole(&files.pid(), note.as_bytes()).unwrap();
            read_pids(&files)
        };
        assert_eq!(read(format!("{own} {start} 7")), Some(Pids { keeper: own, child: 7, child_start: None }));
        assert_eq!(read(format!("{own} {start} 7 99")), Some(Pids { keeper: own, child: 7, child_start: Some(99) }));
        assert_eq!(read(format!("{own} {} 7 99", start + 1)), None, "another process has its number");
    }
}
