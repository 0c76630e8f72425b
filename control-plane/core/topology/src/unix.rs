//! Connections over Unix sockets, between processes of one host. Both ends are told by one probe, so nothing has to be joined.

use std::collections::{BTreeMap, BTreeSet};

use base::Timestamp;

use crate::index::Entity;
use crate::report::{ProcessKey, UnixFlow};

/// Connections of one client to one server over one path.
#[derive(Debug)]
pub(crate) struct UnixRow {
    pub(crate) record: UnixFlow,
    pub(crate) epoch: u64,
    pub(crate) leaves_at: Option<Timestamp>,
    /// Edges that it has in the projections, by the place of the view.
    pub(crate) edges: Vec<(u8, Entity, Entity)>,
}

/// Those of one host.
#[derive(Debug, Default)]
pub(crate) struct UnixFlows {
    rows: BTreeMap<u64, UnixRow>,
    by_process: BTreeSet<(ProcessKey, u64)>,
}

impl UnixFlows {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn get(&self, id: u64) -> Option<&UnixRow> {
        self.rows.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut UnixRow> {
        self.rows.get_mut(&id)
    }

    /// In order of their ids.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.rows.keys().copied()
    }

    /// Takes a record over; its edges stay until they are worked out again.
    pub(crate) fn put(&mut self, record: UnixFlow, epoch: u64) {
        let id = record.id;
        let old = self.take(id);
        let edges = old.map(|old| old.edges).unwrap_or_default();
        self.by_process.extend([(record.client, id), (record.server, id)]);
        self.rows.insert(id, UnixRow { record, epoch, leaves_at: None, edges });
    }

    pub(crate) fn take(&mut self, id: u64) -> Option<UnixRow> {
        let row = self.rows.remove(&id)?;
        self.by_process.remove(&(row.record.client, id));
        self.by_process.remove(&(row.record.server, id));
        Some(row)
    }

    /// Ids of what a snapshot did not name.
    pub(crate) fn older_than(&self, epoch: u64) -> Vec<u64> {
        self.rows.iter().filter(|(_, row)| row.epoch != epoch).map(|(id, _)| *id).collect()
    }

    /// Ids of those that a process is an end of.
    pub(crate) fn of_process(&self, process: ProcessKey) -> impl Iterator<Item = u64> + '_ {
        self.by_process.range((process, 0)..=(process, u64::MAX)).map(|&(_, id)| id)
    }
}
