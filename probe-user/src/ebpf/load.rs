//! Loading and attaching. Each program is tried by itself: what a kernel refuses is named, and the rest runs.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::maps::Map;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, Iter, Program, ProgramError, ProgramFd, RawTracePoint, SockOps};
use aya::{Btf, Ebpf, EbpfLoader, GlobalData};
use aya_log::EbpfLogger;
use probe_common::{ABI_VERSION, Fingerprint, Settings, setting};

use super::control::Controls;
use super::kernel_log::KernelLog;
use super::look::{self, Looker};
use super::objects::Objects;
use super::offsets::{self, Offsets};
use super::pins::{Pinned, Pins};
use super::place::{CgroupRoot, Rights};
use super::running::missing;
use super::talks::Talks;
use super::{CaptureError, Config, Hook, Names, Seeder, btf, dns};
use crate::sockets as socket_tables;

/// Pass log lines of the programs on.
pub(super) type Loggers = Vec<EbpfLogger<KernelLog>>;

/// All objects, loaded; dropping them detaches everything.
pub(super) struct Loaded {
    pub(super) seeder: Seeder,
    pub(super) looker: Looker,
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
    /// How the programs are told that the probe lives.
    pub(super) controls: Controls,
    /// How many entries of the edge table UDP may have.
    pub(super) talks: Talks,
    /// Where the programs are pinned, if they are.
    pub(super) pins: Option<Pins>,
    /// Why they are not, when they should be.
    pub(super) without_pins: String,
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
/// Tells which connections are counted.
pub(super) const CENSUS: &str = "census";
/// Tells which sockets are listeners.
pub(super) const LISTENING: &str = "listening";
/// Takes the edges of other programs over.
pub(super) const FOLD: &str = "fold";

/// Why a program is not on its hook.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("its link cannot be used")]
    Link(#[from] aya::programs::links::LinkError),
    #[error("it cannot be pinned")]
    Pin(#[source] std::io::Error),
}

/// Loads everything that this kernel and these rights allow.
///
/// `before_connections` is called when every new socket gets an owner, and before the first connection is counted: a connection that is
/// accepted from then on has the owner that its listener has.
pub(super) fn load(
    config: &Config,
    objects: Objects,
    rights: Rights,
    root: &CgroupRoot,
    before_connections: impl FnOnce(&Seeder, &Looker),
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
        look: offsets.look,
    };
    let (pins, without_pins) = match pins_of(config, objects, rights) {
        Ok(pins) => (pins, String::new()),
        Err(error) => (None, super::chain(&error)),
    };
    let log_level: u8 = if config.kernel_log { u8::MAX } else { 0 };
    let mut loader = EbpfLoader::new();
    // It has parsed the kernel's types, tens of megabytes: it shall use the same ones as the iterators do.
    loader.btf(None);
    let types = if rights.may_trace() { Btf::from_sys_fs().ok() } else { None };
    loader.btf(types.as_ref());
    // First: this object has none of the globals that the others are given.
    let mut hooks = Vec::new();
    let (dns, names) = dns::load(&mut loader, config, objects.dns, root, &mut hooks);
    loader
        .btf(types.as_ref())
        .override_global("SETTINGS", GlobalData::from(&settings), true)
        .override_global(aya_log::LEVEL, GlobalData::from(&log_level), false)
        .map_max_entries("EDGES", config.edges_max)
        .map_max_entries("NETWORK_RING", config.ring_bytes)
        .map_max_entries("PROCESS_RING", config.ring_bytes);
    if !config.kernel_log {
        loader.map_max_entries("AYA_LOGS", SMALLEST_RING_BYTES);
    }
    if let Some(pins) = &pins {
        pin_maps(&mut loader, pins.sockets(config).into_iter().chain([pins.owners()]));
    }
    let mut sockets = loader.load(objects.sockets).map_err(CaptureError::Object)?;
    let mut controls = Controls::new(pins.is_some().then_some(config.awake_for));
    controls.take(&mut sockets)?;
    let talks = Talks::take(&mut sockets, config.edges_max as usize)?;
    if let (Some(types), true) = (&types, without_offsets.is_empty()) {
        load_iterators(&mut sockets, config.plain_programs, &offsets, types, pins.is_some(), &mut hooks);
    } else {
        let error = if without_offsets.is_empty() { "no type information of the kernel".to_owned() } else { without_offsets.clone() };
        hooks.push(Hook { name: SWEEP.to_owned(), attached: false, error });
    }
    let looker = Looker::bind(&sockets, owners_of(&sockets)?.as_fd());
    let place = Place { root: &root.directory, pins: pins.as_ref() };
    attach_cgroup_hooks(&mut sockets, &OWNER_HOOKS, place, config.plain_programs, &mut hooks);
    let seeder = Seeder::new(owners_of(&sockets)?, root.path.clone(), &config.proc_root);
    before_connections(&seeder, &looker);
    attach_cgroup_hooks(&mut sockets, &[TCP], place, config.plain_programs, &mut hooks);
    attach_cgroup_hooks(&mut sockets, &DATAGRAM_HOOKS, place, config.plain_programs, &mut hooks);
    if let Some(tcp) = hooks.iter().find(|hook| hook.name == TCP && !hook.attached) {
        return Err(CaptureError::Connections(tcp.error.clone()));
    }
    if let Some(pins) = &pins {
        pin_maps(&mut loader, pins.processes(config).into_iter());
    }
    let mut processes = attach_tracepoints(&mut loader, objects, rights, place, &mut controls, &mut hooks);
    if let Some(pins) = &pins {
        pins.retain_links(&hooks.iter().filter(|hook| hook.attached).map(|hook| hook.name.clone()).collect::<Vec<_>>());
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
    Ok(Loaded {
        seeder,
        looker,
        sockets,
        processes,
        dns,
        names,
        hooks,
        loggers,
        offsets,
        without_offsets,
        controls,
        talks,
        pins,
        without_pins,
    })
}

/// Takes the directory of pins, if there shall be one.
fn pins_of(config: &Config, objects: Objects, rights: Rights) -> Result<Option<Pins>, super::pins::PinError> {
    if config.pin_dir == super::PinDir::Off {
        return Ok(None);
    }
    // What is not in the objects and shapes their tables. The objects have all else.
    let sizes = [u64::from(config.edges_max), u64::from(config.ring_bytes), config.abi_salt];
    let abi =
        sizes.iter().fold(Fingerprint::EMPTY.with(objects.sockets).with(objects.processes), |abi, number| abi.with(&number.to_le_bytes()));
    Pins::open(config, abi, rights.may_trace()).map(Some)
}

fn pin_maps(loader: &mut EbpfLoader<'_>, maps: impl Iterator<Item = Pinned>) {
    for map in maps {
        loader.map_pin_path(map.name, map.path);
    }
}

/// Where programs are attached.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Root of the cgroup2 hierarchy.
    root: &'a File,
    /// Where links get names; without, they end with the probe.
    pins: Option<&'a Pins>,
}

fn owners_of(sockets: &Ebpf) -> Result<OwnedFd, CaptureError> {
    let Some(Map::SkStorage(owners)) = sockets.map("OWNERS") else { return Err(missing("OWNERS")) };
    Ok(owners.fd().as_fd().try_clone_to_owned()?)
}

fn attach_cgroup_hooks(object: &mut Ebpf, names: &[&'static str], place: Place<'_>, plain: bool, hooks: &mut Vec<Hook>) {
    for &name in names {
        let result = first_taken(name, plain, |form| attach_to_cgroup(object, name, form, place));
        hooks.push(Hook::of(name, result));
    }
}

fn attach_to_cgroup(object: &mut Ebpf, hook: &str, form: &str, place: Place<'_>) -> Result<(), AttachError> {
    // A link is a multi-attachment by itself; the kernel refuses flags for it.
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    // The three kinds of programs have the same calls and no trait for them.
    macro_rules! attach {
        ($program:ident) => {{
            $program.load()?;
            let Some(pins) = place.pins else {
                $program.attach(place.root, MODE)?;
                return Ok(());
            };
            if take_link(pins, hook, $program.fd()?) {
                return Ok(());
            }
            let id = $program.attach(place.root, MODE)?;
            keep_link(pins, hook, $program.take_link(id)?.try_into()?)
        }};
    }
    match object.program_mut(form) {
        Some(Program::SockOps(program)) => {
            let program: &mut SockOps = program;
            attach!(program)
        }
        Some(Program::CgroupSockAddr(program)) => {
            let program: &mut CgroupSockAddr = program;
            attach!(program)
        }
        Some(Program::CgroupSock(program)) => {
            let program: &mut CgroupSock = program;
            attach!(program)
        }
        _ => Err(ProgramError::UnexpectedProgramType.into()),
    }
}

/// Puts a program behind the link that an earlier probe has left at its hook; whether there was one that could be taken.
fn take_link(pins: &Pins, hook: &str, program: &ProgramFd) -> bool {
    let Some(link) = pins.link(hook) else { return false };
    match super::sys::update_link(link.as_fd(), program.as_fd()) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(hook, %error, "link of an earlier probe is replaced");
            false
        }
    }
}

