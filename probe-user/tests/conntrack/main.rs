//! Address translation as the kernel does it: real network namespaces, real rules, real connections, and what the probe tells of them.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

mod network;
mod world;

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use network::{Network, SERVER_PORT, SERVICE_PORT};
use orchestrator_probe::clock::Now;
use orchestrator_probe::conntrack::Config;
use orchestrator_probe::driver::Input;
use orchestrator_probe::observation::{Direction, FlowEnd, Observation, Protocol};
use world::{World, config, needs_root};

/// Both servers of a network, listening.
fn serve(network: &Network) -> Vec<TcpListener> {
    let addresses: Vec<String> = network.servers().into_iter().chain(network.servers6()).collect();
    network.within("s", || addresses.iter().map(|address| TcpListener::bind((address.as_str(), SERVER_PORT)).unwrap()).collect())
}

/// Opens connections to the service's port of an address, one after the other; they stay open as long as the result.
fn connect(network: &Network, address: &str, port: u16, count: usize) -> Vec<TcpStream> {
    network.within("c", || (0..count).map(|_| TcpStream::connect((address, port)).unwrap()).collect())
}

/// Sends one datagram to the service from each of `count` ports that were not used before, at most so many a second.
fn send(network: &Network, address: &str, count: u32, per_second: u32) {
    static NEXT_PORT: AtomicU16 = AtomicU16::new(10_000);
    network.within("c", || {
        let begun = std::time::Instant::now();
        for number in 0..count {
            let socket = UdpSocket::bind(("0.0.0.0", NEXT_PORT.fetch_add(1, Ordering::Relaxed))).unwrap();
            socket.send_to(&[1], (address, SERVICE_PORT)).unwrap();
            if let Some(early) = (Duration::from_secs(1) * number / per_second).checked_sub(begun.elapsed()) {
                std::thread::sleep(early);
            }
        }
    });
}

/// An end of UDP, as the capture tells it.
fn udp_end(direction: Direction, client: &str, server: &str, server_port: u16) -> Observation {
    let end = FlowEnd {
        pid: 0,
        start_time: None,
        cgroup_id: 0,
        network_namespace: 4_711,
        direction,
        protocol: Protocol::Udp,
        client_address: client.parse().unwrap(),
        server_address: server.parse().unwrap(),
        server_port,
    };
    Observation::FlowSeen { at: Now::read().boot, end, client_port: 5_000, original_server: None, found_open: false }
}

#[tokio::test]
async fn a_service_address_is_resolved_to_its_backends_on_both_ends() {
    needs_root!();
    let network = Network::new();
    network.balance("");
    let mut world = World::start(&network);
    let _servers = serve(&network);
    for (service, servers) in [(network.service(), network.servers()), (network.service6(), network.servers6())] {
        let shown = |address: &String| std::net::SocketAddr::new(address.parse().unwrap(), SERVER_PORT);
        drop(connect(&network, &service, SERVICE_PORT, 10));
        let expected = servers.each_ref().map(|server| format!("5 to {}", shown(server)));
        world.until("both backends", |world| world.ways(Direction::Client, &service) == expected).await;
        let service = std::net::SocketAddr::new(service.parse().unwrap(), SERVICE_PORT);
        for server in &servers {
            let expected = format!("5 to {} for {service}", shown(server));
            world.until("the service on the server's end", |world| world.ways(Direction::Server, server) == [expected.clone()]).await;
        }
    }
    assert_eq!(world.telemetry.metrics().conntrack_overruns.get(), 0);
}

