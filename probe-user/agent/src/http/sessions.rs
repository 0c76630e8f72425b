//! Containers that clients of the v1 agent API make, watch and speak with: nested ones, sessions in a container, and those that stand alone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyDataStream, BodyExt as _};
use hyper::body::Incoming;
use mesos_proto::recordio;
use mesos_proto::v1::agent::{Call, ProcessIo, call, process_io, response};
use mesos_proto::v1::{
    CommandInfo, ContainerId, ContainerInfo, DurationInfo, ExecutorInfo, FrameworkInfo, Resource, TaskResourceLimitation, TaskState, value,
};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::operator::{bad, permit};
use super::{Answer, CutShort, Encoding, Server, plain, stopping, streamed};
use crate::containers::{Containers, Handle};
use crate::keeper::Files;
use crate::keeper::attach::{self, frame};
use crate::login::Asker;
use crate::sandbox::Sandbox;
use crate::table::Launch;
use crate::words::ContainerKey;

/// Longest record of an input stream.
const RECORD_MAX: usize = 1 << 20;

/// How long it can be asked how a session ended: clients do when they have read all that it said.
const SESSION_REMEMBERED: Duration = Duration::from_secs(60);

const RECORDIO: &str = "application/recordio";

/// Whether the body of a request is a stream of records.
pub(super) fn is_streaming(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|it| it == RECORDIO)
}

fn key(id: &ContainerId) -> Result<ContainerKey, Answer> {
    ContainerKey::from_message(id).ok_or_else(|| bad("Failed to validate agent::Call: the container id is invalid"))
}

fn not_found(key: &ContainerKey) -> Answer {
    plain(StatusCode::NOT_FOUND, Some(&format!("Container {key} cannot be found")))
}

/// What a container asks for, and may have at most where that is more.
pub(super) type Allowance = (Vec<Resource>, BTreeMap<String, value::Scalar>);

/// What is to be made, nested in a container or alone.
async fn plan(
    server: &Server,
    key: &ContainerKey,
    command: Option<CommandInfo>,
    container: Option<ContainerInfo>,
    (resources, limits): Allowance,
) -> Result<(String, Launch), Answer> {
    let agent_id = server.driver.look(|view| view.table.agent_id().to_owned()).await.map_err(|_| stopping())?;
    let base = match key.parent() {
        Some(parent) => {
            let Some(parent) = server.containers.get(&parent) else {
                return Err(bad(&format!("Unable to locate the parent container of {key}")));
            };
            if parent.state().ended.is_some() {
                return Err(bad(&format!("The parent container of {key} has ended")));
            }
            if parent.launch().is_docker() {
                return Err(bad("Containers cannot be nested in a container of Docker"));
            }
            let base = parent.launch().clone();
            // With nothing of its own it has what its parent has.
            if resources.is_empty() { base } else { Launch { resources, limits, ..base } }
        }
        None => Launch {
            container: key.clone(),
            framework: FrameworkInfo { user: "root".to_owned(), ..FrameworkInfo::default() },
            executor: ExecutorInfo::default(),
            task: None,
            command: None,
            container_info: None,
            resources,
            limits,
            session: false,
        },
    };
    let mut executor = base.executor.clone();
    // What the executor's own command fetches is not for others.
    executor.command = executor.command.map(|it| CommandInfo { user: it.user, ..CommandInfo::default() });
    let command = Some(command.unwrap_or_default());
    Ok((agent_id, Launch { container: key.clone(), executor, task: None, command, container_info: container, session: false, ..base }))
}

pub(super) async fn launch(
    server: &Server,
    id: &ContainerId,
    command: Option<CommandInfo>,
    container: Option<ContainerInfo>,
    allowance: Allowance,
) -> Result<Answer, Answer> {
    let key = key(id)?;
    if server.containers.get(&key).is_some() {
        return Ok(plain(StatusCode::ACCEPTED, Some("")));
    }
    let (agent_id, launch) = plan(server, &key, command, container, allowance).await?;
    let handle = server.containers.launch_apart(&agent_id, launch);
    match handle.begun().await {
        Ok(_) => Ok(plain(StatusCode::OK, Some(""))),
        Err(problem) => {
            server.containers.forget(&key);
            Err(bad(&problem))
        }
    }
}

