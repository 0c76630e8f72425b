//! Calls of `bpf(2)` that aya has no name for: batches, lookup with delete, iterators over a map, pins, another program behind a link.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use aya::Pod;

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_ITER_CREATE: libc::c_int = 33;
/// The kernel's own number for what a map cannot do; it has no name outside.
const ENOTSUPP: i32 = 524;

const BPF_TRACE_ITER: u32 = 28;

#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct IteratorLinkAttr {
    program_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_length: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct IteratorAttr {
    link_fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link_fd: u32,
    program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct PinAttr {
    path: u64,
    object_fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    object_fd: u32,
    info_length: u32,
    info: u64,
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` and its true size is passed; every pointer in it was made from a live reference or slice
    // of the caller's frame.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn new_fd(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(|_| io::Error::other("file descriptor out of range"))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}

/// Where a walk over a hash map stands. `None`: at its beginning.
pub(super) type Cursor = Option<u32>;

/// What one call of [`lookup_batch`] found.
#[derive(Debug)]
pub(super) struct Batch {
    /// Entries at the beginning of the two slices.
    pub(super) count: usize,
    /// Where to go on; `None` at the end.
    pub(super) next: Cursor,
}

/// Copies a part of a hash map. Both slices have the same length, which is at least the largest bucket.
pub(super) fn lookup_batch<K: Pod, V: Pod>(map: BorrowedFd<'_>, cursor: Cursor, keys: &mut [K], values: &mut [V]) -> io::Result<Batch> {
    let capacity = keys.len().min(values.len());
    let mut next = 0_u32;
    let mut attr = BatchAttr {
        in_batch: cursor.as_ref().map_or(0, address),
        out_batch: std::ptr::from_mut(&mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(capacity).unwrap_or(u32::MAX),
        map_fd: number(map),
        ..BatchAttr::default()
    };
    match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => Ok(Batch { count: capacity.min(attr.count as usize), next: Some(next) }),
        // The walk has come to its end; the entries are there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Batch { count: capacity.min(attr.count as usize), next: None }),
        Err(error) => Err(error),
    }
}

/// The network namespace of a socket (`SIOCGSKNS` of `linux/sockios.h`, since Linux 4.10).
pub(super) fn namespace_of_socket(socket: BorrowedFd<'_>) -> io::Result<std::fs::File> {
    const SIOCGSKNS: libc::Ioctl = 0x894c;
    // SAFETY: takes numbers alone.
    let namespace = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    if namespace < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(std::fs::File::from(unsafe { OwnedFd::from_raw_fd(namespace) }))
}

/// Reads one entry.
pub(super) fn lookup<K: Pod, V: Pod + Default>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    element(BPF_MAP_LOOKUP_ELEM, map, key)
}

/// Reads one entry and removes it. Kernels before 5.14 cannot do both at once for hash maps.
pub(super) fn lookup_and_delete<K: Pod, V: Pod + Default>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    match element(BPF_MAP_LOOKUP_AND_DELETE_ELEM, map, key) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP)) => {
            let value = lookup(map, key)?;
            let mut attr = ElementAttr { map_fd: number(map), key: address(key), ..ElementAttr::default() };
            bpf(BPF_MAP_DELETE_ELEM, &mut attr)?;
            Ok(value)
        }
        result => result,
    }
}

fn element<K: Pod, V: Pod + Default>(command: libc::c_int, map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut attr =
        ElementAttr { map_fd: number(map), key: address(key), value: std::ptr::from_mut(&mut value) as u64, ..ElementAttr::default() };
    match bpf(command, &mut attr) {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes one entry.
pub(super) fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attr = ElementAttr { map_fd: number(map), key: address(key), value: address(value), ..ElementAttr::default() };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Binds an iterator program to a map.
pub(super) fn link_map_iterator(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // `union bpf_iter_link_info`: the map's descriptor is its first member; kernels check that the rest is zero.
    let info = [number(map), 0, 0, 0];
    let mut attr = IteratorLinkAttr {
        program_fd: number(program),
        attach_type: BPF_TRACE_ITER,
        info: address(&info),
        // The first form of the union, understood by all kernels that have map iterators.
        info_length: 4,
        ..IteratorLinkAttr::default()
    };
    new_fd(bpf(BPF_LINK_CREATE, &mut attr)?)
}

/// Binds an iterator program that walks over something of the whole machine.
pub(super) fn link_iterator(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = IteratorLinkAttr { program_fd: number(program), attach_type: BPF_TRACE_ITER, ..IteratorLinkAttr::default() };
    new_fd(bpf(BPF_LINK_CREATE, &mut attr)?)
}

/// Puts another program behind a link, in one step: every event goes to one of the two.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr { link_fd: number(link), program_fd: number(program), ..LinkUpdateAttr::default() };
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Opens what was pinned.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PinAttr { path: path.as_ptr() as u64, ..PinAttr::default() };
    new_fd(bpf(BPF_OBJ_GET, &mut attr)?)
}

/// How a map is defined: the first members of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MapDefinition {
    /// Number of its type.
    pub(super) kind: u32,
    id: u32,
    /// Bytes of a key.
    pub(super) key_size: u32,
    /// Bytes of a value.
    pub(super) value_size: u32,
    /// Room.
    pub(super) max_entries: u32,
    map_flags: u32,
}

/// How a map is defined. Whatever else is opened for one is an error.
pub(super) fn map_definition(map: BorrowedFd<'_>) -> io::Result<MapDefinition> {
    let mut definition = MapDefinition::default();
    let mut attr = InfoAttr {
        object_fd: number(map),
        info_length: u32::try_from(size_of::<MapDefinition>()).unwrap_or(0),
        info: std::ptr::from_mut(&mut definition) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(definition)
}

/// Now, by the clock that stands still in suspension.
pub(super) fn monotonic_ns() -> u64 {
    let Ok(time) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) else { return 0 };
    u64::try_from(time.tv_sec()).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0))
}

/// Returns when no CPU runs a program any more that was taken off its hook before the call.
pub(super) fn wait_for_programs() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: takes numbers alone. This command is a grace period of the kernel's RCU, in which programs run.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A new walk of a bound iterator: reading the file to its end runs it.
pub(super) fn open_iterator(link: BorrowedFd<'_>) -> io::Result<std::fs::File> {
    let mut attr = IteratorAttr { link_fd: number(link), flags: 0 };
    new_fd(bpf(BPF_ITER_CREATE, &mut attr)?).map(std::fs::File::from)
}

/// Waits until one of a few descriptors can be read, the time is over or a signal comes.
pub(super) fn poll(descriptors: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let mut descriptors: Vec<_> =
        descriptors.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let count = libc::nfds_t::try_from(descriptors.len()).unwrap_or(0);
    let milliseconds = timeout.map_or(-1, |timeout| libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX));
    // SAFETY: as many descriptors as the live vector has.
    if unsafe { libc::poll(descriptors.as_mut_ptr(), count, milliseconds) } < 0 {
        let error = io::Error::last_os_error();
        // An interrupted wait is a short one; the callers look again.
        return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
    }
    Ok(())
}
