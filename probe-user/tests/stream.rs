//! The driver and the uplink against a control plane in this process: what happens to a stream when things go wrong.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use orchestrator_probe::clock::Now;
use orchestrator_probe::driver::{Driver, INPUTS_MAX, Input, OBSERVATIONS_MAX};
use orchestrator_probe::observation::{Observation, ProcessStarted};
use orchestrator_probe::procfs::{Arguments, Procfs};
use orchestrator_probe::publisher::{Limits, Publisher};
use orchestrator_probe::report::Builder;
use orchestrator_probe::telemetry::Telemetry;
use orchestrator_probe::uplink::{self, Identity};
use support::{ControlPlane, spawn};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

mod support;

/// A probe that sees what the test makes it see. Its `/proc` is empty.
struct Probe {
    observations: mpsc::Sender<Vec<Observation>>,
    _inputs: mpsc::Sender<Input>,
    telemetry: Telemetry,
    finish: CancellationToken,
    finished: CancellationToken,
    proc: tempfile::TempDir,
}

impl Probe {
    fn start(control_plane: &ControlPlane, held_bytes: usize) -> Self {
        let proc = tempfile::tempdir().unwrap();
        let procfs = Arc::new(Procfs::new(proc.path(), Arguments::Show));
        let telemetry = Telemetry::new();
        let limits = Limits { held_bytes, ..Limits::default() };
        let driver = Driver::new(Publisher::new(Builder::default(), limits), procfs, telemetry.clone());
        let (observations, observed) = mpsc::channel(OBSERVATIONS_MAX);
        let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
        let (finish, finished) = (CancellationToken::new(), CancellationToken::new());
        let (stop, end) = (finish.clone(), finished.clone());
        spawn(async move {
            driver.run(observed, inbox, stop).await;
            end.cancel();
        });
        let way = probe_endpoint::ControlPlane::parse(&control_plane.url(), probe_endpoint::Tls::default()).unwrap();
        let identity = Identity {
            probe_id: "probe".to_owned(),
            host_name: "host".to_owned(),
            session_id: "session".to_owned(),
            cluster_name: String::new(),
        };
        let controls = uplink::Controls::refused(Telemetry::new().metrics().desk());
        spawn(uplink::run(way, identity, controls, inputs.clone(), finish.clone()));
        Probe { observations, _inputs: inputs, telemetry, finish, finished, proc }
    }

    async fn fork(&self, pids: std::ops::Range<u32>) {
        let at = Now::read().boot;
        let started = |pid| {
            let comm = format!("process-{pid}");
            Observation::ProcessStarted(ProcessStarted { at, pid, start_time: Some(at), comm, ..ProcessStarted::default() })
        };
        self.observations.send(pids.map(started).collect()).await.unwrap();
    }
}

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a_stream_begins_with_a_snapshot_and_goes_on_with_deltas() {
    let control_plane = ControlPlane::start().await;
    let probe = Probe::start(&control_plane, MIB);
    control_plane.wait_for("a snapshot", |known| known.snapshots == 1).await;
    probe.fork(10..13).await;
    control_plane.wait_for("the processes", |known| known.processes.len() == 3).await;
    let known = control_plane.known();
    assert_eq!(known.process(12).map(|it| it.name.as_str()), Some("process-12"));
    assert_eq!((known.snapshots, known.hellos.len()), (1, 1));
    assert_eq!((known.hellos[0].probe_id.as_str(), known.hellos[0].host_name.as_str()), ("probe", "host"));
}

#[tokio::test]
async fn a_stream_that_breaks_is_resumed_without_a_snapshot_and_nothing_is_missing() {
    let control_plane = ControlPlane::start().await;
    let probe = Probe::start(&control_plane, MIB);
    control_plane.wait_for("a snapshot", |known| known.snapshots == 1).await;
    for round in 1..5 {
        probe.fork(round * 10..round * 10 + 5).await;
        control_plane.break_streams();
        probe.fork(round * 10 + 5..round * 10 + 10).await;
    }
    control_plane.wait_for("all processes", |known| known.processes.len() == 40).await;
    let known = control_plane.known();
    assert!(known.hellos.len() >= 2);
    assert!(known.hellos[1..].iter().all(|it| it.session_id == known.hellos[0].session_id));
    assert_eq!(known.snapshots, 1, "what was held made a snapshot unnecessary");
}

#[tokio::test]
async fn reports_that_were_not_acknowledged_are_sent_again_on_the_next_stream() {
    let control_plane = ControlPlane::start().await;
    let probe = Probe::start(&control_plane, MIB);
    control_plane.wait_for("a snapshot", |known| known.snapshots == 1).await;
    control_plane.known().withhold_acknowledgements = true;
    probe.fork(10..20).await;
    control_plane.wait_for("the processes", |known| known.processes.len() == 10).await;
    control_plane.known().withhold_acknowledgements = false;
    control_plane.break_streams();
    control_plane.wait_for("a second stream", |known| known.hellos.len() == 2).await;
    let held = control_plane.known().hellos[1].oldest_held_sequence;
    assert_eq!(held, 2, "the snapshot was acknowledged, the delta was not");
    probe.fork(20..21).await;
    control_plane.wait_for("the eleventh process", |known| known.processes.len() == 11).await;
}

