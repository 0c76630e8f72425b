//! Who is next: clients ordered by the share of the cluster that they have.
//!
//! Orders are kept in trees that a change of one client mends in logarithmic time. Only a change of the cluster's total, on which every share
//! depends, makes all of them anew, at the next run.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use mesos::{Quantities, Scalar};

use super::next_random;

#[cfg(test)]
mod tests;

/// What shares are shares of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    amounts: Quantities,
    excluded: BTreeSet<String>,
    /// Changes when the amounts change.
    version: u64,
}

impl Totals {
    pub(crate) fn new(excluded: BTreeSet<String>) -> Self {
        Totals { amounts: Quantities::new(), excluded, version: 1 }
    }

    pub(crate) fn change(&mut self, before: &Quantities, after: &Quantities) {
        if before != after {
            self.amounts.subtract_all(before);
            self.amounts.add_all(after);
            self.version += 1;
        }
    }

    pub(crate) fn amounts(&self) -> &Quantities {
        &self.amounts
    }

    /// The dominant share: the largest part of any resource.
    pub(crate) fn share(&self, allocated: &Quantities) -> f64 {
        let parts = allocated.iter().filter(|(name, _)| self.excluded.is_empty() || !self.excluded.contains(&***name));
        parts.fold(0.0, |share: f64, (name, amount)| {
            let total = self.amounts.get(name);
            if total.is_positive() && amount > Scalar::ZERO { share.max(amount.to_f64() / total.to_f64()) } else { share }
        })
    }
}

/// The place of a client among its siblings: smaller share first, then fewer allocations, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Bits of a share that is not negative: they order as the numbers do.
    share: u64,
    count: u64,
    name: Arc<str>,
    slot: u32,
}

#[derive(Clone, Debug)]
struct Client {
    place: Place,
    allocated: Quantities,
    active: bool,
}

/// The frameworks of a role.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameworkSorter {
    clients: BTreeMap<u32, Client>,
    order: BTreeSet<Place>,
    /// Instead of that, where chance decides: as it fell for the agent that is being offered.
    shuffled: Option<Vec<u32>>,
    sorted_for: u64,
}

impl FrameworkSorter {
    /// Adds one that is not active.
    pub(crate) fn add(&mut self, slot: u32, name: &Arc<str>) {
        let place = Place { share: 0, count: 0, name: name.clone(), slot };
        self.clients.entry(slot).or_insert(Client { place, allocated: Quantities::new(), active: false });
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        self.shuffled = None;
        if let Some(client) = self.clients.remove(&slot) {
            self.order.remove(&client.place);
        }
    }

    /// Lets it take part or not. Whoever begins to take part has been given nothing yet.
    pub(crate) fn set_active(&mut self, slot: u32, active: bool) {
        let Some(client) = self.clients.get_mut(&slot) else { return };
        if client.active == active {
            return;
        }
        client.active = active;
        self.shuffled = None;
        if active {
            client.place.count = 0;
            self.order.insert(client.place.clone());
        } else {
            self.order.remove(&client.place);
        }
    }

    pub(crate) fn is_active(&self, slot: u32) -> bool {
        self.clients.get(&slot).is_some_and(|client| client.active)
    }

    pub(crate) fn any_active(&self) -> bool {
        !self.order.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// It has more than before.
    pub(crate) fn allocated(&mut self, slot: u32, more: &Quantities, totals: &Totals) {
        self.change(slot, totals, |client| {
            client.allocated.add_all(more);
            client.place.count += 1;
        });
    }

    /// It has less than before.
    pub(crate) fn unallocated(&mut self, slot: u32, less: &Quantities, totals: &Totals) {
        self.change(slot, totals, |client| client.allocated.subtract_all(less));
    }

    fn change(&mut self, slot: u32, totals: &Totals, change: impl FnOnce(&mut Client)) {
        let Some(client) = self.clients.get_mut(&slot) else { return };
        if client.active {
            self.order.remove(&client.place);
        }
        change(client);
        client.place.share = totals.share(&client.allocated).to_bits();
        if client.active {
            self.order.insert(client.place.clone());
        }
    }

    /// Makes the order right after the total changed.
    pub(crate) fn sort(&mut self, totals: &Totals) {
        if self.sorted_for == totals.version {
            return;
        }
        self.sorted_for = totals.version;
        self.order.clear();
        for client in self.clients.values_mut() {
            client.place.share = totals.share(&client.allocated).to_bits();
            if client.active {
                self.order.insert(client.place.clone());
            }
        }
    }

    /// Lets chance decide who is next.
    pub(crate) fn shuffle(&mut self, random: &mut u64) {
        let mut drawn: Vec<(u64, u32)> = self.order.iter().map(|place| (next_random(random), place.slot)).collect();
        drawn.sort_unstable();
        self.shuffled = Some(drawn.into_iter().map(|(_, slot)| slot).collect());
    }

    /// Active clients, who is next first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let ordered = self.order.iter().filter(|_| self.shuffled.is_none()).map(|place| place.slot);
        self.shuffled.iter().flatten().copied().chain(ordered)
    }
}

