//! Sockets that wait: told when they begin and when they end, whoever holds them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use orchestrator_probe::ebpf::{Seed, SeedRole};
use orchestrator_probe::observation::{ListenerOpened, Observation, Protocol};

use crate::harness::{self, Child, Watch, config, needs_root};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn opened(watch: &Watch, protocol: Protocol, port: u16) -> Vec<ListenerOpened> {
    let all = watch.seen.iter().filter_map(|it| if let Observation::ListenerOpened(opened) = it { Some(*opened) } else { None });
    all.filter(|it| it.protocol == protocol && it.port == port).collect()
}

fn closed(watch: &Watch, socket: u64) -> usize {
    watch.seen.iter().filter(|it| matches!(it, Observation::ListenerClosed { socket: ended, .. } if *ended == socket)).count()
}

fn cookie(socket: &impl AsFd) -> u64 {
    #[derive(Clone, Copy, Debug)]
    struct SocketCookie;
    nix::getsockopt_impl!(SocketCookie, libc::SOL_SOCKET, libc::SO_COOKIE, u64, nix::sys::socket::sockopt::GetStruct<u64>);
    nix::sys::socket::getsockopt(socket, SocketCookie).expect("a cookie")
}

#[track_caller]
fn is_ours(listener: &ListenerOpened) {
    assert_eq!(listener.pid, std::process::id());
    assert_eq!(listener.start_time, Some(harness::start_time(std::process::id())));
    assert!(listener.cgroup_id != 0 && listener.network_namespace != 0);
}

#[test]
fn a_tcp_listener_is_told_from_its_listen_to_its_end() {
    needs_root!();
    let mut watch = Watch::start(&config());
    for address in [V4, Ipv6Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
        let listener = TcpListener::bind((address, 0)).expect("bind");
        let (port, socket) = (listener.local_addr().expect("address").port(), cookie(&listener));
        watch.until("it listens", |watch| !opened(watch, Protocol::Tcp, port).is_empty());
        let told = opened(&watch, Protocol::Tcp, port);
        assert_eq!(told.len(), 1);
        is_ours(&told[0]);
        assert_eq!((told[0].address, told[0].socket), (address, socket));
        // What it accepts has ends of its own.
        let to = if address.is_ipv4() { V4 } else { Ipv6Addr::LOCALHOST.into() };
        for _ in 0..3 {
            let client = TcpStream::connect((to, port)).expect("connect");
            drop(listener.accept().expect("accept"));
            drop(client);
        }
        std::thread::sleep(Duration::from_millis(50));
        watch.take();
        assert_eq!(closed(&watch, socket), 0);
        drop(listener);
        watch.until("its end", |watch| closed(watch, socket) == 1);
    }
    std::thread::sleep(Duration::from_millis(50));
    watch.take();
    let ends: Vec<u64> = opened_by_us(&watch).iter().map(|it| it.socket).collect();
    assert!(ends.iter().all(|socket| closed(&watch, *socket) == 1));
}

fn opened_by_us(watch: &Watch) -> Vec<ListenerOpened> {
    let all = watch.seen.iter().filter_map(|it| if let Observation::ListenerOpened(opened) = it { Some(*opened) } else { None });
    all.filter(|it| it.pid == std::process::id()).collect()
}

#[test]
fn a_listener_that_is_shut_down_ends_and_may_begin_again() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let listener = TcpListener::bind((V4, 0)).expect("bind");
    let socket = cookie(&listener);
    nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).expect("shut down");
    watch.until("its end", |watch| closed(watch, socket) == 1);
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).expect("small")).expect("listen");
    // On another port: the first was the kernel's to take back.
    watch.until("its second life", |watch| opened_by_us(watch).iter().filter(|it| it.socket == socket).count() == 2);
    drop(listener);
    watch.until("its second end", |watch| closed(watch, socket) == 2);
}

#[test]
fn a_listener_belongs_to_the_process_that_bound_it() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let mut server = Child::serve();
    let port = server.port();
    watch.until("it listens", |watch| !opened(watch, Protocol::Tcp, port).is_empty());
    let told = opened(&watch, Protocol::Tcp, port)[0];
    assert_eq!((told.pid, told.start_time), (server.pid(), Some(harness::start_time(server.pid()))));
    drop(server);
    watch.until("its end", |watch| closed(watch, told.socket) == 1);
}

#[test]
fn a_udp_socket_on_a_port_of_its_choice_is_a_listener_at_once() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).expect("small");
    for address in [V4, Ipv6Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
        let server = (first..).find_map(|port| UdpSocket::bind((address, port)).ok()).expect("a free port");
        let (port, socket) = (server.local_addr().expect("address").port(), cookie(&server));
        let told = |watch: &Watch| opened(watch, Protocol::Udp, port).into_iter().find(|it| it.socket == socket);
        watch.until("it waits", |watch| told(watch).is_some());
        let listener = told(&watch).expect("just seen");
        is_ours(&listener);
        assert_eq!(listener.address, address);
        drop(server);
        watch.until("its end", |watch| closed(watch, socket) == 1);
    }
}

