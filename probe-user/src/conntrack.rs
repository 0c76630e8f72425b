//! Where address translation takes connections: the kernel's connection tracking, asked once and then listened to.
//!
//! Docker's published ports, Kubernetes' service addresses and the masquerading of containers are translations in the host's network
//! namespace. A client's socket knows the address that it asked for, a server's socket the one that it was reached at; only the kernel's
//! table of tracked connections knows that they belong together.
//!
//! While somebody listens, the kernel makes a message of every new connection. It hands on those of translated ones alone, so a node without
//! translation never wakes the probe; and where nothing is tracked, nothing is listened to.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::conntrack::message::{Entry, Malformed, Message};
use crate::conntrack::socket::{Events, Questions};
use crate::driver::Input;
use crate::observation::{Observation, Translated};
use crate::procfs::Procfs;
use crate::telemetry::Telemetry;

pub mod message;
pub mod socket;
pub mod table;

/// The part of the losses that is told here.
const CAUSE: &str = "conntrack";

/// How the edge works.
#[derive(Clone, Debug)]
pub struct Config {
    /// File of the network namespace that translates; `None` for the one where the probe runs.
    pub namespace: Option<PathBuf>,
    /// Events that the kernel keeps for the probe while it does not read, in bytes.
    pub receive_bytes: usize,
    /// How often it is looked whether connections are tracked, as long as none is; and how long after a look at the whole table the next may
    /// follow.
    pub look_interval: Duration,
    /// How often it is tried again where connection tracking cannot be asked.
    pub retry_interval: Duration,
    /// Events are gathered for this long before they are read: one reading for many events.
    pub gather: Duration,
    /// How often it is looked whether the kernel balances load itself: then all connections have to be listened to.
    pub balance_interval: Duration,
}

impl Config {
    /// For the network namespace of the host. Where it cannot be told which that is, for the probe's own.
    pub fn of_host(procfs: &Procfs) -> Self {
        let host = crate::host::namespace::host_process(procfs.root()).join("ns/net");
        let foreign = match (std::fs::read_link(&host), std::fs::read_link("/proc/self/ns/net")) {
            (Ok(host), Ok(own)) => host != own,
            (Err(error), _) | (_, Err(error)) => {
                tracing::info!(%error, "the host's network namespace cannot be told: connection tracking of the probe's own is followed");
                false
            }
        };
        Config {
            namespace: foreign.then_some(host),
            // At 100,000 events a second of about 1 KiB each, as the kernel counts them, for a tenth of a second; the kernel doubles it.
            receive_bytes: 8 * 1024 * 1024,
            look_interval: Duration::from_secs(5),
            retry_interval: Duration::from_secs(300),
            gather: Duration::from_millis(20),
            balance_interval: Duration::from_secs(60),
        }
    }
}

/// Observations that are told at once.
const BATCH_MAX: usize = 512;

/// Datagrams that are read before something else may run.
const READ_MAX: usize = 8_192;

/// Tells translations until `stopping` is cancelled. Ends by itself when the kernel cannot be listened to; then it is started again.
pub async fn run(
    config: Config,
    telemetry: Telemetry,
    observations: mpsc::Sender<Vec<Observation>>,
    inputs: mpsc::Sender<Input>,
    stopping: CancellationToken,
) {
    let followed = async {
        let (questions, events) = find(&config, &inputs).await?;
        tracing::info!(namespace = ?config.namespace, "connections are tracked here: address translation is followed");
        Follower::new(config, telemetry, observations, questions).follow(events).await
    };
    tokio::select! {
        _ = followed => {}
        () = stopping.cancelled() => {}
    }
}

/// Tells that nobody is to look, until `stopping` is cancelled.
pub async fn leave(inputs: mpsc::Sender<Input>, stopping: CancellationToken) {
    let sentence = "Where address translation takes connections is not looked at (--no-conntrack).".to_owned();
    let mut told = None;
    if tell_blind_spot(&inputs, &mut told, Some(sentence)).await.is_some() {
        stopping.cancelled().await;
        // Without a driver nobody has to know.
        let _ = tell_blind_spot(&inputs, &mut told, None).await;
    }
}

/// Waits for connections to be tracked. `None` when nobody listens.
async fn find(config: &Config, inputs: &mpsc::Sender<Input>) -> Option<(Questions, AsyncFd<Events>)> {
    let mut told = None;
    loop {
        let (pause, blind_spot) = match open(config).await {
            Ok(Some((questions, events))) => {
                tell_blind_spot(inputs, &mut told, None).await?;
                return Some((questions, events));
            }
            Ok(None) => (config.look_interval, None),
            Err(error) => {
                let sentence =
                    format!("Where address translation takes connections is not seen: connection tracking cannot be asked ({error}).");
                (config.retry_interval, Some(sentence))
            }
        };
        tell_blind_spot(inputs, &mut told, blind_spot).await?;
        tokio::time::sleep(pause).await;
    }
}

/// Opens both sockets, if connections are tracked.
async fn open(config: &Config) -> io::Result<Option<(Questions, AsyncFd<Events>)>> {
    let (namespace, receive_bytes) = (config.namespace.clone(), config.receive_bytes);
    let opened =
        tokio::task::spawn_blocking(move || socket::open(namespace.as_deref(), receive_bytes)).await.map_err(io::Error::other)??;
    opened.map(|(questions, events)| Ok((questions, events.wakeable()?))).transpose()
}

/// Tells what cannot be seen, if that has changed. `None` when nobody listens.
async fn tell_blind_spot(inputs: &mpsc::Sender<Input>, told: &mut Option<String>, sentence: Option<String>) -> Option<()> {
    if *told != sentence {
        tracing::debug!(sentence, "what is seen of address translation has changed");
        *told = sentence.clone();
        inputs.send(Input::BlindSpot { cause: CAUSE, sentence }).await.ok()?;
    }
    Some(())
}

