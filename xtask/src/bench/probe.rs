//! What the probe sees and what that costs, at rates that a busy node knows; each number beside the best that other agents have published.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use super::kernel_time::{self, Statistics};
use super::{Number, Target, counter, cpu_percent, float, flows_total, percentile, server, traffic};
use crate::progress::{Pulse, note};
use crate::services::resident_mb;
use crate::setup::{self, Tool};
use crate::stack::Stack;
use crate::traffic::Process;
use crate::websocket::Socket;
use crate::{Checkout, Profile};

mod containers;

/// Connections a second of the steady load.
const RATE: u64 = 10_000;
/// How long it is measured under that load.
const BUSY: u64 = 30;
/// How long connections are made as fast as it goes.
const HIGHEST: u64 = 30;
/// Connections that are open at once; each has both its ends here.
const OPEN: u64 = 5_000;
/// What is there when the probe starts: descriptors of connections, and tasks.
const DESCRIPTORS: u64 = 5_000;
const TASKS: u64 = 1_700;
/// Rate, and time without a probe, of the trial of a restart.
const RESTART: (u64, Duration) = (1_000, Duration::from_secs(5));
/// Pairs of runs with and without the probe, and the length of each.
const PAIRS: u64 = 7;
const PAIR_SECONDS: u64 = 8;
/// Seconds in which an event in the kernel shall be told.
const EVENT_DELIVERY: f64 = 0.05;
/// How long counts may take to arrive at the API.
const SETTLE: Duration = Duration::from_secs(30);

const WRK: Tool = Tool { program: "wrk", packages: &["wrk"], purpose: "loading an HTTP server" };

/// A part of this benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Cost at rest, and at 10,000 connections a second.
    Steady,
    /// The first look, with 5,000 descriptors of sockets and 1,700 tasks.
    Snapshot,
    /// As many short connections as this machine can make.
    Highest,
    /// The probe is killed under load, and started again.
    Restart,
    /// What a server with kept connections feels.
    Kept,
    /// What a server with a connection per request feels.
    Closing,
    /// How soon a container that starts is on the map.
    Starts,
    /// Memory with 500 containers.
    Containers,
}

pub(super) fn run(checkout: &Checkout, parts: &[Part], scale_down: u64) -> Result<Vec<Number>> {
    setup::tools(checkout, &[WRK])?;
    let mut numbers = Vec::new();
    for part in parts {
        let measured = match part {
            Part::Steady => steady(scale_down),
            Part::Snapshot => snapshot(scale_down),
            Part::Highest => highest(scale_down),
            Part::Restart => restart(scale_down),
            Part::Kept => felt_by_a_server("kept connections", &[], scale_down),
            Part::Closing => felt_by_a_server("a connection per request", &["--close".to_owned()], scale_down),
            Part::Starts => containers::starts(checkout, scale_down),
            Part::Containers => containers::many(checkout, scale_down),
        };
        // What another part measured is not lost when one fails.
        match measured {
            Ok(measured) => numbers.extend(measured),
            Err(error) if parts.len() == 1 => return Err(error),
            Err(error) => note(&format!("{part:?}: {error:#}")),
        }
    }
    Ok(numbers)
}

fn seconds(whole: u64, scale_down: u64) -> Duration {
    Duration::from_secs((whole / scale_down).max(3))
}

