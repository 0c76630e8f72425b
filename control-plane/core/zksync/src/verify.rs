use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::LinkConfig;
use crate::mapping::name;
use crate::node::{Acl, Hash, Key, Node, Side, hash_acl, hash_data};

/// A znode of one side, as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The pair.
    pub key: Key,
    /// What the data hash to.
    pub data: Hash,
    /// What the access control list hashes to, in A's words; 0 when they are not compared.
    pub acl: u64,
    /// Bytes of the data.
    pub size: u64,
}

impl Entry {
    /// Of a znode that was read with its access control list, unless these are ignored.
    pub fn of(config: &LinkConfig, side: Side, key: Key, node: &Node) -> Entry {
        let acl = |acl: &Vec<Acl>| hash_acl(&config.canonical(acl, side));
        let acl = if config.acl == crate::config::AclPolicy::Ignore { 0 } else { node.acl.as_ref().map_or(0, acl) };
        Entry { key, data: hash_data(&node.data), acl, size: node.data.len() as u64 }
    }

    /// The same, where what the access control list hashes to was found before and cannot have changed since.
    pub fn with_acl(key: Key, node: &Node, acl: u64) -> Entry {
        Entry { key, data: hash_data(&node.data), acl, size: node.data.len() as u64 }
    }
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// Only A has it.
    OnlyA,
    /// Only B has it.
    OnlyB,
    /// The data differ.
    Data,
    /// The access control lists differ.
    Acl,
}

impl DifferenceKind {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            DifferenceKind::OnlyA => "only_a",
            DifferenceKind::OnlyB => "only_b",
            DifferenceKind::Data => "data",
            DifferenceKind::Acl => "acl",
        }
    }
}

/// A znode in which the sides differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// A's path.
    pub path: String,
    /// What differs.
    pub kind: DifferenceKind,
}

/// What a comparison of everything found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Whether nothing differs.
    pub equal: bool,
    /// Hash of A's tree, in hexadecimal.
    pub root_a: String,
    /// Hash of B's tree, in hexadecimal.
    pub root_b: String,
    /// Znodes compared on A.
    pub nodes_a: u64,
    /// Znodes compared on B.
    pub nodes_b: u64,
    /// Bytes of data on A.
    pub bytes_a: u64,
    /// Bytes of data on B.
    pub bytes_b: u64,
    /// Subtrees whose hashes were compared; equal ones were not looked into.
    pub subtrees: u64,
    /// Every znode that differs, up to [`Verification::LISTED_MAX`].
    pub differences: Vec<Difference>,
    /// How many differ.
    pub differing: u64,
}

impl Verification {
    /// Differences that are listed; the rest is counted.
    pub const LISTED_MAX: usize = 100_000;
}

/// A tree in one list, each place after the one above it: a path may have half a million names, which no stack holds.
#[derive(Debug)]
struct Tree {
    places: Vec<Place>,
}

#[derive(Debug, Default)]
struct Place {
    children: BTreeMap<String, usize>,
    /// Data, access control list; none for a znode that is only above others.
    leaf: Option<(Hash, u64)>,
    hash: Hash,
}

impl Tree {
    const ROOT: usize = 0;

    fn of(entries: &[Entry]) -> Tree {
        let mut places = vec![Place::default()];
        for entry in entries {
            let mut at = Tree::ROOT;
            for name in entry.key.split('/').filter(|name| !name.is_empty()) {
                let new = places.len();
                at = *places[at].children.entry(name.to_owned()).or_insert(new);
                if at == new {
                    places.push(Place::default());
                }
            }
            places[at].leaf = Some((entry.data, entry.acl));
        }
        let mut tree = Tree { places };
        tree.seal();
        tree
    }

    /// From the last place to the first: so each comes after all that are below it.
    fn seal(&mut self) {
        for at in (0..self.places.len()).rev() {
            let place = &self.places[at];
            let mut hasher = blake3::Hasher::new();
            if let Some((data, acl)) = &place.leaf {
                hasher.update(&[1]);
                hasher.update(data);
                hasher.update(&acl.to_le_bytes());
            }
            for (name, child) in &place.children {
                hasher.update(&(name.len() as u64).to_le_bytes());
                hasher.update(name.as_bytes());
                hasher.update(&self.places[*child].hash);
            }
            let sealed = hasher.finalize();
            self.places[at].hash.copy_from_slice(&sealed.as_bytes()[..16]);
        }
    }

    fn root(&self) -> &Place {
        &self.places[Tree::ROOT]
    }
}

