//! Who wants to see the output of a container as it comes, or to write its input, connects to a socket of its keeper.
//!
//! Both ways the same frames: a byte that says what it is, four bytes of length (big-endian), and that many bytes.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Output of the container.
pub const STDOUT: u8 = 1;
/// Its errors.
pub const STDERR: u8 = 2;
/// Input for it; an empty one is its end.
pub const STDIN: u8 = 3;
/// Size of its terminal: rows and columns, two bytes each.
pub const WINDOW: u8 = 4;

/// Longest frame.
pub const FRAME_MAX: usize = 64 * 1024;

/// Who may be attached at a time.
const CLIENTS_MAX: usize = 32;

/// What a session has said before anybody was attached, at most.
const BACKLOG_MAX: usize = 256 * 1024;

/// Who does not read for this long is let go: the container does not wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Attach {
    listener: Option<UnixListener>,
    clients: Vec<Client>,
    terminal: bool,
    /// What was said before the first one came, as frames; `None` when it has come, or where nobody is expected.
    backlog: Option<Vec<u8>>,
}

struct Client {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Attach {
    /// Without a socket nobody can attach; the container runs all the same.
    pub(super) fn listen(path: &Path) -> Self {
        let listener = within_reach(path).and_then(|(_directory, path)| UnixListener::bind(path)).ok();
        if let Some(it) = &listener {
            drop(it.set_nonblocking(true));
        }
        Attach { listener, clients: Vec::new(), terminal: false, backlog: None }
    }

    pub(super) fn has_terminal(&mut self) {
        self.terminal = true;
    }

    /// Somebody is about to attach who wants to see all of it: a short command says it sooner than they come.
    pub(super) fn expect_somebody(&mut self) {
        self.backlog = Some(Vec::new());
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listener.iter().map(|it| it.as_fd()).chain(self.clients.iter().map(|it| it.stream.as_fd()))
    }

    /// Takes who comes and what they write.
    pub(super) fn serve(&mut self, input: &mut Option<File>) {
        while let Some(Ok((stream, _))) = self.listener.as_ref().map(UnixListener::accept) {
            if self.clients.len() < CLIENTS_MAX {
                drop(stream.set_nonblocking(true));
                drop(stream.set_write_timeout(Some(PATIENCE)));
                let mut client = Client { stream, received: Vec::new() };
                if self.backlog.take().is_none_or(|missed| client.write(&missed)) {
                    self.clients.push(client);
                }
            }
        }
        let terminal = self.terminal;
        self.clients.retain_mut(|it| it.read(input, terminal));
    }

    pub(super) fn output(&mut self, is_stderr: bool, bytes: &[u8]) {
        let frame = frame(if is_stderr { STDERR } else { STDOUT }, bytes);
        if let Some(backlog) = &mut self.backlog
            && backlog.len() + frame.len() <= BACKLOG_MAX
        {
            backlog.extend(&frame);
        }
        self.clients.retain_mut(|it| it.write(&frame));
    }

    /// Lets everybody go who has seen the last, those included who are at the door.
    pub(super) fn finish(&mut self, input: &mut Option<File>) {
        self.serve(input);
        self.clients.clear();
    }
}

/// Connects to the socket at `path`, however long that is.
///
/// # Errors
/// When nobody listens there.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_directory, path) = within_reach(path)?;
    UnixStream::connect(path)
}

/// The directory of a socket, and a path to the socket that is valid as long as that is open. An address of a socket has at most 107 bytes
/// (`sun_path` of unix(7)); the directory of a nested container alone may have more.
fn within_reach(path: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let directory = File::open(directory)?;
    let path = Path::new("/proc/self/fd").join(directory.as_fd().as_raw_fd().to_string()).join(name);
    Ok((directory, path))
}

/// A frame of at most [`FRAME_MAX`] bytes.
pub fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut frame = vec![kind];
    frame.extend(length.to_be_bytes());
    frame.extend(bytes);
    frame
}

