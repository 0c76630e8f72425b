//! Marathon's own flags, so that what people have in their unit files goes on working.

use std::time::Duration;

use scheduler::AcceptedRoles;

use super::Settings;

/// A flag that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}: {problem}")]
pub struct BadFlag {
    flag: String,
    problem: String,
}

/// Flags that are taken and mean nothing here: they tune what this program does not have.
const WITHOUT_EFFECT: &[&str] = &[
    "ha",
    "http_address",
    "http_port",
    "https_address",
    "https_port",
    "disable_http",
    "http_compression",
    "leader_proxy_connection_timeout",
    "leader_proxy_read_timeout",
    "leader_proxy_max_open_connections",
    "leader_proxy_ssl_ignore_hostname",
    "max_parallel_offers",
    "max_queued_offers",
    "max_queued_root_group_updates",
    "offer_matching_timeout",
    "mesos_offer_constraints",
    "task_reservation_timeout",
    "task_lost_expunge_initial_delay",
    "task_lost_expunge_interval",
    "on_elected_prepare_timeout",
    "graceful_shutdown_timeout",
    "zk",
    "zk_timeout",
    "zk_session_timeout",
    "zk_connection_timeout",
    "zk_max_node_size",
    "zk_compression",
    "zk_compression_threshold",
    "storage_compaction_interval",
    "group_versions_cache_size",
    "store_cache",
    "instance_tracker_num_parallel_updates",
    "instance_tracker_update_queue_size",
    "max_parallel_status_updates",
    "max_queued_status_updates",
    "group_manager_request_timeout",
    "task_tracker_request_timeout",
    "task_update_request_timeout",
    "launch_queue_request_timeout",
    "deployment_manager_request_timeout",
    "metrics_prometheus",
    "metrics_name_prefix",
    "logging_level",
    "mesos_leader_ui_url",
    "mesos_authentication",
    "mesos_heartbeat_interval",
    "mesos_heartbeat_failure_threshold",
    "deprecated_features",
    "maintenance_mode",
];

