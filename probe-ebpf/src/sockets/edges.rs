//! The table of edges: counters per group of connections, and the ring that tells of new entries.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::bpf_jiffies64,
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use probe_common::{DNS_PORT, EdgeKey, EdgeRecord, EdgeValue, PROTOCOL_UDP, RecordHeader, counter, kind, talks};
use probe_ebpf::{
    context::{add32, add64},
    counters::count,
    now,
    settings::is_ephemeral,
};

/// Not an LRU: that would forget counters without a word, this one says when it is full. The loader sets its size.
#[map]
static EDGES: HashMap<EdgeKey, EdgeValue> = HashMap::with_max_entries(8_192, 0);

/// How many entries of UDP were made, and how many may be: see [`talks`]. Whoever sends from many addresses, which may be forged, makes as many
/// entries, and shall leave room for connections.
#[map]
static TALKS: Array<u64> = Array::with_max_entries(talks::COUNT, 0);

/// Carries `EdgeRecord` and `ListenerRecord`.
#[map]
pub static NETWORK_RING: RingBuf = RingBuf::with_byte_size(512 * 1024, 0);

/// What a first-sight record tells beyond the key.
pub struct Sample {
    /// Port of the client of this connection.
    pub client_port: u16,
    /// Where the client meant to go; zeroes when it went there.
    pub original_server: [u8; 16],
    /// Port of it.
    pub original_port: u16,
    /// The connection is older than the programs.
    pub found_open: bool,
}

/// Adds to an edge, making it when it is new.
#[inline(always)]
pub fn add(key: &EdgeKey, change: &mut EdgeValue, sample: &Sample) {
    count(counter::EDGES_CHANGED);
    change.tick = step();
    if let Some(edge) = EDGES.get_ptr_mut(key) {
        return grow(edge, change);
    }
    change.last_ns = now();
    // By reference: a copy would take a seventh of the stack that a program has.
    let change: &EdgeValue = change;
    if EDGES.insert(key, change, u64::from(BPF_NOEXIST)).is_ok() {
        if key.protocol == PROTOCOL_UDP {
            count_talk();
        }
        if !tell(if sample.found_open { kind::EDGE_FOUND } else { kind::EDGE_SEEN }, key, change, sample) {
            count(counter::NETWORK_RING_FULL);
        }
    } else if let Some(edge) = EDGES.get_ptr_mut(key) {
        // Another CPU was faster.
        grow(edge, change);
    } else {
        count(counter::EDGES_OVERFLOWED);
        if !tell(kind::EDGE_OVERFLOW, key, change, sample) {
            count(counter::EDGES_LOST);
        }
    }
}

/// Two that have talked already go on; whether they are known to.
#[inline(always)]
pub fn touch(key: &EdgeKey, tick: u32) -> bool {
    let Some(edge) = EDGES.get_ptr_mut(key) else { return false };
    set_tick(edge, tick);
    true
}

/// As [`touch`], for an edge that serves `port` of its client. A port that the kernel gave to the client may be any of its sockets'; one that
/// the client chose is known when something came from there. Others are services of the same host.
#[inline(always)]
pub fn touch_served(key: &EdgeKey, tick: u32, port: u16) -> bool {
    let Some(edge) = EDGES.get_ptr_mut(key) else { return false };
    // SAFETY: a value of the table.
    if !is_ephemeral(port) && unsafe { (*edge).chosen_port } != u32::from(port) {
        return false;
    }
    set_tick(edge, tick);
    true
}

/// A client sends, perhaps for the first time.
#[inline(always)]
pub fn talk_served(key: &EdgeKey, tick: u32, port: u16) {
    if is_ephemeral(port) {
        return talk(key, tick, port);
    }
    if let Some(edge) = EDGES.get_ptr_mut(key) {
        // SAFETY: as in `set_tick`.
        unsafe {
            if (*edge).chosen_port != u32::from(port) {
                (*edge).chosen_port = u32::from(port);
            }
        }
        return set_tick(edge, tick);
    }
    begin(key, &EdgeValue { tick, chosen_port: u32::from(port), last_ns: now(), ..EdgeValue::default() }, port);
}

#[inline(always)]
fn set_tick(edge: *mut EdgeValue, tick: u32) {
    // SAFETY: a value of the table; aligned, and whoever writes it last at the same time writes the same. Read first: the line is shared by all
    // CPUs that serve this peer, and stays so.
    unsafe {
        if (*edge).tick != tick {
            if (*edge).tick == 0 {
                count(counter::EDGES_CHANGED);
            }
            (*edge).tick = tick;
        }
    }
}

/// Two talk without a connection, perhaps for the first time.
#[inline(always)]
pub fn talk(key: &EdgeKey, tick: u32, client_port: u16) {
    if !touch(key, tick) {
        begin(key, &EdgeValue { tick, last_ns: now(), ..EdgeValue::default() }, client_port);
    }
}

#[inline(always)]
fn begin(key: &EdgeKey, value: &EdgeValue, client_port: u16) {
    if !has_room_for_talk() {
        return count(counter::TALKS_LOST);
    }
    if EDGES.insert(key, value, u64::from(BPF_NOEXIST)).is_ok() {
        count(counter::EDGES_CHANGED);
        count_talk();
        let sample = Sample { client_port, original_server: [0; 16], original_port: 0, found_open: false };
        if !tell(kind::EDGE_SEEN, key, value, &sample) {
            count(counter::NETWORK_RING_FULL);
        }
    } else if !touch(key, value.tick) {
        // Not told either: it would be told again for every datagram, and the ring is wanted for connections.
        count(counter::TALKS_LOST);
    }
}

