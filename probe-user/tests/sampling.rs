//! What the whole probe samples, as it is started by a user: on this machine, in a container with namespaces of its own, on a rented machine.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::{ControlPlane, is_root, missing};

mod support;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn probe(control_plane: &ControlPlane, arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator-probe"));
    command.args(["--control-plane", &control_plane.url(), "--admin-address", "off", "--capture", "proc"]);
    command.args(["--probe-id", "test", "--host-name", "here"]).args(arguments).stderr(Stdio::null());
    Ended(command.spawn().unwrap())
}

#[tokio::test]
async fn the_host_is_sampled_as_it_is() {
    let control_plane = ControlPlane::start().await;
    let _probe = probe(&control_plane, &["--no-docker"]);
    let own = std::process::id();
    control_plane.wait_for("a second sample", |known| known.host_metrics.cpu_percent > 0.0).await;
    control_plane.wait_for("this process", move |known| known.process(own).is_some()).await;
    let known = control_plane.known();
    let sample = &known.host_metrics;
    assert!(sample.network_interfaces.iter().any(|it| it.name == "lo" && it.up));
    assert_eq!(sample.pressure.is_some(), Path::new("/proc/pressure/cpu").exists());
    assert!(sample.load5 > 0.0 && sample.load15 > 0.0);
    assert!(sample.disks.iter().all(|it| it.size_bytes >= it.used_bytes && it.device.len() > 1));
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let user = nix::unistd::geteuid().to_string();
    let name = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|it| it[2] == user).map_or("", |it| it[0]);
    assert_eq!(known.process(own).unwrap().user_name, name);
    assert_eq!(known.host.cloud, None);
}

#[tokio::test]
async fn a_rented_machine_tells_where_it_is_and_may_be_told_not_to_ask() {
    let control_plane = ControlPlane::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1_024];
            let read = stream.read(&mut request).unwrap();
            let body = if request[..read].starts_with(b"GET /metadata/v1/region ") { "nyc3" } else { "2756294" };
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    let firmware = tempfile::tempdir().unwrap();
    std::fs::write(firmware.path().join("sys_vendor"), "DigitalOcean\n").unwrap();
    let arguments = ["--no-docker", "--cloud-metadata-address", &address, "--firmware-root", firmware.path().to_str().unwrap()];
    let asking = probe(&control_plane, &arguments);
    control_plane.wait_for("where it is", |known| known.host.cloud.as_ref().is_some_and(|it| it.region == "nyc3")).await;
    let cloud = control_plane.known().host.cloud.clone().unwrap();
    assert_eq!((cloud.provider.as_str(), cloud.instance_id.as_str()), ("digitalocean", "2756294"));
    drop(asking);
    control_plane.forget();
    let _silent = probe(&control_plane, &[&arguments[..], &["--no-cloud-metadata"]].concat());
    control_plane.wait_for("a second sample", |known| known.host_metrics.cpu_percent > 0.0).await;
    assert_eq!(control_plane.known().host.cloud, None);
}

