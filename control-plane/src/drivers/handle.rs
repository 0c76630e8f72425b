//! How the edges talk to the topology driver. The driver owns the core; nobody else touches it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::Timestamp;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use topology::{
    Details, FlowPage, FlowQuery, HostExport, HostStatus, Link, LinkEnds, ListenerPage, ListenerQuery, Network, NodeId, ObjectExport,
    ProbeHello, ProbeId, ProbeStatus, Report, SearchPage, SearchQuery, SearchTooLong, StreamEnd, StreamId, TrafficFlow, TrafficPlace, View,
    ViewKey, ViewSnapshot, ViewStats,
};

/// A way to the topology driver; cheap to clone. Every call waits while the driver's inbox is full: that is the back-pressure on probes and
/// clients alike. Who asks has an inbox of its own, which the driver looks at first: an answer has everything in it that was said to be on the
/// map before the question, and need not wait for what is not.
#[derive(Clone, Debug)]
pub struct TopologyHandle {
    inbox: mpsc::Sender<Message>,
    questions: mpsc::Sender<Message>,
    gauges: Arc<Gauges>,
    /// One search at a time: reports have their turn between any two.
    searching: Arc<Semaphore>,
}

/// A probe whose nodes have left the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The probe.
    pub id: Arc<str>,
    /// What it reported on.
    pub host_name: Arc<str>,
    /// When its nodes left.
    pub at: Timestamp,
    /// Why.
    pub reason: DepartureReason,
}

/// Why the nodes of a probe left the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepartureReason {
    /// It said goodbye.
    Goodbye,
    /// Its stream broke, and it did not come back within the window.
    Lost,
    /// Weave Scope's probe: no report of it came within the window.
    Silent,
}

impl DepartureReason {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            DepartureReason::Goodbye => "goodbye",
            DepartureReason::Lost => "lost",
            DepartureReason::Silent => "silent",
        }
    }
}

/// Departures that are remembered.
const DEPARTURES_KEPT: usize = 100;

/// The driver is gone: the process is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the topology has stopped")]
pub struct Stopped;

/// What became of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportOutcome {
    /// It is on the map.
    Applied,
    /// It was refused.
    Refused {
        /// Why, for the probe's log.
        reason: String,
        /// The probe has to begin with a snapshot again.
        snapshot_needed: bool,
    },
}

/// What the driver decided on a probe's hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The probe may report.
    Welcome {
        /// Last report that is on the map; 0 asks for a snapshot.
        resume_after_sequence: u64,
        /// Names this stream in later calls: a report on a stream that a newer one of the same probe has replaced is refused.
        stream: StreamId,
    },
    /// The probe may not report.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What the driver's inbox takes.
#[derive(Debug)]
pub(crate) enum Message {
    Hello {
        probe: ProbeId,
        hello: ProbeHello,
        reply: oneshot::Sender<Admission>,
    },
    Report {
        probe: ProbeId,
        stream: StreamId,
        report: Box<Report>,
        reply: oneshot::Sender<ReportOutcome>,
    },
    StreamEnded {
        probe: ProbeId,
        stream: StreamId,
        end: StreamEnd,
    },
    Subscribe {
        key: ViewKey,
        reply: oneshot::Sender<watch::Receiver<Arc<ViewSnapshot>>>,
    },
    Details {
        key: ViewKey,
        node: NodeId,
        reply: oneshot::Sender<Option<Box<Details>>>,
    },
    Stats {
        keys: Vec<ViewKey>,
        reply: oneshot::Sender<Vec<ViewStats>>,
    },
    Flows {
        query: FlowQuery,
        reply: oneshot::Sender<FlowPage>,
    },
    Probes {
        reply: oneshot::Sender<Vec<ProbeStatus>>,
    },
    Hosts {
        reply: oneshot::Sender<Vec<HostStatus>>,
    },
    Listeners {
        query: ListenerQuery,
        reply: oneshot::Sender<ListenerPage>,
    },
    /// With its turn, which is over when it is answered, and not when nobody waits any more.
    Search {
        query: Box<SearchQuery>,
        reply: oneshot::Sender<Result<SearchPage, SearchTooLong>>,
        turn: OwnedSemaphorePermit,
    },
    LinkEnds {
        links: Vec<Link>,
        reply: oneshot::Sender<Vec<LinkEnds>>,
    },
    GroupsOf {
        members: Vec<NodeId>,
        reply: oneshot::Sender<Vec<Vec<(View, NodeId)>>>,
    },
    Neighbours {
        networks: Vec<Network>,
    },
    Namespaces {
        reply: oneshot::Sender<Vec<Arc<str>>>,
    },
    ExportHost {
        name: Arc<str>,
        reply: oneshot::Sender<Option<Box<HostExport>>>,
    },
    Traffic {
        places: Vec<TrafficPlace>,
        reply: oneshot::Sender<Vec<Option<Vec<TrafficFlow>>>>,
    },
    ExportObjects {
        reply: oneshot::Sender<Vec<ObjectExport>>,
    },
}

