//! A cluster under faults: agents, frameworks, operators and masters that come and go, messages late or lost, clocks that jump.
//!
//! Everything is drawn from a seed. `SIM_SEEDS=from..to` runs others than the usual ones; a failure names its seed and what happened last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use master::{FromAgent, Input, Reply, ToAgent, is_terminal};
use mesos::{AgentId, FrameworkId, Resources, TaskId};
use mesos_proto::v1;
use v1::TaskState;
use v1::scheduler::{Call, Event, call};

use crate::accounting::contradictions;
use crate::world::{World, config, framework, introduce, launch, task};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("small")
    }

    fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }
}

#[derive(Clone)]
struct SimTask {
    proto: v1::Task,
    /// Updates that are not acknowledged, oldest first: state and uuid.
    updates: VecDeque<(TaskState, Vec<u8>)>,
}

/// Whether a task is said to be somewhere, or on its way there.
fn is_live(state: TaskState) -> bool {
    !is_terminal(state) && !matches!(state, TaskState::TaskUnknown | TaskState::TaskUnreachable)
}

/// An agent: an honest one, whose process and link may break.
struct SimAgent {
    number: u64,
    id: Option<AgentId>,
    link: Option<u64>,
    inbox: VecDeque<ToAgent>,
    tasks: BTreeMap<(FrameworkId, TaskId), SimTask>,
    frameworks: BTreeMap<FrameworkId, v1::FrameworkInfo>,
    total: Resources,
    /// It was told to end.
    over: bool,
}

/// A scheduler that remembers what it was told.
struct SimFramework {
    id: Option<FrameworkId>,
    stream: Option<String>,
    info: v1::FrameworkInfo,
    offers: BTreeMap<String, v1::Offer>,
    /// The latest state that it was told of each task.
    tasks: BTreeMap<String, TaskState>,
    /// Ends that it acknowledged.
    acknowledged: BTreeSet<String>,
    next_task: u64,
}

