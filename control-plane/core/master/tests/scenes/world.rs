//! A master with a registry, frameworks' streams and agents' links, all in memory.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::Timestamp;
use master::{Config, Effect, FromAgent, Input, LinkId, Master, Register, Registry, Reply, ReplySlot, Snapshot, StreamId, ToAgent};
use mesos::{AgentId, FrameworkId};
use mesos_proto::v1;
use v1::framework_info::capability::Type as Can;
use v1::scheduler::{Call, Event, call};

pub(crate) struct World {
    pub(crate) master: Master,
    pub(crate) now: Timestamp,
    pub(crate) stored: BTreeMap<String, Vec<u8>>,
    /// Writes are stored at once unless this is set; then they wait here.
    pub(crate) hold_writes: bool,
    pub(crate) writes: VecDeque<(u64, Vec<master::Record>)>,
    pub(crate) events: BTreeMap<String, Vec<Event>>,
    pub(crate) closed: Vec<String>,
    pub(crate) sent: BTreeMap<u64, Vec<ToAgent>>,
    pub(crate) closed_links: Vec<u64>,
    pub(crate) replies: BTreeMap<u64, Reply>,
    pub(crate) published: Vec<v1::master::Event>,
    pub(crate) aborted: Option<String>,
    next: u64,
}

pub(crate) fn config(generation: u64) -> Config {
    let id = format!("m{generation}");
    let info = v1::MasterInfo { id, ip: 0x0100_007f, port: 5050, hostname: Some("m".into()), ..Default::default() };
    Config::new(info, 7 + generation)
}

impl World {
    pub(crate) fn new() -> World {
        World::with(config(0))
    }

    pub(crate) fn with(config: Config) -> World {
        let now = Timestamp::from_unix_millis(1_700_000_000_000);
        World {
            master: Master::new(config, Registry::default(), now),
            now,
            stored: BTreeMap::new(),
            hold_writes: false,
            writes: VecDeque::new(),
            events: BTreeMap::new(),
            closed: Vec::new(),
            sent: BTreeMap::new(),
            closed_links: Vec::new(),
            replies: BTreeMap::new(),
            published: Vec::new(),
            aborted: None,
            next: 0,
        }
    }

    /// Another master takes over with what is stored.
    pub(crate) fn fail_over(&mut self, config: Config) {
        let registry = Registry::load(self.stored.clone()).expect("what was stored can be loaded");
        self.writes.clear();
        self.master = Master::new(config, registry, self.now);
    }

