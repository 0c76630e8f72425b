//! Hours of the week at which other bounds hold.

use base::Timestamp;

/// The days of a week by their words, Monday first.
pub const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

const MINUTES_OF_DAY: i64 = 24 * 60;

/// Hours of the week at which other bounds hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// For people.
    pub name: String,
    /// Days on which it opens, Monday first.
    pub days: [bool; 7],
    /// Minute of the day at which it opens.
    pub from: u16,
    /// Minute of the day at which it closes; on the next day when it is not after the opening. Up to
    /// 1,440: midnight at the end of the day.
    pub to: u16,
    /// Minutes by which the clock meant is ahead of UTC.
    pub utc_offset: i16,
    /// Never fewer, in it; none: as always.
    pub min: Option<u32>,
    /// Never more, in it; none: as always.
    pub max: Option<u32>,
}

impl Window {
    /// Whether it is open.
    pub fn is_open(&self, now: Timestamp) -> bool {
        let minutes = i64::try_from(now.unix_millis() / 60_000).unwrap_or(i64::MAX / 2) + i64::from(self.utc_offset);
        let (day, minute) = (minutes.div_euclid(MINUTES_OF_DAY), minutes.rem_euclid(MINUTES_OF_DAY));
        let (from, to) = (i64::from(self.from), i64::from(self.to));
        if from < to {
            self.opens_on(day) && (from..to).contains(&minute)
        } else {
            self.opens_on(day) && minute >= from || self.opens_on(day - 1) && minute < to
        }
    }

    /// `day` counts from 1970-01-01, which was a Thursday.
    fn opens_on(&self, day: i64) -> bool {
        usize::try_from((day + 3).rem_euclid(7)).ok().and_then(|at| self.days.get(at)).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 2024-01-01, with so many minutes added.
    fn monday(minutes: u64) -> Timestamp {
        Timestamp::from_unix_millis(1_704_067_200_000 + minutes * 60_000)
    }

    fn window(days: &[usize], from: u16, to: u16, utc_offset: i16) -> Window {
        let mut open = [false; 7];
        days.iter().for_each(|day| open[*day] = true);
        Window { name: String::new(), days: open, from, to, utc_offset, min: None, max: None }
    }

    #[test]
    fn a_window_may_close_at_the_end_of_the_day() {
        for to in [0, 24 * 60] {
            let evening = window(&[0], 18 * 60, to, 0);
            assert!(evening.is_open(monday(24 * 60 - 1)) && !evening.is_open(monday(24 * 60)), "{to}");
        }
    }

    #[test]
    fn a_window_opens_and_closes_on_the_minute() {
        let office = window(&[0, 1, 2, 3, 4], 8 * 60, 18 * 60, 0);
        let open = |minutes| office.is_open(monday(minutes));
        assert_eq!([open(8 * 60 - 1), open(8 * 60), open(18 * 60 - 1), open(18 * 60)], [false, true, true, false]);
        assert!(!office.is_open(monday(5 * 24 * 60 + 600)), "Saturday");
    }

    #[test]
    fn a_window_may_close_on_the_next_day() {
        let night = window(&[6], 22 * 60, 6 * 60, 0);
        assert!(night.is_open(monday(6 * 24 * 60 + 23 * 60)), "Sunday night");
        assert!(night.is_open(monday(5 * 60)), "the night from Sunday to Monday");
        assert!(!night.is_open(monday(23 * 60)), "Monday night");
    }

    #[test]
    fn hours_are_those_of_the_clock_meant() {
        let office = window(&[0], 9 * 60, 10 * 60, 120);
        assert!(office.is_open(monday(7 * 60)));
        assert!(!office.is_open(monday(9 * 60)));
    }

    #[test]
    fn from_midnight_to_midnight_is_the_whole_day() {
        let day = window(&[2], 0, 0, 0);
        assert!((0..24 * 60).all(|minute| day.is_open(monday(2 * 24 * 60 + minute))));
        assert!(!day.is_open(monday(3 * 24 * 60)));
    }
}
