//! Connections before they are HTTP/2: only so many at once, and none that stays silent. A peer that never says a word would hold a descriptor
//! for ever, and hold up the end of the process.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use edge_tls::{Door, Tls};
use futures::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::replicas::{Front, Place, Route};
use crate::supervise::Supervisor;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{ConnectionFailed, ConnectionFailure};

/// How many connections there may be, and how long each may be silent at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) connections: usize,
    pub(super) first_word: Duration,
}

/// Connections that other control planes carry here; shared by one loop and the next that takes its place.
pub type Carried = Arc<Mutex<mpsc::Receiver<edge_tls::Stream>>>;

/// Handshakes that may be under way or done and not taken yet, beyond those that are served.
const HANDSHAKES: usize = 256;

/// Ways in and out besides the listener.
#[derive(Debug)]
pub(super) struct Doors {
    /// Where connections belong.
    pub(super) front: Front,
    /// Connections that other control planes carry here.
    pub(super) carried: Carried,
    /// What the listener speaks below HTTP/2.
    pub(super) tls: Option<Tls>,
    /// For those that are carried on.
    pub(super) supervisor: Supervisor,
}

/// How a connection has come.
enum Arrived {
    /// As it came from the listener.
    Fresh(TcpStream, OwnedSemaphorePermit),
    /// Its handshake is done, or it has waited until we lead.
    Secured(edge_tls::Stream, OwnedSemaphorePermit),
    /// From another control plane.
    Carried(edge_tls::Stream, OwnedSemaphorePermit),
}

/// The next that comes from outside, when there is a place for it. Nothing is lost when this is dropped.
async fn next(listener: &TcpListener, carried: &Carried, room: &Arc<Semaphore>) -> io::Result<Arrived> {
    let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    tokio::select! {
        accepted = listener.accept() => accepted.map(|(stream, _)| Arrived::Fresh(stream, permit)),
        Some(stream) = async { carried.lock().await.recv().await } => Ok(Arrived::Carried(stream, permit)),
    }
}

