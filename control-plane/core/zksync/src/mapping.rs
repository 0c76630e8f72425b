use serde::{Deserialize, Serialize};

use crate::link::RESERVED;
use crate::node::{Key, Side};

/// Rules of a link at most.
const RULES_MAX: usize = 64;
/// Patterns of a rule at most.
const PATTERNS_MAX: usize = 256;

/// Which znodes pair. No path is in two rules, and each has exactly one counterpart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    rules: Vec<Rule>,
}

/// A subtree of A and where it stands on B.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Root on A.
    pub a: String,
    /// Root on B.
    pub b: String,
    /// A's paths that are taken, with what is above and below them; all when empty. `*` stands for one name.
    #[serde(default)]
    pub include: Vec<String>,
    /// A's paths that are left out, with what is below them. `*` stands for one name, `**` for any number of them.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// Why a mapping is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingError(pub String);

impl std::fmt::Display for MappingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MappingError {}

impl Mapping {
    /// Takes rules whose roots do not overlap.
    ///
    /// # Errors
    /// When there is none, a path is malformed or reserved, or two roots overlap.
    pub fn new(rules: Vec<Rule>) -> Result<Mapping, MappingError> {
        let problem = |text: String| Err(MappingError(text));
        if rules.is_empty() || rules.len() > RULES_MAX {
            return problem(format!("{} mappings: there must be 1 to {RULES_MAX}", rules.len()));
        }
        for rule in &rules {
            if rule.include.len() + rule.exclude.len() > PATTERNS_MAX {
                return problem(format!("more than {PATTERNS_MAX} patterns for {}", rule.a));
            }
            let patterns = rule.include.iter().chain(&rule.exclude);
            for path in [&rule.a, &rule.b].into_iter().chain(patterns) {
                if !is_path(path) {
                    return problem(format!("{path:?} is no path of a znode: it begins with / and has no empty, . or .. name"));
                }
            }
            if let Some(root) = [&rule.a, &rule.b].into_iter().find(|root| is_reserved(root)) {
                return problem(format!("{root:?} is the servers' own or ours, and never copied"));
            }
        }
        for (place, rule) in rules.iter().enumerate() {
            for other in &rules[place + 1..] {
                if overlap(&rule.a, &other.a) || overlap(&rule.b, &other.b) {
                    return problem(format!("the mappings of {} and {} overlap", rule.a, other.a));
                }
            }
        }
        Ok(Mapping { rules })
    }

    /// The whole tree to the same paths.
    pub fn everything() -> Mapping {
        Mapping { rules: vec![Rule { a: "/".to_owned(), b: "/".to_owned(), include: Vec::new(), exclude: Vec::new() }] }
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Roots on `side`.
    pub fn roots(&self, side: Side) -> impl Iterator<Item = &str> {
        self.rules.iter().map(move |rule| rule.root(side))
    }

    /// Whether `key` is a root.
    pub fn is_root(&self, key: &str) -> bool {
        self.rules.iter().any(|rule| rule.a == key)
    }

    /// The pair that `path` of `side` belongs to, if it is mapped.
    pub fn key(&self, side: Side, path: &str) -> Option<Key> {
        if is_reserved(path) {
            return None;
        }
        let (rule, rest) = self.rules.iter().find_map(|rule| Some((rule, below(path, rule.root(side))?)))?;
        let key = join(&rule.a, rest);
        // What maps to a reserved path cannot be written there.
        (rule.takes(&key) && !is_reserved(&key) && !is_reserved(&join(&rule.b, rest))).then(|| key.into())
    }

    /// The path of `key` on `side`.
    pub fn path(&self, side: Side, key: &str) -> String {
        if side == Side::A {
            return key.to_owned();
        }
        match self.rules.iter().find_map(|rule| Some((rule, below(key, &rule.a)?))) {
            Some((rule, rest)) => join(&rule.b, rest),
            None => key.to_owned(),
        }
    }
}

impl Rule {
    /// The root on `side`.
    pub fn root(&self, side: Side) -> &str {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    fn takes(&self, key: &str) -> bool {
        let above_or_below = |pattern: &String| covers(pattern, key) || is_above(key, pattern);
        !self.exclude.iter().any(|pattern| covers(pattern, key)) && (self.include.is_empty() || self.include.iter().any(above_or_below))
    }
}

/// The last name of a path.
pub(crate) fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The path above; none for the root.
pub(crate) fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        at => Some(&path[..at]),
    }
}

/// `name` below `path`.
pub(crate) fn child(path: &str, name: &str) -> String {
    if path == "/" { format!("/{name}") } else { format!("{path}/{name}") }
}

/// Whether `path` is `root` or below it: then the rest, without a slash in front.
pub(crate) fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    if root == "/" {
        return path.strip_prefix('/');
    }
    let rest = path.strip_prefix(root)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Whether `path` is `root` or below it: `/app2` is not below `/app`.
pub fn is_below(path: &str, root: &str) -> bool {
    below(path, root).is_some()
}

fn join(root: &str, rest: &str) -> String {
    match (root, rest) {
        (root, "") => root.to_owned(),
        ("/", rest) => format!("/{rest}"),
        (root, rest) => format!("{root}/{rest}"),
    }
}

fn is_reserved(path: &str) -> bool {
    below(path, "/zookeeper").is_some() || below(path, RESERVED).is_some()
}

