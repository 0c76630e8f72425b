//! Executors that are over and still shown. They are remembered as long as they are shown, so that whoever looks for the sandbox of a task that ended
//! before a restart of the agent finds it.

use std::collections::{BTreeMap, VecDeque};

use mesos_proto::v1::FrameworkInfo;
use prost::Message as _;

use super::Table;
use super::records::{RecordKey, RecoverError, StoredExecutor, StoredTask, restored_executor, restored_task, stored_executor, stored_task};
use super::state::{Executor, Framework};

#[derive(Clone, PartialEq, prost::Message)]
struct StoredCompleted {
    #[prost(message, optional, tag = "1")]
    framework: Option<FrameworkInfo>,
    #[prost(message, optional, tag = "2")]
    executor: Option<StoredExecutor>,
    #[prost(message, repeated, tag = "3")]
    tasks: Vec<StoredTask>,
    #[prost(uint64, tag = "4")]
    order: u64,
}

/// One that comes back from what was stored.
pub(super) struct Restored {
    info: FrameworkInfo,
    executor: Executor,
}

/// The name of an executor's record.
pub(super) fn record_key(framework: &str, executor: &Executor) -> RecordKey {
    RecordKey::Completed(framework.to_owned(), executor.container.as_str().to_owned())
}

/// Reads a record.
///
/// # Errors
/// When it is damaged.
pub(super) fn restored(key: &RecordKey, value: &[u8]) -> Result<Restored, RecoverError> {
    let damaged = || RecoverError::Damaged(format!("{key:?}"));
    let stored = StoredCompleted::decode(value).map_err(|_| damaged())?;
    let mut executor = stored.executor.and_then(restored_executor).ok_or_else(damaged)?;
    executor.ended = stored.order;
    executor.completed = stored.tasks.into_iter().map(restored_task).collect::<Option<_>>().ok_or_else(damaged)?;
    Ok(Restored { info: stored.framework.ok_or_else(damaged)?, executor })
}

impl Table {
    /// What is stored of an executor that is over.
    pub(super) fn stored_completed(&self, framework: &str, container: &str) -> Option<Vec<u8>> {
        let over = self.completed.iter().filter(|it| it.info.id.as_ref().is_some_and(|id| id.value == framework));
        let found = self.frameworks.get(framework).into_iter().chain(over).find_map(|it| {
            let executor = it.completed.iter().find(|it| it.container.as_str() == container)?;
            Some((&it.info, executor))
        });
        let (info, executor) = found?;
        let stored = StoredCompleted {
            framework: Some(info.clone()),
            executor: Some(stored_executor(executor)),
            tasks: executor.completed.iter().map(stored_task).collect(),
            order: executor.ended,
        };
        Some(stored.encode_to_vec())
    }

    /// Puts back what was over, in the order in which it ended.
    pub(super) fn restore_completed(&mut self, mut all: Vec<Restored>) {
        all.sort_by_key(|it| it.executor.ended);
        self.next_ended = all.last().map_or(0, |it| it.executor.ended + 1);
        for Restored { info, executor } in all {
            let id = info.id.clone().unwrap_or_default().value;
            if let Some(framework) = self.frameworks.get_mut(&id) {
                framework.completed.push_back(executor);
                continue;
            }
            // The last one that ended is the newest framework.
            let known = self.completed.iter().position(|it| it.info.id == info.id).and_then(|at| self.completed.remove(at));
            let mut framework =
                known.unwrap_or_else(|| Framework { info, executors: BTreeMap::new(), completed: VecDeque::new(), shutting_down: false });
            framework.completed.push_back(executor);
            self.completed.push_back(framework);
        }
    }

    /// Forgets what is too much to be shown.
    pub(super) fn forget_completed(&mut self) {
        let kept = self.limits.completed_executors;
        let running = self.frameworks.iter_mut().map(|(id, it)| (id.clone(), it));
        let over = self.completed.iter_mut().map(|it| (it.info.id.clone().unwrap_or_default().value, it));
        for (id, framework) in running.chain(over) {
            while framework.completed.len() > kept {
                self.dirty.extend(framework.completed.pop_front().map(|it| record_key(&id, &it)));
            }
        }
        while self.completed.len() > self.limits.completed_frameworks {
            let Some(framework) = self.completed.pop_front() else { return };
            let id = framework.info.id.clone().unwrap_or_default().value;
            self.dirty.extend(framework.completed.iter().map(|it| record_key(&id, it)));
        }
    }
}
