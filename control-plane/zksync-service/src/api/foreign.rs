//! Pages of other sites: a browser sends what they ask for with whatever lets its user in, and such a page needs no answer to do harm.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};

use super::json;

/// Types of bodies that a browser sends to another site without asking it first.
const SIMPLE: [&str; 3] = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];

/// Lets nothing be changed by a page of another origin.
pub(super) async fn not_for_other_pages(request: Request, next: Next) -> Response {
    if !request.method().is_safe() {
        if is_foreign(request.headers()) {
            let text = "a page of another origin may not change anything here; a proxy in front of this one has to pass the header Host on, \
                        or to set X-Forwarded-Host, or the origin of its page is told with --allowed-origins";
            return json(StatusCode::FORBIDDEN, &text);
        }
        if is_simple(request.headers()) {
            return json(StatusCode::UNSUPPORTED_MEDIA_TYPE, &"the body must be application/json");
        }
    }
    next.run(request).await
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|it| it.to_str().ok())
}

/// Whether a page of another origin has sent it. Programs say neither.
fn is_foreign(headers: &HeaderMap) -> bool {
    if let Some(site) = text(headers, "sec-fetch-site") {
        return matches!(site, "cross-site" | "same-site");
    }
    // Browsers say the former only where the connection is safe from others.
    let Some(origin) = text(headers, "origin") else { return false };
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    ![text(headers, "host"), text(headers, "x-forwarded-host")].into_iter().flatten().any(|host| host.eq_ignore_ascii_case(authority))
}

fn is_simple(headers: &HeaderMap) -> bool {
    let kind = text(headers, header::CONTENT_TYPE.as_str()).and_then(|kind| kind.split(';').next()).unwrap_or_default();
    SIMPLE.iter().any(|simple| kind.trim().eq_ignore_ascii_case(simple))
}
