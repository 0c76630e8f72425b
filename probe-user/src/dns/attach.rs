//! Where the programs that see answers are attached, and for how long. Pure: what happens goes in, what is to be done comes out.
//!
//! A server on this machine is listened to for as long as it is there: all its clients' answers leave its socket. A process that asks a server
//! elsewhere is listened to for as long as its cgroup goes on asking. Nobody else's packets are looked at, unless more cgroups ask than can be listened
//! to one by one: then many of them are listened to where they have a cgroup above them in common.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::Mode;
use crate::observation::BootNanos;

/// Most places where a program is attached at a time. The one that was idle for longest leaves for another, if it was idle for a while at all.
pub const PLACES_MAX: usize = 64;

/// So many that have a cgroup above them in common are listened to there when there is no room for one more.
pub const SIBLINGS_MIN: usize = PLACES_MAX / 4;

/// Cgroups of which it is remembered where they are listened to.
const BELOW_MAX: usize = 4_096;

/// How long after its last question a cgroup is listened to.
pub const HOLD: Duration = Duration::from_secs(30);

/// What was in use this recently does not leave for another.
pub const BUSY: Duration = Duration::from_secs(5);

/// A server that has not answered anybody for this long is looked for again; it leaves if it is not found.
pub const SERVER_CONFIRMED: Duration = Duration::from_secs(300);

/// Servers are looked for at most this often.
pub const SEARCH_INTERVAL: Duration = Duration::from_secs(10);

/// Most servers of this machine that are known.
pub const SERVERS_MAX: usize = 1_024;

/// id of the root of the cgroup hierarchy.
const ROOT: u64 = 1;

/// Which way of a cgroup's packets is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// What its sockets receive: answers for clients.
    Ingress,
    /// What its sockets send: answers of servers.
    Egress,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which packets.
    pub hook: Hook,
    /// Of which cgroup, and of those below it.
    pub cgroup_id: u64,
}

/// A socket of this machine that waits for datagrams on the port of DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    /// The kernel's number of the socket, never used again; 0 when unknown.
    pub socket: u64,
    /// cgroup v2 id of the socket.
    pub cgroup_id: u64,
    /// Cookie of its network namespace; 0 when unknown.
    pub network_namespace: u64,
    /// What it is bound to; unspecified when to all.
    pub address: IpAddr,
}

/// A question that a process of this machine is about to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// cgroup v2 id of the process.
    pub cgroup_id: u64,
    /// Cookie of its network namespace; 0 when unknown.
    pub network_namespace: u64,
    /// Whom it asks.
    pub server: IpAddr,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Attach a program. Whether it worked is told by [`Attachments::attached`].
    Attach(Place),
    /// Detach it.
    Detach(Place),
    /// Look for servers on this machine, and tell [`Attachments::found`].
    Search,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    used_at: BootNanos,
    /// The kernel refused it. Kept as if it were attached, so that it is not tried at every question.
    refused: bool,
}

/// Finds the cgroups above one, the nearest first, without the root of the hierarchy; none when it is not there.
pub struct Above(pub Box<dyn Fn(u64) -> Vec<u64> + Send>);

impl Default for Above {
    /// Knows of none.
    fn default() -> Self {
        Above(Box::new(|_| Vec::new()))
    }
}

impl fmt::Debug for Above {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Above")
    }
}

/// All attachments.
#[derive(Debug)]
pub struct Attachments {
    mode: Mode,
    above: Above,
    /// Places that stand for many below them.
    common: BTreeSet<u64>,
    /// Of cgroups that asked: the place that stands for them.
    below: HashMap<u64, u64>,
    /// Cgroups where the kernel refused to have that.
    not_common: BTreeSet<u64>,
    /// When it was last looked for such a place.
    gathered_at: Option<BootNanos>,
    places: BTreeMap<Place, Held>,
    servers: BTreeSet<Server>,
    /// Addresses of this machine's interfaces.
    own_addresses: BTreeSet<IpAddr>,
    searched_at: Option<BootNanos>,
    /// The last search had no time for all of the machine.
    unfinished: bool,
    evicted: u64,
    refused: u64,
}

