//! A decision to launch: which instance, where, on which resources and ports, and the environment its tasks get.

mod environment;

use std::collections::BTreeMap;

use crate::id::{InstanceId, TaskId};
use crate::mesos::Resource;
use crate::model::EnvValue;
use crate::model::spec::Spec;

/// A task, or a pod's tasks, to run. Whoever carries it out decides nothing any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Which instance.
    pub instance: InstanceId,
    /// What.
    pub spec: Spec,
    /// Where.
    pub agent_id: String,
    /// The agent's host.
    pub host: String,
    /// In which role.
    pub role: String,
    /// One for an app; for a pod one per container.
    pub tasks: Vec<TaskLaunch>,
    /// What the pod's executor, or the app's own, takes.
    pub executor_resources: Vec<Resource>,
    /// Volumes, each with the mount path it is for.
    pub volumes: Vec<(String, Resource)>,
}

/// One task to run.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskLaunch {
    /// Its name.
    pub id: TaskId,
    /// Container of a pod; empty for an app.
    pub container: String,
    /// What it takes; ports included, volumes not.
    pub resources: Vec<Resource>,
    /// Ports on the agent, in the order of the definition; none where none is taken.
    pub host_ports: Vec<Option<u16>>,
    /// Ports in the container, in the order of the definition.
    pub container_ports: Vec<u16>,
    /// Its environment.
    pub environment: BTreeMap<String, EnvValue>,
}

pub(crate) use environment::{Context, app as app_environment, pod as pod_environment};