/// Cost at rest, and under a steady load of short connections between two processes.
fn steady(scale_down: u64) -> Result<Vec<Number>> {
    let stack = Stack::start(Profile::Release)?;
    let probe = stack.probe_pid()?;
    std::thread::sleep(seconds(15, scale_down));
    let mut numbers = vec![
        Number::new("probe: at rest, of one core", cpu_percent(probe, seconds(30, scale_down))?, "%", Target::Stated)
            .beside("Beyla 0.05 idle"),
        Number::new("probe: at rest, resident", resident(probe)?, "MB", Target::Under(30.0)).beside("Beyla 75"),
        Number::new("probe: kernel maps in all", map_megabytes(probe)?, "MB", Target::Under(8.0)).beside("NFM 0.1-1.3, no process"),
    ];
    if let Some(millis) = metric(&stack, "probe_snapshot_seconds")? {
        numbers.push(Number::new("probe: snapshot at start, of what is here", millis * 1e3, "ms", Target::Stated));
    }
    let time = seconds(BUSY, scale_down);
    let (_server, address) = server()?;
    let load = |seconds: u64| client(&address, &[format!("--count={}", RATE * seconds), format!("--rate={RATE}")]);
    {
        let _client = load(time.as_secs() + 4)?;
        std::thread::sleep(Duration::from_secs(2));
        let _alive = Pulse::start(&format!("{RATE} connections a second for {} s", time.as_secs()));
        let before = ends_seen(&stack)?;
        let begun = Instant::now();
        let busy = cpu_percent(probe, time)?;
        let rate = float(ends_seen(&stack)?.saturating_sub(before)) / 2.0 / begun.elapsed().as_secs_f64();
        numbers.push(Number::new("probe: connections a second that the load reached", rate, "", Target::Stated));
        numbers.push(Number::new(format!("probe: user space at {rate:.0} connections/s, of one core"), busy, "%", Target::Under(2.0)));
        numbers.push(Number::new(format!("probe: resident at {rate:.0} connections/s"), resident(probe)?, "MB", Target::Under(60.0)));
        let told = share_told_within(&stack, EVENT_DELIVERY)?;
        numbers.push(Number::new("probe: events told within 50 ms of the kernel seeing them", told * 100.0, "%", Target::AtLeast(99.0)));
    }
    {
        let _client = load(time.as_secs() + 4)?;
        std::thread::sleep(Duration::from_secs(2));
        let _statistics = Statistics::enable()?;
        let (before, ends) = (kernel_time::read(probe)?, ends_seen(&stack)?);
        std::thread::sleep(time);
        let (after, ends) = (kernel_time::read(probe)?, ends_seen(&stack)?.saturating_sub(ends));
        let (nanos, _) = kernel_time::between(&before, &after);
        let micros = float(nanos) / 1e3 / float(ends.max(1));
        // 10,000 ends a second of so many microseconds each: a hundredth of a core is 10,000 µs a second.
        numbers.push(
            Number::new("probe: kernel programs at 10,000 TCP ends/s, of one core", micros, "%", Target::Under(1.5))
                .beside("NFM 1.53, no process"),
        );
    }
    {
        let (_server, address) = parked_server()?;
        let mut clients = client(&address, &[format!("--count={}", OPEN / scale_down), "--park".to_owned()])?;
        clients.report()?;
        std::thread::sleep(seconds(40, scale_down));
        let what = format!("probe: resident with {} open sockets", OPEN / scale_down * 2);
        numbers.push(Number::new(what, resident(probe)?, "MB", Target::Under(60.0)));
    }
    Ok(numbers)
}