#[tokio::test]
async fn a_masqueraded_client_is_known_as_the_server_sees_it_and_the_server_s_end_knows_the_client() {
    needs_root!();
    let network = Network::new();
    network.balance("oifname to-s masquerade\n");
    let mut world = World::start(&network);
    let _servers = serve(&network);
    let (client, router, service, [first, second]) = (network.client(), network.router(), network.service(), network.servers());
    // Plain masquerading, as of a container that talks to the world.
    drop(connect(&network, &first, SERVER_PORT, 3));
    let plain = format!("3 to {first}:{SERVER_PORT} as {router}");
    world.until("the masqueraded client", |world| world.ways(Direction::Client, &first) == [plain.clone()]).await;
    let plain = format!("3 to {first}:{SERVER_PORT} as {router} of {client}");
    world.until("the client", |world| world.ways(Direction::Server, &first) == [plain.clone()]).await;
    // Both at once, as of a node port.
    drop(connect(&network, &service, SERVICE_PORT, 4));
    let both = [&first, &second].map(|server| format!("2 to {server}:{SERVER_PORT} as {router}"));
    world.until("both backends", |world| world.ways(Direction::Client, &service) == both).await;
    let meant = format!("2 to {second}:{SERVER_PORT} as {router} of {client} for {service}:{SERVICE_PORT}");
    world.until("the client and the service", |world| world.ways(Direction::Server, &second) == [meant.clone()]).await;
}

#[tokio::test]
async fn datagrams_are_translated_as_well() {
    needs_root!();
    let network = Network::new();
    network.balance("");
    let mut world = World::start_with(config(&network));
    let (client, service, [first, second]) = (network.client(), network.service(), network.servers());
    // Before its flow and after it.
    send(&network, &service, 2, 1_000);
    world.until("the first", |world| world.builder.flows().translations().len() == 3).await;
    world.observe(udp_end(Direction::Client, &client, &service, SERVICE_PORT));
    world.observe(udp_end(Direction::Server, &client, &second, SERVER_PORT));
    send(&network, &service, 4, 1_000);
    let expected = [&first, &second].map(|server| format!("3 to {server}:{SERVER_PORT}"));
    world.until("both backends", |world| world.ways(Direction::Client, &service) == expected).await;
    let meant = format!("3 to {second}:{SERVER_PORT} for {service}:{SERVICE_PORT}");
    world.until("the service", |world| world.ways(Direction::Server, &second) == [meant.clone()]).await;
}

#[tokio::test]
async fn sockets_of_udp_are_joined_with_their_translations() {
    needs_root!();
    let network = Network::new();
    network.balance("oifname to-s masquerade\n");
    let _inhabitants = ["c", "s"].map(|part| network.inhabit(part));
    let mut world = World::start(&network);
    let (client, router, service) = (network.client(), network.router(), network.service());
    let servers = network.servers();
    let sockets = network.within("s", || servers.clone().map(|address| UdpSocket::bind((address, SERVER_PORT)).unwrap()));
    // One socket for each server; the answers come from the service's address.
    let clients: Vec<UdpSocket> = network.within("c", || (0..2).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect());
    for socket in &clients {
        socket.connect((service.as_str(), SERVICE_PORT)).unwrap();
        socket.send(b"question").unwrap();
    }
    for socket in &sockets {
        let (_, from) = socket.recv_from(&mut [0; 16]).unwrap();
        socket.send_to(b"answer", from).unwrap();
    }
    for socket in &clients {
        assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 6);
    }
    let expected = servers.each_ref().map(|server| format!("1 to {server}:{SERVER_PORT} as {router}"));
    world.until("both servers", |world| world.ways(Direction::Client, &service) == expected).await;
    for server in &servers {
        let meant = format!("1 to {server}:{SERVER_PORT} as {router} of {client} for {service}:{SERVICE_PORT}");
        world.until("the client and the service", |world| world.ways(Direction::Server, server) == [meant.clone()]).await;
    }
}

