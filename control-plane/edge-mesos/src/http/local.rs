//! What every master answers by itself, leading or not.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::response::Response;
use http::header::CONTENT_DISPOSITION;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use mesos_proto::v1;
use v1::master::call::Type;
use v1::master::response::{self, Type as Answer};
use v1::master::{Call, Response as Body};

use super::call::{Encoding, Query};
use super::rendered::Rendered;
use super::route::{Route, listing};
use super::{Context, reply};
use crate::acl::Sight;
use crate::files::{FileError, say_mode};
use crate::json::{array, object};
use crate::pieces::Sink;
use crate::view::Build;
use crate::view::classic;
use crate::view::metrics::{self, Surroundings, System};
use crate::view::sight::Viewer;

/// How long anybody may change what is logged.
const LONGEST_VERBOSITY: Duration = Duration::from_secs(24 * 3_600);

pub(super) async fn serve(context: &Context, route: Route, viewer: Viewer, request: &Parts) -> Response {
    if let Some(methods) = route.methods().filter(|it| !it.contains(&request.method.as_str())) {
        return reply::method_not_allowed(methods, &request.method);
    }
    let query = Query::of(&request.uri);
    let forbidden = match route {
        Route::Flags => !viewer.sees(Sight::Flags),
        Route::FilesBrowse | Route::FilesRead | Route::FilesDownload => !viewer.sees(Sight::Logs),
        Route::LoggingToggle => query.first("level").is_some() && !viewer.sees(Sight::LogLevel),
        _ => false,
    };
    if forbidden {
        return reply::text(StatusCode::FORBIDDEN, "");
    }
    match route {
        Route::Health => reply::empty(StatusCode::OK),
        Route::Version => reply::json(classic::version(Build::THIS), &query),
        Route::Flags if query.first("jsonp").is_none() => {
            Rendered::alone(classic::flags(&context.inner.flags)).response("application/json", &request.headers).await
        }
        Route::Flags => reply::json(classic::flags(&context.inner.flags), &query),
        Route::Metrics => {
            if let Some(timeout) = query.first("timeout").filter(|it| crate::flags::parse_duration(it).is_none()) {
                return reply::bad_request(&format!("Invalid timeout '{timeout}': not a number with a unit, such as 5secs.\n"));
            }
            let document = metrics::render(&metrics(context).await);
            if query.first("jsonp").is_some() {
                return reply::json(document, &query);
            }
            Rendered::alone(document).response("application/json", &request.headers).await
        }
        Route::SystemStats => reply::json(system_stats(), &query),
        Route::FilesBrowse | Route::FilesRead | Route::FilesDownload | Route::FilesDebug => files(context, route, query).await,
        Route::LoggingToggle => logging_toggle(context, &request.method, &query),
        Route::Profiler => reply::bad_request("Profiling is not part of this program; use perf or eBPF on its process.\n"),
        Route::Processes => reply::json(b"[]".to_vec(), &query),
        Route::Help => reply::text(StatusCode::OK, &listing()),
        _ => reply::not_found(),
    }
}

/// Every metric.
pub(super) async fn metrics(context: &Context) -> BTreeMap<String, f64> {
    let view = if context.inner.master.is_serving() { context.inner.master.read().await.ok() } else { None };
    let this = context.clone();
    let gathered = tokio::task::spawn_blocking(move || {
        let inner = &this.inner;
        let around = Surroundings {
            gauges: inner.master.gauges(),
            system: System::read(),
            uptime_seconds: inner.clock.now().since(inner.started_at).as_secs_f64(),
            inbox: inner.master.inbox_length(),
            registry_bytes: inner.store.size_bytes(),
            per_framework: inner.per_framework_metrics,
        };
        metrics::all(view.as_deref(), &around)
    });
    gathered.await.unwrap_or_default()
}

