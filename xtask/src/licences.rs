//! What `cargo metadata` tells of the dependencies: their licences, and whether a pure core has one that it must not have. Needs no download.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{Checkout, machine};

/// Licences that may be linked into the binaries. `deny.toml` says the same; a test compares them.
pub const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What no pure core may depend on, direct or transitive: run times, the network, clocks, random sources of the system, logging, the wire.
/// Messages alone are no wire: Mesos's cores speak the words of `mesos.v1`.
const FORBIDDEN_IN_CORES: &[&str] = &[
    "async-std",
    "axum",
    "aya",
    "bollard",
    "chrono",
    "fastrand",
    "futures",
    "getrandom",
    "hyper",
    "jiff",
    "libc",
    "log",
    "mio",
    "nix",
    "procfs",
    "proto",
    "quanta",
    "rand",
    "redb",
    "reqwest",
    "rustix",
    "serde_json",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tonic",
    "tower",
    "tracing",
    "ureq",
    "uuid",
];

/// Where the pure cores are.
const CORES: &str = "control-plane/core/";

/// Dependencies whose licence is not among the allowed ones, as `name version: licence`.
pub fn unlisted_licences(checkout: &Checkout) -> Result<Vec<String>> {
    let metadata = metadata(checkout)?;
    let packages = metadata["packages"].as_array().context("no packages in the metadata")?;
    let theirs = packages.iter().filter(|package| !package["source"].is_null());
    let unlisted = theirs.filter(|package| !package["license"].as_str().is_some_and(is_allowed));
    Ok(unlisted.map(|package| format!("{} {}: {}", text(&package["name"]), text(&package["version"]), package["license"])).collect())
}

/// Forbidden dependencies of the pure cores, as the path that leads to each.
pub fn forbidden_dependencies(checkout: &Checkout) -> Result<Vec<String>> {
    let metadata = metadata(checkout)?;
    let packages = metadata["packages"].as_array().context("no packages in the metadata")?;
    let is_core = |package: &&Value| package["source"].is_null() && text(&package["manifest_path"]).contains(CORES);
    let mut found = Vec::new();
    for core in packages.iter().filter(is_core) {
        // The metadata unites the features that all crates of the workspace ask for; the tree is that of the core alone.
        let mut command = machine::cargo();
        command.args(["tree", "--locked", "--edges=normal", "--prefix=depth", "--format= {p}", "--package", text(&core["name"])]);
        let tree = machine::output(command.current_dir(checkout.root())).context("cargo tree failed")?;
        found.extend(forbidden_in(&tree));
    }
    Ok(found)
}

/// The forbidden packages of a tree with depths, each with the path to it.
fn forbidden_in(tree: &str) -> Vec<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let (Some(depth), Some(name)) = (words.next().and_then(|depth| depth.parse().ok()), words.next()) else { continue };
        path.truncate(depth);
        path.push(name);
        if FORBIDDEN_IN_CORES.contains(&name) {
            found.push(path.join(" → "));
        }
    }
    found
}

fn metadata(checkout: &Checkout) -> Result<Value> {
    let mut command = machine::cargo();
    command.args(["metadata", "--format-version", "1", "--locked", "--manifest-path"]).arg(checkout.root().join("Cargo.toml"));
    let text = machine::output(&mut command).context("cargo metadata --locked failed; is Cargo.lock up to date?")?;
    serde_json::from_str(&text).context("cargo metadata is not JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether a licence expression can be fulfilled by allowed licences alone.
fn is_allowed(expression: &str) -> bool {
    // Before expressions were standard, a slash meant "or".
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut position = 0;
    let allowed = any_of(&words, &mut position);
    allowed && position == words.len()
}

fn any_of(words: &[&str], position: &mut usize) -> bool {
    let mut allowed = all_of(words, position);
    while words.get(*position) == Some(&"OR") {
        *position += 1;
        // Not short-circuited: the rest must be read as well.
        allowed |= all_of(words, position);
    }
    allowed
}

fn all_of(words: &[&str], position: &mut usize) -> bool {
    let mut allowed = one(words, position);
    while words.get(*position) == Some(&"AND") {
        *position += 1;
        allowed &= one(words, position);
    }
    allowed
}

fn one(words: &[&str], position: &mut usize) -> bool {
    let Some(word) = words.get(*position) else { return false };
    *position += 1;
    if *word == "(" {
        let allowed = any_of(words, position);
        *position += usize::from(words.get(*position) == Some(&")"));
        return allowed;
    }
    // "Or later" can be fulfilled by the version itself.
    let mut licence = word.trim_end_matches('+').to_owned();
    if words.get(*position) == Some(&"WITH") {
        licence = format!("{word} WITH {}", words.get(*position + 1).copied().unwrap_or_default());
        *position += 2;
    }
    ALLOWED.contains(&licence.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_allowed_alternative_is_enough_and_every_part_of_a_conjunction_is_needed() {
        assert!(is_allowed("MIT OR GPL-3.0"));
        assert!(is_allowed("MIT/Apache-2.0"));
        assert!(is_allowed("MPL-2.0+"));
        assert!(is_allowed("(GPL-2.0 OR Apache-2.0 WITH LLVM-exception) AND Unicode-3.0"));
        assert!(!is_allowed("MIT AND GPL-3.0"));
        assert!(!is_allowed("AGPL-3.0"));
        assert!(!is_allowed("MIT MIT"), "words without an operator between them");
        assert!(!is_allowed(""));
    }

    #[test]
    fn a_forbidden_dependency_is_found_through_others_with_its_path() {
        let tree = "0 topology v0.1.0 (/x)\n1 slab v1.0.0\n1 helper v1.0.0\n2 tokio v1.0.0 (*)\n1 imbl v7.0.0\n";
        assert_eq!(forbidden_in(tree), ["topology → helper → tokio"]);
    }
}