/// Whether UDP may have one more entry. Two CPUs that ask at once may both be told yes: the bound need not be exact.
#[inline(always)]
fn has_room_for_talk() -> bool {
    let (Some(made), Some(limit)) = (TALKS.get_ptr(talks::MADE), TALKS.get_ptr(talks::LIMIT)) else { return false };
    // SAFETY: values of the map, aligned words. Both wrap.
    let room = unsafe { core::ptr::read_volatile(limit).wrapping_sub(core::ptr::read_volatile(made)) };
    room.cast_signed() > 0
}

/// An entry of UDP was made.
#[inline(always)]
fn count_talk() {
    if let Some(made) = TALKS.get_ptr_mut(talks::MADE) {
        // SAFETY: a value of the map; other CPUs add to it as well.
        unsafe { add64(made, 1) }
    }
}

/// A connected UDP socket begins or ends. Nobody is told at once: by the next reading it is known whether something came of it. But who connects
/// to a DNS server asks it, and whoever wants to see the answer has no time to lose.
#[inline(always)]
pub fn count_connected(key: &EdgeKey, change: &EdgeValue, at_ns: u64) {
    if let Some(edge) = EDGES.get_ptr_mut(key) {
        return grow_connected(edge, change, at_ns);
    }
    // By reference: a copy would take room on the stack.
    let value: &EdgeValue = &EdgeValue { opened: change.opened & 1, closed: change.closed, last_ns: at_ns, ..EdgeValue::default() };
    if change.opened > 1 {
        // It was opened in an entry that has left, and told: it ends.
        return;
    }
    if !has_room_for_talk() {
        return count(counter::TALKS_LOST);
    }
    if EDGES.insert(key, value, u64::from(BPF_NOEXIST)).is_err() {
        if let Some(edge) = EDGES.get_ptr_mut(key) {
            return grow_connected(edge, change, at_ns);
        }
        return count(counter::TALKS_LOST);
    }
    count(counter::EDGES_CHANGED);
    count_talk();
    if key.server_port != DNS_PORT {
        return;
    }
    let sample = Sample { client_port: 0, original_server: [0; 16], original_port: 0, found_open: false };
    if !tell(kind::EDGE_SEEN, key, value, &sample) {
        count(counter::NETWORK_RING_FULL);
    }
}

#[inline(always)]
fn grow_connected(edge: *mut EdgeValue, change: &EdgeValue, at_ns: u64) {
    count(counter::EDGES_CHANGED);
    // SAFETY: as in `grow`.
    unsafe {
        if change.opened != 0 {
            add32(&raw mut (*edge).opened, change.opened);
        }
        if change.closed != 0 {
            add32(&raw mut (*edge).closed, change.closed);
        }
        (*edge).last_ns = at_ns;
    }
}

#[inline(always)]
fn grow(edge: *mut EdgeValue, change: &EdgeValue) {
    // SAFETY: a value of the table. Other CPUs add to it as well, so everything is an atomic addition but the last two, where the loser of
    // a race is as good as the winner.
    unsafe {
        if change.opened != 0 {
            add32(&raw mut (*edge).opened, change.opened);
        }
        if change.closed != 0 {
            add32(&raw mut (*edge).closed, change.closed);
        }
        if change.failed != 0 {
            add32(&raw mut (*edge).failed, change.failed);
        }
        if change.retransmits != 0 {
            add32(&raw mut (*edge).retransmits, change.retransmits);
        }
        if change.bytes_sent != 0 {
            add64(&raw mut (*edge).bytes_sent, change.bytes_sent);
        }
        if change.bytes_received != 0 {
            add64(&raw mut (*edge).bytes_received, change.bytes_received);
        }
        if change.rtt_us_max > (*edge).rtt_us_max {
            (*edge).rtt_us_max = change.rtt_us_max;
        }
        // Of what happens within one step of the coarse clock one is as good as another: a busy edge pays once for all of it. What the end of
        // an older table adds is a sum of many.
        if change.rtt_count > 1 || change.rtt_count == 1 && (*edge).chosen_port != change.tick {
            (*edge).chosen_port = change.tick;
            add64(&raw mut (*edge).rtt_us_sum, change.rtt_us_sum);
            add32(&raw mut (*edge).rtt_count, change.rtt_count);
        }
        if (*edge).tick != change.tick {
            (*edge).tick = change.tick;
            (*edge).last_ns = now();
        }
    }
}

/// A clock that costs one load, and steps every one to ten milliseconds.
#[inline(always)]
fn step() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() as u32 }
}

/// Whether the record found room. A new edge wakes the reader.
#[inline(always)]
fn tell(kind: u32, key: &EdgeKey, value: &EdgeValue, sample: &Sample) -> bool {
    let Some(mut entry) = NETWORK_RING.reserve::<EdgeRecord>(0) else { return false };
    entry.write(EdgeRecord {
        header: RecordHeader { at_ns: value.last_ns, kind, length: size_of::<EdgeRecord>() as u32 },
        key: *key,
        value: *value,
        original_server: sample.original_server,
        client_port: sample.client_port,
        original_port: sample.original_port,
        reserved: 0,
    });
    entry.submit(0);
    true
}
