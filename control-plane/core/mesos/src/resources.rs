use std::fmt;

use mesos_proto::v1;

use crate::{Format, Quantities, Resource, Role, Scalar, Value};

/// Resources of several kinds, those of one kind summed up. In the order in which the kinds came.
#[derive(Clone, Default)]
pub struct Resources(Vec<Resource>);

impl Resources {
    /// None.
    pub fn new() -> Self {
        Resources::default()
    }

    /// From the wire; what is empty or not valid is left out.
    pub fn from_proto(resources: &[v1::Resource]) -> Self {
        resources.iter().filter(|it| crate::resource_error(it).is_none()).map(Resource::from_proto).collect()
    }

    /// As the wire's messages; shared resources as often as they are counted.
    pub fn to_proto(&self, format: Format) -> Vec<v1::Resource> {
        let copies = self.0.iter().flat_map(|it| std::iter::repeat_n(it, if it.is_shared() { it.count as usize } else { 1 }));
        copies.map(|it| it.to_proto(format)).collect()
    }

    /// The resources, one per kind.
    pub fn iter(&self) -> std::slice::Iter<'_, Resource> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many kinds there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds one.
    pub fn add(&mut self, resource: Resource) {
        if resource.is_empty() {
            return;
        }
        for mine in &mut self.0 {
            if !mine.same_identity(&resource) {
                continue;
            }
            if mine.is_shared() {
                if mine.value == resource.value {
                    mine.count = mine.count.saturating_add(resource.count);
                    return;
                }
            } else if !mine.is_indivisible() {
                mine.value.add(&resource.value);
                return;
            }
        }
        self.0.push(resource);
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &Resources) {
        for resource in &other.0 {
            self.add(resource.clone());
        }
    }

    /// Takes one away; what is not here is ignored, and nothing becomes negative.
    pub fn subtract(&mut self, resource: &Resource) {
        let found = self
            .0
            .iter_mut()
            .enumerate()
            .find(|(_, mine)| mine.same_identity(resource) && (!mine.is_indivisible() || mine.value == resource.value));
        let Some((at, mine)) = found else { return };
        if mine.is_shared() {
            mine.count = mine.count.saturating_sub(resource.count);
            if mine.count == 0 {
                self.0.remove(at);
            }
            return;
        }
        mine.value.subtract(&resource.value);
        if mine.value.is_empty() {
            self.0.remove(at);
        }
    }

    /// Takes all of `other` away.
    pub fn subtract_all(&mut self, other: &Resources) {
        for resource in &other.0 {
            self.subtract(resource);
        }
    }

    /// The sum.
    #[must_use]
    pub fn plus(&self, other: &Resources) -> Resources {
        let mut sum = self.clone();
        sum.add_all(other);
        sum
    }

    /// The difference.
    #[must_use]
    pub fn minus(&self, other: &Resources) -> Resources {
        let mut left = self.clone();
        left.subtract_all(other);
        left
    }

    /// Whether `resource` is within this.
    pub fn contains_one(&self, resource: &Resource) -> bool {
        resource.is_empty() || self.0.iter().any(|mine| mine.contains(resource))
    }

    /// Whether all of `other` is within this.
    pub fn contains(&self, other: &Resources) -> bool {
        // Only of volumes can several equal ones be in `other`: the rest is summed up there.
        if other.0.iter().any(Resource::is_indivisible) {
            let mut left = self.clone();
            return other.0.iter().all(|resource| {
                let here = left.contains_one(resource);
                left.subtract(resource);
                here
            });
        }
        other.0.iter().all(|resource| self.contains_one(resource))
    }

    /// Those for which `keep` holds.
    #[must_use]
    pub fn filter(&self, mut keep: impl FnMut(&Resource) -> bool) -> Resources {
        Resources(self.0.iter().filter(|it| keep(it)).cloned().collect())
    }

    /// Each changed by `change`.
    #[must_use]
    pub fn map(&self, change: impl FnMut(&Resource) -> Resource) -> Resources {
        self.0.iter().map(change).collect()
    }

    /// The same, allocated to `role`.
    #[must_use]
    pub fn allocated_to(&self, role: &Role) -> Resources {
        let mut all = self.clone();
        for resource in &mut all.0 {
            resource.allocated = Some(role.clone());
        }
        // Kinds that differed by their allocation alone are one now; that is rare.
        if self.0.iter().any(|it| it.allocated.is_some()) { all.0.into_iter().collect() } else { all }
    }

    /// The same, allocated to nobody.
    #[must_use]
    pub fn unallocated(&self) -> Resources {
        // Of one allocation no two kinds become one.
        let first = self.0.first().and_then(|it| it.allocated.as_ref());
        if self.0.iter().all(|it| it.allocated.as_ref() == first) {
            let mut all = self.clone();
            for resource in &mut all.0 {
                resource.allocated = None;
            }
            return all;
        }
        self.map(|it| Resource { allocated: None, ..it.clone() })
    }

    /// The same, reserved for nobody.
    #[must_use]
    pub fn to_unreserved(&self) -> Resources {
        self.map(Resource::to_unreserved)
    }

    /// How much there is of a scalar, whoever it is reserved for.
    pub fn scalar(&self, name: &str) -> Scalar {
        self.0.iter().filter(|it| &**it.name() == name).map(Resource::amount).sum()
    }

    /// The scalars, whoever they are reserved for. What is shared counts once.
    pub fn quantities(&self) -> Quantities {
        let mut sum = Quantities::new();
        for it in &self.0 {
            if let Value::Scalar(amount) = it.value {
                sum.add(it.name(), amount);
            }
        }
        sum
    }

    /// The scalars for which `keep` holds.
    pub fn quantities_of(&self, mut keep: impl FnMut(&Resource) -> bool) -> Quantities {
        let mut sum = Quantities::new();
        for it in self.0.iter().filter(|it| keep(it)) {
            sum.add(it.name(), it.amount());
        }
        sum
    }

    /// The persistent volumes.
    pub fn persistent_volumes(&self) -> Resources {
        self.filter(Resource::is_persistent_volume)
    }

    /// The only role that everything here is allocated to.
    pub fn single_allocation(&self) -> Option<&Role> {
        let role = self.0.first()?.allocated.as_ref()?;
        self.0.iter().all(|it| it.allocated.as_ref() == Some(role)).then_some(role)
    }
}

impl PartialEq for Resources {
    fn eq(&self, other: &Resources) -> bool {
        self.contains(other) && other.contains(self)
    }
}

impl Eq for Resources {}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut sum = Resources::new();
        for resource in resources {
            sum.add(resource);
        }
        sum
    }
}

impl<'a> IntoIterator for &'a Resources {
    type Item = &'a Resource;
    type IntoIter = std::slice::Iter<'a, Resource>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("{}");
        }
        for (at, resource) in self.0.iter().enumerate() {
            write!(f, "{}{resource}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