struct Sim {
    random: Random,
    world: World,
    agents: Vec<SimAgent>,
    frameworks: Vec<SimFramework>,
    /// How often an agent was told to run a task.
    launches: BTreeMap<String, u32>,
    generation: u64,
    next_link: u64,
    next_stream: u64,
    next_uuid: u64,
    log: VecDeque<String>,
    calm: bool,
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut random = Random(seed);
        let agents = (1..=3 + random.below(3) as u64).map(|number| SimAgent {
            number,
            id: None,
            link: None,
            inbox: VecDeque::new(),
            tasks: BTreeMap::new(),
            frameworks: BTreeMap::new(),
            total: Resources::from_proto(&mesos::parse_resources("cpus:4;mem:512;ports:[100-120]", "*").expect("good")),
            over: false,
        });
        let agents = agents.collect();
        let frameworks = (0..1 + random.below(3)).map(|number| {
            let mut info = framework(&[["a", "b", "a/x"][number]]);
            info.failover_timeout = Some([3600.0, 40.0, 3600.0][number]);
            SimFramework {
                id: None,
                stream: None,
                info,
                offers: BTreeMap::new(),
                tasks: BTreeMap::new(),
                acknowledged: BTreeSet::new(),
                next_task: 0,
            }
        });
        let frameworks = frameworks.collect();
        let mut world = World::with(config(0));
        world.hold_writes = true;
        Sim {
            random,
            world,
            agents,
            frameworks,
            launches: BTreeMap::new(),
            generation: 0,
            next_link: 0,
            next_stream: 0,
            next_uuid: 0,
            log: VecDeque::new(),
            calm: false,
        }
    }

    fn note(&mut self, text: String) {
        self.log.push_back(text);
        if self.log.len() > 60 {
            self.log.pop_front();
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..14 => self.agent_reads(),
            14..34 => self.framework_reads(),
            34..44 => self.framework_acts(),
            44..52 => self.agent_tells(),
            52..58 => self.task_changes(),
            58..72 => self.world.store(),
            72..80 => self.connect(),
            80..92 => {
                let time = [5, 100, 1000, 6000][self.random.below(4)];
                self.world.pass(Duration::from_millis(time));
            }
            92..94 => self.pongs(),
            94..96 if !self.calm => self.operator(),
            _ if !self.calm => self.fault(),
            _ => self.pongs(),
        }
        self.collect();
        if let Some(reason) = &self.world.aborted {
            panic!("the master ended itself: {reason}");
        }
        let state = self.world.state();
        let wrong = contradictions(&state);
        assert!(wrong.is_empty(), "{wrong:#?}\nlast: {:#?}", self.log);
        // The allocator has given what offers and tasks hold, no more and no less.
        let held: f64 = state.agents.values().map(|it| (it.used_total().scalar("cpus") + it.offered.scalar("cpus")).to_f64()).sum();
        let given = self.world.master.allocator_gauges().allocated.get("cpus").to_f64();
        assert!((held - given).abs() < 1e-6, "{given} cpus are given, {held} are held\nlast: {:#?}", self.log);
        if let Some((task, _)) = self.launches.iter().find(|(_, count)| **count > 1) {
            panic!("{task} was launched twice\nlast: {:#?}", self.log);
        }
    }

    /// Sorts what the master sent to those who are still there to get it.
    fn collect(&mut self) {
        let sent = std::mem::take(&mut self.world.sent);
        let closed = std::mem::take(&mut self.world.closed_links);
        for agent in &mut self.agents {
            let Some(link) = agent.link else { continue };
            agent.inbox.extend(sent.get(&link).into_iter().flatten().cloned());
            if closed.contains(&link) {
                agent.link = None;
                // What was sent before the end arrives.
                if !agent.inbox.iter().any(|it| matches!(it, ToAgent::Refused { .. } | ToAgent::Shutdown { .. })) {
                    agent.inbox.clear();
                }
            }
        }
        for stream in std::mem::take(&mut self.world.closed) {
            for framework in &mut self.frameworks {
                if framework.stream.as_ref() == Some(&stream) {
                    framework.stream = None;
                    framework.offers.clear();
                }
            }
            self.world.events.remove(&stream);
        }
    }

    fn connect(&mut self) {
        if self.random.one_in(2) {
            let at = self.random.below(self.agents.len());
            self.connect_agent(at);
        } else {
            let at = self.random.below(self.frameworks.len());
            self.connect_framework(at);
        }
    }

    fn connect_agent(&mut self, at: usize) {
        // It heard the end of its former link first.
        while self.agents[at].link.is_none() && !self.agents[at].inbox.is_empty() {
            self.agent_reads_one(at);
        }
        self.next_link += 1;
        let link = self.next_link;
        let agent = &mut self.agents[at];
        if agent.over || agent.link.is_some() {
            return;
        }
        let mut register = introduce(agent.number, "cpus:4;mem:512;ports:[100-120]");
        register.info.id = agent.id.as_ref().map(AgentId::to_proto);
        register.total_resources = agent.total.to_proto(mesos::Format::Refined);
        register.frameworks = agent.frameworks.values().cloned().collect();
        register.tasks = agent.tasks.values().map(|it| it.proto.clone()).collect();
        agent.link = Some(link);
        agent.inbox.clear();
        let text = format!("agent {} registers as {:?} on {link} with {} tasks", agent.number, agent.id, agent.tasks.len());
        self.note(text);
        self.world.register(link, register);
    }

    fn connect_framework(&mut self, at: usize) {
        self.next_stream += 1;
        let stream = format!("s{}", self.next_stream);
        let framework = &mut self.frameworks[at];
        // A scheduler may open a new stream while it has one.
        if framework.stream.is_some() && !self.random.one_in(20) {
            return;
        }
        let mut info = framework.info.clone();
        info.id = framework.id.as_ref().map(FrameworkId::to_proto);
        framework.stream = Some(stream.clone());
        framework.offers.clear();
        let text = format!("framework {at} subscribes as {:?} on {stream}", framework.id);
        self.note(text);
        self.world.subscribe(&stream, info);
    }

    fn agent_reads(&mut self) {
        let at = self.random.below(self.agents.len());
        self.agent_reads_one(at);
    }

    fn agent_reads_one(&mut self, at: usize) {
        let Some(message) = self.agents[at].inbox.pop_front() else { return };
        let agent = &mut self.agents[at];
        match message {
            ToAgent::Registered { agent_id } => agent.id = Some(agent_id),
            ToAgent::Refused { reason: master::Refused::Shutdown, .. } | ToAgent::Shutdown { .. } => {
                agent.over = true;
                agent.tasks.clear();
            }
            ToAgent::Refused { message, .. } => self.note(format!("refused: {message}")),
            ToAgent::RunTask { framework, task, .. } => {
                let id: FrameworkId = framework.id.as_ref().expect("set").into();
                let text = format!("agent {} runs {}", agent.number, task.task_id.value);
                *self.launches.entry(task.task_id.value.clone()).or_insert(0) += 1;
                let proto = v1::Task {
                    name: task.name.clone(),
                    task_id: task.task_id.clone(),
                    framework_id: id.to_proto(),
                    agent_id: task.agent_id.clone(),
                    state: TaskState::TaskStaging as i32,
                    resources: task.resources.clone(),
                    ..Default::default()
                };
                agent.frameworks.insert(id.clone(), (*framework).clone());
                agent.tasks.insert((id, (&task.task_id).into()), SimTask { proto, updates: VecDeque::new() });
                self.note(text);
            }
            ToAgent::KillTask { framework_id, task_id, .. } => self.change_task(at, &(framework_id, task_id), TaskState::TaskKilled),
            ToAgent::AcknowledgeStatusUpdate { framework_id, task_id, uuid } => {
                let key = (framework_id, task_id);
                let Some(task) = agent.tasks.get_mut(&key) else { return };
                if task.updates.front().is_some_and(|(_, it)| *it == uuid) {
                    let (state, _) = task.updates.pop_front().expect("there is one");
                    if is_terminal(state) {
                        agent.tasks.remove(&key);
                    }
                }
            }
            ToAgent::ApplyOperation { operation, operation_uuid, framework_id, .. } => {
                let mut total = agent.total.clone();
                let conversions = mesos::conversions(&operation).expect("checked by the master");
                let done = conversions.iter().try_for_each(|it| it.unallocated().apply(&mut total));
                let state = if done.is_ok() { v1::OperationState::OperationFinished } else { v1::OperationState::OperationDropped };
                if done.is_ok() {
                    agent.total = total;
                }
                let status = v1::OperationStatus { state: state as i32, ..Default::default() };
                let message = FromAgent::OperationStatusUpdate {
                    framework_id,
                    operation_uuid,
                    status: Box::new(status),
                    latest_state: state,
                    total_resources: Vec::new(),
                };
                if let Some(link) = agent.link {
                    self.world.agent(link, message);
                }
            }
            ToAgent::Drain { .. } => {
                let keys: Vec<_> = agent.tasks.keys().cloned().collect();
                for key in keys {
                    self.change_task(at, &key, TaskState::TaskKilled);
                }
            }
            ToAgent::ShutdownFramework { framework_id } => {
                agent.tasks.retain(|(id, _), _| *id != framework_id);
                agent.frameworks.remove(&framework_id);
            }
            _ => {}
        }
    }

    /// A task goes on by itself.
    fn task_changes(&mut self) {
        let at = self.random.below(self.agents.len());
        let tasks: Vec<_> = self.agents[at].tasks.keys().cloned().collect();
        if tasks.is_empty() {
            return;
        }
        let key = tasks[self.random.below(tasks.len())].clone();
        let state = TaskState::try_from(self.agents[at].tasks[&key].proto.state).expect("a state");
        let next = match state {
            TaskState::TaskStaging => TaskState::TaskRunning,
            TaskState::TaskRunning if self.random.one_in(3) => TaskState::TaskFinished,
            TaskState::TaskRunning if self.random.one_in(3) => TaskState::TaskFailed,
            _ => return,
        };
        self.change_task(at, &key, next);
    }

    fn change_task(&mut self, at: usize, key: &(FrameworkId, TaskId), state: TaskState) {
        self.next_uuid += 1;
        let uuid = self.next_uuid;
        let Some(task) = self.agents[at].tasks.get_mut(key) else { return };
        if is_terminal(TaskState::try_from(task.proto.state).expect("a state")) {
            return;
        }
        task.proto.state = state as i32;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&uuid.to_be_bytes());
        task.updates.push_back((state, bytes.to_vec()));
        self.note(format!("task {} is {state:?}", key.1));
    }

    /// An agent sends the first update of a task, perhaps again.
    fn agent_tells(&mut self) {
        let at = self.random.below(self.agents.len());
        self.agent_tells_one(at);
    }

    fn agent_tells_one(&mut self, at: usize) {
        let (Some(link), Some(id)) = (self.agents[at].link, self.agents[at].id.clone()) else { return };
        let due: Vec<_> = self.agents[at].tasks.iter().filter(|(_, task)| !task.updates.is_empty()).map(|(key, _)| key.clone()).collect();
        if due.is_empty() {
            return;
        }
        let key = due[self.random.below(due.len())].clone();
        let task = &self.agents[at].tasks[&key];
        let (state, uuid) = task.updates.front().cloned().expect("not empty");
        let status = v1::TaskStatus {
            task_id: key.1.to_proto(),
            state: state as i32,
            agent_id: Some(id.to_proto()),
            source: Some(v1::task_status::Source::Executor as i32),
            uuid: Some(uuid),
            timestamp: Some(1.0),
            ..Default::default()
        };
        let latest_state = TaskState::try_from(task.proto.state).expect("a state");
        self.world.agent(link, FromAgent::StatusUpdate { framework_id: key.0, status: Box::new(status), latest_state });
    }

    fn pongs(&mut self) {
        for link in self.agents.iter().filter_map(|it| it.link).collect::<Vec<_>>() {
            self.world.agent(link, FromAgent::Pong);
        }
    }

    fn framework_reads(&mut self) {
        let at = self.random.below(self.frameworks.len());
        self.framework_reads_one(at);
    }

    fn framework_reads_one(&mut self, at: usize) {
        let Some(stream) = self.frameworks[at].stream.clone() else { return };
        let Some(event) = self.world.events.get_mut(&stream).filter(|it| !it.is_empty()).map(|it| it.remove(0)) else { return };
        self.framework_reads_event(at, &stream, event);
    }

    fn framework_reads_event(&mut self, at: usize, stream: &str, event: Event) {
        let framework = &mut self.frameworks[at];
        if let Some(subscribed) = event.subscribed {
            framework.id = Some((&subscribed.framework_id).into());
        }
        for offer in event.offers.into_iter().flat_map(|it| it.offers) {
            framework.offers.insert(offer.id.value.clone(), offer);
        }
        if let Some(rescind) = event.rescind {
            framework.offers.remove(&rescind.offer_id.value);
        }
        if let Some(error) = event.error {
            // Removed: it begins again as another.
            if error.message == "Framework has been removed" {
                framework.id = None;
                framework.tasks.clear();
                framework.acknowledged.clear();
            }
        }
        let Some(update) = event.update else { return };
        let status = update.status;
        let id = status.task_id.value.clone();
        assert!(
            !is_live(status.state()) || !framework.acknowledged.contains(&id),
            "{id} was over and acknowledged, and is {:?} now\nlast: {:#?}",
            status.state(),
            self.log
        );
        framework.tasks.insert(id.clone(), status.state());
        let (Some(uuid), Some(agent), Some(framework_id)) = (status.uuid.clone(), status.agent_id.clone(), framework.id.clone()) else {
            return;
        };
        // An acknowledgement may get lost; the update comes again then.
        if !self.calm && self.random.one_in(6) {
            return;
        }
        let acknowledge = call::Acknowledge { agent_id: agent, task_id: status.task_id.clone(), uuid };
        let call = Call { r#type: Some(call::Type::Acknowledge as i32), acknowledge: Some(acknowledge), ..Default::default() };
        if self.world.call(stream, &framework_id, call) == Reply::Accepted && is_terminal(status.state()) {
            self.frameworks[at].acknowledged.insert(id);
        }
    }

    fn framework_acts(&mut self) {
        let at = self.random.below(self.frameworks.len());
        let framework = &mut self.frameworks[at];
        let (Some(stream), Some(id)) = (framework.stream.clone(), framework.id.clone()) else { return };
        match self.random.below(10) {
            0 => {
                let tasks: Vec<_> = framework.tasks.keys().cloned().collect();
                if tasks.is_empty() {
                    return;
                }
                let task = tasks[self.random.below(tasks.len())].clone();
                let kill = call::Kill { task_id: v1::TaskId { value: task }, ..Default::default() };
                self.world.call(&stream, &id, Call { r#type: Some(call::Type::Kill as i32), kill: Some(kill), ..Default::default() });
            }
            1 => {
                let reconcile = call::Reconcile::default();
                let call = Call { r#type: Some(call::Type::Reconcile as i32), reconcile: Some(reconcile), ..Default::default() };
                self.world.call(&stream, &id, call);
            }
            2 => {
                self.world.call(&stream, &id, Call { r#type: Some(call::Type::Revive as i32), ..Default::default() });
            }
            _ => self.use_offer(at, &stream, &id),
        }
    }

    fn use_offer(&mut self, at: usize, stream: &str, id: &FrameworkId) {
        let framework = &mut self.frameworks[at];
        let offers: Vec<_> = framework.offers.keys().cloned().collect();
        if offers.is_empty() {
            return;
        }
        let offer = framework.offers.remove(&offers[self.random.below(offers.len())]).expect("there is one");
        if self.random.one_in(4) {
            self.world.decline(stream, id, &[&offer], Some(1.0));
            return;
        }
        let mut tasks = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            framework.next_task += 1;
            let name = format!("{id}-t{}-{}", self.generation, framework.next_task);
            let cpus = 1 + self.random.below(2);
            let mut info = task(&name, &offer.agent_id, &format!("cpus:{cpus};mem:64"));
            // Some of what is offered, reserved or not.
            let offered: Vec<&v1::Resource> = offer.resources.iter().filter(|it| it.name == "cpus").collect();
            if !offered.is_empty() {
                let chosen = offered[self.random.below(offered.len())];
                info.resources[0] = v1::Resource { scalar: info.resources[0].scalar, ..chosen.clone() };
            }
            tasks.push(info);
        }
        self.world.accept(stream, id, &[&offer], vec![launch(tasks)]);
    }

    fn operator(&mut self) {
        use v1::master::call::{self, Type};
        let at = self.random.below(self.agents.len());
        let Some(id) = self.agents[at].id.clone() else { return };
        let agent_id = id.to_proto();
        let mut cpu = mesos::parse_resources("cpus:1", "*").expect("good");
        cpu[0].reservations.push(v1::resource::ReservationInfo {
            r#type: Some(v1::resource::reservation_info::Type::Dynamic as i32),
            role: Some("a".into()),
            ..Default::default()
        });
        let of = |kind: Type| v1::master::Call { r#type: Some(kind as i32), ..Default::default() };
        let call = match self.random.below(16) {
            0..4 => v1::master::Call {
                reserve_resources: Some(call::ReserveResources { agent_id, source: Vec::new(), resources: cpu }),
                ..of(Type::ReserveResources)
            },
            4..7 => v1::master::Call {
                unreserve_resources: Some(call::UnreserveResources { agent_id, resources: cpu }),
                ..of(Type::UnreserveResources)
            },
            7 => v1::master::Call {
                drain_agent: Some(call::DrainAgent { agent_id, max_grace_period: None, mark_gone: Some(self.random.one_in(4)) }),
                ..of(Type::DrainAgent)
            },
            8 => v1::master::Call { deactivate_agent: Some(call::DeactivateAgent { agent_id }), ..of(Type::DeactivateAgent) },
            9..12 => v1::master::Call { reactivate_agent: Some(call::ReactivateAgent { agent_id }), ..of(Type::ReactivateAgent) },
            12 => v1::master::Call { mark_agent_gone: Some(call::MarkAgentGone { agent_id }), ..of(Type::MarkAgentGone) },
            13..15 => {
                let amount = |value: usize| {
                    [("cpus".to_owned(), v1::value::Scalar { value: f64::from(u32::try_from(value).expect("small")) })].into()
                };
                let guarantee = self.random.below(4);
                let limits = amount(guarantee + self.random.below(6));
                let config = v1::quota::QuotaConfig { role: "a".into(), guarantees: amount(guarantee), limits };
                v1::master::Call {
                    update_quota: Some(call::UpdateQuota { force: Some(true), quota_configs: vec![config] }),
                    ..of(Type::UpdateQuota)
                }
            }
            _ => {
                let weight_infos = vec![v1::WeightInfo { weight: 2.0, role: Some("b".into()) }];
                v1::master::Call { update_weights: Some(call::UpdateWeights { weight_infos }), ..of(Type::UpdateWeights) }
            }
        };
        self.note(format!("operator: {:?} of {id}", call.r#type()));
        self.world.operator(call);
    }

    fn fault(&mut self) {
        match self.random.below(12) {
            0..4 => {
                let at = self.random.below(self.agents.len());
                if let Some(link) = self.agents[at].link.take() {
                    self.note(format!("link {link} breaks"));
                    self.agents[at].inbox.clear();
                    self.world.close_link(link);
                }
            }
            4..6 => {
                let at = self.random.below(self.frameworks.len());
                if let Some(stream) = self.frameworks[at].stream.take() {
                    self.note(format!("stream {stream} breaks"));
                    self.frameworks[at].offers.clear();
                    self.world.events.remove(&stream);
                    self.world.close_stream(&stream);
                }
            }
            6 => {
                self.generation += 1;
                let text = format!("master {} takes over", self.generation);
                self.note(text);
                // What was being written may be there or not.
                if self.random.one_in(2) && !self.world.writes.is_empty() {
                    let (_, records) = self.world.writes.pop_front().expect("there is one");
                    for record in records {
                        match record.value {
                            Some(value) => self.world.stored.insert(record.key, value),
                            None => self.world.stored.remove(&record.key),
                        };
                    }
                }
                self.world.fail_over(config(self.generation));
                self.world.events.clear();
                for agent in &mut self.agents {
                    agent.link = None;
                    agent.inbox.clear();
                }
                for framework in &mut self.frameworks {
                    framework.stream = None;
                    framework.offers.clear();
                }
            }
            7 => self.world.pass_secs(100),
            8 => {
                self.world.now = self.world.now - Duration::from_secs(50);
                self.world.input(Input::Tick);
            }
            9 => self.world.now = self.world.now + Duration::from_secs(30),
            10 => {
                // The end of a stream that ended long ago.
                let old = format!("s{}", self.random.below(usize::try_from(self.next_stream).expect("small") + 1));
                if self.frameworks.iter().all(|it| it.stream.as_ref() != Some(&old)) {
                    self.world.close_stream(&old);
                }
            }
            _ => {
                let links: Vec<u64> = self.agents.iter().filter_map(|it| it.link).collect();
                if let Some(link) = links.first() {
                    // A message of an agent that the master does not expect.
                    self.world.update(*link, &"nobody".into(), "none", TaskState::TaskRunning, Some(1));
                }
            }
        }
    }

    /// Without faults everything comes to agree.
    fn settle(&mut self) {
        self.calm = true;
        for _ in 0..400 {
            for at in 0..self.agents.len() {
                self.connect_agent(at);
                while !self.agents[at].inbox.is_empty() {
                    self.agent_reads_one(at);
                }
                self.agent_tells_one(at);
            }
            for at in 0..self.frameworks.len() {
                if self.frameworks[at].stream.is_none() {
                    self.connect_framework(at);
                }
                for _ in 0..20 {
                    self.framework_reads_one(at);
                }
                self.frameworks[at].offers.clear();
            }
            while !self.world.writes.is_empty() {
                self.world.store();
            }
            self.pongs();
            self.world.pass(Duration::from_secs(2));
            self.collect();
        }
        let state = self.world.state();
        let wrong = contradictions(&state);
        assert!(wrong.is_empty(), "{wrong:#?}\nlast: {:#?}", self.log);
        // Nothing waits for an acknowledgement, and both sides know the same tasks.
        for agent in self.agents.iter().filter(|it| !it.over) {
            for ((framework, id), task) in &agent.tasks {
                assert!(task.updates.is_empty(), "an update of {id} was never acknowledged\nlast: {:#?}", self.log);
                let known = state.frameworks.get(framework).and_then(|it| it.tasks.get(id));
                let known = known.unwrap_or_else(|| panic!("{id} runs on {} and nobody knows\nlast: {:#?}", agent.number, self.log));
                assert_eq!(known.state as i32, task.proto.state, "{id}");
            }
        }
        for framework in state.frameworks.values() {
            for task in framework.tasks.values() {
                let key = (framework.id.clone(), task.id.clone());
                let runs = self.agents.iter().any(|it| it.id.as_ref() == Some(&task.agent_id) && it.tasks.contains_key(&key));
                assert!(runs, "{} is known and runs nowhere\nlast: {:#?}", task.id, self.log);
            }
        }
    }
}

#[test]
fn the_cluster_agrees_after_any_faults() {
    let range = std::env::var("SIM_SEEDS").unwrap_or_else(|_| "0..150".into());
    let (from, to) = range.split_once("..").expect("from..to");
    let seeds = from.parse().expect("a number")..to.parse().expect("a number");
    let mut launched = 0;
    for seed in seeds {
        let mut sim = Sim::new(seed);
        let steps = 250;
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..steps {
                sim.step();
            }
            sim.settle();
        }));
        launched += sim.launches.len();
        assert!(done.is_ok(), "seed {seed} failed; see above");
    }
    assert!(launched > 100, "the simulation does something: {launched}");
}
