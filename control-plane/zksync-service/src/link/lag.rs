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

/// Looks at how much was carried.
const PACE_LOOKS: usize = 10;
/// Between two of them.
const PACE_LOOK: Duration = Duration::from_secs(1);

/// How much a link carries, as of the last ten seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Carried {
    looks: VecDeque<(Instant, u64)>,
}

impl Carried {
    /// So much was carried since the link began; gives back how much that is per second.
    pub(super) fn note(&mut self, now: Instant, total: u64) -> f64 {
        if self.looks.back().is_none_or(|(at, _)| now.duration_since(*at) >= PACE_LOOK) {
            if self.looks.len() >= PACE_LOOKS {
                self.looks.pop_front();
            }
            self.looks.push_back((now, total));
        }
        let Some((since, before)) = self.looks.front() else { return 0.0 };
        let seconds = now.duration_since(*since).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a pace")]
        let carried = total.saturating_sub(*before) as f64;
        if seconds > 0.0 { carried / seconds } else { 0.0 }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_seconds() {
        let (begin, mut carried) = (Instant::now(), Carried::default());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert!(carried.note(at(0), 1_000).abs() < 1e-9, "what was carried before is none of it");
        assert!((carried.note(at(2), 1_400) - 200.0).abs() < 1e-9);
        for second in 3..30 {
            carried.note(at(second), 1_400);
        }
        assert!(carried.note(at(30), 1_400).abs() < 1e-9);
        assert!(carried.looks.len() <= PACE_LOOKS);
    }
}
