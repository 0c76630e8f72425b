//! Answers that are rendered once for everybody who asks at the same time.
//!
//! An answer reflects every event that the master took in before it was asked, and no reader waits for more than the rendering that runs and the
//! next one: whoever comes while one is running gets the next, shared with all who came meanwhile. When nothing has changed, nothing is rendered.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::reply;
use crate::Stopped;
use crate::pieces::{Pieces, Runs};
use crate::view::Scene;
use crate::view::classic::Document;
use crate::view::operator::Question;

/// Answers that are kept; beyond that all are forgotten, because somebody makes up keys.
const MOST_KEPT: usize = 64;

/// What is asked, as far as it decides the bytes of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Document(Document, Option<Arc<str>>),
    Question(Question, super::call::Encoding, Option<Arc<str>>),
}

/// The bytes of an answer.
#[derive(Debug)]
pub(super) struct Rendered {
    pieces: Pieces,
    length: usize,
    gzip: OnceLock<Bytes>,
    version: u64,
    number: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Renderings begun so far.
    begun: AtomicU64,
    current: tokio::sync::Mutex<Option<Arc<Rendered>>>,
    /// What the next rendering can take over, in the hands of the one that runs.
    runs: Arc<Mutex<Runs>>,
}

/// All that is kept.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<HashMap<Key, Arc<Slot>>>);

impl Cache {
    fn slot(&self, key: Key) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MOST_KEPT && !slots.contains_key(&key) {
            slots.clear();
        }
        slots.entry(key).or_default().clone()
    }

    /// The answer to `key`, and whether it was made for somebody else. `scene` gives the state as it is when asked.
    pub(super) async fn get<F>(
        &self,
        key: Key,
        scene: impl Future<Output = Result<Scene, Stopped>>,
        render: F,
    ) -> Result<(Arc<Rendered>, bool), Stopped>
    where
        F: FnOnce(Scene, &mut Runs) -> Pieces + Send + 'static,
    {
        let slot = self.slot(key);
        let arrived = slot.begun.load(Ordering::SeqCst);
        let mut current = slot.current.lock().await;
        if let Some(rendered) = current.as_ref().filter(|it| it.number > arrived) {
            return Ok((rendered.clone(), true));
        }
        // Counted before the state is read: who comes from now on may need a newer one.
        let number = slot.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let scene = scene.await?;
        let version = scene.view.version;
        if let Some(rendered) = current.as_ref().filter(|it| it.version == version) {
            return Ok((rendered.clone(), true));
        }
        let runs = slot.runs.clone();
        let pieces = tokio::task::spawn_blocking(move || render(scene, &mut runs.lock().unwrap_or_else(PoisonError::into_inner)));
        let rendered = Rendered::of(pieces.await.map_err(|_| Stopped)?, version, number);
        *current = Some(rendered.clone());
        Ok((rendered, false))
    }
}

impl Rendered {
    fn of(pieces: Pieces, version: u64, number: u64) -> Arc<Rendered> {
        Arc::new(Rendered { length: pieces.len(), pieces, gzip: OnceLock::new(), version, number })
    }

    /// One that is not kept.
    pub(super) fn alone(bytes: impl Into<Pieces>) -> Arc<Rendered> {
        Rendered::of(bytes.into(), 0, 0)
    }

    /// The bytes, in one.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.pieces.to_vec()
    }

    fn plain(self: Arc<Self>, content_type: &'static str) -> Response {
        let parts: VecDeque<Bytes> = self.pieces.iter().cloned().collect();
        reply::bytes(content_type, Body::new(Parts { parts, left: self.length as u64 }))
    }

    /// The answer, compressed where the client can take that.
    pub(super) async fn response(self: Arc<Self>, content_type: &'static str, headers: &http::HeaderMap) -> Response {
        if self.length < reply::COMPRESS_FROM || !reply::takes_gzip(headers) {
            return self.plain(content_type);
        }
        let this = self.clone();
        let compressed = match self.gzip.get() {
            Some(done) => Ok(done.clone()),
            None => tokio::task::spawn_blocking(move || this.gzip.get_or_init(|| this.pieces.gzip()).clone()).await,
        };
        match compressed {
            Ok(compressed) => reply::gzipped(content_type, compressed),
            Err(_) => self.plain(content_type),
        }
    }
}

/// A body whose length is known, in the parts that everybody shares.
#[derive(Debug)]
struct Parts {
    parts: VecDeque<Bytes>,
    left: u64,
}

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.parts.pop_front();
        self.left -= next.as_ref().map_or(0, |it| it.len() as u64);
        Poll::Ready(next.map(|it| Ok(Frame::data(it))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
