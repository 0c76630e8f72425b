//! The architecture as tests: rooms that grow a dependency they must not have fail the build, not a review.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use xtask::Checkout;

#[test]
fn pure_cores_know_no_runtime_network_clock_random_source_or_log() {
    assert_eq!(xtask::forbidden_dependencies(&Checkout::here()).expect("metadata"), Vec::<String>::new());
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    assert_eq!(xtask::unlisted_licences(&Checkout::here()).expect("metadata"), Vec::<String>::new());
}

#[test]
fn deny_toml_allows_the_same_licences() {
    let text = fs::read_to_string(Checkout::here().root().join("deny.toml")).expect("deny.toml");
    let list = text.split("allow = [").nth(1).and_then(|rest| rest.split(']').next()).expect("a list of licences");
    let listed: BTreeSet<_> = list.split('"').skip(1).step_by(2).collect();
    assert_eq!(listed, xtask::ALLOWED_LICENCES.iter().copied().collect());
}

#[test]
fn every_crate_takes_the_workspaces_lints() {
    // Kernel programs and fuzz targets are workspaces of their own, `common` belongs to both, and what is in `proto` is generated.
    let exempt = ["probe-ebpf/Cargo.toml", "probe-ebpf/common/Cargo.toml", "probe-user/fuzz/Cargo.toml", "proto/Cargo.toml"];
    let without: Vec<_> = files("Cargo.toml")
        .into_iter()
        .filter(|manifest| !exempt.iter().any(|path| manifest.ends_with(path)))
        .filter(|manifest| {
            let text = fs::read_to_string(manifest).expect("a manifest");
            text.contains("[package]") && !text.contains("[lints]\nworkspace = true")
        })
        .collect();
    assert_eq!(without, Vec::<PathBuf>::new());
}

#[test]
fn workflows_pin_every_action_by_commit_and_bound_every_job() {
    for workflow in files(".yml").into_iter().filter(|path| path.to_string_lossy().contains("/.github/workflows/")) {
        let text = fs::read_to_string(&workflow).expect("a workflow");
        let used = text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("uses: "));
        // Actions of the repository itself come with the commit that is checked out.
        for line in used.filter(|line| !line.starts_with("./")) {
            let reference = line.split_whitespace().next().unwrap_or_default().rsplit_once('@').map_or("", |(_, reference)| reference);
            assert!(reference.len() == 40 && reference.chars().all(|digit| digit.is_ascii_hexdigit()), "{}: {line}", workflow.display());
        }
        assert!(text.contains("\npermissions: {}\n"), "{} takes no permissions by default", workflow.display());
        assert_eq!(text.matches("runs-on:").count(), text.matches("timeout-minutes:").count(), "{}: every job ends", workflow.display());
    }
}

#[test]
fn what_the_documents_name_exists() {
    let root = Checkout::here().root().to_path_buf();
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root.join(document)).expect("a document");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let local = !target.contains("://") && !target.starts_with('#');
            let path = target.split('#').next().unwrap_or_default();
            assert!(!local || root.join(path).exists(), "{document} links to {target}, which is not there");
        }
    }
}

/// Every file of the checkout whose path ends so; not what is built, nor what npm fetched.
fn files(ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut ahead = vec![Checkout::here().root().to_path_buf()];
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(&directory).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() && !is_left_out(&path) {
                ahead.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn is_left_out(directory: &Path) -> bool {
    ["target", "node_modules", ".git", ".orchestrator", "dist"].iter().any(|name| directory.ends_with(name))
}
