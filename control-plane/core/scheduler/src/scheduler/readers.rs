//! What readers see: copies that cost nothing to make and never change.

use std::sync::Arc;

use base::Timestamp;
use imbl::{OrdMap, OrdSet};

use super::tables::SpecState;
use super::words::TaskFailure;
use super::{Deployment, Scheduler};
use crate::id::{InstanceId, PathId};
use crate::instance::Instance;
use crate::model::spec::Spec;
use crate::root::Root;

/// The scheduler at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What is defined.
    pub root: Root,
    /// Definitions by path and version.
    pub history: OrdMap<PathId, OrdMap<Timestamp, Spec>>,
    /// Roots by version.
    pub roots: OrdMap<Timestamp, Root>,
    /// Instances by app.
    pub specs: OrdMap<PathId, SpecState>,
    /// Deployments by id.
    pub deployments: OrdMap<String, Deployment>,
    /// Last failures.
    pub failures: OrdMap<PathId, Arc<TaskFailure>>,
    /// How numbers of instances are to be decided, by app.
    pub policies: OrdMap<PathId, Arc<str>>,
    /// Roles in which offers are wanted, now or since the start: of apps, of their instances, and of what has yet to be given back.
    pub roles: OrdSet<String>,
    /// Ours at the master.
    pub framework_id: Option<String>,
    /// Whether the master's stream is open.
    pub connected: bool,
    /// The master.
    pub master: Option<String>,
    /// What happened since the start.
    pub totals: super::words::Totals,
    /// Instances being killed, and how many of them the master has been asked for.
    pub kills: (usize, usize),
}

impl View {
    /// The instance with this id.
    pub fn instance(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.specs.get(&id.spec())?.instances.get(id)
    }

    /// The instances of an app or pod.
    pub fn instances_of(&self, spec: &PathId) -> impl Iterator<Item = &Arc<Instance>> {
        self.specs.get(spec).into_iter().flat_map(|state| state.instances.values())
    }

    /// Deployments that touch an app or pod, by id.
    pub fn deployments_of(&self, spec: &PathId) -> Vec<&str> {
        self.deployments.iter().filter(|(_, it)| it.plan.changes.contains_key(spec)).map(|(id, _)| id.as_str()).collect()
    }
}

impl Scheduler {
    /// A copy for readers.
    pub fn view(&self) -> View {
        View {
            root: self.root.clone(),
            history: self.history.clone(),
            roots: self.roots.clone(),
            specs: self.specs.clone(),
            deployments: self.deployments.clone(),
            failures: self.failures.clone(),
            policies: self.policies.clone(),
            roles: self.roles.clone(),
            framework_id: self.framework_id.clone(),
            connected: self.connected,
            master: self.master.clone(),
            totals: self.totals,
            kills: self.kills(),
        }
    }

    /// What must hold whatever has happened; the first thing that does not, for people.
    ///
    /// # Errors
    /// When something does not hold.
    pub fn check(&self) -> Result<(), String> {
        for (id, state) in &self.specs {
            let mut again = SpecState::default();
            for instance in state.instances.values() {
                again.recount(instance);
                if instance.spec_id() != id {
                    return Err(format!("{} is filed under {id}", instance.id));
                }
                if instance.condition.has_task() && instance.tasks.is_empty() {
                    return Err(format!("{} is {:?} without a task", instance.id, instance.condition));
                }
            }
            if again.counts != state.counts || again.tallies != state.tallies || again.scheduled != state.scheduled {
                return Err(format!(
                    "the counts of {id} are {:?} {:?} and should be {:?} {:?}",
                    state.counts, state.tallies, again.counts, again.tallies
                ));
            }
            let known = self.root.spec(id).is_some();
            if known && state.scheduled.is_empty() == self.queue.contains_key(id) {
                return Err(format!("{id} waits and is not queued, or the other way round"));
            }
        }
        for (spec, deployment) in &self.locks {
            if !self.deployments.get(deployment).is_some_and(|it| it.plan.changes.contains_key(spec)) {
                return Err(format!("{spec} is locked by {deployment}, which does not touch it"));
            }
        }
        for deployment in self.deployments.values() {
            if deployment.step >= deployment.plan.steps.len() || deployment.pending.is_empty() {
                return Err(format!("the deployment {} has no next step", deployment.plan.id));
            }
        }
        let asked = self.kills();
        if asked.1 > asked.0 {
            return Err(format!("{} kills of {} are under way", asked.1, asked.0));
        }
        Ok(())
    }
}
