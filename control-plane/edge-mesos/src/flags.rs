//! Mesos' master flags: what `/flags` shows, and what of them the core is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use master::{Config, Rate, Sorter};
use mesos::{Quantities, Scalar};

use crate::guards::{self, Firewall};

/// Flags with their defaults, as Mesos 1.11 has them. Those without a default are shown once they are set.
const DEFAULTS: &[(&str, &str)] = &[
    ("agent_ping_timeout", "15secs"),
    ("agent_reregister_timeout", "10mins"),
    ("allocation_interval", "1secs"),
    ("allocator", "hierarchical"),
    ("allocator_agent_recovery_factor", "0.8"),
    ("allocator_recovery_timeout", "10mins"),
    ("authenticate_agents", "false"),
    ("authenticate_frameworks", "false"),
    ("authenticate_http_frameworks", "false"),
    ("authenticate_http_readonly", "false"),
    ("authenticate_http_readwrite", "false"),
    ("authentication_v0_timeout", "15secs"),
    ("authenticators", "crammd5"),
    ("authorizers", "local"),
    ("filter_gpu_resources", "true"),
    ("framework_sorter", "drf"),
    ("help", "false"),
    ("hostname_lookup", "true"),
    ("http_authenticators", "basic"),
    ("initialize_driver_logging", "true"),
    ("log_auto_initialize", "true"),
    ("logbufsecs", "0"),
    ("logging_level", "INFO"),
    ("max_agent_ping_timeouts", "5"),
    ("max_completed_frameworks", "50"),
    ("max_completed_tasks_per_framework", "1000"),
    ("max_operator_event_stream_subscribers", "1000"),
    ("max_unreachable_tasks_per_framework", "1000"),
    ("memory_profiling", "false"),
    ("min_allocatable_resources", "cpus:0.01|mem:32"),
    ("offer_constraints_re2_max_mem", "4KB"),
    ("offer_constraints_re2_max_program_size", "100"),
    ("port", "5050"),
    ("publish_per_framework_metrics", "true"),
    ("quiet", "false"),
    ("recovery_agent_removal_limit", "100%"),
    ("registry", "replicated_log"),
    ("registry_fetch_timeout", "1mins"),
    ("registry_gc_interval", "15mins"),
    ("registry_max_agent_age", "2weeks"),
    ("registry_max_agent_count", "102400"),
    ("registry_store_timeout", "20secs"),
    ("registry_strict", "false"),
    ("require_agent_domain", "false"),
    ("role_sorter", "drf"),
    ("root_submissions", "true"),
    ("version", "false"),
    ("zk_session_timeout", "10secs"),
];

/// Flags that may be set and have no default.
const WITHOUT_DEFAULT: &[&str] = &[
    "acls",
    "advertise_ip",
    "advertise_port",
    "agent_removal_rate_limit",
    "cluster",
    "credentials",
    "domain",
    "external_log_file",
    "fair_sharing_excluded_resource_names",
    "firewall_rules",
    "hostname",
    "ip_discovery_command",
    "http_framework_authenticators",
    "ip",
    "log_dir",
    "offer_timeout",
    "quorum",
    "rate_limits",
    "roles",
    "weights",
    "whitelist",
    "work_dir",
    "zk",
];

/// Names of before, and what the flags are called now.
const ALIASES: &[(&str, &str)] =
    &[("authenticate", "authenticate_frameworks"), ("authenticate_http", "authenticate_http_readwrite"), ("user_sorter", "role_sorter")];

/// Flags that would decide who leads or what is loaded: taken here they would only seem to.
const ELSEWHERE: &[(&str, &str)] = &[
    ("zk", "who leads is decided by the key `zk` of the control plane (`--zk=zk://host:2181/mesos`), for everything in it at once"),
    ("zk_session_timeout", "how long a session outlives its connection is decided by the key `zk-session-timeout` of the control plane"),
    ("quorum", "there is no replicated log: the ensemble of the control plane's key `zk` has a majority of its own"),
    ("master_contender", "who leads is decided by the key `zk` of the control plane; modules of Mesos cannot be loaded"),
    ("master_detector", "who leads is decided by the key `zk` of the control plane; modules of Mesos cannot be loaded"),
    ("modules", NO_MODULES),
    ("modules_dir", NO_MODULES),
    ("hooks", NO_MODULES),
    ("webui_dir", "the pages are part of the program"),
];

