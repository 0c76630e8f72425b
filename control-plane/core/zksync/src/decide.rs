use crate::config::{AclPolicy, Clock, Drift, EphemeralPolicy, LinkConfig, Strategy};
use crate::conflict::{ConflictKind, DeletedBetween};
use crate::mapping::name;
use crate::node::{Base, Node, PerSide, Side, hash_acl, hash_data};

/// What is known of one side.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'a> {
    /// It was not read; as far as is known, it is as in the base.
    Unread,
    /// It is not there.
    Absent,
    /// This.
    Present(&'a Node),
}

impl<'a> View<'a> {
    pub(crate) fn node(self) -> Option<&'a Node> {
        match self {
            View::Present(node) => Some(node),
            _ => None,
        }
    }
}

/// What is to be done about a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing has changed that is not known: an echo of our own write, or news of what was read already.
    Settled,
    /// The other side must be read, too.
    ReadBoth,
    /// Access control lists must be read, too.
    ReadAcl,
    /// Both have the same: this is what they agree on from now on.
    Adopt(Base),
    /// Neither has it.
    Forget,
    /// `to` gets what the other has.
    Put { to: Side, shadow: bool },
    /// `to` loses it.
    Delete { to: Side },
    /// Both changed, differently.
    Conflict(ConflictKind),
    /// `on`, from which nothing is taken, changed, and keeps it.
    Drift { on: Side },
    /// It is not copied.
    Excluded(Exclusion),
}

/// Why a pair is not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exclusion {
    /// It is ephemeral.
    Ephemeral,
    /// It elects or locks.
    Election,
    /// It is an ephemeral copy of ours whose original is not known any more.
    OwnShadow,
}

/// Decides about one pair.
pub(crate) fn decide(config: &LinkConfig, base: Option<&Base>, views: PerSide<View<'_>>, own_sessions: PerSide<i64>) -> Verdict {
    let base = match base.map(|base| what_is_pending(config, *base, views)).transpose() {
        Ok(base) => base,
        Err(verdict) => return verdict,
    };
    let base = base.as_ref();
    let changed = |side: Side| match (base, views[side]) {
        (_, View::Unread) => false,
        (base, View::Absent) => base.is_some(),
        (None, View::Present(_)) => true,
        (Some(base), View::Present(node)) => !base.seen[side].same(&node.stat.seen()),
    };
    let changed = PerSide { a: changed(Side::A), b: changed(Side::B) };
    if let Some(verdict) = about_ephemerals(config, base, views, own_sessions, changed) {
        return verdict;
    }
    if !changed.a && !changed.b {
        return Verdict::Settled;
    }
    match (views.a, views.b) {
        (View::Absent, View::Absent) => return Verdict::Forget,
        (View::Present(a), View::Present(b)) => match agreement(config, base, PerSide { a, b }) {
            Agreement::Unknown => return Verdict::ReadAcl,
            Agreement::Same(base) => return Verdict::Adopt(base),
            Agreement::AclDiffers if base.is_some() && changed.a && changed.b => {
                return one_source_or(config, Verdict::Conflict(ConflictKind::Acl), base, views, changed);
            }
            Agreement::AclDiffers | Agreement::Differs => {}
        },
        _ => {}
    }
    match (changed.a, changed.b) {
        (true, true) => {
            let kind = match (base, views.a, views.b) {
                (None, ..) => ConflictKind::Create,
                (_, View::Absent, _) | (_, _, View::Absent) => ConflictKind::Delete,
                _ => ConflictKind::Update,
            };
            one_source_or(config, Verdict::Conflict(kind), base, views, changed)
        }
        (a_changed, _) => {
            let from = if a_changed { Side::A } else { Side::B };
            if config.mode.takes_from(from) { carry(from, views) } else { drift(config, from, views) }
        }
    }
}

/// The base once it is known whether a change of an access control list that was noted has been made.
pub(crate) fn what_is_pending(config: &LinkConfig, base: Base, views: PerSide<View<'_>>) -> Result<Base, Verdict> {
    let Some(pending) = base.pending else { return Ok(base) };
    let as_it_was = Base { pending: None, ..base };
    match views[pending.side] {
        View::Unread => Err(Verdict::ReadBoth),
        View::Absent => Ok(as_it_was),
        View::Present(node) if node.stat.czxid != base.seen[pending.side].czxid || node.stat.aversion < pending.aversion => Ok(as_it_was),
        View::Present(node) => {
            let made = match &node.acl {
                _ if node.stat.aversion > pending.aversion => true,
                Some(acl) => hash_acl(&config.canonical(acl, pending.side)) == pending.acl,
                None => return Err(Verdict::ReadAcl),
            };
            if !made {
                return Ok(as_it_was);
            }
            let mut seen = base.seen;
            seen[pending.side].aversion = pending.aversion;
            seen[pending.side.other()] = pending.source;
            Ok(Base { seen, acl: pending.acl, pending: None, ..base })
        }
    }
}

