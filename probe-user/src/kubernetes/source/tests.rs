use std::collections::{BTreeMap, VecDeque};

use probe_kubernetes::index::Limits as IndexLimits;
use probe_kubernetes::watch::{Cause, Failure};
use probe_kubernetes::wire::{self, Object, Wire};
use proptest::prelude::*;
use proto::probe::v1::KubernetesObject;

use super::*;
use crate::publisher::{Limits, Publisher};

const MS: u64 = 1_000_000;

fn now(ms: u64) -> Now {
    Now { boot: BootNanos(ms * MS), unix_nanos: 1_700_000_000_000_000_000 + ms * MS }
}

fn applied<W: Wire>(text: &str) -> Step {
    let object: Object<W> = serde_json::from_str(text).unwrap();
    Step::Applied(Box::new(object.into_facts().unwrap()))
}

fn scope(kind: Kind) -> Scope {
    Scope { kind, namespace: None }
}

fn pod(name: &str, state: u32) -> Step {
    applied::<wire::Pod>(&format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"shop","uid":"pod-{name}","labels":{{"app":"a{}"}}}},"status":{{"phase":"P{state}"}}}}"#,
        state % 3
    ))
}

fn service(name: &str, selects: u32) -> Step {
    applied::<wire::Service>(&format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"shop","uid":"service-{name}"}},"spec":{{"selector":{{"app":"a{selects}"}}}}}}"#
    ))
}

/// A receiver that follows the rules of the stream, as the control plane does.
#[derive(Debug, Default)]
struct Receiver {
    sequence: u64,
    complete: bool,
    in_snapshot: bool,
    objects: BTreeMap<String, KubernetesObject>,
    named: BTreeMap<String, KubernetesObject>,
    capture: v1::Capture,
    losses: v1::Losses,
}

impl Receiver {
    fn welcome(&mut self, oldest_held: u64) -> u64 {
        self.in_snapshot = false;
        let holds_next = oldest_held != 0 && oldest_held <= self.sequence + 1;
        if self.complete && holds_next { self.sequence } else { 0 }
    }

    fn apply(&mut self, report: Report) {
        if report.sequence <= self.sequence {
            return;
        }
        self.sequence = report.sequence;
        let kind = report.kind();
        if kind != ReportKind::Delta && !std::mem::replace(&mut self.in_snapshot, true) {
            self.named.clear();
        }
        assert!(kind != ReportKind::Delta || (self.complete && !self.in_snapshot), "a delta before a snapshot");
        for object in report.kubernetes {
            self.named.insert(object.uid.clone(), object.clone());
            self.objects.insert(object.uid.clone(), object);
        }
        for uid in report.kubernetes_gone {
            assert!(self.objects.remove(&uid).is_some(), "{uid} is gone, of which nothing was told");
        }
        self.capture = report.capture.unwrap_or_else(|| std::mem::take(&mut self.capture));
        self.losses = report.losses.unwrap_or_else(|| std::mem::take(&mut self.losses));
        if kind == ReportKind::SnapshotEnd {
            self.objects = std::mem::take(&mut self.named);
            self.in_snapshot = false;
            self.complete = true;
        }
    }
}

struct World {
    publisher: Publisher<ClusterSource>,
    receiver: Receiver,
    connected: bool,
    wire: VecDeque<Report>,
    acknowledgements: VecDeque<u64>,
    ms: u64,
}

#[derive(Clone, Debug)]
enum Happening {
    Pod(u8, u32),
    PodGone(u8),
    Service(u8, u32),
    Relist(Vec<u8>),
    Pass(u64),
    Send(usize),
    Arrive(usize),
    Acknowledge,
    Connect,
    Disconnect,
    Forget,
}

impl World {
    fn new(held_bytes: usize, report_bytes: usize) -> Self {
        let source = ClusterSource::new(Cluster::new(IndexLimits::default(), &[]), "production");
        World {
            publisher: Publisher::new(source, Limits { held_bytes, report_bytes: (report_bytes, report_bytes) }),
            receiver: Receiver::default(),
            connected: false,
            wire: VecDeque::new(),
            acknowledgements: VecDeque::new(),
            ms: 1_000,
        }
    }

