//! What our own probes see, in the words of Scope's reports: for programs that read the raw report.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use topology::{
    ContainerExport, Direction, FlowEntry, HostExport, MetadataRow, MetricRow, ObjectExport, ProcessExport, ProcessKey, Protocol,
    bytes_text, tag_of,
};

use crate::model::{Control, Dns, Kind, MetadataTemplate, Metric, MetricTemplate, Node, Report, Sample, TableTemplate};
use crate::text::{Text, image_without_tag};
use crate::time::Time;

mod objects;

use objects::kind_of;

/// Something of ours.
#[derive(Debug)]
pub enum Ours<'a> {
    /// A host and its connections.
    Host(&'a HostExport, &'a [FlowEntry]),
    /// Objects of a cluster.
    Objects(&'a [ObjectExport]),
}

/// The report that one of Scope's probes would have made of it at `at`.
pub fn translate(ours: &Ours<'_>, at: Time) -> Report {
    let mut report = Report { at, window: 3_000_000_000, ..Report::default() };
    let mut out = Out { report: &mut report, at };
    match ours {
        Ours::Host(host, flows) => {
            out.host(host);
            out.flows(host, flows);
        }
        Ours::Objects(objects) => {
            let kinds: BTreeMap<&str, (Kind, &str)> =
                objects.iter().map(|it| &it.record).filter_map(|it| Some((&*it.uid, kind_of(it.kind)?))).collect();
            objects.iter().for_each(|object| out.object(object, &kinds));
        }
    }
    report
}

struct Out<'a> {
    report: &'a mut Report,
    at: Time,
}

fn rfc3339(at: base::Timestamp) -> String {
    if at == base::Timestamp::EPOCH { String::new() } else { Time::from(at).to_rfc3339() }
}

