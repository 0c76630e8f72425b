//! Where the control plane is, and how the two prove to each other who they are.

use probe_endpoint::{ControlPlane, Tls};

use super::mistake::{Mistake, Origin};
use super::parse::{parse_name, parse_path};
use super::{CONTROL_PLANE, Layers, TLS_CA, TLS_CERTIFICATE, TLS_KEY, TLS_SERVER_NAME};

impl Layers {
    /// The way to the control plane.
    pub(super) fn control_plane(&mut self) -> Option<ControlPlane> {
        let (ca, server_name) = (self.parse(TLS_CA, parse_path), self.parse(TLS_SERVER_NAME, |text| parse_name(text, 253)));
        let identity = match (self.parse(TLS_CERTIFICATE, parse_path)?, self.parse(TLS_KEY, parse_path)?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (certificate, _) => {
                let (missing, given) = if certificate.is_some() { (TLS_KEY, TLS_CERTIFICATE) } else { (TLS_CERTIFICATE, TLS_KEY) };
                self.mistakes.push(Mistake {
                    key: missing.to_owned(),
                    value: None,
                    source: Origin::BuiltIn,
                    problem: format!("missing: {given} needs it"),
                });
                return None;
            }
        };
        let tls = Tls { ca: ca?, identity, server_name: server_name? };
        self.parse(CONTROL_PLANE, |text| ControlPlane::parse(text, tls))
    }
}
