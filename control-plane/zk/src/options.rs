use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

/// How to reach an ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `host:port,host:port/chroot`, as every ZooKeeper client takes it.
    pub connect: String,
    /// Identities, shown on every connection.
    pub auth: Vec<Auth>,
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

impl Options {
    /// Mesos and Marathon use the same.
    pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

    /// Without identities.
    pub fn new(connect: impl Into<String>) -> Self {
        Options { connect: connect.into(), auth: Vec::new(), session_timeout: Self::SESSION_TIMEOUT }
    }

    /// Shows `user:password` by the scheme `digest`.
    #[must_use]
    pub fn with_digest(mut self, user_and_password: impl Into<String>) -> Self {
        self.auth.push(Auth { scheme: "digest".to_owned(), secret: user_and_password.into() });
        self
    }

    /// Asks for another session timeout.
    #[must_use]
    pub fn with_session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
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
        let shown = format!("{:?}", Options::new("a").with_digest("me:secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
