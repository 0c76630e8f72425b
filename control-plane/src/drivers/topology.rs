//! The loop around the topology core: messages become inputs, effects become answers and published pictures.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base::Timestamp;
use history::Event;
use tokio::sync::{mpsc, oneshot, watch};
use topology::{Effect, Input, ProbeId, StreamEnd, Topology, ViewKey, ViewSnapshot, ViewStats};

use super::handle::{Admission, Departure, DepartureReason, Gauges, Message, ReportOutcome, TopologyHandle};
use super::history::HistoryFeed;
use super::patience::{SEARCH_FOR, for_at_most};

/// Messages that may wait. Beyond that, whoever sends waits.
const INBOX_CAPACITY: usize = 1_024;
/// Questions that may wait.
const QUESTIONS_CAPACITY: usize = 256;
/// Questions answered before reports have their turn, so that a flood of them cannot hold the map back.
const QUESTIONS_AT_ONCE: usize = 16;
/// Reports taken in before what follows from them is worked out, and questions have their turn.
const REPORTS_AT_ONCE: usize = 64;
/// The same for large ones: the first snapshots of probes.
const REPORTS_FOR: Duration = Duration::from_millis(10);
/// How often pictures are looked through for those that nobody watches any more.
const UNWATCH_INTERVAL: Duration = Duration::from_secs(5);

