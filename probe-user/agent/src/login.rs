//! Who asks the HTTP API, where the agent wants to know: HTTP Basic against a list of principals and secrets, and the tokens that executors were
//! given. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use serde::{Deserialize, Serialize};

/// What is asked for, of whom, and against what it is held. Without settings, nothing is asked for.
#[derive(Clone, Default)]
pub struct Login {
    secrets: BTreeMap<String, String>,
    readonly: bool,
    readwrite: bool,
    tokens: Option<hmac::Key>,
}

/// Without the secrets.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("principals", &self.secrets.keys())
            .field("readonly", &self.readonly)
            .field("readwrite", &self.readwrite)
            .field("executors", &self.tokens.is_some())
            .finish()
    }
}

/// Parts of the API, by what Mesos's flags guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realm {
    /// What only shows: `--authenticate_http_readonly`.
    ReadOnly,
    /// What may change something, all of `/api/v1`: `--authenticate_http_readwrite`.
    ReadWrite,
    /// `/api/v1/executor`: `--authenticate_http_executors`.
    Executor,
}

impl Realm {
    const fn name(self) -> &'static str {
        match self {
            Realm::ReadOnly => "mesos-agent-readonly",
            Realm::ReadWrite => "mesos-agent-readwrite",
            Realm::Executor => "mesos-agent-executor",
        }
    }
}

/// Which container an executor's token was made for. The names are those of the token's claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Id of the container.
    pub cid: String,
    /// Id of the executor.
    pub eid: String,
    /// Id of its framework.
    pub fid: String,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Nobody was asked who they are.
    Anyone,
    /// One of the list.
    Principal(String),
    /// An executor of this agent.
    Executor(Claims),
}

#[derive(Deserialize)]
struct Credentials {
    credentials: Vec<Credential>,
}

/// A principal, and what proves it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Credential {
    principal: String,
    #[serde(default)]
    secret: String,
}

/// Without the secret.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("principal", &self.principal).finish_non_exhaustive()
    }
}

impl Credential {
    /// The content of the file that Mesos's `--credential` names: JSON, or principal and secret as two words.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            _ if text.trim_start().starts_with('{') => serde_json::from_str(text).map_err(|error| error.to_string()),
            [principal, secret] => Ok(Credential { principal: (*principal).to_owned(), secret: (*secret).to_owned() }),
            _ => Err("neither JSON with a principal and a secret nor these two words".to_owned()),
        }
    }

    /// As HTTP's header `Authorization` has it (RFC 7617).
    pub fn authorization(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.principal, self.secret)))
    }
}

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
}

impl Login {
    /// Asks in those realms. `credentials` is the content of Mesos's file: `{"credentials": [{"principal": …, "secret": …}, …]}`.
    ///
    /// # Errors
    /// When the content is something else, or asked for and not there.
    pub fn new(credentials: Option<&str>, readonly: bool, readwrite: bool) -> Result<Self, String> {
        let mut secrets = BTreeMap::new();
        if let Some(text) = credentials {
            let list: Credentials = serde_json::from_str(text).map_err(|error| error.to_string())?;
            if list.credentials.iter().any(|it| it.principal.is_empty()) {
                return Err("an entry has no principal".to_owned());
            }
            secrets = list.credentials.into_iter().map(|it| (it.principal, it.secret)).collect();
        }
        if secrets.is_empty() && (readonly || readwrite) {
            return Err("credentials are asked for, and none are given".to_owned());
        }
        Ok(Login { secrets, readonly, readwrite, tokens: None })
    }

    /// Asks executors for tokens, too, which are signed with this key.
    #[must_use]
    pub fn with_tokens(self, key: &[u8]) -> Self {
        Login { tokens: Some(hmac::Key::new(hmac::HMAC_SHA256, key)), ..self }
    }

