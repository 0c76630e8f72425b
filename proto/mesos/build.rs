//! Compiles the .proto files with protox, so that no `protoc` has to be installed, and keeps their descriptors beside the generated types.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message as _;

const FILES: [&str; 8] = [
    "mesos/v1/mesos.proto",
    "mesos/v1/agent/agent.proto",
    "mesos/v1/allocator/allocator.proto",
    "mesos/v1/executor/executor.proto",
    "mesos/v1/maintenance/maintenance.proto",
    "mesos/v1/master/master.proto",
    "mesos/v1/quota/quota.proto",
    "mesos/v1/scheduler/scheduler.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("proto");
    for file in FILES {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(FILES, [root])?;
    let output = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(output.join("mesos.descriptors"), descriptors.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    // Ordered, so that two answers about one state are equal.
    config.btree_map(["."]).enable_type_names();
    config.compile_fds(descriptors)?;
    Ok(())
}
