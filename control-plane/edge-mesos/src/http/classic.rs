//! The classic endpoints that only read.

use std::sync::atomic::Ordering;

use axum::response::Response;
use http::Method;
use http::request::Parts;

use super::call::Query;
use super::rendered::{Key, Rendered};
use super::route::Route;
use super::{Context, reply};
use crate::acl::Sight;
use crate::pieces::Runs;
use crate::view::classic::{Document, TaskQuery, render};
use crate::view::sight::Viewer;

/// Tasks of one page without `limit`.
const TASKS: usize = 100;

pub(super) async fn serve(context: &Context, route: Route, viewer: Viewer, request: &Parts) -> Response {
    if let Some(methods) = route.methods().filter(|_| request.method != Method::GET) {
        return reply::method_not_allowed(methods, &request.method);
    }
    let query = Query::of(&request.uri);
    let Some(document) = document(route, &viewer, &query) else { return reply::not_found() };
    // Documents about one thing are small, and there are as many as there are things.
    let kept = !matches!(&document, Document::Tasks(_) | Document::Agents { id: Some(_) } | Document::Frameworks { id: Some(_) });
    let rendered = if kept {
        let key = Key::Document(document.clone(), viewer.key());
        let found = context.inner.cache.get(key, context.scene(), move |scene, runs| render(&viewer.cut(scene), &document, runs)).await;
        match found {
            Ok((rendered, hit)) => {
                context.inner.master.gauges().cache_hits.fetch_add(u64::from(hit), Ordering::Relaxed);
                rendered
            }
            Err(stopped) => return reply::stopped(stopped),
        }
    } else {
        let scene = match context.scene().await {
            Ok(scene) => scene,
            Err(stopped) => return reply::stopped(stopped),
        };
        match tokio::task::spawn_blocking(move || render(&viewer.cut(scene), &document, &mut Runs::default())).await {
            Ok(pieces) => Rendered::alone(pieces),
            Err(_) => return reply::text(http::StatusCode::INTERNAL_SERVER_ERROR, ""),
        }
    };
    match query.first("jsonp") {
        None => rendered.response("application/json", &request.headers).await,
        Some(_) => reply::json(rendered.to_vec(), &query),
    }
}

/// A number as Mesos reads it: what is none is the default, and less than nothing is everything. Its command line asks for -1 tasks.
fn count(text: &str, otherwise: usize) -> usize {
    text.parse::<i32>().map_or(otherwise, |it| usize::try_from(it).unwrap_or(usize::MAX))
}

fn document(route: Route, viewer: &Viewer, query: &Query) -> Option<Document> {
    let number = |key: &str, otherwise: usize| query.first(key).map_or(otherwise, |it| count(&it, otherwise));
    Some(match route {
        Route::State => Document::State { flags: viewer.sees(Sight::Flags) },
        Route::StateSummary => Document::Summary,
        Route::Slaves => Document::Agents { id: query.first("slave_id") },
        Route::Frameworks => Document::Frameworks { id: query.first("framework_id") },
        Route::Tasks => Document::Tasks(TaskQuery {
            limit: number("limit", TASKS),
            offset: number("offset", 0),
            ascending: query.first("order").as_deref() == Some("asc"),
            framework_id: query.first("framework_id"),
            task_id: query.first("task_id"),
            words: query.first("words").as_deref() == Some("true"),
        }),
        Route::Roles => Document::Roles,
        Route::Weights => Document::Weights,
        Route::Quota => Document::Quota,
        Route::MaintenanceSchedule => Document::MaintenanceSchedule,
        Route::MaintenanceStatus => Document::MaintenanceStatus,
        _ => return None,
    })
}
