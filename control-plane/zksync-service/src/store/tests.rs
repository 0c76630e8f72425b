use std::sync::atomic::Ordering;

use zksync::{ConflictKind, Seen, Side, Strategy, Value, Winner};

use super::file::tests::Disk;
use super::*;

fn with_room(disk: &Disk) -> Values {
    Values::new(disk.opener(), Box::new(|| u64::MAX))
}

fn decided(data: Vec<u8>) -> Resolution {
    let value = Value {
        seen: Seen::default(),
        mtime: 0,
        size: data.len() as u64,
        hash: Some(zksync::hash_of(&data)),
        data: data.into(),
        cut: false,
        unread: false,
        acl: None,
    };
    Resolution {
        key: "/x".into(),
        kind: ConflictKind::Update,
        strategy: Strategy::AWins,
        winner: Winner::A,
        ambiguous: false,
        sides: PerSide { a: None, b: Some(value) },
        deleted: None,
        at_ms: 1,
    }
}

#[test]
fn a_disk_without_room_for_whole_values_stops_no_link() {
    let (disk, beside) = (Disk::default(), Disk::default());
    let store = Store::over(disk.opener(), with_room(&beside)).unwrap();
    let whole = |store: &Store, number: u64| {
        let found = store.resolution("l", number).unwrap().unwrap();
        let value = found.sides[Side::B].clone().unwrap();
        (value.cut, value.data.len(), value.size)
    };
    let save = |data: Vec<u8>| store.save("l", Changes { resolved: vec![decided(data)], ..Changes::default() });
    save(vec![1; 500_000]).unwrap();
    beside.full.store(true, Ordering::SeqCst);
    save(vec![2; 500_000]).unwrap();
    assert_eq!(store.record("l", decided(vec![3; 400_000])).unwrap(), 3);
    assert_eq!(
        (whole(&store, 1), whole(&store, 2), whole(&store, 3)),
        ((false, 500_000, 500_000), (true, 65_536, 500_000), (true, 65_536, 400_000))
    );
    assert_eq!((store.values_unkept("l"), store.saves("l").unwrap()), (2, 2));
}

#[test]
fn a_link_whose_save_found_no_room_can_begin_anew_when_there_is_some() {
    let disk = Disk::default();
    let store = Store::over(disk.opener(), with_room(&Disk::default())).unwrap();
    let of = |n: u64| Changes { applied: PerSide { a: n, b: n }, resolved: vec![decided(vec![1; 60_000]); 50], ..Changes::default() };
    store.save("l", of(1)).unwrap();
    disk.full.store(true, Ordering::SeqCst);
    assert!(store.save("l", of(2)).is_err());
    disk.full.store(false, Ordering::SeqCst);
    assert_eq!(store.load("l").unwrap().applied, PerSide { a: 1, b: 1 });
    store.save("l", of(3)).unwrap();
    assert_eq!(store.load("l").unwrap().applied, PerSide { a: 3, b: 3 });
}

/// Records of before they told how long a value is.
#[test]
fn the_size_of_a_value_is_told_where_the_record_does_not() {
    let store = Store::over(Disk::default().opener(), with_room(&Disk::default())).unwrap();
    store.record("l", decided(b"123".to_vec())).unwrap();
    store
        .file
        .write(|transaction| {
            let mut table = transaction.open_table(RESOLUTIONS)?;
            let old = String::from_utf8(table.get(("l", 1))?.unwrap().value().to_vec()).unwrap();
            let old = old.replace(r#""size":3,"#, "");
            table.insert(("l", 1), old.as_bytes())?;
            Ok(())
        })
        .unwrap();
    let sizes = |found: Option<Resolution>| found.unwrap().sides[Side::B].as_ref().unwrap().size;
    assert_eq!(sizes(store.resolution("l", 1).unwrap()), 3);
    assert_eq!(sizes(store.resolutions("l", "/", 1).unwrap().pop().map(|(_, found)| found)), 3);
}
