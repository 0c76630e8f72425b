//! Between the words of the agents' stream and those of the core.

use std::time::Duration;

use master::{FromAgent, Register, ToAgent};
use mesos_proto::json::decode_protobuf;
use mesos_proto::v1;
use prost::{Message, Name};
use proto::agent::v1 as wire;
use wire::agent_message::Body as Up;
use wire::master_message::Body as Down;

/// Bytes of all parts of one registration.
const MOST_REGISTER_BYTES: usize = 256 << 20;

/// What an agent's message means.
#[derive(Debug)]
pub(super) enum Translated {
    Message(FromAgent),
    Nothing,
    Malformed(String),
}

/// A registration as its parts come in.
#[derive(Debug, Default)]
pub(super) struct Collected {
    register: Option<Register>,
    bytes: usize,
}

fn decode<M: Message + Name + Default>(bytes: &[u8]) -> Result<M, String> {
    decode_protobuf(bytes).map_err(|error| format!("a {} is malformed: {error}", M::NAME))
}

fn decode_all<M: Message + Name + Default>(all: &[Vec<u8>]) -> Result<Vec<M>, String> {
    all.iter().map(|bytes| decode(bytes)).collect()
}

impl Collected {
    pub(super) fn add(&mut self, part: wire::Register) -> Result<(), String> {
        self.bytes += part.encoded_len();
        if self.bytes > MOST_REGISTER_BYTES {
            return Err(format!("the registration has more than {MOST_REGISTER_BYTES} bytes"));
        }
        let register = match &mut self.register {
            Some(register) => register,
            None => {
                let info: v1::AgentInfo = decode(&part.agent_info)?;
                if !is_pid(&part.pid) {
                    return Err(format!("the pid {:?} is not <name>@<address>:<port>", part.pid));
                }
                self.register.insert(Register {
                    info,
                    pid: part.pid.clone(),
                    tls: part.tls,
                    version: part.version.clone(),
                    capabilities: decode_all(&part.capabilities)?,
                    total_resources: decode_all(&part.total_resources)?,
                    resource_version: part.resource_version_uuid.clone(),
                    drain: part.drain.as_ref().map(|it| v1::DrainConfig {
                        max_grace_period: it.max_grace_period_nanos.map(|nanoseconds| v1::DurationInfo { nanoseconds }),
                        mark_gone: Some(it.mark_gone),
                    }),
                    ..Register::default()
                })
            }
        };
        register.frameworks.extend(decode_all::<v1::FrameworkInfo>(&part.frameworks)?);
        for executor in &part.executors {
            register.executors.push((executor.framework_id.as_str().into(), decode(&executor.executor_info)?));
        }
        register.tasks.extend(decode_all::<v1::Task>(&part.tasks)?);
        register.operations.extend(decode_all::<v1::Operation>(&part.operations)?);
        for completed in &part.completed_frameworks {
            register.completed_frameworks.push((decode(&completed.framework_info)?, decode_all(&completed.tasks)?));
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Register, String> {
        self.register.ok_or_else(|| "there is no registration".to_owned())
    }
}

/// Whether clients can take it apart: some fall over where they cannot.
fn is_pid(pid: &str) -> bool {
    let Some((name, address)) = pid.split_once('@') else { return false };
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    !name.is_empty() && !host.is_empty() && port.parse::<u16>().is_ok()
}

/// An agent's message in the core's words.
pub(super) fn from_agent(message: wire::AgentMessage) -> Translated {
    let Some(body) = message.body else { return Translated::Nothing };
    match try_from_agent(body) {
        Ok(message) => Translated::Message(message),
        Err(problem) => Translated::Malformed(problem),
    }
}

fn try_from_agent(body: Up) -> Result<FromAgent, String> {
    Ok(match body {
        Up::Register(_) => return Err("a second registration on one stream".to_owned()),
        Up::Pong(_) => FromAgent::Pong,
        Up::StatusUpdate(update) => {
            let mut status: Box<v1::TaskStatus> = Box::new(decode(&update.status)?);
            if !update.executor_id.is_empty() && status.executor_id.is_none() {
                status.executor_id = Some(v1::ExecutorId { value: update.executor_id });
            }
            let latest_state = v1::TaskState::try_from(update.latest_state).unwrap_or(status.state());
            FromAgent::StatusUpdate { framework_id: update.framework_id.into(), status, latest_state }
        }
        Up::OperationStatusUpdate(update) => {
            let status: Box<v1::OperationStatus> = Box::new(decode(&update.status)?);
            let latest_state = v1::OperationState::try_from(update.latest_state).unwrap_or(status.state());
            FromAgent::OperationStatusUpdate {
                framework_id: (!update.framework_id.is_empty()).then(|| update.framework_id.into()),
                operation_uuid: update.operation_uuid,
                status,
                latest_state,
                total_resources: decode_all(&update.total_resources)?,
            }
        }
        Up::ExecutorMessage(it) => {
            FromAgent::ExecutorMessage { framework_id: it.framework_id.into(), executor_id: it.executor_id.into(), data: it.data }
        }
        Up::ExecutorExited(it) => {
            FromAgent::ExecutorExited { framework_id: it.framework_id.into(), executor_id: it.executor_id.into(), status: it.status }
        }
        Up::ResourcesChanged(it) => FromAgent::ResourcesChanged {
            total_resources: decode_all(&it.total_resources)?,
            resource_version: it.resource_version_uuid,
            oversubscribed_resources: decode_all(&it.oversubscribed_resources)?,
        },
        Up::Unregister(_) => FromAgent::Unregister,
    })
}

/// The core's message in the wire's words, and whether it is a numbered command.
pub(super) fn to_agent(message: ToAgent, info: &v1::MasterInfo, ping_interval: Duration, window: u64) -> (Down, bool) {
    let window = u32::try_from(window).unwrap_or(u32::MAX);
    let body = match message {
        ToAgent::Registered { agent_id } => {
            let registered = wire::Registered {
                agent_id: agent_id.to_string(),
                master_id: info.id.clone(),
                master_hostname: info.hostname().to_owned(),
                master_pid: info.pid().to_owned(),
                ping_interval_ms: u32::try_from(ping_interval.as_millis()).unwrap_or(u32::MAX),
                commands_in_flight_max: window,
                updates_in_flight_max: window,
            };
            return (Down::Registered(registered), false);
        }
        ToAgent::Refused { reason, message } => {
            use wire::refused::Reason;
            let reason = match reason {
                master::Refused::Shutdown => Reason::Shutdown,
                master::Refused::Invalid => Reason::Invalid,
                master::Refused::Later => Reason::NotReady,
                master::Refused::Replaced => Reason::Replaced,
            };
            return (Down::Refused(wire::Refused { reason: reason.into(), message, leader: String::new() }), false);
        }
        ToAgent::Ping { connected } => return (Down::Ping(wire::Ping { connected }), false),
        ToAgent::RunTask { framework, task, launch_executor, resource_version } => Down::RunTask(wire::RunTask {
            framework_info: framework.encode_to_vec(),
            executor_info: task.executor.as_ref().map(Message::encode_to_vec).unwrap_or_default(),
            task: task.encode_to_vec(),
            launch_executor,
            resource_version_uuid: resource_version,
        }),
        ToAgent::RunTaskGroup { framework, executor, task_group, launch_executor, resource_version } => {
            Down::RunTaskGroup(wire::RunTaskGroup {
                framework_info: framework.encode_to_vec(),
                executor_info: executor.encode_to_vec(),
                task_group: task_group.encode_to_vec(),
                launch_executor,
                resource_version_uuid: resource_version,
            })
        }
        ToAgent::KillTask { framework_id, task_id, kill_policy } => Down::KillTask(wire::KillTask {
            framework_id: framework_id.to_string(),
            task_id: task_id.to_string(),
            kill_policy: kill_policy.as_ref().map(Message::encode_to_vec).unwrap_or_default(),
        }),
        ToAgent::AcknowledgeStatusUpdate { framework_id, task_id, uuid } => Down::AcknowledgeStatusUpdate(wire::AcknowledgeStatusUpdate {
            framework_id: framework_id.to_string(),
            task_id: task_id.to_string(),
            uuid,
        }),
        ToAgent::FrameworkMessage { framework_id, executor_id, data } => Down::FrameworkMessage(wire::ExecutorMessage {
            framework_id: framework_id.to_string(),
            executor_id: executor_id.to_string(),
            data,
        }),
        ToAgent::ShutdownExecutor { framework_id, executor_id } => {
            Down::ShutdownExecutor(wire::ShutdownExecutor { framework_id: framework_id.to_string(), executor_id: executor_id.to_string() })
        }
        ToAgent::ShutdownFramework { framework_id } => {
            Down::ShutdownFramework(wire::ShutdownFramework { framework_id: framework_id.to_string() })
        }
        ToAgent::UpdateFramework { framework } => {
            Down::UpdateFramework(wire::UpdateFramework { framework_info: framework.encode_to_vec() })
        }
        ToAgent::ApplyOperation { framework_id, operation, operation_uuid, resource_version } => {
            Down::ApplyOperation(wire::ApplyOperation {
                framework_id: framework_id.map(|it| it.to_string()).unwrap_or_default(),
                operation: operation.encode_to_vec(),
                operation_uuid,
                resource_version_uuid: resource_version,
            })
        }
        ToAgent::AcknowledgeOperationStatus { operation_uuid, status_uuid } => {
            Down::AcknowledgeOperationStatus(wire::AcknowledgeOperationStatus { operation_uuid, status_uuid })
        }
        ToAgent::ReconcileOperations { operation_uuids } => Down::ReconcileOperations(wire::ReconcileOperations { operation_uuids }),
        ToAgent::Drain { config } => Down::Drain(wire::Drain {
            max_grace_period_nanos: config.max_grace_period.as_ref().map(|it| it.nanoseconds),
            mark_gone: config.mark_gone(),
        }),
        ToAgent::Undrain => Down::Undrain(wire::Undrain {}),
        ToAgent::Shutdown { message } => Down::ShutdownAgent(wire::ShutdownAgent { message }),
    };
    (body, true)
}
