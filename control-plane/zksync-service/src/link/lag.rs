use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;

/// Changes that are remembered.
const KEPT: usize = 8_192;
/// How long they are.
const WINDOW: Duration = Duration::from_secs(60);

/// How long the newest changes took.
#[derive(Clone, Debug, Default)]
pub struct LagWindow {
    lags: VecDeque<(Instant, Duration)>,
}

/// How long changes of the last minute took, from the event that told of them until they were applied on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct LagSummary {
    /// How many are known.
    pub changes: usize,
    /// Half of them took less, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took less, in milliseconds.
    pub p99_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
    /// The newest, in milliseconds, however old it is.
    pub last_ms: f64,
}

impl LagWindow {
    /// Adds the newest.
    pub fn add(&mut self, lags: &[Duration]) {
        let now = Instant::now();
        for lag in lags {
            if self.lags.len() >= KEPT {
                self.lags.pop_front();
            }
            self.lags.push_back((now, *lag));
        }
    }

    /// Sums them up.
    pub fn summary(&self) -> LagSummary {
        let mut lags: Vec<Duration> = self.lags.iter().filter(|(at, _)| at.elapsed() < WINDOW).map(|(_, lag)| *lag).collect();
        lags.sort_unstable();
        let at = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a place in a short list"
            )]
            let place = (lags.len() as f64 * share) as usize;
            lags.get(place.min(lags.len().saturating_sub(1))).map_or(0.0, |lag| lag.as_secs_f64() * 1e3)
        };
        let last_ms = self.lags.back().map_or(0.0, |(_, lag)| lag.as_secs_f64() * 1e3);
        LagSummary { changes: lags.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0), last_ms }
    }
}
