//! Two masters on three servers of ZooKeeper, 1,000 agents: the leader is killed. How long nothing is offered, and whether the history of every task is
//! what it should be: started once, told once, lost never.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use mesos_proto::v1;
use mesos_proto::v1::scheduler::{Event, call};
use prost::Message as _;
use proto::agent::v1 as wire;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;
use tokio_stream::wrappers::ReceiverStream;
use wire::agent_message::Body as Up;
use wire::master_message::Body as Down;

use crate::agent::{self, Introduction};
use crate::control::{Addresses, Control};
use crate::framework::{self, Framework, Scheduler};
use crate::number::{Target, tell};
use crate::{Flags, http};

const AGENT: &str = "cpus:4;mem:4096";
const TASK: &str = "cpus:1;mem:64";
const AGENTS: u32 = 1_000;
/// Session timeout of the masters in seconds: what ZooKeeper needs to notice that one is gone.
const SESSION: f64 = 4.0;
/// Pause of an agent or framework before it tries the other master.
const PAUSE: Duration = Duration::from_millis(200);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// An agent's memory of a task.
struct Task {
    message: v1::Task,
    /// uuids that are not acknowledged, oldest first, with their states.
    updates: Vec<(Vec<u8>, v1::TaskState)>,
}

#[derive(Default)]
struct World {
    grpc: RefCell<Vec<SocketAddr>>,
    /// How often each task was started, by any agent.
    started: RefCell<HashMap<String, u32>>,
    registered: Cell<u32>,
    /// States that frameworks were told, by task.
    told: RefCell<HashMap<String, Vec<v1::TaskState>>>,
    launched: RefCell<HashSet<String>>,
    launches: Cell<bool>,
    offers: Cell<u64>,
    last_offer: Cell<Option<Instant>>,
    updates: Cell<u64>,
    lost_stream: Notify,
}

struct Greedy(Rc<World>);

impl Scheduler for Greedy {
    fn on(&self, framework: &Framework, event: Event) {
        let world = &self.0;
        for offer in event.offers.into_iter().flat_map(|it| it.offers) {
            world.offers.set(world.offers.get() + 1);
            world.last_offer.set(Some(Instant::now()));
            if !world.launches.get() || framework::amount(&offer.resources, "cpus") < 1.0 {
                framework.decline(&offer, 1.0);
                continue;
            }
            let id = format!("t{}", world.launched.borrow().len());
            world.launched.borrow_mut().insert(id.clone());
            framework.accept(&offer, vec![framework::task(id, &offer, agent::resources(TASK))], 1.0);
        }
        if let Some(status) = event.update.map(|it| it.status) {
            framework.acknowledge(&status);
            world.told.borrow_mut().entry(status.task_id.value.clone()).or_default().push(status.state());
        }
    }

    fn ended(&self, _: &Framework) {
        self.0.lost_stream.notify_one();
    }
}

