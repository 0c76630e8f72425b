//! Frameworks: a stream of events on one connection, calls on another.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::BytesMut;
use mesos_proto::recordio::Decoder;
use mesos_proto::v1::scheduler::{Call, Event, call};
use mesos_proto::v1::{self, FrameworkInfo};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::http::{self, Chunks};

/// Largest event that is taken.
const EVENT_MAX: usize = 256 << 20;
/// Bytes that are written at once: as many calls as have come together.
const WRITE_MAX: usize = 64 << 10;
/// How long a subscription may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a framework does when something happens.
pub(crate) trait Scheduler {
    /// Any event but heartbeats.
    fn on(&self, framework: &Framework, event: Event);

    /// The stream is over.
    fn ended(&self, _framework: &Framework) {}
}

/// A framework that is subscribed.
#[derive(Clone, Debug)]
pub(crate) struct Framework {
    pub(crate) number: usize,
    pub(crate) id: v1::FrameworkId,
    calls: mpsc::UnboundedSender<Vec<u8>>,
    head: Rc<str>,
}

impl Framework {
    /// Sends a call. The answer is awaited by nobody but counted: one that is not 202 ends the measurement.
    pub(crate) fn call(&self, r#type: call::Type, fill: impl FnOnce(&mut Call)) {
        let mut call = Call { framework_id: Some(self.id.clone()), r#type: Some(r#type.into()), ..Call::default() };
        fill(&mut call);
        let body = call.encode_to_vec();
        let mut request = Vec::with_capacity(self.head.len() + body.len() + 32);
        request.extend_from_slice(self.head.as_bytes());
        request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(&body);
        let _ = self.calls.send(request);
    }

    /// Acknowledges, when that is asked for.
    pub(crate) fn acknowledge(&self, status: &v1::TaskStatus) -> bool {
        let (Some(uuid), Some(agent_id)) = (status.uuid.clone(), status.agent_id.clone()) else { return false };
        let acknowledge = call::Acknowledge { agent_id, task_id: status.task_id.clone(), uuid };
        self.call(call::Type::Acknowledge, |it| it.acknowledge = Some(acknowledge));
        true
    }

    /// Uses an offer.
    pub(crate) fn accept(&self, offer: &v1::Offer, tasks: Vec<v1::TaskInfo>, refuse_seconds: f64) {
        let launch = v1::offer::Operation {
            r#type: Some(v1::offer::operation::Type::Launch.into()),
            launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
            ..v1::offer::Operation::default()
        };
        let filters = Some(v1::Filters { refuse_seconds: Some(refuse_seconds) });
        let accept = call::Accept { offer_ids: vec![offer.id.clone()], operations: vec![launch], filters };
        self.call(call::Type::Accept, |it| it.accept = Some(accept));
    }

    /// Gives an offer back.
    pub(crate) fn decline(&self, offer: &v1::Offer, refuse_seconds: f64) {
        let filters = Some(v1::Filters { refuse_seconds: Some(refuse_seconds) });
        self.call(call::Type::Decline, |it| it.decline = Some(call::Decline { offer_ids: vec![offer.id.clone()], filters }));
    }
}

/// How a framework introduces itself.
pub(crate) fn info(number: usize, role: &str) -> FrameworkInfo {
    use v1::framework_info::capability::Type;
    let can = [Type::MultiRole, Type::PartitionAware, Type::ReservationRefinement];
    FrameworkInfo {
        user: "root".to_owned(),
        name: format!("framework{number}"),
        failover_timeout: Some(3_600.0),
        checkpoint: Some(true),
        roles: vec![role.to_owned()],
        capabilities: can.iter().map(|it| v1::framework_info::Capability { r#type: Some((*it).into()) }).collect(),
        ..FrameworkInfo::default()
    }
}

/// A task with such resources.
pub(crate) fn task(id: String, offer: &v1::Offer, resources: Vec<v1::Resource>) -> v1::TaskInfo {
    v1::TaskInfo {
        name: "load".to_owned(),
        task_id: v1::TaskId { value: id },
        agent_id: offer.agent_id.clone(),
        resources,
        command: Some(v1::CommandInfo { value: Some("sleep 1000".to_owned()), ..v1::CommandInfo::default() }),
        ..v1::TaskInfo::default()
    }
}

/// How much of a scalar there is.
pub(crate) fn amount(resources: &[v1::Resource], name: &str) -> f64 {
    resources.iter().filter(|it| it.name == name).filter_map(|it| it.scalar.as_ref()).map(|it| it.value).sum()
}

/// Subscribes, and lets the framework live on.
pub(crate) async fn start(mesos: SocketAddr, number: usize, info: &FrameworkInfo, scheduler: Rc<dyn Scheduler>) -> Result<Framework> {
    tokio::time::timeout(PATIENCE, subscribe(mesos, number, info, scheduler)).await.context("a subscription took too long")?
}

async fn subscribe(mesos: SocketAddr, number: usize, info: &FrameworkInfo, scheduler: Rc<dyn Scheduler>) -> Result<Framework> {
    let subscribe = call::Subscribe { framework_info: info.clone(), ..call::Subscribe::default() };
    let call =
        Call { framework_id: info.id.clone(), r#type: Some(call::Type::Subscribe.into()), subscribe: Some(subscribe), ..Call::default() };
    let body = call.encode_to_vec();
    let mut stream = TcpStream::connect(mesos).await.context("a framework cannot connect")?;
    stream.set_nodelay(true)?;
    let line = format!("POST /api/v1/scheduler HTTP/1.1\r\nHost: {mesos}\r\nContent-Type: application/x-protobuf\r\n");
    stream.write_all(format!("{line}Accept: application/x-protobuf\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).await?;
    stream.write_all(&body).await?;
    let mut chunks = Chunks::default();
    let (status, head) = http::head(&mut stream, &mut chunks.pending).await?;
    let stream_id = http::header(&head, "mesos-stream-id").unwrap_or_default().to_owned();
    if status != 200 || stream_id.is_empty() {
        bail!("a subscription was answered with {status}: {}", String::from_utf8_lossy(&chunks.pending));
    }
    let mut events = Events { stream, chunks, decoder: Decoder::new(EVENT_MAX) };
    let first = events.next().await?.context("a stream ended before it began")?;
    let id = first.subscribed.map(|it| it.framework_id).context("the first event is not SUBSCRIBED")?;

    let (calls, queue) = mpsc::unbounded_channel();
    let head = format!("{line}Mesos-Stream-Id: {stream_id}\r\n").into();
    let framework = Framework { number, id, calls, head };
    let caller = TcpStream::connect(mesos).await.context("a framework cannot connect for its calls")?;
    caller.set_nodelay(true)?;
    tokio::task::spawn_local(send_calls(caller, queue));
    let this = framework.clone();
    tokio::task::spawn_local(async move {
        while let Ok(Some(event)) = events.next().await {
            if event.r#type() != mesos_proto::v1::scheduler::event::Type::Heartbeat {
                scheduler.on(&this, event);
            }
        }
        scheduler.ended(&this);
    });
    Ok(framework)
}

struct Events {
    stream: TcpStream,
    chunks: Chunks,
    decoder: Decoder,
}

impl Events {
    async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(record) = self.decoder.next_record()? {
                return Ok(Some(Event::decode(record)?));
            }
            match self.chunks.next() {
                Some(chunk) if chunk.is_empty() => return Ok(None),
                Some(chunk) => self.decoder.push(&chunk),
                None if self.stream.read_buf(&mut self.chunks.pending).await? == 0 => return Ok(None),
                None => {}
            }
        }
    }
}

/// Writes what has come together, then takes as many answers. Nothing is answered out of order.
async fn send_calls(mut stream: TcpStream, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) {
    let mut pending = BytesMut::new();
    while let Some(first) = queue.recv().await {
        let (mut batch, mut count) = (first, 1);
        while batch.len() < WRITE_MAX
            && let Ok(next) = queue.try_recv()
        {
            batch.extend_from_slice(&next);
            count += 1;
        }
        if stream.write_all(&batch).await.is_err() {
            return;
        }
        for _ in 0..count {
            match http::head(&mut stream, &mut pending).await {
                Ok((202, _)) => {}
                Ok((status, head)) => {
                    eprintln!("a call was answered with {status}: {head}{}", String::from_utf8_lossy(&pending));
                    return;
                }
                Err(_) => return,
            }
        }
    }
}
