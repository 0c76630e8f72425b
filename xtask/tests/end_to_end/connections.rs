//! Connections of other processes, on this machine and in network namespaces.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, Result};

use crate::world::{Counted, End, NetworkNamespace, PATIENCE, connect, has_edge, serve, stack, traffic};

/// Bytes that the client sends, and that the server answers with: odd numbers, larger than a segment.
const SENT: usize = 123_457;
const REPLIED: usize = 76_543;

#[test]
fn a_connection_over_ipv4_loopback_is_counted_at_both_ends() -> Result<()> {
    counted_at_both_ends("127.0.0.1:0")
}

#[test]
fn a_connection_over_ipv6_loopback_is_counted_at_both_ends() -> Result<()> {
    counted_at_both_ends("[::1]:0")
}

fn counted_at_both_ends(address: &str) -> Result<()> {
    let Some(mut stack) = stack()? else { return Ok(()) };
    let (server, listening) = serve(&mut traffic(), address, REPLIED)?;
    let (client, _) = connect(&mut traffic(), listening, 3, SENT)?;
    let (sent, received) = (3 * SENT as u64, 3 * REPLIED as u64);

    let at_client = Counted { opened: 3, closed: 3, failed: 0, sent, received };
    let flows = End::of_process(client.pid(), "client", listening.port()).must_count(&mut stack, at_client)?;
    assert_eq!(flows.len(), 1, "one group of connections is one flow: {flows:?}");
    assert!(flows[0]["processName"].as_str().is_some_and(|name| name.contains("xtask")), "{flows:?}");
    assert_eq!(flows[0]["serverAddress"], listening.ip().to_string());
    assert_eq!(flows[0]["clientAddress"], listening.ip().to_string());

    let at_server = Counted { sent: received, received: sent, ..at_client };
    End::of_process(server.pid(), "server", listening.port()).must_count(&mut stack, at_server)?;
    let (from, to) = (format!(";{}", client.pid()), format!(";{}", server.pid()));
    stack.until(PATIENCE, "the edge is on the map", |stack| has_edge(stack, "processes", &from, &to))
}

#[test]
fn a_connection_into_a_network_namespace_is_counted_at_both_ends() -> Result<()> {
    let Some(mut stack) = stack()? else { return Ok(()) };
    let namespace = NetworkNamespace::new(11)?;
    let (server, listening) = serve(&mut namespace.traffic(), "10.213.11.2:0", REPLIED)?;
    let (client, _) = connect(&mut traffic(), listening, 1, SENT)?;
    let at_client = Counted { opened: 1, closed: 1, failed: 0, sent: SENT as u64, received: REPLIED as u64 };
    let flows = End::of_process(client.pid(), "client", listening.port()).must_count(&mut stack, at_client)?;
    assert_eq!(flows[0]["clientAddress"], "10.213.11.1");
    let at_server = Counted { sent: REPLIED as u64, received: SENT as u64, ..at_client };
    End::of_process(server.pid(), "server", listening.port()).must_count(&mut stack, at_server)?;
    let (from, to) = (format!(";{}", client.pid()), format!(";{}", server.pid()));
    stack.until(PATIENCE, "the edge is on the map", |stack| has_edge(stack, "processes", &from, &to))
}

#[test]
fn the_loopback_of_another_network_namespace_is_not_ours() -> Result<()> {
    let Some(mut stack) = stack()? else { return Ok(()) };
    let namespace = NetworkNamespace::new(12)?;
    let (inside, listening) = serve(&mut namespace.traffic(), "127.0.0.1:0", 0)?;
    // The same address and port, in our own namespace.
    let (outside, _) = serve(&mut traffic(), &listening.to_string(), 0)?;
    let (client_inside, _) = connect(&mut namespace.traffic(), listening, 1, 1)?;
    let (client_outside, _) = connect(&mut traffic(), listening, 1, 1)?;
    let id = |pid: u32| format!(";{pid}");
    stack.until(PATIENCE, "each client has an edge to the server of its own namespace", |stack| {
        has_edge(stack, "processes", &id(client_inside.pid()), &id(inside.pid()))
            && has_edge(stack, "processes", &id(client_outside.pid()), &id(outside.pid()))
    })?;
    assert!(!has_edge(&stack, "processes", &id(client_inside.pid()), &id(outside.pid())), "an edge out of the namespace that nobody made");
    assert!(!has_edge(&stack, "processes", &id(client_outside.pid()), &id(inside.pid())), "an edge into the namespace that nobody made");
    Ok(())
}

