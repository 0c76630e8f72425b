//! Several control planes on one ZooKeeper ensemble: one leads, the others carry connections to it.
//!
//! A follower answers for itself what is its own (health, readiness, metrics) and sends clients of Mesos to the leader, as Mesos does. Every
//! other connection that comes to it is carried to the leader byte by byte, so a probe, an agent, a browser or a client of Marathon may come to
//! any of them. Connections are cut when another one leads; whoever had one comes back. While nobody leads, as far as is known, they wait for it, and
//! are refused after a while: what a follower has of its own is an empty map, which nobody could tell from a cluster where nothing runs. A control
//! plane that loses the lead ends: whoever runs it starts it again, as a follower. One that is told to stop hands the lead over before.

mod hand_over;
mod hold;
mod inside;
mod opening;
mod record;
mod registry;

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use edge_mesos::{Leader, Leadership};
use edge_tls::{Stream, Tls};
use ha::{Addresses, Election, Ensemble, Member, Standing};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::problems::{Part, Problems};
use crate::supervise::{Backoff, Supervisor};
use crate::telemetry::events::{ConnectionFailed, ConnectionFailure, HoldEnd};

pub(crate) use hand_over::HandOverError;
pub use hand_over::Lead;
use hold::HELD_MAX;
pub(crate) use hold::{Hold, PATIENCE as HOLD, UnderWay};
pub(crate) use inside::{Inside, serve as serve_inside};
use opening::Opening;
pub(crate) use record::{Follower, Record, follow};
pub(crate) use registry::{TermDocuments, TermRegistry, TermStore};

/// How long the leader may take to accept a connection, and a client to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long, after that, a client may say nothing at all; with [`PATIENCE`] as long as one that is served here.
const SILENCE: Duration = Duration::from_secs(85);

/// What is still said on a connection to a leader after another one leads: answers to what was asked before, be it by the next one, to whom it was
/// carried on. A stream of messages is made anew the sooner, the better.
const LAST_WORDS: Duration = Duration::from_secs(5);
const LAST_MESSAGES: Duration = Duration::from_secs(1);
/// Before a leader that does not take a connection is tried again: twice as long each time, up to the second.
const DIAL_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Paths that are asked of this very process, whoever leads.
const OWN: [&str; 3] = ["/health", "/ready", "/metrics"];

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// UI and API.
    Http,
    /// Probes and agents.
    Grpc,
    /// Marathon's API.
    Marathon,
    /// What the leader has on record, for those who follow.
    Record,
}

/// Our part in the election.
#[derive(Debug)]
pub(crate) struct Replicas {
    election: Election,
    leadership: watch::Receiver<Leadership>,
    tls: Option<Tls>,
    hold: Hold,
    lead: Lead,
}

/// What others are told of us.
#[derive(Clone, Debug)]
pub(crate) struct Us {
    /// Random per start.
    pub(crate) id: String,
    /// Name or address by which others reach us.
    pub(crate) host: String,
    /// Ports of the listeners that are open.
    pub(crate) ports: Ports,
}

/// Ports of our listeners.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ports {
    pub(crate) http: u16,
    pub(crate) grpc: u16,
    pub(crate) mesos: Option<u16>,
    pub(crate) marathon: Option<u16>,
    pub(crate) replica: u16,
}

impl Us {
    /// Our address, of whatever family the name has.
    fn ip(&self) -> anyhow::Result<IpAddr> {
        if let Ok(ip) = self.host.parse() {
            return Ok(ip);
        }
        let mut found =
            (self.host.as_str(), 0).to_socket_addrs().with_context(|| format!("--advertise is {:?}, which has no address", self.host))?;
        found.next().map(|it| it.ip()).with_context(|| format!("--advertise is {:?}, which has no address", self.host))
    }

    fn member(&self) -> anyhow::Result<Member> {
        let ip = self.ip()?;
        let at = |port: u16| SocketAddr::new(ip, port).to_string();
        Ok(Member {
            id: self.id.clone(),
            host_name: self.host.clone(),
            master: SocketAddr::new(ip, self.ports.mesos.unwrap_or(0)),
            addresses: Addresses {
                http: at(self.ports.http),
                grpc: at(self.ports.grpc),
                marathon: self.ports.marathon.map(at).unwrap_or_default(),
                replica: at(self.ports.replica),
                protocol: opening::PROTOCOL,
            },
        })
    }
}