/// An agent for ever: what its stream loses it brings along on the next.
async fn live(number: usize, world: Rc<World>) {
    let mut id = None;
    let mut frameworks: HashMap<String, v1::FrameworkInfo> = HashMap::new();
    let mut tasks: HashMap<String, Task> = HashMap::new();
    let mut turn = number;
    loop {
        let grpc = {
            let all = world.grpc.borrow();
            all[turn % all.len()]
        };
        turn += 1;
        drop(connected(number, grpc, &mut id, &mut frameworks, &mut tasks, &world).await);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connected(
    number: usize,
    grpc: SocketAddr,
    id: &mut Option<String>,
    frameworks: &mut HashMap<String, v1::FrameworkInfo>,
    tasks: &mut HashMap<String, Task>,
    world: &World,
) -> Result<()> {
    let endpoint = tonic::transport::Channel::from_shared(format!("http://{grpc}"))?.connect_timeout(Duration::from_secs(2));
    let mut client = AgentServiceClient::new(endpoint.connect().await?);
    let (up, messages) = mpsc::channel(1_024);
    let introduction = Introduction {
        resources: agent::resources(AGENT),
        id: id.clone(),
        frameworks: frameworks.values().cloned().collect(),
        tasks: tasks.values().map(|it| it.message.clone()).collect(),
    };
    up.send(wire::AgentMessage { body: Some(Up::Register(agent::registration(number, &introduction))), received_through: 0 }).await?;
    let mut down = client.stream(ReceiverStream::new(messages)).await?.into_inner();
    let registered = match tokio::time::timeout(PATIENCE, down.message()).await??.and_then(|it| it.body) {
        Some(Down::Registered(it)) => it,
        _ => bail!("not here"),
    };
    *id = Some(registered.agent_id.clone());
    world.registered.set(world.registered.get() + 1);
    for (task_id, task) in tasks.iter() {
        if let Some((uuid, state)) = task.updates.first() {
            let framework_id = &task.message.framework_id.value;
            tell_state(&up, 0, &registered.agent_id, framework_id, task_id, uuid, *state).await?;
        }
    }
    let mut arrived = 0;
    while let Some(message) = down.message().await? {
        arrived = arrived.max(message.sequence);
        match message.body {
            Some(Down::Ping(_)) => up.send(wire::AgentMessage { body: Some(Up::Pong(wire::Pong {})), received_through: arrived }).await?,
            Some(Down::RunTask(run)) => {
                let info = v1::TaskInfo::decode(run.task.as_slice())?;
                let framework = v1::FrameworkInfo::decode(run.framework_info.as_slice())?;
                let framework_id = framework.id.clone().unwrap_or_default();
                let task_id = info.task_id.value.clone();
                *world.started.borrow_mut().entry(task_id.clone()).or_default() += 1;
                world.updates.set(world.updates.get() + 1);
                let mut uuid = vec![1; 16];
                uuid[..8].copy_from_slice(&world.updates.get().to_be_bytes());
                let message = v1::Task {
                    name: info.name,
                    task_id: info.task_id,
                    framework_id: framework_id.clone(),
                    agent_id: info.agent_id,
                    state: v1::TaskState::TaskRunning.into(),
                    resources: info.resources,
                    status_update_state: Some(v1::TaskState::TaskRunning.into()),
                    status_update_uuid: Some(uuid.clone()),
                    ..v1::Task::default()
                };
                tell_state(&up, arrived, &registered.agent_id, &framework_id.value, &task_id, &uuid, v1::TaskState::TaskRunning).await?;
                tasks.insert(task_id, Task { message, updates: vec![(uuid, v1::TaskState::TaskRunning)] });
                frameworks.insert(framework_id.value, framework);
            }
            Some(Down::AcknowledgeStatusUpdate(it)) => {
                if let Some(task) = tasks.get_mut(&it.task_id) {
                    task.updates.retain(|(uuid, _)| *uuid != it.uuid);
                    if task.updates.is_empty() {
                        (task.message.status_update_state, task.message.status_update_uuid) = (None, None);
                    }
                }
                up.send(wire::AgentMessage { body: None, received_through: arrived }).await?;
            }
            Some(Down::Refused(_) | Down::ShutdownAgent(_)) => bail!("not here any more"),
            _ => {}
        }
    }
    Ok(())
}

async fn tell_state(
    up: &mpsc::Sender<wire::AgentMessage>,
    received_through: u64,
    agent_id: &str,
    framework_id: &str,
    task_id: &str,
    uuid: &[u8],
    state: v1::TaskState,
) -> Result<()> {
    let status = v1::TaskStatus {
        task_id: v1::TaskId { value: task_id.to_owned() },
        state: state.into(),
        source: Some(v1::task_status::Source::Executor.into()),
        agent_id: Some(v1::AgentId { value: agent_id.to_owned() }),
        timestamp: Some(1.5),
        uuid: Some(uuid.to_vec()),
        ..v1::TaskStatus::default()
    };
    let update = wire::StatusUpdate {
        framework_id: framework_id.to_owned(),
        executor_id: task_id.to_owned(),
        status: status.encode_to_vec(),
        latest_state: state.into(),
    };
    up.send(wire::AgentMessage { body: Some(Up::StatusUpdate(update)), received_through }).await?;
    Ok(())
}

/// Subscribes at whoever leads.
async fn subscribe(masters: &[SocketAddr], info: &v1::FrameworkInfo, scheduler: &Rc<dyn Scheduler>) -> Result<(usize, Framework)> {
    let begun = Instant::now();
    loop {
        for (number, master) in masters.iter().enumerate() {
            let is_leader = leads(*master).await;
            if is_leader && let Ok(framework) = framework::start(*master, 0, info, scheduler.clone()).await {
                return Ok((number, framework));
            }
        }
        if begun.elapsed() > PATIENCE {
            bail!("nobody leads");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn leads(master: SocketAddr) -> bool {
    tokio::time::timeout(Duration::from_secs(2), http::get(master, "/state-summary", false))
        .await
        .is_ok_and(|it| it.is_ok_and(|it| it.0 == 200))
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > PATIENCE {
            bail!("not within {PATIENCE:?}: {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub(crate) async fn run(flags: &Flags) -> Result<()> {
    if !zk::testing::available() {
        bail!("ZooKeeper is not installed (Debian: zookeeper default-jre-headless)");
    }
    let directory = TempDir::with_prefix("mesos-load-").context("making a directory")?;
    // Its servers are started by code that blocks.
    let servers = tokio::task::spawn_blocking(|| zk::testing::Ensemble::start(3, &zk::testing::ServerOptions::default())).await?;
    LocalSet::new().run_until(measure(flags, directory.path(), &servers.connect_string())).await
}

async fn measure(flags: &Flags, directory: &std::path::Path, servers: &str) -> Result<()> {
    let zk = format!("--zk=zk://{servers}/mesos");
    let mut controls = Vec::new();
    for number in 0..2 {
        let data = directory.join(format!("data-{number}"));
        std::fs::create_dir(&data)?;
        let addresses = Addresses::free()?;
        let replica = format!("--replica-address={}", addresses.replica);
        let more = ["--advertise=127.0.0.1", &zk, &replica, "--zk-session-timeout=4s"];
        controls.push(Some(Control::start(&flags.control, &data, addresses, &more).await?));
    }
    let addresses: Vec<Addresses> = controls.iter().flatten().map(|it| it.addresses).collect();
    let masters: Vec<SocketAddr> = addresses.iter().map(|it| it.mesos).collect();
    let world = Rc::new(World::default());
    *world.grpc.borrow_mut() = addresses.iter().map(|it| it.grpc).collect();
    world.launches.set(true);
    let scheduler: Rc<dyn Scheduler> = Rc::new(Greedy(world.clone()));
    let mut info = framework::info(0, "*");
    let (leader, framework) = subscribe(&masters, &info, &scheduler).await?;
    info.id = Some(framework.id.clone());
    let count = flags.scaled(AGENTS);
    for number in 0..count as usize {
        tokio::task::spawn_local(live(number, world.clone()));
    }
    until("all agents are registered", || world.registered.get() >= count).await?;
    until("two tasks on each", || world.launched.borrow().len() >= 2 * count as usize).await?;
    eprintln!("{count} agents, {} tasks launched; the leader is killed in the middle of it", world.launched.borrow().len());

    // Launches go on to the very moment.
    let killed = Instant::now();
    if let Some(control) = controls[leader].as_mut() {
        control.kill();
    }
    let at_kill = world.offers.get();
    world.lost_stream.notified().await;
    let (_, framework) = subscribe(&masters, &info, &scheduler).await?;
    let subscribed = killed.elapsed();
    until("offers flow again", || world.offers.get() > at_kill && world.last_offer.get().is_some_and(|it| it > killed + subscribed))
        .await?;
    let offered = killed.elapsed();
    let before = world.registered.get();
    until("all agents are back", || world.registered.get() >= 2 * count || world.registered.get() > before + count).await.ok();
    let back = killed.elapsed();
    // What was accepted and not answered when the leader went is asked about; frameworks do the same.
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.launches.set(false);
    let launched: Vec<String> = world.launched.borrow().iter().cloned().collect();
    for some in launched.chunks(500) {
        let task = |id: &String| call::reconcile::Task { task_id: v1::TaskId { value: id.clone() }, agent_id: None };
        let tasks = some.iter().map(task).collect();
        framework.call(call::Type::Reconcile, |it| it.reconcile = Some(call::Reconcile { tasks }));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    tell(&format!("ensemble: {count} agents, leader killed: subscribed at the next"), subscribed.as_secs_f64(), "s", Target::Stated, "");
    tell("ensemble: leader killed: offers flow again", offered.as_secs_f64(), "s", Target::Under(SESSION + 5.0), "");
    tell("ensemble: leader killed: all agents are back", back.as_secs_f64(), "s", Target::Stated, "");
    check(&world, &launched)
}

/// The whole history: each task was started at most once; those that were run, and are told as running; those that never began are told as such.
fn check(world: &World, launched: &[String]) -> Result<()> {
    let (started, told) = (world.started.borrow(), world.told.borrow());
    let doubled = started.values().filter(|it| **it > 1).count();
    let (mut lost, mut silent) = (0, 0);
    for id in launched {
        let last = told.get(id).and_then(|it| it.last());
        match (started.contains_key(id), last) {
            (true, Some(v1::TaskState::TaskRunning)) => {}
            (true, other) => {
                eprintln!("{id} runs and was told as {other:?}");
                lost += 1;
            }
            (false, Some(state)) if *state != v1::TaskState::TaskRunning => {}
            (false, _) => silent += 1,
        }
    }
    tell(&format!("ensemble: of {} tasks: started twice", launched.len()), doubled as f64, "", Target::Exactly(0.0), "");
    tell("ensemble: running and not told as running", f64::from(lost), "", Target::Exactly(0.0), "");
    tell("ensemble: never started, and not told so", f64::from(silent), "", Target::Exactly(0.0), "");
    Ok(())
}
