//! The probe's words into the words of the wire.

use std::net::IpAddr;

use proto::probe::v1::{self, flow_key, translation};

use crate::clock::Now;
use crate::conntrack::table::Way;
use crate::dns::names::Named;
use crate::flows::{Change, Flow};
use crate::listeners::Listener;
use crate::observation::{Direction, FlowEnd, Protocol};
use crate::processes::{Process, ProcessKey};
use crate::unix_flows::UnixFlow;
use crate::users::Users;

pub(crate) fn process_key(key: ProcessKey) -> v1::ProcessKey {
    v1::ProcessKey { pid: key.pid, start_time_boot_nanos: key.start_time.0 }
}

pub(crate) fn process(key: ProcessKey, process: &Process, now: Now, users: &Users) -> v1::Process {
    v1::Process {
        key: Some(process_key(key)),
        parent_pid: process.parent_pid,
        name: process.name.to_string(),
        command_line: process.command_line.to_string(),
        user_id: process.user_id,
        thread_count: process.thread_count,
        container_id: process.placement.container_id.as_deref().unwrap_or_default().to_owned(),
        cgroup_id: process.placement.cgroup_id,
        cgroup_path: process.placement.path.to_string(),
        exited_at_unix_nanos: process.exited.map_or(0, |exited| now.unix_at(exited.at)),
        exit_status: process.exited.map_or(0, |exited| exited.status),
        comm: process.comm.to_string(),
        oom_killed: process.oom_killed,
        user_name: users.name(process.user_id).to_owned(),
    }
}

pub(crate) fn flow(id: u64, flow: &Flow, change: Change, ways: &[Way], now: Now) -> v1::Flow {
    let total = flow.total;
    v1::Flow {
        id,
        key: (change == Change::New).then(|| flow_key(flow)),
        counters: Some(v1::FlowCounters {
            opened: total.opened,
            closed: total.closed,
            failed: total.failed,
            bytes_sent: total.bytes_sent,
            bytes_received: total.bytes_received,
            retransmits: total.retransmits,
            rtt_us_sum: total.rtt_us_sum,
            rtt_count: total.rtt_count,
            rtt_us_max: total.rtt_us_max,
            ..v1::FlowCounters::default()
        }),
        first_seen_unix_nanos: now.unix_at(flow.first_seen),
        last_active_unix_nanos: now.unix_at(flow.last_active),
        translations: translations(flow, change, ways),
        others: flow.others,
    }
}

/// All of them or none: counters alone do not change where connections go.
fn translations(flow: &Flow, change: Change, ways: &[Way]) -> Vec<v1::Translation> {
    let by_socket = connected_elsewhere(flow);
    if change == Change::Counters && by_socket.is_none() {
        return Vec::new();
    }
    by_socket.into_iter().chain(ways.iter().map(|way| translation(&flow.end, way))).collect()
}

/// The socket of a client is connected to another address than its process asked for: all its connections went there.
fn connected_elsewhere(flow: &Flow) -> Option<v1::Translation> {
    let end = &flow.end;
    let original = flow.original_server.filter(|_| end.direction == Direction::Client)?;
    (original != (end.server_address, end.server_port)).then(|| v1::Translation {
        server_address: octets(end.server_address),
        server_port: end.server_port.into(),
        connections: flow.total.opened,
        source: translation::Source::Socket.into(),
        ..v1::Translation::default()
    })
}

fn translation(end: &FlowEnd, way: &Way) -> v1::Translation {
    let unless_same = |address: IpAddr, own: IpAddr| if address == own { Vec::new() } else { octets(address) };
    let (server, port) = way.server;
    let common =
        v1::Translation { connections: way.connections, source: translation::Source::Conntrack.into(), ..v1::Translation::default() };
    match end.direction {
        Direction::Client => v1::Translation {
            server_address: octets(server),
            server_port: port.into(),
            client_address: unless_same(way.client, end.client_address),
            ..common
        },
        Direction::Server => {
            let meant_elsewhere = way.server != (end.server_address, end.server_port);
            v1::Translation {
                server_address: octets(end.server_address),
                server_port: end.server_port.into(),
                client_address: if way.client == end.client_address { Vec::new() } else { octets(end.client_address) },
                original_client_address: unless_same(way.client, end.client_address),
                original_server_address: if meant_elsewhere { octets(server) } else { Vec::new() },
                original_server_port: if meant_elsewhere { port.into() } else { 0 },
                ..common
            }
        }
    }
}

fn flow_key(flow: &Flow) -> v1::FlowKey {
    let end = &flow.end;
    let direction = match end.direction {
        Direction::Client => flow_key::Direction::Client,
        Direction::Server => flow_key::Direction::Server,
    };
    let origin = if flow.found_open { flow_key::Origin::Snapshot } else { flow_key::Origin::Event };
    v1::FlowKey {
        process: flow.process.map(process_key),
        cgroup_id: end.cgroup_id,
        container_id: flow.container_id.as_deref().unwrap_or_default().to_owned(),
        direction: direction.into(),
        protocol: protocol(end.protocol).into(),
        client_address: octets(end.client_address),
        server_address: octets(end.server_address),
        server_port: end.server_port.into(),
        network_namespace: end.network_namespace,
        original_server_address: flow.original_server.map(|(address, _)| octets(address)).unwrap_or_default(),
        original_server_port: flow.original_server.map_or(0, |(_, port)| port.into()),
        origin: origin.into(),
        sample_client_port: flow.client_port.into(),
    }
}

pub(crate) fn listener(id: u64, listener: &Listener) -> v1::Listener {
    let seen = &listener.seen;
    v1::Listener {
        id,
        process: listener.process.map(process_key),
        cgroup_id: seen.cgroup_id,
        container_id: listener.container_id.as_deref().unwrap_or_default().to_owned(),
        protocol: protocol(seen.protocol).into(),
        address: octets(seen.address),
        port: seen.port.into(),
        network_namespace: seen.network_namespace,
    }
}

pub(crate) fn unix_flow(id: u64, flow: &UnixFlow) -> v1::UnixFlow {
    v1::UnixFlow {
        id,
        client: Some(process_key(flow.key.client)),
        server: Some(process_key(flow.key.server)),
        path: flow.key.path.to_string(),
        open: flow.open,
        client_container_id: flow.client_container_id.as_deref().unwrap_or_default().to_owned(),
        server_container_id: flow.server_container_id.as_deref().unwrap_or_default().to_owned(),
    }
}

fn protocol(protocol: Protocol) -> flow_key::Protocol {
    match protocol {
        Protocol::Tcp => flow_key::Protocol::Tcp,
        Protocol::Udp => flow_key::Protocol::Udp,
    }
}

pub(crate) fn resolved_address(address: IpAddr, names: &[Named], now: Now) -> v1::ResolvedAddress {
    let names = names.iter().map(|named| v1::resolved_address::Name {
        name: named.name.to_string(),
        resolved_at_unix_nanos: now.unix_at(named.resolved_at),
        expires_at_unix_nanos: now.unix_at(named.expires_at),
    });
    v1::ResolvedAddress { address: octets(address), names: names.collect() }
}

/// 4 or 16 bytes; a mapped address is its IPv4 address.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
