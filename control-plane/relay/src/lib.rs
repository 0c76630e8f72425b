//! Drives the core of controls and pipes ([`controls`]): calls go to probes and their answers to callers, bytes go both ways between what a probe
//! opened and the clients that look at it, and every call is written down.
//!
//! The edges give it connections and take them away again: a [`Link`] is a way to a probe, a [`Connection`] is somebody at one end of a pipe. It
//! knows nothing of HTTP, WebSockets or gRPC, and holds no more bytes of a pipe than its window in each direction.
//!
//! The core is one value behind one lock, and every input is a handful of look-ups: no task has to be asked, and an edge that goes away in the
//! middle of something takes its part with it by being dropped.

mod audit;
mod board;
mod lane;
mod link;
mod pipe;

use std::time::Duration;

pub use audit::{Audit, AuditError, Page, Record};
pub use board::{Answer, CallError, Caller, Limits, Switchboard, Target};
pub use controls::{Cause, End, PipeRefusal};
pub use link::{Abilities, Link, Opened, Order, Pump, Word};
pub use pipe::Connection;

/// What became of a call, for counters and the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// The probe, or the runtime behind it, could not.
    Failed,
    /// The probe knows no such control.
    Unknown,
    /// The probe is not connected.
    NotConnected,
    /// The probe went away before it answered.
    ProbeLost,
    /// The probe did not answer in time.
    TimedOut,
    /// We stopped before the probe answered.
    Stopped,
    /// Too many calls were waiting.
    TooMany,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 8] = [
        Outcome::Done,
        Outcome::Failed,
        Outcome::Unknown,
        Outcome::NotConnected,
        Outcome::ProbeLost,
        Outcome::TimedOut,
        Outcome::Stopped,
        Outcome::TooMany,
    ];

    /// In lower case, for labels and the record.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
            Outcome::NotConnected => "not_connected",
            Outcome::ProbeLost => "probe_lost",
            Outcome::TimedOut => "timed_out",
            Outcome::Stopped => "stopped",
            Outcome::TooMany => "too_many",
        }
    }
}

/// Whoever counts what happens here.
pub trait Observer: Send + Sync + 'static {
    /// A call was settled.
    fn call_settled(&self, outcome: Outcome, took: Duration);
    /// An answer came that nobody waited for.
    fn stray_answer(&self);
    /// So many pipes are open now.
    fn pipes_open(&self, count: usize);
    /// A pipe was closed.
    fn pipe_closed(&self, cause: Cause);
    /// Somebody was not let to a pipe.
    fn pipe_refused(&self, refusal: PipeRefusal);
    /// Bytes went through a pipe, towards one end.
    fn pipe_bytes(&self, towards: End, count: u64);
    /// A record could not be written.
    fn audit_failed(&self, error: &AuditError);
}
