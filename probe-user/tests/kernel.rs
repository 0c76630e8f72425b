//! Capture on the real kernel: what is done here is what is observed, exactly.
//!
//! Needs root and a build with kernel programs. Without root the tests say so and pass on a developer's machine; in CI they fail.

#[path = "kernel/failures.rs"]
mod failures;
#[path = "kernel/harness.rs"]
mod harness;
#[path = "kernel/listeners.rs"]
mod listeners;
#[path = "kernel/out_of_memory.rs"]
mod out_of_memory;
#[path = "kernel/reused.rs"]
mod reused;
#[path = "kernel/udp.rs"]
mod udp;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use harness::{Child, Watch, config, needs_root, with_owner};
use orchestrator_probe::ebpf::{Config, Seed, SeedRole};
use orchestrator_probe::observation::{Counted, Direction, Observation};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// One exchange: the client sends, shuts down, and reads what the server answers.
fn exchange(listener: &TcpListener, server: SocketAddr, up: usize, down: usize) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = TcpStream::connect(server).expect("connect");
            client.write_all(&vec![1; up]).expect("send");
            client.shutdown(Shutdown::Write).expect("shut down");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).expect("receive");
            assert_eq!(answer.len(), down);
        });
        let (mut accepted, _) = listener.accept().expect("accept");
        let mut request = Vec::new();
        accepted.read_to_end(&mut request).expect("receive");
        assert_eq!(request.len(), up);
        accepted.write_all(&vec![2; down]).expect("send");
    });
}

fn both_ends_are_exact(bind: IpAddr, connect: IpAddr, seen_as: IpAddr) {
    needs_root!();
    exact_with(&config(), bind, connect, seen_as);
}

fn exact_with(config: &Config, bind: IpAddr, connect: IpAddr, seen_as: IpAddr) {
    let mut watch = Watch::start(config);
    let listener = TcpListener::bind((bind, 0)).expect("bind");
    let port = listener.local_addr().expect("address").port();
    for (up, down) in [(0, 0), (1, 1), (100_000, 7), (3, 1_234_567)] {
        exchange(&listener, SocketAddr::new(connect, port), up, down);
    }
    let (up, down) = (100_004, 1_234_575);
    watch.until("both ends closed", |watch| {
        watch.total(port, Direction::Client).closed == 4 && watch.total(port, Direction::Server).closed == 4
    });
    for (direction, sent, received) in [(Direction::Client, up, down), (Direction::Server, down, up)] {
        let flows = watch.flows(port, direction);
        assert_eq!(flows.len(), 1, "one flow for one pair of hosts: {flows:?}");
        let (end, total) = &flows[0];
        assert_eq!((end.client_address, end.server_address), (seen_as, seen_as));
        assert_eq!(end.pid, std::process::id());
        assert_eq!(end.start_time, Some(harness::start_time(std::process::id())));
        assert_ne!(end.network_namespace, 0);
        assert_eq!((total.opened, total.closed, total.failed), (4, 4, 0));
        assert_eq!((total.bytes_sent, total.bytes_received), (sent, received), "{direction:?}");
        // One at each close, and one more for each sweep that met a connection while it was open.
        let sweeps = config.sweep_interval < Duration::from_secs(60);
        // Of connections that end within one step of the kernel's clock one is enough.
        assert!((1..=4).contains(&total.rtt_count) || sweeps && total.rtt_count > 0, "{total:?}");
        assert!(total.rtt_us_max > 0 && total.rtt_us_sum > 0);
    }
    assert!(watch.seen.iter().any(|it| matches!(it, Observation::FlowSeen { end, found_open: false, client_port, .. }
        if end.server_port == port && *client_port != 0)));
    watch.lost_nothing();
}

#[test]
fn both_ends_of_an_ipv4_connection_are_exact() {
    both_ends_are_exact(V4, V4, V4);
}

#[test]
fn both_ends_of_an_ipv6_connection_are_exact() {
    both_ends_are_exact(V6, V6, V6);
}

#[test]
fn an_ipv4_client_of_a_dual_stack_server_is_ipv4_on_both_ends() {
    both_ends_are_exact(IpAddr::V6(Ipv6Addr::UNSPECIFIED), V4, V4);
}

