//! A Marathon with a master of its own making, to try clients against: `cargo run --example marathon -- 8080`.

#![expect(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, clippy::cast_possible_truncation, reason = "an example")]

#[path = "../tests/rest/master.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod master;
#[path = "../tests/rest/world.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod world;

use std::sync::Arc;

use edge_marathon::store::MemoryStore;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let port: u16 = std::env::args().nth(1).and_then(|it| it.parse().ok()).unwrap_or(8_080);
    let agents: usize = std::env::args().nth(2).and_then(|it| it.parse().ok()).unwrap_or(4);
    let master = master::Master::start(agents, 64.0).await;
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let world = world::World::listening(listener, master, Arc::new(MemoryStore::default()), |_| {});
    println!("Marathon on http://{}, its master on http://{}", world.address, world.master.address);
    std::future::pending::<()>().await;
}
