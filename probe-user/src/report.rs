//! The report builder: all tables of the node behind one door. Observations go in; deltas and snapshots come out, in the words of the wire.
//! Pure: it reads no clock, no file and no socket, and asks for what it wants to know.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use agent::labels::TaskLabels;
use proto::probe::v1::{self, report::Kind};

use crate::cgroups::{Cgroups, Placement};
use crate::clock::Now;
use crate::containers::unclaimed::{Unclaimed, Verdict};
use crate::containers::{ContainerFacts, ContainerTable, Source};
use crate::dns::kept;
use crate::dns::names::NameTable;
use crate::flows::{FlowTable, Seen};
use crate::listeners::ListenerTable;
use crate::observation::{BootNanos, FlowEnd, ListenersThere, LossTotals, NameCounts, Observation, OpenEnds};
use crate::processes::{Details, ProcessKey, ProcessTable, Sighting};
use crate::report::pack::Packer;
use crate::unix_flows::{UnixFlowTable, UnixLook};
use crate::users::Users;

pub(crate) mod pack;
mod runtimes;
mod snapshot;
mod wire;

pub use pack::REPORT_OVERHEAD;
pub use snapshot::SnapshotCursor;

/// More removals than this in one delta are cheaper to tell by a snapshot.
pub const GONE_MAX: usize = 16_384;

/// Containers that wait to be asked for at most; a runtime's next list has the rest.
const LOOKS_MAX: usize = 256;

/// Something that the builder would like to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What `/proc` says of this pid.
    Details(u32),
    /// The same, of a process of which it was read long ago.
    Again(u32),
}

/// One round of samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// When they were taken. Their Unix times are made of it when they are told, because somebody may set the clock in between.
    pub at: BootNanos,
    /// Of the host.
    pub host: Option<v1::HostMetrics>,
    /// Of processes.
    pub processes: Vec<v1::ProcessMetrics>,
    /// Of containers.
    pub containers: Vec<v1::ContainerMetrics>,
}

/// What the node looks like, and what of it was not told yet.
#[derive(Debug, Default)]
pub struct Builder {
    host: Option<v1::Host>,
    host_changed: bool,
    capture: v1::Capture,
    capture_changed: bool,
    losses: v1::Losses,
    losses_changed: bool,
    flows_refused_before: u64,
    below: LossTotals,
    lost_other: BTreeMap<&'static str, u64>,
    reports_merged: u64,
    /// Connections whose end nobody told, and which were found to be gone.
    ends_found_lost: u64,
    cgroups: Cgroups,
    processes: ProcessTable,
    flows: FlowTable,
    listeners: ListenerTable,
    unix_flows: UnixFlowTable,
    containers: ContainerTable,
    names: NameTable,
    name_counts: NameCounts,
    unclaimed: Unclaimed,
    /// Which containers of the agent in this process belong to whom.
    task_labels: TaskLabels,
    /// Containers that a runtime should be asked for.
    looks: Vec<Arc<str>>,
    /// The two clocks, when they were last told.
    clock: Now,
    samples: Samples,
    users: Users,
}

impl Builder {
    /// A builder for the host of this identity, which becomes part of the ids of containers that have none.
    pub fn of_host(identity: &str) -> Self {
        let mut builder = Builder::default();
        builder.cgroups.set_host(identity);
        builder
    }

    /// Says where labels of containers are found that no runtime tells of.
    pub fn with_task_labels(mut self, labels: TaskLabels) -> Self {
        self.task_labels = labels;
        self
    }

    /// Says in which cgroup the agent in this process has its containers.
    pub fn with_agents_root(mut self, root: &str) -> Self {
        self.cgroups.set_agents_root(root);
        self
    }