pub(super) async fn wait(server: &Server, id: &ContainerId) -> Result<response::WaitContainer, Answer> {
    let key = key(id)?;
    let handle = server.containers.get(&key).ok_or_else(|| not_found(&key))?;
    match handle.ended().await {
        Ok(exit) => Ok(response::WaitContainer {
            exit_status: exit.status,
            state: exit.limitation.as_ref().map(|_| TaskState::TaskFailed as i32),
            reason: exit.limitation.as_ref().map(|it| it.reason as i32),
            message: exit.limitation.as_ref().map(|it| it.message.clone()),
            limitation: exit.limitation.map(|it| TaskResourceLimitation { resources: it.resources }),
        }),
        Err(problem) => Ok(response::WaitContainer { message: Some(problem), ..response::WaitContainer::default() }),
    }
}

pub(super) fn kill(server: &Server, id: &ContainerId, signal: Option<i32>) -> Result<Answer, Answer> {
    let key = key(id)?;
    let handle = server.containers.get(&key).ok_or_else(|| not_found(&key))?;
    if handle.state().ended.is_some() {
        return Err(not_found(&key));
    }
    match signal {
        None | Some(libc::SIGKILL) => server.containers.destroy(&key),
        Some(number) => {
            let signal = Signal::try_from(number).map_err(|_| bad(&format!("There is no signal {number}")))?;
            server.containers.signal(&key, signal);
        }
    }
    Ok(plain(StatusCode::OK, Some("")))
}

pub(super) async fn remove(server: &Server, id: &ContainerId) -> Result<Answer, Answer> {
    let key = key(id)?;
    let Some(handle) = server.containers.get(&key) else { return Ok(plain(StatusCode::OK, Some(""))) };
    if handle.state().ended.is_none() {
        return Err(plain(StatusCode::INTERNAL_SERVER_ERROR, Some("The container is still running")));
    }
    let known = key.clone();
    let of_table = server.driver.look(move |view| view.table.executor_of(&known).is_some() && known.parent().is_none());
    if of_table.await.map_err(|_| stopping())? {
        return Err(bad("The container of an executor is removed by the agent alone"));
    }
    server.containers.remove_apart(&key, &handle).await;
    Ok(plain(StatusCode::OK, Some("")))
}

/// Makes a container beside another, streams what it says, and ends it when the client goes.
pub(super) async fn launch_session(server: Server, it: call::LaunchNestedContainerSession, headers: &HeaderMap) -> Result<Answer, Answer> {
    let key = key(&it.container_id)?;
    let encoding = message_encoding(headers)?;
    if server.containers.get(&key).is_some() {
        return Err(bad("The container exists already"));
    }
    let (agent_id, launch) = plan(&server, &key, it.command, it.container, Allowance::default()).await?;
    let handle = server.containers.launch_apart(&agent_id, Launch { session: true, ..launch });
    let mut session = Session { containers: server.containers.clone(), key: Some(key.clone()) };
    if let Err(problem) = handle.begun().await {
        // Whoever tries again may have the name at once.
        session.key = None;
        server.containers.forget(&key);
        return Err(bad(&problem));
    }
    Ok(output_stream(server, key, handle, encoding, Some(session)).await)
}

/// Ends a session when nobody is there any more who wants it: also a client that goes while an image is still pulled for it.
struct Session {
    containers: Containers,
    key: Option<ContainerKey>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.containers.end_apart(key, SESSION_REMEMBERED);
        }
    }
}

pub(super) async fn attach_output(server: Server, id: &ContainerId, headers: &HeaderMap) -> Result<Answer, Answer> {
    let key = key(id)?;
    let encoding = message_encoding(headers)?;
    let handle = server.containers.get(&key).ok_or_else(|| not_found(&key))?;
    if handle.launch().is_docker() || handle.launch().command.is_none() || handle.state().ended.is_some() {
        return Err(not_found(&key));
    }
    Ok(output_stream(server, key, handle, encoding, None).await)
}

/// The encoding of records that a client wants to read.
fn message_encoding(headers: &HeaderMap) -> Result<(Encoding, bool), Answer> {
    let accepts_records = super::wanted(headers).any(|it| it == RECORDIO);
    match headers.get("message-accept") {
        Some(value) if accepts_records => match (Encoding::of(value), value.to_str()) {
            (Some(encoding), _) => Ok((encoding, true)),
            (None, Ok("*/*")) => Ok((Encoding::Json, true)),
            _ => Err(plain(
                StatusCode::NOT_ACCEPTABLE,
                Some("Expecting 'Message-Accept' to allow application/json or application/x-protobuf"),
            )),
        },
        Some(_) => Err(plain(StatusCode::NOT_ACCEPTABLE, Some("'Message-Accept' is only for streaming responses"))),
        None if accepts_records => Ok((Encoding::Json, true)),
        None => super::accepted_encoding(headers).map(|it| (it, false)),
    }
}

