//! The probe is killed, upgraded and started again while the machine goes on: the kernel programs stay, and nothing is counted twice or not at all.
//!
//! Needs root and a build with kernel programs; see `support::missing`.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "the helpers of a test fail by panicking, and say what the probe said")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use orchestrator_probe::capture::Ladder;
use orchestrator_probe::config::CaptureMode;
use orchestrator_probe::driver::{Driver, INPUTS_MAX, OBSERVATIONS_MAX};
use orchestrator_probe::ebpf::{Capture, Config, PinDir as Pinning};
use orchestrator_probe::procfs::{Arguments, Procfs};
use orchestrator_probe::publisher::{Limits, Publisher};
use orchestrator_probe::report::Builder;
use orchestrator_probe::telemetry::Telemetry;
use orchestrator_probe::uplink::{self, Identity};
use proto::probe::v1::Losses;
use support::{ControlPlane, is_root, missing, spawn};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

mod support;

const CLIENT: i32 = 1;
const SERVER: i32 = 2;

/// A BPF file system of the test's own.
struct PinDir(tempfile::TempDir);

impl PinDir {
    fn new() -> Self {
        PinDir(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn root(&self) -> PathBuf {
        self.path().join("orchestrator-probe")
    }

    fn links(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.root().join("links")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for PinDir {
    fn drop(&mut self) {
        // Unmounting removes all names, and with them the programs.
        let _ = nix::mount::umount2(self.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// The real binary. Dropping it kills it.
struct Probe {
    process: Child,
    log: tempfile::NamedTempFile,
}

impl Probe {
    fn start(control_plane: &ControlPlane, arguments: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_orchestrator-probe"))
            .args(["--control-plane", &control_plane.url(), "--admin-address", "off", "--no-docker", "--capture", "ebpf"])
            .args(["--log-filter", "orchestrator_probe=debug", "--host-name", "restart-test"])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        Probe { process, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// Ends it without a word.
    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    async fn says(&self, what: &str) {
        let begun = Instant::now();
        while !self.log().contains(what) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{what:?} is not in the log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the probe\n{}", self.log());
        }
    }
}

/// A server, and a client that makes a thousand connections a second to it until it is told to stop.
struct Load {
    port: u16,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let server = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                if stream.read_to_end(&mut request).is_ok() && request == b"end" {
                    return;
                }
            }
        });
        let (stopped, count) = (stop.clone(), made.clone());
        let client = std::thread::spawn(move || {
            let begun = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let due = u64::try_from(begun.elapsed().as_millis()).unwrap();
                while count.load(Ordering::Relaxed) < due {
                    say(address, b"ping");
                    count.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            say(address, b"end");
            count.fetch_add(1, Ordering::Relaxed);
        });
        Load { port: address.port(), stop, made, threads: vec![server, client] }
    }

    /// Stops; how many connections there were.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.made.load(Ordering::Relaxed)
    }
}

fn say(address: SocketAddr, what: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(what).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = stream.read(&mut [0]);
}

async fn told_exactly(control_plane: &ControlPlane, port: u16, opened: u64, closed: u64) {
    let begun = Instant::now();
    loop {
        let counts: Vec<_> = [CLIENT, SERVER]
            .into_iter()
            .map(|direction| {
                let known = control_plane.known();
                let counters =
                    known.flow(direction, port).and_then(|(key, flow)| Some((key.process.as_ref()?.pid, flow.counters.clone()?)));
                counters.map(|(pid, counters)| (pid, counters.opened, counters.closed))
            })
            .collect();
        let own = std::process::id();
        if counts.iter().all(|count| *count == Some((own, opened, closed))) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "made {opened}, ended {closed}, told {counts:?} by {own}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Kills the probe under load, waits, starts another one, and compares with what was made.
async fn nothing_is_missed(second: &[&str]) {
    if !is_root() {
        return missing("root");
    }
    let (pins, control_plane) = (PinDir::new(), ControlPlane::start().await);
    let pin_dir = pins.path().to_str().unwrap();
    let first = Probe::start(&control_plane, &["--pin-dir", pin_dir]);
    first.says("kernel programs are pinned").await;
    // Open over everything.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let long = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (long_server, _) = listener.accept().unwrap();
    let long_port = listener.local_addr().unwrap().port();
    let load = Load::start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    first.kill();
    let hooks = pins.links();
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Begun while nobody watched, and open still.
    let between = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (between_server, _) = listener.accept().unwrap();
    let has_other_programs = !second.is_empty();
    let second = Probe::start(&control_plane, &[&["--pin-dir", pin_dir], second].concat());
    second.says("taken_over=true").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    control_plane.wait_for("its snapshot", |known| known.has_heard(2)).await;
    let (port, made) = (load.port, load.stop());
    assert!(made > 3_000, "a load of {made} connections shows little");
    told_exactly(&control_plane, port, made, made).await;
    told_exactly(&control_plane, long_port, 2, 0).await;
    drop((long, long_server, between, between_server));
    told_exactly(&control_plane, long_port, 2, 2).await;
    assert_eq!(pins.links(), hooks, "one link per hook, before and after");
    let losses = control_plane.known().losses.clone().unwrap_or_default();
    assert_eq!((losses.flows_uncounted, losses.sockets_unowned, losses.table_full), (0, 0, 0), "{losses:?}");
    assert_eq!(losses.ring_records.get("network").copied().unwrap_or(0), 0, "{losses:?}");
    // Other connections of the machine are on their way all the time.
    let complete = |losses: &Losses| losses.ends_seen == losses.ends_reported && losses.ends_seen >= 2 * made;
    control_plane.wait_for("completeness", |known| known.losses.as_ref().is_some_and(complete)).await;
    // And once more: what was taken over once is not lost the second time. But where the kernel does not add one table to another, what other
    // programs had counted is in no table any more.
    if has_other_programs && second.log().contains("the kernel does not add one table to another") {
        return;
    }
    second.kill();
    let third = Probe::start(&control_plane, &["--pin-dir", pin_dir]);
    third.says("taken_over=true").await;
    control_plane.wait_for("its snapshot", |known| known.has_heard(3)).await;
    told_exactly(&control_plane, port, made, made).await;
    told_exactly(&control_plane, long_port, 2, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_is_killed_under_load_has_missed_nothing_when_it_is_back() {
    nothing_is_missed(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_to_other_kernel_programs_misses_nothing() {
    nothing_is_missed(&["--abi-salt", "1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_nobody_listens_to_fall_asleep_and_are_not_believed_afterwards() {
    if !is_root() {
        return missing("root");
    }
    let pins = PinDir::new();
    let config = Config { pin_dir: Pinning::At(pins.path().to_owned()), awake_for: Duration::from_secs(2), ..Config::default() };
    let (running, receiver) = Capture::start(&config).unwrap();
    assert_eq!(running.status().pinned_at.as_deref(), Some(pins.root().as_path()), "{:?}", running.status());
    assert!(!running.status().taken_over);
    drop((running, receiver));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = |count: u64| {
        for _ in 0..count {
            drop((TcpStream::connect(address).unwrap(), listener.accept().unwrap()));
        }
    };
    let before = ends_seen(&pins);
    connect(10);
    assert!(ends_seen(&pins) >= before + 20, "they are awake at first");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let asleep = ends_seen(&pins);
    connect(10);
    assert_eq!(ends_seen(&pins), asleep, "they return at once");
    let (running, _receiver) = Capture::start(&config).unwrap();
    assert!(!running.status().taken_over, "what was not counted cannot be made up for");
    connect(1);
    assert!(ends_seen(&pins) >= 2);
    running.stop();
}

/// The kernel's own count, of the one build whose programs are pinned.
fn ends_seen(pins: &PinDir) -> u64 {
    let build =
        std::fs::read_dir(pins.root()).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.join("sockets-COUNTERS").exists());
    let map = aya::maps::MapData::from_pin(build.unwrap().join("sockets-COUNTERS")).unwrap();
    let counters = aya::maps::PerCpuArray::<_, u64>::try_from(aya::maps::Map::from_map_data(map).unwrap()).unwrap();
    counters.get(&0, 0).unwrap().iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_probes_on_one_machine_the_second_runs_without_pins_and_detach_waits_for_the_first() {
    if !is_root() {
        return missing("root");
    }
    let (pins, control_plane) = (PinDir::new(), ControlPlane::start().await);
    let pin_dir = pins.path().to_str().unwrap();
    let first = Probe::start(&control_plane, &["--pin-dir", pin_dir]);
    first.says("kernel programs are pinned").await;
    let second = Probe::start(&control_plane, &["--pin-dir", pin_dir]);
    second.says("another probe uses").await;
    second.says("capture started").await;
    let detach = || {
        let done = Command::new(env!("CARGO_BIN_EXE_orchestrator-probe")).args(["detach", "--pin-dir", pin_dir]).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr))
    };
    let (done, said) = detach();
    assert!(!done && said.contains("another probe uses"), "{said}");
    let hooks = pins.links().len();
    assert!(hooks >= 10);
    first.kill();
    let (done, said) = detach();
    assert!(done && said.contains(&format!("removed from {hooks} hooks")), "{said}");
    assert!(!pins.root().exists());
    let (done, said) = detach();
    assert!(done && said.contains("no kernel programs are pinned"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_cannot_pin_finds_what_is_open_by_looking() {
    if !is_root() {
        return missing("root");
    }
    let control_plane = ControlPlane::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    // No directory can be there, and so no BPF file system.
    let arguments = ["--pin-dir", file.path().to_str().unwrap()];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let first = Probe::start(&control_plane, &arguments);
    first.says("kernel programs are not pinned").await;
    let open = (TcpStream::connect(listener.local_addr().unwrap()).unwrap(), listener.accept().unwrap());
    told_exactly(&control_plane, port, 1, 0).await;
    first.kill();
    let _second = Probe::start(&control_plane, &arguments);
    control_plane.wait_for("its snapshot", |known| known.has_heard(2)).await;
    told_exactly(&control_plane, port, 1, 0).await;
    drop(open);
    told_exactly(&control_plane, port, 1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_is_started_again_in_one_process_counts_what_is_open_once() {
    if !is_root() {
        return missing("root");
    }
    let pins = PinDir::new();
    for pin_dir in [Pinning::Off, Pinning::At(pins.path().to_owned())] {
        let control_plane = ControlPlane::start().await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connect = || (TcpStream::connect(listener.local_addr().unwrap()).unwrap(), listener.accept().unwrap());
        // One is older than the capture.
        let old = connect();
        let procfs = Arc::new(Procfs::new(Path::new("/proc"), Arguments::Show));
        let driver = Driver::new(Publisher::new(Builder::default(), Limits::default()), procfs.clone(), Telemetry::new());
        let (observations, observed) = mpsc::channel(OBSERVATIONS_MAX);
        let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
        let finish = CancellationToken::new();
        spawn(driver.run(observed, inbox, finish.clone()));
        let way = probe_endpoint::ControlPlane::parse(&control_plane.url(), probe_endpoint::Tls::default()).unwrap();
        let identity = Identity {
            probe_id: "probe".to_owned(),
            host_name: "host".to_owned(),
            session_id: "session".to_owned(),
            cluster_name: String::new(),
        };
        let controls = uplink::Controls::refused(Telemetry::new().metrics().desk());
        spawn(uplink::run(way, identity, controls, inputs.clone(), finish.clone()));
        let ladder = Ladder {
            mode: CaptureMode::Ebpf,
            pin_dir,
            abi_salt: 0,
            pace: orchestrator_probe::budget::Pace::default(),
            kernel_log: false,
            sweep_interval: Duration::from_secs(15),
            dns: orchestrator_probe::dns::Mode::Off,
            current: None,
            telemetry: Telemetry::new(),
            procfs,
            cgroup_root: None,
            unified: orchestrator_probe::capture::mounts(Path::new("/proc")).unified,
            observations,
            inputs,
            started: CancellationToken::new(),
            climbed: Arc::default(),
        };
        let climb = || {
            let stop = CancellationToken::new();
            let (ladder, stopping) = (ladder.clone(), stop.clone());
            let ended = CancellationToken::new();
            let end = ended.clone();
            spawn(async move {
                ladder.run(stopping).await.unwrap();
                end.cancel();
            });
            (ended, stop)
        };
        let (first, stop) = climb();
        told_exactly(&control_plane, port, 1, 0).await;
        let new = connect();
        told_exactly(&control_plane, port, 2, 0).await;
        let ids = |control_plane: &ControlPlane| control_plane.known().flow(CLIENT, port).unwrap().1.id;
        let before = ids(&control_plane);
        stop.cancel();
        first.cancelled().await;
        let (second, stop) = climb();
        control_plane.wait_for("the flow anew", |known| known.flow(CLIENT, port).is_some_and(|(_, flow)| flow.id != before)).await;
        told_exactly(&control_plane, port, 2, 0).await;
        drop((old, new));
        told_exactly(&control_plane, port, 2, 2).await;
        stop.cancel();
        second.cancelled().await;
        finish.cancel();
    }
}
