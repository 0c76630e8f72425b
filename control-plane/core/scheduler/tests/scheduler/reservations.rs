//! What was reserved for instances that are no more is given back, whoever leads by then.

use std::sync::Arc;

use base::Timestamp;
use scheduler::id::{PathId, TaskId};
use scheduler::mesos::{Call, Event, FRAMEWORK_LABEL, INSTANCE_LABEL, Offer, Operation, Reservation, Resource, ResourceValue, TaskState};
use scheduler::mesos::{Disk, TaskStatus};
use scheduler::model::UnreachableStrategy;
use scheduler::model::container::{Container, ContainerKind, DiskKind, PersistentVolume, Volume, VolumeKind};
use scheduler::model::spec::Spec;
use scheduler::words::{Change, Config, Edit, Expect, Ticket};
use scheduler::{Effect, Input, Scheduler};

use crate::world::{Stored, app, ms};

/// A scheduler, what it stored, and what it asked since it was last looked at.
struct Led {
    core: Scheduler,
    stored: Stored,
    now: Timestamp,
    effects: Vec<Effect>,
}

impl Led {
    fn new() -> Led {
        let (stored, now) = (Stored::default(), Timestamp::from_unix_millis(1_000_000));
        Led { core: Scheduler::new(config(), stored.loaded(), now), stored, now, effects: Vec::new() }
    }

    fn step(&mut self, after_ms: u64, input: Input) {
        self.now = self.now + ms(after_ms);
        let mut effects = Vec::new();
        self.core.step(self.now, input, &mut effects);
        for effect in &effects {
            if let Effect::Persist(record) = effect {
                self.stored.write(record);
            }
        }
        self.effects.extend(effects);
    }

    fn tell(&mut self, event: Event) {
        self.step(1, Input::Mesos(event));
    }

    fn connect(&mut self) {
        self.tell(Event::Subscribed { framework_id: "f".into(), master: "m:5050".into(), region: None });
    }

    /// Another process leads, with what this one has stored.
    fn fail_over(&mut self) {
        self.core = Scheduler::new(config(), self.stored.loaded(), self.now);
        self.effects.clear();
    }

    fn change(&mut self, edit: Edit) {
        let change = Change { edits: vec![edit], force: true, ..Change::default() };
        self.step(1, Input::Change { ticket: Ticket(1), change });
    }

    fn operations(&mut self) -> Vec<Operation> {
        let of = |effect| if let Effect::Call(Call::Accept { operations, .. }) = effect { operations } else { Vec::new() };
        self.effects.drain(..).flat_map(of).collect()
    }

    /// Puts a resident app, lets it run, and removes it; what was reserved for it, and its task.
    fn reserve_and_remove(&mut self) -> (Vec<Resource>, String) {
        self.connect();
        self.change(Edit::Put { spec: Spec::App(Arc::new(resident())), expect: Expect::Anything });
        self.tell(offers(vec![scalar("cpus", 4_000), scalar("mem", 4_000_000), scalar("disk", 4_000_000)]));
        let operations = self.operations();
        let mut reserved = Vec::new();
        let mut task = String::new();
        for operation in operations {
            match operation {
                Operation::Reserve(resources) => reserved.extend(resources.into_iter().filter(|it| it.name != "disk")),
                Operation::Create(volumes) => reserved.extend(volumes),
                Operation::Launch(launch) => task = launch.tasks[0].id.as_str().to_owned(),
                _ => {}
            }
        }
        assert_eq!(reserved.len(), 3, "{reserved:?}");
        self.tell(status(&task, TaskState::Running));
        self.change(Edit::Remove(PathId::absolute("/resident")));
        self.effects.clear();
        (reserved, task)
    }
}

fn config() -> Config {
    Config { seed: 1, default_role: "*".into(), ..Config::default() }
}

fn resident() -> scheduler::model::app::App {
    let mut made = app("/resident", 1);
    made.role = "resident".into();
    made.port_definitions.clear();
    made.unreachable = UnreachableStrategy::Disabled;
    made.upgrade_strategy.maximum_over_capacity = 0.0;
    let volume = PersistentVolume { disk: DiskKind::Root, size: 10, max_size: None, profile: None, constraints: Vec::new() };
    let volume = Volume { container_path: "data".into(), read_only: false, kind: VolumeKind::Persistent(volume) };
    made.container =
        Some(Container { kind: ContainerKind::Mesos, docker: None, volumes: vec![volume], port_mappings: Vec::new(), linux_info: None });
    made
}

