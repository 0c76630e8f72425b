//! How the map's records are written: every field, in order. A field that is new in the map does not compile until it is named here.

use topology::{
    Application, BlockDevice, Capture, Cloud, Container, ContainerMetrics, ContainerState, Direction, Disk, Endpoint, Flow, FlowCounters,
    FlowKey, Host, HostMetrics, Image, KubernetesKind, KubernetesObject, Listener, Losses, Network, NetworkInterface, Origin, PortMapping,
    Pressure, ProbeHello, Process, ProcessKey, Protocol, ResolvedAddress, ResolvedName, Translation, TranslationSource, UnixFlow,
};

use crate::code::{Code, DecodeError, Reader, Writer};

macro_rules! records {
    ($($type:ident { $($field:ident),* $(,)? })*) => {
        $(
            impl Code for $type {
                const SHAPE: &'static str = concat!(stringify!($type), "{", $(stringify!($field), ",",)* "}");

                fn put(&self, out: &mut Writer) {
                    let $type { $($field),* } = self;
                    $($field.put(out);)*
                }

                fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                    Ok($type { $($field: Code::take(from)?),* })
                }
            }
        )*

        /// All shapes: a segment is read by programs with the same, and by no other.
        pub(crate) const SHAPES: &[&str] = &[$(<$type as Code>::SHAPE),*];
    };
}

macro_rules! words {
    ($($type:ident { $($word:ident = $number:literal),* $(,)? })*) => {$(
        impl Code for $type {
            const SHAPE: &'static str = stringify!($type);

            fn put(&self, out: &mut Writer) {
                out.byte(match self { $($type::$word => $number),* });
            }

            fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                match from.byte()? {
                    $($number => Ok($type::$word),)*
                    _ => Err(DecodeError::Invalid),
                }
            }
        }
    )*};
}

words! {
    ContainerState { Created = 0, Running = 1, Paused = 2, Restarting = 3, Exited = 4, Dead = 5 }
    Direction { Client = 0, Server = 1 }
    Protocol { Tcp = 0, Udp = 1 }
    Origin { Event = 0, Snapshot = 1 }
    TranslationSource { Socket = 0, Conntrack = 1, Endpoints = 2 }
    KubernetesKind {
        Node = 0, Namespace = 1, Pod = 2, Service = 3, Deployment = 4, ReplicaSet = 5, DaemonSet = 6, StatefulSet = 7, Job = 8, CronJob = 9,
        PersistentVolume = 10, PersistentVolumeClaim = 11, StorageClass = 12,
    }
}

records! {
    ProbeHello { host_name, version, session, oldest_held_sequence, capture, cluster_name, controls }
    Capture { rung, description, reason, blind_spots, hooks, overload_level, missing_capabilities }
    Losses { ring_records, flows_uncounted, sockets_unowned, table_full, reports_merged, ends_seen, ends_reported, other }
    Host {
        kernel_version, os, os_release, booted_at, local_networks, addresses, cpu_count, memory_bytes, architecture, cloud,
    }
    Cloud { provider, region, zone, instance_id, instance_type }
    Network { address, prefix_length }
    ProcessKey { pid, start_time }
    Process {
        key, parent_pid, name, command_line, user_id, thread_count, container_id, cgroup_id, cgroup_path, exited_at, exit_status, oom_killed,
        user_name,
    }
    Container {
        id, name, image_id, image_name, command, state, state_human, created_at, started_at, restart_count, hostname, labels, environment,
        networks, addresses, ports, pid, network_mode, runtime, health, exit_code, oom_killed,
    }
    PortMapping { container_port, protocol, host }
    Image { id, name, size_bytes, virtual_size_bytes, labels }
    Flow { id, key, counters, first_seen, last_active, translations, others, applications }
    FlowKey {
        process, cgroup_id, container_id, direction, protocol, client_address, server_address, server_port, network_namespace,
        original_server, origin, sample_client_port,
    }
    FlowCounters { opened, closed, failed, bytes_sent, bytes_received, retransmits, rtt_us_sum, rtt_count, rtt_us_max }
    Translation { server, client, connections, source }
    Application { protocol, requests, errors, latency_us_sum, latency_count, latency_us_max }
    Listener { id, process, cgroup_id, container_id, protocol, address, port, network_namespace }
    ResolvedAddress { address, names }
    ResolvedName { name, resolved_at, expires_at }
    UnixFlow { id, client, server, path, open }
    KubernetesObject {
        kind, uid, name, namespace, created_at, labels, parents, state, addresses, public_addresses, node_name, host_network, restart_count,
        service_type, ports, observed_generation, desired_replicas, strategy, schedule, last_scheduled_at, suspended, active_jobs, status,
        storage_class, storage_driver, capacity, access_modes, volume_names, container_ids, endpoints,
    }
    Endpoint { address, port, protocol, ready, target_uid }
    HostMetrics {
        at, cpu_percent, memory_used_bytes, load1, load5, load15, swap_used_bytes, pressure, disks, block_devices, network_interfaces,
    }
    Disk { mount_point, device, file_system, size_bytes, used_bytes }
    BlockDevice { name, read_bytes, written_bytes, busy_millis }
    NetworkInterface { name, up, received_bytes, sent_bytes, received_packets, sent_packets, errors, dropped }
    Pressure { cpu_percent, memory_percent, io_percent }
    ContainerMetrics {
        id, at, cpu_percent, memory_bytes, memory_limit_bytes, cpu_limit, cpu_throttled_percent, cpu_throttled_nanos, pressure, oom_kills,
        io_read_bytes, io_written_bytes, process_count,
    }
}

/// A number for all shapes together.
pub(crate) fn fingerprint() -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    SHAPES.iter().for_each(|shape| hasher.update(shape.as_bytes()));
    hasher.finalize()
}
