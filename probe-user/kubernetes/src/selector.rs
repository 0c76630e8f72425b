//! Labels, and what selects by them.

/// Labels of an object, ordered by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.binary_search_by(|(mine, _)| (**mine).cmp(key)).ok().and_then(|at| self.0.get(at)).map(|(_, value)| &**value)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(ordered(pairs))
    }
}

/// What a service or a controller selects pods by: all of its terms have to hold. Without a term it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    pairs: Box<[(Box<str>, Box<str>)]>,
    expressions: Box<[Expression]>,
}

/// One term of a selector that is not a plain equality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// The label is there, with one of the values.
    In(Box<str>, Box<[Box<str>]>),
    /// The label is absent, or has none of the values.
    NotIn(Box<str>, Box<[Box<str>]>),
    /// The label is there.
    Exists(Box<str>),
    /// The label is absent.
    Absent(Box<str>),
    /// An operator that nobody knows: it holds for nothing.
    Never,
}

impl Selector {
    /// From equalities and further terms.
    pub fn new<K: Into<Box<str>>, V: Into<Box<str>>>(
        pairs: impl IntoIterator<Item = (K, V)>,
        expressions: impl IntoIterator<Item = Expression>,
    ) -> Self {
        Self { pairs: ordered(pairs), expressions: expressions.into_iter().collect() }
    }

    /// Whether it selects something with these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.pairs.iter().all(|(key, value)| labels.get(key) == Some(value)) && self.expressions.iter().all(|term| term.matches(labels))
    }

    /// The equalities, by key.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl Expression {
    fn matches(&self, labels: &Labels) -> bool {
        let one_of = |values: &[Box<str>], value: &str| values.iter().any(|one| **one == *value);
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| one_of(values, value)),
            Self::NotIn(key, values) => !labels.get(key).is_some_and(|value| one_of(values, value)),
            Self::Exists(key) => labels.get(key).is_some(),
            Self::Absent(key) => labels.get(key).is_none(),
            Self::Never => false,
        }
    }
}

/// By key; of equal keys the last wins.
fn ordered<K: Into<Box<str>>, V: Into<Box<str>>>(pairs: impl IntoIterator<Item = (K, V)>) -> Box<[(Box<str>, Box<str>)]> {
    pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect::<std::collections::BTreeMap<_, _>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    #[test]
    fn all_terms_have_to_hold() {
        let selector = Selector::new([("app", "web"), ("tier", "front")], []);
        assert!(selector.matches(&labels(&[("tier", "front"), ("app", "web"), ("more", "")])));
        assert!(!selector.matches(&labels(&[("app", "web")])));
        assert!(!selector.matches(&labels(&[("app", "web"), ("tier", "back")])));
    }

    #[test]
    fn an_absent_label_is_not_in_any_set() {
        let values: Box<[Box<str>]> = Box::new(["a".into(), "b".into()]);
        let term = |expression| Selector::new::<&str, &str>([], [expression]);
        assert!(term(Expression::NotIn("k".into(), values.clone())).matches(&labels(&[])));
        assert!(!term(Expression::NotIn("k".into(), values.clone())).matches(&labels(&[("k", "a")])));
        assert!(term(Expression::In("k".into(), values.clone())).matches(&labels(&[("k", "b")])));
        assert!(!term(Expression::In("k".into(), values)).matches(&labels(&[])));
        assert!(term(Expression::Absent("k".into())).matches(&labels(&[])));
        assert!(!term(Expression::Exists("k".into())).matches(&labels(&[])));
        assert!(!term(Expression::Never).matches(&labels(&[("k", "a")])));
    }
}
