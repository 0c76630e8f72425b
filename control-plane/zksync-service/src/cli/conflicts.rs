//! Conflicts, and what became of them.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use serde_json::{Value, json};

use super::Api;
use super::print::{print_deleted, print_json, print_left_out, text};

#[derive(Debug, Args)]
pub(super) struct ConflictFlags {
    /// The link
    id: String,
    /// Show all three versions of this one; with --decided, the whole values of that resolution
    #[arg(long, value_name = "NUMBER")]
    show: Option<u64>,
    /// Decide this one
    #[arg(long, value_name = "NUMBER", requires = "choice")]
    resolve: Option<u64>,
    /// a, b, base (what both last agreed on), delete, or custom (with --data or --data-file)
    #[arg(long, value_name = "CHOICE")]
    choice: Option<String>,
    /// Data for custom
    #[arg(long, conflicts_with = "data_file")]
    data: Option<String>,
    /// A file with the data for custom, which need be no text
    #[arg(long, value_name = "FILE")]
    data_file: Option<PathBuf>,
    /// How conflicts were decided so far
    #[arg(long)]
    decided: bool,
    /// What was deleted on one side and carried to the other, or on both: as far as it is remembered
    #[arg(long, conflicts_with_all = ["resolve", "show", "decided"])]
    deleted: bool,
    /// Decide all below this path by --choice a or b
    #[arg(long, value_name = "PATH", requires = "choice", conflicts_with_all = ["resolve", "show", "decided"])]
    all_below: Option<String>,
    /// With --all-below: only say how many there are
    #[arg(long, requires = "all_below")]
    dry_run: bool,
    /// With --decided and --show: only the data that this side had, a or b, whole and as they are
    #[arg(long, value_name = "SIDE", requires = "show", requires = "decided")]
    value: Option<String>,
    /// In lists: only paths that begin so
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    prefix: String,
    /// In lists: so many at most, up to 1000
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// Put back what lost: a number of --decided
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["resolve", "show", "decided", "all_below"])]
    restore: Option<u64>,
}

impl ConflictFlags {
    pub(super) fn run(&self, api: &Api, as_json: bool, out: &mut impl Write) -> Result<bool> {
        let ConflictFlags {
            id,
            show,
            resolve,
            choice,
            data,
            data_file,
            decided,
            deleted,
            all_below,
            dry_run,
            value,
            prefix,
            limit,
            restore,
        } = self;
        let page = format!("prefix={}&limit={limit}", escaped(prefix));
        if let Some(prefix) = all_below {
            let decision = json!({ "prefix": prefix, "choice": choice, "dry_run": dry_run });
            let done = api.post(&format!("/links/{id}/conflicts/resolve"), &decision)?;
            let count = done["conflicts"].as_array().map_or(0, Vec::len);
            writeln!(out, "{count} conflicts {}", if *dry_run { "would be decided" } else { "will be carried out" })?;
        } else if let Some(number) = restore {
            writeln!(out, "{}", text(&api.post(&format!("/links/{id}/resolutions/{number}/restore"), &json!({}))?))?;
        } else if let Some(number) = resolve {
            let seen = api.get(&format!("/links/{id}/conflicts/{number}"))?;
            let expect = json!({ "a_mzxid": seen["a"]["mzxid"], "b_mzxid": seen["b"]["mzxid"] });
            let bytes = data_file.as_ref().map(|file| std::fs::read(file).with_context(|| format!("reading {}", file.display())));
            let base64 = bytes.transpose()?.map(|bytes| BASE64.encode(bytes));
            let decision = json!({ "choice": choice, "data": data, "data_base64": base64, "expect": expect });
            api.post(&format!("/links/{id}/conflicts/{number}/resolve"), &decision)?;
            writeln!(out, "conflict {number} will be carried out")?;
        } else if let (Some(number), Some(side)) = (show, value) {
            out.write_all(&api.bytes(&format!("/links/{id}/resolutions/{number}/values/{side}"))?)?;
        } else if let Some(number) = show {
            let kind = if *decided { "resolutions" } else { "conflicts" };
            let found = api.get(&format!("/links/{id}/{kind}/{number}"))?;
            if as_json || *decided {
                print_json(out, &found)?;
            } else {
                print_three_way(out, &found)?;
            }
        } else if *deleted {
            let page = api.get(&format!("/links/{id}/tombstones?{page}"))?;
            if as_json {
                print_json(out, &page)?;
            } else {
                print_deleted(out, &page)?;
            }
        } else if *decided {
            let page = api.get(&format!("/links/{id}/resolutions?{page}"))?;
            if as_json {
                print_json(out, &page)?;
            } else {
                print_decided(out, page["resolutions"].as_array().map_or(&[], Vec::as_slice))?;
            }
        } else {
            let page = api.get(&format!("/links/{id}/conflicts?{page}"))?;
            if as_json {
                print_json(out, &page)?;
            } else {
                writeln!(out, "{} open", page["total"])?;
                for conflict in page["conflicts"].as_array().into_iter().flatten() {
                    writeln!(out, "{:>16}  {:<14}{}", text(&conflict["id"]), text(&conflict["kind"]), text(&conflict["key"]))?;
                }
                print_left_out(out, &page, "conflicts")?;
            }
        }
        Ok(true)
    }
}

