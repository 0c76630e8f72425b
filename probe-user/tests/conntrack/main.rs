//! Address translation as the kernel does it: real network namespaces, real rules, real connections, and what the probe tells of them.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

mod network;
mod world;

use std::net::{TcpListener, TcpStream};

use network::{Network, SERVER_PORT, SERVICE_PORT};
use proto::probe::v1::flow_key::Direction;
use world::{World, needs_root};

#[tokio::test]
async fn a_service_address_is_resolved_to_its_backends_on_both_ends() {
    needs_root!();
    let network = Network::new();
    network.balance("");
    let mut world = World::start(&network);
    let servers = network.servers();
    let listeners = network.within("s", || servers.clone().map(|address| TcpListener::bind((address, SERVER_PORT)).unwrap()));
    for _ in 0..10 {
        network.within("c", || TcpStream::connect((network.service(), SERVICE_PORT)).unwrap());
    }
    let service = network.service();
    let expected = servers.each_ref().map(|server| format!("5 to {server}:{SERVER_PORT}"));
    world.until("both backends", |world| world.ways(Direction::Client, &service) == expected).await;
    for server in &servers {
        let expected = format!("5 to {server}:{SERVER_PORT} for {service}:{SERVICE_PORT}");
        world.until("the service on the server's end", |world| world.ways(Direction::Server, server) == [expected.clone()]).await;
    }
    drop(listeners);
}
