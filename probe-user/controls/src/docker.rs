//! Docker's containers: start, stop, pause, remove; terminals in them; their logs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error as ApiError;
use bollard::exec::CreateExecOptions;
use bollard::query_parameters::{
    KillContainerOptions, RemoveContainerOptions, ResizeExecOptionsBuilder, RestartContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use crate::arguments::{LogArguments, Size};
use crate::desk::{Answer, Call, Executor, Opened, Pipes};
use crate::host::HostShell;
use raw::Raw;
pub(crate) use session::converse;
use session::follow;
use turns::Turns;

mod raw;
mod session;
mod turns;

/// What stands behind the id of a container's node.
const CONTAINER: &str = ";<container>";
/// What a container may take to stop by itself, in seconds.
const STOP_SECONDS: i32 = 10;
/// Longest answer that is waited for, in seconds; a container that does not stop takes its time.
const ANSWER_SECONDS: u64 = 90;
/// A command that was started in a container is waited for this long, looked for so often: the daemon says yes before it has started it.
const STARTED: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(20));
/// Lines of logs that are shown at first.
const LOG_LINES: u32 = 1_000;
/// The control that changes the size of a terminal in a container.
const RESIZE: &str = "docker_resize_exec_tty";

/// Runs root's shell if there is one in the container, else the usual one.
const SHELL: &str = "TERM=xterm; export TERM; shell=$(getent passwd root 2>/dev/null | cut -d: -f7 2>/dev/null); \
                     [ -n \"$shell\" ] && [ -x \"$shell\" ] || shell=/bin/sh; exec \"$shell\"";

/// What the daemon can be asked for.
const CONTROLS: [&str; 11] = [
    "docker_attach_container",
    "docker_exec_container",
    RESIZE,
    "docker_start_container",
    "docker_restart_container",
    "docker_pause_container",
    "docker_unpause_container",
    "docker_stop_container",
    "docker_remove_container",
    "docker_kill_container",
    "docker_logs_container",
];

/// What a node lets people do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfig {
    /// The daemon's socket; `None` where there is no Docker.
    pub socket: Option<PathBuf>,
    /// Where the host's `/proc` is.
    pub proc_root: PathBuf,
    /// A shell on the host itself; `None` where it is not allowed.
    pub host_shell: Option<HostShell>,
}

/// Carries out the controls of a node.
#[derive(Debug)]
pub struct Docker {
    config: DockerConfig,
    client: OnceCell<bollard::Docker>,
    /// Exec instances by the numbers of their pipes, for as long as their terminals are open.
    execs: Mutex<HashMap<u64, String>>,
    turns: Turns,
}

impl Docker {
    /// An executor; the daemon is asked when something is to be done.
    pub fn new(config: DockerConfig) -> Self {
        Docker { config, client: OnceCell::new(), execs: Mutex::default(), turns: Turns::default() }
    }

    async fn client(&self) -> Result<&bollard::Docker, String> {
        let socket = self.config.socket.as_ref().ok_or("this node has no Docker")?;
        let connect = async || {
            bollard::Docker::connect_with_unix(&socket.to_string_lossy(), ANSWER_SECONDS, bollard::API_DEFAULT_VERSION)?
                .negotiate_version()
                .await
        };
        self.client.get_or_try_init(connect).await.map_err(|error| text(&error))
    }

    fn raw(&self) -> Result<Raw, String> {
        Ok(Raw::new(self.config.socket.clone().ok_or("this node has no Docker")?))
    }

    async fn carry_out(self: Arc<Self>, call: Call, pipes: Pipes) -> Result<Answer, String> {
        let Call { node, control, arguments } = call;
        if control == "host_exec" || control == "host_resize_exec_tty" {
            let shell = self.config.host_shell.as_ref().ok_or_else(|| unknown(&control))?;
            return shell.carry_out(&control, &arguments, &pipes);
        }
        if control == RESIZE {
            return self.resize(Size::parse(&arguments)?).await;
        }
        if !CONTROLS.contains(&control.as_str()) {
            return Err(unknown(&control));
        }
        let id = container_id(&node)?;
        let docker = self.client().await?;
        // Until it is done; what was opened carries its bytes when the turn is over.
        let _turn = self.turns.take(id).await;
        let done = match control.as_str() {
            "docker_start_container" => docker.start_container(id, None).await,
            "docker_stop_container" => docker.stop_container(id, Some(StopContainerOptionsBuilder::new().t(STOP_SECONDS).build())).await,
            "docker_restart_container" => {
                docker.restart_container(id, Some(RestartContainerOptionsBuilder::new().t(STOP_SECONDS).build())).await
            }
            "docker_pause_container" => docker.pause_container(id).await,
            "docker_unpause_container" => docker.unpause_container(id).await,
            "docker_kill_container" => docker.kill_container(id, None::<KillContainerOptions>).await,
            "docker_remove_container" => {
                docker.remove_container(id, None::<RemoveContainerOptions>).await.map_err(|error| text(&error))?;
                return Ok(Answer { removed_node: node, opened: None });
            }
            "docker_attach_container" => return self.attach(id, &pipes).await,
            "docker_logs_container" => return self.logs(id, &LogArguments::parse(&arguments, Some(LOG_LINES), false)?, &pipes).await,
            _ => return self.clone().exec(id.to_owned(), &pipes).await,
        };
        done.map(|()| Answer::default()).map_err(|error| text(&error))
    }

