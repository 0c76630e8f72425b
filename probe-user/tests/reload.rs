//! The real binary reads its configuration again on SIGHUP.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::ControlPlane;

mod support;

struct Probe {
    process: Child,
    log: tempfile::NamedTempFile,
    file: tempfile::NamedTempFile,
    admin: SocketAddr,
}

impl Probe {
    fn start(configuration: &str) -> Self {
        let (log, file) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::fs::write(file.path(), configuration).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_orchestrator-probe"))
            .args(["--capture", "proc", "--no-docker", "--no-cloud-metadata", "--probe-id", "reload"])
            .args(["--admin-address", &admin.to_string(), "--config", file.path().to_str().unwrap()])
            .env_clear()
            .stdin(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        Probe { process, log, file, admin }
    }

    fn change(&self, configuration: &str) {
        std::fs::write(self.file.path(), configuration).unwrap();
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn metric(&self, name: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_change_does_and_a_broken_file_changes_nothing() {
    let (first, second) = (ControlPlane::start().await, ControlPlane::start().await);
    let with = |control_plane: &ControlPlane, more: &str| format!("control-plane = \"{}\"\n{more}\n", control_plane.url());
    let probe = Probe::start(&with(&first, ""));
    let own = std::process::id();
    let words =
        |control_plane: &ControlPlane| control_plane.known().process(own).map_or(0, |process| process.command_line.split(' ').count());
    first.wait_for("its snapshot", |known| known.has_heard(1)).await;
    probe.until("arguments are told", |_| words(&first) > 1).await;
    assert_eq!(probe.metric("probe_config_reload_success").as_deref(), Some("1"));

    probe.change(&with(&first, "command-line-arguments = \"hide\"\nlog-filter = \"orchestrator_probe=debug\"\nhost-name = \"other\""));
    probe.until("arguments are hidden", |_| words(&first) == 1).await;
    probe.until("a restart is asked for", |probe| probe.log().contains("needs a restart") && probe.log().contains("host-name")).await;
    assert_eq!(first.known().hellos.len(), 1, "the stream went on");

    probe.change("metrics-interval = \"never\"\n");
    probe.until("the mistake is told", |probe| probe.log().contains("not a time, such as 15s")).await;
    probe.until("the metric", |probe| probe.metric("probe_config_reload_success").as_deref() == Some("0")).await;
    assert_eq!(words(&first), 1, "everything is as it was");
    assert_eq!(first.known().hellos.len(), 1);

    probe.change(&with(&second, ""));
    second.wait_for("its snapshot", |known| known.has_heard(1)).await;
    probe.until("arguments are told again", |_| words(&second) > 1).await;
    probe.until("the metric", |probe| probe.metric("probe_config_reload_success").as_deref() == Some("1")).await;
}

/// Waits until somebody connects, and hangs up.
async fn asked(listener: &tokio::net::TcpListener) {
    drop(tokio::time::timeout(Duration::from_secs(30), listener.accept()).await.expect("somebody asks").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_follows_where_its_cluster_is_with_the_nodes_probe_in_one_process_and_alone() {
    for roles in ["kubernetes", "observe,kubernetes"] {
        let first = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let second = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let with = |api: &tokio::net::TcpListener, more: &str| {
            let api = api.local_addr().unwrap();
            format!("roles = \"{roles}\"\nkubernetes-api = \"http://{api}\"\nkubernetes-lease = \"off\"\n{more}\n")
        };
        let probe = Probe::start(&with(&first, ""));
        asked(&first).await;
        probe.until("the metric", |probe| probe.metric("probe_config_reload_success").as_deref() == Some("1")).await;
        probe.change(&with(&second, "cloud-metadata-address = \"127.0.0.1:1\""));
        asked(&second).await;
        probe.until("what has changed is told", |probe| probe.log().contains("cloud-metadata-address, kubernetes-api")).await;
        assert!(probe.log().contains("needs a restart"), "{}", probe.log());
        probe.change(&with(&second, "cloud-metadata-address = \"127.0.0.1:1\""));
        probe.until("that a restart is pending is told", |probe| probe.log().contains("still needed")).await;
        let changed = |probe: &Probe| probe.log().lines().filter(|line| line.contains("changed=")).count();
        let before = changed(&probe);
        probe.change(&with(&second, ""));
        probe.until("the change back is told", |probe| changed(probe) > before).await;
        probe.change(&with(&second, ""));
        probe.until("that nothing has is told", |probe| probe.log().contains("is as it was")).await;
    }
}
