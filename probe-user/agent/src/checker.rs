//! Looks whether tasks are well: by a command in their container, by HTTP, or by a connection. What follows from the results is the table's matter.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use mesos_proto::v1::{
    CheckInfo, CheckStatusInfo, CommandInfo, HealthCheck, TaskInfo, check_info, check_status_info, health_check, network_info,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::containers::{Containers, Spawn};
use crate::table::Input;
use crate::words::{ContainerKey, TaskKey};

/// Shortest pause between two looks, whatever a task says.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Checks of all tasks.
pub struct Checker {
    containers: Containers,
    answers: mpsc::Sender<Input>,
    spawn: Spawn,
    running: BTreeMap<TaskKey, CancellationToken>,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").field("running", &self.running).finish_non_exhaustive()
    }
}

/// One look.
#[derive(Clone, Debug)]
enum Look {
    Command(Box<CommandInfo>),
    Http { scheme: String, port: u16, path: String, ipv6: bool },
    Tcp { port: u16, ipv6: bool },
}

/// How a look came out.
#[derive(Clone, Debug)]
enum Seen {
    Exited(i32),
    Status(u16),
    Connected(bool),
}

impl Checker {
    /// Checks nothing yet.
    pub fn new(containers: Containers, answers: mpsc::Sender<Input>, spawn: Spawn) -> Self {
        Checker { containers, answers, spawn, running: BTreeMap::new() }
    }

    /// Begins to check a task; whatever was checked of it before is no more.
    pub fn start(&mut self, task: &TaskKey, container: &ContainerKey, info: &TaskInfo) {
        self.stop(task);
        let stop = CancellationToken::new();
        let place = Place { containers: self.containers.clone(), task: info.clone(), container: container.clone() };
        if let Some(check) = &info.health_check
            && let Some(look) = health_look(check, info)
        {
            let times = (check.delay_seconds(), check.interval_seconds(), check.timeout_seconds());
            let (task, container, answers) = (task.clone(), container.clone(), self.answers.clone());
            let answer = move |seen: Result<Seen, String>| {
                let input = Input::Health { task: task.clone(), container: container.clone(), result: is_well(seen) };
                let answers = answers.clone();
                async move { answers.send(input).await.is_ok() }
            };
            self.run(look, place.clone(), times, stop.clone(), answer);
        }
        if let Some(check) = &info.check
            && let Some(look) = check_look(check)
        {
            let times = (check.delay_seconds(), check.interval_seconds(), check.timeout_seconds());
            let (task, container, answers) = (task.clone(), container.clone(), self.answers.clone());
            let kind = check.r#type();
            let answer = move |seen: Result<Seen, String>| {
                let input = Input::Check { task: task.clone(), container: container.clone(), status: status(kind, &seen) };
                let answers = answers.clone();
                async move { answers.send(input).await.is_ok() }
            };
            self.run(look, place.clone(), times, stop.clone(), answer);
        }
        self.running.insert(task.clone(), stop);
    }

    /// Checks a task no more.
    pub fn stop(&mut self, task: &TaskKey) {
        if let Some(stop) = self.running.remove(task) {
            stop.cancel();
        }
    }

    fn run<F, R>(&self, look: Look, place: Place, (delay, pause, patience): (f64, f64, f64), stop: CancellationToken, answer: F)
    where
        F: Fn(Result<Seen, String>) -> R + Send + Sync + 'static,
        R: Future<Output = bool> + Send,
    {
        let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let (delay, pause) = (time(delay), time(pause).max(INTERVAL_MIN));
        // No time to answer in is no limit.
        let patience = Some(time(patience)).filter(|it| !it.is_zero()).unwrap_or(Duration::from_secs(24 * 3600));
        (self.spawn)(
            "check",
            Box::pin(async move {
                tokio::select! { () = tokio::time::sleep(delay) => {}, () = stop.cancelled() => return }
                loop {
                    let seen = tokio::select! {
                        seen = take(&look, &place, patience) => seen,
                        () = stop.cancelled() => return,
                    };
                    if !answer(seen).await {
                        return;
                    }
                    tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => return }
                }
            }),
        );
    }
}

/// Where a task is looked at.
#[derive(Clone)]
struct Place {
    containers: Containers,
    task: TaskInfo,
    /// The task's own. Its id alone does not say which: another framework may have a task of the same, or an earlier one had it.
    container: ContainerKey,
}

fn health_look(check: &HealthCheck, info: &TaskInfo) -> Option<Look> {
    let kind = match check.r#type() {
        // Older frameworks name no type.
        health_check::Type::Unknown if check.command.is_some() => health_check::Type::Command,
        health_check::Type::Unknown if check.http.is_some() => health_check::Type::Http,
        health_check::Type::Unknown if check.tcp.is_some() => health_check::Type::Tcp,
        kind => kind,
    };
    match kind {
        health_check::Type::Command => {
            let mut command = check.command.clone()?;
            inherit(&mut command, info);
            Some(Look::Command(Box::new(command)))
        }
        health_check::Type::Http => {
            let http = check.http.as_ref()?;
            Some(Look::Http {
                scheme: http.scheme.clone().unwrap_or_else(|| "http".to_owned()),
                port: u16::try_from(http.port).ok()?,
                path: http.path.clone().unwrap_or_default(),
                ipv6: http.protocol() == network_info::Protocol::IPv6,
            })
        }
        health_check::Type::Tcp => {
            let tcp = check.tcp.as_ref()?;
            Some(Look::Tcp { port: u16::try_from(tcp.port).ok()?, ipv6: tcp.protocol() == network_info::Protocol::IPv6 })
        }
        health_check::Type::Unknown => None,
    }
}