/// How long one waits for what happens once per time on average: of several such waits the one of twice the rate is the shortest twice as often.
fn waiting_time(random: &mut u64) -> f64 {
    // 53 bits are what a double has; never 0, of which there is no logarithm.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let part = ((next_random(random) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    -part.ln()
}

/// Stands for a role's own frameworks among the role's children.
const OWN: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Node {
    parent: u32,
    component: Arc<str>,
    children: BTreeMap<Arc<str>, u32>,
    /// Of the children, and of the role itself when it has children.
    order: BTreeSet<Place>,
    /// Instead of that, where chance decides: as it fell for the agent that is being offered.
    shuffled: Option<Vec<u32>>,
    /// Where this is among its siblings.
    place: Place,
    /// Where its own frameworks are among its children.
    own_place: Place,
    weight: f64,
    /// Of the subtree.
    allocated: Quantities,
    /// Of its own frameworks.
    own: Quantities,
    /// The role whose frameworks these are, if there are any.
    role: Option<u32>,
}

/// The roles: a tree of their paths, siblings ordered by the share of their subtrees.
#[derive(Clone, Debug)]
pub(crate) struct RoleSorter {
    nodes: slab::Slab<Node>,
    root: u32,
    sorted_for: u64,
}

impl Default for RoleSorter {
    fn default() -> Self {
        let mut nodes = slab::Slab::new();
        let root = slot(nodes.insert(Node::new(0, "".into())));
        RoleSorter { nodes, root, sorted_for: 0 }
    }
}

/// Slots are counted in 32 bits: far more than fit in memory.
pub(crate) fn slot(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(OWN - 1)
}

impl Node {
    fn new(parent: u32, component: Arc<str>) -> Node {
        let place = Place { share: 0, count: 0, name: component.clone(), slot: 0 };
        Node {
            parent,
            component,
            children: BTreeMap::new(),
            order: BTreeSet::new(),
            shuffled: None,
            own_place: Place { share: 0, count: 0, name: ".".into(), slot: OWN },
            place,
            weight: 1.0,
            allocated: Quantities::new(),
            own: Quantities::new(),
            role: None,
        }
    }
}

impl RoleSorter {
    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    /// Adds a role, and gives back where it is.
    pub(crate) fn add(&mut self, path: &str, role: u32, weights: &imbl::OrdMap<String, f64>) -> u32 {
        let mut at = self.root;
        let mut end = 0;
        for component in path.split('/') {
            end += component.len() + usize::from(end > 0);
            at = match self.node(at).children.get(component) {
                Some(child) => *child,
                None => {
                    let component: Arc<str> = component.into();
                    let mut node = Node::new(at, component.clone());
                    node.weight = path.get(..end).and_then(|path| weights.get(path)).copied().unwrap_or(1.0);
                    let child = slot(self.nodes.insert(node));
                    self.node_mut(child).place.slot = child;
                    let place = self.node(child).place.clone();
                    let parent = self.node_mut(at);
                    parent.children.insert(component, child);
                    parent.order.insert(place);
                    if parent.role.is_some() {
                        let own = parent.own_place.clone();
                        parent.order.insert(own);
                    }
                    child
                }
            };
        }
        let node = self.node_mut(at);
        node.role = Some(role);
        if !node.children.is_empty() {
            let own = node.own_place.clone();
            node.order.insert(own);
        }
        at
    }

    /// Removes a role without frameworks and allocations.
    pub(crate) fn remove(&mut self, at: u32) {
        let node = self.node_mut(at);
        node.role = None;
        node.shuffled = None;
        let own = node.own_place.clone();
        node.order.remove(&own);
        let mut at = at;
        while at != self.root && self.node(at).role.is_none() && self.node(at).children.is_empty() {
            let node = self.nodes.remove(at as usize);
            let parent = self.node_mut(node.parent);
            parent.children.remove(&node.component);
            parent.order.remove(&node.place);
            // What is gone must not be visited.
            parent.shuffled = None;
            at = node.parent;
        }
    }

