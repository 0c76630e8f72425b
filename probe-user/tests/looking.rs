//! What was there before the probe: found fast, whole, and given to its holders.
//!
//! Needs root and a build with kernel programs; see `support::missing`.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator_probe::ebpf::{Capture, Config, Looker, Running, Statistics};
use orchestrator_probe::procfs::{Arguments, Procfs};
use orchestrator_probe::snapshot::{self, Sockets};
use orchestrator_probe::sockets::{ROUND_MAX, Rounds, States, namespaces};
use support::{ControlPlane, is_root, missing};

mod support;

/// Processes that wait, and end with the test.
struct Waiting(Vec<Child>);

impl Waiting {
    fn start(count: usize, command: &[&str]) -> Self {
        let start = |_| Command::new(command[0]).args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        Waiting((0..count).map(start).collect())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|child| drop(child.kill()));
        self.0.iter_mut().for_each(|child| drop(child.wait()));
    }
}

fn looker() -> (Looker, Running) {
    let (running, _receiver) = Capture::start(&Config::default()).unwrap();
    (running.looker(), running)
}

/// Time that the kernel has spent in the programs of looks.
fn kernel_time(running: &Running) -> Duration {
    let statistics = running.statistics().unwrap();
    statistics.iter().filter(|it| ["files", "tasks"].contains(&it.name.as_str())).map(|it| it.run_time).sum()
}

fn allow_descriptors(count: u64) {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, count.min(hard), hard).unwrap();
}

fn pairs(listener: &TcpListener, count: usize) -> Vec<(TcpStream, TcpStream)> {
    let address = listener.local_addr().unwrap();
    (0..count).map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0)).collect()
}

/// The fastest of a few: the machine does other things, too.
fn fastest<T>(mut work: impl FnMut() -> T) -> (Duration, T) {
    let timed = |work: &mut dyn FnMut() -> T| {
        let begun = Instant::now();
        let value = work();
        (begun.elapsed(), value)
    };
    let mut best = timed(&mut work);
    for _ in 0..4 {
        let next = timed(&mut work);
        if next.0 < best.0 {
            best = next;
        }
    }
    best
}

