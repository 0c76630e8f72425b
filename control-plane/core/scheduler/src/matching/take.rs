//! Taking pieces out of what an offer has.

use std::sync::Arc;

use crate::constraints::Placement;
use crate::mesos::{FRAMEWORK_LABEL, INSTANCE_LABEL, Resource, ResourceValue};
use crate::model::Operator;
use crate::model::container::PersistentVolume;
use crate::random::IdGen;

use super::ports::{self, Wanted};
use super::same_piece;

/// Resources that are left. Copies share what was not touched.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    left: Vec<Arc<Resource>>,
    /// Left, too, but not for who is being fitted.
    hidden: Vec<Arc<Resource>>,
}

impl Pool {
    pub(super) fn new(resources: &[Resource]) -> Pool {
        let left = resources.iter().filter(|it| !it.revocable && !it.shared).map(|it| Arc::new(it.clone())).collect();
        Pool { left, hidden: Vec::new() }
    }

    fn only(&mut self, wanted: impl Fn(&Resource) -> bool) {
        let (left, hidden) = std::mem::take(&mut self.left).into_iter().partition(|it| wanted(it));
        self.left = left;
        self.hidden.extend::<Vec<_>>(hidden);
    }

    /// Leaves what is reserved for one instance.
    pub(super) fn only_held(&mut self, framework_id: &str, instance: &str) {
        self.only(|it| it.label(FRAMEWORK_LABEL) == Some(framework_id) && it.label(INSTANCE_LABEL) == Some(instance));
    }

    /// Leaves what is reserved for no instance and in one of `roles`; reserved ones first, since nobody else can use them.
    pub(super) fn only_free(&mut self, roles: &[String]) {
        self.only(|it| {
            let in_volume = it.disk.as_ref().is_some_and(|disk| disk.persistence.is_some());
            !in_volume && it.label(INSTANCE_LABEL).is_none() && roles.iter().any(|role| role == it.role())
        });
        self.left.sort_by_key(|it| it.role() == "*");
    }

    /// Makes everything visible again.
    pub(super) fn restore_hidden(&mut self) {
        self.left.append(&mut self.hidden);
    }

    /// Thousandths of a scalar, of everything visible.
    pub(super) fn total(&self, name: &str) -> i64 {
        self.left.iter().filter(|it| it.name == name).map(|it| it.scalar()).sum()
    }

    /// Takes `amount` thousandths; false, with as much taken as there was, when there is not enough.
    pub(super) fn take(&mut self, name: &str, amount: i64, taken: &mut Vec<Resource>) -> bool {
        let mut missing = amount;
        for resource in &mut self.left {
            if missing <= 0 {
                break;
            }
            let usable =
                resource.name == name && resource.disk.as_ref().is_none_or(|disk| disk.source.is_none() && disk.persistence.is_none());
            let part = resource.scalar().min(missing);
            if usable && part > 0 {
                add(taken, Resource { value: ResourceValue::Scalar(part), ..(**resource).clone() });
                let rest = resource.scalar() - part;
                Arc::make_mut(resource).value = ResourceValue::Scalar(rest);
                missing -= part;
            }
        }
        missing <= 0
    }

