//! Which hook serves on which kernel, as a table that can be put into a document.

use std::collections::BTreeSet;

use super::boot::Outcome;
use crate::progress::bold;

/// Prints all outcomes.
pub(crate) fn print(outcomes: &[Outcome]) {
    if outcomes.is_empty() {
        return;
    }
    println!("\n{}\n", bold("Hooks by kernel"));
    println!("{}", table(outcomes));
}

fn table(outcomes: &[Outcome]) -> String {
    let names: BTreeSet<&str> = outcomes.iter().flat_map(|outcome| outcome.hooks.keys().map(String::as_str)).collect();
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let line =
        |first: &str, cell: &dyn Fn(&Outcome) -> String| row(std::iter::once(first.to_owned()).chain(outcomes.iter().map(cell)).collect());
    let mut text = line("", &|outcome| format!("{} {}", short_release(&outcome.release), outcome.hierarchy.name()));
    text += &line("---", &|_| "---".to_owned());
    text += &line("rung", &|outcome| outcome.rung.clone().unwrap_or_else(|| "none".to_owned()));
    for name in names {
        text += &line(name, &|outcome| match outcome.hooks.get(name).map(String::as_str) {
            Some("ok") => "yes".to_owned(),
            Some(_) => "no".to_owned(),
            None => "-".to_owned(),
        });
    }
    text += &line("tests passed", &|outcome| match outcome.failed.len() {
        0 => outcome.passed.to_string(),
        failed => format!("{}, {failed} failed", outcome.passed),
    });
    for outcome in outcomes {
        for (name, state) in outcome.hooks.iter().filter(|(_, state)| state.as_str() != "ok") {
            text += &format!("\n{} {} {name}: {state}", short_release(&outcome.release), outcome.hierarchy.name());
        }
    }
    text
}

/// `6.1.0-50-cloud-amd64` is `6.1.0-50` for people.
fn short_release(release: &str) -> &str {
    release.split("-cloud").next().unwrap_or(release)
}
