//! A map of the past: a topology core that is fed from the history instead of from probes.
//!
//! To show a moment, the records of one window before it are read and put on an empty map as if all probes had just connected; what changed
//! since then is played at the pace of its own moments. So whatever lingers on the live map lingers here, and whatever ended before is gone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use base::Timestamp;
use topology::{
    Config, Details, Effect, Flow, FlowPage, FlowQuery, Input, Network, NodeId, ProbeHello, ProbeId, Report, ReportKind, SearchPage,
    SearchQuery, SearchTooLong, StreamEnd, StreamId, Topology, ViewKey, ViewSnapshot, ViewStats,
};

use crate::code::DecodeError;
use crate::segment::{self, Frame, Piece, SegmentReader};
use crate::store::{Catalogue, Segment};
use crate::world::{Change, Known, World};

/// What one processor may be ahead of the other, in pieces or probes.
const READ_AHEAD: usize = 8;

/// Why a moment cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// It is before everything that is kept.
    #[error("the history does not reach back so far")]
    TooEarly,
    /// A file cannot be read.
    #[error("the history cannot be read: {0}")]
    File(#[from] std::io::Error),
    /// A file holds something else.
    #[error("the history is damaged: {0}")]
    Damaged(#[from] DecodeError),
}

/// A map that shows a moment of the past, and can go forward from there.
#[derive(Debug)]
pub struct Player {
    catalogue: Catalogue,
    config: Config,
    world: World,
    core: Topology,
    streams: BTreeMap<ProbeId, Stream>,
    position: Timestamp,
    reading: Reading,
    effects: Vec<Effect>,
    neighbours: Vec<Network>,
}

/// A probe's stream on the map of the past.
#[derive(Clone, Copy, Debug)]
struct Stream {
    id: StreamId,
    sequence: u64,
}

/// Where in the files the player is.
#[derive(Debug)]
struct Reading {
    segment: Segment,
    bytes: Vec<u8>,
    generation: u8,
    reader: SegmentReader,
    ready: VecDeque<Piece>,
    /// Frames up to here have been handed out.
    last: Timestamp,
    /// Something before this segment cannot be read, or was written at another time: its keyframe does not say what is known already.
    follows_damage: bool,
}

impl Player {
    /// A map that shows `at`. `config` is that of the live map.
    ///
    /// # Errors
    /// When the history does not reach back so far, or cannot be read.
    pub fn open(catalogue: Catalogue, config: Config, at: Timestamp) -> Result<Self, PlayError> {
        let earlier = at - config.window;
        let segment = catalogue.before(earlier).or_else(|| catalogue.before(at)).ok_or(PlayError::TooEarly)?;
        let (world, reading) = read_up_to(Reading::open(segment)?, &catalogue, earlier)?;
        // Nobody waits for this map: its pictures are of one moment each.
        let config = Config { drawn_at_once: usize::MAX, ..config };
        let mut player = Player {
            catalogue,
            config,
            world,
            core: Topology::new(config),
            streams: BTreeMap::new(),
            position: Timestamp::EPOCH,
            reading,
            effects: Vec::new(),
            neighbours: Vec::new(),
        };
        player.restore(earlier);
        player.forward(at)?;
        Ok(player)
    }

    /// The moment that it shows.
    pub fn position(&self) -> Timestamp {
        self.position
    }

    /// Goes forward to a moment; one that is not later changes nothing.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn forward(&mut self, to: Timestamp) -> Result<(), PlayError> {
        let played = self.play_until(to);
        self.core.end_loading();
        if to > self.position {
            self.position = to;
            self.step(to, Input::Tick);
        }
        played
    }

    fn play_until(&mut self, to: Timestamp) -> Result<(), PlayError> {
        while let Some(piece) = self.reading.next_until(&self.catalogue, to)? {
            match piece {
                Piece::World(_, _, true) | Piece::Gap(..) => {}
                Piece::World(at, world, false) => {
                    self.world = *world;
                    self.restore(at);
                }
                Piece::Frame(frame) => self.play(frame),
            }
        }
        Ok(())
    }

    /// Networks and addresses of machines that others reported on at this moment: they are not the Internet. Replaces what was said before.
    pub fn neighbours(&mut self, networks: Vec<Network>) {
        if self.neighbours != networks {
            self.neighbours.clone_from(&networks);
            self.step(self.position, Input::Neighbours(networks));
        }
    }

    /// The picture at this moment.
    pub fn snapshot(&mut self, key: ViewKey) -> ViewSnapshot {
        let wanted = ViewKey { filter: key.filter.of_view(key.view), ..key };
        let mut effects = Vec::new();
        self.core.step(self.position, Input::Watch(key), &mut effects);
        self.core.step(self.position, Input::Unwatch(key), &mut Vec::new());
        let published = effects.into_iter().rev().find_map(|effect| match effect {
            Effect::Published { key, snapshot } if key == wanted => Some(snapshot),
            _ => None,
        });
        published.unwrap_or_default()
    }

    /// Numbers of several pictures, in the order asked.
    pub fn stats(&self, keys: &[ViewKey]) -> Vec<ViewStats> {
        keys.iter().map(|&key| self.core.stats(self.position, key)).collect()
    }

    /// A node's panel; `None` when the unfiltered view has no such node.
    pub fn details(&self, key: ViewKey, node: &NodeId) -> Option<Details> {
        self.core.details(self.position, key, node)
    }

    /// A page of the nodes that answer a query.
    pub fn search(&mut self, query: &SearchQuery) -> SearchPage {
        self.core.search(self.position, query)
    }

    /// The same for as long as `may_go_on` says so.
    ///
    /// # Errors
    /// When it said no.
    pub fn search_within(&mut self, query: &SearchQuery, may_go_on: &dyn Fn() -> bool) -> Result<SearchPage, SearchTooLong> {
        self.core.search_within(self.position, query, may_go_on)
    }

    /// A page of flows.
    pub fn flows(&self, query: &FlowQuery) -> FlowPage {
        self.core.flows(query)
    }

    /// The map itself, for whatever else can be asked of it.
    pub fn map(&self) -> &Topology {
        &self.core
    }

    /// The records at this moment.
    pub fn world(&self) -> &World {
        &self.world
    }

    fn step(&mut self, at: Timestamp, input: Input) -> Option<StreamId> {
        self.core.step(at, input, &mut self.effects);
        self.effects.drain(..).fold(None, |admitted, effect| match effect {
            Effect::Admitted { stream, .. } => Some(stream),
            _ => admitted,
        })
    }

    /// Puts all records on an empty map.
    fn restore(&mut self, at: Timestamp) {
        self.core = Topology::new(self.config);
        self.streams.clear();
        if !self.neighbours.is_empty() {
            self.step(at, Input::Neighbours(self.neighbours.clone()));
        }
        // Until the moment that is asked for: who talks to whom is of interest then, and not at each one before.
        self.core.begin_loading();
        // What had ended and closed before this moment leaves the map, and the counts of the last window, within the window that is played next.
        let before = at - self.config.window;
        let world = std::mem::take(&mut self.world);
        // What a lost probe said has left the map one window from here, unless it comes back: then it is put there with what it said.
        std::thread::scope(|scope| {
            let (told, reports) = sync_channel(READ_AHEAD);
            let world = &world;
            scope.spawn(move || {
                for (probe, known) in world.probes.iter().filter(|(_, known)| !known.is_lost) {
                    if told.send((probe, known, known.report())).is_err() {
                        return;
                    }
                }
            });
            for (probe, known, report) in reports {
                self.connect(before, probe, known, report);
            }
        });
        self.world = world;
        self.position = at;
    }

    fn connect(&mut self, at: Timestamp, probe: &ProbeId, known: &Known, report: Report) {
        if self.hello(at, probe, &known.hello) {
            self.report(at, probe, report);
            if !known.forgotten.is_empty() {
                // Now, when the flows are there that keep some of them.
                self.report(at, probe, Report { resolved_addresses_gone: known.forgotten.keys().copied().collect(), ..Report::default() });
            }
        }
    }

    fn hello(&mut self, at: Timestamp, probe: &ProbeId, hello: &ProbeHello) -> bool {
        let sequence = self.streams.get(probe).map_or(0, |stream| stream.sequence);
        // One session for ever: the flows of different ones have different numbers here.
        let hello = ProbeHello { session: "history".into(), oldest_held_sequence: sequence + 1, ..hello.clone() };
        let Some(id) = self.step(at, Input::Hello { probe: probe.clone(), hello }) else { return false };
        self.streams.insert(probe.clone(), Stream { id, sequence });
        true
    }

    fn report(&mut self, at: Timestamp, probe: &ProbeId, report: Report) {
        let Some(stream) = self.streams.get_mut(probe) else { return };
        stream.sequence += 1;
        let report = Report { sequence: stream.sequence, observed_at: at, ..report };
        let input = Input::Report { probe: probe.clone(), stream: stream.id, report: Box::new(report) };
        self.step(at, input);
    }

    fn play(&mut self, frame: Frame) {
        let at = frame.at;
        for (probe, changes) in frame.probes {
            let mut batch = Batch::default();
            for change in changes {
                if batch.must_go_before(&change) {
                    let full = std::mem::take(&mut batch);
                    self.report(at, &probe, full.report);
                }
                self.world.apply(at, &probe, change.clone());
                match change {
                    Change::Hello(hello) => self.returns(at, &probe, &hello),
                    Change::Lost | Change::Left => {
                        let end = if change == Change::Left { StreamEnd::Goodbye } else { StreamEnd::Lost };
                        self.ends(at, &probe, end);
                    }
                    other => {
                        if let Some(known) = self.world.probes.get(&probe) {
                            batch.add(other, known);
                        }
                    }
                }
            }
            if batch.count > 0 {
                self.report(at, &probe, batch.report);
            }
        }
        self.position = self.position.max(at);
        self.step(at, Input::Tick);
    }

    fn returns(&mut self, at: Timestamp, probe: &ProbeId, hello: &ProbeHello) {
        if self.core.knows_probe(probe) && self.streams.contains_key(probe) {
            self.hello(at, probe, hello);
            return;
        }
        self.streams.remove(probe);
        let known = self.world.probes.get(probe).cloned();
        known.into_iter().for_each(|known| self.connect(at, probe, &known, known.report()));
    }

    fn ends(&mut self, at: Timestamp, probe: &ProbeId, end: StreamEnd) {
        let Some(stream) = self.streams.get(probe).copied() else { return };
        self.step(at, Input::StreamEnded { probe: probe.clone(), stream: stream.id, end });
        if end == StreamEnd::Goodbye {
            self.streams.remove(probe);
        }
    }
}