async fn output_stream(
    server: Server,
    key: ContainerKey,
    handle: Handle,
    (encoding, is_recordio): (Encoding, bool),
    session: Option<Session>,
) -> Answer {
    let (records, sent) = mpsc::channel(16);
    let spawn = server.spawn.clone();
    let slaves = server.containers.layout().slaves();
    // Before the answer, after which the client may count on hearing everything.
    let stream = watched(&Files::of(&server.containers.layout().keeper(&key)).socket()).await.ok();
    // Clients hold a connection for dead that is silent for the configured interval, so twice in that time.
    let heartbeat = (server.config.http_heartbeat_interval / 2).max(Duration::from_millis(1));
    spawn(
        "attached-output",
        Box::pin(async move {
            let out = Output { encoding, records: &records, heartbeat, is_own: session.is_some(), slaves: &slaves };
            tokio::select! {
                passed = out.pass(stream, &handle) => if passed.is_err() {
                    // The client must not take what it has for all there is.
                    drop(records.send(Err(CutShort)).await);
                },
                () = records.closed() => {}
            }
            drop(session);
        }),
    );
    let mut answer = Response::new(streamed(sent));
    let kind = if is_recordio { RECORDIO } else { encoding.name() };
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if is_recordio {
        answer.headers_mut().insert("message-content-type", HeaderValue::from_static(encoding.name()));
    }
    answer
}

/// Where the output of a container goes.
struct Output<'a> {
    encoding: Encoding,
    records: &'a mpsc::Sender<Result<Bytes, CutShort>>,
    /// How often the client is told that it is still connected.
    heartbeat: Duration,
    /// Whether the client has started the session, and is to hear all of it.
    is_own: bool,
    /// Where all sandboxes are.
    slaves: &'a Path,
}

impl Output<'_> {
    fn record(&self, message: &ProcessIo) -> Bytes {
        recordio::frame(&self.encoding.write(message))
    }

    async fn send(&self, message: &ProcessIo) -> Result<(), CutShort> {
        self.records.send(Ok(self.record(message))).await.map_err(|_| CutShort)
    }

    /// Until the container has said its last.
    async fn pass(&self, stream: Option<UnixStream>, handle: &Handle) -> Result<(), CutShort> {
        let Some(stream) = stream else { return self.pass_logs(handle).await };
        let mut frames = Frames { stream, received: BytesMut::new() };
        let mut heartbeat = tokio::time::interval_at(tokio::time::Instant::now() + self.heartbeat, self.heartbeat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_first = true;
        loop {
            let frame = tokio::select! {
                frame = frames.next() => frame,
                _ = heartbeat.tick() => {
                    // Who has more than enough to read needs none.
                    drop(self.records.try_send(Ok(self.record(&alive(self.heartbeat)))));
                    continue;
                }
            };
            let (kind, bytes) = match frame {
                Ok(Some(frame)) => frame,
                // The keeper went before it knew of this client.
                Ok(None) | Err(_) if is_first => return self.pass_logs(handle).await,
                Ok(None) => return Ok(()),
                Err(_) => return Err(CutShort),
            };
            is_first = false;
            match kind {
                attach::STDOUT => self.send(&data(process_io::data::Type::Stdout, bytes)).await?,
                attach::STDERR => self.send(&data(process_io::data::Type::Stderr, bytes)).await?,
                attach::LOST => return Err(CutShort),
                _ => {}
            }
        }
    }

    /// What a session has said that was over before anybody could attach is in its logs.
    async fn pass_logs(&self, handle: &Handle) -> Result<(), CutShort> {
        if !self.is_own {
            return Ok(());
        }
        drop(handle.ended().await);
        for (log, kind) in [("stdout", process_io::data::Type::Stdout), ("stderr", process_io::data::Type::Stderr)] {
            let (slaves, sandbox) = (self.slaves.to_owned(), handle.sandbox().to_owned());
            let opened = tokio::task::spawn_blocking(move || Sandbox::open(&slaves, &sandbox)?.file(Path::new(log)));
            let Ok(Ok(said)) = opened.await else { continue };
            let mut said = tokio::fs::File::from_std(said);
            let mut piece = vec![0; attach::FRAME_MAX];
            while let Ok(read @ 1..) = said.read(&mut piece).await {
                self.send(&data(kind, piece[..read].to_vec())).await?;
            }
        }
        Ok(())
    }
}

/// What a keeper says, frame by frame.
struct Frames {
    stream: UnixStream,
    received: BytesMut,
}

