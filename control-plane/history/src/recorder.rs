//! What the probes send becomes what changed: a report that says nothing new costs nothing.
//!
//! Follows the rules of the map for sessions, sequences and snapshots, because a report is only what the map makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use topology::{
    Capture, ContainerMetrics, Flow, HostMetrics, Limits, ProbeHello, ProbeId, Process, ProcessKey, ProcessMetrics, Report, ReportKind,
    StreamEnd,
};

use crate::world::{Change, Known, Sample, World, counter_difference};

/// A sample of a process that is younger than this after the one before is not kept: there are many.
const PROCESS_SAMPLES: Duration = Duration::from_secs(60);
/// A probe numbers its flows, listeners and Unix sockets anew in each session; these bits tell sessions apart.
const SESSION_SHIFT: u32 = 48;

/// Something that happened to the map.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A probe was admitted.
    Hello {
        /// Which.
        probe: ProbeId,
        /// What it said of itself.
        hello: Box<ProbeHello>,
    },
    /// A report was applied.
    Report {
        /// Whose.
        probe: ProbeId,
        /// What it said.
        report: Box<Report>,
    },
    /// Events of a probe were lost before they came here: this is everything that it said.
    Told {
        /// Which.
        probe: ProbeId,
        /// What it said of itself.
        hello: Box<ProbeHello>,
        /// All else, with the number of its last report.
        report: Box<Report>,
    },
    /// A stream ended.
    StreamEnded {
        /// Whose.
        probe: ProbeId,
        /// How.
        end: StreamEnd,
    },
    /// A probe and all that it said left the map.
    ProbeLeft {
        /// Which.
        probe: ProbeId,
    },
}

/// Turns events into changes.
#[derive(Debug)]
pub struct Recorder {
    world: World,
    sessions: BTreeMap<ProbeId, Session>,
    limits: Limits,
    changes: BTreeMap<ProbeId, Vec<Change>>,
    change_count: usize,
}

/// What has changed since the last frame, by probe.
pub(crate) type Changes = BTreeMap<ProbeId, Vec<Change>>;

#[derive(Debug, Default)]
struct Session {
    name: Arc<str>,
    /// Grows with every session of the probe.
    number: u16,
    sequence: u64,
    complete: bool,
    snapshot: Option<Box<Mentioned>>,
}

/// What the parts of a snapshot have named so far.
#[derive(Debug, Default)]
struct Mentioned {
    processes: BTreeSet<ProcessKey>,
    containers: BTreeSet<Arc<str>>,
    images: BTreeSet<Arc<str>>,
    flows: BTreeSet<u64>,
    listeners: BTreeSet<u64>,
    names: BTreeSet<IpAddr>,
    unix_flows: BTreeSet<u64>,
    objects: BTreeSet<Arc<str>>,
}

impl Recorder {
    /// One that has seen nothing. `limits` are those of the map.
    pub fn new(limits: Limits) -> Self {
        Recorder { world: World::default(), sessions: BTreeMap::new(), limits, changes: BTreeMap::new(), change_count: 0 }
    }

    /// What the probes said last.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// To be called before a keyframe.
    pub(crate) fn settle(&mut self) {
        self.world.settle();
    }

    /// Changes that wait for a frame.
    pub fn change_count(&self) -> usize {
        self.change_count
    }

    /// What has changed since the last time.
    pub(crate) fn take_changes(&mut self) -> Changes {
        self.change_count = 0;
        std::mem::take(&mut self.changes)
    }

    /// Takes an event over.
    pub fn observe(&mut self, at: Timestamp, event: Event) {
        match event {
            Event::Hello { probe, hello } => self.hello(at, probe, *hello),
            Event::Report { probe, report } => self.report(at, &probe, *report),
            Event::Told { probe, hello, report } => {
                self.hello(at, probe.clone(), *hello);
                let session = self.sessions.entry(probe.clone()).or_default();
                (session.sequence, session.complete, session.snapshot) = (report.sequence, true, None);
                let tag = u64::from(session.number) << SESSION_SHIFT;
                let mut mentioned = Mentioned::default();
                self.records(at, &probe, tag, *report, Some(&mut mentioned));
                self.sweep(at, &probe, &mentioned);
            }
            Event::StreamEnded { probe, end } => {
                let change = if end == StreamEnd::Goodbye { Change::Left } else { Change::Lost };
                self.push(at, &probe, change);
                if end == StreamEnd::Goodbye {
                    self.sessions.remove(&probe);
                }
            }
            Event::ProbeLeft { probe } => {
                self.push(at, &probe, Change::Left);
                self.sessions.remove(&probe);
            }
        }
    }