/// `from` changed alone: the other side follows.
fn carry(from: Side, views: PerSide<View<'_>>) -> Verdict {
    let to = from.other();
    match views[from] {
        View::Present(_) => Verdict::Put { to, shadow: false },
        View::Absent => Verdict::Delete { to },
        View::Unread => Verdict::ReadBoth,
    }
}

/// The side from which nothing is taken changed alone.
fn drift(config: &LinkConfig, on: Side, views: PerSide<View<'_>>) -> Verdict {
    let source = on.other();
    match (config.drift, views[source], views[on]) {
        // It may be the same after all, e.g. because it became a container.
        (_, View::Unread, _) => Verdict::ReadBoth,
        (Drift::Report, ..) => Verdict::Drift { on },
        // The source's state stands, and what it replaces is recorded.
        (Drift::Overwrite, View::Present(_), View::Absent) => Verdict::Conflict(ConflictKind::Delete),
        (Drift::Overwrite, View::Present(_), _) => Verdict::Conflict(ConflictKind::Update),
        (Drift::Overwrite, View::Absent, _) => Verdict::Conflict(ConflictKind::Create),
    }
}

/// Both changed: with one source it is that one's state; with two it is a conflict.
fn one_source_or(config: &LinkConfig, conflict: Verdict, base: Option<&Base>, views: PerSide<View<'_>>, changed: PerSide<bool>) -> Verdict {
    let Some(source) = config.mode.source() else { return conflict };
    match (views[source], views[source.other()]) {
        // What the target has of its own is replaced, and the loss is recorded.
        (View::Present(_), View::Present(_)) => conflict,
        (View::Present(_), _) => Verdict::Put { to: source.other(), shadow: false },
        (View::Absent, View::Present(_)) if base.is_none() && !changed[source] => drift(config, source.other(), views),
        (View::Absent, _) => conflict,
        (View::Unread, _) => Verdict::ReadBoth,
    }
}

enum Agreement {
    Same(Base),
    AclDiffers,
    Differs,
    /// Access control lists are to be compared and were not read.
    Unknown,
}

fn agreement(config: &LinkConfig, base: Option<&Base>, nodes: PerSide<&Node>) -> Agreement {
    let data = PerSide { a: hash_data(&nodes.a.data), b: hash_data(&nodes.b.data) };
    if data.a != data.b {
        return Agreement::Differs;
    }
    let (Some(a), Some(b)) = (acl_hash(config, base, Side::A, nodes.a), acl_hash(config, base, Side::B, nodes.b)) else {
        return Agreement::Unknown;
    };
    if a != b {
        return Agreement::AclDiffers;
    }
    Agreement::Same(Base {
        seen: PerSide { a: nodes.a.stat.seen(), b: nodes.b.stat.seen() },
        data: data.a,
        acl: a,
        size: u32::try_from(nodes.a.data.len()).unwrap_or(u32::MAX),
        shadow_of: base.and_then(|base| base.shadow_of),
        pending: None,
    })
}

/// What the access control list of a node hashes to, in A's words; none when it must be read.
pub(crate) fn acl_hash(config: &LinkConfig, base: Option<&Base>, side: Side, node: &Node) -> Option<u64> {
    if config.acl == AclPolicy::Ignore {
        return Some(0);
    }
    if let Some(acl) = &node.acl {
        return Some(hash_acl(&config.canonical(acl, side)));
    }
    let base = base?;
    let seen = base.seen[side];
    (seen.czxid == node.stat.czxid && seen.aversion == node.stat.aversion).then_some(base.acl)
}