#[test]
fn an_ipv4_mapped_destination_is_ipv4() {
    both_ends_are_exact(IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()), V4);
}

#[test]
fn the_programs_for_kernels_without_atomic_exchange_see_the_same() {
    needs_root!();
    let config = Config { plain_programs: true, sweep_interval: Duration::from_secs(3_600), ..config() };
    exact_with(&config, V4, V4, V4);
    exact_with(&config, V6, V6, V6);
}

#[test]
fn every_way_to_end_a_connection_leaves_exact_bytes() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let listener = TcpListener::bind((V4, 0)).expect("bind");
    let address = listener.local_addr().expect("address");
    let pair = || {
        let client = TcpStream::connect(address).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        (client, server)
    };
    let say = |from: &mut TcpStream, to: &mut TcpStream, count: usize| {
        from.write_all(&vec![0; count]).expect("send");
        to.read_exact(&mut vec![0; count]).expect("receive");
    };
    // The client goes first, and nobody holds its socket while the server still talks of nothing: an orphan in FIN_WAIT2.
    let (mut client, mut server) = pair();
    say(&mut client, &mut server, 10);
    drop(client);
    std::thread::sleep(Duration::from_millis(20));
    drop(server);
    // The server goes first.
    let (mut client, mut server) = pair();
    say(&mut server, &mut client, 20);
    drop(server);
    std::thread::sleep(Duration::from_millis(20));
    drop(client);
    // Half closed: bytes come in FIN_WAIT2, and the client leaves before the server ends.
    let (mut client, mut server) = pair();
    client.shutdown(Shutdown::Write).expect("shut down");
    std::thread::sleep(Duration::from_millis(20));
    say(&mut server, &mut client, 40);
    drop(client);
    drop(server);
    // Reset: the client has not read what the server sent.
    let (client, mut server) = pair();
    server.write_all(&[0; 80]).expect("send");
    std::thread::sleep(Duration::from_millis(20));
    drop(client);
    drop(server);
    let port = address.port();
    watch.until("both ends closed", |watch| {
        watch.total(port, Direction::Client).closed == 4 && watch.total(port, Direction::Server).closed == 4
    });
    let (client, server) = (watch.total(port, Direction::Client), watch.total(port, Direction::Server));
    assert_eq!((client.bytes_sent, client.bytes_received), (10, 140));
    assert_eq!((server.bytes_sent, server.bytes_received), (140, 10));
    watch.lost_nothing();
}

#[test]
fn equal_addresses_of_two_network_namespaces_are_told_apart() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let port = 47_001;
    let once = move || {
        let listener = TcpListener::bind((V4, port)).expect("bind");
        exchange(&listener, (V4, port).into(), 5, 6);
    };
    once();
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip");
        assert!(up.success());
        once();
    })
    .join()
    .expect("the other namespace");
    watch.until("both namespaces", |watch| {
        watch.total(port, Direction::Client).closed == 2 && watch.total(port, Direction::Server).closed == 2
    });
    let namespaces = |direction| {
        let mut namespaces: Vec<_> = watch.flows(port, direction).iter().map(|(end, _)| end.network_namespace).collect();
        namespaces.sort_unstable();
        namespaces
    };
    let clients = namespaces(Direction::Client);
    assert_eq!(clients.len(), 2);
    assert_ne!(clients[0], clients[1]);
    assert_eq!(clients, namespaces(Direction::Server));
    watch.lost_nothing();
}

#[test]
fn the_accepting_end_belongs_to_the_process_that_listens() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let mut server = Child::serve();
    let port = server.port();
    let mut client = TcpStream::connect((V4, port)).expect("connect");
    client.write_all(&[7; 1_000]).expect("send");
    drop(client);
    watch.until("both ends closed", |watch| {
        watch.total(port, Direction::Client).closed == 1 && watch.total(port, Direction::Server).closed == 1
    });
    let server_end = watch.flows(port, Direction::Server)[0].0;
    assert_eq!(server_end.pid, server.pid());
    assert_eq!(server_end.start_time, Some(harness::start_time(server.pid())));
    assert_eq!(watch.flows(port, Direction::Client)[0].0.pid, std::process::id());
    assert_eq!(watch.total(port, Direction::Server).bytes_received, 1_000);
}

