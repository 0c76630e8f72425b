//! A report's records become rows. Everything here is about one host: a probe can say nothing of another.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;

use crate::flows::{FlowRow, Scope};
use crate::index::{ContainerIndex, Entity, FlowIndex, HostIndex, ProcessIndex};
use crate::networks::canonical;
use crate::node::NodeId;
use crate::report::{
    Container, ContainerMetrics, Flow, FlowKey, Host, Image, Network, ProbeHello, ProbeId, Process, ProcessKey, ProcessMetrics, Report,
    ReportKind,
};
use crate::tables::{ContainerRow, ContainerSample, HostRow, ImageRow, ProcessRow, ProcessSample, push_sample};
use crate::text::image_without_tag;
use crate::topology::{Effect, Leaving, ReportRefusal, Source, StreamEnd, StreamId, Topology};
use crate::view::View;

impl Topology {
    /// Puts a report on the map, or says why not. Counts the records that were refused one by one.
    pub(crate) fn accept(&mut self, now: Timestamp, probe: &ProbeId, stream: StreamId, report: Report) -> Result<u64, ReportRefusal> {
        let row = self.probes.get_mut(probe).filter(|row| row.stream == Some(stream)).ok_or(ReportRefusal::StaleStream)?;
        row.last_seen = now;
        if report.sequence <= row.sequence {
            // Sent again after a reconnect: all records are absolute, and newer ones are on the map already.
            return Ok(0);
        }
        if report.kind == ReportKind::Delta {
            if row.in_snapshot || !row.complete {
                return Err(ReportRefusal::NoSnapshot);
            }
            if report.sequence != row.sequence + 1 {
                return Err(ReportRefusal::Gap { expected: row.sequence + 1, found: report.sequence });
            }
        } else if row.in_snapshot && report.sequence != row.sequence + 1 {
            return Err(ReportRefusal::Gap { expected: row.sequence + 1, found: report.sequence });
        } else if !row.in_snapshot {
            row.in_snapshot = true;
            row.epoch += 1;
        }
        row.sequence = report.sequence;
        if let Some(capture) = report.capture.clone() {
            row.capture = capture;
        }
        if let Some(losses) = report.losses.clone() {
            row.losses = losses;
        }
        let (source, epoch, kind) = (row.source, row.epoch, report.kind);
        let session = row.session.clone();
        let refused = match source {
            Source::Host(host) => self.apply(now, host, epoch, &session, report),
            Source::Cluster => self.apply_cluster(probe, epoch, report),
        };
        if kind == ReportKind::SnapshotEnd {
            match source {
                Source::Host(host) => self.sweep(now, host, epoch, &session),
                Source::Cluster => self.sweep_cluster(probe, epoch),
            }
            if let Some(row) = self.probes.get_mut(probe) {
                row.in_snapshot = false;
                row.complete = true;
            }
        }
        if let Some(row) = self.probes.get_mut(probe) {
            row.records_refused += refused;
        }
        Ok(refused)
    }

    fn apply(&mut self, now: Timestamp, host: HostIndex, epoch: u64, session: &Arc<str>, report: Report) -> u64 {
        // Only a cluster's collector speaks of Kubernetes.
        let mut refused = (report.kubernetes.len() + report.kubernetes_gone.len()) as u64;
        if let Some(record) = report.host {
            self.apply_host(host, record);
        }
        for image in report.images {
            self.apply_image(host, epoch, image);
        }
        for container in report.containers {
            refused += u64::from(!self.apply_container(host, epoch, container));
        }
        for process in report.processes {
            refused += u64::from(!self.apply_process(now, host, epoch, process));
        }
        for flow in report.flows {
            refused += u64::from(!self.apply_flow(now, host, epoch, session, flow));
        }
        for id in report.flows_gone {
            let flow = self.tables.hosts[host].flow_ids.get(&id).copied();
            flow.into_iter().for_each(|flow| self.flow_leaves(now, flow));
        }
        for key in report.processes_gone {
            let process = self.tables.hosts[host].processes.get(&key).copied();
            process.into_iter().for_each(|process| self.process_leaves(now, process));
        }
        for id in report.containers_gone {
            let container = self.tables.container_ids.get(&id).copied();
            container.filter(|&it| self.tables.containers[it].host == host).into_iter().for_each(|it| self.container_gone(it));
        }
        for id in report.images_gone {
            self.tables.hosts[host].images.remove(&id);
        }
        for sample in report.host_metrics {
            if push_sample(&mut self.tables.hosts[host].samples, sample, |it| it.at) {
                self.touch(View::Hosts, Entity::Host(host));
            }
        }
        for sample in report.process_metrics {
            self.apply_process_metrics(host, sample);
        }
        for sample in report.container_metrics {
            self.apply_container_metrics(host, sample);
        }
        refused
    }

