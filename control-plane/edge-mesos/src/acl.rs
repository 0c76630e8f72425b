//! Access control lists of the master: which list decides what is asked of it.

use std::sync::Arc;

use master::{Action, Authorize};

use crate::flags::{FlagError, Flags};

/// The lists, for what is asked of the master.
#[derive(Clone, Debug)]
pub struct Acls(mesos_acl::Acls);

/// What of the master can be read, and by whom it may be forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight<'a> {
    Role(&'a str),
    Quota(&'a str),
    Framework(&'a str),
    Task(&'a str),
    Executor(&'a str),
    Endpoint(&'a str),
    Logs,
    Flags,
    LogLevel,
    MaintenanceSchedule,
    MaintenanceStatus,
}

impl Acls {
    /// As the flag `acls` says; `None` when it is not set.
    ///
    /// # Errors
    /// When it is not JSON of the known form. An unknown list is an error, too: it would forbid nothing.
    pub fn from_flags(flags: &Flags) -> Result<Option<Arc<Acls>>, FlagError> {
        let Some(text) = flags.get("acls") else { return Ok(None) };
        let failed = |problem: String| FlagError { name: "acls".to_owned(), problem };
        mesos_acl::Acls::parse(text).map(|it| Some(Arc::new(Acls(it)))).map_err(failed)
    }

    /// Whether `principal` may see something.
    pub(crate) fn sees(&self, principal: Option<&str>, sight: Sight<'_>) -> bool {
        let (list, object) = match sight {
            Sight::Role(it) => ("view_roles", Some(it)),
            Sight::Quota(it) => ("get_quotas", Some(it)),
            Sight::Framework(it) => ("view_frameworks", Some(it)),
            Sight::Task(it) => ("view_tasks", Some(it)),
            Sight::Executor(it) => ("view_executors", Some(it)),
            Sight::Endpoint(it) => ("get_endpoints", Some(it)),
            Sight::Logs => ("access_mesos_logs", None),
            Sight::Flags => ("view_flags", None),
            Sight::LogLevel => ("set_log_level", None),
            Sight::MaintenanceSchedule => ("get_maintenance_schedules", None),
            Sight::MaintenanceStatus => ("get_maintenance_statuses", None),
        };
        self.0.decide(list, principal, object)
    }
}

impl Authorize for Acls {
    fn allows(&self, principal: Option<&str>, action: Action<'_>) -> bool {
        let (list, object) = match action {
            Action::RegisterFramework { role } => ("register_frameworks", Some(role)),
            Action::RunTask { user } => ("run_tasks", Some(user)),
            Action::Reserve { role } => ("reserve_resources", Some(role)),
            Action::Unreserve { reserver } => ("unreserve_resources", reserver),
            Action::CreateVolume { role } => ("create_volumes", Some(role)),
            Action::DestroyVolume { creator } => ("destroy_volumes", creator),
            Action::ResizeVolume { role } => ("resize_volumes", Some(role)),
            Action::Teardown { principal } => ("teardown_frameworks", principal),
            Action::UpdateWeight { role } => ("update_weights", Some(role)),
            Action::UpdateQuota { role } => ("update_quotas", Some(role)),
            Action::UpdateMaintenanceSchedule => ("update_maintenance_schedules", None),
            Action::StartMaintenance => ("start_maintenances", None),
            Action::StopMaintenance => ("stop_maintenances", None),
            Action::DrainAgent => ("drain_agents", None),
            Action::DeactivateAgent => ("deactivate_agents", None),
            Action::ReactivateAgent => ("reactivate_agents", None),
            Action::MarkAgentGone => ("mark_agents_gone", None),
            Action::RegisterAgent => ("register_agents", None),
        };
        self.0.decide(list, principal, object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_of_the_master_are_decided_by_their_lists() {
        let text = r#"{"permissive": false, "run_tasks": [{"principals": {"values": ["a"]}, "users": {"values": ["alice"]}}],
            "mark_agents_gone": [{"principals": {"values": ["ops"]}, "agents": {"type": "ANY"}}]}"#;
        let acls = Acls(mesos_acl::Acls::parse(text).unwrap());
        assert!(acls.allows(Some("a"), Action::RunTask { user: "alice" }) && !acls.allows(Some("a"), Action::RunTask { user: "root" }));
        assert!(acls.allows(Some("ops"), Action::MarkAgentGone) && !acls.allows(Some("a"), Action::MarkAgentGone));
        assert!(!acls.sees(Some("a"), Sight::Flags));
    }
}
