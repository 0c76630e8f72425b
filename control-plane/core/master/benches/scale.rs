//! How much of a core the master takes at the size of a large cluster. Prints; judges nothing.
//!
//! `cargo bench -p master --bench scale [agents] [frameworks]`; 10,000 and 1,000 when not given.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for people, with a clock")]

use std::time::Duration;

use base::Timestamp;
use master::{Config, Effect, FromAgent, Input, LinkId, Master, Register, Registry, ReplySlot};
use mesos::FrameworkId;
use mesos_proto::v1;
use v1::scheduler::{Call, call};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Time of a core: on a busy machine more passes on the wall.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(0))
}

/// Runs on.
struct Watch(Duration);

impl Watch {
    fn start() -> Watch {
        Watch(cpu_time())
    }

    fn elapsed(&self) -> Duration {
        cpu_time().saturating_sub(self.0)
    }
}

struct Bench {
    master: Master,
    now: Timestamp,
    offers: Vec<(FrameworkId, v1::Offer)>,
    out: Vec<Effect>,
}

impl Bench {
    fn new(config: Config) -> Bench {
        let now = Timestamp::from_unix_millis(1_700_000_000_000);
        Bench { master: Master::new(config, Registry::default(), now), now, offers: Vec::new(), out: Vec::new() }
    }

    fn step(&mut self, input: Input) {
        self.master.step(self.now, input, &mut self.out);
        let mut stored = Vec::new();
        for effect in self.out.drain(..) {
            match effect {
                Effect::Event { event, .. } => {
                    for offer in event.offers.into_iter().flat_map(|it| it.offers) {
                        self.offers.push(((&offer.framework_id).into(), offer));
                    }
                }
                Effect::Persist { write, .. } => stored.push(write),
                _ => {}
            }
        }
        for write in stored {
            self.step(Input::Stored { write });
        }
    }

    fn tick(&mut self, time: Duration) -> Duration {
        self.now = self.now + time;
        let began = Watch::start();
        self.step(Input::Tick);
        began.elapsed()
    }

    fn call(&mut self, framework: &FrameworkId, call: Call) {
        let stream = Some(framework.as_str().into());
        let call = Box::new(Call { framework_id: Some(framework.to_proto()), ..call });
        self.step(Input::Call { reply: ReplySlot(0), stream, principal: None, call });
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|it| it.parse().ok()).collect();
    let (agents, frameworks) = (numbers.first().copied().unwrap_or(10_000), numbers.get(1).copied().unwrap_or(1_000));
    println!("{agents} agents, {frameworks} frameworks");
    for (name, roles) in [("one role", 1), ("50 roles", 50)] {
        scene(name, agents, frameworks, roles);
    }
    refusals(agents, 20);
    take_over(agents, 5, 10);
}

