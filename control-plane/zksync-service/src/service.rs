//! All links of this control plane: kept across restarts, one leader each.

mod lead;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zk::Options;
use zksync::{LinkState, Migration, Mode, Plan, Side, Strategy};

use crate::definition::{Definition, DefinitionError, Secrets};
use crate::link::{LinkHandle, Reserved, now};
use crate::metrics::Metrics;
use crate::migrate::{self, Context, MIGRATIONS, MigrationHandle, REPORTS};
use crate::prepare::{self, Preparation, Trial};
use crate::store::{Store, StoreError};
use crate::verify::{self, Known, VerificationReport};
use crate::witness::Witness;

/// Links at most.
pub const LINKS_MAX: usize = 64;
const LINKS: &str = "link";
/// Links whose znodes on the ensembles are not to be gone by.
const FRESH: &str = "fresh";
/// How long it is tried to remove what a link has left.
const LEAVING: Duration = Duration::from_secs(20);
/// Before a link whose driver has ended, or whose election failed, is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Runs something beside everything else, under a name.
pub type Spawn = Arc<dyn Fn(&'static str, BoxFuture<'static, ()>) + Send + Sync>;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    metrics: Metrics,
    witness: Option<Arc<dyn Witness>>,
    secrets: Secrets,
    /// Random per start: what this process is told apart from others by.
    leader: u64,
    name: String,
    spawn: Spawn,
    stopping: CancellationToken,
    begun: AtomicBool,
    links: Mutex<BTreeMap<String, Running>>,
    /// Links that are gone, whose znodes are being removed.
    leaving: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Running {
    written: watch::Sender<Arc<Definition>>,
    stop: CancellationToken,
    role: watch::Receiver<Role>,
    migration: Arc<Mutex<Option<MigrationHandle>>>,
    known: Known,
}

impl Running {
    fn definition(&self) -> Arc<Definition> {
        self.written.borrow().clone()
    }
}

/// What this process is to a link.
#[derive(Clone, Debug)]
pub enum Role {
    /// It is being looked for who leads.
    Waiting(String),
    /// Another process leads.
    Standby(String),
    /// This one does.
    Leading(LinkHandle),
    /// Nobody does any more: its migration is complete.
    Complete,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no such link or migration.
    #[error("{0}")]
    Missing(String),
    /// What was asked for does not fit what there is.
    #[error("{0}")]
    Conflict(String),
    /// What was asked for makes no sense.
    #[error(transparent)]
    Invalid(#[from] DefinitionError),
    /// This process does not lead the link, or an ensemble does not answer: later, or elsewhere.
    #[error("{0}")]
    Unavailable(String),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Service {
    /// With what is kept in `store`; every link in it begins to run.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn start(
        store: Store,
        witness: Option<Arc<dyn Witness>>,
        secrets: Secrets,
        (leader, name): (u64, &str),
        stopping: CancellationToken,
        spawn: Spawn,
    ) -> Result<Service, StoreError> {
        let service = Service::waiting(store, witness, secrets, (leader, name), stopping, spawn);
        service.begin()?;
        Ok(service)
    }

    /// The same, but nothing runs before [`Service::begin`]: another control plane may be the one that does the work.
    pub fn waiting(
        store: Store,
        witness: Option<Arc<dyn Witness>>,
        secrets: Secrets,
        (leader, name): (u64, &str),
        stopping: CancellationToken,
        spawn: Spawn,
    ) -> Service {
        let inner = Inner {
            store,
            metrics: Metrics::new(),
            witness,
            secrets,
            leader,
            name: name.to_owned(),
            spawn,
            stopping,
            begun: AtomicBool::new(false),
            links: Mutex::default(),
            leaving: Mutex::default(),
        };
        Service { inner: Arc::new(inner) }
    }

    /// Every link in the store begins to run.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn begin(&self) -> Result<(), StoreError> {
        let definitions: BTreeMap<String, Definition> = self.inner.store.documents(LINKS)?;
        self.inner.begun.store(true, Ordering::SeqCst);
        for definition in definitions.into_values() {
            self.run(definition);
        }
        Ok(())
    }

    fn has_begun(&self) -> Result<(), ServiceError> {
        if self.inner.begun.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(ServiceError::Unavailable("another control plane leads, or it is not known yet who does".to_owned()))
    }

