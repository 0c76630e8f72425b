//! The commands: import, export, diff.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use marathon_rest::{Access, Client};
use serde_json::{Value, json};

use crate::plan::{Action, Plan, Start, Wish};
use crate::snapshot::Snapshot;

/// Differences shown of one app or pod.
const DIFFERENCES_SHOWN: usize = 20;
/// How long to wait for the deployment of a suspended version.
const DEPLOYING: Duration = Duration::from_secs(60);

/// Moves what is defined between Marathons
#[derive(Clone, Debug, clap::Subcommand)]
pub enum MarathonCommand {
    /// Copy groups, apps and pods with their versions into a Marathon
    Import(ImportArgs),
    /// Write groups, apps and pods with their versions to a file
    Export(ExportArgs),
    /// Show in what two Marathons, or a Marathon and a file, differ
    Diff(DiffArgs),
}

/// Arguments of an import.
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// The old Marathon's address, or a file that was exported
    #[arg(long)]
    pub from: String,
    /// The new Marathon's address
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub to: String,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// What is started in the new one
    #[arg(long, value_enum, default_value_t)]
    pub start: Start,
    /// Change what is there already and differs
    #[arg(long)]
    pub overwrite: bool,
    /// Older versions to copy of each app and pod
    #[arg(long, default_value_t = 25)]
    pub versions: usize,
    /// How to be let in, at both
    #[command(flatten)]
    pub access: Access,
}

/// Arguments of an export.
#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    /// The Marathon's address
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub from: String,
    /// The file
    #[arg(long)]
    pub to: PathBuf,
    /// Older versions of each app and pod
    #[arg(long, default_value_t = 25)]
    pub versions: usize,
    /// How to be let in
    #[command(flatten)]
    pub access: Access,
}

/// Arguments of a comparison.
#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// A Marathon's address, or a file that was exported
    #[arg(long)]
    pub from: String,
    /// Another
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub to: String,
    /// How to be let in, at both
    #[command(flatten)]
    pub access: Access,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is done, or is the same.
    Fine,
    /// There are differences, or something spoke against it and nothing was done.
    Differs,
}

/// Carries out a command, and says on `out` what it does.
///
/// # Errors
/// When a Marathon does not answer or refuses, or a file cannot be used.
pub async fn run(command: &MarathonCommand, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    match command {
        MarathonCommand::Import(args) => import(args, out).await,
        MarathonCommand::Export(args) => {
            let client = Client::new(std::slice::from_ref(&args.from), &args.access)?;
            let snapshot = Snapshot::of(&client, args.versions).await?;
            let text = serde_json::to_string_pretty(&snapshot.write())?;
            std::fs::write(&args.to, text).with_context(|| format!("writing {}", args.to.display()))?;
            let versions: usize = snapshot.apps.values().chain(snapshot.pods.values()).map(|it| it.history.len()).sum();
            let (groups, apps, pods) = (snapshot.groups.len(), snapshot.apps.len(), snapshot.pods.len());
            writeln!(out, "{groups} groups, {apps} apps, {pods} pods and {versions} older versions are in {}.", args.to.display())?;
            Ok(Outcome::Fine)
        }
        MarathonCommand::Diff(args) => {
            let (from, to) = (load(&args.from, &args.access, 0).await?, load(&args.to, &args.access, 0).await?);
            let plan = Plan::new(&from, &to, Wish { start: Start::None, overwrite: true });
            Ok(if show_differences(&plan, out)? { Outcome::Differs } else { Outcome::Fine })
        }
    }
}

async fn load(from: &str, access: &Access, versions: usize) -> anyhow::Result<Snapshot> {
    let path = from.strip_prefix("file:").map(|it| it.trim_start_matches("//")).unwrap_or(from);
    if from.starts_with("file:") || (!from.contains("://") && std::path::Path::new(path).is_file()) {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("{path} is no JSON"))?;
        return Snapshot::read(&value).with_context(|| format!("reading {path}"));
    }
    let client = Client::new(&[from.to_owned()], access)?;
    Snapshot::of(&client, versions).await.with_context(|| format!("looking at {from}"))
}

