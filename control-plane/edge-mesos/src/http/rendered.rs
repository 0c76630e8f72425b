//! Answers that are rendered once for everybody who asks at the same time.
//!
//! An answer reflects every event that the master took in before it was asked, and no reader waits for more than the rendering that runs and the
//! next one: whoever comes while one is running gets the next, shared with all who came meanwhile. When nothing has changed, nothing is rendered.

use std::collections::HashMap;
use std::future::Future;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::reply;
use crate::Stopped;
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
    bytes: Bytes,
    gzip: OnceLock<Bytes>,
    version: u64,
    number: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Renderings begun so far.
    begun: AtomicU64,
    current: tokio::sync::Mutex<Option<Arc<Rendered>>>,
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
        F: FnOnce(Scene) -> Vec<u8> + Send + 'static,
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
        let bytes = tokio::task::spawn_blocking(move || render(scene)).await.map_err(|_| Stopped)?;
        let rendered = Arc::new(Rendered { bytes: bytes.into(), gzip: OnceLock::new(), version, number });
        *current = Some(rendered.clone());
        Ok((rendered, false))
    }
}

impl Rendered {
    /// One that is not kept.
    pub(super) fn alone(bytes: Vec<u8>) -> Arc<Rendered> {
        Arc::new(Rendered { bytes: bytes.into(), gzip: OnceLock::new(), version: 0, number: 0 })
    }

    /// The bytes as they are.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The answer, compressed where the client can take that.
    pub(super) async fn response(self: Arc<Self>, content_type: &'static str, headers: &http::HeaderMap) -> Response {
        if self.bytes.len() < reply::COMPRESS_FROM || !reply::takes_gzip(headers) {
            return reply::bytes(content_type, self.bytes.clone());
        }
        let this = self.clone();
        let compressed = match self.gzip.get() {
            Some(done) => Ok(done.clone()),
            None => tokio::task::spawn_blocking(move || this.gzip.get_or_init(|| gzip(&this.bytes)).clone()).await,
        };
        match compressed {
            Ok(compressed) => reply::gzipped(content_type, compressed),
            Err(_) => reply::bytes(content_type, self.bytes.clone()),
        }
    }
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    // Writing to a Vec does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default().into()
}
