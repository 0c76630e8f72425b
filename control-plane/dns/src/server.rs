//! Answers to queries, over UDP and TCP.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, NS, SOA, SRV};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::zone::Zone;

/// How long a connection may say nothing.
const TCP_SILENCE: Duration = Duration::from_secs(10);
/// Answers that wait for one TCP client.
const TCP_ANSWERS: usize = 16;
/// Questions passed on at once.
const UPSTREAM_AT_ONCE: usize = 256;
/// Bytes of a UDP answer that is sent at most.
const UDP_ANSWER_MAX: u16 = 4_096;

/// How it answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For how long an answer may be remembered.
    pub ttl: Duration,
    /// Who is asked about names that are not ours, in turn. Empty: such questions are refused.
    pub upstream: Vec<SocketAddr>,
    /// How long each of them may take.
    pub upstream_patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { ttl: Duration::from_secs(60), upstream: Vec::new(), upstream_patience: Duration::from_secs(3) }
    }
}

/// What happened since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Questions.
    pub queries: AtomicU64,
    /// Answered with a record.
    pub answered: AtomicU64,
    /// Answered with that there is no such name.
    pub unknown: AtomicU64,
    /// Passed on.
    pub forwarded: AtomicU64,
    /// Of those, not answered.
    pub forward_failed: AtomicU64,
    /// Refused: not ours, or nothing that is understood.
    pub refused: AtomicU64,
}

/// Answers on both sockets until `stopping` is cancelled.
///
/// # Errors
/// When a listener fails.
pub async fn serve(
    (udp, tcp): (UdpSocket, TcpListener),
    zone: watch::Receiver<Arc<Zone>>,
    settings: Settings,
    counts: Arc<Counts>,
    stopping: CancellationToken,
) -> Result<(), String> {
    let responder = Responder { zone, settings, counts, turn: AtomicUsize::new(0), upstream: Semaphore::new(UPSTREAM_AT_ONCE) };
    let mut server = Server::new(responder);
    server.register_socket(udp);
    server.register_listener(tcp, TCP_SILENCE, TCP_ANSWERS);
    tokio::select! {
        () = stopping.cancelled() => server.shutdown_gracefully().await.map_err(|error| error.to_string()),
        ended = server.block_until_done() => ended.map_err(|error| error.to_string()),
    }
}

struct Responder {
    zone: watch::Receiver<Arc<Zone>>,
    settings: Settings,
    counts: Arc<Counts>,
    turn: AtomicUsize,
    upstream: Semaphore,
}

/// What is sent back.
struct Reply {
    metadata: Metadata,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

#[async_trait]
impl RequestHandler for Responder {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        self.counts.queries.fetch_add(1, Ordering::Relaxed);
        let reply = self.reply(request).await;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, UDP_ANSWER_MAX));
            edns
        });
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let metadata = reply.metadata;
        let message = builder.build(metadata, &reply.answers, &reply.authorities, [], &reply.additionals);
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "an answer could not be sent");
                let header = hickory_server::proto::op::Header { metadata, counts: hickory_server::proto::op::HeaderCounts::default() };
                header.into()
            }
        }
    }
}