fn show_differences(plan: &Plan, out: &mut dyn Write) -> anyhow::Result<bool> {
    let mut any = false;
    for action in &plan.actions {
        match action {
            Action::PutGroup { id, .. } => writeln!(out, "- group {id}: not there, or with other dependencies")?,
            Action::Put { id, is_pod, there: false, .. } => writeln!(out, "- {} {id}: not there", kind(*is_pod))?,
            Action::Put { there: true, .. } => continue,
        }
        any = true;
    }
    for (id, differences) in &plan.differing {
        any = true;
        writeln!(out, "~ {id}:")?;
        for it in differences.iter().take(DIFFERENCES_SHOWN) {
            let shown = |value: &Option<Value>| value.as_ref().map_or("nothing".to_owned(), ToString::to_string);
            writeln!(out, "    {}: {} -> {}", it.path, shown(&it.one), shown(&it.two))?;
        }
        if differences.len() > DIFFERENCES_SHOWN {
            writeln!(out, "    and {} more", differences.len() - DIFFERENCES_SHOWN)?;
        }
    }
    for id in &plan.only_there {
        any = true;
        writeln!(out, "+ {id}: only in the second")?;
    }
    if !any {
        writeln!(out, "Both define the same.")?;
    }
    Ok(any)
}

fn kind(is_pod: bool) -> &'static str {
    if is_pod { "pod" } else { "app" }
}

async fn import(args: &ImportArgs, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let to_client = Client::new(std::slice::from_ref(&args.to), &args.access)?;
    let from = load(&args.from, &args.access, args.versions).await?;
    let to = Snapshot::of(&to_client, 0).await.with_context(|| format!("looking at {}", args.to))?;
    writeln!(
        out,
        "From {} (Marathon {}, framework {}): {} groups, {} apps, {} pods.",
        args.from,
        from.source.version,
        from.source.framework_id.as_deref().unwrap_or("unknown"),
        from.groups.len(),
        from.apps.len(),
        from.pods.len()
    )?;
    let plan = Plan::new(&from, &to, Wish { start: args.start, overwrite: args.overwrite });
    show_plan(&plan, out)?;
    if !plan.problems.is_empty() {
        writeln!(out, "Nothing was changed.")?;
        return Ok(Outcome::Differs);
    }
    if args.dry_run {
        writeln!(out, "Nothing was changed: this was a dry run.")?;
        return Ok(Outcome::Fine);
    }
    for action in &plan.actions {
        carry_out(&to_client, action, out).await?;
    }
    // What counts is what is there now.
    let after = Snapshot::of(&to_client, 0).await?;
    let left = Plan::new(&from, &after, Wish { start: Start::None, overwrite: true });
    let different = left.differing.len() + left.actions.iter().filter(|it| !matches!(it, Action::Put { there: true, .. })).count();
    if different > 0 {
        writeln!(out, "Done, and these differences are left:")?;
        show_differences(&left, out)?;
        return Ok(Outcome::Differs);
    }
    writeln!(out, "Done: the new one defines everything that the old one does.")?;
    let suspended: Vec<String> = plan
        .actions
        .iter()
        .filter_map(|it| match it {
            Action::Put { id, instances, wanted, there: false, .. } if instances < wanted => Some(format!("{id} ({wanted})")),
            _ => None,
        })
        .collect();
    if !suspended.is_empty() {
        writeln!(out, "Suspended, to be scaled when the old ones have ended: {}.", suspended.join(", "))?;
    }
    Ok(Outcome::Fine)
}

