//! Whom a follower takes for the leader.
//!
//! Where each control plane has a certificate of its own, the name by which it is reached is in it. Where many are started from one description, as in
//! a Deployment, all have the same certificate and are reached by addresses that nobody knew before: no certificate can have those. Then the names in
//! our own certificate say who one of us is. A probe's certificate, though signed by the same CA, has neither.

use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Accepts a certificate for the name that was called, or for one of the names in ours.
#[derive(Debug)]
pub(crate) struct OneOfUs {
    chain: Arc<WebPkiServerVerifier>,
    own: Vec<ServerName<'static>>,
}

impl OneOfUs {
    /// `ours` is our certificate, followed by those up to the root.
    pub(crate) fn new(roots: RootCertStore, provider: Arc<CryptoProvider>, ours: &[CertificateDer<'_>]) -> Result<Self, String> {
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|error| error.to_string())?;
        let mut own = Vec::new();
        if let Some(first) = ours.first() {
            let certificate = webpki::EndEntityCert::try_from(first).map_err(|error| error.to_string())?;
            // One with a wildcard is no name that could be asked for.
            own.extend(certificate.valid_dns_names().filter_map(|name| ServerName::try_from(name.to_owned()).ok()));
        }
        Ok(OneOfUs { chain, own })
    }
}

impl ServerCertVerifier for OneOfUs {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        called: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut outcome = self.chain.verify_server_cert(certificate, intermediates, called, ocsp, now);
        for name in &self.own {
            if !matches!(
                outcome,
                Err(Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }))
            ) {
                break;
            }
            outcome = self.chain.verify_server_cert(certificate, intermediates, name, ocsp, now);
        }
        outcome
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
