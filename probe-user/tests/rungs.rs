//! The whole probe, as it is started by a user, on each rung of the ladder.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::probe::v1::Listener;
use support::{ControlPlane, is_root, missing};

mod support;

struct Probe {
    child: Child,
}

impl Probe {
    fn start(control_plane: &ControlPlane, arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_orchestrator-probe"))
            .args([
                "--control-plane",
                &control_plane.url(),
                "--admin-address",
                "off",
                "--probe-id",
                "test",
                "--host-name",
                "here",
                "--no-docker",
            ])
            .args(arguments)
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Probe { child }
    }

    /// Sends SIGTERM and waits. Returns what was logged and how long it took.
    fn stop(&mut self) -> (bool, String, Duration) {
        let begun = Instant::now();
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = self.child.wait().unwrap();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (status.success(), log, begun.elapsed())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finds processes and a connection that was open before, one that is opened now, and sees both end.
async fn check(mode: &str, rung: u32, counts_bytes: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut before = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    before.write_all(&[7; 1_000]).unwrap();

    // On a port that the kernel gives to nobody: a server, as far as anybody can tell.
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let datagrams = (first..).find_map(|port| UdpSocket::bind(("127.0.0.1", port)).ok()).unwrap();

    let control_plane = ControlPlane::start().await;
    let mut probe = Probe::start(&control_plane, &["--capture", mode]);
    let own = std::process::id();
    control_plane.wait_for("this process", move |known| known.process(own).is_some_and(|it| it.exited_at_unix_nanos == 0)).await;
    control_plane.wait_for("how it captures", |known| known.capture.rung != 0).await;
    {
        let known = control_plane.known();
        assert_eq!(known.capture.rung, rung);
        assert!(known.process(own).unwrap().command_line.contains("rungs"));
        assert!(known.process(1).is_some());
        if rung > 3 {
            assert!(known.capture.blind_spots.iter().any(|it| it.contains("Short-lived connections are not visible")));
            assert!(!known.capture.reason.is_empty());
        }
    }
    let datagrams_port = datagrams.local_addr().unwrap().port();
    for (port, protocol) in [(port, 1), (datagrams_port, 2)] {
        let holds = move |it: &Listener| it.process.is_some_and(|it| it.pid == own) && it.protocol == protocol && it.network_namespace != 0;
        control_plane.wait_for("a listener from before", move |known| known.listener(port).is_some_and(holds)).await;
    }
    let newer = TcpListener::bind("127.0.0.1:0").unwrap();
    let newer_port = newer.local_addr().unwrap().port();
    control_plane
        .wait_for("a new listener", move |known| {
            known.listener(newer_port).is_some_and(|it| it.process.is_some_and(|it| it.pid == own) && it.address == [127, 0, 0, 1])
        })
        .await;
    drop((newer, datagrams));
    control_plane
        .wait_for("the ends of listeners", move |known| known.listener(newer_port).is_none() && known.listener(datagrams_port).is_none())
        .await;
    // A UDP socket that is connected, as QUIC has it.
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    sender.send(&[1]).unwrap();
    let (quic, asker) = (receiver.local_addr().unwrap().port(), sender.local_addr().unwrap().port());
    control_plane
        .wait_for("a connected UDP socket", move |known| {
            known.flows.values().any(|flow| {
                let Some(key) = &flow.key else { return false };
                // Without a hook the lower port is taken for the service's.
                let ports = [u32::from(quic), u32::from(asker)];
                key.protocol == 2
                    && ports.contains(&key.server_port)
                    && key.process.is_some_and(|it| it.pid == own)
                    && flow.counters.as_ref().is_some_and(|it| it.opened == 1)
            })
        })
        .await;
    let active = |known: &support::Known, direction: i32| {
        known.flow(direction, port).and_then(|(key, flow)| {
            let counters = flow.counters.as_ref()?;
            (key.process?.pid == own).then(|| (counters.opened - counters.closed, counters.bytes_sent, counters.bytes_received))
        })
    };
    control_plane
        .wait_for("both ends of the open connection", move |known| {
            let ends = (active(known, 1), active(known, 2));
            matches!(ends, (Some((1, sent, _)), Some((1, _, received))) if !counts_bytes || (sent == 1_000 && received == 1_000))
        })
        .await;

    let during = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let also_accepted = listener.accept().unwrap();
    control_plane
        .wait_for("the second connection", move |known| matches!((active(known, 1), active(known, 2)), (Some((2, ..)), Some((2, ..)))))
        .await;
    drop((before, accepted, during, also_accepted));
    control_plane.wait_for("their ends", move |known| matches!((active(known, 1), active(known, 2)), (Some((0, ..)), Some((0, ..))))).await;

    let mut child = Command::new("sleep").arg("2.3").spawn().unwrap();
    let pid = child.id();
    control_plane.wait_for("a new process", move |known| known.process(pid).is_some_and(|it| it.command_line == "sleep 2.3")).await;
    child.wait().unwrap();
    control_plane.wait_for("its end", move |known| known.process(pid).is_some_and(|it| it.exited_at_unix_nanos > 0)).await;
    control_plane.wait_for("samples", |known| known.process_samples > 0).await;

    let (success, log, took) = probe.stop();
    assert!(success && took < Duration::from_secs(5), "{took:?}\n{log}");
    control_plane.wait_for("goodbye", |known| known.goodbyes == 1).await;
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_netlink_rung_sees_processes_and_connections() {
    if !is_root() {
        return missing("root");
    }
    check("netlink", 5, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proc_rung_sees_processes_and_connections() {
    if !is_root() {
        return missing("root");
    }
    check("proc", 6, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ebpf_rung_sees_what_was_there_before_it() {
    if !is_root() {
        return missing("root");
    }
    check("ebpf", 1, true).await;
}

#[test]
fn a_wrong_configuration_is_told_whole_with_status_64() {
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator-probe"))
        .args(["--capture", "magic", "--metrics-interval", "soon"])
        .env_clear()
        .env("ORCHESTRATOR_PROBE_CONTROL_PLANE", "nowhere")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(["--capture", "--metrics-interval", "ORCHESTRATOR_PROBE_CONTROL_PLANE"].iter().all(|it| told.contains(it)), "{told}");
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator-probe")).arg("--no-such-flag").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn a_variable_that_is_no_text_is_no_reason_to_end() {
    use std::os::unix::ffi::OsStrExt as _;

    let no_text = std::ffi::OsStr::from_bytes(b"\xff");
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator-probe"))
        .args(["--capture", "magic"])
        .env_clear()
        .envs([("OF_ANOTHER_PROGRAM", no_text), ("ORCHESTRATOR_PROBE_METRICS_INTERVAL", no_text)])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(["--capture", "ORCHESTRATOR_PROBE_METRICS_INTERVAL"].iter().all(|it| told.contains(it)), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_of_kernel_programs_are_written_when_they_are_asked_for() {
    if !is_root() {
        return missing("root");
    }
    for (arguments, wanted) in [(&["--capture", "ebpf"][..], false), (&["--capture", "ebpf", "--kernel-log"][..], true)] {
        let control_plane = ControlPlane::start().await;
        let mut probe = Probe::start(&control_plane, arguments);
        control_plane.wait_for("this process", |known| known.process(std::process::id()).is_some()).await;
        // The walk over /proc may tell of it before the programs are attached.
        control_plane.wait_for("how it captures", |known| known.capture.rung != 0).await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
        control_plane.wait_for("a connection", move |known| known.flow(1, port).is_some()).await;
        let (success, log, _) = probe.stop();
        assert!(success, "{log}");
        let line = format!("tcp opened: direction 0 owner {}", std::process::id());
        assert_eq!(log.contains(&line), wanted, "{log}");
    }
}
