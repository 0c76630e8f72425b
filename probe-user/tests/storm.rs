//! A storm of processes: the probe stays small, and says what it dropped.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{ControlPlane, is_root, missing};

mod support;

/// Short processes, of four parents at once: within what any machine allows.
const COUNT: u64 = 20_000;
const PARENTS: u64 = 4;

/// What the probe may have resident meanwhile of its own. With the 20 MB that are mapped from the program that ships it stays under its 60 MB; the one
/// that is tested here is not optimised, and has twice as much of those.
const RESIDENT_MAX: u64 = 40 * 1024 * 1024;

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() * 1_024
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_short_processes_leave_the_probe_small_and_honest() {
    if !is_root() {
        return missing("root");
    }
    let control_plane = ControlPlane::start().await;
    let mut probe = Command::new(env!("CARGO_BIN_EXE_orchestrator-probe"))
        .args(["--control-plane", &control_plane.url(), "--admin-address", "off", "--no-docker", "--no-cloud-metadata"])
        .args(["--capture", "ebpf", "--pin-dir", "off", "--probe-id", "storm", "--log-filter", "warn"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    control_plane.wait_for("its snapshot", |known| known.has_heard(1) && known.capture.rung == 1).await;
    let script = format!("i=0; while [ $i -lt {} ]; do /bin/true; i=$((i+1)); done", COUNT / PARENTS);
    let storm = |_| Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    let mut storms: Vec<_> = (0..PARENTS).map(storm).collect();
    let (begun, mut largest) = (Instant::now(), 0);
    while storms.iter_mut().any(|storm| storm.try_wait().unwrap().is_none()) {
        largest = largest.max(resident_bytes(probe.id()));
        assert!(begun.elapsed() < Duration::from_secs(300));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = begun.elapsed();
    // It goes on: a process that begins now is told.
    let mut last = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = last.id();
    control_plane.wait_for("a process after the storm", |known| known.process(pid).is_some()).await;
    largest = largest.max(resident_bytes(probe.id()));
    let losses = control_plane.known().losses.clone().unwrap_or_default();
    for child in [&mut last, &mut probe] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    eprintln!(
        "{COUNT} processes in {took:?}: at most {} MiB resident, lost {:?}, table {}",
        largest >> 20,
        losses.ring_records,
        losses.table_full
    );
    assert!(largest < RESIDENT_MAX, "{largest} bytes");
}
