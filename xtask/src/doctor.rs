//! `cargo xtask doctor`: what is here, what is missing, and the command that gets it.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::ebpf::toolchain::{self, LINKER_VERSION};
use crate::progress::{bold, dim, green, red, yellow};
use crate::{Checkout, machine, ui};

/// Memory that building takes, in MiB.
const MEMORY_MIB: u64 = 2_000;
/// Disk space that building takes, in MiB.
const DISK_MIB: u64 = 6_000;

/// One line of the table.
struct Line {
    what: &'static str,
    state: State,
    found: String,
}

enum State {
    Present,
    /// Without it something works less well, or only tests need it; the command that gets it.
    Optional(String),
    /// Without it `up` does not work; the command that gets it.
    Missing(String),
}

/// Prints the table. Fails when something that is needed is missing.
pub(crate) fn run(checkout: &Checkout) -> Result<ExitCode> {
    println!("{} on {}\n", bold("What is needed"), machine::distribution());
    let groups = [("To build", build_lines(checkout)), ("To see", kernel_lines()), ("To test", test_lines())];
    let mut missing = 0;
    for (title, lines) in groups {
        println!("{}", bold(title));
        for line in lines {
            missing += usize::from(matches!(line.state, State::Missing(_)));
            print(&line);
        }
    }
    if missing == 0 {
        println!("\nNothing that is needed is missing. `cargo xtask up` builds and starts everything.");
        return Ok(ExitCode::SUCCESS);
    }
    let how = if machine::has_apt() && machine::can_become_root() { "`cargo xtask up` gets what comes from packages." } else { "" };
    println!("\n{missing} needed thing(s) missing. {how}");
    Ok(ExitCode::FAILURE)
}

fn print(line: &Line) {
    let (mark, command) = match &line.state {
        State::Present => (green("ok      "), None),
        State::Optional(command) => (yellow("optional"), Some(command)),
        State::Missing(command) => (red("MISSING "), Some(command)),
    };
    println!("  {mark}  {:<22} {}", line.what, line.found);
    if let Some(command) = command {
        println!("            {:<22} {}", "", dim(&format!("→ {command}")));
    }
}

fn build_lines(checkout: &Checkout) -> Vec<Line> {
    let rust = machine::output(machine::cargo().arg("--version")).unwrap_or_default();
    vec![
        Line { what: "Rust", state: State::Present, found: rust },
        needed("C compiler", "cc", "build-essential"),
        needed("make", "make", "build-essential"),
        kernel_program_route(checkout),
        linker(checkout),
        node(checkout),
        needed("npm", "npm", "npm"),
        amount("free memory", machine::free_memory_mib(), MEMORY_MIB),
        amount("free disk", machine::free_disk_mib(checkout.root()), DISK_MIB),
    ]
}

fn kernel_program_route(checkout: &Checkout) -> Line {
    let found = toolchain::find(checkout);
    let described = match (&found.nightly, &found.distribution) {
        (Some(nightly), _) => Some(format!("rustup {nightly} with rust-src")),
        (None, Some(compiler)) => Some(format!("{} with a prebuilt BPF core", compiler.version)),
        (None, None) => None,
    };
    let command =
        "sudo apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf   or: rustup toolchain install nightly --component rust-src";
    line("compiler for eBPF", described, command)
}

fn linker(checkout: &Checkout) -> Line {
    let found = toolchain::find(checkout);
    let llvm = found.distribution.as_ref().and_then(|compiler| toolchain::llvm_of(&mut Command::new(&compiler.rustc))).unwrap_or(22);
    let command = format!(
        "sudo apt-get install llvm-{llvm}-dev && PATH=/usr/lib/llvm-{llvm}/bin:$PATH cargo install bpf-linker --version {LINKER_VERSION} --no-default-features --features llvm-{llvm}"
    );
    let fits = found.ready.is_some() || (found.nightly.is_none() && found.distribution.is_none());
    line("bpf-linker", found.linker.filter(|_| fits).map(|path| path.display().to_string()), &command)
}

