//! The control plane from outside, over real sockets: what clients and probes see, and what bad ones do to it.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "all of this is a test, helpers too: a surprise ends it"
)]

mod compressed;
mod controls;
mod documents;
mod generated;
mod history;
mod http;
mod mesos;
mod old_probes;
mod probe;
mod probes;
mod process;
mod replicas;
mod rpc;
mod scope;
mod searching;
mod services;
mod syncing;
mod telling;
mod tls;
mod trouble;
mod websocket;
mod world;
