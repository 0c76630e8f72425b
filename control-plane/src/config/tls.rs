//! Which listeners speak TLS, and with what.

use std::path::PathBuf;

use edge_tls::Files;

/// TLS of the listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate, key and CA.
    pub files: Files,
    /// The listeners that speak it; the others stay as they are.
    pub listeners: Vec<Listener>,
}

impl TlsConfig {
    /// Whether a listener speaks TLS.
    pub fn covers(&self, listener: Listener) -> bool {
        self.listeners.contains(&listener)
    }
}

/// A listener that may speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// UI, API and metrics.
    Http,
    /// Probes and agents.
    Grpc,
    /// The Mesos master's API.
    Mesos,
    /// Marathon's API.
    Marathon,
}

pub(super) fn parse_file(text: &str) -> Result<Option<PathBuf>, String> {
    Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from))
}

pub(super) fn parse_listeners(text: &str) -> Result<Vec<Listener>, String> {
    let one = |name: &str| match name.trim() {
        "http" => Ok(Listener::Http),
        "grpc" => Ok(Listener::Grpc),
        "mesos" => Ok(Listener::Mesos),
        "marathon" => Ok(Listener::Marathon),
        other => Err(format!("there is no listener {other:?}; there are http, grpc, mesos and marathon")),
    };
    text.split(',').map(one).collect()
}

/// Puts the parts together. What is given without what it needs is a mistake of the key that is named.
pub(super) fn compose(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    listeners: Vec<Listener>,
) -> Result<Option<TlsConfig>, (&'static str, String)> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsConfig { files: Files { certificate, key, client_ca }, listeners })),
        (Some(_), None) => Err((super::TLS_KEY, format!("missing: {} needs it", super::TLS_CERTIFICATE))),
        (None, Some(_)) => Err((super::TLS_CERTIFICATE, format!("missing: {} needs it", super::TLS_KEY))),
        (None, None) if client_ca.is_some() => {
            Err((super::TLS_CERTIFICATE, format!("missing: {} is of no use without it", super::TLS_CLIENT_CA)))
        }
        (None, None) => Ok(None),
    }
}
