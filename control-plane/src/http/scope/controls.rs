//! Controls: a client's call goes to a probe, and the probe's answer comes back.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use futures::TryStreamExt as _;
use http::{HeaderMap, StatusCode, header};
use relay::{Answer, CallError, Caller, Target};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Scope, bad_request, schema};
use crate::http::foreign::{ADVICE, is_foreign};
use crate::http::json::JsonWriter;
use crate::http::query::last_segments;
use crate::http::reply::{json_bytes, not_found, problem};

/// Longest body of a call.
const BODY_MAX: usize = 64 << 10;
/// Longest id of a probe, a node or a control.
const ID_MAX: usize = 2_048;
/// Most arguments of a call.
const ARGUMENTS_MAX: usize = 64;

/// Does something with a node.
///
/// The three ids are path segments: a slash in one is written `%2F`, a plus sign `%2B`; `+` stands for a blank. The arguments, an object of
/// texts (numbers, truth values and null are taken as such), are read only when the request has a length. The reply comes when the probe has
/// answered; what is not done within 80 s is given up.
#[utoipa::path(
    post,
    path = "/api/control/{probe}/{node}/{control}",
    tag = "Weave Scope",
    params(
        ("probe" = String, Path, description = "`probeId` of the control"),
        ("node" = String, Path, description = "`nodeId` of the control"),
        ("control" = String, Path, description = "`id` of the control, e.g. `docker_stop_container`")
    ),
    request_body(content = inline(BTreeMap<String, String>), content_type = "application/json", description = "Arguments of the control; optional"),
    responses(
        (status = 200, description = "It was done", body = schema::ControlReply),
        (status = 400, description = "It was not done, in the words of whoever could not", body = String, content_type = "application/json"),
        (status = 403, description = "A page of another site asks for it", body = String, content_type = "application/json"),
        (status = 408, description = "The arguments did not come in time", body = String, content_type = "application/json")
    )
)]
pub(super) async fn control(State(scope): State<Scope>, request: Request) -> Response {
    let Some([probe, node, control]) = last_segments(request.uri().path()) else { return not_found() };
    if [&probe, &node, &control].into_iter().any(|id| id.len() > ID_MAX) {
        return bad_request(&format!("an id has more than {ID_MAX} bytes"));
    }
    if is_foreign(request.headers()) {
        return problem(StatusCode::FORBIDDEN, &format!("controls are not for pages of other sites; {ADVICE}"));
    }
    let caller = caller(&request);
    let arguments = match arguments(request).await {
        Ok(arguments) => arguments,
        Err(text) => return bad_request(&text),
    };
    let context = &scope.context;
    let (reply, answer) = oneshot::channel();
    let board = context.switchboard.clone();
    // Goes on when the client goes away: it is done all the same, and belongs into the record.
    context.supervisor.one_off("control", async move {
        drop(reply.send(board.call(&caller, Target { probe, node, control, arguments }).await));
    });
    match answer.await {
        Ok(Ok(answer)) => json_bytes(StatusCode::OK, encode(&answer)),
        Ok(Err(error @ CallError::Stopped(_))) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Ok(Err(error)) => bad_request(&error.to_string()),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the control plane is about to stop"),
    }
}

/// Who asks.
pub(crate) fn caller(request: &Request) -> Caller {
    let remote = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
    Caller { remote, user: basic_user(request.headers()) }
}

/// The name in `Authorization: Basic`. A proxy in front of us may have asked for it and checked the password.
fn basic_user(headers: &HeaderMap) -> Option<String> {
    let credentials = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let decoded = base64(credentials.trim())?;
    let name = decoded.split(|byte| *byte == b':').next()?;
    let name = String::from_utf8_lossy(name).into_owned();
    (!name.is_empty()).then_some(name)
}

/// The standard alphabet, with padding or without.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = (held << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 0xff).unwrap_or_default());
        }
    }
    Some(bytes)
}

