//! Browsers that open the old programs' ports are led to our page: bookmarks of the Mesos and Marathon UIs go on working.

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::header::{ACCEPT, HOST, LOCATION};
use http::{HeaderMap, Method, StatusCode};

/// Where our page is, as seen from another port of the same host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    /// Port of the page.
    pub(crate) port: u16,
    /// Whether it is served by https.
    pub(crate) tls: bool,
}

/// The page, and the part of it that takes a UI's place.
#[derive(Clone, Copy, Debug)]
struct Part {
    page: Page,
    /// What stands after the `#`.
    fragment: &'static str,
    /// Paths at which the old UI was.
    paths: &'static [&'static str],
}

/// Leads browsers from the UI of a Mesos master to the cluster.
pub(crate) fn from_mesos(router: Router, page: Page) -> Router {
    let part = Part { page, fragment: "/cluster", paths: &["/"] };
    router.layer(middleware::from_fn_with_state(part, lead))
}

/// Leads browsers from Marathon's UI to the apps.
pub(crate) fn from_marathon(router: Router, page: Page) -> Router {
    let part = Part { page, fragment: "/apps", paths: &["/", "/ui", "/ui/"] };
    router.layer(middleware::from_fn_with_state(part, lead))
}

async fn lead(State(part): State<Part>, request: Request, next: Next) -> Response {
    match part.address(request.method(), request.uri().path(), request.headers()) {
        Some(address) => (StatusCode::FOUND, [(LOCATION, address)]).into_response(),
        None => next.run(request).await,
    }
}

impl Part {
    /// Where a request is led. Programs, which do not ask for HTML, are answered as ever.
    fn address(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<String> {
        let is_browser = headers.get(ACCEPT).and_then(|it| it.to_str().ok()).is_some_and(|it| it.contains("text/html"));
        if method != Method::GET || !is_browser || !self.paths.contains(&path) {
            return None;
        }
        let authority = headers.get(HOST)?.to_str().ok()?;
        // A port has no bracket behind it, as the last colon of an IPv6 address has.
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            _ => authority,
        };
        let is_host = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_' | ':' | '[' | ']');
        if host.is_empty() || !host.chars().all(is_host) {
            return None;
        }
        let scheme = if self.page.tls { "https" } else { "http" };
        Some(format!("{scheme}://{host}:{}/#{}", self.page.port, self.fragment))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn led(host: &'static str, accept: &'static str, path: &str, method: &Method) -> Option<String> {
        let part = Part { page: Page { port: 4040, tls: false }, fragment: "/apps", paths: &["/", "/ui/"] };
        let headers = [(HOST, HeaderValue::from_static(host)), (ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
        part.address(method, path, &headers)
    }

    #[test]
    fn a_browser_is_led_to_the_page_of_the_host_that_it_called() {
        const HTML: &str = "text/html,application/xhtml+xml,*/*;q=0.8";
        for (host, expected) in [
            ("m1:8080", "http://m1:4040/#/apps"),
            ("m1", "http://m1:4040/#/apps"),
            ("10.0.0.1:8080", "http://10.0.0.1:4040/#/apps"),
            ("[::1]:8080", "http://[::1]:4040/#/apps"),
            ("[::1]", "http://[::1]:4040/#/apps"),
        ] {
            assert_eq!(led(host, HTML, "/ui/", &Method::GET).as_deref(), Some(expected));
        }
        assert_eq!(led("evil/../x", HTML, "/", &Method::GET), None);
        assert_eq!(led("m1", HTML, "/v2/apps", &Method::GET), None);
        assert_eq!(led("m1", "*/*", "/", &Method::GET), None);
        assert_eq!(led("m1", HTML, "/", &Method::POST), None);
    }
}
