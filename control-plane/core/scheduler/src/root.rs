//! The tree of groups with everything that is defined in it. A value: copies are cheap, so that versions, plans and readers keep their own.

use base::Timestamp;
use imbl::OrdMap;

use crate::id::PathId;
use crate::model::spec::Spec;
use crate::scheduler::words::Undo;

/// All that is defined at one time.
#[derive(Clone, Debug, Default)]
pub struct Root {
    specs: OrdMap<PathId, Spec>,
    groups: OrdMap<PathId, Group>,
    /// Service ports, each with the number of times it is used.
    ports: OrdMap<u16, u32>,
    /// Instances wanted of everything.
    instances: u64,
    version: Timestamp,
}

/// What a group itself says; what is in it is found by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Apps or groups that are deployed before all that is in it.
    pub dependencies: Vec<PathId>,
    /// Whether everything in it has the group's name as its role; top-level groups only.
    pub enforce_role: Option<bool>,
    /// When it, or anything in it, was last changed.
    pub version: Timestamp,
}

impl Root {
    /// When anything was last changed.
    pub fn version(&self) -> Timestamp {
        self.version
    }

    /// Says when anything was last changed.
    pub fn set_version(&mut self, version: Timestamp) {
        self.version = version;
    }

    /// The app or pod at `id`.
    pub fn spec(&self, id: &PathId) -> Option<&Spec> {
        self.specs.get(id)
    }

    /// All apps and pods, by path.
    pub fn specs(&self) -> impl Iterator<Item = (&PathId, &Spec)> {
        self.specs.iter()
    }

    /// How many apps and pods there are.
    pub fn spec_count(&self) -> usize {
        self.specs.len()
    }

