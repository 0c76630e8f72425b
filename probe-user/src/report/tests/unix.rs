//! Connections over Unix sockets, as they are told.

use super::*;
use crate::processes::ProcessKey;
use crate::unix_flows::{UNIX_FLOWS_MAX, UnixFlowKey, UnixLook};

fn look(builder: &Builder, open: impl IntoIterator<Item = (String, u32)>) -> UnixLook {
    let key = |pid| builder.processes().after(None).map(|(key, _)| *key).find(|key: &ProcessKey| key.pid == pid).unwrap();
    let (client, server) = (key(1), key(2));
    let open = open.into_iter().map(|(path, open)| (UnixFlowKey { client, server, path: path.into() }, open));
    UnixLook { open: open.collect(), ..UnixLook::default() }
}

fn one(builder: &Builder, open: u32) -> UnixLook {
    look(builder, [("/run/a".to_owned(), open)])
}

#[test]
fn they_are_told_with_their_processes_and_leave() {
    let mut builder = Builder::default();
    observe(&mut builder, (1..=2).map(started));
    builder.take_delta(now(), 10_000);
    builder.set_unix_flows(&one(&builder, 3));
    assert!(builder.has_events());
    let delta = builder.take_delta(now(), 10_000);
    let flow = &delta[0].unix_flows[0];
    assert_eq!((flow.client.unwrap().pid, flow.server.unwrap().pid, flow.path.as_str(), flow.open), (1, 2, "/run/a", 3));
    builder.set_unix_flows(&one(&builder, 3));
    assert!(builder.take_delta(now(), 10_000).is_empty());
    builder.set_unix_flows(&UnixLook::default());
    let delta = builder.take_delta(now(), 10_000);
    assert_eq!((delta[0].unix_flows.len(), delta[0].unix_flows_gone.as_slice()), (0, &[flow.id][..]));
}

#[test]
fn the_end_of_a_process_ends_them() {
    let mut builder = Builder::default();
    observe(&mut builder, (1..=2).map(started));
    builder.set_unix_flows(&one(&builder, 1));
    let id = builder.take_delta(now(), 10_000)[0].unix_flows[0].id;
    observe(&mut builder, [Observation::ProcessExited { at: BootNanos(99 * SECOND), pid: 2, start_time: None, status: 0 }]);
    assert_eq!(builder.take_delta(now(), 10_000)[0].unix_flows_gone, [id]);
}

#[test]
fn a_snapshot_tells_each_once_and_what_changed_before_it_no_more() {
    let mut builder = Builder::default();
    observe(&mut builder, (1..=2).map(started));
    builder.set_unix_flows(&look(&builder, (0..500).map(|number| (format!("/run/{number}"), 1))));
    builder.drop_changes();
    let mut cursor = SnapshotCursor::default();
    let parts: Vec<v1::Report> = std::iter::from_fn(|| builder.next_part(&mut cursor, now(), 2_000)).collect();
    assert!(parts.len() > 5 && parts.iter().all(|it| it.encoded_len() <= 2_000));
    let mut ids: Vec<u64> = parts.iter().flat_map(|it| &it.unix_flows).map(|it| it.id).collect();
    assert_eq!(ids.len(), 500);
    builder.set_unix_flows(&UnixLook::default());
    let mut gone: Vec<u64> = builder.take_delta(now(), 2_000).into_iter().flat_map(|it| it.unix_flows_gone).collect();
    ids.sort_unstable();
    gone.sort_unstable();
    assert_eq!(gone, ids, "what the snapshot told leaves");
}

#[test]
fn those_that_find_no_room_are_lost_by_their_cause() {
    let mut builder = Builder::default();
    observe(&mut builder, (1..=2).map(started));
    builder.set_unix_flows(&look(&builder, (0..UNIX_FLOWS_MAX + 2).map(|number| (format!("/run/{number}"), 1))));
    assert_eq!(builder.losses().other, [("unix_sockets".to_owned(), 2)].into());
}
