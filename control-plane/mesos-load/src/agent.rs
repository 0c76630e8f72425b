//! Agents that do in their heads what they are told, at once.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use mesos_proto::v1;
use prost::Message as _;
use proto::agent::v1 as wire;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use wire::agent_message::Body as Up;
use wire::master_message::Body as Down;

/// Agents that connect at the same time.
const AT_ONCE: usize = 256;
/// Commands after which receipt is told at the latest.
const RECEIPT_AFTER: u64 = 32;

/// A task that runs, as far as ending it needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) agent: usize,
    pub(crate) framework_id: String,
    pub(crate) task_id: String,
}

/// Told of everything that happens to any agent.
pub(crate) trait Watcher {
    /// A task runs.
    fn runs(&self, task: Running);

    /// The first update of a task was acknowledged.
    fn acknowledged(&self, _task: Running) {}
}

/// Nobody wants to know.
pub(crate) struct Nobody;

impl Watcher for Nobody {
    fn runs(&self, _: Running) {}
}

/// What an agent says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    pub(crate) resources: Vec<v1::Resource>,
    /// Known from before.
    pub(crate) id: Option<String>,
    pub(crate) frameworks: Vec<v1::FrameworkInfo>,
    pub(crate) tasks: Vec<v1::Task>,
}

/// An agent that is registered.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) id: String,
    /// When the answer to its registration came.
    pub(crate) registered: Instant,
    ends: mpsc::Sender<Running>,
}

impl Agent {
    /// Lets a task of this agent end.
    pub(crate) fn finish(&self, task: Running) {
        // An agent that has lost its connection has no tasks that could end.
        let _ = self.ends.try_send(task);
    }
}

/// Resources from Mesos's own spelling.
pub(crate) fn resources(text: &str) -> Vec<v1::Resource> {
    mesos::parse_resources(text, "*").unwrap_or_default()
}

