//! The past: what it costs on disk, and how soon any moment of it is shown.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::plane::{Plane, Size, fetch};
use super::{Number, Target, float, percentile};
use crate::http;
use crate::progress::Pulse;

/// How long is recorded: more than one segment, so that one is compacted.
const RECORDED: Duration = Duration::from_secs(140);
/// Moments that are asked for.
const MOMENTS: usize = 10;

pub(super) fn run(binaries: &Path, size: Size) -> Result<Vec<Number>> {
    let plane = Plane::start(binaries, size)?;
    let begun = Instant::now();
    let first = state(&plane)?;
    {
        let _alive = Pulse::start(&format!("{} s are recorded", RECORDED.as_secs()));
        thread::sleep(RECORDED);
    }
    let last = state(&plane)?;
    let bytes = |state: &Value| state["bytes"].as_u64().context("no bytes in the history's state").map(float);
    let grown = (bytes(&last)? - bytes(&first)?).max(0.0);
    let hour = grown / begun.elapsed().as_secs_f64() * 3_600.0 / 1e6;
    let mut numbers = vec![
        Number::new("app: history, an hour", hour, "MB", Target::Under(500.0)),
        Number::new("app: history, events that found no room", last["eventsLost"].as_u64().map_or(0.0, float), "", Target::Exactly(0.0)),
    ];
    // The latest first, so that none is reached by going on from the one before.
    let mut times = Vec::new();
    for moment in moments(&first, &last)? {
        let path = format!("/api/topology/containers?stopped=running&timestamp={moment}");
        times.push(fetch(plane.http(), &path)?.whole.as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    numbers.push(Number::new("app: history, a moment of it, p50", percentile(&times, 0.5)?, "ms", Target::Stated));
    numbers.push(Number::new(
        format!("app: history, the slowest of {MOMENTS} moments"),
        percentile(&times, 1.0)?,
        "ms",
        Target::Under(1_000.0),
    ));
    numbers.push(Number::new("app: history, resident with its players", plane.resident()?, "MB", Target::Stated));
    Ok(numbers)
}

fn state(plane: &Plane) -> Result<Value> {
    http::get_json(plane.http(), "/api/v1/history")
}

/// Moments between two states, the latest first, in RFC 3339: both ends have the same day and format, so their seconds are counted down.
fn moments(first: &Value, last: &Value) -> Result<Vec<String>> {
    let read = |state: &Value| -> Result<i64> { seconds(state["to"].as_str().context("the history has no end")?) };
    let (from, to) = (read(first)?, read(last)?);
    let step = (to - from) / i64::try_from(MOMENTS).unwrap_or(1);
    Ok((0..MOMENTS).filter_map(|number| i64::try_from(number).ok()).map(|number| rfc3339(to - 1 - number * step)).collect())
}

/// Seconds since 1970 of a moment in UTC such as `2026-01-02T03:04:05.6Z`.
fn seconds(text: &str) -> Result<i64> {
    let numbers: Vec<i64> = text
        .split(['-', 'T', ':', '.', 'Z'])
        .take(6)
        .map(|part| part.parse::<i64>().with_context(|| format!("{text} is no moment")))
        .collect::<Result<_>>()?;
    let [year, month, day, hour, minute, second] = numbers.as_slice() else { anyhow::bail!("{text} is no moment") };
    Ok(days(*year, *month, *day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days since 1970, by counting years from March so that a leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (month * 306 + 5) / 10 + day - 1 - 719_468
}

fn rfc3339(seconds: i64) -> String {
    let (day, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let mut year = 1970 + day / 366;
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| days(year, *month, 1) <= day).unwrap_or(1);
    let date = day - days(year, month, 1) + 1;
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_there_and_back() -> Result<()> {
        for text in ["1970-01-01T00:00:00Z", "2026-11-26T22:59:01Z", "2024-02-29T12:00:00Z", "2026-12-31T23:59:59Z", "2000-03-01T00:00:00Z"]
        {
            assert_eq!(rfc3339(seconds(text)?), text);
        }
        assert_eq!(seconds("2026-01-01T00:00:00.25Z")?, 1_767_225_600);
        assert!(seconds("yesterday").is_err());
        Ok(())
    }
}