/// Compares all of A with all of B: hashes of subtrees first, and only where these differ the znodes.
pub fn compare(a: &[Entry], b: &[Entry]) -> Verification {
    let (tree_a, tree_b) = (Tree::of(a), Tree::of(b));
    let mut found = Verification {
        root_a: hex(&tree_a.root().hash),
        root_b: hex(&tree_b.root().hash),
        nodes_a: a.len() as u64,
        nodes_b: b.len() as u64,
        bytes_a: a.iter().map(|entry| entry.size).sum(),
        bytes_b: b.iter().map(|entry| entry.size).sum(),
        ..Verification::default()
    };
    descend(&tree_a, &tree_b, &mut found);
    found.equal = found.differing == 0;
    found
}

fn descend(tree_a: &Tree, tree_b: &Tree, found: &mut Verification) {
    let empty = BTreeMap::new();
    let mut waiting = vec![("/".to_owned(), Some(tree_a.root()), Some(tree_b.root()))];
    while let Some((path, a, b)) = waiting.pop() {
        found.subtrees += 1;
        if let (Some(a), Some(b)) = (a, b)
            && a.hash == b.hash
        {
            continue;
        }
        let kind = match (a.and_then(|place| place.leaf), b.and_then(|place| place.leaf)) {
            (Some(_), None) => Some(DifferenceKind::OnlyA),
            (None, Some(_)) => Some(DifferenceKind::OnlyB),
            (Some(a), Some(b)) if a.0 != b.0 => Some(DifferenceKind::Data),
            (Some(a), Some(b)) if a.1 != b.1 => Some(DifferenceKind::Acl),
            _ => None,
        };
        let (a, b) = (a.map_or(&empty, |place| &place.children), b.map_or(&empty, |place| &place.children));
        let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        // The first one is looked at next.
        for name in names.into_iter().rev() {
            let place = |tree: &'_ BTreeMap<String, usize>| tree.get(name).copied();
            let (a, b) = (place(a).map(|at| &tree_a.places[at]), place(b).map(|at| &tree_b.places[at]));
            waiting.push((crate::mapping::child(&path, name), a, b));
        }
        if let Some(kind) = kind {
            found.differing += 1;
            if found.differences.len() < Verification::LISTED_MAX {
                found.differences.push(Difference { path, kind });
            }
        }
    }
}

fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a name ends in the ten digits that the server appends to sequential znodes.
pub fn is_numbered(path: &str) -> bool {
    let name = name(path).as_bytes();
    name.len() >= 10 && name[name.len() - 10..].iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, data: u8, acl: u64) -> Entry {
        Entry { key: key.into(), data: [data; 16], acl, size: 1 }
    }

    #[test]
    fn every_difference_is_found_and_equal_subtrees_are_not_looked_into() {
        let mut a: Vec<Entry> = (0..1_000).map(|n| entry(&format!("/same/{n}"), 1, 1)).collect();
        let mut b = a.clone();
        a.extend([entry("/x", 1, 1), entry("/x/only-a", 1, 1), entry("/x/data", 1, 1), entry("/x/acl", 1, 1)]);
        b.extend([entry("/x", 1, 1), entry("/x/only-b", 1, 1), entry("/x/data", 2, 1), entry("/x/acl", 1, 2)]);
        let found = compare(&a, &b);
        let told: Vec<(&str, DifferenceKind)> = found.differences.iter().map(|it| (it.path.as_str(), it.kind)).collect();
        assert_eq!(
            told,
            [
                ("/x/acl", DifferenceKind::Acl),
                ("/x/data", DifferenceKind::Data),
                ("/x/only-a", DifferenceKind::OnlyA),
                ("/x/only-b", DifferenceKind::OnlyB)
            ]
        );
        assert!(!found.equal && found.differing == 4 && found.root_a != found.root_b);
        assert!(found.subtrees < 10, "{}", found.subtrees);
        let equal = compare(&a, &a);
        assert!(equal.equal && equal.root_a == equal.root_b && equal.subtrees == 1);
    }

    #[test]
    fn a_name_moved_to_another_place_is_seen() {
        let found = compare(&[entry("/ab/c", 1, 1)], &[entry("/a/bc", 1, 1)]);
        assert_eq!(found.differing, 2);
    }

    #[test]
    fn a_path_of_very_many_names_is_compared_as_well() {
        let deep = |data: u8| -> Vec<Entry> {
            let path = "/d".repeat(20_000);
            vec![entry(&path[..path.len() - 2], 1, 1), entry(&path, data, 1)]
        };
        let compared = std::thread::Builder::new().stack_size(128 * 1024).spawn(move || compare(&deep(1), &deep(2)));
        let found = compared.unwrap().join().unwrap();
        assert_eq!((found.differing, found.differences[0].kind), (1, DifferenceKind::Data));
    }
}