    /// Takes an observation in. What `/proc` should be asked for is added to `wanted`.
    pub fn observe(&mut self, observation: Observation, wanted: &mut Vec<Wanted>) {
        match observation {
            Observation::ProcessStarted(started) => {
                let placement = self.placement(started.at, started.cgroup_id);
                if self.processes.started(&started, placement) {
                    wanted.push(Wanted::Details(started.pid));
                }
            }
            Observation::ProcessExecuted { at, pid, start_time, comm, cgroup_id, user_id } => {
                let placement = self.placement(at, cgroup_id);
                self.processes.executed(at, pid, start_time, &comm, user_id, placement);
                wanted.push(Wanted::Details(pid));
            }
            Observation::ProcessExited { at, pid, start_time, status } => {
                if let Some(key) = self.processes.exited(at, pid, start_time, status) {
                    self.listeners.process_ended(key, &self.processes);
                    self.unix_flows.process_ended(key);
                }
            }
            Observation::OomKilled { at, pid, start_time } => self.processes.oom_killed(at, pid, start_time),
            Observation::ListenerOpened(opened) => {
                let placement = self.cgroups.placement(opened.cgroup_id);
                wanted.extend(self.listeners.opened(opened, &self.processes, placement).map(Wanted::Details));
            }
            Observation::ListenerClosed { socket, .. } => self.listeners.closed(socket),
            Observation::CgroupCreated { at, id, path } => self.cgroup_created(at, id, &path),
            Observation::CgroupRemoved { at, id } => self.cgroup_removed(at, id),
            Observation::CgroupAttached { at, pid, cgroup_id, path } => self.attached(at, pid, cgroup_id, &path),
            Observation::FlowSeen { at, end, client_port, original_server, found_open } => {
                self.names.used(end.server_address);
                let placement = self.cgroups.placement(end.cgroup_id);
                let seen = self.flows.seen(at, end, client_port, original_server, found_open, &self.processes, placement);
                want_owner(seen, wanted);
            }
            Observation::FlowCounted { last_active, end, delta } => {
                let placement = self.cgroups.placement(end.cgroup_id);
                let seen = self.flows.counted(last_active, end, delta, &self.processes, placement);
                want_owner(seen, wanted);
            }
            Observation::CaptureBegins => self.flows.forget_all(),
            Observation::Translated(translated) => self.flows.translated(&translated),
            Observation::LostOther { cause, total } => drop(self.lost_other.insert(cause, total)),
            Observation::NameResolved { at, name, addresses } => {
                let name: Arc<str> = name.into();
                addresses.into_iter().for_each(|(address, seconds)| self.names.resolved(at, &name, address, seconds));
            }
            Observation::NamesCounted(counts) => self.name_counts = counts,
            // Two may tell at once: the connector, of its own losses alone, beside programs that do not see processes.
            Observation::Lost(totals) if totals.netlink > 0 => self.below.netlink = totals.netlink,
            Observation::Lost(totals) => self.below = LossTotals { netlink: self.below.netlink, ..totals },
        }
    }

    /// Takes in what `/proc` says of a process.
    pub fn described(&mut self, details: &Details) {
        let placement = self.cgroups.placement_of_path(&details.cgroup_path.as_str().into());
        self.note_container(self.clock.boot, &placement);
        self.processes.described(details, placement);
    }

    /// Takes in a walk of `/proc` that began at `walked_at`; `None` if it was not complete.
    /// What is wanted most comes last.
    pub fn reconcile(&mut self, now: Now, walked_at: Option<BootNanos>, seen: &BTreeMap<ProcessKey, Sighting>, wanted: &mut Vec<Wanted>) {
        if let Some(walked_at) = walked_at {
            let is_there = |pid| seen.range(ProcessKey::new(pid, BootNanos(0))..).next().is_some_and(|(key, _)| key.pid == pid);
            self.end_lost_containers(self.clock, walked_at, is_there);
        }
        let unread = self.processes.reconcile(now.boot, walked_at, seen);
        wanted.extend(unread.again.into_iter().map(Wanted::Again));
        wanted.extend(unread.first.into_iter().map(Wanted::Details));
    }

    /// Takes in all connections over Unix sockets.
    pub fn set_unix_flows(&mut self, look: &UnixLook) {
        self.unix_flows.look(look, &self.processes);
    }

    /// Takes in facts of the host.
    pub fn set_host(&mut self, host: v1::Host) {
        if self.host.as_ref() != Some(&host) {
            self.host = Some(host);
            self.host_changed = true;
        }
    }

    /// Takes in the names of users. Processes whose user has another name now are told again.
    pub fn set_users(&mut self, users: Users) {
        if self.users != users {
            let before = std::mem::replace(&mut self.users, users);
            let users = &self.users;
            self.processes.touch(|process| before.name(process.user_id) != users.name(process.user_id));
        }
    }

