//! Looking for DNS servers on this machine: sockets that take datagrams on port 53, in every network namespace.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use probe_common::DNS_PORT;

use super::Tap;
use crate::dns::attach::{SERVERS_MAX, Server};
use crate::dns::watch::Event;
use crate::procfs::{Arguments, Procfs};
use crate::sockets::{self, ROUND_MAX, Rounds};

/// Looks on a thread of its own, which ends with the search, and tells what was found. A search that fails tells nothing.
pub(super) fn start(proc_root: PathBuf, rounds: Arc<Mutex<Rounds>>, tap: Tap) {
    let searched = thread::Builder::new().name("dns-servers".to_owned()).spawn(move || match find(proc_root, &rounds) {
        Ok((servers, complete)) => tap.send(Event::Found { servers, complete, own_addresses: own_addresses() }),
        Err(error) => tracing::debug!(%error, "servers of DNS cannot be looked for"),
    });
    if let Err(error) = searched {
        tracing::debug!(%error, "no thread to look for servers of DNS with");
    }
}

/// Servers, and whether there was time to look everywhere. The next search goes on where this one ended.
fn find(proc_root: PathBuf, rounds: &Mutex<Rounds>) -> io::Result<(Vec<Server>, bool)> {
    let procfs = Procfs::new(proc_root, Arguments::Hide);
    let mut pids = procfs.pids()?;
    pids.sort_unstable();
    let namespaces = sockets::namespaces(&procfs, &pids);
    let tables = rounds.lock().unwrap_or_else(PoisonError::into_inner).dump_datagram(&procfs, &namespaces, ROUND_MAX)?;
    let complete = tables.iter().all(|table| !table.late);
    let servers = tables.iter().flat_map(|table| {
        let serving = table.sockets.iter().filter(|socket| socket.local.1 == DNS_PORT && socket.remote.1 == 0);
        serving.map(|socket| Server {
            socket: socket.cookie,
            cgroup_id: socket.cgroup_id,
            network_namespace: table.cookie,
            address: socket.local.0,
        })
    });
    Ok((servers.take(SERVERS_MAX).collect(), complete))
}

/// Addresses of the interfaces in the probe's network namespace.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .collect()
}
