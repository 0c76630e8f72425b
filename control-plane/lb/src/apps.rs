//! What `/v2/apps?embed=apps.tasks` says, as far as a load balancer cares: service ports, and who serves them.

use serde_json::Value;

use crate::labels::{Labels, is_word};

/// What is behind one service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The app.
    pub app_id: String,
    /// Groups that it is for.
    pub groups: Vec<String>,
    /// Which of the app's ports it is, from 0.
    pub port_index: usize,
    /// The port to listen at.
    pub service_port: u16,
    /// The address to listen at.
    pub bind_address: String,
    /// What else is said of listening.
    pub bind_options: Option<String>,
    /// HTTP, or any bytes.
    pub mode: Mode,
    /// Host names.
    pub hosts: Vec<String>,
    /// Beginning of the path.
    pub path: Option<String>,
    /// How servers take turns.
    pub balance: String,
    /// Whether a client stays with a server.
    pub sticky: bool,
    /// Whether plain HTTP is sent to HTTPS.
    pub redirect_to_https: bool,
    /// Whether browsers are told to use HTTPS alone.
    pub use_hsts: bool,
    /// Certificates to listen with.
    pub ssl_cert: Option<String>,
    /// Whose names and passwords are asked for: realm, name, encrypted password.
    pub auth: Option<(String, String, String)>,
    /// Which of several that fit comes first: the largest.
    pub weight: i64,
    /// The path of the app to which requests are taken; with `path`, in place of it.
    pub proxypass_path: Option<String>,
    /// The path to which requests of `/` are sent.
    pub redirect_path: Option<String>,
    /// How HAProxy itself checks.
    pub check: Option<Check>,
    /// What is said of each server.
    pub server_options: Option<String>,
    /// Lines of the app's own for its frontend and backend.
    pub heads: (Vec<String>, Vec<String>),
    /// Who serves, sorted.
    pub servers: Vec<Server>,
}

/// Which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// HTTP.
    Http,
    /// Any bytes.
    Tcp,
}

/// How HAProxy checks servers by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// A path to get, or else a connection to make.
    pub path: Option<String>,
    /// Seconds between two.
    pub interval: u64,
    /// Failures in a row.
    pub fall: u64,
    /// Seconds until an answer must be there.
    pub timeout: u64,
}

/// One that serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The task.
    pub task_id: String,
}

/// A port that is not served, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Of which app.
    pub app_id: String,
    /// Which.
    pub port_index: usize,
    /// Why.
    pub reason: String,
}

/// What is to be served of the apps for `groups`, by service port, and what cannot be. `*` stands for all apps, no group for those that name
/// none. With `raw`, labels that hold lines of HAProxy's configuration are taken.
pub fn read_apps(apps: &Value, groups: &[String], raw: bool) -> (Vec<Backend>, Vec<Refused>) {
    let (mut backends, mut refused) = (Vec::new(), Vec::new());
    for app in apps["apps"].as_array().into_iter().flatten() {
        for (at, port) in service_ports(app).into_iter().enumerate() {
            match backend(app, at, port, groups, raw) {
                Ok(Some(backend)) => backends.push(backend),
                Ok(None) => {}
                Err(reason) => refused.push(Refused { app_id: text(&app["id"]), port_index: at, reason }),
            }
        }
    }
    backends.sort_by(|one, two| (one.service_port, &one.app_id, one.port_index).cmp(&(two.service_port, &two.app_id, two.port_index)));
    (backends, refused)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn port(value: &Value) -> u16 {
    value.as_u64().and_then(|it| u16::try_from(it).ok()).unwrap_or(0)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn is_host_network(app: &Value) -> bool {
    let networks = list(&app["networks"]);
    networks.iter().all(|it| it["mode"].as_str().is_none_or(|mode| mode == "host"))
}

fn mappings(app: &Value) -> &[Value] {
    let own = list(&app["container"]["portMappings"]);
    if own.is_empty() { list(&app["container"]["docker"]["portMappings"]) } else { own }
}

fn service_ports(app: &Value) -> Vec<u16> {
    let mapped: Vec<u16> = mappings(app).iter().map(|it| port(&it["servicePort"])).collect();
    if !mapped.is_empty() && !is_host_network(app) {
        return mapped;
    }
    let defined: Vec<u16> = list(&app["portDefinitions"]).iter().map(|it| port(&it["port"])).collect();
    let old = || list(&app["ports"]).iter().map(port).collect();
    if defined.is_empty() { if mapped.is_empty() { old() } else { mapped } } else { defined }
}

fn backend(app: &Value, at: usize, service_port: u16, groups: &[String], raw: bool) -> Result<Option<Backend>, String> {
    let labels = Labels::new(&app["labels"], at);
    let own_groups = labels.words("GROUP");
    let named = groups.iter().any(|group| group == "*" || own_groups.contains(&group.as_str()));
    let wanted = named || groups.is_empty() && own_groups.is_empty();
    if !wanted || labels.flag("ENABLED") == Some(false) {
        return Ok(None);
    }
    let app_id = text(&app["id"]);
    if !app_id.starts_with('/') || !is_word(&app_id) {
        return Err("the app's id is no path".to_owned());
    }
    let service_port = labels.number("PORT").unwrap_or(service_port);
    if service_port == 0 {
        return Err("it has no service port".to_owned());
    }
    let is_host = |it: &&str| it.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'*' | b':'));
    let hosts: Vec<String> = labels.words("VHOST").into_iter().filter(is_host).map(str::to_lowercase).collect();
    let check = list(&app["healthChecks"]).iter().find_map(|it| check_of(it, at));
    let mode = match labels.word("MODE").map(str::to_lowercase).as_deref() {
        Some("http") => Mode::Http,
        Some("tcp") if hosts.is_empty() => Mode::Tcp,
        _ => {
            let by_http = check.as_ref().is_some_and(|it| it.path.is_some());
            if !hosts.is_empty() || by_http { Mode::Http } else { Mode::Tcp }
        }
    };
    let path = labels.word("PATH").filter(|it| it.starts_with('/')).map(str::to_owned);
    let default_weight = path.as_ref().map_or(0, |path| i64::try_from(path.len()).unwrap_or(i64::MAX));
    let auth = labels.text("AUTH").and_then(|text| {
        let mut parts = text.splitn(3, ':');
        let three = (parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next()?.to_owned());
        let fits = is_word(&three.0)
            && is_word(&three.1)
            && three.2.chars().all(|it| it.is_ascii_graphic() && !matches!(it, '"' | '\'' | '\\' | '#'));
        fits.then_some(three)
    });
    let lines = |name: &str| -> Vec<String> {
        // Such labels hold lines: their ends are meant.
        let own = app["labels"][format!("HAPROXY_{at}_{name}")].as_str().or(app["labels"][format!("HAPROXY_{name}")].as_str());
        own.filter(|_| raw).into_iter().flat_map(str::lines).map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
    };
    Ok(Some(Backend {
        groups: own_groups.into_iter().map(str::to_owned).collect(),
        port_index: at,
        service_port,
        bind_address: labels.word("BIND_ADDR").unwrap_or("*").to_owned(),
        bind_options: labels.text("BIND_OPTIONS").filter(|it| it.split(' ').all(is_word)).map(str::to_owned),
        mode,
        hosts,
        path,
        balance: labels.word("BALANCE").unwrap_or("roundrobin").to_owned(),
        sticky: labels.flag("STICKY").unwrap_or(false),
        redirect_to_https: labels.flag("REDIRECT_TO_HTTPS").unwrap_or(false),
        use_hsts: labels.flag("USE_HSTS").unwrap_or(false),
        ssl_cert: labels.word("SSL_CERT").map(str::to_owned),
        auth,
        weight: labels.number("BACKEND_WEIGHT").unwrap_or(default_weight),
        proxypass_path: labels.word("HTTP_BACKEND_PROXYPASS_PATH").filter(|it| it.starts_with('/')).map(str::to_owned),
        redirect_path: labels.word("HTTP_BACKEND_REDIR").filter(|it| it.starts_with('/')).map(str::to_owned),
        check,
        server_options: labels
            .text("BACKEND_SERVER_OPTIONS")
            .filter(|it| it.split(' ').all(|it| it.is_empty() || is_word(it)))
            .map(str::to_owned),
        heads: (lines("FRONTEND_HEAD"), lines("BACKEND_HEAD")),
        servers: servers(app, at),
        app_id,
    }))
}

