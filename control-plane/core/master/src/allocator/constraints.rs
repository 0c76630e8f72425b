//! Which agents a framework wants to be offered: offer constraints, compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesos::Role;
use mesos_proto::v1;
use regex::{Regex, RegexBuilder};
use v1::scheduler;
use v1::scheduler::attribute_constraint::predicate::Predicate as Wire;
use v1::scheduler::attribute_constraint::selector::{PseudoattributeType, Selector as WireSelector};

/// How many constraints there may be in all: what is above is refused.
const CONSTRAINTS_MAX: usize = 10_000;

/// The constraints of a framework by role. A role without an entry wants every agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Constraints(BTreeMap<Role, Vec<Vec<Constraint>>>);

#[derive(Clone, Debug)]
struct Constraint {
    selector: Selector,
    test: Test,
}

#[derive(Clone, Debug)]
enum Selector {
    Hostname,
    Region,
    Zone,
    Attribute(String),
}

#[derive(Clone, Debug)]
enum Test {
    Exists,
    NotExists,
    Equals(String),
    NotEquals(String),
    Matches(Regex),
    NotMatches(Regex),
}

/// What a selector finds.
enum Found<'a> {
    Nothing,
    Text(&'a str),
    Other,
}

impl Constraints {
    /// Compiles what a framework sent.
    ///
    /// # Errors
    ///
    /// With a text for the framework: an unknown selector or predicate, a regular expression that is malformed or too large.
    pub(crate) fn compile(wire: &scheduler::OfferConstraints, regex_max_bytes: usize) -> Result<Constraints, String> {
        let mut compiled = BTreeMap::new();
        let mut count = 0;
        for (role, constraints) in &wire.role_constraints {
            if constraints.groups.is_empty() {
                return Err("Offer constraints are invalid: `RoleConstraints` must contain at least one group".into());
            }
            let mut groups = Vec::with_capacity(constraints.groups.len());
            for group in &constraints.groups {
                if group.attribute_constraints.is_empty() {
                    return Err("Offer constraints are invalid: `Group` must contain at least one constraint".into());
                }
                count += group.attribute_constraints.len();
                if count > CONSTRAINTS_MAX {
                    return Err(format!("Offer constraints are invalid: more than {CONSTRAINTS_MAX} constraints"));
                }
                let tests = group.attribute_constraints.iter().map(|it| constraint(it, regex_max_bytes));
                groups.push(tests.collect::<Result<Vec<_>, _>>()?);
            }
            compiled.insert(Role::from(role.as_str()), groups);
        }
        Ok(Constraints(compiled))
    }

    /// Whether the framework wants an agent for a role.
    pub(crate) fn accept(&self, role: &Role, agent: &v1::AgentInfo) -> bool {
        let Some(groups) = self.0.get(role) else { return true };
        groups.iter().any(|group| group.iter().all(|constraint| constraint.holds(agent)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn constraint(wire: &scheduler::AttributeConstraint, regex_max_bytes: usize) -> Result<Constraint, String> {
    let selector = match &wire.selector.selector {
        Some(WireSelector::AttributeName(name)) => Selector::Attribute(name.clone()),
        Some(WireSelector::PseudoattributeType(kind)) => match PseudoattributeType::try_from(*kind) {
            Ok(PseudoattributeType::Hostname) => Selector::Hostname,
            Ok(PseudoattributeType::Region) => Selector::Region,
            Ok(PseudoattributeType::Zone) => Selector::Zone,
            _ => return Err("Offer constraints are invalid: Unknown pseudoattribute type".into()),
        },
        None => return Err("Offer constraints are invalid: Exactly one of `Selector` fields must be set".into()),
    };
    let build = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder.size_limit(regex_max_bytes).dfa_size_limit(regex_max_bytes).nest_limit(50);
        builder.build().map_err(|error| format!("Offer constraints are invalid: {error}"))
    };
    let regex = |text: &str| {
        // On its own first: what is malformed must not become well-formed inside the group.
        build(text)?;
        build(&format!(r"\A(?:{text})\z"))
    };
    let test = match &wire.predicate.predicate {
        Some(Wire::Exists(_)) => Test::Exists,
        Some(Wire::NotExists(_)) => Test::NotExists,
        Some(Wire::TextEquals(it)) => Test::Equals(it.value.clone()),
        Some(Wire::TextNotEquals(it)) => Test::NotEquals(it.value.clone()),
        Some(Wire::TextMatches(it)) => Test::Matches(regex(&it.regex)?),
        Some(Wire::TextNotMatches(it)) => Test::NotMatches(regex(&it.regex)?),
        None => return Err("Offer constraints are invalid: Exactly one of `Predicate` fields must be set".into()),
    };
    Ok(Constraint { selector, test })
}

impl Constraint {
    fn holds(&self, agent: &v1::AgentInfo) -> bool {
        let domain = || agent.domain.as_ref().and_then(|it| it.fault_domain.as_ref());
        let found = match &self.selector {
            Selector::Hostname => Found::Text(&agent.hostname),
            Selector::Region => domain().map_or(Found::Nothing, |it| Found::Text(&it.region.name)),
            Selector::Zone => domain().map_or(Found::Nothing, |it| Found::Text(&it.zone.name)),
            Selector::Attribute(name) => match agent.attributes.iter().find(|it| it.name == *name) {
                None => Found::Nothing,
                Some(attribute) => attribute.text.as_ref().map_or(Found::Other, |text| Found::Text(&text.value)),
            },
        };
        match (&self.test, found) {
            (Test::Exists, found) => !matches!(found, Found::Nothing),
            (Test::NotExists, found) => matches!(found, Found::Nothing),
            // The scheduler sorts out what is no text by itself.
            (_, Found::Other) => true,
            (Test::Equals(value), Found::Text(text)) => value == text,
            (Test::NotEquals(value), Found::Text(text)) => value != text,
            (Test::Matches(regex), Found::Text(text)) => regex.is_match(text),
            (Test::NotMatches(regex), Found::Text(text)) => !regex.is_match(text),
            (Test::Equals(_) | Test::Matches(_), Found::Nothing) => false,
            (Test::NotEquals(_) | Test::NotMatches(_), Found::Nothing) => true,
        }
    }
}

/// Constraints that nobody set.
pub(crate) fn none() -> Arc<Constraints> {
    Arc::new(Constraints::default())
}
