//! Compiles the .proto files with protox, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new("proto");
    let files = [
        "orchestrator/probe/v1/probe.proto",
        "orchestrator/agent/v1/agent.proto",
        "orchestrator/zksync/v1/zksync.proto",
        "runtime/v1/api.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(files, [root])?;
    // Bytes of pipes are handed on without being copied.
    tonic_prost_build::configure().bytes(".orchestrator.probe.v1.Pipe.data").compile_fds(descriptors)?;
    Ok(())
}