#[test]
fn a_process_that_connects_and_exits_at_once_is_known_by_its_connection() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let listener = TcpListener::bind((V4, 0)).expect("bind");
    let port = listener.local_addr().expect("address").port();
    let pid = Child::connect_and_exit(port);
    watch.until("its connection and its end", |watch| {
        !watch.flows(port, Direction::Client).is_empty()
            && watch.seen.iter().any(|it| matches!(it, Observation::ProcessExited { pid: exited, .. } if *exited == pid))
    });
    let end = watch.flows(port, Direction::Client)[0].0;
    assert_eq!(end.pid, pid);
    let mut story = Vec::new();
    let mut starts = Vec::new();
    for observation in &watch.seen {
        match observation {
            Observation::ProcessStarted(started) if started.pid == pid => {
                assert_eq!(started.parent_pid, std::process::id());
                story.push("started");
                starts.push(started.start_time);
            }
            Observation::ProcessExecuted { pid: executed, start_time, comm, .. } if *executed == pid => {
                assert!(comm.starts_with("kernel"), "{comm}");
                story.push("executed");
                starts.push(*start_time);
            }
            Observation::ProcessExited { pid: exited, start_time, status, .. } if *exited == pid => {
                assert_eq!(*status, 0);
                story.push("exited");
                starts.push(*start_time);
            }
            _ => {}
        }
    }
    assert_eq!(story, ["started", "executed", "exited"]);
    assert!(starts.iter().all(|start| start.is_some() && *start == end.start_time), "{starts:?} {end:?}");
    watch.lost_nothing();
}

#[test]
fn an_exit_status_is_told_and_threads_are_no_processes() {
    needs_root!();
    let mut watch = Watch::start(&config());
    std::thread::spawn(|| {}).join().expect("a thread");
    let mut child = std::process::Command::new("sh").args(["-c", "exit 3"]).spawn().expect("sh");
    let pid = child.id();
    child.wait().expect("its end");
    watch.until("its end", |watch| {
        watch.seen.iter().any(|it| matches!(it, Observation::ProcessExited { pid: exited, .. } if *exited == pid))
    });
    assert!(watch.seen.iter().any(|it| matches!(it, Observation::ProcessExited { pid: exited, status: 768, .. } if *exited == pid)));
    let own = std::process::id();
    assert!(!watch.seen.iter().any(|it| matches!(it, Observation::ProcessExited { pid, .. } if *pid == own)));
}

#[test]
fn a_cgroup_is_seen_from_its_making_to_its_removal() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let path = format!("/kernel-test-{}", std::process::id());
    let directory = harness::cgroup_root().join(&path[1..]);
    std::fs::create_dir(&directory).expect("a cgroup");
    let id = std::fs::metadata(&directory).expect("its directory").ino();
    let mut server = Child::serve();
    std::fs::write(directory.join("cgroup.procs"), server.pid().to_string()).expect("moved");
    let mut inside = Child::serve_in(&directory);
    let port = inside.port();
    drop(TcpStream::connect((V4, port)).expect("connect"));
    watch.until("a connection in the cgroup", |watch| watch.total(port, Direction::Server).closed == 1);
    assert_eq!(watch.flows(port, Direction::Server)[0].0.cgroup_id, id);
    let moved = server.pid();
    drop((server.port(), server, inside));
    std::fs::remove_dir(&directory).expect("removed");
    watch.until("its removal", |watch| {
        watch.seen.iter().any(|it| matches!(it, Observation::CgroupRemoved { id: removed, .. } if *removed == id))
    });
    assert!(watch.seen.iter().any(|it| matches!(it, Observation::CgroupCreated { id: made, path: at, .. } if *made == id && *at == path)));
    assert!(watch.seen.iter().any(|it| matches!(it, Observation::CgroupAttached { pid, cgroup_id, path: at, .. }
        if *pid == moved && *cgroup_id == id && *at == path)));
    assert!(watch.seen.iter().any(|it| matches!(it, Observation::ProcessExited { pid, .. } if *pid == moved)));
}