async fn arguments(request: Request) -> Result<BTreeMap<String, String>, String> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_none_or(|length| length == 0) {
        return Ok(BTreeMap::new());
    }
    if length.is_some_and(|length| length > BODY_MAX as u64) {
        return Err(format!("the arguments have more than {BODY_MAX} bytes"));
    }
    let mut body = Vec::new();
    let mut chunks = request.into_body().into_data_stream();
    while let Some(chunk) = chunks.try_next().await.map_err(|error| error.to_string())? {
        body.extend_from_slice(&chunk);
    }
    let arguments = read_arguments(&body)?;
    if arguments.len() > ARGUMENTS_MAX {
        return Err(format!("there are {} arguments; {ARGUMENTS_MAX} are allowed", arguments.len()));
    }
    Ok(arguments)
}

/// An object of texts. Numbers, truth values and null are texts, too, as Scope read them.
fn read_arguments(body: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let arguments: Option<BTreeMap<String, Value>> =
        serde_json::from_slice(body).map_err(|error| format!("the arguments are no object of texts: {error}"))?;
    let text = |(key, value): (String, Value)| match value {
        Value::String(text) => Ok((key, text)),
        Value::Number(number) => Ok((key, number.to_string())),
        Value::Bool(is_so) => Ok((key, is_so.to_string())),
        Value::Null => Ok((key, String::new())),
        Value::Array(_) | Value::Object(_) => Err(format!("the arguments are no object of texts: {key:?} has parts of its own")),
    };
    arguments.unwrap_or_default().into_iter().map(text).collect()
}

fn encode(answer: &Answer) -> Vec<u8> {
    let Answer { value, pipe, raw_tty, resize_tty_control, removed_node } = answer;
    let mut json = JsonWriter::new();
    json.object(|json| {
        if let Some(value) = value {
            json.key("value").value(value);
        }
        if let Some(pipe) = pipe {
            json.key("pipe").string(pipe);
        }
        if *raw_tty {
            json.key("raw_tty").bool(true);
        }
        if !resize_tty_control.is_empty() {
            json.key("resize_tty_control").string(resize_tty_control);
        }
        if !removed_node.is_empty() {
            json.key("removedNode").string(removed_node);
        }
    });
    json.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_whoever_asks_is_read_out_of_basic_credentials() {
        let user = |value: &str| basic_user(&HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]));
        assert_eq!(user("Basic YWRhOnNlY3JldA=="), Some("ada".to_owned()));
        assert_eq!(user("Basic YWRh"), Some("ada".to_owned()));
        for none in ["Basic", "Basic !!!", "Bearer YWRhOnNlY3JldA==", "Basic Og=="] {
            assert_eq!(user(none), None, "{none}");
        }
    }

    #[test]
    fn arguments_may_be_numbers() {
        let read = |text: &str| read_arguments(text.as_bytes());
        let arguments = read(r#"{"pipeID":"pipe-1","height":24,"width":8.5,"all":true,"none":null}"#).unwrap();
        let expected = [("all", "true"), ("height", "24"), ("none", ""), ("pipeID", "pipe-1"), ("width", "8.5")];
        assert_eq!(arguments.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>(), expected);
        assert_eq!(read("null"), Ok(BTreeMap::new()));
        for wrong in [r#"{"a":[1]}"#, r#"{"a":{}}"#, "[]", "1", ""] {
            assert!(read(wrong).is_err_and(|reason| reason.starts_with("the arguments are no object of texts")), "{wrong}");
        }
    }

    #[test]
    fn an_answer_says_only_what_there_is_to_say() {
        let text = |answer: Answer| String::from_utf8(encode(&answer)).unwrap();
        assert_eq!(text(Answer::default()), "{}");
        let exec = Answer {
            pipe: Some("pipe-1".into()),
            raw_tty: true,
            resize_tty_control: "docker_resize_exec_tty".to_owned(),
            ..Answer::default()
        };
        assert_eq!(text(exec), r#"{"pipe":"pipe-1","raw_tty":true,"resize_tty_control":"docker_resize_exec_tty"}"#);
        let removed = Answer { removed_node: "a;<container>".to_owned(), ..Answer::default() };
        assert_eq!(text(removed), r#"{"removedNode":"a;\u003ccontainer\u003e"}"#);
        let value = Answer { value: Some(serde_json::json!({"n": [1, 2.5, null, true], "s": "<"})), ..Answer::default() };
        assert_eq!(text(value), r#"{"value":{"n":[1,2.5,null,true],"s":"\u003c"}}"#);
    }
}
