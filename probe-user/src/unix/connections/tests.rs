use super::*;
use crate::unix::message::Kind;

fn socket(kind: Kind, inode: u32, peer: u32, name: &str) -> UnixSocket {
    UnixSocket { kind, listens: false, inode, peer, name: name.as_bytes().into(), file: None }
}

fn listener(inode: u32, name: &str) -> UnixSocket {
    UnixSocket { listens: true, ..socket(Kind::Stream, inode, 0, name) }
}

fn found(sockets: Vec<UnixSocket>) -> Vec<(u32, u32, String)> {
    found_in(&[Namespace { inode: 1, sockets }])
}

fn found_in(namespaces: &[Namespace]) -> Vec<(u32, u32, String)> {
    connections(namespaces).into_iter().map(|it| (it.client, it.server, String::from_utf8(it.name.into()).unwrap())).collect()
}

#[test]
fn the_end_with_the_name_is_the_server() {
    for kind in [Kind::Stream, Kind::Packets] {
        let sockets = vec![socket(kind, 5, 6, "/run/a"), socket(kind, 6, 5, ""), socket(kind, 7, 8, ""), socket(kind, 8, 7, "\0b")];
        assert_eq!(found(sockets), [(6, 5, "/run/a".to_owned()), (7, 8, "\0b".to_owned())]);
    }
    // Pairs of a process with its children, and what nobody has accepted yet.
    let sockets =
        vec![socket(Kind::Stream, 5, 6, ""), socket(Kind::Stream, 6, 5, ""), listener(7, "/run/a"), socket(Kind::Stream, 8, 0, "")];
    assert!(found(sockets).is_empty());
}

#[test]
fn of_two_with_names_the_one_with_a_listeners_name_is_the_server() {
    let named = |file| UnixSocket { file, ..socket(Kind::Stream, 6, 5, "/run/a") };
    let client = socket(Kind::Stream, 5, 6, "\x00004e2");
    assert_eq!(found(vec![listener(2, "/run/a"), client.clone(), named(None)]), [(5, 6, "/run/a".to_owned())]);
    // The socket of the same path in another container says nothing of this one; then it is the later one that was accepted.
    let other = UnixSocket { file: Some((1, 1)), ..listener(2, "/run/a") };
    assert_eq!(found(vec![other, client, named(Some((2, 1)))]), [(5, 6, "/run/a".to_owned())]);
    let as_client = vec![listener(2, "\0b"), socket(Kind::Stream, 5, 6, "\0b"), socket(Kind::Stream, 6, 5, "/tmp/client")];
    assert_eq!(found(as_client), [(6, 5, "\0b".to_owned())]);
}

#[test]
fn a_datagram_socket_serves_all_who_send_to_it() {
    let server = socket(Kind::Datagram, 3, 0, "/dev/log");
    let clients = [socket(Kind::Datagram, 4, 3, ""), socket(Kind::Datagram, 5, 3, "\0client"), socket(Kind::Datagram, 6, 3, "")];
    let log = |client| (client, 3, "/dev/log".to_owned());
    assert_eq!(found([vec![server], clients.to_vec()].concat()), [log(4), log(5), log(6)]);
    // Both send to each other, and to oneself.
    let mutual = vec![socket(Kind::Datagram, 9, 8, "/b"), socket(Kind::Datagram, 8, 9, "/a"), socket(Kind::Datagram, 7, 7, "/c")];
    assert_eq!(found(mutual), [(9, 8, "/a".to_owned())]);
    // The server sends to one of its clients.
    let back = vec![socket(Kind::Datagram, 3, 4, "/dev/log"), socket(Kind::Datagram, 4, 3, ""), socket(Kind::Datagram, 5, 3, "")];
    assert_eq!(found(back), [log(4), log(5)]);
}

#[test]
fn paths_lead_into_other_network_namespaces() {
    let here = Namespace { inode: 1, sockets: vec![listener(2, "/run/a"), socket(Kind::Stream, 6, 5, "/run/a")] };
    let there = Namespace { inode: 2, sockets: vec![socket(Kind::Stream, 5, 6, "")] };
    let expected = [(5, 6, "/run/a".to_owned())];
    assert_eq!(found_in(&[here, there]), expected);
    // Where the client is cannot be looked at.
    let alone = Namespace { inode: 1, sockets: vec![listener(2, "/run/a"), socket(Kind::Stream, 6, 5, "/run/a")] };
    assert_eq!(found_in(&[alone]), expected);
    // An abstract name is of its namespace: this listener is another's.
    let abstracts = |namespace| Namespace { inode: namespace, sockets: vec![listener(2, "\0a")] };
    let client = Namespace { inode: 2, sockets: vec![socket(Kind::Stream, 6, 5, "\0a")] };
    assert!(found_in(&[abstracts(1), client]).is_empty());
}

proptest::proptest! {
    #[test]
    fn any_sockets_make_at_most_one_connection_each(numbers in proptest::collection::vec((0_u8..3, 0_u32..12, 0_u32..12, 0_u8..3, proptest::bool::ANY), 0..30)) {
        let sockets = numbers.into_iter().map(|(kind, inode, peer, name, listens)| {
            let kind = [Kind::Stream, Kind::Datagram, Kind::Packets][usize::from(kind)];
            UnixSocket { listens, ..socket(kind, inode, peer, ["", "/a", "\0b"][usize::from(name)]) }
        });
        let found = connections(&[Namespace { inode: 1, sockets: sockets.collect() }]);
        let clients: std::collections::HashSet<u32> = found.iter().map(|it| it.client).collect();
        assert_eq!(clients.len(), found.len());
        assert!(found.iter().all(|it| !it.name.is_empty() && it.client != it.server));
    }
}
