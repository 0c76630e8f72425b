//! A look at the processes and sockets that are there, through the kernel's iterators.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use aya::Ebpf;
use probe_common::{CountedSocket, FoundSocket, FoundTask, ListenerRecord};

use super::load::{CENSUS, LISTENING, bind_over_sockets};
use super::takeover::{self, CountedSockets};
use super::{decode, sys};
use crate::clock::Now;
use crate::observation::{BootNanos, FlowEnd, Observation, ProcessStarted};
use crate::snapshot::Sockets;
use crate::sockets::cookie;
use crate::sockets::{SocketOwner, SocketRecord, SocketTable, States, ephemeral_ports};

/// Name of the program over all tasks.
pub(super) const TASKS: &str = "tasks";
/// Name of the program over all descriptors.
pub(super) const FILES: &str = "files";

/// Most sockets that are taken from one look. A machine with more is not walked by looking.
const SOCKETS_MAX: usize = 262_144;
/// Most processes: as many as the process table has room for, and more than it needs to know that.
const TASKS_MAX: usize = 65_536;
/// Holders of sockets through which a namespace is looked for: the first may be gone.
const HOLDERS_TRIED: usize = 4;

/// Looks through iterators, where the kernel took them. Cheap to clone; may be used from any thread.
#[derive(Clone, Debug, Default)]
pub struct Looker {
    files: Option<Arc<OwnedFd>>,
    tasks: Option<Arc<OwnedFd>>,
    census: Option<Arc<OwnedFd>>,
    listening: Option<Arc<OwnedFd>>,
}

impl Looker {
    /// Binds the programs that were loaded.
    pub(super) fn bind(object: &Ebpf, owners: BorrowedFd<'_>) -> Self {
        let bind = |name: &str| {
            let link = sys::link_iterator(object.program(name)?.fd().ok()?.as_fd());
            link.inspect_err(|error| tracing::warn!(name, %error, "iterator cannot be bound")).ok().map(Arc::new)
        };
        let over_owners = |name: &str| {
            let link = bind_over_sockets(object, name, owners)?;
            link.inspect_err(|error| tracing::warn!(name, %error, "iterator cannot be bound")).ok().map(Arc::new)
        };
        Looker { files: bind(FILES), tasks: bind(TASKS), census: over_owners(CENSUS), listening: over_owners(LISTENING) }
    }

    /// The open connections that the programs have counted. `None` when the kernel has no way for it.
    ///
    /// # Errors
    /// When the walk fails.
    pub fn counted(&self) -> Option<io::Result<CountedSockets>> {
        let link = self.census.as_ref()?;
        Some(takeover::records(link.as_fd()).map(|sockets| sockets.iter().collect()))
    }

    /// How many of them each flow has. `None` as above.
    ///
    /// # Errors
    /// As above, and when there are more than can be looked at.
    pub fn open_ends(&self) -> Option<io::Result<HashMap<FlowEnd, u64>>> {
        let link = self.census.as_ref()?;
        Some(takeover::records::<CountedSocket>(link.as_fd()).and_then(|sockets| {
            if sockets.len() >= takeover::COUNTED_MAX {
                return Err(io::Error::other("more connections are open than can be looked at"));
            }
            let mut seen = HashSet::new();
            let mut ends = HashMap::new();
            // Told once for each descriptor that leads there.
            for socket in sockets.iter().filter(|it| seen.insert(it.socket)) {
                *ends.entry(decode::flow_end(&socket.key)).or_default() += 1;
            }
            Ok(ends)
        }))
    }

    /// The sockets that the programs have told, or would have told, as listeners. `None` as above.
    ///
    /// # Errors
    /// When the walk fails, or there are more than can be looked at.
    pub fn listeners(&self) -> Option<io::Result<Vec<Observation>>> {
        let link = self.listening.as_ref()?;
        let at = Now::read().boot;
        Some(takeover::records::<ListenerRecord>(link.as_fd()).and_then(|listeners| {
            if listeners.len() >= takeover::COUNTED_MAX {
                return Err(io::Error::other("more sockets listen than can be looked at"));
            }
            let mut seen = HashSet::new();
            Ok(listeners.iter().filter(|it| seen.insert(it.cookie)).map(|it| decode::listener(at, it)).collect())
        }))
    }

    /// Every TCP and UDP socket that a process has open and that tells who listens or who talks with whom, in all network namespaces, with its holder. `None` when the kernel has no way for it.
    ///
    /// # Errors
    /// When the walk fails, or there are more than can be looked at.
    pub fn sockets(&self) -> Option<io::Result<Sockets>> {
        let link = self.files.as_ref()?;
        Some(sys::open_iterator(link.as_fd()).and_then(read_sockets))
    }