#[tokio::test]
async fn a_control_plane_that_was_killed_gets_everything_again_within_five_seconds() {
    let control_plane = ControlPlane::start().await;
    let probe = Probe::start(&control_plane, MIB);
    probe.fork(10..500).await;
    control_plane.wait_for("all processes", |known| known.processes.len() == 490).await;
    control_plane.forget();
    let begun = std::time::Instant::now();
    control_plane.wait_for("all processes again", |known| known.processes.len() == 490 && known.snapshots == 1).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_snapshot_is_sent_when_the_control_plane_lost_track() {
    let control_plane = ControlPlane::start().await;
    let probe = Probe::start(&control_plane, MIB);
    probe.fork(10..20).await;
    control_plane.wait_for("all processes", |known| known.processes.len() == 10).await;
    let snapshots = control_plane.known().snapshots;
    control_plane.known().reject_next = true;
    probe.fork(20..21).await;
    control_plane.wait_for("a snapshot", |known| known.snapshots == snapshots + 1 && known.processes.len() == 11).await;
    assert_eq!(probe.telemetry.metrics().reports_rejected.get(), 1);
    assert_eq!(control_plane.known().hellos.len(), 1, "the stream went on");
}

#[tokio::test]
async fn a_buffer_that_overflows_is_given_up_counted_and_made_up_for() {
    let control_plane = ControlPlane::start().await;
    let probe = Probe::start(&control_plane, 8 * 1024);
    control_plane.wait_for("a snapshot", |known| known.snapshots == 1).await;
    control_plane.known().withhold_acknowledgements = true;
    for round in 0..10 {
        probe.fork(100 + round * 50..150 + round * 50).await;
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    control_plane.known().withhold_acknowledgements = false;
    control_plane.break_streams();
    control_plane.wait_for("all processes", |known| known.processes.len() == 500).await;
    control_plane.wait_for("the loss", |known| known.losses_merged > 0).await;
    assert!(control_plane.known().snapshots >= 2);
}

#[tokio::test]
async fn a_control_plane_that_reads_nothing_costs_no_memory_and_gets_all_later() {
    let control_plane = ControlPlane::start().await;
    let probe = Probe::start(&control_plane, 64 * 1024);
    control_plane.wait_for("a snapshot", |known| known.snapshots == 1).await;
    control_plane.known().stall = true;
    for round in 0..20 {
        probe.fork(1_000 + round * 200..1_200 + round * 200).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(probe.telemetry.metrics().outbox_bytes.get() <= 64 * 1024);
    }
    control_plane.known().stall = false;
    control_plane.wait_for("all processes", |known| known.processes.len() == 4_000).await;
}

#[tokio::test]
async fn a_probe_that_stops_tells_its_last_and_says_goodbye() {
    let control_plane = ControlPlane::start().await;
    let probe = Probe::start(&control_plane, MIB);
    control_plane.wait_for("a snapshot", |known| known.snapshots == 1).await;
    probe.fork(10..20).await;
    probe.finish.cancel();
    tokio::time::timeout(Duration::from_secs(5), probe.finished.cancelled()).await.unwrap();
    control_plane.wait_for("goodbye", |known| known.goodbyes == 1).await;
    assert_eq!(control_plane.known().processes.len(), 10);
}

#[tokio::test]
async fn a_probe_without_a_control_plane_stops_at_once() {
    let mut control_plane = ControlPlane::start().await;
    control_plane.address = "127.0.0.1:9".parse().unwrap();
    let probe = Probe::start(&control_plane, MIB);
    probe.fork(10..20).await;
    probe.finish.cancel();
    tokio::time::timeout(Duration::from_secs(2), probe.finished.cancelled()).await.unwrap();
}

#[tokio::test]
async fn a_process_that_hangs_does_not_keep_the_probe_from_telling_of_it_and_of_others() {
    let control_plane = ControlPlane::start().await;
    let probe = Probe::start(&control_plane, MIB);
    control_plane.wait_for("a snapshot", |known| known.snapshots == 1).await;
    let directory = |pid: u32| probe.proc.path().join(pid.to_string());
    for pid in [10, 11] {
        std::fs::create_dir(directory(pid)).unwrap();
        let stat =
            format!("{pid} (quiet) S 1 20 20 0 -1 4194304 100 0 0 0 7 3 0 0 20 0 5 0 12345 1000000 250 18446744073709551615 1 1 0 0 0");
        std::fs::write(directory(pid).join("stat"), stat).unwrap();
        std::fs::write(directory(pid).join("status"), "Uid:\t7\t7\t7\t7\n").unwrap();
        std::fs::write(directory(pid).join("cgroup"), "0::/user.slice\n").unwrap();
        std::fs::write(directory(pid).join("cmdline"), format!("process {pid}\0--all\0")).unwrap();
    }
    // Nobody will ever write into it: who opens it waits.
    let hanging = directory(10).join("cmdline");
    std::fs::remove_file(&hanging).unwrap();
    nix::unistd::mkfifo(&hanging, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let at = Now::read().boot;
    let started = |pid: u32| {
        let start_time = Some(orchestrator_probe::observation::BootNanos(123_450_000_000));
        Observation::ProcessStarted(ProcessStarted { at, pid, start_time, comm: "quiet".to_owned(), ..ProcessStarted::default() })
    };
    probe.observations.send(vec![started(10), started(11)]).await.unwrap();
    control_plane.wait_for("both, at once", |known| known.processes.len() == 2).await;
    control_plane.wait_for("the one that can be read", |known| known.process(11).is_some_and(|it| it.name == "process 11")).await;
    let outlined = |known: &support::Known| known.process(10).is_some_and(|it| it.user_id == 7 && it.command_line == "quiet");
    control_plane.wait_for("the other, without its command line", outlined).await;
    let told = |known: &support::Known| known.capture.blind_spots.iter().any(|it| it.contains("hang"));
    control_plane.wait_for("that it hangs", told).await;
    drop(std::fs::OpenOptions::new().write(true).open(&hanging).unwrap());
}