const NO_MODULES: &str = "modules of Mesos are C++ libraries, which cannot be loaded here";

/// Flags of which some values alone can hold, and what to do about the others.
const HELD: &[(&str, &[&str], &str)] = &[
    ("allocator", &["hierarchical", "HierarchicalDRF"], NO_MODULES),
    ("authenticators", &["crammd5"], "agents and frameworks show a principal and its secret of --credentials; modules cannot be loaded"),
    ("authorizers", &["local"], NO_MODULES),
    ("framework_sorter", &["drf", "random"], "there are drf and random"),
    ("http_authenticators", &["basic"], "there is HTTP Basic, against --credentials"),
    ("http_framework_authenticators", &["basic"], "there is HTTP Basic, against --credentials"),
    ("logging_level", &["INFO"], "what is logged is decided by the key `log-filter` of the control plane (`--log-filter=warn`)"),
    ("memory_profiling", &["false", "0"], "there is no profiler in this program"),
    ("quiet", &["false", "0"], "what is logged is decided by the key `log-filter` of the control plane (`--log-filter=off`)"),
    (
        "registry",
        &["replicated_log", "in_memory"],
        "there are replicated_log, which is kept in the data directory or in ZooKeeper, and in_memory",
    ),
    ("registry_strict", &["false", "0"], "Mesos does not support it either"),
    ("role_sorter", &["drf", "random"], "there are drf and random"),
];

/// All flags as texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags(BTreeMap<String, String>);

/// A flag that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{name}: {problem}")]
pub struct FlagError {
    /// Which.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Default for Flags {
    fn default() -> Self {
        Flags(DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }
}

/// Flags that Mesos takes the bare path of a file for, too.
const OF_FILES: [&str; 3] = ["acls", "credentials", "rate_limits"];

impl Flags {
    /// Sets flags from words such as `--allocation_interval=2secs` or `--no-root_submissions`; the dashes may be left out. A value `file:///path` is
    /// read from that file, and for flags that are mostly files `/path`, too.
    ///
    /// # Errors
    /// When a flag is unknown or its file cannot be read.
    pub fn with<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Result<Flags, FlagError> {
        for word in words.into_iter().map(str::trim).filter(|it| !it.is_empty()) {
            let word = word.trim_start_matches('-');
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => match word.strip_prefix("no-") {
                    Some(name) => (name, "false".to_owned()),
                    None => (word, "true".to_owned()),
                },
            };
            let name = modern(name);
            let failed = |problem: String| FlagError { name: name.clone(), problem };
            if let Some((_, instead)) = ELSEWHERE.iter().find(|(it, _)| *it == name) {
                return Err(failed((*instead).to_owned()));
            }
            if !Flags::knows(&name) {
                return Err(failed("Mesos has no such flag, or it means nothing here".to_owned()));
            }
            if let Some((_, values, instead)) = HELD.iter().find(|(it, values, _)| *it == name && !values.contains(&value.as_str())) {
                return Err(failed(format!("{value:?} cannot be had, but {}: {instead}", values.join(" or "))));
            }
            // The whitelist's file is looked at again and again.
            let path = value
                .strip_prefix("file://")
                .or_else(|| OF_FILES.contains(&name.as_str()).then_some(value.as_str()).filter(|it| it.starts_with('/')));
            let value = match path.filter(|_| name != "whitelist") {
                Some(path) => std::fs::read_to_string(path).map_err(|error| failed(format!("{path}: {error}")))?.trim().to_owned(),
                None => value,
            };
            self.0.insert(name, value);
        }
        Ok(self)
    }

    /// Whether a master of Mesos has a flag of this name, or had.
    pub fn knows(name: &str) -> bool {
        let name = modern(name);
        DEFAULTS.iter().any(|(it, _)| *it == name)
            || WITHOUT_DEFAULT.contains(&name.as_str())
            || ELSEWHERE.iter().any(|(it, _)| *it == name)
    }