    /// Whether the container's first process has a terminal.
    async fn has_terminal(&self, id: &str) -> Result<bool, String> {
        let inspected = self.client().await?.inspect_container(id, None).await.map_err(|error| text(&error))?;
        Ok(inspected.config.and_then(|config| config.tty).unwrap_or(false))
    }

    async fn attach(&self, id: &str, pipes: &Pipes) -> Result<Answer, String> {
        let raw_tty = self.has_terminal(id).await?;
        let path = format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1");
        let stream = self.raw()?.upgrade(&path, None).await?;
        let pipe = pipes.open();
        let number = pipe.number();
        Ok(opened(number, raw_tty, "", converse(pipe, stream, raw_tty)))
    }

    async fn logs(&self, id: &str, arguments: &LogArguments, pipes: &Pipes) -> Result<Answer, String> {
        let has_terminal = self.has_terminal(id).await?;
        let LogArguments { follow: follows, tail, since, timestamps } = arguments;
        let flag = |value: bool| u8::from(value);
        let tail = tail.map_or_else(|| "all".to_owned(), |tail| tail.to_string());
        let path = format!(
            "/containers/{id}/logs?stdout=1&stderr=1&follow={}&tail={tail}&since={}&timestamps={}",
            flag(*follows),
            since.unwrap_or(0),
            flag(*timestamps)
        );
        let body = self.raw()?.body(&path).await?;
        let pipe = pipes.open();
        let number = pipe.number();
        Ok(opened(number, false, "", follow(pipe, body, has_terminal)))
    }

    async fn exec(self: Arc<Self>, id: String, pipes: &Pipes) -> Result<Answer, String> {
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(true),
            cmd: Some(vec!["/bin/sh", "-c", SHELL]),
            ..CreateExecOptions::default()
        };
        let exec = self.client().await?.create_exec(&id, options).await.map_err(|error| text(&error))?.id;
        let stream = self.raw()?.upgrade(&format!("/exec/{exec}/start"), Some(r#"{"Detach":false,"Tty":true}"#)).await?;
        self.started(&exec).await;
        let pipe = pipes.open();
        let number = pipe.number();
        self.execs.lock().unwrap_or_else(PoisonError::into_inner).insert(number, exec.clone());
        let terminal = Terminal { docker: self, number };
        let session = async move {
            let ended = converse(pipe, stream, true).await;
            terminal.hang_up(&exec, &id).await;
            ended
        };
        Ok(opened(number, true, RESIZE, session))
    }

    /// Waits until a command runs or has ended. One of which that is not told in time is none the worse.
    async fn started(&self, exec: &str) {
        let looked = async {
            let Ok(docker) = self.client().await else { return };
            while let Ok(state) = docker.inspect_exec(exec).await
                && state.pid.is_none_or(|pid| pid == 0)
                && state.exit_code.is_none()
            {
                tokio::time::sleep(STARTED.1).await;
            }
        };
        drop(tokio::time::timeout(STARTED.0, looked).await);
    }

    async fn resize(&self, size: Size) -> Result<Answer, String> {
        let exec = self.execs.lock().unwrap_or_else(PoisonError::into_inner).get(&size.pipe).cloned();
        let exec = exec.ok_or_else(|| format!("Unknown pipeID (pipe-{})", size.pipe))?;
        let options = ResizeExecOptionsBuilder::new().h(size.height.into()).w(size.width.into()).build();
        self.client().await?.resize_exec(&exec, options).await.map_err(|error| text(&error))?;
        Ok(Answer::default())
    }
}

impl Executor for Docker {
    fn controls(&self) -> Vec<String> {
        let docker = self.config.socket.is_some().then_some(CONTROLS).into_iter().flatten();
        let host = self.config.host_shell.is_some().then_some(["host_exec", "host_resize_exec_tty"]).into_iter().flatten();
        docker.chain(host).map(str::to_owned).collect()
    }