fn keep_link(pins: &Pins, hook: &str, link: FdLink) -> Result<(), AttachError> {
    // A pinned link of aya's would be as good, but for one that has to replace another.
    let path = pins.link_path(hook);
    pins.make_room(hook).map_err(AttachError::Pin)?;
    link.pin(path).map(drop).map_err(|error| AttachError::Pin(std::io::Error::other(error)))
}

fn plain_form(name: &str) -> Option<&'static str> {
    TWO_FORMS.iter().find(|(full, _)| *full == name).map(|(_, plain)| *plain)
}

/// Tries the forms of a program in turn, or the plain one alone; the first one's error when none is taken.
fn first_taken<E>(name: &str, plain: bool, mut attempt: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
    match plain_form(name) {
        Some(form) if plain => attempt(form),
        Some(form) => attempt(name).or_else(|error| attempt(form).map_err(|_| error)),
        None => attempt(name),
    }
}

/// Programs over all sockets with storage have a second form, over all descriptors, for kernels that let nobody walk over the entries of maps.
fn form_over_descriptors(name: &str) -> Option<&'static str> {
    match name {
        SWEEP => Some("sweep_files"),
        CENSUS => Some("census_files"),
        LISTENING => Some("listening_files"),
        _ => None,
    }
}

fn load_iterators(object: &mut Ebpf, plain: bool, offsets: &Offsets, types: &Btf, pinned: bool, hooks: &mut Vec<Hook>) {
    let mut load = |form: &str, over: &str| -> Result<(), ProgramError> {
        let program: &mut Iter = object.program_mut(form).ok_or(ProgramError::UnexpectedProgramType)?.try_into()?;
        program.load(over, types)
    };
    let mut over_sockets = |name: &str| {
        first_taken(name, plain, |form| load(form, "bpf_sk_storage_map")).or_else(|error| match form_over_descriptors(name) {
            Some(form) if offsets.tell_descriptors() => load(form, "task_file").map_err(|_| error),
            _ => Err(error),
        })
    };
    if offsets.tell_live_bytes() {
        hooks.push(Hook::of(SWEEP, over_sockets(SWEEP)));
    }
    hooks.push(Hook::of(CENSUS, over_sockets(CENSUS)));
    hooks.push(Hook::of(LISTENING, over_sockets(LISTENING)));
    if offsets.tell_descriptors() {
        hooks.push(Hook::of(look::FILES, load(look::FILES, "task_file")));
    }
    if offsets.tell_start_times() {
        hooks.push(Hook::of(look::TASKS, load(look::TASKS, "task")));
    }
    // Where the kernel refuses it, the probe reads what an earlier one has left.
    if pinned && let Err(error) = load(FOLD, "bpf_map_elem") {
        tracing::debug!(%error, "the kernel does not add one table to another");
    }
}

