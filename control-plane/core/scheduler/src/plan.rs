//! From the old root to the new one: which steps, in which order.

use std::collections::BTreeMap;

use base::Timestamp;

use crate::id::{InstanceId, PathId};
use crate::model::spec::Spec;
use crate::root::{Group, Root};

/// What a deployment does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A uuid.
    pub id: String,
    /// When the change was made.
    pub version: Timestamp,
    /// One after the other; the actions of one side by side.
    pub steps: Vec<Vec<Action>>,
    /// Every app and pod that it touches, before and after.
    pub changes: BTreeMap<PathId, Change<Spec>>,
    /// Every group that it makes, changes or removes, before and after.
    pub groups: BTreeMap<PathId, Change<Group>>,
}

/// Before and after.
#[derive(Clone, Debug)]
pub struct Change<T> {
    /// Before; `None` when it was not there.
    pub from: Option<T>,
    /// After; `None` when it is not there any more.
    pub to: Option<T>,
}

/// One thing that a deployment does to one app or pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// What.
    pub kind: ActionKind,
    /// To what.
    pub spec: PathId,
    /// Whether that is a pod.
    pub is_pod: bool,
    /// Instances that go first, in a scale action.
    pub sentenced: Vec<InstanceId>,
}

/// What a deployment does to an app or pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// Makes it known; starts nothing yet.
    Start,
    /// Brings the number of instances to what is wanted.
    Scale,
    /// Replaces every instance.
    Restart,
    /// Ends every instance.
    Stop,
}

impl Action {
    /// Marathon's word.
    pub fn word(&self) -> &'static str {
        match (self.kind, self.is_pod) {
            (ActionKind::Start, false) => "StartApplication",
            (ActionKind::Scale, false) => "ScaleApplication",
            (ActionKind::Restart, false) => "RestartApplication",
            (ActionKind::Stop, false) => "StopApplication",
            (ActionKind::Start, true) => "StartPod",
            (ActionKind::Scale, true) => "ScalePod",
            (ActionKind::Restart, true) => "RestartPod",
            (ActionKind::Stop, true) => "StopPod",
        }
    }
}

/// A dependency that leads back to where it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cyclic;

