//! A shell on the node itself, as root: only where the configuration says so.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, Command};

use crate::arguments::Size;
use crate::desk::{Answer, Pipes};
use crate::docker::{converse, opened, unknown};

/// The control that changes the size of the host's terminal.
const RESIZE: &str = "host_resize_exec_tty";
/// Namespaces of the host that are entered; that of mounts last, because the others are found by it.
const NAMESPACES: [(&str, CloneFlags); 4] = [
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("mnt", CloneFlags::CLONE_NEWNS),
];
/// What is said where they cannot be found or entered.
const NEEDED: &str =
    "a probe in a container needs the host's process ids (hostPID, --pid=host), CAP_SYS_PTRACE, CAP_SYS_ADMIN and CAP_SYS_CHROOT";
/// The namespace of process ids, which nobody can enter from inside: a shell would have the host's files, and be among other processes.
const PROCESSES: &str = "pid";
/// What the shell is.
const PROGRAM: &str = "/bin/sh";
/// Runs root's shell as a login shell, after a word of where that is if it is not where one would think.
const SHELL: &str = "[ -z \"$NOTICE\" ] || printf '%s\\r\\n' \"$NOTICE\"; unset NOTICE; \
                     shell=$(getent passwd root 2>/dev/null | cut -d: -f7 2>/dev/null); [ -x \"$shell\" ] || shell=/bin/sh; exec \"$shell\" -l";

/// How long the last words of a shell that has ended may take.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Opens shells on the host.
#[derive(Clone, Debug)]
pub struct HostShell {
    /// Where the host's `/proc` is.
    proc_root: PathBuf,
    terminals: Arc<Mutex<HashMap<u64, Arc<OwnedFd>>>>,
}

impl PartialEq for HostShell {
    fn eq(&self, other: &Self) -> bool {
        self.proc_root == other.proc_root
    }
}

impl Eq for HostShell {}

impl HostShell {
    /// Shells on the host whose `/proc` is there.
    pub fn new(proc_root: PathBuf) -> Self {
        HostShell { proc_root, terminals: Arc::default() }
    }

    pub(crate) fn carry_out(&self, control: &str, arguments: &BTreeMap<String, String>, pipes: &Pipes) -> Result<Answer, String> {
        match control {
            "host_exec" => self.exec(pipes).map_err(|error| format!("the shell cannot be started: {error}")),
            RESIZE => self.resize(Size::parse(arguments)?),
            other => Err(unknown(other)),
        }
    }