/// The records of a moment, and the files from there on. What is read is unpacked on one processor while what was unpacked is put together on
/// another.
fn read_up_to(mut reading: Reading, catalogue: &Catalogue, to: Timestamp) -> Result<(World, Reading), PlayError> {
    std::thread::scope(|scope| {
        let (unpacked, pieces) = sync_channel(READ_AHEAD);
        let reader = scope.spawn(move || {
            while let Some(piece) = reading.next_until(catalogue, to.max(reading.segment.from))? {
                if unpacked.send(piece).is_err() {
                    break;
                }
            }
            Ok::<Reading, PlayError>(reading)
        });
        let mut world = World::default();
        let mut begun = Timestamp::EPOCH;
        for piece in pieces {
            match piece {
                Piece::World(from, keyframe, continues) => {
                    // In the middle of the way it says what is known already.
                    if begun == Timestamp::EPOCH || !continues {
                        (world, begun) = (*keyframe, from);
                    }
                }
                Piece::Frame(frame) => frame.probes.into_iter().for_each(|(probe, changes)| world.apply_all(frame.at, &probe, changes)),
                Piece::Gap(..) => {}
            }
        }
        let reading = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((world, reading?))
    })
}

/// A flow as an update that says its counters.
fn counted(flow: &Flow) -> Flow {
    Flow { key: None, translations: Vec::new(), ..flow.clone() }
}

