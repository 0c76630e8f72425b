//! What tests stand on: the programs under test, load programs, network namespaces and containers; each removed when it goes out of scope.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use xtask::stack::Stack;
use xtask::traffic::Process;
use xtask::{Checkout, Profile, http, in_ci};

/// How long what happened in the kernel may take to be on the API. Far above what is usual: a busy machine is no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The programs under test, running; `None` where this machine cannot run them and need not.
pub(crate) fn stack() -> Result<Option<Stack>> {
    if !nix::unistd::geteuid().is_root() {
        return cannot("the probe needs root");
    }
    Stack::start(Profile::Debug).map(Some)
}

/// What to do where something is missing that cannot be installed: fail in continuous integration.
pub(crate) fn cannot<T>(why: &str) -> Result<Option<T>> {
    ensure!(!in_ci(), "{why}, and this is continuous integration");
    eprintln!("not tested on this machine: {why}");
    Ok(None)
}

/// A load program: the test's own process accepts or opens nothing itself.
pub(crate) fn traffic() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("traffic");
    command
}

/// A server on an address, which answers each connection with so many bytes.
pub(crate) fn serve(command: &mut Command, address: &str, reply: usize) -> Result<(Process, SocketAddr)> {
    let mut server = Process::start(command.args(["serve", "--bind", address, "--reply", &reply.to_string()]))?;
    let listening = server.listening()?;
    Ok((server, listening))
}

/// A client that makes connections, sends so many bytes on each, and stays.
pub(crate) fn connect(command: &mut Command, to: SocketAddr, count: u64, send: usize) -> Result<(Process, Value)> {
    let arguments = ["connect", "--to", &to.to_string(), "--count", &count.to_string(), "--send", &send.to_string(), "--stay"];
    let mut client = Process::start(command.args(arguments))?;
    let report = client.report()?;
    Ok((client, report))
}

/// What is counted at one end of the connections to a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    pub(crate) failed: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// The flows of one end: whose, which end, which service.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// `pid=…` or `container=…`.
    pub(crate) holder: String,
    /// `client` or `server`.
    pub(crate) direction: &'static str,
    /// Port of the service.
    pub(crate) port: u16,
}

impl End {
    pub(crate) fn of_process(pid: u32, direction: &'static str, port: u16) -> Self {
        Self { holder: format!("pid={pid}"), direction, port }
    }

    /// Every flow of this end.
    pub(crate) fn flows(&self, stack: &Stack) -> Result<Vec<Value>> {
        stack.flows(&format!("{}&direction={}&port={}", self.holder, self.direction, self.port))
    }

    fn counted(&self, stack: &Stack) -> Counted {
        let flows = self.flows(stack).unwrap_or_default();
        let sum = |field: &str| flows.iter().filter_map(|flow| flow[field].as_u64()).sum();
        Counted {
            opened: sum("opened"),
            closed: sum("closed"),
            failed: sum("failed"),
            sent: sum("bytesSent"),
            received: sum("bytesReceived"),
        }
    }

    /// Waits until exactly this is counted, and returns the flows.
    pub(crate) fn must_count(&self, stack: &mut Stack, expected: Counted) -> Result<Vec<Value>> {
        let outcome = stack.until(PATIENCE, "the counts are right", |stack| self.counted(stack) == expected);
        outcome.with_context(|| {
            format!("{self:?}: counted {:?}, expected {expected:?}; flows {:?}", self.counted(stack), self.flows(stack))
        })?;
        self.flows(stack)
    }
}

/// The nodes of a view, by id. The parameter switches the options off that hide nodes.
pub(crate) fn nodes(stack: &Stack, view: &str) -> Result<serde_json::Map<String, Value>> {
    let reply = http::get_json(stack.http(), &format!("/api/topology/{view}"))?;
    reply["nodes"].as_object().cloned().context("no nodes in the reply")
}

/// Whether a view has an edge from one node to another, both given by a part of their ids.
pub(crate) fn has_edge(stack: &Stack, view: &str, from: &str, to: &str) -> bool {
    let nodes = nodes(stack, view).unwrap_or_default();
    let names =
        |node: &Value| node["adjacency"].as_array().is_some_and(|ids| ids.iter().filter_map(Value::as_str).any(|id| id.contains(to)));
    nodes.iter().any(|(id, node)| id.contains(from) && names(node))
}

/// Runs a command that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output: Output = Command::new(program).args(arguments).output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A network namespace, joined to ours by a pair of interfaces.
#[derive(Debug)]
pub(crate) struct NetworkNamespace {
    name: String,
}