    /// Every process that lives. `None` as above.
    ///
    /// # Errors
    /// As above.
    pub fn processes(&self) -> Option<io::Result<Vec<ProcessStarted>>> {
        let link = self.tasks.as_ref()?;
        Some(sys::open_iterator(link.as_fd()).and_then(read_processes))
    }
}

fn read_sockets(file: impl Read) -> io::Result<Sockets> {
    let mut sockets = Sockets { at: Now::read().boot, ..Sockets::default() };
    let ephemeral = ephemeral_ports();
    let mut tables: BTreeMap<u64, SocketTable> = BTreeMap::new();
    each(file, SOCKETS_MAX, |found: FoundSocket| {
        let record = record(&found);
        if !States::ALL.contain(record.protocol, record.state) || !record.is_telling(&ephemeral) {
            return;
        }
        let inode = u64::from(found.netns_inode);
        let table = tables.entry(inode).or_insert_with(|| SocketTable { inode, cookie: found.netns, ..SocketTable::default() });
        if sockets.holders.get(found.inode).is_none() {
            table.sockets.push(record);
        }
        let owner = SocketOwner { pid: found.tgid, start_time: decode::start_time(found.start_ns), cgroup_id: found.cgroup_id };
        sockets.holders.found(found.inode, found.fd.cast_signed(), owner);
    })?;
    sockets.tables = tables.into_values().collect();
    name_namespaces(&mut sockets);
    Ok(sockets)
}

/// Finds out the cookies of namespaces that have none: before Linux 5.12 they get one when a program first asks.
fn name_namespaces(sockets: &mut Sockets) {
    for table in sockets.tables.iter_mut().filter(|table| table.cookie == 0) {
        let holders = table.sockets.iter().filter_map(|socket| sockets.holders.get(socket.inode)).take(HOLDERS_TRIED);
        let opened = holders.filter_map(|(pid, _)| std::fs::File::open(format!("/proc/{pid}/ns/net")).ok());
        let own = opened.filter(|file| file.metadata().is_ok_and(|metadata| metadata.ino() == table.inode));
        match own.map(|file| cookie::noted_in(&file)).next() {
            Some(Ok(cookie)) => table.cookie = cookie,
            Some(Err(error)) => tracing::debug!(namespace = table.inode, %error, "network namespace has no cookie"),
            None => {}
        }
    }
}

fn record(found: &FoundSocket) -> SocketRecord {
    let record = SocketRecord {
        protocol: decode::protocol(found.protocol),
        state: found.state,
        local: (decode::address(found.local), found.local_port),
        remote: (decode::address(found.remote), found.remote_port),
        inode: found.inode,
        cookie: found.cookie,
        address: found.socket,
        cgroup_id: 0,
        bytes_acked: found.bytes_acked,
        bytes_received: found.bytes_received,
        retransmits: found.retransmits,
        rtt_us: found.rtt_us,
    };
    // A connection has a cookie only when somebody has asked for it, and may get one between two looks. The inode is as good a number.
    if record.is_listener() { record } else { SocketRecord { cookie: found.inode, ..record } }
}

fn read_processes(file: impl Read) -> io::Result<Vec<ProcessStarted>> {
    let at = Now::read().boot;
    let mut processes = Vec::new();
    each(file, TASKS_MAX, |found: FoundTask| processes.push(process(at, &found)))?;
    Ok(processes)
}

fn process(at: BootNanos, found: &FoundTask) -> ProcessStarted {
    ProcessStarted {
        at,
        pid: found.tgid,
        parent_pid: found.parent_tgid,
        start_time: decode::start_time(found.start_ns),
        comm: decode::text(&found.comm),
        cgroup_id: found.cgroup_id,
        user_id: found.user_id,
    }
}

/// Reads records from a walk, which runs as it is read. Holds a buffer and no more.
fn each<T: aya::Pod>(mut file: impl Read, most: usize, mut each: impl FnMut(T)) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let (mut filled, mut records) = (0, 0);
    loop {
        let read = match file.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        filled += read;
        let whole = filled - filled % size_of::<T>();
        for record in buffer[..whole].chunks_exact(size_of::<T>()).filter_map(decode::read::<T>) {
            records += 1;
            if records > most {
                return Err(io::Error::other(format!("more than {most} are there")));
            }
            each(record);
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

#[cfg(test)]
mod tests;
