//! Reports of Scope's probes, and everything in the words of such a report.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::body::{Frame, SizeHint};
use scope_report::{Added, Compression, Format, Kind, Limits, Ours, Report, Time, decode_weighed, to_json, to_msgpack, translate};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use topology::{FlowEntry, FlowQuery};

use super::past::Then;
use super::{Failure, Past, Scope};
use crate::drivers::Stopped;
use crate::http::json;
use crate::http::query::Query;
use crate::http::reply::{json_bytes, problem, stopped};

/// What one report may cost. Scope had no limit; its largest known reports unpack to some megabytes.
pub(crate) const LIMITS: Limits = Limits { bytes: 64 << 20, memory: 256 << 20 };
/// Bytes of a body before it is unpacked.
const BODY_MAX: usize = 32 << 20;
/// Bytes of all bodies that are being read.
const BODIES_MAX: usize = 256 << 20;
/// Bodies that are unpacked at once, if each took what one may. Those that have been, and wait to be taken in, count by what they take.
const DECODERS: usize = 4;
/// Flows asked of the map at once.
const FLOWS_AT_ONCE: usize = 1_000;
/// A unit of [`Intake::room`], [`Intake::decoders`] and [`Intake::unread`], in bytes.
const ROOM_UNIT: usize = 1 << 10;
/// Bytes of all reports that clients have asked for and not taken yet. One may be larger while there is no other.
const UNREAD_MAX: usize = 256 << 20;
/// Size of the pieces in which such a one is written.
const PIECE: usize = 64 << 10;

/// How much may be read and unpacked at once.
#[derive(Debug)]
pub(super) struct Intake {
    room: Semaphore,
    decoders: Arc<Semaphore>,
    exports: Semaphore,
    unread: Arc<Semaphore>,
}

impl Default for Intake {
    fn default() -> Self {
        Intake {
            room: Semaphore::new(BODIES_MAX / ROOM_UNIT),
            decoders: Arc::new(Semaphore::new(DECODERS * LIMITS.memory / ROOM_UNIT)),
            exports: Semaphore::new(1),
            unread: Arc::new(Semaphore::new(UNREAD_MAX / ROOM_UNIT)),
        }
    }
}

/// A report of one of Weave Scope's probes.
///
/// Its nodes are shown for the window (`--window`, 15 s) beside those of our own probes.
#[utoipa::path(
    post,
    path = "/api/report",
    tag = "Weave Scope",
    request_body(content = Vec<u8>, content_type = "application/msgpack", description = "MessagePack, or JSON as its content type says; with `Content-Encoding: gzip` packed"),
    responses(
        (status = 200, description = "It is taken in, and readers see it; where drawing everything takes longer than a second, they see it later"),
        (status = 400, description = "The content type is none of these two, or the body is no report", body = String, content_type = "application/json"),
        (status = 408, description = "The body did not come in time", body = String, content_type = "application/json"),
        (status = 413, description = "The body is larger than 32 MiB, unpacks to more than 64 MiB, or takes more than 256 MiB of memory", body = String, content_type = "application/json"),
        (status = 503, description = "There is no room for more reports", body = String, content_type = "application/json")
    )
)]
pub(super) async fn post_report(State(scope): State<Scope>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let (format, compression) = match kind_of_body(&parts.headers) {
        Ok(kind) => kind,
        Err(reason) => return problem(StatusCode::BAD_REQUEST, &reason),
    };
    let (bytes, room) = match read(body.into_data_stream(), &scope.intake.room).await {
        Ok(read) => read,
        Err((status, reason)) => return problem(status, reason),
    };
    let most = units(LIMITS.memory);
    let Ok(mut permit) = scope.intake.decoders.clone().acquire_many_owned(most).await else { return stopped(Stopped) };
    let decoded = tokio::task::spawn_blocking(move || {
        let outcome = decode_weighed(&bytes, format, compression, LIMITS);
        let taken = outcome.as_ref().map_or(0, |weighed| units(weighed.weight));
        // What it does not take is for others.
        drop(permit.split(most.saturating_sub(taken) as usize));
        (outcome.map(|report| (report, permit)), bytes)
    });
    let decoded = decoded.await;
    // Bytes that nobody keeps take room no longer; those that are kept do until they are.
    let decoded = decoded.map(|(outcome, bytes)| (outcome, scope.context.old_reports.as_ref().map(|kept| (kept, bytes, room))));
    if matches!(decoded, Ok((Err(_), _))) {
        scope.context.old_probes.refused();
    }
    match decoded {
        Ok((Ok((report, permit)), kept)) => match scope.context.old_probes.add(Box::new(report), permit).await {
            Ok(Added::Yes) => {
                if let Some((kept, bytes, _room)) = kept {
                    kept.keep(scope.context.clock.now(), format, compression, &bytes);
                }
                Response::new(Body::empty())
            }
            Ok(Added::Full) => problem(StatusCode::SERVICE_UNAVAILABLE, "there is no room for more reports"),
            Err(error) => stopped(error),
        },
        Ok((Err(error), _)) if error.is_limit() => problem(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()),
        Ok((Err(error), _)) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(_) => stopped(Stopped),
    }
}

