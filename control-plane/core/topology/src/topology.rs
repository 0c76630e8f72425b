//! The core itself: inputs in, effects out, pictures kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;

use crate::flows::Flows;
use crate::index::{ChannelIndex, FlowIndex, HostIndex, ObjectIndex, ProcessIndex};
use crate::networks::{AddressBook, NetworkSet};
use crate::node::{Details, NodeId};
use crate::picture::{Picture, Scene};
use crate::projection::{self, PROJECTED, Projection};
use crate::report::{Capture, Losses, Network, ProbeHello, ProbeId, Report};
use crate::search::index::Index as SearchIndex;
use crate::search::patience::Patience;
use crate::search::{SearchPage, SearchQuery, SearchTooLong};
use crate::tables::Tables;
use crate::view::{View, ViewKey, ViewSnapshot, ViewStats};

/// Whoever asks for a picture again within this finds it, unless there are [`FAR_TOO_MANY`] times as many nodes in pictures as there should be.
const ASKED_AGAIN_WITHIN: Duration = Duration::from_secs(10);
const FAR_TOO_MANY: usize = 4;

/// How the map behaves. The caller decides; there is no default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// How long what has ended, and what a lost probe reported, stays on the map. Scope's `--app.window`.
    pub window: Duration,
    /// Shortest time between two publications: changes within it go out together.
    pub publish_interval: Duration,
    /// How long a picture that nobody watches is kept up to date.
    pub picture_linger: Duration,
    /// How many nodes there may be in all pictures together before those that nobody watches leave early, the longest forgotten first.
    pub picture_nodes: usize,
    /// Nodes drawn again in one step before what else has changed waits for the next one, which is due at once.
    pub drawn_at_once: usize,
    /// What one probe may report.
    pub limits: Limits,
}

/// How much one probe may have on the map. What goes beyond is refused and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Probes in all.
    pub probes: usize,
    /// Processes of one host.
    pub processes: usize,
    /// Containers of one host.
    pub containers: usize,
    /// Flows of one host.
    pub flows: usize,
    /// Kubernetes objects of one cluster.
    pub objects: usize,
    /// Listening sockets of one host.
    pub listeners: usize,
    /// Addresses of one host that have names.
    pub names: usize,
    /// Pairs of processes of one host that are connected over Unix sockets.
    pub unix_flows: usize,
    /// Known services outside that are nodes of their own; the rest is The Internet.
    pub externals: usize,
}

/// Number of a probe's stream, unique within a life of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// How a probe's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// With a goodbye: the node leaves at once.
    Goodbye,
    /// Without: the node stays for the window.
    Lost,
}

/// Everything that can happen to the map.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A probe opened a stream. Answered by [`Effect::Admitted`] or [`Effect::Refused`].
    Hello {
        /// Which probe.
        probe: ProbeId,
        /// What it says of itself.
        hello: ProbeHello,
    },
    /// A probe reported. Answered by [`Effect::Applied`] or [`Effect::ReportRefused`].
    Report {
        /// Which probe.
        probe: ProbeId,
        /// On which stream.
        stream: StreamId,
        /// What it reported.
        report: Box<Report>,
    },
    /// A stream ended.
    StreamEnded {
        /// Which probe.
        probe: ProbeId,
        /// Which stream.
        stream: StreamId,
        /// How.
        end: StreamEnd,
    },
    /// Somebody wants to see a picture, as it is now and as it changes. Answered by [`Effect::Published`] at once, with everything that was
    /// reported before.
    Watch(ViewKey),
    /// Nobody wants to see it any more. It is kept up to date for [`Config::picture_linger`].
    Unwatch(ViewKey),
    /// Networks and addresses of machines that others than our probes report on: they are not the Internet. Replaces what was said before.
    Neighbours(Vec<Network>),
    /// Time went by; see [`Topology::next_deadline`].
    Tick,
}