/// Makes the map, and gives back the way to it and the loop that keeps it; the loop ends when every handle is dropped.
///
/// `now` is the process's clock; what happens is told to `history`, if there is one, and how long the pictures of a batch took to `drawn`.
pub(crate) fn start<C, D>(
    config: topology::Config,
    now: C,
    history: Option<HistoryFeed>,
    drawn: D,
) -> (TopologyHandle, impl Future<Output = ()> + Send + 'static)
where
    C: Fn() -> Timestamp + Send + 'static,
    D: Fn(Duration) + Send + 'static,
{
    let (sender, inbox) = mpsc::channel(INBOX_CAPACITY);
    let (asker, questions) = mpsc::channel(QUESTIONS_CAPACITY);
    let gauges = Arc::new(Gauges::default());
    let handle = TopologyHandle::new(sender, asker, gauges.clone());
    let mut core = Topology::new(config);
    // Now, while there is nothing in it.
    core.index_for_searches(now());
    let driver =
        Driver { core, now, history, drawn, inbox, questions, gauges, pictures: BTreeMap::new(), effects: Vec::new(), published: false };
    // Everybody waits for the map; it must not wait behind their messages that are written and compressed on the same few workers.
    (handle, on_a_thread_of_its_own("topology", driver.run()))
}

struct Driver<C, D> {
    core: Topology,
    now: C,
    history: Option<HistoryFeed>,
    drawn: D,
    inbox: mpsc::Receiver<Message>,
    questions: mpsc::Receiver<Message>,
    gauges: Arc<Gauges>,
    pictures: BTreeMap<ViewKey, Channel>,
    effects: Vec<Effect>,
    /// Whether a picture went out since the last account.
    published: bool,
}

/// The view channel of a picture.
struct Channel {
    sender: watch::Sender<Arc<ViewSnapshot>>,
    watched: bool,
}

impl<C: Fn() -> Timestamp, D: Fn(Duration)> Driver<C, D> {
    async fn run(mut self) {
        let mut questions = Vec::with_capacity(QUESTIONS_AT_ONCE);
        let mut unwatch = tokio::time::interval(UNWATCH_INTERVAL);
        unwatch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let until_due = self.core.next_deadline().map(|at| at.since((self.now)()));
            let due = async {
                match until_due {
                    // A sleep lasts a millisecond at least. Without any pause questions would not be looked for any more once the task has had
                    // its share of the runtime.
                    Some(span) if span.is_zero() => tokio::task::yield_now().await,
                    Some(span) => tokio::time::sleep(span).await,
                    None => std::future::pending().await,
                }
            };
            let first = tokio::select! {
                biased;
                count = self.questions.recv_many(&mut questions, QUESTIONS_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    None
                }
                _ = unwatch.tick() => {
                    self.unwatch();
                    continue;
                }
                () = due => None,
                message = self.inbox.recv() => match message {
                    Some(message) => Some(message),
                    None => return,
                },
            };
            let begun = Instant::now();
            questions.drain(..).for_each(|message| self.on_message(message));
            self.take_in(first);
            self.tick();
            self.account(begun);
        }
    }

    /// Takes in what waits, as much as there is time for, and works out once what follows from all of it.
    fn take_in(&mut self, first: Option<Message>) {
        let begun = Instant::now();
        let Some(first) = first.or_else(|| self.inbox.try_recv().ok()) else { return };
        self.core.begin_loading();
        self.on_message(first);
        let mut taken = 1;
        while taken < REPORTS_AT_ONCE && begun.elapsed() < REPORTS_FOR {
            let Ok(message) = self.inbox.try_recv() else { break };
            self.on_message(message);
            taken += 1;
        }
        self.core.end_loading();
    }

    fn account(&mut self, begun: Instant) {
        let took = begun.elapsed();
        if std::mem::take(&mut self.published) {
            (self.drawn)(took);
        }
        self.gauges.views_are(&self.core.view_sizes());
        let spent = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.gauges.busy_nanos.fetch_add(spent, Ordering::Relaxed);
        self.gauges.pictures.store(self.core.picture_count() as u64, Ordering::Relaxed);
        self.gauges.containers.store(self.core.container_count() as u64, Ordering::Relaxed);
        self.gauges.probes_connected.store(self.core.connected_probe_count() as u64, Ordering::Relaxed);
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Hello { probe, hello, reply } => {
                let host_name = hello.host_name.clone();
                let told = self.history.is_some().then(|| Box::new(hello.clone()));
                let effects = self.step(Input::Hello { probe: probe.clone(), hello });
                let admission = admission(&probe, &host_name, effects);
                if let (Some(hello), Admission::Welcome { .. }) = (told, &admission) {
                    self.tell(&probe, Event::Hello { probe: probe.clone(), hello });
                }
                let _ = reply.send(admission);
            }
            Message::Report { probe, stream, report, reply } => {
                let told = self.history.is_some().then(|| report.clone());
                let effects = self.step(Input::Report { probe: probe.clone(), stream, report });
                let outcome = self.outcome(effects);
                if let (Some(report), ReportOutcome::Applied) = (told, &outcome) {
                    self.tell(&probe, Event::Report { probe: probe.clone(), report });
                }
                let _ = reply.send(outcome);
            }
            Message::StreamEnded { probe, stream, end } => {
                let is_current = self.core.is_current(&probe, stream);
                self.step(Input::StreamEnded { probe: probe.clone(), stream, end });
                if is_current {
                    self.tell(&probe, Event::StreamEnded { probe: probe.clone(), end });
                }
            }
            Message::Subscribe { key, reply } => {
                let _ = reply.send(self.subscribe(key));
            }
            Message::Details { key, node, reply } => {
                let _ = reply.send(self.core.details((self.now)(), key, &node).map(Box::new));
            }
            Message::Stats { keys, reply } => {
                let stats = keys.into_iter().map(|key| self.stats(key)).collect();
                let _ = reply.send(stats);
            }
            Message::Flows { query, reply } => answer(reply, self.core.flows(&query)),
            Message::Probes { reply } => answer(reply, self.core.probes()),
            Message::Hosts { reply } => answer(reply, self.core.hosts()),
            Message::Listeners { query, reply } => answer(reply, self.core.listeners(&query)),
            Message::Search { query, reply, turn } => {
                // Whoever types on does not wait for what answers the letters before.
                if !reply.is_closed() {
                    answer(reply, self.core.search_within((self.now)(), &query, &for_at_most(SEARCH_FOR)));
                }
                drop(turn);
            }
            Message::LinkEnds { links, reply } => answer(reply, self.core.link_ends(&links)),
            Message::GroupsOf { members, reply } => answer(reply, self.core.groups_of(&members)),
            Message::Neighbours { networks } => {
                self.step(Input::Neighbours(networks));
            }
            Message::Namespaces { reply } => answer(reply, self.core.namespaces()),
            Message::ExportHost { name, reply } => answer(reply, self.core.export_host(&name).map(Box::new)),
            Message::Traffic { places, reply } => answer(reply, self.core.traffic(&places)),
            Message::ExportObjects { reply } => answer(reply, self.core.export_objects()),
        }
    }

    /// One step. Published pictures go out; the other effects are answers to the input.
    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.effects);
        self.core.step((self.now)(), input, &mut effects);
        let mut answers = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Published { key, snapshot } => self.publish(key, snapshot),
                Effect::PictureDropped { key } => {
                    self.pictures.remove(&key);
                }
                Effect::ProbeLeft { probe, host_name, end } => {
                    tracing::info!(%probe, %host_name, ?end, "probe left the map");
                    self.tell(&probe, Event::ProbeLeft { probe: probe.clone() });
                    let reason = match end {
                        StreamEnd::Goodbye => DepartureReason::Goodbye,
                        StreamEnd::Lost => DepartureReason::Lost,
                    };
                    self.gauges.departed(Departure { id: probe, host_name, at: (self.now)(), reason });
                }
                answer => answers.push(answer),
            }
        }
        self.effects = effects;
        answers
    }

    fn tick(&mut self) {
        self.step(Input::Tick);
        if let Some(history) = &mut self.history {
            history.catch_up((self.now)(), &self.core);
        }
    }

    fn tell(&mut self, probe: &ProbeId, event: Event) {
        if let Some(history) = &mut self.history {
            history.tell((self.now)(), probe, event);
        }
    }

    fn publish(&mut self, key: ViewKey, snapshot: ViewSnapshot) {
        self.published = true;
        let snapshot = Arc::new(snapshot);
        match self.pictures.get(&key) {
            Some(channel) => {
                channel.sender.send_replace(snapshot);
            }
            None => {
                self.pictures.insert(key, Channel { sender: watch::Sender::new(snapshot), watched: false });
            }
        }
    }

    fn subscribe(&mut self, key: ViewKey) -> watch::Receiver<Arc<ViewSnapshot>> {
        let key = ViewKey { filter: key.filter.of_view(key.view), ..key };
        if !self.pictures.contains_key(&key) {
            // Those that nobody watches any more make room.
            self.unwatch();
        }
        self.step(Input::Watch(key));
        let channel = self
            .pictures
            .entry(key)
            .or_insert_with(|| Channel { sender: watch::Sender::new(Arc::new(ViewSnapshot::default())), watched: true });
        channel.watched = true;
        channel.sender.subscribe()
    }

    fn stats(&mut self, key: ViewKey) -> ViewStats {
        self.subscribe(key).borrow().stats
    }

    /// Lets the core know of pictures that nobody watches any more.
    fn unwatch(&mut self) {
        let deserted = self.pictures.iter_mut().filter(|(_, channel)| channel.watched && channel.sender.receiver_count() == 0);
        let deserted: Vec<ViewKey> = deserted
            .map(|(key, channel)| {
                channel.watched = false;
                *key
            })
            .collect();
        for key in deserted {
            self.step(Input::Unwatch(key));
        }
    }

    fn outcome(&self, effects: Vec<Effect>) -> ReportOutcome {
        for effect in effects {
            match effect {
                Effect::Applied { records_refused } => {
                    self.gauges.records_refused.fetch_add(records_refused, Ordering::Relaxed);
                    return ReportOutcome::Applied;
                }
                Effect::ReportRefused { refusal } => {
                    return ReportOutcome::Refused { reason: refusal.to_string(), snapshot_needed: refusal.snapshot_needed() };
                }
                _ => {}
            }
        }
        ReportOutcome::Refused { reason: "the map gave no answer".to_owned(), snapshot_needed: true }
    }
}

fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    // Whoever asked may have gone away meanwhile.
    let _ = reply.send(value);
}

fn admission(probe: &ProbeId, host_name: &str, effects: Vec<Effect>) -> Admission {
    for effect in effects {
        match effect {
            Effect::Admitted { resume_after_sequence, stream, replaced } => {
                tracing::info!(%probe, host_name, resume_after_sequence, replaced = replaced.is_some(), "probe connected");
                return Admission::Welcome { resume_after_sequence, stream };
            }
            Effect::Refused { reason } => return Admission::Refused { reason },
            _ => {}
        }
    }
    Admission::Refused { reason: "the map gave no answer".to_owned() }
}

/// Runs a loop on a thread of its own. A panic in it passes to whoever waits here.
async fn on_a_thread_of_its_own(name: &'static str, run: impl Future<Output = ()> + Send + 'static) {
    let (sender, ended) = oneshot::channel();
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let outcome = runtime.map(|runtime| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(run))));
        let _ = sender.send(outcome);
    };
    let outcome = match std::thread::Builder::new().name(name.to_owned()).spawn(body) {
        Ok(_) => ended.await.unwrap_or(Ok(Ok(()))),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => tracing::error!(%error, name, "a thread cannot be started"),
    }
}
