//! Which handler a path belongs to, by the rules of Mesos: a process name may stand first, a trailing slash is ignored, and where nothing matches
//! the last segment is dropped until something does.

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Api,
    Scheduler,
    State,
    StateSummary,
    Slaves,
    Frameworks,
    Tasks,
    Roles,
    MaintenanceStatus,
    MaintenanceSchedule,
    MachineDown,
    MachineUp,
    Weights,
    Quota,
    Reserve,
    Unreserve,
    CreateVolumes,
    DestroyVolumes,
    Teardown,
    Redirect,
    Health,
    Flags,
    Metrics,
    FilesBrowse,
    FilesRead,
    FilesDownload,
    FilesDebug,
    Version,
    LoggingToggle,
    SystemStats,
    Profiler,
    Processes,
    Help,
}

/// Whose credentials are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Realm {
    ReadOnly,
    ReadWrite,
    Scheduler,
}

impl Realm {
    /// As `WWW-Authenticate` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Realm::ReadOnly => "mesos-master-readonly",
            Realm::ReadWrite => "mesos-master-readwrite",
            Realm::Scheduler => "mesos-master-scheduler",
        }
    }
}

/// Routes by process and path below it.
const ROUTES: &[(&str, &str, Route)] = &[
    ("master", "api/v1", Route::Api),
    ("master", "api/v1/scheduler", Route::Scheduler),
    ("master", "state", Route::State),
    ("master", "state-summary", Route::StateSummary),
    ("master", "slaves", Route::Slaves),
    ("master", "frameworks", Route::Frameworks),
    ("master", "tasks", Route::Tasks),
    ("master", "roles", Route::Roles),
    ("master", "maintenance/status", Route::MaintenanceStatus),
    ("master", "maintenance/schedule", Route::MaintenanceSchedule),
    ("master", "machine/down", Route::MachineDown),
    ("master", "machine/up", Route::MachineUp),
    ("master", "weights", Route::Weights),
    ("master", "quota", Route::Quota),
    ("master", "reserve", Route::Reserve),
    ("master", "unreserve", Route::Unreserve),
    ("master", "create-volumes", Route::CreateVolumes),
    ("master", "destroy-volumes", Route::DestroyVolumes),
    ("master", "teardown", Route::Teardown),
    ("master", "redirect", Route::Redirect),
    ("master", "health", Route::Health),
    ("master", "flags", Route::Flags),
    ("files", "browse", Route::FilesBrowse),
    ("files", "read", Route::FilesRead),
    ("files", "download", Route::FilesDownload),
    ("files", "debug", Route::FilesDebug),
    ("metrics", "snapshot", Route::Metrics),
    ("version", "", Route::Version),
    ("logging", "toggle", Route::LoggingToggle),
    ("system", "stats.json", Route::SystemStats),
    ("profiler", "start", Route::Profiler),
    ("profiler", "stop", Route::Profiler),
    ("memory-profiler", "", Route::Profiler),
    ("__processes__", "", Route::Processes),
    ("help", "", Route::Help),
];

/// Segments that a path may have; longer ones lead nowhere.
const MOST_SEGMENTS: usize = 32;

/// Where a path leads, however it is spelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) route: Route,
    /// The one name of the endpoint among all spellings: `/master/state`, `/files/browse`. Whatever allows or forbids goes by this.
    pub(crate) endpoint: String,
    /// What of the path the handler did not need.
    pub(crate) rest: String,
}

/// The handler of a path.
pub(crate) fn resolve(path: &str) -> Option<Resolved> {
    let path = percent_decode(path)?;
    if path.contains("/..") {
        return None;
    }
    let segments: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).take(MOST_SEGMENTS).collect();
    let Some((first, rest)) = segments.split_first() else {
        return Some(Resolved { route: Route::Help, endpoint: "/help".to_owned(), rest: String::new() });
    };
    let is_process = ROUTES.iter().any(|(process, _, _)| process == first);
    let (process, segments) = if is_process { (*first, rest) } else { ("master", &segments[..]) };
    for length in (0..=segments.len()).rev() {
        let (head, tail) = segments.split_at(length);
        let head = head.join("/");
        let find = |wanted: &str| ROUTES.iter().find(|(owner, path, _)| *owner == process && *path == wanted);
        // The spelling of before Mesos 1.7.
        let found = find(&head).or_else(|| head.strip_suffix(".json").and_then(find));
        if let Some((process, path, route)) = found {
            // A redirect of anything below would lead in circles.
            let exact = tail.is_empty() || *route != Route::Redirect;
            return exact.then(|| Resolved { route: *route, endpoint: endpoint(process, path), rest: tail.join("/") });
        }
    }
    None
}

fn endpoint(process: &str, path: &str) -> String {
    let slash = if path.is_empty() { "" } else { "/" };
    format!("/{process}{slash}{path}")
}

/// `None` for what is no text.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            decoded.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

