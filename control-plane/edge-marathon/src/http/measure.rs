//! Meters and timers, as Marathon's metrics have them: rates over one, five and fifteen minutes, and how long things took.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::json::Json;

/// How often rates move.
const TICK: Duration = Duration::from_secs(5);
/// Buckets: single microseconds up to 16, then four to each doubling, up to 12 days.
const BUCKETS: usize = 164;
/// Bounds of the histogram for Prometheus, in seconds.
const BOUNDS: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// How often something happens.
#[derive(Clone, Debug)]
struct Rates {
    count: u64,
    began: Instant,
    ticked: Instant,
    since_tick: u64,
    /// Over one, five and fifteen minutes; none: nothing has been averaged yet.
    moving: Option<[f64; 3]>,
}

impl Rates {
    fn new() -> Rates {
        let now = Instant::now();
        Rates { count: 0, began: now, ticked: now, since_tick: 0, moving: None }
    }

    fn tick(&mut self, now: Instant) {
        let ticks = now.duration_since(self.ticked).as_secs() / TICK.as_secs();
        if ticks == 0 {
            return;
        }
        self.ticked += TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let mut rate = self.since_tick as f64 / TICK.as_secs_f64();
        self.since_tick = 0;
        // Long silences need no loop of their length: after some hours nothing is left of what was.
        for _ in 0..ticks.min(10_000) {
            let moving = self.moving.get_or_insert([rate; 3]);
            for (at, minutes) in [1.0, 5.0, 15.0].into_iter().enumerate() {
                let share = 1.0 - (-TICK.as_secs_f64() / 60.0 / minutes).exp();
                moving[at] += share * (rate - moving[at]);
            }
            rate = 0.0;
        }
    }

    fn mark(&mut self) {
        self.tick(Instant::now());
        self.count += 1;
        self.since_tick += 1;
    }

    fn fields(&mut self, json: &mut Json) {
        let now = Instant::now();
        self.tick(now);
        let moving = self.moving.unwrap_or_default();
        for (key, rate) in ["m1_rate", "m5_rate", "m15_rate"].into_iter().zip(moving) {
            json.number_field(key, rate);
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let mean = self.count as f64 / now.duration_since(self.began).as_secs_f64().max(1e-9);
        json.number_field("mean_rate", mean);
    }
}

/// Counts events, and how often they come.
#[derive(Debug)]
pub(super) struct Meter(Mutex<Rates>);

impl Default for Meter {
    fn default() -> Self {
        Meter(Mutex::new(Rates::new()))
    }
}

impl Meter {
    fn lock(&self) -> MutexGuard<'_, Rates> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mark(&self) {
        self.lock().mark();
    }

    pub(super) fn count(&self) -> u64 {
        self.lock().count
    }

    pub(super) fn write(&self, json: &mut Json) {
        let mut rates = self.lock();
        json.object(|json| {
            json.integer_field("count", rates.count);
            rates.fields(json);
            json.text_field("units", "events/second");
        });
    }
}

/// Measures how long things take.
#[derive(Debug)]
pub(super) struct Timer(Mutex<Times>);

#[derive(Clone, Debug)]
struct Times {
    rates: Rates,
    buckets: [u64; BUCKETS],
    sum: f64,
    squares: f64,
    least: f64,
    most: f64,
}

impl Default for Timer {
    fn default() -> Self {
        let times = Times { rates: Rates::new(), buckets: [0; BUCKETS], sum: 0.0, squares: 0.0, least: f64::INFINITY, most: 0.0 };
        Timer(Mutex::new(times))
    }
}

fn bucket(micros: u64) -> usize {
    if micros < 16 {
        return usize::try_from(micros).unwrap_or(0);
    }
    let doubling = 63 - micros.leading_zeros();
    let quarter = usize::try_from((micros >> (doubling - 2)) & 3).unwrap_or(0);
    let doublings = usize::try_from(doubling - 4).unwrap_or(0);
    (16 + doublings * 4 + quarter).min(BUCKETS - 1)
}

