//! The keeper of containers as a program of its own: what the agent's tests start. The product's binary has it as a subcommand.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(directory) => agent::keeper::main(Path::new(&directory)),
        None => ExitCode::from(64),
    }
}
