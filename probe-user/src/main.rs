//! The probe's binary: reads its configuration, starts the loops, waits for a signal, stops.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use orchestrator_probe::config::{Command, Config, Flags, LOG_FILTER};
use orchestrator_probe::{app, ebpf, local, telemetry};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One arena, and memory that is freed goes back to the system within a second: what counts here is to be small.
#[expect(unsafe_code, reason = "the allocator looks for its settings under this name; no other item has it")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 86] = b"background_thread:true,narenas:1,tcache_max:4096,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

/// Exit status for a wrong command line or configuration (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    // What the Mesos agent starts beside each container; before anything else, because there are many.
    if let Some(directory) = agent::keeper::asked(std::env::args_os().skip(1)) {
        return agent::keeper::main(&directory);
    }
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            let usage = error.use_stderr();
            drop(error.print());
            return if usage { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let started = Config::resolve(&flags, environment())
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        .and_then(|config| {
            let filter = filter(&flags, &config);
            telemetry::start_logging(config.log_format, &filter).map(|()| config).map_err(|error| error.to_string())
        });
    let config = match started {
        Ok(config) => config,
        Err(mistakes) => return complain(&mistakes, ExitCode::from(USAGE)),
    };
    let command = flags.command.clone().unwrap_or(Command::Run);
    let done = match command {
        Command::Run if flags.once => local::run_once(config, flags.output, flags.once_for),
        _ if flags.once => return complain("--once is a command of its own", ExitCode::from(USAGE)),
        Command::Run => app::run_process(config, Box::new(move || Config::resolve(&flags, environment()))),
        Command::Top => local::run_top(config),
        Command::Detach => detach(&config.pin_dir),
        Command::Load { duration } => {
            let capture = ebpf::Config {
                cgroup_root: config.cgroup_root,
                proc_root: config.proc_root,
                kernel_log: config.kernel_log,
                dns: config.dns,
                ..ebpf::Config::default()
            };
            ebpf::print_live(&capture, duration, &mut std::io::stdout().lock()).map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::from)
        }
    };
    done.unwrap_or_else(|error| complain(&format!("{error:#}"), ExitCode::FAILURE))
}

/// Without a directory, looks where the probe would have pinned them.
#[expect(clippy::print_stdout, reason = "the answer to whoever typed the command")]
fn detach(pin_dir: &ebpf::PinDir) -> anyhow::Result<ExitCode> {
    let pin_dir = if *pin_dir == ebpf::PinDir::Off { &ebpf::PinDir::Usual } else { pin_dir };
    match ebpf::detach(pin_dir)? {
        0 => println!("no kernel programs are pinned"),
        hooks => println!("kernel programs are removed from {hooks} hooks"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Whoever looks at this node by hand wants to read what is seen, not how the probe is; and nothing goes across a screen that is drawn on.
fn filter(flags: &Flags, config: &Config) -> String {
    let by_hand = flags.once || matches!(flags.command, Some(Command::Top));
    let drawn_on = matches!(flags.command, Some(Command::Top)) && std::io::stderr().is_terminal();
    if drawn_on {
        return "off".to_owned();
    }
    if by_hand && !config.settings.was_given(LOG_FILTER) {
        // Lines of the kernel programs are written because somebody asked for them.
        return if config.kernel_log { "error,kernel=info" } else { "error" }.to_owned();
    }
    config.log_filter.clone()
}

/// All variables whose name is text: `std::env::vars` panics at one that is not, whoever it is meant for.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

/// Before logging has begun, or for whoever typed the command.
fn complain(message: &str, status: ExitCode) -> ExitCode {
    // What cannot be written is not read either; `eprintln` would panic.
    let _ = writeln!(std::io::stderr(), "orchestrator-probe: {message}");
    status
}
