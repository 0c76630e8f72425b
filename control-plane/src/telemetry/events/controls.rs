//! Controls, pipes, and the record of controls.

use std::time::Duration;

use relay::{AuditError, Cause, End, Observer, Outcome, PipeRefusal};

use crate::telemetry::Telemetry;

/// A control was called, and this became of it.
#[derive(Debug)]
pub struct ControlSettled {
    /// What.
    pub outcome: Outcome,
    /// From the call to the answer.
    pub took: Duration,
}

impl ControlSettled {
    /// Counts it. Who called what is in the record of controls.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        metrics.controls.with_label_values(&[self.outcome.label()]).inc();
        metrics.control_duration.observe(self.took.as_secs_f64());
    }
}

/// A pipe was closed.
#[derive(Debug)]
pub struct PipeClosed {
    /// Why.
    pub cause: Cause,
}

impl PipeClosed {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let label = match self.cause {
            Cause::Asked => "asked",
            Cause::Ended => "ended",
            Cause::Idle => "idle",
            Cause::ProbeLost => "probe_lost",
            Cause::Overrun => "overrun",
        };
        telemetry.metrics().pipes_closed.with_label_values(&[label]).inc();
        if self.cause == Cause::Overrun {
            tracing::warn!("a pipe was closed: its probe sent more than there was room for");
        }
    }
}

/// Somebody was not let to a pipe.
#[derive(Debug)]
pub struct PipeRefused {
    /// Why.
    pub refusal: PipeRefusal,
}

impl PipeRefused {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let label = match self.refusal {
            PipeRefusal::Closed => "closed",
            PipeRefusal::TooMany => "too_many",
        };
        telemetry.metrics().pipes_refused.with_label_values(&[label]).inc();
    }
}

/// A record of a control could not be written.
#[derive(Debug)]
pub struct AuditFailed<'a> {
    /// Why.
    pub error: &'a AuditError,
}

impl AuditFailed<'_> {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        metrics.audit_failures.inc();
        if let Some(held_back) = metrics.audit_lines.admit() {
            tracing::error!(
                error = self.error as &dyn std::error::Error,
                held_back,
                "a control was carried out and is not in the file of records"
            );
        }
    }
}

impl Observer for Telemetry {
    fn call_settled(&self, outcome: Outcome, took: Duration) {
        ControlSettled { outcome, took }.emit(self);
    }

    fn stray_answer(&self) {
        self.metrics().control_strays.inc();
    }

    fn pipes_open(&self, count: usize) {
        self.metrics().pipes_open.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn pipe_closed(&self, cause: Cause) {
        PipeClosed { cause }.emit(self);
    }

    fn pipe_refused(&self, refusal: PipeRefusal) {
        PipeRefused { refusal }.emit(self);
    }

    fn pipe_bytes(&self, towards: End, count: u64) {
        let label = match towards {
            End::Client => "client",
            End::Probe => "probe",
        };
        self.metrics().pipe_bytes.with_label_values(&[label]).inc_by(count);
    }

    fn audit_failed(&self, error: &AuditError) {
        AuditFailed { error }.emit(self);
    }
}
