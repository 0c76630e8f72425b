//! How much of the cluster is in use while there is more to do than fits: tasks of four sizes that end at random, 1,000 agents, 50 frameworks.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use mesos_proto::v1;
use mesos_proto::v1::scheduler::Event;
use tokio::task::LocalSet;

use crate::agent::{self, Agent, Running, Watcher};
use crate::control;
use crate::framework::{self, Framework, Scheduler, amount};
use crate::number::{Target, tell};
use crate::random::Random;
use crate::{Flags, scenes};

const AGENT: &str = "cpus:8;mem:32768";
/// Processors of a framework's tasks, by its number; memory is four times as many GB.
const SIZES: [f64; 4] = [0.5, 1.0, 2.0, 4.0];
/// How long tasks last on average.
const MEAN: f64 = 30.0;

struct State {
    agents: RefCell<Vec<Agent>>,
    random: RefCell<Random>,
    launched: RefCell<u64>,
    tasks: [Vec<v1::Resource>; 4],
}

#[derive(Clone)]
struct Eager(Rc<State>);

impl Watcher for Eager {
    fn runs(&self, task: Running) {
        let life = -MEAN * (1.0 - self.0.random.borrow_mut().unit()).ln();
        let state = self.0.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_secs_f64(life)).await;
            if let Some(agent) = state.agents.borrow().get(task.agent).cloned() {
                agent.finish(task);
            }
        });
    }
}

impl Scheduler for Eager {
    fn on(&self, framework: &Framework, event: Event) {
        let kind = framework.number % SIZES.len();
        for offer in event.offers.into_iter().flat_map(|it| it.offers) {
            let (cpus, mem) = (amount(&offer.resources, "cpus"), amount(&offer.resources, "mem"));
            let fitting = ((cpus + 1e-9) / SIZES[kind]).min((mem + 1e-9) / (SIZES[kind] * 4_096.0));
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few, and not negative")]
            let fitting = fitting as usize;
            if fitting == 0 {
                framework.decline(&offer, 5.0);
                continue;
            }
            let tasks = (0..fitting).map(|_| {
                *self.0.launched.borrow_mut() += 1;
                framework::task(format!("t{}", self.0.launched.borrow()), &offer, self.0.tasks[kind].clone())
            });
            framework.accept(&offer, tasks.collect(), 5.0);
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
    let (count, frameworks) = (flags.scaled(1_000), flags.scaled(50).max(4));
    let tasks = SIZES.map(|cpus| agent::resources(&format!("cpus:{cpus};mem:{}", cpus * 4_096.0)));
    let state =
        Eager(Rc::new(State { agents: RefCell::default(), random: RefCell::new(Random::new(2)), launched: RefCell::new(0), tasks }));
    let agents = scenes::agents(control.addresses.grpc, count, AGENT, Rc::new(state.clone())).await?;
    *state.0.agents.borrow_mut() = agents;
    let scheduler: Rc<dyn Scheduler> = Rc::new(state.clone());
    let _frameworks = scenes::frameworks(control.addresses.mesos, frameworks, 10, &scheduler).await?;
    // Until what began together has ended apart.
    tokio::time::sleep(Duration::from_secs(flags.seconds)).await;
    let mut sum = 0.0;
    for _ in 0..flags.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        sum += control::metric(control.addresses.mesos, "master/cpus_percent").await? * 100.0;
    }
    let launched = *state.0.launched.borrow();
    let what = format!("utilization: {count} agents, {frameworks} frameworks, tasks of 0.5 to 4 cpus, {launched} launched");
    tell(&what, sum / flags.seconds as f64, "%", Target::AtLeast(95.0), "");
    Ok(())
}
