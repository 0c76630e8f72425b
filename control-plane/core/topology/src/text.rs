//! Small texts that Scope's clients expect in a certain form.

use std::fmt::Display;
use std::sync::Arc;

use base::Timestamp;

/// An image reference without its tag: cut at the first colon, and without the registry when there are three parts or more.
pub(crate) fn image_without_tag(reference: &str) -> &str {
    let name = match reference.split_once('/') {
        Some((_, rest)) if rest.contains('/') => rest,
        _ => reference,
    };
    name.split_once(':').map_or(name, |(name, _)| name)
}

/// The tag of an image reference; empty when it has none.
pub fn tag_of(reference: &str) -> &str {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let last = last.split_once('@').map_or(last, |(name, _)| name);
    last.split_once(':').map_or("", |(_, tag)| tag)
}

/// Joined by comma and blank, sorted: Scope's form of a set.
pub(crate) fn join<T: Display>(values: impl Iterator<Item = T>) -> String {
    let mut values: Vec<String> = values.map(|value| value.to_string()).collect();
    values.sort();
    values.dedup();
    values.join(", ")
}

/// `1 process`, `0 processes`.
pub(crate) fn plural(count: usize, one: &str, many: &str) -> Arc<str> {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }.into()
}

/// RFC 3339 in UTC with as many digits of a second as needed.
pub(crate) fn rfc3339(moment: Timestamp) -> String {
    let seconds = moment.unix_nanos() / 1_000_000_000;
    let nanos = moment.unix_nanos() % 1_000_000_000;
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let fraction = if nanos == 0 { String::new() } else { format!(".{nanos:09}").trim_end_matches('0').to_owned() };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Year, month and day of a day number since 1970 in the proleptic Gregorian calendar, counted in eras of 400 years from 1 March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_references_lose_registry_and_tag_as_in_scope() {
        assert_eq!(image_without_tag("nginx:1.27"), "nginx");
        assert_eq!(image_without_tag("quay.io/coreos/etcd:v3.5"), "coreos/etcd");
        assert_eq!(image_without_tag("weaveworks/scope"), "weaveworks/scope");
        assert_eq!(image_without_tag("gcr.io/team/shop/web:2"), "team/shop/web");
        assert_eq!(tag_of("quay.io/coreos/etcd:v3.5"), "v3.5");
        assert_eq!(tag_of("localhost:5000/app"), "");
        assert_eq!(tag_of("app@sha256:abc"), "");
    }

    #[test]
    fn moments_are_written_in_utc() {
        assert_eq!(rfc3339(Timestamp::EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(Timestamp::from_unix_nanos(1_709_210_096_500_000_000)), "2024-02-29T12:34:56.5Z");
        assert_eq!(rfc3339(Timestamp::from_unix_millis(4_102_444_799_999)), "2099-12-31T23:59:59.999Z");
    }

    #[test]
    fn counts_have_a_singular() {
        assert_eq!(&*plural(1, "process", "processes"), "1 process");
        assert_eq!(&*plural(0, "process", "processes"), "0 processes");
    }
}
