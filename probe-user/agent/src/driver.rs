//! The loop that owns the table: takes inputs, stores what changed, then does what follows. In this order, always.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mesos_proto::v1::{AgentInfo, TaskState, TaskStatus, task_status};
use prost::Message as _;
use proto::agent::v1 as wire;
use proto::agent::v1::agent_message::Body;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::checker::Checker;
use crate::containers::Containers;
use crate::executors::Executors;
use crate::gc::Collector;
use crate::ledger::{Consequence, Ledger};
use crate::link::Signals;
use crate::sandbox::{self, Disk, PersistentVolume};
use crate::store::{Store, StoreError};
use crate::table::{Effect, Input, Step, Table};
use crate::words::{ContainerKey, Now, SystemIds};

mod ask;

pub use ask::{Ask, Handle, Inbox, MasterAsk, Stopping, View, channel};

/// Inputs that are taken together, stored in one commit.
const BATCH_MAX: usize = 64;

/// How often it is looked whether statuses of operations are to be sent again.
const OPERATIONS_WATCH: Duration = Duration::from_secs(1);

/// What follows from something that came.
enum Due {
    Step(Step),
    Consequence(Consequence),
}

/// What becomes of a message to the master that finds no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Importance {
    /// It is dropped, as frameworks expect of such messages.
    BestEffort,
    /// It is sent again, some time.
    SentAgain,
    /// Nobody sends it again.
    Once,
}

impl Importance {
    /// How much room there must be, of this much. The rest is for what is more important.
    const fn leaves_free(self, room: usize) -> usize {
        match self {
            Importance::BestEffort => room / 2 + 1,
            Importance::SentAgain => room / 4 + 1,
            Importance::Once => 1,
        }
    }
}

/// Everything that the driver drives.
#[derive(Debug)]
pub struct Driver {
    /// All that runs.
    pub table: Table,
    /// The resources.
    pub ledger: Ledger,
    /// What is remembered.
    pub store: Arc<Store>,
    /// Where containers are made.
    pub containers: Containers,
    /// Where tasks are checked.
    pub checker: Checker,
    /// Streams of executors.
    pub executors: Executors,
    /// Where sandboxes go.
    pub collector: Collector,
    /// To the master. What finds no room is sent again, if it has to arrive, or said by a new registration.
    pub outbox: mpsc::Sender<wire::AgentMessage>,
    /// What the link is told beside messages.
    pub signals: Arc<Signals>,
    /// Who this agent is.
    pub agent: AgentInfo,
    /// The process's own clock began here.
    pub begun: Instant,
    /// Set when everything has ended as it was wanted.
    pub is_over: bool,
}

/// Why a driver ended that could store everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The agent stops. What it remembers is there for the next start.
    Stopping,
    /// The agent is not wanted here, or is to leave: everything has ended, and nothing of it is remembered.
    Unwanted,
}

/// The name of the resources among the stored facts.
pub const LEDGER_FACT: &str = "ledger";

