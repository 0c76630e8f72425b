//! Containers of CRI runtimes: one that a test can make misbehave, and a real containerd.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fake::Runtime;
use orchestrator_probe::containers::{ContainerFacts, Source};
use orchestrator_probe::cri::{self, Config};
use orchestrator_probe::driver::Input;
use orchestrator_probe::mask::Masks;
use orchestrator_probe::telemetry::Telemetry;
use proto::cri::v1::ContainerEventType::{ContainerDeletedEvent, ContainerStartedEvent};
use proto::cri::v1::ContainerState::{ContainerCreated, ContainerExited, ContainerRunning};
use proto::probe::v1::ContainerState;
use support::spawn;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

#[path = "cri/containerd.rs"]
mod containerd;
#[path = "cri/fake.rs"]
mod fake;
mod support;

/// A version that shares its events, and one that does not.
const WITH_EVENTS: &str = "v2.0.1";
const WITHOUT_EVENTS: &str = "1.7.27";

/// Somebody who follows runtimes.
struct Following {
    inputs: mpsc::Receiver<Input>,
    looks: broadcast::Sender<Arc<str>>,
    telemetry: Telemetry,
}

impl Following {
    fn start(sockets: &[&Path]) -> Self {
        let (sender, inputs) = mpsc::channel(1_000);
        let looks = broadcast::Sender::new(256);
        let telemetry = Telemetry::new();
        let config = Config { sockets: sockets.iter().map(PathBuf::from).collect(), environment: true, masks: Masks::default() };
        spawn(cri::run(config, telemetry.clone(), sender, looks.clone(), CancellationToken::new()));
        Following { inputs, looks, telemetry }
    }

    /// Waits for an input that `wanted` takes, and says how long that took.
    async fn until<T>(&mut self, what: &str, wanted: impl Fn(&Input) -> Option<T>) -> (T, Duration) {
        let begun = Instant::now();
        let find = async {
            loop {
                let input = self.inputs.recv().await.expect("cri::run does not end");
                if let Some(found) = wanted(&input) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(40), find).await.unwrap_or_else(|_| panic!("{what} was not told in 40 s"));
        (found, begun.elapsed())
    }

    async fn container(&mut self, id: &str, state: ContainerState) -> (ContainerFacts, Duration) {
        self.until(&format!("{id} as {state:?}"), |it| match it {
            Input::Container(facts) if facts.record.id == id && facts.record.state() == state => Some((**facts).clone()),
            _ => None,
        })
        .await
    }

    async fn gone(&mut self, gone: &str) -> Duration {
        self.until(gone, |it| matches!(it, Input::ContainerGone { id, source: Source::Cri(_) } if id == gone).then_some(())).await.1
    }

    async fn listed(&mut self) -> usize {
        self.until("the first list", |it| match it {
            Input::ContainersListed { ids, .. } => Some(ids.len()),
            _ => None,
        })
        .await
        .0
    }

    fn metric(&self, line: &str) -> bool {
        self.telemetry.render().lines().any(|it| it == line)
    }
}

#[tokio::test]
async fn without_events_lists_tell_the_life_of_a_container() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("containerd.sock");
    let runtime = Runtime::start(&socket, WITHOUT_EVENTS);
    runtime.put("c1", ContainerCreated);
    let mut following = Following::start(&[&socket]);
    let (facts, _) = following.container("c1", ContainerState::Created).await;
    let record = facts.record;
    assert_eq!(
        (record.name.as_str(), record.runtime.as_str(), record.command.as_str()),
        ("name of c1", "containerd", "/bin/web --token=***")
    );
    assert_eq!((record.image_name.as_str(), record.image_id.as_str()), ("registry.example/web:v1", "abcd"));
    assert_eq!((record.addresses.as_slice(), record.network_mode.as_str()), (["10.1.2.3".to_owned()].as_slice(), "container:pod-of-c1"));
    assert_eq!(record.labels.get("io.kubernetes.pod.name").map(String::as_str), Some("pod c1"));
    let (image, _) = following.until("the image", |it| if let Input::Image(image) = it { Some(image.clone()) } else { None }).await;
    assert_eq!((image.id.as_str(), image.size_bytes, image.labels.len()), ("abcd", 1_000, 1));
    assert_eq!(following.listed().await, 2, "the pod and the container");
    assert!(following.metric("probe_runtime_connected{runtime=\"containerd\"} 1"), "{}", following.telemetry.render());

