//! Marathon's way of writing a moment: `2026-01-02T03:04:05.678Z`.

use base::Timestamp;

/// `at` in UTC with three decimals.
pub fn iso(at: Timestamp) -> String {
    let millis = at.unix_millis();
    let (days, rest) = (millis / 86_400_000, millis % 86_400_000);
    let (year, month, day) = civil(days);
    let (seconds, millis) = (rest / 1_000, rest % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{millis:03}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Reads an ISO-8601 date and time with or without decimals, with `Z` or an offset; truncated to milliseconds. `None` when it is none.
pub fn parse_iso(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once(['T', 't'])?;
    let mut parts = date.splitn(3, '-');
    let (year, month, day) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |text| digits(text, 2))?;
    if !(1970..=2500).contains(&year)
        || !(1..=12).contains(&month)
        || day < 1
        || day > month_length(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || fraction.len() > 9 {
        return None;
    }
    let millis: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let offset_minutes: i64 = match zone {
        "Z" | "z" => 0,
        _ => {
            let (sign, rest) = zone.split_at(1);
            let rest = rest.replace(':', "");
            let (hours, minutes) = (digits(rest.get(..2)?, 2)?, if rest.len() > 2 { digits(rest.get(2..)?, 2)? } else { 0 });
            let span = i64::try_from(hours * 60 + minutes).ok()?;
            if sign == "-" { -span } else { span }
        }
    };
    let local = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let seconds = i64::try_from(local).ok()? - offset_minutes * 60;
    Some(Timestamp::from_unix_millis(u64::try_from(seconds).ok()? * 1_000 + millis))
}

fn digits(text: &str, count: usize) -> Option<u64> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_length(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let years: u64 = (year - 1970) * 365 + (1969..year).filter(|it| leap(*it)).count() as u64;
    years + (1..month).map(|it| month_length(year, it)).sum::<u64>() + day - 1
}

fn civil(days: u64) -> (u64, u64, u64) {
    // Whole periods of 400 years first, so that the loops below are short for any moment.
    let (mut year, mut rest) = (1970 + days / 146_097 * 400, days % 146_097);
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if rest < length {
            break;
        }
        rest -= length;
        year += 1;
    }
    let mut month = 1;
    while rest >= month_length(year, month) {
        rest -= month_length(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usual_forms_are_read() {
        let at = Timestamp::from_unix_millis(1_709_210_096_789);
        assert_eq!(iso(at), "2024-02-29T12:34:56.789Z");
        for text in
            ["2024-02-29T12:34:56.789Z", "2024-02-29T13:34:56.789+01:00", "2024-02-29T10:04:56.789-0230", "2024-02-29T12:34:56.789999Z"]
        {
            assert_eq!(parse_iso(text), Some(at), "{text}");
        }
        assert_eq!(parse_iso("2024-02-29T12:34:56Z"), Some(Timestamp::from_unix_millis(1_709_210_096_000)));
        for bad in [
            "",
            "2024-02-29",
            "2023-02-29T00:00:00Z",
            "2024-02-29T24:00:00Z",
            "2024-02-29T12:34:56",
            "x024-02-29T12:34:56Z",
            "T",
            "2024-02-29T12:34:56.7x9Z",
        ] {
            assert_eq!(parse_iso(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(millis in 0..16_000_000_000_000_u64) {
            let at = Timestamp::from_unix_millis(millis);
            prop_assert_eq!(parse_iso(&iso(at)), Some(at));
        }

        #[test]
        fn anything_may_be_asked(text in "\\PC{0,40}") {
            let _ = parse_iso(&text);
        }
    }
}
