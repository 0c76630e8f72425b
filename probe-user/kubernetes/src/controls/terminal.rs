//! Shells in the containers of pods, and the first processes of containers, over the API's WebSockets.

use std::fmt;

use bytes::{Bytes, BytesMut};
use futures::channel::mpsc;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::{Hands, Place, Refused, name, path};
use crate::watch::innermost;

/// Bytes that wait in each direction.
const WAITING_BYTES: usize = 64 << 10;
/// Bytes that are read at once.
const READ_BYTES: usize = 8 << 10;
/// How the API says that a program has ended with another number than none. That is the program's own business.
const EXIT_CODE: &str = "NonZeroExitCode";
/// Lists of containers in the specification of a pod, and those of their states.
const SPECIFIED: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
const STATES: [&str; 3] = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];

/// What runs in a container, with somebody in front of it.
pub struct Terminal {
    /// It is a terminal, and not just a stream of bytes.
    pub is_terminal: bool,
    /// Where to write what is typed; `None` when nobody in there reads.
    pub input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What is written in there, until it ends. The last may be why it could not go on.
    pub output: BoxStream<'static, Result<Bytes, String>>,
    /// Changes its size; `None` for what is no terminal.
    pub sizes: Option<Sizes>,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").field("is_terminal", &self.is_terminal).finish_non_exhaustive()
    }
}

/// Changes the size of a terminal.
#[derive(Clone, Debug)]
pub struct Sizes(mpsc::Sender<TerminalSize>);

impl Sizes {
    /// Columns and rows.
    ///
    /// # Errors
    /// When the terminal is gone, or does not keep up.
    pub fn set(&self, width: u16, height: u16) -> Result<(), Refused> {
        let sent = self.0.clone().try_send(TerminalSize { width, height });
        sent.map_err(|_| Refused("the terminal does not take another size".to_owned()))
    }
}

/// A container as its pod names it.
struct Container {
    name: String,
    /// Its first process has a terminal.
    tty: bool,
    /// Its first process may be typed to.
    stdin: bool,
}

impl Hands {
    /// Runs `command` in a container of a pod, with a terminal.
    ///
    /// # Errors
    /// What the API says, for example that the collector's account has no right to `pods/exec`.
    pub async fn exec(&self, pod: &Place, container_id: &str, command: &[&str]) -> Result<Terminal, Refused> {
        let container = self.container(pod, container_id).await?;
        let parameters = parameters(&container.name, true, true);
        let process = self.pods(pod)?.exec(name(&pod.name)?, command.iter().copied(), &parameters).await?;
        Ok(terminal(process, true))
    }

    /// Sits down in front of the first process of a container.
    ///
    /// # Errors
    /// What the API says, for example that the collector's account has no right to `pods/attach`.
    pub async fn attach(&self, pod: &Place, container_id: &str) -> Result<Terminal, Refused> {
        let container = self.container(pod, container_id).await?;
        let parameters = parameters(&container.name, container.stdin, container.tty);
        let process = self.pods(pod)?.attach(name(&pod.name)?, &parameters).await?;
        Ok(terminal(process, container.tty))
    }

    fn pods(&self, pod: &Place) -> Result<Api<Pod>, Refused> {
        Ok(Api::namespaced(self.client.clone(), name(&pod.namespace)?))
    }

    async fn container(&self, pod: &Place, id: &str) -> Result<Container, Refused> {
        let found: Value = self.ask("GET", &path(pod)?, None).await?;
        let listed = |part: &str, list: &str| found[part][list].as_array().cloned().unwrap_or_default();
        let is_it = |state: &Value| state["containerID"].as_str().and_then(|it| it.split_once("://")).is_some_and(|(_, it)| it == id);
        let called = STATES.iter().flat_map(|list| listed("status", list)).find(is_it);
        let called = called.and_then(|state| state["name"].as_str().map(str::to_owned));
        let called = called.ok_or_else(|| Refused(format!("pod {} has this container no more", pod.name)))?;
        let specified = SPECIFIED.iter().flat_map(|list| listed("spec", list)).find(|it| it["name"] == called.as_str());
        let says = |key: &str| specified.as_ref().is_some_and(|it| it[key] == true);
        Ok(Container { tty: says("tty"), stdin: says("stdin"), name: called })
    }
}

fn parameters(container: &str, stdin: bool, tty: bool) -> AttachParams {
    AttachParams::default()
        .container(container)
        .stdin(stdin)
        .tty(tty)
        // A terminal has one output.
        .stderr(!tty)
        .max_stdin_buf_size(WAITING_BYTES)
        .max_stdout_buf_size(WAITING_BYTES)
        .max_stderr_buf_size(WAITING_BYTES)
}

fn terminal(mut process: AttachedProcess, is_terminal: bool) -> Terminal {
    let input = process.stdin().map(|it| Box::new(it) as Box<dyn AsyncWrite + Send + Unpin>);
    let sizes = process.terminal_size().map(Sizes);
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let running = Running { stdout, stderr, process, has_said: false };
    let output = stream::unfold(Some(running), |running| async {
        let mut running = running?;
        match running.next().await {
            Some(bytes) => Some((Ok(bytes), Some(running))),
            None => running.last_words().await.map(|words| (Err(words), None)),
        }
    });
    Terminal { is_terminal, input, output: output.boxed(), sizes }
}

/// A process at the other end. Dropping it closes the connection.
struct Running<Output, Errors> {
    stdout: Option<Output>,
    stderr: Option<Errors>,
    process: AttachedProcess,
    has_said: bool,
}

impl<Output: AsyncRead + Unpin, Errors: AsyncRead + Unpin> Running<Output, Errors> {
    async fn next(&mut self) -> Option<Bytes> {
        let Running { stdout, stderr, .. } = self;
        while stdout.is_some() || stderr.is_some() {
            let read = tokio::select! {
                read = read(stdout), if stdout.is_some() => read,
                read = read(stderr), if stderr.is_some() => read,
            };
            if read.is_some() {
                self.has_said = true;
                return read;
            }
        }
        None
    }

    /// Why it has ended, where that is not its own business: a program that ends with a number has mostly said why, a shell has not.
    async fn last_words(mut self) -> Option<String> {
        let told = match self.process.take_status() {
            Some(status) => status.await,
            None => None,
        };
        match told {
            Some(Status { status, reason, message, .. }) => {
                let is_own_business = status.as_deref() == Some("Success") || (self.has_said && reason.as_deref() == Some(EXIT_CODE));
                (!is_own_business).then(|| message.or(reason).unwrap_or_else(|| "it failed".to_owned()))
            }
            None => self.process.join().await.err().map(|error| format!("the connection broke off: {}", innermost(&error))),
        }
    }
}

/// What comes next; `None`, and no reader any more, at its end.
async fn read(from: &mut Option<impl AsyncRead + Unpin>) -> Option<Bytes> {
    let reader = from.as_mut()?;
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    if matches!(reader.read_buf(&mut buffer).await, Ok(1..)) {
        return Some(buffer.freeze());
    }
    *from = None;
    None
}
