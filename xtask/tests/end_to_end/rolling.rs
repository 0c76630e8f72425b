//! Three control planes are restarted one by one, as a rolling update does it, under load: no report of a probe and no request is lost.
//!
//! The rule that clients keep: a request that could not be delivered, or whose connection was closed before the first byte of an answer, is made
//! again, to any of them, and so is one that is answered with 503 and so was not carried out. Nothing else may happen to a request. And since the one
//! that goes is not asked any more when it goes, as behind a Service, none of that happens at all: those that follow hold what comes until one leads.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use xtask::http;

use crate::replicas::{self, ControlPlane, Program, until};
use crate::world::{self, cannot};

/// What says how long a control plane is given to stop.
const MANIFEST: &str = include_str!("../../../deploy/k8s/base/control-plane.yaml");
/// For how long a client tries.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);

/// The number that follows a key, which the manifest has once.
fn seconds(key: &str) -> Result<Duration> {
    let (_, rest) = MANIFEST.split_once(key).with_context(|| format!("the manifest has no {key}"))?;
    let number = rest.split_whitespace().next().unwrap_or_default();
    Ok(Duration::from_secs(number.parse().with_context(|| format!("the manifest has {key} {number}"))?))
}

/// The control planes that connections are sent to, as the endpoints of a Service are: what is about to go is taken out first.
type Endpoints = Arc<Mutex<Vec<SocketAddr>>>;

/// Stands where a Service stands: each new connection goes to one of the endpoints, in turn.
fn service(endpoints: Endpoints) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let turn = AtomicU64::new(0);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let targets = endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if targets.is_empty() {
                continue;
            }
            let at = usize::try_from(turn.fetch_add(1, Ordering::Relaxed)).unwrap_or(0) % targets.len();
            let Ok(there) = TcpStream::connect(targets[at]) else { continue };
            let (Ok(mut up_from), Ok(mut up_to)) = (stream.try_clone(), there.try_clone()) else { continue };
            let (mut down_from, mut down_to) = (there, stream);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut up_from, &mut up_to);
                let _ = up_to.shutdown(std::net::Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut down_from, &mut down_to);
                let _ = down_to.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    Ok(address)
}

/// What became of one attempt.
enum Attempt {
    Answered(u16, String),
    /// Nothing of an answer came: it may be made again.
    Undelivered(String),
}

fn attempt(server: SocketAddr, request: &str) -> Result<Attempt> {
    let undelivered = |error: std::io::Error| Ok(Attempt::Undelivered(error.to_string()));
    let mut stream = match TcpStream::connect(server) {
        Ok(stream) => stream,
        Err(error) => return undelivered(error),
    };
    stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
    if let Err(error) = stream.write_all(request.as_bytes()) {
        return undelivered(error);
    }
    let mut answer = Vec::new();
    let outcome = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        return match outcome {
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("no answer within {CLIENT_PATIENCE:?}"),
            Err(error) => undelivered(error),
            Ok(_) => Ok(Attempt::Undelivered("closed without an answer".to_owned())),
        };
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("an answer was cut off: {text:.200}"))?;
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
    ensure!(length.is_none_or(|length| body.len() == length), "an answer was cut off after {} of {length:?} bytes", body.len());
    ensure!(!head.to_lowercase().contains("transfer-encoding: chunked") || body.ends_with("0\r\n\r\n"), "an answer was cut off: {head}");
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).with_context(|| format!("no status: {head}"))?;
    Ok(Attempt::Answered(status, body.to_owned()))
}

/// What became of the requests of a client.
struct Outcome {
    name: &'static str,
    made: u64,
    /// Why some had to be made again.
    again: Vec<String>,
}

