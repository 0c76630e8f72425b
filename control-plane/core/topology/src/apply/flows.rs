//! Flows of a host.

use std::sync::Arc;

use base::Timestamp;

use crate::flows::{ChannelKey, FlowRow};
use crate::index::{FlowIndex, HostIndex};
use crate::report::{Flow, FlowKey};
use crate::topology::{Leaving, Topology};

impl Topology {
    pub(super) fn apply_flow(&mut self, now: Timestamp, host: HostIndex, epoch: u64, session: &Arc<str>, record: Flow) -> bool {
        let known = self.tables.hosts[host].flow_ids.get(&record.id).copied();
        let flow = match known.filter(|&flow| self.flows.rows[flow].session == *session) {
            Some(flow) => flow,
            None => {
                let Some(key) = record.key else { return false };
                match self.add_flow(now, host, session, record.id, key) {
                    Some(flow) => flow,
                    None => return false,
                }
            }
        };
        let window = self.config.window;
        let row = &mut self.flows.rows[flow];
        row.count(record.counters, (record.first_seen, record.last_active), now, window);
        row.epoch = epoch;
        row.is_gone = false;
        let moved = row.tell(record.translations, record.applications, record.others);
        match (!row.channels.is_empty(), row.is_drawn()) {
            (false, true) => {
                self.join(flow);
                self.lead(flow, true);
            }
            (true, false) => self.part(flow),
            (true, true) if moved => self.join_anew(flow),
            _ => {}
        }
        self.await_end(flow);
        true
    }

    fn join(&mut self, flow: FlowIndex) {
        let row = &self.flows.rows[flow];
        let (host, namespace, protocol) = (row.host, row.key.network_namespace, row.key.protocol);
        let keys: Vec<ChannelKey> = row
            .meetings()
            .into_iter()
            .map(|meeting| ChannelKey {
                scope: self.scope_of(host, namespace, meeting),
                client_address: meeting.client,
                server_address: meeting.server,
                server_port: meeting.port,
                protocol,
            })
            .collect();
        self.flows.attach(flow, keys);
    }

    /// Where its ends meet has changed.
    pub(super) fn join_anew(&mut self, flow: FlowIndex) {
        self.flows.detach(flow);
        self.join(flow);
    }

    fn part(&mut self, flow: FlowIndex) {
        if !self.flows.rows[flow].channels.is_empty() {
            self.lead(flow, false);
            self.flows.detach(flow);
        }
    }

    pub(super) fn add_flow(&mut self, now: Timestamp, host: HostIndex, session: &Arc<str>, id: u64, key: FlowKey) -> Option<FlowIndex> {
        if self.tables.hosts[host].flows.len() >= self.config.limits.flows {
            return None;
        }
        // The container last: the mention of a process can remove an older one, and what only that one mentioned.
        let process = key.process.and_then(|key| self.mention_process(host, key));
        let container = key.container_id.as_ref().map(|id| self.mention_container(host, id));
        if let (Some(process), Some(container)) = (process, container)
            && !self.tables.processes[process].described
        {
            self.contain_process(process, Some(container));
        }
        // A process knows its container; only an end without one is the container's own.
        let container = container.filter(|_| process.is_none());
        let ordinal = self.flows.take_ordinal();
        let flow = self.flows.rows.insert(FlowRow::new(host, session.clone(), id, ordinal, key, process, container, now));
        self.flows.by_ordinal.insert(ordinal, flow);
        if let Some(process) = process {
            self.tables.processes[process].flows.insert(flow);
        }
        if let Some(container) = container {
            self.tables.containers[container].flows.insert(flow);
        }
        let row = &mut self.tables.hosts[host];
        row.flows.insert(flow);
        if let Some(replaced) = row.flow_ids.insert(id, flow) {
            // The same number of an older session.
            self.remove_flow(replaced);
        }
        Some(flow)
    }

    /// Its probe does not have a flow any more: it stays on the map for a window after what last happened on it.
    pub(super) fn flow_leaves(&mut self, now: Timestamp, flow: FlowIndex) {
        self.flows.rows[flow].end(now);
        self.await_end(flow);
    }

    /// Looks at a flow again when it may have to leave. Where that is noted already it stays: of a flow on which something happens all the
    /// time it is found out once in a window, and not noted anew with every report.
    fn await_end(&mut self, flow: FlowIndex) {
        let row = &mut self.flows.rows[flow];
        if row.leaves_at.is_none()
            && let Some(at) = row.ends_at(self.config.window)
        {
            row.leaves_at = Some(at);
            self.leaving.insert((at, Leaving::Flow(flow)));
        }
    }

    /// The time has come at which a flow had to leave if nothing happened on it.
    pub(crate) fn flow_is_due(&mut self, now: Timestamp, flow: FlowIndex) {
        let window = self.config.window;
        let Some(row) = self.flows.rows.get_mut(flow) else { return };
        row.leaves_at = None;
        match row.ends_at(window) {
            Some(at) if at > now => self.await_end(flow),
            Some(_) if row.is_gone => self.remove_flow(flow),
            Some(_) => {
                row.has_faded = true;
                self.part(flow);
            }
            None => {}
        }
    }

    pub(crate) fn remove_flow(&mut self, flow: FlowIndex) {
        if self.flows.rows.get(flow).is_none() {
            return;
        }
        self.part(flow);
        let Some(row) = self.flows.rows.remove(flow) else { return };
        if let Some(at) = row.leaves_at {
            self.leaving.remove(&(at, Leaving::Flow(flow)));
        }
        self.flows.by_ordinal.remove(&row.ordinal);
        let host = &mut self.tables.hosts[row.host];
        host.flows.remove(&flow);
        if host.flow_ids.get(&row.probe_flow_id) == Some(&flow) {
            host.flow_ids.remove(&row.probe_flow_id);
        }
        if let Some(process) = row.process {
            self.tables.processes[process].flows.remove(&flow);
            let process_row = &self.tables.processes[process];
            if !process_row.described && process_row.flows.is_empty() {
                self.remove_process(process);
            }
        }
        if let Some(container) = row.container {
            if let Some(container_row) = self.tables.containers.get_mut(container) {
                container_row.flows.remove(&flow);
            }
            self.forget_container_if_unused(container);
        }
    }
}