/// Everybody refuses everything for an hour, each in its turn: what is left is agents full of filters.
fn refusals(agents: usize, frameworks: usize) {
    let info = v1::MasterInfo { id: "4c1a8b1e-0d9b-4b6e-9f0e-6b1f3c1f8f11".into(), ..Default::default() };
    let mut config = Config::new(info, 1);
    config.agent_ping_timeout = Duration::from_secs(1_000_000);
    let mut bench = Bench::new(config);
    for at in 0..agents {
        bench.step(Input::Register { link: LinkId(at as u64), register: Box::new(agent(at)) });
    }
    let mut ids = Vec::new();
    for at in 0..frameworks {
        let id = format!("f-{at:05}");
        let subscribe = call::Subscribe { framework_info: framework(&id, "role0"), ..Default::default() };
        bench.step(Input::Subscribe { stream: id.as_str().into(), principal: None, subscribe: Box::new(subscribe) });
        ids.push(FrameworkId::from(id));
    }
    bench.tick(Duration::from_secs(1));
    let mut rounds = 0;
    let mut slowest = Duration::ZERO;
    while !bench.offers.is_empty() {
        let offers = std::mem::take(&mut bench.offers);
        decline(&mut bench, offers, 3600.0);
        slowest = slowest.max(bench.tick(Duration::from_secs(1)));
        rounds += 1;
    }
    println!("{frameworks} frameworks refused everything in {rounds} rounds, the slowest run {slowest:?}");
    let rest: Duration = (0..100).map(|_| bench.tick(Duration::from_secs(1))).sum();
    println!("100 runs over agents that nobody wants: {rest:?}");
    bench.call(&ids[0], Call { r#type: Some(call::Type::Revive as i32), ..Default::default() });
    let took = bench.tick(Duration::from_secs(1));
    println!("a run after one REVIVE: {took:?} for {} offers", bench.offers.len());
}

/// A new master: all agents come back with their tasks.
fn take_over(agents: usize, frameworks: usize, tasks: usize) {
    let info = v1::MasterInfo { id: "4c1a8b1e-0d9b-4b6e-9f0e-6b1f3c1f8f11".into(), ..Default::default() };
    let mut stored = std::collections::BTreeMap::new();
    let mut first = Bench::new(Config::new(info.clone(), 1));
    for at in 0..agents {
        let mut out = Vec::new();
        first.master.step(first.now, Input::Register { link: LinkId(at as u64), register: Box::new(agent(at)) }, &mut out);
        for effect in out {
            if let Effect::Persist { write, records } = effect {
                stored.extend(records.into_iter().filter_map(|it| Some((it.key, it.value?))));
                first.step(Input::Stored { write });
            }
        }
    }
    let ids: Vec<_> = first.master.snapshot().agents.values().map(|it| it.info.clone()).collect();
    let mut registers = Vec::new();
    for (at, known) in ids.iter().enumerate() {
        let mut register = agent(0);
        register.info = (**known).clone();
        register.pid = format!("slave(1)@10.{}.{}.{}:5051", at / 65536, at / 256 % 256, at % 256);
        let infos = (0..frameworks).map(|it| framework(&format!("f-{it}"), "role0"));
        register.frameworks = infos.collect();
        for task in 0..tasks {
            register.tasks.push(v1::Task {
                name: "t".into(),
                task_id: v1::TaskId { value: format!("t-{at}-{task}") },
                framework_id: v1::FrameworkId { value: format!("f-{}", task % frameworks) },
                state: v1::TaskState::TaskRunning as i32,
                resources: allocated("cpus:1;mem:256", "role0"),
                labels: Some(v1::Labels {
                    labels: (0..10).map(|it| v1::Label { key: format!("label{it}"), value: Some("value".into()) }).collect(),
                }),
                ..Default::default()
            });
        }
        registers.push(register);
    }
    let began = Watch::start();
    let registry = Registry::load(stored).unwrap_or_default();
    let loaded = began.elapsed();
    let mut second = Bench::new(Config::new(info.clone(), 2));
    second.master = Master::new(Config::new(info, 2), registry, second.now);
    let began = Watch::start();
    for (at, register) in registers.into_iter().enumerate() {
        second.step(Input::Register { link: LinkId(at as u64), register: Box::new(register) });
    }
    let took = began.elapsed();
    let back = second.master.snapshot().agents.len();
    println!("a new master: registry loaded in {loaded:?}; {back} agents with {} tasks came back in {took:?}", agents * tasks);
}

fn allocated(text: &str, role: &str) -> Vec<v1::Resource> {
    let mut resources = mesos::parse_resources(text, "*").unwrap_or_default();
    for resource in &mut resources {
        resource.allocation_info = Some(v1::resource::AllocationInfo { role: Some(role.into()) });
    }
    resources
}

fn scene(name: &str, agents: usize, frameworks: usize, roles: usize) {
    let info = v1::MasterInfo { id: "4c1a8b1e-0d9b-4b6e-9f0e-6b1f3c1f8f11".into(), ..Default::default() };
    let mut config = Config::new(info, 1);
    config.agent_ping_timeout = Duration::from_secs(1_000_000);
    let mut bench = Bench::new(config);
    let began = Watch::start();
    for at in 0..agents {
        bench.step(Input::Register { link: LinkId(at as u64), register: Box::new(agent(at)) });
    }
    println!("{name}: {agents} agents registered in {:?}", began.elapsed());
    let mut ids = Vec::new();
    for at in 0..frameworks {
        let id = format!("f-{at:05}");
        let subscribe = call::Subscribe { framework_info: framework(&id, &format!("role{}", at % roles)), ..Default::default() };
        bench.step(Input::Subscribe { stream: id.as_str().into(), principal: None, subscribe: Box::new(subscribe) });
        ids.push(FrameworkId::from(id));
    }
    println!("{name}: everything offered, events made: {:?} for {} offers", bench.tick(Duration::from_secs(1)), { bench.offers.len() });
    for round in 1..=3 {
        let offers = std::mem::take(&mut bench.offers);
        let began = Watch::start();
        decline(&mut bench, offers, 0.0);
        println!("{name}: declined without a filter in {:?}", began.elapsed());
        let took = bench.tick(Duration::from_secs(1));
        println!("{name}: run {round} over everything: {took:?} for {} offers", bench.offers.len());
    }
    launch(name, &mut bench);
}

fn decline(bench: &mut Bench, offers: Vec<(FrameworkId, v1::Offer)>, seconds: f64) {
    let mut by_framework: std::collections::BTreeMap<FrameworkId, Vec<v1::OfferId>> = std::collections::BTreeMap::new();
    for (framework, offer) in offers {
        by_framework.entry(framework).or_default().push(offer.id);
    }
    for (framework, offer_ids) in by_framework {
        let decline = call::Decline { offer_ids, filters: Some(v1::Filters { refuse_seconds: Some(seconds) }) };
        bench.call(&framework, Call { r#type: Some(call::Type::Decline as i32), decline: Some(decline), ..Default::default() });
    }
}

/// From ACCEPT to the acknowledgement of TASK_RUNNING, as fast as one thread goes.
fn launch(name: &str, bench: &mut Bench) {
    let offers = std::mem::take(&mut bench.offers);
    let mut tasks = Vec::new();
    let began = Watch::start();
    for (framework, offer) in offers {
        let infos = (0..4).map(|at| v1::TaskInfo {
            name: "t".into(),
            task_id: v1::TaskId { value: format!("{}-{at}", offer.id.value) },
            agent_id: offer.agent_id.clone(),
            resources: mesos::parse_resources("cpus:1;mem:256", "*").unwrap_or_default(),
            command: Some(v1::CommandInfo { value: Some("sleep 1".into()), ..Default::default() }),
            ..Default::default()
        });
        let infos: Vec<v1::TaskInfo> = infos.collect();
        for info in &infos {
            tasks.push((framework.clone(), offer.agent_id.clone(), info.task_id.clone()));
        }
        let launch = v1::offer::Operation {
            r#type: Some(v1::offer::operation::Type::Launch as i32),
            launch: Some(v1::offer::operation::Launch { task_infos: infos }),
            ..Default::default()
        };
        let accept = call::Accept { offer_ids: vec![offer.id], operations: vec![launch], filters: None };
        bench.call(&framework, Call { r#type: Some(call::Type::Accept as i32), accept: Some(accept), ..Default::default() });
    }
    let accepted = began.elapsed();
    // Readers hold a version now, as pollers do.
    let snapshot = bench.master.snapshot();
    for (framework, agent, task) in &tasks {
        let status = v1::TaskStatus {
            task_id: task.clone(),
            state: v1::TaskState::TaskRunning as i32,
            source: Some(v1::task_status::Source::Executor as i32),
            uuid: Some(vec![1; 16]),
            timestamp: Some(1.0),
            ..Default::default()
        };
        let link = agent.value.rsplit('S').next().and_then(|it| it.parse().ok()).unwrap_or(0);
        let message =
            FromAgent::StatusUpdate { framework_id: framework.clone(), status: Box::new(status), latest_state: v1::TaskState::TaskRunning };
        bench.step(Input::Agent { link: LinkId(link), message });
        let acknowledge = call::Acknowledge { agent_id: agent.clone(), task_id: task.clone(), uuid: vec![1; 16] };
        let call = Call { r#type: Some(call::Type::Acknowledge as i32), acknowledge: Some(acknowledge), ..Default::default() };
        bench.call(framework, call);
    }
    drop(snapshot);
    let took = began.elapsed();
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = tasks.len() as f64 / took.as_secs_f64().max(1e-9);
    println!("{name}: {} tasks accepted in {accepted:?}, running and acknowledged after {took:?}: {rate:.0} tasks/s", tasks.len());
}

fn agent(at: usize) -> Register {
    let resources = mesos::parse_resources("cpus:24;mem:65536;disk:1000000;ports:[31000-32000]", "*").unwrap_or_default();
    Register {
        info: v1::AgentInfo {
            hostname: format!("host{at}.example.com"),
            port: Some(5051),
            resources: resources.clone(),
            attributes: mesos::parse_attributes("rack:r1;zone:z1").unwrap_or_default(),
            ..Default::default()
        },
        pid: format!("slave(1)@10.{}.{}.{}:5051", at / 65536, at / 256 % 256, at % 256),
        version: "1.11.0".into(),
        total_resources: resources,
        ..Default::default()
    }
}

fn framework(id: &str, role: &str) -> v1::FrameworkInfo {
    use v1::framework_info::capability::Type;
    let can = [Type::MultiRole, Type::PartitionAware, Type::ReservationRefinement];
    v1::FrameworkInfo {
        id: Some(v1::FrameworkId { value: id.into() }),
        user: "root".into(),
        name: id.into(),
        failover_timeout: Some(3600.0),
        checkpoint: Some(true),
        roles: vec![role.into()],
        capabilities: can.iter().map(|it| v1::framework_info::Capability { r#type: Some(*it as i32) }).collect(),
        ..Default::default()
    }
}
