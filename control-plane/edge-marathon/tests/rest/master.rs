//! A master that speaks the v1 scheduler API over HTTP, with agents of its own making. Tasks run for as long as their command says:
//! `exit N` ends with that code after a moment, anything else runs until it is killed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use mesos_proto::recordio::frame;
use mesos_proto::v1;
use mesos_proto::v1::scheduler::{self as api, call, event};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

#[derive(Clone)]
pub(crate) struct Master {
    state: Arc<Mutex<Inner>>,
    pub(crate) address: SocketAddr,
}

struct Agent {
    host: String,
    cpus: f64,
    mem: f64,
    used_ports: Vec<u64>,
    attributes: Vec<(String, String)>,
    up: bool,
}

struct Running {
    agent: usize,
    info: v1::TaskInfo,
    state: v1::TaskState,
}

#[derive(Default)]
struct Inner {
    agents: Vec<Agent>,
    tasks: BTreeMap<String, Running>,
    offers: BTreeMap<String, usize>,
    stream: Option<mpsc::UnboundedSender<Bytes>>,
    stream_id: String,
    roles: Vec<String>,
    framework: Option<String>,
    next: u64,
    pub(crate) calls: Vec<String>,
    suppressed: bool,
    withheld: bool,
}

impl Master {
    pub(crate) async fn start(agents: usize, cpus: f64) -> Master {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Master::on(listener, agents, cpus)
    }

    pub(crate) fn on(listener: TcpListener, agents: usize, cpus: f64) -> Master {
        let address = listener.local_addr().unwrap();
        let agents = (0..agents)
            .map(|at| Agent {
                // Reached for health checks as well.
                host: if at == 0 { "127.0.0.1".to_owned() } else { format!("127.0.0.{}", at + 1) },
                cpus,
                mem: cpus * 1_024.0,
                used_ports: Vec::new(),
                attributes: vec![("rack".to_owned(), format!("r{}", at % 2))],
                up: true,
            })
            .collect();
        let master = Master { state: Arc::new(Mutex::new(Inner { agents, ..Inner::default() })), address };
        let router = Router::new().route("/api/v1/scheduler", post(on_call)).with_state(master.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let offering = master.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                offering.offer();
            }
        });
        master
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    pub(crate) fn task_infos(&self) -> Vec<v1::TaskInfo> {
        self.state.lock().unwrap().tasks.values().map(|it| it.info.clone()).collect()
    }

    pub(crate) fn running(&self) -> usize {
        self.state.lock().unwrap().tasks.values().filter(|it| it.state == v1::TaskState::TaskRunning).count()
    }

    /// Cuts the stream, as a master that dies does.
    pub(crate) fn cut(&self) {
        self.state.lock().unwrap().stream = None;
    }

    /// An agent is not heard of any more.
    pub(crate) fn lose_agent(&self, at: usize) {
        let lost: Vec<String> = {
            let mut inner = self.state.lock().unwrap();
            inner.agents[at].up = false;
            inner.tasks.iter().filter(|(_, it)| it.agent == at).map(|(id, _)| id.clone()).collect()
        };
        for id in lost {
            self.update(&id, v1::TaskState::TaskUnreachable, "the agent is unreachable");
        }
    }

    fn offer(&self) {
        let mut inner = self.state.lock().unwrap();
        if inner.stream.is_none() || inner.suppressed || inner.withheld {
            return;
        }
        let mut offers = Vec::new();
        let roles = inner.roles.clone();
        for at in 0..inner.agents.len() {
            if !inner.agents[at].up || inner.offers.values().any(|agent| *agent == at) {
                continue;
            }
            inner.next += 1;
            let id = format!("O{}", inner.next);
            let agent = &inner.agents[at];
            if agent.cpus < 0.05 {
                continue;
            }
            let scalar = |name: &str, value: f64| v1::Resource {
                name: name.to_owned(),
                r#type: v1::value::Type::Scalar as i32,
                scalar: Some(v1::value::Scalar { value }),
                ..v1::Resource::default()
            };
            let mut ranges = Vec::new();
            let mut from = 31_000;
            let mut used = agent.used_ports.clone();
            used.sort_unstable();
            for port in used {
                if from < port {
                    ranges.push(v1::value::Range { begin: from, end: port - 1 });
                }
                from = port + 1;
            }
            ranges.push(v1::value::Range { begin: from, end: 32_000 });
            let ports = v1::Resource {
                name: "ports".to_owned(),
                r#type: v1::value::Type::Ranges as i32,
                ranges: Some(v1::value::Ranges { range: ranges }),
                ..v1::Resource::default()
            };
            let attribute = |(name, value): &(String, String)| v1::Attribute {
                name: name.clone(),
                r#type: v1::value::Type::Text as i32,
                text: Some(v1::value::Text { value: value.clone() }),
                ..v1::Attribute::default()
            };
            offers.push(v1::Offer {
                id: v1::OfferId { value: id.clone() },
                framework_id: v1::FrameworkId { value: inner.framework.clone().unwrap_or_default() },
                agent_id: v1::AgentId { value: format!("S{at}") },
                hostname: agent.host.clone(),
                resources: vec![scalar("cpus", agent.cpus), scalar("mem", agent.mem), scalar("disk", 10_000.0), ports],
                attributes: agent.attributes.iter().map(attribute).collect(),
                allocation_info: Some(v1::resource::AllocationInfo { role: Some(roles[0].clone()) }),
                ..v1::Offer::default()
            });
            inner.offers.insert(id, at);
        }
        if !offers.is_empty() {
            let event =
                api::Event { r#type: Some(event::Type::Offers as i32), offers: Some(event::Offers { offers }), ..api::Event::default() };
            inner.send(&event);
        }
    }

    pub(crate) fn update(&self, task: &str, state: v1::TaskState, message: &str) {
        self.state.lock().unwrap().update(task, state, message, None);
    }

    /// No offers are made any more.
    pub(crate) fn withhold(&self) {
        self.state.lock().unwrap().withheld = true;
    }

    /// The executor of a pod ends all of its containers when one is over.
    pub(crate) fn end_siblings(&self, id: &str) {
        let Some((instance, _)) = id.rsplit_once('.').and_then(|(rest, _)| rest.rsplit_once('.')) else { return };
        let mut inner = self.state.lock().unwrap();
        let siblings: Vec<String> = inner.tasks.keys().filter(|it| it.starts_with(&format!("{instance}."))).cloned().collect();
        for sibling in siblings {
            inner.update(&sibling, v1::TaskState::TaskKilled, "Container killed: another of its pod is over", None);
        }
    }

    /// What the agent's health check says of every running task.
    pub(crate) fn report_health(&self, healthy: bool) {
        let mut inner = self.state.lock().unwrap();
        let running: Vec<String> =
            inner.tasks.iter().filter(|(_, it)| it.state == v1::TaskState::TaskRunning).map(|(id, _)| id.clone()).collect();
        for task in running {
            inner.update(&task, v1::TaskState::TaskRunning, "", Some(healthy));
        }
    }
}

