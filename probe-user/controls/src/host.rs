//! A shell on the node itself, as root: only where the configuration says so.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

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
/// Namespaces of the host that are entered.
const NAMESPACES: [(&str, &str); 5] = [("mount", "mnt"), ("ipc", "ipc"), ("net", "net"), ("pid", "pid"), ("uts", "uts")];
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
        let elsewhere: io::Result<Vec<bool>> = NAMESPACES.iter().map(|(_, name)| is_elsewhere(name)).collect();
        let notice = elsewhere
            .as_ref()
            .err()
            .map(|error| format!("The host's namespaces cannot be entered ({error}): this is a shell where the probe runs."));
        let mut command = if elsewhere.is_ok_and(|elsewhere| elsewhere.contains(&true)) {
            let mut command = Command::new("nsenter");
            command.args(NAMESPACES.map(|(flag, name)| format!("--{flag}={}", of_host(name).display())));
            command.args(["--setuid=0", "--setgid=0", "--", "setsid"]);
            command
        } else {
            Command::new("setsid")
        };
        // A terminal of its own needs a session of its own.
        command.args(["--ctty", "--wait", "/bin/sh", "-c", SHELL]);
        command.env_clear().env("NOTICE", notice.unwrap_or_default()).env("TERM", "xterm").env("HOME", "/root").env("USER", "root");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        let stdio = || io::Result::Ok(Stdio::from(inside.try_clone()?));
        command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?).kill_on_drop(true);
        command.spawn().map_err(|error| io::Error::new(error.kind(), format!("nsenter and setsid of util-linux: {error}")))
    }

    fn resize(&self, size: Size) -> Result<Answer, String> {
        let terminal = self.terminals.lock().unwrap_or_else(PoisonError::into_inner).get(&size.pipe).cloned();
        let terminal = terminal.ok_or_else(|| format!("Unknown pipeID (pipe-{})", size.pipe))?;
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal.as_fd(), size).map_err(|error| error.to_string())?;
        Ok(Answer::default())
    }
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