pub(crate) fn registration(number: usize, introduction: &Introduction) -> wire::Register {
    let address = format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255);
    let info = v1::AgentInfo {
        hostname: format!("node{number}.example.com"),
        port: Some(5051),
        resources: introduction.resources.clone(),
        attributes: mesos::parse_attributes(&format!("rack:r{};zone:z{}", number / 40, number % 3)).unwrap_or_default(),
        id: introduction.id.clone().map(|value| v1::AgentId { value }),
        ..v1::AgentInfo::default()
    };
    let capabilities = (1..=8).filter(|it| *it != 4).map(|it| v1::agent_info::Capability { r#type: Some(it) }.encode_to_vec());
    wire::Register {
        agent_info: info.encode_to_vec(),
        pid: format!("slave(1)@{address}:5051"),
        version: "1.11.0".to_owned(),
        capabilities: capabilities.collect(),
        total_resources: introduction.resources.iter().map(|it| it.encode_to_vec()).collect(),
        resource_version_uuid: vec![7; 16],
        boot_id: "boot".to_owned(),
        frameworks: introduction.frameworks.iter().map(|it| it.encode_to_vec()).collect(),
        tasks: introduction.tasks.iter().map(|it| it.encode_to_vec()).collect(),
        ..wire::Register::default()
    }
}

/// Registers one agent and lets it live on.
pub(crate) async fn start(grpc: SocketAddr, number: usize, introduction: &Introduction, watcher: Rc<dyn Watcher>) -> Result<Agent> {
    let endpoint = tonic::transport::Channel::from_shared(format!("http://{grpc}"))?.tcp_nodelay(true);
    let mut client = AgentServiceClient::new(endpoint.connect().await.context("an agent cannot connect")?);
    let (up, messages) = mpsc::channel(1_024);
    let first = wire::AgentMessage { body: Some(Up::Register(registration(number, introduction))), received_through: 0 };
    up.send(first).await.ok().context("an agent lost its own queue")?;
    let mut down = client.stream(ReceiverStream::new(messages)).await?.into_inner();
    let registered = match down.message().await?.and_then(|it| it.body) {
        Some(Down::Registered(registered)) => registered,
        other => bail!("an agent is not registered: {other:?}"),
    };
    let (ends, mut ending) = mpsc::channel(4_096);
    let agent = Agent { id: registered.agent_id, registered: Instant::now(), ends };
    let mut teller =
        Teller { up, agent_id: agent.id.clone(), arrived: 0, told: 0, updates: (number as u64) << 32, unacknowledged: HashSet::new() };
    tokio::task::spawn_local(async move {
        loop {
            tokio::select! {
                message = down.message() => {
                    let Ok(Some(message)) = message else { return };
                    teller.arrived = teller.arrived.max(message.sequence);
                    let Some(body) = message.body else { continue };
                    if teller.obey(number, body, &*watcher).await.is_none() {
                        return;
                    }
                }
                Some(task) = ending.recv() => {
                    if teller.update(&task.framework_id, &task.task_id, v1::TaskState::TaskFinished).await.is_none() {
                        return;
                    }
                }
            }
        }
    });
    Ok(agent)
}

struct Teller {
    up: mpsc::Sender<wire::AgentMessage>,
    agent_id: String,
    arrived: u64,
    told: u64,
    updates: u64,
    /// Tasks whose first update waits.
    unacknowledged: HashSet<String>,
}

impl Teller {
    async fn say(&mut self, body: Option<Up>) -> Option<()> {
        self.told = self.arrived;
        self.up.send(wire::AgentMessage { body, received_through: self.arrived }).await.ok()
    }

    async fn update(&mut self, framework_id: &str, task_id: &str, state: v1::TaskState) -> Option<()> {
        self.updates += 1;
        let mut uuid = [0x5a_u8; 16];
        uuid[..8].copy_from_slice(&self.updates.to_be_bytes());
        let status = v1::TaskStatus {
            task_id: v1::TaskId { value: task_id.to_owned() },
            state: state.into(),
            source: Some(v1::task_status::Source::Executor.into()),
            agent_id: Some(v1::AgentId { value: self.agent_id.clone() }),
            timestamp: Some(1.5),
            uuid: Some(uuid.to_vec()),
            ..v1::TaskStatus::default()
        };
        self.say(Some(Up::StatusUpdate(wire::StatusUpdate {
            framework_id: framework_id.to_owned(),
            executor_id: task_id.to_owned(),
            status: status.encode_to_vec(),
            latest_state: state.into(),
        })))
        .await
    }

    async fn obey(&mut self, number: usize, body: Down, watcher: &dyn Watcher) -> Option<()> {
        match body {
            Down::Ping(_) => self.say(Some(Up::Pong(wire::Pong {}))).await?,
            Down::RunTask(run) => {
                let task = v1::TaskInfo::decode(run.task.as_slice()).ok()?;
                let framework = v1::FrameworkInfo::decode(run.framework_info.as_slice()).ok()?;
                let (framework_id, task_id) = (framework.id?.value, task.task_id.value);
                self.update(&framework_id, &task_id, v1::TaskState::TaskRunning).await?;
                self.unacknowledged.insert(task_id.clone());
                watcher.runs(Running { agent: number, framework_id, task_id });
            }
            Down::KillTask(kill) => self.update(&kill.framework_id, &kill.task_id, v1::TaskState::TaskKilled).await?,
            Down::AcknowledgeStatusUpdate(it) => {
                let is_first = self.unacknowledged.remove(&it.task_id);
                if is_first {
                    watcher.acknowledged(Running { agent: number, framework_id: it.framework_id, task_id: it.task_id });
                }
            }
            Down::Refused(_) | Down::ShutdownAgent(_) => return None,
            _ => {}
        }
        // Acknowledgements ask for no answer of their own.
        if self.arrived - self.told >= RECEIPT_AFTER {
            self.say(None).await?;
        }
        Some(())
    }
}

/// Registers many, some at a time; in the order of their numbers.
pub(crate) async fn start_all(
    grpc: SocketAddr,
    introductions: Vec<Introduction>,
    watcher: Rc<dyn Watcher>,
    patience: Duration,
) -> Result<Vec<Agent>> {
    let room = Rc::new(Semaphore::new(AT_ONCE));
    let problem = Rc::new(RefCell::new(None));
    let mut waits = Vec::with_capacity(introductions.len());
    for (number, introduction) in introductions.into_iter().enumerate() {
        let (room, watcher, problem) = (room.clone(), watcher.clone(), problem.clone());
        let (done, wait) = oneshot::channel();
        tokio::task::spawn_local(async move {
            let Ok(_permit) = room.acquire().await else { return };
            match start(grpc, number, &introduction, watcher).await {
                Ok(agent) => drop(done.send(agent)),
                Err(error) => *problem.borrow_mut() = Some(error),
            }
        });
        waits.push(wait);
    }
    let all = async {
        let mut agents = Vec::with_capacity(waits.len());
        for wait in waits {
            match wait.await {
                Ok(agent) => agents.push(agent),
                Err(_) => return Err(problem.borrow_mut().take().unwrap_or_else(|| anyhow::anyhow!("an agent is lost"))),
            }
        }
        Ok(agents)
    };
    tokio::time::timeout(patience, all).await.context("the agents are not registered in time")?
}
