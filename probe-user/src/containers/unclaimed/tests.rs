use super::*;
use crate::cgroups::names::named;

const SECOND: u64 = 1_000_000_000;
const ID: &str = "2299a2ca59dfd821f367e689d5869c4e568272c2305701761888e1d79d7a6f51";

fn at(millis: u64) -> Now {
    Now { boot: BootNanos(millis * 1_000_000), unix_nanos: 500 * SECOND + millis * 1_000_000 }
}

fn processes(id: &Arc<str>, pid: u32) -> HashMap<Arc<str>, (BootNanos, u32)> {
    HashMap::from([(id.clone(), (BootNanos(0), pid))])
}

#[track_caller]
fn told(verdicts: &[Verdict]) -> &ContainerFacts {
    match verdicts {
        [Verdict::Tell(facts)] => facts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_container_with_an_id_is_told_when_no_runtime_did() {
    let mut unclaimed = Unclaimed::default();
    let id: Arc<str> = ID.into();
    let path = format!("/docker/{ID}");
    assert!(unclaimed.note(&id, &named(&path).unwrap(), 7, at(0)));
    assert!(!unclaimed.note(&id, &named(&path).unwrap(), 7, at(1)));
    assert!(unclaimed.settle(at(1_999), &processes(&id, 5), |_| true).is_empty());
    let verdicts = unclaimed.settle(at(2_000), &processes(&id, 5), |_| true);
    let record = &told(&verdicts).record;
    assert_eq!((record.id.as_str(), record.name.as_str(), record.runtime.as_str()), (ID, &ID[..12], "docker"));
    assert_eq!((record.state(), record.pid, record.cgroup_id), (ContainerState::Running, 5, 7));
    assert_eq!(record.created_at_unix_nanos, 500 * SECOND, "when it was seen");
    assert!(unclaimed.settle(at(3_000), &processes(&id, 5), |_| true).is_empty(), "nothing new");
    // A runtime turns up after all.
    unclaimed.claim(ID);
    assert!(unclaimed.is_empty());
}

#[test]
fn a_container_without_an_id_is_told_at_once_and_goes_with_its_cgroup() {
    let mut unclaimed = Unclaimed::default();
    let id: Arc<str> = "derived".into();
    let path = named("/lxc.payload.web").unwrap();
    unclaimed.note(&id, &path, 7, at(0));
    assert_eq!(
        told(&unclaimed.settle(at(0), &HashMap::new(), |_| true)).record.state(),
        ContainerState::Running,
        "its first process comes next"
    );
    assert_eq!(told(&unclaimed.settle(at(1_000), &processes(&id, 5), |_| true)).record.pid, 5);
    let verdicts = unclaimed.settle(at(2_000), &HashMap::new(), |_| true);
    let stopped = told(&verdicts);
    assert_eq!((stopped.record.state(), stopped.finished_at_unix_nanos), (ContainerState::Exited, 502 * SECOND));
    assert_eq!(told(&unclaimed.settle(at(3_000), &processes(&id, 6), |_| true)).record.state(), ContainerState::Running);
    unclaimed.cgroup_removed(&id);
    let verdicts = unclaimed.settle(at(4_000), &HashMap::new(), |_| false);
    assert!(
        matches!(&verdicts[..], [Verdict::Tell(last), Verdict::Gone(gone)] if last.record.state() == ContainerState::Exited && *gone == id)
    );
    assert!(unclaimed.is_empty());
}

#[test]
fn where_cgroups_are_not_seen_a_container_goes_with_its_last_process() {
    let mut unclaimed = Unclaimed::default();
    let id: Arc<str> = "derived".into();
    unclaimed.note(&id, &named("/lxc/web").unwrap(), 0, at(0));
    unclaimed.settle(at(0), &processes(&id, 5), |_| false);
    assert_eq!(unclaimed.settle(at(1_000), &HashMap::new(), |_| false).len(), 1, "exited");
    assert!(unclaimed.settle(at(9_000), &HashMap::new(), |_| false).is_empty());
    assert!(unclaimed.settle(at(9_000), &HashMap::new(), |_| true).is_empty());
    assert_eq!(unclaimed.settle(at(10_000), &HashMap::new(), |_| false), [Verdict::Gone(id)]);
}

#[test]
fn one_that_was_gone_before_its_time_is_still_told_once() {
    let mut unclaimed = Unclaimed::default();
    let id: Arc<str> = ID.into();
    unclaimed.note(&id, &named(&format!("/docker/{ID}")).unwrap(), 7, at(0));
    unclaimed.cgroup_removed(ID);
    assert!(unclaimed.settle(at(50), &HashMap::new(), |_| false).is_empty());
    assert_eq!(unclaimed.settle(at(2_000), &HashMap::new(), |_| false).len(), 2, "told, and gone");
}

#[test]
fn what_a_runtime_removed_is_not_found_again() {
    let mut unclaimed = Unclaimed::default();
    let id: Arc<str> = ID.into();
    let path = format!("/docker/{ID}");
    unclaimed.removed_by_runtime(ID, at(0));
    assert!(!unclaimed.note(&id, &named(&path).unwrap(), 0, at(10)));
    unclaimed.settle(at(59_999), &HashMap::new(), |_| false);
    assert!(!unclaimed.note(&id, &named(&path).unwrap(), 0, at(59_999)));
    unclaimed.settle(at(60_000), &HashMap::new(), |_| false);
    assert!(unclaimed.note(&id, &named(&path).unwrap(), 0, at(60_000)));
}

#[test]
fn too_many_are_refused_and_counted() {
    let mut unclaimed = Unclaimed::default();
    for number in 0..CONTAINERS_MAX + 3 {
        let id: Arc<str> = number.to_string().into();
        unclaimed.note(&id, &named("/lxc/web").unwrap(), 0, at(0));
        unclaimed.removed_by_runtime(&format!("r{number}"), at(0));
    }
    assert_eq!((unclaimed.by_id.len(), unclaimed.refused()), (CONTAINERS_MAX, 3));
    assert!(unclaimed.removed.len() <= CONTAINERS_MAX && unclaimed.removed_ids.len() <= CONTAINERS_MAX);
}
