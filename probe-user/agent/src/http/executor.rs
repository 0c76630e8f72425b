//! The v1 executor API: `POST /api/v1/executor`.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use mesos_proto::recordio;
use mesos_proto::v1::executor::{Call, Event, call, event};
use mesos_proto::v1::{TaskState, task_status};
use tokio::sync::mpsc;

use super::{Answer, CutShort, Encoding, Server, accepted_encoding, content_encoding, not_allowed, plain, stopping, streamed, whole};
use crate::login::Asker;
use crate::table::{Input, Refusal};
use crate::words::ExecutorKey;

/// As in Mesos: no help in telling who is dead, but a promise.
const HEARTBEAT: Duration = Duration::from_secs(30 * 60);

pub(super) async fn handle(server: Server, asker: &Asker, request: Request<Incoming>) -> Answer {
    match try_handle(server, asker, request).await {
        Ok(answer) | Err(answer) => answer,
    }
}

async fn try_handle(server: Server, asker: &Asker, request: Request<Incoming>) -> Result<Answer, Answer> {
    if request.method() != Method::POST {
        return Err(not_allowed("POST", request.method()));
    }
    let content = content_encoding(request.headers())?;
    let accepted = accepted_encoding(request.headers());
    let body = whole(request.into_body()).await?;
    let bad = |text: &str| plain(StatusCode::BAD_REQUEST, Some(text));
    let invalid = |text: &str| bad(&format!("Failed to validate Executor::Call: {text}"));
    let call: Call = content.read(&body).map_err(|text| bad(&text))?;
    let key = ExecutorKey { framework: call.framework_id.value.clone(), executor: call.executor_id.value.clone() };
    if let Asker::Executor(claims) = asker {
        // An executor that runs again has another container, and another token.
        let (of, cid) = (key.clone(), claims.cid.clone());
        let runs_there = server.driver.look(move |view| view.table.container_of(&of).is_some_and(|it| it.to_string() == cid));
        if claims.fid != key.framework || claims.eid != key.executor || !runs_there.await.map_err(|_| stopping())? {
            return Err(plain(StatusCode::FORBIDDEN, None));
        }
    }
    let accepted_without_body = || Ok(plain(StatusCode::ACCEPTED, Some("")));
    let input = match call.r#type() {
        call::Type::Subscribe => {
            let subscribe = call.subscribe.unwrap_or_default();
            for update in &subscribe.unacknowledged_updates {
                if update.status.uuid.as_ref().is_none_or(|it| it.len() != 16) {
                    return Err(invalid("an update without a uuid of 16 bytes"));
                }
            }
            let updates = subscribe.unacknowledged_updates.into_iter().map(|it| it.status).collect();
            let input = Input::Subscribed { executor: key.clone(), tasks: subscribe.unacknowledged_tasks, updates };
            return subscribe_stream(server, key, input, accepted?).await;
        }
        call::Type::Update => {
            let mut status = call.update.ok_or_else(|| invalid("Expecting 'update' to be present"))?.status;
            if status.uuid.as_ref().is_none_or(|it| it.len() != 16) {
                return Err(invalid("Expecting 'uuid' to be a uuid of 16 bytes"));
            }
            if status.source() != task_status::Source::Executor || status.source.is_none() {
                return Err(invalid("Received Call from executor with non-executor source"));
            }
            if status.state() == TaskState::TaskStaging {
                return Err(invalid("Received TASK_STAGING from executor which is not allowed"));
            }
            if status.executor_id.as_ref().is_some_and(|it| *it != call.executor_id) {
                return Err(invalid("ExecutorID in Call does not match ExecutorID in TaskStatus"));
            }
            status.executor_id = Some(call.executor_id);
            Input::ExecutorUpdate { executor: key, status: Box::new(status) }
        }
        call::Type::Message => {
            let message = call.message.ok_or_else(|| invalid("Expecting 'message' to be present"))?;
            Input::ExecutorMessage { executor: key, data: message.data }
        }
        call::Type::Heartbeat => return accepted_without_body(),
        call::Type::Unknown => return Err(plain(StatusCode::NOT_IMPLEMENTED, None)),
    };
    match server.driver.ask(input).await.map_err(|_| stopping())? {
        None => accepted_without_body(),
        Some(refusal) => Err(refused(refusal)),
    }
}

fn refused(refusal: Refusal) -> Answer {
    let status = match refusal {
        Refusal::FrameworkUnknown | Refusal::ExecutorUnknown => StatusCode::BAD_REQUEST,
        Refusal::NotSubscribed | Refusal::Terminating => StatusCode::FORBIDDEN,
        Refusal::TooMany => StatusCode::SERVICE_UNAVAILABLE,
    };
    plain(status, Some(&refusal.to_string()))
}

async fn subscribe_stream(server: Server, key: ExecutorKey, input: Input, encoding: Encoding) -> Result<Answer, Answer> {
    // Opened first, so that it is there for the events that the subscription causes.
    let (number, events) = server.executors.open(&key);
    match server.driver.ask(input).await.map_err(|_| stopping())? {
        None => {}
        Some(refusal) => {
            server.executors.ended(&key, number);
            return Err(refused(refusal));
        }
    }
    let (records, sent) = mpsc::channel(1);
    let spawn = server.spawn.clone();
    spawn("executor-stream", Box::pin(pass_on(server, key, number, events, encoding, records)));
    let mut answer = Response::new(streamed(sent));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(encoding.name()));
    Ok(answer)
}

/// Events to records, until the executor, its replacement or the agent ends it.
async fn pass_on(
    server: Server,
    key: ExecutorKey,
    number: u64,
    mut events: mpsc::Receiver<Event>,
    encoding: Encoding,
    records: mpsc::Sender<Result<Bytes, CutShort>>,
) {
    let mut heartbeat = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
    loop {
        let event = tokio::select! {
            event = events.recv() => match event { Some(it) => it, None => break },
            _ = heartbeat.tick() => Event { r#type: Some(event::Type::Heartbeat as i32), ..Event::default() },
            () = records.closed() => break,
        };
        if records.send(Ok(recordio::frame(&encoding.write(&event)))).await.is_err() {
            break;
        }
    }
    if server.executors.ended(&key, number) {
        let _ = server.driver.input(Input::Unsubscribed(key)).await;
    }
}
