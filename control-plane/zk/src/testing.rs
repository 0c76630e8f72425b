//! Real ZooKeeper servers from Debian's packages (`zookeeper`, `default-jre-headless`), and a network between that can fail.
//!
//! Everything is on loopback with its own configuration, data directory and ports; what is started here is ended here, by pid.

mod disk;
mod old;
mod proxy;
mod server;
mod writer;

pub use disk::SlowDisk;
pub use old::OldServer;
pub use proxy::Proxy;
pub use server::{Ensemble, Release, Secure, Server, ServerOptions, available, four_letters, on_test_machine, releases};
pub use writer::Writer;
