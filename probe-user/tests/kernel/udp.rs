//! UDP: every exchange is one edge at each end, whoever sends how, and nobody's ephemeral port is a service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use orchestrator_probe::observation::{Counted, Direction, FlowEnd, Observation, Protocol};

use crate::harness::{Child, Watch, config, needs_root, slowness, with_owner};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn socket(address: IpAddr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((address, port)).expect("bind");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    socket
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().expect("address").port()
}

/// A port that the kernel gives to nobody, which a server may choose.
fn chosen_socket(address: IpAddr) -> UdpSocket {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).expect("small");
    (first..).find_map(|port| UdpSocket::bind((address, port)).ok()).expect("a free port")
}

fn ask(client: &UdpSocket, server: &UdpSocket, address: SocketAddr) {
    client.send_to(b"question", address).expect("send");
    let (_, asker) = server.recv_from(&mut [0; 16]).expect("receive");
    server.send_to(b"answer", asker).expect("send");
    client.recv_from(&mut [0; 16]).expect("receive");
}

fn one_flow_each(watch: &mut Watch, service: u16, seen_as: IpAddr) -> (FlowEnd, FlowEnd) {
    watch.until("both ends", |watch| {
        watch.total(service, Direction::Client).opened > 0 && watch.total(service, Direction::Server).opened > 0
    });
    let ends = [Direction::Client, Direction::Server].map(|direction| {
        let flows = watch.flows(service, direction);
        assert_eq!(flows.len(), 1, "one flow for one pair of hosts: {flows:#?}");
        let (end, total) = flows[0];
        assert_eq!(end.protocol, Protocol::Udp);
        assert_eq!((end.client_address, end.server_address), (seen_as, seen_as));
        assert!(with_owner(&end, std::process::id()), "{end:?}");
        assert_eq!((total.opened, total.closed, total.failed), (1, 0, 0));
        end
    });
    (ends[0], ends[1])
}

/// No flow has this port as its service.
#[track_caller]
fn is_no_service(watch: &mut Watch, port: u16) {
    watch.take();
    let flows: Vec<_> = [Direction::Client, Direction::Server].into_iter().flat_map(|direction| watch.flows(port, direction)).collect();
    assert!(flows.is_empty(), "{flows:#?}");
    assert!(!watch.seen.iter().any(|it| matches!(it, Observation::FlowSeen { end, .. } if end.server_port == port)));
}

fn both_ends_of_an_exchange_are_one_flow(bind: IpAddr, connect: IpAddr, seen_as: IpAddr) {
    needs_root!();
    let mut watch = Watch::start(&config());
    let server = socket(bind, 0);
    let client = socket(if connect.is_ipv4() { V4 } else { ANY }, 0);
    for _ in 0..5 {
        ask(&client, &server, SocketAddr::new(connect, port(&server)));
    }
    one_flow_each(&mut watch, port(&server), seen_as);
    is_no_service(&mut watch, port(&client));
    assert!(watch.seen.iter().any(|it| matches!(it, Observation::FlowSeen { end, client_port, found_open: false, .. }
        if end.server_port == port(&server) && *client_port == port(&client))));
    watch.lost_nothing();
}

#[test]
fn an_ipv4_exchange_is_one_flow_at_each_end() {
    both_ends_of_an_exchange_are_one_flow(V4, V4, V4);
}

#[test]
fn an_ipv6_exchange_is_one_flow_at_each_end() {
    both_ends_of_an_exchange_are_one_flow(V6, V6, V6);
}

#[test]
fn an_ipv4_client_of_a_dual_stack_server_is_ipv4_at_both_ends() {
    both_ends_of_an_exchange_are_one_flow(ANY, V4, V4);
    both_ends_of_an_exchange_are_one_flow(ANY, IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()), V4);
}

#[test]
fn sockets_without_an_address_of_their_own_have_the_one_that_they_send_from() {
    both_ends_of_an_exchange_are_one_flow(IpAddr::V4(Ipv4Addr::UNSPECIFIED), V4, V4);
    both_ends_of_an_exchange_are_one_flow(ANY, V6, V6);
}

