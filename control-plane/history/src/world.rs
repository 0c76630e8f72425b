//! What the probes said last: the records of a moment, and how one moment becomes the next.
//!
//! The live side and whoever plays the history back apply the same changes with the same function, so that they cannot differ.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use base::Timestamp;
use topology::{
    Capture, Container, ContainerMetrics, Flow, FlowCounters, Host, HostMetrics, Image, KubernetesObject, Listener, Losses, ProbeHello,
    ProbeId, Process, ProcessKey, ProcessMetrics, Report, ReportKind, ResolvedAddress, UnixFlow,
};

use crate::code::{Code, DecodeError, Reader, Writer};

/// The records of all probes that are connected at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    pub(crate) probes: BTreeMap<ProbeId, Known>,
}

/// What one probe said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    pub(crate) hello: ProbeHello,
    /// Its stream was lost: the map shows what it said until its window is over.
    pub(crate) is_lost: bool,
    pub(crate) host: Option<Host>,
    pub(crate) losses: Option<Losses>,
    pub(crate) host_metrics: Option<HostMetrics>,
    pub(crate) processes: BTreeMap<ProcessKey, Process>,
    pub(crate) process_metrics: BTreeMap<ProcessKey, Sample>,
    /// Processes that are gone, with their containers: a flow that outlives its process belongs to that container, or to the host.
    pub(crate) ended: BTreeMap<ProcessKey, Option<Arc<str>>>,
    pub(crate) containers: BTreeMap<Arc<str>, Container>,
    pub(crate) container_metrics: BTreeMap<Arc<str>, ContainerMetrics>,
    pub(crate) images: BTreeMap<Arc<str>, Image>,
    pub(crate) flows: BTreeMap<u64, Flow>,
    pub(crate) listeners: BTreeMap<u64, Listener>,
    pub(crate) names: BTreeMap<IpAddr, ResolvedAddress>,
    /// Names that the probe has forgotten: the map keeps those to which a flow leads.
    pub(crate) forgotten: BTreeMap<IpAddr, ResolvedAddress>,
    pub(crate) unix_flows: BTreeMap<u64, UnixFlow>,
    pub(crate) objects: BTreeMap<Arc<str>, KubernetesObject>,
}

/// The last sample of a process, as exact as it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) at: Timestamp,
    /// Hundredths of a percent, cut.
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    pub(crate) open_files: u64,
    pub(crate) open_files_limit: u64,
    pub(crate) threads: u64,
    pub(crate) io_read: u64,
    pub(crate) io_written: u64,
}

/// One change of what a probe says. Everything that is gone stays on the map for its window, as it does on the live one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// It has connected, for the first time or again.
    Hello(Box<ProbeHello>),
    /// Its stream was lost: what it said is kept for the window.
    Lost,
    /// It has said goodbye, or its window is over.
    Left,
    Capture(Box<Capture>),
    Losses(Box<Losses>),
    Host(Box<Host>),
    HostMetrics(Box<HostMetrics>),
    Process(Box<Process>),
    ProcessGone(ProcessKey),
    /// A sample of the newest process of that pid: what it adds to the one before, field by field.
    Sample {
        pid: u32,
        fields: [i64; 7],
    },
    Container(Box<Container>),
    ContainerGone(Arc<str>),
    ContainerMetrics(Box<ContainerMetrics>),
    Image(Box<Image>),
    ImageGone(Arc<str>),
    Flow(Box<Flow>),
    /// Only counters and the last activity of a flow: what they add.
    Count {
        id: u64,
        active: i64,
        counters: [i64; 9],
    },
    FlowGone(u64),
    Listener(Box<Listener>),
    ListenerGone(u64),
    Name(Box<ResolvedAddress>),
    NameGone(IpAddr),
    Unix(Box<UnixFlow>),
    UnixGone(u64),
    Object(Box<KubernetesObject>),
    ObjectGone(Arc<str>),
}

impl Known {
    pub(crate) fn new(hello: ProbeHello) -> Self {
        Known {
            hello,
            is_lost: false,
            host: None,
            losses: None,
            host_metrics: None,
            processes: BTreeMap::new(),
            process_metrics: BTreeMap::new(),
            ended: BTreeMap::new(),
            containers: BTreeMap::new(),
            container_metrics: BTreeMap::new(),
            images: BTreeMap::new(),
            flows: BTreeMap::new(),
            listeners: BTreeMap::new(),
            names: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            unix_flows: BTreeMap::new(),
            objects: BTreeMap::new(),
        }
    }

