//! The address that a UDP socket sends from, where it was not bound to one: the kernel decides it by route, datagram by datagram, and is asked
//! here what it would decide. By `RTM_GETROUTE`, in the socket's own network namespace.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::time::TimeVal;

use crate::observation::{Direction, FlowEnd, Observation, Protocol};
use crate::procfs::{Arguments, Procfs};
use crate::sockets::{self, Namespace};

/// Answers that are remembered. When there are more, all are asked for again.
const ANSWERS_MAX: usize = 16_384;

/// How long an answer holds: a host may get another address.
const ANSWER_KEPT: Duration = Duration::from_secs(60);
/// How long it holds that there is none.
const NO_ANSWER_KEPT: Duration = Duration::from_secs(5);

/// Namespaces that are kept open. The one that was not asked for longest goes first.
const NAMESPACES_MAX: usize = 128;

/// How often all processes are looked through, in the long run, for a namespace that is not known by any of its processes; and how often at once,
/// for namespaces that are met together.
const SEARCH_INTERVAL: Duration = Duration::from_millis(500);
const SEARCH_BURST: u32 = 4;

/// Routes are looked up in memory: a kernel that takes longer is not asked.
const ANSWERED_WITHIN: i64 = 100;

/// Finds addresses, and remembers them. May be used from any thread.
#[derive(Debug, Clone)]
pub(super) struct OwnAddresses(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    procfs: Procfs,
    answers: HashMap<(u64, IpAddr), (Option<IpAddr>, Instant)>,
    namespaces: HashMap<u64, Route>,
    /// Cookies of namespaces by inode, of those that were met in a search.
    cookies: HashMap<u64, u64>,
    searches: Searches,
}

/// How many searches are left.
#[derive(Debug)]
struct Searches {
    left: u32,
    filled_at: Instant,
}

