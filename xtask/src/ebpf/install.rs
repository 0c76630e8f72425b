//! Getting a route to BPF bytecode where none is ready.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::toolchain::{self, LINKER_LLVM, LINKER_VERSION};
use crate::progress::{note, quietly, stream};
use crate::{Checkout, machine, setup};

/// The oldest distribution compiler that compiles the kernel programs' libraries.
const OLDEST_RUSTC: (u32, u32) = (1, 95);
/// With what LLVM's packages are signed, and where it is kept.
const LLVM_KEY: &str = "https://apt.llvm.org/llvm-snapshot.gpg.key";
const LLVM_KEYRING: &str = "/etc/apt/keyrings/llvm.asc";
/// Fetches that key.
const CURL: setup::Tool = setup::Tool { program: "curl", packages: &["curl", "ca-certificates"], purpose: "the key of LLVM's packages" };
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
    let package = format!("llvm-{llvm}-dev");
    offer_llvm(checkout, llvm, &package)?;
    setup::packages(checkout, &[&package], "the BPF linker")
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

/// Sees to it that apt knows the package of LLVM: no Ubuntu has one as new as the compiler's, but LLVM has packages for each Ubuntu.
fn offer_llvm(checkout: &Checkout, llvm: u32, package: &str) -> Result<()> {
    let is_known = || machine::package_installed(package) || machine::package_candidate(package).is_some();
    if is_known() || !machine::has_apt() {
        return Ok(());
    }
    let Some(release) = ubuntu_release(machine::os_release) else { return Ok(()) };
    let what_to_do = || llvm_by_hand(&release, llvm);
    if !machine::can_become_root() {
        bail!("{}", what_to_do());
    }
    setup::refresh_index(checkout)?;
    if is_known() {
        return Ok(());
    }
    note(&format!("Ubuntu has no {package}: adding LLVM's own package source, {}", llvm_list(llvm)));
    setup::tools(checkout, &[CURL])?;
    add_llvm_source(checkout, &release, llvm).with_context(what_to_do)?;
    if !is_known() {
        remove_llvm_source(checkout, llvm);
        bail!("LLVM's package source has no {package} for Ubuntu {release}. {}", what_to_do());
    }
    Ok(())
}

fn add_llvm_source(checkout: &Checkout, release: &str, llvm: u32) -> Result<()> {
    setup::ask_for_password_once()?;
    let (key, list) = (checkout.notes().join("llvm.asc"), checkout.notes().join("llvm.list"));
    let mut fetch = Command::new("curl");
    fetch.args(["--fail", "--silent", "--show-error", "--location", "--max-time", "60", "--output"]).arg(&key).arg(LLVM_KEY);
    quietly("fetching the key of LLVM's packages", &mut fetch, &checkout.notes().join("llvm-key.log"))?;
    fs::write(&list, llvm_source(release, llvm)).context("writing the package source of LLVM")?;
    for (from, to) in [(&key, LLVM_KEYRING.to_owned()), (&list, llvm_list(llvm))] {
        let mut install = machine::as_root("install");
        install.args(["-D", "-m", "0644"]).arg(from).arg(&to);
        quietly(&format!("writing {to}"), &mut install, &checkout.notes().join("llvm-source.log"))?;
    }
    let fetched = quietly(
        "fetching the package index of LLVM",
        machine::as_root("apt-get").args(["update", "-q"]),
        &checkout.notes().join("apt-update-llvm.log"),
    );
    // A source that cannot be read would be in the way of every later update.
    if fetched.is_err() {
        remove_llvm_source(checkout, llvm);
    }
    fetched
}

fn remove_llvm_source(checkout: &Checkout, llvm: u32) {
    let list = llvm_list(llvm);
    let removed = quietly(
        &format!("removing {list}"),
        machine::as_root("rm").arg("-f").arg(&list),
        &checkout.notes().join("llvm-source-removed.log"),
    );
    if removed.is_err() {
        note(&format!("{list} is of no use and could not be removed: sudo rm {list}"));
    }
}

/// The release of Ubuntu whose packages fit this machine, from os-release; `None` where that is no Ubuntu.
fn ubuntu_release(value: impl Fn(&str) -> Option<String>) -> Option<String> {
    // What is made from Ubuntu says from which.
    let of_ubuntu = || value("VERSION_CODENAME").filter(|_| value("ID").as_deref() == Some("ubuntu"));
    let release = value("UBUNTU_CODENAME").or_else(of_ubuntu)?;
    (!release.is_empty() && release.bytes().all(|byte| byte.is_ascii_lowercase())).then_some(release)
}

/// The file of apt's that names LLVM's package source.
fn llvm_list(llvm: u32) -> String {
    format!("/etc/apt/sources.list.d/orchestrator-llvm-{llvm}.list")
}

/// What stands in it. The key is trusted for this source alone.
fn llvm_source(release: &str, llvm: u32) -> String {
    format!("deb [signed-by={LLVM_KEYRING}] https://apt.llvm.org/{release}/ llvm-toolchain-{release}-{llvm} main\n")
}

fn llvm_by_hand(release: &str, llvm: u32) -> String {
    let source = llvm_source(release, llvm);
    setup::ways(
        &format!("LLVM {llvm} is needed for the BPF linker, and Ubuntu {release} has none that new. With LLVM's own packages:"),
        &[format!(
            "sudo curl --fail --location --output {LLVM_KEYRING} {LLVM_KEY}\n     \
             echo '{}' | sudo tee {}\n     \
             sudo apt-get update && sudo apt-get install llvm-{llvm}-dev\n     \
             Where the network lets none of this through, somebody has to bring /usr/lib/llvm-{llvm}; see https://apt.llvm.org",
            source.trim_end(),
            llvm_list(llvm)
        )],
    )
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
                 cargo install bpf-linker --version {LINKER_VERSION} --no-default-features --features llvm-22   (with the LLVM that `rustc +nightly -vV` names;\n     Ubuntu's packages of it: https://apt.llvm.org)"
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

    #[test]
    fn llvm_comes_from_its_own_source_on_ubuntu_and_on_what_is_made_from_it() {
        let release =
            |text: &str| ubuntu_release(|key| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned));
        assert_eq!(release("ID=ubuntu\nVERSION_CODENAME=noble").as_deref(), Some("noble"));
        assert_eq!(release("ID=linuxmint\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble").as_deref(), Some("noble"));
        assert_eq!(release("ID=debian\nVERSION_CODENAME=trixie"), None);
        assert_eq!(release("ID=ubuntu\nVERSION_CODENAME=no/ble"), None);
        assert_eq!(
            llvm_source("noble", 22),
            "deb [signed-by=/etc/apt/keyrings/llvm.asc] https://apt.llvm.org/noble/ llvm-toolchain-noble-22 main\n"
        );
        let words = llvm_by_hand("noble", 22);
        assert!(words.contains("llvm-toolchain-noble-22") && words.contains("apt-get install llvm-22-dev"), "{words}");
        // The workflows, which add it beforehand, take it from the same place.
        let action = include_str!("../../../.github/actions/rust/action.yml");
        assert!(action.contains(LLVM_KEY) && action.contains("https://apt.llvm.org/noble/ llvm-toolchain-noble-$version main"));
    }
}
