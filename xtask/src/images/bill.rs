//! A bill of materials in the form of CycloneDX 1.5: every crate that is compiled into a program, with its source and licence, and the packages whose
//! libraries go into the image beside it. From `cargo metadata`, so a crate that is only there for tests or for another system is not in it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{Checkout, machine};

/// The bill of the programs of an image, which is called after the first. `packages` has a line for each package of the distribution: name, version, architecture.
pub(super) fn of(checkout: &Checkout, programs: &[&str], target: &str, packages: &str) -> Result<String> {
    let mut command = machine::cargo();
    command.current_dir(checkout.root()).args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target]);
    let text = machine::output(&mut command).context("cargo metadata --locked failed; is Cargo.lock up to date?")?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let lock = std::fs::read_to_string(checkout.root().join("Cargo.lock")).context("there is no Cargo.lock")?;
    let distribution = distribution_name();
    let bill = bill(&metadata, &checksums(&lock), programs, &distribution, packages)?;
    Ok(format!("{bill:#}\n"))
}

fn distribution_name() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("ID=")).unwrap_or("debian").trim_matches('"').to_owned()
}

fn bill(metadata: &Value, checksums: &BTreeMap<String, String>, programs: &[&str], distribution: &str, libraries: &str) -> Result<Value> {
    let packages: BTreeMap<&str, &Value> =
        metadata["packages"].as_array().into_iter().flatten().filter_map(|package| Some((package["id"].as_str()?, package))).collect();
    let edges: BTreeMap<&str, Vec<&str>> = metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| Some((node["id"].as_str()?, linked(node))))
        .collect();
    let find = |program: &str| {
        let root = packages.iter().find(|(_, package)| package["name"] == program).map(|(id, _)| *id);
        root.with_context(|| format!("there is no package {program}"))
    };
    let roots = programs.iter().map(|program| find(program)).collect::<Result<Vec<_>>>()?;
    let root = *roots.first().context("a bill is of some program")?;
    let (mut reached, mut todo) = (BTreeSet::new(), roots);
    while let Some(id) = todo.pop() {
        if reached.insert(id) {
            todo.extend(edges.get(id).into_iter().flatten());
        }
    }
    let reference = |id: &str| packages.get(id).map_or_else(String::new, |package| url(package));
    let mut components: Vec<Value> = Vec::new();
    let mut dependencies: Vec<Value> = Vec::new();
    for id in &reached {
        let package = packages.get(id).with_context(|| format!("{id} is not described"))?;
        if *id != root {
            components.push(component(package, checksums));
        }
        let targets: BTreeSet<String> = edges.get(id).into_iter().flatten().map(|id| reference(id)).collect();
        dependencies.push(json!({ "ref": url(package), "dependsOn": targets }));
    }
    for line in libraries.lines() {
        let [name, version, architecture] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        let purl = format!("pkg:deb/{distribution}/{name}@{version}?arch={architecture}");
        components.push(json!({ "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl }));
    }
    let whole = packages.get(root).context("the program is not described")?;
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "bom-ref": url(whole), "name": whole["name"], "version": whole["version"], "purl": url(whole),
            "licenses": [{ "expression": whole["license"] }],
        } },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// What is compiled into a crate: neither what its tests need, nor what its build script does.
fn linked(node: &Value) -> Vec<&str> {
    let is_linked =
        |dependency: &&Value| dependency["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()));
    node["deps"].as_array().into_iter().flatten().filter(is_linked).filter_map(|dependency| dependency["pkg"].as_str()).collect()
}

fn url(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", package["name"].as_str().unwrap_or_default(), package["version"].as_str().unwrap_or_default())
}

fn component(package: &Value, checksums: &BTreeMap<String, String>) -> Value {
    let mut component = json!({
        "type": "library", "bom-ref": url(package), "name": package["name"], "version": package["version"], "purl": url(package),
    });
    if let Some(licence) = package["license"].as_str() {
        // Before expressions were standard, a slash meant "or".
        component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
    }
    if let Some(checksum) = checksums.get(&url(package)) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

/// Checksums of crates by their package URL, as the lock file has them.
fn checksums(lock: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in lock.split("[[package]]") {
        let field =
            |name: &str| entry.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(" = ")?.trim_matches('"').to_owned()));
        if let (Some(name), Some(version), Some(checksum)) = (field("name"), field("version"), field("checksum")) {
            found.insert(format!("pkg:cargo/{name}@{version}"), checksum);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_compiled_in_is_billed() {
        let package = |name: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0" });
        let edge = |to: &str, kind: Value| json!({ "pkg": to, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("app"), package("linked"), package("deeper"), package("for-tests"), package("for-builds")],
            "resolve": { "nodes": [
                { "id": "app", "deps": [edge("linked", Value::Null), edge("for-tests", json!("dev")), edge("for-builds", json!("build"))] },
                { "id": "linked", "deps": [edge("deeper", Value::Null)] },
            ] },
        });
        let lock = "[[package]]\nname = \"linked\"\nversion = \"1.0.0\"\nsource = \"x\"\nchecksum = \"abc\"\n";
        let bill = bill(&metadata, &checksums(lock), &["app"], "debian", "libc6 2.36-9 amd64\n").unwrap();
        let names: Vec<_> = bill["components"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["deeper", "linked", "libc6"]);
        assert_eq!(bill["components"][1]["hashes"][0]["content"], "abc");
        assert_eq!(bill["components"][1]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["components"][2]["purl"], "pkg:deb/debian/libc6@2.36-9?arch=amd64");
        assert_eq!(bill["dependencies"][0], json!({ "ref": "pkg:cargo/app@1.0.0", "dependsOn": ["pkg:cargo/linked@1.0.0"] }));
        assert!(super::bill(&metadata, &BTreeMap::new(), &["another"], "debian", "").is_err());
    }
}
