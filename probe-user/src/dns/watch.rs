//! Whose answers are believed, and what of them is told. Pure: copies of messages and questions go in, observations and things to do come out.
//!
//! Anybody can send a datagram from port 53 to anybody. An answer that reaches a client is believed if a process of this machine asked that
//! server; one that leaves a server of this machine, if it goes to an address from which a process of this machine asked. Questions are told on
//! another way than answers, so an answer without a question waits for it a little.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::time::Duration;

use super::Mode;
use super::asked::{Asked, Recently};
use super::attach::{Above, Attachments, Effect, Hook, Place, Question, Server};
use super::message::{self, Answer, Message};
use crate::observation::{BootNanos, Direction, FlowEnd, ListenerOpened, NameCounts, Observation, Protocol};

/// Port of DNS servers.
const PORT: u16 = probe_common::DNS_PORT;

/// How long after a question its server is believed.
pub const BELIEVED: Duration = Duration::from_secs(60);

/// How long an answer waits for its question, and how many wait at most.
pub const QUESTION_AWAITED: Duration = Duration::from_millis(300);
/// See [`QUESTION_AWAITED`].
pub const WAITING_MAX: usize = 256;

/// An answer that was told is not told again within this time: a busy server gives the same one thousands of times a second.
const REPEATED: Duration = Duration::from_secs(2);
/// Answers that are remembered for that.
const REPEATED_MAX: usize = 1_024;

/// Something that concerns names.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A process asks.
    Asked {
        /// Whom.
        question: Question,
        /// From which address; unspecified when unknown.
        client: IpAddr,
    },
    /// A process answers, or waits for questions.
    Serving(Server),
    /// A socket, of this port or another, waits for nothing any more.
    Closed(u64),
    /// A cgroup was removed.
    CgroupRemoved(u64),
    /// A search for servers ended.
    Found {
        /// Those that were found.
        servers: Vec<Server>,
        /// Whether these are all.
        complete: bool,
        /// Addresses of the machine's interfaces.
        own_addresses: Vec<IpAddr>,
    },
    /// Names are looked for in another way from now on.
    Mode(Mode),
}

impl Event {
    /// What an observation of the capture means for names.
    pub fn of(observation: &Observation) -> Option<Event> {
        match observation {
            Observation::FlowSeen { end, .. } => Event::of_flow(end),
            // A talk that ends is no question.
            Observation::FlowCounted { end, delta, .. } if delta.closed == 0 || delta.opened > 0 => Event::of_flow(end),
            Observation::ListenerOpened(opened) => Event::of_listener(opened),
            Observation::ListenerClosed { socket, .. } => Some(Event::Closed(*socket)),
            Observation::CgroupRemoved { id, .. } => Some(Event::CgroupRemoved(*id)),
            _ => None,
        }
    }

    fn of_listener(opened: &ListenerOpened) -> Option<Event> {
        let ListenerOpened { socket, cgroup_id, network_namespace, address, .. } = *opened;
        let serves = opened.protocol == Protocol::Udp && opened.port == PORT;
        serves.then_some(Event::Serving(Server { socket, cgroup_id, network_namespace, address }))
    }

    fn of_flow(end: &FlowEnd) -> Option<Event> {
        if end.protocol != Protocol::Udp || end.server_port != PORT {
            return None;
        }
        let FlowEnd { cgroup_id, network_namespace, client_address, server_address, .. } = *end;
        Some(match end.direction {
            Direction::Client => {
                Event::Asked { question: Question { cgroup_id, network_namespace, server: server_address }, client: client_address }
            }
            Direction::Server => Event::Serving(Server { socket: 0, cgroup_id, network_namespace, address: server_address }),
        })
    }
}

/// A copy of a datagram from the port of DNS.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// When it was seen.
    pub at: BootNanos,
    /// Where.
    pub hook: Hook,
    /// cgroup v2 id of the socket.
    pub cgroup_id: u64,
    /// Who sent it.
    pub server: IpAddr,
    /// Whom it goes to.
    pub client: IpAddr,
    /// Its message, as far as it was copied.
    pub message: &'a [u8],
    /// Whether that is all of it.
    pub whole: bool,
}

/// What is known of questions and answers.
#[derive(Debug)]
pub struct Watch {
    attachments: Attachments,
    asked: Recently,
    waiting: VecDeque<Waiting>,
    told: HashSet<u64>,
    told_since: BootNanos,
    counts: NameCounts,
}

/// An answer of which it is not known yet whether somebody asked for it.
#[derive(Debug)]
struct Waiting {
    at: BootNanos,
    way: Way,
    answer: Answer,
}

/// Which way an answer goes.
#[derive(Clone, Copy, Debug)]
struct Way {
    hook: Hook,
    server: IpAddr,
    client: IpAddr,
}

impl Watch {
    /// Knows nothing yet.
    pub fn new(mode: Mode, above: Above) -> Self {
        Watch {
            attachments: Attachments::new(mode, above),
            asked: Recently::default(),
            waiting: VecDeque::new(),
            told: HashSet::new(),
            told_since: BootNanos(0),
            counts: NameCounts::default(),
        }
    }

