//! The sorters against a model that computes everything anew each time it is asked.

#![expect(clippy::cast_possible_truncation, reason = "eight clients")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use mesos::{Quantities, Scalar};
use proptest::prelude::*;

use super::{FrameworkSorter, RoleSorter, Totals};

const PATHS: [&str; 8] = ["a", "a/b", "a/b/c", "a/d", "b", "b/x", "c", "*"];

#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Remove(usize),
    Activate(usize, bool),
    Allocate(usize, i64, i64),
    Free(usize),
    Total(i64, i64),
    Weight(usize, u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..8).prop_map(Step::Add),
        1 => (0usize..8).prop_map(Step::Remove),
        2 => (0usize..8, any::<bool>()).prop_map(|(at, active)| Step::Activate(at, active)),
        6 => (0usize..8, 0i64..4000, 0i64..64_000).prop_map(|(at, cpus, mem)| Step::Allocate(at, cpus, mem)),
        2 => (0usize..8).prop_map(Step::Free),
        1 => (1i64..100_000, 1i64..1_000_000).prop_map(|(cpus, mem)| Step::Total(cpus, mem)),
        1 => (0usize..8, 1u8..5).prop_map(|(at, weight)| Step::Weight(at, weight)),
    ]
}

fn amounts(cpus: i64, mem: i64) -> Quantities {
    Quantities::from_iter([("cpus".into(), Scalar::from_milli(cpus)), ("mem".into(), Scalar::from_milli(mem))])
}

#[derive(Clone, Debug, Default)]
struct Model {
    /// Allocation, how often, whether active.
    clients: BTreeMap<usize, (Quantities, u64, bool)>,
    weights: BTreeMap<usize, f64>,
    total: Quantities,
}

impl Model {
    fn share(&self, allocated: &Quantities) -> f64 {
        let parts = allocated.iter().filter(|(name, _)| self.total.get(name).is_positive());
        parts.map(|(name, amount)| amount.to_f64() / self.total.get(name).to_f64()).fold(0.0, f64::max)
    }

    fn frameworks(&self) -> Vec<usize> {
        let active = self.clients.iter().filter(|(_, (_, _, active))| *active);
        let mut keys: Vec<_> = active.map(|(at, (allocated, count, _))| (self.share(allocated), *count, PATHS[*at], *at)).collect();
        keys.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        keys.into_iter().map(|it| it.3).collect()
    }

    /// The roles below `path`, the next first.
    fn roles(&self, path: &str, out: &mut Vec<usize>) {
        let below = |role: &str| path.is_empty() || role.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        let child = |role: &str| {
            let start = if path.is_empty() { 0 } else { path.len() + 1 };
            let end = role[start..].find('/').map_or(role.len(), |at| start + at);
            role[..end].to_owned()
        };
        let roles: Vec<&str> = self.clients.keys().map(|at| PATHS[*at]).collect();
        let children: BTreeSet<String> = roles.iter().filter(|role| below(role)).map(|role| child(role)).collect();
        let own = PATHS.iter().position(|it| *it == path).filter(|at| self.clients.contains_key(at));
        if children.is_empty() {
            out.extend(own);
            return;
        }
        let mut keys: Vec<(f64, u64, String, Option<usize>)> = Vec::new();
        for child in children {
            let mut sum = Quantities::new();
            let mut count = 0;
            for (at, (allocated, times, _)) in &self.clients {
                if PATHS[*at] == child || PATHS[*at].starts_with(&format!("{child}/")) {
                    sum.add_all(allocated);
                    count += times;
                }
            }
            let weight = PATHS.iter().position(|it| *it == child).and_then(|at| self.weights.get(&at)).copied().unwrap_or(1.0);
            keys.push((self.share(&sum) / weight, count, child, None));
        }
        if let Some(at) = own {
            let (allocated, count, _) = &self.clients[&at];
            keys.push((self.share(allocated), *count, String::new(), Some(at)));
        }
        let name = |key: &(f64, u64, String, Option<usize>)| {
            if key.3.is_some() { ".".to_owned() } else { key.2.rsplit('/').next().unwrap_or_default().to_owned() }
        };
        keys.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(name(a).cmp(&name(b))));
        for key in keys {
            match key.3 {
                Some(at) => out.push(at),
                None => self.roles(&key.2, out),
            }
        }
    }
}