    fn call(self: Arc<Self>, call: Call, pipes: Pipes) -> BoxFuture<'static, Result<Answer, String>> {
        self.carry_out(call, pipes).boxed()
    }
}

/// An open terminal in a container.
struct Terminal {
    docker: Arc<Docker>,
    number: u64,
}

impl Terminal {
    /// What runs in it would run on without anybody who could see it: Docker itself only closes its input.
    async fn hang_up(&self, exec: &str, container: &str) {
        let Ok(docker) = self.docker.client().await else { return };
        let Ok(state) = docker.inspect_exec(exec).await else { return };
        let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1);
        let (true, Some(pid)) = (state.running.unwrap_or(false), pid) else { return };
        // The number is the host's. Where the probe has other numbers, it is somebody else's.
        let proc_root = &self.docker.config.proc_root;
        if !has_its_numbers(proc_root) {
            tracing::warn!(container, pid, "what runs in a closed terminal runs on: the probe does not see the host's process ids");
            return;
        }
        let cgroup = proc_root.join(pid.to_string()).join("cgroup");
        if tokio::fs::read_to_string(cgroup).await.is_ok_and(|cgroup| cgroup.contains(container)) {
            match nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGHUP) {
                // It may have gone meanwhile.
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => {
                    tracing::warn!(container, pid, %error, "what runs in a closed terminal runs on: it cannot be signalled (CAP_KILL)")
                }
            }
        }
    }
}

/// Whether processes have the same numbers below `proc_root` as where this one runs: it finds itself there by its own.
fn has_its_numbers(proc_root: &std::path::Path) -> bool {
    let number = std::fs::read_link(proc_root.join("self"));
    number.is_ok_and(|number| number.as_os_str() == std::process::id().to_string().as_str())
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.docker.execs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

pub(crate) fn opened(
    pipe: u64,
    raw_tty: bool,
    resize_control: &'static str,
    session: impl Future<Output = Result<(), String>> + Send + 'static,
) -> Answer {
    Answer { removed_node: String::new(), opened: Some(Opened { pipe, raw_tty, resize_control, session: session.boxed() }) }
}

pub(crate) fn unknown(control: &str) -> String {
    format!("Control {control:?} not recognised")
}

/// Of the id of a container's node. It becomes a part of a path, so only what a container's id or name may be is let through.
fn container_id(node: &str) -> Result<&str, String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let id = node.strip_suffix(CONTAINER).filter(|id| !id.is_empty() && id.len() <= 256 && id.bytes().all(is_part) && !id.starts_with('.'));
    id.ok_or_else(|| format!("Invalid ID: {node}"))
}

