//! The rungs below kernel programs. Both look at socket tables; they differ in how they learn of processes: the netlink connector tells of
//! forks, execs and exits as they happen, the walk of `/proc` finds them out afterwards.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use proto::probe::v1;
use tokio::sync::mpsc;

use crate::clock::{Now, process_cpu};
use crate::connections::{ListenerWatch, Watch};
use crate::observation::{BootNanos, LossTotals, Observation, ProcessStarted};
use crate::processes::ProcessKey;
use crate::procfs::{Procfs, ReadError};
use crate::sockets::{self, Namespace, ROUND_MAX, Rounds, SocketHolders, States};

pub mod connector;
mod tables;

/// How often socket tables are read, at best.
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Looking takes at most one part in this many of the time.
const COST_DIVISOR: u32 = 50;

/// A rung without kernel programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Processes from the netlink connector, connections by `sock_diag`.
    Netlink,
    /// Both from files of `/proc`.
    Proc,
}

impl Rung {
    /// How this rung sees, for the control plane.
    pub fn capture(self, reason: &str) -> v1::Capture {
        let (rung, description) = match self {
            Rung::Netlink => (5, "netlink process events + sock_diag every 2 s"),
            Rung::Proc => (6, "/proc walk + /proc/net/tcp and udp every 2 s"),
        };
        let mut blind_spots = vec![
            "Short-lived connections are not visible: a connection that opens and closes between two looks leaves no trace.".to_owned(),
            "Failed connection attempts are not counted.".to_owned(),
            "Of UDP, connected sockets and servers on well-known ports alone are visible, and who asks those servers is not.".to_owned(),
            "Names that processes resolve are not seen.".to_owned(),
            "Connections appear up to two seconds late.".to_owned(),
        ];
        if self == Rung::Proc {
            blind_spots.push("Processes that live shorter than two seconds are not visible.".to_owned());
            blind_spots.push("Bytes and round-trip times are not known.".to_owned());
        }
        v1::Capture { rung, description: description.to_owned(), reason: reason.to_owned(), blind_spots, ..v1::Capture::default() }
    }
}

