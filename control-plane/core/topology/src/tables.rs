//! What is known of hosts, processes and containers: the rows that views are drawn from.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use base::Timestamp;

use crate::index::{ChannelIndex, ContainerIndex, FlowIndex, GroupIndex, HostIndex, ObjectIndex, ProcessIndex, Table};
use crate::kubernetes::ObjectTables;
use crate::listeners::Listeners;
use crate::names::{Names, Peers};
use crate::node::NodeId;
use crate::report::{Container, ContainerMetrics, Host, HostMetrics, Image, ProbeId, Process, ProcessKey};
use crate::unix::UnixFlows;

/// Samples kept for each metric: three minutes at the default interval.
pub(crate) const SAMPLES_KEPT: usize = 12;

/// A host, and what its probe reported below it.
#[derive(Debug)]
pub(crate) struct HostRow {
    pub(crate) name: Arc<str>,
    pub(crate) node_id: NodeId,
    pub(crate) uncontained_id: NodeId,
    pub(crate) unmanaged_id: NodeId,
    pub(crate) probe: ProbeId,
    pub(crate) probe_version: Arc<str>,
    pub(crate) record: Host,
    pub(crate) samples: VecDeque<HostSample>,
    /// The newest sample whole, disks and interfaces included.
    pub(crate) latest: Option<HostMetrics>,
    pub(crate) processes: BTreeMap<ProcessKey, ProcessIndex>,
    /// The newest incarnation of each pid.
    pub(crate) by_pid: BTreeMap<u32, ProcessIndex>,
    pub(crate) containers: BTreeSet<ContainerIndex>,
    pub(crate) images: BTreeMap<Arc<str>, ImageRow>,
    pub(crate) flows: BTreeSet<FlowIndex>,
    /// The probe's number of a flow, within its session.
    pub(crate) flow_ids: BTreeMap<u64, FlowIndex>,
    /// Ports that containers publish, by host address (`None` for all) and port.
    pub(crate) published: BTreeMap<(Option<std::net::IpAddr>, u16), ContainerIndex>,
    /// Networks whose addresses mean something on this host alone, because another host has the same.
    pub(crate) private_networks: Vec<crate::report::Network>,
    /// What its processes call the addresses that they talk to.
    pub(crate) names: Names,
    pub(crate) listeners: Listeners,
    pub(crate) unix_flows: UnixFlows,
}

/// An image on a host.
#[derive(Debug)]
pub(crate) struct ImageRow {
    pub(crate) record: Image,
    pub(crate) epoch: u64,
}

/// A process, or the mention of one by a flow.
#[derive(Debug)]
pub(crate) struct ProcessRow {
    pub(crate) host: HostIndex,
    pub(crate) node_id: NodeId,
    pub(crate) record: Process,
    /// Whether the probe described it; otherwise only flows named it.
    pub(crate) described: bool,
    pub(crate) container: Option<ContainerIndex>,
    pub(crate) name: Option<GroupIndex>,
    pub(crate) flows: BTreeSet<FlowIndex>,
    /// Names of whom it talks to.
    pub(crate) peers: Peers,
    pub(crate) samples: VecDeque<ProcessSample>,
    /// Bytes read from and written to devices.
    pub(crate) io: (u64, u64),
    pub(crate) epoch: u64,
    /// When it leaves the map, once the probe said that it is gone.
    pub(crate) leaves_at: Option<Timestamp>,
}

/// A sample of a process, packed: there are many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessSample {
    pub(crate) at: Timestamp,
    pub(crate) memory_bytes: u64,
    pub(crate) open_files_limit: u64,
    pub(crate) cpu_percent: f32,
    pub(crate) open_files: u32,
}

/// A sample of a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContainerSample {
    pub(crate) at: Timestamp,
    pub(crate) cpu_percent: f64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_limit_bytes: u64,
    pub(crate) throttled_percent: f32,
    /// For CPU, memory, and input and output.
    pub(crate) pressure: Option<[f32; 3]>,
}

/// A sample of a host: what is graphed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostSample {
    pub(crate) at: Timestamp,
    pub(crate) cpu_percent: f64,
    pub(crate) memory_used_bytes: u64,
    pub(crate) swap_used_bytes: u64,
    /// Over one, five and fifteen minutes.
    pub(crate) load: [f64; 3],
    /// For CPU, memory, and input and output.
    pub(crate) pressure: Option<[f32; 3]>,
    /// Bytes a second since the sample before: received, sent, read, written.
    pub(crate) rates: Option<[f32; 4]>,
}

