//! Names on the real kernel: processes ask real servers, over IPv4 and IPv6, on this machine and elsewhere, and the control plane is told which
//! names they resolved.
//!
//! Every test has a network namespace of its own, where port 53 is free, and cgroups of its own.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::time::{Duration, Instant};

use support::{ControlPlane, Known, is_root, missing};
use world::{Probe, World};

#[path = "names/answers.rs"]
mod answers;
mod support;
#[path = "names/world.rs"]
mod world;

/// Names of 203.0.113.`last`.
fn of_v4(known: &Known, last: u8) -> Vec<&str> {
    names(known, &[203, 0, 113, last])
}

/// Names of 2001:db8::`last`.
fn of_v6(known: &Known, last: u8) -> Vec<&str> {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    address[15] = last;
    names(known, &address)
}

fn names<'a>(known: &'a Known, address: &[u8]) -> Vec<&'a str> {
    known.names.get(address).into_iter().flatten().map(String::as_str).collect()
}

fn sees_names(known: &Known) -> bool {
    let attached = |name: &str| known.capture.hooks.iter().any(|hook| hook.name == name && hook.attached);
    attached("dns_egress") && attached("dns_ingress")
}

/// Asks again and again until something is known.
fn ask_until(control_plane: &ControlPlane, known: impl Fn(&Known) -> bool, ask: impl Fn()) {
    let begun = Instant::now();
    tokio::task::block_in_place(|| {
        while !known(&control_plane.known()) {
            assert!(begun.elapsed() < Duration::from_secs(20), "known after 20 s: {:?}", control_plane.known().names);
            ask();
            std::thread::sleep(Duration::from_millis(500));
        }
    });
}

/// What the processes of these tests are made of: see [`world::role`].
#[test]
fn role() {
    world::role();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_this_machine_names_addresses_to_clients_in_other_cgroups() {
    if !is_root() {
        return missing("root");
    }
    let world = World::new("here");
    let _server = world.serve("server", &["127.0.0.1", "::1"]);
    let control_plane = ControlPlane::start().await;
    let mut probe = Probe::start(&control_plane, &[]);
    control_plane.wait_for("the hooks", sees_names).await;
    // The search for servers runs beside: a question before its end is nobody's.
    ask_until(
        &control_plane,
        |known| of_v4(known, 1) == ["n1.here.example"],
        || {
            world.ask("client", "127.0.0.1", "n1.Here.Example", "A", 1);
        },
    );
    world.ask("client", "::1", "n2.here.example", "AAAA", 1);
    world.ask("client", "::1", "alias3.here.example", "A", 1);
    control_plane.wait_for("an answer over IPv6", |known| of_v6(known, 2) == ["n2.here.example"]).await;
    control_plane.wait_for("an alias", |known| of_v4(known, 3) == ["alias3.here.example"]).await;
    // A name that does not exist names nothing, and an address may have several.
    world.ask("client", "127.0.0.1", "nowhere.here.example", "A", 1);
    world.ask("client", "127.0.0.1", "n1.other.example", "A", 1);
    control_plane.wait_for("two names", |known| of_v4(known, 1) == ["n1.other.example", "n1.here.example"]).await;
    assert!(control_plane.known().capture.blind_spots.iter().any(|it| it.contains("TLS or HTTPS")));
    assert!(probe.stop());
}
