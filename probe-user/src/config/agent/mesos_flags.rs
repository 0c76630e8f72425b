//! Flags of the agent as Mesos spells them, from one key of ours and from the environment (`MESOS_WORK_DIR`), so that a unit file or a script that
//! started Mesos's agent says the same to this one.

use std::collections::BTreeMap;

use super::*;
use crate::config::{DOCKER_SOCKET, HOST_NAME, Mistake, Origin};

/// What the environment's flags of Mesos begin with.
const PREFIX: &str = "MESOS_";

/// Flags that say how Mesos does what is done here in one way, or where it logs.
const WITHOUT_EFFECT: [&str; 18] = [
    "authenticatee",
    "authentication_backoff_factor",
    "cgroups_hierarchy",
    "docker",
    "http_authenticators",
    "http_command_executor",
    "image_providers",
    "image_provisioner_backend",
    "initialize_driver_logging",
    "launcher_dir",
    "log_dir",
    "logbufsecs",
    "logging_level",
    "quiet",
    "strict",
    "systemd_enable_support",
    "systemd_runtime_directory",
    "version",
];

impl Layers {
    /// Puts what is said in Mesos's words over what is there: first the environment's, then those of the text, which has a flag a word.
    pub(in crate::config) fn read_mesos_flags(&mut self, environment: &BTreeMap<String, String>, text: &str) {
        let mut given: BTreeMap<String, (String, bool)> = BTreeMap::new();
        for (variable, value) in environment {
            if let Some(name) = variable.strip_prefix(PREFIX) {
                given.insert(name.to_lowercase(), (value.clone(), false));
            }
        }
        for word in text.split_whitespace() {
            let word = word.trim_start_matches('-');
            let (name, value) = match (word.split_once('='), word.strip_prefix("no-")) {
                (Some((name, value)), _) => (name, value),
                (None, Some(name)) => (name, "false"),
                (None, None) => (word, "true"),
            };
            given.insert(name.to_owned(), (value.to_owned(), true));
        }
        self.listen(&mut given);
        for (name, (value, is_flag)) in given {
            match translated(&name, &value) {
                Translated::Key(key, value) => self.set(key, &value, Origin::Flag),
                Translated::Nothing => {}
                // What the environment of anything of Mesos's has in it is not all for agents.
                Translated::Problem(_) | Translated::Unknown if !is_flag => {}
                Translated::Problem(problem) => self.mesos_mistake(&name, &value, problem),
                Translated::Unknown => self.mesos_mistake(&name, &value, "Mesos's agent has no such flag, or this one has not".to_owned()),
            }
        }
    }

    /// Address and port are one key here.
    fn listen(&mut self, given: &mut BTreeMap<String, (String, bool)>) {
        let (ip, port) = (given.remove("ip"), given.remove("port"));
        if ip.is_none() && port.is_none() {
            return;
        }
        let ip = ip.map_or_else(|| "0.0.0.0".to_owned(), |(ip, _)| ip);
        let port = port.map_or_else(|| "5051".to_owned(), |(port, _)| port);
        let address = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
        self.set(AGENT_ADDRESS, &address, Origin::Flag);
    }

    fn mesos_mistake(&mut self, name: &str, value: &str, problem: String) {
        let (key, value) = (MESOS_FLAGS.to_owned(), Some(format!("--{name}={value}")));
        self.mistakes.push(Mistake { key, value, source: Origin::Flag, problem });
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Translated {
    Key(&'static str, String),
    Nothing,
    Problem(String),
    Unknown,
}

/// A flag of Mesos in our words.
fn translated(name: &str, value: &str) -> Translated {
    match name {
        "master" => Translated::Problem("agents find the master through the control plane's gRPC addresses: set control-plane".to_owned()),
        "hostname" => Translated::Key(HOST_NAME, value.to_owned()),
        "docker_socket" => Translated::Key(DOCKER_SOCKET, value.to_owned()),
        "domain" => match fault_domain(value) {
            Some(domain) => Translated::Key(DOMAIN, domain),
            None => Translated::Problem("no fault domain with a region and a zone".to_owned()),
        },
        "containerizers" if value.split(',').all(|it| matches!(it.trim(), "docker" | "mesos")) => Translated::Nothing,
        "launcher" if matches!(value, "linux" | "posix") => Translated::Nothing,
        "containerizers" => Translated::Problem("there are docker and mesos".to_owned()),
        "launcher" => Translated::Problem("there are linux and posix".to_owned()),
        _ if WITHOUT_EFFECT.contains(&name) => Translated::Nothing,
        _ => {
            let key = BUILT_IN.iter().map(|(key, _)| *key).find(|key| *key != MESOS_FLAGS && key.replace('-', "_") == name);
            key.map_or(Translated::Unknown, |key| Translated::Key(key, value.to_owned()))
        }
    }
}

/// `region/zone` of Mesos's JSON, which may be in a file; what is no JSON stays as it is.
fn fault_domain(value: &str) -> Option<String> {
    let text = match value.strip_prefix("file://") {
        Some(path) => std::fs::read_to_string(path).ok()?,
        None => value.to_owned(),
    };
    if !text.trim_start().starts_with('{') {
        return Some(text.trim().to_owned());
    }
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    let name = |part: &str| json["fault_domain"][part]["name"].as_str();
    Some(format!("{}/{}", name("region")?, name("zone")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(environment: &[(&str, &str)], text: &str) -> Layers {
        let mut layers = Layers::default();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        layers.read_mesos_flags(&environment, text);
        layers
    }

    #[test]
    fn flags_of_mesos_are_our_keys() {
        let layers = read(
            &[("MESOS_WORK_DIR", "/w"), ("MESOS_GC_DELAY", "2days"), ("MESOS_SANDBOX", "/s"), ("MESOS_MASTER", "zk://x"), ("PATH", "/bin")],
            "--gc_delay=1days --no-switch_user --cgroups_enable_cfs --ip=10.0.0.1 --hostname=one --containerizers=docker,mesos --quiet",
        );
        assert!(layers.mistakes.is_empty());
        let values: Vec<(&str, &str)> = layers.values.iter().map(|(key, (value, _))| (*key, value.as_str())).collect();
        assert_eq!(
            values,
            [
                ("agent-address", "10.0.0.1:5051"),
                ("cgroups-enable-cfs", "true"),
                ("gc-delay", "1days"),
                ("host-name", "one"),
                ("switch-user", "false"),
                ("work-dir", "/w"),
            ]
        );
    }

    #[test]
    fn flags_that_say_what_is_not_done_are_refused() {
        let layers = read(&[], "--master=zk://x/mesos --modules=x --containerizers=rocket --domain={} --launcher=none");
        let problems: Vec<String> = layers.mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 5);
        assert!(
            problems.iter().any(|it| it.starts_with("--mesos-flags is \"--master=zk://x/mesos\": agents find the master")),
            "{problems:?}"
        );
    }

    #[test]
    fn a_fault_domain_may_be_json() {
        let json = r#"{"fault_domain": {"region": {"name": "eu"}, "zone": {"name": "a"}}}"#;
        assert_eq!(fault_domain(json).as_deref(), Some("eu/a"));
        assert_eq!(fault_domain("eu/a").as_deref(), Some("eu/a"));
        assert_eq!(fault_domain(r#"{"fault_domain": {}}"#), None);
    }
}