/// Connections of `listener`. With as many open as there may be, the next ones wait in the listener's backlog.
pub(super) fn incoming(
    listener: Arc<TcpListener>,
    patience: Patience,
    doors: Doors,
    stopping: CancellationToken,
    telemetry: Telemetry,
) -> impl Stream<Item = io::Result<Connection>> {
    let room = Arc::new(Semaphore::new(patience.connections));
    let (secured, secure) = mpsc::channel(HANDSHAKES);
    let state = (listener, room, doors, stopping, telemetry, (secured, secure));
    stream::unfold(state, move |(listener, room, doors, stopping, telemetry, (secured, mut secure))| async move {
        loop {
            let arrived = tokio::select! {
                // These have places. They come first, and need no other: all places may be theirs.
                biased;
                Some((stream, permit)) = secure.recv() => Ok(Arrived::Secured(stream, permit)),
                arrived = next(&listener, &doors.carried, &room) => arrived,
            };
            let (stream, permit, is_carried) = match arrived {
                Ok(Arrived::Fresh(stream, permit)) => {
                    // Only the delay of small messages is lost when this is refused.
                    let _ = stream.set_nodelay(true);
                    match doors.tls.clone() {
                        Some(tls) => {
                            let (secured, stopping, telemetry) = (secured.clone(), stopping.clone(), telemetry.clone());
                            doors.supervisor.one_off("grpc_handshake", async move {
                                match stopping.run_until_cancelled(tls.accept(Door::Grpc, stream)).await {
                                    Some(Ok(stream)) => drop(secured.send((stream, permit)).await),
                                    Some(Err(error)) => {
                                        ConnectionFailed { reason: ConnectionFailure::Handshake, error: &error }.emit(&telemetry);
                                    }
                                    None => {}
                                }
                            });
                            continue;
                        }
                        None => (edge_tls::Stream::from(stream), permit, false),
                    }
                }
                Ok(Arrived::Secured(stream, permit)) => (stream, permit, false),
                Ok(Arrived::Carried(stream, permit)) => (stream, permit, true),
                Err(error) => {
                    ConnectionFailed { reason: ConnectionFailure::Accept, error: &error }.emit(&telemetry);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match doors.front.route() {
                Route::Here => {}
                // Whoever carried it comes back when somebody leads.
                Route::There(_) | Route::Nowhere if is_carried => continue,
                Route::There(_) | Route::Nowhere => {
                    let (front, secured, telemetry) = (doors.front.clone(), secured.clone(), telemetry.clone());
                    doors.supervisor.one_off("carried_stream", async move {
                        match front.place(stream.peer_addr().ok()).await {
                            Place::There(there) => {
                                let (there, leader) = *there;
                                if let Err(error) = front.join(stream, there, &leader).await {
                                    ConnectionFailed { reason: ConnectionFailure::Broken, error: &error }.emit(&telemetry);
                                }
                                drop(permit);
                            }
                            // We lead now.
                            Place::Here(_) => drop(secured.send((stream, permit)).await),
                            Place::Nowhere | Place::Gone => {}
                        }
                    });
                    continue;
                }
            }
            let silence = Silence {
                too_long: Box::pin(tokio::time::sleep(patience.first_word)),
                stopping: Box::pin(stopping.clone().cancelled_owned()),
            };
            let connection = Connection { stream, silence: Some(silence), _permit: permit };
            return Some((Ok(connection), (listener, room, doors, stopping, telemetry, (secured, secure))));
        }
    })
}

/// A connection, and its place among those there may be.
#[derive(Debug)]
pub(super) struct Connection {
    stream: edge_tls::Stream,
    /// What ends the peer's silence; gone when it has said something.
    silence: Option<Silence>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Silence {
    too_long: Pin<Box<Sleep>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Silence {
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.too_long.as_mut().poll(context).is_ready() {
            return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the peer said nothing"));
        }
        ready!(self.stopping.as_mut().poll(context));
        Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, "the control plane stops"))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.silence = None;
            return read;
        }
        match &mut self.silence {
            Some(silence) => silence.poll_end(context).map(Err),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.stream.tcp().local_addr().ok(), remote_addr: self.stream.peer_addr().ok() }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn alone() -> Doors {
        let supervisor = Supervisor::new(Telemetry::new());
        Doors {
            front: Front::alone(crate::replicas::Purpose::Grpc),
            carried: Arc::new(Mutex::new(mpsc::channel(1).1)),
            tls: None,
            supervisor,
        }
    }

    async fn listener() -> (Arc<TcpListener>, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Arc::new(listener), address)
    }

    #[tokio::test]
    async fn a_silent_peer_is_given_up_and_one_that_spoke_may_be_silent() {
        let (listener, address) = listener().await;
        let patience = Patience { connections: 4, first_word: Duration::from_millis(100) };
        let mut connections = pin!(incoming(listener, patience, alone(), CancellationToken::new(), Telemetry::new()));
        let (_silent, mut speaker) = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let mut silent = connections.next().await.unwrap().unwrap();
        let mut spoken = connections.next().await.unwrap().unwrap();
        speaker.write_all(b"x").await.unwrap();
        assert_eq!(spoken.read_u8().await.unwrap(), b'x');
        assert_eq!(silent.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let more = tokio::time::timeout(Duration::from_millis(300), spoken.read_u8()).await;
        assert!(more.is_err(), "it may take its time now: {more:?}");
    }

    #[tokio::test]
    async fn the_end_of_the_process_does_not_wait_for_a_silent_peer() {
        let (listener, address) = listener().await;
        let patience = Patience { connections: 4, first_word: Duration::from_secs(600) };
        let stopping = CancellationToken::new();
        let mut connections = pin!(incoming(listener, patience, alone(), stopping.clone(), Telemetry::new()));
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut silent = connections.next().await.unwrap().unwrap();
        stopping.cancel();
        assert_eq!(silent.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn whoever_is_carried_here_is_the_peer() {
        let (listener, address) = listener().await;
        let (_client, accepted) = (TcpStream::connect(address).await.unwrap(), listener.accept().await.unwrap().0);
        let (carry, carried) = mpsc::channel(1);
        let caller = "10.1.2.3:40000".parse().unwrap();
        carry.send(edge_tls::Stream::from(accepted).on_behalf_of(caller)).await.unwrap();
        let doors = Doors { carried: Arc::new(Mutex::new(carried)), ..alone() };
        let patience = Patience { connections: 1, first_word: Duration::from_secs(600) };
        let mut connections = pin!(incoming(listener, patience, doors, CancellationToken::new(), Telemetry::new()));
        let info = connections.next().await.unwrap().unwrap().connect_info();
        assert_eq!((info.remote_addr, info.local_addr), (Some(caller), Some(address)));
    }

    /// A certificate that a listener shows, and a client that trusts it.
    fn certified(directory: &std::path::Path) -> (Tls, tokio_rustls::TlsConnector) {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let [ca, certificate, key_file] = ["ca.crt", "server.crt", "server.key"].map(|name| directory.join(name));
        std::fs::write(&ca, authority.self_signed(&authority_key).unwrap().pem()).unwrap();
        let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&certificate, server.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap().pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let tls = Tls::load(edge_tls::Files { certificate, key: key_file, client_ca: None }).unwrap();
        (tls, tokio_rustls::TlsConnector::from(edge_tls::client_trusting(&ca).unwrap()))
    }

    #[tokio::test]
    async fn handshakes_that_have_all_places_are_served_when_they_are_done() {
        let directory = tempfile::tempdir().unwrap();
        let (tls, connector) = certified(directory.path());
        let (listener, address) = listener().await;
        let patience = Patience { connections: 2, first_word: Duration::from_secs(600) };
        let doors = Doors { tls: Some(tls), ..alone() };
        let mut connections = pin!(incoming(listener, patience, doors, CancellationToken::new(), Telemetry::new()));
        let peers = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        // Both have their places, and none is ready.
        assert!(tokio::time::timeout(Duration::from_millis(100), connections.next()).await.is_err());
        let shake = |peer| connector.connect("localhost".try_into().unwrap(), peer);
        let served = async { [connections.next().await.unwrap().unwrap(), connections.next().await.unwrap().unwrap()] };
        let all = async { tokio::join!(shake(peers.0), shake(peers.1), served) };
        let (one, other, served) = tokio::time::timeout(Duration::from_secs(10), all).await.expect("they are served");
        drop((one.unwrap(), other.unwrap(), served));
    }

    #[tokio::test]
    async fn beyond_the_limit_connections_wait_until_one_ends() {
        let (listener, address) = listener().await;
        let patience = Patience { connections: 1, first_word: Duration::from_secs(600) };
        let mut connections = pin!(incoming(listener, patience, alone(), CancellationToken::new(), Telemetry::new()));
        let _peers = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let first = connections.next().await.unwrap().unwrap();
        let mut second = pin!(connections.next());
        assert!(tokio::time::timeout(Duration::from_millis(100), second.as_mut()).await.is_err());
        drop(first);
        assert!(second.await.unwrap().is_ok());
    }
}