impl Replicas {
    /// Stands for election.
    ///
    /// # Errors
    /// When our own name has no address.
    pub(crate) fn start(
        ensemble: &Ensemble,
        session_timeout: Duration,
        us: &Us,
        (tls, hold): (Option<Tls>, Hold),
        (supervisor, problems): (&Supervisor, Problems),
    ) -> anyhow::Result<Replicas> {
        let (election, run) = Election::stand(ensemble.clone(), us.member()?, session_timeout);
        supervisor.essential("election", run);
        let mut standing = election.standing();
        let (tell, leadership) = watch::channel(Leadership::Nobody);
        let lead = Lead::new(election.standing(), election.withdrawal(), hold.clone());
        let given = lead.clone();
        supervisor.essential("leadership", async move {
            let mut led = false;
            loop {
                let now = leadership_of(&standing.borrow_and_update());
                match (&now, standing.borrow().trouble.clone()) {
                    (Leadership::Nobody, Some(trouble)) => problems.tell(Part::Election, format!("no control plane leads: {trouble}")),
                    _ => drop(problems.take_back(Part::Election)),
                }
                if led && now != Leadership::Leading && !given.is_handed_over() {
                    tracing::error!("the lead is lost: this control plane ends, another takes over");
                    tell.send_replace(now);
                    return;
                }
                led = now == Leadership::Leading;
                tell.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
                if standing.changed().await.is_err() {
                    // The election ends when the process does.
                    return;
                }
            }
        });
        Ok(Replicas { election, leadership, tls, hold, lead })
    }

    /// Who leads, in the master's words.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Who leads, and by what right.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.election.standing()
    }

    /// What connections to other control planes speak below.
    pub(crate) fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    /// The lead, for whoever asks about it or wants it to be given up.
    pub(crate) fn lead(&self) -> Lead {
        self.lead.clone()
    }

    /// Gives up the lead, so that another takes over at once.
    pub(crate) fn withdraw(&self) {
        self.election.withdraw();
    }
}

fn leadership_of(standing: &Standing) -> Leadership {
    match (&standing.term, &standing.leader) {
        (Some(_), _) => Leadership::Leading,
        (None, Some(leader)) => Leadership::Led(Leader {
            id: leader.id.clone(),
            hostname: leader.host_name.clone(),
            ip: leader.master.ip().to_string(),
            port: leader.master.port(),
            grpc: Some(leader.addresses.grpc.clone()).filter(|it| !it.is_empty()),
        }),
        (None, None) => Leadership::Nobody,
    }
}

/// What becomes of the connections of a listener.
#[derive(Clone, Debug)]
pub struct Front {
    several: Option<Several>,
    purpose: Purpose,
}

/// What counts where there are several control planes.
#[derive(Clone, Debug)]
struct Several {
    standing: watch::Receiver<Standing>,
    /// Of connections between control planes.
    tls: Option<Tls>,
    hold: Hold,
}

/// Where a connection belongs.
#[derive(Debug)]
pub(crate) enum Route {
    /// To us.
    Here,
    /// To the leader.
    There(Box<Member>),
    /// Nobody leads, as far as we know.
    Nowhere,
}

/// Where a connection goes, once that is known.
#[derive(Debug)]
pub(crate) enum Place {
    /// To us; what comes on it is expected by whoever hands over the lead.
    Here(Option<UnderWay>),
    /// To the leader, to whom it has a connection.
    There(Box<(Stream, Member)>),
    /// Nobody has led in time.
    Nowhere,
    /// It said nothing in time, or was sent away.
    Gone,
}

impl Front {
    /// Of the only control plane there is.
    pub fn alone(purpose: Purpose) -> Self {
        Front { several: None, purpose }
    }

    pub(crate) fn of(replicas: Option<&Replicas>, purpose: Purpose) -> Self {
        let several = replicas.map(|it| Several { standing: it.standing(), tls: it.tls.clone(), hold: it.hold.clone() });
        Front { several, purpose }
    }

    /// The same, of connections for something else.
    pub(crate) fn with_purpose(&self, purpose: Purpose) -> Self {
        Front { purpose, ..self.clone() }
    }

