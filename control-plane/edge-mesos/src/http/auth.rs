//! Who a client is: HTTP Basic against a list of principals and secrets, for those realms that ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use super::reply;
use super::route::Realm;
use crate::flags::{FlagError, Flags};

/// Principals with their secrets, and which realms ask for them.
#[derive(Clone, Default)]
pub struct Credentials {
    secrets: BTreeMap<String, String>,
    readonly: bool,
    readwrite: bool,
    frameworks: bool,
    agents: bool,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("principals", &self.secrets.keys()).finish_non_exhaustive()
    }
}

impl Credentials {
    /// As the flags `credentials`, `authenticate_http_*` and `authenticate_agents` say.
    ///
    /// # Errors
    /// When the credentials are not the JSON of `{"credentials": [{"principal": …, "secret": …}, …]}`, or asked for and not given.
    pub fn from_flags(flags: &Flags) -> Result<Self, FlagError> {
        let failed = |problem: &str| FlagError { name: "credentials".to_owned(), problem: problem.to_owned() };
        let mut secrets = BTreeMap::new();
        if let Some(text) = flags.get("credentials") {
            let value: Value = serde_json::from_str(text).map_err(|error| failed(&error.to_string()))?;
            let list = value.get("credentials").and_then(Value::as_array).ok_or_else(|| failed("there is no list \"credentials\""))?;
            for entry in list {
                let field = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
                let principal = field("principal").filter(|it| !it.is_empty()).ok_or_else(|| failed("an entry has no principal"))?;
                secrets.insert(principal, field("secret").unwrap_or_default());
            }
        }
        let this = Credentials {
            secrets,
            readonly: flags.is_on("authenticate_http_readonly"),
            readwrite: flags.is_on("authenticate_http_readwrite"),
            frameworks: flags.is_on("authenticate_http_frameworks"),
            agents: flags.is_on("authenticate_agents"),
        };
        if this.secrets.is_empty() && (this.readonly || this.readwrite || this.frameworks || this.agents) {
            return Err(failed("credentials are asked for by --authenticate_…, and none are given"));
        }
        Ok(this)
    }

    pub(super) fn asks(&self, realm: Realm) -> bool {
        match realm {
            Realm::ReadOnly => self.readonly,
            Realm::ReadWrite => self.readwrite,
            Realm::Scheduler => self.frameworks,
        }
    }

    /// Who it is, or the answer to somebody who does not say.
    #[expect(clippy::result_large_err, reason = "the answer as it goes out, once per request")]
    pub(super) fn authenticate(&self, realm: Realm, headers: &HeaderMap) -> Result<Option<Arc<str>>, Response> {
        self.known(headers).map(Some).ok_or_else(|| {
            let mut response = reply::text(StatusCode::UNAUTHORIZED, "");
            if let Ok(challenge) = HeaderValue::from_str(&format!("Basic realm=\"{}\"", realm.name())) {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            response
        })
    }
}

impl Credentials {
    /// The principal that the headers show the secret of.
    fn known(&self, headers: &HeaderMap) -> Option<Arc<str>> {
        let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (principal, secret) = pair.split_once(':')?;
        let known = self.secrets.get(principal)?;
        same(known.as_bytes(), secret.as_bytes()).then(|| Arc::from(principal))
    }

    /// Who an agent is, or why it is not taken. One that shows nothing is nobody, where nothing is asked for; one that shows what is wrong is
    /// refused either way, as in Mesos.
    pub(crate) fn agent(&self, headers: &HeaderMap) -> Result<Option<Arc<str>>, &'static str> {
        if self.secrets.is_empty() || (!self.agents && !headers.contains_key(AUTHORIZATION)) {
            return Ok(None);
        }
        let problem = if headers.contains_key(AUTHORIZATION) {
            "the agent's credential is none of --credentials"
        } else {
            "agents have to show a credential"
        };
        self.known(headers).map(Some).ok_or(problem)
    }
}

/// Compares in a time that says nothing about where the difference is.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}