    /// What an ended snapshot did not name is gone. Flows of an older session go at once: the new session named its own.
    fn sweep(&mut self, now: Timestamp, host: HostIndex, epoch: u64, session: &Arc<str>) {
        let row = &self.tables.hosts[host];
        let flows: Vec<FlowIndex> = row.flows.iter().copied().filter(|&it| self.flows.rows[it].epoch != epoch).collect();
        for flow in flows {
            if self.flows.rows[flow].session == *session { self.flow_leaves(now, flow) } else { self.remove_flow(flow) }
        }
        // Looked up only now: with its last flow, a process leaves that nothing else mentions.
        let row = &mut self.tables.hosts[host];
        row.images.retain(|_, image| image.epoch == epoch);
        let processes: Vec<ProcessIndex> = row.processes.values().copied().collect();
        let containers: Vec<ContainerIndex> = row.containers.iter().copied().collect();
        for process in processes {
            let row = &self.tables.processes[process];
            if row.described && row.epoch != epoch {
                self.process_leaves(now, process);
            }
        }
        for container in containers {
            if self.tables.containers.get(container).is_some_and(|row| row.record.is_some() && row.epoch != epoch) {
                self.container_gone(container);
            }
        }
    }

    // Hosts.

    pub(crate) fn add_host(&mut self, probe: &ProbeId, hello: &ProbeHello) -> HostIndex {
        let name = hello.host_name.clone();
        let host = self.tables.hosts.insert(HostRow {
            node_id: format!("{name};<host>").into(),
            uncontained_id: format!("pseudo:uncontained:{name}").into(),
            unmanaged_id: format!("pseudo:unmanaged:{name}").into(),
            name: name.clone(),
            probe: probe.clone(),
            probe_version: hello.version.clone(),
            record: Host::default(),
            samples: VecDeque::new(),
            processes: Default::default(),
            by_pid: Default::default(),
            containers: BTreeSet::new(),
            images: Default::default(),
            flows: BTreeSet::new(),
            flow_ids: Default::default(),
            published: Default::default(),
            private_networks: Vec::new(),
        });
        self.tables.host_names.insert(name, host);
        self.set_present(View::Hosts, Entity::Host(host), true);
        host
    }

    pub(crate) fn remove_probe(&mut self, probe: &ProbeId, end: StreamEnd, out: &mut Vec<Effect>) {
        let Some(row) = self.probes.remove(probe) else { return };
        if let Some(at) = row.leaves_at {
            self.leaving.remove(&(at, Leaving::Probe(probe.clone())));
        }
        let Source::Host(host) = row.source else {
            row.objects.into_iter().for_each(|object| self.object_gone(object));
            out.push(Effect::ProbeLeft { probe: probe.clone(), host_name: row.host_name, end });
            return;
        };
        let flows: Vec<FlowIndex> = self.tables.hosts[host].flows.iter().copied().collect();
        flows.into_iter().for_each(|flow| self.remove_flow(flow));
        let processes: Vec<ProcessIndex> = self.tables.hosts[host].processes.values().copied().collect();
        processes.into_iter().for_each(|process| self.remove_process(process));
        let containers: Vec<ContainerIndex> = self.tables.hosts[host].containers.iter().copied().collect();
        containers.into_iter().for_each(|container| self.container_gone(container));
        self.apply_host(host, Host::default());
        self.set_present(View::Hosts, Entity::Host(host), false);
        if let Some(row) = self.tables.hosts.remove(host) {
            self.tables.host_names.remove(&row.name);
        }
        out.push(Effect::ProbeLeft { probe: probe.clone(), host_name: row.host_name, end });
    }