/// All three versions of a conflict.
fn print_three_way(out: &mut impl Write, three: &Value) -> Result<()> {
    let conflict = &three["conflict"];
    writeln!(out, "{} conflict {} about {}", text(&conflict["kind"]), conflict["id"], text(&conflict["key"]))?;
    let base = &conflict["base"];
    if base.is_null() {
        writeln!(out, "base: not known, or there was nothing")?;
    } else {
        writeln!(out, "base: version {} on A, {} on B, hash {}", base["a"]["version"], base["b"]["version"], text(&three["base_hash"]))?;
        print_data(out, three["base_text"].as_str(), three["base_base64"].as_str())?;
    }
    for (name, side) in [("A", &three["a"]), ("B", &three["b"])] {
        if side.is_null() {
            let by = if conflict["deleted"]["by"] == json!(name.to_lowercase()) { ", deleted there" } else { "" };
            writeln!(out, "{name}: absent{by}")?;
            continue;
        }
        let list: Vec<String> = side["acl"].as_array().into_iter().flatten().map(text).collect();
        writeln!(out, "{name}: version {}, {} bytes, hash {}, {}", side["version"], side["size"], text(&side["hash"]), list.join(", "))?;
        print_data(out, side["text"].as_str(), side["base64"].as_str())?;
    }
    Ok(())
}

/// Data as text, or in base64; those of more than 64 KiB are not told.
fn print_data(out: &mut impl Write, as_text: Option<&str>, as_base64: Option<&str>) -> Result<()> {
    let data = as_text.map(str::to_owned).or_else(|| as_base64.map(|data| format!("base64:{data}")));
    let data = data.unwrap_or_else(|| "(not shown)".to_owned());
    for line in data.lines() {
        writeln!(out, "    {line}")?;
    }
    Ok(())
}

fn print_decided(out: &mut impl Write, resolutions: &[Value]) -> Result<()> {
    for it in resolutions {
        let had = |side: &str| {
            let value = &it["sides"][side];
            match value["size"].as_u64() {
                _ if value["unread"] == json!(true) => "unread".to_owned(),
                Some(size) => format!("{size} bytes"),
                None => "absent".to_owned(),
            }
        };
        let guess = if it["ambiguous"] == json!(true) { ", a guess" } else { "" };
        writeln!(
            out,
            "{:>8}  {:<14}{}: {} won by {}{guess} (A {}, B {})",
            text(&it["number"]),
            text(&it["kind"]),
            text(&it["key"]),
            text(&it["winner"]),
            text(&it["strategy"]),
            had("a"),
            had("b")
        )?;
    }
    Ok(())
}

/// A path as it stands in a query.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_versions_are_shown_as_people_read_them() {
        let three = json!({
            "conflict": {
                "id": 7, "key": "/app/x", "kind": "update", "deleted": { "by": "b" },
                "base": { "a": { "version": 1 }, "b": { "version": 4 } }
            },
            "base_hash": "ab", "base_text": "one\ntwo", "base_base64": null,
            "a": { "version": 2, "size": 3, "hash": "cd", "text": null, "base64": "/wBh", "acl": ["world:anyone 0b11111"] },
            "b": null
        });
        let mut out = Vec::new();
        print_three_way(&mut out, &three).unwrap();
        let shown = "update conflict 7 about /app/x\nbase: version 1 on A, 4 on B, hash ab\n    one\n    two\n\
                     A: version 2, 3 bytes, hash cd, world:anyone 0b11111\n    base64:/wBh\nB: absent, deleted there\n";
        assert_eq!(String::from_utf8(out).unwrap(), shown);
        assert_eq!(escaped("/a b/ä?"), "/a%20b/%C3%A4%3F");
        let mut out = Vec::new();
        let value = json!({ "size": 0, "unread": true });
        let one = json!({ "number": 3, "kind": "recreated", "key": "/y", "winner": "a", "strategy": "a_wins", "ambiguous": true,
            "sides": { "a": { "size": 5 }, "b": value } });
        print_decided(&mut out, &[one]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "       3  recreated     /y: a won by a_wins, a guess (A 5 bytes, B unread)\n");
    }
}
