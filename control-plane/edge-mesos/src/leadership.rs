//! Who leads. Told from outside: at once on a single node, by an election where there are several masters.

use mesos_proto::v1;

/// Who leads, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Leadership {
    /// This master. Once it has led, it never does anything else: a master that loses the lead ends.
    Leading,
    /// Another one: clients are sent there.
    Led(Leader),
    /// Nobody, for now.
    #[default]
    Nobody,
}

/// The master that leads.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Leader {
    /// Its UUID.
    pub id: String,
    /// What clients are sent to: `MasterInfo.hostname`, else the address.
    pub hostname: String,
    /// Its address.
    pub ip: String,
    /// Its port.
    pub port: u16,
    /// Where agents find it, as `<host>:<port>`; none: that is not known.
    pub grpc: Option<String>,
}

impl Leader {
    /// `master@<ip>:<port>`
    pub fn pid(&self) -> String {
        format!("master@{}:{}", self.ip, self.port)
    }
}

impl From<&v1::MasterInfo> for Leader {
    fn from(info: &v1::MasterInfo) -> Self {
        let address = info.address.as_ref();
        let ip = address.and_then(|it| it.ip.clone()).unwrap_or_else(|| std::net::Ipv4Addr::from(info.ip.swap_bytes()).to_string());
        let hostname = info.hostname.clone().or_else(|| address.and_then(|it| it.hostname.clone())).unwrap_or_else(|| ip.clone());
        Leader { id: info.id.clone(), hostname, ip, port: u16::try_from(info.port).unwrap_or(0), grpc: None }
    }
}

/// What clients may be told and given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// As in [`Leadership`].
    Led(Leader),
    /// As in [`Leadership`].
    Nobody,
    /// This master leads and reads what its predecessors stored.
    Recovering,
    /// This master leads and serves.
    Serving,
}