    /// Numbers.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Where everything is kept.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What is wrong right now; empty when nothing is.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (id, running) in self.links().iter() {
            match &*running.role.borrow() {
                Role::Leading(handle) => {
                    let status = handle.status();
                    let is_stuck = matches!(status.state, LinkState::Halted | LinkState::Fenced | LinkState::Stalled);
                    if is_stuck || status.reason.is_some() {
                        problems.push(format!(
                            "link {id} is {}: {}",
                            status.state.as_str(),
                            status.reason.as_deref().unwrap_or("an ensemble is not reached")
                        ));
                    }
                }
                Role::Waiting(why) => problems.push(format!("link {id}: {why}")),
                Role::Standby(_) | Role::Complete => {}
            }
        }
        problems
    }

    fn links(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Running>> {
        self.inner.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self, id: &str) -> Result<Running, ServiceError> {
        self.links().get(id).cloned().ok_or_else(|| ServiceError::Missing(format!("there is no link {id:?}")))
    }

    /// All links.
    pub fn list(&self) -> Vec<(Arc<Definition>, Role)> {
        self.links().values().map(|running| (running.definition(), running.role.borrow().clone())).collect()
    }

    /// A link as it was written down, and what this process is to it.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, id: &str) -> Result<(Arc<Definition>, Role), ServiceError> {
        let running = self.running(id)?;
        let role = running.role.borrow().clone();
        Ok((running.definition(), role))
    }

    /// The driver of a link that this process leads.
    ///
    /// # Errors
    /// When there is no such link, or another process leads it.
    pub fn handle(&self, id: &str) -> Result<LinkHandle, ServiceError> {
        match self.get(id)?.1 {
            Role::Leading(handle) => Ok(handle),
            Role::Standby(leader) => Err(ServiceError::Unavailable(format!("{leader} leads the link {id}"))),
            Role::Waiting(why) => Err(ServiceError::Unavailable(format!("link {id}: {why}"))),
            Role::Complete => Err(ServiceError::Conflict(format!("link {id}: its migration is complete, nothing is carried any more"))),
        }
    }

    /// Makes a link, and runs it.
    ///
    /// # Errors
    /// When it makes no sense, or there is one of that name.
    pub fn create(&self, definition: Definition) -> Result<(), ServiceError> {
        self.has_begun()?;
        definition.config()?;
        let definition = self.inner.secrets.admit(definition)?;
        definition.a.options()?;
        definition.b.options()?;
        {
            let links = self.links();
            if links.contains_key(&definition.id) {
                return Err(ServiceError::Conflict(format!("there is a link {:?} already", definition.id)));
            }
            if self.leaving().contains(&definition.id) {
                return Err(ServiceError::Conflict(format!("what the last link {:?} has left is being removed: a moment", definition.id)));
            }
            let others = links.values().map(Running::definition).filter(|other| !self.is_complete(&other.id).unwrap_or(false));
            if let Some(why) = others.into_iter().find_map(|other| shared(&definition, &other)) {
                return Err(ServiceError::Conflict(why));
            }
            if links.len() >= LINKS_MAX {
                return Err(ServiceError::Conflict(format!("{LINKS_MAX} links are the most there can be")));
            }
        }
        // What an earlier link of this name has left on the ensembles is nothing to go by.
        self.inner.store.put(FRESH, &definition.id, Some(&true))?;
        self.inner.store.put(LINKS, &definition.id, Some(&definition))?;
        self.run(definition);
        Ok(())
    }

    /// Changes a link as it is written down.
    pub(crate) fn change(&self, id: &str, mode: Option<Mode>, strategy: Option<Strategy>) -> Result<(), ServiceError> {
        let running = self.running(id)?;
        let migration = running.migration.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if mode.is_some()
            && let Some(migration) = migration
            && !migration.view().migration.phase.is_over()
        {
            return Err(ServiceError::Conflict(format!("a migration of the link {id} is under way: it sees to the direction")));
        }
        let mut definition = Definition::clone(&running.definition());
        definition.mode = mode.unwrap_or(definition.mode);
        definition.strategy = strategy.unwrap_or(definition.strategy);
        definition.config()?;
        self.inner.store.put(LINKS, id, Some(&definition))?;
        running.written.send_replace(Arc::new(definition));
        Ok(())
    }

    /// Keeps whether a link is paused, so that it still is when it is made anew.
    ///
    /// # Errors
    /// When there is no such link, or the store cannot be written. Blocks.
    pub(crate) fn keep_paused(&self, id: &str, paused: bool) -> Result<(), ServiceError> {
        let running = self.running(id)?;
        if running.definition().paused == paused {
            return Ok(());
        }
        let definition = Definition { paused, ..Definition::clone(&running.definition()) };
        self.inner.store.put(LINKS, id, Some(&definition))?;
        running.written.send_replace(Arc::new(definition));
        Ok(())
    }

    /// Ends a link. What it copied stays; what it remembered goes.
    ///
    /// # Errors
    /// When there is none, or a migration of it is under way.
    pub fn delete(&self, id: &str) -> Result<(), ServiceError> {
        let running = self.running(id)?;
        let migration = running.migration.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(migration) = migration
            && !migration.view().migration.phase.is_over()
        {
            return Err(ServiceError::Conflict(format!("a migration of the link {id} is under way: roll it back or complete it first")));
        }
        self.links().remove(id);
        self.leaving().insert(id.to_owned());
        running.stop.cancel();
        self.inner.store.put::<Definition>(LINKS, id, None)?;
        self.inner.store.put::<bool>(FRESH, id, None)?;
        self.inner.store.put::<Migration>(MIGRATIONS, id, None)?;
        self.inner.store.put::<VerificationReport>(REPORTS, id, None)?;
        self.inner.store.forget(id)?;
        self.inner.metrics.forget(id);
        let (service, definition) = (self.clone(), running.definition());
        (self.inner.spawn)("zksync_leaving", Box::pin(async move { service.leave(&definition).await }));
        Ok(())
    }

    /// Removes what is ours from both ensembles once a link is gone, as far as they are reached.
    async fn leave(&self, definition: &Definition) {
        let remove = async {
            // Its driver ends first, and would make them again.
            tokio::time::sleep(RETRY).await;
            while let Err(error) = migrate::clean_up(definition).await {
                tracing::info!(link = definition.id, error, "what a link has left is not removed yet");
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            done = tokio::time::timeout(LEAVING, remove) => if done.is_err() {
                tracing::warn!(link = definition.id, path = Reserved::of(&definition.id).root(), "what a link has left stays: an ensemble is not reached");
            },
            () = self.inner.stopping.cancelled() => {}
        }
        self.inner.metrics.forget(&definition.id);
        self.leaving().remove(&definition.id);
    }

    fn leaving(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.inner.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at both sides of a link that does not exist yet.
    ///
    /// # Errors
    /// When the definition makes no sense, or an ensemble does not answer.
    pub async fn plan(&self, definition: Definition) -> Result<Preparation, ServiceError> {
        let definition = self.inner.secrets.admit(definition)?;
        let config = definition.config()?;
        prepare::prepare(&definition, &config, &Known::default(), Trial::Nothing).await.map_err(ServiceError::Unavailable)
    }

    /// Compares both sides now.
    ///
    /// # Errors
    /// When there is no such link, or an ensemble does not answer.
    pub async fn verify(&self, id: &str) -> Result<VerificationReport, ServiceError> {
        let definition = self.running(id)?.definition();
        let config = definition.config()?;
        let clients = verify::connect(&definition).await.map_err(ServiceError::Unavailable)?;
        let known = self.running(id)?.known;
        let report =
            verify::verify(id, &config, &clients, false, &known).await.map_err(|error| ServiceError::Unavailable(error.to_string()))?;
        self.inner.metrics.verified(id, &report);
        let (service, id) = (self.clone(), id.to_owned());
        let kept = tokio::task::spawn_blocking(move || service.inner.store.put(REPORTS, &id, Some(&report)).map(|()| report));
        Ok(kept.await.map_err(|error| ServiceError::Unavailable(error.to_string()))??)
    }

    /// The newest comparison, if there is one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn report(&self, id: &str) -> Result<Option<VerificationReport>, ServiceError> {
        Ok(self.inner.store.documents(REPORTS)?.remove(id))
    }

    /// Begins a migration over a link.
    ///
    /// # Errors
    /// When there is no such link, or a migration of it is under way.
    pub fn migrate(&self, plan: Plan) -> Result<(), ServiceError> {
        self.has_begun()?;
        let plan = self.inner.secrets.admit_plan(plan)?;
        let running = self.running(&plan.link)?;
        let handle = self.handle(&plan.link)?;
        if running.definition().mode == Mode::BToA {
            return Err(ServiceError::Conflict("a migration goes from A to B, and the link takes from B".to_owned()));
        }
        let under_way = running.migration.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let last = under_way.map(|migration| migration.view());
        if last.as_ref().is_some_and(|last| !last.migration.phase.is_over()) {
            return Err(ServiceError::Conflict(format!("a migration of the link {} is under way", plan.link)));
        }
        let migration = match last {
            Some(last) => last.migration.followed_by(plan.clone(), now()),
            None => Migration::new(plan.clone(), now()),
        };
        self.inner.store.put(MIGRATIONS, &plan.link, Some(&migration))?;
        self.drive(&running, Some(handle), migration)?;
        Ok(())
    }

    /// The migration of a link, as far as it is known here.
    ///
    /// # Errors
    /// When there is none.
    pub fn migration(&self, id: &str) -> Result<MigrationHandle, ServiceError> {
        let running = self.running(id)?;
        let migration = running.migration.lock().unwrap_or_else(PoisonError::into_inner).clone();
        migration.ok_or_else(|| ServiceError::Missing(format!("there is no migration of the link {id:?}")))
    }

    /// Who is connected to a side of a link right now.
    ///
    /// # Errors
    /// When there is no such link, or nobody can tell.
    pub async fn holders(&self, id: &str, side: Side) -> Result<Vec<crate::witness::Holder>, ServiceError> {
        let running = self.running(id)?;
        let context = self.context(&running, Some(self.handle(id)?))?;
        migrate::holders_of(&context, side).await.map_err(ServiceError::Unavailable)
    }

    fn context(&self, running: &Running, link: Option<LinkHandle>) -> Result<Context, ServiceError> {
        Ok(Context {
            definition: Definition::clone(&running.definition()),
            config: running.definition().config()?,
            link,
            service: self.clone(),
            store: self.inner.store.clone(),
            metrics: self.inner.metrics.clone(),
            witness: self.inner.witness.clone(),
            known: running.known.clone(),
            frozen: migrate::Frozen::default(),
            members: migrate::Members::default(),
        })
    }

    fn drive(&self, running: &Running, link: Option<LinkHandle>, migration: Migration) -> Result<(), ServiceError> {
        let context = self.context(running, link)?;
        let (handle, run) = migrate::start(context, migration);
        *running.migration.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        let (stop, id) = (running.stop.clone(), running.definition().id.clone());
        let run = async move {
            tokio::select! {
                ended = run => if let Err(error) = ended {
                    tracing::error!(link = id, %error, "the migration cannot go on");
                },
                () = stop.cancelled() => {}
            }
        };
        (self.inner.spawn)("zksync_migration", Box::pin(run));
        Ok(())
    }

    fn run(&self, definition: Definition) {
        let (tell, role) = watch::channel(Role::Waiting("it is being looked for who leads".to_owned()));
        let running = Running {
            written: watch::Sender::new(Arc::new(definition)),
            stop: self.inner.stopping.child_token(),
            role,
            migration: Arc::default(),
            known: Known::default(),
        };
        self.links().insert(running.definition().id.clone(), running.clone());
        let service = self.clone();
        let stop = running.stop.clone();
        let run = async move {
            tokio::select! { () = service.lead(running, tell) => {}, () = stop.cancelled() => {} }
        };
        (self.inner.spawn)("zksync_link", Box::pin(run));
    }
}

