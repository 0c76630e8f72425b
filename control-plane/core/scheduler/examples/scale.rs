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

/// Prints a number beside its target.
fn number(what: &str, value: f64, unit: &str, target: f64, at_least: bool) {
    let met = if at_least { value >= target } else { value < target };
    let word = if at_least { "at least" } else { "under" };
    println!("  {what:<76} {value:>12.3} {unit:<4} {word} {target:<8} {}", if met { "met" } else { "NOT MET" });
}

fn main() {
    let config = Config { launch_tokens: u32::MAX, max_running_deployments: 1_000_000, max_instances_per_offer: 5, ..Config::default() };
    matching(config.clone());
    queue(&config);
    groups(config);
}

/// Offers looked at for something, over everything that waits.
fn processed(world: &World) -> u64 {
    world.core.queue(world.now).iter().map(|it| it.processed).sum()
}

fn constrained(id: &str, instances: u32, more: Constraint) -> App {
    let mut app = app(id, instances, "sleep 1");
    app.constraints = vec![
        Constraint { field: "hostname".to_owned(), operator: Operator::Unique, value: None },
        Constraint { field: "rack".to_owned(), operator: Operator::GroupBy, value: Some("20".to_owned()) },
        more,
    ];
    app
}

fn per_second(count: u64, took: std::time::Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let count = count as f64;
    count / took.as_secs_f64()
}

/// 400 apps of 25 instances on 10,000 agents; then 400 that no agent fits. Each has three constraints.
fn matching(config: Config) {
    let mut world = World::new(config);
    let anywhere = || Constraint { field: "rack".to_owned(), operator: Operator::Like, value: Some("r[0-9]+".to_owned()) };
    world.change((0..400).map(|at| put(constrained(&format!("/m/a{at}"), 25, anywhere()))).collect());
    let (mut launched, mut offers) = (0, 0);
    let begun = Instant::now();
    while launched < 10_000 && offers < 10_000 {
        let batch: Vec<Offer> = (offers..offers + 100).map(offer).collect();
        offers += 100;
        world.step(Input::Mesos(Event::Offers(batch)));
        launched += world.launched().len();
    }
    let took = begun.elapsed();
    println!("matching: {launched} instances launched on {offers} offers in {took:?}");
    number("instances launched, three constraints each", per_second(launched as u64, took), "/s", 1_000.0, true);
    let nowhere = || Constraint { field: "rack".to_owned(), operator: Operator::Like, value: Some("x[0-9]+".to_owned()) };
    world.change((0..400).map(|at| put(constrained(&format!("/n/a{at}"), 25, nowhere()))).collect());
    let before = processed(&world);
    let begun = Instant::now();
    for from in (20_000..22_000).step_by(100) {
        world.step(Input::Mesos(Event::Offers((from..from + 100).map(offer).collect())));
    }
    let took = begun.elapsed();
    number("offer-app matches a second on one core, three constraints", per_second(processed(&world) - before, took), "/s", 20_000.0, true);
}

/// What 10,000 waiting instances do to an app that finds its place, and to the answer to somebody who changes something.
fn queue(config: &Config) {
    let cost = |waiting: u32| {
        let mut world = World::new(config.clone());
        let nowhere = || Constraint { field: "rack".to_owned(), operator: Operator::Like, value: Some("x[0-9]+".to_owned()) };
        world.change((0..waiting / 10).map(|at| put(constrained(&format!("/w/a{at}"), 10, nowhere()))).collect());
        let (mut changing, mut launching) = (Vec::new(), Vec::new());
        for at in 0..50 {
            let begun = Instant::now();
            world.change(vec![put(app(&format!("/one/a{at}"), 1, "sleep 1"))]);
            changing.push(begun.elapsed().as_secs_f64() * 1_000.0);
            let begun = Instant::now();
            let mut launched = 0;
            let mut offers = 50_000 + at * 1_000;
            while launched == 0 {
                world.step(Input::Mesos(Event::Offers(vec![offer(offers)])));
                offers += 1;
                launched = world.launched().len();
            }
            launching.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        changing.sort_by(f64::total_cmp);
        launching.sort_by(f64::total_cmp);
        (changing[47], launching[47])
    };
    let (idle, busy) = (cost(0), cost(10_000));
    println!("without a queue: change {:.3} ms, launch {:.3} ms (p95)", idle.0, idle.1);
    number("a change beside 10,000 waiting instances of 1,000 apps, p95", busy.0, "ms", 10.0, false);
    number("from an offer to a launch beside 10,000 waiting instances, p95", busy.1, "ms", 20.0, false);
}

/// A group of 10,000 apps is made, runs, and is changed as a whole.
fn groups(config: Config) {
    let mut world = World::new(config);
    let all = |cmd: &str| -> Vec<Edit> { (0..10_000).map(|at| put(app(&format!("/g{}/a{at}", at % 100), 1, cmd))).collect() };
    let begun = Instant::now();
    world.change(all("sleep 1"));
    number("a group of 10,000 new apps planned and begun", begun.elapsed().as_secs_f64(), "s", 1.0, false);
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
    number("an update of all 10,000 apps planned and begun", begun.elapsed().as_secs_f64(), "s", 1.0, false);
    let begun = Instant::now();
    world.change(vec![put(app("/one/more", 1, "sleep 1"))]);
    number("one more app beside them", begun.elapsed().as_secs_f64() * 1_000.0, "ms", 10.0, false);
}
