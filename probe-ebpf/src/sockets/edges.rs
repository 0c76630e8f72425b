//! The table of edges: counters per group of connections, and the ring that tells of new entries.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{HashMap, RingBuf},
};
use probe_common::{EdgeKey, EdgeRecord, EdgeValue, RecordHeader, counter, kind};
use probe_ebpf::{
    context::{add32, add64},
    counters::count,
    now,
};

/// Not an LRU: that would forget counters without a word, this one says when it is full. The loader sets its size.
#[map]
static EDGES: HashMap<EdgeKey, EdgeValue> = HashMap::with_max_entries(8_192, 0);

#[map]
static NETWORK_RING: RingBuf = RingBuf::with_byte_size(512 * 1024, 0);

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

/// Makes a change one of nothing, where it stands and word by word: for a copy the compiler would call a loop over the stack, which is refused to
/// a probe without `CAP_PERFMON`.
#[inline(always)]
pub fn clear(change: &mut MaybeUninit<EdgeValue>) -> &mut EdgeValue {
    const { assert!(size_of::<EdgeValue>() == 64) };
    let words = change.as_mut_ptr().cast::<u64>();
    // SAFETY: as many words as the value has, and zeroes are a value of it.
    unsafe {
        words.write_volatile(0);
        words.add(1).write_volatile(0);
        words.add(2).write_volatile(0);
        words.add(3).write_volatile(0);
        words.add(4).write_volatile(0);
        words.add(5).write_volatile(0);
        words.add(6).write_volatile(0);
        words.add(7).write_volatile(0);
        change.assume_init_mut()
    }
}

/// Adds to an edge, making it when it is new.
#[inline(always)]
pub fn add(key: &EdgeKey, change: &mut EdgeValue, sample: &Sample) {
    count(counter::EDGES_CHANGED);
    change.last_ns = now();
    if let Some(edge) = EDGES.get_ptr_mut(key) {
        return grow(edge, change);
    }
    change.first_ns = change.last_ns;
    // By reference: a copy would take a seventh of the stack that a program has.
    let change: &EdgeValue = change;
    if EDGES.insert(key, change, u64::from(BPF_NOEXIST)).is_ok() {
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
        if change.rtt_count != 0 {
            add64(&raw mut (*edge).rtt_us_sum, change.rtt_us_sum);
            add32(&raw mut (*edge).rtt_count, change.rtt_count);
            if change.rtt_us_max > (*edge).rtt_us_max {
                (*edge).rtt_us_max = change.rtt_us_max;
            }
        }
        (*edge).last_ns = change.last_ns;
    }
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
