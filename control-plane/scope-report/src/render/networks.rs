//! Which addresses are local.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use topology::Network;

use crate::model::{Kind, Report};

/// Networks of all hosts. Looking an address up costs a probe for each prefix length in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Networks {
    v4: BTreeMap<u8, BTreeSet<u32>>,
}

impl Networks {
    /// Those that hosts and overlays name, and the smallest one with the addresses of all Kubernetes services in it: the range that these are
    /// taken from is told to nobody.
    pub(super) fn of(report: &Report) -> Self {
        let mut networks = Networks::default();
        for kind in [Kind::Host, Kind::Overlay] {
            for text in report.table(kind).nodes.values().filter_map(|node| node.sets.get("local_networks")).flatten() {
                networks.add_text(text);
            }
        }
        let services = report.table(Kind::Service).nodes.values();
        let addresses = services.filter_map(|node| node.value("kubernetes_ip")?.parse().ok()).map(Ipv4Addr::to_bits);
        if let Some((lowest, highest)) =
            addresses.fold(None, |range: Option<(u32, u32)>, it| Some(range.map_or((it, it), |(low, high)| (low.min(it), high.max(it)))))
        {
            networks.add(lowest, u8::try_from((lowest ^ highest).leading_zeros()).unwrap_or(32));
        }
        networks
    }

    fn add_text(&mut self, text: &str) {
        let parts = text.split_once('/').and_then(|(address, length)| Some((address.parse::<Ipv4Addr>().ok()?, length.parse().ok()?)));
        if let Some((address, length @ 0..=32)) = parts {
            self.add(address.to_bits(), length);
        }
    }

    fn add(&mut self, address: u32, length: u8) {
        self.v4.entry(length).or_default().insert(address & mask(length));
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        self.v4.iter().any(|(&length, networks)| networks.contains(&(address.to_bits() & mask(length))))
    }

    pub(super) fn list(&self) -> Vec<Network> {
        let all = self.v4.iter().flat_map(|(&length, networks)| networks.iter().map(move |&bits| (length, bits)));
        all.map(|(prefix_length, bits)| Network { address: IpAddr::V4(Ipv4Addr::from_bits(bits)), prefix_length }).collect()
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}
