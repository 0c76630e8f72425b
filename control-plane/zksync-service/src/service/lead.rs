//! Who leads a link, and what a leader begins with.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zk::{Candidate, Session, SessionState};
use zksync::{LinkState, Migration, Mode, Phase, Side};

use super::{FRESH, RETRY, Role, Running, Service, ServiceError};
use crate::definition::Definition;
use crate::link::registry::{self, Claim};
use crate::link::{self, LinkHandle, Reserved, above};
use crate::migrate::{self, MIGRATIONS};
use crate::store::StoreError;
use crate::{checkpoint, verify};

impl Service {
    /// Stands for election on B, leads when elected, and begins again when the lead is lost. That two never write at once does not rest on
    /// this but on the epochs.
    pub(super) async fn lead(self, running: Running, tell: watch::Sender<Role>) {
        let id = running.definition().id.clone();
        let parent = Reserved::of(&id).election();
        let waiting = |why: String| tell.send_replace(Role::Waiting(why));
        loop {
            let is_complete = match self.is_complete(&id) {
                Ok(is_complete) => is_complete,
                // One that is complete must not begin again because that could not be read.
                Err(error) => {
                    waiting(with_cause(&error));
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            if is_complete {
                // What is owed, and who asks what became of it.
                if running.migration.lock().unwrap_or_else(PoisonError::into_inner).is_none()
                    && let Err(error) = self.resume_migration(&running, None)
                {
                    tracing::error!(link = id, %error, "the migration cannot be taken up");
                }
                tell.send_replace(Role::Complete);
                return std::future::pending().await;
            }
            let options = match running.definition().b.options() {
                Ok(options) => options,
                Err(error) => {
                    waiting(error.to_string());
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let has_identity = options.has_identity();
            let session = Session::open(options);
            let client = tokio::select! {
                client = session.client() => client,
                () = tokio::time::sleep(Duration::from_secs(5)) => {
                    let told = async {
                        let mut state = session.state();
                        loop {
                            let why = match &*state.borrow_and_update() {
                                SessionState::Connecting(Some(why)) => format!(": {why}"),
                                _ => String::new(),
                            };
                            waiting(format!("B is not reached{why}"));
                            if state.changed().await.is_err() {
                                return std::future::pending::<()>().await;
                            }
                        }
                    };
                    tokio::select! { client = session.client() => client, () = told => session.client().await }
                }
            };
            let reserved = Reserved::of(&id);
            if let Err(error) = above::make_ours(&client, &reserved, &reserved.election(), has_identity).await {
                waiting(format!("making our own znodes on B, below {}: {error}", zksync::RESERVED));
                tokio::time::sleep(RETRY).await;
                continue;
            }
            let candidate = match Candidate::stand(&client, &parent, &self.inner.name).await {
                Ok(candidate) => candidate,
                Err(error) => {
                    waiting(format!("standing for election on B: {error}"));
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            if let Ok(Some(leader)) = Candidate::leader(&client, &parent).await
                && leader != self.inner.name
            {
                tell.send_replace(Role::Standby(leader));
            }
            let Ok(leadership) = candidate.elected().await else { continue };
            if let Err(why) = self.take_over(&running.definition(), &client).await {
                waiting(why);
                let _ = leadership.resign().await;
                tokio::time::sleep(RETRY).await;
                continue;
            }
            let stop = running.stop.child_token();
            let mut why = "it is being looked for who leads".to_owned();
            match self.start_link(&running, stop.clone()) {
                Ok((handle, run)) => {
                    running.known.listen_to(handle.acls());
                    tell.send_replace(Role::Leading(handle.clone()));
                    if let Err(error) = self.resume_migration(&running, Some(handle.clone())) {
                        tracing::error!(link = id, %error, "the migration cannot be taken up");
                    }
                    tokio::select! {
                        ended = run => {
                            if let Err(error) = ended {
                                why = with_cause(&error);
                                tracing::error!(link = id, error = why, "the link ends, and begins again");
                            }
                        }
                        // A cut connection is no lost lead yet: the epochs tell. Only when the session is over does another one lead.
                        () = session_over(&client) => tracing::info!(link = id, "the lead is lost"),
                        () = self.verify_again_and_again(&running, &handle) => {}
                        () = fenced(&handle) => tracing::warn!(link = id, "another leader has taken over"),
                    }
                    stop.cancel();
                }
                Err(error) => why = with_cause(&error),
            }
            waiting(why);
            let _ = leadership.resign().await;
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Compares both sides every so often, while nobody else does: a migration makes its own comparisons, but where it waits.
    async fn verify_again_and_again(&self, running: &Running, handle: &LinkHandle) {
        let definition = running.definition();
        if definition.verify_seconds == 0 {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(Duration::from_secs(definition.verify_seconds)).await;
            let migration = running.migration.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let phase = migration.map(|migration| migration.view().migration.phase);
            let quiet = phase.is_none_or(|phase| phase.is_over() || matches!(phase, Phase::CatchUp | Phase::Ready | Phase::Drain));
            if !quiet || !matches!(handle.status().state, LinkState::Live | LinkState::Degraded) {
                continue;
            }
            match self.verify(&definition.id).await {
                Ok(report) if report.found.equal => tracing::debug!(link = definition.id, nodes = report.found.nodes_a, "verified"),
                Ok(report) => tracing::warn!(link = definition.id, differing = report.found.differing, "both sides differ"),
                Err(error) => tracing::warn!(link = definition.id, %error, "both sides could not be compared"),
            }
        }
    }

    /// Before a link begins: it goes on from where the leader before has come to, or from nothing if it is new.
    async fn take_over(&self, definition: &Definition, b: &zk::Client) -> Result<(), String> {
        let (id, store) = (definition.id.clone(), self.inner.store.clone());
        let fresh = store.documents::<bool>(FRESH).map_err(|error| error.to_string())?.contains_key(&id);
        if fresh {
            let clients = verify::connect(definition).await?;
            let config = definition.config().map_err(|error| error.to_string())?;
            for side in Side::BOTH {
                let claimed = async {
                    let peer = registry::nonce(&clients[side.other()]).await?;
                    registry::is_held(&clients[side], &Claim::of(definition, &config, side, peer)).await
                };
                if claimed.await.map_err(|error| format!("{}: {error}", side.as_str().to_uppercase()))? {
                    return Err(registry::same_name(&definition.id, side));
                }
            }
            for side in Side::BOTH {
                migrate::remove_work(&clients[side], &id).await.map_err(|error| format!("{}: {error}", side.as_str().to_uppercase()))?;
            }
            let forgotten = tokio::task::spawn_blocking(move || store.forget(&id).and_then(|()| store.put::<bool>(FRESH, &id, None)));
            return forgotten.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string());
        }
        if definition.checkpoint {
            let identity = definition.b.options().map_err(|error| error.to_string())?.has_identity();
            let acl = if identity { zk::Acl::creator() } else { zk::Acl::open() };
            let recovered = checkpoint::recover(b, &id, &store, &acl).await?;
            tracing::info!(link = id, ?recovered, "takes over");
        }
        Ok(())
    }

    pub(super) fn is_complete(&self, id: &str) -> Result<bool, StoreError> {
        let migrations = self.inner.store.documents::<Migration>(MIGRATIONS)?;
        Ok(migrations.get(id).is_some_and(|migration| migration.phase == zksync::Phase::Complete))
    }

    fn start_link(
        &self,
        running: &Running,
        stop: CancellationToken,
    ) -> Result<(LinkHandle, BoxFuture<'static, Result<(), StoreError>>), link::StartError> {
        let mut definition = Definition::clone(&running.definition());
        // After a switch it is the new side that counts, whatever the link was made for.
        let migrations: BTreeMap<String, Migration> = self.inner.store.documents(MIGRATIONS)?;
        if migrations.get(&definition.id).is_some_and(|migration| migration.phase.is_after_switch()) {
            definition.mode = Mode::BToA;
        }
        let (handle, run) = link::start(&definition, self.inner.store.clone(), self.inner.metrics.clone(), self.inner.leader, stop)?;
        Ok((handle, Box::pin(run)))
    }

    fn resume_migration(&self, running: &Running, handle: Option<LinkHandle>) -> Result<(), ServiceError> {
        let mut migrations: BTreeMap<String, Migration> = self.inner.store.documents(MIGRATIONS)?;
        match migrations.remove(&running.definition().id) {
            Some(migration) => self.drive(running, handle, migration),
            None => Ok(()),
        }
    }
}

/// An error with what it comes from, such as a full disk.
fn with_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn session_over(client: &zk::Client) {
    while !client.is_over() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn fenced(handle: &LinkHandle) {
    let mut statuses = handle.statuses();
    while statuses.borrow_and_update().state != LinkState::Fenced {
        if statuses.changed().await.is_err() {
            return;
        }
    }
}
