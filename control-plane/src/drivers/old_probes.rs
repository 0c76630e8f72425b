//! The loop around the window of old probes' reports: reports in, drawings out.
//!
//! A drawing is everything that views need of what Scope's probes reported: their reports of the last seconds as one, and who of ours is at
//! the other ends of their connections. It is made anew when a report came or left, at most a few times a second, on a thread where it delays
//! nobody, and is shared by all who look. Without such reports there is none, and nothing here costs anything.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::Timestamp;
use scope_report::{Added, Drawing, Joints, Kind, Report, Weighed, Window, WindowLimits};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::timeout;
use topology::{Link, Network, NodeId};

use super::handle::{Departure, DepartureReason, Stopped, TopologyHandle};

/// Old probes that leave at once and are named in the log one by one: one report may name any number of hosts.
const NAMED_MAX: usize = 20;

/// Reports that may wait. Beyond that, whoever posts one waits.
const INBOX_CAPACITY: usize = 64;
/// Shortest time between two drawings. A report that wants to be shown at once does not wait for it, but for [`URGENT_INTERVAL`].
const REDRAW_INTERVAL: Duration = Duration::from_millis(500);
/// Shortest time between two drawings, whatever reports want.
const URGENT_INTERVAL: Duration = Duration::from_millis(50);
/// A drawing that took long is not made again before this many times of that have passed: it may take a part of one CPU, not all of it.
const REST_FACTOR: u32 = 4;
/// Processes, containers and pods that the map is asked for at all; what is beyond is counted as if the map did not have it.
const MEMBERS_MAX: usize = 200_000;
/// How long whoever posted a report waits at most for the drawing that has it.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);
/// Connections, and things that are counted, that the map is asked for at once.
const LINKS_AT_ONCE: usize = 4_096;
/// Connections that the map is asked for at all; the ends of others are taken as unknown.
const LINKS_MAX: usize = 200_000;

/// What old probes reported in the window.
#[derive(Debug, Default)]
pub struct Scenery {
    /// Grows with every change.
    pub generation: u64,
    /// Grows when a report wanted to be shown at once.
    pub urgent: u64,
    /// What is drawn from it; `None` while there is no report.
    pub drawing: Option<Drawing>,
    /// Everything as it was reported.
    pub report: Report,
    /// For each part of the window: when it began, and what is in it.
    pub summaries: Vec<(Timestamp, String)>,
}

/// Numbers that anybody may read at any time.
#[derive(Debug, Default)]
pub struct OldProbeGauges {
    /// Reports taken in since the start.
    pub reports: AtomicU64,
    /// Reports that were malformed, too large, or found no room, since the start.
    pub reports_refused: AtomicU64,
    /// Nodes in the window.
    pub nodes: AtomicU64,
}

/// A way to the loop; cheap to clone.
#[derive(Clone, Debug)]
pub struct OldProbesHandle {
    inbox: mpsc::Sender<Message>,
    scenery: watch::Receiver<Arc<Scenery>>,
    gauges: Arc<OldProbeGauges>,
}

#[derive(Debug)]
struct Message {
    report: Box<Weighed>,
    /// The room that it takes until it is in the window.
    room: OwnedSemaphorePermit,
    /// With the generation of the window that has it.
    reply: oneshot::Sender<(Added, u64)>,
}

impl OldProbesHandle {
    /// Takes a report in. Returns when readers see it, which is in a second at most, or when it found no room. Nobody else waits for that: it is
    /// the next drawing, which is made for all reports that came until then. `room` is given back as soon as the window has it or has not.
    ///
    /// # Errors
    /// When the loop is gone.
    pub async fn add(&self, report: Box<Weighed>, room: OwnedSemaphorePermit) -> Result<Added, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Message { report, room, reply }).await.map_err(|_| Stopped)?;
        let (added, generation) = answer.await.map_err(|_| Stopped)?;
        if added == Added::Yes {
            let mut scenery = self.scenery.clone();
            // Where drawings take long, it is in the window, and shown later.
            drop(timeout(SHOWN_WITHIN, scenery.wait_for(|scenery| scenery.generation >= generation)).await);
        }
        Ok(added)
    }

    /// A report came that cannot be taken in.
    pub fn refused(&self) {
        self.gauges.reports_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// What is in the window now.
    pub fn scenery(&self) -> Arc<Scenery> {
        self.scenery.borrow().clone()
    }

    /// The same, and whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Scenery>> {
        self.scenery.clone()
    }

    /// Numbers that the loop keeps up to date.
    pub fn gauges(&self) -> &OldProbeGauges {
        &self.gauges
    }
}

