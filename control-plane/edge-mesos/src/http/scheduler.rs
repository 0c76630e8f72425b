//! `POST /api/v1/scheduler`

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use master::{StreamId, scheduler_call_error};
use mesos_proto::v1::scheduler::Call;
use mesos_proto::v1::scheduler::call::Type;

use super::call::{Incoming, accepted};
use super::stream::SchedulerBody;
use super::{Context, call, reply};

const STREAM_ID: &str = "Mesos-Stream-Id";

pub(super) async fn serve(context: &Context, principal: Option<Arc<str>>, request: Request) -> Response {
    let Incoming { call, headers } = match call::read::<Call>(context, request).await {
        Ok(incoming) => incoming,
        Err(refused) => return refused,
    };
    if let Some(problem) = scheduler_call_error(&call, principal.as_deref()) {
        return reply::bad_request(&format!("Failed to validate scheduler::Call: {problem}"));
    }
    let kind = call.r#type.and_then(|it| Type::try_from(it).ok()).unwrap_or(Type::Unknown);
    let stream = headers.get(STREAM_ID).map(|it| StreamId::from(String::from_utf8_lossy(it.as_bytes()).as_ref()));
    if kind == Type::ReconcileOperations
        && let Err(refused) = accepted(&headers)
    {
        return refused;
    }
    if kind != Type::Subscribe {
        return match context.inner.master.call(stream, principal, call).await {
            Ok(reply) => reply::of_core(reply),
            Err(stopped) => reply::stopped(stopped),
        };
    }
    if stream.is_some() {
        return reply::bad_request("Subscribe calls should not include the 'Mesos-Stream-Id' header");
    }
    let encoding = match accepted(&headers) {
        Ok(encoding) => encoding,
        Err(refused) => return refused,
    };
    let Some(subscribe) = call.subscribe else { return reply::bad_request("Expecting 'subscribe' to be present") };
    let id = crate::new_uuid();
    let events = match context.inner.master.subscribe(StreamId::from(id.as_str()), principal, Box::new(subscribe)).await {
        Ok(events) => events,
        Err(stopped) => return reply::stopped(stopped),
    };
    let mut response = Response::new(Body::new(SchedulerBody::new(events, encoding)));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(encoding.content_type()));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("mesos-stream-id", id);
    }
    response
}