/// A picture that is kept up to date for as long as this lives.
#[derive(Debug)]
pub struct Subscription {
    /// The newest picture. The first one is complete when [`TopologyHandle::subscribe`] returns.
    pub snapshots: watch::Receiver<Arc<ViewSnapshot>>,
}

/// What the driver lets others read at any time, without asking it.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Probes with an open stream.
    pub probes_connected: AtomicU64,
    /// Containers on the map, in any state.
    pub containers: AtomicU64,
    /// Pictures kept up to date.
    pub pictures: AtomicU64,
    /// Records refused since the start: beyond the limits, or about another host's containers.
    pub records_refused: AtomicU64,
    /// Time that the core has worked since the start, in nanoseconds.
    pub busy_nanos: AtomicU64,
    departures: Mutex<VecDeque<Departure>>,
    /// Of each view, how many nodes and edges.
    view_sizes: Mutex<Vec<(View, u64, u64)>>,
    /// How old the last report of each probe was when it came: of those whose stream is open.
    lags: Mutex<HashMap<ProbeId, Duration>>,
}

impl Gauges {
    /// Remembers that the nodes of a probe left the map.
    pub(crate) fn departed(&self, departure: Departure) {
        let mut departures = self.departures.lock().unwrap_or_else(PoisonError::into_inner);
        if departures.len() == DEPARTURES_KEPT {
            departures.pop_front();
        }
        departures.push_back(departure);
    }

    /// Each view that something is in has so many nodes and edges.
    pub(crate) fn views_are(&self, sizes: &[(View, u64, u64)]) {
        let mut known = self.view_sizes.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
        known.extend_from_slice(sizes);
    }

    /// How many nodes and edges each view has.
    pub fn view_sizes(&self) -> Vec<(View, u64, u64)> {
        self.view_sizes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How old a report was when it came; none when the probe's stream has ended.
    pub(crate) fn lag_is(&self, probe: &ProbeId, lag: Option<Duration>) {
        let mut lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        match (lag, lags.get_mut(probe)) {
            (Some(lag), Some(known)) => *known = lag,
            (Some(lag), None) => drop(lags.insert(probe.clone(), lag)),
            (None, _) => drop(lags.remove(probe)),
        }
    }

    /// How old the last report of each probe was when it came.
    pub fn lags(&self) -> HashMap<ProbeId, Duration> {
        self.lags.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last probes whose nodes left the map, the latest first.
    pub fn departures(&self) -> Vec<Departure> {
        self.departures.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

impl TopologyHandle {
    pub(crate) fn new(inbox: mpsc::Sender<Message>, questions: mpsc::Sender<Message>, gauges: Arc<Gauges>) -> Self {
        TopologyHandle { inbox, questions, gauges, searching: Arc::new(Semaphore::new(1)) }
    }

    /// Numbers that the driver keeps up to date.
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Messages that wait for the driver.
    pub fn inbox_length(&self) -> usize {
        let waiting = |inbox: &mpsc::Sender<Message>| inbox.max_capacity() - inbox.capacity();
        waiting(&self.inbox) + waiting(&self.questions)
    }

    /// A probe opened a stream.
    ///
    /// # Errors
    /// When the driver is gone, as with every call here.
    pub async fn hello(&self, probe: ProbeId, hello: ProbeHello) -> Result<Admission, Stopped> {
        self.tell(|reply| Message::Hello { probe, hello, reply }).await
    }

    /// A report came in on a stream. Returns when it is on the map or refused.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn report(&self, probe: ProbeId, stream: StreamId, report: Box<Report>) -> Result<ReportOutcome, Stopped> {
        self.tell(|reply| Message::Report { probe, stream, report, reply }).await
    }

    /// A stream ended.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn stream_ended(&self, probe: ProbeId, stream: StreamId, end: StreamEnd) -> Result<(), Stopped> {
        self.inbox.send(Message::StreamEnded { probe, stream, end }).await.map_err(|_| Stopped)
    }

    /// Keeps a picture up to date for as long as the subscription lives.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn subscribe(&self, key: ViewKey) -> Result<Subscription, Stopped> {
        let snapshots = self.ask(|reply| Message::Subscribe { key, reply }).await?;
        Ok(Subscription { snapshots })
    }

    /// The picture as it is now. Cheap while somebody watches it, and for some time after.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn snapshot(&self, key: ViewKey) -> Result<Arc<ViewSnapshot>, Stopped> {
        let subscription = self.subscribe(key).await?;
        let snapshot = subscription.snapshots.borrow().clone();
        Ok(snapshot)
    }

