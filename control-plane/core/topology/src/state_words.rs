//! In which words a node's row of metadata tells a state.

use std::borrow::Cow;

use crate::node::NodeSummary;

/// Row with a container's state as Docker's command line words it, with its age.
pub const CONTAINER_STATE: &str = "docker_container_state_human";
/// Row with the state of an object of Kubernetes.
const OBJECT_STATE: &str = "kubernetes_state";

/// `Up 5 minutes (healthy)` and `Exited (0) 2 days ago` without the age, which alone is no change.
pub fn ageless(state: &str) -> Cow<'_, str> {
    if let Some(age) = state.strip_prefix("Up ") {
        let mark = age.find('(').map(|at| &age[at..]);
        return mark.map_or("Up".into(), |mark| format!("Up {mark}").into());
    }
    match state.strip_suffix(" ago") {
        Some(rest) => rest.find(')').map_or_else(|| rest.split(' ').next().unwrap_or_default(), |end| &rest[..=end]).into(),
        None => state.into(),
    }
}

/// The state of a container, a task or an object of Kubernetes, without its age.
pub(crate) fn state_of(node: &NodeSummary) -> Option<Cow<'_, str>> {
    let row = node.metadata.iter().find(|row| row.id == CONTAINER_STATE || row.id == OBJECT_STATE)?;
    Some(if row.id == CONTAINER_STATE { ageless(&row.value) } else { Cow::Borrowed(&*row.value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_only_grows_older_is_the_same() {
        for (state, said) in [
            ("Up 49 minutes", "Up"),
            ("Up About an hour (healthy)", "Up (healthy)"),
            ("Up 3 seconds (Paused)", "Up (Paused)"),
            ("Exited (0) 47 minutes ago", "Exited (0)"),
            ("Restarting (1) 5 seconds ago", "Restarting (1)"),
            ("Removing 2 hours ago", "Removing"),
            ("Created", "Created"),
            ("", ""),
        ] {
            assert_eq!(ageless(state), said, "{state}");
        }
    }
}