fn overlap(one: &str, other: &str) -> bool {
    below(one, other).is_some() || below(other, one).is_some()
}

fn is_path(path: &str) -> bool {
    let names = path.strip_prefix('/');
    names.is_some_and(|names| {
        names.is_empty() || names.split('/').all(|name| !name.is_empty() && name != "." && name != ".." && !name.contains('\0'))
    })
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// Whether `pattern` matches `path` or something above it.
pub(crate) fn covers(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (names(pattern).collect(), names(path).collect());
    matches(&pattern, &path, false)
}

/// Whether `pattern` matches `path` itself.
pub fn names_exactly(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (names(pattern).collect(), names(path).collect());
    matches(&pattern, &path, true)
}

fn matches(pattern: &[&str], path: &[&str], exactly: bool) -> bool {
    match (pattern, path) {
        ([], rest) => !exactly || rest.is_empty(),
        (["**", rest @ ..], _) => (0..=path.len()).any(|skipped| matches(rest, &path[skipped..], exactly)),
        ([first, rest @ ..], [name, names @ ..]) => {
            (*first == "*" || first == name || wildcard(first, name)) && matches(rest, names, exactly)
        }
        (_, []) => false,
    }
}

/// `*` within a name, e.g. `json.info_*`.
fn wildcard(pattern: &str, name: &str) -> bool {
    pattern.split_once('*').is_some_and(|(head, tail)| {
        name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail) && !tail.contains('*')
    })
}

/// Whether `path` is above something that `pattern` matches.
fn is_above(path: &str, pattern: &str) -> bool {
    let mut pattern = names(pattern);
    for name in names(path) {
        match pattern.next() {
            Some("**") => return true,
            Some(first) if first == "*" || first == name || wildcard(first, name) => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(a: &str, b: &str, include: &[&str], exclude: &[&str]) -> Rule {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Rule { a: a.to_owned(), b: b.to_owned(), include: owned(include), exclude: owned(exclude) }
    }

    #[test]
    fn a_path_and_its_counterpart_name_each_other() {
        let mapping = Mapping::new(vec![rule("/mesos", "/new/mesos", &[], &[]), rule("/marathon", "/marathon", &[], &[])]).unwrap();
        for (side, path, key) in [
            (Side::B, "/new/mesos/x", Some("/mesos/x")),
            (Side::B, "/new/mesos", Some("/mesos")),
            (Side::A, "/mesos/x", Some("/mesos/x")),
            (Side::A, "/mesosphere", None),
            (Side::B, "/mesos", None),
        ] {
            assert_eq!(mapping.key(side, path).as_deref(), key, "{path}");
            if let Some(key) = key {
                assert_eq!(mapping.path(side, key), path);
            }
        }
    }

    #[test]
    fn the_servers_own_subtree_and_ours_are_never_touched() {
        let mapping = Mapping::everything();
        for path in ["/zookeeper", "/zookeeper/quota", "/__zksync", "/__zksync/links/x"] {
            assert_eq!(mapping.key(Side::A, path), None, "{path}");
        }
        assert!(mapping.key(Side::A, "/zookeepers").is_some());
        assert!(mapping.key(Side::A, "/").is_some());
        assert!(Mapping::new(vec![rule("/zookeeper/quota", "/q", &[], &[])]).is_err());
        // Below another root it would land there.
        let sneaky = Mapping::new(vec![rule("/x", "/", &[], &[])]).unwrap();
        assert_eq!(sneaky.key(Side::A, "/x/zookeeper/quota"), None);
    }

    #[test]
    fn filters_take_what_is_above_and_below_and_leave_subtrees_out() {
        let mapping = Mapping::new(vec![rule("/", "/", &["/m/state", "/k/*/cfg"], &["/m/state/**/tmp", "/m/state/lock-*"])]).unwrap();
        for (path, taken) in [
            ("/", true),
            ("/m", true),
            ("/m/state", true),
            ("/m/state/a/b", true),
            ("/m/other", false),
            ("/k/1/cfg/x", true),
            ("/k/1/other", false),
            ("/m/state/tmp", false),
            ("/m/state/a/b/tmp/c", false),
            ("/m/state/lock-7", false),
        ] {
            assert_eq!(mapping.key(Side::A, path).is_some(), taken, "{path}");
        }
    }

    #[test]
    fn a_kind_is_told_of_a_znode_and_not_of_what_is_below_it() {
        assert!(names_exactly("/locks/*", "/locks/a"));
        assert!(!names_exactly("/locks/*", "/locks/a/b"));
        assert!(!names_exactly("/locks/*", "/locks"));
        assert!(names_exactly("/q/**", "/q/a/b"));
    }

    #[test]
    fn mappings_that_overlap_or_are_malformed_are_refused() {
        for rules in [
            vec![],
            vec![rule("/a", "/b", &[], &[]), rule("/a/c", "/d", &[], &[])],
            vec![rule("/a", "/b", &[], &[]), rule("/c", "/b/x", &[], &[])],
            vec![rule("a", "/b", &[], &[])],
            vec![rule("/a//b", "/b", &[], &[])],
            vec![rule("/a/../b", "/b", &[], &[])],
            vec![rule("/a/", "/b", &[], &[])],
        ] {
            assert!(Mapping::new(rules.clone()).is_err(), "{rules:?}");
        }
    }
}
