//! The pods, selectors, services and endpoint slices of one namespace: none reaches into another.

use std::collections::{BTreeMap, BTreeSet};

use super::postings::Postings;
use crate::kind::Kind;
use crate::objects::Uid;
use crate::selector::{Labels, Selector};

/// Whose selector.
pub(super) type SelectorId = (Kind, Uid);

#[derive(Debug, Default)]
pub(super) struct Namespace {
    pods: BTreeSet<Uid>,
    pods_by_label: Postings<Uid>,
    selectors: BTreeMap<SelectorId, Anchored>,
    selectors_by_label: Postings<SelectorId>,
    /// Selectors without an equality: asked for every pod. There are hardly ever any.
    loose: BTreeSet<SelectorId>,
    /// Services by name: two, while one takes the place of another.
    services: BTreeMap<Box<str>, BTreeSet<Uid>>,
    /// Endpoint slices by the name of their service, whether or not that is known.
    slices: BTreeMap<Box<str>, BTreeSet<Uid>>,
}

/// A selector, and the one equality under which it is found: a pod without that label cannot be selected.
#[derive(Debug)]
struct Anchored {
    selector: Selector,
    anchor: Option<(Box<str>, Box<str>)>,
}

impl Namespace {
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.selectors.is_empty() && self.services.is_empty() && self.slices.is_empty()
    }

    pub(super) fn add_service(&mut self, name: &str, uid: &Uid) {
        self.services.entry(name.into()).or_default().insert(uid.clone());
    }

    pub(super) fn remove_service(&mut self, name: &str, uid: &Uid) {
        remove(&mut self.services, name, uid);
    }

    pub(super) fn add_slice(&mut self, service: &str, uid: &Uid) {
        self.slices.entry(service.into()).or_default().insert(uid.clone());
    }

    pub(super) fn remove_slice(&mut self, service: &str, uid: &Uid) {
        remove(&mut self.slices, service, uid);
    }

    /// The services of a name.
    pub(super) fn services_of(&self, name: &str) -> impl Iterator<Item = &Uid> {
        self.services.get(name).into_iter().flatten()
    }

    /// The slices of a service.
    pub(super) fn slices_of(&self, service: &str) -> impl Iterator<Item = &Uid> {
        self.slices.get(service).into_iter().flatten()
    }

    pub(super) fn add_pod(&mut self, uid: &Uid, labels: &Labels) {
        self.pods.insert(uid.clone());
        for (key, value) in labels.iter() {
            self.pods_by_label.insert(key, value, uid.clone());
        }
    }

    pub(super) fn remove_pod(&mut self, uid: &Uid, labels: &Labels) {
        self.pods.remove(uid);
        for (key, value) in labels.iter() {
            self.pods_by_label.remove(key, value, uid);
        }
    }

    /// Anchors it where the fewest others are, so that a label that everything has ("part-of") is nobody's anchor if that can be.
    pub(super) fn add_selector(&mut self, id: SelectorId, selector: &Selector) {
        let rarest = selector.pairs().min_by_key(|(key, value)| self.selectors_by_label.get(key, value).len());
        let anchor = rarest.map(|(key, value)| (Box::from(key), Box::from(value)));
        match &anchor {
            Some((key, value)) => self.selectors_by_label.insert(key, value, id.clone()),
            None => {
                self.loose.insert(id.clone());
            }
        }
        self.selectors.insert(id, Anchored { selector: selector.clone(), anchor });
    }

    pub(super) fn remove_selector(&mut self, id: &SelectorId) {
        let Some(anchored) = self.selectors.remove(id) else { return };
        match anchored.anchor {
            Some((key, value)) => self.selectors_by_label.remove(&key, &value, id),
            None => {
                self.loose.remove(id);
            }
        }
    }

    /// Pods that a selector may select: those with the rarest of its labels.
    pub(super) fn candidates(&self, selector: &Selector) -> &BTreeSet<Uid> {
        let postings = selector.pairs().map(|(key, value)| self.pods_by_label.get(key, value));
        postings.min_by_key(|pods| pods.len()).unwrap_or(&self.pods)
    }

    /// Who selects a pod with these labels.
    pub(super) fn selectors_of(&self, labels: &Labels) -> impl Iterator<Item = &SelectorId> {
        let anchored = labels.iter().flat_map(|(key, value)| self.selectors_by_label.get(key, value));
        anchored.chain(&self.loose).filter(move |id| self.selectors.get(*id).is_some_and(|one| one.selector.matches(labels)))
    }
}

fn remove(sets: &mut BTreeMap<Box<str>, BTreeSet<Uid>>, name: &str, uid: &Uid) {
    if let Some(set) = sets.get_mut(name) {
        set.remove(uid);
        if set.is_empty() {
            sets.remove(name);
        }
    }
}