    fn apply_host(&mut self, host: HostIndex, record: Host) {
        let old = std::mem::replace(&mut self.tables.hosts[host].record, record.clone());
        if old == record {
            return;
        }
        self.touch(View::Hosts, Entity::Host(host));
        let mut sharers = BTreeSet::new();
        for &address in old.addresses.iter().filter(|&address| !record.addresses.contains(address)) {
            self.addresses.remove_host(address, host);
            self.address_changed(address, &mut sharers);
        }
        for &address in record.addresses.iter().filter(|&address| !old.addresses.contains(address)) {
            self.addresses.add_host(address, host);
            self.address_changed(address, &mut sharers);
        }
        for &network in old.local_networks.iter().filter(|&network| !record.local_networks.contains(network)) {
            self.networks.remove(network);
            self.network_changed(network);
        }
        for &network in record.local_networks.iter().filter(|&network| !old.local_networks.contains(network)) {
            self.networks.add(network);
            self.network_changed(network);
        }
        sharers.insert(host);
        sharers.into_iter().for_each(|host| self.rescope(host));
    }

    fn address_changed(&mut self, address: IpAddr, sharers: &mut BTreeSet<HostIndex>) {
        self.flows.unsettle_addresses(address, address);
        if !address.is_loopback()
            && let Some(holders) = self.addresses.holders(address)
            && holders.hosts.len() <= 2
        {
            sharers.extend(holders.hosts.iter().copied());
        }
    }

    fn network_changed(&mut self, network: Network) {
        let (first, last) = bounds(network);
        self.flows.unsettle_addresses(first, last);
    }

    /// Works out again which of a host's networks mean something there alone (another host has the very same address in it: every Docker
    /// host's bridge), and moves its flows to the channels that follow from that.
    fn rescope(&mut self, host: HostIndex) {
        let Some(row) = self.tables.hosts.get(host) else { return };
        let is_shared =
            |address: &IpAddr| !address.is_loopback() && self.addresses.holders(*address).is_some_and(|holders| holders.hosts.len() > 1);
        let shared: Vec<IpAddr> = row.record.addresses.iter().copied().filter(is_shared).collect();
        let is_private = |network: &Network| shared.iter().any(|&address| network.contains(address));
        let private: Vec<Network> = row.record.local_networks.iter().copied().filter(is_private).map(canonical).collect();
        if private == row.private_networks {
            return;
        }
        self.tables.hosts[host].private_networks = private;
        let flows: Vec<FlowIndex> = self.tables.hosts[host].flows.iter().copied().collect();
        for flow in flows {
            if self.flows.rows[flow].channel.is_some() {
                self.flows.detach(flow);
                let scope = self.scope_of(host, &self.flows.rows[flow].key);
                self.flows.attach(flow, scope);
            }
        }
    }

    fn scope_of(&self, host: HostIndex, key: &FlowKey) -> Scope {
        if key.client_address.is_loopback() || key.server_address.is_loopback() {
            return Scope::Namespace(host, key.network_namespace);
        }
        let private = &self.tables.hosts[host].private_networks;
        let is_private = private.iter().any(|network| network.contains(key.client_address) && network.contains(key.server_address));
        if is_private { Scope::Host(host) } else { Scope::Cluster }
    }

    // Images and containers.

    fn apply_image(&mut self, host: HostIndex, epoch: u64, image: Image) {
        let id = image.id.clone();
        let row = ImageRow { record: image, epoch };
        let old = self.tables.hosts[host].images.insert(id.clone(), row);
        if old.is_some_and(|old| old.record == self.tables.hosts[host].images[&id].record) {
            return;
        }
        let containers: Vec<ContainerIndex> = self.tables.hosts[host].containers.iter().copied().collect();
        for container in containers {
            if self.tables.containers[container].record.as_ref().is_some_and(|record| record.image_id == id) {
                self.touch_container(container);
            }
        }
    }