/// Binds a program over all sockets with storage, in the form that the kernel took; `None` when it took none.
pub(super) fn bind_over_sockets(sockets: &Ebpf, name: &str, owners: BorrowedFd<'_>) -> Option<std::io::Result<OwnedFd>> {
    let taken = |form: &str| sockets.program(form)?.fd().ok();
    if let Some(program) = [Some(name), plain_form(name)].into_iter().flatten().find_map(taken) {
        return Some(super::sys::link_map_iterator(program.as_fd(), owners));
    }
    Some(super::sys::link_iterator(taken(form_over_descriptors(name)?)?.as_fd()))
}

fn attach_tracepoints(
    loader: &mut EbpfLoader<'_>,
    objects: Objects,
    rights: Rights,
    place: Place<'_>,
    controls: &mut Controls,
    hooks: &mut Vec<Hook>,
) -> Option<Ebpf> {
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
    if let Err(error) = controls.take(&mut object) {
        hooks.extend(refused(&super::chain(&error)));
        return None;
    }
    for (name, tracepoint) in TRACEPOINTS {
        let result = attach_tracepoint(&mut object, name, tracepoint, place);
        hooks.push(Hook::of(name, result));
    }
    Some(object)
}

fn attach_tracepoint(object: &mut Ebpf, name: &str, tracepoint: &str, place: Place<'_>) -> Result<(), AttachError> {
    let program: &mut RawTracePoint = object.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?.try_into()?;
    program.load()?;
    let id = program.attach(tracepoint)?;
    match place.pins {
        // Links of tracepoints cannot be given another program. For a moment both tell; the tables take what is told twice for once.
        Some(pins) => keep_link(pins, name, program.take_link(id)?.into()),
        None => Ok(()),
    }
}

/// Before 5.11 the memory of maps counts against this limit.
fn raise_memory_limit() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads one structure. Where it is refused, either the limit does not matter or loading will say so.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}
