//! Results.

use std::time::Duration;

use serde_json::json;

/// What a number should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Under(f64),
    AtLeast(f64),
    Exactly(f64),
    Stated,
}

/// Tells a number, with somebody else's published one beside it.
pub(crate) fn tell(what: &str, value: f64, unit: &str, target: Target, beside: &str) {
    let target = match target {
        Target::Under(most) => json!({ "under": most }),
        Target::AtLeast(least) => json!({ "at_least": least }),
        Target::Exactly(count) => json!({ "exactly": count }),
        Target::Stated => json!({}),
    };
    println!("NUMBER {}", json!({ "what": what, "value": value, "unit": unit, "target": target, "beside": beside }));
}

/// Times, to be told as percentiles.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// By the nearest rank, in milliseconds.
    pub(crate) fn percentile(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is between 1 and the length")]
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).map_or(f64::NAN, |it| it.as_secs_f64() * 1_000.0)
    }

    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().map(Duration::as_secs_f64).sum::<f64>() * 1_000.0 / (self.0.len().max(1) as f64)
    }
}
