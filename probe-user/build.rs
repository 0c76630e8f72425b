//! Puts the compiled kernel programs into the probe, when `cargo xtask build-ebpf` has made them.
//!
//! They are looked for in `target/bpf` of the workspace, or where `ORCHESTRATOR_BPF_DIR` says. Without them the probe builds and runs, and
//! says that it was built without kernel programs.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

const OBJECTS: [&str; 3] = ["sockets.o", "processes.o", "dns.o"];

fn main() -> io::Result<()> {
    println!("cargo::rustc-check-cfg=cfg(kernel_programs)");
    println!("cargo::rerun-if-env-changed=ORCHESTRATOR_BPF_DIR");
    let directory = directory();
    for object in OBJECTS {
        println!("cargo::rerun-if-changed={}", directory.join(object).display());
    }
    if OBJECTS.iter().all(|object| directory.join(object).is_file()) {
        let out = PathBuf::from(variable("OUT_DIR"));
        for object in OBJECTS {
            fs::copy(directory.join(object), out.join(object))?;
        }
        println!("cargo::rustc-cfg=kernel_programs");
    }
    Ok(())
}

fn directory() -> PathBuf {
    match env::var_os("ORCHESTRATOR_BPF_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(&variable("CARGO_MANIFEST_DIR")).join("../target/bpf"),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}