/// Follows the events, and looks at the whole table when some were lost.
struct Follower {
    config: Config,
    telemetry: Telemetry,
    observations: mpsc::Sender<Vec<Observation>>,
    questions: Arc<Questions>,
    /// Overruns and messages that were not understood.
    lost: u64,
    /// Events may tell what a look tells as well.
    looking: bool,
    /// When the table is to be looked at.
    look_at: Option<Instant>,
}

impl Follower {
    fn new(config: Config, telemetry: Telemetry, observations: mpsc::Sender<Vec<Observation>>, questions: Questions) -> Self {
        // What was there before the first event.
        let look_at = Some(Instant::now());
        Follower { config, telemetry, observations, questions: Arc::new(questions), lost: 0, looking: true, look_at }
    }

    /// Runs until nobody listens.
    async fn follow(mut self, mut events: AsyncFd<Events>) -> Option<()> {
        let mut look: Option<JoinHandle<io::Result<()>>> = None;
        let mut balance_at = Instant::now() + self.config.balance_interval;
        loop {
            let due = self.look_at.filter(|_| look.is_none());
            tokio::select! {
                // A look that is over is noticed before anything else: what began since then is counted without doubt.
                biased;
                looked = maybe(&mut look) => {
                    look = None;
                    self.look_at = self.look_at.map(|_| Instant::now() + self.config.look_interval);
                    match looked {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::warn!(%error, "translated connections cannot be listed"),
                        Err(error) => tracing::error!(%error, "listing translated connections failed"),
                    }
                    // Events that were sent while the table was looked at; those that come later are of connections that are new.
                    self.looking = !self.read(events.get_mut()).await?;
                    continue;
                }
                () = tokio::time::sleep_until(balance_at.into()) => {
                    balance_at = Instant::now() + self.config.balance_interval;
                    if self.balances_since().await {
                        tracing::info!("the kernel balances load itself now (IPVS), or no longer: connections are listened to anew");
                        return None;
                    }
                    continue;
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    self.look_at = None;
                    self.looking = true;
                    look = Some(self.look());
                    continue;
                }
                ready = events.readable_mut() => {
                    let mut ready = ready.ok()?;
                    if self.read(ready.get_inner_mut()).await? {
                        ready.clear_ready();
                    }
                }
            }
            self.looking = self.looking && (look.is_some() || self.look_at.is_some());
            tokio::time::sleep(self.config.gather).await;
        }
    }

    /// Whether it has changed since the sockets were opened that the kernel balances load.
    async fn balances_since(&self) -> bool {
        let namespace = self.config.namespace.clone();
        let balances = tokio::task::spawn_blocking(move || socket::balances(namespace.as_deref())).await;
        matches!(balances, Ok(Ok(balances)) if balances != self.questions.unmarked)
    }

    /// Reads what is there. Whether that was everything; `None` when nobody listens.
    async fn read(&mut self, events: &mut Events) -> Option<bool> {
        let mut batch = Vec::new();
        let mut complete = false;
        for _ in 0..READ_MAX {
            match events.read() {
                Ok(datagram) => {
                    self.telemetry.metrics().conntrack_events.inc();
                    for message in message::parse(datagram) {
                        batch.extend(self.observation(message));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    complete = true;
                    break;
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.telemetry.metrics().conntrack_overruns.inc();
                    batch.push(self.lose());
                    self.look_at = self.look_at.or_else(|| Some(Instant::now() + self.config.look_interval));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "connection tracking cannot be listened to any more");
                    return None;
                }
            }
            if batch.len() >= BATCH_MAX {
                self.observations.send(std::mem::take(&mut batch)).await.ok()?;
            }
        }
        if !batch.is_empty() {
            self.observations.send(batch).await.ok()?;
        }
        Some(complete)
    }

    fn observation(&mut self, message: Result<Message, Malformed>) -> Option<Observation> {
        match message {
            Ok(Message::Entry(entry)) if entry.is_translated() => {
                Some(Observation::Translated(translated(&entry, self.questions.network_namespace, self.looking)))
            }
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "a message of connection tracking is not understood");
                Some(self.lose())
            }
        }
    }

    fn lose(&mut self) -> Observation {
        self.lost += 1;
        Observation::LostOther { cause: CAUSE, total: self.lost }
    }

    /// Tells every translated connection that there is. Blocks on a thread of its own.
    fn look(&self) -> JoinHandle<io::Result<()>> {
        let (questions, observations) = (self.questions.clone(), self.observations.clone());
        tokio::task::spawn_blocking(move || {
            let mut batch = Vec::new();
            questions.dump(|entry| {
                batch.push(Observation::Translated(translated(&entry, questions.network_namespace, true)));
                batch.len() < BATCH_MAX || observations.blocking_send(std::mem::take(&mut batch)).is_ok()
            })?;
            if !batch.is_empty() {
                // If nobody listens, nobody misses it.
                drop(observations.blocking_send(batch));
            }
            Ok(())
        })
    }
}

/// The result of a look, if one is on its way; else never.
async fn maybe<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// The entry in the words of the middle: an answer comes from where the connection really went, and goes to the client as the server sees it.
fn translated(entry: &Entry, network_namespace: u64, perhaps_told: bool) -> Translated {
    Translated {
        id: entry.id,
        zone: entry.zone,
        network_namespace,
        protocol: entry.protocol,
        client: entry.original.source,
        server: entry.original.destination,
        translated_client: entry.reply.destination,
        translated_server: entry.reply.source,
        perhaps_told,
    }
}

#[cfg(test)]
mod tests;
