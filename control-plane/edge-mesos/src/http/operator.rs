//! `POST /api/v1`

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use master::operator_call_error;
use mesos_proto::v1::master::Call;
use mesos_proto::v1::master::call::{GetMetrics, Type};

use super::call::{Encoding, Incoming, accepted};
use super::rendered::Key;
use super::stream::{HEARTBEAT, OperatorBody};
use super::{Context, call, local, reply};
use crate::acl::Sight;
use crate::driver::Published;
use crate::pieces::Runs;
use crate::view::Scene;
use crate::view::operator::{Question, answer, subscribed};
use crate::view::sight::{EventFilter, Viewer};

pub(super) async fn serve(context: &Context, principal: Option<Arc<str>>, request: Request) -> Response {
    let Incoming { mut call, headers } = match call::read::<Call>(context, request).await {
        Ok(incoming) => incoming,
        Err(refused) => return refused,
    };
    let kind = call.r#type.and_then(|it| Type::try_from(it).ok()).unwrap_or(Type::Unknown);
    if kind == Type::GetMetrics && call.get_metrics.is_none() {
        // Some clients leave it out. Mesos refuses them; nobody is hurt when we do not.
        call.get_metrics = Some(GetMetrics::default());
    }
    if let Some(problem) = operator_call_error(&call) {
        return reply::bad_request(&format!("Failed to validate master::Call: {problem}"));
    }
    if kind == Type::Unknown {
        return reply::text(StatusCode::NOT_IMPLEMENTED, "");
    }
    if let Some(question) = question(kind) {
        return match accepted(&headers) {
            Ok(encoding) => read(context, question, context.viewer(principal), encoding, &headers).await,
            Err(refused) => refused,
        };
    }
    match kind {
        Type::Subscribe => match accepted(&headers) {
            Ok(encoding) => watch(context, context.viewer(principal), encoding).await,
            Err(refused) => refused,
        },
        Type::SetLoggingLevel if !context.viewer(principal.clone()).sees(Sight::LogLevel) => reply::text(StatusCode::FORBIDDEN, ""),
        Type::GetFlags if !context.viewer(principal.clone()).sees(Sight::Flags) => reply::text(StatusCode::FORBIDDEN, ""),
        Type::ListFiles | Type::ReadFile if !context.viewer(principal.clone()).sees(Sight::Logs) => reply::text(StatusCode::FORBIDDEN, ""),
        Type::SetLoggingLevel => local::set_logging_level(context, &call),
        Type::GetHealth
        | Type::GetFlags
        | Type::GetVersion
        | Type::GetMetrics
        | Type::GetLoggingLevel
        | Type::ListFiles
        | Type::ReadFile => match accepted(&headers) {
            Ok(encoding) => local::answer(context, kind, &call, encoding).await,
            Err(refused) => refused,
        },
        _ => change(context, principal, call).await,
    }
}

/// Lets the core decide on a change.
pub(super) async fn change(context: &Context, principal: Option<Arc<str>>, call: Box<Call>) -> Response {
    if let Some(problem) = operator_call_error(&call) {
        return reply::bad_request(&format!("Failed to validate master::Call: {problem}"));
    }
    match context.inner.master.operator(principal, call).await {
        Ok(reply) => reply::of_core(reply),
        Err(stopped) => reply::stopped(stopped),
    }
}

/// What of the state is asked for.
fn question(kind: Type) -> Option<Question> {
    Some(match kind {
        Type::GetState => Question::State,
        Type::GetAgents => Question::Agents,
        Type::GetFrameworks => Question::Frameworks,
        Type::GetExecutors => Question::Executors,
        Type::GetOperations => Question::Operations,
        Type::GetTasks => Question::Tasks,
        Type::GetRoles => Question::Roles,
        Type::GetWeights => Question::Weights,
        Type::GetMaster => Question::Master,
        Type::GetMaintenanceStatus => Question::MaintenanceStatus,
        Type::GetMaintenanceSchedule => Question::MaintenanceSchedule,
        Type::GetQuota => Question::Quota,
        _ => return None,
    })
}

async fn read(context: &Context, question: Question, viewer: Viewer, encoding: Encoding, headers: &HeaderMap) -> Response {
    let key = Key::Question(question, encoding, viewer.key());
    let render = move |scene: Scene, _: &mut Runs| encoding.encode(&answer(&viewer.cut(scene), question)).into();
    match context.inner.cache.get(key, context.scene(), render).await {
        Ok((rendered, hit)) => {
            context.inner.master.gauges().cache_hits.fetch_add(u64::from(hit), Ordering::Relaxed);
            rendered.response(encoding.content_type(), headers).await
        }
        Err(stopped) => reply::stopped(stopped),
    }
}

async fn watch(context: &Context, viewer: Viewer, encoding: Encoding) -> Response {
    let watch = match context.inner.master.watch().await {
        Ok(watch) => watch,
        Err(stopped) => return reply::stopped(stopped),
    };
    let filter = EventFilter::new(viewer.clone(), &watch.view);
    let scene = Scene { view: watch.view.clone(), about: context.about(), viewer: Viewer::default() };
    let first = tokio::task::spawn_blocking(move || {
        let first = Published::new(Box::new(subscribed(&viewer.cut(scene), HEARTBEAT.as_secs_f64())));
        // Rendered here, where blocking is allowed.
        first.record(encoding == Encoding::Json);
        first
    });
    let Ok(first) = first.await else { return reply::text(StatusCode::INTERNAL_SERVER_ERROR, "") };
    let mut response = Response::new(Body::new(OperatorBody::new(watch, first, filter, encoding)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(encoding.content_type()));
    response
}
