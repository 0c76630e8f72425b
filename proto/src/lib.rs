//! The words that cross a process boundary.
//!
//! Owns the `.proto` files and the types generated from them, and nothing else: no conversion, no defaults, no logic. Conversions live in
//! the room that speaks the other language (`control-plane/src/grpc`, `probe-user/src/report.rs`).

/// Messages and service of the probe's stream, `orchestrator.probe.v1`.
pub mod probe {
    /// Version 1.
    #[allow(missing_docs, clippy::all, reason = "generated; the .proto file has the comments")]
    pub mod v1 {
        tonic::include_proto!("orchestrator.probe.v1");
    }
}

/// Messages and service of the link between Mesos agents and the master, `orchestrator.agent.v1`.
pub mod agent {
    /// Version 1.
    #[allow(missing_docs, clippy::all, reason = "generated; the .proto file has the comments")]
    pub mod v1 {
        tonic::include_proto!("orchestrator.agent.v1");
    }
}

/// Messages and service of the API of ZooKeeper sync, `orchestrator.zksync.v1`.
pub mod zksync {
    /// Version 1.
    #[allow(missing_docs, clippy::all, reason = "generated; the .proto file has the comments")]
    pub mod v1 {
        tonic::include_proto!("orchestrator.zksync.v1");
    }
}

/// What clients of a control plane speak, `orchestrator.control.v1`.
pub mod control {
    /// Version 1.
    #[allow(missing_docs, clippy::all, reason = "generated; the .proto file has the comments")]
    pub mod v1 {
        tonic::include_proto!("orchestrator.control.v1");
    }

    /// The files that describe these services, as a reflection service hands them out: a `FileDescriptorSet`.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/served.bin"));
}

/// What the probe asks container runtimes, `runtime.v1`: a part of Kubernetes' Container Runtime Interface.
pub mod cri {
    /// Version 1.
    #[allow(missing_docs, clippy::all, reason = "generated; the .proto file has the comments")]
    pub mod v1 {
        tonic::include_proto!("runtime.v1");
    }
}
