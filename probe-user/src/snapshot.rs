//! What is there when the probe starts: cgroups, processes and open connections. Taken after the capture is attached, so that nothing falls
//! between; what both tell is told once, because connections are compared with a look from before.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use crate::clock::Now;
use crate::ebpf::{Seed, SeedRole};
use crate::observation::{BootNanos, Observation, Protocol};
use crate::processes::Details;
use crate::procfs::Procfs;
use crate::procfs::describer::Describer;
use crate::sockets::{self, ROUND_MAX, Rounds, SocketHolders, SocketTable, States};

/// Most cgroups that are looked for.
const CGROUPS_MAX: usize = crate::cgroups::CGROUPS_MAX;

/// All cgroups of the v2 hierarchy mounted at `root`.
pub fn cgroups(root: &Path, at: BootNanos) -> Vec<Observation> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let Ok(metadata) = directory.metadata() else { continue };
        let below = directory.strip_prefix(root).unwrap_or(Path::new(""));
        let path = format!("/{}", crate::procfs::parse::printable(below.as_os_str().as_encoded_bytes()));
        found.push(Observation::CgroupCreated { at, id: metadata.ino(), path });
        if found.len() >= CGROUPS_MAX {
            break;
        }
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        pending.extend(entries.flatten().filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path()));
    }
    found
}

/// Every process that lives now. It takes no longer for one that hangs than it takes to find that out.
///
/// # Errors
/// When `/proc` cannot be listed.
pub async fn processes(procfs: &Arc<Procfs>) -> io::Result<Vec<Details>> {
    let reader = procfs.clone();
    let mut pids = tokio::task::spawn_blocking(move || reader.pids()).await.map_err(io::Error::other)??;
    pids.sort_unstable();
    let mut pids = pids.into_iter().peekable();
    let mut describer = Describer::new(procfs.clone());
    let mut found = Vec::new();
    loop {
        while pids.next_if(|pid| describer.ask(*pid)).is_some() {}
        if describer.outstanding() == 0 {
            return Ok(found);
        }
        found.extend(describer.next().await);
    }
}

/// Socket tables of every namespace, and who holds the sockets.
#[derive(Debug, Default)]
pub struct Sockets {
    /// When they were read.
    pub at: BootNanos,
    /// The tables.
    pub tables: Vec<SocketTable>,
    /// Pid and descriptor by inode.
    pub holders: SocketHolders,
}

impl Sockets {
    /// Reads everything. The scan of all descriptors is what takes long.
    pub fn read(procfs: &Arc<Procfs>) -> io::Result<Self> {
        let at = Now::read().boot;
        let mut pids = procfs.pids()?;
        pids.sort_unstable();
        let tables = Rounds::default().dump(procfs, &sockets::namespaces(procfs, &pids), States::ALL, ROUND_MAX)?;
        let holders = SocketHolders::scan(procfs, &pids);
        Ok(Sockets { at, tables, holders })
    }

    /// Listening sockets of which a holder is known.
    pub fn listeners(&self) -> impl Iterator<Item = Seed> {
        let sockets = self.tables.iter().flat_map(|table| &table.sockets);
        sockets.filter(|socket| socket.is_listener()).filter_map(|socket| {
            let (pid, fd) = self.holders.get(socket.inode)?;
            let role = if socket.protocol == Protocol::Tcp { SeedRole::Listener } else { SeedRole::DatagramListener };
            Some(Seed { pid, fd, role })
        })
    }
}