    runtime.put("c1", ContainerRunning);
    let (running, took) = following.container("c1", ContainerState::Running).await;
    assert_eq!((running.record.pid, running.record.started_at_unix_nanos), (4711, 3_000_000_000));
    assert!(took < Duration::from_secs(5), "{took:?}");
    runtime.put("c1", ContainerExited);
    let (exited, _) = following.container("c1", ContainerState::Exited).await;
    assert_eq!((exited.record.pid, exited.record.exit_code, exited.finished_at_unix_nanos), (0, 7, 4_000_000_000));
    runtime.remove("c1");
    following.gone("c1").await;
    // A container that has not changed is asked for once, an image once for all.
    runtime.put("c2", ContainerRunning);
    following.container("c2", ContainerState::Running).await;
    let lists = runtime.state().lists;
    while runtime.state().lists < lists + 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((runtime.asked("c2"), runtime.asked("pod-of-c2")), (1, 1));
    let images_asked = runtime.state().images_asked;
    assert!(images_asked <= 4, "{images_asked}: the pause image is not there and asked for again");
}

#[tokio::test]
async fn with_events_nothing_waits_for_a_list() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("containerd.sock");
    let runtime = Runtime::start(&socket, WITH_EVENTS);
    let mut following = Following::start(&[&socket]);
    assert_eq!(following.listed().await, 0);
    tokio::time::sleep(Duration::from_millis(300)).await;
    for id in ["c1", "c2"] {
        runtime.put(id, ContainerRunning);
        runtime.tell(id, ContainerStartedEvent);
        let (_, took) = following.container(id, ContainerState::Running).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    runtime.remove("c1");
    runtime.tell("c1", ContainerDeletedEvent);
    assert!(following.gone("c1").await < Duration::from_secs(1));
    let lists = runtime.state().lists;
    assert!(lists <= 2, "{lists}");
    assert!(following.metric("probe_runtime_events_total{runtime=\"containerd\"} 3"));
}

