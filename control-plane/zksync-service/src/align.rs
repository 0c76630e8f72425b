//! What clients cannot see but rely on: the numbers that sequential children get, and containers and times to live.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use zk::{Acl, Client, CreateKind, Error, MultiError, Op};
use zksync::{Key, LinkConfig, PerSide, Side, Stat, TypeRule, ZnodeKind};

use crate::link::now;
use crate::tree;
use crate::verify::counters;

/// Pairs of a create and a delete in one transaction.
const PAIRS: i64 = 250;
/// Children that are moved with a znode that changes its kind.
const CHILDREN_MAX: usize = 100;
/// Bytes of a transaction that raises a version.
const RAISED_BYTES: usize = 256 * 1024;
/// A counter or a version further behind than this is not brought up by creating and deleting.
const BEHIND_MAX: i64 = 5_000_000;

/// What was aligned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aligned {
    /// Parents whose counter was put beyond the source's.
    pub counters: u64,
    /// Znodes that became containers or got a time to live.
    pub kinds: u64,
    /// Znodes whose version was raised to that of the other side.
    pub versions: u64,
    /// What could not be aligned, and why.
    pub problems: Vec<String>,
}

/// What of a definition is aligned besides counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Znodes of B that are containers or have a time to live.
    pub kinds: &'a [TypeRule],
    /// Znodes whose versions count: A's paths, with `*` and `**`.
    pub versions: &'a [String],
}

/// Puts every counter of `to` at least `margin` beyond the other side's, gives znodes of B the kinds that are wanted, and znodes of `to` the versions that
/// they have on the other side. Both sides stand still; `source` is what the other side has, if it has been read since.
///
/// # Errors
/// When a side does not answer.
pub async fn align(
    config: &LinkConfig,
    wanted: Wanted<'_>,
    margin: u32,
    clients: &PerSide<Client>,
    to: Side,
    source: Option<Arc<BTreeMap<Key, Stat>>>,
) -> Result<Aligned, Error> {
    let read = async |side: Side| tree::read_stats(&clients[side], config, side).await.map(|tree| tree.stats);
    let source_stats = async {
        match source {
            Some(stats) => Ok(BTreeMap::clone(&stats)),
            None => read(to.other()).await,
        }
    };
    let (mine, others) = futures::join!(read(to), source_stats);
    let (mine, others) = (mine?, others?);
    let mut stats = if to == Side::B { PerSide { a: others, b: mine } } else { PerSide { a: mine, b: others } };
    let mut aligned = Aligned::default();
    // A create with a new name, so that it cannot collide with one that failed half-way before.
    let probe = format!("zksync-align-{}", now().unix_nanos());
    // Kinds first: a znode that is made again begins to count again.
    for key in stats.b.keys() {
        let Some(rule) = wanted.kinds.iter().find(|rule| zksync::names_exactly(&rule.path, key)) else { continue };
        match change_kind(config, &stats.b, &clients.b, key, rule.kind).await {
            Ok(changed) => aligned.kinds += u64::from(changed),
            Err(problem) => aligned.problems.push(problem),
        }
    }
    if aligned.kinds > 0 {
        stats.b = read(Side::B).await?;
    }
    for counter in counters(&stats) {
        let path = config.mapping.path(to, &counter.path);
        let Some(stat) = clients[to].stat(&path).await? else { continue };
        let source = if to == Side::B { counter.a } else { counter.b };
        let has = (i64::from(stat.cversion) + i64::from(stat.num_children)) / 2;
        let missing = source + i64::from(margin) - has;
        if missing <= 0 || source == 0 {
            continue;
        }
        if missing > BEHIND_MAX {
            aligned.problems.push(format!("{}: its counter is {missing} behind", counter.path));
            continue;
        }
        let child = format!("{}/{probe}", if path == "/" { "" } else { &path });
        match bump(&clients[to], &child, missing).await {
            Ok(()) => aligned.counters += 1,
            Err(MultiError::Request(error)) if error.is_ambiguous() => return Err(error),
            Err(error) => aligned.problems.push(format!("{}: {error}", counter.path)),
        }
    }
    for (key, stat) in &stats[to.other()] {
        if !wanted.versions.iter().any(|path| zksync::names_exactly(path, key)) {
            continue;
        }
        let path = config.mapping.path(to, key);
        match raise(&clients[to], &path, stat.version).await {
            Ok(raised) => aligned.versions += u64::from(raised),
            Err(MultiError::Request(error)) if error.is_ambiguous() => return Err(error),
            Err(error) => aligned.problems.push(format!("the version of {path}: {error}")),
        }
    }
    Ok(aligned)
}