fn scalar(name: &str, thousandths: i64) -> Resource {
    Resource {
        name: name.into(),
        value: ResourceValue::Scalar(thousandths),
        reservations: Vec::new(),
        disk: None,
        provider: None,
        revocable: false,
        shared: false,
    }
}

fn offers(resources: Vec<Resource>) -> Event {
    let offer =
        Offer { id: "o".into(), agent_id: "a".into(), hostname: "h".into(), role: "resident".into(), resources, ..Offer::default() };
    Event::Offers(vec![offer])
}

fn status(task: &str, state: TaskState) -> Event {
    Event::Update(TaskStatus {
        task_id: task.into(),
        state,
        message: String::new(),
        reason: None,
        agent_id: Some("a".into()),
        uuid: None,
        timestamp: None,
        healthy: None,
        check: None,
        addresses: Vec::new(),
        unreachable_since: None,
    })
}

fn given_back(operations: &[Operation]) -> usize {
    operations.iter().map(|it| if let Operation::Unreserve(resources) = it { resources.len() } else { 0 }).sum()
}

fn suppresses(effects: &[Effect]) -> bool {
    effects.iter().any(|it| matches!(it, Effect::Call(Call::Suppress { .. })))
}

#[test]
fn a_new_leader_gives_back_what_the_old_one_had_reserved() {
    let mut led = Led::new();
    let (reserved, task) = led.reserve_and_remove();
    led.tell(status(&task, TaskState::Killed));
    assert!(!led.stored.loaded().orphans.is_empty());
    led.fail_over();
    assert!(led.core.view().roles.contains("resident"), "nothing is offered to who is not in the role");
    led.connect();
    assert!(!suppresses(&led.effects));
    led.tell(offers(reserved));
    assert_eq!(given_back(&led.operations()), 3);
    led.step(60_000, Input::Tick);
    assert!(led.stored.loaded().orphans.is_empty());
    assert!(suppresses(&led.effects));
}

#[test]
fn a_new_leader_is_in_the_role_of_an_instance_that_is_still_ending() {
    let mut led = Led::new();
    let (reserved, task) = led.reserve_and_remove();
    led.fail_over();
    assert!(led.core.view().roles.contains("resident"));
    led.connect();
    led.tell(status(&task, TaskState::Killed));
    led.tell(offers(reserved));
    assert_eq!(given_back(&led.operations()), 3);
}

#[test]
fn what_is_offered_in_parts_is_given_back_in_parts() {
    let mut led = Led::new();
    let (mut reserved, task) = led.reserve_and_remove();
    led.tell(status(&task, TaskState::Killed));
    let volume = reserved.split_off(2);
    led.tell(offers(reserved));
    led.step(60_000, Input::Tick);
    assert_eq!(given_back(&led.operations()), 2);
    assert!(!led.stored.loaded().orphans.is_empty());
    led.tell(offers(volume));
    let operations = led.operations();
    assert!(matches!(operations.as_slice(), [Operation::Destroy(_), Operation::Unreserve(_)]), "{operations:?}");
    led.step(60_000, Input::Tick);
    assert!(led.stored.loaded().orphans.is_empty());
}

#[test]
fn what_never_comes_is_not_looked_for_forever() {
    let mut led = Led::new();
    let (_, task) = led.reserve_and_remove();
    led.tell(status(&task, TaskState::Killed));
    led.step(500_000, Input::Tick);
    // A master that is away offers nothing: the time to look begins when it is back.
    led.tell(Event::Disconnected);
    led.step(500_000, Input::Tick);
    led.connect();
    led.step(500_000, Input::Tick);
    assert!(!led.stored.loaded().orphans.is_empty());
    led.step(200_000, Input::Tick);
    assert!(led.stored.loaded().orphans.is_empty());
}

#[test]
fn labels_say_whose_a_reservation_is() {
    let mut led = Led::new();
    let (reserved, task) = led.reserve_and_remove();
    let instance = TaskId::parse(&task).unwrap().instance();
    for resource in &reserved {
        let Some(Reservation { labels, .. }) = resource.reservations.last() else { panic!("{resource:?} is not reserved") };
        assert!(labels.contains(&(FRAMEWORK_LABEL.into(), Some("f".into()))));
        assert!(labels.contains(&(INSTANCE_LABEL.into(), Some(instance.as_str().into()))));
    }
    assert!(reserved.iter().any(|it| matches!(&it.disk, Some(Disk { persistence: Some(_), .. }))));
}
