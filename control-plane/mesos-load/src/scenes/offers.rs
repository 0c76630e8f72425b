//! From resources that come to be free, or are new, to the offer on a framework's stream.
//!
//! Every framework takes each offer whole, with one task. When the cluster is full, tasks of agents drawn by lot end, at a steady rate.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use mesos_proto::v1::scheduler::Event;
use tokio::task::LocalSet;

use crate::agent::{self, Introduction, Running, Watcher};
use crate::control;
use crate::framework::{self, Framework, Scheduler};
use crate::number::{Target, Times, tell};
use crate::random::Random;
use crate::{Flags, scenes};

const AGENT: &str = "cpus:4;mem:16384;disk:100000;ports:[31000-32000]";
/// Tasks that end in a second.
const ENDS: u64 = 200;
/// Agents that are added once everything is in use.
const NEW: u32 = 100;

#[derive(Default)]
struct State {
    running: Vec<Running>,
    /// When an agent's resources came to be free.
    freed: HashMap<String, Instant>,
    /// When an agent was offered first.
    first_offered: HashMap<String, Instant>,
    times: Times,
    launched: u64,
}

#[derive(Clone, Default)]
struct Whole(Rc<RefCell<State>>);

impl Watcher for Whole {
    fn runs(&self, task: Running) {
        self.0.borrow_mut().running.push(task);
    }
}

impl Scheduler for Whole {
    fn on(&self, framework: &Framework, event: Event) {
        let now = Instant::now();
        for offer in event.offers.into_iter().flat_map(|it| it.offers) {
            let mut state = self.0.borrow_mut();
            if let Some(freed) = state.freed.remove(&offer.agent_id.value) {
                state.times.add(now - freed);
            }
            state.first_offered.entry(offer.agent_id.value.clone()).or_insert(now);
            state.launched += 1;
            let task = framework::task(format!("t{}", state.launched), &offer, offer.resources.clone());
            framework.accept(&offer, vec![task], 0.0);
        }
        if let Some(status) = event.update.map(|it| it.status) {
            framework.acknowledge(&status);
        }
    }
}

pub(crate) async fn run(flags: &Flags) -> Result<()> {
    LocalSet::new().run_until(measure(flags)).await
}

async fn measure(flags: &Flags) -> Result<()> {
    let (_directory, control) = control::fresh(&flags.control, &[]).await?;
    let state = Whole::default();
    let scheduler: Rc<dyn Scheduler> = Rc::new(state.clone());
    let (count, frameworks) = (flags.scaled(5_000), flags.scaled(200));
    let _frameworks = scenes::frameworks(control.addresses.mesos, frameworks, 20, &scheduler).await?;
    let agents = scenes::agents(control.addresses.grpc, count, AGENT, Rc::new(state.clone())).await?;
    while state.0.borrow().running.len() < agents.len() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eprintln!("{count} agents are in use");
    tokio::time::sleep(Duration::from_secs(2)).await;

    let mut random = Random::new(1);
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / ENDS));
    let (begun, cpu) = (Instant::now(), control.cpu());
    for _ in 0..ENDS * flags.seconds {
        pace.tick().await;
        let mut state = state.0.borrow_mut();
        if state.running.is_empty() {
            continue;
        }
        let at = random.below(state.running.len());
        let task = state.running.swap_remove(at);
        let agent = &agents[task.agent];
        state.freed.insert(agent.id.clone(), Instant::now());
        agent.finish(task);
    }
    let busy = (control.cpu() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (mut times, lost) = {
        let mut state = state.0.borrow_mut();
        (std::mem::take(&mut state.times), state.freed.len())
    };
    let what = format!("offers: {count} agents, {frameworks} frameworks, {ENDS} ends/s: freed -> offer");
    tell(&format!("{what}, p50"), times.percentile(0.5), "ms", Target::Stated, "");
    tell(&format!("{what}, p99"), times.percentile(0.99), "ms", Target::Under(20.0), "Mesos: at its allocation interval, 1 s");
    tell("offers: freed and not offered again", lost as f64, "", Target::Exactly(0.0), "");
    tell("offers: the control plane's processor time, of a core", busy * 100.0, "%", Target::Stated, "");

    let mut times = Times::default();
    for number in 0..flags.scaled(NEW) as usize {
        let introduction = Introduction { resources: agent::resources(AGENT), id: None, frameworks: Vec::new(), tasks: Vec::new() };
        let agent = agent::start(control.addresses.grpc, agents.len() + number, &introduction, Rc::new(agent::Nobody)).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Some(offered) = state.0.borrow().first_offered.get(&agent.id) {
            times.add(offered.saturating_duration_since(agent.registered));
        }
    }
    let missing = flags.scaled(NEW) as usize - times.len();
    tell("offers: new agent registered -> offer, p99", times.percentile(0.99), "ms", Target::Under(20.0), "");
    tell("offers: new agents not offered within 50 ms", missing as f64, "", Target::Exactly(0.0), "");
    Ok(())
}
