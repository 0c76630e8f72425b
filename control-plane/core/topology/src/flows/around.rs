//! Who is at an address, as far as anybody told.

use std::net::IpAddr;
use std::sync::Arc;

use super::{FlowRow, Terminal};
use crate::index::{ContainerIndex, HostIndex};
use crate::listeners::ListenerRow;
use crate::names::is_known_service;
use crate::networks::{AddressBook, NetworkSet};
use crate::report::Protocol;
use crate::tables::Tables;

/// Where a server is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

/// What surrounds a flow: who holds which address.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) addresses: &'a AddressBook,
    pub(crate) networks: &'a NetworkSet,
}

impl Surroundings<'_> {
    /// Who serves at a place that no probe reported a server for; `None` for an unknown peer in a local network, which Scope hides.
    pub(super) fn resolve_server(&self, place: Place, namespace: u64, host: HostIndex) -> Option<Terminal> {
        if let Some(container) = self.publisher(place.address, place.port, host) {
            return Some(Terminal::Container(container));
        }
        match self.holder(place.address, host) {
            Some(holder) => holder.map(|holder| self.listener(place, namespace, holder).unwrap_or(holder)),
            None => self.outside(place.address, Terminal::InternetOut),
        }
    }

    /// Whether nobody of ours is at a place.
    pub(super) fn is_outside(&self, place: Place, is_client: bool, host: HostIndex) -> bool {
        !is_never_routed(place.address)
            && self.holder(place.address, host).is_none()
            && (is_client || self.publisher(place.address, place.port, host).is_none())
    }

    /// What the host of a flow last called its other end.
    pub(crate) fn name_of(&self, flow: &FlowRow) -> Option<&Arc<str>> {
        let names = &self.tables.hosts.get(flow.host)?.names;
        flow.named_addresses().iter().find_map(|address| names.latest(*address))
    }

    /// The first name of a flow's other end that is one of a known service.
    pub(super) fn known_service(&self, flow: &FlowRow) -> Option<Arc<str>> {
        let names = &self.tables.hosts.get(flow.host)?.names;
        flow.named_addresses().iter().find_map(|address| names.of(*address).find(|name| is_known_service(name))).cloned()
    }

    /// The process that alone listens at a place, where the holder of the address is known.
    fn listener(&self, place: Place, namespace: u64, holder: Terminal) -> Option<Terminal> {
        let host = match holder {
            Terminal::Host(host) => host,
            Terminal::Container(container) => self.tables.containers.get(container)?.host,
            _ => return None,
        };
        let row = self.tables.hosts.get(host)?;
        let id = |container: ContainerIndex| self.tables.containers.get(container).map(|it| &it.id);
        let is_there = |listener: &ListenerRow| {
            let it = &listener.record;
            let is_at = it.address == place.address || it.address.is_unspecified();
            let is_same = match holder {
                Terminal::Container(container) => it.container_id.as_ref() == id(container),
                _ if place.address.is_loopback() => it.network_namespace == namespace,
                _ => it.container_id.as_ref().is_none_or(|id| self.tables.is_in_host_network(id)),
            };
            is_at && is_same
        };
        let mut found = row.listeners.at(place.protocol, place.port).filter(|listener| is_there(listener));
        let process = found.next()?.record.process?;
        if found.any(|other| other.record.process != Some(process)) {
            return None;
        }
        row.processes.get(&process).map(|&process| Terminal::Process(process))
    }

    pub(super) fn resolve_client(&self, address: IpAddr, host: HostIndex) -> Option<Terminal> {
        self.holder(address, host).unwrap_or_else(|| self.outside(address, Terminal::InternetIn))
    }

    fn outside(&self, address: IpAddr, internet: Terminal) -> Option<Terminal> {
        let local = self.networks.contains(address) || is_never_routed(address);
        (!local).then_some(internet)
    }

    /// Who holds an address, as seen from `host`. `Some(None)`: it is held, but not by one alone.
    fn holder(&self, address: IpAddr, host: HostIndex) -> Option<Option<Terminal>> {
        if address.is_loopback() {
            return Some(Some(Terminal::Host(host)));
        }
        let holders = self.addresses.holders(address)?;
        let mut here = holders.containers.iter().filter(|&&container| self.tables.containers[container].host == host);
        let container = match (here.next(), here.next()) {
            (Some(&container), None) => Some(container),
            (None, None) if holders.containers.len() == 1 => holders.containers.first().copied(),
            _ => None,
        };
        if let Some(container) = container {
            return Some(Some(Terminal::Container(container)));
        }
        if holders.containers.is_empty() && holders.objects.len() == 1 {
            return Some(holders.objects.first().map(|&object| Terminal::Object(object)));
        }
        if holders.hosts.contains(&host) {
            return Some(Some(Terminal::Host(host)));
        }
        if holders.hosts.len() == 1 {
            return Some(holders.hosts.first().map(|&host| Terminal::Host(host)));
        }
        Some(None)
    }

    /// Who alone holds an address, as seen from outside.
    pub(crate) fn sole_holder(&self, address: IpAddr) -> Option<Terminal> {
        let holders = self.addresses.holders(address).filter(|_| !is_never_routed(address))?;
        match (holders.containers.len(), holders.objects.len(), holders.hosts.len()) {
            (1, ..) => holders.containers.first().map(|&container| Terminal::Container(container)),
            (0, 1, _) => holders.objects.first().map(|&object| Terminal::Object(object)),
            (0, 0, 1) => holders.hosts.first().map(|&host| Terminal::Host(host)),
            _ => None,
        }
    }

    /// The container that publishes a port on an address of a host.
    fn publisher(&self, address: IpAddr, port: u16, host: HostIndex) -> Option<ContainerIndex> {
        let on = |host: HostIndex| {
            let published = &self.tables.hosts.get(host)?.published;
            published.get(&(Some(address), port)).or_else(|| published.get(&(None, port))).copied()
        };
        if address.is_loopback() {
            return on(host);
        }
        let holders = self.addresses.holders(address)?;
        if holders.hosts.contains(&host) { on(host) } else { holders.hosts.first().and_then(|&host| on(host)) }
    }
}

/// Addresses that never leave a link or a host, whatever the interfaces say.
fn is_never_routed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local() || address.is_unspecified() || address.is_multicast(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified() || address.is_multicast()
        }
    }
}
