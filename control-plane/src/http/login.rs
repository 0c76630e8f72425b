//! Who may come in: HTTP Basic, where users are named. Weave Scope's front end, its probes and every tool know it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use tonic::Status;
use tonic::service::Routes;

use super::reply;

/// Users, and the hash of each one's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users(Arc<BTreeMap<String, [u8; 32]>>);

impl Users {
    /// Most lines of a file.
    const MOST: usize = 10_000;

    /// Reads a file of lines `user:password`; blank lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// When it cannot be read, names nobody, or has a line that is none: which.
    pub fn read(path: &Path) -> Result<Users, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let mut users = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let number = number + 1;
            match line.split_once(':') {
                Some((user, password)) if !user.is_empty() && !password.is_empty() => {
                    users.insert(user.to_owned(), *blake3::hash(password.as_bytes()).as_bytes());
                }
                _ => return Err(format!("line {number} is not of the form user:password")),
            }
            if users.len() > Users::MOST {
                return Err(format!("more than {} users", Users::MOST));
            }
        }
        if users.is_empty() { Err("it names no user".to_owned()) } else { Ok(Users(Arc::new(users))) }
    }

    /// These, if there are any, and one more.
    pub(crate) fn with(users: Option<Users>, user: &str, password: &str) -> Users {
        let mut all = users.map(|users| (*users.0).clone()).unwrap_or_default();
        all.insert(user.to_owned(), *blake3::hash(password.as_bytes()).as_bytes());
        Users(Arc::new(all))
    }

    /// Whether the value of an `Authorization` header is a user's name and password.
    fn admit(&self, header: &HeaderValue) -> bool {
        let credentials =
            header.to_str().ok().and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
        let Some(decoded) = credentials.and_then(|(_, text)| BASE64_STANDARD.decode(text.trim()).ok()) else { return false };
        let Some(colon) = decoded.iter().position(|byte| *byte == b':') else { return false };
        let (user, password) = (&decoded[..colon], &decoded[colon + 1..]);
        // Hashes are compared in constant time.
        let known = std::str::from_utf8(user).ok().and_then(|user| self.0.get(user));
        blake3::Hash::from(known.copied().unwrap_or_default()) == blake3::hash(password) && known.is_some()
    }
}

/// Lets only `users` in, but for those who ask whether this process lives.
pub(super) fn layer(router: Router, users: Option<Users>) -> Router {
    match users {
        Some(users) => router.layer(middleware::from_fn_with_state(users, ask)),
        None => router,
    }
}

/// The same for services of gRPC: the health service is for everybody.
pub fn ask_of_messages(routes: Routes, users: Option<Users>) -> Routes {
    match users {
        Some(users) => Routes::from(routes.into_axum_router().layer(middleware::from_fn_with_state(users, ask_of_message))),
        None => routes,
    }
}

async fn ask_of_message(State(users): State<Users>, request: Request, next: Next) -> Response {
    let is_open = request.uri().path().starts_with("/grpc.health.v1.Health/");
    if is_open || request.headers().get(AUTHORIZATION).is_some_and(|header| users.admit(header)) {
        return next.run(request).await;
    }
    let refusal =
        Status::unauthenticated("a user name and a password are needed, as `authorization: Basic …`").into_http::<tonic::body::Body>();
    refusal.map(axum::body::Body::new)
}

async fn ask(State(users): State<Users>, request: Request, next: Next) -> Response {
    let is_open = matches!(request.uri().path(), "/health" | "/ready");
    if is_open || request.headers().get(AUTHORIZATION).is_some_and(|header| users.admit(header)) {
        return next.run(request).await;
    }
    let mut answer = reply::problem(StatusCode::UNAUTHORIZED, "a user name and a password are needed");
    // Scope's realm: browsers keep passwords by it.
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Restricted\", charset=\"UTF-8\""));
    answer
}

/// The line `user:password` of a file.
pub(crate) fn read_login(file: &Path) -> anyhow::Result<String> {
    let login = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let login = login.trim();
    anyhow::ensure!(login.contains(':') && !login.contains('\n'), "{} has no line user:password", file.display());
    Ok(login.to_owned())
}

/// How a login is shown to a server (RFC 7617); never in a log.
pub(crate) fn basic_authorization(login: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(login)))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> Result<Users, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Users::read(file.path())
    }

    #[test]
    fn who_is_named_comes_in_and_nobody_else() {
        let users = users("# operators\nann:secret\n\nbob:with:colon\n").unwrap();
        let header = |text: &str| HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(text))).unwrap();
        for good in ["ann:secret", "bob:with:colon"] {
            assert!(users.admit(&header(good)), "{good}");
        }
        let more = Users::with(Some(users.clone()), "admin", "pw");
        assert!(more.admit(&header("admin:pw")) && more.admit(&header("ann:secret")) && !users.admit(&header("admin:pw")));
        for bad in ["ann:wrong", "ann:", "ann", "", ":", "eve:secret", "ann:secret ", "bob:with"] {
            assert!(!users.admit(&header(bad)), "{bad}");
        }
        for bad in ["Basic", "Basic ???", "Bearer YW5uOnNlY3JldA==", ""] {
            assert!(!users.admit(&HeaderValue::from_str(bad).unwrap()), "{bad}");
        }
        assert!(users.admit(&HeaderValue::from_static("basic YW5uOnNlY3JldA==")));
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        assert_eq!(users("").unwrap_err(), "it names no user");
        assert_eq!(users("ann:x\nbob\n").unwrap_err(), "line 2 is not of the form user:password");
        assert_eq!(users("ann:\n").unwrap_err(), "line 1 is not of the form user:password");
        assert!(Users::read(Path::new("/nowhere")).is_err());
    }
}
