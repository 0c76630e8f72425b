//! Sockets that wait for connections, on one host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::report::{Listener, ProcessKey, Protocol};

/// A listening socket.
#[derive(Debug)]
pub(crate) struct ListenerRow {
    pub(crate) record: Listener,
    pub(crate) epoch: u64,
}

/// Listening sockets of one host by what they are looked up by.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    rows: BTreeMap<u64, ListenerRow>,
    by_port: BTreeSet<(u16, Protocol, u64)>,
    by_process: BTreeSet<(ProcessKey, u64)>,
    by_container: BTreeSet<(Arc<str>, u64)>,
}

impl Listeners {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn get(&self, id: u64) -> Option<&ListenerRow> {
        self.rows.get(&id)
    }

    /// In order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ListenerRow> {
        self.rows.values()
    }

    /// Takes a record over, and gives back the one before.
    pub(crate) fn put(&mut self, record: Listener, epoch: u64) -> Option<Listener> {
        let old = self.remove(record.id);
        self.by_port.insert((record.port, record.protocol, record.id));
        self.by_process.extend(record.process.map(|process| (process, record.id)));
        self.by_container.extend(record.container_id.iter().map(|id| (id.clone(), record.id)));
        self.rows.insert(record.id, ListenerRow { record, epoch });
        old
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Listener> {
        let record = self.rows.remove(&id)?.record;
        self.by_port.remove(&(record.port, record.protocol, id));
        if let Some(process) = record.process {
            self.by_process.remove(&(process, id));
        }
        if let Some(container) = &record.container_id {
            self.by_container.remove(&(container.clone(), id));
        }
        Some(record)
    }

    /// Ids of what a snapshot did not name.
    pub(crate) fn older_than(&self, epoch: u64) -> Vec<u64> {
        self.rows.iter().filter(|(_, row)| row.epoch != epoch).map(|(id, _)| *id).collect()
    }

    /// Those on a port.
    pub(crate) fn at(&self, protocol: Protocol, port: u16) -> impl Iterator<Item = &ListenerRow> {
        self.by_port.range((port, protocol, 0)..=(port, protocol, u64::MAX)).filter_map(|(.., id)| self.rows.get(id))
    }

    /// Those on a port with any protocol.
    pub(crate) fn on_port(&self, port: u16) -> impl Iterator<Item = &ListenerRow> {
        self.by_port.range((port, Protocol::Tcp, 0)..=(port, Protocol::Udp, u64::MAX)).filter_map(|(.., id)| self.rows.get(id))
    }

    /// Those of a process.
    pub(crate) fn of_process(&self, process: ProcessKey) -> impl Iterator<Item = &ListenerRow> {
        self.by_process.range((process, 0)..=(process, u64::MAX)).filter_map(|(_, id)| self.rows.get(id))
    }

    /// Those of all incarnations of a pid.
    pub(crate) fn of_pid(&self, pid: u32) -> impl Iterator<Item = &ListenerRow> {
        let (first, last) = (ProcessKey { pid, start_time: 0 }, ProcessKey { pid, start_time: u64::MAX });
        self.by_process.range((first, 0)..=(last, u64::MAX)).filter_map(|(_, id)| self.rows.get(id))
    }

    /// Those of a container.
    pub(crate) fn of_container<'a>(&'a self, container: &Arc<str>) -> impl Iterator<Item = &'a ListenerRow> + use<'a> {
        self.by_container.range((container.clone(), 0)..=(container.clone(), u64::MAX)).filter_map(|(_, id)| self.rows.get(id))
    }
}