impl Client {
    /// Whether it has taken it, within the patience.
    fn write(&mut self, frames: &[u8]) -> bool {
        drop(self.stream.set_nonblocking(false));
        let sent = self.stream.write_all(frames).is_ok();
        drop(self.stream.set_nonblocking(true));
        sent
    }

    /// Whether it stays.
    fn read(&mut self, input: &mut Option<File>, terminal: bool) -> bool {
        let mut buffer = [0; 4096];
        let mut stays = true;
        loop {
            match self.stream.read(&mut buffer) {
                // What came before the end counts: the end of the input often comes right before that of the connection.
                Ok(0) => stays = false,
                Ok(read) => self.received.extend(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => stays = false,
            }
            if !stays {
                break;
            }
            if self.received.len() > 2 * FRAME_MAX {
                break;
            }
        }
        while self.received.len() >= 5 {
            let length = u32::from_be_bytes([self.received[1], self.received[2], self.received[3], self.received[4]]) as usize;
            if length > FRAME_MAX {
                return false;
            }
            if self.received.len() < 5 + length {
                break;
            }
            let frame: Vec<u8> = self.received.drain(..5 + length).collect();
            take(frame[0], &frame[5..], input, terminal);
        }
        stays
    }
}

fn take(kind: u8, bytes: &[u8], input: &mut Option<File>, terminal: bool) {
    match kind {
        STDIN if bytes.is_empty() && terminal => {
            // Control-D: what a terminal calls the end.
            if let Some(it) = input {
                drop(it.write_all(&[4]));
            }
        }
        STDIN if bytes.is_empty() => *input = None,
        STDIN => {
            let failed = input.as_mut().is_some_and(|it| it.write_all(bytes).is_err());
            if failed && !terminal {
                *input = None;
            }
        }
        WINDOW if terminal && bytes.len() == 4 => {
            if let Some(it) = input {
                let size = libc::winsize {
                    ws_row: u16::from_be_bytes([bytes[0], bytes[1]]),
                    ws_col: u16::from_be_bytes([bytes[2], bytes[3]]),
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                #[expect(unsafe_code, reason = "an ioctl has no safe form")]
                // SAFETY: the file is open and the kernel only reads the structure, which lives until the call returns.
                unsafe {
                    libc::ioctl(it.as_raw_fd(), libc::TIOCSWINSZ, &raw const size)
                };
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn input_that_comes_with_the_end_of_the_connection_is_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("io.sock");
        let mut attach = Attach::listen(&path);
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut input = Some(File::from(write));
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(&[frame(STDIN, b"typed"), frame(STDIN, b"")].concat()).unwrap();
        drop(stream);
        attach.serve(&mut input);
        assert!(input.is_none(), "its end was passed on");
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "typed");
        assert_eq!(attach.clients.len(), 0);
    }

    #[test]
    fn a_path_may_be_longer_than_an_address() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a".repeat(120)).join("b".repeat(80));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("io.sock");
        let mut attach = Attach::listen(&path);
        let mut stream = connect(&path).unwrap();
        attach.serve(&mut None);
        attach.output(false, b"far");
        attach.finish(&mut None);
        let mut told = Vec::new();
        stream.read_to_end(&mut told).unwrap();
        assert_eq!(told, frame(STDOUT, b"far"));
        connect(&deep.join("nobody.sock")).unwrap_err();
    }

    #[test]
    fn what_was_said_before_anybody_came_is_told_to_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("io.sock");
        let mut attach = Attach::listen(&path);
        attach.expect_somebody();
        attach.output(false, b"early");
        let mut first = UnixStream::connect(&path).unwrap();
        attach.serve(&mut None);
        let mut second = UnixStream::connect(&path).unwrap();
        attach.serve(&mut None);
        attach.output(true, b"late");
        attach.finish(&mut None);
        let (mut told, mut later) = (Vec::new(), Vec::new());
        first.read_to_end(&mut told).unwrap();
        second.read_to_end(&mut later).unwrap();
        assert_eq!(told, [frame(STDOUT, b"early"), frame(STDERR, b"late")].concat());
        assert_eq!(later, frame(STDERR, b"late"));
    }
}
