//! The words of Mesos' v1 HTTP APIs.
//!
//! Owns the `.proto` files of `mesos.v1` and what follows from them alone: the generated types, their descriptors, Mesos' own JSON spelling of
//! them ([`json`]) and the framing of streamed records ([`recordio`]). No decision about any of them is made here.
//!
//! A required field of `proto2` is a plain field of the generated struct. The generated decoder does not notice when one is missing; what comes
//! from outside goes through [`json::decode_protobuf`] or [`json::from_slice`], which do.

#[cfg(feature = "json")]
pub mod json;
pub mod recordio;
#[cfg(feature = "json")]
mod schema;

/// The nouns, `mesos.v1`, and below it the APIs.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    clippy::pedantic,
    reason = "generated; names and meanings are those of the .proto files"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/mesos.v1.rs"));

    /// What an operator asks an agent.
    pub mod agent {
        include!(concat!(env!("OUT_DIR"), "/mesos.v1.agent.rs"));
    }
    /// Answers to inverse offers.
    pub mod allocator {
        include!(concat!(env!("OUT_DIR"), "/mesos.v1.allocator.rs"));
    }
    /// Between an executor and its agent.
    pub mod executor {
        include!(concat!(env!("OUT_DIR"), "/mesos.v1.executor.rs"));
    }
    /// Planned downtime.
    pub mod maintenance {
        include!(concat!(env!("OUT_DIR"), "/mesos.v1.maintenance.rs"));
    }
    /// What an operator asks the master.
    pub mod master {
        include!(concat!(env!("OUT_DIR"), "/mesos.v1.master.rs"));
    }
    /// Guarantees and limits.
    pub mod quota {
        include!(concat!(env!("OUT_DIR"), "/mesos.v1.quota.rs"));
    }
    /// Between a framework's scheduler and the master.
    pub mod scheduler {
        include!(concat!(env!("OUT_DIR"), "/mesos.v1.scheduler.rs"));
    }
}

/// The encoded `google.protobuf.FileDescriptorSet` of everything in [`v1`].
pub const FILE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mesos.descriptors"));

#[cfg(test)]
mod tests;