/// Everything the map asks of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The probe may report.
    Admitted {
        /// Last report on the map; 0 asks for a snapshot.
        resume_after_sequence: u64,
        /// Name of the stream.
        stream: StreamId,
        /// The probe's older stream, which is void now.
        replaced: Option<StreamId>,
    },
    /// The probe may not report.
    Refused {
        /// Why.
        reason: String,
    },
    /// The report is on the map.
    Applied {
        /// Records in it that were refused, by the limits or because they belong to another host.
        records_refused: u64,
    },
    /// The report is not on the map.
    ReportRefused {
        /// Why.
        refusal: ReportRefusal,
    },
    /// A picture has changed, or was asked for.
    Published {
        /// Which.
        key: ViewKey,
        /// As it is now.
        snapshot: ViewSnapshot,
    },
    /// A picture is no longer kept up to date.
    PictureDropped {
        /// Which.
        key: ViewKey,
    },
    /// A probe and all that it reported left the map.
    ProbeLeft {
        /// Which.
        probe: ProbeId,
        /// Its host.
        host_name: Arc<str>,
        /// How.
        end: StreamEnd,
    },
}

/// Why a report is not on the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportRefusal {
    /// The stream was replaced by a newer one of the same probe, or has ended.
    StaleStream,
    /// Reports between this one and the last one are missing.
    Gap {
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// A delta came before any snapshot.
    NoSnapshot,
}

impl ReportRefusal {
    /// Whether the probe can only go on with a snapshot.
    pub fn snapshot_needed(self) -> bool {
        matches!(self, ReportRefusal::Gap { .. } | ReportRefusal::NoSnapshot)
    }
}

impl std::fmt::Display for ReportRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReportRefusal::StaleStream => f.write_str("a newer stream of this probe has replaced this one"),
            ReportRefusal::Gap { expected, found } => write!(f, "report {expected} was expected and {found} came"),
            ReportRefusal::NoSnapshot => f.write_str("a snapshot has to come before the first delta"),
        }
    }
}

/// A probe and the state of its session.
#[derive(Debug)]
pub(crate) struct ProbeRow {
    pub(crate) source: Source,
    pub(crate) host_name: Arc<str>,
    pub(crate) cluster_name: Option<Arc<str>>,
    /// What a cluster's collector reported.
    pub(crate) objects: BTreeSet<ObjectIndex>,
    pub(crate) version: Arc<str>,
    pub(crate) session: Arc<str>,
    pub(crate) stream: Option<StreamId>,
    pub(crate) sequence: u64,
    /// Whether a whole snapshot of this session is on the map.
    pub(crate) complete: bool,
    /// Whether the last report was a part of a snapshot.
    pub(crate) in_snapshot: bool,
    /// Grows with every snapshot; rows that an ended snapshot did not name have an older one.
    pub(crate) epoch: u64,
    pub(crate) capture: Capture,
    /// Ids of the controls that it carries out.
    pub(crate) controls: Arc<[Arc<str>]>,
    pub(crate) losses: Losses,
    pub(crate) last_seen: Timestamp,
    pub(crate) records_refused: u64,
    pub(crate) leaves_at: Option<Timestamp>,
}

impl ProbeRow {
    fn subject(&self) -> String {
        match &self.cluster_name {
            Some(name) => format!("cluster {name}"),
            None => format!("host {}", self.host_name),
        }
    }
}

/// What a probe reports on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Host(HostIndex),
    /// The objects of a Kubernetes cluster.
    Cluster,
}

/// What leaves the map when its time has come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leaving {
    Process(ProcessIndex),
    Flow(FlowIndex),
    /// A connection over Unix sockets, by its probe's number.
    Unix(HostIndex, u64),
    Probe(ProbeId),
}

/// The live map.
#[derive(Debug)]
pub struct Topology {
    pub(crate) config: Config,
    pub(crate) tables: Tables,
    pub(crate) flows: Flows,
    pub(crate) addresses: AddressBook,
    pub(crate) networks: NetworkSet,
    /// What [`Input::Neighbours`] said.
    pub(crate) neighbour_networks: BTreeSet<Network>,
    pub(crate) probes: BTreeMap<ProbeId, ProbeRow>,
    pub(crate) projections: [Projection; PROJECTED.len()],
    pictures: BTreeMap<ViewKey, Picture>,
    /// There is none before the first search.
    pub(crate) search_index: Option<SearchIndex>,
    pub(crate) leaving: BTreeSet<(Timestamp, Leaving)>,
    /// Connections over Unix sockets whose edges have to be worked out again.
    pub(crate) unsettled_unix: BTreeSet<(HostIndex, u64)>,
    /// Channels that lead to a known service for which there was no room.
    pub(crate) crowded_out: BTreeSet<ChannelIndex>,
    /// When each view was last published.
    last_published: [Timestamp; PROJECTED.len()],
    next_stream: u64,
    is_loading: bool,
    /// Probes with an open stream.
    pub(crate) connected: usize,
}

