//! Sockets that are older than the programs: their owner is written by user space, through a copy of their descriptor.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use probe_common::{Owner, PROTOCOL_MPTCP, flag};

use super::place::own_pid;
use super::sys;
use crate::sockets::cookie;

/// A socket that was there before the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// A process that holds it: thread group id as `/proc` shows it.
    pub pid: u32,
    /// The descriptor in that process.
    pub fd: i32,
    /// What it is.
    pub role: SeedRole,
}

/// What a socket was when it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedRole {
    /// It listens: what it accepts from now on has an owner. The finder announces it; the capture tells its end.
    Listener,
    /// The same, for a UDP socket.
    DatagramListener,
    /// It is connected, opened by its holder. The finder announces it and counts it as opened; the capture counts its bytes from now on and its
    /// end. It is noticed missing by a sweep.
    ConnectedClient,
    /// It is connected, accepted by its holder. As above.
    ConnectedServer,
}

impl SeedRole {
    fn is_listener(self) -> bool {
        matches!(self, SeedRole::Listener | SeedRole::DatagramListener)
    }
}

/// What became of the seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    /// Written.
    pub written: usize,
    /// Not written, because the programs know it: they count it since it was opened; or because that would serve nothing.
    pub known: usize,
    /// Gone in the meantime, or not the probe's to read.
    pub failed: usize,
}

/// Writes owners into sockets. May be used from any thread.
#[derive(Clone, Debug)]
pub struct Seeder {
    owners: Arc<OwnedFd>,
    cgroup_root: Option<PathBuf>,
    /// Processes can be opened by the pids that the kernel tells.
    pids_are_ours: bool,
}

impl Seeder {
    /// `owners` is the descriptor of the map of owners.
    pub(super) fn new(owners: OwnedFd, cgroup_root: Option<PathBuf>, proc_root: &Path) -> Self {
        let pids_are_ours = own_pid(proc_root) == std::process::id();
        let owners = Arc::new(owners);
        // The map stays as long as somebody may ask; that costs an entry per socket of ours and no program.
        let noted = Arc::clone(&owners);
        cookie::ask_programs(move |socket| {
            sys::lookup::<i32, Owner>(noted.as_fd(), &socket.as_raw_fd()).ok().flatten().map(|owner| owner.netns)
        });
        Seeder { owners, cgroup_root, pids_are_ours }
    }

    /// Writes the owners of sockets. A socket that several processes hold belongs to the first that is named.
    pub fn seed(&self, seeds: impl IntoIterator<Item = Seed>) -> Seeded {
        let mut seeded = Seeded::default();
        let mut namespaces = BTreeMap::new();
        for seed in seeds {
            match self.write(seed, &mut namespaces) {
                Ok(true) => seeded.written += 1,
                Ok(false) => seeded.known += 1,
                Err(error) => {
                    seeded.failed += 1;
                    tracing::debug!(pid = seed.pid, fd = seed.fd, %error, "socket not seeded");
                }
            }
        }
        seeded
    }

