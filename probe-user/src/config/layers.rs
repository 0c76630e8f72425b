//! One value of each key, from the layer that wins, and what it means.

use std::collections::BTreeMap;
use std::path::Path;

use figment::value::Value;

use super::mistake::Origin;
use super::parse::*;
use super::*;

/// Values by key, of the layer that wins so far, and what was wrong.
#[derive(Default)]
pub(super) struct Layers {
    pub(super) values: BTreeMap<&'static str, (String, Origin)>,
    pub(super) mistakes: Vec<Mistake>,
    /// What an agent needs and is not told, by key, where TLS is asked of it.
    pub(super) untold_of_tls: Vec<(&'static str, String)>,
}

impl Layers {
    /// Puts a value over the one before.
    pub(super) fn set(&mut self, key: &'static str, value: &str, source: Origin) {
        self.values.insert(key, (value.to_owned(), source));
    }

    /// Puts what a file says over what is there.
    pub(super) fn read_file(&mut self, path: &Path) {
        use figment::providers::{Format as _, Toml};

        let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let parsed = read.and_then(|text| {
            figment::Figment::from(Toml::string(&text)).extract::<BTreeMap<String, Value>>().map_err(|error| error.to_string())
        });
        let mistake = |key: &str, value: Option<String>, problem: &str| Mistake {
            key: key.to_owned(),
            value,
            source: Origin::File(path.to_owned()),
            problem: problem.to_owned(),
        };
        let entries = match parsed {
            Ok(entries) => entries,
            Err(problem) => {
                self.mistakes.push(mistake("config", None, &problem));
                return;
            }
        };
        for (key, value) in entries {
            let text = if key == MASK { lines(&value) } else { scalar(&value) };
            match (built_in().find(|(known, _)| *known == key), text) {
                (Some((known, _)), Some(text)) => self.set(known, &text, Origin::File(path.to_owned())),
                (Some(_), None) => self.mistakes.push(mistake(&key, None, "neither a text, a number nor true or false")),
                (None, text) => {
                    let known = built_in().map(|(key, _)| key).collect::<Vec<_>>().join(", ");
                    self.mistakes.push(mistake(&key, text, &format!("no such key; there are {known}")));
                }
            }
        }
    }

    /// Reads the values.
    pub(super) fn into_config(mut self) -> Result<Config, Vec<Mistake>> {
        let roles = self.parse(ROLES, cluster::parse_roles);
        let control_plane = self.control_plane();
        let host_name = self.parse(HOST_NAME, |text| parse_name(text, 253));
        let probe_id = self.parse(PROBE_ID, |text| parse_name(text, 128));
        let state_dir = self.parse(STATE_DIR, |text| parse_path(text)?.ok_or_else(|| "empty".to_owned()));
        let admin_address = self.parse(ADMIN_ADDRESS, parse_admin_address);
        let metrics_interval = self.parse(METRICS_INTERVAL, parse_interval);
        let cpu_budget = self.parse(CPU_BUDGET, parse_cpu_budget);
        let memory_budget = self.parse(MEMORY_BUDGET, parse_memory_budget);
        let proc_root = self.parse(PROC_ROOT, |text| parse_path(text)?.ok_or_else(|| "empty".to_owned()));
        let cgroup_root = self.parse(CGROUP_ROOT, parse_path);
        let docker_socket = self.parse(DOCKER_SOCKET, |text| parse_path(text.strip_prefix("unix://").unwrap_or(text)));
        let cri_sockets = self.parse(CRI_SOCKET, parse_cri_sockets);
        let masks = self.parse(MASK, |text| Masks::new(text.lines().map(str::trim)));
        let capture = self.parse(CAPTURE, parse_capture);
        let pin_dir = self.parse(PIN_DIR, parse_pin_dir);
        let conntrack = self.parse(CONNTRACK, parse_truth);
        let unix_sockets = self.parse(UNIX_SOCKETS, parse_truth);
        let cloud_metadata: Option<bool> = self.parse(CLOUD_METADATA, parse_truth);
        let cloud_metadata_address = self.parse(CLOUD_METADATA_ADDRESS, parse_metadata_address);
        let firmware_root = self.parse(FIRMWARE_ROOT, parse_path);
        let container_env = self.parse(CONTAINER_ENV, parse_truth);
        let kernel_log = self.parse(KERNEL_LOG, parse_truth);
        let controls: Option<bool> = self.parse(CONTROLS, parse_truth);
        let host_shell: Option<bool> = self.parse(HOST_SHELL, parse_truth);
        let dns = self.parse(DNS, parse_dns);
        let command_line_arguments = self.parse(COMMAND_LINE_ARGUMENTS, parse_arguments);
        let kubernetes = self.cluster(roles);
        let shared = (|| {
            let control_plane = control_plane.clone()?;
            Some(agent::Shared { control_plane, host_name: host_name.clone()?, docker_socket: docker_socket.clone()? })
        })();
        if roles.is_some_and(|it| it.run) {
            self.tell_what_is_untold();
        }
        let agent = self.agent(shared);
        let log_format = self.parse(LOG_FORMAT, parse_log_format);
        let log_filter = self.parse(LOG_FILTER, |text| match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(error.to_string()),
        });
        let config = (|| {
            Some(Config {
                roles: roles?,
                control_plane: control_plane?,
                host_name: host_name?,
                probe_id: probe_id?,
                state_dir: state_dir?,
                admin_address: admin_address?,
                metrics_interval: metrics_interval?,
                cpu_budget: cpu_budget?,
                memory_budget: memory_budget?,
                proc_root: proc_root?,
                cgroup_root: cgroup_root?,
                docker_socket: docker_socket?,
                cri_sockets: cri_sockets?,
                masks: masks?,
                capture: capture?,
                pin_dir: pin_dir?,
                abi_salt: 0,
                conntrack: conntrack?,
                unix_sockets: unix_sockets?,
                dns: dns?,
                cloud_metadata: {
                    let config = cloud::Config::new(cloud_metadata_address?, firmware_root?);
                    cloud_metadata?.then_some(config)
                },
                container_env: container_env?,
                command_line_arguments: command_line_arguments?,
                kernel_log: kernel_log?,
                controls: controls?,
                host_shell: controls? && host_shell?,
                kubernetes: kubernetes?,
                agent: agent?,
                log_format: log_format?,
                log_filter: log_filter?,
                settings: Settings(
                    self.values.iter().map(|(key, (value, _))| (*key, value.clone())).collect(),
                    self.values.iter().filter(|(_, (_, origin))| *origin != Origin::BuiltIn).map(|(key, _)| *key).collect(),
                ),
            })
        })();
        match config {
            Some(config) if self.mistakes.is_empty() => Ok(config),
            _ => Err(self.mistakes),
        }
    }

    /// Reads one value.
    pub(super) fn parse<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let (value, source) = self.values.get(key)?;
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.mistakes.push(Mistake { key: key.to_owned(), value: Some(value.clone()), source: source.clone(), problem });
                None
            }
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Bool(_, truth) => Some(truth.to_string()),
        Value::Num(_, number) => number.to_i128().map(|it| it.to_string()).or_else(|| number.to_u128().map(|it| it.to_string())),
        _ => None,
    }
}

/// A text, or a list of texts, one a line.
fn lines(value: &Value) -> Option<String> {
    match value {
        Value::Array(_, values) => values.iter().map(scalar).collect::<Option<Vec<_>>>().map(|it| it.join("\n")),
        _ => scalar(value),
    }
}
