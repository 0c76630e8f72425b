//! What the history says of itself.

use history::Opened;

use crate::telemetry::Telemetry;

/// The history was opened.
#[derive(Debug)]
pub struct HistoryOpened {
    /// What was found.
    pub opened: Opened,
}

impl HistoryOpened {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let Opened { segments, bytes, cut_bytes, unreadable } = self.opened;
        let metrics = telemetry.metrics();
        metrics.history_cut_bytes.inc_by(cut_bytes);
        if cut_bytes > 0 || unreadable > 0 {
            tracing::warn!(segments, bytes, cut_bytes, unreadable, "history opened: a torn end was cut off, or files cannot be read");
        } else {
            tracing::info!(segments, bytes, "history opened");
        }
    }
}

/// A frame was written, or had nothing to say.
#[derive(Debug)]
pub struct HistoryWritten {
    /// Bytes.
    pub bytes: u64,
    /// Segments that were too old or too much.
    pub segments_removed: usize,
    /// Changes that were not written because the disk had refused.
    pub changes_skipped: usize,
}

impl HistoryWritten {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        metrics.history_written_bytes.inc_by(self.bytes);
        metrics.history_segments_removed.inc_by(self.segments_removed as u64);
        metrics.history_changes_skipped.inc_by(self.changes_skipped as u64);
    }
}

/// The disk refused; it is tried again.
#[derive(Debug)]
pub struct HistoryFailed<'a> {
    /// Why.
    pub error: &'a std::io::Error,
}

impl HistoryFailed<'_> {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        metrics.history_failures.inc();
        if let Some(held_back) = metrics.history_lines.admit() {
            tracing::error!(error = %self.error, held_back, "the history cannot be written; the live map goes on");
        }
    }
}

/// A segment keeps its size.
#[derive(Debug)]
pub struct HistoryCompactionFailed<'a> {
    /// Why.
    pub error: &'a std::io::Error,
}

impl HistoryCompactionFailed<'_> {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        metrics.history_failures.inc();
        if let Some(held_back) = metrics.history_lines.admit() {
            tracing::warn!(error = %self.error, held_back, "a segment of the history could not be compacted");
        }
    }
}

/// What is read off the history when the metrics page is asked for.
#[derive(Clone, Copy, Debug)]
pub struct HistoryObserved {
    /// Bytes of all files.
    pub bytes: u64,
    /// Files.
    pub segments: usize,
    /// Events that wait for the disk.
    pub queued: usize,
    /// Events that found no room since the start.
    pub lost: u64,
}

impl HistoryObserved {
    /// Sets the gauges.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.history_bytes.set(signed(self.bytes));
        metrics.history_segments.set(signed(self.segments as u64));
        metrics.history_queue.set(signed(self.queued as u64));
        metrics.history_lost.set(signed(self.lost));
    }
}

/// A request asked for a moment that cannot be read, and was shown the present, as Scope did.
#[derive(Debug)]
pub struct TimestampIgnored<'a> {
    /// What it asked for.
    pub text: &'a str,
}

impl TimestampIgnored<'_> {
    /// Logs it.
    pub fn emit(self, telemetry: &Telemetry) {
        if let Some(held_back) = telemetry.metrics().timestamp_lines.admit() {
            let text: String = self.text.chars().take(64).collect();
            tracing::warn!(text, held_back, "a timestamp cannot be read and is taken for now");
        }
    }
}
