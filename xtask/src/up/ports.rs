//! Who holds a port that is wanted.

use std::collections::HashSet;
use std::fs;
use std::net::TcpListener;

use anyhow::{Result, bail};

use crate::services::Addresses;

/// An error that names the holder, when one of the ports is taken.
pub(crate) fn must_be_free(addresses: &Addresses) -> Result<()> {
    for (address, flag) in addresses.bound() {
        if let Err(error) = TcpListener::bind(address) {
            let holder = holder(address.port()).unwrap_or_else(|| "a process that only root may see".to_owned());
            bail!(
                "port {} cannot be used ({error}): it is held by {holder}. Stop that, or choose another with {flag} <port>.",
                address.port()
            );
        }
    }
    Ok(())
}

/// The process that listens on a TCP port, for people.
fn holder(port: u16) -> Option<String> {
    let sockets: HashSet<String> =
        ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().flat_map(|table| listening_sockets(table, port)).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    processes.filter(|pid| holds(*pid, &sockets)).map(name_of).next()
}

/// Names of the sockets that listen on a port, as they stand in /proc/<pid>/fd.
fn listening_sockets(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let ending = format!(":{port:04X}");
    let text = fs::read_to_string(table).unwrap_or_default();
    let socket = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&ending) && *fields.get(3)? == LISTEN;
        listens.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    };
    text.lines().skip(1).filter_map(socket).collect()
}

fn holds(pid: u32, sockets: &HashSet<String>) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| sockets.contains(target.to_string_lossy().as_ref()))
}

fn name_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("process {pid} ({})", name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let found = holder(listener.local_addr()?.port()).unwrap_or_default();
        assert!(found.starts_with(&format!("process {} (", std::process::id())), "{found}");
        Ok(())
    }
}
