//! Access control lists: `--acls`, in Mesos' JSON. The first rule that speaks of a request decides; where none does, `permissive` does.

use std::collections::BTreeMap;
use std::sync::Arc;

use master::{Action, Authorize};
use serde_json::Value;

use crate::flags::{FlagError, Flags};

/// Lists of rules by name.
#[derive(Clone, Debug)]
pub struct Acls {
    permissive: bool,
    rules: BTreeMap<&'static str, Vec<Rule>>,
}

#[derive(Clone, Debug)]
struct Rule {
    principals: Entity,
    objects: Entity,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entity {
    Any,
    None,
    Some(Vec<String>),
}

/// The lists that there are, each with the key of its objects. Those of agents alone are known, too: one file serves both.
const LISTS: &[(&str, &str)] = &[
    ("register_frameworks", "roles"),
    ("reserve_resources", "roles"),
    ("create_volumes", "roles"),
    ("update_weights", "roles"),
    ("get_quotas", "roles"),
    ("update_quotas", "roles"),
    ("view_roles", "roles"),
    ("resize_volumes", "roles"),
    ("create_block_disks", "roles"),
    ("destroy_block_disks", "roles"),
    ("create_mount_disks", "roles"),
    ("destroy_mount_disks", "roles"),
    ("destroy_raw_disks", "roles"),
    ("run_tasks", "users"),
    ("view_frameworks", "users"),
    ("view_tasks", "users"),
    ("view_executors", "users"),
    ("access_sandboxes", "users"),
    ("launch_nested_containers_as_user", "users"),
    ("launch_nested_containers_under_parent_with_user", "users"),
    ("kill_nested_containers", "users"),
    ("wait_nested_containers", "users"),
    ("launch_nested_container_sessions_as_user", "users"),
    ("launch_nested_container_sessions_under_parent_with_user", "users"),
    ("attach_containers_input", "users"),
    ("attach_containers_output", "users"),
    ("view_containers", "users"),
    ("remove_nested_containers", "users"),
    ("launch_standalone_containers", "users"),
    ("kill_standalone_containers", "users"),
    ("wait_standalone_containers", "users"),
    ("remove_standalone_containers", "users"),
    ("view_standalone_containers", "users"),
    ("unreserve_resources", "reserver_principals"),
    ("destroy_volumes", "creator_principals"),
    ("teardown_frameworks", "framework_principals"),
    ("get_endpoints", "paths"),
    ("access_mesos_logs", "logs"),
    ("view_flags", "flags"),
    ("set_log_level", "level"),
    ("register_agents", "agents"),
    ("drain_agents", "agents"),
    ("deactivate_agents", "agents"),
    ("reactivate_agents", "agents"),
    ("mark_agents_gone", "agents"),
    ("update_maintenance_schedules", "machines"),
    ("get_maintenance_schedules", "machines"),
    ("start_maintenances", "machines"),
    ("stop_maintenances", "machines"),
    ("get_maintenance_statuses", "machines"),
    ("modify_resource_provider_configs", "resource_providers"),
    ("mark_resource_providers_gone", "resource_providers"),
    ("view_resource_providers", "resource_providers"),
    ("prune_images", "images"),
];

/// The only paths that rules of `get_endpoints` are about, as with Mesos; what else may be read has rules of its own.
pub(crate) const AUTHORIZABLE_PATHS: [&str; 6] =
    ["/containers", "/containerizer/debug", "/files/debug", "/logging/toggle", "/metrics/snapshot", "/monitor/statistics"];

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

impl Entity {
    fn parse(value: Option<&Value>, list: &str) -> Result<Entity, String> {
        let Some(Value::Object(entity)) = value else { return Err(format!("a rule of {list} lacks an entity")) };
        match entity.get("type").and_then(Value::as_str) {
            Some("ANY") => Ok(Entity::Any),
            Some("NONE") => Ok(Entity::None),
            None | Some("SOME") => {
                let values = entity.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let text = |it: &Value| it.as_str().map(str::to_owned).ok_or_else(|| format!("a value in {list} is no text"));
                Ok(Entity::Some(values.iter().map(text).collect::<Result<_, _>>()?))
            }
            Some(other) => Err(format!("a rule of {list} has an entity of the type {other:?}")),
        }
    }

    /// What it names.
    fn values(&self) -> &[String] {
        if let Entity::Some(values) = self { values } else { &[] }
    }

    fn names(values: &[String], wanted: &str, hierarchical: bool) -> bool {
        values.iter().any(|it| match it.strip_suffix("/%").filter(|_| hierarchical) {
            // Everything strictly below.
            Some(above) => wanted.strip_prefix(above).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/')),
            None => it == wanted,
        })
    }

    fn matches(&self, wanted: Option<&str>, hierarchical: bool) -> bool {
        match (self, wanted) {
            (Entity::Any | Entity::None, _) => true,
            (Entity::Some(values), Some(wanted)) => Entity::names(values, wanted, hierarchical),
            (Entity::Some(_), None) => false,
        }
    }