impl Attachments {
    /// None yet.
    pub fn new(mode: Mode, above: Above) -> Self {
        Attachments {
            mode,
            above,
            common: BTreeSet::new(),
            below: HashMap::new(),
            not_common: BTreeSet::new(),
            gathered_at: None,
            places: BTreeMap::new(),
            servers: BTreeSet::new(),
            own_addresses: BTreeSet::new(),
            searched_at: None,
            unfinished: false,
            evicted: 0,
            refused: 0,
        }
    }

    /// What is to be done first.
    pub fn start(&mut self, now: BootNanos, effects: &mut Vec<Effect>) {
        match self.mode {
            Mode::Auto => self.search(now, effects),
            Mode::All => self.hold(now, Place { hook: Hook::Ingress, cgroup_id: ROOT }, effects),
            Mode::Off => {}
        }
    }

    /// Names are looked for in another way from now on. Nothing is left before what takes its place is there.
    pub fn set_mode(&mut self, now: BootNanos, mode: Mode, effects: &mut Vec<Effect>) {
        if mode == self.mode {
            return;
        }
        let before = std::mem::take(&mut self.places);
        let attached = |place: &Place| before.get(place).is_some_and(|held| !held.refused);
        *self = Attachments {
            evicted: self.evicted,
            refused: self.refused,
            own_addresses: std::mem::take(&mut self.own_addresses),
            ..Attachments::new(mode, std::mem::take(&mut self.above))
        };
        let from = effects.len();
        self.start(now, effects);
        let begun = effects.split_off(from);
        effects.extend(begun.into_iter().filter(|effect| !matches!(effect, Effect::Attach(place) if attached(place))));
        effects.extend(before.keys().filter(|place| attached(place) && !self.places.contains_key(place)).copied().map(Effect::Detach));
    }

    /// A process asks.
    pub fn asked(&mut self, now: BootNanos, question: Question, effects: &mut Vec<Effect>) {
        if self.mode != Mode::Auto || question.cgroup_id == 0 || self.serves(&question) {
            return;
        }
        self.hold(now, Place { hook: Hook::Ingress, cgroup_id: question.cgroup_id }, effects);
        // Nobody is known to serve there, and somebody should: a server that is new.
        if question.server.is_loopback() || self.own_addresses.contains(&question.server) {
            self.search(now, effects);
        }
    }

    /// A server began, or was found by what it does.
    pub fn serving(&mut self, now: BootNanos, server: Server, effects: &mut Vec<Effect>) {
        if self.mode != Mode::Auto || server.cgroup_id == 0 {
            return;
        }
        let known = server.socket == 0 && self.servers.iter().any(|known| known.cgroup_id == server.cgroup_id);
        if !known && self.servers.len() < SERVERS_MAX {
            self.servers.insert(server);
        }
        self.hold(now, Place { hook: Hook::Egress, cgroup_id: server.cgroup_id }, effects);
    }

    /// A search ended: the servers that there are, all of them if it is `complete`, and the addresses of the machine's interfaces.
    pub fn found(&mut self, now: BootNanos, servers: Vec<Server>, complete: bool, own_addresses: Vec<IpAddr>, effects: &mut Vec<Effect>) {
        self.own_addresses = own_addresses.into_iter().collect();
        self.unfinished = !complete;
        if complete {
            self.servers.clear();
        }
        for server in servers {
            self.serving(now, server, effects);
        }
        if complete {
            self.leave_servers_that_are_gone(effects);
        }
    }

    /// A socket waits for datagrams no longer.
    pub fn closed(&mut self, socket: u64, effects: &mut Vec<Effect>) {
        let before = self.servers.len();
        self.servers.retain(|server| server.socket != socket);
        if self.servers.len() < before {
            self.leave_servers_that_are_gone(effects);
        }
    }

    /// An answer was seen at a place.
    pub fn answered(&mut self, now: BootNanos, place: Place) {
        if let Some(held) = self.places.get_mut(&place) {
            held.used_at = now;
        }
    }

