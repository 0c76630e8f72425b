//! Connections: flows, where they were taken, what listens, what addresses are called.

use std::sync::Arc;

use proto::probe::v1 as wire;
use topology::{
    Application, Direction, Flow, FlowCounters, FlowKey, Listener, Origin, Protocol, ResolvedAddress, ResolvedName, Translation,
    TranslationSource, UnixFlow,
};

use super::fields::{address, each, optional_id, port, process_key};
use super::{Checked, Converter, Fault};

/// Most translations of a flow, as the protocol has it.
const TRANSLATIONS_MAX: usize = 64;
/// Most application protocols of a flow.
const APPLICATIONS_MAX: usize = 16;
/// Most names of an address, as the protocol has it.
const NAMES_MAX: usize = 8;
/// Longest word for an application protocol.
const PROTOCOL_MAX: usize = 32;
/// Longest path of a Unix socket: 108 bytes, each of which may have become a character of three.
const PATH_MAX: usize = 330;

impl Converter {
    pub(super) fn flow(&mut self, flow: wire::Flow) -> Checked<Flow> {
        let counters = flow.counters.unwrap_or_default();
        Ok(Flow {
            id: flow.id,
            key: flow.key.map(|key| flow_key(&key)).transpose().map_err(|fault| fault.inside("key"))?,
            counters: FlowCounters {
                opened: counters.opened,
                closed: counters.closed,
                failed: counters.failed,
                bytes_sent: counters.bytes_sent,
                bytes_received: counters.bytes_received,
                retransmits: counters.retransmits,
                rtt_us_sum: counters.rtt_us_sum,
                rtt_count: counters.rtt_count,
                rtt_us_max: counters.rtt_us_max,
            },
            applications: {
                if counters.applications.len() > APPLICATIONS_MAX {
                    return Err(Fault::malformed(format!("counters.applications are {}", counters.applications.len())));
                }
                each("counters.applications", counters.applications, |it| application(&it))?
            },
            translations: {
                if flow.translations.len() > TRANSLATIONS_MAX {
                    return Err(Fault::malformed(format!("translations are {}", flow.translations.len())));
                }
                each("translations", flow.translations, |it| translation(&it))?
            },
            others: flow.others,
            first_seen: self.time(flow.first_seen_unix_nanos),
            last_active: self.time(flow.last_active_unix_nanos),
        })
    }

    pub(super) fn listener(&mut self, listener: wire::Listener) -> Checked<Listener> {
        Ok(Listener {
            id: listener.id,
            process: listener.process.map(|process| process_key("process", Some(process))).transpose()?,
            cgroup_id: listener.cgroup_id,
            container_id: optional_id("container_id", &listener.container_id)?,
            protocol: protocol(listener.protocol)?,
            address: address("address", &listener.address)?,
            port: port("port", listener.port)?,
            network_namespace: listener.network_namespace,
        })
    }

    /// `None` when none of its names is one: what a name server answers is no fault of the probe.
    pub(super) fn resolved_address(&mut self, resolved: wire::ResolvedAddress) -> Checked<Option<ResolvedAddress>> {
        let address = address("address", &resolved.address)?;
        let all = resolved.names.len();
        if all > NAMES_MAX {
            return Err(Fault::malformed(format!("names are {all}")));
        }
        let names: Vec<ResolvedName> = resolved
            .names
            .into_iter()
            .filter_map(|it| {
                Some(ResolvedName {
                    name: domain_name(&it.name)?,
                    resolved_at: self.time(it.resolved_at_unix_nanos),
                    // An answer may hold for a week: this moment may well be ahead.
                    expires_at: base::Timestamp::from_unix_nanos(it.expires_at_unix_nanos),
                })
            })
            .collect();
        self.repairs.names_left_out += (all - names.len()) as u64;
        Ok((!names.is_empty()).then_some(ResolvedAddress { address, names }))
    }