impl Route {
    /// Whether only the leading master may answer.
    pub(crate) fn needs_leader(self) -> bool {
        match self {
            Route::Api
            | Route::Scheduler
            | Route::State
            | Route::StateSummary
            | Route::Slaves
            | Route::Frameworks
            | Route::Tasks
            | Route::Roles
            | Route::MaintenanceStatus
            | Route::MaintenanceSchedule
            | Route::MachineDown
            | Route::MachineUp
            | Route::Weights
            | Route::Quota
            | Route::Reserve
            | Route::Unreserve
            | Route::CreateVolumes
            | Route::DestroyVolumes
            | Route::Teardown => true,
            Route::Redirect
            | Route::Health
            | Route::Flags
            | Route::Metrics
            | Route::FilesBrowse
            | Route::FilesRead
            | Route::FilesDownload
            | Route::FilesDebug
            | Route::Version
            | Route::LoggingToggle
            | Route::SystemStats
            | Route::Profiler
            | Route::Processes
            | Route::Help => false,
        }
    }

    /// Which credentials it asks for, where any are asked for.
    pub(crate) fn realm(self) -> Option<Realm> {
        match self {
            Route::Redirect | Route::Health | Route::Version | Route::Help => None,
            Route::Scheduler => Some(Realm::Scheduler),
            Route::State
            | Route::StateSummary
            | Route::Slaves
            | Route::Frameworks
            | Route::Tasks
            | Route::Roles
            | Route::MaintenanceStatus
            | Route::Flags
            | Route::Metrics
            | Route::FilesBrowse
            | Route::FilesRead
            | Route::FilesDownload
            | Route::FilesDebug
            | Route::SystemStats
            | Route::Processes => Some(Realm::ReadOnly),
            _ => Some(Realm::ReadWrite),
        }
    }

    /// Which methods there are, where Mesos looks at the method.
    pub(crate) fn methods(self) -> Option<&'static [&'static str]> {
        match self {
            Route::Api
            | Route::Scheduler
            | Route::MachineDown
            | Route::MachineUp
            | Route::Reserve
            | Route::Unreserve
            | Route::CreateVolumes
            | Route::DestroyVolumes
            | Route::Teardown => Some(&["POST"]),
            Route::MaintenanceSchedule => Some(&["GET", "POST"]),
            Route::Weights => Some(&["GET", "PUT"]),
            Route::Quota => Some(&["GET", "POST", "DELETE"]),
            Route::MaintenanceStatus | Route::Flags => Some(&["GET"]),
            _ => None,
        }
    }
}

/// Paths for people.
pub(crate) fn listing() -> String {
    let mut listing = String::from("The HTTP endpoints of a Mesos master, served by Orchestrator:\n\n");
    for (process, path, _) in ROUTES {
        listing.push_str(&endpoint(process, path));
        listing.push('\n');
    }
    listing.push_str("\nPaths below /master may leave that out.\n");
    listing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_mesos_leads_them() {
        for (path, expected) in [
            ("/state", Some((Route::State, ""))),
            ("/master/state", Some((Route::State, ""))),
            ("/master/state/", Some((Route::State, ""))),
            ("//state", Some((Route::State, ""))),
            ("/state.json", Some((Route::State, ""))),
            ("/master/state.json", Some((Route::State, ""))),
            ("/files/browse.json", Some((Route::FilesBrowse, ""))),
            ("/state/frameworks", Some((Route::State, "frameworks"))),
            ("/api/v1/operator", Some((Route::Api, "operator"))),
            ("/api/v1/scheduler", Some((Route::Scheduler, ""))),
            ("/master/api/v1/scheduler", Some((Route::Scheduler, ""))),
            ("/api", None),
            ("/quota/a/b", Some((Route::Quota, "a/b"))),
            ("/quota/a%2Fb", Some((Route::Quota, "a/b"))),
            ("/metrics/snapshot", Some((Route::Metrics, ""))),
            ("/metrics", None),
            ("/master/metrics/snapshot", None),
            ("/version", Some((Route::Version, ""))),
            ("/version/x", Some((Route::Version, "x"))),
            ("/system/stats.json", Some((Route::SystemStats, ""))),
            ("/slave(1)/state", None),
            ("/redirect", Some((Route::Redirect, ""))),
            ("/master/redirect", Some((Route::Redirect, ""))),
            ("/redirect/state", None),
            ("/a/../state", None),
            ("/state/..", None),
            ("/%2e%2e/state", None),
            ("/state%", None),
            ("/state%ff", None),
            ("/", Some((Route::Help, ""))),
            ("/nothing", None),
        ] {
            let found = resolve(path);
            assert_eq!(found.as_ref().map(|it| (it.route, it.rest.as_str())), expected, "{path}");
        }
    }

    #[test]
    fn an_endpoint_has_one_name_for_all_its_spellings() {
        for (path, endpoint) in [
            ("/state", "/master/state"),
            ("//master/state.json/x", "/master/state"),
            ("/metrics/snapshot.json", "/metrics/snapshot"),
            ("//metrics//snapshot", "/metrics/snapshot"),
            ("/metrics/snapshot/x", "/metrics/snapshot"),
            ("/files/%62rowse", "/files/browse"),
            ("/system/stats.json", "/system/stats.json"),
            ("/version", "/version"),
            ("/", "/help"),
        ] {
            assert_eq!(resolve(path).unwrap().endpoint, endpoint, "{path}");
        }
    }
}
