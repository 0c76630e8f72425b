//! A real agent with a master that does what the test says.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "not every test uses all of it; helpers of a test fail by panicking and spawn freely"
)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent::config::Config;
use mesos_proto::v1::{
    self, CommandInfo, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, TaskGroupInfo, TaskId, TaskInfo, TaskState, TaskStatus,
    framework_info,
};
use prost::Message as _;
use proto::agent::v1 as wire;
use proto::agent::v1::agent_message::Body as Ours;
use proto::agent::v1::agent_service_server::{AgentService, AgentServiceServer};
use proto::agent::v1::master_message::Body as Theirs;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Longest wait for anything. Machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const AGENT_ID: &str = "test-S0";

/// What the master has heard, and can say.
#[derive(Clone, Default)]
pub struct Master {
    shared: Arc<Mutex<Shared>>,
    changed: Arc<tokio::sync::Notify>,
}

#[derive(Default)]
struct Shared {
    registrations: Vec<wire::Register>,
    statuses: VecDeque<TaskStatus>,
    others: VecDeque<Ours>,
    stream: Option<mpsc::Sender<Result<wire::MasterMessage, Status>>>,
    sequence: u64,
    acknowledges: bool,
    /// Agents that have no id yet get the next one.
    ids_given: usize,
    /// Why nobody may register.
    shuts_down: Option<String>,
}

#[tonic::async_trait]
impl AgentService for Master {
    type StreamStream = ReceiverStream<Result<wire::MasterMessage, Status>>;