    /// The row of a container that something mentions; it is in no view until it is described.
    fn mention_container(&mut self, host: HostIndex, id: &Arc<str>) -> ContainerIndex {
        if let Some(&container) = self.tables.container_ids.get(id) {
            return container;
        }
        let container = self.tables.containers.insert(ContainerRow {
            host,
            id: id.clone(),
            node_id: format!("{id};<container>").into(),
            record: None,
            processes: BTreeSet::new(),
            flows: BTreeSet::new(),
            image: None,
            hostname: None,
            pod: None,
            samples: VecDeque::new(),
            epoch: 0,
        });
        self.tables.container_ids.insert(id.clone(), container);
        container
    }

    fn forget_container_if_unused(&mut self, container: ContainerIndex) {
        let Some(row) = self.tables.containers.get(container) else { return };
        if row.record.is_none() && row.processes.is_empty() && row.flows.is_empty() {
            let id = row.id.clone();
            self.tables.container_ids.remove(&id);
            self.tables.containers.remove(container);
        }
    }

    fn apply_container(&mut self, host: HostIndex, epoch: u64, record: Container) -> bool {
        let container = self.mention_container(host, &record.id);
        let row = &mut self.tables.containers[container];
        if row.record.is_none() {
            if self.tables.hosts[host].containers.len() >= self.config.limits.containers {
                self.forget_container_if_unused(container);
                return false;
            }
            row.host = host;
            self.tables.hosts[host].containers.insert(container);
        } else if row.host != host {
            return false;
        }
        let row = &mut self.tables.containers[container];
        row.epoch = epoch;
        let old = row.record.replace(record.clone());
        if old.as_ref() == Some(&record) {
            return true;
        }
        self.container_addresses(container, host, old.as_ref(), Some(&record));
        self.regroup_container(container, Some(&record));
        self.find_pod(container);
        if old.is_none() {
            self.set_present(View::Containers, Entity::Container(container), true);
        }
        let seen_by = old.as_ref().map(|old| (&old.image_name, &old.hostname)) != Some((&record.image_name, &record.hostname));
        if seen_by {
            self.unsettle_container(container);
        }
        self.touch_container(container);
        if old.is_none_or(|old| old.name != record.name || old.labels != record.labels || old.image_name != record.image_name) {
            let processes: Vec<ProcessIndex> = self.tables.containers[container].processes.iter().copied().collect();
            processes.into_iter().for_each(|process| self.touch(View::Processes, Entity::Process(process)));
        }
        true
    }

    fn container_gone(&mut self, container: ContainerIndex) {
        let Some(row) = self.tables.containers.get_mut(container) else { return };
        let host = row.host;
        let Some(old) = row.record.take() else { return };
        row.samples.clear();
        self.tables.hosts[host].containers.remove(&container);
        self.container_addresses(container, host, Some(&old), None);
        self.regroup_container(container, None);
        self.find_pod(container);
        self.set_present(View::Containers, Entity::Container(container), false);
        self.unsettle_container(container);
        self.forget_container_if_unused(container);
    }

    /// Flows of a container lead elsewhere in some view.
    pub(crate) fn unsettle_container(&mut self, container: ContainerIndex) {
        let Some(row) = self.tables.containers.get(container) else { return };
        for &process in &row.processes {
            self.tables.processes[process].flows.iter().for_each(|&flow| self.flows.unsettle(flow));
        }
        row.flows.iter().for_each(|&flow| self.flows.unsettle(flow));
        for address in row.record.iter().flat_map(|record| record.addresses.iter()) {
            self.flows.unsettle_addresses(*address, *address);
        }
    }