    /// Whether the socket was written; otherwise the programs know it.
    fn write(&self, seed: Seed, namespaces: &mut BTreeMap<u64, u64>) -> io::Result<bool> {
        // In another pid namespace this pid is some other process.
        if !self.pids_are_ours {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let socket = copy_descriptor(seed)?;
        // What it accepts comes from the socket behind it, to which no descriptor leads.
        if socket_option::<u32>(&socket, libc::SOL_SOCKET, libc::SO_PROTOCOL).is_ok_and(|protocol| protocol == u32::from(PROTOCOL_MPTCP)) {
            return Ok(false);
        }
        // The programs tell of its end by this number, which a socket has once it was asked for.
        let _ = socket_option::<u64>(&socket, libc::SOL_SOCKET, libc::SO_COOKIE);
        let existing = sys::lookup::<i32, Owner>(self.owners.as_fd(), &socket.as_raw_fd())?;
        if let Some(owner) = existing
            && seed.role.is_listener()
        {
            // It was bound, and perhaps began to listen, while the programs were being attached.
            if owner.flags & flag::LISTENING == 0 {
                sys::update(self.owners.as_fd(), &socket.as_raw_fd(), &Owner { flags: owner.flags | flag::LISTENING, ..owner })?;
            }
            return Ok(false);
        }
        // A socket that was connected while the programs were being attached has an owner and was not counted.
        let counted = flag::OPENED | flag::FOUND_OPEN;
        if existing.is_some_and(|owner| owner.flags & counted != 0) {
            return Ok(false);
        }
        let flags = flag::SEEDED
            | match seed.role {
                SeedRole::Listener => flag::BOUND | flag::LISTENING,
                SeedRole::DatagramListener => flag::BOUND | flag::LISTENING | flag::CHOSE_PORT,
                SeedRole::ConnectedClient => flag::CLIENT | flag::FOUND_OPEN,
                SeedRole::ConnectedServer => flag::ACCEPTED | flag::FOUND_OPEN,
            };
        let mut owner = Owner {
            cgroup_id: self.cgroup_of(seed.pid),
            netns: namespace_of(&socket, namespaces).unwrap_or(0),
            start_ns: start_of(seed.pid)?,
            tgid: seed.pid,
            flags,
            ..Owner::default()
        };
        if !seed.role.is_listener() {
            let counted = counted_bytes(&socket, seed.role)?;
            (owner.counted_sent, owner.counted_received, owner.counted_retransmits) = counted;
        }
        sys::update(self.owners.as_fd(), &socket.as_raw_fd(), &owner)?;
        Ok(true)
    }

    /// cgroup v2 id of a process: the inode number of its directory; 0 when it cannot be told.
    fn cgroup_of(&self, pid: u32) -> u64 {
        let Some(root) = &self.cgroup_root else { return 0 };
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return 0 };
        let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::/")) else { return 0 };
        std::fs::metadata(root.join(path)).map_or(0, |metadata| metadata.ino())
    }
}

const TICK_NANOS: u64 = 10_000_000;

/// Cookie of the namespace of a socket. `known` is what was found out a moment ago, by inode.
fn namespace_of(socket: &OwnedFd, known: &mut BTreeMap<u64, u64>) -> io::Result<u64> {
    match cookie::asked_of_kernel(socket) {
        Err(nix::errno::Errno::ENOPROTOOPT) => {}
        told => return Ok(told?),
    }
    let namespace = sys::namespace_of_socket(socket.as_fd())?;
    let inode = namespace.metadata()?.ino();
    if let Some(cookie) = known.get(&inode) {
        return Ok(*cookie);
    }
    let cookie = cookie::noted_in(&namespace)?;
    known.insert(inode, cookie);
    Ok(cookie)
}

fn copy_descriptor(seed: Seed) -> io::Result<OwnedFd> {
    let own = |result: libc::c_long| {
        let fd = i32::try_from(result).unwrap_or(-1);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    // SAFETY: takes numbers alone.
    let process = own(unsafe { libc::syscall(libc::SYS_pidfd_open, seed.pid, 0) })?;
    // SAFETY: takes numbers alone.
    own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), seed.fd, 0) })
}

/// Start of a process, from field 22 of its `stat`.
fn start_of(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, field 2, is in parentheses and may hold anything; field 3 begins after the last one.
    stat.rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(19))
        .and_then(|ticks| ticks.parse::<u64>().ok())
        .map(|ticks| ticks * TICK_NANOS)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time in /proc/<pid>/stat"))
}

/// Bytes sent and received and segments sent again, as the programs count them.
fn counted_bytes(socket: &OwnedFd, role: SeedRole) -> io::Result<(u64, u64, u64)> {
    /// Positions in `struct tcp_info`.
    const TOTAL_RETRANS: usize = 100;
    const BYTES_ACKED: usize = 120;
    const BYTES_RECEIVED: usize = 128;
    let info = socket_option::<[u8; 136]>(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    let number = |at: usize| decode_number(&info, at);
    let opened_here = role == SeedRole::ConnectedClient;
    // A 32-bit number.
    let retransmits = number(TOTAL_RETRANS) & u64::from(u32::MAX);
    // The opening side's SYN is among the acknowledged bytes.
    Ok((number(BYTES_ACKED).saturating_sub(u64::from(opened_here)), number(BYTES_RECEIVED), retransmits))
}

fn decode_number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn socket_option<T: aya::Pod>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes into `value`.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain data; what the kernel did not write is zero.
    Ok(unsafe { value.assume_init() })
}