    /// The newest process of a pid.
    pub(crate) fn holder(&self, pid: u32) -> Option<ProcessKey> {
        let range = ProcessKey { pid, start_time: 0 }..=ProcessKey { pid, start_time: u64::MAX };
        self.processes.range(range).next_back().map(|(key, _)| *key)
    }

    pub(crate) fn apply(&mut self, at: Timestamp, change: Change) {
        match change {
            // These concern the probe and not what it said.
            Change::Hello(_) | Change::Lost | Change::Left => {}
            Change::Capture(capture) => self.hello.capture = *capture,
            Change::Losses(losses) => self.losses = Some(*losses),
            Change::Host(host) => self.host = Some(*host),
            Change::HostMetrics(metrics) => self.host_metrics = Some(*metrics),
            Change::Process(process) => {
                self.ended.remove(&process.key);
                self.processes.insert(process.key, *process);
            }
            Change::ProcessGone(key) => {
                let container = self.processes.remove(&key).and_then(|process| process.container_id);
                self.process_metrics.remove(&key);
                self.ended.insert(key, container);
            }
            Change::Sample { pid, fields } => {
                if let Some(key) = self.holder(pid) {
                    self.process_metrics.entry(key).or_default().add(at, &fields);
                }
            }
            Change::Container(container) => {
                self.containers.insert(container.id.clone(), *container);
            }
            Change::ContainerGone(id) => {
                self.containers.remove(&id);
                self.container_metrics.remove(&id);
            }
            Change::ContainerMetrics(metrics) => {
                self.container_metrics.insert(metrics.id.clone(), *metrics);
            }
            Change::Image(image) => {
                self.images.insert(image.id.clone(), *image);
            }
            Change::ImageGone(id) => {
                self.images.remove(&id);
            }
            Change::Flow(flow) => {
                if let Some(process) = flow.key.as_ref().and_then(|key| key.process)
                    && self.ended.contains_key(&process)
                    && !self.flows.contains_key(&flow.id)
                {
                    // Mentioned again, after its older flows have lost it.
                    self.flows = self.flows.iter().map(|(id, flow)| (*id, self.settled(flow))).collect();
                    self.ended.remove(&process);
                }
                self.flows.insert(flow.id, *flow);
            }
            Change::Count { id, active, counters } => {
                if let Some(flow) = self.flows.get_mut(&id) {
                    flow.last_active = shifted(flow.last_active, active);
                    add_counters(&mut flow.counters, &counters);
                }
            }
            Change::FlowGone(id) => {
                self.flows.remove(&id);
            }
            Change::Listener(listener) => {
                self.listeners.insert(listener.id, *listener);
            }
            Change::ListenerGone(id) => {
                self.listeners.remove(&id);
            }
            Change::Name(name) => {
                self.forgotten.remove(&name.address);
                self.names.insert(name.address, *name);
            }
            Change::NameGone(address) => {
                if let Some(name) = self.names.remove(&address) {
                    self.forgotten.insert(address, name);
                }
            }
            Change::Unix(flow) => {
                self.unix_flows.insert(flow.id, *flow);
            }
            Change::UnixGone(id) => {
                self.unix_flows.remove(&id);
            }
            Change::Object(object) => {
                self.objects.insert(object.uid.clone(), *object);
            }
            Change::ObjectGone(uid) => {
                self.objects.remove(&uid);
            }
        }
    }

    /// A flow without a process that is gone.
    fn settled(&self, flow: &Flow) -> Flow {
        let mut flow = flow.clone();
        if let Some(key) = &mut flow.key
            && let Some(container) = key.process.and_then(|process| self.ended.get(&process))
        {
            key.process = None;
            key.container_id = container.clone().or(key.container_id.take());
        }
        flow
    }

    /// Forgets processes that are gone, whose flows know it, and names to which nothing leads.
    fn settle(&mut self) {
        if !self.forgotten.is_empty() {
            let keys = || self.flows.values().filter_map(|flow| flow.key.as_ref());
            let ends = keys().flat_map(|key| [Some(key.client_address), Some(key.server_address), key.original_server.map(|(it, _)| it)]);
            let led_to: BTreeSet<IpAddr> = ends.flatten().collect();
            self.forgotten.retain(|address, _| led_to.contains(address));
        }
        if self.ended.is_empty() {
            return;
        }
        let flows = std::mem::take(&mut self.flows);
        self.flows = flows.into_iter().map(|(id, flow)| (id, self.settled(&flow))).collect();
        self.ended.clear();
    }