    pub(crate) fn set_weight(&mut self, path: &str, weight: f64) {
        let mut at = self.root;
        for component in path.split('/') {
            match self.node(at).children.get(component) {
                Some(child) => at = *child,
                None => return,
            }
        }
        self.node_mut(at).weight = weight;
        self.sorted_for = 0;
    }

    pub(crate) fn allocated(&mut self, at: u32, more: &Quantities, totals: &Totals) {
        self.change(at, totals, true, |allocated| allocated.add_all(more));
    }

    pub(crate) fn unallocated(&mut self, at: u32, less: &Quantities, totals: &Totals) {
        self.change(at, totals, false, |allocated| allocated.subtract_all(less));
    }

    fn change(&mut self, leaf: u32, totals: &Totals, counts: bool, change: impl Fn(&mut Quantities)) {
        let node = self.node_mut(leaf);
        let own_listed = node.order.remove(&node.own_place);
        change(&mut node.own);
        node.own_place.share = totals.share(&node.own).to_bits();
        node.own_place.count += u64::from(counts);
        if own_listed {
            let place = node.own_place.clone();
            node.order.insert(place);
        }
        let mut at = leaf;
        while at != self.root {
            let node = self.node_mut(at);
            let before = node.place.clone();
            change(&mut node.allocated);
            node.place.share = (totals.share(&node.allocated) / node.weight).to_bits();
            node.place.count += u64::from(counts);
            let (after, up) = (node.place.clone(), node.parent);
            let parent = self.node_mut(up);
            parent.order.remove(&before);
            parent.order.insert(after);
            at = up;
        }
    }

    pub(crate) fn sort(&mut self, totals: &Totals) {
        if self.sorted_for == totals.version {
            return;
        }
        self.sorted_for = totals.version;
        for (_, node) in &mut self.nodes {
            node.order.clear();
            node.place.share = (totals.share(&node.allocated) / node.weight).to_bits();
            node.own_place.share = totals.share(&node.own).to_bits();
            if node.role.is_some() && !node.children.is_empty() {
                let own = node.own_place.clone();
                node.order.insert(own);
            }
        }
        let places: Vec<(u32, Place)> = self.nodes.iter().map(|(_, node)| (node.parent, node.place.clone())).collect();
        for (parent, place) in places {
            if place.slot != self.root {
                self.node_mut(parent).order.insert(place);
            }
        }
    }

    /// Lets chance decide who is next among the children of each role: who has twice the weight is first twice as often.
    pub(crate) fn shuffle(&mut self, random: &mut u64) {
        let parents: Vec<u32> = self.nodes.iter().filter(|(_, node)| !node.children.is_empty()).map(|(at, _)| slot(at)).collect();
        for at in parents {
            let weight = |next: u32| if next == OWN { 1.0 } else { self.node(next).weight };
            let mut drawn: Vec<(f64, u32)> =
                self.node(at).order.iter().map(|place| (waiting_time(random) / weight(place.slot), place.slot)).collect();
            drawn.sort_unstable_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
            self.node_mut(at).shuffled = Some(drawn.into_iter().map(|(_, slot)| slot).collect());
        }
    }

    /// The dominant share of a role's own frameworks and of those below it, weighed.
    pub(crate) fn share(&self, at: u32) -> f64 {
        f64::from_bits(self.node(at).place.share)
    }

    /// What all roles together have.
    pub(crate) fn allocated_to_all(&self) -> Quantities {
        let mut sum = Quantities::new();
        for child in self.node(self.root).children.values() {
            sum.add_all(&self.node(*child).allocated);
        }
        sum
    }

    /// What a role and those below it have.
    pub(crate) fn allocated_to(&self, path: &str) -> Quantities {
        let mut at = self.root;
        for component in path.split('/') {
            match self.node(at).children.get(component) {
                Some(child) => at = *child,
                None => return Quantities::new(),
            }
        }
        self.node(at).allocated.clone()
    }

    /// Visits the roles, who is next first, until told to stop.
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(u32) -> ControlFlow<()>) {
        let _ = self.visit_below(self.root, visit);
    }

    fn visit_below(&self, at: u32, visit: &mut dyn FnMut(u32) -> ControlFlow<()>) -> ControlFlow<()> {
        let node = self.node(at);
        if node.children.is_empty() {
            return node.role.map_or(ControlFlow::Continue(()), visit);
        }
        let ordered = node.order.iter().filter(|_| node.shuffled.is_none()).map(|place| place.slot);
        for next in node.shuffled.iter().flatten().copied().chain(ordered) {
            match (next, node.role) {
                (OWN, Some(role)) => visit(role)?,
                (OWN, None) => {}
                (child, _) => self.visit_below(child, visit)?,
            }
        }
        ControlFlow::Continue(())
    }
}
