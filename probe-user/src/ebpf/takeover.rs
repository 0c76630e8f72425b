//! What an earlier probe's programs have counted while no probe lived, and what this one must not count again.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use probe_common::{CountedSocket, ListenerRecord, counter};

use super::load::{self, CENSUS, FOLD, LISTENING, Loaded};
use super::pins::{self, Found};
use super::{decode, drain, sys};
use crate::clock::Now;
use crate::observation::Observation;
use crate::sockets::SocketRecord;

/// Connections of which it is known that they are counted. More may be: they would be counted twice.
pub(super) const COUNTED_MAX: usize = 262_144;

/// The connections that the programs have counted as opened, and will count as closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountedSockets {
    /// As iterators find them.
    addresses: HashSet<u64>,
    /// As `sock_diag` finds them: cookies, which before Linux 5.11 are unique in a network namespace alone, and both ports.
    cookies: HashSet<(u64, u16, u16)>,
}

impl CountedSockets {
    /// Whether a connected socket is one of them.
    pub fn contain(&self, socket: &SocketRecord) -> bool {
        if socket.address != 0 {
            return self.addresses.contains(&socket.address);
        }
        let (one, other) = (socket.local.1, socket.remote.1);
        self.cookies.contains(&(socket.cookie, one.min(other), one.max(other)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Whether it was not among them.
    fn add(&mut self, counted: &CountedSocket) -> bool {
        let (one, other) = (counted.client_port, counted.key.server_port);
        let is_new = self.addresses.insert(counted.socket);
        if counted.cookie != 0 {
            self.cookies.insert((counted.cookie, one.min(other), one.max(other)));
        }
        is_new
    }
}

impl<'a> FromIterator<&'a CountedSocket> for CountedSockets {
    fn from_iter<I: IntoIterator<Item = &'a CountedSocket>>(sockets: I) -> Self {
        let mut counted = CountedSockets::default();
        for socket in sockets {
            counted.add(socket);
        }
        counted
    }
}

/// What was taken over.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    /// What the rings of other programs still held, and the flows of open connections.
    pub(super) observations: Vec<Observation>,
    /// Ends of connections that are in these flows, and in no table of this probe's.
    pub(super) told_ends: u64,
    /// Connections that are counted.
    pub(super) counted: CountedSockets,
    /// Whether there was anything.
    pub(super) taken_over: bool,
}

/// Takes over what there is. The programs of this probe are on all hooks by now.
pub(super) fn run(loaded: &mut Loaded) -> Inheritance {
    let mut inheritance = Inheritance::default();
    let found = loaded.pins.as_ref().map_or(Found::Nothing, |pins| pins.found().clone());
    inheritance.taken_over = found != Found::Nothing;
    if let Found::Others(builds) = found {
        // What ran on another CPU when its hook was taken may still be adding.
        if let Err(error) = sys::wait_for_programs() {
            tracing::warn!(%error, "kernel does not tell when earlier programs have ended");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        for build in builds {
            if let Err(error) = fold(loaded, &build, &mut inheritance) {
                tracing::warn!(%error, build = %build.display(), "counts of earlier programs are lost");
            }
            if let Err(error) = pins::remove(&build) {
                tracing::warn!(%error, build = %build.display(), "tables of earlier programs cannot be removed");
            }
        }
    }
    if inheritance.taken_over
        && let Err(error) = census(loaded, &mut inheritance)
    {
        tracing::warn!(%error, "connections that are counted already cannot be told from others");
    }
    inheritance
}

/// Adds the edges of other programs to this probe's, and reads what is left in their rings.
fn fold(loaded: &mut Loaded, build: &Path, inheritance: &mut Inheritance) -> io::Result<()> {
    for ring in ["sockets-NETWORK_RING", "processes-PROCESS_RING"] {
        let Ok(map) = MapData::from_pin(build.join(ring)) else { continue };
        let Ok(mut ring) = Map::from_map_data(map).and_then(RingBuf::try_from) else { continue };
        while let Some(record) = ring.next() {
            decode::record(&record, &mut inheritance.observations);
        }
    }
    let edges = sys::open_pin(&build.join(pins::edges_name()))?;
    if let Some(program) = loaded.sockets.program(FOLD).and_then(|program| program.fd().ok()) {
        let link = sys::link_map_iterator(program.as_fd(), edges.as_fd())?;
        io::copy(&mut sys::open_iterator(link.as_fd())?, &mut io::sink())?;
    } else {
        // They are told as they are; connections that go on begin anew in the table of this probe.
        drain::each_edge(edges.as_fd(), |key, value| {
            inheritance.told_ends += u64::from(value.opened);
            decode::left(key, value, &mut inheritance.observations);
        })?;
    }
    // Ends that they have seen and that are in the table of this probe now or told, without a callback of its own programs.
    let counters = MapData::from_pin(build.join("sockets-COUNTERS")).and_then(Map::from_map_data).and_then(PerCpuArray::try_from);
    let seen = drain::sum(counters.ok().as_ref(), counter::ENDS_SEEN);
    let settled = pins::read_control(&build.join("sockets-CONTROL"))?.settled_ends;
    let moved = seen.wrapping_sub(settled);
    loaded.controls.tell(loaded.controls.settled_ends().wrapping_sub(moved));
    Ok(())
}

/// Asks every socket whether its connection is counted, or whether it is a listener that was told.
fn census(loaded: &Loaded, inheritance: &mut Inheritance) -> io::Result<()> {
    let at = Now::read().boot;
    // A socket that several descriptors lead to may be told several times.
    for counted in walk::<CountedSocket>(loaded, CENSUS)? {
        if inheritance.counted.add(&counted) {
            inheritance.observations.push(decode::counted_socket(at, &counted));
        }
    }
    let mut listeners = HashSet::new();
    for listener in walk::<ListenerRecord>(loaded, LISTENING)?.iter().filter(|listener| listeners.insert(listener.cookie)) {
        inheritance.observations.push(decode::listener(at, listener));
    }
    Ok(())
}

/// What a program over all sockets with storage writes.
fn walk<T: aya::Pod>(loaded: &Loaded, program: &str) -> io::Result<Vec<T>> {
    let Some(Map::SkStorage(owners)) = loaded.sockets.map("OWNERS") else { return Err(io::Error::other("no map of owners")) };
    let link = load::bind_over_sockets(&loaded.sockets, program, owners.fd().as_fd());
    let link = link.ok_or_else(|| io::Error::other("no program for it"))??;
    records(link.as_fd())
}

/// What a bound program writes, as far as there is room for it.
pub(super) fn records<T: aya::Pod>(link: BorrowedFd<'_>) -> io::Result<Vec<T>> {
    let mut bytes = Vec::new();
    sys::open_iterator(link)?.take((size_of::<T>() * COUNTED_MAX) as u64).read_to_end(&mut bytes)?;
    Ok(bytes.chunks_exact(size_of::<T>()).filter_map(decode::read::<T>).collect())
}
