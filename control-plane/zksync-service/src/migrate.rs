//! Driving a migration: does what its phases ask for, and tells it what came of that.

mod keep;
mod members;
mod remove;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use zk::Client;
use zksync::{
    Key, LinkConfig, LinkState, Migration, MigrationCommand, MigrationEffect, MigrationInput, Mode, Observation, Phase, Report, Side, Stat,
    Step,
};

use crate::align::{Wanted, align};
use crate::definition::Definition;
use crate::link::{LinkHandle, Reserved, Stopped, now};
use crate::metrics::Metrics;
use crate::service::{Service, ServiceError};
use crate::store::{Store, StoreError};
use crate::verify::{self, VerificationReport};
use crate::witness::{Holder, Witness};
use crate::{prepare, tree};
use keep::keep;
pub use members::Members;
pub(crate) use remove::{clean_up, remove_work};

/// Between two looks at how the link stands.
const LOOK: Duration = Duration::from_millis(250);
/// Between the two looks that show that the writers have stopped. That they have not begun again is shown by a third, of the last comparison.
const SILENCE: Duration = Duration::from_secs(1);
/// What a write and a read of the new ensemble may take.
const COORDINATION: Duration = Duration::from_millis(100);

/// Where migrations are kept.
pub(crate) const MIGRATIONS: &str = "migration";
/// Where the newest reports are kept.
pub(crate) const REPORTS: &str = "report";

/// What is known of a migration. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MigrationView {
    /// Where it is.
    pub migration: Migration,
    /// Who still talked to the old ensemble when it was last asked; none when nobody could tell.
    pub holders: Result<Vec<Holder>, String>,
    /// The newest comparison.
    pub verification: Option<Arc<VerificationReport>>,
    /// The first look.
    pub preparation: Option<Arc<prepare::Preparation>>,
}

/// Who reaches a migration.
#[derive(Clone, Debug)]
pub struct MigrationHandle {
    commands: mpsc::Sender<MigrationCommand>,
    view: watch::Receiver<Arc<MigrationView>>,
}

impl MigrationHandle {
    /// What is known.
    pub fn view(&self) -> Arc<MigrationView> {
        self.view.borrow().clone()
    }

    /// Tells it something that it allows.
    pub async fn tell(&self, command: MigrationCommand) {
        let _ = self.commands.send(command).await;
    }
}

/// What a migration needs.
#[derive(Clone, Debug)]
pub struct Context {
    /// The link.
    pub definition: Definition,
    /// What the core was told.
    pub config: LinkConfig,
    /// The link's driver; none when the link is over, and only what is owed is left.
    pub link: Option<LinkHandle>,
    /// Keeps whether the link is paused.
    pub service: Service,
    /// Where everything is kept.
    pub store: Store,
    /// Numbers.
    pub metrics: Metrics,
    /// Who sees connections.
    pub witness: Option<Arc<dyn Witness>>,
    /// Access control lists that were read before.
    pub known: verify::Known,
    /// What the side that counts had when its writers had stopped.
    pub frozen: Frozen,
    /// Servers of both ensembles, as these have told.
    pub members: Members,
}

/// What a side had when its writers had stopped. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Frozen(Arc<Mutex<Option<(Side, Stats)>>>);

type Stats = Arc<BTreeMap<Key, Stat>>;

impl Frozen {
    fn set(&self, side: Side, stats: BTreeMap<Key, Stat>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((side, Arc::new(stats)));
    }

    fn of(&self, side: Side) -> Option<Stats> {
        let frozen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frozen.as_ref().filter(|(of, _)| *of == side).map(|(_, stats)| stats.clone())
    }
}

enum Found {
    Nothing,
    Preparation(prepare::Preparation),
    Verification(VerificationReport),
    Holders(Result<Vec<Holder>, String>),
}

/// A migration that is ready to run; the future ends when it is over.
pub fn start(context: Context, migration: Migration) -> (MigrationHandle, impl Future<Output = Result<(), StoreError>> + Send + use<>) {
    let (commands, inbox) = mpsc::channel(16);
    let verification =
        context.store.documents::<VerificationReport>(REPORTS).ok().and_then(|mut reports| reports.remove(&context.definition.id));
    let view = MigrationView {
        migration: migration.clone(),
        holders: Err("nobody was asked yet".to_owned()),
        verification: verification.map(Arc::new),
        preparation: None,
    };
    let (tell, view) = watch::channel(Arc::new(view));
    let driver = Driver { context, migration, inbox, tell, under_way: FuturesUnordered::new() };
    (MigrationHandle { commands, view }, driver.run())
}