fn about_ephemerals(
    config: &LinkConfig,
    base: Option<&Base>,
    views: PerSide<View<'_>>,
    own_sessions: PerSide<i64>,
    changed: PerSide<bool>,
) -> Option<Verdict> {
    let is_ephemeral = |side: Side| views[side].node().is_some_and(|node| node.stat.owner != 0);
    if let Some(original) = base.and_then(|base| base.shadow_of) {
        // The original decides; what becomes of the copy is never a change of its own.
        let copy = original.other();
        return Some(match (views[original], views[copy]) {
            (View::Present(node), _) if node.stat.owner == 0 => Verdict::Excluded(Exclusion::Ephemeral),
            (View::Unread, _) if changed[copy] => Verdict::ReadBoth,
            (View::Absent, View::Absent) => Verdict::Forget,
            (View::Absent, _) => Verdict::Delete { to: copy },
            (View::Present(_), _) if changed[original] || changed[copy] => Verdict::Put { to: copy, shadow: true },
            _ => Verdict::Settled,
        });
    }
    let side = Side::BOTH.into_iter().find(|side| is_ephemeral(*side))?;
    let node = views[side].node()?;
    if config.ephemerals == EphemeralPolicy::Skip {
        return Some(Verdict::Excluded(Exclusion::Ephemeral));
    }
    if node.stat.owner == own_sessions[side] {
        return Some(Verdict::Excluded(Exclusion::OwnShadow));
    }
    if !config.mode.takes_from(side) {
        return Some(Verdict::Excluded(Exclusion::Ephemeral));
    }
    match views[side.other()] {
        View::Unread | View::Absent if base.is_none() => Some(Verdict::Put { to: side.other(), shadow: true }),
        // Something else stands there, or what is ephemeral now was not before.
        _ => Some(Verdict::Excluded(Exclusion::Ephemeral)),
    }
}

/// Whether an ephemeral znode elects or locks: a copy would be a second leader or a lock that nobody holds.
pub(crate) fn elects_or_locks(key: &str) -> bool {
    let name = name(key);
    let digits = name.len() >= 10 && name.as_bytes()[name.len() - 10..].iter().all(u8::is_ascii_digit);
    let parents = ["/log_replicas/", "/leader/", "/leader-curator/", "/brokers/ids/"];
    digits || name.starts_with("_c_") || key == "/controller" || key.ends_with("/controller") || parents.iter().any(|it| key.contains(it))
}

/// Whose state stands, and whether that was a guess.
pub(crate) fn winner(
    config: &LinkConfig,
    base: Option<&Base>,
    views: PerSide<View<'_>>,
    kind: ConflictKind,
    clocks: PerSide<Option<Clock>>,
    deleted: Option<DeletedBetween>,
) -> (Side, bool) {
    if let Some(source) = config.mode.source() {
        return (source, false);
    }
    match config.strategy {
        Strategy::AWins => return (Side::A, false),
        Strategy::BWins => return (Side::B, false),
        Strategy::LastWriteWins | Strategy::Manual => {}
    }
    let (Some(a), Some(b)) = (clocks.a, clocks.b) else {
        // Two servers' times tell nothing before both clocks were compared with ours.
        return match (views[Side::A], views[Side::B]) {
            (View::Present(_), View::Present(_)) => (config.tie_break, true),
            (View::Present(_), _) => (Side::A, true),
            _ => (Side::B, true),
        };
    };
    let clocks = PerSide { a, b };
    let slack = clocks.a.error_ms + clocks.b.error_ms + u64::try_from(config.limits.guard.as_millis()).unwrap_or(u64::MAX);
    let slack = i64::try_from(slack).unwrap_or(i64::MAX);
    let written = |side: Side| views[side].node().map(|node| node.stat.mtime - clocks[side].offset_ms);
    // One whose list of access alone has changed has the time of a write that both sides know, which may have been ours.
    let wrote = |side: Side| views[side].node().is_some_and(|node| base.is_none_or(|base| !base.seen[side].same_data(&node.stat.seen())));
    match (written(Side::A), written(Side::B)) {
        (Some(_), Some(_)) if wrote(Side::A) != wrote(Side::B) => (if wrote(Side::A) { Side::A } else { Side::B }, true),
        (Some(_), None) if !wrote(Side::A) => (Side::A, true),
        (None, Some(_)) if !wrote(Side::B) => (Side::B, true),
        // No server keeps the time of such a change.
        (Some(_), Some(_)) if kind == ConflictKind::Acl => (config.tie_break, true),
        (Some(a), Some(b)) if a.abs_diff(b) <= slack.unsigned_abs() => (config.tie_break, true),
        (Some(a), Some(b)) => (if a > b { Side::A } else { Side::B }, false),
        (a, b) => {
            let alive = if a.is_some() { Side::A } else { Side::B };
            let (Some(at), Some(deleted)) = (a.or(b), deleted) else { return (alive, true) };
            let to = i64::try_from(deleted.to.unix_millis()).unwrap_or(i64::MAX);
            let from = i64::try_from(deleted.from.unix_millis()).unwrap_or(i64::MAX);
            if at > to.saturating_add(slack) {
                (alive, false)
            } else if at < from.saturating_sub(slack) {
                (alive.other(), false)
            } else {
                (alive, true)
            }
        }
    }
}
