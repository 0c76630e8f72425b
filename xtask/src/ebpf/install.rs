//! Getting a route to BPF bytecode where none is ready.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::toolchain::{self, LINKER_LLVM, LINKER_VERSION};
use crate::progress::{note, quietly, stream};
use crate::{Checkout, machine, setup};

/// The oldest distribution compiler that compiles the kernel programs' libraries.
const OLDEST_RUSTC: (u32, u32) = (1, 95);
/// Debian's names for a compiler, its cargo, and `core` prebuilt for BPF.
const COMPILER_PACKAGES: &[[&str; 3]] = &[["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"], ["rustc", "cargo", "libstd-rust-dev-bpf"]];

/// Completes the route that is nearest to being ready.
pub(crate) fn install(checkout: &Checkout) -> Result<()> {
    let found = toolchain::find(checkout);
    if found.nightly.is_none() && found.distribution.is_none() {
        install_compiler(checkout)?;
    }
    if toolchain::find(checkout).ready.is_none() {
        install_linker(checkout)?;
    }
    match toolchain::find(checkout).ready {
        Some(route) => {
            note(&format!("kernel programs: {}", route.description()));
            Ok(())
        }
        None => bail!("{}", by_hand("the tools for the kernel programs were installed, but do not work together")),
    }
}

fn install_compiler(checkout: &Checkout) -> Result<()> {
    if machine::has_apt() && machine::can_become_root() {
        setup::refresh_index(checkout)?;
        if let Some(packages) = distribution_packages() {
            return setup::packages(checkout, &packages, "compiling the kernel programs");
        }
    }
    if machine::program("rustup").is_some() {
        note("this distribution has no Rust compiler with a prebuilt BPF core; getting rustup's nightly with rust-src");
        let mut command = Command::new("rustup");
        command.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
        return quietly("installing the nightly toolchain", &mut command, &checkout.notes().join("rustup.log"))
            .with_context(|| by_hand("rustup could not install a nightly toolchain with rust-src"));
    }
    bail!("{}", by_hand("the kernel programs need a Rust compiler that can make BPF bytecode"))
}

/// The packages of a distribution compiler that is new enough; `None` when apt knows none.
pub(crate) fn distribution_packages() -> Option<[&'static str; 3]> {
    COMPILER_PACKAGES.iter().copied().find(|[compiler, _, core]| {
        let new_enough =
            machine::package_candidate(compiler).and_then(|version| leading_version(&version)).is_some_and(|it| it >= OLDEST_RUSTC);
        new_enough && machine::package_candidate(core).is_some()
    })
}

/// Clippy for the route that will be taken, where the distribution has it; without it the kernel programs are not linted.
pub(crate) fn install_clippy(checkout: &Checkout) -> Result<()> {
    const PACKAGE: &str = "rust-web-clippy";
    let of_distribution = matches!(toolchain::find(checkout).ready, Some(toolchain::Route::Distribution { .. }));
    if of_distribution && machine::package_installed("rustc-web") && machine::package_candidate(PACKAGE).is_some() {
        setup::packages(checkout, &[PACKAGE], "linting the kernel programs")?;
    }
    Ok(())
}

fn leading_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '+', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn install_linker(checkout: &Checkout) -> Result<()> {
    let llvm = compilers_llvm(checkout).context("cannot tell which LLVM the compiler for the kernel programs uses")?;
    let llvm = llvm.max(*LINKER_LLVM.start());
    let directory = format!("/usr/lib/llvm-{llvm}");
    if !LINKER_LLVM.contains(&llvm) {
        bail!(
            "the compiler for the kernel programs uses LLVM {llvm}, which bpf-linker {LINKER_VERSION} does not know; install a newer bpf-linker"
        );
    }
    setup::packages(checkout, &[&format!("llvm-{llvm}-dev")], "the BPF linker")
        .with_context(|| format!("LLVM {llvm} is needed for the BPF linker; where the distribution lacks it: https://apt.llvm.org"))?;
    note("compiling the BPF linker, once (about a minute)");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = machine::cargo();
    command.env("PATH", format!("{directory}/bin:{path}"));
    command.args(["install", "--locked", "bpf-linker", "--version", LINKER_VERSION, "--no-default-features"]);
    command.args(["--features", &format!("llvm-{llvm}"), "--root"]).arg(checkout.tools());
    command.arg("--target-dir").arg(checkout.target().join("tools-build"));
    stream("compiling the BPF linker", &mut command)
}

/// The LLVM of the compiler that `find` would choose.
fn compilers_llvm(checkout: &Checkout) -> Option<u32> {
    let found = toolchain::find(checkout);
    match (found.nightly, found.distribution) {
        (Some(nightly), _) => toolchain::llvm_of(Command::new("rustup").args(["run", &nightly, "rustc"])),
        (None, Some(compiler)) => toolchain::llvm_of(&mut Command::new(compiler.rustc)),
        (None, None) => None,
    }
}

/// The commands for a person to type.
pub(crate) fn by_hand(difficulty: &str) -> String {
    setup::ways(
        &format!("{difficulty}. One of these makes it work:"),
        &[
            format!(
                "Debian: sudo apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22-dev\n     \
                 PATH=/usr/lib/llvm-22/bin:$PATH cargo install bpf-linker --version {LINKER_VERSION} --no-default-features --features llvm-22"
            ),
            format!(
                "anywhere with rustup: rustup toolchain install nightly --profile minimal --component rust-src\n     \
                 cargo install bpf-linker --version {LINKER_VERSION} --no-default-features --features llvm-22   (with the LLVM that `rustc +nightly -vV` names)"
            ),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_debian_package_begins_with_that_of_the_compiler() {
        assert_eq!(leading_version("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(leading_version("(none)"), None);
    }
}
