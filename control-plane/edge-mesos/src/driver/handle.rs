//! How the edges talk to the loop. It owns the core; nobody else touches it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::Timestamp;
use master::{FromAgent, LinkId, Register, Reply, Snapshot, StreamId};
use mesos_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use v1::scheduler;

use super::Closed;
use super::outbox::{FrameworkOutbox, FrameworkStream, LinkOutbox, LinkStream};
use super::queues::Events;
use super::timer::Timer;
use crate::leadership::{Leader, Status};

/// A way to the master; cheap to clone. Every call waits while the inbox is full: that is the back-pressure on everybody.
#[derive(Clone, Debug)]
pub struct MasterHandle {
    inbox: mpsc::Sender<Message>,
    closings: mpsc::UnboundedSender<Closed>,
    status: watch::Receiver<Status>,
    gauges: Arc<Gauges>,
    info: Arc<v1::MasterInfo>,
    links: Arc<AtomicU64>,
}

/// The loop is gone: the process is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the master has stopped")]
pub struct Stopped;

/// The state of the master between two steps.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) snapshot: Snapshot,
    /// Equal for equal states.
    pub(crate) version: u64,
}

/// What an operator's event stream begins with, and what follows it without a gap.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) view: Arc<View>,
    pub(crate) events: Events,
}

/// What the inbox takes.
#[derive(Debug)]
pub(crate) enum Message {
    Subscribe { stream: StreamId, principal: Option<Arc<str>>, subscribe: Box<scheduler::call::Subscribe>, outbox: FrameworkOutbox },
    Call { stream: Option<StreamId>, principal: Option<Arc<str>>, call: Box<scheduler::Call>, reply: oneshot::Sender<Reply> },
    Operator { principal: Option<Arc<str>>, call: Box<v1::master::Call>, reply: oneshot::Sender<Reply> },
    Register { link: LinkId, register: Box<Register>, outbox: LinkOutbox },
    Agent { link: LinkId, message: FromAgent },
    Read { reply: oneshot::Sender<Arc<View>> },
    Watch { reply: oneshot::Sender<Watch> },
    Whitelist { hostnames: Option<BTreeSet<String>> },
}

/// What the loop lets others read at any time, without asking it.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// When this master began to lead, in nanoseconds since 1970; 0: it does not.
    pub(crate) elected_at: AtomicU64,
    pub(crate) streams: AtomicU64,
    pub(crate) links: AtomicU64,
    pub(crate) subscribers: AtomicU64,
    /// Streams closed because their queue was full.
    pub(crate) streams_overflowed: AtomicU64,
    pub(crate) links_overflowed: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) busy_nanos: AtomicU64,
    /// How long reading the registry took, and writing it.
    pub(crate) fetches: Timer,
    pub(crate) writes: Timer,
    /// How long the core worked on each tick; allocation is nearly all of that.
    pub(crate) ticks: Timer,
    /// How long after it was due each tick began.
    pub(crate) delays: Timer,
    /// Answers that were rendered for somebody else.
    pub(crate) cache_hits: AtomicU64,
}

impl MasterHandle {
    pub(super) fn new(
        inbox: mpsc::Sender<Message>,
        closings: mpsc::UnboundedSender<Closed>,
        status: watch::Receiver<Status>,
        gauges: Arc<Gauges>,
        info: v1::MasterInfo,
    ) -> Self {
        MasterHandle { inbox, closings, status, gauges, info: Arc::new(info), links: Arc::default() }
    }

    /// Who this master is.
    pub fn info(&self) -> &v1::MasterInfo {
        &self.info
    }

    /// Whether this master leads and serves.
    pub fn is_serving(&self) -> bool {
        *self.status.borrow() == Status::Serving
    }

    /// The master that leads, if one is known.
    pub fn leader(&self) -> Option<Leader> {
        match &*self.status.borrow() {
            Status::Led(leader) => Some(leader.clone()),
            Status::Recovering | Status::Serving => Some(Leader::from(&*self.info)),
            Status::Nobody => None,
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub(crate) fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// When this master began to lead.
    pub(crate) fn elected_at(&self) -> Option<Timestamp> {
        let nanos = self.gauges.elected_at.load(Ordering::Relaxed);
        (nanos != 0).then(|| Timestamp::from_unix_nanos(nanos))
    }

    /// Messages that wait for the loop.
    pub(crate) fn inbox_length(&self) -> usize {
        self.inbox.max_capacity() - self.inbox.capacity()
    }

    /// A framework opens a stream, over HTTP or in this process. Its events come out of what is given back; dropping that closes the stream.
    ///
    /// # Errors
    /// When the loop is gone, as with every call here.
    pub async fn subscribe(
        &self,
        stream: StreamId,
        principal: Option<Arc<str>>,
        subscribe: Box<scheduler::call::Subscribe>,
    ) -> Result<FrameworkStream, Stopped> {
        let (outbox, events) = super::outbox::framework(stream.clone(), self.closings.clone());
        self.inbox.send(Message::Subscribe { stream, principal, subscribe, outbox }).await.map_err(|_| Stopped)?;
        Ok(events)
    }

    /// Any other call of a framework. `stream` is that of its subscription.
    ///
    /// # Errors
    /// When the loop is gone.
    pub async fn call(&self, stream: Option<StreamId>, principal: Option<Arc<str>>, call: Box<scheduler::Call>) -> Result<Reply, Stopped> {
        self.ask(|reply| Message::Call { stream, principal, call, reply }).await
    }

    pub(crate) async fn operator(&self, principal: Option<Arc<str>>, call: Box<v1::master::Call>) -> Result<Reply, Stopped> {
        self.ask(|reply| Message::Operator { principal, call, reply }).await
    }

    /// An agent opens a connection. Messages for it come out of what is given back; dropping that closes the connection.
    pub(crate) async fn register(&self, register: Box<Register>) -> Result<(LinkId, LinkStream), Stopped> {
        let link = LinkId(self.links.fetch_add(1, Ordering::Relaxed) + 1);
        let (outbox, messages) = super::outbox::link(link, self.closings.clone());
        self.inbox.send(Message::Register { link, register, outbox }).await.map_err(|_| Stopped)?;
        Ok((link, messages))
    }

    pub(crate) async fn hear_agent(&self, link: LinkId, message: FromAgent) -> Result<(), Stopped> {
        self.inbox.send(Message::Agent { link, message }).await.map_err(|_| Stopped)
    }

    /// The state as it is after everything that was sent before.
    pub(crate) async fn read(&self) -> Result<Arc<View>, Stopped> {
        self.ask(|reply| Message::Read { reply }).await
    }

    pub(crate) async fn watch(&self) -> Result<Watch, Stopped> {
        self.ask(|reply| Message::Watch { reply }).await
    }

    /// Only agents on these hosts are offered from now on; none: all are.
    pub(crate) async fn set_whitelist(&self, hostnames: Option<BTreeSet<String>>) -> Result<(), Stopped> {
        self.inbox.send(Message::Whitelist { hostnames }).await.map_err(|_| Stopped)
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(message(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