    fn container_addresses(&mut self, container: ContainerIndex, host: HostIndex, old: Option<&Container>, new: Option<&Container>) {
        let addresses = |record: Option<&Container>| -> BTreeSet<IpAddr> {
            // A container in the host's network has the host's addresses, which are no sign of it.
            record.filter(|it| &*it.network_mode != "host").into_iter().flat_map(|it| it.addresses.iter().copied()).collect()
        };
        let published = |record: Option<&Container>| -> BTreeSet<(Option<IpAddr>, u16)> {
            let ports = record.into_iter().flat_map(|it| it.ports.iter()).filter_map(|port| port.host);
            ports.map(|(address, port)| (Some(address).filter(|address| !address.is_unspecified()), port)).collect()
        };
        let (before, after) = (addresses(old), addresses(new));
        for &address in before.difference(&after) {
            self.addresses.remove_container(address, container);
            self.flows.unsettle_addresses(address, address);
        }
        for &address in after.difference(&before) {
            self.addresses.add_container(address, container);
            self.flows.unsettle_addresses(address, address);
        }
        let (before, after) = (published(old), published(new));
        if before == after {
            return;
        }
        let row = &mut self.tables.hosts[host];
        for key in before.difference(&after) {
            if row.published.get(key) == Some(&container) {
                row.published.remove(key);
            }
        }
        row.published.extend(after.difference(&before).map(|&key| (key, container)));
        let own = row.record.addresses.clone();
        own.into_iter().for_each(|address| self.flows.unsettle_addresses(address, address));
    }

    fn regroup_container(&mut self, container: ContainerIndex, record: Option<&Container>) {
        let image = record.map(|it| Arc::<str>::from(image_without_tag(&it.image_name))).filter(|text| !text.is_empty());
        let hostname = record.map(|it| it.hostname.clone()).filter(|text| !text.is_empty());
        let row = &self.tables.containers[container];
        let (old_image, old_hostname) = (row.image, row.hostname);
        let new_image = image.map(|text| self.tables.images.join(&text, container, |text| format!("{text};<container_image>").into()));
        let new_hostname = hostname.map(|text| self.tables.hostnames.join(&text, container, |text| NodeId(text.clone())));
        let row = &mut self.tables.containers[container];
        (row.image, row.hostname) = (new_image, new_hostname);
        if let Some(old) = old_image.filter(|_| old_image != new_image) {
            let gone = self.tables.images.leave(old, container);
            self.group_changed(View::ContainersByImage, Entity::Image(old), !gone);
        }
        if let Some(old) = old_hostname.filter(|_| old_hostname != new_hostname) {
            let gone = self.tables.hostnames.leave(old, container);
            self.group_changed(View::ContainersByHostname, Entity::Hostname(old), !gone);
        }
        new_image.into_iter().for_each(|it| self.group_changed(View::ContainersByImage, Entity::Image(it), true));
        new_hostname.into_iter().for_each(|it| self.group_changed(View::ContainersByHostname, Entity::Hostname(it), true));
    }

    fn group_changed(&mut self, view: View, entity: Entity, present: bool) {
        self.set_present(view, entity, present);
        self.touch(view, entity);
    }

    pub(crate) fn touch_container(&mut self, container: ContainerIndex) {
        let row = &self.tables.containers[container];
        let (image, hostname) = (row.image, row.hostname);
        self.touch(View::Containers, Entity::Container(container));
        self.touch_pod_of(container);
        image.into_iter().for_each(|it| self.touch(View::ContainersByImage, Entity::Image(it)));
        hostname.into_iter().for_each(|it| self.touch(View::ContainersByHostname, Entity::Hostname(it)));
    }

    fn apply_container_metrics(&mut self, host: HostIndex, sample: ContainerMetrics) {
        let Some(&container) = self.tables.container_ids.get(&sample.id) else { return };
        let row = &mut self.tables.containers[container];
        let ContainerMetrics { at, cpu_percent, memory_bytes, memory_limit_bytes, .. } = sample;
        let packed = ContainerSample { at, cpu_percent, memory_bytes, memory_limit_bytes };
        if row.host == host && row.record.is_some() && push_sample(&mut row.samples, packed, |it| it.at) {
            self.touch(View::Containers, Entity::Container(container));
            self.touch_pod_of(container);
        }
    }

    // Processes.

