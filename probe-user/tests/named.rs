//! Containers that no runtime tells of: the whole probe, and cgroups with the names that runtimes give them.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proto::probe::v1::ContainerState;
use support::{ControlPlane, Known, Probe, is_root, missing};

mod support;

/// Where cgroup2 is mounted.
fn cgroup2() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let point = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(point))
    });
    points.next()
}

/// A cgroup of a name of its own, with a process in it.
struct Cgroup {
    path: PathBuf,
    process: Child,
}

impl Cgroup {
    fn new(name: &str) -> Self {
        let path = cgroup2().unwrap().join(name);
        std::fs::create_dir_all(&path).unwrap();
        let process = Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap();
        std::fs::write(path.join("cgroup.procs"), process.id().to_string()).unwrap();
        Cgroup { path, process }
    }

    /// Ends the process.
    fn empty(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn remove(&mut self) {
        self.empty();
        let _ = std::fs::remove_dir(&self.path);
        // Empty parents that were made for it.
        for parent in self.path.ancestors().skip(1).take_while(|it| Some(it.to_path_buf()) != cgroup2()) {
            if std::fs::remove_dir(parent).is_err() {
                break;
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}

fn named<'a>(known: &'a Known, name: &str) -> Option<&'a proto::probe::v1::Container> {
    known.containers.values().find(|it| it.name == name)
}

#[tokio::test]
async fn containers_that_only_their_cgroups_tell_of_come_and_go_with_them() {
    if !is_root() || cgroup2().is_none() {
        return missing("root and cgroup2");
    }
    let own = std::process::id();
    let mut before = Cgroup::new(&format!("lxc.payload.before-{own}"));
    let control_plane = ControlPlane::start().await;
    let _probe = Probe::start(&control_plane, &["--no-docker", "--cri-socket", "off"]);
    let before_name = format!("before-{own}");
    let name = before_name.clone();
    control_plane.wait_for("one that was there before", move |known| named(known, &name).is_some_and(|it| it.pid != 0)).await;

    // One without an id is told at once, one with an id after two seconds, both with the id that their processes have.
    let id = format!("{own:064x}");
    let mut nspawn = Cgroup::new(&format!(r"machine.slice/machine-deb\x2d{own}.scope/payload"));
    let podman = Cgroup::new(&format!("user.slice/user-{own}.slice/libpod-{id}.scope/container"));
    let nspawn_name = format!("deb-{own}");
    let (name, wanted) = (nspawn_name.clone(), id.clone());
    control_plane
        .wait_for("both", move |known| {
            let has_process = |container: &proto::probe::v1::Container| {
                container.pid != 0 && known.process(container.pid).is_some_and(|it| it.container_id == container.id)
            };
            named(known, &name).is_some_and(has_process) && known.containers.get(&wanted).is_some_and(has_process)
        })
        .await;
    {
        let known = control_plane.known();
        let (nspawn_record, podman_record) = (named(&known, &nspawn_name).unwrap(), &known.containers[&id]);
        assert_eq!((nspawn_record.runtime.as_str(), nspawn_record.pid), ("systemd-nspawn", nspawn.process.id()));
        assert_eq!((podman_record.runtime.as_str(), podman_record.pid), ("podman", podman.process.id()));
        assert_eq!((podman_record.state(), podman_record.name.as_str()), (ContainerState::Running, &id[..12]));
        assert!(nspawn_record.created_at_unix_nanos > 0 && nspawn_record.cgroup_id != 0 && nspawn_record.id.len() == 64);
    }
    // An empty one has stopped, one without a cgroup is gone.
    nspawn.empty();
    let name = nspawn_name.clone();
    control_plane.wait_for("its stop", move |known| named(known, &name).is_some_and(|it| it.state() == ContainerState::Exited)).await;
    before.remove();
    drop((nspawn, podman));
    tokio::time::sleep(Duration::from_secs(10)).await;
    control_plane
        .wait_for("all leave", move |known| {
            named(known, &before_name).is_none() && named(known, &nspawn_name).is_none() && !known.containers.contains_key(&id)
        })
        .await;
}

#[tokio::test]
async fn without_kernel_programs_processes_tell_of_their_containers() {
    if !is_root() || cgroup2().is_none() {
        return missing("root and cgroup2");
    }
    let own = std::process::id();
    let control_plane = ControlPlane::start().await;
    let _probe = Probe::start(&control_plane, &["--no-docker", "--cri-socket", "off", "--capture", "proc"]);
    control_plane.wait_for("the first snapshot", |known| known.snapshots > 0).await;
    let mut lxc = Cgroup::new(&format!("lxc.payload.quiet-{own}"));
    let name = format!("quiet-{own}");
    let wanted = name.clone();
    control_plane.wait_for("the container", move |known| named(known, &wanted).is_some_and(|it| it.pid != 0)).await;
    assert_eq!(named(&control_plane.known(), &name).unwrap().pid, lxc.process.id());
    lxc.remove();
    tokio::time::sleep(Duration::from_secs(12)).await;
    control_plane.wait_for("it leaves", move |known| named(known, &name).is_none()).await;
}

#[tokio::test]
async fn docker_without_its_socket_is_seen_by_the_names_of_its_cgroups() {
    let has_docker =
        Command::new("docker").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success());
    if !is_root() || !has_docker {
        return missing("root and docker");
    }
    let control_plane = ControlPlane::start().await;
    let _probe = Probe::start(&control_plane, &["--docker-socket", "/does/not/exist", "--cri-socket", "off"]);
    control_plane.wait_for("the first snapshot", |known| known.snapshots > 0).await;
    let image = "probe-test-named:v1";
    let script = format!(
        "tar -C / -c bin/busybox | docker import - {image} >/dev/null && docker run -d --rm --network none {image} /bin/busybox sleep 1000"
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(id.len(), 64, "{}", String::from_utf8_lossy(&output.stderr));
    let wanted = id.clone();
    control_plane
        .wait_for("the container", move |known| {
            let record = known.containers.get(&wanted);
            record.is_some_and(|it| {
                it.runtime == "docker" && it.pid != 0 && known.process(it.pid).is_some_and(|process| process.container_id == it.id)
            })
        })
        .await;
    assert!(Command::new("docker").args(["kill", &id]).stdout(Stdio::null()).status().unwrap().success());
    tokio::time::sleep(Duration::from_secs(10)).await;
    control_plane.wait_for("it leaves", move |known| !known.containers.contains_key(&id)).await;
}
