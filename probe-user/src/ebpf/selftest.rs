//! The trial at start: the probe makes connections, processes and a cgroup of its own, and every hook has to tell of them. A kernel that takes
//! a program and never runs it would otherwise look like a quiet machine.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use probe_common::{CgroupRecord, EdgeKey, EdgeRecord, EdgeValue, ListenerRecord, ProcessRecord, RecordHeader, direction, kind};

use super::place::{CgroupRoot, own_pid};
use super::running::Maps;
use super::{CaptureError, Hook, decode, drain, sys};
use crate::observation::Observation;

mod datagrams;

/// How long a hook has to tell of what was done.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the trial showed.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What the rest of the machine did meanwhile.
    pub(super) earlier: Vec<Observation>,
    /// Connection ends of the trial that the kernel counted as established.
    pub(super) ends_seen: u64,
    /// Whether the pid that the kernel tells of this process is the one that it knows itself by; `None` when nothing was told.
    pub(super) pids_match: Option<bool>,
}

/// Uses every hook once and marks those that said nothing.
pub(super) fn run(hooks: &mut [Hook], maps: &mut Maps, root: &CgroupRoot, proc_root: &Path) -> Result<Outcome, CaptureError> {
    let mut outcome = Outcome::default();
    let mut own = Own::default();
    try_connections(hooks, maps, &mut outcome, &mut own)?;
    datagrams::run(hooks, maps, &mut outcome, &mut own)?;
    if own.pid != 0 {
        outcome.pids_match = Some(own.pid == own_pid(proc_root));
    }
    try_processes(hooks, maps, root, &mut outcome, own.pid)?;
    while let Some(record) = maps.network_ring.next() {
        own.keep_foreign(&record, &mut outcome);
    }
    Ok(outcome)
}

/// What the trial itself did.
#[derive(Debug, Default)]
struct Own {
    /// Ports of its services.
    ports: Vec<u16>,
    /// Cookies of its listeners.
    sockets: Vec<u64>,
    /// The probe's own pid as the kernel tells it; 0 before it has.
    pid: u32,
}

impl Own {
    /// Keeps a record of the network ring, unless the trial itself made it.
    fn keep_foreign(&mut self, record: &[u8], outcome: &mut Outcome) {
        let own = match decode::read::<RecordHeader>(record).map(|header| header.kind) {
            Some(kind::LISTENER_OPENED | kind::LISTENER_CLOSED) => decode::read::<ListenerRecord>(record).is_some_and(|record| {
                if self.ports.contains(&record.port) && record.tgid == self.pid {
                    self.sockets.push(record.cookie);
                }
                self.sockets.contains(&record.cookie)
            }),
            _ => decode::read::<EdgeRecord>(record).is_some_and(|record| self.ports.contains(&record.key.server_port)),
        };
        if !own {
            decode::record(record, &mut outcome.earlier);
        }
    }
}

fn try_connections(hooks: &mut [Hook], maps: &Maps, outcome: &mut Outcome, own: &mut Own) -> Result<(), CaptureError> {
    let loopbacks =
        [(IpAddr::V4(Ipv4Addr::LOCALHOST), "connect4", "post_bind4"), (IpAddr::V6(Ipv6Addr::LOCALHOST), "connect6", "post_bind6")];
    let mut seen_any = false;
    let mut tried_any = false;
    for (address, connect, bind) in loopbacks {
        // A machine without this protocol has nothing to try.
        let Ok(port) = connect_to_self(address) else { continue };
        tried_any = true;
        own.ports.push(port);
        let ends = wait_for_ends(maps, port)?;
        for (key, value) in &ends {
            seen_any = true;
            outcome.ends_seen += u64::from(value.opened);
            let hook = if key.direction == direction::CLIENT { connect } else { bind };
            if key.tgid == 0 {
                fail(hooks, hook, "the probe's own connection had no owner");
            } else {
                own.pid = key.tgid;
            }
            sys::lookup_and_delete::<EdgeKey, EdgeValue>(maps.edges.fd().as_fd(), key)?;
        }
        for (wanted, hook) in [(direction::CLIENT, connect), (direction::SERVER, bind)] {
            if !ends.iter().any(|(key, _)| key.direction == wanted) {
                fail(hooks, hook, "the probe's own connection was not seen");
            }
        }
    }
    if tried_any && !seen_any {
        return Err(CaptureError::Connections("it was attached and did not see the probe's own connection".to_owned()));
    }
    Ok(())
}

/// Opens and ends one connection on the loopback interface; the port of its server.
fn connect_to_self(address: IpAddr) -> io::Result<u16> {
    let listener = TcpListener::bind((address, 0))?;
    let port = listener.local_addr()?.port();
    let mut client = TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE)?;
    let (server, _) = listener.accept()?;
    client.write_all(&[0])?;
    drop(server);
    drop(client);
    Ok(port)
}

