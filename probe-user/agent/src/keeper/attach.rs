//! Who wants to see the output of a container as it comes, or to write its input, connects to a socket of its keeper.
//!
//! Both ways the same frames: a byte that says what it is, four bytes of length (big-endian), and that many bytes. Nobody is ever waited for:
//! what a client does not take is queued, and what it writes stays in its socket while the input is full.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::input::Input;

/// Output of the container.
pub const STDOUT: u8 = 1;
/// Its errors.
pub const STDERR: u8 = 2;
/// Input for it; an empty one is its end, where that is not a terminal.
pub const STDIN: u8 = 3;
/// Size of its terminal: rows and columns, two bytes each.
pub const WINDOW: u8 = 4;
/// From a client that wants the output: who only writes input would never take it.
pub const WATCH: u8 = 5;
/// The client has been too slow: output is missing from here on, and no more comes.
pub const LOST: u8 = 6;

/// Longest frame.
pub const FRAME_MAX: usize = 64 * 1024;

/// Who may be attached at a time.
const CLIENTS_MAX: usize = 32;

/// A session waits when its client has this much to take.
const SESSION_WAITS_AT: usize = 256 * 1024;

/// What is kept for a client at most; it is told when there was more.
const QUEUE_MAX: usize = 4 * 1024 * 1024;

/// A session waits this long for its client to come before it runs on without.
const EXPECTED_WITHIN: Duration = Duration::from_secs(30);

/// How long the last output of a task that is over is kept for those who have not taken it.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// And how long for whoever has started it: that is all the output there is, and may come out of a terminal that is held.
const OWNER_TAKES_WITHIN: Duration = Duration::from_secs(3600);

pub(super) struct Attach {
    listener: Option<UnixListener>,
    clients: Vec<Client>,
    /// The client that a session exists for, before it has come.
    expected: Option<Expected>,
    /// The first process has ended: what is left of its output is read whoever takes it.
    is_over: bool,
}

struct Expected {
    /// What has been said so far.
    said: Queue,
    until: Instant,
}

struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    /// It writes no more; what it has written may still have to be taken.
    has_written_all: bool,
    role: Role,
    queue: Queue,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Writes input, or has not said yet what it wants.
    Writer,
    /// Watches a container that does not wait for it.
    Watcher,
    /// The one that a session exists for.
    Owner,
}

/// Frames that wait to be taken.
#[derive(Default)]
struct Queue {
    bytes: VecDeque<u8>,
    has_lost: bool,
}

impl Queue {
    fn push(&mut self, frames: &[u8]) {
        if self.has_lost {
            return;
        }
        if self.bytes.len() + frames.len() > QUEUE_MAX {
            self.has_lost = true;
            self.bytes.extend(frame(LOST, &[]));
            return;
        }
        self.bytes.extend(frames);
    }
}

impl Attach {
    /// Without a socket nobody can attach; the container runs all the same.
    pub(super) fn listen(path: &Path) -> Self {
        let listener = within_reach(path).and_then(|(_directory, path)| UnixListener::bind(path)).ok();
        if let Some(it) = &listener {
            drop(it.set_nonblocking(true));
        }
        Attach { listener, clients: Vec::new(), expected: None, is_over: false }
    }

    /// Somebody is about to attach who wants to see all of it: a short command says it sooner than they come.
    pub(super) fn expect_somebody(&mut self) {
        self.expected = Some(Expected { said: Queue::default(), until: Instant::now() + EXPECTED_WITHIN });
    }

    /// Whether the container has to wait until somebody takes what it has said.
    pub(super) fn is_behind(&self) -> bool {
        let waits = |it: &Queue| !it.has_lost && it.bytes.len() >= SESSION_WAITS_AT;
        let expected = self.expected.as_ref().is_some_and(|it| waits(&it.said) && Instant::now() < it.until);
        !self.is_over && (expected || self.clients.iter().any(|it| it.role == Role::Owner && waits(&it.queue)))
    }