    pub(super) fn unix_flow(&mut self, flow: wire::UnixFlow) -> Checked<UnixFlow> {
        Ok(UnixFlow {
            id: flow.id,
            client: process_key("client", flow.client)?,
            server: process_key("server", flow.server)?,
            path: self.text(flow.path, PATH_MAX),
            open: flow.open,
        })
    }
}

/// A name becomes a part of node ids and labels: letters, digits, `-`, `_` and `.`, in lower case and without the final dot.
fn domain_name(text: &str) -> Option<Arc<str>> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let fits = (1..=253).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    fits.then(|| name.into())
}

fn application(application: &wire::flow_counters::Application) -> Checked<Application> {
    let word = &application.protocol;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_./+".contains(&byte);
    if !(1..=PROTOCOL_MAX).contains(&word.len()) || !word.bytes().all(fits) {
        return Err(Fault::malformed(format!("protocol is {}", super::fields::shown(word))));
    }
    Ok(Application {
        protocol: word.as_str().into(),
        requests: application.requests,
        errors: application.errors,
        latency_us_sum: application.latency_us_sum,
        latency_count: application.latency_count,
        latency_us_max: application.latency_us_max,
    })
}

fn translation(translation: &wire::Translation) -> Checked<Translation> {
    let source = match wire::translation::Source::try_from(translation.source) {
        Ok(wire::translation::Source::Socket) => TranslationSource::Socket,
        Ok(wire::translation::Source::Conntrack) => TranslationSource::Conntrack,
        Ok(wire::translation::Source::Unspecified) | Err(_) => {
            return Err(Fault::malformed(format!("source is {}", translation.source)));
        }
    };
    let client = &translation.client_address;
    Ok(Translation {
        server: (address("server_address", &translation.server_address)?, port("server_port", translation.server_port)?),
        client: if client.is_empty() { None } else { Some(address("client_address", client)?) },
        connections: translation.connections,
        source,
    })
}

fn protocol(number: i32) -> Checked<Protocol> {
    match wire::flow_key::Protocol::try_from(number) {
        Ok(wire::flow_key::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(wire::flow_key::Protocol::Udp) => Ok(Protocol::Udp),
        Ok(wire::flow_key::Protocol::Unspecified) | Err(_) => Err(Fault::malformed(format!("protocol is {number}"))),
    }
}

pub(super) fn flow_key(key: &wire::FlowKey) -> Checked<FlowKey> {
    let direction = match wire::flow_key::Direction::try_from(key.direction) {
        Ok(wire::flow_key::Direction::Client) => Direction::Client,
        Ok(wire::flow_key::Direction::Server) => Direction::Server,
        Ok(wire::flow_key::Direction::Unspecified) | Err(_) => return Err(Fault::malformed(format!("direction is {}", key.direction))),
    };
    let protocol = protocol(key.protocol)?;
    let origin = match wire::flow_key::Origin::try_from(key.origin) {
        Ok(wire::flow_key::Origin::Event) => Origin::Event,
        Ok(wire::flow_key::Origin::Snapshot) => Origin::Snapshot,
        Ok(wire::flow_key::Origin::Unspecified) | Err(_) => return Err(Fault::malformed(format!("origin is {}", key.origin))),
    };
    let original_server = if key.original_server_address.is_empty() {
        None
    } else {
        let address = address("original_server_address", &key.original_server_address)?;
        Some((address, port("original_server_port", key.original_server_port)?))
    };
    Ok(FlowKey {
        process: key.process.map(|process| process_key("process", Some(process))).transpose()?,
        cgroup_id: key.cgroup_id,
        container_id: optional_id("container_id", &key.container_id)?,
        direction,
        protocol,
        client_address: address("client_address", &key.client_address)?,
        server_address: address("server_address", &key.server_address)?,
        server_port: port("server_port", key.server_port)?,
        network_namespace: key.network_namespace,
        original_server,
        origin,
        sample_client_port: port("sample_client_port", key.sample_client_port)?,
    })
}