fn node(checkout: &Checkout) -> Line {
    let oldest = ui::oldest_node(checkout);
    match ui::current_node(checkout) {
        Ok((path, version)) if version >= oldest => {
            Line { what: "Node.js", state: State::Present, found: format!("{version} ({})", path.display()) }
        }
        Ok((_, version)) => Line {
            what: "Node.js",
            state: State::Missing(format!("{oldest} or newer is needed; `cargo xtask up` fetches one from npm for this checkout")),
            found: version.to_string(),
        },
        Err(_) => line("Node.js", None, "sudo apt-get install nodejs npm"),
    }
}

fn kernel_lines() -> Vec<Line> {
    let lower_rung = "without it the probe stands on a lower rung (netlink and /proc) and says what it cannot see";
    let root = if machine::is_root() { Some("root".to_owned()) } else { machine::program("sudo").map(|_| "through sudo".to_owned()) };
    vec![
        Line { what: "kernel", state: State::Present, found: machine::kernel_release() },
        line("root", root, "run as root, or: apt-get install sudo"),
        optional("cgroup v2", machine::mounted("cgroup2").map(|place| place.display().to_string()), lower_rung),
        optional("kernel types (BTF)", machine::has_kernel_types().then(|| "/sys/kernel/btf/vmlinux".to_owned()), lower_rung),
        optional("eBPF", bpf_is_allowed(), lower_rung),
        optional("tracefs", tracefs(), "mount -t tracefs tracefs /sys/kernel/tracing"),
        optional("Docker", docker(), "no local Docker: containers are not shown by name. sudo apt-get install docker.io"),
    ]
}

fn test_lines() -> Vec<Line> {
    let component = |program: &str| machine::output(machine::cargo().arg(program).arg("--version"));
    vec![
        optional("clippy", component("clippy"), "rustup component add clippy"),
        optional("rustfmt", component("fmt"), "rustup component add rustfmt"),
        optional("cargo-nextest", component("nextest").map(first_line), "cargo install --locked cargo-nextest   (else cargo test is used)"),
        optional("cargo-deny", component("deny"), "cargo install --locked cargo-deny   (lint goes without it)"),
        optional_program("Chromium", "chromium", "chromium"),
        optional_program("Docker daemon", "dockerd", "docker.io iptables"),
        optional_program("busybox", "busybox", "busybox-static"),
        optional_program("iproute2", "ip", "iproute2"),
        optional_program("nftables", "nft", "nftables"),
        optional_program("conntrack", "conntrack", "conntrack"),
    ]
}

fn bpf_is_allowed() -> Option<String> {
    if machine::is_root() || machine::can_become_root() {
        return Path::new("/sys/fs/bpf").exists().then(|| "loaded by the probe, as root".to_owned());
    }
    let unprivileged = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").ok()?;
    (unprivileged.trim() == "0").then(|| "without root".to_owned())
}

fn tracefs() -> Option<String> {
    let place = machine::mounted("tracefs").or_else(|| machine::mounted("debugfs"))?;
    Some(place.display().to_string())
}

fn docker() -> Option<String> {
    let socket = Path::new("/var/run/docker.sock");
    socket.exists().then(|| socket.display().to_string())
}

fn first_line(text: String) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn needed(what: &'static str, program: &str, package: &str) -> Line {
    line(what, machine::program(program).map(|path| path.display().to_string()), &format!("sudo apt-get install {package}"))
}

fn optional_program(what: &'static str, program: &str, packages: &str) -> Line {
    optional(what, machine::program(program).map(|path| path.display().to_string()), &format!("sudo apt-get install {packages}"))
}

fn line(what: &'static str, found: Option<String>, command: &str) -> Line {
    match found {
        Some(found) => Line { what, state: State::Present, found },
        None => Line { what, state: State::Missing(command.to_owned()), found: String::new() },
    }
}

fn optional(what: &'static str, found: Option<String>, command: &str) -> Line {
    match found {
        Some(found) => Line { what, state: State::Present, found },
        None => Line { what, state: State::Optional(command.to_owned()), found: String::new() },
    }
}

fn amount(what: &'static str, mib: u64, least: u64) -> Line {
    let found = format!("{mib} MiB");
    let state = if mib >= least { State::Present } else { State::Missing(format!("a build from nothing takes about {least} MiB")) };
    Line { what, state, found }
}
