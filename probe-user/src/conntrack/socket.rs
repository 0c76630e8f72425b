//! Sockets of `NETLINK_NETFILTER`: one that is told what happens to translated connections, one that is asked which there are.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::Path;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sched::CloneFlags;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::conntrack::message::{
    CTA_STATUS, Entry, IPS_DST_NAT, IPS_SRC_NAT, Message, count_request, dump_all_request, dump_request, parse,
};

/// Multicast group `NFNLGRP_CONNTRACK_NEW`. There are others for changes and for the end of an entry. They are not joined: an entry's addresses are
/// settled before it is told as new, and each message costs whoever sends and receives the packets, translated or not.
const GROUP_NEW: u32 = 1;

/// A datagram of a dump has at most this; the kernel fills what the reader offers.
const DATAGRAM_MAX: usize = 32 * 1024;

/// The kernel answers a dump from memory. One that does not answer is broken.
const ANSWERED_WITHIN_SECONDS: i64 = 10;

/// A socket that is told of new connections that are translated.
pub struct Events {
    socket: Socket,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("descriptor", &self.as_raw_fd()).finish_non_exhaustive()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Events {
    /// Subscribes in the calling thread's network namespace. From here on the kernel makes a message of every connection that it tracks; those
    /// that are not translated end at the socket's filter, unless `unmarked` ones may be translated as well.
    fn open(receive_bytes: usize, unmarked: bool) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        // Beyond the system's limit, for whoever may; else as far as it goes.
        if setsockopt(&socket, sockopt::RcvBufForce, &receive_bytes).is_err() {
            socket.set_rx_buf_sz(receive_bytes)?;
        }
        if !unmarked {
            attach_filter(&socket)?;
        }
        socket.bind_auto()?;
        socket.add_membership(GROUP_NEW)?;
        Ok(Events { socket, buffer: Vec::with_capacity(DATAGRAM_MAX) })
    }

    /// The socket as something that the runtime waits for.
    ///
    /// # Errors
    /// Outside a runtime, or without room for one more descriptor.
    #[expect(unsafe_code, reason = "the runtime has to be promised that the descriptor stays")]
    pub fn wakeable(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: `as_raw_fd` is always the descriptor of the socket within, which is open as long as that is, and nothing else closes it.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }

    /// Reads one datagram, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when there is none, and `ENOBUFS` once when some did not find room.
    pub fn read(&mut self) -> io::Result<&[u8]> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT)?;
        Ok(&self.buffer)
    }
}

/// A socket that is asked which translated connections there are.
pub struct Questions {
    socket: Socket,
    /// Cookie of the namespace; 0 when the kernel has none.
    pub network_namespace: u64,
    /// IPVS is there, which translates without a mark in the status: connections are told by their addresses, and none is left out by the kernel.
    pub unmarked: bool,
}

impl std::fmt::Debug for Questions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Questions").field("network_namespace", &self.network_namespace).finish_non_exhaustive()
    }
}

impl Questions {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWERED_WITHIN_SECONDS, 0))?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let network_namespace = crate::sockets::namespace_cookie(&socket).unwrap_or(0);
        Ok(Questions { socket, network_namespace, unmarked: has_ipvs() })
    }

    /// Asks how many there are: whether there is an answer at all.
    fn try_out(&self) -> io::Result<()> {
        self.socket.send(&count_request(), 0)?;
        let mut buffer = Vec::with_capacity(DATAGRAM_MAX);
        self.socket.recv(&mut buffer, 0)?;
        match parse(&buffer).next() {
            Some(Ok(Message::Answer(code))) if code != 0 => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            _ => Ok(()),
        }
    }

    /// Hands every translated connection to `each`, until that returns false. Blocks. A connection may be told twice.
    ///
    /// # Errors
    /// When there is no connection tracking in the kernel, or no right to ask it.
    pub fn dump(&self, mut each: impl FnMut(Entry) -> bool) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(DATAGRAM_MAX);
        // One filter cannot ask for either bit.
        let requests = if self.unmarked {
            vec![dump_all_request()]
        } else {
            vec![dump_request(IPS_DST_NAT, IPS_DST_NAT), dump_request(IPS_SRC_NAT, IPS_SRC_NAT | IPS_DST_NAT)]
        };
        for request in requests {
            self.socket.send(&request, 0)?;
            let mut more = true;
            'answer: loop {
                buffer.clear();
                self.socket.recv(&mut buffer, 0)?;
                for message in parse(&buffer) {
                    match message {
                        // The rest of an answer that nobody wants is read all the same: the socket is used again.
                        Ok(Message::Entry(entry)) if entry.is_translated() => more = more && each(entry),
                        Ok(Message::Done(0) | Message::Answer(0)) => break 'answer,
                        Ok(Message::Done(code) | Message::Answer(code)) => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
                        Ok(_) => {}
                        Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                    }
                }
            }
            if !more {
                break;
            }
        }
        Ok(())
    }
}

