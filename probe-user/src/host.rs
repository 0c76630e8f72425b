//! Facts of the node itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proto::probe::v1::Host;

use crate::procfs::{Procfs, parse};

/// Reads the facts of this host. What cannot be read is left empty: a host without a release is still a host.
pub fn read(procfs: &Procfs, host_name: &str) -> Host {
    let uname = nix::sys::utsname::uname().ok();
    let text = |it: &std::ffi::OsStr| it.to_string_lossy().into_owned();
    let stat = procfs.read_global("stat").unwrap_or_default();
    let (_, _, cpu_count) = parse::cpu_ticks(&stat).unwrap_or_default();
    let (memory_bytes, _) = procfs.read_global("meminfo").ok().and_then(|it| parse::memory(&it)).unwrap_or_default();
    let boot_id = procfs.read_global("sys/kernel/random/boot_id").unwrap_or_default();
    let (local_networks, addresses) = networks();
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
    }
}

/// The distribution of the host, also from inside a container; else of where the probe runs.
fn release(procfs: &Procfs) -> String {
    let of_the_host = ["1/root/etc/os-release", "1/root/usr/lib/os-release"].map(|path| procfs.root().join(path));
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

/// Networks and addresses of the interfaces in this network namespace.
fn networks() -> (Vec<String>, Vec<String>) {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Default::default() };
    let mut networks = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for interface in interfaces {
        let Some(address) = interface.address.as_ref().and_then(ip) else { continue };
        addresses.insert(address);
        if let Some(mask) = interface.netmask.as_ref().and_then(ip) {
            networks.extend(network(address, mask));
        }
    }
    let networks = networks.into_iter().map(|(address, length)| format!("{address}/{length}")).collect();
    (networks, addresses.into_iter().map(|it| it.to_string()).collect())
}

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
}

fn network(address: IpAddr, mask: IpAddr) -> Option<(IpAddr, u32)> {
    match (address, mask) {
        (IpAddr::V4(address), IpAddr::V4(mask)) => {
            Some((IpAddr::V4((address.to_bits() & mask.to_bits()).into()), mask.to_bits().count_ones()))
        }
        (IpAddr::V6(address), IpAddr::V6(mask)) => {
            Some((IpAddr::V6((address.to_bits() & mask.to_bits()).into()), mask.to_bits().count_ones()))
        }
        _ => None,
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
    fn the_release_is_the_pretty_name() {
        assert_eq!(os_release("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(os_release("ID=x\n"), "");
    }
}
