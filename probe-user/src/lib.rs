//! The node daemon: what the kernel, `/proc` and the container runtimes of one node know of connections, processes and containers, told to
//! the control plane as one stream of reports.
//!
//! The middle is pure and knows neither clock nor socket: [`processes`], [`flows`], [`listeners`], [`unix_flows`], [`cgroups`] and [`containers`] are tables, [`report`] says
//! what of them is new, [`outbox`] holds what is not acknowledged, [`publisher`] decides what is told when. Around it are the edges:
//! [`capture`] climbs the ladder from kernel programs ([`ebpf`]) down to `/proc` ([`fallback`]) and finds what was there before ([`snapshot`]),
//! [`procfs`], [`sockets`], [`unix`], [`cgroupfs`], [`conntrack`], [`host`], [`users`], [`docker`] and [`cri`] read what they are named after, [`uplink`]
//! holds the stream. The [`driver`] owns the middle, and [`app`] starts everything. [`kubernetes`] is the same for a
//! cluster: a collector in place of the capture, and a stream of its own. [`local`] is for whoever sits at the machine and has no control plane.

pub mod app;
pub mod config;
pub mod identity;

pub mod driver;
pub mod publisher;
pub mod stream;

pub mod observation;

pub mod cgroups;
pub mod containers;
pub mod flows;
pub mod listeners;
pub mod mask;
pub mod outbox;
pub mod processes;
pub mod reload;
pub mod report;
mod runtimes;
pub mod unix_flows;

pub mod connections;

pub mod dns;

pub mod budget;
pub mod capture;
pub mod cgroupfs;
pub mod conntrack;
pub mod cri;
pub mod docker;
pub mod ebpf;
pub mod fallback;
pub mod host;
pub mod kubernetes;
pub mod local;
pub mod procfs;
pub mod snapshot;
pub mod sockets;
pub mod unix;
pub mod users;

pub mod admin;
pub mod uplink;

pub mod clock;
pub mod random;
pub mod supervise;
pub mod telemetry;
