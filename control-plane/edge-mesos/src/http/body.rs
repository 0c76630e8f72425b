//! Bodies of requests: read within limits of size, time and all bodies' sum.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Context, reply};

/// What one permit of the budget stands for.
pub(super) const PERMIT_BYTES: usize = 64 << 10;

/// A body, and its share of the budget for as long as it lives.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// The whole body.
///
/// # Errors
/// The answer: 413, 408 and 400, or 503 while too much is being read already.
pub(super) async fn read(context: &Context, headers: &http::HeaderMap, body: Body) -> Result<Whole, Response> {
    let limits = &context.inner.limits;
    let too_large = || {
        let text = format!("The body has more than {} bytes, which is all that is taken", limits.body_bytes);
        reply::text(StatusCode::PAYLOAD_TOO_LARGE, &text)
    };
    let announced = headers.get(http::header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()).and_then(|it| it.parse::<usize>().ok());
    // Refused before it is sent, where the client waits for that.
    if announced.is_some_and(|it| it > limits.body_bytes) {
        return Err(too_large());
    }
    match timeout(limits.body_patience, collect(body, limits.body_bytes, context.inner.bodies.clone())).await {
        Err(_) => Err(reply::text(StatusCode::REQUEST_TIMEOUT, "The body did not come in time")),
        Ok(Err(Failure::TooLarge)) => Err(too_large()),
        Ok(Err(Failure::Broken)) => Err(reply::bad_request("The body could not be read")),
        Ok(Err(Failure::Busy)) => Err(reply::unavailable("Too many large requests are being read; try again")),
        Ok(Ok(whole)) => Ok(whole),
    }
}

enum Failure {
    TooLarge,
    Broken,
    Busy,
}

async fn collect(mut body: Body, most: usize, budget: Arc<Semaphore>) -> Result<Whole, Failure> {
    let mut share: Option<OwnedSemaphorePermit> = None;
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Failure::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(Failure::TooLarge);
        }
        bytes.extend_from_slice(&data);
        // Small bodies, nearly all of them, take nothing from the budget.
        let wanted = bytes.len() / PERMIT_BYTES;
        let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted > held {
            let more = u32::try_from(wanted - held).map_err(|_| Failure::TooLarge)?;
            let more = budget.clone().try_acquire_many_owned(more).map_err(|_| Failure::Busy)?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
        }
    }
    Ok(Whole { bytes: bytes.freeze(), _share: share })
}
