//! `/proc/<pid>/net/tcp`, `tcp6`, `udp` and `udp6`: what `sock_diag` tells, for those who may not ask it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::observation::Protocol;
use crate::procfs::Procfs;
use crate::sockets::{Namespace, SocketRecord, SocketTable, ephemeral_ports};

const TCP_ESTABLISHED: u8 = 1;
const TCP_FIN_WAIT1: u8 = 4;
const TCP_FIN_WAIT2: u8 = 5;
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LISTEN: u8 = 10;

/// Reads the tables of `namespaces`. Their cookies are not known here; the namespace's inode tells sockets apart.
pub(crate) fn read(procfs: &Procfs, namespaces: &[Namespace]) -> Vec<SocketTable> {
    let ephemeral = ephemeral_ports();
    let table = |namespace: &Namespace| {
        let read = namespace.pids.iter().find_map(|&pid| sockets(procfs, pid, &ephemeral));
        let unread = read.is_none();
        SocketTable { inode: namespace.inode, cookie: namespace.inode, sockets: read.unwrap_or_default(), unread, late: false }
    };
    namespaces.iter().map(table).collect()
}

fn sockets(procfs: &Procfs, pid: u32, ephemeral: &RangeInclusive<u16>) -> Option<Vec<SocketRecord>> {
    let directory = procfs.root().join(pid.to_string()).join("net");
    let mut sockets = Vec::new();
    let mut add = |name: &str, protocol: Protocol| {
        let bytes = std::fs::read(directory.join(name)).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        sockets.extend(text.lines().skip(1).filter_map(|line| record(protocol, line)).filter(|socket| socket.is_telling(ephemeral)));
        Some(())
    };
    add("tcp", Protocol::Tcp)?;
    // A host without IPv6 has no second file of each.
    for (name, protocol) in [("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)] {
        let _ = add(name, protocol);
    }
    Some(sockets)
}

/// One line: `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …`.
fn record(protocol: Protocol, line: &str) -> Option<SocketRecord> {
    let mut fields = line.split_ascii_whitespace();
    let local = endpoint(fields.nth(1)?)?;
    let remote = endpoint(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let inode: u64 = fields.nth(5)?.parse().ok()?;
    let wanted = match protocol {
        Protocol::Tcp => matches!(state, TCP_ESTABLISHED | TCP_FIN_WAIT1 | TCP_FIN_WAIT2 | TCP_CLOSE_WAIT | TCP_LISTEN),
        Protocol::Udp => matches!(state, TCP_ESTABLISHED | TCP_CLOSE),
    };
    if !wanted {
        return None;
    }
    Some(SocketRecord {
        protocol,
        state,
        local,
        remote,
        inode,
        cookie: inode,
        address: 0,
        cgroup_id: 0,
        bytes_acked: 0,
        bytes_received: 0,
        retransmits: 0,
        rtt_us: 0,
    })
}

/// An address in words of the machine's own byte order, and a port.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = [0; 16];
    if !address.is_ascii() || !matches!(address.len(), 8 | 32) {
        return None;
    }
    for (index, word) in octets.chunks_exact_mut(4).enumerate().take(address.len() / 8) {
        word.copy_from_slice(&u32::from_str_radix(address.get(index * 8..index * 8 + 8)?, 16).ok()?.to_ne_bytes());
    }
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
        _ => IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(),
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_of_each_family_is_read() {
        let v4 = "   0: 0100007F:1F90 0200007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 45123 1 0000000000000000 20 4 30 10 -1";
        let it = record(Protocol::Tcp, v4).unwrap();
        assert_eq!((it.local, it.remote), (("127.0.0.1".parse().unwrap(), 8080), ("127.0.0.2".parse().unwrap(), 54_321)));
        assert_eq!((it.inode, it.state), (45_123, TCP_ESTABLISHED));
        let v6 = "   1: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0";
        let it = record(Protocol::Tcp, v6).unwrap();
        assert_eq!(it.local, ("::1".parse().unwrap(), 22));
        assert!(it.is_listener());
        let mapped = "   1: 0000000000000000FFFF00000100007F:0016 0000000000000000FFFF00000100007F:0017 01 0:0 00:0 0 0 0 7 1";
        let udp = " 1234: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9 2 0000000000000000 0";
        let it = record(Protocol::Udp, udp).unwrap();
        assert!(it.is_listener() && it.is_telling(&(32_768..=60_999)) && !it.is_telling(&(50..=60)));
        assert_eq!(it.local, ("0.0.0.0".parse().unwrap(), 53));
        // Not a state that UDP has.
        assert_eq!(record(Protocol::Udp, v6), None);
        assert_eq!(record(Protocol::Tcp, mapped).unwrap().local.0, "127.0.0.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn what_is_no_line_is_no_socket() {
        for line in ["", "garbage", "0: 0100007F:1F90", "0: xyz:1 0:0 01 0 0 0 0 0 1", "0: ééééééé:0016 0100007F:0016 01 0:0 00:0 0 0 0 7"]
        {
            assert_eq!(record(Protocol::Tcp, line), None, "{line}");
        }
    }
}
