//! What people do from the map, to containers of the local Docker: over HTTP, through both programs, and back.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};
use xtask::http;
use xtask::stack::Stack;

use crate::world::{PATIENCE, cannot, nodes, run, stack};

/// An image with a shell, which says something all the time and ends when it is asked to.
const IMAGE: &str = "orchestrator-test:shell";
const PROGRAM: &str = "trap 'exit 0' TERM; i=0; while true; do echo line $i; i=$((i+1)); sleep 0.2; done";

/// A container that is removed when this value goes.
struct Shell {
    name: String,
    id: String,
}

impl Shell {
    fn start(purpose: &str) -> Result<Option<Self>> {
        if run("docker", &["version", "--format", "{{.Server.Version}}"]).is_err() {
            return cannot("no Docker daemon answers");
        }
        if run("docker", &["image", "inspect", "--format", "{{.Id}}", IMAGE]).is_err() {
            let make = format!(
                "set -e; d=$(mktemp -d); trap 'rm -rf $d' EXIT; mkdir $d/bin; cp $(command -v busybox) $d/bin/; \
                 for a in sh echo sleep stty cat tail ps; do ln -s busybox $d/bin/$a; done; tar -C $d -c . | docker import - {IMAGE}"
            );
            run("sh", &["-c", &make])?;
        }
        let name = format!("e2e-{purpose}-{}", std::process::id());
        run("docker", &["run", "--detach", "--name", &name, "--label", "orchestrator.test=1", IMAGE, "/bin/sh", "-c", PROGRAM])?;
        let id = run("docker", &["inspect", "--format", "{{.Id}}", &name])?;
        Ok(Some(Shell { name, id }))
    }

    fn status(&self) -> String {
        run("docker", &["inspect", "--format", "{{.State.Status}}", &self.name]).unwrap_or_else(|_| "removed".to_owned())
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = run("docker", &["rm", "--force", &self.name]);
    }
}

/// A container on the map, and its probe.
struct Target {
    http: SocketAddr,
    probe: String,
    node: String,
}

impl Target {
    fn find(stack: &mut Stack, shell: &Shell) -> Result<Self> {
        let find = |stack: &Stack| nodes(stack, "containers").unwrap_or_default().keys().find(|node| node.contains(&shell.id)).cloned();
        stack.until(PATIENCE, "the container is on the map", |stack| find(stack).is_some())?;
        let node = find(stack).context("the container has left the map")?;
        let details = http::get_json(stack.http(), &format!("/api/topology/containers/{node}"))?;
        let probe = details["node"]["controls"][0]["probeId"].as_str().context("the panel offers nothing")?.to_owned();
        Ok(Target { http: stack.http(), probe, node })
    }

    /// The node id stands in the path as it is, `<` and `>` included.
    fn call(&self, control: &str, arguments: Option<&Value>) -> Result<http::Reply> {
        http::send(self.http, "POST", &format!("/api/control/{}/{}/{control}", self.probe, self.node), arguments)
    }

    fn done(&self, control: &str, arguments: Option<&Value>) -> Result<Value> {
        let reply = self.call(control, arguments)?;
        ensure!(reply.status == 200, "{control}: {} {}", reply.status, reply.text());
        reply.json()
    }

    fn offered(&self) -> Result<Vec<String>> {
        let details = http::get_json(self.http, &format!("/api/topology/containers/{}", self.node))?;
        let controls = details["node"]["controls"].as_array().context("no controls")?;
        Ok(controls
            .iter()
            .filter_map(|control| control["id"].as_str())
            .map(|id| id.replace("docker_", "").replace("_container", ""))
            .collect())
    }
}

/// A client's end of a pipe.
pub(crate) struct Pipe(WebSocket<TcpStream>);

