//! Mesos's access control lists: `--acls`, in Mesos' JSON. The first rule that speaks of a request decides; where none does, `permissive` does.
//!
//! Owns the lists' names, what their rules are about and how they decide. Must never know who asks for what: the edges of master and agent do, which
//! share one file of rules.

use std::collections::BTreeMap;

use serde_json::Value;

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
pub const AUTHORIZABLE_PATHS: [&str; 6] =
    ["/containers", "/containerizer/debug", "/files/debug", "/logging/toggle", "/metrics/snapshot", "/monitor/statistics"];

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
    /// Reads the lists.
    ///
    /// # Errors
    /// When the text is not JSON of the known form. An unknown list is an error, too: it would forbid nothing.
    pub fn parse(text: &str) -> Result<Acls, String> {
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

    /// Whether the rules of `list` let `principal` do what it is about to `object`; `None` stands for any.
    pub fn decide(&self, list: &str, principal: Option<&str>, object: Option<&str>) -> bool {
        let hierarchical = LISTS.iter().any(|(name, key)| *name == list && *key == "roles");
        for rule in self.rules.get(list).into_iter().flatten() {
            if rule.principals.matches(principal, false) && rule.objects.matches(object, hierarchical) {
                return rule.principals.allows(principal, false) && rule.objects.allows(object, hierarchical);
            }
        }
        self.permissive
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
        let may = |principal: Option<&str>, user: &str| acls.decide("run_tasks", principal, Some(user));
        assert!(may(Some("a"), "alice") && may(Some("b"), "alice"));
        assert!(!may(Some("a"), "root") && may(Some("b"), "root") && may(None, "root"));
        assert!(!may(Some("c"), "bob") && !may(None, "bob"));
    }

    #[test]
    fn without_a_rule_permissive_decides() {
        assert!(acls("{}").decide("mark_agents_gone", None, None));
        assert!(!acls(r#"{"permissive": false}"#).decide("mark_agents_gone", Some("p"), None));
        let some = acls(r#"{"permissive": false, "mark_agents_gone": [{"principals": {"values": ["ops"]}, "agents": {"type": "ANY"}}]}"#);
        assert!(some.decide("mark_agents_gone", Some("ops"), None) && !some.decide("mark_agents_gone", None, None));
        let narrow = acls(r#"{"mark_agents_gone": [{"principals": {"type": "ANY"}, "agents": {"values": ["x"]}}]}"#);
        assert!(narrow.decide("mark_agents_gone", Some("ops"), None), "a request about any agent is not spoken of");
    }

    #[test]
    fn roles_below_another_are_meant_together() {
        let acls = acls(
            r#"{"permissive": false, "register_frameworks": [{"principals": {"type": "ANY"}, "roles": {"values": ["eng/%", "ads"]}}]}"#,
        );
        let may = |role: &str| acls.decide("register_frameworks", None, Some(role));
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
