//! Building the kernel programs. They are a workspace of their own, for a target of their own, by one of two routes (`toolchain`).

pub(crate) mod install;
pub(crate) mod toolchain;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::progress::{note, stream};
use crate::{Checkout, in_ci, machine};
use toolchain::Route;

/// BPF bytecode for little-endian machines: x86-64 and arm64 both.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Builds every binary of `probe-ebpf/` and puts it into `target/bpf/<name>.o`, where the probe's build script finds it. Returns the files.
pub(crate) fn build(checkout: &Checkout) -> Result<Vec<PathBuf>> {
    build_for(checkout, std::env::consts::ARCH)
}

/// Where the kernel programs for machines of this kind are put: `target/bpf` for this machine's own kind, a directory beside it for others.
pub(crate) fn objects(checkout: &Checkout, architecture: &str) -> PathBuf {
    let own = architecture == std::env::consts::ARCH;
    checkout.target().join(if own { "bpf".to_owned() } else { format!("bpf-{architecture}") })
}

/// The same for machines of another kind, as the kernel names it: the programs read that machine's registers.
pub(crate) fn build_for(checkout: &Checkout, architecture: &str) -> Result<Vec<PathBuf>> {
    let Some(route) = toolchain::find(checkout).ready else {
        bail!("no way to build the kernel programs is ready here; `cargo xtask doctor` says what is missing");
    };
    note(&format!("route: {}", route.description()));
    let names = binaries(checkout)?;
    let built = compile(checkout, &route, architecture, &checkout.target().join("bpf-build"))?;
    let objects = objects(checkout, architecture);
    std::fs::create_dir_all(&objects).with_context(|| format!("cannot make {}", objects.display()))?;
    names.iter().map(|name| place(&built.join(name), &objects.join(format!("{name}.o")))).collect()
}

/// Builds them once more, from nothing and in another directory, and looks that they are the same bytes.
pub(crate) fn build_again(checkout: &Checkout, architecture: &str) -> Result<()> {
    let Some(route) = toolchain::find(checkout).ready else { bail!("no way to build the kernel programs is ready here") };
    let elsewhere = tempfile::tempdir().context("there is no room for a second build")?;
    let built = compile(checkout, &route, architecture, elsewhere.path())?;
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    for name in binaries(checkout)? {
        let first = objects(checkout, architecture).join(format!("{name}.o"));
        ensure!(read(&first)? == read(&built.join(&name))?, "{name}: a second build is not the same as {}", first.display());
        note(&format!("{name}: built again, the same bytes"));
    }
    Ok(())
}

/// Compiles them in a directory of cargo's; where they are then.
fn compile(checkout: &Checkout, route: &Route, architecture: &str, directory: &Path) -> Result<PathBuf> {
    let mut command = prepared(checkout, route, route.cargo("build"), architecture);
    command.args(["--release", "--bins", "--target", TARGET]).arg("--target-dir").arg(directory);
    if in_ci() && checkout.root().join("probe-ebpf/Cargo.lock").exists() {
        command.arg("--locked");
    }
    stream("building the kernel programs", &mut command)?;
    Ok(directory.join(TARGET).join("release"))
}

/// Lints the kernel programs, where the route's toolchain has clippy. `None` where it has not.
pub(crate) fn clippy(checkout: &Checkout) -> Option<Command> {
    let route = toolchain::find(checkout).ready?;
    let mut command = prepared(checkout, &route, route.clippy()?, std::env::consts::ARCH);
    command.args(["--release", "--bins", "--target", TARGET, "--target-dir"]).arg(checkout.target().join("bpf-build"));
    command.args(["--", "-D", "warnings"]);
    Some(command)
}

/// A command in `probe-ebpf/` with everything that the target needs besides the route's own.
fn prepared(checkout: &Checkout, route: &Route, mut command: Command, architecture: &str) -> Command {
    machine::forget_this_package(&mut command);
    command.current_dir(checkout.root().join("probe-ebpf"));
    command.env_remove("RUSTFLAGS");
    command.env("CARGO_ENCODED_RUSTFLAGS", compiler_flags(checkout, route.linker(), architecture).join("\u{1f}"));
    command
}

/// The linker, type information for the kernel, and the machine whose registers the programs read.
fn compiler_flags(checkout: &Checkout, linker: &Path, architecture: &str) -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let mut flags = vec![
        // The same programs become the same bytes with the same compiler and linker, wherever they are built: places are in what debuggers read.
        format!("--remap-path-prefix={}=.", checkout.root().display()),
    ];
    flags.extend(home.map(|home| format!("--remap-path-prefix={}=cargo", home.display())));
    flags.extend([
        "-C".to_owned(),
        format!("linker={}", linker.display()),
        "-C".to_owned(),
        "link-arg=--btf".to_owned(),
        // Otherwise the linker makes every zeroed and every copied structure the call of a loop, which the kernel refuses to a probe without
        // CAP_PERFMON.
        "-C".to_owned(),
        "link-arg=--disable-expand-memcpy-in-order".to_owned(),
        "-C".to_owned(),
        "debuginfo=2".to_owned(),
        "--cfg".to_owned(),
        format!("bpf_target_arch=\"{architecture}\""),
    ]);
    flags
}

/// The names of the kernel programs' binaries.
fn binaries(checkout: &Checkout) -> Result<BTreeSet<String>> {
    let manifest = checkout.root().join("probe-ebpf/Cargo.toml");
    let mut command = machine::cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(&manifest);
    let text = machine::output(&mut command).with_context(|| format!("cannot read {}", manifest.display()))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let targets =
        metadata["packages"].as_array().into_iter().flatten().flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let is_binary = |target: &&Value| target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin"));
    let names: BTreeSet<_> = targets.filter(is_binary).filter_map(|target| target["name"].as_str().map(str::to_owned)).collect();
    if names.is_empty() {
        bail!("{} names no binary", manifest.display());
    }
    Ok(names)
}

/// Copies an object where it is wanted; one that is the same already stays untouched, so that nothing that embeds it is built again.
fn place(from: &Path, to: &Path) -> Result<PathBuf> {
    let object = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|present| present == object) {
        note(&format!("{} is up to date", to.display()));
    } else {
        std::fs::write(to, &object).with_context(|| format!("cannot write {}", to.display()))?;
        note(&format!("{} ({} KiB)", to.display(), object.len() / 1024));
    }
    Ok(to.to_path_buf())
}
