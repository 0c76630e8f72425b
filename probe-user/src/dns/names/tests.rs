use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> BootNanos {
    BootNanos(seconds * SECOND)
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([203, 0, 113, last])
}

fn resolve(table: &mut NameTable, seconds: u64, name: &str, address: IpAddr, time_to_live: u32) {
    table.resolved(at(seconds), &name.into(), address, time_to_live);
}

fn names(table: &NameTable, address: IpAddr) -> Vec<&str> {
    table.names(address).iter().map(|named| &*named.name).collect()
}

fn nobody() -> HashSet<IpAddr> {
    HashSet::new()
}

#[test]
fn the_latest_name_comes_first_and_the_oldest_leaves() {
    let mut table = NameTable::default();
    for number in 0..10 {
        resolve(&mut table, 100 + number, &format!("n{number}"), address(1), 300);
    }
    assert_eq!(names(&table, address(1)), ["n9", "n8", "n7", "n6", "n5", "n4", "n3", "n2"]);
    resolve(&mut table, 120, "n4", address(1), 300);
    assert_eq!(names(&table, address(1)), ["n4", "n9", "n8", "n7", "n6", "n5", "n3", "n2"]);
    assert_eq!(table.names(address(1))[0].expires_at, at(420));
    // An IPv4 address that comes mapped is the same.
    assert_eq!(names(&table, "::ffff:203.0.113.1".parse().unwrap()).len(), NAMES_MAX);
}

#[test]
fn a_time_to_live_is_kept_within_reason() {
    let mut table = NameTable::default();
    for (number, told, kept) in [(1, 0, 30), (2, 29, 30), (3, 31, 31), (4, 86_400, 86_400), (5, u32::MAX, 86_400)] {
        resolve(&mut table, 100, "a", address(number), told);
        assert_eq!(table.names(address(number))[0].expires_at, at(100 + kept));
    }
    // Nor does the end of time hurt.
    table.resolved(BootNanos(u64::MAX), &"b".into(), address(6), 60);
    table.retire(BootNanos(u64::MAX), &nobody());
    assert!(table.is_empty());
}

#[test]
fn a_name_leaves_when_it_has_run_out_and_nobody_uses_its_address() {
    let mut table = NameTable::default();
    resolve(&mut table, 100, "short", address(1), 60);
    resolve(&mut table, 100, "long", address(1), 600);
    resolve(&mut table, 100, "used", address(2), 60);
    assert_eq!(table.take_changes(at(100)).0.len(), 2);
    assert!(!table.retires(at(159)) && table.retires(at(160)));
    let used = HashSet::from([address(2)]);
    table.retire(at(160), &used);
    assert_eq!(names(&table, address(1)), ["long"]);
    assert_eq!(names(&table, address(2)), ["used"]);
    assert_eq!(table.take_changes(at(161)), (vec![address(1)], BTreeSet::new()));
    // It is looked at again while the flow is there, and leaves after it.
    table.retire(at(190), &used);
    assert_eq!(names(&table, address(2)), ["used"]);
    table.retire(at(220), &nobody());
    assert!(table.names(address(2)).is_empty());
    assert_eq!(table.take_changes(at(221)), (vec![], BTreeSet::from([address(2)])));
    table.retire(at(700), &nobody());
    assert!(table.is_empty());
    assert_eq!((table.name_bytes, table.by_due.len(), table.by_use.len()), (0, 0, 0));
}

#[test]
fn names_that_have_run_out_are_looked_for_every_few_seconds() {
    let mut table = NameTable::default();
    resolve(&mut table, 100, "a", address(1), 30);
    resolve(&mut table, 101, "a", address(2), 30);
    table.retire(at(130), &nobody());
    assert!(!table.retires(at(131)), "somebody else's flows are not walked every second for it");
    assert!(table.retires(at(135)));
}

#[test]
fn a_name_that_is_resolved_again_is_told_again_before_it_runs_out_there() {
    let mut table = NameTable::default();
    resolve(&mut table, 100, "a", address(1), 60);
    assert_eq!(table.take_changes(at(100)).0, [address(1)]);
    resolve(&mut table, 140, "a", address(1), 60);
    assert!(!table.has_changes(), "20 seconds are left");
    resolve(&mut table, 146, "a", address(1), 60);
    assert_eq!(table.take_changes(at(147)).0, [address(1)]);
    resolve(&mut table, 148, "b", address(1), 60);
    assert_eq!(table.take_changes(at(149)).0, [address(1)], "another name is told");
}

