//! Socket tables of the kernel, by `sock_diag`, in every network namespace of the node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::sched::CloneFlags;

use crate::flows::FIRST_PROCESS;
use crate::observation::{BootNanos, Counted, Direction, FlowEnd, Protocol};
use crate::procfs::Procfs;

pub(crate) mod cookie;
mod diag;

pub(crate) use cookie::namespace_cookie;
pub use diag::{SocketRecord, States};

/// Most sockets that are taken from one dump. A table larger than this is not walked by polling.
const DUMP_MAX: usize = 262_144;

/// The sockets in one datagram of a dump.
///
/// # Errors
/// When it is not understood, or says that the kernel refuses.
pub fn sockets_in(datagram: &[u8], protocol: Protocol) -> io::Result<Vec<SocketRecord>> {
    let mut sockets = Vec::new();
    diag::parse(datagram, protocol, &mut sockets)?;
    Ok(sockets)
}

/// A network namespace of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Inode of the namespace.
    pub inode: u64,
    /// Some of the processes that are in it: the first may end before it is entered.
    pub pids: Vec<u32>,
}

/// Processes that are remembered for a namespace.
const NAMESPACE_PIDS_MAX: usize = 4;

/// Sockets of one namespace.
#[derive(Debug, Default)]
pub struct SocketTable {
    /// Inode of the namespace.
    pub inode: u64,
    /// Cookie of the namespace; 0 when the kernel has none.
    pub cookie: u64,
    /// Its sockets of the protocols that were asked for.
    pub sockets: Vec<SocketRecord>,
    /// The namespace is there, but its sockets could not be read: nothing is known of them.
    pub unread: bool,
    /// There was no time for it.
    pub late: bool,
}

/// Every network namespace that a process is in.
pub fn namespaces(procfs: &Procfs, pids: &[u32]) -> Vec<Namespace> {
    group(pids.iter().filter_map(|&pid| Some((procfs.network_namespace(pid)?, pid))))
}

/// Namespaces with their processes, from pairs of both.
pub(crate) fn group(pairs: impl Iterator<Item = (u64, u32)>) -> Vec<Namespace> {
    let mut found: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for (inode, pid) in pairs {
        let pids = found.entry(inode).or_default();
        if pids.len() < NAMESPACE_PIDS_MAX {
            pids.push(pid);
        }
    }
    found.into_iter().map(|(inode, pids)| Namespace { inode, pids }).collect()
}

/// How long one round over the namespaces may take: with thousands of them a round has no time for all.
pub const ROUND_MAX: Duration = Duration::from_millis(500);

/// Reads the sockets of `namespaces`, round by round.
#[derive(Debug, Default)]
pub struct Rounds {
    /// Inode of the namespace that was read last.
    last: u64,
}

impl Rounds {
    /// One round: as many namespaces as `budget` has time for, beginning behind those of the round before. The others have unread tables, and so
    /// has one that cannot be entered or read. Our own is read in every round.
    ///
    /// Blocks; enters the namespaces on a thread of its own that ends with the call, so that no other thread is ever in a foreign namespace.
    ///
    /// # Errors
    /// When there is no such thread.
    pub fn dump(&mut self, procfs: &Procfs, namespaces: &[Namespace], states: States, budget: Duration) -> io::Result<Vec<SocketTable>> {
        let tables = self.all(procfs, namespaces, states, budget)?;
        Ok(self.ended(tables))
    }

    /// The UDP sockets that take datagrams from anybody: servers, and clients that have not connected their socket. One round, as of
    /// [`Rounds::dump`].
    ///
    /// # Errors
    /// As there.
    pub fn dump_datagram(&mut self, procfs: &Procfs, namespaces: &[Namespace], budget: Duration) -> io::Result<Vec<SocketTable>> {
        let tables = dump(procfs, self.turn(namespaces), &[Protocol::Udp], States::UNCONNECTED, budget)?;
        Ok(self.ended(tables))
    }

    /// Those that were read first. The next round begins behind them, if there are others.
    fn ended(&mut self, tables: Vec<SocketTable>) -> Vec<SocketTable> {
        let (read, unread): (Vec<_>, Vec<_>) = tables.into_iter().partition(|it| !it.late);
        if !unread.is_empty() {
            tracing::debug!(read = read.len(), unread = unread.len(), "no time for all network namespaces in this round");
            self.last = read.last().map_or(self.last, |table| table.inode);
        }
        read.into_iter().chain(unread).collect()
    }