#[test]
fn five_thousand_descriptors_and_seventeen_hundred_tasks_are_looked_at_in_fifty_milliseconds() {
    if !is_root() {
        return missing("root");
    }
    allow_descriptors(20_000);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let _pairs = pairs(&listener, 2_500);
    let waiting = Waiting::start(1_700, &["sleep", "600"]);
    let (looker, running) = looker();
    let procfs = Arc::new(Procfs::new(std::path::Path::new("/proc"), Arguments::Show));

    let (sockets_took, sockets) = fastest(|| looker.sockets().unwrap().unwrap());
    let (tasks_took, tasks) = fastest(|| looker.processes().unwrap().unwrap());
    let measuring = Statistics::enable().unwrap();
    let before = kernel_time(&running);
    drop((looker.sockets(), looker.processes()));
    let in_kernel = kernel_time(&running) - before;
    drop(measuring);
    let (proc_sockets_took, by_proc) = fastest(|| Sockets::read(&procfs).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (proc_tasks_took, _) = fastest(|| runtime.block_on(snapshot::processes(&procfs)).unwrap());
    eprintln!(
        "{} sockets: iterator {sockets_took:?}, sock_diag and /proc {proc_sockets_took:?}; {} processes: iterator {tasks_took:?}, /proc {proc_tasks_took:?}; \
         of it in the programs {in_kernel:?}",
        sockets.tables.iter().map(|table| table.sockets.len()).sum::<usize>(),
        tasks.len(),
    );
    assert!(in_kernel < Duration::from_millis(50), "{in_kernel:?} in the kernel");
    // What comes out of the kernel is taken apart by code that is not optimised here.
    let most = Duration::from_millis(if cfg!(debug_assertions) { 300 } else { 50 });
    assert!(sockets_took + tasks_took < most, "{sockets_took:?} and {tasks_took:?}");

    // All are there, as the other way has them.
    let of_this_test = |sockets: &Sockets| {
        let sockets_of = |table: &orchestrator_probe::sockets::SocketTable| {
            table.sockets.iter().map(|it| (it.local, it.remote, it.state, it.inode)).collect::<Vec<_>>()
        };
        let all = sockets.tables.iter().flat_map(sockets_of);
        all.filter(|(local, remote, ..)| local.1 == port || remote.1 == port).collect::<BTreeSet<_>>()
    };
    assert_eq!(of_this_test(&sockets).len(), 5_001);
    assert_eq!(of_this_test(&sockets), of_this_test(&by_proc));
    assert_eq!(sockets.listeners().filter(|seed| seed.pid == std::process::id()).count(), 1);
    for child in &waiting.0 {
        let told = tasks.iter().find(|task| task.pid == child.id()).unwrap();
        let read = procfs.details(child.id()).unwrap();
        assert_eq!((told.start_time, told.parent_pid, told.user_id), (Some(read.start_time), std::process::id(), 0));
        assert!(["sleep", &read.comm].contains(&told.comm.as_str()), "{told:?}");
    }
}

#[test]
fn a_thousand_network_namespaces_take_one_look_and_bounded_rounds() {
    if !is_root() {
        return missing("root");
    }
    const COUNT: usize = 1_000;
    let waiting = Waiting::start(COUNT, &["unshare", "-n", "busybox", "nc", "-l", "-p", "4711"]);
    let procfs = Procfs::new(std::path::Path::new("/proc"), Arguments::Show);
    let (looker, _running) = looker();
    let found = || {
        let sockets = looker.sockets().unwrap().unwrap();
        let begun = Instant::now();
        let again = looker.sockets().unwrap().unwrap();
        let listening = again.tables.iter().filter(|table| table.sockets.iter().any(|it| it.is_listener() && it.local.1 == 4_711)).count();
        (begun.elapsed(), listening, sockets)
    };
    let begun = Instant::now();
    while found().1 < COUNT {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of {COUNT} listen", found().1);
        std::thread::sleep(Duration::from_millis(100));
    }
    let (took, _, sockets) = found();
    // Every holder is right, though all of them have the same address.
    let holders: BTreeSet<u32> = sockets.listeners().map(|seed| seed.pid).collect();
    assert!(waiting.0.iter().all(|child| holders.contains(&child.id())));

    let mut pids = procfs.pids().unwrap();
    pids.sort_unstable();
    let namespaces = namespaces(&procfs, &pids);
    assert!(namespaces.len() > COUNT);
    let (mut rounds, mut read, mut longest, mut count) = (Rounds::default(), BTreeSet::new(), Duration::ZERO, 0);
    while read.len() < namespaces.len() && count < 1_000 {
        let begun = Instant::now();
        let tables = rounds.dump(&procfs, &namespaces, States::LISTENING, ROUND_MAX / 10).unwrap();
        longest = longest.max(begun.elapsed());
        assert_eq!(tables.len(), namespaces.len(), "what was not read is named");
        read.extend(tables.iter().filter(|table| !table.unread).map(|table| table.inode));
        count += 1;
    }
    eprintln!("{} namespaces: iterator {took:?}; sock_diag {count} rounds, the longest {longest:?}", namespaces.len());
    assert_eq!(read.len(), namespaces.len(), "each has its turn");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

/// What a process has used: a machine that does other things does not count against it.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11).take(2);
    Duration::from_millis(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_older_than_the_probe_have_their_processes_within_a_second() {
    if !is_root() {
        return missing("root");
    }
    const COUNT: usize = 300;
    // Each connection has a server address of its own, so that each is a flow of its own.
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let target =
        |number: usize| IpAddr::V4(Ipv4Addr::new(127, 1, u8::try_from(number / 250).unwrap(), u8::try_from(number % 250 + 1).unwrap()));
    let _open: Vec<_> =
        (0..COUNT).map(|number| (TcpStream::connect((target(number), port)).unwrap(), listener.accept().unwrap())).collect();
    let control_plane = ControlPlane::start().await;
    let mut probe = Command::new(env!("CARGO_BIN_EXE_orchestrator-probe"))
        .args(["--control-plane", &control_plane.url(), "--admin-address", "off", "--no-docker", "--capture", "ebpf"])
        .env_clear()
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (begun, pid) = (Instant::now(), probe.id());
    let attributed = || {
        let known = control_plane.known();
        let mine = known.flows.values().filter_map(|flow| flow.key.as_ref()).filter(|key| key.server_port == u32::from(port));
        mine.filter(|key| key.process.as_ref().is_some_and(|process| process.pid == std::process::id())).count()
    };
    // Reading the kernel's types takes code that is not optimised most of a second, on a machine that does other things.
    let within = Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 1 });
    let mut in_time = None;
    while attributed() < 2 * COUNT && begun.elapsed() < Duration::from_secs(60) {
        if in_time.is_none() && begun.elapsed() > within && cpu_time(pid) > within {
            in_time = Some(attributed());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = begun.elapsed();
    probe.kill().unwrap();
    probe.wait().unwrap();
    let in_time = in_time.unwrap_or(2 * COUNT);
    eprintln!("{} ends older than the probe: {in_time} attributed after {within:?}, all after {took:?}", 2 * COUNT);
    assert!(in_time * 100 >= 2 * COUNT * 99, "{in_time} of {} after {within:?}", 2 * COUNT);
}
