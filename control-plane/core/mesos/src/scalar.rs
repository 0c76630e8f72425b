use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

/// An amount with three decimals, kept as thousandths.
///
/// Mesos rounds every scalar to three decimals on each step of arithmetic and on each comparison; here nothing else can be represented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scalar(i64);

/// The largest amount that is told apart: a million times what any cluster has, and far from where sums overflow.
const LARGEST: i64 = i64::MAX / 1_000_000;

impl Scalar {
    /// Nothing.
    pub const ZERO: Scalar = Scalar(0);

    /// From thousandths.
    pub const fn from_milli(milli: i64) -> Self {
        Scalar(milli)
    }

    /// From a whole number.
    pub const fn from_whole(whole: i64) -> Self {
        Scalar(whole.saturating_mul(1000))
    }

    /// Rounded to three decimals. Not a number is zero; beyond what is told apart, the largest amount of that sign.
    pub fn from_f64(value: f64) -> Self {
        if value.is_nan() {
            return Scalar(0);
        }
        let milli = (value * 1000.0).round();
        #[expect(clippy::cast_precision_loss, reason = "a limit, not an amount")]
        let limit = LARGEST as f64;
        #[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
        Scalar(milli.clamp(-limit, limit) as i64)
    }

    /// As the wire's double.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 thousandths, and the wire knows nothing finer")]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// In thousandths.
    pub const fn milli(self) -> i64 {
        self.0
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether this is more than nothing.
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// The difference, or zero where it would be negative.
    pub fn minus_or_zero(self, other: Scalar) -> Scalar {
        Scalar((self.0 - other.0).max(0))
    }
}

impl Add for Scalar {
    type Output = Scalar;
    fn add(self, other: Scalar) -> Scalar {
        Scalar(self.0.saturating_add(other.0))
    }
}

impl Sub for Scalar {
    type Output = Scalar;
    fn sub(self, other: Scalar) -> Scalar {
        Scalar(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Scalar {
    fn add_assign(&mut self, other: Scalar) {
        *self = *self + other;
    }
}

impl SubAssign for Scalar {
    fn sub_assign(&mut self, other: Scalar) {
        *self = *self - other;
    }
}

impl Sum for Scalar {
    fn sum<I: Iterator<Item = Scalar>>(amounts: I) -> Scalar {
        amounts.fold(Scalar::ZERO, Add::add)
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, rest) = if self.0 < 0 { ("-", self.0.unsigned_abs()) } else { ("", self.0.unsigned_abs()) };
        let (whole, milli) = (rest / 1000, rest % 1000);
        if milli == 0 {
            return write!(f, "{sign}{whole}");
        }
        let decimals = format!("{milli:03}");
        write!(f, "{sign}{whole}.{}", decimals.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_added_ten_times_is_one() {
        let tenth = Scalar::from_f64(0.1);
        assert_eq!((0..10).map(|_| tenth).sum::<Scalar>(), Scalar::from_whole(1));
        assert_eq!(Scalar::from_f64(0.000_4), Scalar::ZERO);
        assert_eq!(Scalar::from_f64(0.000_6), Scalar::from_milli(1));
    }

    #[test]
    fn it_prints_without_empty_decimals() {
        for (value, text) in [(4.0, "4"), (0.5, "0.5"), (1.125, "1.125"), (-2.01, "-2.01"), (0.0, "0")] {
            assert_eq!(Scalar::from_f64(value).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_amount_stays_in_bounds() {
        assert_eq!(Scalar::from_f64(f64::NAN), Scalar::ZERO);
        assert!(Scalar::from_f64(f64::INFINITY) > Scalar::from_whole(1_000_000_000));
        assert!(Scalar::from_f64(f64::INFINITY) + Scalar::from_f64(f64::INFINITY) > Scalar::from_f64(f64::INFINITY));
    }
}
