//! Decides what is told when: a snapshot or deltas, now or merged with what comes next. Pure: the report builder and the outbox behind one
//! door, driven by the stream's events and by time.

use std::time::Duration;

use proto::probe::v1::Report;

use crate::clock::Now;
use crate::observation::BootNanos;
use crate::outbox::Outbox;
use crate::report::{Builder, REPORT_OVERHEAD};

mod source;

pub use source::Source;

/// The first life-cycle event waits this long for others that belong to it: a fork and its exec, a connection and its process.
const EVENT_GATHERED: Duration = Duration::from_millis(20);

/// Life-cycle events are told at most this often.
const EVENT_INTERVAL: Duration = Duration::from_millis(40);

/// Counters are told at most this often.
const COUNTER_INTERVAL: Duration = Duration::from_millis(1_000);

/// While nobody listens, deltas are merged for this long each.
const DISCONNECTED_INTERVAL: Duration = Duration::from_millis(2_000);

/// Retirement of flows, processes and cgroups.
const TICK_INTERVAL: Duration = Duration::from_millis(1_000);

/// Limits that a control plane may set, so that a strange one cannot make the probe useless or huge.
const REPORT_BYTES: std::ops::RangeInclusive<usize> = 64 * 1024..=4 * 1024 * 1024;

/// How reports are cut and held.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Encoded bytes that are held at most.
    pub held_bytes: usize,
    /// Smallest and largest size of a report, whatever the control plane asks for.
    pub report_bytes: (usize, usize),
}

impl Default for Limits {
    fn default() -> Self {
        Limits { held_bytes: crate::outbox::HELD_BYTES_MAX, report_bytes: (*REPORT_BYTES.start(), *REPORT_BYTES.end()) }
    }
}

/// What the receiver knows, as far as the probe can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase<C> {
    /// Nothing that deltas could build on. Changes are not kept.
    Unsynced,
    /// A snapshot is being told.
    Snapshot(C),
    /// Deltas bring it up to date.
    Synced,
}

/// The probe's side of a session.
#[derive(Debug)]
pub struct Publisher<S: Source = Builder> {
    /// What the node, or the cluster, looks like.
    pub builder: S,
    outbox: Outbox,
    limits: Limits,
    phase: Phase<S::Cursor>,
    /// Number of the last part of the last snapshot. Until it is acknowledged nobody knows whether the snapshot arrived whole.
    snapshot_end: u64,
    connected: bool,
    max_report_bytes: usize,
    min_interval: Duration,
    changed_at: Option<BootNanos>,
    told_at: BootNanos,
    ticked_at: BootNanos,
    dropped: u64,
}

impl<S: Source> Publisher<S> {
    /// Begins a session.
    pub fn new(builder: S, limits: Limits) -> Self {
        Publisher {
            builder,
            outbox: Outbox::new(limits.held_bytes),
            limits,
            phase: Phase::Unsynced,
            snapshot_end: 0,
            connected: false,
            max_report_bytes: limits.report_bytes.0,
            min_interval: Duration::ZERO,
            changed_at: None,
            told_at: BootNanos(0),
            ticked_at: BootNanos(0),
            dropped: 0,
        }
    }

    /// Oldest report that a new stream could begin with, for its Hello; 0 when only a snapshot can follow.
    pub fn oldest_held(&self) -> u64 {
        if self.phase == Phase::Synced { self.outbox.oldest_held() } else { 0 }
    }

    /// A stream was welcomed. Returns whether it goes on where the last one ended; otherwise it begins with a snapshot.
    pub fn connected(&mut self, resume_after: u64, max_report_bytes: usize) -> bool {
        self.connected = true;
        self.min_interval = Duration::ZERO;
        let (least, most) = self.limits.report_bytes;
        self.max_report_bytes = max_report_bytes.clamp(least, most);
        let resumed = resume_after > 0 && self.phase == Phase::Synced && self.outbox.resume(resume_after);
        if !resumed {
            self.give_up();
            self.outbox.restart();
            self.begin_snapshot();
        }
        resumed
    }

    /// The stream ended.
    pub fn disconnected(&mut self) {
        self.connected = false;
        // A snapshot that broke off cannot be continued on another stream.
        if matches!(self.phase, Phase::Snapshot(_)) || self.outbox.acknowledged() < self.snapshot_end {
            self.give_up();
        }
    }

    /// The receiver has everything up to `sequence`.
    pub fn acknowledged(&mut self, sequence: u64) {
        self.outbox.acknowledge(sequence);
    }

    /// The receiver did not apply a report, and will not.
    pub fn rejected(&mut self, sequence: u64, snapshot_needed: bool) {
        self.outbox.acknowledge(sequence);
        if snapshot_needed {
            self.give_up();
            self.begin_snapshot();
        }
    }

    /// Whether a report before `sequence` waits to be acknowledged.
    pub fn awaited_before(&self, sequence: u64) -> bool {
        self.outbox.acknowledged() + 1 < sequence
    }

    /// Whether something that went out waits to be acknowledged.
    pub fn awaits_acknowledgement(&self) -> bool {
        self.connected && !self.outbox.is_caught_up()
    }