#[test]
fn a_udp_socket_on_any_port_is_a_listener_when_it_serves() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let (server, client) = (UdpSocket::bind((V4, 0)).expect("bind"), UdpSocket::bind((V4, 0)).expect("bind"));
    let port = |socket: &UdpSocket| socket.local_addr().expect("address").port();
    client.send_to(&[1], server.local_addr().expect("address")).expect("send");
    let (_, asker) = server.recv_from(&mut [0]).expect("receive");
    server.send_to(&[2], asker).expect("send");
    client.recv_from(&mut [0]).expect("receive");
    watch.until("it serves", |watch| opened(watch, Protocol::Udp, port(&server)).len() == 1);
    is_ours(&opened(&watch, Protocol::Udp, port(&server))[0]);
    assert!(opened(&watch, Protocol::Udp, port(&client)).is_empty());
    let socket = cookie(&server);
    drop(server);
    watch.until("its end", |watch| closed(watch, socket) == 1);
}

#[test]
fn the_end_of_a_listener_that_is_older_than_the_programs_is_told() {
    needs_root!();
    let tcp = [0; 2].map(|_| TcpListener::bind((V4, 0)).expect("bind"));
    let udp = [0; 2].map(|_| UdpSocket::bind((V4, 0)).expect("bind"));
    let cookies = [cookie(&tcp[0]), cookie(&tcp[1]), cookie(&udp[0]), cookie(&udp[1])];
    let mut watch = Watch::start(&config());
    // Of each kind one whose owner is told to the programs, and one that nobody knows.
    let pid = std::process::id();
    let seeded = watch.running.seeder().seed([
        Seed { pid, fd: tcp[0].as_raw_fd(), role: SeedRole::Listener },
        Seed { pid, fd: udp[0].as_raw_fd(), role: SeedRole::DatagramListener },
    ]);
    assert_eq!(seeded.written, 2);
    drop((tcp, udp));
    watch.until("their ends", |watch| cookies.iter().all(|socket| closed(watch, *socket) == 1));
}

#[test]
fn those_that_listen_are_found_by_looking_and_others_are_not() {
    needs_root!();
    let watch = Watch::start(&config());
    let listener = TcpListener::bind((V4, 0)).expect("bind");
    let server = (20_000..).find_map(|port| UdpSocket::bind((V4, port)).ok()).expect("a free port");
    let cookies = [cookie(&listener), cookie(&server)];
    let there = || {
        let told = watch.running.looker().listeners().expect("the kernel tells").expect("listeners");
        let of_us = |it: &Observation| matches!(it, Observation::ListenerOpened(opened) if cookies.contains(&opened.socket) && opened.pid == std::process::id());
        told.iter().filter(|it| of_us(it)).count()
    };
    assert_eq!(there(), 2);
    drop((listener, server));
    // The kernel keeps what is left of a socket for a moment.
    let ended = std::time::Instant::now();
    while there() > 0 {
        assert!(ended.elapsed() < Duration::from_secs(10), "{} are there", there());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[expect(unsafe_code, reason = "the protocol has no name in the library")]
fn socket_of_mptcp() -> Option<TcpListener> {
    // SAFETY: takes numbers alone.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_MPTCP) };
    // SAFETY: just made, and nobody else's.
    (socket >= 0).then(|| TcpListener::from(unsafe { OwnedFd::from_raw_fd(socket) }))
}

/// As servers written in Go listen, though nearly nobody connects by it.
#[test]
fn a_listener_of_mptcp_that_is_older_than_the_programs_is_found_with_its_holder() {
    needs_root!();
    let Some(listener) = socket_of_mptcp() else {
        eprintln!("this kernel has no MPTCP: nothing was tested");
        return;
    };
    nix::sys::socket::bind(listener.as_raw_fd(), &nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, 0)).expect("bind");
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(8).expect("small")).expect("listen");
    let port = listener.local_addr().expect("address").port();
    let mut watch = Watch::start(&config());
    let found = || {
        let sockets = watch.running.looker().sockets().expect("the kernel tells").expect("sockets");
        let found = sockets.tables.iter().flat_map(|table| &table.sockets).find(|it| it.is_listener() && it.local.1 == port);
        found.map(|it| (it.protocol, it.local.0, it.cookie, sockets.holders.get(it.inode).map(|(pid, _)| pid)))
    };
    assert!(matches!(found(), Some((Protocol::Tcp, V4, _, Some(pid))) if pid == std::process::id()), "{:?}", found());
    // Whoever lists sockets gives them numbers.
    let procfs = std::sync::Arc::new(orchestrator_probe::procfs::Procfs::new("/proc", orchestrator_probe::procfs::Arguments::Show));
    orchestrator_probe::snapshot::Sockets::read(&procfs).expect("sock_diag");
    let socket = found().map_or(0, |it| it.2);
    assert_ne!(socket, 0);
    drop(listener);
    watch.until("its end", |watch| closed(watch, socket) >= 1);
}
