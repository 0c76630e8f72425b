//! Reports become one: what was found out last is kept, and lists are united.

use std::cmp::Ordering;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Kind, Latest, Metric, Node, Report, TableTemplate, Topology};
use crate::text::Text;

impl Report {
    /// Takes in what another report says.
    pub fn merge(&mut self, other: Report) {
        if !other.at.is_zero() && (self.at.is_zero() || other.at < self.at) {
            self.at = other.at;
        }
        self.window = self.window.saturating_add(other.window);
        self.shortcut |= other.shortcut;
        self.sampling.count = self.sampling.count.saturating_add(other.sampling.count);
        self.sampling.total = self.sampling.total.saturating_add(other.sampling.total);
        self.plugins.extend(other.plugins);
        self.id = self.id.take().or(other.id);
        for (address, names) in other.dns {
            let own = self.dns.entry(address).or_default();
            own.forward.extend(names.forward);
            own.reverse.extend(names.reverse);
        }
        for ((own, table), kind) in self.tables.iter_mut().zip(other.tables).zip(Kind::ALL) {
            own.merge(table, kind);
        }
    }
}

impl Report {
    /// Leaves out what a request does not want to see: all but the first word of commands, and environments.
    pub fn censor(&mut self, hide_command_arguments: bool, hide_environment: bool) {
        if !hide_command_arguments && !hide_environment {
            return;
        }
        for node in self.tables.iter_mut().flat_map(|table| table.nodes.values_mut()) {
            let node = Arc::make_mut(node);
            if hide_environment {
                node.latest.retain(|key, _| !key.starts_with("docker_env_"));
            }
            for key in ["cmdline", "docker_container_command"].into_iter().filter(|_| hide_command_arguments) {
                if let Some(latest) = node.latest.get_mut(key)
                    && let Some((first, _)) = latest.value.split_once(' ')
                {
                    latest.value = first.into();
                }
            }
        }
    }
}

impl Topology {
    fn merge(&mut self, other: Topology, kind: Kind) {
        self.shape = self.shape.take().or(other.shape);
        self.tag = self.tag.take().or(other.tag);
        self.label = self.label.take().or(other.label);
        self.label_plural = self.label_plural.take().or(other.label_plural);
        for (id, node) in other.nodes {
            match self.nodes.entry(id) {
                Entry::Vacant(place) => {
                    place.insert(node);
                }
                Entry::Occupied(mut place) => {
                    if !Arc::ptr_eq(place.get(), &node) {
                        Arc::make_mut(place.get_mut()).merge(&node, kind);
                    }
                }
            }
        }
        self.controls.extend(other.controls);
        for (id, template) in other.metadata_templates {
            match self.metadata_templates.entry(id) {
                Entry::Vacant(place) => {
                    place.insert(template);
                }
                Entry::Occupied(mut place) if place.get().priority < template.priority => {
                    place.insert(template);
                }
                Entry::Occupied(_) => {}
            }
        }
        for (id, template) in other.metric_templates {
            match self.metric_templates.entry(id) {
                Entry::Vacant(place) => {
                    place.insert(template);
                }
                Entry::Occupied(mut place) if place.get().priority < template.priority => {
                    place.insert(template);
                }
                Entry::Occupied(_) => {}
            }
        }
        for (id, template) in other.table_templates {
            match self.table_templates.entry(id) {
                Entry::Vacant(place) => {
                    place.insert(template);
                }
                Entry::Occupied(mut place) => place.get_mut().merge(template),
            }
        }
    }
}

impl TableTemplate {
    /// The larger of each: it means little, but the order of reports does not change it.
    fn merge(&mut self, other: TableTemplate) {
        let larger = |own: &mut Text, other: Text| {
            if other > *own {
                *own = other;
            }
        };
        larger(&mut self.id, other.id);
        larger(&mut self.label, other.label);
        larger(&mut self.prefix, other.prefix);
        larger(&mut self.kind, other.kind);
        if other.columns.as_ref().map(Vec::len) > self.columns.as_ref().map(Vec::len) {
            self.columns = other.columns;
        }
        if other.fixed_rows.len() > self.fixed_rows.len() {
            self.fixed_rows = other.fixed_rows;
        }
    }
}

