//! Copies of messages, in the ring of this object.

use aya_ebpf::{
    EbpfContext as _,
    bindings::__sk_buff,
    helpers::{bpf_skb_cgroup_id, bpf_skb_load_bytes},
    macros::map,
    maps::RingBuf,
    programs::SkBuffContext,
};
use probe_common::{DnsRecord, RecordHeader, counter, kind};
use probe_ebpf::{context, counters::count, now};

use crate::packet::Datagram;

/// Carries `DnsRecord` with the bytes of its message. The loader sets its size.
#[map]
static DNS_RING: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// Length of the header of a DNS message: what is shorter is none.
const HEADER: u64 = 12;

/// A record and room for a message.
#[repr(C)]
struct Entry<const CAPACITY: usize> {
    record: DnsRecord,
    message: [u8; CAPACITY],
}

/// Copies the message of a datagram into the ring.
#[inline(always)]
pub fn tell(ctx: &SkBuffContext, datagram: &Datagram, leaving: u16) {
    let present = context!(ctx.as_ptr(), __sk_buff, len).saturating_sub(datagram.offset);
    let length = u64::from(present.min(u32::from(datagram.length)));
    if length > DnsRecord::SHORT as u64 {
        copy::<{ DnsRecord::LONG }>(ctx, datagram, leaving, length.min(DnsRecord::LONG as u64));
    } else {
        copy::<{ DnsRecord::SHORT }>(ctx, datagram, leaving, length);
    }
}

/// The same number, of which the compiler knows nothing.
#[inline(always)]
fn hidden(mut number: u64) -> u64 {
    // SAFETY: copies a register into itself.
    unsafe { core::arch::asm!("{number} = {number}", number = inout(reg) number, options(pure, nomem, nostack)) };
    number
}

#[inline(always)]
fn copy<const CAPACITY: usize>(ctx: &SkBuffContext, datagram: &Datagram, leaving: u16, length: u64) {
    // The verifier has to see each bound in the register that is passed on, and the one of kernel 5.10 does not see what the compiler would make of
    // both together: a subtraction and one comparison.
    let length = hidden(length);
    if length > CAPACITY as u64 {
        return;
    }
    let length = hidden(length);
    if length < HEADER {
        return;
    }
    let Some(mut entry) = DNS_RING.reserve::<Entry<CAPACITY>>(0) else { return count(counter::DNS_RING_FULL) };
    let place = entry.as_mut_ptr();
    // SAFETY: `place` is memory of the ring, as large as the type. Every member of the record is written, the message as far as `copied` tells;
    // what lies behind it was written by other records of this ring and is not read.
    let copied = unsafe {
        (*place).record = DnsRecord {
            header: RecordHeader { at_ns: now(), kind: kind::DNS_MESSAGE, length: (size_of::<DnsRecord>() as u64 + length) as u32 },
            cgroup_id: bpf_skb_cgroup_id(ctx.as_ptr().cast()),
            server: datagram.source,
            client: datagram.destination,
            client_port: datagram.destination_port,
            message_length: datagram.length,
            copied: length as u16,
            leaving,
        };
        bpf_skb_load_bytes(ctx.as_ptr(), datagram.offset, (&raw mut (*place).message).cast(), length as u32)
    };
    if copied == 0 {
        entry.submit(0);
    } else {
        entry.discard(0);
    }
}
