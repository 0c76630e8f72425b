//! Real containers on a real agent: from ACCEPT to TASK_RUNNING, one after another.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mesos_proto::v1;
use mesos_proto::v1::scheduler::{Event, call};
use tokio::task::LocalSet;

use crate::control::{self, RealAgent};
use crate::framework::{self, Framework, Scheduler, amount};
use crate::number::{Target, Times, tell};
use crate::{Flags, agent};

/// Containers that are started.
const COUNT: u32 = 40;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(180);

struct State {
    image: Option<String>,
    left: Cell<u32>,
    under_way: RefCell<Option<(String, Instant)>>,
    running: Cell<u32>,
    times: RefCell<Times>,
    problem: RefCell<Option<String>>,
}

struct OneByOne(Rc<State>);

impl OneByOne {
    fn task(&self, id: String, offer: &v1::Offer) -> v1::TaskInfo {
        let mut task = framework::task(id, offer, agent::resources("cpus:0.01;mem:32"));
        if let Some(image) = &self.0.image {
            let docker = v1::container_info::DockerInfo { image: image.clone(), ..v1::container_info::DockerInfo::default() };
            task.container = Some(v1::ContainerInfo {
                r#type: v1::container_info::Type::Docker.into(),
                docker: Some(docker),
                ..v1::ContainerInfo::default()
            });
        }
        task
    }
}

impl Scheduler for OneByOne {
    fn on(&self, framework: &Framework, event: Event) {
        let state = &self.0;
        for offer in event.offers.into_iter().flat_map(|it| it.offers) {
            let fits = amount(&offer.resources, "cpus") >= 0.01 && amount(&offer.resources, "mem") >= 32.0;
            if fits && state.left.get() > 0 && state.under_way.borrow().is_none() {
                state.left.set(state.left.get() - 1);
                let id = format!("load.{}.{}", std::process::id(), state.left.get());
                *state.under_way.borrow_mut() = Some((id.clone(), Instant::now()));
                framework.accept(&offer, vec![self.task(id, &offer)], 0.0);
            } else {
                framework.decline(&offer, 0.0);
            }
        }
        let Some(status) = event.update.map(|it| it.status) else { return };
        framework.acknowledge(&status);
        let is_awaited = state.under_way.borrow().as_ref().is_some_and(|(id, _)| *id == status.task_id.value);
        match status.state() {
            v1::TaskState::TaskRunning if is_awaited => {
                if let Some((_, begun)) = state.under_way.borrow_mut().take() {
                    state.times.borrow_mut().add(begun.elapsed());
                }
                let kill = call::Kill { task_id: status.task_id, agent_id: status.agent_id, kill_policy: None };
                framework.call(call::Type::Kill, |it| it.kill = Some(kill));
            }
            v1::TaskState::TaskStarting | v1::TaskState::TaskStaging | v1::TaskState::TaskRunning | v1::TaskState::TaskKilling => {}
            v1::TaskState::TaskKilled => state.running.set(state.running.get() + 1),
            other => *state.problem.borrow_mut() = Some(format!("{}: {other:?}: {}", status.task_id.value, status.message())),
        }
    }
}

pub(crate) async fn run(flags: &Flags) -> Result<()> {
    LocalSet::new().run_until(measure(flags)).await
}

async fn measure(flags: &Flags) -> Result<()> {
    let (directory, control) = control::fresh(&flags.control, &[]).await?;
    let _agent = RealAgent::start(&flags.probe, directory.path(), control.addresses.grpc)?;
    let count = flags.scaled(COUNT);
    let state = Rc::new(State {
        image: flags.image.clone(),
        left: Cell::new(count),
        under_way: RefCell::default(),
        running: Cell::new(0),
        times: RefCell::default(),
        problem: RefCell::default(),
    });
    let mut info = framework::info(0, "*");
    info.failover_timeout = Some(0.0);
    let framework = framework::start(control.addresses.mesos, 0, &info, Rc::new(OneByOne(state.clone()))).await?;
    let begun = Instant::now();
    while state.running.get() < count {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Some(problem) = state.problem.borrow_mut().take() {
            bail!("{problem}");
        }
        if begun.elapsed() > PATIENCE {
            bail!("{} of {count} containers have come and gone", state.running.get());
        }
    }
    framework.call(call::Type::Teardown, |_| {});
    tokio::time::sleep(Duration::from_millis(200)).await;
    let kind = if flags.image.is_some() { "Docker" } else { "plain commands" };
    let mut times = std::mem::take(&mut *state.times.borrow_mut());
    let beside = "Mesos 1.7: 1,000 in about 30 s, all at once";
    tell(&format!("containers: {kind}, ACCEPT -> TASK_RUNNING, p50"), times.percentile(0.5), "ms", Target::Stated, "");
    tell(&format!("containers: {kind}, ACCEPT -> TASK_RUNNING, p95"), times.percentile(0.95), "ms", Target::Under(1_000.0), beside);
    Ok(())
}
