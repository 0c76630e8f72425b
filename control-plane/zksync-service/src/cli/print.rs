//! For people.

use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};

use super::Api;
use crate::link::now;

pub(super) fn holder_line(holder: &Value) -> String {
    format!(
        "{} (pid {}) on {} to {}, {} connections",
        text(&holder["process"]),
        holder["pid"],
        text(&holder["host"]),
        text(&holder["server"]),
        holder["connections"]
    )
}

pub(super) fn print_holders(out: &mut impl Write, api: &Api, id: &str) -> Result<()> {
    match api.get(&format!("/links/{id}/holders")) {
        Ok(holders) => {
            let holders = holders.as_array().cloned().unwrap_or_default();
            writeln!(out, "{} processes hold connections to the old ensemble", holders.len())?;
            for holder in &holders {
                writeln!(out, "  {}", holder_line(holder))?;
            }
        }
        Err(error) => writeln!(out, "who is connected to the old ensemble is not known: {error:#}")?,
    }
    Ok(())
}

pub(super) fn print_preparation(out: &mut impl Write, found: &Value) -> Result<()> {
    for (name, side) in [("A", &found["a"]), ("B", &found["b"])] {
        writeln!(
            out,
            "{name}: {} znodes, {} bytes, {} ephemerals, largest {} ({} bytes)",
            side["nodes"],
            side["bytes"],
            side["ephemerals"],
            text(&side["largest_path"]),
            side["largest_bytes"]
        )?;
    }
    writeln!(out, "{} differ: about {:.0} s to copy", found["differing"], found["copy_seconds_estimate"].as_f64().unwrap_or(0.0).ceil())?;
    for (word, list) in [("warning", &found["warnings"]), ("BLOCKER", &found["blockers"])] {
        for line in list.as_array().into_iter().flatten() {
            writeln!(out, "{word}: {}", text(line))?;
        }
    }
    Ok(())
}

pub(super) fn print_report(out: &mut impl Write, report: &Value) -> Result<()> {
    let found = &report["found"];
    if found["equal"] == json!(true) {
        writeln!(
            out,
            "equal: {} znodes, {} bytes, root {} ({} ms)",
            found["nodes_a"],
            found["bytes_a"],
            text(&found["root_a"]),
            report["took_ms"]
        )?;
    } else {
        writeln!(out, "{} differ ({} ms)", found["differing"], report["took_ms"])?;
        for difference in found["differences"].as_array().into_iter().flatten() {
            writeln!(out, "  {:<8}{}", text(&difference["kind"]), text(&difference["path"]))?;
        }
    }
    for (reason, count) in report["excluded"].as_object().into_iter().flatten().filter(|(_, count)| **count != json!(0)) {
        writeln!(out, "not compared: {count} {reason}")?;
    }
    for counter in report["counters"].as_array().into_iter().flatten().take(20) {
        writeln!(out, "sequence counter of {}: A {}, B {} (aligned at the cutover)", text(&counter["path"]), counter["a"], counter["b"])?;
    }
    Ok(())
}

pub(super) fn print_deleted(out: &mut impl Write, page: &Value) -> Result<()> {
    writeln!(out, "{} remembered", page["total"])?;
    for gone in page["tombstones"].as_array().into_iter().flatten() {
        let by = match text(&gone["by"]).as_str() {
            "a" => "on A",
            "b" => "on B",
            _ => "on both",
        };
        let ago = |at: u64| now().unix_millis().saturating_sub(at) / 1_000;
        let last = ago(gone["to_ms"].as_u64().unwrap_or(0));
        let first = gone["from_ms"].as_u64().filter(|from| *from > 0).map_or("?".to_owned(), |from| ago(from).to_string());
        writeln!(out, "{}  deleted {by} {last} to {first} s ago, {} bytes", text(&gone["path"]), gone["size"])?;
    }
    print_left_out(out, page, "tombstones")
}

/// That there are more than a page has.
pub(super) fn print_left_out(out: &mut impl Write, page: &Value, of: &str) -> Result<()> {
    let listed = page[of].as_array().map_or(0, Vec::len) as u64;
    let more = page["total"].as_u64().unwrap_or(0).saturating_sub(listed);
    if more > 0 {
        writeln!(out, "{more} more: --limit has up to 1000 listed, --prefix those of a path alone")?;
    }
    Ok(())
}

pub(super) fn print_json(out: &mut impl Write, value: &Value) -> Result<()> {
    writeln!(out, "{}", serde_json::to_string_pretty(value)?)?;
    Ok(())
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
}
