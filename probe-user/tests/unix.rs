//! Connections over Unix sockets: a server, its clients, each a process of its own, and what the whole probe tells of them.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use support::{ControlPlane, Known, Probe, is_root, missing};

mod support;

/// What a child is to be.
const ROLE: &str = "UNIX_TEST_ROLE";

/// This test program once more, as another process. It ends with the value.
struct Role {
    process: Child,
    stdin: Option<ChildStdin>,
    _stdout: BufReader<ChildStdout>,
}

impl Role {
    fn start(role: &str) -> Self {
        Self::run(Command::new(std::env::current_exe().unwrap()), role)
    }

    /// In a network namespace of its own.
    fn start_elsewhere(role: &str) -> Self {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(std::env::current_exe().unwrap());
        Self::run(command, role)
    }

    fn run(mut command: Command, role: &str) -> Self {
        command.args(["--exact", "role", "--nocapture"]).env(ROLE, role).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "{role} did not begin");
        }
        Role { stdin: process.stdin.take(), process, _stdout: stdout }
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.process.wait();
    }
}

fn address(name: &str) -> SocketAddr {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).unwrap(),
        None => SocketAddr::from_pathname(name).unwrap(),
    }
}

/// The child's side: `server NAME…` accepts everything; `client COUNT NAME` connects so often; datagrams likewise.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let (mut streams, mut datagrams) = (Vec::new(), Vec::new());
    match words[..] {
        ["server", ref names @ ..] => {
            for name in names {
                let listener = UnixListener::bind_addr(&address(name)).unwrap();
                std::thread::spawn(move || listener.incoming().for_each(std::mem::forget));
            }
        }
        ["client", count, name] => {
            streams.extend((0..count.parse().unwrap()).map(|_| UnixStream::connect_addr(&address(name)).unwrap()));
        }
        ["datagram-server", name] => datagrams.push(UnixDatagram::bind_addr(&address(name)).unwrap()),
        ["datagram-client", name] => {
            datagrams.push(UnixDatagram::unbound().unwrap());
            datagrams[0].connect_addr(&address(name)).unwrap();
        }
        _ => panic!("no such role: {role}"),
    }
    println!("ready");
    let _ = std::io::stdin().read(&mut [0]);
}

/// Client, server and count of the records at a name.
fn at(known: &Known, name: &str) -> Vec<(u32, u32, u32)> {
    let records = known.unix_flows.values().filter(|it| it.path == name);
    let mut found: Vec<_> = records.map(|it| (it.client.as_ref().unwrap().pid, it.server.as_ref().unwrap().pid, it.open)).collect();
    found.sort_unstable();
    found
}

fn sorted<T: Ord, const N: usize>(mut records: [T; N]) -> [T; N] {
    records.sort_unstable();
    records
}

const QUIET: [&str; 4] = ["--no-docker", "--no-conntrack", "--no-cloud-metadata", "--cri-socket=off"];

fn probe(control_plane: &ControlPlane, capture: &str, arguments: &[&str]) -> Probe {
    Probe::start(control_plane, &[&QUIET[..], &["--capture", capture], arguments].concat())
}

#[test]
fn once_lists_them_when_it_is_asked_to() {
    if !is_root() {
        return missing("root");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("once.sock").to_str().unwrap().to_owned();
    let server = Role::start(&format!("server {path}"));
    let client = Role::start(&format!("client 4 {path}"));
    let look = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator-probe"));
        command.args(QUIET).args(["--once", "--for", "3s", "--output", "json"]).args(more);
        serde_json::from_slice::<serde_json::Value>(&command.output().unwrap().stdout).unwrap()
    };
    let document = look(&["--unix-sockets"]);
    let flows = document["unixFlows"].as_array().unwrap();
    let flow = flows.iter().find(|it| it["path"] == path.as_str()).unwrap();
    assert_eq!((&flow["clientPid"], &flow["serverPid"], &flow["open"]), (&client.pid().into(), &server.pid().into(), &4.into()));
    assert!(flow["clientProcess"].as_str().is_some_and(|name| !name.is_empty()), "{flow}");
    assert_eq!(look(&[])["unixFlows"], serde_json::json!([]));
}