#[test]
fn processes_that_live_for_milliseconds_are_counted_each_by_its_own_pid() -> Result<()> {
    let Some(mut stack) = stack()? else { return Ok(()) };
    let (server, listening) = serve(&mut traffic(), "127.0.0.1:0", 0)?;
    let mut pids = Vec::new();
    for _ in 0..20 {
        let mut child = traffic().args(["connect", "--to", &listening.to_string()]).stdout(std::process::Stdio::null()).spawn()?;
        pids.push(child.id());
        child.wait()?;
    }
    let one = Counted { opened: 1, closed: 1, ..Counted::default() };
    for pid in pids {
        let flows = End::of_process(pid, "client", listening.port()).must_count(&mut stack, one)?;
        assert!(flows[0]["processName"].as_str().is_some_and(|name| name.contains("xtask")), "{flows:?}");
    }
    End::of_process(server.pid(), "server", listening.port())
        .must_count(&mut stack, Counted { opened: 20, closed: 20, ..Counted::default() })?;
    Ok(())
}

#[test]
fn a_refused_connection_is_counted_as_failed_and_draws_no_edge() -> Result<()> {
    let Some(mut stack) = stack()? else { return Ok(()) };
    // A port that was free a moment ago: nobody listens.
    let nobody: SocketAddr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (client, report) = connect(&mut traffic(), nobody, 4, 0)?;
    assert_eq!(report["failed"], 4, "{report}");
    End::of_process(client.pid(), "client", nobody.port()).must_count(&mut stack, Counted { failed: 4, ..Counted::default() })?;
    assert!(!has_edge(&stack, "processes", &format!(";{}", client.pid()), ";"), "an edge to nobody");
    Ok(())
}

#[test]
fn a_connection_that_was_open_before_the_probe_is_on_the_map() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return crate::world::cannot::<()>("the probe needs root").map(drop);
    }
    let (server, listening) = serve(&mut traffic(), "127.0.0.1:0", 0)?;
    let arguments = ["connect", "--to", &listening.to_string(), "--hold-ms", "60000"];
    let mut child = traffic().args(arguments).stdout(std::process::Stdio::null()).spawn()?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut stack = xtask::stack::Stack::start(xtask::Profile::Debug)?;
    let found = stack.until(PATIENCE, "the open connection is on the map", |stack| {
        has_edge(stack, "processes", &format!(";{}", child.id()), &format!(";{}", server.pid()))
    });
    child.kill().context("cannot end the client")?;
    child.wait()?;
    found
}

#[test]
fn a_server_that_listened_before_the_probe_owns_what_it_accepts_later() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return crate::world::cannot::<()>("the probe needs root").map(drop);
    }
    let (server, listening) = serve(&mut traffic(), "127.0.0.1:0", REPLIED)?;
    let mut stack = xtask::stack::Stack::start(xtask::Profile::Debug)?;
    let (client, _) = connect(&mut traffic(), listening, 2, SENT)?;
    let at_client = Counted { opened: 2, closed: 2, failed: 0, sent: 2 * SENT as u64, received: 2 * REPLIED as u64 };
    End::of_process(client.pid(), "client", listening.port()).must_count(&mut stack, at_client)?;
    let at_server = Counted { sent: at_client.received, received: at_client.sent, ..at_client };
    End::of_process(server.pid(), "server", listening.port()).must_count(&mut stack, at_server)?;
    Ok(())
}
