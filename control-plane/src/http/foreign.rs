//! Pages of other sites: a browser sends what they ask for, with its user's login, though they cannot read the answer.

use http::HeaderMap;

/// Whether a page of another origin has sent it. Programs say neither.
pub(super) fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|it| it.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return matches!(site, "cross-site" | "same-site");
    }
    // Browsers say the former only where the connection is safe from others.
    let Some(origin) = text("origin") else { return false };
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    ![text("host"), text("x-forwarded-host")].into_iter().flatten().any(|host| host.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

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