impl Out<'_> {
    /// Writes facts that are known into a node.
    fn facts(&self, node: &mut Node, facts: &[(&str, String)]) {
        for (key, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
            node.set(*key, self.at, value.as_str());
        }
    }

    /// Puts a node into its table, and its metrics with their templates.
    fn put(&mut self, kind: Kind, mut node: Node, metrics: &[MetricRow]) {
        let Some(id) = node.id.clone() else { return };
        for row in metrics {
            let samples = row.samples.iter().map(|&(at, value)| Sample { at: at.into(), value }).collect();
            node.metrics.insert((*row.id).into(), Metric { samples, min: row.min, max: row.max });
            self.report.table_mut(kind).metric_templates.entry((*row.id).into()).or_insert_with(|| MetricTemplate {
                id: (*row.id).into(),
                label: (*row.label).into(),
                format: (*row.format).into(),
                group: (*row.group).into(),
                priority: row.priority,
            });
        }
        self.report.table_mut(kind).nodes.insert(id, Arc::new(node));
    }

    /// Writes what the map shows of a node and Scope does not, and how that is shown.
    fn rows(&mut self, kind: Kind, node: &mut Node, rows: &[MetadataRow]) {
        for row in rows {
            node.set(&*row.id, self.at, row.value.clone());
            self.report.table_mut(kind).metadata_templates.entry((*row.id).into()).or_insert_with(|| MetadataTemplate {
                id: (*row.id).into(),
                label: (*row.label).into(),
                truncate: row.truncate,
                data_type: (*row.data_type).into(),
                priority: row.priority,
                from: "latest".into(),
            });
        }
    }

    /// How the facts of a table are shown, with priorities from `first` on.
    fn templates(&mut self, kind: Kind, first: u32, rows: &[(&str, &str, &str, &str)]) {
        let table = self.report.table_mut(kind);
        for (&(id, label, data_type, from), priority) in rows.iter().zip(first..) {
            let template = MetadataTemplate {
                id: id.into(),
                label: label.into(),
                truncate: if id == "docker_container_id" { 12 } else { 0 },
                data_type: data_type.into(),
                priority: f64::from(priority),
                from: from.into(),
            };
            table.metadata_templates.insert(id.into(), template);
        }
    }

    /// What can be done with a node, and by whom.
    fn controls(&mut self, kind: Kind, node: &mut Node, controls: &[topology::Control]) {
        if controls.is_empty() {
            return;
        }
        let ids: Vec<&str> = controls.iter().map(|it| &*it.id).collect();
        node.set("active_controls", self.at, ids.join(";"));
        if node.value("control_probe_id").is_none() {
            node.set("control_probe_id", self.at, &*controls[0].probe_id);
        }
        let probe = node.value("control_probe_id").cloned().unwrap_or_default();
        self.control_templates(kind, &probe, controls);
    }

    /// How controls are shown. Those that another probe does than `probe`, which has the nodes, say so.
    fn control_templates(&mut self, kind: Kind, probe: &str, controls: &[topology::Control]) {
        let table = self.report.table_mut(kind);
        for it in controls {
            let control = Control {
                id: (*it.id).into(),
                human: (*it.human).into(),
                icon: (*it.icon).into(),
                confirmation: (*it.confirmation).into(),
                rank: it.rank,
                probe_id: if *it.probe_id == *probe { "".into() } else { (*it.probe_id).into() },
            };
            table.controls.insert((*it.id).into(), control);
        }
    }

    fn property_list(&mut self, kind: Kind, id: &str, label: &str) {
        let template = TableTemplate {
            id: id.into(),
            label: label.into(),
            prefix: id.into(),
            kind: "property-list".into(),
            ..TableTemplate::default()
        };
        self.report.table_mut(kind).table_templates.insert(id.into(), template);
    }

    /// What a container shows of its image: readers take the rows from the image's node.
    fn image_table(&mut self) {
        // The leading blanks are Scope's sort keys, and part of the wire format.
        let rows = [
            ("docker_image_id", " ID"),
            ("docker_image_name", " Name"),
            ("docker_image_tag", " Tag"),
            ("docker_image_size", "Size"),
            ("docker_image_virtual_size", "Virtual size"),
        ];
        let template = TableTemplate {
            id: "image_table".into(),
            label: "Image".into(),
            kind: "property-list".into(),
            fixed_rows: rows.into_iter().map(|(key, label)| (key.into(), label.into())).collect(),
            ..TableTemplate::default()
        };
        self.report.table_mut(Kind::Container).table_templates.insert("image_table".into(), template);
    }

    fn host(&mut self, host: &HostExport) {
        let host_id: Text = format!("{};<host>", host.name).into();
        let seen = self.at;
        let uptime = base::Timestamp::from(seen).since(host.record.booted_at).as_secs();
        let mut node = Node::new(host_id.clone(), Kind::Host);
        self.facts(
            &mut node,
            &[
                ("ts", seen.to_rfc3339()),
                ("host_node_id", host_id.to_string()),
                ("host_name", host.name.to_string()),
                ("os", host.record.os.to_string()),
                ("kernel_version", host.record.kernel_version.to_string()),
                ("uptime", uptime.to_string()),
                ("host_scope_version", host.probe_version.to_string()),
                ("control_probe_id", host.probe.to_string()),
            ],
        );
        if let Some(version) = node.latest.get_mut("host_scope_version") {
            version.at = host.last_seen.into();
        }
        let networks = host.record.local_networks.iter().map(|it| format!("{}/{}", it.address, it.prefix_length).into());
        node.sets.insert("local_networks".into(), networks.collect());
        node.parents.insert("host".into(), [host_id.clone()].into());
        self.controls(Kind::Host, &mut node, &host.controls);
        self.put(Kind::Host, node, &host.metrics);
        self.templates(Kind::Host, 1, &[("kernel_version", "Kernel version", "", "latest"), ("uptime", "Uptime", "duration", "latest")]);
        self.templates(
            Kind::Host,
            11,
            &[
                ("host_name", "Hostname", "", "latest"),
                ("os", "OS", "", "latest"),
                ("local_networks", "Local networks", "", "sets"),
                ("host_scope_version", "Scope version", "", "latest"),
            ],
        );
        self.images(host, &host_id);
        self.containers(host, &host_id);
        self.processes(host, &host_id);
        for (address, names) in &host.names {
            let dns = Dns { forward: names.iter().cloned().collect(), reverse: BTreeSet::new() };
            self.report.dns.insert(address.to_string().into(), dns);
        }
    }

    fn images(&mut self, host: &HostExport, host_id: &Text) {
        let names = names_of_images(host);
        for image in &host.images {
            let mut node = Node::new(format!("{};<container_image>", image.id), Kind::ContainerImage);
            let name = names.get(&*image.id).copied().unwrap_or(&image.name);
            self.facts(
                &mut node,
                &[
                    ("docker_image_id", image.id.to_string()),
                    ("docker_image_name", image_without_tag(name).to_owned()),
                    ("docker_image_tag", tag_of(name).to_owned()),
                    ("docker_image_size", bytes_text(image.size_bytes)),
                    ("docker_image_virtual_size", bytes_text(image.virtual_size_bytes)),
                    ("host_node_id", host_id.to_string()),
                ],
            );
            for (key, value) in &image.labels {
                node.set(format!("docker_image_label_{key}"), self.at, value.clone());
            }
            node.parents.insert("host".into(), [host_id.clone()].into());
            self.put(Kind::ContainerImage, node, &[]);
        }
        if !host.images.is_empty() {
            self.templates(Kind::ContainerImage, 2, &[("container", "# Containers", "number", "counters")]);
            self.property_list(Kind::ContainerImage, "docker_image_label_", "Docker labels");
        }
    }

    fn containers(&mut self, host: &HostExport, host_id: &Text) {
        for ContainerExport { record: container, metrics, rows, controls } in &host.containers {
            let mut node = Node::new(format!("{};<container>", container.id), Kind::Container);
            let started_at = container.started_at.filter(|_| container.state.runs());
            let uptime = started_at.map(|at| base::Timestamp::from(self.at).since(at).as_secs().to_string());
            let in_host_network = container.is_in_host_network();
            self.facts(
                &mut node,
                &[
                    ("docker_container_id", container.id.to_string()),
                    ("docker_container_name", container.name.to_string()),
                    ("docker_container_state", container.state.as_str().to_owned()),
                    ("docker_container_state_human", container.state_human.to_string()),
                    ("docker_container_uptime", uptime.unwrap_or_default()),
                    ("docker_container_restart_count", container.restart_count.to_string()),
                    ("docker_container_command", container.command.to_string()),
                    ("docker_container_created", rfc3339(container.created_at)),
                    ("docker_container_hostname", container.hostname.to_string()),
                    ("docker_container_network_mode", container.network_mode.to_string()),
                    ("docker_is_in_host_network", if in_host_network { "true".to_owned() } else { String::new() }),
                    ("docker_image_id", container.image_id.to_string()),
                    ("docker_image_name", image_without_tag(&container.image_name).to_owned()),
                    ("docker_image_tag", tag_of(&container.image_name).to_owned()),
                    ("host_node_id", host_id.to_string()),
                    ("control_probe_id", host.probe.to_string()),
                ],
            );
            for (prefix, texts) in [("docker_label_", &container.labels), ("docker_env_", &container.environment)] {
                for (key, value) in texts {
                    node.set(format!("{prefix}{key}"), self.at, value.clone());
                }
            }
            let all = container.addresses_on(Some(&host.record));
            let addresses = || all.iter().filter(|address| address.is_ipv4());
            // Every host has its own loopback.
            let scope_of = |address: &IpAddr| if address.is_loopback() { &*host.name } else { "" };
            let sets: [(&str, BTreeSet<Text>); 4] = [
                ("docker_container_networks", container.networks.iter().cloned().collect()),
                ("docker_container_ips", addresses().map(|it| it.to_string().into()).collect()),
                ("docker_container_ips_with_scopes", addresses().map(|it| format!("{};{it}", scope_of(it)).into()).collect()),
                ("docker_container_ports", container.port_texts(&host.record).into_iter().map(Text::from).collect()),
            ];
            for (key, set) in sets.into_iter().filter(|(_, set)| !set.is_empty()) {
                node.sets.insert(key.into(), set);
            }
            node.parents.insert("host".into(), [host_id.clone()].into());
            node.parents.insert("container_image".into(), [format!("{};<container_image>", container.image_id).into()].into());
            if let Some(uid) = container.labels.get("io.kubernetes.pod.uid") {
                node.parents.insert("pod".into(), [format!("{uid};<pod>").into()].into());
            }
            self.rows(Kind::Container, &mut node, rows);
            self.controls(Kind::Container, &mut node, controls);
            self.put(Kind::Container, node, metrics);
        }
        if !host.containers.is_empty() {
            self.control_templates(Kind::Container, &host.probe, &host.container_controls);
            self.templates(
                Kind::Container,
                1,
                &[
                    ("docker_image_tag", "Image tag", "", "latest"),
                    ("docker_image_name", "Image name", "", "latest"),
                    ("docker_container_command", "Command", "", "latest"),
                    ("docker_container_state_human", "State", "", "latest"),
                    ("docker_container_uptime", "Uptime", "duration", "latest"),
                    ("docker_container_restart_count", "Restart #", "", "latest"),
                    ("docker_container_networks", "Networks", "", "sets"),
                    ("docker_container_ips", "IPs", "", "sets"),
                    ("docker_container_ports", "Ports", "", "sets"),
                    ("docker_container_created", "Created", "datetime", "latest"),
                    ("docker_container_id", "ID", "", "latest"),
                ],
            );
            self.image_table();
            self.property_list(Kind::Container, "docker_label_", "Docker labels");
            self.property_list(Kind::Container, "docker_env_", "Environment variables");
        }
    }

    fn processes(&mut self, host: &HostExport, host_id: &Text) {
        let containers: BTreeMap<&str, &topology::Container> = host.containers.iter().map(|it| (&*it.record.id, &it.record)).collect();
        for ProcessExport { record: process, metrics, rows } in living(host) {
            let mut node = Node::new(format!("{};{}", host.name, process.key.pid), Kind::Process);
            let container = process.container_id.as_deref().and_then(|id| containers.get(id));
            self.facts(
                &mut node,
                &[
                    ("pid", process.key.pid.to_string()),
                    ("ppid", process.parent_pid.to_string()),
                    ("name", process.name.to_string()),
                    ("cmdline", process.command_line.to_string()),
                    ("threads", process.thread_count.to_string()),
                    ("host_node_id", host_id.to_string()),
                    ("docker_container_id", process.container_id.as_deref().unwrap_or_default().to_owned()),
                    ("docker_container_name", container.map(|it| it.name.to_string()).unwrap_or_default()),
                ],
            );
            node.parents.insert("host".into(), [host_id.clone()].into());
            if let Some(container) = container {
                node.parents.insert("container".into(), [format!("{};<container>", container.id).into()].into());
                node.parents.insert("container_image".into(), [format!("{};<container_image>", container.image_id).into()].into());
            }
            self.rows(Kind::Process, &mut node, rows);
            self.put(Kind::Process, node, metrics);
        }
        self.templates(
            Kind::Process,
            1,
            &[
                ("pid", "PID", "number", "latest"),
                ("cmdline", "Command", "", "latest"),
                ("ppid", "Parent PID", "number", "latest"),
                ("threads", "# Threads", "number", "latest"),
            ],
        );
    }

    /// Each flow is a connection between two endpoints, of which the one that was seen has a process. One that is in the table of processes:
    /// readers make a bare node of what an endpoint names and nobody describes.
    fn flows(&mut self, host: &HostExport, flows: &[FlowEntry]) {
        let host_id: Text = format!("{};<host>", host.name).into();
        let described: BTreeSet<ProcessKey> = living(host).map(|it| it.record.key).collect();
        for flow in flows.iter().filter(|flow| flow.protocol == Protocol::Tcp) {
            let id = |address: IpAddr, port: u16| -> Text {
                // Every host has its own loopback.
                let scope = if address.is_loopback() { &*host.name } else { "" };
                format!("{scope};{address};{port}").into()
            };
            let taken = flow.translations.first().map(|it| it.server);
            let (server_address, server_port) = taken.unwrap_or((flow.server_address, flow.server_port));
            let client = id(flow.client_address, flow.client_port);
            let server = id(server_address, server_port);
            let (own, count) = match flow.direction {
                Direction::Client => (&client, flow.counters.active().max(1)),
                Direction::Server => (&server, flow.counters.active().max(1)),
            };
            for end in [&client, &server] {
                let mut node = Node::new(end.clone(), Kind::Endpoint);
                if end == own {
                    node.set("host_node_id", self.at, host_id.clone());
                    if let Some(process) = flow.process.filter(|process| described.contains(process)) {
                        node.set("pid", self.at, process.pid.to_string());
                    }
                }
                if *end == client {
                    node.adjacency.insert(server.clone());
                    if count > 1 {
                        node.set("conn_count", self.at, count.to_string());
                    }
                }
                let nodes = &mut self.report.table_mut(Kind::Endpoint).nodes;
                match nodes.get_mut(end) {
                    Some(known) => Arc::make_mut(known).merge(&node, Kind::Endpoint),
                    None => {
                        nodes.insert(end.clone(), Arc::new(node));
                    }
                }
            }
        }
    }
}

/// Processes that have not ended.
fn living(host: &HostExport) -> impl Iterator<Item = &ProcessExport> {
    host.processes.iter().filter(|it| it.record.exited_at.is_none())
}

/// The references that containers were made of, by the image's id: the map groups them by that, whatever else the image is called.
fn names_of_images(host: &HostExport) -> BTreeMap<&str, &str> {
    let made_of = host.containers.iter().map(|it| (&*it.record.image_id, &*it.record.image_name));
    made_of.filter(|(_, name)| !name.is_empty() && !name.starts_with("sha256:")).collect()
}