struct Driver {
    context: Context,
    migration: Migration,
    inbox: mpsc::Receiver<MigrationCommand>,
    tell: watch::Sender<Arc<MigrationView>>,
    under_way: FuturesUnordered<BoxFuture<'static, (Step, Report, Found)>>,
}

impl Driver {
    async fn run(mut self) -> Result<(), StoreError> {
        self.input(MigrationInput::Begin).await?;
        if self.migration.is_finished() {
            return Ok(());
        }
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some((step, report, found)) = self.under_way.next(), if !self.under_way.is_empty() => {
                    self.found(found).await?;
                    self.input(MigrationInput::Done(step, report)).await?;
                }
                command = self.inbox.recv() => match command {
                    Some(command) => self.input(MigrationInput::Command(command)).await?,
                    None => return Ok(()),
                },
                _ = look.tick() => {
                    let seen = observe(self.context.link.as_ref()).await;
                    self.input(MigrationInput::Observed(seen)).await?;
                }
            }
            if self.migration.is_finished() && self.under_way.is_empty() {
                return Ok(());
            }
        }
    }

    async fn input(&mut self, input: MigrationInput) -> Result<(), StoreError> {
        let mut effects = Vec::new();
        self.migration.step(now(), input, &mut effects);
        for effect in effects {
            self.perform(effect).await?;
        }
        let migration = self.migration.clone();
        let names = Phase::ALL.map(Phase::as_str);
        self.context.metrics.phase(&self.context.definition.id, migration.phase.as_str(), &names);
        self.tell.send_modify(|view| *view = Arc::new(MigrationView { migration, ..MigrationView::clone(view) }));
        Ok(())
    }

    async fn perform(&mut self, effect: MigrationEffect) -> Result<(), StoreError> {
        use zksync::Command;
        let told = match effect {
            MigrationEffect::Persist => {
                tracing::info!(link = self.context.definition.id, phase = self.migration.phase.as_str(), "migration");
                let (store, id, migration) = (self.context.store.clone(), self.context.definition.id.clone(), self.migration.clone());
                return keep(|| self.inbox.is_closed(), move || store.put(MIGRATIONS, &id, Some(&migration))).await;
            }
            MigrationEffect::TakeFromA => self.tell_link(Command::SetMode(self.context.config.mode)).await,
            MigrationEffect::TakeFromB => self.tell_link(Command::SetMode(Mode::BToA)).await,
            MigrationEffect::PauseLink => {
                self.keep_paused(true).await?;
                self.tell_link(Command::Pause).await
            }
            MigrationEffect::ResumeLink => {
                self.keep_paused(false).await?;
                self.tell_link(Command::Resume).await
            }
            MigrationEffect::StopLink => {
                if let Some(link) = &self.context.link {
                    link.stop();
                }
                Ok(())
            }
            MigrationEffect::Do(step) => {
                let context = self.context.clone();
                let plan = self.migration.plan.clone();
                let phase = self.migration.phase;
                self.under_way.push(Box::pin(async move {
                    let (report, found) = run_step(&context, &plan, phase, step).await;
                    (step, report, found)
                }));
                Ok(())
            }
        };
        if told.is_err() {
            tracing::warn!(link = self.context.definition.id, "the link has stopped");
        }
        Ok(())
    }

    async fn tell_link(&mut self, command: zksync::Command) -> Result<(), Stopped> {
        match &self.context.link {
            Some(link) => link.tell(command).await,
            None => Ok(()),
        }
    }

    /// A link that is paused stays so over restarts.
    async fn keep_paused(&mut self, paused: bool) -> Result<(), StoreError> {
        let (service, id) = (self.context.service.clone(), self.context.definition.id.clone());
        let write = move || match service.keep_paused(&id, paused) {
            Err(ServiceError::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!(link = id, %error, "whether it is paused is not kept");
                Ok(())
            }
            Ok(()) => Ok(()),
        };
        keep(|| self.inbox.is_closed(), write).await
    }

    async fn found(&mut self, found: Found) -> Result<(), StoreError> {
        let mut view = MigrationView::clone(&self.tell.borrow());
        match found {
            Found::Nothing => return Ok(()),
            Found::Preparation(preparation) => view.preparation = Some(Arc::new(preparation)),
            Found::Verification(report) => {
                let report = Arc::new(report);
                view.verification = Some(report.clone());
                let (store, id) = (self.context.store.clone(), self.context.definition.id.clone());
                keep(|| self.inbox.is_closed(), move || store.put(REPORTS, &id, Some(report.as_ref()))).await?;
            }
            Found::Holders(holders) => view.holders = holders,
        }
        self.tell.send_replace(Arc::new(view));
        Ok(())
    }
}