impl NetworkNamespace {
    /// Our end has the address `10.213.<block>.1`, its end `10.213.<block>.2`.
    pub(crate) fn new(block: u8) -> Result<Self> {
        let name = format!("e2e-{}-{block}", std::process::id());
        run("ip", &["netns", "add", &name])?;
        let namespace = Self { name };
        let (ours, theirs) = (format!("e2e{block}a"), format!("e2e{block}b"));
        run("ip", &["link", "add", &ours, "type", "veth", "peer", "name", &theirs, "netns", &namespace.name])?;
        run("ip", &["address", "add", &format!("10.213.{block}.1/24"), "dev", &ours])?;
        run("ip", &["link", "set", &ours, "up"])?;
        run("ip", &["-n", &namespace.name, "address", "add", &format!("10.213.{block}.2/24"), "dev", &theirs])?;
        run("ip", &["-n", &namespace.name, "link", "set", &theirs, "up"])?;
        run("ip", &["-n", &namespace.name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// A load program inside. `ip` becomes that program, so its pid is the one that is started.
    pub(crate) fn traffic(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, env!("CARGO_BIN_EXE_xtask"), "traffic"]);
        command
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        // The interfaces go with it.
        let _ = run("ip", &["netns", "delete", &self.name]);
    }
}

/// A container that is removed when this value goes.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its name.
    pub(crate) name: String,
}

/// The image of test containers.
const IMAGE: &str = "orchestrator-test:busybox";

impl Container {
    /// A name that no other test uses; `None` where there is no Docker.
    pub(crate) fn named(purpose: &str) -> Result<Option<Self>> {
        if run("docker", &["version", "--format", "{{.Server.Version}}"]).is_err() {
            return cannot("no Docker daemon answers");
        }
        image()?;
        Ok(Some(Self { name: format!("e2e-{purpose}-{}", std::process::id()) }))
    }

    /// Starts it with a program of busybox.
    pub(crate) fn start(&self, arguments: &[&str]) -> Result<()> {
        let before = ["run", "--detach", "--name", &self.name, "--label", "orchestrator.test=1", IMAGE, "/bin/busybox"];
        run("docker", &[before.as_slice(), arguments].concat()).map(drop)
    }

    /// A load program as its only process. The host's libraries are mounted, since the image has none.
    pub(crate) fn traffic(&self) -> Command {
        self.traffic_labelled(&[])
    }

    /// The same in a container with labels, each as `key=value`.
    pub(crate) fn traffic_labelled(&self, labels: &[String]) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_xtask"));
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--interactive", "--name", &self.name, "--label", "orchestrator.test=1"]);
        command.args(labels.iter().map(|label| format!("--label={label}")));
        for directory in ["/lib", "/lib64", "/usr/lib"].into_iter().filter(|directory| Path::new(directory).exists()) {
            command.arg(format!("--volume={directory}:{directory}:ro"));
        }
        command.arg(format!("--volume={}:/traffic:ro", program.display())).args([IMAGE, "/traffic", "traffic"]);
        command
    }

    /// A field of `docker inspect`.
    pub(crate) fn inspect(&self, template: &str) -> Result<String> {
        run("docker", &["inspect", "--format", template, &self.name])
    }

    /// Its full id.
    pub(crate) fn id(&self) -> Result<String> {
        self.inspect("{{.Id}}")
    }

    /// The process id of its first process, as the host sees it.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.inspect("{{.State.Pid}}")?.parse().context("the process id is no number")
    }

    /// Its address on the bridge.
    pub(crate) fn address(&self) -> Result<String> {
        self.inspect("{{.NetworkSettings.IPAddress}}")
    }

    /// Removes it now.
    pub(crate) fn remove(&self) -> Result<()> {
        run("docker", &["rm", "--force", &self.name]).map(drop)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A test may have removed it already.
        let _ = self.remove();
    }
}

fn image() -> Result<()> {
    if run("docker", &["image", "inspect", "--format", "{{.Id}}", IMAGE]).is_ok() {
        return Ok(());
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .context("busybox-static is not installed")?;
    let make = format!(
        "set -e; d=$(mktemp -d); trap 'rm -rf $d' EXIT; mkdir $d/bin; cp {busybox} $d/bin/busybox; tar -C $d -c . | docker import - {IMAGE}"
    );
    run("sh", &["-c", &make]).map(drop)
}

/// Where tests leave what a person may want to see.
pub(crate) fn gallery() -> Result<PathBuf> {
    let directory = Checkout::here().target().join("end-to-end");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}
