//! `Idempotency-Key`: who asks again for lack of an answer gets the answer of the first time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::{BODY_MAX, RESOLVE_MAX, json};

/// Answers that are remembered; the oldest go. They do not outlive the process: what a change is, its effect shows.
const KEPT: usize = 1_000;
/// Bytes of a key.
const KEY_MAX: usize = 256;
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What was answered to whom.
#[derive(Debug, Default)]
pub(super) struct Answered(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    answers: BTreeMap<Name, Answer>,
    order: VecDeque<Name>,
}

/// Method, path, key.
type Name = (String, String, String);

#[derive(Clone, Debug)]
enum Answer {
    UnderWay([u8; 16]),
    Given([u8; 16], StatusCode, Bytes),
}

/// Carries out a change once for each key.
pub(super) async fn once(State(answered): State<Arc<Answered>>, request: Request, next: Next) -> Response {
    let key = request.headers().get(&KEY).and_then(|key| key.to_str().ok()).map(str::to_owned);
    let Some(key) = key.filter(|_| !matches!(*request.method(), Method::GET | Method::HEAD)) else { return next.run(request).await };
    if key.is_empty() || key.len() > KEY_MAX {
        return json(StatusCode::BAD_REQUEST, &format!("Idempotency-Key: 1 to {KEY_MAX} bytes"));
    }
    let name = (request.method().to_string(), request.uri().path().to_owned(), key);
    let (parts, body) = request.into_parts();
    let largest = if parts.uri.path().ends_with("/resolve") { RESOLVE_MAX } else { BODY_MAX };
    let Ok(body) = to_bytes(body, largest).await else {
        return json(StatusCode::PAYLOAD_TOO_LARGE, &"the body is too large");
    };
    let hash = zksync::hash_of(&body);
    if let Some(answer) = answered.begin(&name, hash) {
        return match answer {
            Answer::Given(same, status, body) if same == hash => {
                let headers =
                    [(header::CONTENT_TYPE, HeaderValue::from_static("application/json")), (REPLAYED, HeaderValue::from_static("true"))];
                (status, headers, body).into_response()
            }
            Answer::UnderWay(same) if same == hash => json(StatusCode::CONFLICT, &"the same request is being carried out"),
            _ => json(StatusCode::UNPROCESSABLE_ENTITY, &"this Idempotency-Key was used for another request"),
        };
    }
    // Should the one who asks go away, the change goes on or does not: what is not known is not remembered.
    let unfinished = Unfinished(&answered, &name);
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let (parts, body) = response.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else { return parts.status.into_response() };
    // What failed for now may be tried again under the same key.
    if !parts.status.is_server_error() && body.len() <= BODY_MAX {
        answered.give(&name, Answer::Given(hash, parts.status, body.clone()));
    }
    drop(unfinished);
    Response::from_parts(parts, Body::from(body))
}

struct Unfinished<'a>(&'a Answered, &'a Name);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let mut known = self.0.known();
        if matches!(known.answers.get(self.1), Some(Answer::UnderWay(_))) {
            known.answers.remove(self.1);
        }
    }
}

impl Answered {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, name: &Name, hash: [u8; 16]) -> Option<Answer> {
        let mut known = self.known();
        if let Some(answer) = known.answers.get(name) {
            return Some(answer.clone());
        }
        while known.order.len() >= KEPT {
            if let Some(oldest) = known.order.pop_front() {
                known.answers.remove(&oldest);
            }
        }
        known.answers.insert(name.clone(), Answer::UnderWay(hash));
        known.order.push_back(name.clone());
        None
    }

    fn give(&self, name: &Name, answer: Answer) {
        if let Some(known) = self.known().answers.get_mut(name) {
            *known = answer;
        }
    }
}