    /// All of it as the one report of a snapshot.
    pub(crate) fn report(&self) -> Report {
        let samples = self.process_metrics.iter().map(|(key, sample)| sample.metrics(*key));
        Report {
            kind: ReportKind::SnapshotEnd,
            host: self.host.clone(),
            processes: self.processes.values().cloned().collect(),
            containers: self.containers.values().cloned().collect(),
            images: self.images.values().cloned().collect(),
            flows: self.flows.values().map(|flow| self.settled(flow)).collect(),
            losses: self.losses.clone(),
            host_metrics: self.host_metrics.iter().cloned().collect(),
            process_metrics: samples.collect(),
            container_metrics: self.container_metrics.values().cloned().collect(),
            kubernetes: self.objects.values().cloned().collect(),
            listeners: self.listeners.values().cloned().collect(),
            resolved_addresses: self.names.values().chain(self.forgotten.values()).cloned().collect(),
            unix_flows: self.unix_flows.values().cloned().collect(),
            ..Report::default()
        }
    }

    /// Everything as changes, to write it down.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let mut changes = vec![Change::Hello(Box::new(self.hello.clone()))];
        changes.extend(self.host.iter().map(|it| Change::Host(Box::new(it.clone()))));
        changes.extend(self.losses.iter().map(|it| Change::Losses(Box::new(it.clone()))));
        changes.extend(self.host_metrics.iter().map(|it| Change::HostMetrics(Box::new(it.clone()))));
        changes.extend(self.images.values().map(|it| Change::Image(Box::new(it.clone()))));
        changes.extend(self.containers.values().map(|it| Change::Container(Box::new(it.clone()))));
        changes.extend(self.container_metrics.values().map(|it| Change::ContainerMetrics(Box::new(it.clone()))));
        changes.extend(self.processes.values().map(|it| Change::Process(Box::new(it.clone()))));
        let holders = self.process_metrics.iter().filter(|(key, _)| self.holder(key.pid) == Some(**key));
        changes.extend(holders.map(|(key, it)| Change::Sample { pid: key.pid, fields: it.minus(&Sample::default()) }));
        changes.extend(self.flows.values().map(|it| Change::Flow(Box::new(self.settled(it)))));
        changes.extend(self.listeners.values().map(|it| Change::Listener(Box::new(it.clone()))));
        changes.extend(self.names.values().chain(self.forgotten.values()).map(|it| Change::Name(Box::new(it.clone()))));
        changes.extend(self.forgotten.keys().map(|address| Change::NameGone(*address)));
        changes.extend(self.unix_flows.values().map(|it| Change::Unix(Box::new(it.clone()))));
        changes.extend(self.objects.values().map(|it| Change::Object(Box::new(it.clone()))));
        changes.extend(self.is_lost.then_some(Change::Lost));
        changes
    }
}

impl World {
    /// Takes one change over.
    pub(crate) fn apply(&mut self, at: Timestamp, probe: &ProbeId, change: Change) {
        match change {
            Change::Hello(hello) => match self.probes.get_mut(probe) {
                Some(known) => {
                    known.hello = *hello;
                    known.is_lost = false;
                }
                None => {
                    self.probes.insert(probe.clone(), Known::new(*hello));
                }
            },
            // It may come back and go on where it was.
            Change::Lost => {
                if let Some(known) = self.probes.get_mut(probe) {
                    known.is_lost = true;
                }
            }
            Change::Left => {
                self.probes.remove(probe);
            }
            other => {
                if let Some(known) = self.probes.get_mut(probe) {
                    known.apply(at, other);
                }
            }
        }
    }

    /// Takes all changes of one probe over, in order.
    pub(crate) fn apply_all(&mut self, at: Timestamp, probe: &ProbeId, changes: impl IntoIterator<Item = Change>) {
        let mut changes = changes.into_iter().peekable();
        while let Some(change) = changes.next() {
            self.apply(at, probe, change);
            let Some(known) = self.probes.get_mut(probe) else { continue };
            // Looked up once for all that follow.
            while let Some(change) = changes.next_if(|change| !matches!(change, Change::Hello(_) | Change::Lost | Change::Left)) {
                known.apply(at, change);
            }
        }
    }

    /// To be called before all of it is written down.
    pub(crate) fn settle(&mut self) {
        self.probes.values_mut().for_each(Known::settle);
    }

    /// How many probes there are.
    pub fn probe_count(&self) -> usize {
        self.probes.len()
    }

