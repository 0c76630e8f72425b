//! Which of several collectors of one cluster reports: the one that holds a lease of the Kubernetes API (`coordination.k8s.io`), by the same
//! rules as Kubernetes' own controllers, so that two that were started by mistake, or during a roll-out, do not both speak.
//!
//! Whoever holds it renews it every [`RETRY`]; whoever does not may take it when it was not renewed for [`DURATION`], by the own clock and
//! as far as seen with the own eyes. So a wall clock that jumps gives the lease to nobody. A holder that could not renew for [`GIVE_UP`] does not
//! hold it any more, which is before another may take it. When the API is down, that is so for everybody: who reported then has nothing to say,
//! but need not take back what it has said.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::backoff::jitter;
use crate::client::{self, Access, Patience};
use crate::collector::StartError;
use crate::lease::election::{Election, Move, Seen};
use crate::watch::{innermost, refusal};

mod election;

/// A lease that was not renewed for this long is free.
pub const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long gives up.
pub const GIVE_UP: Duration = Duration::from_secs(10);
/// How often it is renewed, or looked at by those who wait.
pub const RETRY: Duration = Duration::from_secs(2);
/// How long one request may take.
const ANSWER: Duration = Duration::from_secs(5);

/// The lease, as seen by one who would hold it.
#[derive(Debug)]
pub struct Lease {
    way: Way,
    api: Api<Object>,
    namespace: String,
    place: String,
    name: String,
    election: Election,
    /// The last failure, so that each is said once.
    complaint: Option<String>,
}

/// How the API is found, and found again with keys that are new.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) access: Access,
    pub(crate) patience: Patience,
    pub(crate) message_bytes: usize,
}

impl Lease {
    pub(crate) fn new(client: kube::Client, way: Way, namespace: &str, name: &str, holder: &str) -> Self {
        Self {
            way,
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            place: format!("{namespace}/{name}"),
            name: name.to_owned(),
            election: Election::new(holder),
            complaint: None,
        }
    }

    /// Namespace and name, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Who holds it, as far as was seen; empty for nobody.
    pub fn holder(&self) -> &str {
        self.election.holder()
    }

    /// Waits until the lease is ours. It may be dropped while it waits. `waits` is told after each look whether it waits because another has the
    /// lease, and not because the lease cannot be read or written.
    pub async fn acquire(&mut self, mut waits: impl FnMut(bool)) {
        let mut said = String::new();
        loop {
            let wait = self.attempt().await;
            if self.election.is_holding(Instant::now()) {
                return;
            }
            let waits_for_another = self.complaint.is_none() && !self.holder().is_empty();
            if waits_for_another && said != self.holder() {
                said = self.holder().to_owned();
                tracing::info!(lease = self.place, holder = said, "another collector reports; this one waits");
            }
            waits(waits_for_another);
            tokio::time::sleep(wait).await;
        }
    }

    /// Renews the lease, again and again, and returns when another is seen to hold it. `holding` says meanwhile whether it is certainly ours: not
    /// so while it cannot be renewed.
    pub async fn keep(&mut self, holding: &watch::Sender<bool>) {
        while self.is_anybodys() {
            tokio::time::sleep(RETRY).await;
            // A request that hangs must not outlast the lease.
            let until = self.election.holding_until().filter(|until| *until > Instant::now());
            match until {
                Some(until) => drop(timeout_at(until, self.attempt()).await),
                None => drop(self.attempt().await),
            }
            holding.send_replace(self.election.is_holding(Instant::now()));
        }
    }

    /// Whether no other was seen to hold it.
    fn is_anybodys(&self) -> bool {
        self.holder().is_empty() || self.holder() == self.election.name()
    }

    /// Gives the lease back, so that the next one need not wait.
    pub async fn release(&mut self) {
        if !self.election.is_holding(Instant::now()) {
            return;
        }
        // When nobody can be told, the lease runs out.
        if let Ok(Ok(Some(mut lease))) = timeout(ANSWER, self.look()).await
            && self.election.is_own(&seen(&lease))
        {
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            drop(timeout(ANSWER, self.api.replace(&self.name, &PostParams::default(), &lease)).await);
        }
        self.election.given_back();
    }

    /// Looks at the lease and does what is to be done. How long to wait before the next look.
    async fn attempt(&mut self) -> Duration {
        let begun = Instant::now();
        match timeout(ANSWER, self.step(begun)).await {
            Ok(Ok(())) => self.complaint = None,
            Ok(Err(error)) => {
                let mut complaint = innermost(&error);
                if refusal(&error).is_some_and(|refusal| refusal.status == StatusCode::UNAUTHORIZED)
                    && let Err(error) = self.renew().await
                {
                    complaint = format!("{complaint}, and the keys cannot be read again: {}", innermost(&error));
                }
                self.complain(complaint);
            }
            Err(_) => self.complain(format!("no answer within {ANSWER:?}")),
        }
        RETRY.mul_f64(1.0 + jitter() / 5.0)
    }

    /// Keys, tokens and certificates are read once more: the server has not known who asks, and there may be new ones.
    async fn renew(&mut self) -> Result<(), StartError> {
        let Way { access, patience, message_bytes } = &self.way;
        let (client, _) = client::connect(access, *patience, *message_bytes).await?;
        self.api = Api::namespaced(client, &self.namespace);
        Ok(())
    }

    async fn step(&mut self, begun: Instant) -> Result<(), kube::Error> {
        let lease = self.look().await?;
        let written = match (self.election.look(Instant::now(), lease.as_ref().map(seen)), lease) {
            (Move::Wait, _) => return Ok(()),
            (Move::Take, None) => self.api.create(&PostParams::default(), &self.claimed(Object::default(), true)).await,
            (next, lease) => {
                let claimed = self.claimed(lease.unwrap_or_default(), next == Move::Take);
                self.api.replace(&self.name, &PostParams::default(), &claimed).await
            }
        };
        match written {
            Ok(lease) => {
                self.election.wrote(begun, seen(&lease));
                Ok(())
            }
            // Somebody was faster.
            Err(error) if refusal(&error).is_some_and(|refusal| refusal.status == StatusCode::CONFLICT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn look(&self) -> Result<Option<Object>, kube::Error> {
        match self.api.get(&self.name).await {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if refusal(&error).is_some_and(|refusal| refusal.status == StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The lease with our name on it.
    fn claimed(&self, lease: Object, anew: bool) -> Object {
        let now = MicroTime(Timestamp::now());
        let old = lease.spec.unwrap_or_default();
        let transitions = old.lease_transitions.unwrap_or(0);
        let is_first = old.holder_identity.is_none();
        let spec = LeaseSpec {
            holder_identity: Some(self.election.name().to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if anew { Some(now.clone()) } else { old.acquire_time },
            renew_time: Some(now),
            lease_transitions: Some(if anew && !is_first { transitions.saturating_add(1) } else { transitions }),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..lease.metadata };
        Object { metadata, spec: Some(spec) }
    }

    fn complain(&mut self, error: String) {
        if self.complaint.as_ref() != Some(&error) {
            tracing::warn!(lease = self.place, error, "cannot use the lease by which collectors agree on who reports");
        }
        self.complaint = Some(error);
    }
}

fn seen(lease: &Object) -> Seen {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    Seen {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        // Another program's idea of a lease; within reason, so that nobody holds it for ever.
        duration: seconds.map_or(DURATION, Duration::from_secs).min(Duration::from_secs(600)),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