    /// What its connections are for.
    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether we lead, or are the only one.
    pub(crate) fn leads(&self) -> bool {
        self.several.as_ref().is_none_or(|several| several.standing.borrow().leads())
    }

    /// What counts the requests that are under way, where the lead may be handed over.
    pub(crate) fn hold(&self) -> Option<&Hold> {
        self.several.as_ref().map(|several| &several.hold)
    }

    /// Where connections belong now.
    pub(crate) fn route(&self) -> Route {
        let Some(several) = &self.several else { return Route::Here };
        let standing = several.standing.borrow();
        match &standing.leader {
            // Whoever comes now is for the next one.
            _ if standing.leads() && several.hold.handing_over().is_cancelled() => Route::Nowhere,
            _ if standing.leads() => Route::Here,
            Some(leader) if !leader.addresses.replica.is_empty() => Route::There(Box::new(leader.clone())),
            _ => Route::Nowhere,
        }
    }

    /// Where a connection of HTTP goes: what is asked of this very process stays here.
    pub(crate) async fn place_http(&self, stream: &mut Stream, asks: impl FnOnce() -> bool) -> Place {
        if let Some(here) = self.here() {
            return here;
        }
        // The request may take a moment to come, and somebody else may lead then.
        let mut own = timeout(PATIENCE, asks_for_our_own(stream)).await;
        if own.is_err() && stream.ahead().is_empty() {
            // Whoever says nothing has nothing to be carried.
            own = timeout(SILENCE, asks_for_our_own(stream)).await;
            if own.is_err() && stream.ahead().is_empty() {
                return Place::Gone;
            }
        }
        if own.unwrap_or(false) {
            return Place::Here(None);
        }
        // It is too late for whoever was sent away meanwhile.
        if asks() { self.place(stream.peer_addr().ok()).await } else { Place::Gone }
    }

    /// Where a connection of `caller` goes. Waits, for a while, until somebody leads and can be reached.
    pub(crate) async fn place(&self, caller: Option<SocketAddr>) -> Place {
        self.placed(caller, || true).await
    }

    /// The same for a connection that another control plane has carried here, which is carried on only by one that has just handed over the lead:
    /// otherwise one could be carried for ever.
    pub(crate) async fn place_carried(&self, caller: Option<SocketAddr>) -> Place {
        self.placed(caller, || self.hold().is_some_and(|hold| hold.handing_over().is_cancelled())).await
    }

    async fn placed(&self, caller: Option<SocketAddr>, may_carry: impl Fn() -> bool + Sync) -> Place {
        let Some(Several { hold, .. }) = &self.several else { return Place::Here(None) };
        if let Some(place) = self.place_now(caller, &may_carry).await {
            return place;
        }
        // Agents and probes come by the thousand, and come again: they leave room to requests.
        let spare = if self.purpose == Purpose::Grpc { HELD_MAX / 2 } else { 0 };
        let Some(held) = hold.take(spare) else { return Place::Nowhere };
        let (place, end) = tokio::select! {
            place = self.place_soon(caller, &may_carry) => {
                let end = if matches!(place, Place::There(_)) { HoldEnd::Carried } else { HoldEnd::Served };
                (place, end)
            }
            () = tokio::time::sleep(hold.patience()) => (Place::Nowhere, HoldEnd::Refused),
            () = hold.stopping().cancelled() => (Place::Nowhere, HoldEnd::Stopped),
        };
        held.ends(end);
        place
    }

    /// Where it goes, if that is known and can be reached.
    async fn place_now(&self, caller: Option<SocketAddr>, may_carry: &(impl Fn() -> bool + Sync)) -> Option<Place> {
        if let Some(here) = self.here() {
            return Some(here);
        }
        match self.route() {
            Route::There(leader) if may_carry() => match self.reach(&leader, caller).await {
                Ok(there) => Some(Place::There(Box::new((there, *leader)))),
                Err(error) => {
                    // It has ended, and its session has not: for a client, nobody leads.
                    if let Some(hold) = self.hold() {
                        ConnectionFailed { reason: ConnectionFailure::Broken, error: &error }.emit(hold.telemetry());
                    }
                    None
                }
            },
            // What has changed meanwhile wakes whoever waits.
            Route::Here | Route::There(_) | Route::Nowhere => None,
        }
    }

