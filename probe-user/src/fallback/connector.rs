//! The kernel's process connector (`CONFIG_PROC_EVENTS`): forks, execs and exits over netlink, for whoever has `CAP_NET_ADMIN`. Messages as in
//! `linux/cn_proc.h`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::fallback::lost;
use crate::observation::{BootNanos, Observation, ProcessStarted};
use crate::procfs::{Procfs, ReadError};

const NETLINK_CONNECTOR: isize = 11;
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const PROC_CN_MCAST_LISTEN: u32 = 1;
const NLMSG_DONE: u16 = 3;
/// `struct nlmsghdr` and `struct cn_msg`.
const HEADERS_LEN: usize = 16 + 20;

const PROC_EVENT_FORK: u32 = 0x1;
const PROC_EVENT_EXEC: u32 = 0x2;
const PROC_EVENT_EXIT: u32 = 0x8000_0000;

/// The socket's buffer: at 100 bytes an event it holds what 20,000 processes do while the probe does not read.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// How long a read waits before it looks whether to stop.
const WAIT_MS: u16 = 250;

/// A subscription to the connector.
pub struct Connector {
    socket: Socket,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// Subscribes. Fails without the right to, or on a kernel without the connector.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_CONNECTOR)?;
        // Larger than the system's limit needs a right that the probe may not have: then the limit has to do.
        let _ = socket.set_rx_buf_sz(BUFFER_BYTES);
        socket.bind(&SocketAddr::new(0, CN_IDX_PROC))?;
        socket.send_to(&subscription(), &SocketAddr::new(0, 0), 0)?;
        Ok(Connector { socket })
    }

    /// Delivers what happens until `stop` is cancelled or nobody listens. Blocks: it has a thread of its own.
    pub fn run(self, procfs: &Arc<Procfs>, stop: &CancellationToken, sink: &mpsc::Sender<Vec<Observation>>) {
        let mut buffer = Vec::with_capacity(64 * 1024);
        let mut overruns = 0;
        let mut leaderless = Leaderless::default();
        while !stop.is_cancelled() {
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let readable = matches!(nix::poll::poll(&mut fds, PollTimeout::from(WAIT_MS)), Ok(1));
            let mut batch = leaderless.ended(procfs);
            if readable {
                loop {
                    buffer.clear();
                    match self.socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
                        Ok(_) => batch.extend(event(&buffer).and_then(|event| event.observe(procfs, &mut leaderless))),
                        Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => {
                            overruns += 1;
                            batch.push(lost(overruns));
                        }
                        Err(_) => break,
                    }
                    if batch.len() >= 512 {
                        break;
                    }
                }
            }
            if !batch.is_empty() && sink.blocking_send(batch).is_err() {
                return;
            }
        }
    }
}

/// What the connector tells of a process, by its thread group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Event {
    Fork { parent: u32, child: u32 },
    Exec { pid: u32 },
    Exit { pid: u32, status: i32 },
}

impl Event {
    /// The event with what `/proc` adds to it, if the process is still there.
    fn observe(self, procfs: &Procfs, leaderless: &mut Leaderless) -> Option<Observation> {
        let at = Now::read().boot;
        match self {
            Event::Fork { parent, child } => {
                let stat = procfs.stat(child).ok();
                let start_time: Option<BootNanos> = stat.as_ref().map(|it| it.start_time);
                let comm = stat.map(|it| it.comm).unwrap_or_default();
                Some(Observation::ProcessStarted(ProcessStarted {
                    at,
                    pid: child,
                    parent_pid: parent,
                    start_time,
                    comm,
                    cgroup_id: 0,
                    user_id: 0,
                }))
            }
            Event::Exec { pid } => {
                let stat = procfs.stat(pid).ok()?;
                let user_id = 0;
                Some(Observation::ProcessExecuted { at, pid, start_time: Some(stat.start_time), comm: stat.comm, cgroup_id: 0, user_id })
            }
            Event::Exit { pid, status } if leaderless.note(procfs, pid, status) => None,
            Event::Exit { pid, status } => Some(Observation::ProcessExited { at, pid, start_time: None, status }),
        }
    }
}

/// Processes whose first thread has ended and which may run on, at most; beyond it they are told as ended.
const LEADERLESS_MAX: usize = 4_096;

/// Processes whose first thread has ended before the others. The connector tells of threads: the end of the first one is the end of the process as
/// a rule, and not always.
#[derive(Debug, Default)]
struct Leaderless {
    /// By pid: start, and what the first thread ended with.
    waiting: BTreeMap<u32, (BootNanos, i32)>,
}

impl Leaderless {
    /// The first thread of a process has ended. Whether others are left, perhaps about to end as well.
    fn note(&mut self, procfs: &Procfs, pid: u32, status: i32) -> bool {
        self.waiting.remove(&pid);
        let Ok(stat) = procfs.stat(pid) else { return false };
        if stat.thread_count <= 1 || self.waiting.len() >= LEADERLESS_MAX {
            return false;
        }
        self.waiting.insert(pid, (stat.start_time, status));
        true
    }

