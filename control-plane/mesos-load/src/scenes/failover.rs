//! A new leader: 20,000 agents come back with 200,000 tasks, their frameworks ask about every one of them. Then `/state` is read by twenty pollers
//! while tasks end, and the memory of it all is told.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mesos_proto::v1;
use mesos_proto::v1::scheduler::{Event, call};
use tokio::task::LocalSet;

use crate::agent::{self, Agent, Introduction, Nobody, Running};
use crate::control::{self, Control};
use crate::framework::{self, Framework, Scheduler};
use crate::number::{Target, Times, tell};
use crate::random::Random;
use crate::{Flags, http, scenes};

const AGENT: &str = "cpus:16;mem:65536;disk:1000000;ports:[31000-32000]";
const FRAMEWORKS: usize = 5;
const TASKS: usize = 10;
const LABELS: usize = 10;
const POLLERS: usize = 20;
/// A poller's pause between two questions.
const PAUSE: Duration = Duration::from_secs(1);
/// Tasks that end in a second while `/state` is read.
const ENDS: u64 = 100;

#[derive(Default)]
struct State {
    told: Cell<usize>,
    finished: RefCell<HashMap<String, Instant>>,
    times: RefCell<Times>,
}

struct Asks(Rc<State>);

impl Scheduler for Asks {
    fn on(&self, framework: &Framework, event: Event) {
        let Some(status) = event.update.map(|it| it.status) else { return };
        if framework.acknowledge(&status) {
            if let Some(begun) = self.0.finished.borrow_mut().remove(&status.task_id.value) {
                self.0.times.borrow_mut().add(begun.elapsed());
            }
        } else if status.state() == v1::TaskState::TaskRunning {
            self.0.told.set(self.0.told.get() + 1);
        }
    }
}

pub(crate) async fn run(flags: &Flags) -> Result<()> {
    LocalSet::new().run_until(measure(flags)).await
}

fn task_id(agent: usize, number: usize) -> String {
    format!("web.{agent}.{number}")
}

/// What an agent that was known before comes back with.
fn introduction(agent: usize, id: &str, infos: &[v1::FrameworkInfo]) -> Introduction {
    let mut resources = agent::resources("cpus:1;mem:256");
    for resource in &mut resources {
        resource.allocation_info = Some(v1::resource::AllocationInfo { role: Some("role0".to_owned()) });
    }
    let labels = (0..LABELS).map(|it| v1::Label { key: format!("label{it}"), value: Some("value".to_owned()) });
    let labels = v1::Labels { labels: labels.collect() };
    let task = |number: usize| v1::Task {
        name: "web".to_owned(),
        task_id: v1::TaskId { value: task_id(agent, number) },
        framework_id: infos[number % infos.len()].id.clone().unwrap_or_default(),
        agent_id: v1::AgentId { value: id.to_owned() },
        state: v1::TaskState::TaskRunning.into(),
        resources: resources.clone(),
        labels: Some(labels.clone()),
        ..v1::Task::default()
    };
    Introduction {
        resources: agent::resources(AGENT),
        id: Some(id.to_owned()),
        frameworks: infos.to_vec(),
        tasks: (0..TASKS).map(task).collect(),
    }
}

async fn measure(flags: &Flags) -> Result<()> {
    let count = flags.scaled_agents(20_000);
    let (directory, mut control) = control::fresh(&flags.control, &[]).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let empty = control.resident();
    let begun = Instant::now();
    let agents = scenes::agents(control.addresses.grpc, count, AGENT, Rc::new(Nobody)).await?;
    eprintln!("{count} agents registered in {:?}, processor time {:?}", begun.elapsed(), control.cpu());
    let each = (control.resident() - empty) / f64::from(count);
    tell(&format!("memory: of {count} agents, each with its connection"), each / 1e3, "kB", Target::Stated, "");
    let idle = control.resident();
    let ids: Vec<String> = agents.into_iter().map(|it| it.id).collect();
    let mut infos: Vec<v1::FrameworkInfo> = (0..FRAMEWORKS).map(|it| framework::info(it, "role0")).collect();
    let state = Rc::new(State::default());
    let scheduler: Rc<dyn Scheduler> = Rc::new(Asks(state.clone()));
    for (number, info) in infos.iter_mut().enumerate() {
        info.id = Some(framework::start(control.addresses.mesos, number, info, scheduler.clone()).await?.id);
    }
    control.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;

    let control = Control::start(&flags.control, directory.path(), control.addresses, &[]).await?;
    let (agents, frameworks) = come_back(&control, &ids, &infos, &scheduler, &state).await?;
    let tasks = ids.len() * TASKS;
    tell("memory: of a task", (control.resident() - idle) / tasks as f64 / 1e3, "kB", Target::Stated, "");
    let quiet = responsiveness(&agents, &frameworks, &state, flags.seconds.min(10), &mut Random::new(3)).await;
    tell("state: update through the master without pollers, p99", quiet.0, "ms", Target::Stated, "");
    poll(&control, &agents, &frameworks, &state, flags.seconds, quiet.0).await
}

