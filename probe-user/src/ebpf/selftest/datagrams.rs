//! The trial of the hooks that see UDP: an exchange between two sockets of the probe, a connected socket, a look-up that is none.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::Instant;

use probe_common::{EdgeKey, EdgeValue, ListenerRecord, PROTOCOL_UDP, RecordHeader, direction, kind};

use super::{CaptureError, Hook, Maps, Outcome, Own, PATIENCE, decode, drain, fail, sys};
use crate::sockets;

/// A look-up that was interrupted for too long looks like a connection: it is tried again.
const LOOKUPS_MAX: u32 = 20;

/// Names of the hooks of one family.
struct Names {
    bind: &'static str,
    connect: &'static str,
    send: &'static str,
    receive: &'static str,
    name: &'static str,
}

const FAMILIES: [(IpAddr, Names); 2] = [
    (
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        Names { bind: "bind4", connect: "connect4", send: "sendmsg4", receive: "recvmsg4", name: "getsockname4" },
    ),
    (
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        Names { bind: "bind6", connect: "connect6", send: "sendmsg6", receive: "recvmsg6", name: "getsockname6" },
    ),
];

/// Tries both families. What is not there on this machine is not tried.
pub(super) fn run(hooks: &mut [Hook], maps: &mut Maps, outcome: &mut Outcome, own: &mut Own) -> Result<(), CaptureError> {
    for (address, names) in &FAMILIES {
        let Ok(server) = bind_below_ephemeral(*address) else { continue };
        let Ok(server_address) = server.local_addr() else { continue };
        let port = server_address.port();
        own.ports.push(port);
        let talked = talk(&server, server_address);
        let edges = own_edges(maps, port)?;
        let talks = |wanted| {
            edges.iter().any(|(key, value)| key.protocol == PROTOCOL_UDP && key.direction == wanted && value.tick != 0 && key.tgid != 0)
        };
        if talked.is_ok() {
            for (wanted, hook) in [(direction::CLIENT, names.send), (direction::SERVER, names.receive)] {
                if !talks(wanted) {
                    fail(hooks, hook, "the probe's own datagram was not seen");
                }
            }
        }
        try_connection(hooks, maps, names, server_address)?;
        drop(server);
        // What a listener tells goes through the ring, in order.
        let (opened, closed) = listener_told(maps, port, outcome, own);
        if !opened {
            fail(hooks, names.bind, "the probe's own listener was not seen");
        }
        if opened && !closed {
            fail(hooks, "release", "the end of the probe's own listener was not seen");
        }
        for (key, _) in own_edges(maps, port)? {
            sys::lookup_and_delete::<EdgeKey, EdgeValue>(maps.edges.fd().as_fd(), &key)?;
        }
    }
    Ok(())
}

/// A socket on a port that it chose, outside of those that the kernel gives away: it is a listener at once.
fn bind_below_ephemeral(address: IpAddr) -> io::Result<UdpSocket> {
    let ephemeral = sockets::ephemeral_ports();
    let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
    // Beginning somewhere, so that two probes on one machine do not meet.
    let first = 1_024 + u16::try_from(std::process::id() % 20_000).unwrap_or(0);
    for port in (first..u16::MAX).filter(|port| !ephemeral.contains(port)).take(100) {
        match UdpSocket::bind((address, port)) {
            Ok(socket) => {
                socket.set_read_timeout(Some(PATIENCE))?;
                return Ok(socket);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

/// A question and its answer.
fn talk(server: &UdpSocket, address: SocketAddr) -> io::Result<()> {
    let client = UdpSocket::bind((address.ip(), 0))?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.send_to(&[0], address)?;
    let mut buffer = [0; 1];
    let (_, asker) = server.recv_from(&mut buffer)?;
    server.send_to(&[0], asker)?;
    client.recv_from(&mut buffer)?;
    Ok(())
}

/// A socket that is connected and closed; one that is asked its name in between.
fn try_connection(hooks: &mut [Hook], maps: &Maps, names: &Names, server: SocketAddr) -> Result<(), CaptureError> {
    let connect = || -> io::Result<UdpSocket> {
        let client = UdpSocket::bind((server.ip(), 0))?;
        client.connect(server)?;
        Ok(client)
    };
    let counted = |maps: &Maps| -> io::Result<(u32, u32)> {
        let edges = own_edges(maps, server.port())?;
        Ok(edges
            .iter()
            .filter(|(key, _)| key.direction == direction::CLIENT)
            .fold((0, 0), |(opened, closed), (_, value)| (opened + value.opened, closed + value.closed)))
    };
    let Ok(client) = connect() else { return Ok(()) };
    let opened = counted(maps)?.0;
    drop(client);
    let (_, closed) = counted(maps)?;
    if opened == 0 {
        fail(hooks, names.connect, "the probe's own connected UDP socket was not seen");
        return Ok(());
    }
    if closed == 0 {
        fail(hooks, "release", "the end of the probe's own UDP socket was not seen");
        return Ok(());
    }
    for _ in 0..LOOKUPS_MAX {
        let before = counted(maps)?;
        let Ok(client) = connect() else { return Ok(()) };
        let named = client.local_addr();
        drop(client);
        if named.is_ok() && counted(maps)? == before {
            return Ok(());
        }
    }
    fail(hooks, names.name, "a socket that looked up its address was taken for a connection");
    Ok(())
}

fn own_edges(maps: &Maps, port: u16) -> io::Result<Vec<(EdgeKey, EdgeValue)>> {
    let mut edges = Vec::new();
    drain::each_edge(maps.edges.fd().as_fd(), |key, value| {
        if key.server_port == port && key.protocol == PROTOCOL_UDP {
            edges.push((*key, *value));
        }
    })?;
    Ok(edges)
}

/// Whether the ring told that a listener began and ended.
fn listener_told(maps: &mut Maps, port: u16, outcome: &mut Outcome, own: &mut Own) -> (bool, bool) {
    let began = Instant::now();
    let (mut opened, mut closed) = (None, false);
    loop {
        while let Some(record) = maps.network_ring.next() {
            let listener = decode::read::<ListenerRecord>(&record).filter(|it| it.protocol == PROTOCOL_UDP);
            match (decode::read::<RecordHeader>(&record).map(|header| header.kind), listener) {
                (Some(kind::LISTENER_OPENED), Some(told)) if told.port == port => opened = Some(told.cookie),
                (Some(kind::LISTENER_CLOSED), Some(told)) if opened == Some(told.cookie) => closed = true,
                _ => own.keep_foreign(&record, outcome),
            }
        }
        if closed || began.elapsed() > PATIENCE {
            return (opened.is_some(), closed);
        }
        thread::sleep(std::time::Duration::from_millis(2));
    }
}
