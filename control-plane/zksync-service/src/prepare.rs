//! The first look at both sides, before anything is written: what stands in the way, and what to expect.

mod trial;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zk::{Client, WatchMode};
use zksync::{LinkConfig, Mode, PerSide, Side};

use crate::definition::Definition;
use crate::tree::Tree;
use crate::verify;

/// What was found before anything was written.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Preparation {
    /// What must be mended first.
    pub blockers: Vec<String>,
    /// What to know.
    pub warnings: Vec<String>,
    /// A.
    pub a: SideFound,
    /// B.
    pub b: SideFound,
    /// Znodes in which the sides differ now.
    pub differing: u64,
    /// Of these, those that both have with other content: conflicts of the first copy.
    pub differing_on_both: u64,
    /// Znodes of B that A does not have.
    pub only_b: u64,
    /// Seconds that the first copy will take, about.
    pub copy_seconds_estimate: f64,
}

/// What one side has.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct SideFound {
    /// Znodes that are mapped.
    pub nodes: u64,
    /// Bytes of their data.
    pub bytes: u64,
    /// Ephemeral znodes below the mapped roots.
    pub ephemerals: u64,
    /// Znodes that could not be read, the first hundred.
    pub unreadable: Vec<String>,
    /// Largest znode.
    pub largest_path: String,
    /// Its bytes.
    pub largest_bytes: u64,
    /// The tree can be watched as one; else every znode is watched twice.
    pub recursive_watches: bool,
    /// What its servers say that they are, where they say it; not over TLS.
    #[serde(default)]
    pub versions: Vec<String>,
    /// Paths with quotas, which are not copied.
    #[serde(default)]
    pub quotas: Vec<String>,
    /// What the server granted, in milliseconds.
    pub session_timeout_ms: u64,
    /// Newest transaction, as far as it can be seen from the znodes.
    pub zxid: i64,
}

/// Znodes copied per second, as far as is known without trying.
const COPIES_PER_SECOND: f64 = 8_000.0;

/// Whether something may be written to find out what B takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Nothing is.
    Nothing,
    /// Below our own subtree of B, and removed again.
    Written,
}