#[tokio::test]
async fn a_new_cgroup_is_looked_at_at_once_and_a_strange_one_seldom() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("containerd.sock");
    let runtime = Runtime::start(&socket, WITHOUT_EVENTS);
    let mut following = Following::start(&[&socket]);
    following.listed().await;
    // The cgroup is there before the runtime says that the container runs.
    runtime.put("c1", ContainerCreated);
    following.looks.send("c1".into()).unwrap();
    let (_, took) = following.container("c1", ContainerState::Created).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    runtime.put("c1", ContainerRunning);
    let (_, took) = following.container("c1", ContainerState::Running).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Another runtime's container.
    for _ in 0..40 {
        following.looks.send("stranger".into()).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asked = runtime.asked("stranger");
    assert!((4..=16).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_runtime_that_hangs_is_given_up_and_keeps_nobody_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let socket = |name: &str| directory.path().join(name);
    let hanging = Runtime::start(&socket("hanging.sock"), WITHOUT_EVENTS);
    hanging.put("late", ContainerRunning);
    hanging.state().hangs = true;
    let _silent = std::os::unix::net::UnixListener::bind(socket("silent.sock")).unwrap();
    let garbage = tokio::net::UnixListener::bind(socket("garbage.sock")).unwrap();
    spawn(async move {
        while let Ok((mut stream, _)) = garbage.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &[0x41; 100_000]).await;
        }
    });
    std::fs::write(socket("file.sock"), "no socket").unwrap();
    let good = Runtime::start(&socket("good.sock"), WITHOUT_EVENTS);
    good.put("c1", ContainerRunning);
    let sockets = ["hanging.sock", "silent.sock", "garbage.sock", "file.sock", "missing.sock", "good.sock"].map(socket);
    let mut following = Following::start(&sockets.each_ref().map(PathBuf::as_path));
    let (facts, took) = following.container("c1", ContainerState::Running).await;
    assert_eq!(facts.source, Source::of_cri_socket(&sockets[5]));
    assert!(took < Duration::from_secs(2), "{took:?}");
    for silent in [3, 1] {
        let source = Source::of_cri_socket(&sockets[silent]);
        let reason = |it: &Input| match it {
            Input::RuntimeSilent { source: it, reason, .. } if *it == source => Some(reason.clone()),
            _ => None,
        };
        let (reason, _) = following.until("the silence", reason).await;
        assert_eq!(reason, "it does not answer", "{silent}");
    }
    // It comes to its senses after it was given up.
    tokio::time::sleep(Duration::from_secs(11)).await;
    hanging.state().hangs = false;
    following.container("late", ContainerState::Running).await;
    // One that hangs later is lost, and what it told is kept until more is known.
    hanging.state().hangs = true;
    let (source, took) = following.until("the loss", |it| if let Input::RuntimeLost(source) = it { Some(*source) } else { None }).await;
    assert_eq!(source, Source::of_cri_socket(&sockets[0]));
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn one_container_of_which_a_runtime_does_not_tell_hides_none_of_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("containerd.sock");
    let runtime = Runtime::start(&socket, WITHOUT_EVENTS);
    ["c1", "c2", "c3"].into_iter().for_each(|id| runtime.put(id, ContainerRunning));
    runtime.state().hung.extend(["c1".to_owned(), "pod-of-c2".to_owned()]);
    let mut following = Following::start(&[&socket]);
    let (outlined, _) = following
        .until("the outline", |it| match it {
            Input::ContainerOutlined(facts) => Some((**facts).clone()),
            _ => None,
        })
        .await;
    let record = outlined.record;
    assert_eq!((record.id.as_str(), record.name.as_str(), record.state()), ("c1", "name of c1", ContainerState::Running));
    assert_eq!(record.image_name, "registry.example/web:v1");
    assert_eq!(record.labels.get("io.kubernetes.pod.name").map(String::as_str), Some("pod c1"));
    assert_eq!(following.listed().await, 6);
    let spot = |it: &Input| if let Input::BlindSpot { sentence, .. } = it { Some(sentence.clone()) } else { None };
    let (told, _) = following.until("the blind spot", spot).await;
    assert!(told.as_ref().is_some_and(|it| it.contains("name of c1 (c1): no answer within 3 s") && it.contains("pod c2")), "{told:?}");
    let (second, _) = following.container("c2", ContainerState::Running).await;
    assert_eq!(second.record.labels.get("io.kubernetes.pod.name").map(String::as_str), Some("pod c2"), "the list has that");
    assert_eq!((second.record.pid, second.record.network_mode.as_str(), second.record.addresses.len()), (4711, "", 0));
    following.container("c3", ContainerState::Running).await;
    assert!(following.metric("probe_runtime_connected{runtime=\"containerd\"} 1"));
    // The runtime gets over it.
    runtime.state().hung.clear();
    let (first, _) = following.container("c1", ContainerState::Running).await;
    assert_eq!(first.record.pid, 4711);
    following.until("the end of the blind spot", |it| spot(it).filter(Option::is_none)).await;
    let (second, _) = following.container("c2", ContainerState::Running).await;
    assert_eq!((second.record.network_mode.as_str(), second.record.addresses.len()), ("container:pod-of-c2", 1));
}

#[tokio::test]
async fn an_image_store_that_waits_hides_images_alone() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("containerd.sock");
    let runtime = Runtime::start(&socket, WITHOUT_EVENTS);
    (0..20).for_each(|number| runtime.put(&format!("c{number}"), ContainerRunning));
    let image = "registry.example/web@sha256:dd".to_owned();
    runtime.state().hung.insert(image);
    let begun = Instant::now();
    let mut following = Following::start(&[&socket]);
    assert_eq!(following.listed().await, 40);
    assert!(begun.elapsed() < Duration::from_secs(6), "it was asked for once, and not for each: {:?}", begun.elapsed());
    let (told, _) =
        following.until("the blind spot", |it| if let Input::BlindSpot { sentence, .. } = it { sentence.clone() } else { None }).await;
    assert!(told.contains("its image: no answer"), "{told}");
}