impl Topology {
    /// An empty map.
    pub fn new(config: Config) -> Self {
        Topology {
            config,
            tables: Tables::default(),
            flows: Flows::default(),
            addresses: AddressBook::default(),
            networks: NetworkSet::default(),
            neighbour_networks: BTreeSet::new(),
            probes: BTreeMap::new(),
            projections: Default::default(),
            pictures: BTreeMap::new(),
            search_index: None,
            leaving: BTreeSet::new(),
            unsettled_unix: BTreeSet::new(),
            crowded_out: BTreeSet::new(),
            last_published: [Timestamp::EPOCH; PROJECTED.len()],
            next_stream: 0,
            is_loading: false,
            connected: 0,
        }
    }

    /// Total: every input has an outcome.
    pub fn step(&mut self, now: Timestamp, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Hello { probe, hello } => self.hello(now, probe, hello, out),
            Input::Report { probe, stream, report } => self.report(now, &probe, stream, *report, out),
            Input::StreamEnded { probe, stream, end } => self.stream_ended(now, probe, stream, end, out),
            Input::Watch(key) => self.watch(now, key, out),
            Input::Unwatch(key) => self.unwatch(now, key),
            Input::Neighbours(networks) => self.neighbours(networks),
            Input::Tick => {}
        }
        self.expire(now, out);
        if !self.is_loading {
            self.settle();
            self.mend_index_if_far_behind(now);
            self.publish(now, out);
        }
    }

    /// From here on steps only take records in. What follows from them, such as who talks to whom across hosts, is worked out at
    /// [`end_loading`](Self::end_loading), once instead of again with each probe that comes. Nothing may be asked meanwhile.
    pub fn begin_loading(&mut self) {
        self.is_loading = true;
    }

    /// Works out what follows from everything that was taken in.
    pub fn end_loading(&mut self) {
        self.is_loading = false;
        self.settle();
    }

    /// Makes the index of searches, in time that is proportional to the map; from then on it follows what changes.
    pub fn index_for_searches(&mut self, now: Timestamp) {
        self.make_index(now);
    }

    /// A page of the nodes that answer a query, with everything that was reported before. Makes the index if there is none yet.
    pub fn search(&mut self, now: Timestamp, search: &SearchQuery) -> SearchPage {
        self.search_within(now, search, &|| true).unwrap_or_default()
    }

    /// The same for as long as `may_go_on` says so, which is asked often, first when the index is ready.
    ///
    /// # Errors
    /// When it said no.
    pub fn search_within(
        &mut self,
        now: Timestamp,
        search: &SearchQuery,
        may_go_on: &dyn Fn() -> bool,
    ) -> Result<SearchPage, SearchTooLong> {
        self.settle();
        self.search_now(now, search, Patience(may_go_on))
    }

    /// When a step has work again without any other input; `None` means that there is nothing to wait for.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let leaving = self.leaving.first().map(|(at, _)| *at);
        let dirty = self.projections.iter().zip(self.last_published).filter(|(projection, _)| projection.is_dirty());
        let publish =
            dirty.map(|(projection, last)| if projection.is_drawing() { last } else { last + self.config.publish_interval }).min();
        let idle = self.pictures.values().filter_map(|picture| picture.idle_since).min().map(|since| since + self.config.picture_linger);
        [leaving, publish, idle].into_iter().flatten().min()
    }

    /// A node's panel; `None` when the unfiltered view has no such node.
    pub fn details(&self, now: Timestamp, key: ViewKey, node: &NodeId) -> Option<Details> {
        crate::details::details(self, now, key, node)
    }

    /// Numbers of a picture.
    pub fn stats(&self, now: Timestamp, key: ViewKey) -> ViewStats {
        let key = ViewKey { filter: key.filter.of_view(key.view), ..key };
        match (self.pictures.get(&key), projection::place(key.view)) {
            (Some(picture), _) => picture.snapshot().stats,
            (None, Some(place)) => Picture::draw(key, self.scene(place, now)).snapshot().stats,
            (None, None) => ViewStats::default(),
        }
    }

    /// How many nodes and edges each view has that something is in, filters aside. Costs nothing.
    pub fn view_sizes(&self) -> [(View, u64, u64); PROJECTED.len()] {
        std::array::from_fn(|place| {
            let projection = &self.projections[place];
            (PROJECTED[place], projection.len(), projection.edge_count())
        })
    }

    /// How many pictures are kept up to date.
    pub fn picture_count(&self) -> usize {
        self.pictures.len()
    }

    /// Whether anything that this probe said is on the map.
    pub fn knows_probe(&self, probe: &ProbeId) -> bool {
        self.probes.contains_key(probe)
    }

    /// Whether a stream is the one on which its probe reports.
    pub fn is_current(&self, probe: &ProbeId, stream: StreamId) -> bool {
        self.probes.get(probe).is_some_and(|row| row.stream == Some(stream))
    }

    /// Probes with an open stream.
    pub fn connected_probe_count(&self) -> usize {
        self.connected
    }

    /// Containers on the map, in any state.
    pub fn container_count(&self) -> usize {
        self.tables.container_count
    }

    /// Checks what has to hold after every step; for tests and debug builds.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self) -> Result<(), String> {
        self.flows.check()?;
        let connected = self.probes.values().filter(|row| row.stream.is_some()).count();
        let containers: usize = self.tables.hosts.iter().map(|(_, host)| host.containers.len()).sum();
        if (connected, containers) != (self.connected, self.tables.container_count) {
            return Err(format!("{connected} probes and {containers} containers were counted wrongly"));
        }
        self.check_index()?;
        self.projections.iter().try_for_each(Projection::check)?;
        self.check_settled()?;
        for (key, picture) in &self.pictures {
            let Some(place) = projection::place(key.view) else { continue };
            if self.projections[place].is_dirty() {
                continue;
            }
            let fresh = Picture::draw(*key, self.scene(place, self.last_published[place]));
            let shape = |picture: &Picture| {
                let nodes = picture.snapshot().nodes.iter();
                nodes.map(|(id, node)| (id.clone(), node.summary().adjacency.clone())).collect::<Vec<_>>()
            };
            if shape(&fresh) != shape(picture) || fresh.snapshot().stats != picture.snapshot().stats {
                return Err(format!("{key:?} is not what a fresh drawing shows"));
            }
        }
        Ok(())
    }

    fn hello(&mut self, now: Timestamp, probe: ProbeId, hello: ProbeHello, out: &mut Vec<Effect>) {
        if let Err(reason) = self.admit(&probe, &hello, out) {
            out.push(Effect::Refused { reason });
            return;
        }
        self.next_stream += 1;
        let stream = StreamId(self.next_stream);
        let source = match (self.probes.get(&probe), &hello.cluster_name) {
            (Some(row), _) => row.source,
            (None, Some(_)) => Source::Cluster,
            (None, None) => Source::Host(self.add_host(&probe, &hello)),
        };
        let row = self.probes.entry(probe.clone()).or_insert_with(|| ProbeRow {
            source,
            host_name: hello.host_name.clone(),
            cluster_name: hello.cluster_name.clone(),
            objects: BTreeSet::new(),
            version: hello.version.clone(),
            session: hello.session.clone(),
            stream: None,
            sequence: 0,
            complete: false,
            in_snapshot: false,
            epoch: 0,
            capture: Capture::default(),
            controls: Arc::default(),
            losses: Losses::default(),
            last_seen: now,
            records_refused: 0,
            leaves_at: None,
        });
        if row.session != hello.session {
            row.session = hello.session;
            row.sequence = 0;
            row.complete = false;
        }
        // A snapshot that broke off cannot be continued on another stream.
        row.in_snapshot = false;
        row.version = hello.version.clone();
        row.capture = hello.capture;
        row.controls = hello.controls;
        row.last_seen = now;
        let replaced = row.stream.replace(stream);
        self.connected += usize::from(replaced.is_none());
        if let Some(at) = row.leaves_at.take() {
            self.leaving.remove(&(at, Leaving::Probe(probe.clone())));
        }
        let holds_next = hello.oldest_held_sequence != 0 && hello.oldest_held_sequence <= row.sequence + 1;
        let resume_after_sequence = if row.complete && holds_next { row.sequence } else { 0 };
        if let Source::Host(host) = source {
            self.tables.hosts[host].probe_version = hello.version;
        }
        out.push(Effect::Admitted { resume_after_sequence, stream, replaced });
    }

    /// Whether a probe may report on the host it names. A host whose probe is gone is handed over.
    fn admit(&mut self, probe: &ProbeId, hello: &ProbeHello, out: &mut Vec<Effect>) -> Result<(), String> {
        let is_other =
            |row: &ProbeRow| row.cluster_name != hello.cluster_name || (row.cluster_name.is_none() && row.host_name != hello.host_name);
        if let Some(row) = self.probes.get(probe).filter(|row| is_other(row)) {
            if row.stream.is_some() {
                return Err(format!("probe {probe} is connected and reports on {}", row.subject()));
            }
            self.remove_probe(probe, StreamEnd::Lost, out);
        }
        let holder = match &hello.cluster_name {
            None => self.tables.host_names.get(&hello.host_name).map(|&host| self.tables.hosts[host].probe.clone()),
            Some(name) => self.probes.iter().find(|(_, row)| row.cluster_name.as_ref() == Some(name)).map(|(id, _)| id.clone()),
        };
        if let Some(holder) = holder.filter(|holder| holder != probe) {
            if let Some(row) = self.probes.get(&holder).filter(|row| row.stream.is_some()) {
                return Err(format!("{} is reported by another probe, {holder}", row.subject()));
            }
            self.remove_probe(&holder, StreamEnd::Lost, out);
        }
        if !self.probes.contains_key(probe) && self.probes.len() >= self.config.limits.probes {
            return Err(format!("the limit of {} probes is reached", self.config.limits.probes));
        }
        Ok(())
    }

    fn report(&mut self, now: Timestamp, probe: &ProbeId, stream: StreamId, report: Report, out: &mut Vec<Effect>) {
        match self.accept(now, probe, stream, report) {
            Ok(records_refused) => out.push(Effect::Applied { records_refused }),
            Err(refusal) => out.push(Effect::ReportRefused { refusal }),
        }
    }

    fn stream_ended(&mut self, now: Timestamp, probe: ProbeId, stream: StreamId, end: StreamEnd, out: &mut Vec<Effect>) {
        let window = self.config.window;
        let Some(row) = self.probes.get_mut(&probe).filter(|row| row.stream == Some(stream)) else { return };
        row.stream = None;
        self.connected -= 1;
        row.last_seen = now;
        match end {
            StreamEnd::Goodbye => self.remove_probe(&probe, end, out),
            StreamEnd::Lost => {
                let at = now + window;
                row.leaves_at = Some(at);
                self.leaving.insert((at, Leaving::Probe(probe)));
            }
        }
    }

    fn expire(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        while let Some((at, _)) = self.leaving.first()
            && *at <= now
        {
            match self.leaving.pop_first() {
                Some((_, Leaving::Process(process))) => self.remove_process(process),
                Some((_, Leaving::Flow(flow))) => self.flow_is_due(now, flow),
                Some((_, Leaving::Unix(host, id))) => self.remove_unix_flow(host, id),
                Some((_, Leaving::Probe(probe))) => self.remove_probe(&probe, StreamEnd::Lost, out),
                None => {}
            }
        }
        let linger = self.config.picture_linger;
        let dropped: Vec<ViewKey> =
            self.pictures.iter().filter(|(_, it)| it.idle_since.is_some_and(|at| at + linger <= now)).map(|(key, _)| *key).collect();
        for key in dropped {
            self.drop_picture(key, out);
        }
    }

    /// Draws what has changed, the view first that has waited longest. When it is much, the rest waits for the next step, which is due at once:
    /// whoever asks for something meanwhile need not wait for all of it.
    fn publish(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let interval = self.config.publish_interval;
        let is_due = |projection: &Projection, last: Timestamp| {
            projection.is_drawing() || (projection.is_dirty() && (now >= last + interval || now < last))
        };
        let mut due: Vec<usize> =
            (0..PROJECTED.len()).filter(|&place| is_due(&self.projections[place], self.last_published[place])).collect();
        due.sort_by_key(|&place| (self.last_published[place] <= now, self.last_published[place]));
        let mut room = self.config.drawn_at_once;
        for place in due {
            if !self.projections[place].is_drawing() {
                self.projections[place].begin_drawing();
                self.last_published[place] = now;
            }
            let watched = self.pictures.keys().filter(|key| key.view == PROJECTED[place]).count().max(1);
            let dirty = self.projections[place].take_some_drawing(room.div_ceil(watched));
            room = room.saturating_sub(dirty.changed.len() * watched);
            let scene = Scene { tables: &self.tables, projection: &self.projections[place], now };
            for (key, picture) in self.pictures.iter_mut().filter(|(key, _)| key.view == PROJECTED[place]) {
                if picture.mend(scene, &dirty) {
                    out.push(Effect::Published { key: *key, snapshot: picture.snapshot().clone() });
                }
            }
            if room == 0 {
                return;
            }
        }
    }

    fn watch(&mut self, now: Timestamp, key: ViewKey, out: &mut Vec<Effect>) {
        let key = ViewKey { filter: key.filter.of_view(key.view), ..key };
        let Some(place) = projection::place(key.view) else {
            out.push(Effect::Published { key, snapshot: ViewSnapshot::default() });
            return;
        };
        // What is due must not wait: whoever asks sees everything that was reported before.
        self.settle();
        let dirty = self.projections[place].take_dirty();
        if !dirty.is_empty() {
            let scene = Scene { tables: &self.tables, projection: &self.projections[place], now };
            for (other, picture) in self.pictures.iter_mut().filter(|(other, _)| other.view == key.view) {
                if picture.mend(scene, &dirty) && *other != key {
                    out.push(Effect::Published { key: *other, snapshot: picture.snapshot().clone() });
                }
            }
        }
        self.projections[place].set_watched(true);
        let scene = Scene { tables: &self.tables, projection: &self.projections[place], now };
        let picture = self.pictures.entry(key).or_insert_with(|| Picture::draw(key, scene));
        picture.idle_since = None;
        out.push(Effect::Published { key, snapshot: picture.snapshot().clone() });
        self.make_room(now, out);
    }

    /// Lets pictures go that nobody watches while there are too many. Those that were watched a moment ago stay, unless there are far too many:
    /// whoever asks for the list of views has all of them drawn, and asks again.
    fn make_room(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let most = self.config.picture_nodes;
        loop {
            let nodes = self.picture_nodes();
            let idle = self.pictures.iter().filter_map(|(key, picture)| Some((picture.idle_since?, *key)));
            let Some((since, key)) = idle.min().filter(|_| nodes > most) else { return };
            if now.since(since) < ASKED_AGAIN_WITHIN && nodes <= most.saturating_mul(FAR_TOO_MANY) {
                return;
            }
            self.drop_picture(key, out);
        }
    }

    /// How many nodes there are in all pictures together.
    pub fn picture_nodes(&self) -> usize {
        self.pictures.values().map(|picture| picture.snapshot().nodes.len()).sum()
    }

    fn drop_picture(&mut self, key: ViewKey, out: &mut Vec<Effect>) {
        self.pictures.remove(&key);
        if let Some(place) = projection::place(key.view) {
            let watched = self.pictures.keys().any(|other| other.view == key.view);
            self.projections[place].set_watched(watched);
        }
        out.push(Effect::PictureDropped { key });
    }

    fn unwatch(&mut self, now: Timestamp, key: ViewKey) {
        let key = ViewKey { filter: key.filter.of_view(key.view), ..key };
        if let Some(picture) = self.pictures.get_mut(&key) {
            picture.idle_since.get_or_insert(now);
        }
    }

    fn scene(&self, place: usize, now: Timestamp) -> Scene<'_> {
        Scene { tables: &self.tables, projection: &self.projections[place], now }
    }

    /// The projection of a view, if it is kept.
    pub(crate) fn projection(&self, view: View) -> Option<&Projection> {
        projection::place(view).map(|place| &self.projections[place])
    }

    pub(crate) fn touch(&mut self, view: View, entity: crate::index::Entity) {
        if let Some(place) = projection::place(view) {
            self.projections[place].touch(entity);
        }
    }

    pub(crate) fn touch_numbers(&mut self, view: View, entity: crate::index::Entity) {
        if let Some(place) = projection::place(view) {
            self.projections[place].touch_numbers(entity);
        }
    }

    pub(crate) fn set_present(&mut self, view: View, entity: crate::index::Entity, present: bool) {
        if let Some(place) = projection::place(view) {
            self.projections[place].set_present(entity, present);
        }
    }
}