/// The end of a bucket, in seconds.
fn end(bucket: usize) -> f64 {
    let micros = if bucket < 16 {
        f64::from(u32::try_from(bucket + 1).unwrap_or(u32::MAX))
    } else {
        let (doublings, quarter) = ((bucket - 16) / 4 + 4, (bucket - 16) % 4 + 1);
        let whole = f64::from(u32::try_from(doublings).unwrap_or(u32::MAX)).exp2();
        whole + whole / 4.0 * f64::from(u32::try_from(quarter).unwrap_or(4))
    };
    micros / 1e6
}

impl Times {
    /// The time within which a share of all was done.
    fn within(&self, share: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share of a count")]
        let wanted = share * self.rates.count as f64;
        let mut so_far = 0.0;
        for (at, count) in self.buckets.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "a share of a count")]
            let count = *count as f64;
            so_far += count;
            if so_far >= wanted && count > 0.0 {
                return end(at).clamp(self.least, self.most);
            }
        }
        self.most
    }

    fn mean(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let count = self.rates.count as f64;
        if count > 0.0 { self.sum / count } else { 0.0 }
    }
}

impl Timer {
    fn lock(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn took(&self, span: Duration) {
        let mut times = self.lock();
        let seconds = span.as_secs_f64();
        times.rates.mark();
        times.buckets[bucket(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))] += 1;
        times.sum += seconds;
        times.squares += seconds * seconds;
        times.least = times.least.min(seconds);
        times.most = times.most.max(seconds);
    }

    pub(super) fn write(&self, json: &mut Json) {
        let mut times = self.lock();
        json.object(|json| {
            let count = times.rates.count;
            json.integer_field("count", count);
            json.number_field("min", if count > 0 { times.least } else { 0.0 });
            json.number_field("mean", times.mean());
            json.number_field("max", times.most);
            for (key, share) in [("p50", 0.5), ("p75", 0.75), ("p95", 0.95), ("p98", 0.98), ("p99", 0.99), ("p999", 0.999)] {
                json.number_field(key, if count > 0 { times.within(share) } else { 0.0 });
            }
            #[expect(clippy::cast_precision_loss, reason = "a count")]
            let variance = if count > 1 { times.squares / count as f64 - times.mean().powi(2) } else { 0.0 };
            json.number_field("stddev", variance.max(0.0).sqrt());
            times.rates.fields(json);
            json.text_field("duration_units", "seconds");
            json.text_field("rate_units", "calls/second");
        });
    }

    pub(super) fn prometheus(&self, name: &str, text: &mut String) {
        let times = self.lock();
        let _ = writeln!(text, "# TYPE {name} histogram");
        for bound in BOUNDS {
            // A bucket that a bound cuts counts when it ends: never too early.
            let count: u64 = times.buckets.iter().enumerate().filter(|(at, _)| end(*at) <= bound * 1.000_001).map(|(_, count)| count).sum();
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let count = times.rates.count;
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {}\n{name}_count {count}", times.sum);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_time_is_in_the_bucket_that_ends_after_it() {
        for micros in (0..4_000).chain((4_000..50_000_000).step_by(9_973)) {
            let at = bucket(micros);
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let seconds = micros as f64 / 1e6;
            assert!(seconds < end(at) + 1e-12, "{micros} µs in {at}, which ends at {}", end(at));
            assert!(at == 0 || seconds >= end(at - 1) - 1e-12, "{micros} µs in {at}, and the one before ends at {}", end(at - 1));
        }
    }

    #[test]
    fn times_are_told_in_marathons_words() {
        let timer = Timer::default();
        (1..=100).for_each(|millis| timer.took(Duration::from_millis(millis)));
        let value: Value = serde_json::from_str(&Json::text(|json| timer.write(json))).unwrap();
        assert_eq!(value["count"], 100);
        let about = |key: &str, wanted: f64| {
            let found = value[key].as_f64().unwrap();
            assert!((found / wanted - 1.0).abs() < 0.26, "{key} is {found}");
        };
        about("p50", 0.050);
        about("p99", 0.099);
        about("mean", 0.0505);
        about("stddev", 0.029);
        let mut text = String::new();
        timer.prometheus("t", &mut text);
        assert!(text.contains("t_bucket{le=\"+Inf\"} 100\n") && text.contains("t_count 100\n"), "{text}");
    }
}
