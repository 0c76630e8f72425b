//! An app or a pod: what both have in common, seen by the planner and the matcher.

use std::sync::Arc;

use base::Timestamp;

use super::app::{App, VersionInfo};
use super::health::ReadinessCheck;
use super::pod::Pod;
use super::{Backoff, Constraint, KillSelection, ResourceNeeds, UnreachableStrategy, UpgradeStrategy};
use crate::id::PathId;

/// An app or a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// An app.
    App(Arc<App>),
    /// A pod.
    Pod(Arc<Pod>),
}

macro_rules! both {
    ($self:ident, $it:ident => $value:expr) => {
        match $self {
            Spec::App($it) => $value,
            Spec::Pod($it) => $value,
        }
    };
}

impl Spec {
    /// Its path.
    pub fn id(&self) -> &PathId {
        both!(self, it => &it.id)
    }

    /// When it was last changed.
    pub fn version(&self) -> Timestamp {
        both!(self, it => it.version)
    }

    /// When what was changed.
    pub fn version_info(&self) -> VersionInfo {
        both!(self, it => it.version_info)
    }

    /// Instances launched with an older one are outdated.
    pub fn config_version(&self) -> Timestamp {
        self.version_info().last_config_change_at
    }

    /// How many there should be.
    pub fn instances(&self) -> u32 {
        both!(self, it => it.instances)
    }

    /// What one instance takes of an offer.
    pub fn needs(&self) -> ResourceNeeds {
        both!(self, it => it.needs())
    }

    /// Where instances may be.
    pub fn constraints(&self) -> &[Constraint] {
        both!(self, it => &it.constraints)
    }

    /// Role in which offers are taken.
    pub fn role(&self) -> &str {
        both!(self, it => &it.role)
    }

    /// Roles whose resources are taken; empty for the default.
    pub fn accepted_resource_roles(&self) -> &[String] {
        both!(self, it => &it.accepted_resource_roles)
    }

    /// How it is updated.
    pub fn upgrade_strategy(&self) -> UpgradeStrategy {
        both!(self, it => it.upgrade_strategy)
    }

    /// Pause after failures.
    pub fn backoff(&self) -> Backoff {
        both!(self, it => it.backoff)
    }

    /// Who goes first.
    pub fn kill_selection(&self) -> KillSelection {
        both!(self, it => it.kill_selection)
    }

    /// When agents cannot be reached.
    pub fn unreachable(&self) -> UnreachableStrategy {
        both!(self, it => it.unreachable)
    }

    /// Whether instances are bound to a reservation.
    pub fn is_resident(&self) -> bool {
        both!(self, it => it.is_resident())
    }

    /// Paths that are deployed before.
    pub fn dependencies(&self) -> &[PathId] {
        match self {
            Spec::App(app) => &app.dependencies,
            Spec::Pod(_) => &[],
        }
    }

    /// Whether anything tells healthy from not.
    pub fn has_health_checks(&self) -> bool {
        match self {
            Spec::App(app) => !app.health_checks.is_empty(),
            Spec::Pod(pod) => pod.containers.iter().any(|container| container.health_check.is_some()),
        }
    }

    /// What tells ready from not.
    pub fn readiness_checks(&self) -> &[ReadinessCheck] {
        match self {
            Spec::App(app) => &app.readiness_checks,
            Spec::Pod(_) => &[],
        }
    }

    /// Whether it is a pod.
    pub fn is_pod(&self) -> bool {
        matches!(self, Spec::Pod(_))
    }

    /// The app, when it is one.
    pub fn app(&self) -> Option<&Arc<App>> {
        match self {
            Spec::App(app) => Some(app),
            Spec::Pod(_) => None,
        }
    }

    /// The pod, when it is one.
    pub fn pod(&self) -> Option<&Arc<Pod>> {
        match self {
            Spec::App(_) => None,
            Spec::Pod(pod) => Some(pod),
        }
    }

    /// Whether both would run the same.
    pub fn same_config(&self, other: &Spec) -> bool {
        match (self, other) {
            (Spec::App(one), Spec::App(two)) => one.same_config(two),
            (Spec::Pod(one), Spec::Pod(two)) => one.same_config(two),
            _ => false,
        }
    }

    /// The same with so many instances.
    pub fn with_instances(&self, instances: u32) -> Spec {
        let mut spec = self.clone();
        match &mut spec {
            Spec::App(app) => Arc::make_mut(app).instances = instances,
            Spec::Pod(pod) => Arc::make_mut(pod).instances = instances,
        }
        spec
    }

    /// The same with these versions.
    pub fn with_version(&self, version: Timestamp, info: VersionInfo) -> Spec {
        let mut spec = self.clone();
        match &mut spec {
            Spec::App(app) => {
                let app = Arc::make_mut(app);
                app.version = version;
                app.version_info = info;
            }
            Spec::Pod(pod) => {
                let pod = Arc::make_mut(pod);
                pod.version = version;
                pod.version_info = info;
            }
        }
        spec
    }

    /// The same in another role.
    pub fn with_role(&self, role: &str) -> Spec {
        let mut spec = self.clone();
        match &mut spec {
            Spec::App(app) => role.clone_into(&mut Arc::make_mut(app).role),
            Spec::Pod(pod) => role.clone_into(&mut Arc::make_mut(pod).role),
        }
        spec
    }
}