#[test]
fn ten_thousand_connections_from_four_threads_are_all_counted() {
    needs_root!();
    const EACH: u64 = 2_500;
    let mut watch = Watch::start(&config());
    let statistics = orchestrator_probe::ebpf::Statistics::enable().expect("measuring");
    let before = watch.cost();
    let listeners: Vec<_> = (0..4).map(|_| TcpListener::bind((V4, 0)).expect("bind")).collect();
    let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().expect("address").port()).collect();
    std::thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(move || {
                let address = listener.local_addr().expect("address");
                for _ in 0..EACH {
                    let mut client = TcpStream::connect(address).expect("connect");
                    let (mut server, _) = listener.accept().expect("accept");
                    client.write_all(&[0; 3]).expect("send");
                    server.read_exact(&mut [0; 3]).expect("receive");
                    // The server goes first, so that the client's port is free at once.
                    drop(server);
                    drop(client);
                }
            });
        }
    });
    watch.until("all of them closed", |watch| {
        ports.iter().all(|&port| [Direction::Client, Direction::Server].iter().all(|&end| watch.total(port, end).closed >= EACH))
    });
    let cost = watch.cost() - before;
    drop(statistics);
    for port in ports {
        for (direction, sent, received) in [(Direction::Client, 3 * EACH, 0), (Direction::Server, 0, 3 * EACH)] {
            let total = watch.total(port, direction);
            assert_eq!((total.opened, total.closed, total.failed), (EACH, EACH, 0), "{direction:?}");
            assert_eq!((total.bytes_sent, total.bytes_received), (sent, received), "{direction:?}");
            assert!(watch.flows(port, direction).iter().all(|(end, _)| end.pid == std::process::id()));
        }
    }
    watch.lost_nothing();
    let per_end = cost / (8 * u32::try_from(EACH).expect("small"));
    // Stated, never judged: a test machine is busy, or emulated. `cargo xtask bench probe` has the target.
    println!("in-kernel cost per connection end: {per_end:?}");
}

#[test]
fn a_table_that_is_full_loses_no_count() {
    needs_root!();
    let mut watch = Watch::start(&Config { edges_max: 16, ..config() });
    let listeners: Vec<_> = (0..64).map(|_| TcpListener::bind((V4, 0)).expect("bind")).collect();
    for listener in &listeners {
        exchange(listener, listener.local_addr().expect("address"), 11, 13);
    }
    let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().expect("address").port()).collect();
    watch.until("all of them closed", |watch| {
        ports.iter().all(|&port| watch.total(port, Direction::Client).closed == 1 && watch.total(port, Direction::Server).closed == 1)
    });
    for &port in &ports {
        let server = watch.total(port, Direction::Server);
        assert_eq!((server.opened, server.bytes_sent, server.bytes_received), (1, 13, 11));
    }
    watch.lost_nothing();
}

#[test]
fn bytes_of_an_open_connection_are_counted_while_it_is_open_and_not_again_at_its_end() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let listener = TcpListener::bind((V4, 0)).expect("bind");
    let address = listener.local_addr().expect("address");
    let port = address.port();
    let mut client = TcpStream::connect(address).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");
    client.write_all(&[0; 5_000]).expect("send");
    server.read_exact(&mut [0; 5_000]).expect("receive");
    watch.until("its bytes", |watch| {
        watch.total(port, Direction::Client).bytes_sent == 5_000 && watch.total(port, Direction::Server).bytes_received == 5_000
    });
    assert_eq!(watch.total(port, Direction::Client).closed, 0);
    client.write_all(&[0; 70]).expect("send");
    server.read_exact(&mut [0; 70]).expect("receive");
    drop(client);
    drop(server);
    watch.until("its end", |watch| watch.total(port, Direction::Client).closed == 1 && watch.total(port, Direction::Server).closed == 1);
    assert_eq!(watch.total(port, Direction::Client).bytes_sent, 5_070);
    assert_eq!(watch.total(port, Direction::Server).bytes_received, 5_070);
    watch.lost_nothing();
}