    /// The words that an environment has for flags, as Mesos reads it: `MESOS_CLUSTER=main` is `--cluster=main`. Other variables of that prefix,
    /// which tasks and agents have, are no flags.
    pub fn of_environment<'a>(environment: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<(&'a str, String)> {
        let flag = |(variable, value): (&'a str, &'a str)| {
            let name = variable.strip_prefix("MESOS_")?.to_lowercase();
            // Kubernetes says MESOS_PORT=tcp://10.0.0.1:5050 of a service that is called mesos.
            let is_service = name == "port" && value.contains("://");
            (Flags::knows(&name) && !is_service).then(|| (variable, format!("--{name}={value}")))
        };
        environment.into_iter().filter_map(flag).collect()
    }

    /// All of them by name, as `/flags` shows them; secrets are not repeated.
    pub fn shown(&self) -> Arc<BTreeMap<String, String>> {
        let mut shown = self.0.clone();
        if let Some(credentials) = shown.get_mut("credentials") {
            "<given>".clone_into(credentials);
        }
        Arc::new(shown)
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets one that follows from the surroundings.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|it| matches!(it, "true" | "1"))
    }

    /// A time.
    ///
    /// # Errors
    /// When it is none.
    pub fn duration(&self, name: &str) -> Result<Duration, FlagError> {
        self.parsed(name, parse_duration)
    }

    /// A number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, FlagError> {
        self.parsed(name, |text| text.parse().ok())
    }

    fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, FlagError> {
        let text = self.get(name).unwrap_or_default();
        parse(text).ok_or_else(|| FlagError { name: name.to_owned(), problem: format!("{text:?} cannot be understood") })
    }

    /// Tells the core.
    ///
    /// # Errors
    /// When a value cannot be understood or is out of its range.
    pub fn apply(&self, config: &mut Config) -> Result<(), FlagError> {
        let out_of_range = |name: &str, problem: &str| FlagError { name: name.to_owned(), problem: problem.to_owned() };
        config.agent_ping_timeout = self.duration("agent_ping_timeout")?;
        if !(Duration::from_secs(1)..=Duration::from_secs(900)).contains(&config.agent_ping_timeout) {
            return Err(out_of_range("agent_ping_timeout", "not between 1secs and 15mins"));
        }
        config.max_agent_ping_timeouts = self.number("max_agent_ping_timeouts")?;
        config.agent_reregister_timeout = self.duration("agent_reregister_timeout")?;
        if config.agent_reregister_timeout < Duration::from_secs(600) {
            return Err(out_of_range("agent_reregister_timeout", "less than 10mins"));
        }
        config.agent_removal_rate_limit = match self.get("agent_removal_rate_limit") {
            None => None,
            Some(_) => Some(self.parsed("agent_removal_rate_limit", parse_rate)?),
        };
        config.recovery_agent_removal_limit = self.parsed("recovery_agent_removal_limit", |text| {
            let percent: f64 = text.strip_suffix('%')?.parse().ok()?;
            (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
        })?;
        config.require_agent_domain = self.is_on("require_agent_domain");
        config.allocation_interval = self.duration("allocation_interval")?;
        config.role_sorter = self.parsed("role_sorter", parse_sorter)?;
        config.framework_sorter = self.parsed("framework_sorter", parse_sorter)?;
        // RE2 counts in units of its own. Its defaults allow about what ours does; whoever allows a part of that here gets that part.
        let memory = self.parsed("offer_constraints_re2_max_mem", parse_bytes)?;
        let size: u64 = self.number("offer_constraints_re2_max_program_size")?;
        let bytes = memory.saturating_mul(16).min(size.saturating_mul(656)).min(REGEX_BYTES_MAX);
        config.offer_constraints_regex_max_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        config.offer_timeout = match self.get("offer_timeout") {
            None => None,
            Some(_) => Some(self.duration("offer_timeout")?),
        };
        config.min_allocatable_resources = self.parsed("min_allocatable_resources", parse_alternatives)?;
        config.fair_sharing_excluded_resource_names = list(self.get("fair_sharing_excluded_resource_names")).collect();
        config.filter_gpu_resources = self.is_on("filter_gpu_resources");
        config.allocator_agent_recovery_factor = self.number("allocator_agent_recovery_factor")?;
        config.allocator_recovery_timeout = self.duration("allocator_recovery_timeout")?;
        config.roles = self.get("roles").map(|text| list(Some(text)).collect());
        config.root_submissions = self.is_on("root_submissions");
        config.max_completed_frameworks = self.number("max_completed_frameworks")?;
        config.max_completed_tasks_per_framework = self.number("max_completed_tasks_per_framework")?;
        config.max_unreachable_tasks_per_framework = self.number("max_unreachable_tasks_per_framework")?;
        config.registry_gc_interval = self.duration("registry_gc_interval")?;
        config.registry_max_agent_age = self.duration("registry_max_agent_age")?;
        config.registry_max_agent_count = self.number("registry_max_agent_count")?;
        (config.rate_limits, config.rate_limit_of_others) = guards::rate_limits(self)?;
        config.weights = match self.get("weights") {
            None => BTreeMap::new(),
            Some(_) => self.parsed("weights", parse_weights)?,
        };
        Firewall::from_flags(self)?;
        Ok(())
    }
}

