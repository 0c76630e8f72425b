//! Encryption, put between the client library and the servers.
//!
//! The library's own would bring a second cryptographic library into the process and an `unsafe` call for what is an option here. So it talks to
//! loopback, and each of these connections is carried over TLS to the server that it stands for. Nobody else on the machine can use that way:
//! a connection of another user is closed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme, version,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::Error;
use crate::options::{Options, Tls};
use crate::session::spawn;

/// What a server may take until the connection is encrypted.
const PATIENCE: Duration = Duration::from_secs(5);
/// Certificates of a file.
const CERTIFICATES_MAX: usize = 1_000;

/// Ways to the servers of an ensemble. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// What the library connects to instead of the servers.
    pub(crate) connect: String,
    failed: Failed,
    _ends: DropGuard,
}

/// Why the last attempt did not succeed.
type Failed = Arc<Mutex<Option<String>>>;

impl Tunnel {
    /// Opens a way to every server.
    pub(crate) async fn open(options: &Options, tls: &Tls) -> Result<Tunnel, Error> {
        // Files that cannot be used are told at once, and not as a server that does not answer.
        client_config(tls).map_err(Error::Refused)?;
        let stop = CancellationToken::new();
        let failed: Failed = Arc::default();
        let mut ways = Vec::new();
        for server in options.servers() {
            let refused = |error: std::io::Error| Error::Refused(format!("a way to {server}: {error}"));
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(refused)?;
            ways.push(listener.local_addr().map_err(refused)?.to_string());
            let (ended, tls, failed) = (stop.clone(), tls.clone(), failed.clone());
            spawn(async move {
                tokio::select! { () = carry_all(listener, &server, &tls, &failed) => {}, () = ended.cancelled() => {} }
            });
        }
        let connect = format!("{}{}", ways.join(","), options.chroot());
        Ok(Tunnel { connect, failed, _ends: stop.drop_guard() })
    }

    /// What the library cannot know: why a connection was closed at once.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(why) => Error::Refused(why),
            None => error,
        }
    }
}

async fn carry_all(listener: TcpListener, server: &str, tls: &Tls, failed: &Failed) {
    let mut carried = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = carried.join_next() => continue,
        };
        let Ok((near, peer)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(here) = listener.local_addr() else { continue };
        let (server, tls, failed) = (server.to_owned(), tls.clone(), failed.clone());
        carried.spawn(async move {
            if let Err(why) = carry(near, peer, here, &server, &tls).await {
                tracing::warn!(server, why, "no encrypted connection");
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("TLS to {server}: {why}"));
            }
        });
    }
}

/// Carries one connection until either end closes it.
async fn carry(mut near: TcpStream, peer: SocketAddr, here: SocketAddr, server: &str, tls: &Tls) -> Result<(), String> {
    if !is_ours(peer, here) {
        return Err(format!("{peer} is another user's connection"));
    }
    let mut far = timeout(PATIENCE, encrypted(server, tls)).await.map_err(|_| "no answer".to_owned())??;
    near.set_nodelay(true).map_err(|error| error.to_string())?;
    // How it ends is told by the library, whose end it is.
    let _ = copy_bidirectional(&mut near, &mut far).await;
    Ok(())
}

async fn encrypted(server: &str, tls: &Tls) -> Result<TlsStream<TcpStream>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let read = tls.clone();
    let config = tokio::task::spawn_blocking(move || client_config(&read)).await.map_err(|error| text(&error))??;
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|error| text(&error))?;
    let stream = TcpStream::connect(server).await.map_err(|error| text(&error))?;
    stream.set_nodelay(true).map_err(|error| text(&error))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| text(&error))
}

fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca_file)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", tls.ca_file.display()))?;
    }
    let roots = Arc::new(roots);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
    let verifier = verifier.map_err(|error| format!("{}: {error}", tls.ca_file.display()))?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| error.to_string())?;
    let builder = if tls.check_name {
        builder.with_webpki_verifier(verifier)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName { verifier, provider }))
    };
    let (Some(certificate), Some(key)) = (&tls.certificate_file, &tls.key_file) else { return Ok(builder.with_no_client_auth()) };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
    builder.with_client_auth_cert(certificates(certificate)?, private).map_err(|error| format!("{}: {error}", certificate.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let problem = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let read = CertificateDer::pem_file_iter(path).map_err(|error| problem(&error))?;
    let found: Result<Vec<_>, _> = read.take(CERTIFICATES_MAX).collect();
    let found = found.map_err(|error| problem(&error))?;
    if found.is_empty() { Err(problem(&"no certificate in it")) } else { Ok(found) }
}

/// Everything about the certificate counts but the name in it.
#[derive(Debug)]
struct AnyName {
    verifier: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        revocation: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        // The name is looked at last, so that whoever gets there has passed everything else.
        match self.verifier.verify_server_cert(certificate, between, name, revocation, now) {
            Err(TlsError::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a connection on loopback was opened by the user that we run as.
#[cfg(target_os = "linux")]
fn is_ours(peer: SocketAddr, here: SocketAddr) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(us) = std::fs::metadata("/proc/self").map(|it| it.uid()) else { return false };
    let Ok(sockets) = std::fs::read_to_string("/proc/self/net/tcp") else { return false };
    owner_in(&sockets, peer, here) == Some(us)
}

#[cfg(not(target_os = "linux"))]
fn is_ours(_peer: SocketAddr, _here: SocketAddr) -> bool {
    // Nothing tells whose it is.
    false
}

/// The user of the socket `from` that is connected to `to`, in the words of `/proc/net/tcp`.
#[cfg(target_os = "linux")]
fn owner_in(sockets: &str, from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let as_there = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port()),
        SocketAddr::V6(_) => String::new(),
    };
    let (from, to) = (as_there(from), as_there(to));
    sockets.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (local, remote) = (fields.nth(1)?, fields.next()?);
        if local == from && remote == to { fields.nth(4)?.parse().ok() } else { None }
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn whose_a_connection_is_stands_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:0FC8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n   \
                     1: 0100007F:D431 0100007F:0FC8 01 00000000:00000000 00:00000000 00000000  1000        0 7 1 0 20 4 30 10 -1\n";
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(owner_in(table, at(0xD431), at(0x0FC8)), Some(1_000));
        assert_eq!(owner_in(table, at(0xD432), at(0x0FC8)), None);
    }
}
