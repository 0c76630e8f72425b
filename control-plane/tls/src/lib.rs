//! TLS of the control plane's listeners.
//!
//! One certificate serves every listener. Its files are looked at again every half a minute, because whoever renews certificates (cert-manager,
//! certbot) puts new ones into the place of the old; a new one that cannot be read leaves the old one in use and is said in the log.
//! [`Stream`] is a client's byte stream, the same with and without TLS.

mod anybody;
mod replica;
mod stream;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

pub use anybody::{client_trusting_anybody, connect_to_anybody};
pub use stream::Stream;

/// How long a client may take for its part of the handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Where the certificate is. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Our certificate, followed by those between it and the root.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// Who may sign the certificates of probes, agents and other control planes. Without, they need none.
    pub client_ca: Option<PathBuf>,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A file cannot be read, or has nothing of what it should have.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The parts do not fit together: a key of another certificate, for example.
    #[error("{} and {}: {problem}", certificate.display(), key.display())]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong with them.
        problem: String,
    },
}

/// What is spoken behind a listener's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// HTTP/1.1 for browsers and tools: nobody is asked for a certificate.
    Http,
    /// gRPC for probes and agents, with a certificate where there is a CA for them.
    Grpc,
    /// Connections that other control planes carry here. Only with a CA.
    Replicas,
}

/// TLS of every listener. Clones share the certificate.
#[derive(Clone, Debug)]
pub struct Tls {
    files: Arc<Files>,
    current: Arc<RwLock<Loaded>>,
}

#[derive(Clone, Debug)]
struct Loaded {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    /// Both sides of what control planes carry to each other.
    replicas: Option<(Arc<ServerConfig>, Arc<ClientConfig>)>,
    stamps: Vec<Option<SystemTime>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn load(files: Files) -> Result<Tls, Unusable> {
        let loaded = Loaded::read(&files)?;
        Ok(Tls { files: Arc::new(files), current: Arc::new(RwLock::new(loaded)) })
    }

    /// Looks for new files until `stopping` is cancelled.
    pub async fn follow(self, stopping: CancellationToken) {
        while stopping.run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL)).await.is_some() {
            let tls = self.clone();
            // A file system that hangs must hold up nobody else.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    /// Reads the files again if they have changed. Whether new ones are in use now.
    pub fn look(&self) -> bool {
        let before = self.now().stamps;
        if stamps(&self.files) == before {
            return false;
        }
        match Loaded::read(&self.files) {
            Ok(loaded) => {
                tracing::info!(certificate = %self.files.certificate.display(), "a new certificate is in use");
                self.replace(loaded);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the new certificate cannot be used; the one before stays in use");
                false
            }
        }
    }

    /// Whether control planes are to prove who they are to each other.
    pub fn guards_replicas(&self) -> bool {
        self.now().replicas.is_some()
    }

    /// The server's part of a handshake.
    ///
    /// # Errors
    /// When the client does not speak TLS, has no certificate that is asked for, or takes longer than [`HANDSHAKE_TIMEOUT`].
    pub async fn accept(&self, door: Door, stream: TcpStream) -> io::Result<Stream> {
        let now = self.now();
        let config = match door {
            Door::Http => now.http,
            Door::Grpc => now.grpc,
            Door::Replicas => now.replicas.ok_or_else(|| io::Error::other("no CA for other control planes is known"))?.0,
        };
        let accepted = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await;
        accepted.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake takes too long"))?.map(Stream::server)
    }

    /// The client's part, towards another control plane that is reached as `host`. Without a CA the stream stays as it is. Its certificate has to be
    /// for that name or, where replicas share one, for a name that is in ours.
    ///
    /// # Errors
    /// When the other side is not who it should be.
    pub async fn connect_replica(&self, host: &str, stream: TcpStream) -> io::Result<Stream> {
        let Some((_, config)) = self.now().replicas else { return Ok(Stream::from(stream)) };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connected = timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(config).connect(name, stream)).await;
        connected.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake takes too long"))?.map(Stream::client)
    }

    fn now(&self) -> Loaded {
        // What is behind the lock is only ever replaced as a whole.
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn replace(&self, loaded: Loaded) {
        *self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = loaded;
    }
}

/// A client's configuration that trusts those that `ca` has signed.
///
/// # Errors
/// When the file cannot be used.
pub fn client_trusting(ca: &Path) -> Result<Arc<ClientConfig>, Unusable> {
    let roots = roots(ca)?;
    Ok(Arc::new(client_builder().with_root_certificates(roots).with_no_client_auth()))
}

impl Loaded {
    fn read(files: &Files) -> Result<Loaded, Unusable> {
        // Before the files themselves: what changes while they are read is looked at again.
        let stamps = stamps(files);
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|error| Unusable::File { path: files.key.clone(), problem: format!("no private key: {error}") })?;
        let pair = |error: rustls::Error| Unusable::Pair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            problem: error.to_string(),
        };
        let server = |verified: bool, protocols: &[&[u8]]| -> Result<Arc<ServerConfig>, Unusable> {
            let builder = server_builder();
            let builder = match files.client_ca.as_deref().filter(|_| verified) {
                Some(path) => {
                    let roots = Arc::new(roots(path)?);
                    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                        .build()
                        .map_err(|error| Unusable::File { path: path.to_owned(), problem: error.to_string() })?;
                    builder.with_client_cert_verifier(verifier)
                }
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_single_cert(chain.clone(), key.clone_key()).map_err(pair)?;
            config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
            Ok(Arc::new(config))
        };
        let replicas = match &files.client_ca {
            Some(path) => {
                let verifier = replica::OneOfUs::new(roots(path)?, provider(), &chain)
                    .map_err(|problem| Unusable::File { path: path.to_owned(), problem })?;
                let client = client_builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
                let client = client.with_client_auth_cert(chain.clone(), key.clone_key());
                Some((server(true, &[])?, Arc::new(client.map_err(pair)?)))
            }
            None => None,
        };
        Ok(Loaded { http: server(false, &[b"http/1.1"])?, grpc: server(true, &[b"h2"])?, replicas, stamps })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn server_builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    builder.expect("the provider has what the default versions need")
}

fn client_builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    builder.expect("the provider has what the default versions need")
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let unusable = |problem: String| Unusable::File { path: path.to_owned(), problem };
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(unusable("no certificate is in it".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(error.to_string())),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| Unusable::File { path: path.to_owned(), problem: error.to_string() })?;
    }
    Ok(roots)
}

/// When each file was written. Kubernetes replaces a whole directory by a link: what counts is what the link leads to.
fn stamps(files: &Files) -> Vec<Option<SystemTime>> {
    let paths = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    paths.into_iter().flatten().map(|path| std::fs::metadata(path).and_then(|it| it.modified()).ok()).collect()
}

#[cfg(test)]
mod tests;