async fn observe(link: Option<&LinkHandle>) -> Observation {
    let Some(link) = link else { return Observation::default() };
    let settled = link.ask(|link| link.is_settled()).await.unwrap_or(false);
    let status = link.status();
    let lag = link.lag();
    Observation {
        live: matches!(status.state, LinkState::Live | LinkState::Degraded),
        settled,
        lag_p99_ms: lag.a.p99_ms.max(lag.b.p99_ms),
        open_conflicts: status.open_conflicts,
        held_deletes: status.held_deletes,
        blocked: status.blocked_total,
        drifting: status.excluded.get("drift").map_or(0, |count| usize::try_from(*count).unwrap_or(usize::MAX)),
        connected: status.connected,
        both: status.mode == Mode::Both.as_str(),
        halted: matches!(status.state, LinkState::Halted | LinkState::Fenced),
    }
}

async fn run_step(context: &Context, plan: &zksync::Plan, phase: Phase, step: Step) -> (Report, Found) {
    let outcome = match step {
        Step::Prepare => look_first(context).await,
        Step::Verify => compare(context, false, None).await,
        Step::FinalVerify => match back_in_line(context, plan, phase).await {
            Ok(()) => compare(context, true, Some(if phase == Phase::FinalVerify { Side::A } else { Side::B })).await,
            Err(text) => Err(text),
        },
        Step::Freeze => freeze(context, plan, phase).await,
        Step::Unfreeze => {
            // Who was stopped on the way back goes on where there is no way back any more.
            let side = if phase == Phase::Complete { Side::B } else { Side::A };
            let called = call(plan, plan.unfreeze_hook.as_deref(), phase, "unfreeze", side).await;
            called.map(|text| (good(text), Found::Nothing))
        }
        Step::Align => align_sides(context, plan).await,
        Step::Switch => call(plan, plan.switch_hook.as_deref(), phase, "switch", Side::B).await.map(|text| {
            let finished = plan.switch_hook.is_some();
            (Report { ok: true, text, finished }, Found::Nothing)
        }),
        Step::SwitchBack => {
            let called = call(plan, plan.switch_back_hook.as_deref(), phase, "switch_back", Side::A).await;
            let finished = plan.switch_back_hook.is_some();
            called.map(|text| (Report { ok: true, text, finished }, Found::Nothing))
        }
        Step::ConfirmBack => confirm_back(context, plan).await,
        Step::LastVerify => compare(context, false, None).await,
        Step::Confirm => confirm(context, plan).await,
        Step::LastLook => last_look(context, plan).await,
        Step::CleanUp => clean_up(&context.definition).await.map(|()| (good("our znodes are removed".to_owned()), Found::Nothing)),
    };
    outcome.unwrap_or_else(|text| (Report { ok: false, text, finished: false }, Found::Nothing))
}

fn good(text: String) -> Report {
    Report { ok: true, text, finished: false }
}

type StepOutcome = Result<(Report, Found), String>;

async fn look_first(context: &Context) -> StepOutcome {
    // It tells of every list, so it has to see every list.
    context.known.forget().await;
    let found = prepare::prepare(&context.definition, &context.config, &context.known, prepare::Trial::Written).await?;
    let ok = found.blockers.is_empty();
    let text = if ok {
        format!("{} znodes on A, {} on B, {} differ", found.a.nodes, found.b.nodes, found.differing)
    } else {
        found.blockers.join("; ")
    };
    Ok((Report { ok, text, finished: false }, Found::Preparation(found)))
}

async fn compare(context: &Context, strict: bool, still: Option<Side>) -> StepOutcome {
    let clients = verify::connect(&context.definition).await?;
    let compared = verify::verify_trees(&context.definition.id, &context.config, &clients, strict, &context.known).await;
    let (report, trees) = compared.map_err(|error| error.to_string())?;
    // Where both sides are written to, the link itself writes on this one.
    if let Some(side) = still.filter(|_| context.config.mode.source().is_some())
        && let Some(frozen) = context.frozen.of(side)
        && let Some(moved) = written_between(&frozen, &trees[side].stats)
    {
        let text = format!("{moved} was written on {} after its writers had stopped", side.as_str().to_uppercase());
        return Ok((Report { ok: false, text, finished: false }, Found::Verification(report)));
    }
    context.metrics.verified(&context.definition.id, &report);
    let text = if report.found.equal {
        format!("equal: {} znodes, {} bytes, root {}", report.found.nodes_a, report.found.bytes_a, report.found.root_a)
    } else {
        let first = report.found.differences.first().map_or("something that cannot be read", |it| it.path.as_str());
        format!("{} znodes differ, e.g. {first}", report.found.differing)
    };
    Ok((Report { ok: report.found.equal, text, finished: false }, Found::Verification(report)))
}

