//! What was asked for and the host does not give.

use super::{Cgroups, V1_CONTROLLERS, Version};

/// Controllers of version 2, by isolator. Devices need none.
const V2_CONTROLLERS: [(&str, &str); 5] =
    [("cpu", "cgroups/cpu"), ("memory", "cgroups/mem"), ("pids", "cgroups/pids"), ("io", "cgroups/blkio"), ("cpuset", "cgroups/cpuset")];

impl Cgroups {
    /// Isolators that are wanted and whose controllers the host does not give: containers are made without what they limit and count.
    pub fn missing(&self, isolates: impl Fn(&str) -> bool) -> Vec<&'static str> {
        let (all, given): (&[(&str, &'static str)], Vec<String>) = match &self.version {
            Version::V1(mounted) => (&V1_CONTROLLERS, mounted.keys().map(|it| (*it).to_owned()).collect()),
            Version::V2(mount) => {
                let given = std::fs::read_to_string(mount.join(&self.root).join("cgroup.subtree_control")).unwrap_or_default();
                (&V2_CONTROLLERS, given.split_whitespace().map(str::to_owned).collect())
            }
        };
        let wanted = all.iter().filter(|(_, isolator)| !isolator.is_empty() && isolates(isolator));
        let mut missing: Vec<&str> = wanted.filter(|(it, _)| !given.iter().any(|given| given == it)).map(|(_, it)| *it).collect();
        missing.dedup();
        missing
    }
}