    /// What to wait for. Who neither may write nor has anything to take is left out: that it has gone would be reported again and again.
    pub(super) fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let listener = self.listener.iter().map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN));
        let clients = self.clients.iter().map(|it| (it.stream.as_fd(), it.interest())).filter(|(_, interest)| !interest.is_empty());
        listener.chain(clients.map(|(fd, interest)| PollFd::new(fd, interest)))
    }

    /// Takes who comes and what they write, and gives them what they take.
    pub(super) fn serve(&mut self, input: &mut Input) {
        while let Some(Ok((stream, _))) = self.listener.as_ref().map(UnixListener::accept) {
            if self.clients.len() < CLIENTS_MAX && stream.set_nonblocking(true).is_ok() {
                let (received, queue) = (Vec::new(), Queue::default());
                self.clients.push(Client { stream, received, has_written_all: false, role: Role::Writer, queue });
            }
        }
        let expected = &mut self.expected;
        self.clients.retain_mut(|it| it.read() && it.take(input, expected) && it.write());
    }

    pub(super) fn output(&mut self, is_stderr: bool, bytes: &[u8]) {
        let frame = frame(if is_stderr { STDERR } else { STDOUT }, bytes);
        if let Some(expected) = &mut self.expected {
            expected.said.push(&frame);
        }
        self.clients.retain_mut(|it| {
            if it.role != Role::Writer {
                it.queue.push(&frame);
            }
            it.write()
        });
    }

    /// The first process has ended.
    pub(super) fn over(&mut self) {
        self.is_over = true;
    }

    /// Nobody is taken any more. Whether somebody has yet to take what was said, those included who are at the door.
    pub(super) fn finish(&mut self) -> bool {
        self.serve(&mut Input::default());
        self.listener = None;
        self.clients.retain(|it| !it.queue.bytes.is_empty());
        !self.clients.is_empty()
    }

    /// Waits until everybody has taken what was said, or has gone.
    pub(super) fn linger(&mut self) {
        let begun = Instant::now();
        while !self.clients.is_empty() {
            let mut fds: Vec<PollFd<'_>> = self.fds().collect();
            let _ = poll(&mut fds, PollTimeout::from(1000_u16));
            self.serve(&mut Input::default());
            let is_late = begun.elapsed() > TAKEN_WITHIN;
            let is_over = begun.elapsed() > OWNER_TAKES_WITHIN;
            self.clients.retain(|it| !it.queue.bytes.is_empty() && !is_over && (it.role == Role::Owner || !is_late));
        }
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
    fn may_read(&self) -> bool {
        !self.has_written_all && self.received.len() <= 2 * FRAME_MAX
    }

    fn interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::POLLIN, self.may_read());
        interest.set(PollFlags::POLLOUT, !self.queue.bytes.is_empty());
        interest
    }

    /// Whether it is still there, or has at least written something.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        while self.may_read() {
            match self.stream.read(&mut buffer) {
                // What came before the end counts: the end of the input often comes right before that of the connection.
                Ok(0) => self.has_written_all = true,
                Ok(read) => self.received.extend(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.has_written_all = true,
            }
        }
        self.role == Role::Writer || !self.has_written_all
    }

    /// Takes its frames until the input is full. Whether it stays.
    fn take(&mut self, input: &mut Input, expected: &mut Option<Expected>) -> bool {
        let mut taken = 0;
        while let Some(&[kind, a, b, c, d]) = self.received[taken..].first_chunk() {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if length > FRAME_MAX {
                return false;
            }
            let Some(bytes) = self.received.get(taken + 5..taken + 5 + length) else { break };
            match (kind, bytes) {
                (STDIN, _) if input.is_full() => {
                    self.received.drain(..taken);
                    return true;
                }
                (STDIN, []) => input.end(),
                (STDIN, bytes) => input.push(bytes),
                (WINDOW, &[r, s, c, d]) => input.resize(u16::from_be_bytes([r, s]), u16::from_be_bytes([c, d])),
                (WATCH, _) if self.role == Role::Writer => match expected.take() {
                    Some(it) => (self.role, self.queue) = (Role::Owner, it.said),
                    None => self.role = Role::Watcher,
                },
                _ => {}
            }
            taken += 5 + length;
        }
        self.received.drain(..taken);
        !self.has_written_all
    }

    /// Writes as much as it takes now. Whether it stays.
    fn write(&mut self) -> bool {
        while !self.queue.bytes.is_empty() {
            match self.stream.write(self.queue.bytes.as_slices().0) {
                Ok(written) => drop(self.queue.bytes.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        !self.queue.has_lost
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn watch(path: &Path) -> UnixStream {
        let mut stream = connect(path).unwrap();
        stream.write_all(&frame(WATCH, b"")).unwrap();
        stream
    }

    /// Everything that is told, and served meanwhile by somebody else.
    fn read_apart(mut stream: UnixStream) -> std::thread::JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut told = Vec::new();
            stream.read_to_end(&mut told).unwrap();
            told
        })
    }

    /// A listener with somebody who has attached, the standard input that is passed on, and what the process reads of it.
    fn attached() -> (Attach, UnixStream, Input, File) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("io.sock");
        let attach = Attach::listen(&path);
        let (read, write) = nix::unistd::pipe().unwrap();
        let input = Input::pipe(File::from(write)).unwrap();
        (attach, UnixStream::connect(&path).unwrap(), input, File::from(read))
    }

    #[test]
    fn input_that_comes_with_the_end_of_the_connection_is_not_lost() {
        let (mut attach, mut stream, mut input, mut read) = attached();
        stream.write_all(&[frame(STDIN, b"typed"), frame(STDIN, b"")].concat()).unwrap();
        drop(stream);
        attach.serve(&mut input);
        assert!(!input.is_open(), "its end was passed on");
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "typed");
        assert_eq!(attach.clients.len(), 0);
    }

    #[test]
    fn input_that_nobody_takes_stays_with_its_writer_until_somebody_does() {
        let (mut attach, mut stream, mut input, mut read) = attached();
        let sent: Vec<u8> = (0..2_000_000_u32).map(|it| (it % 251) as u8).collect();
        let frames: Vec<u8> = sent.chunks(FRAME_MAX).flat_map(|it| frame(STDIN, it)).chain(frame(STDIN, b"")).collect();
        let writing = std::thread::spawn(move || stream.write_all(&frames).unwrap());
        let begun = Instant::now();
        while !input.is_full() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            attach.serve(&mut input);
        }
        for _ in 0..100 {
            attach.serve(&mut input);
        }
        assert!(!writing.is_finished(), "more was taken than is kept");
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            read.read_to_end(&mut all).unwrap();
            all
        });
        while input.is_open() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            input.write();
            attach.serve(&mut input);
        }
        writing.join().unwrap();
        assert!(reading.join().unwrap() == sent, "what is taken is what was written");
    }

    #[test]
    fn a_path_may_be_longer_than_an_address() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a".repeat(120)).join("b".repeat(80));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("io.sock");
        let mut attach = Attach::listen(&path);
        let mut stream = watch(&path);
        attach.serve(&mut Input::default());
        attach.output(false, b"far");
        assert!(!attach.finish());
        let mut told = Vec::new();
        stream.read_to_end(&mut told).unwrap();
        assert_eq!(told, frame(STDOUT, b"far"));
        connect(&deep.join("nobody.sock")).unwrap_err();
    }

    #[test]
    fn what_was_said_before_anybody_came_is_told_to_the_first_who_watches() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("io.sock");
        let mut attach = Attach::listen(&path);
        attach.expect_somebody();
        attach.output(false, b"early");
        let mut writer = connect(&path).unwrap();
        attach.serve(&mut Input::default());
        let mut first = watch(&path);
        attach.serve(&mut Input::default());
        let mut second = watch(&path);
        attach.serve(&mut Input::default());
        attach.output(true, b"late");
        assert!(!attach.finish());
        let mut told = [const { Vec::new() }; 3];
        for (stream, told) in [&mut writer, &mut first, &mut second].into_iter().zip(&mut told) {
            stream.read_to_end(told).unwrap();
        }
        assert_eq!(told, [vec![], [frame(STDOUT, b"early"), frame(STDERR, b"late")].concat(), frame(STDERR, b"late")]);
    }

    #[test]
    fn a_session_waits_for_its_client_and_a_task_for_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("io.sock");
        let mut attach = Attach::listen(&path);
        attach.expect_somebody();
        let piece = [b'x'; 16 * 1024];
        while !attach.is_behind() {
            attach.output(false, &piece);
        }
        let owner = watch(&path);
        attach.serve(&mut Input::default());
        let watcher = watch(&path);
        attach.serve(&mut Input::default());
        let mut said = attach.clients[0].queue.bytes.len();
        while attach.clients.iter().any(|it| it.role == Role::Watcher && !it.queue.has_lost) {
            attach.output(false, &piece);
            attach.serve(&mut Input::default());
            // The owner's queue is emptied in place of a container that waits.
            said += attach.clients[0].queue.bytes.drain(..).len();
            assert!(said < 64 << 20, "the watcher's queue has no end");
        }
        assert!(!attach.is_behind(), "nobody waits for a watcher");
        attach.clients.remove(0);
        drop(owner);
        let reading = read_apart(watcher);
        attach.over();
        assert!(attach.finish());
        attach.linger();
        let told = reading.join().unwrap();
        assert!(told.len() > QUEUE_MAX && told.ends_with(&frame(LOST, b"")), "{}", told.len());
    }
}
