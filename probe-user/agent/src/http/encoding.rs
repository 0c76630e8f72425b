//! How the bodies of requests and answers are spelled.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use mesos_proto::json;

use super::{Answer, full, plain};

/// How messages are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Protobuf => "application/x-protobuf",
        }
    }

    /// By the name of a media type; parameters are let pass.
    pub(super) fn of(value: &HeaderValue) -> Option<Self> {
        match value.to_str().ok()?.split(';').next()?.trim() {
            "application/json" => Some(Encoding::Json),
            "application/x-protobuf" => Some(Encoding::Protobuf),
            _ => None,
        }
    }

    pub(super) fn write<M: prost::Message + prost::Name>(self, message: &M) -> Vec<u8> {
        match self {
            Encoding::Json => json::to_vec(message),
            Encoding::Protobuf => message.encode_to_vec(),
        }
    }

    /// # Errors
    /// In Mesos's words.
    pub(super) fn read<M: prost::Message + prost::Name + Default>(self, bytes: &[u8]) -> Result<M, String> {
        match self {
            Encoding::Json => json::from_slice(bytes).map_err(|error| match error {
                json::MappingError::Syntax(_) => format!("Failed to parse body into JSON: {error}"),
                _ => format!("Failed to convert JSON into Call protobuf: {error}"),
            }),
            Encoding::Protobuf => json::decode_protobuf(bytes).map_err(|error| format!("Failed to parse body into Call protobuf: {error}")),
        }
    }

    pub(super) fn answer<M: prost::Message + prost::Name>(self, message: &M) -> Answer {
        let mut answer = Response::new(full(self.write(message)));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.name()));
        answer
    }
}

/// The encoding of a request's body.
pub(super) fn content_encoding(headers: &HeaderMap) -> Result<Encoding, Answer> {
    let value = headers.get(CONTENT_TYPE).ok_or_else(|| plain(StatusCode::BAD_REQUEST, Some("Expecting 'Content-Type' to be present")))?;
    Encoding::of(value).ok_or_else(|| {
        let text = "Expecting 'Content-Type' of application/json or application/x-protobuf";
        plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, Some(text))
    })
}

/// What a client takes, in the order of its words. Go's client of Mesos says it in several headers.
pub(super) fn wanted(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|it| it.to_str().ok());
    values.flat_map(|it| it.split(',')).filter_map(|it| it.split(';').next()).map(str::trim)
}

/// The encoding that a client wants to read: JSON wherever it takes that.
pub(super) fn accepted_encoding(headers: &HeaderMap) -> Result<Encoding, Answer> {
    let accepts = |name: &str| {
        let mut wanted = wanted(headers).peekable();
        wanted.peek().is_none() || wanted.any(|it| it == name || it == "*/*" || it == "application/*")
    };
    if accepts(Encoding::Json.name()) {
        Ok(Encoding::Json)
    } else if accepts(Encoding::Protobuf.name()) {
        Ok(Encoding::Protobuf)
    } else {
        Err(plain(StatusCode::NOT_ACCEPTABLE, Some("Expecting 'Accept' to allow application/json or application/x-protobuf")))
    }
}