/// Writes what it has to `path`, again and again, until its version is at least `wanted`; whether that had to be done.
async fn raise(client: &Client, path: &str, wanted: i32) -> Result<bool, MultiError> {
    let (data, stat) = match client.get(path).await {
        Ok(found) => found,
        // That it is missing is what the comparison tells.
        Err(Error::NoNode) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let missing = i64::from(wanted) - i64::from(stat.version);
    if missing <= 0 {
        return Ok(false);
    }
    if missing > BEHIND_MAX {
        return Err(MultiError::Request(Error::Refused(format!("it is {missing} behind"))));
    }
    let at_once = i64::try_from(RAISED_BYTES / (data.len() + path.len() + 1)).unwrap_or(1).clamp(1, PAIRS);
    let (mut version, mut left) = (stat.version, missing);
    while left > 0 {
        // Should somebody else write meanwhile, it is not his version that is gone by.
        let times = left.min(at_once);
        let mut ops = Vec::new();
        for _ in 0..times {
            ops.push(Op::Set { path: path.to_owned(), data: data.clone(), version: Some(version) });
            version = version.wrapping_add(1);
        }
        client.multi(&ops).await?;
        left -= times;
    }
    Ok(true)
}

async fn bump(client: &Client, child: &str, times: i64) -> Result<(), MultiError> {
    let mut left = times;
    while left > 0 {
        let pairs = left.min(PAIRS);
        let mut ops = Vec::new();
        for _ in 0..pairs {
            ops.push(Op::Create { path: child.to_owned(), data: Vec::new(), acl: Acl::open(), kind: CreateKind::Persistent });
            ops.push(Op::Delete { path: child.to_owned(), version: None });
        }
        client.multi(&ops).await?;
        left -= pairs;
    }
    Ok(())
}

/// Makes a znode again as another kind, in one transaction with what is below it.
async fn change_kind(
    config: &LinkConfig,
    stats: &BTreeMap<Key, Stat>,
    client: &Client,
    key: &str,
    kind: ZnodeKind,
) -> Result<bool, String> {
    let path = config.mapping.path(Side::B, key);
    let problem = |error: &dyn std::fmt::Display| format!("{path}: {error}");
    let Some(stat) = stats.get(key) else { return Ok(false) };
    if path == "/" {
        return Err(problem(&"the root cannot change its kind"));
    }
    let (data, _) = client.get(&path).await.map_err(|error| problem(&error))?;
    let acl = client.acl(&path).await.map_err(|error| problem(&error))?;
    let names = client.children(&path).await.map_err(|error| problem(&error))?;
    if names.len() > CHILDREN_MAX {
        return Err(problem(&format!("{} children are too many to be moved with it", names.len())));
    }
    let mut before = Vec::new();
    let mut after = Vec::new();
    for name in names {
        let child = format!("{path}/{name}");
        let (data, stat) = client.get(&child).await.map_err(|error| problem(&error))?;
        if stat.num_children > 0 || stat.ephemeral_owner != 0 {
            return Err(problem(&format!("{name} below it has children or is ephemeral")));
        }
        let acl = client.acl(&child).await.map_err(|error| problem(&error))?;
        before.push(Op::Delete { path: child.clone(), version: Some(stat.version) });
        after.push(Op::Create { path: child, data, acl, kind: CreateKind::Persistent });
    }
    let kind = match kind {
        ZnodeKind::Container => CreateKind::Container,
        ZnodeKind::TtlMs(ms) => CreateKind::Ttl(Duration::from_millis(ms)),
    };
    before.push(Op::Delete { path: path.clone(), version: Some(stat.version) });
    before.push(Op::Create { path: path.clone(), data, acl, kind });
    before.extend(after);
    client.multi(&before).await.map_err(|error| problem(&error))?;
    Ok(true)
}
