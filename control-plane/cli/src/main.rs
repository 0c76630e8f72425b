//! The process: arguments, the command, the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use orchestrator_cli::arguments::Arguments;

/// Exit code of a mistake in the arguments: `EX_USAGE` of sysexits.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match orchestrator_cli::run(&arguments, &mut std::io::stdout()) {
        Ok(code) => ExitCode::from(code),
        // Whoever read it has seen enough: `orchestrator tasks | head`.
        Err(error) if error.chain().any(is_broken_pipe) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "orchestrator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|it| it.kind() == std::io::ErrorKind::BrokenPipe)
}