    /// How many records there are.
    pub fn record_count(&self) -> usize {
        let count = |known: &Known| {
            known.processes.len()
                + known.containers.len()
                + known.images.len()
                + known.flows.len()
                + known.listeners.len()
                + known.names.len()
                + known.unix_flows.len()
                + known.objects.len()
        };
        self.probes.values().map(count).sum()
    }
}

impl Sample {
    pub(crate) fn of(metrics: &ProcessMetrics, at: Timestamp) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of some processors")]
        let cpu = (f64::from(metrics.cpu_percent as f32).clamp(0.0, 1e12) * 100.0).trunc() as u64;
        Sample {
            at,
            cpu,
            memory: metrics.memory_bytes,
            open_files: u64::from(metrics.open_files),
            open_files_limit: metrics.open_files_limit,
            threads: u64::from(metrics.thread_count),
            io_read: metrics.io_read_bytes,
            io_written: metrics.io_written_bytes,
        }
    }

    pub(crate) fn metrics(&self, key: ProcessKey) -> ProcessMetrics {
        // A little more than the cut value, so that cutting it again gives the same.
        #[expect(clippy::cast_precision_loss, reason = "hundredths of a percent")]
        let cpu_percent = if self.cpu == 0 { 0.0 } else { (self.cpu as f64 + 0.02) / 100.0 };
        ProcessMetrics {
            key,
            at: self.at,
            cpu_percent,
            memory_bytes: self.memory,
            open_files: u32::try_from(self.open_files).unwrap_or(u32::MAX),
            open_files_limit: self.open_files_limit,
            thread_count: u32::try_from(self.threads).unwrap_or(u32::MAX),
            io_read_bytes: self.io_read,
            io_written_bytes: self.io_written,
        }
    }

    fn fields(&self) -> [u64; 7] {
        [self.cpu, self.memory, self.open_files, self.open_files_limit, self.threads, self.io_read, self.io_written]
    }

    pub(crate) fn minus(&self, before: &Sample) -> [i64; 7] {
        let (new, old) = (self.fields(), before.fields());
        std::array::from_fn(|at| difference(old[at], new[at]))
    }

    fn add(&mut self, at: Timestamp, fields: &[i64; 7]) {
        self.at = at;
        let own = [
            &mut self.cpu,
            &mut self.memory,
            &mut self.open_files,
            &mut self.open_files_limit,
            &mut self.threads,
            &mut self.io_read,
            &mut self.io_written,
        ];
        own.into_iter().zip(fields).for_each(|(own, by)| *own = own.wrapping_add_signed(*by));
    }
}

/// Wraps around, so that it is exact for any two numbers.
fn difference(old: u64, new: u64) -> i64 {
    #[expect(clippy::cast_possible_wrap, reason = "added again with the same wrap")]
    {
        new.wrapping_sub(old) as i64
    }
}

fn shifted(moment: Timestamp, millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(moment.unix_millis().wrapping_add_signed(millis))
}

pub(crate) fn counter_difference(old: &FlowCounters, new: &FlowCounters) -> [i64; 9] {
    let (old, new) = (counters(old), counters(new));
    std::array::from_fn(|at| difference(old[at], new[at]))
}

fn counters(it: &FlowCounters) -> [u64; 9] {
    let FlowCounters { opened, closed, failed, bytes_sent, bytes_received, retransmits, rtt_us_sum, rtt_count, rtt_us_max } = *it;
    [opened, closed, failed, bytes_sent, bytes_received, retransmits, rtt_us_sum, rtt_count, u64::from(rtt_us_max)]
}

fn add_counters(to: &mut FlowCounters, by: &[i64; 9]) {
    let mut all = counters(to);
    all.iter_mut().zip(by).for_each(|(own, by)| *own = own.wrapping_add_signed(*by));
    let [opened, closed, failed, bytes_sent, bytes_received, retransmits, rtt_us_sum, rtt_count, rtt_us_max] = all;
    let rtt_us_max = u32::try_from(rtt_us_max).unwrap_or(u32::MAX);
    *to = FlowCounters { opened, closed, failed, bytes_sent, bytes_received, retransmits, rtt_us_sum, rtt_count, rtt_us_max };
}

/// Numbers that are mostly zero: which are not, then those, each in the column of its place.
fn put_sparse(out: &mut Writer, column: usize, numbers: &[i64]) {
    let mask = numbers.iter().rev().fold(0_u64, |mask, number| mask << 1 | u64::from(*number != 0));
    out.column(column);
    out.number(mask);
    for (at, number) in numbers.iter().enumerate().filter(|(_, number)| **number != 0) {
        out.column(column + 1 + at);
        put_scaled(out, *number);
    }
}

