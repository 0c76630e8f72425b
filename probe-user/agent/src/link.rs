//! The agent's end of the stream to the master: connects, registers, passes commands on and messages out, and begins again when it breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use mesos_proto::v1::{AgentId, ExecutorId, FrameworkId, FrameworkInfo, KillPolicy, Task, TaskGroupInfo, TaskInfo, TaskState, agent_info};
use probe_endpoint::ControlPlane;
use prost::Message as _;
use proto::agent::v1 as wire;
use proto::agent::v1::agent_message::Body as Ours;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use proto::agent::v1::master_message::Body as Theirs;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::driver::{Handle, MasterAsk, Stopping};
use crate::table::{Drain, Input, Run};
use crate::words::{ExecutorKey, SystemIds, TaskKey, nanoseconds};

mod end;
mod pauses;
mod registration;

#[cfg(test)]
mod tests;

use end::{End, Problem, refused};
use pauses::{Attempt, Pauses};

/// Mesos version whose semantics the agent has. Clients read it as numbers.
pub const VERSION: &str = "1.11.0";

/// Messages that wait for the stream.
pub const OUTBOX_MAX: usize = 4096;

/// Longest pause before registering again with who does not want the agent.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How long a master may take to answer a registration.
const REGISTERED_WITHIN: Duration = Duration::from_secs(30);

/// How long a master may take to hear that the agent leaves.
const UNREGISTERED_WITHIN: Duration = Duration::from_secs(5);

/// A stream that is silent for this many ping intervals is dead.
const SILENT_PINGS: u32 = 5;

/// Commands are acknowledged at least this often.
const ACKNOWLEDGE_EVERY: u64 = 32;

/// How the link is, for others to see.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether the master has this agent.
    pub registered: Arc<AtomicBool>,
}

/// What the loop that owns the table tells its link beside messages.
#[derive(Debug, Default)]
pub struct Signals {
    /// Something found no room in the outbox that is not sent again: only a new registration says it then.
    pub lost: Notify,
    /// Everything has ended as it was wanted.
    pub over: AtomicBool,
}

/// The agent's end of the stream to the master.
#[derive(Clone, Debug)]
pub struct Link {
    /// Settings.
    pub config: Arc<Config>,
    /// The loop that owns the table.
    pub driver: Handle,
    /// Told how the link is.
    pub status: Status,
    /// Of this run of the machine.
    pub boot_id: String,
    /// What the loop that owns the table says beside its messages.
    pub signals: Arc<Signals>,
}

impl Link {
    /// Runs until the agent stops or is over. Registers after some part of `first_pause`.
    pub async fn run(self, mut outbox: mpsc::Receiver<wire::AgentMessage>, first_pause: Duration, stopping: CancellationToken) {
        tokio::select! {
            () = self.keep(&mut outbox, first_pause) => {}
            () = stopping.cancelled() => {
                self.status.registered.store(false, Ordering::Relaxed);
                let _ = self.driver.master(MasterAsk::Input(Input::Disconnected)).await;
            }
        }
    }

    async fn keep(&self, outbox: &mut mpsc::Receiver<wire::AgentMessage>, first_pause: Duration) {
        sleep(some_part_of(first_pause)).await;
        let mut pauses = Pauses::new(self.config.registration_backoff_factor, self.config.master.split(',').count());
        let mut masters = self.config.master.split(',').map(str::trim).cycle();
        let mut master = masters.next().unwrap_or_default().to_owned();
        let mut was_told = false;
        loop {
            let was_registered = AtomicBool::new(false);
            let ended = self.stream(&master, outbox, &was_registered).await;
            self.status.registered.store(false, Ordering::Relaxed);
            if self.driver.master(MasterAsk::Input(Input::Disconnected)).await.is_err() {
                return;
            }
            masters.next().unwrap_or_default().clone_into(&mut master);
            let is_registered = was_registered.load(Ordering::Relaxed);
            let attempt = match ended {
                End::Stopping => return,
                End::Elsewhere(leader) => {
                    let scheme = if self.config.master.starts_with("https://") { "https" } else { "http" };
                    master = if leader.contains("://") { leader } else { format!("{scheme}://{leader}") };
                    if is_registered { Attempt::Broken } else { Attempt::SentOn }
                }
                End::Away if is_registered => Attempt::Broken,
                End::Away => Attempt::Away,
                End::Refused => Attempt::Refused,
                End::Shutdown(why) => match self.driver.look(|view| view.table.agent_id().is_empty()).await {
                    Err(Stopping) => return,
                    Ok(false) => {
                        tracing::error!(why, "the master does not want this agent: all tasks are ended");
                        let _ = self.driver.master(MasterAsk::Input(Input::ShutdownAgent)).await;
                        return;
                    }
                    // There is nothing to end: the machine is down, and may come up again.
                    Ok(true) if !was_told => {
                        was_told = true;
                        tracing::warn!(why, longest_pause = ?BACKOFF_MAX, "the master takes no agent of this machine; it is asked again and again");
                        Attempt::Refused
                    }
                    Ok(true) => {
                        tracing::debug!(why, "the master still takes no agent of this machine");
                        Attempt::Refused
                    }
                },
            };
            sleep(some_part_of(pauses.after(attempt))).await;
        }
    }
}