#[test]
fn ten_thousand_datagrams_are_one_flow_at_each_end() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let server = socket(V4, 0);
    let address = server.local_addr().expect("address");
    let client = socket(V4, 0);
    for _ in 0..10_000 {
        client.send_to(&[0; 8], address).expect("send");
        server.recv_from(&mut [0; 16]).expect("receive");
    }
    one_flow_each(&mut watch, address.port(), V4);
    let told = watch.seen.iter().filter(|it| matches!(it, Observation::FlowSeen { end, .. } if end.server_port == address.port()));
    assert_eq!(told.count(), 2);
    is_no_service(&mut watch, port(&client));
    watch.lost_nothing();
}

#[test]
fn a_resolver_and_its_server_are_client_and_server_whatever_ports_they_chose() {
    needs_root!();
    let mut watch = Watch::start(&config());
    // A server on a port of its choice; a client that binds a random one, as resolvers do.
    let (server, client) = (chosen_socket(V4), chosen_socket(V4));
    for each in [&server, &client] {
        each.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    }
    for _ in 0..3 {
        ask(&client, &server, server.local_addr().expect("address"));
    }
    one_flow_each(&mut watch, port(&server), V4);
    is_no_service(&mut watch, port(&client));
}

#[test]
fn a_server_that_asks_another_is_its_client() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let (front, back, client) = (chosen_socket(V4), chosen_socket(V4), socket(V4, 0));
    client.send_to(b"question", front.local_addr().expect("address")).expect("send");
    let (_, asker) = front.recv_from(&mut [0; 16]).expect("receive");
    // Over the same socket.
    front.send_to(b"forwarded", back.local_addr().expect("address")).expect("send");
    let (_, forwarder) = back.recv_from(&mut [0; 16]).expect("receive");
    back.send_to(b"answer", forwarder).expect("send");
    front.recv_from(&mut [0; 16]).expect("receive");
    front.send_to(b"answer", asker).expect("send");
    client.recv_from(&mut [0; 16]).expect("receive");
    one_flow_each(&mut watch, port(&front), V4);
    one_flow_each(&mut watch, port(&back), V4);
    is_no_service(&mut watch, port(&client));
}

#[test]
fn a_connected_client_is_open_until_its_socket_ends() {
    needs_root!();
    for address in [V4, V6] {
        let mut watch = Watch::start(&config());
        let server = socket(address, 0);
        let client = socket(if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { ANY }, 0);
        client.connect(server.local_addr().expect("address")).expect("connect");
        let service = port(&server);
        watch.until("the connection", |watch| watch.total(service, Direction::Client).opened == 1);
        let asker = client.local_addr().expect("address");
        for _ in 0..100 {
            client.send(&[0; 1_200]).expect("send");
            let (_, from) = server.recv_from(&mut [0; 2_000]).expect("receive");
            assert_eq!(from, asker);
            server.send_to(&[0; 1_200], from).expect("send");
            client.recv(&mut [0; 2_000]).expect("receive");
        }
        one_flow_each(&mut watch, service, address);
        is_no_service(&mut watch, asker.port());
        drop(client);
        watch.until("its end", |watch| watch.total(service, Direction::Client).closed == 1);
        assert_eq!(watch.total(service, Direction::Client), Counted { opened: 1, closed: 1, ..Counted::default() });
        watch.lost_nothing();
    }
}

#[test]
fn a_connected_socket_that_sends_once_and_ends_at_once_is_counted() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let server = socket(V4, 0);
    for _ in 0..50 {
        let client = socket(V4, 0);
        client.connect(server.local_addr().expect("address")).expect("connect");
        client.send(&[0]).expect("send");
    }
    watch.until("all of them", |watch| watch.total(port(&server), Direction::Client).closed == 50);
    assert_eq!(watch.total(port(&server), Direction::Client).opened, 50);
}

#[test]
fn a_socket_that_looks_up_its_address_is_no_connection() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let server = socket(V4, 0);
    let address = server.local_addr().expect("address");
    // As getaddrinfo does for each address of a name.
    for _ in 0..200 {
        let client = socket(V4, 0);
        client.connect(address).expect("connect");
        client.local_addr().expect("address");
    }
    let real = socket(V4, 0);
    real.connect(address).expect("connect");
    watch.until("the real one", |watch| watch.total(address.port(), Direction::Client).opened > 0);
    std::thread::sleep(Duration::from_millis(300));
    watch.take();
    let total = watch.total(address.port(), Direction::Client);
    // One that was interrupted for milliseconds looks like a real one, and an emulated machine is often as slow as that.
    let interrupted = if slowness() > 1 { 100 } else { 2 };
    assert!(total.opened <= 1 + interrupted && total.opened - total.closed == 1, "{total:?}");
}

