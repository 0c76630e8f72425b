//! The listener: accepts while there is room, serves, and lets go of clients in order when the process stops.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use edge_tls::{Door, Stream, Tls};
use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::connection::ClientStream;
use super::crowd::{Answered, Crowd, Seat};
use super::platform;
use super::reply::{json_value, problem};
use crate::replicas::{Front, Hold, Place, Purpose, UnderWay, is_own};
use crate::supervise::Supervisor;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{ConnectionClosed, ConnectionFailed, ConnectionFailure, ConnectionOpened};

/// How long a client may take to send the head of a request, the time between two requests included. Scope's own limit.
const READ_TIMEOUT: Duration = Duration::from_secs(90);
/// Whoever is kept alive and sent away has this long to take the rest of its last answer.
const SENT_AWAY_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait for a place before it is looked again who could go.
const CROWD_PAUSE: Duration = Duration::from_millis(200);
/// How long to wait when the system cannot give another connection, e.g. because there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come in.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// The listener.
    pub listener: Arc<TcpListener>,
    /// What it speaks below HTTP.
    pub tls: Option<Tls>,
    /// Connections at once; those beyond wait to be accepted.
    pub limit: usize,
    /// What becomes of them.
    pub front: Front,
}

/// Serves `router` until the process stops.
pub async fn serve(entrance: Entrance, router: Router, supervisor: Supervisor, telemetry: Telemetry) {
    let Entrance { listener, tls, limit, front } = entrance;
    let (room, crowd) = (Room { places: Arc::new(Semaphore::new(limit)), limit }, Crowd::default());
    let stopping = supervisor.stopping().clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            accepted = accept(&listener, &room, &crowd, &telemetry) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let (router, stopping, telemetry) = (router.clone(), stopping.clone(), telemetry.clone());
                let seat = crowd.seat(Instant::now());
                let connection = Connection { router, front: front.clone(), stopping, telemetry, seat: seat.clone() };
                let (front, tls) = (front.clone(), tls.clone());
                let served = async move {
                    if let Some(mut stream) = shake_hands(tls, stream, &connection).await {
                        // What goes to the leader is not looked at here: it may be a page that watches.
                        match front.place_http(&mut stream, || connection.seat.works()).await {
                            Place::There(there) => {
                                let (there, leader) = *there;
                                if let Err(error) = front.join(stream, there, &leader).await {
                                    ConnectionFailed { reason: ConnectionFailure::Broken, error: &error }.emit(&connection.telemetry);
                                }
                            }
                            Place::Here(expected) => connection.run(stream, expected).await,
                            Place::Nowhere => connection.run(stream, None).await,
                            Place::Gone => {}
                        }
                    }
                };
                supervisor.one_off("http_connection", async move {
                    tokio::select! {
                        () = served => {}
                        () = seat.is_wanted_at_once() => {}
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                ConnectionFailed { reason: ConnectionFailure::Accept, error: &error }.emit(&telemetry);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The stream behind TLS, where that is spoken; nothing when the client does not speak it, or the process stops meanwhile.
async fn shake_hands(tls: Option<Tls>, stream: TcpStream, connection: &Connection) -> Option<Stream> {
    let Some(tls) = tls else { return Some(stream.into()) };
    match connection.stopping.run_until_cancelled(tls.accept(Door::Http, stream)).await? {
        Ok(stream) => Some(stream),
        Err(error) => {
            ConnectionFailed { reason: ConnectionFailure::Handshake, error: &error }.emit(&connection.telemetry);
            None
        }
    }
}

/// Serves a connection that came another way, and on which something is expected.
pub(crate) async fn serve_connection(
    (stream, expected): (Stream, Option<UnderWay>),
    router: Router,
    front: Front,
    supervisor: &Supervisor,
    telemetry: Telemetry,
) {
    // Whoever carried it here has a place for it.
    let seat = Crowd::default().seat(Instant::now());
    Connection { router, front, stopping: supervisor.stopping().clone(), telemetry, seat }.run(stream, expected).await;
}

/// Places for connections.
struct Room {
    places: Arc<Semaphore>,
    limit: usize,
}

async fn accept(
    listener: &TcpListener,
    room: &Room,
    crowd: &Crowd,
    telemetry: &Telemetry,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = loop {
        if crowd.make_room(room.places.available_permits(), room.limit, Instant::now()) {
            ConnectionFailed { reason: ConnectionFailure::Crowded, error: &std::io::Error::other("it asked for nothing") }.emit(telemetry);
        }
        // All may be asking for something.
        if let Ok(permit) = timeout(CROWD_PAUSE, room.places.clone().acquire_owned()).await {
            break permit.map_err(std::io::Error::other)?;
        }
    };
    let (stream, _) = listener.accept().await?;
    // Updates are small and awaited.
    let _ = stream.set_nodelay(true);
    Ok((stream, permit))
}

struct Connection {
    router: Router,
    /// Where it sits while it asks for nothing.
    seat: Arc<Seat>,
    /// Whether we lead, which may end while the connection lasts.
    front: Front,
    stopping: CancellationToken,
    telemetry: Telemetry,
}

impl Connection {
    /// `expected` counts the first request, before it has come.
    async fn run(self, stream: Stream, expected: Option<UnderWay>) {
        ConnectionOpened.emit(&self.telemetry);
        if let Err(error) = self.serve(stream, expected).await {
            ConnectionFailed { reason: ConnectionFailure::Broken, error: &error }.emit(&self.telemetry);
        }
        ConnectionClosed.emit(&self.telemetry);
    }

    async fn serve(&self, stream: Stream, expected: Option<UnderWay>) -> hyper::Result<()> {
        let peer = stream.peer_addr().ok();
        let (router, front) = (self.router.clone(), self.front.clone());
        let begun = Arc::new(Notify::new());
        let first = Mutex::new(expected);
        let told = begun.clone();
        let seat = self.seat.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let is_seated = seat.works();
            let seat = seat.clone();
            let answered = move |response: Response| response.map(|body| Body::new(Answered { body, seat }));
            let (router, leads, purpose) = (router.clone(), front.leads(), front.purpose());
            let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let under_way = match request.uri().path() {
                // It would wait for itself.
                platform::YIELD_PATH => None,
                _ => first.or_else(|| front.hold().map(Hold::begin)),
            };
            told.notify_one();
            async move {
                let _under_way: Option<UnderWay> = under_way;
                if !is_seated {
                    let sent_away =
                        problem(StatusCode::SERVICE_UNAVAILABLE, "there are too many connections, and this one was idle; try again");
                    return Ok(answered(ends_here(sent_away)));
                }
                if !leads && !is_own(request.uri().path()) {
                    return Ok(answered(ends_here(nobody_leads(purpose))));
                }
                let mut request = request.map(axum::body::Body::new);
                if let Some(peer) = peer {
                    request.extensions_mut().insert(ConnectInfo(peer));
                }
                let Ok(response) = router.oneshot(request).await;
                // What comes next may be for the leader.
                Ok::<_, Infallible>(answered(if leads { response } else { ends_here(response) }))
            }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(READ_TIMEOUT)
                // As Go and libprocess write them; old clients compare them letter by letter (`Mesos-Stream-Id`).
                .title_case_headers(true)
                .max_buf_size(1 << 20)
                .serve_connection(TokioIo::new(ClientStream::new(stream)), service)
                .with_upgrades()
        );
        tokio::select! {
            outcome = connection.as_mut() => return outcome,
            () = self.leaves(&begun) => connection.as_mut().graceful_shutdown(),
            () = self.seat.is_wanted() => {
                // What is on its way to the client arrives.
                connection.as_mut().graceful_shutdown();
                return timeout(SENT_AWAY_WITHIN, connection).await.unwrap_or(Ok(()));
            }
        }
        connection.await
    }

    /// Waits until no further request is taken: the process stops, or hands over the lead and has seen one already. A connection from which none has
    /// come yet would be closed at once, with its request on the way.
    async fn leaves(&self, begun: &Notify) {
        let hands_over = async {
            match self.front.hold() {
                Some(hold) => hold.handing_over().cancelled().await,
                None => std::future::pending().await,
            }
            begun.notified().await;
        };
        tokio::select! {
            () = self.stopping.cancelled() => {}
            () = hands_over => {}
        }
    }
}

/// The last reply on its connection.
fn ends_here(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// To whoever asks for what only the leader has, while there is none or it is known to us no more.
fn nobody_leads(purpose: Purpose) -> Response {
    let mut response = match purpose {
        // In Marathon's words.
        Purpose::Marathon => {
            json_value(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "message": "Could not determine the current leader" }))
        }
        Purpose::Http | Purpose::Grpc | Purpose::Record => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "no control plane leads at the moment; try again")
        }
    };
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn whoever_opens_connections_and_asks_for_nothing_keeps_nobody_out() {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let telemetry = Telemetry::new();
        let entrance = Entrance { listener, tls: None, limit: 8, front: Front::alone(Purpose::Http) };
        let router = Router::new().route("/health", get(|| async { "well" }));
        let serving = serve(entrance, router, Supervisor::new(telemetry.clone()), telemetry.clone());
        let asking = async {
            let mut silent = Vec::new();
            for request in ["", "GET /he", "GET /health HTTP/1.1\r\nHost: test\r\n", "GET /health HTTP/1.1\r\nHost: test\r\n\r\n"] {
                for _ in 0..4 {
                    let mut client = TcpStream::connect(address).await.unwrap();
                    client.write_all(request.as_bytes()).await.unwrap();
                    silent.push(client);
                }
            }
            for _ in 0..3 {
                let mut client = TcpStream::connect(address).await.unwrap();
                client.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
                let mut reply = String::new();
                client.read_to_string(&mut reply).await.unwrap();
                assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("well"), "{reply}");
            }
            drop(silent);
        };
        tokio::select! {
            () = serving => panic!("it goes on"),
            asked = timeout(Duration::from_secs(20), asking) => asked.expect("there is room"),
        }
        let page = telemetry.render();
        assert!(page.contains(r#"orchestrator_http_connections_failed_total{reason="crowded"}"#), "{page}");
    }
}
