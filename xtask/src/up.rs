//! `cargo xtask up`, `down` and `status`: the whole of it on this machine, by one command.

mod ports;
mod record;
mod watch;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::flags::UpFlags;
use crate::progress::{Pulse, Steps, bold, boxed, green, last_lines, note, red, yellow};
use crate::services::{self, Addresses, OldApi, Service, TICK};
use crate::{Checkout, Profile, build, http, machine, setup};
use record::Record;

/// How long a program may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long `down` waits for `up` to stop everything.
const DOWN_PATIENCE: Duration = Duration::from_secs(25);

/// Set-up, build, run.
pub(crate) fn up(checkout: &Checkout, flags: &UpFlags) -> Result<ExitCode> {
    if let Some(running) = Record::of_running(checkout) {
        println!("It is running already: {}\n`cargo xtask status` says more, `cargo xtask down` stops it.", bold(&running.page()));
        return Ok(ExitCode::SUCCESS);
    }
    let addresses = Addresses::new(flags.listen, flags.port, flags.grpc_port, flags.admin_port);
    ports::must_be_free(&addresses)?;
    println!("Building and starting Orchestrator on this machine. The first build takes a few minutes; later ones take seconds.\n");
    if !machine::is_root() {
        note("the probe reads the kernel and must run as root: sudo may ask for your password");
        setup::ask_for_password_once()?;
    }

    let profile = if flags.debug { Profile::Debug } else { Profile::Release };
    let mut steps = Steps::new(build::STEPS + 2);
    build::all(checkout, profile, &mut steps)?;

    // Building takes long enough for somebody else to have been quicker.
    if let Some(running) = Record::of_running(checkout) {
        bail!("another `cargo xtask up` of this checkout started meanwhile: {}", running.page());
    }
    ports::must_be_free(&addresses)?;

    let interrupted = Interrupted::listen()?;
    let directory = checkout.run_directory();
    let logs = directory.join("logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    for api in addresses.old_apis().1 {
        note(&format!("{}'s API is off: somebody else has port {}", api.name, api.port));
    }
    let apis = addresses.old_apis().0;
    let mut control = steps.run("Start the control plane", || start_control(checkout, profile, &addresses, flags, &logs, &interrupted))?;
    let mut probe = steps.run("Start the probe", || start_probe(checkout, profile, &addresses, flags, &logs, &interrupted))?;
    Record::new(&addresses, &control, &probe, flags.detach).write(checkout)?;
    println!("\n{}", welcome(&addresses, &apis, flags.detach));

    if flags.detach {
        control.let_go();
        probe.let_go();
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = watch::until_interrupted(&mut control, &mut probe, &interrupted);
    println!("\nStopping …");
    probe.stop()?;
    control.stop()?;
    Record::forget(checkout)?;
    println!("{}", if outcome.is_ok() { green("Both have stopped.") } else { red("Both have stopped.") });
    outcome.map(|()| ExitCode::SUCCESS)
}

fn start_control(
    checkout: &Checkout,
    profile: Profile,
    addresses: &Addresses,
    flags: &UpFlags,
    logs: &Path,
    interrupted: &Interrupted,
) -> Result<Service> {
    let data = checkout.run_directory().join("data");
    fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    let mut command = addresses.control(&checkout.binary(profile, "orchestrator-control"), &data);
    command.args(&flags.control_arguments);
    let log = fresh_log(logs, "control")?;
    let mut service = Service::start("orchestrator-control", command, &log)?;
    wait_for(&mut service, "the control plane to be ready", interrupted, || services::is_ready(addresses.http))?;
    Ok(service)
}

fn start_probe(
    checkout: &Checkout,
    profile: Profile,
    addresses: &Addresses,
    flags: &UpFlags,
    logs: &Path,
    interrupted: &Interrupted,
) -> Result<Service> {
    setup::ask_for_password_once()?;
    let mut command = addresses.probe(&checkout.binary(profile, "orchestrator-probe"));
    if flags.agent {
        command.args(["--roles", "observe,run"]);
    }
    let log = fresh_log(logs, "probe")?;
    let mut service = Service::start("orchestrator-probe", command, &log)?;
    wait_for(&mut service, "the probe to connect and see", interrupted, || services::probe_is_seeing(addresses))?;
    for probe in http::get_json(addresses.http, "/api/v1/probes")?["probes"].as_array().into_iter().flatten() {
        note(&format!("the probe sees by {}", how_it_sees(probe)));
    }
    Ok(service)
}

/// An empty log file; the one of the run before is kept beside it.
fn fresh_log(logs: &Path, name: &str) -> Result<std::path::PathBuf> {
    let log = logs.join(format!("{name}.log"));
    if log.exists() {
        let before = logs.join(format!("{name}.before.log"));
        fs::rename(&log, &before).with_context(|| format!("cannot move {} away; if a run as root left it, remove it", log.display()))?;
    }
    Ok(log)
}

fn wait_for(service: &mut Service, what: &str, interrupted: &Interrupted, condition: impl Fn() -> bool) -> Result<()> {
    let _alive = Pulse::start(&format!("waiting for {what}"));
    let begun = Instant::now();
    while !condition() {
        if let Some(status) = service.ended() {
            bail!("{} ended ({status}). The last lines of {}:\n{}", service.name, service.log.display(), last_lines(&service.log, 20));
        }
        if interrupted.is_set() {
            bail!("interrupted");
        }
        if begun.elapsed() > START_PATIENCE {
            bail!(
                "waited {} s for {what}. The last lines of {}:\n{}",
                START_PATIENCE.as_secs(),
                service.log.display(),
                last_lines(&service.log, 20)
            );
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// How a probe captures, in its own words.
fn how_it_sees(probe: &Value) -> String {
    let capture = &probe["capture"];
    let reason =
        capture["reason"].as_str().filter(|reason| !reason.is_empty()).map(|reason| format!(", because {reason}")).unwrap_or_default();
    format!("{} (rung {}{reason})", capture["description"].as_str().unwrap_or("nothing yet"), capture["rung"])
}

fn welcome(addresses: &Addresses, apis: &[OldApi], detached: bool) -> String {
    let page = format!("http://{}", addresses.http);
    let mut lines = vec!["Orchestrator is running. Open the map:".to_owned(), String::new(), format!("    {page}"), String::new()];
    lines.push("Try next:".to_owned());
    lines.push("  open a connection          curl -s https://crates.io >/dev/null".to_owned());
    lines.push(format!("  ask the API                curl -s {page}/api/topology/hosts"));
    lines.push(format!("  who talks to whom          curl -s '{page}/api/v1/flows?limit=5'"));
    for api in apis {
        let path = if api.name == "Mesos" { "state" } else { "v2/info" };
        let url = format!("http://{}/{path}", SocketAddr::from((addresses.http.ip(), api.port)));
        lines.push(format!("  {:<27}curl -s {url}", format!("as a client of {}", api.name)));
    }
    lines.push("  what it sees and loses     cargo xtask status".to_owned());
    lines.push(if detached { "  stop it                    cargo xtask down" } else { "  stop it                    Ctrl-C" }.to_owned());
    boxed(&lines)
}

/// `cargo xtask down`.
pub(crate) fn down(checkout: &Checkout) -> Result<()> {
    let Some(record) = Record::of_running(checkout) else {
        println!("Nothing is running that `cargo xtask up` started in this checkout.");
        return Record::forget(checkout);
    };
    // In the foreground `up` stops its own two programs, in order.
    let targets = if record.up.is_running() && !record.detached { vec![record.up] } else { vec![record.probe, record.control] };
    for target in &targets {
        services::signal(target.pid, Signal::SIGTERM, true)?;
    }
    let _alive = Pulse::start("stopping");
    let begun = Instant::now();
    while record.probe.is_running() || record.control.is_running() {
        if begun.elapsed() > DOWN_PATIENCE {
            note("they did not stop when asked; killing them");
            for target in [record.probe, record.control].iter().filter(|target| target.is_running()) {
                services::signal(target.pid, Signal::SIGKILL, true)?;
            }
            break;
        }
        std::thread::sleep(TICK);
    }
    Record::forget(checkout)?;
    drop(_alive);
    println!("{}", green("Both have stopped."));
    Ok(())
}

/// `cargo xtask status`; the exit code is 0 when both run and the probe is connected.
pub(crate) fn status(checkout: &Checkout) -> Result<ExitCode> {
    let Some(record) = Record::of_running(checkout) else {
        println!("Not running. `cargo xtask up` starts it.");
        return Ok(ExitCode::FAILURE);
    };
    let state = |running: bool| if running { green("running") } else { red("not running") };
    println!("page            {}", bold(&record.page()));
    println!("control plane   {} (process {}), {}", state(record.control.is_running()), record.control.pid, readiness(&record));
    println!("probe           {} (process {})", state(record.probe.is_running()), record.probe.pid);
    println!("logs            {}", checkout.run_directory().join("logs").display());
    let probes = http::get_json(record.http, "/api/v1/probes").unwrap_or_default();
    let mut connected = false;
    for probe in probes["probes"].as_array().into_iter().flatten() {
        connected |= probe["connected"] == true;
        let name = probe["hostname"].as_str().unwrap_or("?");
        let link = if probe["connected"] == true { green("connected") } else { yellow("not connected") };
        println!("host            {name}: {link}, sees by {}", how_it_sees(probe));
        for spot in probe["capture"]["blindSpots"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            println!("                {} {spot}", yellow("cannot see:"));
        }
        println!("                connection ends seen {}, reported {}", probe["losses"]["endsSeen"], probe["losses"]["endsReported"]);
    }
    let good = connected && record.control.is_running() && record.probe.is_running();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn readiness(record: &Record) -> String {
    if services::is_ready(record.http) { green("ready") } else { yellow("not ready") }
}

/// Whether somebody asked this program to stop.
#[derive(Clone, Debug)]
struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    fn listen() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("cannot listen for signals")?;
        }
        Ok(Self(flag))
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
