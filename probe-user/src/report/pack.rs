//! Records into reports of bounded size.

use prost::Message;
use proto::probe::v1::{self, report::Kind};

/// Room kept for a report's own fields: number, time, kind.
pub const REPORT_OVERHEAD: usize = 64;

/// A record's tag and length take at most this.
const RECORD_OVERHEAD: usize = 7;

/// Fills reports one after the other. A record that alone is larger than a report gets one of its own: the receiver says what it thinks of it.
#[derive(Debug)]
pub(crate) struct Packer {
    kind: Kind,
    observed_at_unix_nanos: u64,
    max_bytes: usize,
    current: v1::Report,
    bytes: usize,
    full: Vec<v1::Report>,
}

macro_rules! records {
    ($($(#[$doc:meta])* $name:ident: $record:ty => $field:ident;)*) => {
        $($(#[$doc])* pub(crate) fn $name(&mut self, record: $record) {
            self.make_room(record.encoded_len());
            self.current.$field.push(record);
        })*
    };
}

impl Packer {
    pub(crate) fn new(kind: Kind, observed_at_unix_nanos: u64, max_bytes: usize) -> Self {
        let current = v1::Report { kind: kind.into(), observed_at_unix_nanos, ..v1::Report::default() };
        Packer { kind, observed_at_unix_nanos, max_bytes, current, bytes: REPORT_OVERHEAD, full: Vec::new() }
    }

    records! {
        /// Adds a process.
        process: v1::Process => processes;
        /// Adds that a process left.
        process_gone: v1::ProcessKey => processes_gone;
        /// Adds a container.
        container: v1::Container => containers;
        /// Adds that a container left.
        container_gone: String => containers_gone;
        /// Adds an image.
        image: v1::Image => images;
        /// Adds that an image left.
        image_gone: String => images_gone;
        /// Adds a flow.
        flow: v1::Flow => flows;
        /// Adds a listener.
        listener: v1::Listener => listeners;
        /// Adds connections over Unix sockets.
        unix_flow: v1::UnixFlow => unix_flows;
        /// Adds names of an address.
        resolved_address: v1::ResolvedAddress => resolved_addresses;
        /// Adds that nothing is known of the names of an address any more.
        resolved_address_gone: Vec<u8> => resolved_addresses_gone;
        /// Adds a sample of the host.
        host_metrics: v1::HostMetrics => host_metrics;
        /// Adds a sample of a process.
        process_metrics: v1::ProcessMetrics => process_metrics;
        /// Adds a sample of a container.
        container_metrics: v1::ContainerMetrics => container_metrics;
        /// Adds an object of a cluster.
        kubernetes: v1::KubernetesObject => kubernetes;
        /// Adds that an object of a cluster left.
        kubernetes_gone: String => kubernetes_gone;
    }

    /// Adds that a flow left.
    pub(crate) fn flow_gone(&mut self, id: u64) {
        self.make_room(10);
        self.current.flows_gone.push(id);
    }

    /// Adds that a listener left.
    pub(crate) fn listener_gone(&mut self, id: u64) {
        self.make_room(10);
        self.current.listeners_gone.push(id);
    }

    /// Adds that connections over Unix sockets are gone.
    pub(crate) fn unix_flow_gone(&mut self, id: u64) {
        self.make_room(10);
        self.current.unix_flows_gone.push(id);
    }

    // The three below are a report's first records and small: they never begin a new one.

    pub(crate) fn host(&mut self, host: Option<v1::Host>) {
        self.bytes += host.as_ref().map_or(0, Message::encoded_len) + RECORD_OVERHEAD;
        self.current.host = host;
    }

    pub(crate) fn capture(&mut self, capture: v1::Capture) {
        self.bytes += capture.encoded_len() + RECORD_OVERHEAD;
        self.current.capture = Some(capture);
    }

    pub(crate) fn losses(&mut self, losses: v1::Losses) {
        self.bytes += losses.encoded_len() + RECORD_OVERHEAD;
        self.current.losses = Some(losses);
    }

    /// Whether a report was filled to its limit.
    pub(crate) fn is_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// All reports; none when no record was added.
    pub(crate) fn finish(mut self) -> Vec<v1::Report> {
        if self.bytes > REPORT_OVERHEAD {
            self.full.push(self.current);
        }
        self.full
    }

    fn make_room(&mut self, encoded_len: usize) {
        let needed = encoded_len + RECORD_OVERHEAD;
        if self.bytes + needed > self.max_bytes && self.bytes > REPORT_OVERHEAD {
            let next = v1::Report { kind: self.kind.into(), observed_at_unix_nanos: self.observed_at_unix_nanos, ..v1::Report::default() };
            self.full.push(std::mem::replace(&mut self.current, next));
            self.bytes = REPORT_OVERHEAD;
        }
        self.bytes += needed;
    }
}