fn show_plan(plan: &Plan, out: &mut dyn Write) -> anyhow::Result<()> {
    for action in &plan.actions {
        match action {
            Action::PutGroup { id, enforce_role, .. } => {
                let role = enforce_role.map(|it| format!(", enforceRole {it}")).unwrap_or_default();
                writeln!(out, "  group {id}{role}")?;
            }
            Action::Put { id, is_pod, bodies, instances, wanted, there } => {
                let how = if *there { "is changed".to_owned() } else { format!("is made, in {} versions", bodies.len()) };
                writeln!(out, "  {} {id} {how}: {instances} of {wanted} instances", kind(*is_pod))?;
            }
        }
    }
    if !plan.same.is_empty() {
        writeln!(out, "  {} are there already, and are the same", plan.same.len())?;
    }
    for (id, differences) in &plan.differing {
        let paths: Vec<&str> = differences.iter().map(|it| it.path.as_str()).take(DIFFERENCES_SHOWN).collect();
        writeln!(out, "  {id} differs in {}", paths.join(", "))?;
    }
    for warning in &plan.warnings {
        writeln!(out, "  note: {warning}")?;
    }
    for problem in &plan.problems {
        writeln!(out, "  PROBLEM: {problem}")?;
    }
    Ok(())
}

async fn carry_out(client: &Client, action: &Action, out: &mut dyn Write) -> anyhow::Result<()> {
    match action {
        Action::PutGroup { id, body, enforce_role } => {
            let answer = client.send(Method::PUT, &format!("/v2/groups{id}?force=true"), Some(body)).await;
            answer.with_context(|| format!("making the group {id}"))?;
            if let Some(enforce) = enforce_role {
                let patched = client.send(Method::PATCH, &format!("/v2/groups{id}"), Some(&json!({"enforceRole": enforce}))).await;
                patched.with_context(|| format!("setting enforceRole of {id}"))?;
            }
        }
        Action::Put { id, is_pod, bodies, instances, .. } => {
            let path = if *is_pod { format!("/v2/pods{id}?force=true") } else { format!("/v2/apps{id}?force=true&partialUpdate=false") };
            for (at, body) in bodies.iter().enumerate() {
                let last = at + 1 == bodies.len();
                if let Err(error) = put(client, &path, body).await {
                    // A version of long ago may break rules that are younger than it is: it is not worth the rest.
                    if last || error.status().is_none_or(|it| it == StatusCode::UNAUTHORIZED || it.is_server_error()) {
                        return Err(error).with_context(|| format!("making {} {id}", kind(*is_pod)));
                    }
                    writeln!(out, "  note: an old version of {id} is left out: {error}")?;
                    continue;
                }
                // What starts instances may take its time; what is suspended is there at once.
                if !last || *instances == 0 {
                    settled(client, id).await?;
                }
            }
        }
    }
    Ok(())
}

async fn put(client: &Client, path: &str, body: &Value) -> Result<(), marathon_rest::Error> {
    let too_many = |error: &marathon_rest::Error| error.status() == Some(StatusCode::FORBIDDEN);
    let mut answer = client.send(Method::PUT, path, Some(body)).await;
    for _ in 0..30 {
        if !answer.as_ref().is_err_and(too_many) {
            break;
        }
        // As many deployments run as may: soon there are fewer.
        tokio::time::sleep(Duration::from_secs(1)).await;
        answer = client.send(Method::PUT, path, Some(body)).await;
    }
    answer.map(drop)
}

/// Waits until no deployment of a suspended version is left; one that starts instances may take its time.
async fn settled(client: &Client, id: &str) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    loop {
        let deployments = client.get("/v2/deployments").await?;
        let touches = |it: &Value| {
            let ids = it["affectedApps"].as_array().into_iter().chain(it["affectedPods"].as_array()).flatten();
            ids.filter_map(Value::as_str).any(|it| it == id)
        };
        let busy = deployments.as_array().into_iter().flatten().any(touches);
        if !busy {
            return Ok(());
        }
        if begun.elapsed() > DEPLOYING {
            bail!("the deployment of {id} does not end");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
