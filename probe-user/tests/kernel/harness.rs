//! What the kernel tests share: a capture with its observations, and processes that do one thing.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use orchestrator_probe::ebpf::{Capture, Config, Running};
use orchestrator_probe::observation::{BootNanos, Counted, Direction, FlowEnd, LossTotals, Observation, Protocol};
use tokio::sync::mpsc::Receiver;

/// How long something may take to be observed on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many times slower than a real one the machine is: an emulated one says so.
pub(crate) fn slowness() -> u32 {
    std::env::var("ORCHESTRATOR_TEST_SLOWNESS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Ends the test when it is not run as root; in CI that is a failure.
macro_rules! needs_root {
    () => {
        if !nix::unistd::geteuid().is_root() {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "kernel tests need root");
            eprintln!("not root: nothing was tested");
            return;
        }
    };
}
pub(crate) use needs_root;

/// A capture for tests: as in production, with a sweep that does not take long to come.
pub(crate) fn config() -> Config {
    Config { sweep_interval: Duration::from_millis(50), ..Config::default() }
}

/// A running capture and all that it has told.
pub(crate) struct Watch {
    pub(crate) running: Running,
    receiver: Receiver<Vec<Observation>>,
    pub(crate) seen: Vec<Observation>,
}

/// Flows and events of processes that a failure tells of.
const TOLD: usize = 20;

impl Watch {
    pub(crate) fn start(config: &Config) -> Self {
        Watch::start_after(config, || {})
    }

    /// The same, and does something when owners are noted and nothing is counted yet.
    pub(crate) fn start_after(config: &Config, before_connections: impl FnOnce()) -> Self {
        let (running, receiver) = Capture::start_after(config, |_, _| before_connections()).expect("capture");
        Watch { running, receiver, seen: Vec::new() }
    }

    /// Takes what has come.
    pub(crate) fn take(&mut self) {
        while let Ok(batch) = self.receiver.try_recv() {
            self.seen.extend(batch);
        }
    }

    /// Waits until something has been observed.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, holds: impl FnMut(&Self) -> bool) {
        self.until_within(PATIENCE, what, holds);
    }

    /// The same, for what takes long by itself.
    #[track_caller]
    pub(crate) fn until_within(&mut self, patience: Duration, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let patience = patience * slowness();
        let began = Instant::now();
        loop {
            self.take();
            if holds(self) {
                return;
            }
            assert!(began.elapsed() < patience, "not observed: {what}; {}", self.story());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn story(&self) -> String {
        let is_of_a_process = |it: &&Observation| matches!(it, Observation::ProcessStarted(_) | Observation::ProcessExited { .. });
        let processes: Vec<_> = self.seen.iter().filter(is_of_a_process).collect();
        let rest = processes.len().saturating_sub(TOLD);
        let flows: Vec<_> = self.totals().into_iter().take(TOLD).collect();
        format!("{flows:#?}\n{:#?}\n{:?}", &processes[rest..], self.losses())
    }

    /// Stops the capture, and takes what that brought.
    pub(crate) fn stop(self) -> Stopped {
        let Watch { running, mut receiver, mut seen } = self;
        running.stop();
        while let Ok(batch) = receiver.try_recv() {
            seen.extend(batch);
        }
        Stopped { seen }
    }

    fn totals(&self) -> BTreeMap<FlowEnd, Counted> {
        totals(&self.seen)
    }

    /// Flows of a service, with their totals.
    pub(crate) fn flows(&self, port: u16, direction: Direction) -> Vec<(FlowEnd, Counted)> {
        self.totals().into_iter().filter(|(end, _)| end.server_port == port && end.direction == direction).collect()
    }

    /// Totals over all flows of a service.
    pub(crate) fn total(&self, port: u16, direction: Direction) -> Counted {
        total(&self.seen, port, direction)
    }

    pub(crate) fn losses(&self) -> LossTotals {
        self.seen
            .iter()
            .rev()
            .find_map(|it| if let Observation::Lost(losses) = it { Some(losses.clone()) } else { None })
            .unwrap_or_default()
    }

    /// The kernel's own count agrees with what was delivered.
    #[track_caller]
    pub(crate) fn lost_nothing(&mut self) {
        self.until("complete losses", |watch| {
            let losses = watch.losses();
            losses.ends_seen > 0 && losses.ends_seen == losses.ends_counted || watch.seen.iter().all(|it| !opens(it))
        });
        let losses = self.losses();
        // Servers of others on this machine are older than the programs, and nobody tells these of them here.
        let LossTotals { ends_seen, ends_counted, unowned_clients, unowned_servers, .. } = losses;
        let none = LossTotals { ends_seen, ends_counted, unowned_clients, unowned_servers, ..LossTotals::default() };
        assert_eq!(losses, none);
    }

    /// Time spent in the programs that see connections.
    pub(crate) fn cost(&self) -> Duration {
        let statistics = self.running.statistics().expect("statistics");
        statistics
            .iter()
            .filter(|program| ["tcp", "tcp_plain", "connect4", "connect6", "post_bind4", "post_bind6"].contains(&program.name.as_str()))
            .map(|program| program.run_time)
            .sum()
    }
}

/// What a capture told until its end.
pub(crate) struct Stopped {
    seen: Vec<Observation>,
}

impl Stopped {
    pub(crate) fn total(&self, port: u16, direction: Direction) -> Counted {
        total(&self.seen, port, direction)
    }
}

fn opens(observation: &Observation) -> bool {
    // The kernel counts ends of TCP alone.
    matches!(observation, Observation::FlowCounted { end, delta, .. } if delta.opened > 0 && end.protocol == Protocol::Tcp)
}

fn totals(seen: &[Observation]) -> BTreeMap<FlowEnd, Counted> {
    let mut totals = BTreeMap::<FlowEnd, Counted>::new();
    for observation in seen {
        if let Observation::FlowCounted { end, delta, .. } = observation {
            add(totals.entry(*end).or_default(), delta);
        }
    }
    totals
}

fn total(seen: &[Observation], port: u16, direction: Direction) -> Counted {
    let mut sum = Counted::default();
    for (end, counted) in totals(seen) {
        if end.server_port == port && end.direction == direction {
            add(&mut sum, &counted);
        }
    }
    sum
}

fn add(sum: &mut Counted, delta: &Counted) {
    sum.opened += delta.opened;
    sum.closed += delta.closed;
    sum.failed += delta.failed;
    sum.bytes_sent += delta.bytes_sent;
    sum.bytes_received += delta.bytes_received;
    sum.retransmits += delta.retransmits;
    sum.rtt_us_sum += delta.rtt_us_sum;
    sum.rtt_count += delta.rtt_count;
    sum.rtt_us_max = sum.rtt_us_max.max(delta.rtt_us_max);
}

/// Whether an end belongs to this incarnation of a process.
pub(crate) fn with_owner(end: &FlowEnd, pid: u32) -> bool {
    end.pid == pid && end.start_time == Some(start_time(pid)) && end.cgroup_id != 0 && end.network_namespace != 0
}

/// Start of a process as `/proc` tells it.
pub(crate) fn start_time(pid: u32) -> BootNanos {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let ticks: u64 = stat.rsplit_once(") ").expect("fields").1.split(' ').nth(19).expect("field 22").parse().expect("a number");
    BootNanos(ticks * 10_000_000)
}

/// Where the cgroup2 hierarchy is mounted.
pub(crate) fn cgroup_root() -> PathBuf {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.join("cgroup.procs").exists() && std::fs::metadata(path).is_ok_and(|metadata| metadata.ino() == 1))
        .expect("a cgroup2 hierarchy")
}

const ROLE: &str = "KERNEL_TEST_CHILD";

/// A process of its own that runs [`child`].
pub(crate) struct Child {
    process: std::process::Child,
    // Kept open until its end: it still has its test's result to write.
    output: BufReader<std::process::ChildStdout>,
}

impl Child {
    /// Listens on a port of its own choice and reads whatever comes, until its standard input ends.
    pub(crate) fn serve() -> Self {
        Self::start("serve")
    }

    /// The same, in a cgroup.
    pub(crate) fn serve_in(cgroup: &Path) -> Self {
        Self::start(&format!("serve {}", cgroup.display()))
    }

    /// Connects once and exits; its pid.
    pub(crate) fn connect_and_exit(port: u16) -> u32 {
        Self::run(&format!("connect {port}"))
    }

    /// Sends one datagram and exits; its pid.
    pub(crate) fn send_and_exit(port: u16) -> u32 {
        Self::run(&format!("send {port}"))
    }

    /// Sends one datagram over a socket of this process and exits; its pid.
    pub(crate) fn send_over(socket: &UdpSocket, port: u16) -> u32 {
        // A copy that the child inherits.
        let copy = nix::unistd::dup(socket).expect("a copy");
        let pid = Self::run(&format!("send-over {} {port}", copy.as_raw_fd()));
        drop(copy);
        pid
    }

    /// Takes memory in a cgroup until it is ended for it; its pid and start.
    pub(crate) fn devour_in(cgroup: &Path) -> (u32, BootNanos) {
        let mut child = Self::start(&format!("devour {}", cgroup.display()));
        let start = start_time(child.pid());
        // Its standard input is what it waits for, so that it lives long enough to be looked at.
        drop(child.process.stdin.take());
        child.output.read_to_end(&mut Vec::new()).expect("its output");
        assert!(!child.process.wait().expect("its end").success());
        (child.pid(), start)
    }

    fn run(role: &str) -> u32 {
        let mut child = Self::start(role);
        child.output.read_to_end(&mut Vec::new()).expect("its output");
        assert!(child.process.wait().expect("its end").success());
        child.pid()
    }

    fn start(role: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child", "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        Child { process, output }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The port it listens on.
    pub(crate) fn port(&mut self) -> u16 {
        (&mut self.output)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("port ").and_then(|(_, port)| port.parse().ok()))
            .expect("a port")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.output.read_to_end(&mut Vec::new());
        let _ = self.process.wait();
    }
}

/// The other side of [`Child`].
pub(crate) fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.split_once(' ') {
        Some(("connect", port)) => {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().expect("a port"))).expect("connect");
        }
        Some(("send", port)) => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
            socket.send_to(&[0], (Ipv4Addr::LOCALHOST, port.parse().expect("a port"))).expect("send");
        }
        Some(("send-over", both)) => {
            let (descriptor, port) = both.split_once(' ').expect("a descriptor and a port");
            let address = nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, port.parse().expect("a port"));
            let flags = nix::sys::socket::MsgFlags::empty();
            nix::sys::socket::sendto(descriptor.parse().expect("a descriptor"), &[0], &address, flags).expect("send");
        }
        Some(("devour", cgroup)) => {
            std::fs::write(Path::new(cgroup).join("cgroup.procs"), "0").expect("moved");
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let mut kept = Vec::new();
            loop {
                kept.push(vec![1_u8; 1 << 20]);
            }
        }
        Some(("serve", cgroup)) => {
            std::fs::write(Path::new(cgroup).join("cgroup.procs"), "0").expect("moved");
            serve();
        }
        _ => serve(),
    }
}

#[expect(clippy::print_stdout, reason = "how the parent learns the port")]
fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    println!("port {}", listener.local_addr().expect("address").port());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    let _ = std::io::stdout().flush();
}