    fn take(&mut self, kind: Kind, step: Step) {
        self.publisher.builder.take(&scope(kind), step);
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Pod(name, state) => self.take(Kind::Pod, pod(&name.to_string(), state)),
            Happening::PodGone(name) => self.take(Kind::Pod, Step::Deleted(format!("pod-{name}").into())),
            Happening::Service(name, selects) => self.take(Kind::Service, service(&name.to_string(), selects)),
            Happening::Relist(names) => {
                self.take(Kind::Pod, Step::ListBegun);
                names.into_iter().for_each(|name| self.take(Kind::Pod, pod(&name.to_string(), 7)));
                self.take(Kind::Pod, Step::Listed);
            }
            Happening::Pass(ms) => self.ms += ms,
            Happening::Send(count) => {
                let sent = std::iter::from_fn(|| self.publisher.take_next()).take(count).collect::<Vec<_>>();
                self.wire.extend(sent);
            }
            Happening::Arrive(count) => {
                for report in self.wire.drain(..count.min(self.wire.len())) {
                    self.acknowledgements.push_back(report.sequence);
                    self.receiver.apply(report);
                }
            }
            Happening::Acknowledge => self.acknowledgements.drain(..).for_each(|sequence| self.publisher.acknowledged(sequence)),
            Happening::Connect if !self.connected => {
                let resume_after = self.receiver.welcome(self.publisher.oldest_held());
                self.publisher.connected(resume_after, 0);
                self.connected = true;
            }
            Happening::Disconnect if self.connected => {
                self.publisher.disconnected();
                self.connected = false;
                self.wire.clear();
                self.acknowledgements.clear();
            }
            Happening::Forget => {
                self.happens(Happening::Disconnect);
                self.receiver = Receiver::default();
            }
            Happening::Connect | Happening::Disconnect => {}
        }
        self.publisher.poll(now(self.ms));
    }

    fn settle(&mut self) {
        self.happens(Happening::Connect);
        for round in 0..1_000 {
            if round > 20 && self.publisher.is_settled() {
                return;
            }
            self.happens(Happening::Pass(60));
            self.happens(Happening::Send(usize::MAX));
            self.happens(Happening::Arrive(usize::MAX));
            self.happens(Happening::Acknowledge);
        }
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    let name = 0_u8..12;
    prop_oneof![
        5 => (name.clone(), 0_u32..6).prop_map(|(name, state)| Happening::Pod(name, state)),
        2 => name.clone().prop_map(Happening::PodGone),
        2 => (0_u8..3, 0_u32..3).prop_map(|(name, selects)| Happening::Service(name, selects)),
        1 => proptest::collection::vec(name, 0..6).prop_map(Happening::Relist),
        5 => prop_oneof![Just(15_u64), Just(60), Just(2_100)].prop_map(Happening::Pass),
        4 => (1_usize..4).prop_map(Happening::Send),
        4 => (1_usize..4).prop_map(Happening::Arrive),
        3 => Just(Happening::Acknowledge),
        3 => Just(Happening::Connect),
        1 => Just(Happening::Disconnect),
        1 => Just(Happening::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_receiver_ends_with_the_objects_of_the_cluster(
        happenings in proptest::collection::vec(happening(), 1..120),
        held_bytes in 4_000_usize..20_000,
        report_bytes in 900_usize..2_000,
    ) {
        let mut world = World::new(held_bytes, report_bytes);
        for happening in happenings {
            world.happens(happening);
        }
        world.settle();
        prop_assert!(world.publisher.is_settled());
        let expected = world.publisher.builder.cluster().index.objects().map(|it| (it.uid.clone(), it)).collect::<BTreeMap<_, _>>();
        prop_assert_eq!(&world.receiver.objects, &expected);
    }
}

#[test]
fn a_control_plane_that_is_away_costs_half_of_the_outbox_and_no_snapshot() {
    let mut world = World::new(8_000, 1_500);
    world.settle();
    world.happens(Happening::Disconnect);
    for round in 0..200 {
        for name in 0..20 {
            world.happens(Happening::Pod(name, round));
        }
        world.happens(Happening::Pass(2_100));
    }
    assert!(world.publisher.held_bytes() <= 8_000);
    assert_eq!(world.publisher.dropped(), 0);
    let before = world.receiver.sequence;
    world.settle();
    assert_eq!(world.receiver.objects.len(), 20);
    assert!(world.receiver.sequence < before + 20, "of 4,000 changes most were never told: {}", world.receiver.sequence - before);
}

#[test]
fn a_kind_that_cannot_be_read_is_a_blind_spot_and_what_finds_no_room_is_a_loss() {
    let mut world = World::new(100_000, 10_000);
    world.publisher.builder = ClusterSource::new(Cluster::new(IndexLimits { objects_per_kind: 1 }, &[]), "production");
    world.happens(Happening::Pod(1, 1));
    world.happens(Happening::Pod(2, 1));
    world.settle();
    assert_eq!(world.receiver.losses.table_full, 1);
    assert!(world.receiver.capture.blind_spots.is_empty());
    let failure = Failure { cause: Cause::Forbidden, message: "403 Forbidden: not for you".to_owned() };
    world.take(Kind::CronJob, Step::Failed(failure));
    world.settle();
    assert_eq!(world.receiver.capture.blind_spots, ["cronjobs cannot be read: 403 Forbidden: not for you"]);
    assert!(world.receiver.capture.hooks.iter().any(|hook| hook.name == "cronjobs" && !hook.attached));
    world.happens(Happening::Pod(3, 1));
    world.settle();
    assert_eq!(world.receiver.losses.table_full, 2);
}