    /// Takes a part of (`PATH`) or the whole of (`MOUNT`) an additional disk.
    pub(super) fn take_disk(
        &mut self,
        kind: &str,
        least: i64,
        most: Option<i64>,
        (volume, placement): (&PersistentVolume, &Placement),
        taken: &mut Vec<Resource>,
    ) -> bool {
        let patterns: Vec<_> =
            volume.constraints.iter().filter_map(|it| Some((it.operator, placement.of_volume(it.value.as_deref()?)))).collect();
        let fits = |resource: &Resource| {
            let Some(source) = resource.disk.as_ref().and_then(|disk| disk.source.as_ref()) else { return false };
            let root = source.root.as_deref().unwrap_or_default();
            resource.name == "disk"
                && source.kind == kind
                && resource.scalar() >= least
                && most.is_none_or(|most| resource.scalar() <= most)
                && volume.profile == source.profile
                && patterns.iter().all(|(operator, pattern)| pattern.and_then(|it| it.matches(root)) == Some(*operator != Operator::Unlike))
        };
        let Some(at) = self.left.iter().position(|it| fits(it)) else { return false };
        if kind == "MOUNT" {
            taken.push((*self.left.remove(at)).clone());
        } else {
            let resource = &mut self.left[at];
            taken.push(Resource { value: ResourceValue::Scalar(least), ..(**resource).clone() });
            let rest = resource.scalar() - least;
            Arc::make_mut(resource).value = ResourceValue::Scalar(rest);
        }
        true
    }

    /// Takes the volume with this id.
    pub(super) fn take_volume(&mut self, persistence_id: &str) -> Option<Resource> {
        let is_it =
            |it: &Arc<Resource>| it.disk.as_ref().and_then(|disk| disk.persistence.as_ref()).is_some_and(|(id, _)| id == persistence_id);
        let at = self.left.iter().position(is_it)?;
        Some((*self.left.remove(at)).clone())
    }

    /// Takes the ports that are `wanted`; `None` when one is not there.
    pub(super) fn take_ports(&mut self, wanted: &[Wanted], ids: &mut IdGen, taken: &mut Vec<Resource>) -> Option<Vec<Option<u16>>> {
        let offered: Vec<(usize, (u64, u64))> = self
            .left
            .iter()
            .enumerate()
            .filter(|(_, it)| it.name == "ports")
            .flat_map(|(at, it)| match &it.value {
                ResourceValue::Ranges(ranges) => ranges.iter().map(|range| (at, *range)).collect(),
                _ => Vec::new(),
            })
            .collect();
        let ranges: Vec<(u64, u64)> = offered.iter().map(|(_, range)| *range).collect();
        let chosen = ports::choose(wanted, &ranges, ids)?;
        for port in chosen.iter().flatten().copied().map(u64::from) {
            let Some(&(at, _)) = offered.iter().find(|(_, (from, to))| (*from..=*to).contains(&port)) else { continue };
            let resource = Arc::make_mut(&mut self.left[at]);
            if let ResourceValue::Ranges(ranges) = &mut resource.value {
                *ranges = without(ranges, port);
            }
            add(taken, Resource { value: ResourceValue::Ranges(vec![(port, port)]), ..resource.clone() });
        }
        Some(chosen)
    }
}

/// Puts a piece to those taken, into one with a like piece.
fn add(taken: &mut Vec<Resource>, piece: Resource) {
    let Some(like) = taken.iter_mut().find(|it| same_piece(it, &piece)) else {
        taken.push(piece);
        return;
    };
    match (&mut like.value, piece.value) {
        (ResourceValue::Scalar(sum), ResourceValue::Scalar(more)) => *sum += more,
        (ResourceValue::Ranges(ranges), ResourceValue::Ranges(more)) => {
            ranges.extend(more);
            ranges.sort_unstable();
            let mut merged: Vec<(u64, u64)> = Vec::new();
            for (from, to) in ranges.drain(..) {
                match merged.last_mut() {
                    Some(last) if last.1 + 1 >= from => last.1 = last.1.max(to),
                    _ => merged.push((from, to)),
                }
            }
            *ranges = merged;
        }
        _ => {}
    }
}

fn without(ranges: &[(u64, u64)], port: u64) -> Vec<(u64, u64)> {
    let split = |&(from, to): &(u64, u64)| {
        if !(from..=to).contains(&port) {
            return vec![(from, to)];
        }
        let mut rest = Vec::new();
        if from < port {
            rest.push((from, port - 1));
        }
        if port < to {
            rest.push((port + 1, to));
        }
        rest
    };
    ranges.iter().flat_map(split).collect()
}
