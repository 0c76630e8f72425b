//! HAProxy's configuration.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::apps::{Backend, Mode, Refused, Server};

/// What the configuration says besides the apps.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where virtual hosts are served over HTTP; none: nowhere.
    pub http_port: Option<u16>,
    /// Where virtual hosts are served over HTTPS; none: nowhere.
    pub https_port: Option<u16>,
    /// Certificates for that, as HAProxy takes them; none: no HTTPS.
    pub ssl_certs: Vec<String>,
    /// Where requests are taken by the header `X-Marathon-App-Id`; none: nowhere.
    pub app_id_port: Option<u16>,
    /// Where HAProxy tells of itself; none: nowhere.
    pub stats_port: Option<u16>,
    /// HAProxy's own socket for commands.
    pub socket: Option<String>,
    /// Connections at once; none: as many as HAProxy may have files open for.
    pub max_connections: Option<u32>,
    /// How long a connection that began before a change of the configuration may go on, in seconds.
    pub drain_seconds: u64,
    /// How long nothing may be heard of a client or server, in seconds.
    pub timeout_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            http_port: Some(80),
            https_port: Some(443),
            ssl_certs: Vec::new(),
            app_id_port: Some(9_091),
            stats_port: Some(9_090),
            socket: None,
            max_connections: None,
            drain_seconds: 300,
            timeout_seconds: 60,
        }
    }
}

/// The configuration, and what found no room in it.
pub fn render(backends: &[Backend], options: &Options) -> (String, Vec<Refused>) {
    let mut out = String::new();
    head(&mut out, options);
    let mut refused = Vec::new();
    let mut taken: BTreeSet<u16> =
        [options.http_port, options.https_port, options.app_id_port, options.stats_port].into_iter().flatten().collect();
    users(&mut out, backends);
    virtual_hosts(&mut out, backends, options);
    by_app_id(&mut out, backends, options);
    for backend in backends {
        if taken.insert(backend.service_port) {
            frontend(&mut out, backend);
        } else {
            let reason = format!("port {} is taken", backend.service_port);
            refused.push(Refused { app_id: backend.app_id.clone(), port_index: backend.port_index, reason });
        }
    }
    for backend in backends {
        write_backend(&mut out, backend);
    }
    (out, refused)
}

/// `/group/app` at port 10000 is `group_app_10000`.
fn name(backend: &Backend) -> String {
    format!("{}_{}", safe(backend.app_id.trim_start_matches('/')), backend.service_port)
}

/// A text as a name in the configuration.
fn safe(text: &str) -> String {
    text.chars().map(|it| if it.is_ascii_alphanumeric() || it == '-' || it == '.' { it } else { '_' }).collect()
}

fn head(out: &mut String, options: &Options) {
    let Options { drain_seconds, timeout_seconds, .. } = options;
    let most = options.max_connections.map(|it| format!("  maxconn {it}\n")).unwrap_or_default();
    let socket =
        options.socket.as_ref().map(|path| format!("  stats socket {path} mode 600 level admin expose-fd listeners\n")).unwrap_or_default();
    let _ = write!(
        out,
        "# Made of what Marathon says. Changes are overwritten.\n\
         global\n{most}  hard-stop-after {drain_seconds}s\n  tune.ssl.default-dh-param 2048\n{socket}\n\
         defaults\n  load-server-state-from-file none\n{most}  timeout connect 5s\n  timeout client {timeout_seconds}s\n  timeout server {timeout_seconds}s\n  \
         timeout tunnel 3600s\n  timeout http-request 30s\n  timeout http-keep-alive 10s\n  timeout queue 10s\n  retries 3\n  \
         option redispatch 1\n  option dontlognull\n  option http-server-close\n  default-server init-addr last,libc,none\n\n"
    );
    if let Some(port) = options.stats_port {
        let _ = write!(
            out,
            "listen stats\n  bind *:{port}\n  mode http\n  balance roundrobin\n  stats enable\n  stats uri /haproxy?stats\n  \
             monitor-uri /_haproxy_health_check\n\n"
        );
    }
}

fn users(out: &mut String, backends: &[Backend]) {
    for backend in backends {
        if let Some((_, user, password)) = &backend.auth {
            let _ = write!(out, "userlist user_{}\n  user {user} password {password}\n\n", name(backend));
        }
    }
}

/// The conditions under which a request is for a backend, each with whether it is a host's.
fn conditions(out: &mut String, at: usize, backend: &Backend) -> String {
    let mut condition = format!("host_{at}");
    // `hdr(host)` has the port that the client wrote; the first field does not.
    let _ = writeln!(out, "  acl host_{at} hdr(host),field(1,:) -i {}", backend.hosts.join(" "));
    if let Some(path) = &backend.path {
        let _ = writeln!(out, "  acl path_{at} path_beg {path}");
        let _ = write!(condition, " path_{at}");
    }
    condition
}

