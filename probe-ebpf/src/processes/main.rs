//! Processes and cgroups.
#![no_std]
#![no_main]

mod cgroup;
mod process;
mod ring;

/// See the same in `sockets`.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
