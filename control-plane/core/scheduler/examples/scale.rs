//! Numbers at scale: `cargo run --release -p scheduler --example scale`.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement")]

use std::sync::Arc;
use std::time::Instant;

use base::Timestamp;
use scheduler::id::PathId;
use scheduler::mesos::{Attribute, Call, Event, Offer, Operation, Resource, ResourceValue, TaskState, TaskStatus};
use scheduler::model::app::App;
use scheduler::model::spec::Spec;
use scheduler::model::{Constraint, Operator, ResourceNeeds};
use scheduler::words::{Change, Config, Edit, Expect, Loaded, Ticket};
use scheduler::{Effect, Input, Scheduler};

fn app(id: &str, instances: u32, cmd: &str) -> App {
    let mut app = App::new(PathId::absolute(id));
    app.cmd = Some(cmd.to_owned());
    app.instances = instances;
    app.resources = ResourceNeeds { cpus: 0.1, mem: 16.0, disk: 0.0, gpus: 0 };
    app.role = String::new();
    app
}

fn put(app: App) -> Edit {
    Edit::Put { spec: Spec::App(Arc::new(app)), expect: Expect::Anything }
}

fn scalar(name: &str, value: i64) -> Resource {
    Resource {
        name: name.to_owned(),
        value: ResourceValue::Scalar(value),
        reservations: Vec::new(),
        disk: None,
        provider: None,
        revocable: false,
        shared: false,
    }
}

fn offer(at: usize) -> Offer {
    Offer {
        id: format!("o{at}"),
        agent_id: format!("a{at}"),
        hostname: format!("h{at}"),
        role: "*".to_owned(),
        resources: vec![
            scalar("cpus", 32_000),
            scalar("mem", 64_000_000),
            Resource { value: ResourceValue::Ranges(vec![(31_000, 32_000)]), ..scalar("ports", 0) },
        ],
        attributes: vec![("rack".to_owned(), Attribute::Text(format!("r{}", at % 40)))],
        ..Offer::default()
    }
}

struct World {
    core: Scheduler,
    now: Timestamp,
    effects: Vec<Effect>,
}

impl World {
    fn new(config: Config) -> World {
        let now = Timestamp::from_unix_millis(1_700_000_000_000);
        let mut world = World { core: Scheduler::new(config, Loaded::default(), now), now, effects: Vec::new() };
        world.step(Input::Mesos(Event::Subscribed { framework_id: "f".to_owned(), master: "m:5050".to_owned(), region: None }));
        world
    }

    fn step(&mut self, input: Input) {
        self.now = self.now + std::time::Duration::from_millis(1);
        self.effects.clear();
        self.core.step(self.now, input, &mut self.effects);
    }

    fn change(&mut self, edits: Vec<Edit>) {
        self.step(Input::Change { ticket: Ticket(1), change: Change { edits, force: true, ..Change::default() } });
    }

    fn launched(&self) -> Vec<String> {
        let operations = self
            .effects
            .iter()
            .filter_map(|effect| if let Effect::Call(Call::Accept { operations, .. }) = effect { Some(operations) } else { None });
        let launches = operations.flatten().filter_map(|it| if let Operation::Launch(launch) = it { Some(launch) } else { None });
        launches.map(|it| it.tasks[0].id.to_string()).collect()
    }
}

fn main() {
    let config = Config { launch_tokens: u32::MAX, max_running_deployments: 1_000_000, max_instances_per_offer: 5, ..Config::default() };
    matching(config.clone());
    groups(config);
}

/// 400 apps of 25 instances with two constraints each, on 10,000 agents.
fn matching(config: Config) {
    let mut world = World::new(config);
    let edits = (0..400)
        .map(|at| {
            let mut app = app(&format!("/m/a{at}"), 25, "sleep 1");
            app.constraints = vec![
                Constraint { field: "hostname".to_owned(), operator: Operator::Unique, value: None },
                Constraint { field: "rack".to_owned(), operator: Operator::GroupBy, value: Some("20".to_owned()) },
            ];
            put(app)
        })
        .collect();
    world.change(edits);
    let (mut launched, mut offers) = (0, 0);
    let begun = Instant::now();
    while launched < 10_000 && offers < 10_000 {
        let batch: Vec<Offer> = (offers..offers + 100).map(offer).collect();
        offers += 100;
        world.step(Input::Mesos(Event::Offers(batch)));
        launched += world.launched().len();
    }
    let took = begun.elapsed();
    println!(
        "matching: {launched} instances launched on {offers} offers in {took:?}: {:.0} launches/s, {:.0} offers/s",
        f64::from(u32::try_from(launched).unwrap_or(0)) / took.as_secs_f64(),
        f64::from(u32::try_from(offers).unwrap_or(0)) / took.as_secs_f64()
    );
}

/// A group of 10,000 apps is made, runs, and is changed as a whole.
fn groups(config: Config) {
    let mut world = World::new(config);
    let all = |cmd: &str| -> Vec<Edit> { (0..10_000).map(|at| put(app(&format!("/g{}/a{at}", at % 100), 1, cmd))).collect() };
    let begun = Instant::now();
    world.change(all("sleep 1"));
    println!("group of 10,000 new apps planned and begun in {:?}", begun.elapsed());
    let (begun, mut agents, mut running) = (Instant::now(), 0, 0);
    while running < 10_000 && agents < 20_000 {
        let batch: Vec<Offer> = (agents..agents + 100).map(offer).collect();
        agents += 100;
        world.step(Input::Mesos(Event::Offers(batch)));
        for task_id in world.launched() {
            running += 1;
            let status = TaskStatus {
                task_id,
                state: TaskState::Running,
                message: String::new(),
                reason: None,
                agent_id: Some("a".to_owned()),
                uuid: Some(vec![0; 16]),
                timestamp: None,
                healthy: None,
                check: None,
                addresses: Vec::new(),
                unreachable_since: None,
            };
            world.step(Input::Mesos(Event::Update(status)));
        }
    }
    println!(
        "its {running} instances launched and running in {:?}; {} deployments left",
        begun.elapsed(),
        world.core.view().deployments.len()
    );
    let begun = Instant::now();
    world.change(all("sleep 2"));
    println!("update of all 10,000 apps planned and begun in {:?}", begun.elapsed());
    let begun = Instant::now();
    world.change(vec![put(app("/one/more", 1, "sleep 1"))]);
    println!("one more app beside them in {:?}", begun.elapsed());
}
