//! A live map beside its history, and what both show.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use base::Timestamp;
use history::{Event, Player, Recorder, Settings, Store, Tended};
use topology::*;

pub(crate) const WINDOW: Duration = Duration::from_secs(15);
pub(crate) const BEGIN: u64 = 1_700_000_000_000;

pub(crate) fn config() -> Config {
    Config {
        window: WINDOW,
        publish_interval: Duration::from_millis(50),
        picture_linger: Duration::from_secs(60),
        picture_nodes: 400_000,
        drawn_at_once: 500,
        limits: Limits {
            probes: 10,
            processes: 1_000,
            containers: 100,
            flows: 1_000,
            objects: 100,
            listeners: 100,
            names: 100,
            unix_flows: 100,
            externals: 4,
        },
    }
}

pub(crate) fn settings(directory: &Path) -> Settings {
    Settings {
        directory: directory.to_owned(),
        keep_for: Duration::from_secs(3_600),
        keep_bytes: 1 << 30,
        segment: Duration::from_secs(60),
    }
}

pub(crate) struct World {
    pub(crate) live: Topology,
    pub(crate) now: Timestamp,
    pub(crate) recorder: Recorder,
    pub(crate) store: Store,
    streams: BTreeMap<String, (StreamId, u64)>,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        World::beginning_at(settings, Timestamp::from_unix_millis(BEGIN))
    }

    pub(crate) fn beginning_at(settings: Settings, now: Timestamp) -> Self {
        let (store, _) = Store::open(settings).unwrap();
        let mut world =
            World { live: Topology::new(config()), now, recorder: Recorder::new(config().limits), store, streams: BTreeMap::new() };
        world.tend();
        world
    }

    pub(crate) fn tend(&mut self) -> Tended {
        self.store.tend(self.now, &mut self.recorder)
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.live.step(self.now, input, &mut effects);
        for effect in &effects {
            if let Effect::ProbeLeft { probe, .. } = effect {
                self.recorder.observe(self.now, Event::ProbeLeft { probe: probe.clone() });
            }
        }
        effects
    }

    /// Time goes by, on the live map in steps of its own deadlines as its driver takes them.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.live.next_deadline().filter(|due| *due < end) {
            self.now = due.max(self.now + Duration::from_millis(1)).min(end);
            self.step(Input::Tick);
        }
        self.now = end;
        self.step(Input::Tick);
    }

    pub(crate) fn is_connected(&self, probe: &str) -> bool {
        self.live.probes().iter().any(|status| &*status.id == probe && status.connected)
    }

    pub(crate) fn hello(&mut self, probe: &str, session: &str, cluster: bool) -> bool {
        let hello = ProbeHello {
            host_name: probe.into(),
            version: "1".into(),
            session: session.into(),
            oldest_held_sequence: self.streams.get(probe).map_or(0, |(_, sequence)| sequence + 1),
            capture: Capture::default(),
            cluster_name: cluster.then(|| "k".into()),
            controls: [].into(),
        };
        let effects = self.step(Input::Hello { probe: probe.into(), hello: hello.clone() });
        let admitted = effects.into_iter().find_map(|effect| match effect {
            Effect::Admitted { stream, resume_after_sequence, .. } => Some((stream, resume_after_sequence)),
            _ => None,
        });
        let Some(stream) = admitted else { return false };
        self.recorder.observe(self.now, Event::Hello { probe: probe.into(), hello: Box::new(hello) });
        self.streams.insert(probe.to_owned(), stream);
        true
    }

    pub(crate) fn report(&mut self, probe: &str, report: Report) -> bool {
        let (stream, sequence) = self.streams.get_mut(probe).unwrap();
        *sequence += 1;
        let report = Report { sequence: *sequence, observed_at: self.now, ..report };
        let input = Input::Report { probe: probe.into(), stream: *stream, report: Box::new(report.clone()) };
        let applied = self.step(input).iter().any(|effect| matches!(effect, Effect::Applied { .. }));
        if applied {
            self.recorder.observe(self.now, Event::Report { probe: probe.into(), report: Box::new(report) });
        }
        applied
    }

    pub(crate) fn disconnect(&mut self, probe: &str, end: StreamEnd) {
        let (stream, _) = self.streams[probe];
        self.step(Input::StreamEnded { probe: probe.into(), stream, end });
        self.recorder.observe(self.now, Event::StreamEnded { probe: probe.into(), end });
    }

    pub(crate) fn connect(&mut self, probe: &str) {
        assert!(self.hello(probe, "s1", false));
        assert!(self.report(probe, Report { kind: ReportKind::SnapshotEnd, host: Some(Host::default()), ..Report::default() }));
    }

    pub(crate) fn player(&self, at: Timestamp) -> Player {
        Player::open(self.store.catalogue().clone(), config(), at).unwrap()
    }

    /// Everything that all views show now.
    pub(crate) fn live_picture(&mut self) -> String {
        let now = self.now;
        let mut text = String::new();
        for view in View::ALL {
            let key = ViewKey { view, filter: Filter::NONE };
            let mut effects = Vec::new();
            self.live.step(now, Input::Watch(key), &mut effects);
            let snapshot = effects.into_iter().find_map(|effect| match effect {
                Effect::Published { key: found, snapshot } if found == key => Some(snapshot),
                _ => None,
            });
            describe(&mut text, view, &snapshot.unwrap(), |id| self.live.details(now, key, id));
        }
        text
    }
}

