//! Whether to send this process traffic.

use std::sync::{Arc, Mutex, PoisonError};

/// Conditions that hold or do not hold yet. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    listening: bool,
    store_open: bool,
    /// Names of hosts whose probes were known before the restart and are not back yet.
    awaited: Vec<String>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// A word for it.
    pub name: &'static str,
    /// Whether it holds.
    pub passed: bool,
    /// For people.
    pub detail: String,
}

impl Readiness {
    /// Most hosts that are named; there may be thousands.
    const NAMED_MAX: usize = 10;

    /// The listeners take connections.
    pub fn listening(&self) {
        self.change(|state| state.listening = true);
    }

    /// The store is open.
    pub fn store_open(&self) {
        self.change(|state| state.store_open = true);
    }

    /// These hosts' probes were known before the restart, and are not back yet.
    pub fn await_probes_of(&self, hosts: Vec<String>) {
        self.change(|state| state.awaited = hosts);
    }

    /// All conditions that are known without asking anybody.
    pub fn checks(&self, stopping: bool) -> Vec<Check> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let check = |name, passed: bool, yes: &str, no: &str| Check { name, passed, detail: if passed { yes } else { no }.to_owned() };
        let awaited = &state.awaited;
        let mut probes = check("probes", awaited.is_empty(), "no probe is awaited", "");
        if !awaited.is_empty() {
            let named = awaited.iter().take(Self::NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = awaited.len().saturating_sub(Self::NAMED_MAX);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            probes.detail = format!("waiting for the probes of {named}{more}");
        }
        vec![
            check("stopping", !stopping, "no", "the process is about to stop"),
            check("listeners", state.listening, "they take connections", "they do not take connections yet"),
            check("store", state.store_open, "it is open", "it is not open yet"),
            probes,
        ]
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn awaited_probes_are_named_up_to_a_limit() {
        let readiness = Readiness::default();
        readiness.await_probes_of((0..12).map(|n| format!("h{n}")).collect());
        let checks = readiness.checks(false);
        assert_eq!(checks[3].detail, "waiting for the probes of h0, h1, h2, h3, h4, h5, h6, h7, h8, h9 and 2 more");
        assert!(!checks[3].passed);
        readiness.await_probes_of(Vec::new());
        assert!(readiness.checks(false)[3].passed);
    }
}