/// Makes the window, and gives back the way to it and the loop that keeps it; the loop ends when the map has stopped or every handle is
/// dropped.
pub fn start<C>(
    window: Duration,
    limits: WindowLimits,
    topology: TopologyHandle,
    now: C,
) -> (OldProbesHandle, impl Future<Output = ()> + Send + 'static)
where
    C: Fn() -> Timestamp + Send + 'static,
{
    let (sender, inbox) = mpsc::channel(INBOX_CAPACITY);
    let (publish, scenery) = watch::channel(Arc::default());
    let gauges = Arc::new(OldProbeGauges::default());
    let handle = OldProbesHandle { inbox: sender, scenery, gauges: gauges.clone() };
    let driver = Driver { window: Window::new(window, limits), topology, now, inbox, publish, gauges, urgent: 0, neighbours: Vec::new() };
    (handle, driver.run())
}

struct Driver<C> {
    window: Window,
    topology: TopologyHandle,
    now: C,
    inbox: mpsc::Receiver<Message>,
    publish: watch::Sender<Arc<Scenery>>,
    gauges: Arc<OldProbeGauges>,
    urgent: u64,
    neighbours: Vec<Network>,
}

impl<C: Fn() -> Timestamp> Driver<C> {
    async fn run(mut self) {
        let mut drawn = 0;
        let mut next_drawing = tokio::time::Instant::now();
        let mut next_urgent = next_drawing;
        loop {
            let is_due = self.window.generation() != drawn;
            let until_expiry = self.window.next_deadline().map(|at| at.since((self.now)()));
            let expiry = async {
                match until_expiry {
                    Some(span) => tokio::time::sleep(span).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = self.inbox.recv() => match message {
                    None => return,
                    Some(Message { report, room, reply }) => {
                        let urgent = report.report.shortcut;
                        let added = self.window.add((self.now)(), *report);
                        drop(room);
                        match added {
                            Added::Yes => self.gauges.reports.fetch_add(1, Ordering::Relaxed),
                            Added::Full => self.gauges.reports_refused.fetch_add(1, Ordering::Relaxed),
                        };
                        // Whoever posted it may have gone away meanwhile.
                        let _ = reply.send((added, self.window.generation()));
                        if urgent && added == Added::Yes {
                            self.urgent += 1;
                            next_drawing = next_drawing.min(next_urgent);
                        }
                    }
                },
                () = tokio::time::sleep_until(next_drawing), if is_due => {
                    let begun = Instant::now();
                    drawn = self.window.generation();
                    if self.draw().await.is_err() {
                        return;
                    }
                    next_urgent = tokio::time::Instant::now() + URGENT_INTERVAL.max(begun.elapsed());
                    next_drawing = tokio::time::Instant::now() + REDRAW_INTERVAL.max(begun.elapsed() * REST_FACTOR);
                }
                () = expiry => {
                    self.window.expire((self.now)());
                }
            }
        }
    }

    async fn draw(&mut self) -> Result<(), Stopped> {
        let generation = self.window.generation();
        let summaries = self.window.summaries();
        if self.window.is_empty() {
            self.gauges.nodes.store(0, Ordering::Relaxed);
            self.tell_neighbours(Vec::new()).await?;
            self.note_departures(&Report::default());
            self.publish.send_replace(Arc::new(Scenery { generation, urgent: self.urgent, ..Scenery::default() }));
            return Ok(());
        }
        let parts = self.window.clone_parts();
        let (report, questions, members) = off_thread(move || {
            let report = parts.merged();
            let mut questions = Joints::questions(&report);
            questions.truncate(LINKS_MAX);
            let members: Vec<NodeId> = Joints::members(&report).take(MEMBERS_MAX).collect();
            (report, questions, members)
        })
        .await?;
        self.gauges.nodes.store(report.node_count() as u64, Ordering::Relaxed);
        let mut answers = Vec::with_capacity(questions.len());
        for some in questions.chunks(LINKS_AT_ONCE) {
            let links: Vec<Link> = some.iter().map(|(link, ..)| *link).collect();
            answers.extend(self.topology.link_ends(links).await?);
        }
        let mut groups = Vec::with_capacity(members.len());
        for some in members.chunks(LINKS_AT_ONCE) {
            groups.extend(self.topology.groups_of(some.to_vec()).await?);
        }
        let (report, drawing, neighbours) = off_thread(move || {
            let joints = Joints::answers(&report, &questions, answers).with_groups(members, groups);
            let drawing = Drawing::new(report.clone(), joints);
            let neighbours = drawing.neighbours();
            (report, drawing, neighbours)
        })
        .await?;
        self.tell_neighbours(neighbours).await?;
        self.note_departures(&report);
        let scenery = Scenery { generation, urgent: self.urgent, drawing: Some(drawing), report, summaries };
        self.publish.send_replace(Arc::new(scenery));
        Ok(())
    }

    /// Tells of hosts that were there in the last drawing and are not in this report.
    fn note_departures(&self, report: &Report) {
        let old = self.publish.borrow().clone();
        let hosts = &report.table(Kind::Host).nodes;
        let gone: Vec<_> = old.report.table(Kind::Host).nodes.iter().filter(|(id, _)| !hosts.contains_key(*id)).collect();
        if gone.len() > NAMED_MAX {
            tracing::info!(probes = gone.len(), named = NAMED_MAX, "old probes left the map: no report of them came within the window");
        }
        for (number, (id, node)) in gone.into_iter().enumerate() {
            let value = |key: &str| node.value(key).cloned();
            let host_name = value("host_name").unwrap_or_else(|| id.clone());
            let probe = value("control_probe_id").unwrap_or_else(|| id.clone());
            if number < NAMED_MAX {
                tracing::info!(%probe, %host_name, "an old probe left the map: no report of it came within the window");
            }
            let departure = Departure { id: probe, host_name, at: (self.now)(), reason: DepartureReason::Silent };
            self.topology.gauges().departed(departure);
        }
    }

    async fn tell_neighbours(&mut self, networks: Vec<Network>) -> Result<(), Stopped> {
        if self.neighbours != networks {
            self.neighbours.clone_from(&networks);
            self.topology.neighbours(networks).await?;
        }
        Ok(())
    }
}

/// Work that would hold up others where they run.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome),
        Err(panic) => match panic.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down.
            Err(_) => Err(Stopped),
        },
    }
}