/// Changes of one probe that fit into one report.
#[derive(Debug, Default)]
struct Batch {
    report: Report,
    count: usize,
    has_gone: bool,
}

impl Batch {
    /// A report says first what there is, and then what is gone. What comes after something that is gone is for the next one.
    fn must_go_before(&self, change: &Change) -> bool {
        let concerns_probe = matches!(change, Change::Hello(_) | Change::Lost | Change::Left);
        self.count > 0 && (concerns_probe || (self.has_gone && !is_gone(change)))
    }

    fn add(&mut self, change: Change, known: &Known) {
        self.count += 1;
        self.has_gone |= is_gone(&change);
        let report = &mut self.report;
        report.kind = ReportKind::Delta;
        match change {
            Change::Hello(_) | Change::Lost | Change::Left => {}
            Change::Capture(capture) => report.capture = Some(*capture),
            Change::Losses(losses) => report.losses = Some(*losses),
            Change::Host(host) => report.host = Some(*host),
            Change::HostMetrics(metrics) => report.host_metrics.push(*metrics),
            Change::Process(process) => report.processes.push(*process),
            Change::ProcessGone(key) => report.processes_gone.push(key),
            Change::Sample { pid, .. } => {
                let sample = known.holder(pid).and_then(|key| Some(known.process_metrics.get(&key)?.metrics(key)));
                report.process_metrics.extend(sample);
            }
            Change::Container(container) => report.containers.push(*container),
            Change::ContainerGone(id) => report.containers_gone.push(id),
            Change::ContainerMetrics(metrics) => report.container_metrics.push(*metrics),
            Change::Image(image) => report.images.push(*image),
            Change::ImageGone(id) => report.images_gone.push(id),
            Change::Flow(flow) => report.flows.push(*flow),
            Change::Count { id, .. } => report.flows.extend(known.flows.get(&id).map(counted)),
            Change::FlowGone(id) => report.flows_gone.push(id),
            Change::Listener(listener) => report.listeners.push(*listener),
            Change::ListenerGone(id) => report.listeners_gone.push(id),
            Change::Name(name) => report.resolved_addresses.push(*name),
            Change::NameGone(address) => report.resolved_addresses_gone.push(address),
            Change::Unix(flow) => report.unix_flows.push(*flow),
            Change::UnixGone(id) => report.unix_flows_gone.push(id),
            Change::Object(object) => report.kubernetes.push(*object),
            Change::ObjectGone(uid) => report.kubernetes_gone.push(uid),
        }
    }
}

