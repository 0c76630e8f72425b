use std::fmt;
use std::sync::Arc;

use crate::Scalar;

/// Whole numbers as closed intervals: ascending, apart from each other by at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// The union of closed intervals `(begin, end)`; those with `begin > end` are empty.
    pub fn new(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut ranges: Vec<(u64, u64)> = ranges.into_iter().filter(|(begin, end)| begin <= end).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (begin, end) in ranges {
            match merged.last_mut() {
                Some((_, last)) if begin <= last.saturating_add(1) => *last = (*last).max(end),
                _ => merged.push((begin, end)),
            }
        }
        Ranges(merged)
    }

    /// The intervals, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Whether there is no number in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are; saturates.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |count, (begin, end)| count.saturating_add((end - begin).saturating_add(1)))
    }

    /// Whether every number of `other` is in this.
    pub fn contains(&self, other: &Ranges) -> bool {
        other.0.iter().all(|(begin, end)| {
            let after = self.0.partition_point(|(mine, _)| mine <= begin);
            after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| end <= last)
        })
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Ranges) -> Ranges {
        Ranges::new(self.iter().chain(other.iter()))
    }

    /// What is in this and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Ranges) -> Ranges {
        let mut left = Vec::with_capacity(self.0.len() + other.0.len());
        let mut holes = other.0.iter().peekable();
        for &(begin, end) in &self.0 {
            let mut from = Some(begin);
            while let Some(&&(hole_begin, hole_end)) = holes.peek() {
                let Some(start) = from else { break };
                if hole_begin > end {
                    break;
                }
                if hole_end < start {
                    holes.next();
                    continue;
                }
                if hole_begin > start {
                    left.push((start, hole_begin - 1));
                }
                if hole_end >= end {
                    from = None;
                } else {
                    from = Some(hole_end + 1);
                    holes.next();
                }
            }
            if let Some(start) = from {
                left.push((start, end));
            }
        }
        Ranges(left)
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (at, (begin, end)) in self.0.iter().enumerate() {
            write!(f, "{}{begin}-{end}", if at == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

/// Different words, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(Vec<Arc<str>>);

impl Set {
    /// The different items.
    pub fn new(items: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut items: Vec<Arc<str>> = items.into_iter().collect();
        items.sort_unstable();
        items.dedup();
        Set(items)
    }

    /// The items, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &str> + '_ {
        self.0.iter().map(|item| &**item)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every item of `other` is in this.
    pub fn contains(&self, other: &Set) -> bool {
        other.0.iter().all(|item| self.0.binary_search(item).is_ok())
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Set) -> Set {
        Set::new(self.0.iter().chain(&other.0).cloned())
    }

    /// What is in this and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Set) -> Set {
        Set(self.0.iter().filter(|item| other.0.binary_search(item).is_err()).cloned().collect())
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, item) in self.iter().enumerate() {
            write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
        }
        f.write_str("}")
    }
}

/// How much of a resource: an amount, intervals of numbers, or words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `cpus:4`
    Scalar(Scalar),
    /// `ports:[31000-32000]`
    Ranges(Ranges),
    /// `zones:{a,b}`
    Set(Set),
}

impl Value {
    /// Whether this is nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Value::Scalar(amount) => !amount.is_positive(),
            Value::Ranges(ranges) => ranges.is_empty(),
            Value::Set(set) => set.is_empty(),
        }
    }

    /// Whether `other`, of the same type, is within this.
    pub fn contains(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Scalar(mine), Value::Scalar(other)) => mine >= other,
            (Value::Ranges(mine), Value::Ranges(other)) => mine.contains(other),
            (Value::Set(mine), Value::Set(other)) => mine.contains(other),
            _ => false,
        }
    }

    /// Adds a value of the same type; of another type nothing.
    pub fn add(&mut self, other: &Value) {
        match (self, other) {
            (Value::Scalar(mine), Value::Scalar(other)) => *mine += *other,
            (Value::Ranges(mine), Value::Ranges(other)) => *mine = mine.union(other),
            (Value::Set(mine), Value::Set(other)) => *mine = mine.union(other),
            _ => {}
        }
    }

    /// Takes away a value of the same type; of another type nothing.
    pub fn subtract(&mut self, other: &Value) {
        match (self, other) {
            (Value::Scalar(mine), Value::Scalar(other)) => *mine -= *other,
            (Value::Ranges(mine), Value::Ranges(other)) => *mine = mine.minus(other),
            (Value::Set(mine), Value::Set(other)) => *mine = mine.minus(other),
            _ => {}
        }
    }

    /// Whether both are of one type.
    pub fn same_type(&self, other: &Value) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Scalar(it) => it.fmt(f),
            Value::Ranges(it) => it.fmt(f),
            Value::Set(it) => it.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn numbers(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(begin, end)| begin..=end).collect()
    }

    fn any_ranges() -> impl Strategy<Value = Ranges> {
        prop::collection::vec((0u64..60, 0u64..12), 0..6).prop_map(|it| Ranges::new(it.into_iter().map(|(at, len)| (at, at + len))))
    }

    proptest! {
        #[test]
        fn ranges_are_sets_of_numbers(a in any_ranges(), b in any_ranges()) {
            let (x, y) = (numbers(&a), numbers(&b));
            prop_assert_eq!(numbers(&a.union(&b)), &x | &y);
            prop_assert_eq!(numbers(&a.minus(&b)), &x - &y);
            prop_assert_eq!(a.contains(&b), y.is_subset(&x));
            prop_assert_eq!(a.count(), x.len() as u64);
            prop_assert_eq!(Ranges::new(a.minus(&b).iter()), a.minus(&b));
        }
    }

    #[test]
    fn ranges_reach_the_last_number() {
        let all = Ranges::new([(0, u64::MAX)]);
        assert_eq!(all.count(), u64::MAX);
        let hole = Ranges::new([(0, 4), (u64::MAX, u64::MAX)]);
        assert_eq!(all.minus(&hole), Ranges::new([(5, u64::MAX - 1)]));
        assert_eq!(all.minus(&hole).union(&hole), all);
    }

    #[test]
    fn they_print_as_mesos_does() {
        assert_eq!(Ranges::new([(31010, 31010), (31000, 31005)]).to_string(), "[31000-31005, 31010-31010]");
        assert_eq!(Set::new(["b".into(), "a".into(), "b".into()]).to_string(), "{a, b}");
    }
}
