//! How the map's records are written: every field, in order. A field that is new in the map does not compile until it is named here.

use topology::{
    Application, BlockDevice, Capture, Cloud, Container, ContainerMetrics, ContainerState, Direction, Disk, Endpoint, Flow, FlowCounters,
    FlowKey, Host, HostMetrics, Image, KubernetesKind, KubernetesObject, Listener, Losses, Network, NetworkInterface, Origin, PortMapping,
    Pressure, ProbeHello, Process, ProcessKey, Protocol, ResolvedAddress, ResolvedName, Translation, TranslationSource, UnixFlow,
};

use crate::code::{COLUMNS, Code, DecodeError, Reader, Writer};

/// Numbers of the columns of a record's fields, one after the other.
struct Fields(usize);

impl Fields {
    /// Columns before those of the records.
    const BEFORE: usize = 64;
    /// No record has more.
    const MOST: usize = 48;

    fn of(record: Record) -> Self {
        Fields(Self::BEFORE + record as usize * Self::MOST)
    }

    fn next(&mut self) -> usize {
        self.0 += 1;
        self.0 - 1
    }
}

macro_rules! records {
    ($($type:ident { $($field:ident),* $(,)? })*) => {
        /// The records in their order, for the numbers of their columns.
        #[derive(Clone, Copy)]
        enum Record {
            $($type),*
        }

        $(
            impl Code for $type {
                const SHAPE: &'static str = concat!(stringify!($type), "{", $(stringify!($field), ",",)* "}");

                fn put(&self, out: &mut Writer) {
                    let $type { $($field),* } = self;
                    let mut fields = Fields::of(Record::$type);
                    $(
                        out.column(fields.next());
                        $field.put(out);
                    )*
                }

                fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                    let mut fields = Fields::of(Record::$type);
                    Ok($type {
                        $($field: {
                            from.column(fields.next());
                            Code::take(from)?
                        }),*
                    })
                }
            }
        )*

        /// All shapes: a segment is read by programs with the same, and by no other.
        pub(crate) const SHAPES: &[&str] = &[$(<$type as Code>::SHAPE),*];

        const _: () = assert!(Fields::BEFORE + SHAPES.len() * Fields::MOST <= COLUMNS);
        $(const _: () = assert!([$(stringify!($field)),*].len() <= Fields::MOST);)*
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

/// The kernel tells starts of processes in hundredths of a second.
const START_TICK: u64 = 10_000_000;
/// Columns of a process's pid and start.
const KEY: [usize; 2] = [60, 61];

impl Code for ProcessKey {
    const SHAPE: &'static str = "ProcessKey{pid,start_tick}";

    fn put(&self, out: &mut Writer) {
        let ProcessKey { pid, start_time } = *self;
        out.column(KEY[0]);
        pid.put(out);
        out.column(KEY[1]);
        if start_time.is_multiple_of(START_TICK) {
            out.number(start_time / START_TICK + 1);
        } else {
            out.number(0);
            out.number(start_time);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.column(KEY[0]);
        let pid = Code::take(from)?;
        from.column(KEY[1]);
        let start_time = match from.number()? {
            0 => from.number()?,
            tick => (tick - 1).checked_mul(START_TICK).ok_or(DecodeError::Invalid)?,
        };
        Ok(ProcessKey { pid, start_time })
    }
}

/// A number for all shapes together.
pub(crate) fn fingerprint() -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    SHAPES.iter().for_each(|shape| hasher.update(shape.as_bytes()));
    hasher.finalize()
}
