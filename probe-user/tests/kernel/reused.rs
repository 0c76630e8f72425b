//! Numbers of processes that the kernel gives again.

use std::net::TcpListener;
use std::time::Duration;

use orchestrator_probe::observation::{Direction, Observation};

use crate::harness::{Child, Watch, config, needs_root};

/// How often another process may be quicker to get the number.
const TRIES: usize = 200;

#[test]
fn a_pid_that_is_given_again_is_another_process() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let port = listener.local_addr().expect("address").port();
    let pid = Child::connect_and_exit(port);
    // Two processes are told apart by their starts, which `/proc` tells in hundredths of a second.
    std::thread::sleep(Duration::from_millis(30));
    let given_again = (0..TRIES).any(|_| {
        // As if all numbers had been given since: the next one is looked for from here.
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("the last number may be set");
        Child::connect_and_exit(port) == pid
    });
    assert!(given_again, "pid {pid} was not given again");
    // Not how often: two threads that end in the same instant may both be taken for the last.
    let exits = |watch: &Watch| {
        let start = |it: &Observation| match it {
            Observation::ProcessExited { pid: exited, start_time, .. } if *exited == pid => Some(*start_time),
            _ => None,
        };
        watch.seen.iter().filter_map(start).collect::<std::collections::BTreeSet<_>>().len()
    };
    watch.until("both connections and both ends", |watch| {
        exits(watch) == 2
            && watch.flows(port, Direction::Client).iter().filter(|(end, counted)| end.pid == pid && counted.closed > 0).count() == 2
    });
    let starts: Vec<_> = watch
        .seen
        .iter()
        .filter_map(|it| match it {
            Observation::ProcessStarted(started) if started.pid == pid => Some(started.start_time),
            _ => None,
        })
        .collect();
    let mut connected: Vec<_> =
        watch.flows(port, Direction::Client).iter().filter(|(end, _)| end.pid == pid).map(|(end, _)| end.start_time).collect();
    connected.sort_unstable();
    assert_eq!(connected, starts, "each connection is its own process's");
    assert!(starts[0] < starts[1]);
    watch.lost_nothing();
}
