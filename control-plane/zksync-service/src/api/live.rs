//! How links and migrations stand, as it changes: server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::stream::{Stream, unfold};
use serde::Serialize;

use super::views::{migration_page, view};
use crate::service::{Service, ServiceError};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// What has not changed is told again after this many looks, so that a chart goes on.
const AGAIN: u32 = 4;

/// A link, four times a second while it changes, and once a second: events `link` whose data are those of `GET /links/{id}`.
#[utoipa::path(get, path = "/api/v1/zksync/links/{id}/events", tag = "ZooKeeper sync", responses((status = 200, description = "Server-sent events", content_type = "text/event-stream"), (status = 404, description = "There is none")))]
pub(super) async fn link_events(State(service): State<Service>, Path(id): Path<String>) -> Result<Response, ServiceError> {
    service.get(&id)?;
    let look = move || service.get(&id).ok().map(|(definition, role)| text(&view(&definition, role)));
    Ok(Sse::new(events("link", look)).keep_alive(KeepAlive::default()).into_response())
}

/// A migration, as it changes: events `migration` whose data are those of `GET /migrations/{id}`.
#[utoipa::path(get, path = "/api/v1/zksync/migrations/{id}/events", tag = "ZooKeeper sync", responses((status = 200, description = "Server-sent events", content_type = "text/event-stream"), (status = 404, description = "There is none")))]
pub(super) async fn migration_events(State(service): State<Service>, Path(id): Path<String>) -> Result<Response, ServiceError> {
    service.migration(&id)?;
    let look = move || service.migration(&id).ok().map(|handle| text(&migration_page(&service, &id, &handle)));
    Ok(Sse::new(events("migration", look)).keep_alive(KeepAlive::default()).into_response())
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Ends when there is nothing to look at any more.
fn events(name: &'static str, look: impl Fn() -> Option<String> + Send + 'static) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold((look, String::new(), true), move |(look, told, first)| async move {
        let mut looks = 0;
        loop {
            if !first || looks > 0 {
                tokio::time::sleep(LOOK).await;
            }
            looks += 1;
            let now = look()?;
            if now != told || looks >= AGAIN {
                return Some((Ok(Event::default().event(name).data(now.clone())), (look, now, false)));
            }
        }
    })
}