/// Looks at both sides.
///
/// # Errors
/// When a side cannot be reached.
pub async fn prepare(definition: &Definition, config: &LinkConfig, known: &verify::Known, trial: Trial) -> Result<Preparation, String> {
    let clients = verify::connect(definition).await?;
    let (report, trees) = verify::verify_trees(&definition.id, config, &clients, true, known)
        .await
        .map_err(|error| format!("reading both sides: {error}"))?;
    let a = side_found(definition, Side::A, &clients.a, &trees.a).await;
    let b = side_found(definition, Side::B, &clients.b, &trees.b).await;
    let mut blockers = trial::rights(config, Side::B, &clients.b).await;
    let mut warnings = Vec::new();
    for side in Side::BOTH {
        blockers.extend(trial::own_rights(&definition.id, side, &clients[side]).await);
    }
    blockers
        .extend(trial::registered(definition, config, &clients).await.map_err(|error| format!("reading which links there are: {error}"))?);
    // In a migration changes are carried back as well, once the clients are moved: without that there is no way back.
    let on_a = trial::rights(config, Side::A, &clients.a).await;
    if trial == Trial::Written || config.mode.takes_from(Side::B) {
        blockers.extend(on_a);
    } else {
        warnings.extend(on_a.into_iter().map(|refused| format!("{refused}; a migration needs that, for its way back")));
    }
    if trial == Trial::Written {
        blockers.extend(trial::writes(definition, a.largest_bytes.min(config.limits.node_bytes as u64), a.largest_path.len()).await);
    }
    if config.mode == Mode::Both {
        warnings.extend(written_from_both(&trees));
    }
    if !a.quotas.is_empty() {
        warnings.push(format!("{} quotas of A are not copied, e.g. that of {}", a.quotas.len(), a.quotas[0]));
    }
    if !b.quotas.is_empty() {
        warnings.push(format!("{} quotas of B may be in the way, e.g. that of {}", b.quotas.len(), b.quotas[0]));
    }
    if a.versions != b.versions {
        warnings.push(format!("A runs ZooKeeper {}, B {}", a.versions.join(", "), b.versions.join(", ")));
    }
    for (side, found, tree) in [("A", &a, &trees.a), ("B", &b, &trees.b)] {
        if tree.denied_total > 0 {
            blockers.push(format!(
                "{} znodes of {side} cannot be read, e.g. {}: our identity must be allowed to",
                tree.denied_total, found.unreadable[0]
            ));
        }
        if tree.too_deep > 0 {
            warnings.push(format!("{} subtrees of {side} are too deep, or their paths too long: they are not copied", tree.too_deep));
        }
        if tree.hidden_acls > 0 {
            blockers.push(format!(
                "{} digests in access control lists of {side} are hidden: our identity must have ADMIN, or be the super user",
                tree.hidden_acls
            ));
        }
        if !found.recursive_watches {
            warnings.push(format!("{side} cannot watch a tree as one: {} watches will be set there", 2 * found.nodes));
        }
        if tree.ephemerals > 0 {
            warnings.push(format!("{} ephemeral znodes of {side}: {}", tree.ephemerals, ephemerals_are(config)));
        }
    }
    let limit = config.limits.node_bytes as u64;
    if a.largest_bytes > limit {
        blockers.push(format!(
            "{} has {} bytes, and node_bytes_max is {limit}: more need a larger jute.maxbuffer on both ensembles",
            a.largest_path, a.largest_bytes
        ));
    }
    for (scheme, count) in &trees.a.schemes {
        if !matches!(scheme.as_str(), "world" | "digest") {
            warnings.push(format!(
                "{count} entries of access control lists are by {scheme}: B must know the same identities, or acl_rules must name them"
            ));
        }
    }
    let both =
        report.found.differences.iter().filter(|it| matches!(it.kind, zksync::DifferenceKind::Data | zksync::DifferenceKind::Acl)).count()
            as u64;
    let only_b = report.found.differences.iter().filter(|it| it.kind == zksync::DifferenceKind::OnlyB).count() as u64;
    if both > 0 {
        warnings.push(format!("{both} znodes are on both sides with other content: {} decides", config.strategy.as_str()));
    }
    if only_b > 0 && config.mode == Mode::AToB {
        warnings.push(format!("{only_b} znodes are on B alone; drift is to be {:?}: they keep the sides from being equal", config.drift));
    }
    if a.zxid > b.zxid {
        warnings.push(format!(
            "the newest transaction of B ({:#x}) is older than that of A ({:#x}): clients that keep their session handle over a moved address \
             stay away until it expires; start B with a higher epoch, or restart the clients",
            b.zxid, a.zxid
        ));
    }
    if a.session_timeout_ms != b.session_timeout_ms {
        warnings.push(format!("A grants sessions of {} ms, B of {} ms", a.session_timeout_ms, b.session_timeout_ms));
    }
    if report.counters_total > 0 {
        warnings.push(format!("{} parents have sequence counters that differ: they are aligned at the cutover", report.counters_total));
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let copy_seconds_estimate = report.found.differing as f64 / COPIES_PER_SECOND;
    Ok(Preparation { blockers, warnings, a, b, differing: report.found.differing, differing_on_both: both, only_b, copy_seconds_estimate })
}

/// What to know where clients write on both sides.
fn written_from_both(trees: &PerSide<Tree>) -> Vec<String> {
    let mut warnings = vec![
        "clients write on both sides: before `cutover` those of B must stop, too, for their writes are carried to A, and A would not stand \
         still"
            .to_owned(),
    ];
    let numbered = Side::BOTH.into_iter().flat_map(|side| trees[side].stats.keys()).filter(|key| zksync::is_numbered(key));
    let parents: BTreeSet<&str> = numbered.filter_map(|key| key.rsplit_once('/')).map(|(parent, _)| parent).collect();
    if let Some(parent) = parents.first() {
        let parent = if parent.is_empty() { "/" } else { parent };
        warnings.push(format!(
            "{} parents have numbered children, e.g. {parent}: where clients of both sides create such, both give the same number to different \
             znodes, which is a conflict each time; let those of one side alone create there, or exclude it",
            parents.len()
        ));
    }
    warnings
}

fn ephemerals_are(config: &LinkConfig) -> &'static str {
    match config.ephemerals {
        zksync::EphemeralPolicy::Skip => "they are not copied",
        zksync::EphemeralPolicy::Mirror => "they are mirrored, but for those that elect or lock",
    }
}

async fn side_found(definition: &Definition, side: Side, client: &Client, tree: &Tree) -> SideFound {
    let recursive = client.watch_tree("/__zksync-probe", WatchMode::Auto, |_| {}).await.is_ok_and(|watch| watch.recursive);
    SideFound {
        nodes: tree.entries.len() as u64,
        bytes: tree.bytes,
        ephemerals: tree.ephemerals,
        unreadable: tree.denied.iter().map(|(path, why)| format!("{path}: {why}")).collect(),
        largest_path: tree.largest.0.clone(),
        largest_bytes: tree.largest.1,
        recursive_watches: recursive,
        versions: trial::versions(definition, side).await,
        quotas: trial::quotas(client).await,
        session_timeout_ms: u64::try_from(client.session_timeout().as_millis()).unwrap_or(u64::MAX),
        zxid: tree.stats.values().map(|stat| stat.mzxid.max(stat.pzxid)).max().unwrap_or(0),
    }
}

/// Both sides' paths, for those that say where something is.
pub fn paths(config: &LinkConfig, key: &str) -> PerSide<String> {
    PerSide { a: config.mapping.path(Side::A, key), b: config.mapping.path(Side::B, key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_both_sides_are_written_to_it_is_told_which_parents_give_numbers() {
        let tree = |paths: &[&str]| {
            let mut tree = Tree::default();
            tree.stats.extend(paths.iter().map(|path| ((*path).into(), Default::default())));
            tree
        };
        let told = |a: &[&str], b: &[&str]| written_from_both(&PerSide { a: tree(a), b: tree(b) });
        assert_eq!(told(&["/app", "/app/x"], &[]).len(), 1);
        let warnings = told(&["/q/n-0000000001", "/q/n-0000000002"], &["/other/0000000001"]);
        assert!(warnings[0].contains("those of B must stop") && warnings[1].starts_with("2 parents have numbered children, e.g. /other:"));
        assert!(told(&["/n-0000000001"], &[])[1].contains("e.g. /:"));
    }
}