    /// What is asked for, by Mesos's flags.
    pub fn flags(&self) -> [(&'static str, bool); 3] {
        [
            ("authenticate_http_readonly", self.readonly),
            ("authenticate_http_readwrite", self.readwrite),
            ("authenticate_http_executors", self.tokens.is_some()),
        ]
    }

    /// Who sent a request with this `Authorization`.
    ///
    /// # Errors
    /// The challenges to answer with, where that has to be known and is not.
    pub fn admit(&self, realm: Realm, authorization: Option<&str>) -> Result<Asker, Vec<String>> {
        let (takes_list, takes_tokens) = match realm {
            Realm::ReadOnly => (self.readonly, false),
            // Executors make their nested containers here.
            Realm::ReadWrite => (self.readwrite, self.readwrite && self.tokens.is_some()),
            Realm::Executor => (false, self.tokens.is_some()),
        };
        if !takes_list && !takes_tokens {
            return Ok(Asker::Anyone);
        }
        let asker = authorization.and_then(|it| {
            let (scheme, word) = it.split_once(' ')?;
            match scheme.to_ascii_lowercase().as_str() {
                "basic" if takes_list => self.listed(word.trim()).map(Asker::Principal),
                "bearer" if takes_tokens => self.verified(word.trim()).map(Asker::Executor),
                _ => None,
            }
        });
        asker.ok_or_else(|| {
            let schemes = [(takes_list, "Basic"), (takes_tokens, "Bearer")];
            schemes.iter().filter(|(taken, _)| *taken).map(|(_, scheme)| format!("{scheme} realm=\"{}\"", realm.name())).collect()
        })
    }

    fn listed(&self, encoded: &str) -> Option<String> {
        let pair = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (principal, secret) = pair.split_once(':')?;
        let known = self.secrets.get(principal)?;
        // In a time that says nothing about where the difference is.
        let is_it = known.len() == secret.len() && known.bytes().zip(secret.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0;
        is_it.then(|| principal.to_owned())
    }

    /// A token for an executor (RFC 7519, HS256); `None` where executors are not asked for one.
    pub fn token(&self, claims: &Claims) -> Option<String> {
        let key = self.tokens.as_ref()?;
        let claims = serde_json::to_vec(claims).ok()?;
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#), URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(key, signed.as_bytes());
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn verified(&self, token: &str) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        hmac::verify(self.tokens.as_ref()?, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let header: TokenHeader = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        (header.alg == "HS256").then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"credentials": [{"principal": "ada", "secret": "lovelace"}, {"principal": "bob"}]}"#;

    #[test]
    fn a_credential_is_json_or_two_words_and_is_not_shown() {
        let json = Credential::parse(r#" {"principal": "ada", "secret": "lovelace"}"#).unwrap();
        assert_eq!(json, Credential::parse("ada lovelace\n").unwrap());
        assert_eq!(json.authorization(), basic("ada:lovelace"));
        assert!(!format!("{json:?}").contains("lovelace"));
        for wrong in ["", "ada", "a b c", "{"] {
            Credential::parse(wrong).unwrap_err();
        }
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    fn claims() -> Claims {
        Claims { cid: "c".to_owned(), eid: "e".to_owned(), fid: "f".to_owned() }
    }

    #[test]
    fn nobody_is_asked_until_a_flag_says_so() {
        let login = Login::new(Some(LIST), false, false).unwrap();
        for realm in [Realm::ReadOnly, Realm::ReadWrite, Realm::Executor] {
            assert_eq!(login.admit(realm, None), Ok(Asker::Anyone));
            assert_eq!(login.admit(realm, Some("Basic !!")), Ok(Asker::Anyone));
        }
        assert_eq!(login.token(&claims()), None);
    }

    #[test]
    fn principals_are_known_by_their_secrets() {
        let login = Login::new(Some(LIST), true, false).unwrap();
        let admit = |word: &str| login.admit(Realm::ReadOnly, Some(word));
        assert_eq!(admit(&basic("ada:lovelace")), Ok(Asker::Principal("ada".to_owned())));
        assert_eq!(admit(&basic("ada:lovelace").replace("Basic", "bAsIc")), Ok(Asker::Principal("ada".to_owned())));
        assert_eq!(admit(&basic("bob:")), Ok(Asker::Principal("bob".to_owned())));
        let challenge = Err(vec!["Basic realm=\"mesos-agent-readonly\"".to_owned()]);
        for wrong in [&*basic("ada:lovelacf"), &basic("ada:"), &basic("eve:lovelace"), &basic("ada"), "Basic ?", "Bearer x", "", "Basic"] {
            assert_eq!(admit(wrong), challenge, "{wrong}");
        }
        assert_eq!(login.admit(Realm::ReadOnly, None), challenge);
        assert_eq!(login.admit(Realm::ReadWrite, None), Ok(Asker::Anyone));
    }

    #[test]
    fn executors_are_known_by_their_tokens() {
        let login = Login::new(Some(LIST), false, true).unwrap().with_tokens(b"key");
        let token = login.token(&claims()).unwrap();
        let admit = |realm, token: &str| login.admit(realm, Some(&format!("Bearer {token}")));
        assert_eq!(admit(Realm::Executor, &token), Ok(Asker::Executor(claims())));
        assert_eq!(admit(Realm::ReadWrite, &token), Ok(Asker::Executor(claims())));
        let both = vec!["Basic realm=\"mesos-agent-readwrite\"".to_owned(), "Bearer realm=\"mesos-agent-readwrite\"".to_owned()];
        assert_eq!(login.admit(Realm::ReadWrite, None), Err(both));
        let others = Login::default().with_tokens(b"other").token(&claims()).unwrap();
        let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), token.split('.').nth(1).unwrap());
        let wrong = [&*others, &unsigned, &token[1..], &token[..token.len() - 2], "", "..", "a.b.c"];
        for wrong in wrong {
            assert_eq!(admit(Realm::Executor, wrong), Err(vec!["Bearer realm=\"mesos-agent-executor\"".to_owned()]), "{wrong}");
        }
        assert_eq!(login.admit(Realm::Executor, Some(&basic("ada:lovelace"))).unwrap_err().len(), 1);
    }

    #[test]
    fn mistakes_are_told() {
        assert_eq!(Login::new(None, true, false).unwrap_err(), "credentials are asked for, and none are given");
        assert_eq!(Login::new(Some(r#"{"credentials": []}"#), false, true).unwrap_err(), "credentials are asked for, and none are given");
        assert_eq!(Login::new(Some(r#"{"credentials": [{"principal": ""}]}"#), true, true).unwrap_err(), "an entry has no principal");
        for wrong in ["", "ada lovelace", "[]", "{}", r#"{"credentials": [{"secret": "x"}]}"#] {
            Login::new(Some(wrong), true, false).unwrap_err();
        }
        assert!(!format!("{:?}", Login::new(Some(LIST), true, true).unwrap().with_tokens(b"k")).contains("lovelace"));
    }
}