/// The first path that was written between two looks: (czxid, mzxid, pzxid, aversion) changes with everything that can be written to a znode.
/// That the number of transactions grows is no sign of that: sessions that come and go count, too.
fn written_between(before: &BTreeMap<Key, Stat>, after: &BTreeMap<Key, Stat>) -> Option<Key> {
    let print = |stat: &Stat| (stat.czxid, stat.mzxid, stat.pzxid, stat.aversion);
    let changed = after.iter().find(|(key, stat)| before.get(*key).map(print) != Some(print(stat)));
    changed.map(|(key, _)| key.clone()).or_else(|| before.keys().find(|key| !after.contains_key(*key)).cloned())
}

/// Proves that nobody writes on the side that counts: two looks at everything, some time apart, that find the same.
async fn freeze(context: &Context, plan: &zksync::Plan, phase: Phase) -> StepOutcome {
    let side = if phase == Phase::Freeze { Side::A } else { Side::B };
    let called = call(plan, plan.freeze_hook.as_deref(), phase, "freeze", side).await?;
    let (holders, clients) = futures::join!(holders_of(context, side), verify::connect(&context.definition));
    let clients = clients?;
    let look = async || tree::read_stats(&clients[side], &context.config, side).await.map_err(|error| error.to_string());
    let began = tokio::time::Instant::now();
    let before = look().await?.stats;
    tokio::time::sleep_until(began + SILENCE).await;
    let after = look().await?.stats;
    let Some(moved) = written_between(&before, &after) else {
        context.frozen.set(side, after);
        let text = format!("{called}; nothing is written on {}", side.as_str().to_uppercase());
        return Ok((good(text), Found::Holders(holders)));
    };
    let who = holders.as_ref().map(|holders| name_all(holders)).unwrap_or_default();
    let text = format!("{moved} was written although the writers were to be stopped; connected: {who}");
    Ok((Report { ok: false, text, finished: false }, Found::Holders(holders)))
}

fn name_all(holders: &[Holder]) -> String {
    if holders.is_empty() { "nobody".to_owned() } else { holders.iter().map(Holder::describe).collect::<Vec<_>>().join("; ") }
}

/// Who is connected to `side`, ourselves left out.
pub(crate) async fn holders_of(context: &Context, side: Side) -> Result<Vec<Holder>, String> {
    let Some(witness) = &context.witness else {
        return Err("nobody here sees connections: run the topology with probes, or name a control plane that does (zksync-topology-url)"
            .to_owned());
    };
    let options = context.definition.ensemble(side).options().map_err(|error| error.to_string())?;
    let members = context.members.of(side, &options).await;
    let resolve = move || members::addresses(&options.servers(), &members, side);
    let servers = tokio::task::spawn_blocking(resolve).await.map_err(|error| error.to_string())??;
    witness.holders(servers).await
}

async fn align_sides(context: &Context, plan: &zksync::Plan) -> StepOutcome {
    let clients = verify::connect(&context.definition).await?;
    let wanted = Wanted { kinds: &context.definition.types, versions: &context.definition.versions };
    let aligned = align(&context.config, wanted, plan.sequence_margin, &clients, Side::B, context.frozen.of(Side::A))
        .await
        .map_err(|error| error.to_string())?;
    let text = format!("{} counters and {} versions aligned, {} kinds changed", aligned.counters, aligned.versions, aligned.kinds);
    let ok = aligned.problems.is_empty();
    let text = if ok { text } else { format!("{text}; {}", aligned.problems.join("; ")) };
    Ok((Report { ok, text, finished: false }, Found::Nothing))
}

/// On the way back the old ensemble must not give a number again that the new one has given.
async fn back_in_line(context: &Context, plan: &zksync::Plan, phase: Phase) -> Result<(), String> {
    if phase != Phase::RollbackVerify {
        return Ok(());
    }
    let clients = verify::connect(&context.definition).await?;
    let wanted = Wanted { kinds: &[], versions: &context.definition.versions };
    let aligned = align(&context.config, wanted, plan.sequence_margin, &clients, Side::A, context.frozen.of(Side::B))
        .await
        .map_err(|error| error.to_string())?;
    if aligned.problems.is_empty() { Ok(()) } else { Err(aligned.problems.join("; ")) }
}