    fn push(&mut self, at: Timestamp, probe: &ProbeId, change: Change) {
        if !matches!(change, Change::Hello(_)) && !self.world.probes.contains_key(probe) {
            return;
        }
        self.world.apply(at, probe, change.clone());
        self.change_count += 1;
        match self.changes.get_mut(probe) {
            Some(changes) => changes.push(change),
            None => {
                self.changes.insert(probe.clone(), vec![change]);
            }
        }
    }

    fn hello(&mut self, at: Timestamp, probe: ProbeId, hello: ProbeHello) {
        let session = self.sessions.entry(probe.clone()).or_default();
        if session.name != hello.session {
            *session = Session { name: hello.session.clone(), number: session.number.wrapping_add(1), ..Session::default() };
        }
        session.snapshot = None;
        self.push(at, &probe, Change::Hello(Box::new(hello)));
    }

    fn report(&mut self, at: Timestamp, probe: &ProbeId, report: Report) {
        let Some(session) = self.sessions.get_mut(probe) else { return };
        if report.sequence <= session.sequence {
            return;
        }
        match report.kind {
            ReportKind::Delta if session.snapshot.is_some() || !session.complete => return,
            ReportKind::Delta => {}
            ReportKind::SnapshotPart | ReportKind::SnapshotEnd => {
                session.snapshot.get_or_insert_default();
            }
        }
        session.sequence = report.sequence;
        let tag = u64::from(session.number) << SESSION_SHIFT;
        let mut snapshot = session.snapshot.take();
        let kind = report.kind;
        self.records(at, probe, tag, report, snapshot.as_deref_mut());
        if kind == ReportKind::SnapshotEnd {
            snapshot.into_iter().for_each(|mentioned| self.sweep(at, probe, &mentioned));
            self.sessions.entry(probe.clone()).or_default().complete = true;
        } else {
            self.sessions.entry(probe.clone()).or_default().snapshot = snapshot;
        }
    }

    fn known(&self, probe: &ProbeId) -> Option<&Known> {
        self.world.probes.get(probe)
    }

    /// Has `records` pushed that are new or different, as far as there is room, and remembers that they were named.
    #[expect(clippy::too_many_arguments, reason = "one rule for eight kinds of records")]
    fn put<T: PartialEq, K: Ord + Clone>(
        &mut self,
        at: Timestamp,
        probe: &ProbeId,
        records: Vec<T>,
        key: impl Fn(&T) -> K,
        table: impl Fn(&Known) -> &BTreeMap<K, T>,
        limit: usize,
        mut mentioned: Option<&mut BTreeSet<K>>,
        change: impl Fn(Box<T>) -> Change,
    ) {
        for record in records {
            let key = key(&record);
            if let Some(mentioned) = mentioned.as_deref_mut() {
                mentioned.insert(key.clone());
            }
            let Some(table) = self.known(probe).map(&table) else { return };
            let is_new = match table.get(&key) {
                Some(known) => *known != record,
                None => table.len() < limit,
            };
            if is_new {
                self.push(at, probe, change(Box::new(record)));
            }
        }
    }

    fn gone<K: Ord>(&mut self, at: Timestamp, probe: &ProbeId, key: K, is_known: impl Fn(&Known) -> bool, change: impl Fn(K) -> Change) {
        if self.known(probe).is_some_and(is_known) {
            self.push(at, probe, change(key));
        }
    }