#[tokio::test]
async fn a_pod_whose_image_is_not_told_has_its_containers_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("containerd.sock");
    let runtime = Runtime::start(&socket, WITHOUT_EVENTS);
    let ids: Vec<String> = (0..5).map(|number| format!("c{number}")).collect();
    ids.iter().for_each(|id| runtime.put(id, ContainerRunning));
    runtime.state().hung.extend(["registry.example/pause:3".to_owned(), "pod-of-c0".to_owned()]);
    let mut following = Following::start(&[&socket]);
    assert_eq!(following.listed().await, 10);
    // The runtime gets over the pod, and is asked for pods again because of their image.
    runtime.state().hung.remove("pod-of-c0");
    let asked = |id: &str| runtime.asked(id);
    let pods = || ids.iter().map(|id| asked(&format!("pod-of-{id}"))).sum::<usize>();
    let begun = Instant::now();
    while pods() < ids.len() + 2 || asked("c0") < 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} questions about pods, {} about the container", pods(), asked("c0"));
        // Whatever is told is taken.
        drop(tokio::time::timeout(Duration::from_millis(100), following.inputs.recv()).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let others: Vec<usize> = ids.iter().filter(|id| *id != "c0").map(|id| asked(id)).collect();
    assert_eq!(others, [1; 4], "only what was told without its pod is asked for again");
}

#[tokio::test]
async fn a_runtime_that_was_restarted_is_listed_anew() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("containerd.sock");
    for version in [WITH_EVENTS, WITHOUT_EVENTS] {
        let mut runtime = Runtime::start(&socket, version);
        runtime.put("c1", ContainerRunning);
        runtime.put("c2", ContainerRunning);
        let mut following = Following::start(&[&socket]);
        assert_eq!(following.listed().await, 4);
        // Quick enough that no call failed: the next list has what changed.
        runtime.remove("c1");
        runtime.restart(&socket);
        following.gone("c1").await;
        // Away for longer.
        runtime.kill(&socket);
        following.until("the loss", |it| matches!(it, Input::RuntimeLost(Source::Cri(_))).then_some(())).await;
        assert!(following.metric("probe_runtime_connected{runtime=\"containerd\"} 0"));
        runtime.remove("c2");
        runtime.put("c3", ContainerRunning);
        runtime.restart(&socket);
        following.container("c3", ContainerState::Running).await;
        assert_eq!(following.listed().await, 2);
        runtime.kill(&socket);
    }
}

#[tokio::test]
async fn thousands_of_containers_are_told() {
    const COUNT: usize = 2_000;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("containerd.sock");
    let runtime = Runtime::start(&socket, WITH_EVENTS);
    (0..COUNT).for_each(|id| runtime.put(&format!("c{id:04}"), ContainerRunning));
    let mut following = Following::start(&[&socket]);
    let begun = Instant::now();
    let mut told = 0;
    loop {
        match following.inputs.recv().await.unwrap() {
            Input::Container(_) => told += 1,
            Input::ContainersListed { ids, .. } => {
                assert_eq!((ids.len(), told), (2 * COUNT, 2 * COUNT));
                break;
            }
            _ => {}
        }
    }
    println!("{COUNT} containers and as many pods told in {:?}", begun.elapsed());
    let begun = Instant::now();
    // All of them end at once: what is more than a runtime is asked for at once is found by the next list.
    for id in 0..COUNT {
        let id = format!("c{id:04}");
        runtime.put(&id, ContainerExited);
        runtime.tell(&id, ContainerStartedEvent);
    }
    let mut exited = std::collections::BTreeSet::new();
    while exited.len() < COUNT {
        let input = tokio::time::timeout(Duration::from_secs(40), following.inputs.recv()).await.expect("more of them").unwrap();
        if let Input::Container(facts) = input
            && facts.record.state() == ContainerState::Exited
        {
            exited.insert(facts.record.id);
        }
    }
    println!("their ends told in {:?}", begun.elapsed());
}
