//! Kernel programs of the probe. They collect, count and pass on; they never decide.
//!
//! Three objects, so that a kernel which refuses one still runs the others:
//!
//! * `sockets`: TCP connections, UDP and listeners. One `sock_ops` program and hooks for calls of processes at the root of the cgroup2
//!   hierarchy, and an iterator over their sockets. They read stable contexts; kernel memory only where the probe may and its BTF is known.
//! * `processes`: raw tracepoints of processes and cgroups.
//! * `dns`: answers of DNS servers, at the cgroups that the probe chooses.
//!
//! Rules that hold for every file here:
//!
//! * A program at a cgroup returns 1, always: 0 would refuse the user's system call.
//! * Log lines (`aya-log`) are for work on a hook. The loader sets their level to none, and the verifier removes them.
//! * A program that the kernel calls asks [`control::is_awake`] first: what is left of a probe that was removed costs nothing.
//! * Nothing is dropped without a counter (`probe_common::counter`).
//! * Loops are bounded; there is one, over the extension headers of IPv6.
//! * `current` is asked for in process context alone (calls on sockets, tracepoints of processes), never in `sock_ops`: there it is whoever
//!   was interrupted.
//! * What runs per datagram or per TCP callback sorts out what it has no business with first, and reads no clock unless somebody is told.
//! * Offsets of kernel members come from [`settings`]; what has no offset is left out. No relocation by the loader is needed.
//!
//! # How this is built
//!
//! This is a workspace of its own. `cargo xtask build-ebpf` runs, in this directory, one of
//!
//! ```text
//! # a distribution's toolchain with a prebuilt core for BPF (Debian: rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22-dev)
//! PATH=/usr/lib/llvm-22/bin:$PATH RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_ENCODED_RUSTFLAGS=… \
//!     /usr/bin/cargo build --locked --release --target bpfel-unknown-none --target-dir ../target/bpf-build
//! # rustup: nightly with rust-src
//! CARGO_ENCODED_RUSTFLAGS=… \
//!     cargo +nightly build --locked --release --target bpfel-unknown-none --target-dir ../target/bpf-build -Z build-std=core
//! ```
//!
//! with the flags `-C linker=bpf-linker -C link-arg=--btf -C link-arg=--disable-expand-memcpy-in-order -C debuginfo=2
//! --remap-path-prefix=…` (so that they are the same bytes wherever they are built) `--cfg bpf_target_arch="x86_64"` (or `"aarch64"`: the machine that
//! will run them), and copies `../target/bpf-build/bpfel-unknown-none/release/{sockets,processes,dns}` to `../target/bpf/{sockets,processes,dns}.o`,
//! where the build script of `orchestrator-probe` finds them (`ORCHESTRATOR_BPF_DIR` names another directory).
#![no_std]
#![feature(asm_experimental_arch)]

pub mod context;
pub mod control;
pub mod counters;
pub mod settings;
pub mod task;

/// Ends the program. The verifier rejects any path that could come here.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Now, by the boot clock, in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no arguments and no preconditions.
    unsafe { aya_ebpf::helpers::bpf_ktime_get_boot_ns() }
}
