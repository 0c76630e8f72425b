//! Where the ensemble is, as Mesos and Marathon are told: `zk://user:password@host:port,host:port/path`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use zk::{Options, Sasl, Tls};

/// An ensemble and the path that is ours in it. Prints without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Ensemble {
    servers: String,
    digest: Option<String>,
    sasl: Option<Sasl>,
    tls: Option<Tls>,
    path: String,
}

/// What is wrong with an address of an ensemble.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not zk://[user:password@]host:port[,host:port…]/path: {reason}")]
pub struct EnsembleError {
    text: String,
    reason: &'static str,
}

impl Ensemble {
    /// The path below which everything of ours is; no slash at its end.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host:port,host:port`.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// How to open a session.
    pub fn options(&self, session_timeout: Duration) -> Options {
        let options = Options::new(self.servers.clone()).with_session_timeout(session_timeout);
        let mut options = match &self.digest {
            Some(digest) => options.with_digest(digest.clone()),
            None => options,
        };
        (options.sasl, options.tls) = (self.sasl.clone(), self.tls.clone());
        options
    }

    /// The same ensemble, reached as `access` says: its identities and its encryption. An identity of the address itself stays.
    #[must_use]
    pub fn reached_as(mut self, access: &Options) -> Self {
        let digest = access.auth.iter().find(|auth| auth.scheme == "digest").map(|auth| auth.secret.clone());
        self.digest = self.digest.or(digest);
        (self.sasl, self.tls) = (access.sasl.clone(), access.tls.clone());
        self
    }

    /// Whether sessions show an identity; what they create is then theirs to change alone.
    pub fn has_identity(&self) -> bool {
        self.digest.is_some() || self.sasl.is_some()
    }
}

impl FromStr for Ensemble {
    type Err = EnsembleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Said to whoever typed it; the password stays out of logs.
        let shown = || text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, rest)| format!("zk://…@{rest}"));
        let wrong = |reason| EnsembleError { text: shown(), reason };
        let rest = text.strip_prefix("zk://").ok_or_else(|| wrong("it does not begin with zk://"))?;
        let (digest, rest) = match rest.rsplit_once('@') {
            Some((digest, rest)) if digest.contains(':') => (Some(digest.to_owned()), rest),
            Some(_) => return Err(wrong("before the @ stand a user and a password with a colon between")),
            None => (None, rest),
        };
        let (servers, path) = rest.split_once('/').ok_or_else(|| wrong("there is no path"))?;
        let path = path.trim_matches('/');
        if path.is_empty() {
            return Err(wrong("the path is empty: everything at the root would be ours"));
        }
        if path.split('/').any(|part| matches!(part, "" | "." | ".." | "zookeeper")) {
            return Err(wrong("the path has a part that no znode may have"));
        }
        for server in servers.split(',') {
            let (host, port) = server.rsplit_once(':').ok_or_else(|| wrong("a server has no port"))?;
            if host.is_empty() || port.parse::<u16>().is_err() {
                return Err(wrong("a server is not host:port"));
            }
        }
        Ok(Ensemble { servers: servers.to_owned(), digest, sasl: None, tls: None, path: format!("/{path}") })
    }
}

impl fmt::Display for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = if self.digest.is_some() { "…@" } else { "" };
        write!(f, "zk://{identity}{}{}", self.servers, self.path)
    }
}

impl fmt::Debug for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_mesos_reads_them_and_print_without_the_password() {
        let ensemble: Ensemble = "zk://me:se@cret@a:2181,b:2182/mesos/".parse().unwrap();
        assert_eq!((ensemble.servers(), ensemble.path(), ensemble.has_identity()), ("a:2181,b:2182", "/mesos", true));
        assert_eq!(format!("{ensemble} {ensemble:?}"), "zk://…@a:2181,b:2182/mesos zk://…@a:2181,b:2182/mesos");
        let named = "zk://a:1/x".parse::<Ensemble>().unwrap().reached_as(&Options::new("").with_sasl("me", "secret"));
        assert!(named.has_identity() && named.options(Duration::from_secs(1)).sasl.is_some());
        let plain: Ensemble = "zk://[::1]:2181/a/b".parse().unwrap();
        assert_eq!((plain.servers(), plain.path(), plain.has_identity()), ("[::1]:2181", "/a/b", false));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (text, reason) in [
            ("a:2181/mesos", "zk://"),
            ("zk://a:2181", "no path"),
            ("zk://a:2181/", "path is empty"),
            ("zk://a/mesos", "no port"),
            ("zk://:2181/mesos", "host:port"),
            ("zk://a:x/mesos", "host:port"),
            ("zk://secret@a:2181/mesos", "colon"),
            ("zk://a:2181/x//y", "no znode"),
            ("zk://a:2181/zookeeper", "no znode"),
            ("zk://u:secret@a:2181", "no path"),
        ] {
            let error = text.parse::<Ensemble>().unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
