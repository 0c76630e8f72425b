//! Pipes: a thousand of them open, and as much as goes through one. Both ends are WebSockets, as those of Scope's own probes and pages.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

use super::plane::{Plane, Size};
use super::{Number, Target, float};
use crate::progress::Pulse;

/// Pipes that are open at once.
const PIPES: usize = 1_000;
/// How long bytes are sent through one.
const TIME: Duration = Duration::from_secs(10);
/// Bytes of a message, as a probe sends the output of a program.
const MESSAGE: usize = 64 << 10;

pub(super) fn run(binaries: &Path, scale_down: u64) -> Result<Vec<Number>> {
    let plane = Plane::empty(binaries, Size { probes: 1, containers: 1, processes: 1, flows: 1 })?;
    let before = plane.resident()?;
    let count = (PIPES / usize::try_from(scale_down).unwrap_or(1)).max(1);
    let mut open = Vec::with_capacity(count);
    for number in 0..count {
        let (probe, client) = (end(plane.http(), number, "/probe")?, end(plane.http(), number, "")?);
        open.push((probe, client));
    }
    // Each carries something, both ways.
    for (probe, client) in &mut open {
        pass(probe, client)?;
        pass(client, probe)?;
    }
    let listed = plane.metric("orchestrator_pipes")?;
    let idle = (plane.resident()? - before) * 1e3 / float(count as u64);
    let mut numbers = vec![
        Number::new(format!("app: {count} pipes, open"), listed, "", Target::Exactly(float(count as u64))),
        Number::new("app: a pipe with both its ends, resident", idle, "kB", Target::Stated),
    ];
    let resident = plane.resident()?;
    let (probe, client) = open.pop().context("no pipe is left")?;
    let (rate, peak, client) = blast(&plane, probe, client)?;
    numbers.push(Number::new("app: through one pipe", rate, "MB/s", Target::AtLeast(100.0)));
    numbers.push(Number::new("app: through one pipe, memory that came to it", peak - resident, "MB", Target::Under(10.0)));
    drop(client);
    let (probe, client) = open.pop().context("no pipe is left")?;
    numbers.push(Number::new(
        "app: written into a pipe that nobody reads, until it takes no more",
        stuck(probe, &client)?,
        "MB",
        Target::Under(20.0),
    ));
    numbers.push(Number::new("app: memory that came to it", plane.resident()? - peak, "MB", Target::Under(10.0)));
    Ok(numbers)
}

type End = WebSocket<TcpStream>;

fn end(server: SocketAddr, number: usize, which: &str) -> Result<End> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let config = WebSocketConfig::default().read_buffer_size(256 << 10).write_buffer_size(0);
    let url = format!("ws://{server}/api/pipe/pipe-{}{which}", 1_000_000 + number);
    let opened = tungstenite::client::client_with_config(url, stream, Some(config));
    opened.map(|(socket, _)| socket).map_err(|error| anyhow::anyhow!("a pipe cannot be opened: {error}"))
}

/// A word from one end to the other.
fn pass(from: &mut End, to: &mut End) -> Result<()> {
    from.send(Message::binary(b"hello".to_vec()))?;
    if to.read()?.into_data().as_ref() != b"hello" {
        bail!("a pipe says something else than was put in");
    }
    Ok(())
}

/// As much as goes through; and how much memory the control plane had meanwhile.
fn blast(plane: &Plane, mut probe: End, mut client: End) -> Result<(f64, f64, End)> {
    let (ended, read) = (AtomicBool::new(false), AtomicU64::new(0));
    let _alive = Pulse::start(&format!("as much as goes through a pipe for {} s", TIME.as_secs()));
    thread::scope(|scope| {
        scope.spawn(|| {
            let bytes = tungstenite::Bytes::from(vec![b'x'; MESSAGE]);
            while !ended.load(Ordering::Relaxed) && probe.send(Message::Binary(bytes.clone())).is_ok() {}
        });
        let reader = scope.spawn(|| {
            while let Ok(message) = client.read() {
                read.fetch_add(message.len() as u64, Ordering::Relaxed);
                if ended.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        thread::sleep(Duration::from_secs(1));
        let (begun, before) = (Instant::now(), read.load(Ordering::Relaxed));
        let mut peak = 0.0_f64;
        while begun.elapsed() < TIME {
            thread::sleep(Duration::from_millis(100));
            peak = peak.max(plane.resident()?);
        }
        let rate = float(read.load(Ordering::Relaxed) - before) / begun.elapsed().as_secs_f64() / 1e6;
        ended.store(true, Ordering::Relaxed);
        drop(reader.join());
        Ok::<_, anyhow::Error>((rate, peak))
    })
    .map(|(rate, peak)| (rate, peak, client))
}

/// How much is taken from a writer while the reader does not read.
fn stuck(mut probe: End, _client: &End) -> Result<f64> {
    probe.get_mut().set_write_timeout(Some(Duration::from_secs(3)))?;
    let bytes = tungstenite::Bytes::from(vec![b'x'; MESSAGE]);
    let mut sent = 0;
    while probe.send(Message::Binary(bytes.clone())).is_ok() {
        sent += MESSAGE as u64;
        if sent > 1 << 30 {
            bail!("a pipe that nobody reads takes a gigabyte");
        }
    }
    Ok(float(sent) / 1e6)
}
