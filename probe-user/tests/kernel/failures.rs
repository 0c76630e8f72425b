//! Connects that come to nothing: each is a failure of its client, and no connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use orchestrator_probe::observation::Direction;

use crate::harness::{Watch, config, needs_root};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

#[track_caller]
fn failed_once(watch: &mut Watch, port: u16, server: IpAddr) {
    watch.until("failure", |watch| watch.total(port, Direction::Client).failed == 1);
    let flows = watch.flows(port, Direction::Client);
    assert_eq!(flows.len(), 1, "{flows:#?}");
    assert_eq!(flows[0].0.pid, std::process::id());
    assert_eq!(flows[0].0.server_address, server);
    assert_eq!((flows[0].1.opened, flows[0].1.closed), (0, 0));
    assert!(watch.flows(port, Direction::Server).is_empty());
}

#[test]
fn a_refused_connection_is_a_failure_of_its_client_and_no_connection() {
    needs_root!();
    let mut watch = Watch::start(&config());
    for address in [V4, V6] {
        let port = TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr()).expect("a free port").port();
        TcpStream::connect((address, port)).expect_err("nobody listens");
        failed_once(&mut watch, port, address);
    }
    watch.lost_nothing();
}

/// Runs on a thread in a network namespace of its own, with an interface that takes everything and gives nothing back.
fn in_a_hole(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let run = |arguments: &[&str]| {
            let output = Command::new("ip").args(arguments).output().expect("ip");
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        };
        run(&["link", "add", "hole0", "type", "veth", "peer", "name", "hole1"]);
        run(&["address", "add", "198.51.100.1/24", "dev", "hole0"]);
        run(&["link", "set", "hole0", "up"]);
        run(&["link", "set", "hole1", "up"]);
        run(&["link", "set", "lo", "up"]);
        // So that a packet leaves without an answer to who has that address.
        run(&["neighbour", "add", "198.51.100.2", "lladdr", "02:00:00:00:00:02", "dev", "hole0"]);
        std::fs::write("/proc/thread-self/net/../../sys/net/ipv4/tcp_syn_retries", "1")
            .or_else(|_| std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1"))
            .expect("few retries");
        work();
    })
    .join()
    .expect("the other namespace");
}

#[test]
fn a_connect_that_times_out_in_the_kernel_is_a_failure() {
    needs_root!();
    let mut watch = Watch::start(&config());
    in_a_hole(|| {
        let error = TcpStream::connect(("198.51.100.2", 47_101)).expect_err("nobody answers");
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
    });
    failed_once(&mut watch, 47_101, "198.51.100.2".parse().expect("an address"));
}

#[test]
fn a_connect_that_its_process_gives_up_is_a_failure() {
    needs_root!();
    let mut watch = Watch::start(&config());
    in_a_hole(|| {
        let server: SocketAddr = "198.51.100.2:47102".parse().expect("an address");
        TcpStream::connect_timeout(&server, Duration::from_millis(100)).expect_err("nobody answers");
    });
    failed_once(&mut watch, 47_102, "198.51.100.2".parse().expect("an address"));
}

#[test]
fn a_connect_to_a_host_that_is_not_there_is_a_failure() {
    needs_root!();
    let mut watch = Watch::start(&config());
    in_a_hole(|| {
        // Nobody says who has this address: the kernel answers itself that the host cannot be reached.
        TcpStream::connect(("198.51.100.9", 47_103)).expect_err("nobody is there");
    });
    failed_once(&mut watch, 47_103, "198.51.100.9".parse().expect("an address"));
}

#[test]
fn a_connect_without_a_route_is_a_failure() {
    needs_root!();
    let mut watch = Watch::start(&config());
    in_a_hole(|| {
        let error = TcpStream::connect(("203.0.113.7", 47_104)).expect_err("no route");
        assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable, "{error}");
    });
    // It never had an address of its own.
    failed_once(&mut watch, 47_104, "203.0.113.7".parse().expect("an address"));
}