#[tokio::test]
async fn connections_from_before_the_probe_are_found() {
    needs_root!();
    let network = Network::new();
    network.balance("");
    let _servers = serve(&network);
    let open = connect(&network, &network.service(), SERVICE_PORT, 6);
    drop(connect(&network, &network.service(), SERVICE_PORT, 4));
    let mut world = World::start_with(config(&network));
    let (client, service) = (network.client(), network.service());
    world.until("translations", |world| world.builder.flows().translations().len() == 3).await;
    let Observation::FlowSeen { at, end, client_port, original_server, .. } = udp_end(Direction::Client, &client, &service, SERVICE_PORT)
    else {
        unreachable!()
    };
    let end = FlowEnd { protocol: Protocol::Tcp, ..end };
    world.observe(Observation::FlowSeen { at, end, client_port, original_server, found_open: true });
    let expected = network.servers().map(|server| format!("5 to {server}:{SERVER_PORT}"));
    world.until("both backends", |world| world.ways(Direction::Client, &service) == expected).await;
    drop(open);
}

#[tokio::test]
async fn what_does_not_fit_into_the_socket_s_buffer_is_counted_and_found_again() {
    needs_root!();
    let network = Network::new();
    network.balance("");
    // Room for a few events, and a reader that is late.
    let tiny = Config { receive_bytes: 4_096, gather: Duration::from_millis(500), ..config(&network) };
    let mut world = World::start_with(tiny);
    let service = network.service();
    world.observe(udp_end(Direction::Client, &network.client(), &service, SERVICE_PORT));
    send(&network, &service, 2, 1_000);
    world.until("the first two", |world| world.ways(Direction::Client, &service).len() == 2).await;
    send(&network, &service, 998, 5_000);
    let expected = network.servers().map(|server| format!("500 to {server}:{SERVER_PORT}"));
    world.until("all", |world| world.ways(Direction::Client, &service) == expected).await;
    let overruns = world.telemetry.metrics().conntrack_overruns.get();
    assert!(overruns > 0, "the buffer was too large for this test");
    assert_eq!(world.builder.losses().other.get("conntrack"), Some(&overruns));
    // What is found again is not counted again.
    send(&network, &service, 200, 5_000);
    let expected = network.servers().map(|server| format!("600 to {server}:{SERVER_PORT}"));
    world.until("the rest", |world| world.ways(Direction::Client, &service) == expected).await;
}

#[tokio::test]
async fn a_full_table_refuses_connections_and_the_probe_goes_on_when_there_is_room() {
    needs_root!();
    let network = Network::new();
    network.balance("");
    let mut world = World::start(&network);
    let _servers = serve(&network);
    let service = network.service();
    let expected = |each: u32| network.servers().map(|server| format!("{each} to {server}:{SERVER_PORT}"));
    drop(connect(&network, &service, SERVICE_PORT, 4));
    world.until("the first", |world| world.ways(Direction::Client, &service) == expected(2)).await;
    network.fill();
    let address = std::net::SocketAddr::new(service.parse().unwrap(), SERVICE_PORT);
    let refused = network.within("c", || TcpStream::connect_timeout(&address, Duration::from_millis(1_500)));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    world.until("what failed", |world| world.flow(Direction::Client, &service).unwrap().counters.as_ref().unwrap().failed == 1).await;
    assert_eq!(world.ways(Direction::Client, &service), expected(2));
    network.flush();
    drop(connect(&network, &service, SERVICE_PORT, 4));
    world.until("the rest", |world| world.ways(Direction::Client, &service) == expected(4)).await;
    assert_eq!(world.telemetry.metrics().conntrack_overruns.get(), 0);
}

#[tokio::test]
async fn a_port_that_is_used_again_is_another_connection() {
    needs_root!();
    let network = Network::new();
    network.balance("");
    let service = network.service();
    let expected = |each: u32| network.servers().map(|server| format!("{each} to {server}:{SERVER_PORT}"));
    // Of what begins while the table is looked at nobody can tell whether it is the same: the look has to be over.
    send(&network, &service, 2, 1_000);
    let mut world = World::start_with(config(&network));
    world.observe(udp_end(Direction::Client, &network.client(), &service, SERVICE_PORT));
    world.until("what was there before", |world| world.ways(Direction::Client, &service) == expected(1)).await;
    send(&network, &service, 2, 1_000);
    world.until("the first two", |world| world.ways(Direction::Client, &service) == expected(2)).await;
    let socket = network.within("c", || UdpSocket::bind("0.0.0.0:0").unwrap());
    for each in 3..8 {
        for _ in 0..2 {
            network.flush();
            socket.send_to(&[1], (service.as_str(), SERVICE_PORT)).unwrap();
            network.until_tracked();
        }
        world.until("one more on each", |world| world.ways(Direction::Client, &service) == expected(each)).await;
    }
}