    fn records(&mut self, at: Timestamp, probe: &ProbeId, tag: u64, report: Report, mut named: Option<&mut Mentioned>) {
        let Report {
            sequence: _,
            observed_at: _,
            kind: _,
            host,
            processes,
            processes_gone,
            containers,
            containers_gone,
            images,
            images_gone,
            flows,
            flows_gone,
            capture,
            losses,
            host_metrics,
            process_metrics,
            container_metrics,
            kubernetes,
            kubernetes_gone,
            mut listeners,
            listeners_gone,
            resolved_addresses,
            resolved_addresses_gone,
            mut unix_flows,
            unix_flows_gone,
        } = report;
        let Limits { probes: _, processes: _, containers: max_containers, flows: max_flows, objects, listeners: max_listeners, .. } =
            self.limits;
        let Limits { names, unix_flows: max_unix, .. } = self.limits;
        if let Some(host) = host.filter(|host| self.known(probe).is_some_and(|known| known.host.as_ref() != Some(host))) {
            self.push(at, probe, Change::Host(Box::new(host)));
        }
        self.capture_and_losses(at, probe, capture, losses);
        let list = named.as_deref_mut().map(|it| &mut it.images);
        self.put(at, probe, images, |it| it.id.clone(), |known| &known.images, max_containers, list, Change::Image);
        let list = named.as_deref_mut().map(|it| &mut it.containers);
        self.put(at, probe, containers, |it| it.id.clone(), |known| &known.containers, max_containers, list, Change::Container);
        for process in processes {
            if let Some(named) = named.as_deref_mut() {
                named.processes.insert(process.key);
            }
            self.process(at, probe, process);
        }
        for flow in flows {
            let flow = Flow { id: flow.id ^ tag, ..flow };
            if let Some(named) = named.as_deref_mut() {
                named.flows.insert(flow.id);
            }
            self.flow(at, probe, flow, max_flows);
        }
        flows_gone.into_iter().map(|id| id ^ tag).for_each(|id| {
            self.gone(at, probe, id, |known| known.flows.contains_key(&id), Change::FlowGone);
        });
        processes_gone.into_iter().for_each(|key| {
            // Also one that was never described: its flows mention it.
            let limit = self.limits.processes;
            let is_told =
                |known: &Known| known.processes.contains_key(&key) || (!known.ended.contains_key(&key) && known.ended.len() < limit);
            self.gone(at, probe, key, is_told, Change::ProcessGone);
        });
        containers_gone.iter().for_each(|id| {
            self.gone(at, probe, id.clone(), |known| known.containers.contains_key(id), Change::ContainerGone);
        });
        images_gone.iter().for_each(|id| self.gone(at, probe, id.clone(), |known| known.images.contains_key(id), Change::ImageGone));
        listeners.iter_mut().for_each(|it| it.id ^= tag);
        let list = named.as_deref_mut().map(|it| &mut it.listeners);
        self.put(at, probe, listeners, |it| it.id, |known| &known.listeners, max_listeners, list, Change::Listener);
        listeners_gone.into_iter().map(|id| id ^ tag).for_each(|id| {
            self.gone(at, probe, id, |known| known.listeners.contains_key(&id), Change::ListenerGone);
        });
        unix_flows.iter_mut().for_each(|it| it.id ^= tag);
        let list = named.as_deref_mut().map(|it| &mut it.unix_flows);
        self.put(at, probe, unix_flows, |it| it.id, |known| &known.unix_flows, max_unix, list, Change::Unix);
        unix_flows_gone.into_iter().map(|id| id ^ tag).for_each(|id| {
            self.gone(at, probe, id, |known| known.unix_flows.contains_key(&id), Change::UnixGone);
        });
        let list = named.as_deref_mut().map(|it| &mut it.names);
        self.put(at, probe, resolved_addresses, |it| it.address, |known| &known.names, names, list, Change::Name);
        resolved_addresses_gone.into_iter().for_each(|address| {
            self.gone(at, probe, address, |known| known.names.contains_key(&address), Change::NameGone);
        });
        let list = named.map(|it| &mut it.objects);
        self.put(at, probe, kubernetes, |it| it.uid.clone(), |known| &known.objects, objects, list, Change::Object);
        kubernetes_gone
            .iter()
            .for_each(|uid| self.gone(at, probe, uid.clone(), |known| known.objects.contains_key(uid), Change::ObjectGone));
        host_metrics.into_iter().for_each(|metrics| self.host_metrics(at, probe, metrics));
        process_metrics.iter().for_each(|metrics| self.process_metrics(at, probe, metrics));
        container_metrics.into_iter().for_each(|metrics| self.container_metrics(at, probe, metrics));
    }

    fn capture_and_losses(&mut self, at: Timestamp, probe: &ProbeId, capture: Option<Capture>, losses: Option<topology::Losses>) {
        if let Some(capture) = capture.filter(|it| self.known(probe).is_some_and(|known| known.hello.capture != *it)) {
            self.push(at, probe, Change::Capture(Box::new(capture)));
        }
        if let Some(losses) = losses.filter(|it| self.known(probe).is_some_and(|known| known.losses.as_ref() != Some(it))) {
            self.push(at, probe, Change::Losses(Box::new(losses)));
        }
    }

    fn process(&mut self, at: Timestamp, probe: &ProbeId, process: Process) {
        let Some(known) = self.known(probe) else { return };
        match known.holder(process.key.pid) {
            Some(holder) if holder.start_time > process.key.start_time => return,
            Some(holder) if holder != process.key => self.push(at, probe, Change::ProcessGone(holder)),
            Some(holder) if known.processes.get(&holder) == Some(&process) => return,
            Some(_) => {}
            None if known.processes.len() >= self.limits.processes => return,
            None => {}
        }
        self.push(at, probe, Change::Process(Box::new(process)));
    }

