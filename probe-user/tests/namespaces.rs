//! The probe in a pid namespace of its own: with the host's /proc it sees what it sees elsewhere, without it says what it cannot.
//!
//! Needs root and a build with kernel programs; see `support::missing`.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use support::{ControlPlane, is_root, missing};

mod support;

const CLIENT: i32 = 1;
const SERVER: i32 = 2;

/// The probe as the first process of a pid namespace with a `/proc` of its own.
struct Probe {
    process: Child,
    _host: tempfile::TempDir,
}

impl Probe {
    fn start(control_plane: &ControlPlane, with_host: bool) -> Self {
        let host = tempfile::tempdir().unwrap();
        let root = if with_host { host.path().to_str().unwrap() } else { "/proc" };
        // The host's /proc is bound elsewhere before it is covered, as a container has it.
        let script = r#"mount --bind /proc "$HOST" && mount -t proc proc /proc && exec "$PROBE" "$@""#;
        let process = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount", "sh", "-c", script, "sh"])
            .args([
                "--control-plane",
                &control_plane.url(),
                "--admin-address",
                "off",
                "--no-docker",
                "--no-cloud-metadata",
                "--probe-id",
                "pid",
            ])
            .args(["--capture", "ebpf", "--pin-dir", "off", "--proc-root", root])
            .env("HOST", host.path())
            .env("PROBE", env!("CARGO_BIN_EXE_orchestrator-probe"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Probe { process, _host: host }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_blind(known: &support::Known) -> bool {
    known.capture.blind_spots.iter().any(|spot| spot.contains("pid namespace"))
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_hosts_proc_everything_has_its_process() {
    if !is_root() {
        return missing("root");
    }
    let control_plane = ControlPlane::start().await;
    let _probe = Probe::start(&control_plane, true);
    control_plane.wait_for("how it sees", |known| known.has_heard(1) && known.capture.rung != 0).await;
    let capture = control_plane.known().capture.clone();
    assert!(!is_blind(&control_plane.known()), "{capture:#?}");
    assert_eq!(capture.rung, 1, "{capture:#?}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let _pair = (TcpStream::connect(listener.local_addr().unwrap()).unwrap(), listener.accept().unwrap());
    let own = std::process::id();
    let told = move |known: &support::Known, direction| {
        known.flow(direction, port).is_some_and(|(key, _)| key.process.as_ref().is_some_and(|process| process.pid == own))
    };
    control_plane.wait_for("both ends", |known| told(known, CLIENT) && told(known, SERVER)).await;
    assert!(control_plane.known().process(own).is_some_and(|process| process.command_line.contains("namespaces")));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_it_the_blind_spot_is_named() {
    if !is_root() {
        return missing("root");
    }
    let control_plane = ControlPlane::start().await;
    let _probe = Probe::start(&control_plane, false);
    control_plane.wait_for("how it sees", |known| known.has_heard(1) && is_blind(known)).await;
}
