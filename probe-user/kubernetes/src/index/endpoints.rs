//! Who answers for a service: gathered from its slices when it is told.

use std::net::IpAddr;

use proto::probe::v1::kubernetes_object::Endpoint;

use super::Index;
use crate::kind::Kind;
use crate::objects::{Details, EndpointTarget, Facts, Transport};

/// Endpoints that are told of one service, those that are ready first. A service of a thousand pods is known by its first ones well enough.
pub const ENDPOINTS_MAX: usize = 256;

/// One address behind one port; `None` where the slice names none.
struct Behind<'a> {
    target: &'a EndpointTarget,
    port: Option<(u16, Transport)>,
}

impl Behind<'_> {
    fn place(&self) -> (IpAddr, Option<(u16, Transport)>) {
        (self.target.address, self.port)
    }

    fn told(&self) -> Endpoint {
        Endpoint {
            address: self.target.address.to_string(),
            port: self.port.map_or(0, |(number, _)| number.into()),
            protocol: self.port.map_or("", |(_, transport)| transport.name()).to_owned(),
            ready: self.target.ready,
            target_uid: self.target.pod.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

impl Index {
    /// The endpoints of a service in a stable order. Two slices may name the same one while it moves between them: ready once is ready.
    pub(super) fn endpoints(&self, service: &Facts) -> Vec<Endpoint> {
        let (Some(namespace), Some(slices)) = (self.namespaces.get(&service.namespace), self.kinds.get(&Kind::EndpointSlice)) else {
            return Vec::new();
        };
        let mut all: Vec<Behind<'_>> = Vec::new();
        for slice in namespace.slices_of(&service.name).filter_map(|uid| slices.entries.get(uid)) {
            let Details::Endpoints(slice) = &slice.facts.details else { continue };
            for target in &slice.targets {
                match &*slice.ports {
                    [] => all.push(Behind { target, port: None }),
                    ports => all.extend(ports.iter().map(|&port| Behind { target, port: Some(port) })),
                }
            }
        }
        all.sort_by(|one, other| {
            let by_place = one.place().cmp(&other.place());
            by_place.then(other.target.ready.cmp(&one.target.ready)).then(one.target.pod.cmp(&other.target.pod))
        });
        all.dedup_by(|later, first| later.place() == first.place());
        // Stable: among equals the order of before stays.
        all.sort_by_key(|one| !one.target.ready);
        all.truncate(ENDPOINTS_MAX);
        all.iter().map(Behind::told).collect()
    }

    /// A slice is new, gone or another: its service is to be told again.
    pub(super) fn touch_service_of(&mut self, facts: &Facts) {
        let Details::Endpoints(slice) = &facts.details else { return };
        let Some(namespace) = self.namespaces.get(&facts.namespace) else { return };
        let services = namespace.services_of(&slice.service).map(|uid| (Kind::Service, uid.clone())).collect::<Vec<_>>();
        self.changed.extend(services);
    }
}
