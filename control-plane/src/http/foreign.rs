//! Pages of other sites: a browser sends what they ask for, with its user's login, though they cannot read the answer.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware;
use http::{HeaderMap, header};

/// What an operator should know whose own page is taken for another site's.
pub(super) const ADVICE: &str = "a proxy in front of this one has to pass the header Host on, or to set X-Forwarded-Host, or the origin \
                                 of its page is told with --allowed-origins";

const FETCH_SITE: &str = "sec-fetch-site";

/// Takes pages of these origins for our own. For whoever looks at a request behind this layer, a program has sent it.
pub(super) fn trusting(router: Router, origins: &[String]) -> Router {
    if origins.is_empty() {
        return router;
    }
    let origins: Arc<[String]> = origins.into();
    router.layer(middleware::map_request_with_state(origins, async |State(origins): State<Arc<[String]>>, mut request: Request| {
        let headers = request.headers_mut();
        let origin = headers.get(header::ORIGIN).and_then(|it| it.to_str().ok());
        if origin.is_some_and(|origin| origins.iter().any(|known| known.eq_ignore_ascii_case(origin))) {
            headers.remove(header::ORIGIN);
            headers.remove(FETCH_SITE);
        }
        request
    }))
}

/// Whether a page of another origin has sent it. Programs say neither.
pub(super) fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|it| it.to_str().ok());
    if let Some(site) = text(FETCH_SITE) {
        return matches!(site, "cross-site" | "same-site");
    }
    // Browsers say the former only where the connection is safe from others.
    let Some(origin) = text("origin") else { return false };
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    ![text("host"), text("x-forwarded-host")].into_iter().flatten().any(|host| host.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::post;
    use http::HeaderValue;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn pages_of_origins_that_are_told_are_our_own() {
        let handler = post(async |headers: HeaderMap| is_foreign(&headers).to_string());
        let origins = ["https://map.example".to_owned(), "http://inside:8080".to_owned()];
        let router = trusting(Router::new().route("/", handler), &origins);
        for (origin, site, foreign) in [
            ("https://map.example", None, "false"),
            ("https://MAP.example", Some("cross-site"), "false"),
            ("http://inside:8080", None, "false"),
            ("http://inside", None, "true"),
            ("http://map.example", None, "true"),
            ("https://map.example.evil.example", None, "true"),
            ("https://evil.example", Some("cross-site"), "true"),
            ("null", None, "true"),
        ] {
            let mut request = Request::post("/").header("host", "upstream").header("origin", origin);
            if let Some(site) = site {
                request = request.header(FETCH_SITE, site);
            }
            let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let answer = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
            assert_eq!(answer, foreign, "{origin}");
        }
    }

    #[test]
    fn only_pages_of_another_origin_are_foreign() {
        let foreign = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            is_foreign(&headers)
        };
        assert!(!foreign(&[("host", "here:4040")]));
        assert!(!foreign(&[("host", "here:4040"), ("origin", "http://here:4040")]));
        assert!(!foreign(&[("host", "inside"), ("x-forwarded-host", "here"), ("origin", "http://here")]));
        assert!(!foreign(&[("host", "inside"), ("origin", "https://here"), ("sec-fetch-site", "same-origin")]));
        assert!(foreign(&[("host", "here:4040"), ("origin", "http://evil.example")]));
        assert!(foreign(&[("host", "here:4040"), ("origin", "null")]));
        assert!(foreign(&[("host", "here"), ("origin", "https://here"), ("sec-fetch-site", "cross-site")]));
    }
}