/// Its `connect(2)` was seen and its handshake was not: whoever looks at what is there counts it.
#[test]
fn a_client_that_connects_while_the_programs_are_attached_is_left_to_who_looks() {
    needs_root!();
    let listener = TcpListener::bind((V4, 0)).expect("bind");
    let address = listener.local_addr().expect("address");
    let mut ends = None;
    let mut watch = Watch::start_after(&config(), || {
        let client = TcpStream::connect(address).expect("connect");
        ends = Some((client, listener.accept().expect("accept").0));
    });
    let (mut client, mut server) = ends.expect("connected");
    client.write_all(&[0; 500]).expect("send");
    server.read_exact(&mut [0; 500]).expect("receive");
    // The sweeps that see the bytes of this one have seen the other's.
    let other = TcpListener::bind((V4, 0)).expect("bind");
    let other_port = other.local_addr().expect("address").port();
    let mut counted = TcpStream::connect((V4, other_port)).expect("connect");
    for _ in 0..2 {
        let before = watch.total(other_port, Direction::Client).bytes_sent;
        counted.write_all(&[0; 70]).expect("send");
        watch.until("a sweep", |watch| watch.total(other_port, Direction::Client).bytes_sent > before);
    }
    let open = watch.running.looker().open_ends().expect("the kernel tells").expect("open connections");
    let open_of = |port| {
        open.iter().filter(|(end, _)| end.server_port == port && end.direction == Direction::Client).map(|(_, count)| count).sum::<u64>()
    };
    assert_eq!((open_of(other_port), open_of(address.port())), (1, 0));
    // It ends by a reset: bytes are left that nobody has read.
    client.write_all(&[0; 5]).expect("send");
    drop(server);
    while client.read(&mut [0; 5]).is_ok_and(|read| read > 0) {}
    drop(client);
    drop(counted);
    watch.until("an end", |watch| watch.total(other_port, Direction::Client).closed == 1);
    assert_eq!(watch.total(address.port(), Direction::Client), Counted::default());
}

#[test]
fn sockets_that_are_older_than_the_programs_get_their_owners() {
    needs_root!();
    let listener = TcpListener::bind((V4, 0)).expect("bind");
    let address = listener.local_addr().expect("address");
    let port = address.port();
    let mut old_client = TcpStream::connect(address).expect("connect");
    let (mut old_server, _) = listener.accept().expect("accept");
    old_client.write_all(&[0; 900]).expect("send");
    old_server.read_exact(&mut [0; 900]).expect("receive");
    let mut watch = Watch::start(&config());
    let pid = std::process::id();
    let seed = |fd, role| Seed { pid, fd, role };
    let seeded = watch.running.seeder().seed([
        seed(listener.as_raw_fd(), SeedRole::Listener),
        seed(old_client.as_raw_fd(), SeedRole::ConnectedClient),
        seed(old_server.as_raw_fd(), SeedRole::ConnectedServer),
        seed(-1, SeedRole::Listener),
    ]);
    assert_eq!((seeded.written, seeded.known, seeded.failed), (3, 0, 1));
    let again = watch
        .running
        .seeder()
        .seed([seed(listener.as_raw_fd(), SeedRole::Listener), seed(old_client.as_raw_fd(), SeedRole::ConnectedClient)]);
    assert_eq!((again.written, again.known), (0, 2));
    // What the listener accepts now has an owner.
    exchange(&listener, address, 1, 2);
    watch.until("the new connection", |watch| watch.total(port, Direction::Server).closed == 1);
    assert!(watch.flows(port, Direction::Server).iter().all(|(end, _)| with_owner(end, pid)), "{:?}", watch.flows(port, Direction::Server));
    // The old connection is counted from here on.
    old_client.write_all(&[0; 50]).expect("send");
    old_server.read_exact(&mut [0; 50]).expect("receive");
    watch.until("the bytes of the old one", |watch| watch.total(port, Direction::Client).bytes_sent == 51);
    assert_eq!(watch.total(port, Direction::Server), Counted { closed: 1, ..watch.total(port, Direction::Server) });
    drop(old_client);
    drop(old_server);
    watch.until("the end of the old one", |watch| {
        watch.total(port, Direction::Client).closed == 2 && watch.total(port, Direction::Server).closed == 2
    });
    assert_eq!(watch.total(port, Direction::Client).opened, 1, "the finder counts the old one");
    assert!(watch.flows(port, Direction::Client).iter().all(|(end, _)| with_owner(end, pid)));
}