    fn exec(&self, pipes: &Pipes) -> io::Result<Answer> {
        let (terminal, inside) = terminal()?;
        let mut child = self.shell(inside)?;
        let pipe = pipes.open();
        let number = pipe.number();
        let entry = Entry { terminals: self.terminals.clone(), number };
        self.terminals.lock().unwrap_or_else(PoisonError::into_inner).insert(number, terminal.clone());
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for descriptors that change; this one stays open and the same as long as it lives"
        )]
        let stream = Terminal(AsyncFd::new(terminal)?);
        Ok(opened(number, true, RESIZE, async move {
            let mut conversation = std::pin::pin!(converse(pipe, stream, true));
            let ended = tokio::select! {
                ended = &mut conversation => ended,
                // What it left running may have the terminal open for ever; the shell's own last words have come by then.
                _ = child.wait() => tokio::time::timeout(LAST_WORDS, conversation).await.unwrap_or(Ok(())),
            };
            // With the terminal its processes get a hang-up; the shell itself may not listen to it.
            drop(entry);
            let _ = child.start_kill();
            let _ = child.wait().await;
            ended
        }))
    }

    /// Process 1 has the host's namespaces: they are entered by who has others, in a container.
    fn shell(&self, inside: OwnedFd) -> io::Result<Child> {
        let of_host = |name: &str| self.proc_root.join("1/ns").join(name);
        let is_elsewhere =
            |name: &str| Ok(std::fs::read_link(of_host(name))? != std::fs::read_link(Path::new("/proc/self/ns").join(name))?);
        if matches!(is_elsewhere(PROCESSES), Ok(true)) {
            return Err(io::Error::other(format!(
                "the probe has process ids of its own, and the host's processes cannot be reached; {NEEDED}"
            )));
        }
        // Opened before the first is entered: afterwards the path may lead elsewhere.
        let elsewhere: io::Result<Vec<(File, CloneFlags)>> = NAMESPACES
            .iter()
            .filter_map(|(name, flag)| match is_elsewhere(name) {
                Ok(true) => Some(File::open(of_host(name)).map(|file| (file, *flag))),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            })
            .collect();
        let mut notice = String::new();
        let elsewhere = elsewhere.unwrap_or_else(|error| {
            notice = format!("The host's namespaces cannot be entered ({error}): this is a shell where the probe runs.");
            Vec::new()
        });
        let mut command = Command::new(PROGRAM);
        command.args(["-c", SHELL]);
        command.env_clear().env("NOTICE", notice).env("TERM", "xterm").env("HOME", "/root").env("USER", "root");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        let stdio = || io::Result::Ok(Stdio::from(inside.try_clone()?));
        command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?).kill_on_drop(true);
        if !elsewhere.is_empty() && !nix::unistd::geteuid().is_root() {
            command.uid(0).gid(0);
        }
        in_session_of_its_own(&mut command);
        let missing = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound if elsewhere.is_empty() => {
                io::Error::new(error.kind(), format!("there is no {PROGRAM} where the probe runs; {NEEDED}"))
            }
            io::ErrorKind::NotFound => io::Error::new(error.kind(), format!("the host has no {PROGRAM}")),
            _ => error,
        };
        if elsewhere.is_empty() {
            return command.spawn().map_err(missing);
        }
        // A thread of its own, which ends with this: no other is ever in a foreign namespace. What it starts inherits where it is.
        let runtime = tokio::runtime::Handle::current();
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("host-shell".to_owned()).spawn_scoped(scope, || {
                let _runtime = runtime.enter();
                enter(&elsewhere).map_err(|error| io::Error::new(error.kind(), format!("{error}; {NEEDED}")))?;
                command.spawn().map_err(missing)
            })?;
            thread.join().map_err(|_| io::Error::other("the thread in the host's namespaces panicked"))?
        })
    }

    fn resize(&self, size: Size) -> Result<Answer, String> {
        let terminal = self.terminals.lock().unwrap_or_else(PoisonError::into_inner).get(&size.pipe).cloned();
        let terminal = terminal.ok_or_else(|| format!("Unknown pipeID (pipe-{})", size.pipe))?;
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal.as_fd(), size).map_err(|error| error.to_string())?;
        Ok(Answer::default())
    }
}

/// Takes this thread into namespaces.
fn enter(namespaces: &[(File, CloneFlags)]) -> io::Result<()> {
    // Root and working directory are those of all threads, and nobody may take all of them into another world.
    unshare(CloneFlags::CLONE_FS)?;
    namespaces.iter().try_for_each(|(file, flag)| setns(file.as_fd(), *flag).map_err(io::Error::from))
}

/// A terminal of its own needs a session of its own: what runs in it gets the keys that interrupt, and a hang-up when it goes.
#[expect(unsafe_code, reason = "the one way to do something between fork and exec; both calls are safe there, and nothing is allocated")]
fn in_session_of_its_own(command: &mut Command) {
    let begin = || {
        nix::unistd::setsid()?;
        // SAFETY: standard input is the terminal, and the call takes no pointer.
        match unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: see above.
    unsafe { command.pre_exec(begin) };
}

/// A terminal's place among those whose size can be changed.
struct Entry {
    terminals: Arc<Mutex<HashMap<u64, Arc<OwnedFd>>>>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.terminals.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// A pseudo-terminal: our end, and the end of who runs in it.
fn terminal() -> io::Result<(Arc<OwnedFd>, OwnedFd)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let inside = rustix::fs::open(ptsname(&ours, Vec::new())?, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::fcntl_setfl(&ours, rustix::fs::fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
    Ok((Arc::new(ours), inside))
}

/// Our end of a terminal as a stream.
struct Terminal(AsyncFd<Arc<OwnedFd>>);

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match guard.try_io(|inner| rustix::io::read(inner.get_ref(), unfilled).map_err(io::Error::from)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has the other end open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            if let Ok(written) = guard.try_io(|inner| rustix::io::write(inner.get_ref(), bytes).map_err(io::Error::from)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