#[test]
fn an_address_that_left_and_came_back_untold_is_known_to_have_been_told() {
    let mut table = NameTable::default();
    resolve(&mut table, 100, "a", address(1), 30);
    table.take_changes(at(100));
    table.retire(at(130), &nobody());
    resolve(&mut table, 131, "a", address(1), 30);
    table.retire(at(170), &nobody());
    assert_eq!(table.take_changes(at(171)), (vec![], BTreeSet::from([address(1)])));
    // One that nobody was told of leaves in silence.
    resolve(&mut table, 200, "b", address(2), 30);
    table.retire(at(240), &nobody());
    assert_eq!(table.take_changes(at(241)), (vec![], BTreeSet::new()));
}

#[test]
fn a_second_has_room_for_some_hundred_addresses() {
    let mut table = NameTable::default();
    for number in 0..=u16::MAX / 16 {
        let [high, low] = number.to_be_bytes();
        resolve(&mut table, 100, "a", IpAddr::from([198, 18, high, low]), 600);
    }
    let first = table.take_changes(at(100)).0;
    assert_eq!(first.len(), TOLD_MAX);
    assert!(table.has_changes() && table.take_changes(BootNanos(100 * SECOND + SECOND / 2)).0.is_empty());
    let second = table.take_changes(at(101)).0;
    assert_eq!(second.len(), TOLD_MAX);
    assert!(first.iter().all(|told| !second.contains(told)));
}

#[test]
fn a_full_table_gives_up_what_was_used_longest_ago_and_counts_it() {
    let mut table = NameTable::default();
    let nth = |number: usize| {
        let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
        IpAddr::from([198, 18, high, low])
    };
    for number in 0..ADDRESSES_MAX {
        resolve(&mut table, 100, "a", nth(number), 600);
    }
    table.mark_told(nth(1));
    // A connection to the first one, so the second is the oldest.
    table.used(nth(0));
    resolve(&mut table, 101, "a", nth(ADDRESSES_MAX), 600);
    assert_eq!((table.len(), table.evicted()), (ADDRESSES_MAX, 1));
    assert_eq!((names(&table, nth(0)).len(), names(&table, nth(1)).len()), (1, 0));
    assert!(table.gone.contains(&nth(1)));
    assert_eq!((table.by_due.len(), table.by_use.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
}

#[test]
fn names_are_bounded_in_bytes_as_well() {
    let mut table = NameTable::default();
    let long = "n".repeat(250);
    for number in 0..ADDRESSES_MAX {
        let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
        for name in 0..NAMES_MAX {
            resolve(&mut table, 100, &format!("{long}{name}"), IpAddr::from([198, 18, high, low]), 600);
        }
    }
    assert!(table.name_bytes <= NAME_BYTES_MAX && table.len() > 400, "{} addresses", table.len());
    assert!(table.evicted() > 3_000);
    let held: usize = table.by_address.values().map(|entry| bytes_of(&entry.names)).sum();
    assert_eq!(held, table.name_bytes);
}

#[test]
fn what_an_earlier_probe_knew_stays_until_the_connections_are_known() {
    let mut table = NameTable::default();
    assert_eq!(table.version(), 0);
    resolve(&mut table, 1_000, "new.test", address(1), 300);
    let version = table.version();
    let old = |name: &str| vec![Named { name: name.into(), resolved_at: at(800), expires_at: at(900) }];
    table.restored(at(1_000), address(1), old("old.test"));
    table.restored(at(1_000), address(2), old("used.test"));
    table.restored(at(1_000), address(3), old("unused.test"));
    table.restored(at(1_000), address(4), Vec::new());
    // What was resolved meanwhile is better.
    assert_eq!(names(&table, address(1)), ["new.test"]);
    // It is on disk as it is; nothing has to be written.
    assert_eq!((table.len(), table.version()), (3, version));
    assert_eq!(table.take_changes(at(1_001)).0, [address(1), address(2), address(3)]);
    assert!(!table.retires(at(1_029)));
    assert!(table.retires(at(1_030)));
    table.retire(at(1_030), &HashSet::from([address(2)]));
    assert_eq!((names(&table, address(2)), names(&table, address(3))), (vec!["used.test"], vec![]));
    assert_eq!(table.by_use().map(|(it, _)| it).collect::<Vec<_>>(), [address(1), address(2)]);
    // A table that is full keeps no more than it has room for.
    (0..=u16::MAX)
        .map(u16::to_be_bytes)
        .for_each(|[high, low]| table.restored(at(1_031), IpAddr::from([10, 0, high, low]), old("many.test")));
    assert_eq!(table.len(), ADDRESSES_MAX);
}