    fn flow(&mut self, at: Timestamp, probe: &ProbeId, mut flow: Flow, limit: usize) {
        let Some(known) = self.known(probe) else { return };
        (flow.first_seen, flow.last_active) = (whole(flow.first_seen), whole(flow.last_active));
        let Some(old) = known.flows.get(&flow.id) else {
            if flow.key.is_some() && known.flows.len() < limit {
                self.push(at, probe, Change::Flow(Box::new(flow)));
            }
            return;
        };
        flow.key = old.key.clone();
        if flow.translations.is_empty() {
            flow.translations = old.translations.clone();
        }
        if flow == *old {
            return;
        }
        let counters = counter_difference(&old.counters, &flow.counters);
        let active = i64::try_from(flow.last_active.unix_millis()).unwrap_or(i64::MAX)
            - i64::try_from(old.last_active.unix_millis()).unwrap_or(i64::MAX);
        let only_counted = Flow { counters: old.counters, last_active: old.last_active, ..flow.clone() } == *old;
        let change = if only_counted { Change::Count { id: flow.id, active, counters } } else { Change::Flow(Box::new(flow)) };
        self.push(at, probe, change);
    }

    fn host_metrics(&mut self, at: Timestamp, probe: &ProbeId, metrics: HostMetrics) {
        let (moment, cpu_percent) = (whole(metrics.at), in_hundredths(metrics.cpu_percent));
        let metrics = HostMetrics { at: moment, cpu_percent, ..metrics };
        let old = self.known(probe).and_then(|known| known.host_metrics.as_ref());
        if old.is_none_or(|old| old.at < metrics.at && HostMetrics { at: metrics.at, ..old.clone() } != metrics) {
            self.push(at, probe, Change::HostMetrics(Box::new(metrics)));
        }
    }

    fn container_metrics(&mut self, at: Timestamp, probe: &ProbeId, metrics: ContainerMetrics) {
        let (moment, cpu_percent) = (whole(metrics.at), in_hundredths(metrics.cpu_percent));
        let metrics = ContainerMetrics { at: moment, cpu_percent, ..metrics };
        let Some(known) = self.known(probe).filter(|known| known.containers.contains_key(&metrics.id)) else { return };
        let old = known.container_metrics.get(&metrics.id);
        if old.is_none_or(|old| old.at < metrics.at && ContainerMetrics { at: metrics.at, ..old.clone() } != metrics) {
            self.push(at, probe, Change::ContainerMetrics(Box::new(metrics)));
        }
    }

    fn process_metrics(&mut self, at: Timestamp, probe: &ProbeId, metrics: &ProcessMetrics) {
        let Some(known) = self.known(probe).filter(|known| known.holder(metrics.key.pid) == Some(metrics.key)) else { return };
        let old = known.process_metrics.get(&metrics.key).copied();
        if old.is_some_and(|old| at.since(old.at) < PROCESS_SAMPLES) {
            return;
        }
        let fields = Sample::of(metrics, at).minus(&old.unwrap_or_default());
        if old.is_none() || fields != [0; 7] {
            self.push(at, probe, Change::Sample { pid: metrics.key.pid, fields });
        }
    }

    /// What an ended snapshot did not name is gone.
    fn sweep(&mut self, at: Timestamp, probe: &ProbeId, named: &Mentioned) {
        fn missing<K: Ord + Clone, V>(table: &BTreeMap<K, V>, named: &BTreeSet<K>) -> Vec<K> {
            table.keys().filter(|key| !named.contains(key)).cloned().collect()
        }
        let Some(known) = self.known(probe) else { return };
        let flows = missing(&known.flows, &named.flows).into_iter().map(Change::FlowGone);
        let listeners = missing(&known.listeners, &named.listeners).into_iter().map(Change::ListenerGone);
        let unix_flows = missing(&known.unix_flows, &named.unix_flows).into_iter().map(Change::UnixGone);
        let names = missing(&known.names, &named.names).into_iter().map(Change::NameGone);
        let images = missing(&known.images, &named.images).into_iter().map(Change::ImageGone);
        let processes = missing(&known.processes, &named.processes).into_iter().map(Change::ProcessGone);
        let containers = missing(&known.containers, &named.containers).into_iter().map(Change::ContainerGone);
        let objects = missing(&known.objects, &named.objects).into_iter().map(Change::ObjectGone);
        let all = flows.chain(listeners).chain(unix_flows).chain(names).chain(images).chain(processes).chain(containers).chain(objects);
        all.collect::<Vec<_>>().into_iter().for_each(|change| self.push(at, probe, change));
    }
}

/// A millisecond is exact enough for people, and takes half the bytes.
fn whole(moment: Timestamp) -> Timestamp {
    Timestamp::from_unix_millis(moment.unix_millis())
}

/// So are hundredths of a percent.
fn in_hundredths(percent: f64) -> f64 {
    (percent * 100.0).round() / 100.0
}
