//! Containers of a real Docker daemon.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use orchestrator_probe::containers::Source;
use orchestrator_probe::docker::{self, Config};
use orchestrator_probe::driver::Input;
use orchestrator_probe::mask::Masks;
use orchestrator_probe::telemetry::Telemetry;
use proto::probe::v1::{ContainerState, Image};
use support::{ControlPlane, Probe, is_root, missing, spawn};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[path = "docker/fake.rs"]
mod fake;
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
        let run = Box::pin(docker::run(config, Telemetry::new(), sender, stopping));
        let stopped = tokio::time::timeout(Duration::from_secs(5), async {
            tokio::join!(run, async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                stop.cancel();
            })
        });
        assert!(stopped.await.is_ok(), "{path}");
    }
}

#[tokio::test]
async fn a_daemon_that_cannot_be_asked_is_told_until_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    // It takes no connection: there is a file, and nobody behind it.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let mut inputs = follow(socket.to_str().unwrap(), false);
    let reason = until(&mut inputs, "the silence", |it| match it {
        Input::RuntimeSilent { source: Source::Docker, what, reason } if what.contains("docker.sock") => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason.await, "it does not answer");
    std::fs::remove_file(&socket).unwrap();
    let _daemon = fake::Daemon::start(&socket, &["aa"]);
    until(&mut inputs, "the end of it", |it| matches!(it, Input::RuntimeRead(Source::Docker)).then_some(())).await;
}

#[tokio::test]
async fn a_container_that_cannot_be_inspected_hides_no_other_and_is_shown_as_the_list_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let daemon = fake::Daemon::start(&socket, &["aa", "hung", "zz"]);
    daemon.set_hung("hung", true);
    let mut inputs = follow(socket.to_str().unwrap(), false);
    // The others do not even wait until the one is given up.
    let begun = std::time::Instant::now();
    for name in ["name-of-aa", "name-of-zz"] {
        let facts = container(&mut inputs, name, ContainerState::Running).await;
        assert_eq!((facts.record.hostname.as_str(), facts.record.pid), ("inside", 42));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let outline = until(&mut inputs, "the outline", |it| match it {
        Input::ContainerOutlined(facts) => Some((**facts).clone()),
        Input::RuntimeLost(_) => panic!("the daemon is well"),
        _ => None,
    })
    .await;
    let record = &outline.record;
    assert_eq!((record.id.as_str(), record.name.as_str(), record.image_name.as_str()), ("hung", "name-of-hung", "shop:v1"));
    assert_eq!(
        (record.state(), record.image_id.as_str(), record.command.as_str()),
        (ContainerState::Running, "f1", "serve --password=***")
    );
    assert_eq!((record.addresses[0].as_str(), record.ports[0].host_port), ("172.17.0.9", 8_080));
    assert_eq!(record.labels.get("team").map(String::as_str), Some("blue"));
    let spot = until(&mut inputs, "the blind spot", |it| match it {
        Input::BlindSpot { sentence, .. } => Some(sentence.clone()),
        _ => None,
    });
    let spot = spot.await.unwrap();
    assert!(spot.contains("name-of-hung (hung): no answer within 3 s"), "{spot}");
    // It is asked again, and what it then says takes the blind spot away.
    daemon.set_hung("hung", false);
    let whole = container(&mut inputs, "name-of-hung", ContainerState::Running).await;
    assert_eq!((whole.record.hostname.as_str(), whole.record.pid), ("inside", 42));
    until(&mut inputs, "the end of the blind spot", |it| matches!(it, Input::BlindSpot { sentence: None, .. }).then_some(())).await;
    assert_eq!((daemon.inspected("aa"), daemon.inspected("hung")), (1, 2));
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
    import_image(&[], &[], name);
    name
}