impl Searches {
    fn new(now: Instant) -> Self {
        Searches { left: SEARCH_BURST, filled_at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        while self.left < SEARCH_BURST && now.saturating_duration_since(self.filled_at) >= SEARCH_INTERVAL {
            self.left += 1;
            self.filled_at += SEARCH_INTERVAL;
        }
        if self.left == SEARCH_BURST {
            self.filled_at = now;
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

/// A way to ask for routes in a namespace.
struct Route {
    socket: Socket,
    asked_at: Instant,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").finish_non_exhaustive()
    }
}

impl OwnAddresses {
    /// `proc_root` is where processes are found, whose namespaces are entered.
    pub(super) fn new(proc_root: PathBuf) -> Self {
        let procfs = Procfs::new(proc_root, Arguments::Hide);
        OwnAddresses(Arc::new(Mutex::new(Inner {
            procfs,
            answers: HashMap::new(),
            namespaces: HashMap::new(),
            cookies: HashMap::new(),
            searches: Searches::new(Instant::now()),
        })))
    }

    /// Fills in what is missing in flows of UDP.
    pub(super) fn fill(&self, observations: &mut [Observation]) {
        for observation in observations {
            if let Observation::FlowSeen { end, .. } | Observation::FlowCounted { end, .. } = observation {
                *end = self.filled(*end);
            }
        }
    }

    /// A flow with the address of this end. As it is when nothing can be found out.
    pub(super) fn filled(&self, mut end: FlowEnd) -> FlowEnd {
        if end.protocol != Protocol::Udp {
            return end;
        }
        let (own, peer) = match end.direction {
            Direction::Client => (&mut end.client_address, &mut end.server_address),
            Direction::Server => (&mut end.server_address, &mut end.client_address),
        };
        // Whoever sends to no address sends to itself.
        *peer = match *peer {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            address => address,
        };
        if own.is_unspecified() {
            let unknown = if peer.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
            let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *own = inner.towards(end.network_namespace, end.pid, *peer).unwrap_or(unknown);
        }
        end
    }
}

impl Inner {
    fn towards(&mut self, namespace: u64, pid: u32, peer: IpAddr) -> Option<IpAddr> {
        let now = Instant::now();
        if let Some((answer, at)) = self.answers.get(&(namespace, peer)) {
            let kept = if answer.is_some() { ANSWER_KEPT } else { NO_ANSWER_KEPT };
            if now.duration_since(*at) < kept {
                return *answer;
            }
        }
        let answer = self.route(namespace, pid, now).and_then(|route| route.ask(peer, now));
        if let Err(error) = &answer {
            // Its socket may be the reason.
            self.namespaces.remove(&namespace);
            if error.kind() == io::ErrorKind::WouldBlock {
                // Nobody has looked: that is no answer to be remembered.
                return None;
            }
        }
        let answer = answer.unwrap_or_default();
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.clear();
        }
        self.answers.insert((namespace, peer), (answer, now));
        answer
    }

    fn route(&mut self, namespace: u64, pid: u32, now: Instant) -> io::Result<&mut Route> {
        if !self.namespaces.contains_key(&namespace) {
            self.enter(namespace, pid, now)?;
        }
        self.namespaces.get_mut(&namespace).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Opens a namespace: through the process that was seen in it, or, when that has ended, through any other.
    fn enter(&mut self, namespace: u64, pid: u32, now: Instant) -> io::Result<()> {
        if self.namespaces.len() >= NAMESPACES_MAX
            && let Some(oldest) = self.namespaces.iter().min_by_key(|(_, route)| route.asked_at).map(|(cookie, _)| *cookie)
        {
            self.namespaces.remove(&oldest);
        }
        let own = sockets::own_namespace();
        if let Some(inode) = self.procfs.network_namespace(pid) {
            let place = Namespace { inode, pids: vec![pid] };
            if let Ok((cookie, socket)) = open(&self.procfs, &place, own)
                // Kernels before 5.14 do not tell: then the process is believed.
                && cookie.is_none_or(|cookie| cookie == namespace)
            {
                self.namespaces.insert(namespace, Route { socket, asked_at: now });
                return Ok(());
            }
        }
        if !self.searches.take(now) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let pids = self.procfs.pids()?;
        let places = sockets::namespaces(&self.procfs, &pids);
        self.cookies.retain(|inode, _| places.iter().any(|place| place.inode == *inode));
        for place in places {
            // Each is entered once to learn its cookie, and again when it is the one.
            if self.cookies.get(&place.inode).is_some_and(|known| *known != namespace) {
                continue;
            }
            let Ok((Some(cookie), socket)) = open(&self.procfs, &place, own) else { continue };
            self.cookies.insert(place.inode, cookie);
            if cookie == namespace {
                self.namespaces.insert(namespace, Route { socket, asked_at: now });
                return Ok(());
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A socket in a namespace, and the namespace's cookie. A socket stays in the namespace where it was made, so the thread that goes there ends
/// with it.
fn open(procfs: &Procfs, namespace: &Namespace, own: Option<u64>) -> io::Result<(Option<u64>, Socket)> {
    let here = || -> io::Result<(Option<u64>, Socket)> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        nix::sys::socket::setsockopt(&socket.as_fd(), ReceiveTimeout, &TimeVal::new(0, ANSWERED_WITHIN * 1_000))?;
        Ok((sockets::namespace_cookie(&socket).ok(), socket))
    };
    if Some(namespace.inode) == own {
        return here();
    }
    std::thread::scope(|scope| {
        let there = std::thread::Builder::new()
            .name("own-address".to_owned())
            .spawn_scoped(scope, || sockets::enter(procfs, namespace).and_then(|()| here()))?;
        there.join().map_err(|_| io::Error::other("the thread that enters a namespace panicked"))?
    })
}

impl Route {
    /// The address that would be sent from; `None` without a route.
    fn ask(&mut self, peer: IpAddr, now: Instant) -> io::Result<Option<IpAddr>> {
        self.asked_at = now;
        self.socket.send(&request(peer), 0)?;
        let mut buffer = Vec::with_capacity(4_096);
        self.socket.recv(&mut buffer, 0)?;
        Ok(source(&buffer))
    }
}

const HEADER_LEN: usize = 16;
const ROUTE_LEN: usize = 12;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_PREFSRC: u16 = 7;

/// `RTM_GETROUTE` for one address (`linux/rtnetlink.h`).
fn request(peer: IpAddr) -> Vec<u8> {
    const NLM_F_REQUEST: u16 = 1;
    let (family, address) = match peer {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let length = HEADER_LEN + ROUTE_LEN + 4 + address.len();
    let mut message = Vec::with_capacity(length);
    message.extend_from_slice(&u32::try_from(length).unwrap_or(0).to_ne_bytes());
    message.extend_from_slice(&RTM_GETROUTE.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.push(u8::try_from(family).unwrap_or(0));
    message.push(u8::try_from(address.len() * 8).unwrap_or(0));
    message.extend_from_slice(&[0; ROUTE_LEN - 2]);
    message.extend_from_slice(&u16::try_from(4 + address.len()).unwrap_or(0).to_ne_bytes());
    message.extend_from_slice(&RTA_DST.to_ne_bytes());
    message.extend_from_slice(&address);
    message
}

/// The source address in an answer.
fn source(message: &[u8]) -> Option<IpAddr> {
    let half = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    if half(message, 4)? != RTM_NEWROUTE {
        return None;
    }
    let mut attributes = message.get(HEADER_LEN + ROUTE_LEN..)?;
    while let (Some(length), Some(kind)) = (half(attributes, 0).map(usize::from), half(attributes, 2)) {
        let value = attributes.get(4..length)?;
        if kind == RTA_PREFSRC {
            return match value.len() {
                4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?)),
                16 => Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?)),
                _ => None,
            };
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end(direction: Direction, own: &str, peer: &str) -> FlowEnd {
        let (own, peer) = (own.parse().unwrap(), peer.parse().unwrap());
        let (client_address, server_address) = if direction == Direction::Client { (own, peer) } else { (peer, own) };
        FlowEnd {
            pid: std::process::id(),
            start_time: None,
            cgroup_id: 0,
            network_namespace: 1,
            direction,
            protocol: Protocol::Udp,
            client_address,
            server_address,
            server_port: 53,
        }
    }

    fn filled(direction: Direction, own: &str, peer: &str) -> (String, String) {
        let mut route = Route {
            socket: open(&Procfs::new("/proc", Arguments::Hide), &Namespace::default(), Some(0)).unwrap().1,
            asked_at: Instant::now(),
        };
        route.ask("127.0.0.1".parse().unwrap(), Instant::now()).unwrap();
        let addresses = OwnAddresses::new("/proc".into());
        addresses.0.lock().unwrap().namespaces.insert(1, route);
        let end = addresses.filled(end(direction, own, peer));
        (end.client_address.to_string(), end.server_address.to_string())
    }

    #[test]
    fn an_end_without_an_address_gets_the_one_that_the_route_gives() {
        let own = |client: &str, server: &str| (client.to_owned(), server.to_owned());
        assert_eq!(filled(Direction::Client, "::", "127.0.0.1"), own("127.0.0.1", "127.0.0.1"));
        assert_eq!(filled(Direction::Client, "::", "::1"), own("::1", "::1"));
        assert_eq!(filled(Direction::Server, "::", "127.0.0.2"), own("127.0.0.2", "127.0.0.1"));
        assert_eq!(filled(Direction::Client, "0.0.0.0", "0.0.0.0"), own("127.0.0.1", "127.0.0.1"));
        // What is known stays.
        assert_eq!(filled(Direction::Client, "127.0.0.9", "127.0.0.1"), own("127.0.0.9", "127.0.0.1"));
    }

    #[test]
    fn a_namespace_that_nobody_can_enter_gives_no_address() {
        let addresses = OwnAddresses::new("/does/not/exist".into());
        let end = addresses.filled(FlowEnd { network_namespace: 99, pid: 1, ..end(Direction::Client, "::", "8.8.8.8") });
        assert_eq!(end.client_address, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            source(&bytes);
            let mut answer = request(IpAddr::V4(Ipv4Addr::LOCALHOST));
            answer[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
            answer.extend(bytes);
            source(&answer);
        }
    }
}
