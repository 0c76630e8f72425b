//! The keeper of a container: a small process between the agent and the container's first process.
//!
//! It is the parent that waits for the process, moves it into its cgroup and namespaces, writes its logs, and notes how it ended. It is not the
//! agent, so that an agent that is killed or replaced takes nothing with it: the next one finds the note, or the keeper still at work.
//!
//! All it knows is in one directory, which the agent has made:
//! - `spec.json` ([`Spec`]): what to run. Written before the keeper is started.
//! - `lock`: held by the keeper for as long as it lives. Who can take it knows that no keeper is there and none will be, once `abandoned` exists.
//! - `pid`: pid of the keeper and its start time, pid of the container's first process and its start time.
//! - `status`: how that process ended, as wait(2) gives it. Written when nothing of the container is left.
//! - `error`: why it could not be started.
//! - `io.sock`: who connects gets the output from then on, and may write to the input, where the container has one (`keeper/attach`).
//!
//! The keeper has one thread and no runtime. It never asks anybody anything, and never waits for anybody but poll(2). It looks whether the agent is
//! there, and ends its container where that is away for too long (`keeper/absence`). Where somebody has yet to take the last output when all is over,
//! a fork of it stays for that alone: without the lock, and of no concern to anybody else.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2, setsid};

use absence::Absence;
use logs::RotatedLog;
use members::{end_members, reap_others, signal_members};
pub(crate) use members::{end_session, members};
pub use spec::{Files, Mount, Spec, User};

pub mod absence;
pub mod attach;
mod child;
mod input;
mod logs;
mod members;
mod spec;

/// The subcommand by which the agent starts its own program as a keeper.
pub const COMMAND: &str = "keep-container";

/// How long the output of processes that have ended is waited for.
const DRAINED_WITHIN: Duration = Duration::from_secs(2);

/// The directory, where a command line asks for a keeper.
pub fn asked(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Option<PathBuf> {
    arguments.next().filter(|it| it == COMMAND)?;
    arguments.next().map(PathBuf::from)
}

/// The program of a keeper: its argument is the directory. Prints `started <pid>` or `failed <why>` once, for the agent that waits.
pub fn main(directory: &Path) -> ExitCode {
    close_inherited();
    if crate::containers::absence::is_in(directory) {
        let _ = setsid();
        // It has nothing that ends with the host but itself: it ends when it is asked, and a living agent starts another.
        ignore(&IGNORED[1..]);
        return crate::containers::absence::main(directory);
    }
    let files = Files::of(directory);
    match keep(&files) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(write_whole(&files.error(), error.to_string().as_bytes()));
            say(&format!("failed {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Lets go of what whoever started the agent has left open: neither this process nor its container is to have it.
fn close_inherited() {
    #[expect(unsafe_code, reason = "closing what others have opened has no safe form")]
    // SAFETY: nothing of this program is open yet but its standard streams.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    if closed == 0 {
        return;
    }
    // A kernel before 5.9. The last one is that of the list itself, which is closed by now.
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<i32> = open.filter_map(|it| it.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|it| *it > 2) {
        #[expect(unsafe_code, reason = "closing what others have opened has no safe form")]
        // SAFETY: as above; one that is not open any more is an error that concerns nobody.
        let _ = unsafe { libc::close(descriptor) };
    }
}

/// To the agent, if it is still there.
fn say(line: &str) {
    drop(writeln!(io::stdout().lock(), "{}", line.replace('\n', " ")));
}

/// Writes a file so that whoever sees it sees all of it.
///
/// # Errors
/// When it cannot be written.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    // Environments have secrets in them.
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

/// Takes the lock of a keeper's directory, unless a keeper has it.
///
/// # Errors
/// When the file cannot be opened.
pub fn take_lock(files: &Files) -> io::Result<Option<Flock<File>>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(files.lock())?;
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

fn keep(files: &Files) -> io::Result<()> {
    let Some(lock) = take_lock(files)? else { return Err(io::Error::other("another keeper has this container")) };
    if files.abandoned().exists() || files.status().exists() {
        return Err(io::Error::other("nobody waits for this container"));
    }
    let spec: Spec = serde_json::from_slice(&std::fs::read(files.spec())?).map_err(io::Error::other)?;
    let _ = setsid();
    ignore_signals();
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let mut outputs = Outputs::open(&spec, files)?;
    if spec.pid_namespace {
        // Of the children, the first of which is the first process there.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID)?;
    }
    for namespace in spec.enter_namespaces.iter().filter(|it| it.ends_with("pid")) {
        nix::sched::setns(File::open(namespace)?, nix::sched::CloneFlags::CLONE_NEWPID)?;
    }
    let (mut problem, problem_writer) = pipe2(OFlag::O_CLOEXEC).map(|(read, write)| (File::from(read), write))?;
    #[expect(unsafe_code, reason = "fork has no safe form")]
    // SAFETY: this process has one thread, so the child may do whatever it could do here.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            let error = child::become_container(&spec, outputs.child_side());
            drop(File::from(problem_writer).write_all(error.to_string().as_bytes()));
            std::process::exit(127);
        }
        ForkResult::Parent { child } => child,
    };
    drop(problem_writer);
    outputs.close_child_side();
    let mut said = String::new();
    io::Read::read_to_string(&mut problem, &mut said)?;
    if !said.is_empty() {
        let _ = waitpid(child, None);
        return Err(io::Error::other(said));
    }
    let own = std::process::id();
    let start = start_time(own).unwrap_or_default();
    let child_start = start_time(u32::try_from(child.as_raw()).unwrap_or(0)).unwrap_or_default();
    write_whole(&files.pid(), format!("{own} {start} {child} {child_start}").as_bytes())?;
    say(&format!("started {child}"));
    release_standard_streams();
    let mut absence = Absence::of(spec.patience.as_ref());
    let status = outputs.pump_until_over(child, || {
        if let Some(signal) = absence.due(Instant::now()) {
            signal_members(&spec, child, signal);
        }
    })?;
    end_members(&spec, child);
    let is_owed = outputs.drain(DRAINED_WITHIN);
    write_whole(&files.status(), status.to_string().as_bytes())?;
    // The keeper is over with its container: only now may somebody else think so.
    drop(lock);
    if is_owed {
        outputs.linger();
    }
    Ok(())
}

/// The agent's pipe is let go: what is written after this is for nobody.
fn release_standard_streams() {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
        let _ = nix::unistd::dup2_stdin(&null);
    }
}