/// The first look of a probe on a node with that many sockets and tasks; the median of five starts.
fn snapshot(scale_down: u64) -> Result<Vec<Number>> {
    let (descriptors, tasks) = (DESCRIPTORS / scale_down, TASKS / scale_down);
    let (_server, address) = parked_server()?;
    let mut clients = client(&address, &[format!("--count={}", descriptors / 2), "--park".to_owned()])?;
    clients.report()?;
    let mut sleepers = Sleepers::default();
    for _ in 0..tasks.saturating_sub(tasks_there()?) {
        sleepers.0.push(Command::new("sleep").arg("600").spawn().context("cannot start sleep")?);
    }
    let there = tasks_there()?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let stack = Stack::start(Profile::Release)?;
        times.push(metric(&stack, "probe_snapshot_seconds")?.context("the probe does not time its first look")? * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let what = format!("probe: snapshot of {descriptors} descriptors and {there} tasks");
    Ok(vec![Number::new(what, percentile(&times, 0.5)?, "ms", Target::Under(50.0)).beside("Scope: 16 s a pass")])
}

/// Processes that do nothing; they end with this value.
#[derive(Debug, Default)]
struct Sleepers(Vec<std::process::Child>);

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended already is no error.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Tasks of this machine, threads included.
fn tasks_there() -> Result<u64> {
    let text = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let tasks = text.split_whitespace().nth(3).and_then(|word| word.split_once('/')?.1.parse().ok());
    tasks.with_context(|| format!("no number of tasks in {text:?}"))
}

/// As many short connections as this machine can make: is each counted, with its process?
fn highest(scale_down: u64) -> Result<Vec<Number>> {
    let mut stack = Stack::start(Profile::Release)?;
    let (server, address) = server()?;
    let port = port_of(&address);
    let time = seconds(HIGHEST, scale_down);
    let load = [format!("--count={}", u64::from(u32::MAX)), format!("--rate={}", 1_000_000_000), format!("--for-ms={}", time.as_millis())];
    let mut client = client(&address, &load)?;
    let report = {
        let _alive = Pulse::start(&format!("as many connections as can be for {} s", time.as_secs()));
        client.report()?
    };
    let made = counter(&report, "connected")?;
    let ends = [("client", client.pid()), ("server", server.pid())];
    let total = |stack: &Stack, field| ends.iter().map(|(end, pid)| flows_total(stack, *pid, end, &port, field).unwrap_or(0)).sum::<u64>();
    if let Err(error) = stack.until(SETTLE, "all are counted", |stack| total(stack, "closed") >= 2 * made) {
        note(format!("{error:#}").lines().next().unwrap_or_default());
    }
    let (opened, closed) = (total(&stack, "opened"), total(&stack, "closed"));
    let losses = &stack.probe_state()?["losses"];
    let rate = float(made) / time.as_secs_f64();
    Ok(vec![
        Number::new("probe: highest rate of connections here", rate, "/s", Target::Stated).beside("DeepFlow 122,000, NFM 70,000"),
        Number::new(
            "probe: ends of it opened, with the right process",
            float(opened) / float(2 * made) * 100.0,
            "%",
            Target::Exactly(100.0),
        ),
        Number::new("probe: ends of it closed", float(closed) / float(2 * made) * 100.0, "%", Target::Exactly(100.0)),
        Number::new(
            "probe: of it lost, by the probe's own count",
            float(losses["flowsUncounted"].as_u64().unwrap_or(0)),
            "",
            Target::Exactly(0.0),
        ),
    ])
}

/// The probe is killed under load and started again: what was made meanwhile?
fn restart(scale_down: u64) -> Result<Vec<Number>> {
    let (rate, away) = RESTART;
    let mut stack = Stack::start_pinned(Profile::Release)?;
    let (server, address) = server()?;
    let port = port_of(&address);
    let time = seconds(20, scale_down) + away;
    let mut client = client(&address, &[format!("--count={}", rate * time.as_secs()), format!("--rate={rate}")])?;
    let _alive = Pulse::start("the probe is killed under load, and started again");
    std::thread::sleep(seconds(5, scale_down));
    stack.kill_probe()?;
    std::thread::sleep(away);
    stack.start_probe()?;
    let made = counter(&client.report()?, "connected")?;
    let ends = [("client", client.pid()), ("server", server.pid())];
    let total = |stack: &Stack, field| ends.iter().map(|(end, pid)| flows_total(stack, *pid, end, &port, field).unwrap_or(0)).sum::<u64>();
    if let Err(error) = stack.until(SETTLE, "all are counted", |stack| total(stack, "closed") >= 2 * made) {
        note(format!("{error:#}").lines().next().unwrap_or_default());
    }
    let share = |count: u64| float(count) / float(2 * made) * 100.0;
    let (opened, closed) = (share(total(&stack, "opened")), share(total(&stack, "closed")));
    stack.detach()?;
    Ok(vec![
        Number::new("probe: ends opened over a kill and a restart, counted", opened, "%", Target::Exactly(100.0))
            .beside("no peer keeps them"),
        Number::new("probe: ends closed over a kill and a restart, counted", closed, "%", Target::Exactly(100.0)),
    ])
}

/// Requests a second of a plain HTTP server, with the probe and without, in turns.
fn felt_by_a_server(what: &str, options: &[String], scale_down: u64) -> Result<Vec<Number>> {
    let mut arguments = vec!["http".to_owned(), "--bind=127.0.0.1:0".to_owned()];
    arguments.extend_from_slice(options);
    let mut server = traffic(&arguments)?;
    let address = server.listening()?.to_string();
    let time = (PAIR_SECONDS / scale_down).max(2);
    let mut ratios = Vec::new();
    let _alive = Pulse::start(&format!("an HTTP server with and without the probe, {what}"));
    requests_per_second(&address, time)?;
    for pair in 0..(PAIRS / scale_down).max(2) {
        let with = |address: &str| {
            let _stack = Stack::start(Profile::Release)?;
            std::thread::sleep(Duration::from_secs(2));
            requests_per_second(address, time)
        };
        // What is first in a pair changes from pair to pair: a machine that grows warm or busy favours neither.
        let (with, without) = if pair % 2 == 0 {
            let with = with(&address)?;
            (with, requests_per_second(&address, time)?)
        } else {
            let without = requests_per_second(&address, time)?;
            (with(&address)?, without)
        };
        ratios.push((1.0 - with / without) * 100.0);
    }
    ratios.sort_by(f64::total_cmp);
    let median = percentile(&ratios, 0.5)?;
    let spread = (ratios.last().copied().unwrap_or(0.0) - ratios.first().copied().unwrap_or(0.0)) / 2.0;
    let number = Number::new(format!("probe: requests/s less with it, {what} (±{spread:.1})"), median, "%", Target::Under(1.0));
    Ok(vec![number.beside("DeepFlow +0.46 CPU")])
}

fn requests_per_second(address: &str, seconds: u64) -> Result<f64> {
    let output = Command::new("wrk")
        .args(["--threads=1", "--connections=16", &format!("--duration={seconds}s"), &format!("http://{address}/")])
        .output()
        .context("cannot start wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    rate_of_wrk(&text).with_context(|| format!("wrk said {text:?}"))
}

fn rate_of_wrk(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"))?.trim().parse().ok()
}

fn client(address: &str, options: &[String]) -> Result<Process> {
    let mut arguments = vec!["connect".to_owned(), format!("--to={address}"), "--stay".to_owned()];
    arguments.extend_from_slice(options);
    traffic(&arguments)
}

fn parked_server() -> Result<(Process, String)> {
    let mut server = traffic(&["serve".to_owned(), "--bind=127.0.0.1:0".to_owned(), "--park".to_owned()])?;
    let address = server.listening()?.to_string();
    Ok((server, address))
}

fn port_of(address: &str) -> String {
    address.rsplit(':').next().unwrap_or_default().to_owned()
}

fn resident(probe: u32) -> Result<f64> {
    resident_mb(probe).context("the probe is gone")
}

fn ends_seen(stack: &Stack) -> Result<u64> {
    Ok(stack.probe_state()?["losses"]["endsSeen"].as_u64().unwrap_or(0))
}

/// A number of the probe's own metrics; `None` when there is no such metric.
fn metric(stack: &Stack, name: &str) -> Result<Option<f64>> {
    let reply = crate::http::get(stack.admin(), "/metrics")?;
    Ok(reply.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()))
}

/// Share of the events that were told within some seconds; the bound must be one of the histogram's.
fn share_told_within(stack: &Stack, seconds: f64) -> Result<f64> {
    let within = metric(stack, &format!("probe_event_delivery_seconds_bucket{{le=\"{seconds}\"}}"))?;
    let all = metric(stack, "probe_event_delivery_seconds_count")?.filter(|all| *all > 0.0);
    Ok(within.context("the probe does not time what it tells")? / all.context("the probe has told nothing")?)
}

/// Memory of the kernel maps that a process holds, by the kernel's own account, in MB (10^6 bytes).
fn map_megabytes(pid: u32) -> Result<f64> {
    let directory = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(Path::new(&directory)).with_context(|| format!("cannot list {directory}"))?;
    let maps: std::collections::BTreeMap<u64, u64> =
        entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).filter_map(|text| map_memory(&text)).collect();
    if maps.is_empty() {
        bail!("the probe holds no kernel map");
    }
    Ok(float(maps.values().sum()) / 1e6)
}

/// Id and bytes of a map, from a descriptor's information.
fn map_memory(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().parse().ok();
    Some((field("map_id")?, field("memlock")?))
}

/// Every id of the nodes that a message of a view adds or changes.
fn ids_told(message: &Value) -> impl Iterator<Item = &str> {
    ["add", "update"].into_iter().flat_map(|kind| message[kind].as_array().into_iter().flatten()).filter_map(|node| node["id"].as_str())
}

fn watch_containers(stack: &Stack) -> Result<Socket> {
    Socket::open(stack.http(), "/api/topology/containers/ws?t=1s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_tells_its_rate() {
        assert_eq!(rate_of_wrk("Running 8s test\n  Latency 1ms\nRequests/sec:  48213.77\nTransfer/sec: 2MB\n"), Some(48_213.77));
        assert_eq!(rate_of_wrk("unable to connect"), None);
    }

    #[test]
    fn a_map_is_known_by_its_id_and_memory() {
        assert_eq!(map_memory("pos:\t0\nmap_type:\t1\nmemlock:\t1441792\nmap_id:\t12\n"), Some((12, 1_441_792)));
        assert_eq!(map_memory("pos:\t0\nprog_id:\t7\n"), None);
    }
}