impl Settings {
    /// Takes Marathon's flags: `--name=value`, `--name value`, `--name`, `--disable_name`.
    ///
    /// # Errors
    /// The first flag that is unknown or has a value that it cannot have.
    pub fn with_flags<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Result<Settings, BadFlag> {
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            let bad = |problem: &str| BadFlag { flag: word.trim_start_matches('-').to_owned(), problem: problem.to_owned() };
            let flag = word.strip_prefix("--").ok_or_else(|| bad("a flag begins with two dashes"))?;
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, words.next_if(|next| !next.starts_with("--")).map(str::to_owned)),
            };
            self.set(name, value.as_deref().unwrap_or_default()).map_err(|problem| BadFlag { flag: name.to_owned(), problem })?;
        }
        Ok(self)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<u64>().map_err(|_| format!("{value:?} is no number"));
        let count = || value.parse::<usize>().map_err(|_| format!("{value:?} is no number"));
        let port = || value.parse::<u16>().map_err(|_| format!("{value:?} is no port"));
        let millis = || number().map(Duration::from_millis);
        let text = || Some(value.to_owned()).filter(|text| !text.is_empty());
        let on = || !value.eq_ignore_ascii_case("false");
        let pair = || {
            let (one, two) = value.split_once(':').ok_or("not of the form name:password")?;
            Ok::<_, String>((one.to_owned(), two.to_owned()))
        };
        let core = &mut self.core;
        match name {
            "master" => self.masters = value.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect(),
            "framework_name" => self.framework_name = value.to_owned(),
            "failover_timeout" => self.failover_timeout = Duration::from_secs(number()?),
            "checkpoint" => self.checkpoint = on(),
            "disable_checkpoint" => self.checkpoint = false,
            "mesos_user" => self.user = value.to_owned(),
            "mesos_authentication_principal" => {
                self.core.principal = text();
                self.principal = text().map(|name| (name, self.principal.take().and_then(|(_, secret)| secret)));
            }
            "mesos_authentication_secret" => {
                let name = self.principal.take().map(|(name, _)| name).unwrap_or_default();
                self.principal = Some((name, text()));
            }
            "mesos_authentication_secret_file" => {
                let secret = std::fs::read_to_string(value).map_err(|error| error.to_string())?;
                let name = self.principal.take().map(|(name, _)| name).unwrap_or_default();
                self.principal = Some((name, Some(secret.trim_end().to_owned())));
            }
            "hostname" => self.hostname = value.to_owned(),
            "webui_url" => self.webui_url = text(),
            "default_network_name" => self.default_network_name = text(),
            "mesos_bridge_name" => self.mesos_bridge_name = value.to_owned(),
            "http_credentials" => self.http_credentials = Some(pair()?),
            "http_realm" => self.http_realm = value.to_owned(),
            "access_control_allow_origin" => self.access_control_allow_origin = text(),
            "http_max_concurrent_requests" => self.http_max_concurrent_requests = Some(count()?),
            "event_stream_max_outstanding_messages" => self.event_stream_max_outstanding_messages = count()?,
            "mesos_role" => core.default_role = text().unwrap_or_else(|| "*".to_owned()),
            "local_port_min" => core.local_ports.0 = port()?,
            "local_port_max" => core.local_ports.1 = port()?,
            "max_running_deployments" => core.max_running_deployments = count()?,
            "max_apps" => core.max_apps = Some(count()?),
            "max_instances_per_offer" => core.max_instances_per_offer = count()?.max(1),
            "launch_tokens" => core.launch_tokens = u32::try_from(number()?).map_err(|_| "too many".to_owned())?,
            "launch_token_refresh_interval" => core.launch_token_refresh_interval = millis()?,
            "decline_offer_duration" => core.decline_offer_duration = millis()?,
            "min_revive_offers_interval" => core.min_revive_offers_interval = millis()?,
            "suppress_offers" => core.suppress_offers = on(),
            "disable_suppress_offers" => core.suppress_offers = false,
            "reconciliation_initial_delay" => core.reconciliation_initial_delay = millis()?,
            "reconciliation_interval" => core.reconciliation_interval = millis()?,
            "scale_apps_initial_delay" => core.scale_apps_initial_delay = millis()?,
            "scale_apps_interval" => core.scale_apps_interval = millis()?,
            "task_launch_timeout" => core.task_launch_timeout = millis()?,
            "task_launch_confirm_timeout" => core.task_launch_confirm_timeout = millis()?,
            "kill_chunk_size" => core.kill_chunk_size = count()?.max(1),
            "kill_retry_timeout" => core.kill_retry_timeout = millis()?,
            "max_concurrent_marathon_health_checks" => core.max_concurrent_health_checks = count()?.max(1),
            "zk_max_versions" => core.max_versions = count()?.max(1),
            "env_vars_prefix" => core.env_vars_prefix = value.to_owned(),
            "draining_seconds" => core.draining = Duration::from_secs(number()?),
            "new_group_enforce_role" => core.new_group_enforce_role = value.eq_ignore_ascii_case("top"),
            "accepted_resource_roles_default_behavior" => {
                core.accepted_roles = match value {
                    "any" => AcceptedRoles::Any,
                    "unreserved" => AcceptedRoles::Unreserved,
                    "reserved" => AcceptedRoles::Reserved,
                    _ => return Err(format!("{value:?} is none of any, unreserved, reserved")),
                }
            }
            "gpu_scheduling_behavior" => {
                core.gpus_are_scarce = match value {
                    "restricted" => true,
                    "unrestricted" => false,
                    _ => return Err(format!("{value:?} is none of restricted, unrestricted")),
                }
            }
            "enable_features" => {
                const KNOWN: [&str; 5] = ["vips", "task_killing", "external_volumes", "secrets", "gpu_resources"];
                for feature in value.split(',').map(str::trim).filter(|it| !it.is_empty()) {
                    if !KNOWN.contains(&feature) {
                        return Err(format!("there is no feature {feature:?}; there are {}", KNOWN.join(", ")));
                    }
                    core.features.insert(feature.to_owned());
                }
            }
            other if WITHOUT_EFFECT.contains(&other) || other.strip_prefix("disable_").is_some_and(|it| WITHOUT_EFFECT.contains(&it)) => {}
            _ => return Err("there is no such flag".to_owned()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_taken_in_every_form() {
        let words = "--framework_name=mine --mesos_role web --disable_checkpoint --enable_features secrets,vips --kill_retry_timeout=5000 --zk zk://x";
        let settings = Settings::default().with_flags(words.split(' ')).unwrap();
        assert_eq!((settings.framework_name.as_str(), settings.core.default_role.as_str(), settings.checkpoint), ("mine", "web", false));
        assert!(settings.core.features.contains("secrets"));
        assert_eq!(settings.core.kill_retry_timeout, Duration::from_secs(5));
    }

    #[test]
    fn secrets_are_taken_with_a_word_of_warning() {
        let settings = |words: &str| Settings::default().with_flags(words.split(' ')).unwrap();
        assert!(settings("--enable_features=vips").remarks().is_empty());
        assert!(settings("--enable_features=vips,secrets").remarks()[0].contains("without a secret resolver"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, problem) in [
            ("--nonsense", "--nonsense: there is no such flag"),
            ("--local_port_min=x", "--local_port_min: \"x\" is no port"),
            ("mesos_role", "--mesos_role: a flag begins with two dashes"),
            (
                "--enable_features=x",
                "--enable_features: there is no feature \"x\"; there are vips, task_killing, external_volumes, secrets, gpu_resources",
            ),
        ] {
            assert_eq!(Settings::default().with_flags(words.split(' ')).unwrap_err().to_string(), problem);
        }
    }
}