    /// What is to be done first.
    pub fn start(&mut self, now: BootNanos) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.attachments.start(now, &mut effects);
        effects
    }

    /// Takes an event in.
    pub fn on_event(&mut self, now: BootNanos, event: Event, effects: &mut Vec<Effect>, out: &mut Vec<Observation>) {
        match event {
            Event::Asked { question, client } => {
                self.asked.note(now, Asked::of(question.server, client));
                self.asked.note(now, Asked::Server(question.server));
                self.attachments.asked(now, question, effects);
                self.settle(now, out);
            }
            Event::Serving(server) => self.attachments.serving(now, server, effects),
            Event::Closed(socket) => self.attachments.closed(socket, effects),
            Event::CgroupRemoved(id) => self.attachments.removed(id, effects),
            Event::Found { servers, complete, own_addresses } => {
                self.attachments.found(now, servers, complete, own_addresses, effects);
            }
            Event::Mode(mode) => self.attachments.set_mode(now, mode, effects),
        }
    }

    /// Takes a datagram in.
    pub fn on_datagram(&mut self, now: BootNanos, datagram: Datagram<'_>, out: &mut Vec<Observation>) {
        self.counts.messages += 1;
        let Datagram { at, hook, cgroup_id, server, client, message, whole } = datagram;
        let way = Way { hook, server, client };
        let believed = self.is_believed(now, way);
        if hook == Hook::Egress {
            self.attachments.answered(now, Place { hook, cgroup_id });
        }
        match message::parse(message, whole) {
            Ok(Message::Answer(answer)) if believed => {
                self.goes_on(now, way);
                self.tell(at, answer, out);
            }
            Ok(Message::Answer(answer)) => {
                if self.waiting.len() >= WAITING_MAX {
                    self.waiting.pop_front();
                    self.counts.unasked += 1;
                }
                self.waiting.push_back(Waiting { at, way, answer });
            }
            Ok(Message::Other) => {}
            Err(error) => {
                tracing::debug!(%server, %error, "a message from the port of DNS was not understood");
                self.counts.malformed += 1;
            }
        }
    }

    /// Whether a program could be attached.
    pub fn attached(&mut self, place: Place, worked: bool) {
        self.attachments.attached(place, worked);
    }

    /// Does what time asks for.
    pub fn tick(&mut self, now: BootNanos, effects: &mut Vec<Effect>, out: &mut Vec<Observation>) {
        self.attachments.tick(now, effects);
        self.settle(now, out);
        self.asked.forget(|at| now >= after(at, BELIEVED));
    }

    /// When [`Watch::tick`] has work that somebody waits for.
    pub fn next_deadline(&self) -> Option<BootNanos> {
        let waiting = self.waiting.front().map(|it| after(it.at, QUESTION_AWAITED));
        [waiting, self.attachments.next_deadline()].into_iter().flatten().min()
    }

    /// What was counted so far.
    pub fn counts(&self) -> NameCounts {
        NameCounts {
            attached: self.attachments.len() as u64,
            attachments_evicted: self.attachments.evicted(),
            attachments_refused: self.attachments.refused(),
            ..self.counts
        }
    }

    fn is_believed(&self, now: BootNanos, way: Way) -> bool {
        let is_recent = |asked: Asked| self.asked.at(asked).is_some_and(|at| now < after(at, BELIEVED));
        match way.hook {
            Hook::Ingress => is_recent(Asked::Server(way.server)),
            Hook::Egress => Asked::answered_by(way.server, way.client).into_iter().any(is_recent),
        }
    }

    /// A socket that is connected tells of its first question alone: an answer that is believed is one more.
    fn goes_on(&mut self, now: BootNanos, way: Way) {
        if way.hook == Hook::Egress {
            for asked in Asked::answered_by(way.server, way.client) {
                if self.asked.at(asked).is_some() {
                    self.asked.note(now, asked);
                }
            }
        }
    }

    /// Tells answers whose question has come, and gives up those that have waited for long enough.
    fn settle(&mut self, now: BootNanos, out: &mut Vec<Observation>) {
        for _ in 0..self.waiting.len() {
            let Some(Waiting { at, way, answer }) = self.waiting.pop_front() else { break };
            if self.is_believed(now, way) {
                self.goes_on(now, way);
                self.tell(at, answer, out);
            } else if now >= after(at, QUESTION_AWAITED) {
                tracing::debug!(server = %way.server, client = %way.client, name = answer.name, "an answer that nobody asked for");
                self.counts.unasked += 1;
            } else {
                self.waiting.push_back(Waiting { at, way, answer });
            }
        }
    }

    fn tell(&mut self, at: BootNanos, answer: Answer, out: &mut Vec<Observation>) {
        self.counts.answers += 1;
        if at >= after(self.told_since, REPEATED) || self.told.len() >= REPEATED_MAX {
            self.told.clear();
            self.told_since = at;
        }
        if self.told.insert(fingerprint(&answer)) {
            let Answer { name, addresses } = answer;
            out.push(Observation::NameResolved { at, name, addresses });
        }
    }
}

/// The same for the same name and addresses, in whatever order the server gives them.
fn fingerprint(answer: &Answer) -> u64 {
    let hash = |value: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        value(&mut hasher);
        hasher.finish()
    };
    let name = hash(&|hasher| answer.name.hash(hasher));
    answer.addresses.iter().fold(name, |sum, (address, _)| sum.wrapping_add(hash(&|hasher| (&answer.name, address).hash(hasher))))
}

fn after(at: BootNanos, duration: Duration) -> BootNanos {
    BootNanos(at.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests;
