use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use mesos::{Role, id_error};
use mesos_proto::v1;
use prost::Message as _;

use crate::FrameworkCapabilities;

/// A role longer than this is refused: its tree is walked. (Mesos has no limit.)
const ROLE_BYTES_MAX: usize = 1024;

/// Bytes of what a framework says of itself: agents are sent it with every task, and again whenever they come back. (Mesos has no limit.)
const INFO_BYTES_MAX: usize = 4 << 20;

/// What is wrong with what a framework says of itself; `None` when nothing is.
pub(crate) fn framework_error(info: &v1::FrameworkInfo) -> Option<String> {
    let bytes = info.encoded_len();
    if bytes > INFO_BYTES_MAX {
        return Some(format!("FrameworkInfo has {bytes} bytes, more than the {INFO_BYTES_MAX} that there may be"));
    }
    roles_error(info)
        .or_else(|| id_problem(info))
        .or_else(|| {
            let time = info.failover_timeout();
            let text = || format!("The framework failover_timeout ({time}) is invalid");
            // As many nanoseconds as fit in 63 bits.
            let fits = Duration::try_from_secs_f64(time).is_ok_and(|it| it.as_nanos() <= i64::MAX as u128);
            (!fits).then(text)
        })
        .or_else(|| filters_error(info))
}

fn roles_error(info: &v1::FrameworkInfo) -> Option<String> {
    let multi = FrameworkCapabilities::of(info).multi_role();
    if multi && info.role.is_some() {
        return Some("'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable".into());
    }
    if !multi && !info.roles.is_empty() {
        return Some("'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable".into());
    }
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&String> = info.roles.iter().filter(|role| !seen.insert(*role)).collect();
    if !twice.is_empty() {
        return Some(format!("'FrameworkInfo.roles' contains duplicate items: {}", list(twice.into_iter())));
    }
    let all = info.roles.iter().chain(&info.role);
    if let Some(role) = all.into_iter().find(|role| role.len() > ROLE_BYTES_MAX) {
        return Some(format!("Role of {} bytes is longer than {ROLE_BYTES_MAX}", role.len()));
    }
    if multi {
        let error = info.roles.iter().find_map(|role| Role::error(role))?;
        return Some(format!("'FrameworkInfo.roles' contains invalid role: {error}"));
    }
    Role::error(info.role()).map(|error| format!("'FrameworkInfo.role' is not a valid role: {error}"))
}

fn id_problem(info: &v1::FrameworkInfo) -> Option<String> {
    // An empty id asks for a new one.
    let id = info.id.as_ref().filter(|it| !it.value.is_empty())?;
    id_error(&id.value).map(|error| format!("Framework has invalid ID: {error}"))
}

fn filters_error(info: &v1::FrameworkInfo) -> Option<String> {
    for (role, filters) in &info.offer_filters {
        if let Some(error) = Role::error(role) {
            return Some(format!("Invalid role '{role}' in 'offer_filters': {error}"));
        }
        let roles = if FrameworkCapabilities::of(info).multi_role() { info.roles.as_slice() } else { &[] };
        if !roles.iter().any(|it| it == role) && info.role() != role {
            return Some(format!("Offer filters specify a role '{role}' not contained in the set of roles"));
        }
        let quantities = filters.min_allocatable_resources.iter().flat_map(|it| &it.quantities).flat_map(|it| &it.quantities);
        for (name, amount) in quantities {
            if !amount.value.is_finite() || amount.value < 0.0 {
                return Some(format!("Invalid resource quantity {{'{name}': {}}} in 'offer_filters'", amount.value));
            }
        }
    }
    None
}

/// What may not be changed; `None` when nothing of that was.
pub(crate) fn framework_update_error(old: &v1::FrameworkInfo, new: &v1::FrameworkInfo) -> Option<String> {
    if old.principal != new.principal {
        return Some("Changing framework's principal is not allowed.".into());
    }
    if old.user != new.user {
        return Some(format!("Updating 'FrameworkInfo.user' is unsupported; attempted to update from '{}' to '{}'", old.user, new.user));
    }
    if old.checkpoint() != new.checkpoint() {
        return Some(format!(
            "Updating 'FrameworkInfo.checkpoint' is unsupported; attempted to update from '{}' to '{}'",
            old.checkpoint(),
            new.checkpoint()
        ));
    }
    None
}

/// As stout prints a set.
pub(crate) fn list<T: Display>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|it| it.to_string()).collect();
    format!("{{ {} }}", items.join(", "))
}