/// A client of one of the APIs: asks again and again, by the rule, until it is told to end.
fn client(name: &'static str, endpoints: &Endpoints, make: impl Fn(u64) -> String, ends: &AtomicBool) -> Result<Outcome> {
    let (mut made, mut again) = (0, Vec::new());
    while !ends.load(Ordering::Relaxed) {
        let body = make(made);
        let begun = Instant::now();
        let mut turn = made;
        loop {
            let targets = endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let at = usize::try_from(turn).unwrap_or(0) % targets.len();
            let last = match attempt(targets[at], &body).with_context(|| format!("request {made}: {:.60}", body))? {
                Attempt::Answered(503, text) => format!("503: {text:.200}"),
                Attempt::Answered(status, text) => {
                    ensure!((200..300).contains(&status), "request {made} ({:.60}): {status}: {text:.300}", body);
                    break;
                }
                Attempt::Undelivered(why) => why,
            };
            ensure!(begun.elapsed() < CLIENT_PATIENCE, "request {made} ({:.60}) was not answered in {CLIENT_PATIENCE:?}: {last}", body);
            again.push(format!("request {made} at {}: {last}", targets[at]));
            turn += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
        made += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Outcome { name, made, again })
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n")
}

/// Each change of the app can be told from the one before.
fn change(number: u64) -> String {
    let body = json!({ "labels": { "change": number.to_string() } }).to_string();
    format!(
        "PUT /v2/apps/rolling?force=true HTTP/1.1\r\nHost: control\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn stop(plane: &mut ControlPlane, grace: Duration) -> Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(plane.program.0.id())?);
    let begun = Instant::now();
    kill(pid, Signal::SIGTERM)?;
    while begun.elapsed() < grace {
        if let Some(status) = plane.program.0.try_wait()? {
            ensure!(status.success(), "a control plane that was told to stop ended with {status}");
            return Ok(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("a control plane did not stop within {grace:?}")
}

#[test]
fn a_rolling_restart_loses_no_report_and_no_request() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return cannot("the probe needs root").map(|_: Option<()>| ());
    }
    // While `preStop` sleeps no new connection is sent to one that is about to go; that is part of what it has before it is killed.
    let pre_stop = seconds(" seconds:")?;
    let grace = seconds(" terminationGracePeriodSeconds:")?.saturating_sub(pre_stop);
    let directory = tempfile::TempDir::with_prefix("orchestrator-rolling-")?;
    let directory = directory.path();
    let Some((_zookeeper, zookeeper)) = replicas::zookeeper(directory)? else { return Ok(()) };
    let mut planes = Vec::new();
    for number in 0..3 {
        planes.push(replicas::control_plane(directory, number, zookeeper)?);
    }
    let leads = |plane: &ControlPlane| http::get(plane.mesos, "/state").is_ok_and(|reply| reply.status == 200);
    until("one leads", || Ok(planes.iter().filter(|plane| leads(plane)).count() == 1))?;
    let endpoints = |of: fn(&ControlPlane) -> SocketAddr| -> Endpoints { Arc::new(Mutex::new(planes.iter().map(of).collect())) };
    let (pages, grpcs, marathons) = (endpoints(|it| it.http), endpoints(|it| it.grpc), endpoints(|it| it.marathon));

    let admin = replicas::free_address()?;
    let mut probe = Command::new(replicas::binary("orchestrator-probe"));
    probe.args(["--control-plane", &format!("http://{}", service(grpcs.clone())?), "--admin-address", &admin.to_string()]);
    probe.args(["--no-cloud-metadata", "--state-dir"]).arg(directory.join("probe"));
    let _probe = Program::start(&mut probe, &directory.join("probe.log"))?;
    until("the probe is ready", || Ok(http::get(admin, "/ready")?.status == 200))?;

    // Somebody who goes on talking through every restart.
    let (_server, listening) = world::serve(&mut world::traffic(), "127.0.0.1:0", 100)?;
    let app = json!({ "id": "/rolling", "cmd": "sleep 1", "instances": 0 });
    until("the app is taken", || {
        let reply = http::send(planes[0].marathon, "POST", "/v2/apps", Some(&app))?;
        Ok(reply.status == 201 || reply.status == 409)
    })?;

    let ends = AtomicBool::new(false);
    let (mut talks, mut each) = (Vec::new(), 0);
    let outcome = std::thread::scope(|scope| -> Result<Vec<Outcome>> {
        let clients = [
            scope.spawn(|| client("the map", &pages, |_| get("/api/topology/hosts"), &ends)),
            scope.spawn(|| client("Marathon, reading", &marathons, |_| get("/v2/apps/rolling"), &ends)),
            scope.spawn(|| client("Marathon, writing", &marathons, change, &ends)),
        ];
        let rolled = (|| -> Result<()> {
            for number in 0..planes.len() {
                // As Kubernetes does it: out of the endpoints, a sleep, SIGTERM, and the next one when this one is ready again.
                let (page, grpc, marathon) = (planes[number].http, planes[number].grpc, planes[number].marathon);
                let led = leads(&planes[number]);
                for (list, gone) in [(&pages, page), (&grpcs, grpc), (&marathons, marathon)] {
                    list.lock().unwrap_or_else(PoisonError::into_inner).retain(|it| *it != gone);
                }
                // Here nobody has to hear of the endpoints first. And the next leader is told of what ended at most 15 s before: all three
                // restarts have to fit into that.
                std::thread::sleep(pre_stop.min(Duration::from_secs(2)));
                let took = stop(&mut planes[number], grace)?;
                // While one is away, connections come and go.
                talks.push(world::connect(&mut world::traffic(), listening, 50, 10)?);
                // And some whose process is gone before another control plane can hear of it.
                drop(world::connect(&mut world::traffic(), listening, 25, 10)?);
                each += 75;
                replicas::again(&mut planes[number], directory, number, zookeeper)?;
                until("it is ready again", || Ok(http::get(page, "/ready").is_ok_and(|reply| reply.status == 200)))?;
                for (list, back) in [(&pages, page), (&grpcs, grpc), (&marathons, marathon)] {
                    list.lock().unwrap_or_else(PoisonError::into_inner).push(back);
                }
                println!("control plane {number}{} stopped in {took:?}", if led { ", which led," } else { "" });
                until("one leads", || Ok(planes.iter().filter(|plane| leads(plane)).count() == 1))?;
            }
            std::thread::sleep(Duration::from_secs(2));
            Ok(())
        })();
        ends.store(true, Ordering::Relaxed);
        let mut counted = Vec::new();
        for client in clients {
            counted.push(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        rolled.map(|()| counted)
    })?;
    for Outcome { name, made, again } in &outcome {
        let repeated = again.len();
        println!("{name}: {made} requests, {repeated} of them made again");
        ensure!(*made > 50, "{name}: {made} requests are no load");
        ensure!(repeated == 0, "{name}: {repeated} of {made} requests had to be made again: {}", again.join("; "));
    }

    // The last change that was answered is what is there.
    let app = http::get_json(planes[0].marathon, "/v2/apps/rolling")?;
    let written = outcome.iter().find(|it| it.name == "Marathon, writing").map_or(0, |it| it.made);
    ensure!(app["app"]["labels"]["change"] == (written - 1).to_string(), "{}; {written} changes were made", app["app"]["labels"]);
    // Every connection is on the map of whoever leads now, and the probe has thrown nothing away.
    let port = listening.port();
    let mut seen = 0;
    let found = until("every connection is on the map", || {
        let flows = http::get_json(planes[0].http, &format!("/api/v1/flows?port={port}&direction=client&limit=500"))?;
        seen = flows["flows"].as_array().into_iter().flatten().filter_map(|flow| flow["opened"].as_u64()).sum();
        Ok(seen == each)
    });
    found.with_context(|| format!("{seen} of {each} connections"))?;
    let metrics = http::get(admin, "/metrics")?.text();
    let value = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    let lost =
        metrics.lines().filter(|line| line.starts_with("probe_lost_total") && !line.contains("reports_merged") && !line.ends_with(" 0"));
    ensure!(lost.clone().next().is_none(), "{:?}", lost.collect::<Vec<_>>());
    // A control plane that has just taken the lead knows nothing: what waited to be told then is told as part of the whole.
    println!("reports that became part of a snapshot: {:?}", value("probe_lost_total{cause=\"reports_merged\"}"));
    ensure!(value("probe_reports_rejected_total") == Some(0.0), "reports were rejected");
    ensure!(value("probe_streams_opened_total").is_some_and(|opened| opened >= 2.0), "the probe never changed over: nothing was tested");
    Ok(())
}
