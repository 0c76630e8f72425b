//! The role alone: `cargo run -p lb --example lb -- --marathon http://127.0.0.1:8080 --haproxy-config /tmp/haproxy.cfg --group '*'`.

use clap::Parser as _;
use lb::{LbArgs, run};

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    lb: LbArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(Flags::parse().lb, async {
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = async { if let Some(it) = &mut terminated { it.recv().await; } else { std::future::pending().await } } => {}
        }
    })
    .await
}