    fn allows(&self, wanted: Option<&str>, hierarchical: bool) -> bool {
        match (self, wanted) {
            (Entity::Any, _) => true,
            (Entity::None, _) | (Entity::Some(_), None) => false,
            (Entity::Some(values), Some(wanted)) => Entity::names(values, wanted, hierarchical),
        }
    }
}

impl Acls {
    /// As the flag `acls` says; `None` when it is not set.
    ///
    /// # Errors
    /// When it is not JSON of the known form. An unknown list is an error, too: it would forbid nothing.
    pub fn from_flags(flags: &Flags) -> Result<Option<Arc<Acls>>, FlagError> {
        let Some(text) = flags.get("acls") else { return Ok(None) };
        let failed = |problem: String| FlagError { name: "acls".to_owned(), problem };
        Acls::parse(text).map(|it| Some(Arc::new(it))).map_err(failed)
    }

    fn parse(text: &str) -> Result<Acls, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Value::Object(members) = value else { return Err("not a JSON object".to_owned()) };
        let mut acls = Acls { permissive: true, rules: BTreeMap::new() };
        for (name, value) in &members {
            if name == "permissive" {
                acls.permissive = value.as_bool().ok_or("permissive is neither true nor false")?;
                continue;
            }
            let Some((list, key)) = LISTS.iter().find(|(list, _)| list == name) else { return Err(format!("there is no list {name:?}")) };
            let items = value.as_array().ok_or_else(|| format!("{name} is no list"))?;
            let rule = |it: &Value| -> Result<Rule, String> {
                Ok(Rule { principals: Entity::parse(it.get("principals"), list)?, objects: Entity::parse(it.get(*key), list)? })
            };
            let rules: Vec<Rule> = items.iter().map(rule).collect::<Result<_, _>>()?;
            if *list == "get_endpoints"
                && let Some(path) = rules.iter().flat_map(|it| it.objects.values()).find(|it| !AUTHORIZABLE_PATHS.contains(&it.as_str()))
            {
                return Err(format!("{path} is no path that get_endpoints can forbid; those are {}", AUTHORIZABLE_PATHS.join(", ")));
            }
            acls.rules.insert(list, rules);
        }
        Ok(acls)
    }

    fn decide(&self, list: &str, principal: Option<&str>, object: Option<&str>) -> bool {
        let hierarchical = LISTS.iter().any(|(name, key)| *name == list && *key == "roles");
        for rule in self.rules.get(list).into_iter().flatten() {
            if rule.principals.matches(principal, false) && rule.objects.matches(object, hierarchical) {
                return rule.principals.allows(principal, false) && rule.objects.allows(object, hierarchical);
            }
        }
        self.permissive
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
        self.decide(list, principal, object)
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
        self.decide(list, principal, object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acls(text: &str) -> Acls {
        Acls::parse(text).unwrap()
    }

    #[test]
    fn the_first_rule_that_speaks_of_it_decides() {
        let acls = acls(
            r#"{"run_tasks": [
                {"principals": {"values": ["a", "b"]}, "users": {"values": ["alice"]}},
                {"principals": {"values": ["a"]}, "users": {"type": "NONE"}},
                {"principals": {"type": "NONE"}, "users": {"values": ["bob"]}}
            ]}"#,
        );
        let may = |principal: Option<&str>, user: &str| acls.allows(principal, Action::RunTask { user });
        assert!(may(Some("a"), "alice") && may(Some("b"), "alice"));
        assert!(!may(Some("a"), "root") && may(Some("b"), "root") && may(None, "root"));
        assert!(!may(Some("c"), "bob") && !may(None, "bob"));
    }

    #[test]
    fn without_a_rule_permissive_decides() {
        assert!(acls("{}").allows(None, Action::MarkAgentGone));
        assert!(!acls(r#"{"permissive": false}"#).allows(Some("p"), Action::MarkAgentGone));
        let some = acls(r#"{"permissive": false, "mark_agents_gone": [{"principals": {"values": ["ops"]}, "agents": {"type": "ANY"}}]}"#);
        assert!(some.allows(Some("ops"), Action::MarkAgentGone) && !some.allows(None, Action::MarkAgentGone));
        let narrow = acls(r#"{"mark_agents_gone": [{"principals": {"type": "ANY"}, "agents": {"values": ["x"]}}]}"#);
        assert!(narrow.allows(Some("ops"), Action::MarkAgentGone), "a request about any agent is not spoken of");
    }

    #[test]
    fn roles_below_another_are_meant_together() {
        let acls = acls(
            r#"{"permissive": false, "register_frameworks": [{"principals": {"type": "ANY"}, "roles": {"values": ["eng/%", "ads"]}}]}"#,
        );
        let may = |role: &str| acls.allows(None, Action::RegisterFramework { role });
        assert!(may("eng/web") && may("eng/web/x") && may("ads"));
        assert!(!may("eng") && !may("eng/") && !may("engine/web") && !may("ads/x"));
    }

    #[test]
    fn what_would_forbid_nothing_is_a_mistake() {
        for text in [
            r#"{"get_endpoints": [{"principals": {"type": "NONE"}, "paths": {"values": ["/state"]}}]}"#,
            "[]",
            r#"{"permissive": 1}"#,
            r#"{"run_task": []}"#,
            r#"{"run_tasks": {}}"#,
            r#"{"run_tasks": [{"principals": {"type": "ANY"}}]}"#,
            r#"{"run_tasks": [{"principals": {"type": "ALL"}, "users": {"type": "ANY"}}]}"#,
            r#"{"run_tasks": [{"principals": {"values": [1]}, "users": {"type": "ANY"}}]}"#,
        ] {
            assert!(Acls::parse(text).is_err(), "{text}");
        }
    }
}