fn kind_of_body(headers: &HeaderMap) -> Result<(Format, Compression), String> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = text(header::CONTENT_TYPE);
    let format = if content_type.starts_with("application/msgpack") {
        Format::Msgpack
    } else if content_type.starts_with("application/json") {
        Format::Json
    } else {
        return Err(format!("Unsupported Content-Type: {content_type}"));
    };
    let compression = if text(header::CONTENT_ENCODING).contains("gzip") { Compression::Gzip } else { Compression::None };
    Ok((format, compression))
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(ROOM_UNIT)).unwrap_or(u32::MAX)
}

/// Reads a body for as long as there is room for it.
async fn read(mut body: BodyDataStream, room: &Semaphore) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), (StatusCode, &'static str)> {
    let mut bytes = Vec::new();
    let mut held: Option<SemaphorePermit<'_>> = None;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|_| (StatusCode::BAD_REQUEST, "the report broke off"))?;
        if bytes.len() + piece.len() > BODY_MAX {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "the report is larger than 33554432 bytes"));
        }
        let permit = room
            .try_acquire_many(units(piece.len()))
            .map_err(|_| (StatusCode::SERVICE_UNAVAILABLE, "there is no room for more reports"))?;
        match &mut held {
            Some(held) => held.merge(permit),
            None => held = Some(permit),
        }
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, held))
}

/// Everything that is known, as one of Weave Scope's reports.
///
/// With `Accept: application/msgpack`, in the MessagePack of Scope's probes. What our own probes report is put into Scope's words.
#[utoipa::path(
    get,
    path = "/api/report",
    tag = "Weave Scope",
    params(
        ("timestamp" = Option<String>, Query, description = "A moment, RFC 3339; now when absent"),
        ("hideCommandLineArguments" = Option<String>, Query, description = "`true` keeps only the first word of command lines"),
        ("hideEnvironmentVariables" = Option<String>, Query, description = "`true` leaves out environment variables")
    ),
    responses(
        (status = 200, description = "The report", body = Object, content_type = "application/json"),
        (status = 500, description = "The history cannot be read", body = String, content_type = "application/json"),
        (status = 503, description = "Others have asked for reports and are still taking them", body = String, content_type = "application/json")
    )
)]
pub(super) async fn get_report(State(scope): State<Scope>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let query = Query::parse(query.as_deref());
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let msgpack = accept.starts_with("application/msgpack");
    // One after the other: each is as large as everything on the map.
    let Ok(_permit) = scope.intake.exports.acquire().await else { return stopped(Stopped) };
    let reported = match Past::of(&scope.context, &query) {
        Some(past) => {
            let at = Time::from(past.at);
            past.look(move |then| everything_then(then, at)).await.map(Option::unwrap_or_default)
        }
        None => everything(&scope).await.map_err(Failure::Stopped),
    };
    let mut report = match reported {
        Ok(report) => report,
        Err(failure) => return failure.reply(),
    };
    report.window = i64::try_from(scope.context.limits.window.as_nanos()).unwrap_or(i64::MAX);
    report.shortcut = false;
    let hidden = (query.is_true("hideCommandLineArguments"), query.is_true("hideEnvironmentVariables"));
    let written = tokio::task::spawn_blocking(move || {
        report.censor(hidden.0, hidden.1);
        if msgpack { to_msgpack(&report) } else { to_json(&report) }
    });
    let Ok(written) = written.await else { return stopped(Stopped) };
    let Some(body) = Unread::new(written, &scope.intake.unread) else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "others have asked for reports and are still taking them; try again");
    };
    let mut response = json_bytes(StatusCode::OK, Body::new(body));
    if msgpack {
        response.headers_mut().remove(header::CACHE_CONTROL);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/msgpack"));
    }
    response
}