impl Driver {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Now { wall, steady: self.begun.elapsed() }
    }

    /// Runs until the agent stops, or is over. `recovered` is what the table wants done after recovery.
    ///
    /// # Errors
    /// When something cannot be stored: nothing is promised any more then.
    pub async fn run(mut self, mut inbox: Inbox, recovered: Vec<Effect>, stopping: CancellationToken) -> Result<Ended, StoreError> {
        let mut master_hostname: Option<String> = None;
        for effect in recovered {
            self.perform(effect).await;
        }
        let mut operations = tokio::time::interval(OPERATIONS_WATCH);
        loop {
            let mut asks = Vec::new();
            let mut inputs = Vec::new();
            let deadline = self.table.next_deadline();
            let begun = self.begun;
            let alarm = async move {
                match deadline {
                    Some(at) => tokio::time::sleep_until((begun + at).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stopping.cancelled() => return Ok(Ended::Stopping),
                input = inbox.inputs.recv() => inputs.extend(input),
                ask = inbox.asks.recv() => asks.extend(ask),
                () = alarm => inputs.push(Input::Tick),
                _ = operations.tick() => {
                    let now = self.now();
                    let due = self.ledger.due(now);
                    for update in due {
                        self.send(Body::OperationStatusUpdate(update));
                    }
                    continue;
                }
            }
            while inputs.len() + asks.len() < BATCH_MAX {
                match (inbox.inputs.try_recv(), inbox.asks.try_recv()) {
                    (Err(_), Err(_)) => break,
                    (input, ask) => {
                        inputs.extend(input.ok());
                        asks.extend(ask.ok());
                    }
                }
            }
            self.turn(inputs, asks, &mut master_hostname).await?;
            if self.is_over {
                self.forget().await?;
                return Ok(Ended::Unwanted);
            }
        }
    }

    /// As Mesos's agent removes the link to its latest state when it is shut down: the next one registers as a new agent. Reservations and volumes are
    /// the machine's and stay, as they do there.
    async fn forget(&self) -> Result<(), StoreError> {
        let (store, ledger) = (self.store.clone(), self.ledger.for_next_agent());
        let forgotten = tokio::task::spawn_blocking(move || store.forget(&[(LEDGER_FACT, ledger)])).await;
        forgotten.unwrap_or_else(|_| Err(std::io::Error::other("storing failed").into()))
    }

    /// One batch: steps, one commit, effects, answers.
    async fn turn(&mut self, inputs: Vec<Input>, asks: Vec<Ask>, master_hostname: &mut Option<String>) -> Result<(), StoreError> {
        let now = self.now();
        // What follows, in the order of what it follows from: a volume is removed before a launch that came later makes it anew.
        let mut due = Vec::new();
        let mut answers = Vec::new();
        let mut looks = Vec::new();
        let mut ledger_changed = false;
        for input in inputs {
            // It has opened another stream meanwhile, and what it says there may be here already.
            if matches!(&input, Input::Unsubscribed(executor) if self.executors.is_open(executor)) {
                continue;
            }
            due.push(Due::Step(self.table.step(now, input)));
        }
        for ask in asks {
            match ask {
                Ask::Input(input, answer) => {
                    let step = self.table.step(now, input);
                    answers.push((answer, step.refusal));
                    due.push(Due::Step(step));
                }
                Ask::Look(look) => looks.push(look),
                Ask::Master(MasterAsk::Input(input)) => due.push(Due::Step(self.table.step(now, input))),
                Ask::Master(MasterAsk::Run(mut run, version)) => {
                    if !version.is_empty() && version != self.ledger.version() {
                        let problem = "The resources of the agent have changed since the offer".to_owned();
                        run.refused = Some((task_status::Reason::InvalidOffers, problem));
                    }
                    due.push(Due::Step(self.table.step(now, Input::Run(run))));
                }
                Ask::Master(MasterAsk::Apply(request)) => {
                    due.extend(self.ledger.apply(now, &request, &mut SystemIds).into_iter().map(Due::Consequence));
                    ledger_changed = true;
                }
                Ask::Master(MasterAsk::Acknowledge(it)) => {
                    ledger_changed |= self.ledger.acknowledge(&it.operation_uuid, &it.status_uuid);
                }
                Ask::Master(MasterAsk::Reconcile(it)) => {
                    let answers = self.ledger.reconcile(&it.operation_uuids);
                    due.extend(answers.into_iter().map(|it| Due::Consequence(Consequence::Send(Box::new(it)))));
                }
                Ask::Master(MasterAsk::Registered(it)) => {
                    self.agent.id = Some(mesos_proto::v1::AgentId { value: it.agent_id.clone() });
                    self.ledger.set_agent_id(&it.agent_id);
                    *master_hostname = Some(it.master_hostname).filter(|it| !it.is_empty());
                    ledger_changed = true;
                    let updates_in_flight = if it.updates_in_flight_max == 0 { 1024 } else { it.updates_in_flight_max as usize };
                    due.push(Due::Step(self.table.step(now, Input::Registered { agent_id: it.agent_id, updates_in_flight })));
                }
            }
        }
        self.store(&mut due, ledger_changed).await?;
        for due in due {
            match due {
                Due::Step(step) => {
                    for effect in step.effects {
                        self.perform(effect).await;
                    }
                }
                Due::Consequence(Consequence::Send(it)) => self.send(Body::OperationStatusUpdate(*it)),
                Due::Consequence(Consequence::RemoveVolume(volume)) => self.remove_volume(volume).await,
            }
        }
        // Whoever asked hears after it was stored.
        for (answer, refusal) in answers {
            let _ = answer.send(refusal);
        }
        for look in looks {
            look(&View { table: &self.table, ledger: &self.ledger, agent: &self.agent, master_hostname: master_hostname.as_deref() });
        }
        Ok(())
    }

    async fn store(&self, due: &mut [Due], ledger_changed: bool) -> Result<(), StoreError> {
        let of_step = |it: &mut Due| if let Due::Step(step) = it { std::mem::take(&mut step.records) } else { Vec::new() };
        let records: Vec<_> = due.iter_mut().flat_map(of_step).collect();
        if records.is_empty() && !ledger_changed {
            return Ok(());
        }
        let facts = if ledger_changed { vec![(LEDGER_FACT, self.ledger.stored())] } else { Vec::new() };
        let store = self.store.clone();
        let committed = tokio::task::spawn_blocking(move || store.commit(&records, &facts)).await;
        committed.unwrap_or_else(|_| Err(std::io::Error::other("storing failed").into()))
    }

    async fn perform(&mut self, effect: Effect) {
        let agent_id = self.table.agent_id().to_owned();
        match effect {
            Effect::Launch(launch) => self.containers.launch(&agent_id, *launch),
            Effect::Reattach(launch) => self.containers.reattach(&agent_id, *launch),
            Effect::Terminate { container, grace } => self.containers.terminate(&container, grace),
            Effect::Destroy(container) => self.containers.destroy(&container),
            Effect::Resize { container, allowance } => self.containers.resize(&container, allowance),
            Effect::SendUpdate { task, executor, status, latest } => self.send_update(&task.framework, executor, &status, latest),
            Effect::SendExecutorExited { executor, status } => self.send(Body::ExecutorExited(wire::ExecutorExited {
                framework_id: executor.framework,
                executor_id: executor.executor,
                status,
            })),
            Effect::SendMessage { executor, data } => self.send(Body::ExecutorMessage(wire::ExecutorMessage {
                framework_id: executor.framework,
                executor_id: executor.executor,
                data,
            })),
            Effect::TellExecutor { executor, event } => self.executors.tell(&executor, *event, &self.agent),
            Effect::CloseExecutor(executor) => self.executors.close(&executor),
            Effect::StartChecks { task, container, info } => self.checker.start(&task, &container, &info),
            Effect::StopChecks(task) => self.checker.stop(&task),
            Effect::CollectSandbox(container) => self.collect(&container),
            Effect::AgentEmpty => {
                self.is_over = true;
                self.signals.over.store(true, Ordering::Release);
            }
        }
    }

    fn collect(&self, container: &ContainerKey) {
        if let Some(handle) = self.containers.get(container)
            && container.parent().is_none()
        {
            self.collector.schedule(handle.sandbox().to_owned(), SystemTime::now());
        }
        self.containers.forget(container);
    }

    fn send_update(&mut self, framework: &str, executor: String, status: &TaskStatus, latest: TaskState) {
        let is_sent_again = status.uuid.is_some();
        let body = Body::StatusUpdate(wire::StatusUpdate {
            framework_id: framework.to_owned(),
            executor_id: executor,
            status: status.encode_to_vec(),
            latest_state: latest as i32,
        });
        self.send_as(body, if is_sent_again { Importance::SentAgain } else { Importance::Once });
    }

    fn send(&mut self, body: Body) {
        let importance = match &body {
            Body::ExecutorMessage(_) => Importance::BestEffort,
            Body::OperationStatusUpdate(_) => Importance::SentAgain,
            _ => Importance::Once,
        };
        self.send_as(body, importance);
    }

    fn send_as(&mut self, body: Body, importance: Importance) {
        if self.outbox.capacity() >= importance.leaves_free(self.outbox.max_capacity()) {
            // The link numbers what it has received.
            let message = wire::AgentMessage { body: Some(body), received_through: 0 };
            if self.outbox.try_send(message).is_ok() {
                return;
            }
        }
        match importance {
            Importance::BestEffort => {
                self.table.count_lost_message();
                tracing::warn!("the master takes too little: a message of an executor is dropped");
            }
            Importance::SentAgain => tracing::debug!("no room for a message to the master, which is sent again"),
            Importance::Once => {
                tracing::warn!("no room for a message to the master that is not sent again: the agent registers anew, which says it all");
                self.signals.lost.notify_one();
            }
        }
    }

    async fn remove_volume(&self, volume: PersistentVolume) {
        let path = self.containers.layout().volume(&volume);
        let removed = tokio::task::spawn_blocking(move || match volume.disk {
            Disk::Mount(_) => sandbox::empty(&path),
            Disk::Root | Disk::Path(_) => std::fs::remove_dir_all(path),
        });
        let removed = removed.await;
        if let Ok(Err(error)) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "a destroyed volume cannot be removed");
        }
    }
}
