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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_begins_later_is_listened_to() {
    if !is_root() {
        return missing("root");
    }
    let world = World::new("later");
    let control_plane = ControlPlane::start().await;
    let _probe = Probe::start(&control_plane, &[]);
    control_plane.wait_for("the hooks", sees_names).await;
    let _server = world.serve("server", &["127.0.0.1"]);
    ask_until(
        &control_plane,
        |known| of_v4(known, 11) == ["n11.later.example"],
        || world.ask("client", "127.0.0.1", "n11.later.example", "A", 1),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_a_server_elsewhere_is_listened_to_while_it_asks() {
    if !is_root() {
        return missing("root");
    }
    let world = World::new("away");
    let _outside = world.serve_outside("10.99.0.1/24");
    let control_plane = ControlPlane::start().await;
    let probe = Probe::start(&control_plane, &[]);
    control_plane.wait_for("the hooks", sees_names).await;
    // The first answer may come before anybody listens; the second is half a second later.
    tokio::task::block_in_place(|| world.ask("client", "10.99.0.2", "n21.away.example", "A", 2));
    control_plane.wait_for("who asks twice", |known| of_v4(known, 21) == ["n21.away.example"]).await;
    // The same by the system's resolver, with both addresses in one go.
    ask_until(
        &control_plane,
        |known| of_v4(known, 22) == ["n22.away.example"] && of_v6(known, 22) == ["n22.away.example"],
        || assert!(world.run_with_resolver("getent", "10.99.0.2", &["getent", "ahosts", "n22.away.example"]).contains("203.0.113.22")),
    );
    // A datagram from port 53 of somebody who was not asked names nothing.
    tokio::task::block_in_place(|| world.ask("client", "10.99.0.2", "forged.away.example", "A", 2));
    tokio::task::block_in_place(|| world.ask("client", "10.99.0.2", "n23.away.example", "A", 2));
    control_plane.wait_for("the honest answer", |known| of_v4(known, 23) == ["n23.away.example"]).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(of_v4(&control_plane.known(), 66).is_empty());
    let log = probe.log();
    assert!(log.contains("nobody asked for") && log.contains("n66.bank.example"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everywhere_the_first_answer_is_seen_and_nowhere_none() {
    if !is_root() {
        return missing("root");
    }
    let world = World::new("all");
    let _outside = world.serve_outside("10.99.0.1/24");
    let control_plane = ControlPlane::start().await;
    let mut probe = Probe::start(&control_plane, &["--dns", "all"]);
    control_plane.wait_for("the hooks", sees_names).await;
    tokio::task::block_in_place(|| world.ask("client", "10.99.0.2", "n31.all.example", "A", 1));
    control_plane.wait_for("the only answer", |known| of_v4(known, 31) == ["n31.all.example"]).await;
    assert!(probe.stop());

    let control_plane = ControlPlane::start().await;
    let _probe = Probe::start(&control_plane, &["--dns", "off"]);
    control_plane.wait_for("the capture", |known| known.capture.rung == 1).await;
    tokio::task::block_in_place(|| world.ask("client", "10.99.0.2", "n32.all.example", "A", 2));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let known = control_plane.known();
    assert!(known.names.is_empty());
    assert!(known.capture.hooks.iter().all(|hook| !hook.name.starts_with("dns")) && known.capture.reason.is_empty());
    assert!(known.capture.blind_spots.iter().any(|it| it.contains("--dns off")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_way_of_looking_for_names_touches_nothing_else() {
    if !is_root() {
        return missing("root");
    }
    let world = World::new("reload");
    let _outside = world.serve_outside("10.99.0.1/24");
    let control_plane = ControlPlane::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let want = |mode: &str| std::fs::write(file.path(), format!("dns = \"{mode}\"\n")).unwrap();
    want("off");
    let probe = Probe::start(&control_plane, &["--config", file.path().to_str().unwrap()]);
    let is_off = |known: &Known| known.capture.rung == 1 && known.capture.blind_spots.iter().any(|it| it.contains("--dns off"));
    control_plane.wait_for("the capture", is_off).await;
    for last in [41, 42] {
        want("all");
        probe.reload();
        control_plane.wait_for("the hooks", |known| sees_names(known) && !is_off(known)).await;
        tokio::task::block_in_place(|| world.ask("client", "10.99.0.2", &format!("n{last}.reload.example"), "A", 2));
        control_plane.wait_for("a name", |known| !of_v4(known, last).is_empty()).await;
        want("off");
        probe.reload();
        control_plane.wait_for("the end of it", |known| is_off(known) && !sees_names(known)).await;
    }
    // Connections were seen by the same programs all the time.
    let log = probe.log();
    assert_eq!(log.matches("capture started").count(), 1, "{log}");
    assert_eq!(control_plane.known().hellos.len(), 1);
}