/// Two clients of one server at a path and at an abstract name, until they leave.
async fn connections_are_told(capture: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (path, name) =
        (directory.path().join("server.sock").to_str().unwrap().to_owned(), format!("@unix-test-{}-{capture}", std::process::id()));
    let control_plane = ControlPlane::start().await;
    let server = Role::start(&format!("server {path} {name}"));
    let (one, other) = (Role::start(&format!("client 3 {path}")), Role::start(&format!("client 2 {name}")));
    let _probe = probe(&control_plane, capture, &["--unix-sockets"]);
    let (pids, other_pid) = ((one.pid(), server.pid()), other.pid());
    let path_told = {
        let path = path.clone();
        move |known: &Known| at(known, &path) == [(pids.0, pids.1, 3)]
    };
    control_plane.wait_for("the client of the path", path_told).await;
    let name_told = {
        let name = name.clone();
        move |known: &Known| at(known, &name) == [(other_pid, pids.1, 2)]
    };
    control_plane.wait_for("the client of the abstract name", name_told).await;
    let start_times_are_those_of_processes = {
        let known = control_plane.known();
        let mut ours = known.unix_flows.values().filter(|it| it.path == path || it.path == name);
        ours.all(|it| {
            let (client, server) = (it.client.as_ref().unwrap(), it.server.as_ref().unwrap());
            [client, server].iter().all(|key| known.processes.contains_key(&(key.pid, key.start_time_boot_nanos)))
        })
    };
    assert!(start_times_are_those_of_processes);
    // A third one comes, and is told beside the first.
    let third = Role::start(&format!("client 1 {path}"));
    let both = sorted([(pids.0, pids.1, 3), (third.pid(), pids.1, 1)]);
    let told = {
        let path = path.clone();
        move |known: &Known| at(known, &path) == both
    };
    control_plane.wait_for("a second client of the path", told).await;
    // A snapshot has them as well.
    control_plane.forget();
    let told = {
        let path = path.clone();
        move |known: &Known| known.snapshots > 0 && at(known, &path) == both
    };
    control_plane.wait_for("the same again", told).await;
    drop((one, other, third));
    control_plane.wait_for("the end of all", move |known| at(known, &path).is_empty() && at(known, &name).is_empty()).await;
    drop(server);
}

#[tokio::test]
async fn clients_and_servers_are_told_with_their_counts_until_they_leave() {
    connections_are_told("proc").await;
}

#[tokio::test]
async fn the_same_beside_kernel_programs() {
    if !is_root() {
        return missing("root");
    }
    connections_are_told("ebpf").await;
}

#[tokio::test]
async fn datagrams_and_clients_in_other_network_namespaces_are_told() {
    if !is_root() {
        return missing("root");
    }
    let directory = tempfile::tempdir().unwrap();
    let at_path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (log, path) = (at_path("log"), at_path("server.sock"));
    let control_plane = ControlPlane::start().await;
    let (log_server, server) = (Role::start(&format!("datagram-server {log}")), Role::start(&format!("server {path}")));
    let senders = [Role::start(&format!("datagram-client {log}")), Role::start_elsewhere(&format!("datagram-client {log}"))];
    let foreign = Role::start_elsewhere(&format!("client 2 {path}"));
    let _probe = probe(&control_plane, "proc", &["--unix-sockets"]);
    let expected = (sorted(senders.each_ref().map(|it| (it.pid(), log_server.pid(), 1))), [(foreign.pid(), server.pid(), 2)]);
    control_plane.wait_for("all of them", move |known| at(known, &log) == expected.0 && at(known, &path) == expected.1).await;
}

#[tokio::test]
async fn nothing_is_told_unless_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock").to_str().unwrap().to_owned();
    let control_plane = ControlPlane::start().await;
    let server = Role::start(&format!("server {path}"));
    let client = Role::start(&format!("client 1 {path}"));
    let _probe = probe(&control_plane, "proc", &[]);
    let pids = [server.pid(), client.pid()];
    control_plane.wait_for("both processes", move |known| pids.iter().all(|pid| known.process(*pid).is_some())).await;
    // Longer than the first look after which it would be told.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(control_plane.known().unix_flows.is_empty());
}

#[tokio::test]
async fn it_can_be_turned_on_and_off_while_the_probe_runs() {
    let directory = tempfile::tempdir().unwrap();
    let (path, file) = (directory.path().join("server.sock").to_str().unwrap().to_owned(), directory.path().join("probe.toml"));
    std::fs::write(&file, "unix-sockets = true\n").unwrap();
    let control_plane = ControlPlane::start().await;
    let server = Role::start(&format!("server {path}"));
    let client = Role::start(&format!("client 1 {path}"));
    let probe = probe(&control_plane, "proc", &["--config", file.to_str().unwrap()]);
    let (expected, told) = ([(client.pid(), server.pid(), 1)], path.clone());
    control_plane.wait_for("the connection", move |known| at(known, &told) == expected).await;
    std::fs::write(&file, "unix-sockets = false\n").unwrap();
    probe.signal(nix::sys::signal::Signal::SIGHUP);
    control_plane.wait_for("nothing any more", |known| known.unix_flows.is_empty()).await;
    std::fs::write(&file, "unix-sockets = true\n").unwrap();
    probe.signal(nix::sys::signal::Signal::SIGHUP);
    control_plane.wait_for("the connection again", move |known| at(known, &path) == expected).await;
}
