//! `ControlService`: what can be done with nodes, and the pipes that this opens.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use futures::Stream;
use proto::control::v1::control_service_server::ControlService;
use proto::control::v1::{CallRequest, CallResponse, ClosePipeRequest, ClosePipeResponse, PipeRequest, PipeResponse};
use relay::{Answer, CallError, Caller, Connection, End, PipeRefusal, Target};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{Context, Room, stopping};

/// Longest id of a probe, a node or a control.
const ID_MAX: usize = 2_048;
/// Longest id of a pipe.
const PIPE_ID_MAX: usize = 256;
/// Most arguments of a call, and the most bytes that they may have together.
const ARGUMENTS_MAX: usize = 64;
const ARGUMENT_BYTES_MAX: usize = 64 << 10;
/// Bytes that are taken out of a pipe at once.
const TAKEN_BYTES: usize = 64 << 10;

const ANY_PADDING: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Controls {
    context: Context,
}

type PipeMessages = Pin<Box<dyn Stream<Item = Result<PipeResponse, Status>> + Send>>;

impl Controls {
    pub(crate) fn new(context: Context) -> Self {
        Controls { context }
    }

    async fn carry_out(&self, caller: Caller, request: CallRequest) -> Result<CallResponse, Status> {
        let CallRequest { probe_id: probe, node_id: node, control, arguments } = request;
        for (name, id) in [("probe_id", &probe), ("node_id", &node), ("control", &control)] {
            if id.is_empty() || id.len() > ID_MAX {
                return Err(Status::invalid_argument(format!("{name} has {} bytes, and has to have 1 to {ID_MAX}", id.len())));
            }
        }
        let bytes: usize = arguments.iter().map(|(name, value)| name.len() + value.len()).sum();
        if arguments.len() > ARGUMENTS_MAX || bytes > ARGUMENT_BYTES_MAX {
            let text =
                format!("there are {} arguments of {bytes} bytes; {ARGUMENTS_MAX} of {ARGUMENT_BYTES_MAX} are allowed", arguments.len());
            return Err(Status::invalid_argument(text));
        }
        let target = Target { probe, node, control, arguments: arguments.into_iter().collect() };
        let (reply, answer) = oneshot::channel();
        let board = self.context.0.switchboard.clone();
        // Goes on when the client goes away: it is done all the same, and belongs into the record.
        self.context.0.tasks.spawn(async move { drop(reply.send(board.call(&caller, target).await)) });
        match answer.await {
            Ok(Ok(answer)) => Ok(to_wire(answer)),
            Ok(Err(error)) => Err(refused(&error)),
            Err(_) => Err(stopping()),
        }
    }

    async fn open(&self, mut incoming: Streaming<PipeRequest>) -> Result<PipeMessages, Status> {
        let limits = self.context.0.limits;
        let first = match timeout(limits.patience, incoming.message()).await {
            Ok(first) => first?.ok_or_else(|| Status::invalid_argument("the first message names the pipe, and there is none"))?,
            Err(_) => return Err(Status::deadline_exceeded("the first message names the pipe, and did not come in time")),
        };
        let PipeRequest { pipe_id, data } = first;
        if pipe_id.is_empty() || pipe_id.len() > PIPE_ID_MAX {
            return Err(Status::invalid_argument("the first message has to name the pipe that a control opened"));
        }
        let room = self.context.room()?;
        // Whoever connects to a pipe makes it, if it is new; this is for those that there are.
        let connection = self.context.0.switchboard.connect(&pipe_id, End::Client).map_err(|refusal| match refusal {
            PipeRefusal::Closed => Status::not_found(format!("the pipe {pipe_id:?} is closed")),
            PipeRefusal::TooMany => Status::resource_exhausted("as many pipes are open as there may be"),
        })?;
        let (outbox, messages) = mpsc::channel(1);
        let context = self.context.clone();
        self.context.0.tasks.spawn(carry(context, room, connection, data, incoming, outbox));
        Ok(Box::pin(ReceiverStream::new(messages)))
    }
}

