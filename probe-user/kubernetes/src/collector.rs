//! The collector: every kind followed, the index kept, the receiver told.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use proto::probe::v1::KubernetesObject;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::client::{self, Access, Patience};
use crate::index::{Index, Limits};
use crate::kind::Kind;
use crate::status::{KindState, KindStatus, Status, StatusReport};
use crate::watch::{Cause, Failure, Step, follow_all};

/// How to collect.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectorConfig {
    /// Where the API is.
    pub access: Access,
    /// What may be held.
    pub limits: Limits,
    /// Objects and removals in one batch, at most.
    pub batch_objects: usize,
    /// Objects in one page of a list.
    pub page_size: u32,
    /// Longest page or event that is read, in bytes.
    pub message_bytes: usize,
    /// While events pour in, how long the first of a batch may wait for others. When none pours in, it does not wait.
    pub gather: Duration,
    /// How long to wait for what.
    pub patience: Patience,
}

impl Default for CollectorConfig {
    fn default() -> Self {
        Self {
            access: Access::default(),
            limits: Limits::default(),
            batch_objects: 500,
            page_size: 500,
            message_bytes: 64 << 20,
            gather: Duration::from_millis(50),
            patience: Patience::default(),
        }
    }
}

/// What is new. No id is in both lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// New and changed objects, whole.
    pub changed: Vec<KubernetesObject>,
    /// Uids of objects that are gone.
    pub gone: Vec<String>,
    /// With this batch the receiver has everything that the collector knows, and that is all of every kind which may be read. Until the
    /// first of these, what is missing is not gone.
    pub synced: bool,
}

