//! What the agent tells of itself when it registers: all that it holds.

use mesos::Format;
use mesos_proto::v1::AgentId;
use prost::Message as _;
use proto::agent::v1 as wire;

use super::{VERSION, capabilities, task_message};
use crate::config::Config;
use crate::driver::View;
use crate::table::{Framework, Kind};
use crate::words::is_terminal;

/// Bytes of one part of a registration, about.
const PART_BYTES: usize = 1 << 20;

/// Parts of a registration. A message has a largest size, and an agent holds what it holds.
struct Parts {
    done: Vec<wire::Register>,
    part: wire::Register,
    size: usize,
}

impl Parts {
    /// The part that has room for an entry.
    fn with_room(&mut self, bytes: usize) -> &mut wire::Register {
        if self.size > 0 && self.size + bytes > PART_BYTES {
            self.part.more = true;
            self.done.push(std::mem::take(&mut self.part));
            self.size = 0;
        }
        self.size += bytes;
        &mut self.part
    }

    fn finish(mut self) -> Vec<wire::Register> {
        self.done.push(self.part);
        self.done
    }
}

/// What the agent holds, in parts that are not too large.
pub(super) fn registration(view: &View<'_>, config: &Config, boot_id: &str) -> Vec<wire::Register> {
    let table = view.table;
    let agent_id = table.agent_id();
    let mut agent = view.agent.clone();
    agent.id = (!agent_id.is_empty()).then(|| AgentId { value: agent_id.to_owned() });
    let part = wire::Register {
        agent_info: agent.encode_to_vec(),
        pid: format!("slave(1)@{}:{}", config.advertise_ip, agent.port()),
        version: VERSION.to_owned(),
        capabilities: capabilities().iter().map(prost::Message::encode_to_vec).collect(),
        total_resources: view.ledger.total().to_proto(Format::Refined).iter().map(prost::Message::encode_to_vec).collect(),
        resource_version_uuid: view.ledger.version().to_vec(),
        boot_id: boot_id.to_owned(),
        drain: table.drain().map(|it| wire::Drain {
            max_grace_period_nanos: it.max_grace_period.map(|it| i64::try_from(it.as_nanos()).unwrap_or(i64::MAX)),
            mark_gone: it.mark_gone,
        }),
        tls: config.api_certificate.is_some(),
        ..wire::Register::default()
    };
    let mut parts = Parts { done: Vec::new(), size: part.encoded_len(), part };
    for operation in view.ledger.operations() {
        let encoded = operation.encode_to_vec();
        parts.with_room(encoded.len()).operations.push(encoded);
    }
    for (framework_id, framework) in table.frameworks() {
        let encoded = framework.info.encode_to_vec();
        parts.with_room(encoded.len()).frameworks.push(encoded);
        for (executor_id, executor) in &framework.executors {
            let is_command = executor.kind == Kind::Command;
            if !is_command && executor.phase != crate::table::Phase::Terminated {
                let entry = wire::register::Executor {
                    framework_id: framework_id.clone(),
                    executor_info: executor.info.encode_to_vec(),
                    container_id: executor.container.as_str().to_owned(),
                };
                parts.with_room(entry.encoded_len()).executors.push(entry);
            }
            for task in executor.tasks.values().filter(|it| !is_terminal(it.state) || !it.pending.is_empty()) {
                let encoded = task_message(framework_id, executor_id, is_command, agent_id, &framework.info.user, task).encode_to_vec();
                parts.with_room(encoded.len()).tasks.push(encoded);
            }
        }
    }
    for framework in table.completed_frameworks().iter().rev().take(10) {
        let entry = completed(framework, agent_id);
        let size = entry.encoded_len();
        // Of what is over, only what is small enough to be worth a look.
        if size <= PART_BYTES {
            parts.with_room(size).completed_frameworks.push(entry);
        }
    }
    parts.finish()
}

fn completed(framework: &Framework, agent: &str) -> wire::register::CompletedFramework {
    let id = framework.info.id.clone().unwrap_or_default().value;
    let tasks = framework.completed.iter().rev().flat_map(|executor| {
        let executor_id = executor.info.executor_id.value.clone();
        let (id, user) = (id.clone(), framework.info.user.clone());
        executor
            .completed
            .iter()
            .map(move |task| task_message(&id, &executor_id, executor.kind == Kind::Command, agent, &user, task).encode_to_vec())
    });
    wire::register::CompletedFramework { framework_info: framework.info.encode_to_vec(), tasks: tasks.take(50).collect() }
}
