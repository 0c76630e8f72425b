//! A probe that says what it is told to, well-formed or not.

use std::net::SocketAddr;
use std::time::Duration;

use ::http::uri::PathAndQuery;
use bytes::{BufMut as _, Bytes};
use prost::Message as _;
use proto::probe::v1::{ControlMessage, Goodbye, Hello, ProbeMessage, Rejected, Report, Welcome, control_message, probe_message};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstDecoder;

/// A stream to the control plane.
pub(crate) struct Probe {
    outgoing: mpsc::Sender<Bytes>,
    incoming: Streaming<ControlMessage>,
    pub(crate) welcome: Welcome,
}

pub(crate) fn hello(probe_id: &str, host_name: &str) -> Hello {
    Hello {
        probe_id: probe_id.to_owned(),
        host_name: host_name.to_owned(),
        version: "1.2.3".to_owned(),
        session_id: "session".to_owned(),
        ..Hello::default()
    }
}

impl Probe {
    pub(crate) async fn connect(server: SocketAddr, probe_id: &str, host_name: &str) -> Self {
        Self::connect_with(server, hello(probe_id, host_name)).await.unwrap()
    }

    pub(crate) async fn connect_with(server: SocketAddr, hello: Hello) -> Result<Self, Status> {
        Self::connect_raw(server, message(probe_message::Body::Hello(hello))).await
    }

    /// With any first message.
    pub(crate) async fn connect_raw(server: SocketAddr, first: Bytes) -> Result<Self, Status> {
        let channel = Endpoint::from_shared(format!("http://{server}")).unwrap().connect().await.unwrap();
        let mut grpc = Grpc::new(channel).max_encoding_message_size(usize::MAX);
        grpc.ready().await.unwrap();
        let (outgoing, messages) = mpsc::channel(1_024);
        let path = PathAndQuery::from_static("/orchestrator.probe.v1.ProbeService/Stream");
        outgoing.send(first).await.unwrap();
        let reply = grpc.streaming(Request::new(ReceiverStream::new(messages)), path, AnyBytes).await?;
        let mut incoming = reply.into_inner();
        match next(&mut incoming).await? {
            Some(control_message::Body::Welcome(welcome)) => Ok(Probe { outgoing, incoming, welcome }),
            other => panic!("no welcome but {other:?}"),
        }
    }

    pub(crate) async fn send(&self, report: Report) {
        self.send_raw(message(probe_message::Body::Report(report))).await;
    }

    pub(crate) async fn send_raw(&self, bytes: impl Into<Bytes>) {
        self.outgoing.send(bytes.into()).await.unwrap();
    }

    /// Sends a report and waits until it is on the map.
    pub(crate) async fn apply(&mut self, report: Report) {
        let sequence = report.sequence;
        self.send(report).await;
        self.acknowledged(sequence).await;
    }

    #[track_caller]
    pub(crate) fn acknowledged(&mut self, sequence: u64) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            loop {
                match self.next().await {
                    Ok(Some(control_message::Body::Acknowledge(acknowledge))) if acknowledge.sequence >= sequence => return,
                    Ok(Some(control_message::Body::Acknowledge(_) | control_message::Body::Throttle(_))) => {}
                    other => panic!("no acknowledgement at {caller} but {other:?}"),
                }
            }
        }
    }

    /// The next message has to be a refusal.
    pub(crate) async fn rejected(&mut self) -> Rejected {
        match self.next().await {
            Ok(Some(control_message::Body::Rejected(rejected))) => rejected,
            other => panic!("no refusal but {other:?}"),
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<control_message::Body>, Status> {
        next(&mut self.incoming).await
    }

    /// Waits until the control plane ends the stream, and says how.
    pub(crate) async fn ended(&mut self) -> Code {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Code::Ok,
                Err(status) => return status.code(),
            }
        }
    }

    pub(crate) async fn goodbye(mut self) {
        self.send_raw(message(probe_message::Body::Goodbye(Goodbye::default()))).await;
        self.ended().await;
    }
}

pub(crate) fn message(body: probe_message::Body) -> Bytes {
    ProbeMessage { body: Some(body) }.encode_to_vec().into()
}

async fn next(incoming: &mut Streaming<ControlMessage>) -> Result<Option<control_message::Body>, Status> {
    let message = timeout(Duration::from_secs(10), incoming.message()).await.expect("a message comes in time")?;
    Ok(message.and_then(|message| message.body))
}

/// Sends bytes as they are.
#[derive(Debug)]
struct AnyBytes;

impl Codec for AnyBytes {
    type Encode = Bytes;
    type Decode = ControlMessage;
    type Encoder = AnyBytes;
    type Decoder = ProstDecoder<ControlMessage>;

    fn encoder(&mut self) -> AnyBytes {
        AnyBytes
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl Encoder for AnyBytes {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}
