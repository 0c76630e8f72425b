//! The commands alone: `cargo run -p marathon-migrate --example migrate -- export --from http://127.0.0.1:8080 --to apps.json`.

use std::process::ExitCode;

use clap::Parser as _;
use marathon_migrate::{MarathonCommand, Outcome, run};

#[derive(clap::Parser)]
struct Flags {
    #[command(subcommand)]
    command: MarathonCommand,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    Ok(match run(&Flags::parse().command, &mut std::io::stdout()).await? {
        Outcome::Fine => ExitCode::SUCCESS,
        Outcome::Differs => ExitCode::from(1),
    })
}