#[test]
fn a_process_that_sends_one_datagram_and_exits_at_once_is_known() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let server = socket(V4, 0);
    let pid = Child::send_and_exit(port(&server));
    server.recv_from(&mut [0; 16]).expect("receive");
    watch.until("its datagram", |watch| watch.total(port(&server), Direction::Client).opened == 1);
    let end = watch.flows(port(&server), Direction::Client)[0].0;
    assert_eq!((end.pid, end.client_address, end.server_address), (pid, V4, V4));
    assert!(end.start_time.is_some() && end.cgroup_id != 0);
    watch.until("the server's end of it", |watch| !watch.flows(port(&server), Direction::Server).is_empty());
    assert_eq!(watch.flows(port(&server), Direction::Server)[0].0.pid, std::process::id());
}

#[test]
fn a_talk_ends_when_nothing_is_said_for_a_while() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let (server, client) = (socket(V4, 0), socket(V4, 0));
    let address = server.local_addr().expect("address");
    let service = address.port();
    let began = std::time::Instant::now();
    // It goes on for longer than a pause may be.
    while began.elapsed() < Duration::from_secs(12) {
        ask(&client, &server, address);
        std::thread::sleep(Duration::from_millis(500));
    }
    watch.take();
    one_flow_each(&mut watch, service, V4);
    let ended = std::time::Instant::now();
    watch.until_within(Duration::from_secs(20), "its end", |watch| {
        watch.total(service, Direction::Client).closed == 1 && watch.total(service, Direction::Server).closed == 1
    });
    assert!(ended.elapsed() > Duration::from_secs(5), "{:?}", ended.elapsed());
    // And again.
    ask(&client, &server, address);
    watch.until("another talk", |watch| {
        watch.total(service, Direction::Client).opened == 2 && watch.total(service, Direction::Server).opened == 2
    });
    is_no_service(&mut watch, port(&client));
}

#[test]
fn two_users_of_one_socket_are_told_apart() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let server = socket(V4, 0);
    let client = socket(V4, 0);
    client.send_to(b"mine", server.local_addr().expect("address")).expect("send");
    let child = Child::send_over(&client, port(&server));
    watch.until("both", |watch| watch.total(port(&server), Direction::Client).opened == 2);
    let mut pids: Vec<_> = watch.flows(port(&server), Direction::Client).iter().map(|(end, _)| end.pid).collect();
    pids.sort_unstable();
    let mut expected = vec![std::process::id(), child];
    expected.sort_unstable();
    assert_eq!(pids, expected);
}

#[test]
fn a_server_that_connects_a_socket_to_its_client_serves_it_on_whatever_port() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let client = socket(V4, 0);
    // A port that the kernel might have given away.
    let server = (33_000..60_000).find_map(|port| UdpSocket::bind((V4, port)).ok()).expect("a free port");
    server.connect(client.local_addr().expect("address")).expect("connect");
    server.send(b"answer").expect("send");
    watch.until("the server", |watch| watch.total(port(&server), Direction::Server).opened == 1);
    assert_eq!(watch.total(port(&client), Direction::Client).opened, 0);
}

#[test]
fn talks_fill_their_share_of_the_table_and_leave_the_rest_to_connections() {
    needs_root!();
    let mut watch = Watch::start(&orchestrator_probe::ebpf::Config { edges_max: 64, ..config() });
    let client = socket(V4, 0);
    let servers: Vec<_> = (0..256).map(|_| socket(V4, 0)).collect();
    for server in &servers {
        client.send_to(b"question", server.local_addr().expect("address")).expect("send");
    }
    let listener = std::net::TcpListener::bind((V4, 0)).expect("bind");
    let address = listener.local_addr().expect("address");
    for _ in 0..20 {
        drop(std::net::TcpStream::connect(address).expect("connect"));
    }
    watch.until("the connections", |watch| watch.total(address.port(), Direction::Client).closed == 20);
    watch.until("what was not told is counted", |watch| watch.losses().talks >= 256 - 64);
    let told = servers.iter().filter(|server| watch.total(port(server), Direction::Client).opened > 0).count();
    assert!((1..=64).contains(&told), "{told} talks were told");
    let losses = watch.losses();
    assert_eq!((losses.network_ring, losses.flow_table, losses.listeners), (0, 0, 0), "{losses:?}");
    assert_eq!((losses.ends_seen, losses.ends_counted), (40, 40));
}
