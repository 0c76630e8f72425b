//! Processes of a host.

use std::collections::{BTreeSet, VecDeque};

use base::Timestamp;

use crate::index::{ContainerIndex, Entity, HostIndex, ProcessIndex};
use crate::node::NodeId;
use crate::report::{Process, ProcessKey, ProcessMetrics};
use crate::tables::{ProcessRow, ProcessSample, push_sample};
use crate::topology::{Leaving, Topology};
use crate::view::View;

impl Topology {
    pub(super) fn apply_process(&mut self, now: Timestamp, host: HostIndex, epoch: u64, record: Process) -> bool {
        let Some(process) = self.mention_process(host, record.key) else { return false };
        let container = record.container_id.as_ref().map(|id| self.mention_container(host, id));
        let row = &mut self.tables.processes[process];
        row.epoch = epoch;
        let exited = record.exited_at.is_some();
        let was_described = std::mem::replace(&mut row.described, true);
        let old = std::mem::replace(&mut row.record, record);
        if exited {
            self.process_leaves(now, process);
        } else if let Some(at) = row.leaves_at.take() {
            self.leaving.remove(&(at, Leaving::Process(process)));
        }
        self.contain_process(process, container);
        let row = &self.tables.processes[process];
        if !was_described || old.name != row.record.name {
            self.name_process(process);
        }
        if !was_described || old != self.tables.processes[process].record {
            self.touch(View::Processes, Entity::Process(process));
        }
        true
    }

    /// The row of a process; a bare one when it was not described yet. `None` beyond the limit, and for an older incarnation of a pid that is
    /// in use again.
    pub(super) fn mention_process(&mut self, host: HostIndex, key: ProcessKey) -> Option<ProcessIndex> {
        let row = &self.tables.hosts[host];
        if let Some(&process) = row.processes.get(&key) {
            return Some(process);
        }
        if let Some(&holder) = row.by_pid.get(&key.pid) {
            if self.tables.processes[holder].record.key.start_time > key.start_time {
                return None;
            }
            self.remove_process(holder);
        }
        let row = &self.tables.hosts[host];
        if row.processes.len() >= self.config.limits.processes {
            return None;
        }
        let process = self.tables.processes.insert(ProcessRow {
            host,
            node_id: format!("{};{}", row.name, key.pid).into(),
            record: Process { key, ..Process::default() },
            described: false,
            container: None,
            name: None,
            flows: BTreeSet::new(),
            peers: Default::default(),
            samples: VecDeque::new(),
            io: (0, 0),
            epoch: 0,
            leaves_at: None,
        });
        let row = &mut self.tables.hosts[host];
        row.processes.insert(key, process);
        row.by_pid.insert(key.pid, process);
        self.unsettle_key(host, key);
        self.set_present(View::Processes, Entity::Process(process), true);
        Some(process)
    }

    pub(super) fn contain_process(&mut self, process: ProcessIndex, container: Option<ContainerIndex>) {
        let row = &mut self.tables.processes[process];
        let old = std::mem::replace(&mut row.container, container);
        if old == container {
            return;
        }
        let mut talks_to_names = false;
        for (name, count) in row.peers.counts() {
            talks_to_names = true;
            if let Some(old) = old {
                self.tables.containers[old].peers.remove(name, count);
            }
            if let Some(new) = container {
                self.tables.containers[new].peers.add(name, count);
            }
        }
        if talks_to_names {
            // Their panels name whom their processes talk to.
            for container in [old, container].into_iter().flatten() {
                self.touch(View::Containers, Entity::Container(container));
                self.touch_task_of(container);
            }
        }
        self.unsettle_process(process);
        if let Some(new) = container {
            self.tables.containers[new].processes.insert(process);
        }
        if let Some(old) = old {
            self.tables.containers[old].processes.remove(&process);
            self.forget_container_if_unused(old);
        }
        self.touch(View::Processes, Entity::Process(process));
    }

    pub(super) fn name_process(&mut self, process: ProcessIndex) {
        let row = &self.tables.processes[process];
        let old = row.name;
        let text = row.record.name.clone();
        let new = (!text.is_empty()).then(|| self.tables.names.join(&text, process, |text| NodeId(text.clone())));
        if old == new {
            return;
        }
        let row = &mut self.tables.processes[process];
        row.name = new;
        self.unsettle_process(process);
        if let Some(old) = old {
            let gone = self.tables.names.leave(old, process);
            self.group_changed(View::ProcessesByName, Entity::Name(old), !gone);
        }
        new.into_iter().for_each(|group| self.group_changed(View::ProcessesByName, Entity::Name(group), true));
    }

    pub(super) fn apply_process_metrics(&mut self, host: HostIndex, sample: ProcessMetrics) {
        let Some(&process) = self.tables.hosts[host].processes.get(&sample.key) else { return };
        let row = &mut self.tables.processes[process];
        #[expect(clippy::cast_possible_truncation, reason = "a percentage with seven digits is enough")]
        let packed = ProcessSample {
            at: sample.at,
            memory_bytes: sample.memory_bytes,
            open_files_limit: sample.open_files_limit,
            cpu_percent: sample.cpu_percent as f32,
            open_files: sample.open_files,
        };
        let old_thread_count = std::mem::replace(&mut row.record.thread_count, sample.thread_count);
        row.io = (sample.io_read_bytes, sample.io_written_bytes);
        if push_sample(&mut row.samples, packed, |it| it.at) {
            if old_thread_count == sample.thread_count {
                self.touch_numbers(View::Processes, Entity::Process(process));
            } else {
                self.touch(View::Processes, Entity::Process(process));
            }
        }
    }

    /// The probe has nothing more to say of a process: it stays for the window.
    pub(super) fn process_leaves(&mut self, now: Timestamp, process: ProcessIndex) {
        let at = now + self.config.window;
        let row = &mut self.tables.processes[process];
        if row.leaves_at.is_none() {
            row.leaves_at = Some(at);
            self.leaving.insert((at, Leaving::Process(process)));
        }
    }

    pub(crate) fn remove_process(&mut self, process: ProcessIndex) {
        let Some(row) = self.tables.processes.get_mut(process) else { return };
        if let Some(at) = row.leaves_at.take() {
            self.leaving.remove(&(at, Leaving::Process(process)));
        }
        let (host, key, flows) = (row.host, row.record.key, std::mem::take(&mut row.flows));
        self.unsettle_key(host, key);
        for flow in flows {
            self.count_peer(flow, false);
            // Its connections outlive it on the map only as far as their own window goes.
            let container = self.tables.processes[process].container;
            let row = &mut self.flows.rows[flow];
            row.process = None;
            row.container = container;
            if let Some(container) = container {
                self.tables.containers[container].flows.insert(flow);
            }
            self.count_peer(flow, true);
            self.flows.unsettle(flow);
        }
        self.contain_process(process, None);
        let row = &mut self.tables.processes[process];
        row.record.name = "".into();
        self.name_process(process);
        let host = &mut self.tables.hosts[host];
        host.processes.remove(&key);
        if host.by_pid.get(&key.pid) == Some(&process) {
            host.by_pid.remove(&key.pid);
        }
        self.set_present(View::Processes, Entity::Process(process), false);
        self.tables.processes.remove(process);
    }
}