impl Frames {
    /// The next frame, or `None` at the end. Nothing is lost when this is given up and asked again.
    async fn next(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some(&[kind, a, b, c, d]) = self.received.first_chunk() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if length > attach::FRAME_MAX {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                }
                if let Some(bytes) = self.received.get(5..5 + length) {
                    let bytes = bytes.to_vec();
                    self.received.advance(5 + length);
                    return Ok(Some((kind, bytes)));
                }
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return if self.received.is_empty() { Ok(None) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) };
            }
        }
    }
}

fn data(kind: process_io::data::Type, bytes: Vec<u8>) -> ProcessIo {
    ProcessIo {
        r#type: Some(process_io::Type::Data as i32),
        data: Some(process_io::Data { r#type: Some(kind as i32), data: Some(bytes) }),
        control: None,
    }
}

fn alive(interval: Duration) -> ProcessIo {
    let interval = DurationInfo { nanoseconds: i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX) };
    ProcessIo {
        r#type: Some(process_io::Type::Control as i32),
        data: None,
        control: Some(process_io::Control {
            r#type: Some(process_io::control::Type::Heartbeat as i32),
            tty_info: None,
            heartbeat: Some(process_io::control::Heartbeat { interval: Some(interval) }),
        }),
    }
}

/// A stream of records: the first says which container, the others are its input.
pub(super) async fn attach_input(server: Server, asker: &Asker, request: Request<Incoming>) -> Result<Answer, Answer> {
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
            let it = call
                .attach_container_input
                .ok_or_else(|| bad("Failed to validate agent::Call: Expecting 'attach_container_input' to be present"))?;
            match (it.r#type(), &mut target) {
                (call::attach_container_input::Type::ContainerId, None) => {
                    let id =
                        it.container_id.ok_or_else(|| bad("Failed to validate agent::Call: Expecting 'container_id' to be present"))?;
                    permit(asker, Some(&id))?;
                    super::rights::of_container(&server, Some(&id), ("attach_containers_input", "attach_containers_input"))?;
                    target = Some(connect(&server, &key(&id)?).await?);
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

async fn connect(server: &Server, key: &ContainerKey) -> Result<UnixStream, Answer> {
    let handle = server.containers.get(key).ok_or_else(|| not_found(key))?;
    let has_input = handle.launch().session || handle.launch().container_info.as_ref().is_some_and(|it| it.tty_info.is_some());
    if !has_input {
        return Err(bad("The container has no input to attach to"));
    }
    let socket = Files::of(&server.containers.layout().keeper(key)).socket();
    connected(&socket).map_err(|_| not_found(key))
}

/// A socket of this machine that is listened to, or not, answers at once.
fn connected(socket: &std::path::Path) -> io::Result<UnixStream> {
    let stream = attach::connect(socket)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// The same, from where on the output comes.
async fn watched(socket: &std::path::Path) -> io::Result<UnixStream> {
    let mut stream = connected(socket)?;
    stream.write_all(&frame(attach::WATCH, &[])).await?;
    Ok(stream)
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::ACCEPT;

    use super::*;

    fn asked(accept: &[&'static str], message: Option<&'static str>) -> Result<(Encoding, bool), u16> {
        let mut headers = HeaderMap::new();
        accept.iter().for_each(|it| {
            headers.append(ACCEPT, HeaderValue::from_static(it));
        });
        if let Some(it) = message {
            headers.insert("message-accept", HeaderValue::from_static(it));
        }
        message_encoding(&headers).map_err(|answer| answer.status().as_u16())
    }

    #[test]
    fn records_are_given_to_who_asks_for_them_in_whichever_header() {
        assert_eq!(asked(&["application/recordio"], Some("application/x-protobuf")), Ok((Encoding::Protobuf, true)));
        // As mesos-go asks.
        assert_eq!(
            asked(&["application/x-protobuf", "application/recordio"], Some("application/x-protobuf")),
            Ok((Encoding::Protobuf, true))
        );
        assert_eq!(asked(&["application/recordio, */*"], None), Ok((Encoding::Json, true)));
        assert_eq!(asked(&[], None), Ok((Encoding::Json, false)));
        assert_eq!(asked(&["application/x-protobuf"], None), Ok((Encoding::Protobuf, false)));
        assert_eq!(asked(&["application/json"], Some("application/json")), Err(406));
        assert_eq!(asked(&["application/recordio"], Some("text/html")), Err(406));
        assert_eq!(asked(&["text/html"], None), Err(406));
    }
}