impl Responder {
    async fn reply(&self, request: &Request) -> Reply {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = !self.settings.upstream.is_empty();
        let bare = |mut metadata: Metadata, code: ResponseCode| {
            metadata.response_code = code;
            Reply { metadata, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new() }
        };
        if request.metadata.message_type != MessageType::Query || request.metadata.op_code != OpCode::Query {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            return bare(metadata, ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            return bare(metadata, ResponseCode::FormErr);
        };
        let asked: Name = info.query.name().into();
        let name = asked.to_lowercase().to_ascii();
        let name = name.trim_end_matches('.');
        let zone = self.zone.borrow().clone();
        if !zone.is_ours(name) {
            return match self.forward(request).await {
                Some(reply) => reply,
                None if self.settings.upstream.is_empty() => {
                    self.counts.refused.fetch_add(1, Ordering::Relaxed);
                    bare(metadata, ResponseCode::Refused)
                }
                None => bare(metadata, ResponseCode::ServFail),
            };
        }
        metadata.authoritative = true;
        let mut reply = bare(metadata, ResponseCode::NoError);
        self.answer(&zone, name, &asked, info.query.query_type(), &mut reply);
        if reply.answers.is_empty() {
            if !zone.has(name) {
                self.counts.unknown.fetch_add(1, Ordering::Relaxed);
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
            reply.authorities.extend(self.soa(&zone));
        } else {
            self.counts.answered.fetch_add(1, Ordering::Relaxed);
        }
        reply
    }

    fn answer(&self, zone: &Zone, name: &str, asked: &Name, kind: RecordType, reply: &mut Reply) {
        let ttl = self.ttl();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let wants = |one: RecordType| kind == one || kind == RecordType::ANY;
        let addresses = rotated(zone.addresses(name), turn);
        reply.answers.extend(addresses.filter(|it| wants(address_kind(**it))).map(|it| address_record(asked.clone(), ttl, *it)));
        if wants(RecordType::SRV) {
            for (target, port) in rotated(zone.services(name), turn) {
                let Ok(target_name) = Name::from_ascii(format!("{target}.")) else { continue };
                let additional = zone.addresses(target).iter().map(|it| address_record(target_name.clone(), ttl, *it));
                reply.additionals.extend(additional);
                reply.answers.push(Record::from_rdata(asked.clone(), ttl, RData::SRV(SRV::new(0, 1, *port, target_name.clone()))));
            }
        }
        if name == zone.domain() {
            if wants(RecordType::SOA) {
                reply.answers.extend(self.soa(zone));
            }
            if wants(RecordType::NS)
                && let Ok(ns) = Name::from_ascii(format!("ns1.{}.", zone.domain()))
            {
                reply.answers.push(Record::from_rdata(asked.clone(), ttl, RData::NS(NS(ns))));
            }
        }
    }

    fn ttl(&self) -> u32 {
        u32::try_from(self.settings.ttl.as_secs()).unwrap_or(u32::MAX)
    }

    fn soa(&self, zone: &Zone) -> Option<Record> {
        let domain = zone.domain();
        let (ns, root) = (Name::from_ascii(format!("ns1.{domain}.")).ok()?, Name::from_ascii(format!("root.ns1.{domain}.")).ok()?);
        let soa = SOA::new(ns, root, 1, 60, 600, 86_400, self.ttl());
        Some(Record::from_rdata(Name::from_ascii(format!("{domain}.")).ok()?, self.ttl(), RData::SOA(soa)))
    }

    /// Asks those who know other names; `None` when there is nobody, or nobody answers.
    async fn forward(&self, request: &Request) -> Option<Reply> {
        if self.settings.upstream.is_empty() {
            return None;
        }
        let failed = || {
            self.counts.forward_failed.fetch_add(1, Ordering::Relaxed);
        };
        let Ok(_room) = self.upstream.try_acquire() else {
            failed();
            return None;
        };
        self.counts.forwarded.fetch_add(1, Ordering::Relaxed);
        for server in &self.settings.upstream {
            let asked = tokio::time::timeout(self.settings.upstream_patience, ask(*server, request.as_slice(), request.protocol()));
            let message = asked.await.ok().and_then(Result::ok).and_then(|bytes| Message::from_vec(&bytes).ok());
            if let Some(message) =
                message.filter(|it| it.metadata.id == request.metadata.id && it.metadata.message_type == MessageType::Response)
            {
                return Some(Reply {
                    metadata: message.metadata,
                    answers: message.answers,
                    authorities: message.authorities,
                    additionals: message.additionals,
                });
            }
        }
        failed();
        None
    }
}

async fn ask(server: SocketAddr, question: &[u8], protocol: Protocol) -> std::io::Result<Vec<u8>> {
    if protocol == Protocol::Udp {
        let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(server).await?;
        socket.send(question).await?;
        let mut answer = vec![0; usize::from(u16::MAX)];
        let length = socket.recv(&mut answer).await?;
        answer.truncate(length);
        return Ok(answer);
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// All of a list, with another one first each time: clients take the first.
fn rotated<T>(list: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let at = if list.is_empty() { 0 } else { turn % list.len() };
    list[at..].iter().chain(&list[..at])
}

fn address_kind(address: IpAddr) -> RecordType {
    if address.is_ipv4() { RecordType::A } else { RecordType::AAAA }
}

fn address_record(name: Name, ttl: u32, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(name, ttl, data)
}