/// Somewhere within a pause, so that a thousand agents do not come at once.
fn some_part_of(pause: Duration) -> Duration {
    let random = crate::words::Ids::uuid(&mut SystemIds);
    pause.mul_f64(f64::from(u16::from_be_bytes([random[0], random[1]])) / f64::from(u16::MAX))
}

impl Link {
    async fn stream(&self, master: &str, outbox: &mut mpsc::Receiver<wire::AgentMessage>, was_registered: &AtomicBool) -> End {
        match self.try_run(master, outbox, was_registered).await {
            Ok(end) => end,
            Err(Problem { text, is_refusal }) => {
                tracing::warn!(master, problem = text, "the stream to the master ended; it is opened again");
                if is_refusal { End::Refused } else { End::Away }
            }
        }
    }

    async fn try_run(
        &self,
        master: &str,
        outbox: &mut mpsc::Receiver<wire::AgentMessage>,
        was_registered: &AtomicBool,
    ) -> Result<End, Problem> {
        let endpoint = ControlPlane::parse(master, self.config.tls.clone())?.endpoint().map_err(|error| chain(&error))?;
        let channel = endpoint.connect().await.map_err(|error| chain(&error))?;
        let mut client = AgentServiceClient::new(channel).max_decoding_message_size(16 << 20);
        let (ours, sent) = mpsc::channel(64);
        // What was to be sent on an earlier stream is in the registration, or is sent again. What comes after the look is not in it, and stays.
        while outbox.try_recv().is_ok() {}
        let _ = self.signals.lost.notified().now_or_never();
        let config = self.config.clone();
        let boot_id = self.boot_id.clone();
        let look = self.driver.look(move |view| registration::registration(view, &config, &boot_id));
        let Ok(parts) = look.await else { return Ok(End::Stopping) };
        let mut request = tonic::Request::new(ReceiverStream::new(sent));
        if let Some(credential) = &self.config.credential {
            let words =
                credential.authorization().parse().map_err(|_| "the credential has characters that no header can have".to_owned())?;
            request.metadata_mut().insert("authorization", words);
        }
        let open = client.stream(request);
        let send_parts = async {
            for part in parts {
                let message = wire::AgentMessage { body: Some(Ours::Register(part)), received_through: 0 };
                ours.send(message).await.map_err(|_| "the stream was closed".to_owned())?;
            }
            Ok::<(), Problem>(())
        };
        let opened = timeout(REGISTERED_WITHIN, async { tokio::try_join!(async { open.await.map_err(Problem::from) }, send_parts) });
        let mut theirs = opened.await.map_err(|_| "the master does not answer".to_owned())??.0.into_inner();
        let first = timeout(REGISTERED_WITHIN, theirs.message()).await.map_err(|_| "the master does not answer".to_owned())?;
        let registered = match first?.and_then(|it| it.body) {
            Some(Theirs::Registered(it)) => it,
            Some(Theirs::Refused(it)) => return Ok(refused(it)),
            _ => return Err("the master did not begin with an answer to the registration".to_owned().into()),
        };
        tracing::info!(agent_id = registered.agent_id, master = registered.master_pid, "registered");
        was_registered.store(true, Ordering::Relaxed);
        self.status.registered.store(true, Ordering::Relaxed);
        let ping = Duration::from_millis(u64::from(if registered.ping_interval_ms == 0 { 15_000 } else { registered.ping_interval_ms }));
        if self.driver.master(MasterAsk::Registered(registered)).await.is_err() {
            return Ok(End::Stopping);
        }
        let mut received = 0;
        let mut acknowledged = 0;
        loop {
            let send = |body: Option<Ours>, received: u64| wire::AgentMessage { body, received_through: received };
            tokio::select! {
                message = timeout(ping * SILENT_PINGS, theirs.message()) => {
                    let message = message.map_err(|_| "the master is silent".to_owned())??;
                    let Some(message) = message else { return Err("the master closed the stream".to_owned().into()) };
                    if message.sequence > 0 {
                        if message.sequence != received + 1 {
                            return Err(format!("command {} came after {received}", message.sequence).into());
                        }
                        received = message.sequence;
                    }
                    match message.body {
                        Some(Theirs::Ping(it)) if !it.connected => return Err("the master takes this agent for disconnected".to_owned().into()),
                        Some(Theirs::Ping(_)) => {
                            ours.send(send(Some(Ours::Pong(wire::Pong {})), received)).await.map_err(|_| "the stream was closed".to_owned())?;
                            acknowledged = received;
                        }
                        Some(Theirs::Refused(it)) => return Ok(refused(it)),
                        Some(Theirs::ShutdownAgent(it)) => return Ok(End::Shutdown(it.message)),
                        Some(command) => {
                            let taken = self.command(command).await;
                            if taken.is_err() {
                                return Ok(self.part(outbox, ours, theirs).await);
                            }
                        }
                        None => {}
                    }
                    if received >= acknowledged + ACKNOWLEDGE_EVERY {
                        ours.send(send(None, received)).await.map_err(|_| "the stream was closed".to_owned())?;
                        acknowledged = received;
                    }
                }
                () = self.signals.lost.notified() => return Err("messages were lost that are not sent again".to_owned().into()),
                message = outbox.recv() => {
                    let Some(message) = message else { return Ok(self.part(outbox, ours, theirs).await) };
                    ours.send(send(message.body, received)).await.map_err(|_| "the stream was closed".to_owned())?;
                    acknowledged = received;
                }
            }
        }
    }

