//! Questions over real sockets.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests spawn freely and fail by panicking"
)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dns::{Agent, Cluster, Counts, Framework, Settings, Task, Zone, serve};
use hickory_server::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_server::proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

struct Server {
    address: SocketAddr,
    counts: Arc<Counts>,
    zone: watch::Sender<Arc<Zone>>,
    stopping: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

fn zone(tasks: u16) -> Arc<Zone> {
    let task = |at: u16| Task {
        id: format!("web.{at}"),
        name: "web.shop".into(),
        agent_id: format!("x-S{at}"),
        ports: vec![31_000 + at],
        ..Task::default()
    };
    let agent = |at: u16| Agent { id: format!("x-S{at}"), address: IpAddr::from([10, 0, (at >> 8) as u8, at as u8]), port: 5051 };
    Arc::new(Zone::new(
        "mesos",
        &Cluster {
            leader: Some((IpAddr::from([10, 1, 0, 1]), 5050)),
            masters: vec![IpAddr::from([10, 1, 0, 1])],
            agents: (0..tasks).map(agent).collect(),
            frameworks: vec![Framework { name: "marathon".into(), address: None, tasks: (0..tasks).map(task).collect() }],
        },
    ))
}

async fn start(tasks: u16, settings: Settings) -> Server {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let (zone, zones) = watch::channel(zone(tasks));
    let (counts, stopping) = (Arc::new(Counts::default()), CancellationToken::new());
    tokio::spawn(serve((udp, tcp), zones, settings, counts.clone(), stopping.clone()));
    Server { address, counts, zone, stopping }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    message.metadata.recursion_desired = true;
    message
}

impl Server {
    async fn send_udp(&self, bytes: &[u8]) -> Option<Message> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(bytes, self.address).await.unwrap();
        let mut answer = vec![0; 65_535];
        let length = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut answer)).await.ok()?.unwrap();
        Some(Message::from_vec(&answer[..length]).unwrap())
    }

    async fn udp(&self, name: &str, kind: RecordType) -> Message {
        self.send_udp(&question(name, kind).to_vec().unwrap()).await.unwrap()
    }

    async fn tcp(&self, name: &str, kind: RecordType) -> Message {
        let bytes = question(name, kind).to_vec().unwrap();
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        Message::from_vec(&answer).unwrap()
    }
}

#[tokio::test]
async fn names_are_answered_over_udp_and_tcp() {
    let server = start(2, Settings { ttl: Duration::from_secs(7), ..Settings::default() }).await;
    for answer in [server.udp("Web-Shop.marathon.MESOS", RecordType::A).await, server.tcp("web.shop.marathon.mesos", RecordType::A).await] {
        assert_eq!((answer.metadata.response_code, answer.metadata.authoritative, answer.answers.len()), (ResponseCode::NoError, true, 2));
        assert_eq!(answer.answers[0].ttl, 7);
    }
    let answer = server.udp("_web-shop._tcp.marathon.mesos", RecordType::SRV).await;
    let RData::SRV(service) = &answer.answers[0].data else { panic!("{answer:?}") };
    assert!((31_000..31_002).contains(&service.port));
    assert_eq!(answer.additionals.len(), 2, "addresses come along");
    let first: std::collections::BTreeSet<String> = {
        let mut all = std::collections::BTreeSet::new();
        for _ in 0..4 {
            all.insert(format!("{:?}", server.udp("web-shop.marathon.mesos", RecordType::A).await.answers[0].data));
        }
        all
    };
    assert_eq!(first.len(), 2, "clients that take the first are spread");
    assert_eq!(server.udp("leader.mesos", RecordType::A).await.answers.len(), 1);
    // A name that is there without such a record, one between names, and one that is not there.
    for (name, kind, code) in [
        ("web-shop.marathon.mesos", RecordType::AAAA, ResponseCode::NoError),
        ("marathon.mesos", RecordType::A, ResponseCode::NoError),
        ("nobody.marathon.mesos", RecordType::A, ResponseCode::NXDomain),
    ] {
        let answer = server.udp(name, kind).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len(), answer.authorities.len()), (code, 0, 1), "{name}");
    }
    assert_eq!(server.udp("example.org", RecordType::A).await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(server.udp("mesos", RecordType::SOA).await.answers.len(), 1);
    assert_eq!(server.counts.unknown.load(Ordering::Relaxed), 1);
    server.zone.send_replace(zone(0));
    assert_eq!(server.udp("web-shop.marathon.mesos", RecordType::A).await.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn what_is_too_much_for_udp_is_told_over_tcp() {
    let server = start(300, Settings::default()).await;
    let cut = server.udp("web-shop.marathon.mesos", RecordType::A).await;
    assert!(cut.metadata.truncation && cut.answers.len() < 300);
    assert_eq!(server.tcp("web-shop.marathon.mesos", RecordType::A).await.answers.len(), 300);
    let mut large = question("web-shop.marathon.mesos", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4_096);
    large.set_edns(edns);
    let more = server.send_udp(&large.to_vec().unwrap()).await.unwrap();
    assert!(more.answers.len() > cut.answers.len(), "{} and {}", more.answers.len(), cut.answers.len());
}

#[tokio::test]
async fn other_names_are_asked_of_others() {
    let upstream = start(1, Settings::default()).await;
    let silent: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let patience = Duration::from_millis(200);
    let settings = Settings { upstream: vec![silent, upstream.address], upstream_patience: patience, ..Settings::default() };
    let server = start(0, settings).await;
    // Ours is not asked of anybody; the other is another's to refuse.
    assert_eq!(server.udp("x.mesos", RecordType::A).await.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(server.udp("example.org", RecordType::A).await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(server.tcp("example.org", RecordType::A).await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(server.counts.forwarded.load(Ordering::Relaxed), 2);
    let alone = start(0, Settings { upstream: vec![silent], upstream_patience: patience, ..Settings::default() }).await;
    assert_eq!(alone.udp("example.org", RecordType::A).await.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(alone.counts.forward_failed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn nonsense_harms_nobody() {
    let server = start(1, Settings::default()).await;
    let good = question("leader.mesos", RecordType::A).to_vec().unwrap();
    for length in 0..good.len() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&good[..length], server.address).await.unwrap();
    }
    for byte in 0..good.len() {
        let mut spoilt = good.clone();
        spoilt[byte] ^= 0xff;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&spoilt, server.address).await.unwrap();
    }
    // A connection that says half of something, and one that says nothing.
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(&[0, 50, 1, 2, 3]).await.unwrap();
    let _nothing = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(server.tcp("leader.mesos", RecordType::A).await.answers.len(), 1);
    assert_eq!(server.udp("leader.mesos", RecordType::A).await.answers.len(), 1);
}