/// Both ways, until the pipe has ended, the client has gone, or the process stops.
async fn carry(
    context: Context,
    room: Room,
    connection: Connection,
    first: Bytes,
    incoming: Streaming<PipeRequest>,
    outbox: mpsc::Sender<Result<PipeResponse, Status>>,
) {
    let begun = Instant::now();
    let stopped = context.0.stopping.clone();
    let end = tokio::select! {
        biased;
        () = stopped.cancelled() => Err(stopping()),
        end = outward(&connection, &outbox) => end,
        end = inward(&connection, first, incoming) => end,
    };
    let code = end.as_ref().err().map_or(Code::Ok, Status::code);
    if let Err(status) = end {
        // A client that does not read does not read this either.
        let _ = timeout(context.0.limits.patience, outbox.send(Err(status))).await;
    }
    context.0.observer.answered("Pipe", code, begun.elapsed());
    drop((connection, room));
}

async fn outward(connection: &Connection, outbox: &mpsc::Sender<Result<PipeResponse, Status>>) -> Result<(), Status> {
    loop {
        let chunks = tokio::select! {
            () = outbox.closed() => return Err(Status::cancelled("the client has gone away")),
            chunks = connection.receive(TAKEN_BYTES) => chunks,
        };
        let Some(chunks) = chunks else { return Ok(()) };
        for data in chunks {
            // As long as it takes: whoever does not read holds up the other end of the pipe, as with any terminal.
            if outbox.send(Ok(PipeResponse { data })).await.is_err() {
                return Err(Status::cancelled("the client has gone away"));
            }
        }
    }
}

async fn inward(connection: &Connection, first: Bytes, mut incoming: Streaming<PipeRequest>) -> Result<(), Status> {
    let mut data = first;
    loop {
        if !data.is_empty() && !connection.send(data).await {
            // The pipe takes nothing any more; what it still says is on its way out.
            return std::future::pending().await;
        }
        data = match incoming.message().await? {
            Some(PipeRequest { data, pipe_id }) if pipe_id.is_empty() => data,
            Some(_) => return Err(Status::invalid_argument("only the first message names a pipe")),
            // It has nothing more to say, and goes on reading.
            None => return std::future::pending().await,
        };
    }
}

#[tonic::async_trait]
impl ControlService for Controls {
    type PipeStream = PipeMessages;

    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallResponse>, Status> {
        let caller = caller(request.remote_addr(), request.metadata());
        self.context.answer("Call", self.carry_out(caller, request.into_inner())).await
    }

    async fn pipe(&self, request: Request<Streaming<PipeRequest>>) -> Result<Response<PipeMessages>, Status> {
        if self.context.0.stopping.is_cancelled() {
            return Err(stopping());
        }
        match self.open(request.into_inner()).await {
            Ok(messages) => Ok(Response::new(messages)),
            Err(status) => self.context.answer("Pipe", std::future::ready(Err(status))).await,
        }
    }

    async fn close_pipe(&self, request: Request<ClosePipeRequest>) -> Result<Response<ClosePipeResponse>, Status> {
        let close = async {
            self.context.0.switchboard.close(&request.into_inner().pipe_id);
            Ok(ClosePipeResponse {})
        };
        self.context.answer("ClosePipe", close).await
    }
}

/// Who asks. The name in `authorization: Basic …` is taken as it is: a proxy in front of us may have asked for it and checked the password.
fn caller(remote: Option<SocketAddr>, metadata: &MetadataMap) -> Caller {
    let user = || {
        let credentials = metadata.get("authorization")?.to_str().ok()?.strip_prefix("Basic ")?;
        let decoded = ANY_PADDING.decode(credentials.trim()).ok()?;
        let name = decoded.split(|byte| *byte == b':').next()?;
        Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty())
    };
    Caller { remote, user: user() }
}

fn to_wire(answer: Answer) -> CallResponse {
    let Answer { value, pipe, raw_tty, resize_tty_control, removed_node } = answer;
    CallResponse {
        value_json: value.map(|value| value.to_string()).unwrap_or_default(),
        pipe_id: pipe.as_deref().unwrap_or_default().to_owned(),
        raw_tty,
        resize_tty_control,
        removed_node_id: removed_node,
    }
}

fn refused(error: &CallError) -> Status {
    let code = match error {
        CallError::NotConnected(_) | CallError::Stopped(_) => Code::Unavailable,
        CallError::Unknown(_) => Code::NotFound,
        CallError::ProbeLost(_) => Code::Aborted,
        CallError::TimedOut(_) => Code::DeadlineExceeded,
        CallError::TooMany => Code::ResourceExhausted,
        CallError::Failed(_) => Code::Unknown,
    };
    Status::new(code, error.to_string())
}