fn take_sparse<const COUNT: usize>(from: &mut Reader<'_>, column: usize) -> Result<[i64; COUNT], DecodeError> {
    from.column(column);
    let mask = from.number()?;
    let mut numbers = [0; COUNT];
    for (at, number) in numbers.iter_mut().enumerate() {
        if mask >> at & 1 == 1 {
            from.column(column + 1 + at);
            *number = take_scaled(from)?;
        }
    }
    Ok(numbers)
}

/// Memory is counted in pages, and most else is small.
fn put_scaled(out: &mut Writer, number: i64) {
    if number % 4_096 == 0 {
        out.signed((number / 4_096) << 1 | 1);
    } else if number.unsigned_abs() < 1 << 61 {
        out.signed(number << 1);
    } else {
        // Nothing sane: zero pages, then the number itself.
        out.signed(1);
        out.signed(number);
    }
}

fn take_scaled(from: &mut Reader<'_>) -> Result<i64, DecodeError> {
    let number = from.signed()?;
    match (number & 1, number >> 1) {
        (1, 0) => from.signed(),
        (1, pages) => pages.checked_mul(4_096).ok_or(DecodeError::Invalid),
        (_, number) => Ok(number),
    }
}

/// Columns of what is no field of a record; the first is that of the frames themselves.
mod column {
    /// Of which kind each change is; behind it, those of changes that are one value.
    pub(super) const KIND: usize = 1;
    /// Samples of processes: nine.
    pub(super) const SAMPLE: usize = 28;
    /// Counters of flows: twelve.
    pub(super) const COUNT: usize = 40;
}

macro_rules! changes {
    ($($number:literal $name:ident),* $(,)?) => {
        impl Change {
            /// Its name.
            pub(crate) fn kind(&self) -> &'static str {
                match self {
                    Change::Lost => "Lost",
                    Change::Left => "Left",
                    Change::Sample { .. } => "Sample",
                    Change::Count { .. } => "Count",
                    $(Change::$name(_) => stringify!($name),)*
                }
            }
        }

        impl Code for Change {
            const SHAPE: &'static str = concat!($(stringify!($name), ",",)*);

            fn put(&self, out: &mut Writer) {
                out.column(column::KIND);
                match self {
                    Change::Lost => out.byte(0),
                    Change::Left => out.byte(1),
                    Change::Sample { pid, fields } => {
                        out.byte(2);
                        out.column(column::SAMPLE);
                        pid.put(out);
                        put_sparse(out, column::SAMPLE + 1, fields);
                    }
                    Change::Count { id, active, counters } => {
                        out.byte(3);
                        out.column(column::COUNT);
                        id.put(out);
                        out.column(column::COUNT + 1);
                        out.signed(*active);
                        put_sparse(out, column::COUNT + 2, counters);
                    }
                    $(Change::$name(value) => {
                        out.byte($number);
                        out.column(column::KIND + $number);
                        value.put(out);
                    })*
                }
            }

            fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                from.column(column::KIND);
                Ok(match from.byte()? {
                    0 => Change::Lost,
                    1 => Change::Left,
                    2 => {
                        from.column(column::SAMPLE);
                        Change::Sample { pid: Code::take(from)?, fields: take_sparse(from, column::SAMPLE + 1)? }
                    }
                    3 => {
                        from.column(column::COUNT);
                        let id = Code::take(from)?;
                        from.column(column::COUNT + 1);
                        Change::Count { id, active: from.signed()?, counters: take_sparse(from, column::COUNT + 2)? }
                    }
                    $($number => {
                        from.column(column::KIND + $number);
                        Change::$name(Code::take(from)?)
                    })*
                    _ => return Err(DecodeError::Invalid),
                })
            }
        }
    };
}

changes! {
    4 Hello, 5 Capture, 6 Losses, 7 Host, 8 HostMetrics, 9 Process, 10 ProcessGone, 11 Container, 12 ContainerGone, 13 ContainerMetrics,
    14 Image, 15 ImageGone, 16 Flow, 17 FlowGone, 18 Listener, 19 ListenerGone, 20 Name, 21 NameGone, 22 Unix, 23 UnixGone, 24 Object,
    25 ObjectGone,
}

impl<T: Code> Code for Box<T> {
    const SHAPE: &'static str = T::SHAPE;

    fn put(&self, out: &mut Writer) {
        (**self).put(out);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::take(from).map(Box::new)
    }
}