fn wait_for_ends(maps: &Maps, port: u16) -> io::Result<Vec<(EdgeKey, EdgeValue)>> {
    let began = Instant::now();
    loop {
        let mut ends = Vec::new();
        drain::each_edge(maps.edges.fd().as_fd(), |key, value| {
            if key.server_port == port {
                ends.push((*key, *value));
            }
        })?;
        let closed = ends.len() == 2 && ends.iter().all(|(_, value)| value.closed == value.opened);
        if closed || began.elapsed() > PATIENCE {
            return Ok(ends);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Which of the process hooks have spoken.
#[derive(Default)]
struct Spoken {
    fork: bool,
    exec: bool,
    exit: bool,
    mkdir: bool,
    rmdir: bool,
}

impl Spoken {
    fn everything(&self) -> bool {
        self.fork && self.exec && self.exit && self.mkdir && self.rmdir
    }
}

fn try_processes(hooks: &mut [Hook], maps: &mut Maps, root: &CgroupRoot, outcome: &mut Outcome, own: u32) -> Result<(), CaptureError> {
    let Some(ring) = &mut maps.process_ring else { return Ok(()) };
    let child = run_nothing();
    let cgroup_name = format!("orchestrator-probe-trial-{}", std::process::id());
    let cgroup_made = make_and_remove_cgroup(root, &cgroup_name);
    let mut spoken = Spoken::default();
    let began = Instant::now();
    loop {
        while let Some(record) = ring.next() {
            if !is_own(&record, child.as_ref().ok().copied(), own, &cgroup_name, &mut spoken) {
                decode::record(&record, &mut outcome.earlier);
            }
        }
        if spoken.everything() || began.elapsed() > PATIENCE {
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    if child.is_ok() {
        for (name, spoke) in [("process_fork", spoken.fork), ("process_exec", spoken.exec), ("process_exit", spoken.exit)] {
            if !spoke {
                fail(hooks, name, "the probe's own child was not seen");
            }
        }
    }
    if cgroup_made.is_ok() {
        for (name, spoke) in [("cgroup_mkdir", spoken.mkdir), ("cgroup_rmdir", spoken.rmdir)] {
            if !spoke {
                fail(hooks, name, "the probe's own cgroup was not seen");
            }
        }
    }
    Ok(())
}

/// Whether a record tells of the trial, and if so of which part.
fn is_own(record: &[u8], child: Option<u32>, own: u32, cgroup_name: &str, spoken: &mut Spoken) -> bool {
    let kind_of = decode::read::<RecordHeader>(record).map_or(0, |header| header.kind);
    // By its parent as well: a probe in a pid namespace of its own knows the child by another pid than the kernel tells.
    let is_child = || {
        let record = decode::read::<ProcessRecord>(record);
        child.is_some() && record.is_some_and(|record| Some(record.tgid) == child || own != 0 && record.parent_tgid == own)
    };
    let is_cgroup = || {
        decode::read::<CgroupRecord>(record)
            .is_some_and(|record| record.path[..record.path.len().min(record.path_length as usize)].ends_with(cgroup_name.as_bytes()))
    };
    let (own, spoke) = match kind_of {
        kind::FORK => (is_child(), &mut spoken.fork),
        kind::EXEC => (is_child(), &mut spoken.exec),
        kind::EXIT => (is_child(), &mut spoken.exit),
        kind::CGROUP_CREATE => (is_cgroup(), &mut spoken.mkdir),
        kind::CGROUP_REMOVE => (is_cgroup(), &mut spoken.rmdir),
        _ => return false,
    };
    *spoke |= own;
    own
}

/// Runs a program that ends at once; its pid. The program is made here, because a probe's container may have none.
fn run_nothing() -> io::Result<u32> {
    let file = nix::sys::memfd::memfd_create(c"nothing", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(&nothing_program())?;
    // Executing a file that is open for writing is refused, so it is opened again.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let readable = File::open(&path)?;
    drop(file);
    let mut child = Command::new(format!("/proc/self/fd/{}", readable.as_raw_fd())).spawn()?;
    let pid = child.id();
    child.wait()?;
    Ok(pid)
}

/// A whole ELF program: `exit(0)`.
fn nothing_program() -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    const MACHINE: (u16, &[u8]) = (62, &[0x31, 0xff, 0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05]);
    #[cfg(target_arch = "aarch64")]
    const MACHINE: (u16, &[u8]) = (183, &[0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4]);
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let (machine, code) = MACHINE;
    let size = HEADERS + code.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |elf: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|value| elf.extend(value.to_le_bytes()));
    let word = |elf: &mut Vec<u8>, value: u32| elf.extend(value.to_le_bytes());
    let long = |elf: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|value| elf.extend(value.to_le_bytes()));
    half(&mut elf, &[2, machine]);
    word(&mut elf, 1);
    long(&mut elf, &[BASE + HEADERS, 64, 0]);
    word(&mut elf, 0);
    half(&mut elf, &[64, 56, 1, 0, 0, 0]);
    // One segment: everything, readable and executable.
    word(&mut elf, 1);
    word(&mut elf, 5);
    long(&mut elf, &[0, BASE, BASE, size, size, 0x1000]);
    elf.extend(code);
    elf
}

fn make_and_remove_cgroup(root: &CgroupRoot, name: &str) -> nix::Result<()> {
    nix::sys::stat::mkdirat(&root.directory, name, nix::sys::stat::Mode::S_IRWXU)?;
    nix::unistd::unlinkat(&root.directory, name, nix::unistd::UnlinkatFlags::RemoveDir)
}

fn fail(hooks: &mut [Hook], name: &str, error: &str) {
    for hook in hooks.iter_mut().filter(|hook| hook.name == name && hook.attached) {
        hook.attached = false;
        error.clone_into(&mut hook.error);
    }
}