    /// TCP and UDP sockets that tell who listens or who talks with whom.
    fn all(&self, procfs: &Procfs, namespaces: &[Namespace], states: States, budget: Duration) -> io::Result<Vec<SocketTable>> {
        let mut tables = dump(procfs, self.turn(namespaces), &[Protocol::Tcp, Protocol::Udp], states, budget)?;
        let ephemeral = ephemeral_ports();
        tables.iter_mut().for_each(|table| table.sockets.retain(|socket| socket.is_telling(&ephemeral)));
        Ok(tables)
    }

    /// Namespaces in the order of this round.
    fn turn<'a>(&self, namespaces: &'a [Namespace]) -> impl Iterator<Item = &'a Namespace> + Clone + Send + use<'a> {
        let last = self.last;
        let (ahead, behind) = (namespaces.iter(), namespaces.iter());
        ahead.filter(move |it| it.inode > last).chain(behind.filter(move |it| it.inode <= last))
    }
}

fn dump<'a>(
    procfs: &Procfs,
    namespaces: impl Iterator<Item = &'a Namespace> + Clone + Send,
    protocols: &[Protocol],
    states: States,
    budget: Duration,
) -> io::Result<Vec<SocketTable>> {
    let end = Instant::now() + budget;
    let own = own_namespace();
    std::thread::scope(|scope| {
        let walk = std::thread::Builder::new().name("sock-diag".to_owned()).spawn_scoped(scope, || {
            let mut tables = Vec::new();
            // First where we are, before the thread goes anywhere else.
            for namespace in namespaces.clone().filter(|it| Some(it.inode) == own) {
                tables.push(table(namespace, dump_here(protocols, states)));
            }
            for namespace in namespaces.filter(|it| Some(it.inode) != own) {
                if Instant::now() < end {
                    tables.push(table(namespace, enter(procfs, namespace).and_then(|()| dump_here(protocols, states))));
                } else {
                    tables.push(SocketTable { inode: namespace.inode, unread: true, late: true, ..SocketTable::default() });
                }
            }
            tables
        })?;
        walk.join().map_err(|_| io::Error::other("the thread that walks socket tables panicked"))
    })
}

/// Inode of the namespace that this process is in.
pub(crate) fn own_namespace() -> Option<u64> {
    let link = std::fs::read_link("/proc/self/ns/net").ok()?;
    crate::procfs::parse::link_inode(link.to_str()?, "net")
}

fn table(namespace: &Namespace, read: io::Result<SocketTable>) -> SocketTable {
    match read {
        // Where nobody tells the cookie, the inode tells namespaces apart.
        Ok(table) if table.cookie == 0 => SocketTable { inode: namespace.inode, cookie: namespace.inode, ..table },
        Ok(table) => SocketTable { inode: namespace.inode, ..table },
        Err(err) => {
            tracing::debug!(namespace = namespace.inode, error = %err, "socket table cannot be read");
            SocketTable { inode: namespace.inode, unread: true, ..SocketTable::default() }
        }
    }
}

/// Takes the calling thread into a namespace, for good.
pub(crate) fn enter(procfs: &Procfs, namespace: &Namespace) -> io::Result<()> {
    let mut result = Err(io::Error::from_raw_os_error(libc::ESRCH));
    for pid in &namespace.pids {
        result = File::open(procfs.root().join(pid.to_string()).join("ns/net"));
        if let Ok(file) = &result {
            nix::sched::setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            break;
        }
    }
    result.map(drop)
}

