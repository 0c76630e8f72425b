use super::*;

const SECOND: u64 = 1_000_000_000;

fn now(boot_seconds: u64, unix_seconds: u64) -> Now {
    Now { boot: BootNanos(boot_seconds * SECOND), unix_nanos: unix_seconds * SECOND }
}

fn named(name: &str, resolved: u64, expires: u64) -> Named {
    Named { name: name.into(), resolved_at: BootNanos(resolved * SECOND), expires_at: BootNanos(expires * SECOND) }
}

#[test]
fn names_come_back_with_their_times_also_after_a_boot() {
    let address: IpAddr = "203.0.113.1".parse().unwrap();
    let names = vec![(address, vec![named("b.test", 990, 1_050), named("a.test", 900, 960)])];
    let text = encode(&names, now(1_000, 50_000));
    assert_eq!(decode(&text, now(1_010, 50_010)).unwrap(), names);
    // Twenty seconds later, of which the machine has been up for ten: what has run out is nobody's any more.
    let after = decode(&text, now(10, 50_020)).unwrap();
    assert_eq!(after, [(address, vec![named("b.test", 0, 40)])]);
}

#[test]
fn a_clock_that_was_set_back_keeps_no_name_for_longer_than_a_day() {
    let address: IpAddr = "203.0.113.1".parse().unwrap();
    let text = encode(&vec![(address, vec![named("a.test", 1_000, 1_300)])], now(1_000, 5_000_000));
    let names = decode(&text, now(2_000, 1_000)).unwrap();
    assert_eq!(names, [(address, vec![named("a.test", 2_000, 2_000 + 86_400)])]);
}

#[test]
fn what_no_table_would_have_is_left_out() {
    let text = |name: &str| {
        let named = serde_json::json!({ "name": name, "resolved_unix_nanos": u64::MAX, "expires_unix_nanos": u64::MAX });
        serde_json::json!({ "addresses": [{ "address": "::ffff:203.0.113.1", "names": vec![named; 20] }] }).to_string()
    };
    let decoded = |text: &str| decode(text.as_bytes(), now(1_000, 50_000));
    let names = decoded(&text("a.test")).unwrap();
    assert_eq!((names[0].0, names[0].1.len()), ("203.0.113.1".parse().unwrap(), NAMES_MAX));
    for not_a_name in ["", "a b", "a\u{202e}b", "a\n", &"a".repeat(300)] {
        assert_eq!(decoded(&text(not_a_name)).unwrap(), [], "{not_a_name:?}");
    }
    for nothing in ["", "{", "[]", "{\"addresses\":[{\"address\":\"x\",\"names\":[]}]}", "\u{0}"] {
        assert!(decoded(nothing).is_err(), "{nothing:?}");
    }
}

#[tokio::test]
async fn the_next_probe_is_given_what_the_last_one_wrote_when_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("made/when/needed");
    let address: IpAddr = "203.0.113.1".parse().unwrap();
    let names = vec![(address, vec![Named { name: "a.test".into(), resolved_at: Now::read().boot, expires_at: Now::read().boot }])];

    let (inputs, mut inbox) = mpsc::channel(1);
    let stopping = CancellationToken::new();
    stopping.cancel();
    let answered = async {
        let Some(Input::NamesWanted { newer_than: 0, reply }) = inbox.recv().await else { panic!("it did not ask") };
        reply.send(Some(Copy { version: 1, names: names.clone(), now: Now::read() })).unwrap();
    };
    tokio::join!(run(state.clone(), inputs, stopping.clone()), answered);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(state.join(FILE)).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let (inputs, mut inbox) = mpsc::channel(2);
    let given = async {
        let Some(Input::NamesKept(given)) = inbox.recv().await else { panic!("it gave nothing") };
        assert_eq!((given[0].0, &*given[0].1[0].name), (address, "a.test"));
        let Some(Input::NamesWanted { reply, .. }) = inbox.recv().await else { panic!("it did not ask") };
        reply.send(None).unwrap();
    };
    tokio::join!(run(state.clone(), inputs, stopping.clone()), given);

    // One that cannot be read costs the names, and is written anew.
    std::fs::write(state.join(FILE), "{").unwrap();
    let (inputs, mut inbox) = mpsc::channel(1);
    let answered = async {
        let Some(Input::NamesWanted { reply, .. }) = inbox.recv().await else { panic!("it did not ask") };
        reply.send(Some(Copy { version: 2, names: names.clone(), now: Now::read() })).unwrap();
    };
    tokio::join!(run(state.clone(), inputs, stopping), answered);
    assert_eq!(decode(&read(&state.join(FILE)).unwrap(), Now::read()).unwrap().len(), 1);
}
