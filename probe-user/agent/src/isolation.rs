//! The isolators of `--isolation`, by Mesos's names: which there are, and what the old names stand for.

/// An isolator that is not there. A task would silently run without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unknown or unsupported isolator '{0}'")]
pub struct UnsupportedIsolator(String);

/// Those that are there where they are named.
const SWITCHED: [&str; 11] = [
    "cgroups/all",
    "cgroups/blkio",
    "cgroups/cpu",
    "cgroups/cpuset",
    "cgroups/devices",
    "cgroups/mem",
    "cgroups/pids",
    "disk/du",
    "linux/nnp",
    "namespaces/pid",
    "network/ports",
];

/// Those that are always there: what they do is done for each task that asks for it, named or not.
const ALWAYS: [&str; 18] = [
    // Without flags of their own these four limit and count nothing, in Mesos as well.
    "cgroups/hugetlb",
    "cgroups/net_cls",
    "cgroups/net_prio",
    "cgroups/perf_event",
    "docker/runtime",
    // As Mesos without a resolver of its own: secrets by value.
    "environment_secret",
    "filesystem/linux",
    "filesystem/posix",
    "linux/capabilities",
    "namespaces/ipc",
    // Containers are in the host's network; one that asks for another is refused, as where Mesos has no such network.
    "network/cni",
    // They limit nothing, in Mesos as well.
    "posix/cpu",
    "posix/mem",
    "posix/rlimits",
    "volume/host_path",
    "volume/image",
    "volume/sandbox_path",
    // As those of the environment: secrets by value.
    "volume/secret",
];

/// Old names, and what they stand for.
const ALIASES: [(&str, &[&str]); 3] =
    [("cgroups", &["cgroups/cpu", "cgroups/mem"]), ("posix/disk", &["disk/du"]), ("process", &["posix/cpu", "posix/mem"])];

/// Whether all of these are there.
///
/// # Errors
/// For the first that is not, in Mesos's words.
pub fn check(names: &[String]) -> Result<(), UnsupportedIsolator> {
    let is_known = |it: &&str| SWITCHED.contains(it) || ALWAYS.contains(it);
    match names.iter().find(|it| !meant(it).iter().all(is_known)) {
        Some(unknown) => Err(UnsupportedIsolator(unknown.clone())),
        None => Ok(()),
    }
}

/// Whether one of these names means this isolator.
pub fn has(names: &[String], isolator: &str) -> bool {
    let is_meant = |it: &str| it == isolator || it == "cgroups/all" && isolator.starts_with("cgroups/");
    names.iter().any(|it| meant(it).into_iter().any(is_meant))
}

/// Whether one of these names is of cgroups.
pub fn has_cgroups(names: &[String]) -> bool {
    names.iter().any(|it| meant(it).iter().any(|it| it.starts_with("cgroups/")))
}

/// What a name stands for: mostly itself.
fn meant(name: &str) -> Vec<&str> {
    ALIASES.iter().find(|(it, _)| *it == name).map_or_else(|| vec![name], |(_, it)| it.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn isolators_that_are_not_there_are_refused_in_mesos_words() {
        for known in [
            "posix/cpu,posix/mem",
            "process",
            "cgroups/all,filesystem/linux,docker/runtime,disk/du,namespaces/pid,namespaces/ipc",
            "linux/capabilities,posix/rlimits,volume/host_path,volume/sandbox_path,environment_secret",
        ] {
            assert_eq!(check(&names(known)), Ok(()));
        }
        let default = crate::config::Config::in_directories("/w".into(), "/r".into()).isolation;
        assert_eq!(check(&default), Ok(()));
        for unknown in ["nosuch/thing", "docker/volume", "gpu/nvidia", "linux/seccomp", "CGROUPS/CPU"] {
            let refused = check(&names(&format!("cgroups/cpu,{unknown}"))).unwrap_err();
            assert_eq!(refused.to_string(), format!("Unknown or unsupported isolator '{unknown}'"));
        }
    }

    #[test]
    fn a_name_may_stand_for_others() {
        assert!(has(&names("cgroups/all"), "cgroups/pids") && !has(&names("cgroups/all"), "disk/du"));
        assert!(has(&names("cgroups"), "cgroups/mem") && !has(&names("cgroups"), "cgroups/pids"));
        assert!(has(&names("posix/disk"), "disk/du"));
        assert!(has_cgroups(&names("disk/du,cgroups")) && !has_cgroups(&names("process,posix/disk")));
    }
}