/// Everything that all views show at a player's moment.
pub(crate) fn past_picture(player: &mut Player) -> String {
    let mut text = String::new();
    for view in View::ALL {
        let key = ViewKey { view, filter: Filter::NONE };
        let snapshot = player.snapshot(key);
        describe(&mut text, view, &snapshot, |id| player.details(key, id));
    }
    text
}

/// Parents of a kind are in the order in which the map learned of them. Without metrics, because samples of processes are thinned, and without counts of connections, which the live map knows for one window or
/// two, and the one of the past for one.
fn describe(text: &mut String, view: View, snapshot: &ViewSnapshot, details: impl Fn(&NodeId) -> Option<Details>) {
    for (id, node) in &snapshot.nodes {
        let mut summary = node.summary().clone();
        summary.metrics.clear();
        summary.parents.sort_by(|a, b| a.id.cmp(&b.id));
        writeln!(text, "{} {id} {summary:?}", view.id()).unwrap();
        let details = details(id).unwrap();
        let rows = |list: &[Connection]| list.iter().map(|it| format!("{} {} {:?}", it.node_id, it.label, it.port)).collect::<Vec<_>>();
        writeln!(text, "  in {:?} out {:?}", rows(&details.incoming), rows(&details.outgoing)).unwrap();
    }
    writeln!(text, "{} {:?}", view.id(), snapshot.stats).unwrap();
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn process(pid: u32, start_time: u64, name: &str) -> Process {
    Process { key: ProcessKey { pid, start_time }, name: name.into(), command_line: format!("{name} --x").into(), ..Process::default() }
}

pub(crate) fn container(id: &str, name: &str) -> Container {
    Container { id: id.into(), name: name.into(), image_name: "team/app:1".into(), ..Container::default() }
}

pub(crate) fn flow(id: u64, owner: Option<ProcessKey>, is_client: bool, from: &str, to: &str, port: u16) -> Flow {
    let key = FlowKey {
        process: owner,
        cgroup_id: 0,
        container_id: None,
        direction: if is_client { Direction::Client } else { Direction::Server },
        protocol: Protocol::Tcp,
        client_address: address(from),
        server_address: address(to),
        server_port: port,
        network_namespace: 0,
        original_server: None,
        origin: Origin::Event,
        sample_client_port: 0,
    };
    Flow { id, key: Some(key), counters: FlowCounters { opened: 1, ..FlowCounters::default() }, ..Flow::default() }
}
