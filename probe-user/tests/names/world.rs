//! A network namespace, cgroups in which processes ask and answer, and a probe that watches.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::answers;
use crate::support::ControlPlane;

const ROLE: &str = "NAMES_TEST_ROLE";

/// A network namespace with a loopback interface, and a directory of cgroups.
pub(crate) struct World {
    name: String,
    cgroup: PathBuf,
}

impl World {
    pub(crate) fn new(purpose: &str) -> Self {
        let name = format!("names-{purpose}-{}", std::process::id());
        let world = World { cgroup: cgroup_root().join(&name), name };
        ip(&["netns", "add", &world.name]);
        world.ip(&["link", "set", "lo", "up"]);
        fs::create_dir_all(&world.cgroup).unwrap();
        world
    }

    /// `ip` in the namespace.
    fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.name], arguments].concat());
    }

    /// A process that answers on port 53 of these addresses.
    pub(crate) fn serve(&self, cgroup: &str, addresses: &[&str]) -> Role {
        self.start(cgroup, &format!("serve {}", addresses.join(" ")))
    }

    /// A machine elsewhere, with a server, behind an interface of the namespace.
    pub(crate) fn serve_outside(&self, own: &str) -> Role {
        let outside = self.start("outside", "outside");
        self.ip(&["addr", "add", own, "dev", "outside"]);
        self.ip(&["link", "set", "outside", "up"]);
        outside
    }

    /// A process that asks so many times, and gets its answers.
    pub(crate) fn ask(&self, cgroup: &str, server: &str, name: &str, kind: &str, times: u32) {
        let mut role = self.start(cgroup, &format!("ask {server} {name} {kind} {times}"));
        assert!(role.process.wait().unwrap().success(), "no answer from {server} for {name}");
    }

    /// Any command in the namespace, with this server in its `/etc/resolv.conf`.
    pub(crate) fn run_with_resolver(&self, cgroup: &str, server: &str, command: &[&str]) -> String {
        let directory = PathBuf::from("/etc/netns").join(&self.name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("resolv.conf"), format!("nameserver {server}\noptions timeout:2\n")).unwrap();
        let output = self.command(cgroup).args(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn cgroup(&self, name: &str) -> PathBuf {
        let cgroup = self.cgroup.join(name);
        fs::create_dir_all(&cgroup).unwrap();
        cgroup
    }

    /// A command line that goes on in the namespace, in a cgroup. (`ip` takes the mounts of cgroups away, so the cgroup comes first.)
    fn command(&self, cgroup: &str) -> Command {
        let cgroup = self.cgroup(cgroup).join("cgroup.procs");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo $$ > {} && exec \"$@\"", cgroup.display()), "sh", "ip", "netns", "exec", &self.name]);
        command
    }

    fn start(&self, cgroup: &str, role: &str) -> Role {
        let mut process = self
            .command(cgroup)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "role", "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "{role} did not begin");
        }
        Role { process, _output: output }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        let _ = fs::remove_dir_all(PathBuf::from("/etc/netns").join(&self.name));
        // Processes that were told to end are on their way.
        for _ in 0..100 {
            let below = fs::read_dir(&self.cgroup).into_iter().flatten().flatten();
            below.filter(|entry| entry.path().is_dir()).for_each(|entry| drop(fs::remove_dir(entry.path())));
            if fs::remove_dir(&self.cgroup).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A process of the world; it ends with this.
pub(crate) struct Role {
    process: Child,
    // Kept open until its end: it still has its test's result to write.
    _output: BufReader<std::process::ChildStdout>,
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The other side of [`World::start`].
pub(crate) fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["serve", ref addresses @ ..] => {
            for address in addresses {
                let socket = UdpSocket::bind((address.parse::<IpAddr>().unwrap(), 53)).unwrap();
                std::thread::spawn(move || serve(&socket));
            }
            ready();
            wait_for_end();
        }
        ["outside"] => {
            let mut device = open_tun("outside");
            std::thread::spawn(move || serve_packets(&mut device));
            ready();
            wait_for_end();
        }
        ["ask", server, name, kind, times] => {
            ready();
            for id in 0..times.parse().unwrap() {
                std::thread::sleep(Duration::from_millis(if id == 0 { 0 } else { 500 }));
                let server: IpAddr = server.parse().unwrap();
                let local: IpAddr = if server.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
                let socket = UdpSocket::bind((local, 0)).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let question = answers::question(id, name, kind);
                if name.starts_with("forged") {
                    // A connected socket takes datagrams of its peer alone.
                    socket.send_to(&question, (server, 53)).unwrap();
                } else {
                    socket.connect((server, 53)).unwrap();
                    socket.send(&question).unwrap();
                }
                let mut answer = [0; 1_500];
                let length = socket.recv(&mut answer).unwrap();
                if !name.starts_with("forged") {
                    assert_eq!(answer[..2], id.to_be_bytes(), "{length}");
                }
            }
        }
        _ => panic!("no such role: {role}"),
    }
}

