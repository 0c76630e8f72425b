//! What the receiver was told, and what not: bit by bit, or everything anew.

use std::ops::Bound;

use proto::probe::v1::KubernetesObject;

use super::{Entry, Index};
use crate::kind::Kind;
use crate::objects::Uid;

/// What is new for the receiver.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// New or changed objects; owners and selectors before what they own and select.
    pub changed: Vec<KubernetesObject>,
    /// Uids of objects that are gone.
    pub gone: Vec<String>,
}

impl Index {
    /// Whether there is something that the receiver was not told.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.gone.is_empty()
    }

    /// How much the receiver was not told.
    pub fn pending(&self) -> usize {
        self.changed.len() + self.gone.len()
    }

    /// Takes up to `max` of what the receiver was not told.
    pub fn take_changes(&mut self, max: usize) -> Changes {
        let mut changes = Changes::default();
        while changes.gone.len() < max
            && let Some((_, uid)) = self.gone.pop_first()
        {
            changes.gone.push(uid.to_string());
        }
        while changes.gone.len() + changes.changed.len() < max
            && let Some((kind, uid)) = self.changed.pop_first()
        {
            if let Some(entry) = self.kinds.get_mut(&kind).and_then(|table| table.entries.get_mut(&uid)) {
                entry.told = self.telling;
            }
            changes.changed.extend(self.entry(kind, &uid).map(|entry| self.render(entry)));
        }
        changes
    }

    /// The receiver has forgotten everything, or will when it is told everything anew: nothing is left to tell, and nothing counts as told.
    pub fn forget_told(&mut self) {
        self.telling += 1;
        self.changed.clear();
        self.gone.clear();
    }

    /// The object that is told after this one, when everything is told anew; it does not count as told yet.
    pub fn after(&self, last: Option<&(Kind, Uid)>) -> Option<((Kind, Uid), KubernetesObject)> {
        let begin = last.map_or(Bound::Unbounded, |(kind, _)| Bound::Included(*kind));
        self.kinds.range((begin, Bound::Unbounded)).filter(|(kind, _)| kind.on_the_stream().is_some()).find_map(|(&kind, table)| {
            let behind = match last {
                Some((of, uid)) if *of == kind => Bound::Excluded(&**uid),
                _ => Bound::Unbounded,
            };
            let (uid, entry) = table.entries.range::<str, _>((behind, Bound::Unbounded)).next()?;
            Some(((kind, uid.clone()), self.render(entry)))
        })
    }

    /// The receiver was told of an object as it is now.
    pub fn told(&mut self, (kind, uid): &(Kind, Uid)) {
        if let Some(entry) = self.kinds.get_mut(kind).and_then(|table| table.entries.get_mut(uid)) {
            entry.told = self.telling;
            self.changed.remove(&(*kind, uid.clone()));
        }
    }

    /// Everything, in the order of telling.
    pub fn objects(&self) -> impl Iterator<Item = KubernetesObject> {
        let told = self.kinds.iter().filter(|(kind, _)| kind.on_the_stream().is_some());
        told.flat_map(|(_, table)| table.entries.values()).map(|entry| self.render(entry))
    }

    /// The receiver is to be told of this, by itself if it is told by itself.
    pub(super) fn touch(&mut self, kind: Kind, uid: Uid) {
        if kind.on_the_stream().is_some() {
            self.changed.insert((kind, uid));
        }
    }

    fn render(&self, entry: &Entry) -> KubernetesObject {
        let mut object = entry.facts.object(&entry.parents);
        if entry.facts.kind == Kind::Service {
            object.endpoints = self.endpoints(&entry.facts);
        }
        object
    }
}