/// A report on its way to a client. As long as any of it is left, it holds its share of the room for all of them.
#[derive(Debug)]
struct Unread(Bytes);

impl Unread {
    /// `None` when there is no room.
    fn new(report: Vec<u8>, room: &Arc<Semaphore>) -> Option<Unread> {
        struct Held {
            report: Vec<u8>,
            _room: OwnedSemaphorePermit,
        }

        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.report
            }
        }

        let units = report.len().div_ceil(ROOM_UNIT).min(UNREAD_MAX / ROOM_UNIT);
        let permit = room.clone().try_acquire_many_owned(u32::try_from(units).ok()?).ok()?;
        Some(Unread(Bytes::from_owner(Held { report, _room: permit })))
    }
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.0.len().min(PIECE);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.0.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// What our own probes and old ones report, as one.
async fn everything(scope: &Scope) -> Result<Report, Stopped> {
    let topology = &scope.context.topology;
    let at = Time::from(scope.context.clock.now());
    let mut report = scope.context.old_probes.scenery().report.clone();
    for host in topology.hosts().await? {
        // A host may have left meanwhile.
        let Some(export) = topology.export_host(host.name.clone()).await? else { continue };
        let flows = flows_of(scope, host.name).await?;
        report.merge(translate(&Ours::Host(&export, &flows), at));
        tokio::task::yield_now().await;
    }
    let objects = topology.export_objects().await?;
    if !objects.is_empty() {
        report.merge(translate(&Ours::Objects(&objects), at));
    }
    if report.at.is_zero() {
        report.at = at;
    }
    Ok(report)
}

/// The same of a moment of the past.
fn everything_then(then: &mut Then<'_>, at: Time) -> Report {
    let map = then.player.map();
    let mut report = then.report.cloned().unwrap_or_default();
    for host in map.hosts() {
        let Some(export) = map.export_host(&host.name) else { continue };
        let mut flows = Vec::new();
        let mut query = FlowQuery { host: Some(host.name), limit: FLOWS_AT_ONCE, ..FlowQuery::default() };
        loop {
            let page = map.flows(&query);
            flows.extend(page.flows);
            match page.next {
                Some(next) => query.after = next,
                None => break,
            }
        }
        report.merge(translate(&Ours::Host(&export, &flows), at));
    }
    let objects = map.export_objects();
    if !objects.is_empty() {
        report.merge(translate(&Ours::Objects(&objects), at));
    }
    if report.at.is_zero() {
        report.at = at;
    }
    report
}

async fn flows_of(scope: &Scope, host: Arc<str>) -> Result<Vec<FlowEntry>, Stopped> {
    let mut flows = Vec::new();
    let mut query = FlowQuery { host: Some(host), limit: FLOWS_AT_ONCE, ..FlowQuery::default() };
    loop {
        let page = scope.context.topology.flows(query.clone()).await?;
        flows.extend(page.flows);
        match page.next {
            Some(next) => query.after = next,
            None => return Ok(flows),
        }
    }
}