    async fn stream(&self, request: Request<Streaming<wire::AgentMessage>>) -> Result<Response<Self::StreamStream>, Status> {
        let mut incoming = request.into_inner();
        let (sender, receiver) = mpsc::channel(256);
        let master = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                let Some(body) = message.body else { continue };
                match body {
                    Ours::Register(it) => {
                        let more = it.more;
                        let info = v1::AgentInfo::decode(&*it.agent_info).unwrap();
                        let refused = {
                            let mut shared = master.shared.lock().unwrap();
                            shared.registrations.push(it);
                            shared.shuts_down.clone()
                        };
                        if let Some(message) = refused {
                            let reason = wire::refused::Reason::Shutdown as i32;
                            let refused = Theirs::Refused(wire::Refused { reason, message, leader: String::new() });
                            drop(sender.send(Ok(wire::MasterMessage { body: Some(refused), sequence: 0 })).await);
                            return;
                        }
                        if !more {
                            let agent_id = info.id.map_or_else(|| master.next_id(), |it| it.value);
                            let registered = wire::Registered {
                                agent_id,
                                ping_interval_ms: 1000,
                                master_hostname: "master".to_owned(),
                                ..Default::default()
                            };
                            drop(sender.send(Ok(wire::MasterMessage { body: Some(Theirs::Registered(registered)), sequence: 0 })).await);
                            let mut shared = master.shared.lock().unwrap();
                            shared.stream = Some(sender.clone());
                            shared.sequence = 0;
                            let sender = sender.clone();
                            tokio::spawn(async move {
                                loop {
                                    tokio::time::sleep(Duration::from_millis(500)).await;
                                    let ping = Theirs::Ping(wire::Ping { connected: true });
                                    if sender.send(Ok(wire::MasterMessage { body: Some(ping), sequence: 0 })).await.is_err() {
                                        return;
                                    }
                                }
                            });
                        }
                    }
                    Ours::StatusUpdate(it) => {
                        let status = TaskStatus::decode(&*it.status).unwrap();
                        let acknowledges = master.shared.lock().unwrap().acknowledges;
                        if acknowledges && let Some(uuid) = status.uuid.clone() {
                            let acknowledge = wire::AcknowledgeStatusUpdate {
                                framework_id: it.framework_id,
                                task_id: status.task_id.value.clone(),
                                uuid,
                            };
                            // Who has gone meanwhile sends it again.
                            master.say_if_there(Theirs::AcknowledgeStatusUpdate(acknowledge));
                        }
                        master.shared.lock().unwrap().statuses.push_back(status);
                    }
                    Ours::Pong(_) => {}
                    other => master.shared.lock().unwrap().others.push_back(other),
                }
                master.changed.notify_waiters();
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Master {
    fn next_id(&self) -> String {
        let mut shared = self.shared.lock().unwrap();
        let id = format!("test-S{}", shared.ids_given);
        shared.ids_given += 1;
        id
    }

    /// From now on whoever registers is told to shut down, and why; or may register again.
    pub fn shut_down_whoever_comes(&self, why: Option<&str>) {
        self.shared.lock().unwrap().shuts_down = why.map(str::to_owned);
    }

    /// How often somebody tried to register.
    pub fn registrations(&self) -> Vec<wire::Register> {
        self.shared.lock().unwrap().registrations.clone()
    }

    pub fn say(&self, body: Theirs) {
        assert!(self.say_if_there(body), "registered");
    }

    fn say_if_there(&self, body: Theirs) -> bool {
        let mut shared = self.shared.lock().unwrap();
        let Some(stream) = shared.stream.clone() else { return false };
        shared.sequence += 1;
        stream.try_send(Ok(wire::MasterMessage { body: Some(body), sequence: shared.sequence })).is_ok()
    }

    pub fn acknowledge_all(&self, yes: bool) {
        self.shared.lock().unwrap().acknowledges = yes;
    }

    fn wait<T>(&self, what: &str, mut find: impl FnMut(&mut Shared) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = find(&mut self.shared.lock().unwrap()) {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} did not come; statuses: {:#?}", self.shared.lock().unwrap().statuses);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The next status of a task.
    pub fn status(&self, task: &str) -> TaskStatus {
        self.wait(&format!("a status of {task}"), |shared| {
            let at = shared.statuses.iter().position(|it| it.task_id.value == task)?;
            shared.statuses.remove(at)
        })
    }

    /// The states of a task until it is over.
    pub fn states(&self, task: &str) -> Vec<TaskStatus> {
        let mut all: Vec<TaskStatus> = Vec::new();
        loop {
            let status = self.status(task);
            let over = agent::words::is_terminal(status.state());
            if all.last().is_none_or(|it| it.uuid != status.uuid) {
                all.push(status);
            }
            if over {
                return all;
            }
        }
    }

    /// Waits for a state and lets those before it pass.
    pub fn state(&self, task: &str, state: TaskState) -> TaskStatus {
        loop {
            let status = self.status(task);
            if status.state() == state {
                return status;
            }
            assert!(!agent::words::is_terminal(status.state()), "wanted {state:?}, got {status:#?}");
        }
    }

    pub fn registration(&self, number: usize) -> wire::Register {
        let found = self.wait("a registration", |shared| shared.registrations.get(number).cloned());
        self.wait("a stream", |shared| shared.stream.as_ref().filter(|it| !it.is_closed()).map(|_| ()));
        found
    }

    pub fn other(&self, what: &str, mut is_it: impl FnMut(&Ours) -> bool) -> Ours {
        self.wait(what, |shared| {
            let at = shared.others.iter().position(&mut is_it)?;
            shared.others.remove(at)
        })
    }

    pub fn run_task(&self, framework: &FrameworkInfo, task: &TaskInfo) {
        assert!(self.run_task_if_there(framework, task), "registered");
    }

    /// Whether there was an agent to be told.
    pub fn run_task_if_there(&self, framework: &FrameworkInfo, task: &TaskInfo) -> bool {
        self.say_if_there(Theirs::RunTask(wire::RunTask {
            framework_info: framework.encode_to_vec(),
            task: task.encode_to_vec(),
            executor_info: task.executor.as_ref().map(prost::Message::encode_to_vec).unwrap_or_default(),
            launch_executor: true,
            ..Default::default()
        }))
    }

    pub fn run_group(&self, framework: &FrameworkInfo, executor: &ExecutorInfo, tasks: Vec<TaskInfo>) {
        self.say(Theirs::RunTaskGroup(wire::RunTaskGroup {
            framework_info: framework.encode_to_vec(),
            executor_info: executor.encode_to_vec(),
            task_group: TaskGroupInfo { tasks }.encode_to_vec(),
            launch_executor: true,
            ..Default::default()
        }));
    }

    pub fn kill(&self, framework: &FrameworkInfo, task: &str) {
        let framework_id = framework.id.clone().unwrap().value;
        self.say(Theirs::KillTask(wire::KillTask { framework_id, task_id: task.to_owned(), kill_policy: Vec::new() }));
    }
}

/// A master that listens.
pub struct World {
    pub master: Master,
    address: SocketAddr,
    master_runtime: Option<Runtime>,
    agent_runtime: Option<Runtime>,
    pub directory: tempfile::TempDir,
    pub config: Config,
    pub http: SocketAddr,
    cgroups_root: String,
}

impl World {
    pub fn new(change: impl FnOnce(&mut Config)) -> World {
        let master = Master::default();
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let service = AgentServiceServer::new(master.clone());
        runtime.spawn(async move {
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::in_directories(directory.path().join("work"), directory.path().join("run"));
        config.master = format!("http://{address}");
        config.keeper = vec![env!("CARGO_BIN_EXE_keep-container").to_owned()];
        config.docker_socket = None;
        config.resources = "cpus:8;mem:4096;disk:4096".to_owned();
        config.registration_backoff_factor = Duration::from_millis(100);
        let unique = directory.path().file_name().unwrap().to_string_lossy().replace('.', "");
        let cgroups_root = format!("mesos-test-{unique}");
        config.cgroups_root.clone_from(&cgroups_root);
        change(&mut config);
        let http = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut world =
            World { master, address, master_runtime: Some(runtime), agent_runtime: None, directory, config, http, cgroups_root };
        world.start_agent();
        world
    }

    /// Starts the agent, and waits until it is registered.
    pub fn start_agent(&mut self) {
        self.start_agent_as(AGENT_ID);
    }

    /// The same, where it has had another id before.
    pub fn start_agent_as(&mut self, id: &str) {
        let before = self.master.registrations().len();
        let told = self.spawn_agent();
        self.master.registration(before);
        if let Ok(result) = told.try_recv() {
            result.unwrap();
        }
        let begun = Instant::now();
        while self.json("/state")["id"] != id {
            assert!(begun.elapsed() < PATIENCE, "the agent does not take its id");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the agent. What comes from it is how it ended.
    pub fn spawn_agent(&mut self) -> std::sync::mpsc::Receiver<Result<(), agent::agent::AgentError>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        self.http = listener.local_addr().unwrap();
        let config = self.config.clone();
        let (tell, told) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let result = agent::agent::run(config, listener, CancellationToken::new()).await;
            drop(tell.send(result));
        });
        self.agent_runtime = Some(runtime);
        told
    }

    /// Ends the agent as SIGKILL would: none of its loops gets a word in.
    pub fn kill_agent(&mut self) {
        self.master.shared.lock().unwrap().stream = None;
        if let Some(runtime) = self.agent_runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut answer = agent.get(format!("http://{}{path}", self.http)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap_or_default())
    }

    pub fn json(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub fn post(&self, path: &str, body: &serde_json::Value) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = agent.post(format!("http://{}{path}", self.http)).header("Content-Type", "application/json");
        let mut answer = request.send(body.to_string()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap_or_default())
    }

    /// The sandbox of the latest run of an executor.
    pub fn sandbox(&self, framework: &FrameworkInfo, executor: &str) -> PathBuf {
        let framework = framework.id.clone().unwrap().value;
        let path = format!("work/slaves/{AGENT_ID}/frameworks/{framework}/executors/{executor}/runs/latest");
        std::fs::canonicalize(self.directory.path().join(path)).unwrap()
    }

    pub fn container(&self, framework: &FrameworkInfo, executor: &str) -> String {
        self.sandbox(framework, executor).file_name().unwrap().to_string_lossy().into_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_agent();
        if let Some(runtime) = self.master_runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
        // Whatever still runs in this test's cgroups.
        for controller in ["freezer", "cpu", "cpuacct", "memory", "pids", "blkio", "cpuset", "devices", "systemd"] {
            empty(&Path::new("/sys/fs/cgroup").join(controller).join(&self.cgroups_root));
        }
    }
}

fn empty(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            empty(&entry.path());
        }
    }
    for _ in 0..50 {
        for pid in std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse().unwrap()), nix::sys::signal::Signal::SIGKILL);
        }
        if !path.exists() || std::fs::remove_dir(path).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn framework(checkpoint: bool) -> FrameworkInfo {
    use framework_info::capability::Type;

    let capability = |it: Type| framework_info::Capability { r#type: Some(it as i32) };
    FrameworkInfo {
        id: Some(FrameworkId { value: "test-0000".to_owned() }),
        user: "root".to_owned(),
        name: "test".to_owned(),
        checkpoint: Some(checkpoint),
        capabilities: vec![capability(Type::TaskKillingState), capability(Type::PartitionAware)],
        ..FrameworkInfo::default()
    }
}

pub fn resources(cpus: f64, mem: f64) -> Vec<v1::Resource> {
    let allocated = |mut it: v1::Resource| {
        it.allocation_info = Some(v1::resource::AllocationInfo { role: Some("dev".to_owned()) });
        it
    };
    vec![allocated(agent::words::scalar_resource("cpus", cpus)), allocated(agent::words::scalar_resource("mem", mem))]
}

pub fn task(id: &str, command: &str) -> TaskInfo {
    TaskInfo {
        name: id.to_owned(),
        task_id: TaskId { value: id.to_owned() },
        agent_id: v1::AgentId { value: AGENT_ID.to_owned() },
        resources: resources(0.1, 64.0),
        command: Some(CommandInfo { value: Some(command.to_owned()), ..CommandInfo::default() }),
        ..TaskInfo::default()
    }
}

pub fn executor(id: &str, r#type: v1::executor_info::Type, command: Option<&str>) -> ExecutorInfo {
    ExecutorInfo {
        r#type: Some(r#type as i32),
        executor_id: ExecutorId { value: id.to_owned() },
        command: command.map(|it| CommandInfo { value: Some(it.to_owned()), ..CommandInfo::default() }),
        resources: resources(0.1, 64.0),
        ..ExecutorInfo::default()
    }
}

pub fn names(statuses: &[TaskStatus]) -> Vec<&'static str> {
    statuses.iter().map(|it| it.state().as_str_name()).collect()
}
