//! `cargo xtask coverage` and `cargo xtask book`: what CI asks besides tests and lints, by tools that cargo gets.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::progress::{note, stream};
use crate::{Checkout, machine};

/// A program of crates.io, in the version that was tried.
struct Tool {
    package: &'static str,
    version: &'static str,
}

const LLVM_COV: Tool = Tool { package: "cargo-llvm-cov", version: "0.9.1" };
const MDBOOK: Tool = Tool { package: "mdbook", version: "0.5.4" };

/// Of the lines of the cores, how many in a hundred some test must run.
const FLOOR: &str = "85";
/// What is generated is nobody's to test.
const GENERATED: &str = "/proto/";

/// `cargo xtask coverage`: runs the tests of the pure cores, and holds them to their floor. The cores have no socket and no clock, and their tests need no
/// rights: there is no excuse for a line that no test runs. What else there is runs as programs of its own, in `cargo xtask test`.
pub(crate) fn run(checkout: &Checkout) -> Result<()> {
    get(&LLVM_COV)?;
    if machine::program("rustup").is_some() {
        stream("getting what measures", Command::new("rustup").args(["component", "add", "llvm-tools"]))?;
    }
    let mut command = llvm_cov(checkout);
    command.arg("--no-report");
    for core in cores(&checkout.root().join("control-plane/core"))? {
        command.args(["--package", &core]);
    }
    stream("running the cores' tests", &mut command)?;
    let report = checkout.target().join("coverage.lcov");
    stream(
        "writing what was run",
        llvm_cov(checkout).args(["report", "--ignore-filename-regex", GENERATED, "--lcov", "--output-path"]).arg(&report),
    )?;
    note(&format!("line by line: {}", report.display()));
    let output = llvm_cov(checkout)
        .args(["report", "--ignore-filename-regex", GENERATED, "--summary-only", "--fail-under-lines", FLOOR])
        .output()
        .context("cannot start cargo llvm-cov")?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    let summary = checkout.target().join("coverage.txt");
    std::fs::write(&summary, text.as_bytes()).with_context(|| format!("cannot write {}", summary.display()))?;
    if !output.status.success() {
        bail!("fewer than {FLOOR} of 100 lines of the cores are run by their tests: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// `cargo xtask book`: the pages of `docs/` as a site, in `target/book`.
pub(crate) fn book(checkout: &Checkout) -> Result<()> {
    get(&MDBOOK)?;
    stream("making the book", Command::new("mdbook").arg("build").current_dir(checkout.root()))?;
    note(&format!("it begins at {}", checkout.target().join("book/index.html").display()));
    Ok(())
}

fn llvm_cov(checkout: &Checkout) -> Command {
    let mut command = machine::cargo();
    command.arg("llvm-cov").current_dir(checkout.root());
    command
}

/// Gets a program, unless there is one.
fn get(tool: &Tool) -> Result<()> {
    if machine::program(tool.package).is_some() {
        return Ok(());
    }
    stream("getting a tool", machine::cargo().args(["install", "--locked", tool.package, "--version", tool.version]))
}

/// Names of the packages in a directory, in order.
fn cores(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let manifest = entry?.path().join("Cargo.toml");
        let Ok(text) = std::fs::read_to_string(&manifest) else { continue };
        let name = text.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        names.push(name.with_context(|| format!("{} names no package", manifest.display()))?.to_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_is_measured() {
        let names = cores(Checkout::here().root().join("control-plane/core").as_path()).unwrap();
        assert!(names.iter().any(|it| it == "master") && names.iter().any(|it| it == "topology") && names.len() >= 8, "{names:?}");
    }
}