    /// Takes in how the probe sees.
    pub fn set_capture(&mut self, mut capture: v1::Capture) {
        capture.overload_level = self.capture.overload_level;
        if self.capture != capture {
            self.capture = capture;
            self.capture_changed = true;
        }
    }

    /// Takes in a container.
    pub fn put_container(&mut self, now: Now, mut facts: ContainerFacts) {
        facts.record.cgroup_id = self.cgroups.own_cgroup(&facts.record.id);
        self.unclaimed.claim(&facts.record.id);
        self.containers.put(facts, now);
    }

    /// Takes in what little a runtime tells of a container.
    pub fn outline_container(&mut self, now: Now, mut facts: ContainerFacts) {
        facts.record.cgroup_id = self.cgroups.own_cgroup(&facts.record.id);
        self.unclaimed.claim(&facts.record.id);
        self.containers.outline(facts, now);
    }

    /// Takes in that a runtime removed a container.
    pub fn remove_container(&mut self, now: Now, source: Source, id: &str) {
        if self.containers.remove(source, id, now) {
            self.unclaimed.removed_by_runtime(id, now);
        }
    }

    /// Takes in the ids of all containers of a runtime.
    pub fn keep_only_containers(&mut self, now: Now, source: Source, ids: &BTreeSet<String>) {
        for id in self.containers.keep_only(source, ids, now) {
            self.unclaimed.removed_by_runtime(&id, now);
        }
    }

