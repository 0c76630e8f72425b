//! What the processes of a host call the addresses that they talk to.
//!
//! The latest name of an address wins. A name that its probe has forgotten stays for as long as a flow leads to its address: a map that
//! changes its words because a cache ran out helps nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::index::FlowIndex;
use crate::report::ResolvedName;

/// Ends of the names of services that Scope shows as nodes of their own.
const KNOWN_SERVICES: [&str; 10] = [
    ".amazonaws.com",
    ".googleapis.com",
    ".weave.works",
    ".core.windows.net",
    ".servicebus.windows.net",
    ".azure-api.net",
    ".onmicrosoft.com",
    ".cloudapp.azure.com",
    ".database.windows.net",
    ".documents.azure.com",
];

/// Whether Scope shows a node for this name; machines that are rented from Amazon are none.
pub(crate) fn is_known_service(name: &str) -> bool {
    KNOWN_SERVICES.iter().any(|end| name.ends_with(end)) && !(name.starts_with("ec2") && name.ends_with(".amazonaws.com"))
}

/// Names of addresses on one host, and which flows lead there.
#[derive(Debug, Default)]
pub(crate) struct Names {
    rows: BTreeMap<IpAddr, NameRow>,
    flows: BTreeSet<(IpAddr, FlowIndex)>,
}

#[derive(Debug)]
struct NameRow {
    /// The latest first, at least one.
    names: Vec<ResolvedName>,
    epoch: u64,
    /// Its probe knows nothing of it any more.
    is_gone: bool,
}

impl Names {
    /// How many addresses have a name.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All addresses that their probe has a name for, with their names.
    pub(crate) fn known(&self) -> impl Iterator<Item = (IpAddr, &[ResolvedName])> {
        self.rows.iter().filter(|(_, row)| !row.is_gone).map(|(address, row)| (*address, row.names.as_slice()))
    }

    /// The name that was resolved last.
    pub(crate) fn latest(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.of(address).next()
    }

    /// All names of an address, the latest first.
    pub(crate) fn of(&self, address: IpAddr) -> impl Iterator<Item = &Arc<str>> {
        self.rows.get(&address).into_iter().flat_map(|row| row.names.iter().map(|name| &name.name))
    }

    /// All addresses that have names.
    pub(crate) fn all(&self) -> impl Iterator<Item = (IpAddr, impl Iterator<Item = &Arc<str>>)> {
        self.rows.iter().map(|(address, row)| (*address, row.names.iter().map(|name| &name.name)))
    }

    pub(crate) fn is_named(&self, address: IpAddr) -> bool {
        self.rows.contains_key(&address)
    }

    /// Whether these are the names of an address already, in this order; when they were resolved aside.
    pub(crate) fn are(&self, address: IpAddr, names: &[ResolvedName]) -> bool {
        self.of(address).eq(names.iter().map(|it| &it.name))
    }

    /// Takes a record over.
    pub(crate) fn put(&mut self, address: IpAddr, names: Vec<ResolvedName>, epoch: u64) {
        self.rows.insert(address, NameRow { names, epoch, is_gone: false });
    }

    /// The probe knows nothing of an address any more: its name stays for as long as a flow leads there.
    pub(crate) fn forget(&mut self, address: IpAddr) {
        if let Some(row) = self.rows.get_mut(&address) {
            row.is_gone = true;
            self.drop_if_unused(address);
        }
    }

    /// Addresses that a snapshot did not name.
    pub(crate) fn older_than(&self, epoch: u64) -> Vec<IpAddr> {
        self.rows.iter().filter(|(_, row)| row.epoch != epoch && !row.is_gone).map(|(address, _)| *address).collect()
    }

    /// A flow leads to an address.
    pub(crate) fn lead(&mut self, address: IpAddr, flow: FlowIndex) {
        self.flows.insert((address, flow));
    }

    /// A flow leads there no longer.
    pub(crate) fn leave(&mut self, address: IpAddr, flow: FlowIndex) {
        if self.flows.remove(&(address, flow)) {
            self.drop_if_unused(address);
        }
    }

    /// Flows that lead to an address.
    pub(crate) fn leading_to(&self, address: IpAddr) -> impl Iterator<Item = FlowIndex> + '_ {
        let lowest = (address, <FlowIndex as crate::index::Index>::from_row(0));
        self.flows.range(lowest..).take_while(move |&&(found, _)| found == address).map(|&(_, flow)| flow)
    }

    fn drop_if_unused(&mut self, address: IpAddr) {
        if self.rows.get(&address).is_some_and(|row| row.is_gone) && self.leading_to(address).next().is_none() {
            self.rows.remove(&address);
        }
    }
}

/// How many flows lead to each name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Peers(BTreeMap<Arc<str>, u32>);

/// Names in a summary; a crawler talks to more than a list is good for.
const SHOWN_MAX: usize = 64;

impl Peers {
    pub(crate) fn add(&mut self, name: &Arc<str>, count: u32) {
        *self.0.entry(name.clone()).or_insert(0) += count;
    }

    pub(crate) fn remove(&mut self, name: &Arc<str>, count: u32) {
        if let Some(found) = self.0.get_mut(name) {
            *found = found.saturating_sub(count);
            if *found == 0 {
                self.0.remove(name);
            }
        }
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (&Arc<str>, u32)> {
        self.0.iter().map(|(name, count)| (name, *count))
    }

    /// For people and for searches: the first names in alphabetical order.
    pub(crate) fn text(&self) -> String {
        let mut text = self.0.keys().take(SHOWN_MAX).map(|name| &**name).collect::<Vec<_>>().join(", ");
        if self.0.len() > SHOWN_MAX {
            text.push_str(&format!(" and {} others", self.0.len() - SHOWN_MAX));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_services_are_scopes() {
        assert!(is_known_service("s3.amazonaws.com"));
        assert!(is_known_service("storage.googleapis.com"));
        assert!(!is_known_service("ec2-1-2-3-4.compute.amazonaws.com"));
        assert!(!is_known_service("github.com"));
        assert!(!is_known_service("amazonaws.com"));
    }
}
