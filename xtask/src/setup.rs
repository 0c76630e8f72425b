//! Getting what the machine lacks: through apt, where it is there and root can be had; otherwise one clear message with the commands.

use std::cell::Cell;
use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Result, bail};

use crate::ebpf::{self, toolchain};
use crate::progress::{note, quietly};
use crate::{Checkout, deploy, in_ci, machine, ui};

thread_local! {
    /// Whether the package index was fetched by this run.
    static INDEX_IS_FRESH: Cell<bool> = const { Cell::new(false) };
}

/// A program and the Debian packages that bring it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// The program that must be on the path.
    pub(crate) program: &'static str,
    /// What brings it.
    pub(crate) packages: &'static [&'static str],
    /// What it is needed for, for people.
    pub(crate) purpose: &'static str,
}

/// Compiles the C parts of some crates (the memory allocator) and links.
pub(crate) const C_COMPILER: Tool = Tool { program: "cc", packages: &["build-essential"], purpose: "compiling and linking" };
/// Builds the memory allocator.
pub(crate) const MAKE: Tool = Tool { program: "make", packages: &["build-essential"], purpose: "building the memory allocator" };
/// Runs containers.
pub(crate) const DOCKER: Tool = Tool { program: "dockerd", packages: &["docker.io", "iptables"], purpose: "tests with containers" };
/// Shows the page in tests.
pub(crate) const BROWSER: Tool = Tool { program: "chromium", packages: &["chromium"], purpose: "tests of the page" };
/// A root file system in one program, for test containers and for the agent's image.
pub(crate) const BUSYBOX: Tool = Tool { program: "busybox", packages: &["busybox-static"], purpose: "images with a shell" };
/// What the load balancer keeps.
pub(crate) const HAPROXY: Tool = Tool { program: "haproxy", packages: &["haproxy"], purpose: "the load balancer's tests" };
/// Makes requests, many at once.
pub(crate) const WRK: Tool = Tool { program: "wrk", packages: &["wrk"], purpose: "load in benchmarks" };
/// Makes network namespaces.
pub(crate) const IP: Tool = Tool { program: "ip", packages: &["iproute2"], purpose: "tests with network namespaces" };
/// Translates addresses.
const NFT: Tool = Tool { program: "nft", packages: &["nftables"], purpose: "tests with connections that are translated" };
/// Looks into the table of connections.
const CONNTRACK: Tool = Tool { program: "conntrack", packages: &["conntrack"], purpose: "tests with connections that are translated" };
/// Servers for tests; they are started from the library, which puts no program on the path.
const ZOOKEEPER: [&str; 2] = ["zookeeper", "default-jre-headless"];

/// What building the binaries needs, kernel programs and UI included.
pub(crate) fn for_building(checkout: &Checkout) -> Result<()> {
    tools(checkout, &[C_COMPILER, MAKE])?;
    for_kernel_programs(checkout)?;
    ui::set_up(checkout)
}

/// What building the kernel programs needs: one of the two routes.
pub(crate) fn for_kernel_programs(checkout: &Checkout) -> Result<()> {
    let found = toolchain::find(checkout);
    if let Some(route) = &found.ready {
        note(&format!("kernel programs: {}", route.description()));
        return Ok(());
    }
    ebpf::install::install(checkout)
}

/// What the tests need beyond building.
pub(crate) fn for_testing(checkout: &Checkout) -> Result<()> {
    tools(checkout, &[BUSYBOX, IP, NFT, CONNTRACK, BROWSER, DOCKER, HAPROXY])?;
    packages(checkout, &ZOOKEEPER, "tests with ZooKeeper")?;
    deploy::set_up(checkout)
}

/// What formatting and lint checks need.
pub(crate) fn for_linting(checkout: &Checkout) -> Result<()> {
    rust_component("rustfmt")?;
    rust_component("clippy")?;
    ebpf::install::install_clippy(checkout)
}

/// Installs the packages of the tools that are not there.
pub(crate) fn tools(checkout: &Checkout, tools: &[Tool]) -> Result<()> {
    for tool in tools {
        if machine::program(tool.program).is_none() {
            packages(checkout, tool.packages, tool.purpose)?;
        }
    }
    Ok(())
}

/// Installs Debian packages; where that cannot be done here, says how.
pub(crate) fn packages(checkout: &Checkout, packages: &[&str], purpose: &str) -> Result<()> {
    let missing: Vec<_> = packages.iter().copied().filter(|package| !machine::package_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get update && apt-get install --no-install-recommends -y {}", missing.join(" "));
    if !machine::has_apt() {
        bail!(
            "{purpose} needs {}, and {} has no apt to get it from. Install the same things with your package manager, then run this again. On Debian and Ubuntu:\n    sudo sh -c '{command}'",
            missing.join(" "),
            machine::distribution()
        );
    }
    if !machine::can_become_root() {
        bail!("{purpose} needs packages that only root can install, and there is no sudo here. As root:\n    {command}");
    }
    note(&format!("installing {} (for {purpose})", missing.join(" ")));
    refresh_index(checkout)?;
    let mut install = machine::as_root("env");
    install.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--no-install-recommends", "-y", "-q"]).args(&missing);
    quietly(&format!("installing {}", missing.join(" ")), &mut install, &checkout.notes().join("apt-install.log"))
}

/// Fetches the package index, once a run.
pub(crate) fn refresh_index(checkout: &Checkout) -> Result<()> {
    if INDEX_IS_FRESH.get() || !machine::has_apt() {
        return Ok(());
    }
    ask_for_password_once()?;
    quietly("fetching the package index", machine::as_root("apt-get").args(["update", "-q"]), &checkout.notes().join("apt-update.log"))?;
    INDEX_IS_FRESH.set(true);
    Ok(())
}

/// Lets sudo ask for its password now, where the question can be seen, rather than below a moving line.
pub(crate) fn ask_for_password_once() -> Result<()> {
    if machine::is_root() {
        return Ok(());
    }
    if machine::program("sudo").is_none() {
        bail!("this needs root, and there is no sudo here. Run the same command as root.");
    }
    let status = Command::new("sudo").arg("--validate").status()?;
    if !status.success() {
        bail!("this needs root, and sudo did not allow it. Run the same command as root.");
    }
    Ok(())
}

/// Adds a component to the Rust toolchain where it is missing.
fn rust_component(name: &str) -> Result<()> {
    let program = if name == "rustfmt" { "cargo-fmt" } else { "cargo-clippy" };
    let works = machine::output(machine::cargo().arg(program.trim_start_matches("cargo-")).arg("--version")).is_some();
    if works {
        return Ok(());
    }
    if machine::program("rustup").is_none() {
        bail!("{name} is missing, and there is no rustup to get it with. Install it the way Rust was installed here.");
    }
    note(&format!("adding {name} to the Rust toolchain"));
    let status = Command::new("rustup").args(["component", "add", name]).status()?;
    if !status.success() {
        bail!("{name} is missing and could not be added: rustup component add {name}");
    }
    Ok(())
}

/// What to say where something optional is missing: a failure in continuous integration, a remark elsewhere.
pub(crate) fn missing(what: &str) -> Result<()> {
    if in_ci() {
        bail!("{what}; in continuous integration that is a failure");
    }
    note(&format!("{what}; going on without"));
    Ok(())
}

/// Several ways out of the same difficulty, numbered.
pub(crate) fn ways(introduction: &str, ways: &[String]) -> String {
    let mut text = introduction.to_owned();
    for (index, way) in ways.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {}. {way}", index + 1);
    }
    text
}