    pub(crate) fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.master.step(self.now, input, &mut out);
        for effect in out {
            match effect {
                Effect::Event { stream, event } => self.events.entry(stream.to_string()).or_default().push(*event),
                Effect::CloseStream { stream } => self.closed.push(stream.to_string()),
                Effect::Agent { link, message } => self.sent.entry(link.0).or_default().push(message),
                Effect::CloseLink { link } => self.closed_links.push(link.0),
                Effect::Persist { write, records } => self.writes.push_back((write, records)),
                Effect::Reply { slot, reply } => {
                    let before = self.replies.insert(slot.0, reply);
                    assert_eq!(before, None, "a call is answered once");
                }
                Effect::Publish(event) => self.published.push(*event),
                Effect::Abort { reason } => self.aborted = Some(reason),
            }
        }
        if !self.hold_writes {
            self.store();
        }
    }

    /// Makes what waits durable.
    pub(crate) fn store(&mut self) {
        if let Some((write, records)) = self.writes.pop_front() {
            for record in records {
                match record.value {
                    Some(value) => self.stored.insert(record.key, value),
                    None => self.stored.remove(&record.key),
                };
            }
            self.input(Input::Stored { write });
        }
    }

    /// Lets time pass, in steps as the master asks for them.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.master.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Tick);
        }
        self.now = end;
    }

    pub(crate) fn pass_secs(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    /// Lets time pass while agents answer their pings.
    pub(crate) fn live_secs(&mut self, seconds: u64, links: &[u64]) {
        for _ in 0..seconds.div_ceil(10) {
            self.pass_secs(10.min(seconds));
            for link in links {
                self.agent(*link, FromAgent::Pong);
            }
        }
    }

    pub(crate) fn state(&self) -> Snapshot {
        self.master.snapshot()
    }

    // ---- agents ----

    pub(crate) fn register(&mut self, link: u64, register: Register) {
        self.input(Input::Register { link: LinkId(link), register: Box::new(register) });
    }

    /// Registers a new agent and gives back its id.
    pub(crate) fn new_agent(&mut self, link: u64, resources: &str) -> AgentId {
        self.register(link, introduce(link, resources));
        self.registered(link).expect("it is registered")
    }

    /// The id that was told on a link.
    pub(crate) fn registered(&self, link: u64) -> Option<AgentId> {
        self.sent.get(&link)?.iter().find_map(|message| match message {
            ToAgent::Registered { agent_id } => Some(agent_id.clone()),
            _ => None,
        })
    }

    pub(crate) fn agent(&mut self, link: u64, message: FromAgent) {
        self.input(Input::Agent { link: LinkId(link), message });
    }

    pub(crate) fn close_link(&mut self, link: u64) {
        self.input(Input::LinkClosed { link: LinkId(link) });
    }

    /// Takes what was sent to an agent.
    pub(crate) fn take_sent(&mut self, link: u64) -> Vec<ToAgent> {
        self.sent.remove(&link).unwrap_or_default()
    }

    pub(crate) fn update(&mut self, link: u64, framework: &FrameworkId, task: &str, state: v1::TaskState, uuid: Option<u8>) {
        let status = v1::TaskStatus {
            task_id: v1::TaskId { value: task.into() },
            state: state as i32,
            source: Some(v1::task_status::Source::Executor as i32),
            uuid: uuid.map(|it| vec![it; 16]),
            timestamp: Some(1.0),
            ..Default::default()
        };
        let framework_id = framework.clone();
        self.agent(link, FromAgent::StatusUpdate { framework_id, status: Box::new(status), latest_state: state });
    }

    // ---- frameworks ----

    pub(crate) fn subscribe(&mut self, stream: &str, info: v1::FrameworkInfo) -> Option<FrameworkId> {
        let subscribe = call::Subscribe { framework_info: info, ..Default::default() };
        self.input(Input::Subscribe { stream: stream.into(), principal: None, subscribe: Box::new(subscribe) });
        self.events.get(stream)?.iter().find_map(|it| it.subscribed.as_ref()).map(|it| (&it.framework_id).into())
    }

    pub(crate) fn close_stream(&mut self, stream: &str) {
        self.input(Input::StreamClosed { stream: stream.into() });
    }

    pub(crate) fn call(&mut self, stream: &str, framework: &FrameworkId, call: Call) -> Reply {
        self.next += 1;
        let call = Call { framework_id: Some(framework.to_proto()), ..call };
        self.input(Input::Call {
            reply: ReplySlot(self.next),
            stream: Some(StreamId::from(stream)),
            principal: None,
            call: Box::new(call),
        });
        self.replies.get(&self.next).cloned().expect("calls are answered at once")
    }

    pub(crate) fn operator(&mut self, call: v1::master::Call) -> Option<Reply> {
        self.next += 1;
        self.input(Input::Operator { reply: ReplySlot(self.next), principal: None, call: Box::new(call) });
        self.replies.get(&self.next).cloned()
    }

    /// Takes the events of a stream.
    pub(crate) fn take_events(&mut self, stream: &str) -> Vec<Event> {
        self.events.remove(stream).unwrap_or_default()
    }

    /// Takes the offers of a stream; its other events are lost.
    pub(crate) fn take_offers(&mut self, stream: &str) -> Vec<v1::Offer> {
        self.take_events(stream).into_iter().filter_map(|it| it.offers).flat_map(|it| it.offers).collect()
    }

    /// Takes the statuses of a stream; its other events are lost.
    pub(crate) fn take_statuses(&mut self, stream: &str) -> Vec<v1::TaskStatus> {
        self.take_events(stream).into_iter().filter_map(|it| it.update).map(|it| it.status).collect()
    }

    pub(crate) fn accept(
        &mut self,
        stream: &str,
        framework: &FrameworkId,
        offers: &[&v1::Offer],
        operations: Vec<v1::offer::Operation>,
    ) -> Reply {
        let accept = call::Accept { offer_ids: offers.iter().map(|it| it.id.clone()).collect(), operations, filters: None };
        self.call(stream, framework, Call { r#type: Some(call::Type::Accept as i32), accept: Some(accept), ..Default::default() })
    }

    pub(crate) fn decline(&mut self, stream: &str, framework: &FrameworkId, offers: &[&v1::Offer], seconds: Option<f64>) {
        let filters = seconds.map(|it| v1::Filters { refuse_seconds: Some(it) });
        let decline = call::Decline { offer_ids: offers.iter().map(|it| it.id.clone()).collect(), filters };
        self.call(stream, framework, Call { r#type: Some(call::Type::Decline as i32), decline: Some(decline), ..Default::default() });
    }

    pub(crate) fn acknowledge(&mut self, stream: &str, framework: &FrameworkId, agent: &AgentId, task: &str, uuid: u8) {
        let acknowledge =
            call::Acknowledge { agent_id: agent.to_proto(), task_id: v1::TaskId { value: task.into() }, uuid: vec![uuid; 16] };
        let call = Call { r#type: Some(call::Type::Acknowledge as i32), acknowledge: Some(acknowledge), ..Default::default() };
        self.call(stream, framework, call);
    }
}

/// How an agent of the tests introduces itself.
pub(crate) fn introduce(link: u64, resources: &str) -> Register {
    use v1::agent_info::capability::Type;
    let resources = mesos::parse_resources(resources, "*").expect("good resources");
    let info = v1::AgentInfo { hostname: format!("host{link}"), port: Some(5051), resources: resources.clone(), ..Default::default() };
    let all = [
        Type::MultiRole,
        Type::HierarchicalRole,
        Type::ReservationRefinement,
        Type::ResizeVolume,
        Type::AgentOperationFeedback,
        Type::AgentDraining,
        Type::TaskResourceLimits,
    ];
    Register {
        info,
        pid: format!("slave(1)@10.0.{}.{}:5051", link / 250, link % 250 + 1),
        version: "1.11.0".into(),
        capabilities: all.iter().map(|it| v1::agent_info::Capability { r#type: Some(*it as i32) }).collect(),
        total_resources: resources,
        ..Default::default()
    }
}

pub(crate) fn framework(roles: &[&str]) -> v1::FrameworkInfo {
    let can = [Can::MultiRole, Can::PartitionAware, Can::ReservationRefinement];
    v1::FrameworkInfo {
        user: "root".into(),
        name: "test".into(),
        failover_timeout: Some(3600.0),
        checkpoint: Some(true),
        roles: roles.iter().map(|it| (*it).to_owned()).collect(),
        capabilities: can.iter().map(|it| v1::framework_info::Capability { r#type: Some(*it as i32) }).collect(),
        ..Default::default()
    }
}

pub(crate) fn task(id: &str, agent: &v1::AgentId, resources: &str) -> v1::TaskInfo {
    v1::TaskInfo {
        name: id.into(),
        task_id: v1::TaskId { value: id.into() },
        agent_id: agent.clone(),
        resources: mesos::parse_resources(resources, "*").expect("good resources"),
        command: Some(v1::CommandInfo { value: Some("true".into()), ..Default::default() }),
        ..Default::default()
    }
}

pub(crate) fn launch(tasks: Vec<v1::TaskInfo>) -> v1::offer::Operation {
    v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Launch as i32),
        launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
        ..Default::default()
    }
}