/// In a container every path, interface and mount is the container's own: the host has to be found.
#[tokio::test]
async fn a_probe_with_namespaces_of_its_own_samples_the_host_and_its_containers() {
    if !is_root() || !docker(&["version"]) {
        return missing("root or docker");
    }
    let (held_back, own) =
        (Removed(format!("probe-test-held-{}", std::process::id())), Removed(format!("probe-test-in-{}", std::process::id())));
    let image = Image::make();
    let busy = ["sh", "-c", "while :; do :; done"];
    let limits = ["run", "--detach", "--name", &held_back.0, "--cpus", "0.02", "--memory", "64m", &image.0, "/bin/busybox"];
    assert!(docker(&[&limits[..], &busy].concat()));
    let control_plane = ControlPlane::start_on(&bridge()).await;
    let url = control_plane.url();
    let confined = ["run", "--detach", "--name", &own.0, "--pid", "host", "--cgroupns", "private", "--security-opt", "apparmor=unconfined"];
    let rights = ["--cap-drop=ALL", "--cap-add=SYS_PTRACE", "--cap-add=DAC_READ_SEARCH", "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN"];
    let socket = ["--volume", "/var/run/docker.sock:/var/run/docker.sock", &image.0, "/orchestrator-probe"];
    let arguments =
        ["--control-plane", &url, "--admin-address", "off", "--capture", "proc", "--probe-id", "inside", "--host-name", "inside"];
    assert!(docker(&[&confined[..], &rights, &socket, &arguments].concat()));
    let throttled = |known: &support::Known| {
        known.container_metrics.values().any(|it| (it.cpu_limit - 0.02).abs() < 1e-9 && it.cpu_throttled_percent > 20.0)
    };
    control_plane.wait_for("a container that is held back", throttled).await;
    let known = control_plane.known();
    let held = known.container_metrics.values().find(|it| (it.cpu_limit - 0.02).abs() < 1e-9).unwrap();
    assert_eq!((held.memory_limit_bytes, held.process_count, held.thread_count), (64 << 20, 1, 1));
    assert!(held.cpu_percent > 0.0 && held.memory_bytes > 0, "{held:?}");
    // The container has interfaces and mounts, too: none of them is the host's.
    let names = |interfaces: &mut dyn Iterator<Item = String>| interfaces.filter(|it| !it.contains("veth")).collect::<BTreeSet<_>>();
    let here = std::fs::read_dir("/sys/class/net").unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    let links = here.filter(|it| Path::new("/sys/class/net").join(it).is_dir());
    let told = names(&mut known.host_metrics.network_interfaces.iter().map(|it| it.name.clone()));
    assert!(told.contains("docker0") && told.is_subset(&names(&mut links.into_iter())), "{told:?}");
    let root_is_a_disk =
        std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().any(|it| it.contains(" / / ") && it.contains(" /dev/"));
    assert_eq!(known.host_metrics.disks.iter().any(|it| it.mount_point == "/"), root_is_a_disk, "{:?}", known.host_metrics.disks);
    assert!(known.host_metrics.disks.iter().all(|it| !it.mount_point.starts_with("/etc/")));
    assert!(known.host.os_release.len() > 1 && known.host.addresses.contains(&bridge()));
}

struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        docker(&["rm", "--force", &self.0]);
    }
}

/// An image of the probe, busybox, and the libraries that the probe asks for.
struct Image(String);

impl Image {
    fn make() -> Self {
        let name = format!("probe-test-sampling:{}", std::process::id());
        let probe = Path::new(env!("CARGO_BIN_EXE_orchestrator-probe"));
        let directory = tempfile::tempdir().unwrap();
        let place = |from: &Path, to: &Path| {
            let to = directory.path().join(to.strip_prefix("/").unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(from, to).unwrap();
        };
        let listed = String::from_utf8(Command::new("ldd").arg(probe).output().unwrap().stdout).unwrap();
        let libraries = listed.split_ascii_whitespace().filter(|it| it.starts_with('/')).map(PathBuf::from);
        libraries.for_each(|it| place(&it, &it));
        place(probe, Path::new("/orchestrator-probe"));
        place(Path::new("/bin/busybox"), Path::new("/bin/busybox"));
        let mut import = Command::new("docker").args(["import", "-", &name]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let archive = Command::new("tar").arg("-C").arg(directory.path()).args(["-c", "."]).stdout(import.stdin.take().unwrap()).status();
        assert!(archive.unwrap().success() && import.wait().unwrap().success());
        Image(name)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        docker(&["rmi", "--force", &self.0]);
    }
}

/// The host's address on Docker's bridge, which its containers reach.
fn bridge() -> String {
    let told = Command::new("ip").args(["-4", "-o", "address", "show", "dev", "docker0"]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let network = told.split_ascii_whitespace().skip_while(|it| *it != "inet").nth(1).expect("an address on docker0");
    network.split('/').next().unwrap().to_owned()
}

fn docker(arguments: &[&str]) -> bool {
    Command::new("docker").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
}