    /// Those that have ended since. All that is left of them is the first thread, until its parent takes note.
    fn ended(&mut self, procfs: &Procfs) -> Vec<Observation> {
        let at = if self.waiting.is_empty() { BootNanos(0) } else { Now::read().boot };
        let runs_on = |pid: u32, start_time: BootNanos| match procfs.stat(pid) {
            // One whose other thread has replaced the program has a first thread again, which that one is now.
            Ok(stat) => stat.start_time == start_time && (stat.thread_count > 1 || !stat.has_ended()),
            Err(ReadError::Gone) => false,
            // That says nothing of the process.
            Err(ReadError::Unreadable { .. }) => true,
        };
        let mut ended = Vec::new();
        self.waiting.retain(|&pid, &mut (start_time, status)| {
            let runs_on = runs_on(pid, start_time);
            if !runs_on {
                ended.push(Observation::ProcessExited { at, pid, start_time: Some(start_time), status });
            }
            runs_on
        });
        ended
    }
}

fn subscription() -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADERS_LEN + 4);
    let length = 40_u32;
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&NLMSG_DONE.to_ne_bytes());
    message.extend_from_slice(&[0; 10]);
    message.extend_from_slice(&CN_IDX_PROC.to_ne_bytes());
    message.extend_from_slice(&CN_VAL_PROC.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&4_u16.to_ne_bytes());
    message.extend_from_slice(&[0; 2]);
    message.extend_from_slice(&PROC_CN_MCAST_LISTEN.to_ne_bytes());
    message
}

/// The event in a datagram, if it is of a process and not of one of its threads.
pub fn event(datagram: &[u8]) -> Option<Event> {
    let event = datagram.get(HEADERS_LEN..)?;
    let word = |index: usize| Some(u32::from_ne_bytes(event.get(index * 4..index * 4 + 4)?.try_into().ok()?));
    // what, cpu, time (8 bytes), then the event's own fields.
    match word(0)? {
        PROC_EVENT_FORK => {
            let (parent_tgid, child_pid, child_tgid) = (word(5)?, word(6)?, word(7)?);
            (child_pid == child_tgid).then_some(Event::Fork { parent: parent_tgid, child: child_tgid })
        }
        PROC_EVENT_EXEC => Some(Event::Exec { pid: word(5)? }),
        PROC_EVENT_EXIT => {
            let (pid, tgid, code) = (word(4)?, word(5)?, word(6)?);
            (pid == tgid).then_some(Event::Exit { pid: tgid, status: code.cast_signed() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(words: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; HEADERS_LEN];
        bytes.extend(words.iter().flat_map(|it| it.to_ne_bytes()));
        bytes
    }

    #[test]
    fn processes_are_told_and_threads_are_not() {
        assert_eq!(event(&datagram(&[PROC_EVENT_FORK, 0, 0, 0, 11, 10, 20, 20])), Some(Event::Fork { parent: 10, child: 20 }));
        assert_eq!(event(&datagram(&[PROC_EVENT_FORK, 0, 0, 0, 10, 10, 21, 20])), None);
        assert_eq!(event(&datagram(&[PROC_EVENT_EXEC, 0, 0, 0, 20, 20])), Some(Event::Exec { pid: 20 }));
        assert_eq!(event(&datagram(&[PROC_EVENT_EXIT, 0, 0, 0, 20, 20, 256, 17])), Some(Event::Exit { pid: 20, status: 256 }));
        assert_eq!(event(&datagram(&[PROC_EVENT_EXIT, 0, 0, 0, 21, 20, 0, 17])), None);
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_runs_on_until_the_others_have() {
        let root = tempfile::tempdir().unwrap();
        let stat = root.path().join("20/stat");
        std::fs::create_dir_all(stat.parent().unwrap()).unwrap();
        let procfs = Procfs::new(root.path(), crate::procfs::Arguments::Show);
        let write = |state: &str, threads: u32, start: u32| {
            let line = format!("20 (a) {state} 1 20 20 0 -1 4194304 100 0 0 0 7 3 0 0 20 0 {threads} 0 {start} 1000000 250 0");
            std::fs::write(&stat, line).unwrap();
        };
        let mut leaderless = Leaderless::default();
        let exit = Event::Exit { pid: 20, status: 7 };
        write("S", 1, 500);
        assert!(exit.observe(&procfs, &mut leaderless).is_some(), "it was the only one");
        write("Z", 3, 500);
        assert_eq!(exit.observe(&procfs, &mut leaderless), None);
        assert!(leaderless.ended(&procfs).is_empty());
        write("Z", 1, 500);
        let ended = leaderless.ended(&procfs);
        assert!(matches!(ended[..], [Observation::ProcessExited { pid: 20, status: 7, start_time: Some(_), .. }]), "{ended:?}");
        assert!(leaderless.ended(&procfs).is_empty());
        // Another process has the pid by now.
        write("Z", 3, 500);
        assert_eq!(exit.observe(&procfs, &mut leaderless), None);
        write("S", 2, 900);
        assert_eq!(leaderless.ended(&procfs).len(), 1);
    }

    #[test]
    fn a_short_or_foreign_datagram_is_no_event() {
        for length in 0..HEADERS_LEN + 28 {
            assert_eq!(event(&datagram(&[PROC_EVENT_FORK, 0, 0, 0, 10, 10, 20, 20])[..length]), None);
        }
        assert_eq!(event(&datagram(&[0, 0, 0, 0])), None);
    }
}