    /// A cgroup was removed. The kernel has detached what was attached to it.
    pub fn removed(&mut self, cgroup_id: u64, effects: &mut Vec<Effect>) {
        self.servers.retain(|server| server.cgroup_id != cgroup_id);
        self.below.remove(&cgroup_id);
        self.not_common.remove(&cgroup_id);
        for hook in [Hook::Ingress, Hook::Egress] {
            self.release(Place { hook, cgroup_id }, effects);
        }
    }

    /// Whether a program could be attached.
    pub fn attached(&mut self, place: Place, worked: bool) {
        if worked {
            return;
        }
        let Some(held) = self.places.get_mut(&place) else { return };
        held.refused = true;
        self.refused += 1;
        if place.hook == Hook::Ingress && self.common.contains(&place.cgroup_id) {
            // Those below have to be listened to one by one, as they ask again.
            self.not_common.insert(place.cgroup_id);
            self.forget(place);
        }
    }

    /// Detaches what has been idle for long enough.
    pub fn tick(&mut self, now: BootNanos, effects: &mut Vec<Effect>) {
        let idle = |held: &Held, longest: Duration| now >= after(held.used_at, longest);
        let asking_no_more: Vec<Place> = self.temporary().filter(|(_, held)| idle(held, HOLD)).map(|(place, _)| place).collect();
        asking_no_more.into_iter().for_each(|place| self.release(place, effects));
        let silent =
            self.mode == Mode::Auto && self.places.iter().any(|(place, held)| place.hook == Hook::Egress && idle(held, SERVER_CONFIRMED));
        if silent || self.mode == Mode::Auto && self.unfinished {
            self.search(now, effects);
        }
    }

    /// When [`Attachments::tick`] has work.
    pub fn next_deadline(&self) -> Option<BootNanos> {
        let idle = self.temporary().map(|(_, held)| after(held.used_at, HOLD)).min();
        let silent = self.places.iter().filter(|(place, _)| self.mode == Mode::Auto && place.hook == Hook::Egress);
        let silent = silent.map(|(_, held)| after(held.used_at, SERVER_CONFIRMED)).min();
        let searched = self.searched_at.map_or(BootNanos(0), |at| after(at, SEARCH_INTERVAL));
        let unfinished = (self.mode == Mode::Auto && self.unfinished).then_some(searched);
        [idle, silent.map(|at| at.max(searched)), unfinished].into_iter().flatten().min()
    }

