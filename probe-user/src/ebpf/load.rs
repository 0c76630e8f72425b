//! Loading and attaching. Each program is tried by itself: what a kernel refuses is named, and the rest runs.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya::maps::Map;
use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, Iter, Program, ProgramError, ProgramFd, RawTracePoint, SockOps};
use aya::{Btf, Ebpf, EbpfLoader, GlobalData};
use aya_log::EbpfLogger;
use probe_common::{ABI_VERSION, Settings, setting};

use super::kernel_log::KernelLog;
use super::objects::Objects;
use super::offsets::{self, Offsets};
use super::place::{CgroupRoot, Rights};
use super::running::missing;
use super::{CaptureError, Config, Hook, Names, Seeder, btf, dns};
use crate::sockets as socket_tables;

/// Pass log lines of the programs on.
pub(super) type Loggers = Vec<EbpfLogger<KernelLog>>;

/// All objects, loaded; dropping them detaches everything.
pub(super) struct Loaded {
    pub(super) seeder: Seeder,
    pub(super) sockets: Ebpf,
    /// `None` when the object was refused as a whole.
    pub(super) processes: Option<Ebpf>,
    /// `None` when nobody wants names, or the object was refused.
    pub(super) dns: Option<dns::Programs>,
    pub(super) names: Names,
    pub(super) hooks: Vec<Hook>,
    /// Readers of the programs' log lines; none unless they are wanted.
    pub(super) loggers: Loggers,
    pub(super) offsets: Offsets,
    /// Why offsets are missing; empty when they are not.
    pub(super) without_offsets: String,
}

/// Programs that come in two forms: the second for kernels before 5.12, which cannot exchange atomically.
const TWO_FORMS: [(&str, &str); 2] = [("tcp", "tcp_plain"), (SWEEP, "sweep_plain")];

/// They write who owns a socket.
const OWNER_HOOKS: [&str; 7] = ["bind4", "bind6", "post_bind4", "post_bind6", "release", "connect4", "connect6"];
/// They see datagrams without a connection, and look-ups that are none.
const DATAGRAM_HOOKS: [&str; 6] = ["sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6", "getsockname4", "getsockname6"];
/// It reads who owns a socket, and counts its connection.
const TCP: &str = "tcp";
const TRACEPOINTS: [(&str, &str); 7] = [
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
    (OOM_KILL, "mark_victim"),
    ("cgroup_mkdir", "cgroup_mkdir"),
    ("cgroup_rmdir", "cgroup_rmdir"),
    ("cgroup_attach", "cgroup_attach_task"),
];

/// The kernel wants a page and a power of two; the pages of all machines divide this.
pub(super) const SMALLEST_RING_BYTES: u32 = 64 * 1024;

/// Name of the hook that tells of ends for want of memory.
const OOM_KILL: &str = "oom_kill";

/// Name of the sweep's hook.
pub(super) const SWEEP: &str = "sweep";

/// Loads everything that this kernel and these rights allow.
///
/// `before_connections` is called when every new socket gets an owner, and before the first connection is counted: a connection that is
/// accepted from then on has the owner that its listener has.
pub(super) fn load(
    config: &Config,
    objects: Objects,
    rights: Rights,
    root: &CgroupRoot,
    before_connections: impl FnOnce(&Seeder),
) -> Result<Loaded, CaptureError> {
    raise_memory_limit();
    let (offsets, without_offsets) = if rights.may_trace() {
        match offsets::read(Path::new(btf::KERNEL)) {
            Ok(offsets) => (offsets, String::new()),
            Err(error) => (Offsets::default(), error.to_string()),
        }
    } else {
        (Offsets::default(), "CAP_PERFMON is missing".to_owned())
    };
    let ephemeral = socket_tables::ephemeral_ports();
    let settings = Settings {
        abi_version: ABI_VERSION,
        bits: if rights.may_trace() { setting::READ_KERNEL } else { 0 },
        task: offsets.task,
        cgroup: offsets.cgroup,
        socket: offsets.socket,
        ephemeral_first: u32::from(*ephemeral.start()),
        ephemeral_last: u32::from(*ephemeral.end()),
    };
    let log_level: u8 = if config.kernel_log { u8::MAX } else { 0 };
    let mut loader = EbpfLoader::new();
    // First: this object has none of the globals that the others are given.
    let mut hooks = Vec::new();
    let (dns, names) = dns::load(&mut loader, config, objects.dns, root, &mut hooks);
    loader
        .override_global("SETTINGS", GlobalData::from(&settings), true)
        .override_global(aya_log::LEVEL, GlobalData::from(&log_level), false)
        .map_max_entries("EDGES", config.edges_max)
        .map_max_entries("NETWORK_RING", config.ring_bytes)
        .map_max_entries("PROCESS_RING", config.ring_bytes);
    if !config.kernel_log {
        loader.map_max_entries("AYA_LOGS", SMALLEST_RING_BYTES);
    }
    let mut sockets = loader.load(objects.sockets).map_err(CaptureError::Object)?;
    attach_cgroup_hooks(&mut sockets, &OWNER_HOOKS, &root.directory, config.plain_programs, &mut hooks);
    let seeder = Seeder::new(owners_of(&sockets)?, root.path.clone());
    before_connections(&seeder);
    attach_cgroup_hooks(&mut sockets, &[TCP], &root.directory, config.plain_programs, &mut hooks);
    attach_cgroup_hooks(&mut sockets, &DATAGRAM_HOOKS, &root.directory, config.plain_programs, &mut hooks);
    if let Some(tcp) = hooks.iter().find(|hook| hook.name == TCP && !hook.attached) {
        return Err(CaptureError::Connections(tcp.error.clone()));
    }
    let mut processes = attach_tracepoints(&mut loader, objects, rights, &mut hooks);
    // It holds the kernel's parsed types, tens of megabytes, and the sweep needs them once more: never both at once.
    drop(loader);
    if offsets.tell_live_bytes() {
        hooks.push(Hook::of(SWEEP, load_sweep(&mut sockets, config.plain_programs)));
    } else {
        hooks.push(Hook { name: SWEEP.to_owned(), attached: false, error: without_offsets.clone() });
    }
    let mut loggers = Vec::new();
    if config.kernel_log {
        for object in std::iter::once(&mut sockets).chain(processes.as_mut()) {
            match EbpfLogger::init_with_logger(object, KernelLog) {
                Ok(logger) => loggers.push(logger),
                Err(error) => tracing::warn!(%error, "log lines of kernel programs cannot be read"),
            }
        }
    }
    Ok(Loaded { seeder, sockets, processes, dns, names, hooks, loggers, offsets, without_offsets })
}

