//! Whether an agent that is configured otherwise than before is still the same agent. Pure.
//!
//! The rules are those of Mesos's `--reconfiguration_policy`: frameworks have placed tasks by what the agent was, and reservations are of its resources.

use std::fmt;
use std::str::FromStr;

use mesos::{Ranges, Resources, Set};
use mesos_proto::v1::value::Type;
use mesos_proto::v1::{AgentInfo, Attribute};

/// How an agent may be configured when it starts again with the id that it had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// As it was.
    #[default]
    Equal,
    /// With more: resources and attributes may grow and be added, and a domain may be given to an agent without one.
    Additive,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Policy::Equal => "equal",
            Policy::Additive => "additive",
        })
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Policy::Equal, Policy::Additive]
            .into_iter()
            .find(|it| it.to_string() == text)
            .ok_or_else(|| "there are equal and additive".to_owned())
    }
}

/// What may not have changed, and has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the agent's {what} changed from {before} to {now}, which the reconfiguration policy {policy} does not allow: restore the configuration, or start it with recover=cleanup to end its tasks; reservations of resources that are gone go with the work directory"
)]
pub struct Incompatible {
    what: String,
    before: String,
    now: String,
    policy: Policy,
}

/// Whether an agent may go on.
///
/// # Errors
/// The first thing that stands against it.
pub fn check(policy: Policy, before: &AgentInfo, now: &AgentInfo) -> Result<(), Incompatible> {
    let refuse = |what: &str, before: String, now: String| Err(Incompatible { what: what.to_owned(), before, now, policy });
    if before.hostname != now.hostname {
        return refuse("host name", before.hostname.clone(), now.hostname.clone());
    }
    let may_have_domain = policy == Policy::Additive && before.domain.is_none();
    if before.domain != now.domain && !may_have_domain {
        return refuse("domain", domain(before), domain(now));
    }
    resources(policy, &Resources::from_proto(&before.resources), &Resources::from_proto(&now.resources))?;
    for was in &before.attributes {
        let is = now.attributes.iter().find(|it| it.name == was.name);
        let is_kept = is.is_some_and(|is| is == was || (policy == Policy::Additive && has_grown(was, is)));
        if !is_kept {
            let is = is.map_or_else(|| "gone".to_owned(), mesos::print_attribute);
            return refuse(&format!("attribute {}", was.name), mesos::print_attribute(was), is);
        }
    }
    let is_new = |it: &&Attribute| before.attributes.iter().all(|was| was.name != it.name);
    match now.attributes.iter().find(is_new) {
        Some(it) if policy == Policy::Equal => {
            refuse(&format!("attribute {}", it.name), "not there".to_owned(), mesos::print_attribute(it))
        }
        _ => Ok(()),
    }
}

/// Whether an agent with other resources may go on.
///
/// # Errors
/// When it may not.
pub fn resources(policy: Policy, before: &Resources, now: &Resources) -> Result<(), Incompatible> {
    let is_kept = before == now || (policy == Policy::Additive && now.contains(before));
    let what = "configured resources".to_owned();
    if is_kept { Ok(()) } else { Err(Incompatible { what, before: before.to_string(), now: now.to_string(), policy }) }
}

/// Whether a set or ranges have all that they had. A number or a word stays what it is.
fn has_grown(was: &Attribute, is: &Attribute) -> bool {
    let ranges = |it: &Attribute| Ranges::new(it.ranges.iter().flat_map(|it| &it.range).map(|it| (it.begin, it.end)));
    let set = |it: &Attribute| Set::new(it.set.iter().flat_map(|it| &it.item).map(|it| it.as_str().into()));
    was.r#type == is.r#type
        && match Type::try_from(was.r#type) {
            Ok(Type::Ranges) => ranges(is).contains(&ranges(was)),
            Ok(Type::Set) => set(is).contains(&set(was)),
            _ => false,
        }
}

fn domain(agent: &AgentInfo) -> String {
    let domain = agent.domain.as_ref().and_then(|it| it.fault_domain.as_ref());
    domain.map_or_else(|| "none".to_owned(), |it| format!("{}/{}", it.region.name, it.zone.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(resources: &str, attributes: &str) -> AgentInfo {
        AgentInfo {
            hostname: "one".to_owned(),
            resources: mesos::parse_resources(resources, "*").unwrap(),
            attributes: mesos::parse_attributes(attributes).unwrap(),
            ..AgentInfo::default()
        }
    }

    #[test]
    fn an_agent_stays_what_it_was_or_grows_where_that_is_allowed() {
        let before = agent("cpus:4;mem:100;ports:[1-9]", "rack:a;num:3;span:[1-5]");
        for (resources, attributes, additive) in [
            ("cpus:4;mem:100;ports:[1-9]", "rack:a;num:3;span:[1-5]", true),
            ("cpus:8;mem:100;ports:[1-9,11-12];gpus:1", "rack:a;num:3;span:[1-9];new:1", true),
            ("cpus:3;mem:100;ports:[1-9]", "rack:a;num:3;span:[1-5]", false),
            ("cpus:4;mem:100", "rack:a;num:3;span:[1-5]", false),
            ("cpus:4;mem:100;ports:[1-9]", "rack:b;num:3;span:[1-5]", false),
            ("cpus:4;mem:100;ports:[1-9]", "rack:a;num:4;span:[1-5]", false),
            ("cpus:4;mem:100;ports:[1-9]", "rack:a;num:3;span:[2-5]", false),
            ("cpus:4;mem:100;ports:[1-9]", "rack:a;num:3;span:five", false),
            ("cpus:4;mem:100;ports:[1-9]", "rack:a;span:[1-5]", false),
        ] {
            let now = agent(resources, attributes);
            assert_eq!(check(Policy::Additive, &before, &now).is_ok(), additive, "{resources} {attributes}");
            assert_eq!(check(Policy::Equal, &before, &now).is_ok(), now == before, "{resources} {attributes}");
        }
        let renamed = AgentInfo { hostname: "two".to_owned(), ..before.clone() };
        let problem = check(Policy::Additive, &before, &renamed).unwrap_err().to_string();
        assert!(
            problem
                .starts_with("the agent's host name changed from one to two, which the reconfiguration policy additive does not allow: "),
            "{problem}"
        );
    }
}