fn check_look(check: &CheckInfo) -> Option<Look> {
    match check.r#type() {
        check_info::Type::Command => Some(Look::Command(Box::new(check.command.as_ref()?.command.clone()))),
        check_info::Type::Http => {
            let http = check.http.as_ref()?;
            let path = http.path.clone().unwrap_or_default();
            Some(Look::Http { scheme: "http".to_owned(), port: u16::try_from(http.port).ok()?, path, ipv6: false })
        }
        check_info::Type::Tcp => Some(Look::Tcp { port: u16::try_from(check.tcp.as_ref()?.port).ok()?, ipv6: false }),
        check_info::Type::Unknown => None,
    }
}

/// A command of a check sees what its task sees, under its own variables.
fn inherit(command: &mut CommandInfo, info: &TaskInfo) {
    let of_task = info.command.as_ref().and_then(|it| it.environment.as_ref()).map(|it| it.variables.clone()).unwrap_or_default();
    let own = command.environment.take().unwrap_or_default();
    let variables = of_task.into_iter().chain(own.variables).collect();
    command.environment = Some(mesos_proto::v1::Environment { variables });
}

fn is_well(seen: Result<Seen, String>) -> Result<(), String> {
    match seen? {
        Seen::Exited(0) | Seen::Connected(true) | Seen::Status(200..=399) => Ok(()),
        Seen::Exited(status) => Err(format!("Command returned exit status {status}")),
        Seen::Status(status) => Err(format!("Unexpected HTTP response code: {status}")),
        Seen::Connected(false) => Err("TCP connection failed".to_owned()),
    }
}

/// What a check says of a look; one that failed says nothing.
fn status(kind: check_info::Type, seen: &Result<Seen, String>) -> CheckStatusInfo {
    let mut status = CheckStatusInfo { r#type: Some(kind as i32), ..CheckStatusInfo::default() };
    match kind {
        check_info::Type::Command => {
            let exit_code = if let Ok(Seen::Exited(code)) = seen { Some(*code) } else { None };
            status.command = Some(check_status_info::Command { exit_code });
        }
        check_info::Type::Http => {
            let status_code = if let Ok(Seen::Status(code)) = seen { Some(u32::from(*code)) } else { None };
            status.http = Some(check_status_info::Http { status_code });
        }
        check_info::Type::Tcp => {
            let succeeded = if let Ok(Seen::Connected(it)) = seen { Some(*it) } else { None };
            status.tcp = Some(check_status_info::Tcp { succeeded });
        }
        check_info::Type::Unknown => {}
    }
    status
}

async fn take(look: &Look, place: &Place, patience: Duration) -> Result<Seen, String> {
    let late = |what: &str| format!("{what} timed out after {}", crate::words::render_duration(patience));
    match look {
        Look::Command(command) => {
            let ran = place.containers.run_inside(&place.container, command, &place.task, patience);
            ran.await.map(Seen::Exited)
        }
        Look::Http { scheme, port, path, ipv6 } => {
            let address = address(*port, *ipv6);
            let slash = if path.starts_with('/') { "" } else { "/" };
            let url = format!("{scheme}://{address}{slash}{path}");
            apart(place, move || get(&url, patience))
                .await
                .map_err(|problem| if problem.is_empty() { late("HTTP request") } else { problem })
        }
        Look::Tcp { port, ipv6 } => {
            let address = address(*port, *ipv6);
            apart(place, move || Ok(Seen::Connected(TcpStream::connect_timeout(&address, patience).is_ok()))).await
        }
    }
}

fn address(port: u16, ipv6: bool) -> SocketAddr {
    SocketAddr::new(if ipv6 { IpAddr::V6(Ipv6Addr::LOCALHOST) } else { IpAddr::V4(Ipv4Addr::LOCALHOST) }, port)
}

fn get(url: &str, patience: Duration) -> Result<Seen, String> {
    // As Mesos does by `curl -k`: a task's certificate is its own affair.
    let tls = ureq::tls::TlsConfig::builder().disable_verification(true).build();
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .tls_config(tls)
        .build()
        .new_agent();
    match agent.get(url).call() {
        Ok(answer) => Ok(Seen::Status(answer.status().as_u16())),
        Err(ureq::Error::Timeout(_)) => Err(String::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// On a thread of its own, in the network that the task is in.
async fn apart(place: &Place, look: impl FnOnce() -> Result<Seen, String> + Send + 'static) -> Result<Seen, String> {
    let handle = place.containers.get(&place.container);
    let pid = handle.as_ref().filter(|it| it.launch().is_docker()).and_then(|it| it.state().started?.pid);
    let (tell, told) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("check".to_owned()).spawn(move || {
        let entered = match pid {
            // Into the network of the container; the thread ends with the look.
            Some(pid) => File::open(format!("/proc/{pid}/ns/net"))
                .map_err(|error| format!("the network of the container cannot be entered: {error}"))
                .and_then(|it| nix::sched::setns(it, nix::sched::CloneFlags::CLONE_NEWNET).map_err(|error| error.to_string())),
            None => Ok(()),
        };
        drop(tell.send(entered.and_then(|()| look())));
    });
    thread.map_err(|error| error.to_string())?;
    told.await.map_err(|_| "the look failed".to_owned())?
}