    /// Whoever owned the table is no more. Where that is because the agent leaves, the master hears the last of it, and that it will not come back.
    async fn part(
        &self,
        outbox: &mut mpsc::Receiver<wire::AgentMessage>,
        ours: mpsc::Sender<wire::AgentMessage>,
        mut theirs: tonic::Streaming<wire::MasterMessage>,
    ) -> End {
        if self.config.leave.is_cancelled() && self.signals.over.load(Ordering::Acquire) {
            let message = "the agent was told to end its tasks and to leave".to_owned();
            let unregister = wire::AgentMessage { body: Some(Ours::Unregister(wire::Unregister { message })), received_through: 0 };
            let last = async {
                while let Some(message) = outbox.recv().await {
                    ours.send(message).await.ok()?;
                }
                ours.send(unregister).await.ok()?;
                // Nothing more comes from here. That the other side ends the stream, too, says that it has read all.
                drop(ours);
                while theirs.message().await.ok()?.is_some() {}
                Some(())
            };
            match timeout(UNREGISTERED_WITHIN, last).await {
                Ok(Some(())) => tracing::info!("unregistered"),
                _ => tracing::warn!("the master may not have heard that this agent leaves; it will miss it after a while"),
            }
        }
        End::Stopping
    }

    /// Passes a command on. All go the same way, so that they are done in the order in which the master gave them: a kill that overtook its launch would
    /// be answered for a task that then begins.
    async fn command(&self, command: Theirs) -> Result<(), Stopping> {
        let executor = |framework: String, executor: String| ExecutorKey { framework, executor };
        let task = |framework: String, task: String| TaskKey { framework, task };
        let input = match command {
            Theirs::RunTask(it) => return self.run_task(it).await,
            Theirs::RunTaskGroup(it) => return self.run_group(it).await,
            Theirs::ApplyOperation(it) => return self.driver.master(MasterAsk::Apply(it)).await,
            Theirs::AcknowledgeOperationStatus(it) => return self.driver.master(MasterAsk::Acknowledge(it)).await,
            Theirs::ReconcileOperations(it) => return self.driver.master(MasterAsk::Reconcile(it)).await,
            Theirs::KillTask(it) => {
                let policy = (!it.kill_policy.is_empty()).then(|| KillPolicy::decode(&*it.kill_policy).ok()).flatten();
                Input::Kill { task: task(it.framework_id, it.task_id), policy }
            }
            Theirs::AcknowledgeStatusUpdate(it) => Input::Acknowledge { task: task(it.framework_id, it.task_id), uuid: it.uuid },
            Theirs::FrameworkMessage(it) => Input::FrameworkMessage { executor: executor(it.framework_id, it.executor_id), data: it.data },
            Theirs::ShutdownExecutor(it) => Input::ShutdownExecutor(executor(it.framework_id, it.executor_id)),
            Theirs::ShutdownFramework(it) => Input::ShutdownFramework(it.framework_id),
            Theirs::UpdateFramework(it) => match decoded::<FrameworkInfo>("framework", &it.framework_info) {
                Some(info) => Input::UpdateFramework(Box::new(info)),
                None => return Ok(()),
            },
            Theirs::ReconcileTasks(it) => Input::Reconcile { framework: it.framework_id, tasks: it.task_ids },
            Theirs::Drain(it) => {
                Input::Drain(Drain { max_grace_period: it.max_grace_period_nanos.map(nanoseconds), mark_gone: it.mark_gone })
            }
            Theirs::Undrain(_) => Input::Undrain,
            Theirs::Registered(_) | Theirs::Refused(_) | Theirs::Ping(_) | Theirs::ShutdownAgent(_) => return Ok(()),
        };
        self.driver.master(MasterAsk::Input(input)).await
    }

