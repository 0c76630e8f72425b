use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

/// How to reach an ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `host:port,host:port/chroot`, as every ZooKeeper client takes it.
    pub connect: String,
    /// Identities, shown on every connection.
    pub auth: Vec<Auth>,
    /// An identity that is proved to the server without telling the password (SASL, mechanism DIGEST-MD5).
    pub sasl: Option<Sasl>,
    /// Connections are encrypted; `connect` then names the servers' secure ports.
    pub tls: Option<Tls>,
    /// Asked for; the server may grant another (it limits it to 2 to 20 ticks unless told otherwise).
    pub session_timeout: Duration,
}

/// An identity.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// `digest`, …
    pub scheme: String,
    /// `user:password` for `digest`.
    pub secret: String,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auth({}, ***)", self.scheme)
    }
}

/// Who we are, for servers with a JAAS configuration (`org.apache.zookeeper.server.auth.DigestLoginModule`).
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    /// The name; access control lists call it `sasl:name`.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sasl({}, ***)", self.user)
    }
}

/// How connections are encrypted. Files are PEM, and are read for every connection, so that they may be renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of those who sign the servers' certificates.
    pub ca_file: PathBuf,
    /// Our certificate and those between it and its root, for servers that ask for one.
    pub certificate_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
    /// Whether the name that was connected to must stand in the server's certificate. Who signed it counts either way.
    pub check_name: bool,
}

impl Options {
    /// Mesos and Marathon use the same.
    pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

    /// Without identities, not encrypted.
    pub fn new(connect: impl Into<String>) -> Self {
        Options { connect: connect.into(), auth: Vec::new(), sasl: None, tls: None, session_timeout: Self::SESSION_TIMEOUT }
    }

    /// Shows `user:password` by the scheme `digest`.
    #[must_use]
    pub fn with_digest(mut self, user_and_password: impl Into<String>) -> Self {
        self.auth.push(Auth { scheme: "digest".to_owned(), secret: user_and_password.into() });
        self
    }

    /// Proves to be `user` by SASL.
    #[must_use]
    pub fn with_sasl(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.sasl = Some(Sasl { user: user.into(), password: password.into() });
        self
    }

    /// Encrypts connections.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Asks for another session timeout.
    #[must_use]
    pub fn with_session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// Whether a server will know who we are.
    pub fn has_identity(&self) -> bool {
        !self.auth.is_empty() || self.sasl.is_some()
    }

    /// The servers, `host:port` each, without the chroot.
    pub fn servers(&self) -> Vec<String> {
        let servers = self.connect.split_once('/').map_or(self.connect.as_str(), |(servers, _)| servers);
        let with_port = |server: &str| {
            let has_port = server.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            if has_port { server.to_owned() } else { format!("{server}:2181") }
        };
        servers.split(',').map(str::trim).filter(|server| !server.is_empty()).map(with_port).collect()
    }

    /// The path that all paths are below; empty for none.
    pub fn chroot(&self) -> &str {
        self.connect.find('/').map_or("", |at| self.connect[at..].trim_end_matches('/'))
    }

    /// Addresses of the servers as this machine resolves them; servers without one are left out. Blocks on the resolver.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers().iter().filter_map(|server| server.to_socket_addrs().ok()).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_chroot_are_told_apart() {
        let options = Options::new("a:2182, b,[::1]:99/some/where");
        assert_eq!(options.servers(), ["a:2182", "b:2181", "[::1]:99"]);
        assert_eq!(options.chroot(), "/some/where");
        assert_eq!(Options::new("a").chroot(), "");
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", Options::new("a").with_digest("me:secret").with_sasl("me", "secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
