//! TCP connections: who opened them, who accepted them, what went over them. UDP: who talks with whom. And who listens.
//!
//! Ownership lives in the socket. [`connect`] and [`bind`] run in the process that asks and write who it is into the socket's storage; the
//! kernel copies the storage of a listener into every socket that it accepts. [`tcp`] then runs in any context and knows the owner of both
//! ends. It adds to the table of [`edges`], one entry per group of connections; [`sweep`] adds what is open for long. [`udp`] does the same from the calls of processes alone ([`datagrams`],
//! [`connect`], [`release`]).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod bind;
mod census;
mod connect;
mod datagrams;
mod edges;
mod fold;
mod listeners;
mod look;
mod owners;
mod release;
mod sweep;

mod tcp;
mod udp;

/// `bpf_probe_read_kernel` is for GPL programs alone, whatever the licence of the source.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
