//! Connections over Unix sockets, by looking: `sock_diag` tells which sockets of the node are connected, and descriptors in `/proc` who has them. Only on request.
//!
//! Such a connection has no addresses that could be seen on the way. What it has is a name at one end, which the kernel tells together with the inode of the other
//! end. A connection that opens and closes between two looks leaves no trace.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::budget::Pace;
use crate::clock::thread_cpu;
use crate::driver::Input;
use crate::procfs::{Procfs, parse};
use crate::sockets;
use crate::unix::connections::{Connection, Namespace, connections};
use crate::unix::holders::Holders;
use crate::unix::message::{Progress, UnixSocket};
use crate::unix_flows::{UnixFlowKey, UnixLook};

pub mod connections;
pub mod holders;
pub mod message;

/// The blind spot that is told here.
const CAUSE: &str = "unix_sockets";

/// How often it is looked, at best.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Looking takes at most one part in this many of the time of a CPU: 0.5 %.
const COST_DIVISOR: u32 = 200;

/// How often it is tried again where the kernel cannot be asked.
const RETRY_INTERVAL: Duration = Duration::from_secs(300);

/// After so many looks in a row that failed, what was seen before is no longer believed. A process that is out of descriptors for a moment is not blind.
const FAILURES_MAX: u32 = 3;

/// What is told when there are network namespaces that cannot be entered.
const SHUT_OUT: &str = "Connections over Unix sockets are not all seen: a network namespace cannot be entered (CAP_SYS_ADMIN).";

/// Sockets of one look at most: with names of all 108 bytes, 25 MB for as long as it takes.
pub const SOCKETS_MAX: usize = 131_072;

/// How often it is looked.
#[derive(Clone, Debug)]
pub struct Every {
    /// At best.
    pub interval: Duration,
    /// More rarely while there is not enough budget.
    pub pace: Pace,
}

/// Looks until `stopping` is cancelled, or nobody listens. When it is not `wanted`, it only takes back what was told while it was.
pub async fn run(wanted: bool, procfs: Arc<Procfs>, every: Every, inputs: mpsc::Sender<Input>, stopping: CancellationToken) {
    let run = async {
        if wanted {
            return look_for_ever(procfs, every, inputs).await;
        }
        inputs.send(Input::BlindSpot { cause: CAUSE, sentence: None }).await.ok()?;
        inputs.send(Input::UnixFlows(Box::default())).await.ok()?;
        std::future::pending().await
    };
    tokio::select! {
        _ = run => {}
        () = stopping.cancelled() => {}
    }
}

async fn look_for_ever(procfs: Arc<Procfs>, every: Every, inputs: mpsc::Sender<Input>) -> Option<()> {
    let mut looker = Looker { procfs, holders: Holders::default(), connections: Vec::new(), shut_out: 0 };
    let (mut told, mut failures) = (None, 0_u32);
    loop {
        let (looked, cost, back) = tokio::task::spawn_blocking(move || {
            let spent = thread_cpu();
            let (look, walking) = looker.look();
            (look, thread_cpu().saturating_sub(spent) + walking, looker)
        })
        .await
        .ok()?;
        looker = back;
        let (look, pause, sentence) = match looked {
            Ok(look) => {
                failures = 0;
                let sentence = (looker.shut_out >= FAILURES_MAX).then(|| SHUT_OUT.to_owned());
                (look, every.interval.max(cost * COST_DIVISOR), sentence)
            }
            Err(error) => {
                tracing::debug!(%error, "Unix sockets cannot be looked at");
                failures = failures.saturating_add(1);
                if failures < FAILURES_MAX && error.kind() != io::ErrorKind::Unsupported {
                    tokio::time::sleep(every.interval).await;
                    continue;
                }
                let sentence = format!("Connections over Unix sockets are not seen: the kernel cannot be asked for them ({error}).");
                (UnixLook::default(), RETRY_INTERVAL, Some(sentence))
            }
        };
        tracing::debug!(flows = look.open.len(), ?cost, ?pause, "looked at Unix sockets");
        if told != sentence {
            told = sentence.clone();
            inputs.send(Input::BlindSpot { cause: CAUSE, sentence }).await.ok()?;
        }
        inputs.send(Input::UnixFlows(Box::new(look))).await.ok()?;
        every.pace.sleep(pause).await;
    }
}

/// What is kept from one look to the next.
#[derive(Debug)]
struct Looker {
    procfs: Arc<Procfs>,
    holders: Holders,
    connections: Vec<Connection>,
    /// Looks in a row in which a namespace could not be read.
    shut_out: u32,
}