    /// Whether it belongs to us. Counted before that is looked at for good: either whoever hands over the lead waits for it, or it is not for us.
    fn here(&self) -> Option<Place> {
        let is_ours = || matches!(self.route(), Route::Here);
        let expected = is_ours().then(|| self.hold().map(Hold::begin))?;
        is_ours().then_some(Place::Here(expected))
    }

    async fn place_soon(&self, caller: Option<SocketAddr>, may_carry: &(impl Fn() -> bool + Sync)) -> Place {
        let Some(mut standing) = self.several.as_ref().map(|several| several.standing.clone()) else { return Place::Here(None) };
        let (mut pause, longest) = DIAL_AGAIN;
        loop {
            // What changes from here on is not missed.
            standing.borrow_and_update();
            tokio::select! {
                place = self.place_now(caller, may_carry) => if let Some(place) = place {
                    return place;
                },
                // Whoever was to be reached may be gone, and another one lead.
                Ok(()) = standing.changed() => {
                    pause = DIAL_AGAIN.0;
                    continue;
                }
            }
            tokio::select! {
                changed = standing.changed() => match changed {
                    Ok(()) => pause = DIAL_AGAIN.0,
                    // The election ends when the process does.
                    Err(_) => std::future::pending().await,
                },
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(longest),
            }
        }
    }

    /// A connection to the leader, for one that comes from `caller`.
    async fn reach(&self, leader: &Member, caller: Option<SocketAddr>) -> io::Result<Stream> {
        let mut there = dial(leader, self.several.as_ref().and_then(|several| several.tls.as_ref())).await?;
        let caller = caller.filter(|_| leader.addresses.protocol >= opening::WITH_CALLERS);
        there.write_all(&Opening { purpose: self.purpose, caller }.encode()).await?;
        Ok(there)
    }

    /// Carries what either end says to the other, until one of them closes its connection or somebody else leads.
    pub(crate) async fn join(&self, mut stream: Stream, mut there: Stream, leader: &Member) -> io::Result<()> {
        let Some(mut standing) = self.several.as_ref().map(|several| several.standing.clone()) else { return Ok(()) };
        let another = async {
            drop(standing.wait_for(|it| it.leader.as_ref().is_none_or(|it| it.id != leader.id)).await);
            tokio::time::sleep(if self.purpose == Purpose::Grpc { LAST_MESSAGES } else { LAST_WORDS }).await;
        };
        tokio::select! {
            carried = copy_bidirectional(&mut stream, &mut there) => carried.map(drop),
            () = another => Ok(()),
        }
    }
}

/// A connection to the leader's listener for other control planes.
async fn dial(leader: &Member, tls: Option<&Tls>) -> io::Result<Stream> {
    let there = timeout(PATIENCE, TcpStream::connect(&leader.addresses.replica)).await.map_err(io::Error::other)??;
    let _ = there.set_nodelay(true);
    match tls {
        Some(tls) => timeout(PATIENCE, tls.connect_replica(&leader.host_name, there)).await.map_err(io::Error::other)?,
        None => Ok(Stream::from(there)),
    }
}

/// Whether a request for this path is about this very process.
pub(crate) fn is_own(path: &str) -> bool {
    OWN.contains(&path)
}

/// Whether a connection begins with a request about this process.
async fn asks_for_our_own(stream: &mut Stream) -> bool {
    /// With the byte behind the path.
    const LONGEST: usize = "GET /metrics ".len();
    loop {
        let begun = stream.ahead();
        let lines = || OWN.iter().flat_map(|path| [format!("GET {path} "), format!("GET {path}?")]);
        if lines().any(|line| begun.starts_with(line.as_bytes())) {
            return true;
        }
        if !lines().any(|line| line.as_bytes().starts_with(begun)) {
            return false;
        }
        if !matches!(stream.look_ahead(LONGEST - begun.len()).await, Ok(1..)) {
            return false;
        }
    }
}

/// Serves what other control planes carry here.
pub(crate) fn listen_inside(supervisor: &Supervisor, listener: Arc<TcpListener>, inside: Inside) {
    let parent = supervisor.clone();
    supervisor.restarting("replica_listener", Backoff::EDGE, move || serve_inside(listener.clone(), inside.clone(), parent.clone()));
}

#[cfg(test)]
mod tests;