fn import_image(daemon: &[&str], options: &[&str], name: &str) {
    let archive = Command::new("tar").args(["-C", "/", "-c", "bin/busybox"]).output().unwrap();
    assert!(archive.status.success(), "busybox-static has to be installed: {}", String::from_utf8_lossy(&archive.stderr));
    let mut import = Command::new("docker");
    import.args(daemon).arg("import").args(options).args(["-", name]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut import = import.spawn().unwrap();
    import.stdin.take().unwrap().write_all(&archive.stdout).unwrap();
    assert!(import.wait().unwrap().success());
}

struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", &self.0]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

#[tokio::test]
async fn health_and_restarts_are_told() {
    if !has_docker() {
        return missing("docker");
    }
    let image_name = "probe-test-health:v1";
    let check = r#"HEALTHCHECK --interval=1s --retries=1 CMD ["/bin/busybox", "test", "-f", "/well"]"#;
    import_image(&[], &["--change", check], image_name);
    let (healthy, restarting) =
        (format!("probe-test-healthy-{}", std::process::id()), format!("probe-test-restarting-{}", std::process::id()));
    let _guards = (Removed(healthy.clone()), Removed(restarting.clone()));
    let mut inputs = follow("/var/run/docker.sock", false);
    until(&mut inputs, "the first list", |it| matches!(it, Input::ContainersListed { .. }).then_some(())).await;
    let health = |wanted: &'static str, name: &str| {
        let name = name.to_owned();
        move |it: &Input| match it {
            Input::Container(facts) if facts.record.name == name && facts.record.health == wanted => Some((**facts).clone()),
            _ => None,
        }
    };
    run(&["run", "-d", "--name", &healthy, image_name, "/bin/busybox", "sleep", "1000"]);
    until(&mut inputs, "starting", health("starting", &healthy)).await;
    until(&mut inputs, "unhealthy", health("unhealthy", &healthy)).await;
    run(&["exec", &healthy, "/bin/busybox", "touch", "/well"]);
    until(&mut inputs, "healthy", health("healthy", &healthy)).await;

    run(&["run", "-d", "--name", &restarting, "--restart", "always", image_name, "/bin/busybox", "sh", "-c", "exit 3"]);
    // While it runs it has no exit code: whoever looks at that moment sees none.
    until(&mut inputs, "how a restarted one ended", |it| match it {
        Input::Container(facts) if facts.record.name == restarting => {
            (facts.record.restart_count > 1 && facts.record.exit_code == 3).then_some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn of_a_hundred_containers_that_live_for_a_moment_each_is_on_the_wire() {
    const COUNT: usize = 100;
    if !has_docker() || !is_root() {
        return missing("docker and root");
    }
    let image_name = make_image("probe-test-hundred:v1");
    let control_plane = ControlPlane::start().await;
    let _probe = Probe::start(&control_plane, &[]);
    control_plane.wait_for("the first snapshot", |known| known.snapshots > 0 && known.capture.rung == 1).await;
    let prefix = format!("probe-test-hundred-{}-", std::process::id());
    let running = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    // Eight at a time: the daemon is what is slow here.
    for lane in 0..8 {
        let (prefix, running) = (prefix.clone(), running.clone());
        running.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::thread::spawn(move || {
            for number in (lane..COUNT).step_by(8) {
                let code = number % 2;
                let name = format!("{prefix}{number}");
                let script = format!("exit {code}");
                let status = Command::new("docker")
                    .args([
                        "run",
                        "--rm",
                        "--network",
                        "none",
                        "--label",
                        "team=blue",
                        "--name",
                        &name,
                        image_name,
                        "/bin/busybox",
                        "sh",
                        "-c",
                        &script,
                    ])
                    .status()
                    .unwrap();
                assert_eq!(status.code(), Some(i32::try_from(code).unwrap()));
            }
            running.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        });
    }
    let mut told: std::collections::BTreeMap<String, proto::probe::v1::Container> = std::collections::BTreeMap::new();
    let mut placed = std::collections::BTreeSet::new();
    let mut ended = None;
    loop {
        {
            let known = control_plane.known();
            let ours = known.containers.values().filter(|it| it.name.starts_with(&prefix));
            told.extend(ours.map(|it| (it.id.clone(), it.clone())));
            placed.extend(known.processes.values().filter(|it| !it.container_id.is_empty()).map(|it| it.container_id.clone()));
        }
        if running.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            let ended = *ended.get_or_insert_with(std::time::Instant::now);
            if ended.elapsed() > Duration::from_secs(5) {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(told.len(), COUNT);
    for record in told.values() {
        assert_eq!((record.image_name.as_str(), record.runtime.as_str()), (image_name, "docker"), "{record:?}");
        assert_eq!(record.labels.get("team").map(String::as_str), Some("blue"), "{record:?}");
        assert_eq!(record.image_id.len(), 64, "{record:?}");
        assert!(placed.contains(&record.id), "no process of {}", record.name);
    }
    // Their last records are of their ends.
    let last = |code: i32| told.values().filter(|it| it.state() == ContainerState::Exited && it.exit_code == code).count();
    assert_eq!((last(0), last(1)), (COUNT / 2, COUNT / 2));
    let images = control_plane.known().containers.values().filter(|it| it.name.starts_with(&prefix)).count();
    assert!(images > 0, "those of the last seconds are still there");
    tokio::time::sleep(Duration::from_secs(12)).await;
    control_plane.wait_for("all leave", move |known| !known.containers.values().any(|it| it.name.starts_with(&prefix))).await;
}

#[tokio::test]
async fn a_daemon_that_is_restarted_under_its_containers_is_followed_on() {
    if !is_root() {
        return missing("root");
    }
    let directory = tempfile::tempdir().unwrap();
    let Some(mut daemon) = Daemon::start(directory.path()) else { return missing("dockerd") };
    let host = format!("unix://{}", directory.path().join("docker.sock").display());
    import_image(&["-H", &host], &[], "probe-test-restart:v1");
    let docker = |arguments: &[&str]| run(&[&["-H", &host], arguments].concat());
    docker(&["run", "-d", "--network", "none", "--name", "lasting", "probe-test-restart:v1", "/bin/busybox", "sleep", "1000"]);
    let mut inputs = follow(directory.path().join("docker.sock").to_str().unwrap(), false);
    let before = container(&mut inputs, "lasting", ContainerState::Running).await;
    daemon.stop();
    until(&mut inputs, "the loss", |it| matches!(it, Input::RuntimeLost(Source::Docker)).then_some(())).await;
    // The old one is gone already: what is left of it has nothing to end.
    std::mem::forget(std::mem::replace(&mut daemon, Daemon::start(directory.path()).unwrap()));
    let after = container(&mut inputs, "lasting", ContainerState::Running).await;
    assert_eq!((after.record.id.as_str(), after.record.pid), (before.record.id.as_str(), before.record.pid));
    docker(&["kill", "lasting"]);
    assert_eq!(container(&mut inputs, "lasting", ContainerState::Exited).await.record.exit_code, 137);
    docker(&["rm", "lasting"]);
    until(&mut inputs, "the removal", |it| matches!(it, Input::ContainerGone { id, .. } if *id == before.record.id).then_some(())).await;
    drop(daemon);
}

/// A daemon with directories of its own, whose containers outlive it.
struct Daemon {
    process: std::process::Child,
    host: String,
}

impl Daemon {
    fn start(directory: &std::path::Path) -> Option<Self> {
        let path = |name: &str| directory.join(name).display().to_string();
        // Not that of this machine's own daemon.
        std::fs::write(path("daemon.json"), "{}").unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path("log")).unwrap();
        // A network namespace of its own: a daemon without a bridge removes the one that another has.
        let child = Command::new("unshare")
            .args(["--net", "dockerd"])
            .args([
                "--data-root",
                &path("data"),
                "--exec-root",
                &path("exec"),
                "--pidfile",
                &path("pid"),
                "--config-file",
                &path("daemon.json"),
            ])
            .args([
                "-H",
                &format!("unix://{}", path("docker.sock")),
                "--bridge=none",
                "--iptables=false",
                "--ip-forward=false",
                "--live-restore",
            ])
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let this = Daemon { process: child, host: format!("unix://{}", path("docker.sock")) };
        let begun = std::time::Instant::now();
        while !Command::new("docker").args(["-H", &format!("unix://{}", path("docker.sock")), "version"]).output().unwrap().status.success()
        {
            let log = std::fs::read_to_string(path("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(30), "dockerd does not start: {log}");
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(this)
    }

    fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let _ = self.process.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its containers would outlive it.
        let script = format!("docker -H {0} ps -aq | xargs -r docker -H {0} rm --force", self.host);
        let _ = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if matches!(self.process.try_wait(), Ok(None)) {
            self.stop();
        }
        // So would the mount of its data.
        let directory = self.host.trim_start_matches("unix://").trim_end_matches("/docker.sock");
        let _ = Command::new("umount").args(["-l", &format!("{directory}/data")]).stderr(Stdio::null()).status();
    }
}
