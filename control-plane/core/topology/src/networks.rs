//! Which addresses are ours: networks of all hosts, and who holds an address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::DenseMap;

use crate::index::{ContainerIndex, HostIndex, ObjectIndex};
use crate::report::Network;

/// Union of networks, each counted as often as it was added. Looking an address up costs one probe for each prefix length in use.
#[derive(Debug, Default)]
pub(crate) struct NetworkSet {
    counts: BTreeMap<Network, u32>,
    lengths_v4: BTreeMap<u8, u32>,
    lengths_v6: BTreeMap<u8, u32>,
}

impl NetworkSet {
    /// True when nobody had it before.
    pub(crate) fn add(&mut self, network: Network) -> bool {
        let network = canonical(network);
        let count = self.counts.entry(network).or_insert(0);
        *count += 1;
        let is_new = *count == 1;
        *self.lengths(network).entry(network.prefix_length).or_insert(0) += 1;
        is_new
    }

    /// True when nobody has it any more.
    pub(crate) fn remove(&mut self, network: Network) -> bool {
        let network = canonical(network);
        let Some(count) = self.counts.get_mut(&network) else { return false };
        *count -= 1;
        let is_gone = *count == 0;
        if is_gone {
            self.counts.remove(&network);
        }
        let lengths = self.lengths(network);
        if let Some(count) = lengths.get_mut(&network.prefix_length) {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&network.prefix_length);
            }
        }
        is_gone
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let lengths = if address.is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        lengths.keys().any(|&prefix_length| self.counts.contains_key(&canonical(Network { address, prefix_length })))
    }

    fn lengths(&mut self, network: Network) -> &mut BTreeMap<u8, u32> {
        if network.address.is_ipv4() { &mut self.lengths_v4 } else { &mut self.lengths_v6 }
    }
}

/// The network with the bits behind its prefix cleared.
pub(crate) fn canonical(network: Network) -> Network {
    let address = match network.address {
        IpAddr::V4(address) => {
            let shift = 32_u32.saturating_sub(u32::from(network.prefix_length));
            IpAddr::V4(Ipv4Addr::from_bits(u32::MAX.checked_shl(shift).unwrap_or(0) & address.to_bits()))
        }
        IpAddr::V6(address) => {
            let shift = 128_u32.saturating_sub(u32::from(network.prefix_length));
            IpAddr::V6(Ipv6Addr::from_bits(u128::MAX.checked_shl(shift).unwrap_or(0) & address.to_bits()))
        }
    };
    Network { address, prefix_length: network.prefix_length }
}

/// Who holds an address.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    holders: DenseMap<IpAddr, Holders>,
}

/// Hosts, containers, pods and services with one address. More than one when every host has the same bridge network.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    pub(crate) hosts: BTreeSet<HostIndex>,
    pub(crate) containers: BTreeSet<ContainerIndex>,
    /// Pods and services.
    pub(crate) objects: BTreeSet<ObjectIndex>,
}

impl AddressBook {
    pub(crate) fn holders(&self, address: IpAddr) -> Option<&Holders> {
        self.holders.get(&address)
    }

    pub(crate) fn add_host(&mut self, address: IpAddr, host: HostIndex) {
        self.holders.entry_or_insert_with(address, Holders::default).hosts.insert(host);
    }

    pub(crate) fn remove_host(&mut self, address: IpAddr, host: HostIndex) {
        self.change(address, |holders| {
            holders.hosts.remove(&host);
        });
    }

    pub(crate) fn add_container(&mut self, address: IpAddr, container: ContainerIndex) {
        self.holders.entry_or_insert_with(address, Holders::default).containers.insert(container);
    }

    pub(crate) fn remove_container(&mut self, address: IpAddr, container: ContainerIndex) {
        self.change(address, |holders| {
            holders.containers.remove(&container);
        });
    }

    pub(crate) fn add_object(&mut self, address: IpAddr, object: ObjectIndex) {
        self.holders.entry_or_insert_with(address, Holders::default).objects.insert(object);
    }

    pub(crate) fn remove_object(&mut self, address: IpAddr, object: ObjectIndex) {
        self.change(address, |holders| {
            holders.objects.remove(&object);
        });
    }

    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut Holders)) {
        if let Some(holders) = self.holders.get_mut(&address) {
            change(holders);
            if holders.hosts.is_empty() && holders.containers.is_empty() && holders.objects.is_empty() {
                self.holders.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn network(text: &str) -> Network {
        let (address, length) = text.split_once('/').unwrap();
        Network { address: address.parse().unwrap(), prefix_length: length.parse().unwrap() }
    }

    #[test]
    fn a_network_that_two_hosts_have_stays_until_both_left() {
        let mut networks = NetworkSet::default();
        assert!(networks.add(network("172.17.0.1/16")));
        assert!(!networks.add(network("172.17.9.9/16")), "it is the same one");
        assert!(!networks.remove(network("172.17.0.1/16")));
        assert!(networks.contains("172.17.3.4".parse().unwrap()));
        assert!(networks.remove(network("172.17.0.1/16")));
        assert!(!networks.contains("172.17.3.4".parse().unwrap()));
        networks.remove(network("172.17.0.1/16"));
    }

    #[test]
    fn prefix_lengths_are_looked_up_for_their_own_family_only() {
        let mut networks = NetworkSet::default();
        networks.add(network("fd00::1/64"));
        networks.add(network("10.0.0.1/8"));
        assert!(networks.contains("fd00::99".parse().unwrap()));
        assert!(!networks.contains("fd01::99".parse().unwrap()));
        assert!(networks.contains("10.200.0.1".parse().unwrap()));
        assert!(!networks.contains("11.0.0.1".parse().unwrap()));
    }
}
