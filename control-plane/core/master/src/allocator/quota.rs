use std::collections::BTreeMap;

use mesos::{Quantities, Scalar};
use mesos_proto::v1;

/// What a top-level role is promised, may have, and has.
#[derive(Clone, Debug, Default)]
pub(super) struct QuotaEntry {
    pub(super) guarantees: Quantities,
    /// What is not named has no limit.
    pub(super) limits: Option<BTreeMap<String, Scalar>>,
    /// Reserved for the role and those below it, used or not.
    pub(super) reserved: Quantities,
    /// Allocated to the role and those below it, without what is reserved.
    pub(super) allocated: Quantities,
}

impl QuotaEntry {
    pub(super) fn set(&mut self, quota: Option<&v1::quota::QuotaConfig>) {
        let Some(quota) = quota else {
            self.guarantees = Quantities::new();
            self.limits = None;
            return;
        };
        self.guarantees = quota.guarantees.iter().map(|(name, it)| (name.as_str().into(), Scalar::from_f64(it.value))).collect();
        let limits: BTreeMap<_, _> = quota.limits.iter().map(|(name, it)| (name.clone(), Scalar::from_f64(it.value))).collect();
        self.limits = (!limits.is_empty()).then_some(limits);
    }

    pub(super) fn is_set(&self) -> bool {
        !self.guarantees.is_empty() || self.limits.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_set() && self.reserved.is_empty() && self.allocated.is_empty()
    }

    pub(super) fn consumed(&self) -> Quantities {
        let mut sum = self.reserved.clone();
        sum.add_all(&self.allocated);
        sum
    }

    /// What is promised and not yet had.
    pub(super) fn missing(&self) -> Quantities {
        if self.guarantees.is_empty() { Quantities::new() } else { self.guarantees.minus_or_zero(&self.consumed()) }
    }

    /// How much more of `name` the role may have; none: any amount.
    pub(super) fn room(&self, name: &str) -> Option<Scalar> {
        let limit = self.limits.as_ref()?.get(name)?;
        Some(limit.minus_or_zero(self.reserved.get(name) + self.allocated.get(name)))
    }
}