fn dump_here(protocols: &[Protocol], states: States) -> io::Result<SocketTable> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut table = SocketTable { cookie: namespace_cookie(&socket).unwrap_or(0), ..SocketTable::default() };
    let mut buffer = Vec::with_capacity(32 * 1024);
    for &protocol in protocols {
        for family in [libc::AF_INET, libc::AF_INET6] {
            match dump_one(&mut socket, &mut buffer, family, protocol, states, &mut table.sockets) {
                // A kernel without the part for UDP (CONFIG_INET_UDP_DIAG).
                Err(error) if protocol == Protocol::Udp && error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
    }
    Ok(table)
}

fn dump_one(
    socket: &mut Socket,
    buffer: &mut Vec<u8>,
    family: i32,
    protocol: Protocol,
    states: States,
    sockets: &mut Vec<SocketRecord>,
) -> io::Result<()> {
    socket.send(&diag::request(family, protocol, states), 0)?;
    loop {
        buffer.clear();
        socket.recv(buffer, 0)?;
        if diag::parse(buffer, protocol, sockets)? == diag::Progress::Done {
            return Ok(());
        }
        if sockets.len() > DUMP_MAX {
            return Err(io::Error::other("more sockets than can be looked at"));
        }
    }
}

/// Ports that the kernel gives to sockets that want any. A network namespace may have others; nearly none does.
pub fn ephemeral_ports() -> RangeInclusive<u16> {
    const BUILT_IN: RangeInclusive<u16> = 32_768..=60_999;
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().map_while(|it| it.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if first <= last => first..=last,
        _ => BUILT_IN,
    }
}

/// Which process has a socket, by inode.
#[derive(Debug, Default)]
pub struct SocketHolders {
    by_inode: HashMap<u64, (u32, i32)>,
    /// What is known of a holder without asking `/proc`.
    owners: HashMap<u64, SocketOwner>,
}

impl SocketHolders {
    /// Looks through the descriptors of all `pids`.
    pub fn scan(procfs: &Procfs, pids: &[u32]) -> Self {
        let mut by_inode = HashMap::new();
        for &pid in pids {
            for (descriptor, inode) in procfs.sockets(pid) {
                // A socket that was inherited belongs to the oldest process that has it, which is the one that made it. But the first process of
                // the machine opens sockets for its services, and keeps them.
                let holder = by_inode.entry(inode).or_insert((pid, descriptor));
                if holder.0 == FIRST_PROCESS {
                    *holder = (pid, descriptor);
                }
            }
        }
        SocketHolders { by_inode, owners: HashMap::new() }
    }

    /// A holder that was found with all that is to be known of it. The oldest has a socket, whatever the order; the first process of the machine
    /// has those alone that nobody else has.
    pub fn found(&mut self, inode: u64, descriptor: i32, owner: SocketOwner) {
        let rank = |owner: &SocketOwner| (owner.pid == FIRST_PROCESS, owner.start_time, owner.pid);
        if self.owners.get(&inode).is_none_or(|known| rank(known) > rank(&owner)) {
            self.by_inode.insert(inode, (owner.pid, descriptor));
            self.owners.insert(inode, owner);
        }
    }

    /// Pid and descriptor of a holder.
    pub fn get(&self, inode: u64) -> Option<(u32, i32)> {
        self.by_inode.get(&inode).copied()
    }

    /// The holder of a socket, as far as `/proc` tells.
    pub fn owner(&self, procfs: &Procfs, unified: Option<&Path>, socket: &SocketRecord) -> SocketOwner {
        if let Some(owner) = self.owners.get(&socket.inode) {
            return *owner;
        }
        let Some((pid, _)) = self.get(socket.inode) else { return SocketOwner::default() };
        let cgroup_id = unified.map_or(0, |root| cgroup_id(procfs, root, pid));
        SocketOwner { pid, start_time: procfs.start_time(pid), cgroup_id }
    }

    /// Adds what another scan found.
    pub fn extend(&mut self, other: SocketHolders) {
        self.by_inode.extend(other.by_inode);
        self.owners.extend(other.owners);
    }

    /// Forgets sockets that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.by_inode.retain(|inode, _| keep(*inode));
        self.owners.retain(|inode, _| keep(*inode));
    }
}

/// cgroup v2 id of a process: the inode of its directory in the hierarchy mounted at `root`.
fn cgroup_id(procfs: &Procfs, root: &Path, pid: u32) -> u64 {
    let Ok(cgroups) = procfs.cgroups(pid) else { return 0 };
    let Some((_, path)) = cgroups.iter().find(|(controllers, _)| controllers.is_empty()) else { return 0 };
    std::fs::metadata(root.join(path.trim_start_matches('/'))).map_or(0, |metadata| metadata.ino())
}

/// Addresses that a namespace's listeners accept on: they tell which end of a connection is the server.
#[derive(Debug, Default)]
pub struct Listeners {
    exact: BTreeSet<(Protocol, (IpAddr, u16))>,
    any: BTreeSet<(Protocol, u16)>,
}

