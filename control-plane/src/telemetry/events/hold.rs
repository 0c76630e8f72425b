//! Connections that wait until a control plane leads.

use crate::telemetry::Telemetry;

/// A connection waits until a control plane leads.
#[derive(Debug)]
pub struct ConnectionHeld;

impl ConnectionHeld {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().connections_held.inc();
    }
}

/// What became of a connection that came while nobody was known to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldEnd {
    /// It was carried to whoever leads.
    Carried,
    /// This control plane leads.
    Served,
    /// Nobody has led in time.
    Refused,
    /// The control plane stops.
    Stopped,
    /// As many as may wait did.
    Full,
    /// It ended otherwise.
    Gone,
}

/// A connection does not wait any more.
#[derive(Debug)]
pub struct ConnectionReleased {
    /// What becomes of it.
    pub end: HoldEnd,
    /// Whether it has waited.
    pub was_held: bool,
}

impl ConnectionReleased {
    /// Counts it.
    pub fn emit(self, telemetry: &Telemetry) {
        let label = match self.end {
            HoldEnd::Carried => "carried",
            HoldEnd::Served => "served",
            HoldEnd::Refused => "refused",
            HoldEnd::Stopped => "stopped",
            HoldEnd::Full => "full",
            HoldEnd::Gone => "gone",
        };
        let metrics = telemetry.metrics();
        if self.was_held {
            metrics.connections_held.dec();
        }
        metrics.connections_released.with_label_values(&[label]).inc();
    }
}
