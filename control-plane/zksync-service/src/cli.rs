//! `orchestrator-control zk`: the same API, from a shell.

mod conflicts;
mod follow;
mod print;
mod start;

use std::io::Write;
use std::path::PathBuf;

use access::{Access, AccessFlags};
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::definition::Definition;
use conflicts::ConflictFlags;
use follow::{Heard, follow};
use print::{holder_line, print_holders, print_json, print_preparation, print_report, text};
use start::{PlanFile, begin_migration, make_link, read_plan, wait_for_leader};

/// Bytes of an answer.
const ANSWER_MAX: u64 = 256 * 1024 * 1024;

/// Keeps two ZooKeeper ensembles in step, and moves clients from one to the other.
#[derive(Debug, Args)]
pub struct ZkFlags {
    /// The control plane that runs the service `zksync`
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:4040", env = "ORCHESTRATOR_URL")]
    url: String,
    /// Print JSON as it comes
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: ZkCommand,
}

#[derive(Debug, Subcommand)]
enum ZkCommand {
    /// Look at both ensembles without writing anything; print the plan, or keep it in a file for `start`
    Plan {
        /// Name of the link
        #[arg(long, default_value = "migration")]
        id: String,
        /// The old ensemble: host:port,host:port/chroot
        #[arg(long, value_name = "SERVERS", required_unless_present = "file")]
        from: Option<String>,
        /// The new ensemble
        #[arg(long, value_name = "SERVERS", required_unless_present = "file")]
        to: Option<String>,
        /// A plan to look at again, instead of --from and --to
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Only this subtree, on both sides; may be given again
        #[arg(long, value_name = "PATH")]
        path: Vec<String>,
        /// Both directions instead of one
        #[arg(long)]
        both: bool,
        /// Keep the plan here
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// Make a link by a plan, and begin the migration
    Start {
        /// The plan
        file: PathBuf,
        /// Keep the two in step only, without a migration
        #[arg(long)]
        sync_only: bool,
        /// Do not demand that nobody talks to the old ensemble any more
        #[arg(long)]
        ignore_clients: bool,
        /// Wait until it is ready to be cut over
        #[arg(long)]
        wait: bool,
    },
    /// Stop carrying changes until `resume`; they are still heard of
    Pause {
        /// The link
        id: String,
    },
    /// Go on
    Resume {
        /// The link
        id: String,
    },
    /// Compare everything now, and carry what differs
    Resync {
        /// The link
        id: String,
    },
    /// Carry out deletes that were held back because there were so many
    ApproveDeletes {
        /// The link
        id: String,
    },
    /// Change which sides are written to, for good
    Mode {
        /// The link
        id: String,
        /// a_to_b, b_to_a or both
        mode: String,
    },
    /// End a link: what it copied stays, what it remembered goes
    Delete {
        /// The link
        id: String,
    },
    /// How links and migrations stand
    Status {
        /// One link; all when left out
        id: Option<String>,
    },
    /// Conflicts that wait for somebody; with --resolve, decide one
    Conflicts(ConflictFlags),
    /// Compare both sides now; exit code 1 when they differ
    Verify {
        /// The link
        id: String,
    },
    /// Cut over: stop the writers, prove it, carry the last changes, turn round. With --advance, say that the clients are moved; with
    /// --complete, that there need be no way back
    Cutover {
        /// The link
        id: String,
        /// The clients are moved
        #[arg(long, conflicts_with = "complete")]
        advance: bool,
        /// There need be no way back any more
        #[arg(long)]
        complete: bool,
        /// With --complete, and with --advance on the way back: whatever stands in the way. What is on the other ensemble alone is given up
        #[arg(long)]
        force: bool,
        /// Wait until the phase has passed
        #[arg(long)]
        wait: bool,
    },
    /// Go back to the old ensemble, with everything written since
    Rollback {
        /// The link
        id: String,
        /// Wait until it is done
        #[arg(long)]
        wait: bool,
    },
}

/// The same command line where `--output` is nothing else: that was the name of `--save`.
pub fn with_output(zk: clap::Command) -> clap::Command {
    zk.mut_subcommand("plan", |plan| plan.mut_arg("save", |save| save.alias("output").short_alias('o')))
}

impl ZkFlags {
    /// Whether JSON is printed as it comes.
    pub fn is_json(&self) -> bool {
        self.json
    }
}

/// Runs the command; gives back whether what was asked for is so.
///
/// # Errors
/// When the control plane does not answer, or refuses.
pub fn run(flags: &ZkFlags, access: &AccessFlags, out: &mut impl Write) -> Result<bool> {
    run_as(flags, access, flags.json, out)
}

/// The same, with JSON as it comes or not, whatever the flags say.
///
/// # Errors
/// When the control plane does not answer, or refuses.
pub fn run_as(flags: &ZkFlags, access: &AccessFlags, as_json: bool, out: &mut impl Write) -> Result<bool> {
    let access = access.open(|config| config.user_agent(concat!("orchestrator/", env!("CARGO_PKG_VERSION"))))?;
    let api = Api { url: format!("{}/api/v1/zksync", flags.url.trim_end_matches('/')), access };
    match &flags.command {
        ZkCommand::Plan { id, from, to, file, path, both, save } => {
            let mut migration = None;
            let definition = match file {
                Some(file) => {
                    let plan = read_plan(file)?;
                    migration = plan.migration;
                    plan.link
                }
                None => {
                    let mut definition = Definition::between(id, from.as_deref().unwrap_or_default(), to.as_deref().unwrap_or_default());
                    let rule = |path: &String| zksync::Rule { a: path.clone(), b: path.clone(), include: Vec::new(), exclude: Vec::new() };
                    definition.mappings = path.iter().map(rule).collect();
                    if *both {
                        definition.mode = zksync::Mode::Both;
                    }
                    definition
                }
            };
            let found = api.post("/plan", &serde_json::to_value(&definition)?)?;
            if let Some(kept) = save {
                let migration = migration.unwrap_or_else(|| zksync::Plan::of(&definition.id));
                let plan = json!({ "link": definition, "migration": migration });
                std::fs::write(kept, serde_json::to_vec_pretty(&plan)?).with_context(|| format!("writing {}", kept.display()))?;
            }
            if as_json {
                print_json(out, &found)?;
            } else {
                print_preparation(out, &found)?;
                if let Some(kept) = save {
                    writeln!(out, "kept in {}: `zk start {}` begins", kept.display(), kept.display())?;
                }
            }
            Ok(found["blockers"].as_array().is_none_or(Vec::is_empty))
        }
        ZkCommand::Start { file, sync_only, ignore_clients, wait } => {
            let PlanFile { link: definition, migration } = read_plan(file)?;
            let id = &definition.id;
            make_link(&api, id, &serde_json::to_value(&definition)?, out)?;
            wait_for_leader(&api, id)?;
            if !sync_only {
                let mut plan = migration.unwrap_or_else(|| zksync::Plan::of(id));
                plan.require_no_clients &= !ignore_clients;
                begin_migration(&api, id, &serde_json::to_value(&plan)?, out)?;
            }
            writeln!(out, "{id} has begun; `zk status {id}` tells how it stands")?;
            if *wait && !sync_only {
                return follow(&api, id, None, &["ready"], out);
            }
            Ok(true)
        }
        ZkCommand::Pause { id } => act(&api, id, "pause", out),
        ZkCommand::Resume { id } => act(&api, id, "resume", out),
        ZkCommand::Resync { id } => act(&api, id, "resync", out),
        ZkCommand::ApproveDeletes { id } => act(&api, id, "approve-deletes", out),
        ZkCommand::Mode { id, mode } => {
            let link = api.patch(&format!("/links/{id}"), &json!({ "mode": mode }))?;
            writeln!(out, "{id}: {}", text(&link["definition"]["mode"]))?;
            Ok(true)
        }
        ZkCommand::Delete { id } => {
            api.delete(&format!("/links/{id}"))?;
            writeln!(out, "{id} is gone; what it copied stays")?;
            Ok(true)
        }
        ZkCommand::Status { id } => status(&api, id.as_deref(), as_json, out),
        ZkCommand::Conflicts(conflicts) => conflicts.run(&api, as_json, out),
        ZkCommand::Verify { id } => {
            let report = api.post(&format!("/links/{id}/verifications"), &json!({}))?;
            if as_json {
                print_json(out, &report)?;
            } else {
                print_report(out, &report)?;
            }
            Ok(report["found"]["equal"] == json!(true))
        }
        ZkCommand::Cutover { id, advance, complete, force, wait } => {
            if *force && !advance && !complete {
                bail!("--force goes with --complete or --advance");
            }
            let (action, until): (&str, &[&str]) = match (advance, complete) {
                (true, _) => ("advance", &["drain", "rolled_back"]),
                (_, true) => ("complete", &["complete"]),
                _ => ("cutover", &["switch", "confirm", "drain"]),
            };
            if action == "cutover" {
                print_holders(out, &api, id)?;
            }
            let forced = if *force { "?force=true" } else { "" };
            let before = Heard::of(&api, id)?;
            api.post(&format!("/migrations/{id}/{action}{forced}"), &json!({}))?;
            writeln!(out, "{action}")?;
            if *wait { follow(&api, id, Some(&before), until, out) } else { Ok(true) }
        }
        ZkCommand::Rollback { id, wait } => {
            let before = Heard::of(&api, id)?;
            api.post(&format!("/migrations/{id}/rollback"), &json!({}))?;
            writeln!(out, "rollback")?;
            if *wait { follow(&api, id, Some(&before), &["rolled_back", "ready"], out) } else { Ok(true) }
        }
    }
}

struct Api {
    url: String,
    access: Access,
}

impl Api {
    fn get(&self, path: &str) -> Result<Value> {
        answer(self.access.authorized(self.access.agent().get(format!("{}{path}", self.url))).call())
    }

    fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let asked = self.access.authorized(self.access.agent().get(format!("{}{path}", self.url))).call();
        let mut response = asked.context("the control plane does not answer")?;
        if !response.status().is_success() {
            return answer(Ok(response)).map(|_| Vec::new());
        }
        response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec().context("reading the answer")
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        answer(self.access.authorized(self.access.agent().post(format!("{}{path}", self.url))).send_json(body))
    }

    fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        answer(self.access.authorized(self.access.agent().patch(format!("{}{path}", self.url))).send_json(body))
    }

    fn delete(&self, path: &str) -> Result<Value> {
        answer(self.access.authorized(self.access.agent().delete(format!("{}{path}", self.url))).call())
    }
}

fn is_over(phase: &str) -> bool {
    matches!(phase, "complete" | "rolled_back")
}

/// A migration of a link under way is paused and resumed as a whole: it would not do to stop only what it stands on.
fn act(api: &Api, id: &str, action: &str, out: &mut impl Write) -> Result<bool> {
    let phase = api.get(&format!("/migrations/{id}")).map(|page| text(&page["migration"]["phase"])).unwrap_or_default();
    let migrates = !phase.is_empty() && !is_over(&phase) && matches!(action, "pause" | "resume");
    api.post(&format!("/{}/{id}/{action}", if migrates { "migrations" } else { "links" }), &json!({}))?;
    writeln!(out, "{action}{}", if migrates { ", the migration with it" } else { "" })?;
    Ok(true)
}

