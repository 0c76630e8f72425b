//! Sockets into connections: which two belong together, and which of them is the server. Pure.

use std::collections::{HashMap, HashSet};

use crate::unix::message::UnixSocket;

/// A network namespace that was read.
#[derive(Debug, Default)]
pub struct Namespace {
    /// Its inode.
    pub inode: u64,
    /// Its Unix sockets.
    pub sockets: Vec<UnixSocket>,
}

/// Two sockets that are connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Inode of the client's socket.
    pub client: u32,
    /// Inode of the server's; a datagram socket serves many.
    pub server: u32,
    /// Name of the server, as the kernel tells it.
    pub name: Box<[u8]>,
    /// Namespace in which the connection was found.
    pub namespace: u64,
}

/// What makes two listeners the same: accepted sockets have all of it from theirs. An abstract name is of its network namespace, a path of the file it leads to.
type Address<'a> = (&'a [u8], Option<(u32, u32)>, u64);

fn address(socket: &UnixSocket, namespace: u64) -> Address<'_> {
    (&socket.name, socket.file, if socket.name.first() == Some(&0) { namespace } else { 0 })
}

/// The connections between sockets of all namespaces. Pairs without a name are left out: they were made by one process for its children.
///
/// The server is the end with the name. When both have one, as a client has that bound its socket or wants credentials, it is the end that has its name from a
/// listener; failing that, of a connection the socket that was made later, because a server's is made when it accepts, and of datagrams the one that was made earlier.
pub fn connections(namespaces: &[Namespace]) -> Vec<Connection> {
    let all = || namespaces.iter().flat_map(|it| it.sockets.iter().map(move |socket| (socket, it.inode)));
    let listeners: HashSet<Address<'_>> =
        all().filter(|(socket, _)| socket.listens).map(|(socket, inode)| address(socket, inode)).collect();
    let by_inode: HashMap<u32, (&UnixSocket, u64)> = all().map(|(socket, inode)| (socket.inode, (socket, inode))).collect();
    let serves = |socket: &UnixSocket, namespace| listeners.contains(&address(socket, namespace));
    let mut clients = HashSet::new();
    let mut found = Vec::new();
    for (socket, namespace) in all().filter(|(socket, _)| socket.peer != 0 && socket.peer != socket.inode && socket.inode != 0) {
        let (client, server, name) = match by_inode.get(&socket.peer) {
            // The other end is where we cannot look, or was missed: a listener's name tells enough.
            None if socket.kind.has_connections() && !socket.name.is_empty() && serves(socket, namespace) => {
                (socket.peer, socket.inode, &socket.name)
            }
            None => continue,
            Some(&(other, other_namespace)) => {
                let socket_is_server = match (socket.name.is_empty(), other.name.is_empty()) {
                    (true, true) => continue,
                    // Who is sent to without sending back serves.
                    _ if other.peer != socket.inode => false,
                    (true, false) => false,
                    (false, true) => true,
                    (false, false) => match (serves(socket, namespace), serves(other, other_namespace)) {
                        (true, false) => true,
                        (false, true) => false,
                        _ => (socket.inode > other.inode) == socket.kind.has_connections(),
                    },
                };
                let (client, server) = if socket_is_server { (other, socket) } else { (socket, other) };
                if server.name.is_empty() {
                    continue;
                }
                (client.inode, server.inode, &server.name)
            }
        };
        if clients.insert(client) {
            found.push(Connection { client, server, name: name.clone(), namespace });
        }
    }
    found
}

#[cfg(test)]
mod tests;