impl Listeners {
    /// Collects the listeners of a table.
    pub fn of(table: &SocketTable) -> Self {
        let mut listeners = Listeners::default();
        for socket in table.sockets.iter().filter(|it| it.is_listener()) {
            if socket.local.0.is_unspecified() {
                listeners.any.insert((socket.protocol, socket.local.1));
            } else {
                listeners.exact.insert((socket.protocol, socket.local));
            }
        }
        listeners
    }

    fn accepts_on(&self, protocol: Protocol, local: (IpAddr, u16)) -> bool {
        self.any.contains(&(protocol, local.1)) || self.exact.contains(&(protocol, local))
    }

    /// Which end of a connection `socket` is. Of two listeners' ports the lower one is the service's. Without a listener on this side it is a client's
    /// end: a service that has ended its listener and not its connections is rare, and known by the ports, of which the client's alone is one that
    /// the kernel gives away (`ephemeral`).
    pub fn direction(&self, socket: &SocketRecord, ephemeral: &RangeInclusive<u16>) -> Direction {
        let local = self.accepts_on(socket.protocol, socket.local);
        let remote = self.accepts_on(socket.protocol, socket.remote);
        match (local, remote) {
            (true, false) => Direction::Server,
            (false, true) => Direction::Client,
            (true, true) if socket.local.1 < socket.remote.1 => Direction::Server,
            (false, false) if !ephemeral.contains(&socket.local.1) && ephemeral.contains(&socket.remote.1) => Direction::Server,
            _ => Direction::Client,
        }
    }
}

/// Who holds a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOwner {
    /// Its pid; 0 when unknown.
    pub pid: u32,
    /// Its start, cut to the tick.
    pub start_time: Option<BootNanos>,
    /// Its cgroup v2 id; 0 when unknown.
    pub cgroup_id: u64,
}

/// The end that a connected socket is, and the client's port.
pub fn flow_end(socket: &SocketRecord, direction: Direction, owner: SocketOwner, network_namespace: u64) -> (FlowEnd, u16) {
    let (client, server) = match direction {
        Direction::Client => (socket.local, socket.remote),
        Direction::Server => (socket.remote, socket.local),
    };
    let end = FlowEnd {
        pid: owner.pid,
        start_time: owner.start_time,
        cgroup_id: owner.cgroup_id,
        network_namespace,
        direction,
        protocol: socket.protocol,
        client_address: client.0,
        server_address: server.0,
        server_port: server.1,
    };
    (end, client.1)
}

/// Payload bytes and round-trip time of a connection, as this end has them.
pub fn counted(socket: &SocketRecord, direction: Direction) -> Counted {
    // The opener's SYN is acknowledged like a byte.
    let syn = u64::from(direction == Direction::Client);
    Counted {
        bytes_sent: socket.bytes_acked.saturating_sub(syn),
        bytes_received: socket.bytes_received,
        retransmits: socket.retransmits.into(),
        rtt_us_sum: socket.rtt_us.into(),
        rtt_count: u64::from(socket.rtt_us > 0),
        rtt_us_max: socket.rtt_us,
        ..Counted::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_has_its_turn() {
        let namespaces: Vec<_> = (1..=5).map(|inode| Namespace { inode, pids: Vec::new() }).collect();
        let order = |last| Rounds { last }.turn(&namespaces).map(|it| it.inode).collect::<Vec<_>>();
        assert_eq!(order(0), [1, 2, 3, 4, 5]);
        assert_eq!(order(2), [3, 4, 5, 1, 2]);
        assert_eq!(order(9), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_first_process_has_what_nobody_else_has() {
        let owner = |pid, ms: u64| SocketOwner { pid, start_time: Some(BootNanos(ms)), cgroup_id: 0 };
        let mut holders = SocketHolders::default();
        for (inode, owner) in
            [(7, owner(1, 0)), (7, owner(30, 9)), (7, owner(20, 5)), (8, owner(20, 5)), (8, owner(1, 0)), (9, owner(1, 0))]
        {
            holders.found(inode, 3, owner);
        }
        let pid = |inode| holders.get(inode).map(|(pid, _)| pid);
        assert_eq!([pid(7), pid(8), pid(9)], [Some(20), Some(20), Some(1)]);
    }
}
