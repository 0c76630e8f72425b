//! Reports of a small fleet, and every view that follows from them.

#![expect(clippy::unwrap_used, reason = "all of this is a test, helpers too: a surprise ends it")]

use std::fmt::Write as _;

use base::Timestamp;
use expect_test::{Expect, expect};
use scope_report::{Choice, Compression, Drawing, Format, Joints, Limits, Options, Report, Weighed, Window, WindowLimits, decode};
use topology::{Filter, View};

const LIMITS: Limits = Limits { bytes: 1 << 20, memory: 16 << 20 };

fn report(name: &str) -> Report {
    let body = std::fs::read(format!("{}/tests/data/{name}.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
    decode(&body, Format::Json, Compression::None, LIMITS).unwrap()
}

fn drawing(names: &[&str]) -> Drawing {
    let mut window = Window::new(std::time::Duration::from_secs(15), WindowLimits { nodes: 10_000, memory: 64 << 20 });
    for (second, name) in (0_u64..).zip(names) {
        window.add(Timestamp::from_unix_millis(1_000 * second), Weighed { report: report(name), weight: 0 });
    }
    Drawing::new(window.merged(), Joints::default())
}

fn defaults() -> Options {
    Options { choice: Some(Choice { filter: Filter::DEFAULT, hide_snapshots: true, namespaces: None }), ..Options::default() }
}

fn outline(drawing: &Drawing, view: View, options: &Options) -> String {
    let overlay = drawing.overlay(view, options);
    let short = |id: &str| {
        let (id, tag) = id.split_once(';').unwrap_or((id, ""));
        let id = if id.len() == 64 { &id[..4] } else { id };
        if tag.is_empty() { id.to_owned() } else { format!("{id};{tag}") }
    };
    let mut out = String::new();
    for (id, item) in &overlay.items {
        let it = item.summary();
        let edges: Vec<String> = it.adjacency.iter().map(|id| short(id.as_str())).collect();
        let marks = format!("{}{}", if it.stack { " stack" } else { "" }, if it.pseudo { " pseudo" } else { "" });
        writeln!(
            out,
            "{} | {} | {} | {} | {}{} -> {}",
            short(id.as_str()),
            it.label,
            it.label_minor,
            it.rank,
            it.shape.as_str(),
            marks,
            edges.join(" ")
        )
        .unwrap();
    }
    writeln!(out, "{:?}", overlay.stats).unwrap();
    out
}

#[track_caller]
fn check(names: &[&str], view: View, options: &Options, expected: Expect) {
    expected.assert_eq(&outline(&drawing(names), view, options));
}

#[test]
fn the_view_processes_unfiltered() {
    check(
        &["web", "db"],
        View::Processes,
        &Options::default(),
        expect![[r#"
        db-1;500 | postgres | db-1 (500) | postgres | square -> 
        db-1;501 | /usr/sbin/sshd | db-1 (501) | /usr/sbin/sshd | square -> 
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> web-1.example.com;200
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        web-1.example.com;100 | /usr/sbin/sshd | web-1.example.com (100) | /usr/sbin/sshd | square -> 
        web-1.example.com;200 | nginx | web-1.example.com (web:200) | nginx | square -> web-1.example.com;201
        web-1.example.com;201 | /app/api | web-1.example.com (api:201) | /app/api | square -> db-1;500
        web-1.example.com;300 | /usr/bin/curl | web-1.example.com (300) | /usr/bin/curl | square -> out-theinternet service-s3.amazonaws.com web-1.example.com;100
        web-1.example.com;999 | idle | web-1.example.com (999) | idle | square -> 
        ViewStats { node_count: 10, nonpseudo_node_count: 7, edge_count: 6, filtered_nodes: 0 }
    "#]],
    );
}

#[test]
fn the_view_processes_by_default() {
    check(
        &["web", "db"],
        View::Processes,
        &defaults(),
        expect![[r#"
        db-1;500 | postgres | db-1 (500) | postgres | square -> 
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> web-1.example.com;200
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        web-1.example.com;100 | /usr/sbin/sshd | web-1.example.com (100) | /usr/sbin/sshd | square -> 
        web-1.example.com;200 | nginx | web-1.example.com (web:200) | nginx | square -> web-1.example.com;201
        web-1.example.com;201 | /app/api | web-1.example.com (api:201) | /app/api | square -> db-1;500
        web-1.example.com;300 | /usr/bin/curl | web-1.example.com (300) | /usr/bin/curl | square -> out-theinternet service-s3.amazonaws.com web-1.example.com;100
        ViewStats { node_count: 8, nonpseudo_node_count: 5, edge_count: 6, filtered_nodes: 2 }
    "#]],
    );
}

#[test]
fn the_view_processes_by_name_unfiltered() {
    check(
        &["web", "db"],
        View::ProcessesByName,
        &Options::default(),
        expect![[r#"
        /app/api | /app/api | 1 process | /app/api | square stack -> postgres
        /usr/bin/curl | /usr/bin/curl | 1 process | /usr/bin/curl | square stack -> /usr/sbin/sshd out-theinternet service-s3.amazonaws.com
        /usr/sbin/sshd | /usr/sbin/sshd | 2 processes | /usr/sbin/sshd | square stack -> 
        idle | idle | 1 process | idle | square stack -> 
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> nginx
        nginx | nginx | 1 process | nginx | square stack -> /app/api
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        postgres | postgres | 1 process | postgres | square stack -> 
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        ViewStats { node_count: 9, nonpseudo_node_count: 6, edge_count: 6, filtered_nodes: 0 }
    "#]],
    );
}

#[test]
fn the_view_processes_by_name_by_default() {
    check(
        &["web", "db"],
        View::ProcessesByName,
        &defaults(),
        expect![[r#"
        /app/api | /app/api | 1 process | /app/api | square stack -> postgres
        /usr/bin/curl | /usr/bin/curl | 1 process | /usr/bin/curl | square stack -> /usr/sbin/sshd out-theinternet service-s3.amazonaws.com
        /usr/sbin/sshd | /usr/sbin/sshd | 2 processes | /usr/sbin/sshd | square stack -> 
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> nginx
        nginx | nginx | 1 process | nginx | square stack -> /app/api
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        postgres | postgres | 1 process | postgres | square stack -> 
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        ViewStats { node_count: 8, nonpseudo_node_count: 5, edge_count: 6, filtered_nodes: 1 }
    "#]],
    );
}

#[test]
fn the_view_containers_unfiltered() {
    check(
        &["web", "db"],
        View::Containers,
        &Options::default(),
        expect![[r#"
        a1a1;<container> | web | web-1.example.com | nginx | hexagon -> b2b2;<container>
        b2b2;<container> | /prod/api | web-1.example.com | team/api | hexagon -> pseudo:uncontained:db-1
        d4d4;<container> | old | web-1.example.com | nginx | hexagon -> 
        e5e5;<container> | weavescope | web-1.example.com | weaveworks/scope | hexagon -> 
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> a1a1;<container>
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        pseudo:uncontained:db-1 | Uncontained | db-1 | uncontained:db-1 | square stack pseudo -> 
        pseudo:uncontained:web-1.example.com | Uncontained | web-1.example.com | uncontained:web-1.example.com | square stack pseudo -> out-theinternet pseudo:uncontained:web-1.example.com service-s3.amazonaws.com
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        ViewStats { node_count: 9, nonpseudo_node_count: 4, edge_count: 6, filtered_nodes: 0 }
    "#]],
    );
}

#[test]
fn the_view_containers_by_default() {
    check(
        &["web", "db"],
        View::Containers,
        &defaults(),
        expect![[r#"
        a1a1;<container> | web | web-1.example.com | nginx | hexagon -> b2b2;<container>
        b2b2;<container> | /prod/api | web-1.example.com | team/api | hexagon -> 
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> a1a1;<container>
        ViewStats { node_count: 3, nonpseudo_node_count: 2, edge_count: 2, filtered_nodes: 6 }
    "#]],
    );
}

#[test]
fn the_view_containers_by_hostname_unfiltered() {
    check(
        &["web", "db"],
        View::ContainersByHostname,
        &Options::default(),
        expect![[r#"
        b2b2b2b2b2b2 | b2b2b2b2b2b2 | 1 container | b2b2b2b2b2b2 | hexagon stack -> pseudo:uncontained:db-1
        d4d4d4d4d4d4 | d4d4d4d4d4d4 | 1 container | d4d4d4d4d4d4 | hexagon stack -> 
        e5e5e5e5e5e5 | e5e5e5e5e5e5 | 1 container | e5e5e5e5e5e5 | hexagon stack -> 
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> web.local
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        pseudo:uncontained:db-1 | Uncontained | db-1 | uncontained:db-1 | square stack pseudo -> 
        pseudo:uncontained:web-1.example.com | Uncontained | web-1.example.com | uncontained:web-1.example.com | square stack pseudo -> out-theinternet pseudo:uncontained:web-1.example.com service-s3.amazonaws.com
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        web.local | web.local | 1 container | web.local | hexagon stack -> b2b2b2b2b2b2
        ViewStats { node_count: 9, nonpseudo_node_count: 4, edge_count: 6, filtered_nodes: 0 }
    "#]],
    );
}

#[test]
fn the_view_containers_by_hostname_by_default() {
    check(
        &["web", "db"],
        View::ContainersByHostname,
        &defaults(),
        expect![[r#"
        b2b2b2b2b2b2 | b2b2b2b2b2b2 | 1 container | b2b2b2b2b2b2 | hexagon stack -> 
        d4d4d4d4d4d4 | d4d4d4d4d4d4 | 1 container | d4d4d4d4d4d4 | hexagon stack -> 
        e5e5e5e5e5e5 | e5e5e5e5e5e5 | 1 container | e5e5e5e5e5e5 | hexagon stack -> 
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> web.local
        web.local | web.local | 1 container | web.local | hexagon stack -> b2b2b2b2b2b2
        ViewStats { node_count: 5, nonpseudo_node_count: 4, edge_count: 2, filtered_nodes: 4 }
    "#]],
    );
}

#[test]
fn the_view_containers_by_image_unfiltered() {
    check(
        &["web", "db"],
        View::ContainersByImage,
        &Options::default(),
        expect![[r#"
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> nginx;<container_image>
        nginx;<container_image> | nginx | 2 containers | nginx | hexagon stack -> team/api;<container_image>
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        pseudo:uncontained:db-1 | Uncontained | db-1 | uncontained:db-1 | square stack pseudo -> 
        pseudo:uncontained:web-1.example.com | Uncontained | web-1.example.com | uncontained:web-1.example.com | square stack pseudo -> out-theinternet pseudo:uncontained:web-1.example.com service-s3.amazonaws.com
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        team/api;<container_image> | team/api | 1 container | team/api | hexagon stack -> pseudo:uncontained:db-1
        weaveworks/scope;<container_image> | weaveworks/scope | 1 container | weaveworks/scope | hexagon stack -> 
        ViewStats { node_count: 8, nonpseudo_node_count: 3, edge_count: 6, filtered_nodes: 0 }
    "#]],
    );
}

#[test]
fn the_view_containers_by_image_by_default() {
    check(
        &["web", "db"],
        View::ContainersByImage,
        &defaults(),
        expect![[r#"
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> nginx;<container_image>
        nginx;<container_image> | nginx | 2 containers | nginx | hexagon stack -> team/api;<container_image>
        team/api;<container_image> | team/api | 1 container | team/api | hexagon stack -> 
        ViewStats { node_count: 3, nonpseudo_node_count: 2, edge_count: 2, filtered_nodes: 5 }
    "#]],
    );
}

#[test]
fn the_view_hosts_unfiltered() {
    check(
        &["web", "db"],
        View::Hosts,
        &Options::default(),
        expect![[r#"
        db-1;<host> | db-1 |  |  | circle -> 
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> web-1.example.com;<host>
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        web-1.example.com;<host> | web-1 | example.com | example.com | circle -> db-1;<host> out-theinternet service-s3.amazonaws.com web-1.example.com;<host>
        ViewStats { node_count: 5, nonpseudo_node_count: 2, edge_count: 5, filtered_nodes: 0 }
    "#]],
    );
}

#[test]
fn the_view_hosts_by_default() {
    check(
        &["web", "db"],
        View::Hosts,
        &defaults(),
        expect![[r#"
        db-1;<host> | db-1 |  |  | circle -> 
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> web-1.example.com;<host>
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        web-1.example.com;<host> | web-1 | example.com | example.com | circle -> db-1;<host> out-theinternet service-s3.amazonaws.com web-1.example.com;<host>
        ViewStats { node_count: 5, nonpseudo_node_count: 2, edge_count: 5, filtered_nodes: 0 }
    "#]],
    );
}

#[test]
fn the_view_pods_of_a_cluster() {
    check(
        &["cluster", "web"],
        View::Pods,
        &Options::default(),
        expect![[r#"
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> pseudo:unmanaged:web-1.example.com
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        pseudo:unmanaged:web-1.example.com | Unmanaged | web-1.example.com | unmanaged:web-1.example.com | square stack pseudo -> out-theinternet pseudo:unmanaged:web-1.example.com service-s3.amazonaws.com
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        uid-back;<pod> | back | 0 containers | shop/back | heptagon -> uid-pvc;<persistent_volume_claim>
        uid-front;<pod> | front | 1 container | shop/front | heptagon -> uid-back;<pod>
        uid-pv;<persistent_volume> | pv1 |  | /pv1 | cylinder -> uid-snap;<volume_snapshot>
        uid-pvc;<persistent_volume_claim> | data |  | shop/data | dottedcylinder -> uid-pv;<persistent_volume>
        uid-snap;<volume_snapshot> | snap |  | shop/snap | dottedcylinder -> 
        ViewStats { node_count: 9, nonpseudo_node_count: 5, edge_count: 8, filtered_nodes: 0 }
    "#]],
    );
}

#[test]
fn the_view_pods_of_a_cluster_by_default() {
    check(
        &["cluster", "web"],
        View::Pods,
        &defaults(),
        expect![[r#"
        uid-back;<pod> | back | 0 containers | shop/back | heptagon -> 
        uid-front;<pod> | front | 1 container | shop/front | heptagon -> uid-back;<pod>
        ViewStats { node_count: 2, nonpseudo_node_count: 2, edge_count: 1, filtered_nodes: 7 }
    "#]],
    );
}

#[test]
fn the_view_kube_controllers_of_a_cluster() {
    check(
        &["cluster", "web"],
        View::KubeControllers,
        &Options::default(),
        expect![[r#"
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> pseudo:unmanaged:web-1.example.com
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        pseudo:unmanaged: | Unmanaged |  | unmanaged: | square stack pseudo -> pseudo:unmanaged:
        pseudo:unmanaged:web-1.example.com | Unmanaged | web-1.example.com | unmanaged:web-1.example.com | square stack pseudo -> out-theinternet pseudo:unmanaged:web-1.example.com service-s3.amazonaws.com
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        uid-dep;<deployment> | front | Deployment of 1 pod | shop/front | heptagon stack -> pseudo:unmanaged:
        ViewStats { node_count: 6, nonpseudo_node_count: 1, edge_count: 6, filtered_nodes: 0 }
    "#]],
    );
}

#[test]
fn the_view_kube_controllers_of_a_cluster_by_default() {
    check(
        &["cluster", "web"],
        View::KubeControllers,
        &defaults(),
        expect![[r#"
        uid-dep;<deployment> | front | Deployment of 1 pod | shop/front | heptagon stack -> 
        ViewStats { node_count: 1, nonpseudo_node_count: 1, edge_count: 0, filtered_nodes: 5 }
    "#]],
    );
}

#[test]
fn the_view_services_of_a_cluster() {
    check(
        &["cluster", "web"],
        View::Services,
        &Options::default(),
        expect![[r#"
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> pseudo:unmanaged:web-1.example.com
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        pseudo:unmanaged:web-1.example.com | Unmanaged | web-1.example.com | unmanaged:web-1.example.com | square stack pseudo -> out-theinternet pseudo:unmanaged:web-1.example.com service-s3.amazonaws.com
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        uid-svc;<service> | front | 1 pod | shop/front | heptagon stack -> 
        ViewStats { node_count: 5, nonpseudo_node_count: 1, edge_count: 4, filtered_nodes: 0 }
    "#]],
    );
}

#[test]
fn the_view_services_of_a_cluster_by_default() {
    check(
        &["cluster", "web"],
        View::Services,
        &defaults(),
        expect![[r#"
        uid-svc;<service> | front | 1 pod | shop/front | heptagon stack -> 
        ViewStats { node_count: 1, nonpseudo_node_count: 1, edge_count: 0, filtered_nodes: 4 }
    "#]],
    );
}

#[test]
fn the_view_hosts_of_a_cluster() {
    check(
        &["cluster", "web"],
        View::Hosts,
        &Options::default(),
        expect![[r#"
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> web-1.example.com;<host>
        node-1;<host> | node-1 |  |  | circle -> 
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        web-1.example.com;<host> | web-1 | example.com | example.com | circle -> out-theinternet service-s3.amazonaws.com web-1.example.com;<host>
        ViewStats { node_count: 5, nonpseudo_node_count: 2, edge_count: 4, filtered_nodes: 0 }
    "#]],
    );
}

#[test]
fn the_view_hosts_of_a_cluster_by_default() {
    check(
        &["cluster", "web"],
        View::Hosts,
        &defaults(),
        expect![[r#"
        in-theinternet | The Internet | Inbound connections | in-theinternet | cloud pseudo -> web-1.example.com;<host>
        node-1;<host> | node-1 |  |  | circle -> 
        out-theinternet | The Internet | Outbound connections | out-theinternet | cloud pseudo -> 
        service-s3.amazonaws.com | s3.amazonaws.com |  | service-s3.amazonaws.com | cloud pseudo -> 
        web-1.example.com;<host> | web-1 | example.com | example.com | circle -> out-theinternet service-s3.amazonaws.com web-1.example.com;<host>
        ViewStats { node_count: 5, nonpseudo_node_count: 2, edge_count: 4, filtered_nodes: 0 }
    "#]],
    );
}