#[tokio::test]
async fn connections_that_are_not_translated_do_not_reach_the_probe() {
    needs_root!();
    let network = Arc::new(Network::new());
    network.balance("");
    let mut world = World::start_with(config(&network));
    let [first, _] = network.servers();
    send(&network, &network.service(), 2, 1_000);
    world.until("the translated ones", |world| world.builder.flows().translations().len() == 3).await;
    let events = world.telemetry.metrics().conntrack_events.get();
    let before = cpu();
    send_beside(&network, &first, 20_000, 10_000).await;
    eprintln!("10,000 connections a second that are not translated, for 2 s: {:?}", cpu() - before);
    assert_eq!(world.telemetry.metrics().conntrack_events.get(), events);
    let before = cpu();
    send_beside(&network, &network.service(), 2_000, 1_000).await;
    world.until("the translated ones", |world| world.telemetry.metrics().conntrack_events.get() >= events + 2_000).await;
    eprintln!("1,000 translated connections a second, for 2 s, with the tables: {:?}", cpu() - before);
    assert_eq!(world.builder.losses().other.get("conntrack"), None);
}

#[tokio::test]
async fn nothing_is_listened_to_before_something_is_tracked() {
    needs_root!();
    let network = Network::new();
    let _servers = serve(&network);
    let mut world = World::start_with(config(&network));
    let [first, _] = network.servers();
    drop(connect(&network, &first, SERVER_PORT, 5));
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(listeners(&network), 0);
    network.balance("");
    drop(connect(&network, &network.service(), SERVICE_PORT, 4));
    world.until("translations", |world| world.builder.flows().translations().len() == 3).await;
    assert_eq!(listeners(&network), 1);
    assert!(world.inputs.try_recv().is_err(), "there is nothing that it could not see");
}

#[tokio::test]
async fn without_connection_tracking_the_probe_says_so_and_tries_again() {
    needs_root!();
    let network = Network::new();
    network.balance("");
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("namespace");
    let mut world = World::start_with(Config { namespace: Some(missing.clone()), ..config(&network) });
    let told = tokio::time::timeout(Duration::from_secs(10), world.inputs.recv()).await.unwrap();
    assert!(matches!(&told, Some(Input::BlindSpot { cause: "conntrack", sentence: Some(it) }) if it.contains("No such file")), "{told:?}");
    // It is not said again.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(world.inputs.try_recv().is_err());
    std::os::unix::fs::symlink(network.file("r"), &missing).unwrap();
    let told = tokio::time::timeout(Duration::from_secs(10), world.inputs.recv()).await.unwrap();
    assert!(matches!(told, Some(Input::BlindSpot { cause: "conntrack", sentence: None })), "{told:?}");
    send(&network, &network.service(), 2, 1_000);
    world.until("translations", |world| world.builder.flows().translations().len() == 3).await;
}

/// Sends from another thread, while the probe runs on this one.
async fn send_beside(network: &Arc<Network>, address: &str, count: u32, per_second: u32) {
    let (network, address) = (network.clone(), address.to_owned());
    tokio::task::spawn_blocking(move || send(&network, &address, count, per_second)).await.unwrap();
}

/// CPU time of this thread: the probe's, and the test's own.
fn cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD).unwrap();
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    Duration::from_micros((micros(usage.user_time()) + micros(usage.system_time())).try_into().unwrap())
}

/// Sockets in the router that have joined a multicast group of netfilter.
fn listeners(network: &Network) -> usize {
    let table = network.within("r", || std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap());
    let joined = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    joined.filter(|fields| fields.get(1) == Some(&"12") && fields.get(3).is_some_and(|groups| *groups != "00000000")).count()
}
