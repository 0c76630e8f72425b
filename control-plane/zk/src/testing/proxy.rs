use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::session::spawn;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Carries bytes, each after this time.
    Fair(Duration),
    /// Takes bytes and carries none.
    Blackhole,
    /// Takes no connection.
    Down,
}

/// A wire to a server that can be cut, swallow everything, or be slow. Gone when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    /// Cancelled and renewed to cut every connection there is.
    connections: watch::Sender<CancellationToken>,
    _ends: DropGuard,
}

impl Proxy {
    /// A wire to `target`.
    pub async fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let weather = Arc::new(watch::Sender::new(Weather::Fair(Duration::ZERO)));
        let connections = watch::Sender::new(CancellationToken::new());
        let stop = CancellationToken::new();
        let (ended, sky, tokens) = (stop.clone(), weather.clone(), connections.subscribe());
        spawn(async move {
            loop {
                let accepted = tokio::select! { accepted = listener.accept() => accepted, () = ended.cancelled() => return };
                let Ok((client, _)) = accepted else { continue };
                if *sky.borrow() == Weather::Down {
                    continue;
                }
                let (cut, ended, sky) = (tokens.borrow().clone(), ended.clone(), sky.clone());
                spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (client_in, client_out) = client.into_split();
                    let (server_in, server_out) = server.into_split();
                    tokio::select! {
                        () = carry(client_in, server_out, sky.subscribe()) => {}
                        () = carry(server_in, client_out, sky.subscribe()) => {}
                        () = cut.cancelled() => {}
                        () = ended.cancelled() => {}
                    }
                });
            }
        });
        Proxy { address, weather, connections, _ends: stop.drop_guard() }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection there is; new ones are taken.
    pub fn cut(&self) {
        self.connections.send_replace(CancellationToken::new()).cancel();
    }

    /// Ends every connection and takes no new one.
    pub fn down(&self) {
        self.weather.send_replace(Weather::Down);
        self.cut();
    }

    /// From now on nothing comes through, and nobody is told.
    pub fn blackhole(&self) {
        self.weather.send_replace(Weather::Blackhole);
    }

    /// From now on everything comes through after `delay`, in each direction.
    pub fn fair(&self, delay: Duration) {
        self.weather.send_replace(Weather::Fair(delay));
    }
}

async fn carry(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, mut sky: watch::Receiver<Weather>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        loop {
            let weather = *sky.borrow_and_update();
            match weather {
                Weather::Fair(delay) => {
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    break;
                }
                // What was swallowed comes through when the sky clears, as TCP would send it again.
                Weather::Blackhole | Weather::Down => {
                    if sky.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