    /// How many programs are attached.
    pub fn len(&self) -> usize {
        self.places.values().filter(|held| !held.refused).count()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Attachments that left early, or were not made, because there were too many.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Attachments that the kernel refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Places that are left when nobody asks there.
    fn temporary(&self) -> impl Iterator<Item = (Place, &Held)> {
        let places = self.places.iter().map(|(place, held)| (*place, held));
        places.filter(|(place, _)| self.mode == Mode::Auto && place.hook == Hook::Ingress)
    }

    /// Whether the server that is asked is known to be on this machine, where its answers are seen as they leave it.
    fn serves(&self, question: &Question) -> bool {
        let listened_to = |cgroup_id| self.places.get(&Place { hook: Hook::Egress, cgroup_id }).is_some_and(|held| !held.refused);
        self.servers.iter().filter(|server| listened_to(server.cgroup_id)).any(|server| {
            let here =
                server.network_namespace == question.network_namespace || server.network_namespace == 0 || question.network_namespace == 0;
            if server.address.is_unspecified() {
                // A namespace's own addresses are not known, but for the machine's.
                here && (question.server.is_loopback() || self.own_addresses.contains(&question.server))
            } else {
                server.address == question.server && (here || !question.server.is_loopback())
            }
        })
    }

    fn leave_servers_that_are_gone(&mut self, effects: &mut Vec<Effect>) {
        let cgroups: BTreeSet<u64> = self.servers.iter().map(|server| server.cgroup_id).collect();
        let left = |place: &Place| place.hook == Hook::Egress && !cgroups.contains(&place.cgroup_id);
        let left: Vec<Place> = self.places.keys().copied().filter(left).collect();
        left.into_iter().for_each(|place| self.release(place, effects));
    }

    fn hold(&mut self, now: BootNanos, place: Place, effects: &mut Vec<Effect>) {
        if let Some(held) = self.places.get_mut(&place) {
            held.used_at = held.used_at.max(now);
            return;
        }
        if self.is_held_above(now, place) {
            return;
        }
        if self.places.len() >= PLACES_MAX && self.gather(now, effects) && self.is_held_above(now, place) {
            return;
        }
        if self.places.len() >= PLACES_MAX {
            self.evicted += 1;
            // Clients first: they can ask again.
            let oldest = self.places.iter().min_by_key(|(place, held)| (place.hook, !held.refused, held.used_at));
            match oldest.map(|(place, held)| (*place, held.used_at)) {
                Some((oldest, used_at)) if now >= after(used_at, BUSY) => self.release(oldest, effects),
                // Attaching and detaching in turn would cost more than it shows.
                _ => return,
            }
        }
        self.places.insert(place, Held { used_at: now, refused: false });
        effects.push(Effect::Attach(place));
    }

    /// Whether a place that stands for many stands for this one: then it is in use.
    fn is_held_above(&mut self, now: BootNanos, place: Place) -> bool {
        if self.common.is_empty() || place.hook != Hook::Ingress {
            return false;
        }
        let above = match self.below.get(&place.cgroup_id) {
            Some(above) => *above,
            None => {
                let above = (self.above.0)(place.cgroup_id);
                let Some(above) = above.into_iter().find(|it| self.common.contains(it)) else { return false };
                if self.below.len() >= BELOW_MAX {
                    self.below.clear();
                }
                self.below.insert(place.cgroup_id, above);
                above
            }
        };
        let held = self.places.get_mut(&Place { hook: Hook::Ingress, cgroup_id: above });
        held.is_some_and(|held| {
            held.used_at = held.used_at.max(now);
            true
        })
    }

    /// Makes room: many places that have a cgroup above them in common, the lowest there is, give way to one there. Whether there was one.
    fn gather(&mut self, now: BootNanos, effects: &mut Vec<Effect>) -> bool {
        if self.mode != Mode::Auto || self.gathered_at.is_some_and(|at| now < after(at, BUSY)) {
            return false;
        }
        self.gathered_at = Some(now);
        let asking = self.places.iter().filter(|(place, held)| place.hook == Hook::Ingress && !held.refused);
        let asking: Vec<(Place, Vec<u64>)> = asking.map(|(place, _)| (*place, (self.above.0)(place.cgroup_id))).collect();
        // How far down each is, and how many are below it.
        let mut shared: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        for (_, above) in &asking {
            for (depth, id) in above.iter().rev().enumerate() {
                shared.entry(*id).or_insert((depth, 0)).1 += 1;
            }
        }
        let usable = shared.iter().filter(|(id, (_, count))| *count >= SIBLINGS_MIN && !self.not_common.contains(id));
        let Some(common) = usable.max_by_key(|(_, shared)| **shared).map(|(id, _)| *id) else { return false };
        // First, so that no answer is missed meanwhile.
        let place = Place { hook: Hook::Ingress, cgroup_id: common };
        let is_new = self.places.insert(place, Held { used_at: now, refused: false }).is_none_or(|before| before.refused);
        if is_new {
            effects.push(Effect::Attach(place));
        }
        asking.into_iter().filter(|(_, above)| above.contains(&common)).for_each(|(place, _)| self.release(place, effects));
        self.common.insert(common);
        true
    }

    fn release(&mut self, place: Place, effects: &mut Vec<Effect>) {
        if self.forget(place).is_some_and(|held| !held.refused) {
            effects.push(Effect::Detach(place));
        }
    }

    fn forget(&mut self, place: Place) -> Option<Held> {
        if place.hook == Hook::Ingress && self.common.remove(&place.cgroup_id) {
            self.below.retain(|_, above| *above != place.cgroup_id);
        }
        self.places.remove(&place)
    }

    fn search(&mut self, now: BootNanos, effects: &mut Vec<Effect>) {
        if self.searched_at.is_none_or(|at| now >= after(at, SEARCH_INTERVAL)) {
            self.searched_at = Some(now);
            effects.push(Effect::Search);
        }
    }
}

fn after(at: BootNanos, duration: Duration) -> BootNanos {
    BootNanos(at.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests;