impl Looker {
    /// Looks once; blocks. Also tells the CPU time of the thread that went through the namespaces.
    fn look(&mut self) -> (io::Result<UnixLook>, Duration) {
        let mut pids = match self.procfs.pids() {
            Ok(pids) => pids,
            Err(error) => return (Err(error), Duration::ZERO),
        };
        pids.sort_unstable();
        let wanted = sockets::namespaces(&self.procfs, &pids);
        let (dump, cost) = match dump(&self.procfs, &wanted) {
            Ok(dumped) => dumped,
            Err(error) => return (Err(error), Duration::ZERO),
        };
        self.shut_out = if dump.unread.is_empty() { 0 } else { self.shut_out.saturating_add(1) };
        let mut found = connections(&dump.namespaces);
        // Of a namespace that cannot be read for once nothing is known: what was there is there.
        let clients: HashSet<u32> = found.iter().map(|it| it.client).collect();
        let unread = std::mem::take(&mut self.connections).into_iter();
        found.extend(unread.filter(|it| dump.unread.contains(&it.namespace) && !clients.contains(&it.client)));
        let ends = found.iter().flat_map(|it| [it.client, it.server]).collect();
        self.holders.find(&self.procfs, &pids, &ends);
        let look = UnixLook { open: count(&found, &self.holders), lost: self.holders.unowned(), left_out: dump.left_out };
        self.connections = found;
        (Ok(look), cost)
    }
}

/// Connections by who has them. Those of a process with itself are its own affair.
fn count(connections: &[Connection], holders: &Holders) -> BTreeMap<UnixFlowKey, u32> {
    let mut open = BTreeMap::new();
    for connection in connections {
        let (Some(client), Some(server)) = (holders.get(connection.client), holders.get(connection.server)) else { continue };
        if client != server {
            *open.entry(UnixFlowKey { client, server, path: shown(&connection.name) }).or_insert(0_u32) += 1;
        }
    }
    open
}

/// A name for people: an abstract one begins with `@`, which is how everybody writes the zero that it begins with.
fn shown(name: &[u8]) -> Arc<str> {
    match name.split_first() {
        Some((0, rest)) => format!("@{}", parse::printable(rest)).into(),
        _ => parse::printable(name).into(),
    }
}

/// Sockets of all namespaces.
#[derive(Debug, Default)]
struct Dump {
    namespaces: Vec<Namespace>,
    /// Namespaces that are there, but could not be read.
    unread: HashSet<u64>,
    left_out: u64,
}

/// Reads the Unix sockets of `namespaces`, on a thread of its own that ends with the call: it enters them. Also tells its CPU time.
///
/// # Errors
/// When no namespace can be read.
fn dump(procfs: &Procfs, namespaces: &[sockets::Namespace]) -> io::Result<(Dump, Duration)> {
    let own = sockets::own_namespace();
    std::thread::scope(|scope| {
        let walk = std::thread::Builder::new().name("unix-diag".to_owned()).spawn_scoped(scope, || {
            let mut dump = Dump::default();
            let mut refused = None;
            let (here, elsewhere): (Vec<_>, Vec<_>) = namespaces.iter().partition(|it| Some(it.inode) == own);
            // First where we are, before the thread goes anywhere else.
            for (namespace, is_here) in here.into_iter().map(|it| (it, true)).chain(elsewhere.into_iter().map(|it| (it, false))) {
                let entered = if is_here { Ok(()) } else { sockets::enter(procfs, namespace) };
                match entered.and_then(|()| dump.read_here(namespace.inode)) {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::debug!(namespace = namespace.inode, %error, "Unix sockets cannot be read");
                        dump.unread.insert(namespace.inode);
                        refused.get_or_insert(error);
                    }
                }
            }
            match refused {
                Some(error) if dump.namespaces.is_empty() => Err(error),
                _ => Ok((dump, thread_cpu())),
            }
        })?;
        walk.join().map_err(|_| io::Error::other("the thread that walks Unix sockets panicked"))?
    })
}

impl Dump {
    fn read_here(&mut self, namespace: u64) -> io::Result<()> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.send(&message::request(), 0)?;
        let room = SOCKETS_MAX.saturating_sub(self.namespaces.iter().map(|it| it.sockets.len()).sum());
        let (mut sockets, mut left_out) = (Vec::new(), 0);
        let mut buffer = Vec::with_capacity(32 * 1024);
        loop {
            buffer.clear();
            socket.recv(&mut buffer, 0)?;
            let parsed = message::parse(&buffer, |socket| {
                if !tells(&socket) {
                    return;
                }
                if sockets.len() < room {
                    sockets.push(socket);
                } else {
                    left_out += 1;
                }
            });
            let progress = parsed.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => io::Error::new(io::ErrorKind::Unsupported, "it has no unix_diag, CONFIG_UNIX_DIAG"),
                _ => error,
            })?;
            if progress == Progress::Done {
                break;
            }
        }
        self.left_out += left_out;
        self.namespaces.push(Namespace { inode: namespace, sockets });
        Ok(())
    }
}

/// Whether a socket says anything of connections: it is connected, or others may be connected with it.
fn tells(socket: &UnixSocket) -> bool {
    socket.inode != 0 && (socket.peer != 0 || !socket.name.is_empty())
}

#[cfg(test)]
mod tests;
