use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;
use crate::observation::{Direction, Protocol};

const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

fn socket(cookie: u64, local: &str, remote: &str, state: u8, bytes: u64) -> SocketRecord {
    let endpoint = |text: &str| {
        let address: std::net::SocketAddr = text.parse().unwrap();
        (address.ip(), address.port())
    };
    let (local, remote) = (endpoint(local), endpoint(remote));
    SocketRecord {
        protocol: Protocol::Tcp,
        state,
        local,
        remote,
        inode: cookie,
        cookie,
        address: 0,
        cgroup_id: 0,
        bytes_acked: bytes,
        bytes_received: bytes,
        retransmits: 0,
        rtt_us: 0,
    }
}

/// A look that found nothing at all is one at a namespace that could not be read.
#[track_caller]
fn check(looks: Vec<Vec<SocketRecord>>, expected: Expect) {
    let mut watch = Watch::new(32_768..=60_999);
    let mut told = String::new();
    for sockets in looks {
        let unread = sockets.is_empty();
        let tables = [SocketTable { inode: 7, cookie: 7, sockets, unread, late: false }];
        let owner = |socket: &SocketRecord| SocketOwner { pid: u32::try_from(socket.inode).unwrap(), ..SocketOwner::default() };
        writeln!(told, "look").unwrap();
        for observation in watch.look(BootNanos(1), &tables, owner, |_, _| true) {
            match observation {
                Observation::FlowSeen { end, client_port, .. } => {
                    let role = if end.direction == Direction::Client { "client" } else { "server" };
                    let (from, to, port) = (end.client_address, end.server_address, end.server_port);
                    writeln!(told, "  {} is {role} of {from}:{client_port} -> {to}:{port}", end.pid).unwrap();
                }
                Observation::FlowCounted { end, delta, .. } => {
                    let Counted { opened, closed, bytes_sent, bytes_received, .. } = delta;
                    writeln!(told, "  {} opened {opened} closed {closed} sent {bytes_sent} received {bytes_received}", end.pid).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }
    expected.assert_eq(&told);
}

#[test]
fn a_connection_is_found_counted_and_missed() {
    let listener = socket(1, "0.0.0.0:8080", "0.0.0.0:0", LISTEN, 0);
    check(
        vec![
            vec![
                listener,
                socket(2, "127.0.0.1:8080", "127.0.0.1:50000", ESTABLISHED, 100),
                socket(3, "127.0.0.1:50000", "127.0.0.1:8080", ESTABLISHED, 101),
            ],
            vec![
                listener,
                socket(2, "127.0.0.1:8080", "127.0.0.1:50000", ESTABLISHED, 150),
                socket(3, "127.0.0.1:50000", "127.0.0.1:8080", ESTABLISHED, 101),
            ],
            vec![],
            vec![listener],
            vec![listener],
        ],
        expect![[r#"
            look
              2 is server of 127.0.0.1:50000 -> 127.0.0.1:8080
              3 is client of 127.0.0.1:50000 -> 127.0.0.1:8080
              2 opened 1 closed 0 sent 100 received 100
              3 opened 1 closed 0 sent 100 received 101
            look
              2 opened 0 closed 0 sent 50 received 50
            look
            look
              2 opened 0 closed 1 sent 0 received 0
              3 opened 0 closed 1 sent 0 received 0
            look
        "#]],
    );
}

#[test]
fn a_listener_tells_the_server_and_without_one_a_port_that_only_a_service_has_does() {
    check(
        vec![vec![
            socket(1, "10.0.0.1:50000", "0.0.0.0:0", LISTEN, 0),
            socket(2, "10.0.0.1:50000", "10.0.0.9:99", ESTABLISHED, 0),
            socket(3, "10.0.0.1:40000", "10.0.0.9:443", ESTABLISHED, 0),
            socket(4, "10.0.0.1:22", "10.0.0.9:60000", ESTABLISHED, 0),
            // Nobody listens here: the service's port may be one of those that the kernel gives away.
            socket(5, "10.0.0.1:41000", "10.0.0.9:50051", ESTABLISHED, 0),
            socket(6, "10.0.0.1:800", "10.0.0.9:2049", ESTABLISHED, 0),
        ]],
        expect![[r#"
            look
              2 is server of 10.0.0.9:99 -> 10.0.0.1:50000
              3 is client of 10.0.0.1:40000 -> 10.0.0.9:443
              4 is server of 10.0.0.9:60000 -> 10.0.0.1:22
              5 is client of 10.0.0.1:41000 -> 10.0.0.9:50051
              6 is client of 10.0.0.1:800 -> 10.0.0.9:2049
              2 opened 1 closed 0 sent 0 received 0
              3 opened 1 closed 0 sent 0 received 0
              4 opened 1 closed 0 sent 0 received 0
              5 opened 1 closed 0 sent 0 received 0
              6 opened 1 closed 0 sent 0 received 0
        "#]],
    );
}