/// The calls of the operator API that need no state.
pub(super) async fn answer(context: &Context, kind: Type, call: &Call, encoding: Encoding) -> Response {
    let of = |kind: Answer| Body { r#type: Some(kind.into()), ..Body::default() };
    let body = match kind {
        Type::GetHealth => Body { get_health: Some(response::GetHealth { healthy: true }), ..of(Answer::GetHealth) },
        Type::GetFlags => {
            let flags = context.inner.flags.iter().map(|(name, value)| v1::Flag { name: name.clone(), value: Some(value.clone()) });
            Body { get_flags: Some(response::GetFlags { flags: flags.collect() }), ..of(Answer::GetFlags) }
        }
        Type::GetVersion => {
            let version_info = v1::VersionInfo {
                version: Build::THIS.version.to_owned(),
                build_user: Some(format!("orchestrator {}", Build::THIS.product)),
                ..v1::VersionInfo::default()
            };
            Body { get_version: Some(response::GetVersion { version_info }), ..of(Answer::GetVersion) }
        }
        Type::GetMetrics => {
            let all = metrics(context).await;
            let metrics = all.into_iter().map(|(name, value)| v1::Metric { name, value: Some(value) }).collect();
            Body { get_metrics: Some(response::GetMetrics { metrics }), ..of(Answer::GetMetrics) }
        }
        Type::GetLoggingLevel => {
            let level = context.inner.verbosity.load(Ordering::Relaxed);
            Body { get_logging_level: Some(response::GetLoggingLevel { level }), ..of(Answer::GetLoggingLevel) }
        }
        Type::ListFiles => {
            let path = call.list_files.as_ref().map(|it| it.path.clone()).unwrap_or_default();
            match with_files(context, move |files| files.browse(&path)).await {
                Ok(file_infos) => Body { list_files: Some(response::ListFiles { file_infos }), ..of(Answer::ListFiles) },
                Err(refused) => return refused,
            }
        }
        Type::ReadFile => {
            let read = call.read_file.clone().unwrap_or_default();
            match with_files(context, move |files| files.read(&read.path, Some(read.offset), read.length)).await {
                Ok((size, data)) => Body { read_file: Some(response::ReadFile { size, data }), ..of(Answer::ReadFile) },
                Err(refused) => return refused,
            }
        }
        _ => return reply::text(StatusCode::NOT_IMPLEMENTED, ""),
    };
    reply::bytes(encoding.content_type(), encoding.encode(&body))
}

/// SET_LOGGING_LEVEL
pub(super) fn set_logging_level(context: &Context, call: &Call) -> Response {
    let Some(set) = &call.set_logging_level else { return reply::bad_request("Expecting 'set_logging_level' to be present") };
    let Ok(nanos) = u64::try_from(set.duration.nanoseconds) else { return reply::bad_request("'duration' is negative") };
    set_verbosity(context, set.level, Duration::from_nanos(nanos));
    reply::empty(StatusCode::OK)
}

/// Logs more for a while, then as configured again.
fn set_verbosity(context: &Context, level: u32, duration: Duration) {
    let inner = context.inner.clone();
    inner.verbosity.store(level, Ordering::Relaxed);
    (inner.set_verbosity)(level);
    if level == 0 {
        return;
    }
    let tasks = inner.tasks.clone();
    drop(tasks.spawn(async move {
        tokio::time::sleep(duration.min(LONGEST_VERBOSITY)).await;
        // Unless somebody has set another meanwhile.
        if inner.verbosity.compare_exchange(level, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            (inner.set_verbosity)(0);
        }
    }));
}

fn logging_toggle(context: &Context, method: &Method, query: &Query) -> Response {
    if method != Method::GET && method != Method::POST {
        return reply::method_not_allowed(&["GET", "POST"], method);
    }
    match (query.first("level"), query.first("duration")) {
        (None, None) => reply::text(StatusCode::OK, &format!("{}\n", context.inner.verbosity.load(Ordering::Relaxed))),
        (Some(_), None) => reply::bad_request("Expecting 'duration=value' in query.\n"),
        (None, Some(_)) => reply::bad_request("Expecting 'level=value' in query.\n"),
        (Some(level), Some(duration)) => {
            let Ok(level) = level.parse::<u32>() else { return reply::bad_request(&format!("Invalid level '{level}'.\n")) };
            let Some(duration) = crate::flags::parse_duration(&duration) else { return reply::bad_request("Invalid duration.\n") };
            set_verbosity(context, level, duration);
            reply::empty(StatusCode::OK)
        }
    }
}

fn system_stats() -> Vec<u8> {
    let system = System::read();
    let mut out = Sink::default();
    object(&mut out, |object| {
        object.number("avg_load_1min", system.load[0]);
        object.number("avg_load_5min", system.load[1]);
        object.number("avg_load_15min", system.load[2]);
        object.number("cpus_total", system.cpus);
        object.number("mem_total_bytes", system.memory_total);
        object.number("mem_free_bytes", system.memory_free);
    });
    out.into_bytes()
}

async fn with_files<T, F>(context: &Context, ask: F) -> Result<T, Response>
where
    T: Send + 'static,
    F: FnOnce(&crate::files::Files) -> Result<T, FileError> + Send + 'static,
{
    let this = context.clone();
    match tokio::task::spawn_blocking(move || ask(&this.inner.files)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(FileError::NotFound)) => Err(reply::not_found()),
        Ok(Err(FileError::Bad(problem))) => Err(reply::bad_request(&problem)),
        Ok(Err(FileError::Failed(problem))) => Err(reply::text(StatusCode::INTERNAL_SERVER_ERROR, &problem)),
        Err(_) => Err(reply::text(StatusCode::INTERNAL_SERVER_ERROR, "")),
    }
}

