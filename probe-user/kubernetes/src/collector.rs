//! The way of the API's news to the [`Cluster`]: every kind followed, and followed anew when the server no longer knows who asks.

use std::sync::Arc;

use futures::StreamExt;
use tokio::time::Instant;

use crate::backoff::{self, Backoff};
use crate::client::{self, Access, Patience};
use crate::cluster::Cluster;
use crate::controls::Hands;
use crate::index::Limits;
use crate::lease::{Lease, Way};
use crate::watch::{Cause, Failure, Scope, Step, Steps, follow_all};

/// Namespaces that can be named, at most: each has its own lists and watches.
pub const NAMESPACES_MAX: usize = 64;

/// How to collect.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectorConfig {
    /// Where the API is.
    pub access: Access,
    /// The only namespaces that are looked at, at most [`NAMESPACES_MAX`]; none for all of them, by one watch per kind.
    pub namespaces: Vec<Arc<str>>,
    /// What may be held.
    pub limits: Limits,
    /// Objects in one page of a list.
    pub page_size: u32,
    /// Longest page or event that is read, in bytes.
    pub message_bytes: usize,
    /// How long to wait for what.
    pub patience: Patience,
}

impl Default for CollectorConfig {
    fn default() -> Self {
        Self {
            access: Access::default(),
            namespaces: Vec::new(),
            limits: Limits::default(),
            page_size: 500,
            message_bytes: 64 << 20,
            patience: Patience::default(),
        }
    }
}

/// Why there is no collector.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither a kubeconfig nor a service account.
    #[error("no way to the Kubernetes API was found")]
    Infer(#[from] kube::config::InferConfigError),
    /// Not a pod of a cluster, or one without a service account.
    #[error("no service account for the Kubernetes API")]
    InCluster(#[from] kube::config::InClusterError),
    /// The kubeconfig cannot be used.
    #[error("unusable kubeconfig")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The address is none.
    #[error("no address of a Kubernetes API: {0:?}")]
    Url(String),
    /// Keys or certificates cannot be used.
    #[error("no client for the Kubernetes API")]
    Client(#[from] kube::Error),
}

/// Follows every kind of one cluster.
pub struct Collector {
    config: CollectorConfig,
    client: kube::Client,
    scopes: Vec<Scope>,
    steps: Steps,
    /// When to read keys and certificates again: the server has not known who asks.
    renew_at: Option<Instant>,
    renewals: Backoff,
}

impl Collector {
    /// Finds the way to the API. Whether it answers is another matter. Nothing is asked before [`Self::next`].
    ///
    /// Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// When there is no way, or keys or certificates cannot be used.
    pub async fn connect(config: CollectorConfig) -> Result<(Self, Cluster), StartError> {
        let cluster = Cluster::new(config.limits, &config.namespaces);
        let scopes = cluster.scopes();
        let (client, paces) = client::connect(&config.access, config.patience, config.message_bytes).await?;
        let steps = follow_all(&scopes, &client, &paces, config.page_size, config.patience);
        let renewals = Backoff::new(config.patience.backoff_min, config.patience.backoff_max);
        Ok((Self { config, client, scopes, steps, renew_at: None, renewals }, cluster))
    }

    /// The lease by which the collectors of one cluster agree on who reports; `namespace` is by default the one that we are in.
    pub fn lease(&self, namespace: Option<&str>, name: &str, holder: &str) -> Lease {
        let namespace = namespace.unwrap_or(self.client.default_namespace()).to_owned();
        let CollectorConfig { access, patience, message_bytes, .. } = &self.config;
        let way = Way { access: access.clone(), patience: *patience, message_bytes: *message_bytes };
        Lease::new(self.client.clone(), way, &namespace, name, holder)
    }

    /// Changes objects of the cluster. To be had anew for every change: keys may have been renewed.
    pub fn hands(&self) -> Hands {
        Hands::new(self.client.clone())
    }

    /// Waits for what happens next. It may be dropped while it waits.
    pub async fn next(&mut self) -> (Scope, Step) {
        loop {
            let renewal = async {
                match self.renew_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((scope, step)) = self.steps.next() => {
                    if let Step::Failed(Failure { cause: Cause::Unauthorized, .. }) = &step {
                        let now = Instant::now();
                        self.renew_at.get_or_insert_with(|| now + self.renewals.failed(now, backoff::jitter()));
                    }
                    return (scope, step);
                }
                () = renewal => self.renew().await,
                else => std::future::pending().await,
            }
        }
    }

    /// Keys, tokens and certificates are read once more, and every kind is listed anew with them; what is known stays until then.
    async fn renew(&mut self) {
        match client::connect(&self.config.access, self.config.patience, self.config.message_bytes).await {
            Ok((client, paces)) => {
                self.steps = follow_all(&self.scopes, &client, &paces, self.config.page_size, self.config.patience);
                self.client = client;
            }
            Err(error) => tracing::warn!(error = %crate::watch::innermost(&error), "cannot read the keys to the Kubernetes API again"),
        }
        self.renew_at = None;
    }
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("config", &self.config).finish_non_exhaustive()
    }
}