impl Node {
    /// Takes in what another report says of the same thing.
    pub fn merge(&mut self, other: &Node, kind: Kind) {
        let controls = (kind == Kind::Host).then(|| united_controls(self, other)).flatten();
        let ties_go_to_other = wins_ties(&other.latest, &self.latest);
        self.id = self.id.take().or_else(|| other.id.clone());
        self.topology = self.topology.take().or_else(|| other.topology.clone());
        for (key, latest) in &other.latest {
            match self.latest.entry(key.clone()) {
                Entry::Vacant(place) => {
                    place.insert(latest.clone());
                }
                Entry::Occupied(mut place) => {
                    let own = place.get().at;
                    if own < latest.at || (own == latest.at && ties_go_to_other) {
                        place.insert(latest.clone());
                    }
                }
            }
        }
        if let (Some(controls), Some(latest)) = (controls, self.latest.get_mut("active_controls")) {
            latest.value = controls;
        }
        unite(&mut self.sets, &other.sets);
        unite(&mut self.parents, &other.parents);
        self.adjacency.extend(other.adjacency.iter().cloned());
        for (id, metric) in &other.metrics {
            match self.metrics.entry(id.clone()) {
                Entry::Vacant(place) => {
                    place.insert(metric.clone());
                }
                Entry::Occupied(mut place) => place.get_mut().merge(metric),
            }
        }
        for (id, child) in &other.children {
            match self.children.entry(id.clone()) {
                Entry::Vacant(place) => {
                    place.insert(child.clone());
                }
                Entry::Occupied(mut place) => {
                    let kind = child.topology.as_deref().and_then(Kind::from_name).unwrap_or(Kind::Endpoint);
                    if !Arc::ptr_eq(place.get(), child) {
                        Arc::make_mut(place.get_mut()).merge(child, kind);
                    }
                }
            }
        }
    }
}

/// Whether of facts of one time those that came later are kept. Scope kept those of the node that says more, and of equals the later one's.
fn wins_ties(later: &BTreeMap<Text, Latest>, earlier: &BTreeMap<Text, Latest>) -> bool {
    let first = |facts: &BTreeMap<Text, Latest>| facts.values().next().map(|latest| latest.at);
    match later.len().cmp(&earlier.len()) {
        Ordering::Greater => true,
        Ordering::Less => false,
        Ordering::Equal => first(later) >= first(earlier),
    }
}

/// What both say can be done to a host: its own probe and that of its cluster each know a part.
fn united_controls(one: &Node, other: &Node) -> Option<Text> {
    let (own, others) = (one.value("active_controls")?, other.value("active_controls")?);
    if own == others {
        return None;
    }
    let all: BTreeSet<&str> = own.split(';').chain(others.split(';')).filter(|id| !id.is_empty()).collect();
    Some(all.into_iter().collect::<Vec<_>>().join(";").into())
}

fn unite(own: &mut BTreeMap<Text, BTreeSet<Text>>, other: &BTreeMap<Text, BTreeSet<Text>>) {
    for (key, set) in other {
        own.entry(key.clone()).or_default().extend(set.iter().cloned());
    }
}

impl Metric {
    /// Samples of one time are one sample.
    fn merge(&mut self, other: &Metric) {
        let mut samples = Vec::with_capacity(self.samples.len().max(other.samples.len()));
        let (mut own, mut others) = (self.samples.iter().peekable(), other.samples.iter().peekable());
        loop {
            let next = match (own.peek(), others.peek()) {
                (None, None) => break,
                (Some(_), None) => own.next(),
                (None, Some(_)) => others.next(),
                (Some(one), Some(two)) => match one.at.cmp(&two.at) {
                    Ordering::Less => own.next(),
                    Ordering::Greater => others.next(),
                    Ordering::Equal => {
                        others.next();
                        own.next()
                    }
                },
            };
            samples.extend(next);
        }
        self.samples = samples;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

#[cfg(test)]
mod tests;
