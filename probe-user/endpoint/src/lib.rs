//! Where the control plane is, and how the two prove to each other who they are.
//!
//! Files are read at each connection, not once: whoever renews certificates puts new ones into the place of the old.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri};

/// The control plane's addresses, and the means to trust it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlane {
    /// At least one; whoever is connected to one and loses it goes on with the next.
    uris: Vec<Uri>,
    tls: Tls,
}

/// What is needed for `https`. All files are PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Who has signed the control plane's certificate; none: whom this machine trusts.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, where the control plane asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the control plane's certificate; none: the one in its address.
    pub server_name: Option<String>,
}

/// Why there is no way to the control plane.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// What is in the files cannot be used, or the name is none.
    #[error("TLS cannot be used as it was set: {0}")]
    Tls(#[source] tonic::transport::Error),
}

impl ControlPlane {
    /// Reads an address, or several with commas between them.
    ///
    /// # Errors
    /// When it is none: what it should have been.
    pub fn parse(text: &str, tls: Tls) -> Result<ControlPlane, String> {
        let read = |text: &str| {
            let uri: Uri = text.trim().parse().ok()?;
            let is_address = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|it| !it.is_empty());
            is_address.then_some(uri)
        };
        let uris: Option<Vec<Uri>> = text.split(',').map(read).collect();
        match uris {
            Some(uris) => Ok(ControlPlane { uris, tls }),
            None => Err("not an address such as http://control.example.com:4041 or https://control.example.com:4041".to_owned()),
        }
    }

    /// The first address.
    pub fn uri(&self) -> &Uri {
        &self.uris[0]
    }

    /// All addresses, with commas between them.
    pub fn addresses(&self) -> String {
        self.uris.iter().map(Uri::to_string).collect::<Vec<_>>().join(",")
    }

    /// The same with the address after the first one first: where to go on when that does not answer.
    #[must_use]
    pub fn next(mut self) -> Self {
        self.uris.rotate_left(1);
        self
    }

    /// What it is trusted by.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// The way there, with the files as they are now.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn endpoint(&self) -> Result<Endpoint, Unusable> {
        let endpoint = Endpoint::from(self.uri().clone())
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        match self.uri().scheme_str() {
            Some("https") => endpoint.tls_config(self.tls.read()?).map_err(Unusable::Tls),
            _ => Ok(endpoint),
        }
    }
}

impl Tls {
    fn read(&self) -> Result<ClientTlsConfig, Unusable> {
        let mut config = match &self.ca {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        if let Some(name) = &self.server_name {
            config = config.domain_name(name.clone());
        }
        Ok(config)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    std::fs::read(path).map_err(|error| Unusable::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_and_a_host() {
        for good in ["http://127.0.0.1:4041", "https://control:4041/", "http://[::1]:4041"] {
            assert_eq!(
                ControlPlane::parse(good, Tls::default()).unwrap().uri().to_string().trim_end_matches('/'),
                good.trim_end_matches('/')
            );
        }
        let several = ControlPlane::parse("http://a:1, https://b:2", Tls::default()).unwrap();
        assert_eq!((several.addresses().as_str(), several.uri().host()), ("http://a:1/,https://b:2/", Some("a")));
        assert_eq!(several.clone().next().uri().host(), Some("b"));
        assert_eq!(several.clone().next().next(), several);
        for bad in [
            "",
            ",",
            "http://a:1,",
            "http://a:1,b",
            "example.com",
            "example.com:4041",
            "ftp://x:1",
            "http://",
            "http://:4041",
            "/x",
            "http://a b",
        ] {
            assert!(ControlPlane::parse(bad, Tls::default()).unwrap_err().starts_with("not an address such as http://"), "{bad}");
        }
    }

    #[tokio::test]
    async fn files_are_read_only_where_they_are_needed_and_named_when_they_are_missing() {
        let missing = Tls { ca: Some("/nowhere/ca.crt".into()), ..Tls::default() };
        assert!(ControlPlane::parse("http://x:1", missing.clone()).unwrap().endpoint().is_ok());
        let error = ControlPlane::parse("https://x:1", missing).unwrap().endpoint().unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/ca.crt: "), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_certificate_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x");
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").unwrap();
        let tls = Tls { identity: Some((file.clone(), file)), ..Tls::default() };
        let error = ControlPlane::parse("https://x:1", tls).unwrap().endpoint().unwrap_err();
        assert!(matches!(error, Unusable::Tls(_)), "{error}");
    }
}