/// The probes of which something is on the map: our own, and Weave Scope's.
#[utoipa::path(
    get,
    path = "/api/probes",
    tag = "Weave Scope",
    params(("sparse" = Option<String>, Query, description = "With any value, the reply is just whether there is any probe")),
    responses((status = 200, description = "The probes", body = super::schema::ProbesReply))
)]
pub(super) async fn probes(State(scope): State<Scope>, RawQuery(query): RawQuery) -> Response {
    let probes = match scope.context.topology.probes().await {
        Ok(probes) => probes,
        Err(error) => return stopped(error),
    };
    let scenery = scope.context.old_probes.scenery();
    let mut json = json::JsonWriter::new();
    if Query::parse(query.as_deref()).first("sparse").is_some() {
        json.bool(!probes.is_empty() || !scenery.summaries.is_empty());
        return json_bytes(StatusCode::OK, json.into_bytes());
    }
    let ours = probes.iter().map(|probe| {
        (probe.id.to_string(), probe.host_name.to_string(), probe.version.to_string(), crate::http::platform::moment(probe.last_seen))
    });
    let theirs = scenery.report.table(Kind::Host).nodes.values().map(|node| {
        let value = |key: &str| node.value(key).map(ToString::to_string).unwrap_or_default();
        let seen = node.latest.get("host_scope_version").map(|latest| latest.at).unwrap_or_default();
        (value("control_probe_id"), value("host_name"), value("host_scope_version"), seen.to_rfc3339())
    });
    json.array(ours.chain(theirs), |json, (id, hostname, version, last_seen)| {
        json.object(|json| {
            json.key("id").string(&id);
            json.key("hostname").string(&hostname);
            json.key("version").string(&version);
            json.key("lastSeen").string(&last_seen);
        });
    });
    json_bytes(StatusCode::OK, json.into_bytes())
}

/// What was reported, a line for each report of the window and for each host of our own probes.
#[utoipa::path(
    get,
    path = "/admin/summary",
    tag = "Weave Scope",
    responses((status = 200, description = "When a report came, its host if it has one alone, and how many nodes of which kind it has", body = String, content_type = "text/plain"))
)]
pub(super) async fn summary(State(scope): State<Scope>) -> Response {
    let topology = &scope.context.topology;
    let (hosts, probes) = match (topology.hosts().await, topology.probes().await) {
        (Ok(hosts), Ok(probes)) => (hosts, probes),
        (Err(error), _) | (_, Err(error)) => return stopped(error),
    };
    let mut text = String::new();
    let mut line = |at: base::Timestamp, what: &str| {
        // As Go writes moments to the millisecond.
        let at = jiff::Timestamp::from_nanosecond(i128::from(at.unix_nanos())).unwrap_or_default();
        text.push_str(&format!("{}: {what}\n", at.strftime("%b %e %H:%M:%S%.3f")));
    };
    for (since, what) in &scope.context.old_probes.scenery().summaries {
        line(*since, what);
    }
    for host in hosts {
        let seen = probes.iter().find(|probe| probe.id == host.probe).map(|probe| probe.last_seen).unwrap_or_default();
        let counts = [("endpoint", host.flows), ("process", host.processes), ("container", host.containers), ("host", 1)];
        let counts: Vec<String> = counts.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{kind}:{count}")).collect();
        line(seen, &format!("{};<host>: {}", host.name, counts.join(", ")));
    }
    // As Scope ends it.
    text.push('\n');
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn reports_that_nobody_takes_leave_no_room_for_others() {
        let room = Arc::new(Semaphore::new(UNREAD_MAX / ROOM_UNIT));
        // Zeroes that are never touched cost no memory.
        const LENGTH: usize = UNREAD_MAX / 2 - ROOM_UNIT;
        let report = || vec![0; LENGTH];
        let one = Unread::new(report(), &room).unwrap();
        let other = Unread::new(report(), &room).unwrap();
        assert!(Unread::new(report(), &room).is_none());
        assert!(Unread::new(vec![0; 100], &room).is_some(), "what is small finds some");
        assert_eq!(other.size_hint().exact(), Some(LENGTH as u64));
        let mut other = Body::new(other).into_data_stream();
        let begin = other.next().now_or_never().flatten().unwrap().unwrap();
        assert_eq!(begin.len(), PIECE);
        drop(other);
        assert!(Unread::new(report(), &room).is_none(), "a piece of it is still on its way");
        drop(begin);
        drop(one);
        assert!(Unread::new(vec![0; UNREAD_MAX * 2], &room).is_some(), "one that is too large has all the room");
        assert_eq!(room.available_permits(), UNREAD_MAX / ROOM_UNIT);
        let whole = Unread::new(vec![7; PIECE * 2 + 1], &room).unwrap();
        let read = axum::body::to_bytes(Body::new(whole), usize::MAX).now_or_never().unwrap().unwrap();
        assert_eq!(read, vec![7; PIECE * 2 + 1]);
    }
}
