//! The storage in each socket.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE},
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_netns_cookie, bpf_sk_storage_get, generated::bpf_get_socket_cookie,
    },
};
use probe_common::{Owner, counter};
use probe_ebpf::{context::exchange64, control, counters::count, task};

/// Definition of a socket storage map whose values are copied into accepted sockets; user space reads it from the object's type information.
#[repr(C)]
struct ClonedSocketStorage<T> {
    r#type: *const [i32; aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the members are placeholders for the loader; nobody reads them.
unsafe impl<T> Sync for ClonedSocketStorage<T> {}

#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
static OWNERS: ClonedSocketStorage<Owner> = ClonedSocketStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

#[inline(always)]
fn storage(socket: u64, flags: u64) -> *mut Owner {
    let map = (&raw const OWNERS).cast_mut().cast();
    // SAFETY: the verifier has seen that `socket` is one; a null value means that new storage is zeroed.
    unsafe { bpf_sk_storage_get(map, socket as *mut _, core::ptr::null_mut(), flags) }.cast()
}

/// The owner of a socket, if something is known of it.
#[inline(always)]
pub fn get<'a>(socket: u64) -> Option<&'a mut Owner> {
    // SAFETY: the helper gives null or storage that lives as long as the program runs.
    unsafe { storage(socket, 0).as_mut() }
}

/// The owner of a socket; zeroes when nothing was known of it.
#[inline(always)]
pub fn get_or_create<'a>(socket: u64) -> Option<&'a mut Owner> {
    // SAFETY: as above.
    let owner = unsafe { storage(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE)).as_mut() };
    if owner.is_none() {
        count(counter::STORAGE_FAILED);
    }
    owner
}

/// A socket as a program meets it.
pub struct Socket {
    /// The kernel's structure, as the verifier lets it be read.
    pub pointer: u64,
    /// The context of the program: helpers take it for the socket.
    pub context: *mut c_void,
}

impl Socket {
    /// Cookie of its network namespace.
    #[inline(always)]
    pub fn netns(&self) -> u64 {
        // SAFETY: the helper takes the context as it is.
        unsafe { bpf_get_netns_cookie(self.context) }
    }

    /// The kernel's number of the socket.
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_get_socket_cookie(self.context) }
    }
}

/// Who holds a socket: the part of an edge's key that is not an address.
pub struct Identity {
    /// See [`Owner`].
    pub cgroup_id: u64,
    /// See [`Owner`].
    pub netns: u64,
    /// See [`Owner`].
    pub start_ns: u64,
    /// See [`Owner`].
    pub tgid: u32,
}

impl Identity {
    /// Of the running process. Process context alone.
    #[inline(always)]
    pub fn current(netns: u64) -> Self {
        Identity {
            // SAFETY: the helper has no preconditions.
            cgroup_id: unsafe { bpf_get_current_cgroup_id() },
            netns,
            start_ns: task::start_of_current(),
            tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        }
    }

    /// Of whom a socket remembers.
    #[inline(always)]
    pub fn of(owner: &Owner) -> Self {
        Identity { cgroup_id: owner.cgroup_id, netns: owner.netns, start_ns: owner.start_ns, tgid: owner.tgid }
    }

    /// Makes a socket remember.
    #[inline(always)]
    pub fn write(&self, owner: &mut Owner) {
        owner.cgroup_id = self.cgroup_id;
        owner.netns = self.netns;
        owner.start_ns = self.start_ns;
        owner.tgid = self.tgid;
    }
}

/// Writes the running process into a socket, and forgets what was there. Process context alone.
#[inline(always)]
pub fn claim(socket: &Socket, flags: u16, original_server: [u8; 16], original_port: u16) {
    if !control::is_awake() {
        return;
    }
    let Some(owner) = get_or_create(socket.pointer) else { return };
    let who = Identity::current(socket.netns());
    *owner = Owner {
        cgroup_id: who.cgroup_id,
        netns: who.netns,
        start_ns: who.start_ns,
        original_server,
        tgid: who.tgid,
        original_port,
        flags,
        ..Owner::default()
    };
}

/// Notes that everything up to `total` is in the edge table; what the table lacks of it. Wraps when more was there: the caller then takes back.
///
/// The end of a connection and a sweep may do this to one socket at the same time. With an exchange their differences add up to the last total,
/// whoever is first. Without one (kernels before 5.12) the few instructions between reading and writing are open to be counted twice.
#[inline(always)]
pub fn settle<const EXCHANGE: bool>(counted: &mut u64, total: u64) -> u64 {
    // As a rule nobody has counted anything of a short connection, and there is nothing: that needs no exchange.
    if *counted == total {
        return 0;
    }
    let before = if EXCHANGE {
        // SAFETY: a member of a socket's storage.
        unsafe { exchange64(counted, total) }
    } else {
        core::mem::replace(counted, total)
    };
    total.wrapping_sub(before)
}

/// As [`settle`], for a sweep: it never takes back. When the connection ended meanwhile, its end has counted everything.
#[inline(always)]
pub fn settle_open<const EXCHANGE: bool>(counted: &mut u64, total: u64) -> u64 {
    if total <= *counted {
        return 0;
    }
    let growth = settle::<EXCHANGE>(counted, total);
    if growth > total { 0 } else { growth }
}
