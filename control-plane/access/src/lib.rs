//! How the command lines reach servers: whom they trust, and who they say they are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::typestate::AgentScope;

/// Flags that every command of a command line has.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct AccessFlags {
    /// Who is asking, where a server wants to know (HTTP Basic)
    #[arg(long, global = true, value_name = "NAME", env = "ORCHESTRATOR_PRINCIPAL", requires = "secret_file")]
    pub principal: Option<String>,
    /// File with the principal's secret
    #[arg(long, global = true, value_name = "FILE", env = "ORCHESTRATOR_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
    /// Who signs the certificates of servers (PEM) [default: whom this machine trusts]
    #[arg(long, global = true, value_name = "FILE", env = "ORCHESTRATOR_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate to show to servers that ask for one (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "ORCHESTRATOR_TLS_CERTIFICATE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of the certificate
    #[arg(long, global = true, value_name = "FILE", env = "ORCHESTRATOR_TLS_KEY", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
}

/// Why a server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// A file has something else than it should.
    #[error("{path} has no {what}")]
    Empty {
        /// Which.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
    },
}

impl AccessFlags {
    /// Reads the files. What every request shares may be set, too.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn open(&self, configure: impl FnOnce(ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope>) -> Result<Access, Unusable> {
        let authorization = match (&self.principal, &self.secret_file) {
            (Some(principal), Some(file)) => {
                let secret = text(file)?;
                Some(basic(&format!("{principal}:{}", secret.trim_end_matches(['\r', '\n']))))
            }
            _ => None,
        };
        let roots = match &self.tls_ca {
            Some(file) => certificates(file)?,
            None => of_this_machine(),
        };
        let mut tls = TlsConfig::builder();
        // Without any, those that the library brings along.
        if !roots.is_empty() {
            tls = tls.root_certs(RootCerts::Specific(Arc::new(roots)));
        }
        if let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) {
            let private = PrivateKey::from_pem(text(key)?.as_bytes()).map_err(|_| empty(key, "private key"))?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates(certificate)?, private)));
        }
        let config = ureq::Agent::config_builder().http_status_as_error(false).tls_config(tls.build());
        let is_encrypted = self.tls_ca.is_some() || self.tls_certificate.is_some();
        Ok(Access { agent: configure(config).build().new_agent(), authorization, is_encrypted })
    }
}

/// The value of the header `Authorization` for `user:password` (RFC 7617).
fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

fn text(file: &Path) -> Result<String, Unusable> {
    std::fs::read_to_string(file).map_err(|error| Unusable::Unreadable { path: file.to_owned(), error })
}

fn empty(file: &Path, what: &'static str) -> Unusable {
    Unusable::Empty { path: file.to_owned(), what }
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, Unusable> {
    let pem = text(file)?;
    let certificates: Vec<_> = parse_pem(pem.as_bytes())
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() { Err(empty(file, "certificate")) } else { Ok(certificates) }
}

fn of_this_machine() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs();
    found.certs.iter().map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()).collect()
}

/// What requests are made with. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    agent: ureq::Agent,
    authorization: Option<String>,
    is_encrypted: bool,
}

/// Without the secret.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("has_authorization", &self.authorization.is_some())
            .field("is_encrypted", &self.is_encrypted)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// Makes requests. A status is never an error of its own.
    pub fn agent(&self) -> &ureq::Agent {
        &self.agent
    }

    /// The request, with who is asking.
    pub fn authorized<T>(&self, request: ureq::RequestBuilder<T>) -> ureq::RequestBuilder<T> {
        match &self.authorization {
            Some(value) => request.header("Authorization", value),
            None => request,
        }
    }

    /// The same, as another: `user:password`.
    #[must_use]
    pub fn with_login(self, pair: &str) -> Access {
        Access { authorization: Some(basic(pair)), ..self }
    }

    /// What is meant by an address that says neither `http` nor `https`: whoever names certificates wants them used.
    pub fn scheme(&self) -> &'static str {
        if self.is_encrypted { "https" } else { "http" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (nothing, wrong) = (dir.path().join("nothing"), dir.path().join("wrong"));
        std::fs::write(&wrong, "-----BEGIN NOTHING-----\n").unwrap();
        let open = |flags: AccessFlags| flags.open(|config| config).map(drop).map_err(|error| error.to_string());
        let error = open(AccessFlags { tls_ca: Some(nothing.clone()), ..AccessFlags::default() }).unwrap_err();
        assert!(error.starts_with(&format!("cannot read {}", nothing.display())), "{error}");
        let error = open(AccessFlags { tls_ca: Some(wrong.clone()), ..AccessFlags::default() }).unwrap_err();
        assert_eq!(error, format!("{} has no certificate", wrong.display()));
        let flags = AccessFlags { principal: Some("ada".to_owned()), secret_file: Some(nothing.clone()), ..AccessFlags::default() };
        assert!(open(flags).unwrap_err().starts_with("cannot read"));
        let good = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = dir.path().join("certificate");
        std::fs::write(&certificate, good.cert.pem()).unwrap();
        let both = |key: &Path| AccessFlags {
            tls_certificate: Some(certificate.clone()),
            tls_key: Some(key.to_owned()),
            ..AccessFlags::default()
        };
        assert_eq!(open(both(&wrong)).unwrap_err(), format!("{} has no private key", wrong.display()));
        let key = dir.path().join("key");
        std::fs::write(&key, good.signing_key.serialize_pem()).unwrap();
        assert_eq!(open(both(&key)), Ok(()));
    }

    #[test]
    fn secrets_are_sent_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "lovelace\r\n").unwrap();
        let flags = AccessFlags { principal: Some("ada".to_owned()), secret_file: Some(file), ..AccessFlags::default() };
        let access = flags.open(|config| config).unwrap();
        assert_eq!(access.authorization.as_deref(), Some("Basic YWRhOmxvdmVsYWNl"));
        assert!(!format!("{access:?}").contains("YWRh"));
        assert_eq!(access.scheme(), "http");
    }
}
