//! Which process has a Unix socket. Descriptors of all processes are walked when somebody new is to be found, and once a minute; between, one look at the
//! known descriptor tells that it is still there.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::processes::ProcessKey;
use crate::procfs::{Procfs, parse};

/// So many looks in a row a socket without a holder makes the descriptors be walked: it may be on its way from one process to another.
const TRIES_MAX: u8 = 3;

/// The walk is repeated after so many looks without one: who holds a socket besides the one that is known may change.
const WALK_EVERY: u8 = 12;

#[derive(Clone, Copy, Debug)]
struct Holder {
    process: ProcessKey,
    descriptor: i32,
}

impl Holder {
    /// Whoever started first made the socket; those that came later inherited it. The first process of the machine comes last: it opens sockets of services for
    /// them, and keeps them.
    fn precedes(&self, other: &Holder) -> bool {
        let rank = |ProcessKey { pid, start_time }| (pid == 1, start_time, pid);
        rank(self.process) < rank(other.process)
    }
}

/// Holders of the sockets of the last look.
#[derive(Debug, Default)]
pub struct Holders {
    by_inode: HashMap<u32, Holder>,
    /// Sockets without one, and in how many looks.
    unheld: HashMap<u32, u8>,
    looks_since_walk: u8,
    unowned: u64,
}

impl Holders {
    /// Sockets and the pids that have them, whenever those began.
    #[cfg(test)]
    pub(crate) fn of(held: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let holder = |pid| Holder { process: ProcessKey { pid, ..ProcessKey::default() }, descriptor: 0 };
        Holders { by_inode: held.into_iter().map(|(inode, pid)| (inode, holder(pid))).collect(), ..Holders::default() }
    }

    /// Finds the holders of `wanted`. Reads as little of `/proc` as it can.
    pub fn find(&mut self, procfs: &Procfs, pids: &[u32], wanted: &HashSet<u32>) {
        let mut living: HashMap<u32, bool> = HashMap::new();
        self.by_inode.retain(|inode, holder| {
            let ProcessKey { pid, start_time } = holder.process;
            wanted.contains(inode)
                && *living.entry(pid).or_insert_with(|| procfs.start_time(pid) == Some(start_time))
                && has(procfs.root(), pid, holder.descriptor, *inode)
        });
        self.unheld.retain(|inode, _| wanted.contains(inode));
        self.looks_since_walk = self.looks_since_walk.saturating_add(1);
        let is_due = self.looks_since_walk >= WALK_EVERY && !wanted.is_empty();
        let is_sought = |inode: &u32| !self.by_inode.contains_key(inode) && self.unheld.get(inode).is_none_or(|tries| *tries < TRIES_MAX);
        if !is_due && !wanted.iter().any(is_sought) {
            return;
        }
        self.looks_since_walk = 0;
        self.by_inode = walk(procfs, pids, wanted);
        for inode in wanted {
            if self.by_inode.contains_key(inode) {
                self.unheld.remove(inode);
                continue;
            }
            let tries = self.unheld.entry(*inode).or_default();
            *tries = tries.saturating_add(1);
            if *tries == TRIES_MAX {
                self.unowned += 1;
            }
        }
    }

    /// The holder of a socket.
    pub fn get(&self, inode: u32) -> Option<ProcessKey> {
        self.by_inode.get(&inode).map(|it| it.process)
    }

    /// Sockets whose holder was looked for in vain, since the start.
    pub fn unowned(&self) -> u64 {
        self.unowned
    }
}

fn walk(procfs: &Procfs, pids: &[u32], wanted: &HashSet<u32>) -> HashMap<u32, Holder> {
    let mut found: HashMap<u32, Holder> = HashMap::new();
    for &pid in pids {
        let mut started = None;
        for (descriptor, inode) in procfs.sockets(pid) {
            let Some(inode) = u32::try_from(inode).ok().filter(|inode| wanted.contains(inode)) else { continue };
            // Read once, and after its descriptors: a pid that was used again has others.
            let Some(start_time) = *started.get_or_insert_with(|| procfs.start_time(pid)) else { break };
            let holder = Holder { process: ProcessKey::new(pid, start_time), descriptor };
            if found.get(&inode).is_none_or(|known| holder.precedes(known)) {
                found.insert(inode, holder);
            }
        }
    }
    found
}

/// Whether a descriptor of a process is that socket.
fn has(root: &Path, pid: u32, descriptor: i32, inode: u32) -> bool {
    let link = std::fs::read_link(root.join(format!("{pid}/fd/{descriptor}")));
    link.is_ok_and(|target| target.to_str().and_then(|it| parse::link_inode(it, "socket")) == Some(inode.into()))
}

#[cfg(test)]
mod tests;
