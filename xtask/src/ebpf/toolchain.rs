//! The two routes to BPF bytecode from Rust. Looks, changes nothing.
//!
//! - *rustup*: a nightly toolchain with the `rust-src` component compiles `core` for BPF itself (`-Z build-std`).
//! - *distribution*: the distribution's compiler brings a `core` that is compiled already.
//!
//! Both end in `bpf-linker`, which must be built against an LLVM at least as new as the compiler's.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::TARGET;
use crate::{Checkout, machine};

/// The version of bpf-linker that is installed where none is there.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// The LLVM versions that this bpf-linker can be built against.
pub(crate) const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// A complete route.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    /// `cargo +<toolchain> -Z build-std=core`.
    Rustup {
        /// Name of the toolchain, e.g. `nightly`.
        toolchain: String,
        /// bpf-linker.
        linker: PathBuf,
    },
    /// The distribution's cargo and rustc.
    Distribution {
        /// Its compiler.
        compiler: DistributionCompiler,
        /// bpf-linker.
        linker: PathBuf,
    },
}

/// A compiler with a prebuilt `core` for BPF.
#[derive(Clone, Debug)]
pub(crate) struct DistributionCompiler {
    /// Its cargo.
    pub(crate) cargo: PathBuf,
    /// Its rustc.
    pub(crate) rustc: PathBuf,
    /// Version, for people.
    pub(crate) version: String,
}

/// What is here, whether or not it makes a route.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The route to take.
    pub(crate) ready: Option<Route>,
    /// A nightly toolchain with `rust-src`.
    pub(crate) nightly: Option<String>,
    /// A distribution's compiler.
    pub(crate) distribution: Option<DistributionCompiler>,
    /// A bpf-linker that starts.
    pub(crate) linker: Option<PathBuf>,
}

impl Route {
    /// Which route it is, for people.
    pub(crate) fn description(&self) -> String {
        match self {
            Self::Rustup { toolchain, linker } => format!("rustup {toolchain} with rust-src, {}", linker.display()),
            Self::Distribution { compiler, linker } => {
                format!(
                    "the distribution's {} ({}) with a prebuilt BPF core, {}",
                    compiler.rustc.display(),
                    compiler.version,
                    linker.display()
                )
            }
        }
    }

    pub(super) fn linker(&self) -> &Path {
        match self {
            Self::Rustup { linker, .. } | Self::Distribution { linker, .. } => linker,
        }
    }

    /// A cargo command of this route. What rustup's own cargo told this process about toolchains is forgotten.
    pub(super) fn cargo(&self, subcommand: &str) -> Command {
        match self {
            Self::Rustup { toolchain, .. } => {
                let mut command = Command::new("cargo");
                forget_toolchain(&mut command);
                command.arg(format!("+{toolchain}")).arg(subcommand).arg("-Zbuild-std=core");
                command
            }
            Self::Distribution { compiler, .. } => {
                let mut command = Command::new(&compiler.cargo);
                forget_toolchain(&mut command);
                command.arg(subcommand).env("RUSTC", &compiler.rustc).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }
}

impl Route {
    /// A clippy command of this route; `None` where its toolchain has no clippy. Another toolchain's would not understand the compiled `core`.
    pub(super) fn clippy(&self) -> Option<Command> {
        match self {
            Self::Rustup { toolchain, .. } => {
                machine::output(Command::new("rustup").args(["run", toolchain, "cargo-clippy", "--version"]))?;
                Some(self.cargo("clippy"))
            }
            Self::Distribution { compiler, .. } => {
                let clippy = compiler.cargo.with_file_name("cargo-clippy");
                machine::output(Command::new(&clippy).arg("--version"))?;
                let mut command = Command::new(clippy);
                forget_toolchain(&mut command);
                command.arg("clippy").env("CARGO", &compiler.cargo).env("RUSTC", &compiler.rustc).env("RUSTC_BOOTSTRAP", "1");
                Some(command)
            }
        }
    }
}

fn forget_toolchain(command: &mut Command) {
    for key in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUST_RECURSION_COUNT"] {
        command.env_remove(key);
    }
}

/// Looks for both routes; the rustup route is preferred, because it is what people who work on eBPF in Rust have and keep up to date.
pub(crate) fn find(checkout: &Checkout) -> Found {
    let nightly = nightly_with_sources();
    let distribution = distribution_compiler();
    let linkers = linkers(checkout);
    let linker_for = |llvm: Option<u32>| linkers.iter().find(|linker| linker.reads(llvm)).map(|linker| linker.path.clone());
    let by_rustup = nightly.as_ref().and_then(|toolchain| {
        let linker = linker_for(llvm_of(Command::new("rustup").args(["run", toolchain, "rustc"])))?;
        Some(Route::Rustup { toolchain: toolchain.clone(), linker })
    });
    let by_distribution = || {
        let compiler = distribution.clone()?;
        let linker = linker_for(llvm_of(&mut Command::new(&compiler.rustc)))?;
        Some(Route::Distribution { compiler, linker })
    };
    let ready = by_rustup.or_else(by_distribution);
    Found { ready, nightly, distribution, linker: linkers.into_iter().next().map(|linker| linker.path) }
}

fn nightly_with_sources() -> Option<String> {
    let list = machine::output(Command::new("rustup").args(["toolchain", "list"]))?;
    let names = list.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| name.starts_with("nightly"));
    names.map(str::to_owned).find(|name| {
        let sysroot = machine::output(Command::new("rustup").args(["run", name, "rustc", "--print", "sysroot"]));
        sysroot.is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs").exists())
    })
}

fn distribution_compiler() -> Option<DistributionCompiler> {
    let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
    if !cargo.exists() || !rustc.exists() || !has_prebuilt_core(&rustc) {
        return None;
    }
    let version = machine::output(Command::new(&rustc).arg("--version"))?;
    Some(DistributionCompiler { cargo, rustc, version })
}

fn has_prebuilt_core(rustc: &Path) -> bool {
    let Some(libraries) = machine::output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET])) else { return false };
    let Ok(entries) = std::fs::read_dir(libraries) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

/// A bpf-linker that starts.
struct Linker {
    path: PathBuf,
    /// Major version of the LLVM it loads; `None` when that is built in, and so cannot be seen.
    llvm: Option<u32>,
}

impl Linker {
    /// Whether it understands the bytecode of a compiler with this LLVM.
    fn reads(&self, compilers: Option<u32>) -> bool {
        !matches!((self.llvm, compilers), (Some(own), Some(theirs)) if own < theirs)
    }
}

/// The one xtask installed, then the one on the path; one that does not start (its LLVM is gone) does not count.
fn linkers(checkout: &Checkout) -> Vec<Linker> {
    let candidates = [Some(checkout.tools().join("bin/bpf-linker")), machine::program("bpf-linker")];
    let starts = |path: &PathBuf| path.exists() && machine::output(Command::new(path).arg("--version")).is_some();
    candidates.into_iter().flatten().filter(starts).map(|path| Linker { llvm: loaded_llvm(&path), path }).collect()
}

fn loaded_llvm(program: &Path) -> Option<u32> {
    let libraries = machine::output(Command::new("ldd").arg(program))?;
    let name = libraries.split_whitespace().find(|word| word.starts_with("libLLVM"))?;
    let digits = name.trim_start_matches("libLLVM").trim_start_matches(|character: char| !character.is_ascii_digit());
    digits.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// The major version of the LLVM inside a compiler.
pub(crate) fn llvm_of(rustc: &mut Command) -> Option<u32> {
    let text = machine::output(rustc.arg("-vV"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}
