//! Three control planes on a real ZooKeeper, with a real agent: the one that leads is killed, and what ran goes on running.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use xtask::http;

use crate::world::cannot;

/// How long anything may take that a person would wait for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Session timeout of the control planes.
const SESSION: &str = "4s";

/// A program that is killed when this value goes.
pub(crate) struct Program(pub(crate) Child);

impl Program {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone()?;
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        Ok(Program(child.with_context(|| format!("cannot start {}", command.get_program().display()))?))
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) struct ControlPlane {
    pub(crate) program: Program,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) mesos: SocketAddr,
    pub(crate) marathon: SocketAddr,
    replica: SocketAddr,
}

pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

pub(crate) fn binary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug").join(name)
}

pub(crate) fn zookeeper(directory: &Path) -> Result<Option<(Program, SocketAddr)>> {
    const JARS: &str = "/usr/share/java/*:/usr/share/java/zookeeper.jar";
    if !Path::new("/usr/share/java/zookeeper.jar").exists() {
        return cannot("ZooKeeper is not installed");
    }
    let address = free_address()?;
    let config = directory.join("zoo.cfg");
    let data = directory.join("zookeeper");
    std::fs::create_dir_all(&data)?;
    let text = format!(
        "tickTime=500\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n",
        data.display(),
        address.port()
    );
    std::fs::write(&config, text)?;
    let mut java = Command::new("java");
    java.args(["-Xmx256m", "-cp", JARS, "org.apache.zookeeper.server.quorum.QuorumPeerMain"]).arg(&config);
    let program = Program::start(&mut java, &directory.join("zookeeper.log"))?;
    until("ZooKeeper listens", || Ok(std::net::TcpStream::connect(address).is_ok()))?;
    Ok(Some((program, address)))
}

pub(crate) fn control_plane(directory: &Path, number: usize, zookeeper: SocketAddr) -> Result<ControlPlane> {
    let [http, grpc, mesos, marathon, replica] = [free_address()?, free_address()?, free_address()?, free_address()?, free_address()?];
    let program = started(directory, number, zookeeper, [http, grpc, mesos, marathon, replica])?;
    Ok(ControlPlane { program, http, grpc, mesos, marathon, replica })
}

/// Starts one again where it was, with a new process.
pub(crate) fn again(plane: &mut ControlPlane, directory: &Path, number: usize, zookeeper: SocketAddr) -> Result<()> {
    plane.program = started(directory, number, zookeeper, [plane.http, plane.grpc, plane.mesos, plane.marathon, plane.replica])?;
    Ok(())
}

fn started(directory: &Path, number: usize, zookeeper: SocketAddr, addresses: [SocketAddr; 5]) -> Result<Program> {
    let mut command = Command::new(binary("orchestrator-control"));
    let flags = ["--http-address", "--grpc-address", "--mesos-address", "--marathon-address", "--replica-address"];
    for (flag, address) in flags.into_iter().zip(addresses) {
        command.args([flag, &address.to_string()]);
    }
    command.args(["--advertise", "127.0.0.1", "--zk", &format!("zk://{zookeeper}/mesos"), "--zk-session-timeout", SESSION]);
    // What has ended stays on the map for as long as a test may take.
    command.args(["--window", "5m"]).arg("--data-dir").arg(directory.join(format!("data-{number}")));
    Program::start(&mut command, &directory.join(format!("control-{number}.log")))
}

#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    let mut last = String::new();
    while begun.elapsed() < PATIENCE {
        match holds() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => last = format!("{error:#}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("not within {PATIENCE:?}: {what}; {last}")
}

/// Ids of the tasks of the app that run, as any of the control planes tells.
fn running(control_plane: &ControlPlane) -> Result<Vec<String>> {
    let app = http::get_json(control_plane.marathon, "/v2/apps/steady")?;
    let tasks = app["app"]["tasks"].as_array().context("no tasks")?;
    let mut ids: Vec<String> =
        tasks.iter().filter(|task| task["state"] == "TASK_RUNNING").filter_map(|task| task["id"].as_str().map(str::to_owned)).collect();
    ids.sort();
    Ok(ids)
}

/// Processes that the app has on this machine.
fn processes(marker: &str) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir("/proc")? {
        let Ok(text) = std::fs::read(entry?.path().join("cmdline")) else { continue };
        let text = String::from_utf8_lossy(&text);
        // The shell that runs the command, and not those that carry it in their arguments further out.
        count += usize::from(text.starts_with("sleep\0") && text.contains(marker));
    }
    Ok(count)
}

