//! The developer's, the user's and CI's one entry: `cargo xtask up`, `cargo xtask test`.
//!
//! It gets what the machine lacks, builds the kernel programs, the UI and the binaries, runs them, tests and measures them, and says each thing
//! it does. It is a small program that compiles fast: no async runtime, no eBPF library, nothing of the product's own code. What it knows of the
//! product is what a user knows: command lines, addresses and JSON.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "talking to the person at the terminal is what this program is for")]

mod bench;
mod build;
mod coverage;
mod deploy;
mod doctor;
mod ebpf;
mod flags;
mod images;
mod licences;
mod lint;
mod load;
mod machine;
mod packages;
mod progress;
mod services;
mod setup;
mod test;
mod ui;
mod up;
mod vm_test;

pub mod http;
pub mod stack;
pub mod traffic;
pub mod websocket;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;

pub use licences::{ALLOWED as ALLOWED_LICENCES, forbidden_dependencies, unlisted_licences};

/// Parses the command line, runs the command and turns its outcome into an exit code.
pub fn main() -> ExitCode {
    let flags = flags::Flags::parse();
    match flags.run(&Checkout::here()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\n{} {error:#}", progress::red("error:"));
            ExitCode::FAILURE
        }
    }
}

/// The checkout that this xtask was built from, and the places it writes to.
#[derive(Clone, Debug)]
pub struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The checkout that holds this crate.
    #[must_use]
    pub fn here() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { root: manifest.parent().unwrap_or(manifest).to_path_buf() }
    }

    /// Its top directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo puts what it builds.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(directory) => self.root.join(directory),
            None => self.root.join("target"),
        }
    }

    /// Tools that xtask installed for itself.
    #[must_use]
    pub fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// Notes and logs of xtask's own.
    #[must_use]
    pub fn notes(&self) -> PathBuf {
        self.target().join("xtask")
    }

    /// Data, logs and process ids of `cargo xtask up`.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.root.join(".orchestrator")
    }

    /// A binary of the workspace.
    #[must_use]
    pub fn binary(&self, profile: Profile, name: &str) -> PathBuf {
        self.target().join(profile.directory()).join(name)
    }
}

/// How the binaries are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Debug,
    /// Quick to run.
    Release,
}

impl Profile {
    fn directory(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// Whether a missing component is a failure (in continuous integration) or something to say and go on.
#[must_use]
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}