proptest! {
    #[test]
    fn frameworks_come_in_the_order_of_their_shares(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut sorter = FrameworkSorter::default();
        let mut totals = Totals::new(BTreeSet::new());
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Add(at) => {
                    sorter.add(at as u32, &PATHS[at].into());
                    model.clients.entry(at).or_default();
                }
                Step::Remove(at) => {
                    sorter.remove(at as u32);
                    model.clients.remove(&at);
                }
                Step::Activate(at, active) => {
                    sorter.set_active(at as u32, active);
                    if let Some(client) = model.clients.get_mut(&at) {
                        if active && !client.2 {
                            client.1 = 0;
                        }
                        client.2 = active;
                    }
                }
                Step::Allocate(at, cpus, mem) => {
                    sorter.allocated(at as u32, &amounts(cpus, mem), &totals);
                    if let Some(client) = model.clients.get_mut(&at) {
                        client.0.add_all(&amounts(cpus, mem));
                        client.1 += 1;
                    }
                }
                Step::Free(at) => {
                    if let Some(client) = model.clients.get_mut(&at) {
                        sorter.unallocated(at as u32, &client.0, &totals);
                        client.0 = Quantities::new();
                    }
                }
                Step::Total(cpus, mem) => {
                    totals.change(&model.total, &amounts(cpus, mem));
                    model.total = amounts(cpus, mem);
                }
                Step::Weight(..) => {}
            }
            sorter.sort(&totals);
            let order: Vec<usize> = sorter.iter().map(|it| it as usize).collect();
            prop_assert_eq!(order, model.frameworks());
        }
    }

    #[test]
    fn roles_come_in_the_order_of_their_trees(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut sorter = RoleSorter::default();
        let mut totals = Totals::new(BTreeSet::new());
        let mut model = Model::default();
        let mut nodes: BTreeMap<usize, u32> = BTreeMap::new();
        let mut weights = imbl::OrdMap::new();
        for step in steps {
            match step {
                Step::Add(at) => {
                    model.clients.entry(at).or_default();
                    let node = sorter.add(PATHS[at], at as u32, &weights);
                    nodes.insert(at, node);
                }
                Step::Remove(at) => {
                    // Only roles without allocation are removed.
                    if model.clients.get(&at).is_some_and(|it| it.0.is_empty() && it.1 == 0) {
                        model.clients.remove(&at);
                        sorter.remove(nodes.remove(&at).expect("it was added"));
                    }
                }
                Step::Activate(..) => {}
                Step::Allocate(at, cpus, mem) => {
                    if let Some(client) = model.clients.get_mut(&at) {
                        sorter.allocated(nodes[&at], &amounts(cpus, mem), &totals);
                        client.0.add_all(&amounts(cpus, mem));
                        client.1 += 1;
                    }
                }
                Step::Free(at) => {
                    if let Some(client) = model.clients.get_mut(&at) {
                        sorter.unallocated(nodes[&at], &client.0, &totals);
                        client.0 = Quantities::new();
                    }
                }
                Step::Total(cpus, mem) => {
                    totals.change(&model.total, &amounts(cpus, mem));
                    model.total = amounts(cpus, mem);
                }
                Step::Weight(at, weight) => {
                    weights.insert(PATHS[at].to_owned(), f64::from(weight));
                    model.weights.insert(at, f64::from(weight));
                    sorter.set_weight(PATHS[at], f64::from(weight));
                }
            }
            sorter.sort(&totals);
            let mut order = Vec::new();
            sorter.visit(&mut |role| {
                order.push(role as usize);
                ControlFlow::Continue(())
            });
            let mut expected = Vec::new();
            model.roles("", &mut expected);
            prop_assert_eq!(order, expected);
        }
    }
}

#[test]
fn a_resource_may_be_left_out_of_fairness() {
    let mut totals = Totals::new(BTreeSet::from(["mem".to_owned()]));
    totals.change(&Quantities::new(), &amounts(10_000, 10_000));
    assert_eq!(totals.share(&amounts(1000, 9000)).to_bits(), 0.1f64.to_bits());
}

#[test]
fn chance_prefers_nobody_but_for_their_weights() {
    let totals = Totals::default();
    let mut frameworks = FrameworkSorter::default();
    for (at, name) in ["a", "b", "c", "gone"].iter().enumerate() {
        frameworks.add(at as u32, &(*name).into());
        frameworks.set_active(at as u32, *name != "gone");
    }
    let weights = imbl::OrdMap::from_iter([("heavy".to_owned(), 3.0)]);
    let mut roles = RoleSorter::default();
    let nodes =
        ["light", "heavy", "light/below"].map(|path| roles.add(path, if path == "heavy" { 1 } else { path.len() as u32 }, &weights));
    let (mut random, mut first, mut heavy) = (7, [0; 3], 0);
    for _ in 0..6_000 {
        frameworks.shuffle(&mut random);
        let order: Vec<u32> = frameworks.iter().collect();
        assert_eq!(order.iter().copied().collect::<BTreeSet<u32>>(), [0, 1, 2].into());
        first[order[0] as usize] += 1;
        roles.shuffle(&mut random);
        let mut visited = Vec::new();
        roles.visit(&mut |role| {
            visited.push(role);
            ControlFlow::Continue(())
        });
        assert_eq!(visited.iter().copied().collect::<BTreeSet<u32>>(), [1, 5, 11].into());
        heavy += u32::from(visited[0] == 1);
    }
    assert!(first.iter().all(|it| (1_850..2_150).contains(it)), "{first:?}");
    assert!((4_350..4_650).contains(&heavy), "three of four: {heavy}");
    // What changes between two draws is not visited by accident.
    frameworks.remove(1);
    roles.remove(nodes[1]);
    assert!(!frameworks.iter().any(|it| it == 1));
    roles.visit(&mut |role| {
        assert_ne!(role, 1);
        ControlFlow::Continue(())
    });
    frameworks.allocated(0, &amounts(1, 1), &totals);
}