fn list(text: Option<&str>) -> impl Iterator<Item = String> + '_ {
    text.unwrap_or_default().split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned)
}

/// `10mins`, `1.5secs`, `2weeks`
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|it: char| !it.is_ascii_digit() && it != '.')?;
    let amount: f64 = text[..unit].parse().ok()?;
    let seconds = match &text[unit..] {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "secs" => 1.0,
        "mins" => 60.0,
        "hrs" => 3_600.0,
        "days" => 86_400.0,
        "weeks" => 604_800.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(amount * seconds).ok().filter(|it| *it <= Duration::from_secs(3_650 * 86_400))
}

/// Bytes of the largest regular expression that may be allowed: there may be thousands.
const REGEX_BYTES_MAX: u64 = 10 << 20;

fn parse_sorter(text: &str) -> Option<Sorter> {
    match text {
        "drf" => Some(Sorter::Drf),
        "random" => Some(Sorter::Random),
        _ => None,
    }
}

/// `4KB`
fn parse_bytes(text: &str) -> Option<u64> {
    let unit = text.find(|it: char| !it.is_ascii_digit())?;
    let amount: u64 = text[..unit].parse().ok()?;
    let factor = match &text[unit..] {
        "B" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1_u64 << 40,
        _ => return None,
    };
    amount.checked_mul(factor)
}

/// What a flag is called now.
fn modern(name: &str) -> String {
    // Names before agents were called agents.
    let name = name.replace("slave", "agent");
    ALIASES.iter().find(|(before, _)| *before == name).map_or(name, |(_, now)| (*now).to_owned())
}

/// `role=2,other=0.5`
fn parse_weights(text: &str) -> Option<BTreeMap<String, f64>> {
    let pairs = text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(|pair| {
        let (role, weight) = pair.split_once('=')?;
        let weight = weight.trim().parse().ok().filter(|it: &f64| it.is_finite() && *it > 0.0)?;
        Some((role.trim().to_owned(), weight)).filter(|(role, _)| !role.is_empty())
    });
    pairs.collect()
}

/// `1/10mins`
fn parse_rate(text: &str) -> Option<Rate> {
    let (permits, per) = text.split_once('/')?;
    Some(Rate { permits: permits.parse().ok().filter(|it| *it > 0)?, per: parse_duration(per)? })
}

/// `cpus:0.01|mem:32`; what belongs together is separated by `;`.
fn parse_alternatives(text: &str) -> Option<Vec<Quantities>> {
    let alternative = |text: &str| {
        let amounts = text.split(';').filter(|it| !it.is_empty()).map(|pair| {
            let (name, amount) = pair.split_once(':')?;
            let amount: f64 = amount.trim().parse().ok()?;
            Some((name.trim().into(), Scalar::from_f64(amount)))
        });
        Some(Quantities::from_iter(amounts.collect::<Option<Vec<_>>>()?))
    };
    text.split('|').filter(|it| !it.is_empty()).map(alternative).collect()
}

#[cfg(test)]
mod tests {
    use mesos_proto::v1;

    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_core() {
        let mut config = Config::new(v1::MasterInfo::default(), 1);
        let before = format!("{config:?}");
        Flags::default().apply(&mut config).unwrap();
        assert_eq!(format!("{config:?}"), before);
    }

