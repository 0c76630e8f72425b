//! Compiles the .proto files with protox, so that no `protoc` has to be installed.

use prost::Message as _;

/// What clients may ask a control plane to describe.
const SERVED: [&str; 2] = ["orchestrator/control/v1/topology.proto", "orchestrator/zksync/v1/zksync.proto"];
/// What programs of ours and runtimes say to each other.
const INTERNAL: [&str; 3] = ["orchestrator/probe/v1/probe.proto", "orchestrator/agent/v1/agent.proto", "runtime/v1/api.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new("proto");
    for file in SERVED.iter().chain(&INTERNAL) {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let described = protox::compile(SERVED, [root])?;
    let out = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    std::fs::write(std::path::Path::new(&out).join("served.bin"), described.encode_to_vec())?;
    let descriptors = protox::compile(SERVED.iter().chain(&INTERNAL), [root])?;
    // Bytes of pipes are handed on without being copied.
    tonic_prost_build::configure()
        .bytes(".orchestrator.probe.v1.Pipe.data")
        .bytes(".orchestrator.control.v1.PipeRequest.data")
        .bytes(".orchestrator.control.v1.PipeResponse.data")
        .compile_fds(descriptors)?;
    Ok(())
}