/// A container, or the mention of one by a process or flow.
#[derive(Debug)]
pub(crate) struct ContainerRow {
    pub(crate) host: HostIndex,
    pub(crate) id: Arc<str>,
    pub(crate) node_id: NodeId,
    /// `None` while only processes and flows named it: then it is in no view.
    pub(crate) record: Option<Container>,
    pub(crate) processes: BTreeSet<ProcessIndex>,
    /// Flows that name the container and no process.
    pub(crate) flows: BTreeSet<FlowIndex>,
    /// Names of whom it and its processes talk to.
    pub(crate) peers: Peers,
    pub(crate) image: Option<GroupIndex>,
    pub(crate) hostname: Option<GroupIndex>,
    pub(crate) pod: Option<ObjectIndex>,
    /// The Mesos task whose container it is.
    pub(crate) task: Option<GroupIndex>,
    pub(crate) samples: VecDeque<ContainerSample>,
    /// The newest sample whole.
    pub(crate) latest: Option<Box<ContainerMetrics>>,
    pub(crate) epoch: u64,
}

/// Adds a sample, forgets the oldest beyond what is kept, and refuses one that is not newer than the last.
pub(crate) fn push_sample<T>(samples: &mut VecDeque<T>, sample: T, at: impl Fn(&T) -> Timestamp) -> bool {
    if samples.back().is_some_and(|last| at(last) >= at(&sample)) {
        return false;
    }
    if samples.len() == SAMPLES_KEPT {
        samples.pop_front();
    }
    samples.push_back(sample);
    true
}

/// Things that share a text, e.g. all processes of one name.
#[derive(Debug)]
pub(crate) struct Groups<M> {
    by_text: BTreeMap<Arc<str>, GroupIndex>,
    rows: Table<GroupIndex, GroupRow<M>>,
}

/// One group.
#[derive(Debug)]
pub(crate) struct GroupRow<M> {
    pub(crate) text: Arc<str>,
    pub(crate) node_id: NodeId,
    pub(crate) members: BTreeSet<M>,
}

impl<M> Default for Groups<M> {
    fn default() -> Self {
        Groups { by_text: BTreeMap::new(), rows: Table::default() }
    }
}

impl<M: Ord + Copy> Groups<M> {
    /// Puts `member` into the group of `text`, whose node id is made by `node_id` when the group is new.
    pub(crate) fn join(&mut self, text: &Arc<str>, member: M, node_id: impl FnOnce(&Arc<str>) -> NodeId) -> GroupIndex {
        let index = match self.by_text.get(text) {
            Some(&index) => index,
            None => {
                let row = GroupRow { text: text.clone(), node_id: node_id(text), members: BTreeSet::new() };
                let index = self.rows.insert(row);
                self.by_text.insert(text.clone(), index);
                index
            }
        };
        self.rows[index].members.insert(member);
        index
    }

    /// Takes `member` out; true when that was the last one and the group is gone.
    pub(crate) fn leave(&mut self, index: GroupIndex, member: M) -> bool {
        let Some(row) = self.rows.get_mut(index) else { return false };
        row.members.remove(&member);
        if !row.members.is_empty() {
            return false;
        }
        if let Some(row) = self.rows.remove(index) {
            self.by_text.remove(&row.text);
        }
        true
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.by_text.len()
    }

    pub(crate) fn get(&self, index: GroupIndex) -> Option<&GroupRow<M>> {
        self.rows.get(index)
    }

    pub(crate) fn find(&self, text: &str) -> Option<GroupIndex> {
        self.by_text.get(text).copied()
    }
}

/// All rows but flows.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) hosts: Table<HostIndex, HostRow>,
    pub(crate) host_names: BTreeMap<Arc<str>, HostIndex>,
    pub(crate) processes: Table<ProcessIndex, ProcessRow>,
    pub(crate) containers: Table<ContainerIndex, ContainerRow>,
    pub(crate) container_ids: BTreeMap<Arc<str>, ContainerIndex>,
    /// Containers that a host has told of.
    pub(crate) container_count: usize,
    pub(crate) names: Groups<ProcessIndex>,
    pub(crate) images: Groups<ContainerIndex>,
    pub(crate) hostnames: Groups<ContainerIndex>,
    /// Mesos tasks by their own and their framework's id.
    pub(crate) tasks: Groups<ContainerIndex>,
    /// Known services outside, and the channels that lead there.
    pub(crate) externals: Groups<ChannelIndex>,
    pub(crate) kubernetes: ObjectTables,
}

impl Tables {
    /// Whether a container is known to share its host's network.
    pub(crate) fn is_in_host_network(&self, id: &Arc<str>) -> bool {
        let row = self.container_ids.get(id).and_then(|&container| self.containers.get(container));
        row.and_then(|row| row.record.as_ref()).is_some_and(|record| &*record.network_mode == "host")
    }
}
