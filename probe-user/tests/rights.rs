//! The probe as an ordinary user with a few capabilities: what it can do, and that it says what it cannot.
//!
//! Needs root to give them, and a build with kernel programs; see `support::missing`.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{ControlPlane, is_root, missing};

mod support;

const NOBODY: &str = "65534";
const ALL: [&str; 5] = ["bpf", "net_admin", "perfmon", "sys_ptrace", "dac_read_search"];
const CLIENT: i32 = 1;
const SERVER: i32 = 2;

/// The probe as nobody, with these capabilities and no other.
struct Probe {
    process: Child,
    _directory: tempfile::TempDir,
}

impl Probe {
    fn start(control_plane: &ControlPlane, capabilities: &[&str]) -> Self {
        // Where nobody may run it.
        let directory = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let binary = directory.path().join("orchestrator-probe");
        std::fs::copy(env!("CARGO_BIN_EXE_orchestrator-probe"), &binary).unwrap();
        let given: String = capabilities.iter().map(|it| format!(",+{it}")).collect();
        let process = Command::new("setpriv")
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
            .args([
                "--inh-caps",
                &format!("-all{given}"),
                "--ambient-caps",
                &format!("-all{given}"),
                "--bounding-set",
                &format!("-all{given}"),
            ])
            .arg(binary)
            .args(["--control-plane", &control_plane.url(), "--admin-address", "off", "--no-docker", "--probe-id", "rights"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Probe { process, _directory: directory }
    }

    /// Asks the kernel: what the test believes to have given is what there is.
    fn effective(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server of root's that is older than the probe.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server", "--nocapture", "--include-ignored"])
            .env("RIGHTS_TEST_SERVER", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| line.split_once("port ")?.1.parse().ok()).unwrap();
        Server { process, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Not a test by itself: the process of [`Server`].
#[test]
fn server() {
    if std::env::var_os("RIGHTS_TEST_SERVER").is_none() {
        return;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    println!("port {}", listener.local_addr().unwrap().port());
    let _accepted: Vec<_> = listener.incoming().collect();
}

struct Expected {
    rung: u32,
    missing: &'static [&'static str],
    /// The accepting end of a server that is older than the probe has its process.
    older_listener: bool,
}

async fn with(capabilities: &[&str], expected: Expected) {
    if !is_root() {
        return missing("root");
    }
    let (control_plane, server) = (ControlPlane::start().await, Server::start());
    let probe = Probe::start(&control_plane, capabilities);
    control_plane.wait_for("how it sees", |known| known.has_heard(1) && known.capture.rung != 0).await;
    assert_eq!(probe.effective().count_ones() as usize, capabilities.len());
    let capture = control_plane.known().capture.clone();
    assert_eq!(capture.rung, expected.rung, "{capture:#?}");
    assert_eq!(capture.missing_capabilities, expected.missing, "{capture:#?}");
    for name in expected.missing {
        assert!(capture.blind_spots.iter().any(|spot| spot.contains(name)), "{capture:#?}");
    }
    let stream = TcpStream::connect(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.port)).unwrap();
    // A listener that is younger than the probe, which needs no seeding.
    let young = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let young_port = young.local_addr().unwrap().port();
    let _young_stream = (TcpStream::connect(young.local_addr().unwrap()).unwrap(), young.accept().unwrap());
    let (own, server_pid, port) = (std::process::id(), server.process.id(), server.port);
    let told = move |known: &support::Known, direction, port, pid| {
        known.flow(direction, port).is_some_and(|(key, _)| key.process.as_ref().is_some_and(|process| process.pid == pid))
    };
    if expected.rung <= 3 {
        control_plane.wait_for("the client", |known| told(known, CLIENT, port, own)).await;
        control_plane.wait_for("the younger listener", |known| told(known, SERVER, young_port, own)).await;
    } else {
        control_plane.wait_for("the connection", |known| known.flow(CLIENT, port).is_some()).await;
    }
    if expected.older_listener {
        control_plane.wait_for("the older listener", |known| told(known, SERVER, port, server_pid)).await;
    } else {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!told(&control_plane.known(), SERVER, port, server_pid));
    }
    // Processes are told with their command lines.
    assert!(control_plane.known().process(own).is_some_and(|process| process.command_line.contains("rights")));
    drop(stream);
}

fn without(capability: &str) -> Vec<&'static str> {
    ALL.into_iter().filter(|it| *it != capability).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_capabilities_are_as_good_as_root() {
    with(&ALL, Expected { rung: 1, missing: &["CAP_SYS_ADMIN"], older_listener: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_bpf_connections_are_listed() {
    with(&without("bpf"), Expected { rung: 5, missing: &["CAP_BPF", "CAP_SYS_ADMIN"], older_listener: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_net_admin_connections_are_listed() {
    // Where the kernel lets everybody listen to the process connector, as since Linux 6.6.
    with(&without("net_admin"), Expected { rung: 5, missing: &["CAP_NET_ADMIN", "CAP_SYS_ADMIN"], older_listener: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_perfmon_connections_are_seen_and_processes_are_told_by_netlink() {
    with(&without("perfmon"), Expected { rung: 3, missing: &["CAP_PERFMON", "CAP_SYS_ADMIN"], older_listener: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sys_ptrace_older_listeners_have_no_owner() {
    with(&without("sys_ptrace"), Expected { rung: 1, missing: &["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"], older_listener: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_dac_read_search_everything_that_is_not_hidden_is_seen() {
    with(&without("dac_read_search"), Expected { rung: 1, missing: &["CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"], older_listener: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bpf_and_net_admin_alone_give_the_topology() {
    let missing = &["CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"];
    with(&["bpf", "net_admin"], Expected { rung: 3, missing, older_listener: false }).await;
}
