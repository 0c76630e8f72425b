//! What a client types, passed on to a container.

use std::time::Duration;

use futures::StreamExt as _;
use http::{Request, StatusCode};
use http_body_util::{BodyDataStream, BodyExt as _};
use hyper::body::Incoming;
use mesos_proto::recordio;
use mesos_proto::v1::agent::{Call, ProcessIo, call};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::super::operator::{bad, permit};
use super::super::rights::of_container;
use super::super::{Answer, Encoding, Server, plain};
use super::{connected, key, not_found};
use crate::keeper::Files;
use crate::keeper::attach::{self, frame};
use crate::login::Asker;
use crate::words::ContainerKey;

/// Longest record of an input stream.
const RECORD_MAX: usize = 1 << 20;

/// A stream of records: the first says which container, the others are its input.
pub(in crate::http) async fn attach_input(server: Server, asker: &Asker, request: Request<Incoming>) -> Result<Answer, Answer> {
    let unsupported = |text: &str| plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, Some(text));
    let value = request
        .headers()
        .get("message-content-type")
        .ok_or_else(|| bad("Expecting 'Message-Content-Type' to be set for streaming requests"))?;
    let encoding =
        Encoding::of(value).ok_or_else(|| unsupported("Expecting 'Message-Content-Type' of application/json or application/x-protobuf"))?;
    let mut typed = Typed { body: request.into_body().into_data_stream(), decoder: recordio::Decoder::new(RECORD_MAX), has_ended: false };
    let mut target: Option<UnixStream> = None;
    let mut heartbeat = server.config.http_heartbeat_interval;
    loop {
        while let Some(record) = typed.decoder.next_record().map_err(|error| bad(&format!("Failed to read the stream: {error}")))? {
            let call: Call = encoding.read(&record).map_err(|text| bad(&text))?;
            if call.attach_container_input.is_none() && !matches!(call.r#type(), call::Type::Unknown | call::Type::AttachContainerInput) {
                let kind = call.r#type().as_str_name();
                return Err(unsupported(&format!("Streaming 'Content-Type' application/recordio is not supported for {kind} call")));
            }
            let it = call
                .attach_container_input
                .ok_or_else(|| bad("Failed to validate agent::Call: Expecting 'attach_container_input' to be present"))?;
            match (it.r#type(), &mut target) {
                (call::attach_container_input::Type::ContainerId, None) => {
                    let id =
                        it.container_id.ok_or_else(|| bad("Failed to validate agent::Call: Expecting 'container_id' to be present"))?;
                    permit(asker, Some(&id))?;
                    of_container(&server, Some(&id), ("attach_containers_input", "attach_containers_input"))?;
                    target = connect(&server, &key(&id)?)?;
                    if target.is_none() {
                        // A program that ends at once is faster than whoever wants to type to it.
                        return Ok(plain(StatusCode::OK, Some("")));
                    }
                }
                (call::attach_container_input::Type::ProcessIo, Some(stream)) => {
                    let input = it.process_io.ok_or_else(|| bad("Failed to validate agent::Call: Expecting 'process_io' to be present"))?;
                    if let Some(interval) = input.control.as_ref().and_then(|it| it.heartbeat.as_ref()).and_then(|it| it.interval) {
                        heartbeat = crate::words::nanoseconds(interval.nanoseconds);
                    }
                    for frame in frames(&input) {
                        match typed.pass_on(stream, &frame).await {
                            Ok(()) => {}
                            // What is still typed is for nobody.
                            Err(Stop::ContainerOver) => return Ok(plain(StatusCode::OK, Some(""))),
                            Err(Stop::ClientGone) => return Err(bad("The stream was cut short")),
                        }
                    }
                }
                _ => return Err(bad("The first record, and no other, has to be of type CONTAINER_ID")),
            }
        }
        // Who is silent for several of its own heartbeats is gone.
        let patience = heartbeat.max(Duration::from_secs(30)) * 5;
        let piece = if typed.has_ended { Ok(None) } else { tokio::time::timeout(patience, typed.body.next()).await };
        match piece {
            Err(_) => return Err(plain(StatusCode::REQUEST_TIMEOUT, None)),
            Ok(Some(Ok(piece))) => typed.decoder.push(&piece),
            Ok(Some(Err(_))) => return Err(bad("The stream was cut short")),
            Ok(None) if target.is_none() || !typed.decoder.is_between_records() => return Err(bad("The stream was cut short")),
            Ok(None) => return Ok(plain(StatusCode::OK, Some(""))),
        }
    }
}

/// What a client types, record by record.
struct Typed {
    body: BodyDataStream<Incoming>,
    decoder: recordio::Decoder,
    has_ended: bool,
}

/// Why no more input is passed on.
enum Stop {
    ContainerOver,
    ClientGone,
}

impl Typed {
    /// Writes a frame, however long the container takes no input. What comes meanwhile is kept, up to a record's size: so a client that goes is
    /// noticed, and takes nobody's place at the container.
    async fn pass_on(&mut self, stream: &mut UnixStream, frame: &[u8]) -> Result<(), Stop> {
        let mut writing = std::pin::pin!(stream.write_all(frame));
        let mut kept = 0;
        loop {
            tokio::select! {
                written = &mut writing => return written.map_err(|_| Stop::ContainerOver),
                piece = self.body.next(), if !self.has_ended && kept < RECORD_MAX => match piece {
                    Some(Ok(piece)) => {
                        kept += piece.len();
                        self.decoder.push(&piece);
                    }
                    Some(Err(_)) => return Err(Stop::ClientGone),
                    None => self.has_ended = true,
                },
            }
        }
    }
}

/// `None`: it is over.
fn connect(server: &Server, key: &ContainerKey) -> Result<Option<UnixStream>, Answer> {
    let handle = server.containers.get(key).ok_or_else(|| not_found(key))?;
    let has_input = handle.launch().session || handle.launch().container_info.as_ref().is_some_and(|it| it.tty_info.is_some());
    if !has_input {
        return Err(bad("The container has no input to attach to"));
    }
    let socket = Files::of(&server.containers.layout().keeper(key)).socket();
    match connected(&socket) {
        Ok(stream) => Ok(Some(stream)),
        Err(_) if handle.state().ended.is_some() => Ok(None),
        Err(error) if handle.state().started.is_some() => match error.kind() {
            std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => Ok(None),
            _ => Err(plain(StatusCode::INTERNAL_SERVER_ERROR, Some(&format!("The container cannot be reached: {error}")))),
        },
        Err(_) => Err(not_found(key)),
    }
}

/// What the keeper is told.
fn frames(input: &ProcessIo) -> Vec<Vec<u8>> {
    if let Some(data) = &input.data {
        let bytes = data.data.as_deref().unwrap_or_default();
        if bytes.is_empty() {
            return vec![frame(attach::STDIN, &[])];
        }
        return bytes.chunks(attach::FRAME_MAX).map(|it| frame(attach::STDIN, it)).collect();
    }
    let size = input.control.as_ref().and_then(|it| it.tty_info.as_ref()).and_then(|it| it.window_size);
    let of = |it: u32| u16::try_from(it).unwrap_or(u16::MAX).to_be_bytes();
    size.map(|it| vec![frame(attach::WINDOW, &[of(it.rows), of(it.columns)].concat())]).unwrap_or_default()
}