impl Pipe {
    pub(crate) fn connect(server: SocketAddr, answer: &Value) -> Result<Self> {
        let id = answer["pipe"].as_str().context("no pipe was opened")?;
        let stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (socket, _) = tungstenite::client(format!("ws://{server}/api/pipe/{id}"), stream)?;
        Ok(Pipe(socket))
    }

    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.0.send(Message::binary(text.as_bytes().to_vec()))?)
    }

    /// Everything until the text is in it.
    pub(crate) fn until(&mut self, text: &str) -> Result<String> {
        let begun = Instant::now();
        let mut all = String::new();
        while !all.contains(text) {
            ensure!(begun.elapsed() < PATIENCE, "{text:?} is not in {all:?}");
            match self.0.read()? {
                Message::Binary(bytes) => all.push_str(&String::from_utf8_lossy(&bytes)),
                Message::Ping(_) | Message::Pong(_) => {}
                other => bail!("{other:?} after {all:?}"),
            }
        }
        Ok(all)
    }

    /// Everything until the end.
    pub(crate) fn rest(&mut self) -> Result<String> {
        let mut all = String::new();
        loop {
            match self.0.read() {
                Ok(Message::Binary(bytes)) => all.push_str(&String::from_utf8_lossy(&bytes)),
                Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => return Ok(all),
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[test]
fn a_container_is_paused_stopped_started_killed_and_removed_and_only_what_fits_is_offered() -> Result<()> {
    let Some(shell) = Shell::start("controls")? else { return Ok(()) };
    let Some(mut stack) = stack()? else { return Ok(()) };
    let target = Target::find(&mut stack, &shell)?;
    let running = ["attach", "exec", "restart", "pause", "stop", "logs", "kill"];
    let stopped = ["start", "remove", "logs"];
    let steps: [(&str, &str, &[&str]); 7] = [
        ("pause", "paused", &["unpause"]),
        ("unpause", "running", &running),
        ("restart", "running", &running),
        ("stop", "exited", &stopped),
        ("start", "running", &running),
        ("kill", "exited", &stopped),
        ("remove", "removed", &[]),
    ];
    for (step, status, offered) in steps {
        let answer = target.done(&format!("docker_{step}_container"), None)?;
        ensure!(shell.status() == status, "{step}: {}", shell.status());
        if step == "remove" {
            ensure!(answer == json!({"removedNode": target.node}), "{answer}");
            break;
        }
        ensure!(answer == json!({}), "{answer}");
        stack
            .until(PATIENCE, "the panel offers what fits", |_| target.offered().is_ok_and(|found| found == *offered))
            .with_context(|| format!("after {step}: {:?}", target.offered()))?;
    }
    let reply = target.call("docker_stop_container", None)?;
    ensure!(reply.status == 400 && reply.json()? == json!(format!("No such container: {}", shell.id)), "{} {}", reply.status, reply.text());

    let page = http::get_json(stack.http(), "/api/v1/audit?limit=8")?;
    let outcomes: Vec<_> =
        page["records"].as_array().into_iter().flatten().map(|record| record["outcome"].as_str().unwrap_or_default()).collect();
    ensure!(outcomes == ["failed", "done", "done", "done", "done", "done", "done", "done"], "{outcomes:?}");
    Ok(())
}

#[test]
fn a_terminal_is_real_and_has_the_size_that_it_is_told() -> Result<()> {
    let Some(shell) = Shell::start("terminal")? else { return Ok(()) };
    let Some(mut stack) = stack()? else { return Ok(()) };
    let target = Target::find(&mut stack, &shell)?;
    let answer = target.done("docker_exec_container", None)?;
    ensure!(answer["raw_tty"] == true && answer["resize_tty_control"] == "docker_resize_exec_tty", "{answer}");
    let mut pipe = Pipe::connect(stack.http(), &answer)?;
    pipe.send("echo hel\"\"lo\n")?;
    pipe.until("\nhello\r\n")?;
    let size = json!({"pipeID": answer["pipe"], "height": "41", "width": "137"});
    target.done("docker_resize_exec_tty", Some(&size))?;
    pipe.send("stty size\n")?;
    pipe.until("41 137")?;
    // The client goes away in between, and the shell is the same.
    pipe.send("x=kept\n")?;
    pipe.until("x=kept")?;
    drop(pipe);
    let mut pipe = Pipe::connect(stack.http(), &answer)?;
    pipe.send("echo \"<$x>\"; sleep 31536000\n")?;
    pipe.until("\n<kept>\r\n")?;
    // With the pipe the shell ends, and what runs in it.
    let sleeps = || run("docker", &["top", &shell.name]).unwrap_or_default().contains("31536000");
    ensure!(sleeps(), "the shell should sleep");
    let id = answer["pipe"].as_str().unwrap_or_default();
    ensure!(http::send(stack.http(), "DELETE", &format!("/api/pipe/{id}"), None)?.status == 200, "it cannot be closed");
    pipe.rest()?;
    stack.until(PATIENCE, "what ran in the terminal has ended", |_| !sleeps())?;
    ensure!(http::get(stack.http(), &format!("/api/pipe/{id}/check"))?.status == 404, "it is still open");
    for wrong in [json!({"pipeID": id, "height": "1", "width": "1"}), json!({"pipeID": id, "height": "x", "width": "1"}), json!({})] {
        ensure!(target.call("docker_resize_exec_tty", Some(&wrong))?.status == 400, "{wrong}");
    }
    Ok(())
}

#[test]
fn logs_are_followed_and_an_attached_client_sees_the_same() -> Result<()> {
    let Some(shell) = Shell::start("logs")? else { return Ok(()) };
    let Some(mut stack) = stack()? else { return Ok(()) };
    let target = Target::find(&mut stack, &shell)?;
    let mut logs = Pipe::connect(stack.http(), &target.done("docker_logs_container", Some(&json!({"tail": "2"})))?)?;
    let first = logs.until("\n")?;
    let number: u64 =
        first.trim().lines().next().and_then(|line| line.strip_prefix("line ")).and_then(|it| it.parse().ok()).context("no line")?;
    logs.until(&format!("line {}\n", number + 5))?;
    let mut attached = Pipe::connect(stack.http(), &target.done("docker_attach_container", None)?)?;
    attached.until("line ")?;
    // Logs that are not followed end, and say everything before.
    let whole = target.done("docker_logs_container", Some(&json!({"follow": "false", "tail": "all", "timestamps": "true"})))?;
    let text = Pipe::connect(stack.http(), &whole)?.rest()?;
    ensure!(text.lines().next().is_some_and(|line| line.ends_with("Z line 0")), "{text:.200}");
    ensure!(target.call("docker_logs_container", Some(&json!({"tail": "many"})))?.status == 400, "a bad argument is taken");
    // With the container the logs end by themselves.
    target.done("docker_stop_container", None)?;
    logs.rest()?;
    attached.rest()?;
    Ok(())
}

#[test]
fn a_fast_writer_and_a_slow_reader_cost_no_memory() -> Result<()> {
    let Some(shell) = Shell::start("flood")? else { return Ok(()) };
    let Some(mut stack) = stack()? else { return Ok(()) };
    let target = Target::find(&mut stack, &shell)?;
    let answer = target.done("docker_exec_container", None)?;
    let mut pipe = Pipe::connect(stack.http(), &answer)?;
    pipe.send("stty -echo -opost; cat /dev/zero\n")?;
    let resident = |pid: u32| -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    };
    let pids = [stack.control_pid()?, stack.probe_pid()?];
    std::thread::sleep(Duration::from_secs(1));
    let before = [resident(pids[0])?, resident(pids[1])?];
    // Nobody reads for a while, and the shell would fill gigabytes.
    std::thread::sleep(Duration::from_secs(4));
    let after = [resident(pids[0])?, resident(pids[1])?];
    for (before, after) in before.into_iter().zip(after) {
        ensure!(after < before + 16 * 1_024, "resident memory grew from {before} kB to {after} kB");
    }
    // It still flows.
    let mut read = 0;
    while read < 4 << 20 {
        if let Message::Binary(bytes) = pipe.0.read()? {
            ensure!(bytes.len() <= 1_024, "a message of {} bytes", bytes.len());
            read += bytes.len();
        }
    }
    Ok(())
}

#[test]
fn what_was_not_allowed_is_refused() -> Result<()> {
    let Some(shell) = Shell::start("refused")? else { return Ok(()) };
    let Some(mut stack) = stack()? else { return Ok(()) };
    let target = Target::find(&mut stack, &shell)?;
    for control in ["host_exec", "host_resize_exec_tty", "docker_format_disk"] {
        let reply = target.call(control, None)?;
        let expected = json!(format!("Control {control:?} not recognised"));
        ensure!(reply.status == 400 && reply.json()? == expected, "{} {}", reply.status, reply.text());
    }
    Ok(())
}