fn is_gone(change: &Change) -> bool {
    matches!(
        change,
        Change::ProcessGone(_)
            | Change::ContainerGone(_)
            | Change::ImageGone(_)
            | Change::FlowGone(_)
            | Change::ListenerGone(_)
            | Change::NameGone(_)
            | Change::UnixGone(_)
            | Change::ObjectGone(_)
    )
}

impl Reading {
    fn open(segment: Segment) -> Result<Self, PlayError> {
        let bytes = std::fs::read(&segment.path)?;
        let generation = segment::generation(&bytes).ok_or(DecodeError::Invalid)?;
        Ok(Reading {
            segment,
            bytes,
            generation,
            reader: SegmentReader::default(),
            ready: VecDeque::new(),
            last: Timestamp::EPOCH,
            follows_damage: false,
        })
    }

    /// The next piece up to a moment.
    fn next_until(&mut self, catalogue: &Catalogue, to: Timestamp) -> Result<Option<Piece>, PlayError> {
        loop {
            if let Some(piece) = self.ready.front() {
                let at = match piece {
                    Piece::World(at, ..) | Piece::Gap(at, _) => *at,
                    Piece::Frame(frame) => frame.at,
                };
                if at > to {
                    // A clock that was ahead dated this; what was written after it was set back may be due.
                    let passed_by = catalogue.after(&self.segment).filter(|next| next.from < at && next.from <= to);
                    let Some(next) = passed_by else { return Ok(None) };
                    *self = Reading { last: self.last, follows_damage: true, ..Reading::open(next)? };
                    continue;
                }
                // A mark of a gap has the moment of the frame behind it.
                let is_frame = matches!(piece, Piece::Frame(_));
                let piece = self.ready.pop_front();
                if matches!(piece, Some(Piece::World(_, _, false))) && at <= self.last {
                    // It begins anew, by another clock: nothing of what follows is known already.
                    self.last = at - Duration::from_nanos(1);
                }
                if is_frame && at <= self.last {
                    continue;
                }
                if is_frame {
                    self.last = at;
                }
                return Ok(piece);
            }
            if let Some(mut pieces) = self.reader.next(&self.bytes)? {
                if let Some(Piece::World(_, _, continues)) = pieces.first_mut() {
                    *continues &= !std::mem::take(&mut self.follows_damage);
                }
                self.ready.extend(pieces);
                continue;
            }
            if !self.read_on(catalogue, to)? {
                return Ok(None);
            }
        }
    }

    /// Looks whether the file has grown, or another one follows.
    fn read_on(&mut self, catalogue: &Catalogue, to: Timestamp) -> Result<bool, PlayError> {
        let next = catalogue.after(&self.segment);
        let grown = match std::fs::metadata(&self.segment.path) {
            Ok(about) => about.len() != self.bytes.len() as u64,
            // Too old by now; what follows it is not.
            Err(_) => false,
        };
        if grown {
            let bytes = std::fs::read(&self.segment.path)?;
            let generation = segment::generation(&bytes).ok_or(DecodeError::Invalid)?;
            if generation != self.generation {
                // Compacted meanwhile: the same, laid out anew. What was handed out already is passed over.
                (self.reader, self.generation) = (SegmentReader::default(), generation);
                self.bytes = bytes;
                self.skip_keyframe()?;
                return Ok(true);
            }
            let has_more = segment::block_at(&bytes, self.reader.offset).is_some();
            self.bytes = bytes;
            if has_more {
                return Ok(true);
            }
        }
        // A segment that is over ends with a whole block.
        let follows_damage = self.reader.offset.max(segment::HEADER) < self.bytes.len();
        if let Some(next) = next.as_ref().filter(|_| follows_damage) {
            catalogue.is_damaged(self.last.max(self.segment.from), next.from);
        }
        match next.filter(|next| next.from <= to) {
            Some(next) => {
                let last = self.last;
                let follows_damage = follows_damage || next.number != self.segment.number + 1;
                *self = Reading { last, follows_damage, ..Reading::open(next)? };
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn skip_keyframe(&mut self) -> Result<(), PlayError> {
        let pieces = self.reader.next(&self.bytes)?.unwrap_or_default();
        self.ready.extend(pieces.into_iter().filter(|piece| !matches!(piece, Piece::World(..))));
        Ok(())
    }
}
