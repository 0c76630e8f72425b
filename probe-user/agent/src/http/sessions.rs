//! Containers that clients of the v1 agent API make, watch and speak with: nested ones, sessions in a container, and those that stand alone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use mesos_proto::recordio;
use mesos_proto::v1::agent::{ProcessIo, call, process_io, response};
use mesos_proto::v1::{
    CommandInfo, ContainerId, ContainerInfo, DurationInfo, ExecutorInfo, FrameworkInfo, Resource, TaskResourceLimitation, TaskState, value,
};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::operator::bad;
use super::{Answer, CutShort, Encoding, Server, plain, stopping, streamed};
use crate::containers::{Containers, Handle};
use crate::keeper::Files;
use crate::keeper::attach::{self, frame};
use crate::sandbox::Sandbox;
use crate::table::Launch;
use crate::words::ContainerKey;

mod input;

pub(super) use input::attach_input;

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
