//! What of root's powers a container has. Pure.

use mesos_proto::v1::{CapabilityInfo, LinuxInfo};

use crate::config::Config;

/// The kernel's numbers of capabilities: those that a container can have at most, and those that it has. `None`: all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) bounding: Option<Vec<u8>>,
    pub(super) effective: Option<Vec<u8>>,
}

impl Capabilities {
    /// As the framework asks, or else as the agent is set, where `linux/capabilities` isolates: what the agent sets as the most is the most.
    ///
    /// # Errors
    /// When a framework asks for more than it can have.
    pub(super) fn of(config: &Config, linux: Option<&LinuxInfo>) -> Result<Self, String> {
        let isolates = config.isolates("linux/capabilities");
        let set = |it: &'_ Option<CapabilityInfo>| it.as_ref().filter(|_| isolates).map(numbers);
        let most = set(&config.bounding_capabilities);
        let asked_effective = linux.and_then(|it| it.effective_capabilities.as_ref()).map(numbers);
        let asked_bounding = linux.and_then(|it| it.bounding_capabilities.as_ref()).map(numbers);
        if let (Some(most), Some(asked)) = (&most, &asked_bounding)
            && asked.iter().any(|it| !most.contains(it))
        {
            return Err("The bounding capabilities of the task are more than those of the agent".to_owned());
        }
        let effective = asked_effective.or_else(|| {
            // What the agent gives who says nothing is within what the task asks to be held to.
            let given = set(&config.effective_capabilities)?;
            Some(given.into_iter().filter(|it| asked_bounding.as_ref().is_none_or(|asked| asked.contains(it))).collect())
        });
        let bounding = asked_bounding.or(most);
        if let (Some(effective), Some(bounding)) = (&effective, &bounding)
            && effective.iter().any(|it| !bounding.contains(it))
        {
            return Err("The effective capabilities of the task are more than its bounding ones".to_owned());
        }
        Ok(Capabilities { bounding: bounding.or_else(|| effective.clone()), effective })
    }
}

fn numbers(of: &CapabilityInfo) -> Vec<u8> {
    of.capabilities.iter().filter_map(|it| u8::try_from(it - 1000).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(numbers: &[i32]) -> Option<CapabilityInfo> {
        Some(CapabilityInfo { capabilities: numbers.iter().map(|it| it + 1000).collect() })
    }

    #[test]
    fn the_agent_says_what_a_task_has_that_says_nothing_and_what_all_have_at_most() {
        let mut config = Config::in_directories("/w".into(), "/r".into());
        config.effective_capabilities = info(&[1, 2]);
        config.bounding_capabilities = info(&[1, 2, 3]);
        let of = |config: &Config, effective: Option<&[i32]>, bounding: Option<&[i32]>| {
            let linux = LinuxInfo {
                effective_capabilities: effective.and_then(info),
                bounding_capabilities: bounding.and_then(info),
                ..LinuxInfo::default()
            };
            Capabilities::of(config, Some(&linux)).ok().map(|it| (it.effective, it.bounding))
        };
        assert_eq!(of(&config, None, None), Some((None, None)), "nothing isolates");
        config.isolation.push("linux/capabilities".to_owned());
        let has = |effective: &[u8], bounding: &[u8]| Some((Some(effective.to_vec()), Some(bounding.to_vec())));
        assert_eq!(of(&config, None, None), has(&[1, 2], &[1, 2, 3]));
        assert_eq!(of(&config, Some(&[3]), None), has(&[3], &[1, 2, 3]));
        assert_eq!(of(&config, None, Some(&[2])), has(&[2], &[2]));
        assert_eq!(of(&config, Some(&[4]), None), None, "more than the agent gives");
        assert_eq!(of(&config, None, Some(&[1, 4])), None, "more than the agent gives");
        assert_eq!(of(&config, Some(&[1]), Some(&[2])), None, "more than it wants to be held to");
        config.bounding_capabilities = None;
        assert_eq!(of(&config, Some(&[4]), None), has(&[4], &[4]));
    }
}
