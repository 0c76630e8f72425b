//! What time it is, as whoever started us says.

use std::sync::Arc;

use base::Timestamp;

/// Tells the time. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that asks `now`.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Clock(Arc::new(now))
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

/// Seconds since 1970, as Mesos says times.
#[expect(clippy::cast_precision_loss, reason = "Mesos says times as doubles")]
pub(crate) fn seconds(at: Timestamp) -> f64 {
    at.unix_nanos() as f64 / 1e9
}