async fn come_back(
    control: &Control,
    ids: &[String],
    infos: &[v1::FrameworkInfo],
    scheduler: &Rc<dyn Scheduler>,
    state: &Rc<State>,
) -> Result<(Vec<Agent>, Vec<Framework>)> {
    let tasks = ids.len() * TASKS;
    let (begun, cpu) = (Instant::now(), control.cpu());
    let mut frameworks = Vec::new();
    for (number, info) in infos.iter().enumerate() {
        frameworks.push(framework::start(control.addresses.mesos, number, info, scheduler.clone()).await?);
    }
    let introductions: Vec<Introduction> = ids.iter().enumerate().map(|(at, id)| introduction(at, id, infos)).collect();
    let agents = agent::start_all(control.addresses.grpc, introductions, Rc::new(Nobody), scenes::REGISTER_PATIENCE).await?;
    let (back, back_cpu) = (begun.elapsed(), control.cpu() - cpu);
    eprintln!("{} agents are back after {back:?}, processor time {back_cpu:?}", agents.len());

    for (number, framework) in frameworks.iter().enumerate() {
        let mine = (0..ids.len()).flat_map(|agent| (0..TASKS).filter(|it| it % infos.len() == number).map(move |it| (agent, it)));
        let asked: Vec<call::reconcile::Task> = mine
            .map(|(agent, task)| call::reconcile::Task {
                task_id: v1::TaskId { value: task_id(agent, task) },
                agent_id: Some(v1::AgentId { value: ids[agent].clone() }),
            })
            .collect();
        for some in asked.chunks(1_000) {
            let reconcile = call::Reconcile { tasks: some.to_vec() };
            framework.call(call::Type::Reconcile, |it| it.reconcile = Some(reconcile));
        }
    }
    while state.told.get() < tasks {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if begun.elapsed() > scenes::REGISTER_PATIENCE {
            bail!("{} of {tasks} tasks were told", state.told.get());
        }
    }
    let (took, cpu) = (begun.elapsed(), control.cpu() - cpu);
    let what = format!("failover: {} agents, {tasks} tasks", ids.len());
    let beside = "Mesos 1.5: about 9 s, without network";
    tell(&format!("{what}: registered again and reconciled, processor time"), cpu.as_secs_f64(), "s", Target::Under(5.0), beside);
    tell(&format!("{what}: registered again, processor time"), back_cpu.as_secs_f64(), "s", Target::Stated, "");
    tell(&format!("{what}: registered again, with the agents on the same two cores"), back.as_secs_f64(), "s", Target::Stated, "");
    tell(&format!("{what}: reconciled after that"), (took - back).as_secs_f64(), "s", Target::Stated, "");
    let running = control::metric(control.addresses.mesos, "master/tasks_running").await?;
    tell("failover: tasks lost", tasks as f64 - running, "", Target::Exactly(0.0), "");
    Ok((agents, frameworks))
}

/// From an agent's update to its arrival at the framework, while tasks end at a steady rate: p99 and the number of tries.
async fn responsiveness(agents: &[Agent], frameworks: &[Framework], state: &Rc<State>, seconds: u64, random: &mut Random) -> (f64, usize) {
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / ENDS));
    for _ in 0..ENDS * seconds {
        pace.tick().await;
        let (agent, number) = (random.below(agents.len()), random.below(TASKS));
        let task_id = task_id(agent, number);
        let framework_id = frameworks[number % frameworks.len()].id.value.clone();
        state.finished.borrow_mut().insert(task_id.clone(), Instant::now());
        agents[agent].finish(Running { agent, framework_id, task_id });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut times = std::mem::take(&mut *state.times.borrow_mut());
    (times.percentile(0.99), times.len())
}

async fn poll(control: &Control, agents: &[Agent], frameworks: &[Framework], state: &Rc<State>, seconds: u64, quiet: f64) -> Result<()> {
    for gzip in [true, false] {
        let times = Rc::new(RefCell::new(Times::default()));
        let bytes = Rc::new(Cell::new(0));
        let mut pollers = Vec::new();
        for number in 0..POLLERS {
            let (times, bytes, mesos) = (times.clone(), bytes.clone(), control.addresses.mesos);
            pollers.push(tokio::task::spawn_local(async move {
                tokio::time::sleep(PAUSE * u32::try_from(number).unwrap_or(0) / u32::try_from(POLLERS).unwrap_or(1)).await;
                loop {
                    let begun = Instant::now();
                    match http::get(mesos, "/state", gzip).await {
                        Ok((200, body)) => bytes.set(body.len()),
                        other => eprintln!("/state: {:?}", other.map(|(status, _)| status)),
                    }
                    times.borrow_mut().add(begun.elapsed());
                    tokio::time::sleep(PAUSE).await;
                }
            }));
        }
        let (p99, _) = responsiveness(agents, frameworks, state, seconds, &mut Random::new(4)).await;
        pollers.iter().for_each(tokio::task::JoinHandle::abort);
        let mut times = std::mem::take(&mut *times.borrow_mut());
        let how = if gzip { "gzip" } else { "plain" };
        let what = format!("state: {} agents, {POLLERS} pollers every {} s, {how}", agents.len(), PAUSE.as_secs());
        let size = bytes.get() as f64 / 1e6;
        let target = if gzip { Target::Under(300.0) } else { Target::Stated };
        let beside = "Mesos 1.7: mean 950 ms with 100 agents";
        tell(&format!("{what}, {size:.1} MB, {} answers, p95", times.len()), times.percentile(0.95), "ms", target, beside);
        tell(&format!("{what}, mean"), times.mean(), "ms", Target::Stated, "");
        let target = if gzip { Target::Under((quiet * 2.0).max(20.0)) } else { Target::Stated };
        tell(&format!("{what}: update through the master, p99"), p99, "ms", target, "");
    }
    Ok(())
}
