//! Waiting for a migration.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::print::text;
use super::{Api, is_over};

/// Between two looks of `--wait`.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// By when a migration has heard what it was told, if it ever does.
const HEARS: Duration = Duration::from_secs(30);

/// What a migration had in its history before it was told something.
#[derive(Debug)]
pub(super) struct Heard(u64);

impl Heard {
    pub(super) fn of(api: &Api, id: &str) -> Result<Heard> {
        let page = api.get(&format!("/migrations/{id}"))?;
        Ok(Heard(notes(&page["migration"]).filter_map(|note| note["at_ms"].as_u64()).max().unwrap_or(0)))
    }

    /// Whether it has heard something since.
    fn is_heard(&self, migration: &Value) -> bool {
        self.since(migration).any(|note| text(&note["text"]).starts_with("an operator says"))
    }

    /// What has happened since.
    fn since<'a>(&self, migration: &'a Value) -> impl Iterator<Item = &'a Value> {
        let before = self.0;
        notes(migration).filter(move |note| note["at_ms"].as_u64().is_some_and(|at| at > before))
    }
}

fn notes(migration: &Value) -> impl Iterator<Item = &Value> {
    migration["history"].as_array().into_iter().flatten()
}

/// Follows a migration until it is in one of these phases; false when it went elsewhere. Where it was told something, what it was before it has heard
/// that is not looked at.
pub(super) fn follow(api: &Api, id: &str, before: Option<&Heard>, until: &[&str], out: &mut impl Write) -> Result<bool> {
    let mut told = String::new();
    let began = Instant::now();
    loop {
        let page = api.get(&format!("/migrations/{id}"))?;
        let migration = &page["migration"];
        let hears = before.is_none_or(|before| before.is_heard(migration));
        if hears || began.elapsed() > HEARS {
            let (phase, waiting) = (text(&migration["phase"]), text(&migration["waiting_for"]));
            let line = if waiting.is_empty() { phase } else { format!("{phase}: waiting for {waiting}") };
            if line != told {
                writeln!(out, "{line}")?;
                told = line;
            }
            if let Some((is_there, why)) = end(migration, before, until) {
                if let Some(why) = why {
                    writeln!(out, "{why}")?;
                }
                return Ok(is_there);
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether it is where it was to go, and why not, as soon as that is known.
fn end(migration: &Value, before: Option<&Heard>, until: &[&str]) -> Option<(bool, Option<String>)> {
    let phase = text(&migration["phase"]);
    if until.contains(&phase.as_str()) {
        return Some((true, None));
    }
    if is_over(&phase) {
        return Some((false, None));
    }
    // A cutover that went back to the beginning of its last proof has failed.
    if until.contains(&"switch") && matches!(phase.as_str(), "verify" | "ready") {
        let since = before.into_iter().flat_map(|before| before.since(migration)).map(|note| text(&note["text"]));
        return since.filter(|text| text.starts_with("rolled back")).last().map(|text| (false, Some(text)));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cutover_is_not_judged_by_one_before_it() {
        let note = |at_ms: u64, text: &str| json!({ "at_ms": at_ms, "text": text });
        let mut history = vec![note(4, "an operator says Cutover"), note(5, "rolled back from freeze: somebody wrote")];
        let before = Heard(5);
        let mut look = |phase: &str, more: Option<Value>| {
            history.extend(more);
            let migration = json!({ "phase": phase, "history": history });
            (before.is_heard(&migration), end(&migration, Some(&before), &["switch", "drain"]))
        };
        assert_eq!(look("ready", None), (false, None));
        assert_eq!(look("freeze", Some(note(6, "an operator says Cutover"))), (true, None));
        assert_eq!(look("switch", None), (true, Some((true, None))));
        let failed = "rolled back from align: too late";
        assert_eq!(look("verify", Some(note(7, failed))), (true, Some((false, Some(failed.to_owned())))));
        assert_eq!(look("rolled_back", None), (true, Some((false, None))));
    }
}