fn check_of(check: &Value, at: usize) -> Option<Check> {
    let protocol = check["protocol"].as_str().unwrap_or("HTTP");
    let http = protocol.ends_with("HTTP");
    let index = check["portIndex"].as_u64().map_or(Some(0), |it| usize::try_from(it).ok())?;
    if !(http || protocol.ends_with("TCP")) || index != at || !check["port"].is_null() {
        return None;
    }
    let path = check["path"].as_str().unwrap_or("/");
    let seconds = |key: &str, default: u64| check[key].as_u64().unwrap_or(default).clamp(1, 3_600);
    Some(Check {
        path: (http && is_word(path)).then(|| path.to_owned()),
        interval: seconds("intervalSeconds", 60),
        fall: seconds("maxConsecutiveFailures", 3) + 1,
        timeout: seconds("timeoutSeconds", 20),
    })
}

/// The tasks that serve: they run, are not about to end, and everything that checks them says that they are alive.
fn servers(app: &Value, at: usize) -> Vec<Server> {
    let checked = !list(&app["healthChecks"]).is_empty();
    let mut servers: Vec<Server> = list(&app["tasks"])
        .iter()
        .filter(|task| task["state"].as_str().is_none_or(|state| state == "TASK_RUNNING"))
        .filter(|task| {
            let results = list(&task["healthCheckResults"]);
            let alive = results.iter().all(|it| it["alive"].as_bool() == Some(true));
            if checked { !results.is_empty() && alive } else { alive }
        })
        .filter_map(|task| server(app, task, at))
        .collect();
    servers.sort();
    servers.dedup();
    servers
}

fn server(app: &Value, task: &Value, at: usize) -> Option<Server> {
    let task_id = text(&task["id"]);
    let mappings = mappings(app);
    let host_port = |at: usize| task["ports"].get(at).map(port).filter(|it| *it != 0);
    let on_host = |port: u16| Some(Server { host: word(&task["host"])?, port, task_id: task_id.clone() });
    if is_host_network(app) || mappings.is_empty() {
        return on_host(host_port(at)?);
    }
    let container = list(&app["networks"]).iter().any(|it| it["mode"].as_str() == Some("container"));
    let published = |it: &Value| !it["hostPort"].is_null();
    if container && !published(&mappings[at]) {
        let address = word(&list(&task["ipAddresses"]).first()?["ipAddress"])?;
        return Some(Server { host: address, port: Some(port(&mappings[at]["containerPort"])).filter(|it| *it != 0)?, task_id });
    }
    // Only ports that are published are in the task's list, when others are not.
    let place = if container { mappings[..at].iter().filter(|it| published(it)).count() } else { at };
    on_host(host_port(place)?)
}

fn word(value: &Value) -> Option<String> {
    value.as_str().filter(|it| is_word(it)).map(str::to_owned)
}