    #[test]
    fn flags_are_set_as_on_the_command_line_of_mesos() {
        let words =
            ["--allocation_interval=250ms", "no-root_submissions", "--slave_ping_timeout=2secs", "agent_removal_rate_limit=3/10mins"];
        let flags = Flags::default().with(words).unwrap();
        let mut config = Config::new(v1::MasterInfo::default(), 1);
        flags.apply(&mut config).unwrap();
        assert_eq!(config.allocation_interval, Duration::from_millis(250));
        assert_eq!(config.agent_ping_timeout, Duration::from_secs(2));
        assert_eq!(config.agent_removal_rate_limit, Some(Rate { permits: 3, per: Duration::from_secs(600) }));
        assert!(!config.root_submissions);
        assert_eq!(flags.shown()["allocation_interval"], "250ms");
    }

    #[test]
    fn mistakes_name_the_flag() {
        let error = |words: &[&str]| {
            let flags = Flags::default().with(words.iter().copied());
            flags.and_then(|it| it.apply(&mut Config::new(v1::MasterInfo::default(), 1))).unwrap_err().to_string()
        };
        assert!(error(&["--max_tasks_per_offer=3"]).starts_with("--max_tasks_per_offer"));
        assert!(error(&["--allocation_interval=1"]).starts_with("--allocation_interval: \"1\""));
        assert_eq!(error(&["--agent_reregister_timeout=1mins"]), "--agent_reregister_timeout: less than 10mins");
        assert!(error(&["--weights=a=0"]).starts_with("--weights"));
        assert!(error(&["--firewall_rules={"]).starts_with("--firewall_rules"));
        assert!(error(&["--rate_limits={}"]).starts_with("--rate_limits"));
        for path in ["file:///does/not/exist", "/does/not/exist"] {
            assert!(error(&[&format!("--credentials={path}")]).starts_with("--credentials: /does/not/exist: "));
        }
        assert!(error(&["--zk=zk://z:2181/mesos"]).contains("the key `zk` of the control plane"));
        assert!(error(&["--quorum=1"]).starts_with("--quorum: there is no replicated log"));
        for (word, sentence) in [
            ("--modules=x", "cannot be loaded"),
            ("--hooks=x", "cannot be loaded"),
            ("--master_detector=x", "the key `zk`"),
            ("--zk_session_timeout=20secs", "`zk-session-timeout`"),
            ("--webui_dir=/usr/share", "part of the program"),
            ("--logging_level=WARNING", "`--log-filter=warn`"),
            ("--quiet", "`log-filter`"),
            ("--authenticators=my_module", "--credentials"),
            ("--http_framework_authenticators=jwt", "HTTP Basic"),
            ("--registry_strict", "Mesos does not support it"),
            ("--role_sorter=fair", "there are drf and random"),
            ("--registry=etcd", "replicated_log"),
            ("--offer_constraints_re2_max_mem=4", "cannot be understood"),
        ] {
            assert!(error(&[word]).contains(sentence), "{word}: {}", error(&[word]));
        }
    }

    #[test]
    fn flags_of_before_are_what_they_are_called_now() {
        let flags = Flags::default().with(["--authenticate", "--authenticate_http", "--user_sorter=random", "--log_dir=/logs"]).unwrap();
        assert_eq!(flags.get("log_dir"), Some("/logs"));
        assert!(flags.is_on("authenticate_frameworks") && flags.is_on("authenticate_http_readwrite"));
        let mut config = Config::new(v1::MasterInfo::default(), 1);
        flags.with(["--framework_sorter=random", "--offer_constraints_re2_max_mem=1KB"]).unwrap().apply(&mut config).unwrap();
        assert_eq!((config.role_sorter, config.framework_sorter), (Sorter::Random, Sorter::Random));
        assert_eq!(config.offer_constraints_regex_max_bytes, 16 << 10);
    }

    #[test]
    fn the_environment_has_flags_too() {
        let variables = [
            ("MESOS_CLUSTER", "main"),
            ("MESOS_TASK_ID", "t"),
            ("MESOS_AGENT_PING_TIMEOUT", "2secs"),
            ("HOME", "/"),
            ("MESOS_PORT", "tcp://10.0.0.1:5050"),
            ("MESOS_ZK", "zk://z"),
        ];
        let words = Flags::of_environment(variables);
        let expected =
            [("MESOS_CLUSTER", "--cluster=main"), ("MESOS_AGENT_PING_TIMEOUT", "--agent_ping_timeout=2secs"), ("MESOS_ZK", "--zk=zk://z")];
        assert_eq!(words, expected.map(|(variable, word)| (variable, word.to_owned())));
    }
}