impl Inner {
    fn send(&mut self, event: &api::Event) {
        if let Some(stream) = &self.stream
            && stream.send(frame(&event.encode_to_vec())).is_err()
        {
            self.stream = None;
        }
    }

    fn update(&mut self, task: &str, state: v1::TaskState, message: &str, healthy: Option<bool>) {
        let terminal = !matches!(
            state,
            v1::TaskState::TaskStaging
                | v1::TaskState::TaskStarting
                | v1::TaskState::TaskRunning
                | v1::TaskState::TaskKilling
                | v1::TaskState::TaskUnreachable
        );
        let agent = self.tasks.get(task).map(|it| it.agent);
        if terminal {
            if let Some(gone) = self.tasks.remove(task) {
                let agent = &mut self.agents[gone.agent];
                for resource in &gone.info.resources {
                    let amount = resource.scalar.as_ref().map_or(0.0, |it| it.value);
                    match resource.name.as_str() {
                        "cpus" => agent.cpus += amount,
                        "mem" => agent.mem += amount,
                        "ports" => {
                            for range in &resource.ranges.as_ref().unwrap().range {
                                agent.used_ports.retain(|port| !(range.begin..=range.end).contains(port));
                            }
                        }
                        _ => {}
                    }
                }
            }
        } else if let Some(running) = self.tasks.get_mut(task) {
            running.state = state;
        }
        self.next += 1;
        let mut uuid = vec![0; 16];
        uuid[..8].copy_from_slice(&self.next.to_be_bytes());
        let status = v1::TaskStatus {
            task_id: v1::TaskId { value: task.to_owned() },
            state: state as i32,
            message: Some(message.to_owned()),
            agent_id: agent.map(|at| v1::AgentId { value: format!("S{at}") }),
            uuid: Some(uuid),
            healthy,
            container_status: Some(v1::ContainerStatus {
                network_infos: vec![v1::NetworkInfo {
                    ip_addresses: vec![v1::network_info::IpAddress { protocol: Some(1), ip_address: Some("10.9.8.7".to_owned()) }],
                    ..v1::NetworkInfo::default()
                }],
                ..v1::ContainerStatus::default()
            }),
            ..v1::TaskStatus::default()
        };
        let event =
            api::Event { r#type: Some(event::Type::Update as i32), update: Some(event::Update { status }), ..api::Event::default() };
        self.send(&event);
    }

    fn launch(&mut self, agent: usize, info: v1::TaskInfo) {
        for resource in &info.resources {
            let amount = resource.scalar.as_ref().map_or(0.0, |it| it.value);
            let agent = &mut self.agents[agent];
            match resource.name.as_str() {
                "cpus" => agent.cpus -= amount,
                "mem" => agent.mem -= amount,
                "ports" => {
                    for range in &resource.ranges.as_ref().unwrap().range {
                        for port in range.begin..=range.end {
                            assert!(!agent.used_ports.contains(&port), "port {port} is taken twice");
                            agent.used_ports.push(port);
                        }
                    }
                }
                _ => {}
            }
        }
        assert!(self.agents[agent].cpus > -0.001, "more cpus taken than offered");
        let id = info.task_id.value.clone();
        let known = self.tasks.insert(id.clone(), Running { agent, info, state: v1::TaskState::TaskStaging });
        assert!(known.is_none(), "{id} is launched twice");
    }
}

async fn on_call(State(master): State<Master>, headers: HeaderMap, body: Bytes) -> Response {
    let call: api::Call = mesos_proto::json::decode_protobuf(&body).expect("a call that the master understands");
    let kind = call::Type::try_from(call.r#type.unwrap()).unwrap();
    let mut inner = master.state.lock().unwrap();
    inner.calls.push(kind.as_str_name().to_owned());
    if kind == call::Type::Subscribe {
        let subscribe = call.subscribe.unwrap();
        assert!(headers.get("mesos-stream-id").is_none());
        inner.roles = subscribe.framework_info.roles.clone();
        inner.offers.clear();
        inner.suppressed = false;
        if inner.framework.is_none() {
            inner.framework = Some("f-0001".to_owned());
        } else {
            assert_eq!(call.framework_id.unwrap().value, "f-0001", "subscribed as somebody else");
        }
        inner.next += 1;
        inner.stream_id = format!("stream-{}", inner.next);
        let (sender, receiver) = mpsc::unbounded_channel();
        inner.stream = Some(sender);
        let subscribed = event::Subscribed {
            framework_id: v1::FrameworkId { value: "f-0001".to_owned() },
            heartbeat_interval_seconds: Some(15.0),
            master_info: Some(v1::MasterInfo {
                id: "m".to_owned(),
                hostname: Some("master".to_owned()),
                port: 5050,
                ..v1::MasterInfo::default()
            }),
        };
        let event = api::Event { r#type: Some(event::Type::Subscribed as i32), subscribed: Some(subscribed), ..api::Event::default() };
        inner.send(&event);
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            let bytes = receiver.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), receiver))
        });
        let mut response = Body::from_stream(stream).into_response();
        response.headers_mut().insert("mesos-stream-id", inner.stream_id.parse().unwrap());
        return response;
    }
    if headers.get("mesos-stream-id").is_none_or(|id| id.as_bytes() != inner.stream_id.as_bytes()) {
        return (StatusCode::BAD_REQUEST, "the stream ID didn't match").into_response();
    }
    let mut begun = Vec::new();
    if let Some(accept) = call.accept {
        let agent = inner.offers.remove(&accept.offer_ids[0].value).expect("a known offer");
        for operation in accept.operations {
            let infos =
                operation.launch.map(|it| it.task_infos).or(operation.launch_group.map(|it| it.task_group.tasks)).unwrap_or_default();
            for info in infos {
                begun.push((info.task_id.value.clone(), info.command.as_ref().and_then(|it| it.value.clone()).unwrap_or_default()));
                inner.launch(agent, info);
            }
        }
    }
    for id in call.decline.into_iter().flat_map(|it| it.offer_ids) {
        inner.offers.remove(&id.value);
    }
    if kind == call::Type::Suppress {
        inner.suppressed = true;
    }
    if kind == call::Type::Revive {
        inner.suppressed = false;
    }
    if let Some(kill) = call.kill {
        let id = kill.task_id.value;
        let state = if inner.tasks.contains_key(&id) { v1::TaskState::TaskKilled } else { v1::TaskState::TaskUnknown };
        inner.update(&id, state, "killed", None);
    }
    for task in call.reconcile.into_iter().flat_map(|it| it.tasks) {
        let id = task.task_id.value;
        let state = inner.tasks.get(&id).map_or(v1::TaskState::TaskUnknown, |it| it.state);
        inner.update(&id, state, "Reconciliation: Latest task state", None);
    }
    drop(inner);
    for (id, command) in begun {
        let master = master.clone();
        tokio::spawn(async move {
            for state in [v1::TaskState::TaskStarting, v1::TaskState::TaskRunning] {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if master.state.lock().unwrap().tasks.contains_key(&id) {
                    master.update(&id, state, "");
                }
            }
            if let Some(code) = command.strip_prefix("exit ") {
                tokio::time::sleep(Duration::from_millis(30)).await;
                let state = if code.trim() == "0" { v1::TaskState::TaskFinished } else { v1::TaskState::TaskFailed };
                if master.state.lock().unwrap().tasks.contains_key(&id) {
                    master.update(&id, state, &format!("Command exited with status {code}"));
                    master.end_siblings(&id);
                }
            }
        });
    }
    StatusCode::ACCEPTED.into_response()
}