/// It ends when its container does, not when a terminal, an init system or an operator's `kill` thinks so.
fn ignore_signals() {
    ignore(&IGNORED);
}

const IGNORED: [Signal; 7] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE, Signal::SIGUSR1, Signal::SIGUSR2];

fn ignore(signals: &[Signal]) {
    for &it in signals {
        #[expect(unsafe_code, reason = "setting a handler has no safe form")]
        // SAFETY: nothing runs in a handler that is SIG_IGN.
        let _ = unsafe { signal(it, SigHandler::SigIgn) };
    }
}

/// When a process was started, in ticks since boot: with its pid it names the process.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Where the output of the container goes.
struct Outputs {
    logs: Vec<(Option<File>, RotatedLog)>,
    child: Option<child::Standard>,
    /// Where input for the container is written, or its terminal.
    input: input::Input,
    attach: attach::Attach,
}

impl Outputs {
    fn open(spec: &Spec, files: &Files) -> io::Result<Self> {
        let log = |path: &Path| RotatedLog::open(path, spec.sandboxes.as_deref(), spec.log_rotate_bytes, spec.log_rotate_keep);
        let mut attach = attach::Attach::listen(&files.socket());
        if spec.interactive {
            attach.expect_somebody();
        }
        let (input, stdin) = if spec.interactive && spec.tty.is_none() {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            (input::Input::pipe(File::from(write))?, read)
        } else {
            (input::Input::default(), OwnedFd::from(File::open("/dev/null")?))
        };
        if let Some((rows, columns)) = spec.tty {
            let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let terminal = nix::pty::openpty(Some(&size), None)?;
            let master = File::from(terminal.master);
            let standard = child::Standard::terminal(terminal.slave)?;
            let logs = vec![(Some(master.try_clone()?), log(&spec.stdout)?)];
            return Ok(Outputs { logs, child: Some(standard), input: input::Input::terminal(master)?, attach });
        }
        let (stdout, stdout_writer) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, stderr_writer) = pipe2(OFlag::O_CLOEXEC)?;
        let logs = vec![(Some(File::from(stdout)), log(&spec.stdout)?), (Some(File::from(stderr)), log(&spec.stderr)?)];
        Ok(Outputs { logs, child: Some(child::Standard::pipes(stdin, stdout_writer, stderr_writer)), input, attach })
    }

    fn child_side(&mut self) -> Option<child::Standard> {
        self.child.take()
    }

    fn close_child_side(&mut self) {
        self.child = None;
    }

    /// Moves output to the logs until the first process is over, and does `also` again and again. Its status, as wait(2) gives it.
    fn pump_until_over(&mut self, child: Pid, mut also: impl FnMut()) -> io::Result<i32> {
        loop {
            self.pump(Duration::from_millis(100));
            also();
            // Others of the container's processes may be this one's children, too: only the first counts.
            match waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT) {
                Ok(WaitStatus::StillAlive) => reap_others(child),
                Ok(_) => {
                    return match waitpid(child, None)? {
                        WaitStatus::Exited(_, code) => Ok((code & 0xff) << 8),
                        WaitStatus::Signaled(_, signal, core) => Ok(signal as i32 | if core { 0x80 } else { 0 }),
                        other => Err(io::Error::other(format!("an unexpected status: {other:?}"))),
                    };
                }
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what the processes have said before they ended, at most this long. Whether somebody has yet to take some of it.
    fn drain(&mut self, longest: Duration) -> bool {
        let begun = Instant::now();
        self.input.close();
        self.attach.over();
        while self.logs.iter().any(|(pipe, _)| pipe.is_some()) && begun.elapsed() < longest {
            if !self.pump(Duration::from_millis(100)) && begun.elapsed() > longest / 2 {
                break;
            }
        }
        self.attach.finish()
    }

    /// Stays for those who have not taken everything, in a process of its own: that the container is over is known by the keeper's end.
    fn linger(&mut self) {
        // Children came into the container's own process ids, where no more can be born now.
        if let Ok(own) = File::open("/proc/self/ns/pid") {
            let _ = nix::sched::setns(own, nix::sched::CloneFlags::CLONE_NEWPID);
        }
        #[expect(unsafe_code, reason = "fork has no safe form")]
        // SAFETY: this process has one thread, so the child may do whatever it could do here.
        let forked = unsafe { fork() };
        if !matches!(forked, Ok(ForkResult::Parent { .. })) {
            self.logs.clear();
            self.attach.linger();
        }
    }

    /// Waits until there is something to move, at most this long, and moves it. Whether there was output.
    fn pump(&mut self, patience: Duration) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

        let is_behind = self.attach.is_behind();
        let ready: Vec<bool> = {
            let open = self.logs.iter().filter_map(|(pipe, _)| pipe.as_ref()).filter(|_| !is_behind);
            let mut fds: Vec<PollFd<'_>> = open.map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)).collect();
            let outputs = fds.len();
            fds.extend(self.attach.fds());
            fds.extend(self.input.awaited().map(|it| PollFd::new(it, PollFlags::POLLOUT)));
            let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut fds, timeout);
            fds.iter().take(outputs).map(|it| it.revents().is_some_and(|it| !it.is_empty())).collect()
        };
        self.input.write();
        self.attach.serve(&mut self.input);
        let mut ready = ready.into_iter();
        let mut moved = false;
        let mut buffer = [0; 16 * 1024];
        for (at, (pipe, log)) in self.logs.iter_mut().enumerate() {
            let Some(open) = pipe else { continue };
            if ready.next() != Some(true) {
                continue;
            }
            match nix::unistd::read(open.as_fd(), &mut buffer) {
                Ok(0) => *pipe = None,
                Ok(read) => {
                    moved = true;
                    log.write(&buffer[..read]);
                    self.attach.output(at == 1, &buffer[..read]);
                }
                Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
                // A terminal without anybody on the other side.
                Err(_) => *pipe = None,
            }
        }
        moved
    }
}

/// Kept for its raw number: the terminal of a container is made its controlling one by ioctl.
pub(crate) fn raw(fd: &OwnedFd) -> i32 {
    fd.as_raw_fd()
}
