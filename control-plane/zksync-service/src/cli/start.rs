//! Plans as files, and what a start makes of them.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::follow::LOOK;
use super::print::text;
use super::{Api, Refused};
use crate::definition::{Definition, node_bytes_max};

/// Makes a link; one that is there already and is the same is taken as it is, so that a start that failed half-way can be repeated.
pub(super) fn make_link(api: &Api, id: &str, definition: &Value, out: &mut impl Write) -> Result<()> {
    let error = match api.post("/links", definition) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    if !is_conflict(&error) {
        return Err(error);
    }
    // The conflict may be with another link, and then there is none of this name.
    let Ok(there) = api.get(&format!("/links/{id}")) else { return Err(error) };
    let others = differing(&whole(definition), &whole(&there["definition"]));
    if !others.is_empty() {
        bail!(
            "there is a link {id} already, and it differs from the plan in {}: `zk delete {id}`, or give this one another id",
            others.join(", ")
        );
    }
    writeln!(out, "the link {id} is there already, as the plan has it")?;
    Ok(())
}

/// Begins a migration; one that is under way already by the same plan goes on.
pub(super) fn begin_migration(api: &Api, id: &str, plan: &Value, out: &mut impl Write) -> Result<()> {
    let error = match api.post("/migrations", plan) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    if !is_conflict(&error) {
        return Err(error);
    }
    let Ok(page) = api.get(&format!("/migrations/{id}")) else { return Err(error) };
    let migration = &page["migration"];
    let phase = text(&migration["phase"]);
    if matches!(phase.as_str(), "complete" | "rolled_back") || !differing(plan, &migration["plan"]).is_empty() {
        return Err(error);
    }
    writeln!(out, "its migration is under way already: {phase}")?;
    Ok(())
}

/// With what a definition leaves out where it is as usual.
fn whole(definition: &Value) -> Value {
    let mut definition = definition.clone();
    if let Some(fields) = definition.as_object_mut() {
        fields.entry("node_bytes_max").or_insert_with(|| json!(node_bytes_max()));
        fields.entry("versions").or_insert_with(|| json!([]));
    }
    definition
}

/// What of a plan is otherwise in what there is. Whether it is paused is no part of a plan; a file that a plan only names stands there with its
/// directory.
fn differing(plan: &Value, there: &Value) -> Vec<String> {
    fn is_same(name: &str, plan: &Value, there: &Value) -> bool {
        match (plan, there) {
            (Value::Object(plan), Value::Object(there)) => {
                plan.iter().all(|(name, value)| is_same(name, value, there.get(name).unwrap_or(&Value::Null)))
            }
            (Value::String(plan), Value::String(there)) if name.ends_with("_file") => Path::new(there).ends_with(plan),
            _ => plan == there,
        }
    }
    let fields = plan.as_object().into_iter().flatten();
    let others = fields.filter(|(name, value)| *name != "paused" && !is_same(name, value, &there[name.as_str()]));
    others.map(|(name, _)| name.clone()).collect()
}

fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == http::StatusCode::CONFLICT)
}

/// A plan as a file: the link, and how its migration is to go.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanFile {
    /// The link.
    pub(super) link: Definition,
    /// How its migration is to go.
    #[serde(default)]
    pub(super) migration: Option<zksync::Plan>,
}

/// Reads a plan; one that is a link and nothing else is taken, too.
pub(super) fn read_plan(file: &PathBuf) -> Result<PlanFile> {
    let text = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    parse_plan(&text).with_context(|| format!("{} is no plan", file.display()))
}

fn parse_plan(text: &[u8]) -> Result<PlanFile> {
    let mut value: Value = serde_json::from_slice(text)?;
    if value.get("link").is_none() {
        return Ok(PlanFile { link: serde_json::from_value(value)?, migration: None });
    }
    // Which link it is about stands above it.
    if let (Some(id), Some(migration)) = (value["link"].get("id").cloned(), value.get_mut("migration").and_then(Value::as_object_mut)) {
        let named = migration.entry("link").or_insert_with(|| id.clone());
        if *named != id {
            bail!("the migration is about the link {named}, and the plan about {id}");
        }
    }
    Ok(serde_json::from_value(value)?)
}

pub(super) fn wait_for_leader(api: &Api, id: &str) -> Result<()> {
    for _ in 0..120 {
        let link = api.get(&format!("/links/{id}"))?;
        match text(&link["role"]).as_str() {
            "leading" => return Ok(()),
            "standby" => bail!("{} leads this link: ask there", text(&link["detail"])),
            "complete" => bail!("{id}: {}", text(&link["detail"])),
            _ => std::thread::sleep(LOOK),
        }
    }
    bail!("the link {id} has no leader after a minute: are both ensembles reached?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_there_is_the_plans_but_for_what_is_no_part_of_a_plan() {
        let mut definition = Definition::between("m", "a:1", "b:1");
        definition.a.digest_file = Some("old".into());
        let plan = serde_json::to_value(&definition).unwrap();
        let mut there = plan.clone();
        there["a"]["digest_file"] = json!("/etc/orchestrator/secrets/old");
        there["paused"] = json!(true);
        there["known_only_there"] = json!(1);
        assert_eq!(differing(&plan, &there), Vec::<String>::new());
        there["a"]["digest_file"] = json!("/etc/orchestrator/secrets/very-old");
        there["mode"] = json!("both");
        assert_eq!(differing(&plan, &there), ["a", "mode"]);
        let special = Definition { versions: vec!["/v".to_owned()], node_bytes_max: 1, ..Definition::between("m", "a:1", "b:1") };
        let usual = serde_json::to_value(Definition::between("m", "a:1", "b:1")).unwrap();
        let special = serde_json::to_value(special).unwrap();
        assert_eq!(differing(&whole(&usual), &whole(&special)), ["node_bytes_max", "versions"], "what is left out counts, too");
        assert!(differing(&whole(&usual), &whole(&usual)).is_empty());
        let plan = serde_json::to_value(zksync::Plan::of("m")).unwrap();
        assert!(differing(&plan, &plan).is_empty());
        assert!(differing(&plan, &Value::Null).contains(&"deadlines".to_owned()));
    }

    #[test]
    fn a_plan_is_a_link_with_or_without_its_migration() {
        let link = serde_json::to_value(Definition::between("m", "a:1", "b:1")).unwrap();
        let alone = parse_plan(link.to_string().as_bytes()).unwrap();
        assert_eq!((alone.link.id.as_str(), alone.migration), ("m", None));
        let whole = json!({ "link": link, "migration": { "freeze_hook": "http://h/f", "deadlines": { "switch": 600 } } });
        let migration = parse_plan(whole.to_string().as_bytes()).unwrap().migration.unwrap();
        assert_eq!((migration.link.as_str(), migration.deadlines.switch, migration.deadlines.freeze), ("m", 600, 30));
        for wrong in [json!({ "link": link, "migration": { "link": "other" } }), json!({ "link": link, "surprise": 1 }), json!({ "id": 1 })]
        {
            assert!(parse_plan(wrong.to_string().as_bytes()).is_err(), "{wrong}");
        }
    }
}