    /// All apps and pods somewhere below `group`, by path.
    pub fn specs_below<'a>(&'a self, group: &PathId) -> impl Iterator<Item = (&'a PathId, &'a Spec)> + use<'a> {
        let group = group.clone();
        self.specs.range(group.prefix()..).take_while(move |(id, _)| id.is_below(&group))
    }

    /// The group at `id`; the root is always there.
    pub fn group(&self, id: &PathId) -> Option<Group> {
        match self.groups.get(id) {
            Some(group) => Some(group.clone()),
            None if id.is_root() => Some(Group { version: self.version, ..Group::default() }),
            None => None,
        }
    }

    /// All groups somewhere below `group`, by path.
    pub fn groups_below<'a>(&'a self, group: &PathId) -> impl Iterator<Item = (&'a PathId, &'a Group)> + use<'a> {
        let group = group.clone();
        self.groups.range(group.prefix()..).filter(|(id, _)| !id.is_root()).take_while(move |(id, _)| id.is_below(&group))
    }

    /// How many groups there are, the root included.
    pub fn group_count(&self) -> usize {
        self.groups.len() + usize::from(!self.groups.contains_key(&PathId::root()))
    }

    /// How many instances there should be of everything.
    pub fn instance_count(&self) -> u64 {
        self.instances
    }

    /// Whether nothing is in `group`.
    pub fn is_empty(&self, group: &PathId) -> bool {
        self.specs_below(group).next().is_none() && self.groups_below(group).next().is_none()
    }

    /// Whether any app or pod uses the service port.
    pub fn uses_port(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// Puts an app or pod in place, and the groups above it. An empty group in its place makes room.
    pub fn put_spec(&mut self, spec: Spec) {
        let id = spec.id().clone();
        self.remove_spec(&id);
        if self.is_empty(&id) {
            self.groups.remove(&id);
        }
        for group in id.ancestors() {
            if self.groups.contains_key(&group) {
                break;
            }
            self.groups.insert(group, Group { version: self.version, ..Group::default() });
        }
        if let Spec::App(app) = &spec {
            for port in app.service_ports() {
                *self.ports.entry(port).or_insert(0) += 1;
            }
        }
        self.instances += u64::from(spec.instances());
        self.specs.insert(id, spec);
    }

    /// Takes an app or pod out; the groups stay.
    pub fn remove_spec(&mut self, id: &PathId) -> Option<Spec> {
        let spec = self.specs.remove(id)?;
        self.instances = self.instances.saturating_sub(u64::from(spec.instances()));
        if let Spec::App(app) = &spec {
            for port in app.service_ports() {
                let left = self.ports.get(&port).map_or(0, |count| count - 1);
                if left == 0 {
                    self.ports.remove(&port);
                } else {
                    self.ports.insert(port, left);
                }
            }
        }
        Some(spec)
    }

    /// Puts a group in place, and the groups above it.
    pub fn put_group(&mut self, id: PathId, group: Group) {
        for above in id.ancestors() {
            if !self.groups.contains_key(&above) {
                self.groups.insert(above, Group { version: self.version, ..Group::default() });
            }
        }
        self.groups.insert(id, group);
    }

    /// Takes a group out with everything in it.
    pub fn remove_group(&mut self, id: &PathId) {
        let specs: Vec<PathId> = self.specs_below(id).map(|(id, _)| id.clone()).collect();
        for spec in specs {
            self.remove_spec(&spec);
        }
        let groups: Vec<PathId> = self.groups_below(id).map(|(id, _)| id.clone()).collect();
        for group in groups {
            self.groups.remove(&group);
        }
        self.groups.remove(id);
    }

    /// Marks `id` and every group above as changed at `version`.
    pub(crate) fn touch(&mut self, id: &PathId, version: Timestamp) {
        for group in std::iter::once(id.clone()).chain(id.ancestors()) {
            if let Some(found) = self.groups.get(&group).filter(|found| found.version != version).cloned() {
                self.groups.insert(group, Group { version, ..found });
            }
        }
        self.version = version;
    }

    /// Everything that differs in `newer`: apps and pods, and groups, by path.
    pub fn differences(&self, newer: &Root) -> Differences {
        let mut found = Differences::default();
        for item in self.specs.diff(&newer.specs) {
            found.specs.push(match item {
                imbl::ordmap::DiffItem::Add(id, _) | imbl::ordmap::DiffItem::Remove(id, _) => id.clone(),
                imbl::ordmap::DiffItem::Update { new: (id, _), .. } => id.clone(),
            });
        }
        for item in self.groups.diff(&newer.groups) {
            found.groups.push(match item {
                imbl::ordmap::DiffItem::Add(id, _) | imbl::ordmap::DiffItem::Remove(id, _) => id.clone(),
                imbl::ordmap::DiffItem::Update { new: (id, _), .. } => id.clone(),
            });
        }
        found
    }
}

impl Root {
    /// What takes the root that comes next, and differs so, back to this one.
    pub(crate) fn undo(&self, differences: &Differences, next: Timestamp) -> Undo {
        Undo {
            version: next,
            before: self.version,
            specs: differences.specs.iter().map(|id| (id.clone(), self.specs.get(id).map(Spec::version))).collect(),
            groups: differences.groups.iter().map(|id| (id.clone(), self.groups.get(id).cloned())).collect(),
        }
    }

    /// The root before this one. `known` finds definitions by path and version.
    pub(crate) fn taken_back(&self, undo: &Undo, known: impl Fn(&PathId, Timestamp) -> Option<Spec>) -> Root {
        let mut root = self.clone();
        for (id, version) in &undo.specs {
            match version.and_then(|version| known(id, version)) {
                Some(spec) => root.put_spec(spec),
                None => drop(root.remove_spec(id)),
            }
        }
        for (id, group) in &undo.groups {
            match group {
                Some(group) => drop(root.groups.insert(id.clone(), group.clone())),
                None => drop(root.groups.remove(id)),
            }
        }
        root.version = undo.before;
        root
    }
}

/// Paths at which two roots differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Of apps and pods.
    pub specs: Vec<PathId>,
    /// Of groups.
    pub groups: Vec<PathId>,
}
