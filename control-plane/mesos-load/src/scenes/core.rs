//! The master's core without any edge: what one allocation over everything takes of a core.

use std::collections::BTreeMap;
use std::time::Duration;

use base::Timestamp;
use master::{Config, Effect, Input, LinkId, Master, Register, Registry, ReplySlot};
use mesos::FrameworkId;
use mesos_proto::v1;
use mesos_proto::v1::scheduler::{Call, call};

use crate::number::{Target, Times, tell};
use crate::{Flags, agent, framework};

const AGENT: &str = "cpus:24;mem:65536;disk:1000000;ports:[31000-32000]";
const ROUNDS: usize = 5;

struct Core {
    master: Master,
    now: Timestamp,
    offers: Vec<(FrameworkId, v1::OfferId)>,
    out: Vec<Effect>,
}

impl Core {
    fn step(&mut self, input: Input) {
        self.master.step(self.now, input, &mut self.out);
        let mut stored = Vec::new();
        for effect in self.out.drain(..) {
            match effect {
                Effect::Event { event, .. } => {
                    let offers = event.offers.into_iter().flat_map(|it| it.offers);
                    self.offers.extend(offers.map(|it| ((&it.framework_id).into(), it.id)));
                }
                Effect::Persist { write, .. } => stored.push(write),
                _ => {}
            }
        }
        stored.into_iter().for_each(|write| self.step(Input::Stored { write }));
    }

    fn decline(&mut self) {
        let mut by_framework: BTreeMap<FrameworkId, Vec<v1::OfferId>> = BTreeMap::new();
        for (framework, offer) in std::mem::take(&mut self.offers) {
            by_framework.entry(framework).or_default().push(offer);
        }
        for (framework, offer_ids) in by_framework {
            let decline = call::Decline { offer_ids, filters: Some(v1::Filters { refuse_seconds: Some(0.0) }) };
            let call = Call {
                framework_id: Some(framework.to_proto()),
                r#type: Some(call::Type::Decline.into()),
                decline: Some(decline),
                ..Call::default()
            };
            let stream = Some(framework.as_str().into());
            self.step(Input::Call { reply: ReplySlot(0), stream, principal: None, call: Box::new(call) });
        }
    }
}

/// Time of the core, not of the wall: other programs do not count.
fn cpu_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

pub(crate) fn run(flags: &Flags) {
    let (agents, frameworks) = (flags.scaled(10_000), flags.scaled(1_000));
    let info = v1::MasterInfo { id: "m".to_owned(), ..v1::MasterInfo::default() };
    let now = Timestamp::from_unix_millis(1_700_000_000_000);
    let config = Config { agent_ping_timeout: Duration::from_secs(1_000_000), ..Config::new(info, 1) };
    let mut core = Core { master: Master::new(config, Registry::default(), now), now, offers: Vec::new(), out: Vec::new() };
    for at in 0..agents {
        let resources = agent::resources(AGENT);
        let register = Register {
            info: v1::AgentInfo { hostname: format!("host{at}"), resources: resources.clone(), ..v1::AgentInfo::default() },
            pid: format!("slave(1)@10.{}.{}.{}:5051", at >> 16, at >> 8 & 255, at & 255),
            version: "1.11.0".to_owned(),
            total_resources: resources,
            ..Register::default()
        };
        core.step(Input::Register { link: LinkId(u64::from(at)), register: Box::new(register) });
    }
    for at in 0..frameworks as usize {
        let id = format!("f-{at:05}");
        let framework_info = v1::FrameworkInfo { id: Some(v1::FrameworkId { value: id.clone() }), ..framework::info(at, "role0") };
        let subscribe = call::Subscribe { framework_info, ..call::Subscribe::default() };
        core.step(Input::Subscribe { stream: id.as_str().into(), principal: None, subscribe: Box::new(subscribe) });
    }
    let mut times = Times::default();
    for round in 0..=ROUNDS {
        core.now = core.now + Duration::from_secs(1);
        let begun = cpu_time();
        core.step(Input::Tick);
        let took = cpu_time().saturating_sub(begun);
        eprintln!("allocation {round}: {took:?} for {} offers", core.offers.len());
        if round > 0 {
            times.add(took);
        }
        core.decline();
    }
    let what =
        format!("core: one allocation over {agents} agents, {frameworks} frameworks in one role, with its events, slowest of {ROUNDS}");
    tell(&what, times.percentile(1.0), "ms", Target::Under(100.0), "Mesos 1.7 and 1.8: 1.5 and 1.1 s");
}