#[test]
fn a_leader_is_killed_and_tasks_and_clients_go_on() -> Result<()> {
    let directory = tempfile::TempDir::with_prefix("orchestrator-replicas-")?;
    let directory = directory.path();
    let Some((_zookeeper, zookeeper)) = zookeeper(directory)? else { return Ok(()) };
    let mut planes = Vec::new();
    for number in 0..3 {
        planes.push(control_plane(directory, number, zookeeper)?);
    }
    let leads = |plane: &ControlPlane| anyhow::Ok(http::get(plane.mesos, "/state")?.status == 200);
    let mut leader = 0;
    until("one leads", || {
        let leading: Vec<usize> = (0..planes.len()).filter(|&at| leads(&planes[at]).unwrap_or(false)).collect();
        leader = leading.first().copied().unwrap_or(0);
        Ok(leading.len() == 1)
    })?;
    let follower = (leader + 1) % 3;
    // A client of Mesos is sent to the leader; everybody else is carried there.
    let sent = http::get(planes[follower].mesos, "/state")?;
    ensure!(sent.status == 307, "{}", sent.status);
    let info = |plane: &ControlPlane| http::get_json(plane.http, "/api");
    ensure!(info(&planes[follower])?["id"] == info(&planes[leader])?["id"]);
    for plane in &planes {
        ensure!(http::get(plane.http, "/ready")?.status == 200);
    }

    // The agent comes to a follower, and so does whoever defines the app.
    let mut agent = Command::new(binary("orchestrator-probe"));
    agent.args([
        "--roles",
        "run",
        "--control-plane",
        &format!("http://{}", planes[follower].grpc),
        "--agent-address",
        &free_address()?.to_string(),
    ]);
    agent.args(["--admin-address", &free_address()?.to_string(), "--resources", "cpus:2;mem:1024;disk:1024;ports:[31000-31100]"]);
    agent.arg("--work-dir").arg(directory.join("work")).arg("--runtime-dir").arg(directory.join("run"));
    let _agent = Program::start(&mut agent, &directory.join("agent.log"))?;
    let seconds = format!("{}", 100_000 + std::process::id());
    let app = json!({ "id": "/steady", "cmd": format!("exec sleep {seconds}"), "cpus": 0.1, "mem": 32, "instances": 3 });
    until("the app is taken", || {
        let reply = http::send(planes[follower].marathon, "POST", "/v2/apps", Some(&app))?;
        ensure!(reply.status == 201 || reply.status == 409, "{}: {}", reply.status, reply.text());
        Ok(true)
    })?;
    until("three tasks run", || Ok(running(&planes[follower])?.len() == 3))?;
    let before = running(&planes[follower])?;
    ensure!(processes(&seconds)? == 3, "{}", processes(&seconds)?);

    planes[leader].program.kill();
    let killed = Instant::now();
    let others: Vec<usize> = (0..3).filter(|&at| at != leader).collect();
    until("another one leads", || Ok(others.iter().any(|&at| leads(&planes[at]).unwrap_or(false))))?;
    until("its agent is back", || {
        let next = others.iter().find(|&&at| leads(&planes[at]).unwrap_or(false)).context("nobody leads")?;
        let agents: Value = http::get_json(planes[*next].mesos, "/slaves")?;
        Ok(agents["slaves"].as_array().is_some_and(|agents| agents.len() == 1 && agents[0]["active"] == true))
    })?;
    until("the tasks are the same", || Ok(running(&planes[others[0]])? == before))?;
    println!("everything as before {:?} after the leader was killed", killed.elapsed());
    // Nothing was started twice, then or later.
    std::thread::sleep(Duration::from_secs(5));
    ensure!(running(&planes[others[1]])? == before && processes(&seconds)? == 3);

    let reply = http::send(planes[others[1]].marathon, "DELETE", "/v2/apps/steady", None)?;
    ensure!(reply.status == 200, "{}: {}", reply.status, reply.text());
    until("the tasks are gone", || Ok(processes(&seconds)? == 0))
}
