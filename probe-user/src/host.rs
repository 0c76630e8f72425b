//! Facts of the node itself.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use proto::probe::v1::Host;

use crate::procfs::{Procfs, parse};

pub mod cloud;
pub mod disks;
pub mod interfaces;
pub mod namespace;
pub mod sampler;

/// Reads the facts of this host. What cannot be read is left empty: a host without a release is still a host.
pub fn read(procfs: &Procfs, host_name: &str) -> Host {
    let uname = nix::sys::utsname::uname().ok();
    let text = |it: &std::ffi::OsStr| it.to_string_lossy().into_owned();
    let stat = procfs.read_global("stat").unwrap_or_default();
    let (_, _, cpu_count) = parse::cpu_ticks(&stat).unwrap_or_default();
    let (memory_bytes, _) = procfs.read_global("meminfo").ok().and_then(|it| parse::memory(&it)).unwrap_or_default();
    let boot_id = procfs.read_global("sys/kernel/random/boot_id").unwrap_or_default();
    let (local_networks, addresses) = networks(procfs);
    Host {
        host_name: host_name.to_owned(),
        kernel_version: uname.as_ref().map(|it| text(it.release())).unwrap_or_default(),
        os: "linux".to_owned(),
        os_release: release(procfs),
        booted_at_unix_nanos: parse::boot_time(&stat).unwrap_or(0).saturating_mul(1_000_000_000),
        local_networks,
        addresses,
        cpu_count,
        memory_bytes,
        architecture: uname.as_ref().map(|it| text(it.machine())).unwrap_or_default(),
        boot_id: parse::printable(boot_id.trim_ascii()),
        ..Host::default()
    }
}

/// The distribution of the host, also from inside a container; else of where the probe runs.
fn release(procfs: &Procfs) -> String {
    let of_the_host = ["root/etc/os-release", "root/usr/lib/os-release"].map(|path| namespace::host_process(procfs.root()).join(path));
    let candidates = of_the_host.into_iter().chain(["/etc/os-release".into(), "/usr/lib/os-release".into()]);
    candidates
        .filter_map(|path: std::path::PathBuf| std::fs::read_to_string(path).ok())
        .map(|it| os_release(&it))
        .find(|it| !it.is_empty())
        .unwrap_or_default()
}

/// Name of the distribution, for people.
fn os_release(text: &str) -> String {
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map(|name| parse::printable(name.trim_matches(['"', '\'']).as_bytes())).unwrap_or_default()
}

/// Networks and addresses of the interfaces in the host's network namespace. A host whose kernel does not say is one without addresses.
fn networks(procfs: &Procfs) -> (Vec<String>, Vec<String>) {
    let interfaces = namespace::in_host_network(procfs, addresses).or_else(|_| addresses()).unwrap_or_else(|error| {
        tracing::warn!(%error, "addresses of the interfaces cannot be listed");
        Vec::new()
    });
    let networks: BTreeSet<(IpAddr, u8)> = interfaces.iter().map(|&(address, length)| (network(address, length), length)).collect();
    let addresses: BTreeSet<IpAddr> = interfaces.into_iter().map(|(address, _)| address).collect();
    let networks = networks.into_iter().map(|(address, length)| format!("{address}/{length}")).collect();
    (networks, addresses.into_iter().map(|it| it.to_string()).collect())
}

/// Every address of every interface, and the length of its prefix: a dump of `RTM_GETADDR` (rtnetlink(7)).
fn addresses() -> io::Result<Vec<(IpAddr, u8)>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(question));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => found.extend(held(&address)),
                _ => {}
            }
            // Messages are aligned to four bytes; a length that leads nowhere ends the datagram.
            let length = usize::try_from(message.header.length).map_or(0, |length| length.next_multiple_of(4));
            rest = if length == 0 { &[] } else { rest.get(length..).unwrap_or_default() };
        }
    }
}

/// The host's own address: on a point-to-point link `IFA_ADDRESS` is the other end's, and `IFA_LOCAL` ours.
fn held(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let local = message.attributes.iter().find_map(|it| if let AddressAttribute::Local(address) = it { Some(*address) } else { None });
    let other = || message.attributes.iter().find_map(|it| if let AddressAttribute::Address(address) = it { Some(*address) } else { None });
    Some((local.or_else(other)?, message.header.prefix_len))
}

/// The address with the bits behind its prefix cleared.
fn network(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length.into())).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length.into())).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_loopback_network() {
        let procfs = Procfs::new("/proc", crate::procfs::Arguments::Show);
        let host = read(&procfs, "here");
        assert!(host.local_networks.contains(&"127.0.0.0/8".to_owned()), "{host:?}");
        assert!(host.addresses.contains(&"127.0.0.1".to_owned()));
        assert!(host.cpu_count > 0 && host.memory_bytes > 0 && host.booted_at_unix_nanos > 0 && host.boot_id.len() == 36);
    }

    #[test]
    fn a_network_is_its_address_without_the_bits_of_the_host() {
        let check = |address: &str, length, expected: &str| assert_eq!(network(address.parse().unwrap(), length).to_string(), expected);
        check("172.17.3.4", 16, "172.17.0.0");
        check("10.1.2.3", 32, "10.1.2.3");
        check("10.1.2.3", 0, "0.0.0.0");
        check("fe80::1:2", 64, "fe80::");
        check("::1", 128, "::1");
    }

    #[test]
    fn the_release_is_the_pretty_name() {
        assert_eq!(os_release("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(os_release("ID=x\n"), "");
    }
}
