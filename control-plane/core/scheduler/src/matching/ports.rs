//! Choosing host ports out of offered ranges.

use std::collections::BTreeSet;

use crate::random::IdGen;

/// A port that a task wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// On the agent: none, any (0), or this one.
    pub(super) host: Option<u16>,
    /// In the container, outside the host network; 0: the same as the host port.
    pub(super) container: Option<u16>,
}

/// A host port for each that is wanted: the ones asked for by number must be offered, the others are random. `None` when that is impossible.
pub(super) fn choose(wanted: &[Wanted], ranges: &[(u64, u64)], ids: &mut IdGen) -> Option<Vec<Option<u16>>> {
    let fixed: Vec<u16> = wanted.iter().filter_map(|it| it.host).filter(|port| *port > 0).collect();
    let mut used: BTreeSet<u16> = BTreeSet::new();
    for port in fixed {
        let offered = ranges.iter().any(|(from, to)| (*from..=*to).contains(&u64::from(port)));
        if !offered || !used.insert(port) {
            return None;
        }
    }
    let length = |(from, to): &(u64, u64)| to.saturating_sub(*from).saturating_add(1);
    let total: u64 = ranges.iter().map(length).sum();
    let mut at = if total == 0 { 0 } else { ids.number() % total };
    let mut looked = 0;
    let mut next = || {
        while looked < total {
            let mut offset = at;
            at = (at + 1) % total;
            looked += 1;
            for range in ranges {
                if offset < length(range) {
                    let port = u16::try_from(range.0 + offset).ok();
                    if let Some(port) = port.filter(|port| *port > 0 && used.insert(*port)) {
                        return Some(port);
                    }
                    break;
                }
                offset -= length(range);
            }
        }
        None
    };
    let mut chosen = Vec::with_capacity(wanted.len());
    for it in wanted {
        chosen.push(match it.host {
            None => None,
            Some(0) => Some(next()?),
            Some(port) => Some(port),
        });
    }
    Some(chosen)
}

/// The container ports that follow from the host ports; one that is free and has no host port is random.
pub(super) fn in_container(wanted: &[Wanted], host_ports: &[Option<u16>], ids: &mut IdGen) -> Vec<u16> {
    let port = |(wanted, host): (&Wanted, &Option<u16>)| match (wanted.container, host) {
        (None, host) => host.unwrap_or(0),
        (Some(0), Some(host)) => *host,
        (Some(0), None) => 1_025 + u16::try_from(ids.below(31_742)).unwrap_or(0),
        (Some(port), _) => port,
    };
    wanted.iter().zip(host_ports).map(port).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(host: &[Option<u16>]) -> Vec<Wanted> {
        host.iter().map(|host| Wanted { host: *host, container: None }).collect()
    }

    #[test]
    fn a_port_asked_for_must_be_offered_and_free() {
        let mut ids = IdGen::new(1);
        assert_eq!(choose(&wanted(&[Some(80)]), &[(31_000, 32_000)], &mut ids), None);
        assert_eq!(choose(&wanted(&[Some(31_000), Some(31_000)]), &[(31_000, 32_000)], &mut ids), None);
        assert_eq!(choose(&wanted(&[Some(31_000), None]), &[(31_000, 31_000)], &mut ids), Some(vec![Some(31_000), None]));
        assert_eq!(choose(&wanted(&[Some(0), Some(31_000)]), &[(31_000, 31_001)], &mut ids), Some(vec![Some(31_001), Some(31_000)]));
    }

    proptest! {
        #[test]
        fn chosen_ports_are_offered_and_distinct(seed: u64, count in 0..8_usize, from in 1_000..2_000_u64, size in 0..8_u64) {
            let chosen = choose(&wanted(&vec![Some(0); count]), &[(from, from + size), (5_000, 5_001)], &mut IdGen::new(seed));
            prop_assert_eq!(chosen.is_some(), count as u64 <= size + 3);
            if let Some(chosen) = chosen {
                let ports: BTreeSet<u64> = chosen.iter().flatten().map(|port| u64::from(*port)).collect();
                prop_assert_eq!(ports.len(), count);
                prop_assert!(ports.iter().all(|port| (from..=from + size).contains(port) || (5_000..=5_001).contains(port)));
            }
        }
    }
}