    /// Containers whose cgroups came or went, and of which a runtime could tell more.
    pub fn take_looks(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.looks)
    }

    /// Takes in an image.
    pub fn put_image(&mut self, image: v1::Image) {
        self.containers.put_image(image);
    }

    /// Takes in samples. They are told once; samples that nobody fetched are replaced.
    pub fn put_samples(&mut self, now: Now, mut samples: Samples) {
        if !samples.containers.is_empty() {
            let counts = self.processes.count_by_container();
            samples.containers.iter_mut().for_each(|it| it.process_count = counts.get(it.id.as_str()).copied().unwrap_or(0));
        }
        self.samples = samples;
        self.containers.refresh(now.unix_nanos);
    }

    /// Deltas that were given up because the buffer was full.
    pub fn count_merged(&mut self, reports: u64) {
        self.reports_merged = self.reports_merged.saturating_add(reports);
    }

    /// Does what time asks for: retirement, and giving up waiting.
    pub fn tick(&mut self, now: Now) {
        self.clock = now;
        self.settle(now);
        self.listeners.check_holders(&self.processes);
        self.flows.inherit(now.boot, &self.listeners, &self.processes);
        self.flows.retire(now.boot);
        self.processes.retire(now.boot);
        self.cgroups.retire(now.boot);
        self.update_overload();
        self.settle_unclaimed(now);
        self.containers.retire(now);
        if self.names.retires(now.boot) {
            let in_use = self.addresses_in_use();
            self.names.retire(now.boot, &in_use);
        }
    }

    /// Names holders of flows and listeners that wait for one.
    pub fn settle(&mut self, now: Now) {
        self.flows.settle(now.boot, &self.processes);
        self.listeners.settle(now.boot, &self.processes);
    }

    /// When [`Builder::settle`] has work without a new observation.
    pub fn next_deadline(&self) -> Option<BootNanos> {
        [self.flows.next_deadline(), self.listeners.next_deadline()].into_iter().flatten().min()
    }

    /// Whether there is a life-cycle event to tell, which people wait for.
    pub fn has_events(&self) -> bool {
        self.processes.has_changes()
            || self.containers.has_changes()
            || self.flows.has_new()
            || self.listeners.has_changes()
            || self.unix_flows.has_changes()
            || self.host_changed
            || self.capture_changed
    }

    /// Whether there is anything to tell.
    pub fn has_changes(&self) -> bool {
        let sampled = self.samples.host.is_some() || !self.samples.processes.is_empty() || !self.samples.containers.is_empty();
        self.has_events() || self.flows.has_changes() || self.names.has_changes() || sampled || self.losses() != self.losses
    }

    /// Whether more left than a delta should name.
    pub fn is_overgrown(&self) -> bool {
        let gone = self.processes.gone_len() + self.flows.gone_len() + self.listeners.gone_len();
        gone + self.containers.gone_len() + self.names.gone_len() + self.unix_flows.gone_len() > GONE_MAX
    }

    /// Takes what changed, as deltas of at most `max_bytes` each. Their numbers are not set.
    pub fn take_delta(&mut self, now: Now, max_bytes: usize) -> Vec<v1::Report> {
        let mut packer = Packer::new(Kind::Delta, now.unix_nanos, max_bytes);
        if std::mem::take(&mut self.host_changed) {
            packer.host(self.host.clone());
        }
        if std::mem::take(&mut self.capture_changed) {
            packer.capture(self.capture.clone());
        }
        self.update_losses();
        if std::mem::take(&mut self.losses_changed) {
            packer.losses(self.losses.clone());
        }
        let containers = self.containers.take_changes();
        containers.images.into_iter().for_each(|it| packer.image(it));
        containers.containers.into_iter().for_each(|it| packer.container(it));
        let (processes, processes_gone) = self.processes.take_changes();
        for key in processes {
            if let Some(process) = self.processes.get(&key) {
                packer.process(wire::process(key, process, now, &self.users));
            }
        }
        let (flows, flows_gone) = self.flows.take_changes();
        for (id, change) in flows {
            if let Some(flow) = self.flows.get(id) {
                packer.flow(wire::flow(id, flow, change, self.flows.ways(flow), now));
            }
        }
        let (listeners, listeners_gone) = self.listeners.take_changes();
        for id in listeners {
            if let Some(listener) = self.listeners.get(id) {
                packer.listener(wire::listener(id, listener));
            }
        }
        let (unix_flows, unix_flows_gone) = self.unix_flows.take_changes();
        let unix_flows = unix_flows.into_iter().filter_map(|id| Some((id, self.unix_flows.get(id)?)));
        unix_flows.for_each(|(id, flow)| packer.unix_flow(wire::unix_flow(id, flow)));
        let (names, names_gone) = self.names.take_changes(now.boot);
        names.into_iter().for_each(|it| packer.resolved_address(wire::resolved_address(it, self.names.names(it), now)));
        let samples = self.take_samples(now);
        samples.host.into_iter().for_each(|it| packer.host_metrics(it));
        samples.processes.into_iter().for_each(|it| packer.process_metrics(it));
        samples.containers.into_iter().for_each(|it| packer.container_metrics(it));
        // What left comes last: until then everything that a record names is there.
        flows_gone.into_iter().for_each(|it| packer.flow_gone(it));
        listeners_gone.into_iter().for_each(|it| packer.listener_gone(it));
        unix_flows_gone.into_iter().for_each(|it| packer.unix_flow_gone(it));
        names_gone.into_iter().for_each(|it| packer.resolved_address_gone(wire::octets(it)));
        processes_gone.into_iter().for_each(|it| packer.process_gone(wire::process_key(it)));
        containers.containers_gone.into_iter().for_each(|it| packer.container_gone(it));
        containers.images_gone.into_iter().for_each(|it| packer.image_gone(it));
        packer.finish()
    }

    /// Forgets what changed: a snapshot will tell all of it.
    pub fn drop_changes(&mut self) {
        self.processes.take_changes();
        self.flows.take_changes();
        self.listeners.take_changes();
        self.unix_flows.take_changes();
        self.containers.take_changes();
        self.names.drop_changes();
        self.samples = Samples::default();
        self.host_changed = false;
        self.capture_changed = false;
    }

    /// Losses so far, those of the tables included.
    pub fn losses(&self) -> v1::Losses {
        let below = &self.below;
        let of_tables = [
            ("translations", self.flows.translations().evicted()),
            ("dns_ring", self.name_counts.ring_lost),
            ("dns_events", self.name_counts.events_lost),
            ("dns_attachments", self.name_counts.attachments_evicted),
            ("names", self.names.evicted()),
            ("listener_records", below.listeners),
            ("udp_talks", below.talks),
            ("ends_untold", self.ends_found_lost),
            ("unix_sockets", self.unix_flows.lost()),
        ];
        let other = self.lost_other.iter().map(|(cause, lost)| (*cause, *lost)).chain(of_tables);
        let ring_records = [("network", below.network_ring), ("process", below.process_ring), ("netlink", below.netlink)];
        v1::Losses {
            ring_records: ring_records.into_iter().filter(|(_, lost)| *lost > 0).map(|(ring, lost)| (ring.to_owned(), lost)).collect(),
            flows_uncounted: below.flow_table,
            sockets_unowned: below.socket_storage,
            table_full: self.flows.refused()
                + self.listeners.refused()
                + self.processes.refused()
                + self.containers.refused()
                + self.unclaimed.refused()
                + self.cgroups.refused(),
            reports_merged: self.reports_merged,
            ends_seen: below.ends_seen,
            ends_reported: below.ends_counted.saturating_sub(self.flows.refused_ends()),
            other: other.filter(|(_, lost)| *lost > 0).map(|(cause, lost)| (cause.to_owned(), lost)).collect(),
        }
    }

    /// Takes in which connections the kernel has open.
    pub fn close_lost(&mut self, open: &OpenEnds) {
        let lost = self.flows.close_lost(open);
        self.ends_found_lost = self.ends_found_lost.saturating_add(lost);
    }

    /// Takes in which sockets listen.
    pub fn keep_only_listeners(&mut self, there: &ListenersThere) {
        self.listeners.keep_only(there);
    }

    /// Changes of connections, and records of listeners, for which there was no room.
    pub fn records_lost(&self) -> (u64, u64) {
        (self.below.flow_table, self.below.listeners)
    }

    /// Connection ends whose process the kernel programs did not know: of clients and of servers. They are counted, and not lost.
    pub fn unowned_ends(&self) -> (u64, u64) {
        (self.below.unowned_clients, self.below.unowned_servers)
    }

    /// The process table.
    pub fn processes(&self) -> &ProcessTable {
        &self.processes
    }

    /// The flow table.
    pub fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// The table of listeners.
    pub fn listeners(&self) -> &ListenerTable {
        &self.listeners
    }

    /// The table of connections over Unix sockets.
    pub fn unix_flows(&self) -> &UnixFlowTable {
        &self.unix_flows
    }

    /// The container table.
    pub fn containers(&self) -> &ContainerTable {
        &self.containers
    }

    /// Path of the cgroup of a container that only its cgroup tells of: that may have no id that would be part of the path.
    pub fn cgroup_path(&self, container_id: &str) -> Option<&Arc<str>> {
        self.unclaimed.cgroup_path(container_id)
    }

    /// Takes in names that an earlier probe of this node knew.
    pub fn restore_names(&mut self, now: Now, names: kept::Names) {
        names.into_iter().for_each(|(address, names)| self.names.restored(now.boot, address, names));
    }

    /// The table of names.
    pub fn names(&self) -> &NameTable {
        &self.names
    }

    /// What was counted of messages of DNS.
    pub fn name_counts(&self) -> &NameCounts {
        &self.name_counts
    }

    /// Flow ends whose counters are known, for edges that count by looking.
    pub fn knows_end(&self, end: &FlowEnd) -> bool {
        self.flows.get_end(end).is_some()
    }

    fn addresses_in_use(&self) -> HashSet<IpAddr> {
        let flows = self.flows.after(0);
        let addresses = flows.flat_map(|(_, flow)| {
            let FlowEnd { client_address, server_address, .. } = flow.end;
            [Some(client_address), Some(server_address), flow.original_server.map(|(address, _)| address)]
        });
        addresses.flatten().map(|address| address.to_canonical()).collect()
    }

    fn take_samples(&mut self, now: Now) -> Samples {
        let mut samples = std::mem::take(&mut self.samples);
        let at = now.unix_at(samples.at);
        samples.host.iter_mut().for_each(|it| it.at_unix_nanos = at);
        samples.processes.iter_mut().for_each(|it| it.at_unix_nanos = at);
        samples.containers.iter_mut().for_each(|it| it.at_unix_nanos = at);
        samples
    }

    /// How much detail is given up now: 1 while flows are summed up, 2 when some found no room since the last look.
    fn update_overload(&mut self) {
        let refused = self.flows.refused();
        let level =
            if std::mem::replace(&mut self.flows_refused_before, refused) < refused { 2 } else { u32::from(self.flows.summed() > 0) };
        if self.capture.overload_level != level {
            self.capture.overload_level = level;
            self.capture_changed = true;
        }
    }

    fn update_losses(&mut self) {
        let losses = self.losses();
        self.losses_changed |= losses != self.losses;
        self.losses = losses;
    }

    /// Where a process is placed; its container, if it is in one, is noted.
    fn placement(&mut self, at: BootNanos, cgroup_id: u64) -> Option<Placement> {
        let placement = self.cgroups.placement(cgroup_id)?;
        self.note_container(at, &placement);
        Some(placement)
    }

    fn cgroup_created(&mut self, at: BootNanos, id: u64, path: &str) {
        self.cgroups.created(id, path);
        let Some(container_id) = self.cgroups.owner(id) else { return };
        self.containers.set_cgroup(&container_id, id);
        if let Some(placement) = self.cgroups.placement(id) {
            self.note_container(at, &placement);
        }
        // One that is known may be about to start.
        if matches!(self.containers.source_of(&container_id), Some(Source::Cri(_))) {
            self.look_for(container_id);
        }
    }

    fn cgroup_removed(&mut self, at: BootNanos, id: u64) {
        self.cgroups.removed(at, id);
        let Some(container_id) = self.cgroups.owner(id) else { return };
        let now = self.now_at(at);
        self.unclaimed.cgroup_removed(&container_id);
        self.containers.cgroup_removed(&container_id, now);
        if matches!(self.containers.source_of(&container_id), Some(Source::Cri(_))) {
            self.look_for(container_id);
        }
    }

    /// A container was seen by its cgroup: unless a runtime told of it, it is watched, and asked for.
    fn note_container(&mut self, at: BootNanos, placement: &Placement) {
        let Some(id) = &placement.container_id else { return };
        if self.containers.source_of(id).is_some_and(|source| source != Source::Cgroup) {
            return;
        }
        let Some(named) = self.cgroups.named(&placement.path) else { return };
        let now = self.now_at(at);
        if self.unclaimed.note(id, &named, self.cgroups.own_cgroup(id), now) && named.id.is_some() {
            self.look_for(id.clone());
        }
    }

    fn look_for(&mut self, container_id: Arc<str>) {
        if self.looks.len() < LOOKS_MAX {
            self.looks.push(container_id);
        }
    }

    fn settle_unclaimed(&mut self, now: Now) {
        if self.unclaimed.is_empty() {
            return;
        }
        let mut first_processes: HashMap<Arc<str>, (BootNanos, u32)> = HashMap::new();
        for (key, process) in self.processes.living() {
            let Some(id) = process.placement.container_id.as_ref().filter(|id| self.unclaimed.contains(id)) else { continue };
            let first = first_processes.entry(id.clone()).or_insert((key.start_time, key.pid));
            *first = (*first).min((key.start_time, key.pid));
        }
        let cgroups = &self.cgroups;
        for verdict in self.unclaimed.settle(now, &first_processes, |root| cgroups.knows_path(root)) {
            match verdict {
                Verdict::Tell(mut facts) => {
                    facts.record.labels.extend(self.task_labels.of(&facts.record.name));
                    let _ = self.containers.put(*facts, now);
                }
                Verdict::Gone(id) => drop(self.containers.remove(Source::Cgroup, &id, now)),
            }
        }
    }

    fn now_at(&self, at: BootNanos) -> Now {
        Now { boot: at, unix_nanos: self.clock.unix_at(at) }
    }

    fn attached(&mut self, at: BootNanos, pid: u32, cgroup_id: u64, path: &str) {
        let placement = match self.cgroups.placement(cgroup_id) {
            Some(placement) => placement,
            None if path.is_empty() => return,
            None => {
                let path: Arc<str> = path.into();
                Placement { cgroup_id, ..self.cgroups.placement_of_path(&path) }
            }
        };
        self.note_container(at, &placement);
        self.processes.moved(at, pid, placement);
    }
}

fn want_owner(seen: Seen, wanted: &mut Vec<Wanted>) {
    if let Seen::OwnerWanted(pid) = seen {
        wanted.push(Wanted::Details(pid));
    }
}

#[cfg(test)]
mod tests;
