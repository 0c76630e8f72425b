//! Images and containers of a host.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::index::{ContainerIndex, Entity, HostIndex, ProcessIndex};
use crate::node::NodeId;
use crate::report::{Container, ContainerMetrics, Image};
use crate::tables::{ContainerRow, ContainerSample, ImageRow, push_sample};
use crate::tasks;
use crate::text::image_without_tag;
use crate::topology::Topology;
use crate::view::View;

impl Topology {
    pub(super) fn apply_image(&mut self, host: HostIndex, epoch: u64, image: Image) {
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
    pub(super) fn mention_container(&mut self, host: HostIndex, id: &Arc<str>) -> ContainerIndex {
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
            peers: Default::default(),
            image: None,
            hostname: None,
            pod: None,
            task: None,
            samples: VecDeque::new(),
            latest: None,
            epoch: 0,
        });
        self.tables.container_ids.insert(id.clone(), container);
        container
    }

    pub(super) fn forget_container_if_unused(&mut self, container: ContainerIndex) {
        let Some(row) = self.tables.containers.get(container) else { return };
        if row.record.is_none() && row.processes.is_empty() && row.flows.is_empty() {
            let id = row.id.clone();
            self.tables.container_ids.remove(&id);
            self.tables.containers.remove(container);
        }
    }

    pub(super) fn apply_container(&mut self, host: HostIndex, epoch: u64, record: Container) -> bool {
        let container = self.mention_container(host, &record.id);
        let row = &mut self.tables.containers[container];
        if row.record.is_none() {
            if self.tables.hosts[host].containers.len() >= self.config.limits.containers {
                self.forget_container_if_unused(container);
                return false;
            }
            row.host = host;
            self.tables.hosts[host].containers.insert(container);
            self.tables.container_count += 1;
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
        if old.as_ref().map(|old| &old.network_mode) != Some(&record.network_mode) {
            self.unsettle_listeners_of(host, &record.id);
        }
        if old.is_none() {
            self.set_present(View::Containers, Entity::Container(container), true);
        }
        let groups = |it: &Container| (it.image_name.clone(), it.hostname.clone(), tasks::key(it));
        let seen_by = old.as_ref().map(groups) != Some(groups(&record));
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

    pub(super) fn container_gone(&mut self, container: ContainerIndex) {
        let Some(row) = self.tables.containers.get_mut(container) else { return };
        let host = row.host;
        let Some(old) = row.record.take() else { return };
        row.samples.clear();
        row.latest = None;
        if self.tables.hosts[host].containers.remove(&container) {
            self.tables.container_count -= 1;
        }
        self.container_addresses(container, host, Some(&old), None);
        self.regroup_container(container, None);
        self.find_pod(container);
        self.set_present(View::Containers, Entity::Container(container), false);
        // They say in what they run, and link there.
        let processes: Vec<ProcessIndex> = self.tables.containers[container].processes.iter().copied().collect();
        processes.into_iter().for_each(|process| self.touch(View::Processes, Entity::Process(process)));
        self.unsettle_container(container);
        self.unsettle_listeners_of(host, &old.id);
        self.forget_container_if_unused(container);
    }

    /// Flows of a container lead elsewhere in some view.
    pub(crate) fn unsettle_container(&mut self, container: ContainerIndex) {
        let Some(row) = self.tables.containers.get(container) else { return };
        row.flows.iter().for_each(|&flow| self.flows.unsettle(flow));
        for address in row.record.iter().flat_map(|record| record.addresses.iter()) {
            self.flows.unsettle_addresses(*address, *address);
        }
        let host = row.host;
        let published = row.record.iter().flat_map(|record| record.ports.iter()).filter_map(|port| port.host);
        let ports: BTreeSet<u16> = published.map(|(_, port)| port).collect();
        let processes: Vec<ProcessIndex> = row.processes.iter().copied().collect();
        processes.into_iter().for_each(|process| self.unsettle_process(process));
        self.unsettle_published(host, &ports);
    }

    pub(super) fn container_addresses(
        &mut self,
        container: ContainerIndex,
        host: HostIndex,
        old: Option<&Container>,
        new: Option<&Container>,
    ) {
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
        let ports: BTreeSet<u16> = before.symmetric_difference(&after).map(|&(_, port)| port).collect();
        self.unsettle_published(host, &ports);
    }

    /// Ports that a container publishes on its host lead elsewhere.
    fn unsettle_published(&mut self, host: HostIndex, ports: &BTreeSet<u16>) {
        let Some(row) = self.tables.hosts.get(host) else { return };
        for &port in ports {
            self.flows.unsettle_loopback_servers(port);
            row.record.addresses.iter().for_each(|&address| self.flows.unsettle_server(address, port));
        }
    }

    pub(super) fn regroup_container(&mut self, container: ContainerIndex, record: Option<&Container>) {
        let image = record.map(|it| Arc::<str>::from(image_without_tag(&it.image_name))).filter(|text| !text.is_empty());
        let hostname = record.map(|it| it.hostname.clone()).filter(|text| !text.is_empty());
        let task = record.and_then(tasks::key);
        let row = &self.tables.containers[container];
        let (old_image, old_hostname, old_task) = (row.image, row.hostname, row.task);
        let new_image = image.map(|text| self.tables.images.join(&text, container, |text| format!("{text};<container_image>").into()));
        let new_hostname = hostname.map(|text| self.tables.hostnames.join(&text, container, |text| NodeId(text.clone())));
        let new_task = task.map(|text| self.tables.tasks.join(&text, container, |text| format!("{text}{}", tasks::SUFFIX).into()));
        let row = &mut self.tables.containers[container];
        (row.image, row.hostname, row.task) = (new_image, new_hostname, new_task);
        if let Some(old) = old_image.filter(|_| old_image != new_image) {
            let gone = self.tables.images.leave(old, container);
            self.group_changed(View::ContainersByImage, Entity::Image(old), !gone);
        }
        if let Some(old) = old_hostname.filter(|_| old_hostname != new_hostname) {
            let gone = self.tables.hostnames.leave(old, container);
            self.group_changed(View::ContainersByHostname, Entity::Hostname(old), !gone);
        }
        if let Some(old) = old_task.filter(|_| old_task != new_task) {
            let gone = self.tables.tasks.leave(old, container);
            self.group_changed(View::Tasks, Entity::Task(old), !gone);
        }
        new_task.into_iter().for_each(|it| self.group_changed(View::Tasks, Entity::Task(it), true));
        new_image.into_iter().for_each(|it| self.group_changed(View::ContainersByImage, Entity::Image(it), true));
        new_hostname.into_iter().for_each(|it| self.group_changed(View::ContainersByHostname, Entity::Hostname(it), true));
    }

    pub(super) fn group_changed(&mut self, view: View, entity: Entity, present: bool) {
        self.set_present(view, entity, present);
        self.touch(view, entity);
    }

    pub(crate) fn touch_container(&mut self, container: ContainerIndex) {
        let row = &self.tables.containers[container];
        let (image, hostname, task) = (row.image, row.hostname, row.task);
        self.touch(View::Containers, Entity::Container(container));
        self.touch_pod_of(container, false);
        task.into_iter().for_each(|it| self.touch(View::Tasks, Entity::Task(it)));
        image.into_iter().for_each(|it| self.touch(View::ContainersByImage, Entity::Image(it)));
        hostname.into_iter().for_each(|it| self.touch(View::ContainersByHostname, Entity::Hostname(it)));
    }

    /// The container's task shows something of it.
    pub(crate) fn touch_task_of(&mut self, container: ContainerIndex) {
        if let Some(task) = self.tables.containers.get(container).and_then(|row| row.task) {
            self.touch(View::Tasks, Entity::Task(task));
        }
    }

    pub(super) fn apply_container_metrics(&mut self, host: HostIndex, sample: ContainerMetrics) {
        let Some(&container) = self.tables.container_ids.get(&sample.id) else { return };
        let row = &mut self.tables.containers[container];
        let ContainerMetrics { at, cpu_percent, memory_bytes, memory_limit_bytes, .. } = sample;
        #[expect(clippy::cast_possible_truncation, reason = "a percentage with seven digits is enough")]
        let throttled_percent = sample.cpu_throttled_percent as f32;
        let pressure = sample.pressure.map(super::packed);
        let packed = ContainerSample { at, cpu_percent, memory_bytes, memory_limit_bytes, throttled_percent, pressure };
        if row.host == host && row.record.is_some() && push_sample(&mut row.samples, packed, |it| it.at) {
            // How many processes the kernel has ended for want of memory is a text.
            let old_kills = row.latest.replace(Box::new(sample)).map_or(0, |old| old.oom_kills);
            if row.latest.as_ref().is_some_and(|latest| latest.oom_kills != old_kills) {
                self.touch(View::Containers, Entity::Container(container));
            } else {
                self.touch_numbers(View::Containers, Entity::Container(container));
            }
            if let Some(task) = self.tables.containers[container].task {
                self.touch_numbers(View::Tasks, Entity::Task(task));
            }
            self.touch_pod_of(container, true);
        }
    }
}
