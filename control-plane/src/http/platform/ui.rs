//! The web UI, embedded in the binary: the files of `control-plane/ui/dist` as they were when it was built.

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::http::query::decode;
use crate::http::reply::{not_found, problem};

#[derive(RustEmbed)]
#[folder = "ui/dist"]
struct Dist;

/// Pages of Weave Scope's UI besides its first: the window of a terminal, and the same map with more contrast. Ours is one page.
const SCOPE_PAGES: [&str; 2] = ["terminal.html", "contrast.html"];

/// Pages of other origins may not show this one within them: whoever clicks there would stop containers without knowing. The second header
/// says it to browsers that do not know the first.
const NOT_FRAMED: [(HeaderName, &str); 2] =
    [(header::CONTENT_SECURITY_POLICY, "frame-ancestors 'self'"), (header::X_FRAME_OPTIONS, "SAMEORIGIN")];

/// Shown in place of a UI that was not built.
const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Orchestrator</title>
<body style=\"font-family: system-ui; max-width: 42rem; margin: 4rem auto; line-height: 1.5\">
<h1>Orchestrator</h1>
<p>The control plane runs, but this binary was built without its user interface. <code>cargo xtask build</code> builds both.</p>
<p>The API is here all the same: <a href=\"api/topology\">views</a>, <a href=\"api/v1/probes\">probes</a>,
<a href=\"metrics\">metrics</a>, <a href=\"api/openapi.json\">OpenAPI document</a>.</p>
</body>
</html>
";

/// What no route matched: a file of the UI at `/` and at `/ui/`, or nothing.
pub(crate) async fn serve(request: Request) -> Response {
    let path = request.uri().path();
    if path == "/ui" {
        // Relative, so that it holds below any prefix that a reverse proxy strips.
        return Redirect::permanent("ui/").into_response();
    }
    if SCOPE_PAGES.iter().any(|page| path.strip_suffix(page).is_some_and(|above| matches!(above, "/" | "/ui/"))) {
        // What a bookmark remembers is behind its `#`, which a redirect does not take away.
        return Redirect::permanent("./").into_response();
    }
    let name = path.strip_prefix("/ui/").or_else(|| path.strip_prefix('/')).unwrap_or(path);
    let name = if name.is_empty() { "index.html" } else { name };
    let Some(name) = decode(&name.replace('+', "%2B")) else { return not_found() };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return if Dist::get(&name).is_some() {
            problem(StatusCode::METHOD_NOT_ALLOWED, "the user interface is only for reading")
        } else {
            not_found()
        };
    }
    match Dist::get(&name) {
        Some(file) => embedded(&name, file, request.headers().get(header::IF_NONE_MATCH)),
        None if name == "index.html" => not_built(),
        None => not_found(),
    }
}

fn embedded(name: &str, file: EmbeddedFile, known: Option<&HeaderValue>) -> Response {
    use std::fmt::Write as _;

    let mut tag = String::with_capacity(34);
    tag.push('"');
    for byte in &file.metadata.sha256_hash()[..16] {
        write!(tag, "{byte:02x}").expect("a String takes everything");
    }
    tag.push('"');
    let fresh = known
        .and_then(|known| known.to_str().ok())
        .is_some_and(|known| known.split(',').any(|it| it.trim().trim_start_matches("W/") == tag));
    let mut response = Response::new(if fresh { Body::empty() } else { Body::from(file.data) });
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    // Names of assets carry a hash of their content.
    let cache = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let [policy, options] = NOT_FRAMED;
    headers.insert(policy.0, HeaderValue::from_static(policy.1));
    headers.insert(options.0, HeaderValue::from_static(options.1));
    if let Ok(value) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, value);
    }
    if let Ok(value) = HeaderValue::try_from(file.metadata.mimetype()) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    response
}

fn not_built() -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")], NOT_FRAMED, NOT_BUILT).into_response()
}
