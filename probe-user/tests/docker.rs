//! Containers of a real Docker daemon.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use orchestrator_probe::docker::{self, Config};
use orchestrator_probe::driver::Input;
use orchestrator_probe::mask::Masks;
use orchestrator_probe::telemetry::Telemetry;
use proto::probe::v1::{ContainerState, Image};
use support::{missing, spawn};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

mod support;

#[tokio::test]
async fn a_container_is_seen_from_its_creation_to_its_removal() {
    if !has_docker() {
        return missing("docker");
    }
    // An image of its own: importing under the same name takes the name away from the image before.
    let image_name = make_image("probe-test-life:v1");
    let name = format!("probe-test-{}", std::process::id());
    let guard = Removed(name.clone());
    let mut inputs = follow("/var/run/docker.sock", true);
    until(&mut inputs, "the first list", |it| matches!(it, Input::ContainersListed { .. }).then_some(())).await;

    run(&[
        "create",
        "--name",
        &name,
        "--label",
        "team=blue",
        "--env",
        "COLOUR=red",
        "--env",
        "DB_PASSWORD=hunter2",
        "--hostname",
        "inside",
        "--publish",
        "127.0.0.1:0:8080",
        image_name,
        "/bin/busybox",
        "sleep",
        "1000",
    ]);
    let created = container(&mut inputs, &name, ContainerState::Created).await;
    assert_eq!(created.record.labels.get("team").map(String::as_str), Some("blue"));
    assert_eq!(created.record.environment.get("COLOUR").map(String::as_str), Some("red"));
    assert_eq!(created.record.environment.get("DB_PASSWORD").map(String::as_str), Some("***"));
    assert_eq!((created.record.hostname.as_str(), created.record.image_name.as_str()), ("inside", image_name));
    assert_eq!(created.record.command, "/bin/busybox sleep 1000");
    assert!(created.record.created_at_unix_nanos > 0);
    let image: Image = until(&mut inputs, "the image", |it| match it {
        Input::Image(image) if image.id == created.record.image_id => Some(image.clone()),
        _ => None,
    })
    .await;
    assert_eq!(image.name, image_name);
    assert!(image.size_bytes > 100_000 && !image.id.contains(':'));

    run(&["start", &name]);
    let running = container(&mut inputs, &name, ContainerState::Running).await;
    assert!(running.record.pid > 0 && running.record.started_at_unix_nanos > 0);
    assert_eq!((running.record.networks.as_slice(), running.record.addresses.len()), (["bridge".to_owned()].as_slice(), 1));
    let port = &running.record.ports[0];
    assert_eq!((port.container_port, port.protocol.as_str(), port.host_address.as_str()), (8_080, "tcp", "127.0.0.1"));
    assert!(port.host_port > 0);

    let renamed = format!("{name}-renamed");
    let renamed_guard = Removed(renamed.clone());
    run(&["rename", &name, &renamed]);
    container(&mut inputs, &renamed, ContainerState::Running).await;
    run(&["pause", &renamed]);
    container(&mut inputs, &renamed, ContainerState::Paused).await;
    run(&["unpause", &renamed]);
    container(&mut inputs, &renamed, ContainerState::Running).await;
    run(&["kill", &renamed]);
    let dead = container(&mut inputs, &renamed, ContainerState::Exited).await;
    assert_eq!((dead.record.exit_code, dead.record.pid), (137, 0));
    run(&["rm", &renamed]);
    until(&mut inputs, "the removal", |it| matches!(it, Input::ContainerGone { id, .. } if *id == created.record.id).then_some(())).await;
    drop((guard, renamed_guard));
}

#[tokio::test]
async fn a_container_that_lives_for_a_moment_is_seen() {
    if !has_docker() {
        return missing("docker");
    }
    let image_name = make_image("probe-test-moment:v1");
    let name = format!("probe-test-short-{}", std::process::id());
    let _guard = Removed(name.clone());
    let mut inputs = follow("/var/run/docker.sock", false);
    until(&mut inputs, "the first list", |it| matches!(it, Input::ContainersListed { .. }).then_some(())).await;
    run(&["run", "--name", &name, "--env", "COLOUR=red", image_name, "/bin/busybox", "true"]);
    let exited = container(&mut inputs, &name, ContainerState::Exited).await;
    assert_eq!(exited.record.exit_code, 0);
    assert!(exited.record.environment.is_empty(), "nobody asked for environments");
}

#[tokio::test]
async fn a_daemon_that_hangs_or_is_not_there_does_not_hang_the_probe() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    // Accepts and never answers.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [socket.to_str().unwrap(), "/does/not/exist"] {
        let (sender, _inputs) = mpsc::channel(1);
        let stopping = CancellationToken::new();
        let config = Config { socket: path.into(), environment: false, masks: Masks::default() };
        let stop = stopping.clone();
        let run = docker::run(config, Telemetry::new(), sender, stopping);
        let stopped = tokio::time::timeout(Duration::from_secs(5), async {
            tokio::join!(run, async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                stop.cancel();
            })
        });
        assert!(stopped.await.is_ok(), "{path}");
    }
}

fn follow(socket: &str, environment: bool) -> mpsc::Receiver<Input> {
    let (sender, inputs) = mpsc::channel(1_000);
    let config = Config { socket: socket.into(), environment, masks: Masks::default() };
    spawn(docker::run(config, Telemetry::new(), sender, CancellationToken::new()));
    inputs
}

/// Waits for an input that `wanted` takes.
async fn until<T>(inputs: &mut mpsc::Receiver<Input>, what: &str, wanted: impl Fn(&Input) -> Option<T>) -> T {
    let find = async {
        loop {
            let input = inputs.recv().await.expect("docker::run does not end");
            if let Some(found) = wanted(&input) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), find).await.unwrap_or_else(|_| panic!("{what} was not told in 20 s"))
}

async fn container(
    inputs: &mut mpsc::Receiver<Input>,
    name: &str,
    state: ContainerState,
) -> orchestrator_probe::containers::ContainerFacts {
    until(inputs, &format!("{name} as {state:?}"), |it| match it {
        Input::Container(facts) if facts.record.name == name && facts.record.state() == state => Some((**facts).clone()),
        _ => None,
    })
    .await
}

fn has_docker() -> bool {
    Command::new("docker").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
}

fn run(arguments: &[&str]) {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An image of a static busybox alone.
fn make_image(name: &'static str) -> &'static str {
    let archive = Command::new("tar").args(["-C", "/", "-c", "bin/busybox"]).output().unwrap();
    assert!(archive.status.success(), "busybox-static has to be installed: {}", String::from_utf8_lossy(&archive.stderr));
    let mut import = Command::new("docker").args(["import", "-", name]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(&archive.stdout).unwrap();
    assert!(import.wait().unwrap().success());
    name
}

struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", &self.0]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