#[test]
fn what_was_done_before_the_stop_is_delivered_by_the_stop() {
    needs_root!();
    let watch = Watch::start(&Config { interval: Duration::from_secs(3_600), ..config() });
    let listener = TcpListener::bind((V4, 0)).expect("bind");
    let address = listener.local_addr().expect("address");
    exchange(&listener, address, 1, 2);
    assert_eq!(watch.total(address.port(), Direction::Client), Counted::default());
    let watch = watch.stop();
    assert_eq!(watch.total(address.port(), Direction::Client).closed, 1);
    assert_eq!(watch.total(address.port(), Direction::Server).bytes_sent, 2);
}

#[test]
fn every_hook_has_proven_itself() {
    needs_root!();
    let watch = Watch::start(&config());
    let status = watch.running.status();
    assert_eq!(status.rung(), 1, "{status:?}");
    assert!(status.hooks.iter().all(|hook| hook.attached), "{status:?}");
    assert!(status.pids_match && status.reasons.is_empty(), "{status:?}");
    assert_eq!(status.hooks.len(), 28);
}

#[test]
fn the_maps_take_no_more_kernel_memory_than_they_may() {
    needs_root!();
    const MOST: u64 = 8 << 20;
    let watch = Watch::start(&config());
    let meter = watch.running.meter();
    let _statistics = orchestrator_probe::ebpf::Statistics::enable().expect("measuring");
    let listener = TcpListener::bind((V4, 0)).expect("bind");
    drop(TcpStream::connect(listener.local_addr().expect("address")).expect("connect"));
    let reading = meter.read();
    for map in ["edges", "owners", "network_ring", "process_ring", "counters"] {
        assert!(reading.map_bytes.contains_key(map), "{map}: {reading:?}");
    }
    let all: u64 = reading.map_bytes.values().sum();
    println!("{all} bytes: {:?}", reading.map_bytes);
    assert!((1 << 20..=MOST).contains(&all), "{reading:?}");
    let tcp = reading.programs.iter().find(|it| it.name.starts_with("tcp")).expect("the connection program");
    assert!(tcp.run_count > 0 && !tcp.run_time.is_zero(), "{tcp:?}");
}

/// A cgroup program that returns anything else refuses the system call of a user.
#[test]
fn cgroup_programs_return_one_at_every_exit() {
    const EXIT: u8 = 0x95;
    const MOVE_IMMEDIATE: u8 = 0xb7;
    let directory = std::env::var_os("ORCHESTRATOR_BPF_DIR")
        .map_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf"), std::path::PathBuf::from);
    let objects = ["sockets.o", "dns.o"].map(|name| {
        let bytes = std::fs::read(directory.join(name)).expect("cargo xtask build-ebpf makes it");
        aya_obj::Object::parse(&bytes).expect("an object")
    });
    let mut checked = Vec::new();
    let programs = objects.iter().flat_map(|object| object.programs.iter().map(move |(name, program)| (object, name, program)));
    for (object, name, program) in programs.filter(|(_, _, program)| !matches!(program.section, aya_obj::ProgramSection::Iter { .. })) {
        let function = &object.functions[&program.function_key()];
        for (index, instruction) in function.instructions.iter().enumerate().filter(|(_, it)| it.code == EXIT) {
            let before = &function.instructions[index - 1];
            assert!(
                before.code == MOVE_IMMEDIATE && before.dst_reg() == 0 && before.imm == 1,
                "{name}: instruction {index}: {instruction:?}"
            );
        }
        checked.push(name.as_str());
    }
    checked.sort_unstable();
    let programs = [
        "bind4",
        "bind6",
        "connect4",
        "connect6",
        "dns_egress",
        "dns_ingress",
        "getsockname4",
        "getsockname6",
        "post_bind4",
        "post_bind6",
        "recvmsg4",
        "recvmsg6",
        "release",
        "sendmsg4",
        "sendmsg6",
        "tcp",
        "tcp_plain",
    ];
    assert_eq!(checked, programs);
}

/// Not a test by itself: what the other tests start in a process of its own.
#[test]
fn child() {
    harness::child();
}