async fn confirm(context: &Context, plan: &zksync::Plan) -> StepOutcome {
    let holders = holders_of(context, Side::A).await;
    let options = context.definition.b.options().map_err(|error| error.to_string())?;
    let client = Client::connect(&options).await.map_err(|error| format!("B: {error}"))?;
    let latency = coordination(&client, &Reserved::of(&context.definition.id)).await.map_err(|error| format!("B: {error}"))?;
    let mut problems = Vec::new();
    if latency > COORDINATION {
        problems.push(format!("a write and a read of B take {} ms", latency.as_millis()));
    }
    problems.extend(still_there(plan, &holders));
    let ok = problems.is_empty();
    let text = if ok { format!("green: B answers in {} ms", latency.as_millis()) } else { problems.join("; ") };
    Ok((Report { ok, text, finished: false }, Found::Holders(holders)))
}

/// Who keeps the old ensemble from being let go.
fn still_there(plan: &zksync::Plan, holders: &Result<Vec<Holder>, String>) -> Option<String> {
    match holders {
        _ if !plan.require_no_clients => None,
        Ok(holders) if holders.is_empty() => None,
        Ok(holders) => Some(format!("still connected to the old ensemble: {}", name_all(holders))),
        Err(why) => {
            Some(format!("nobody can tell who is still connected to the old ensemble ({why}); require_no_clients = false goes on without"))
        }
    }
}

/// On the way back: whether the clients have left the new ensemble, and nothing was written there that the old one does not have.
async fn confirm_back(context: &Context, plan: &zksync::Plan) -> StepOutcome {
    let holders = holders_of(context, Side::B).await;
    let (compared, found) = compare(context, false, None).await?;
    let mut problems = Vec::new();
    let mut text = compared.text;
    match &holders {
        Ok(holders) if plan.require_no_clients && !holders.is_empty() => {
            problems.push(format!("still connected to the new ensemble: {}", name_all(holders)));
        }
        Ok(_) => {}
        // Whoever moves them by hand has said that they are moved.
        Err(why) => text = format!("{text}; nobody can tell who is still connected to the new ensemble ({why}): taken as it was said"),
    }
    if !compared.ok {
        problems.push(format!("{text}: what was written on B since its writers had stopped is carried to A by `rollback`"));
    }
    let ok = problems.is_empty();
    Ok((Report { ok, text: if ok { text } else { problems.join("; ") }, finished: false }, found))
}

async fn last_look(context: &Context, plan: &zksync::Plan) -> StepOutcome {
    let holders = holders_of(context, Side::A).await;
    let problem = still_there(plan, &holders);
    let (ok, text) = (problem.is_none(), problem.unwrap_or_else(|| "nobody is connected to the old ensemble".to_owned()));
    Ok((Report { ok, text, finished: false }, Found::Holders(holders)))
}

async fn coordination(client: &Client, reserved: &Reserved) -> Result<Duration, zk::Error> {
    let path = format!("{}/probe", reserved.root());
    client.create_all(&path).await?;
    let began = std::time::Instant::now();
    client.set(&path, b"", None).await?;
    client.get(&path).await?;
    Ok(began.elapsed())
}

/// Calls a hook: POST with what is asked, for which link, on which side, and in which phase. Without one, somebody else has done it.
async fn call(plan: &zksync::Plan, hook: Option<&str>, phase: Phase, what: &str, side: Side) -> Result<String, String> {
    let Some(url) = hook.map(str::to_owned) else { return Ok(format!("{what}: no hook, left to the operator")) };
    let body = serde_json::json!({ "action": what, "link": plan.link, "side": side.as_str(), "phase": phase.as_str() });
    let patience = Duration::from_secs(plan.deadlines.hook);
    let text = format!("{what}: {url} answered");
    let token_file = plan.hook_token_file.clone();
    let called = tokio::task::spawn_blocking(move || {
        let mut request = ureq::post(&url).config().timeout_global(Some(patience)).build();
        if let Some(path) = token_file {
            // Read every time, so that it may be renewed.
            let token = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
            request = request.header("authorization", format!("Bearer {}", token.trim()));
        }
        request.send_json(body).map(drop).map_err(|error| format!("{url}: {error}"))
    });
    called.await.map_err(|error| error.to_string())?.map(|()| text)
}