    /// A node's panel; `None` when the unfiltered view has no such node. The filter decides which neighbours its connection tables show.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn details(&self, key: ViewKey, node: NodeId) -> Result<Option<Box<Details>>, Stopped> {
        self.ask(|reply| Message::Details { key, node, reply }).await
    }

    /// Numbers of several pictures, in the order asked.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn stats(&self, keys: Vec<ViewKey>) -> Result<Vec<ViewStats>, Stopped> {
        self.ask(|reply| Message::Stats { keys, reply }).await
    }

    /// A page of flows.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn flows(&self, query: FlowQuery) -> Result<FlowPage, Stopped> {
        self.ask(|reply| Message::Flows { query, reply }).await
    }

    /// All probes, connected or heard of within the window, sorted by id.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn probes(&self) -> Result<Vec<ProbeStatus>, Stopped> {
        self.ask(|reply| Message::Probes { reply }).await
    }

    /// All hosts, sorted by name.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn hosts(&self) -> Result<Vec<HostStatus>, Stopped> {
        self.ask(|reply| Message::Hosts { reply }).await
    }

    /// Listening sockets, host by host.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn listeners(&self, query: ListenerQuery) -> Result<ListenerPage, Stopped> {
        self.ask(|reply| Message::Listeners { query, reply }).await
    }

    /// A page of the nodes of all views that answer a query, best first; or that it takes longer than the map can wait for it.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn search(&self, query: SearchQuery) -> Result<Result<SearchPage, SearchTooLong>, Stopped> {
        let turn = self.searching.clone().acquire_owned().await.map_err(|_| Stopped)?;
        self.ask(|reply| Message::Search { query: Box::new(query), reply, turn }).await
    }

    /// Who of ours is at the ends of connections that others saw, in the order asked.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn link_ends(&self, links: Vec<Link>) -> Result<Vec<LinkEnds>, Stopped> {
        self.ask(|reply| Message::LinkEnds { links, reply }).await
    }

    /// The nodes that each of these processes, containers and pods is counted in, in the order asked; none for what is not on the map.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn groups_of(&self, members: Vec<NodeId>) -> Result<Vec<Vec<(View, NodeId)>>, Stopped> {
        self.ask(|reply| Message::GroupsOf { members, reply }).await
    }

    /// Networks and addresses of machines that others report on: they are not the Internet. Replaces what was said before.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn neighbours(&self, networks: Vec<Network>) -> Result<(), Stopped> {
        self.questions.send(Message::Neighbours { networks }).await.map_err(|_| Stopped)
    }

    /// Kubernetes namespaces, sorted.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn namespaces(&self) -> Result<Vec<Arc<str>>, Stopped> {
        self.ask(|reply| Message::Namespaces { reply }).await
    }

    /// A host as its probe reported it.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn export_host(&self, name: Arc<str>) -> Result<Option<Box<HostExport>>, Stopped> {
        self.ask(|reply| Message::ExportHost { name, reply }).await
    }

    /// What came in at places, in their order; `None` where no connected probe looks.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn traffic(&self, places: Vec<TrafficPlace>) -> Result<Vec<Option<Vec<TrafficFlow>>>, Stopped> {
        self.ask(|reply| Message::Traffic { places, reply }).await
    }

    /// All Kubernetes objects as they were reported.
    ///
    /// # Errors
    /// When the driver is gone.
    pub async fn export_objects(&self) -> Result<Vec<ObjectExport>, Stopped> {
        self.ask(|reply| Message::ExportObjects { reply }).await
    }

    async fn tell<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Stopped> {
        send(&self.inbox, message).await
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Stopped> {
        send(&self.questions, message).await
    }
}

async fn send<T>(inbox: &mpsc::Sender<Message>, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Stopped> {
    let (reply, answer) = oneshot::channel();
    inbox.send(message(reply)).await.map_err(|_| Stopped)?;
    answer.await.map_err(|_| Stopped)
}
