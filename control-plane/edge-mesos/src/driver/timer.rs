//! How long something took lately.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Measurements that are remembered.
const WINDOW: usize = 1_000;

/// The newest measurements of one thing.
#[derive(Debug, Default)]
pub(crate) struct Timer(Mutex<VecDeque<f64>>);

impl Timer {
    /// Remembers one.
    pub(crate) fn record(&self, took: Duration) {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.len() == WINDOW {
            window.pop_front();
        }
        window.push_back(took.as_secs_f64() * 1e3);
    }

    /// The last one and what statistics there are, in milliseconds, by the end of a metric's name; empty before the first measurement.
    pub(crate) fn statistics(&self) -> Vec<(&'static str, f64)> {
        let window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = window.back().copied() else { return Vec::new() };
        let mut sorted: Vec<f64> = window.iter().copied().collect();
        drop(window);
        sorted.sort_by(f64::total_cmp);
        // In ten-thousandths, rounded up: of few measurements the highest percentiles are the maximum.
        let percentile = |part: usize| sorted[(sorted.len() * part).div_ceil(10_000).clamp(1, sorted.len()) - 1];
        let count = f64::from(u32::try_from(sorted.len()).unwrap_or(u32::MAX));
        vec![
            ("", last),
            ("/count", count),
            ("/max", percentile(10_000)),
            ("/min", sorted[0]),
            ("/p50", percentile(5_000)),
            ("/p90", percentile(9_000)),
            ("/p95", percentile(9_500)),
            ("/p99", percentile(9_900)),
            ("/p999", percentile(9_990)),
            ("/p9999", percentile(9_999)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_of_the_newest_measurements() {
        let timer = Timer::default();
        assert!(timer.statistics().is_empty());
        (0..2_000_u64).for_each(|it| timer.record(Duration::from_millis(it)));
        let statistics = timer.statistics();
        let of = |end: &str| statistics.iter().find(|(it, _)| *it == end).unwrap().1.round();
        assert_eq!((of(""), of("/count"), of("/min"), of("/max")), (1_999.0, 1_000.0, 1_000.0, 1_999.0));
        assert_eq!((of("/p50"), of("/p99"), of("/p9999")), (1_499.0, 1_989.0, 1_999.0));
    }
}
