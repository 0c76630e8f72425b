//! Reading contexts, and adding to memory that other CPUs add to.
//!
//! The verifier wants a context to be read at a constant offset from the untouched pointer. The compiler likes to merge the loads of two
//! branches into one at a computed offset, which is refused at load time. So contexts are read by one instruction that it cannot merge.

/// Reads a 32-bit member of a context: `context!(pointer, Type, member)`, or the n-th word of a member: `context!(pointer, Type, member[n])`.
#[macro_export]
macro_rules! context {
    ($pointer:expr, $type:ty, $member:ident) => {
        $crate::context!(@load $pointer, core::mem::offset_of!($type, $member))
    };
    ($pointer:expr, $type:ty, $member:ident[$n:expr]) => {
        $crate::context!(@load $pointer, core::mem::offset_of!($type, $member) + 4 * $n)
    };
    (@load $pointer:expr, $offset:expr) => {{
        let value: u64;
        // SAFETY: one load at a constant offset inside the context, whose bounds the verifier checks. `out` is never the register of
        // `in`: kernels up to 6.18 rewrite such a load wrongly for `sock_ops`.
        unsafe {
            core::arch::asm!(
                "{value} = *(u32 *)({pointer} + {offset})",
                value = out(reg) value,
                pointer = in(reg) $pointer,
                offset = const $offset,
                options(pure, readonly, nostack)
            );
        }
        value as u32
    }};
}

/// Reads a 64-bit member of a context, or a pointer: `context64!(pointer, Type, member)`.
#[macro_export]
macro_rules! context64 {
    ($pointer:expr, $type:ty, $member:ident) => {
        $crate::context64!(@load $pointer, core::mem::offset_of!($type, $member))
    };
    (@load $pointer:expr, $offset:expr) => {{
        let value: u64;
        // SAFETY: as in `context!`.
        unsafe {
            core::arch::asm!(
                "{value} = *(u64 *)({pointer} + {offset})",
                value = out(reg) value,
                pointer = in(reg) $pointer,
                offset = const $offset,
                options(pure, readonly, nostack)
            );
        }
        value
    }};
}

/// Adds atomically. The one form that kernel 5.10 knows: nothing is fetched.
///
/// # Safety
/// `target` points into a map's value.
#[inline(always)]
pub unsafe fn add64(target: *mut u64, value: u64) {
    // SAFETY: by the caller; the verifier checks it again.
    unsafe { core::arch::asm!("lock *(u64 *)({target} + 0) += {value}", target = in(reg) target, value = in(reg) value, options(nostack)) }
}

/// See [`add64`].
///
/// # Safety
/// `target` points into a map's value.
#[inline(always)]
pub unsafe fn add32(target: *mut u32, value: u32) {
    let value = u64::from(value);
    // SAFETY: by the caller; the verifier checks it again.
    unsafe { core::arch::asm!("lock *(u32 *)({target} + 0) += {value}", target = in(reg) target, value = in(reg) value, options(nostack)) }
}

/// Exchanges atomically: what was there before. Kernels before 5.12 refuse a program that holds this, even where it is never run.
///
/// # Safety
/// `target` points into a map's value.
#[inline(always)]
pub unsafe fn exchange64(target: *mut u64, value: u64) -> u64 {
    let before: u64;
    // SAFETY: by the caller; the verifier checks it again.
    unsafe {
        core::arch::asm!(
            "{value} = xchg_64({target} + 0, {value})",
            value = inout(reg) value => before,
            target = in(reg) target,
            options(nostack)
        );
    }
    before
}

/// One of two addresses. Both are read where they stand: a pointer that is one of two is refused to a probe without `CAP_PERFMON`.
#[inline(always)]
pub fn either(condition: bool, one: &[u8; 16], other: &[u8; 16]) -> [u8; 16] {
    let read = |address: &[u8; 16]| {
        let words = address.as_ptr().cast::<u64>();
        // SAFETY: 16 bytes; volatile, or the compiler would choose between the pointers. The target reads words wherever they lie in a map.
        unsafe { [words.read_volatile(), words.add(1).read_volatile()] }
    };
    let (one, other) = (read(one), read(other));
    let mask = u64::from(condition).wrapping_neg();
    let chosen = [one[0] & mask | other[0] & !mask, one[1] & mask | other[1] & !mask];
    // SAFETY: both are 16 bytes without padding.
    unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(chosen) }
}

/// An IPv4 address as it stands in contexts and kernel structures, mapped into IPv6.
#[inline(always)]
pub fn mapped(address: u32) -> [u8; 16] {
    words([0, 0, 0xffff_u32.to_be(), address])
}

/// An address of four words in network order.
#[inline(always)]
pub fn words(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are 16 bytes without padding.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
}
