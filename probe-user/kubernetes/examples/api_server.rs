//! The tests' server of the Kubernetes API as a program, for tests that look at the product from outside: it begins without objects, takes them by
//! POST, PUT and DELETE on the API's own paths, and serves lists, watches and leases. It prints where it listens and ends with its standard input.
#![expect(clippy::print_stdout, reason = "it says where it listens")]
#![allow(dead_code, reason = "the tests use more of it")]

use serde_json::json;
use tokio::io::AsyncReadExt as _;

#[path = "../tests/cluster/make.rs"]
mod make;
#[path = "../tests/cluster/picture.rs"]
mod picture;
#[path = "../tests/cluster/server.rs"]
mod server;
#[path = "../tests/cluster/terminals.rs"]
mod terminals;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = server::Server::start_at(&std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned())).await;
    server.come_later();
    println!("{}", json!({"listening": server.url().trim_start_matches("http://")}));
    let mut nothing = Vec::new();
    // Its end is what is waited for, whatever comes before.
    drop(tokio::io::stdin().read_to_end(&mut nothing).await);
}