/// How many connections are tracked in the network namespace of whoever reads it. There is no such file where nothing is.
const TRACKED: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// Opens both sockets in a network namespace, given by its file; `None` for the one where the probe runs. None are opened where no connection
/// is tracked: to ask would be to load the kernel's modules for it.
///
/// # Errors
/// When the namespace cannot be entered, or connection tracking cannot be asked: the module `nf_conntrack_netlink` is missing, or the right to.
pub fn open(namespace: Option<&Path>, receive_bytes: usize) -> io::Result<Option<(Questions, Events)>> {
    within(namespace, || {
        let tracked = std::fs::read_to_string(TRACKED).ok().and_then(|text| text.trim_ascii().parse::<u64>().ok());
        if tracked.unwrap_or(0) == 0 {
            return Ok(None);
        }
        let questions = Questions::open()?;
        questions.try_out()?;
        let events = Events::open(receive_bytes, questions.unmarked)?;
        Ok(Some((questions, events)))
    })
}

/// Whether the kernel balances load itself (IPVS), in the network namespace of the calling thread: `kube-proxy` in its IPVS mode has it do so.
fn has_ipvs() -> bool {
    Path::new("/proc/thread-self/net/ip_vs").exists()
}

/// The same of a network namespace, as for [`open`].
///
/// # Errors
/// When the namespace cannot be entered.
pub fn balances(namespace: Option<&Path>) -> io::Result<bool> {
    within(namespace, || Ok(has_ipvs()))
}

/// Does something in a network namespace, on a thread that ends with it: no other thread is ever in a foreign namespace. A socket stays in the
/// namespace where it was made.
fn within<T: Send>(namespace: Option<&Path>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let Some(namespace) = namespace else { return work() };
    std::thread::scope(|scope| {
        let entered = std::thread::Builder::new().name("conntrack".to_owned()).spawn_scoped(scope, || {
            nix::sched::setns(File::open(namespace)?.as_fd(), CloneFlags::CLONE_NEWNET)?;
            work()
        })?;
        entered.join().map_err(|_| io::Error::other("the thread that enters the namespace panicked"))?
    })
}

/// Lets messages through whose status says that something was translated; and those without a status, which do not exist.
///
/// The kernel runs it before the message is queued: a node whose connections are not translated never wakes the probe, and fills no buffer.
fn attach_filter(socket: &Socket) -> io::Result<()> {
    const AT_ATTRIBUTES: u32 = 16 + 4;
    /// Ancillary data of classic BPF: position of the attribute whose kind is in X, from the position in A; 0 when there is none.
    const FIND_ATTRIBUTE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_NLATTR).cast_unsigned();
    const PASS: u32 = u32::MAX;
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt, jf, k };
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_IMM, 0, 0, AT_ATTRIBUTES),
        instruction(libc::BPF_LDX | libc::BPF_IMM, 0, 0, CTA_STATUS.into()),
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, FIND_ATTRIBUTE),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 3, 0, 0),
        instruction(libc::BPF_MISC | libc::BPF_TAX, 0, 0, 0),
        // Behind the attribute's own header; in network order, as the attribute is.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, 0, 0, 4),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, IPS_SRC_NAT | IPS_DST_NAT),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, PASS),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: u16::try_from(program.len()).unwrap_or(0), filter: program.as_mut_ptr() };
    Ok(setsockopt(socket, AttachFilter, &filter)?)
}

/// `SO_ATTACH_FILTER`. The kernel copies the program.
#[derive(Clone, Copy, Debug)]
struct AttachFilter;
nix::setsockopt_impl!(
    AttachFilter,
    libc::SOL_SOCKET,
    libc::SO_ATTACH_FILTER,
    libc::sock_fprog,
    nix::sys::socket::sockopt::SetStruct<'_, libc::sock_fprog>
);