/// What the daemon said, without the library's words around it.
fn text(error: &ApiError) -> String {
    match error {
        ApiError::DockerResponseServerError { message, .. } => message.clone(),
        other => {
            let causes = std::iter::successors(Some(other as &dyn std::error::Error), |error| error.source());
            causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_of_a_containers_node_becomes_a_part_of_a_path() {
        assert_eq!(container_id("2299a2;<container>"), Ok("2299a2"));
        for wrong in
            ["2299a2", "a/../b;<container>", ";<container>", "a?b;<container>", "..;<container>", "web-1;<host>", "a b;<container>"]
        {
            assert_eq!(container_id(wrong), Err(format!("Invalid ID: {wrong}")));
        }
    }

    /// A daemon that takes its time to stop a container and to start a command, and notes what it is asked and what it has done.
    #[expect(clippy::disallowed_methods, reason = "the daemon of a test ends with its runtime")]
    fn slow_daemon(socket: &std::path::Path) -> Arc<Mutex<Vec<String>>> {
        use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let notes: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = notes.clone();
        tokio::spawn(async move {
            let starts = Arc::new(Mutex::new(None::<tokio::time::Instant>));
            while let Ok((stream, _)) = listener.accept().await {
                let (notes, starts) = (notes.clone(), starts.clone());
                tokio::spawn(async move {
                    let (reader, mut writer) = stream.into_split();
                    let mut lines = tokio::io::BufReader::new(reader).lines();
                    while let Ok(Some(request)) = lines.next_line().await {
                        let mut length = 0;
                        while let Ok(Some(line)) = lines.next_line().await {
                            if line.is_empty() {
                                break;
                            }
                            let (name, value) = line.split_once(": ").unwrap();
                            length = if name.eq_ignore_ascii_case("content-length") { value.parse().unwrap() } else { length };
                        }
                        tokio::io::AsyncReadExt::read_exact(lines.get_mut(), &mut vec![0; length]).await.unwrap();
                        let path = request.split(' ').nth(1).unwrap().split('?').next().unwrap().replace("/v1.41", "");
                        let mut head = "HTTP/1.1 204 No Content\r\n".to_owned();
                        let mut body = String::new();
                        let json = |body: &str| (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len()), body.to_owned());
                        match path.as_str() {
                            "/version" => (head, body) = json(r#"{"ApiVersion":"1.41"}"#),
                            "/containers/a/stop" => {
                                tokio::time::sleep(Duration::from_millis(300)).await;
                                notes.lock().unwrap().push("a stopped".to_owned());
                            }
                            "/containers/a/exec" => (head, body) = json(r#"{"Id":"e"}"#),
                            "/exec/e/start" => {
                                *starts.lock().unwrap() = Some(tokio::time::Instant::now() + Duration::from_millis(300));
                                head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n".to_owned();
                            }
                            "/exec/e/json" => {
                                let runs = starts.lock().unwrap().is_some_and(|at| at <= tokio::time::Instant::now());
                                if runs {
                                    notes.lock().unwrap().push("e runs".to_owned());
                                }
                                (head, body) = json(&format!(r#"{{"Running":true,"Pid":{}}}"#, if runs { 7 } else { 0 }));
                            }
                            done => notes.lock().unwrap().push(done.to_owned()),
                        }
                        writer.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
                        if head.contains(" 101 ") {
                            return std::future::pending().await;
                        }
                    }
                });
            }
        });
        kept
    }

    #[tokio::test]
    async fn a_control_waits_for_the_one_before_it_in_the_same_container_and_for_no_other() {
        let directory = std::env::temp_dir().join(format!("probe-controls-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let socket = directory.join("docker.sock");
        drop(std::fs::remove_file(&socket));
        let notes = slow_daemon(&socket);
        let docker = Arc::new(Docker::new(DockerConfig { socket: Some(socket), proc_root: "/proc".into(), host_shell: None }));
        let pipes = Pipes::to_nobody();
        let call = |id: &str, control: &str| {
            let call = Call { node: format!("{id};<container>"), control: format!("docker_{control}_container"), arguments: [].into() };
            docker.clone().call(call, pipes.clone())
        };
        let answers = futures::join!(call("a", "stop"), call("a", "start"), call("b", "pause"));
        assert!(answers.0.is_ok() && answers.1.is_ok() && answers.2.is_ok(), "{answers:?}");
        assert_eq!(*notes.lock().unwrap(), ["/containers/b/pause", "a stopped", "/containers/a/start"]);
        notes.lock().unwrap().clear();
        // The daemon says yes to a command before it runs: only then comes the next.
        let answers = futures::join!(call("a", "exec"), call("a", "pause"));
        assert!(answers.0.is_ok_and(|answer| answer.opened.is_some()) && answers.1.is_ok());
        assert_eq!(*notes.lock().unwrap(), ["e runs", "/containers/a/pause"]);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn numbers_are_the_same_where_this_process_finds_itself() {
        assert!(has_its_numbers(std::path::Path::new("/proc")));
        let other = std::env::temp_dir().join(format!("probe-numbers-{}", std::process::id()));
        std::fs::create_dir_all(&other).unwrap();
        assert!(!has_its_numbers(&other), "nobody is there");
        std::os::unix::fs::symlink((std::process::id() + 1).to_string(), other.join("self")).unwrap();
        assert!(!has_its_numbers(&other));
        std::fs::remove_dir_all(&other).unwrap();
    }

    #[test]
    fn without_docker_and_without_leave_nothing_can_be_done() {
        let nothing = DockerConfig { socket: None, proc_root: "/proc".into(), host_shell: None };
        assert_eq!(Docker::new(nothing.clone()).controls(), Vec::<String>::new());
        let docker = Docker::new(DockerConfig { socket: Some("/run/docker.sock".into()), ..nothing });
        assert!(!docker.controls().iter().any(|control| control.starts_with("host_")));
    }
}
