//! Building the web UI, only when its sources changed.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::progress::{note, quietly, stream};
use crate::{Checkout, machine, setup};

/// The version of Node.js that is fetched from npm where the distribution's is too old for the UI's tools.
const NODE_FROM_NPM: &str = "node@22";
/// What is not a source.
const NOT_SOURCES: &[&str] = &["node_modules", "dist", ".vite", "test-results"];

/// Where the UI's sources are.
fn directory(checkout: &Checkout) -> PathBuf {
    checkout.root().join("control-plane/ui")
}

/// Gets Node.js and npm, and a newer Node.js where the one that is here is too old.
pub(crate) fn set_up(checkout: &Checkout) -> Result<()> {
    if machine::program("node").is_none() || machine::program("npm").is_none() {
        setup::packages(checkout, &["nodejs", "npm"], "building the UI")?;
    }
    let oldest = oldest_node(checkout);
    if current_node(checkout)?.1 < oldest {
        note(&format!("the UI's tools need Node.js {oldest} or newer; fetching {NODE_FROM_NPM} from npm, for this checkout alone"));
        let mut command = Command::new("npm");
        command.args(["install", "--no-save", "--no-audit", "--no-fund", "--prefix"]).arg(checkout.tools()).arg(NODE_FROM_NPM);
        quietly("fetching Node.js", &mut command, &checkout.notes().join("node.log"))?;
        let (path, version) = current_node(checkout)?;
        if version < oldest {
            bail!("{} is version {version}, but the UI's tools need {oldest} or newer; install it from https://nodejs.org", path.display());
        }
    }
    Ok(())
}

/// The Node.js to use and its major version.
pub(crate) fn current_node(checkout: &Checkout) -> Result<(PathBuf, u32)> {
    let fetched = checkout.tools().join("node_modules/node/bin/node");
    let path = if fetched.exists() { fetched } else { machine::program("node").context("node is not installed")? };
    let version = machine::major_version(&path).with_context(|| format!("{} does not tell its version", path.display()))?;
    Ok((path, version))
}

/// The oldest major version of Node.js that the UI's package.json allows.
pub(crate) fn oldest_node(checkout: &Checkout) -> u32 {
    let manifest = std::fs::read_to_string(directory(checkout).join("package.json")).unwrap_or_default();
    let manifest: Value = serde_json::from_str(&manifest).unwrap_or_default();
    let engine =
        manifest["engines"]["node"].as_str().unwrap_or("").trim_start_matches(|character: char| !character.is_ascii_digit()).to_owned();
    engine.split('.').next().and_then(|major| major.trim().parse().ok()).unwrap_or(18)
}

/// Builds `control-plane/ui/dist` when a source, the lock file or the UI's tools changed.
pub(crate) fn build(checkout: &Checkout) -> Result<()> {
    let directory = directory(checkout);
    install_dependencies(checkout)?;
    let stamp = Stamp::new(checkout, "ui-sources", sources(&directory)?);
    if stamp.is_current() && directory.join("dist/index.html").exists() {
        note("the UI is up to date");
        return Ok(());
    }
    stream("building the UI", &mut npm(checkout, &["run", "build"])?)?;
    stamp.write()
}

/// Type check and lints of the UI.
pub(crate) fn check(checkout: &Checkout) -> Result<()> {
    install_dependencies(checkout)?;
    stream("checking the UI", &mut npm(checkout, &["run", "check"])?)
}

/// Unit tests of the UI.
pub(crate) fn test(checkout: &Checkout) -> Result<()> {
    install_dependencies(checkout)?;
    stream("testing the UI", &mut npm(checkout, &["run", "test"])?)
}

fn install_dependencies(checkout: &Checkout) -> Result<()> {
    let directory = directory(checkout);
    let lock = directory.join("package-lock.json");
    let text = std::fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let stamp = Stamp::new(checkout, "ui-dependencies", hash_of(&text));
    if stamp.is_current() && directory.join("node_modules").is_dir() {
        return Ok(());
    }
    quietly(
        "fetching the UI's dependencies",
        &mut npm(checkout, &["ci", "--no-audit", "--no-fund"])?,
        &checkout.notes().join("npm-ci.log"),
    )?;
    stamp.write()
}

/// npm in the UI's directory, with the Node.js that was chosen first on the path.
fn npm(checkout: &Checkout, arguments: &[&str]) -> Result<Command> {
    let (node, _) = current_node(checkout)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let before = node.parent().map(Path::to_path_buf).into_iter();
    let path = std::env::join_paths(before.chain(std::env::split_paths(&path))).context("the path has a directory with a colon")?;
    let mut command = Command::new(machine::program("npm").context("npm is not installed")?);
    machine::forget_this_package(&mut command);
    command.current_dir(directory(checkout)).env("PATH", path).args(arguments);
    Ok(command)
}

/// A hash over the names and contents of everything the UI is built from.
fn sources(directory: &Path) -> Result<u64> {
    let mut files = Vec::new();
    collect(directory, &mut files)?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let entry = entry?;
        if NOT_SOURCES.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() { collect(&entry.path(), files)? } else { files.push(entry.path()) }
    }
    Ok(())
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// A note of what something was made from.
struct Stamp {
    file: PathBuf,
    value: String,
}

impl Stamp {
    fn new(checkout: &Checkout, name: &str, hash: u64) -> Self {
        Self { file: checkout.notes().join(format!("{name}.stamp")), value: format!("{hash:016x}") }
    }

    fn is_current(&self) -> bool {
        std::fs::read_to_string(&self.file).is_ok_and(|text| text == self.value)
    }

    fn write(&self) -> Result<()> {
        if let Some(directory) = self.file.parent() {
            std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        std::fs::write(&self.file, &self.value).with_context(|| format!("cannot write {}", self.file.display()))
    }
}
