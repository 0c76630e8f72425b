//! From ACCEPT to the acknowledgement of TASK_RUNNING, as many as the master takes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use mesos_proto::v1;
use mesos_proto::v1::scheduler::Event;
use tokio::task::LocalSet;

use crate::agent::{self, Agent, Running, Watcher};
use crate::control;
use crate::framework::{self, Framework, Scheduler};
use crate::number::{Target, Times, tell};
use crate::{Flags, scenes};

const AGENT: &str = "cpus:1000;mem:1000000";
const TASK: &str = "cpus:0.1;mem:1";
/// Tasks in one ACCEPT: an agent is offered once a second, so that this bounds what can be launched, at 15,000 a second.
const IN_ACCEPT: usize = 30;
/// Tasks of a framework that are launched and do not run yet.
const UNDER_WAY: usize = 180;

struct State {
    agents: RefCell<Vec<Agent>>,
    /// Offers that wait until there is room, by framework.
    held: RefCell<HashMap<usize, Vec<v1::Offer>>>,
    under_way: RefCell<HashMap<usize, usize>>,
    accepted: RefCell<HashMap<String, Instant>>,
    times: RefCell<Times>,
    launched: Cell<u64>,
    acknowledged: Cell<u64>,
    task: Vec<v1::Resource>,
    /// Tasks end as soon as they run.
    ends: Cell<bool>,
    stops: Cell<bool>,
}

#[derive(Clone)]
struct Busy(Rc<State>);

impl Watcher for Busy {
    fn runs(&self, _: Running) {}

    fn acknowledged(&self, task: Running) {
        self.0.acknowledged.set(self.0.acknowledged.get() + 1);
        if self.0.ends.get()
            && let Some(agent) = self.0.agents.borrow().get(task.agent)
        {
            agent.finish(task);
        }
    }
}

impl Busy {
    fn use_offer(&self, framework: &Framework, offer: &v1::Offer) {
        let state = &self.0;
        let now = Instant::now();
        // What one task left may be offered alone.
        let (offered, each) = (framework::amount(&offer.resources, "cpus"), framework::amount(&state.task, "cpus"));
        let count = (1..=IN_ACCEPT).take_while(|count| *count as f64 * each <= offered + 1e-6).count();
        if count == 0 {
            return framework.decline(offer, 0.0);
        }
        let tasks = (0..count).map(|_| {
            state.launched.set(state.launched.get() + 1);
            let id = format!("t{}", state.launched.get());
            state.accepted.borrow_mut().insert(id.clone(), now);
            framework::task(id, offer, state.task.clone())
        });
        framework.accept(offer, tasks.collect(), 0.0);
        *state.under_way.borrow_mut().entry(framework.number).or_default() += count;
    }

    fn has_room(&self, framework: &Framework) -> bool {
        !self.0.stops.get() && self.0.under_way.borrow().get(&framework.number).copied().unwrap_or(0) + IN_ACCEPT <= UNDER_WAY
    }
}

impl Scheduler for Busy {
    fn on(&self, framework: &Framework, event: Event) {
        for offer in event.offers.into_iter().flat_map(|it| it.offers) {
            if self.has_room(framework) {
                self.use_offer(framework, &offer);
            } else {
                self.0.held.borrow_mut().entry(framework.number).or_default().push(offer);
            }
        }
        let Some(status) = event.update.map(|it| it.status) else { return };
        framework.acknowledge(&status);
        if status.state() != v1::TaskState::TaskRunning {
            return;
        }
        if let Some(accepted) = self.0.accepted.borrow_mut().remove(&status.task_id.value) {
            self.0.times.borrow_mut().add(accepted.elapsed());
        }
        if let Some(under_way) = self.0.under_way.borrow_mut().get_mut(&framework.number) {
            *under_way = under_way.saturating_sub(1);
        }
        if self.has_room(framework) {
            let held = self.0.held.borrow_mut().get_mut(&framework.number).and_then(Vec::pop);
            if let Some(offer) = held {
                self.use_offer(framework, &offer);
            }
        }
    }
}

pub(crate) async fn run(flags: &Flags) -> Result<()> {
    LocalSet::new().run_until(measure(flags)).await
}

async fn measure(flags: &Flags) -> Result<()> {
    for ends in [false, true] {
        let (_directory, control) = control::fresh(&flags.control, &[]).await?;
        let state = Busy(Rc::new(State {
            agents: RefCell::default(),
            held: RefCell::default(),
            under_way: RefCell::default(),
            accepted: RefCell::default(),
            times: RefCell::default(),
            launched: Cell::new(0),
            acknowledged: Cell::new(0),
            task: agent::resources(TASK),
            ends: Cell::new(ends),
            stops: Cell::new(false),
        }));
        let (count, frameworks) = (flags.scaled(500), flags.scaled(100));
        let agents = scenes::agents(control.addresses.grpc, count, AGENT, Rc::new(state.clone())).await?;
        *state.0.agents.borrow_mut() = agents;
        let scheduler: Rc<dyn Scheduler> = Rc::new(state.clone());
        let _frameworks = scenes::frameworks(control.addresses.mesos, frameworks, 10, &scheduler).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        *state.0.times.borrow_mut() = Times::default();
        let (begun, cpu, before) = (Instant::now(), control.cpu(), state.0.acknowledged.get());
        tokio::time::sleep(Duration::from_secs(flags.seconds)).await;
        let (took, cpu) = (begun.elapsed().as_secs_f64(), (control.cpu() - cpu).as_secs_f64());
        let done = (state.0.acknowledged.get() - before) as f64;
        let mut times = std::mem::take(&mut *state.0.times.borrow_mut());
        let how = if ends { ", each ending at once" } else { "" };
        let what = format!("launch: {count} agents, {frameworks} frameworks{how}");
        let target = if ends { Target::Stated } else { Target::AtLeast(10_000.0) };
        tell(&format!("{what}: ACCEPT -> RUNNING acknowledged"), done / took, "/s", target, "no figure of Mesos is published");
        tell(&format!("{what}: ACCEPT -> RUNNING at the framework, p99"), times.percentile(0.99), "ms", Target::Stated, "");
        tell(&format!("{what}: the control plane's processor time for a task"), cpu / done * 1e6, "us", Target::Stated, "");

        // What was launched does run: nothing is lost on the way.
        state.0.stops.set(true);
        let begun = Instant::now();
        while !state.0.accepted.borrow().is_empty() && begun.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tell(&format!("{what}: tasks that did not run"), state.0.accepted.borrow().len() as f64, "", Target::Exactly(0.0), "");
    }
    Ok(())
}