    /// The receiver is behind.
    pub fn throttled(&mut self, min_interval: Duration) {
        self.min_interval = min_interval.min(Duration::from_secs(60));
    }

    /// Does what is due: makes deltas or parts of a snapshot, retires what is old.
    pub fn poll(&mut self, now: Now) {
        if since(now, self.ticked_at) >= TICK_INTERVAL {
            self.ticked_at = now.boot;
            self.builder.tick(now);
        } else if self.builder.next_deadline().is_some_and(|at| at <= now.boot) {
            self.builder.settle(now);
        }
        if self.changed_at.is_none() && self.builder.has_changes() {
            self.changed_at = Some(now.boot);
        }
        match &self.phase {
            Phase::Unsynced => self.wait_for_snapshot(),
            Phase::Snapshot(_) => self.tell_snapshot(now),
            Phase::Synced if self.has_room() && self.delta_due_at().is_some_and(|at| at <= now.boot) => self.tell_changes(now),
            Phase::Synced => {}
        }
    }

    /// When [`Publisher::poll`] has work without a new input.
    pub fn next_deadline(&self) -> BootNanos {
        let tick = after(self.ticked_at, TICK_INTERVAL);
        let delta = if self.phase == Phase::Synced && self.has_room() { self.delta_due_at() } else { None };
        [Some(tick), delta, self.builder.next_deadline()].into_iter().flatten().min().unwrap_or(tick)
    }

    /// The next report for the stream.
    pub fn take_next(&mut self) -> Option<Report> {
        if self.connected { self.outbox.take_next() } else { None }
    }

    /// Whether a report waits for the stream.
    pub fn has_next(&self) -> bool {
        self.connected && self.outbox.has_next()
    }

    /// Makes what is left to tell ready at once: the probe ends.
    pub fn flush(&mut self, now: Now) {
        self.builder.tick(now);
        if self.phase == Phase::Synced && self.builder.has_changes() {
            self.tell_changes(now);
        }
    }

    /// Encoded bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Reports that were given up so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether everything was told and acknowledged.
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Synced && !self.builder.has_changes() && !self.outbox.has_next() && self.outbox.is_caught_up()
    }

    /// Whether what happens now is told as soon as it may be: somebody listens who keeps up.
    pub fn tells_at_once(&self) -> bool {
        self.connected && self.phase == Phase::Synced && self.min_interval.is_zero()
    }

    fn has_room(&self) -> bool {
        !S::CHANGES_CAN_WAIT || self.outbox.has_room()
    }

    fn delta_due_at(&self) -> Option<BootNanos> {
        let changed_at = self.changed_at?;
        let interval = match (self.connected, self.builder.has_events()) {
            (false, _) => DISCONNECTED_INTERVAL,
            (true, true) => EVENT_INTERVAL,
            (true, false) => COUNTER_INTERVAL,
        };
        Some(after(changed_at, EVENT_GATHERED).max(after(self.told_at, interval.max(self.min_interval))))
    }

    fn tell_changes(&mut self, now: Now) {
        self.told_at = now.boot;
        self.changed_at = None;
        if self.builder.is_overgrown() {
            self.give_up();
            return;
        }
        for report in self.builder.take_delta(now, self.max_report_bytes - REPORT_OVERHEAD) {
            if let Err(overflow) = self.outbox.push(report) {
                self.dropped += overflow.dropped;
                self.builder.count_merged(overflow.dropped);
                self.phase = Phase::Unsynced;
                break;
            }
        }
    }

    fn tell_snapshot(&mut self, now: Now) {
        let Phase::Snapshot(cursor) = &mut self.phase else { return };
        while self.outbox.has_room() {
            let Some(part) = self.builder.next_part(cursor, now, self.max_report_bytes - REPORT_OVERHEAD) else {
                self.phase = Phase::Synced;
                self.told_at = now.boot;
                return;
            };
            match self.outbox.push(part) {
                Ok(sequence) => self.snapshot_end = sequence,
                Err(_) => {
                    self.phase = Phase::Unsynced;
                    return;
                }
            }
        }
    }

    /// Nothing is kept while a snapshot will tell all. It begins when a stream is there that has swallowed what it was given.
    fn wait_for_snapshot(&mut self) {
        if self.connected && self.outbox.is_caught_up() {
            self.begin_snapshot();
        } else {
            self.builder.drop_changes();
            self.changed_at = None;
        }
    }

    fn begin_snapshot(&mut self) {
        self.builder.drop_changes();
        self.changed_at = None;
        self.phase = Phase::Snapshot(S::Cursor::default());
    }

    fn give_up(&mut self) {
        let dropped = self.outbox.clear();
        if self.phase == Phase::Synced {
            self.dropped += dropped;
            self.builder.count_merged(dropped);
        }
        self.phase = Phase::Unsynced;
    }
}

fn since(now: Now, at: BootNanos) -> Duration {
    Duration::from_nanos(now.boot.0.saturating_sub(at.0))
}

fn after(at: BootNanos, interval: Duration) -> BootNanos {
    BootNanos(at.0.saturating_add(u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests;
