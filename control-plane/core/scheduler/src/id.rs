//! The names of apps, pods and groups; of instances and their tasks.

use std::fmt;
use std::sync::Arc;

use crate::random::IdGen;

/// An absolute path such as `/shop/cart`; `/` is the root group.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(Arc<str>);

/// Marathon's pattern of one segment; part of the message that clients show.
pub const SEGMENT_PATTERN: &str = r"^(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])|(\.|\.\.)$";
/// Longest path that is taken, in bytes: task ids are made of it and may have 255.
pub const PATH_MAX: usize = 190;
/// Last segments that would make a path of the API ambiguous.
pub const RESERVED: [&str; 5] = ["restart", "tasks", "versions", ".", ".."];

impl PathId {
    /// The root group.
    pub fn root() -> PathId {
        PathId("/".into())
    }

    /// `text` seen from `base`: absolute with a leading slash, else relative; `.` and `..` are resolved, doubled and trailing slashes dropped.
    /// Says nothing about whether the segments are valid; see [`PathId::problem`].
    pub fn parse(text: &str, base: &PathId) -> PathId {
        let mut segments: Vec<&str> = if text.starts_with('/') { Vec::new() } else { base.segments().collect() };
        for segment in text.split('/') {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                other => segments.push(other),
            }
        }
        PathId::of(&segments)
    }

    /// `text` seen from the root.
    pub fn absolute(text: &str) -> PathId {
        PathId::parse(text, &PathId::root())
    }

    fn of(segments: &[&str]) -> PathId {
        PathId(format!("/{}", segments.join("/")).into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The parts between the slashes; none for the root.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// The group that this is in; the root is in itself.
    pub fn parent(&self) -> PathId {
        match self.0.rfind('/') {
            Some(at) if at > 0 => PathId(self.0[..at].into()),
            _ => PathId::root(),
        }
    }

    /// Every group above, from the parent up to the root.
    pub fn ancestors(&self) -> impl Iterator<Item = PathId> {
        let mut at = self.clone();
        std::iter::from_fn(move || {
            if at.is_root() {
                return None;
            }
            at = at.parent();
            Some(at.clone())
        })
    }

    /// The first segment as a path: the top-level group.
    pub fn top(&self) -> Option<&str> {
        self.segments().next()
    }

    /// Whether this is somewhere below `group`, itself excluded.
    pub fn is_below(&self, group: &PathId) -> bool {
        !self.is_root() && (group.is_root() || (self.0.starts_with(&*group.0) && self.0.as_bytes().get(group.0.len()) == Some(&b'/')))
    }

    /// Whether this is an immediate child of `group`.
    pub fn is_child_of(&self, group: &PathId) -> bool {
        !self.is_root() && self.parent() == *group
    }

    /// Segments joined by `_`: in task ids and volume ids.
    pub fn safe(&self) -> String {
        self.segments().collect::<Vec<_>>().join("_")
    }

    /// The path that [`PathId::safe`] came from.
    pub fn from_safe(text: &str) -> PathId {
        PathId::of(&text.split('_').collect::<Vec<_>>())
    }

    /// Segments from last to first, joined by `.`: the task's name and its name in service discovery.
    pub fn host(&self) -> String {
        self.segments().rev().collect::<Vec<_>>().join(".")
    }

    /// What begins every path below this one.
    pub(crate) fn prefix(&self) -> PathId {
        if self.is_root() { self.clone() } else { PathId(format!("{}/", self.0).into()) }
    }

    /// Why this cannot name an app, a pod or a group; `None` when it can.
    pub fn problem(&self) -> Option<String> {
        if self.is_root() {
            return Some("must not be root".to_owned());
        }
        if self.0.len() > PATH_MAX {
            return Some(format!("must have a length of at most {PATH_MAX}"));
        }
        if !self.segments().all(is_segment) {
            return Some(format!("must fully match regular expression '{SEGMENT_PATTERN}'"));
        }
        let last = self.segments().next_back().unwrap_or_default();
        RESERVED.contains(&last).then(|| format!("must not end with any of the following reserved keywords: {}", RESERVED.join(", ")))
    }
}

/// Whether `text` is a valid segment: labels of lower-case letters, digits and inner hyphens, joined by dots.
fn is_segment(text: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        !bytes.is_empty()
            && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    text.split('.').all(label)
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of an instance: `shop_cart.instance-<uuid>`; older forms are read and kept as they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// A new one for the app or pod `spec`.
    pub fn new(spec: &PathId, ids: &mut IdGen) -> InstanceId {
        InstanceId(format!("{}.instance-{}", spec.safe(), ids.uuid()).into())
    }

    /// Reads any form that Marathon ever wrote; `None` when `text` is none of them.
    pub fn parse(text: &str) -> Option<InstanceId> {
        let (safe, rest) = text.rsplit_once('.')?;
        let uuid = rest.strip_prefix("instance-").or_else(|| rest.strip_prefix("marathon-")).unwrap_or(rest);
        (!safe.is_empty() && is_uuid(uuid)).then(|| InstanceId(text.into()))
    }

    /// The instance that a reservation names: by its own id, or by that of its task, as was done once.
    pub(crate) fn of_label(text: &str) -> Option<InstanceId> {
        InstanceId::parse(text).or_else(|| TaskId::parse(text).map(|it| it.instance()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The app or pod it is of.
    pub fn spec(&self) -> PathId {
        PathId::from_safe(self.0.rsplit_once('.').map_or("", |(safe, _)| safe))
    }

    /// The uuid part.
    pub fn uuid(&self) -> &str {
        let last = self.0.rsplit_once('.').map_or("", |(_, rest)| rest);
        last.strip_prefix("instance-").or_else(|| last.strip_prefix("marathon-")).unwrap_or(last)
    }

    /// Executor id of a pod's instance.
    pub fn executor(&self) -> String {
        format!("instance-{}.{}", self.spec().safe(), self.uuid())
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a task: `<instance>._app.<incarnation>` for an app, `<instance>.<container>.<incarnation>` for a pod, or an older form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Arc<str>);

impl TaskId {
    /// The `incarnation`th task of an app's instance.
    pub fn app(instance: &InstanceId, incarnation: u32) -> TaskId {
        TaskId(format!("{instance}._app.{incarnation}").into())
    }

    /// The `incarnation`th task of a container of a pod's instance.
    pub fn container(instance: &InstanceId, container: &str, incarnation: u32) -> TaskId {
        TaskId(format!("{instance}.{container}.{incarnation}").into())
    }

    /// Reads any form that Marathon ever wrote; `None` when `text` is none of them.
    pub fn parse(text: &str) -> Option<TaskId> {
        split_task(text).map(|_| TaskId(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The instance that it is of.
    pub fn instance(&self) -> InstanceId {
        InstanceId(split_task(&self.0).map_or(&*self.0, |(instance, _)| instance).into())
    }

    /// How often the instance had been launched; 1 in the forms that do not say.
    pub fn incarnation(&self) -> u32 {
        split_task(&self.0).and_then(|(_, rest)| rest.rsplit('.').next()?.parse().ok()).unwrap_or(1)
    }
}

/// The instance's part of a task id and what follows it. The part of the uuid has neither `.` nor `_`, what follows is separated by either.
fn split_task(text: &str) -> Option<(&str, &str)> {
    for (at, _) in text.match_indices('.') {
        let rest = &text[at + 1..];
        let named = rest.strip_prefix("instance-").or_else(|| rest.strip_prefix("marathon-")).unwrap_or(rest);
        let uuid_end = named.find(['.', '_']).unwrap_or(named.len());
        if at > 0 && is_uuid(&named[..uuid_end]) {
            let end = text.len() - named.len() + uuid_end;
            return Some((&text[..end], text[end..].trim_start_matches(['.', '_'])));
        }
    }
    None
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { byte.is_ascii_hexdigit() })
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_resolved_against_their_group() {
        let base = PathId::absolute("/shop/back");
        for (text, path) in [
            ("cart", "/shop/back/cart"),
            ("../cart", "/shop/cart"),
            ("/x//y/", "/x/y"),
            ("./a", "/shop/back/a"),
            ("", "/shop/back"),
            ("../../..", "/"),
        ] {
            assert_eq!(PathId::parse(text, &base).as_str(), path);
        }
        assert!(PathId::absolute("/shop/a").is_below(&PathId::absolute("shop")));
        assert!(!PathId::absolute("/shop-a").is_below(&PathId::absolute("shop")));
        assert_eq!(PathId::absolute("/a/b/c").host(), "c.b.a");
    }

    #[test]
    fn segments_are_host_names() {
        for good in ["/a", "/a/b-c", "/a.b/c0", "/0"] {
            assert_eq!(PathId::absolute(good).problem(), None, "{good}");
        }
        for bad in ["/", "/A", "/a_b", "/-a", "/a-", "/a./b", "/ä", "/a/restart", "/tasks", "/a b"] {
            assert!(PathId::absolute(bad).problem().is_some(), "{bad}");
        }
    }

    #[test]
    fn every_form_of_a_task_id_is_read() {
        let uuid = "6f1c2d3e-0000-11ea-8d71-362b9e155667";
        for (text, instance, incarnation) in [
            (format!("g_web.instance-{uuid}._app.3"), format!("g_web.instance-{uuid}"), 3),
            (format!("g_web.instance-{uuid}.side.12"), format!("g_web.instance-{uuid}"), 12),
            (format!("g_web.{uuid}"), format!("g_web.{uuid}"), 1),
            (format!("g_web.{uuid}.2"), format!("g_web.{uuid}"), 2),
            (format!("g.x_web.marathon-{uuid}"), format!("g.x_web.marathon-{uuid}"), 1),
            (format!("g_web.instance-{uuid}_side"), format!("g_web.instance-{uuid}"), 1),
        ] {
            let task = TaskId::parse(&text).unwrap();
            assert_eq!((task.instance().as_str(), task.incarnation()), (instance.as_str(), incarnation), "{text}");
        }
        assert_eq!(TaskId::parse(&format!("g_web.{uuid}")).unwrap().instance().spec().as_str(), "/g/web");
        for bad in ["", "web", "web.1", "web.instance-x._app.1", "._app.1"] {
            assert_eq!(TaskId::parse(bad), None, "{bad}");
        }
    }
}