impl Plan {
    /// The plan from `old` to `new` for what differs at `touched`. `sentenced` are instances that go first where their app shrinks.
    ///
    /// # Errors
    /// When dependencies go in circles.
    pub fn between(
        old: &Root,
        new: &Root,
        touched: &[PathId],
        groups: &[PathId],
        sentenced: &BTreeMap<PathId, Vec<InstanceId>>,
        (id, version): (String, Timestamp),
    ) -> Result<Plan, Cyclic> {
        let mut changes = BTreeMap::new();
        let (mut stops, mut starts) = (Vec::new(), Vec::new());
        let mut rest: BTreeMap<PathId, Action> = BTreeMap::new();
        for spec in touched {
            let (before, after) = (old.spec(spec), new.spec(spec));
            let is_pod = after.or(before).is_some_and(Spec::is_pod);
            let action = |kind| Action { kind, spec: spec.clone(), is_pod, sentenced: Vec::new() };
            match (before, after) {
                (None, None) => continue,
                (Some(_), None) => stops.push(action(ActionKind::Stop)),
                (None, Some(_)) => {
                    starts.push(action(ActionKind::Start));
                    rest.insert(spec.clone(), action(ActionKind::Scale));
                }
                (Some(before), Some(after)) => {
                    let kills = sentenced.get(spec);
                    if before.config_version() != after.config_version() && after.instances() > 0 {
                        rest.insert(spec.clone(), action(ActionKind::Restart));
                    } else if before.version() != after.version() || kills.is_some() {
                        let sentenced = kills.cloned().unwrap_or_default();
                        rest.insert(spec.clone(), Action { sentenced, ..action(ActionKind::Scale) });
                    } else {
                        continue;
                    }
                }
            }
            changes.insert(spec.clone(), Change { from: before.cloned(), to: after.cloned() });
        }
        // Looked at even if nothing is to be done there, so that no circle is ever stored.
        let levels = levels(new, touched)?;
        let mut by_level: BTreeMap<usize, Vec<Action>> = BTreeMap::new();
        for (spec, action) in rest {
            by_level.entry(levels.get(&spec).copied().unwrap_or(0)).or_default().push(action);
        }
        let steps = [stops, starts].into_iter().chain(by_level.into_values()).filter(|step| !step.is_empty()).collect();
        let groups = groups.iter().map(|id| (id.clone(), Change { from: old.group(id), to: new.group(id) })).collect();
        Ok(Plan { id, version, steps, changes, groups })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Something that has a level.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Spec(PathId),
    /// All that is in a group. Its own node, so that two groups of many apps have few edges between them.
    Below(PathId),
}

/// How far each of `specs` is from what depends on nothing.
fn levels(root: &Root, specs: &[PathId]) -> Result<BTreeMap<PathId, usize>, Cyclic> {
    let mut levels: BTreeMap<Node, Option<usize>> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for spec in specs {
        if root.spec(spec).is_none() {
            continue;
        }
        // By hand instead of by recursion: a chain may be as long as there are apps.
        let start = Node::Spec(spec.clone());
        let mut stack: Vec<(Node, Vec<Node>, usize)> = Vec::new();
        if !levels.contains_key(&start) {
            levels.insert(start.clone(), None);
            let edges = edges(root, &start);
            stack.push((start.clone(), edges, 0));
        }
        while let Some((node, edges_left, level)) = stack.last_mut() {
            match edges_left.pop() {
                Some(next) => match levels.get(&next) {
                    Some(Some(known)) => {
                        let step = usize::from(matches!(node, Node::Spec(_)));
                        *level = (*level).max(known + step);
                    }
                    Some(None) => return Err(Cyclic),
                    None => {
                        levels.insert(next.clone(), None);
                        let below = edges(root, &next);
                        // Looked at again when it is known.
                        edges_left.push(next.clone());
                        stack.push((next, below, 0));
                    }
                },
                None => {
                    levels.insert(node.clone(), Some(*level));
                    stack.pop();
                }
            }
        }
        if let Some(Some(level)) = levels.get(&start) {
            found.insert(spec.clone(), *level);
        }
    }
    Ok(found)
}

fn edges(root: &Root, node: &Node) -> Vec<Node> {
    let target = |path: &PathId| {
        if root.spec(path).is_some() { Some(Node::Spec(path.clone())) } else { root.group(path).map(|_| Node::Below(path.clone())) }
    };
    match node {
        Node::Spec(id) => {
            let own = root.spec(id).map(Spec::dependencies).unwrap_or_default().to_vec();
            let inherited = id.ancestors().filter_map(|group| root.group(&group)).flat_map(|group| group.dependencies);
            own.into_iter().chain(inherited).filter_map(|path| target(&path)).collect()
        }
        Node::Below(group) => root.specs_below(group).map(|(id, _)| Node::Spec(id.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::app::{App, VersionInfo};

    fn app(id: &str, dependencies: &[&str], at: u64) -> Spec {
        let at = Timestamp::from_unix_millis(at);
        Spec::App(Arc::new(App {
            dependencies: dependencies.iter().map(|it| PathId::absolute(it)).collect(),
            version: at,
            version_info: VersionInfo { last_scaling_at: at, last_config_change_at: at },
            ..App::new(PathId::absolute(id))
        }))
    }

    fn root(specs: impl IntoIterator<Item = Spec>) -> Root {
        let mut root = Root::default();
        specs.into_iter().for_each(|spec| root.put_spec(spec));
        root
    }

    fn between(old: &Root, new: &Root) -> Result<Vec<String>, Cyclic> {
        let found = old.differences(new);
        let plan = Plan::between(old, new, &found.specs, &found.groups, &BTreeMap::new(), ("p".to_owned(), Timestamp::EPOCH))?;
        Ok(plan
            .steps
            .iter()
            .map(|step| step.iter().map(|it| format!("{} {}", it.word(), it.spec)).collect::<Vec<_>>().join(", "))
            .collect())
    }

    #[test]
    fn what_depends_comes_after_what_it_depends_on() {
        let new = root([
            app("/shop/web", &["/shop/db", "/mail"], 1),
            app("/shop/db", &[], 1),
            app("/mail/smtp", &["/shop/db"], 1),
            app("/alone", &[], 1),
        ]);
        let steps = between(&Root::default(), &new).unwrap();
        assert_eq!(
            steps,
            [
                "StartApplication /alone, StartApplication /mail/smtp, StartApplication /shop/db, StartApplication /shop/web",
                "ScaleApplication /alone, ScaleApplication /shop/db",
                "ScaleApplication /mail/smtp",
                "ScaleApplication /shop/web",
            ]
        );
    }

    #[test]
    fn stops_come_first_and_what_is_the_same_is_left_alone() {
        let old = root([app("/a", &[], 1), app("/b", &[], 1), app("/c", &[], 1)]);
        let mut new = root([app("/b", &[], 2), app("/c", &[], 1)]);
        assert_eq!(between(&old, &new).unwrap(), ["StopApplication /a", "RestartApplication /b"]);
        new.put_spec(app("/b", &[], 2).with_instances(0));
        assert_eq!(between(&old, &new).unwrap(), ["StopApplication /a", "ScaleApplication /b"]);
        assert!(between(&old, &old).unwrap().is_empty());
    }

    #[test]
    fn circles_are_refused() {
        assert_eq!(between(&Root::default(), &root([app("/a", &["/b"], 1), app("/b", &["/a"], 1)])), Err(Cyclic));
        assert_eq!(between(&Root::default(), &root([app("/a", &["/a"], 1)])), Err(Cyclic));
        assert_eq!(between(&Root::default(), &root([app("/g/a", &["/h"], 1), app("/h/a", &["/g/a"], 1)])), Err(Cyclic));
    }

    #[test]
    fn a_chain_of_ten_thousand_is_no_problem() {
        let name = |n: usize| format!("/a{n}");
        let new = root((0..10_000).map(|n| app(&name(n), &[&name(n + 1)], 1)));
        assert_eq!(between(&Root::default(), &new).unwrap().len(), 10_001);
    }
}
