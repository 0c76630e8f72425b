//! What Weave Scope's probes reported, kept for the history: a loop that writes reports down as they came, and the way to those of a moment.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use archive::{Archive, Settings, Shelf};
use base::Timestamp;
use scope_report::{Compression, Format, Limits, Report, Window, WindowLimits, decode_weighed};

use crate::problems::{Part, Problems};
use crate::telemetry::Telemetry;
use crate::telemetry::events::HistoryFailed;

/// Bodies that wait to be written, and their bytes. Beyond that they are not kept, and counted.
const QUEUE_CAPACITY: usize = 256;
const QUEUE_BYTES: u64 = 128 << 20;
/// How often what is too old is removed.
const TEND_INTERVAL: Duration = Duration::from_secs(10);
/// Moments whose reports are kept merged: pages that look at the same one ask again and again.
const MERGED_KEPT: usize = 2;

/// A way to the reports; cheap to clone.
#[derive(Clone, Debug)]
pub struct OldReports(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: SyncSender<(Timestamp, Vec<u8>)>,
    queued_bytes: Arc<AtomicU64>,
    lost: AtomicU64,
    shelf: Shelf,
    window: Duration,
    limits: (Limits, WindowLimits),
    merged: Mutex<VecDeque<Merged>>,
}

/// The reports of some moments as one; `None` when there were none.
#[derive(Debug)]
struct Merged {
    /// When each of them came.
    of: Vec<Timestamp>,
    report: Arc<Report>,
}

/// Opens the reports that are kept. Gives back the way to them, and the loop that writes, which blocks and ends when nobody has a way any more or
/// `stopping` says so.
///
/// # Errors
/// When the directory cannot be used.
pub fn open(
    settings: Settings,
    window: Duration,
    limits: (Limits, WindowLimits),
    told: (Telemetry, Problems),
    (stopping, now): (impl Fn() -> bool + Send + 'static, impl Fn() -> Timestamp + Send + 'static),
) -> std::io::Result<(OldReports, impl FnOnce() + Send + 'static)> {
    let archive = Archive::open(settings)?;
    let (queue, bodies) = sync_channel(QUEUE_CAPACITY);
    let queued_bytes = Arc::new(AtomicU64::new(0));
    let shelf = archive.shelf().clone();
    let lost = AtomicU64::new(0);
    let reports =
        OldReports(Arc::new(Inner { queue, queued_bytes: queued_bytes.clone(), lost, shelf, window, limits, merged: Mutex::default() }));
    Ok((reports, move || write(archive, &bodies, &queued_bytes, &told, stopping, now)))
}

fn write(
    mut archive: Archive,
    bodies: &Receiver<(Timestamp, Vec<u8>)>,
    queued_bytes: &AtomicU64,
    (telemetry, problems): &(Telemetry, Problems),
    stopping: impl Fn() -> bool,
    now: impl Fn() -> Timestamp,
) {
    let mut tended = Instant::now();
    loop {
        match bodies.recv_timeout(Duration::from_millis(500)) {
            Ok((at, body)) => {
                queued_bytes.fetch_sub(body.len() as u64, Ordering::Relaxed);
                match archive.append(at, &body) {
                    Ok(()) => {
                        if problems.take_back(Part::OldReports) {
                            tracing::info!("the reports of Weave Scope's probes are kept again");
                        }
                    }
                    Err(error) => {
                        HistoryFailed { error: &error }.emit(telemetry);
                        problems.say(Part::OldReports, "the reports of Weave Scope's probes are not kept", &error);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) if stopping() => return,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if tended.elapsed() >= TEND_INTERVAL {
            archive.tend(now());
            tended = Instant::now();
        }
    }
}

impl OldReports {
    /// A report came, in these bytes.
    pub fn keep(&self, at: Timestamp, format: Format, compression: Compression, body: &[u8]) {
        let inner = &self.0;
        let is_room = inner.queued_bytes.load(Ordering::Relaxed) + body.len() as u64 <= QUEUE_BYTES;
        let mut packed = Vec::with_capacity(body.len() + 1);
        packed.push(u8::from(format == Format::Json) | (u8::from(compression == Compression::Gzip) << 1));
        packed.extend_from_slice(body);
        let length = packed.len() as u64;
        inner.queued_bytes.fetch_add(length, Ordering::Relaxed);
        if !is_room || packed.len() > archive::BODY_MAX || inner.queue.try_send((at, packed)).is_err() {
            inner.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            inner.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reports that found no room to be kept, since the start.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.0.shelf.bytes()
    }

    /// What was in the window at a moment, as one; `None` when nothing was. Reads files: for where that may take its time.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn at(&self, at: Timestamp) -> std::io::Result<Option<Arc<Report>>> {
        let inner = &self.0;
        let is_there = inner.shelf.span().is_some_and(|(from, to)| from <= at && at.since(to) < inner.window);
        let records = if is_there { inner.shelf.between(at - inner.window, at)? } else { Vec::new() };
        if records.is_empty() {
            return Ok(None);
        }
        let of: Vec<Timestamp> = records.iter().map(|record| record.at).collect();
        if let Some(merged) = self.merged().iter().find(|merged| merged.of == of) {
            return Ok(Some(merged.report.clone()));
        }
        let (limits, window_limits) = inner.limits;
        let mut window = Window::new(inner.window, window_limits);
        for record in records {
            let Some((flags, body)) = record.body.split_first() else { continue };
            let format = if flags & 1 == 0 { Format::Msgpack } else { Format::Json };
            let compression = if flags & 2 == 0 { Compression::None } else { Compression::Gzip };
            // It was read when it came; a file that says otherwise is passed over like any damage.
            if let Ok(report) = decode_weighed(body, format, compression, limits) {
                window.add(record.at, report);
            }
        }
        let report = Arc::new(window.merged());
        let mut kept = self.merged();
        if kept.len() == MERGED_KEPT {
            kept.pop_front();
        }
        kept.push_back(Merged { of, report: report.clone() });
        Ok(Some(report))
    }

    fn merged(&self) -> std::sync::MutexGuard<'_, VecDeque<Merged>> {
        self.0.merged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
