//! The agent's image, which starts the agent in the root of its node: here a node of busybox alone, in a directory.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Container, until};
use crate::progress::note;
use crate::{http, machine};

/// Directories of the node's root, as tasks and the agent expect them. Into some of them this machine's are mounted.
const DIRECTORIES: [&str; 10] = ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "var/lib"];
/// What a task may call.
const PROGRAMS: [&str; 5] = ["sh", "cat", "echo", "sleep", "readlink"];
/// By what the node knows names. The agent has the pod's in its place, and the node must not notice.
const RESOLVER: &str = "nameserver 192.0.2.53\n";
/// Before the agent starts as it does in a pod: a pod with the node's process ids has the node's `/proc` below its root.
const WITH_PROC: &str = "mount -t proc proc /host/proc && exec /start \"$@\"";

/// Lays out a node's root.
fn root(at: &Path) -> Result<()> {
    for directory in DIRECTORIES {
        fs::create_dir(at.join(directory)).with_context(|| format!("cannot make {directory} of a node"))?;
    }
    let busybox = machine::program("busybox").context("busybox is missing")?;
    fs::copy(busybox, at.join("bin/busybox")).context("cannot copy busybox")?;
    for program in PROGRAMS {
        symlink("busybox", at.join("bin").join(program))?;
    }
    fs::write(at.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(at.join("etc/group"), "root:x:0:\n")?;
    fs::write(at.join("etc/resolv.conf"), RESOLVER)?;
    Ok(())
}

/// Runs it, and a task through it.
pub(super) fn run(tag: &str, grpc: SocketAddr, mesos: SocketAddr, marathon: SocketAddr) -> Result<()> {
    let directory = tempfile::tempdir().context("there is no room for a node")?;
    root(directory.path())?;
    let image = format!("orchestrator-agent:{tag}");
    // Whose first process is the node's.
    let first = Container::start(
        "node",
        &["--network=host", "--cgroupns=host", "--entrypoint", "/bin/sh", &image, "-c", "while sleep 1; do :; done"],
    )?;
    let [processes, root] = [format!("--pid=container:{}", first.0), format!("{}:/host", directory.path().display())];
    // Less than a privileged pod has, which a machine may not be able to give: what a task without a limit of devices takes.
    let around =
        ["--network=host", "--cgroupns=host", "--read-only", "--security-opt=apparmor=unconfined", "--security-opt=seccomp=unconfined"];
    let rights = ["--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE", "--cap-add=NET_ADMIN", "--cap-add=DAC_READ_SEARCH"];
    let mounts = ["--volume", &root, "--volume", "/sys:/host/sys", "--volume", "/dev:/host/dev"];
    let control_plane = format!("--control-plane=http://{grpc}");
    let told = [
        "--entrypoint",
        "/bin/sh",
        &image,
        "-c",
        WITH_PROC,
        "start",
        "--roles=run",
        &control_plane,
        "--agent-address=127.0.0.1:0",
        "--admin-address=off",
        "--work-dir=/var/lib/orchestrator-agent",
        "--runtime-dir=/run/orchestrator-agent",
        "--host-name=trial",
        "--resources=cpus:1;mem:128;disk:64;ports:[31900-31901]",
    ];
    let agent = Container::start("agent", &[around.as_slice(), &[processes.as_str()], &rights, &mounts, &told].concat())?;
    until(&agent, "the agent is registered", || {
        Ok(http::get_json(mesos, "/slaves")?["slaves"].as_array().is_some_and(|slaves| slaves.iter().any(|it| it["hostname"] == "trial")))
    })?;
    let app = json!({ "id": "/trial", "cmd": "cat /etc/resolv.conf > /tmp/came; exec sleep 1000", "cpus": 0.1, "mem": 16 });
    let reply = http::send(marathon, "POST", "/v2/apps", Some(&app))?;
    ensure!(reply.status == 201, "an app: {} {}", reply.status, reply.text());
    until(&agent, "a task runs", || Ok(http::get_json(marathon, "/v2/apps//trial")?["app"]["tasksRunning"] == 1))?;
    let came = directory.path().join("tmp/came");
    until(&agent, "the task has written to the node", || Ok(came.exists()))?;
    note("the agent runs a task in the root of its node");
    let reply = http::send(marathon, "DELETE", "/v2/apps//trial", None)?;
    ensure!(reply.status == 200, "the app's end: {} {}", reply.status, reply.text());
    until(&agent, "the task has ended", || {
        Ok(http::get_json(mesos, "/tasks")?["tasks"].as_array().is_some_and(|tasks| tasks.iter().all(|it| it["state"] != "TASK_RUNNING")))
    })?;
    agent.stop()?;
    let resolver = fs::read_to_string(directory.path().join("etc/resolv.conf"))?;
    ensure!(resolver == RESOLVER, "the node has another resolver now: {resolver}");
    Ok(())
}
