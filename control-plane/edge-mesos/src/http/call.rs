//! What the two v1 APIs have in common: the checks of a request, in their order, and the two encodings.

use axum::extract::Request;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use mesos_proto::json::{self, MappingError};
use prost::{Message, Name};

use super::body::Whole;
use super::route::percent_decode;
use super::{Context, body, reply};

/// Bodies of at least this many bytes are decoded where blocking is allowed.
const LARGE: usize = 256 << 10;

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    /// Its media type.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Protobuf => "application/x-protobuf",
        }
    }

    /// A message in it.
    pub(super) fn encode<M: Message + Name>(self, message: &M) -> Vec<u8> {
        match self {
            Encoding::Json => json::to_vec(message),
            Encoding::Protobuf => message.encode_to_vec(),
        }
    }
}

/// A call that came in whole, its headers beside it.
#[derive(Debug)]
pub(super) struct Incoming<M> {
    pub(super) call: Box<M>,
    pub(super) headers: HeaderMap,
}

/// Reads a call: method, content type, body.
///
/// # Errors
/// The answer to a request that is none.
pub(super) async fn read<M>(context: &Context, request: Request) -> Result<Incoming<M>, Response>
where
    M: Message + Name + Default + 'static,
{
    if request.method() != Method::POST {
        return Err(reply::method_not_allowed(&["POST"], request.method()));
    }
    let (parts, body) = request.into_parts();
    let Some(content_type) = parts.headers.get(CONTENT_TYPE) else {
        return Err(reply::bad_request("Expecting 'Content-Type' to be present"));
    };
    // Mesos takes no parameters such as a charset; nobody is hurt when we do.
    let content_type = content_type.to_str().unwrap_or_default();
    let encoding = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/json" => Encoding::Json,
        "application/x-protobuf" => Encoding::Protobuf,
        _ => {
            let text = "Expecting 'Content-Type' of application/json or application/x-protobuf";
            return Err(reply::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
    };
    let whole = body::read(context, &parts.headers, body).await?;
    let call = if whole.bytes.len() < LARGE {
        decode(encoding, &whole)
    } else {
        let decoding = tokio::task::spawn_blocking(move || decode(encoding, &whole));
        decoding.await.unwrap_or_else(|_| Err("Failed to parse body".to_owned()))
    };
    match call {
        Ok(call) => Ok(Incoming { call, headers: parts.headers }),
        Err(text) => Err(reply::bad_request(&text)),
    }
}

fn decode<M: Message + Name + Default>(encoding: Encoding, whole: &Whole) -> Result<Box<M>, String> {
    match encoding {
        Encoding::Protobuf => {
            json::decode_protobuf(&whole.bytes).map_err(|error| format!("Failed to parse body into Call protobuf: {error}"))
        }
        Encoding::Json => json::from_slice(&whole.bytes).map_err(|error| match error {
            MappingError::Syntax(text) => format!("Failed to parse body into JSON: {text}"),
            other => format!("Failed to convert JSON into Call protobuf: {other}"),
        }),
    }
    .map(Box::new)
}

/// The encoding of the answer: JSON unless only protobuf is wanted.
///
/// # Errors
/// 406.
#[expect(clippy::result_large_err, reason = "the answer as it goes out, once per request")]
pub(super) fn accepted(headers: &HeaderMap) -> Result<Encoding, Response> {
    let mut wanted = headers.get_all(ACCEPT).iter().filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(',')).peekable();
    if wanted.peek().is_none() {
        return Ok(Encoding::Json);
    }
    let mut protobuf = false;
    for entry in wanted {
        let mut parts = entry.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if parts.any(|it| it.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0)) {
            continue;
        }
        match media {
            "application/json" | "application/*" | "*/*" | "*" => return Ok(Encoding::Json),
            "application/x-protobuf" => protobuf = true,
            _ => {}
        }
    }
    if protobuf {
        return Ok(Encoding::Protobuf);
    }
    Err(reply::text(StatusCode::NOT_ACCEPTABLE, "Expecting 'Accept' to allow application/json or application/x-protobuf"))
}

/// Parameters of a query or a form.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Those of the request's line.
    pub(super) fn of(uri: &http::Uri) -> Query {
        uri.query().and_then(Query::parse).unwrap_or_default()
    }

    /// `None` for what is no form.
    pub(super) fn parse(text: &str) -> Option<Query> {
        let decode = |it: &str| percent_decode(&it.replace('+', " "));
        let pairs = text.split('&').filter(|it| !it.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(key)?, decode(value)?))
        });
        pairs.collect::<Option<Vec<_>>>().map(Query)
    }

    /// The first value of a key.
    pub(super) fn first(&self, key: &str) -> Option<String> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_first_unless_only_protobuf_is_wanted() {
        let accept = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT, value.parse().unwrap());
            }
            accepted(&headers).map_err(|it| it.status().as_u16())
        };
        assert_eq!(accept(&[]), Ok(Encoding::Json));
        assert_eq!(accept(&["*/*"]), Ok(Encoding::Json));
        assert_eq!(accept(&["application/*"]), Ok(Encoding::Json));
        assert_eq!(accept(&["application/x-protobuf"]), Ok(Encoding::Protobuf));
        assert_eq!(accept(&["application/x-protobuf, application/json"]), Ok(Encoding::Json));
        assert_eq!(accept(&["application/x-protobuf", "text/html"]), Ok(Encoding::Protobuf));
        assert_eq!(accept(&["application/json;q=0, application/x-protobuf"]), Ok(Encoding::Protobuf));
        assert_eq!(accept(&["text/html"]), Err(406));
    }
}
