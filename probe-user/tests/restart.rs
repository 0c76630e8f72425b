//! The probe is killed, upgraded and started again while the machine goes on: the kernel programs stay, and nothing is counted twice or not at all.
//!
//! Needs root and a build with kernel programs; see `support::missing`.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{ControlPlane, is_root, missing};

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
                let due = begun.elapsed().as_millis() as u64;
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
        assert!(begun.elapsed() < Duration::from_secs(10), "made {opened}, ended {closed}, told {counts:?} by {own}");
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
    let second = Probe::start(&control_plane, &[&["--pin-dir", pin_dir], second].concat());
    second.says("taken_over=true").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
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
    assert_eq!(losses.ends_seen, losses.ends_reported, "{losses:?}");
    // And once more: what was taken over once is not lost the second time.
    second.kill();
    let third = Probe::start(&control_plane, &["--pin-dir", pin_dir]);
    third.says("taken_over=true").await;
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