async fn files(context: &Context, route: Route, query: Query) -> Response {
    let path = query.first("path").unwrap_or_default();
    match route {
        Route::FilesDebug => {
            let mut out = Sink::default();
            object(&mut out, |object| {
                context.inner.files.iter().for_each(|(name, real)| object.text(name, &real.to_string_lossy()));
            });
            reply::json(out.into_bytes(), &query)
        }
        Route::FilesBrowse => match with_files(context, move |files| files.browse(&path)).await {
            Ok(infos) => {
                let mut out = Sink::default();
                array(&mut out, |array| {
                    for info in &infos {
                        array.object(|object| {
                            object.text("path", &info.path);
                            object.integer("nlink", u64::from(info.nlink().unsigned_abs()));
                            object.integer("size", info.size());
                            object.integer("mtime", info.mtime.map_or(0, |it| it.nanoseconds.unsigned_abs() / 1_000_000_000));
                            object.text("mode", &say_mode(info.mode()));
                            object.text("uid", info.uid());
                            object.text("gid", info.gid());
                        });
                    }
                });
                reply::json(out.into_bytes(), &query)
            }
            Err(refused) => refused,
        },
        Route::FilesRead => {
            let number = |key: &str| match query.first(key).as_deref() {
                None | Some("" | "-1") => Ok(None),
                Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("Failed to parse {key}: '{text}'.\n")),
            };
            let (offset, length) = match (number("offset"), number("length")) {
                (Ok(offset), Ok(length)) => (offset, length),
                (Err(problem), _) | (_, Err(problem)) => return reply::bad_request(&problem),
            };
            match with_files(context, move |files| files.read(&path, offset, length)).await {
                Ok((size, data)) => {
                    let mut out = Sink::default();
                    object(&mut out, |object| {
                        object.text("data", &String::from_utf8_lossy(&data));
                        object.integer("offset", offset.unwrap_or(size));
                    });
                    reply::json(out.into_bytes(), &query)
                }
                Err(refused) => refused,
            }
        }
        _ => download(context, path).await,
    }
}

async fn download(context: &Context, path: String) -> Response {
    let real = match with_files(context, move |files| files.resolve(&path)).await {
        Ok(real) => real,
        Err(refused) => return refused,
    };
    let name = real.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
    let file = match tokio::fs::File::open(&real).await {
        Ok(file) if file.metadata().await.is_ok_and(|it| it.is_file()) => file,
        Ok(_) => return reply::bad_request("Cannot download a directory.\n"),
        Err(_) => return reply::not_found(),
    };
    let body = axum::body::Body::from_stream(tokio_util::io::ReaderStream::new(file));
    let mut response = reply::bytes("application/octet-stream", body);
    let quoted: String = name.chars().filter(|it| it.is_ascii_graphic() && *it != '"').collect();
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename={quoted}")) {
        response.headers_mut().insert(CONTENT_DISPOSITION, disposition);
    }
    response
}