/// What two links both write to or take from, if there is such a subtree: each would take the other's writes for those of a client, in circles.
fn shared(new: &Definition, other: &Definition) -> Option<String> {
    let (config, others) = (new.config().ok()?, other.config().ok()?);
    for side in Side::BOTH {
        for its in Side::BOTH {
            let (mine, theirs) = (Options::new(&new.ensemble(side).connect), Options::new(&other.ensemble(its).connect));
            let servers = theirs.servers();
            let Some(server) = mine.servers().into_iter().find(|server| servers.contains(server)) else { continue };
            let whole = |chroot: &str, root: &str| match format!("{chroot}{root}").trim_end_matches('/') {
                "" => "/".to_owned(),
                path => path.to_owned(),
            };
            for root in config.mapping.roots(side) {
                let root = whole(mine.chroot(), root);
                let overlaps = |theirs_root: &str| zksync::is_below(&root, theirs_root) || zksync::is_below(theirs_root, &root);
                if others.mapping.roots(its).any(|it| overlaps(&whole(theirs.chroot(), it))) {
                    return Some(format!("the link {:?} already pairs {root} of {server}, or a part of it", other.id));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use zksync::Rule;

    use super::*;

    #[test]
    fn two_links_never_share_a_subtree_of_an_ensemble() {
        let link = |a: &str, b: &str, roots: &[(&str, &str)]| {
            let rule = |(a, b): &(&str, &str)| Rule { a: (*a).to_owned(), b: (*b).to_owned(), include: Vec::new(), exclude: Vec::new() };
            Definition { mappings: roots.iter().map(rule).collect(), ..Definition::between("x", a, b) }
        };
        let app = link("h1:1,h2:1", "n1:1", &[("/app", "/new/app")]);
        for (other, is_shared) in [
            (link("h2:1", "n9:1", &[("/app/x", "/x")]), true),
            (link("h2:1", "n9:1", &[]), true),
            (link("n1:1", "n9:1", &[("/new", "/new")]), true),
            (link("h1:1/app", "n9:1", &[("/x", "/y")]), true),
            (link("h2:1", "n9:1", &[("/app2", "/app")]), false),
            (link("h3:1", "n9:1", &[("/app", "/app")]), false),
            (link("n1:1", "n9:1", &[("/app", "/app")]), false),
        ] {
            assert_eq!(shared(&other, &app).is_some(), is_shared, "{:?} {:?}", other.a.connect, other.mappings);
            assert_eq!(shared(&app, &other).is_some(), is_shared);
        }
    }
}
