use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::Scalar;

/// Amounts by the names of scalar resources, ascending by name. What is not named is zero.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Quantities(SmallVec<[(Arc<str>, Scalar); 4]>);

impl Quantities {
    /// Nothing of anything.
    pub fn new() -> Self {
        Quantities::default()
    }

    /// How much of `name`.
    pub fn get(&self, name: &str) -> Scalar {
        self.0.iter().find(|(mine, _)| &**mine == name).map_or(Scalar::ZERO, |(_, amount)| *amount)
    }

    /// The amounts, ascending by name; each more or less than zero.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Scalar)> + '_ {
        self.0.iter().map(|(name, amount)| (name, *amount))
    }

    /// Whether every amount is zero.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds to one amount.
    pub fn add(&mut self, name: &Arc<str>, amount: Scalar) {
        if amount.is_zero() {
            return;
        }
        match self.0.binary_search_by(|(mine, _)| mine.cmp(name)) {
            Ok(at) => {
                self.0[at].1 += amount;
                if self.0[at].1.is_zero() {
                    self.0.remove(at);
                }
            }
            Err(at) => self.0.insert(at, (name.clone(), amount)),
        }
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &Quantities) {
        for (name, amount) in &other.0 {
            self.add(name, *amount);
        }
    }

    /// Takes all of `other` away; amounts may become negative.
    pub fn subtract_all(&mut self, other: &Quantities) {
        for (name, amount) in &other.0 {
            self.add(name, Scalar::ZERO - *amount);
        }
    }

    /// This without `other`, negative parts left out.
    #[must_use]
    pub fn minus_or_zero(&self, other: &Quantities) -> Quantities {
        let left = self.0.iter().map(|(name, amount)| (name.clone(), amount.minus_or_zero(other.get(name))));
        Quantities(left.filter(|(_, amount)| amount.is_positive()).collect())
    }

    /// Whether there is at least as much of everything as in `other`.
    pub fn contains(&self, other: &Quantities) -> bool {
        other.0.iter().all(|(name, amount)| self.get(name) >= *amount)
    }
}

impl FromIterator<(Arc<str>, Scalar)> for Quantities {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Scalar)>>(amounts: I) -> Self {
        let mut quantities = Quantities::new();
        for (name, amount) in amounts {
            quantities.add(&name, amount);
        }
        quantities
    }
}

impl fmt::Display for Quantities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, amount)) in self.0.iter().enumerate() {
            write!(f, "{}{name}:{amount}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Quantities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}
