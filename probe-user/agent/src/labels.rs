//! Who a container belongs to, in words that whoever sees the container can read: labels of Docker's containers, and for those of the agent's own
//! making a table that the rest of the process may look into.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesos_proto::v1::executor_info;

use crate::table::Launch;
use crate::words::ContainerKey;

/// Names and values.
pub type Labels = Vec<(String, String)>;

/// The labels of the container of a launch.
///
/// A custom executor's container holds whatever tasks it runs: there the executor stands for them. A default executor's container holds none, each of
/// its tasks has its own.
pub fn of_launch(launch: &Launch) -> Labels {
    let framework = &launch.framework;
    let executor = &launch.executor;
    let mut labels = Vec::new();
    let mut set = |name: &str, value: &str| {
        if !value.is_empty() {
            labels.push((name.to_owned(), value.to_owned()));
        }
    };
    set("mesos.framework_id", framework.id.as_ref().map(|it| it.value.as_str()).unwrap_or_default());
    set("mesos.framework_name", &framework.name);
    set("mesos.executor_id", &executor.executor_id.value);
    match &launch.task {
        Some(task) => {
            set("mesos.task_id", &task.task_id.value);
            set("mesos.task_name", &task.name);
        }
        None if launch.session || executor.r#type() == executor_info::Type::Default => {}
        None => {
            set("mesos.task_id", &executor.executor_id.value);
            set("mesos.task_name", executor.name());
        }
    }
    let resources = launch.task.as_ref().map_or(&launch.resources, |it| &it.resources);
    let role = resources.iter().find_map(|it| it.allocation_info.as_ref()?.role.as_deref());
    set("mesos.role", role.unwrap_or_default());
    labels
}

/// Labels of all containers of the agent's own making that are being made or run. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct TaskLabels(Arc<Mutex<HashMap<String, Labels>>>);

impl TaskLabels {
    /// Those of a container, by its own id: the last part of a nested one's.
    pub fn of(&self, id: &str) -> Labels {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().unwrap_or_default()
    }

    pub(crate) fn put(&self, launch: &Launch) {
        let labels = of_launch(launch);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(launch.container.own_id().to_owned(), labels);
    }

    pub(crate) fn remove(&self, container: &ContainerKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(container.own_id());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesos_proto::v1::{ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, TaskId, TaskInfo};

    use super::*;

    fn launch(task: Option<TaskInfo>, r#type: executor_info::Type) -> Launch {
        Launch {
            container: ContainerKey::root("c").nested("d"),
            framework: FrameworkInfo {
                name: "marathon".to_owned(),
                id: Some(FrameworkId { value: "f-1".to_owned() }),
                ..Default::default()
            },
            executor: ExecutorInfo {
                executor_id: ExecutorId { value: "e".to_owned() },
                r#type: Some(r#type.into()),
                ..ExecutorInfo::default()
            },
            task,
            command: None,
            container_info: None,
            resources: Vec::new(),
            limits: BTreeMap::new(),
            session: false,
        }
    }

    #[test]
    fn a_container_says_whose_task_it_is() {
        let task = TaskInfo { name: "web".to_owned(), task_id: TaskId { value: "web.1".to_owned() }, ..TaskInfo::default() };
        let of = |launch: &Launch| of_launch(launch).into_iter().collect::<BTreeMap<_, _>>();
        let labels = of(&launch(Some(task), executor_info::Type::Default));
        assert_eq!((labels["mesos.task_id"].as_str(), labels["mesos.framework_name"].as_str()), ("web.1", "marathon"));
        assert_eq!(of(&launch(None, executor_info::Type::Custom)).get("mesos.task_id").map(String::as_str), Some("e"));
        assert_eq!(of(&launch(None, executor_info::Type::Default)).get("mesos.task_id"), None);
    }

    #[test]
    fn labels_are_there_as_long_as_the_container() {
        let (labels, launch) = (TaskLabels::default(), launch(None, executor_info::Type::Custom));
        labels.put(&launch);
        assert!(!labels.clone().of("d").is_empty());
        labels.remove(&launch.container);
        assert!(labels.of("d").is_empty());
    }
}