#[expect(clippy::print_stdout, reason = "how the test learns that it may go on")]
fn ready() {
    println!("ready");
    std::io::stdout().flush().unwrap();
}

fn wait_for_end() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn serve(socket: &UdpSocket) {
    let mut question = [0; 1_500];
    while let Ok((length, client)) = socket.recv_from(&mut question) {
        let _ = socket.send_to(&answers::to(&question[..length]), client);
    }
}

/// Answers questions as packets: no socket of this machine is a server here. The name `forged.…` makes it answer from another address as well.
fn serve_packets(device: &mut File) {
    let mut packet = [0; 1_500];
    while let Ok(length) = device.read(&mut packet) {
        let packet = &packet[..length];
        // IPv4 without options, UDP, to port 53.
        if length < 40 || packet[0] != 0x45 || packet[9] != 17 || packet[22..24] != 53_u16.to_be_bytes() {
            continue;
        }
        let (client, server, client_port) = (&packet[12..16], &packet[16..20], &packet[20..22]);
        let question = &packet[28..];
        if question[13..].starts_with(b"forged") {
            // It says n66, which is what it would be.
            let forged = answers::to(&answers::question(0, "n66.bank.example", "A"));
            device.write_all(&datagram(&[198, 51, 100, 66], client, client_port, &forged)).unwrap();
        }
        device.write_all(&datagram(server, client, client_port, &answers::to(question))).unwrap();
    }
}

fn datagram(source: &[u8], destination: &[u8], port: &[u8], message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len() + 8).unwrap();
    let mut header = [&[0x45, 0][..], &(length + 20).to_be_bytes(), &[0, 0, 0, 0, 64, 17, 0, 0], source, destination].concat();
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    // No checksum: over IPv4 it may be left out.
    [&header[..], &53_u16.to_be_bytes(), port, &length.to_be_bytes(), &[0, 0], message].concat()
}

#[expect(unsafe_code, reason = "no crate of ours makes such devices")]
fn open_tun(name: &str) -> File {
    use std::os::fd::AsRawFd as _;

    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const IFF_TUN: u16 = 1;
    const IFF_NO_PI: u16 = 0x1000;
    let device = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&(IFF_TUN | IFF_NO_PI).to_ne_bytes());
    // SAFETY: the kernel reads and writes one `struct ifreq`, which is 40 bytes.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF as _, request.as_mut_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    device
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn cgroup_root() -> PathBuf {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.join("cgroup.procs").exists() && fs::metadata(path).is_ok_and(|metadata| metadata.ino() == 1))
        .unwrap()
}

/// The whole probe.
pub(crate) struct Probe {
    process: Child,
    log: tempfile::NamedTempFile,
    /// Names that other probes knew are none of its own.
    _state: tempfile::TempDir,
}

impl Probe {
    pub(crate) fn start(control_plane: &ControlPlane, arguments: &[&str]) -> Self {
        let (log, state) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
        let process = Command::new(env!("CARGO_BIN_EXE_orchestrator-probe"))
            .args(["--control-plane", &control_plane.url(), "--admin-address", "off", "--probe-id", "test", "--host-name", "here"])
            .args([
                "--no-docker",
                "--capture",
                "ebpf",
                "--log-filter",
                "info,orchestrator_probe::ebpf::dns=debug,orchestrator_probe::dns=debug",
            ])
            .args(["--state-dir", state.path().to_str().unwrap()])
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        Probe { process, log, _state: state }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// Makes it read its configuration again.
    pub(crate) fn reload(&self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    }

    /// Ends it; whether it ended well.
    pub(crate) fn stop(&mut self) -> bool {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let begun = Instant::now();
        self.process.wait().unwrap().success() && begun.elapsed() < Duration::from_secs(5)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            print(&self.log());
        }
    }
}

#[expect(clippy::print_stderr, reason = "shown when a test fails")]
fn print(log: &str) {
    eprintln!("{log}");
}