/// Looks at connections, and on the lowest rung at processes, until `stop` hangs up. Blocks: it has a thread of its own.
pub fn poll(procfs: &Arc<Procfs>, rung: Rung, stop: &Receiver<()>, sink: &mpsc::Sender<Vec<Observation>>) {
    let mut poller = Poller {
        procfs: procfs.clone(),
        rung,
        watch: Watch::new(sockets::ephemeral_ports()),
        listeners: ListenerWatch::default(),
        holders: SocketHolders::default(),
        seen: BTreeSet::new(),
        namespaces: HashMap::new(),
        rounds: Rounds::default(),
    };
    loop {
        let spent = process_cpu();
        let observations = poller.look();
        if !observations.is_empty() && sink.blocking_send(observations).is_err() {
            return;
        }
        let pause = POLL_INTERVAL.max(process_cpu().saturating_sub(spent) * COST_DIVISOR);
        if stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

struct Poller {
    procfs: Arc<Procfs>,
    rung: Rung,
    watch: Watch,
    listeners: ListenerWatch,
    holders: SocketHolders,
    seen: BTreeSet<ProcessKey>,
    /// Namespace of each pid, so that its link is read once.
    namespaces: HashMap<u32, u64>,
    rounds: Rounds,
}

impl Poller {
    fn look(&mut self) -> Vec<Observation> {
        let at = Now::read().boot;
        let Ok(mut pids) = self.procfs.pids() else { return Vec::new() };
        pids.sort_unstable();
        let mut observations = Vec::new();
        if self.rung == Rung::Proc {
            self.walk(at, &pids, &mut observations);
        }
        let namespaces = self.namespaces(&pids);
        let tables = match self.rung {
            Rung::Netlink => match self.rounds.dump(&self.procfs, &namespaces, States::ALL, ROUND_MAX) {
                Ok(tables) => tables,
                Err(error) => {
                    tracing::debug!(%error, "connections cannot be looked at");
                    return observations;
                }
            },
            Rung::Proc => tables::read(&self.procfs, &namespaces),
        };
        let inodes: BTreeSet<u64> = tables.iter().flat_map(|it| &it.sockets).map(|it| it.inode).filter(|&inode| inode != 0).collect();
        // Sockets of a namespace that there was no time for are still there.
        if tables.iter().all(|table| !table.unread) {
            self.holders.retain(|inode| inodes.contains(&inode));
        }
        if inodes.iter().any(|&inode| self.holders.get(inode).is_none()) {
            self.holders.extend(SocketHolders::scan(&self.procfs, &pids));
        }
        let (holders, procfs) = (&self.holders, &self.procfs);
        let owner = |socket: &sockets::SocketRecord| holders.owner(procfs, None, socket);
        observations.extend(self.listeners.look(at, &tables, owner, |_| true));
        observations.extend(self.watch.look(at, &tables, owner, |_, _| true));
        observations
    }

    /// Processes that came and went since the last walk.
    fn walk(&mut self, at: BootNanos, pids: &[u32], observations: &mut Vec<Observation>) {
        let mut seen = BTreeSet::new();
        for &pid in pids {
            let stat = match self.procfs.stat(pid) {
                Ok(stat) => stat,
                Err(ReadError::Gone) => continue,
                // Out of descriptors or memory: that says nothing of the process.
                Err(ReadError::Unreadable { .. }) => {
                    seen.extend(self.seen.iter().filter(|key| key.pid == pid));
                    continue;
                }
            };
            if stat.has_ended() {
                continue;
            }
            let key = ProcessKey::new(pid, stat.start_time);
            seen.insert(key);
            if !self.seen.contains(&key) {
                let started = ProcessStarted { at, pid, start_time: Some(key.start_time), comm: stat.comm, ..ProcessStarted::default() };
                observations.push(Observation::ProcessStarted(started));
            }
        }
        let ended = self.seen.difference(&seen).map(|key| Observation::ProcessExited {
            at,
            pid: key.pid,
            start_time: Some(key.start_time),
            status: 0,
        });
        observations.splice(0..0, ended);
        self.seen = seen;
    }

    fn namespaces(&mut self, pids: &[u32]) -> Vec<Namespace> {
        self.namespaces.retain(|pid, _| pids.binary_search(pid).is_ok());
        let mut pairs = Vec::with_capacity(pids.len());
        for &pid in pids {
            let inode = self.namespaces.get(&pid).copied().or_else(|| self.procfs.network_namespace(pid));
            if let Some(inode) = inode {
                self.namespaces.insert(pid, inode);
                pairs.push((inode, pid));
            }
        }
        sockets::group(pairs.into_iter())
    }
}

/// Losses of a rung that has none but the netlink socket's.
pub(crate) fn lost(netlink: u64) -> Observation {
    Observation::Lost(LossTotals { netlink, ..LossTotals::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfs::Arguments;

    #[test]
    fn a_process_that_cannot_be_read_for_once_has_not_ended() {
        let root = tempfile::tempdir().unwrap();
        let stat = root.path().join("20/stat");
        std::fs::create_dir_all(stat.parent().unwrap()).unwrap();
        let mut poller = Poller {
            procfs: Arc::new(Procfs::new(root.path(), Arguments::Show)),
            rung: Rung::Proc,
            watch: Watch::new(sockets::ephemeral_ports()),
            listeners: ListenerWatch::default(),
            holders: SocketHolders::default(),
            seen: BTreeSet::new(),
            namespaces: HashMap::new(),
            rounds: Rounds::default(),
        };
        let mut walk = |text: &str| {
            std::fs::write(&stat, text).unwrap();
            let mut observations = Vec::new();
            poller.walk(BootNanos(1), &[20], &mut observations);
            observations.iter().map(|it| matches!(it, Observation::ProcessStarted(_))).collect::<Vec<_>>()
        };
        let alive = "20 (a) S 1 20 20 0 -1 4194304 100 0 0 0 7 3 0 0 20 0 5 0 12345 1000000 250 0";
        assert_eq!(walk(alive), [true]);
        assert!(walk("").is_empty());
        assert!(walk(alive).is_empty());
        assert_eq!(walk(&alive.replace(" S ", " Z ")), [false]);
    }
}