/// Why there is no collector.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither a kubeconfig nor a service account.
    #[error("no way to the Kubernetes API was found: {0}")]
    Infer(#[from] kube::config::InferConfigError),
    /// Not a pod of a cluster, or one without a service account.
    #[error("no service account for the Kubernetes API: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    /// The kubeconfig cannot be used.
    #[error("unusable kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The address is none.
    #[error("no address of a Kubernetes API: {0:?}")]
    Url(String),
    /// Keys or certificates cannot be used.
    #[error("no client for the Kubernetes API: {0}")]
    Client(#[from] kube::Error),
}

/// Keeps what is known of one cluster, and tells it. [`Collector::run`] is its life.
pub struct Collector {
    config: CollectorConfig,
    steps: SelectAll<BoxStream<'static, (Kind, Step)>>,
    index: Index,
    batches: mpsc::Sender<Batch>,
    report: StatusReport,
    status: watch::Sender<StatusReport>,
    told_synced: bool,
    /// Since when there is something to tell.
    news_since: Option<Instant>,
}

impl Collector {
    /// Finds the way to the API. Whether it answers is another matter: the status tells. Nothing is asked before [`Self::run`].
    ///
    /// Has to be called within a tokio runtime.
    pub async fn start(config: CollectorConfig) -> Result<(Self, mpsc::Receiver<Batch>, Status), StartError> {
        let (client, paces) = client::connect(&config.access, config.patience, config.message_bytes).await?;
        let (batches, receiver) = mpsc::channel(1);
        let (status, handle) = Status::new();
        let collector = Self {
            steps: follow_all(&client, &paces, config.page_size, config.patience),
            index: Index::new(config.limits),
            batches,
            report: handle.report(),
            status,
            told_synced: false,
            news_since: None,
            config,
        };
        Ok((collector, receiver, handle))
    }

    /// Collects until the receiver is dropped. Dropping the future ends it at any time.
    pub async fn run(mut self) {
        let batches = self.batches.clone();
        loop {
            let news = self.has_news();
            let overdue = self.news_since.is_some_and(|since| since.elapsed() >= self.config.gather);
            tokio::select! {
                biased;
                () = batches.closed() => return,
                Ok(permit) = batches.reserve(), if news && overdue => permit.send(self.take_batch()),
                Some((kind, step)) = self.steps.next() => self.on_step(kind, step),
                Ok(permit) = batches.reserve(), if news => permit.send(self.take_batch()),
                else => return,
            }
        }
    }

    fn has_news(&self) -> bool {
        self.index.has_changes() || (self.report.synced && !self.told_synced)
    }

    fn take_batch(&mut self) -> Batch {
        let changes = self.index.take_changes(self.config.batch_objects.max(1));
        let synced = self.report.synced && !self.index.has_changes();
        self.told_synced = synced;
        self.report.batches += 1;
        self.news_since = self.has_news().then(Instant::now);
        self.publish();
        Batch { changed: changes.changed, gone: changes.gone, synced }
    }

    fn on_step(&mut self, kind: Kind, step: Step) {
        match step {
            Step::Applied(facts) => {
                self.index.apply(*facts);
                self.count(kind);
            }
            Step::Deleted(uid) => {
                self.index.delete(kind, &uid);
                self.count(kind);
            }
            Step::ListBegun => self.index.begin_list(kind),
            Step::Watched => self.on_watched(kind),
            Step::Listed => {
                self.index.end_list(kind);
                self.on_listed(kind);
            }
            Step::Failed(failure) => self.on_failure(kind, failure),
        }
        if self.news_since.is_none() && self.has_news() {
            self.news_since = Some(Instant::now());
        }
    }

    fn on_listed(&mut self, kind: Kind) {
        let status = self.report.kinds.entry(kind).or_default();
        status.restarts += u64::from(status.synced);
        status.synced = true;
        self.settle();
    }

    fn on_watched(&mut self, kind: Kind) {
        let status = self.report.kinds.entry(kind).or_default();
        if matches!(status.state, KindState::Retrying | KindState::Forbidden | KindState::Absent) {
            tracing::info!(kind = kind.plural(), "Kubernetes objects can be read again");
        }
        status.state = KindState::Watching;
        self.publish();
    }

    fn on_failure(&mut self, kind: Kind, failure: Failure) {
        let status = self.report.kinds.entry(kind).or_default();
        let state = match failure.cause {
            Cause::Forbidden => KindState::Forbidden,
            Cause::Absent => KindState::Absent,
            // Normal after a while without events.
            Cause::Expired => KindState::Listing,
            Cause::Unreadable | Cause::Other => KindState::Retrying,
        };
        // Said when it begins, not at every try.
        if state != status.state && state != KindState::Listing {
            tracing::warn!(kind = kind.plural(), error = %failure.message, "cannot read Kubernetes objects");
        } else {
            tracing::debug!(kind = kind.plural(), error = %failure.message, "cannot read Kubernetes objects");
        }
        status.state = state;
        status.errors += 1;
        status.last_error = Some(failure.message);
        self.settle();
    }

    /// The picture is whole when every kind was listed, but for those that nobody can list.
    fn settle(&mut self) {
        let settled = |status: &KindStatus| status.synced || matches!(status.state, KindState::Forbidden | KindState::Absent);
        self.report.synced = self.report.kinds.values().all(settled);
        self.publish();
    }

    fn publish(&mut self) {
        for (kind, status) in &mut self.report.kinds {
            count(&self.index, *kind, status);
        }
        self.report.pending = self.index.pending();
        self.status.send_replace(self.report.clone());
    }

    /// Keeps the numbers of the status current without waking whoever waits for a change of it: objects come by the thousand.
    fn count(&self, kind: Kind) {
        self.status.send_if_modified(|report| {
            report.pending = self.index.pending();
            count(&self.index, kind, report.kinds.entry(kind).or_default());
            false
        });
    }
}

fn count(index: &Index, kind: Kind, status: &mut KindStatus) {
    status.objects = index.len(kind);
    status.refused = index.refused(kind);
    status.cut = index.cut(kind);
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("config", &self.config).field("report", &self.report).finish_non_exhaustive()
    }
}
