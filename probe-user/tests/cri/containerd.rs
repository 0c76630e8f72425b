//! A real containerd, with a configuration and directories of its own, and what the kubelet would call to run a pod on it.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tonic::transport::{Channel, Endpoint};

use proto::probe::v1::{ContainerState, Process};

use crate::support::{ControlPlane, Known, Probe, is_root, missing};

/// The image of everything here.
const IMAGE: &str = "registry.test/probe/busybox:v1";

/// What the probe never calls, and its proto therefore lacks.
mod calls {
    use std::collections::HashMap;

    macro_rules! message {
        ($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
            #[derive(Clone, PartialEq, prost::Message)]
            pub(super) struct $name { $($(#[$attribute])* pub(super) $field: $type,)* }
        };
    }

    message!(NamespaceOption {
        #[prost(int32, tag = "1")]
        network: i32,
        #[prost(int32, tag = "2")]
        pid: i32,
        #[prost(int32, tag = "3")]
        ipc: i32,
    });
    message!(SandboxSecurity { #[prost(message, optional, tag = "1")] namespace_options: Option<NamespaceOption>, });
    message!(LinuxSandbox { #[prost(string, tag = "1")] cgroup_parent: String, #[prost(message, optional, tag = "2")] security_context: Option<SandboxSecurity>, });
    message!(SandboxConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<proto::cri::v1::PodSandboxMetadata>,
        #[prost(string, tag = "2")] hostname: String,
        #[prost(string, tag = "3")] log_directory: String,
        #[prost(map = "string, string", tag = "6")] labels: HashMap<String, String>,
        #[prost(map = "string, string", tag = "7")] annotations: HashMap<String, String>,
        #[prost(message, optional, tag = "8")] linux: Option<LinuxSandbox>,
    });
    message!(RunPodSandboxRequest { #[prost(message, optional, tag = "1")] config: Option<SandboxConfig>, });
    message!(Id {
        #[prost(string, tag = "1")]
        id: String,
    });
    message!(KeyValue {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(string, tag = "2")]
        value: String,
    });
    message!(ContainerConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<proto::cri::v1::ContainerMetadata>,
        #[prost(message, optional, tag = "2")] image: Option<proto::cri::v1::ImageSpec>,
        #[prost(string, repeated, tag = "3")] command: Vec<String>,
        #[prost(message, repeated, tag = "6")] envs: Vec<KeyValue>,
        #[prost(map = "string, string", tag = "9")] labels: HashMap<String, String>,
        #[prost(map = "string, string", tag = "10")] annotations: HashMap<String, String>,
        #[prost(message, optional, tag = "15")] linux: Option<LinuxContainer>,
    });
    message!(ContainerSecurity { #[prost(message, optional, tag = "3")] namespace_options: Option<NamespaceOption>, });
    message!(LinuxContainer { #[prost(message, optional, tag = "2")] security_context: Option<ContainerSecurity>, });
    message!(CreateContainerRequest {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
        #[prost(message, optional, tag = "2")] config: Option<ContainerConfig>,
        #[prost(message, optional, tag = "3")] sandbox_config: Option<SandboxConfig>,
    });
    message!(StopContainerRequest {
        #[prost(string, tag = "1")]
        container_id: String,
        #[prost(int64, tag = "2")]
        timeout: i64,
    });
    message!(Nothing {});
}

struct Containerd {
    child: Child,
    directory: tempfile::TempDir,
}

impl Containerd {
    /// Starts it and imports the image. `None` where that cannot be.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let config = format!(
            r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
disable_tcp_service = true
# A pod's own container may not be better off than this process: lowering its score takes CAP_SYS_RESOURCE, which a test machine may lack.
restrict_oom_score_adj = true
[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"
"#,
            root = path("root").display(),
            state = path("state").display(),
            socket = path("containerd.sock").display(),
            opt = path("opt").display(),
        );
        std::fs::write(path("config.toml"), config).unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        let child = Command::new("containerd").arg("-c").arg(path("config.toml")).stderr(log).stdout(Stdio::null()).spawn().ok()?;
        let this = Containerd { child, directory };
        let begun = Instant::now();
        while !this.ctr(&["version"]).status.success() {
            assert!(begun.elapsed() < Duration::from_secs(20), "containerd does not start: {}", this.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        let archive = image_archive(this.directory.path());
        let imported = this.ctr(&["images", "import", archive.to_str().unwrap()]);
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        Some(this)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("containerd.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn ctr(&self, arguments: &[&str]) -> std::process::Output {
        Command::new("ctr").arg("-a").arg(self.socket()).args(["-n", "k8s.io"]).args(arguments).output().unwrap()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // A failed test leaves its tasks: they would outlive containerd.
        let tasks = self.ctr(&["tasks", "list", "-q"]);
        for task in String::from_utf8_lossy(&tasks.stdout).split_whitespace() {
            let _ = self.ctr(&["tasks", "delete", "--force", task]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = self.directory.path().to_str().unwrap();
        for mount in mounts.lines().rev().filter_map(|it| it.split(' ').nth(1)).filter(|it| it.starts_with(below)) {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
    }
}

/// An archive as `docker save` writes it, of a static busybox alone.
fn image_archive(directory: &Path) -> PathBuf {
    let build = directory.join("image");
    std::fs::create_dir(&build).unwrap();
    let tar = |from: &Path, to: &Path, names: &[&str]| {
        let status = Command::new("tar").arg("-C").arg(from).arg("-cf").arg(to).args(names).status().unwrap();
        assert!(status.success(), "busybox-static has to be installed");
    };
    tar(Path::new("/"), &build.join("layer.tar"), &["bin/busybox"]);
    let sum = Command::new("sha256sum").arg(build.join("layer.tar")).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let config = serde_json::json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": {"Entrypoint": ["/bin/busybox", "sleep", "100000"], "Labels": {"maker": "a test"}},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sum.split(' ').next().unwrap())]},
    });
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    for (name, json) in [("config.json", config), ("manifest.json", manifest)] {
        std::fs::File::create(build.join(name)).unwrap().write_all(json.to_string().as_bytes()).unwrap();
    }
    let archive = directory.join("image.tar");
    tar(&build, &archive, &["manifest.json", "config.json", "layer.tar"]);
    archive
}

/// Calls a method that the probe has no word for.
async fn call<Q: prost::Message + 'static, A: prost::Message + Default + 'static>(channel: &Channel, method: &str, request: Q) -> A {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = format!("/runtime.v1.RuntimeService/{method}").parse().unwrap();
    let answer = client.unary(tonic::Request::new(request), path, tonic_prost::ProstCodec::default()).await;
    answer.unwrap_or_else(|status| panic!("{method}: {status:?}")).into_inner()
}

fn living<'a>(known: &'a Known, container: &'a str) -> impl Iterator<Item = &'a Process> {
    known.processes.values().filter(move |it| it.container_id == container && it.exited_at_unix_nanos == 0)
}

#[tokio::test]
async fn a_pod_of_a_real_containerd_is_on_the_wire_from_its_start_to_its_removal() {
    if !is_root() {
        return missing("root");
    }
    let Some(containerd) = Containerd::start() else { return missing("containerd") };
    let channel = Endpoint::from_shared(format!("unix://{}", containerd.socket().display())).unwrap().connect().await.unwrap();
    let control_plane = ControlPlane::start().await;
    let socket = containerd.socket();
    let _probe = Probe::start(&control_plane, &["--no-docker", "--container-env", "--cri-socket", socket.to_str().unwrap()]);
    control_plane.wait_for("the first snapshot", |known| known.snapshots > 0).await;

    let uid = format!("5a61dbc8-3b5c-4bd3-a8e2-{:012}", std::process::id());
    let options = calls::NamespaceOption { network: 2, pid: 1, ipc: 2 };
    let pod_config = calls::SandboxConfig {
        metadata: Some(proto::cri::v1::PodSandboxMetadata {
            name: "web-1".to_owned(),
            uid: uid.clone(),
            namespace: "shop".to_owned(),
            attempt: 0,
        }),
        log_directory: containerd.directory.path().join("logs").display().to_string(),
        labels: HashMap::from([("app".to_owned(), "web".to_owned())]),
        linux: Some(calls::LinuxSandbox {
            cgroup_parent: format!("/kubepods/besteffort/pod{uid}"),
            security_context: Some(calls::SandboxSecurity { namespace_options: Some(options.clone()) }),
        }),
        ..calls::SandboxConfig::default()
    };
    let pod: calls::Id = call(&channel, "RunPodSandbox", calls::RunPodSandboxRequest { config: Some(pod_config.clone()) }).await;
    let container_config = calls::ContainerConfig {
        metadata: Some(proto::cri::v1::ContainerMetadata { name: "web".to_owned(), attempt: 2 }),
        image: Some(proto::cri::v1::ImageSpec { image: IMAGE.to_owned() }),
        command: ["/bin/busybox", "sh", "-c", "/bin/busybox sleep 1000 & wait", "web", "--password=hunter2"].map(str::to_owned).to_vec(),
        envs: vec![
            calls::KeyValue { key: "COLOUR".to_owned(), value: "red".to_owned() },
            calls::KeyValue { key: "API_TOKEN".to_owned(), value: "hunter2".to_owned() },
        ],
        labels: HashMap::from([("team".to_owned(), "blue".to_owned())]),
        annotations: HashMap::from([("io.kubernetes.container.restartCount".to_owned(), "2".to_owned())]),
        linux: Some(calls::LinuxContainer { security_context: Some(calls::ContainerSecurity { namespace_options: Some(options) }) }),
    };
    let create =
        calls::CreateContainerRequest { pod_sandbox_id: pod.id.clone(), config: Some(container_config), sandbox_config: Some(pod_config) };
    let container: calls::Id = call(&channel, "CreateContainer", create).await;
    let id = container.id.clone();
    let _: calls::Nothing = call(&channel, "StartContainer", container.clone()).await;

    let running = |id: &str| {
        let id = id.to_owned();
        move |known: &Known| known.containers.get(&id).is_some_and(|it| it.pid != 0 && it.state() == ContainerState::Running)
    };
    let begun = Instant::now();
    control_plane.wait_for("the container", running(&id)).await;
    control_plane.wait_for("the pod's own container", running(&pod.id)).await;
    println!("told after {:?}", begun.elapsed());
    let record = control_plane.known().containers[&id].clone();
    assert_eq!((record.name.as_str(), record.runtime.as_str(), record.image_name.as_str()), ("web", "containerd", IMAGE));
    assert_eq!(record.image_id.len(), 64, "{}", record.image_id);
    assert_eq!((record.restart_count, record.network_mode.as_str()), (2, "host"));
    assert!(record.command.ends_with("web --password=***"), "{}", record.command);
    assert_eq!(record.environment.get("COLOUR").map(String::as_str), Some("red"));
    assert_eq!(record.environment.get("API_TOKEN").map(String::as_str), Some("***"));
    let label = |key: &str| record.labels.get(key).map(String::as_str);
    assert_eq!((label("team"), label("io.kubernetes.container.name")), (Some("blue"), Some("web")));
    assert_eq!((label("io.kubernetes.pod.name"), label("io.kubernetes.pod.namespace")), (Some("web-1"), Some("shop")));
    assert_eq!(label("io.kubernetes.pod.uid"), Some(uid.as_str()));
    assert!(record.created_at_unix_nanos > 0 && record.started_at_unix_nanos >= record.created_at_unix_nanos);
    let own = control_plane.known().containers[&pod.id].clone();
    assert_eq!(own.labels.get("io.kubernetes.docker.type").map(String::as_str), Some("podsandbox"));
    assert_eq!((own.name.as_str(), own.image_id.as_str()), ("web-1", record.image_id.as_str()));
    // Both its processes are in it, by the same id; the secret shows in neither.
    let of = id.clone();
    control_plane.wait_for("its processes", move |known| living(known, &of).count() == 2).await;
    {
        let known = control_plane.known();
        let processes: Vec<_> = living(&known, &id).collect();
        assert!(processes.iter().any(|it| it.key.unwrap().pid == record.pid));
        assert!(processes.iter().all(|it| !it.command_line.contains("hunter2")), "{processes:?}");
        assert_ne!(record.cgroup_id, 0);
    }
    let _: calls::Nothing = call(&channel, "StopContainer", calls::StopContainerRequest { container_id: id.clone(), timeout: 0 }).await;
    let ended = id.clone();
    control_plane
        .wait_for("its end", move |known| {
            let record = known.containers.get(&ended);
            record.is_some_and(|it| it.state() == ContainerState::Exited && it.exit_code == 137 && it.pid == 0)
        })
        .await;
    let _: calls::Nothing = call(&channel, "RemoveContainer", container).await;
    let _: calls::Nothing = call(&channel, "StopPodSandbox", pod.clone()).await;
    let _: calls::Nothing = call(&channel, "RemovePodSandbox", pod.clone()).await;
    // A container that was there for a moment stays for 15 s as an exited one.
    tokio::time::sleep(Duration::from_secs(10)).await;
    control_plane.wait_for("both leave", move |known| !known.containers.contains_key(&id) && !known.containers.contains_key(&pod.id)).await;
}