fn virtual_hosts(out: &mut String, backends: &[Backend], options: &Options) {
    let mut hosted: Vec<&Backend> = backends.iter().filter(|it| !it.hosts.is_empty()).collect();
    // The heaviest first; a path before none, for the same host.
    hosted.sort_by_key(|it| (std::cmp::Reverse(it.weight), it.path.is_none(), it.app_id.clone(), it.port_index));
    if hosted.is_empty() {
        return;
    }
    let secure = options.https_port.filter(|_| !options.ssl_certs.is_empty());
    if let Some(port) = options.http_port {
        let _ = write!(out, "frontend marathon_http_in\n  bind *:{port}\n  mode http\n  option forwardfor\n");
        for (at, backend) in hosted.iter().enumerate() {
            let condition = conditions(out, at, backend);
            authenticate(out, backend, &condition);
            if backend.redirect_to_https {
                let _ = writeln!(out, "  redirect scheme https code 301 if {condition}");
            }
            let _ = writeln!(out, "  use_backend {} if {condition}", name(backend));
        }
        out.push('\n');
    }
    if let Some(port) = secure {
        let certificates: String = options.ssl_certs.iter().map(|it| format!(" crt {it}")).collect();
        let _ = write!(out, "frontend marathon_https_in\n  bind *:{port} ssl{certificates}\n  mode http\n  option forwardfor\n");
        for (at, backend) in hosted.iter().enumerate() {
            let condition = conditions(out, at, backend);
            authenticate(out, backend, &condition);
            let _ = writeln!(out, "  use_backend {} if {condition}", name(backend));
        }
        out.push('\n');
    }
}

fn authenticate(out: &mut String, backend: &Backend, condition: &str) {
    if let Some((realm, ..)) = &backend.auth {
        let _ = writeln!(out, "  http-request auth realm {realm} if {condition} !{{ http_auth(user_{}) }}", name(backend));
    }
}

fn by_app_id(out: &mut String, backends: &[Backend], options: &Options) {
    let Some(port) = options.app_id_port else { return };
    let first: Vec<&Backend> = backends.iter().filter(|it| it.port_index == 0 && it.mode == Mode::Http).collect();
    if first.is_empty() {
        return;
    }
    let _ = write!(out, "frontend marathon_http_appid_in\n  bind *:{port}\n  mode http\n  option forwardfor\n");
    for (at, backend) in first.into_iter().enumerate() {
        let _ = writeln!(out, "  acl app_{at} hdr(x-marathon-app-id) -i {}", backend.app_id);
        authenticate(out, backend, &format!("app_{at}"));
        let _ = writeln!(out, "  use_backend {} if app_{at}", name(backend));
    }
    out.push('\n');
}

fn mode(backend: &Backend) -> &'static str {
    match backend.mode {
        Mode::Http => "http",
        Mode::Tcp => "tcp",
    }
}

fn frontend(out: &mut String, backend: &Backend) {
    let name = name(backend);
    let ssl = backend.ssl_cert.as_ref().map(|it| format!(" ssl crt {it}")).unwrap_or_default();
    let more = backend.bind_options.as_ref().map(|it| format!(" {it}")).unwrap_or_default();
    let _ = write!(out, "frontend {name}\n  bind {}:{}{ssl}{more}\n  mode {}\n", backend.bind_address, backend.service_port, mode(backend));
    for line in &backend.heads.0 {
        let _ = writeln!(out, "  {line}");
    }
    if backend.mode == Mode::Http {
        out.push_str("  option forwardfor\n");
        if let Some((realm, ..)) = &backend.auth {
            let _ = writeln!(out, "  http-request auth realm {realm} unless {{ http_auth(user_{name}) }}");
        }
    }
    let _ = write!(out, "  use_backend {name}\n\n");
}

fn write_backend(out: &mut String, backend: &Backend) {
    let _ = write!(out, "backend {}\n  balance {}\n  mode {}\n", name(backend), backend.balance, mode(backend));
    for line in &backend.heads.1 {
        let _ = writeln!(out, "  {line}");
    }
    if backend.mode == Mode::Http {
        http_backend(out, backend);
    }
    if let Some(check) = &backend.check {
        if let Some(path) = &check.path {
            let _ = writeln!(out, "  option httpchk GET {path}");
        }
        let _ = writeln!(out, "  timeout check {}s", check.timeout);
    }
    for server in &backend.servers {
        write_server(out, backend, server);
    }
    out.push('\n');
}

fn http_backend(out: &mut String, backend: &Backend) {
    out.push_str("  http-request set-header X-Forwarded-Port %[dst_port]\n");
    out.push_str("  http-request add-header X-Forwarded-Proto https if { ssl_fc }\n");
    // A server that ended between two looks answers nobody: another one is asked. What may have been begun is never asked twice.
    out.push_str("  retry-on conn-failure empty-response response-timeout\n  http-request disable-l7-retry unless METH_GET or { method HEAD OPTIONS }\n");
    if backend.sticky {
        out.push_str("  cookie mesosphere_server_id insert indirect nocache\n");
    }
    if backend.use_hsts {
        out.push_str("  http-response set-header Strict-Transport-Security max-age=15768000\n");
    }
    if let Some(to) = &backend.proxypass_path {
        let from = backend.path.as_deref().unwrap_or("/").trim_end_matches('/');
        let to = to.trim_end_matches('/');
        let pattern: String =
            from.chars().flat_map(|it| if it.is_ascii_alphanumeric() || it == '/' { vec![it] } else { vec!['\\', it] }).collect();
        let _ = writeln!(out, "  http-request replace-path ^{}/?(.*) {to}/\\1", pattern.replace('\\', "\\\\"));
    }
    if let Some(path) = &backend.redirect_path {
        let _ = writeln!(out, "  http-request redirect location {path} if {{ path / }}");
    }
}

fn write_server(out: &mut String, backend: &Backend, server: &Server) {
    let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host.clone() };
    let name = safe(&format!("{}_{}", server.host, server.port));
    let cookie = if backend.sticky && backend.mode == Mode::Http { format!(" cookie {name}") } else { String::new() };
    let check = backend.check.as_ref().map(|it| format!(" check inter {}s fall {}", it.interval, it.fall)).unwrap_or_default();
    let more = backend.server_options.as_ref().map(|it| format!(" {it}")).unwrap_or_default();
    let _ = writeln!(out, "  server {name} {host}:{}{cookie}{check}{more}", server.port);
}
