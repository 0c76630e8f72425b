//! The decisions: as transcripts, as properties, and by an app under a load that comes and goes.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod properties;
mod simulation;
mod transcripts;

use std::collections::BTreeMap;
use std::time::Duration;

use autoscale::{Facts, Policy, Sample, Signal, Target};
use base::Timestamp;

/// Monday, 2024-01-01, so many seconds later.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_millis(1_704_067_200_000 + seconds * 1_000)
}

pub(crate) fn tracking(signal: Signal, value: f64) -> Policy {
    Policy { targets: vec![Target { signal, value }], ..Policy::new(1, 10) }
}

pub(crate) fn facts(instances: u32, signal: Signal, values: &[Option<f64>]) -> Facts {
    let sample = |value: &Option<f64>| Sample {
        age: Duration::from_secs(3_600),
        values: value.iter().map(|value| (signal, *value)).collect::<BTreeMap<_, _>>(),
    };
    Facts { instances, last_scaled: Timestamp::EPOCH, deploying: false, failing: false, samples: values.iter().map(sample).collect() }
}
