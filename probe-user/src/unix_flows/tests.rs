use super::*;
use crate::cgroups::Placement;
use crate::observation::{BootNanos, ProcessStarted};

fn key(pid: u32) -> ProcessKey {
    ProcessKey::new(pid, BootNanos(u64::from(pid) * 1_000_000_000))
}

fn processes(pids: impl IntoIterator<Item = u32>) -> ProcessTable {
    let mut table = ProcessTable::default();
    for pid in pids {
        let started = ProcessStarted { at: key(pid).start_time, pid, start_time: Some(key(pid).start_time), ..ProcessStarted::default() };
        let placement = Placement { container_id: (pid % 2 == 0).then(|| format!("c{pid}").into()), ..Placement::default() };
        table.started(&started, Some(placement));
    }
    table
}

fn flow(client: u32, server: u32, path: &str) -> UnixFlowKey {
    UnixFlowKey { client: key(client), server: key(server), path: path.into() }
}

fn look(open: impl IntoIterator<Item = (UnixFlowKey, u32)>) -> UnixLook {
    UnixLook { open: open.into_iter().collect(), ..UnixLook::default() }
}

#[test]
fn counts_are_told_when_they_change_and_ids_are_never_used_again() {
    let processes = processes([1, 2, 3]);
    let mut table = UnixFlowTable::default();
    table.look(&look([(flow(1, 2, "/run/a"), 1), (flow(3, 2, "/run/a"), 2)]), &processes);
    let (changed, gone) = table.take_changes();
    assert_eq!((changed.len(), gone.len()), (2, 0));
    let first = *changed.first().unwrap();
    let told = table.get(first).unwrap();
    assert_eq!((told.client_container_id.as_deref(), told.server_container_id.as_deref()), (None, Some("c2")));

    table.look(&look([(flow(1, 2, "/run/a"), 1), (flow(3, 2, "/run/a"), 2)]), &processes);
    assert!(!table.has_changes(), "nothing is told twice");
    table.look(&look([(flow(1, 2, "/run/a"), 5), (flow(3, 2, "/run/a"), 2)]), &processes);
    assert_eq!(table.take_changes(), ([first].into(), BTreeSet::new()));
    assert_eq!(table.get(first).unwrap().open, 5);

    table.look(&look([(flow(3, 2, "/run/a"), 2)]), &processes);
    assert_eq!(table.take_changes(), (BTreeSet::new(), [first].into()));
    table.look(&look([(flow(1, 2, "/run/a"), 1), (flow(3, 2, "/run/a"), 2)]), &processes);
    let (again, _) = table.take_changes();
    assert!(again.first().unwrap() > &first && again.len() == 1);
}

#[test]
fn what_was_never_told_does_not_leave() {
    let processes = processes([1, 2]);
    let mut table = UnixFlowTable::default();
    table.look(&look([(flow(1, 2, "/run/a"), 1)]), &processes);
    table.look(&look([]), &processes);
    assert!(!table.has_changes() && table.is_empty());
    assert!(table.ids.is_empty() && table.parties.is_empty());
}

#[test]
fn a_process_that_is_not_known_yet_or_has_ended_is_not_named() {
    let mut known = processes([1]);
    let mut table = UnixFlowTable::default();
    table.look(&look([(flow(1, 2, "/run/a"), 1)]), &known);
    assert!(table.is_empty());
    known = processes([1, 2]);
    table.look(&look([(flow(1, 2, "/run/a"), 1)]), &known);
    let (changed, _) = table.take_changes();
    let ended = known.exited(BootNanos(9_000_000_000), 2, None, 0).unwrap();
    table.process_ended(ended);
    assert_eq!(table.take_changes(), (BTreeSet::new(), changed));
    // A look that was on its way.
    table.look(&look([(flow(1, 2, "/run/a"), 1)]), &known);
    assert!(table.is_empty());
}

#[test]
fn the_table_is_bounded_and_each_loss_is_counted_once() {
    let processes = processes([1, 2]);
    let mut table = UnixFlowTable::default();
    let too_many = look((0..UNIX_FLOWS_MAX + 3).map(|number| (flow(1, 2, &format!("/run/{number:05}")), 1)));
    for _ in 0..3 {
        table.look(&too_many, &processes);
        assert_eq!((table.len(), table.lost()), (UNIX_FLOWS_MAX, 3));
    }
    // Those that are known keep their places when there is room again.
    table.look(&UnixLook { lost: 2, left_out: 4, ..look([(flow(2, 1, "/run/z"), 1)]) }, &processes);
    assert_eq!((table.len(), table.lost()), (1, 9));
    table.look(&UnixLook { lost: 2, left_out: 4, ..look([]) }, &processes);
    assert_eq!(table.lost(), 9);
    // An edge that was started again.
    table.look(&UnixLook { lost: 1, left_out: 5, ..look([]) }, &processes);
    assert_eq!(table.lost(), 11);
}
