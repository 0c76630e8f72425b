//! Moments as Go writes them.

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// Seconds from year 1 to 1970, both in UTC.
const YEAR_1_TO_1970: i64 = 62_135_596_800;
/// What jiff can say; beyond it a moment is as good as none.
const SECONDS_MAX: i64 = 253_402_207_200;

/// A moment with nanoseconds. Go's zero, the beginning of year 1, stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970.
    seconds: i64,
    /// Below a thousand millions.
    nanos: u32,
}

impl Default for Time {
    fn default() -> Self {
        Time::ZERO
    }
}

impl Time {
    /// Go's zero time.
    pub const ZERO: Time = Time { seconds: -YEAR_1_TO_1970, nanos: 0 };

    /// From seconds and nanoseconds since 1970; what cannot be written down becomes [`Time::ZERO`].
    pub fn new(seconds: i64, nanos: u32) -> Self {
        if (-YEAR_1_TO_1970..=SECONDS_MAX).contains(&seconds) && nanos < 1_000_000_000 { Time { seconds, nanos } } else { Time::ZERO }
    }

    /// Whether it stands for none.
    pub fn is_zero(self) -> bool {
        self == Time::ZERO
    }

    /// RFC 3339 with as many digits as it takes.
    pub fn to_rfc3339(self) -> String {
        match Timestamp::new(self.seconds, i32::try_from(self.nanos).unwrap_or(0)) {
            Ok(at) => at.to_string(),
            Err(_) => "0001-01-01T00:00:00Z".to_owned(),
        }
    }

    /// From RFC 3339.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let at: Timestamp = text.parse().ok()?;
        let (mut seconds, mut nanos) = (at.as_second(), at.subsec_nanosecond());
        // Before 1970 jiff counts both down.
        if nanos < 0 {
            seconds -= 1;
            nanos += 1_000_000_000;
        }
        Some(Time::new(seconds, u32::try_from(nanos).ok()?))
    }

    /// Go's binary form: version, seconds since year 1, nanoseconds, minutes east of UTC and, in version 2, seconds of that. The zone only
    /// says how a moment was looked at.
    pub fn from_go_binary(bytes: &[u8]) -> Option<Self> {
        match (bytes.first(), bytes.len()) {
            (Some(1), 15) | (Some(2), 16) => {}
            _ => return None,
        }
        let seconds = i64::from_be_bytes(bytes.get(1..9)?.try_into().ok()?);
        let nanos = u32::from_be_bytes(bytes.get(9..13)?.try_into().ok()?);
        Some(Time::new(seconds.checked_sub(YEAR_1_TO_1970)?, nanos))
    }

    /// Go's binary form, in UTC.
    pub fn to_go_binary(self) -> [u8; 15] {
        let mut bytes = [0; 15];
        bytes[0] = 1;
        bytes[1..9].copy_from_slice(&(self.seconds + YEAR_1_TO_1970).to_be_bytes());
        bytes[9..13].copy_from_slice(&self.nanos.to_be_bytes());
        bytes[13..].copy_from_slice(&(-1_i16).to_be_bytes());
        bytes
    }
}

impl From<base::Timestamp> for Time {
    fn from(at: base::Timestamp) -> Self {
        let nanos = at.unix_nanos();
        let seconds = i64::try_from(nanos / 1_000_000_000).unwrap_or(0);
        Time::new(seconds, u32::try_from(nanos % 1_000_000_000).unwrap_or(0))
    }
}

impl From<Time> for base::Timestamp {
    /// What lies outside of 1970 to 2554 becomes the nearer end.
    fn from(at: Time) -> Self {
        let seconds = u64::try_from(at.seconds).unwrap_or(0);
        base::Timestamp::from_unix_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(u64::from(at.nanos)))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Moment;

        impl<'de> Visitor<'de> for Moment {
            type Value = Time;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a moment: RFC 3339, or Go's binary form")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                // Go's binary form may happen to be well-formed text.
                let found = Time::from_go_binary(text.as_bytes()).or_else(|| Time::from_rfc3339(text));
                found.or_else(|| text.is_empty().then_some(Time::ZERO)).ok_or_else(|| E::invalid_value(Unexpected::Str("a text"), &self))
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Time, E> {
                Time::from_go_binary(bytes).ok_or_else(|| E::invalid_value(Unexpected::Other("bytes"), &self))
            }

            fn visit_unit<E: Error>(self) -> Result<Time, E> {
                Ok(Time::ZERO)
            }

            fn visit_none<E: Error>(self) -> Result<Time, E> {
                Ok(Time::ZERO)
            }
        }

        deserializer.deserialize_any(Moment)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gos_binary_form_is_what_go_writes() {
        // 63,631,917,296 seconds after the beginning of year 1.
        let bytes = [1, 0, 0, 0, 14, 0xd0, 0xc2, 0, 0xf0, 0, 0, 3, 0x15, 0xff, 0xff];
        let at = Time::from_go_binary(&bytes).unwrap();
        assert_eq!(at.to_rfc3339(), "2017-06-01T12:34:56.000000789Z");
        assert_eq!(at.to_go_binary(), bytes);
    }

    #[test]
    fn the_zone_of_a_moment_does_not_change_it() {
        let mut bytes = Time::new(1_500_000_000, 5).to_go_binary().to_vec();
        bytes[13..].copy_from_slice(&120_i16.to_be_bytes());
        assert_eq!(Time::from_go_binary(&bytes), Some(Time::new(1_500_000_000, 5)));
        bytes[0] = 2;
        bytes.push(17);
        assert_eq!(Time::from_go_binary(&bytes), Some(Time::new(1_500_000_000, 5)));
    }

    #[test]
    fn no_moment_is_the_year_1() {
        assert_eq!(Time::ZERO.to_rfc3339(), "0001-01-01T00:00:00Z");
        assert_eq!(Time::from_rfc3339("0001-01-01T00:00:00Z"), Some(Time::ZERO));
        assert_eq!(Time::from_go_binary(&Time::ZERO.to_go_binary()), Some(Time::ZERO));
        assert_eq!(base::Timestamp::from(Time::ZERO), base::Timestamp::EPOCH);
    }

    proptest! {
        #[test]
        fn every_moment_comes_back(seconds in -YEAR_1_TO_1970..=SECONDS_MAX, nanos in 0..1_000_000_000_u32) {
            let at = Time::new(seconds, nanos);
            prop_assert_eq!(Time::from_go_binary(&at.to_go_binary()), Some(at));
            prop_assert_eq!(Time::from_rfc3339(&at.to_rfc3339()), Some(at));
        }

        #[test]
        fn any_bytes_are_a_moment_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some(at) = Time::from_go_binary(&bytes) {
                at.to_rfc3339();
            }
        }
    }
}