fn answer(answered: Result<http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
    let mut response = answered.context("the control plane does not answer")?;
    let status = response.status();
    let body = response.body_mut().with_config().limit(ANSWER_MAX).read_to_string().context("reading the answer")?;
    let value: Value = serde_json::from_str(&body).unwrap_or(Value::String(body));
    if !status.is_success() {
        let text = match value {
            Value::String(text) => text,
            other => format!("{status}: {other}"),
        };
        return Err(Refused { status, text }.into());
    }
    Ok(value)
}

/// What was asked for was answered, but not done.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Refused {
    status: http::StatusCode,
    text: String,
}

fn status(api: &Api, id: Option<&str>, as_json: bool, out: &mut impl Write) -> Result<bool> {
    let links = match id {
        Some(id) => vec![api.get(&format!("/links/{id}"))?],
        None => api.get("/links")?.as_array().cloned().unwrap_or_default(),
    };
    let mut fine = true;
    for link in links {
        let name = text(&link["definition"]["id"]);
        let migration = api.get(&format!("/migrations/{name}")).ok();
        if as_json {
            print_json(out, &json!({ "link": link, "migration": migration }))?;
            continue;
        }
        let state = &link["status"];
        let word = if state.is_null() { text(&link["role"]) } else { text(&state["state"]) };
        fine &= matches!(word.as_str(), "live" | "snapshot" | "resync" | "starting" | "standby" | "complete");
        writeln!(out, "{name}: {word} {}{}", text(&link["detail"]), text(&state["reason"]))?;
        if !state.is_null() {
            let counters = &state["counters"];
            writeln!(
                out,
                "  {}: {} pairs, {} waiting, {} conflicts open, {} deletes held, {} paths blocked",
                text(&state["mode"]),
                state["pairs"],
                state["backlog"],
                state["open_conflicts"],
                state["held_deletes"],
                state["blocked_total"]
            )?;
            for (side, direction) in [("b", "A to B"), ("a", "B to A")] {
                let lag = &link["lag"][side];
                writeln!(
                    out,
                    "  {direction}: {} created, {} updated, {} deleted; lag p50 {:.1} ms, p99 {:.1} ms over {} changes",
                    counters["created"][side],
                    counters["updated"][side],
                    counters["deleted"][side],
                    lag["p50_ms"].as_f64().unwrap_or(0.0),
                    lag["p99_ms"].as_f64().unwrap_or(0.0),
                    lag["changes"]
                )?;
            }
            for blocked in state["blocked"].as_array().into_iter().flatten().take(10) {
                writeln!(out, "  blocked: {} {}", text(&blocked[0]), text(&blocked[1]))?;
            }
        }
        if let Some(page) = migration {
            let migration = &page["migration"];
            let waiting = text(&migration["waiting_for"]);
            let waiting = if waiting.is_empty() { String::new() } else { format!(", waiting for {waiting}") };
            let left = page["progress"]["seconds_left"].as_u64().map(|seconds| format!(", about {seconds} s left")).unwrap_or_default();
            // Nothing is copied once it is complete, and nobody counts any more.
            let copied = if state.is_null() { String::new() } else { format!(" ({} % copied{left})", page["progress"]["percent"]) };
            writeln!(out, "  migration: {}{copied}{waiting}", text(&migration["phase"]))?;
            let phase = text(&migration["phase"]);
            // On the way back it is the new one that everybody is to leave; and once it is over, nobody asks any more.
            let left = if phase.starts_with("rollback") { "new" } else { "old" };
            for holder in page["holders"].as_array().into_iter().flatten().filter(|_| !is_over(&phase)) {
                writeln!(out, "  connected to the {left} ensemble: {}", holder_line(holder))?;
            }
            if let Some(why) = page["holders_unknown"].as_str().filter(|_| !is_over(&phase)) {
                writeln!(out, "  who is connected to the {left} ensemble is not known: {why}")?;
            }
        }
    }
    Ok(fine)
}