fn owners_of(sockets: &Ebpf) -> Result<OwnedFd, CaptureError> {
    let Some(Map::SkStorage(owners)) = sockets.map("OWNERS") else { return Err(missing("OWNERS")) };
    Ok(owners.fd().as_fd().try_clone_to_owned()?)
}

fn attach_cgroup_hooks(object: &mut Ebpf, names: &[&'static str], root: &File, plain: bool, hooks: &mut Vec<Hook>) {
    for &name in names {
        let result = first_taken(name, plain, |form| attach_to_cgroup(object, form, root));
        hooks.push(Hook::of(name, result));
    }
}

fn attach_to_cgroup(object: &mut Ebpf, name: &str, root: &File) -> Result<(), ProgramError> {
    // A link is a multi-attachment by itself; the kernel refuses flags for it.
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    match object.program_mut(name) {
        Some(Program::SockOps(program)) => {
            let program: &mut SockOps = program;
            program.load()?;
            program.attach(root, MODE).map(drop)
        }
        Some(Program::CgroupSockAddr(program)) => {
            let program: &mut CgroupSockAddr = program;
            program.load()?;
            program.attach(root, MODE).map(drop)
        }
        Some(Program::CgroupSock(program)) => {
            let program: &mut CgroupSock = program;
            program.load()?;
            program.attach(root, MODE).map(drop)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn plain_form(name: &str) -> Option<&'static str> {
    TWO_FORMS.iter().find(|(full, _)| *full == name).map(|(_, plain)| *plain)
}

/// Tries the forms of a program in turn, or the plain one alone; the first one's error when none is taken.
fn first_taken(name: &str, plain: bool, mut attempt: impl FnMut(&str) -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    match plain_form(name) {
        Some(form) if plain => attempt(form),
        Some(form) => attempt(name).or_else(|error| attempt(form).map_err(|_| error)),
        None => attempt(name),
    }
}

fn load_sweep(object: &mut Ebpf, plain: bool) -> Result<(), ProgramError> {
    // Its parsed form is large; it goes at the end of this function.
    let btf = Btf::from_sys_fs()?;
    first_taken(SWEEP, plain, |form| {
        let program: &mut Iter = object.program_mut(form).ok_or(ProgramError::UnexpectedProgramType)?.try_into()?;
        program.load("bpf_sk_storage_map", &btf)
    })
}

/// The sweep's program, in the form that the kernel took.
pub(super) fn sweep_program(object: &Ebpf) -> Option<&ProgramFd> {
    [Some(SWEEP), plain_form(SWEEP)].into_iter().flatten().find_map(|name| object.program(name)?.fd().ok())
}

fn attach_tracepoints(loader: &mut EbpfLoader<'_>, objects: Objects, rights: Rights, hooks: &mut Vec<Hook>) -> Option<Ebpf> {
    let refused = |error: &str| TRACEPOINTS.map(|(name, _)| Hook { name: name.to_owned(), attached: false, error: error.to_owned() });
    if !rights.may_trace() {
        hooks.extend(refused("CAP_PERFMON is missing"));
        return None;
    }
    let mut object = match loader.load(objects.processes) {
        Ok(object) => object,
        Err(error) => {
            hooks.extend(refused(&super::chain(&error)));
            return None;
        }
    };
    for (name, tracepoint) in TRACEPOINTS {
        let result = attach_tracepoint(&mut object, name, tracepoint);
        hooks.push(Hook::of(name, result));
    }
    Some(object)
}

fn attach_tracepoint(object: &mut Ebpf, name: &str, tracepoint: &str) -> Result<(), ProgramError> {
    let program: &mut RawTracePoint = object.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?.try_into()?;
    program.load()?;
    program.attach(tracepoint).map(drop)
}

/// Before 5.11 the memory of maps counts against this limit.
fn raise_memory_limit() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads one structure. Where it is refused, either the limit does not matter or loading will say so.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}