    async fn run_task(&self, it: wire::RunTask) -> Result<(), Stopping> {
        let (Some(framework), Some(task)) =
            (decoded::<FrameworkInfo>("framework", &it.framework_info), decoded::<TaskInfo>("task", &it.task))
        else {
            return Ok(());
        };
        let executor = match it.executor_info.as_slice() {
            [] => task.executor.clone(),
            bytes => decoded("executor", bytes),
        };
        let run = Run { framework, tasks: vec![task], group: false, executor, launch_executor: it.launch_executor, refused: None };
        self.driver.master(MasterAsk::Run(Box::new(run), it.resource_version_uuid)).await
    }

    async fn run_group(&self, it: wire::RunTaskGroup) -> Result<(), Stopping> {
        let framework = decoded::<FrameworkInfo>("framework", &it.framework_info);
        let (Some(framework), Some(group)) = (framework, decoded::<TaskGroupInfo>("task group", &it.task_group)) else { return Ok(()) };
        let executor = decoded("executor", &it.executor_info);
        let run = Run { framework, tasks: group.tasks, group: true, executor, launch_executor: it.launch_executor, refused: None };
        self.driver.master(MasterAsk::Run(Box::new(run), it.resource_version_uuid)).await
    }
}

fn decoded<M: prost::Message + Default>(what: &str, bytes: &[u8]) -> Option<M> {
    match M::decode(bytes) {
        Ok(it) => Some(it),
        Err(error) => {
            tracing::error!(what, %error, "the master sent what cannot be read; it is left out");
            None
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(it) = source {
        text.push_str(": ");
        text.push_str(&it.to_string());
        source = it.source();
    }
    text
}

/// What the agent can do.
pub fn capabilities() -> Vec<agent_info::Capability> {
    use agent_info::capability::Type;

    let all = [
        Type::MultiRole,
        Type::HierarchicalRole,
        Type::ReservationRefinement,
        Type::ResizeVolume,
        Type::AgentOperationFeedback,
        Type::AgentDraining,
        Type::TaskResourceLimits,
    ];
    all.into_iter().map(|it| agent_info::Capability { r#type: Some(it as i32) }).collect()
}

/// A task as Mesos describes it to others.
pub fn task_message(
    framework: &str,
    executor: &str,
    is_command: bool,
    agent: &str,
    framework_user: &str,
    task: &crate::table::Task,
) -> Task {
    let info = &task.info;
    let first = task.pending.front();
    let command_user = info.command.as_ref().and_then(|it| it.user.clone());
    Task {
        name: info.name.clone(),
        task_id: info.task_id.clone(),
        framework_id: FrameworkId { value: framework.to_owned() },
        executor_id: (!is_command).then(|| ExecutorId { value: executor.to_owned() }),
        agent_id: AgentId { value: agent.to_owned() },
        state: task.state as i32,
        resources: info.resources.clone(),
        statuses: task.statuses.clone(),
        status_update_state: first.map(|it| it.state).or(Some(task.state as i32).filter(|_| task.state != TaskState::TaskStaging)),
        status_update_uuid: first.and_then(|it| it.uuid.clone()),
        labels: info.labels.clone(),
        discovery: info.discovery.clone(),
        container: info.container.clone(),
        health_check: info.health_check.clone(),
        kill_policy: info.kill_policy,
        user: Some(command_user.unwrap_or_else(|| framework_user.to_owned())),
        limits: info.limits.clone(),
    }
}
