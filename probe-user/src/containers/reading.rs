//! Which runtimes have not told of all their containers, and why: whoever looks once waits for them, and what cannot be asked is not known. Pure.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;

use super::Source;

/// Longest reason that is told, in characters.
const REASON_MAX: usize = 160;

/// Runtimes that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings(BTreeMap<Source, Reading>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Reading {
    /// The runtime and its socket, for people.
    what: String,
    /// Why it does not tell; `None` while it is waited for.
    silence: Option<String>,
}

impl Readings {
    /// A runtime's socket is there, and it is asked what it has.
    pub fn begin(&mut self, source: Source, what: String) {
        self.0.insert(source, Reading { what, silence: None });
    }

    /// It told of all that it has, or there is nothing to be told.
    pub fn done(&mut self, source: Source) {
        self.0.remove(&source);
    }

    /// It does not tell, for a `reason`.
    pub fn failed(&mut self, source: Source, what: String, reason: String) {
        self.0.insert(source, Reading { what, silence: Some(reason) });
    }

    /// Whether one is still being read.
    pub fn is_waiting(&self) -> bool {
        self.0.values().any(|it| it.silence.is_none())
    }

    /// What is not known because a runtime does not tell, for people.
    pub fn silences(&self) -> impl Iterator<Item = String> {
        self.0.values().filter_map(|Reading { what, silence }| Some(format!("Containers of {what}: {}.", silence.as_ref()?)))
    }

    /// What is not known yet, for people.
    pub fn waits(&self) -> impl Iterator<Item = String> {
        let waited = self.0.values().filter(|it| it.silence.is_none());
        waited.map(|Reading { what, .. }| format!("Containers of {what}: it had not told of all of them yet."))
    }
}

/// Why a runtime does not tell, for people. `silent`: it does not answer at all, as far as is known.
pub fn reason(error: &(dyn Error + 'static), silent: bool) -> String {
    let causes: Vec<&(dyn Error + 'static)> = std::iter::successors(Some(error), |error| (*error).source()).collect();
    let words = causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let is = |kind| causes.iter().any(|it| it.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == kind));
    if is(io::ErrorKind::PermissionDenied) || words.contains("ermission denied") {
        return "the probe may not open its socket (it needs the group of the socket, or CAP_DAC_OVERRIDE)".to_owned();
    }
    if silent || is(io::ErrorKind::ConnectionRefused) || words.contains("onnection refused") {
        return "it does not answer".to_owned();
    }
    let told: String = words.trim_end_matches('.').chars().map(|it| if it.is_control() { ' ' } else { it }).take(REASON_MAX).collect();
    format!("it cannot be asked ({told})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("it cannot be reached")]
    struct Unreachable(#[source] io::Error);

    #[test]
    fn a_runtime_that_refuses_is_not_taken_for_one_that_hangs() {
        let of = |kind: io::ErrorKind, silent| reason(&Unreachable(kind.into()), silent);
        assert!(of(io::ErrorKind::PermissionDenied, false).contains("may not open its socket"));
        assert_eq!(of(io::ErrorKind::TimedOut, true), "it does not answer");
        assert_eq!(of(io::ErrorKind::ConnectionRefused, false), "it does not answer");
        assert_eq!(of(io::ErrorKind::InvalidData, false), "it cannot be asked (it cannot be reached: invalid data)");
    }

    #[test]
    fn what_is_silent_is_told_until_it_has_told_of_all() {
        let mut readings = Readings::default();
        readings.begin(Source::Docker, "Docker at /d".to_owned());
        assert!(readings.is_waiting());
        assert_eq!((readings.silences().count(), readings.waits().count()), (0, 1));
        readings.failed(Source::Docker, "Docker at /d".to_owned(), "it does not answer".to_owned());
        assert!(!readings.is_waiting());
        assert_eq!(readings.silences().collect::<Vec<_>>(), ["Containers of Docker at /d: it does not answer."]);
        readings.done(Source::Docker);
        assert_eq!((readings.silences().count(), readings.waits().count()), (0, 0));
    }
}
