//! Listening sockets, and connections over Unix sockets.

use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;

use crate::index::{ContainerIndex, Entity, HostIndex, ProcessIndex};
use crate::report::{Listener, ProcessKey, UnixFlow};
use crate::topology::{Leaving, Topology};
use crate::view::View;

impl Topology {
    pub(super) fn apply_listener(&mut self, host: HostIndex, epoch: u64, record: Listener) -> bool {
        let listeners = &mut self.tables.hosts[host].listeners;
        if listeners.get(record.id).is_none() && listeners.len() >= self.config.limits.listeners {
            return false;
        }
        let old = listeners.put(record.clone(), epoch);
        if old.as_ref() != Some(&record) {
            old.into_iter().for_each(|old| self.listener_changed(host, &old));
            self.listener_changed(host, &record);
        }
        true
    }

    pub(super) fn listener_gone(&mut self, host: HostIndex, id: u64) {
        if let Some(old) = self.tables.hosts[host].listeners.remove(id) {
            self.listener_changed(host, &old);
        }
    }

    /// Connections to where a socket listens lead elsewhere, and its holder looks different.
    fn listener_changed(&mut self, host: HostIndex, listener: &Listener) {
        self.unsettle_listener(host, listener);
        let process = listener.process.and_then(|key| self.tables.hosts[host].processes.get(&key)).copied();
        if let Some(process) = process {
            self.touch(View::Processes, Entity::Process(process));
        }
        if let Some(container) = self.container_of(host, listener) {
            self.touch(View::Containers, Entity::Container(container));
        }
    }

    fn container_of(&self, host: HostIndex, listener: &Listener) -> Option<ContainerIndex> {
        let container = *self.tables.container_ids.get(listener.container_id.as_ref()?)?;
        (self.tables.containers[container].host == host).then_some(container)
    }

    fn unsettle_listener(&mut self, host: HostIndex, listener: &Listener) {
        if !listener.address.is_unspecified() {
            self.flows.unsettle_server(listener.address, listener.port);
            return;
        }
        self.flows.unsettle_loopback_servers(listener.port);
        let container = self.container_of(host, listener).and_then(|container| self.tables.containers[container].record.as_ref());
        let addresses: Vec<IpAddr> = container.into_iter().flat_map(|record| record.addresses.iter().copied()).collect();
        let own = self.tables.hosts[host].record.addresses.iter().copied();
        own.chain(addresses).for_each(|address| self.flows.unsettle_server(address, listener.port));
    }

    /// Everything that a process holds leads elsewhere in some view.
    pub(super) fn unsettle_process(&mut self, process: ProcessIndex) {
        let row = &self.tables.processes[process];
        row.flows.iter().for_each(|&flow| self.flows.unsettle(flow));
        let (host, key) = (row.host, row.record.key);
        self.unsettle_key(host, key);
    }

    /// What mentions a process by its key, on the map or not, leads elsewhere.
    pub(super) fn unsettle_key(&mut self, host: HostIndex, key: ProcessKey) {
        let row = &self.tables.hosts[host];
        self.unsettled_unix.extend(row.unix_flows.of_process(key).map(|id| (host, id)));
        let listeners: Vec<Listener> = row.listeners.of_process(key).map(|row| row.record.clone()).collect();
        listeners.iter().for_each(|listener| self.unsettle_listener(host, listener));
    }

    /// Whether a container shares its host's network has changed, which decides where its sockets are reached.
    pub(super) fn unsettle_listeners_of(&mut self, host: HostIndex, container: &Arc<str>) {
        let listeners: Vec<Listener> = self.tables.hosts[host].listeners.of_container(container).map(|row| row.record.clone()).collect();
        listeners.iter().for_each(|listener| self.unsettle_listener(host, listener));
    }

    // Unix sockets.

    pub(super) fn apply_unix_flow(&mut self, host: HostIndex, epoch: u64, record: UnixFlow) -> bool {
        let rows = &mut self.tables.hosts[host].unix_flows;
        let id = record.id;
        if rows.get(id).is_none() && rows.len() >= self.config.limits.unix_flows {
            return false;
        }
        if let Some(at) = rows.get(id).and_then(|row| row.leaves_at) {
            self.leaving.remove(&(at, Leaving::Unix(host, id)));
        }
        rows.put(record, epoch);
        self.unsettled_unix.insert((host, id));
        true
    }

    pub(super) fn unix_flow_leaves(&mut self, now: Timestamp, host: HostIndex, id: u64) {
        let at = now + self.config.window;
        let Some(row) = self.tables.hosts[host].unix_flows.get_mut(id) else { return };
        if row.leaves_at.is_none() {
            row.leaves_at = Some(at);
            row.record.open = 0;
            self.leaving.insert((at, Leaving::Unix(host, id)));
        }
    }

    pub(crate) fn remove_unix_flow(&mut self, host: HostIndex, id: u64) {
        let Some(row) = self.tables.hosts.get_mut(host).and_then(|host| host.unix_flows.take(id)) else { return };
        if let Some(at) = row.leaves_at {
            self.leaving.remove(&(at, Leaving::Unix(host, id)));
        }
        self.unsettled_unix.remove(&(host, id));
        for (place, from, to) in row.edges {
            self.projections[usize::from(place)].remove_edge(from, to);
        }
    }
}
