use super::*;

#[test]
fn tables_are_told_from_other_entries_by_their_name() {
    let root = tempfile::tempdir().expect("a directory");
    for name in ["0123456789abcdef", "0123456789abcde", "OWNERS-0123456789abcdef", "links", "ghijklmnopqrstuv"] {
        fs::create_dir(root.path().join(name)).expect("made");
    }
    assert_eq!(builds(root.path()), [root.path().join("0123456789abcdef")]);
}

#[test]
fn a_second_holder_is_refused_and_a_third_after_the_first_has_gone_is_not() {
    let root = tempfile::tempdir().expect("a directory");
    let first = lock(root.path()).expect("free");
    assert!(matches!(lock(root.path()), Err(PinError::Held(_))));
    drop(first);
    lock(root.path()).expect("free again");
}

#[test]
fn links_are_removed_before_the_tables_that_their_programs_use() {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(root.path().join("root/links")).expect("made");
    fs::create_dir_all(root.path().join("root/0123456789abcdef")).expect("made");
    fs::write(root.path().join("root/links/tcp"), "").expect("made");
    fs::write(root.path().join("root/0123456789abcdef/EDGES"), "").expect("made");
    remove(&root.path().join("root")).expect("removed");
    assert_eq!(entries(root.path()), []);
}
