//! Where clients come in: the sockets of every door.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted: after a restart, all clients come back at once.
const BACKLOG: u32 = 4_096;
/// How much of what a connection was given may lie in the kernel unsent. Without a limit the kernel takes megabytes for each client that does not
/// read; a few thousand of those use up what it has for all connections of the machine, and it resets those of others. What is not on its way
/// yet is also newer when it leaves. (`TCP_NOTSENT_LOWAT` of tcp(7); accepted sockets have it from the listener.)
const UNSENT: u32 = 64 << 10;

/// Listens at `address`; `what` names the listener in errors. The address that is returned has the port that was really taken.
///
/// # Errors
/// When the address cannot be had.
pub(crate) fn bind(address: SocketAddr, what: &str) -> anyhow::Result<(Arc<TcpListener>, SocketAddr)> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for connections of the run before to be forgotten.
        socket.set_reuseaddr(true)?;
        // Where the system does not know it, clients are served without it.
        let _ = SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT);
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let listener = listen().with_context(|| format!("binding the {what} listener to {address}"))?;
    let bound = listener.local_addr().with_context(|| format!("asking for the address of the {what} listener"))?;
    Ok((Arc::new(listener), bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn little_lies_unsent_for_a_client_that_does_not_read() {
        let (listener, address) = bind("127.0.0.1:0".parse().unwrap(), "test's").unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let _silent = socket.connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let piece = vec![0; 16 << 10];
        let mut taken = 0;
        // The kernel says that it takes nothing more, which is what everything above waits on.
        while tokio::time::timeout(std::time::Duration::from_millis(200), accepted.writable()).await.is_ok() && taken < 8 << 20 {
            taken += accepted.try_write(&piece).unwrap_or(0);
        }
        assert!((16 << 10..512 << 10).contains(&taken), "{taken} bytes");
    }
}
