//! On which TCP ports processes listen.

use std::collections::{BTreeMap, BTreeSet};

/// What a socket that listens has in the table of the kernel (`TCP_LISTEN` of tcp_states.h).
const LISTENS: &str = "0A";

/// Ports on which some of these processes listen in the host's network. Blocks.
pub(super) fn listening(pids: &[i32]) -> BTreeSet<u16> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|it| std::fs::read_to_string(it).unwrap_or_default());
    let sockets: BTreeMap<u64, u16> = tables.iter().flat_map(|it| it.lines()).filter_map(socket).collect();
    if sockets.is_empty() {
        return BTreeSet::new();
    }
    let descriptors = pids.iter().flat_map(|it| std::fs::read_dir(format!("/proc/{it}/fd")).into_iter().flatten().flatten());
    let inodes = descriptors.filter_map(|it| inode(std::fs::read_link(it.path()).ok()?.to_str()?));
    inodes.filter_map(|it| sockets.get(&it).copied()).collect()
}

/// Inode and port of a line of the table, where the socket listens.
fn socket(line: &str) -> Option<(u64, u16)> {
    // `0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 …`
    let words: Vec<&str> = line.split_whitespace().take(10).collect();
    let [_, local, _, state, _, _, _, _, _, inode] = words[..] else { return None };
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    (state == LISTENS).then_some((inode.parse().ok()?, port))
}

/// Of a descriptor's link, such as `socket:[12345]`.
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Of these, the ports that are in none of the ranges.
pub(super) fn not_among(listening: &BTreeSet<u16>, ranges: &[(u64, u64)]) -> BTreeSet<u16> {
    let is_own = |port: u16| ranges.iter().any(|(first, last)| (*first..=*last).contains(&u64::from(port)));
    listening.iter().copied().filter(|it| !is_own(*it)).collect()
}

/// As ranges: `[80-80, 8080-8082]`.
pub(super) fn ranges(ports: &BTreeSet<u16>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_found_and_who_is_only_connected_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpListener::bind("[::]:0").or_else(|_| std::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let [port, other] = [&listener, &other].map(|it| it.local_addr().unwrap().port());
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let found = listening(&[own, i32::MAX]);
        assert!(found.contains(&port) && found.contains(&other) && !found.contains(&client.local_addr().unwrap().port()), "{found:?}");
        assert!(listening(&[]).is_empty());
    }

    #[test]
    fn ports_that_are_nobodys_are_told_as_ranges() {
        let found = BTreeSet::from([80, 8080, 8081, 8082, 65535]);
        assert_eq!(not_among(&found, &[(8081, 9000)]), BTreeSet::from([80, 8080, 65535]));
        assert_eq!(ranges(&found), [(80, 80), (8080, 8082), (65535, 65535)]);
        assert_eq!(socket("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"), None);
        assert_eq!((inode("socket:[7]"), inode("pipe:[7]")), (Some(7), None));
    }
}
