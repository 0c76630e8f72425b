//! What is where: a plan of the whole cluster from which every host takes its part, so that two hosts that share an edge agree on it.

use std::net::Ipv4Addr;

use crate::random::Random;

/// How large a cluster is, over all hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) hosts: u32,
    pub(crate) containers: u32,
    pub(crate) processes: u32,
    pub(crate) flows: u32,
}

/// The plan.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) size: Size,
    pub(crate) seed: u64,
    /// Of each host, the ends of edges there.
    ends: Vec<Vec<End>>,
}

/// One end of an edge, on some host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) is_client: bool,
    pub(crate) client: Place,
    pub(crate) server: Place,
    pub(crate) port: u16,
}

/// A container, by host and number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: u32,
    pub(crate) slot: u32,
}

/// Kinds of services; each container is one of them.
pub(crate) const SERVICES: [&str; 12] =
    ["web", "api", "auth", "cart", "search", "billing", "redis", "postgres", "kafka", "worker", "mailer", "metrics"];

impl World {
    pub(crate) fn new(size: Size, seed: u64) -> Self {
        let mut world = World { size, seed, ends: vec![Vec::new(); size.hosts as usize] };
        let mut random = Random::new(seed);
        for _ in 0..size.flows / 2 {
            let client = world.any_place(&mut random);
            let server = world.any_place(&mut random);
            let port = world.port_of(server);
            for (is_client, host) in [(true, client.host), (false, server.host)] {
                world.ends[host as usize].push(End { is_client, client, server, port });
            }
        }
        world
    }

    /// How many of `all` are on a host, so that they add up.
    pub(crate) fn part(&self, all: u32, host: u32) -> u32 {
        let before = |host: u32| u32::try_from(u64::from(all) * u64::from(host) / u64::from(self.size.hosts)).unwrap_or(u32::MAX);
        before(host + 1) - before(host)
    }

    /// Ends of edges on a host.
    pub(crate) fn ends(&self, host: u32) -> &[End] {
        &self.ends[host as usize]
    }

    fn any_place(&self, random: &mut Random) -> Place {
        let host = random.below(self.size.hosts);
        Place { host, slot: random.below(self.part(self.size.containers, host).max(1)) }
    }

    /// Name of a host.
    pub(crate) fn host_name(host: u32) -> String {
        format!("host-{host:05}")
    }

    /// Address of a host.
    pub(crate) fn host_address(host: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + host)
    }

    /// Address of a container: each has its own, whoever is in it.
    pub(crate) fn address(&self, place: Place) -> Ipv4Addr {
        let before = u64::from(self.size.containers) * u64::from(place.host) / u64::from(self.size.hosts);
        let number = u32::try_from(before).unwrap_or(0) + place.host + place.slot;
        Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 1)) + number)
    }

    /// What a container is.
    pub(crate) fn service(&self, place: Place) -> &'static str {
        SERVICES[(place.host as usize * 7 + place.slot as usize) % SERVICES.len()]
    }

    fn port_of(&self, place: Place) -> u16 {
        8_000 + u16::try_from(place.slot % 12).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn parts_add_up_and_addresses_are_unique() {
        let size = Size { hosts: 7, containers: 50, processes: 101, flows: 200 };
        let world = World::new(size, 3);
        let sum = |all| (0..size.hosts).map(|host| world.part(all, host)).sum::<u32>();
        assert_eq!((sum(size.containers), sum(size.processes)), (50, 101));
        let places = (0..7).flat_map(|host| (0..world.part(50, host)).map(move |slot| Place { host, slot }));
        let addresses: BTreeSet<Ipv4Addr> = places.map(|place| world.address(place)).collect();
        assert_eq!(addresses.len(), 50);
    }

    #[test]
    fn every_edge_has_both_its_ends() {
        let world = World::new(Size { hosts: 5, containers: 20, processes: 0, flows: 100 }, 9);
        let ends: Vec<End> = (0..5).flat_map(|host| world.ends(host)).copied().collect();
        assert_eq!(ends.len(), 100);
        for end in &ends {
            assert!(ends.contains(&End { is_client: !end.is_client, ..*end }));
        }
    }
}
