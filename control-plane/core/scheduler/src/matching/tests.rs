use std::sync::Arc;

use super::*;
use crate::constraints::Patterns;
use crate::id::PathId;
use crate::model::app::PortDefinition;
use crate::model::{Labels, ResourceNeeds};

fn scalar(name: &str, amount: f64, role: &str) -> Resource {
    let reservations = if role == "*" { Vec::new() } else { vec![Reservation { role: role.to_owned(), ..Reservation::default() }] };
    Resource {
        name: name.to_owned(),
        value: ResourceValue::Scalar(thousandths(amount)),
        reservations,
        disk: None,
        provider: None,
        revocable: false,
        shared: false,
    }
}

fn offer(resources: Vec<Resource>) -> Offer {
    Offer { id: "o1".into(), agent_id: "a1".into(), hostname: "h1".into(), role: "ops".into(), resources, ..Offer::default() }
}

fn ports(from: u64, to: u64) -> Resource {
    Resource { value: ResourceValue::Ranges(vec![(from, to)]), ..scalar("ports", 0.0, "*") }
}

fn app(change: impl FnOnce(&mut App)) -> Spec {
    let mut app = App::new(PathId::absolute("/x"));
    app.role = "ops".into();
    app.resources = ResourceNeeds { cpus: 1.0, mem: 64.0, disk: 0.0, gpus: 0 };
    change(&mut app);
    Spec::App(Arc::new(app))
}

const POLICY: Policy<'_> =
    Policy { framework_id: "f", principal: None, accepted_roles: AcceptedRoles::Any, home_region: None, gpus_are_scarce: true };

fn fit(remaining: &mut Remaining, spec: &Spec, held: Option<&Held>) -> Result<Match, Vec<Reason>> {
    let id = InstanceId::parse("x.instance-6f1c2d3e-0000-11ea-8d71-362b9e155667").unwrap();
    remaining.fit(Timestamp::EPOCH, spec, (&id, held), &Placement::of(spec, &mut Patterns::default()), POLICY, &mut IdGen::new(7))
}

#[test]
fn reserved_resources_are_used_up_first() {
    let mut remaining = Remaining::new(offer(vec![scalar("cpus", 4.0, "*"), scalar("cpus", 0.5, "ops"), scalar("mem", 100.0, "*")]));
    let found = fit(&mut remaining, &app(|_| {}), None).unwrap();
    let taken: Vec<String> = found.tasks[0].resources.iter().map(|it| format!("{} {} {}", it.name, it.role(), it.scalar())).collect();
    assert_eq!(taken, ["cpus ops 500", "cpus * 500", "mem * 64000"]);
    assert_eq!(fit(&mut remaining, &app(|_| {}), None).unwrap_err(), [Reason::InsufficientMemory]);
}

#[test]
fn every_reason_is_told() {
    let mut remaining = Remaining::new(offer(vec![scalar("cpus", 0.5, "*"), scalar("mem", 1.0, "*"), scalar("gpus", 1.0, "*")]));
    remaining.offer.unavailable_from = Some(Timestamp::EPOCH);
    let spec = app(|app| {
        app.role = "web".into();
        app.resources.disk = 5.0;
        app.port_definitions = vec![PortDefinition { port: 0, protocol: "tcp".into(), name: None, labels: Labels::new() }];
        app.constraints =
            vec![crate::model::Constraint { field: "rack".into(), operator: crate::model::Operator::Like, value: Some("r1".into()) }];
    });
    let words: Vec<&str> = fit(&mut remaining, &spec, None).unwrap_err().into_iter().map(Reason::word).collect();
    assert_eq!(
        words,
        [
            "UnfulfilledRole",
            "UnfulfilledConstraint",
            "AgentMaintenance",
            "InsufficientCpus",
            "InsufficientMemory",
            "InsufficientDisk",
            "InsufficientPorts",
            "DeclinedScarceResources",
        ]
    );
}

#[test]
fn what_did_not_fit_takes_nothing() {
    let mut remaining = Remaining::new(offer(vec![scalar("cpus", 1.0, "*"), scalar("mem", 64.0, "*"), ports(31_000, 31_000)]));
    let two_ports = app(|app| {
        let port = PortDefinition { port: 0, protocol: "tcp".into(), name: None, labels: Labels::new() };
        app.port_definitions = vec![port.clone(), port];
    });
    assert_eq!(fit(&mut remaining, &two_ports, None).unwrap_err(), [Reason::InsufficientPorts]);
    assert!(fit(&mut remaining, &app(|_| {}), None).is_ok());
}

#[test]
fn a_volume_is_reserved_made_and_found_again() {
    let resident = app(|app| {
        app.container = Some(crate::model::container::Container {
            kind: crate::model::container::ContainerKind::Mesos,
            docker: None,
            volumes: vec![crate::model::container::Volume {
                container_path: "data".into(),
                read_only: false,
                kind: VolumeKind::Persistent(PersistentVolume {
                    disk: DiskKind::Root,
                    size: 10,
                    max_size: None,
                    profile: None,
                    constraints: Vec::new(),
                }),
            }],
            port_mappings: Vec::new(),
            linux_info: None,
        });
    });
    let mut remaining = Remaining::new(offer(vec![scalar("cpus", 2.0, "*"), scalar("mem", 128.0, "*"), scalar("disk", 50.0, "*")]));
    let found = fit(&mut remaining, &resident, None).unwrap();
    assert_eq!(found.reserve.len(), 3);
    assert_eq!(found.create.len(), 1);
    let held = found.held.unwrap();
    assert!(!held.confirmed);
    // The next offer shows them as they are now; nobody else gets them, and the instance gets nothing else.
    let mut again = Remaining::new(offer(found.reserve[..2].iter().cloned().chain(found.create.clone()).collect()));
    assert_eq!(fit(&mut again, &app(|_| {}), None).unwrap_err(), [Reason::InsufficientCpus, Reason::InsufficientMemory]);
    let found = fit(&mut again, &resident, Some(&held)).unwrap();
    assert!(found.reserve.is_empty() && found.create.is_empty() && found.held.unwrap().confirmed);
    assert_eq!(again.orphaned("f", |_| false).len(), 3);
    assert_eq!(again.orphaned("f", |_| true).len(), 0);
    let mut elsewhere = Remaining::new(offer(vec![scalar("cpus", 2.0, "*"), scalar("mem", 128.0, "*"), scalar("disk", 50.0, "*")]));
    assert!(fit(&mut elsewhere, &resident, Some(&held)).unwrap_err().contains(&Reason::NoCorrespondingReservationFound));
}