    fn apply_process(&mut self, now: Timestamp, host: HostIndex, epoch: u64, record: Process) -> bool {
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
    fn mention_process(&mut self, host: HostIndex, key: ProcessKey) -> Option<ProcessIndex> {
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
            samples: VecDeque::new(),
            epoch: 0,
            leaves_at: None,
        });
        let row = &mut self.tables.hosts[host];
        row.processes.insert(key, process);
        row.by_pid.insert(key.pid, process);
        self.set_present(View::Processes, Entity::Process(process), true);
        Some(process)
    }

    fn contain_process(&mut self, process: ProcessIndex, container: Option<ContainerIndex>) {
        let row = &mut self.tables.processes[process];
        let old = std::mem::replace(&mut row.container, container);
        if old == container {
            return;
        }
        row.flows.iter().for_each(|&flow| self.flows.unsettle(flow));
        if let Some(new) = container {
            self.tables.containers[new].processes.insert(process);
        }
        if let Some(old) = old {
            self.tables.containers[old].processes.remove(&process);
            self.forget_container_if_unused(old);
        }
        self.touch(View::Processes, Entity::Process(process));
    }

    fn name_process(&mut self, process: ProcessIndex) {
        let row = &self.tables.processes[process];
        let old = row.name;
        let text = row.record.name.clone();
        let new = (!text.is_empty()).then(|| self.tables.names.join(&text, process, |text| NodeId(text.clone())));
        if old == new {
            return;
        }
        let row = &mut self.tables.processes[process];
        row.name = new;
        row.flows.iter().for_each(|&flow| self.flows.unsettle(flow));
        if let Some(old) = old {
            let gone = self.tables.names.leave(old, process);
            self.group_changed(View::ProcessesByName, Entity::Name(old), !gone);
        }
        new.into_iter().for_each(|group| self.group_changed(View::ProcessesByName, Entity::Name(group), true));
    }

    fn apply_process_metrics(&mut self, host: HostIndex, sample: ProcessMetrics) {
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
        row.record.thread_count = sample.thread_count;
        if push_sample(&mut row.samples, packed, |it| it.at) {
            self.touch(View::Processes, Entity::Process(process));
        }
    }

    /// The probe has nothing more to say of a process: it stays for the window.
    fn process_leaves(&mut self, now: Timestamp, process: ProcessIndex) {
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
        for flow in flows {
            // Its connections outlive it on the map only as far as their own window goes.
            let container = self.tables.processes[process].container;
            let row = &mut self.flows.rows[flow];
            row.process = None;
            row.container = container;
            if let Some(container) = container {
                self.tables.containers[container].flows.insert(flow);
            }
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

    // Flows.

    fn apply_flow(&mut self, now: Timestamp, host: HostIndex, epoch: u64, session: &Arc<str>, record: Flow) -> bool {
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
        row.count(record.counters, now, window);
        row.first_seen = record.first_seen;
        row.last_active = record.last_active;
        row.epoch = epoch;
        if let Some(at) = row.leaves_at.take() {
            self.leaving.remove(&(at, Leaving::Flow(flow)));
        }
        let row = &self.flows.rows[flow];
        if row.channel.is_none() && row.is_drawn() {
            let scope = self.scope_of(host, &row.key);
            self.flows.attach(flow, scope);
        } else if row.channel.is_some() && !row.is_drawn() {
            self.flows.detach(flow);
        }
        true
    }

    fn add_flow(&mut self, now: Timestamp, host: HostIndex, session: &Arc<str>, id: u64, key: FlowKey) -> Option<FlowIndex> {
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

    fn flow_leaves(&mut self, now: Timestamp, flow: FlowIndex) {
        let at = now + self.config.window;
        let row = &mut self.flows.rows[flow];
        if row.leaves_at.is_none() {
            row.leaves_at = Some(at);
            self.leaving.insert((at, Leaving::Flow(flow)));
        }
    }

    pub(crate) fn remove_flow(&mut self, flow: FlowIndex) {
        if self.flows.rows.get(flow).is_none() {
            return;
        }
        self.flows.detach(flow);
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

/// First and last address of a network.
fn bounds(network: Network) -> (IpAddr, IpAddr) {
    let first = canonical(network).address;
    let last = match first {
        IpAddr::V4(address) => {
            let host_bits = u32::MAX.checked_shr(u32::from(network.prefix_length)).unwrap_or(0);
            IpAddr::V4((address.to_bits() | host_bits).into())
        }
        IpAddr::V6(address) => {
            let host_bits = u128::MAX.checked_shr(u32::from(network.prefix_length)).unwrap_or(0);
            IpAddr::V6((address.to_bits() | host_bits).into())
        }
    };
    (first, last)
}
